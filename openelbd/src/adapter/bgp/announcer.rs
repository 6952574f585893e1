//! The task that keeps a BGP speaker as the announcements want it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use jiff::Timestamp;
use openelb_bgp::{
    grpc::core::{Core, Error, SOURCE, ruled},
    net::{self, Shutdown, SpeakerHandle},
    speaker::{
        Advertisement, ConfigError, PeersSnapshot, Route, RouteAttributes, RouteStatus, RoutesSnapshot,
        SpeakerConfig,
    },
};
use openelb_k8s::announce::{Announcements, Announcer, AnnouncerProblem, AnnouncerStatus, BgpAnnouncements};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::{sleep, sleep_until, timeout, timeout_at},
};

use super::{
    api::{self, ApiOptions, ApiOwner, Failures, Order, Shown},
    config::{self, Host, Peers, Start},
    deltas,
    restarts::Restarts,
    routes,
    status::{self, Calendar},
    zones::{self, Zones},
};
use crate::http::metrics::BgpSource;

/// GRACEFUL_SHUTDOWN (RFC 8326): the neighbours prefer other paths before this one goes.
const GRACEFUL_SHUTDOWN: u32 = 0xffff_0000;
/// How long a speaker that is not wanted any more may take to close its sessions.
const CLOSE_WITHIN: Duration = Duration::from_secs(4);
/// Between GRACEFUL_SHUTDOWN and the withdrawal lies one part in this many of the time that is left.
const DRAIN_SHARE: u32 = 10;
/// How often a route that is in flight is asked after when no snapshot says anything.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// An interface of a link-local neighbour that comes, or comes back, is noticed within this.
const ZONES_EVERY: Duration = Duration::from_secs(5);

/// End-of-RIB waits for what is true now until so long before neighbours would drop everything.
const BEFORE_RESTART_TIME: Duration = Duration::from_secs(10);
/// A source without routes, which is there once the others are: End-of-RIB waits for it.
const COMPLETE: &str = "complete";

/// How announcing ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStop {
    /// The neighbours are asked to prefer others (RFC 8326), routes are withdrawn, sessions closed.
    Withdraw,
    /// Connections are closed without a word: what restarts at once is still there.
    Restart,
}

/// Announces addresses over BGP. Dropping it closes all sessions.
pub struct BgpAnnouncer {
    desired: watch::Sender<Option<Announcements>>,
    status: watch::Receiver<Arc<AnnouncerStatus>>,
    prefixes: watch::Receiver<Option<Arc<BTreeSet<IpNet>>>>,
    stop: Mutex<Option<oneshot::Sender<(OnStop, Instant)>>>,
    task: Mutex<Option<JoinHandle<()>>>,
    peers: Arc<Mutex<Option<watch::Receiver<Arc<PeersSnapshot>>>>>,
    /// The listeners of GoBGP's gRPC interface; dropping the set closes them.
    _api: JoinSet<()>,
}

impl fmt::Debug for BgpAnnouncer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BgpAnnouncer").finish_non_exhaustive()
    }
}

impl BgpAnnouncer {
    /// Starts the task on the current tokio runtime. `seed` is that of the speaker's timer jitter.
    #[must_use]
    pub fn spawn(api: &ApiOptions, seed: u64, start: Start) -> Self {
        Self::spawn_with(net::spawn, api, seed, start).0
    }

    fn spawn_with(spawn: Spawn, api: &ApiOptions, seed: u64, start: Start) -> (Self, Shown, Arc<Core>) {
        let (desired, wanted) = watch::channel(None);
        let (published, status) = watch::channel(Arc::default());
        let (attracted, prefixes) = watch::channel(None);
        let (stop, stopping) = oneshot::channel();
        let peers = Arc::new(Mutex::new(None));
        let shown = Shown::default();
        let (owner, orders) = ApiOwner::new(shown.clone());
        let clients = Core::new(Arc::new(owner));
        let (listeners, api_failures) = api::spawn(&clients, api);
        let task = Task {
            wanted,
            desired: Announcements::default(),
            speaker: None,
            published,
            attracted,
            sources: BTreeSet::new(),
            peers_wanted: Peers::default(),
            zones: Zones::default(),
            zones_at: None,
            warnings: BTreeMap::new(),
            failure: None,
            start,
            started: Instant::now(),
            complete: false,
            calendar: Calendar::new(Instant::now(), Timestamp::now()),
            has_ipv6: std::path::Path::new("/proc/net/if_inet6").exists(),
            seed,
            spawn,
            restarts: Restarts::new(seed),
            peers: Arc::clone(&peers),
            shown: shown.clone(),
            clients: Arc::clone(&clients),
            orders,
            clients_speaker: None,
            api_failures,
        };
        let task = tokio::spawn(task.run(stopping));
        let announcer = Self {
            desired,
            status,
            prefixes,
            stop: Mutex::new(Some(stop)),
            task: Mutex::new(Some(task)),
            peers,
            _api: listeners,
        };
        (announcer, shown, clients)
    }

    /// Where metrics take the state of the sessions from.
    #[must_use]
    pub fn source(&self) -> BgpSource {
        let peers = Arc::clone(&self.peers);
        Arc::new(move || {
            let peers = peers.lock().unwrap_or_else(PoisonError::into_inner);
            peers.as_ref().map(|receiver| Arc::clone(&receiver.borrow())).unwrap_or_default()
        })
    }

    /// The prefixes whose packets neighbours send to this node, or will in a moment; `None`: it was not said yet.
    #[must_use]
    pub fn prefixes(&self) -> watch::Receiver<Option<Arc<BTreeSet<IpNet>>>> {
        self.prefixes.clone()
    }

    /// Ends announcing, within `within`.
    pub async fn stop(&self, how: OnStop, within: Duration) {
        let until = Instant::now() + within;
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner).take();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(stop), Some(mut task)) = (stop, task)
            && stop.send((how, until)).is_ok()
            && timeout_at((until + CLOSE_WITHIN).into(), &mut task).await.is_err()
        {
            task.abort();
        }
    }
}

impl Announcer for BgpAnnouncer {
    fn set_desired(&self, desired: Announcements) {
        self.desired.send_replace(Some(desired));
    }

    fn status(&self) -> watch::Receiver<Arc<AnnouncerStatus>> {
        self.status.clone()
    }
}

/// How a speaker is started.
type Spawn = fn(SpeakerConfig) -> Result<(SpeakerHandle, JoinHandle<()>), ConfigError>;

struct Running {
    handle: SpeakerHandle,
    task: JoinHandle<()>,
    peers: watch::Receiver<Arc<PeersSnapshot>>,
    routes: watch::Receiver<Arc<RoutesSnapshot>>,
}

struct Task {
    wanted: watch::Receiver<Option<Announcements>>,
    desired: Announcements,
    speaker: Option<Running>,
    published: watch::Sender<Arc<AnnouncerStatus>>,
    attracted: watch::Sender<Option<Arc<BTreeSet<IpNet>>>>,
    /// Every route source that ever had routes: one that is not wanted any more is emptied.
    sources: BTreeSet<String>,
    /// The neighbours, and those that the speaker cannot have.
    peers_wanted: Peers,
    /// The interfaces of link-local neighbours.
    zones: Zones,
    /// When they are looked at again; `None`: there are none.
    zones_at: Option<Instant>,
    /// What is to be known about BgpPeers, by name.
    warnings: BTreeMap<String, String>,
    /// Why there is no speaker although one is wanted.
    failure: Option<String>,
    start: Start,
    started: Instant,
    /// The speaker was told that its routes are all there are: End-of-RIB follows.
    complete: bool,
    calendar: Calendar,
    has_ipv6: bool,
    seed: u64,
    spawn: Spawn,
    /// Of speakers that ended by a bug.
    restarts: Restarts,
    peers: Arc<Mutex<Option<watch::Receiver<Arc<PeersSnapshot>>>>>,
    /// What clients of the gRPC interface see.
    shown: Shown,
    /// What they have added.
    clients: Arc<Core>,
    orders: mpsc::Receiver<Order>,
    /// The speaker that clients started, while no BgpConf decides.
    clients_speaker: Option<SpeakerConfig>,
    api_failures: watch::Receiver<Failures>,
}

impl Task {
    async fn run(mut self, mut stopping: oneshot::Receiver<(OnStop, Instant)>) {
        loop {
            let complete = at(self.completion());
            let look = at(self.zones_at);
            let again = at(self.restarts.until());
            let changed = async {
                match &mut self.speaker {
                    // A sender that is gone means that the speaker stopped; it is started again below.
                    Some(running) => tokio::select! {
                        result = running.peers.changed() => result.is_ok(),
                        result = running.routes.changed() => result.is_ok(),
                    },
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                stop = &mut stopping => {
                    // Without a word from the owner: it is gone, and so is the program.
                    let (how, until) = stop.unwrap_or_else(|_| (OnStop::Withdraw, Instant::now()));
                    return self.stop(how, until).await;
                }
                wanted = self.wanted.changed() => {
                    if wanted.is_err() {
                        return self.stop(OnStop::Withdraw, Instant::now()).await;
                    }
                    let desired = self.wanted.borrow_and_update().clone();
                    if let Some(desired) = desired {
                        let before = std::mem::replace(&mut self.desired, desired);
                        if !self.take_over_changes(&before) {
                            self.take_over().await;
                        }
                    }
                }
                () = complete => self.say_complete(),
                () = look => {
                    if self.renew_zones() {
                        self.take_over().await;
                    }
                }
                () = again => {
                    self.restarts.go_on();
                    self.take_over().await;
                }
                Some(order) = self.orders.recv() => self.obey(order).await,
                Ok(()) = self.api_failures.changed() => {}
                alive = changed => {
                    if !alive {
                        self.ended().await;
                    }
                }
            }
            self.publish();
        }
    }

    /// The speaker has ended by itself: a bug. What one neighbour sent, or one Service asks for, may end the next one,
    /// too, so that it is started after a pause.
    async fn ended(&mut self) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.shown.speaker.send_replace(None);
        let Some(running) = self.speaker.take() else { return };
        let cause = running.task.await.err().map_or_else(String::new, |error| error.to_string());
        let pause = self.restarts.ended(Instant::now());
        tracing::error!(
            cause,
            ?pause,
            "a bug has ended the BGP speaker: please report it; it is started again"
        );
    }

    /// Gives the speaker this configuration; starts one if there is none, but not in the pause after a bug.
    fn configure(&mut self, config: SpeakerConfig) -> Result<(), ConfigError> {
        match &self.speaker {
            Some(running) => running.handle.set_config(config),
            None if self.restarts.until().is_some() => config.validate(),
            None => {
                let (handle, task) = (self.spawn)(config)?;
                self.started(handle, task);
                Ok(())
            }
        }
    }

    /// When End-of-RIB is due although what is announced is only what was known before the start: neighbours drop what
    /// was not announced again when it comes, and everything when it does not come in time. `None`: not yet, or it was.
    fn completion(&self) -> Option<Instant> {
        let bgp = self.desired.bgp.as_ref()?;
        if self.complete || self.speaker.is_none() {
            return None;
        }
        let wait = if self.desired.provisional { patience(bgp) } else { Duration::ZERO };
        Some(self.started + wait)
    }

    fn say_complete(&mut self) {
        if let Some(running) = &self.speaker {
            if self.desired.provisional {
                tracing::warn!(
                    "neighbours do not wait any longer: what the last speaker knew counts as everything"
                );
            }
            running.handle.set_routes(COMPLETE, []);
            self.complete = true;
        }
    }

    /// Makes the speaker what is desired if that is cheaper from what was desired before, and it is that now; else
    /// says no.
    fn take_over_changes(&self, before: &Announcements) -> bool {
        let Some(running) = self.speaker.as_ref().filter(|_| self.failure.is_none()) else { return false };
        let Some(changes) = deltas::deltas(before, &self.desired, &Arc::default()) else { return false };
        // A source that is new is one for the configuration, too.
        if !changes.sources.iter().all(|(source, delta)| delta.is_empty() || self.sources.contains(source)) {
            return false;
        }
        for (source, delta) in changes.sources {
            running.handle.apply(&source, delta);
        }
        if !changes.left.is_empty() || !changes.drawn.is_empty() {
            let mut prefixes = self.attracted.borrow().as_deref().cloned().unwrap_or_default();
            prefixes.retain(|prefix| !changes.left.contains(prefix));
            prefixes.extend(changes.drawn);
            self.attract(prefixes);
        }
        true
    }

    /// Makes the speaker what is desired.
    async fn take_over(&mut self) {
        self.shown.set_ruled(self.desired.bgp.is_some());
        let Some(bgp) = self.desired.bgp.clone() else {
            self.failure = None;
            self.peers_wanted = Peers::default();
            self.warnings.clear();
            match self.clients_speaker.clone() {
                Some(config) => self.run_for_clients(config),
                None => self.close(Shutdown::Notify).await,
            }
            self.attract(BTreeSet::new());
            return;
        };
        self.clients_speaker = None;
        let plan = routes::routes(&self.desired, &Arc::default());
        self.warnings = plan.warnings;
        self.attract(routes::own_prefixes(&plan.sources));
        let (ipv4, ipv6) = routes::own_addresses(&self.desired);
        let host = Host { has_ipv6: self.has_ipv6, ipv4, ipv6, seed: self.seed };
        let names = plan.sources.keys().cloned().chain([COMPLETE.to_owned()]);
        let speaker_config = config::speaker(&bgp, host, names);
        self.renew_zones();
        self.peers_wanted = config::peers(&bgp, &self.zones, self.start);
        let outcome = self.configure(speaker_config).and_then(|()| match &self.speaker {
            Some(running) => running
                .handle
                .set_peers(self.peers_wanted.known.clone())
                .and_then(|()| running.handle.set_dynamic_peers(self.peers_wanted.dynamic.clone())),
            None => Ok(()),
        });
        self.failure = outcome.err().map(|error| error.to_string());
        self.set_routes(plan.sources);
    }

    /// Gives whether an interface of a link-local neighbour is another one.
    fn renew_zones(&mut self) -> bool {
        let bgp = self.desired.bgp.as_ref();
        let any = bgp.is_some_and(|bgp| !zones::interfaces(bgp).is_empty());
        self.zones_at = any.then(|| Instant::now() + ZONES_EVERY);
        self.zones.renew(bgp, zones::of_kernel)
    }

    fn attract(&self, prefixes: BTreeSet<IpNet>) {
        self.attracted.send_if_modified(|current| {
            let changed = current.as_deref() != Some(&prefixes);
            if changed {
                *current = Some(Arc::new(prefixes));
            }
            changed
        });
    }

    fn started(&mut self, handle: SpeakerHandle, task: JoinHandle<()>) {
        let (peers, routes) = (handle.watch_peers(), handle.watch_routes());
        *self.peers.lock().unwrap_or_else(PoisonError::into_inner) = Some(peers.clone());
        self.shown.speaker.send_replace(Some(handle.clone()));
        self.complete = false;
        self.restarts.began(Instant::now());
        self.speaker = Some(Running { handle, task, peers, routes });
    }

    /// The speaker that clients of the gRPC interface asked for, with nothing of ours.
    fn run_for_clients(&mut self, config: SpeakerConfig) {
        let outcome = self.configure(config).and_then(|()| match &self.speaker {
            Some(running) => running
                .handle
                .set_peers(Vec::new())
                .and_then(|()| running.handle.set_dynamic_peers(Vec::new())),
            None => Ok(()),
        });
        self.failure = outcome.err().map(|error| error.to_string());
        self.set_routes(BTreeMap::new());
    }

    async fn obey(&mut self, order: Order) {
        let (outcome, reply) = match order {
            Order::Start(_, reply) | Order::Stop(reply) if self.desired.bgp.is_some() => {
                (Err(ruled(api::BGP_CONF)), reply)
            }
            Order::Start(_, reply) if self.clients_speaker.is_some() => {
                (Err(Error::precondition("a BGP speaker was started already: stop it first")), reply)
            }
            Order::Start(config, reply) => {
                self.clients_speaker = Some(*config);
                self.take_over().await;
                let failure = self.failure.take();
                if failure.is_some() {
                    self.clients_speaker = None;
                }
                (failure.map_or(Ok(()), |failure| Err(Error::invalid(failure))), reply)
            }
            Order::Stop(reply) if self.clients_speaker.is_none() => {
                (Err(Error::precondition("no BGP speaker is running")), reply)
            }
            Order::Stop(reply) => {
                self.clients_speaker = None;
                self.take_over().await;
                (Ok(()), reply)
            }
        };
        // Who asked may be gone.
        let _ = reply.send(outcome);
    }

    fn set_routes(&mut self, by_source: BTreeMap<String, Vec<Route>>) {
        let Some(running) = &self.speaker else { return };
        for gone in self.sources.iter().filter(|source| !by_source.contains_key(*source)) {
            running.handle.set_routes(gone, []);
        }
        self.sources = by_source.keys().cloned().collect();
        for (source, routes) in by_source {
            running.handle.set_routes(&source, routes);
        }
    }

    fn publish(&self) {
        let (peers, routes) = match &self.speaker {
            Some(running) => (Arc::clone(&running.peers.borrow()), Arc::clone(&running.routes.borrow())),
            None => (Arc::default(), Arc::default()),
        };
        let before = Arc::clone(&self.published.borrow());
        let now = Instant::now();
        let mut status = status::status(&self.desired, &peers, &routes, &before, self.calendar, now);
        status.problems.extend(self.failure.iter().map(|failure| {
            let message = format!("the BGP speaker does not take this configuration: {failure}");
            AnnouncerProblem::new("ConfigurationRefused", message)
        }));
        status.problems.extend(self.restarts.until().map(|_| {
            let message = "a bug has ended the BGP speaker; it is started again within a minute";
            AnnouncerProblem::new("SpeakerEnded", message)
        }));
        for (name, warning) in &self.warnings {
            let told = status.peer_warnings.entry(name.clone()).or_default();
            *told = if told.is_empty() { warning.clone() } else { format!("{told}; {warning}") };
        }
        status.problems.extend(self.peers_wanted.refused.iter().map(|(peer, note)| {
            AnnouncerProblem::new("PeerRefused", format!("BgpPeer {peer} is left out: {note}"))
        }));
        status.warnings.extend(self.api_failures.borrow().iter().map(|(host, error)| {
            let message =
                format!("GoBGP's gRPC interface cannot be served on {host}: {error}; it is tried again");
            AnnouncerProblem::new("ApiListenFailed", message)
        }));
        self.published.send_if_modified(|current| {
            let changed = **current != status;
            if changed {
                *current = Arc::new(status);
            }
            changed
        });
    }

    async fn close(&mut self, mode: Shutdown) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.shown.speaker.send_replace(None);
        self.sources.clear();
        let Some(running) = self.speaker.take() else { return };
        running.handle.shutdown(mode);
        // Its listener must be gone before another one opens.
        let mut task = running.task;
        if timeout(CLOSE_WITHIN, &mut task).await.is_err() {
            task.abort();
        }
    }

    async fn stop(mut self, how: OnStop, until: Instant) {
        if how == OnStop::Withdraw {
            let shutdown =
                RouteAttributes { communities: vec![GRACEFUL_SHUTDOWN], ..RouteAttributes::default() };
            let mut last = routes::routes(&self.desired, &Arc::new(shutdown)).sources;
            // Clients' calls have no speaker any more: from now on it is told of their routes here.
            self.shown.speaker.send_replace(None);
            last.insert(SOURCE.to_owned(), self.clients.added_routes().into_iter().map(going).collect());
            let prefixes: BTreeSet<IpNet> = last.values().flatten().map(|route| route.prefix).collect();
            self.set_routes(last);
            self.wait_until_sent(&prefixes, until).await;
            // The neighbours move traffic to other paths while this one still works.
            sleep(until.saturating_duration_since(Instant::now()) / DRAIN_SHARE).await;
            self.set_routes(BTreeMap::new());
            self.wait_until_sent(&prefixes, until).await;
            self.close(Shutdown::Notify).await;
        } else {
            self.close(Shutdown::Quiet).await;
        }
    }

    /// Waits until every established neighbour has been sent what it is to know.
    async fn wait_until_sent(&mut self, prefixes: &BTreeSet<IpNet>, until: Instant) {
        let Some(running) = &mut self.speaker else { return };
        let settle = async {
            for prefix in prefixes {
                while running.handle.route_status(*prefix).await.iter().any(in_flight) {
                    // Snapshots come several times a second while something changes.
                    let _ = timeout(ASK_AGAIN, running.routes.changed()).await;
                }
            }
        };
        let _ = timeout_at(until.into(), settle).await;
    }
}

/// A client's route that is about to go.
fn going(mut route: Route) -> Route {
    let communities = &mut Arc::make_mut(&mut route.attributes).communities;
    if !communities.contains(&GRACEFUL_SHUTDOWN) {
        communities.push(GRACEFUL_SHUTDOWN);
    }
    route
}

/// For how long routes that are known from before the start may wait for the true ones: 10 s less than the neighbours
/// wait, or half of that where it is short. Each session has a time of its own; this is for those whose neighbour waits
/// longest, which a neighbour with a short one must not cut off.
fn patience(bgp: &BgpAnnouncements) -> Duration {
    let times = bgp.peers.values().filter_map(|peer| config::restart_time(&peer.spec, &bgp.graceful_restart));
    let longest = times.max().unwrap_or(config::RESTART_TIME);
    longest.saturating_sub(BEFORE_RESTART_TIME).max(longest / 2)
}

/// Until then; for ever without it.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Whether some neighbour has not been sent the latest word on a route.
fn in_flight(route: &RouteStatus) -> bool {
    route.peers.iter().any(|(_, state)| matches!(state, Advertisement::Pending | Advertisement::Withdrawing))
}

#[cfg(test)]
mod tests;
