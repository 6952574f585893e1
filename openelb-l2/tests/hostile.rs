//! What somebody without the key, or on a cluster without one, can do to a speaker.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests; any origin of time will do"
)]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use openelb_l2::speaker::{GossipKey, NodeName, Output, Peer, Settings, Speaker, SpeakerConfig};

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
    let mut out = b"OL2\x01".to_vec();
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
