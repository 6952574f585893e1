//! Layer 2 on a LAN: addresses spread over the nodes, and stay where they are when another node is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use openelb_l2::{ownership::rendezvous, speaker::NodeName};
use openelb_lab::lan::{Lan, Plan, figures, node};

const NODES: u8 = 10;
const ADDRESSES: u8 = 100;

fn by_address(owners: &BTreeMap<u8, Vec<IpAddr>>) -> BTreeMap<IpAddr, u8> {
    owners.iter().flat_map(|(node, all)| all.iter().map(|address| (*address, *node))).collect()
}

#[test]
fn a_hundred_addresses_spread_over_ten_nodes_and_only_those_of_a_lost_one_move() {
    // So many questions as two addresses are asked otherwise: all of them come to all nodes.
    let interval = Duration::from_millis(150);
    let plan = Plan { nodes: NODES, v4: ADDRESSES, v6: 0, interval, ..Plan::new("l2spread") };
    let lan = Lan::start(plan).unwrap();
    lan.await_members().unwrap();
    let before = lan.await_owners_without(&[]).unwrap();
    // Datagrams go out as seldom as questions.
    let began = Instant::now();
    let traffic = lan.traffic().unwrap();
    let sent = traffic.sent(lan.addresses[0]);
    let due = began.elapsed().as_millis() / interval.as_millis() + 1;
    assert!(sent > 0 && sent as u128 <= due, "{sent} datagrams to an address, {due} were due");
    drop(traffic);
    let most = before.values().map(Vec::len).max().unwrap();
    let times = format!("{:.1} × the mean", most as f64 / 10.0);
    figures::write_row(figures::SPREAD, 1, [&times, &times, &"1.9 × the mean"]).unwrap();
    assert!(most <= 19, "{most} of {ADDRESSES} addresses at one of {NODES} nodes");

    let victim = lan.main_owner().unwrap();
    let cut = lan.now();
    lan.cut_off(victim).unwrap();
    let after = lan.await_owners_without(&[victim]).unwrap();
    let (before, after) = (by_address(&before), by_address(&after));
    for (address, owner) in &before {
        if *owner != victim {
            assert_eq!(after.get(address), Some(owner), "{address} was at node-{owner}, which is there");
        }
    }
    lan.check_one_owner_since(cut).unwrap();

    // Back, it claims what it never gave up; of two that claim the better by the hash stays, and nothing else moves.
    lan.plug_in(victim).unwrap();
    // What was claimed before did not reach it.
    let back = lan.now();
    lan.await_members().unwrap();
    let score = |n: u8, address: IpAddr| rendezvous::score(address, &NodeName::new(&node(n)).unwrap());
    for (address, owner) in &after {
        let claims = if before[address] == victim { vec![victim, *owner] } else { vec![*owner] };
        let better = claims.into_iter().max_by_key(|n| score(*n, *address)).unwrap();
        lan.await_owner(*address, better).unwrap();
    }
    lan.check_one_owner_since(back).unwrap();
}
