//! Attribute sets, each kept once and counted.

use std::{hash::BuildHasher, sync::Arc};

use foldhash::fast::FixedState;
use hashbrown::{HashTable, hash_table::Entry};

use crate::speaker::{NextHop, PeerScope, RouteAttributes};

/// An attribute set in an [`AttributeStore`]; reused when the last reference is gone.
pub(crate) type AttributesId = u32;

/// No attribute set: no route.
pub(crate) const NONE: AttributesId = 0;

/// What the routes of one set have in common: all but the prefix and the path identifier.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AttributeSet {
    pub(crate) next_hop: NextHop,
    pub(crate) attributes: Arc<RouteAttributes>,
    pub(crate) scope: PeerScope,
}

#[derive(Debug)]
struct Slot {
    set: Option<AttributeSet>,
    references: u32,
    /// Which of the sets that followed each other in this slot.
    generation: u32,
}

/// The sets in use. A route, and what a peer was told, each hold a reference.
#[derive(Debug)]
pub(crate) struct AttributeStore {
    slots: Vec<Slot>,
    free: Vec<AttributesId>,
    index: HashTable<AttributesId>,
    hasher: FixedState,
    /// The set that was asked for last: whole sets of routes mostly share one.
    last: AttributesId,
}

impl AttributeStore {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            slots: vec![Slot { set: None, references: 1, generation: 0 }],
            free: Vec::new(),
            index: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            last: NONE,
        }
    }

    /// The id of this set, with one reference more.
    pub(crate) fn intern(
        &mut self,
        next_hop: NextHop,
        attributes: &Arc<RouteAttributes>,
        scope: &PeerScope,
    ) -> AttributesId {
        if let Some(Slot { set: Some(last), references, .. }) = self.slots.get_mut(self.last as usize)
            && last.next_hop == next_hop
            && Arc::ptr_eq(&last.attributes, attributes)
            && same_scope(&last.scope, scope)
        {
            *references += 1;
            return self.last;
        }
        let set = AttributeSet { next_hop, attributes: Arc::clone(attributes), scope: scope.clone() };
        let Self { slots, free, index, hasher, .. } = self;
        let hash = hasher.hash_one(&set);
        let set_of = |id: &AttributesId| slots.get(*id as usize).and_then(|slot| slot.set.as_ref());
        let hash_of = |id: &AttributesId| set_of(id).map_or(0, |set| hasher.hash_one(set));
        let id = match index.entry(hash, |id| set_of(id) == Some(&set), hash_of) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let id = free.pop().unwrap_or_else(|| u32::try_from(slots.len()).unwrap_or(u32::MAX));
                entry.insert(id);
                match slots.get_mut(id as usize) {
                    Some(slot) => slot.set = Some(set),
                    None => slots.push(Slot { set: Some(set), references: 0, generation: 0 }),
                }
                id
            }
        };
        self.retain(id);
        self.last = id;
        id
    }

    /// One reference more.
    pub(crate) fn retain(&mut self, id: AttributesId) {
        if let Some(slot) = self.slots.get_mut(id as usize) {
            slot.references += 1;
        }
    }

    /// One reference less; the set goes with the last one.
    pub(crate) fn release(&mut self, id: AttributesId) {
        if id == NONE {
            return;
        }
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        slot.references = slot.references.saturating_sub(1);
        if slot.references > 0 {
            return;
        }
        let Some(set) = slot.set.take() else { return };
        slot.generation = slot.generation.wrapping_add(1);
        let hash = self.hasher.hash_one(&set);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
        self.free.push(id);
        if self.last == id {
            self.last = NONE;
        }
    }

    /// The set of this id.
    pub(crate) fn get(&self, id: AttributesId) -> Option<&AttributeSet> {
        self.slots.get(id as usize)?.set.as_ref()
    }

    /// Which of the sets that had this id it is now.
    pub(crate) fn generation(&self, id: AttributesId) -> u32 {
        self.slots.get(id as usize).map_or(0, |slot| slot.generation)
    }

    /// How many sets there are.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }
}

fn same_scope(a: &PeerScope, b: &PeerScope) -> bool {
    match (a, b) {
        (PeerScope::All, PeerScope::All) => true,
        (PeerScope::Only(a), PeerScope::Only(b)) => Arc::ptr_eq(a, b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_share_an_id_until_the_last_reference() {
        let mut store = AttributeStore::new(0);
        let plain = Arc::new(RouteAttributes::default());
        let equal = Arc::new(RouteAttributes::default());
        let other = Arc::new(RouteAttributes { med: Some(5), ..RouteAttributes::default() });
        let a = store.intern(NextHop::SelfAddress, &plain, &PeerScope::All);
        let b = store.intern(NextHop::SelfAddress, &other, &PeerScope::All);
        assert_eq!(a, store.intern(NextHop::SelfAddress, &equal, &PeerScope::All));
        assert_ne!(a, b);
        assert_eq!(store.len(), 2);
        let generation = store.generation(a);
        store.release(a);
        assert!(store.get(a).is_some());
        store.release(a);
        assert!(store.get(a).is_none());
        assert_eq!(store.len(), 1);
        let c = store.intern(NextHop::Address("192.0.2.1".parse().unwrap()), &plain, &PeerScope::All);
        assert_eq!(c, a, "slots are reused");
        assert_ne!(store.generation(c), generation, "and told apart");
    }
}
