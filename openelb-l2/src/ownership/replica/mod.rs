//! What this node says of itself, in versions, and how much of it each other node has.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::message::{self, About, Item, MAX_BODY, Mark, NodeId, State};
use crate::speaker::NodeName;

/// A piece that is not acknowledged is sent again after this time.
const RETRY: Duration = Duration::from_millis(100);
/// A reader is believed to have less than it had at most once in this time.
const DOUBT: Duration = Duration::from_millis(50);
/// Two pieces for one reader that does not answer are at least this far apart.
const SPACING: Duration = Duration::from_millis(1);
/// How many removed addresses are remembered before a node that missed them is told everything anew.
const TOMBSTONES: usize = 4096;

#[derive(Debug)]
struct Reader {
    address: SocketAddr,
    /// How much it has of this epoch.
    acked: u64,
    sent: Option<(u64, Instant)>,
    /// Pieces since its last answer.
    tries: u32,
    /// When it was last believed to have less than it had, and the least that it said since.
    lowered: Option<Instant>,
    doubt: Option<u64>,
}

impl Reader {
    const fn new(address: SocketAddr) -> Self {
        Self { address, acked: 0, sent: None, tries: 0, lowered: None, doubt: None }
    }

    /// It has so much, and nothing is under way.
    const fn set(&mut self, acked: u64) {
        (self.acked, self.sent, self.tries) = (acked, None, 0);
    }

    /// When it is believed to have less than it had.
    fn lowers_at(&self) -> Option<Instant> {
        self.doubt.and(self.lowered).map(|at| at + DOUBT)
    }

    /// It may have less. An old answer that comes late looks like that, too, and each costs a piece, whose copies bring
    /// more late answers: so once in a while.
    fn lower(&mut self, now: Instant) {
        if self.lowers_at().is_none_or(|at| at <= now)
            && let Some(has) = self.doubt.take()
            && has < self.acked
        {
            self.set(has);
            self.lowered = Some(now);
        }
    }

    const fn has_all(&self, version: u64) -> bool {
        self.acked >= version && self.doubt.is_none()
    }
}

/// A piece of state for one reader.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) node: NodeId,
    pub(crate) address: SocketAddr,
    /// Pieces since the reader's last answer, this one included.
    pub(crate) tries: u32,
    pub(crate) state: State,
}

/// This node's state; see the [module](self).
#[derive(Debug)]
pub(crate) struct Replica {
    name: NodeName,
    epoch: u64,
    version: u64,
    about: About,
    items: BTreeMap<IpAddr, (u64, Item)>,
    /// Every address that ever had an item, by the version of its last change.
    changes: BTreeMap<u64, IpAddr>,
    removed: BTreeSet<u64>,
    /// How many of them are remembered.
    tombstones: usize,
    /// Removals up to here are forgotten, and nothing that is still there was said so long ago.
    floor: u64,
    readers: BTreeMap<NodeId, Reader>,
}

impl Replica {
    pub(crate) fn new(name: NodeName, epoch: u64) -> Self {
        Self {
            name,
            epoch,
            version: 1,
            about: About::default(),
            items: BTreeMap::new(),
            changes: BTreeMap::new(),
            removed: BTreeSet::new(),
            tombstones: TOMBSTONES,
            floor: 0,
            readers: BTreeMap::new(),
        }
    }

    pub(crate) const fn mark(&self) -> Mark {
        Mark { epoch: self.epoch, version: self.version }
    }

    pub(crate) const fn about(&self) -> &About {
        &self.about
    }

    pub(crate) fn set_about(&mut self, about: About) {
        if self.about != about {
            self.about = about;
            self.version += 1;
        }
    }

    pub(crate) fn item(&self, address: IpAddr) -> Item {
        self.items.get(&address).map(|(_, item)| *item).unwrap_or_default()
    }

    /// Sets what is said of an address; a default item says nothing.
    pub(crate) fn set_item(&mut self, address: IpAddr, item: Item) {
        let old = self.items.get(&address).copied();
        if old.map(|(_, item)| item).unwrap_or_default() == item {
            return;
        }
        self.version += 1;
        if let Some((version, _)) = old {
            self.changes.remove(&version);
            self.removed.remove(&version);
        }
        self.changes.insert(self.version, address);
        self.items.insert(address, (self.version, item));
        if item == Item::default() {
            self.removed.insert(self.version);
            self.prune();
        }
    }

    fn prune(&mut self) {
        while self.removed.len() > self.tombstones {
            let Some(version) = self.removed.pop_first() else { return };
            self.floor = version;
            if let Some(address) = self.changes.remove(&version) {
                self.items.remove(&address);
            }
        }
        // Whoever lacks what is forgotten is told everything anew, piece by piece, until it has more than that: so what
        // is older is said again.
        while let Some(oldest) = self.changes.first_entry().filter(|oldest| *oldest.key() <= self.floor) {
            let address = oldest.remove();
            self.version += 1;
            self.changes.insert(self.version, address);
            if let Some((version, _)) = self.items.get_mut(&address) {
                *version = self.version;
            }
        }
    }

    /// Begins a new life: nothing that was said before holds.
    pub(crate) fn begin(&mut self, epoch: u64) {
        let name = self.name.clone();
        let about = self.about.clone();
        let readers = std::mem::take(&mut self.readers);
        *self = Self { tombstones: self.tombstones, ..Self::new(name, epoch) };
        self.about = about;
        for (node, reader) in readers {
            self.readers.insert(node, Reader::new(reader.address));
        }
    }

    /// Another life of this node was later than this one: the versions continue in a life after that.
    pub(crate) fn outlive(&mut self, epoch: u64) {
        if epoch > self.epoch {
            self.epoch = message::life_after(epoch);
            for reader in self.readers.values_mut() {
                (reader.acked, reader.sent, reader.doubt) = (0, None, None);
            }
        }
    }

    /// Who is to be told: the whole set.
    pub(crate) fn set_readers(&mut self, readers: &BTreeMap<NodeId, SocketAddr>) {
        self.readers.retain(|node, _| readers.contains_key(node));
        for (node, address) in readers {
            self.readers.entry(*node).or_insert_with(|| Reader::new(*address)).address = *address;
        }
    }

    /// A reader says how much it has.
    pub(crate) fn acknowledge(&mut self, node: NodeId, mark: Mark, now: Instant) {
        if mark.epoch == self.epoch && mark.version > self.version {
            // More than was ever said: of another life with the same number.
            self.outlive(self.epoch.saturating_add(1));
        } else {
            self.outlive(mark.epoch);
        }
        let Some(reader) = self.readers.get_mut(&node) else { return };
        let has = if mark.epoch == self.epoch { mark.version.min(self.version) } else { 0 };
        match has.cmp(&reader.acked) {
            Ordering::Greater => reader.set(has),
            Ordering::Equal => {}
            Ordering::Less => {
                reader.doubt = Some(reader.doubt.map_or(has, |least| least.min(has)));
                reader.lower(now);
            }
        }
    }

    /// Whether every reader has everything.
    pub(crate) fn is_told(&self) -> bool {
        self.readers.values().all(|reader| reader.has_all(self.version))
    }

    /// Whether this reader has everything.
    pub(crate) fn is_known_to(&self, node: NodeId) -> bool {
        self.readers.get(&node).is_some_and(|reader| reader.has_all(self.version))
    }

    /// The next piece that a reader lacks and that is not under way.
    pub(crate) fn poll_piece(&mut self, now: Instant) -> Option<Piece> {
        let version = self.version;
        self.readers.values_mut().for_each(|reader| reader.lower(now));
        let (node, from) = self
            .readers
            .iter()
            .find(|(_, reader)| {
                let waits = reader.sent.is_some_and(|(to, at)| {
                    // News does not wait for the answer to the piece before.
                    to >= version && now.saturating_duration_since(at) < RETRY
                        || now.saturating_duration_since(at) < SPACING
                });
                reader.acked < version && !waits
            })
            .map(|(node, reader)| (*node, reader.acked))?;
        let state = self.piece(from);
        let reader = self.readers.get_mut(&node)?;
        // While more pieces wait, the answer to this one brings the next.
        let until = if state.to < version { version } else { state.to };
        reader.sent = Some((until, now));
        reader.tries = reader.tries.saturating_add(1);
        Some(Piece { node, address: reader.address, tries: reader.tries, state })
    }

    /// When a piece is to be sent again.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let due = |(to, at): (u64, Instant)| at + if to < self.version { SPACING } else { RETRY };
        let again = |reader: &Reader| reader.sent.filter(|_| reader.acked < self.version).map(due);
        self.readers.values().flat_map(|reader| [again(reader), reader.lowers_at()]).flatten().min()
    }

    fn piece(&self, acked: u64) -> State {
        let reset = acked <= self.floor;
        let from = if reset { 0 } else { acked };
        let mut room = MAX_BODY.saturating_sub(message::state_overhead(&self.name, &self.about));
        let mut items = Vec::new();
        let mut to = self.version;
        let mut done = from;
        for (version, address) in self.changes.range(from + 1..) {
            let item = self.item(*address);
            let length = message::item_length(*address, item);
            if length > room {
                to = done;
                break;
            }
            room -= length;
            items.push((*address, item));
            done = *version;
        }
        let (name, about) = (self.name.clone(), self.about.clone());
        State { epoch: self.epoch, from, to, last: self.version, reset, name, about, items }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any origin of time will do: only differences matter")]
mod tests;
