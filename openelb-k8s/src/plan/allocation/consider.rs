//! Every pool, and what it is to one Service: the words of its conditions, also where it has an address.

use std::net::IpAddr;

use openelb_ipam::{Ask, Family, Outcome, Pool, PoolId, Request, Want};

use super::reason;
use super::request;
use super::state::{self, Concerned, State, Violations};
use crate::index::services::IpFamily;
use crate::index::{EipView, Indexes, ServiceView};
use crate::object::NamespacedName;

/// What a pool is to a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The Service has an address of it.
    Holds,
    /// It could give one now.
    Could,
    /// It is asked, and cannot give one.
    Refuses,
    /// It is not asked.
    NotAsked,
}

/// A pool that was looked at for one family of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// The Eip.
    pub pool: String,
    /// For addresses of this family.
    pub family: IpFamily,
    /// What it is to the Service.
    pub verdict: Verdict,
    /// Its place among the pools that are asked, from 1.
    pub place: Option<usize>,
    /// Why: the words of the conditions.
    pub why: String,
}

/// Every pool for each family of a Service of ours: those that are asked in that order, then the others by age. Empty
/// if the Service is not ours or not known.
#[must_use]
pub fn considered(indexes: &Indexes, service: &NamespacedName) -> Vec<Considered> {
    let Some(service) = indexes.services.get(service).filter(|service| service.ours) else {
        return Vec::new();
    };
    let (mut pools, mut violations) = (state::pools(indexes), Violations::new());
    let mut state = State::adopt(indexes, &mut pools, &mut violations, Concerned::everything(indexes));
    let mut all = Vec::new();
    for family in request::families(&state, service) {
        of_family(&mut state, service, family, &mut all);
    }
    all
}

fn of_family(state: &mut State<'_>, service: &ServiceView, family: Family, all: &mut Vec<Considered>) {
    let asked = Asked::of(state, service, family);
    let mut found: Vec<Considered> = Vec::new();
    let ids: Vec<PoolId> = state.pools.iter().map(|(id, _)| id).collect();
    for id in ids {
        let Some(eip) = state.eip(id) else { continue };
        let place = asked.pools.iter().position(|asked| *asked == id).map(|place| place + 1);
        let (verdict, why) = match held(state, service, id, family) {
            Some(address) => (Verdict::Holds, holds(state, id, address)),
            None if place.is_some() => probe(state, service, family, id, &asked),
            None => (Verdict::NotAsked, not_asked(state, service, family, id, &asked)),
        };
        let family = if family == Family::V4 { IpFamily::V4 } else { IpFamily::V6 };
        found.push(Considered { pool: eip.name.clone(), family, verdict, place, why });
    }
    found.sort_by_key(|considered| considered.place.unwrap_or(usize::MAX));
    all.append(&mut found);
}

/// What the Service would ask for if it had nothing.
struct Asked {
    /// The pools that are asked, in order.
    pools: Vec<PoolId>,
    /// The one address that will do.
    address: Option<IpAddr>,
    by_name: bool,
    /// Nobody is asked: the request itself is refused.
    refused: Option<String>,
}

impl Asked {
    fn of(state: &State<'_>, service: &ServiceView, family: Family) -> Self {
        let mut asked = Self { pools: Vec::new(), address: None, by_name: false, refused: None };
        if service.node_proxy || !service.request_problems.is_empty() {
            asked.refused = Some("is not asked, because the request is invalid".to_owned());
            return asked;
        }
        match request::ask(state, service, family) {
            Ok(Ask::Any(pools)) => asked.pools = pools,
            Ok(Ask::From(pools)) => (asked.pools, asked.by_name) = (pools, true),
            Ok(Ask::Address(address, pools)) => {
                asked.by_name = pools.is_some();
                asked.pools = pools.unwrap_or_else(|| state.pools.iter().map(|(id, _)| id).collect());
                asked.address = Some(address);
            }
            Err(refused) => {
                asked.by_name = !service.requested_pools.is_empty();
                asked.refused = Some(refused.message());
            }
        }
        asked
    }
}

fn held(state: &State<'_>, service: &ServiceView, id: PoolId, family: Family) -> Option<IpAddr> {
    let holder = state.concerned.entries.get(&service.key)?.holder.as_ref()?;
    let mut holdings = state.pools.holdings(&holder.id);
    holdings.find(|(pool, address)| *pool == id && Family::of(*address) == family).map(|(_, address)| address)
}

fn holds(state: &State<'_>, id: PoolId, address: IpAddr) -> String {
    let outside = state.pools.get(id).is_some_and(|pool| !pool.covers(address));
    if outside { format!("{address}, which it does not cover any more") } else { address.to_string() }
}

/// Asks the pool, and takes the request back.
fn probe(
    state: &mut State<'_>,
    service: &ServiceView,
    family: Family,
    id: PoolId,
    asked: &Asked,
) -> (Verdict, String) {
    let entry = state.concerned.entries.get(&service.key);
    let Some(holder) = entry.and_then(|entry| entry.holder.clone()) else {
        return (Verdict::NotAsked, String::new());
    };
    let ask = match asked.address {
        Some(address) => Ask::Address(address, Some(vec![id])),
        None => Ask::Any(vec![id]),
    };
    let want = Want { family, ask, held: None, leave: false };
    let request = Request { holder, wants: vec![want], all_or_none: false };
    let mut pools = state.pools.clone();
    let outcome = openelb_ipam::decide(&mut pools, &[request]).outcomes.into_iter().flatten().next();
    match outcome {
        Some(Outcome::Refused { refusals, .. }) => {
            let message = reason::of(state, &refusals).message();
            let own = format!("{}: ", state.name(id));
            (Verdict::Refuses, message.strip_prefix(&own).unwrap_or(&message).to_owned())
        }
        Some(outcome) => {
            let address = outcome.address().map(|(_, address)| address.to_string()).unwrap_or_default();
            (Verdict::Could, format!("could give {address}{}", because(state, service, family, id, asked)))
        }
        None => (Verdict::NotAsked, String::new()),
    }
}

fn because(state: &State<'_>, service: &ServiceView, family: Family, id: PoolId, asked: &Asked) -> String {
    if asked.address.is_some() {
        return String::new();
    }
    if asked.by_name {
        return ": the Service names it".to_owned();
    }
    let eip = state.eip(id);
    eip.map(|eip| format!(": {}", request::candidacy(state, service, family, (id, eip)))).unwrap_or_default()
}

fn not_asked(state: &State<'_>, service: &ServiceView, family: Family, id: PoolId, asked: &Asked) -> String {
    let named = state.eip(id).is_some_and(|eip| service.requested_pools.contains(&eip.name));
    if asked.by_name && !named {
        return "the Service names other pools".to_owned();
    }
    if let Some(refused) = &asked.refused {
        let own = format!("{}: ", state.name(id));
        let mine = refused.split("; ").find_map(|part| part.strip_prefix(&own));
        return mine.unwrap_or(refused).to_owned();
    }
    if asked.by_name {
        return "the Service names another pool of this family first".to_owned();
    }
    let (Some(pool), Some(eip)) = (state.pools.get(id), state.eip(id)) else { return String::new() };
    let (cause, text) = request::no_candidate(state, service, family, (pool, eip));
    if cause.is_none() && would_do(pool, eip, state, family) {
        return "a pool whose namespaces or selectors match comes before it".to_owned();
    }
    text.to_owned()
}

/// A default or automatic pool that is only passed over because a bound one matches.
fn would_do(pool: &Pool, eip: &EipView, state: &State<'_>, family: Family) -> bool {
    let Some(spec) = eip.spec.as_deref().filter(|_| pool.size(family) > 0) else { return false };
    let automatic = !spec.is_bound() && spec.auto_assign == Some(true);
    let default = request::default_for(state, family).and_then(|id| state.eip(id));
    let is_default = default.is_some_and(|default| default.name == eip.name);
    spec.auto_assign != Some(false) && (automatic || is_default)
}
