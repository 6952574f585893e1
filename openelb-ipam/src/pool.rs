//! One pool: which addresses it may give, who holds them, who may join them.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::error::{Closed, Refusal};
use crate::held::Held;
use crate::range::{Family, RangeList, never_given};
use crate::set::{RangeSet, from_number};
use crate::sharing::{Holder, HolderId, Sharing, may_share};

/// How many addresses [`Refusal::Exhausted`] names at most.
const NAMED_DANGEROUS: usize = 3;

/// The description of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolSpec {
    /// Name, unique among the pools that are used together.
    pub name: String,
    /// What the pool covers.
    pub ranges: RangeList,
    /// What is taken out of it.
    pub exclude: RangeList,
    /// Takes out IPv4 addresses that end in .0 or .255, and the first and last of each IPv4 network shorter than /31.
    pub avoid_network_and_broadcast: bool,
    /// Gives the all-zeros address of an IPv6 network shorter than /127 (the subnet-router anycast address, RFC 4291
    /// §2.6.1) only by name.
    pub avoid_subnet_router_anycast: bool,
    /// Addresses which are given only by name, for example those of hosts.
    pub dangerous: RangeSet,
    /// Which sharing is allowed.
    pub sharing: Sharing,
    /// At most so many distinct addresses for one group.
    pub max_per_group: Option<u64>,
    /// Set while the pool gives nothing new.
    pub closed: Option<Closed>,
}

impl PoolSpec {
    /// An open pool with standard sharing.
    ///
    /// # Errors
    /// The text is no list of ranges.
    pub fn new(name: &str, ranges: &str) -> Result<Self, crate::RangeError> {
        Ok(Self { name: name.to_owned(), ranges: ranges.parse()?, ..Self::default() })
    }
}

/// A pool and its holders. Operations on one address take O(log n) in the number of ranges and gaps.
///
/// ```
/// use std::sync::Arc;
/// use openelb_ipam::{Family, Holder, Pool, PoolSpec};
///
/// let mut pool = Pool::new(PoolSpec::new("edge", "192.0.2.10-192.0.2.20")?);
/// let web = Arc::new(Holder::new("default", "web", 1));
/// let address = pool.choose(Family::V4, &web, None)?;
/// pool.assign(address, Arc::clone(&web));
/// assert_eq!(address.to_string(), "192.0.2.10");
/// assert_eq!((pool.size(Family::V4), pool.usage()), (11, 1));
/// pool.release(address, &web.id);
/// assert_eq!(pool.usage(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Pool {
    spec: PoolSpec,
    /// The ranges as written, merged.
    covered: RangeSet,
    /// `covered` without exclusions. Addresses that end in .0 or .255 are still in it: a /8 would fall into 65,536
    /// pieces. [`Self::is_edge`] tells them apart.
    usable: RangeSet,
    /// Usable, but given only by name.
    dangerous: RangeSet,
    /// Usable, but another pool owns them or has given them.
    elsewhere: RangeSet,
    /// What automatic choice may give now. An edge may still be in it until it is met.
    free: RangeSet,
    /// Exact number of addresses automatic choice may give, per family.
    free_count: [u128; 2],
    held: Held,
    /// Held addresses that are not usable: outside the ranges, or excluded.
    outside: BTreeSet<IpAddr>,
    by_key: HashMap<Arc<str>, BTreeSet<IpAddr>, RandomState>,
    /// Distinct addresses per group.
    groups: HashMap<Arc<str>, u64, RandomState>,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(spec: PoolSpec) -> Self {
        let mut pool = Self {
            spec,
            covered: RangeSet::default(),
            usable: RangeSet::default(),
            dangerous: RangeSet::default(),
            elsewhere: RangeSet::default(),
            free: RangeSet::default(),
            free_count: [0; 2],
            held: Held::default(),
            outside: BTreeSet::new(),
            by_key: HashMap::default(),
            groups: HashMap::default(),
        };
        pool.rebuild();
        pool
    }

    /// The description.
    #[must_use]
    pub const fn spec(&self) -> &PoolSpec {
        &self.spec
    }

    /// Name of the pool.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Gives the pool another description. Every holder keeps its address, also one the pool does not cover any more.
    pub fn reshape(&mut self, spec: PoolSpec) {
        self.spec = spec;
        self.rebuild();
    }

    /// Replaces the addresses that other pools own or have given.
    pub fn set_elsewhere(&mut self, elsewhere: RangeSet) {
        self.elsewhere = elsewhere;
        self.rebuild();
    }

    fn rebuild(&mut self) {
        self.covered = self.spec.ranges.to_set();
        let mut usable = self.covered.clone();
        usable.subtract(&self.spec.exclude.to_set());
        usable.subtract(&never_given());
        let mut dangerous = self.spec.dangerous.clone();
        for entry in self.spec.ranges.entries() {
            let (family, Some(len)) = (entry.range.family(), entry.prefix_len) else { continue };
            match family {
                Family::V4 if self.spec.avoid_network_and_broadcast && len < 31 => {
                    usable.remove(entry.range.first());
                    usable.remove(entry.range.last());
                }
                Family::V6 if self.spec.avoid_subnet_router_anycast && len < 127 => {
                    dangerous.insert(entry.range.first());
                }
                _ => {}
            }
        }
        self.dangerous = usable.intersection(&dangerous);
        let mut free = usable.clone();
        free.subtract(&self.dangerous);
        free.subtract(&self.elsewhere);
        self.usable = usable;
        self.outside.clear();
        for address in self.held.iter().map(|(address, _)| address).collect::<Vec<_>>() {
            free.remove(address);
            if !self.is_usable(address) {
                self.outside.insert(address);
            }
        }
        self.free_count = Family::ALL.map(|family| self.count(&free, family));
        self.free = free;
    }

    /// Number of addresses of `set` without edges.
    fn count(&self, set: &RangeSet, family: Family) -> u128 {
        let set = set.family(family);
        if family == Family::V6 || !self.spec.avoid_network_and_broadcast {
            return set.count();
        }
        set.iter().map(|(first, last)| last - first + 1 - (edges_below(last + 1) - edges_below(first))).sum()
    }

    /// Whether `avoid_network_and_broadcast` takes an address out for its last octet.
    fn is_edge(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => {
                self.spec.avoid_network_and_broadcast && matches!(v4.octets(), [_, _, _, 0 | 255])
            }
            IpAddr::V6(_) => false,
        }
    }

    /// Whether the pool could give `address` at all, free or not: covered and not excluded.
    #[must_use]
    pub fn is_usable(&self, address: IpAddr) -> bool {
        self.usable.contains(address) && !self.is_edge(address)
    }

    /// Whether `address` is in the ranges as written, excluded or not.
    #[must_use]
    pub fn covers(&self, address: IpAddr) -> bool {
        self.covered.contains(address)
    }

    /// Whether `address` is given only by name.
    #[must_use]
    pub fn is_dangerous(&self, address: IpAddr) -> bool {
        self.dangerous.contains(address)
    }

    /// Ranges without exclusions; addresses that `avoid_network_and_broadcast` takes out for their last octet are
    /// still in it, see [`Self::is_usable`].
    #[must_use]
    pub const fn usable(&self) -> &RangeSet {
        &self.usable
    }

    /// Whether automatic choice may give `address` when nobody holds it.
    fn is_automatic(&self, address: IpAddr) -> bool {
        self.is_usable(address) && !self.dangerous.contains(address) && !self.elsewhere.contains(address)
    }

    /// The holders of an address, in the order in which they came.
    #[must_use]
    pub fn holders(&self, address: IpAddr) -> &[Arc<Holder>] {
        self.held.get(address)
    }

    /// Every held address with its holders, in no particular order.
    pub fn held(&self) -> impl Iterator<Item = (IpAddr, &[Arc<Holder>])> {
        self.held.iter()
    }

    /// Records that `holder` has `address`, without asking whether it may: a known state is adopted with it, and the
    /// answer of [`choose`](Self::choose), [`join_by_key`](Self::join_by_key) or [`admit`](Self::admit) is put into
    /// effect. A holder that is already there gets its new terms.
    pub fn assign(&mut self, address: IpAddr, holder: Arc<Holder>) {
        self.release(address, &holder.id);
        let new_to_group = !self.group_has(address, &holder.id.group);
        if new_to_group {
            *self.groups.entry(Arc::clone(&holder.id.group)).or_insert(0) += 1;
        }
        if let Some(key) = &holder.terms.key {
            self.by_key.entry(Arc::clone(key)).or_default().insert(address);
        }
        if self.held.push(address, holder) {
            if self.is_automatic(address) {
                self.take_free(address);
            } else if !self.is_usable(address) {
                self.outside.insert(address);
            }
        }
    }

    /// Takes `address` from a holder; returns what was recorded of it, or nothing if it did not hold the address.
    pub fn release(&mut self, address: IpAddr, id: &HolderId) -> Option<Arc<Holder>> {
        let (gone, empty) = self.held.take(address, |holder| holder.id == *id)?;
        if empty {
            self.outside.remove(&address);
            if self.is_automatic(address) {
                self.give_free(address);
            }
        }
        if (empty || !self.group_has(address, &gone.id.group))
            && let Some(count) = self.groups.get_mut(&gone.id.group)
        {
            *count -= 1;
            if *count == 0 {
                self.groups.remove(&gone.id.group);
            }
        }
        // Pools without any key need not look for one.
        if !self.by_key.is_empty()
            && let Some(key) = &gone.terms.key
            && !self.holders(address).iter().any(|holder| holder.terms.key.as_ref() == Some(key))
            && let Some(addresses) = self.by_key.get_mut(key)
        {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.by_key.remove(key);
            }
        }
        Some(gone)
    }

    /// Says that another pool has given `address`, so this one does not.
    pub(crate) fn block(&mut self, address: IpAddr) {
        if self.holders(address).is_empty() && self.is_automatic(address) {
            self.take_free(address);
        }
        self.elsewhere.insert(address);
    }

    /// The reverse of [`block`](Self::block).
    pub(crate) fn unblock(&mut self, address: IpAddr) {
        if !self.elsewhere.contains(address) {
            return;
        }
        self.elsewhere.remove(address);
        if self.holders(address).is_empty() && self.is_automatic(address) {
            self.give_free(address);
        }
    }

    fn take_free(&mut self, address: IpAddr) {
        self.free.remove(address);
        let [v4, v6] = &mut self.free_count;
        *(if address.is_ipv4() { v4 } else { v6 }) -= 1;
    }

    fn give_free(&mut self, address: IpAddr) {
        self.free.insert(address);
        let [v4, v6] = &mut self.free_count;
        *(if address.is_ipv4() { v4 } else { v6 }) += 1;
    }

    fn group_has(&self, address: IpAddr, group: &str) -> bool {
        self.holders(address).iter().any(|holder| *holder.id.group == *group)
    }

    /// Whether the pool gives new addresses of `family` at all.
    ///
    /// # Errors
    /// It is closed, or has none of the family.
    pub fn open_for(&self, family: Family) -> Result<(), Refusal> {
        if let Some(closed) = self.spec.closed {
            return Err(closed.into());
        }
        if self.size(family) == 0 {
            return Err(Refusal::FamilyUnavailable(family));
        }
        Ok(())
    }

    fn within_quota(&self, address: Option<IpAddr>, group: &str) -> Result<(), Refusal> {
        match self.spec.max_per_group {
            Some(limit)
                if self.groups.get(group).copied().unwrap_or(0) >= limit
                    && !address.is_some_and(|address| self.group_has(address, group)) =>
            {
                Err(Refusal::QuotaExceeded { group: group.to_owned(), limit })
            }
            _ => Ok(()),
        }
    }

    /// The lowest address which automatic choice gives to `holder` now, other than `avoid`. Records nothing.
    ///
    /// # Errors
    /// The pool is closed, has no such family, is exhausted, or the holder's group has its share.
    pub fn choose(
        &mut self,
        family: Family,
        holder: &Holder,
        avoid: Option<IpAddr>,
    ) -> Result<IpAddr, Refusal> {
        self.open_for(family)?;
        self.within_quota(None, &holder.id.group)?;
        let mut from = 0;
        while let Some(value) = self.free.family(family).next_from(from) {
            let address = from_number(family, value);
            if self.is_edge(address) {
                // Met once, gone for good: the search stays logarithmic.
                self.free.remove(address);
            } else if avoid != Some(address) {
                return Ok(address);
            }
            let Some(next) = value.checked_add(1) else { break };
            from = next;
        }
        let dangerous = self.free_dangerous(family).take(NAMED_DANGEROUS).collect();
        Err(Refusal::Exhausted { size: self.size(family), dangerous })
    }

    /// The lowest address that `holder` can join by its sharing key, other than `avoid`. Records nothing.
    #[must_use]
    pub fn join_by_key(&self, family: Family, holder: &Holder, avoid: Option<IpAddr>) -> Option<IpAddr> {
        self.open_for(family).ok()?;
        let addresses = self.by_key.get(holder.terms.key.as_ref()?)?;
        addresses.iter().copied().find(|address| {
            Family::of(*address) == family
                && avoid != Some(*address)
                && self.is_usable(*address)
                && self.within_quota(Some(*address), &holder.id.group).is_ok()
                && self
                    .holders(*address)
                    .iter()
                    .all(|other| may_share(self.spec.sharing, other, holder).is_ok())
        })
    }

    /// Whether `holder` may have `address`, which it asks for by name: free, or shared with its holders. `leaving`
    /// says which holders count as gone. Records nothing.
    ///
    /// # Errors
    /// The first reason against it.
    pub fn admit(
        &self,
        address: IpAddr,
        holder: &Holder,
        leaving: impl Fn(&HolderId) -> bool,
    ) -> Result<(), Refusal> {
        if let Some(closed) = self.spec.closed {
            return Err(closed.into());
        }
        if !self.covers(address) {
            return Err(Refusal::OutsidePool(address));
        }
        if !self.is_usable(address) {
            return Err(Refusal::Excluded(address));
        }
        let mut others: Vec<_> = self
            .holders(address)
            .iter()
            .filter(|other| other.id != holder.id && !leaving(&other.id))
            .collect();
        others.sort_by(|a, b| a.seniority().cmp(&b.seniority()));
        for other in others {
            may_share(self.spec.sharing, other, holder).map_err(|conflict| {
                let holder = other.id.clone();
                match conflict {
                    crate::Conflict::Forbidden => Refusal::InUse { address, holder },
                    conflict => Refusal::SharingConflict { address, holder, conflict },
                }
            })?;
        }
        self.within_quota(Some(address), &holder.id.group)
    }

    /// Usable addresses of a family that are given only by name and that nobody holds, ascending.
    pub fn free_dangerous(&self, family: Family) -> impl Iterator<Item = IpAddr> + '_ {
        let intervals = self.dangerous.family(family).iter();
        intervals
            .flat_map(|(first, last)| first..=last)
            .map(move |value| from_number(family, value))
            .filter(|address| self.is_usable(*address) && self.holders(*address).is_empty())
    }

    /// Usable addresses that are given only by name, held or not.
    #[must_use]
    pub fn dangerous_count(&self) -> u128 {
        Family::ALL
            .into_iter()
            .map(|family| self.count(&self.dangerous, family))
            .fold(0, u128::saturating_add)
    }

    /// Usable addresses of a family, held or not, saturating.
    #[must_use]
    pub fn size(&self, family: Family) -> u128 {
        self.count(&self.usable, family)
    }

    /// Distinct addresses that are held.
    #[must_use]
    pub fn usage(&self) -> usize {
        self.held.len()
    }

    /// Addresses of a family which automatic choice could give now.
    #[must_use]
    pub const fn available(&self, family: Family) -> u128 {
        let [v4, v6] = self.free_count;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    /// Whether automatic choice could give nothing, of either family.
    #[must_use]
    pub const fn is_occupied(&self) -> bool {
        matches!(self.free_count, [0, 0])
    }

    /// Lowest usable address of a family.
    #[must_use]
    pub fn first(&self, family: Family) -> Option<IpAddr> {
        let mut from = 0;
        loop {
            let value = self.usable.family(family).next_from(from)?;
            let address = from_number(family, value);
            if !self.is_edge(address) {
                return Some(address);
            }
            from = value.checked_add(1)?;
        }
    }

    /// Highest usable address of a family.
    #[must_use]
    pub fn last(&self, family: Family) -> Option<IpAddr> {
        let mut from = u128::MAX;
        loop {
            let value = self.usable.family(family).next_back_from(from)?;
            let address = from_number(family, value);
            if !self.is_edge(address) {
                return Some(address);
            }
            from = value.checked_sub(1)?;
        }
    }

    /// Held addresses that the pool would not give any more: outside its ranges, or excluded. Ascending.
    #[must_use]
    pub const fn outside(&self) -> &BTreeSet<IpAddr> {
        &self.outside
    }

    /// Distinct addresses that a group holds.
    #[must_use]
    pub fn held_by_group(&self, group: &str) -> u64 {
        self.groups.get(group).copied().unwrap_or(0)
    }

    /// Whether `address` is in the pool's family ranges and owned or given by another pool.
    #[must_use]
    pub fn is_elsewhere(&self, address: IpAddr) -> bool {
        self.elsewhere.contains(address)
    }
}

/// Numbers below `n` whose last octet is 0 or 255.
const fn edges_below(n: u128) -> u128 {
    n / 256 * 2 + if n.is_multiple_of(256) { 0 } else { 1 }
}

#[cfg(test)]
mod tests;
