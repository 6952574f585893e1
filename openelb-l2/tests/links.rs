//! Nodes with two links: one of them is lost, and the other one still works.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    dead_code,
    missing_docs,
    reason = "tests; not every suite uses all of the model"
)]

mod sim;

use std::net::{IpAddr, SocketAddr};

use openelb_l2::{
    MacAddr, announcer,
    speaker::{
        DesiredAddress, Failback, Link, LinkIndex, NodeName, Output, Peer, Role, Settings, Speaker,
        SpeakerConfig,
    },
};
use sim::{LINK, OTHER, Sim, ms};

/// Three nodes with two links each, and addresses that are answered on both.
fn twins(seed: u64, home: &[LinkIndex]) -> Sim {
    let mut sim = Sim::new(3, 6, seed);
    sim.add_other_link(home);
    sim.start_all();
    sim.run(ms(4000));
    for address in sim.addresses.clone() {
        let owner = sim.owner(address);
        assert_eq!(answer(&mut sim, OTHER, address), Some(owner));
    }
    sim
}

/// Whom a client is told of there: `None` if nobody, or more than one.
fn answer(sim: &mut Sim, link: LinkIndex, address: IpAddr) -> Option<usize> {
    let answers = sim.answers_on(link, address);
    let [(_, mac)] = answers[..] else { return None };
    sim.hosts
        .iter()
        .position(|host| host.mac == mac || host.second.as_ref().is_some_and(|two| two.mac == mac))
}

/// Its gossip went by a link that is lost.
fn cut_gossip(sim: &mut Sim, n: usize) {
    for other in (0..sim.hosts.len()).filter(|other| *other != n) {
        sim.deaf.extend([(n, other), (other, n)]);
    }
}

/// The first link is lost, and the gossip with it.
fn lose_first(sim: &mut Sim, n: usize) {
    cut_gossip(sim, n);
    sim.set_link_up(n, false);
}

#[test]
fn a_host_that_answers_on_another_link_does_not_keep_an_address_on_this_one() {
    for seed in 0..10 {
        let mut sim = Sim::new(3, 6, seed);
        sim.add_other_link(&[]);
        for (n, address) in sim.addresses.clone().into_iter().enumerate() {
            sim.placed.insert(address, (vec![[LINK, OTHER][n % 2]], Vec::new()));
        }
        sim.start_all();
        sim.run(ms(4000));
        let all = sim.addresses.clone();
        let owners: Vec<_> = all
            .iter()
            .enumerate()
            .map(|(n, a)| answer(&mut sim, [LINK, OTHER][n % 2], *a).unwrap())
            .collect();
        let victim = owners[0];
        lose_first(&mut sim, victim);
        sim.run(ms(3000));
        for (n, address) in all.iter().enumerate() {
            let now = answer(&mut sim, [LINK, OTHER][n % 2], *address);
            if n % 2 == 0 && owners[n] == victim {
                assert!(
                    now.is_some_and(|now| now != victim),
                    "seed {seed}: {address} is answered by {now:?}"
                );
            } else if n % 2 == 0 {
                assert_eq!(now, Some(owners[n]), "seed {seed}: {address}");
            } else {
                // The owner itself, and perhaps others in its name.
                let answers = sim.answers_on(OTHER, *address);
                let mac = sim.hosts[owners[n]].second.as_ref().unwrap().mac;
                assert!(!answers.is_empty() && answers.iter().all(|(_, told)| *told == mac), "{answers:?}");
            }
        }
    }
}

#[test]
fn an_owner_that_loses_the_link_of_the_subnet_is_replaced_there() {
    for seed in 0..10 {
        for gossips in [true, false] {
            let mut sim = twins(seed, &[LINK]);
            let address = sim.addresses[0];
            let victim = sim.owner(address);
            if gossips {
                sim.set_link_up(victim, false);
                sim.run(ms(300));
            } else {
                lose_first(&mut sim, victim);
                sim.run(ms(3000));
            }
            for address in sim.addresses.clone() {
                assert_ne!(sim.owner(address), victim, "seed {seed}, gossip {gossips}");
                assert_eq!(answer(&mut sim, OTHER, address), Some(sim.owner(address)));
            }
            // One of the other links is none that counts.
            let owner = sim.owner(address);
            sim.set_other_link_up(owner, false);
            sim.run(ms(3000));
            assert_eq!(sim.owner(address), owner);
        }
    }
}

#[test]
fn an_owner_that_loses_one_of_its_links_leaves_the_address_to_one_that_has_all() {
    for seed in 0..10 {
        for gossips in [true, false] {
            let mut sim = twins(seed, &[]);
            let all = sim.addresses.clone();
            let victim = sim.owner(all[0]);
            let kept: Vec<_> = all.iter().map(|address| sim.owner(*address)).collect();
            if gossips {
                sim.set_link_up(victim, false);
                sim.run(ms(500));
            } else {
                lose_first(&mut sim, victim);
                sim.run(ms(8000));
            }
            for _ in 0..50 {
                for (address, before) in all.iter().zip(&kept) {
                    let owner = sim.owner(*address);
                    assert_ne!(owner, victim, "seed {seed}, gossip {gossips}");
                    assert!(*before == victim || *before == owner);
                    let there = sim.answers_on(OTHER, *address);
                    let mac = sim.hosts[owner].second.as_ref().unwrap().mac;
                    assert!(
                        !there.is_empty() && there.iter().all(|(_, told)| *told == mac),
                        "seed {seed}, gossip {gossips}: {address} of {owner} is answered by {there:?}"
                    );
                }
                sim.run(ms(500));
            }
        }
    }
}

#[test]
fn the_last_node_with_some_link_goes_on() {
    let mut sim = twins(1, &[]);
    for n in 0..3 {
        sim.set_link_up(n, false);
    }
    sim.run(ms(3000));
    for address in sim.addresses.clone() {
        assert!(answer(&mut sim, OTHER, address).is_some());
    }
}

#[test]
fn a_crash_of_a_node_with_two_links_moves_nothing() {
    for seed in 0..10 {
        let mut sim = twins(seed, &[]);
        let address = sim.addresses[0];
        let owner = sim.owner(address);
        sim.kill(owner);
        sim.run(ms(1200));
        for _ in 0..20 {
            for link in [LINK, OTHER] {
                assert_eq!(answer(&mut sim, link, address), Some(owner), "seed {seed}");
            }
            sim.run(ms(300));
        }
        sim.start(owner);
        sim.run(ms(2000));
        assert_eq!(sim.role(owner, address), Role::Owner);
    }
}

/// Gossip is blocked from the start: nobody knows how many links another one has. Those that claimed apart, and hear each
/// other's claims then, agree at once on who stays.
#[test]
fn nodes_that_never_gossiped_do_not_take_each_other_for_those_with_fewer_links() {
    for seed in 0..10 {
        for nodes in [2, 3] {
            let mut sim = Sim::new(nodes, 6, seed);
            sim.add_other_link(&[]);
            sim.deaf = (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b))).collect();
            (0..nodes).for_each(|n| sim.partition(&[n]));
            sim.start_all();
            sim.run(ms(5000));
            sim.cut.clear();
            sim.reset_measures();
            sim.run(ms(4000));
            for _ in 0..200 {
                for address in sim.addresses.clone() {
                    let owner = sim.owner(address);
                    assert_eq!(answer(&mut sim, OTHER, address), Some(owner), "seed {seed}, {nodes} nodes");
                }
                sim.run(ms(100));
            }
            assert!(sim.longest_silence.is_zero(), "seed {seed}, {nodes} nodes: {:?}", sim.longest_silence);
        }
    }
}

/// With interfaces by name or by expression, or with `all`: one node is not on the LAN of the addresses, and has two links.
#[test]
fn a_node_on_the_lan_of_an_address_comes_before_one_that_is_on_others() {
    for seed in 0..10 {
        let mut sim = Sim::new(3, 6, seed);
        sim.settings.failback = Failback::Immediate;
        sim.add_other_link(&[LINK]);
        sim.hosts[1].far = true;
        // It is there first.
        sim.start(1);
        sim.run(ms(4000));
        for address in sim.addresses.clone() {
            assert_eq!(sim.owner(address), 1, "nobody else is there");
        }
        sim.start(0);
        sim.start(2);
        sim.run(ms(4000));
        for address in sim.addresses.clone() {
            assert_ne!(sim.owner(address), 1, "seed {seed}");
        }
        sim.power_off(0);
        sim.run(ms(3000));
        for address in sim.addresses.clone() {
            assert_eq!(sim.owner(address), 2, "seed {seed}");
        }
        sim.power_off(2);
        sim.run(ms(3000));
        for address in sim.addresses.clone() {
            assert_eq!(sim.owner(address), 1, "better than nobody");
        }
    }
}

/// On a node with many Pods links come and go all the time, and the daemon says what it wants with every change of a
/// Service.
#[test]
fn what_changes_nothing_for_an_address_decides_nothing() {
    let mut sim = twins(1, &[LINK]);
    let now = sim.now;
    let (settings, peers, wanted, links) = (sim.settings.clone(), sim.peers(), sim.desired(0), sim.links(0));
    let decisions = |sim: &Sim| sim.hosts[0].speaker.as_ref().unwrap().stats().decisions;
    let before = decisions(&sim);
    sim.act(0, |speaker| speaker.set_settings(settings, now));
    sim.act(0, |speaker| speaker.set_peers(peers, now));
    sim.act(0, |speaker| speaker.set_desired(wanted, now));
    sim.act(0, |speaker| speaker.set_links(links.clone(), now));
    let mut more = links.clone();
    more[0].name = "wan".to_owned();
    more[0].addresses.push("192.0.2.77".parse().unwrap());
    more.push(Link::new(LinkIndex(9), "veth9", MacAddr::new([2, 9, 9, 9, 9, 9])));
    sim.act(0, |speaker| speaker.set_links(more, now));
    sim.act(0, |speaker| speaker.set_links(links, now));
    assert_eq!(decisions(&sim), before);
    sim.set_other_link_up(0, false);
    assert_eq!(decisions(&sim), before + 6, "one of each address");
}

/// Eight VLANs of one network card have its MAC address. Whoever was told of them alone would take a claim on a ninth link
/// for that of a stranger.
#[test]
fn the_others_are_told_of_each_mac_address_before_they_are_told_of_one_again() {
    let [near, far] = [MacAddr::new([2, 0, 0, 0, 1, 1]), MacAddr::new([2, 0, 0, 0, 1, 2])];
    let address: IpAddr = "203.0.113.1".parse().unwrap();
    let links: Vec<_> =
        (1..=9).map(|n| Link::new(LinkIndex(n), "eth", if n < 9 { near } else { far })).collect();
    let indexes: Vec<_> = links.iter().map(|link| link.index).collect();
    let gossip = |n: u8| SocketAddr::from(([192, 0, 2, n], 7947));
    let name = |n: u8| NodeName::new(&format!("node-{n}")).unwrap();
    let mut now = std::time::Instant::now();
    let mut pair = [(1, links), (2, vec![Link::new(LinkIndex(9), "eth", MacAddr::new([2, 0, 0, 0, 2, 1]))])]
        .map(|(n, links)| {
            let config = SpeakerConfig::new(name(n), gossip(n));
            let mut speaker = Speaker::new(config, Settings::default(), now).unwrap();
            speaker.set_links(links, now);
            speaker.set_peers(vec![Peer::new(name(3 - n), gossip(3 - n))], now);
            let mut wanted = DesiredAddress::new(address, indexes.clone());
            wanted.eligible = n == 2;
            speaker.set_desired(vec![wanted], now);
            speaker
        });
    let end = now + ms(4000);
    while now < end {
        now = pair.iter().filter_map(Speaker::poll_timeout).min().unwrap().max(now);
        for n in 0..2 {
            pair[n].handle_timeout(now);
            while let Some(output) = pair[n].poll_output() {
                match output {
                    Output::Datagram { payload, .. } => {
                        pair[1 - n].handle_datagram(gossip(n as u8 + 1), &payload, now);
                    }
                    Output::Frame { link: LinkIndex(9), frame } => {
                        pair[1 - n].handle_frame(LinkIndex(9), &frame, now);
                    }
                    _ => {}
                }
            }
        }
    }
    let [_, two] = &mut pair;
    assert_eq!(two.address(address).unwrap().role, Role::Owner);
    let stranger = MacAddr::new([2, 0, 0, 0, 9, 9]);
    for (mac, strangers) in [(stranger, 1), (far, 1)] {
        for frame in announcer::announcement(address, mac).take(1) {
            two.handle_frame(LinkIndex(9), &frame, now);
        }
        assert_eq!(two.stats().conflicts, strangers, "{mac}");
    }
}
