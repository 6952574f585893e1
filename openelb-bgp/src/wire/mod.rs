//! Bytes and values: the messages of BGP-4.
//!
//! [`frame`] finds the first message in a stream, [`Message::decode`] reads it, [`Message::encode`] and
//! [`UpdateBuilder`] write. What the two ends have agreed on is a parameter, [`SessionContext`]. There is no state, no
//! clock and no I/O here, and no input makes it panic.
//!
//! Read and written: RFC 4271 and 4760 (IPv4 and IPv6 unicast; every other family and every unknown attribute is kept
//! as opaque bytes), 5492 capabilities, 6793 four-octet AS numbers with the merge of AS4_PATH, 7911 additional paths,
//! 8654 extended messages, 2918 and 7313 route refresh, 4724 graceful restart, 8950 IPv6 next hops for IPv4 prefixes,
//! 1997, 4360 and 8092 communities, 9003 shutdown communication; 9072 long OPEN parameters are accepted.
//!
//! Malformed attributes are handled as RFC 7606 says: [`AttributeRule`] is its table, one row per attribute, and
//! [`Update::errors`] lists what was found. Only what leaves the NLRI in doubt is a [`DecodeError`], and that knows
//! the NOTIFICATION to answer with ([`DecodeError::notification`]).

mod as_path;
mod attribute;
mod attribute_decode;
mod attribute_encode;
mod builder;
mod capability;
mod community;
mod context;
mod error;
mod family;
mod message;
mod nlri;
mod nlri_list;
mod notification;
mod open;
mod reader;
mod route_refresh;
mod rules;
#[cfg(test)]
mod tests;
mod update;

pub use as_path::{AsPath, AsPathSegment, SegmentKind};
pub use attribute::{Aggregator, AttributeFlags, Attributes, EncodedAttributes, Origin, UnknownAttribute};
pub use builder::UpdateBuilder;
pub use capability::{
    AddPathFamily, AddPathMode, Capability, ExtendedNextHop, GracefulRestart, GracefulRestartFamily,
};
pub use community::{Community, ExtendedCommunity, LargeCommunity, ParseCommunityError};
pub use context::{SessionContext, SessionKind};
pub use error::{DecodeError, EncodeError, HeaderError, OpenError, UpdateError};
pub use family::Family;
pub use message::{EXTENDED_MAX_MESSAGE_LEN, HEADER_LEN, MAX_MESSAGE_LEN, Message, MessageKind, frame};
pub use nlri::{Ipv4Prefix, Ipv6Prefix, Nlri, Prefix, PrefixError};
pub use nlri_list::{NlriIter, NlriList};
pub use notification::{Notification, NotificationCode};
pub use open::{AS_TRANS, Open};
pub use route_refresh::{RouteRefresh, RouteRefreshKind};
pub use rules::{AttributeError, AttributeFault, AttributeRule, Senders, Treatment};
pub use update::{MpReach, MpUnreach, NextHop, Update};
