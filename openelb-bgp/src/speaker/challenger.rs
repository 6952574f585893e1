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
