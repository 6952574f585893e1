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

/// What is to be told to neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Every source with its whole set of routes.
    pub sources: BTreeMap<String, Vec<Route>>,
    /// What is to be known about a `BgpPeer`'s rules, by its name.
    pub warnings: BTreeMap<String, String>,
}

/// Every source with its whole set of routes, with `base` as their attributes. A source that has nothing to say is
/// there with an empty set, so that End-of-RIB can follow.
///
/// Neighbours that hear the same share a source; one with `advertisements` has its own.
#[must_use]
pub fn routes(desired: &Announcements, base: &Arc<RouteAttributes>) -> Plan {
    let mut plan = Plan {
        sources: BTreeMap::from([(SELF.to_owned(), Vec::new()), (ALL_NODES.to_owned(), Vec::new())]),
        warnings: BTreeMap::new(),
    };
    let Some(bgp) = &desired.bgp else { return plan };
    for (source, mode) in [(SELF, NextHops::SelfOnly), (ALL_NODES, NextHops::AllNodes)] {
        let peers: BTreeMap<&str, &PeerAnnouncements> = bgp
            .peers
            .iter()
            .filter(|(_, peer)| peer.next_hops == mode && peer.spec.advertisements.is_none())
            .map(|(name, peer)| (name.as_str(), peer))
            .collect();
        let Some(first) = peers.values().next() else { continue };
        let names = peers.keys().map(|name| PeerName::from(*name)).collect();
        let scope =
            if peers.len() == bgp.peers.len() { PeerScope::All } else { PeerScope::Only(Arc::new(names)) };
        let mut paths = Paths::new(first, base);
        paths.add_own(desired, mode);
        plan.sources.insert(source.to_owned(), paths.routes(source, &scope));
    }
    for (name, peer) in &bgp.peers {
        let scope = PeerScope::Only(Arc::new(BTreeSet::from([PeerName::from(name.as_str())])));
        if peer.spec.advertisements.is_some() {
            let mut paths = Paths::new(peer, base);
            paths.add_own(desired, peer.next_hops);
            if let Some(warning) = paths.warning() {
                plan.warnings.insert(name.clone(), warning);
            }
            let source = source_of(name);
            let routes = paths.routes(&source, &scope);
            plan.sources.insert(source, routes);
        }
        // In a source of their own, so that this node's own routes stay as they are when others come or go.
        let source = on_behalf_source(name);
        let mut paths = Paths::new(peer, base);
        paths.add_on_behalf(desired);
        let routes = paths.routes(&source, &scope);
        if !routes.is_empty() {
            plan.sources.insert(source, routes);
        }
    }
    plan
}

/// The prefixes whose next hop is this node.
#[must_use]
pub fn own_prefixes(sources: &BTreeMap<String, Vec<Route>>) -> BTreeSet<IpNet> {
    let own = |route: &&Route| route.next_hop == NextHop::SelfAddress;
    sources.values().flatten().filter(own).map(|route| route.prefix).collect()
}

/// The prefixes in which neighbours hear of an address, by the name of the `BgpPeer`, if not in its own.
#[must_use]
pub fn aggregates(desired: &Announcements, address: IpAddr, announcement: &Announcement) -> BTreeSet<IpNet> {
    let peers = desired.bgp.iter().flat_map(|bgp| bgp.peers.values());
    peers
        .filter(|peer| {
            let mut rules = peer.spec.advertisements.iter().flatten();
            rules.any(|rule| rule.aggregation_length_of(address).is_some())
        })
        .filter(|peer| {
            announcement.self_eligible
                || peer.next_hops == NextHops::AllNodes
                || !peer.on_behalf_of(&desired.node, address, announcement).is_empty()
        })
        .filter_map(|peer| Some(attributes::advertised(peer, address, announcement)?.prefix))
        .filter(|prefix| *prefix != IpNet::from(address))
        .collect()
}

/// One path of a prefix.
struct Path {
    next_hop: NextHop,
    /// Every rule that lets an address of the prefix go this way.
    rules: BTreeSet<usize>,
}

/// The paths towards a neighbour by prefix and text of the next hop: several addresses may be heard of in one prefix.
struct Paths<'a> {
    peer: &'a PeerAnnouncements,
    known: attributes::Known<'a>,
    by_prefix: BTreeMap<(IpNet, String), Path>,
}

impl<'a> Paths<'a> {
    fn new(peer: &'a PeerAnnouncements, base: &'a Arc<RouteAttributes>) -> Self {
        Self { peer, known: attributes::Known::new(peer, base), by_prefix: BTreeMap::new() }
    }

    fn add_own(&mut self, desired: &Announcements, mode: NextHops) {
        let rack = desired.bgp.as_ref().and_then(|bgp| bgp.rack.as_deref());
        for (address, announcement) in of_bgp(desired) {
            self.add(*address, announcement, |_| match mode {
                NextHops::SelfOnly => this_node(desired, *address, announcement),
                NextHops::AllNodes => all_nodes(desired, rack, *address, announcement),
            });
        }
    }

    fn add_on_behalf(&mut self, desired: &Announcements) {
        if self.peer.on_behalf.is_none() {
            return;
        }
        let peer = self.peer;
        for (address, announcement) in of_bgp(desired) {
            self.add(*address, announcement, |prefix| {
                // Addresses that are heard of as one are spread over the speakers as one.
                let hops = peer.on_behalf_of(&desired.node, prefix.addr(), announcement);
                // Two nodes that claim one address are one next hop.
                let hops: BTreeSet<IpAddr> =
                    hops.into_iter().filter_map(|hop| of_family(hop, *address)).collect();
                hops.into_iter().map(|hop| (NextHop::Address(hop), hop.to_string())).collect()
            });
        }
    }

    fn add(
        &mut self,
        address: IpAddr,
        announcement: &Announcement,
        hops: impl FnOnce(IpNet) -> Vec<(NextHop, String)>,
    ) {
        let Some(advertised) = attributes::advertised(self.peer, address, announcement) else { return };
        for (next_hop, text) in hops(advertised.prefix) {
            let path = self
                .by_prefix
                .entry((advertised.prefix, text))
                .or_insert_with(|| Path { next_hop, rules: BTreeSet::new() });
            path.rules.extend(&advertised.rules);
        }
    }

    fn routes(mut self, source: &str, scope: &PeerScope) -> Vec<Route> {
        let paths = std::mem::take(&mut self.by_prefix);
        paths
            .into_iter()
            .map(|((prefix, text), path)| Route {
                prefix,
                path_id: identifier(source, &text, path.next_hop == NextHop::SelfAddress),
                next_hop: path.next_hop,
                attributes: self.known.of(&path.rules),
                scope: scope.clone(),
            })
            .collect()
    }

    /// Rules that contradict each other, in words.
    fn warning(&self) -> Option<String> {
        let mut told: BTreeMap<(&str, usize, usize), IpNet> = BTreeMap::new();
        let mut seen: BTreeSet<&BTreeSet<usize>> = BTreeSet::new();
        for ((prefix, _), path) in &self.by_prefix {
            if path.rules.len() > 1 && seen.insert(&path.rules) {
                for conflict in attributes::conflicts(self.peer, &path.rules) {
                    told.entry(conflict).or_insert(*prefix);
                }
            }
        }
        let say = |((field, first, other), prefix): (&(&str, usize, usize), &IpNet)| {
            format!(
                "spec.advertisements[{first}] and [{other}] give {prefix} different values of {field}: that of the \
                 first is taken"
            )
        };
        (!told.is_empty()).then(|| told.iter().map(say).collect::<Vec<_>>().join("; "))
    }
}

fn of_bgp(desired: &Announcements) -> impl Iterator<Item = (&IpAddr, &Arc<Announcement>)> {
    desired.addresses.iter().filter(|(_, announcement)| announcement.protocols.contains(&Protocol::Bgp))
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
