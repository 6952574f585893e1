//! GoBGP's gRPC interface over a running speaker: the service `apipb.GobgpApi` of GoBGP 3.x, so that its command line
//! tool `gobgp` and its clients work.
//!
//! | room | what it does |
//! |---|---|
//! | [`core`] | calls in the speaker's own values: who may do what, what clients have added, which speaker it is |
//! | [`v3`] | the messages of GoBGP 3.x and those values |
//! | [`server`] | listeners: loopback, TLS with client certificates, Unix sockets; bounds |
//! | [`places`] | who may have how many connections |
//! | [`apipb`] | the messages, generated from `proto/` |
//!
//! What clients add is a source of its own ([`core::SOURCE`]), of routes and of neighbours: it never touches what the
//! embedder's sources hold, and is not touched by them.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use openelb_bgp::{
//!     grpc::{core::{Access, Core, Embedded}, server, v3},
//!     net,
//!     speaker::SpeakerConfig,
//! };
//!
//! let (speaker, _) = net::spawn(SpeakerConfig::new(65000, "192.0.2.10".parse()?))?;
//! let core = Core::new(Arc::new(Embedded::new(speaker)));
//! let listener = server::Listener::bind(&"127.0.0.1:50051".parse()?).await?;
//! server::serve(v3::Api::new(core, Access::Write), listener, None).await?;
//! # Ok(())
//! # }
//! ```

#![allow(
    clippy::disallowed_methods,
    reason = "answers carry times of day; decisions are the speaker's, which has no clock"
)]

mod connections;
pub mod core;
mod debug;
pub mod places;
pub mod server;
pub mod v3;

#[rustfmt::skip]
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    rustdoc::all,
    clippy::all,
    clippy::nursery,
    clippy::pedantic,
    reason = "generated"
)]
mod generated;

pub use generated::apipb;
/// For implementations of [`core::Owner`].
pub use tonic::async_trait;
