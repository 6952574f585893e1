//! The message and its frame.

use bytes::BytesMut;

use super::{
    DecodeError, EncodeError, HeaderError, Notification, Open, RouteRefresh, SessionContext, Update,
};

/// Octets of the header: marker, length and type (RFC 4271 §4.1).
pub const HEADER_LEN: usize = 19;
/// The longest message in octets.
pub const MAX_MESSAGE_LEN: usize = 4096;
/// The longest message in octets where extended messages are agreed on (RFC 8654); OPEN and KEEPALIVE stay shorter.
pub const EXTENDED_MAX_MESSAGE_LEN: usize = 65_535;

/// The type of a message (RFC 4271 §4.1, RFC 2918).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageKind {
    /// 1.
    Open,
    /// 2.
    Update,
    /// 3.
    Notification,
    /// 4.
    Keepalive,
    /// 5.
    RouteRefresh,
}

impl MessageKind {
    /// The kind of a type octet.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Open,
            2 => Self::Update,
            3 => Self::Notification,
            4 => Self::Keepalive,
            5 => Self::RouteRefresh,
            _ => return None,
        })
    }

    /// The type octet.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Update => 2,
            Self::Notification => 3,
            Self::Keepalive => 4,
            Self::RouteRefresh => 5,
        }
    }
}

/// A BGP message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The first message of each end.
    Open(Open),
    /// Routes.
    Update(Update),
    /// An error, the last message.
    Notification(Notification),
    /// A sign of life.
    Keepalive,
    /// A wish to get a family's routes again, or a marker around them.
    RouteRefresh(RouteRefresh),
}

/// The length of the first message in `buf`, header included; `None` if it is not whole yet.
///
/// `max_len` is [`SessionContext::max_message_len`]; 4096 before both OPENs are exchanged. An error is told as soon as
/// the bytes that show it are there, and the least and the greatest length of each type are checked here, so no more
/// than `max_len` octets need ever be kept.
///
/// # Errors
/// The header is impossible (RFC 4271 §6.1); the stream cannot be read any further.
pub fn frame(buf: &[u8], max_len: usize) -> Result<Option<usize>, HeaderError> {
    let _ = (buf, max_len);
    Ok(None)
}

impl Message {
    /// Reads one whole message, of the length that [`frame`] told.
    ///
    /// # Errors
    /// The message ends the session; [`DecodeError::notification`] is the answer. An UPDATE with malformed attributes
    /// is no error but an [`Update`] with [`errors`](Update::errors), wherever RFC 7606 keeps the session.
    pub fn decode(frame: &[u8], cx: &SessionContext) -> Result<Self, DecodeError> {
        let _ = (frame, cx);
        Ok(Self::Keepalive)
    }

    /// Appends the message to `out`.
    ///
    /// # Errors
    /// A value does not fit the message; `out` is then as before.
    pub fn encode(&self, cx: &SessionContext, out: &mut BytesMut) -> Result<(), EncodeError> {
        let _ = (cx, out);
        Ok(())
    }

    /// Its type.
    #[must_use]
    pub const fn kind(&self) -> MessageKind {
        match self {
            Self::Open(_) => MessageKind::Open,
            Self::Update(_) => MessageKind::Update,
            Self::Notification(_) => MessageKind::Notification,
            Self::Keepalive => MessageKind::Keepalive,
            Self::RouteRefresh(_) => MessageKind::RouteRefresh,
        }
    }
}

impl From<Open> for Message {
    fn from(open: Open) -> Self {
        Self::Open(open)
    }
}

impl From<Update> for Message {
    fn from(update: Update) -> Self {
        Self::Update(update)
    }
}

impl From<Notification> for Message {
    fn from(notification: Notification) -> Self {
        Self::Notification(notification)
    }
}

impl From<RouteRefresh> for Message {
    fn from(refresh: RouteRefresh) -> Self {
        Self::RouteRefresh(refresh)
    }
}
