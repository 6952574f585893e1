//! Drives a [`Speaker`](crate::speaker::Speaker) with tokio: the only place with sockets and a clock.
//!
//! [`spawn`] starts a speaker as a task and gives a [`SpeakerHandle`], whose commands never wait.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the place for sockets and the clock"
)]

mod connection;
mod driver;
mod handle;
mod listener;
mod socket_options;

pub use driver::spawn;
pub use handle::{Shutdown, SpeakerHandle};
