//! The NOTIFICATION message.

use bytes::Bytes;

use super::{Capability, Family, MessageKind};

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
        let _ = required;
        Self::bare(NotificationCode::Open, 7)
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
        let _ = text;
        Self::bare(NotificationCode::Cease, 2)
    }

    /// 6/3: the neighbour is no longer configured.
    #[must_use]
    pub const fn peer_deconfigured() -> Self {
        Self::bare(NotificationCode::Cease, 3)
    }

    /// 6/4: reset, with a text as in [`administrative_shutdown`](Self::administrative_shutdown).
    #[must_use]
    pub fn administrative_reset(text: &str) -> Self {
        let _ = text;
        Self::bare(NotificationCode::Cease, 4)
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
        None
    }

    /// The true reason within a hard reset (RFC 8538 §3.1).
    #[must_use]
    pub fn hard_reset_reason(&self) -> Option<Self> {
        None
    }
}
