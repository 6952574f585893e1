//! On which terms a route goes to a neighbour: which attributes it gets there, or why it cannot go.

use std::net::IpAddr;

use super::attributes::AttributeSet;
use crate::speaker::{NextHop, PeerName, PeerScope, RouteOrigin};

/// RFC 6793 §3: stands for an AS number of four octets where there are two.
const AS_TRANS: u16 = 23456;
/// LOCAL_PREF where the embedder set none.
const DEFAULT_LOCAL_PREF: u32 = 100;
/// An AS_PATH segment counts its AS numbers in one octet.
const SEGMENT: usize = 255;
/// Octets of path attributes that always leave room for a prefix in a message of 4096.
const MAX_ATTRIBUTES: usize = 3800;

const TRANSITIVE: u8 = 0x40;
const OPTIONAL: u8 = 0x80;
const EXTENDED_LENGTH: u8 = 0x10;

/// Why a route cannot go to a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ineligible {
    OutOfScope,
    NoNextHop,
    TooLarge,
}

/// The terms of one family of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Egress {
    pub(crate) peer: PeerName,
    pub(crate) ipv4: bool,
    pub(crate) ibgp: bool,
    pub(crate) local_asn: u32,
    pub(crate) four_octet_as: bool,
    /// RFC 8950: IPv4 prefixes may have an IPv6 next hop.
    pub(crate) extended_next_hop: bool,
    pub(crate) add_path: bool,
    /// What "this speaker" is here.
    pub(crate) self_next_hop: Option<IpAddr>,
}

/// A set as it goes to one neighbour.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// All path attributes but MP_REACH_NLRI.
    pub(crate) attributes: Vec<u8>,
    /// The next hop if it stands in MP_REACH_NLRI (RFC 4760 §3), not in NEXT_HOP.
    pub(crate) mp_next_hop: Option<IpAddr>,
}

impl Egress {
    fn next_hop(&self, set: &AttributeSet) -> Option<IpAddr> {
        let next_hop = match set.next_hop {
            NextHop::SelfAddress => self.self_next_hop?,
            NextHop::Address(address) => address,
        };
        (next_hop.is_ipv4() == self.ipv4 || (self.ipv4 && self.extended_next_hop)).then_some(next_hop)
    }

    /// Whether a route with this set can go.
    pub(crate) fn check(&self, set: &AttributeSet) -> Result<(), Ineligible> {
        if let PeerScope::Only(peers) = &set.scope
            && !peers.contains(&self.peer)
        {
            return Err(Ineligible::OutOfScope);
        }
        self.next_hop(set).ok_or(Ineligible::NoNextHop)?;
        let attributes = &set.attributes;
        let size = 64
            + 8 * usize::from(attributes.as_path_prepend)
            + 4 * attributes.communities.len()
            + 8 * attributes.extended_communities.len()
            + 12 * attributes.large_communities.len();
        if size > MAX_ATTRIBUTES { Err(Ineligible::TooLarge) } else { Ok(()) }
    }

    /// The path attributes, in order of their types (RFC 4271 §5).
    pub(crate) fn encode(&self, set: &AttributeSet) -> Encoded {
        let from = &set.attributes;
        let mut out = Vec::with_capacity(64);
        let origin = match from.origin {
            RouteOrigin::Igp => 0,
            RouteOrigin::Egp => 1,
            RouteOrigin::Incomplete => 2,
        };
        put(&mut out, TRANSITIVE, 1, &[origin]);
        let path = if self.ibgp { 0 } else { 1 + usize::from(from.as_path_prepend) };
        let narrow = u16::try_from(self.local_asn).unwrap_or(AS_TRANS);
        if self.four_octet_as {
            put(&mut out, TRANSITIVE, 2, &as_path(path, &self.local_asn.to_be_bytes()));
        } else {
            put(&mut out, TRANSITIVE, 2, &as_path(path, &narrow.to_be_bytes()));
        }
        let mut mp_next_hop = None;
        match self.next_hop(set) {
            Some(IpAddr::V4(address)) if self.ipv4 => put(&mut out, TRANSITIVE, 3, &address.octets()),
            other => mp_next_hop = other,
        }
        if let Some(med) = from.med {
            put(&mut out, OPTIONAL, 4, &med.to_be_bytes());
        }
        if self.ibgp {
            put(&mut out, TRANSITIVE, 5, &from.local_pref.unwrap_or(DEFAULT_LOCAL_PREF).to_be_bytes());
        }
        let communities: Vec<[u8; 4]> = from.communities.iter().map(|value| value.to_be_bytes()).collect();
        put_set(&mut out, 8, communities);
        put_set(&mut out, 16, from.extended_communities.clone());
        if !self.four_octet_as && path > 0 && u32::from(narrow) != self.local_asn {
            put(&mut out, OPTIONAL | TRANSITIVE, 17, &as_path(path, &self.local_asn.to_be_bytes()));
        }
        let large: Vec<[u8; 12]> =
            from.large_communities.iter().map(|value| large_community(*value)).collect();
        put_set(&mut out, 32, large);
        Encoded { attributes: out, mp_next_hop }
    }
}

fn large_community([global, first, second]: [u32; 3]) -> [u8; 12] {
    let mut octets = [0; 12];
    let words = [global, first, second];
    for (to, word) in octets.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_be_bytes());
    }
    octets
}

fn as_path(count: usize, asn: &[u8]) -> Vec<u8> {
    const AS_SEQUENCE: u8 = 2;
    let mut path = Vec::new();
    let mut left = count;
    while left > 0 {
        let segment = left.min(SEGMENT);
        path.push(AS_SEQUENCE);
        path.push(u8::try_from(segment).unwrap_or(u8::MAX));
        for _ in 0..segment {
            path.extend_from_slice(asn);
        }
        left -= segment;
    }
    path
}

fn put(out: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    match u8::try_from(value.len()) {
        Ok(len) => out.extend_from_slice(&[flags, code, len]),
        Err(_) => {
            let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&[flags | EXTENDED_LENGTH, code]);
            out.extend_from_slice(&len.to_be_bytes());
        }
    }
    out.extend_from_slice(value);
}

fn put_set<const N: usize>(out: &mut Vec<u8>, code: u8, mut values: Vec<[u8; N]>) {
    if !values.is_empty() {
        values.sort_unstable();
        values.dedup();
        put(out, OPTIONAL | TRANSITIVE, code, values.as_flattened());
    }
}
