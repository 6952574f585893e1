//! Layer 2 on a LAN: never two MAC addresses in answers to questions that were sent more than 50 ms after a claim.
//!
//! A short form of each; with `OPENELB_LAYER2_TRIALS` set, the long one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::{net::IpAddr, time::Duration};

use openelb_l2::{ownership::rendezvous, speaker::NodeName};
use openelb_lab::{
    eventually,
    lan::{Lan, Plan, Streams, figures, figures::Figures, node},
};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// How often, in a test and in a soak.
fn times(test: usize, soak: usize) -> usize {
    if figures::is_soak() { soak } else { test }
}

/// The node to which an address belongs when all are there.
fn best(lan: &Lan, address: IpAddr) -> u8 {
    let score = |n: &u8| rendezvous::score(address, &NodeName::new(&node(*n)).unwrap());
    lan.nodes().into_iter().max_by_key(score).unwrap()
}

/// Waits until somebody answers for everything, in whoever's name.
fn answered(lan: &Lan) {
    lan.await_all_answered().unwrap();
}

#[test]
fn a_partition_heals_to_one_owner() {
    let lan = Lan::start(Plan::new("l2part")).unwrap();
    let traffic = lan.traffic().unwrap();
    for _ in 0..times(2, 20) {
        for alone in [vec![3], vec![1], vec![2, 3]] {
            for n in &alone {
                lan.part(*n, *n).unwrap();
            }
            for n in &alone {
                lan.await_member_count(*n, 0).unwrap();
                lan.await_gone(*n).unwrap();
            }
            answered(&lan);
            // Until each part has claimed what it misses.
            lan.watch_for(ms(1200));
            lan.capture.forget();
            for n in &alone {
                lan.plug_in(*n).unwrap();
            }
            let healed = lan.now();
            lan.await_members().unwrap();
            lan.await_settled(&traffic).unwrap();
            lan.watch_for(ms(300));
            lan.check_one_owner_since(healed).unwrap();
        }
    }
}

#[test]
fn a_node_that_is_heard_by_clients_only_stays_or_goes_for_good() {
    let lan = Lan::start(Plan::new("l2mute")).unwrap();
    let traffic = lan.traffic().unwrap();
    let mut figures = Figures::new("one-way cut: until one answers");
    for _ in 0..times(2, 20) {
        let victim = lan.main_owner().unwrap();
        lan.capture.forget();
        let began = lan.now();
        lan.mute(victim).unwrap();
        for n in lan.nodes().into_iter().filter(|n| *n != victim) {
            lan.await_member_count(n, 1).unwrap();
        }
        // Those that do not hear it claim, it claims against them and learns that it is not heard.
        lan.watch_for(ms(2500));
        let doubles = lan.addresses.iter().flat_map(|address| lan.capture.doubles_since(*address, began));
        let doubles: Vec<_> = doubles.collect();
        let longest = doubles.iter().map(|one| one.after).max().unwrap_or_default();
        figures.add(longest);
        let since = lan.now() - 500_000_000;
        lan.check_one_owner_since(since).unwrap();
        lan.unmute().unwrap();
        let healed = lan.now();
        lan.await_members().unwrap();
        lan.await_settled(&traffic).unwrap();
        lan.watch_for(ms(300));
        lan.check_one_owner_since(healed).unwrap();
    }
    // Three times as much is more than was watched.
    figures.judge_strictly(ms(1500), ms(1500)).unwrap();
}

/// Suspends the owner's speaker, and lets it go on.
fn suspended(name: &str, conf: &str, long: Duration) {
    let lan = Lan::start(Plan::new(name).conf(conf)).unwrap();
    let traffic = lan.traffic().unwrap();
    for _ in 0..times(1, 3) {
        let victim = lan.main_owner().unwrap();
        let owned = lan.await_owners_without(&[]).unwrap()[&victim].clone();
        lan.capture.forget();
        let began = lan.now();
        lan.signal(victim, "STOP").unwrap();
        let others = |address: &IpAddr| {
            let answer = lan.capture.last_answer(*address).filter(|one| one.at > began + 300_000_000);
            answer.is_some_and(|one| one.from != format!("node-{victim}"))
        };
        eventually("answers of another node", Duration::from_secs(20), || {
            Ok(owned.iter().all(others).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", lan.logs()));
        lan.watch_for(long);
        answered(&lan);
        let back = lan.now();
        lan.signal(victim, "CONT").unwrap();
        lan.await_members().unwrap();
        lan.await_settled(&traffic).unwrap();
        // The questions of the clients waited for it, and were answered by another meanwhile.
        let discarded = lan.metric(victim, "openelb_l2_discarded_frames_total").unwrap();
        assert!(discarded > 0.0, "what waited was not thrown away");
        lan.watch_for(ms(500));
        lan.check_one_owner_since(began).unwrap();
        let (new, old) = lan.outages_since(&traffic, back);
        assert!(
            new <= figures::loose(ms(300)) && old <= figures::loose(ms(300)),
            "{new:?} and {old:?} without an answer after SIGCONT"
        );
    }
}

#[test]
fn a_suspended_owner_wakes_up_to_a_new_one() {
    suspended(
        "l2stop0",
        "{standIn: {timeout: 0s}}",
        Duration::from_secs(if figures::is_soak() { 30 } else { 1 }),
    );
}

#[test]
fn a_suspended_owner_wakes_up_after_its_stand_in_took_over() {
    let (conf, long) = if figures::is_soak() { ("5s", 30) } else { ("1s", 2) };
    suspended("l2stop5", &format!("{{standIn: {{timeout: {conf}}}}}"), Duration::from_secs(long));
}

#[test]
fn a_suspended_owner_wakes_up_beside_its_stand_in() {
    suspended("l2stop", "{}", Duration::from_secs(if figures::is_soak() { 30 } else { 1 }));
}

#[test]
fn speakers_that_are_killed_one_after_the_other_keep_their_addresses() {
    let mut lan = Lan::start(Plan::new("l2kills")).unwrap();
    let traffic = lan.traffic().unwrap();
    let owners = lan.await_owners_without(&[]).unwrap();
    for _ in 0..times(2, 20) {
        lan.capture.forget();
        let began = lan.now();
        for n in lan.nodes() {
            lan.signal(n, "KILL").unwrap();
            lan.await_exit(n).unwrap();
            lan.start_node(n, &[]).unwrap();
            lan.await_ready(n).unwrap();
            lan.await_members().unwrap();
        }
        lan.await_settled(&traffic).unwrap();
        lan.check_one_owner_since(began).unwrap();
        assert_eq!(lan.await_owners_without(&[]).unwrap(), owners);
    }
}

#[test]
fn a_reboot_breaks_a_connection_once() {
    let conf = "{joinDelay: 2s}";
    let mut lan = Lan::start(Plan::new("l2boot").conf(conf)).unwrap();
    let traffic = lan.traffic().unwrap();
    let (mut resets, mut more) = (Vec::new(), Vec::new());
    for trial in 0..times(1, 10) {
        let streams = Streams::start(&lan, 12).unwrap();
        let victim = lan.main_owner().unwrap();
        lan.set_conf(conf).unwrap();
        lan.capture.forget();
        let began = lan.now();
        // The machine is off: neither its speaker nor its kernel answers.
        lan.cut_off(victim).unwrap();
        lan.signal(victim, "KILL").unwrap();
        lan.await_exit(victim).unwrap();
        lan.await_gone(victim).unwrap();
        let owners = lan.await_owners_without(&[]).unwrap();
        streams.await_live().unwrap();
        lan.plug_in(victim).unwrap();
        lan.start_node(victim, &["--host-uptime", "0s"]).unwrap();
        lan.await_members().unwrap();
        lan.await_settled(&traffic).unwrap();
        // Past joinDelay: it may own again, and waits for the failback that is minutes away.
        lan.watch_for(ms(2500));
        assert_eq!(lan.await_owners_without(&[]).unwrap(), owners, "in trial {trial}");
        streams.await_live().unwrap();
        resets.extend(streams.breaks().into_iter().max());
        lan.check_one_owner_since(began).unwrap();

        // And back to where the addresses belong: connections that are moved once more break once more at most.
        lan.capture.forget();
        let before = streams.breaks();
        let began = lan.now();
        lan.set_conf("{joinDelay: 2s, failback: Immediate}").unwrap();
        for address in lan.addresses.clone() {
            lan.await_owner(address, best(&lan, address)).unwrap();
        }
        lan.await_settled(&traffic).unwrap();
        lan.check_one_owner_since(began).unwrap();
        let (new, old) = lan.outages_since(&traffic, began);
        assert!(
            new <= figures::loose(ms(100)) && old <= figures::loose(ms(100)),
            "{new:?} and {old:?} without an answer through the failback"
        );
        lan.watch_for(ms(2500));
        streams.await_live().unwrap();
        more.extend(before.iter().zip(streams.breaks()).map(|(before, after)| after - before).max());
    }
    figures::judge_counts("reboot and return: resets of a connection", &resets, 1).unwrap();
    figures::judge_counts("failback after it: resets of a connection", &more, 1).unwrap();
}
