//! Datagrams into a speaker that has a neighbour: never a panic, no deadline in the past, a bounded answer; with a key,
//! whatever was not sealed with it does nothing.
//!
//! The first octet says whether there is a key (bit 0). Then each octet is an operation; its low three bits say which,
//! its upper five are its argument `n`:
//!
//! | | |
//! |---|---|
//! | 0 | the neighbour's next datagrams, as they are, up to `n` + 1 |
//! | 1 | its next one, changed: the next octet is where, the one after it is what is added there |
//! | 2 | its next one, cut off after as many octets as the next octet says, times eight |
//! | 3 | `n` times eight octets as they follow, from anywhere |
//! | 4 | the same, behind a header as the neighbour writes it |
//! | 5 | the same, behind a header of a stranger |
//! | 6 | `n` times 10 ms pass |
//! | 7 | `n` times 1 s pass in one: this process was suspended |
#![no_main]

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::OnceLock,
    time::{Duration, Instant},
};

use libfuzzer_sys::fuzz_target;
use openelb_l2::{
    MacAddr,
    speaker::{
        DesiredAddress, GossipKey, Link, LinkIndex, NodeName, Output, Peer, Settings, Speaker, SpeakerConfig,
    },
};

/// One origin for all inputs: only differences matter.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

fn name(n: u8) -> NodeName {
    NodeName::new(&format!("node-{n}")).expect("a name")
}

fn at(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 7947))
}

fn speaker(n: u8, key: Option<&GossipKey>) -> Speaker {
    let now = origin();
    let mut config = SpeakerConfig::new(name(n), at(n));
    config.key = key.cloned();
    config.incarnation = 1000;
    config.seed = u64::from(n);
    let mut speaker = Speaker::new(config, Settings::default(), now).expect("a good configuration");
    let mut link = Link::new(LinkIndex(2), "eth0", MacAddr::new([2, 0, 0, 0, 0, n]));
    link.addresses = vec![at(n).ip()];
    speaker.set_links(vec![link], now);
    speaker.set_peers([1, 2].map(|n| Peer::new(name(n), at(n))).to_vec(), now);
    let address = |last| DesiredAddress::new([192, 0, 2, last].into(), [LinkIndex(2)]);
    speaker.set_desired((100..104).map(address).collect(), now);
    speaker
}

fn datagrams(speaker: &mut Speaker) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut outputs = 0;
    while let Some(output) = speaker.poll_output() {
        outputs += 1;
        assert!(outputs < 500, "no end of output");
        if let Output::Datagram { payload, .. } = output {
            assert!(payload.len() <= 1400);
            all.push(payload);
        }
    }
    while speaker.poll_event().is_some() {}
    all
}

fuzz_target!(|input: &[u8]| {
    let Some((&flags, mut rest)) = input.split_first() else { return };
    let key = (flags & 1 != 0).then(|| GossipKey::new(b"a key of the cluster").expect("not empty"));
    let (mut speaker, mut other) = (speaker(1, key.as_ref()), speaker(2, key.as_ref()));
    let mut now = origin();
    let mut waiting: VecDeque<Vec<u8>> = datagrams(&mut other).into();
    let header = waiting.front().and_then(|first| first.get(..12)).expect("it asks").to_vec();
    let mut operations = 0;
    while let Some((&operation, tail)) = rest.split_first() {
        rest = tail;
        operations += 1;
        if operations > 200 {
            return;
        }
        let argument = operation >> 3;
        let mut octet = || {
            let (first, tail) = rest.split_first().map_or((0, rest), |(first, tail)| (*first, tail));
            rest = tail;
            usize::from(first)
        };
        let mut payload = Vec::new();
        let mut genuine = false;
        match operation & 7 {
            0 => {
                for _ in 0..=argument {
                    let Some(next) = waiting.pop_front() else { break };
                    let before = speaker.stats().rejected_datagrams;
                    speaker.handle_datagram(at(2), &next, now);
                    // It was not read by anybody else, and may have become too old.
                    assert!(speaker.stats().rejected_datagrams <= before + 1);
                }
                genuine = true;
            }
            1 => {
                let (at, what) = (octet(), octet());
                payload = waiting.pop_front().unwrap_or_default();
                let length = payload.len().max(1);
                genuine = what == 0 && !payload.is_empty();
                if let Some(place) = payload.get_mut(at % length) {
                    *place = place.wrapping_add(u8::try_from(what).expect("an octet"));
                }
            }
            2 => {
                let length = octet() * 8;
                payload = waiting.pop_front().unwrap_or_default();
                genuine = length >= payload.len() && !payload.is_empty();
                payload.truncate(length);
            }
            kind @ 3..=5 => {
                let (piece, tail) = rest.split_at(rest.len().min(usize::from(argument) * 8));
                rest = tail;
                match kind {
                    4 => payload.extend_from_slice(&header),
                    5 => payload.extend_from_slice(&[&header[..4], &[7; 8]].concat()),
                    _ => {}
                }
                payload.extend_from_slice(piece);
            }
            unit => {
                let step = Duration::from_millis(if unit == 6 { 10 } else { 1000 });
                now += step * u32::from(argument);
                speaker.handle_timeout(now);
                other.handle_timeout(now);
                genuine = true;
            }
        }
        if !genuine || !payload.is_empty() {
            let before = speaker.stats().rejected_datagrams;
            speaker.handle_datagram(at(2), &payload, now);
            if key.is_some() && !genuine {
                assert_eq!(speaker.stats().rejected_datagrams, before + 1, "it was not sealed with the key");
            }
        }
        for payload in datagrams(&mut speaker) {
            other.handle_datagram(at(1), &payload, now);
        }
        waiting.extend(datagrams(&mut other));
        speaker.handle_timeout(now);
        assert!(speaker.poll_timeout().is_some_and(|at| at > now), "a deadline has passed");
    }
    assert!(speaker.addresses().len() == 4 && speaker.members().len() < 2000);
});
