//! The path of a request: no allocation, however many addresses there are.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    dead_code,
    missing_docs,
    reason = "tests; any origin of time will do; not every suite uses all of the model"
)]

mod sim;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use openelb_l2::{
    MacAddr, announcer, solicited_node_multicast,
    speaker::{DesiredAddress, Link, LinkIndex, NodeName, Peer, Role, Settings, Speaker, SpeakerConfig},
    wire::{Frame, arp, ndp},
};
use sim::{Sim, ms};

const LINK: LinkIndex = LinkIndex(2);
const OWN: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 1]);
const CLIENT: MacAddr = MacAddr::new([2, 0xc, 0, 0, 0, 1]);

fn owner_of(addresses: &[IpAddr]) -> (Speaker, Instant) {
    let mut now = Instant::now();
    let config = SpeakerConfig::new(NodeName::new("node-1").unwrap(), "192.0.2.1:7947".parse().unwrap());
    let mut settings = Settings::default();
    settings.probes = 0;
    let mut speaker = Speaker::new(config, settings, now).unwrap();
    speaker.set_links(vec![Link::new(LINK, "eth0", OWN)], now);
    speaker.set_peers(Vec::new(), now);
    speaker.set_desired(addresses.iter().map(|a| DesiredAddress::new(*a, [LINK])).collect(), now);
    while let Some(at) = speaker.poll_timeout().filter(|_| !speaker.is_settled()) {
        now = now.max(at);
        speaker.handle_timeout(now);
    }
    while speaker.poll_output().is_some() || speaker.poll_event().is_some() {}
    (speaker, now)
}

fn arp_request(target_ip: Ipv4Addr, sender_ip: Ipv4Addr) -> Frame {
    let operation = arp::Operation::Request;
    let (sender_mac, target_mac) = (CLIENT, MacAddr::default());
    arp::Packet { operation, sender_mac, sender_ip, target_mac, target_ip }
        .to_frame(CLIENT, MacAddr::BROADCAST)
}

fn solicitation(target: Ipv6Addr, source: Ipv6Addr) -> Frame {
    let destination = solicited_node_multicast(target);
    let source_mac = (!source.is_unspecified()).then_some(CLIENT);
    let message = ndp::Message::Solicitation(ndp::Solicitation { target, source_mac });
    ndp::Packet { source, destination, message }.to_frame(CLIENT, MacAddr::ipv6_multicast(destination))
}

#[test]
fn a_request_allocates_nothing() {
    let v4 = |n: u32| Ipv4Addr::from_bits(0xc000_0300 + n);
    let v6 = |n: u32| Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | u128::from(n));
    let addresses: Vec<IpAddr> = (0..500).flat_map(|n| [v4(n).into(), v6(n).into()]).collect();
    let (mut speaker, now) = owner_of(&addresses);
    let client: Ipv6Addr = "fe80::c".parse().unwrap();
    let any = Ipv4Addr::new(192, 0, 2, 250);
    let answered: Vec<_> = (0..500)
        .flat_map(|n| {
            [
                arp_request(v4(n), any),
                arp_request(v4(n), Ipv4Addr::UNSPECIFIED),
                solicitation(v6(n), client),
                solicitation(v6(n), Ipv6Addr::UNSPECIFIED),
            ]
        })
        .collect();
    let foreign = [arp_request(v4(500), any), solicitation(v6(500), client)];

    let mut replies = 0;
    let info = allocation_counter::measure(|| {
        for frame in &answered {
            replies +=
                usize::from(speaker.handle_frame(LINK, frame, now + Duration::from_millis(1)).is_some());
        }
    });
    assert_eq!(replies, answered.len());
    assert_eq!(info.count_total, 0, "{info:?}");

    let info = allocation_counter::measure(|| {
        for frame in foreign.iter().map(Frame::as_bytes).chain([&[][..], &[0; 60]]) {
            replies += usize::from(speaker.handle_frame(LINK, frame, now).is_some());
        }
    });
    assert_eq!(replies, answered.len());
    assert_eq!(info.count_total, 0, "{info:?}");
    assert_ne!(
        allocation_counter::measure(|| drop(std::hint::black_box(Box::new(replies)))).count_total,
        0,
        "the counter counts"
    );
}

/// A client's questions for an address, and how much memory the answers took.
fn answer_all(speaker: &mut Speaker, address: IpAddr, now: Instant) -> u64 {
    let IpAddr::V4(target) = address else { panic!("{address}") };
    let question = arp_request(target, Ipv4Addr::new(192, 0, 2, 250));
    let mut replies = 0;
    let info = allocation_counter::measure(|| {
        for _ in 0..100 {
            replies += usize::from(speaker.handle_frame(LINK, &question, now).is_some());
        }
    });
    assert_eq!(replies, 100);
    info.count_total
}

#[test]
fn a_request_to_one_that_stands_in_allocates_nothing() {
    let mut sim = Sim::with_all(3, 1, 1);
    sim.run(ms(4000));
    let address = sim.addresses[0];
    let owner = sim.owner(address);
    sim.kill(owner);
    let stands_in = |sim: &Sim| {
        let stands_in = |n: &usize| *n != owner && matches!(sim.role(*n, address), Role::StandIn { .. });
        (0..3).find(stands_in)
    };
    for _ in 0..300 {
        if stands_in(&sim).is_none() {
            sim.run(ms(10));
        }
    }
    let (who, now) = (stands_in(&sim).unwrap(), sim.now);
    let speaker = sim.hosts[who].speaker.as_mut().unwrap();
    assert_eq!(answer_all(speaker, address, now), 0);
}

#[test]
fn a_request_to_one_that_looks_for_its_peers_allocates_nothing() {
    let address = IpAddr::from([192, 0, 2, 100]);
    let (mut speaker, now) = owner_of(&[address]);
    let peer = Peer::new(NodeName::new("node-2").unwrap(), "192.0.2.2:7947".parse().unwrap());
    speaker.set_peers(vec![peer], now);
    let stranger = MacAddr::new([2, 0xee, 0, 0, 0, 1]);
    while speaker.poll_output().is_some() {}
    for frame in announcer::announcement(address, stranger) {
        assert!(speaker.handle_frame(LINK, &frame, now).is_none());
    }
    let looks = |output| {
        let openelb_l2::speaker::Output::Frame { frame, .. } = output else { return false };
        sim::wire::read(&frame) == sim::wire::Says::Asks([192, 0, 2, 2].into())
    };
    assert!(std::iter::from_fn(|| speaker.poll_output()).any(looks), "it looks for its peer");
    assert_eq!(answer_all(&mut speaker, address, now), 0);
}
