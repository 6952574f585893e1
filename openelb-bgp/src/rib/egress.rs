//! On which terms a route goes to a neighbour: which attributes it gets there, or why it cannot go.

use std::net::IpAddr;

use super::attributes::AttributeSet;
use crate::{
    speaker::{NextHop, PeerName, PeerScope, RouteOrigin},
    wire::{
        Attributes, Community, EncodeError, EncodedAttributes, ExtendedCommunity, Family, LargeCommunity,
        Origin, SessionContext, SessionKind,
    },
};

/// LOCAL_PREF where the embedder set none.
const DEFAULT_LOCAL_PREF: u32 = 100;
/// Octets of a message that path attributes leave for its header, its lengths and a prefix.
const ROOM: usize = 296;

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
    pub(crate) family: Family,
    pub(crate) local_asn: u32,
    pub(crate) context: SessionContext,
    /// What "this speaker" is here.
    pub(crate) self_next_hop: Option<IpAddr>,
}

/// A set as it goes to one neighbour.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// All path attributes but MP_REACH_NLRI.
    pub(crate) attributes: EncodedAttributes,
    /// The next hop if it stands in MP_REACH_NLRI (RFC 4760 §3), not in NEXT_HOP.
    pub(crate) mp_next_hop: Option<IpAddr>,
}

impl Egress {
    fn is_ipv4(&self) -> bool {
        self.family == Family::IPV4_UNICAST
    }

    /// Whether the neighbour takes several paths per prefix.
    pub(crate) fn add_path(&self) -> bool {
        self.context.sends_path_ids(self.family)
    }

    fn next_hop(&self, set: &AttributeSet) -> Option<IpAddr> {
        let next_hop = match set.next_hop {
            NextHop::SelfAddress => self.self_next_hop?,
            NextHop::Address(address) => address,
        };
        let ipv4 = self.is_ipv4();
        (next_hop.is_ipv4() == ipv4 || (ipv4 && self.context.extended_next_hop)).then_some(next_hop)
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
            + attributes.as_path.segments.iter().map(|segment| 2 + 8 * segment.asns.len()).sum::<usize>()
            + 4 * attributes.communities.len()
            + 8 * attributes.extended_communities.len()
            + 12 * attributes.large_communities.len();
        // 4,096 octets, or 65,535 where both sides offer it (RFC 8654 §4).
        if size > self.context.max_message_len().saturating_sub(ROOM) {
            Err(Ineligible::TooLarge)
        } else {
            Ok(())
        }
    }

    /// The path attributes as they go to the neighbour (RFC 4271 §5), and the next hop wherever it stands.
    pub(crate) fn attributes(&self, set: &AttributeSet) -> (Attributes, Option<IpAddr>) {
        let from = &set.attributes;
        let internal = self.context.kind == SessionKind::Internal;
        let mut path = from.as_path.clone();
        if !internal {
            path.prepend(self.local_asn, 1 + usize::from(from.as_path_prepend));
        }
        let next_hop = self.next_hop(set);
        let attributes = Attributes {
            origin: Some(match from.origin {
                RouteOrigin::Igp => Origin::Igp,
                RouteOrigin::Egp => Origin::Egp,
                RouteOrigin::Incomplete => Origin::Incomplete,
            }),
            as_path: Some(path),
            next_hop: match next_hop {
                Some(IpAddr::V4(address)) if self.is_ipv4() => Some(address),
                _ => None,
            },
            med: from.med,
            local_pref: internal.then(|| from.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)),
            communities: sorted(from.communities.iter().copied().map(Community)),
            extended_communities: sorted(from.extended_communities.iter().copied().map(ExtendedCommunity)),
            large_communities: sorted(
                from.large_communities.iter().map(|&[global, local1, local2]| LargeCommunity {
                    global,
                    local1,
                    local2,
                }),
            ),
            ..Attributes::default()
        };
        (attributes, next_hop)
    }

    /// The same in the form of the wire.
    pub(crate) fn encode(&self, set: &AttributeSet) -> Result<Encoded, EncodeError> {
        let (attributes, next_hop) = self.attributes(set);
        let mp_next_hop = if attributes.next_hop.is_some() { None } else { next_hop };
        Ok(Encoded { attributes: attributes.encode(&self.context)?, mp_next_hop })
    }
}

/// Communities are sets: equal ones are sent once.
fn sorted<T: Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.dedup();
    values
}
