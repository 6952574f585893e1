//! Layer 2 on a LAN: who may answer, who may gossip, and who was there before.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::time::Duration;

use openelb_lab::{
    eventually,
    lan::{FABRIC, Lan, Plan, Streams, figures},
};

const DEADLINE: Duration = Duration::from_secs(30);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn an_address_with_policy_local_goes_where_its_endpoint_goes() {
    let plan = Plan { local: true, ..Plan::new("l2local") };
    let mut lan = Lan::build(plan).unwrap();
    lan.set_nodes(&[], &[], &[1]).unwrap();
    for n in lan.nodes() {
        lan.start_node(n, &[]).unwrap();
    }
    let traffic = lan.traffic().unwrap();
    for address in lan.addresses.clone() {
        lan.await_owner(address, 1).unwrap();
    }
    for next in [2, 3, 1] {
        lan.capture.forget();
        let began = lan.now();
        lan.set_nodes(&[], &[], &[next]).unwrap();
        for address in lan.addresses.clone() {
            lan.await_owner(address, next).unwrap();
        }
        lan.await_settled(&traffic).unwrap();
        let (new, old) = lan.outages_since(&traffic, began);
        // Each node reads the manifests by itself: the old one may know before the new one does.
        assert!(
            new <= figures::loose(ms(1000)) && old <= figures::loose(ms(1000)),
            "{new:?} and {old:?} without an answer"
        );
        lan.check_one_owner_since(began).unwrap();
    }
    // Without an endpoint nobody answers.
    lan.set_nodes(&[], &[], &[]).unwrap();
    eventually("nobody answers", DEADLINE, || Ok(lan.owners().is_empty().then_some(()))).unwrap();
    lan.set_nodes(&[], &[], &[2]).unwrap();
    lan.await_owner(lan.addresses[0], 2).unwrap();
}

#[test]
fn the_only_node_with_endpoints_is_answered_for_while_its_speaker_is_gone() {
    const DOWNLOADS: usize = 4;
    let plan = Plan { local: true, ..Plan::new("l2sole") };
    let mut lan = Lan::build(plan).unwrap();
    lan.set_nodes(&[], &[], &[1]).unwrap();
    for n in lan.nodes() {
        lan.start_node(n, &[]).unwrap();
    }
    lan.await_members().unwrap();
    let traffic = lan.traffic().unwrap();
    for address in lan.addresses.clone() {
        lan.await_owner(address, 1).unwrap();
    }
    lan.await_settled(&traffic).unwrap();
    let streams = Streams::start(&lan, DOWNLOADS).unwrap();
    lan.capture.forget();
    let began = lan.now();
    lan.signal(1, "KILL").unwrap();
    for address in lan.addresses.clone() {
        eventually("an answer in the only node's name", DEADLINE, || {
            let answer = lan.capture.last_answer(address).filter(|one| one.at > began + 300_000_000);
            Ok(answer.filter(|one| one.mac == lan.mac(1) && one.from != "node-1"))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", lan.logs()));
    }
    lan.await_settled(&traffic).unwrap();
    streams.await_live().unwrap();
    lan.start_node(1, &[]).unwrap();
    lan.await_members().unwrap();
    for address in lan.addresses.clone() {
        lan.await_owner(address, 1).unwrap();
    }
    lan.await_settled(&traffic).unwrap();
    streams.await_live().unwrap();
    let (new, old) = lan.outages_since(&traffic, began);
    assert!(
        new <= figures::loose(ms(1200)) && old <= figures::loose(ms(1200)),
        "{new:?} and {old:?} without an answer"
    );
    lan.check_one_owner_since(began).unwrap();
    assert_eq!(streams.breaks(), [0; DOWNLOADS]);
}

#[test]
fn who_does_not_know_the_secret_is_no_member() {
    let mut lan = Lan::build(Plan::new("l2key")).unwrap();
    for n in [1, 2] {
        lan.start_node(n, &["--secret", "of all of us"]).unwrap();
    }
    lan.await_member_count(1, 1).unwrap();
    lan.await_all_answered().unwrap();
    lan.start_node(3, &["--secret", "another one"]).unwrap();
    lan.await_ready(3).unwrap();
    let rejected = "openelb_l2_gossip_rejected_total";
    eventually(
        "datagrams that are rejected",
        DEADLINE,
        || Ok((lan.metric(1, rejected)? > 5.0).then_some(())),
    )
    .unwrap();
    assert_eq!(lan.members(1).unwrap(), 1);
    assert_eq!(lan.members(3).unwrap(), 0);
    // They do not speak to each other, and hear each other's claims all the same.
    lan.watch_for(ms(3000));
    let since = lan.now();
    lan.watch_for(ms(1000));
    lan.check_one_owner_since(since).unwrap();
    // With the secret it is one of them.
    lan.signal(3, "KILL").unwrap();
    lan.await_exit(3).unwrap();
    lan.start_node(3, &["--secret", "of all of us"]).unwrap();
    lan.await_members().unwrap();
}

/// A host on the LAN that is no node, with these addresses.
fn stranger(lan: &Lan, addresses: &[&str]) -> String {
    lan.lab
        .network(|network| {
            network.host("stranger");
            network.plug(FABRIC, ("stranger", "eth0", addresses));
        })
        .unwrap();
    lan.lab.run("stranger", &["cat", "/sys/class/net/eth0/address"]).unwrap().trim().to_owned()
}

/// What is said of conflicts, in the events of any node.
fn conflicts(lan: &Lan) -> Vec<String> {
    let mut found = Vec::new();
    for n in lan.nodes() {
        let Ok(events) = lan.read_api(n, "events") else { continue };
        for event in events["items"].as_array().into_iter().flatten() {
            if event["reason"] == "AddressConflict" {
                found.push(event.to_string());
            }
        }
    }
    found
}

#[test]
fn an_address_that_a_stranger_has_is_not_announced_until_it_is_gone() {
    let mut lan = Lan::build(Plan::new("l2first")).unwrap();
    let (four, six) = (lan.addresses[0], lan.addresses[2]);
    let mac = stranger(&lan, &["192.168.50.3/24", &format!("{four}/32"), &format!("{six}/128")]);
    for n in lan.nodes() {
        lan.start_node(n, &[]).unwrap();
    }
    for address in [lan.addresses[1], lan.addresses[3]] {
        eventually("an owner of the others", DEADLINE, || lan.owner(address).map(Some)).unwrap();
    }
    eventually("an event that names the stranger", DEADLINE, || {
        let found = conflicts(&lan);
        let both = [four, six]
            .iter()
            .all(|address| found.iter().any(|one| one.contains(&address.to_string()) && one.contains(&mac)));
        anyhow::ensure!(both, "{found:?}");
        Ok(Some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", lan.logs()));
    for address in [four, six] {
        let answer = lan.capture.last_answer(address);
        assert!(answer.is_none_or(|one| lan.node_with(one.mac).is_none()), "{address} is announced");
        let claims = lan.capture.claimed_since(address, 0);
        assert!(
            claims.iter().all(|one| lan.node_with(one.mac).is_none()),
            "{address} is announced: {claims:?}"
        );
    }
    lan.lab.script("ip netns del stranger").unwrap();
    for address in [four, six] {
        eventually("an owner when it is gone", DEADLINE, || lan.owner(address).map(Some)).unwrap();
    }
}

#[test]
fn an_address_that_a_stranger_takes_is_defended_once_in_ten_seconds() {
    let lan = Lan::start(Plan::new("l2later")).unwrap();
    let address = lan.addresses[0];
    let (owner, _) = eventually("an owner", DEADLINE, || lan.owner(address).map(Some)).unwrap();
    // Past the burst of its claim.
    eventually("the end of the burst", DEADLINE, || {
        let recent = lan.capture.claimed_since(address, lan.now().saturating_sub(2_500_000_000));
        Ok(recent.is_empty().then_some(()))
    })
    .unwrap();
    let mac = stranger(&lan, &[&format!("{address}/32")]);
    let began = lan.now();
    let text = address.to_string();
    for _ in 0..12 {
        let _ = lan.lab.run("stranger", &["arping", "-U", "-c", "2", "-w", "1", "-I", "eth0", &text]);
    }
    let claims = lan.capture.claimed_since(address, began);
    let of = |mac: openelb_l2::MacAddr| claims.iter().filter(|one| one.mac == mac).count();
    let (defences, attacks) = (of(lan.mac(owner)), of(mac.parse().unwrap()));
    assert!(attacks >= 8, "the stranger claimed {attacks} times: {}", lan.logs());
    // Each is an ARP request and an ARP reply.
    assert!((2..=4).contains(&defences), "{defences} frames against {attacks}");
    eventually("an event that names the stranger", DEADLINE, || {
        Ok(conflicts(&lan).iter().any(|one| one.contains(&text) && one.contains(&mac)).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", lan.logs()));
    assert_eq!(lan.owner(address).unwrap_or_default(), owner, "it goes on");
}
