//! Operations on three speakers on the LAN of `openelb-l2/tests/sim`: never a deadline in the past, never a frame with
//! another's address as its source; and once everything is well again, each address has one owner.
//!
//! Each octet is an operation: its low four bits say which, bits 4 and 5 on which node, bits 6 and 7 are its argument.
#![no_main]

#[path = "../../openelb-l2/tests/sim/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of openelb-l2")]
mod sim;

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use openelb_l2::{
    MacAddr,
    speaker::{Failback, StopMode},
    wire::arp,
};
use sim::{CLIENT, LINK, Sim, ms};

const NODES: usize = 3;
const STRANGER: MacAddr = MacAddr::new([2, 0xee, 0, 0, 0, 1]);

/// What a client or a stranger sends.
fn packet(kind: u8, sim: &Sim) -> arp::Packet {
    let std::net::IpAddr::V4(address) = sim.addresses[0] else { panic!("the model is IPv4") };
    match kind {
        0 => arp::Packet::announcement(arp::Operation::Request, address, STRANGER),
        1 => arp::Packet::announcement(arp::Operation::Reply, address, STRANGER),
        2 => arp::Packet::probe(address, CLIENT),
        _ => arp::Packet { sender_ip: [192, 0, 2, 250].into(), ..arp::Packet::probe(address, CLIENT) },
    }
}

fn operate(sim: &mut Sim, octet: u8) {
    let (n, argument) = (usize::from(octet >> 4 & 3), octet >> 6);
    if n >= NODES {
        // Time for everybody, from 1 ms to 8 s.
        sim.run(ms(1 << (octet & 0x0f).min(13)));
        return;
    }
    let other = (n + 1 + usize::from(argument & 1)) % NODES;
    let runs = sim.hosts[n].speaker.is_some() && !sim.hosts[n].suspended;
    let now = sim.now;
    match octet & 0x0f {
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
        11 => sim.hosts[n].started = sim.hosts[n].started.saturating_sub(1 << argument),
        12 if runs => {
            sim.settings.stand_in = Duration::from_secs([0, 5, 600, 600][usize::from(argument)]);
            sim.settings.failback =
                [Failback::Immediate, Failback::Manual, Failback::Delayed(ms(2000)), Failback::Manual]
                    [usize::from(argument)];
            let settings = sim.settings.clone();
            sim.act(n, |speaker| speaker.set_settings(settings, now));
        }
        13 if runs => {
            let frame = packet(argument, sim).to_frame(CLIENT, MacAddr::BROADCAST);
            sim.act(n, |speaker| {
                let _ = speaker.handle_frame(LINK, &frame, now);
            });
        }
        14 => (sim.loss, sim.double) = [(0, 0), (30, 20), (200, 0), (0, 500)][usize::from(argument)],
        15 if runs => {
            let links = Vec::new();
            sim.act(n, |speaker| speaker.set_links(links, now));
        }
        _ => {}
    }
}

fuzz_target!(|input: &[u8]| {
    let mut sim = Sim::with_all(NODES, 3, u64::from(input.first().copied().unwrap_or_default()));
    for octet in input.iter().take(64) {
        operate(&mut sim, *octet);
    }
    sim.heal();
    (sim.loss, sim.double) = (0, 0);
    for n in 0..NODES {
        sim.resume(n);
        if sim.hosts[n].speaker.is_none() || sim.hosts[n].stopping {
            sim.kill(n);
            sim.start(n);
        }
        sim.set_link_up(n, true);
        sim.set_eligible(n, true);
    }
    sim.run(Duration::from_secs(30));
    for address in sim.addresses.clone() {
        let answers = sim.answers(address);
        assert!(
            matches!(answers[..], [(n, mac)] if sim.hosts[n].mac == mac),
            "{address} is answered by {answers:?}"
        );
    }
});
