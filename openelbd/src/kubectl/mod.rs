//! What `kubectl openelb` reads of a cluster, and how it shows it. Only `reassign` writes.

pub(crate) mod events;
mod load;
pub(crate) mod reassign;
pub(crate) mod show;

pub(crate) use load::{Loaded, Loader};
