//! Why bytes are no message, and why a message has no bytes.

use bytes::Bytes;

use super::{Family, Notification};

/// A message that ends the session. [`notification`](Self::notification) is the answer that the RFC asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The header, or a length that the message's type cannot have.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The OPEN.
    #[error("OPEN: {0}")]
    Open(#[from] OpenError),
    /// The UPDATE: only what RFC 7606 could not contain.
    #[error("UPDATE: {0}")]
    Update(#[from] UpdateError),
    /// A begin or end marker of a route refresh whose length is not 4 (RFC 7313 §5).
    #[error("ROUTE-REFRESH marker of {} octets instead of 23", .message.len())]
    RouteRefreshLength {
        /// The whole message.
        message: Bytes,
    },
}

/// A header that ends the session (RFC 4271 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The marker is not all ones.
    #[error("the marker of a message is not all ones: the stream is out of step")]
    NotSynchronized,
    /// The length is impossible, or impossible for the type.
    #[error("a message length of {length} octets is impossible here")]
    BadLength {
        /// The length as received.
        length: u16,
    },
    /// The type is unknown.
    #[error("message type {kind} is unknown")]
    BadType {
        /// The type as received.
        kind: u8,
    },
}

/// An OPEN that ends the session (RFC 4271 §6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not version 4.
    #[error("BGP version {version} instead of 4")]
    UnsupportedVersion {
        /// The version offered.
        version: u8,
    },
    /// AS number 0 (RFC 7607 §2), in the message or its four-octet capability.
    #[error("AS number 0")]
    AsnZero,
    /// BGP identifier 0.0.0.0 (RFC 6286 §2.2).
    #[error("BGP identifier 0.0.0.0")]
    RouterIdZero,
    /// An optional parameter that is not capabilities.
    #[error("optional parameter {kind} is unknown")]
    UnsupportedParameter {
        /// Its type.
        kind: u8,
    },
    /// A hold time of 1 or 2 seconds.
    #[error("hold time of {seconds} s: 0, or 3 and more, are allowed")]
    UnacceptableHoldTime {
        /// The time offered.
        seconds: u16,
    },
    /// Lengths that do not add up.
    #[error("optional parameters whose lengths do not add up")]
    Malformed,
}

/// An UPDATE that ends the session (RFC 4271 §6.3 as revised by RFC 7606).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// The lengths of withdrawn routes and attributes do not fit the message (RFC 7606 §3a).
    #[error("the lengths of withdrawn routes and attributes do not fit the message")]
    Lengths,
    /// Withdrawn routes or NLRI of the body cannot be read (RFC 7606 §5.3).
    #[error("the {field} cannot be read")]
    InvalidNetworkField {
        /// Which field.
        field: &'static str,
    },
    /// MP_REACH_NLRI or MP_UNREACH_NLRI occurs twice (RFC 7606 §3g).
    #[error("attribute {code} occurs twice")]
    RepeatedMultiprotocol {
        /// 14 or 15.
        code: u8,
    },
    /// MP_REACH_NLRI or MP_UNREACH_NLRI cannot be read (RFC 7606 §5.3, §7.11, §7.12).
    #[error("attribute {code} cannot be read: {cause}")]
    Multiprotocol {
        /// 14 or 15.
        code: u8,
        /// The whole attribute.
        attribute: Bytes,
        /// What is wrong with it.
        cause: &'static str,
    },
    /// A malformed attribute in an UPDATE without reachable prefixes (RFC 7606 §5.2): what it is about may be lost.
    #[error("attribute {code} is malformed, and the message has no prefixes to withdraw")]
    NothingToWithdraw {
        /// The attribute.
        code: u8,
        /// Subcode of the NOTIFICATION.
        subcode: u8,
        /// The whole attribute, or what the subcode wants.
        data: Bytes,
    },
}

impl DecodeError {
    /// The NOTIFICATION to send before closing: code, subcode and data of RFC 4271 §6 and its updates.
    #[must_use]
    pub fn notification(&self) -> Notification {
        match self {
            Self::Header(HeaderError::NotSynchronized) => Notification::connection_not_synchronized(),
            Self::Header(HeaderError::BadLength { length }) => Notification::bad_message_length(*length),
            Self::Header(HeaderError::BadType { kind }) => Notification::bad_message_type(*kind),
            Self::Open(error) => error.notification(),
            Self::Update(error) => error.notification(),
            Self::RouteRefreshLength { message } => Notification::bad_route_refresh_length(message.clone()),
        }
    }
}

impl OpenError {
    fn notification(self) -> Notification {
        match self {
            Self::UnsupportedVersion { .. } => Notification::unsupported_version(),
            Self::AsnZero => Notification::bad_peer_as(),
            Self::RouterIdZero => Notification::bad_router_id(),
            Self::UnsupportedParameter { .. } => Notification::unsupported_parameter(),
            Self::UnacceptableHoldTime { .. } => Notification::unacceptable_hold_time(),
            Self::Malformed => Notification::malformed_open(),
        }
    }
}

impl UpdateError {
    fn notification(&self) -> Notification {
        match self {
            Self::Lengths | Self::RepeatedMultiprotocol { .. } => Notification::update_error(1, Bytes::new()),
            Self::InvalidNetworkField { .. } => Notification::update_error(10, Bytes::new()),
            Self::Multiprotocol { attribute, .. } => Notification::update_error(9, attribute.clone()),
            Self::NothingToWithdraw { subcode, data, .. } => {
                Notification::update_error(*subcode, data.clone())
            }
        }
    }
}

impl From<HeaderError> for Notification {
    fn from(error: HeaderError) -> Self {
        DecodeError::Header(error).notification()
    }
}

/// A value that does not fit a message. The caller's mistake, never a neighbour's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The message would be longer than the session allows.
    #[error("a message of {length} octets does not fit the {max} of the session")]
    MessageTooLong {
        /// The length that it would have, or the least that is known of it.
        length: usize,
        /// The session's limit.
        max: usize,
    },
    /// An attribute, or a whole set, is longer than its length field.
    #[error("attributes of {length} octets: at most 65535 can be written")]
    AttributesTooLong {
        /// The length.
        length: usize,
    },
    /// The capabilities do not fit the OPEN.
    #[error("capabilities of {length} octets do not fit an OPEN")]
    CapabilitiesTooLong {
        /// The length.
        length: usize,
    },
    /// A value is beyond its field.
    #[error("{field} {value} is over {max}")]
    ValueTooLarge {
        /// Which.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The largest possible.
        max: u64,
    },
    /// A prefix of another family than the one asked for.
    #[error("a prefix that is not of family {family}")]
    WrongFamily {
        /// The family asked for.
        family: Family,
    },
    /// The family cannot have this next hop, or NEXT_HOP is missing, or is there beside that of MP_REACH_NLRI.
    #[error("family {family} cannot be announced with this next hop")]
    WrongNextHop {
        /// The family asked for.
        family: Family,
    },
}
