//! What the speaker asks of its driver, and how the two name a connection.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;

use ipnet::IpNet;

use super::{
    config::{PeerConfig, PeerName},
    options::PathState,
    view::{ReceivedRoute, RibPath},
};
use crate::{
    fsm::{Direction, State},
    wire::Family,
};

/// A peer within one speaker, for the driver: an index that is never used again for another peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub(crate) u64);

/// One of a peer's two possible connections.
///
/// `generation` tells the connections that follow each other apart: what a driver reports of one that is gone is
/// ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// Whose.
    pub peer: PeerId,
    /// Which of the two.
    pub direction: Direction,
    /// Which of those that followed each other.
    pub generation: u32,
}

/// What the driver is to do, in the order in which it is given.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Output {
    /// Open a TCP connection; the outcome goes to [`Speaker::handle_connected`](super::Speaker::handle_connected) or
    /// [`Speaker::handle_connect_failed`](super::Speaker::handle_connect_failed).
    Connect {
        /// How to name it.
        connection: ConnectionId,
        /// Where to, with which options.
        config: Arc<PeerConfig>,
        /// The TTL to set before connecting.
        ttl: u8,
    },
    /// Write these bytes; report progress to [`Speaker::handle_written`](super::Speaker::handle_written).
    Send {
        /// On which connection.
        connection: ConnectionId,
        /// Whole messages.
        bytes: Bytes,
    },
    /// Close after everything before it was written, within a bounded time; report nothing more of it.
    Close {
        /// Which connection.
        connection: ConnectionId,
    },
}

/// What happened, for logs and tests; a bounded number is kept until polled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A session changed its state.
    State {
        /// Whose.
        peer: PeerName,
        /// The new state.
        state: State,
    },
    /// A session ended or an attempt failed.
    Down {
        /// Whose.
        peer: PeerName,
        /// In words.
        reason: String,
    },
    /// A neighbour's prefixes come close to its limit, or are over it; told once until they are fewer again.
    PrefixLimit {
        /// Whose.
        peer: PeerName,
        /// Of which family.
        family: Family,
        /// How many there are.
        received: u64,
        /// How many are allowed.
        limit: u32,
        /// There are more than that.
        exceeded: bool,
    },
    /// The memory that a neighbour's routes take comes close to its limit, or is over it; told once until it is less
    /// again.
    OctetLimit {
        /// Whose.
        peer: PeerName,
        /// Octets that they take.
        octets: u64,
        /// How many are allowed.
        limit: u64,
        /// There are more than that.
        exceeded: bool,
    },
    /// A neighbour has sent more paths of a prefix than are kept (RFC 7911); told once in a session, and counted in
    /// [`PeerCounters::unkept_paths`](super::PeerCounters::unkept_paths).
    PathsNotKept {
        /// Whose.
        peer: PeerName,
        /// The first prefix of which one was not kept.
        prefix: IpNet,
        /// How many paths of a prefix are kept.
        kept: usize,
    },
    /// BFD says something else of the path.
    Path {
        /// To whom.
        peer: PeerName,
        /// What it says.
        state: PathState,
    },
    /// A neighbour is there no more: it is not configured any longer, or a dynamic one has gone.
    PeerRemoved {
        /// Which.
        peer: PeerName,
    },
    /// A prefix has another best route, or none ([`Speaker::watch_best_paths`](super::Speaker::watch_best_paths)).
    BestPath {
        /// Where to.
        prefix: IpNet,
        /// The route.
        path: Option<RibPath>,
    },
    /// A neighbour whose routes are kept has sent one, or has it no more
    /// ([`Speaker::watch_received`](super::Speaker::watch_received)).
    Received {
        /// Whose.
        peer: PeerName,
        /// Where to.
        prefix: IpNet,
        /// The neighbour's path identifier; 0 also where all its routes of the prefix are gone.
        path_id: u32,
        /// The route; `None`: it is gone.
        route: Option<Box<ReceivedRoute>>,
    },
    /// Events before this one were dropped: more came at once than are kept.
    Lost {
        /// How many.
        events: u64,
    },
}

/// Why a connection is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No peer has this address.
    #[error("no peer is configured for {source_address}")]
    Unconfigured {
        /// Where it came from.
        source_address: SocketAddr,
    },
    /// The peer is switched off.
    #[error("peer {peer} is administratively down")]
    AdminDown {
        /// Which.
        peer: PeerName,
    },
    /// The peer wants its connections on another address.
    #[error("peer {peer} is configured for local address {expected}, not {local}")]
    LocalAddress {
        /// Which.
        peer: PeerName,
        /// The configured one.
        expected: std::net::IpAddr,
        /// Where it came to.
        local: SocketAddr,
    },
    /// The last session failed, and the pause after it is not over.
    #[error("peer {peer} pauses after an error")]
    Idle {
        /// Which.
        peer: PeerName,
    },
    /// The peer has a connection already, and another one that may take its place, or that was decided on just before.
    #[error("peer {peer} has a connection, and another one is, or was just, looked at")]
    Busy {
        /// Which.
        peer: PeerName,
    },
    /// As many dynamic neighbours are there as are allowed.
    #[error("dynamic peers {group}: {max} are there already, no room for {source_address}")]
    TooManyDynamicPeers {
        /// The name of the template.
        group: PeerName,
        /// How many are allowed.
        max: u32,
        /// Where it came from.
        source_address: SocketAddr,
    },
}

/// A connection that is taken: [`Speaker::handle_connected`](super::Speaker::handle_connected) is to follow.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// How to name it.
    pub connection: ConnectionId,
    /// Whose it is.
    pub config: Arc<PeerConfig>,
    /// The TTL to set.
    pub ttl: u8,
}
