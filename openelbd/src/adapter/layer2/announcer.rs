//! The task that keeps a Layer 2 speaker as the announcements want it.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use openelb_k8s::announce::{Announcements, Announcer, AnnouncerStatus, Protocol};
use openelb_l2::{
    net::{self, DriverConfig, DriverHandle, Snapshot, SpawnError},
    speaker::{Event, NodeName, SpeakerConfig, StopMode},
};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    task::JoinHandle,
    time::{sleep_until, timeout},
};

use super::{
    Layer2Options, VIRTUAL_LINKS,
    comings::{Comings, Seen},
    config,
    events::{self, Spoken, Told},
    hearing::Hearing,
    incarnation, status,
};
use crate::adapter::bgp::{OnStop, restarts::Restarts, status::Calendar};

/// What is told and nobody has taken yet; more than that is dropped: events are best effort.
const TOLD: usize = 1024;
/// Saying goodbye ends a little before whoever waits for it gives up.
const GRACE: Duration = Duration::from_millis(500);

/// How long a speaker that is replaced may take to hand over what it has.
const ENDING: Duration = Duration::from_secs(5);

/// Where metrics take the state of Layer 2 from; `None`: it is not spoken.
pub type Layer2Source = Arc<dyn Fn() -> Option<Arc<Snapshot>> + Send + Sync>;

/// Announces addresses by ARP and NDP. Dropping it hands everything over.
pub struct Layer2Announcer {
    desired: watch::Sender<Option<Announcements>>,
    status: watch::Receiver<Arc<AnnouncerStatus>>,
    snapshots: Arc<Mutex<Option<watch::Receiver<Arc<Snapshot>>>>>,
    stop: Mutex<Option<oneshot::Sender<(OnStop, Duration)>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Layer2Announcer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer2Announcer").finish_non_exhaustive()
    }
}

impl Layer2Announcer {
    /// Starts the task on the current tokio runtime. What happens is told on the channel.
    #[must_use]
    pub fn spawn(options: Layer2Options, seed: u64) -> (Self, mpsc::Receiver<Told>) {
        Self::spawn_by(Box::new(net::spawn), options, seed)
    }

    /// The same, with speakers that are started so.
    pub(super) fn spawn_by(spawn: Spawn, options: Layer2Options, seed: u64) -> (Self, mpsc::Receiver<Told>) {
        let (desired, wanted) = watch::channel(None);
        let (published, status) = watch::channel(Arc::default());
        let (stop, stopping) = oneshot::channel();
        let (told, receiver) = mpsc::channel(TOLD);
        let snapshots = Arc::new(Mutex::new(None));
        let comings = Comings::new(options.suspicion);
        let task = Task {
            spawn,
            restarts: Restarts::new(seed),
            ended: false,
            options,
            wanted,
            desired: Announcements::default(),
            running: None,
            ending: None,
            failure: None,
            published,
            told,
            spoken: Spoken::default(),
            comings,
            snapshots: Arc::clone(&snapshots),
            calendar: Calendar::new(Instant::now(), Timestamp::now()),
            seed,
        };
        let task = Mutex::new(Some(tokio::spawn(task.run(stopping))));
        (Self { desired, status, snapshots, stop: Mutex::new(Some(stop)), task }, receiver)
    }

    /// Where metrics take the state from.
    #[must_use]
    pub fn source(&self) -> Layer2Source {
        let snapshots = Arc::clone(&self.snapshots);
        Arc::new(move || {
            let snapshots = snapshots.lock().unwrap_or_else(PoisonError::into_inner);
            snapshots.as_ref().map(|receiver| Arc::clone(&receiver.borrow()))
        })
    }

    /// Ends announcing, within `within`.
    pub async fn stop(&self, how: OnStop, within: Duration) {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner).take();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(stop), Some(mut task)) = (stop, task)
            && stop.send((how, within)).is_ok()
            && timeout(within + GRACE, &mut task).await.is_err()
        {
            task.abort();
        }
    }
}

impl Announcer for Layer2Announcer {
    fn set_desired(&self, desired: Announcements) {
        self.desired.send_replace(Some(desired));
    }

    fn status(&self) -> watch::Receiver<Arc<AnnouncerStatus>> {
        self.status.clone()
    }
}

struct Running {
    /// Where the others reach it.
    gossip: SocketAddr,
    handle: DriverHandle,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    events: broadcast::Receiver<Event>,
    hearing: Hearing,
}

/// A speaker that says goodbye.
struct Ending {
    /// Where the others reached it.
    gossip: SocketAddr,
    handle: DriverHandle,
    mode: StopMode,
    ended: BoxFuture<'static, ()>,
}

impl Ending {
    fn new(gossip: SocketAddr, handle: DriverHandle, mode: StopMode) -> Self {
        let stopping = handle.clone();
        let ended = Box::pin(async move {
            if !stopping.stop(mode, ENDING).await {
                tracing::warn!(after = ?ENDING, "the Layer 2 speaker before is not over, and not waited for any longer");
            }
        });
        Self { gossip, handle, mode, ended }
    }

    /// One that hands its addresses over does not keep them after all.
    fn stop_by(self, mode: StopMode) -> Self {
        if self.mode == mode || self.mode == StopMode::Withdraw {
            self
        } else {
            Self::new(self.gossip, self.handle, mode)
        }
    }
}

/// What starts a speaker.
pub(super) type Spawn = Box<dyn Fn(DriverConfig) -> Result<DriverHandle, SpawnError> + Send>;

struct Task {
    spawn: Spawn,
    /// When a speaker that ended by itself, or could not be started, is started again.
    restarts: Restarts,
    /// It ended by itself: what made it do so may be what is desired, so that a change of that does not shorten the pause.
    ended: bool,
    options: Layer2Options,
    wanted: watch::Receiver<Option<Announcements>>,
    desired: Announcements,
    running: Option<Running>,
    /// The speaker before. There is no other until it has ended, or has not for [`ENDING`]: two of one node would answer and
    /// gossip at once.
    ending: Option<Ending>,
    /// Why there is no speaker although one is wanted.
    failure: Option<String>,
    published: watch::Sender<Arc<AnnouncerStatus>>,
    told: mpsc::Sender<Told>,
    /// What this node has told, and nobody replaced.
    spoken: Spoken,
    comings: Comings,
    snapshots: Arc<Mutex<Option<watch::Receiver<Arc<Snapshot>>>>>,
    calendar: Calendar,
    seed: u64,
}

/// What the speaker's side brings.
enum News {
    Snapshot,
    Event(Event),
    /// Events were missed; the snapshots say how things are.
    Missed,
    Gone,
}

impl Running {
    async fn news(&mut self) -> News {
        tokio::select! {
            biased;
            event = self.events.recv() => match event {
                Ok(event) => News::Event(event),
                Err(broadcast::error::RecvError::Lagged(_)) => News::Missed,
                Err(broadcast::error::RecvError::Closed) => News::Gone,
            },
            changed = self.snapshots.changed() => if changed.is_ok() { News::Snapshot } else { News::Gone },
        }
    }
}

impl Task {
    async fn run(mut self, mut stopping: oneshot::Receiver<(OnStop, Duration)>) {
        loop {
            let until = self.restarts.until();
            let again = async {
                match until {
                    Some(until) => sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            let news = async {
                match &mut self.running {
                    Some(running) => running.news().await,
                    None => std::future::pending().await,
                }
            };
            let ended = async {
                match &mut self.ending {
                    Some(ending) => (&mut ending.ended).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                stop = &mut stopping => {
                    // Without a word from the owner: it is gone, and so is the program.
                    let (how, within) = stop.unwrap_or((OnStop::Withdraw, Duration::ZERO));
                    return self.stop(how, within).await;
                }
                wanted = self.wanted.changed() => {
                    if wanted.is_err() {
                        return self.stop(OnStop::Withdraw, Duration::ZERO).await;
                    }
                    if let Some(desired) = self.wanted.borrow_and_update().clone() {
                        self.desired = desired;
                    }
                    self.take_over();
                }
                () = ended => {
                    self.ending = None;
                    self.take_over();
                }
                () = again => {
                    self.restarts.go_on();
                    self.ended = false;
                    self.take_over();
                }
                news = news => match news {
                    News::Snapshot | News::Missed => {}
                    News::Event(event) => {
                        self.hear(event);
                        continue;
                    }
                    News::Gone => {
                        let pause = self.restarts.ended(Instant::now());
                        tracing::error!(
                            ?pause,
                            "a bug has ended the Layer 2 speaker: please report it; it is started again"
                        );
                        self.ended = true;
                        self.close(StopMode::Withdraw);
                        self.take_over();
                    }
                },
            }
            self.publish();
        }
    }

    /// Makes the speaker what is desired.
    fn take_over(&mut self) {
        self.failure = None;
        self.spoken.forget(&self.desired).into_iter().for_each(|over| self.send(over));
        self.comings.keep(|node| self.desired.layer2.nodes.contains_key(node));
        let layer2 = &self.desired.layer2;
        if !self.is_wanted() {
            return self.close(StopMode::Withdraw);
        }
        let given = self.options.gossip(&layer2.own, layer2.nodes.is_empty());
        if given.is_none() {
            self.failure = Some(format!(
                "Node {} has no InternalIP, so the other nodes cannot reach its gossip: give --bind-addr",
                self.desired.node
            ));
        }
        // A Node that is registered anew has none for a moment: what is announced stays where it is.
        let running = self.running.as_ref().map(|running| running.gossip);
        let before = running.or_else(|| self.ending.as_ref().map(|ending| ending.gossip));
        let Some(address) = given.or_else(|| before.map(|before| before.ip())) else {
            return self.close(StopMode::Withdraw);
        };
        let gossip = SocketAddr::new(address, self.options.port);
        if self.running.as_ref().is_none_or(|running| running.gossip != gossip) {
            // What it has stays at this node.
            self.close(StopMode::Restart);
            if self.ending.is_some() {
                return;
            }
            if self.ended {
                self.failure = Some(
                    "a bug has ended the Layer 2 speaker; it is started again within a minute".to_owned(),
                );
                return;
            }
            match self.start(gossip) {
                Ok(running) => {
                    self.restarts.go_on();
                    self.restarts.began(Instant::now());
                    let snapshots = Some(running.snapshots.clone());
                    *self.snapshots.lock().unwrap_or_else(PoisonError::into_inner) = snapshots;
                    self.running = Some(running);
                }
                Err(failure) => {
                    let pause = self.restarts.ended(Instant::now());
                    tracing::error!(
                        ?pause,
                        "the Layer 2 speaker cannot be started; it is tried again: {failure}"
                    );
                    self.failure = Some(format!("{failure}; it is tried again within a minute"));
                    return;
                }
            }
        }
        if let Some(running) = &self.running {
            running.handle.set_settings(config::settings(&self.desired.layer2.spec));
            running.handle.set_peers(config::peers(&self.desired, gossip));
            running.handle.set_addresses(config::addresses(&self.desired));
        }
    }

    fn is_wanted(&self) -> bool {
        self.options.enabled != Some(false) && self.desired.layer2.in_use
    }

    fn start(&self, gossip: SocketAddr) -> Result<Running, String> {
        let node = NodeName::new(&self.desired.node).map_err(|error| error.to_string())?;
        let mut speaker = SpeakerConfig::new(node, gossip);
        speaker.key.clone_from(&self.options.key);
        speaker.probe_interval = self.options.probe_interval;
        speaker.probe_timeout = self.options.probe_timeout;
        speaker.suspicion = self.options.suspicion;
        speaker.host_uptime = self.options.host_uptime.unwrap_or_else(net::host_uptime);
        speaker.incarnation = incarnation::next(self.options.incarnation_file.as_deref());
        speaker.seed = self.seed;
        let mut driver = DriverConfig::new(speaker);
        driver.settings = config::settings(&self.desired.layer2.spec);
        driver.skipped_links = VIRTUAL_LINKS.map(str::to_owned).to_vec();
        let handle = (self.spawn)(driver).map_err(|error| error.to_string())?;
        tracing::info!(%gossip, authenticated = self.options.key.is_some(), "the Layer 2 speaker starts");
        let (snapshots, events) = (handle.watch(), handle.events());
        Ok(Running { gossip, handle, snapshots, events, hearing: Hearing::new(Instant::now()) })
    }

    /// The speaker, if there is one, begins to end.
    fn close(&mut self, mode: StopMode) {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.comings.clear();
        self.ending = match self.running.take() {
            Some(Running { gossip, handle, .. }) => Some(Ending::new(gossip, handle, mode)),
            None => self.ending.take().map(|ending| ending.stop_by(mode)),
        };
    }

    fn hear(&mut self, event: Event) {
        tracing::info!(?event, "layer 2");
        match event {
            Event::SpeakerUp { .. } | Event::SpeakerDown { .. } => {
                self.comings.hear(event, self.is_settled(), Instant::now());
            }
            event => {
                if matches!(event, Event::Stalled { .. }) {
                    self.comings.deliberate_anew(Instant::now());
                }
                self.tell(&event);
            }
        }
    }

    fn is_settled(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.snapshots.borrow().settled)
    }

    fn tell(&mut self, event: &Event) {
        let Some(running) = &self.running else { return };
        let told = events::told(&self.desired.node, event, &running.snapshots.borrow());
        if let Some(told) = told.filter(|told| self.spoken.note(told)) {
            self.send(told);
        }
    }

    fn send(&self, told: Told) {
        if self.told.try_send(told).is_err() {
            tracing::debug!("an event of Layer 2 is not told: too many wait");
        }
    }

    /// Tells of nodes that came or went: of those of which the snapshot knows what came of it.
    fn tell_comings(&mut self, now: Instant) {
        let Some(running) = &self.running else { return };
        let snapshot = Arc::clone(&running.snapshots.borrow());
        let links: Vec<(&str, bool)> =
            snapshot.links.iter().map(|link| (link.name.as_str(), link.up)).collect();
        let due = self.comings.due(Seen { members: &snapshot.members, links: &links }, now);
        due.iter().for_each(|event| self.tell(event));
    }

    fn publish(&mut self) {
        let now = Instant::now();
        self.tell_comings(now);
        let snapshot = match &mut self.running {
            Some(running) => Arc::clone(&running.snapshots.borrow_and_update()),
            None => Arc::default(),
        };
        let before = Arc::clone(&self.published.borrow());
        let mut status = status::status(&self.desired, &snapshot, &before, self.calendar, now);
        if let Some(running) = &mut self.running
            && let Some(message) = running.hearing.look(&snapshot, now)
            && snapshot.gossip_problem.is_none()
            && !self.desired.layer2.nodes.is_empty()
        {
            let message = format!("{} {message}", running.gossip);
            status.warnings.push(status::of_the_whole(status::UNHEARD, message));
        }
        let starts = self.ending.is_some() && self.is_wanted();
        status.unsettled = starts || self.running.is_some() && !snapshot.settled;
        if let Some(failure) = &self.failure {
            status.problems.push(status::of_the_whole("Layer2Failed", failure.as_str()));
        }
        if self.options.enabled == Some(false) {
            for one in status.addresses.values_mut().filter(|one| one.protocol == Protocol::Layer2) {
                "Layer 2 is off on this node (--enable-layer2=false)".clone_into(&mut one.detail);
            }
        }
        if self.running.is_some() && self.options.key.is_none() && !self.desired.layer2.nodes.is_empty() {
            let message = "whoever reaches the gossip port can take addresses over: give all speakers the same secret \
                           (--secret, or MEMBER_LIST_SECRET from a Secret)";
            status.warnings.push(status::of_the_whole(status::UNAUTHENTICATED, message));
        }
        self.published.send_if_modified(|current| {
            let changed = **current != status;
            if changed {
                *current = Arc::new(status);
            }
            changed
        });
    }

    async fn stop(mut self, how: OnStop, within: Duration) {
        self.close(match how {
            OnStop::Withdraw => StopMode::Withdraw,
            OnStop::Restart => StopMode::Restart,
        });
        if let Some(ending) = self.ending.take()
            && !ending.handle.stop(ending.mode, within).await
        {
            tracing::warn!(?within, "the Layer 2 speaker had more to say than there was time for");
        }
    }
}
