//! The one owner of all state: takes changes in, decides, writes, announces.

mod telling;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use openelb_k8s::{
    announce::{Announcements, Announcer as _, AnnouncerStatus},
    index::Indexes,
    object::{Kind, Object, ObjectRef},
    plan::{self, Event, Settings, Write},
    problem::Problem,
    source::Pass,
    store::{StateDirectory, Store as _, StoreChange, StoreError},
};
use tokio::sync::watch;

use super::Options;
use crate::{
    adapter::{Announcers, bgp::status},
    decide,
    events::{EventLog, EventType},
    http::{
        Check, Readiness, ServerState,
        metrics::{Metrics, WriteResult},
    },
    notes::Notes,
};

/// After so long of writing the loop looks at signals and questions again.
const SLICE: Duration = Duration::from_millis(100);
/// The first pause after the store refused to work; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest one.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// All state and what is still to be done.
pub(super) struct Owner {
    settings: Settings,
    store: StateDirectory,
    announcer: Arc<Announcers>,
    metrics: Arc<Metrics>,
    readiness: watch::Sender<Readiness>,
    /// Changes with whatever the read API shows.
    revision: watch::Sender<u64>,
    indexes: Indexes,
    notes: Notes,
    events: EventLog,
    /// Every object that the indexes know.
    known: BTreeSet<ObjectRef>,
    /// What cannot be read of the manifests.
    problems: BTreeSet<Problem>,
    /// Objects that can be read, and whose spec cannot be used.
    unusable: BTreeSet<ObjectRef>,

    /// Looks at the manifests that the store has not taken in yet; `true`: the first after a start of the source.
    passes: VecDeque<(Pass, bool)>,
    next_pass_is_first: bool,
    /// The first complete lists were seen.
    listed: bool,
    /// The indexes may be behind the store: somebody else wrote.
    stale: bool,
    /// Addresses are to be decided.
    undecided: bool,
    /// Announcements are to be computed.
    unannounced: bool,
    /// Status is to be written, whatever the counters say.
    unreported: bool,
    writes: VecDeque<Write>,
    tell: Vec<Event>,
    decision_began: Option<Instant>,

    desired: Option<Announcements>,
    announced: Arc<AnnouncerStatus>,
    /// Pools that this node cannot announce, while nobody else does.
    hindered: BTreeMap<String, Hindrance>,
    /// The counters that were written last, and when.
    counted: Arc<AnnouncerStatus>,
    counted_at: Instant,
    server: ServerState,

    failure: Option<String>,
    retry_after: Duration,
    retry_at: Option<Instant>,
}

/// What keeps this node from an address that nobody answers for.
struct Hindrance {
    since: Instant,
    message: String,
    told: bool,
}

impl Hindrance {
    const fn new(since: Instant) -> Self {
        Self { since, message: String::new(), told: false }
    }
}

impl Owner {
    pub(super) fn new(
        options: &Options,
        store: StateDirectory,
        announcer: Arc<Announcers>,
        metrics: Arc<Metrics>,
        readiness: watch::Sender<Readiness>,
    ) -> Self {
        readiness.send_modify(|readiness| readiness.set(Check::Configuration, Ok(())));
        Self {
            settings: options.settings.clone(),
            store,
            announcer,
            metrics,
            readiness,
            revision: watch::Sender::new(0),
            indexes: Indexes::new(options.rules.clone()),
            notes: Notes::default(),
            events: EventLog::default(),
            known: BTreeSet::new(),
            problems: BTreeSet::new(),
            unusable: BTreeSet::new(),
            passes: VecDeque::new(),
            next_pass_is_first: true,
            listed: false,
            stale: false,
            undecided: false,
            unannounced: false,
            unreported: false,
            writes: VecDeque::new(),
            tell: Vec::new(),
            decision_began: None,
            desired: None,
            announced: Arc::default(),
            hindered: BTreeMap::new(),
            counted: Arc::default(),
            counted_at: Instant::now(),
            server: ServerState::default(),
            failure: None,
            retry_after: RETRY_MIN,
            retry_at: None,
        }
    }

    /// When [`work`](Self::work) is to be called; `None`: not before something happens.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.retry_at.is_some() {
            return self.retry_at;
        }
        if !self.passes.is_empty() {
            return Some(Instant::now());
        }
        if !self.listed {
            return None;
        }
        if self.stale || self.undecided || self.unannounced || self.unreported || !self.writes.is_empty() {
            return Some(Instant::now());
        }
        let report = (self.announced != self.counted).then(|| self.report_at());
        [report, self.hindrances_at()].into_iter().flatten().min()
    }

    /// The manifests are watched anew: the next pass holds all of them.
    pub(super) fn restart_source(&mut self) {
        self.next_pass_is_first = true;
    }

    /// Takes a look at the manifests in.
    pub(super) async fn take_in(&mut self, pass: Pass) {
        let first = std::mem::take(&mut self.next_pass_is_first);
        self.set_problems(&pass.problems);
        self.passes.push_back((pass, first));
        if self.retry_at.is_none() {
            self.work().await;
        }
    }

    /// Takes changes of the store in.
    pub(super) fn apply_changes(&mut self, changes: Vec<StoreChange>) {
        // Before the first pass the store is not what the manifests say.
        if self.listed {
            for change in changes {
                self.apply_change(self.current(change));
            }
        }
    }

    /// The change as it is now: it waited in a channel, and we may have written the object since.
    fn current(&self, change: StoreChange) -> StoreChange {
        let reference = match change {
            StoreChange::Apply(object) => object.reference(),
            StoreChange::Delete(reference) => reference,
            StoreChange::Problem(_) => return change,
        };
        self.store.get(&reference).map_or(StoreChange::Delete(reference), StoreChange::Apply)
    }

    /// Does what is due, for a bounded time.
    pub(super) async fn work(&mut self) {
        self.retry_at = None;
        if let Err(error) = self.try_work().await {
            let text = error.to_string();
            if self.failure.as_ref() != Some(&text) {
                tracing::error!(retry = ?self.retry_after, "{text}; it is tried again");
            }
            self.failure = Some(text);
            self.retry_at = Some(Instant::now() + self.retry_after);
            self.retry_after = (self.retry_after * 2).min(RETRY_MAX);
            // What was decided may be out of date by then.
            self.writes.clear();
            (self.stale, self.undecided, self.unreported) = (self.listed, true, true);
        } else {
            if self.failure.take().is_some() {
                tracing::info!("the state directory works again");
            }
            self.retry_after = RETRY_MIN;
        }
    }

    async fn try_work(&mut self) -> Result<(), StoreError> {
        while let Some((pass, first)) = self.passes.front().cloned() {
            let changes = self.store.take_in(&pass, first, Timestamp::now())?;
            self.passes.pop_front();
            for change in changes {
                self.apply_change(change);
            }
            if first && pass.complete {
                // Kinds that are not stored: what the manifests do not hold any more is gone.
                let passed_on = |reference: &&ObjectRef| {
                    !reference.kind.has_our_status() && !pass.held.contains(*reference)
                };
                let gone: Vec<ObjectRef> = self.known.iter().filter(passed_on).cloned().collect();
                for reference in gone {
                    self.apply_change(StoreChange::Delete(reference));
                }
            }
            if self.indexes.set_unreadable(&pass.unreadable) {
                (self.undecided, self.unreported) = (true, true);
                for reference in self.unusable.clone() {
                    self.tell_spec_problems(&reference);
                }
            }
            if !self.listed {
                self.listed = true;
                self.stale = true;
            }
        }
        if !self.listed {
            return Ok(());
        }
        if std::mem::take(&mut self.stale) {
            self.read_again().await.inspect_err(|_| self.stale = true)?;
            self.readiness.send_if_modified(|readiness| telling::set(readiness, Check::Lists, Ok(())));
        }
        self.announce();
        let now = Instant::now();
        if self.writes.is_empty() && std::mem::take(&mut self.undecided) {
            self.decision_began.get_or_insert(now);
            let decision = decide::decide(&self.indexes, Timestamp::now());
            self.writes = decision.writes.into();
            self.tell = decision.events;
        }
        if self.writes.is_empty()
            && (self.unreported || (now >= self.report_at() && self.announced != self.counted))
        {
            self.report();
        }
        self.execute(now + SLICE).await?;
        self.announce();
        self.tell_hindrances();
        if self.writes.is_empty() && !self.undecided && !self.stale {
            self.settled();
        }
        Ok(())
    }

    /// Writes until all is written or time is up.
    async fn execute(&mut self, until: Instant) -> Result<(), StoreError> {
        while let Some(write) = self.writes.pop_front() {
            let kind = write.target.kind.as_str();
            match self.store.write(&write).await {
                Ok(object) => {
                    self.metrics.count_write(kind, WriteResult::Ok);
                    self.apply_change(match object {
                        Some(object) => StoreChange::Apply(object),
                        None => StoreChange::Delete(write.target),
                    });
                }
                Err(error @ (StoreError::Conflict { .. } | StoreError::NotFound(_))) => {
                    // Somebody else was first: read, and decide again.
                    tracing::debug!(%error, "decided again");
                    self.metrics.count_write(kind, WriteResult::Conflict);
                    (self.stale, self.undecided, self.unreported) = (true, true, true);
                }
                Err(error) => {
                    self.metrics.count_write(kind, WriteResult::Error);
                    return Err(error);
                }
            }
            if Instant::now() >= until {
                break;
            }
        }
        if self.writes.is_empty() && !self.stale {
            for event in std::mem::take(&mut self.tell) {
                let kind = if event.warning { EventType::Warning } else { EventType::Normal };
                self.event(kind, &event.regarding, "address", event.reason, &event.message);
            }
        }
        Ok(())
    }

    /// Reads the whole store.
    async fn read_again(&mut self) -> Result<(), StoreError> {
        // What it brings is in the list.
        self.store.look()?;
        let objects = self.store.list().await?;
        let present: BTreeSet<ObjectRef> = objects.iter().map(Object::reference).collect();
        let stored = |reference: &&ObjectRef| reference.kind.has_our_status() && !present.contains(reference);
        let gone: Vec<ObjectRef> = self.known.iter().filter(stored).cloned().collect();
        for reference in gone {
            self.apply_change(StoreChange::Delete(reference));
        }
        for object in objects {
            self.apply_change(StoreChange::Apply(object));
        }
        Ok(())
    }

    fn apply_change(&mut self, change: StoreChange) {
        match change {
            StoreChange::Apply(object) => {
                let reference = object.reference();
                if self.indexes.apply(&object) {
                    self.unannounced = true;
                    self.undecided |= is_decided_on(reference.kind);
                }
                if reference.kind == Kind::Node {
                    // No kubelet has to look after Pods first.
                    self.indexes.judge(&reference.name);
                }
                self.notes.apply(&object);
                self.tell_spec_problems(&reference);
                self.unreported |= reference.kind.is_ours();
                self.known.insert(reference);
            }
            StoreChange::Delete(reference) => {
                if self.indexes.delete(&reference) {
                    self.unannounced = true;
                    self.undecided |= is_decided_on(reference.kind);
                }
                self.notes.delete(&reference);
                self.events.forget(&reference);
                self.unusable.remove(&reference);
                self.known.remove(&reference);
            }
            StoreChange::Problem(problem) => self.tell_problem(&problem),
        }
    }

    /// Hands the whole set of announcements over, if it changed.
    fn announce(&mut self) {
        if !std::mem::take(&mut self.unannounced) && self.desired.is_some() {
            return;
        }
        let node = ObjectRef::cluster(Kind::Node, self.settings.node_name.clone());
        if self.indexes.nodes.get(&self.settings.node_name).is_none() {
            let message =
                "no manifest holds the Node that --node-name names; this host announces nothing without it";
            self.event(EventType::Warning, &node, "present", "NodeNotFound", message);
        } else {
            self.events.clear(&node, "present");
        }
        let desired = plan::announcement::plan(&self.indexes, &self.settings);
        if self.desired.as_ref() != Some(&desired) {
            tracing::debug!(addresses = desired.addresses.len(), "announcements change");
            self.announcer.set_desired(desired.clone());
            self.desired = Some(desired);
            self.find_hindrances();
        }
    }

    /// When counters are due to be written.
    fn report_at(&self) -> Instant {
        self.counted_at + status::COUNTERS_EVERY
    }

    /// Queues writes of status: sessions, and settings without effect.
    fn report(&mut self) {
        let now = Timestamp::now();
        self.unreported = false;
        // Counters alone wait for their turn.
        let counters = Instant::now() >= self.report_at();
        if counters {
            self.counted_at = Instant::now();
            self.counted = Arc::clone(&self.announced);
        }
        self.tell_notes();
        let plan = if counters { plan::status::bgp_counter_writes } else { plan::status::bgp_writes };
        let mut writes = plan(&self.indexes, &self.settings, &self.announced, now);
        // One write of an object at a time: the second would be a conflict with the first.
        let targets: BTreeSet<ObjectRef> = writes.iter().map(|write| write.target.clone()).collect();
        for write in self.notes.writes(&self.indexes.layer2, now) {
            if targets.contains(&write.target) {
                self.unreported = true;
            } else {
                writes.push(write);
            }
        }
        self.writes = writes.into();
    }
}

/// Do addresses depend on objects of this kind?
fn is_decided_on(kind: Kind) -> bool {
    matches!(kind, Kind::Eip | Kind::Service | Kind::Node | Kind::Namespace)
}
