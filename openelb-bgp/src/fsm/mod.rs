//! One neighbour's finite state machine (RFC 4271 §8), without I/O.
//!
//! [`Fsm`] is the machine. Its methods are of three kinds:
//!
//! - **commands**: [`start`](Fsm::start), [`stop`](Fsm::stop), [`reset`](Fsm::reset);
//! - **input** from the network and the clock: `handle_*`, each with the time as `now`;
//! - **output**: [`poll_output`](Fsm::poll_output) until it returns `None`, after every command and input; then
//!   [`poll_timeout`](Fsm::poll_timeout) says when [`handle_timeout`](Fsm::handle_timeout) is due. A call too early or
//!   too often does nothing.
//!
//! A neighbour can have two connections for a moment: one that we opened and one that it opened. Both are the
//! machine's, and it decides which one stays (RFC 4271 §6.8, RFC 6286 §2.3). What it does not do: sockets, routes and
//! time. One seed, one history: the jitter of its timers comes from a generator that is seeded by the caller.

mod connection;
mod negotiation;
mod peer;
#[cfg(test)]
mod tests;
mod timers;

use std::{fmt, net::SocketAddr, time::Duration};

use bytes::Bytes;

pub use negotiation::{FamilyOffer, FsmConfig};
pub use peer::Fsm;

use crate::wire::{Family, Notification, Open, RouteRefresh, SessionContext, Update};

/// Which of a neighbour's two possible connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// We connected.
    Outgoing,
    /// The neighbour connected.
    Incoming,
}

impl Direction {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Outgoing => Self::Incoming,
            Self::Incoming => Self::Outgoing,
        }
    }
}

/// The state of a session (RFC 4271 §8.2.2). Of two connections the further one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// No session is wanted, or it pauses after an error; connections are refused.
    Idle,
    /// A TCP connection is being opened.
    Connect,
    /// Waiting for the neighbour's connection, or for the next attempt to open ours.
    Active,
    /// OPEN was sent.
    OpenSent,
    /// The neighbour's OPEN was accepted.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "Idle",
            Self::Connect => "Connect",
            Self::Active => "Active",
            Self::OpenSent => "OpenSent",
            Self::OpenConfirm => "OpenConfirm",
            Self::Established => "Established",
        })
    }
}

/// The ends of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Ours.
    pub local: SocketAddr,
    /// The neighbour's.
    pub remote: SocketAddr,
}

/// What both ends agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// How messages are read and written.
    pub context: SessionContext,
    /// The shorter of both hold times (RFC 4271 §4.2); zero: neither hold timer nor keepalives.
    pub hold_time: Duration,
    /// Interval of our keepalives: the configured one, at most a third of the hold time; zero: none.
    pub keepalive: Duration,
    /// The families that both offer.
    pub families: Vec<Family>,
    /// Our OPEN.
    pub local_open: Open,
    /// The neighbour's OPEN.
    pub remote_open: Open,
    /// Which connection carries the session.
    pub direction: Direction,
    /// Our end of it.
    pub local: SocketAddr,
    /// The neighbour's end of it.
    pub remote: SocketAddr,
    /// Both know ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// Both mark the begin and end of a refresh (RFC 7313).
    pub enhanced_route_refresh: bool,
    /// Both keep routes over NOTIFICATIONs and an expired hold time, too (the N bit, RFC 8538); what must end for good
    /// is then wrapped in a Hard Reset (Cease/9).
    pub notification_restart: bool,
}

/// What the machine wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a TCP connection to the neighbour; answer with `handle_connected` or `handle_connect_failed`. If one is
    /// being opened, it is still wanted and not opened twice.
    Connect,
    /// Write these bytes, whole messages, after everything before them.
    Send {
        /// To which connection.
        direction: Direction,
        /// The messages.
        bytes: Bytes,
    },
    /// Close the connection (or stop opening it) after what was to be sent is written, or after a bound. No input of
    /// this connection is expected any more; late input is ignored.
    Close {
        /// Which connection.
        direction: Direction,
    },
    /// A session is up.
    Established(Box<Negotiated>),
    /// The neighbour's routes. Attribute errors (RFC 7606) are in it.
    Update(Box<Update>),
    /// The neighbour wants routes again, or marks a refresh.
    RouteRefresh(RouteRefresh),
    /// The neighbour has sent all its routes of a family (RFC 4724 §2).
    EndOfRib(Family),
    /// The session ended, or an attempt failed.
    Down(DownReason),
    /// The state is another one.
    StateChanged(State),
}

/// Why a session ended or did not come up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DownReason {
    /// We ended it; the neighbour was told so.
    #[error("we sent {0}")]
    Sent(Notification),
    /// The neighbour ended it.
    #[error("the neighbour sent {0}")]
    Received(Notification),
    /// The bytes are no BGP, or not what may come now; the neighbour was told so.
    #[error("{cause}; we sent {notification}")]
    BadMessage {
        /// What is wrong with them.
        cause: String,
        /// What was answered.
        notification: Notification,
    },
    /// The connection was closed or lost.
    #[error("the connection was closed in state {0}")]
    Closed(State),
    /// The neighbour does not read: nothing could be written for the send hold time (RFC 9687).
    #[error("the neighbour did not read for the send hold time; we closed")]
    SendHold,
    /// The neighbour has opened another connection: it has restarted, and this one was dead (RFC 4724 §4.2).
    #[error("the neighbour has restarted: it opened a new connection, and the old one is dropped")]
    Replaced,
    /// The link to the neighbour is down; nothing could be told.
    #[error("interface {interface} to the neighbour is down")]
    LinkDown {
        /// Its name.
        interface: String,
    },
}

impl DownReason {
    /// Whether the session ended in a way after which routes are kept for the neighbour's restart time (RFC 4724 §4.2),
    /// if it offered graceful restart. `notification`: both ends have set the N bit, so that NOTIFICATIONs keep routes,
    /// too, but for a Hard Reset (RFC 8538 §4).
    #[must_use]
    pub fn keeps_routes(&self, notification: bool) -> bool {
        let soft = |told: &Notification| notification && !told.is_hard_reset();
        match self {
            Self::Closed(_) | Self::Replaced | Self::LinkDown { .. } => true,
            Self::SendHold => notification,
            Self::Sent(told) | Self::Received(told) => soft(told),
            Self::BadMessage { notification: told, .. } => soft(told),
        }
    }
}
