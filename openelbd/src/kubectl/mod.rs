//! What `kubectl openelb` reads of a cluster, and how it shows it. It only reads.

pub(crate) mod events;
mod load;
pub(crate) mod show;

pub(crate) use load::{Loaded, Loader};
