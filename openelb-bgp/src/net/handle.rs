//! The embedder's side of a running speaker: commands that never wait, and watches.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use tokio::sync::{Notify, oneshot, watch};

use crate::speaker::{
    ConfigError, Delta, PeerConfig, PeerName, PeersSnapshot, Route, RouteKey, RouteStatus, RoutesSnapshot,
    SpeakerConfig, TableStats, index_peers,
};

/// How a speaker stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Every session is told with Cease/2, Administrative Shutdown (RFC 4486): the neighbours drop our routes at once.
    Notify,
    /// The connections are closed without a NOTIFICATION: neighbours with graceful restart (RFC 4724) keep our routes.
    Quiet,
}

/// Commands and watches of a running speaker. Clones drive the same speaker; when the last one is dropped the speaker
/// stops as with [`Shutdown::Notify`].
///
/// No command waits: what has not been taken over yet is merged with what comes after (whole sets replace, deltas
/// add up per route), so the backlog is never larger than the desired state.
#[derive(Clone)]
pub struct SpeakerHandle {
    owner: Arc<Owner>,
}

impl fmt::Debug for SpeakerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpeakerHandle").finish_non_exhaustive()
    }
}

impl SpeakerHandle {
    pub(super) fn new(
        shared: Arc<Shared>,
        peers: watch::Receiver<Arc<PeersSnapshot>>,
        routes: watch::Receiver<Arc<RoutesSnapshot>>,
    ) -> Self {
        Self { owner: Arc::new(Owner { shared, peers, routes }) }
    }

    fn update(&self, change: impl FnOnce(&mut Mailbox)) {
        let mut mailbox = self.owner.shared.lock();
        if mailbox.closed {
            return; // the speaker has stopped; what waits for an answer sees its sender dropped
        }
        change(&mut mailbox);
        drop(mailbox);
        self.owner.shared.wake.notify_one();
    }

    /// Changes the speaker's own configuration. A changed AS number or BGP identifier resets the sessions whose OPEN
    /// it is part of; other changes touch no session.
    ///
    /// # Errors
    /// If the configuration is not valid; the one before stays in force.
    pub fn set_config(&self, config: SpeakerConfig) -> Result<(), ConfigError> {
        config.validate()?;
        self.update(|mailbox| mailbox.config = Some(config));
        Ok(())
    }

    /// Makes this the whole set of neighbours. Those that did not change are not touched.
    ///
    /// # Errors
    /// If one of them is not valid or two clash; the set before stays in force.
    pub fn set_peers(&self, peers: Vec<PeerConfig>) -> Result<(), ConfigError> {
        let peers = index_peers(peers)?;
        self.update(|mailbox| mailbox.peers = Some(peers));
        Ok(())
    }

    /// Makes this the whole set of routes of `source`. Only what differs from before is sent to neighbours.
    pub fn set_routes(&self, source: &str, routes: impl IntoIterator<Item = Route>) {
        let routes: Vec<Route> = routes.into_iter().collect();
        self.update(|mailbox| {
            mailbox
                .sources
                .insert(source.to_owned(), PendingRoutes { whole: Some(routes), delta: HashMap::new() });
        });
    }

    /// Changes some routes of `source`; the result is the same as that of
    /// [`set_routes`](Self::set_routes) with the changed set.
    pub fn apply(&self, source: &str, delta: Delta) {
        if delta.is_empty() {
            return;
        }
        self.update(|mailbox| {
            if !mailbox.sources.contains_key(source) {
                mailbox.sources.insert(source.to_owned(), PendingRoutes::default());
            }
            if let Some(pending) = mailbox.sources.get_mut(source) {
                pending.delta.extend(delta.remove.into_iter().map(|key| (key, None)));
                pending.delta.extend(delta.add.into_iter().map(|route| (route.key(), Some(route))));
            }
        });
    }

    /// Ends the session with this neighbour (Cease/4, Administrative Reset); it comes up again by itself.
    pub fn reset(&self, peer: &PeerName) {
        self.update(|mailbox| {
            mailbox.resets.insert(peer.clone());
        });
    }

    /// Stops the speaker; its task ends when the sessions are closed, within a bounded time.
    pub fn shutdown(&self, mode: Shutdown) {
        self.update(|mailbox| mailbox.shutdown = Some(mode));
    }

    /// The neighbours: a change of a state is seen at once, counters within a second.
    pub fn watch_peers(&self) -> watch::Receiver<Arc<PeersSnapshot>> {
        self.owner.peers.clone()
    }

    /// The routes and where each stands with each neighbour. Made only while somebody watches, at most ten times a
    /// second, and using at most a twentieth of the speaker's time.
    pub fn watch_routes(&self) -> watch::Receiver<Arc<RoutesSnapshot>> {
        let receiver = self.owner.routes.clone();
        self.update(|mailbox| mailbox.refresh_routes = true);
        receiver
    }

    /// Where the routes of one prefix stand with each neighbour. Empty if there is none, or the speaker has stopped.
    pub async fn route_status(&self, prefix: IpNet) -> Vec<RouteStatus> {
        let (sender, receiver) = oneshot::channel();
        self.update(|mailbox| mailbox.queries.push(Query::Route(prefix, sender)));
        receiver.await.unwrap_or_default()
    }

    /// How much the tables hold. All zero if the speaker has stopped.
    pub async fn table_stats(&self) -> TableStats {
        let (sender, receiver) = oneshot::channel();
        self.update(|mailbox| mailbox.queries.push(Query::Stats(sender)));
        receiver.await.unwrap_or_default()
    }
}

/// Stops the speaker when the last handle is gone.
struct Owner {
    shared: Arc<Shared>,
    peers: watch::Receiver<Arc<PeersSnapshot>>,
    routes: watch::Receiver<Arc<RoutesSnapshot>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.lock().shutdown.get_or_insert(Shutdown::Notify);
        self.shared.wake.notify_one();
    }
}

/// What handles and driver share.
#[derive(Default)]
pub(super) struct Shared {
    mailbox: Mutex<Mailbox>,
    pub(super) wake: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Mailbox> {
        // A holder that panicked left whole values behind: each command is one assignment.
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self) -> Mailbox {
        std::mem::take(&mut *self.lock())
    }

    /// The driver is gone: nobody will answer, so what waits for an answer is let go.
    pub(super) fn close(&self) {
        let mut mailbox = self.lock();
        mailbox.closed = true;
        mailbox.queries.clear();
    }
}

/// Commands that the driver has not taken over yet.
#[derive(Default)]
pub(super) struct Mailbox {
    pub(super) config: Option<SpeakerConfig>,
    pub(super) peers: Option<BTreeMap<PeerName, PeerConfig>>,
    pub(super) sources: BTreeMap<String, PendingRoutes>,
    pub(super) resets: BTreeSet<PeerName>,
    pub(super) queries: Vec<Query>,
    pub(super) refresh_routes: bool,
    pub(super) shutdown: Option<Shutdown>,
    closed: bool,
}

#[derive(Default)]
pub(super) struct PendingRoutes {
    pub(super) whole: Option<Vec<Route>>,
    pub(super) delta: HashMap<RouteKey, Option<Route>>,
}

impl PendingRoutes {
    /// The delta in a fixed order.
    pub(super) fn delta(pending: HashMap<RouteKey, Option<Route>>) -> Delta {
        let mut delta = Delta::default();
        for (key, route) in pending {
            match route {
                Some(route) => delta.add.push(route),
                None => delta.remove.push(key),
            }
        }
        delta.add.sort_unstable_by_key(Route::key);
        delta.remove.sort_unstable();
        delta
    }
}

pub(super) enum Query {
    Route(IpNet, oneshot::Sender<Vec<RouteStatus>>),
    Stats(oneshot::Sender<TableStats>),
}
