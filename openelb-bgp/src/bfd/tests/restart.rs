//! A program that restarts, and a neighbour that is not to notice.

use super::*;

const A: &str = "192.0.2.1";
const B: &str = "192.0.2.2";
const SECOND: Duration = Duration::from_secs(1);
const HOLD: Duration = Duration::from_secs(60);

fn session(remote: &str) -> SessionConfig {
    SessionConfig {
        timers: timers(3, 300, 300),
        ..SessionConfig::single_hop("other", remote.parse().unwrap())
    }
}

/// Two hosts and what they have seen, on one virtual clock. The first one can be away.
struct Hosts {
    ends: [Option<Endpoint>; 2],
    now: Instant,
    sent: [Vec<(Instant, ControlPacket)>; 2],
    changes: [Vec<(Instant, StateChange)>; 2],
    /// Packets come with this TTL.
    ttl: u8,
}

impl Hosts {
    fn up() -> Self {
        let mut hosts = Self {
            ends: [Some(Endpoint::new(1)), Some(Endpoint::new(2))],
            now: origin(),
            sent: [Vec::new(), Vec::new()],
            changes: [Vec::new(), Vec::new()],
            ttl: 255,
        };
        for (end, remote) in [(0, B), (1, A)] {
            hosts.set(end, Some(session(remote)));
        }
        hosts.run(10 * SECOND);
        assert_eq!(hosts.state(0), Some(State::Up));
        hosts.changes = [Vec::new(), Vec::new()];
        hosts
    }

    fn set(&mut self, end: usize, session: Option<SessionConfig>) {
        self.ends[end].as_mut().unwrap().set_sessions(session, self.now);
    }

    fn state(&self, end: usize) -> Option<State> {
        Some(self.ends[end].as_ref()?.sessions().next()?.2.state)
    }

    /// The first host's program ends, and asks the other to hold the session for so long.
    fn leave(&mut self, hold: Duration) {
        self.set(0, Some(SessionConfig { hold, ..session(B) }));
        self.set(0, None);
        self.run(Duration::ZERO);
        self.ends[0] = None;
    }

    fn come_back(&mut self, resume: bool) {
        self.ends[0] = Some(Endpoint::new(77));
        self.set(0, Some(SessionConfig { resume, ..session(B) }));
    }

    fn pump(&mut self) {
        while (0..2).any(|end| self.pump_end(end)) {}
    }

    fn pump_end(&mut self, end: usize) -> bool {
        let Some(output) = self.ends[end].as_mut().and_then(|endpoint| endpoint.poll_output(self.now)) else {
            return false;
        };
        match output {
            EndpointOutput::Send { bytes, .. } => {
                self.sent[end].push((self.now, ControlPacket::decode(&bytes).unwrap()));
                let (from, to) = if end == 0 { (A, B) } else { (B, A) };
                let arrival = Arrival { local: to.parse().unwrap(), ..arrival(from, 2, self.ttl, false) };
                if let Some(other) = &mut self.ends[1 - end] {
                    let _ = other.handle_packet(&arrival, &bytes, self.now);
                }
            }
            EndpointOutput::Changed { change, .. } => self.changes[end].push((self.now, change)),
            EndpointOutput::Closed { .. } => {}
        }
        true
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.pump();
        while let Some(at) = self.ends.iter().flatten().filter_map(Endpoint::poll_timeout).min()
            && at <= end
        {
            self.now = self.now.max(at);
            for endpoint in self.ends.iter_mut().flatten() {
                endpoint.handle_timeout(self.now);
            }
            self.pump();
        }
        self.now = end;
    }

    fn seen(&self, end: usize) -> Vec<(u128, State)> {
        self.changes[end].iter().map(|(at, change)| ((*at - origin()).as_millis(), change.to)).collect()
    }
}

#[test]
fn a_neighbour_that_was_asked_to_hold_the_session_sees_nothing_of_a_restart() {
    for away in [0, 1, 20, 58] {
        let mut hosts = Hosts::up();
        hosts.leave(HOLD);
        hosts.run(away * SECOND);
        hosts.come_back(true);
        hosts.run(2 * SECOND);
        assert_eq!(hosts.state(0), Some(State::Up), "away for {away} s");
        assert_eq!(hosts.seen(1), [], "away for {away} s");
        let [(_, change)] = hosts.changes[0][..] else { panic!("{:?}", hosts.changes[0]) };
        assert_eq!((change.from, change.to), (State::Down, State::Up));
        // From then on it is as it was: three missing packets are a lost path.
        hosts.ends[0] = None;
        let began = hosts.now;
        hosts.run(2 * SECOND);
        let [(at, change)] = hosts.changes[1][..] else { panic!("{:?}", hosts.changes[1]) };
        assert_eq!(change.cause, Cause::TimeExpired);
        assert!(at - began <= 900 * MS, "{:?}", at - began);
    }
}

#[test]
fn who_does_not_come_back_is_held_for_no_longer_than_it_has_asked_for() {
    for (hold, from) in [(HOLD, 59), (5 * SECOND, 4), (MS, 0)] {
        let mut hosts = Hosts::up();
        let began = hosts.now;
        hosts.leave(hold);
        hosts.run(100 * SECOND);
        let (at, change) = hosts.changes[1][0];
        assert_eq!(change.cause, Cause::TimeExpired);
        let held = at - began;
        assert!(held >= from * SECOND && held <= hold.max(900 * MS), "{hold:?}: {held:?}");
    }
}

#[test]
fn a_crash_that_is_over_within_the_detection_time_goes_unnoticed_and_a_longer_one_does_not() {
    for (away, changes) in [(200 * MS, 0), (3 * SECOND, 1)] {
        let mut hosts = Hosts::up();
        hosts.ends[0] = None;
        hosts.run(away);
        hosts.come_back(true);
        hosts.run(10 * SECOND);
        assert_eq!((hosts.state(0), hosts.state(1)), (Some(State::Up), Some(State::Up)), "{away:?}");
        let downs = hosts.changes[1].iter().filter(|(_, change)| change.from == State::Up).count();
        assert_eq!(downs, changes, "{away:?}: {:?}", hosts.seen(1));
    }
}

#[test]
fn fast_sessions_are_held_as_long_as_slow_ones() {
    let mut hosts = Hosts::up();
    for (end, remote) in [(0, B), (1, A)] {
        hosts.set(end, Some(SessionConfig { timers: timers(3, 50, 50), ..session(remote) }));
    }
    hosts.run(5 * SECOND);
    let began = hosts.now;
    hosts.set(0, Some(SessionConfig { timers: timers(3, 50, 50), hold: HOLD, ..session(B) }));
    hosts.set(0, None);
    hosts.run(Duration::ZERO);
    hosts.ends[0] = None;
    hosts.run(100 * SECOND);
    let held = hosts.changes[1][0].0 - began;
    assert!(held > 58 * SECOND && held <= HOLD, "{held:?}");
}

#[test]
fn a_session_that_is_not_up_is_not_held() {
    let mut hosts = Hosts::up();
    hosts.ends[1] = None;
    hosts.run(5 * SECOND);
    assert_eq!(hosts.state(0), Some(State::Down));
    hosts.leave(HOLD);
    assert_eq!(hosts.sent[0].last().unwrap().1.state, State::AdminDown);
}

#[test]
fn a_neighbour_that_is_down_or_silent_is_spoken_to_after_a_moment() {
    // It has seen that we were away.
    let mut hosts = Hosts::up();
    hosts.ends[0] = None;
    hosts.run(10 * SECOND);
    hosts.come_back(true);
    hosts.run(5 * SECOND);
    assert_eq!((hosts.state(0), hosts.state(1)), (Some(State::Up), Some(State::Up)));
    // It is silent: we listen for a second, and begin.
    let mut hosts = Hosts::up();
    hosts.ends = [None, None];
    hosts.sent = [Vec::new(), Vec::new()];
    hosts.come_back(true);
    let began = hosts.now;
    hosts.run(3 * SECOND);
    assert_eq!(hosts.sent[0][0].0 - began, SECOND);
    assert_eq!(hosts.sent[0][0].1.state, State::Down);
}

#[test]
fn only_a_session_that_begins_takes_the_neighbour_at_its_word_and_only_from_the_link() {
    let mut hosts = Hosts::up();
    hosts.leave(HOLD);
    hosts.come_back(false);
    hosts.run(SECOND);
    assert_eq!(hosts.changes[1][0].1.cause, Cause::NeighborDown, "it was told that we are down");

    let mut hosts = Hosts::up();
    hosts.leave(HOLD);
    hosts.come_back(true);
    hosts.ttl = 254;
    hosts.run(900 * MS);
    assert_eq!((hosts.state(0), hosts.changes[0].len()), (Some(State::Down), 0));

    // After it has listened, a discriminator that is not ours is a stranger's.
    let mut endpoint = Endpoint::new(3);
    let now = origin();
    endpoint.set_sessions([SessionConfig { resume: true, ..session(B) }], now);
    endpoint.handle_timeout(now + SECOND);
    let stray = packet(State::Up, 5, 9);
    let discarded = endpoint.handle_packet(&arrival(B, 2, 255, false), &stray.encode(), now + SECOND);
    assert_eq!(discarded, Err(Discard::UnknownDiscriminator(9)));
}
