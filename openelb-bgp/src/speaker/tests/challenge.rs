//! A neighbour that opens a second connection while its first one is still here.

use super::*;
use crate::{
    fsm::DownReason,
    speaker::{Event, GracefulRestartConfig},
    wire::{Capability, GracefulRestart, GracefulRestartFamily, Notification, Open},
};

/// A speaker with one passive neighbour, which the test plays.
pub(super) struct Scripted {
    pub(super) speaker: Speaker,
    pub(super) now: Instant,
    port: u16,
    pub(super) sent: Vec<(ConnectionId, Message)>,
    pub(super) closed: Vec<ConnectionId>,
    pub(super) events: Vec<Event>,
    pub(super) context: SessionContext,
}

pub(super) fn restart_capability(forwarding: bool, notification: bool) -> GracefulRestart {
    let row = |family| GracefulRestartFamily { family, forwarding };
    GracefulRestart {
        restarted: false,
        notification,
        time: 60,
        families: [Family::IPV4_UNICAST, Family::IPV6_UNICAST].map(row).to_vec(),
    }
}

pub(super) fn graceful(peer: &mut PeerConfig) {
    peer.graceful_restart = Some(GracefulRestartConfig {
        restart_time: Duration::from_secs(60),
        restarting: true,
        forwarding_preserved: false,
        notification: false,
    });
}

pub(super) fn their_open(restart: Option<GracefulRestart>) -> Open {
    let families = [Family::IPV4_UNICAST, Family::IPV6_UNICAST].map(Capability::Multiprotocol);
    let others = [Capability::RouteRefresh, Capability::EnhancedRouteRefresh];
    let restart = restart.map(Capability::GracefulRestart);
    Open::new(ASNS[1], 90, ADDRESSES[1], families.into_iter().chain(others).chain(restart))
}

pub(super) fn bytes_of(message: impl Into<Message>, context: &SessionContext) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    message.into().encode(context, &mut out).unwrap();
    out.to_vec()
}

impl Scripted {
    pub(super) fn new(change: impl FnOnce(&mut PeerConfig)) -> Self {
        let mut peer = PeerConfig::new("other", ADDRESSES[1].into(), ASNS[1]);
        peer.passive = true;
        peer.hold_time = Duration::from_secs(90);
        change(&mut peer);
        let mut speaker = Speaker::new(SpeakerConfig::new(ASNS[0], ADDRESSES[0]), *ORIGIN).unwrap();
        speaker.set_peers(vec![peer], *ORIGIN).unwrap();
        let mut this = Self {
            speaker,
            now: *ORIGIN,
            port: 40_000,
            sent: Vec::new(),
            closed: Vec::new(),
            events: Vec::new(),
            context: SessionContext::default(),
        };
        this.settle();
        this
    }

    pub(super) fn settle(&mut self) {
        while let Some(output) = self.speaker.poll_output(self.now) {
            match output {
                Output::Send { connection, bytes } => {
                    self.speaker.handle_written(connection, bytes.len(), self.now);
                    let mut rest = &bytes[..];
                    while let Some(length) = frame(rest, 65_535).unwrap() {
                        let message = Message::decode(&rest[..length], &self.context).unwrap();
                        self.sent.push((connection, message));
                        rest = &rest[length..];
                    }
                }
                Output::Close { connection } => self.closed.push(connection),
                Output::Connect { .. } => panic!("it is passive"),
            }
        }
        self.events.extend(std::iter::from_fn(|| self.speaker.poll_event()));
    }

    /// Opens a connection and gives its name.
    pub(super) fn connect(&mut self) -> ConnectionId {
        self.try_connect().unwrap()
    }

    pub(super) fn try_connect(&mut self) -> Result<ConnectionId, Refusal> {
        self.port += 1;
        let info = ConnectionInfo {
            local: SocketAddr::new(ADDRESSES[0].into(), 179),
            remote: SocketAddr::new(ADDRESSES[1].into(), self.port),
        };
        let connection = self.speaker.accept(info, self.now)?.connection;
        self.speaker.handle_connected(connection, info, self.now);
        self.settle();
        Ok(connection)
    }

    pub(super) fn send(&mut self, connection: ConnectionId, message: impl Into<Message>) {
        let bytes = bytes_of(message, &self.context.reversed());
        self.send_raw(connection, &bytes);
    }

    pub(super) fn send_raw(&mut self, connection: ConnectionId, bytes: &[u8]) {
        self.speaker.handle_bytes(connection, bytes, self.now);
        self.settle();
    }

    /// Brings a session up.
    pub(super) fn establish(&mut self, open: Open) -> ConnectionId {
        let connection = self.connect();
        self.send(connection, open);
        self.send(connection, Message::Keepalive);
        assert_eq!(self.status().state, State::Established, "{:?}", self.status());
        connection
    }

    pub(super) fn status(&self) -> PeerStatus {
        self.speaker.peers().peers[&"other".into()].clone()
    }

    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(at) = self.speaker.poll_timeout()
            && at <= end
        {
            self.now = self.now.max(at);
            self.speaker.handle_timeout(self.now);
            self.settle();
            assert!(self.speaker.poll_timeout().is_none_or(|at| at > self.now), "a deadline has passed");
        }
        self.now = end;
    }

    pub(super) fn messages_on(&self, connection: ConnectionId) -> Vec<Message> {
        self.sent.iter().filter(|(on, _)| *on == connection).map(|(_, message)| message.clone()).collect()
    }
}

#[test]
fn with_graceful_restart_the_new_open_replaces_a_session_that_died_silently() {
    let mut scripted = Scripted::new(graceful);
    let open = their_open(Some(restart_capability(true, false)));
    let first = scripted.establish(open.clone());
    // Whether the session is young does not matter: both were opened by the neighbour.
    for wait in [1, 30] {
        let before = scripted.status().counters;
        scripted.advance(Duration::from_secs(wait));
        let second = scripted.connect();
        assert!(matches!(scripted.messages_on(second)[..], [Message::Open(_)]), "it is greeted");
        assert_eq!(
            scripted.status().state,
            State::Established,
            "and the first one lives until its OPEN is here"
        );
        scripted.send(second, open.clone());
        assert!(
            scripted.messages_on(first).iter().all(|message| !matches!(message, Message::Notification(_)))
        );
        scripted.send(second, Message::Keepalive);
        let status = scripted.status();
        assert_eq!(status.state, State::Established);
        assert_eq!(
            (status.counters.established, status.counters.dropped),
            (before.established + 1, before.dropped + 1)
        );
        assert_eq!(status.last_error.unwrap().reason, DownReason::Replaced.to_string());
    }
    assert!(scripted.closed.contains(&first));
    // What the dead connection still says concerns nobody.
    scripted.speaker.handle_closed(first, scripted.now);
    scripted.send(first, Notification::peer_deconfigured());
    assert_eq!(scripted.status().state, State::Established);
}

#[test]
fn without_graceful_restart_the_established_session_stays() {
    let mut scripted = Scripted::new(|_| {});
    let first = scripted.establish(their_open(None));
    let second = scripted.connect();
    scripted.send(second, their_open(None));
    let answers = scripted.messages_on(second);
    assert!(
        matches!(&answers[..], [Message::Open(_), Message::Notification(told)] if *told == Notification::connection_collision())
    );
    assert_eq!(scripted.closed, [second]);
    assert_eq!((scripted.status().state, scripted.status().counters.dropped), (State::Established, 0));
    scripted.send(first, Message::Keepalive);
    assert_eq!(scripted.status().state, State::Established);
}

#[test]
fn a_first_connection_that_never_came_far_makes_way_in_any_case() {
    let mut scripted = Scripted::new(|_| {});
    let first = scripted.connect();
    let second = scripted.connect();
    scripted.send(second, their_open(None));
    scripted.send(second, Message::Keepalive);
    assert_eq!(scripted.status().state, State::Established);
    assert_eq!(scripted.closed, [first]);
}

#[test]
fn a_second_connection_is_heard_when_the_first_one_closes() {
    let mut scripted = Scripted::new(|_| {});
    let first = scripted.establish(their_open(None));
    let second = scripted.connect();
    scripted.speaker.handle_closed(first, scripted.now);
    scripted.settle();
    scripted.send(second, their_open(None));
    scripted.send(second, Message::Keepalive);
    assert_eq!(scripted.status().state, State::Established);
    assert_eq!(scripted.closed, []);
}

#[test]
fn a_second_connection_that_says_nothing_or_nonsense_leaves_nothing_behind() {
    let mut scripted = Scripted::new(graceful);
    let first = scripted.establish(their_open(Some(restart_capability(true, false))));
    let silent = scripted.connect();
    assert!(matches!(scripted.try_connect(), Err(Refusal::Busy { .. })), "one at a time");
    scripted.advance(Duration::from_secs(11));
    assert_eq!(scripted.closed, [silent]);
    let wild = scripted.connect();
    scripted.send_raw(wild, b"GET / HTTP/1.1\r\n\r\n");
    assert!(
        matches!(scripted.messages_on(wild).last(), Some(Message::Notification(told)) if *told == Notification::connection_not_synchronized())
    );
    scripted.advance(Duration::from_secs(1));
    let early = scripted.connect();
    scripted.send(early, Message::Keepalive);
    assert!(
        matches!(scripted.messages_on(early).last(), Some(Message::Notification(told)) if *told == Notification::unexpected_message(1, MessageKind::Keepalive))
    );
    scripted.advance(Duration::from_secs(2));
    let wrong = scripted.connect();
    let mut stranger = their_open(None);
    stranger.capabilities[0] = Capability::FourOctetAs(65_099);
    scripted.send(wrong, stranger);
    assert!(
        matches!(scripted.messages_on(wrong).last(), Some(Message::Notification(told)) if *told == Notification::bad_peer_as())
    );
    assert_eq!(scripted.closed, [silent, wild, early, wrong]);
    scripted.send(first, Message::Keepalive);
    assert_eq!((scripted.status().state, scripted.status().counters.dropped), (State::Established, 0));
}

const NONSENSE: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

/// Each that is answered lingers for a while: so many at once would take the process's descriptors.
#[test]
fn after_a_second_connection_that_was_refused_the_next_waits_for_a_pause_that_grows() {
    let open = || their_open(Some(restart_capability(true, false)));
    let mut scripted = Scripted::new(graceful);
    let first = scripted.establish(open());
    let flood = |scripted: &mut Scripted, seconds: u32| {
        let mut taken = 0;
        for _ in 0..seconds * 100 {
            match scripted.try_connect() {
                Ok(connection) => {
                    taken += 1;
                    scripted.send_raw(connection, NONSENSE);
                }
                Err(refusal) => assert!(matches!(refusal, Refusal::Busy { .. }), "{refusal:?}"),
            }
            scripted.advance(Duration::from_millis(10));
        }
        taken
    };
    assert_eq!(flood(&mut scripted, 10), 4, "at 0, 1, 3 and 7 s");
    scripted.send(first, Message::Keepalive);
    assert_eq!(flood(&mut scripted, 60), 3, "at 15, 31 and 61 s: the pause has a bound");
    scripted.send(first, Message::Keepalive);
    // A neighbour that has restarted gets through when it is over, and makes all good.
    scripted.advance(Duration::from_secs(30));
    let second = scripted.connect();
    scripted.send(second, open());
    scripted.send(second, Message::Keepalive);
    assert_eq!((scripted.status().state, scripted.status().counters.dropped), (State::Established, 1));
    scripted.advance(Duration::from_secs(1));
    assert_eq!(flood(&mut scripted, 2), 2, "at 0 and 1 s again");
    // One that comes long after is the first.
    scripted.send(second, Message::Keepalive);
    scripted.advance(Duration::from_secs(60));
    scripted.send(second, Message::Keepalive);
    assert_eq!(flood(&mut scripted, 2), 2);
}

#[test]
fn connections_that_take_each_others_place_do_so_once_a_second() {
    let mut scripted = Scripted::new(graceful);
    scripted.establish(their_open(Some(restart_capability(true, false))));
    let before = scripted.closed.len();
    for _ in 0..100 {
        if let Ok(connection) = scripted.try_connect() {
            scripted.send(connection, their_open(Some(restart_capability(true, false))));
            scripted.send(connection, Message::Keepalive);
        }
        assert_eq!(scripted.status().state, State::Established);
        scripted.advance(Duration::from_millis(10));
    }
    assert_eq!(scripted.closed.len() - before, 1);
}

/// There the neighbour's connection is the first of its direction, and the state machine refuses it.
#[test]
fn connections_beside_a_session_that_we_opened_wait_for_a_pause_as_well() {
    let mut speaker = Speaker::new(SpeakerConfig::new(ASNS[0], ADDRESSES[0]), *ORIGIN).unwrap();
    let mut peer = PeerConfig::new("other", ADDRESSES[1].into(), ASNS[1]);
    peer.hold_time = Duration::from_secs(90);
    graceful(&mut peer);
    speaker.set_peers(vec![peer], *ORIGIN).unwrap();
    let ends = |local, remote| ConnectionInfo {
        local: SocketAddr::new(ADDRESSES[0].into(), local),
        remote: SocketAddr::new(ADDRESSES[1].into(), remote),
    };
    let Some(Output::Connect { connection: ours, .. }) = speaker.poll_output(*ORIGIN) else {
        panic!("no attempt");
    };
    let open = || Message::from(their_open(Some(restart_capability(true, false))));
    let send = |speaker: &mut Speaker, connection, message: Message, now| {
        speaker.handle_bytes(connection, &bytes_of(message, &SessionContext::default()), now);
        while speaker.poll_output(now).is_some() {}
    };
    speaker.handle_connected(ours, ends(40_000, 179), *ORIGIN);
    send(&mut speaker, ours, open(), *ORIGIN);
    send(&mut speaker, ours, Message::Keepalive, *ORIGIN);
    let state = |speaker: &Speaker| speaker.peers().peers[&"other".into()].state;
    let mut taken = 0;
    for step in 0..1000 {
        let now = *ORIGIN + Duration::from_millis(10 * step);
        speaker.handle_timeout(now);
        if let Ok(accepted) = speaker.accept(ends(179, 50_000), now) {
            taken += 1;
            speaker.handle_connected(accepted.connection, ends(179, 50_000), now);
            speaker.handle_bytes(accepted.connection, NONSENSE, now);
        }
        while speaker.poll_output(now).is_some() {}
    }
    assert_eq!((taken, state(&speaker)), (4, State::Established), "at 0, 1, 3 and 7 s");
    // A neighbour that has restarted takes the place of ours when the pause is over.
    let now = *ORIGIN + Duration::from_secs(16);
    let theirs = speaker.accept(ends(179, 50_001), now).unwrap().connection;
    speaker.handle_connected(theirs, ends(179, 50_001), now);
    send(&mut speaker, theirs, open(), now);
    send(&mut speaker, theirs, Message::Keepalive, now);
    let status = speaker.peers().peers[&"other".into()].clone();
    assert_eq!(
        (status.state, status.session.unwrap().remote),
        (State::Established, ends(179, 50_001).remote)
    );
}
