//! What this node should announce: a pure function of the indexes.
//!
//! Only addresses that a Service of ours publishes and that the pool backs are announced: they lie in the Eip's
//! ranges, or are kept (after a shrink) in its `status.used` for this very Service. What a Service's owner can edit is
//! a hint at most.

mod on_behalf;
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::Settings;
use crate::announce::{
    Announcement, Announcements, BgpAnnouncements, Layer2Announcements, NextHops, NodeHop, PeerAnnouncements,
    Protocol,
};
use crate::index::peers::{BgpConfParsed, NextHopMode, PeerSpec};
use crate::index::pools::{EipView, PoolSpec};
use crate::index::services::{ServiceView, TrafficPolicy};
use crate::index::{Indexes, NodeView};
use crate::object::NamespacedName;

pub use telling::{may_be_announced, teller, teller_of, warnings};

/// Computes what the node `settings.node_name` should announce: the whole set, the same for the same input.
#[must_use]
pub fn plan(indexes: &Indexes, settings: &Settings) -> Announcements {
    Announcements {
        node: settings.node_name.clone(),
        provisional: false,
        addresses: addresses(indexes, settings, None),
        bgp: bgp(indexes, settings),
        layer2: layer2(indexes, settings),
    }
}

/// Makes of what [`plan`] said what it says now, where nothing has changed but Services, which published or publish
/// these addresses and no others. Says whether that is a difference. It costs a tenth of a whole plan.
pub fn update(
    announcements: &mut Announcements,
    indexes: &Indexes,
    settings: &Settings,
    touched: &BTreeSet<IpAddr>,
) -> bool {
    let mut fresh = addresses(indexes, settings, Some(touched));
    let mut changed = false;
    for address in touched {
        match (announcements.addresses.get(address), fresh.remove(address)) {
            (before, Some(now)) if before != Some(&now) => {
                announcements.addresses.insert(*address, now);
                changed = true;
            }
            (Some(_), None) => {
                announcements.addresses.remove(address);
                changed = true;
            }
            _ => {}
        }
    }
    changed
}

/// What [`plan`] says while it is not known yet which nodes have endpoints: the addresses of Services with policy
/// `Local` stay as they were `before` that, and all others go on.
#[must_use]
pub fn plan_without_endpoints(
    before: &Announcements,
    indexes: &Indexes,
    settings: &Settings,
) -> Announcements {
    let mut now = plan(indexes, &Settings { endpoints_unknown: true, ..settings.clone() });
    let local = indexes.services.ours().filter(|service| service.traffic_policy == TrafficPolicy::Local);
    for address in local.flat_map(ServiceView::published) {
        // What no pool backs any more goes all the same.
        if now.addresses.remove(&address).is_some()
            && let Some(before) = before.addresses.get(&address)
        {
            now.addresses.insert(address, Arc::clone(before));
        }
    }
    now
}

/// Services that publish one address of one pool.
struct Published<'a> {
    pool: &'a EipView,
    spec: &'a Arc<PoolSpec>,
    services: Vec<&'a ServiceView>,
}

fn addresses(
    indexes: &Indexes,
    settings: &Settings,
    only: Option<&BTreeSet<IpAddr>>,
) -> BTreeMap<IpAddr, Arc<Announcement>> {
    let mut published: BTreeMap<IpAddr, Published<'_>> = BTreeMap::new();
    let wanted = |address: &IpAddr| only.is_none_or(|only| only.contains(address));
    for service in indexes.services.ours() {
        for address in service.ingress.iter().filter_map(|ingress| ingress.address).filter(wanted) {
            if let Some(found) = published.get_mut(&address) {
                let recorded = found.pool.used.contains_key(&address);
                if !recorded || found.pool.is_held_by(address, &service.key) {
                    found.services.push(service);
                }
            } else if let Some((pool, spec)) = pool_of(indexes, address, &service.key) {
                published.insert(address, Published { pool, spec, services: vec![service] });
            }
        }
    }
    // A single host without a Node document is a node all the same.
    let alone = NodeView { name: settings.node_name.clone(), ready: true, ..NodeView::default() };
    let mut nodes: Vec<&NodeView> = indexes.nodes.iter().collect();
    if nodes.is_empty() && settings.standalone {
        nodes.push(&alone);
    }
    let mut carriers = Carriers { indexes, settings, nodes, known: BTreeMap::new() };
    let announce = |(address, published)| Some((address, Arc::new(announcement(&mut carriers, published)?)));
    published.into_iter().filter_map(announce).collect()
}

/// The pool that backs an address of this Service: the one that records it for the Service, else, if none records it
/// for others, the oldest that covers it.
fn pool_of<'a>(
    indexes: &'a Indexes,
    address: IpAddr,
    service: &NamespacedName,
) -> Option<(&'a EipView, &'a Arc<PoolSpec>)> {
    let usable = || indexes.pools.iter().filter_map(|pool| pool.announced_by().map(|spec| (pool, spec)));
    if let Some(found) = usable().find(|(pool, _)| pool.is_held_by(address, service)) {
        return Some(found);
    }
    if indexes.pools.iter().any(|pool| pool.used.contains_key(&address)) {
        return None;
    }
    usable()
        .filter(|(_, spec)| spec.covers(address) && !spec.excludes(address))
        .min_by_key(|(pool, _)| (pool.created, &pool.name))
}

fn announcement<'a>(carriers: &mut Carriers<'a>, published: Published<'a>) -> Option<Announcement> {
    let Published { pool, spec, services } = published;
    if spec.protocols.is_empty() {
        return None;
    }
    let Carriage { nodes, permitted, this: self_eligible } = carriers.of(pool, spec, &services);
    if nodes.is_empty() {
        return None;
    }
    let mut keys: Vec<NamespacedName> = services.iter().map(|service| service.key.clone()).collect();
    keys.sort_unstable();
    Some(Announcement {
        protocols: spec.protocols.clone(),
        pool: pool.name.clone(),
        services: keys.into(),
        service_labels: services.iter().map(|service| service.labels.clone()).collect(),
        self_eligible,
        nodes,
        permitted,
        interface: spec.interface.clone(),
        vip_group: spec.vip_group.clone().filter(|_| spec.protocols.contains(&Protocol::Vip)),
    })
}

/// The nodes that may carry an address.
#[derive(Clone)]
struct Carriage {
    nodes: Arc<[NodeHop]>,
    permitted: Arc<[String]>,
    /// Is this node one of them?
    this: bool,
}

/// Which nodes may carry an address: most addresses of a pool have the same ones, and thousands share them.
struct Carriers<'a> {
    indexes: &'a Indexes,
    settings: &'a Settings,
    nodes: Vec<&'a NodeView>,
    /// Of pools whose Services are forwarded by every node.
    known: BTreeMap<&'a str, Carriage>,
}

impl<'a> Carriers<'a> {
    fn of(&mut self, pool: &'a EipView, spec: &PoolSpec, services: &[&ServiceView]) -> Carriage {
        let forwarding: Vec<Forwarding<'_>> =
            services.iter().map(|service| Forwarding::of(service, self.indexes, self.settings)).collect();
        if !forwarding.iter().any(|forwarding| matches!(forwarding, Forwarding::All)) {
            return self.find(spec, &forwarding);
        }
        if let Some(known) = self.known.get(&*pool.name) {
            return known.clone();
        }
        let found = self.find(spec, &[Forwarding::All]);
        self.known.insert(&pool.name, found.clone());
        found
    }

    fn find(&self, spec: &PoolSpec, forwarding: &[Forwarding<'_>]) -> Carriage {
        let settings = self.settings;
        let this = |node: &NodeView| node.name == settings.node_name;
        let nodes: Vec<&NodeView> = self
            .nodes
            .iter()
            .copied()
            .filter(|node| settings.dataplane_healthy || !this(node))
            .filter(|node| may_carry(node, spec, settings))
            .filter(|node| forwarding.iter().any(|forwarding| forwarding.includes(node)))
            .collect();
        let permitted = nodes.iter().map(|node| node.name.clone()).collect();
        // NotReady removes nodes that are announced by others, never this one by itself, and not all of them; nor, while
        // they come back one after the other, those that have not yet.
        let ready = |node: &&NodeView| node.ready || this(node) || self.indexes.endpoints.sight_is_lost();
        let ready: Vec<&NodeView> = nodes.iter().copied().filter(ready).collect();
        let some_ready = ready.iter().any(|node| node.ready) || nodes.iter().all(|node| this(node));
        let nodes = if some_ready { ready } else { nodes };
        let this = nodes.iter().any(|node| this(node));
        Carriage { nodes: nodes.into_iter().map(hop).collect(), permitted, this }
    }
}

fn hop(node: &NodeView) -> NodeHop {
    NodeHop {
        node: node.name.clone(),
        addresses: node.internal_ips.clone(),
        rack: node.rack().map(str::to_owned),
    }
}

/// May the node carry addresses of any pool?
fn may_carry_any(node: &NodeView, settings: &Settings) -> bool {
    let excluded = node.is_excluded() && !settings.ignore_exclude_label;
    let cordoned = node.cordoned && settings.exclude_cordoned_nodes;
    !(node.deleting || excluded || cordoned)
}

/// May the node carry addresses of this pool?
fn may_carry(node: &NodeView, spec: &PoolSpec, settings: &Settings) -> bool {
    may_carry_any(node, settings)
        && spec.node_selector.as_ref().is_none_or(|selector| selector.matches(&node.labels))
}

/// Which nodes forward a Service's traffic.
enum Forwarding<'a> {
    All,
    These(BTreeSet<&'a str>),
}

impl<'a> Forwarding<'a> {
    fn of(service: &ServiceView, indexes: &'a Indexes, settings: &Settings) -> Self {
        let (endpoints, nodes) = (&indexes.endpoints, &indexes.nodes);
        if settings.endpoints_unknown {
            return Self::All;
        }
        match service.traffic_policy {
            TrafficPolicy::Local => Self::These(endpoints.nodes(&service.key, nodes)),
            TrafficPolicy::Cluster
                if settings.withdraw_without_endpoints && !endpoints.any(&service.key, nodes) =>
            {
                Self::These(BTreeSet::new())
            }
            TrafficPolicy::Cluster => Self::All,
        }
    }

    fn includes(&self, node: &NodeView) -> bool {
        match self {
            Self::All => true,
            Self::These(nodes) => nodes.contains(node.name.as_str()),
        }
    }
}

fn layer2(indexes: &Indexes, settings: &Settings) -> Layer2Announcements {
    let others = indexes.nodes.iter().filter(|node| node.name != settings.node_name);
    let own = indexes.nodes.get(&settings.node_name);
    Layer2Announcements {
        spec: indexes.layer2.spec().clone(),
        in_use: indexes
            .pools
            .iter()
            .filter_map(EipView::announced_by)
            .any(|spec| spec.protocols.contains(&Protocol::Layer2)),
        own: own.map(|node| node.internal_ips.clone()).unwrap_or_default(),
        nodes: others.map(|node| (node.name.clone(), node.internal_ips.clone())).collect(),
    }
}

fn bgp(indexes: &Indexes, settings: &Settings) -> Option<BgpAnnouncements> {
    let conf = indexes.peers.conf().filter(|conf| !conf.cni_duty)?;
    let spec = conf.spec.as_ref()?;
    let unknown = NodeView::default();
    let node = indexes.nodes.get(&settings.node_name).unwrap_or(&unknown);
    let (router_id, router_id_derived) = router_id(spec, node, indexes.nodes.len(), &settings.node_name);
    let asn = asn(spec, node.rack());
    if asn == 0 {
        return None;
    }
    let peers = indexes.peers.iter().filter(|peer| !peer.cni_duty && !peer.deleting).filter_map(|peer| {
        let spec = peer.spec.as_ref().filter(|spec| spec.node_selector.matches(&node.labels))?;
        Some((peer.name.clone(), neighbor(indexes, settings, conf.spec.as_deref(), spec, node, asn)))
    });
    Some(BgpAnnouncements {
        asn,
        router_id,
        router_id_derived,
        rack: node.rack().map(str::to_owned),
        addresses: node.internal_ips.clone(),
        listen_port: spec.listen_port,
        listen_addresses: spec.listen_addresses.clone(),
        graceful_restart: spec.graceful_restart.clone(),
        policy: spec.policy.clone(),
        peers: peers.collect(),
    })
}

/// The rack's AS number where there is one, else the cluster's.
fn asn(spec: &BgpConfParsed, rack: Option<&str>) -> u32 {
    rack.and_then(|rack| spec.as_per_rack.get(rack)).copied().filter(|asn| *asn != 0).unwrap_or(spec.asn)
}

/// The configured identifier on the node that owns it (or on the only node); else the node's first IPv4 InternalIP;
/// else a hash of its name.
pub(super) fn router_id(spec: &BgpConfParsed, node: &NodeView, nodes: usize, name: &str) -> (Ipv4Addr, bool) {
    if let Some(id) = spec.router_id
        && (nodes <= 1 || node.internal_ips.contains(&IpAddr::V4(id)))
    {
        return (id, false);
    }
    node.first_ipv4().map_or_else(|| (derived_router_id(name), true), |id| (id, false))
}

/// FNV-1a, 32 bits, never zero: stable for a node's name.
fn derived_router_id(name: &str) -> Ipv4Addr {
    let hash =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    Ipv4Addr::from(hash.max(1))
}

fn neighbor(
    indexes: &Indexes,
    settings: &Settings,
    conf: Option<&BgpConfParsed>,
    spec: &Arc<PeerSpec>,
    node: &NodeView,
    asn: u32,
) -> PeerAnnouncements {
    let mode = spec.next_hop_mode.or_else(|| conf.map(|conf| conf.next_hop_mode)).unwrap_or_default();
    let next_hops = match mode {
        NextHopMode::AllNodes => NextHops::AllNodes,
        NextHopMode::SelfOnly | NextHopMode::Auto => NextHops::SelfOnly,
    };
    let on_behalf = match mode {
        NextHopMode::Auto if !settings.standalone && settings.speakers_known => {
            on_behalf::of_peer(indexes, settings, spec, node, asn).map(Arc::new)
        }
        _ => None,
    };
    // A Secret that is named and not there is no reason to use another password.
    let password = match &spec.password_secret {
        Some((name, key)) => indexes.peers.secret(&settings.namespace, name, key),
        None => spec.password.as_ref(),
    };
    let rules = spec.advertisements.iter().flatten().enumerate();
    PeerAnnouncements {
        next_hops,
        on_behalf,
        advertisements: rules
            .filter(|(_, rule)| rule.node_selector.matches(&node.labels))
            .map(|(i, _)| i)
            .collect(),
        password: password.cloned(),
        spec: Arc::clone(spec),
    }
}

impl Announcement {
    /// The nodes whose addresses a speaker of this rack announces in mode `AllNodes`: of the same rack, if it has one.
    pub fn hops_of_rack<'a>(&'a self, rack: Option<&'a str>) -> impl Iterator<Item = &'a NodeHop> {
        self.nodes.iter().filter(move |hop| rack.is_none_or(|rack| hop.rack.as_deref() == Some(rack)))
    }
}

impl PeerAnnouncements {
    /// The rules that take this address, by index; `None`: there are no rules, and it goes out plain. An empty list:
    /// it does not go out to this neighbour.
    #[must_use]
    pub fn rules_for(&self, announcement: &Announcement) -> Option<Vec<usize>> {
        let rules = self.spec.advertisements.as_ref()?;
        let takes = |index: &usize| {
            rules
                .get(*index)
                .is_some_and(|rule| rule.matches(&announcement.pool, &announcement.service_labels))
        };
        Some(self.advertisements.iter().copied().filter(takes).collect())
    }
}

/// The names of the pools that are announced, for logs.
#[must_use]
pub fn pools(announcements: &Announcements) -> BTreeSet<&str> {
    announcements.addresses.values().map(|announcement| announcement.pool.as_str()).collect()
}

#[cfg(test)]
mod tests;
