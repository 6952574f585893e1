//! A plan that remembers the last one.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Allocation, PoolOutcome, ServiceOutcome, plan};
use crate::index::Indexes;
use crate::object::NamespacedName;

/// Plans again and again over the same indexes, and looks only at what changed since the last time.
///
/// What it says is what [`plan`] says, but for the times that conditions which are still to be written are stamped
/// with: those of the call that first wanted them.
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
    services: BTreeMap<NamespacedName, ServiceOutcome>,
    pools: BTreeMap<String, PoolOutcome>,
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
        let mut allocation = plan(indexes, now);
        let services = std::mem::take(&mut allocation.services);
        let pools = std::mem::take(&mut allocation.pools);
        allocation.services = changed(&self.services, &services);
        allocation.pools = changed(&self.pools, &pools);
        (self.services, self.pools) = (services, pools);
        allocation
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
}

fn changed<K: Ord + Clone, V: PartialEq + Clone>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
) -> BTreeMap<K, V> {
    let new = after.iter().filter(|(key, value)| before.get(*key) != Some(value));
    new.map(|(key, value)| (key.clone(), value.clone())).collect()
}
