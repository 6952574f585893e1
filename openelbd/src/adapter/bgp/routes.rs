//! Addresses to announce → routes of the BGP speaker.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use openelb_bgp::speaker::{NextHop, PeerName, PeerScope, Route, RouteAttributes};
use openelb_k8s::announce::{Announcement, Announcements, NextHops, NodeHop, PeerAnnouncements, Protocol};

use super::attributes;

/// The source of routes whose next hop is this node.
pub const SELF: &str = "self";
/// The source of routes whose next hops are all nodes.
pub const ALL_NODES: &str = "all-nodes";

/// FNV-1a with 32 bits, as the Go OpenELB made path identifiers of the next hop's text.
///
/// ```
/// use openelbd::adapter::bgp::routes::path_identifier;
///
/// assert_eq!(path_identifier("a"), 0xe40c_292c);
/// ```
#[must_use]
pub fn path_identifier(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Path identifiers of a source. Of two sources' routes with one prefix and identifier a speaker has only one, whomever
/// it is for, so each source has its own; that of [`ALL_NODES`] is the Go OpenELB's.
///
/// Where a neighbour takes one path only, the lowest identifier wins: this node's own are below those of others.
fn identifier(source: &str, text: &str, own: bool) -> u32 {
    if source == ALL_NODES {
        return path_identifier(text);
    }
    let hash = path_identifier(&format!("{source}/{text}"));
    if own { hash & !OF_OTHERS } else { hash | OF_OTHERS }
}

/// Marks the path identifiers of other nodes' paths.
const OF_OTHERS: u32 = 1 << 31;

/// The source of routes for one neighbour with `advertisements` of its own.
fn source_of(peer: &str) -> String {
    format!("peer/{peer}")
}

/// The source of routes for one neighbour on behalf of nodes that have no session of their own to it.
fn on_behalf_source(peer: &str) -> String {
    format!("on-behalf/{peer}")
}

/// Every source with its whole set of routes, with `base` as their attributes. A source that has nothing to say is
/// there with an empty set, so that End-of-RIB can follow.
///
/// Neighbours that hear the same share a source; one with `advertisements` has its own.
#[must_use]
pub fn routes(desired: &Announcements, base: &Arc<RouteAttributes>) -> BTreeMap<String, Vec<Route>> {
    let mut by_source = BTreeMap::from([(SELF.to_owned(), Vec::new()), (ALL_NODES.to_owned(), Vec::new())]);
    let Some(bgp) = &desired.bgp else { return by_source };
    for (source, mode) in [(SELF, NextHops::SelfOnly), (ALL_NODES, NextHops::AllNodes)] {
        let peers: BTreeSet<PeerName> = bgp
            .peers
            .iter()
            .filter(|(_, peer)| peer.next_hops == mode && peer.spec.advertisements.is_none())
            .map(|(name, _)| PeerName::from(name.as_str()))
            .collect();
        if peers.is_empty() {
            continue;
        }
        let scope =
            if peers.len() == bgp.peers.len() { PeerScope::All } else { PeerScope::Only(Arc::new(peers)) };
        by_source.insert(
            source.to_owned(),
            source_routes(desired, source, mode, &scope, |_| Some(Arc::clone(base))),
        );
    }
    for (name, peer) in &bgp.peers {
        if peer.spec.advertisements.is_some() {
            let scope = PeerScope::Only(Arc::new(BTreeSet::from([PeerName::from(name.as_str())])));
            let attributes = |announcement: &Announcement| attributes::attributes(peer, announcement, base);
            let source = source_of(name);
            let routes = source_routes(desired, &source, peer.next_hops, &scope, attributes);
            by_source.insert(source, routes);
        }
        // In a source of their own, so that this node's own routes stay as they are when others come or go.
        let routes = on_behalf_routes(desired, name, peer, base);
        if !routes.is_empty() {
            by_source.insert(on_behalf_source(name), routes);
        }
    }
    by_source
}

fn source_routes(
    desired: &Announcements,
    source: &str,
    mode: NextHops,
    scope: &PeerScope,
    attributes: impl Fn(&Announcement) -> Option<Arc<RouteAttributes>>,
) -> Vec<Route> {
    let rack = desired.bgp.as_ref().and_then(|bgp| bgp.rack.as_deref());
    let mut routes = Vec::new();
    for (address, announcement) in &desired.addresses {
        if !announcement.protocols.contains(&Protocol::Bgp) {
            continue;
        }
        let Some(attributes) = attributes(announcement) else { continue };
        let hops = match mode {
            NextHops::SelfOnly => this_node(desired, *address, announcement),
            NextHops::AllNodes => all_nodes(desired, rack, *address, announcement),
        };
        routes.extend(hops.into_iter().map(|(next_hop, text)| Route {
            prefix: IpNet::from(*address),
            path_id: identifier(source, &text, next_hop == NextHop::SelfAddress),
            next_hop,
            attributes: Arc::clone(&attributes),
            scope: scope.clone(),
        }));
    }
    routes
}

fn on_behalf_routes(
    desired: &Announcements,
    name: &str,
    peer: &PeerAnnouncements,
    base: &Arc<RouteAttributes>,
) -> Vec<Route> {
    let mut routes = Vec::new();
    if peer.on_behalf.is_none() {
        return routes;
    }
    let source = on_behalf_source(name);
    let scope = PeerScope::Only(Arc::new(BTreeSet::from([PeerName::from(name)])));
    for (address, announcement) in &desired.addresses {
        if !announcement.protocols.contains(&Protocol::Bgp) {
            continue;
        }
        let Some(attributes) = attributes::attributes(peer, announcement, base) else { continue };
        let hops = peer.on_behalf_of(&desired.node, *address, announcement);
        // Two nodes that claim one address are one next hop.
        let next_hops: BTreeSet<IpAddr> =
            hops.into_iter().filter_map(|hop| of_family(hop, *address)).collect();
        routes.extend(next_hops.into_iter().map(|next_hop| Route {
            prefix: IpNet::from(*address),
            path_id: identifier(&source, &next_hop.to_string(), false),
            next_hop: NextHop::Address(next_hop),
            attributes: Arc::clone(&attributes),
            scope: scope.clone(),
        }));
    }
    routes
}

/// The node's own InternalIPs, for sessions whose local address is of the other family.
#[must_use]
pub fn own_addresses(desired: &Announcements) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let addresses = desired.bgp.as_ref().map(|bgp| bgp.addresses.as_slice()).unwrap_or_default();
    let v4 = addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    let v6 = addresses.iter().find_map(|address| match address {
        IpAddr::V6(address) => Some(*address),
        IpAddr::V4(_) => None,
    });
    (v4, v6)
}

/// Each next hop with its text, of which the path identifier is made.
fn this_node(
    desired: &Announcements,
    address: IpAddr,
    announcement: &Announcement,
) -> Vec<(NextHop, String)> {
    if !announcement.self_eligible {
        return Vec::new();
    }
    let own = announcement.nodes.iter().find(|hop| hop.node == desired.node);
    let text = own
        .and_then(|hop| of_family(hop, address))
        .map_or_else(|| desired.node.clone(), |own| own.to_string());
    vec![(NextHop::SelfAddress, text)]
}

fn all_nodes(
    desired: &Announcements,
    rack: Option<&str>,
    address: IpAddr,
    announcement: &Announcement,
) -> Vec<(NextHop, String)> {
    let mut hops = BTreeMap::new();
    for hop in announcement.hops_of_rack(rack) {
        let own = hop.node == desired.node;
        if own && !announcement.self_eligible {
            continue;
        }
        match of_family(hop, address) {
            Some(next_hop) => {
                let value = if own { NextHop::SelfAddress } else { NextHop::Address(next_hop) };
                // Two nodes that claim one address are one next hop; this node's own claim comes first.
                let text = next_hop.to_string();
                if own || !hops.contains_key(&text) {
                    hops.insert(text, value);
                }
            }
            None if own => {
                hops.insert(desired.node.clone(), NextHop::SelfAddress);
            }
            None => {}
        }
    }
    hops.into_iter().map(|(text, next_hop)| (next_hop, text)).collect()
}

/// The first InternalIP of the address's family.
fn of_family(hop: &NodeHop, address: IpAddr) -> Option<IpAddr> {
    hop.addresses.iter().copied().find(|candidate| candidate.is_ipv4() == address.is_ipv4())
}
