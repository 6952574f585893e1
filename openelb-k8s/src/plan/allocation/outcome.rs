//! From requests to decisions: who has which address when all writes are done, and why not another.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use openelb_ipam::{Ask, Family, Holder, HolderId, Outcome, PoolId, Pools, Request, Want};

use super::ServiceOutcome;
use super::hint::{Hint, terms_digest};
use super::reason::{self, Refused};
use super::request;
use super::state::{Concerned, State, Violations, holder, of_family, publishes};
use crate::index::services::FamilyPolicy;
use crate::index::{Indexes, ServiceView};
use crate::names::reason as names;
use crate::object::NamespacedName;
use crate::plan::status::explain;

/// What was decided.
pub(super) struct Decided<'a> {
    pub(super) services: BTreeMap<&'a NamespacedName, Placed<'a>>,
}

/// What one Service of ours has when all writes are done.
pub(super) struct Placed<'a> {
    pub(super) service: &'a ServiceView,
    pub(super) hint: Option<Hint>,
    pub(super) addresses: Vec<(PoolId, IpAddr)>,
    /// The request to move to another address has been seen to, or there is none.
    pub(super) reassigned: bool,
    /// It has what it asks for, committed where it belongs, so that nothing but itself can change that.
    pub(super) at_peace: bool,
    /// All that it has is what it asks for.
    pub(super) fits_request: bool,
    pub(super) outcome: ServiceOutcome,
}

/// One Service on its way through the decision.
struct Case<'a> {
    service: &'a ServiceView,
    holder: Arc<Holder>,
    hint: Option<Hint>,
    /// In the order of its families.
    families: Vec<FamilyCase>,
    /// Held, of a family that it does not have any more.
    leftover: Vec<(PoolId, IpAddr)>,
    /// Its request to move to another address waits.
    moving: bool,
    at_peace: bool,
}

struct FamilyCase {
    family: Family,
    held: Option<(PoolId, IpAddr)>,
    ask: Result<Ask, Refused>,
    leave: bool,
    evicted: bool,
    refused: Option<Refused>,
}

/// Decides for all Services of ours, and brings the pools into the new state.
pub(super) fn decide<'a>(state: &mut State<'a>) -> Decided<'a> {
    let mut cases: Vec<Case<'a>> = state
        .concerned
        .ours()
        .map(|(entry, service, holder)| Case::open(state, service, Arc::clone(holder), entry.records))
        .collect();
    for case in &cases {
        case.drop_extras(state);
    }
    let requests: Vec<Request> = cases.iter().filter_map(Case::request).collect();
    let decision = openelb_ipam::decide(state.pools, &requests);
    let mut outcomes = decision.outcomes.into_iter();
    for case in &mut cases {
        if case.asks() {
            case.take_in(state, outcomes.next().unwrap_or_default());
        }
    }
    let services = cases.into_iter().map(|case| (&case.service.key, case.close(state))).collect();
    Decided { services }
}

/// Does a Service that changed leave the pools as they are, because it was and is at peace, or has and had nothing to
/// do with us?
pub(super) fn stays_at_peace(indexes: &Indexes, pools: &mut Pools, key: &NamespacedName) -> bool {
    let id = HolderId::new(&key.namespace, &key.name);
    let Some(service) = indexes.services.get(key).filter(|service| service.ours) else {
        return pools.holdings(&id).next().is_none() && indexes.pools.holder(key).is_none();
    };
    let now = Arc::new(holder(service));
    // Who shares may get in the way of others.
    let as_before = |(pool, address): (PoolId, IpAddr)| {
        pools.get(pool).is_some_and(|pool| matches!(pool.holders(address), [only] if **only == *now))
    };
    if pools.holdings(&id).next().is_none() || !pools.holdings(&id).all(as_before) {
        return false;
    }
    let mut violations = Violations::new();
    let state = State::of(indexes, pools, &mut violations, Concerned::default());
    Case::open(&state, service, now, indexes.pools.records(key)).at_peace
}

impl<'a> Case<'a> {
    fn open(
        state: &State<'a>,
        service: &'a ServiceView,
        holder: Arc<Holder>,
        records: &[(Arc<str>, IpAddr)],
    ) -> Self {
        let hint = Hint::of(service);
        let holdings: Vec<(PoolId, IpAddr)> = state.pools.holdings(&holder.id).collect();
        let moving =
            hint.as_ref().is_some_and(|hint| service.reassign.is_some() && hint.reassign != service.reassign);
        let wanted = request::families(state, service);
        let mut case = Self {
            service,
            holder,
            hint,
            families: Vec::new(),
            leftover: Vec::new(),
            moving,
            at_peace: false,
        };
        for family in &wanted {
            let held: Vec<_> = holdings.iter().copied().filter(of_family(*family)).collect();
            case.open_family(state, *family, &held);
        }
        case.leftover = holdings
            .iter()
            .copied()
            .filter(|(_, address)| !wanted.contains(&Family::of(*address)) && publishes(service, *address))
            .collect();
        case.at_peace = case.is_at_peace(state, &holdings, records);
        case
    }

    fn open_family(&mut self, state: &State<'a>, family: Family, held: &[(PoolId, IpAddr)]) {
        let service = self.service;
        let evicted = |(_, address): &(PoolId, IpAddr)| state.evicted.contains(&(&service.key, *address));
        let simple = service.requested_addresses.iter().all(|a| Family::of(*a) != family)
            && service.requested_pools.is_empty();
        let in_peace = held.iter().any(|held| !evicted(held)) && simple && !self.moving;
        let mut ask = if service.node_proxy || !service.request_problems.is_empty() {
            Err(invalid(service))
        } else if in_peace {
            // Kept whatever the pools are: no need to look for them.
            Ok(Ask::Any(Vec::new()))
        } else {
            request::ask(state, service, family)
        };
        // A record that moved to another pool after a split stays until the request is edited.
        let as_before =
            self.hint.as_ref().is_some_and(|hint| hint.requested_pools == service.requested_pools);
        let known = |address: &IpAddr| self.hint.as_ref().is_some_and(|h| h.addresses.contains_key(address));
        let moves = |address: &IpAddr| {
            let moved = self.hint.as_ref().is_some_and(|hint| hint.is_moved(service, *address));
            self.moving && known(address) && !moved
        };
        let satisfies = |(pool, address): &(PoolId, IpAddr)| {
            let pool_fits = |pools: &[PoolId]| pools.contains(pool) || (as_before && known(address));
            match &ask {
                Ok(Ask::Any(_)) => !moves(address),
                Ok(Ask::From(pools)) => pool_fits(pools) && !moves(address),
                Ok(Ask::Address(wanted, pools)) => {
                    wanted == address && pools.as_deref().is_none_or(pool_fits)
                }
                Err(_) => true,
            }
        };
        let position = |(_, address): &(PoolId, IpAddr)| {
            let mut shown = service.ingress.iter().filter_map(|ingress| ingress.address);
            shown.position(|published| published == *address)
        };
        let best = held.iter().copied().min_by_key(|held| {
            let position = position(held);
            (evicted(held), !satisfies(held), position.is_none(), position, held.1)
        });
        let explicit = matches!(ask, Ok(Ask::Address(..)));
        let fits = best.as_ref().is_some_and(satisfies);
        let best_evicted = best.as_ref().is_some_and(evicted);
        let leave = best_evicted || (!explicit && best.is_some_and(|(_, address)| moves(&address)));
        if fits && !leave {
            ask = ask.map(|_| Ask::Any(Vec::new()));
        } else if as_before && best.is_some_and(|(_, address)| known(&address)) {
            // Satisfied but for the wish to leave: any of the named pools will do.
            ask = ask.map(|ask| match ask {
                Ask::From(pools) => Ask::Any(pools),
                other => other,
            });
        }
        if best.is_none_or(|_| leave)
            && let Ok(Ask::Any(pools)) = &ask
            && pools.is_empty()
        {
            ask = Err(request::no_candidates(state, service, family));
        }
        self.families.push(FamilyCase {
            family,
            held: best,
            ask,
            leave,
            evicted: best_evicted,
            refused: None,
        });
    }

    /// Is nothing to be done but to keep what it has, and is all of that committed where it belongs?
    fn is_at_peace(
        &self,
        state: &State<'a>,
        holdings: &[(PoolId, IpAddr)],
        records: &[(Arc<str>, IpAddr)],
    ) -> bool {
        let kept = self.families.iter().all(|case| {
            case.held.is_some()
                && !case.leave
                && !case.evicted
                && matches!(&case.ask, Ok(Ask::Any(pools)) if pools.is_empty())
        });
        // What it shows beside could be given to it as soon as nobody else has it.
        let shows_no_other = self
            .service
            .ingress
            .iter()
            .filter_map(|ingress| ingress.address)
            .all(|shown| holdings.iter().any(|(_, held)| *held == shown));
        // What is to be written on it depends on those that it shares with.
        let is_up_to_date = self.hint.as_ref().is_none_or(|hint| {
            hint.clashes.is_empty() && (hint.terms.is_empty() || hint.terms == terms_digest(self.service))
        });
        kept && shows_no_other
            && is_up_to_date
            && self.leftover.is_empty()
            && holdings.len() == self.families.len()
            && records.len() == holdings.len()
            && records.iter().all(|(eip, address)| {
                holdings.iter().any(|(pool, held)| held == address && *state.name(*pool) == **eip)
            })
    }

    /// Takes what the Service holds beside what was chosen to stay off the pools.
    fn drop_extras(&self, state: &mut State<'a>) {
        if self.at_peace {
            return;
        }
        let holder = &self.holder;
        let holdings: Vec<_> = state.pools.holdings(&holder.id).collect();
        for (pool, address) in holdings {
            let kept = (pool, address);
            if !self.families.iter().any(|case| case.held == Some(kept)) && !self.leftover.contains(&kept) {
                state.pools.release(pool, address, &holder.id);
            }
        }
    }

    fn requires_both(&self) -> bool {
        self.service.family_policy == FamilyPolicy::RequireDualStack && self.families.len() > 1
    }

    fn holds_nothing(&self) -> bool {
        self.families.iter().all(|case| case.held.is_none())
    }

    /// Whether there is anything to ask the pools for.
    fn asks(&self) -> bool {
        let hopeless = self.requires_both()
            && self.holds_nothing()
            && self.families.iter().any(|case| case.ask.is_err());
        !self.at_peace && !hopeless && self.families.iter().any(|case| case.ask.is_ok())
    }

    fn request(&self) -> Option<Request> {
        if !self.asks() {
            return None;
        }
        let wants = self.families.iter().filter_map(|case| {
            let ask = case.ask.clone().ok()?;
            Some(Want { family: case.family, ask, held: case.held, leave: case.leave })
        });
        Some(Request {
            holder: Arc::clone(&self.holder),
            wants: wants.collect(),
            all_or_none: self.requires_both(),
        })
    }

    /// Takes the answers in.
    fn take_in(&mut self, state: &mut State<'a>, outcomes: Vec<Outcome>) {
        let asking = self.families.iter_mut().filter(|case| case.ask.is_ok());
        for (case, outcome) in asking.zip(outcomes) {
            if let Outcome::Refused { refusals, .. } = &outcome {
                case.refused = Some(reason::of(state, refusals));
            }
            case.held = outcome.address();
        }
    }

    fn give_up(&mut self, state: &mut State<'a>, gives_up: impl Fn(&FamilyCase) -> bool) {
        let holder = Arc::clone(&self.holder);
        for case in self.families.iter_mut().filter(|case| gives_up(case)) {
            if let Some((pool, address)) = case.held.take() {
                state.pools.release(pool, address, &holder.id);
            }
        }
    }

    fn close(mut self, state: &mut State<'a>) -> Placed<'a> {
        for case in &mut self.families {
            if let Err(refused) = &case.ask {
                case.refused = Some(refused.clone());
            }
            if let (true, Some(refused), Some((_, address))) = (case.evicted, &mut case.refused, case.held) {
                refused.reason = names::SHARING_CONFLICT;
                refused.details.insert(0, format!("{address}: clashes with an older Service since an edit"));
            }
        }
        // Nobody sees what is committed and not published: without a request that it satisfies it is of no use.
        let service = self.service;
        let useless: Vec<Family> = self
            .families
            .iter()
            .filter(|case| {
                case.refused.is_some()
                    && case.held.is_some_and(|(_, address)| {
                        let hint = self.hint.as_ref();
                        let known = hint.is_some_and(|hint| hint.addresses.contains_key(&address));
                        case.evicted || !(known || publishes(service, address))
                    })
            })
            .map(|case| case.family)
            .collect();
        self.give_up(state, |case| useless.contains(&case.family));
        let lacks = self.families.iter().any(|case| case.held.is_none());
        let published = self
            .families
            .iter()
            .any(|case| case.held.is_some_and(|(_, address)| publishes(service, address)));
        if self.requires_both() && lacks && !published {
            self.give_up(state, |_| true);
        }
        let mut addresses: Vec<_> = self.families.iter().filter_map(|case| case.held).collect();
        if addresses.is_empty() {
            // Better an address of the wrong family than none, until one of the right family can be had.
            addresses.clone_from(&self.leftover);
        } else {
            for (pool, address) in &self.leftover {
                state.pools.release(*pool, *address, &self.holder.id);
            }
        }
        let outcome = self.outcome(state, &addresses);
        let moved = self.families.iter().any(|case| case.leave && case.refused.is_some());
        let mut held = self.families.iter().filter(|case| case.held.is_some()).peekable();
        let fits_request = held.peek().is_some() && held.all(|case| case.refused.is_none());
        Placed {
            service: self.service,
            hint: self.hint,
            addresses,
            reassigned: !moved,
            at_peace: self.at_peace,
            fits_request,
            outcome,
        }
    }

    fn outcome(&self, state: &State<'a>, addresses: &[(PoolId, IpAddr)]) -> ServiceOutcome {
        let list = addresses.iter().map(|(_, address)| address.to_string()).collect::<Vec<_>>().join(", ");
        let lacking: Vec<_> = self.families.iter().filter(|case| case.held.is_none()).collect();
        let explain_case = |case: &FamilyCase| {
            let why = match &case.refused {
                Some(refused) => refused.message(),
                // The other family has the reason.
                None if self.requires_both() => {
                    "the Service requires both families (RequireDualStack)".to_owned()
                }
                None => String::new(),
            };
            if self.families.len() > 1 { format!("no {} address: {why}", case.family) } else { why }
        };
        let refused = self.families.iter().find_map(|case| case.refused.as_ref());
        let because = refused.map_or(names::NO_MATCHING_POOL, |refused| refused.reason);
        let (reason, message) = if addresses.is_empty() {
            let why: Vec<_> = lacking.iter().map(|case| explain_case(case)).collect();
            (because, why.join("; "))
        } else if lacking.is_empty() {
            (names::ASSIGNED, list.clone())
        } else {
            let why: Vec<_> = lacking.iter().map(|case| explain_case(case)).collect();
            (names::PARTIALLY_ASSIGNED, format!("{list}; {}", why.join("; ")))
        };
        // What is preferred is wanted only as far as it can be had.
        let preferred_only = self.service.family_policy != FamilyPolicy::RequireDualStack
            && self.families.iter().any(|case| case.held.is_some());
        let honoured = self.service.request_problems.is_empty()
            && !self.service.node_proxy
            && self.families.iter().all(|case| {
                case.refused.is_none()
                    || (preferred_only && case.held.is_none() && !self.is_explicit(case.family))
            });
        let (request_reason, mut request_message) = if honoured {
            (reason, "it has what it asks for".to_owned())
        } else {
            let mut why: Vec<_> =
                self.families.iter().filter_map(|case| case.refused.as_ref()).map(Refused::message).collect();
            why.dedup();
            let kept = if addresses.is_empty() { String::new() } else { format!("{list} is kept: ") };
            (because, format!("{kept}{}", why.join("; ")))
        };
        if self.service.address_sources_differ {
            request_message.push_str(&format!(
                "; spec.loadBalancerIP differs from the annotation {}, which wins",
                crate::names::annotation::ADDRESSES
            ));
        }
        ServiceOutcome {
            addresses: addresses.iter().map(|(_, address)| *address).collect(),
            pools: addresses.iter().map(|(pool, _)| state.name(*pool).to_owned()).collect(),
            reason,
            message,
            request_honoured: honoured,
            request_reason,
            request_message,
        }
    }

    fn is_explicit(&self, family: Family) -> bool {
        self.service.requested_addresses.iter().any(|address| Family::of(*address) == family)
            || !self.service.requested_pools.is_empty()
    }
}

fn invalid(service: &ServiceView) -> Refused {
    if service.node_proxy {
        let text = format!(
            "{}: NodeProxy is not supported; remove the annotation and use an Eip",
            crate::names::annotation::NODE_PROXY_TYPE
        );
        return Refused { reason: names::NODE_PROXY_UNSUPPORTED, details: vec![text] };
    }
    Refused { reason: names::INVALID_REQUEST, details: vec![explain(&service.request_problems)] }
}
