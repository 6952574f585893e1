//! The UPDATE message.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use bytes::Bytes;

use super::{AttributeError, Attributes, Family, NlriList, Treatment};

/// The next hop in MP_REACH_NLRI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    /// 4 octets.
    V4(Ipv4Addr),
    /// 16 octets: a global address, or a link-local one alone.
    V6(Ipv6Addr),
    /// 32 octets: a global address and the link-local one of the same router (RFC 2545 §3).
    V6WithLinkLocal {
        /// The global address, or `::` if there is none.
        global: Ipv6Addr,
        /// The link-local address.
        link_local: Ipv6Addr,
    },
}

impl NextHop {
    /// The address to send packets to, as far as it is told: the global one.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        match self {
            Self::V4(address) => IpAddr::V4(address),
            Self::V6(address) | Self::V6WithLinkLocal { global: address, .. } => IpAddr::V6(address),
        }
    }
}

impl From<IpAddr> for NextHop {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6(address),
        }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::V6(address) => address.fmt(f),
            Self::V6WithLinkLocal { global, link_local } => write!(f, "{global} {link_local}"),
        }
    }
}

/// MP_REACH_NLRI (RFC 4760 §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MpReach {
    /// Prefixes of a unicast family.
    Unicast {
        /// Their next hop.
        next_hop: NextHop,
        /// The prefixes.
        nlri: NlriList,
    },
    /// Any other family, as received.
    Opaque {
        /// The family.
        family: Family,
        /// The next hop's octets, at most 255.
        next_hop: Bytes,
        /// The NLRI's octets.
        nlri: Bytes,
    },
}

impl MpReach {
    /// The family.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self {
            Self::Unicast { nlri, .. } => nlri.family(),
            Self::Opaque { family, .. } => *family,
        }
    }
}

/// MP_UNREACH_NLRI (RFC 4760 §4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MpUnreach {
    /// Prefixes of a unicast family.
    Unicast(NlriList),
    /// Any other family, as received.
    Opaque {
        /// The family.
        family: Family,
        /// The NLRI's octets.
        nlri: Bytes,
    },
}

impl MpUnreach {
    /// The family.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self {
            Self::Unicast(nlri) => nlri.family(),
            Self::Opaque { family, .. } => *family,
        }
    }
}

/// Routes: withdrawn, and announced with their attributes (RFC 4271 §4.3).
///
/// [`announcements`](Self::announcements) and [`withdrawals`](Self::withdrawals) are what to do, errors considered; the
/// fields are what the message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// IPv4 prefixes withdrawn in the body.
    pub withdrawn: NlriList,
    /// IPv4 prefixes announced in the body; their next hop is [`Attributes::next_hop`].
    pub announced: NlriList,
    /// Routes announced in MP_REACH_NLRI.
    pub mp_reach: Option<MpReach>,
    /// Routes withdrawn in MP_UNREACH_NLRI.
    pub mp_unreach: Option<MpUnreach>,
    /// What holds for all routes announced. Malformed ones are missing.
    pub attributes: Attributes,
    /// What was malformed, in the order found. Empty in messages that are to be sent.
    pub errors: Vec<AttributeError>,
}

impl Update {
    /// An UPDATE that says nothing, which is the End-of-RIB of IPv4 unicast.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            withdrawn: NlriList::empty(Family::IPV4_UNICAST),
            announced: NlriList::empty(Family::IPV4_UNICAST),
            mp_reach: None,
            mp_unreach: None,
            attributes: Attributes::default(),
            errors: Vec::new(),
        }
    }

    /// The End-of-RIB marker of a family (RFC 4724 §2).
    #[must_use]
    pub fn end_of_rib(family: Family) -> Self {
        let mp_unreach = match family {
            Family::IPV4_UNICAST => None,
            Family::IPV6_UNICAST => Some(MpUnreach::Unicast(NlriList::empty(family))),
            family => Some(MpUnreach::Opaque { family, nlri: Bytes::new() }),
        };
        Self { mp_unreach, ..Self::empty() }
    }

    /// The family whose End-of-RIB marker this is, if it is one.
    #[must_use]
    pub fn end_of_rib_family(&self) -> Option<Family> {
        None
    }

    /// Whether a malformed attribute turns the announced routes into withdrawn ones (RFC 7606 §2).
    #[must_use]
    pub fn treat_as_withdraw(&self) -> bool {
        self.errors.iter().any(|error| error.treatment >= Treatment::Withdraw)
    }

    /// The unicast routes to take in, each list with its next hop: none if they are to be treated as withdrawn.
    pub fn announcements(&self) -> impl Iterator<Item = (NextHop, &NlriList)> {
        let _ = self;
        std::iter::empty()
    }

    /// The unicast routes to drop: those withdrawn, and the announced ones if they are to be treated so.
    pub fn withdrawals(&self) -> impl Iterator<Item = &NlriList> {
        let _ = self;
        std::iter::empty()
    }
}
