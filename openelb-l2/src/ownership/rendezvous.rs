//! Highest random weight ("rendezvous") hashing: each node has a score for each address, and the highest one wins.
//!
//! A node that goes moves only its own addresses, and one that comes takes only those that it is best at. The score
//! depends on the address and the node's name alone, never on who else is there.
//!
//! ```
//! use openelb_l2::{ownership::rendezvous, speaker::NodeName};
//!
//! let nodes = ["a", "b", "c"].map(NodeName::new).into_iter().collect::<Result<Vec<_>, _>>()?;
//! let address = "192.0.2.10".parse()?;
//! let best = nodes.iter().max_by_key(|node| rendezvous::score(address, node)).ok_or("no node")?;
//! let without: Vec<_> = nodes.iter().filter(|node| *node != best).collect();
//! assert!(without.iter().all(|node| rendezvous::score(address, node) < rendezvous::score(address, best)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::net::IpAddr;

use super::message::NodeId;
use crate::speaker::NodeName;

/// The score of a node for an address. It is part of the wire contract: all nodes of a cluster compute the same.
pub fn score(address: IpAddr, node: &NodeName) -> u64 {
    score_of(address, NodeId::of(node))
}

pub(crate) fn score_of(address: IpAddr, node: NodeId) -> u64 {
    let octets = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    mix(hash(&octets) ^ mix(node.0))
}

/// FNV-1a of 64 bits, finished with a mixer: stable across versions and machines.
pub(crate) fn hash(octets: &[u8]) -> u64 {
    let fnv = octets.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(fnv)
}

/// The finaliser of `splitmix64`: a bijection in which each bit of input changes half of the output.
const fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn best<'a>(address: IpAddr, nodes: impl IntoIterator<Item = &'a NodeName>) -> &'a NodeName {
        nodes.into_iter().max_by_key(|node| score(address, node)).unwrap()
    }

    fn spread(nodes: &[NodeName], addresses: &[IpAddr]) -> Vec<usize> {
        let owned =
            |node: &&NodeName| addresses.iter().filter(|address| best(**address, nodes) == *node).count();
        nodes.iter().map(|node| owned(&node)).collect()
    }

    fn names(count: usize, name: impl Fn(usize) -> String) -> Vec<NodeName> {
        (0..count).map(|n| NodeName::new(&name(n)).unwrap()).collect()
    }

    fn addresses(first: &str, count: u32) -> Vec<IpAddr> {
        let first: IpAddr = first.parse().unwrap();
        let address = |n: u32| match first {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() + n)),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() + u128::from(n))),
        };
        (0..count).map(address).collect()
    }

    #[test]
    fn the_score_is_part_of_the_wire_contract() {
        let node = NodeName::new("node-1").unwrap();
        let scores = ["192.0.2.10", "2001:db8::10"].map(|a| score(a.parse().unwrap(), &node));
        assert_eq!(scores, EXPECTED);
    }

    /// From another implementation, in Python.
    const EXPECTED: [u64; 2] = [15586374628466371282, 3600513968076167668];

    #[test]
    fn many_addresses_spread_evenly() {
        let counts = spread(&names(10, |n| format!("node-{n}")), &addresses("192.168.0.0", 10_000));
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    /// As people name nodes, and as pools are.
    #[test]
    fn a_hundred_addresses_on_ten_nodes() {
        let schemes: [&dyn Fn(usize) -> String; 5] = [
            &|n| format!("node-{n}"),
            &|n| format!("worker{:02}.example.com", n + 1),
            &|n| format!("ip-10-0-{n}-17.eu-west-1.compute.internal"),
            &|n| format!("{}", char::from(b'a' + u8::try_from(n).unwrap())),
            &|n| format!("prod-rack{}-{}", n / 5, n % 5),
        ];
        for scheme in schemes {
            let nodes = names(10, scheme);
            for first in
                ["192.168.0.0", "192.168.0.100", "10.0.0.1", "203.0.113.0", "2001:db8::1", "fd00::100"]
            {
                let addresses = addresses(first, 100);
                let counts = spread(&nodes, &addresses);
                // max / mean <= 1.9
                assert!(*counts.iter().max().unwrap() <= 19, "{} {first}: {counts:?}", nodes[0]);
                for gone in &nodes {
                    let rest = || nodes.iter().filter(|node| *node != gone);
                    for address in &addresses {
                        let (before, after) = (best(*address, &nodes), best(*address, rest()));
                        assert!(
                            before == gone || before == after,
                            "{address} moves from {before} to {after}"
                        );
                    }
                }
            }
        }
    }
}
