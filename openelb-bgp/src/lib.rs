//! An embeddable BGP-4 speaker.

pub mod fsm;
#[cfg(feature = "tokio")]
pub mod net;
pub mod speaker;
pub mod wire;
