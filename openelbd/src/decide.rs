//! One decision: what of the indexes has to be written.

use jiff::Timestamp;
use openelb_k8s::{
    index::Indexes,
    plan::{Event, Write, allocation},
};

/// Writes that are safe now, and what is to be told when they are done.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    pub(crate) writes: Vec<Write>,
    pub(crate) events: Vec<Event>,
}

/// Decides about addresses.
pub(crate) fn decide(indexes: &Indexes, now: Timestamp) -> Decision {
    let allocation = allocation::plan(indexes, now);
    Decision { writes: allocation.writes, events: allocation.events }
}
