//! The speaker itself.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use ipnet::IpNet;

use super::{
    config::{ConfigError, Delta, GUESTS, PeerConfig, PeerName, Route, SpeakerConfig, index_peers},
    event::{Accepted, ConnectionId, Event, Output, PeerId, Refusal},
    operations::Neighbors,
    peer::{Before, Peer, Surroundings},
    queries::BestPaths,
    reception::withdrawals,
    stats::{Advertisement, PeerSource, PeersSnapshot, RouteStatus, RoutesSnapshot, TableStats},
};
use crate::{
    fsm::{ConnectionInfo, State},
    rib::{
        Rib,
        adj_out::Urgency,
        table::{Claim, DestinationId, GUESTS as GUESTS_ID, SourceId},
    },
    wire::{Family, Nlri, Notification, Prefix},
};

/// So many changed destinations at once are still sent ahead of a bulk.
const FRESH_CHANGES: usize = 64;
/// Events that are kept for a driver that does not fetch them.
const MAX_EVENTS: usize = 1 << 16;

/// A BGP speaker without I/O: the caller says what happened and when, and polls for what to do.
///
/// After any call, [`poll_output`](Self::poll_output) until it gives nothing, and call
/// [`handle_timeout`](Self::handle_timeout) when [`poll_timeout`](Self::poll_timeout) says so. UPDATEs are made only
/// when output is polled and the connection can take them ([`handle_written`](Self::handle_written)), so a slow
/// neighbour is sent the coalesced state, never a backlog, and delays no other.
///
/// ```
/// use std::time::Instant;
/// use openelb_bgp::speaker::{Output, PeerConfig, Route, Speaker, SpeakerConfig};
///
/// let now = Instant::now();
/// let mut speaker = Speaker::new(SpeakerConfig::new(65000, "192.0.2.10".parse()?), now)?;
/// speaker.set_peers(vec![PeerConfig::new("router", "192.0.2.1".parse()?, 65001)], now)?;
/// speaker.set_routes("services", [Route::new("198.51.100.7/32".parse::<ipnet::IpNet>()?)], now);
/// // The driver polls: the speaker wants a connection to its neighbour.
/// let wanted = loop {
///     match speaker.poll_output(now) {
///         Some(output) => break Some(output),
///         None => match speaker.poll_timeout() {
///             Some(at) => speaker.handle_timeout(at),
///             None => break None,
///         },
///     }
/// };
/// assert!(matches!(wanted, Some(Output::Connect { config, .. }) if config.name.as_str() == "router"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Speaker {
    config: SpeakerConfig,
    began: Instant,
    pub(super) rib: Rib,
    pub(super) sources: Sources,
    pub(super) peers: BTreeMap<PeerId, Peer>,
    pub(super) neighbors: Neighbors,
    pub(super) by_name: BTreeMap<PeerName, PeerId>,
    by_address: HashMap<(IpAddr, u32), PeerId>,
    next_peer: u64,
    /// Peers that may have output.
    ready: VecDeque<PeerId>,
    timers: BTreeSet<(Instant, PeerId)>,
    pub(super) events: VecDeque<Event>,
    pub(super) best_paths: Option<BestPaths>,
    /// Received routes are events.
    tell_received: bool,
    /// Events that were dropped, and of which nobody knows yet.
    lost_events: u64,
    /// Outputs of peers that are gone.
    farewells: VecDeque<Output>,
    pub(super) state_revision: u64,
    pub(super) routes_revision: u64,
    /// Whose input is being handled, while that touches nothing but this peer.
    at_work: Option<PeerId>,
}

/// Drops the oldest events if there are too many, and says how many.
fn bound(events: &mut VecDeque<Event>) -> u64 {
    let surplus = events.len().saturating_sub(MAX_EVENTS);
    events.drain(..surplus);
    surplus as u64
}

/// Who says which routes are wanted.
#[derive(Debug, Default)]
pub(super) struct Sources {
    names: Vec<String>,
    /// By id, the place among all names in sorted order.
    ranks: Vec<usize>,
    /// Of which a whole set was seen.
    whole: BTreeSet<String>,
}

impl Sources {
    fn id(&mut self, name: &str) -> SourceId {
        if name == GUESTS {
            return GUESTS_ID;
        }
        let known = self.names.iter().position(|known| known == name);
        let index = known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            let mut sorted: Vec<&String> = self.names.iter().collect();
            sorted.sort();
            self.ranks = self.names.iter().map(|name| sorted.binary_search(&name).unwrap_or(0)).collect();
            self.names.len() - 1
        });
        SourceId::try_from(index).map_or(GUESTS_ID - 1, |id| id.min(GUESTS_ID - 1))
    }

    pub(super) fn name(&self, source: SourceId) -> &str {
        if source == GUESTS_ID {
            return GUESTS;
        }
        self.names.get(usize::from(source)).map_or("", String::as_str)
    }

    /// Guests come last.
    fn order(&self) -> impl Fn(SourceId) -> usize + '_ {
        |source| self.ranks.get(usize::from(source)).copied().unwrap_or(usize::MAX)
    }
}

/// The destinations that a command changed.
#[derive(Debug, Default)]
struct Changed {
    ipv4: Vec<DestinationId>,
    ipv6: Vec<DestinationId>,
}

impl Changed {
    fn of(&mut self, family: Family) -> &mut Vec<DestinationId> {
        if family == Family::IPV4_UNICAST { &mut self.ipv4 } else { &mut self.ipv6 }
    }
}

pub(super) fn family_of(prefix: IpNet) -> Family {
    match prefix {
        IpNet::V4(_) => Family::IPV4_UNICAST,
        IpNet::V6(_) => Family::IPV6_UNICAST,
    }
}

impl Speaker {
    /// A speaker without neighbours and routes.
    ///
    /// # Errors
    /// If the configuration is not valid.
    pub fn new(config: SpeakerConfig, now: Instant) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            rib: Rib::new(config.seed),
            config,
            began: now,
            sources: Sources::default(),
            peers: BTreeMap::new(),
            neighbors: Neighbors::default(),
            by_name: BTreeMap::new(),
            by_address: HashMap::new(),
            next_peer: 0,
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            events: VecDeque::new(),
            best_paths: None,
            tell_received: false,
            lost_events: 0,
            farewells: VecDeque::new(),
            state_revision: 0,
            routes_revision: 0,
            at_work: None,
        })
    }

    /// The configuration in force.
    pub fn config(&self) -> &SpeakerConfig {
        &self.config
    }

    /// Changes the configuration. A changed AS number resets the sessions of the peers without a local one, a changed
    /// BGP identifier all sessions (both are part of the OPEN); a changed next hop is sent to those whom it concerns;
    /// all else touches no session.
    ///
    /// # Errors
    /// If the configuration is not valid; the one before stays.
    pub fn set_config(&mut self, config: SpeakerConfig, now: Instant) -> Result<(), ConfigError> {
        config.validate()?;
        if config == self.config {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.config, config);
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            let Some(peer) = self.peers.get(&id) else { continue };
            let asn = peer.config.local_asn.is_none() && before.asn != self.config.asn;
            if asn || before.router_id != self.config.router_id {
                let config = Arc::clone(&peer.config);
                if let Some(before) = self.remove_peer(id, Notification::other_configuration_change(), now) {
                    self.add_peer(config, before, now);
                }
            } else if let Some(peer) = self.peers.get_mut(&id) {
                peer.set_speaker_config((&self.config, self.began), &mut self.rib);
                self.touch(id);
            }
        }
        self.routes_revision += 1;
        self.state_revision += 1;
        Ok(())
    }

    /// Makes this the whole set of neighbours of the source `""`: [`set_peers_of`](Self::set_peers_of).
    ///
    /// # Errors
    /// If one is not valid or two clash; the set before stays.
    pub fn set_peers(&mut self, peers: Vec<PeerConfig>, now: Instant) -> Result<(), ConfigError> {
        self.set_peers_of("", peers, now)
    }

    /// Makes this the whole set of neighbours of `source`; those of other sources stay. One that has not changed is not
    /// touched; one whose session must differ (its address, AS number, timers, families, ...) is reset; limits, connect
    /// timers, what is kept of its routes, and BFD change in place. The N bit of graceful restart goes into the next
    /// OPEN; the session is reset only where it was offered and is to be no more.
    ///
    /// Of two neighbours of different sources with one name or address that of the source which sorts first is there;
    /// the other one is told of in [`PeersSnapshot::clashes`], and takes over when the first one goes.
    ///
    /// # Errors
    /// If one is not valid or two of this set clash; the set before stays.
    pub fn set_peers_of(
        &mut self,
        source: &str,
        peers: Vec<PeerConfig>,
        now: Instant,
    ) -> Result<(), ConfigError> {
        self.neighbors.set_source(source, index_peers(peers)?);
        self.reconcile_peers(now);
        Ok(())
    }

    /// Makes the neighbours what they should be.
    pub(super) fn reconcile_peers(&mut self, now: Instant) {
        let (mut wanted, clashes) = self.neighbors.merged();
        self.neighbors.set_clashes(clashes);
        // Also of a change that touches no session: whoever watches over neighbours has to know groups and options.
        self.state_revision += 1;
        let mut remains = HashMap::new();
        let known: Vec<(PeerName, PeerId)> =
            self.by_name.iter().map(|(name, id)| (name.clone(), *id)).collect();
        for (name, id) in known {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            let dynamic = matches!(peer.source, PeerSource::Dynamic(_));
            let of_group = if dynamic { self.neighbors.dynamic_config(&peer.config) } else { None };
            let configured = wanted.get(&name).cloned().or(of_group);
            match configured {
                Some((config, source)) if peer.has_session_of(&config) => {
                    let mut gone = Vec::new();
                    if *peer.config != config {
                        gone = peer.set_config(Arc::new(config), &self.config, &mut self.rib, now);
                        if self.tell_received {
                            self.events.extend(withdrawals(&peer.config, &gone));
                            self.lost_events += bound(&mut self.events);
                        }
                    }
                    peer.source = source;
                    self.tell_best_paths(gone);
                    wanted.remove(&name);
                    self.state_revision += 1;
                    self.touch(id);
                }
                Some((config, _)) => {
                    let down = config.admin_down && !peer.config.admin_down;
                    let why = if down {
                        Notification::administrative_shutdown("")
                    } else {
                        Notification::other_configuration_change()
                    };
                    let before = self.remove_peer(id, why, now);
                    remains.insert(name, before);
                }
                None => {
                    self.remove_peer(id, Notification::peer_deconfigured(), now);
                }
            }
        }
        for (config, source) in wanted.into_values() {
            let address = (config.address.to_canonical(), config.scope_id);
            // A dynamic neighbour makes way for one that is configured.
            if let Some(id) = self.by_address.get(&address).copied() {
                self.remove_peer(id, Notification::other_configuration_change(), now);
            }
            let before = remains.remove(&config.name).flatten();
            let before = before.map_or_else(
                || Before::new(source.clone()),
                |before| Before { source: source.clone(), ..before },
            );
            self.add_peer(Arc::new(config), before, now);
        }
    }

    /// A neighbour that is configured anew goes on counting.
    pub(super) fn add_peer(&mut self, config: Arc<PeerConfig>, before: Before, now: Instant) -> PeerId {
        let id = PeerId(self.next_peer);
        self.next_peer += 1;
        self.by_name.insert(config.name.clone(), id);
        self.by_address.insert((config.address.to_canonical(), config.scope_id), id);
        self.peers.insert(id, Peer::new(id, config, (&self.config, self.began), before, now));
        self.state_revision += 1;
        self.routes_revision += 1;
        self.touch(id);
        id
    }

    pub(super) fn remove_peer(&mut self, id: PeerId, why: Notification, now: Instant) -> Option<Before> {
        let before = self.peers.get(&id)?.remains();
        self.drop_peer(id, Some(why), now)?;
        Some(before)
    }

    /// Whoever drives this has caught a panic. If it was in handling input of a neighbour, before that met what is
    /// shared with others, the neighbour is made anew, and tried again after a pause that doubles each time: gives
    /// which. Its connections are closed without a NOTIFICATION, as they would be if the process had died: with graceful
    /// restart it keeps our routes.
    ///
    /// `None`: what all neighbours share may be torn, and nothing more is to be done with this speaker.
    pub fn recover(&mut self, now: Instant) -> Option<PeerName> {
        const REASON: &str = "a bug in this program, please report it: the session was closed";
        let id = self.at_work.take()?;
        let peer = self.peers.get(&id)?;
        let (before, config) = (peer.remains_of_bug(REASON, now), Arc::clone(&peer.config));
        self.drop_peer(id, None, now)?;
        let name = config.name.clone();
        self.add_peer(config, before, now);
        self.push_event(Event::Down { peer: name.clone(), reason: REASON.to_owned() });
        Some(name)
    }

    fn drop_peer(&mut self, id: PeerId, why: Option<Notification>, now: Instant) -> Option<()> {
        let peer = self.peers.remove(&id)?;
        let name = peer.config.name.clone();
        self.by_name.remove(&name);
        self.by_address.remove(&(peer.config.address.to_canonical(), peer.config.scope_id));
        if let Some(at) = peer.timer {
            self.timers.remove(&(at, id));
        }
        let (config, state) = (Arc::clone(&peer.config), peer.state);
        let (farewells, prefixes) = peer.farewell(why, &mut self.rib, now);
        self.farewells.extend(farewells);
        if self.tell_received {
            self.events.extend(withdrawals(&config, &prefixes));
        }
        if state != State::Idle {
            self.events.push_back(Event::State { peer: name.clone(), state: State::Idle });
        }
        self.push_event(Event::PeerRemoved { peer: name });
        self.tell_best_paths(prefixes);
        self.state_revision += 1;
        self.routes_revision += 1;
        Some(())
    }

    pub(super) fn push_event(&mut self, event: Event) {
        self.events.push_back(event);
        self.lost_events += bound(&mut self.events);
    }

    /// Whether [`Event::Received`] is told from now on: one for each route that a neighbour sends and that is kept.
    pub fn watch_received(&mut self, wanted: bool) {
        self.tell_received = wanted;
    }

    /// Makes this the whole set of routes of `source`. Only what differs is sent. Of several routes of a prefix those of
    /// the source [`GUESTS`] come last.
    pub fn set_routes(&mut self, source: &str, routes: impl IntoIterator<Item = Route>, _now: Instant) {
        let id = self.sources.id(source);
        let mut changed = Changed::default();
        let marks = (self.rib.ipv4.begin(), self.rib.ipv6.begin());
        for route in routes {
            self.insert(id, &route, marks, &mut changed);
        }
        let order = self.sources.order();
        let Rib { ipv4, ipv6, attributes, .. } = &mut self.rib;
        ipv4.sweep(id, marks.0, attributes, &order, &mut changed.ipv4);
        ipv6.sweep(id, marks.1, attributes, &order, &mut changed.ipv6);
        drop(order);
        if self.sources.whole.insert(source.to_owned()) {
            // End-of-RIB may be due.
            self.state_revision += 1;
            let all: Vec<PeerId> = self.peers.keys().copied().collect();
            all.into_iter().for_each(|id| self.touch(id));
        }
        self.propagate(changed);
    }

    /// Changes some routes of `source`: the same as [`set_routes`](Self::set_routes) with the changed set, but the
    /// cost is that of the change.
    pub fn apply(&mut self, source: &str, delta: Delta, _now: Instant) {
        let id = self.sources.id(source);
        let mut changed = Changed::default();
        for key in &delta.remove {
            let family = family_of(key.prefix);
            let order = self.sources.order();
            let (table, attributes) = self.rib.table(family);
            let nlri = Nlri::new(Prefix::from(key.prefix), key.path_id);
            let destination = table.remove(id, nlri, attributes, &order);
            changed.of(family).extend(destination);
        }
        for route in &delta.add {
            self.insert(id, route, (0, 0), &mut changed);
        }
        self.propagate(changed);
    }

    fn insert(&mut self, source: SourceId, route: &Route, marks: (u32, u32), changed: &mut Changed) {
        let family = family_of(route.prefix);
        let mark = if family == Family::IPV4_UNICAST { marks.0 } else { marks.1 };
        let order = self.sources.order();
        let (table, attributes) = self.rib.table(family);
        let set = attributes.intern(route.next_hop, &route.attributes, &route.scope);
        let nlri = Nlri::new(Prefix::from(route.prefix), route.path_id);
        let claim = Claim { source, mark };
        changed.of(family).extend(table.insert(claim, nlri, set, attributes, &order));
    }

    fn propagate(&mut self, mut changed: Changed) {
        // Many paths of one prefix are one change of it.
        for destinations in [&mut changed.ipv4, &mut changed.ipv6] {
            destinations.sort_unstable();
            destinations.dedup();
        }
        if changed.ipv4.is_empty() && changed.ipv6.is_empty() {
            return;
        }
        self.routes_revision += 1;
        let few = changed.ipv4.len() + changed.ipv6.len() <= FRESH_CHANGES;
        let urgency = if few { Urgency::Fresh } else { Urgency::Bulk };
        let families = [(Family::IPV4_UNICAST, changed.ipv4), (Family::IPV6_UNICAST, changed.ipv6)];
        let mut touched = Vec::new();
        for (id, peer) in &mut self.peers {
            if let Some(session) = &mut peer.session {
                for (family, destinations) in &families {
                    session.reconcile(*family, destinations, urgency, &mut self.rib);
                }
                touched.push(*id);
            }
        }
        let mut prefixes = Vec::new();
        for (family, destinations) in &families {
            let (table, _) = self.rib.table(*family);
            if self.best_paths.is_some() {
                let known = destinations.iter().filter_map(|id| table.destination(*id));
                prefixes.extend(known.map(|destination| destination.prefix));
            }
            destinations.iter().for_each(|destination| table.collect(*destination));
        }
        self.tell_best_paths(prefixes);
        touched.into_iter().for_each(|id| self.touch(id));
    }

    /// Ends all sessions with Cease/2, Administrative Shutdown (RFC 4486), for good.
    pub fn stop(&mut self, now: Instant) {
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.remove_peer(id, Notification::administrative_shutdown(""), now);
        }
    }

    /// Takes an incoming connection for the peer that has its source address, or for a new one of the group of dynamic
    /// peers whose prefix holds it, or says why not.
    ///
    /// # Errors
    /// The reason, if it is to be closed.
    pub fn accept(&mut self, info: ConnectionInfo, now: Instant) -> Result<Accepted, Refusal> {
        let scope = match info.remote {
            std::net::SocketAddr::V6(remote) if remote.ip().is_unicast_link_local() => remote.scope_id(),
            _ => 0,
        };
        let address = info.remote.ip().to_canonical();
        // A link-local neighbour without a scope is told by the interface that its sockets are bound to.
        let id =
            self.by_address.get(&(address, scope)).or_else(|| self.by_address.get(&(address, 0))).copied();
        let id = match id {
            Some(id) => id,
            None => self.add_dynamic_peer(address, scope, info.remote, now)?,
        };
        let peer = self.peers.get_mut(&id).ok_or(Refusal::Unconfigured { source_address: info.remote })?;
        let accepted = peer.accept(info, now);
        self.touch(id);
        accepted
    }

    /// A TCP connection is up, outgoing or [accepted](Self::accept).
    pub fn handle_connected(&mut self, connection: ConnectionId, info: ConnectionInfo, now: Instant) {
        self.with(connection, |peer| peer.handle_connected(connection, info, now));
    }

    /// A TCP connection did not come up.
    pub fn handle_connect_failed(&mut self, connection: ConnectionId, error: &str, now: Instant) {
        self.with(connection, |peer| peer.handle_connect_failed(error, now));
    }

    /// Bytes came.
    pub fn handle_bytes(&mut self, connection: ConnectionId, bytes: &[u8], now: Instant) {
        self.with(connection, |peer| peer.handle_bytes(connection, bytes, now));
    }

    /// So many octets of what was [to be sent](Output::Send) were written.
    pub fn handle_written(&mut self, connection: ConnectionId, octets: usize, now: Instant) {
        self.with(connection, |peer| peer.handle_written(connection, octets, now));
    }

    /// The connection ended.
    pub fn handle_closed(&mut self, connection: ConnectionId, now: Instant) {
        self.with(connection, |peer| peer.handle_closed(connection, now));
    }

    /// Passes on what concerns a connection that is still the one meant.
    fn with(&mut self, connection: ConnectionId, act: impl FnOnce(&mut Peer)) {
        if let Some(peer) = self.peers.get_mut(&connection.peer)
            && peer.is_current(connection)
        {
            self.at_work = Some(connection.peer);
            act(peer);
            self.at_work = None;
            self.touch(connection.peer);
        }
    }

    /// Time has passed. To come too early does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.best_paths.take_if(|known| known.until().is_some_and(|at| at <= now));
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.timer = None;
                self.at_work = Some(id);
                peer.handle_timeout(now);
                self.at_work = None;
                // Its timer is set anew when its output was fetched.
                self.touch(id);
            }
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest. Valid once
    /// [`poll_output`](Self::poll_output) gives nothing.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let forget = self.best_paths.as_ref().and_then(BestPaths::until);
        self.timers.first().map(|(at, _)| *at).into_iter().chain(forget).min()
    }

    pub(super) fn touch(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id)
            && !std::mem::replace(&mut peer.ready, true)
        {
            self.ready.push_back(id);
        }
    }

    /// What to do next; peers take turns.
    pub fn poll_output(&mut self, now: Instant) -> Option<Output> {
        if let Some(output) = self.farewells.pop_front() {
            return Some(output);
        }
        let complete = self.routes_complete();
        while let Some(id) = self.ready.pop_front() {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            let mut touched = Vec::new();
            let mut around = Surroundings {
                config: &self.config,
                routes_complete: complete,
                rib: &mut self.rib,
                events: &mut self.events,
                touched: self.best_paths.is_some().then_some(&mut touched),
                tell_received: self.tell_received,
            };
            let output = peer.poll_output(&mut around, now);
            self.state_revision += u64::from(std::mem::take(&mut peer.changed));
            self.routes_revision += u64::from(std::mem::take(&mut peer.routes_changed));
            self.lost_events += bound(&mut self.events);
            if output.is_some() {
                self.ready.push_back(id);
                self.tell_best_paths(touched);
                return output;
            }
            peer.ready = false;
            let gone = peer.is_gone();
            let timer = peer.poll_timeout();
            if timer != peer.timer {
                if let Some(at) = std::mem::replace(&mut peer.timer, timer) {
                    self.timers.remove(&(at, id));
                }
                self.timers.extend(timer.map(|at| (at, id)));
            }
            self.tell_best_paths(touched);
            if gone {
                self.remove_peer(id, Notification::peer_deconfigured(), now);
            }
        }
        None
    }

    /// What happened. The oldest are dropped if nobody asks, which is an event, too.
    pub fn poll_event(&mut self) -> Option<Event> {
        if self.lost_events > 0 {
            return Some(Event::Lost { events: std::mem::take(&mut self.lost_events) });
        }
        self.events.pop_front()
    }

    /// Whether the first whole set of every awaited source has arrived, so that End-of-RIB can be sent.
    pub fn routes_complete(&self) -> bool {
        !self.sources.whole.is_empty() && self.config.sources.is_subset(&self.sources.whole)
    }

    /// The neighbours.
    pub fn peers(&self) -> PeersSnapshot {
        PeersSnapshot {
            peers: self
                .peers
                .values()
                .map(|peer| (peer.config.name.clone(), peer.status(&self.rib)))
                .collect(),
            listeners: Vec::new(),
            routes_complete: self.routes_complete(),
            refused_connections: 0,
            md5_failures: 0,
            bfd_discarded: 0,
            clashes: self.neighbors.clashes().to_vec(),
        }
    }

    /// Changes whenever [`peers`](Self::peers) does, counters left out.
    pub fn state_revision(&self) -> u64 {
        self.state_revision
    }

    /// The routes, and where each stands with each neighbour.
    pub fn routes(&self) -> RoutesSnapshot {
        let mut routes = Vec::new();
        for table in [&self.rib.ipv4, &self.rib.ipv6] {
            table.ids().for_each(|id| self.destination_status(id, table, &mut routes));
        }
        routes.sort_unstable_by_key(|route: &RouteStatus| (route.prefix, route.path_id));
        RoutesSnapshot { routes: routes.into() }
    }

    /// Changes whenever [`routes`](Self::routes) may.
    pub fn routes_revision(&self) -> u64 {
        self.routes_revision
    }

    /// The routes of one prefix, and where each stands with each neighbour.
    pub fn route_status(&self, prefix: IpNet) -> Vec<RouteStatus> {
        let table = if family_of(prefix) == Family::IPV4_UNICAST { &self.rib.ipv4 } else { &self.rib.ipv6 };
        let mut routes = Vec::new();
        if let Some(id) = table.find(&Prefix::from(prefix)) {
            self.destination_status(id, table, &mut routes);
        }
        routes.sort_unstable_by_key(|route| route.path_id);
        routes
    }

    fn destination_status(
        &self,
        id: DestinationId,
        table: &crate::rib::table::Table,
        into: &mut Vec<RouteStatus>,
    ) {
        let Some(destination) = table.destination(id) else { return };
        let prefix = IpNet::from(destination.prefix);
        let family = family_of(prefix);
        let peers = || self.by_name.iter().filter_map(|(name, id)| Some((name, self.peers.get(id)?)));
        for (index, path) in table.chain(id) {
            let state = |peer: &Peer| match &peer.session {
                None => Advertisement::NotEstablished,
                Some(session) => session
                    .families
                    .iter()
                    .find(|known| known.family == family)
                    .map_or(Advertisement::FamilyNotNegotiated, |known| {
                        known.adj_out.path_status(id, index, table, &self.rib.attributes)
                    }),
            };
            let peers = peers().map(|(name, peer)| (name.clone(), state(peer))).collect();
            into.push(RouteStatus { prefix, path_id: path.path_id, peers });
        }
        if table.chain(id).next().is_none() {
            let withdrawing = peers().filter(|(_, peer)| {
                let families = peer.session.iter().flat_map(|session| &session.families);
                families.into_iter().any(|known| known.family == family && known.adj_out.is_withdrawing(id))
            });
            let peers: Vec<_> =
                withdrawing.map(|(name, _)| (name.clone(), Advertisement::Withdrawing)).collect();
            if !peers.is_empty() {
                into.push(RouteStatus { prefix, path_id: 0, peers });
            }
        }
    }

    /// How much the tables hold.
    pub fn table_stats(&self) -> TableStats {
        let Rib { ipv4, ipv6, attributes, received } = &self.rib;
        let sessions = self.peers.values().filter_map(|peer| peer.session.as_ref());
        let advertised: usize =
            sessions.flat_map(|session| &session.families).map(|known| known.adj_out.reserved_bytes()).sum();
        TableStats {
            prefixes: ipv4.len().0 + ipv6.len().0,
            routes: ipv4.len().1 + ipv6.len().1,
            attribute_sets: attributes.len(),
            received_routes: received.routes(),
            received_attribute_sets: received.attribute_sets(),
            reserved_bytes: ipv4.reserved_bytes() + ipv6.reserved_bytes() + advertised,
        }
    }
}
