//! One session: the state machine of RFC 5880 §6.8, without I/O.

use std::{
    collections::VecDeque,
    fmt,
    num::NonZeroU32,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use super::wire::{ControlPacket, Diagnostic, Discard, State};

/// While a session is not Up it sends no faster than this (RFC 5880 §6.8.3).
pub const SLOW_INTERVAL: Duration = Duration::from_secs(1);
/// A session that may go on over a restart listens for two of the neighbour's packets, for so long at least and at most.
const LISTEN: RangeInclusive<Duration> = SLOW_INTERVAL..=Duration::from_secs(10);
/// What is assumed of a neighbour before it was heard (RFC 5880 §6.8.1).
const REMOTE_MIN_RX: Duration = Duration::from_micros(1);

/// How a session is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timers {
    /// How many missing packets are a lost session, at the neighbour; 1 to 255.
    pub detect_multiplier: u8,
    /// No shorter do we want to send, while Up; 1 µs to 4294 s.
    pub desired_min_tx: Duration,
    /// No shorter can we receive; 1 µs to 4294 s.
    pub required_min_rx: Duration,
    /// Say nothing before the neighbour does (RFC 5880 §6.1).
    pub passive: bool,
}

impl Default for Timers {
    /// 3 × 300 ms both ways, active.
    fn default() -> Self {
        let interval = Duration::from_millis(300);
        Self { detect_multiplier: 3, desired_min_tx: interval, required_min_rx: interval, passive: false }
    }
}

/// Why a session is in its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The neighbour was heard.
    Heard,
    /// Nothing was heard for the detection time.
    TimeExpired,
    /// The neighbour said that it is down.
    NeighborDown,
    /// The neighbour's operator holds the session down. The path may be fine (RFC 5882 §4.2).
    NeighborAdminDown,
    /// Held down or released here.
    Local,
}

impl Cause {
    /// Whether the path is to be taken as lost: what runs over it ends (RFC 5882 §3.2). Not if somebody has merely
    /// switched BFD off.
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::TimeExpired | Self::NeighborDown)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Heard => "the neighbour was heard",
            Self::TimeExpired => "nothing was heard for the detection time",
            Self::NeighborDown => "the neighbour signaled down",
            Self::NeighborAdminDown => "the neighbour is administratively down",
            Self::Local => "held down here",
        })
    }
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
    /// Why.
    pub cause: Cause,
    /// When.
    pub at: Instant,
}

impl StateChange {
    /// Whether a path that worked is lost.
    pub const fn is_failure(&self) -> bool {
        matches!(self.from, State::Up) && self.cause.is_failure()
    }
}

/// Counters of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Control packets sent.
    pub sent: u64,
    /// Control packets received and used.
    pub received: u64,
    /// How often the session came Up.
    pub up: u64,
    /// How often it left Up.
    pub down: u64,
}

/// A session as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    /// Our state.
    pub state: State,
    /// The state that the neighbour said last.
    pub remote_state: State,
    /// Why we were last not Up.
    pub diagnostic: Diagnostic,
    /// Why the neighbour was last not Up, as it says.
    pub remote_diagnostic: Diagnostic,
    /// Since when the state is what it is.
    pub since: Instant,
    /// Our number for the session.
    pub local_discriminator: u32,
    /// The neighbour's, or 0.
    pub remote_discriminator: u32,
    /// The interval at which we send, before jitter; `None` if we do not send periodically.
    pub transmit_interval: Option<Duration>,
    /// The silence after which the session is down; `None` before the neighbour was heard.
    pub detection_time: Option<Duration>,
    /// Counters.
    pub counters: Counters,
}

/// The machine of one session. After every input poll [`poll_event`](Self::poll_event) and
/// [`poll_transmit`](Self::poll_transmit) until they give nothing, and call [`handle_timeout`](Self::handle_timeout)
/// when [`poll_timeout`](Self::poll_timeout) says so.
///
/// ```
/// use std::{num::NonZeroU32, time::Instant};
/// use openelb_bgp::bfd::{Session, State, Timers};
///
/// let now = Instant::now();
/// let discriminator = |n| NonZeroU32::new(n).unwrap();
/// let mut a = Session::new(Timers::default(), discriminator(1), 1, now);
/// let mut b = Session::new(Timers::default(), discriminator(2), 2, now);
/// // Three packets each way over a perfect wire.
/// for _ in 0..3 {
///     while let Some(packet) = a.poll_transmit(now) { b.handle_packet(&packet, now)?; }
///     while let Some(packet) = b.poll_transmit(now) { a.handle_packet(&packet, now)?; }
/// }
/// assert_eq!((a.state(), b.state()), (State::Up, State::Up));
/// # Ok::<(), openelb_bgp::bfd::Discard>(())
/// ```
#[derive(Clone, Debug)]
pub struct Session {
    timers: Timers,
    state: State,
    since: Instant,
    local_discriminator: NonZeroU32,
    diagnostic: Diagnostic,
    /// As told to the neighbour.
    desired_min_tx: Duration,
    /// As sent by: behind `desired_min_tx` until the neighbour has confirmed a slower one.
    tx_in_use: Duration,
    /// As detected by: behind `required_min_rx` until the neighbour has confirmed a faster one.
    rx_in_use: Duration,
    remote: Remote,
    poll: Poll,
    /// A P waits for its F.
    answer: bool,
    last_sent: Option<Instant>,
    transmit_at: Option<Instant>,
    /// The contents changed: not to be kept for the next periodic packet.
    urgent: bool,
    detect_at: Option<Instant>,
    /// While down it is silent and deaf until then.
    wait_until: Option<Instant>,
    /// It says nothing before it was listened until then.
    listen_until: Option<Instant>,
    random: Random,
    events: VecDeque<StateChange>,
    counters: Counters,
}

/// What the neighbour said last.
#[derive(Clone, Copy, Debug)]
struct Remote {
    discriminator: u32,
    state: State,
    diagnostic: Diagnostic,
    min_rx: Duration,
    desired_min_tx: Duration,
    detect_multiplier: u8,
    demand: bool,
}

impl Remote {
    const UNKNOWN: Self = Self {
        discriminator: 0,
        state: State::Down,
        diagnostic: Diagnostic::NONE,
        min_rx: REMOTE_MIN_RX,
        desired_min_tx: Duration::ZERO,
        detect_multiplier: 0,
        demand: false,
    };
}

/// The Poll Sequence (RFC 5880 §6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    None,
    Running,
    /// Values changed while one was running: another must follow.
    RunningStale,
}

/// Splitmix64: jitter needs no secrecy, and one seed gives one history.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Session {
    /// A session that is Down and, unless passive, sends at once.
    pub fn new(timers: Timers, discriminator: NonZeroU32, seed: u64, now: Instant) -> Self {
        let slow = timers.desired_min_tx.max(SLOW_INTERVAL);
        let mut session = Self {
            timers,
            state: State::Down,
            since: now,
            local_discriminator: discriminator,
            diagnostic: Diagnostic::NONE,
            desired_min_tx: slow,
            tx_in_use: slow,
            rx_in_use: timers.required_min_rx,
            remote: Remote::UNKNOWN,
            poll: Poll::None,
            answer: false,
            last_sent: None,
            transmit_at: None,
            urgent: true,
            detect_at: None,
            wait_until: None,
            listen_until: None,
            random: Random::new(seed),
            events: VecDeque::new(),
            counters: Counters::default(),
        };
        session.schedule(now);
        session
    }

    /// Our state.
    pub fn state(&self) -> State {
        self.state
    }

    /// The session as it stands.
    pub fn status(&self) -> SessionStatus {
        SessionStatus {
            state: self.state,
            remote_state: self.remote.state,
            diagnostic: self.diagnostic,
            remote_diagnostic: self.remote.diagnostic,
            since: self.since,
            local_discriminator: self.local_discriminator.get(),
            remote_discriminator: self.remote.discriminator,
            transmit_interval: self.is_periodic().then(|| self.interval()),
            detection_time: self.detect_at.map(|_| self.detection_time()),
            counters: self.counters,
        }
    }

    /// Changes the timers of a running session; the neighbour is told by a Poll Sequence, and no packet is missed
    /// meanwhile (RFC 5880 §6.8.3).
    pub fn set_timers(&mut self, timers: Timers, now: Instant) {
        let before = std::mem::replace(&mut self.timers, timers);
        if before == timers {
            return;
        }
        let up = self.state == State::Up;
        let desired = if up { timers.desired_min_tx } else { timers.desired_min_tx.max(SLOW_INTERVAL) };
        let polled = desired != self.desired_min_tx || timers.required_min_rx != before.required_min_rx;
        self.desired_min_tx = desired;
        if !up || desired < self.tx_in_use {
            self.tx_in_use = desired;
        }
        if !up || timers.required_min_rx > self.rx_in_use {
            self.rx_in_use = timers.required_min_rx;
        }
        if polled && matches!(self.state, State::Init | State::Up) {
            self.start_poll();
        }
        self.schedule(now);
    }

    /// A session that is or goes Down says nothing and hears nothing until then, so that it comes up neither here nor at
    /// the neighbour; one that is Up stays so. What runs over the path is to come up first. `None`: it waits no longer.
    pub fn set_wait(&mut self, until: Option<Instant>, now: Instant) {
        let before = std::mem::replace(&mut self.wait_until, until.filter(|at| *at > now));
        if before != self.wait_until {
            self.urgent |= self.wait_until.is_none();
            self.schedule(now);
        }
    }

    /// A session that has just begun listens for a moment before it speaks: a neighbour that still holds the session of
    /// the program before this one up, since it was told to ([`hold`](Self::hold)) or has not missed us yet, is taken at
    /// its word, with the discriminator by which it knows us. So the session is never down there.
    pub fn resume(&mut self, now: Instant) {
        let listen = self.timers.required_min_rx.saturating_mul(2).clamp(*LISTEN.start(), *LISTEN.end());
        self.listen_until = Some(now + listen);
        self.schedule(now);
    }

    /// Whether a packet is of the session before a restart.
    pub(super) fn is_resumed_by(&self, packet: &ControlPacket) -> bool {
        self.listen_until.is_some() && packet.state == State::Up && packet.your_discriminator != 0
    }

    /// Takes over the discriminator of the session before a restart, which is nobody else's here.
    pub(super) fn adopt(&mut self, discriminator: NonZeroU32) {
        self.local_discriminator = discriminator;
    }

    /// Asks the neighbour to hold the session up without a packet for so long: this program restarts. `false` if it is
    /// not up: then there is nothing to hold.
    pub fn hold(&mut self, time: Duration, now: Instant) -> bool {
        if self.state != State::Up {
            return false;
        }
        let Timers { detect_multiplier, desired_min_tx, .. } = self.timers;
        let interval = desired_min_tx.max(self.remote.min_rx).max(time / u32::from(u8::MAX));
        let times = time.as_micros().checked_div(interval.as_micros()).unwrap_or_default();
        let times = u8::try_from(times).unwrap_or(u8::MAX).max(detect_multiplier);
        let timers = Timers {
            detect_multiplier: times,
            desired_min_tx: if interval > self.remote.min_rx { interval } else { desired_min_tx },
            ..self.timers
        };
        self.set_timers(timers, now);
        self.urgent = true;
        self.schedule(now);
        true
    }

    fn is_listening(&self) -> bool {
        self.listen_until.is_some()
    }

    fn listened(&mut self, now: Instant) {
        if self.listen_until.take().is_some() {
            self.urgent = true;
            self.schedule(now);
        }
    }

    fn is_waiting(&self) -> bool {
        self.wait_until.is_some() && self.state == State::Down
    }

    /// Holds the session down, or lets it come up again (RFC 5880 §6.8.16).
    pub fn set_admin_down(&mut self, down: bool, now: Instant) {
        if down {
            self.diagnostic = Diagnostic::ADMINISTRATIVELY_DOWN;
            self.enter(State::AdminDown, Cause::Local, now);
        } else if self.state == State::AdminDown {
            self.enter(State::Down, Cause::Local, now);
        }
    }

    /// A packet of this session (RFC 5880 §6.8.6, from where the session is known).
    ///
    /// # Errors
    /// Why it is discarded; nothing has changed.
    pub fn handle_packet(&mut self, packet: &ControlPacket, now: Instant) -> Result<(), Discard> {
        if packet.your_discriminator == 0 {
            if !matches!(packet.state, State::Down | State::AdminDown) {
                return Err(Discard::YourDiscriminatorZero(packet.state));
            }
        } else if packet.your_discriminator != self.local_discriminator.get() {
            return Err(Discard::UnknownDiscriminator(packet.your_discriminator));
        }
        if self.is_waiting() {
            return Err(Discard::Waiting);
        }
        let resumed = self.is_resumed_by(packet);
        self.listened(now);
        let min_rx_before = self.remote.min_rx;
        self.remote = Remote {
            discriminator: packet.my_discriminator,
            state: packet.state,
            diagnostic: packet.diagnostic,
            min_rx: packet.required_min_rx,
            desired_min_tx: packet.desired_min_tx,
            detect_multiplier: packet.detect_multiplier,
            demand: packet.demand,
        };
        if packet.final_ {
            self.finish_poll();
        }
        if self.state == State::AdminDown {
            return Err(Discard::AdminDown);
        }
        self.counters.received += 1;
        if packet.state == State::AdminDown {
            if self.state != State::Down {
                self.diagnostic = Diagnostic::NEIGHBOR_DOWN;
                self.enter(State::Down, Cause::NeighborAdminDown, now);
            }
        } else {
            match (self.state, packet.state) {
                (State::Down, State::Up) if resumed => self.enter(State::Up, Cause::Heard, now),
                (State::Down, State::Down) => self.enter(State::Init, Cause::Heard, now),
                (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                    self.enter(State::Up, Cause::Heard, now);
                }
                (State::Up, State::Down) => {
                    self.diagnostic = Diagnostic::NEIGHBOR_DOWN;
                    self.enter(State::Down, Cause::NeighborDown, now);
                }
                _ => {}
            }
        }
        self.answer |= packet.poll;
        self.detect_at = Some(now + self.detection_time());
        if min_rx_before != self.remote.min_rx || self.transmit_at.is_none() || !self.is_periodic() {
            self.schedule(now);
        }
        Ok(())
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.wait_until.is_some_and(|at| at <= now) {
            self.set_wait(None, now);
        }
        if self.listen_until.is_some_and(|at| at <= now) {
            self.listened(now);
        }
        if self.detect_at.is_some_and(|at| at <= now) {
            self.detect_at = None;
            self.remote = Remote::UNKNOWN;
            if matches!(self.state, State::Init | State::Up) {
                self.diagnostic = Diagnostic::TIME_EXPIRED;
                self.enter(State::Down, Cause::TimeExpired, now);
            }
            self.schedule(now);
        }
    }

    /// When something is due: [`handle_timeout`](Self::handle_timeout), then poll.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.detect_at, self.transmit_at, self.wait_until, self.listen_until].into_iter().flatten().min()
    }

    /// The next packet that is to be sent now.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<ControlPacket> {
        if std::mem::take(&mut self.answer) {
            // Outside of the periodic packets, which go on as they were (RFC 5880 §6.5). P and F exclude each other.
            self.counters.sent += 1;
            return Some(ControlPacket { final_: true, ..self.packet() });
        }
        if self.transmit_at.is_none_or(|at| at > now) {
            return None;
        }
        self.urgent = false;
        self.last_sent = Some(now);
        self.schedule(now);
        self.counters.sent += 1;
        Some(ControlPacket { poll: self.poll != Poll::None, ..self.packet() })
    }

    /// The next change of state.
    pub fn poll_event(&mut self) -> Option<StateChange> {
        self.events.pop_front()
    }

    fn packet(&self) -> ControlPacket {
        ControlPacket {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: false,
            final_: false,
            control_plane_independent: false,
            demand: false,
            detect_multiplier: self.timers.detect_multiplier.max(1),
            my_discriminator: self.local_discriminator.get(),
            your_discriminator: self.remote.discriminator,
            desired_min_tx: self.desired_min_tx,
            required_min_rx: self.timers.required_min_rx,
            required_min_echo_rx: Duration::ZERO,
        }
    }

    fn start_poll(&mut self) {
        self.poll = if self.poll == Poll::None { Poll::Running } else { Poll::RunningStale };
    }

    fn finish_poll(&mut self) {
        match self.poll {
            Poll::None => {}
            Poll::RunningStale => self.poll = Poll::Running,
            Poll::Running => {
                self.poll = Poll::None;
                self.tx_in_use = self.desired_min_tx;
                self.rx_in_use = self.timers.required_min_rx;
            }
        }
    }

    fn enter(&mut self, to: State, cause: Cause, now: Instant) {
        let from = std::mem::replace(&mut self.state, to);
        if from == to {
            return;
        }
        self.since = now;
        if to == State::Up {
            self.counters.up += 1;
            self.diagnostic = Diagnostic::NONE;
            let desired = self.timers.desired_min_tx;
            if desired != self.desired_min_tx {
                (self.desired_min_tx, self.tx_in_use) = (desired, desired);
                self.start_poll();
            }
        } else {
            self.counters.down += u64::from(from == State::Up);
            let slow = self.timers.desired_min_tx.max(SLOW_INTERVAL);
            (self.desired_min_tx, self.tx_in_use) = (slow, slow);
            self.rx_in_use = self.timers.required_min_rx;
            self.poll = Poll::None;
        }
        self.events.push_back(StateChange { from, to, cause, at: now });
        self.urgent = true;
        self.schedule(now);
    }

    /// RFC 5880 §6.8.4.
    fn detection_time(&self) -> Duration {
        self.rx_in_use.max(self.remote.desired_min_tx).saturating_mul(self.remote.detect_multiplier.into())
    }

    fn interval(&self) -> Duration {
        self.tx_in_use.max(self.remote.min_rx)
    }

    /// Whether packets are sent periodically (RFC 5880 §6.8.7).
    fn is_periodic(&self) -> bool {
        let silent = self.timers.passive && self.remote.discriminator == 0;
        let demand = self.remote.demand
            && self.state == State::Up
            && self.remote.state == State::Up
            && self.poll == Poll::None;
        !silent && !demand && !self.is_waiting() && !self.is_listening() && !self.remote.min_rx.is_zero()
    }

    fn schedule(&mut self, now: Instant) {
        self.transmit_at = match self.last_sent {
            _ if !self.is_periodic() => None,
            Some(_) if self.urgent => Some(now),
            // A shorter interval counts from the last packet, so that none of the neighbour's is missed.
            Some(last) => Some((last + self.jittered()).max(now)),
            None => Some(now),
        };
    }

    /// 75 % to 100 % of the interval, at most 90 % where one missing packet is a lost session (RFC 5880 §6.8.7).
    fn jittered(&mut self) -> Duration {
        let span = if self.timers.detect_multiplier <= 1 { 150 } else { 250 };
        let share = 750 + u32::try_from(self.random.next() % (span + 1)).unwrap_or(0);
        // Divided first: an interval of more than an hour must not overflow, and a microsecond is a microsecond.
        let interval = self.interval();
        interval.saturating_mul(share) / 1000
    }
}
