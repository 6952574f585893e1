//! The batch: waiting requests in, one new state and one outcome each out.
//!
//! Requests are served in the order of age. An address whose holder asks for another one counts as free for those who
//! ask for it by name, provided that its holder's wish can be granted too: so holders can swap addresses in one step.
//! Automatic choice never waits for somebody to leave.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::error::Refusal;
use crate::pools::{PoolId, Pools};
use crate::range::Family;
use crate::sharing::{Holder, HolderId};

/// What one holder wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub holder: Arc<Holder>,
    /// One for each address it wants; at most one per family.
    pub wants: Vec<Want>,
    /// While it holds nothing: all of them or none.
    pub all_or_none: bool,
}

/// One address that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Of this family.
    pub family: Family,
    /// Chosen how.
    pub ask: Ask,
    /// What the holder has of this family now. It is kept until something else can be given.
    pub held: Option<(PoolId, IpAddr)>,
    /// Another address than the held one is wanted, if there is any.
    pub leave: bool,
}

/// How an address is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// By the pools, tried in this order. A held address is kept, whatever pool it is of.
    Any(Vec<PoolId>),
    /// By the pools, tried in this order. An address that is held in another pool is given up for one of these.
    From(Vec<PoolId>),
    /// This address, if one of these pools answers for it (`None`: whichever pool does).
    Address(IpAddr, Option<Vec<PoolId>>),
}

/// What came of one want.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// What was held satisfies it.
    Kept {
        /// Of this pool.
        pool: PoolId,
        /// The held address.
        address: IpAddr,
    },
    /// A new address.
    Granted {
        /// Of this pool.
        pool: PoolId,
        /// The new address.
        address: IpAddr,
        /// Others hold it too, in the new state.
        shared: bool,
        /// Given up for it.
        replaces: Option<(PoolId, IpAddr)>,
    },
    /// Nothing new can be given.
    Refused {
        /// Why, for each pool that was tried; `None` where no pool answers for the address.
        refusals: Vec<(Option<PoolId>, Refusal)>,
        /// What is kept instead.
        held: Option<(PoolId, IpAddr)>,
    },
}

impl Outcome {
    /// The address that the holder has after the batch, and its pool.
    #[must_use]
    pub const fn address(&self) -> Option<(PoolId, IpAddr)> {
        match self {
            Self::Kept { pool, address } | Self::Granted { pool, address, .. } => Some((*pool, *address)),
            Self::Refused { held, .. } => *held,
        }
    }
}

/// What a batch decided. The [`Pools`] are already in the new state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// For each request, in the order given, one outcome per want.
    pub outcomes: Vec<Vec<Outcome>>,
    /// Every address whose holders changed, with the new ones, sorted; none: it is free.
    pub changes: BTreeMap<(PoolId, IpAddr), Vec<HolderId>>,
}

/// Serves `requests` and brings `pools` into the new state.
///
/// ```
/// use std::sync::Arc;
/// use openelb_ipam::{Ask, Family, Holder, Outcome, PoolSpec, Pools, Request, Want, decide};
///
/// let mut pools = Pools::new([PoolSpec::new("edge", "192.0.2.1-192.0.2.2")?]);
/// let edge = pools.find("edge").unwrap();
/// let ask = |name, created| Request {
///     holder: Arc::new(Holder::new("default", name, created)),
///     wants: vec![Want { family: Family::V4, ask: Ask::Any(vec![edge]), held: None, leave: false }],
///     all_or_none: false,
/// };
/// let decision = decide(&mut pools, &[ask("young", 2), ask("old", 1), ask("last", 3)]);
/// let address = |i: usize| decision.outcomes[i][0].address().map(|(_, a)| a.to_string());
/// assert_eq!(address(1).as_deref(), Some("192.0.2.1"));
/// assert_eq!(address(0).as_deref(), Some("192.0.2.2"));
/// assert!(matches!(decision.outcomes[2][0], Outcome::Refused { .. }));
/// # Ok::<(), openelb_ipam::RangeError>(())
/// ```
pub fn decide(pools: &mut Pools, requests: &[Request]) -> Decision {
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|i| requests.get(*i).map(|request| request.holder.seniority()));

    let mut batch = Batch {
        pools,
        journal: Vec::new(),
        leaving: Leaving::default(),
        departing: Leaving::default(),
        dependants: HashMap::default(),
    };
    for request in requests {
        for want in &request.wants {
            if let Some((_, address)) = want.held
                && want.is_move()
            {
                batch.departing.entry(address).or_default().insert(request.holder.id.clone());
                if !want.leave {
                    batch.leaving.entry(address).or_default().insert(request.holder.id.clone());
                }
            }
        }
    }
    loop {
        let mut outcomes = vec![Vec::new(); requests.len()];
        for i in &order {
            if let (Some(request), Some(slot)) = (requests.get(*i), outcomes.get_mut(*i)) {
                *slot = batch.serve(request);
            }
        }
        if batch.stay(requests, &outcomes) {
            batch.undo();
            continue;
        }
        for (request, outcomes) in requests.iter().zip(&outcomes) {
            for outcome in outcomes {
                if let Outcome::Granted { replaces: Some((pool, address)), .. } = outcome {
                    batch.release(*pool, *address, &request.holder.id);
                }
            }
        }
        for outcome in outcomes.iter_mut().flatten() {
            if let Outcome::Granted { pool, address, shared, .. } = outcome {
                *shared = batch.pools.get(*pool).is_some_and(|pool| pool.holders(*address).len() > 1);
            }
        }
        return Decision { changes: batch.changes(), outcomes };
    }
}

impl Want {
    /// Whether the held address, if any, is not what is asked for.
    fn is_move(&self) -> bool {
        match (&self.ask, self.held) {
            (_, None) => false,
            (_, Some(_)) if self.leave => true,
            (Ask::Any(_), _) => false,
            (Ask::From(pools), Some((pool, _))) => !pools.contains(&pool),
            (Ask::Address(wanted, pools), Some((pool, held))) => {
                *wanted != held || pools.as_ref().is_some_and(|pools| !pools.contains(&pool))
            }
        }
    }
}

type Leaving = HashMap<IpAddr, BTreeSet<HolderId>, RandomState>;

/// One step, as it was made.
enum Step {
    Assigned(PoolId, IpAddr, HolderId),
    Released(PoolId, IpAddr, Arc<Holder>),
}

/// The work in progress.
struct Batch<'a> {
    pools: &'a mut Pools,
    journal: Vec<Step>,
    /// Holders that ask for another address and are taken to get it.
    leaving: Leaving,
    /// Those, and holders that want any other address: with them goes their share of a quota.
    departing: Leaving,
    /// Who was granted an address only because its holder is leaving.
    dependants: HashMap<IpAddr, Vec<HolderId>, RandomState>,
}

type Tried = Result<(PoolId, IpAddr), Vec<(Option<PoolId>, Refusal)>>;

impl Batch<'_> {
    fn assign(&mut self, pool: PoolId, address: IpAddr, holder: &Arc<Holder>) {
        self.pools.assign(pool, address, Arc::clone(holder));
        self.journal.push(Step::Assigned(pool, address, holder.id.clone()));
    }

    fn release(&mut self, pool: PoolId, address: IpAddr, holder: &HolderId) {
        if let Some(holder) = self.pools.release(pool, address, holder) {
            self.journal.push(Step::Released(pool, address, holder));
        }
    }

    fn undo(&mut self) {
        while let Some(step) = self.journal.pop() {
            match step {
                Step::Assigned(pool, address, holder) => drop(self.pools.release(pool, address, &holder)),
                Step::Released(pool, address, holder) => self.pools.assign(pool, address, holder),
            }
        }
        self.dependants.clear();
    }

    fn serve(&mut self, request: &Request) -> Vec<Outcome> {
        let holder = &request.holder;
        let new = request.wants.iter().all(|want| want.held.is_none());
        let mut outcomes: Vec<Outcome> =
            request.wants.iter().map(|want| self.serve_want(holder, want)).collect();
        let incomplete = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Refused { .. }));
        if request.all_or_none && new && incomplete {
            for outcome in &mut outcomes {
                if let Outcome::Granted { pool, address, .. } = *outcome {
                    self.release(pool, address, &holder.id);
                    if let Some(dependants) = self.dependants.get_mut(&address) {
                        dependants.retain(|id| *id != holder.id);
                    }
                    let refusals = vec![(Some(pool), Refusal::Incomplete(address))];
                    *outcome = Outcome::Refused { refusals, held: None };
                }
            }
        }
        outcomes
    }

    fn serve_want(&mut self, holder: &Arc<Holder>, want: &Want) -> Outcome {
        if let Some((pool, address)) = want.held
            && !want.is_move()
        {
            return Outcome::Kept { pool, address };
        }
        // What is held does not stand in the way of what replaces it (a quota), and comes back at once: it is given
        // up only when the whole batch holds.
        let kept = want.held.and_then(|(pool, address)| {
            let kept = self.pools.release(pool, address, &holder.id)?;
            Some((pool, address, kept))
        });
        let avoid = want.held.filter(|_| want.leave).map(|(_, address)| address);
        let tried = match &want.ask {
            Ask::Any(pools) | Ask::From(pools) => self.choose(holder, want.family, pools, avoid),
            Ask::Address(address, pools) => self.take(holder, *address, pools.as_deref(), avoid),
        };
        if let Some((pool, address, kept)) = kept {
            self.pools.assign(pool, address, kept);
        }
        match tried {
            Ok((pool, address)) => {
                self.assign(pool, address, holder);
                Outcome::Granted {
                    pool,
                    address,
                    shared: false,
                    replaces: want.held.filter(|held| *held != (pool, address)),
                }
            }
            Err(refusals) => Outcome::Refused { refusals, held: want.held },
        }
    }

    fn choose(&mut self, holder: &Holder, family: Family, pools: &[PoolId], avoid: Option<IpAddr>) -> Tried {
        if holder.terms.key.is_some() {
            for id in pools {
                let joined = self.pools.get(*id).and_then(|pool| pool.join_by_key(family, holder, avoid));
                if let Some(address) =
                    joined.filter(|address| self.within_quota(*id, *address, holder).is_ok())
                {
                    return Ok((*id, address));
                }
            }
        }
        let mut refusals = Vec::new();
        for id in pools {
            let Some(pool) = self.pools.get_mut(*id) else { continue };
            match pool.choose(family, holder, avoid) {
                Ok(address) => return Ok((*id, address)),
                Err(refusal) => refusals.push((Some(*id), refusal)),
            }
        }
        Err(refusals)
    }

    /// An address that only leaving members of the group hold counts as new to the group: they take their share of
    /// the quota with them.
    fn within_quota(&self, id: PoolId, address: IpAddr, holder: &Holder) -> Result<(), Refusal> {
        let Some(pool) = self.pools.get(id) else { return Ok(()) };
        let Some(limit) = pool.spec().max_per_group else { return Ok(()) };
        let group = &holder.id.group;
        let leaving = self.departing.get(&address);
        let mut members = pool.holders(address).iter().filter(|other| other.id.group == *group).peekable();
        let only_leaving = members.peek().is_some()
            && members.all(|member| leaving.is_some_and(|leaving| leaving.contains(&member.id)));
        if only_leaving && pool.held_by_group(group) > limit {
            return Err(Refusal::QuotaExceeded { group: group.to_string(), limit });
        }
        Ok(())
    }

    fn take(
        &mut self,
        holder: &Holder,
        address: IpAddr,
        allowed: Option<&[PoolId]>,
        avoid: Option<IpAddr>,
    ) -> Tried {
        if avoid == Some(address) {
            return Err(Vec::new());
        }
        let outside = |id: &PoolId| (Some(*id), Refusal::OutsidePool(address));
        let Some(id) = self.pools.locate(address) else {
            let covering: Vec<_> = self
                .pools
                .iter()
                .filter(|(id, pool)| {
                    pool.covers(address) && allowed.is_none_or(|allowed| allowed.contains(id))
                })
                .map(|(id, _)| (Some(id), Refusal::Excluded(address)))
                .collect();
            return Err(match (covering.is_empty(), allowed) {
                (false, _) => covering,
                (true, Some(allowed)) => allowed.iter().map(outside).collect(),
                (true, None) => vec![(None, Refusal::OutsidePool(address))],
            });
        };
        if let Some(allowed) = allowed
            && !allowed.contains(&id)
        {
            return Err(allowed.iter().map(outside).collect());
        }
        let Some(pool) = self.pools.get(id) else { return Err(Vec::new()) };
        self.within_quota(id, address, holder).map_err(|refusal| vec![(Some(id), refusal)])?;
        if pool.admit(address, holder, |_| false).is_ok() {
            return Ok((id, address));
        }
        let leaving = self.leaving.get(&address);
        let gone = |other: &HolderId| leaving.is_some_and(|leaving| leaving.contains(other));
        pool.admit(address, holder, gone).map_err(|refusal| vec![(Some(id), refusal)])?;
        self.dependants.entry(address).or_default().push(holder.id.clone());
        Ok((id, address))
    }

    /// Takes holders that cannot leave off the list of those who do, together with all who counted on them, so that
    /// a long chain costs one more round and not one for each link. Whether anybody counted on one.
    fn stay(&mut self, requests: &[Request], outcomes: &[Vec<Outcome>]) -> bool {
        let mut staying: Vec<(IpAddr, &HolderId)> = Vec::new();
        let mut held: HashMap<&HolderId, Vec<IpAddr>, RandomState> = HashMap::default();
        for (request, outcomes) in requests.iter().zip(outcomes) {
            for (want, outcome) in request.wants.iter().zip(outcomes) {
                let Some((_, address)) = want.held else { continue };
                held.entry(&request.holder.id).or_default().push(address);
                if matches!(outcome, Outcome::Refused { .. }) {
                    staying.push((address, &request.holder.id));
                }
            }
        }
        let mut counted_on = false;
        while let Some((address, holder)) = staying.pop() {
            if !self.leaving.get_mut(&address).is_some_and(|leaving| leaving.remove(holder)) {
                continue;
            }
            let dependants = self.dependants.get(&address).map_or(&[][..], Vec::as_slice);
            counted_on |= !dependants.is_empty();
            for dependant in dependants {
                let Some((id, addresses)) = held.get_key_value(dependant) else { continue };
                staying.extend(addresses.iter().map(|address| (*address, *id)));
            }
        }
        counted_on
    }

    fn changes(&self) -> BTreeMap<(PoolId, IpAddr), Vec<HolderId>> {
        self.journal
            .iter()
            .map(|step| match step {
                Step::Assigned(pool, address, _) | Step::Released(pool, address, _) => (*pool, *address),
            })
            .map(|(id, address)| {
                let holders = self.pools.get(id).map_or(&[][..], |pool| pool.holders(address));
                let mut holders: Vec<HolderId> = holders.iter().map(|holder| holder.id.clone()).collect();
                holders.sort();
                ((id, address), holders)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
