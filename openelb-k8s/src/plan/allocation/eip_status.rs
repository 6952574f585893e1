//! The status of Eips: `used`, figures, conditions; and the finalizer while one is in use.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use openelb_ipam::{Family, Pool, PoolId};
use serde_json::{Value, json};

use super::PoolOutcome;
use super::commit::Commits;
use super::request;
use super::state::{State, USED_BYTES, used_bytes};
use crate::index::EipView;
use crate::names::{condition, finalizer, reason};
use crate::object::{Kind, ObjectRef};
use crate::plan::status::{Wanted, explain, merge_conditions};
use crate::plan::{Write, map_patch};

/// Condition types of Eips that are ours.
const CONDITIONS: [&str; 7] = [
    condition::READY,
    condition::ADDRESSES_OUTSIDE_POOL,
    condition::OVERLAPPING,
    condition::NOT_DEFAULT,
    condition::STATUS_FULL,
    condition::DANGEROUS_ADDRESSES,
    condition::SHARING_VIOLATION,
];

/// How many addresses or ranges a message names.
const NAMED: usize = 8;

/// Name, outcome and write (if one is needed) of each Eip.
pub(super) fn writes(
    state: &State<'_>,
    commits: &Commits<'_>,
    now: Timestamp,
) -> Vec<(String, PoolOutcome, Option<Write>)> {
    let defaults: Vec<PoolId> =
        Family::ALL.into_iter().filter_map(|family| request::default_for(state, family)).collect();
    let mut writes = Vec::new();
    for eip in state.indexes.pools.iter() {
        let Some(id) = state.pools.find(&eip.name) else { continue };
        let Some(pool) = state.pools.get(id) else { continue };
        let used: BTreeMap<String, String> = commits
            .used
            .get(eip.name.as_str())
            .into_iter()
            .flatten()
            .map(|(address, holders)| {
                let holders: Vec<_> = holders.iter().map(ToString::to_string).collect();
                (address.to_string(), holders.join(";"))
            })
            .collect();
        let outcome = PoolOutcome {
            usage: i64::try_from(used.len()).unwrap_or(i64::MAX),
            pool_size: size(pool),
            occupied: pool.is_occupied(),
            ready: eip.problems.is_empty() && eip.spec.is_some() && !eip.deleting,
            conditions: conditions(state, eip, id, pool, &defaults),
        };
        let write = write(eip, pool, &used, &outcome, now);
        writes.push((eip.name.clone(), outcome, (!write.is_empty()).then_some(write)));
    }
    writes
}

fn size(pool: &Pool) -> i64 {
    let size = pool.size(Family::V4).saturating_add(pool.size(Family::V6));
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn write(
    eip: &EipView,
    pool: &Pool,
    used: &BTreeMap<String, String>,
    outcome: &PoolOutcome,
    now: Timestamp,
) -> Write {
    let mut write = Write::new(ObjectRef::cluster(Kind::Eip, &eip.name), &eip.resource_version);
    let before = eip.status.used.clone().unwrap_or_default();
    let changes = map_patch(&before, used);
    if !changes.is_empty() {
        write = write.set(&["status", "used"], Value::Object(changes));
    }
    let status = &eip.status;
    let mut field = |name: &str, before: Value, after: Value| {
        if before != after {
            write = std::mem::replace(&mut write, Write::new(ObjectRef::cluster(Kind::Eip, ""), ""))
                .set(&["status", name], after);
        }
    };
    field("usage", json!(status.usage), json!(outcome.usage));
    field("ready", json!(status.ready), json!(outcome.ready));
    field("observedGeneration", json!(status.observed_generation), json!(eip.generation));
    // Without a spec that could be read these would only be wrong.
    if eip.spec.is_some() {
        let end = |of: fn(&Pool, Family) -> Option<IpAddr>| {
            of(pool, Family::V4).or_else(|| of(pool, Family::V6)).map(|address| address.to_string())
        };
        field("poolSize", json!(status.pool_size), json!(outcome.pool_size));
        field("occupied", json!(status.occupied), json!(outcome.occupied));
        field("firstIP", json!(status.first_ip), json!(end(Pool::first)));
        field("lastIP", json!(status.last_ip), json!(end(Pool::last)));
        field("v4", json!(status.v4), json!(pool.size(Family::V4) > 0));
    }
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let merged = merge_conditions(conditions, &CONDITIONS, &outcome.conditions, Some(eip.generation), now);
    if merged != conditions {
        write = write.set(&["status", "conditions"], json!(merged));
    }
    let has = eip.finalizers.iter().any(|f| f == finalizer::EIP);
    if used.is_empty() && has {
        let rest: Vec<String> = eip.finalizers.iter().filter(|f| *f != finalizer::EIP).cloned().collect();
        write = write.finalizers(&rest);
    } else if !used.is_empty() && !has && !eip.deleting {
        let mut all = eip.finalizers.clone();
        all.push(finalizer::EIP.to_owned());
        write = write.finalizers(&all);
    }
    write
}

fn conditions(state: &State<'_>, eip: &EipView, id: PoolId, pool: &Pool, defaults: &[PoolId]) -> Vec<Wanted> {
    let mut wanted = vec![ready(eip)];
    let mut add = |condition: &'static str, message: String| {
        wanted.push(Wanted::new(condition, true, condition, message));
    };
    if eip.spec.is_some() && !pool.outside().is_empty() {
        let list = some(pool.outside().iter());
        add(
            condition::ADDRESSES_OUTSIDE_POOL,
            format!("Services keep {list}, which spec.address does not cover or spec.exclude takes out"),
        );
    }
    let overlaps = state.pools.overlaps(id);
    if !overlaps.is_empty() {
        let list = some(overlaps.iter());
        add(condition::OVERLAPPING, format!("{list} belongs to an older Eip, which gives it"));
    }
    if eip.is_default && eip.spec.as_ref().is_some_and(|spec| spec.auto_assign == Some(false)) {
        add(
            condition::NOT_DEFAULT,
            "it is annotated as default, but autoAssign: false keeps it for those who name it".to_owned(),
        );
    } else if eip.is_default && eip.gives() && !defaults.contains(&id) {
        let names: Vec<&str> = defaults.iter().map(|id| state.name(*id)).collect();
        add(condition::NOT_DEFAULT, format!("the default is the older {}", names.join(", ")));
    }
    if used_bytes(eip) >= USED_BYTES {
        add(condition::STATUS_FULL, "status.used nears what one object can hold; add another Eip".to_owned());
    }
    if pool.dangerous_count() > 0 {
        let free: Vec<IpAddr> =
            Family::ALL.into_iter().flat_map(|family| pool.free_dangerous(family).take(NAMED + 1)).collect();
        let names = if free.is_empty() { String::new() } else { format!(": {}", some(free.iter())) };
        add(
            condition::DANGEROUS_ADDRESSES,
            format!(
                "{} addresses of Nodes or subnet routers are given only when asked for by name{names}",
                pool.dangerous_count()
            ),
        );
    }
    let violations: Vec<&String> =
        state.violations.iter().filter(|((name, _), _)| *name == eip.name).map(|(_, text)| text).collect();
    if !violations.is_empty() {
        add(condition::SHARING_VIOLATION, some(violations.iter()));
    }
    wanted
}

fn ready(eip: &EipView) -> Wanted {
    let (status, reason, message) = if eip.deleting {
        let text = "it is being deleted, and goes when its last address is released";
        (false, reason::POOL_DELETING, text.to_owned())
    } else if eip.problems.is_empty() {
        let disabled = eip.spec.as_ref().is_some_and(|spec| spec.disable);
        let text = if disabled { "disabled: it gives nothing new" } else { "in force" };
        (true, reason::READY, text.to_owned())
    } else if eip.last_good {
        let text = format!("{}. The last good version stays in force", explain(&eip.problems));
        (false, reason::LAST_GOOD_SPEC, text)
    } else {
        (false, reason::INVALID_SPEC, explain(&eip.problems))
    };
    Wanted::new(condition::READY, status, reason, message)
}

/// The first few, and how many more.
fn some<T: ToString>(items: impl Iterator<Item = T>) -> String {
    let all: Vec<String> = items.map(|item| item.to_string()).collect();
    let (named, rest) = all.split_at(all.len().min(NAMED));
    match rest.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}
