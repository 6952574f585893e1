//! BFD: any octets as a packet, and operations on an endpoint with a few sessions: what is decoded is written and read
//! the same, no deadline is left in the past, the answer to each input is bounded, nothing false is told.
//!
//! Each operation begins with an octet: its low three bits say which, the upper five are its argument. Packets take the
//! next 24 octets; where bit 7 is set they are given to the session as its neighbour would send them, with the right
//! discriminator.
#![no_main]

use std::{
    net::IpAddr,
    sync::OnceLock,
    time::{Duration, Instant},
};

use libfuzzer_sys::fuzz_target;
use openelb_bgp::bfd::{
    Arrival, ControlPacket, Diagnostic, Endpoint, EndpointOutput, PACKET_LEN, SessionConfig, State, Timers,
};

/// One origin for all inputs: only differences matter.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

fn neighbour(index: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, index])
}

/// Sessions by the bits of `set`: with the neighbours 1 to 4, the last one over several hops.
fn sessions(set: u8) -> impl Iterator<Item = SessionConfig> {
    (0..4_u8).filter(move |index| set >> index & 1 != 0).map(move |index| {
        let name = format!("n{index}");
        let mut session = if index == 3 {
            SessionConfig::multihop(name, neighbour(index))
        } else {
            SessionConfig::single_hop(name, neighbour(index))
        };
        let interval = Duration::from_millis(50 << (set >> 4 & 1));
        session.timers = Timers {
            desired_min_tx: interval,
            required_min_rx: interval,
            passive: index == 2,
            ..Timers::default()
        };
        // One is held when it is removed, two may go on from before a restart.
        session.hold = Duration::from_secs(if index == 0 { 60 } else { 0 });
        session.resume = index < 2;
        session
    })
}

fuzz_target!(|input: &[u8]| {
    if let Ok(packet) = ControlPacket::decode(input) {
        assert_eq!(ControlPacket::decode(&packet.encode()), Ok(packet), "written and read the same");
    }
    let mut now = origin();
    let mut endpoint = Endpoint::new(7);
    endpoint.set_sessions(sessions(0x0f), now);
    let mut up = [false; 4];
    let mut rest = input;
    while let Some((&operation, tail)) = rest.split_first() {
        rest = tail;
        let argument = operation >> 3;
        match operation & 7 {
            0 => endpoint.set_sessions(sessions(argument), now),
            1 => now += Duration::from_millis(1 << (argument & 15)),
            2 => now = endpoint.poll_timeout().map_or(now, |at| at.max(now)),
            _ => {
                let Some((octets, tail)) = rest.split_first_chunk::<PACKET_LEN>() else { return };
                rest = tail;
                let index = argument & 3;
                let mut bytes = *octets;
                if operation & 0x80 != 0 {
                    let name = format!("n{index}");
                    let mut known = endpoint.sessions().filter(|(_, config, _)| *config.name == *name);
                    let local = known.next().map_or(0, |(_, _, status)| status.local_discriminator);
                    let [first, second, interval, ..] = *octets;
                    bytes = ControlPacket {
                        diagnostic: Diagnostic::new(first),
                        state: [State::AdminDown, State::Down, State::Init, State::Up]
                            [usize::from(second & 3)],
                        poll: second & 4 != 0,
                        final_: second & 8 != 0,
                        demand: second & 16 != 0,
                        detect_multiplier: 1 + (second >> 5),
                        my_discriminator: 1 + u32::from(index),
                        your_discriminator: local,
                        desired_min_tx: Duration::from_millis(interval.into()),
                        required_min_rx: Duration::from_millis(interval.into()),
                        ..ControlPacket::default()
                    }
                    .encode();
                }
                let arrival = Arrival {
                    remote: neighbour(index),
                    local: neighbour(100),
                    interface: 2,
                    ttl: if argument & 4 != 0 { 254 } else { 255 },
                    multihop: index == 3,
                };
                let _ = endpoint.handle_packet(&arrival, &bytes, now);
            }
        }
        endpoint.handle_timeout(now);
        let mut outputs = 0;
        while let Some(output) = endpoint.poll_output(now) {
            outputs += 1;
            assert!(outputs <= 64, "a bounded answer to each input");
            match output {
                EndpointOutput::Send { bytes, .. } => {
                    ControlPacket::decode(&bytes).expect("what is sent can be read");
                }
                EndpointOutput::Changed { name, change } => {
                    assert_ne!(change.from, change.to);
                    let index = usize::from(name.as_bytes()[1] - b'0');
                    if change.is_failure() {
                        assert!(up[index], "only what was up can fail");
                    }
                    up[index] = change.to == State::Up;
                }
                EndpointOutput::Closed { .. } => {}
            }
        }
        assert!(endpoint.poll_timeout().is_none_or(|at| at > now), "no deadline in the past");
        assert!(endpoint.sessions().count() <= 4);
    }
});
