//! A plan that remembers the last one.
//!
//! What becomes of a Service that is *at peace* (it has what it asks for, committed where it belongs) depends on
//! nothing but itself and the addresses it has. So it is looked at only when it changes, or shares an address with one
//! that does. All others, which wait, move or go, are looked at whenever the pools may have changed. A change of a
//! pool, or of an address of a Node, begins from nothing.
//!
//! Thousands may *wait*: they have nothing, and are given nothing. While the pools hold what is committed and no more,
//! so that nobody has to give way to an older one, one that comes to wait, or changes, is looked at alone, unless it is
//! given something.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use openelb_ipam::{HolderId, PoolId, Pools};

use super::commit;
use super::eip_status;
use super::outcome;
use super::outcome::Placed;
use super::publish;
use super::state::{Concerned, Entry, State, Violations};
use super::{Allocation, PoolOutcome, ServiceOutcome};
use crate::index::{Changes, Indexes};
use crate::object::NamespacedName;
use crate::plan::{Event, Write};

/// Plans again and again over the same indexes, and looks only at what changed since the last time.
///
/// What it says is what [`plan`](super::plan) says, but for the times that conditions which are still to be written are
/// stamped with: those of the call that first wanted them.
///
/// ```
/// use openelb_k8s::{index::Indexes, plan::allocation::Planner};
///
/// let mut indexes = Indexes::default();
/// let mut planner = Planner::new();
/// let allocation = planner.plan(&mut indexes, jiff::Timestamp::UNIX_EPOCH);
/// assert!(allocation.writes.is_empty());
/// assert!(planner.services().is_empty());
/// ```
#[derive(Debug, Default)]
pub struct Planner {
    /// The number of the changes that were taken in last.
    number: u64,
    /// Who holds what as soon as all writes are done.
    held: Pools,
    violations: Violations,
    /// Services, there or not, that are not at peace.
    restless: BTreeSet<NamespacedName>,
    /// Those of them that have, or are to have, anything but what is committed to them.
    moving: BTreeSet<NamespacedName>,
    services: BTreeMap<NamespacedName, ServiceOutcome>,
    pools: BTreeMap<String, PoolOutcome>,
    /// What is still to be written on Services, and to be told about it.
    publications: BTreeMap<NamespacedName, (Write, Vec<Event>)>,
    /// What is still to be written on Eips.
    commits: BTreeMap<String, Write>,
}

impl Planner {
    /// One that has not planned yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Decides about addresses. Always give it the same indexes, and only once complete lists of Eips, Services,
    /// Namespaces and Nodes are in them; `now` stamps conditions.
    ///
    /// All writes that are safe now are in the answer, those of the last call that the indexes do not show to be done
    /// among them; outcomes only where they changed: [`Self::services`] and [`Self::pools`] have all of them.
    pub fn plan(&mut self, indexes: &mut Indexes, now: Timestamp) -> Allocation {
        let changes = indexes.take_changes();
        self.update(indexes, changes, now)
    }

    /// What each Service of ours has when all writes of the last plan are done.
    #[must_use]
    pub const fn services(&self) -> &BTreeMap<NamespacedName, ServiceOutcome> {
        &self.services
    }

    /// What each Eip shows when all writes of the last plan are done.
    #[must_use]
    pub const fn pools(&self) -> &BTreeMap<String, PoolOutcome> {
        &self.pools
    }

    /// Decides once, from nothing.
    pub(super) fn once(indexes: &Indexes, now: Timestamp) -> Allocation {
        let mut planner = Self::new();
        let changes = Changes { everything: true, ..Changes::default() };
        let allocation = planner.update(indexes, changes, now);
        Allocation { services: planner.services, pools: planner.pools, ..allocation }
    }

    fn update(&mut self, indexes: &Indexes, changes: Changes, now: Timestamp) -> Allocation {
        let other = changes.number != self.number + 1;
        self.number = changes.number;
        let everything = changes.everything || other;
        let mut allocation = Allocation::default();
        if everything {
            self.reset(indexes, &mut allocation);
        }
        let mut concerned = Concerned::default();
        if everything {
            concerned = Concerned::everything(indexes);
        } else {
            concerned
                .eips
                .extend(changes.eips.iter().filter_map(|name| Some(indexes.pools.get(name)?.name.as_str())));
            if !changes.eips.is_empty() && self.has_overlaps(indexes) {
                // A record of one Eip may be of an address that another gives.
                concerned.eips.extend(indexes.pools.iter().map(|eip| eip.name.as_str()));
            }
            let waits = |key: &&NamespacedName| self.moving.is_empty() && self.has_nothing(indexes, key);
            let waiting: BTreeSet<&NamespacedName> = changes.services.iter().filter(waits).collect();
            let calm = changes.eips.is_empty()
                && changes.services.iter().all(|key| {
                    let at_peace = |held| outcome::stays_at_peace(indexes, held, key);
                    waiting.contains(&key) || !self.restless.contains(key) && at_peace(&mut self.held)
                });
            if calm {
                let mut concerned = Concerned { calm, ..Concerned::default() };
                self.concern_all(indexes, &changes.services, &mut concerned);
                if !concerned.is_empty() {
                    self.decide(indexes, concerned, now, &mut allocation);
                }
                if waiting.iter().all(|key| self.has_nothing(indexes, key)) {
                    return self.answer(allocation);
                }
                // One was given something: the pools are not as all others saw them.
            }
            self.concern_all(indexes, &changes.services, &mut concerned);
            self.moving.clear();
            let restless = std::mem::take(&mut self.restless);
            for key in &restless {
                self.concern(indexes, key, true, &mut concerned);
            }
        }
        if concerned.is_empty() {
            return self.answer(allocation);
        }
        self.decide(indexes, concerned, now, &mut allocation);
        self.answer(allocation)
    }

    /// Does nothing belong to it, neither by the last plan nor by what is recorded, nor by what it shows?
    fn has_nothing(&self, indexes: &Indexes, key: &NamespacedName) -> bool {
        let id = HolderId::new(&key.namespace, &key.name);
        self.held.holdings(&id).next().is_none()
            && indexes.pools.holder(key).is_none()
            && indexes.services.get(key).is_none_or(|service| service.ingress.is_empty())
    }

    /// Does an address lie in two Eips? They say so, and are still to be served.
    fn has_overlaps(&self, indexes: &Indexes) -> bool {
        let overlaps = |name: &str| self.held.find(name).is_some_and(|id| !self.held.overlaps(id).is_empty());
        indexes.pools.iter().any(|eip| overlaps(&eip.name))
    }

    /// Forgets everything but what was said.
    fn reset(&mut self, indexes: &Indexes, allocation: &mut Allocation) {
        // What is gone is not to be found in the outcomes any more.
        self.services.retain(|key, _| indexes.services.get(key).is_some_and(|service| service.ours));
        self.pools.retain(|name, _| indexes.pools.get(name).is_some());
        self.held = super::state::pools(indexes);
        self.violations.clear();
        self.restless.clear();
        self.moving.clear();
        self.publications.clear();
        self.commits.clear();
        allocation.writes.clear();
    }

    /// [`concern`](Self::concern) for each.
    fn concern_all<'a>(
        &mut self,
        indexes: &'a Indexes,
        keys: &BTreeSet<NamespacedName>,
        concerned: &mut Concerned<'a>,
    ) {
        for key in keys {
            let restless = self.restless.remove(key);
            self.moving.remove(key);
            self.concern(indexes, key, restless, concerned);
        }
    }

    /// Takes what a Service was given at last back, for it is looked at again.
    fn concern<'a>(
        &mut self,
        indexes: &'a Indexes,
        key: &NamespacedName,
        restless: bool,
        concerned: &mut Concerned<'a>,
    ) {
        let entry = Entry::of(indexes, key);
        let service = entry.as_ref().and_then(|entry| entry.service);
        let id = HolderId::new(&key.namespace, &key.name);
        let was: Vec<(PoolId, IpAddr)> = self.held.holdings(&id).collect();
        for (pool, address) in was {
            self.held.release(pool, address, &id);
            concerned.left.push((pool, address));
        }
        if restless && let Some(entry) = &entry {
            // Something may have been about to be written there.
            concerned.eips.extend(entry.records.iter().map(|(eip, _)| &**eip));
        }
        concerned.entries.extend(entry.map(|entry| (entry.key, entry)));
        if service.is_none() {
            self.publications.remove(key);
        }
        if service.is_none_or(|service| !service.ours) {
            self.services.remove(key);
        }
    }

    fn decide(
        &mut self,
        indexes: &Indexes,
        concerned: Concerned<'_>,
        now: Timestamp,
        allocation: &mut Allocation,
    ) {
        let mut state = State::adopt(indexes, &mut self.held, &mut self.violations, concerned);
        let decided = outcome::decide(&mut state);
        let commits = commit::commits(&state, &decided);
        let pools = if state.concerned.calm {
            Vec::new()
        } else {
            eip_status::writes(&state, &decided, &commits, now)
        };
        for (name, outcome, write) in pools {
            match write {
                Some(write) => self.commits.insert(name.to_owned(), write),
                None => self.commits.remove(name),
            };
            if self.pools.get(name) != Some(&outcome) {
                allocation.pools.insert(name.to_owned(), outcome.clone());
                self.pools.insert(name.to_owned(), outcome);
            }
        }
        for (key, write, events) in publish::writes(&state, &decided, &commits, now) {
            if write.is_empty() {
                self.publications.remove(key);
            } else {
                self.publications.insert(key.clone(), (write, events));
            }
        }
        for (key, entry) in &state.concerned.entries {
            if entry.holder.is_none() && !entry.records.is_empty() {
                self.restless.insert((*key).clone());
                self.moving.insert((*key).clone());
            }
        }
        for (key, placed) in decided.services {
            if !placed.at_peace {
                self.restless.insert(key.clone());
                if !is_settled(&state, &placed) {
                    self.moving.insert(key.clone());
                }
            }
            if self.services.get(key) != Some(&placed.outcome) {
                allocation.services.insert(key.clone(), placed.outcome.clone());
                self.services.insert(key.clone(), placed.outcome);
            }
        }
    }

    /// Everything that is still to be written: whoever gives an address up goes first, so that the others need not wait
    /// a round longer.
    fn answer(&self, mut allocation: Allocation) -> Allocation {
        for (write, events) in self.publications.values() {
            allocation.writes.push(write.clone());
            allocation.events.extend_from_slice(events);
        }
        allocation.writes.extend(self.commits.values().cloned());
        allocation
    }
}

/// Is all that it has, and shows, committed to it where it belongs?
fn is_settled(state: &State<'_>, placed: &Placed<'_>) -> bool {
    let (service, records) = (placed.service, state.indexes.pools.records(&placed.service.key));
    let has = |address| placed.addresses.iter().any(|(_, a)| *a == address);
    placed.addresses.len() == records.len()
        && placed
            .addresses
            .iter()
            .all(|(pool, address)| records.iter().any(|(eip, a)| a == address && **eip == *state.name(*pool)))
        && service.ingress.iter().all(|shown| shown.address.is_some_and(has))
}
