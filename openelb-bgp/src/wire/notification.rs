//! The NOTIFICATION message.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Capability, Family, MessageKind, reader::Reader};

/// The error code of a NOTIFICATION (RFC 4271 §4.5 and its updates).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotificationCode {
    /// 1.
    MessageHeader,
    /// 2.
    Open,
    /// 3.
    Update,
    /// 4.
    HoldTimerExpired,
    /// 5.
    FiniteStateMachine,
    /// 6.
    Cease,
    /// 7 (RFC 7313).
    RouteRefresh,
    /// 8 (RFC 9687).
    SendHoldTimerExpired,
    /// Any other.
    Unknown(u8),
}

impl NotificationCode {
    /// The code of an octet.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::MessageHeader,
            2 => Self::Open,
            3 => Self::Update,
            4 => Self::HoldTimerExpired,
            5 => Self::FiniteStateMachine,
            6 => Self::Cease,
            7 => Self::RouteRefresh,
            8 => Self::SendHoldTimerExpired,
            other => Self::Unknown(other),
        }
    }

    /// The octet.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::MessageHeader => 1,
            Self::Open => 2,
            Self::Update => 3,
            Self::HoldTimerExpired => 4,
            Self::FiniteStateMachine => 5,
            Self::Cease => 6,
            Self::RouteRefresh => 7,
            Self::SendHoldTimerExpired => 8,
            Self::Unknown(code) => code,
        }
    }
}

/// Why a session ends: the last message on it (RFC 4271 §4.5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Notification {
    /// The error code.
    pub code: NotificationCode,
    /// The subcode; its meaning depends on the code, 0 is "unspecific".
    pub subcode: u8,
    /// Data, which the subcode gives a meaning.
    pub data: Bytes,
}

impl Notification {
    /// A NOTIFICATION of any code.
    #[must_use]
    pub const fn new(code: NotificationCode, subcode: u8, data: Bytes) -> Self {
        Self { code, subcode, data }
    }

    const fn bare(code: NotificationCode, subcode: u8) -> Self {
        Self { code, subcode, data: Bytes::new() }
    }

    /// 1/1: the marker is not all ones.
    #[must_use]
    pub const fn connection_not_synchronized() -> Self {
        Self::bare(NotificationCode::MessageHeader, 1)
    }

    /// 1/2: the length is impossible; the data is the length received.
    #[must_use]
    pub fn bad_message_length(length: u16) -> Self {
        Self::new(NotificationCode::MessageHeader, 2, Bytes::copy_from_slice(&length.to_be_bytes()))
    }

    /// 1/3: the type is unknown; the data is the type received.
    #[must_use]
    pub fn bad_message_type(kind: u8) -> Self {
        Self::new(NotificationCode::MessageHeader, 3, Bytes::copy_from_slice(&[kind]))
    }

    /// 2/0: an optional parameter or capability is malformed.
    #[must_use]
    pub const fn malformed_open() -> Self {
        Self::bare(NotificationCode::Open, 0)
    }

    /// 2/1: the version is not 4; the data is the version that is supported.
    #[must_use]
    pub const fn unsupported_version() -> Self {
        Self::new(NotificationCode::Open, 1, Bytes::from_static(&[0, 4]))
    }

    /// 2/2: the neighbour is of another AS than configured.
    #[must_use]
    pub const fn bad_peer_as() -> Self {
        Self::bare(NotificationCode::Open, 2)
    }

    /// 2/3: the BGP identifier is 0, or our own within one AS (RFC 6286 §2.2).
    #[must_use]
    pub const fn bad_router_id() -> Self {
        Self::bare(NotificationCode::Open, 3)
    }

    /// 2/4: an optional parameter is unknown.
    #[must_use]
    pub const fn unsupported_parameter() -> Self {
        Self::bare(NotificationCode::Open, 4)
    }

    /// 2/6: the hold time is 1 or 2 seconds, or below what is configured.
    #[must_use]
    pub const fn unacceptable_hold_time() -> Self {
        Self::bare(NotificationCode::Open, 6)
    }

    /// 2/7: capabilities that are required are missing; the data lists them (RFC 5492 §5). Those that cannot be written
    /// are left out.
    #[must_use]
    pub fn unsupported_capability(required: &[Capability]) -> Self {
        let mut data = BytesMut::new();
        for capability in required {
            let mut one = BytesMut::new();
            if capability.write(&mut one).is_ok() {
                data.put_slice(&one);
            }
        }
        Self::new(NotificationCode::Open, 7, data.freeze())
    }

    /// 2/11: the roles of the two ends do not match (RFC 9234 §4.2).
    #[must_use]
    pub const fn role_mismatch() -> Self {
        Self::bare(NotificationCode::Open, 11)
    }

    /// 3 and a subcode with data: what [`DecodeError::notification`](super::DecodeError::notification) answers to an
    /// UPDATE.
    #[must_use]
    pub const fn update_error(subcode: u8, data: Bytes) -> Self {
        Self::new(NotificationCode::Update, subcode, data)
    }

    /// 4: nothing was heard for the hold time.
    #[must_use]
    pub const fn hold_timer_expired() -> Self {
        Self::bare(NotificationCode::HoldTimerExpired, 0)
    }

    /// 5/1, 5/2, 5/3: a message that is not expected in OpenSent, OpenConfirm, Established; the data is its type (RFC
    /// 6608). Any other subcode is written as given.
    #[must_use]
    pub fn unexpected_message(subcode: u8, kind: MessageKind) -> Self {
        Self::new(NotificationCode::FiniteStateMachine, subcode, Bytes::copy_from_slice(&[kind.code()]))
    }

    /// 6/1: more prefixes than configured (RFC 4486 §4).
    #[must_use]
    pub fn maximum_prefixes(family: Family, limit: u32) -> Self {
        let mut data = Vec::from(family.to_bytes());
        data.extend_from_slice(&limit.to_be_bytes());
        Self::new(NotificationCode::Cease, 1, data.into())
    }

    /// 6/2: shut down, with a text for the operators at the other end (RFC 9003): cut at 255 octets.
    #[must_use]
    pub fn administrative_shutdown(text: &str) -> Self {
        Self::new(NotificationCode::Cease, 2, communication(text))
    }

    /// 6/3: the neighbour is no longer configured.
    #[must_use]
    pub const fn peer_deconfigured() -> Self {
        Self::bare(NotificationCode::Cease, 3)
    }

    /// 6/4: reset, with a text as in [`administrative_shutdown`](Self::administrative_shutdown).
    #[must_use]
    pub fn administrative_reset(text: &str) -> Self {
        Self::new(NotificationCode::Cease, 4, communication(text))
    }

    /// 6/5: the connection is refused.
    #[must_use]
    pub const fn connection_rejected() -> Self {
        Self::bare(NotificationCode::Cease, 5)
    }

    /// 6/6: another change of configuration.
    #[must_use]
    pub const fn other_configuration_change() -> Self {
        Self::bare(NotificationCode::Cease, 6)
    }

    /// 6/7: the other connection of the two is kept (RFC 4271 §6.8).
    #[must_use]
    pub const fn connection_collision() -> Self {
        Self::bare(NotificationCode::Cease, 7)
    }

    /// 6/8: out of memory or the like.
    #[must_use]
    pub const fn out_of_resources() -> Self {
        Self::bare(NotificationCode::Cease, 8)
    }

    /// 6/9: the session ends without graceful restart; the data is the true reason (RFC 8538 §3.1).
    #[must_use]
    pub fn hard_reset(reason: &Self) -> Self {
        let mut data = vec![reason.code.code(), reason.subcode];
        data.extend_from_slice(&reason.data);
        Self::new(NotificationCode::Cease, 9, data.into())
    }

    /// 6/10: BFD says that the path is down (RFC 9384).
    #[must_use]
    pub const fn bfd_down() -> Self {
        Self::bare(NotificationCode::Cease, 10)
    }

    /// 7/1: a route refresh marker of a wrong length; the data is the message (RFC 7313 §5).
    #[must_use]
    pub const fn bad_route_refresh_length(message: Bytes) -> Self {
        Self::new(NotificationCode::RouteRefresh, 1, message)
    }

    /// 8: the neighbour did not read for the send hold time (RFC 9687).
    #[must_use]
    pub const fn send_hold_timer_expired() -> Self {
        Self::bare(NotificationCode::SendHoldTimerExpired, 0)
    }

    /// The text of an administrative shutdown or reset (RFC 9003), if it is there and well-formed. Control characters
    /// are the sender's: escape them before they reach a terminal.
    #[must_use]
    pub fn shutdown_text(&self) -> Option<&str> {
        if self.code != NotificationCode::Cease || !matches!(self.subcode, 2 | 4) {
            return None;
        }
        let text = Reader(&self.data).counted_u8()?;
        std::str::from_utf8(text).ok().filter(|text| !text.is_empty())
    }

    /// Whether this is a Hard Reset (Cease/9, RFC 8538 §3).
    #[must_use]
    pub fn is_hard_reset(&self) -> bool {
        self.code == NotificationCode::Cease && self.subcode == 9
    }

    /// Whether the session is to end for good, so that it is wrapped in a Hard Reset where NOTIFICATIONs keep routes
    /// otherwise: too many prefixes, shutdown, deconfigured, reset, BFD down (RFC 8538 §3, RFC 9384 §3), and out of
    /// resources, which keeping would not give back. A change of configuration and a collision are followed by the next
    /// session at once.
    pub(crate) fn ends_for_good(&self) -> bool {
        self.code == NotificationCode::Cease && matches!(self.subcode, 1..=4 | 8 | 10)
    }

    /// The true reason within a hard reset (RFC 8538 §3.1).
    #[must_use]
    pub fn hard_reset_reason(&self) -> Option<Self> {
        if self.code != NotificationCode::Cease || self.subcode != 9 {
            return None;
        }
        Self::decode(&self.data)
    }

    /// Reads a body.
    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let ([code, subcode], data) = body.split_first_chunk()?;
        Some(Self::new(NotificationCode::from_code(*code), *subcode, Bytes::copy_from_slice(data)))
    }

    /// Appends the body.
    pub(crate) fn write(&self, out: &mut BytesMut) {
        out.put_slice(&[self.code.code(), self.subcode]);
        out.put_slice(&self.data);
    }

    const fn subcode_name(&self) -> Option<&'static str> {
        use NotificationCode as Code;
        Some(match (self.code, self.subcode) {
            (Code::MessageHeader, 1) => "connection not synchronized",
            (Code::MessageHeader, 2) => "bad message length",
            (Code::MessageHeader, 3) => "bad message type",
            (Code::Open, 1) => "unsupported version number",
            (Code::Open, 2) => "bad peer AS",
            (Code::Open, 3) => "bad BGP identifier",
            (Code::Open, 4) => "unsupported optional parameter",
            (Code::Open, 5) => "authentication failure",
            (Code::Open, 6) => "unacceptable hold time",
            (Code::Open, 7) => "unsupported capability",
            (Code::Open, 11) => "role mismatch",
            (Code::Update, 1) => "malformed attribute list",
            (Code::Update, 2) => "unrecognized well-known attribute",
            (Code::Update, 3) => "missing well-known attribute",
            (Code::Update, 4) => "attribute flags error",
            (Code::Update, 5) => "attribute length error",
            (Code::Update, 6) => "invalid ORIGIN attribute",
            (Code::Update, 7) => "AS routing loop",
            (Code::Update, 8) => "invalid NEXT_HOP attribute",
            (Code::Update, 9) => "optional attribute error",
            (Code::Update, 10) => "invalid network field",
            (Code::Update, 11) => "malformed AS_PATH",
            (Code::FiniteStateMachine, 1) => "unexpected message in OpenSent",
            (Code::FiniteStateMachine, 2) => "unexpected message in OpenConfirm",
            (Code::FiniteStateMachine, 3) => "unexpected message in Established",
            (Code::Cease, 1) => "maximum number of prefixes reached",
            (Code::Cease, 2) => "administrative shutdown",
            (Code::Cease, 3) => "peer deconfigured",
            (Code::Cease, 4) => "administrative reset",
            (Code::Cease, 5) => "connection rejected",
            (Code::Cease, 6) => "other configuration change",
            (Code::Cease, 7) => "connection collision resolution",
            (Code::Cease, 8) => "out of resources",
            (Code::Cease, 9) => "hard reset",
            (Code::Cease, 10) => "BFD down",
            (Code::RouteRefresh, 1) => "invalid message length",
            _ => return None,
        })
    }
}

/// The data of a shutdown communication: a length and UTF-8 text of at most 255 octets (RFC 9003 §2).
fn communication(text: &str) -> Bytes {
    let end = text.floor_char_boundary(usize::from(u8::MAX));
    let text = text.get(..end).unwrap_or_default();
    let mut data = BytesMut::with_capacity(1 + text.len());
    data.put_u8(u8::try_from(text.len()).unwrap_or_default());
    data.put_slice(text.as_bytes());
    data.freeze()
}

impl fmt::Display for NotificationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MessageHeader => "message header error",
            Self::Open => "OPEN message error",
            Self::Update => "UPDATE message error",
            Self::HoldTimerExpired => "hold timer expired",
            Self::FiniteStateMachine => "finite state machine error",
            Self::Cease => "cease",
            Self::RouteRefresh => "ROUTE-REFRESH message error",
            Self::SendHoldTimerExpired => "send hold timer expired",
            Self::Unknown(code) => return write!(f, "error code {code}"),
        })
    }
}

/// In words: `cease: administrative shutdown: "maintenance until 14:00"`. Control characters in the text are escaped.
impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        match self.subcode_name() {
            Some(name) => write!(f, ": {name}")?,
            None if self.subcode != 0 => write!(f, ": subcode {}", self.subcode)?,
            None => {}
        }
        if let Some(text) = self.shutdown_text() {
            write!(f, ": {text:?}")?;
        }
        // One level: a neighbour could nest thousands.
        if let Some(reason) = self.hard_reset_reason() {
            write!(f, ": {}", reason.code)?;
            if let Some(name) = reason.subcode_name() {
                write!(f, ": {name}")?;
            }
            if let Some(text) = reason.shutdown_text() {
                write!(f, ": {text:?}")?;
            }
        }
        Ok(())
    }
}
