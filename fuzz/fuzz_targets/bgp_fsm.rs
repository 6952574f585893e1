//! Operations on the state machine of one neighbour: never two sessions at once, no deadline in the past, a bounded
//! answer to each input.
//!
//! The first octet is the configuration (bit 0 passive, bit 1 graceful restart, bits 2 and 3 our identifier); then each
//! octet is an operation: its low four bits say which, bit 4 on which connection, the upper three are its argument. The
//! operation 15 takes as many octets as its argument says, times eight, as bytes from the neighbour.
#![no_main]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::OnceLock,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use openelb_bgp::{
    fsm::{ConnectionInfo, Direction, DownReason, Fsm, FsmConfig, Output, State},
    wire::{Capability, Family, GracefulRestart, Message, Notification, Open, SessionContext, Update},
};

fn bytes(message: impl Into<Message>) -> Vec<u8> {
    let mut out = BytesMut::new();
    message.into().encode(&SessionContext::default(), &mut out).expect("it fits");
    out.to_vec()
}

fn open(asn: u32, restart: bool) -> Vec<u8> {
    let families = [Family::IPV4_UNICAST, Family::IPV6_UNICAST].map(Capability::Multiprotocol);
    let restart = restart
        .then(|| Capability::GracefulRestart(GracefulRestart { time: 60, ..GracefulRestart::default() }));
    bytes(Open::new(asn, 30, Ipv4Addr::new(192, 0, 2, 2), families.into_iter().chain(restart)))
}

/// One origin for all inputs: only differences matter.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

fuzz_target!(|input: &[u8]| {
    let Some((&flags, mut rest)) = input.split_first() else { return };
    let mut config = FsmConfig::new(64500, Ipv4Addr::new(192, 0, 2, 1 + (flags >> 2 & 3)));
    config.passive = flags & 1 != 0;
    config.graceful_restart =
        (flags & 2 != 0).then(|| GracefulRestart { time: 60, ..GracefulRestart::default() });
    let mut fsm = Fsm::new(config, u64::from(flags));
    let mut now = origin();
    let address = |last| SocketAddr::from((Ipv4Addr::new(192, 0, 2, last), 179));
    let ends = ConnectionInfo { local: address(1), remote: address(2) };
    let mut up = false;
    while let Some((&operation, tail)) = rest.split_first() {
        rest = tail;
        let direction = if operation & 0x10 == 0 { Direction::Outgoing } else { Direction::Incoming };
        let argument = operation >> 5;
        match operation & 0x0f {
            0 => fsm.start(now),
            1 => fsm.stop(Notification::peer_deconfigured(), now),
            2 => match argument {
                0 => fsm.reset(Notification::administrative_reset(""), now),
                1 => fsm.reset_after(Notification::bfd_down(), None, now),
                2 => fsm.reset_after(Notification::bfd_down(), Some(Duration::from_secs(90)), now),
                3 => fsm.abandon(DownReason::Replaced, now),
                4 => fsm.set_graceful_restart(None),
                5 => {
                    fsm.set_graceful_restart(Some(GracefulRestart { time: 60, ..GracefulRestart::default() }))
                }
                _ => fsm.replace_incoming(ends, now),
            },
            3 => fsm.handle_connected(direction, ends, now),
            4 => fsm.handle_connect_failed(now),
            5 => fsm.handle_closed(direction, now),
            6 => fsm.handle_bytes(direction, &open(64501, argument & 1 != 0), now),
            7 => fsm.handle_bytes(direction, &open(64500, argument & 1 != 0), now),
            8 => fsm.handle_bytes(direction, &bytes(Message::Keepalive), now),
            9 => fsm.handle_bytes(direction, &bytes(Notification::connection_collision()), now),
            10 => fsm.handle_bytes(direction, &bytes(Update::end_of_rib(Family::IPV4_UNICAST)), now),
            11 => fsm.handle_write_progress(direction, argument & 1 == 1, now),
            12 => fsm.handle_update_sent(now),
            13 | 14 => {
                let unit = if operation & 0x0f == 13 { 1 } else { 30_000 };
                now += Duration::from_millis(u64::from(argument) * 100 * unit + 1);
                fsm.handle_timeout(now);
                assert!(fsm.poll_timeout().is_none_or(|at| at > now), "a deadline has passed");
            }
            _ => {
                let (piece, tail) = rest.split_at(rest.len().min(usize::from(argument) * 8));
                fsm.handle_bytes(direction, piece, now);
                rest = tail;
            }
        }
        let mut outputs = 0;
        while let Some(output) = fsm.poll_output() {
            outputs += 1;
            // A connection that has waited may bring all that was sent ahead on it: 8 KiB of messages.
            assert!(outputs < 1000, "no end of output");
            match output {
                Output::Established(_) => {
                    assert!(!up, "two sessions at once");
                    up = true;
                }
                Output::Down(_) => up = false,
                _ => {}
            }
        }
        assert_eq!(up, fsm.state() == State::Established);
    }
});
