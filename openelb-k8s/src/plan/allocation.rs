//! Which Service gets which address: a pure function from the indexes to writes and outcomes.
//!
//! `Eip.status.used` *commits* an address, the Service's status *publishes* it. A plan holds only writes that are safe
//! given what the indexes show now: an address is published once its commit is seen, and un-committed once it is seen
//! to be un-published. Whoever executes the writes takes the results in and plans again until nothing is left.
//!
//! | step | file |
//! |---|---|
//! | adopt what is committed and published, repair it | `state.rs` |
//! | what each Service asks for, and of which pools | `request.rs` |
//! | decide (in `openelb-ipam`), and say why | `outcome.rs`, `reason.rs` |
//! | commit on the Eips, and their status | `commit.rs`, `eip_status.rs` |
//! | publish on the Services | `publish.rs`, `hint.rs` |
//! | every pool and what stands against it, for whoever asks | `consider.rs` |

mod commit;
mod consider;
mod eip_status;
mod hint;
mod outcome;
mod planner;
mod publish;
mod reason;
mod request;
mod state;

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;

use super::status::Wanted;
use super::{Event, Write};
use crate::index::Indexes;
use crate::object::NamespacedName;

pub use consider::{Considered, Verdict, considered};
pub use planner::Planner;

/// What is to be written, and what comes of it for every Service of ours and every Eip.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allocation {
    /// Writes that are safe now, in this order. Empty: everything is as it should be.
    pub writes: Vec<Write>,
    /// To be told once the writes are done.
    pub events: Vec<Event>,
    /// Our Services.
    pub services: BTreeMap<NamespacedName, ServiceOutcome>,
    /// Every Eip.
    pub pools: BTreeMap<String, PoolOutcome>,
}

/// What a Service has when all writes are done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceOutcome {
    /// Its addresses in the order of its families.
    pub addresses: Vec<IpAddr>,
    /// The Eip of each address.
    pub pools: Vec<String>,
    /// Reason of the condition `AddressAssigned`: one of [`crate::names::reason`].
    pub reason: &'static str,
    /// In words; if there is no address, it names each pool considered and why it was refused.
    pub message: String,
    /// Does it have what it asks for now?
    pub request_honoured: bool,
    /// Reason of the condition `RequestHonoured`.
    pub request_reason: &'static str,
    /// In words.
    pub request_message: String,
}

/// What an Eip shows when all writes are done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolOutcome {
    /// Distinct addresses in use.
    pub usage: i64,
    /// Usable addresses, saturating at 2^63-1.
    pub pool_size: i64,
    /// Automatic choice could give nothing.
    pub occupied: bool,
    /// Can the pool be used as its present spec says?
    pub ready: bool,
    /// Its conditions.
    pub conditions: Vec<Wanted>,
}

/// Decides about addresses. Call it only once complete lists of Eips, Services, Namespaces and Nodes are in the
/// indexes; `now` stamps conditions.
#[must_use]
pub fn plan(indexes: &Indexes, now: Timestamp) -> Allocation {
    Planner::once(indexes, now)
}

#[cfg(test)]
mod tests;
