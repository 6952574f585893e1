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

/// How often the test is begun anew where the machine itself stood still: addresses may move then.
const ATTEMPTS: u8 = 3;

/// Waits until every address has an owner, and judges how they spread.
fn spread(lan: &Lan, interval: Duration) -> BTreeMap<IpAddr, u8> {
    lan.await_members().unwrap();
    let owners = lan.await_owners_without(&[]).unwrap();
    // Datagrams go out as seldom as questions.
    let began = Instant::now();
    let traffic = lan.traffic().unwrap();
    let sent = traffic.sent(lan.addresses[0]);
    let due = began.elapsed().as_millis() / interval.as_millis() + 1;
    assert!(sent > 0 && sent as u128 <= due, "{sent} datagrams to an address, {due} were due");
    let most = owners.values().map(Vec::len).max().unwrap();
    let times = format!("{:.1} × the mean", most as f64 / 10.0);
    figures::write_row(figures::SPREAD, 1, [&times, &times, &"1.9 × the mean"]).unwrap();
    assert!(most <= 19, "{most} of {ADDRESSES} addresses at one of {NODES} nodes");
    by_address(&owners)
}

/// A node is cut off: what others have stays with them.
///
/// # Errors
/// An address moved that was not the node's.
fn lose(lan: &Lan, victim: u8, before: &BTreeMap<IpAddr, u8>) -> anyhow::Result<BTreeMap<IpAddr, u8>> {
    let cut = lan.now();
    lan.cut_off(victim).unwrap();
    let after = by_address(&lan.await_owners_without(&[victim]).unwrap());
    lan.check_one_owner_since(cut).unwrap();
    for (address, owner) in before.iter().filter(|(_, owner)| **owner != victim) {
        let now = after.get(address);
        anyhow::ensure!(
            now == Some(owner),
            "{address} was at node-{owner}, which is there, and is at {now:?}"
        );
    }
    Ok(after)
}

/// Back, it claims what it never gave up; of two that claim the better by the hash stays, and nothing else moves.
///
/// # Errors
/// An address is elsewhere.
fn regain(
    lan: &Lan,
    victim: u8,
    before: &BTreeMap<IpAddr, u8>,
    after: &BTreeMap<IpAddr, u8>,
) -> anyhow::Result<()> {
    lan.plug_in(victim).unwrap();
    // What was claimed before did not reach it.
    let back = lan.now();
    lan.await_members().unwrap();
    let score = |n: u8, address: IpAddr| rendezvous::score(address, &NodeName::new(&node(n)).unwrap());
    let placed = after.iter().try_for_each(|(address, owner)| {
        let claims = if before[address] == victim { vec![victim, *owner] } else { vec![*owner] };
        let better = claims.into_iter().max_by_key(|n| score(*n, *address)).unwrap();
        lan.await_owner(*address, better).map(drop)
    });
    lan.await_owners_without(&[]).unwrap();
    lan.check_one_owner_since(back).unwrap();
    placed
}

#[test]
fn a_hundred_addresses_spread_over_ten_nodes_and_only_those_of_a_lost_one_move() {
    // So many questions as two addresses are asked otherwise: all of them come to all nodes.
    let interval = Duration::from_millis(150);
    for attempt in 1.. {
        let plan = Plan { nodes: NODES, v4: ADDRESSES, v6: 0, interval, ..Plan::new("l2spread") };
        let lan = Lan::start(plan).unwrap();
        let before = spread(&lan, interval);
        let victim = lan.main_owner().unwrap();
        let logs = lan.log_lengths();
        let moved = lose(&lan, victim, &before).and_then(|after| regain(&lan, victim, &before, &after));
        let Err(error) = moved else { return };
        // Two owners, and none, are never excused. That an address moved is, where nodes that were there lost sight of each
        // other since the cut.
        let excuse = lan.lost_sight(victim, &logs);
        assert!(attempt < ATTEMPTS && !excuse.is_empty(), "attempt {attempt}, {excuse:?}: {error:?}");
    }
}
