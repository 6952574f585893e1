//! Capabilities as GoBGP's messages.

use prost_types::Any;

use super::{any::pack, family::family};
use crate::{
    grpc::apipb,
    wire::{AddPathMode, Capability, Family},
};

/// The F bit of a family (RFC 4724 §3).
const FORWARDING: u32 = 0x80;
/// The R and N bits, as GoBGP has them: the upper four bits of the capability.
const RESTARTED: u32 = 0x08;
const NOTIFICATION: u32 = 0x04;
/// Capabilities that are not decoded, and that GoBGP has messages for.
const ROUTE_REFRESH_CISCO: u8 = 128;
const FQDN: u8 = 73;

/// Long-lived graceful restart (RFC 9494 §3).
const LONG_LIVED_GRACEFUL_RESTART: u8 = 71;
/// Codes of which clients expect a message of their own: gobgp ends with a panic where one of them is "unknown".
const TYPED: [u8; 6] = [1, 5, 64, 69, LONG_LIVED_GRACEFUL_RESTART, FQDN];

/// Each capability as a message. Malformed ones that would have to be one of a kind are left out.
pub(super) fn capabilities(all: &[Capability]) -> Vec<Any> {
    all.iter().filter_map(capability).collect()
}

fn capability(capability: &Capability) -> Option<Any> {
    Some(match capability {
        Capability::Multiprotocol(of) => pack(&apipb::MultiProtocolCapability { family: Some(family(*of)) }),
        Capability::RouteRefresh => pack(&apipb::RouteRefreshCapability {}),
        // Clients refuse a whole list for one AFI that they do not know.
        Capability::ExtendedNextHop(rows) if rows.iter().all(|row| matches!(row.next_hop_afi, 1 | 2)) => {
            pack(&apipb::ExtendedNexthopCapability {
                tuples: rows
                    .iter()
                    .map(|row| apipb::ExtendedNexthopCapabilityTuple {
                        nlri_family: Some(family(row.family)),
                        nexthop_family: Some(family(Family { afi: row.next_hop_afi, safi: 1 })),
                    })
                    .collect(),
            })
        }
        Capability::GracefulRestart(restart) => {
            let restarted = if restart.restarted { RESTARTED } else { 0 };
            let notification = if restart.notification { NOTIFICATION } else { 0 };
            pack(&apipb::GracefulRestartCapability {
                flags: restarted | notification,
                time: u32::from(restart.time),
                tuples: restart
                    .families
                    .iter()
                    .map(|row| apipb::GracefulRestartCapabilityTuple {
                        family: Some(family(row.family)),
                        flags: if row.forwarding { FORWARDING } else { 0 },
                    })
                    .collect(),
            })
        }
        Capability::FourOctetAs(asn) => pack(&apipb::FourOctetAsnCapability { asn: *asn }),
        Capability::AddPath(rows) => pack(&apipb::AddPathCapability {
            tuples: rows
                .iter()
                .map(|row| apipb::AddPathCapabilityTuple {
                    family: Some(family(row.family)),
                    mode: match row.mode {
                        AddPathMode::Receive => 1,
                        AddPathMode::Send => 2,
                        AddPathMode::Both => 3,
                    },
                })
                .collect(),
        }),
        Capability::EnhancedRouteRefresh => pack(&apipb::EnhancedRouteRefreshCapability {}),
        Capability::Unknown { code: ROUTE_REFRESH_CISCO, .. } => pack(&apipb::RouteRefreshCiscoCapability {}),
        Capability::Unknown { code: FQDN, value } => {
            let (host_name, domain_name) = host_and_domain(value)?;
            pack(&apipb::FqdnCapability { host_name, domain_name })
        }
        Capability::Unknown { code: LONG_LIVED_GRACEFUL_RESTART, value } => {
            let (rows, []) = value.as_chunks::<7>() else { return None };
            let tuples = rows
                .iter()
                .map(|[high, low, safi, flags, a, b, c]| apipb::LongLivedGracefulRestartCapabilityTuple {
                    family: Some(family(Family { afi: u16::from_be_bytes([*high, *low]), safi: *safi })),
                    flags: u32::from(*flags),
                    time: u32::from_be_bytes([0, *a, *b, *c]),
                })
                .collect();
            pack(&apipb::LongLivedGracefulRestartCapability { tuples })
        }
        Capability::Unknown { code, .. } if TYPED.contains(code) => return None,
        Capability::Unknown { code, value } => unknown(*code, value),
        Capability::ExtendedNextHop(_) => return None,
        Capability::ExtendedMessage => unknown(capability.code(), &[]),
    })
}

fn unknown(code: u8, value: &[u8]) -> Any {
    pack(&apipb::UnknownCapability { code: u32::from(code), value: value.to_vec() })
}

/// Two texts, each after its length (draft-walton-bgp-hostname-capability).
fn host_and_domain(value: &[u8]) -> Option<(String, String)> {
    let (host_len, rest) = value.split_first()?;
    let (host, rest) = rest.split_at_checked(usize::from(*host_len))?;
    let (domain_len, domain) = rest.split_first()?;
    (domain.len() == usize::from(*domain_len))
        .then(|| (String::from_utf8_lossy(host).into_owned(), String::from_utf8_lossy(domain).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{AddPathFamily, GracefulRestart, GracefulRestartFamily};

    #[test]
    fn each_capability_has_gobgps_message() {
        let graceful = GracefulRestart {
            restarted: true,
            notification: true,
            time: 120,
            families: vec![GracefulRestartFamily { family: Family::IPV6_UNICAST, forwarding: true }],
        };
        let all = [
            Capability::Multiprotocol(Family::IPV4_UNICAST),
            Capability::GracefulRestart(graceful),
            Capability::AddPath(vec![AddPathFamily {
                family: Family::IPV4_UNICAST,
                mode: AddPathMode::Both,
            }]),
            Capability::Unknown { code: FQDN, value: b"\x02r1\x03lan".as_slice().into() },
            Capability::Unknown { code: FQDN, value: b"\x09r1".as_slice().into() },
            Capability::Unknown { code: 71, value: b"\0\x01\x01\x80\0\x0e\x10".as_slice().into() },
            Capability::Unknown { code: 71, value: b"\0".as_slice().into() },
            Capability::Unknown { code: 64, value: b"\0".as_slice().into() },
            Capability::ExtendedMessage,
        ];
        let messages = capabilities(&all);
        let names: Vec<&str> = messages.iter().map(super::super::any::name).collect();
        assert_eq!(
            names,
            [
                "apipb.MultiProtocolCapability",
                "apipb.GracefulRestartCapability",
                "apipb.AddPathCapability",
                "apipb.FqdnCapability",
                "apipb.LongLivedGracefulRestartCapability",
                "apipb.UnknownCapability",
            ]
        );
        let restart: apipb::GracefulRestartCapability = messages[1].to_msg().unwrap();
        assert_eq!((restart.flags, restart.time, restart.tuples[0].flags), (0x0c, 120, 0x80));
        let fqdn: apipb::FqdnCapability = messages[3].to_msg().unwrap();
        assert_eq!((fqdn.host_name.as_str(), fqdn.domain_name.as_str()), ("r1", "lan"));
        let long: apipb::LongLivedGracefulRestartCapability = messages[4].to_msg().unwrap();
        assert_eq!((long.tuples[0].time, long.tuples[0].flags), (3600, 0x80));
        let extended: apipb::UnknownCapability = messages[5].to_msg().unwrap();
        assert_eq!(extended.code, 6);
    }
}
