//! An embeddable BGP-4 speaker.
//!
//! ```
//! use std::net::Ipv4Addr;
//! use bytes::BytesMut;
//! use openelb_bgp::wire::{AsPath, Attributes, Message, Nlri, Origin, SessionContext, UpdateBuilder, frame};
//!
//! // What two routers have agreed on: 4-octet AS numbers, an external session.
//! let session = SessionContext::default();
//!
//! // One attribute set, encoded once, and as many prefixes as there are.
//! let attributes = Attributes {
//!     origin: Some(Origin::Igp),
//!     as_path: Some(AsPath::sequence([64512])),
//!     next_hop: Some(Ipv4Addr::new(192, 0, 2, 1)),
//!     ..Attributes::default()
//! }
//! .encode(&session)?;
//! let services = (1..=3).map(|i| Nlri::from(Ipv4Addr::new(203, 0, 113, i)));
//!
//! let mut bytes = BytesMut::new();
//! UpdateBuilder::new(&session).announce_ipv4(&attributes, services, &mut bytes)?;
//!
//! // The neighbour's side: find the message in the stream and read it.
//! let length = frame(&bytes, session.max_message_len())?.expect("a whole message");
//! let Message::Update(update) = Message::decode(&bytes[..length], &session)? else { unreachable!() };
//! let prefixes: Vec<String> = update.announced.iter().map(|nlri| nlri.prefix.to_string()).collect();
//! assert_eq!(prefixes, ["203.0.113.1/32", "203.0.113.2/32", "203.0.113.3/32"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The rooms, each of which calls only those before it:
//!
//! * [`wire`]: bytes and values, the messages of BGP.
//! * [`bfd`]: Bidirectional Forwarding Detection, which notices a dead path in milliseconds.
//! * [`fsm`]: one neighbour's finite state machine.
//! * [`speaker`]: neighbours and routes, the machine that embedders drive.
//! * `net`: sockets and the clock, with the feature `tokio` (on by default).
//!
//! Nothing outside `net` does I/O or reads a clock: bytes, commands and `now` are arguments.

pub mod bfd;
pub mod fsm;
#[cfg(feature = "tokio")]
pub mod net;
mod rib;
pub mod speaker;
pub mod wire;
