//! Who lives: SWIM with suspicion, by the crate foca. Nothing outside this file names it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    num::{NonZeroU8, NonZeroUsize},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut};
use foca::{Config, Foca, Header, Member, Message, NoCustomBroadcast, Notification, PeriodicParams, Timer};
use rand::{SeedableRng, rngs::SmallRng};

use super::message::{MAX_BODY, NodeId};

/// A life of a node's speaker.
#[derive(Clone, Copy, Debug)]
struct Identity {
    node: NodeId,
    generation: u64,
    address: SocketAddr,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        (self.node, self.generation) == (other.node, other.generation)
    }
}

impl Eq for Identity {}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(Self { generation: self.generation.wrapping_add(1), ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        self.generation > other.generation
    }
}

/// Nodes that are no peers are members up to so many, the dead ones included, of which others may speak for an hour: one
/// member after the other is probed, and whoever is real waits for its turn.
const MAX_STRANGERS: usize = 32;

/// Each kind of answer that was not asked for goes to a node at most once in this time. Answers to each copy of an answer
/// would multiply where datagrams are doubled and late.
const PAUSE: Duration = Duration::from_millis(40);

/// An answer that was not asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    /// We hold the node for dead (TurnUndead).
    Undead,
    /// It speaks to an earlier life of ours: we announce ourselves.
    Renewed,
    /// We know a later life of it.
    Outlived,
}

/// Octets that are no SWIM message.
#[derive(Debug, thiserror::Error)]
#[error("malformed membership message")]
struct Malformed;

/// Bytes to messages and back; notes the highest generation that others know of us.
struct Codec {
    own: NodeId,
    seen: Arc<AtomicU64>,
}

fn room(buffer: &impl BufMut, length: usize) -> Result<(), Malformed> {
    if buffer.remaining_mut() < length { Err(Malformed) } else { Ok(()) }
}

impl Codec {
    fn put(identity: &Identity, buffer: &mut impl BufMut) -> Result<(), Malformed> {
        room(buffer, 35)?;
        buffer.put_u64(identity.node.0);
        buffer.put_u64(identity.generation);
        match identity.address.ip() {
            IpAddr::V4(v4) => {
                buffer.put_u8(4);
                buffer.put_slice(&v4.octets());
            }
            IpAddr::V6(v6) => {
                buffer.put_u8(6);
                buffer.put_slice(&v6.octets());
            }
        }
        buffer.put_u16(identity.address.port());
        Ok(())
    }

    fn get(&self, buffer: &mut impl Buf) -> Result<Identity, Malformed> {
        let node = NodeId(buffer.try_get_u64().map_err(|_| Malformed)?);
        let generation = buffer.try_get_u64().map_err(|_| Malformed)?;
        let ip: IpAddr = match buffer.try_get_u8() {
            Ok(4) => buffer.try_get_u32().map_err(|_| Malformed)?.to_be_bytes().into(),
            Ok(6) => buffer.try_get_u128().map_err(|_| Malformed)?.to_be_bytes().into(),
            _ => return Err(Malformed),
        };
        let port = buffer.try_get_u16().map_err(|_| Malformed)?;
        if node == self.own {
            self.seen.fetch_max(generation, Ordering::Relaxed);
        }
        Ok(Identity { node, generation, address: SocketAddr::new(ip, port) })
    }

    /// Which life of a node is told that it is held for dead.
    fn undead(&mut self, octets: &[u8]) -> Option<u64> {
        let header = foca::Codec::decode_header(self, octets).ok()?;
        (header.message == Message::TurnUndead).then_some(header.dst.generation)
    }
}

impl foca::Codec<Identity> for Codec {
    type Error = Malformed;

    fn encode_header(&mut self, header: &Header<Identity>, mut buffer: impl BufMut) -> Result<(), Malformed> {
        let buffer = &mut buffer;
        Self::put(&header.src, buffer)?;
        room(buffer, 2)?;
        buffer.put_u16(header.src_incarnation);
        Self::put(&header.dst, buffer)?;
        room(buffer, 2)?;
        let (kind, number, third) = match &header.message {
            Message::Ping(number) => (0, *number, None),
            Message::Ack(number) => (1, *number, None),
            Message::PingReq { target, probe_number } => (2, *probe_number, Some(target)),
            Message::IndirectPing { origin, probe_number } => (3, *probe_number, Some(origin)),
            Message::IndirectAck { target, probe_number } => (4, *probe_number, Some(target)),
            Message::ForwardedAck { origin, probe_number } => (5, *probe_number, Some(origin)),
            Message::Announce => (6, 0, None),
            Message::Feed => (7, 0, None),
            Message::Gossip => (8, 0, None),
            Message::Broadcast => (9, 0, None),
            Message::TurnUndead => (10, 0, None),
        };
        buffer.put_u8(kind);
        buffer.put_u8(number);
        third.map_or(Ok(()), |identity| Self::put(identity, buffer))
    }

    fn decode_header(&mut self, mut buffer: impl Buf) -> Result<Header<Identity>, Malformed> {
        let buffer = &mut buffer;
        let src = self.get(buffer)?;
        let src_incarnation = buffer.try_get_u16().map_err(|_| Malformed)?;
        let dst = self.get(buffer)?;
        let kind = buffer.try_get_u8().map_err(|_| Malformed)?;
        let probe_number = buffer.try_get_u8().map_err(|_| Malformed)?;
        let message = match kind {
            0 => Message::Ping(probe_number),
            1 => Message::Ack(probe_number),
            2 => Message::PingReq { target: self.get(buffer)?, probe_number },
            3 => Message::IndirectPing { origin: self.get(buffer)?, probe_number },
            4 => Message::IndirectAck { target: self.get(buffer)?, probe_number },
            5 => Message::ForwardedAck { origin: self.get(buffer)?, probe_number },
            6 => Message::Announce,
            7 => Message::Feed,
            8 => Message::Gossip,
            9 => Message::Broadcast,
            10 => Message::TurnUndead,
            _ => return Err(Malformed),
        };
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(&mut self, member: &Member<Identity>, mut buffer: impl BufMut) -> Result<(), Malformed> {
        room(&buffer, 38)?;
        Self::put(member.id(), &mut buffer)?;
        buffer.put_u16(member.incarnation());
        buffer.put_u8(match member.state() {
            foca::State::Alive => 0,
            foca::State::Suspect => 1,
            foca::State::Down => 2,
        });
        Ok(())
    }

    fn decode_member(&mut self, mut buffer: impl Buf) -> Result<Member<Identity>, Malformed> {
        let identity = self.get(&mut buffer)?;
        let incarnation = buffer.try_get_u16().map_err(|_| Malformed)?;
        let state = match buffer.try_get_u8() {
            Ok(0) => foca::State::Alive,
            Ok(1) => foca::State::Suspect,
            Ok(2) => foca::State::Down,
            _ => return Err(Malformed),
        };
        Ok(Member::new(identity, incarnation, state))
    }
}

/// What foca wants done.
#[derive(Default)]
struct Wishes {
    sends: Vec<(NodeId, SocketAddr, Vec<u8>)>,
    timers: Vec<(Duration, Timer<Identity>)>,
    rejoined: bool,
}

impl foca::Runtime<Identity> for Wishes {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        self.rejoined |= matches!(notification, Notification::Rejoin(_));
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.sends.push((to.node, to.address, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        self.timers.push((after, event));
    }
}

/// How fast failures are found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) probe_interval: Duration,
    pub(crate) probe_timeout: Duration,
    pub(crate) suspicion: Duration,
}

/// Of these timers foca needs the last one only: each kind by its number, and of which node.
type Slot = (u8, Option<NodeId>);

const fn slot(timer: &Timer<Identity>) -> Option<Slot> {
    match timer {
        Timer::ProbeRandomMember(_) => Some((0, None)),
        Timer::PeriodicAnnounce(_) => Some((1, None)),
        Timer::PeriodicAnnounceDown(_) => Some((2, None)),
        Timer::PeriodicGossip(_) => Some((3, None)),
        Timer::RemoveDown(identity) => Some((4, Some(identity.node))),
        // As many as probes.
        Timer::SendIndirectProbe { .. } | Timer::ChangeSuspectToDown { .. } => None,
    }
}

/// Another node that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) node: NodeId,
    pub(crate) address: SocketAddr,
    pub(crate) suspect: bool,
    /// The number of its life.
    pub(crate) generation: u64,
}

/// A member that is suspected.
#[derive(Debug)]
struct Suspect {
    incarnation: u16,
    since: Instant,
    /// It spoke since then, or answered by way of another.
    spoke: bool,
}

/// The members as this node knows them.
pub(crate) struct Membership {
    foca: Foca<Identity, Codec, SmallRng, NoCustomBroadcast>,
    seen: Arc<AtomicU64>,
    timers: BTreeMap<(Instant, u64), Timer<Identity>>,
    slots: BTreeMap<Slot, (Instant, u64)>,
    suspects: BTreeMap<NodeId, Suspect>,
    /// How long a member can be suspected while the timer of that is there.
    patience: Duration,
    counter: u64,
    sends: Vec<(NodeId, SocketAddr, Vec<u8>)>,
    /// When each word was last said to a node.
    said: BTreeMap<(NodeId, Word), Instant>,
    rejoined: bool,
    pub(crate) errors: u64,
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = self.foca.num_members();
        f.debug_struct("Membership").field("self", self.foca.identity()).field("members", &members).finish()
    }
}

impl Membership {
    pub(crate) fn new(node: NodeId, address: SocketAddr, generation: u64, pace: Pace, seed: u64) -> Self {
        let seen = Arc::new(AtomicU64::new(0));
        let often = |frequency, members| {
            NonZeroUsize::new(members).map(|num_members| PeriodicParams { frequency, num_members })
        };
        let config = Config {
            probe_period: pace.probe_interval,
            probe_rtt: pace.probe_timeout,
            num_indirect_probes: NonZeroUsize::new(3).unwrap_or(NonZeroUsize::MIN),
            max_transmissions: NonZeroU8::new(10).unwrap_or(NonZeroU8::MIN),
            suspect_to_down_after: pace.suspicion,
            remove_down_after: Some(Duration::from_secs(3600)),
            max_packet_size: NonZeroUsize::new(MAX_BODY).unwrap_or(NonZeroUsize::MIN),
            notify_down_members: true,
            periodic_announce: often(Duration::from_secs(10), 1),
            periodic_announce_to_down_members: often(Duration::from_secs(2), 2),
            periodic_gossip: often(pace.probe_interval, 3),
        };
        let identity = Identity { node, generation, address };
        let codec = Codec { own: node, seen: Arc::clone(&seen) };
        Self {
            foca: Foca::new(identity, config, SmallRng::seed_from_u64(seed), codec),
            seen,
            timers: BTreeMap::new(),
            slots: BTreeMap::new(),
            suspects: BTreeMap::new(),
            patience: pace.suspicion + 2 * pace.probe_interval,
            counter: 0,
            sends: Vec::new(),
            said: BTreeMap::new(),
            rejoined: false,
            errors: 0,
        }
    }

    /// The generation of this life; grows when others thought that it had ended.
    pub(crate) fn generation(&self) -> u64 {
        self.foca.identity().generation
    }

    /// Asks a node to tell whom it knows.
    pub(crate) fn announce(&mut self, node: NodeId, address: SocketAddr, now: Instant) {
        self.run(now, |foca, wishes| foca.announce(Identity { node, generation: 0, address }, wishes));
    }

    /// Takes a message in, of the node that sent it. If that lives a life with a lower number than one that is known of it
    /// here, it is ignored, and this is the number: it should hear of it. (`None` also if it was told just now.)
    pub(crate) fn handle(
        &mut self,
        sender: NodeId,
        octets: &[u8],
        is_peer: impl Fn(NodeId) -> bool,
        now: Instant,
    ) -> Option<u64> {
        let Some(octets) = self.admit(sender, octets, is_peer) else {
            self.errors += 1;
            return None;
        };
        let octets = &*octets;
        let before = self.generation();
        let sent = self.sends.len();
        self.run(now, |foca, wishes| foca.handle_data(octets, wishes));
        for (node, address, octets) in self.sends.split_off(sent) {
            let is_said = self.codec().undead(&octets).is_none_or(|life| {
                // An earlier life than the one that is known hears of that instead.
                self.life(node).is_none_or(|known| known <= life) && self.say_once(node, Word::Undead, now)
            });
            if is_said {
                self.sends.push((node, address, octets));
            }
        }
        let seen = self.seen.load(Ordering::Relaxed);
        if seen > self.generation() {
            // An earlier life had a later clock.
            self.outlive(seen.saturating_add(1), now);
        }
        let mut codec = self.codec();
        let header = foca::Codec::decode_header(&mut codec, octets).ok()?;
        let sender = header.src;
        let addressed = header.dst.node == codec.own && header.message != Message::Announce;
        let renewed = addressed && header.dst.generation < before && header.src.node != codec.own;
        if renewed && self.say_once(sender.node, Word::Renewed, now) {
            // foca drops what is for an earlier life. Two that came back at the same time would never hear each other.
            self.announce(sender.node, sender.address, now);
        }
        let answers = match header.message {
            Message::ForwardedAck { origin, .. } => origin.node,
            _ => sender.node,
        };
        if let Some(suspect) = self.suspects.get_mut(&answers) {
            suspect.spoke = true;
        }
        let known = self.life(sender.node)?;
        let outlived = sender.node != codec.own && known > sender.generation;
        (outlived && self.say_once(sender.node, Word::Outlived, now)).then_some(known)
    }

    /// The life of a node that is known here.
    fn life(&self, node: NodeId) -> Option<u64> {
        let mut all = self.foca.iter_membership_state();
        all.find(|member| member.id().node == node).map(|member| member.id().generation)
    }

    /// Notes that this is said now; `false` if it was said just now.
    fn say_once(&mut self, node: NodeId, word: Word, now: Instant) -> bool {
        let last = self.said.get(&(node, word));
        let may = last.is_none_or(|at| now.saturating_duration_since(*at) >= PAUSE);
        if may {
            self.said.insert((node, word), now);
        }
        may
    }

    /// A codec that does not note what others know of us.
    fn codec(&self) -> Codec {
        Codec { own: self.foca.identity().node, seen: Arc::default() }
    }

    /// The message without the members for whom there is no room; `None`: it is none, or of a sender for whom there is none.
    fn admit<'a>(
        &self,
        sender: NodeId,
        octets: &'a [u8],
        is_peer: impl Fn(NodeId) -> bool,
    ) -> Option<Cow<'a, [u8]>> {
        let mut codec = self.codec();
        let mut rest = octets;
        let header = foca::Codec::decode_header(&mut codec, &mut rest).ok()?;
        if header.src.node != sender {
            return None;
        }
        let mut named = vec![(sender, rest)];
        if rest.len() >= 2 && header.message != Message::Broadcast {
            for _ in 0..rest.get_u16() {
                let before = rest;
                let member = foca::Codec::decode_member(&mut codec, &mut rest).ok()?;
                let length = before.len() - rest.len();
                named.push((member.id().node, before.get(..length)?));
            }
        }
        let strange = |node: &NodeId| *node != codec.own && !is_peer(*node);
        if !named.iter().any(|(node, _)| strange(node)) {
            return Some(Cow::Borrowed(octets));
        }
        let known = self.foca.iter_membership_state().map(|member| member.id().node);
        let mut strangers: BTreeSet<_> = known.filter(strange).collect();
        let mut admits = |node: NodeId| {
            !strange(&node)
                || strangers.contains(&node)
                || strangers.len() < MAX_STRANGERS && strangers.insert(node)
        };
        let all = named.len();
        named.retain(|(node, _)| admits(*node));
        if named.len() == all {
            return Some(Cow::Borrowed(octets));
        }
        let ((first, body), members) = named.split_first()?;
        if *first != sender {
            return None;
        }
        let mut kept = octets.get(..octets.len() - body.len())?.to_vec();
        kept.put_u16(u16::try_from(members.len()).ok()?);
        members.iter().for_each(|(_, member)| kept.put_slice(member));
        Some(Cow::Owned(kept))
    }

    /// Comes back as a new member, unless this life is a later one than that.
    pub(crate) fn outlive(&mut self, generation: u64, now: Instant) {
        let identity = *self.foca.identity();
        if generation > identity.generation {
            let next = Identity { generation, ..identity };
            self.run(now, |foca, wishes| foca.change_identity(next, wishes));
            self.rejoined = true;
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let later = self.timers.split_off(&(now, u64::MAX));
        let mut due: Vec<_> = std::mem::replace(&mut self.timers, later).into_values().collect();
        // As foca asks for when several are due.
        due.sort();
        for timer in due {
            if let Some(slot) = slot(&timer) {
                self.slots.remove(&slot);
            }
            self.run(now, |foca, wishes| foca.handle_timer(timer, wishes));
        }
    }

    /// A suspicion must end. foca forgets the timer of it when this node comes back as a new member, and a member that
    /// never heard of the suspicion does not object. To be called regularly.
    pub(crate) fn end_suspicions(&mut self, now: Instant) {
        self.said.retain(|_, at| now.saturating_duration_since(*at) < PAUSE);
        let suspects = self.foca.iter_members().filter(|member| member.state() == foca::State::Suspect);
        let suspects: Vec<_> = suspects.map(|member| (*member.id(), member.incarnation())).collect();
        self.suspects.retain(|node, _| suspects.iter().any(|(id, _)| id.node == *node));
        for (id, incarnation) in suspects {
            let fresh = Suspect { incarnation, since: now, spoke: false };
            let suspect = self.suspects.entry(id.node).or_insert(fresh);
            if suspect.incarnation != incarnation {
                *suspect = Suspect { incarnation, since: now, spoke: false };
            }
            if now.saturating_duration_since(suspect.since) < self.patience {
                continue;
            }
            // What the member would say itself, if it knew.
            let objects = suspect.spoke && incarnation < u16::MAX;
            let (state, incarnation) = if objects {
                (foca::State::Alive, incarnation.saturating_add(1))
            } else {
                (foca::State::Down, incarnation)
            };
            let update = Member::new(id, incarnation, state);
            self.suspects.remove(&id.node);
            self.run(now, |foca, wishes| foca.apply_many(std::iter::once(update), true, wishes));
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next messages, for bodies of datagrams: for whom, and where that is.
    pub(crate) fn take_sends(&mut self) -> Vec<(NodeId, SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.sends)
    }

    /// Whether this node had to come back as a new member since the last call: whoever is a seed should hear of it.
    pub(crate) fn take_rejoined(&mut self) -> bool {
        std::mem::take(&mut self.rejoined)
    }

    /// The others that live, in no order.
    pub(crate) fn live(&self) -> impl Iterator<Item = Live> + '_ {
        self.foca.iter_members().map(|member| Live {
            node: member.id().node,
            address: member.id().address,
            suspect: member.state() == foca::State::Suspect,
            generation: member.id().generation,
        })
    }

    /// The generation of a node that is thought to be gone.
    pub(crate) fn gone(&self, node: NodeId) -> Option<u64> {
        let mut all = self.foca.iter_membership_state();
        let member = all.find(|member| member.id().node == node)?;
        (member.state() == foca::State::Down).then_some(member.id().generation)
    }

    /// Says farewell for good.
    pub(crate) fn leave(&mut self, now: Instant) {
        self.run(now, |foca, wishes| foca.leave_cluster(wishes));
        self.timers.clear();
        self.slots.clear();
    }

    fn run(
        &mut self,
        now: Instant,
        action: impl FnOnce(
            &mut Foca<Identity, Codec, SmallRng, NoCustomBroadcast>,
            &mut Wishes,
        ) -> Result<(), foca::Error>,
    ) {
        let mut wishes = Wishes::default();
        if action(&mut self.foca, &mut wishes).is_err() {
            self.errors += 1;
        }
        // One that came back as a new member probes those whom it knows at once, not only once one of them speaks.
        let connected = self.foca.apply_many(std::iter::empty(), false, &mut wishes);
        debug_assert!(connected.is_ok(), "nothing to apply");
        self.sends.append(&mut wishes.sends);
        self.rejoined |= wishes.rejoined;
        for (after, timer) in wishes.timers {
            let Some(at) = now.checked_add(after) else { continue };
            self.counter += 1;
            if let Some(old) = slot(&timer).and_then(|slot| self.slots.insert(slot, (at, self.counter))) {
                self.timers.remove(&old);
            }
            self.timers.insert((at, self.counter), timer);
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests; any origin of time will do"
)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        probe_interval: Duration::from_millis(200),
        probe_timeout: Duration::from_millis(60),
        suspicion: Duration::from_millis(600),
    };

    fn identity(node: u64, generation: u64) -> Identity {
        Identity { node: NodeId(node), generation, address: SocketAddr::from(([192, 0, 2, 1], 7947)) }
    }

    /// Gossip of node 2 for node 1, of these members.
    fn gossip(members: impl ExactSizeIterator<Item = Member<Identity>>) -> Vec<u8> {
        let mut codec = Codec { own: NodeId(2), seen: Arc::default() };
        let mut out = Vec::new();
        let (src, dst) = (identity(2, 7), identity(1, 7));
        let header = Header { src, src_incarnation: 0, dst, message: Message::Gossip };
        foca::Codec::encode_header(&mut codec, &header, &mut out).unwrap();
        out.put_u16(u16::try_from(members.len()).unwrap());
        members.for_each(|member| foca::Codec::encode_member(&mut codec, &member, &mut out).unwrap());
        out
    }

    /// What each has to say arrives at the other at once.
    fn exchange(pair: &mut [Membership; 2], now: Instant) {
        for _ in 0..20 {
            for (from, to) in [(0, 1), (1, 0)] {
                for (_, _, octets) in pair[from].take_sends() {
                    let sender = NodeId(from as u64);
                    let _ = pair[to].handle(sender, &octets, |_| true, now);
                }
            }
        }
    }

    #[test]
    fn two_that_come_back_at_the_same_time_hear_each_other() {
        let mut now = Instant::now();
        let mut pair = [0_u64, 1].map(|node| {
            let address = SocketAddr::from(([192, 0, 2, 1], 7947));
            Membership::new(NodeId(node), address, 7, PACE, node)
        });
        pair[0].announce(NodeId(1), SocketAddr::from(([192, 0, 2, 1], 7947)), now);
        exchange(&mut pair, now);
        assert!(pair.iter().all(|one| one.live().count() == 1));
        for one in &mut pair {
            one.outlive(20, now);
            // Lost.
            one.take_sends();
        }
        for _ in 0..200 {
            now += Duration::from_millis(10);
            for one in &mut pair {
                one.handle_timeout(now);
            }
            exchange(&mut pair, now);
            assert!(pair.iter().all(|one| one.live().count() == 1), "nobody is given up");
        }
        assert!(pair.iter().all(|one| one.live().all(|live| live.generation == 20 && !live.suspect)));
    }

    #[test]
    fn answers_that_were_not_asked_for_are_given_once_in_a_while() {
        let now = Instant::now();
        let mut one = Membership::new(NodeId(1), SocketAddr::from(([192, 0, 2, 1], 7947)), 7, PACE, 0);
        let dead = |generation| Member::new(identity(3, generation), 0, foca::State::Down);
        let _ = one.handle(NodeId(2), &gossip(std::iter::once(dead(9))), |_| true, now);
        one.take_sends();
        let ping = |generation| {
            let mut codec = Codec { own: NodeId(3), seen: Arc::default() };
            let mut out = Vec::new();
            let header = Header {
                src: identity(3, generation),
                src_incarnation: 0,
                dst: identity(1, 7),
                message: Message::Ping(1),
            };
            foca::Codec::encode_header(&mut codec, &header, &mut out).unwrap();
            out.put_u16(0);
            out
        };
        let mut said = |generation: u64, at: Instant| {
            let outlived = one.handle(NodeId(3), &ping(generation), |_| true, at);
            let mut codec = one.codec();
            let sends = one.take_sends();
            let undead: Vec<_> = sends.iter().filter_map(|(_, _, octets)| codec.undead(octets)).collect();
            (outlived, undead)
        };
        // What comes late of an earlier life does not take the place of what the one that is dead should hear.
        assert_eq!(said(8, now), (Some(9), vec![]));
        assert_eq!(said(9, now), (None, vec![9]));
        assert_eq!((said(8, now), said(9, now)), ((None, vec![]), (None, vec![])));
        let later = now + PAUSE;
        assert_eq!((said(8, later), said(9, later)), ((Some(9), vec![]), (None, vec![9])));
    }

    #[test]
    fn made_up_members_take_bounded_memory() {
        let now = Instant::now();
        let mut membership = Membership::new(NodeId(1), SocketAddr::from(([192, 0, 2, 1], 7947)), 7, PACE, 0);
        let is_peer = |node: NodeId| node.0 < 100;
        for round in 0..400_u64 {
            for state in [foca::State::Alive, foca::State::Down] {
                // Ever new nodes, and new lives of the same.
                let new = (0..15).map(|n| Member::new(identity(1000 + round * 15 + n, 1), 0, state));
                let same = (0..15).map(|n| Member::new(identity(500 + n, round), 0, state));
                let all: Vec<_> = new.chain(same).collect();
                let _ = membership.handle(NodeId(2), &gossip(all.into_iter()), is_peer, now);
                assert!(membership.foca.iter_membership_state().len() <= 1 + MAX_STRANGERS);
                assert!(membership.timers.len() <= MAX_STRANGERS + 8, "{}", membership.timers.len());
            }
        }
        assert_eq!(membership.foca.iter_membership_state().len(), 1 + MAX_STRANGERS);
        assert_eq!(membership.errors, 0, "the peer itself is heard");
        // Who is a peer always has room, whoever tells of it.
        let peers: Vec<_> = (3..33).map(|n| Member::new(identity(n, 1), 0, foca::State::Alive)).collect();
        let _ = membership.handle(NodeId(2), &gossip(peers.into_iter()), is_peer, now);
        assert!((2..33).all(|n| membership.live().any(|live| live.node == NodeId(n))));
        // A stranger does not, when it speaks itself.
        let errors = membership.errors;
        let stranger = NodeId(9999);
        let mut octets = gossip(std::iter::empty());
        octets.splice(..8, stranger.0.to_be_bytes());
        assert_eq!(membership.handle(stranger, &octets, is_peer, now), None);
        assert_eq!(membership.errors, errors + 1);
    }
}
