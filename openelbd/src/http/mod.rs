//! HTTP: `/metrics`, `/healthz` and `/readyz` on one port, the read API on another.

mod address;
mod health;
pub mod metrics;
pub mod read_api;
mod server;

pub use address::{ListenAddress, ListenAddressError};
pub use health::{Check, Health, Readiness};
pub use server::{ServerState, Service, observability, serve};
