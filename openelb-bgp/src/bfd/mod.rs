//! Bidirectional Forwarding Detection (RFC 5880; single hop: RFC 5881, several hops: RFC 5883), without I/O.
//!
//! Two systems send each other small packets at an agreed rate; when some in a row are missing, the path is down. It
//! takes milliseconds where BGP's hold timer takes seconds.
//!
//! - [`ControlPacket`]: bytes and values;
//! - [`Session`]: one neighbour, asynchronous mode, without echo and authentication;
//! - [`Endpoint`]: many sessions, told apart by discriminator, address and interface.
//!
//! With the feature `bfd`, `net` runs it in a thread of its own for each neighbour that has
//! [`PeerConfig::bfd`](crate::speaker::PeerConfig::bfd), and ends the neighbour's session when the path fails. Others
//! bring sockets and a clock of their own.

mod endpoint;
mod session;
#[cfg(test)]
mod tests;
mod wire;

pub use endpoint::{Arrival, Endpoint, EndpointOutput, SessionConfig, SessionId};
pub use session::{Cause, Counters, SLOW_INTERVAL, Session, SessionStatus, StateChange, Timers};
pub use wire::{ControlPacket, Diagnostic, Discard, PACKET_LEN, State};

/// The UDP port of single-hop control packets (RFC 5881 §4).
pub const SINGLE_HOP_PORT: u16 = 3784;
/// The UDP port of multihop control packets (RFC 5883 §5).
pub const MULTIHOP_PORT: u16 = 4784;
/// The source ports of control packets (RFC 5881 §4); each session has its own.
pub const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;
