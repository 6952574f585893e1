//! Nodes that are heard and do not hear: whichever frame is lost, and whatever the schedule of announcements is.
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

use std::{collections::BTreeSet, time::Duration};

use sim::{Family, Sim, ms};

const BURSTS: [&[u64]; 5] = [&[], &[0], &[0, 100, 300], &[0, 100, 1000], &[0, 100, 300, 1000, 2000, 4000]];

fn settled(nodes: usize, seed: u64, burst: &[u64], refresh: u64) -> Sim {
    settled_of(Family::V4, nodes, seed, burst, refresh)
}

fn settled_of(family: Family, nodes: usize, seed: u64, burst: &[u64], refresh: u64) -> Sim {
    let mut sim = Sim::of_family(family, nodes, 6, seed);
    sim.settings.gratuitous = burst.iter().copied().map(ms).collect();
    sim.settings.refresh = Duration::from_secs(refresh);
    sim.start_all();
    sim.run(ms(3000));
    for address in sim.addresses.clone() {
        sim.owner(address);
    }
    sim
}

/// For how many tenths of a second each address is answered with more than one MAC address.
fn doubles(sim: &mut Sim, time: Duration) -> Vec<u32> {
    let mut doubles = vec![0; sim.addresses.len()];
    let end = sim.now + time;
    while sim.now < end {
        sim.run(ms(100));
        for (n, address) in sim.addresses.clone().into_iter().enumerate() {
            let macs: BTreeSet<_> = sim.answers(address).into_iter().map(|(_, mac)| mac).collect();
            doubles[n] += u32::from(macs.len() > 1);
        }
    }
    doubles
}

/// The others do not hear the owner.
#[test]
fn an_owner_that_is_not_heard_gives_way_with_every_schedule_and_whichever_claim_is_lost() {
    for burst in BURSTS {
        for lost in 0..8 {
            for nodes in [2, 3] {
                let mut sim = settled(nodes, lost, burst, 0);
                let owner = sim.owner(sim.addresses[0]);
                sim.cut = (0..nodes).filter(|n| *n != owner).map(|n| (owner, n)).collect();
                // The n-th frame that the owner would hear of each claimed address.
                sim.lost = Some((owner, lost as usize));
                let doubles = doubles(&mut sim, Duration::from_secs(20));
                let most = doubles.iter().max().unwrap();
                assert!(*most <= 22, "{burst:?}, {lost} lost, {nodes} nodes: {doubles:?} times 100 ms");
            }
        }
    }
}

/// A partition that ends in one direction only: nobody claims anew.
#[test]
fn owners_on_both_sides_of_a_partition_that_heals_one_way_become_one() {
    for burst in BURSTS {
        for (from, to) in [(0, 1), (1, 0)] {
            let mut sim = settled(2, 3, burst, 0);
            sim.partition(&[0]);
            sim.run(Duration::from_secs(10));
            sim.cut.remove(&(from, to));
            sim.run(Duration::from_secs(20));
            let doubles = doubles(&mut sim, Duration::from_secs(400));
            assert!(doubles.iter().all(|count| *count == 0), "{burst:?}: {doubles:?} times 100 ms");
        }
    }
}

/// Left to a deaf node, an address stays there as long as it claims it.
#[test]
fn an_address_is_not_taken_back_from_a_node_that_stays_deaf() {
    for seed in 0..8 {
        let family = if seed % 2 == 0 { Family::V4 } else { Family::V6 };
        let mut sim = settled_of(family, 2, seed, &[0, 100, 1000], 60);
        sim.cut.insert((0, 1));
        sim.run(Duration::from_secs(3));
        // Without an answer its kernel soon does not know any more where to send gossip to.
        sim.deaf.insert((1, 0));
        let doubles = doubles(&mut sim, Duration::from_secs(600));
        assert!(doubles.iter().all(|count| *count == 0), "seed {seed}: {doubles:?} times 100 ms");
    }
}

/// Frames that are sent in this time.
fn frames(sim: &mut Sim, time: Duration) -> u64 {
    let before = sim.frames;
    sim.run(time);
    sim.frames - before
}

/// However many addresses there are, and whoever is missed: five frames every 400 ms, while each hears what it says; and
/// not more than four times as many where up to twelve nodes miss it.
#[test]
fn whoever_misses_another_says_few_claims_a_second() {
    let minute = Duration::from_secs(60);
    for (family, nodes, most) in [(Family::V4, 3, 2), (Family::V6, 3, 2), (Family::V4, 12, 4)] {
        let mut sim = Sim::of_family(family, nodes, 100, 1);
        sim.settings.refresh = Duration::ZERO;
        sim.start_all();
        sim.run(Duration::from_secs(10));
        assert_eq!(frames(&mut sim, minute), 0, "all is well");
        sim.power_off(2);
        sim.run(Duration::from_secs(20));
        let missed = frames(&mut sim, minute);
        assert!(
            (1..=most * 5 * 151).contains(&missed),
            "{nodes} nodes: {missed} frames for one that is gone"
        );
        sim.run(Duration::from_secs(600));
        assert_eq!(frames(&mut sim, minute), 0, "it is gone for good");
    }
}
