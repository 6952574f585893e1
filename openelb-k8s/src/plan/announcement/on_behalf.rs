//! Mode `Auto`: who announces the nodes that have no session of their own to a neighbour.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::Settings;
use crate::announce::{Announcement, NodeHop, OnBehalf, PeerAnnouncements};
use crate::index::peers::{Neighbor, PeerSpec};
use crate::index::{Indexes, NodeView};

/// Paths of a prefix that are sent where `afiSafis` is absent.
const DEFAULT_PATHS: u8 = 10;

/// The nodes of this rack without a session of their own to this neighbour, if there are any: they have no speaker, or
/// the neighbour's `nodeSelector` leaves them out. A speaker that is down still has its `SpeakerStatus`, and comes back.
pub(super) fn of_peer(
    indexes: &Indexes,
    settings: &Settings,
    spec: &Arc<PeerSpec>,
    node: &NodeView,
    asn: u32,
) -> Option<OnBehalf> {
    let mut found =
        OnBehalf { paths_v4: paths(spec, false), paths_v6: paths(spec, true), ..OnBehalf::default() };
    for other in indexes.nodes.iter().filter(|other| other.rack() == node.rack()) {
        let has_session = indexes.speakers.has(&other.name) && spec.node_selector.matches(&other.labels);
        if other.name == settings.node_name || has_session {
            found.speakers.insert(other.name.clone());
            continue;
        }
        for (v4, set) in [(true, &mut found.nodes_v4), (false, &mut found.nodes_v6)] {
            // The adapter announces the first address of the family.
            let next_hop = other.internal_ips.iter().find(|address| address.is_ipv4() == v4);
            if next_hop.is_some_and(|next_hop| is_reachable(*next_hop, settings, spec, asn)) {
                set.insert(other.name.clone());
            }
        }
    }
    (!found.nodes_v4.is_empty() || !found.nodes_v6.is_empty()).then_some(found)
}

fn paths(spec: &PeerSpec, v6: bool) -> u8 {
    if spec.families.is_empty() {
        return DEFAULT_PATHS;
    }
    spec.families.iter().find(|family| family.v6 == v6).map_or(0, |family| family.add_path_send)
}

/// Can the neighbour reach this next hop? A directly connected external one only on the subnet that it shares with us
/// (RFC 4271 section 5.1.3: a third party's address); others look it up in their routing table.
fn is_reachable(next_hop: IpAddr, settings: &Settings, spec: &PeerSpec, asn: u32) -> bool {
    let internal = spec.asn == Some(spec.local_asn.unwrap_or(asn));
    if settings.connected.is_empty() || internal || spec.multihop_ttl.is_some() {
        return true;
    }
    let neighbor = match spec.neighbor {
        Neighbor::Address(address) => address,
        Neighbor::Prefix(prefix) => prefix.addr(),
    };
    let shared = || settings.connected.iter().filter(|net| net.contains(&neighbor));
    if next_hop.is_ipv4() == neighbor.is_ipv4() && shared().next().is_some() {
        shared().any(|net| net.contains(&next_hop))
    } else {
        settings.connected.iter().any(|net| net.contains(&next_hop))
    }
}

impl PeerAnnouncements {
    /// The nodes that `node` announces an address for to this neighbour, beside itself: all that have no session of
    /// their own if the session takes so many paths of a prefix; else the speakers split them, each by the same
    /// computation. A session that takes one path only has this node itself, or else one other.
    #[must_use]
    pub fn on_behalf_of<'a>(
        &self,
        node: &str,
        address: IpAddr,
        announcement: &'a Announcement,
    ) -> Vec<&'a NodeHop> {
        let Some(on_behalf) = &self.on_behalf else { return Vec::new() };
        let (nodes, paths) = if address.is_ipv4() {
            (&on_behalf.nodes_v4, on_behalf.paths_v4)
        } else {
            (&on_behalf.nodes_v6, on_behalf.paths_v6)
        };
        let waiting: Vec<&NodeHop> =
            announcement.nodes.iter().filter(|hop| nodes.contains(&hop.node)).collect();
        if waiting.is_empty() {
            return waiting;
        }
        // A speaker's own path comes first.
        let eligible: BTreeSet<&str> = announcement.nodes.iter().map(|hop| hop.node.as_str()).collect();
        let room =
            |speaker: &str| usize::from(paths.max(1)).saturating_sub(usize::from(eligible.contains(speaker)));
        if waiting.len() <= room(node) {
            return waiting;
        }
        let speakers = on_behalf.speakers.iter().map(|speaker| (speaker.as_str(), room(speaker)));
        split(node, address, &waiting, speakers.collect())
    }
}

/// Gives every node to the speaker of the highest score that has room; then again, to the next ones, while there is
/// room: so that each is announced by several if that can be.
fn split<'a>(
    this: &str,
    address: IpAddr,
    waiting: &[&'a NodeHop],
    mut room: BTreeMap<&str, usize>,
) -> Vec<&'a NodeHop> {
    let mut given: BTreeSet<(usize, &str)> = BTreeSet::new();
    let speakers: Vec<&str> = room.keys().copied().collect();
    for _ in 0..speakers.len() {
        let before = given.len();
        for (index, hop) in waiting.iter().enumerate() {
            let best = speakers
                .iter()
                .copied()
                .filter(|speaker| room.get(speaker).is_some_and(|room| *room > 0))
                .filter(|speaker| !given.contains(&(index, *speaker)))
                .max_by_key(|speaker| (score(speaker, &hop.node, address), *speaker));
            if let Some(best) = best {
                given.insert((index, best));
                if let Some(room) = room.get_mut(best) {
                    *room -= 1;
                }
            }
        }
        if given.len() == before {
            break;
        }
    }
    let mine = waiting.iter().enumerate().filter(|(index, _)| given.contains(&(*index, this)));
    mine.map(|(_, hop)| *hop).collect()
}

/// The rendezvous score of a speaker for a node and an address: the same in every process.
fn score(speaker: &str, node: &str, address: IpAddr) -> u64 {
    let text = format!("{speaker}\0{node}\0{address}");
    let mut hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // FNV-1a alone hardly mixes the last bytes upwards.
    for factor in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}
