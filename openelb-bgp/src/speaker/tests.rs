//! Two speakers, joined by connections that exist only here, in a time that only the test moves.

mod challenge;
mod changes;
mod errors;
mod guests;
mod limits;
mod network;
mod operations;
mod protection;
mod restart;
mod terms;
mod watching;

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use ipnet::IpNet;
use proptest::prelude::*;

use super::{
    Advertisement, ConfigError, ConnectionId, Delta, FamilyConfig, NextHop, Output, PeerConfig, PeerStatus,
    Refusal, Route, RouteAttributes, RouteKey, Speaker, SpeakerConfig,
};
use crate::{
    fsm::{ConnectionInfo, Direction, State},
    wire::{Family, Message, MessageKind, Nlri, RouteRefresh, SessionContext, Update, frame},
};

/// The one look at the clock; all else is added to it.
static ORIGIN: LazyLock<Instant> = LazyLock::new(|| {
    #[allow(clippy::disallowed_methods, reason = "some instant is needed to count from")]
    Instant::now()
});

const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
const ASNS: [u32; 2] = [65000, 65001];

/// A direction of a connection.
struct Pipe {
    from: (usize, ConnectionId),
    to: (usize, ConnectionId),
    bytes: VecDeque<Bytes>,
}

/// Two speakers and what is between them.
struct Pair {
    now: Instant,
    speakers: [Speaker; 2],
    pipes: Vec<Pipe>,
    /// Every UPDATE that the second one was sent, in order; emptied when a session comes up.
    updates: Vec<Bytes>,
    /// Every ROUTE-REFRESH, with the number of UPDATEs before it; likewise.
    refreshes: Vec<(usize, RouteRefresh)>,
    /// Nothing that the first one sends arrives.
    stalled: bool,
    next_port: u16,
}

impl Pair {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// `change`: of both ends' configuration of the other.
    fn with(change: impl Fn(&mut PeerConfig)) -> Self {
        let now = *ORIGIN;
        let speakers = [0, 1].map(|index| {
            let mut speaker = Speaker::new(SpeakerConfig::new(ASNS[index], ADDRESSES[index]), now).unwrap();
            speaker.set_peers(vec![Self::peer(index, &change)], now).unwrap();
            speaker
        });
        Self {
            now,
            speakers,
            pipes: Vec::new(),
            updates: Vec::new(),
            refreshes: Vec::new(),
            stalled: false,
            next_port: 50_000,
        }
    }

    fn peer(index: usize, change: &impl Fn(&mut PeerConfig)) -> PeerConfig {
        let mut peer = PeerConfig::new("other", ADDRESSES[1 - index].into(), ASNS[1 - index]);
        change(&mut peer);
        peer
    }

    /// Lets everything happen that happens at once.
    fn settle(&mut self) {
        loop {
            let mut idle = true;
            for index in [0, 1] {
                while let Some(output) = self.speakers[index].poll_output(self.now) {
                    idle = false;
                    self.carry_out(index, output);
                }
            }
            for at in 0..self.pipes.len() {
                let pipe = &mut self.pipes[at];
                if self.stalled && pipe.from.0 == 0 {
                    continue;
                }
                let (from, to) = (pipe.from, pipe.to);
                for bytes in std::mem::take(&mut pipe.bytes) {
                    idle = false;
                    if to.0 == 1 {
                        self.record(&bytes);
                    }
                    self.speakers[from.0].handle_written(from.1, bytes.len(), self.now);
                    self.speakers[to.0].handle_bytes(to.1, &bytes, self.now);
                }
            }
            if idle {
                return;
            }
        }
    }

    fn record(&mut self, mut bytes: &[u8]) {
        while let Some(length) = frame(bytes, 65535).unwrap() {
            match MessageKind::from_code(bytes[18]).unwrap() {
                MessageKind::Update => self.updates.push(Bytes::copy_from_slice(&bytes[..length])),
                MessageKind::RouteRefresh => {
                    let message = Message::decode(&bytes[..length], &SessionContext::default()).unwrap();
                    let Message::RouteRefresh(refresh) = message else { panic!("{message:?}") };
                    self.refreshes.push((self.updates.len(), refresh));
                }
                MessageKind::Open => {
                    self.updates.clear();
                    self.refreshes.clear();
                }
                _ => {}
            }
            bytes = &bytes[length..];
        }
    }

    fn updates(&self) -> Vec<Update> {
        let session = &self.speakers[1].peers.values().next().unwrap().session;
        let context = &session.as_ref().expect("a session").negotiated.context;
        let decode = |bytes: &Bytes| match Message::decode(bytes, context).unwrap() {
            Message::Update(update) => {
                assert!(update.errors.is_empty(), "{update:?}");
                update
            }
            other => panic!("{other:?}"),
        };
        self.updates.iter().map(decode).collect()
    }

    fn carry_out(&mut self, index: usize, output: Output) {
        match output {
            Output::Connect { connection, ttl, .. } => {
                assert_eq!(ttl, 1, "eBGP");
                self.next_port += 1;
                let local = SocketAddr::new(ADDRESSES[index].into(), self.next_port);
                let remote = SocketAddr::new(ADDRESSES[1 - index].into(), 179);
                let there = ConnectionInfo { local: remote, remote: local };
                match self.speakers[1 - index].accept(there, self.now) {
                    Ok(accepted) => {
                        let (here, other) = ((index, connection), (1 - index, accepted.connection));
                        self.pipes.push(Pipe { from: here, to: other, bytes: VecDeque::new() });
                        self.pipes.push(Pipe { from: other, to: here, bytes: VecDeque::new() });
                        self.speakers[1 - index].handle_connected(accepted.connection, there, self.now);
                        let here = ConnectionInfo { local, remote };
                        self.speakers[index].handle_connected(connection, here, self.now);
                    }
                    Err(refusal) => {
                        self.speakers[index].handle_connect_failed(
                            connection,
                            &refusal.to_string(),
                            self.now,
                        );
                    }
                }
            }
            Output::Send { connection, bytes } => {
                let pipe = self.pipes.iter_mut().find(|pipe| pipe.from == (index, connection));
                pipe.expect("bytes go to a connection that is up").bytes.push_back(bytes);
            }
            Output::Close { connection } => {
                // What was sent before still arrives.
                let (gone, left) = std::mem::take(&mut self.pipes).into_iter().partition(|pipe: &Pipe| {
                    pipe.from == (index, connection) || pipe.to == (index, connection)
                });
                self.pipes = left;
                for pipe in gone.into_iter().filter(|pipe| pipe.from.0 == index) {
                    for bytes in pipe.bytes {
                        self.speakers[pipe.to.0].handle_bytes(pipe.to.1, &bytes, self.now);
                    }
                    self.speakers[pipe.to.0].handle_closed(pipe.to.1, self.now);
                }
            }
        }
    }

    fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        self.settle();
        while let Some(at) = self.speakers.iter().filter_map(Speaker::poll_timeout).min()
            && at <= end
        {
            self.now = self.now.max(at);
            for speaker in &mut self.speakers {
                speaker.handle_timeout(self.now);
            }
            self.settle();
        }
        self.now = end;
    }

    fn establish(&mut self) {
        for _ in 0..60 {
            self.settle();
            if self.status(0).state == State::Established && self.status(1).state == State::Established {
                return;
            }
            self.advance(Duration::from_secs(1));
        }
        panic!("not established: {:?} {:?}", self.status(0), self.status(1));
    }

    fn status(&self, index: usize) -> PeerStatus {
        self.speakers[index].peers().peers.into_values().next().unwrap()
    }

    /// What the second one has been told: prefix and path identifier to next hop.
    fn received(&self) -> BTreeMap<(IpNet, u32), IpAddr> {
        let mut table = BTreeMap::new();
        for update in &self.updates() {
            for list in update.withdrawals() {
                for nlri in list.iter() {
                    assert!(table.remove(&(nlri.prefix.into(), nlri.path_id)).is_some(), "withdrawn: {nlri}");
                }
            }
            for (next_hop, list) in update.announcements() {
                for nlri in list.iter() {
                    table.insert((nlri.prefix.into(), nlri.path_id), next_hop.address());
                }
            }
        }
        table
    }

    fn families(&self, index: usize) -> Vec<(u64, u64)> {
        let families = self.status(index).session.unwrap().families;
        families.iter().map(|family| (family.advertised, family.received)).collect()
    }
}

fn route(prefix: &str) -> Route {
    Route::new(prefix.parse::<IpNet>().unwrap())
}

fn nlri(prefix: &str) -> Nlri {
    Nlri { path_id: 0, prefix: prefix.parse::<IpNet>().unwrap().into() }
}

fn end_of_ribs(updates: &[Update]) -> Vec<Family> {
    updates.iter().filter_map(Update::end_of_rib_family).collect()
}

#[test]
fn two_speakers_exchange_their_routes() {
    let mut pair = Pair::new();
    pair.speakers[0].set_routes("test", [route("198.51.100.1/32"), route("198.51.100.2/32")], pair.now);
    pair.speakers[1].set_routes("test", [route("203.0.113.1/32")], pair.now);
    pair.establish();
    pair.settle();
    assert_eq!(pair.families(0), [(2, 1), (0, 0)]);
    assert_eq!(pair.families(1), [(1, 2), (0, 0)]);
    assert_eq!([0, 1].map(|end| pair.status(end).received_routes()), [1, 2]);
    let next_hop = IpAddr::V4(ADDRESSES[0]);
    assert!(pair.received().values().all(|hop| *hop == next_hop));
    assert_eq!(end_of_ribs(&pair.updates()), [Family::IPV4_UNICAST, Family::IPV6_UNICAST]);
    let update = pair.updates().into_iter().find(|update| !update.announced.is_empty()).unwrap();
    assert_eq!(update.attributes.as_path.as_ref().unwrap().asns().collect::<Vec<_>>(), [65000]);
    assert_eq!(update.attributes.local_pref, None);
}

#[test]
fn an_internal_session_has_local_pref_and_an_empty_path() {
    let mut pair = Pair::with(|peer| {
        peer.asn = 65000;
        peer.local_asn = Some(65000);
        peer.multihop_ttl = Some(1);
    });
    pair.speakers[0].set_routes("test", [route("198.51.100.1/32")], pair.now);
    pair.establish();
    pair.settle();
    let update = pair.updates().into_iter().find(|update| !update.announced.is_empty()).unwrap();
    assert_eq!(update.attributes.local_pref, Some(100));
    assert_eq!(update.attributes.as_path.as_ref().unwrap().asns().count(), 0);
}

#[test]
fn end_of_rib_waits_for_every_source() {
    let mut pair = Pair::new();
    let mut config = pair.speakers[0].config().clone();
    config.sources = ["a".to_owned(), "b".to_owned()].into();
    // A time that never passes.
    config.end_of_rib_within = Some(Duration::MAX);
    pair.speakers[0].set_config(config, pair.now).unwrap();
    pair.speakers[0].set_routes("a", [route("198.51.100.1/32")], pair.now);
    pair.establish();
    pair.settle();
    assert_eq!(pair.received().len(), 1);
    assert_eq!(end_of_ribs(&pair.updates()), []);
    pair.speakers[0].set_routes("b", [], pair.now);
    pair.settle();
    assert_eq!(end_of_ribs(&pair.updates()).len(), 2);
    assert!(pair.status(1).session.unwrap().families.iter().all(|family| family.end_of_rib_received));
}

#[test]
fn a_prefix_without_a_next_hop_of_its_family_is_held_back_and_says_so() {
    let mut pair = Pair::new();
    let prefix: IpNet = "2001:db8::1/128".parse().unwrap();
    pair.speakers[0].set_routes("test", [Route::new(prefix)], pair.now);
    pair.establish();
    pair.settle();
    let before = pair.status(0).counters.established;
    let state = |pair: &Pair| pair.speakers[0].route_status(prefix)[0].peers[0].1;
    assert_eq!(state(&pair), Advertisement::NoNextHop);
    let mut config = pair.speakers[0].config().clone();
    config.next_hop_ipv6 = Some("2001:db8::ffff".parse().unwrap());
    pair.speakers[0].set_config(config, pair.now).unwrap();
    pair.settle();
    assert_eq!(state(&pair), Advertisement::Advertised);
    assert_eq!(pair.status(0).counters.established, before, "without a reset");
    assert_eq!(pair.received()[&(prefix, 0)], "2001:db8::ffff".parse::<IpAddr>().unwrap());
}

#[test]
fn changes_touch_only_what_they_must() {
    let mut pair = Pair::new();
    pair.establish();
    // Both connect at once, and the collision may have cost a session.
    let before = pair.status(1).counters.dropped;
    let peer = |change: fn(&mut PeerConfig)| Pair::peer(0, &change);
    // The same set, and one with another limit: the session stays.
    pair.speakers[0].set_peers(vec![peer(|_| {})], pair.now).unwrap();
    pair.speakers[0].set_peers(vec![peer(|peer| peer.prefix_limit.max_prefixes = 5)], pair.now).unwrap();
    let mut config = pair.speakers[0].config().clone();
    config.listen = vec![(ADDRESSES[0], 179).into()];
    pair.speakers[0].set_config(config.clone(), pair.now).unwrap();
    pair.settle();
    assert_eq!((pair.status(0).state, pair.status(1).counters.dropped), (State::Established, before));
    // Another peer comes and goes: the session stays.
    let third = PeerConfig::new("third", "192.0.2.3".parse().unwrap(), 65003);
    pair.speakers[0]
        .set_peers(vec![peer(|peer| peer.prefix_limit.max_prefixes = 5), third], pair.now)
        .unwrap();
    assert_eq!(pair.status(1).counters.dropped, before);
    // Another BGP identifier is another OPEN. Whoever is configured anew goes on counting.
    let ours = pair.status(0).counters;
    config.router_id = Ipv4Addr::new(192, 0, 2, 99);
    pair.speakers[0].set_config(config, pair.now).unwrap();
    pair.settle();
    assert_eq!(pair.status(1).counters.dropped, before + 1);
    assert_eq!(pair.status(0).counters.dropped, ours.dropped + 1);
    pair.establish();
    let after = pair.status(0).counters;
    assert!(after.sent.open > ours.sent.open && after.received.bytes > ours.received.bytes, "{after:?}");
    // And so with another timer, which is in the OPEN too.
    pair.speakers[0]
        .set_peers(vec![peer(|peer| peer.hold_time = Duration::from_secs(77))], pair.now)
        .unwrap();
    pair.settle();
    assert_eq!(pair.status(0).counters.dropped, after.dropped + 1);
    assert!(pair.status(1).last_error.is_some());
}

#[test]
fn more_prefixes_than_allowed_reset_the_session() {
    let mut pair = Pair::with(|peer| peer.prefix_limit.max_prefixes = 2);
    pair.establish();
    let before = pair.status(0).counters;
    let routes = ["203.0.113.1/32", "203.0.113.2/32", "203.0.113.3/32"].map(route);
    pair.speakers[1].set_routes("test", routes, pair.now);
    pair.settle();
    let after = pair.status(0).counters;
    assert_eq!(after.dropped, before.dropped + 1);
    assert_eq!(after.sent.notification, before.sent.notification + 1);
}

#[test]
fn a_stalled_neighbour_gets_the_state_of_the_day_and_delays_nobody() {
    let mut pair = Pair::new();
    pair.establish();
    pair.settle();
    pair.stalled = true;
    let before = pair.status(0).counters.sent.bytes;
    for round in 0..2_000_u32 {
        let routes = (0..200_u32).map(|index| Route {
            attributes: Arc::new(RouteAttributes { med: Some(round), ..RouteAttributes::default() }),
            ..Route::new(IpNet::from(IpAddr::V4(Ipv4Addr::from(0xc612_0000 + index))))
        });
        pair.speakers[0].set_routes("test", routes, pair.now);
        pair.settle();
    }
    let sent = pair.status(0).counters.sent.bytes - before;
    assert!(sent < 200_000, "{sent} octets for a neighbour that reads nothing");
    pair.stalled = false;
    pair.settle();
    assert_eq!(pair.families(0)[0], (200, 0));
    assert_eq!(pair.received().len(), 200);
    assert_eq!(pair.updates().last().unwrap().attributes.med, Some(1_999));
}

#[test]
fn connections_of_strangers_are_refused() {
    let mut pair = Pair::new();
    let local = SocketAddr::new(ADDRESSES[0].into(), 179);
    let stranger = ConnectionInfo { local, remote: "203.0.113.9:4000".parse().unwrap() };
    let refusal = pair.speakers[0].accept(stranger, *ORIGIN).unwrap_err();
    assert!(matches!(refusal, Refusal::Unconfigured { .. }));
    let known = ConnectionInfo { local, remote: SocketAddr::new(ADDRESSES[1].into(), 4000) };
    let accepted = pair.speakers[0].accept(known, *ORIGIN).unwrap();
    assert_eq!((accepted.ttl, accepted.connection.direction), (1, Direction::Incoming));
    // A second one may take its place; a third has to wait until that is decided.
    let second = pair.speakers[0].accept(known, *ORIGIN).unwrap();
    assert_ne!(second.connection, accepted.connection);
    assert!(matches!(pair.speakers[0].accept(known, *ORIGIN).unwrap_err(), Refusal::Busy { .. }));
    pair.speakers[0].set_peers(vec![Pair::peer(0, &|peer| peer.admin_down = true)], pair.now).unwrap();
    assert!(matches!(pair.speakers[0].accept(known, *ORIGIN).unwrap_err(), Refusal::AdminDown { .. }));
}

#[test]
fn a_bad_configuration_changes_nothing() {
    let mut pair = Pair::new();
    pair.establish();
    let good = Pair::peer(0, &|_| {});
    let mut bad = good.clone();
    bad.hold_time = Duration::from_secs(2);
    let error = pair.speakers[0].set_peers(vec![bad], pair.now).unwrap_err();
    assert!(matches!(error, ConfigError::HoldTime { .. }));
    let mut twin = good.clone();
    twin.name = "twin".into();
    let error = pair.speakers[0].set_peers(vec![good, twin], pair.now).unwrap_err();
    assert!(matches!(error, ConfigError::DuplicateAddress { .. }));
    let mut config = pair.speakers[0].config().clone();
    config.asn = 0;
    assert_eq!(pair.speakers[0].set_config(config, pair.now), Err(ConfigError::LocalAsnZero));
    assert_eq!(pair.status(0).state, State::Established);
}

#[derive(Clone, Debug)]
enum Step {
    Apply { source: bool, add: Vec<(u8, u32, u8)>, remove: Vec<(u8, u32)> },
    Stall(bool),
    Reset,
    Wait(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || (0..10u8, 0..3u32);
    let add = (key(), 0..4u8).prop_map(|((prefix, path), next_hop)| (prefix, path, next_hop));
    prop_oneof![
        6 => (any::<bool>(), prop::collection::vec(add, 0..6), prop::collection::vec(key(), 0..6))
            .prop_map(|(source, add, remove)| Step::Apply { source, add, remove }),
        2 => any::<bool>().prop_map(Step::Stall),
        1 => Just(Step::Reset),
        2 => (0..5u8).prop_map(Step::Wait),
    ]
}

fn key(prefix: u8, path_id: u32) -> RouteKey {
    RouteKey { prefix: IpNet::from(IpAddr::V4(Ipv4Addr::new(198, 51, 100, prefix))), path_id }
}

fn path(prefix: u8, path_id: u32, next_hop: u8) -> Route {
    let next_hop = match next_hop {
        0 => NextHop::SelfAddress,
        other => NextHop::Address(Ipv4Addr::new(10, 0, 0, other).into()),
    };
    Route { path_id, next_hop, ..Route::new(key(prefix, path_id).prefix) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Deltas to one speaker, whole sets to another one, through stalls and resets: both neighbours end up with the same.
    #[test]
    fn apply_and_set_routes_are_the_same(
        steps in prop::collection::vec(step(), 1..40),
        add_path in any::<bool>(),
    ) {
        let offer = move |peer: &mut PeerConfig| {
            peer.families = vec![FamilyConfig {
                family: Family::IPV4_UNICAST,
                add_path_send: if add_path { 2 } else { 0 },
                add_path_receive: add_path,
                graceful_restart: true,
            }];
            peer.hold_time = Duration::from_secs(60_000); // a stalled neighbour is not given up here
        };
        let (mut delta, mut whole) = (Pair::with(offer), Pair::with(offer));
        let mut sets: [BTreeMap<RouteKey, Route>; 2] = Default::default();
        for step in steps {
            match step {
                Step::Apply { source, add, remove } => {
                    let remove: Vec<RouteKey> = remove.into_iter().map(|(prefix, id)| key(prefix, id)).collect();
                    let add: Vec<Route> = add.into_iter().map(|(prefix, id, hop)| path(prefix, id, hop)).collect();
                    let set = &mut sets[usize::from(source)];
                    set.retain(|key, _| !remove.contains(key));
                    set.extend(add.iter().map(|route| (route.key(), route.clone())));
                    let name = if source { "b" } else { "a" };
                    whole.speakers[0].set_routes(name, set.values().cloned(), whole.now);
                    delta.speakers[0].apply(name, Delta { add, remove }, delta.now);
                }
                Step::Stall(stalled) => (delta.stalled, whole.stalled) = (stalled, !stalled),
                Step::Reset => {
                    for pair in [&mut delta, &mut whole] {
                        pair.speakers[0].reset(&"other".into(), "", pair.now).unwrap();
                    }
                }
                Step::Wait(seconds) => {
                    for pair in [&mut delta, &mut whole] {
                        pair.advance(Duration::from_secs(seconds.into()));
                    }
                }
            }
        }
        for pair in [&mut delta, &mut whole] {
            pair.stalled = false;
            pair.establish();
            pair.settle();
        }
        let mut merged = sets[1].clone();
        merged.extend(sets[0].clone());
        let prefixes: std::collections::BTreeSet<IpNet> = merged.keys().map(|key| key.prefix).collect();
        prop_assert_eq!(delta.received(), whole.received());
        let told: std::collections::BTreeSet<IpNet> = delta.received().keys().map(|key| key.0).collect();
        prop_assert_eq!(told, prefixes);
        prop_assert_eq!(delta.families(0)[0].0, delta.received().len() as u64);
        prop_assert_eq!(delta.families(1)[0].1, delta.received().len() as u64, "counted by the other end");
    }
}
