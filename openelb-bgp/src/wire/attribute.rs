//! Path attributes.

use std::{fmt, net::Ipv4Addr};

use bytes::Bytes;

use super::{AsPath, Community, ExtendedCommunity, LargeCommunity};

/// How a route came into BGP (RFC 4271 §5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// 0: from within its AS.
    Igp,
    /// 1: by the EGP protocol.
    Egp,
    /// 2: by other means.
    Incomplete,
}

impl Origin {
    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Igp,
            1 => Self::Egp,
            2 => Self::Incomplete,
            _ => return None,
        })
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Igp => 0,
            Self::Egp => 1,
            Self::Incomplete => 2,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Igp => "IGP",
            Self::Egp => "EGP",
            Self::Incomplete => "incomplete",
        })
    }
}

/// Who aggregated a route (RFC 4271 §5.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Aggregator {
    /// Its AS number, not 0 (RFC 7607).
    pub asn: u32,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
}

/// The flags octet of a path attribute (RFC 4271 §4.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttributeFlags(pub u8);

impl AttributeFlags {
    /// Optional, else well-known.
    pub const OPTIONAL: Self = Self(0x80);
    /// Transitive: passed on even by those who do not know it.
    pub const TRANSITIVE: Self = Self(0x40);
    /// Passed on by somebody who did not know it.
    pub const PARTIAL: Self = Self(0x20);
    /// The length has two octets.
    pub const EXTENDED_LENGTH: Self = Self(0x10);

    /// Whether all flags of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for AttributeFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}

/// An attribute of a code that is not decoded here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnknownAttribute {
    /// Its flags. The extended-length bit is not kept: it follows from the length.
    pub flags: AttributeFlags,
    /// Its type code.
    pub code: u8,
    /// Its value, at most 65,535 octets.
    pub value: Bytes,
}

/// The path attributes of an UPDATE but for MP_REACH_NLRI and MP_UNREACH_NLRI, which are [`Update`](super::Update)'s.
///
/// A list is empty where its attribute is absent: an empty one is malformed on the wire (RFC 7606 §7.8).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attributes {
    /// ORIGIN, 1.
    pub origin: Option<Origin>,
    /// AS_PATH, 2, already merged with AS4_PATH on a two-octet session (RFC 6793 §4.2.3).
    pub as_path: Option<AsPath>,
    /// NEXT_HOP, 3: of the IPv4 prefixes in the body of the UPDATE. Others have theirs in MP_REACH_NLRI.
    pub next_hop: Option<Ipv4Addr>,
    /// MULTI_EXIT_DISC, 4.
    pub med: Option<u32>,
    /// LOCAL_PREF, 5.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE, 6.
    pub atomic_aggregate: bool,
    /// AGGREGATOR, 7, already merged with AS4_AGGREGATOR.
    pub aggregator: Option<Aggregator>,
    /// COMMUNITIES, 8 (RFC 1997).
    pub communities: Vec<Community>,
    /// ORIGINATOR_ID, 9 (RFC 4456).
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST, 10 (RFC 4456).
    pub cluster_list: Vec<Ipv4Addr>,
    /// EXTENDED COMMUNITIES, 16 (RFC 4360).
    pub extended_communities: Vec<ExtendedCommunity>,
    /// LARGE_COMMUNITY, 32 (RFC 8092).
    pub large_communities: Vec<LargeCommunity>,
    /// ONLY_TO_CUSTOMER, 35: the AS that set it (RFC 9234 §5).
    pub only_to_customer: Option<u32>,
    /// All others, in the order received.
    pub unknown: Vec<UnknownAttribute>,
}

/// An attribute set in the form of the wire: cheap to clone, and shared by all routes and sessions that have it.
///
/// Two are equal if their bytes are, and [`Attributes::encode`](super::Attributes::encode) has one form for each set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EncodedAttributes {
    pub(crate) bytes: Bytes,
    pub(crate) has_next_hop: bool,
}

impl EncodedAttributes {
    /// The attributes, one after the other, without their total length.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether NEXT_HOP is among them: what IPv4 prefixes in the body of an UPDATE need, and others must not have.
    #[must_use]
    pub const fn has_next_hop(&self) -> bool {
        self.has_next_hop
    }
}
