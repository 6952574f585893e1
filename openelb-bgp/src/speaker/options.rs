//! What of a neighbour goes beyond its session: protection, failure detection, limits.

use std::time::Duration;

use ipnet::IpNet;

use super::config::PeerConfig;
use crate::bfd;

/// BFD with a neighbour (RFC 5880): its session ends when the path is lost, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BfdConfig {
    /// Multiplier and intervals, and whether we wait for the neighbour to speak first.
    pub timers: bfd::Timers,
    /// Packets with a lower TTL are discarded. `None`: 255 with a directly connected neighbour (RFC 5881 §5), any over
    /// several hops (RFC 5883 §5).
    pub minimum_ttl: Option<u8>,
}

/// What happens when a neighbour has more prefixes of one family than allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitAction {
    /// The session ends with Cease/1, Maximum Number of Prefixes Reached (RFC 4486 §4).
    #[default]
    Cease,
    /// It is told once, and the session goes on.
    Warn,
}

/// How many prefixes of one family a neighbour may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixLimit {
    /// So many; more are too many.
    pub max_prefixes: u32,
    /// From this percentage of them on it is told; 1 to 100.
    pub warning_percent: u8,
    /// What happens with more.
    pub action: LimitAction,
    /// After Cease the neighbour is connected to again when this has passed; `None`: when the usual back-off ends.
    pub restart_after: Option<Duration>,
}

impl Default for PrefixLimit {
    fn default() -> Self {
        Self { max_prefixes: 1_500_000, warning_percent: 75, action: LimitAction::Cease, restart_after: None }
    }
}

/// What is kept of the routes that a neighbour sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReceivedRoutes {
    /// Their number.
    #[default]
    Count,
    /// The routes with their attributes (Adj-RIB-In); the best of each prefix is chosen. They are never passed on.
    Keep,
}

/// Neighbours that are not known by address: whoever connects from a prefix and says the right things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicPeers {
    /// Where they connect from.
    pub prefix: IpNet,
    /// How each is treated. Its name is followed by `/ADDRESS`; it is passive; its address is not used.
    pub template: PeerConfig,
    /// At most so many at the same time.
    pub max_peers: u32,
}
