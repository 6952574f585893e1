//! What a full table of the Internet costs: a process of its own, because memory is what is measured.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "some instant is needed to count from")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Instant,
};

use bytes::BytesMut;
use openelb_bgp::{
    fsm::{ConnectionInfo, State},
    speaker::{ConnectionId, PeerConfig, Speaker, SpeakerConfig},
    wire::{
        AsPath, Attributes, Capability, Family, Ipv4Prefix, Message, Nlri, Open, Origin, Prefix,
        SessionContext, UpdateBuilder,
    },
};

const ROUTES: u32 = 1_000_000;

/// Octets of this process that are in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    1024 * line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
}

/// Of lengths as the table of the Internet has them: two thirds /24, the rest /16 to /23, each prefix once.
fn prefix(index: u32) -> Nlri {
    let length = if index % 3 < 2 { 24 } else { u8::try_from(16 + index % 8).unwrap() };
    let bits = index.wrapping_mul(0x9e37_79b1);
    let prefix = Ipv4Prefix::new(Ipv4Addr::from_bits(bits), length).unwrap();
    Nlri::new(Prefix::V4(prefix), 0)
}

fn feed(speaker: &mut Speaker, connection: ConnectionId, count: u32, now: Instant) {
    let session = SessionContext::default();
    let attributes = Attributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::sequence([65_001, 65_002])),
        next_hop: Some(Ipv4Addr::new(192, 0, 2, 2)),
        ..Attributes::default()
    };
    let attributes = attributes.encode(&session).unwrap();
    let mut rest = (0..count).map(prefix).peekable();
    while rest.peek().is_some() {
        let mut bytes = BytesMut::new();
        UpdateBuilder::new(&session).announce_ipv4(&attributes, rest.by_ref().take(800), &mut bytes).unwrap();
        speaker.handle_bytes(connection, &bytes, now);
        while speaker.poll_output(now).is_some() {}
    }
}

fn establish(speaker: &mut Speaker, now: Instant) -> ConnectionId {
    let info = ConnectionInfo {
        local: SocketAddr::from(([192, 0, 2, 1], 179)),
        remote: SocketAddr::from(([192, 0, 2, 2], 33_000)),
    };
    while speaker.poll_output(now).is_some() {}
    let connection = speaker.accept(info, now).unwrap().connection;
    speaker.handle_connected(connection, info, now);
    let families = [Capability::Multiprotocol(Family::IPV4_UNICAST)];
    let open = Open::new(65_001, 0, Ipv4Addr::new(192, 0, 2, 2), families);
    for message in [Message::Open(open), Message::Keepalive] {
        let mut bytes = BytesMut::new();
        message.encode(&SessionContext::default(), &mut bytes).unwrap();
        speaker.handle_bytes(connection, &bytes, now);
    }
    while speaker.poll_output(now).is_some() {}
    connection
}

#[test]
fn a_million_prefixes_are_counted_in_40_mb_and_over_the_limit_the_session_ends() {
    let now = Instant::now();
    let mut distinct: Vec<Nlri> = (0..ROUTES).map(prefix).collect();
    distinct.sort_unstable();
    distinct.dedup();
    let expected = distinct.len();
    drop(distinct);
    assert!(expected > 900_000, "{expected}");
    let mut peer = PeerConfig::new("full", Ipv4Addr::new(192, 0, 2, 2).into(), 65_001);
    peer.passive = true;
    let mut speaker = Speaker::new(SpeakerConfig::new(65_000, Ipv4Addr::new(192, 0, 2, 1)), now).unwrap();
    speaker.set_peers(vec![peer.clone()], now).unwrap();
    let connection = establish(&mut speaker, now);
    let before = resident();
    feed(&mut speaker, connection, ROUTES, now);
    let more = resident().saturating_sub(before);
    let status = speaker.peers().peers[&"full".into()].clone();
    assert_eq!(status.state, State::Established);
    assert_eq!(status.session.unwrap().families[0].received, expected as u64);
    assert!(more < 40_000_000, "{more} octets more for {expected} prefixes");
    // The same again is the same again.
    feed(&mut speaker, connection, ROUTES, now);
    let again = resident().saturating_sub(before);
    assert!(again < 40_000_000, "{again} octets more after the second time");

    // Over the limit: it ends with the message that goes over it, and nothing is left.
    peer.prefix_limit.max_prefixes = 10_000;
    peer.hold_time = std::time::Duration::ZERO;
    speaker.set_peers(vec![peer], now).unwrap();
    let connection = establish(&mut speaker, now);
    let before = resident();
    feed(&mut speaker, connection, ROUTES, now);
    let status = speaker.peers().peers[&"full".into()].clone();
    assert_eq!((status.state, status.counters.dropped), (State::Idle, 2));
    assert!(status.last_error.unwrap().reason.contains("maximum number of prefixes"));
    assert!(resident().saturating_sub(before) < 4_000_000);
}
