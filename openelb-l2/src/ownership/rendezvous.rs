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
    use std::net::Ipv4Addr;

    fn spread(nodes: &[NodeName], addresses: u32) -> Vec<usize> {
        let mut counts = vec![0; nodes.len()];
        for n in 0..addresses {
            let address = IpAddr::V4(Ipv4Addr::from(0xc0a8_0000 + n));
            let best = (0..nodes.len()).max_by_key(|i| score(address, &nodes[*i])).unwrap();
            counts[best] += 1;
        }
        counts
    }

    fn names(count: usize) -> Vec<NodeName> {
        (0..count).map(|n| NodeName::new(&format!("node-{n}")).unwrap()).collect()
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
        let counts = spread(&names(10), 10_000);
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        let few = spread(&names(10), 100);
        assert!(*few.iter().max().unwrap() <= 19, "{few:?}");
    }

    #[test]
    fn a_node_that_goes_moves_only_its_own() {
        let nodes = names(10);
        for n in 0..1000_u32 {
            let address = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n));
            let best = nodes.iter().max_by_key(|node| score(address, node)).unwrap();
            let rest: Vec<_> = nodes[1..].iter().collect();
            let then = rest.iter().max_by_key(|node| score(address, node)).unwrap();
            assert!(best == &nodes[0] || best == *then);
        }
    }
}
