//! The machine that embedders drive: neighbours and desired routes in, bytes for connections out.
//!
//! [`Speaker`] does no I/O and reads no clock: the caller says what happened and when, and polls for what to do. With
//! the `tokio` feature `net::spawn` drives one on a runtime.

mod config;
mod event;
mod options;
mod peer;
mod scanner;
mod session;
#[expect(clippy::module_inception, reason = "the machine, beside the values that go in and out")]
mod speaker;
mod stats;
#[cfg(test)]
mod tests;

#[cfg(feature = "tokio")]
pub(crate) use config::index_peers;
pub use config::{
    ConfigError, Delta, FamilyConfig, GracefulRestartConfig, NextHop, PeerConfig, PeerName, PeerScope, Route,
    RouteAttributes, RouteKey, RouteOrigin, Secret, SpeakerConfig,
};
pub use event::{Accepted, ConnectionId, Event, Output, PeerId, Refusal};
pub use options::{BfdConfig, DynamicPeers, LimitAction, PrefixLimit, ReceivedRoutes};
pub use speaker::Speaker;
pub use stats::{
    Advertisement, FamilyStatus, LastError, ListenerState, ListenerStatus, MessageCounters, PeerCounters,
    PeerStatus, PeersSnapshot, RouteStatus, RoutesSnapshot, SessionStatus, TableStats,
};
