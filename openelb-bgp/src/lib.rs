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
//! * `net`: sockets and the clock.
//!
//! # Neighbours
//!
//! Whole sets of them come from any number of sources ([`Speaker::set_peers_of`](speaker::Speaker::set_peers_of)) and by
//! prefix ([`set_dynamic_peers`](speaker::Speaker::set_dynamic_peers)). Operators act on one by
//! [`command`](speaker::Speaker::command); BFD and the state of links come in by
//! [`handle_bfd`](speaker::Speaker::handle_bfd) and [`handle_link_down`](speaker::Speaker::handle_link_down).
//!
//! # Restart without loss
//!
//! With [`GracefulRestartConfig`](speaker::GracefulRestartConfig) neighbours keep our routes while this process is away
//! (RFC 4724): say `restarting`, and whether forwarding went on. R is told until each family's End-of-RIB was sent, which
//! waits for the first whole set of every awaited source, 10 s less than the restart time at most. Where both ends set N
//! (RFC 8538), NOTIFICATIONs keep routes, too, and what must end for good goes out as a Hard Reset. In the other
//! direction, kept routes ([`ReceivedRoutes::Keep`](speaker::ReceivedRoutes::Keep)) of a neighbour that restarts stay,
//! marked as stale.
//!
//! # Looking inside
//!
//! [`peers`](speaker::Speaker::peers) and [`routes`](speaker::Speaker::routes) are snapshots;
//! [`adj_in`](speaker::Speaker::adj_in), [`adj_out`](speaker::Speaker::adj_out) and [`rib`](speaker::Speaker::rib) show
//! routes with their attributes, and which step of the decision each one won or lost at
//! ([`BestPathStep`](speaker::BestPathStep)).
//!
//! Nothing outside `net` does I/O or reads a clock: bytes, commands and `now` are arguments.
//!
//! # Features
//!
//! * `tokio` (on by default): `net`, for Linux. TCP MD5 (RFC 2385) and TTL security (RFC 5082) on connecting and on
//!   listening sockets; the loss of the link to a directly connected neighbour ends its session at once.
//! * `bfd` (on by default): runs BFD with neighbours that have `PeerConfig::bfd`, in a thread of its own. Without it
//!   their status says that it does not run.
//!
//! Without features there is no tokio, socket or C library in the dependencies: the machines alone.

pub mod bfd;
pub mod fsm;
#[cfg(feature = "grpc")]
pub mod grpc;
#[cfg(feature = "tokio")]
pub mod net;
mod rib;
pub mod speaker;
pub mod wire;
