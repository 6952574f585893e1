//! Speakers and BFD on one virtual clock: what the network loses, doubles, delays and reorders, partitions, restarts,
//! operators, and clocks that jump. One seed, one history: `OPENELB_BGP_SEED=n OPENELB_BGP_SEEDS=1` replays one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

mod world;

use std::time::Duration;

use openelb_bgp::speaker::PeerCommand;
use world::{DETECTION, Nature, World, name};

const SECOND: Duration = Duration::from_secs(1);

/// A number from the environment: a soak asks for more.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Each seed's history, and all that failed.
fn histories(default: u64, history: fn(u64)) {
    let first = number("OPENELB_BGP_SEED", 0);
    let seeds = number("OPENELB_BGP_SEEDS", default);
    let failed: Vec<String> = (first..first + seeds)
        .filter_map(|seed| {
            let panic = std::panic::catch_unwind(|| history(seed)).err()?;
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
            Some(format!("seed {seed}: {}", text.lines().next().unwrap_or("?")))
        })
        .collect();
    assert!(failed.is_empty(), "{} of {seeds}:\n{}", failed.len(), failed.join("\n"));
    println!("{seeds} histories from seed {first} on");
}

/// Something happens to a world.
fn disturb(world: &mut World) {
    let count = world.nature.count;
    let node = world.random(count);
    let other = (node + 1 + world.random(count - 1)) % count;
    let now = world.now;
    match world.random(14) {
        // One way, or both.
        0 => world.block(node, other),
        1 => {
            world.block(node, other);
            world.block(other, node);
        }
        2 | 3 => {
            world.heal(node, other);
            world.heal(other, node);
        }
        4 => {
            let silently = world.chance(50);
            world.restart(node, silently);
        }
        5 => world.break_one(),
        6 => {
            world.more[node] = world.random(60) as u16;
            world.announce(node);
        }
        7 => drop(world.speaker(node).reset(&name(other), "", now)),
        8 => drop(world.filtered.insert((node, other))),
        9 => drop(world.filtered.remove(&(node, other))),
        10 => {
            let command = PeerCommand::Shutdown { text: String::new() };
            drop(world.speaker(node).command(&name(other), command, now));
        }
        11 => drop(world.speaker(node).command(&name(other), PeerCommand::Enable, now)),
        // Everybody was suspended, for up to an hour.
        12 if world.chance(30) => {
            let jump = world.random(3600) as u64;
            world.now += Duration::from_secs(jump);
        }
        13 => drop(world.speaker(node).handle_link_down(&name(other), "eth0", now)),
        _ => {}
    }
    // From a moment, in which much happens at once, to as long as BFD and BGP need to come up again.
    let longest = if world.chance(30) { 50 } else { 12_000 };
    let wait = Duration::from_millis(world.random(longest) as u64);
    world.run_for(wait);
}

/// While all goes on, the world itself sees to it that no session outlives a path that BFD has lost, that BFD resets none
/// that has come up since, and that what is under way stays bounded.
#[test]
fn after_any_disturbance_of_bgp_and_bfd_everybody_has_what_everybody_announces() {
    histories(40, |seed| {
        let nature = Nature {
            graceful: seed % 3 != 0,
            delay: Duration::from_millis([5, 40, 300][(seed % 3) as usize]),
            loss: [0, 5, 30][(seed / 3 % 3) as usize],
            doubles: [0, 20][(seed % 2) as usize],
            segment: [1460, 40][(seed / 2 % 2) as usize],
            ..Nature::calm(2 + (seed % 3) as usize)
        };
        let mut world = World::new(nature, seed);
        for _ in 0..30 {
            disturb(&mut world);
        }
        world.heal_all();
        (world.nature.loss, world.nature.delay) = (0, Duration::from_millis(20));
        for (node, other) in world.pairs() {
            let now = world.now;
            world.speaker(node).command(&name(other), PeerCommand::Enable, now).unwrap();
        }
        // The hold time, the pauses before attempts to connect, and the restart time.
        world.run_for(Duration::from_secs(180));
        world.assert_whole("at last");
    });
}

/// BFD ends a session within its detection time, whichever direction dies; the other end hears of it from BFD if it can.
#[test]
fn a_path_that_dies_ends_the_session_at_both_ends_within_the_detection_time() {
    histories(30, |seed| {
        let nature = Nature {
            graceful: seed % 2 == 0,
            doubles: 20,
            delay: Duration::from_millis(40),
            ..Nature::calm(2)
        };
        let mut world = World::new(nature, seed);
        let warm_up = Duration::from_millis(60_000 + world.random(1000) as u64);
        world.run_for(warm_up);
        world.assert_whole("before");
        world.block(0, 1);
        if seed % 3 == 0 {
            world.block(1, 0);
        }
        // What is under way, the detection time, and a word of BFD to the other end.
        world.run_for(DETECTION + Duration::from_millis(3 * 40));
        let left: Vec<_> =
            world.pairs().into_iter().filter(|(a, b)| world.session(*a, *b).is_some()).collect();
        assert_eq!(left, [], "sessions that are left");
        world.run_for(60 * SECOND);
        let left: Vec<_> =
            world.pairs().into_iter().filter(|(a, b)| world.session(*a, *b).is_some()).collect();
        assert_eq!(left, [], "sessions over half a path");
        world.heal_all();
        world.run_for(60 * SECOND);
        world.assert_whole("after");
    });
}

/// A neighbour whose BFD is broken can be reached (RFC 5882 section 4): a session that comes up without BFD stays, and
/// what BFD said before it resets nothing.
#[test]
fn what_bfd_says_while_there_is_no_session_resets_none_that_comes_later() {
    histories(30, |seed| {
        let nature = Nature { graceful: seed % 2 == 0, loss: [0, 5][(seed % 2) as usize], ..Nature::calm(2) };
        let mut world = World::new(nature, seed);
        world.run_for(60 * SECOND);
        world.nature.loss = 0;
        world.run_for(40 * SECOND);
        world.assert_whole("before");
        // BFD goes down alone, and takes the session with it; then the session comes back without it.
        let before = [(0, 1), (1, 0)].map(|(a, b)| world.counted(a, b));
        let only = (seed % 3) as usize;
        let both = [(0, 1), (1, 0)];
        world.filtered.extend(both.get(only).map_or_else(|| both.to_vec(), |one| vec![*one]));
        world.run_for(300 * SECOND);
        for (index, (a, b)) in both.into_iter().enumerate() {
            let (established, dropped) = world.counted(a, b);
            let expected = (before[index].0 + 1, before[index].1 + 1);
            assert_eq!((established, dropped), expected, "{a} to {b}: once, and never again");
            assert!(world.session(a, b).is_some() && !world.is_up(a, b), "{a} to {b}: BGP without BFD");
        }
        // BFD comes up, and goes down while an operator holds BGP down: what comes after that knows nothing of it.
        world.filtered.clear();
        world.run_for(20 * SECOND);
        world.assert_whole("with BFD again");
        let now = world.now;
        let command = PeerCommand::Shutdown { text: String::new() };
        world.speaker(0).command(&name(1), command, now).unwrap();
        world.run_for(SECOND);
        world.filtered.extend(both);
        world.run_for(20 * SECOND);
        assert!(!world.is_up(0, 1) && !world.is_up(1, 0));
        let before = both.map(|(a, b)| world.counted(a, b));
        let now = world.now;
        world.speaker(0).command(&name(1), PeerCommand::Enable, now).unwrap();
        world.run_for(300 * SECOND);
        for (index, (a, b)) in both.into_iter().enumerate() {
            assert_eq!(world.counted(a, b), (before[index].0 + 1, before[index].1), "{a} to {b}: it stays");
        }
    });
}

/// Whatever way the bytes come, they are the same messages: no session ends for it, and nobody misses a route.
#[test]
fn a_stream_that_stalls_and_bursts_and_is_cut_anyhow_is_the_same_stream() {
    histories(24, |seed| {
        let large = seed % 6 == 0;
        let nature = Nature {
            bfd: false,
            loss: [5, 20, 40][(seed % 3) as usize],
            delay: Duration::from_millis([1, 50, 800][(seed / 3 % 3) as usize]),
            segment: if large { 1460 } else { [3, 40, 600][(seed / 2 % 3) as usize] },
            // More than a speaker has under way at a time.
            routes: if large { 2000 } else { 30 },
            ..Nature::calm(2)
        };
        let mut world = World::new(nature, seed);
        world.run_for(30 * SECOND);
        let before = [(0, 1), (1, 0)].map(|(a, b)| world.counted(a, b));
        for _ in 0..12 {
            let node = world.random(2);
            world.more[node] = world.random(40) as u16;
            world.announce(node);
            // One direction stalls, and acknowledgements do, too. With the interval of keepalives, and with what was lost
            // before and after, it is less than the hold time.
            if world.chance(50) {
                world.block(node, 1 - node);
                let stall = Duration::from_millis(world.random(10_000) as u64);
                world.run_for(stall);
                world.heal(node, 1 - node);
            }
            let wait = Duration::from_millis(8_000 + world.random(5_000) as u64);
            world.run_for(wait);
        }
        (world.nature.loss, world.nature.delay) = (0, Duration::from_millis(20));
        world.run_for(30 * SECOND);
        world.assert_whole("at last");
        let after = [(0, 1), (1, 0)].map(|(a, b)| world.counted(a, b));
        assert_eq!(after.map(|(_, dropped)| dropped), before.map(|(_, dropped)| dropped), "no session ended");
    });
}
