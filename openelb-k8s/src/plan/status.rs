//! Statuses and conditions.
use super::{Settings, Write};
use crate::announce::AnnouncerStatus;
use crate::index::Indexes;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// A condition that should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The type.
    pub condition: &'static str,
    /// True or false.
    pub status: bool,
    /// The reason, CamelCase.
    pub reason: &'static str,
    /// In words.
    pub message: String,
}

/// The conditions of `before` with `wanted` in place of ours: a condition whose status did not change keeps its
/// transition time. `ours` are the types that we own: those that are not wanted any more are removed; others stay.
#[must_use]
pub fn merge_conditions(
    before: &[Condition],
    ours: &[&str],
    wanted: &[Wanted],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut merged: Vec<Condition> = before
        .iter()
        .filter(|c| !ours.contains(&c.type_.as_str()) && !wanted.iter().any(|w| w.condition == c.type_))
        .cloned()
        .collect();
    for wanted in wanted {
        let status = if wanted.status { "True" } else { "False" };
        let since = before
            .iter()
            .find(|c| c.type_ == wanted.condition && c.status == status)
            .map_or_else(|| Time(super::whole_seconds(now)), |c| c.last_transition_time.clone());
        merged.push(Condition {
            type_: wanted.condition.to_owned(),
            status: status.to_owned(),
            reason: wanted.reason.to_owned(),
            message: wanted.message.clone(),
            last_transition_time: since,
            observed_generation: generation,
        });
    }
    merged.sort_by(|a, b| a.type_.cmp(&b.type_));
    merged
}

/// Writes of `BgpPeer.status` and `BgpConf.status` for this node (and, in standalone, their conditions).
#[must_use]
pub fn bgp_writes(
    indexes: &Indexes,
    settings: &Settings,
    status: &AnnouncerStatus,
    now: Timestamp,
) -> Vec<Write> {
    let _ = (indexes, settings, status, now);
    Vec::new()
}
