//! The status of Eips: `used`, figures, conditions; and the finalizer while one is in use.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use openelb_ipam::{Family, Pool, PoolId};
use serde_json::{Map, Value, json};

use super::PoolOutcome;
use super::commit::{Commits, Delta};
use super::outcome::Decided;
use super::request;
use super::state::State;
use crate::index::EipView;
use crate::index::pools::is_full;
use crate::index::used::join;
use crate::names::{condition, finalizer, reason};
use crate::object::{Kind, NamespacedName, ObjectRef};
use crate::plan::Write;
use crate::plan::status::{Wanted, explain, merge_conditions};

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

/// Name, outcome and write (if one is needed) of each Eip that may be different.
pub(super) fn writes<'a>(
    state: &State<'a>,
    decided: &Decided<'a>,
    commits: &Commits<'a>,
    now: Timestamp,
) -> Vec<(&'a str, PoolOutcome, Option<Write>)> {
    let names = concerned(state, decided, commits);
    let defaults: Vec<PoolId> =
        Family::ALL.into_iter().filter_map(|family| request::default_for(state, family)).collect();
    let mut writes = Vec::new();
    for eip in names.into_iter().filter_map(|name| state.indexes.pools.get(name)) {
        let Some(id) = state.pools.find(&eip.name) else { continue };
        let Some(pool) = state.pools.get(id) else { continue };
        let used = Used::of(eip, commits.deltas.get(eip.name.as_str()));
        let outcome = PoolOutcome {
            usage: i64::try_from(used.len).unwrap_or(i64::MAX),
            pool_size: size(pool),
            occupied: pool.is_occupied(),
            ready: eip.problems.is_empty() && eip.spec.is_some() && !eip.deleting,
            conditions: conditions(state, eip, id, pool, &defaults),
        };
        let write = write(eip, pool, used, &outcome, now);
        writes.push((eip.name.as_str(), outcome, (!write.is_empty()).then_some(write)));
    }
    writes
}

/// The Eips that concerned Services hold, held, or are recorded in, and those that own what these hold.
fn concerned<'a>(state: &State<'a>, decided: &Decided<'a>, commits: &Commits<'a>) -> BTreeSet<&'a str> {
    let mut names = state.concerned.eips.clone();
    names.extend(commits.deltas.keys());
    let mut places: Vec<(PoolId, IpAddr)> = state.concerned.left.clone();
    let mut services = decided.services.iter().peekable();
    for (key, entry) in &state.concerned.entries {
        let placed = services.next_if(|(decided, _)| *decided == key).map(|(_, placed)| placed);
        if placed.is_some_and(|placed| placed.at_peace) {
            // Where it is was written there before.
            continue;
        }
        places.extend(state.pools.holdings(&entry.id()));
        names.extend(entry.records.iter().map(|(eip, _)| &**eip));
    }
    let ids: BTreeSet<PoolId> = places
        .into_iter()
        .flat_map(|(pool, address)| [Some(pool), state.pools.owner(address)])
        .flatten()
        .collect();
    names.extend(ids.into_iter().filter_map(|id| Some(state.eip(id)?.name.as_str())));
    names
}

/// `status.used` as it is to be.
struct Used {
    /// A merge patch that makes it so.
    patch: Map<String, Value>,
    /// Number of addresses.
    len: usize,
}

impl Used {
    fn of(eip: &EipView, delta: Option<&Delta<'_>>) -> Self {
        let mut patch = Map::new();
        let mut len = eip.used.len();
        let none = Delta::default();
        let delta = delta.unwrap_or(&none);
        let addresses: BTreeSet<IpAddr> =
            delta.leave.iter().chain(&delta.join).map(|(address, _)| *address).collect();
        // What is not as we write it goes, and comes back as it should be.
        for text in eip.untidy_used.keys() {
            patch.insert(text.clone(), Value::Null);
        }
        let untidy: BTreeSet<IpAddr> =
            eip.untidy_used.keys().filter_map(|text| text.trim().parse().ok()).collect();
        for address in addresses.union(&untidy) {
            let before: BTreeSet<&NamespacedName> = eip.used.get(address).into_iter().flatten().collect();
            let mut after = before.clone();
            after.retain(|key| !delta.leave.contains(&(*address, *key)));
            let first = NamespacedName::default();
            let joining = delta.join.range((*address, &first)..).take_while(|(a, _)| a == address);
            after.extend(joining.map(|(_, key)| *key));
            let text = address.to_string();
            if after.is_empty() {
                if !before.is_empty() {
                    len -= 1;
                }
                if !before.is_empty() || eip.untidy_used.contains_key(&text) {
                    patch.insert(text, Value::Null);
                }
                continue;
            }
            if before.is_empty() {
                len += 1;
            }
            let holders = join(after.iter().copied());
            let stored = eip.untidy_used.get(&text);
            let same = match stored {
                Some(stored) => *stored == holders,
                // As we write it, unless it is only there in another notation.
                None => before == after && !untidy.contains(address),
            };
            if same {
                patch.remove(&text);
            } else {
                patch.insert(text, Value::String(holders));
            }
        }
        Self { patch, len }
    }
}

fn size(pool: &Pool) -> i64 {
    let size = pool.size(Family::V4).saturating_add(pool.size(Family::V6));
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn write(eip: &EipView, pool: &Pool, used: Used, outcome: &PoolOutcome, now: Timestamp) -> Write {
    let mut write = Write::new(ObjectRef::cluster(Kind::Eip, &eip.name), &eip.resource_version);
    if !used.patch.is_empty() {
        write = write.set(&["status", "used"], Value::Object(used.patch));
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
    if used.len == 0 && has {
        let rest: Vec<String> = eip.finalizers.iter().filter(|f| *f != finalizer::EIP).cloned().collect();
        write = write.finalizers(&rest);
    } else if used.len > 0 && !has && !eip.deleting {
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
    if is_full(eip.used_bytes) {
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
        state.violations.iter().filter(|((pool, _), _)| *pool == id).map(|(_, text)| text).collect();
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
