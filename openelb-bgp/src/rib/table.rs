//! The routes of one family that are wanted, from all sources.
//!
//! A prefix is a *destination* with a chain of *paths*, the best first. Both live in slabs and are named by 32-bit
//! indices, so that a peer's advertised state is an array beside the slab. A destination or path stays as long as it
//! is wanted, or some peer has been told of it (`held`).

use std::{collections::HashMap, hash::BuildHasher};

use foldhash::fast::FixedState;
use hashbrown::{HashTable, hash_table::Entry};

use super::{
    attributes::{AttributeStore, AttributesId, NONE},
    best_path::{self, Candidate},
};
use crate::wire::{Nlri, Prefix};

/// An index into the destinations of a table.
pub(crate) type DestinationId = u32;
/// An index into the paths of a table.
pub(crate) type PathIndex = u32;
/// A source of routes.
pub(crate) type SourceId = u16;
/// The source of guests: its routes come after those of all others.
pub(crate) const GUESTS: SourceId = SourceId::MAX;

const END: u32 = u32::MAX;
/// The index is split so that growing moves a small part of it at a time: one change must stay far below 1 ms.
const SHARDS: usize = 32;

/// A prefix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Destination {
    pub(crate) prefix: Prefix,
    /// How many peers without add-path have been told of it.
    held: u16,
    head: PathIndex,
}

/// One route of a prefix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub(crate) destination: DestinationId,
    next: PathIndex,
    pub(crate) path_id: u32,
    /// [`NONE`]: no longer wanted.
    pub(crate) attributes: AttributesId,
    /// In which whole set of its source it was seen last.
    mark: u32,
    source: SourceId,
    /// How many peers with add-path have been told of it.
    held: u16,
}

impl Path {
    /// Whose it is.
    pub(crate) fn source(&self) -> SourceId {
        self.source
    }
}

/// A route that another source's route hides: same prefix and path identifier, and a source that sorts first.
#[derive(Clone, Copy, Debug)]
struct Hidden {
    source: SourceId,
    attributes: AttributesId,
    mark: u32,
}

impl Hidden {
    /// Whether nobody hears or sees anything else of the prefix when one takes the other's place.
    fn says_as_much_as(&self, other: &Self) -> bool {
        self.attributes == other.attributes && (self.source == GUESTS) == (other.source == GUESTS)
    }
}

/// Who wants a route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) source: SourceId,
    /// In which whole set, or 0.
    pub(crate) mark: u32,
}

/// The routes of one family.
#[derive(Debug)]
pub(crate) struct Table {
    destinations: Vec<Destination>,
    free_destinations: Vec<DestinationId>,
    paths: Vec<Path>,
    free_paths: Vec<PathIndex>,
    index: [HashTable<DestinationId>; SHARDS],
    hidden: HashMap<PathIndex, Vec<Hidden>, FixedState>,
    hasher: FixedState,
    mark: u32,
}

/// Pushes with room for a quarter more, not twice as much: memory per route counts.
fn push<T>(slab: &mut Vec<T>, value: T) -> u32 {
    if slab.len() == slab.capacity() {
        slab.reserve_exact((slab.len() / 4).max(16));
    }
    let index = u32::try_from(slab.len()).unwrap_or(END);
    slab.push(value);
    index
}

impl Table {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            destinations: Vec::new(),
            free_destinations: Vec::new(),
            paths: Vec::new(),
            free_paths: Vec::new(),
            index: std::array::from_fn(|_| HashTable::new()),
            hidden: HashMap::with_hasher(FixedState::with_seed(seed)),
            hasher: FixedState::with_seed(seed),
            mark: 0,
        }
    }

    fn shard(hash: u64) -> usize {
        // hashbrown uses the lowest bits for the bucket and the highest seven for the tag.
        usize::try_from((hash >> 40) % SHARDS as u64).unwrap_or_default()
    }

    /// The destination of a prefix.
    pub(crate) fn find(&self, prefix: &Prefix) -> Option<DestinationId> {
        let hash = self.hasher.hash_one(prefix);
        let shard = self.index.get(Self::shard(hash))?;
        shard.find(hash, |id| self.destination(*id).is_some_and(|known| known.prefix == *prefix)).copied()
    }

    fn find_or_add(&mut self, prefix: Prefix) -> DestinationId {
        let Self { destinations, free_destinations, index, hasher, .. } = self;
        let hash = hasher.hash_one(prefix);
        let Some(shard) = index.get_mut(Self::shard(hash)) else { return END };
        let prefix_of = |id: &DestinationId| destinations.get(*id as usize).map(|known| known.prefix);
        let entry = shard.entry(
            hash,
            |id| prefix_of(id) == Some(prefix),
            |id| prefix_of(id).map_or(0, |prefix| hasher.hash_one(prefix)),
        );
        match entry {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let fresh = Destination { prefix, held: 0, head: END };
                match free_destinations.pop() {
                    Some(id) => {
                        if let Some(slot) = destinations.get_mut(id as usize) {
                            *slot = fresh;
                        }
                        entry.insert(id);
                        id
                    }
                    None => {
                        let id = u32::try_from(destinations.len()).unwrap_or(END);
                        entry.insert(id);
                        push(destinations, fresh)
                    }
                }
            }
        }
    }

    pub(crate) fn destination(&self, id: DestinationId) -> Option<&Destination> {
        self.destinations.get(id as usize)
    }

    pub(crate) fn path(&self, id: PathIndex) -> Option<&Path> {
        self.paths.get(id as usize)
    }

    /// The paths of a destination, the best first.
    pub(crate) fn chain(&self, id: DestinationId) -> Chain<'_> {
        Chain { table: self, next: self.destination(id).map_or(END, |destination| destination.head) }
    }

    /// One more than the highest destination; those that are not in use have no path, and nobody was told of them.
    pub(crate) fn destination_slots(&self) -> DestinationId {
        u32::try_from(self.destinations.len()).unwrap_or(END)
    }

    /// Every destination in use.
    pub(crate) fn ids(&self) -> impl Iterator<Item = DestinationId> + '_ {
        self.index.iter().flat_map(|shard| shard.iter().copied())
    }

    fn find_path(&self, destination: DestinationId, path_id: u32) -> Option<PathIndex> {
        self.chain(destination).find(|(_, path)| path.path_id == path_id).map(|(index, _)| index)
    }

    /// A new whole set of some source begins: what it holds is marked with the result.
    pub(crate) fn begin(&mut self) -> u32 {
        self.mark = self.mark.wrapping_add(1);
        self.mark
    }

    /// Sets a route of `source`, whose reference to `attributes` it takes over. Returns the destination if what is
    /// wanted changed. `order` sorts sources that have the same route.
    pub(crate) fn insert(
        &mut self,
        Claim { source, mark }: Claim,
        Nlri { prefix, path_id }: Nlri,
        attributes: AttributesId,
        store: &mut AttributeStore,
        order: &impl Fn(SourceId) -> usize,
    ) -> Option<DestinationId> {
        let destination = self.find_or_add(prefix);
        let Some(index) = self.find_path(destination, path_id) else {
            let path = Path { destination, next: END, path_id, attributes, mark, source, held: 0 };
            let index = match self.free_paths.pop() {
                Some(index) => {
                    if let Some(slot) = self.paths.get_mut(index as usize) {
                        *slot = path;
                    }
                    index
                }
                None => push(&mut self.paths, path),
            };
            self.link(index, store);
            return Some(destination);
        };
        let path = self.paths.get_mut(index as usize)?;
        if path.attributes == NONE {
            (path.source, path.mark) = (source, mark);
            return self.set_attributes(index, attributes, store);
        }
        if path.source == source {
            path.mark = mark;
            if path.attributes == attributes {
                store.release(attributes);
                return None;
            }
            let old = path.attributes;
            let changed = self.set_attributes(index, attributes, store);
            store.release(old);
            return changed;
        }
        let mut new = Hidden { source, attributes, mark };
        let mut changed = None;
        if order(source) < order(path.source) {
            let visible = Hidden { source: path.source, attributes: path.attributes, mark: path.mark };
            (path.source, path.mark) = (new.source, new.mark);
            let equal = visible.says_as_much_as(&new);
            changed = self.set_attributes(index, new.attributes, store).filter(|_| !equal);
            self.drop_hidden(index, source, store);
            new = visible;
        }
        let hidden = self.hidden.entry(index).or_default();
        match hidden.iter_mut().find(|known| known.source == new.source) {
            Some(known) => {
                store.release(known.attributes);
                *known = new;
            }
            None => hidden.push(new),
        }
        changed
    }

    fn drop_hidden(&mut self, index: PathIndex, source: SourceId, store: &mut AttributeStore) {
        let Some(hidden) = self.hidden.get_mut(&index) else { return };
        hidden.retain(|known| {
            let gone = known.source == source;
            if gone {
                store.release(known.attributes);
            }
            !gone
        });
        if hidden.is_empty() {
            self.hidden.remove(&index);
        }
    }

    /// Removes a route of `source`. Returns the destination if what is wanted changed.
    pub(crate) fn remove(
        &mut self,
        source: SourceId,
        Nlri { prefix, path_id }: Nlri,
        store: &mut AttributeStore,
        order: &impl Fn(SourceId) -> usize,
    ) -> Option<DestinationId> {
        let destination = self.find(&prefix)?;
        let index = self.find_path(destination, path_id)?;
        self.remove_path(source, index, store, order)
    }

    fn remove_path(
        &mut self,
        source: SourceId,
        index: PathIndex,
        store: &mut AttributeStore,
        order: &impl Fn(SourceId) -> usize,
    ) -> Option<DestinationId> {
        let path = self.paths.get_mut(index as usize)?;
        if path.attributes == NONE {
            return None;
        }
        if path.source != source {
            self.drop_hidden(index, source, store);
            return None;
        }
        let gone = Hidden { source, attributes: path.attributes, mark: path.mark };
        let heir = self.hidden.get_mut(&index).and_then(|hidden| {
            let best = hidden.iter().enumerate().min_by_key(|(_, known)| order(known.source))?.0;
            Some(hidden.swap_remove(best))
        });
        if self.hidden.get(&index).is_some_and(Vec::is_empty) {
            self.hidden.remove(&index);
        }
        let changed = match heir {
            Some(heir) => {
                let path = self.paths.get_mut(index as usize)?;
                (path.source, path.mark) = (heir.source, heir.mark);
                self.set_attributes(index, heir.attributes, store).filter(|_| !heir.says_as_much_as(&gone))
            }
            None => self.set_attributes(index, NONE, store),
        };
        store.release(gone.attributes);
        changed
    }

    /// Removes the routes of `source` that are not marked with `mark`, and says which destinations changed.
    pub(crate) fn sweep(
        &mut self,
        source: SourceId,
        mark: u32,
        store: &mut AttributeStore,
        order: &impl Fn(SourceId) -> usize,
        changed: &mut Vec<DestinationId>,
    ) {
        for index in 0..u32::try_from(self.paths.len()).unwrap_or(END) {
            let Some(path) = self.path(index) else { continue };
            if path.attributes == NONE {
                continue;
            }
            let stale = if path.source == source {
                path.mark != mark
            } else if self.hidden.is_empty() {
                false
            } else {
                let hidden =
                    self.hidden.get(&index).and_then(|all| all.iter().find(|known| known.source == source));
                hidden.is_some_and(|known| known.mark != mark)
            };
            if stale {
                changed.extend(self.remove_path(source, index, store, order));
            }
        }
    }

    fn set_attributes(
        &mut self,
        index: PathIndex,
        attributes: AttributesId,
        store: &AttributeStore,
    ) -> Option<DestinationId> {
        self.unlink(index);
        let path = self.paths.get_mut(index as usize)?;
        path.attributes = attributes;
        let destination = path.destination;
        self.link(index, store);
        Some(destination)
    }

    fn link(&mut self, index: PathIndex, store: &AttributeStore) {
        let Some(new) = self.path(index).copied() else { return };
        let rank = |path: &Path| Candidate {
            set: store.get(path.attributes),
            guest: path.source == GUESTS,
            path_id: path.path_id,
        };
        let mut before = None;
        let mut next = END;
        for (other, path) in self.chain(new.destination) {
            if best_path::compare(rank(&new), rank(path)).is_lt() {
                next = other;
                break;
            }
            before = Some(other);
        }
        if let Some(path) = self.paths.get_mut(index as usize) {
            path.next = next;
        }
        self.set_next(new.destination, before, index);
    }

    fn unlink(&mut self, index: PathIndex) {
        let Some(path) = self.path(index).copied() else { return };
        let mut before = None;
        for (other, _) in self.chain(path.destination) {
            if other == index {
                break;
            }
            before = Some(other);
        }
        self.set_next(path.destination, before, path.next);
    }

    fn set_next(&mut self, destination: DestinationId, before: Option<PathIndex>, next: PathIndex) {
        match before {
            Some(before) => {
                if let Some(path) = self.paths.get_mut(before as usize) {
                    path.next = next;
                }
            }
            None => {
                if let Some(destination) = self.destinations.get_mut(destination as usize) {
                    destination.head = next;
                }
            }
        }
    }

    pub(crate) fn hold_destination(&mut self, id: DestinationId) {
        if let Some(destination) = self.destinations.get_mut(id as usize) {
            destination.held = destination.held.saturating_add(1);
        }
    }

    pub(crate) fn hold_path(&mut self, id: PathIndex) {
        if let Some(path) = self.paths.get_mut(id as usize) {
            path.held = path.held.saturating_add(1);
        }
    }

    pub(crate) fn unhold_destination(&mut self, id: DestinationId) {
        if let Some(destination) = self.destinations.get_mut(id as usize) {
            destination.held = destination.held.saturating_sub(1);
        }
        self.collect(id);
    }

    pub(crate) fn unhold_path(&mut self, id: PathIndex) {
        if let Some(path) = self.paths.get_mut(id as usize) {
            path.held = path.held.saturating_sub(1);
            let destination = path.destination;
            self.collect(destination);
        }
    }

    /// Frees what is neither wanted nor held of a destination.
    pub(crate) fn collect(&mut self, id: DestinationId) {
        // Unwanted paths are at the end of the chain; mostly there is nothing to do, and one look says so.
        let mut last_wanted = None;
        let mut next = self.destination(id).map_or(END, |destination| destination.head);
        while let Some(path) = self.path(next).copied() {
            let current = next;
            next = path.next;
            if path.attributes == NONE && path.held == 0 {
                self.set_next(id, last_wanted, next);
                if let Some(path) = self.paths.get_mut(current as usize) {
                    path.destination = END;
                }
                self.free_paths.push(current);
            } else {
                last_wanted = Some(current);
            }
        }
        let Some(destination) = self.destination(id) else { return };
        if destination.head != END || destination.held > 0 {
            return;
        }
        let hash = self.hasher.hash_one(destination.prefix);
        if let Some(shard) = self.index.get_mut(Self::shard(hash))
            && let Ok(entry) = shard.find_entry(hash, |known| *known == id)
        {
            entry.remove();
            self.free_destinations.push(id);
        }
    }

    /// How many destinations and paths there are.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.destinations.len() - self.free_destinations.len(), self.paths.len() - self.free_paths.len())
    }

    /// Octets reserved.
    pub(crate) fn reserved_bytes(&self) -> usize {
        self.destinations.capacity() * size_of::<Destination>()
            + self.paths.capacity() * size_of::<Path>()
            + (self.free_destinations.capacity() + self.free_paths.capacity()) * size_of::<u32>()
            + self.index.iter().map(HashTable::allocation_size).sum::<usize>()
    }
}

/// The paths of a destination.
pub(crate) struct Chain<'a> {
    table: &'a Table,
    next: PathIndex,
}

impl<'a> Iterator for Chain<'a> {
    type Item = (PathIndex, &'a Path);

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.next;
        let path = self.table.path(index)?;
        self.next = path.next;
        Some((index, path))
    }
}
