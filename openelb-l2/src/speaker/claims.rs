//! What is heard on the wire of where an address is.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    Event, LinkIndex, Speaker,
    decide::{DEAF, YIELD, YIELD_TO_DEAF, YIELD_TO_GOSSIP},
    entry::{Entry, Phase, Untold},
};
use crate::{
    MacAddr,
    ownership::{
        message::{Claim, MAX_LINKS, NodeId},
        rendezvous,
    },
    responder,
};

/// A rival that said nothing for this long heard the claim: one that does not hear it insists on its own (see `insist.rs`)
/// four times as often.
const DEAF_MEMORY: Duration = Duration::from_millis(1800);
/// A claim is repeated at most this often.
const REPEAT: Duration = Duration::from_millis(20);
/// A stranger is looked for again after this time.
const CONFLICT_RETRY: Duration = Duration::from_secs(10);
/// Sooner, where it may be a node of ours of which nothing is known yet: one that lives is heard every two seconds then.
const UNKNOWN_RETRY: Duration = Duration::from_secs(3);
/// And up to so much later where both only asked, so that they do not meet for ever.
const CONFLICT_SPREAD: u64 = 5000;
/// Strangers that change are told of at most this often for an address.
const TELL: Duration = Duration::from_secs(1);
/// Nodes whose stations are not known are asked for them at most this often, and so many at a time.
const SEEK_INTERVAL: Duration = Duration::from_secs(1);
const SOUGHT: usize = 32;
/// How long they have to answer before somebody who asks for an address is taken for a stranger.
const INTRODUCTION: Duration = Duration::from_millis(200);

impl Speaker {
    /// A worse node claims what this one owns: the claim is repeated, so that it hears. One that goes on claiming does
    /// not hear; the address is left to it, for a client hears both.
    pub(super) fn repeat(&mut self, address: IpAddr, rival: Option<NodeId>, now: Instant) {
        let Some(entry) = self.entries.get_mut(&address) else { return };
        // Only what this very rival says tells whether it hears, and not what it said before it last gave way.
        let since = rival.map(|rival| {
            let known = entry.rival.filter(|(node, _, last)| {
                *node == rival && now.saturating_duration_since(*last) < DEAF_MEMORY
            });
            let first = known.map_or(now, |(_, first, _)| first);
            entry.rival = Some((rival, first, now));
            (rival, first)
        });
        if let Some(last) = entry.repeated.filter(|last| now.saturating_duration_since(*last) < REPEAT) {
            // Two claims that cross each other: clients believe the later one, so this node has the last word.
            entry.again = Some(last + REPEAT);
            return;
        }
        if let Some((rival, first)) = since
            && (now.saturating_duration_since(first) >= DEAF || self.is_deaf(rival, now))
        {
            self.leave_to_deaf(address, rival, first, now);
            return;
        }
        let Some(entry) = self.entries.get_mut(&address) else { return };
        (entry.repeated, entry.again) = (Some(now), None);
        self.begin_burst(address, now);
    }

    /// A node did not hear `since` then that this one owns an address: it is left to it, and whatever else it claimed
    /// since, for it was not told otherwise.
    fn leave_to_deaf(&mut self, address: IpAddr, rival: NodeId, since: Instant, now: Instant) {
        let mut left = vec![address];
        // What one says that is heard in gossip counts, and not what it is thought not to hear.
        if !self.talks(rival)
            && let Some(node) = self.nodes.get_mut(&rival)
        {
            node.deaf = Some(now);
            let claims = |entry: &Entry| {
                // Of many that are claimed at once, some are heard a little earlier.
                entry.phase == Phase::Owner
                    && entry.rival.is_some_and(|(node, _, last)| node == rival && last + DEAF >= since)
            };
            let others = self.entries.iter().filter(|(of, entry)| **of != address && claims(entry));
            left.extend(others.map(|(of, _)| *of));
        }
        for address in left {
            if let Some(entry) = self.entries.get_mut(&address) {
                entry.yielded = Some((rival, now + YIELD_TO_DEAF));
                entry.leave_to(rival);
            }
            // Before the group of its answers is left.
            self.listen_on(address, now);
            self.rest(address, now);
            self.set_owner(address, Some(rival));
            self.publish(address, true);
            self.dirty.insert(address);
        }
    }

    /// Whether a node was found not to hear this one, and no gossip of it says otherwise since.
    fn is_deaf(&self, node: NodeId, now: Instant) -> bool {
        let deaf = self.nodes.get(&node).and_then(|node| node.deaf);
        deaf.is_some_and(|at| now.saturating_duration_since(at) < YIELD_TO_DEAF) && !self.talks(node)
    }

    /// Whether a claim says anything that [`handle_claim`](Self::handle_claim) does something with. A client that asks for
    /// an address says where its own is: that alone concerns nobody.
    pub(super) fn concerns(&self, claim: responder::Claim, now: Instant) -> bool {
        let responder::Claim { address, mac } = claim;
        let seeks = self.seeks(now);
        self.entries.contains_key(&address)
            // A node that lives, or whose host does.
            || (seeks || !self.hosts.is_empty()) && self.stations.contains_key(&mac)
            || self.hosts.asks_for(address)
            || seeks && self.peer_at(address).is_some()
    }

    /// Somebody says that an address is at a station.
    pub(super) fn handle_claim(&mut self, link: LinkIndex, claim: responder::Claim, now: Instant) {
        let responder::Claim { address, mac } = claim;
        if self.ports.values().any(|port| port.link.mac == mac) {
            return;
        }
        if self.seeks(now)
            && let Some(node) = self.peer_at(address)
            && self.may_be_at(mac, node)
        {
            self.introduce(std::iter::once(mac), node, now);
        }
        let touched = self.hosts.hear(link, address, mac, now);
        self.dirty.extend(touched);
        let node = self.stations.get(&mac).copied();
        let talks = node.is_some_and(|node| self.talks(node));
        let deaf = node.is_some_and(|node| self.is_deaf(node, now));
        if let Some(node) = node.and_then(|node| self.nodes.get_mut(&node)) {
            node.claimed = Some(now);
            node.deaf = if deaf { Some(now) } else { None };
        }
        let wanted = self.entries.get(&address).and_then(|entry| entry.wanted.as_ref());
        let reach = wanted.map_or(0, |wanted| self.reach(wanted));
        let candidate = wanted.is_some_and(|wanted| self.is_candidate(wanted));
        let Some(entry) = self.entries.get_mut(&address).filter(|entry| entry.is_wanted_on(link)) else {
            return;
        };
        let Some(node) = node else {
            self.handle_stranger(address, link, mac, now);
            return;
        };
        let until = now + if talks { YIELD_TO_GOSSIP } else { YIELD };
        match entry.phase {
            Phase::Owner => {
                // Who may not have the address leaves it to anyone that has. What one that gossips reaches is settled there.
                // Of one that never said it, it may be as far: the score alone decides, as it does there.
                let known = entry.known_reach_of(node).filter(|_| !talks);
                let reached = known.map_or((0, 0), |known| (known, reach));
                let score = |node| (rendezvous::score_of(address, node), node);
                // A claim that was under way when the address was handed over to this node.
                let gave = entry.bids.iter().any(|(of, item)| {
                    *of == node && matches!(item.claim, Claim::HandingOver { to, .. } if to == self.me)
                });
                let better = (reached.0, score(node)) > (reached.1, score(self.me));
                if (better || !candidate) && !gave {
                    entry.yielded = Some((node, until));
                    entry.leave_to(node);
                    self.rest(address, now);
                    self.set_owner(address, Some(node));
                } else {
                    self.repeat(address, Some(node), now);
                }
            }
            Phase::HandingOver { to, .. } if to == node => {
                entry.yielded = Some((node, until));
                entry.leave_to(node);
                self.rest(address, now);
                self.set_owner(address, Some(node));
            }
            Phase::StandIn { owner } if owner != node => {
                entry.yielded = Some((node, until));
                entry.leave_to(node);
                self.rest(address, now);
            }
            Phase::Probing { .. } => {
                // The kernel of a node that says itself that it does not own the address: no rival, and no stranger.
                let bid = entry.bids.iter().find(|(of, _)| *of == node).map(|(_, item)| item.claim);
                let owns = matches!(bid, Some(Claim::Owner { .. } | Claim::HandingOver { .. }));
                if owns || !talks {
                    entry.yielded = Some((node, until));
                    self.rest(address, now);
                }
            }
            _ => {
                if let Some((of, old)) = &mut entry.yielded
                    && *of == node
                {
                    // Also one that was a member still when the address was left to it.
                    let left = !talks && old.saturating_duration_since(now) > YIELD;
                    *old = if deaf || left { now + YIELD_TO_DEAF } else { until.max(*old) };
                }
            }
        }
        self.dirty.insert(address);
    }

    /// Somebody asks, as this node does, whether an address is free: a stranger means to take it (RFC 5227 section 2.1.1,
    /// RFC 4862 section 5.4.3). With another node of ours it is settled by gossip; where one was never heard of, it may be
    /// the one that asks, and is looked for first.
    pub(super) fn handle_probe(&mut self, link: LinkIndex, probe: responder::Claim, now: Instant) {
        let responder::Claim { address, mac } = probe;
        if self.ports.values().any(|port| port.link.mac == mac) || self.stations.contains_key(&mac) {
            return;
        }
        let entry = self.entries.get(&address);
        if entry.is_none_or(|entry| !entry.is_wanted_on(link) || entry.asker.is_some()) {
            return;
        }
        self.seek(now);
        let until = if self.seeks(now) { now + INTRODUCTION } else { now };
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.asker = Some((link, mac, until));
        }
        self.dirty.insert(address);
    }

    /// Whether the claim has to wait, for somebody else asks whether the address is free, and may be a node of ours.
    pub(super) fn waits_for_asker(&mut self, address: IpAddr, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(&address) else { return false };
        let Some((link, mac, until)) = entry.asker else { return false };
        if until > now && !self.stations.contains_key(&mac) {
            return true;
        }
        entry.asker = None;
        if self.stations.contains_key(&mac) {
            return false;
        }
        self.handle_stranger(address, link, mac, now);
        let spread = Duration::from_millis(self.next_random() % CONFLICT_SPREAD);
        if let Some(Entry { phase: Phase::Conflict { retry, .. }, .. }) = self.entries.get_mut(&address) {
            *retry += spread;
        }
        true
    }

    fn handle_stranger(&mut self, address: IpAddr, link: LinkIndex, mac: MacAddr, now: Instant) {
        if self.entries.get(&address).is_none_or(|entry| entry.phase == Phase::Idle) {
            return;
        }
        self.seek(now);
        let introduced = self.sought.map(|at| at + INTRODUCTION).filter(|until| *until > now);
        let retry = now + if self.seeks(now) { UNKNOWN_RETRY } else { CONFLICT_RETRY };
        let Some(entry) = self.entries.get_mut(&address) else { return };
        let news = entry.conflict.is_none_or(|(old, _)| old != mac);
        // A station that makes up its MAC address is one piece of news, not one for each frame.
        let quiet =
            entry.conflict.is_none() || entry.told.is_none_or(|at| now.saturating_duration_since(at) >= TELL);
        entry.conflict = Some((mac, now));
        if let Some(untold) = &mut entry.untold {
            // Of several, the last one: one that is no stranger may have come before it.
            (untold.link, untold.mac) = (link, mac);
            untold.times += 1;
        } else if let Some(until) = introduced.filter(|_| news && quiet) {
            entry.untold = Some(Untold { link, mac, until, times: 1 });
        } else {
            self.stats.conflicts += 1;
            if news && quiet {
                (entry.told, entry.telling) = (Some(now), true);
                self.events.push_back(Event::AddressConflict { address, link, mac });
            }
        }
        match entry.phase {
            Phase::Probing { .. } | Phase::Conflict { .. } => {
                entry.phase = Phase::Conflict { mac, retry };
            }
            Phase::Owner if self.announcer.defend(address, now) => {
                self.stats.defences += 1;
                self.announce(address);
            }
            _ => {}
        }
        self.dirty.insert(address);
    }

    /// A stranger may be a node of ours whose gossip does not get here. So the nodes that are not heard are asked, on the
    /// link, for the address of their gossip.
    fn seek(&mut self, now: Instant) {
        if self.seeks(now) {
            return;
        }
        let known: BTreeSet<NodeId> = self.stations.values().copied().collect();
        let peers = self.peers.iter().flatten().filter(|(node, _)| !known.contains(node));
        let mut unknown: Vec<_> = peers.map(|(_, peer)| peer.gossip.ip()).collect();
        if unknown.is_empty() {
            return;
        }
        self.sought = Some(now);
        let start = usize::try_from(self.next_random() >> 33).unwrap_or(0) % unknown.len();
        unknown.rotate_left(start);
        for address in unknown.into_iter().take(SOUGHT) {
            self.ask_host(address, None, false, now);
        }
    }

    /// Whether nodes were asked where they are a short while ago.
    pub(super) fn seeks(&self, now: Instant) -> bool {
        self.sought.is_some_and(|at| now.saturating_duration_since(at) < SEEK_INTERVAL)
    }

    fn peer_at(&self, address: IpAddr) -> Option<NodeId> {
        self.peers.iter().flatten().find(|(_, peer)| peer.gossip.ip() == address).map(|(node, _)| *node)
    }

    /// Whether one more station may be a node's, by its own word alone. Anybody can say so, and a node has no more of them
    /// than it tells of.
    fn may_be_at(&self, mac: MacAddr, node: NodeId) -> bool {
        self.stations.get(&mac) != Some(&node)
            && self.stations.values().filter(|of| **of == node).take(MAX_LINKS).count() < MAX_LINKS
    }

    /// These stations are a node's: none of them is a stranger any more.
    pub(super) fn introduce(&mut self, macs: impl Iterator<Item = MacAddr>, node: NodeId, now: Instant) {
        for mac in macs {
            self.stations.insert(mac, node);
        }
        let known = |mac| self.stations.get(&mac) == Some(&node);
        let settled = |(address, entry): (&IpAddr, &Entry)| {
            entry.conflict.is_some_and(|(mac, _)| known(mac)).then_some(*address)
        };
        let settled: Vec<_> = self.entries.iter().filter_map(settled).collect();
        for address in settled {
            let Some(entry) = self.entries.get_mut(&address) else { continue };
            let told = entry.end_conflict();
            match entry.phase {
                Phase::Conflict { .. } => self.rest(address, now),
                // The node learns who claims what it has, and one of both lets go.
                Phase::Owner => self.announce(address),
                _ => {}
            }
            self.events.extend(told.then_some(Event::AddressConflictEnded { address }));
            self.dirty.insert(address);
        }
    }

    /// A station that nobody introduced is a stranger.
    pub(super) fn tell_of_stranger(&mut self, address: IpAddr, now: Instant) {
        let Some(entry) = self.entries.get_mut(&address) else { return };
        if entry.untold.is_none_or(|untold| untold.until > now) {
            return;
        }
        if let Some(Untold { link, mac, times, .. }) = entry.untold.take()
            && entry.conflict.is_some()
        {
            (entry.told, entry.telling) = (Some(now), true);
            self.stats.conflicts += times;
            self.events.push_back(Event::AddressConflict { address, link, mac });
        }
    }
}
