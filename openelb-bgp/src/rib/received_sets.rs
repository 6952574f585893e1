//! The attribute sets of routes that are kept: each once for every neighbour that has sent it, counted, and with what it
//! costs.
//!
//! Two neighbours share no set. Next hop and AS_PATH tell those of external neighbours apart anyway, and so it is clear
//! who causes the cost of a set.

use std::{collections::HashMap, hash::BuildHasher, net::Ipv4Addr, sync::Arc};

use foldhash::fast::FixedState;
use hashbrown::{HashTable, hash_table::Entry};

use crate::{
    speaker::{PathAttributes, PeerId},
    wire::{AsPathSegment, Attributes, NextHop, UnknownAttribute},
};

/// A set in [`ReceivedSets`]; reused when its last route is gone.
pub(crate) type SetId = u32;

/// Octets of an allocation beside what was asked for.
const ALLOCATION: usize = 16;
/// Octets of a set's places in the tables here, with the room that they hold free.
const PLACES: usize = 96;

#[derive(Debug)]
struct Slot {
    set: Arc<PathAttributes>,
    peer: PeerId,
    hash: u64,
    references: u32,
    octets: u32,
}

/// The sets in use. Each route holds a reference.
#[derive(Debug)]
pub(crate) struct ReceivedSets {
    slots: Vec<Slot>,
    free: Vec<SetId>,
    index: HashTable<SetId>,
    /// Octets by neighbour; none is 0.
    charged: HashMap<PeerId, u64, FixedState>,
    /// What stands in slots that are free.
    none: Arc<PathAttributes>,
    hasher: FixedState,
}

/// Octets of memory that a set takes, lists and unknown attributes included.
fn octets(set: &PathAttributes) -> usize {
    let Attributes {
        as_path,
        communities,
        cluster_list,
        extended_communities,
        large_communities,
        unknown,
        ..
    } = &set.attributes;
    fn list<T>(list: &Vec<T>) -> usize {
        if list.capacity() == 0 { 0 } else { ALLOCATION + list.capacity() * size_of::<T>() }
    }
    let segments = as_path.as_ref().map_or(0, |path| {
        let numbers: usize = path.segments.iter().map(|AsPathSegment { asns, .. }| list(asns)).sum();
        list(&path.segments) + numbers
    });
    // A value stands in an allocation of its own, which counts its references.
    let values: usize =
        unknown.iter().map(|UnknownAttribute { value, .. }| 2 * ALLOCATION + value.len()).sum();
    PLACES
        + ALLOCATION
        + size_of::<PathAttributes>()
        + segments
        + list(communities)
        + list(cluster_list)
        + list(extended_communities)
        + list(large_communities)
        + list(unknown)
        + values
}

impl ReceivedSets {
    pub(crate) fn new(seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        let next_hop = NextHop::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            charged: HashMap::with_hasher(hasher.clone()),
            none: Arc::new(PathAttributes { attributes: Attributes::default(), next_hop }),
            hasher,
        }
    }

    /// The one set of this neighbour that is equal to this, with one reference more.
    pub(crate) fn intern(&mut self, peer: PeerId, set: PathAttributes) -> SetId {
        let hash = self.hasher.hash_one((peer, &set));
        let Self { slots, free, index, charged, .. } = self;
        let slot = |id: &SetId| slots.get(*id as usize);
        let equal = |id: &SetId| slot(id).is_some_and(|slot| slot.peer == peer && *slot.set == set);
        let id = match index.entry(hash, equal, |id| slot(id).map_or(0, |slot| slot.hash)) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let id = free.pop().unwrap_or_else(|| u32::try_from(slots.len()).unwrap_or(u32::MAX));
                entry.insert(id);
                let octets = u32::try_from(octets(&set)).unwrap_or(u32::MAX);
                *charged.entry(peer).or_default() += u64::from(octets);
                let new = Slot { set: Arc::new(set), peer, hash, references: 0, octets };
                match slots.get_mut(id as usize) {
                    Some(slot) => *slot = new,
                    None => slots.push(new),
                }
                id
            }
        };
        self.retain(id);
        id
    }

    /// One reference more.
    pub(crate) fn retain(&mut self, id: SetId) {
        if let Some(slot) = self.slots.get_mut(id as usize) {
            slot.references += 1;
        }
    }

    /// One reference less: the set goes with the last one, and nobody is charged for it any more.
    pub(crate) fn release(&mut self, id: SetId) {
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        slot.references = slot.references.saturating_sub(1);
        if slot.references > 0 {
            return;
        }
        slot.set = Arc::clone(&self.none);
        let (peer, hash, octets) = (slot.peer, slot.hash, std::mem::take(&mut slot.octets));
        // It is not in the index if it is free already.
        let Ok(entry) = self.index.find_entry(hash, |known| *known == id) else { return };
        entry.remove();
        self.free.push(id);
        if let Some(all) = self.charged.get_mut(&peer) {
            *all = all.saturating_sub(octets.into());
            if *all == 0 {
                self.charged.remove(&peer);
            }
        }
    }

    /// The set of this id.
    pub(crate) fn get(&self, id: SetId) -> &Arc<PathAttributes> {
        self.slots.get(id as usize).map_or(&self.none, |slot| &slot.set)
    }

    /// Octets that the sets of a neighbour take.
    pub(crate) fn octets(&self, peer: PeerId) -> u64 {
        self.charged.get(&peer).copied().unwrap_or(0)
    }

    /// How many sets there are.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wire::{AsPath, AttributeFlags, Community};

    fn set(attributes: Attributes) -> PathAttributes {
        PathAttributes { attributes, next_hop: NextHop::V4("192.0.2.1".parse().unwrap()) }
    }

    #[test]
    fn each_neighbour_is_charged_for_its_sets_once_until_the_last_route() {
        let mut sets = ReceivedSets::new(0);
        let (a, b) = (PeerId(1), PeerId(2));
        let plain = || set(Attributes { med: Some(7), ..Attributes::default() });
        let first = sets.intern(a, plain());
        let once = sets.octets(a);
        assert!(once > 0 && sets.octets(b) == 0);
        assert_eq!((sets.intern(a, plain()), sets.octets(a), sets.len()), (first, once, 1));
        let other = sets.intern(b, plain());
        assert_ne!(other, first, "each has its own");
        assert_eq!((sets.octets(b), sets.len()), (once, 2));
        // Who shows it to somebody goes on paying no longer than it has a route.
        let shown = Arc::clone(sets.get(first));
        sets.release(first);
        assert_eq!(sets.octets(a), once);
        sets.release(first);
        assert_eq!((sets.octets(a), sets.octets(b), sets.len()), (0, once, 1));
        sets.release(first);
        assert_eq!((sets.octets(a), sets.len()), (0, 1), "one reference too many changes nothing");
        assert_eq!(*shown, plain());
        let again = sets.intern(b, set(Attributes::default()));
        assert_eq!(again, first, "slots are reused");
        assert_eq!(**sets.get(other), plain());
    }

    #[test]
    fn what_is_charged_is_what_a_set_takes_in_memory_and_not_on_the_wire() {
        let empty = octets(&set(Attributes::default()));
        // Segments of one number: six octets on the wire, many more here.
        let segments = vec![AsPath::sequence([65_001]).segments.remove(0); 1000];
        let path = Attributes { as_path: Some(AsPath { segments }), ..Attributes::default() };
        let per_segment = (octets(&set(path)) - empty) / 1000;
        assert!((40..100).contains(&per_segment), "{per_segment}");
        let communities = vec![Community(1); 10_000];
        let many = octets(&set(Attributes { communities, ..Attributes::default() })) - empty;
        assert!((40_000..41_000).contains(&many), "{many}");
        let value = Bytes::from(vec![0; 60_000]);
        let unknown = vec![UnknownAttribute { flags: AttributeFlags::OPTIONAL, code: 200, value }];
        let big = octets(&set(Attributes { unknown, ..Attributes::default() })) - empty;
        assert!((60_000..60_200).contains(&big), "{big}");
    }
}
