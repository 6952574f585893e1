//! What a Service asks for, and of which pools.

use std::cmp::Reverse;
use std::net::IpAddr;

use openelb_ipam::{Ask, Closed, Family, Pool, PoolId};

use super::reason::Refused;
use super::state::{State, Usable};
use crate::index::services::{FamilyPolicy, IpFamily};
use crate::index::{EipView, ServiceView, pools};
use crate::names::reason;

/// The families that a Service wants addresses of, in its order.
pub(super) fn families(state: &State<'_>, service: &ServiceView) -> Vec<Family> {
    if !service.families.is_empty() {
        return service.families.iter().copied().map(family).collect();
    }
    if service.family_policy != FamilyPolicy::SingleStack {
        return both(service.cluster_ip_families.first().copied());
    }
    if !service.requested_addresses.is_empty() {
        return service.requested_addresses.iter().map(|address| Family::of(*address)).collect();
    }
    if let Some(first) = service.cluster_ip_families.first() {
        return vec![family(*first)];
    }
    let has = |family| {
        if service.requested_pools.is_empty() {
            !candidates(state, service, family).is_empty()
        } else {
            named(state, service).any(|(_, pool)| pool.size(family) > 0)
        }
    };
    if !has(Family::V4) && has(Family::V6) { vec![Family::V6] } else { vec![Family::V4] }
}

fn both(first: Option<IpFamily>) -> Vec<Family> {
    match first {
        Some(IpFamily::V6) => vec![Family::V6, Family::V4],
        _ => vec![Family::V4, Family::V6],
    }
}

const fn family(family: IpFamily) -> Family {
    match family {
        IpFamily::V4 => Family::V4,
        IpFamily::V6 => Family::V6,
    }
}

/// The pools that the Service names and that exist, in its order.
fn named<'s>(state: &'s State<'_>, service: &'s ServiceView) -> impl Iterator<Item = (PoolId, &'s Pool)> {
    service
        .requested_pools
        .iter()
        .filter_map(|name| state.pools.find(name))
        .filter_map(|id| Some((id, state.pools.get(id)?)))
}

/// What the Service asks for in one family.
///
/// # Errors
/// It asks for something that no pool can be asked for.
pub(super) fn ask(state: &State<'_>, service: &ServiceView, family: Family) -> Result<Ask, Refused> {
    let address = service.requested_addresses.iter().copied().find(|a| Family::of(*a) == family);
    if let Some(address) = address {
        return ask_address(state, service, address);
    }
    if !service.requested_pools.is_empty() {
        return ask_pools(state, service, family);
    }
    Ok(Ask::Any(candidates(state, service, family)))
}

fn ask_address(state: &State<'_>, service: &ServiceView, address: IpAddr) -> Result<Ask, Refused> {
    if let Some(eip) = state.pools.locate(address).and_then(|id| state.eip(id)) {
        // An Eip that is not asked for has nothing to say: the address is outside of those that are.
        if service.requested_pools.is_empty() || service.requested_pools.contains(&eip.name) {
            allowed(state, service, eip)?;
        }
    }
    if service.requested_pools.is_empty() {
        return Ok(Ask::Address(address, None));
    }
    let missing = missing(state, service);
    let pools: Vec<PoolId> = named(state, service).map(|(id, _)| id).collect();
    if pools.is_empty() {
        return Err(Refused { reason: reason::POOL_NOT_FOUND, details: missing });
    }
    Ok(Ask::Address(address, Some(pools)))
}

fn ask_pools(state: &State<'_>, service: &ServiceView, family: Family) -> Result<Ask, Refused> {
    let Some((id, _)) = named(state, service).find(|(_, pool)| pool.size(family) > 0) else {
        let mut details = missing(state, service);
        let mut found = reason::POOL_NOT_FOUND;
        for (_, pool) in named(state, service) {
            if pool.spec().closed == Some(Closed::Invalid) {
                found = reason::POOL_INVALID;
                details.push(format!("{}: its spec cannot be used", pool.name()));
            } else {
                found = reason::FAMILY_UNAVAILABLE;
                details.push(format!("{}: has no {family} address", pool.name()));
            }
        }
        return Err(Refused { reason: found, details });
    };
    if let Some(eip) = state.eip(id) {
        allowed(state, service, eip)?;
    }
    Ok(Ask::From(vec![id]))
}

fn missing(state: &State<'_>, service: &ServiceView) -> Vec<String> {
    let unknown = service.requested_pools.iter().filter(|name| state.pools.find(name).is_none());
    unknown.map(|name| format!("{name}: there is no such Eip")).collect()
}

/// A pool that enforces its selectors wants them to match also where it is asked for by name.
fn allowed(state: &State<'_>, service: &ServiceView, eip: &EipView) -> Result<(), Refused> {
    match &eip.spec {
        Some(spec) if spec.enforce_selectors && !matches(state, service, spec) => Err(Refused {
            reason: reason::NOT_ALLOWED,
            details: vec![format!(
                "{}: enforces its namespaces and selectors, and they do not match this Service",
                eip.name
            )],
        }),
        _ => Ok(()),
    }
}

fn matches(state: &State<'_>, service: &ServiceView, spec: &pools::PoolSpec) -> bool {
    let namespace = &service.key.namespace;
    let labels = match spec.namespace_selector {
        Some(_) => state.indexes.namespaces.labels(namespace),
        None => crate::selector::Labels::new(),
    };
    spec.matches(namespace, &labels, &service.labels)
}

/// The pools for a Service that names none, in the order in which they are tried.
pub(super) fn candidates(state: &State<'_>, service: &ServiceView, family: Family) -> Vec<PoolId> {
    let usable = usable(state, family);
    let bound: Vec<PoolId> = usable
        .iter()
        .filter(|pool| {
            pool.spec.auto_assign != Some(false) && pool.spec.is_bound() && matches(state, service, pool.spec)
        })
        .map(|pool| pool.id)
        .collect();
    if !bound.is_empty() {
        return bound;
    }
    usable
        .iter()
        .filter(|pool| {
            pool.spec.auto_assign != Some(false)
                && (pool.is_default || (!pool.spec.is_bound() && pool.spec.auto_assign == Some(true)))
        })
        .map(|pool| pool.id)
        .collect()
}

/// The pools that can give addresses of a family at all, full or not, in the order in which they are tried.
fn usable<'s, 'a>(state: &'s State<'a>, family: Family) -> &'s [Usable<'a>] {
    let [v4, v6] = &state.usable;
    let cell = if family == Family::V4 { v4 } else { v6 };
    cell.get_or_init(|| {
        let mut usable: Vec<Usable<'a>> = state
            .pools
            .iter()
            .filter(|(_, pool)| {
                let closed = matches!(pool.spec().closed, Some(closed) if closed != Closed::Full);
                !closed && pool.size(family) > 0
            })
            .filter_map(|(id, _)| {
                let eip = state.eip(id)?;
                Some(Usable { id, eip, spec: eip.spec.as_deref()?, is_default: false })
            })
            .collect();
        // Pools are in the order of age: the oldest of those that could give addresses is the default.
        if let Some(default) = usable.iter_mut().find(|pool| pool.eip.is_default) {
            default.is_default = true;
        }
        usable.sort_by_key(|pool| (pool.spec.priority, Reverse(pool.is_default), &pool.eip.name));
        usable
    })
}

/// The default pool of a family: the oldest of those that could give addresses of it.
pub(super) fn default_for(state: &State<'_>, family: Family) -> Option<PoolId> {
    usable(state, family).iter().find(|pool| pool.is_default).map(|pool| pool.id)
}

/// Why there is no candidate: the pools that would be, but for one thing, or all of them.
pub(super) fn no_candidates(state: &State<'_>, service: &ServiceView, family: Family) -> Refused {
    let mut refused = Refused { reason: reason::NO_MATCHING_POOL, details: Vec::new() };
    for (id, pool) in state.pools.iter() {
        let Some(eip) = state.eip(id) else { continue };
        let (cause, text) = no_candidate(state, service, family, (pool, eip));
        if refused.reason == reason::NO_MATCHING_POOL
            && let Some(cause) = cause
        {
            refused.reason = cause;
        }
        refused.details.push(format!("{}: {text}", eip.name));
    }
    if refused.details.is_empty() {
        refused.details.push("there is no Eip; create one".to_owned());
    }
    refused
}

/// Why this pool is no candidate. The reason is there if it would be one but for one thing.
pub(super) fn no_candidate(
    state: &State<'_>,
    service: &ServiceView,
    family: Family,
    (pool, eip): (&Pool, &EipView),
) -> (Option<&'static str>, &'static str) {
    let spec = eip.spec.as_deref();
    let fits = spec.is_none_or(|spec| {
        spec.auto_assign != Some(false)
            && if spec.is_bound() {
                matches(state, service, spec) || eip.is_default
            } else {
                eip.is_default || spec.auto_assign == Some(true)
            }
    });
    match (fits, pool.spec().closed, spec) {
        (true, Some(Closed::Deleting), _) => (Some(reason::POOL_DELETING), "is being deleted"),
        (true, Some(Closed::Invalid), _) => (Some(reason::POOL_INVALID), "its spec cannot be used"),
        (true, Some(Closed::Disabled), _) => (Some(reason::POOL_DISABLED), "is disabled"),
        (true, _, _) if pool.size(family) == 0 => (
            Some(reason::FAMILY_UNAVAILABLE),
            if family == Family::V4 { "has no IPv4 address" } else { "has no IPv6 address" },
        ),
        (true, _, _) => (None, "is not the default, an older Eip is"),
        (false, _, Some(spec)) if spec.auto_assign == Some(false) => {
            (None, "is only given by name (autoAssign: false)")
        }
        (false, _, Some(spec)) if spec.is_bound() => (None, "its namespaces and selectors do not match"),
        (false, _, _) => (None, "is neither bound nor default, and autoAssign is not true"),
    }
}

/// Why a candidate is one.
pub(super) fn candidacy(
    state: &State<'_>,
    service: &ServiceView,
    family: Family,
    (id, eip): (PoolId, &EipView),
) -> &'static str {
    let bound = eip.spec.as_deref().is_some_and(|spec| spec.is_bound() && matches(state, service, spec));
    if bound {
        "its namespaces and selectors match"
    } else if default_for(state, family) == Some(id) {
        "it is the default"
    } else {
        "autoAssign is true"
    }
}
