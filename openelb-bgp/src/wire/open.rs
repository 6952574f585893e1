//! The OPEN message.

use std::net::Ipv4Addr;

use bytes::{BufMut, BytesMut};

use super::{
    AddPathFamily, AddPathMode, Capability, EncodeError, Family, GracefulRestart, OpenError, reader::Reader,
};

/// The AS number that stands for one of more than two octets (RFC 6793 §9).
pub const AS_TRANS: u16 = 23_456;

/// The first message of each end (RFC 4271 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Protocol version, 4.
    pub version: u8,
    /// AS number in two octets: [`AS_TRANS`] if it is longer. [`Open::four_octet_asn`] is the true one.
    pub asn: u16,
    /// Offered hold time in seconds: 0 (no keepalives), or 3 and more.
    pub hold_time: u16,
    /// BGP identifier, not 0.0.0.0 (RFC 6286).
    pub router_id: Ipv4Addr,
    /// Capabilities, in the order received, repeated ones included.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// An OPEN with the two forms of the AS number in place: the capability is put before `capabilities`.
    #[must_use]
    pub fn new(
        asn: u32,
        hold_time: u16,
        router_id: Ipv4Addr,
        capabilities: impl IntoIterator<Item = Capability>,
    ) -> Self {
        Self {
            version: 4,
            asn: u16::try_from(asn).unwrap_or(AS_TRANS),
            hold_time,
            router_id,
            capabilities: std::iter::once(Capability::FourOctetAs(asn)).chain(capabilities).collect(),
        }
    }

    /// The sender's AS number: that of its capability, else that of the message (RFC 6793 §4.1).
    #[must_use]
    pub fn four_octet_asn(&self) -> u32 {
        self.capability_asn().unwrap_or_else(|| u32::from(self.asn))
    }

    /// Whether the sender knows four-octet AS numbers.
    #[must_use]
    pub fn has_four_octet_as(&self) -> bool {
        self.capability_asn().is_some()
    }

    fn capability_asn(&self) -> Option<u32> {
        self.capabilities.iter().find_map(|capability| match capability {
            Capability::FourOctetAs(asn) => Some(*asn),
            _ => None,
        })
    }

    /// Whether a capability without value was sent, such as [`Capability::RouteRefresh`].
    #[must_use]
    pub fn has(&self, capability: &Capability) -> bool {
        self.capabilities.contains(capability)
    }

    /// The families offered, each once; IPv4 unicast alone if no multiprotocol capability was sent (RFC 4760 §8).
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let mut families = Vec::new();
        for capability in &self.capabilities {
            if let Capability::Multiprotocol(family) = capability
                && !families.contains(family)
            {
                families.push(*family);
            }
        }
        if families.is_empty() {
            families.push(Family::IPV4_UNICAST);
        }
        families
    }

    /// What the sender does with several paths in a family. Of repeated rows the last holds.
    #[must_use]
    pub fn add_path(&self, family: Family) -> Option<AddPathMode> {
        self.capabilities
            .iter()
            .filter_map(|capability| match capability {
                Capability::AddPath(families) => Some(families),
                _ => None,
            })
            .flatten()
            .rfind(|row: &&AddPathFamily| row.family == family)
            .map(|row| row.mode)
    }

    /// The graceful restart capability; the last one, if repeated.
    #[must_use]
    pub fn graceful_restart(&self) -> Option<&GracefulRestart> {
        self.capabilities.iter().rev().find_map(|capability| match capability {
            Capability::GracefulRestart(restart) => Some(restart),
            _ => None,
        })
    }

    /// Whether prefixes of `family` may have a next hop of `next_hop_afi` (RFC 8950 §4).
    #[must_use]
    pub fn has_extended_next_hop(&self, family: Family, next_hop_afi: u16) -> bool {
        self.capabilities.iter().any(|capability| match capability {
            Capability::ExtendedNextHop(rows) => {
                rows.iter().any(|row| row.family == family && row.next_hop_afi == next_hop_afi)
            }
            _ => false,
        })
    }

    /// Reads a body.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, OpenError> {
        let mut reader = Reader(body);
        let version = reader.u8().ok_or(OpenError::Malformed)?;
        if version != 4 {
            return Err(OpenError::UnsupportedVersion { version });
        }
        let asn = reader.u16().ok_or(OpenError::Malformed)?;
        let hold_time = reader.u16().ok_or(OpenError::Malformed)?;
        let router_id = Ipv4Addr::from(reader.array::<4>().ok_or(OpenError::Malformed)?);
        let capabilities = parameters(reader)?;
        let open = Self { version, asn, hold_time, router_id, capabilities };
        if asn == 0 || open.capability_asn() == Some(0) {
            return Err(OpenError::AsnZero);
        }
        if router_id.is_unspecified() {
            return Err(OpenError::RouterIdZero);
        }
        if matches!(hold_time, 1 | 2) {
            return Err(OpenError::UnacceptableHoldTime { seconds: hold_time });
        }
        Ok(open)
    }

    /// Appends the body: all capabilities in one optional parameter.
    pub(crate) fn write(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let mut capabilities = BytesMut::new();
        for capability in &self.capabilities {
            capability.write(&mut capabilities)?;
        }
        out.put_u8(self.version);
        out.put_u16(self.asn);
        out.put_u16(self.hold_time);
        out.put_slice(&self.router_id.octets());
        if capabilities.is_empty() {
            out.put_u8(0);
            return Ok(());
        }
        let length = capabilities.len();
        let too_long = EncodeError::CapabilitiesTooLong { length };
        // A parameter has 255 octets at most, and so have all parameters together with their headers of two.
        let inner = u8::try_from(length).ok().filter(|inner| *inner <= u8::MAX - 2).ok_or(too_long)?;
        out.put_slice(&[inner + 2, CAPABILITIES, inner]);
        out.put_slice(&capabilities);
        Ok(())
    }
}

/// The optional parameter of capabilities (RFC 5492 §4).
const CAPABILITIES: u8 = 2;

/// Reads the optional parameters, in their short form or that of RFC 9072.
fn parameters(mut reader: Reader<'_>) -> Result<Vec<Capability>, OpenError> {
    let length = reader.u8().ok_or(OpenError::Malformed)?;
    let extended = length != 0 && reader.0.first() == Some(&u8::MAX);
    let declared = if extended {
        reader.u8().ok_or(OpenError::Malformed)?;
        usize::from(reader.u16().ok_or(OpenError::Malformed)?)
    } else {
        usize::from(length)
    };
    if declared != reader.0.len() {
        return Err(OpenError::Malformed);
    }
    let mut capabilities = Vec::new();
    while !reader.is_empty() {
        let kind = reader.u8().ok_or(OpenError::Malformed)?;
        let value = if extended { reader.counted_u16() } else { reader.counted_u8() };
        let value = value.ok_or(OpenError::Malformed)?;
        if kind != CAPABILITIES {
            return Err(OpenError::UnsupportedParameter { kind });
        }
        let mut list = Reader(value);
        while !list.is_empty() {
            let code = list.u8().ok_or(OpenError::Malformed)?;
            let value = list.counted_u8().ok_or(OpenError::Malformed)?;
            capabilities.push(Capability::decode(code, value));
        }
    }
    Ok(capabilities)
}
