//! What an edit would do to what is in use.

use std::net::IpAddr;

use openelb_ipam::{PoolSpec as IpamPool, Pools as IpamPools};

use crate::crd::Eip;
use crate::index::pools::{PoolSpec, parse_spec};
use crate::index::{EipView, SpecProblem};
use crate::names::annotation;

/// So many addresses are named.
const NAMED: usize = 3;

/// Would an edit take addresses that Services hold out of their Eip? `before` is the object as it is stored, with its
/// status, and `after` as it is to be.
///
/// The annotation `openelb.kubesphere.io/force` with the generation of `before` lets one such edit through. A spec that
/// cannot be used takes nothing away: the last good one stays in force.
///
/// ```
/// use openelb_k8s::crd::Eip;
/// use openelb_k8s::validate::eip_change;
/// use serde_json::json;
///
/// let eip = |address: &str, annotations| -> Result<Eip, serde_json::Error> {
///     serde_json::from_value(json!({"metadata": {"name": "pool", "generation": 4, "annotations": annotations},
///         "spec": {"address": address}, "status": {"used": {"192.0.2.9": "shop/web"}}}))
/// };
/// let before = eip("192.0.2.0/28", json!({}))?;
/// assert!(eip_change(&before, &eip("192.0.2.0/27", json!({}))?).is_none());
/// let problem = eip_change(&before, &eip("192.0.2.0/29", json!({}))?).ok_or("it shrinks")?;
/// assert!(problem.cause.starts_with("192.0.2.9 (shop/web) is in use"));
/// let force = json!({"openelb.kubesphere.io/force": "4"});
/// assert!(eip_change(&before, &eip("192.0.2.0/29", force)?).is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn eip_change(before: &Eip, after: &Eip) -> Option<SpecProblem> {
    eip_change_unless(before, after, |_| false)
}

/// The same, but for addresses that lie in another Eip: there the record moves.
pub(super) fn eip_change_unless(
    before: &Eip,
    after: &Eip,
    moves: impl Fn(IpAddr) -> bool,
) -> Option<SpecProblem> {
    let (old, new) = (EipView::parse(before), EipView::parse(after));
    if new.force == Some(old.generation) {
        return None;
    }
    let (old_pools, new_pools) = (pools("", old.spec.as_deref()?), pools("", new.spec.as_deref()?));
    let usable = |pools: &IpamPools, address: IpAddr| pools.iter().any(|(_, pool)| pool.is_usable(address));
    let leaves =
        |address: &IpAddr| usable(&old_pools, *address) && !usable(&new_pools, *address) && !moves(*address);
    let leaving: Vec<_> = old.used.iter().filter(|(address, _)| leaves(address)).collect();
    let (first, _) = leaving.first()?;
    let named: Vec<String> = leaving
        .iter()
        .take(NAMED)
        .map(|(address, holders)| {
            let holders: Vec<String> = holders.iter().map(ToString::to_string).collect();
            format!("{address} ({})", holders.join(", "))
        })
        .collect();
    let more = match leaving.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let (is, them) = if leaving.len() == 1 { ("is", "it") } else { ("are", "them") };
    let covered = new_pools.iter().any(|(_, pool)| pool.covers(**first));
    Some(SpecProblem::new(
        if covered { "spec.exclude" } else { "spec.address" },
        format!("{}{more} {is} in use, and this edit takes {them} out", named.join(", ")),
        format!(
            "release or reassign it first, or let the edit through: annotation {}: \"{}\"; the Services keep what they have",
            annotation::FORCE,
            old.generation
        ),
    ))
}

/// A pool of this spec.
pub(super) fn pool(name: &str, spec: &PoolSpec) -> IpamPool {
    IpamPool {
        name: name.to_owned(),
        ranges: spec.address.clone(),
        exclude: spec.exclude.clone(),
        avoid_network_and_broadcast: spec.avoid_network_and_broadcast,
        ..IpamPool::default()
    }
}

fn pools(name: &str, spec: &PoolSpec) -> IpamPools {
    IpamPools::new([pool(name, spec)])
}

/// The pools of all Eips that can be used.
pub(super) fn table<'a>(eips: impl Iterator<Item = &'a Eip>) -> IpamPools {
    let of = |eip: &Eip| {
        let spec = parse_spec(&eip.spec).ok()?;
        Some(pool(eip.metadata.name.as_deref().unwrap_or_default(), &spec))
    };
    IpamPools::new(eips.filter_map(of).collect::<Vec<_>>())
}
