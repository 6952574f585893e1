//! The whole way of a request through the driver: from the packet socket to the packet socket, no allocation, and nothing
//! that is logged, at whatever level.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::{
    alloc::System,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use openelb_l2::{
    InterfaceSelector, MacAddr,
    net::{self, DriverConfig, WantedAddress},
    solicited_node_multicast,
    speaker::{NodeName, Role, SpeakerConfig},
    wire::{Frame, arp, ndp},
};
use openelb_lab::{
    Lab, eventually,
    wire::{self, Wire},
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tracing::{Event, Metadata, Subscriber, span};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What was logged, spans included.
static LOGGED: AtomicUsize = AtomicUsize::new(0);

/// Takes every level, and counts.
struct Count;

impl Subscriber for Count {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        LOGGED.fetch_add(1, Ordering::Relaxed);
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {
        LOGGED.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

const SOON: Duration = Duration::from_secs(20);
/// What has not come by then does not come.
const LOST: Duration = Duration::from_millis(200);
const REQUESTS: usize = 20_000;

fn questions(mac: MacAddr) -> [(u16, Frame, (usize, u8)); 2] {
    let target_ip = Ipv4Addr::new(192, 0, 2, 100);
    let (operation, sender_ip) = (arp::Operation::Request, Ipv4Addr::new(192, 0, 2, 1));
    let packet =
        arp::Packet { operation, sender_mac: mac, sender_ip, target_mac: MacAddr::default(), target_ip };
    let target: Ipv6Addr = "2001:db8::100".parse().unwrap();
    let message = ndp::Message::Solicitation(ndp::Solicitation { target, source_mac: Some(mac) });
    let destination = solicited_node_multicast(target);
    let solicitation = ndp::Packet { source: "2001:db8::1".parse().unwrap(), destination, message };
    [
        (wire::ARP, packet.to_frame(mac, MacAddr::BROADCAST), (21, 2)),
        (wire::IPV6, solicitation.to_frame(mac, MacAddr::ipv6_multicast(destination)), (54, 136)),
    ]
}

#[test]
fn a_request_through_the_driver_allocates_and_logs_nothing() {
    tracing::subscriber::set_global_default(Count).unwrap();
    let lab = Lab::start("l2-allocation").unwrap();
    lab.network(|network| {
        network.host("client").host("node");
        let client = ("client", "eth0", &["192.0.2.1/24", "2001:db8::1/64"][..]);
        network.wire(client, ("node", "eth0", &["192.0.2.2/24", "2001:db8::2/64"]));
    })
    .unwrap();
    let start = || {
        let name = NodeName::new("node").unwrap();
        let mut config = DriverConfig::new(SpeakerConfig::new(name, "192.0.2.2:7947".parse().unwrap()));
        config.settings.probes = 0;
        config.settings.gratuitous = vec![Duration::ZERO];
        net::spawn(config).unwrap()
    };
    let handle = lab.within("node", start).unwrap();
    let on = InterfaceSelector::Name("eth0".to_owned());
    let addresses = ["192.0.2.100", "2001:db8::100"].map(|text| text.parse::<IpAddr>().unwrap());
    handle.set_addresses(addresses.map(|address| WantedAddress::new(address, on.clone())).to_vec());
    handle.set_peers(Vec::new());
    eventually("the ownership of both addresses", SOON, || {
        let snapshot = handle.watch().borrow().clone();
        Ok((snapshot.addresses.len() == 2
            && snapshot.addresses.iter().all(|one| one.status.role == Role::Owner))
        .then_some(()))
    })
    .unwrap();
    // The driver did say that it listens.
    let before = LOGGED.load(Ordering::Relaxed);
    assert!(before > 0, "nothing that is logged is counted");
    let (allocations, rounds) = lab
        .within("client", || {
            let mac = MacAddr::new(Wire::open("eth0", wire::ARP).unwrap().mac());
            let questions = questions(mac);
            let mut wires =
                questions.each_ref().map(|(ethertype, ..)| Wire::open("eth0", *ethertype).unwrap());
            let region = Region::new(GLOBAL);
            for ((_, frame, (offset, value)), wire) in questions.iter().zip(&mut wires) {
                let (mut asked, mut answered) = (0, 0);
                let begun = Instant::now();
                let mut progress = begun;
                while answered < REQUESTS {
                    assert!(begun.elapsed() < SOON, "{answered} of {asked} were answered");
                    // The announcement of the claim may be among the answers.
                    if asked < answered + 64 {
                        asked += wire.send_batch(std::iter::repeat_n(frame.as_bytes(), 16));
                    }
                    let before = answered;
                    wire.receive_batch(|frame| answered += usize::from(frame.get(*offset) == Some(value)));
                    if answered > before {
                        progress = Instant::now();
                    } else if progress.elapsed() > LOST {
                        asked = answered; // a busy machine has dropped what is still out
                    }
                }
            }
            (region.change().allocations, 2 * REQUESTS)
        })
        .unwrap();
    println!("{allocations} allocations while {rounds} requests were answered");
    // Of the whole process: snapshots of two addresses every two seconds, and the netlink table once in thirty.
    assert!(allocations * 40 < rounds, "{allocations} allocations for {rounds} requests");
    assert_eq!(LOGGED.load(Ordering::Relaxed), before, "something was logged for {rounds} requests");
    let region = Region::new(GLOBAL);
    drop(std::hint::black_box(Box::new(rounds)));
    assert!(region.change().allocations >= 1, "the counter does not count");
}
