//! Bytes to values and back: Ethernet, ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861).
//!
//! Nothing here has state, allocates, or panics on any input.

pub mod arp;
pub mod ethernet;
mod frame;
pub mod ndp;

pub use frame::Frame;

/// Why octets are not what they should be. Whoever sent them is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Shorter than the format.
    #[error("{0} octets are too few")]
    TooShort(usize),
    /// A field that says "this is something else": not for us, and no error of the sender.
    #[error("not the expected protocol")]
    OtherProtocol,
    /// A field with a value that its RFC forbids.
    #[error("invalid {0}")]
    Invalid(&'static str),
    /// The checksum is wrong.
    #[error("wrong checksum")]
    Checksum,
}
