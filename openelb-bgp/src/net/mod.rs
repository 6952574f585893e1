//! Drives a [`Speaker`](crate::speaker::Speaker) with tokio: the only place with sockets and a clock.
//!
//! [`spawn`] starts a speaker as a task and gives a [`SpeakerHandle`], whose commands never wait.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the place for sockets and the clock"
)]

#[cfg(feature = "bfd")]
mod bfd;
#[cfg(not(feature = "bfd"))]
#[path = "no_bfd.rs"]
mod bfd;
mod connection;
mod driver;
mod guard;
mod handle;
mod links;
mod listener;
mod protection;
mod socket_options;
mod sys;

pub use driver::{spawn, spawn_offline};
pub use handle::{Shutdown, SpeakerHandle};
