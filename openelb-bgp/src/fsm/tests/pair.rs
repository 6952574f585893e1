//! Two machines against each other.

use std::{net::Ipv4Addr, time::Duration};

use super::support::Pair;
use crate::{
    fsm::{FsmConfig, State},
    wire::{GracefulRestart, Message, Notification},
};

fn config(asn: u32, id: u8) -> FsmConfig {
    FsmConfig::new(asn, Ipv4Addr::new(192, 0, 2, id))
}

const SECOND: Duration = Duration::from_secs(1);

/// Every order of deliveries that a seed gives; whichever end has the higher identifier, eBGP with equal identifiers
/// too (RFC 6286 §2.3), and one end passive.
#[test]
fn simultaneous_connections_give_one_session_and_none_is_dropped() {
    let passive = |mut config: FsmConfig| {
        config.passive = true;
        config
    };
    let cases = [
        ("lower", [config(64500, 1), config(64501, 2)]),
        ("higher", [config(64500, 2), config(64501, 1)]),
        ("equal identifiers", [config(64500, 1), config(64501, 1)]),
        ("iBGP", [config(64500, 1), config(64500, 2)]),
        ("passive", [config(64500, 1), passive(config(64501, 2))]),
    ];
    for (name, configs) in cases {
        for seed in 1..4000 {
            let mut pair = Pair::new(configs.clone(), seed * 0x9e37_79b9);
            pair.split = seed % 3 == 0;
            pair.start();
            pair.run_for(5 * SECOND);
            assert!(pair.agree(), "{name}, seed {seed}: {:#?}", pair.ends);
            for end in &pair.ends {
                assert_eq!((end.established, end.dropped), (1, 0), "{name}, seed {seed}: {:?}", end.downs);
            }
        }
    }
}

/// Every order in which what is under way can arrive, each state looked at once; `breaks`: at any moment one connection
/// may break.
fn explore(pair: Pair, breaks: bool, check: &impl Fn(Pair)) -> usize {
    let mut seen = std::collections::HashSet::new();
    let mut left = vec![(pair, breaks)];
    while let Some((pair, breaks)) = left.pop() {
        if !seen.insert((pair.fingerprint(), breaks)) {
            continue;
        }
        assert!(seen.len() < 200_000, "too many to look at");
        let ready = pair.ready();
        if ready.is_empty() {
            check(pair.clone());
        }
        for choice in ready {
            let mut next = pair.clone();
            next.deliver(choice);
            left.push((next, breaks));
        }
        if breaks {
            for id in pair.open_connections() {
                let mut next = pair.clone();
                next.break_connection(id);
                left.push((next, false));
            }
        }
    }
    seen.len()
}

#[test]
fn every_order_of_two_simultaneous_opens_gives_one_session_and_none_is_dropped() {
    let cases = [
        ("lower", [config(64500, 1), config(64501, 2)]),
        ("higher", [config(64500, 2), config(64501, 1)]),
        ("equal identifiers", [config(64500, 1), config(64501, 1)]),
    ];
    for (name, configs) in cases {
        let mut pair = Pair::new(configs, 1);
        pair.start();
        let states = explore(pair, false, &|mut pair| {
            pair.run_for(5 * SECOND);
            assert!(pair.agree(), "{name}: {:#?}", pair.ends);
            for end in &pair.ends {
                assert_eq!((end.established, end.dropped), (1, 0), "{name}: {:?}", end.downs);
            }
        });
        assert!(states > 100, "{name}: {states} states");
    }
}

#[test]
fn every_order_of_two_simultaneous_opens_of_which_one_breaks_ends_in_one_session() {
    let mut pair = Pair::new([config(64500, 1), config(64501, 2)], 1);
    pair.start();
    let states = explore(pair, true, &|mut pair| {
        pair.run_for(120 * SECOND);
        assert!(pair.agree(), "{:#?}", pair.ends);
        assert!(pair.ends.iter().all(|end| end.dropped <= 1), "{:#?}", pair.ends);
    });
    assert!(states > 1000, "{states} states");
}

#[test]
fn both_passive_wait_for_ever() {
    let mut configs = [config(64500, 1), config(64501, 2)];
    configs.iter_mut().for_each(|config| config.passive = true);
    let mut pair = Pair::new(configs, 1);
    pair.start();
    pair.run_for(3600 * SECOND);
    assert!(pair.ends.iter().all(|end| end.fsm.state() == State::Active && end.sent.is_empty()));
}

#[test]
fn keepalives_hold_the_session_and_come_at_a_third_of_the_hold_time() {
    let mut configs = [config(64500, 1), config(64501, 2)];
    configs[0].hold_time = 9;
    configs[1].keepalive = 2 * SECOND;
    let mut pair = Pair::new(configs, 7);
    pair.start();
    pair.run_for(600 * SECOND);
    assert!(pair.agree());
    for (end, interval) in [(0, 3), (1, 2)] {
        let keepalives = pair.ends[end].sent.iter().filter(|m| matches!(m, Message::Keepalive)).count();
        // A jitter of up to a quarter makes them more frequent, never less.
        let least = 600 / interval;
        assert!((least..=least * 4 / 3 + 2).contains(&keepalives), "end {end}: {keepalives}");
        assert_eq!(pair.ends[end].dropped, 0);
    }
}

#[test]
fn a_keepalive_interval_of_zero_is_a_third_of_the_hold_time() {
    let mut configs = [config(64500, 1), config(64501, 2)];
    configs.iter_mut().for_each(|config| config.keepalive = Duration::ZERO);
    let mut pair = Pair::new(configs, 7);
    pair.start();
    pair.run_for(600 * SECOND);
    assert!(pair.agree());
    for end in &pair.ends {
        let keepalives = end.sent.iter().filter(|m| matches!(m, Message::Keepalive)).count();
        assert!((60..=82).contains(&keepalives) && end.dropped == 0, "{keepalives}, {}", end.dropped);
    }
}

#[test]
fn a_silent_cut_ends_the_session_at_the_hold_time_and_it_comes_back() {
    let mut configs = [config(64500, 1), config(64501, 2)];
    configs[0].hold_time = 9;
    let mut pair = Pair::new(configs, 3);
    pair.start();
    pair.run_for(60 * SECOND);
    assert!(pair.agree());
    pair.cut = true;
    pair.run_for(5 * SECOND);
    assert!(pair.ends.iter().all(|end| end.dropped == 0), "too early");
    pair.run_for(5 * SECOND);
    assert!(pair.ends.iter().all(|end| end.dropped == 1), "at most the hold time");
    let expired = Message::Notification(Notification::hold_timer_expired());
    assert!(pair.ends.iter().all(|end| end.sent.contains(&expired)));
    pair.cut = false;
    // The longest pause is a minute.
    pair.run_for(90 * SECOND);
    assert!(pair.agree(), "{:#?}", pair.ends);
}

#[test]
fn a_restarted_neighbour_is_taken_at_once_when_its_connection_broke() {
    for seed in 1..200 {
        let configs = [config(64500, 1), config(64501, 2)];
        let mut pair = Pair::new(configs.clone(), seed);
        pair.start();
        pair.run_for(60 * SECOND);
        pair.restart(1, configs[1].clone(), seed + 1, false);
        pair.run_for(5 * SECOND);
        assert!(pair.agree(), "seed {seed}: {:#?}", pair.ends);
    }
}

/// The neighbour crashed, and nobody told us. With graceful restart on both sides its new OPEN replaces the session
/// (RFC 4724 §4.2); without, the old session stays until its hold time is over (RFC 4271 §6.8).
#[test]
fn a_neighbour_that_crashed_silently_comes_back() {
    for (graceful, bound) in [(true, 10), (false, 120)] {
        for seed in 1..50 {
            let mut configs = [config(64500, 1), config(64501, 2)];
            if graceful {
                let restart = GracefulRestart { time: 60, ..GracefulRestart::default() };
                configs.iter_mut().for_each(|config| config.graceful_restart = Some(restart.clone()));
            }
            // The old connection is the one that we opened, so that the neighbour's new one can arrive.
            configs[1].passive = true;
            let mut pair = Pair::new(configs.clone(), seed);
            pair.start();
            pair.run_for(60 * SECOND);
            assert!(pair.agree());
            configs[1].passive = false;
            pair.restart(1, configs[1].clone(), seed, true);
            pair.run_for(bound * SECOND);
            assert!(pair.agree(), "graceful {graceful}, seed {seed}: {:#?}", pair.ends);
        }
    }
}

#[test]
fn a_reset_is_followed_by_a_new_session() {
    let mut pair = Pair::new([config(64500, 1), config(64501, 2)], 11);
    pair.start();
    pair.run_for(10 * SECOND);
    let now = pair.now;
    pair.ends[0].fsm.reset(Notification::administrative_reset("maintenance"), now);
    pair.drain(0);
    pair.run_for(10 * SECOND);
    assert!(pair.agree(), "{:#?}", pair.ends);
    assert!(pair.ends.iter().all(|end| end.dropped == 1 && end.established == 2));
}

#[test]
fn stop_says_goodbye_and_stays_idle_until_start() {
    let mut pair = Pair::new([config(64500, 1), config(64501, 2)], 12);
    pair.start();
    pair.run_for(10 * SECOND);
    let now = pair.now;
    pair.ends[0].fsm.stop(Notification::administrative_shutdown("bye"), now);
    pair.drain(0);
    pair.run_for(300 * SECOND);
    assert_eq!(pair.ends[0].fsm.state(), State::Idle);
    assert_eq!(pair.ends[0].fsm.poll_timeout(), None);
    let now = pair.now;
    pair.ends[0].fsm.start(now);
    pair.drain(0);
    pair.run_for(90 * SECOND);
    assert!(pair.agree(), "{:#?}", pair.ends);
}

/// Random cuts, restarts, resets and time: whatever happened, when it is over there is one session.
#[test]
fn after_any_disturbance_there_is_one_session_again() {
    for seed in 1..300_u64 {
        let mut configs = [config(64500, 1), config(64501, 2)];
        configs[0].hold_time = 9;
        if seed % 2 == 0 {
            let restart = GracefulRestart { time: 60, ..GracefulRestart::default() };
            configs.iter_mut().for_each(|config| config.graceful_restart = Some(restart.clone()));
        }
        let mut pair = Pair::new(configs.clone(), seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        pair.split = seed % 5 == 0;
        pair.start();
        let mut x = seed;
        for _ in 0..20 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let end = usize::from(x >> 40 & 1 == 1);
            match x >> 33 & 7 {
                0 => pair.cut = !pair.cut,
                1 => pair.restart(end, configs[end].clone(), x, x >> 41 & 1 == 1),
                2 => {
                    let now = pair.now;
                    pair.ends[end].fsm.reset(Notification::administrative_reset(""), now);
                    pair.drain(end);
                }
                3 => (0..3).for_each(|_| {
                    pair.step();
                }),
                _ => pair.run_for(Duration::from_millis(x >> 50 & 0x1fff)),
            }
        }
        pair.cut = false;
        pair.run_for(300 * SECOND);
        assert!(pair.agree(), "seed {seed}: {:#?}", pair.ends);
    }
}
