//! The UPDATE message.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    AttributeError, AttributeFlags, Attributes, EncodeError, Family, NlriList, SessionContext, Treatment,
    UpdateError, attribute_decode::Decoder, attribute_encode::put_header, reader::Reader, rules::codes,
};

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

impl NextHop {
    /// Whether packets can be sent there (RFC 4271 §6.3): not 0.0.0.0/8, multicast or beyond, `::` or multicast.
    /// Loopback addresses are left to policy.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        match self {
            Self::V4(address) => {
                let [first, ..] = address.octets();
                first != 0 && first < 224
            }
            Self::V6(address) => !address.is_unspecified() && !address.is_multicast(),
            Self::V6WithLinkLocal { global, link_local } => {
                !global.is_multicast() && link_local.is_unicast_link_local()
            }
        }
    }

    /// The octets of MP_REACH_NLRI's next hop.
    pub(crate) fn write(self, out: &mut BytesMut) {
        match self {
            Self::V4(address) => out.put_slice(&address.octets()),
            Self::V6(address) => out.put_slice(&address.octets()),
            Self::V6WithLinkLocal { global, link_local } => {
                out.put_slice(&global.octets());
                out.put_slice(&link_local.octets());
            }
        }
    }

    /// How many octets [`write`](Self::write) writes.
    pub(crate) const fn len(self) -> u8 {
        match self {
            Self::V4(_) => 4,
            Self::V6(_) => 16,
            Self::V6WithLinkLocal { .. } => 32,
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

    /// Whether it announces nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Unicast { nlri, .. } => nlri.is_empty(),
            Self::Opaque { nlri, .. } => nlri.is_empty(),
        }
    }

    /// Appends the attribute.
    fn write(&self, cx: &SessionContext, out: &mut BytesMut) -> Result<(), EncodeError> {
        let mut value = BytesMut::new();
        value.put_slice(&self.family().to_bytes());
        match self {
            Self::Unicast { next_hop, nlri } => {
                value.put_u8(next_hop.len());
                next_hop.write(&mut value);
                value.put_u8(0);
                nlri.encode(cx.sends_path_ids(nlri.family()), &mut value);
            }
            Self::Opaque { next_hop, nlri, .. } => {
                let length = u8::try_from(next_hop.len()).map_err(|_| EncodeError::ValueTooLarge {
                    field: "next hop length",
                    value: next_hop.len() as u64,
                    max: u64::from(u8::MAX),
                })?;
                value.put_u8(length);
                value.put_slice(next_hop);
                value.put_u8(0);
                value.put_slice(nlri);
            }
        }
        put_header(AttributeFlags::OPTIONAL, codes::MP_REACH_NLRI, value.len(), out)?;
        out.put_slice(&value);
        Ok(())
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

    /// Whether it withdraws nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Unicast(nlri) => nlri.is_empty(),
            Self::Opaque { nlri, .. } => nlri.is_empty(),
        }
    }

    /// Appends the attribute.
    fn write(&self, cx: &SessionContext, out: &mut BytesMut) -> Result<(), EncodeError> {
        let mut value = BytesMut::new();
        value.put_slice(&self.family().to_bytes());
        match self {
            Self::Unicast(nlri) => nlri.encode(cx.sends_path_ids(nlri.family()), &mut value),
            Self::Opaque { nlri, .. } => value.put_slice(nlri),
        }
        put_header(AttributeFlags::OPTIONAL, codes::MP_UNREACH_NLRI, value.len(), out)?;
        out.put_slice(&value);
        Ok(())
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
        let bare = self.withdrawn.is_empty()
            && self.announced.is_empty()
            && self.mp_reach.is_none()
            && self.errors.is_empty()
            && self.attributes == Attributes::default();
        match &self.mp_unreach {
            _ if !bare => None,
            None => Some(Family::IPV4_UNICAST),
            Some(unreach) => unreach.is_empty().then(|| unreach.family()),
        }
    }

    /// Whether a malformed attribute turns the announced routes into withdrawn ones (RFC 7606 §2).
    #[must_use]
    pub fn treat_as_withdraw(&self) -> bool {
        self.errors.iter().any(|error| error.treatment >= Treatment::Withdraw)
    }

    /// The unicast routes to take in, each list with its next hop: none if they are to be treated as withdrawn.
    ///
    /// Routes of a family that was not agreed on are the caller's to leave out.
    pub fn announcements(&self) -> impl Iterator<Item = (NextHop, &NlriList)> {
        let sound = !self.treat_as_withdraw();
        let body = self.attributes.next_hop.map(|address| (NextHop::V4(address), &self.announced));
        let multiprotocol = match &self.mp_reach {
            Some(MpReach::Unicast { next_hop, nlri }) => Some((*next_hop, nlri)),
            _ => None,
        };
        body.into_iter().chain(multiprotocol).filter(move |(_, nlri)| sound && !nlri.is_empty())
    }

    /// The unicast routes to drop: those withdrawn, and the announced ones if they are to be treated so. Drop before
    /// taking in: a prefix that is in both is announced (RFC 4271 §4.3).
    pub fn withdrawals(&self) -> impl Iterator<Item = &NlriList> {
        let unsound = self.treat_as_withdraw();
        let unreach = match &self.mp_unreach {
            Some(MpUnreach::Unicast(nlri)) => Some(nlri),
            _ => None,
        };
        let reach = match &self.mp_reach {
            Some(MpReach::Unicast { nlri, .. }) if unsound => Some(nlri),
            _ => None,
        };
        let announced = unsound.then_some(&self.announced);
        [Some(&self.withdrawn), unreach, announced, reach]
            .into_iter()
            .flatten()
            .filter(|nlri| !nlri.is_empty())
    }

    /// Reads the body of an UPDATE.
    pub(crate) fn decode(body: &[u8], cx: &SessionContext) -> Result<Self, UpdateError> {
        let mut reader = Reader(body);
        let withdrawn = reader.counted_u16().ok_or(UpdateError::Lengths)?;
        let attributes = reader.counted_u16().ok_or(UpdateError::Lengths)?;
        let path_ids = cx.receives_path_ids(Family::IPV4_UNICAST);
        let read = |bytes, field| {
            NlriList::decode(Family::IPV4_UNICAST, path_ids, bytes)
                .ok_or(UpdateError::InvalidNetworkField { field })
        };
        let withdrawn = read(withdrawn, "withdrawn routes")?;
        let announced = read(reader.0, "NLRI")?;
        let decoded = Decoder::decode(attributes, !announced.is_empty(), cx)?;
        Ok(Self {
            withdrawn,
            announced,
            mp_reach: decoded.mp_reach,
            mp_unreach: decoded.mp_unreach,
            attributes: decoded.attributes,
            errors: decoded.errors,
        })
    }

    /// Appends the body of an UPDATE. MP_REACH_NLRI and MP_UNREACH_NLRI come first (RFC 7606 §5.1).
    pub(crate) fn write(&self, cx: &SessionContext, out: &mut BytesMut) -> Result<(), EncodeError> {
        let path_ids = cx.sends_path_ids(Family::IPV4_UNICAST);
        with_length(out, |out| {
            self.withdrawn.encode(path_ids, out);
            Ok(())
        })?;
        with_length(out, |out| {
            if let Some(reach) = &self.mp_reach {
                reach.write(cx, out)?;
            }
            if let Some(unreach) = &self.mp_unreach {
                unreach.write(cx, out)?;
            }
            self.attributes.write(cx, out)
        })?;
        self.announced.encode(path_ids, out);
        Ok(())
    }
}

/// Writes a field and, before it, its length in two octets.
fn with_length(
    out: &mut BytesMut,
    write: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.put_u16(0);
    write(out)?;
    let length = out.len() - start - 2;
    let length = u16::try_from(length).map_err(|_| EncodeError::AttributesTooLong { length })?;
    if let Some(field) = out.get_mut(start..start + 2) {
        field.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}
