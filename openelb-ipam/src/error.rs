//! Why something was refused: values with cause and remedy, never strings to be parsed.

use std::net::IpAddr;

use thiserror::Error;

use crate::range::Family;
use crate::sharing::{Conflict, HolderId};

/// A list of ranges that cannot be read: which entry, why, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{entry:?}: {problem}")]
pub struct RangeError {
    /// The bad entry as it was written.
    pub entry: String,
    /// What is wrong with it.
    pub problem: RangeProblem,
}

/// What is wrong with one entry of a list of ranges, or with one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RangeProblem {
    /// Nothing but separators.
    #[error("the list is empty; write at least one address, network or range, for example 192.0.2.0/24")]
    Empty,
    /// No address could be read.
    #[error("not an IP address; write for example 192.0.2.1, 192.0.2.0/24 or 192.0.2.1-192.0.2.9")]
    NotAnAddress,
    /// An IPv4 part like `010`, which some programs read as octal.
    #[error("an IPv4 part has a leading zero, which some programs read as octal; remove the zero")]
    LeadingZeros,
    /// `::ffff:192.0.2.1`.
    #[error("an IPv4-mapped IPv6 address; write the IPv4 address itself")]
    Ipv4Mapped,
    /// `fe80::1%eth0`.
    #[error("an address with a zone; remove the part from the % on")]
    Zone,
    /// A prefix length that is no number or too long.
    #[error("the prefix length is not a number from 0 to {max}")]
    PrefixLength {
        /// Bits of the family.
        max: u8,
    },
    /// An IPv4 mask with holes.
    #[error("not a netmask of ones followed by zeros; write a prefix length, for example /24")]
    NotAMask,
    /// The range ends before it begins.
    #[error("the range ends before it begins; swap its ends")]
    Reversed,
    /// One end IPv4, the other IPv6.
    #[error("the ends of the range are of different families; write two ranges")]
    MixedFamilies,
    /// `192.0.2.0/25-192.0.2.200`.
    #[error("an end of a range is a network; write plain addresses around the '-'")]
    NetworkInRange,
    /// A `-` without an address on one of its sides.
    #[error("a '-' needs exactly one address on each side")]
    DanglingDash,
}

/// Why a pool does not give an address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The pool gives nothing new.
    #[error("{0}")]
    Closed(#[from] Closed),
    /// The pool has no address of the family.
    #[error("has no {0} address")]
    FamilyUnavailable(Family),
    /// Nothing is left that could be given without being asked for by name.
    #[error("all {size} addresses are taken{}", Dangerous(.dangerous))]
    Exhausted {
        /// Usable addresses of this family.
        size: u128,
        /// Free ones which are given only by name, the lowest few.
        dangerous: Vec<IpAddr>,
    },
    /// The address is in no range of the pool, or of any pool.
    #[error("{0} is outside its ranges")]
    OutsidePool(IpAddr),
    /// The address is in a range and taken out of it.
    #[error("{0} is excluded")]
    Excluded(IpAddr),
    /// The address belongs to somebody, and sharing it is out of the question.
    #[error("{address} is held by {holder}")]
    InUse {
        /// The address that was asked for.
        address: IpAddr,
        /// The oldest of its holders.
        holder: HolderId,
    },
    /// The address could be shared but for one thing.
    #[error("{address} cannot be shared with {holder}: {conflict}")]
    SharingConflict {
        /// The address that was asked for.
        address: IpAddr,
        /// The holder that stands against it.
        holder: HolderId,
        /// The thing.
        conflict: Conflict,
    },
    /// The address could be had, but the other family could not, and both were asked for or none.
    #[error("could give {0}, but both families are required and the other one is refused")]
    Incomplete(IpAddr),
    /// The group has as many addresses of this pool as it may.
    #[error("{group} already has {limit} of at most {limit} addresses of this pool")]
    QuotaExceeded {
        /// Whose quota.
        group: String,
        /// The quota.
        limit: u64,
    },
}

/// Why a pool gives nothing new; its holders keep what they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Closed {
    /// Switched off by its owner.
    #[error("is disabled")]
    Disabled,
    /// On its way out.
    #[error("is being deleted")]
    Deleting,
    /// Its description cannot be used.
    #[error("is not usable")]
    Invalid,
    /// Its record cannot take more.
    #[error("has no room left to record another address")]
    Full,
}

/// Tail of the message of [`Refusal::Exhausted`].
struct Dangerous<'a>(&'a [IpAddr]);

impl std::fmt::Display for Dangerous<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, address) in self.0.iter().enumerate() {
            f.write_str(if i == 0 { "; only by name: " } else { ", " })?;
            write!(f, "{address}")?;
        }
        Ok(())
    }
}
