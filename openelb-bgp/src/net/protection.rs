//! What listeners check before a connection is there: TCP MD5 keys (RFC 2385), TTLs (GTSM, RFC 5082), sources.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::AsFd,
};

use ipnet::IpNet;

use super::{socket_options, sys};
use crate::speaker::{DynamicPeers, PeerConfig, Secret};

/// What holds for all connections of one IP version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hops {
    /// A neighbour wants our packets with TTL 255, the SYN-ACK among them.
    full: bool,
    /// SYNs with a lower TTL get no answer. One listener serves many neighbours, so this is the lowest that any of them
    /// may have, and 0 as soon as one of them has no TTL security; the rest is set on each connection when it is
    /// accepted.
    minimum: u8,
}

impl Hops {
    fn of<'a>(peers: impl Iterator<Item = &'a PeerConfig>) -> Self {
        let mut minimum = None;
        let mut full = false;
        for peer in peers {
            let wanted = peer.ttl_security.map_or(0, socket_options::minimum_ttl);
            full |= wanted > 0;
            minimum = Some(minimum.map_or(wanted, |other: u8| other.min(wanted)));
        }
        Self { full, minimum: minimum.unwrap_or_default() }
    }
}

/// What all listeners of a speaker check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Protection {
    keys: BTreeMap<IpNet, Secret>,
    ipv4: Hops,
    ipv6: Hops,
    sources: BTreeSet<IpAddr>,
    prefixes: Vec<IpNet>,
}

impl Protection {
    /// Of these neighbours.
    pub(super) fn new<'a>(
        peers: impl Iterator<Item = &'a PeerConfig> + Clone,
        groups: &'a [DynamicPeers],
    ) -> Self {
        let is_ipv4 = |prefix: &IpNet| prefix.addr().is_ipv4();
        let all = peers
            .map(|peer| (IpNet::from(peer.address.to_canonical()), peer))
            .chain(groups.iter().map(|group| (group.prefix.trunc(), &group.template)));
        let of =
            |ipv4: bool| all.clone().filter(move |(prefix, _)| is_ipv4(prefix) == ipv4).map(|(_, peer)| peer);
        let (ipv4, ipv6) = (Hops::of(of(true)), Hops::of(of(false)));
        let keys = all.clone().filter_map(|(prefix, peer)| Some((prefix, peer.password.clone()?))).collect();
        let hosts = all.clone().filter(|(prefix, _)| prefix.prefix_len() == prefix.max_prefix_len());
        Self {
            keys,
            ipv4,
            ipv6,
            sources: hosts.map(|(prefix, _)| prefix.addr()).collect(),
            prefixes: groups.iter().map(|group| group.prefix).collect(),
        }
    }

    /// Whether a neighbour may have this address. Any other is refused by the listener itself.
    pub(super) fn admits(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        self.sources.contains(&source) || self.prefixes.iter().any(|prefix| prefix.contains(&source))
    }

    /// Whether any neighbour has a password.
    pub(super) fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Makes a listening socket check what `self` says; `before` is what it checks now. Connections that are there
    /// already keep what they have. Gives what could not be done, in words; the rest is done.
    pub(super) fn apply(&self, socket: &impl AsFd, ipv4: bool, before: &Self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut note = |what: &dyn std::fmt::Display, result: std::io::Result<()>| {
            if let Err(error) = result {
                failures.push(format!("{what}: {error}"));
            }
        };
        let ours = |prefix: &&IpNet| prefix.addr().is_ipv4() == ipv4;
        for prefix in before.keys.keys().filter(ours).filter(|prefix| !self.keys.contains_key(prefix)) {
            // One that could not be set before is not there.
            let _ = sys::set_md5(socket, *prefix, &[]);
        }
        for (prefix, key) in self.keys.iter().filter(|(prefix, _)| ours(prefix)) {
            if before.keys.get(prefix) != Some(key) {
                note(prefix, socket_options::set_password(socket, *prefix, key));
            }
        }
        let (hops, old) = if ipv4 { (self.ipv4, before.ipv4) } else { (self.ipv6, before.ipv6) };
        if hops.full != old.full {
            let ttl = if hops.full { 255 } else { socket_options::DEFAULT_TTL };
            note(&"TTL of answers", socket_options::set_ttl(socket, ipv4, ttl));
        }
        if hops.minimum != old.minimum {
            note(&"TTL security", sys::set_minimum_ttl(socket, ipv4, hops.minimum));
        }
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str, hops: Option<u8>, password: Option<&str>) -> PeerConfig {
        let mut peer = PeerConfig::new(address, address.parse().unwrap(), 65001);
        peer.ttl_security = hops;
        peer.password = password.map(Secret::new);
        peer
    }

    #[test]
    fn a_listener_asks_for_what_all_its_neighbours_can_give() {
        let hops = |peers: &[PeerConfig]| {
            let protection = Protection::new(peers.iter(), &[]);
            [protection.ipv4, protection.ipv6].map(|hops| (hops.full, hops.minimum))
        };
        let (near, far, open) = (
            peer("192.0.2.1", Some(1), None),
            peer("192.0.2.2", Some(3), None),
            peer("192.0.2.3", None, None),
        );
        let six = peer("2001:db8::1", Some(1), None);
        assert_eq!(hops(&[]), [(false, 0), (false, 0)]);
        assert_eq!(hops(&[near.clone(), six]), [(true, 255), (true, 255)], "each IP version for itself");
        assert_eq!(hops(&[near.clone(), far.clone()]), [(true, 253), (false, 0)]);
        assert_eq!(hops(&[near, far, open]), [(true, 0), (false, 0)], "one without: asked for after accept");
    }

    #[test]
    fn who_may_connect_and_with_which_key() {
        let group = DynamicPeers {
            prefix: "198.51.100.7/24".parse().unwrap(),
            template: peer("198.51.100.1", None, Some("many")),
            max_peers: 10,
        };
        let peers = [peer("192.0.2.1", None, Some("one")), peer("192.0.2.2", None, None)];
        let protection = Protection::new(peers.iter(), std::slice::from_ref(&group));
        let keys: Vec<(String, &str)> =
            protection.keys.iter().map(|(prefix, key)| (prefix.to_string(), key.expose())).collect();
        assert_eq!(keys, [("192.0.2.1/32".into(), "one"), ("198.51.100.0/24".into(), "many")]);
        for (address, admitted) in [
            ("192.0.2.1", true),
            ("::ffff:192.0.2.2", true),
            ("192.0.2.3", false),
            ("198.51.100.200", true),
            ("198.51.101.1", false),
        ] {
            assert_eq!(protection.admits(address.parse().unwrap()), admitted, "{address}");
        }
        let shown = format!("{protection:?}");
        assert!(!shown.contains("one") && !shown.contains("many"), "{shown}");
    }
}
