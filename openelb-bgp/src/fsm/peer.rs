//! The machine of one neighbour, with both its connections.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::BytesMut;

use super::{
    ConnectionInfo, Direction, DownReason, FsmConfig, Output, State,
    connection::{Connection, Stage, is_deferred, stage_state},
    timers::{Jitter, Timer, Timers},
};
use crate::wire::{
    DecodeError, GracefulRestart, HEADER_LEN, MAX_MESSAGE_LEN, Message, MessageKind, Notification, Open,
    SessionContext,
};

/// The least send hold time (RFC 9687 §6: 8 minutes or twice the hold time, whichever is greater).
const SEND_HOLD: Duration = Duration::from_secs(480);
/// A session that lasted this long was a good one: the next pause starts small again.
const STABLE: Duration = Duration::from_secs(30);
/// Within this time after a session came up, a second connection is one that both ends opened at the same moment, and
/// both compare identifiers; later it is one of a neighbour that has lost the session.
const SIMULTANEOUS: Duration = Duration::from_secs(10);

/// No pause is longer, a hundred years: times have an end, too.
const LONGEST_PAUSE: Duration = Duration::from_secs(100 * 365 * 86_400);
/// How long a connection waits for the one that would win a collision.
const DEFER: Duration = Duration::from_secs(1);
/// What a neighbour may send ahead on a connection that waits, in octets: more than an OPEN and a KEEPALIVE is not due.
const AHEAD: usize = 8192;

/// What is wanted of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// Nothing: `start` was not called, or `stop` was.
    Stopped,
    /// A session.
    Session,
}

/// One neighbour's machine. See the [module](super) for how it is driven.
#[derive(Clone, Debug)]
pub struct Fsm {
    config: FsmConfig,
    wanted: Wanted,
    /// `Output::Connect` is under way.
    connecting: bool,
    outgoing: Option<Connection>,
    incoming: Option<Connection>,
    established_at: Option<Instant>,
    hold_time: Duration,
    keepalive: Duration,
    /// Attempts and sessions that failed, without a good session between.
    failures: u32,
    timers: Timers,
    jitter: Jitter,
    /// The session's NOTIFICATIONs keep routes (RFC 8538).
    notification_restart: bool,
    state: State,
    outputs: VecDeque<Output>,
}

impl Fsm {
    /// A machine that is stopped. `seed` decides its jitter; give each neighbour another one, or they move in step.
    #[must_use]
    pub fn new(config: FsmConfig, seed: u64) -> Self {
        Self {
            config,
            wanted: Wanted::Stopped,
            connecting: false,
            outgoing: None,
            incoming: None,
            established_at: None,
            hold_time: Duration::ZERO,
            keepalive: Duration::ZERO,
            failures: 0,
            timers: Timers::default(),
            jitter: Jitter::new(seed),
            notification_restart: false,
            state: State::Idle,
            outputs: VecDeque::new(),
        }
    }

    /// The state, of the further connection if there are two.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Wants a session: connects at once, or waits if the neighbour is configured as passive. Does nothing if one is
    /// wanted already.
    pub fn start(&mut self, now: Instant) {
        if self.wanted == Wanted::Session {
            return;
        }
        self.wanted = Wanted::Session;
        self.failures = 0;
        self.try_connect(now);
        self.update_state();
    }

    /// As [`start`](Self::start), but connects, and takes connections, only after a pause.
    pub fn start_after(&mut self, pause: Duration, now: Instant) {
        if self.wanted == Wanted::Session {
            return;
        }
        self.wanted = Wanted::Session;
        self.failures = 0;
        let pause = self.jitter.apply(pause);
        self.timers.set(Timer::IdleHold, now + pause);
        self.update_state();
    }

    /// Wants no session any more: tells the neighbour, closes, and stays Idle until [`start`](Self::start).
    pub fn stop(&mut self, notification: Notification, now: Instant) {
        self.end_all_with(notification);
        self.wanted = Wanted::Stopped;
        self.failures = 0;
        self.timers.clear_all();
        self.update_state();
        let _ = now;
    }

    /// Ends the session, tells the neighbour why, and starts anew after the first, shortest pause.
    pub fn reset(&mut self, notification: Notification, now: Instant) {
        if self.wanted == Wanted::Stopped {
            return;
        }
        self.end_all_with(notification);
        self.failures = 0;
        self.retry(true, now);
        self.update_state();
    }

    /// Ends the session, tells the neighbour why, and starts anew after `pause`; without one after the back-off of a
    /// failure, which doubles each time. Connections are refused meanwhile.
    pub fn reset_after(&mut self, notification: Notification, pause: Option<Duration>, now: Instant) {
        if self.wanted == Wanted::Stopped {
            return;
        }
        self.end_all_with(notification);
        self.failures = self.failures.saturating_add(1);
        match pause {
            Some(pause) => {
                self.timers.clear(Timer::ConnectRetry);
                self.timers.set(Timer::IdleHold, now + pause.min(LONGEST_PAUSE));
            }
            None => self.retry(true, now),
        }
        self.update_state();
    }

    /// Until when it pauses: it neither connects nor takes connections.
    #[must_use]
    pub fn paused_until(&self) -> Option<Instant> {
        self.timers.get(Timer::IdleHold)
    }

    /// Ends that pause.
    pub fn end_pause(&mut self, now: Instant) {
        if self.paused_until().is_some() {
            self.timers.clear(Timer::IdleHold);
            self.failures = 0;
            self.try_connect(now);
            self.update_state();
        }
    }

    /// Ends everything without a word, because none would arrive, and starts anew after the first, shortest pause.
    pub fn abandon(&mut self, reason: DownReason, now: Instant) {
        if self.wanted == Wanted::Stopped {
            return;
        }
        if self.end_all(None) {
            self.outputs.push_back(Output::Down(reason));
        }
        self.failures = 0;
        self.retry(false, now);
        self.update_state();
    }

    /// Changes the graceful restart capability, from the next OPEN on.
    pub fn set_graceful_restart(&mut self, capability: Option<GracefulRestart>) {
        self.config.graceful_restart = capability;
    }

    /// Whether an OPEN of ours has offered to keep routes over NOTIFICATIONs and an expired hold time (the N bit, RFC
    /// 8538), on a connection that is still there.
    #[must_use]
    pub fn has_offered_notification_restart(&self) -> bool {
        self.connections()
            .any(|(_, known)| known.offered.as_ref().is_some_and(|offered| offered.notification))
    }

    /// The OPEN that the next connection begins with.
    #[must_use]
    pub fn open(&self) -> Open {
        self.config.open()
    }

    /// The neighbour has opened a second connection while the first one that it opened is still here, and this is its
    /// OPEN. May the second take the place of the first ([`replace_incoming`](Self::replace_incoming))?
    ///
    /// An established session makes way if both ends offer graceful restart: the neighbour has restarted, and its old
    /// connection is dead (RFC 4724 §4.2). Else it stays until its hold time ends (RFC 4271 §6.8). A connection that is
    /// not established makes way in any case.
    ///
    /// # Errors
    /// Why not, and what to answer on the second connection before it is closed.
    pub fn challenge(&self, open: &Open, info: ConnectionInfo) -> Result<(), (String, Notification)> {
        self.config.accept(open, Direction::Incoming, info)?;
        let graceful = self.config.graceful_restart.is_some() && open.graceful_restart().is_some();
        if self.is_established(Direction::Incoming) && !graceful {
            let cause = "the session over the neighbour's first connection is established".to_owned();
            return Err((cause, Notification::connection_collision()));
        }
        Ok(())
    }

    /// The neighbour's connection is another one from now on, on which [our OPEN](Self::open) was sent already; what
    /// was received on it follows. The one before is dropped without a word (the caller closes it).
    pub fn replace_incoming(&mut self, info: ConnectionInfo, now: Instant) {
        if let Some(old) = self.take(Direction::Incoming)
            && matches!(old.stage, Stage::Established { .. })
        {
            self.end_session();
            self.outputs.push_back(Output::Down(DownReason::Replaced));
        }
        if self.is_idle() {
            self.outputs.push_back(Output::Close { direction: Direction::Incoming });
        } else {
            self.incoming = Some(Connection::new(info, self.config.graceful_restart.clone()));
            self.timers.set(hold_timer(Direction::Incoming), now + self.config.open_hold);
        }
        self.update_state();
    }

    /// Changes the pauses between attempts, from the next one on.
    pub fn set_connect_retry(&mut self, first: Duration, longest: Duration) {
        self.config.connect_retry = first;
        self.config.connect_retry_max = longest;
    }

    /// A TCP connection is up.
    pub fn handle_connected(&mut self, direction: Direction, info: ConnectionInfo, now: Instant) {
        if direction == Direction::Outgoing {
            self.connecting = false;
        }
        // Idle refuses connections (RFC 4271 §8.2.2); so does a neighbour who has one of this direction.
        if self.is_idle() || self.connection(direction).is_some() {
            if self.connection(direction).is_none() {
                self.outputs.push_back(Output::Close { direction });
            }
            self.update_state();
            return;
        }
        if direction == Direction::Outgoing {
            self.timers.clear(Timer::ConnectRetry);
        }
        *self.slot(direction) = Some(Connection::new(info, self.config.graceful_restart.clone()));
        self.send(direction, &Message::Open(self.config.open()));
        self.timers.set(hold_timer(direction), now + self.config.open_hold);
        self.update_state();
    }

    /// The connection that [`Output::Connect`] asked for could not be opened.
    pub fn handle_connect_failed(&mut self, now: Instant) {
        if !self.connecting {
            return;
        }
        self.connecting = false;
        self.failures = self.failures.saturating_add(1);
        self.settle(now);
        self.retry(false, now);
        self.update_state();
    }

    /// Bytes of a connection, in order.
    pub fn handle_bytes(&mut self, direction: Direction, bytes: &[u8], now: Instant) {
        if let Some(connection) = self.slot(direction) {
            connection.receive(bytes);
        }
        while let Some(message) = self.slot(direction).as_mut().and_then(Connection::next) {
            match message {
                Ok(message) => self.handle_message(direction, message, now),
                Err(error) => self.refuse(direction, &error, now),
            }
        }
        if self.connection(direction).is_some_and(|c| is_deferred(c) && c.waiting() > AHEAD) {
            self.unexpected(direction, State::OpenConfirm, MessageKind::Update, now);
        }
        self.update_state();
    }

    /// A connection is closed or lost.
    pub fn handle_closed(&mut self, direction: Direction, now: Instant) {
        if direction == Direction::Outgoing && self.connecting && self.outgoing.is_none() {
            self.handle_connect_failed(now);
            return;
        }
        let Some(connection) = self.take(direction) else { return };
        let state = stage_state(&connection.stage);
        self.lost(&connection, DownReason::Closed(state), false, now);
        self.update_state();
    }

    /// Some of what was to be sent on a connection has been written: the neighbour reads. `waiting`: there is more.
    pub fn handle_write_progress(&mut self, direction: Direction, waiting: bool, now: Instant) {
        if !self.is_established(direction) {
            return;
        }
        if self.keepalive.is_zero() && !waiting {
            self.timers.clear(Timer::SendHold); // without keepalives there may be nothing more to write
        } else {
            self.timers.set(Timer::SendHold, now + self.send_hold());
        }
    }

    /// UPDATEs were handed to the session's connection: they count as a sign of life (RFC 4271 §4.4).
    pub fn handle_update_sent(&mut self, now: Instant) {
        if self.established_at.is_none() {
            return;
        }
        self.arm_keepalive(now);
        if self.timers.get(Timer::SendHold).is_none() {
            self.timers.set(Timer::SendHold, now + self.send_hold());
        }
    }

    /// What is due at `now`. Calls too early or too often do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.take_due(now) {
            match timer {
                Timer::IdleHold | Timer::ConnectRetry => self.try_connect(now),
                Timer::HoldOutgoing => self.hold_expired(Direction::Outgoing, now),
                Timer::HoldIncoming => self.hold_expired(Direction::Incoming, now),
                Timer::Defer => self.give_up_waiting(now),
                Timer::Keepalive => {
                    for direction in [Direction::Outgoing, Direction::Incoming] {
                        if self
                            .connection(direction)
                            .is_some_and(|c| stage_state(&c.stage) != State::OpenSent)
                        {
                            self.send(direction, &Message::Keepalive);
                            self.arm_keepalive(now);
                        }
                    }
                }
                Timer::SendHold => {
                    // RFC 9687 §3.2: the NOTIFICATION may be dropped; it could not be written anyway.
                    if let Some(direction) = self.session_direction() {
                        self.send(direction, &Message::Notification(Notification::send_hold_timer_expired()));
                        self.close_after_error(direction, DownReason::SendHold, now);
                    }
                }
            }
        }
        self.update_state();
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The next thing to do, in order. Commands and input may change the answer.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}

/// Messages.
impl Fsm {
    fn handle_message(&mut self, direction: Direction, message: Message, now: Instant) {
        let Some(connection) = self.connection(direction) else { return };
        let state = stage_state(&connection.stage);
        match (state, message) {
            (_, Message::Notification(notification)) => {
                let Some(connection) = self.take(direction) else { return };
                self.outputs.push_back(Output::Close { direction });
                let error = !is_collision(&notification);
                self.lost(&connection, DownReason::Received(notification), error, now);
            }
            (State::OpenSent, Message::Open(open)) => self.handle_open(direction, open, now),
            (State::OpenConfirm, Message::Keepalive) => self.establish(direction, now),
            (State::Established, Message::Keepalive) => self.arm_hold(direction, now),
            (State::Established, Message::Update(update)) => {
                self.arm_hold(direction, now);
                let output = match update.end_of_rib_family() {
                    Some(family) => Output::EndOfRib(family),
                    None => Output::Update(Box::new(update)),
                };
                self.outputs.push_back(output);
            }
            (State::Established, Message::RouteRefresh(refresh)) => {
                self.arm_hold(direction, now);
                self.outputs.push_back(Output::RouteRefresh(refresh));
            }
            (_, message) => self.unexpected(direction, state, message.kind(), now),
        }
    }

    /// A message that must not come now (RFC 4271 §6.6; subcodes of RFC 6608).
    fn unexpected(&mut self, direction: Direction, state: State, kind: MessageKind, now: Instant) {
        let subcode = match state {
            State::OpenSent => 1,
            State::OpenConfirm => 2,
            State::Established => 3,
            State::Idle | State::Connect | State::Active => 0,
        };
        let notification = Notification::unexpected_message(subcode, kind);
        let cause = format!("{kind:?} is unexpected in state {state}");
        self.fail(direction, cause, notification, now);
    }

    fn refuse(&mut self, direction: Direction, error: &DecodeError, now: Instant) {
        self.fail(direction, error.to_string(), error.notification(), now);
    }

    fn fail(&mut self, direction: Direction, cause: String, mut notification: Notification, now: Instant) {
        // What is echoed may be longer than a NOTIFICATION can be where messages are extended.
        notification.data.truncate(MAX_MESSAGE_LEN - HEADER_LEN - 2);
        self.send(direction, &Message::Notification(notification.clone()));
        self.close_after_error(direction, DownReason::BadMessage { cause, notification }, now);
    }

    fn close_after_error(&mut self, direction: Direction, reason: DownReason, now: Instant) {
        let Some(connection) = self.take(direction) else { return };
        self.outputs.push_back(Output::Close { direction });
        self.lost(&connection, reason, true, now);
    }

    fn hold_expired(&mut self, direction: Direction, now: Instant) {
        if self.connection(direction).is_none() {
            return;
        }
        let notification = Notification::hold_timer_expired();
        self.send(direction, &Message::Notification(notification.clone()));
        self.close_after_error(direction, DownReason::Sent(notification), now);
    }

    fn handle_open(&mut self, direction: Direction, open: Open, now: Instant) {
        let Some(info) = self.connection(direction).map(|connection| connection.info) else { return };
        if let Err((cause, notification)) = self.config.accept(&open, direction, info) {
            return self.fail(direction, cause, notification, now);
        }
        match self.collide(direction, &open, now) {
            Collision::Stays => self.confirm(direction, &open, now),
            Collision::Leaves => {}
            Collision::Waits => {
                if let Some(connection) = self.slot(direction) {
                    connection.stage = Stage::Deferred(Box::new(open));
                }
                self.timers.set(Timer::Defer, now + DEFER);
            }
        }
    }

    /// The connection's OPEN is accepted: answer it.
    fn confirm(&mut self, direction: Direction, open: &Open, now: Instant) {
        let Some(connection) = self.connection(direction) else { return };
        let graceful_restart = connection.offered.clone();
        let offered = FsmConfig { graceful_restart, ..self.config.clone() };
        let Ok(negotiated) = offered.accept(open, direction, connection.info) else { return };
        self.send(direction, &Message::Keepalive);
        self.hold_time = negotiated.hold_time;
        self.keepalive = negotiated.keepalive;
        self.arm_hold(direction, now);
        self.arm_keepalive(now);
        if let Some(connection) = self.slot(direction) {
            connection.stage = Stage::OpenConfirm(Box::new(negotiated));
        }
    }

    /// Two connections, or one and an attempt: RFC 4271 §6.8 and RFC 6286 §2.3. The one stays that was opened by the
    /// speaker with the higher BGP identifier; if they are equal, with the higher AS number. Both ends decide alike,
    /// whatever the order in which they hear of the two, and neither confirms the one that would lose while the other
    /// may still come up: so a session that is established is not taken down again.
    fn collide(&mut self, direction: Direction, open: &Open, now: Instant) -> Collision {
        let other = direction.other();
        let ours = (self.config.router_id, self.config.local_asn);
        let theirs = (open.router_id, open.four_octet_asn());
        let winner = if ours > theirs { Direction::Outgoing } else { Direction::Incoming };
        let Some(connection) = self.connection(other) else {
            if direction == Direction::Incoming && self.connecting {
                if winner == Direction::Outgoing {
                    return Collision::Waits;
                }
                self.abort_attempt();
            }
            return Collision::Stays;
        };
        let stays = match &connection.stage {
            Stage::OpenSent if winner == direction => direction,
            Stage::OpenSent => return Collision::Waits,
            Stage::Deferred(_) => direction,
            Stage::OpenConfirm(_) => winner,
            Stage::Established { .. } => {
                let young = self.established_at.is_some_and(|at| now.duration_since(at) < SIMULTANEOUS);
                if young {
                    winner
                } else if self.config.graceful_restart.is_some() && open.graceful_restart().is_some() {
                    // RFC 4724 §4.2: the neighbour has restarted; nobody reads the old connection any more.
                    self.take(other);
                    self.outputs.push_back(Output::Close { direction: other });
                    self.end_session();
                    self.outputs.push_back(Output::Down(DownReason::Replaced));
                    return Collision::Stays;
                } else {
                    other // RFC 4271 §6.8: an established session stays
                }
            }
        };
        self.leave(stays.other());
        if stays == direction { Collision::Stays } else { Collision::Leaves }
    }

    /// Closes the connection that lost a collision.
    fn leave(&mut self, direction: Direction) {
        let notification = Notification::connection_collision();
        self.send(direction, &Message::Notification(notification.clone()));
        if let Some(connection) = self.take(direction) {
            self.outputs.push_back(Output::Close { direction });
            if matches!(connection.stage, Stage::Established { .. }) {
                self.end_session();
                self.outputs.push_back(Output::Down(DownReason::Sent(notification)));
            }
        }
    }

    /// Stops opening a connection.
    fn abort_attempt(&mut self) {
        if std::mem::take(&mut self.connecting) {
            self.outputs.push_back(Output::Close { direction: Direction::Outgoing });
        }
    }

    /// A connection or an attempt is gone: if the other one has waited for that, it is confirmed now, and what came in
    /// on it meanwhile is read.
    fn settle(&mut self, now: Instant) {
        let waiting = self.connections().find(|(_, connection)| is_deferred(connection)).map(|(d, _)| d);
        let Some(direction) = waiting else { return };
        if self.connection(direction.other()).is_some()
            || (direction == Direction::Incoming && self.connecting)
        {
            return;
        }
        self.timers.clear(Timer::Defer);
        let Some(connection) = self.slot(direction) else { return };
        let Stage::Deferred(open) = std::mem::replace(&mut connection.stage, Stage::OpenSent) else { return };
        self.confirm(direction, &open, now);
        self.handle_bytes(direction, &[], now);
    }

    /// The connection that would win has not come up in time: the other one is taken.
    fn give_up_waiting(&mut self, now: Instant) {
        let waiting = self.connections().find(|(_, connection)| is_deferred(connection)).map(|(d, _)| d);
        let Some(direction) = waiting else { return };
        if self.connection(direction.other()).is_some() {
            self.leave(direction.other());
        }
        if direction == Direction::Incoming {
            self.abort_attempt();
        }
        self.settle(now);
    }

    fn establish(&mut self, direction: Direction, now: Instant) {
        // Decided already where both had their OPEN; a silent one is superfluous now.
        if self.connection(direction.other()).is_some() {
            self.leave(direction.other());
        }
        self.timers.clear(Timer::Defer);
        let Some(connection) = self.slot(direction) else { return };
        let Stage::OpenConfirm(negotiated) = &connection.stage else { return };
        let negotiated = negotiated.clone();
        connection.stage = Stage::Established { context: negotiated.context.clone() };
        self.notification_restart = negotiated.notification_restart;
        self.abort_attempt();
        self.established_at = Some(now);
        self.timers.clear(Timer::ConnectRetry);
        self.arm_hold(direction, now);
        // Without keepalives there may be nothing to write, until UPDATEs are.
        if !self.keepalive.is_zero() {
            self.timers.set(Timer::SendHold, now + self.send_hold());
        }
        self.update_state();
        self.outputs.push_back(Output::Established(negotiated));
    }
}

/// Connections, pauses and timers.
impl Fsm {
    const fn connection(&self, direction: Direction) -> Option<&Connection> {
        match direction {
            Direction::Outgoing => self.outgoing.as_ref(),
            Direction::Incoming => self.incoming.as_ref(),
        }
    }

    const fn slot(&mut self, direction: Direction) -> &mut Option<Connection> {
        match direction {
            Direction::Outgoing => &mut self.outgoing,
            Direction::Incoming => &mut self.incoming,
        }
    }

    fn take(&mut self, direction: Direction) -> Option<Connection> {
        self.timers.clear(hold_timer(direction));
        self.slot(direction).take()
    }

    fn connections(&self) -> impl Iterator<Item = (Direction, &Connection)> {
        let outgoing = self.outgoing.iter().map(|connection| (Direction::Outgoing, connection));
        outgoing.chain(self.incoming.iter().map(|connection| (Direction::Incoming, connection)))
    }

    fn is_established(&self, direction: Direction) -> bool {
        self.connection(direction).is_some_and(|c| matches!(c.stage, Stage::Established { .. }))
    }

    fn session_direction(&self) -> Option<Direction> {
        self.connections()
            .find(|(_, c)| matches!(c.stage, Stage::Established { .. }))
            .map(|(direction, _)| direction)
    }

    /// The neighbour has answered on some connection: no other attempt is needed.
    fn is_confirmed(&self) -> bool {
        self.connections().any(|(_, connection)| stage_state(&connection.stage) != State::OpenSent)
    }

    fn is_idle(&self) -> bool {
        self.wanted == Wanted::Stopped || self.timers.get(Timer::IdleHold).is_some()
    }

    fn send(&mut self, direction: Direction, message: &Message) {
        let mut bytes = BytesMut::new();
        // OPEN, KEEPALIVE and NOTIFICATION look the same on every session. One that does not fit cannot be sent.
        match message.encode(&SessionContext::default(), &mut bytes) {
            Ok(()) => self.outputs.push_back(Output::Send { direction, bytes: bytes.freeze() }),
            Err(error) => tracing::debug!(%error, kind = ?message.kind(), "a message cannot be encoded"),
        }
    }

    fn try_connect(&mut self, now: Instant) {
        let _ = now;
        let needed = self.wanted == Wanted::Session && !self.config.passive && !self.is_idle();
        if needed && !self.connecting && self.outgoing.is_none() && !self.is_confirmed() {
            self.connecting = true;
            self.outputs.push_back(Output::Connect);
        }
    }

    /// A connection is gone (taken out already).
    fn lost(&mut self, connection: &Connection, reason: DownReason, error: bool, now: Instant) {
        let stable = self.established_at.is_some_and(|at| now.duration_since(at) >= STABLE);
        if matches!(connection.stage, Stage::Established { .. }) {
            self.end_session();
            self.failures = if stable { 0 } else { self.failures.saturating_add(1) };
            self.outputs.push_back(Output::Down(reason));
        } else if self.connections().next().is_some() {
            return self.settle(now); // the other connection goes on
        } else {
            self.failures = self.failures.saturating_add(1);
            self.outputs.push_back(Output::Down(reason));
        }
        self.retry(error, now);
    }

    fn end_session(&mut self) {
        self.established_at = None;
        self.notification_restart = false;
        self.timers.clear(Timer::Keepalive);
        self.timers.clear(Timer::SendHold);
    }

    /// Ends everything with a NOTIFICATION, which is a Hard Reset where others would keep routes.
    fn end_all_with(&mut self, notification: Notification) {
        let notification = if self.notification_restart && notification.ends_for_good() {
            Notification::hard_reset(&notification)
        } else {
            notification
        };
        if self.end_all(Some(&notification)) {
            self.outputs.push_back(Output::Down(DownReason::Sent(notification)));
        }
    }

    /// Ends everything; says whether there was anything.
    fn end_all(&mut self, notification: Option<&Notification>) -> bool {
        let mut any = false;
        for direction in [Direction::Outgoing, Direction::Incoming] {
            if self.connection(direction).is_some() {
                any = true;
                if let Some(notification) = notification {
                    self.send(direction, &Message::Notification(notification.clone()));
                }
                self.take(direction);
                self.outputs.push_back(Output::Close { direction });
            }
        }
        self.abort_attempt();
        self.timers.clear(Timer::Defer);
        self.end_session();
        any
    }

    /// Plans the next attempt: after an error in Idle, where connections are refused; else in Active.
    fn retry(&mut self, error: bool, now: Instant) {
        if self.wanted == Wanted::Stopped || self.is_confirmed() {
            return;
        }
        let doublings = self.failures.saturating_sub(1).min(16);
        let longest = self.config.connect_retry_max.max(self.config.connect_retry);
        let pause = self.config.connect_retry.saturating_mul(1 << doublings).min(longest);
        let deadline = now + self.jitter.apply(pause);
        if error && self.outgoing.is_none() && self.incoming.is_none() && !self.connecting {
            self.timers.clear(Timer::ConnectRetry);
            self.timers.set(Timer::IdleHold, deadline);
        } else if !self.config.passive && !self.connecting && self.outgoing.is_none() {
            self.timers.set(Timer::ConnectRetry, deadline);
        }
    }

    fn arm_hold(&mut self, direction: Direction, now: Instant) {
        if self.hold_time.is_zero() {
            self.timers.clear(hold_timer(direction));
        } else {
            self.timers.set(hold_timer(direction), now + self.hold_time);
        }
    }

    fn arm_keepalive(&mut self, now: Instant) {
        if self.keepalive.is_zero() {
            self.timers.clear(Timer::Keepalive);
        } else {
            let interval = self.jitter.apply(self.keepalive);
            self.timers.set(Timer::Keepalive, now + interval);
        }
    }

    fn send_hold(&self) -> Duration {
        SEND_HOLD.max(self.hold_time.saturating_mul(2))
    }

    fn update_state(&mut self) {
        let furthest = self.connections().map(|(_, connection)| stage_state(&connection.stage)).max();
        let state = match furthest {
            Some(state) => state,
            None if self.is_idle() => State::Idle,
            None if self.connecting => State::Connect,
            None => State::Active,
        };
        if state != self.state {
            self.state = state;
            self.outputs.push_back(Output::StateChanged(state));
        }
    }
}

/// What becomes of a connection whose OPEN has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Collision {
    /// It goes on, alone.
    Stays,
    /// It was closed.
    Leaves,
    /// The other one would win, and may still come up.
    Waits,
}

const fn hold_timer(direction: Direction) -> Timer {
    match direction {
        Direction::Outgoing => Timer::HoldOutgoing,
        Direction::Incoming => Timer::HoldIncoming,
    }
}

/// Cease/7: the neighbour has resolved a collision; no error (RFC 4486 §4).
fn is_collision(notification: &Notification) -> bool {
    *notification == Notification::connection_collision()
}
