//! `/metrics`, `/healthz` and `/readyz`, and nothing else.

mod address;
mod health;
pub mod metrics;
mod server;

pub use address::{ListenAddress, ListenAddressError};
pub use health::{Check, Health, Readiness};
pub use server::{ServerState, serve};
