//! Many sessions: which packet is whose, and what is due next.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::IpAddr,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    PACKET_LEN,
    session::{Random, Session, SessionStatus, StateChange, Timers},
    wire::{ControlPacket, Discard},
};

/// A session that is removed says so for at most this long: its neighbour must not take the silence for a lost path.
const FAREWELL_MAX: Duration = Duration::from_secs(10);

/// One session of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionConfig {
    /// The embedder's name for it, unique.
    pub name: Arc<str>,
    /// The neighbour's address.
    pub remote: IpAddr,
    /// Our address, where packets must have come to; `None`: any.
    pub local: Option<IpAddr>,
    /// The interface through which its first packet must come; 0: any.
    pub interface: u32,
    /// Several hops (RFC 5883), not a directly connected neighbour (RFC 5881).
    pub multihop: bool,
    /// Packets with a lower TTL are discarded; 255 accepts only a directly connected sender.
    pub minimum_ttl: u8,
    /// Its timers.
    pub timers: Timers,
    /// While it is down it waits until then; see [`Session::set_wait`].
    pub wait_until: Option<Instant>,
    /// It may go on from before a restart; see [`Session::resume`].
    pub resume: bool,
    /// When it is removed its neighbour is asked to hold it for so long; see [`Session::hold`]. Zero: it is told that the
    /// session ends.
    pub hold: Duration,
}

impl SessionConfig {
    /// A session with a directly connected neighbour, with default timers.
    pub fn single_hop(name: impl Into<Arc<str>>, remote: IpAddr) -> Self {
        Self {
            name: name.into(),
            remote,
            local: None,
            interface: 0,
            multihop: false,
            minimum_ttl: 255,
            timers: Timers::default(),
            wait_until: None,
            resume: false,
            hold: Duration::ZERO,
        }
    }

    /// A session over several hops, with default timers. Any TTL is accepted.
    pub fn multihop(name: impl Into<Arc<str>>, remote: IpAddr) -> Self {
        Self { multihop: true, minimum_ttl: 1, ..Self::single_hop(name, remote) }
    }
}

/// A session's number in its endpoint, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u64);

/// How a packet arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The sender.
    pub remote: IpAddr,
    /// The address that it was sent to.
    pub local: IpAddr,
    /// The interface's index.
    pub interface: u32,
    /// The TTL or hop limit as received.
    pub ttl: u8,
    /// On the multihop port?
    pub multihop: bool,
}

/// What an endpoint wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointOutput {
    /// Send a packet, with TTL 255.
    Send {
        /// Whose.
        session: SessionId,
        /// The packet.
        bytes: [u8; PACKET_LEN],
    },
    /// A session's state changed.
    Changed {
        /// Its name.
        name: Arc<str>,
        /// How.
        change: StateChange,
    },
    /// A session is gone: its socket can be closed.
    Closed {
        /// Which.
        session: SessionId,
    },
}

#[derive(Debug)]
struct Entry {
    config: SessionConfig,
    session: Session,
    timer: Option<Instant>,
    /// Removed; it says AdminDown until then.
    until: Option<Instant>,
}

/// Many sessions without I/O.
///
/// ```
/// use std::time::Instant;
/// use openelb_bgp::bfd::{Endpoint, EndpointOutput, SessionConfig};
///
/// let now = Instant::now();
/// let mut endpoint = Endpoint::new(7);
/// endpoint.set_sessions([SessionConfig::single_hop("router", "192.0.2.1".parse()?)], now);
/// assert!(matches!(endpoint.poll_output(now), Some(EndpointOutput::Send { .. })));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug)]
pub struct Endpoint {
    entries: BTreeMap<SessionId, Entry>,
    by_name: BTreeMap<Arc<str>, SessionId>,
    by_discriminator: HashMap<u32, SessionId>,
    by_remote: HashMap<(IpAddr, bool), Vec<SessionId>>,
    timers: BTreeSet<(Instant, SessionId)>,
    /// Sessions that may have output.
    ready: BTreeSet<SessionId>,
    closed: VecDeque<SessionId>,
    next: u64,
    random: Random,
}

impl Endpoint {
    /// Without sessions. The seed should not be guessable: discriminators come from it.
    pub fn new(seed: u64) -> Self {
        Self {
            entries: BTreeMap::new(),
            by_name: BTreeMap::new(),
            by_discriminator: HashMap::new(),
            by_remote: HashMap::new(),
            timers: BTreeSet::new(),
            ready: BTreeSet::new(),
            closed: VecDeque::new(),
            next: 0,
            random: Random::new(seed),
        }
    }

    /// Makes this the whole set of sessions; of two with one name the first counts. Timers, TTL and interface change in
    /// place; another address is another session. One that goes says AdminDown for a detection time, so that its
    /// neighbour does not take the silence for a lost path, or asks it to hold the session.
    pub fn set_sessions(&mut self, sessions: impl IntoIterator<Item = SessionConfig>, now: Instant) {
        let mut wanted = BTreeMap::new();
        for session in sessions {
            wanted.entry(Arc::clone(&session.name)).or_insert(session);
        }
        let known: Vec<(Arc<str>, SessionId)> =
            self.by_name.iter().map(|(name, id)| (Arc::clone(name), *id)).collect();
        for (name, id) in known {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            let path = |config: &SessionConfig| (config.remote.to_canonical(), config.local, config.multihop);
            match wanted.get(&name) {
                Some(config) if path(config) == path(&entry.config) => {
                    entry.session.set_timers(config.timers, now);
                    entry.session.set_wait(config.wait_until, now);
                    entry.config = config.clone();
                    wanted.remove(&name);
                }
                _ => {
                    self.by_name.remove(&name);
                    let hold = entry.config.hold;
                    if hold.is_zero() || !entry.session.hold(hold, now) {
                        entry.session.set_admin_down(true, now);
                    }
                    let silence = entry.session.status().transmit_interval.unwrap_or_default();
                    let multiplier = entry.config.timers.detect_multiplier.into();
                    entry.until = Some(now + silence.saturating_mul(multiplier).min(FAREWELL_MAX));
                }
            }
            self.touch(id);
        }
        for config in wanted.into_values() {
            self.add(config, now);
        }
    }

    fn add(&mut self, config: SessionConfig, now: Instant) {
        // Random, so that nobody off the path can guess it, and unique (RFC 5880 §6.8.1).
        let discriminator = loop {
            let number = u32::try_from(self.random.next() >> 32).unwrap_or_default();
            if let Some(number) = NonZeroU32::new(number)
                && !self.by_discriminator.contains_key(&number.get())
            {
                break number;
            }
        };
        let id = SessionId(self.next);
        self.next += 1;
        let mut session = Session::new(config.timers, discriminator, self.random.next(), now);
        session.set_wait(config.wait_until, now);
        if config.resume {
            session.resume(now);
        }
        // What is left of a removed session on this path must not speak beside it.
        let place = (config.remote.to_canonical(), config.multihop);
        let others = self.by_remote.get(&place).cloned().unwrap_or_default();
        for other in others {
            let same = |entry: &Entry| entry.until.is_some() && entry.config.interface == config.interface;
            if self.entries.get(&other).is_some_and(same) {
                self.remove(other);
            }
        }
        self.by_name.insert(Arc::clone(&config.name), id);
        self.by_discriminator.insert(discriminator.get(), id);
        self.by_remote.entry(place).or_default().push(id);
        self.entries.insert(id, Entry { config, session, timer: None, until: None });
        self.touch(id);
    }

    fn remove(&mut self, id: SessionId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.by_discriminator.remove(&entry.session.status().local_discriminator);
        let place = (entry.config.remote.to_canonical(), entry.config.multihop);
        if let Some(sessions) = self.by_remote.get_mut(&place) {
            sessions.retain(|other| *other != id);
            if sessions.is_empty() {
                self.by_remote.remove(&place);
            }
        }
        if let Some(at) = entry.timer {
            self.timers.remove(&(at, id));
        }
        self.closed.push_back(id);
    }

    /// Something of this session changed: it may have output, and its deadline may be another one.
    fn touch(&mut self, id: SessionId) {
        self.ready.insert(id);
        self.set_timer(id);
    }

    fn set_timer(&mut self, id: SessionId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let timer = entry.session.poll_timeout().into_iter().chain(entry.until).min();
        if entry.timer != timer {
            if let Some(before) = std::mem::replace(&mut entry.timer, timer) {
                self.timers.remove(&(before, id));
            }
            self.timers.extend(timer.map(|at| (at, id)));
        }
    }

    /// A datagram came in on one of BFD's ports.
    ///
    /// # Errors
    /// Why it is discarded.
    pub fn handle_packet(&mut self, arrival: &Arrival, bytes: &[u8], now: Instant) -> Result<(), Discard> {
        let packet = ControlPacket::decode(bytes)?;
        let id = if packet.your_discriminator == 0 {
            self.by_arrival(arrival).ok_or(Discard::UnknownSender)?
        } else {
            let known = self.by_discriminator.get(&packet.your_discriminator).copied();
            let resumed = known.or_else(|| self.resumed(arrival, &packet));
            resumed.ok_or(Discard::UnknownDiscriminator(packet.your_discriminator))?
        };
        let entry = self.entries.get_mut(&id).ok_or(Discard::UnknownSender)?;
        if arrival.ttl < entry.config.minimum_ttl {
            return Err(Discard::Ttl { ttl: arrival.ttl, minimum: entry.config.minimum_ttl });
        }
        if entry.session.is_resumed_by(&packet)
            && let Some(discriminator) = NonZeroU32::new(packet.your_discriminator)
        {
            self.by_discriminator.remove(&entry.session.status().local_discriminator);
            self.by_discriminator.insert(discriminator.get(), id);
            entry.session.adopt(discriminator);
        }
        let result = entry.session.handle_packet(&packet, now);
        self.touch(id);
        result
    }

    /// The session that a packet for the program before this one belongs to.
    fn resumed(&self, arrival: &Arrival, packet: &ControlPacket) -> Option<SessionId> {
        let id = self.by_arrival(arrival)?;
        self.entries.get(&id)?.session.is_resumed_by(packet).then_some(id)
    }

    /// RFC 5881 §3, RFC 5883 §4: a first packet is told by the addresses and, over one hop, by the interface.
    fn by_arrival(&self, arrival: &Arrival) -> Option<SessionId> {
        let sessions = self.by_remote.get(&(arrival.remote.to_canonical(), arrival.multihop))?;
        sessions.iter().copied().find(|id| {
            self.entries.get(id).is_some_and(|Entry { config, until, .. }| {
                until.is_none()
                    && (config.interface == 0 || config.interface == arrival.interface)
                    && config.local.is_none_or(|local| local.to_canonical() == arrival.local.to_canonical())
            })
        })
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.remove(&(at, id));
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.timer = None;
            if entry.until.is_some_and(|until| until <= now) {
                self.remove(id);
                continue;
            }
            entry.session.handle_timeout(now);
            self.ready.insert(id);
        }
    }

    /// When something is due: [`handle_timeout`](Self::handle_timeout), then [`poll_output`](Self::poll_output).
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// What to do next.
    pub fn poll_output(&mut self, now: Instant) -> Option<EndpointOutput> {
        while let Some(id) = self.ready.first().copied() {
            if let Some(entry) = self.entries.get_mut(&id) {
                // Of one that is going nobody wants to hear.
                if entry.until.is_none()
                    && let Some(change) = entry.session.poll_event()
                {
                    return Some(EndpointOutput::Changed { name: Arc::clone(&entry.config.name), change });
                }
                if let Some(packet) = entry.session.poll_transmit(now) {
                    return Some(EndpointOutput::Send { session: id, bytes: packet.encode() });
                }
            }
            self.ready.pop_first();
            self.set_timer(id);
        }
        self.closed.pop_front().map(|session| EndpointOutput::Closed { session })
    }

    /// The configuration of a session, also of one that says farewell.
    pub fn config(&self, session: SessionId) -> Option<&SessionConfig> {
        self.entries.get(&session).map(|entry| &entry.config)
    }

    /// The sessions as they stand.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &SessionConfig, SessionStatus)> {
        self.by_name
            .values()
            .filter_map(|id| self.entries.get(id).map(|entry| (*id, &entry.config, entry.session.status())))
    }
}
