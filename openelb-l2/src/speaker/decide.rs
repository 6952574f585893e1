//! From what is known of an address to what is done for it.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use super::{
    Event, Failback, LinkIndex, Output, Speaker, StopMode,
    entry::{Entry, Phase, Wanted},
    speaker::Port,
};
use crate::{
    MacAddr, announcer,
    ownership::{
        arbiter::{self, Bid, Holding, Kernel, Last, Me, Verdict},
        message::{self, Claim, Item, Links, NodeId},
        rendezvous,
    },
    wire::{arp, ndp},
};

/// A planned hand-over ends after this time, claimed or not.
const HAND_OVER: Duration = Duration::from_secs(2);
/// An owner that may not own the address any more goes on for this long where nobody else may: who may now hears of the
/// same change a little later, and is handed the address.
const LINGER: Duration = Duration::from_secs(1);
/// An address that was heard at a better node is left to it for this long, unless gossip says more.
pub(super) const YIELD: Duration = Duration::from_secs(2);
/// An address that was heard at a node that gossips is left to it for this long: what it says of the address is on its
/// way.
pub(super) const YIELD_TO_GOSSIP: Duration = Duration::from_millis(300);
/// Whoever claims for this long against repeated claims does not hear them. A little less than a step of the usual burst.
pub(super) const DEAF: Duration = Duration::from_millis(900);
/// To a node that does not hear this one, it is left until its next refresh is overdue.
pub(super) const YIELD_TO_DEAF: Duration = Duration::from_secs(150);
/// A member for this long since then answers probes.
const HEARS: Duration = Duration::from_secs(2);
/// A deaf node that goes on gossiping is known to be gone after this time without a word: it asks for those that it lost
/// every 40 ms, and says what it claimed every 400 ms.
pub(super) const MUTE: Duration = Duration::from_millis(1500);
/// A link that is up for so long has an IPv6 address by now, if it gets one: the kernel waits for up to a second before it
/// asks whether somebody else has it, and for one more for the answer (RFC 4862 section 5.4.2).
const NEW: Duration = Duration::from_millis(2500);
/// Probes are so far apart at least.
const SHORTEST_SPACING: Duration = Duration::from_millis(1);
/// Instead of a time that no clock can tell.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// A stranger that was not heard for this long is gone.
const CONFLICT_OVER: Duration = Duration::from_secs(60);

/// Which of these addresses of a link a question for another comes from: of IPv6 the link-local one, of IPv4 the nearest.
fn source_towards<'a>(target: IpAddr, own: impl Iterator<Item = &'a IpAddr>) -> Option<IpAddr> {
    match target {
        IpAddr::V4(target) => {
            let near = |own: &Ipv4Addr| (own.to_bits() ^ target.to_bits()).leading_zeros();
            let v4 = own.filter_map(|own| if let IpAddr::V4(own) = own { Some(*own) } else { None });
            v4.max_by_key(near).map(IpAddr::V4)
        }
        IpAddr::V6(_) => {
            let local = |own: &IpAddr| matches!(own, IpAddr::V6(own) if own.is_unicast_link_local());
            own.filter(|own| own.is_ipv6()).max_by_key(|own| local(own)).copied()
        }
    }
}

impl Speaker {
    /// Whether this node may own an address that is wanted so.
    pub(super) fn is_candidate(&self, wanted: &Wanted) -> bool {
        wanted.eligible && self.stays() && self.is_answerable(wanted)
    }

    /// Whether it may not, but could answer in the owner's name: it knows the owner, and where it is.
    fn is_helper(&self, entry: &Entry) -> bool {
        let wanted = entry.wanted.as_ref().filter(|wanted| !wanted.eligible);
        let located = |node: &super::gossip::Node| !node.about.links.is_empty();
        self.stays()
            && wanted.is_some_and(|wanted| self.is_answerable(wanted))
            && entry.last_node().and_then(|last| self.nodes.get(&last)).is_some_and(located)
    }

    fn stays(&self) -> bool {
        self.stopping.as_ref().is_none_or(|stopping| stopping.mode == StopMode::Restart)
    }

    fn is_answerable(&self, wanted: &Wanted) -> bool {
        self.decisive_links(wanted).next().is_some()
    }

    /// The links that count, as far as they can be used.
    fn decisive_links(&self, wanted: &Wanted) -> impl Iterator<Item = LinkIndex> {
        let links = wanted.decisive().iter().copied();
        links.filter(|link| self.ports.get(link).is_some_and(Port::is_up))
    }

    /// How well this node reaches the clients.
    pub(super) fn reach(&self, wanted: &Wanted) -> u8 {
        let beyond = self.decisive_links(wanted).count().saturating_sub(1);
        message::reach(!wanted.home.is_empty(), beyond)
    }

    /// Decides what to do for an address, does it, and says so to the others.
    pub(super) fn evaluate(&mut self, address: IpAddr, now: Instant) {
        self.stats.decisions += 1;
        self.settle_address(address, now);
        self.listen_on(address, now);
    }

    fn settle_address(&mut self, address: IpAddr, now: Instant) {
        let Some(entry) = self.entries.get(&address) else { return };
        let Some(wanted) = &entry.wanted else {
            self.rest(address, now);
            self.set_owner(address, None);
            self.publish(address, false);
            if self.entries.get(&address).is_some_and(|entry| entry.is_idle()) {
                self.entries.remove(&address);
            }
            return;
        };
        let candidate = self.is_candidate(wanted);
        if self.unsettled.is_none() {
            let (reach, links) = (self.reach(wanted), self.decisive_links(wanted).collect::<Vec<_>>());
            if let Some(entry) = self.entries.get_mut(&address) {
                let owns = matches!(entry.phase, Phase::Owner | Phase::HandingOver { .. });
                entry.peak = if owns { entry.peak.max(reach) } else { 0 };
                entry.unfit = if owns && !candidate { entry.unfit.or(Some(now)) } else { None };
            }
            let me = self.me(address, now);
            let bids = self.bids(address, now);
            let yields = self.yields(address, now);
            let talks = yields.is_some_and(|(node, _)| self.talks(node));
            let Some(entry) = self.entries.get_mut(&address) else { return };
            let owns = entry.phase == Phase::Owner;
            if let Some(rival) = arbiter::holder(&bids).filter(|_| !owns) {
                // Whoever claimed meanwhile, and with which number: one that lives holds.
                let claimed = rival.claimed();
                if !rival.suspect || entry.last.is_none_or(|last| last.sequence <= claimed.sequence) {
                    entry.last = Some(claimed);
                }
                if !rival.suspect {
                    entry.standing = None;
                }
            }
            // One that lost a link is no more there than one that lost all: whoever takes over has to reach further.
            let least = |node| {
                if me.candidate { links.len().min(1 + message::beyond(entry.reach_of(node))) } else { 1 }
            };
            let permits = |node| entry.wanted.as_ref().is_none_or(|wanted| wanted.permits(node));
            let kernel = |node| match self.hosts.state(node, &links, least(node), now) {
                _ if !permits(node) => Kernel::Barred,
                state => state,
            };
            let mut verdict = arbiter::decide(&me, &bids, entry.last, kernel);
            let offered =
                |bid: &Bid| matches!(bid.item.claim, Claim::HandingOver { to, .. } if to == self.me);
            if let Some((node, mute_at)) = yields
                && !bids.iter().any(offered)
                && matches!(
                    verdict,
                    Verdict::Own
                        | Verdict::Standby { owner: None }
                        | Verdict::Ask { .. }
                        | Verdict::StandIn { .. }
                )
                && !owns
            {
                // Should it be gone, then whether its host answers, and whether anybody else has the address, is known
                // when it has been left alone for long enough.
                let until = entry.yielded.map(|(_, until)| mute_at.map_or(until, |at| at.min(until)));
                let soon = until.is_some_and(|until| until.saturating_duration_since(now) <= YIELD);
                let gone = soon && entry.asks == Some(node);
                let probing = self.settings.probe_spacing.saturating_mul(self.settings.probes.into());
                verdict = match verdict {
                    Verdict::Own
                        if gone
                            && !talks
                            && mute_at.is_some_and(|at| at.saturating_duration_since(now) <= probing) =>
                    {
                        verdict
                    }
                    Verdict::Own if gone => Verdict::Ask { owner: node },
                    Verdict::Ask { owner } | Verdict::StandIn { owner } if soon && owner == node => {
                        Verdict::Ask { owner: node }
                    }
                    _ => Verdict::Standby { owner: Some(node) },
                };
            }
            if let Verdict::Standby { owner: Some(owner) } = verdict
                && owner != self.me
                && let Some(of) = arbiter::represented(&bids, owner)
            {
                // This node may have slept while that one claimed. Whoever goes on in its name needs to know whose.
                let known = entry.last.filter(|last| last.node == owner).map_or(0, |last| last.sequence);
                entry.last = Some(Last { node: owner, sequence: of.sequence.max(known) });
            }
            if let Some(rival) = arbiter::rival(&bids).filter(|rival| !rival.suspect)
                && owns
                && verdict == Verdict::Own
                && rival.claimed().sequence >= entry.number
            {
                // The claim that stays is the later one from here on.
                entry.sequence = entry.sequence.saturating_add(1);
                entry.number = entry.sequence;
                entry.last = Some(Last { node: self.me, sequence: entry.number });
            }
            if let (Verdict::Own, Some(last)) =
                (verdict, entry.last_node().filter(|last| !owns && *last != self.me))
            {
                let beyond = self.hosts.count(last, &links, now).checked_sub(1);
                let near = message::is_near(entry.reach_of(last));
                entry.lame = beyond.map(|beyond| (last, message::reach(near, beyond)));
            }
            self.note_better(address, &me, &bids, now);
            let rivals = bids.iter().any(|bid| {
                bid.live && bid.ready && !bid.suspect && matches!(bid.item.claim, Claim::Owner { .. })
            });
            self.apply(address, verdict, rivals, now);
        }
        self.publish(address, candidate);
        self.set_wake(address, now);
    }

    fn me(&self, address: IpAddr, now: Instant) -> Me {
        let entry = self.entries.get(&address);
        let wanted = entry.and_then(|entry| entry.wanted.as_ref());
        let reach = wanted.map_or(0, |wanted| self.reach(wanted));
        let holding = match entry.map(|entry| entry.phase) {
            Some(Phase::Owner) => Holding::Owner,
            Some(Phase::HandingOver { to, until }) => Holding::HandingOver { to, overdue: until <= now },
            Some(Phase::StandIn { owner }) => {
                Holding::StandIn { owner, expired: self.is_expired(address, now) }
            }
            _ => Holding::Nothing,
        };
        let better = entry.and_then(|entry| entry.better);
        let failback = match self.settings.failback {
            Failback::Immediate => true,
            Failback::Manual => false,
            Failback::Delayed(delay) => {
                better.is_some_and(|(_, since)| now.saturating_duration_since(since) >= delay)
            }
        };
        Me {
            node: self.me,
            score: rendezvous::score_of(address, self.me),
            candidate: wanted.is_some_and(|wanted| self.is_candidate(wanted)),
            helper: entry.is_some_and(|entry| self.is_helper(entry)),
            reach,
            lost: entry.is_some_and(|entry| entry.peak > reach),
            lingers: self.stopping.is_none()
                && entry
                    .and_then(|entry| entry.unfit)
                    .is_some_and(|since| now.saturating_duration_since(since) < LINGER),
            mature: self.replica.about().mature,
            answerable: wanted.is_some_and(|wanted| self.is_answerable(wanted)),
            holding,
            failback,
            stand_in: !self.settings.stand_in.is_zero(),
        }
    }

    fn is_expired(&self, address: IpAddr, now: Instant) -> bool {
        let standing = self.entries.get(&address).and_then(|entry| entry.standing);
        standing.is_some_and(|(_, since)| now.saturating_duration_since(since) >= self.settings.stand_in)
    }

    fn bids(&self, address: IpAddr, now: Instant) -> Vec<Bid> {
        let Some(entry) = self.entries.get(&address) else { return Vec::new() };
        let bid = |(id, item): &(NodeId, Item)| {
            let node = self.nodes.get(id);
            let live = node.and_then(|node| node.live);
            let mut item = *item;
            if let Claim::Owner { sequence } = &mut item.claim
                && node.and_then(|node| node.heard) < self.woke
            {
                // It said so before this node slept.
                *sequence = 0;
            }
            Bid {
                node: *id,
                score: rendezvous::score_of(address, *id),
                live: live.is_some() || node.is_some_and(|node| node.speaks),
                suspect: live.is_some_and(|live| live.suspect),
                ready: node.is_some_and(super::gossip::Node::is_ready),
                fresh: node.is_some_and(|node| node.fresh_until(now).is_some()),
                mature: node.is_some_and(|node| node.about.mature),
                item,
            }
        };
        let mut bids: Vec<_> = entry.bids.iter().map(bid).collect();
        // A node that is back and says nothing of the address says that it does not want it.
        if let Some(last) = entry.last_node().filter(|last| entry.bids.iter().all(|(node, _)| node != last))
            && let Some(node) = self.nodes.get(&last)
        {
            let score = rendezvous::score_of(address, last);
            let (live, ready) = (node.live.is_some() || node.speaks, node.is_ready());
            let (suspect, item) = (node.live.is_some_and(|live| live.suspect), Default::default());
            let fresh = node.fresh_until(now).is_some();
            bids.push(Bid { node: last, score, live, suspect, ready, fresh, mature: false, item });
        }
        bids
    }

    /// What the node says of itself counts.
    pub(super) fn talks(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.live.is_some() && node.is_ready())
    }

    /// To whom the address is left because it was heard there, and when it has been silent for so long that it is gone.
    fn yields(&mut self, address: IpAddr, now: Instant) -> Option<(NodeId, Option<Instant>)> {
        let entry = self.entries.get(&address)?;
        let (node, until) = entry.yielded?;
        let remaining = until.saturating_duration_since(now);
        let deaf = remaining > YIELD;
        // One that is deaf gossips, too, although it thinks that nobody answers. Once it does not any more, it is gone;
        // and once it has heard that this node gave way, it says itself what it owns.
        let heard = self.nodes.get(&node).and_then(|node| node.heard);
        let gossiped = heard.filter(|heard| entry.since.saturating_duration_since(*heard) < MUTE);
        let claimed = self.nodes.get(&node).and_then(|node| node.claimed);
        let silent = |heard: Instant| now.saturating_duration_since(heard) >= MUTE;
        // What it claims on the wire is a word, too, and may be the only one.
        let words = || gossiped.into_iter().chain(claimed);
        let mute = words().next().is_some() && words().all(silent);
        let mute_at = words().max().map(|at| at + MUTE);
        let talks = self.talks(node);
        // It has acknowledged that; or it answers probes for so long that it must hear.
        let hears = self.replica.is_known_to(node) || remaining + HEARS <= YIELD_TO_DEAF;
        let yielded = &mut self.entries.get_mut(&address)?.yielded;
        if talks && (deaf && hears || remaining.is_zero()) {
            // What it says itself counts from here on, and whether it lives.
            *yielded = None;
            return None;
        }
        if talks && !deaf && remaining > YIELD_TO_GOSSIP {
            *yielded = Some((node, now + YIELD_TO_GOSSIP));
        } else if mute {
            *yielded = Some((node, now));
            return None;
        }
        (!remaining.is_zero()).then_some((node, mute_at))
    }

    /// Keeps since when an owner has a better candidate beside it.
    fn note_better(&mut self, address: IpAddr, me: &Me, bids: &[Bid], now: Instant) {
        let Some(entry) = self.entries.get_mut(&address) else { return };
        let better = (me.holding == Holding::Owner)
            .then(|| arbiter::best(me, bids, None))
            .flatten()
            .filter(|node| *node != me.node);
        entry.better = match (better, entry.better) {
            (Some(new), Some((old, since))) if new == old => Some((old, since)),
            (new, _) => new.map(|node| (node, now)),
        };
    }

    fn apply(&mut self, address: IpAddr, verdict: Verdict, rivals: bool, now: Instant) {
        let Some(phase) = self.entries.get(&address).map(|entry| entry.phase) else { return };
        match verdict {
            Verdict::Own => match phase {
                Phase::Owner => {
                    self.place(address, now);
                    let again = self.entries.get(&address).and_then(|entry| entry.again);
                    if rivals || again.is_some_and(|at| at <= now) {
                        self.repeat(address, None, now);
                    }
                }
                Phase::HandingOver { .. } => {
                    if let Some(entry) = self.entries.get_mut(&address) {
                        entry.peak = 0;
                    }
                    self.enter(address, Phase::Owner, now);
                    self.begin_burst(address, now);
                }
                Phase::Probing { left, next } => self.probe(address, left, next, now),
                Phase::Conflict { retry, .. } if retry <= now => self.begin_probing(address, now),
                Phase::Conflict { .. } => {}
                Phase::Idle | Phase::StandIn { .. } => self.take(address, now),
            },
            Verdict::Standby { owner } => {
                if let Some(entry) = self.entries.get_mut(&address) {
                    if phase == Phase::Owner
                        && let Some(owner) = owner
                    {
                        entry.leave_to(owner);
                    }
                    // A stranger that was met or looked for is no concern of this node any more.
                    entry.end_conflict();
                }
                self.rest(address, now);
                self.set_owner(address, owner);
            }
            Verdict::Ask { owner } => {
                // What its host has answered so far stays known.
                self.rest_but(address, Some(owner), now);
                self.set_owner(address, Some(owner));
            }
            Verdict::HandOver { to } => {
                if !matches!(phase, Phase::HandingOver { to: old, .. } if old == to) {
                    self.enter(address, Phase::HandingOver { to, until: now + HAND_OVER }, now);
                    // The next owner would take it for a claim against its own.
                    self.announcer.release(address);
                }
                self.place(address, now);
            }
            Verdict::StandIn { owner } => {
                self.ask_on_behalf(address, Some(owner), now);
                if phase != (Phase::StandIn { owner }) {
                    self.rest_but(address, Some(owner), now);
                    self.enter(address, Phase::StandIn { owner }, now);
                    if let Some(entry) = self.entries.get_mut(&address)
                        && entry.standing.is_none_or(|(of, _)| of != owner)
                    {
                        entry.standing = Some((owner, now));
                    }
                    let name = self.name(owner);
                    self.events.push_back(Event::StandInStarted { address, owner: name });
                }
                self.set_owner(address, Some(owner));
                self.place(address, now);
            }
        }
    }

    /// Claims an address, after a look for strangers if it was never claimed, or if it was last heard elsewhere.
    fn take(&mut self, address: IpAddr, now: Instant) {
        let Some(entry) = self.entries.get(&address) else { return };
        let heard_elsewhere = entry.yielded.is_some_and(|(node, _)| {
            // A node that gossips says itself whether it has the address.
            !self.talks(node)
        });
        if self.settings.probes > 0 && (!entry.is_proven() || heard_elsewhere) {
            self.begin_probing(address, now);
        } else {
            self.claim(address, now);
        }
    }

    fn begin_probing(&mut self, address: IpAddr, now: Instant) {
        // Whether the last owner's host is silent goes on being of interest.
        let asks = self.entries.get(&address).and_then(|entry| entry.asks);
        self.rest_but(address, asks, now);
        self.enter(address, Phase::Probing { left: self.settings.probes, next: now }, now);
        self.set_owner(address, None);
        self.probe(address, self.settings.probes, now, now);
    }

    fn probe(&mut self, address: IpAddr, left: u8, next: Instant, now: Instant) {
        if self.waits_for_asker(address, now) || next > now {
            return;
        }
        let links = self.usable_links(address);
        if links.iter().any(|(link, _)| self.unsent.waits(*link, address)) {
            return self.await_answers(address, now);
        }
        if left == 0 {
            self.claim(address, now);
            return;
        }
        // RFC 4862 section 5.4.2: first the group, to hear who else asks, then the question.
        for (link, _) in links.iter().filter(|_| address.is_ipv6()) {
            if let Some(port) = self.ports.get_mut(link)
                && port.probed.insert(address)
            {
                port.responder.listen(address);
            }
        }
        self.change_groups();
        for (link, mac) in links {
            self.outputs.push_back(Output::Frame { link, frame: announcer::probe(address, mac) });
        }
        let next = self.answered_by(now);
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.phase = Phase::Probing { left: left - 1, next };
        }
    }

    /// When the answers to a probe of now have come.
    pub(super) fn answered_by(&self, now: Instant) -> Instant {
        now.checked_add(self.settings.probe_spacing.max(SHORTEST_SPACING)).unwrap_or(now + FAR)
    }

    /// An address that is probed is listened for, and one that a node has that does not hear this one: it goes on claiming
    /// it to those alone that are in its group, and is known to live by that. Otherwise the group stays where the address
    /// is answered.
    pub(super) fn listen_on(&mut self, address: IpAddr, now: Instant) {
        let entry = self.entries.get(&address);
        if entry.is_some_and(|entry| matches!(entry.phase, Phase::Probing { .. })) {
            return;
        }
        let left = entry.is_some_and(|entry| {
            entry.yielded.is_some_and(|(_, until)| until.saturating_duration_since(now) > YIELD)
                || entry.owner.and_then(|node| self.nodes.get(&node)).is_some_and(|node| node.speaks)
        });
        let links = if left && address.is_ipv6() { self.usable_links(address) } else { Vec::new() };
        for (index, port) in &mut self.ports {
            if links.iter().any(|(link, _)| link == index) {
                if port.probed.insert(address) {
                    port.responder.listen(address);
                }
            } else if port.probed.remove(&address) {
                port.responder.ignore(address);
            }
        }
    }

    fn claim(&mut self, address: IpAddr, now: Instant) {
        // Only probes that nobody answered show that the stranger is gone.
        let probed = self
            .entries
            .get(&address)
            .is_some_and(|entry| matches!(entry.phase, Phase::Probing { .. } | Phase::Conflict { .. }));
        self.rest(address, now);
        let me = self.me;
        let Some(entry) = self.entries.get_mut(&address) else { return };
        entry.sequence = entry.sequence.saturating_add(1);
        entry.number = entry.sequence;
        entry.last = Some(Last { node: me, sequence: entry.number });
        entry.proven = true;
        entry.yielded = None;
        entry.standing = None;
        let told = entry.end_conflict();
        if told && probed {
            self.events.push_back(Event::AddressConflictEnded { address });
        }
        self.stats.claims += 1;
        self.insist_on(address, now);
        self.enter(address, Phase::Owner, now);
        self.set_owner(address, Some(me));
        self.place(address, now);
    }

    fn enter(&mut self, address: IpAddr, phase: Phase, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.phase = phase;
            entry.since = now;
        }
    }

    /// Answers for an address no more, and asks for nobody on its behalf.
    pub(super) fn rest(&mut self, address: IpAddr, now: Instant) {
        self.rest_but(address, None, now);
    }

    fn rest_but(&mut self, address: IpAddr, asks: Option<NodeId>, now: Instant) {
        self.ask_on_behalf(address, asks, now);
        let Some(entry) = self.entries.get_mut(&address) else { return };
        (entry.repeated, entry.again, entry.rival, entry.asker) = (None, None, None, None);
        let phase = std::mem::replace(&mut entry.phase, Phase::Idle);
        if phase == Phase::Idle {
            return;
        }
        if matches!(phase, Phase::Owner | Phase::HandingOver { .. } | Phase::StandIn { .. }) {
            // Whether the stranger is still there is for the next owner to find out.
            entry.end_conflict();
        }
        entry.since = now;
        self.announcer.release(address);
        for port in self.ports.values_mut() {
            port.responder.remove(address);
        }
        if let Phase::StandIn { owner } = phase {
            let owner = self.name(owner);
            self.events.push_back(Event::StandInEnded { address, owner });
        }
    }

    fn ask_on_behalf(&mut self, address: IpAddr, node: Option<NodeId>, now: Instant) {
        let wanted = self.entries.get(&address).and_then(|entry| entry.wanted.as_ref());
        let on: Vec<_> = wanted.into_iter().flat_map(|wanted| self.decisive_links(wanted)).collect();
        let Some(entry) = self.entries.get_mut(&address) else { return };
        let old = std::mem::replace(&mut entry.asks, node);
        if let Some(old) = old.filter(|old| Some(*old) != node) {
            self.hosts.cease(old, address);
        }
        if let Some(node) = node {
            let none = Links::new();
            let links = self.nodes.get(&node).map_or(&none, |node| &node.about.links);
            self.hosts.ask(node, address, &on, links, now);
        }
    }

    /// Puts the answers for an address on its links, and takes them from others. Where an owner is new, it announces.
    fn place(&mut self, address: IpAddr, now: Instant) {
        let Some(entry) = self.entries.get(&address) else { return };
        let Some(wanted) = &entry.wanted else { return };
        let phase = entry.phase;
        let mut fresh = false;
        for (index, port) in &mut self.ports {
            let usable = port.is_up() && wanted.links.contains(index);
            let mac = match phase {
                Phase::Owner | Phase::HandingOver { .. } if usable => Some(port.link.mac),
                Phase::StandIn { owner } if usable => self.hosts.mac(owner, *index),
                _ => None,
            };
            match mac {
                Some(mac) if port.responder.answer(address) != Some(mac) => {
                    port.responder.insert(address, mac);
                    fresh = true;
                }
                Some(_) => {}
                None => port.responder.remove(address),
            }
        }
        if fresh && phase == Phase::Owner {
            self.begin_burst(address, now);
        }
    }

    /// Announces an address now and by the schedule from now on.
    pub(super) fn begin_burst(&mut self, address: IpAddr, now: Instant) {
        self.announcer.claim(address, now);
        while self.announcer.poll_timeout().is_some_and(|at| at <= now) {
            let Some(due) = self.announcer.poll_due(now) else { break };
            self.announce(due);
        }
    }

    /// The links on which an address is announced now.
    pub(super) fn usable_links(&self, address: IpAddr) -> Vec<(LinkIndex, MacAddr)> {
        let wanted = self.entries.get(&address).and_then(|entry| entry.wanted.as_ref());
        let links = wanted.map(|wanted| wanted.links.as_slice()).unwrap_or_default();
        let ports = links.iter().filter_map(|link| self.ports.get(link).filter(|port| port.is_up()));
        ports.map(|port| (port.link.index, port.link.mac)).collect()
    }

    /// Says, unasked, that an address is here.
    pub(super) fn announce(&mut self, address: IpAddr) {
        for (link, mac) in self.usable_links(address) {
            for frame in announcer::announcement(address, mac) {
                self.stats.gratuitous += 1;
                self.outputs.push_back(Output::Frame { link, frame });
            }
        }
    }

    /// Asks whether a host has this address of its own. With a source of this node: a question without one says that the
    /// address is about to be taken, and a host that is about to take it itself would give it up (RFC 5227 section 2.1.1, RFC
    /// 4862 section 5.4.3). `at`: a question to this station alone, where its link-layer address is known: a switch that
    /// answers in the place of hosts (proxy ARP and ND, RFC 9161) answers what is sent to all, also for one that is dead.
    /// `probe`: of IPv4 without a source, for a host may have no way back to the source by this link.
    pub(super) fn ask_host(&mut self, address: IpAddr, at: Option<MacAddr>, probe: bool, now: Instant) {
        for port in self.ports.values().filter(|port| port.is_up()) {
            let (link, mac) = (port.link.index, port.link.mac);
            // One that Services have may be another node's.
            let own = port.link.addresses.iter().filter(|own| !self.entries.contains_key(own));
            let frame = match (address, source_towards(address, own)) {
                (IpAddr::V6(target), Some(IpAddr::V6(source))) => {
                    let destination = at.map_or_else(|| crate::solicited_node_multicast(target), |_| target);
                    let group = || MacAddr::ipv6_multicast(destination);
                    let message =
                        ndp::Message::Solicitation(ndp::Solicitation { target, source_mac: Some(mac) });
                    ndp::Packet { source, destination, message }.to_frame(mac, at.unwrap_or_else(group))
                }
                (IpAddr::V4(target), Some(IpAddr::V4(source))) if !probe => {
                    let request = arp::Packet { sender_ip: source, ..arp::Packet::probe(target, mac) };
                    request.to_frame(mac, at.unwrap_or(MacAddr::BROADCAST))
                }
                (IpAddr::V4(target), _) => {
                    arp::Packet::probe(target, mac).to_frame(mac, at.unwrap_or(MacAddr::BROADCAST))
                }
                // The answer to one without a source is to all (RFC 4861 section 7.2.4), and the socket filter lets it in
                // for addresses of Services alone. A link that is new has a source soon.
                (IpAddr::V6(_), _) if at.is_some() => {
                    if port.up_since.is_some_and(|since| now.saturating_duration_since(since) < NEW) {
                        self.hosts.not_asked(link, address, now);
                    }
                    continue;
                }
                _ => announcer::probe(address, mac),
            };
            self.outputs.push_back(Output::Frame { link, frame });
        }
    }

    pub(super) fn set_owner(&mut self, address: IpAddr, owner: Option<NodeId>) {
        let Some(entry) = self.entries.get_mut(&address) else { return };
        if std::mem::replace(&mut entry.owner, owner) != owner && entry.wanted.is_some() {
            let owner = owner.map(|node| self.name(node));
            self.events.push_back(Event::OwnerChanged { address, owner });
        }
    }

    pub(super) fn publish(&mut self, address: IpAddr, candidate: bool) {
        let Some(entry) = self.entries.get(&address) else { return };
        let reach = entry.wanted.as_ref().filter(|_| candidate).map(|wanted| self.reach(wanted));
        self.replica.set_item(address, entry.item(reach, self.is_helper(entry)));
    }

    fn set_wake(&mut self, address: IpAddr, now: Instant) {
        self.tell_of_stranger(address, now);
        let Some(entry) = self.entries.get_mut(&address) else { return };
        if entry.conflict.is_some_and(|(_, at)| at + CONFLICT_OVER <= now)
            && entry.phase == Phase::Owner
            && entry.end_conflict()
        {
            self.events.push_back(Event::AddressConflictEnded { address });
        }
        let phase = match entry.phase {
            Phase::Probing { next, .. } => Some(next),
            Phase::HandingOver { until, .. } => Some(until),
            Phase::Conflict { retry, .. } => Some(retry),
            Phase::StandIn { .. } => {
                entry.standing.and_then(|(_, since)| since.checked_add(self.settings.stand_in))
            }
            Phase::Idle | Phase::Owner => None,
        };
        let failback = match self.settings.failback {
            Failback::Delayed(delay) => entry.better.and_then(|(_, since)| since.checked_add(delay)),
            Failback::Immediate | Failback::Manual => None,
        };
        // A long one is looked after every second, and when the node was silent for too long: see `yields`.
        let yielded = entry.yielded.map(|(node, until)| {
            let word = self.nodes.get(&node).and_then(|node| node.heard.max(node.claimed));
            let mute = word.map(|at| at + MUTE);
            let probing = self.settings.probe_spacing.saturating_mul(self.settings.probes.into());
            let times = [mute.and_then(|at| at.checked_sub(probing)), mute];
            let next = times.into_iter().flatten().filter(|at| *at > now).min();
            until.min(now + DEAF).min(next.unwrap_or(until))
        });
        let conflict = entry.conflict.map(|(_, at)| at + CONFLICT_OVER);
        // What is past has been decided on.
        let asker = entry.asker.map(|(_, _, until)| until);
        let unfit = entry.unfit.map(|since| since + LINGER);
        let untold = entry.untold.map(|untold| untold.until);
        let last = entry.last_node().and_then(|last| self.nodes.get(&last));
        let fresh = last.and_then(|last| last.fresh_until(now));
        let all = [phase, failback, yielded, conflict, entry.again, asker, unfit, untold, fresh];
        let wake = all.into_iter().flatten().filter(|at| *at > now).min();
        if entry.wake != wake {
            if let Some(old) = entry.wake {
                self.wakes.remove(&(old, address));
            }
            self.wakes.extend(wake.map(|at| (at, address)));
            entry.wake = wake;
        } else if let Some(at) = wake {
            self.wakes.insert((at, address));
        }
    }
}
