//! The only node that may own an address (`externalTrafficPolicy: Local` with all endpoints on it, or all others cordoned):
//! the others answer in its name while its speaker is gone, and never in their own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    dead_code,
    missing_docs,
    reason = "tests; not every suite uses all of the model"
)]

mod sim;

use std::time::Duration;

use openelb_l2::speaker::{Role, StopMode};
use sim::{Family, Sim, bounds::Bounds, ms};

/// Node 0 alone may own.
fn sole(family: Family, nodes: usize, seed: u64, stand_in: u64) -> Sim {
    let mut sim = Sim::of_family(family, nodes, 4, seed);
    sim.settings.stand_in = Duration::from_secs(stand_in);
    sim.hosts.iter_mut().skip(1).for_each(|host| host.eligible = false);
    sim.start_all();
    sim.run(ms(4000));
    for address in sim.addresses.clone() {
        assert_eq!(sim.owner(address), 0);
    }
    sim.reset_measures();
    sim
}

/// Whoever answers, a client is told where the only node is.
fn assert_told_of(sim: &mut Sim, n: usize) {
    let mac = sim.hosts[n].mac;
    for address in sim.addresses.clone() {
        let answers = sim.answers(address);
        assert!(!answers.is_empty(), "{:?}: {address} is answered by nobody", sim.elapsed());
        assert!(answers.iter().all(|(_, told)| *told == mac), "{address}: {answers:?}");
    }
}

#[test]
fn a_crash_of_the_only_eligible_node_moves_nothing() {
    for seed in 0..30 {
        let family = [Family::V4, Family::V6, Family::Both][seed as usize % 3];
        let mut sim = sole(family, 2 + seed as usize % 3, seed, 600);
        sim.kill(0);
        sim.run(ms(1200));
        for _ in 0..100 {
            assert_told_of(&mut sim, 0);
            sim.run(ms(200));
        }
        sim.start(0);
        sim.run(ms(2000));
        for address in sim.addresses.clone() {
            assert_eq!(sim.owner(address), 0, "it takes its own back");
        }
        assert!(sim.longest_double.is_zero() && sim.longest_silence <= ms(1200), "{:?}", sim.longest_silence);
    }
}

#[test]
fn an_announced_restart_of_the_only_eligible_node_leaves_no_gap() {
    for seed in 0..10 {
        let mut sim = sole(Family::Both, 3, seed, 600);
        sim.stop(0, StopMode::Restart);
        sim.run(ms(100));
        sim.kill(0);
        sim.run(ms(5000));
        assert_told_of(&mut sim, 0);
        // Who stands in is rolled out, too.
        let stands = |n: &usize| matches!(sim.role(*n, sim.addresses[0]), Role::StandIn { .. });
        let first = (1..3).find(stands).unwrap();
        sim.stop(first, StopMode::Restart);
        sim.run(ms(100));
        sim.kill(first);
        sim.run(ms(1000));
        assert_told_of(&mut sim, 0);
        sim.start(first);
        sim.run(ms(2000));
        assert_told_of(&mut sim, 0);
        sim.start(0);
        sim.run(ms(2000));
        assert_eq!(sim.owner(sim.addresses[0]), 0);
        assert!(sim.longest_double.is_zero() && sim.longest_silence <= ms(20), "{:?}", sim.longest_silence);
    }
}

#[test]
fn nobody_answers_for_the_only_eligible_node_once_its_host_is_gone_and_again_when_it_is_back() {
    for seed in 0..10 {
        let mut sim = sole(Family::Both, 3, seed, 600);
        sim.power_off(0);
        // While it was only suspected, its host was asked already.
        for pause in [3000, 60_000] {
            sim.run(ms(pause));
            for address in sim.addresses.clone() {
                assert_eq!(sim.answers(address), [], "nobody takes over who may not");
            }
        }
        // Its kernel is up before its speaker is.
        sim.hosts[0].powered = true;
        sim.run(ms(1500));
        assert_told_of(&mut sim, 0);
        sim.start(0);
        sim.run(ms(2000));
        assert_eq!(sim.owner(sim.addresses[0]), 0);
    }
}

#[test]
fn a_stand_in_that_may_not_own_goes_on_until_another_can_take_over() {
    for seed in 0..10 {
        let mut sim = sole(Family::Both, 3, seed, 5);
        sim.kill(0);
        sim.run(ms(60_000));
        assert_told_of(&mut sim, 0);
        sim.reset_measures();
        let helped: Vec<_> =
            sim.addresses.clone().into_iter().filter(|a| sim.role(2, *a) == Role::Standby).collect();
        sim.set_eligible(2, true);
        sim.run(ms(1000));
        for address in helped {
            assert!(matches!(sim.role(2, address), Role::StandIn { .. }), "no connection breaks yet");
            assert_eq!(sim.role(1, address), Role::Standby, "it is relieved");
        }
        sim.run(ms(6000));
        for address in sim.addresses.clone() {
            assert_eq!(sim.owner(address), 2);
        }
        assert!(sim.longest_silence.is_zero() && sim.longest_double <= ms(20), "{:?}", sim.longest_silence);
    }
}

#[test]
fn nobody_stands_in_where_that_is_off() {
    let mut sim = sole(Family::Both, 3, 1, 0);
    sim.kill(0);
    for _ in 0..100 {
        sim.run(ms(100));
        for address in sim.addresses.clone() {
            assert_eq!(sim.answers(address), []);
        }
    }
}

/// Crashes, restarts and suspensions of the only eligible node and of all others but one.
#[test]
fn a_client_is_told_of_the_only_eligible_node_through_everything() {
    for seed in 0..18 {
        let mut sim = sole(Family::Both, 3 + seed as usize % 3, seed, 600);
        sim.loss = [0, 0, 30][seed as usize % 3];
        sim.max_delay = ms([1, 5, 20][seed as usize / 3 % 3]);
        let bounds = Bounds::of(&sim);
        for round in 0..20 {
            sim.reset_measures();
            let n = (sim.random() % sim.hosts.len() as u64) as usize;
            match sim.random() % 4 {
                _ if n == 1 => {}
                _ if sim.hosts[n].suspended => sim.resume(n),
                _ if sim.hosts[n].speaker.is_none() => sim.start(n),
                0 | 1 => sim.kill(n),
                2 => sim.suspend(n),
                _ => {
                    sim.stop(n, StopMode::Restart);
                    sim.run(ms(300));
                    sim.kill(n);
                }
            }
            let pause = ms(500 + sim.random() % 4000);
            sim.run(pause);
            let (gap, bound) = (sim.longest_gap(), bounds.gap(1, false));
            assert!(gap <= bound, "seed {seed} round {round}: nobody for {gap:?} of {bound:?}");
            let mac = sim.hosts[0].mac;
            for address in sim.addresses.clone() {
                let answers = sim.answers(address);
                assert!(answers.iter().all(|(_, told)| *told == mac), "seed {seed}: {answers:?}");
            }
        }
    }
}

/// Two Nodes are edited at once, and each node hears of it when its watch brings it.
#[test]
fn an_owner_that_hears_first_that_it_may_not_goes_on_until_another_hears_that_it_may() {
    for late in [1, 20, 100, 500] {
        let mut sim = Sim::new(3, 6, late);
        sim.hosts[1].eligible = false;
        sim.hosts[2].eligible = false;
        sim.start_all();
        sim.run(ms(5000));
        sim.set_eligible(0, false);
        for at in 0..2000 {
            if at == late {
                sim.set_eligible(1, true);
            }
            sim.run(ms(1));
            for address in sim.addresses.clone() {
                assert!(
                    !sim.answers(address).is_empty(),
                    "{late}: nobody answers for {address} after {at} ms"
                );
            }
        }
        for address in sim.addresses.clone() {
            assert_eq!(sim.owner(address), 1);
        }
        assert!(sim.longest_double <= ms(20), "{late}: {:?}", sim.longest_double);
        // Where nobody may, nobody does for long.
        sim.set_eligible(1, false);
        sim.run(ms(1100));
        for address in sim.addresses.clone() {
            assert!(sim.answers(address).is_empty(), "{late}: {address}");
        }
    }
}

/// Its speaker is gone, its host answers, and it may not own any more: excluded, or its endpoints are gone.
#[test]
fn nobody_stands_in_for_a_node_that_may_not_own_any_more() {
    for seed in 0..10 {
        for late in [0, 3000] {
            let mut sim = Sim::of_family(Family::Both, 3, 4, seed);
            sim.knows_permitted = true;
            sim.start_all();
            sim.run(ms(4000));
            let address = sim.addresses[0];
            let owner = sim.owner(address);
            let owned: Vec<_> =
                sim.addresses.clone().into_iter().filter(|address| sim.owner(*address) == owner).collect();
            sim.kill(owner);
            sim.run(ms(late));
            if late > 0 {
                let mac = sim.hosts[owner].mac;
                assert!(sim.answers(address).iter().all(|(n, told)| *n != owner && *told == mac));
            }
            sim.reset_measures();
            sim.set_eligible(owner, false);
            // At once, or when it is given up.
            sim.run(ms(if late > 0 { 100 } else { 2000 }));
            for address in &owned {
                assert_ne!(sim.owner(*address), owner, "seed {seed}, after {late} ms");
            }
            assert!(late == 0 || sim.longest_silence.is_zero(), "{:?}", sim.longest_silence);
            // Back, it does not take them from those that have them.
            sim.start(owner);
            sim.run(ms(2000));
            for address in owned {
                assert_ne!(sim.owner(address), owner);
            }
        }
    }
}

#[test]
fn nobody_answers_for_a_node_that_may_not_own_where_no_other_may() {
    let mut sim = sole(Family::Both, 3, 2, 600);
    sim.knows_permitted = true;
    sim.set_eligible(0, true);
    sim.kill(0);
    sim.run(ms(3000));
    assert_told_of(&mut sim, 0);
    sim.set_eligible(0, false);
    sim.run(ms(100));
    for address in sim.addresses.clone() {
        assert_eq!(sim.answers(address), []);
    }
    // Another one may.
    sim.set_eligible(2, true);
    sim.run(ms(100));
    for address in sim.addresses.clone() {
        assert_eq!(sim.owner(address), 2);
    }
}
