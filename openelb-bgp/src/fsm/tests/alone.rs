//! One machine, and a neighbour that is a script.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use proptest::prelude::*;

use super::{
    origin,
    support::{info, notification, outputs},
};
use crate::{
    fsm::{Direction, DownReason, Fsm, FsmConfig, Output, State},
    wire::{
        Capability, Family, Message, Notification, NotificationCode, Open, RouteRefresh, RouteRefreshKind,
        SessionContext, Update,
    },
};

const SECOND: Duration = Duration::from_secs(1);
const OUT: Direction = Direction::Outgoing;

fn config() -> FsmConfig {
    let mut config = FsmConfig::new(64500, Ipv4Addr::new(192, 0, 2, 1));
    config.peer_asn = Some(64501);
    config
}

fn open() -> Open {
    let families = [Family::IPV4_UNICAST, Family::IPV6_UNICAST].map(Capability::Multiprotocol);
    Open::new(64501, 30, Ipv4Addr::new(192, 0, 2, 2), families)
}

fn bytes(message: impl Into<Message>) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    message.into().encode(&SessionContext::default(), &mut bytes).unwrap();
    bytes.to_vec()
}

/// A machine whose connection is up, in this state.
fn in_state(config: FsmConfig, state: State, now: Instant) -> Fsm {
    let mut fsm = Fsm::new(config, 1);
    if state == State::Idle {
        return fsm;
    }
    fsm.start(now);
    if state == State::Connect {
        return fsm;
    }
    fsm.handle_connected(OUT, info(1, 2), now);
    if state > State::OpenSent {
        fsm.handle_bytes(OUT, &bytes(open()), now);
    }
    if state > State::OpenConfirm {
        fsm.handle_bytes(OUT, &bytes(Message::Keepalive), now);
    }
    assert_eq!(fsm.state(), state);
    outputs(&mut fsm);
    fsm
}

fn closes(outputs: &[Output]) -> bool {
    outputs.contains(&Output::Close { direction: OUT })
}

/// State × message, with what the neighbour is told (RFC 4271 §8.2.2, subcodes of RFC 6608 §3); `None`: the session
/// goes on.
#[test]
fn each_message_in_each_state() {
    let refresh = RouteRefresh { family: Family::IPV4_UNICAST, kind: RouteRefreshKind::Request };
    let update = bytes(Update::end_of_rib(Family::IPV4_UNICAST));
    let messages = [
        ("OPEN", bytes(open()), [None, Some(2), Some(3)]),
        ("KEEPALIVE", bytes(Message::Keepalive), [Some(1), None, None]),
        ("UPDATE", update, [Some(1), Some(2), None]),
        ("ROUTE-REFRESH", bytes(refresh), [Some(1), Some(2), None]),
    ];
    let now = origin();
    for (name, message, answers) in messages {
        for (state, answer) in
            [State::OpenSent, State::OpenConfirm, State::Established].into_iter().zip(answers)
        {
            let mut fsm = in_state(config(), state, now);
            fsm.handle_bytes(OUT, &message, now);
            let outputs = outputs(&mut fsm);
            let told = notification(&outputs).map(|n| (n.code, n.subcode));
            assert_eq!(
                told,
                answer.map(|subcode| (NotificationCode::FiniteStateMachine, subcode)),
                "{name} in {state}"
            );
            assert_eq!(closes(&outputs), answer.is_some(), "{name} in {state}");
            if answer.is_some() {
                assert_eq!(fsm.state(), State::Idle, "{name} in {state}");
            }
        }
    }
}

#[test]
fn a_notification_ends_the_session_and_is_not_answered() {
    for state in [State::OpenSent, State::OpenConfirm, State::Established] {
        let now = origin();
        let mut fsm = in_state(config(), state, now);
        let received = Notification::out_of_resources();
        fsm.handle_bytes(OUT, &bytes(received.clone()), now);
        let outputs = outputs(&mut fsm);
        assert_eq!(notification(&outputs), None, "in {state}");
        assert!(closes(&outputs), "in {state}");
        assert!(outputs.contains(&Output::Down(DownReason::Received(received))), "in {state}");
    }
}

#[test]
fn opens_that_do_not_fit_are_refused_with_the_reason() {
    let mut wrong_asn = open();
    wrong_asn = Open::new(64999, wrong_asn.hold_time, wrong_asn.router_id, wrong_asn.capabilities);
    let own_id = Open::new(64500, 30, Ipv4Addr::new(192, 0, 2, 1), open().capabilities);
    let mut ibgp = config();
    ibgp.peer_asn = None;
    let external = FsmConfig { external_only: true, ..ibgp.clone() };
    let internal = Open::new(64500, 30, Ipv4Addr::new(192, 0, 2, 2), open().capabilities);
    let vpn = Capability::Multiprotocol(Family { afi: 1, safi: 128 });
    let no_family = Open::new(64501, 30, Ipv4Addr::new(192, 0, 2, 2), [vpn]);
    let required = [Family::IPV4_UNICAST, Family::IPV6_UNICAST].map(Capability::Multiprotocol);
    let mut version = bytes(open());
    version[19] = 3;
    let mut hold = open();
    hold.hold_time = 2;
    let mut id = open();
    id.router_id = Ipv4Addr::UNSPECIFIED;
    let cases = [
        ("AS number", config(), bytes(wrong_asn), Notification::bad_peer_as()),
        ("our AS number", external, bytes(internal), Notification::bad_peer_as()),
        ("our identifier in our AS", ibgp, bytes(own_id), Notification::bad_router_id()),
        ("no common family", config(), bytes(no_family), Notification::unsupported_capability(&required)),
        ("version", config(), version, Notification::unsupported_version()),
        ("hold time", config(), bytes(hold), Notification::unacceptable_hold_time()),
        ("identifier 0.0.0.0", config(), bytes(id), Notification::bad_router_id()),
    ];
    for (name, config, message, expected) in cases {
        let now = origin();
        let mut fsm = in_state(config, State::OpenSent, now);
        fsm.handle_bytes(OUT, &message, now);
        let outputs = outputs(&mut fsm);
        assert_eq!(notification(&outputs), Some(expected), "{name}");
        assert!(closes(&outputs) && fsm.state() == State::Idle, "{name}");
    }
}

#[test]
fn idle_refuses_connections_and_says_nothing() {
    let now = origin();
    let mut fsm = in_state(config(), State::Idle, now);
    fsm.handle_connected(Direction::Incoming, info(1, 2), now);
    assert_eq!(outputs(&mut fsm), [Output::Close { direction: Direction::Incoming }]);
}

/// The pause after an error is one: neither a link that is lost in it nor the end of a connection shortens it.
#[test]
fn no_connection_is_opened_while_it_pauses() {
    let now = origin();
    let mut fsm = in_state(config(), State::Established, now);
    fsm.reset_after(Notification::out_of_resources(), Some(SECOND * 300), now);
    outputs(&mut fsm);
    fsm.abandon(DownReason::LinkDown { interface: "eth1".to_owned() }, now + SECOND);
    fsm.handle_closed(OUT, now + SECOND);
    for second in 2..300 {
        fsm.handle_timeout(now + SECOND * second);
        assert_eq!((fsm.state(), outputs(&mut fsm)), (State::Idle, vec![]), "after {second} s");
    }
    fsm.handle_timeout(now + SECOND * 300);
    assert!(outputs(&mut fsm).contains(&Output::Connect), "the pause is over");
}

#[test]
fn a_start_after_a_pause_refuses_connections_until_then() {
    let now = origin();
    let mut fsm = Fsm::new(config(), 1);
    fsm.start_after(SECOND * 4, now);
    fsm.handle_connected(Direction::Incoming, info(1, 2), now);
    assert_eq!(outputs(&mut fsm), [Output::Close { direction: Direction::Incoming }]);
    let due = fsm.poll_timeout().unwrap();
    assert!((SECOND * 3..=SECOND * 4).contains(&(due - now)), "{:?}", due - now);
    fsm.handle_timeout(due);
    assert!(outputs(&mut fsm).contains(&Output::Connect));
}

#[test]
fn pauses_double_up_to_the_longest_and_start_anew_after_a_good_session() {
    let mut now = origin();
    let mut fsm = in_state(config(), State::Connect, now);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        fsm.handle_connect_failed(now);
        let next = fsm.poll_timeout().unwrap();
        pauses.push(next - now);
        now = next;
        fsm.handle_timeout(now);
        assert!(outputs(&mut fsm).contains(&Output::Connect));
    }
    for (number, pause) in pauses.iter().enumerate() {
        let full = SECOND * (1 << number.min(10)).min(60);
        assert!((full * 3 / 4..=full).contains(pause), "{number}: {pause:?}");
    }
    // A session of a minute, lost: the next pause is the first again.
    fsm.handle_connected(OUT, info(1, 2), now);
    fsm.handle_bytes(OUT, &bytes(open()), now);
    fsm.handle_bytes(OUT, &bytes(Message::Keepalive), now);
    assert_eq!(fsm.state(), State::Established);
    now += SECOND * 60;
    fsm.handle_closed(OUT, now);
    let pause = fsm.poll_timeout().unwrap() - now;
    assert!(pause <= SECOND, "{pause:?}");
}

#[test]
fn a_neighbour_that_never_sends_its_open_is_given_up_after_four_minutes() {
    let now = origin();
    let mut fsm = in_state(config(), State::OpenSent, now);
    fsm.handle_timeout(now + SECOND * 239);
    assert_eq!(fsm.state(), State::OpenSent);
    fsm.handle_timeout(now + SECOND * 240);
    assert_eq!(notification(&outputs(&mut fsm)), Some(Notification::hold_timer_expired()));
}

#[test]
fn a_neighbour_that_does_not_read_is_given_up_after_the_send_hold_time() {
    let mut now = origin();
    let mut fsm = in_state(config(), State::Established, now);
    // It sends keepalives all the time, and nothing that we send is taken.
    let until = now + SECOND * 481;
    while now < until && fsm.state() == State::Established {
        now += SECOND * 5;
        fsm.handle_bytes(OUT, &bytes(Message::Keepalive), now);
        fsm.handle_timeout(now);
    }
    let outputs = outputs(&mut fsm);
    assert!(outputs.contains(&Output::Down(DownReason::SendHold)));
    assert_eq!(notification(&outputs), Some(Notification::send_hold_timer_expired()));
}

#[test]
fn hold_time_zero_needs_no_keepalives() {
    let now = origin();
    let mut zero = open();
    zero.hold_time = 0;
    let mut fsm = in_state(config(), State::OpenSent, now);
    fsm.handle_bytes(OUT, &bytes(zero), now);
    fsm.handle_bytes(OUT, &bytes(Message::Keepalive), now);
    fsm.handle_write_progress(OUT, false, now);
    outputs(&mut fsm);
    assert_eq!(fsm.poll_timeout(), None);
    fsm.handle_timeout(now + SECOND * 100_000);
    assert_eq!((fsm.state(), outputs(&mut fsm).len()), (State::Established, 0));
    // But a neighbour that stops to read what waits for it is noticed.
    let now = now + SECOND * 100_000;
    fsm.handle_update_sent(now);
    fsm.handle_write_progress(OUT, true, now);
    let due = fsm.poll_timeout().expect("the send hold time runs on");
    fsm.handle_timeout(due);
    assert!(outputs(&mut fsm).contains(&Output::Down(DownReason::SendHold)));
}

#[test]
fn timeouts_too_early_or_again_do_nothing() {
    let now = origin();
    let mut fsm = in_state(config(), State::Established, now);
    let before = fsm.poll_timeout();
    for _ in 0..100 {
        fsm.handle_timeout(now);
    }
    assert_eq!((fsm.poll_timeout(), outputs(&mut fsm).len()), (before, 0));
}

/// While our own attempt would win, the neighbour's connection waits; what it sends ahead is bounded.
#[test]
fn a_flood_on_a_connection_that_waits_ends_it() {
    let now = origin();
    let mut config = config();
    config.router_id = Ipv4Addr::new(192, 0, 2, 99);
    let mut fsm = in_state(config, State::Connect, now);
    let incoming = Direction::Incoming;
    fsm.handle_connected(incoming, info(1, 2), now);
    fsm.handle_bytes(incoming, &bytes(open()), now);
    assert_eq!(fsm.state(), State::OpenSent, "it waits");
    for _ in 0..500 {
        fsm.handle_bytes(incoming, &bytes(Message::Keepalive), now);
    }
    assert!(outputs(&mut fsm).contains(&Output::Close { direction: incoming }));
}

#[test]
fn a_connection_that_waits_is_taken_when_the_attempt_fails_or_after_a_second() {
    for fails in [true, false] {
        let now = origin();
        let mut config = config();
        config.router_id = Ipv4Addr::new(192, 0, 2, 99);
        let mut fsm = in_state(config, State::Connect, now);
        fsm.handle_connected(Direction::Incoming, info(1, 2), now);
        fsm.handle_bytes(Direction::Incoming, &[bytes(open()), bytes(Message::Keepalive)].concat(), now);
        if fails {
            fsm.handle_connect_failed(now);
        } else {
            fsm.handle_timeout(now + SECOND);
        }
        assert_eq!(fsm.state(), State::Established, "attempt fails: {fails}");
    }
}

/// RFC 7313 §5 echoes the whole message; on an extended session that may be longer than a NOTIFICATION.
#[test]
fn an_echo_that_is_too_long_is_cut_and_sent() {
    let now = origin();
    let mut extended = open();
    extended.capabilities.push(Capability::ExtendedMessage);
    let mut fsm = in_state(config(), State::OpenSent, now);
    fsm.handle_bytes(OUT, &bytes(extended), now);
    fsm.handle_bytes(OUT, &bytes(Message::Keepalive), now);
    outputs(&mut fsm);
    let body = [&[0, 1, 1, 1][..], &[0; 8000]].concat();
    let length = u16::try_from(19 + body.len()).unwrap().to_be_bytes();
    fsm.handle_bytes(OUT, &[&[0xff; 16][..], &length, &[5], &body].concat(), now);
    let told = notification(&outputs(&mut fsm)).expect("it is told");
    assert_eq!((told.code, told.subcode, told.data.len()), (NotificationCode::RouteRefresh, 1, 4075));
}

/// Anything that can happen to a machine.
#[derive(Clone, Debug)]
enum Op {
    Start,
    Stop,
    Reset,
    Connected(bool),
    ConnectFailed,
    Closed(bool),
    Message(bool, u8),
    Garbage(bool, Vec<u8>),
    Written(bool),
    UpdateSent,
    Wait(u32),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => Just(Op::Start),
        1 => Just(Op::Stop),
        1 => Just(Op::Reset),
        6 => any::<bool>().prop_map(Op::Connected),
        1 => Just(Op::ConnectFailed),
        2 => any::<bool>().prop_map(Op::Closed),
        12 => (any::<bool>(), 0..6_u8).prop_map(|(incoming, kind)| Op::Message(incoming, kind)),
        1 => (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..64)).prop_map(|(i, b)| Op::Garbage(i, b)),
        1 => any::<bool>().prop_map(Op::Written),
        1 => Just(Op::UpdateSent),
        4 => (0..600_000_u32).prop_map(Op::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_sequence_keeps_one_session_at_most_and_its_deadlines_ahead(
        ops in proptest::collection::vec(op(), 1..80),
        id in 1..4_u8,
        passive: bool,
        seed: u64,
    ) {
        let mut now = origin();
        let mut config = config();
        config.router_id = Ipv4Addr::new(192, 0, 2, id);
        config.passive = passive;
        let mut fsm = Fsm::new(config, seed);
        let mut up = false;
        let direction = |incoming| if incoming { Direction::Incoming } else { OUT };
        for op in ops {
            match op {
                Op::Start => fsm.start(now),
                Op::Stop => fsm.stop(Notification::peer_deconfigured(), now),
                Op::Reset => fsm.reset(Notification::administrative_reset(""), now),
                Op::Connected(incoming) => fsm.handle_connected(direction(incoming), info(1, 2), now),
                Op::ConnectFailed => fsm.handle_connect_failed(now),
                Op::Closed(incoming) => fsm.handle_closed(direction(incoming), now),
                Op::Message(incoming, kind) => {
                    let message = match kind {
                        0..3 => bytes(open()),
                        3 => bytes(Message::Keepalive),
                        4 => bytes(Notification::connection_collision()),
                        _ => bytes(Update::end_of_rib(Family::IPV6_UNICAST)),
                    };
                    fsm.handle_bytes(direction(incoming), &message, now);
                }
                Op::Garbage(incoming, bytes) => fsm.handle_bytes(direction(incoming), &bytes, now),
                Op::Written(incoming) => fsm.handle_write_progress(direction(incoming), false, now),
                Op::UpdateSent => fsm.handle_update_sent(now),
                Op::Wait(milliseconds) => {
                    now += Duration::from_millis(u64::from(milliseconds));
                    fsm.handle_timeout(now);
                    prop_assert!(fsm.poll_timeout().is_none_or(|at| at > now), "a deadline has passed");
                }
            }
            let outputs = outputs(&mut fsm);
            prop_assert!(outputs.len() < 40, "{outputs:?}");
            for output in outputs {
                match output {
                    Output::Established(_) => {
                        prop_assert!(!up, "two sessions at once");
                        up = true;
                    }
                    Output::Down(_) => up = false,
                    _ => {}
                }
            }
            prop_assert_eq!(up, fsm.state() == State::Established);
        }
    }
}
