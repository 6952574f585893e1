//! Several pools side by side: who owns an address that two of them cover, and what each holder has.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::pool::{Pool, PoolSpec};
use crate::range::Family;
use crate::set::{RangeSet, from_number, to_number};
use crate::sharing::{Holder, HolderId};

/// Index of a pool within its [`Pools`], in the order in which they were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(usize);

/// Pools in order of age. What an older and a younger pool both cover belongs to the older.
///
/// ```
/// use openelb_ipam::{PoolSpec, Pools};
///
/// let pools = Pools::new([PoolSpec::new("old", "192.0.2.0/25")?, PoolSpec::new("new", "192.0.2.0/24")?]);
/// let (old, new) = (pools.find("old").unwrap(), pools.find("new").unwrap());
/// assert_eq!(pools.owner("192.0.2.9".parse()?), Some(old));
/// assert_eq!(pools.owner("192.0.2.200".parse()?), Some(new));
/// assert!(pools.overlaps(new).contains("192.0.2.9".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Pools {
    pools: Vec<Pool>,
    names: HashMap<String, PoolId, RandomState>,
    /// Per family: first number of a range, its last, and who owns it. Disjoint.
    owners: [BTreeMap<u128, (u128, PoolId)>; 2],
    /// What each pool covers and an older one owns.
    overlaps: Vec<RangeSet>,
    /// Held addresses that are recorded in pools which do not own them.
    strays: HashMap<IpAddr, BTreeSet<PoolId>, RandomState>,
    /// What each holder has.
    holdings: HashMap<HolderId, BTreeSet<(IpAddr, PoolId)>, RandomState>,
}

impl Pools {
    /// Pools without holders, oldest first. Of two with one name the older is found by it.
    #[must_use]
    pub fn new(specs: impl IntoIterator<Item = PoolSpec>) -> Self {
        let mut pools = Self::default();
        for spec in specs {
            let id = PoolId(pools.pools.len());
            let mut pool = Pool::new(spec);
            let overlap = pools.claim(id, &pool);
            if !overlap.is_empty() {
                pool.set_elsewhere(overlap.clone());
            }
            pools.overlaps.push(overlap);
            pools.names.entry(pool.name().to_owned()).or_insert(id);
            pools.pools.push(pool);
        }
        pools
    }

    /// Makes `id` the owner of what nobody owns yet of its ranges; returns the rest.
    fn claim(&mut self, id: PoolId, pool: &Pool) -> RangeSet {
        let mut overlap = RangeSet::default();
        for (family, owners) in Family::ALL.into_iter().zip(&mut self.owners) {
            for (first, last) in pool.usable().family(family).iter() {
                let mut next = Some(first);
                while let Some(from) = next.filter(|from| *from <= last) {
                    let taken = owners
                        .range(..=from)
                        .next_back()
                        .filter(|(_, (end, _))| *end >= from)
                        .or_else(|| owners.range(from..=last).next())
                        .map(|(start, (end, _))| (*start, *end));
                    match taken {
                        Some((start, end)) if start <= from => {
                            overlap.family_mut(family).insert(from, end.min(last));
                            next = end.checked_add(1);
                        }
                        Some((start, _)) => {
                            owners.insert(from, (start - 1, id));
                            next = Some(start);
                        }
                        None => {
                            owners.insert(from, (last, id));
                            next = None;
                        }
                    }
                }
            }
        }
        overlap
    }

    /// Every pool, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (PoolId, &Pool)> {
        self.pools.iter().enumerate().map(|(i, pool)| (PoolId(i), pool))
    }

    /// The pool with a name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<PoolId> {
        self.names.get(name).copied()
    }

    /// One pool. `None` only for an id of other `Pools`.
    #[must_use]
    pub fn get(&self, id: PoolId) -> Option<&Pool> {
        self.pools.get(id.0)
    }

    pub(crate) fn get_mut(&mut self, id: PoolId) -> Option<&mut Pool> {
        self.pools.get_mut(id.0)
    }

    /// What `id` covers and an older pool owns.
    #[must_use]
    pub fn overlaps(&self, id: PoolId) -> &RangeSet {
        const NONE: &RangeSet = &RangeSet::EMPTY;
        self.overlaps.get(id.0).unwrap_or(NONE)
    }

    /// The pool that may give `address`: the oldest for which it is usable.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<PoolId> {
        let (family, value) = to_number(address);
        let [v4, v6] = &self.owners;
        let owners = if family == Family::V4 { v4 } else { v6 };
        let (_, (last, id)) = owners.range(..=value).next_back()?;
        (*last >= value && self.get(*id)?.is_usable(address)).then_some(*id)
    }

    /// The pool that answers for `address`: the one in which it is recorded, else its owner.
    #[must_use]
    pub fn locate(&self, address: IpAddr) -> Option<PoolId> {
        let owner = self.owner(address);
        match self.strays.get(&address).and_then(BTreeSet::first) {
            Some(stray)
                if owner.and_then(|id| self.get(id)).is_none_or(|pool| pool.holders(address).is_empty()) =>
            {
                Some(*stray)
            }
            _ => owner,
        }
    }

    /// Records that `holder` has `address` of pool `id`, without asking whether it may; see [`Pool::assign`].
    pub fn assign(&mut self, id: PoolId, address: IpAddr, holder: Arc<Holder>) {
        let owner = self.owner(address);
        let Some(pool) = self.get_mut(id) else { return };
        let holder_id = holder.id.clone();
        pool.assign(address, holder);
        self.holdings.entry(holder_id).or_default().insert((address, id));
        if owner != Some(id) {
            self.strays.entry(address).or_default().insert(id);
            if let Some(owner) = owner.and_then(|owner| self.get_mut(owner)) {
                owner.block(address);
            }
        }
    }

    /// Takes `address` of pool `id` from a holder; returns what was recorded of it.
    pub fn release(&mut self, id: PoolId, address: IpAddr, holder: &HolderId) -> Option<Arc<Holder>> {
        let pool = self.get_mut(id)?;
        let gone = pool.release(address, holder)?;
        let empty = pool.holders(address).is_empty();
        if let Some(held) = self.holdings.get_mut(holder) {
            held.remove(&(address, id));
            if held.is_empty() {
                self.holdings.remove(holder);
            }
        }
        if empty && let Some(strays) = self.strays.get_mut(&address) {
            strays.remove(&id);
            if strays.is_empty() {
                self.strays.remove(&address);
                if let Some(owner) = self.owner(address).and_then(|owner| self.get_mut(owner)) {
                    owner.unblock(address);
                }
            }
        }
        Some(gone)
    }

    /// What a holder has, lowest address first.
    pub fn holdings(&self, holder: &HolderId) -> impl Iterator<Item = (PoolId, IpAddr)> + '_ {
        self.holdings.get(holder).into_iter().flatten().map(|(address, id)| (*id, *address))
    }

    /// Every holder that has something, in no particular order.
    pub fn holders(&self) -> impl Iterator<Item = &HolderId> {
        self.holdings.keys()
    }

    /// The owned ranges of both families, with their owners, ascending.
    pub fn owned(&self) -> impl Iterator<Item = (IpAddr, IpAddr, PoolId)> + '_ {
        Family::ALL.into_iter().zip(&self.owners).flat_map(|(family, owners)| {
            owners.iter().map(move |(first, (last, id))| {
                (from_number(family, *first), from_number(family, *last), *id)
            })
        })
    }
}
