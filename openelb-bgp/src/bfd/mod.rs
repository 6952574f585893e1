//! Bidirectional Forwarding Detection (RFC 5880; single hop: RFC 5881, several hops: RFC 5883), without I/O.
//!
//! Two systems send each other small packets at an agreed rate; when some in a row are missing, the path is down. It
//! takes milliseconds where BGP's hold timer takes seconds.
//!
//! - [`ControlPacket`]: bytes and values;
//! - [`Session`]: one neighbour, asynchronous mode, without echo and authentication;
//! - [`Endpoint`]: many sessions, told apart by discriminator, address and interface.
//!
//! No driver runs it yet and no BGP neighbour is coupled to it: an embedder brings the sockets and the clock.

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
