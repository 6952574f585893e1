//! What one neighbour has been told of one family (Adj-RIB-Out), and what it is still to be told.
//!
//! Per route this is four octets and a bit. The unit is a destination on sessions without add-path, a path on those
//! with it. A unit whose wanted state differs from what was sent is *dirty* and stands in a queue: changes that come
//! one by one in `fresh`, all others in the group of their attribute set, so that they pack into few messages. Queues
//! hold at least one entry for every dirty unit; entries that are out of date are skipped when they come up, so a
//! route that changes while the neighbour is slow is sent once, as it is then.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use foldhash::fast::FixedState;

use super::{
    attributes::{AttributeStore, AttributesId, NONE},
    egress::{Egress, Ineligible},
    packer::Packer,
    table::{DestinationId, PathIndex, Table},
};
use crate::{speaker::Advertisement, wire::Nlri};

/// A destination or a path, depending on the session.
type Unit = u32;

/// The neighbour has something for this unit that is to be sent anew in any case.
const STALE: AttributesId = u32::MAX;
/// How many fresh changes are looked at together.
const FRESH_BATCH: usize = 512;
/// Destinations that are looked at before the first of all routes go out.
const FIRST_SWEEP: u32 = 8 * 1024;
/// Destinations that are looked at together after that: enough that equal attributes meet, and below a millisecond or two.
const SWEEP: u32 = 128 * 1024;
/// Out-of-date queue entries that are tolerated before the queues are made anew.
const SLACK: usize = 4096;

/// Whether a change may wait behind others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// One of few: it goes out at once, also while a bulk is sent.
    Fresh,
    /// One of many.
    Bulk,
}

/// Whether two sets say the same to a neighbour that gets both: whom else they are for is not told.
fn same_on_the_wire(a: AttributesId, b: AttributesId, store: &AttributeStore) -> bool {
    let equal = || {
        let (a, b) = (store.get(a)?, store.get(b)?);
        let attributes = Arc::ptr_eq(&a.attributes, &b.attributes) || a.attributes == b.attributes;
        Some(a.next_hop == b.next_hop && attributes)
    };
    a == b || equal().unwrap_or(false)
}

/// What the neighbour has been told, and on which terms.
#[derive(Debug)]
struct State {
    add_path: bool,
    max_paths: usize,
    egress: Egress,
    /// By attribute set: its generation, and whether it can be sent.
    eligible: Vec<(u32, Option<bool>)>,
    advertised: Vec<AttributesId>,
    dirty: Vec<u64>,
    pending: usize,
    count: usize,
}

impl State {
    fn eligible(&mut self, id: AttributesId, store: &AttributeStore) -> bool {
        if id == NONE {
            return false;
        }
        let index = id as usize;
        if self.eligible.len() <= index {
            self.eligible.resize(index + 1, (0, None));
        }
        let generation = store.generation(id);
        let Some(slot) = self.eligible.get_mut(index) else { return false };
        if let (known, Some(eligible)) = *slot
            && known == generation
        {
            return eligible;
        }
        let eligible = store.get(id).is_some_and(|set| self.egress.check(set).is_ok());
        *slot = (generation, Some(eligible));
        eligible
    }

    fn sent(&self, unit: Unit) -> AttributesId {
        self.advertised.get(unit as usize).copied().unwrap_or(NONE)
    }

    fn is_dirty(&self, unit: Unit) -> bool {
        self.dirty.get(unit as usize / 64).is_some_and(|word| word & (1 << (unit % 64)) != 0)
    }

    fn set_dirty(&mut self, unit: Unit, dirty: bool) {
        if self.is_dirty(unit) == dirty {
            return;
        }
        let word = unit as usize / 64;
        if self.dirty.len() <= word {
            self.dirty.resize(word + 1, 0);
        }
        if let Some(bits) = self.dirty.get_mut(word) {
            *bits ^= 1 << (unit % 64);
        }
        if dirty {
            self.pending += 1;
        } else {
            self.pending -= 1;
        }
    }

    /// What the neighbour is to have for a unit.
    fn want(&mut self, unit: Unit, table: &Table, store: &AttributeStore) -> AttributesId {
        if !self.add_path {
            let best = table.chain(unit).find(|(_, path)| self.eligible(path.attributes, store));
            return best.map_or(NONE, |(_, path)| path.attributes);
        }
        let Some(path) = table.path(unit) else { return NONE };
        let mut before = 0;
        for (index, other) in table.chain(path.destination) {
            if self.eligible(other.attributes, store) {
                if index == unit {
                    return other.attributes;
                }
                before += 1;
                if before == self.max_paths {
                    break;
                }
            } else if index == unit {
                break;
            }
        }
        NONE
    }

    fn nlri(&self, unit: Unit, table: &Table) -> Option<Nlri> {
        if self.add_path {
            let path = table.path(unit)?;
            Some(Nlri { path_id: path.path_id, prefix: table.destination(path.destination)?.prefix })
        } else {
            Some(Nlri { path_id: 0, prefix: table.destination(unit)?.prefix })
        }
    }

    /// Notes that the neighbour was told `new` (or that it was not told anything, when the session is gone).
    fn record(&mut self, unit: Unit, new: AttributesId, table: &mut Table, store: &mut AttributeStore) {
        let index = unit as usize;
        if self.advertised.len() <= index {
            if self.advertised.capacity() <= index {
                let more = index + 1 - self.advertised.len();
                self.advertised.reserve_exact(more.max(self.advertised.len() / 4));
            }
            self.advertised.resize(index + 1, NONE);
        }
        let Some(slot) = self.advertised.get_mut(index) else { return };
        let old = std::mem::replace(slot, new);
        if new != STALE {
            store.retain(new);
        }
        if old != STALE {
            store.release(old);
        }
        match (old == NONE, new == NONE) {
            (true, false) => {
                self.count += 1;
                if self.add_path { table.hold_path(unit) } else { table.hold_destination(unit) }
            }
            (false, true) => {
                self.count -= 1;
                if self.add_path { table.unhold_path(unit) } else { table.unhold_destination(unit) }
            }
            _ => {}
        }
    }

    /// If the unit still waits to be told `id`: notes that it is, and gives what to write.
    fn take(
        &mut self,
        unit: Unit,
        id: AttributesId,
        table: &mut Table,
        store: &mut AttributeStore,
    ) -> Option<Nlri> {
        if !self.is_dirty(unit) || self.want(unit, table, store) != id {
            return None;
        }
        let nlri = self.nlri(unit, table);
        self.set_dirty(unit, false);
        self.record(unit, id, table, store);
        nlri
    }
}

/// What is still to be told, in order.
#[derive(Debug, Default)]
struct Queues {
    fresh: VecDeque<Unit>,
    groups: HashMap<AttributesId, VecDeque<Unit>, FixedState>,
    /// Groups that are not empty, the next to be sent first; withdrawals stand in front.
    order: VecDeque<AttributesId>,
    entries: usize,
}

impl Queues {
    fn push(&mut self, unit: Unit, want: AttributesId, urgency: Urgency) {
        self.entries += 1;
        if urgency == Urgency::Fresh {
            self.fresh.push_back(unit);
            return;
        }
        let group = self.groups.entry(want).or_default();
        if group.is_empty() {
            if want == NONE { self.order.push_front(want) } else { self.order.push_back(want) }
        }
        group.push_back(unit);
    }
}

/// One neighbour's Adj-RIB-Out of one family.
#[derive(Debug)]
pub(crate) struct AdjOut {
    state: State,
    queues: Queues,
    /// While all routes are looked at: which destination is next.
    sweep: Option<DestinationId>,
}

impl AdjOut {
    /// For a new session. `max_paths`: with add-path, how many paths per prefix are sent.
    pub(crate) fn new(egress: Egress, max_paths: Option<u8>) -> Self {
        Self {
            state: State {
                add_path: max_paths.is_some(),
                max_paths: usize::from(max_paths.unwrap_or(1)).max(1),
                egress,
                eligible: Vec::new(),
                advertised: Vec::new(),
                dirty: Vec::new(),
                pending: 0,
                count: 0,
            },
            queues: Queues::default(),
            sweep: None,
        }
    }

    /// How many routes the neighbour has.
    pub(crate) fn advertised(&self) -> usize {
        self.state.count
    }

    /// What the neighbour has, with the attribute set that it was told, of so many places of the table from one on; what
    /// is to be sent anew in any case is left out until it is.
    pub(crate) fn told<'a>(
        &'a self,
        table: &'a Table,
        from: usize,
        places: usize,
    ) -> impl Iterator<Item = (Nlri, AttributesId)> + 'a {
        let rest = self.state.advertised.get(from..).unwrap_or_default();
        let units = u32::try_from(from).unwrap_or(u32::MAX)..;
        let sent = rest.iter().copied().zip(units).take(places);
        sent.filter(|(id, _)| ![NONE, STALE].contains(id))
            .filter_map(|(id, unit)| Some((self.state.nlri(unit, table)?, id)))
    }

    /// How many places the table has.
    pub(crate) fn places(&self) -> usize {
        self.state.advertised.len()
    }

    /// How many changes are known to wait.
    pub(crate) fn pending(&self) -> usize {
        self.state.pending
    }

    /// How many paths per prefix are sent.
    pub(crate) fn max_paths(&self) -> usize {
        self.state.max_paths
    }

    /// Octets reserved.
    pub(crate) fn reserved_bytes(&self) -> usize {
        let groups: usize = self.queues.groups.values().map(VecDeque::capacity).sum();
        (self.state.advertised.capacity() + self.queues.fresh.capacity() + groups) * size_of::<Unit>()
            + self.state.dirty.capacity() * size_of::<u64>()
    }

    /// What is wanted of a destination may have changed.
    pub(crate) fn reconcile(
        &mut self,
        destination: DestinationId,
        urgency: Urgency,
        table: &Table,
        store: &AttributeStore,
    ) {
        if !self.state.add_path {
            let want = self.state.want(destination, table, store);
            self.set_want(destination, want, urgency, store);
        } else {
            let mut sent = 0;
            for (unit, path) in table.chain(destination) {
                let want = if sent < self.state.max_paths && self.state.eligible(path.attributes, store) {
                    sent += 1;
                    path.attributes
                } else {
                    NONE
                };
                self.set_want(unit, want, urgency, store);
            }
        }
        if self.queues.entries > 2 * self.state.pending + SLACK {
            self.rebuild(table, store);
        }
    }

    fn set_want(&mut self, unit: Unit, want: AttributesId, urgency: Urgency, store: &AttributeStore) {
        let differs = !same_on_the_wire(self.state.sent(unit), want, store);
        self.state.set_dirty(unit, differs);
        if differs {
            self.queues.push(unit, want, urgency);
        }
    }

    /// Leaves the entries that are out of date behind.
    fn rebuild(&mut self, table: &Table, store: &AttributeStore) {
        self.queues = Queues::default();
        for (word, bits) in (0u32..).zip(self.state.dirty.clone()) {
            let mut bits = bits;
            while bits != 0 {
                let unit = word * 64 + bits.trailing_zeros();
                bits &= bits - 1;
                let want = self.state.want(unit, table, store);
                self.queues.push(unit, want, Urgency::Bulk);
            }
        }
    }

    /// Everything is to be sent (anew): the session is new, the neighbour asked for it, or the terms changed.
    pub(crate) fn refresh(&mut self, table: &mut Table, store: &mut AttributeStore) {
        let units = u32::try_from(self.state.advertised.len()).unwrap_or(u32::MAX);
        for unit in 0..units {
            if ![NONE, STALE].contains(&self.state.sent(unit)) {
                self.state.record(unit, STALE, table, store);
            }
        }
        self.sweep = Some(0);
    }

    /// Looks at some more of all destinations.
    fn advance_sweep(&mut self, table: &Table, store: &AttributeStore) {
        let Some(from) = self.sweep else { return };
        let to = from + if from == 0 { FIRST_SWEEP } else { SWEEP };
        let end = table.destination_slots();
        self.sweep = (to < end).then_some(to);
        for destination in from..to.min(end) {
            self.reconcile(destination, Urgency::Bulk, table, store);
        }
    }

    /// New terms for an established session, such as another next hop.
    pub(crate) fn set_egress(&mut self, egress: Egress, table: &mut Table, store: &mut AttributeStore) {
        if self.state.egress != egress {
            self.state.egress = egress;
            self.state.eligible.clear();
            self.refresh(table, store);
        }
    }

    /// The terms of the session.
    pub(crate) fn egress(&self) -> &Egress {
        &self.state.egress
    }

    /// The session is gone, and what the neighbour was told with it.
    pub(crate) fn release(mut self, table: &mut Table, store: &mut AttributeStore) {
        for unit in 0..u32::try_from(self.state.advertised.len()).unwrap_or(u32::MAX) {
            if self.state.sent(unit) != NONE {
                self.state.record(unit, NONE, table, store);
            }
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.state.pending == 0 && self.sweep.is_none()
    }

    /// Writes changes into `packer` until it is full or none are left.
    pub(crate) fn pull(&mut self, packer: &mut Packer<'_>, table: &mut Table, store: &mut AttributeStore) {
        self.pull_fresh(packer, table, store);
        while !packer.is_full() {
            let Some(&id) = self.queues.order.front() else {
                if self.sweep.is_none() {
                    break;
                }
                self.advance_sweep(table, store);
                continue;
            };
            let Self { state, queues, .. } = self;
            if let Some(group) = queues.groups.get_mut(&id) {
                packer.begin(store.get(id), &state.egress);
                let mut next = || {
                    while let Some(unit) = group.pop_front() {
                        queues.entries -= 1;
                        if let Some(nlri) = state.take(unit, id, table, store) {
                            return Some(nlri);
                        }
                    }
                    None
                };
                while !packer.is_full() && packer.write(std::iter::from_fn(&mut next)) {}
                if !group.is_empty() {
                    // The others get their turn; it goes on after them.
                    queues.order.rotate_left(1);
                    break;
                }
            }
            queues.groups.remove(&id);
            queues.order.pop_front();
        }
        if self.state.pending == 0 && self.queues.entries > 0 {
            self.queues = Queues::default();
        }
    }

    fn pull_fresh(&mut self, packer: &mut Packer<'_>, table: &mut Table, store: &mut AttributeStore) {
        let Self { state, queues, .. } = self;
        let batch = queues.fresh.len().min(FRESH_BATCH);
        if batch == 0 {
            return;
        }
        queues.entries -= batch;
        let mut units: Vec<(AttributesId, Unit)> = Vec::with_capacity(batch);
        for unit in queues.fresh.drain(..batch) {
            if state.is_dirty(unit) {
                units.push((state.want(unit, table, store), unit));
            }
        }
        units.sort_by_key(|(id, _)| *id); // withdrawals first, else in order of arrival
        for group in units.chunk_by(|a, b| a.0 == b.0) {
            let Some((id, _)) = group.first().copied() else { continue };
            packer.begin(store.get(id), &state.egress);
            let mut left = group.iter();
            let mut next = || left.find_map(|(_, unit)| state.take(*unit, id, table, store));
            while packer.write(std::iter::from_fn(&mut next)) {}
        }
    }

    /// Where a path of a destination stands.
    pub(crate) fn path_status(
        &self,
        destination: DestinationId,
        index: PathIndex,
        table: &Table,
        store: &AttributeStore,
    ) -> Advertisement {
        let Some(path) = table.path(index) else { return Advertisement::NotBest };
        let eligible = |id| store.get(id).map(|set| self.state.egress.check(set));
        let is_eligible = |id| matches!(eligible(id), Some(Ok(())));
        let sent = self.state.sent(if self.state.add_path { index } else { destination });
        let why = match eligible(path.attributes) {
            None => Advertisement::NotBest,
            Some(Err(Ineligible::OutOfScope)) => Advertisement::OutOfScope,
            Some(Err(Ineligible::NoNextHop)) => Advertisement::NoNextHop,
            Some(Err(Ineligible::TooLarge)) => Advertisement::AttributesTooLarge,
            Some(Ok(())) => {
                let before = table.chain(destination).take_while(|(other, _)| *other != index);
                let better = before.filter(|(_, other)| is_eligible(other.attributes)).count();
                match better >= self.state.max_paths {
                    true => Advertisement::NotBest,
                    false if same_on_the_wire(sent, path.attributes, store) => {
                        return Advertisement::Advertised;
                    }
                    false => return Advertisement::Pending,
                }
            }
        };
        // Not wanted here, for that reason; but does the neighbour still have it?
        let replaced =
            !self.state.add_path && table.chain(destination).any(|(_, other)| is_eligible(other.attributes));
        if sent == NONE || replaced { why } else { Advertisement::Withdrawing }
    }

    /// Whether a destination of which nothing is wanted any more has still to be withdrawn.
    pub(crate) fn is_withdrawing(&self, destination: DestinationId) -> bool {
        !self.state.add_path && self.state.sent(destination) != NONE
    }
}
