//! The production machines on one virtual clock: who owns what, through everything that can go wrong.
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

use openelb_l2::{
    MacAddr,
    speaker::{Event, Failback, MemberState, Role, StopMode},
};
use sim::{Sim, ms};

/// One exchange: a claim and its hearing, at most 2 ms each way, sampled every 10 ms.
const EXCHANGE: Duration = Duration::from_millis(20);

fn settled(nodes: usize, addresses: usize, seed: u64) -> Sim {
    let mut sim = Sim::with_all(nodes, addresses, seed);
    sim.run(ms(3000));
    for address in sim.addresses.clone() {
        sim.owner(address);
    }
    assert!(sim.longest_double <= EXCHANGE, "{:?}", sim.longest_double);
    sim.reset_measures();
    sim
}

#[test]
fn a_single_node_owns_everything() {
    let mut sim = Sim::with_all(1, 5, 1);
    sim.run(ms(700));
    for address in sim.addresses.clone() {
        assert_eq!(sim.owner(address), 0);
    }
    assert!(sim.longest_silence >= ms(550), "it looks for strangers before the first claim");
}

#[test]
fn addresses_spread_and_have_one_owner_each() {
    let mut sim = settled(5, 50, 2);
    let mut counts = [0; 5];
    for address in sim.addresses.clone() {
        counts[sim.owner(address)] += 1;
    }
    assert!(counts.iter().all(|count| *count > 3), "{counts:?}");
}

#[test]
fn a_node_that_is_cut_off_is_replaced_within_the_bound() {
    let mut times = Vec::new();
    for seed in 0..20 {
        let mut sim = settled(3, 1, seed);
        sim.run(ms(seed * 37));
        let address = sim.addresses[0];
        let owner = sim.owner(address);
        sim.reset_measures();
        sim.power_off(owner);
        sim.run(ms(4000));
        assert_ne!(sim.owner(address), owner);
        times.push(sim.longest_silence);
    }
    times.sort();
    assert!(times[10] <= ms(1200) && times[19] <= ms(2000), "{times:?}");
}

#[test]
fn a_crash_of_the_speaker_moves_nothing() {
    for seed in 0..10 {
        let mut sim = settled(3, 3, seed);
        let address = sim.addresses[0];
        let owner = sim.owner(address);
        let mac = sim.hosts[owner].mac;
        sim.kill(owner);
        sim.run(ms(1200));
        let answers = sim.answers(address);
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert_eq!(answers[0].1, mac, "the stand-in answers with the owner's address");
        sim.start(owner);
        sim.run(ms(2000));
        assert_eq!(sim.owner(address), owner, "it takes its own back");
        assert!(sim.longest_double.is_zero() && sim.longest_silence <= ms(1200), "{:?}", sim.longest_silence);
    }
}

#[test]
fn a_quick_restart_moves_nothing() {
    for seed in 0..10 {
        let mut sim = settled(3, 5, seed);
        for n in 0..3 {
            let owners: Vec<_> = sim.addresses.clone().into_iter().map(|a| sim.owner(a)).collect();
            sim.kill(n);
            sim.run(ms(seed * 40));
            sim.start(n);
            sim.run(ms(2000));
            let now: Vec<_> = sim.addresses.clone().into_iter().map(|a| sim.owner(a)).collect();
            assert_eq!(owners, now);
            assert!(sim.longest_double.is_zero(), "{:?}", sim.longest_double);
        }
    }
}

#[test]
fn an_announced_restart_leaves_no_gap() {
    let mut sim = settled(3, 5, 3);
    for n in 0..3 {
        let owners: Vec<_> = sim.addresses.clone().into_iter().map(|a| sim.owner(a)).collect();
        sim.stop(n, StopMode::Restart);
        sim.run(ms(30));
        assert!(sim.hosts[n].speaker.as_ref().unwrap().is_stopped());
        sim.kill(n);
        sim.run(ms(5000));
        sim.start(n);
        sim.run(ms(2000));
        let now: Vec<_> = sim.addresses.clone().into_iter().map(|a| sim.owner(a)).collect();
        assert_eq!(owners, now);
    }
    assert!(sim.longest_double.is_zero() && sim.longest_silence <= ms(20), "{:?}", sim.longest_silence);
}

#[test]
fn a_stand_in_ends_after_its_time() {
    let mut sim = Sim::new(3, 1, 4);
    sim.settings.stand_in = Duration::from_secs(5);
    sim.start_all();
    sim.run(ms(3000));
    let address = sim.addresses[0];
    let owner = sim.owner(address);
    sim.kill(owner);
    sim.run(ms(4000));
    assert_eq!(sim.answers(address)[0].1, sim.hosts[owner].mac);
    sim.run(ms(3000));
    let next = sim.owner(address);
    assert_ne!(next, owner);
    sim.start(owner);
    sim.run(ms(3000));
    assert_eq!(sim.owner(address), next, "the new owner is the incumbent");
    assert!(sim.longest_double <= EXCHANGE);
}

#[test]
fn a_suspended_owner_does_not_answer_with_what_was_taken_over() {
    for (seed, stand_in) in [(0, 0), (1, 5), (2, 600), (3, 0), (4, 0)] {
        let mut sim = Sim::new(3, 4, seed);
        sim.settings.stand_in = Duration::from_secs(stand_in);
        sim.start_all();
        sim.run(ms(3000));
        let owners: Vec<_> = sim.addresses.clone().into_iter().map(|a| sim.owner(a)).collect();
        let victim = owners[0];
        sim.reset_measures();
        sim.suspend(victim);
        sim.run(Duration::from_secs(30));
        sim.resume(victim);
        sim.run(Duration::from_secs(5));
        for (i, address) in sim.addresses.clone().into_iter().enumerate() {
            let owner = sim.owner(address);
            if stand_in == 600 || owners[i] != victim {
                assert_eq!(owner, owners[i]);
            } else {
                assert_ne!(owner, victim);
            }
        }
        assert!(sim.longest_double.is_zero(), "{:?}", sim.longest_double);
        assert!(sim.longest_silence <= ms(2000), "{:?}", sim.longest_silence);
    }
}

#[test]
fn what_waited_while_a_node_was_suspended_is_no_sign_of_life() {
    for seed in 0..10 {
        let mut sim = Sim::new(3, 6, seed);
        sim.settings.stand_in = Duration::ZERO;
        sim.hosts[1].eligible = false;
        sim.start_all();
        sim.run(ms(3000));
        sim.suspend(0);
        sim.run(Duration::from_secs(5));
        for address in sim.addresses.clone() {
            assert_eq!(sim.owner(address), 2);
        }
        // The last words of one that leaves wait at the one that is to follow it.
        sim.stop(2, StopMode::Withdraw);
        sim.run(ms(200));
        sim.kill(2);
        sim.resume(0);
        sim.run(ms(1500));
        for address in sim.addresses.clone() {
            assert_eq!(sim.owner(address), 0, "seed {seed}");
        }
    }
}

#[test]
fn a_link_that_goes_down_is_replaced_at_once() {
    let mut sim = settled(3, 1, 5);
    let address = sim.addresses[0];
    let owner = sim.owner(address);
    sim.set_link_up(owner, false);
    sim.run(ms(1000));
    assert_ne!(sim.owner(address), owner);
    assert!(sim.longest_silence <= ms(100), "{:?}", sim.longest_silence);
}

#[test]
fn a_planned_move_leaves_no_gap() {
    for seed in 0..40 {
        let mut sim = settled(3, 6, seed);
        for n in 0..3 {
            sim.set_eligible(n, false);
            sim.run(ms(1000));
            for address in sim.addresses.clone() {
                assert_ne!(sim.owner(address), n);
            }
            // Within the burst of the last claim.
            sim.set_eligible(n, true);
            sim.run(ms(1000));
        }
        sim.stop(0, StopMode::Withdraw);
        sim.run(ms(500));
        assert!(sim.hosts[0].speaker.as_ref().unwrap().is_stopped());
        sim.kill(0);
        sim.run(ms(3000));
        for address in sim.addresses.clone() {
            assert_ne!(sim.owner(address), 0);
        }
        assert!(sim.longest_silence.is_zero(), "seed {seed}: {:?}", sim.longest_silence);
        assert!(sim.longest_double <= EXCHANGE, "seed {seed}: {:?}", sim.longest_double);
    }
}

#[test]
fn a_partition_heals_to_one_owner() {
    for seed in 0..10 {
        let mut sim = settled(4, 6, seed);
        sim.partition(&[0, 1]);
        sim.run(Duration::from_secs(10));
        for address in sim.addresses.clone() {
            assert_eq!(sim.answers(address).len(), 2, "each side has an owner");
        }
        sim.heal();
        sim.reset_measures();
        sim.run(Duration::from_secs(10));
        for address in sim.addresses.clone() {
            sim.owner(address);
        }
        assert!(sim.longest_silence <= ms(100), "{:?}", sim.longest_silence);
        // Each asks for those it lost all the time, and claims again when it hears one.
        assert!(sim.longest_double <= ms(80), "{:?}", sim.longest_double);
    }
}

#[test]
fn after_a_partition_the_last_claim_is_the_winners() {
    for seed in 0..60 {
        let mut sim = settled(3, 4, seed);
        let owner = sim.owner(sim.addresses[0]);
        sim.partition(&[owner]);
        sim.run(ms(2500));
        sim.heal();
        sim.run(ms(150));
        for address in sim.addresses.clone() {
            let winner = sim.owner(address);
            let mac = sim.hosts[winner].mac;
            assert_eq!(sim.claimed[&address], mac, "seed {seed}: {address}: clients go to who claimed last");
        }
    }
}

/// Whoever claims a while after another rival did is not one that does not hear.
#[test]
fn a_node_that_began_a_new_life_apart_is_met_as_one_that_may_own() {
    for seed in 0..20 {
        let mut sim = settled(4, 6, seed);
        // Whoever withdraws wants nothing any more, as far as the others know.
        sim.stop(2, StopMode::Withdraw);
        sim.run(ms(1000));
        sim.kill(2);
        sim.run(ms(1000));
        sim.partition(&[2]);
        sim.start(2);
        sim.run(ms(5000 + seed * 37));
        sim.heal();
        sim.reset_measures();
        sim.run(ms(3000));
        assert!(sim.longest_double <= ms(100), "seed {seed}: {:?}", sim.longest_double);
    }
}

#[test]
fn a_node_that_restarted_beyond_a_partition_is_asked_for() {
    for seed in 0..10 {
        let mut sim = settled(4, 6, seed);
        sim.stop(1, StopMode::Restart);
        sim.run(ms(300));
        sim.kill(1);
        sim.partition(&[1]);
        sim.start(1);
        sim.run(ms(8000 + seed * 70));
        sim.heal();
        sim.reset_measures();
        sim.run(ms(3000));
        assert!(sim.longest_double <= ms(100), "seed {seed}: {:?}", sim.longest_double);
    }
}

#[test]
fn a_node_whose_question_is_heard_is_a_member_at_once() {
    for seed in 0..10 {
        let mut sim = Sim::new(2, 1, seed);
        // Whatever invitation they sent each other when they started is lost.
        sim.deaf.extend([(0, 1), (1, 0)]);
        sim.start_all();
        sim.run(ms(350));
        sim.heal();
        sim.run(ms(200));
        for host in &sim.hosts {
            let members = host.speaker.as_ref().unwrap().members();
            assert_eq!(members.first().map(|member| member.state), Some(MemberState::Alive), "seed {seed}");
        }
    }
}

#[test]
fn a_suspension_is_noticed_once() {
    for seed in 0..10 {
        let mut sim = settled(4, 6, seed);
        sim.power_off(3);
        sim.run(ms(5000));
        sim.suspend(0);
        sim.run(ms(1200));
        sim.resume(0);
        sim.run(ms(1000));
        let stalls = sim.hosts[0].speaker.as_ref().unwrap().stats().stalls;
        assert_eq!(stalls, 1, "seed {seed}");
    }
}

#[test]
fn nobody_stands_in_for_a_suspect_beside_an_owner() {
    for seed in 0..30 {
        let mut sim = settled(4, 6, seed);
        sim.partition(&[0, 1]);
        sim.run(ms(5000));
        sim.kill(2);
        sim.run(ms(seed * 40));
        sim.heal();
        sim.reset_measures();
        sim.run(ms(5000));
        assert!(sim.longest_double <= ms(80), "seed {seed}: {:?}", sim.longest_double);
    }
}

#[test]
fn nodes_that_come_back_one_after_the_other_leave_the_better_one_its_addresses() {
    for seed in 0..20 {
        let mut sim = settled(3, 6, seed);
        let best: Vec<usize> = sim.addresses.clone().into_iter().map(|address| sim.owner(address)).collect();
        sim.cut = (0..3).flat_map(|a| (0..3).map(move |b| (a, b))).filter(|(a, b)| a != b).collect();
        sim.run(Duration::from_secs(10));
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            sim.cut.retain(|pair| *pair != (a, b) && *pair != (b, a));
            sim.run(ms(1000 + seed * 50));
            for (address, best) in sim.addresses.clone().into_iter().zip(&best) {
                let role = sim.role(*best, address);
                assert_eq!(role, Role::Owner, "seed {seed}: {address} at {best} after {a} and {b} met");
            }
        }
    }
}

#[test]
fn a_claim_that_was_heard_before_its_gossip_delays_no_failover() {
    for seed in 0..20 {
        let mut sim = Sim::new(3, 2, seed);
        // Frames pass, and datagrams do not yet.
        sim.deaf = (0..3).flat_map(|a| (0..3).map(move |b| (a, b))).collect();
        sim.start_all();
        sim.run(ms(900 + seed * 30));
        sim.heal();
        sim.run(ms(2500));
        let address = sim.addresses[0];
        let owner = sim.owner(address);
        sim.reset_measures();
        sim.power_off(owner);
        sim.run(ms(4000));
        assert!(sim.longest_silence <= ms(1500), "seed {seed}: {:?}", sim.longest_silence);
    }
}

#[test]
fn a_node_that_no_other_hears_gives_way_within_a_second() {
    let mut found = 0;
    for seed in 0..20 {
        let mut sim = settled(3, 6, seed);
        let owner = sim.owner(sim.addresses[0]);
        // Clients hear it, and the other nodes do not; it hears them.
        sim.cut = (0..3).filter(|n| *n != owner).map(|n| (owner, n)).collect();
        let mut doubles = [0; 6];
        for _ in 0..1000 {
            sim.run(ms(10));
            for (n, address) in sim.addresses.clone().into_iter().enumerate() {
                doubles[n] += u64::from(sim.answers(address).len() > 1);
            }
        }
        found += u64::from(doubles.iter().any(|count| *count > 0));
        assert!(doubles.iter().all(|count| *count <= 110), "seed {seed}: {doubles:?} times 10 ms");
        sim.heal();
        sim.reset_measures();
        sim.run(ms(3000));
        assert!(
            sim.longest_double <= ms(60),
            "seed {seed}: {:?} after it is heard again",
            sim.longest_double
        );
        for address in sim.addresses.clone() {
            sim.owner(address);
        }
    }
    assert!(found > 10, "{found}");
}

#[test]
fn a_hundred_addresses_spread_over_ten_nodes_and_a_loss_moves_only_its_own() {
    let mut sim = settled(10, 100, 5);
    let owners: Vec<_> = sim.addresses.clone().into_iter().map(|address| sim.owner(address)).collect();
    let count = |n| owners.iter().filter(|owner| **owner == n).count();
    let max = (0..10).map(count).max().unwrap();
    assert!(max <= 19, "the mean is 10: {:?}", (0..10).map(count).collect::<Vec<_>>());
    sim.power_off(3);
    sim.run(ms(3000));
    for (address, before) in sim.addresses.clone().into_iter().zip(owners) {
        let after = sim.owner(address);
        assert!(after == before || before == 3, "{address} moved from {before} to {after}");
    }
}

#[test]
fn an_owner_whose_link_comes_back_asks_before_it_claims() {
    for seed in 0..10 {
        let mut sim = settled(3, 6, seed);
        let address = sim.addresses[0];
        let owner = sim.owner(address);
        // The carrier goes, and with it the way of gossip.
        sim.set_link_up(owner, false);
        for other in (0..3).filter(|n| *n != owner) {
            sim.cut.extend([(owner, other), (other, owner)]);
        }
        sim.run(ms(3000));
        let next = sim.owner(address);
        assert_ne!(next, owner);
        sim.heal();
        sim.reset_measures();
        sim.set_link_up(owner, true);
        sim.run(ms(10_000));
        assert_eq!(sim.owner(address), next, "it comes back only as failback says");
        assert!(sim.longest_double.is_zero() && sim.longest_silence.is_zero());
    }
}

#[test]
fn gossip_that_is_cut_off_changes_nothing_while_hosts_answer() {
    let mut sim = settled(3, 6, 7);
    let owners: Vec<_> = sim.addresses.clone().into_iter().map(|a| sim.owner(a)).collect();
    for other in [1, 2] {
        sim.deaf.extend([(0, other), (other, 0)]);
    }
    sim.run(Duration::from_secs(30));
    sim.heal();
    sim.run(Duration::from_secs(10));
    let now: Vec<_> = sim.addresses.clone().into_iter().map(|a| sim.owner(a)).collect();
    assert_eq!(owners, now);
    assert!(sim.longest_double.is_zero(), "{:?}", sim.longest_double);
}

/// A firewall, say: the port of gossip is closed everywhere, and nobody ever heard of anybody.
#[test]
fn without_any_gossip_an_address_has_one_owner_all_the_same() {
    for seed in 0..10 {
        let mut sim = Sim::new(3, 6, seed);
        for a in 0..3 {
            sim.deaf.extend((0..3).map(|b| (a, b)));
        }
        sim.start_all();
        sim.run(Duration::from_secs(20));
        // They have to find out first that they are no strangers.
        assert!(sim.longest_double <= ms(150), "{:?}", sim.longest_double);
        let owners: Vec<_> = sim.addresses.clone().into_iter().map(|a| sim.owner(a)).collect();
        let victim = owners[0];
        sim.reset_measures();
        sim.power_off(victim);
        sim.run(Duration::from_secs(20));
        for (i, address) in sim.addresses.clone().into_iter().enumerate() {
            let owner = sim.owner(address);
            assert!(owner != victim && (owner == owners[i] || owners[i] == victim));
        }
        // It goes on saying that it owns them, for it hears no gossip, and so they are left to it for two seconds.
        assert!(sim.longest_silence <= ms(3500), "{:?}", sim.longest_silence);
        assert!(sim.longest_double <= ms(50), "{:?}", sim.longest_double);
    }
}

/// Number of lives that a clock goes back by; with 0 the number of a life is used twice.
#[test]
fn a_clock_that_goes_back_keeps_no_node_out() {
    for (seed, back) in [(0, 0), (1, 1), (2, 5), (3, 1000), (4, 1_000_000)] {
        let mut sim = Sim::new(3, 6, seed);
        for host in &mut sim.hosts {
            host.started = 2_000_000;
        }
        sim.start_all();
        sim.run(ms(3000));
        let owners: Vec<_> = sim.addresses.clone().into_iter().map(|a| sim.owner(a)).collect();
        let victim = owners[0];
        sim.kill(victim);
        sim.run(ms(2000));
        sim.hosts[victim].started -= back + 1;
        sim.reset_measures();
        let frames = sim.datagrams;
        sim.start(victim);
        sim.run(ms(2000));
        let now: Vec<_> = sim.addresses.clone().into_iter().map(|a| sim.owner(a)).collect();
        assert_eq!(owners, now);
        assert!(sim.longest_double.is_zero() && sim.longest_silence.is_zero());
        assert!(sim.datagrams - frames < 1000, "a storm of {} datagrams", sim.datagrams - frames);
        // Nobody thinks any more that it is gone: it can be replaced.
        sim.power_off(victim);
        sim.run(ms(2000));
        assert_ne!(sim.owner(sim.addresses[0]), victim);
    }
}

#[test]
fn after_a_partition_the_winner_keeps_its_addresses_through_a_restart() {
    for seed in 0..10 {
        let mut sim = settled(3, 6, seed);
        sim.partition(&[0]);
        sim.run(Duration::from_secs(5));
        sim.heal();
        sim.run(Duration::from_secs(5));
        let owners: Vec<_> = sim.addresses.clone().into_iter().map(|a| sim.owner(a)).collect();
        let macs: Vec<_> = owners.iter().map(|n| sim.hosts[*n].mac).collect();
        sim.reset_measures();
        sim.stop(0, StopMode::Restart);
        sim.run(ms(300));
        sim.kill(0);
        sim.run(ms(5000));
        for (address, mac) in sim.addresses.clone().into_iter().zip(&macs) {
            assert_eq!(sim.answers(address)[0].1, *mac, "seed {seed}: no connection moves");
        }
        assert!(sim.longest_double.is_zero() && sim.longest_silence <= ms(20), "{:?}", sim.longest_silence);
    }
}

#[test]
fn each_stand_in_has_its_own_time() {
    let mut sim = Sim::new(3, 1, 11);
    sim.settings.stand_in = Duration::from_secs(5);
    sim.start_all();
    sim.run(ms(3000));
    let address = sim.addresses[0];
    let owner = sim.owner(address);
    for _ in 0..5 {
        sim.stop(owner, StopMode::Restart);
        sim.run(ms(100));
        sim.kill(owner);
        sim.run(ms(2000));
        assert_eq!(sim.answers(address)[0].1, sim.hosts[owner].mac);
        sim.start(owner);
        sim.run(ms(2000));
        assert_eq!(sim.owner(address), owner);
    }
}

/// Its frames and its gossip get out, and nothing gets in.
#[test]
fn an_address_returns_from_a_deaf_node_once_that_hears_or_is_gone() {
    for seed in 0..10 {
        let mut sim = settled(2, 6, seed);
        sim.cut.insert((0, 1));
        sim.run(Duration::from_secs(8));
        for address in sim.addresses.clone() {
            let answers = sim.answers(address);
            assert!(answers.iter().any(|(n, _)| *n == 1), "a client is told by node-1: {answers:?}");
        }
        sim.heal();
        sim.run(ms(2500));
        sim.reset_measures();
        for address in sim.addresses.clone() {
            sim.owner(address);
        }
        sim.set_link_up(1, false);
        sim.run(ms(1000));
        for address in sim.addresses.clone() {
            assert_eq!(sim.owner(address), 0, "it heard: its word counts");
        }
        assert!(sim.longest_silence <= ms(100), "{:?}", sim.longest_silence);

        let mut sim = settled(2, 6, seed);
        sim.cut.insert((0, 1));
        sim.run(Duration::from_secs(8));
        sim.reset_measures();
        sim.power_off(1);
        sim.heal();
        sim.run(ms(6000));
        for address in sim.addresses.clone() {
            assert_eq!(sim.owner(address), 0);
        }
        assert!(sim.longest_silence <= ms(3300), "{:?}", sim.longest_silence);
    }
}

/// One that two others never hear, and a fourth whose speaker was away for long enough that they gave each other up.
#[test]
fn a_relay_that_is_back_brings_those_together_that_gave_each_other_up() {
    for seed in 0..10 {
        let mut sim = settled(4, 6, seed);
        sim.deaf.extend([(0, 1), (1, 0), (0, 2), (2, 0)]);
        sim.run(ms(3000));
        sim.kill(3);
        sim.run(Duration::from_secs(10));
        sim.start(3);
        sim.run(ms(3000));
        for (n, other) in [(0, 1), (1, 0), (0, 2), (2, 0)] {
            let members = sim.hosts[n].speaker.as_ref().unwrap().members();
            let member = members.iter().find(|member| member.node == sim.hosts[other].name).unwrap();
            assert_eq!(member.state, MemberState::Alive, "seed {seed}: {members:?}");
        }
        for address in sim.addresses.clone() {
            let owner = sim.owner(address);
            let owned = |n: usize| sim.hosts[n].speaker.as_ref().unwrap().address(address).unwrap().owner;
            assert!((0..4).all(|n| owned(n).as_ref() == Some(&sim.hosts[owner].name)), "all know the owner");
        }
        assert!(sim.longest_double.is_zero(), "{:?}", sim.longest_double);
    }
}

/// A suspicion of which its object never hears, and whose timer is void because the one who suspects had to come back as
/// a new member meanwhile.
#[test]
fn a_suspicion_ends() {
    let mut sim = Sim::with_all(3, 3, 60);
    sim.run(ms(4096));
    sim.cut.extend([(0, 1), (0, 2)]);
    sim.run(ms(512));
    // What node-0 says of its suspicion is lost.
    sim.loss = 200;
    sim.set_link_up(1, false);
    sim.loss = 0;
    sim.heal();
    sim.set_link_up(1, true);
    sim.run(ms(5000));
    for host in &sim.hosts {
        let members = host.speaker.as_ref().unwrap().members();
        assert!(members.iter().all(|member| member.state == MemberState::Alive), "{members:?}");
    }
    for address in sim.addresses.clone() {
        sim.owner(address);
    }
}

#[test]
fn a_rebooted_node_waits_and_then_gets_its_own_back() {
    let mut sim = Sim::new(3, 1, 8);
    sim.settings.failback = Failback::Delayed(Duration::from_secs(60));
    sim.start_all();
    sim.run(ms(3000));
    let address = sim.addresses[0];
    let best = sim.owner(address);
    sim.power_off(best);
    sim.run(ms(5000));
    let second = sim.owner(address);
    sim.hosts[best].uptime = Duration::from_secs(10);
    sim.reset_measures();
    sim.start(best);
    sim.run(Duration::from_secs(70));
    assert_eq!(sim.owner(address), second);
    sim.run(Duration::from_secs(20));
    assert_eq!(sim.owner(address), best);
    assert!(sim.longest_silence.is_zero() && sim.longest_double <= EXCHANGE);
}

#[test]
fn a_stranger_is_found_before_the_first_claim_and_told_of_later() {
    let stranger = MacAddr::new([2, 0xee, 0, 0, 0, 1]);
    let mut sim = Sim::new(2, 1, 9);
    let address = sim.addresses[0];
    sim.set_stranger(Some((address, stranger)));
    sim.start_all();
    sim.run(ms(5000));
    assert!(sim.answers(address).is_empty());
    let conflicts = |sim: &Sim| {
        let all = sim.hosts.iter().flat_map(|host| &host.events);
        all.filter(|(_, event)| matches!(event, Event::AddressConflict { mac, .. } if *mac == stranger))
            .count()
    };
    assert_eq!(conflicts(&sim), 1);
    sim.set_stranger(None);
    sim.run(ms(11_000));
    let owner = sim.owner(address);
    // Later: one defence in ten seconds, and the address stays.
    for _ in 0..50 {
        sim.announce_stranger(address, stranger);
        sim.run(ms(100));
    }
    assert_eq!(sim.owner(address), owner);
    let speaker = sim.hosts[owner].speaker.as_ref().unwrap();
    assert_eq!(speaker.stats().defences, 1);
    assert_eq!(speaker.address(address).unwrap().conflict, Some(stranger));
    assert_eq!(conflicts(&sim), 2);
}

/// RFC 5227 section 2.1.1.
#[test]
fn a_stranger_that_probes_while_this_node_does_is_a_conflict() {
    let stranger = MacAddr::new([2, 0xee, 0, 0, 0, 1]);
    let mut sim = Sim::new(1, 1, 11);
    let address = sim.addresses[0];
    sim.start_all();
    while sim.role(0, address) != Role::Probing {
        sim.run(ms(10));
    }
    sim.probe_stranger(address, stranger);
    sim.run(ms(9000));
    assert_eq!(sim.role(0, address), Role::Conflict { mac: stranger });
    let told = sim.hosts[0]
        .events
        .iter()
        .filter(|(_, event)| matches!(event, Event::AddressConflict { .. }))
        .count();
    assert_eq!(told, 1);
    // It did not take the address.
    sim.run(ms(8000));
    assert_eq!(sim.owner(address), 0);
    // From here on whoever asks is answered, and that is no conflict.
    sim.probe_stranger(address, stranger);
    sim.run(ms(100));
    let status = sim.hosts[0].speaker.as_ref().unwrap().address(address).unwrap();
    assert_eq!((status.role, status.conflict), (Role::Owner, None));
}

#[test]
fn a_stranger_that_makes_up_its_mac_address_is_one_piece_of_news() {
    let mut sim = settled(2, 1, 12);
    let address = sim.addresses[0];
    for n in 0..200 {
        sim.announce_stranger(address, MacAddr::new([2, 0xee, 0, 0, 0, n]));
        sim.run(ms(5));
    }
    let owner = sim.owner(address);
    let told =
        sim.hosts[owner].events.iter().filter(|(_, event)| matches!(event, Event::AddressConflict { .. }));
    assert!((1..=2).contains(&told.count()));
    assert_eq!(sim.hosts[owner].speaker.as_ref().unwrap().stats().defences, 1);
}

#[test]
fn an_address_that_is_not_wanted_any_more_is_dropped() {
    let mut sim = settled(2, 2, 10);
    let address = sim.addresses.pop().unwrap();
    for n in 0..2 {
        sim.set_eligible(n, true);
    }
    sim.run(ms(100));
    assert!(sim.answers(address).is_empty());
    let kept = sim.addresses[0];
    let owner = sim.owner(kept);
    assert_eq!(sim.role(owner, kept), Role::Owner);
    assert!(sim.hosts.iter().all(|host| host.speaker.as_ref().unwrap().address(address).is_none()));
}
