//! What somebody without the key, or on a cluster without one, can do to a speaker.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests; any origin of time will do"
)]

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use openelb_l2::{
    MacAddr,
    speaker::{
        DesiredAddress, Event, GossipKey, Link, LinkIndex, MemberState, MemberStatus, NodeName, Output, Peer,
        Role, Settings, Speaker, SpeakerConfig,
    },
};

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 7947))
}

fn speaker(key: Option<&[u8]>, now: Instant) -> Speaker {
    let mut config = SpeakerConfig::new(NodeName::new("node-1").unwrap(), address(1));
    config.key = key.and_then(GossipKey::new);
    let mut speaker = Speaker::new(config, Settings::default(), now).unwrap();
    speaker.set_peers(vec![Peer::new(NodeName::new("node-2").unwrap(), address(2))], now);
    speaker.set_desired(Vec::new(), now);
    speaker
}

fn datagrams(speaker: &mut Speaker) -> Vec<(SocketAddr, Vec<u8>)> {
    std::iter::from_fn(|| speaker.poll_output())
        .filter_map(|output| match output {
            Output::Datagram { to, payload } => Some((to, payload)),
            _ => None,
        })
        .collect()
}

/// The question of a node for how much state there is, as it is on the wire.
fn question(node: u64) -> Vec<u8> {
    let mut out = b"OL2\x02".to_vec();
    out.extend_from_slice(&node.to_be_bytes());
    out.push(3);
    out.extend_from_slice(&[0; 24]);
    out
}

#[test]
fn made_up_nodes_are_forgotten() {
    let mut now = Instant::now();
    let mut speaker = speaker(None, now);
    drop(datagrams(&mut speaker));
    for node in 1..=10_000 {
        speaker.handle_datagram(address(9), &question(node), now);
    }
    let answers = datagrams(&mut speaker);
    assert!(answers.iter().all(|(_, payload)| payload.len() <= 1400));
    let rejected = speaker.stats().rejected_datagrams;
    assert_eq!(speaker.members().len(), 513);
    assert_eq!(rejected, 10_000 - 513);
    let late = now + Duration::from_secs(10);
    while let Some(at) = speaker.poll_timeout().filter(|at| *at < late) {
        now = now.max(at);
        speaker.handle_timeout(now);
        drop(datagrams(&mut speaker));
    }
    assert!(speaker.members().is_empty(), "{}", speaker.members().len());
    speaker.handle_datagram(address(9), &question(1), now);
    assert_eq!(speaker.stats().rejected_datagrams, rejected, "there is room again");
}

/// A node that has a thousand addresses, and tells node-1 of them.
fn talkative(n: u8, one: u64, now: Instant) -> Speaker {
    let link = LinkIndex(2);
    let config = SpeakerConfig::new(NodeName::new(&format!("node-{n}")).unwrap(), address(n));
    let mut settings = Settings::default();
    settings.probes = 0;
    let mut speaker = Speaker::new(config, settings, now).unwrap();
    let desired = (0..1000_u32)
        .map(|low| DesiredAddress::new(IpAddr::from([10, n, (low >> 8) as u8, low as u8]), [link]));
    speaker.set_desired(desired.collect(), now);
    speaker.set_links(vec![Link::new(link, "eth0", MacAddr::new([2, 0, 0, 0, 0, n]))], now);
    speaker.set_peers(Vec::new(), now);
    speaker.handle_datagram(address(1), &question(one), now);
    speaker
}

/// The number of the node that sent this.
fn sender(payload: &[u8]) -> u64 {
    u64::from_be_bytes(payload[4..12].try_into().unwrap())
}

fn owned_by_others(speaker: &Speaker) -> Vec<usize> {
    speaker.members().iter().map(|member| member.owned).collect()
}

#[test]
fn what_strangers_say_of_addresses_is_not_kept_and_heard_once_they_are_peers() {
    const STRANGERS: std::ops::Range<u8> = 50..60;
    let mut now = Instant::now();
    let mut one = speaker(None, now);
    let id = sender(&datagrams(&mut one)[0].1);
    let mut strangers: Vec<_> = STRANGERS.map(|n| (n, talkative(n, id, now))).collect();
    let mut run = |one: &mut Speaker, now: &mut Instant, time, membership: bool| {
        let end = *now + time;
        let mut states = 0;
        while *now < end {
            *now += Duration::from_millis(10);
            one.handle_timeout(*now);
            for (n, stranger) in &mut strangers {
                if !membership {
                    stranger.handle_datagram(address(1), &question(id), *now);
                }
                stranger.handle_timeout(*now);
                let all = datagrams(stranger);
                for (_, payload) in all.iter().filter(|(_, payload)| membership || payload[12] != 0) {
                    states += usize::from(payload[12] == 1);
                    one.handle_datagram(address(*n), payload, *now);
                }
                if let Some((_, payload)) = all.first().filter(|_| !membership) {
                    one.handle_datagram(address(*n), &question(sender(payload)), *now);
                }
            }
            for (to, payload) in datagrams(one) {
                if let Some((_, stranger)) = strangers.iter_mut().find(|(n, _)| to == address(*n)) {
                    stranger.handle_datagram(address(1), &payload, *now);
                }
            }
        }
        states
    };
    let states = run(&mut one, &mut now, Duration::from_secs(5), false);
    assert!(states > 100, "they say what they have");
    assert_eq!(owned_by_others(&one), vec![0; STRANGERS.len()], "they stay, by asking");
    let peers = STRANGERS.map(|n| Peer::new(NodeName::new(&format!("node-{n}")).unwrap(), address(n)));
    one.set_peers(peers.collect(), now);
    run(&mut one, &mut now, Duration::from_secs(5), true);
    assert_eq!(owned_by_others(&one), vec![1000; STRANGERS.len()]);
}

/// A member in a message of the membership: node, generation, where it is.
fn member(node: u64, generation: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&node.to_be_bytes());
    out.extend_from_slice(&generation.to_be_bytes());
    out.extend_from_slice(&[4, 192, 0, 2, 99]);
    out.extend_from_slice(&7947_u16.to_be_bytes());
}

/// How a speaker names itself in what it says to others of the membership.
fn identity(all: &[(SocketAddr, Vec<u8>)]) -> Vec<u8> {
    all.iter().find(|(_, payload)| payload[12] == 0).unwrap().1[13..36].to_vec()
}

/// What a node says to another of 30 members that live, as it is on the wire; who it says it is, it says twice.
fn rumour(sender: u64, inner: u64, to: &[u8]) -> Vec<u8> {
    let mut out = b"OL2\x02".to_vec();
    out.extend_from_slice(&sender.to_be_bytes());
    out.push(0);
    member(inner, 1, &mut out);
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(to);
    // Gossip.
    out.extend_from_slice(&[8, 0]);
    out.extend_from_slice(&30_u16.to_be_bytes());
    for node in inner + 1..=inner + 30 {
        member(node, 1, &mut out);
        out.extend_from_slice(&[0, 0, 0]);
    }
    out
}

/// Passes datagrams to and fro, with a flood of made-up members, for so long.
fn flooded(one: &mut Speaker, mut other: Option<&mut Speaker>, to: &[u8], now: &mut Instant, time: Duration) {
    let end = *now + time;
    let mut next = 1_000_000;
    while *now < end {
        *now += Duration::from_millis(5);
        next += 31;
        one.handle_datagram(address(9), &rumour(next, next, to), *now);
        one.handle_timeout(*now);
        for (to, payload) in datagrams(one) {
            if let Some(other) = other.as_mut().filter(|_| to == address(2)) {
                other.handle_datagram(address(1), &payload, *now);
            }
        }
        if let Some(other) = &mut other {
            other.handle_timeout(*now);
            for (_, payload) in datagrams(other) {
                one.handle_datagram(address(2), &payload, *now);
            }
        }
    }
}

#[test]
fn a_death_is_noticed_in_spite_of_made_up_members() {
    let mut now = Instant::now();
    let mut one = speaker(None, now);
    let mut other = {
        let config = SpeakerConfig::new(NodeName::new("node-2").unwrap(), address(2));
        let mut other = Speaker::new(config, Settings::default(), now).unwrap();
        other.set_peers(vec![Peer::new(NodeName::new("node-1").unwrap(), address(1))], now);
        other.set_desired(Vec::new(), now);
        other
    };
    let state = |one: &Speaker| {
        let peer = |member: &&MemberStatus| member.node.as_str() == "node-2";
        one.members().iter().find(peer).map(|member| member.state)
    };
    let to = identity(&datagrams(&mut one));
    flooded(&mut one, Some(&mut other), &to, &mut now, Duration::from_secs(5));
    assert_eq!(state(&one), Some(MemberState::Alive), "who is a peer is heard whatever the flood");
    assert!(one.members().len() < 64, "{}", one.members().len());
    flooded(&mut one, None, &to, &mut now, Duration::from_secs(9));
    assert_eq!(state(&one), Some(MemberState::Down));
    let down = |event| matches!(event, Event::SpeakerDown { node } if node.as_str() == "node-2");
    assert!(std::iter::from_fn(|| one.poll_event()).any(down));
}

#[test]
fn nobody_speaks_for_another_in_the_membership() {
    let now = Instant::now();
    let mut one = speaker(None, now);
    let to = identity(&datagrams(&mut one));
    one.handle_datagram(address(9), &rumour(7, 8, &to), now);
    assert_eq!(one.stats().rejected_datagrams, 1);
    assert!(one.members().is_empty());
    one.handle_datagram(address(9), &rumour(7, 7, &to), now);
    assert_eq!(one.stats().rejected_datagrams, 1);
    assert!(!one.members().is_empty());
}

#[test]
fn without_the_key_nothing_is_heard() {
    let now = Instant::now();
    let mut one = speaker(Some(b"secret"), now);
    for key in [None, Some(&b"another"[..])] {
        let mut other = speaker(key, now);
        let all = datagrams(&mut other);
        assert!(!all.is_empty());
        for (_, payload) in all {
            let before = one.stats().rejected_datagrams;
            one.handle_datagram(address(2), &payload, now);
            assert_eq!(one.stats().rejected_datagrams, before + 1);
        }
    }
    // A right one with any of its octets changed.
    let mut other = speaker(Some(b"secret"), now);
    let (_, payload) = datagrams(&mut other).remove(0);
    for at in 0..payload.len() {
        let mut changed = payload.clone();
        changed[at] ^= 1;
        let before = one.stats().rejected_datagrams;
        one.handle_datagram(address(2), &changed, now);
        assert_eq!(one.stats().rejected_datagrams, before + 1, "octet {at}");
    }
    assert!(one.members().is_empty());
}

const ADDRESS: [u8; 4] = [192, 0, 2, 100];

/// One of two nodes that may answer for an address; what a process of it begins with.
fn node(n: u8, incarnation: u64, now: Instant) -> Speaker {
    let name = |n: u8| NodeName::new(&format!("node-{n}")).unwrap();
    let mut config = SpeakerConfig::new(name(n), address(n));
    config.key = GossipKey::new(b"secret");
    (config.incarnation, config.seed) = (incarnation, u64::from(n));
    let mut speaker = Speaker::new(config, Settings::default(), now).unwrap();
    speaker.set_links(vec![Link::new(LinkIndex(2), "eth0", MacAddr::new([2, 0, 0, 0, 0, n]))], now);
    speaker.set_peers([1, 2].map(|n| Peer::new(name(n), address(n))).to_vec(), now);
    speaker.set_desired(vec![DesiredAddress::new(ADDRESS.into(), [LinkIndex(2)])], now);
    speaker
}

/// Lets them talk for so long; what the first one was told.
fn talk(pair: &mut [Speaker; 2], now: &mut Instant, time: Duration) -> Vec<Vec<u8>> {
    let mut told = Vec::new();
    let end = *now + time;
    while *now < end {
        *now += Duration::from_millis(10);
        pair.iter_mut().for_each(|speaker| speaker.handle_timeout(*now));
        for n in [0, 1, 0, 1] {
            for (to, payload) in datagrams(&mut pair[n]) {
                let other = 1 - n;
                if to == address(other as u8 + 1) {
                    pair[other].handle_datagram(address(n as u8 + 1), &payload, *now);
                }
                if n == 1 {
                    told.push(payload);
                }
            }
        }
    }
    told
}

fn owns(speaker: &Speaker) -> bool {
    speaker.address(ADDRESS.into()).unwrap().role == Role::Owner
}

#[test]
fn what_was_recorded_does_not_keep_a_dead_owner_alive() {
    let mut now = Instant::now();
    let mut pair = [node(1, 1000, now), node(2, 1000, now)];
    // So that the second one has it.
    pair[0].set_desired(Vec::new(), now);
    drop(talk(&mut pair, &mut now, Duration::from_secs(3)));
    pair[0].set_desired(vec![DesiredAddress::new(ADDRESS.into(), [LinkIndex(2)])], now);
    let recorded = talk(&mut pair, &mut now, Duration::from_secs(3));
    assert!(owns(&pair[1]) && !owns(&pair[0]));
    assert_eq!(pair[0].stats().rejected_datagrams, 0);
    let [mut one, _] = pair;
    // It is dead. Whoever recorded all that it said says it again, from its address.
    let mut recorded = recorded.iter().cycle();
    let end = now + Duration::from_secs(5);
    while now < end {
        now += Duration::from_millis(50);
        for payload in recorded.by_ref().take(2) {
            one.handle_datagram(address(2), payload, now);
        }
        one.handle_timeout(now);
        assert!(datagrams(&mut one).len() < 20, "it does not answer all of it");
    }
    assert!(owns(&one), "{:?} {:?}", one.address(ADDRESS.into()), one.members());
    assert_eq!(one.stats().rejected_datagrams, 200);
}

#[test]
fn what_was_said_to_another_is_not_heard() {
    let mut now = Instant::now();
    let mut pair = [node(1, 1000, now), node(2, 1000, now)];
    let said = talk(&mut pair, &mut now, Duration::from_secs(1));
    let mut config = SpeakerConfig::new(NodeName::new("node-3").unwrap(), address(3));
    config.key = GossipKey::new(b"secret");
    let mut third = Speaker::new(config, Settings::default(), now).unwrap();
    for payload in &said {
        third.handle_datagram(address(2), payload, now);
    }
    assert_eq!(third.stats().rejected_datagrams, said.len() as u64);
    assert!(third.members().is_empty());
}

#[test]
fn a_node_whose_clock_went_back_is_heard_again() {
    let mut now = Instant::now();
    let mut pair = [node(1, 1_000_000, now), node(2, 1_000_000, now)];
    let recorded = talk(&mut pair, &mut now, Duration::from_secs(3));
    for incarnation in [10, 1_000_000, 20] {
        pair[1] = node(2, incarnation, now);
        let rejected = pair[0].stats().rejected_datagrams;
        drop(talk(&mut pair, &mut now, Duration::from_millis(200)));
        assert!(pair[0].stats().rejected_datagrams <= rejected + 8, "it is told at once");
        let rejected = pair[0].stats().rejected_datagrams;
        drop(talk(&mut pair, &mut now, Duration::from_secs(3)));
        assert_eq!(pair[0].stats().rejected_datagrams, rejected);
        assert!(pair.iter().all(|one| one.members()[0].state == MemberState::Alive), "{incarnation}");
        assert!(owns(&pair[0]) != owns(&pair[1]));
        // What the earlier life said stays said.
        for payload in &recorded {
            pair[0].handle_datagram(address(2), payload, now);
        }
        assert_eq!(pair[0].stats().rejected_datagrams, rejected + recorded.len() as u64);
        drop(talk(&mut pair, &mut now, Duration::from_secs(1)));
        assert_eq!(
            pair[0].stats().rejected_datagrams,
            rejected + recorded.len() as u64,
            "nor does it disturb"
        );
    }
}
