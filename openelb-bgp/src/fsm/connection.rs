//! One TCP connection of a neighbour: its place in the handshake, and the bytes that are not yet a message.

use bytes::{Buf, BytesMut};

use super::{ConnectionInfo, Negotiated, State};
use crate::wire::{
    DecodeError, GracefulRestart, HeaderError, MAX_MESSAGE_LEN, Message, Open, SessionContext, frame,
};

/// How far the handshake is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Our OPEN is sent, the neighbour's is awaited.
    OpenSent,
    /// The neighbour's OPEN is here, but the other connection would win a collision and may still come up: this one is
    /// confirmed when that is settled. Nothing more is read until then.
    Deferred(Box<Open>),
    /// Both OPENs are exchanged, the neighbour's KEEPALIVE is awaited.
    OpenConfirm(Box<Negotiated>),
    /// The session runs here.
    Established {
        /// For decoding.
        context: SessionContext,
    },
}

/// One TCP connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) info: ConnectionInfo,
    /// What our OPEN said on it; what is configured may be another one by now.
    pub(super) offered: Option<GracefulRestart>,
    pub(super) stage: Stage,
    /// Less than one message, but while [`Connection::next`] is being called.
    buffer: BytesMut,
}

impl Connection {
    pub(super) fn new(info: ConnectionInfo, offered: Option<GracefulRestart>) -> Self {
        Self { info, offered, stage: Stage::OpenSent, buffer: BytesMut::new() }
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Octets that wait to be read.
    pub(super) fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// The next whole message.
    pub(super) fn next(&mut self) -> Option<Result<Message, DecodeError>> {
        let plain;
        let (context, max_len) = match &self.stage {
            Stage::Established { context } => (context, context.max_message_len()),
            Stage::OpenConfirm(negotiated) => (&negotiated.context, negotiated.context.max_message_len()),
            Stage::Deferred(_) => return None,
            Stage::OpenSent => {
                plain = SessionContext::default();
                (&plain, MAX_MESSAGE_LEN)
            }
        };
        let length = match frame(&self.buffer, max_len) {
            Ok(length) => length?,
            Err(error) => return Some(Err(error.into())),
        };
        // `frame` never tells more than there is; if it did, the stream could not be read any further.
        let Some(message) = self.buffer.get(..length) else {
            return Some(Err(HeaderError::NotSynchronized.into()));
        };
        let message = Message::decode(message, context);
        self.buffer.advance(length);
        Some(message)
    }
}

pub(super) const fn stage_state(stage: &Stage) -> State {
    match stage {
        Stage::OpenSent | Stage::Deferred(_) => State::OpenSent,
        Stage::OpenConfirm(_) => State::OpenConfirm,
        Stage::Established { .. } => State::Established,
    }
}

pub(super) const fn is_deferred(connection: &Connection) -> bool {
    matches!(connection.stage, Stage::Deferred(_))
}
