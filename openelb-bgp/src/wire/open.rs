//! The OPEN message.

use std::net::Ipv4Addr;

use super::{AddPathFamily, AddPathMode, Capability, Family, GracefulRestart};

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
}
