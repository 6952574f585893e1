//! The routes that neighbours have sent and that are kept with their attributes (Adj-RIB-In): shown, compared, and
//! never passed on.
//!
//! Equal attribute sets of a neighbour are kept once ([`received_sets`](super::received_sets)). What a neighbour had when its session ended under graceful restart is *stale*
//! until it sends it again or says that it is done (RFC 4724 §4.2); likewise what it has not yet sent again in a refresh
//! (RFC 7313 §4).

use std::{collections::HashMap, sync::Arc, time::Instant};

use foldhash::fast::FixedState;

use super::{
    received_sets::{ReceivedSets, SetId},
    selection::{Candidate, Origination, decide},
};
use crate::{
    speaker::{PathAttributes, PeerId},
    wire::{Family, Nlri, Prefix},
};

/// So many paths of a prefix are kept of one neighbour (RFC 7911); each is compared with the others.
pub(crate) const MAX_PATHS: usize = 256;
/// Octets of memory that a route takes beside its attribute set, with the room that tables hold free.
const ROUTE: u64 = 128;

/// One route.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedPath {
    pub(crate) peer: PeerId,
    pub(crate) path_id: u32,
    pub(crate) set: SetId,
    /// When it came as it is.
    pub(crate) since: Instant,
    pub(crate) stale: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    all: usize,
    stale: usize,
}

/// What was received and is kept, of all neighbours and both families.
#[derive(Debug)]
pub(crate) struct Received {
    ipv4: HashMap<Prefix, Vec<ReceivedPath>, FixedState>,
    ipv6: HashMap<Prefix, Vec<ReceivedPath>, FixedState>,
    counts: HashMap<(PeerId, Family), Count, FixedState>,
    neighbors: HashMap<PeerId, Origination, FixedState>,
    sets: ReceivedSets,
}

/// A neighbour and a family of it.
pub(crate) type Owner = (PeerId, Family);

impl Received {
    pub(crate) fn new(seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self {
            ipv4: HashMap::with_hasher(hasher.clone()),
            ipv6: HashMap::with_hasher(hasher.clone()),
            counts: HashMap::with_hasher(hasher.clone()),
            neighbors: HashMap::with_hasher(hasher),
            sets: ReceivedSets::new(seed),
        }
    }

    fn table(&self, family: Family) -> &HashMap<Prefix, Vec<ReceivedPath>, FixedState> {
        if family == Family::IPV4_UNICAST { &self.ipv4 } else { &self.ipv6 }
    }

    /// Who the routes of a neighbour come from; said when its session comes up.
    pub(crate) fn set_neighbor(&mut self, peer: PeerId, origination: Origination) {
        self.neighbors.insert(peer, origination);
    }

    /// The one set of this neighbour that is equal to this; to be [given back](Self::release).
    pub(crate) fn intern(&mut self, peer: PeerId, attributes: PathAttributes) -> SetId {
        self.sets.intern(peer, attributes)
    }

    /// The set is needed no more but by its routes.
    pub(crate) fn release(&mut self, set: SetId) {
        self.sets.release(set);
    }

    /// The attributes of a set.
    pub(crate) fn attributes(&self, set: SetId) -> &Arc<PathAttributes> {
        self.sets.get(set)
    }

    /// The neighbour announced this. Gives whether it is kept: of one prefix there may be [`MAX_PATHS`].
    pub(crate) fn announce(
        &mut self,
        (peer, family): Owner,
        Nlri { prefix, path_id }: Nlri,
        set: SetId,
        now: Instant,
    ) -> bool {
        let table = if family == Family::IPV4_UNICAST { &mut self.ipv4 } else { &mut self.ipv6 };
        let paths = table.entry(prefix).or_insert_with(|| Vec::with_capacity(1));
        let count = self.counts.entry((peer, family)).or_default();
        if let Some(known) = paths.iter_mut().find(|path| path.peer == peer && path.path_id == path_id) {
            count.stale -= usize::from(std::mem::take(&mut known.stale));
            if known.set != set {
                known.since = now;
                self.sets.retain(set);
                let before = std::mem::replace(&mut known.set, set);
                self.sets.release(before);
            }
            return true;
        }
        if paths.iter().filter(|path| path.peer == peer).count() >= MAX_PATHS {
            return false;
        }
        self.sets.retain(set);
        paths.push(ReceivedPath { peer, path_id, set, since: now, stale: false });
        count.all += 1;
        true
    }

    /// The neighbour withdrew this. Gives whether it was there.
    pub(crate) fn withdraw(&mut self, (peer, family): Owner, Nlri { prefix, path_id }: Nlri) -> bool {
        let table = if family == Family::IPV4_UNICAST { &mut self.ipv4 } else { &mut self.ipv6 };
        let Some(paths) = table.get_mut(&prefix) else { return false };
        let Some(at) = paths.iter().position(|path| path.peer == peer && path.path_id == path_id) else {
            return false;
        };
        let gone = paths.swap_remove(at);
        if paths.is_empty() {
            table.remove(&prefix);
        }
        let count = self.counts.entry((peer, family)).or_default();
        count.all -= 1;
        count.stale -= usize::from(gone.stale);
        self.sets.release(gone.set);
        true
    }

    /// How many routes a neighbour has in a family, stale ones included.
    pub(crate) fn len(&self, owner: Owner) -> usize {
        self.counts.get(&owner).map_or(0, |count| count.all)
    }

    /// Octets of memory that the routes of a neighbour take, of both families and with their attribute sets.
    pub(crate) fn octets(&self, peer: PeerId) -> u64 {
        let families = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];
        let routes: usize = families.map(|family| self.len((peer, family))).iter().sum();
        ROUTE * routes as u64 + self.sets.octets(peer)
    }

    /// How many of them are stale.
    pub(crate) fn stale(&self, owner: Owner) -> usize {
        self.counts.get(&owner).map_or(0, |count| count.stale)
    }

    /// All routes of a neighbour are stale until they come again.
    pub(crate) fn mark_stale(&mut self, (peer, family): Owner) {
        let Some(count) = self.counts.get_mut(&(peer, family)) else { return };
        count.stale = count.all;
        let table = if family == Family::IPV4_UNICAST { &mut self.ipv4 } else { &mut self.ipv6 };
        table.values_mut().flatten().filter(|path| path.peer == peer).for_each(|path| path.stale = true);
    }

    /// What is stale of a neighbour goes; gives the prefixes that it was for.
    pub(crate) fn sweep(&mut self, owner: Owner) -> Vec<Prefix> {
        if self.stale(owner) == 0 {
            return Vec::new();
        }
        self.remove(owner, |path| path.stale)
    }

    /// All routes of a neighbour go; gives the prefixes that they were for.
    pub(crate) fn clear(&mut self, owner: Owner) -> Vec<Prefix> {
        let prefixes = if self.len(owner) == 0 { Vec::new() } else { self.remove(owner, |_| true) };
        self.counts.remove(&owner);
        prefixes
    }

    /// The neighbour is no longer configured.
    pub(crate) fn forget(&mut self, peer: PeerId) {
        self.neighbors.remove(&peer);
    }

    fn remove(&mut self, owner: Owner, which: impl Fn(&ReceivedPath) -> bool) -> Vec<Prefix> {
        let (peer, family) = owner;
        let table = if family == Family::IPV4_UNICAST { &mut self.ipv4 } else { &mut self.ipv6 };
        let (mut gone, mut prefixes) = (Vec::new(), Vec::new());
        table.retain(|prefix, paths| {
            let before = gone.len();
            paths.retain(|path| {
                let goes = path.peer == peer && which(path);
                if goes {
                    gone.push((path.set, path.stale));
                }
                !goes
            });
            if gone.len() > before {
                prefixes.push(*prefix);
            }
            !paths.is_empty()
        });
        if let Some(count) = self.counts.get_mut(&owner) {
            count.all = count.all.saturating_sub(gone.len());
            count.stale = count.stale.saturating_sub(gone.iter().filter(|(_, stale)| *stale).count());
        }
        gone.into_iter().for_each(|(set, _)| self.sets.release(set));
        prefixes
    }

    /// The routes of a neighbour in a family, in no order.
    pub(crate) fn of(&self, (peer, family): Owner) -> impl Iterator<Item = (&Prefix, &ReceivedPath)> {
        let all = self.table(family).iter();
        all.flat_map(|(prefix, paths)| paths.iter().map(move |path| (prefix, path)))
            .filter(move |(_, path)| path.peer == peer)
    }

    /// The prefixes that are known in a family, in no order.
    pub(crate) fn prefixes(&self, family: Family) -> impl Iterator<Item = &Prefix> {
        self.table(family).keys()
    }

    /// The routes of a prefix.
    pub(crate) fn paths(&self, prefix: &Prefix) -> &[ReceivedPath] {
        self.table(prefix.family()).get(prefix).map_or(&[], Vec::as_slice)
    }

    /// What the decision looks at of a route.
    pub(crate) fn candidate(&self, path: &ReceivedPath) -> Candidate<'_> {
        let unknown = Origination {
            external: true,
            router_id: std::net::Ipv4Addr::BROADCAST,
            address: std::net::Ipv4Addr::BROADCAST.into(),
        };
        Candidate {
            attributes: &self.sets.get(path.set).attributes,
            from: Some(self.neighbors.get(&path.peer).copied().unwrap_or(unknown)),
            path_id: path.path_id,
        }
    }

    /// The best of a prefix's received routes.
    pub(crate) fn best(&self, prefix: &Prefix) -> Option<&ReceivedPath> {
        match self.paths(prefix) {
            [] => None,
            [only] => Some(only),
            paths => {
                let candidates: Vec<Candidate<'_>> = paths.iter().map(|path| self.candidate(path)).collect();
                let (best, _) = decide(&candidates)?;
                paths.get(best)
            }
        }
    }

    /// How many different attribute sets there are.
    pub(crate) fn attribute_sets(&self) -> usize {
        self.sets.len()
    }

    /// How many routes there are.
    pub(crate) fn routes(&self) -> usize {
        self.counts.values().map(|count| count.all).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Attributes, NextHop};

    fn origin() -> Instant {
        #[allow(clippy::disallowed_methods, reason = "some instant is needed to count from")]
        Instant::now()
    }

    fn nlri(last: u8, path_id: u32) -> Nlri {
        let prefix: ipnet::IpNet = format!("203.0.113.{last}/32").parse().unwrap();
        Nlri { path_id, prefix: prefix.into() }
    }

    fn set(med: u32) -> PathAttributes {
        let attributes = Attributes { med: Some(med), ..Attributes::default() };
        PathAttributes { attributes, next_hop: NextHop::V4("192.0.2.1".parse().unwrap()) }
    }

    #[test]
    fn of_very_many_paths_of_a_prefix_so_many_are_kept() {
        let mut received = Received::new(0);
        let owner = (PeerId(1), Family::IPV4_UNICAST);
        let set = received.intern(owner.0, set(1));
        for path_id in 0..1000 {
            let kept = received.announce(owner, nlri(1, path_id), set, origin());
            assert_eq!(kept, (path_id as usize) < MAX_PATHS, "it is said that it is not kept");
        }
        assert!(received.announce(owner, nlri(1, 5), set, origin()), "one that is there is kept");
        assert_eq!(received.len(owner), MAX_PATHS);
        // Another neighbour has room of its own, and so has this one once it withdrew one.
        received.announce((PeerId(2), Family::IPV4_UNICAST), nlri(1, 0), set, origin());
        assert!(received.withdraw(owner, nlri(1, 0)));
        assert!(!received.withdraw(owner, nlri(1, 0)), "it is not there");
        received.announce(owner, nlri(1, 1000), set, origin());
        assert_eq!((received.len(owner), received.routes()), (MAX_PATHS, MAX_PATHS + 1));
        for path_id in 0..=1000 {
            received.withdraw(owner, nlri(1, path_id));
        }
        assert_eq!((received.len(owner), received.routes()), (0, 1));
    }

    #[test]
    fn equal_sets_are_kept_once_and_go_with_their_last_route() {
        let mut received = Received::new(0);
        let owner = (PeerId(1), Family::IPV4_UNICAST);
        for last in 0..10 {
            let set = received.intern(owner.0, set(u32::from(last) % 2));
            received.announce(owner, nlri(last, 0), set, origin());
            received.release(set);
        }
        assert_eq!((received.attribute_sets(), received.len(owner)), (2, 10));
        for last in (0..10).step_by(2) {
            received.withdraw(owner, nlri(last, 0));
        }
        assert_eq!((received.attribute_sets(), received.len(owner)), (1, 5));
        // Replaced by another set.
        let other = received.intern(owner.0, set(7));
        for last in (1..10).step_by(2) {
            received.announce(owner, nlri(last, 0), other, origin());
        }
        received.release(other);
        assert_eq!((received.attribute_sets(), received.len(owner)), (1, 5));
        assert_eq!(received.clear(owner).len(), 5);
        assert_eq!((received.attribute_sets(), received.len(owner), received.routes()), (0, 0, 0));
    }

    #[test]
    fn a_set_that_somebody_shows_when_its_last_route_goes_is_charged_to_nobody() {
        let mut received = Received::new(0);
        let owner = (PeerId(1), Family::IPV4_UNICAST);
        let mut shown = Vec::new();
        let mut octets = None;
        for med in 0..1000 {
            let set = received.intern(owner.0, set(med));
            received.announce(owner, nlri(1, 0), set, origin());
            received.release(set);
            shown.push(Arc::clone(received.attributes(set)));
            let now_is = received.octets(owner.0);
            assert_eq!(*octets.get_or_insert(now_is), now_is);
        }
        assert_eq!(received.attribute_sets(), 1);
        assert!(shown.iter().zip(0..).all(|(set, med)| set.attributes.med == Some(med)));
        received.clear(owner);
        assert_eq!(received.octets(owner.0), 0);
    }

    #[test]
    fn what_is_stale_goes_unless_it_came_again_and_others_routes_stay() {
        let mut received = Received::new(0);
        let (a, b) = ((PeerId(1), Family::IPV4_UNICAST), (PeerId(2), Family::IPV4_UNICAST));
        for owner in [a, b] {
            let plain = received.intern(owner.0, set(0));
            for last in 0..4 {
                received.announce(owner, nlri(last, 0), plain, origin());
            }
            received.release(plain);
        }
        received.mark_stale(a);
        assert_eq!((received.stale(a), received.stale(b)), (4, 0));
        let plain = received.intern(a.0, set(0));
        received.announce(a, nlri(0, 0), plain, origin());
        received.withdraw(a, nlri(1, 0));
        assert_eq!((received.len(a), received.stale(a)), (3, 2));
        assert_eq!(received.sweep(a).len(), 2);
        assert_eq!((received.len(a), received.stale(a), received.len(b)), (1, 0, 4));
        assert_eq!(received.paths(&nlri(2, 0).prefix).len(), 1);
        received.withdraw(a, nlri(9, 0));
        assert_eq!(received.len(a), 1, "what was not there counts nothing");
    }
}
