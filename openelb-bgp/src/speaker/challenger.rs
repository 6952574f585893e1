//! A second connection that a neighbour opens while the first one that it opened is still there.
//!
//! Mostly the first one is dead: the neighbour has restarted and has not had the time, or the network, to close it. So
//! the second one is heard as far as its OPEN, and takes the place of the first if the state machine agrees
//! ([`Fsm::challenge`](crate::fsm::Fsm::challenge)).

use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::{
    fsm::ConnectionInfo,
    wire::{MAX_MESSAGE_LEN, Message, Notification, Open, SessionContext, frame},
};

/// How long such a connection may take to bring its OPEN; also that of a neighbour that we know by its prefix alone.
pub(super) const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// The pauses after such a connection was decided on: one that is closed takes a descriptor for seconds, and one may
/// follow the other as fast as the neighbour's host can. The first and the longest.
const PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// No further connection is heard beside the one that is there, for a while that doubles.
#[derive(Debug, Default)]
pub(super) struct Pause {
    doublings: u32,
    until: Option<Instant>,
}

impl Pause {
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// One was decided on.
    pub(super) fn begin(&mut self, now: Instant) {
        let [first, longest] = PAUSE;
        if self.until.is_none_or(|until| until + longest <= now) {
            self.doublings = 0;
        }
        self.until = Some(now + first.saturating_mul(1 << self.doublings.min(16)).min(longest));
        self.doublings = self.doublings.saturating_add(1);
    }

    /// A session came up: the next pause is the first again.
    pub(super) fn shorten(&mut self, now: Instant) {
        let [first, _] = PAUSE;
        self.doublings = 0;
        self.until = self.until.map(|until| until.min(now + first));
    }
}

/// The connection, until it is decided.
#[derive(Debug)]
pub(super) struct Challenger {
    pub(super) generation: u32,
    pub(super) info: Option<ConnectionInfo>,
    /// What it has brought.
    pub(super) received: BytesMut,
    pub(super) deadline: Option<Instant>,
    pub(super) in_flight: usize,
}

/// What a challenger has said.
#[derive(Debug)]
pub(super) enum Said {
    /// Nothing whole yet.
    Nothing,
    /// Its OPEN is here.
    Open(Open),
    /// It speaks no BGP, or not what may come now.
    Nonsense(Notification),
}

impl Challenger {
    pub(super) fn new(generation: u32) -> Self {
        Self { generation, info: None, received: BytesMut::new(), deadline: None, in_flight: 0 }
    }

    /// It is up, and our OPEN is on its way.
    pub(super) fn connected(&mut self, info: ConnectionInfo, now: Instant) {
        self.info = Some(info);
        self.deadline = Some(now + OPEN_WITHIN);
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) -> Said {
        self.received.extend_from_slice(bytes);
        let length = match frame(&self.received, MAX_MESSAGE_LEN) {
            Ok(Some(length)) => length,
            Ok(None) => return Said::Nothing,
            Err(error) => return Said::Nonsense(error.into()),
        };
        let message = self.received.get(..length).unwrap_or_default();
        match Message::decode(message, &SessionContext::default()) {
            Ok(Message::Open(open)) => Said::Open(open),
            Ok(other) => Said::Nonsense(Notification::unexpected_message(1, other.kind())),
            Err(error) => Said::Nonsense(error.notification()),
        }
    }
}
