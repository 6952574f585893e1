//! The machine: its facts, its inputs and its outputs.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use foldhash::fast::FixedState;

use super::{
    AddressStatus, ConfigError, DesiredAddress, Event, Link, LinkIndex, MemberState, MemberStatus, NodeName,
    Output, Peer, Settings, SpeakerConfig, Stats, StopMode,
    entry::{Entry, Phase, Wanted},
    gossip::{Node, Unsettled},
    hosts::{Hosts, Question},
    insist::Insistence,
    unsent::Unsent,
};
use crate::{
    MacAddr,
    announcer::{Announcer, Schedule},
    ownership::{
        membership::Membership,
        message::{self, About, Claim, MAX_LINKS, NodeId, window::Numbers},
        replica::Replica,
    },
    responder::{GroupChange, Responder},
    wire::{DecodeError, Frame},
};

/// How often the machine looks around while it has peers: that is also how it sees that it was suspended.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// How long a restart waits for the others to hear of it.
const FAREWELL: Duration = Duration::from_millis(300);

/// A link with its responder.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) link: Link,
    pub(super) responder: Responder,
    /// IPv6 addresses that are probed here, or that a node has that does not hear this one: their groups are joined to hear
    /// who else has them.
    pub(super) probed: BTreeSet<IpAddr>,
    /// Since when it is up.
    pub(super) up_since: Option<Instant>,
}

impl Port {
    pub(super) const fn is_up(&self) -> bool {
        self.link.up && self.link.mac.is_unicast()
    }
}

#[derive(Debug)]
pub(super) struct Stopping {
    pub(super) mode: StopMode,
    since: Instant,
    left: bool,
}

/// One node's Layer 2 speaker; see the [module](super).
#[derive(Debug)]
pub struct Speaker {
    pub(super) config: SpeakerConfig,
    pub(super) settings: Settings,
    pub(super) me: NodeId,
    started: Instant,
    pub(super) membership: Membership,
    pub(super) replica: Replica,
    /// Which datagrams are new.
    pub(super) numbers: Numbers,
    /// The others that were ever heard of.
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) stations: HashMap<MacAddr, NodeId, FixedState>,
    pub(super) peers: Option<BTreeMap<NodeId, Peer>>,
    /// Since when there are any.
    pub(super) peers_since: Option<Instant>,
    pub(super) ports: BTreeMap<LinkIndex, Port>,
    pub(super) entries: HashMap<IpAddr, Entry, FixedState>,
    pub(super) announcer: Announcer,
    pub(super) hosts: Hosts,
    pub(super) insistence: Insistence,
    pub(super) unsent: Unsent,
    pub(super) wakes: BTreeSet<(Instant, IpAddr)>,
    pub(super) dirty: BTreeSet<IpAddr>,
    pub(super) unsettled: Option<Unsettled>,
    has_desired: bool,
    has_links: bool,
    pub(super) stopping: Option<Stopping>,
    pub(super) next_tick: Instant,
    pub(super) next_seeds: Instant,
    /// When those that were lost are asked for again; `None`: nobody is lost.
    pub(super) next_knock: Option<Instant>,
    /// What is due next, but for what is said again: whoever is much later was suspended.
    pub(super) deadline: Option<Instant>,
    /// When this process found that it had not run.
    pub(super) woke: Option<Instant>,
    /// When nodes were asked where they are.
    pub(super) sought: Option<Instant>,
    pub(super) random: u64,
    pub(super) outputs: VecDeque<Output>,
    pub(super) events: VecDeque<Event>,
    pub(super) stats: Stats,
}

/// Those of a node's links that the others are told of, in the same order: first one with each link-layer address, for of
/// another address they would take its claims for those of a stranger, then further ones, as long as there is room.
fn told<'a>(ports: &'a [&'a Port]) -> impl Iterator<Item = &'a Port> + Clone {
    let is_first =
        |at: usize, port: &Port| !ports.iter().take(at).any(|before| before.link.mac == port.link.mac);
    let firsts = ports.iter().enumerate().filter(|(at, port)| is_first(*at, port)).count();
    let (mut firsts, mut others) = (firsts.min(MAX_LINKS), MAX_LINKS.saturating_sub(firsts));
    ports.iter().enumerate().filter_map(move |(at, port)| {
        let room = if is_first(at, port) { &mut firsts } else { &mut others };
        *room = room.checked_sub(1)?;
        Some(*port)
    })
}

impl Speaker {
    /// A speaker that knows nobody and announces nothing.
    ///
    /// # Errors
    ///
    /// Times that do not fit each other, or an unspecified address.
    pub fn new(config: SpeakerConfig, settings: Settings, now: Instant) -> Result<Self, ConfigError> {
        if config.probe_timeout.is_zero() || config.probe_timeout >= config.probe_interval {
            let (timeout, interval) = (config.probe_timeout, config.probe_interval);
            return Err(ConfigError::ProbeTimeout { timeout, interval });
        }
        if config.suspicion < config.probe_interval {
            let (suspicion, interval) = (config.suspicion, config.probe_interval);
            return Err(ConfigError::Suspicion { suspicion, interval });
        }
        if config.gossip.ip().is_unspecified() || config.gossip.port() == 0 {
            return Err(ConfigError::Gossip(config.gossip));
        }
        let me = NodeId::of(&config.node);
        let schedule = Schedule::new(settings.gratuitous.clone(), settings.refresh);
        let life = Self::life(&config);
        let mut speaker = Self {
            membership: Self::membership(&config, life),
            replica: Replica::new(config.node.clone(), life),
            numbers: Numbers::new(life),
            me,
            started: now,
            nodes: BTreeMap::new(),
            stations: HashMap::default(),
            peers: None,
            peers_since: None,
            ports: BTreeMap::new(),
            entries: HashMap::default(),
            announcer: Announcer::new(schedule),
            hosts: Hosts::default(),
            insistence: Insistence::new(now),
            unsent: Unsent::default(),
            wakes: BTreeSet::new(),
            dirty: BTreeSet::new(),
            unsettled: None,
            has_desired: false,
            has_links: false,
            stopping: None,
            next_tick: now,
            next_seeds: now,
            next_knock: None,
            deadline: None,
            woke: None,
            sought: None,
            random: config.seed ^ me.0,
            outputs: VecDeque::new(),
            events: VecDeque::new(),
            stats: Stats::default(),
            config,
            settings,
        };
        speaker.unsettle(now);
        speaker.finish(now);
        Ok(speaker)
    }

    /// Replaces the settings.
    pub fn set_settings(&mut self, settings: Settings, now: Instant) {
        self.wake_up(now);
        if self.settings == settings {
            return self.finish(now);
        }
        self.announcer.set_schedule(Schedule::new(settings.gratuitous.clone(), settings.refresh));
        for entry in self.entries.values_mut() {
            if let Phase::Probing { next, .. } = &mut entry.phase {
                // Who waits for a long time does not go on waiting for it.
                *next = now.checked_add(settings.probe_spacing).map_or(*next, |at| at.min(*next));
            }
        }
        self.settings = settings;
        self.dirty.extend(self.entries.keys());
        self.finish(now);
    }

    /// The other nodes that may gossip: the whole set. Who is not in it is not asked to join, and forgotten once gone.
    /// This node itself may be in it.
    pub fn set_peers(&mut self, peers: Vec<Peer>, now: Instant) {
        self.wake_up(now);
        let own = self.me;
        let peers = peers.into_iter().map(|peer| (NodeId::of(&peer.node), peer));
        let peers = Some(peers.filter(|(node, _)| *node != own).collect());
        if self.peers == peers {
            return self.finish(now);
        }
        self.peers = peers;
        if self.peers_since.is_none() && self.peers.as_ref().is_some_and(|peers| !peers.is_empty()) {
            self.peers_since = Some(now);
            self.look_anew(now);
        }
        self.next_seeds = now;
        self.next_tick = now;
        self.forget_nodes(now);
        // What was said of one that is a peer only now.
        let kept: Vec<_> = self.nodes.values().flat_map(|node| node.about.kept.iter().cloned()).collect();
        self.learn_links(kept, now);
        self.tick(now);
        self.finish(now);
    }

    /// The links of this node: the whole set. A link that vanished or went down stops counting at once. Nothing is claimed
    /// before the first call.
    pub fn set_links(&mut self, links: Vec<Link>, now: Instant) {
        self.wake_up(now);
        let first = !std::mem::replace(&mut self.has_links, true);
        let mut old = std::mem::take(&mut self.ports);
        let back = |link: &Link| link.up && old.get(&link.index).is_none_or(|port| !port.is_up());
        if links.iter().any(back) && self.is_isolated(now) {
            // Others may have taken over meanwhile, and could not say so.
            self.unsettle(now);
        }
        // What an address has to do with a link is its link-layer address, and whether it is up.
        let mut changed: Vec<LinkIndex> = Vec::new();
        for link in links {
            let index = link.index;
            let port = match old.remove(&index) {
                Some(port) if port.link.mac == link.mac => {
                    changed.extend((port.link.up != link.up).then_some(index));
                    Port { link, ..port }
                }
                // A frame must not leave with an address that the link does not have any more.
                other => {
                    changed.push(index);
                    let groups: Vec<_> = other.iter().flat_map(|port| port.responder.groups()).collect();
                    self.outputs
                        .extend(groups.into_iter().map(|group| Output::LeaveGroup { link: index, group }));
                    let responder = Responder::new(link.mac);
                    Port { responder, link, probed: BTreeSet::new(), up_since: None }
                }
            };
            let up_since = port.is_up().then(|| port.up_since.unwrap_or(now));
            self.ports.insert(index, Port { up_since, ..port });
        }
        for (link, port) in old {
            changed.push(link);
            let groups: Vec<_> = port.responder.groups().collect();
            self.outputs.extend(groups.into_iter().map(|group| Output::LeaveGroup { link, group }));
        }
        let concerns = |entry: &Entry| {
            let wanted = entry.wanted.as_ref();
            let mut links = wanted.into_iter().flat_map(|wanted| wanted.links.iter().chain(&wanted.home));
            wanted.is_some() && (first || links.any(|link| changed.contains(link)))
        };
        if first || !changed.is_empty() {
            let concerned = self.entries.iter().filter(|(_, entry)| concerns(entry));
            self.dirty.extend(concerned.map(|(address, _)| *address));
        }
        self.finish(now);
    }

    /// The addresses to announce: the whole set. Nothing is claimed before the first call. Of an address that is named
    /// twice the last one counts.
    pub fn set_desired(&mut self, desired: Vec<DesiredAddress>, now: Instant) {
        self.wake_up(now);
        self.has_desired = true;
        let mut new: HashMap<IpAddr, Wanted, FixedState> = desired
            .into_iter()
            .map(|DesiredAddress { address, links, home, eligible, permitted }| {
                (address, Wanted { links, home, eligible, permitted })
            })
            .collect();
        for (address, entry) in &mut self.entries {
            let wanted = new.remove(address);
            if entry.wanted != wanted {
                entry.wanted = wanted;
                self.dirty.insert(*address);
            }
        }
        for (address, wanted) in new {
            let entry = self.entries.entry(address).or_insert_with(|| Entry::new(now));
            entry.wanted = Some(wanted);
            self.dirty.insert(address);
        }
        self.finish(now);
    }

    /// Takes a frame in, and returns the answer to send on the same link, if any. Allocates nothing for requests.
    ///
    /// To be handed in on every link of a desired address: ARP with such an address as sender's or target's, neighbour
    /// solicitations and advertisements with such a target, and ARP replies and neighbour advertisements that are
    /// addressed to the link itself. Anything else is ignored.
    pub fn handle_frame(&mut self, link: LinkIndex, frame: &[u8], now: Instant) -> Option<Frame> {
        self.stats.frames += 1;
        if self.is_late(now) {
            self.wake_up(now);
            self.finish(now);
        }
        let heard = match self.ports.get(&link)?.responder.handle(frame) {
            Ok(heard) => heard,
            Err(DecodeError::OtherProtocol) => return None,
            Err(_) => {
                self.stats.malformed_frames += 1;
                return None;
            }
        };
        if let Some(claim) = heard.claim
            && self.concerns(claim, now)
        {
            self.handle_claim(link, claim, now);
            self.finish(now);
        }
        if let Some(probe) = heard.probe
            && self
                .entries
                .get(&probe.address)
                .is_some_and(|entry| matches!(entry.phase, Phase::Probing { .. }))
        {
            self.handle_probe(link, probe, now);
            self.finish(now);
        }
        self.stats.replies += u64::from(heard.reply.is_some());
        heard.reply
    }

    /// Takes a datagram of gossip in.
    pub fn handle_datagram(&mut self, from: SocketAddr, payload: &[u8], now: Instant) {
        self.wake_up(now);
        self.stats.datagrams += 1;
        if self.gossip(from, payload, now).is_none() {
            self.stats.rejected_datagrams += 1;
        }
        self.finish(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.wake_up(now);
        if self.membership.poll_timeout().is_some_and(|at| at <= now) {
            self.membership.handle_timeout(now);
            self.refresh_members(now);
        }
        if self.next_tick <= now {
            self.tick(now);
        }
        if self.next_knock.is_some_and(|at| at <= now) {
            self.knock(now);
        }
        while let Some((at, address)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            self.wakes.remove(&(at, address));
            self.dirty.insert(address);
        }
        self.announce_again(now);
        self.announce_due(now);
        self.finish(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline.into_iter().chain(self.unsent.poll_timeout()).min()
    }

    /// How long ago something was due that is not done yet: whoever finds that long did not run for a while. What is said
    /// again because it was [not sent](Self::handle_unsent) does not count: it is due all the time.
    pub fn lateness(&self, now: Instant) -> Duration {
        self.deadline.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
    }

    /// The next thing to send or do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The next thing to tell of.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Begins to stop. Where [`Settings::stand_in`] is zero, both modes hand over. Go on driving the machine until [`is_stopped`](Self::is_stopped), or until patience ends.
    pub fn stop(&mut self, mode: StopMode, now: Instant) {
        self.wake_up(now);
        // Without stand-ins nobody keeps the place of one that restarts: the addresses move, and may as well move well.
        let mode = if self.settings.stand_in.is_zero() { StopMode::Withdraw } else { mode };
        if self.stopping.as_ref().is_none_or(|stopping| stopping.mode != mode) {
            self.stopping = Some(Stopping { mode, since: now, left: false });
            self.dirty.extend(self.entries.keys());
        }
        self.finish(now);
    }

    /// Whether there is nothing left to hand over or to say.
    pub fn is_stopped(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stopping| stopping.left)
    }

    /// Every desired address as this node sees it, in order of address.
    pub fn addresses(&self) -> Vec<AddressStatus> {
        let mut all: Vec<_> = self.entries.keys().filter_map(|address| self.address(*address)).collect();
        all.sort_unstable_by_key(|status| status.address);
        all
    }

    /// One address as this node sees it; `None`: not desired.
    pub fn address(&self, address: IpAddr) -> Option<AddressStatus> {
        let entry = self.entries.get(&address)?;
        let wanted = entry.wanted.as_ref()?;
        let answers = wanted.links.iter().filter_map(|link| self.ports.get(link)?.responder.answer(address));
        Some(AddressStatus {
            address,
            macs: answers.collect(),
            role: entry.role(|node| self.name(node)),
            since: entry.since,
            owner: entry.owner.map(|node| self.name(node)),
            candidate: self.is_candidate(wanted),
            links: wanted.links.clone(),
            conflict: entry.conflict.map(|(mac, _)| mac),
        })
    }

    /// The other nodes, in order of name.
    pub fn members(&self) -> Vec<MemberStatus> {
        let mut owned: HashMap<NodeId, usize, FixedState> = HashMap::default();
        for (node, item) in self.entries.values().flat_map(|entry| &entry.bids) {
            if matches!(item.claim, Claim::Owner { .. } | Claim::HandingOver { .. }) {
                *owned.entry(*node).or_default() += 1;
            }
        }
        let status = |(id, node): (&NodeId, &Node)| MemberStatus {
            node: self.name(*id),
            // To a tick.
            state: match (node.live, node.restarts(self.next_tick)) {
                (_, true) => MemberState::Restarting,
                (None, _) => MemberState::Down,
                (Some(live), _) if live.suspect => MemberState::Suspect,
                (Some(_), _) => MemberState::Alive,
            },
            owned: owned.get(id).copied().unwrap_or(0),
        };
        let mut all: Vec<_> = self.nodes.iter().map(status).collect();
        all.sort_unstable_by(|a, b| a.node.cmp(&b.node));
        all
    }

    /// Whether this node knows what the others hold, and acts on it: the first round of membership is over.
    pub const fn is_settled(&self) -> bool {
        self.unsettled.is_none()
    }

    /// Counters since the start.
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// The configuration.
    pub const fn config(&self) -> &SpeakerConfig {
        &self.config
    }

    /// The name of a node; of one that was never heard of, its number.
    pub(super) fn name(&self, node: NodeId) -> NodeName {
        if node == self.me {
            return self.config.node.clone();
        }
        let heard = self.nodes.get(&node).and_then(|node| node.name.clone());
        let peer = || self.peers.as_ref()?.get(&node).map(|peer| peer.node.clone());
        heard.or_else(peer).unwrap_or_else(|| NodeName::numbered(node.0))
    }

    fn is_late(&self, now: Instant) -> bool {
        self.lateness(now) > self.config.suspicion
    }

    /// To be called first with every input: this process may have been suspended, and others may have taken over.
    fn wake_up(&mut self, now: Instant) {
        let Some(at) = self.deadline.filter(|_| self.is_late(now)) else { return };
        let alone = self.peers.as_ref().is_none_or(BTreeMap::is_empty) && self.nodes.is_empty();
        if !alone {
            self.stalled(now.saturating_duration_since(at), now);
        }
    }

    /// To be called last with every input: decides, and collects what is to be sent.
    pub(super) fn finish(&mut self, now: Instant) {
        self.renew_about(now);
        self.settle(now);
        loop {
            while let Some(address) = self.dirty.pop_first() {
                self.evaluate(address, now);
            }
            if self.hosts.poll_timeout().is_none_or(|at| at > now) {
                break;
            }
            let (questions, touched) = self.hosts.poll(now);
            for Question { address, at, probe } in questions {
                self.ask_host(address, Some(at), probe, now);
            }
            self.dirty.extend(touched);
        }
        self.farewell(now);
        self.send_gossip(now);
        self.change_groups();
        let social = self.peers.as_ref().is_some_and(|peers| !peers.is_empty()) || !self.nodes.is_empty();
        let ticks = social || self.unsettled.is_some() || self.stopping.is_some();
        let deadlines = [
            ticks.then_some(self.next_tick),
            self.next_knock.filter(|_| ticks),
            self.membership.poll_timeout(),
            self.replica.poll_timeout(),
            self.wakes.first().map(|(at, _)| *at),
            self.hosts.poll_timeout(),
            self.announcer.poll_timeout(),
        ];
        // What is past is due at once, and no sign that this process did not run since.
        self.deadline = deadlines.into_iter().flatten().min().map(|at| at.max(now));
    }

    /// Has the groups joined and left that the responders want.
    pub(super) fn change_groups(&mut self) {
        for (index, port) in &mut self.ports {
            let link = *index;
            while let Some(change) = port.responder.poll_group() {
                self.outputs.push_back(match change {
                    GroupChange::Join(group) => Output::JoinGroup { link, group },
                    GroupChange::Leave(group) => Output::LeaveGroup { link, group },
                });
            }
        }
    }

    /// What is said of this node to the others; made anew only where it differs, for this is asked with every input.
    fn renew_about(&mut self, now: Instant) {
        let uptime = self.config.host_uptime.saturating_add(now.saturating_duration_since(self.started));
        let used = |index: &LinkIndex| {
            let wants =
                |entry: &Entry| entry.wanted.as_ref().is_some_and(|wanted| wanted.links.contains(index));
            self.ports.len() <= MAX_LINKS || self.entries.values().any(wants)
        };
        let ports: Vec<_> = self
            .ports
            .iter()
            .filter(|(index, port)| port.is_up() && used(index))
            .map(|(_, port)| port)
            .collect();
        let links = told(&ports).map(|port| {
            let addresses = &port.link.addresses;
            let v4 = addresses.iter().find(|address| address.is_ipv4());
            (port.link.mac, v4.or_else(|| addresses.first()).copied())
        });
        let mature = uptime >= self.settings.join_delay;
        let settled = self.unsettled.is_none();
        let restarting = self.stopping.as_ref().is_some_and(|stopping| stopping.mode == StopMode::Restart);
        let old = self.replica.about();
        let flags = (old.mature, old.settled, old.restarting);
        let kept = message::kept(self.hosts.links());
        if flags == (mature, settled, restarting)
            && links.clone().eq(old.links.iter().copied())
            && kept == old.kept
        {
            return;
        }
        let about = About { mature, settled, restarting, links: links.collect(), kept };
        if mature != old.mature {
            self.dirty.extend(self.entries.keys());
        }
        self.replica.set_about(about);
    }

    /// Whether enough is known to decide.
    pub(super) const fn is_informed(&self) -> bool {
        self.has_desired && self.has_links && self.peers.is_some()
    }

    fn farewell(&mut self, now: Instant) {
        let Some(stopping) = &self.stopping else { return };
        if stopping.left {
            return;
        }
        let late = now.saturating_duration_since(stopping.since) >= FAREWELL;
        let done = match stopping.mode {
            StopMode::Restart => self.replica.is_told() || late,
            StopMode::Withdraw => {
                let idle = |entry: &Entry| matches!(entry.phase, Phase::Idle);
                self.entries.values().all(idle) && (self.replica.is_told() || late)
            }
        };
        if done {
            if stopping.mode == StopMode::Withdraw {
                self.membership.leave(now);
            }
            if let Some(stopping) = &mut self.stopping {
                stopping.left = true;
            }
        }
    }
}
