//! Whose claims and questions concern an address, and whose do not.
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
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use openelb_l2::{
    MacAddr, announcer,
    speaker::{
        DesiredAddress, Event, Link, LinkIndex, NodeName, Output, Peer, Role, Settings, Speaker,
        SpeakerConfig,
    },
    wire::{Frame, arp},
};
use sim::{Sim, ms};

const LINKS: [LinkIndex; 2] = [LinkIndex(2), LinkIndex(3)];
const STRANGER: MacAddr = MacAddr::new([2, 0xee, 0, 0, 0, 1]);

fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, 100 + n).into()
}

/// A node with two links and an address on each.
fn on_two_links(probes: u8, now: Instant) -> Speaker {
    let config = SpeakerConfig::new(NodeName::new("node-1").unwrap(), "192.0.2.1:7947".parse().unwrap());
    let mut settings = Settings::default();
    settings.probes = probes;
    let mut speaker = Speaker::new(config, settings, now).unwrap();
    let link = |n: u8| Link::new(LINKS[usize::from(n)], format!("eth{n}"), MacAddr::new([2, 0, 0, 0, 1, n]));
    speaker.set_links(vec![link(0), link(1)], now);
    speaker.set_peers(Vec::new(), now);
    let desired = (0..2).map(|n| DesiredAddress::new(address(n), [LINKS[usize::from(n)]]));
    speaker.set_desired(desired.collect(), now);
    speaker
}

fn events(speaker: &mut Speaker) -> Vec<Event> {
    while speaker.poll_output().is_some() {}
    std::iter::from_fn(|| speaker.poll_event()).collect()
}

fn question(target: IpAddr) -> Frame {
    let IpAddr::V4(target_ip) = target else { panic!("{target}") };
    let operation = arp::Operation::Request;
    let (sender_ip, target_mac) = (Ipv4Addr::new(192, 0, 2, 250), MacAddr::default());
    arp::Packet { operation, sender_mac: sim::CLIENT, sender_ip, target_mac, target_ip }
        .to_frame(sim::CLIENT, MacAddr::BROADCAST)
}

#[test]
fn what_is_said_on_another_link_does_not_concern_an_address() {
    let now = Instant::now();
    let mut speaker = on_two_links(0, now);
    for n in 0..2 {
        assert_eq!(speaker.address(address(n)).unwrap().role, Role::Owner);
    }
    events(&mut speaker);
    for (link, own) in [(LINKS[1], false), (LINKS[0], true)] {
        let answered = speaker.handle_frame(link, &question(address(0)), now).is_some();
        assert_eq!(answered, own);
        for frame in announcer::announcement(address(0), STRANGER) {
            speaker.handle_frame(link, &frame, now);
        }
        let told = events(&mut speaker);
        assert_eq!(
            told.contains(&Event::AddressConflict { address: address(0), link, mac: STRANGER }),
            own,
            "{told:?}"
        );
        assert_eq!((speaker.stats().conflicts > 0, speaker.stats().defences > 0), (own, own));
    }
}

#[test]
fn a_question_on_another_link_is_no_conflict() {
    let now = Instant::now();
    let mut speaker = on_two_links(3, now);
    assert_eq!(speaker.address(address(0)).unwrap().role, Role::Probing);
    speaker.handle_frame(LINKS[1], &announcer::probe(address(0), STRANGER), now);
    assert_eq!((speaker.address(address(0)).unwrap().role, speaker.stats().conflicts), (Role::Probing, 0));
    speaker.handle_frame(LINKS[0], &announcer::probe(address(0), STRANGER), now);
    assert_eq!(speaker.address(address(0)).unwrap().role, Role::Conflict { mac: STRANGER });
}

/// They start at once, and their gossip gets nowhere: they ask on the link where the others are.
#[test]
fn nodes_that_never_heard_of_each_other_are_no_strangers_when_they_ask() {
    for seed in 0..10 {
        let mut sim = Sim::new(3, 6, seed);
        sim.deaf = (0..3).flat_map(|a| (0..3).map(move |b| (a, b))).collect();
        sim.start_all();
        sim.run(ms(5000));
        for host in &sim.hosts {
            let conflict = |(_, event): &&(Duration, Event)| matches!(event, Event::AddressConflict { .. });
            assert_eq!(host.events.iter().find(conflict), None, "seed {seed}");
            assert_eq!(host.speaker.as_ref().unwrap().stats().conflicts, 0);
        }
        for address in sim.addresses.clone() {
            sim.owner(address);
        }
    }
}

/// One that stays silent about itself is a stranger, and told of a moment later.
#[test]
fn a_stranger_that_asks_is_found_also_while_a_node_is_unknown() {
    let mut sim = Sim::new(2, 1, 5);
    sim.hosts[1].powered = false;
    sim.start(0);
    let address = sim.addresses[0];
    while sim.role(0, address) != Role::Probing {
        sim.run(ms(10));
    }
    sim.probe_stranger(address, STRANGER);
    sim.run(ms(250));
    assert_eq!(sim.role(0, address), Role::Conflict { mac: STRANGER });
}

/// Times that no clock can tell are as good as never.
#[test]
fn no_setting_is_too_long() {
    let now = Instant::now();
    let mut speaker = on_two_links(3, now);
    let mut settings = Settings::default();
    settings.probe_spacing = Duration::MAX;
    settings.refresh = Duration::MAX;
    settings.gratuitous = vec![Duration::MAX];
    settings.stand_in = Duration::MAX;
    speaker.set_settings(settings, now);
    speaker.handle_timeout(now + ms(200));
    speaker.handle_timeout(now + ms(400));
    assert_eq!(speaker.address(address(0)).unwrap().role, Role::Probing);
    // And none holds for longer than it is set.
    speaker.set_settings(Settings::default(), now + ms(500));
    for n in 0..5 {
        speaker.handle_timeout(now + ms(700 + n * 200));
    }
    assert_eq!(speaker.address(address(0)).unwrap().role, Role::Owner);
}

/// Whoever says again and again that a node's own address is elsewhere.
#[test]
fn stations_that_are_made_up_for_a_node_are_not_remembered_for_ever() {
    let now = Instant::now();
    let mut speaker = on_two_links(0, now);
    let peer = "192.0.2.2:7947".parse().unwrap();
    speaker.set_peers(vec![Peer::new(NodeName::new("node-2").unwrap(), peer)], now);
    let at = now + Duration::from_secs(2);
    let mut time = now;
    while let Some(next) = speaker.poll_timeout().filter(|next| *next < at) {
        time = time.max(next);
        speaker.handle_timeout(time);
    }
    drop(events(&mut speaker));
    assert_eq!(speaker.address(address(0)).unwrap().role, Role::Owner);
    // The answer to a node that looks for its peer, from as many stations as there is time for.
    let made_up = |n: u16| MacAddr::new([2, 0xee, 1, 0, (n >> 8) as u8, n as u8]);
    let claim = |of: IpAddr, mac| {
        let IpAddr::V4(ip) = of else { panic!("{of}") };
        arp::Packet::announcement(arp::Operation::Reply, ip, mac).to_frame(mac, MacAddr::BROADCAST)
    };
    assert!(speaker.handle_frame(LINKS[0], &claim(address(0), STRANGER), time).is_none());
    for n in 0..1000 {
        assert!(speaker.handle_frame(LINKS[0], &claim(peer.ip(), made_up(n)), time).is_none());
    }
    time += ms(300);
    speaker.handle_timeout(time);
    drop(events(&mut speaker));
    // Those of a node are no strangers.
    let conflicts = speaker.stats().conflicts;
    for n in 0..1000 {
        assert!(speaker.handle_frame(LINKS[1], &claim(address(1), made_up(n)), time).is_none());
    }
    assert!(speaker.stats().conflicts - conflicts >= 1000 - 8, "{} strangers", speaker.stats().conflicts);
}

/// Owns both addresses, and has a peer whose gossip does not get here.
fn beside_a_silent_peer(now: Instant) -> (Speaker, IpAddr, Instant) {
    let mut speaker = on_two_links(0, now);
    let peer: std::net::SocketAddr = "192.0.2.2:7947".parse().unwrap();
    speaker.set_peers(vec![Peer::new(NodeName::new("node-2").unwrap(), peer)], now);
    let time = pass(&mut speaker, now, ms(2000));
    drop(events(&mut speaker));
    assert_eq!(speaker.address(address(0)).unwrap().role, Role::Owner);
    (speaker, peer.ip(), time)
}

/// Time passes.
fn pass(speaker: &mut Speaker, from: Instant, time: Duration) -> Instant {
    while let Some(next) = speaker.poll_timeout().filter(|next| *next < from + time) {
        speaker.handle_timeout(next);
    }
    speaker.handle_timeout(from + time);
    from + time
}

fn says(of: IpAddr, mac: MacAddr) -> Frame {
    let IpAddr::V4(ip) = of else { panic!("{of}") };
    arp::Packet::announcement(arp::Operation::Reply, ip, mac).to_frame(mac, MacAddr::BROADCAST)
}

fn conflicts(speaker: &mut Speaker) -> Vec<Event> {
    let concerns =
        |event: &Event| matches!(event, Event::AddressConflict { .. } | Event::AddressConflictEnded { .. });
    events(speaker).into_iter().filter(concerns).collect()
}

/// Nobody is told to take an address off a machine that is a node.
#[test]
fn a_node_whose_gossip_does_not_get_here_is_not_told_to_be_a_stranger() {
    let (mut speaker, peer, mut now) = beside_a_silent_peer(Instant::now());
    for _ in 0..3 {
        speaker.handle_frame(LINKS[0], &says(address(0), STRANGER), now);
    }
    assert_eq!(speaker.address(address(0)).unwrap().conflict, Some(STRANGER));
    now += ms(50);
    speaker.handle_frame(LINKS[0], &says(peer, STRANGER), now);
    now = pass(&mut speaker, now, ms(500));
    assert_eq!((conflicts(&mut speaker), speaker.stats().conflicts), (vec![], 0));
    assert_eq!(speaker.address(address(0)).unwrap().conflict, None);
    // One that nobody introduces is one.
    now = pass(&mut speaker, now, ms(2000));
    for _ in 0..3 {
        speaker.handle_frame(LINKS[1], &says(address(1), MacAddr::new([2, 0xee, 9, 9, 9, 9])), now);
    }
    pass(&mut speaker, now, ms(250));
    assert_eq!((conflicts(&mut speaker).len(), speaker.stats().conflicts), (1, 3));
}

/// Of two that are heard one after the other, the one is told of that is no node, and that it is gone.
#[test]
fn a_stranger_beside_a_node_that_is_not_known_yet_is_told_of() {
    let (node, stranger) = (MacAddr::new([2, 0, 0, 0, 2, 1]), STRANGER);
    let (mut speaker, peer, now) = beside_a_silent_peer(Instant::now());
    for mac in [node, stranger] {
        speaker.handle_frame(LINKS[0], &says(address(0), mac), now);
    }
    speaker.handle_frame(LINKS[0], &says(peer, node), now);
    pass(&mut speaker, now, ms(250));
    let told = |address, mac| Event::AddressConflict { address, link: LINKS[0], mac };
    assert_eq!(conflicts(&mut speaker), [told(address(0), stranger)]);
    // One that was told of ends, also where another was heard since that turns out to be a node.
    let (mut speaker, peer, mut from) = beside_a_silent_peer(Instant::now());
    speaker.handle_frame(LINKS[0], &says(address(0), stranger), from);
    from = pass(&mut speaker, from, ms(1500));
    assert_eq!(conflicts(&mut speaker), [told(address(0), stranger)]);
    speaker.handle_frame(LINKS[0], &says(address(0), node), from);
    speaker.handle_frame(LINKS[0], &says(peer, node), from);
    pass(&mut speaker, from, ms(500));
    assert_eq!(conflicts(&mut speaker), [Event::AddressConflictEnded { address: address(0) }]);
}

/// It goes on for a moment, so that there is no gap, and not against one that may.
#[test]
fn an_owner_that_may_not_have_the_address_leaves_it_to_a_node_that_claims_it() {
    let mut seen = BTreeSet::new();
    for eligible in [true, false] {
        for last in 0..2 {
            let (mut speaker, peer, mut now) = beside_a_silent_peer(Instant::now());
            let mac = MacAddr::new([2, 0, 0, 0, 2, 1]);
            let link = LINKS[usize::from(last)];
            speaker.handle_frame(link, &says(address(last), STRANGER), now);
            speaker.handle_frame(link, &says(peer, mac), now);
            let mut one = DesiredAddress::new(address(last), [link]);
            one.eligible = eligible;
            speaker.set_desired(vec![one], now);
            now += ms(10);
            speaker.handle_frame(link, &says(address(last), mac), now);
            seen.insert((eligible, speaker.address(address(last)).unwrap().role == Role::Owner));
        }
    }
    assert!(!seen.contains(&(false, true)), "{seen:?}");
    assert!(seen.contains(&(true, true)), "one of both is better here: {seen:?}");
}

/// A host that is about to take its address would give it up if another seemed to be about to (RFC 5227 section 2.1.1).
#[test]
fn a_host_is_asked_for_its_address_and_not_probed() {
    let now = Instant::now();
    let (mut speaker, peer, time) = beside_a_silent_peer(now);
    let mut links: Vec<_> = (0..2_u8)
        .map(|n| Link::new(LINKS[usize::from(n)], format!("eth{n}"), MacAddr::new([2, 0, 0, 0, 1, n])))
        .collect();
    // The last is nearest, and of a Service.
    links[0].addresses =
        ["198.51.100.1", "192.0.2.16", "fe80::1", "192.0.2.3"].map(|text| text.parse().unwrap()).to_vec();
    speaker.set_links(links, time);
    let service = DesiredAddress::new("192.0.2.3".parse().unwrap(), [LINKS[1]]);
    let desired = (0..2).map(|n| DesiredAddress::new(address(n), [LINKS[usize::from(n)]]));
    speaker.set_desired(desired.chain([service]).collect(), time);
    while speaker.poll_output().is_some() {}
    // One that may be a node.
    speaker.handle_frame(LINKS[0], &says(address(0), STRANGER), time);
    let mut sources = Vec::new();
    while let Some(output) = speaker.poll_output() {
        let Output::Frame { link, frame } = output else { continue };
        let packet = frame.get(14..).and_then(|payload| arp::Packet::decode(payload).ok());
        if let Some(packet) = packet.filter(|packet| IpAddr::V4(packet.target_ip) == peer) {
            sources.push((link, packet.sender_ip));
        }
    }
    assert_eq!(sources, [(LINKS[0], "192.0.2.16".parse().unwrap()), (LINKS[1], Ipv4Addr::UNSPECIFIED)]);
}

/// Whoever gives an address up knows nothing of the stranger any more, and does not say later that it is gone.
#[test]
fn a_conflict_ends_with_the_ownership_and_is_not_told_to_be_over_at_the_next_claim() {
    let mut now = Instant::now();
    let mut speaker = on_two_links(0, now);
    let told = |speaker: &mut Speaker| {
        let concerns = |event: &Event| {
            matches!(event, Event::AddressConflict { .. } | Event::AddressConflictEnded { .. })
        };
        events(speaker).into_iter().filter(concerns).collect::<Vec<_>>()
    };
    let link = |up| {
        (0..2_u8)
            .map(|n| {
                let mut link =
                    Link::new(LINKS[usize::from(n)], format!("eth{n}"), MacAddr::new([2, 0, 0, 0, 1, n]));
                link.up = up;
                link
            })
            .collect::<Vec<_>>()
    };
    for frame in announcer::announcement(address(0), STRANGER) {
        speaker.handle_frame(LINKS[0], &frame, now);
    }
    assert_eq!(told(&mut speaker).len(), 1);
    assert_eq!(speaker.address(address(0)).unwrap().conflict, Some(STRANGER));
    speaker.set_links(link(false), now);
    for _ in 0..20 {
        now += ms(200);
        speaker.handle_timeout(now);
    }
    assert_ne!(speaker.address(address(0)).unwrap().role, Role::Owner);
    assert_eq!(speaker.address(address(0)).unwrap().conflict, None);
    speaker.set_links(link(true), now);
    for _ in 0..20 {
        now += ms(200);
        speaker.handle_timeout(now);
    }
    assert_eq!(speaker.address(address(0)).unwrap().role, Role::Owner);
    assert_eq!(told(&mut speaker), []);
    // The next one is news, and that it is gone is told when it was silent for long enough.
    for frame in announcer::announcement(address(0), STRANGER) {
        speaker.handle_frame(LINKS[0], &frame, now);
    }
    assert!(matches!(told(&mut speaker)[..], [Event::AddressConflict { .. }]));
    for _ in 0..70 {
        now += ms(1000);
        while let Some(at) = speaker.poll_timeout().filter(|at| *at <= now) {
            speaker.handle_timeout(at);
        }
    }
    assert_eq!(told(&mut speaker), [Event::AddressConflictEnded { address: address(0) }]);
}

/// Also where it never had the address: if it stands in later, its status names nobody who is long gone.
#[test]
fn a_conflict_ends_where_the_address_is_left_to_others() {
    for probing in [false, true] {
        let mut now = Instant::now();
        let mut speaker = on_two_links(3, now);
        speaker.handle_frame(LINKS[0], &announcer::probe(address(0), STRANGER), now);
        assert_eq!(speaker.address(address(0)).unwrap().role, Role::Conflict { mac: STRANGER });
        while probing && speaker.address(address(0)).unwrap().role != Role::Probing {
            now = speaker.poll_timeout().unwrap();
            speaker.handle_timeout(now);
        }
        assert_eq!(speaker.address(address(0)).unwrap().conflict, Some(STRANGER));
        let mut one = DesiredAddress::new(address(0), [LINKS[0]]);
        one.eligible = false;
        speaker.set_desired(vec![one], now);
        let status = speaker.address(address(0)).unwrap();
        assert_eq!((status.role, status.conflict), (Role::Standby, None), "probing: {probing}");
    }
}
