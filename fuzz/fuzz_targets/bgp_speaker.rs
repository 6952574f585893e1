//! Operations on a whole speaker with two neighbours, one of them known by prefix only: never a panic, no deadline in the
//! past, an end to every answer, and the kept and the counted routes as many as the tables say.
//!
//! The first octet is the configuration (bit 0 graceful restart, bit 1 N, bit 2 routes are kept, bit 3 add-path, bit 4 a
//! limit of three prefixes, bit 5 internal). Then each octet is an operation: its low four bits say which, the upper four
//! are its argument. The operation 15 takes as many octets as its argument says, times four, as bytes from the neighbour.
#![no_main]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::OnceLock,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use openelb_bgp::{
    bfd::{Cause, Timers},
    fsm::ConnectionInfo,
    speaker::{
        BfdConfig, ConnectionId, Delta, DynamicPeers, FamilyConfig, GracefulRestartConfig, Output, PathState,
        PeerCommand, PeerConfig, PeerName, ReceivedRoutes, Route, RouteKey, Speaker, SpeakerConfig,
    },
    wire::{
        AsPath, Attributes, Capability, Family, GracefulRestart, GracefulRestartFamily, Message, Nlri,
        NlriList, Notification, Open, Origin, RouteRefresh, RouteRefreshKind, SessionContext, Update,
    },
};

const US: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const KNOWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

fn bytes(message: impl Into<Message>) -> Vec<u8> {
    let mut out = BytesMut::new();
    message.into().encode(&SessionContext::default(), &mut out).expect("it fits");
    out.to_vec()
}

fn open(asn: u32, restart: bool, notification: bool) -> Open {
    let families = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];
    let rows = families.map(|family| GracefulRestartFamily { family, forwarding: true }).to_vec();
    let restart =
        restart.then(|| GracefulRestart { restarted: false, notification, time: 60, families: rows });
    let capabilities = families.map(Capability::Multiprotocol).into_iter();
    let others = [Capability::RouteRefresh, Capability::EnhancedRouteRefresh];
    Open::new(asn, 90, KNOWN, capabilities.chain(others).chain(restart.map(Capability::GracefulRestart)))
}

fn nlri(argument: u8) -> Nlri {
    Nlri::from(Ipv4Addr::new(203, 0, 113, argument))
}

fn update(argument: u8, asn: u32) -> Update {
    let list = |nlri: Vec<Nlri>| NlriList::new(Family::IPV4_UNICAST, false, nlri).expect("one family");
    Update {
        withdrawn: list(if argument & 1 == 0 { vec![nlri(argument / 2)] } else { vec![] }),
        announced: list(vec![nlri(argument), nlri(argument + 1)]),
        attributes: Attributes {
            origin: Some(Origin::Igp),
            as_path: Some(AsPath::sequence([asn])),
            next_hop: Some(KNOWN),
            med: Some(u32::from(argument)),
            ..Attributes::default()
        },
        ..Update::empty()
    }
}

/// One origin for all inputs: only differences matter.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

struct Harness {
    speaker: Speaker,
    now: Instant,
    live: Vec<ConnectionId>,
    wanted: Vec<ConnectionId>,
    port: u16,
}

impl Harness {
    fn drain(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.speaker.poll_output(self.now) {
            outputs += 1;
            assert!(outputs < 2000, "no end of output");
            match output {
                Output::Connect { connection, .. } => self.wanted.push(connection),
                Output::Send { connection, bytes } => {
                    assert!(!bytes.is_empty());
                    self.speaker.handle_written(connection, bytes.len(), self.now);
                }
                Output::Close { connection } => {
                    self.live.retain(|known| *known != connection);
                    self.wanted.retain(|known| *known != connection);
                }
                _ => {}
            }
        }
        while self.speaker.poll_event().is_some() {}
        assert!(self.live.len() <= 12, "connections pile up");
    }

    fn ends(&mut self, address: Ipv4Addr) -> ConnectionInfo {
        self.port = self.port.wrapping_add(1);
        ConnectionInfo { local: SocketAddr::from((US, 179)), remote: SocketAddr::from((address, self.port)) }
    }

    fn accept(&mut self, address: Ipv4Addr) {
        let ends = self.ends(address);
        if let Ok(accepted) = self.speaker.accept(ends, self.now) {
            self.live.push(accepted.connection);
            self.speaker.handle_connected(accepted.connection, ends, self.now);
        }
    }

    fn send(&mut self, argument: u8, bytes: &[u8]) {
        let count = self.live.len().max(1);
        // Mostly the newest.
        let from_the_end = usize::from(argument >> 2) % count;
        if let Some(connection) = self.live.iter().rev().nth(from_the_end).copied() {
            self.speaker.handle_bytes(connection, bytes, self.now);
        }
    }

    fn check(&self) {
        let name = PeerName::from("known");
        let Some(status) = self.speaker.peers().peers.get(&name).cloned() else { return };
        let Some(session) = status.session else { return };
        for family in session.families {
            let kept = self.speaker.adj_in(&name, family.family).expect("it is there");
            let sent = self.speaker.adj_out(&name, family.family).expect("it is there");
            if family.kept {
                assert_eq!(family.received, kept.len() as u64);
                assert_eq!(family.stale, kept.iter().filter(|route| route.stale).count() as u64);
            }
            assert!(sent.len() as u64 <= family.advertised);
            for entry in self.speaker.rib(family.family) {
                assert!(!entry.paths.is_empty());
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&flags, mut rest)) = input.split_first() else { return };
    let asn = if flags & 32 != 0 { 64_500 } else { 64_501 };
    let mut peer = PeerConfig::new("known", KNOWN.into(), asn);
    peer.hold_time = Duration::from_secs(90);
    peer.graceful_restart = (flags & 1 != 0).then_some(GracefulRestartConfig {
        restart_time: Duration::from_secs(60),
        restarting: true,
        forwarding_preserved: true,
        notification: flags & 2 != 0,
    });
    if flags & 4 != 0 {
        peer.received_routes = ReceivedRoutes::Keep;
    }
    if flags & 8 != 0 {
        peer.families = vec![FamilyConfig::with_add_path_send(Family::IPV4_UNICAST, 4)];
    }
    if flags & 16 != 0 {
        peer.prefix_limit.max_prefixes = 3;
    }
    peer.bfd = Some(BfdConfig { timers: Timers::default(), minimum_ttl: None });
    let group = DynamicPeers {
        prefix: "198.51.100.0/24".parse().expect("a prefix"),
        template: PeerConfig { name: "group".into(), ..peer.clone() },
        max_peers: 2,
    };
    let now = origin();
    let mut speaker = Speaker::new(SpeakerConfig::new(64_500, US), now).expect("valid");
    speaker.set_peers(vec![peer.clone()], now).expect("valid");
    speaker.set_dynamic_peers(vec![group], now).expect("valid");
    speaker.watch_best_paths(true, now);
    let mut harness = Harness { speaker, now, live: Vec::new(), wanted: Vec::new(), port: 30_000 };
    harness.drain();
    let name = PeerName::from("known");
    while let Some((&operation, tail)) = rest.split_first() {
        rest = tail;
        let argument = operation >> 4;
        let now = harness.now;
        match operation & 0x0f {
            0 => harness.accept(KNOWN),
            1 => harness.accept(Ipv4Addr::new(198, 51, 100, argument)),
            2 => {
                if let Some(connection) = harness.wanted.pop() {
                    if argument & 1 == 0 {
                        let ends = harness.ends(KNOWN);
                        harness.live.push(connection);
                        harness.speaker.handle_connected(connection, ends, now);
                    } else {
                        harness.speaker.handle_connect_failed(connection, "refused", now);
                    }
                }
            }
            3 => {
                let message = open(asn, argument & 1 != 0, argument & 2 != 0);
                harness.send(argument, &bytes(message));
            }
            4 => harness.send(argument, &bytes(Message::Keepalive)),
            5 => harness.send(0, &bytes(update(argument, asn))),
            6 => {
                let family = if argument & 1 == 0 { Family::IPV4_UNICAST } else { Family::IPV6_UNICAST };
                harness.send(0, &bytes(Update::end_of_rib(family)));
            }
            7 => {
                let kinds = [RouteRefreshKind::Request, RouteRefreshKind::Begin, RouteRefreshKind::End];
                let kind = kinds[usize::from(argument % 3)];
                harness.send(0, &bytes(RouteRefresh { family: Family::IPV4_UNICAST, kind }));
            }
            8 => harness.send(argument, &bytes(Notification::administrative_shutdown("x"))),
            9 => {
                let index = usize::from(argument) % harness.live.len().max(1);
                if index < harness.live.len() {
                    let connection = harness.live.swap_remove(index);
                    harness.speaker.handle_closed(connection, now);
                }
            }
            10 => {
                let command = match argument % 6 {
                    0 => PeerCommand::Shutdown { text: "x".into() },
                    1 => PeerCommand::Enable,
                    2 => PeerCommand::Reset { text: String::new() },
                    3 => PeerCommand::SoftResetIn,
                    4 => PeerCommand::SoftResetOut,
                    _ => PeerCommand::SoftReset,
                };
                let _ = harness.speaker.command(&name, command, now);
            }
            11 => {
                let _ = match argument % 3 {
                    0 => harness.speaker.handle_bfd(&name, PathState::Up, now),
                    1 => harness.speaker.handle_bfd(&name, PathState::Down(Cause::TimeExpired), now),
                    _ => harness.speaker.handle_link_down(&name, "eth0", now),
                };
            }
            12 => {
                let text = format!("203.0.113.{argument}/32");
                let key = RouteKey { prefix: text.parse().expect("a prefix"), path_id: 1 };
                if argument & 1 == 0 {
                    harness.speaker.set_routes("a", [Route::new(key.prefix)], now);
                } else {
                    let delta = Delta { add: vec![Route::new(key.prefix)], remove: vec![key] };
                    harness.speaker.apply("b", delta, now);
                }
            }
            13 => {
                let mut changed = peer.clone();
                changed.received_routes =
                    if argument & 1 == 0 { ReceivedRoutes::Keep } else { ReceivedRoutes::Count };
                changed.hold_time = Duration::from_secs(if argument & 2 == 0 { 90 } else { 0 });
                let peers = if argument & 4 == 0 { vec![changed.clone()] } else { vec![] };
                harness.speaker.set_peers(peers, now).expect("valid");
                let other = if argument & 8 == 0 { vec![] } else { vec![changed] };
                harness.speaker.set_peers_of("other", other, now).expect("valid");
            }
            14 => {
                let unit = if argument & 1 == 0 { 100 } else { 10_000 };
                harness.now += Duration::from_millis(u64::from(argument) * unit + 1);
                harness.speaker.handle_timeout(harness.now);
            }
            _ => {
                let (piece, tail) = rest.split_at(rest.len().min(usize::from(argument) * 4));
                harness.send(0, piece);
                rest = tail;
            }
        }
        harness.drain();
        if operation & 0x0f == 14 {
            let next = harness.speaker.poll_timeout();
            assert!(next.is_none_or(|at| at > harness.now), "a deadline has passed");
        }
        harness.check();
    }
});
