//! A node that does not hear another one cannot be told that it owns what the other owns, too. The other finds out that it
//! is not heard (see [`repeat`](Speaker::repeat)) from claims that go on in spite of its own. So whoever misses a node says
//! again and again what it claimed, whatever the schedule of gratuitous frames is, and so often that one more lost frame
//! changes nothing: one address after the other, the newest claims first.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{Output, Speaker, entry::Phase};
use crate::announcer;

/// Five times within 1.6 s: whichever of them is lost, a second and more lies between two of the others.
const SPACING: Duration = Duration::from_millis(400);
const TIMES: u8 = 5;
/// Others are said once each, so many at a time: of one that was found not to hear, a single claim is enough.
const OTHERS: usize = 4;
/// So many nodes that hear each other claim as often as one. A node that hears nobody, or few, is not among them: what it
/// says must not become rare, for it is all that is known of it.
const CHORUS: usize = 4;
/// So many times as seldom at most: a node that is not heard for `decide::MUTE` is taken for gone.
const RAREST: u32 = 3;

/// What is to be said again; see the [module](self).
#[derive(Debug)]
pub(super) struct Insistence {
    queue: VecDeque<IpAddr>,
    /// How often the first of them was said.
    said: u8,
    /// Which of the others is next.
    place: usize,
    next: Instant,
}

impl Insistence {
    pub(super) const fn new(now: Instant) -> Self {
        Self { queue: VecDeque::new(), said: 0, place: 0, next: now }
    }
}

impl Speaker {
    /// A claim is more urgent than older ones.
    pub(super) fn insist_on(&mut self, address: IpAddr, now: Instant) {
        if self.misses_somebody(now) {
            self.fill_insistence();
            self.insistence.queue.push_front(address);
            self.insistence.said = 0;
        }
    }

    /// To be called with every tick.
    pub(super) fn insist(&mut self, now: Instant) {
        if self.insistence.next > now {
            return;
        }
        if !self.misses_somebody(now) {
            self.insistence = Insistence::new(now);
            return;
        }
        self.insistence.next = now + self.insistence_spacing();
        if self.insistence.said >= TIMES {
            self.insistence.queue.pop_front();
            self.insistence.said = 0;
        }
        while self.insistence.queue.front().is_some_and(|address| !self.insists(*address)) {
            self.insistence.queue.pop_front();
            self.insistence.said = 0;
        }
        self.fill_insistence();
        self.insistence.said += 1;
        let others = self.insistence.queue.len().saturating_sub(1);
        let places = (0..OTHERS.min(others)).map(|n| 1 + (self.insistence.place + n) % others);
        let said: Vec<_> = std::iter::once(0)
            .chain(places)
            .filter_map(|at| self.insistence.queue.get(at).copied())
            .collect();
        self.insistence.place = self.insistence.place.wrapping_add(OTHERS);
        for address in said {
            if !self.insists(address) {
                continue;
            }
            for (link, mac) in self.usable_links(address) {
                self.stats.gratuitous += 1;
                self.outputs.push_back(Output::Frame { link, frame: announcer::insistence(address, mac) });
            }
        }
    }

    /// However many nodes miss one that is gone, up to twelve claim no more often than four would; of more, each every 1.2 s.
    fn insistence_spacing(&self) -> Duration {
        let live = self.nodes.values().filter(|node| node.live.is_some()).count();
        SPACING * u32::try_from(live / CHORUS + 1).map_or(RAREST, |times| times.min(RAREST))
    }

    /// Takes all that is owned in, once all that was to be said was said. What is claimed again and again is in it more
    /// than once.
    fn fill_insistence(&mut self) {
        if self.insistence.queue.is_empty() || self.insistence.queue.len() > 2 * self.entries.len() {
            let owned = self.entries.iter().filter(|(address, _)| self.insists(**address));
            let mut owned: Vec<_> = owned.map(|(address, entry)| (entry.since, *address)).collect();
            owned.sort_unstable_by(|a, b| b.cmp(a));
            self.insistence.queue = owned.into_iter().map(|(_, address)| address).collect();
        }
    }

    /// Whether a claim of this address may be said again: against a stranger it is defended, and no more.
    fn insists(&self, address: IpAddr) -> bool {
        let entry = self.entries.get(&address);
        entry.is_some_and(|entry| entry.phase == Phase::Owner && entry.conflict.is_none())
    }

    /// Whether there may be a node that hears this one and is not heard: one was lost, or there are others and none of
    /// them is heard.
    fn misses_somebody(&self, now: Instant) -> bool {
        // Longer than the silence between two probes.
        let silence = self.config.probe_interval.saturating_add(self.config.probe_timeout).saturating_mul(2);
        let silent = |heard: Option<Instant>| {
            heard.is_none_or(|heard| now.saturating_duration_since(heard) >= silence)
        };
        let others = self.peers.as_ref().is_some_and(|peers| !BTreeMap::is_empty(peers));
        others && self.nodes.values().all(|node| silent(node.heard))
            || self.nodes.values().any(|node| node.is_lost(now))
    }
}
