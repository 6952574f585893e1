//! What of a neighbour goes beyond its session: protection, failure detection, limits.

use std::{fmt, net::IpAddr, time::Duration};

use ipnet::IpNet;

use super::config::{ConfigError, PeerConfig, PeerName};
use crate::bfd;

/// BFD with a neighbour (RFC 5880): its session ends when the path is lost, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// It is told once, and the session goes on, within [`PrefixLimit::octets`].
    Warn,
}

/// Octets that a neighbour's routes may take in any case.
const FREE_OCTETS: u64 = 16 << 20;
/// Octets more for each prefix that it may have.
const OCTETS_PER_PREFIX: u64 = 256;
/// That is not more than this, however many prefixes it may have.
const MOST_OCTETS: u64 = 4 << 30;

/// How many prefixes of one family a neighbour may have, and how much memory its routes may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixLimit {
    /// So many; more are too many.
    pub max_prefixes: u32,
    /// Octets of memory that its routes of all families may take, whatever [`action`](Self::action) says: with more the
    /// session ends with Cease/8, Out of Resources (RFC 4486 §4). `None`: as [`octets`](Self::octets) says.
    pub max_octets: Option<u64>,
    /// From this percentage of either on it is told; 1 to 100.
    pub warning_percent: u8,
    /// What happens with more.
    pub action: LimitAction,
    /// After Cease the neighbour is connected to again when this has passed, or the limit is raised; `None`: when the
    /// usual back-off ends.
    pub restart_after: Option<Duration>,
}

impl PrefixLimit {
    const DEFAULT_PREFIXES: u32 = 1_500_000;

    /// The limit of octets in force: [`max_octets`](Self::max_octets), or else 16 MiB and 256 octets for each prefix that
    /// is allowed, 4 GiB at most. Where more prefixes are only told of, that is not less than by default (400 MB).
    ///
    /// A route that is kept counts 128 octets and, once for all routes that have it, its attribute set as it lies in
    /// memory; a route that is only counted, 12 octets (IPv4) to 49 (IPv6 with path identifiers). A full table of the
    /// Internet, kept, is about 250 octets for each prefix with few neighbours behind it, and below 400 MB.
    #[must_use]
    pub fn octets(&self) -> u64 {
        let prefixes = match self.action {
            LimitAction::Cease => self.max_prefixes,
            LimitAction::Warn => self.max_prefixes.max(Self::DEFAULT_PREFIXES),
        };
        let usual = FREE_OCTETS + OCTETS_PER_PREFIX * u64::from(prefixes);
        self.max_octets.unwrap_or_else(|| usual.min(MOST_OCTETS))
    }

    /// Whether something is allowed that another limit ends the session for.
    pub(super) fn allows_more_than(&self, other: &Self) -> bool {
        self.max_prefixes > other.max_prefixes
            || self.octets() > other.octets()
            || (self.action, other.action) == (LimitAction::Warn, LimitAction::Cease)
    }
}

impl Default for PrefixLimit {
    fn default() -> Self {
        Self {
            max_prefixes: Self::DEFAULT_PREFIXES,
            max_octets: None,
            warning_percent: 75,
            action: LimitAction::Cease,
            restart_after: None,
        }
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

impl DynamicPeers {
    /// The configuration of the neighbour with this address.
    pub(crate) fn instance(&self, address: IpAddr, scope_id: u32) -> PeerConfig {
        PeerConfig {
            name: PeerName::new(format!("{}/{address}", self.template.name)),
            address,
            scope_id,
            passive: true,
            ..self.template.clone()
        }
    }

    /// Whether it is a neighbour's address.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.prefix.contains(&address.to_canonical())
    }

    /// Checks the values against the protocol.
    ///
    /// # Errors
    /// The first value of the template that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let stand_in: IpAddr = match self.prefix {
            IpNet::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            IpNet::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        PeerConfig { name: self.template.name.clone(), ..self.instance(stand_in, 0) }.validate()
    }
}

/// What BFD says of the path to a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathState {
    /// Packets get through both ways.
    Up,
    /// They do not, or nobody knows.
    Down(bfd::Cause),
}

impl fmt::Display for PathState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up => f.write_str("up"),
            Self::Down(cause) => write!(f, "down: {cause}"),
        }
    }
}

/// What an operator can do to a neighbour, beyond its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerCommand {
    /// End the session with Cease/2, Administrative Shutdown, and this text (RFC 9003; at most 255 octets of it are
    /// sent); the neighbour stays down until [`Enable`](Self::Enable), whatever becomes of its configuration.
    Shutdown {
        /// For the operators at the other end; may be empty.
        text: String,
    },
    /// Undo [`Shutdown`](Self::Shutdown). One that is down by configuration stays so.
    Enable,
    /// End the session with Cease/4, Administrative Reset, and this text; it comes up again by itself.
    Reset {
        /// For the operators at the other end; may be empty.
        text: String,
    },
    /// Ask the neighbour for all its routes again (ROUTE-REFRESH, RFC 2918).
    SoftResetIn,
    /// Send all routes again.
    SoftResetOut,
    /// Both.
    SoftReset,
}

/// A command that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// There is no such neighbour.
    #[error("there is no peer {peer}")]
    UnknownPeer {
        /// The name.
        peer: PeerName,
    },
    /// Only an established session can be refreshed.
    #[error("peer {peer} has no session: wait until it is Established")]
    NotEstablished {
        /// Which.
        peer: PeerName,
    },
    /// The neighbour does not offer route refresh.
    #[error("peer {peer} does not know ROUTE-REFRESH: reset the session instead")]
    NoRouteRefresh {
        /// Which.
        peer: PeerName,
    },
    /// The speaker has stopped.
    #[error("the speaker has stopped")]
    Stopped,
}
