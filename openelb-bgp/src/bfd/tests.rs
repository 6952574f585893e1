//! Each rule of RFC 5880 that we act on, on virtual time.

use std::{
    num::NonZeroU32,
    sync::OnceLock,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;

mod restart;

const MS: Duration = Duration::from_millis(1);
const US: Duration = Duration::from_micros(1);

#[allow(clippy::disallowed_methods, reason = "an origin for virtual time: only differences matter")]
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

fn timers(multiplier: u8, tx: u32, rx: u32) -> Timers {
    Timers {
        detect_multiplier: multiplier,
        desired_min_tx: tx * MS,
        required_min_rx: rx * MS,
        passive: false,
    }
}

/// Two sessions and a wire that can be cut, on one virtual clock.
struct Pair {
    ends: [Session; 2],
    now: Instant,
    delay: Duration,
    cut: [bool; 2],
    on_the_way: Vec<(Instant, usize, ControlPacket)>,
    /// What each end has sent, and when.
    sent: [Vec<(Instant, ControlPacket)>; 2],
    changes: [Vec<StateChange>; 2],
}

impl Pair {
    fn new(a: Timers, b: Timers) -> Self {
        let session = |timers, n| Session::new(timers, NonZeroU32::new(n).unwrap(), n.into(), origin());
        Self {
            ends: [session(a, 11), session(b, 22)],
            now: origin(),
            delay: MS,
            cut: [false; 2],
            on_the_way: Vec::new(),
            sent: [Vec::new(), Vec::new()],
            changes: [Vec::new(), Vec::new()],
        }
    }

    fn up(a: Timers, b: Timers) -> Self {
        let mut pair = Self::new(a, b);
        pair.run(10_000 * MS);
        assert_eq!(pair.states(), [State::Up; 2]);
        pair
    }

    fn states(&self) -> [State; 2] {
        [self.ends[0].state(), self.ends[1].state()]
    }

    fn pump(&mut self) {
        for end in 0..2 {
            while let Some(packet) = self.ends[end].poll_transmit(self.now) {
                let packet = ControlPacket::decode(&packet.encode()).unwrap();
                assert!(!(packet.poll && packet.final_), "P and F exclude each other");
                self.sent[end].push((self.now, packet));
                if !self.cut[end] {
                    self.on_the_way.push((self.now + self.delay, 1 - end, packet));
                }
            }
            while let Some(change) = self.ends[end].poll_event() {
                self.changes[end].push(change);
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.pump();
        loop {
            let arrival = self.on_the_way.iter().map(|(at, ..)| *at);
            let due = self.ends.iter().filter_map(Session::poll_timeout).chain(arrival).min();
            let Some(at) = due.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            let now = self.now;
            let (due, rest) = self.on_the_way.drain(..).partition(|(at, ..)| *at <= now);
            self.on_the_way = rest;
            let due: Vec<(Instant, usize, ControlPacket)> = due;
            for (_, to, packet) in due {
                let _ = self.ends[to].handle_packet(&packet, now);
            }
            self.ends.iter_mut().for_each(|end| end.handle_timeout(now));
            self.pump();
        }
        self.now = end;
    }

    /// The pauses between periodic packets of an end since a time.
    fn pauses(&self, end: usize, since: Instant) -> Vec<Duration> {
        let sent: Vec<_> =
            self.sent[end].iter().filter(|(at, p)| *at >= since && !p.final_).map(|(at, _)| *at).collect();
        sent.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

fn packet(state: State, my: u32, your: u32) -> ControlPacket {
    ControlPacket {
        state,
        my_discriminator: my,
        your_discriminator: your,
        detect_multiplier: 3,
        desired_min_tx: 300 * MS,
        required_min_rx: 300 * MS,
        ..ControlPacket::default()
    }
}

#[test]
fn a_packet_of_the_rfc_is_these_bytes() {
    let packet = ControlPacket {
        diagnostic: Diagnostic::NEIGHBOR_DOWN,
        poll: true,
        desired_min_tx: Duration::from_secs(1),
        required_min_rx: 300 * MS,
        required_min_echo_rx: 50 * MS,
        ..packet(State::Init, 0x0102_0304, 0x0a0b_0c0d)
    };
    let bytes = [
        0x23, 0xa0, 3, 24, 1, 2, 3, 4, 0x0a, 0x0b, 0x0c, 0x0d, 0, 0x0f, 0x42, 0x40, 0, 4, 0x93, 0xe0, 0, 0,
        0xc3, 0x50,
    ];
    assert_eq!(packet.encode(), bytes);
    assert_eq!(ControlPacket::decode(&bytes), Ok(packet));
    let padded: Vec<u8> = bytes.into_iter().chain([9; 7]).collect();
    assert_eq!(ControlPacket::decode(&padded), Ok(packet), "what follows the length is not looked at");
}

#[test]
fn each_check_of_reception_has_its_name() {
    let good = packet(State::Up, 7, 8).encode();
    let with = |index: usize, value: u8| {
        let mut bytes = good;
        bytes[index] = value;
        ControlPacket::decode(&bytes)
    };
    assert_eq!(ControlPacket::decode(&good[..3]), Err(Discard::Short { len: 3 }));
    assert_eq!(with(0, 0x40), Err(Discard::Version(2)));
    assert_eq!(with(0, 0), Err(Discard::Version(0)));
    assert_eq!(with(3, 23), Err(Discard::Length(23)));
    assert_eq!(with(3, 25), Err(Discard::Truncated { length: 25, received: 24 }));
    assert_eq!(ControlPacket::decode(&good[..20]), Err(Discard::Truncated { length: 24, received: 20 }));
    assert_eq!(with(1, 0xc4), Err(Discard::Length(24)), "with authentication a packet has 26 octets or more");
    assert_eq!(with(2, 0), Err(Discard::DetectMultiplierZero));
    assert_eq!(with(1, 0xc1), Err(Discard::Multipoint));
    assert_eq!(ControlPacket::decode(&packet(State::Up, 0, 8).encode()), Err(Discard::MyDiscriminatorZero));
    for state in [State::Init, State::Up] {
        let bytes = packet(state, 7, 0).encode();
        assert_eq!(ControlPacket::decode(&bytes), Err(Discard::YourDiscriminatorZero(state)));
    }
    for state in [State::AdminDown, State::Down] {
        assert!(ControlPacket::decode(&packet(state, 7, 0).encode()).is_ok());
    }
    let mut authenticated = good.to_vec();
    authenticated[1] |= 0x04;
    authenticated[3] = 26;
    authenticated.extend([1, 2]);
    let error = ControlPacket::decode(&authenticated).unwrap_err();
    assert_eq!(error, Discard::Authenticated);
    assert!(error.to_string().contains("remove it at the neighbour"));
}

#[test]
fn the_state_machine_has_these_transitions() {
    use State::{AdminDown, Down, Init, Up};
    // RFC 5880 §6.8.6: ours, what is received, ours afterwards.
    let table = [
        (Down, AdminDown, Down),
        (Down, Down, Init),
        (Down, Init, Up),
        (Down, Up, Down),
        (Init, AdminDown, Down),
        (Init, Down, Init),
        (Init, Init, Up),
        (Init, Up, Up),
        (Up, AdminDown, Down),
        (Up, Down, Down),
        (Up, Init, Up),
        (Up, Up, Up),
        (AdminDown, Down, AdminDown),
        (AdminDown, Up, AdminDown),
    ];
    for (before, received, after) in table {
        let mut session = Session::new(Timers::default(), NonZeroU32::new(1).unwrap(), 1, origin());
        match before {
            Init => session.handle_packet(&packet(Down, 2, 0), origin()).unwrap(),
            Up => session.handle_packet(&packet(Init, 2, 1), origin()).unwrap(),
            AdminDown => session.set_admin_down(true, origin()),
            Down => {}
        }
        assert_eq!(session.state(), before);
        let _ = session.handle_packet(&packet(received, 2, 1), origin());
        assert_eq!(session.state(), after, "{before} receives {received}");
    }
}

#[test]
fn both_come_up_from_silence_and_then_send_at_the_agreed_rate() {
    let mut pair = Pair::new(timers(3, 50, 50), timers(3, 300, 100));
    pair.run(3_000 * MS);
    assert_eq!(pair.states(), [State::Up; 2]);
    let since = pair.now;
    pair.run(20_000 * MS);
    // The slower of what one wants to send and the other can receive, less at most a quarter.
    for (end, interval) in [(0, 100), (1, 300)] {
        let pauses = pair.pauses(end, since);
        assert!(pauses.len() > 50, "{} packets", pauses.len());
        assert!(pauses.iter().all(|p| (interval * 75 / 100 * MS..=interval * MS).contains(p)), "{pauses:?}");
        assert!(pauses.iter().any(|p| *p < interval * 80 / 100 * MS), "jitter reaches down");
        assert!(pauses.iter().any(|p| *p > interval * 95 / 100 * MS), "and up");
    }
    assert_eq!(pair.ends[0].status().detection_time, Some(900 * MS), "3 x max(50, 300)");
    assert_eq!(pair.ends[1].status().detection_time, Some(300 * MS), "3 x max(100, 50)");
    let polled = pair.sent[0].iter().filter(|(_, p)| p.poll).count();
    let last = pair.sent[0].last().unwrap().1;
    assert!(polled > 0 && !last.poll, "the change from the slow rate was polled, and the poll ended");
    assert!(pair.sent[1].iter().any(|(_, p)| p.final_), "it was answered");
    assert!(pair.sent.iter().flatten().all(|(_, p)| !p.control_plane_independent), "C is never set");
}

#[test]
fn with_multiplier_1_jitter_ends_at_nine_tenths() {
    let mut pair = Pair::up(timers(1, 100, 100), timers(1, 100, 100));
    let since = pair.now;
    pair.run(20_000 * MS);
    let pauses = pair.pauses(0, since);
    assert!(pauses.iter().all(|p| (75 * MS..=90 * MS).contains(p)), "{pauses:?}");
    assert_eq!(pair.states(), [State::Up; 2]);
    assert_eq!(pair.ends[0].status().counters.down, 0);
}

#[test]
fn while_not_up_nothing_is_sent_faster_than_once_a_second() {
    let mut pair = Pair::new(timers(3, 10, 10), timers(3, 10, 10));
    pair.cut = [true; 2];
    pair.run(20_000 * MS);
    let pauses = pair.pauses(0, origin());
    assert!(pauses.iter().all(|p| (750 * MS..=1_000 * MS).contains(p)), "{pauses:?}");
    assert!(pair.sent[0].iter().all(|(_, p)| p.desired_min_tx == SLOW_INTERVAL && p.state == State::Down));
}

#[test]
fn silence_for_the_detection_time_is_down_and_not_earlier() {
    let mut pair = Pair::up(timers(3, 50, 50), timers(3, 50, 50));
    pair.cut[1] = true;
    let last = pair.sent[1].iter().map(|(at, _)| *at + pair.delay).max().unwrap();
    let down_at = last + 150 * MS;
    pair.run(down_at - US - pair.now);
    assert_eq!(pair.ends[0].state(), State::Up);
    pair.run(US);
    assert_eq!(pair.ends[0].state(), State::Down);
    let change = *pair.changes[0].last().unwrap();
    assert_eq!((change.cause, change.at, change.is_failure()), (Cause::TimeExpired, down_at, true));
    let status = pair.ends[0].status();
    assert_eq!((status.diagnostic, status.remote_discriminator), (Diagnostic::TIME_EXPIRED, 0));
    // The neighbour hears of it at once.
    pair.run(2 * MS);
    let change = *pair.changes[1].last().unwrap();
    assert_eq!((change.to, change.cause, change.is_failure()), (State::Down, Cause::NeighborDown, true));
    // And the session comes up again when the wire is whole.
    pair.cut[1] = false;
    pair.run(5_000 * MS);
    assert_eq!(pair.states(), [State::Up; 2]);
}

#[test]
fn admin_down_of_the_neighbour_is_no_failure() {
    let mut pair = Pair::up(timers(3, 50, 50), timers(3, 50, 50));
    let now = pair.now;
    pair.ends[1].set_admin_down(true, now);
    pair.run(2 * MS);
    let change = *pair.changes[0].last().unwrap();
    assert_eq!((change.to, change.cause), (State::Down, Cause::NeighborAdminDown));
    assert!(!change.is_failure());
    pair.run(3_000 * MS);
    let last = pair.sent[1].last().unwrap().1;
    assert_eq!((last.state, last.diagnostic), (State::AdminDown, Diagnostic::ADMINISTRATIVELY_DOWN));
    let now = pair.now;
    pair.ends[1].set_admin_down(false, now);
    pair.run(5_000 * MS);
    assert_eq!(pair.states(), [State::Up; 2]);
}

#[test]
fn changed_timers_are_polled_and_lose_no_session() {
    let mut pair = Pair::up(timers(3, 50, 50), timers(3, 50, 50));
    let now = pair.now;
    pair.cut = [true, false];
    pair.ends[0].set_timers(timers(3, 400, 20), now);
    pair.run(100 * MS);
    let (_, last) = *pair.sent[0].last().unwrap();
    assert!(last.poll && last.desired_min_tx == 400 * MS && last.required_min_rx == 20 * MS);
    assert!(pair.pauses(0, now).iter().all(|p| *p <= 50 * MS), "the slower rate waits for the final");
    assert_eq!(pair.ends[0].status().detection_time, Some(150 * MS), "so does the faster detection");
    pair.cut = [false; 2];
    pair.run(3_000 * MS);
    assert_eq!(pair.ends[0].status().transmit_interval, Some(400 * MS));
    assert_eq!(pair.ends[0].status().detection_time, Some(150 * MS), "the neighbour sends every 50 ms");
    assert_eq!(pair.ends[1].status().detection_time, Some(1_200 * MS));
    let now = pair.now;
    pair.ends[1].set_timers(timers(5, 20, 50), now);
    pair.run(2_000 * MS);
    assert_eq!(pair.ends[0].status().detection_time, Some(100 * MS));
    assert_eq!(pair.states(), [State::Up; 2]);
    assert_eq!([0, 1].map(|end| pair.ends[end].status().counters.down), [0, 0]);
}

#[test]
fn a_second_change_while_a_poll_runs_is_polled_too() {
    let mut pair = Pair::up(timers(3, 50, 50), timers(3, 50, 50));
    pair.delay = 60 * MS;
    pair.run(500 * MS);
    let now = pair.now;
    pair.ends[0].set_timers(timers(3, 200, 50), now);
    pair.run(45 * MS);
    let now = pair.now;
    pair.ends[0].set_timers(timers(3, 600, 50), now);
    pair.run(5_000 * MS);
    assert_eq!(pair.ends[0].status().transmit_interval, Some(600 * MS));
    assert_eq!(pair.ends[1].status().detection_time, Some(1_800 * MS));
    assert_eq!(pair.states(), [State::Up; 2]);
}

#[test]
fn a_neighbour_that_cannot_receive_or_is_in_demand_mode_is_sent_nothing_but_finals() {
    for quiet in [
        ControlPacket { required_min_rx: Duration::ZERO, ..packet(State::Up, 2, 1) },
        ControlPacket { demand: true, final_: true, ..packet(State::Up, 2, 1) },
    ] {
        let mut session = Session::new(timers(3, 300, 300), NonZeroU32::new(1).unwrap(), 1, origin());
        session.handle_packet(&packet(State::Init, 2, 1), origin()).unwrap();
        while session.poll_transmit(origin()).is_some() {}
        session.handle_packet(&quiet, origin()).unwrap();
        assert_eq!(session.status().transmit_interval, None);
        assert!(session.poll_transmit(origin() + 800 * MS).is_none());
        session.handle_packet(&ControlPacket { poll: true, ..quiet }, origin()).unwrap();
        let answer = session.poll_transmit(origin()).unwrap();
        assert!(answer.final_ && !answer.poll);
        // It can receive again: the next packet is due within an interval.
        session.handle_packet(&packet(State::Up, 2, 1), origin() + 100 * MS).unwrap();
        assert!(session.poll_transmit(origin() + 500 * MS).is_some());
    }
}

#[test]
fn a_passive_session_waits_for_the_neighbour() {
    let passive = Timers { passive: true, ..timers(3, 50, 50) };
    let mut pair = Pair::new(passive, passive);
    pair.run(10_000 * MS);
    assert!(pair.sent.iter().all(Vec::is_empty));
    let mut pair = Pair::new(passive, timers(3, 50, 50));
    pair.run(10_000 * MS);
    assert_eq!(pair.states(), [State::Up; 2]);
    pair.cut = [true; 2];
    pair.run(5_000 * MS);
    let since = pair.now;
    pair.run(5_000 * MS);
    assert!(pair.pauses(0, since).is_empty(), "silent again once the neighbour is lost");
}

#[test]
fn a_session_that_waits_comes_up_when_the_wait_is_over_or_called_off_and_one_that_is_up_stays() {
    let plain = timers(3, 300, 300);
    for called_off in [false, true] {
        let mut pair = Pair::up(plain, plain);
        let until = pair.now + 30_000 * MS;
        pair.ends[0].set_wait(Some(until), pair.now);
        pair.run(5_000 * MS);
        assert_eq!(pair.states(), [State::Up; 2], "nothing was lost");
        // The neighbour restarts: it says Down, and hears nothing any more.
        pair.ends[1] = Session::new(plain, NonZeroU32::new(33).unwrap(), 33, pair.now);
        pair.run(100 * MS);
        assert_eq!(pair.states(), [State::Down; 2]);
        let sent = pair.sent[0].len();
        pair.run(10_000 * MS);
        assert_eq!((pair.states(), pair.sent[0].len()), ([State::Down; 2], sent));
        if called_off {
            pair.ends[0].set_wait(None, pair.now);
        } else {
            pair.run(until - pair.now);
        }
        pair.run(5_000 * MS);
        assert_eq!(pair.states(), [State::Up; 2]);
    }
}

fn arrival(remote: &str, interface: u32, ttl: u8, multihop: bool) -> Arrival {
    Arrival {
        remote: remote.parse().unwrap(),
        local: "192.0.2.10".parse().unwrap(),
        interface,
        ttl,
        multihop,
    }
}

fn outputs(endpoint: &mut Endpoint, now: Instant) -> Vec<EndpointOutput> {
    std::iter::from_fn(|| endpoint.poll_output(now)).collect()
}

fn discriminator(endpoint: &Endpoint, name: &str) -> u32 {
    endpoint.sessions().find(|(_, config, _)| &*config.name == name).unwrap().2.local_discriminator
}

#[test]
fn sessions_are_told_by_discriminator_then_by_address_interface_and_port() {
    let now = origin();
    let mut endpoint = Endpoint::new(5);
    let link_local = |name: &str, interface| SessionConfig {
        interface,
        ..SessionConfig::single_hop(name, "fe80::1".parse().unwrap())
    };
    endpoint.set_sessions(
        [
            link_local("eth0", 2),
            link_local("eth1", 3),
            SessionConfig::single_hop("near", "192.0.2.1".parse().unwrap()),
            SessionConfig {
                minimum_ttl: 250,
                ..SessionConfig::multihop("far", "192.0.2.1".parse().unwrap())
            },
        ],
        now,
    );
    outputs(&mut endpoint, now);
    let state = |endpoint: &mut Endpoint, arrival: &Arrival, packet: ControlPacket| {
        let result = endpoint.handle_packet(arrival, &packet.encode(), now);
        let changed = outputs(endpoint, now).into_iter().find_map(|output| match output {
            EndpointOutput::Changed { name, change } => Some((name.to_string(), change.to)),
            _ => None,
        });
        (result, changed)
    };
    let down = packet(State::Down, 77, 0);
    assert_eq!(
        state(&mut endpoint, &arrival("fe80::1", 3, 255, false), down),
        (Ok(()), Some(("eth1".to_owned(), State::Init)))
    );
    assert_eq!(
        state(&mut endpoint, &arrival("fe80::1", 4, 255, false), down),
        (Err(Discard::UnknownSender), None)
    );
    assert_eq!(
        state(&mut endpoint, &arrival("192.0.2.1", 2, 250, true), down),
        (Ok(()), Some(("far".to_owned(), State::Init)))
    );
    assert_eq!(
        state(&mut endpoint, &arrival("192.0.2.1", 2, 249, true), down).0,
        Err(Discard::Ttl { ttl: 249, minimum: 250 })
    );
    assert_eq!(
        state(&mut endpoint, &arrival("192.0.2.1", 2, 254, false), down).0,
        Err(Discard::Ttl { ttl: 254, minimum: 255 })
    );
    // The discriminator alone counts once it is known, also from another address.
    let near = discriminator(&endpoint, "near");
    assert_eq!(
        state(&mut endpoint, &arrival("192.0.2.99", 9, 255, false), packet(State::Init, 78, near)),
        (Ok(()), Some(("near".to_owned(), State::Up)))
    );
    let unknown = packet(State::Up, 78, near ^ 1);
    assert_eq!(
        state(&mut endpoint, &arrival("192.0.2.1", 2, 255, false), unknown).0,
        Err(Discard::UnknownDiscriminator(near ^ 1))
    );
}

#[test]
fn a_removed_session_says_admin_down_and_ends() {
    let now = origin();
    let mut endpoint = Endpoint::new(5);
    let config = SessionConfig::single_hop("near", "192.0.2.1".parse().unwrap());
    endpoint.set_sessions([config.clone()], now);
    outputs(&mut endpoint, now);
    let first = discriminator(&endpoint, "near");
    endpoint
        .handle_packet(&arrival("192.0.2.1", 2, 255, false), &packet(State::Init, 9, first).encode(), now)
        .unwrap();
    outputs(&mut endpoint, now);
    // The same set touches nothing; other timers change in place.
    let faster = SessionConfig { timers: timers(3, 50, 50), ..config.clone() };
    endpoint.set_sessions([faster], now);
    assert_eq!(discriminator(&endpoint, "near"), first);
    endpoint.set_sessions([], now);
    assert_eq!(endpoint.sessions().count(), 0);
    let said: Vec<_> = outputs(&mut endpoint, now);
    let [EndpointOutput::Send { session, bytes }] = said[..] else { panic!("{said:?}") };
    assert_eq!(ControlPacket::decode(&bytes).unwrap().state, State::AdminDown);
    let mut at = now;
    let mut farewells = 1;
    loop {
        at = endpoint.poll_timeout().unwrap().max(at);
        assert!(at <= now + 4_000 * MS);
        endpoint.handle_timeout(at);
        let said = outputs(&mut endpoint, at);
        if said == [EndpointOutput::Closed { session }] {
            break;
        }
        farewells += said.len();
    }
    assert!((3..=5).contains(&farewells), "{farewells}");
    assert_eq!(endpoint.poll_timeout(), None);
    // Put back while the old one says farewell: the new one speaks alone.
    endpoint.set_sessions([config.clone()], at);
    endpoint.set_sessions([], at);
    endpoint.set_sessions([config], at);
    let sends = outputs(&mut endpoint, at);
    let states: Vec<State> = sends
        .iter()
        .filter_map(|output| match output {
            EndpointOutput::Send { bytes, .. } => Some(ControlPacket::decode(bytes).unwrap().state),
            _ => None,
        })
        .collect();
    assert_eq!(states, [State::Down]);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_named(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(packet) = ControlPacket::decode(&bytes) {
            prop_assert_eq!(&packet.encode()[..], &{ let mut b = bytes[..24].to_vec(); b[3] = 24; b }[..]);
        }
    }

    /// Loss below what the multiplier covers, and any delay, never takes a session down.
    #[test]
    fn delay_and_single_losses_take_nothing_down(delay in 0u32..400, lost in 0usize..20, a in 10u32..500, b in 10u32..500) {
        let mut pair = Pair::up(timers(3, a, b), timers(3, b, a));
        // One missing packet is two intervals of silence; what the delay grows by must fit the third, either way.
        pair.delay = (delay % a.min(b)) * MS;
        for step in 0..40 {
            let end = step % 2;
            pair.cut[end] = step == lost;
            let before = pair.sent[end].len();
            while pair.sent[end].len() == before {
                pair.run(MS);
            }
            pair.cut[end] = false;
        }
        pair.run(1000 * MS);
        prop_assert_eq!(pair.states(), [State::Up; 2]);
        prop_assert_eq!(pair.ends[0].status().counters.down + pair.ends[1].status().counters.down, 0);
    }
}
