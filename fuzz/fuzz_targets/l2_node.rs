//! Operations on three speakers on the LAN of `openelb-l2/tests/sim`, with IPv4 addresses, IPv6 addresses or both: never a
//! deadline in the past, never a frame with another's address as its source, never a group joined twice; and once
//! everything is well again, each address has one owner.
//!
//! The first octet seeds what is random, the second says which addresses there are. Then each pair of octets is an operation
//! and its argument: the low five bits of the first say which, the next two on which node.
#![no_main]

#[path = "../../openelb-l2/tests/sim/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of openelb-l2")]
mod sim;

use std::{net::IpAddr, time::Duration};

use libfuzzer_sys::fuzz_target;
use openelb_l2::{
    MacAddr, announcer,
    speaker::{DesiredAddress, Failback, LinkIndex, Peer, StopMode},
    wire::{Frame, arp},
};
use sim::{CLIENT, Family, LINK, Sim, ms, wire};

const NODES: usize = 3;
const STRANGER: MacAddr = MacAddr::new([2, 0xee, 0, 0, 0, 1]);

fn pick<T: Clone>(all: &[T], argument: u8) -> T {
    all[usize::from(argument) % all.len()].clone()
}

/// What a client or a stranger sends.
fn frame(address: IpAddr, kind: u8) -> Frame {
    match (kind, address) {
        (0, _) => announcer::announcement(address, STRANGER).next().expect("a frame"),
        (1, IpAddr::V4(v4)) => arp::Packet::announcement(arp::Operation::Reply, v4, STRANGER)
            .to_frame(STRANGER, MacAddr::BROADCAST),
        (2, _) => announcer::probe(address, STRANGER),
        // As if a node had sent it.
        (3, _) => announcer::announcement(address, MacAddr::new([2, 0, 0, 0, 0, 2])).next().expect("a frame"),
        (4, _) => announcer::probe(address, CLIENT),
        _ => wire::question(address),
    }
}

/// New settings for one node: stand-in and failback, the schedule, or how an address is probed for.
fn set(sim: &mut Sim, n: usize, which: u8, argument: u8) {
    let settings = &mut sim.settings;
    match which {
        0 => {
            settings.stand_in = Duration::from_secs(pick(&[0, 5, 600, u64::MAX], argument));
            settings.failback = pick(
                &[
                    Failback::Immediate,
                    Failback::Manual,
                    Failback::Delayed(ms(2000)),
                    Failback::Delayed(Duration::MAX),
                ],
                argument >> 2,
            );
        }
        1 => {
            let bursts: [&[u64]; 6] = [
                &[],
                &[0],
                &[0, 100, 300, 1000, 2000, 4000],
                &[700],
                &[4000, 0, 0, 100],
                &[0, 20, 40, 60, 80, 100],
            ];
            settings.gratuitous = pick(&bursts, argument).iter().copied().map(ms).collect();
            if argument & 0x80 != 0 {
                settings.gratuitous.push(Duration::MAX);
            }
            settings.refresh = pick(
                &[Duration::ZERO, ms(50), ms(1000), Duration::from_secs(60), Duration::MAX],
                argument >> 3,
            );
        }
        _ => {
            settings.probes = pick(&[3, 0, 1, 9], argument);
            settings.probe_spacing = ms(pick(&[200, 0, 20, 1000], argument >> 2));
            settings.join_delay = Duration::from_secs(pick(&[30, 0, 7200, u64::MAX], argument >> 4));
        }
    }
    let (settings, now) = (settings.clone(), sim.now);
    sim.act(n, |speaker| speaker.set_settings(settings, now));
}

fn operate(sim: &mut Sim, operation: u8, argument: u8) {
    let n = usize::from(operation >> 5 & 3);
    if n >= NODES {
        // Time for everybody, from 1 ms to 8 s.
        sim.run(ms(1 << (argument & 0x0f).min(13)));
        return;
    }
    let other = (n + 1 + usize::from(argument & 1)) % NODES;
    let runs = sim.hosts[n].speaker.is_some() && !sim.hosts[n].suspended;
    let now = sim.now;
    match operation & 0x1f {
        0 => sim.kill(n),
        1 => sim.start(n),
        2 => sim.suspend(n),
        3 => sim.resume(n),
        4 => sim.power_off(n),
        5 if runs => sim.stop(n, if argument & 1 == 0 { StopMode::Restart } else { StopMode::Withdraw }),
        6 if runs => sim.set_eligible(n, argument & 1 == 0),
        7 if runs => sim.set_link_up(n, argument & 1 == 0),
        8 => drop(sim.cut.insert((n, other))),
        9 => drop(sim.deaf.insert((n, other))),
        10 => sim.heal(),
        11 => sim.hosts[n].started = sim.hosts[n].started.saturating_sub(1 << (argument & 0x0f)),
        12 => sim.hosts[n].started += 1 << (argument & 0x1f),
        which @ 13..=15 if runs => set(sim, n, which - 13, argument),
        16 if runs => {
            let address = sim.addresses[usize::from(argument >> 4) % sim.addresses.len()];
            let frame = frame(address, argument & 7);
            sim.act(n, |speaker| {
                let _ = speaker.handle_frame(LINK, &frame, now);
            });
        }
        17 => (sim.loss, sim.double) = pick(&[(0, 0), (30, 20), (300, 0), (0, 500)], argument),
        18 => sim.max_delay = ms(pick(&[2, 0, 20, 200], argument)),
        // Links, peers and addresses that are gone, or others.
        19 if runs => sim.act(n, |speaker| speaker.set_links(Vec::new(), now)),
        20 if runs => {
            let peers = sim.hosts.iter().enumerate().filter(|(i, _)| argument >> i & 1 == 0);
            let peers = peers.map(|(_, host)| Peer::new(host.name.clone(), host.gossip)).collect();
            sim.act(n, |speaker| speaker.set_peers(peers, now));
        }
        21 if runs => {
            let wanted = sim.addresses.iter().enumerate().filter(|(i, _)| argument >> i & 1 == 0);
            let link = if argument & 0x80 == 0 { LINK } else { LinkIndex(99) };
            let wanted = wanted.map(|(_, address)| DesiredAddress::new(*address, [link])).collect();
            sim.act(n, |speaker| speaker.set_desired(wanted, now));
        }
        22 => {
            let address = sim.addresses[usize::from(argument >> 1) % sim.addresses.len()];
            sim.set_stranger((argument & 1 == 0).then_some((address, STRANGER)));
        }
        23 => sim.refusal = pick(&[0, 100, 500, 1000], argument),
        _ => {}
    }
}

/// Everything is well again, with the settings that are usual.
fn repair(sim: &mut Sim) {
    sim.heal();
    sim.set_stranger(None);
    (sim.loss, sim.double, sim.refusal, sim.max_delay) = (0, 0, 0, ms(2));
    sim.settings = openelb_l2::speaker::Settings::default();
    let peers: Vec<_> = sim.hosts.iter().map(|host| Peer::new(host.name.clone(), host.gossip)).collect();
    let (settings, now) = (sim.settings.clone(), sim.now);
    for n in 0..NODES {
        sim.resume(n);
        if sim.hosts[n].speaker.is_none() || sim.hosts[n].stopping {
            sim.kill(n);
            sim.start(n);
        }
        sim.act(n, |speaker| speaker.set_settings(settings.clone(), now));
        sim.act(n, |speaker| speaker.set_peers(peers.clone(), now));
        sim.set_link_up(n, true);
        sim.set_eligible(n, true);
    }
}

fuzz_target!(|input: &[u8]| {
    let Some(([seed, family], operations)) = input.split_first_chunk() else { return };
    let family = pick(&[Family::Both, Family::V4, Family::V6], *family);
    let mut sim = Sim::of_family(family, NODES, 3, u64::from(*seed));
    // What is measured is of no interest here, and would take most of the time.
    sim.sample_every = ms(1000);
    sim.start_all();
    for pair in operations.chunks_exact(2).take(64) {
        operate(&mut sim, pair[0], pair[1]);
    }
    repair(&mut sim);
    // A stranger is looked for again after ten seconds, and up to five more.
    sim.run(Duration::from_secs(40));
    for address in sim.addresses.clone() {
        let answers = sim.answers(address);
        assert!(
            matches!(answers[..], [(n, mac)] if sim.hosts[n].mac == mac),
            "{address} is answered by {answers:?}"
        );
    }
});
