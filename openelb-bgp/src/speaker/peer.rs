//! One neighbour: its state machine, its connections, its session.

mod offer;
mod remains;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;

use super::{
    bfd_path::BfdPath,
    challenger::{Challenger, OPEN_WITHIN, Pause, Said},
    config::{PeerConfig, SpeakerConfig},
    event::{Accepted, ConnectionId, Event, Output, PeerId, Refusal},
    options::PathState,
    reception::StaleRoutes,
    scanner::Scanner,
    session::Session,
    stats::{LastError, PeerCounters, PeerDetails, PeerSource, PeerStatus, SessionStatus},
};
use crate::{
    fsm::{self, ConnectionInfo, Direction, DownReason, Fsm, State},
    rib::Rib,
    wire::{Message, Notification, Prefix, RouteRefreshKind, SessionContext},
};

use offer::{complete_at, fsm_config, graceful_restart, same_session};
pub(super) use remains::Before;

/// UPDATEs are made only while fewer octets than this are on their way: a slow neighbour sees the state of the day,
/// not a backlog.
const WINDOW: usize = 64 * 1024;
/// TTL of iBGP, and of peers of which nobody knows beforehand whether they are external.
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
    /// Of incoming connections.
    generations: u32,
    challenger: Option<Challenger>,
    /// Before another connection is heard beside one that is there.
    pause: Pause,
    /// To be handed out before all else.
    pending: VecDeque<Output>,
    pub(super) session: Option<Session>,
    pub(super) stale: StaleRoutes,
    pub(super) state: State,
    state_since: Instant,
    /// From when to when the session before this one was established.
    last_session: Option<(Instant, Instant)>,
    last_error: Option<LastError>,
    /// Why we have just ended the session, where the NOTIFICATION does not say it.
    pub(super) end_cause: Option<String>,
    pub(super) counters: PeerCounters,
    pub(super) source: PeerSource,
    /// Shut down by an operator, over the configuration.
    shutdown: Option<String>,
    /// What BFD says.
    path: Option<PathState>,
    /// The neighbour has not had all our routes since this speaker began (the R bit), and waits for them until then.
    restarting: Option<Instant>,
    /// It has had them.
    told: bool,
    /// The prefix limit is another one.
    limit_changed: bool,
    /// Until when the pause lasts that began when the limit was exceeded.
    limit_pause: Option<Instant>,
    /// Bugs that were met soon after each other, and when the last one.
    bugs: Option<(u32, Instant)>,
    /// When End-of-RIB is sent though routes may be missing; taken when it has passed.
    complete_at: Option<Instant>,
    /// That has passed.
    complete: bool,
    /// The states changed since the speaker looked.
    pub(super) changed: bool,
    /// What the neighbour has changed since the speaker looked.
    pub(super) routes_changed: bool,
    /// When the speaker's timer for this peer is set.
    pub(super) timer: Option<Instant>,
    /// The peer stands in the speaker's queue.
    pub(super) ready: bool,
}

impl Peer {
    pub(super) fn new(
        id: PeerId,
        config: Arc<PeerConfig>,
        (speaker, began): (&SpeakerConfig, Instant),
        before: Before,
        now: Instant,
    ) -> Self {
        let local_asn = config.local_asn.unwrap_or(speaker.asn);
        // The restart is over once the neighbour was told everything, or has given up waiting for us.
        let restarting = config
            .graceful_restart
            .filter(|restart| restart.restarting && !before.told)
            .map(|restart| began + restart.restart_time)
            .filter(|at| *at > now);
        // Peers must not draw the same jitter: they would move in lock-step.
        let seed = speaker.seed ^ (id.0 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut terms = fsm_config(&config, speaker, local_asn, restarting.is_some());
        if matches!(before.source, PeerSource::Dynamic(_)) {
            // There is not room for many who say nothing.
            terms.open_hold = OPEN_WITHIN;
        }
        let mut fsm = Fsm::new(terms, seed);
        if !config.admin_down && before.shutdown.is_none() {
            match before.pause {
                Some(pause) => fsm.start_after(pause, now),
                None => fsm.start(now),
            }
        }
        let complete_at = complete_at(&config, speaker, began);
        let kept = before.path.filter(|(known, _)| BfdPath::of(&config, local_asn).as_ref() == Some(known));
        Self {
            id,
            local_asn,
            fsm,
            links: [Link::default(); 2],
            generations: 0,
            challenger: None,
            pause: Pause::default(),
            pending: VecDeque::new(),
            session: None,
            stale: StaleRoutes::default(),
            state: State::Idle,
            state_since: now,
            last_session: None,
            last_error: before.last_error,
            end_cause: None,
            counters: before.counters,
            source: before.source,
            shutdown: before.shutdown,
            path: kept.map(|(_, state)| state),
            restarting,
            told: before.told,
            limit_changed: false,
            limit_pause: None,
            bugs: before.bugs,
            complete: complete_at.is_some_and(|at| at <= now),
            complete_at: complete_at.filter(|at| *at > now),
            config,
            changed: false,
            routes_changed: false,
            timer: None,
            ready: false,
        }
    }

    pub(super) fn local_asn(&self) -> u32 {
        self.local_asn
    }

    /// The neighbour's AS number: what it said, else what is configured.
    pub(super) fn remote_asn(&self) -> u32 {
        let session = self.session.as_ref();
        session.map_or(self.config.asn, |session| session.negotiated.remote_open.four_octet_asn())
    }

    /// Ends the session because the neighbour exceeds its limit; the next one after a pause.
    pub(super) fn end_for_limit(
        &mut self,
        notification: Notification,
        pause: Option<Duration>,
        now: Instant,
    ) {
        self.fsm.reset_after(notification, pause, now);
        self.limit_pause = self.fsm.paused_until();
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

    fn is_challenger(&self, connection: ConnectionId) -> bool {
        connection.direction == Direction::Incoming
            && self.challenger.as_ref().is_some_and(|known| known.generation == connection.generation)
    }

    pub(super) fn is_current(&self, connection: ConnectionId) -> bool {
        if self.is_challenger(connection) {
            return true;
        }
        let [outgoing, incoming] = &self.links;
        let link = if connection.direction == Direction::Outgoing { outgoing } else { incoming };
        link.live && link.generation == connection.generation
    }

    fn ttl(&self) -> u8 {
        let external = match self.config.asn {
            0 => self.config.external_only,
            asn => asn != self.local_asn,
        };
        self.config.multihop_ttl.unwrap_or(if external { 1 } else { DEFAULT_TTL })
    }

    pub(super) fn set_speaker_config(&mut self, (speaker, began): (&SpeakerConfig, Instant), rib: &mut Rib) {
        if !self.complete {
            self.complete_at = complete_at(&self.config, speaker, began);
        }
        if let Some(session) = &mut self.session {
            session.set_config(&self.config, speaker, rib);
        }
    }

    /// Whether the session, if there is one, is as this configuration wants it: the rest can change while it stays up.
    pub(super) fn has_session_of(&self, config: &PeerConfig) -> bool {
        // The N bit goes into the next OPEN. But where it was offered and is to be no more, the neighbour would keep
        // routes for longer than it may from now on.
        let may_keep = config.graceful_restart.is_some_and(|restart| restart.notification);
        same_session(&self.config, config) && (may_keep || !self.fsm.has_offered_notification_restart())
    }

    /// A configuration with the [same session](Self::has_session_of). Gives the prefixes of received routes that are
    /// kept no more.
    pub(super) fn set_config(
        &mut self,
        config: Arc<PeerConfig>,
        speaker: &SpeakerConfig,
        rib: &mut Rib,
        now: Instant,
    ) -> Vec<Prefix> {
        let mut gone = Vec::new();
        self.fsm.set_connect_retry(config.connect_retry, config.connect_retry_max);
        if self.config.received_routes != config.received_routes
            && let Some(session) = &mut self.session
        {
            gone = session.set_reception(config.received_routes, (self.id, speaker.seed), rib);
        }
        let begins = |config: &PeerConfig| config.graceful_restart.filter(|restart| restart.restarting);
        match (begins(&self.config), begins(&config)) {
            (None, Some(restart)) => (self.told, self.restarting) = (false, Some(now + restart.restart_time)),
            (Some(_), Some(_)) => {}
            (_, None) => self.restarting = None,
        }
        self.limit_changed |= self.config.prefix_limit != config.prefix_limit;
        if config.prefix_limit.allows_more_than(&self.config.prefix_limit)
            && self.limit_pause.is_some()
            && self.limit_pause == self.fsm.paused_until()
        {
            self.fsm.end_pause(now);
        }
        if config.bfd.is_none() {
            self.path = None;
        }
        let notification = |config: &PeerConfig| config.graceful_restart.map(|restart| restart.notification);
        if notification(&self.config) != notification(&config) {
            self.drop_challenger(); // our OPEN on it says something else
        }
        self.config = config;
        self.fsm.set_graceful_restart(graceful_restart(&self.config, self.restarting.is_some()));
        self.changed = true;
        gone
    }

    pub(super) fn accept(&mut self, info: ConnectionInfo, now: Instant) -> Result<Accepted, Refusal> {
        let peer = || self.config.name.clone();
        if self.is_admin_down() {
            return Err(Refusal::AdminDown { peer: peer() });
        }
        if let Some(expected) = self.config.local_address
            && info.local.ip().to_canonical() != expected.to_canonical()
        {
            return Err(Refusal::LocalAddress { peer: peer(), expected, local: info.local });
        }
        let beside = self.links.iter().any(|link| link.live);
        if self.challenger.is_some() || (beside && !self.pause.is_over(now)) {
            return Err(Refusal::Busy { peer: peer() });
        }
        // RFC 4271 §8.2.2. Refused at once, so that a neighbour that comes back and back leaves nothing behind.
        if self.fsm.state() == State::Idle {
            return Err(Refusal::Idle { peer: peer() });
        }
        let connection = if self.link(Direction::Incoming).live {
            self.generations = self.generations.wrapping_add(1);
            let generation = self.generations;
            self.challenger = Some(Challenger::new(generation));
            ConnectionId { peer: self.id, direction: Direction::Incoming, generation }
        } else {
            self.open(Direction::Incoming);
            self.connection(Direction::Incoming)
        };
        Ok(Accepted { connection, config: Arc::clone(&self.config), ttl: self.ttl() })
    }

    fn open(&mut self, direction: Direction) {
        let generation = match direction {
            Direction::Outgoing => self.link(direction).generation.wrapping_add(1),
            Direction::Incoming => {
                self.generations = self.generations.wrapping_add(1);
                self.generations
            }
        };
        *self.link(direction) = Link { generation, live: true, ..Link::default() };
    }

    pub(super) fn handle_connected(&mut self, connection: ConnectionId, info: ConnectionInfo, now: Instant) {
        if !self.is_challenger(connection) {
            return self.fsm.handle_connected(connection.direction, info, now);
        }
        let open = Message::Open(self.fsm.open());
        if let Some(challenger) = &mut self.challenger {
            challenger.connected(info, now);
        }
        self.tell(connection, &open);
    }

    /// Sends a message on a connection that the state machine does not have.
    fn tell(&mut self, connection: ConnectionId, message: &Message) {
        let mut bytes = BytesMut::new();
        if message.encode(&SessionContext::default(), &mut bytes).is_ok() {
            Scanner::default().count(&bytes, &mut self.counters.sent);
            if let Some(challenger) = &mut self.challenger {
                challenger.in_flight += bytes.len();
            }
            self.pending.push_back(Output::Send { connection, bytes: bytes.freeze() });
        }
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

    pub(super) fn handle_bytes(&mut self, connection: ConnectionId, bytes: &[u8], now: Instant) {
        if self.is_challenger(connection) {
            return self.handle_challenge(connection, bytes, now);
        }
        // The bug of tests.
        #[cfg(test)]
        assert!(!bytes.ends_with(b"a bug"), "on purpose");
        let direction = connection.direction;
        let [outgoing, incoming] = &mut self.links;
        let link = if direction == Direction::Outgoing { outgoing } else { incoming };
        link.scanner.count(bytes, &mut self.counters.received);
        self.fsm.handle_bytes(direction, bytes, now);
    }

    fn handle_challenge(&mut self, connection: ConnectionId, bytes: &[u8], now: Instant) {
        let Some(challenger) = &mut self.challenger else { return };
        let (said, info) = (challenger.receive(bytes), challenger.info);
        let verdict = match (said, info) {
            (Said::Nothing, _) | (_, None) => return,
            (Said::Open(open), Some(info)) => self.fsm.challenge(&open, info).map_err(|(_, answer)| answer),
            (Said::Nonsense(answer), _) => Err(answer),
        };
        self.pause.begin(now);
        match verdict {
            Ok(()) => self.promote(now),
            Err(answer) => {
                self.tell(connection, &Message::Notification(answer));
                self.challenger = None;
                self.pending.push_back(Output::Close { connection });
            }
        }
    }

    /// The second connection takes the place of the first.
    fn promote(&mut self, now: Instant) {
        let Some(Challenger { generation, info: Some(info), received, in_flight, .. }) =
            self.challenger.take()
        else {
            return;
        };
        let old = self.connection(Direction::Incoming);
        if std::mem::take(&mut self.link(Direction::Incoming).live) {
            self.pending.push_back(Output::Close { connection: old });
        }
        *self.link(Direction::Incoming) =
            Link { generation, live: true, in_flight, scanner: Scanner::default() };
        self.fsm.replace_incoming(info, now);
        self.handle_bytes(self.connection_of(generation), &received, now);
    }

    fn connection_of(&self, generation: u32) -> ConnectionId {
        ConnectionId { peer: self.id, direction: Direction::Incoming, generation }
    }

    fn drop_challenger(&mut self) {
        if let Some(challenger) = self.challenger.take() {
            let connection = self.connection_of(challenger.generation);
            self.pending.push_back(Output::Close { connection });
        }
    }

    pub(super) fn handle_written(&mut self, connection: ConnectionId, octets: usize, now: Instant) {
        if self.is_challenger(connection) {
            if let Some(challenger) = &mut self.challenger {
                challenger.in_flight = challenger.in_flight.saturating_sub(octets);
            }
            return;
        }
        let link = self.link(connection.direction);
        link.in_flight = link.in_flight.saturating_sub(octets);
        let waiting = link.in_flight > 0;
        self.fsm.handle_write_progress(connection.direction, waiting, now);
    }

    pub(super) fn handle_closed(&mut self, connection: ConnectionId, now: Instant) {
        if self.is_challenger(connection) {
            self.challenger = None;
            return;
        }
        self.link(connection.direction).live = false;
        self.fsm.handle_closed(connection.direction, now);
        if connection.direction == Direction::Incoming
            && self.challenger.as_ref().is_some_and(|challenger| challenger.info.is_some())
        {
            self.promote(now);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.complete_at.is_some_and(|at| at <= now) {
            self.complete_at = None;
            self.complete = true;
        }
        if self.restarting.is_some_and(|at| at <= now) {
            self.end_restart();
        }
        if self.challenger.as_ref().and_then(|challenger| challenger.deadline).is_some_and(|at| at <= now) {
            self.drop_challenger();
        }
        self.fsm.handle_timeout(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let challenger = self.challenger.as_ref().and_then(|challenger| challenger.deadline);
        let all =
            [self.fsm.poll_timeout(), challenger, self.restarting, self.complete_at, self.stale.deadline()];
        all.into_iter().flatten().min()
    }

    /// The neighbour knows everything, or waits for us no more: the next OPEN says nothing of a restart.
    fn end_restart(&mut self) {
        self.restarting = None;
        self.fsm.set_graceful_restart(graceful_restart(&self.config, false));
    }

    fn is_admin_down(&self) -> bool {
        self.config.admin_down || self.shutdown.is_some()
    }

    /// A dynamic neighbour that is not there any more: it is forgotten.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.source, PeerSource::Dynamic(_))
            && self.shutdown.is_none()
            && self.links.iter().all(|link| !link.live)
            && self.challenger.is_none()
            && self.pending.is_empty()
            && self.session.is_none()
            && !self.stale.is_waiting()
            && self.fsm.state() != State::Idle
    }
}

/// What operators and other protocols say.
impl Peer {
    pub(super) fn reset(&mut self, text: &str, now: Instant) {
        self.fsm.reset(Notification::administrative_reset(text), now);
    }

    pub(super) fn shut_down(&mut self, text: String, now: Instant) {
        self.fsm.stop(Notification::administrative_shutdown(&text), now);
        self.drop_challenger();
        self.shutdown = Some(text);
        self.changed = true;
    }

    pub(super) fn enable(&mut self, now: Instant) {
        self.shutdown = None;
        self.changed = true;
        if !self.config.admin_down {
            self.fsm.start(now);
        }
    }

    /// Gives whether it is news.
    pub(super) fn handle_path(&mut self, state: PathState, now: Instant) -> bool {
        if self.config.bfd.is_none() || self.path == Some(state) {
            return false;
        }
        let was_up = self.path.replace(state) == Some(PathState::Up);
        self.changed = true;
        // Only a session that is there can be lost: one that comes up later is judged by what BFD says then.
        if let PathState::Down(cause) = state
            && was_up
            && cause.is_failure()
            && self.fsm.state() == State::Established
        {
            self.fsm.reset(Notification::bfd_down(), now);
        }
        true
    }

    pub(super) fn handle_link_down(&mut self, interface: &str, now: Instant) {
        if self.config.link_failover && self.config.multihop_ttl.is_none() {
            self.drop_challenger();
            self.fsm.abandon(DownReason::LinkDown { interface: interface.to_owned() }, now);
        }
    }
}

/// What a peer needs of its speaker to go on.
pub(super) struct Surroundings<'a> {
    pub(super) config: &'a SpeakerConfig,
    pub(super) routes_complete: bool,
    pub(super) rib: &'a mut Rib,
    pub(super) events: &'a mut VecDeque<Event>,
    /// Prefixes of which received routes changed, if somebody wants to know.
    pub(super) touched: Option<&'a mut Vec<Prefix>>,
    /// Received routes are events.
    pub(super) tell_received: bool,
}

impl Peer {
    /// What to do next: what the state machine wants, then UPDATEs as far as the connection takes them.
    pub(super) fn poll_output(&mut self, around: &mut Surroundings<'_>, now: Instant) -> Option<Output> {
        if std::mem::take(&mut self.limit_changed) {
            self.check_limit(around, now);
        }
        loop {
            if let Some(output) = self.pending.pop_front() {
                return Some(output);
            }
            let Some(output) = self.fsm.poll_output() else { break };
            if let Some(output) = self.translate(output, around, now) {
                return Some(output);
            }
        }
        self.expire_stale(around, now);
        let session = self.session.as_mut()?;
        let direction = session.direction;
        let [outgoing, incoming] = &mut self.links;
        let link = if direction == Direction::Outgoing { outgoing } else { incoming };
        if !link.live || link.in_flight >= WINDOW {
            return None;
        }
        let pulled = session.pull(around.routes_complete || self.complete, around.rib);
        let told = session.is_complete();
        link.in_flight += pulled.bytes.len();
        if told && !std::mem::replace(&mut self.told, true) {
            self.end_restart();
        }
        if pulled.bytes.is_empty() {
            return None;
        }
        self.counters.sent.update += pulled.updates;
        self.counters.sent.route_refresh += pulled.route_refreshes;
        self.counters.sent.bytes += pulled.bytes.len() as u64;
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
                    // Our connection, or the attempt at one, goes on: the machine does not pause.
                    if direction == Direction::Incoming && self.fsm.state() != State::Idle {
                        self.pause.begin(now);
                    }
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
                self.pause.shorten(now);
                let session = Session::new(&self.config, around.config, *negotiated, around.rib, now);
                if let Some(before) = self.session.replace(session) {
                    before.release(around.rib);
                }
                self.begin_reception(around, now);
                (self.changed, self.routes_changed) = (true, true);
            }
            fsm::Output::Down(reason) => {
                if let Some(session) = self.session.take() {
                    self.last_session = Some((session.since, now));
                    self.pause.shorten(now);
                    self.end_reception(&session, &reason, around, now);
                    session.release(around.rib);
                    self.counters.dropped += 1;
                    self.routes_changed = true;
                }
                let reason = match self.end_cause.take() {
                    Some(cause) => format!("{cause}; {reason}"),
                    None => reason.to_string(),
                };
                around
                    .events
                    .push_back(Event::Down { peer: self.config.name.clone(), reason: reason.clone() });
                self.fail(reason, now);
                self.changed = true;
            }
            fsm::Output::Update(update) => self.handle_update(&update, around, now),
            fsm::Output::RouteRefresh(refresh) => match refresh.kind {
                RouteRefreshKind::Request => {
                    if let Some(session) = &mut self.session {
                        session.refresh(refresh.family, around.rib);
                    }
                }
                RouteRefreshKind::Begin => self.begin_refresh(refresh.family, around, now),
                RouteRefreshKind::End => self.end_refresh(refresh.family, around),
                RouteRefreshKind::Unknown(_) => {}
            },
            fsm::Output::EndOfRib(family) => self.handle_end_of_rib(family, around),
        }
        None
    }

    /// The peer is going: what is still to be done, and what the RIB held for it. Without a NOTIFICATION nothing is
    /// asked of its state machine.
    pub(super) fn farewell(
        mut self,
        notification: Option<Notification>,
        rib: &mut Rib,
        now: Instant,
    ) -> (Vec<Output>, Vec<Prefix>) {
        let mut prefixes = Vec::new();
        self.drop_challenger();
        let mut outputs: Vec<Output> = self.pending.drain(..).collect();
        if let Some(notification) = notification {
            self.fsm.stop(notification, now);
            while let Some(output) = self.fsm.poll_output() {
                if let fsm::Output::Send { direction, bytes } = output {
                    outputs.push(Output::Send { connection: self.connection(direction), bytes });
                }
            }
        }
        for direction in [Direction::Outgoing, Direction::Incoming] {
            if self.link(direction).live {
                outputs.push(Output::Close { connection: self.connection(direction) });
            }
        }
        for offer in &self.config.families {
            prefixes.extend(rib.received.clear((self.id, offer.family)));
        }
        rib.received.forget(self.id);
        if let Some(session) = self.session.take() {
            session.release(rib);
        }
        (outputs, prefixes)
    }

    pub(super) fn details(&self, rib: &Rib) -> PeerDetails {
        PeerDetails {
            status: self.status(rib),
            config: Arc::clone(&self.config),
            local_capabilities: match &self.session {
                Some(session) => session.negotiated.local_open.capabilities.clone(),
                None => self.fsm.open().capabilities,
            },
            last_session: self.last_session,
        }
    }

    pub(super) fn status(&self, rib: &Rib) -> PeerStatus {
        let session = self.session.as_ref().map(|session| SessionStatus {
            since: session.since,
            local: session.negotiated.local,
            remote: session.negotiated.remote,
            remote_asn: session.negotiated.remote_open.four_octet_asn(),
            remote_router_id: session.negotiated.remote_open.router_id,
            hold_time: session.negotiated.hold_time,
            keepalive: session.negotiated.keepalive,
            families: session.family_status(self.id, rib),
            local_capabilities: session.negotiated.local_open.capabilities.as_slice().into(),
            remote_capabilities: session.negotiated.remote_open.capabilities.as_slice().into(),
        });
        PeerStatus {
            name: self.config.name.clone(),
            address: self.config.address,
            asn: self.config.asn,
            local_asn: self.local_asn,
            state: self.state,
            state_since: self.state_since,
            admin_down: self.is_admin_down(),
            shutdown: self.shutdown.clone(),
            source: self.source.clone(),
            path: self.path,
            bfd: None,
            received_octets: rib.received.octets(self.id)
                + self.session.as_ref().map_or(0, Session::counted_octets),
            max_received_octets: self.config.prefix_limit.octets(),
            session,
            last_error: self.last_error.clone(),
            counters: self.counters,
        }
    }
}
