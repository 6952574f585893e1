//! The machine that embedders drive: neighbours and desired routes in, bytes for connections out.
//!
//! [`Speaker`] does no I/O and reads no clock: the caller says what happened and when, and polls for what to do. With
//! the `tokio` feature `net::spawn` drives one on a runtime.

mod bfd_path;
mod challenger;
mod config;
mod event;
mod operations;
mod options;
mod peer;
mod queries;
mod reception;
mod scanner;
mod session;
#[expect(clippy::module_inception, reason = "the machine, beside the values that go in and out")]
mod speaker;
mod stats;
#[cfg(test)]
mod tests;
mod view;

pub use config::{
    ConfigError, Delta, FamilyConfig, GUESTS, GracefulRestartConfig, NextHop, PeerConfig, PeerName,
    PeerScope, Route, RouteAttributes, RouteKey, RouteOrigin, Secret, SpeakerConfig,
};
#[cfg(feature = "tokio")]
pub(crate) use config::{index_dynamic_peers, index_peers};
pub use event::{Accepted, ConnectionId, Event, Output, PeerId, Refusal};
pub use options::{
    BfdConfig, CommandError, DynamicPeers, LimitAction, PathState, PeerCommand, PrefixLimit, ReceivedRoutes,
};
pub use speaker::Speaker;
pub use stats::{
    Advertisement, BfdStatus, FamilyStatus, LastError, ListenerState, ListenerStatus, MessageCounters,
    PeerClash, PeerCounters, PeerDetails, PeerSource, PeerStatus, PeersSnapshot, RouteStatus, RoutesSnapshot,
    SessionStatus, TableStats,
};
pub use view::{AdvertisedRoute, BestPathStep, PathAttributes, ReceivedRoute, RibEntry, RibPath, RouteOwner};
