//! What the others say, and what they are told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{
    Event, NodeName, Output, Speaker, SpeakerConfig,
    decide::MUTE,
    entry::{Entry, Phase},
    speaker::TICK,
};
use crate::ownership::{
    arbiter::Last,
    membership::{Live, Membership, Pace},
    message::{self, About, Body, Envelope, Kept, Mark, NodeId, Opened, State, window::Stale},
};

/// Nodes that do not live are asked to join this often, and so many at a time.
const SEED_INTERVAL: Duration = Duration::from_secs(1);
const SEEDS: usize = 8;
/// A node that was lost is asked for this often, so that the end of a partition is noticed before most clients notice it;
/// so many of them at a time, and for so long.
const KNOCK: Duration = Duration::from_millis(40);
const KNOCKS: usize = 16;
const KNOCK_FOR: Duration = Duration::from_secs(600);
/// One that restarts comes by itself within this time.
const RESTART: Duration = Duration::from_secs(3);
/// A node of which nothing was heard for so long may have missed what was said meanwhile.
const SILENCE: Duration = Duration::from_millis(300);
/// Whoever asked for our state is told of it for this long, whatever the membership says.
const COURTESY: Duration = Duration::from_secs(3);

/// Nodes that are no peers, and addresses that are not wanted, are remembered up to so many: without a key, anybody may
/// speak.
const MAX_STRANGERS: usize = 512;
const MAX_ADDRESSES: usize = 1 << 17;
/// State that is not answered goes by way of others after so many tries, and by so many of them.
const DIRECT_TRIES: u32 = 2;
const RELAYS: usize = 2;

/// Whoever knows what the others hold may have asked them just before they began to stand in for it.
const FRESH: Duration = Duration::from_millis(500);

/// Another node.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) name: Option<NodeName>,
    /// How much of its state is here.
    have: Mark,
    /// Whether that was all at the time.
    complete: bool,
    /// Since when what it says counts, if it does.
    ready_since: Option<Instant>,
    pub(super) about: About,
    pub(super) live: Option<Live>,
    /// The number of its life when it lived last.
    generation: Option<u64>,
    /// What it said that it has, in answer to which question.
    synced: Option<(u64, Mark)>,
    /// When anything was heard of it.
    pub(super) heard: Option<Instant>,
    /// When it last asked as one that does not know what others hold, unless it said since that it knows: its process has
    /// begun just now, or did not run.
    blank: Option<Instant>,
    /// Given up by the membership, and heard all the same, without a pause: what this node says does not arrive there. It
    /// lives, and what it owned then is still its own.
    pub(super) speaks: bool,
    /// When it was asked last to join, because it was heard.
    invited: Option<Instant>,
    /// When it was heard last to claim an address on the wire.
    pub(super) claimed: Option<Instant>,
    /// When it was last known not to hear this node: see [`repeat`](Speaker::repeat).
    pub(super) deaf: Option<Instant>,
    /// It asked for our state.
    asked: Option<(SocketAddr, Instant)>,
}

impl Node {
    /// What it says counts.
    pub(super) const fn is_ready(&self) -> bool {
        (self.complete || self.speaks) && self.about.settled && !self.about.restarting
    }

    /// Until when it may not know what others hold for it; `None`: it does.
    pub(super) fn fresh_until(&self, now: Instant) -> Option<Instant> {
        self.ready_since.map(|at| at + FRESH).filter(|until| *until > now)
    }

    /// It said that it restarts, and a restart takes that long.
    pub(super) fn restarts(&self, now: Instant) -> bool {
        let heard = || self.heard.is_some_and(|at| now.saturating_duration_since(at) < RESTART);
        self.about.restarting && (self.live.is_some() || heard())
    }

    /// It is gone for no reason that it gave, or away for longer than a restart takes, and not for ever. Also one that said
    /// goodbye: on the other side of a partition it may be back, and asks for this node, which it never heard, once a second.
    pub(super) fn is_lost(&self, now: Instant) -> bool {
        let Some(away) = self.heard.map(|at| now.saturating_duration_since(at)) else { return false };
        self.live.is_none() && away < KNOCK_FOR && (!self.about.restarting || away >= RESTART)
    }
}

/// This node does not know yet what the others hold.
#[derive(Debug)]
pub(super) struct Unsettled {
    since: Instant,
    nonce: u64,
    next: Instant,
}

impl Speaker {
    /// The number of this life: grows with the incarnation. The rest is random, so that a clock that went back to just
    /// the time of an earlier life does not make one life of two.
    pub(super) fn life(config: &SpeakerConfig) -> u64 {
        message::life(config.incarnation, crate::ownership::rendezvous::hash(&config.seed.to_be_bytes()))
    }

    pub(super) fn membership(config: &SpeakerConfig, generation: u64) -> Membership {
        let pace = Pace {
            probe_interval: config.probe_interval,
            probe_timeout: config.probe_timeout,
            suspicion: config.suspicion,
        };
        let seed = config.seed ^ generation.rotate_left(32);
        Membership::new(NodeId::of(&config.node), config.gossip, generation, pace, seed)
    }

    pub(super) fn next_random(&mut self) -> u64 {
        self.random = crate::ownership::rendezvous::hash(&self.random.wrapping_add(1).to_be_bytes());
        self.random
    }

    /// Nothing is answered or decided until the others have said what they hold.
    pub(super) fn unsettle(&mut self, now: Instant) {
        let nonce = self.next_random();
        self.unsettled = Some(Unsettled { since: now, nonce, next: now });
        self.next_tick = now;
    }

    /// The others are known from here on, and none of them was asked: what is not answered yet waits for what they say.
    pub(super) fn look_anew(&mut self, now: Instant) {
        let answers = |entry: &Entry| {
            matches!(entry.phase, Phase::Owner | Phase::HandingOver { .. } | Phase::StandIn { .. })
        };
        if self.unsettled.is_some() || self.entries.values().any(answers) {
            return;
        }
        let probing = |(address, entry): (&IpAddr, &Entry)| {
            matches!(entry.phase, Phase::Probing { .. }).then_some(*address)
        };
        // They may know that no stranger has it.
        let probing: Vec<_> = self.entries.iter().filter_map(probing).collect();
        probing.into_iter().for_each(|address| self.rest(address, now));
        self.unsettle(now);
    }

    /// Ends that when all others have answered, or have had the time to.
    pub(super) fn settle(&mut self, now: Instant) {
        let Some(unsettled) = self.unsettled.as_ref().filter(|_| self.is_informed()) else { return };
        let answered = |node: &NodeId| {
            self.nodes.get(node).is_some_and(|node| {
                node.synced.is_some_and(|(nonce, mark)| nonce == unsettled.nonce && node.have >= mark)
            })
        };
        let patience = self.config.probe_interval.saturating_add(self.config.suspicion);
        // Who is not known yet has not been asked.
        let asked = self.peers_since.map_or(unsettled.since, |since| since.max(unsettled.since));
        let over = now.saturating_duration_since(asked) >= patience;
        let live = self.nodes.iter().filter(|(_, node)| node.live.is_some()).map(|(id, _)| id);
        if over || self.peers.iter().flat_map(BTreeMap::keys).chain(live).all(answered) {
            self.unsettled = None;
            let about = About { settled: true, ..self.replica.about().clone() };
            self.replica.set_about(about);
            self.dirty.extend(self.entries.keys());
        }
    }

    /// This process did not run for so long that others may have taken over: it starts over, as a new process would,
    /// but remembers which addresses were its own.
    pub(super) fn stalled(&mut self, late: Duration, now: Instant) {
        self.stats.stalls += 1;
        self.woke = Some(now);
        self.events.push_back(Event::Stalled { late });
        let addresses: Vec<_> = self.entries.keys().copied().collect();
        for address in addresses {
            let owned = self
                .entries
                .get(&address)
                .is_some_and(|entry| matches!(entry.phase, Phase::Owner | Phase::HandingOver { .. }));
            self.rest(address, now);
            let Some(entry) = self.entries.get_mut(&address) else { continue };
            // Whoever was heard then may be gone.
            entry.yielded = None;
            if owned {
                entry.leave_to(self.me);
            }
            // What is remembered from before counts for less than what anybody says now.
            entry.last = entry.last.map(|last| Last { sequence: 0, ..last });
        }
        let generation = self.membership.generation().saturating_add(1);
        self.membership = Self::membership(&self.config, generation);
        self.replica.begin(self.replica.mark().epoch.saturating_add(1));
        self.unsettle(now);
        let live: Vec<_> = self.nodes.values_mut().filter_map(|node| node.live.take()).collect();
        for member in live {
            self.membership.announce(member.node, member.address, now);
        }
        self.next_seeds = now;
        self.dirty.extend(self.entries.keys());
        self.tick(now);
    }

    /// Regular work: seeds, questions, and who lives.
    pub(super) fn tick(&mut self, now: Instant) {
        self.next_tick = now + TICK;
        if self.is_stopped() {
            return;
        }
        self.membership.end_suspicions(now);
        if self.membership.take_rejoined() {
            self.next_seeds = now;
        }
        if self.next_seeds <= now {
            self.next_seeds = now + SEED_INTERVAL;
            let live = |node: &NodeId| self.nodes.get(node).is_some_and(|node| node.live.is_some());
            let mut seeds: Vec<_> = self
                .peers
                .iter()
                .flatten()
                .filter(|(node, _)| !live(node))
                .map(|(node, peer)| (*node, peer.gossip))
                .collect();
            if seeds.len() > SEEDS {
                let start = usize::try_from(self.next_random() >> 33).unwrap_or(0) % seeds.len();
                seeds.rotate_left(start);
            }
            for (node, address) in seeds.into_iter().take(SEEDS) {
                self.membership.announce(node, address, now);
            }
        }
        self.refresh_members(now);
        if self.next_knock.is_none() {
            self.knock(now);
        }
        self.insist(now);
        let nonce = self.unsettled.as_mut().filter(|unsettled| unsettled.next <= now).map(|unsettled| {
            unsettled.next = now + TICK;
            unsettled.nonce
        });
        self.ask_others(nonce);
    }

    /// Asks for nodes that were lost.
    pub(super) fn knock(&mut self, now: Instant) {
        let mut lost: Vec<_> =
            self.nodes.iter().filter(|(_, node)| node.is_lost(now)).map(|(id, _)| *id).collect();
        self.next_knock = (!lost.is_empty()).then(|| now + KNOCK);
        if lost.len() > KNOCKS {
            let start = usize::try_from(self.next_random() >> 33).unwrap_or(0) % lost.len();
            lost.rotate_left(start);
        }
        for node in lost.into_iter().take(KNOCKS) {
            self.ask(node, 0);
        }
    }

    /// Nobody was heard lately of all who could be.
    pub(super) fn is_isolated(&self, now: Instant) -> bool {
        let silent = |node: &Node| node.heard.is_none_or(|at| now.saturating_duration_since(at) >= SILENCE);
        self.peers.as_ref().is_some_and(|peers| !peers.is_empty()) && self.nodes.values().all(silent)
    }

    /// A node that was silent is heard: it may own what this node owns. Its claims were not heard, and ours not by it;
    /// whoever is the worse of the two stops as soon as it hears one.
    fn meet(&mut self, id: NodeId, now: Instant) {
        // What it said in an earlier life says nothing of this one.
        let unknown = self.nodes.get(&id).is_none_or(|node| !node.complete);
        let owned = |entry: &Entry| {
            let wants = || entry.bids.iter().any(|(of, item)| *of == id && item.candidate);
            matches!(entry.phase, Phase::Owner) && (unknown || wants())
        };
        let owned: Vec<_> =
            self.entries.iter().filter(|(_, entry)| owned(entry)).map(|(address, _)| *address).collect();
        for address in owned {
            self.repeat(address, None, now);
            self.dirty.insert(address);
        }
    }

    /// Asks all others what they have, or only those that live and have not said all.
    fn ask_others(&mut self, nonce: Option<u64>) {
        let peers = self.peers.iter().flatten().map(|(node, _)| *node).filter(|_| nonce.is_some());
        let lacks = |node: &Node| node.live.is_some() && (nonce.is_some() || !node.complete);
        let live = self.nodes.iter().filter(|(_, node)| lacks(node)).map(|(id, _)| *id);
        let targets: BTreeSet<_> = peers.chain(live).collect();
        for node in targets {
            self.ask(node, nonce.unwrap_or(0));
        }
    }

    /// Asks a node how much state it has, and says how much of it is here.
    fn ask(&mut self, id: NodeId, nonce: u64) {
        let node = self.nodes.get(&id);
        let have = node.map(|node| node.have).unwrap_or_default();
        let live = node.and_then(|node| node.live).map(|live| live.address);
        let peer = || self.peers.as_ref()?.get(&id).map(|peer| peer.gossip);
        let lacks = node.is_some_and(|node| node.live.is_some() && !node.complete);
        if let Some(address) = live.or_else(peer) {
            self.send(id, address, &Body::Sync { nonce, have });
        }
        if lacks {
            self.send_around(id, Body::Sync { nonce, have });
        }
    }

    /// Sends by way of others, for there may be no direct way, or none back.
    fn send_around(&mut self, target: NodeId, inner: Body) {
        let relay = Body::Relay { target, origin: self.me, inner: Box::new(inner) };
        let others = self.nodes.iter().filter(|(id, _)| **id != target).filter_map(|(_, node)| node.live);
        let others: Vec<_> = others.filter(|live| !live.suspect).collect();
        if others.is_empty() {
            return;
        }
        let start = usize::try_from(self.next_random() >> 33).unwrap_or(0) % others.len();
        for other in others.iter().cycle().skip(start).take(others.len().min(RELAYS)) {
            self.send(other.node, other.address, &relay);
        }
    }

    /// Answers on the way on which the question came.
    fn answer(&mut self, to: NodeId, from: SocketAddr, via: Option<NodeId>, body: Body) {
        if let Some(via) = via {
            let relay = Body::Relay { target: to, origin: self.me, inner: Box::new(body) };
            self.send(via, from, &relay);
        } else {
            self.send(to, from, &body);
        }
    }

    /// Takes over who lives from the membership.
    pub(super) fn refresh_members(&mut self, now: Instant) {
        let members: BTreeMap<NodeId, Live> = self
            .membership
            .live()
            .filter(|live| live.node != self.me)
            .map(|live| (live.node, live))
            .collect();
        let (suspicion, stands_in) = (self.config.suspicion, !self.settings.stand_in.is_zero());
        let (mut changed, mut asked) = (Vec::new(), Vec::new());
        for (id, live) in &members {
            if !self.admits(*id) {
                continue;
            }
            let node = self.nodes.entry(*id).or_default();
            // What its process before this one said is not said by this one, whose own state may be here already. (A
            // process that had to come back as a new member may look like that, too; without stand-ins that would move
            // its addresses.)
            let restarted = |old: u64| message::is_restarted(old, live.generation);
            let known = node.generation.replace(live.generation).is_some_and(restarted);
            let reborn = known && restarted(node.have.epoch) && stands_in;
            node.complete &= !reborn;
            if reborn || node.live.is_none_or(|old| old.suspect != live.suspect) {
                changed.push((*id, node.live.is_none().then_some(true)));
            }
            node.live = Some(*live);
            if reborn {
                asked.push(*id);
            }
        }
        for (id, node) in &mut self.nodes {
            if !members.contains_key(id) && node.live.take().is_some() {
                // When it is back, it may be another life of it, which has not said anything yet.
                node.complete = false;
                // One that died was not heard since it was suspected; the process after it may be, already.
                let within =
                    |at: Option<Instant>, time| at.is_some_and(|at| now.saturating_duration_since(at) < time);
                node.speaks = within(node.heard, suspicion / 2) && !within(node.blank, 2 * TICK);
                changed.push((*id, Some(false)));
            }
        }
        for (id, up) in changed {
            if up == Some(true) || asked.contains(&id) {
                self.ask(id, 0);
            }
            if let Some(up) = up {
                let node = self.name(id);
                self.events.push_back(if up {
                    Event::SpeakerUp { node }
                } else {
                    Event::SpeakerDown { node }
                });
            }
            self.touch(id);
        }
        self.listen(now);
        self.forget_nodes(now);
        let courtesy = |node: &Node| node.asked.map(|(address, _)| address);
        let readers = self.nodes.iter().filter_map(|(id, node)| {
            node.live.map(|live| live.address).or_else(|| courtesy(node)).map(|address| (*id, address))
        });
        let readers = readers.collect();
        self.replica.set_readers(&readers);
    }

    /// Notes who is not heard any more of those that were given up and heard all the same.
    fn listen(&mut self, now: Instant) {
        let mut changed = Vec::new();
        for (id, node) in &mut self.nodes {
            // On the wire, too: without an answer its kernel soon does not know where to send gossip to.
            let mut heard = node.heard.into_iter().chain(node.claimed);
            let recent = heard.any(|heard| now.saturating_duration_since(heard) < MUTE);
            if node.speaks && (node.live.is_some() || !recent) {
                node.speaks = false;
                changed.push(*id);
            }
        }
        changed.into_iter().for_each(|id| self.touch(id));
    }

    /// Forgets who is gone and not expected back.
    pub(super) fn forget_nodes(&mut self, now: Instant) {
        for node in self.nodes.values_mut() {
            node.asked = node.asked.filter(|(_, at)| now.saturating_duration_since(*at) < COURTESY);
        }
        let Some(peers) = &self.peers else { return };
        let gone = |(id, node): (&NodeId, &Node)| {
            (node.live.is_none() && node.asked.is_none() && !peers.contains_key(id)).then_some(*id)
        };
        let gone: Vec<_> = self.nodes.iter().filter_map(gone).collect();
        for id in gone {
            self.touch(id);
            self.nodes.remove(&id);
            self.stations.retain(|_, node| *node != id);
            for entry in self.entries.values_mut() {
                entry.bids.retain(|(node, _)| *node != id);
            }
        }
    }

    /// Where nodes are of which this one never heard itself, for they were gone when it came.
    pub(super) fn learn_links(&mut self, kept: Kept, now: Instant) {
        for (of, links) in kept {
            if of == self.me || !self.listens_to(of) {
                continue;
            }
            let node = self.nodes.entry(of).or_default();
            if node.about.links.is_empty() && !links.is_empty() {
                node.about.links.clone_from(&links);
                self.introduce(links.iter().map(|(mac, _)| *mac), of, now);
                self.touch(of);
            }
        }
    }

    /// Whether there is room for what this node says.
    fn admits(&self, node: NodeId) -> bool {
        let peers = self.peers.as_ref();
        let room = peers.map_or(0, BTreeMap::len) + MAX_STRANGERS;
        self.nodes.len() < room
            || self.nodes.contains_key(&node)
            || peers.is_some_and(|peers| peers.contains_key(&node))
    }

    /// Every address of which this node speaks, or that it had, is to be decided anew.
    fn touch(&mut self, node: NodeId) {
        let concerns = |entry: &Entry| {
            entry.last_node() == Some(node)
                || entry.yielded.is_some_and(|(of, _)| of == node)
                || entry.bids.iter().any(|(of, _)| *of == node)
        };
        self.dirty
            .extend(self.entries.iter().filter(|(_, entry)| concerns(entry)).map(|(address, _)| *address));
    }

    /// Takes a datagram in; `None`: it was not good.
    pub(super) fn gossip(&mut self, from: SocketAddr, payload: &[u8], now: Instant) -> Option<()> {
        let Opened { sender, number, body } = message::open(self.config.key.as_ref(), self.me, payload)?;
        if sender == self.me || self.is_stopped() {
            return None;
        }
        if let Some(number) = number {
            if let Body::Stale(known) = body {
                // Whoever says so may be taken for an earlier life of itself here.
                self.numbers.outlive(known);
                return Some(());
            }
            let peers = self.peers.as_ref();
            let room = peers.map_or(0, BTreeMap::len) + MAX_STRANGERS;
            let kept = |node| peers.is_some_and(|peers| peers.contains_key(&node));
            match self.numbers.take(sender, number, now, room, kept) {
                Ok(()) => {}
                Err(Stale::Seen) => return None,
                Err(Stale::Behind(newest)) => {
                    let stale = Body::Stale(newest);
                    self.send(sender, from, &stale);
                    // There may be no direct way back.
                    self.send_around(sender, stale);
                    return None;
                }
            }
        }
        // What waited while this process did not run is no sign of life.
        if self.woke.is_none_or(|at| now.saturating_duration_since(at) >= TICK) {
            self.hear_of(sender, now);
        }
        let asks = matches!(body, Body::Sync { .. } | Body::Synced { .. });
        let done = self.handle_body(sender, from, None, body, now);
        if asks {
            self.invite(sender, now);
        }
        done
    }

    /// Any word counts, also the first and only one: whoever was heard is missed once it is silent.
    fn hear_of(&mut self, id: NodeId, now: Instant) {
        if self.peers.as_ref().is_some_and(|peers| peers.contains_key(&id)) {
            self.nodes.entry(id).or_default();
        }
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let before = node.heard.replace(now);
        // A new node is no reason to announce everything: what both have is settled once it has joined.
        let silent = before.is_some_and(|at| now.saturating_duration_since(at) >= SILENCE);
        if silent && node.live.is_none() {
            self.meet(id, now);
        }
    }

    /// A peer that asks or answers and is no member is asked to join at once: until it is one, nothing that it says counts.
    fn invite(&mut self, id: NodeId, now: Instant) {
        let Some(peer) = self.peers.as_ref().and_then(|peers| peers.get(&id)) else { return };
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.live.is_none()) else { return };
        if node.invited.is_none_or(|at| now.saturating_duration_since(at) >= TICK) {
            node.invited = Some(now);
            self.membership.announce(id, peer.gossip, now);
        }
    }

    fn handle_body(
        &mut self,
        sender: NodeId,
        from: SocketAddr,
        via: Option<NodeId>,
        body: Body,
        now: Instant,
    ) -> Option<()> {
        if !self.admits(sender) {
            return None;
        }
        match body {
            Body::Relay { target, origin, inner } if target == self.me && origin != self.me => {
                return self.handle_body(origin, from, Some(sender), *inner, now);
            }
            Body::Relay { target, origin, inner } => {
                // One hop, from the one who asks.
                let live = self.nodes.get(&target).and_then(|node| node.live).filter(|_| origin == sender)?;
                self.send(target, live.address, &Body::Relay { target, origin, inner });
            }
            Body::Swim(octets) => {
                let errors = self.membership.errors;
                let peers = self.peers.as_ref();
                let is_peer = |node| peers.is_some_and(|peers| peers.contains_key(&node));
                if let Some(epoch) = self.membership.handle(sender, &octets, is_peer, now) {
                    self.send(sender, from, &Body::Ack(Mark { epoch, version: 0 }));
                }
                if self.membership.take_rejoined() {
                    self.next_seeds = now;
                    self.next_tick = now;
                }
                self.refresh_members(now);
                return (self.membership.errors == errors).then_some(());
            }
            Body::State(state) => self.hear_state(sender, from, via, state, now),
            Body::Ack(mark) => self.acknowledge(sender, mark, now),
            Body::Stale(known) => self.numbers.outlive(known),
            Body::Sync { nonce, have } => {
                let node = self.nodes.entry(sender).or_default();
                if via.is_none() {
                    node.asked = Some((from, now));
                    node.blank = Some(now).filter(|_| nonce != 0).or(node.blank);
                }
                self.refresh_members(now);
                self.acknowledge(sender, have, now);
                let mark = self.replica.mark();
                self.answer(sender, from, via, Body::Synced { nonce, mark });
                // Nobody else tells one that has no direct way here that it has to come back as a new member.
                if let Some(generation) = self.membership.gone(sender).filter(|_| via.is_some()) {
                    let epoch = generation.saturating_add(1);
                    self.answer(sender, from, via, Body::Ack(Mark { epoch, version: 0 }));
                }
            }
            Body::Synced { nonce, mark } => {
                let node = self.nodes.entry(sender).or_default();
                node.synced = Some((nonce, mark));
                if node.live.is_some() && node.have == mark && !node.complete {
                    node.complete = true;
                    if node.is_ready() {
                        node.ready_since = Some(now);
                    }
                    self.touch(sender);
                }
            }
        }
        Some(())
    }

    /// Somebody says how much of this node's state it has.
    fn acknowledge(&mut self, reader: NodeId, mark: Mark, now: Instant) {
        if mark.version == 0 && mark.epoch != 0 && mark.epoch <= self.membership.generation() {
            // Says only that lives with lower numbers are ignored, and this one has none.
            return;
        }
        self.replica.acknowledge(reader, mark, now);
        if mark.epoch > self.membership.generation() {
            // Whoever knows a later life ignores this one as a member, too.
            self.membership.outlive(message::life_after(mark.epoch), now);
        }
    }

    fn hear_state(
        &mut self,
        sender: NodeId,
        from: SocketAddr,
        via: Option<NodeId>,
        state: State,
        now: Instant,
    ) {
        // One that is neither a peer nor a member says it again once it is: without a key anybody can be anybody, and what
        // hundreds say of many addresses takes more memory than there is.
        if NodeId::of(&state.name) != sender || !self.listens_to(sender) {
            return;
        }
        let node = self.nodes.entry(sender).or_default();
        let reborn = state.epoch > node.have.epoch;
        let old_life = state.epoch < node.have.epoch;
        let news = reborn || !old_life && state.to > node.have.version;
        let fits = reborn && state.from == 0 || news && state.from <= node.have.version;
        if fits {
            if reborn || state.reset {
                node.complete = false;
            }
            let was_ready = node.is_ready();
            node.have = Mark { epoch: state.epoch, version: state.to };
            node.complete = state.to == state.last || node.complete && state.to < state.last;
            node.name = Some(state.name);
            let mut about = state.about;
            if about.links.is_empty() && !about.settled {
                // It has not seen its own links yet: its host is where it was.
                about.links.clone_from(&node.about.links);
            }
            let moved = node.about.links != about.links;
            let matured = node.about.mature != about.mature;
            let kept = about.kept.clone();
            node.about = about;
            if !was_ready && node.is_ready() {
                node.ready_since = Some(now);
            }
            node.blank = node.blank.filter(|_| !node.about.settled);
            let changed = was_ready != node.is_ready() || reborn || matured;
            if moved && !node.about.links.is_empty() {
                let links = node.about.links.clone();
                self.stations.retain(|_, node| *node != sender);
                self.introduce(links.iter().map(|(mac, _)| *mac), sender, now);
            }
            if reborn || state.reset || changed || moved {
                self.touch(sender);
            }
            self.learn_links(kept, now);
            if reborn || state.reset {
                for entry in self.entries.values_mut() {
                    entry.bids.retain(|(of, _)| *of != sender);
                }
            }
            for (address, item) in state.items {
                if self.entries.len() >= MAX_ADDRESSES && !self.entries.contains_key(&address) {
                    continue;
                }
                self.entries.entry(address).or_insert_with(|| Entry::new(now)).hear(sender, item);
                self.dirty.insert(address);
            }
        }
        let have = self.nodes.get(&sender).map(|node| node.have).unwrap_or_default();
        self.answer(sender, from, via, Body::Ack(have));
    }

    /// Whether what a node says of addresses is of use: it is to gossip, or lives.
    fn listens_to(&self, node: NodeId) -> bool {
        self.peers.as_ref().is_some_and(|peers| peers.contains_key(&node))
            || self.nodes.get(&node).is_some_and(|node| node.live.is_some())
    }

    fn send(&mut self, receiver: NodeId, to: SocketAddr, body: &Body) {
        let envelope = Envelope { sender: self.me, receiver, number: self.numbers.next() };
        let payload = message::seal(self.config.key.as_ref(), envelope, body);
        self.outputs.push_back(Output::Datagram { to, payload });
    }

    /// What membership and state have to say.
    pub(super) fn send_gossip(&mut self, now: Instant) {
        for (node, to, octets) in self.membership.take_sends() {
            self.send(node, to, &Body::Swim(octets));
        }
        while let Some(piece) = self.replica.poll_piece(now) {
            let body = Body::State(piece.state);
            self.send(piece.node, piece.address, &body);
            if piece.tries > DIRECT_TRIES {
                self.send_around(piece.node, body);
            }
        }
    }
}
