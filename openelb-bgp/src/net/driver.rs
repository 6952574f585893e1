//! The task that drives a speaker: it alone touches the machine, everything else sends it messages.

use std::{
    collections::HashMap,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::TcpStream,
    sync::{broadcast, mpsc, watch},
    task::{AbortHandle, JoinHandle},
    time::{sleep_until, timeout},
};

use super::{
    connection::{self, Connection, IoEvent},
    guard::Guard,
    handle::{Mailbox, PendingRoutes, Shared, Shutdown, SpeakerHandle},
    listener, socket_options,
};
use crate::{
    fsm::ConnectionInfo,
    speaker::{
        ConfigError, ConnectionId, Event, ListenerState, ListenerStatus, Output, PeersSnapshot,
        RoutesSnapshot, Speaker, SpeakerConfig,
    },
};

/// Messages of connections and listeners that may wait for the driver.
const EVENTS: usize = 256;
/// Why a speaker without sockets has no connection.
const OFFLINE: &str = "this speaker opens no sockets";
/// How long subscribers that are slow hold events up.
const SUBSCRIBERS_WAITED_FOR: Duration = Duration::from_secs(1);
/// Events that are told at a time while some subscriber is left behind: the others keep up.
const TOLD_AT_ONCE: usize = 256;
/// Between looks at whether they have caught up.
const TELL_AGAIN: Duration = Duration::from_millis(5);
/// Events that a subscriber may be behind.
const SUBSCRIBED: usize = 4096;
/// How many of them are handled before output is looked at again.
const BATCH: usize = 64;
/// Counters are published this often at most; changes of state at once.
const COUNTERS_EVERY: Duration = Duration::from_secs(1);
/// Routes are published this often at most.
const ROUTES_EVERY: Duration = Duration::from_millis(100);
/// The share of time that publishing routes may take: one part in this many.
const ROUTES_SHARE: u32 = 20;
/// Refused connections are logged this often at most.
const REFUSALS_LOGGED_EVERY: Duration = Duration::from_secs(10);
/// The state of a listener whose task has not run yet.
const NOT_OPEN_YET: &str = "not open yet";
/// How long sessions may take to close when the speaker stops.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(3);

/// Starts a speaker on the current tokio runtime.
///
/// The task ends after [`SpeakerHandle::shutdown`], or when the last handle is dropped. Any number of speakers may run
/// in one process.
///
/// A panic in handling what one neighbour has sent ends that neighbour's session alone, which comes back after a pause.
/// Any other panic, which may have left behind anything in what neighbours share, ends the task with it: then start
/// another speaker, and not at once again and again.
///
/// # Errors
/// If the configuration is not valid.
///
/// # Panics
/// Outside a tokio runtime.
pub fn spawn(config: SpeakerConfig) -> Result<(SpeakerHandle, JoinHandle<()>), ConfigError> {
    start(config, true)
}

/// Starts a speaker that opens no socket: it listens nowhere, and each attempt to connect fails at once. For tests and
/// rehearsals.
///
/// # Errors
/// If the configuration is not valid.
///
/// # Panics
/// Outside a tokio runtime.
pub fn spawn_offline(config: SpeakerConfig) -> Result<(SpeakerHandle, JoinHandle<()>), ConfigError> {
    start(config, false)
}

fn start(config: SpeakerConfig, online: bool) -> Result<(SpeakerHandle, JoinHandle<()>), ConfigError> {
    let (mut driver, handle) = Driver::new(config, online)?;
    let task = tokio::spawn(async move {
        driver.run().await;
    });
    Ok((handle, task))
}

enum Slot {
    Connecting(AbortHandle),
    Up(Connection),
}

struct Listener {
    /// Never used again: what one that is gone has reported concerns no other.
    id: u64,
    status: ListenerStatus,
    task: JoinHandle<()>,
}

impl Listener {
    fn unprotected(&mut self, failures: Vec<String>) {
        for failure in &failures {
            let address = self.status.address;
            tracing::warn!(%address, failure, "incoming connections are not protected as configured, and refused");
        }
        self.status.unprotected = failures;
    }
}

struct Driver {
    speaker: Speaker,
    shared: Arc<Shared>,
    connections: HashMap<ConnectionId, Slot>,
    listeners: Vec<Listener>,
    next_listener: u64,
    events_sender: mpsc::Sender<IoEvent>,
    events: mpsc::Receiver<IoEvent>,
    ended_sender: mpsc::UnboundedSender<ConnectionId>,
    ended: mpsc::UnboundedReceiver<ConnectionId>,
    peers: watch::Sender<Arc<PeersSnapshot>>,
    /// Not before then are counters published.
    peers_due: Instant,
    peers_revision: u64,
    /// Something happened since counters were published.
    activity: bool,
    routes: watch::Sender<Arc<RoutesSnapshot>>,
    routes_due: Instant,
    routes_revision: u64,
    refused: u64,
    refused_logged: Option<(Instant, u64)>,
    subscribers: broadcast::Sender<Event>,
    guard: Guard,
    /// Of the neighbours that the guard knows.
    guarded_revision: u64,
    /// Sockets may be opened.
    online: bool,
    /// Since when some subscriber is so slow that events wait.
    full_since: Option<Instant>,
    /// When to look at them again.
    tell_at: Option<Instant>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Also where a bug ended it: nobody waits for an answer that does not come.
        self.shared.close();
        for listener in &self.listeners {
            listener.task.abort();
        }
        for slot in self.connections.values() {
            if let Slot::Connecting(task) = slot {
                task.abort();
            }
        }
    }
}

impl Driver {
    fn new(config: SpeakerConfig, online: bool) -> Result<(Self, SpeakerHandle), ConfigError> {
        let now = Instant::now();
        let speaker = Speaker::new(config, now)?;
        let shared = Arc::new(Shared::default());
        let (peers, peers_receiver) = watch::channel(Arc::default());
        let (routes, routes_receiver) = watch::channel(Arc::default());
        let (events_sender, events) = mpsc::channel(EVENTS);
        let (ended_sender, ended) = mpsc::unbounded_channel();
        let (subscribers, _) = broadcast::channel(SUBSCRIBED);
        let handle =
            SpeakerHandle::new(Arc::clone(&shared), peers_receiver, routes_receiver, subscribers.downgrade());
        let driver = Self {
            speaker,
            shared,
            connections: HashMap::new(),
            listeners: Vec::new(),
            next_listener: 0,
            events_sender,
            events,
            ended_sender,
            ended,
            peers,
            peers_due: now,
            peers_revision: u64::MAX,
            activity: true,
            routes,
            routes_due: now,
            routes_revision: u64::MAX,
            refused: 0,
            refused_logged: None,
            subscribers,
            guard: Guard::new(online),
            guarded_revision: u64::MAX,
            online,
            full_since: None,
            tell_at: None,
        };
        Ok((driver, handle))
    }

    async fn run(&mut self) {
        self.listen().await;
        loop {
            let now = Instant::now();
            self.watch_over(now);
            self.pump(now);
            let wake_at = self.publish(now);
            let timer = async {
                match wake_at {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.shared.wake.notified() => {
                    let mailbox = self.shared.take();
                    if let Some(mode) = self.obey(mailbox).await {
                        return self.stop(mode).await;
                    }
                }
                Some(event) = self.events.recv() => {
                    self.handle(event);
                    for _ in 0..BATCH {
                        let Ok(event) = self.events.try_recv() else { break };
                        // A lost path does not wait for the rest of a bulk.
                        self.guard.act(&mut self.speaker, Instant::now());
                        self.handle(event);
                    }
                }
                () = self.guard.changed() => {}
                Some(connection) = self.ended.recv() => self.contain(|driver| driver.closed(connection)),
                () = timer => self.contain(|driver| driver.speaker.handle_timeout(Instant::now())),
            }
            self.activity = true;
        }
    }

    /// Takes over what BFD and links say, and tells them and the listeners who the neighbours are.
    fn watch_over(&mut self, now: Instant) {
        self.guard.act(&mut self.speaker, now);
        let revision = self.speaker.state_revision();
        if std::mem::replace(&mut self.guarded_revision, revision) != revision {
            self.guard.configure(&self.speaker);
        }
    }

    /// Listens where the configuration says. A listener whose address stays is not touched.
    async fn listen(&mut self) {
        let mut before = std::mem::take(&mut self.listeners);
        let mut wanted = self.speaker.config().listen.clone();
        wanted.retain(|_| self.online);
        let kept: Vec<(SocketAddr, Option<Listener>)> = wanted
            .into_iter()
            .map(|address| {
                let known = before.iter().position(|listener| listener.status.address == address);
                (address, known.map(|index| before.swap_remove(index)))
            })
            .collect();
        for listener in before {
            listener.task.abort();
            // Its socket must be gone: the new address may overlap (0.0.0.0). It ends at its next await.
            let _ = listener.task.await;
        }
        for (address, listener) in kept {
            let listener = listener.unwrap_or_else(|| {
                let id = self.next_listener;
                self.next_listener += 1;
                let task = tokio::spawn(listener::listen(
                    id,
                    address,
                    self.guard.listener(self.events_sender.clone()),
                ));
                let state = ListenerState::Failed { error: NOT_OPEN_YET.to_owned() };
                Listener {
                    id,
                    status: ListenerStatus { address, bound: None, state, unprotected: Vec::new() },
                    task,
                }
            });
            self.listeners.push(listener);
        }
        self.peers_revision = u64::MAX;
    }

    async fn obey(&mut self, mailbox: Mailbox) -> Option<Shutdown> {
        let now = Instant::now();
        let Mailbox {
            config, peers, dynamic_peers, sources, resets, actions, refresh_routes, shutdown, ..
        } = mailbox;
        if let Some(config) = config {
            let listen = config.listen != self.speaker.config().listen;
            // Validated when it was handed in.
            if let Err(error) = self.speaker.set_config(config, now) {
                tracing::error!(%error, "configuration refused");
            }
            if listen {
                self.listen().await;
            }
        }
        for (source, peers) in peers {
            if let Err(error) = self.speaker.set_peers_of(&source, peers.into_values().collect(), now) {
                tracing::error!(%error, "peers refused");
            }
        }
        if let Some(groups) = dynamic_peers
            && let Err(error) = self.speaker.set_dynamic_peers(groups, now)
        {
            tracing::error!(%error, "dynamic peers refused");
        }
        for (source, PendingRoutes { whole, delta }) in sources {
            if let Some(routes) = whole {
                self.speaker.set_routes(&source, routes, now);
            }
            if !delta.is_empty() {
                self.speaker.apply(&source, PendingRoutes::delta(delta), now);
            }
        }
        for peer in resets {
            if let Err(error) = self.speaker.reset(&peer, "", now) {
                tracing::debug!(%error, "nothing to reset");
            }
        }
        for action in actions {
            action(&mut self.speaker, now);
        }
        if refresh_routes {
            self.routes_revision = u64::MAX;
        }
        shutdown
    }

    /// Does something that may panic: if that was one neighbour's input, it costs that neighbour its session. What else
    /// panics ends the task.
    fn contain(&mut self, act: impl FnOnce(&mut Self)) {
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| act(self))) else { return };
        match self.speaker.recover(Instant::now()) {
            Some(peer) => {
                tracing::error!(%peer, "a bug has ended the session of this peer: please report it");
            }
            None => resume_unwind(panic),
        }
    }

    fn handle(&mut self, event: IoEvent) {
        self.contain(|driver| driver.take_in(event));
    }

    fn take_in(&mut self, event: IoEvent) {
        let now = Instant::now();
        match event {
            IoEvent::Received { connection, bytes, permit } => {
                self.speaker.handle_bytes(connection, &bytes, now);
                drop(permit);
            }
            IoEvent::Written { connection, octets } => self.speaker.handle_written(connection, octets, now),
            IoEvent::Closed { connection } => self.closed(connection),
            IoEvent::Connected { connection, stream } => {
                if self.connections.contains_key(&connection) {
                    self.up(connection, stream, now);
                }
            }
            IoEvent::ConnectFailed { connection, error } => {
                if self.connections.remove(&connection).is_some() {
                    self.speaker.handle_connect_failed(connection, &error.to_string(), now);
                }
            }
            IoEvent::Accepted { stream } => self.accept(stream, now),
            IoEvent::Protected { id, failures } => {
                if let Some(listener) = self.listeners.iter_mut().find(|listener| listener.id == id) {
                    listener.unprotected(failures);
                    self.peers_revision = u64::MAX;
                }
            }
            IoEvent::Stranger { source } => {
                self.refused(&format_args!("no peer is configured for {source}"), now);
            }
            IoEvent::Listener { id, result } => {
                if let Some(listener) = self.listeners.iter_mut().find(|listener| listener.id == id) {
                    let address = listener.status.address;
                    (listener.status.bound, listener.status.state) = match result {
                        Ok((bound, failures)) => {
                            tracing::info!(%bound, "listening");
                            listener.unprotected(failures);
                            (Some(bound), ListenerState::Listening)
                        }
                        Err(error) => {
                            tracing::warn!(%address, %error, "cannot listen; trying again");
                            (None, ListenerState::Failed { error })
                        }
                    };
                    self.peers_revision = u64::MAX;
                }
            }
        }
    }

    fn refused(&mut self, refusal: &dyn std::fmt::Display, now: Instant) {
        let refused = self.refused + self.guard.strangers();
        if self.refused_logged.is_none_or(|(at, _)| now >= at + REFUSALS_LOGGED_EVERY) {
            let before = self.refused_logged.map_or(0, |(_, count)| count);
            tracing::info!(%refusal, refused = refused - before, "connection refused");
            self.refused_logged = Some((now, refused));
        }
    }

    fn up(&mut self, connection: ConnectionId, stream: TcpStream, now: Instant) {
        let info =
            stream.local_addr().and_then(|local| Ok(ConnectionInfo { local, remote: stream.peer_addr()? }));
        match info {
            Ok(info) => {
                let up =
                    connection::start(connection, stream, self.events_sender.clone(), &self.ended_sender);
                self.connections.insert(connection, Slot::Up(up));
                self.speaker.handle_connected(connection, info, now);
            }
            Err(error) => {
                self.connections.remove(&connection);
                self.speaker.handle_connect_failed(connection, &error.to_string(), now);
            }
        }
    }

    fn accept(&mut self, stream: TcpStream, now: Instant) {
        let (Ok(local), Ok(remote)) = (stream.local_addr(), stream.peer_addr()) else { return };
        match self.speaker.accept(ConnectionInfo { local, remote }, now) {
            Ok(accepted) => match socket_options::accepted(&stream, &accepted.config, accepted.ttl) {
                Ok(()) => self.up(accepted.connection, stream, now),
                Err(error) => {
                    socket_options::refuse(stream);
                    self.speaker.handle_closed(accepted.connection, now);
                    self.refused += 1;
                    let peer = &accepted.config.name;
                    self.refused(&format_args!("peer {peer}: {error}"), now);
                }
            },
            Err(refusal) => {
                socket_options::refuse(stream);
                self.refused += 1;
                self.refused(&refusal, now);
            }
        }
    }

    fn closed(&mut self, connection: ConnectionId) {
        if self.connections.remove(&connection).is_some() {
            self.speaker.handle_closed(connection, Instant::now());
        }
    }

    /// Does what the speaker asks for.
    fn pump(&mut self, now: Instant) {
        while let Some(output) = self.speaker.poll_output(now) {
            match output {
                Output::Connect { connection, .. } if !self.online => {
                    self.speaker.handle_connect_failed(connection, OFFLINE, now);
                }
                Output::Connect { connection, config, ttl } => {
                    let (events, ended) = (self.events_sender.clone(), self.ended_sender.clone());
                    let task = tokio::spawn(connection::connect(connection, config, ttl, events, ended));
                    self.connections.insert(connection, Slot::Connecting(task.abort_handle()));
                }
                Output::Send { connection, bytes } => {
                    if let Some(Slot::Up(up)) = self.connections.get(&connection) {
                        up.send(bytes);
                    }
                }
                Output::Close { connection } => {
                    if let Some(Slot::Connecting(task)) = self.connections.remove(&connection) {
                        task.abort();
                    }
                }
            }
        }
        self.tell(now);
    }

    /// Tells subscribers what happened, as fast as they take it for a while; then whoever is still slow is left behind.
    fn tell(&mut self, now: Instant) {
        if self.subscribers.receiver_count() == 0 {
            self.speaker.watch_best_paths(false, now);
            self.speaker.watch_received(false);
        }
        self.tell_at = None;
        let late = self.full_since.is_some_and(|since| now >= since + SUBSCRIBERS_WAITED_FOR);
        let mut told = 0;
        while self.subscribers.len() < SUBSCRIBED / 2 || (late && told < TOLD_AT_ONCE) {
            let Some(event) = self.speaker.poll_event() else {
                self.full_since = None;
                return;
            };
            log(&event);
            // Nobody may be there.
            let _ = self.subscribers.send(event);
            told += 1;
        }
        self.full_since.get_or_insert(now);
        self.tell_at = Some(now + TELL_AGAIN);
    }

    /// Publishes what is due, and says when to wake up at the latest.
    fn publish(&mut self, now: Instant) -> Option<Instant> {
        let mut wake_at = self.speaker.poll_timeout().into_iter().chain(self.tell_at).min();
        let mut wake = |at: Instant| wake_at = Some(wake_at.map_or(at, |other| other.min(at)));
        let revision = self.speaker.state_revision();
        self.activity |= self.guard.has_passwords();
        if self.activity || revision != self.peers_revision {
            if revision != self.peers_revision || now >= self.peers_due {
                let mut snapshot = self.speaker.peers();
                snapshot.listeners = self.listeners.iter().map(|listener| listener.status.clone()).collect();
                snapshot.refused_connections = self.refused + self.guard.strangers();
                self.guard.complete(&mut snapshot);
                self.peers.send_if_modified(|current| {
                    let changed = **current != snapshot;
                    *current = Arc::new(snapshot);
                    changed
                });
                self.peers_revision = revision;
                self.peers_due = now + COUNTERS_EVERY;
                self.activity = false;
            } else {
                wake(self.peers_due);
            }
        }
        if self.guard.has_passwords() {
            wake(self.peers_due);
        }
        // One receiver is the handle's own.
        let revision = self.speaker.routes_revision();
        if revision != self.routes_revision && self.routes.receiver_count() > 1 {
            if now >= self.routes_due {
                self.routes.send_replace(Arc::new(self.speaker.routes()));
                self.routes_revision = revision;
                let took = now.elapsed();
                self.routes_due = now + ROUTES_EVERY.max(took * ROUTES_SHARE);
            } else {
                wake(self.routes_due);
            }
        }
        wake_at
    }

    async fn stop(&mut self, mode: Shutdown) {
        let now = Instant::now();
        for listener in self.listeners.drain(..) {
            listener.task.abort();
        }
        if mode == Shutdown::Notify {
            self.speaker.stop(now);
        }
        self.pump(now);
        // Dropping a connection lets it send what it has, the NOTIFICATION last, and then ends its tasks.
        for (_, slot) in self.connections.drain() {
            if let Slot::Connecting(task) = slot {
                task.abort();
            }
        }
        let (sender, _) = mpsc::channel(1);
        self.events_sender = sender; // ours is gone, so the channel closes with the last task
        let _ = timeout(SHUTDOWN_WITHIN, async { while self.events.recv().await.is_some() {} }).await;
        // Only now. That BFD is held down is no failure (RFC 5882 section 4.2), but not all neighbours think so: they would
        // end an established session, and drop its routes. One that is closed already may be kept as a restart.
        self.guard.stop(mode).await;
    }
}

fn log(event: &Event) {
    match event {
        Event::State { peer, state } => tracing::info!(%peer, ?state, "session state"),
        Event::Down { peer, reason } => tracing::warn!(%peer, reason, "session down"),
        Event::PrefixLimit { peer, family, received, limit, exceeded: true } => {
            tracing::warn!(%peer, %family, received, limit, "more prefixes than allowed");
        }
        Event::PrefixLimit { peer, family, received, limit, .. } => {
            tracing::warn!(%peer, %family, received, limit, "the number of prefixes comes close to the limit");
        }
        Event::OctetLimit { peer, octets, limit, exceeded: true } => {
            tracing::warn!(%peer, octets, limit, "routes take more memory than allowed");
        }
        Event::OctetLimit { peer, octets, limit, .. } => {
            tracing::warn!(%peer, octets, limit, "the memory that routes take comes close to the limit");
        }
        Event::PathsNotKept { peer, prefix, kept } => {
            tracing::warn!(%peer, %prefix, kept, "more paths of a prefix than are kept: the others are left out");
        }
        Event::Path { peer, state } => tracing::info!(%peer, %state, "BFD"),
        Event::PeerRemoved { peer } => tracing::info!(%peer, "peer removed"),
        Event::BestPath { prefix, .. } => tracing::debug!(%prefix, "another best route"),
        Event::Received { peer, prefix, .. } => tracing::trace!(%peer, %prefix, "route received"),
        Event::Lost { events } => {
            tracing::warn!(events, "events were dropped: more came at once than are kept");
        }
    }
}

#[cfg(test)]
mod tests;
