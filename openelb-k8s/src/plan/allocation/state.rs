//! What is committed and published, adopted into pools and repaired.

use std::cell::OnceCell;
use std::collections::btree_map::Entry::Vacant;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use openelb_ipam::{
    Closed, Family, Holder, HolderId, PoolId, PoolSpec, Pools, Port, RangeSet, Sharing, Terms, Traffic,
    Transport, may_coexist, may_share, never_given,
};

use super::hint::{Hint, terms_digest};
use crate::announce::Protocol;
use crate::index::pools::is_full;
use crate::index::services::{PortProtocol, TrafficPolicy};
use crate::index::{EipView, Indexes, ServiceView, pools};
use crate::object::NamespacedName;

/// Sharers that were found together although the rules would not join them: by pool and address, in words.
pub(super) type Violations = BTreeMap<(PoolId, IpAddr), String>;

/// What a plan looks at.
#[derive(Default)]
pub(super) struct Concerned<'a> {
    /// Services, and what holds addresses according to `status.used`.
    pub(super) entries: BTreeMap<&'a NamespacedName, Entry<'a>>,
    /// What they were to have according to the last plan.
    pub(super) left: Vec<(PoolId, IpAddr)>,
    /// Eips that are looked at in any case.
    pub(super) eips: BTreeSet<&'a str>,
    /// The pools stay as they are, and so does what is decided for all others.
    pub(super) calm: bool,
}

/// A Service, or what holds addresses according to `status.used`.
#[derive(Clone)]
pub(super) struct Entry<'a> {
    pub(super) key: &'a NamespacedName,
    pub(super) service: Option<&'a ServiceView>,
    /// What it holds according to `status.used`: the Eip, and the address.
    pub(super) records: &'a [(Arc<str>, IpAddr)],
    /// The Service as a holder, if it is ours.
    pub(super) holder: Option<Arc<Holder>>,
}

impl<'a> Entry<'a> {
    fn new(
        key: &'a NamespacedName,
        service: Option<&'a ServiceView>,
        records: &'a [(Arc<str>, IpAddr)],
    ) -> Self {
        let ours = service.filter(|service| service.ours);
        Self { key, service, records, holder: ours.map(|service| Arc::new(holder(service))) }
    }

    /// What is known of a name; `None` if nothing.
    pub(super) fn of(indexes: &'a Indexes, key: &NamespacedName) -> Option<Self> {
        let service = indexes.services.get(key);
        let known = service.map(|service| &service.key).or_else(|| indexes.pools.holder(key))?;
        Some(Self::new(known, service, indexes.pools.records(key)))
    }

    /// Its name as a holder.
    pub(super) fn id(&self) -> HolderId {
        match &self.holder {
            Some(holder) => holder.id.clone(),
            None => HolderId::new(&self.key.namespace, &self.key.name),
        }
    }

    /// Is the address committed to it, in an Eip that does not go by force?
    pub(super) fn is_committed(&self, indexes: &Indexes, address: IpAddr) -> bool {
        self.records
            .iter()
            .any(|(eip, a)| *a == address && indexes.pools.get(eip).is_some_and(|eip| !goes_by_force(eip)))
    }

    /// Does it publish the address now?
    pub(super) fn is_published(&self, address: IpAddr) -> bool {
        self.service.is_some_and(|service| publishes(service, address))
    }
}

impl<'a> Concerned<'a> {
    /// Every Service, and everything that holds an address.
    pub(super) fn everything(indexes: &'a Indexes) -> Self {
        let mut holders = indexes.pools.holders().peekable();
        let mut entries: Vec<Entry<'a>> = Vec::new();
        for service in indexes.services.iter() {
            while let Some((key, records)) = holders.next_if(|(key, _)| **key < service.key) {
                entries.push(Entry::new(key, None, records));
            }
            let records =
                holders.next_if(|(key, _)| **key == service.key).map_or(&[][..], |(_, records)| records);
            entries.push(Entry::new(&service.key, Some(service), records));
        }
        entries.extend(holders.map(|(key, records)| Entry::new(key, None, records)));
        Self {
            entries: entries.into_iter().map(|entry| (entry.key, entry)).collect(),
            eips: indexes.pools.iter().map(|eip| eip.name.as_str()).collect(),
            ..Self::default()
        }
    }

    /// Is there nothing to look at?
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.left.is_empty() && self.eips.is_empty()
    }

    /// Our Services with their holders, by namespace and name.
    pub(super) fn ours(&self) -> impl Iterator<Item = (&Entry<'a>, &'a ServiceView, &Arc<Holder>)> {
        self.entries.values().filter_map(|entry| Some((entry, entry.service?, entry.holder.as_ref()?)))
    }
}

/// The pools with everything in them that is to stay.
pub(super) struct State<'a> {
    pub(super) indexes: &'a Indexes,
    /// Those who are not concerned hold in them what they are to have.
    pub(super) pools: &'a mut Pools,
    pub(super) concerned: Concerned<'a>,
    /// Younger sharers that an edit made clash with an older one: they have to give the address up.
    pub(super) evicted: BTreeSet<(&'a NamespacedName, IpAddr)>,
    pub(super) violations: &'a mut Violations,
    /// Of those that share against the rules, and stay: with whom.
    pub(super) clashes: BTreeMap<&'a NamespacedName, BTreeSet<String>>,
    /// What automatic choice may choose from, for each family.
    pub(super) usable: [OnceCell<Vec<Usable<'a>>>; 2],
}

/// A pool that can give addresses of a family at all, full or not.
#[derive(Clone, Copy)]
pub(super) struct Usable<'a> {
    pub(super) id: PoolId,
    pub(super) eip: &'a EipView,
    pub(super) spec: &'a pools::PoolSpec,
    pub(super) is_default: bool,
}

/// One that is being deleted gives what it shares with others over to them.
fn seniority(eip: &EipView) -> (bool, Option<jiff::Timestamp>, &str) {
    (eip.deleting, eip.created, &eip.name)
}

/// The pools of all Eips; nobody holds anything.
pub(super) fn pools(indexes: &Indexes) -> Pools {
    let dangerous: RangeSet = indexes.nodes.addresses().map(|(address, _)| address).collect();
    let mut eips: Vec<&EipView> = indexes.pools.iter().collect();
    eips.sort_by_key(|eip| seniority(eip));
    Pools::new(eips.iter().map(|eip| describe(eip, &dangerous)))
}

impl<'a> State<'a> {
    /// Reads what concerns these into the pools.
    pub(super) fn adopt(
        indexes: &'a Indexes,
        pools: &'a mut Pools,
        violations: &'a mut Violations,
        concerned: Concerned<'a>,
    ) -> Self {
        let mut state = Self::of(indexes, pools, violations, concerned);
        let entries = std::mem::take(&mut state.concerned.entries);
        for entry in entries.values() {
            state.adopt_records(entry);
        }
        state.concerned.entries = entries;
        state.recommit();
        state.find_clashes();
        state
    }

    /// As the pools are.
    pub(super) fn of(
        indexes: &'a Indexes,
        pools: &'a mut Pools,
        violations: &'a mut Violations,
        concerned: Concerned<'a>,
    ) -> Self {
        Self {
            indexes,
            pools,
            concerned,
            evicted: BTreeSet::new(),
            violations,
            clashes: BTreeMap::new(),
            usable: [OnceCell::new(), OnceCell::new()],
        }
    }

    fn adopt_records(&mut self, entry: &Entry<'a>) {
        let Some(service) = entry.service else { return };
        let mut records: Vec<(&EipView, IpAddr)> = entry
            .records
            .iter()
            .filter_map(|(name, address)| Some((self.indexes.pools.get(name)?, *address)))
            .collect();
        if records.len() > 1 {
            records.sort_by_key(|(eip, address)| (seniority(eip), *address));
        }
        for (eip, address) in records {
            if goes_by_force(eip) {
                continue;
            }
            let holder = match &entry.holder {
                Some(holder) => Arc::clone(holder),
                // Not ours any more: it holds the address until it is un-published.
                None if publishes(service, address) => Arc::new(holder(service)),
                None => continue,
            };
            let Some(pool) = self.place(eip, address) else { continue };
            let elsewhere = self.pools.holdings(&holder.id).any(|(id, held)| held == address && id != pool);
            if !elsewhere {
                self.pools.assign(pool, address, holder);
            }
        }
    }

    /// Where a record of `eip` belongs: there, unless it does not cover the address any more and another one does.
    fn place(&self, eip: &EipView, address: IpAddr) -> Option<PoolId> {
        let own = self.pools.find(&eip.name)?;
        let stays = eip.spec.is_none()
            || (!eip.deleting && self.pools.get(own).is_some_and(|pool| pool.covers(address)));
        if stays {
            return Some(own);
        }
        let other = self.pools.owner(address).filter(|id| {
            self.pools.get(*id).is_some_and(|pool| pool.spec().closed != Some(Closed::Deleting))
        });
        Some(other.unwrap_or(own))
    }

    /// Commits again what is published and not committed to another (a lost Eip status): oldest first.
    fn recommit(&mut self) {
        let mut ours: Vec<(&ServiceView, Arc<Holder>)> = self
            .concerned
            .ours()
            .filter(|(entry, service, _)| {
                // What is recorded is adopted.
                let recorded = |address| entry.records.iter().any(|(_, recorded)| *recorded == address);
                service.ingress.iter().filter_map(|ingress| ingress.address).any(|shown| !recorded(shown))
                    || entry
                        .records
                        .iter()
                        .any(|(eip, _)| self.indexes.pools.get(eip).is_none_or(goes_by_force))
            })
            .map(|(_, service, holder)| (service, Arc::clone(holder)))
            .collect();
        ours.sort_by_key(|(service, _)| service.order());
        let never = never_given();
        for (service, holder) in ours {
            for address in service.published() {
                if never.contains(address) || self.pools.holdings(&holder.id).any(|(_, a)| a == address) {
                    continue;
                }
                let covering = self
                    .pools
                    .owner(address)
                    .or_else(|| self.pools.iter().find(|(_, pool)| pool.covers(address)).map(|(id, _)| id));
                let Some(id) = self.pools.locate(address).or(covering) else { continue };
                let Some(pool) = self.pools.get(id) else { continue };
                if self.indexes.pools.get(pool.name()).is_some_and(goes_by_force) {
                    continue;
                }
                let known = Hint::of(service).is_some_and(|hint| hint.addresses.contains_key(&address));
                let welcome = pool.holders(address).iter().all(|other| {
                    may_share(pool.spec().sharing, other, &holder).is_ok()
                        || (known && may_coexist(other, &holder).is_ok())
                });
                if welcome {
                    self.pools.assign(id, address, Arc::clone(&holder));
                }
            }
        }
    }

    /// Looks for sharers that get in each other's way, where a concerned Service is or was among them.
    fn find_clashes(&mut self) {
        let mut places: BTreeSet<(PoolId, IpAddr)> = BTreeSet::new();
        for entry in self.concerned.entries.values() {
            let held = self.pools.holdings(&entry.id());
            places.extend(held.filter(|(pool, address)| self.is_shared(*pool, *address)));
        }
        let left = self.concerned.left.iter().copied();
        places.extend(left.filter(|(pool, address)| self.is_shared(*pool, *address)));
        // Of those that were found before, the holders may have been about to leave.
        for (pool, address) in std::mem::take(self.violations).into_keys() {
            places.insert((pool, address));
            self.concerned.left.push((pool, address));
        }
        for (pool, address) in places {
            self.find_clash(pool, address);
        }
    }

    fn is_shared(&self, pool: PoolId, address: IpAddr) -> bool {
        self.pools.get(pool).is_some_and(|pool| pool.holders(address).len() > 1)
    }

    fn find_clash(&mut self, id: PoolId, address: IpAddr) {
        let Some(pool) = self.pools.get(id) else { return };
        let mut holders: Vec<_> = pool.holders(address).to_vec();
        holders.sort_by(|a, b| a.seniority().cmp(&b.seniority()));
        let mut staying: Vec<Arc<Holder>> = Vec::new();
        let mut violation = None;
        for holder in holders {
            let clashes: Vec<_> = staying
                .iter()
                .filter_map(|older| may_coexist(older, &holder).err().map(|conflict| (older, conflict)))
                .collect();
            if let (Some(first), Some(service)) = (clashes.first(), self.service(&holder.id)) {
                let by_edit = |older: &Arc<Holder>| {
                    let older = self.service(&older.id);
                    !older.is_some_and(|older| were_found_clashing(older, service))
                        && (was_edited(service) || older.is_some_and(was_edited))
                };
                // What nobody sees yet is not worth a violation.
                let gives_up = service.ours
                    && (!publishes(service, address) || clashes.iter().any(|(older, _)| by_edit(older)));
                if gives_up {
                    self.evicted.insert((&service.key, address));
                    self.look_at(service);
                    continue;
                }
                let (older, conflict) = first;
                violation = Some(format!("{address}: {} and {}: {conflict}", older.id, holder.id));
                for (older, _) in &clashes {
                    let Some(older) = self.service(&older.id) else { continue };
                    self.look_at(older);
                    self.look_at(service);
                    self.clashes.entry(&older.key).or_default().insert(service.key.to_string());
                    self.clashes.entry(&service.key).or_default().insert(older.key.to_string());
                }
            }
            staying.push(holder);
        }
        if let Some(text) = violation {
            self.violations.insert((id, address), text);
        }
    }

    /// It may have been at peace until now.
    fn look_at(&mut self, service: &'a ServiceView) {
        if let Vacant(place) = self.concerned.entries.entry(&service.key)
            && let Some(entry) = Entry::of(self.indexes, &service.key)
        {
            place.insert(entry);
        }
    }

    fn service(&self, id: &HolderId) -> Option<&'a ServiceView> {
        self.indexes.services.get(&key(id))
    }

    /// The name of a pool.
    pub(super) fn name(&self, id: PoolId) -> &str {
        self.pools.get(id).map_or("", |pool| pool.name())
    }

    /// The Eip of a pool.
    pub(super) fn eip(&self, id: PoolId) -> Option<&'a EipView> {
        self.indexes.pools.get(self.pools.get(id)?.name())
    }
}

/// The Service of a holder.
pub(super) fn key(id: &HolderId) -> NamespacedName {
    NamespacedName::new(&*id.group, &*id.name)
}

/// Does the Service publish the address now?
pub(super) fn publishes(service: &ServiceView, address: IpAddr) -> bool {
    service.ingress.iter().any(|ingress| ingress.address == Some(address))
}

/// Is the Eip deleted although it is in use, because the user says so? The deletion itself counts as a generation.
pub(super) fn goes_by_force(eip: &EipView) -> bool {
    let is_present = |force: i64| force == eip.generation || force.checked_add(1) == Some(eip.generation);
    eip.deleting && eip.force.is_some_and(is_present)
}

/// Were the Service's terms of sharing edited since it got its address?
fn was_edited(service: &ServiceView) -> bool {
    Hint::of(service).is_some_and(|hint| hint.terms != terms_digest(service))
}

/// Was it known before that these two share an address against the rules? Then no edit made it so.
fn were_found_clashing(one: &ServiceView, other: &ServiceView) -> bool {
    let names = |one: &ServiceView, other: &ServiceView| {
        Hint::of(one).is_some_and(|hint| hint.clashes.contains(&other.key.to_string()))
    };
    names(one, other) && names(other, one)
}

fn describe(eip: &EipView, dangerous: &RangeSet) -> PoolSpec {
    let Some(spec) = &eip.spec else {
        return PoolSpec { name: eip.name.clone(), closed: Some(Closed::Invalid), ..PoolSpec::default() };
    };
    PoolSpec {
        name: eip.name.clone(),
        ranges: spec.address.clone(),
        exclude: spec.exclude.clone(),
        avoid_network_and_broadcast: spec.avoid_network_and_broadcast,
        avoid_subnet_router_anycast: spec
            .protocols
            .iter()
            .any(|protocol| matches!(protocol, Protocol::Layer2 | Protocol::Vip)),
        dangerous: dangerous.clone(),
        sharing: match spec.sharing {
            None => Sharing::Standard,
            Some(pools::Sharing::Address) => Sharing::Address,
            Some(pools::Sharing::Key) => Sharing::Key,
            Some(pools::Sharing::None) => Sharing::None,
        },
        max_per_group: spec.max_per_namespace.map(u64::from),
        closed: if eip.deleting {
            Some(Closed::Deleting)
        } else if spec.disable {
            Some(Closed::Disabled)
        } else if is_full(eip.used_bytes) {
            Some(Closed::Full)
        } else {
            None
        },
    }
}

pub(super) fn holder(service: &ServiceView) -> Holder {
    let ports = service.ports.iter().map(|(protocol, port)| Port {
        protocol: match protocol {
            PortProtocol::Tcp => Transport::Tcp,
            PortProtocol::Udp => Transport::Udp,
            PortProtocol::Sctp => Transport::Sctp,
        },
        port: *port,
    });
    Holder {
        id: HolderId::new(&service.key.namespace, &service.key.name),
        created: service.created.map_or(i64::MIN, |created| created.as_second()),
        terms: Terms {
            key: service.sharing_key.as_deref().map(Into::into),
            ports: ports.collect(),
            traffic: match service.traffic_policy {
                TrafficPolicy::Cluster => Traffic::Cluster,
                TrafficPolicy::Local => Traffic::Local { selector: service.selector_digest },
            },
        },
    }
}

/// The family of an address among those of a Service.
pub(super) fn of_family(family: Family) -> impl Fn(&(PoolId, IpAddr)) -> bool {
    move |(_, address)| Family::of(*address) == family
}
