//! The speaker itself.

use std::time::Instant;

use ipnet::IpNet;

use super::{
    Accepted, ConfigError, ConnectionId, Delta, Event, Output, PeerConfig, PeerName, PeersSnapshot, Refusal,
    Route, RouteStatus, RoutesSnapshot, SpeakerConfig, TableStats,
};
use crate::fsm::ConnectionInfo;

/// A BGP speaker without I/O.
#[derive(Debug)]
pub struct Speaker {
    config: SpeakerConfig,
}

impl Speaker {
    /// A speaker without neighbours and routes.
    ///
    /// # Errors
    /// If the configuration is not valid.
    pub fn new(config: SpeakerConfig, _now: Instant) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self { config })
    }
    /// The configuration in force.
    pub fn config(&self) -> &SpeakerConfig {
        &self.config
    }
    /// Changes the configuration; see [`SpeakerConfig`] for what resets sessions.
    ///
    /// # Errors
    /// If the configuration is not valid; the one before stays.
    pub fn set_config(&mut self, config: SpeakerConfig, _now: Instant) -> Result<(), ConfigError> {
        config.validate()?;
        self.config = config;
        Ok(())
    }
    /// Makes this the whole set of neighbours.
    ///
    /// # Errors
    /// If one is not valid or two clash; the set before stays.
    pub fn set_peers(&mut self, peers: Vec<PeerConfig>, _now: Instant) -> Result<(), ConfigError> {
        super::index_peers(peers).map(drop)
    }
    /// Makes this the whole set of routes of `source`.
    pub fn set_routes(&mut self, _source: &str, _routes: impl IntoIterator<Item = Route>, _now: Instant) {}
    /// Changes some routes of `source`.
    pub fn apply(&mut self, _source: &str, _delta: Delta, _now: Instant) {}
    /// Ends the session with this neighbour; it comes up again by itself.
    pub fn reset(&mut self, _peer: &PeerName, _now: Instant) {}
    /// Ends all sessions with Cease/2 (RFC 4486).
    pub fn stop(&mut self, _now: Instant) {}
    /// Takes an incoming connection, or says why not.
    ///
    /// # Errors
    /// The reason, if it is to be closed.
    pub fn accept(&mut self, info: ConnectionInfo) -> Result<Accepted, Refusal> {
        Err(Refusal::Unconfigured { source_address: info.remote })
    }
    /// A TCP connection is up.
    pub fn handle_connected(&mut self, _connection: ConnectionId, _info: ConnectionInfo, _now: Instant) {}
    /// A TCP connection did not come up.
    pub fn handle_connect_failed(&mut self, _connection: ConnectionId, _error: &str, _now: Instant) {}
    /// Bytes came.
    pub fn handle_bytes(&mut self, _connection: ConnectionId, _bytes: &[u8], _now: Instant) {}
    /// So many octets were written.
    pub fn handle_written(&mut self, _connection: ConnectionId, _octets: usize, _now: Instant) {}
    /// The connection ended.
    pub fn handle_closed(&mut self, _connection: ConnectionId, _now: Instant) {}
    /// Time has passed.
    pub fn handle_timeout(&mut self, _now: Instant) {}
    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    /// What to do next.
    pub fn poll_output(&mut self, _now: Instant) -> Option<Output> {
        None
    }
    /// What happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }
    /// The neighbours.
    pub fn peers(&self) -> PeersSnapshot {
        PeersSnapshot::default()
    }
    /// Changes with every state of [`peers`](Self::peers), counters left out.
    pub fn state_revision(&self) -> u64 {
        0
    }
    /// The routes, and where each stands with each neighbour.
    pub fn routes(&self) -> RoutesSnapshot {
        RoutesSnapshot::default()
    }
    /// Changes with [`routes`](Self::routes).
    pub fn routes_revision(&self) -> u64 {
        0
    }
    /// The routes of one prefix.
    pub fn route_status(&self, _prefix: IpNet) -> Vec<RouteStatus> {
        Vec::new()
    }
    /// How much the tables hold.
    pub fn table_stats(&self) -> TableStats {
        TableStats::default()
    }
}
