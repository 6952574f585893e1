//! Layer 2 on a LAN: how long nobody answers when something fails, and what happens to connections.
//!
//! Five trials each with loose ceilings; with `OPENELB_LAYER2_TRIALS=50` fifty, and the ceilings that are promised.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::time::Duration;

use openelb_lab::{
    eventually,
    lan::{Gossip, Lan, Plan, Streams, figures, figures::Figures},
};

const DOWNLOADS: usize = 12;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_node_that_is_cut_off_is_replaced() {
    let lan = Lan::start(Plan::new("l2cut")).unwrap();
    let traffic = lan.traffic().unwrap();
    let (mut new, mut old) =
        (Figures::new("node cut off: new clients"), Figures::new("node cut off: clients"));
    for _ in 0..figures::trials() {
        let victim = lan.main_owner().unwrap();
        lan.capture.forget();
        let began = lan.now();
        lan.cut_off(victim).unwrap();
        lan.await_gone(victim).unwrap();
        lan.await_settled(&traffic).unwrap();
        let (asked, sent) = lan.outages_since(&traffic, began);
        new.add(asked);
        old.add(sent);
        lan.check_one_owner_since(began).unwrap();
        lan.plug_in(victim).unwrap();
        // What was claimed before did not reach it.
        let back = lan.now();
        lan.await_members().unwrap();
        lan.await_settled(&traffic).unwrap();
        lan.check_one_owner_since(back).unwrap();
    }
    new.judge(ms(1200), ms(2000)).unwrap();
    old.judge(ms(1200), ms(2000)).unwrap();
}

#[test]
fn a_link_that_goes_down_is_replaced_at_once() {
    // The nodes reach each other elsewhere, so that the owner can say so.
    let plan = Plan { gossip: Gossip::Podnet, ..Plan::new("l2down") };
    let lan = Lan::start(plan).unwrap();
    let traffic = lan.traffic().unwrap();
    let (mut new, mut old) = (Figures::new("link down: new clients"), Figures::new("link down: clients"));
    for _ in 0..figures::trials() {
        let victim = lan.main_owner().unwrap();
        lan.capture.forget();
        let began = lan.now();
        lan.set_cable(victim, false).unwrap();
        lan.await_gone(victim).unwrap();
        lan.await_settled(&traffic).unwrap();
        let (asked, sent) = lan.outages_since(&traffic, began);
        new.add(asked);
        old.add(sent);
        lan.set_cable(victim, true).unwrap();
        // It may be the next owner.
        lan.await_reach(victim).unwrap();
        lan.await_settled(&traffic).unwrap();
        lan.check_one_owner_since(began).unwrap();
    }
    new.judge(ms(300), ms(300)).unwrap();
    old.judge(ms(300), ms(300)).unwrap();
}

#[test]
fn a_speaker_that_is_killed_costs_no_connection() {
    let mut lan = Lan::start(Plan::new("l2kill")).unwrap();
    let traffic = lan.traffic().unwrap();
    let streams = Streams::start(&lan, DOWNLOADS).unwrap();
    let (mut new, mut old) =
        (Figures::new("speaker killed: new clients"), Figures::new("speaker killed: clients"));
    let mut broken = Vec::new();
    for _ in 0..figures::trials() {
        let before: usize = streams.breaks().iter().sum();
        let victim = lan.main_owner().unwrap();
        let owners = lan.await_owners_without(&[]).unwrap();
        lan.capture.forget();
        let began = lan.now();
        lan.signal(victim, "KILL").unwrap();
        // New clients are told the owner's MAC address, by another node.
        for address in &owners[&victim] {
            eventually("an answer in the owner's name", Duration::from_secs(10), || {
                let answer = lan.capture.last_answer(*address).filter(|one| one.at > began + 300_000_000);
                Ok(answer.filter(|one| one.mac == lan.mac(victim) && one.from != format!("node-{victim}")))
            })
            .unwrap_or_else(|error| panic!("{error:#}\n{}", lan.logs()));
        }
        lan.await_settled(&traffic).unwrap();
        streams.await_live().unwrap();
        let (asked, sent) = lan.outages_since(&traffic, began);
        new.add(asked);
        old.add(sent);
        lan.start_node(victim, &[]).unwrap();
        lan.await_members().unwrap();
        eventually("the owner's own answers", Duration::from_secs(10), || {
            let own = |address: &std::net::IpAddr| {
                lan.capture.last_answer(*address).is_some_and(|one| one.from == format!("node-{victim}"))
            };
            Ok(owners[&victim].iter().all(own).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", lan.logs()));
        lan.await_settled(&traffic).unwrap();
        streams.await_live().unwrap();
        assert_eq!(lan.await_owners_without(&[]).unwrap(), owners, "they stay where they were");
        lan.check_one_owner_since(began).unwrap();
        broken.push(streams.breaks().iter().sum::<usize>() - before);
    }
    figures::judge_counts("speaker killed: broken downloads of 12", &broken, 0).unwrap();
    new.judge(ms(1200), ms(1200)).unwrap();
    old.judge(ms(1200), ms(1200)).unwrap();
}

#[test]
fn a_rolling_update_breaks_nothing() {
    let mut lan = Lan::start(Plan::new("l2roll").flags("--on-stop Restart")).unwrap();
    let traffic = lan.traffic().unwrap();
    let streams = Streams::start(&lan, DOWNLOADS).unwrap();
    let (mut new, mut old) =
        (Figures::new("rolling update: new clients"), Figures::new("rolling update: clients"));
    let mut broken = Vec::new();
    for _ in 0..figures::trials() {
        let before: usize = streams.breaks().iter().sum();
        let owners = lan.await_owners_without(&[]).unwrap();
        lan.capture.forget();
        let began = lan.now();
        for n in lan.nodes() {
            lan.signal(n, "TERM").unwrap();
            lan.await_exit(n).unwrap();
            lan.start_node(n, &[]).unwrap();
            lan.await_ready(n).unwrap();
            lan.await_members().unwrap();
        }
        lan.await_settled(&traffic).unwrap();
        streams.await_live().unwrap();
        let (asked, sent) = lan.outages_since(&traffic, began);
        new.add(asked);
        old.add(sent);
        assert_eq!(lan.await_owners_without(&[]).unwrap(), owners, "they stay where they were");
        lan.check_one_owner_since(began).unwrap();
        broken.push(streams.breaks().iter().sum::<usize>() - before);
    }
    figures::judge_counts("rolling update: broken downloads of 12", &broken, 0).unwrap();
    new.judge(ms(200), ms(200)).unwrap();
    old.judge(ms(200), ms(200)).unwrap();
}

#[test]
fn a_planned_move_is_hardly_noticed() {
    let flags = "--exclude-cordoned-nodes";
    let mut lan = Lan::start(Plan::new("l2plan").flags(flags)).unwrap();
    let traffic = lan.traffic().unwrap();
    let nodes = lan.nodes();
    for what in ["SIGTERM", "cordon", "exclude label"] {
        let mut figures =
            [Figures::new(&format!("{what}: new clients")), Figures::new(&format!("{what}: clients"))];
        for _ in 0..figures::trials() {
            let victim = lan.main_owner().unwrap();
            lan.capture.forget();
            let began = lan.now();
            match what {
                "SIGTERM" => lan.signal(victim, "TERM").unwrap(),
                "cordon" => lan.set_nodes(&[victim], &[], &nodes).unwrap(),
                _ => lan.set_nodes(&[], &[victim], &nodes).unwrap(),
            }
            lan.await_gone(victim).unwrap();
            if what == "SIGTERM" {
                lan.await_exit(victim).unwrap();
            }
            lan.await_settled(&traffic).unwrap();
            let (asked, sent) = lan.outages_since(&traffic, began);
            figures[0].add(asked);
            figures[1].add(sent);
            if what == "SIGTERM" {
                lan.start_node(victim, &[]).unwrap();
                lan.await_ready(victim).unwrap();
                lan.await_members().unwrap();
            } else {
                lan.set_nodes(&[], &[], &nodes).unwrap();
            }
            lan.await_settled(&traffic).unwrap();
            lan.check_one_owner_since(began).unwrap();
        }
        for one in figures {
            // The old owner answers until it hears the new one: most of the time nobody waits at all.
            one.judge(ms(10), ms(100)).unwrap();
        }
    }
}
