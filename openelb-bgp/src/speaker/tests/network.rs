//! Speakers on one virtual clock, each a neighbour of each other, over connections with delays of their own that break,
//! stall, and outlive those at their ends. One seed, one history.

use std::collections::BTreeSet;

use super::*;
use crate::speaker::{GracefulRestartConfig, ReceivedRoutes};

#[derive(Debug)]
enum Arrival {
    Connected,
    Bytes(Bytes),
    Closed,
}

/// A TCP connection. End 0 has opened it.
#[derive(Debug)]
struct Tcp {
    nodes: [usize; 2],
    ids: [Option<ConnectionId>; 2],
    /// The process at this end has it.
    open: [bool; 2],
    queues: [VecDeque<(Instant, Arrival)>; 2],
    port: u16,
}

struct Network {
    now: Instant,
    speakers: Vec<Speaker>,
    connections: Vec<Tcp>,
    /// Attempts that will fail.
    failing: Vec<(Instant, usize, ConnectionId)>,
    /// Pairs between which nothing arrives.
    parted: BTreeSet<(usize, usize)>,
    random: u64,
    /// The longest delay.
    delay: Duration,
    graceful: bool,
    /// Nobody answers for a process that is gone: its packets are lost.
    mute: bool,
    next_port: u16,
}

fn address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(node + 1).unwrap())
}

fn name(node: usize) -> String {
    format!("s{node}")
}

fn asn(node: usize) -> u32 {
    65_000 + u32::try_from(node).unwrap()
}

/// The routes of a node: two that it has always, and some that it has by and by.
fn routes_of(node: usize, more: u8) -> Vec<Route> {
    let prefix = |last: u8| format!("203.0.{node}.{last}/32");
    (0..2 + more).map(|last| route(&prefix(last))).collect()
}

impl Network {
    fn new(count: usize, graceful: bool, seed: u64) -> Self {
        let mut this = Self {
            now: *ORIGIN,
            speakers: Vec::new(),
            connections: Vec::new(),
            failing: Vec::new(),
            parted: BTreeSet::new(),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            delay: Duration::from_millis(40),
            graceful,
            mute: false,
            next_port: 30_000,
        };
        for node in 0..count {
            let speaker = this.speaker(node, count);
            this.speakers.push(speaker);
            this.speakers[node].set_routes("test", routes_of(node, 0), *ORIGIN);
        }
        this
    }

    fn speaker(&mut self, node: usize, count: usize) -> Speaker {
        let seed = self.random(1 << 30);
        let config = SpeakerConfig { seed: seed as u64, ..SpeakerConfig::new(asn(node), address(node)) };
        let mut speaker = Speaker::new(config, self.now).unwrap();
        let others = (0..count).filter(|other| *other != node);
        let peers = others.map(|other| {
            let mut peer = PeerConfig::new(name(other), address(other).into(), asn(other));
            peer.received_routes = ReceivedRoutes::Keep;
            peer.connect_retry_max = Duration::from_secs(10);
            if self.graceful {
                peer.graceful_restart = Some(GracefulRestartConfig {
                    restart_time: Duration::from_secs(60),
                    restarting: true,
                    forwarding_preserved: true,
                    notification: false,
                });
            }
            peer
        });
        speaker.set_peers(peers.collect(), self.now).unwrap();
        speaker
    }

    fn random(&mut self, below: usize) -> usize {
        let mut x = self.random;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random = x;
        usize::try_from(x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % below
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.random(one_in) == 0
    }

    fn is_parted(&self, a: usize, b: usize) -> bool {
        self.parted.contains(&(a.min(b), a.max(b)))
    }

    fn enqueue(&mut self, id: usize, end: usize, arrival: Arrival) {
        let most = usize::try_from(self.delay.as_millis()).unwrap() + 1;
        let delay = Duration::from_millis(self.random(most) as u64);
        let queue = &mut self.connections[id].queues[end];
        // What is sent first arrives first, on one connection.
        let at = queue.back().map_or(self.now + delay, |(at, _)| (self.now + delay).max(*at));
        queue.push_back((at, arrival));
    }

    fn drain(&mut self, node: usize) {
        while let Some(output) = self.speakers[node].poll_output(self.now) {
            match output {
                Output::Connect { connection, config, .. } => {
                    let other = config.name.as_str()[1..].parse::<usize>().unwrap();
                    if self.is_parted(node, other) {
                        self.failing.push((self.now + Duration::from_secs(3), node, connection));
                        continue;
                    }
                    self.next_port = self.next_port.checked_add(1).unwrap_or(30_000);
                    let id = self.connections.len();
                    self.connections.push(Tcp {
                        nodes: [node, other],
                        ids: [Some(connection), None],
                        open: [true, true],
                        queues: Default::default(),
                        port: self.next_port,
                    });
                    self.enqueue(id, 0, Arrival::Connected);
                    self.enqueue(id, 1, Arrival::Connected);
                }
                Output::Send { connection, bytes } => {
                    self.speakers[node].handle_written(connection, bytes.len(), self.now);
                    if let Some((id, end)) = self.find(node, connection) {
                        self.enqueue(id, 1 - end, Arrival::Bytes(bytes));
                    }
                }
                Output::Close { connection } => {
                    if let Some((id, end)) = self.find(node, connection) {
                        self.hang_up(id, end);
                    }
                }
            }
        }
        while self.speakers[node].poll_event().is_some() {}
    }

    fn find(&self, node: usize, connection: ConnectionId) -> Option<(usize, usize)> {
        self.connections.iter().enumerate().find_map(|(id, tcp)| {
            let has =
                |end: &usize| tcp.open[*end] && tcp.nodes[*end] == node && tcp.ids[*end] == Some(connection);
            Some((id, (0..2).find(has)?))
        })
    }

    fn hang_up(&mut self, id: usize, end: usize) {
        self.connections[id].open[end] = false;
        self.connections[id].queues[end].clear();
        self.enqueue(id, 1 - end, Arrival::Closed);
    }

    fn info(&self, id: usize, end: usize) -> ConnectionInfo {
        let tcp = &self.connections[id];
        let ends = [
            SocketAddr::new(address(tcp.nodes[0]).into(), tcp.port),
            SocketAddr::new(address(tcp.nodes[1]).into(), 179),
        ];
        ConnectionInfo { local: ends[end], remote: ends[1 - end] }
    }

    fn arrive(&mut self, id: usize, end: usize) {
        let Some((_, arrival)) = self.connections[id].queues[end].pop_front() else { return };
        let node = self.connections[id].nodes[end];
        if !self.connections[id].open[end] {
            // Nobody is there: a reset is the answer, if anything is.
            if !self.mute && matches!(arrival, Arrival::Bytes(_)) && self.connections[id].open[1 - end] {
                self.enqueue(id, 1 - end, Arrival::Closed);
            }
            return;
        }
        let (info, now) = (self.info(id, end), self.now);
        match arrival {
            Arrival::Connected if end == 1 => match self.speakers[node].accept(info, now) {
                Ok(accepted) => {
                    self.connections[id].ids[1] = Some(accepted.connection);
                    self.speakers[node].handle_connected(accepted.connection, info, now);
                }
                Err(_) => self.hang_up(id, 1),
            },
            Arrival::Connected => {
                if let Some(connection) = self.connections[id].ids[0] {
                    self.speakers[node].handle_connected(connection, info, now);
                }
            }
            Arrival::Bytes(bytes) => {
                if let Some(connection) = self.connections[id].ids[end] {
                    // In pieces, as TCP does.
                    let cut = self.random(bytes.len() + 1);
                    self.speakers[node].handle_bytes(connection, &bytes[..cut], now);
                    self.speakers[node].handle_bytes(connection, &bytes[cut..], now);
                }
            }
            Arrival::Closed => {
                self.connections[id].open[end] = false;
                if let Some(connection) = self.connections[id].ids[end] {
                    self.speakers[node].handle_closed(connection, now);
                }
            }
        }
        self.drain(node);
    }

    /// The next thing to arrive: when, on which connection, at which end.
    fn next_arrival(&self) -> Option<(Instant, usize, usize)> {
        let mut next: Option<(Instant, usize, usize)> = None;
        for (id, tcp) in self.connections.iter().enumerate() {
            if self.is_parted(tcp.nodes[0], tcp.nodes[1]) {
                continue;
            }
            for end in [0, 1] {
                if let Some((at, _)) = tcp.queues[end].front()
                    && next.is_none_or(|(best, ..)| *at < best)
                {
                    next = Some((*at, id, end));
                }
            }
        }
        next
    }

    fn run_for(&mut self, time: Duration, mut check: impl FnMut(&Self)) {
        let until = self.now + time;
        (0..self.speakers.len()).for_each(|node| self.drain(node));
        for steps in 0.. {
            assert!(steps < 200_000, "they never come to rest");
            let arrival = self.next_arrival();
            let timer = self.speakers.iter().filter_map(Speaker::poll_timeout).min();
            let failure = self.failing.iter().map(|(at, ..)| *at).min();
            let times = [arrival.map(|(at, ..)| at), timer, failure];
            let Some(at) = times.into_iter().flatten().min().filter(|at| *at <= until) else { break };
            self.now = self.now.max(at);
            if let Some((when, id, end)) = arrival
                && when <= self.now
            {
                self.arrive(id, end);
            } else {
                let now = self.now;
                let (due, left) =
                    std::mem::take(&mut self.failing).into_iter().partition(|(at, ..)| *at <= now);
                self.failing = left;
                let due: Vec<(Instant, usize, ConnectionId)> = due;
                for (_, node, connection) in due {
                    self.speakers[node].handle_connect_failed(connection, "timed out", now);
                    self.drain(node);
                }
                for node in 0..self.speakers.len() {
                    self.speakers[node].handle_timeout(now);
                    self.drain(node);
                    assert!(
                        self.speakers[node].poll_timeout().is_none_or(|at| at > now),
                        "a deadline that has passed is still there"
                    );
                }
            }
            check(self);
        }
        self.now = until;
        self.connections
            .retain(|tcp| tcp.open.contains(&true) || tcp.queues.iter().any(|queue| !queue.is_empty()));
    }

    /// The process is gone and a new one is there. `silently`: the others hear of it only when they send.
    fn restart(&mut self, node: usize, silently: bool) {
        for id in 0..self.connections.len() {
            for end in [0, 1] {
                if self.connections[id].nodes[end] == node && self.connections[id].open[end] {
                    if silently {
                        self.connections[id].open[end] = false;
                        self.connections[id].queues[end].clear();
                    } else {
                        self.hang_up(id, end);
                    }
                }
            }
        }
        self.failing.retain(|(_, at, _)| *at != node);
        let count = self.speakers.len();
        self.speakers[node] = self.speaker(node, count);
    }

    /// What `node` has of `other`: prefixes, and whether any is stale.
    fn kept(&self, node: usize, other: usize) -> (BTreeSet<IpNet>, bool) {
        let routes = self.speakers[node].adj_in(&name(other).into(), Family::IPV4_UNICAST).unwrap();
        (routes.iter().map(|route| route.prefix).collect(), routes.iter().any(|route| route.stale))
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let count = self.speakers.len();
        (0..count).flat_map(|a| (0..count).filter(move |b| *b != a).map(move |b| (a, b))).collect()
    }

    /// All sessions are up, each on one connection, and everybody has what everybody else announces.
    fn assert_whole(&self, more: &[u8], what: &str) {
        for (node, other) in self.pairs() {
            let status = &self.speakers[node].peers().peers[&name(other).into()];
            assert_eq!(status.state, State::Established, "{what}: {node} to {other}: {status:?}");
            let expected: BTreeSet<IpNet> =
                routes_of(other, more[other]).into_iter().map(|route| route.prefix).collect();
            assert_eq!(self.kept(node, other), (expected, false), "{what}: {node} of {other}");
            let open = self.connections.iter().filter(|tcp| {
                tcp.open == [true, true] && BTreeSet::from(tcp.nodes) == BTreeSet::from([node, other])
            });
            assert_eq!(open.count(), 1, "{what}: {node} and {other}");
        }
    }
}

#[test]
fn after_any_disturbance_everybody_has_what_everybody_announces() {
    for seed in 1..=40_u64 {
        let count = 3 + usize::try_from(seed % 2).unwrap();
        let mut network = Network::new(count, seed % 3 != 0, seed);
        let mut more = vec![0_u8; count];
        if seed % 5 == 0 {
            network.delay = Duration::from_secs(2);
        }
        for _ in 0..25 {
            let node = network.random(count);
            let other = (node + 1 + network.random(count - 1)) % count;
            let pair = (node.min(other), node.max(other));
            match network.random(9) {
                0 => drop(network.parted.insert(pair)),
                1 => drop(network.parted.remove(&pair)),
                2 => {
                    let silently = network.chance(2);
                    network.restart(node, silently);
                    let now = network.now;
                    network.speakers[node].set_routes("test", routes_of(node, more[node]), now);
                }
                // A connection breaks.
                3 if !network.connections.is_empty() => {
                    let id = network.random(network.connections.len());
                    for end in [0, 1] {
                        if network.connections[id].open[end] {
                            network.connections[id].queues[end].clear();
                            network.enqueue(id, end, Arrival::Closed);
                        }
                    }
                }
                4 => {
                    more[node] = u8::try_from(network.random(4)).unwrap();
                    let now = network.now;
                    network.speakers[node].set_routes("test", routes_of(node, more[node]), now);
                }
                5 => {
                    let now = network.now;
                    drop(network.speakers[node].reset(&name(other).into(), "", now));
                }
                // Everybody was suspended, for up to an hour.
                6 if network.chance(3) => {
                    let jump = network.random(3600) as u64;
                    network.now += Duration::from_secs(jump);
                }
                _ => {}
            }
            let wait = Duration::from_millis(network.random(8000) as u64);
            network.run_for(wait, |_| {});
        }
        network.parted.clear();
        network.run_for(Duration::from_secs(500), |_| {});
        network.assert_whole(&more, &format!("seed {seed}"));
    }
}

/// Both keep their routes through restarts of the other, whatever the order in which the old and the new connections
/// are heard of, as long as the routes are there again within the restart time.
#[test]
fn no_helper_loses_a_route_while_a_speaker_restarts_in_time() {
    for seed in 1..=60_u64 {
        let count = 3;
        let mut network = Network::new(count, true, seed);
        network.mute = seed % 2 == 0;
        if seed % 4 < 2 {
            network.delay = Duration::from_millis(800);
        }
        let more = vec![0_u8; count];
        network.run_for(Duration::from_secs(60), |_| {});
        network.assert_whole(&more, &format!("seed {seed}, at the start"));
        for round in 0..4 {
            let node = network.random(count);
            let silently = network.chance(2);
            let all: BTreeSet<IpNet> = routes_of(node, 0).into_iter().map(|route| route.prefix).collect();
            let check = |network: &Network| {
                for helper in (0..count).filter(|helper| *helper != node) {
                    let (kept, _) = network.kept(helper, node);
                    assert_eq!(
                        kept, all,
                        "seed {seed}, round {round}: {helper} of {node}, silently: {silently}"
                    );
                }
            };
            network.restart(node, silently);
            let away = Duration::from_millis(network.random(20_000) as u64);
            network.run_for(away, check);
            let now = network.now;
            network.speakers[node].set_routes("test", routes_of(node, 0), now);
            let pause = Duration::from_secs(30 + network.random(60) as u64);
            network.run_for(pause, check);
            network.assert_whole(&more, &format!("seed {seed}, round {round}"));
        }
    }
}

/// RFC 8326: the neighbours are told to look elsewhere before the route goes.
#[test]
fn graceful_shutdown_is_told_before_the_route_is_withdrawn() {
    const GRACEFUL_SHUTDOWN: u32 = 0xffff_0000;
    let mut network = Network::new(2, false, 1);
    network.run_for(Duration::from_secs(30), |_| {});
    let leaving = routes_of(0, 0).into_iter().map(|route| Route {
        attributes: Arc::new(RouteAttributes {
            communities: vec![GRACEFUL_SHUTDOWN],
            local_pref: Some(0),
            ..RouteAttributes::default()
        }),
        ..route
    });
    let now = network.now;
    network.speakers[0].set_routes("test", leaving, now);
    network.run_for(Duration::from_secs(1), |_| {});
    let routes = network.speakers[1].adj_in(&name(0).into(), Family::IPV4_UNICAST).unwrap();
    assert_eq!(routes.len(), 2);
    for route in routes {
        let communities = &route.attributes.attributes.communities;
        assert_eq!(communities[..], [crate::wire::Community(GRACEFUL_SHUTDOWN)]);
    }
    let dropped = network.speakers[1].peers().peers[&name(0).into()].counters.dropped;
    let now = network.now;
    network.speakers[0].set_routes("test", [], now);
    network.run_for(Duration::from_secs(1), |_| {});
    assert_eq!(network.kept(1, 0).0.len(), 0);
    assert_eq!(network.speakers[1].peers().peers[&name(0).into()].counters.dropped, dropped);
}
