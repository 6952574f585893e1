//! Hosts with a speaker and BFD each, and the network between them, on one virtual clock. One seed, one history.
//!
//! BGP runs over TCP: what the network loses, TCP sends again, and what overtakes waits for what it has overtaken. So loss
//! and reordering stall one direction of a connection, and then a burst comes: segments of any size on the way, and bytes
//! that are cut and joined anew where they arrive. BFD runs over UDP: datagrams are lost, doubled and overtaken as they are.

mod tcp;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use openelb_bgp::{
    bfd::{self, Endpoint, EndpointOutput, PACKET_LEN, SessionConfig, StateChange, Timers},
    fsm::State,
    speaker::{
        BfdConfig, ConnectionId, Event, GracefulRestartConfig, Output, PathState, PeerConfig, PeerName,
        ReceivedRoutes, Route, RouteAttributes, Speaker, SpeakerConfig,
    },
    wire::Family,
};
use tcp::{Item, Tcp};

/// The one look at the clock; all else is added to it.
static ORIGIN: LazyLock<Instant> = LazyLock::new(|| {
    #[allow(clippy::disallowed_methods, reason = "some instant is needed to count from")]
    Instant::now()
});

/// BFD's interval, both ways.
const INTERVAL: Duration = Duration::from_millis(500);
/// Packets that are missing when the path is down.
const MULTIPLIER: u8 = 3;
/// A path that dies has died for BFD after this.
pub(crate) const DETECTION: Duration = Duration::from_millis(1500);
/// A BFD session sends no more packets a second than this, and a few for changes.
const MOST_DATAGRAMS: u64 = 6;

struct Host {
    speaker: Speaker,
    bfd: Endpoint,
    /// Since when it has a session with whom.
    established: BTreeMap<usize, Instant>,
    /// Datagrams that it has sent, by receiver.
    datagrams: BTreeMap<usize, u64>,
    /// Sessions that ended because BFD said so here.
    lost_paths: BTreeMap<usize, u32>,
}

/// What a world is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nature {
    pub(crate) count: usize,
    pub(crate) graceful: bool,
    pub(crate) bfd: bool,
    /// The longest delay.
    pub(crate) delay: Duration,
    /// Of a hundred segments and datagrams so many are lost.
    pub(crate) loss: usize,
    /// Of a hundred datagrams so many come twice.
    pub(crate) doubles: usize,
    /// Segments have at most so many octets.
    pub(crate) segment: usize,
    /// Each node has at least so many routes.
    pub(crate) routes: u16,
}

impl Nature {
    pub(crate) fn calm(count: usize) -> Self {
        let delay = Duration::from_millis(20);
        Self { count, graceful: false, bfd: true, delay, loss: 0, doubles: 0, segment: 1460, routes: 2 }
    }
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) nature: Nature,
    hosts: Vec<Host>,
    /// What each announces beyond the routes that it always has.
    pub(crate) more: Vec<u16>,
    connections: Vec<Tcp>,
    /// Attempts that will fail.
    failing: Vec<(Instant, usize, ConnectionId)>,
    datagrams: BTreeMap<(Instant, u64), (usize, usize, [u8; PACKET_LEN])>,
    /// From whom to whom nothing gets.
    blocked: BTreeSet<(usize, usize)>,
    /// From whom to whom no datagram gets: a filter that knows BGP and not BFD.
    pub(crate) filtered: BTreeSet<(usize, usize)>,
    /// The path of which BFD is telling right now.
    telling: Option<(usize, usize)>,
    random: u64,
    numbers: u64,
    next_port: u16,
}

fn address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(node + 1).unwrap())
}

pub(crate) fn name(node: usize) -> PeerName {
    PeerName::new(format!("s{node}"))
}

fn node_of(name: &str) -> usize {
    name[1..].parse().unwrap()
}

fn asn(node: usize) -> u32 {
    65_000 + u32::try_from(node).unwrap()
}

/// The first so many routes of a node, each with attributes of its own, so that each is an UPDATE of its own.
fn routes_of(node: usize, count: u16) -> Vec<Route> {
    let route = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let prefix: IpNet = format!("10.{}.{high}.{low}/32", 100 + node).parse().unwrap();
        let attributes =
            RouteAttributes { communities: vec![u32::from(number) << 8 | 1], ..RouteAttributes::default() };
        Route { attributes: Arc::new(attributes), ..Route::new(prefix) }
    };
    (0..count).map(route).collect()
}

impl World {
    pub(crate) fn new(nature: Nature, seed: u64) -> Self {
        let mut this = Self {
            now: *ORIGIN,
            nature,
            hosts: Vec::new(),
            more: vec![0; nature.count],
            connections: Vec::new(),
            failing: Vec::new(),
            datagrams: BTreeMap::new(),
            blocked: BTreeSet::new(),
            filtered: BTreeSet::new(),
            telling: None,
            random: seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            numbers: 0,
            next_port: 30_000,
        };
        for node in 0..nature.count {
            let host = this.host(node, false);
            this.hosts.push(host);
            this.announce(node);
        }
        this
    }

    fn host(&mut self, node: usize, restarted: bool) -> Host {
        let seed = self.random(1 << 30) as u64;
        let timers = Timers {
            detect_multiplier: MULTIPLIER,
            desired_min_tx: INTERVAL,
            required_min_rx: INTERVAL,
            passive: false,
        };
        let config = SpeakerConfig { seed, ..SpeakerConfig::new(asn(node), address(node)) };
        let mut speaker = Speaker::new(config, self.now).unwrap();
        let others: Vec<usize> = (0..self.nature.count).filter(|other| *other != node).collect();
        let peers = others.iter().map(|other| {
            let mut peer = PeerConfig::new(name(*other), address(*other).into(), asn(*other));
            peer.received_routes = ReceivedRoutes::Keep;
            peer.connect_retry_max = Duration::from_secs(10);
            peer.bfd = self.nature.bfd.then_some(BfdConfig { timers, minimum_ttl: None });
            peer.graceful_restart = self.nature.graceful.then_some(GracefulRestartConfig {
                restart_time: Duration::from_secs(60),
                restarting: restarted,
                forwarding_preserved: true,
                notification: false,
            });
            peer
        });
        speaker.set_peers(peers.collect(), self.now).unwrap();
        let mut bfd = Endpoint::new(!seed);
        let sessions = others.iter().filter(|_| self.nature.bfd).map(|other| SessionConfig {
            timers,
            // As `net` does for one that has restarted and whose neighbours may not have noticed.
            resume: restarted && self.nature.graceful,
            ..SessionConfig::single_hop(name(*other).as_str(), address(*other).into())
        });
        bfd.set_sessions(sessions, self.now);
        Host {
            speaker,
            bfd,
            established: BTreeMap::new(),
            datagrams: BTreeMap::new(),
            lost_paths: BTreeMap::new(),
        }
    }

    pub(crate) fn random(&mut self, below: usize) -> usize {
        let mut x = self.random;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random = x;
        usize::try_from(x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % below
    }

    pub(crate) fn chance(&mut self, of_a_hundred: usize) -> bool {
        self.random(100) < of_a_hundred
    }

    fn delay(&mut self) -> Duration {
        let most = usize::try_from(self.nature.delay.as_micros()).unwrap() + 1;
        Duration::from_micros(self.random(most) as u64)
    }

    pub(crate) fn announce(&mut self, node: usize) {
        let routes = routes_of(node, self.nature.routes + self.more[node]);
        let now = self.now;
        self.hosts[node].speaker.set_routes("test", routes, now);
    }

    pub(crate) fn speaker(&mut self, node: usize) -> &mut Speaker {
        &mut self.hosts[node].speaker
    }

    /// Nothing gets from one to the other.
    pub(crate) fn block(&mut self, from: usize, to: usize) {
        self.blocked.insert((from, to));
    }

    pub(crate) fn heal_all(&mut self) {
        for (from, to) in self.blocked.clone() {
            self.heal(from, to);
        }
        self.filtered.clear();
    }

    fn drain(&mut self, node: usize) {
        while let Some(output) = self.hosts[node].speaker.poll_output(self.now) {
            match output {
                Output::Connect { connection, config, .. } => {
                    let other = node_of(config.name.as_str());
                    if self.blocked.contains(&(node, other)) || self.blocked.contains(&(other, node)) {
                        self.failing.push((self.now + Duration::from_secs(3), node, connection));
                        continue;
                    }
                    self.next_port = self.next_port.checked_add(1).unwrap_or(30_000);
                    let id = self.connections.len();
                    self.connections.push(Tcp {
                        nodes: [node, other],
                        ids: [Some(connection), None],
                        open: [true, true],
                        lanes: Default::default(),
                        port: self.next_port,
                    });
                    self.enqueue(id, 0, Item::Connected);
                    self.enqueue(id, 1, Item::Connected);
                }
                Output::Send { connection, bytes } => {
                    // To one that has closed it nothing is sent; what was written into it is gone.
                    match self.find(node, connection) {
                        Some((id, end)) => self.transmit(id, 1 - end, bytes),
                        None => self.hosts[node].speaker.handle_written(connection, bytes.len(), self.now),
                    }
                }
                Output::Close { connection } => {
                    if let Some((id, end)) = self.find(node, connection) {
                        self.hang_up(id, end);
                    }
                }
                _ => {}
            }
        }
        while let Some(event) = self.hosts[node].speaker.poll_event() {
            self.note(node, event);
        }
    }

    /// What a speaker tells.
    fn note(&mut self, node: usize, event: Event) {
        match event {
            Event::State { peer, state } => {
                let (other, now) = (node_of(peer.as_str()), self.now);
                let known = &mut self.hosts[node].established;
                if state == State::Established {
                    known.insert(other, now);
                } else {
                    known.remove(&other);
                }
            }
            Event::Down { peer, reason } if reason.contains("we sent") && reason.contains("BFD down") => {
                let other = node_of(peer.as_str());
                *self.hosts[node].lost_paths.entry(other).or_default() += 1;
                assert_eq!(
                    self.telling,
                    Some((node, other)),
                    "a session was reset for what BFD did not say just now: {node} to {other}: {reason}"
                );
            }
            Event::Lost { events } => panic!("{events} events were lost, though they were polled at once"),
            _ => {}
        }
    }

    fn pump(&mut self, node: usize) {
        while let Some(output) = self.hosts[node].bfd.poll_output(self.now) {
            match output {
                EndpointOutput::Send { session, bytes } => {
                    let remote = self.hosts[node].bfd.config(session).unwrap().remote;
                    let other = (0..self.nature.count).find(|other| remote == address(*other)).unwrap();
                    *self.hosts[node].datagrams.entry(other).or_default() += 1;
                    self.throw(node, other, bytes);
                }
                EndpointOutput::Changed { name, change } => self.path(node, &name, change),
                EndpointOutput::Closed { .. } => {}
            }
        }
    }

    fn throw(&mut self, from: usize, to: usize, bytes: [u8; PACKET_LEN]) {
        if self.blocked.contains(&(from, to)) || self.filtered.contains(&(from, to)) {
            return;
        }
        let copies = if self.chance(self.nature.doubles) { 2 } else { 1 };
        for _ in 0..copies {
            if !self.chance(self.nature.loss) {
                self.numbers += 1;
                let at = self.now + self.delay();
                self.datagrams.insert((at, self.numbers), (from, to, bytes));
            }
        }
    }

    /// BFD has something to say of a path: the speaker hears it as `net` tells it.
    fn path(&mut self, node: usize, of: &str, change: StateChange) {
        let state = match (change.from, change.to) {
            (_, bfd::State::Up) => PathState::Up,
            (bfd::State::Up | bfd::State::Init, _) => PathState::Down(change.cause),
            _ => return,
        };
        let (other, now) = (node_of(of), self.now);
        let host = &mut self.hosts[node];
        let (was, before) = (host.established.contains_key(&other), host.lost_paths.get(&other).copied());
        self.telling = Some((node, other)).filter(|_| change.is_failure());
        host.speaker.handle_bfd(&PeerName::new(of), state, now).unwrap();
        self.drain(node);
        self.telling = None;
        let host = &self.hosts[node];
        if change.is_failure() {
            assert!(!host.established.contains_key(&other), "{node} to {other}: a session outlives its path");
            let ended = host.lost_paths.get(&other).copied() != before;
            assert_eq!(ended, was, "{node} to {other}: a session is reset if, and only if, there is one");
        }
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let (began, until) = (self.now, self.now + time);
        for host in &mut self.hosts {
            host.datagrams.clear();
        }
        for node in 0..self.nature.count {
            self.drain(node);
            self.pump(node);
        }
        for steps in 0.. {
            assert!(steps < 2_000_000, "they never come to rest");
            let arrival = self.next_arrival();
            let datagram = self.datagrams.first_key_value().map(|((at, _), _)| *at);
            let timers =
                self.hosts.iter().flat_map(|host| [host.speaker.poll_timeout(), host.bfd.poll_timeout()]);
            let failure = self.failing.iter().map(|(at, ..)| *at).min();
            let times = [arrival.map(|(at, ..)| at), datagram, timers.flatten().min(), failure];
            let Some(at) = times.into_iter().flatten().min().filter(|at| *at <= until) else { break };
            self.now = self.now.max(at);
            match (arrival, datagram) {
                (Some((when, id, end)), _) if when <= self.now => self.arrive(id, end),
                (_, Some(when)) if when <= self.now => self.receive(),
                _ => self.timers(),
            }
        }
        self.now = until;
        let seconds = until.duration_since(began).as_secs() + 1;
        for host in &self.hosts {
            for (other, sent) in &host.datagrams {
                let most = 100 + MOST_DATAGRAMS * seconds;
                assert!(*sent <= most, "{sent} datagrams to {other} within {time:?}");
            }
        }
        self.connections
            .retain(|tcp| tcp.open.contains(&true) || tcp.lanes.iter().any(|lane| !lane.items.is_empty()));
    }

    fn receive(&mut self) {
        let Some((_, (from, to, bytes))) = self.datagrams.pop_first() else { return };
        let arrival = bfd::Arrival {
            remote: address(from).into(),
            local: IpAddr::from(address(to)),
            interface: 1,
            ttl: 255,
            multihop: false,
        };
        // One of a session that is gone is discarded.
        let _ = self.hosts[to].bfd.handle_packet(&arrival, &bytes, self.now);
        self.pump(to);
    }

    fn timers(&mut self) {
        let now = self.now;
        let (due, left) = std::mem::take(&mut self.failing).into_iter().partition(|(at, ..)| *at <= now);
        self.failing = left;
        let due: Vec<(Instant, usize, ConnectionId)> = due;
        for (_, node, connection) in due {
            self.hosts[node].speaker.handle_connect_failed(connection, "timed out", now);
            self.drain(node);
        }
        for node in 0..self.nature.count {
            self.hosts[node].bfd.handle_timeout(now);
            self.pump(node);
            self.hosts[node].speaker.handle_timeout(now);
            self.drain(node);
            let host = &self.hosts[node];
            let timers = [host.speaker.poll_timeout(), host.bfd.poll_timeout()];
            assert!(
                timers.into_iter().flatten().all(|at| at > now),
                "a deadline that has passed is still there"
            );
        }
    }

    /// The process is gone and a new one is there. `silently`: the others hear of it only when they send.
    pub(crate) fn restart(&mut self, node: usize, silently: bool) {
        for id in 0..self.connections.len() {
            for end in [0, 1] {
                if self.connections[id].nodes[end] == node && self.connections[id].open[end] {
                    if silently {
                        self.connections[id].open[end] = false;
                        self.connections[id].lanes[end].items.clear();
                    } else {
                        self.hang_up(id, end);
                    }
                }
            }
        }
        self.failing.retain(|(_, at, _)| *at != node);
        self.hosts[node] = self.host(node, true);
        self.announce(node);
    }

    pub(crate) fn pairs(&self) -> Vec<(usize, usize)> {
        let count = self.nature.count;
        (0..count).flat_map(|a| (0..count).filter(move |b| *b != a).map(move |b| (a, b))).collect()
    }

    /// Since when there is a session.
    pub(crate) fn session(&self, node: usize, other: usize) -> Option<Instant> {
        self.hosts[node].established.get(&other).copied()
    }

    /// How many sessions were established and have ended.
    pub(crate) fn counted(&self, node: usize, other: usize) -> (u64, u64) {
        let counters = self.hosts[node].speaker.peers().peers[&name(other)].counters;
        (counters.established, counters.dropped)
    }

    pub(crate) fn is_up(&self, node: usize, other: usize) -> bool {
        let name = name(other);
        let mut sessions = self.hosts[node].bfd.sessions();
        sessions.any(|(_, config, status)| *config.name == *name.as_str() && status.state == bfd::State::Up)
    }

    /// All sessions are up, each on one connection, BFD is up with all, and everybody has what everybody else announces.
    pub(crate) fn assert_whole(&self, what: &str) {
        for (node, other) in self.pairs() {
            let speaker = &self.hosts[node].speaker;
            let status = &speaker.peers().peers[&name(other)];
            assert_eq!(status.state, State::Established, "{what}: {node} to {other}: {status:?}");
            assert!(
                self.session(node, other).is_some(),
                "{what}: {node} to {other}: events and status differ"
            );
            if self.nature.bfd {
                assert!(self.is_up(node, other), "{what}: no BFD from {node} to {other}");
                assert_eq!(status.path, Some(PathState::Up), "{what}: {node} to {other}");
            }
            let routes = speaker.adj_in(&name(other), Family::IPV4_UNICAST).unwrap();
            assert!(routes.iter().all(|route| !route.stale), "{what}: {node} keeps stale ones of {other}");
            let had: BTreeMap<IpNet, u32> = routes
                .iter()
                .map(|route| (route.prefix, route.attributes.attributes.communities[0].0))
                .collect();
            assert_eq!(had.len(), routes.len(), "{what}: {node} has a route of {other} twice");
            let announced = routes_of(other, self.nature.routes + self.more[other]);
            let expected: BTreeMap<IpNet, u32> =
                announced.iter().map(|route| (route.prefix, route.attributes.communities[0])).collect();
            assert!(had == expected, "{what}: {node} has {} of {} of {other}", had.len(), expected.len());
            let open = self.connections.iter().filter(|tcp| {
                tcp.open == [true, true] && BTreeSet::from(tcp.nodes) == BTreeSet::from([node, other])
            });
            assert_eq!(open.count(), 1, "{what}: {node} and {other}");
        }
    }
}
