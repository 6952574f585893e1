//! Connections go through the kernel of the owner's host, whose speaker is gone: whatever the speakers that are left go
//! through, clients are told its MAC address for as long as somebody may stand in for it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod sim;

use std::time::Duration;

use openelb_l2::speaker::{Role, StopMode};
use sim::{Family, Sim, ms};

/// Runs; all the time, each of the addresses of this node is answered with its MAC address.
fn run(sim: &mut Sim, of: usize, addresses: &[std::net::IpAddr], time: Duration, what: &str) {
    let mac = sim.hosts[of].mac;
    let end = sim.elapsed() + time;
    while sim.elapsed() < end {
        sim.run(ms(10));
        for address in addresses {
            let answers = sim.answers(*address);
            let right = !answers.is_empty() && answers.iter().all(|(_, said)| *said == mac);
            assert!(right, "{what}, after {:?}: {address} of {of}: {answers:?}", sim.elapsed());
        }
    }
}

fn owned_by(sim: &mut Sim, owner: usize) -> Vec<std::net::IpAddr> {
    let all = sim.addresses.clone();
    all.into_iter().filter(|address| sim.owner(*address) == owner).collect()
}

/// A speaker that does not come back, because what is rolled out now is to mend it.
#[test]
fn speakers_are_rolled_out_while_one_is_down() {
    for seed in 0..40 {
        let mut sim = Sim::of_family(Family::Both, 3 + seed as usize % 2, 6, seed);
        sim.start_all();
        sim.run(ms(4000));
        let down = sim.owner(sim.addresses[0]);
        let addresses = owned_by(&mut sim, down);
        sim.kill(down);
        sim.run(ms(1500));
        let others: Vec<_> = (0..sim.hosts.len()).filter(|n| *n != down).collect();
        for round in 0..2 {
            for n in &others {
                let what = format!("seed {seed}, round {round}, {n} is restarted");
                sim.stop(*n, StopMode::Restart);
                run(&mut sim, down, &addresses, ms(40 + seed * 10), &what);
                sim.kill(*n);
                run(&mut sim, down, &addresses, ms(500 + seed * 30), &what);
                sim.start(*n);
                run(&mut sim, down, &addresses, ms(2500), &what);
            }
        }
        sim.start(down);
        sim.run(ms(2500));
        assert_eq!(owned_by(&mut sim, down), addresses, "seed {seed}: it gets its own back");
    }
}

/// One that owned an address slept for so long that another took it over, whose speaker was killed then.
#[test]
fn one_that_slept_leaves_its_address_to_who_took_it_over() {
    let mut heirs = 0;
    for seed in 0..40 {
        let mut sim = Sim::of_family(Family::Both, 4, 4, seed);
        sim.settings.stand_in = Duration::from_secs(5);
        sim.start_all();
        sim.run(ms(4000));
        let slept = sim.owner(sim.addresses[0]);
        let were_its = owned_by(&mut sim, slept);
        sim.suspend(slept);
        sim.run(ms(8000));
        let heir = sim.owner(sim.addresses[0]);
        assert_ne!(heir, slept);
        let addresses = owned_by(&mut sim, heir);
        let addresses: Vec<_> = addresses.into_iter().filter(|address| were_its.contains(address)).collect();
        sim.kill(heir);
        // Each time, that it is gone is known a little better.
        sim.run(ms(600 + seed * 25));
        let stands =
            |n: usize| n != slept && n != heir && matches!(sim.role(n, addresses[0]), Role::StandIn { .. });
        if !(0..4).any(stands) {
            continue;
        }
        heirs += 1;
        sim.resume(slept);
        run(&mut sim, heir, &addresses, ms(2500), &format!("seed {seed}"));
    }
    assert!(heirs > 20, "{heirs}");
}

/// A host that does not answer questions from another subnet, or whose way back is another (`rp_filter`, `arp_filter`).
#[test]
fn a_host_that_answers_probes_only_is_stood_in_for() {
    for seed in 0..10 {
        let mut sim = Sim::of_family(Family::V4, 3, 4, seed);
        sim.hosts.iter_mut().for_each(|host| host.strict = true);
        sim.start_all();
        sim.run(ms(4000));
        let owner = sim.owner(sim.addresses[0]);
        let addresses = owned_by(&mut sim, owner);
        sim.stop(owner, StopMode::Restart);
        // It is asked twice.
        sim.run(ms(80));
        sim.kill(owner);
        run(&mut sim, owner, &addresses, ms(30_000), &format!("seed {seed}"));
        sim.start(owner);
        run(&mut sim, owner, &addresses, ms(3000), &format!("seed {seed}, back"));
    }
}

/// A switch that answers in the place of hosts does not know which of them are dead.
#[test]
fn a_switch_that_answers_for_a_dead_host_does_not_keep_its_addresses_from_others() {
    for seed in 0..10 {
        let mut sim = Sim::of_family(Family::Both, 3, 6, seed);
        sim.proxy = true;
        sim.start_all();
        sim.run(ms(4000));
        let dead = sim.owner(sim.addresses[0]);
        let addresses = owned_by(&mut sim, dead);
        sim.power_off(dead);
        sim.run(ms(3000));
        for address in &addresses {
            assert_ne!(sim.owner(*address), dead, "seed {seed}: {address}");
        }
        // The kernel of one whose speaker alone is gone answers by itself.
        let gone = sim.owner(addresses[0]);
        let addresses = owned_by(&mut sim, gone);
        sim.kill(gone);
        sim.run(ms(1500));
        run(&mut sim, gone, &addresses, ms(10_000), &format!("seed {seed}"));
    }
}

/// Speakers die, restart and come back in any order, but for one at any time that has been there for a while; each is known
/// to be gone before the next one comes or goes. Hosts live, so no address moves.
#[test]
fn no_address_moves_while_only_speakers_die() {
    let number =
        |name, default: u64| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let (seeds, first) = (number("OPENELB_LAYER2_SEEDS", 96).div_ceil(3), number("OPENELB_LAYER2_SEED", 0));
    for seed in first..first + seeds {
        let mut sim = Sim::of_family(Family::Both, 3 + seed as usize % 3, 6, seed);
        sim.start_all();
        sim.run(ms(4000));
        let all = sim.addresses.clone();
        let owners: Vec<_> = all.iter().map(|address| sim.owner(*address)).collect();
        let nodes = sim.hosts.len();
        // Since when each speaker is there, if it is.
        let mut since: Vec<_> = (0..nodes).map(|_| Some(Duration::ZERO)).collect();
        let mut history = Vec::new();
        for _ in 0..40 {
            let n = sim.random() as usize % nodes;
            let (restart, now) = (sim.random().is_multiple_of(2), sim.elapsed());
            let lasting = |other: usize| other != n && since[other].is_some_and(|at| now - at >= ms(2500));
            if since[n].is_none() {
                sim.start(n);
                since[n] = Some(sim.elapsed());
                history.push((sim.elapsed(), n, "starts"));
            } else if (0..nodes).any(lasting) {
                if restart {
                    sim.stop(n, StopMode::Restart);
                    sim.run(ms(30));
                }
                sim.kill(n);
                since[n] = None;
                history.push((sim.elapsed(), n, if restart { "restarts" } else { "dies" }));
            }
            let least = if since[n].is_none() { 1300 } else { 100 };
            let end = sim.elapsed() + ms(least + sim.random() % 1400);
            while sim.elapsed() < end {
                sim.run(ms(10));
                for (address, owner) in all.iter().zip(&owners) {
                    let mac = sim.hosts[*owner].mac;
                    let answers = sim.answers(*address);
                    let right = answers.iter().all(|(_, said)| *said == mac);
                    let now = sim.elapsed();
                    assert!(right, "seed {seed}, at {now:?}: {address} of {owner}: {answers:?}; {history:?}");
                }
            }
        }
    }
    println!("{seeds} histories of speakers from seed {first} on");
}

/// Also where another would be better: after a fail-over, and without a failback.
#[test]
fn a_quick_restart_of_one_that_is_not_the_best_moves_nothing() {
    for seed in 0..60 {
        let mut sim = Sim::of_family(Family::Both, 3, 6, seed);
        sim.settings.failback = openelb_l2::speaker::Failback::Manual;
        sim.start_all();
        sim.run(ms(4000));
        let best = sim.owner(sim.addresses[0]);
        sim.power_off(best);
        sim.run(ms(4000));
        sim.hosts[best].powered = true;
        sim.start(best);
        sim.run(ms(4000));
        let owner = sim.owner(sim.addresses[0]);
        assert_ne!(owner, best);
        let owners: Vec<_> = sim.addresses.clone().into_iter().map(|a| sim.owner(a)).collect();
        sim.kill(owner);
        sim.run(ms(seed * 15));
        sim.start(owner);
        sim.run(ms(3000));
        let now: Vec<_> = sim.addresses.clone().into_iter().map(|a| sim.owner(a)).collect();
        assert_eq!(owners, now, "seed {seed}, away for {} ms", seed * 15);
    }
}
