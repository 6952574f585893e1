//! The whole driver, in a network namespace of its own, at one end of a cable.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use super::{
    super::{
        handle::{AddressView, DriverConfig, DriverHandle, Problem, WantedAddress},
        packet_socket::{
            Batch, PacketSockets,
            tests::{link, run, with_a_cable},
        },
        select::NoLink,
    },
    spawn,
};
use crate::{
    announcer,
    speaker::{NodeName, Role, Settings, SpeakerConfig},
};

const DEADLINE: Duration = Duration::from_secs(10);

/// A speaker that is alone, does not ask first, and says once what it claims.
fn speaker(addresses: &[IpAddr]) -> DriverHandle {
    let gossip = "127.0.0.1:7946".parse().expect("an address");
    let config = SpeakerConfig::new(NodeName::new("node-1").expect("a name"), gossip);
    let settings =
        Settings { probes: 0, gratuitous: Vec::new(), refresh: Duration::ZERO, ..Settings::default() };
    let bind = "0.0.0.0:0".parse().expect("an address");
    let handle = spawn(DriverConfig { settings, bind, ..DriverConfig::new(config) }).expect("a thread");
    handle.set_peers(Vec::new());
    let wanted = |address: &IpAddr| WantedAddress::new(*address, "near".parse().expect("an interface"));
    handle.set_addresses(addresses.iter().map(wanted).collect());
    handle
}

#[test]
fn each_of_thousands_that_are_claimed_at_once_is_heard_though_the_link_is_slow() {
    with_a_cable(|runtime| {
        run("tc", "qdisc replace dev near root tbf rate 10mbit burst 10k limit 20k");
        let v4 = |n: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + n));
        let v6 = |n: u32| IpAddr::from(Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | u128::from(n)));
        let addresses: Vec<_> = (1..=2000).flat_map(|n| [v4(n), v6(n)]).collect();
        let far = PacketSockets::open(link("far")).expect("far");
        far.set_addresses(&addresses).expect("a filter");
        let mut left: HashSet<_> = addresses.iter().copied().collect();
        let handle = speaker(&addresses);
        let mut batch = Batch::new();
        let all = async {
            while !left.is_empty() {
                std::future::poll_fn(|context| far.poll_ready(context)).await;
                far.receive(&mut batch, |batch| {
                    batch.answer(|frame| {
                        left.remove(&announcer::announced(frame)?);
                        None
                    });
                });
            }
        };
        let done = runtime.block_on(async { tokio::time::timeout(DEADLINE, all).await });
        assert!(done.is_ok(), "{} of {} were not announced", left.len(), addresses.len());
        drop(handle);
    });
}

#[test]
fn an_interface_that_becomes_a_port_of_a_bridge_loses_its_addresses() {
    with_a_cable(|runtime| {
        let address: IpAddr = "192.0.2.100".parse().expect("an address");
        let handle = speaker(&[address]);
        let mut snapshots = handle.watch();
        let mut until = |what: &str, wanted: fn(&AddressView) -> bool| {
            let seen = snapshots.wait_for(|snapshot| snapshot.addresses.iter().any(wanted));
            let seen = runtime.block_on(async { tokio::time::timeout(DEADLINE, seen).await });
            seen.unwrap_or_else(|_| panic!("{what}")).expect("it runs");
        };
        let owns = |view: &AddressView| view.status.role == Role::Owner;
        until("it owns the address", owns);
        run("ip", "link add br0 type bridge");
        run("ip", "link set near master br0");
        until("it does not own what it cannot hear", |view| {
            let told = |problem: &Problem| matches!(problem, Problem::NoLink(NoLink::Port(_)));
            view.status.role == Role::Standby && !view.status.candidate && view.problems.iter().any(told)
        });
        run("ip", "link set near nomaster");
        until("it owns it again", owns);
    });
}
