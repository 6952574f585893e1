//! One neighbour's finite state machine.

use std::net::SocketAddr;

/// Which of a neighbour's two possible connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// We connected.
    Outgoing,
    /// The neighbour connected.
    Incoming,
}

/// The state of a session (RFC 4271 §8.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// No session is wanted, or it pauses.
    Idle,
    /// A TCP connection is being opened.
    Connect,
    /// Waiting for a TCP connection.
    Active,
    /// OPEN was sent.
    OpenSent,
    /// The neighbour's OPEN was accepted.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

/// The ends of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Ours.
    pub local: SocketAddr,
    /// The neighbour's.
    pub remote: SocketAddr,
}
