//! One neighbour: its state machine, its connections, its session.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    config::{PeerConfig, SpeakerConfig},
    event::{Accepted, ConnectionId, Event, Output, PeerId, Refusal},
    options::{PrefixLimit, ReceivedRoutes},
    scanner::Scanner,
    session::Session,
    stats::{LastError, PeerCounters, PeerStatus, SessionStatus},
};
use crate::{
    fsm::{self, ConnectionInfo, Direction, FamilyOffer, Fsm, FsmConfig, State},
    rib::Rib,
    wire::{GracefulRestart, GracefulRestartFamily, Notification, RouteRefreshKind, Update},
};

/// UPDATEs are made only while fewer octets than this are on their way: a slow neighbour sees the state of the day,
/// not a backlog.
const WINDOW: usize = 64 * 1024;
/// TTL of iBGP, and of peers whose AS number is not fixed.
const DEFAULT_TTL: u8 = 64;

/// One of the two connections.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// Which of those that followed each other.
    generation: u32,
    /// There is one, or one is being opened.
    live: bool,
    /// Octets handed out and not yet written.
    in_flight: usize,
    scanner: Scanner,
}

/// One neighbour.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) config: Arc<PeerConfig>,
    local_asn: u32,
    fsm: Fsm,
    links: [Link; 2],
    pub(super) session: Option<Session>,
    state: State,
    state_since: Instant,
    last_error: Option<LastError>,
    counters: PeerCounters,
    /// The states changed since the speaker looked.
    pub(super) changed: bool,
    /// What the neighbour has changed since the speaker looked.
    pub(super) routes_changed: bool,
    /// When the speaker's timer for this peer is set.
    pub(super) timer: Option<Instant>,
    /// The peer stands in the speaker's queue.
    pub(super) ready: bool,
}

/// Whether two configurations have the same session: the rest can change while it stays up.
pub(super) fn same_session(a: &PeerConfig, b: &PeerConfig) -> bool {
    let plain = |config: &PeerConfig| PeerConfig {
        connect_retry: Duration::ZERO,
        connect_retry_max: Duration::ZERO,
        connect_timeout: Duration::ZERO,
        bfd: None,
        link_failover: false,
        prefix_limit: PrefixLimit::default(),
        received_routes: ReceivedRoutes::Count,
        ..config.clone()
    };
    plain(a) == plain(b)
}

impl Peer {
    pub(super) fn new(
        id: PeerId,
        config: Arc<PeerConfig>,
        speaker: &SpeakerConfig,
        counters: PeerCounters,
        now: Instant,
    ) -> Self {
        let local_asn = config.local_asn.unwrap_or(speaker.asn);
        // Peers must not draw the same jitter: they would move in lock-step.
        let seed = speaker.seed ^ (id.0 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut fsm = Fsm::new(fsm_config(&config, speaker, local_asn), seed);
        if !config.admin_down {
            fsm.start(now);
        }
        Self {
            id,
            config,
            local_asn,
            fsm,
            links: [Link::default(); 2],
            session: None,
            state: State::Idle,
            state_since: now,
            last_error: None,
            counters,
            changed: false,
            routes_changed: false,
            timer: None,
            ready: false,
        }
    }

    /// The counters once an end that is coming is counted.
    pub(super) fn counters_at_the_end(&self) -> PeerCounters {
        let dropped = self.counters.dropped + u64::from(self.state == State::Established);
        PeerCounters { dropped, ..self.counters }
    }

    fn link(&mut self, direction: Direction) -> &mut Link {
        let [outgoing, incoming] = &mut self.links;
        match direction {
            Direction::Outgoing => outgoing,
            Direction::Incoming => incoming,
        }
    }

    fn connection(&mut self, direction: Direction) -> ConnectionId {
        ConnectionId { peer: self.id, direction, generation: self.link(direction).generation }
    }

    pub(super) fn is_current(&self, connection: ConnectionId) -> bool {
        let [outgoing, incoming] = &self.links;
        let link = if connection.direction == Direction::Outgoing { outgoing } else { incoming };
        link.live && link.generation == connection.generation
    }

    fn ttl(&self) -> u8 {
        let external = self.config.asn != 0 && self.config.asn != self.local_asn;
        self.config.multihop_ttl.unwrap_or(if external { 1 } else { DEFAULT_TTL })
    }

    pub(super) fn set_speaker_config(&mut self, speaker: &SpeakerConfig, rib: &mut Rib) {
        if let Some(session) = &mut self.session {
            session.set_config(&self.config, speaker, rib);
        }
    }

    /// A configuration with the [same session](same_session).
    pub(super) fn set_config(&mut self, config: Arc<PeerConfig>) {
        self.fsm.set_connect_retry(config.connect_retry, config.connect_retry_max);
        self.config = config;
    }

    pub(super) fn accept(&mut self, info: ConnectionInfo) -> Result<Accepted, Refusal> {
        let peer = || self.config.name.clone();
        if self.config.admin_down {
            return Err(Refusal::AdminDown { peer: peer() });
        }
        if let Some(expected) = self.config.local_address
            && info.local.ip().to_canonical() != expected.to_canonical()
        {
            return Err(Refusal::LocalAddress { peer: peer(), expected, local: info.local });
        }
        if self.link(Direction::Incoming).live {
            return Err(Refusal::Busy { peer: self.config.name.clone() });
        }
        // RFC 4271 §8.2.2. Refused at once, so that a neighbour that comes back and back leaves nothing behind.
        if self.fsm.state() == State::Idle {
            return Err(Refusal::Idle { peer: self.config.name.clone() });
        }
        self.open(Direction::Incoming);
        let connection = self.connection(Direction::Incoming);
        Ok(Accepted { connection, config: Arc::clone(&self.config), ttl: self.ttl() })
    }

    fn open(&mut self, direction: Direction) {
        let link = self.link(direction);
        *link = Link { generation: link.generation.wrapping_add(1), live: true, ..Link::default() };
    }

    pub(super) fn handle_connected(&mut self, direction: Direction, info: ConnectionInfo, now: Instant) {
        self.fsm.handle_connected(direction, info, now);
    }

    pub(super) fn handle_connect_failed(&mut self, error: &str, now: Instant) {
        self.link(Direction::Outgoing).live = false;
        self.fail(format!("cannot connect to {}: {error}", self.config.socket_address()), now);
        self.fsm.handle_connect_failed(now);
    }

    fn fail(&mut self, reason: String, now: Instant) {
        let repeated = self.last_error.as_ref().is_some_and(|last| last.reason == reason);
        self.last_error = Some(LastError { reason, at: now });
        self.changed |= !repeated;
    }

    pub(super) fn handle_bytes(&mut self, direction: Direction, bytes: &[u8], now: Instant) {
        let [outgoing, incoming] = &mut self.links;
        let link = if direction == Direction::Outgoing { outgoing } else { incoming };
        link.scanner.count(bytes, &mut self.counters.received);
        self.fsm.handle_bytes(direction, bytes, now);
    }

    pub(super) fn handle_written(&mut self, direction: Direction, octets: usize, now: Instant) {
        let link = self.link(direction);
        link.in_flight = link.in_flight.saturating_sub(octets);
        self.fsm.handle_write_progress(direction, now);
    }

    pub(super) fn handle_closed(&mut self, direction: Direction, now: Instant) {
        self.link(direction).live = false;
        self.fsm.handle_closed(direction, now);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.fsm.handle_timeout(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.fsm.poll_timeout()
    }
}

/// What a peer needs of its speaker to go on.
pub(super) struct Surroundings<'a> {
    pub(super) config: &'a SpeakerConfig,
    pub(super) routes_complete: bool,
    pub(super) rib: &'a mut Rib,
    pub(super) events: &'a mut VecDeque<Event>,
}

impl Peer {
    /// What to do next: what the state machine wants, then UPDATEs as far as the connection takes them.
    pub(super) fn poll_output(&mut self, around: &mut Surroundings<'_>, now: Instant) -> Option<Output> {
        while let Some(output) = self.fsm.poll_output() {
            if let Some(output) = self.translate(output, around, now) {
                return Some(output);
            }
        }
        let session = self.session.as_mut()?;
        let direction = session.direction;
        let [outgoing, incoming] = &mut self.links;
        let link = if direction == Direction::Outgoing { outgoing } else { incoming };
        if !link.live || link.in_flight >= WINDOW {
            return None;
        }
        let pulled = session.pull(around.routes_complete, around.rib);
        if pulled.bytes.is_empty() {
            return None;
        }
        self.counters.sent.update += pulled.updates;
        self.counters.sent.route_refresh += pulled.route_refreshes;
        self.counters.sent.bytes += pulled.bytes.len() as u64;
        link.in_flight += pulled.bytes.len();
        self.routes_changed = true;
        self.fsm.handle_update_sent(now);
        Some(Output::Send { connection: self.connection(direction), bytes: pulled.bytes.freeze() })
    }

    /// Does what the state machine says, or hands it on to the driver.
    fn translate(
        &mut self,
        output: fsm::Output,
        around: &mut Surroundings<'_>,
        now: Instant,
    ) -> Option<Output> {
        match output {
            fsm::Output::Connect => {
                self.open(Direction::Outgoing);
                let connection = self.connection(Direction::Outgoing);
                return Some(Output::Connect {
                    connection,
                    config: Arc::clone(&self.config),
                    ttl: self.ttl(),
                });
            }
            fsm::Output::Send { direction, bytes } => {
                if !self.link(direction).live {
                    return None; // closed by the neighbour meanwhile
                }
                Scanner::default().count(&bytes, &mut self.counters.sent);
                self.link(direction).in_flight += bytes.len();
                return Some(Output::Send { connection: self.connection(direction), bytes });
            }
            fsm::Output::Close { direction } => {
                let connection = self.connection(direction);
                if std::mem::take(&mut self.link(direction).live) {
                    return Some(Output::Close { connection });
                }
            }
            fsm::Output::StateChanged(state) => {
                self.state = state;
                self.state_since = now;
                self.changed = true;
                around.events.push_back(Event::State { peer: self.config.name.clone(), state });
            }
            fsm::Output::Established(negotiated) => {
                self.counters.established += 1;
                let session = Session::new(&self.config, around.config, *negotiated, around.rib, now);
                if let Some(before) = self.session.replace(session) {
                    before.release(around.rib);
                }
                (self.changed, self.routes_changed) = (true, true);
            }
            fsm::Output::Down(reason) => {
                if let Some(session) = self.session.take() {
                    session.release(around.rib);
                    self.counters.dropped += 1;
                    self.routes_changed = true;
                }
                let reason = reason.to_string();
                around
                    .events
                    .push_back(Event::Down { peer: self.config.name.clone(), reason: reason.clone() });
                self.fail(reason, now);
                self.changed = true;
            }
            fsm::Output::Update(update) => self.handle_update(&update, now),
            fsm::Output::RouteRefresh(refresh) => {
                if refresh.kind == RouteRefreshKind::Request
                    && let Some(session) = &mut self.session
                {
                    session.refresh(refresh.family, around.rib);
                }
            }
            fsm::Output::EndOfRib(family) => {
                if let Some(known) = self.session.as_mut().and_then(|session| session.family_mut(family)) {
                    self.changed |= !std::mem::replace(&mut known.end_of_rib_received, true);
                }
            }
        }
        None
    }

    /// Counts what the neighbour has.
    fn handle_update(&mut self, update: &Update, now: Instant) {
        let Some(session) = &mut self.session else { return };
        if !update.errors.is_empty() {
            self.counters.malformed_updates += 1;
        }
        for list in update.withdrawals() {
            if let Some(known) = session.family_mut(list.family()) {
                list.iter().for_each(|nlri| known.adj_in.withdraw(&nlri));
            }
        }
        // A route that comes back to us replaces what the neighbour had before, and is not used (RFC 4271 §9.1.2).
        let looped = update.attributes.as_path.as_ref().is_some_and(|path| path.contains(self.local_asn));
        let mut over = None;
        for (_, list) in update.announcements() {
            self.counters.as_loops += u64::from(looped);
            let Some(known) = session.family_mut(list.family()) else { continue };
            for nlri in list.iter() {
                if looped { known.adj_in.withdraw(&nlri) } else { known.adj_in.announce(&nlri) }
            }
            if known.adj_in.len() > self.config.prefix_limit.max_prefixes as usize {
                over = Some(known.family);
            }
        }
        if let Some(family) = over {
            self.fsm
                .reset(Notification::maximum_prefixes(family, self.config.prefix_limit.max_prefixes), now);
        }
    }

    pub(super) fn reset(&mut self, now: Instant) {
        self.fsm.reset(Notification::administrative_reset(""), now);
    }

    /// The peer is going: what is still to be done, and what the RIB held for it.
    pub(super) fn farewell(mut self, notification: Notification, rib: &mut Rib, now: Instant) -> Vec<Output> {
        self.fsm.stop(notification, now);
        let mut outputs = Vec::new();
        while let Some(output) = self.fsm.poll_output() {
            if let fsm::Output::Send { direction, bytes } = output {
                outputs.push(Output::Send { connection: self.connection(direction), bytes });
            }
        }
        for direction in [Direction::Outgoing, Direction::Incoming] {
            if self.link(direction).live {
                outputs.push(Output::Close { connection: self.connection(direction) });
            }
        }
        if let Some(session) = self.session.take() {
            session.release(rib);
        }
        outputs
    }

    pub(super) fn status(&self) -> PeerStatus {
        let session = self.session.as_ref().map(|session| SessionStatus {
            since: session.since,
            local: session.negotiated.local,
            remote: session.negotiated.remote,
            remote_asn: session.negotiated.remote_open.four_octet_asn(),
            remote_router_id: session.negotiated.remote_open.router_id,
            hold_time: session.negotiated.hold_time,
            keepalive: session.negotiated.keepalive,
            families: session.family_status(),
        });
        PeerStatus {
            name: self.config.name.clone(),
            address: self.config.address,
            asn: self.config.asn,
            local_asn: self.local_asn,
            state: self.state,
            state_since: self.state_since,
            admin_down: self.config.admin_down,
            session,
            last_error: self.last_error.clone(),
            counters: self.counters,
        }
    }
}

/// What the state machine is to know of the configuration.
fn fsm_config(peer: &PeerConfig, speaker: &SpeakerConfig, local_asn: u32) -> FsmConfig {
    let offers = peer.families.iter().map(|offer| FamilyOffer {
        family: offer.family,
        add_path_send: offer.add_path_send > 1,
        add_path_receive: offer.add_path_receive,
    });
    let graceful_restart = peer.graceful_restart.map(|restart| GracefulRestart {
        restarted: restart.restarting,
        notification: restart.notification,
        time: u16::try_from(restart.restart_time.as_secs()).unwrap_or(u16::MAX).min(4095),
        families: peer
            .families
            .iter()
            .map(|offer| GracefulRestartFamily {
                family: offer.family,
                forwarding: restart.forwarding_preserved,
            })
            .collect(),
    });
    FsmConfig {
        peer_asn: (peer.asn != 0).then_some(peer.asn),
        passive: peer.passive,
        hold_time: u16::try_from(peer.hold_time.as_secs()).unwrap_or(u16::MAX),
        keepalive: peer.keepalive,
        connect_retry: peer.connect_retry,
        connect_retry_max: peer.connect_retry_max,
        families: offers.collect(),
        graceful_restart,
        extended_messages: peer.extended_messages,
        extended_next_hop: peer.extended_next_hop,
        ..FsmConfig::new(local_asn, speaker.router_id)
    }
}
