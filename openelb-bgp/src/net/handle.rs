//! The embedder's side of a running speaker: commands that never wait, and watches.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use ipnet::IpNet;
use tokio::{
    sync::{Notify, broadcast, oneshot, watch},
    task::spawn_blocking,
};

use crate::{
    speaker::{
        AdvertisedRoute, CommandError, ConfigError, Delta, DynamicPeers, Event, PathState, PeerCommand,
        PeerConfig, PeerName, PeersSnapshot, ReceivedRoute, RibEntry, Route, RouteKey, RouteStatus,
        RoutesSnapshot, Speaker, SpeakerConfig, TableStats, index_dynamic_peers, index_peers,
    },
    wire::{Family, Prefix},
};

/// Prefixes, or places of a table, that are looked at without a look at anything else: a few milliseconds.
const PIECE: usize = 1024;
/// So many are sorted by the runtime's own threads; more would hold up what else runs on them.
const SORTED_AT_ONCE: usize = 16 * 1024;

/// Each once, in order.
async fn in_order(mut prefixes: Vec<Prefix>) -> Vec<Prefix> {
    let few = prefixes.len() <= SORTED_AT_ONCE;
    let sort = move || {
        prefixes.sort_unstable();
        prefixes.dedup();
        prefixes
    };
    // It fails only while the runtime is being shut down.
    if few { sort() } else { spawn_blocking(sort).await.unwrap_or_default() }
}

/// How a speaker stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Every session is told with Cease/2, Administrative Shutdown (RFC 4486): the neighbours drop our routes at once.
    Notify,
    /// The connections are closed without a NOTIFICATION: neighbours with graceful restart (RFC 4724) keep our routes, and
    /// are asked to hold BFD for the restart time. The next speaker says that it is
    /// [restarting](crate::speaker::GracefulRestartConfig::restarting).
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
        events: broadcast::WeakSender<Event>,
    ) -> Self {
        Self { owner: Arc::new(Owner { shared, peers, routes, events }) }
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

    /// Makes this the whole set of neighbours of the source `""`. Those that did not change are not touched.
    ///
    /// # Errors
    /// If one of them is not valid or two clash; the set before stays in force.
    pub fn set_peers(&self, peers: Vec<PeerConfig>) -> Result<(), ConfigError> {
        self.set_peers_of("", peers)
    }

    /// Makes this the whole set of neighbours of `source`; those of other sources stay. Where two sources clash, see
    /// [`Speaker::set_peers_of`].
    ///
    /// # Errors
    /// If one of them is not valid or two of this set clash; the set before stays in force.
    pub fn set_peers_of(&self, source: &str, peers: Vec<PeerConfig>) -> Result<(), ConfigError> {
        let peers = index_peers(peers)?;
        self.update(|mailbox| {
            mailbox.peers.insert(source.to_owned(), peers);
        });
        Ok(())
    }

    /// Makes this the whole set of groups of dynamic peers; see [`Speaker::set_dynamic_peers`].
    ///
    /// # Errors
    /// If a template is not valid, or two groups have one prefix or name; the set before stays in force.
    pub fn set_dynamic_peers(&self, groups: Vec<DynamicPeers>) -> Result<(), ConfigError> {
        let groups = index_dynamic_peers(groups)?;
        self.update(|mailbox| mailbox.dynamic_peers = Some(groups));
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

    /// Does to a neighbour what an operator says, after all that was set before.
    ///
    /// # Errors
    /// If there is no such neighbour, its session cannot do that, or the speaker has stopped.
    pub async fn command(&self, peer: &PeerName, command: PeerCommand) -> Result<(), CommandError> {
        let peer = peer.clone();
        let outcome = self.act(move |speaker, now| speaker.command(&peer, command, now)).await;
        outcome.unwrap_or(Err(CommandError::Stopped))
    }

    /// BFD, if the embedder runs its own, says this of the path to a neighbour; see [`Speaker::handle_bfd`].
    pub fn path_state(&self, peer: &PeerName, state: PathState) {
        let peer = peer.clone();
        self.enqueue(move |speaker, now| {
            let _ = speaker.handle_bfd(&peer, state, now); // it may be gone
        });
    }

    /// The interface to a directly connected neighbour has gone down; see [`Speaker::handle_link_down`].
    pub fn link_down(&self, peer: &PeerName, interface: &str) {
        let (peer, interface) = (peer.clone(), interface.to_owned());
        self.enqueue(move |speaker, now| {
            let _ = speaker.handle_link_down(&peer, &interface, now); // it may be gone
        });
    }

    fn enqueue(&self, action: impl FnOnce(&mut Speaker, Instant) + Send + 'static) {
        self.update(|mailbox| mailbox.actions.push(Box::new(action)));
    }

    async fn act<T: Send + 'static>(
        &self,
        action: impl FnOnce(&mut Speaker, Instant) -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        // Who asked may be gone.
        self.enqueue(move |speaker, now| drop(sender.send(action(speaker, now))));
        receiver.await.ok()
    }

    /// Asks the machine itself something, after all that was set before. `None`: it has stopped, or `ask` has panicked,
    /// which costs nobody else anything: it can change nothing. The speaker does nothing else meanwhile, so the answer must
    /// be quick to give. It is not made when nobody waits for it any more.
    ///
    /// ```no_run
    /// # async fn ask(speaker: &openelb_bgp::net::SpeakerHandle) {
    /// let complete = speaker.query(|speaker| speaker.routes_complete()).await;
    /// # }
    /// ```
    pub async fn query<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Speaker) -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        self.enqueue(move |speaker, _| {
            if sender.is_closed() {
                return;
            }
            // The machine is only looked at: whatever happens, it is whole.
            match catch_unwind(AssertUnwindSafe(|| ask(speaker))) {
                Ok(answer) => drop(sender.send(answer)),
                Err(_) => tracing::error!("a bug in a question to the speaker: please report it"),
            }
        });
        receiver.await.ok()
    }

    /// What a neighbour has sent; see [`Speaker::adj_in`]. `None`: no such neighbour. As [`rib`](Self::rib) it is looked
    /// through piece by piece.
    pub async fn adj_in(&self, peer: &PeerName, family: Family) -> Option<Vec<ReceivedRoute>> {
        let name = peer.clone();
        let ask = move |speaker: &Speaker| {
            speaker.received_routes(&name, &[])?;
            Some(speaker.received_prefixes(family).collect())
        };
        let prefixes = in_order(self.query(ask).await??).await;
        let mut routes = Vec::new();
        for some in prefixes.chunks(PIECE) {
            let (peer, some) = (peer.clone(), some.to_vec());
            routes.extend(self.query(move |speaker| speaker.received_routes(&peer, &some)).await??);
        }
        // Of one prefix they come as they are.
        routes.sort_by_key(|route: &ReceivedRoute| (route.prefix, route.path_id));
        Some(routes)
    }

    /// What a neighbour has been sent; see [`Speaker::adj_out`]. `None`: no such neighbour. As [`rib`](Self::rib) it is
    /// looked through piece by piece.
    pub async fn adj_out(&self, peer: &PeerName, family: Family) -> Option<Vec<AdvertisedRoute>> {
        let mut routes = Vec::new();
        let mut place = Some(0);
        while let Some(from) = place {
            let peer = peer.clone();
            let ask = move |speaker: &Speaker| speaker.advertised_routes(&peer, family, from, PIECE);
            let (some, next) = self.query(ask).await??;
            routes.extend(some);
            place = next;
        }
        routes.sort_unstable_by_key(|route| (route.prefix, route.path_id));
        Some(routes)
    }

    /// All routes of a family, the best of each prefix first; see [`Speaker::rib`]. Empty if the speaker has stopped.
    ///
    /// They are looked at a thousand prefixes at a time, so that sessions go on meanwhile: each prefix is shown as it is
    /// when its turn comes.
    pub async fn rib(&self, family: Family) -> Vec<RibEntry> {
        let prefixes = self.query(move |speaker| speaker.prefixes(family)).await.unwrap_or_default();
        let mut entries = Vec::new();
        for some in in_order(prefixes).await.chunks(PIECE) {
            let some = some.to_vec();
            match self.query(move |speaker| speaker.rib_entries(&some)).await {
                Some(more) => entries.extend(more),
                None => return Vec::new(),
            }
        }
        entries
    }

    /// What happens from now on. A receiver that is too slow loses the oldest and is told how many
    /// ([`RecvError::Lagged`](broadcast::error::RecvError::Lagged)); the speaker never waits for it. `best_paths`: changes
    /// of best routes, too, as long as anybody subscribes; `received`: likewise each route that a neighbour sends and that
    /// is kept. `None`: the speaker has stopped.
    pub fn subscribe(&self, best_paths: bool, received: bool) -> Option<broadcast::Receiver<Event>> {
        let receiver = self.owner.events.upgrade()?.subscribe();
        if best_paths {
            self.enqueue(|speaker, now| speaker.watch_best_paths(true, now));
        }
        if received {
            self.enqueue(|speaker, _| speaker.watch_received(true));
        }
        Some(receiver)
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
        self.query(move |speaker| speaker.route_status(prefix)).await.unwrap_or_default()
    }

    /// How much the tables hold. All zero if the speaker has stopped.
    pub async fn table_stats(&self) -> TableStats {
        self.query(Speaker::table_stats).await.unwrap_or_default()
    }
}

/// Stops the speaker when the last handle is gone.
struct Owner {
    shared: Arc<Shared>,
    peers: watch::Receiver<Arc<PeersSnapshot>>,
    routes: watch::Receiver<Arc<RoutesSnapshot>>,
    events: broadcast::WeakSender<Event>,
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
        mailbox.actions.clear();
    }
}

/// Commands that the driver has not taken over yet.
#[derive(Default)]
pub(super) struct Mailbox {
    pub(super) config: Option<SpeakerConfig>,
    pub(super) peers: BTreeMap<String, BTreeMap<PeerName, PeerConfig>>,
    pub(super) dynamic_peers: Option<Vec<DynamicPeers>>,
    pub(super) sources: BTreeMap<String, PendingRoutes>,
    pub(super) resets: BTreeSet<PeerName>,
    /// In order, after all else.
    pub(super) actions: Vec<Action>,
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

/// What the driver is to do with the machine.
pub(super) type Action = Box<dyn FnOnce(&mut Speaker, Instant) + Send>;

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        task::{Context, Waker},
    };

    use super::*;

    #[tokio::test]
    async fn an_answer_that_nobody_waits_for_is_not_made() {
        let config = SpeakerConfig::new(65000, [192, 0, 2, 1].into());
        let (speaker, _) = crate::net::spawn_offline(config).unwrap();
        let made = Arc::new(AtomicBool::new(false));
        let mut given_up = Box::pin(speaker.query({
            let made = Arc::clone(&made);
            move |_| made.store(true, Ordering::Relaxed)
        }));
        assert!(given_up.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(given_up);
        assert_eq!(speaker.query(|speaker| speaker.config().asn).await, Some(65000));
        assert!(!made.load(Ordering::Relaxed));
    }
    #[tokio::test]
    async fn a_speaker_that_ended_by_a_bug_answers_nobody_and_lets_nobody_wait() {
        let config = SpeakerConfig::new(65000, [192, 0, 2, 1].into());
        let (speaker, task) = crate::net::spawn_offline(config).unwrap();
        let peer = PeerName::from("nobody");
        // They are asked before the bug, in one message with it, and after it.
        let family = Family::IPV4_UNICAST;
        let (before, beside) = (speaker.clone(), speaker.clone());
        let asked = tokio::spawn(async move { before.query(|speaker| speaker.config().asn).await });
        tokio::task::yield_now().await;
        speaker.enqueue(|_, _| panic!("on purpose"));
        let late = tokio::spawn(async move { beside.query(|speaker| speaker.config().asn).await });
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!((asked.await.unwrap(), late.await.unwrap()), (Some(65000), None));
        assert_eq!(speaker.query(|speaker| speaker.config().asn).await, None);
        assert_eq!(speaker.command(&peer, PeerCommand::Enable).await, Err(CommandError::Stopped));
        assert_eq!((speaker.rib(family).await, speaker.adj_in(&peer, family).await), (Vec::new(), None));
        assert_eq!((speaker.adj_out(&peer, family).await, speaker.table_stats().await.routes), (None, 0));
        assert!(speaker.subscribe(true, true).is_none());
    }

    #[tokio::test]
    async fn a_question_with_a_bug_has_no_answer_and_costs_nobody_anything() {
        let config = SpeakerConfig::new(65000, [192, 0, 2, 1].into());
        let (speaker, _) = crate::net::spawn_offline(config).unwrap();
        assert_eq!(speaker.query(|_| -> u32 { panic!("on purpose") }).await, None);
        assert_eq!(speaker.query(|speaker| speaker.config().asn).await, Some(65000));
    }

    /// What is counted is what the speaker does between two pieces.
    #[tokio::test]
    async fn while_a_table_is_listed_everything_else_goes_on() {
        // So few that no other thread sorts them: the speaker and who asks it take turns on this one.
        const ROUTES: u32 = 16_000;
        let config = SpeakerConfig::new(65000, [192, 0, 2, 1].into());
        let (speaker, _) = crate::net::spawn_offline(config).unwrap();
        let prefix = |index: u32| ipnet::Ipv4Net::new((0x0a00_0000 + index).into(), 32).unwrap();
        speaker.set_routes("test", (0..ROUTES).map(|index| Route::new(prefix(index))));
        let listing = tokio::spawn({
            let speaker = speaker.clone();
            async move { speaker.rib(Family::IPV4_UNICAST).await }
        });
        // A task as any other: what the runtime is blocked on has its turn less often.
        let asking = tokio::spawn(async move {
            let mut answered = 0;
            while !listing.is_finished() {
                assert!(speaker.query(|speaker| speaker.config().asn).await.is_some());
                answered += 1;
            }
            (answered, listing.await.unwrap())
        });
        let (answered, listed) = asking.await.unwrap();
        let listed: Vec<IpNet> = listed.into_iter().map(|entry| entry.prefix).collect();
        assert!(listed.into_iter().eq((0..ROUTES).map(|index| prefix(index).into())), "all, in order");
        assert!(answered >= 10, "{answered} questions answered meanwhile");
    }
}
