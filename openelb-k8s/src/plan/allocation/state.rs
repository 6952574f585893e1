//! What is committed and published, adopted into pools and repaired.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use openelb_ipam::{
    Closed, Family, Holder, HolderId, PoolId, PoolSpec, Pools, Port, RangeSet, Sharing, Terms, Traffic,
    Transport, may_coexist, may_share, never_given,
};

use super::hint::{Hint, terms_digest};
use crate::announce::Protocol;
use crate::index::services::{PortProtocol, TrafficPolicy};
use crate::index::{EipView, Indexes, ServiceView, pools};
use crate::object::NamespacedName;

/// `status.used` may take so many bytes; an object may have 1 MiB (and the rest of it takes its share).
pub(super) const USED_BYTES: usize = 900 << 10;

/// The pools with everything in them that is to stay.
pub(super) struct State<'a> {
    pub(super) indexes: &'a Indexes,
    pub(super) pools: Pools,
    /// Our Services as holders.
    pub(super) holders: BTreeMap<&'a NamespacedName, Arc<Holder>>,
    /// What each Service holds according to `status.used`, ours or not.
    records: BTreeMap<&'a NamespacedName, BTreeSet<(&'a str, IpAddr)>>,
    /// Younger sharers that an edit made clash with an older one: they have to give the address up.
    pub(super) evicted: BTreeSet<(&'a NamespacedName, IpAddr)>,
    /// Sharers that were found together although the rules would not join them: address, and why.
    pub(super) violations: BTreeMap<(String, IpAddr), String>,
}

impl<'a> State<'a> {
    /// Reads the indexes.
    pub(super) fn adopt(indexes: &'a Indexes) -> Self {
        let dangerous: RangeSet = indexes.nodes.addresses().map(|(address, _)| address).collect();
        let mut eips: Vec<&EipView> = indexes.pools.iter().collect();
        // One that is being deleted gives what it shares with others over to them.
        eips.sort_by_key(|eip| (eip.deleting, eip.created, &eip.name));
        let mut state = Self {
            indexes,
            pools: Pools::new(eips.iter().map(|eip| describe(eip, &dangerous))),
            holders: indexes
                .services
                .ours()
                .map(|service| (&service.key, Arc::new(holder(service))))
                .collect(),
            records: BTreeMap::new(),
            evicted: BTreeSet::new(),
            violations: BTreeMap::new(),
        };
        for eip in eips {
            state.adopt_records(eip);
        }
        state.recommit();
        state.find_clashes();
        state
    }

    fn adopt_records(&mut self, eip: &'a EipView) {
        for (address, holders) in &eip.used {
            for key in holders {
                self.records.entry(key).or_default().insert((&eip.name, *address));
                let Some(service) = self.indexes.services.get(key) else { continue };
                if goes_by_force(eip) {
                    continue;
                }
                let holder = match self.holders.get(key) {
                    Some(holder) => Arc::clone(holder),
                    // Not ours any more: it holds the address until it is un-published.
                    None if publishes(service, *address) => Arc::new(holder(service)),
                    None => continue,
                };
                let Some(pool) = self.place(eip, *address) else { continue };
                let elsewhere =
                    self.pools.holdings(&holder.id).any(|(id, held)| held == *address && id != pool);
                if !elsewhere {
                    self.pools.assign(pool, *address, holder);
                }
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
        let mut ours: Vec<&ServiceView> =
            self.indexes.services.ours().filter(|service| !service.ingress.is_empty()).collect();
        ours.sort_by_key(|service| service.order());
        let never = never_given();
        for service in ours {
            let Some(holder) = self.holders.get(&service.key).cloned() else { continue };
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

    /// Looks for sharers that get in each other's way.
    fn find_clashes(&mut self) {
        for (_, pool) in self.pools.iter() {
            for (address, holders) in pool.held().filter(|(_, holders)| holders.len() > 1) {
                let mut holders: Vec<_> = holders.to_vec();
                holders.sort_by(|a, b| a.seniority().cmp(&b.seniority()));
                let mut staying: Vec<Arc<Holder>> = Vec::new();
                for holder in holders {
                    let clash = staying.iter().find_map(|older| {
                        may_coexist(older, &holder).err().map(|conflict| (older, conflict))
                    });
                    let service = self.service(&holder.id);
                    if let (Some((older, conflict)), Some(service)) = (clash, service) {
                        // What nobody sees yet is not worth a violation.
                        let edited = service.ours
                            && (!publishes(service, address)
                                || was_edited(service)
                                || self.service(&older.id).is_some_and(was_edited));
                        if edited {
                            self.evicted.insert((&service.key, address));
                            continue;
                        }
                        let text = format!("{address}: {} and {}: {conflict}", older.id, holder.id);
                        self.violations.insert((pool.name().to_owned(), address), text);
                    }
                    staying.push(holder);
                }
            }
        }
    }

    fn service(&self, id: &HolderId) -> Option<&'a ServiceView> {
        self.indexes.services.get(&key(id))
    }

    /// Is the address committed to the Service, in an Eip that does not go by force?
    pub(super) fn is_committed(&self, service: &NamespacedName, address: IpAddr) -> bool {
        self.records.get(service).into_iter().flatten().any(|(eip, a)| {
            *a == address && self.indexes.pools.get(eip).is_some_and(|eip| !goes_by_force(eip))
        })
    }

    /// What a Service holds according to `status.used`.
    pub(super) fn records(&self, service: &NamespacedName) -> impl Iterator<Item = (&'a str, IpAddr)> + '_ {
        self.records.get(service).into_iter().flatten().copied()
    }

    /// Does the Service publish the address now?
    pub(super) fn is_published(&self, service: &NamespacedName, address: IpAddr) -> bool {
        self.indexes.services.get(service).is_some_and(|service| publishes(service, address))
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

fn publishes(service: &ServiceView, address: IpAddr) -> bool {
    service.ingress.iter().any(|ingress| ingress.address == Some(address))
}

/// Is the Eip deleted although it is in use, because the user says so? The deletion itself may count as a generation.
pub(super) fn goes_by_force(eip: &EipView) -> bool {
    eip.deleting && eip.force.is_some_and(|force| force == eip.generation || force + 1 == eip.generation)
}

/// Were the Service's terms of sharing edited since it got its address?
fn was_edited(service: &ServiceView) -> bool {
    Hint::of(service).is_some_and(|hint| hint.terms != terms_digest(service))
}

/// Bytes of `status.used`, roughly: two quoted strings, a colon and a comma each.
pub(super) fn used_bytes(eip: &EipView) -> usize {
    eip.status.used.iter().flatten().map(|(address, holders)| entry_bytes(address.len(), holders.len())).sum()
}

pub(super) const fn entry_bytes(address: usize, holders: usize) -> usize {
    address + holders + 6
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
        } else if used_bytes(eip) >= USED_BYTES {
            Some(Closed::Full)
        } else {
            None
        },
    }
}

fn holder(service: &ServiceView) -> Holder {
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
