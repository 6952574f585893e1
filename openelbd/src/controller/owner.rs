//! The one owner of all state: takes changes in, decides, hands writes out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    future::pending,
    time::{Duration, Instant},
};

use std::sync::Arc;

use jiff::Timestamp;
use openelb_k8s::{
    announce::AnnouncerStatus,
    index::Indexes,
    names::{condition, reason},
    object::{Kind, Object, ObjectRef},
    plan::{Event, Write, allocation::Planner, speaker_status::aggregate},
    problem::Problem,
    source::kube::{Backoff, Change, Versions, version},
    store::{ApiServer, StoreError},
};
use tokio::{
    sync::watch,
    task::{Id, JoinSet},
};

use super::{
    DECIDED_ON, Options,
    departed::Departed,
    fences::{Fences, Record},
    writer::{self, Done, Ended, Job},
};
use crate::{
    api_events::Reporter,
    events::{EventLog, EventType, bad_spec},
    http::{
        Check, Readiness, ServerState,
        metrics::{Metrics, WriteResult},
        read_api::Snapshot,
    },
    notes::Notes,
    snapshot::View,
};

mod contest;
mod gate;
mod refusals;

use contest::Contests;
use refusals::{Refused, is_as_decided};

#[cfg(test)]
mod tests;

/// While writes run, deciding takes at most the fifth part of the time.
const DECIDING_SHARE: u32 = 4;
/// But it does not wait longer than this.
const DECIDE_WITHIN: Duration = Duration::from_millis(250);
/// What our own writes led to is as it was decided, and leads to another decision when they are done, or after this long.
const ECHO_WITHIN: Duration = Duration::from_secs(1);
/// What `/metrics` and the read API show is this old at most.
const SHOW_EVERY: Duration = Duration::from_millis(500);
/// Status of sessions and settings is looked at this often at most.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// All state and what is still to be done.
pub(super) struct Owner {
    store: ApiServer,
    reporter: Reporter,
    metrics: Arc<Metrics>,
    readiness: watch::Sender<Readiness>,
    /// Changes with whatever the read API shows.
    revision: watch::Sender<u64>,
    indexes: Indexes,
    planner: Planner,
    versions: Versions,
    notes: Notes,
    events: EventLog,
    announced: AnnouncerStatus,
    unreadable: BTreeMap<ObjectRef, Problem>,
    /// Objects that can be read, and whose spec cannot be used.
    unusable: BTreeSet<ObjectRef>,
    /// What is not listed yet.
    unlisted: BTreeSet<Kind>,
    /// What of sessions is not listed yet.
    unlisted_sessions: BTreeSet<Kind>,
    leading: bool,

    /// Addresses are to be decided.
    undecided: bool,
    /// Nothing but what we wrote ourselves has changed since the last decision, if anything.
    echoed: bool,
    /// Status of sessions and settings is to be looked at.
    unreported: bool,
    reported_at: Option<Instant>,
    decided_at: Option<Instant>,
    decision_took: Duration,
    decision_began: Option<Instant>,
    queue: VecDeque<Write>,
    writers: usize,
    tasks: JoinSet<Ended>,
    in_flight: HashMap<Id, ObjectRef>,
    /// Objects that went while writes were under way.
    departed: Departed,
    /// Records that a write which is under way commits or confirms, by Eip.
    committing: HashMap<String, BTreeSet<Record>>,
    fences: Fences,
    /// Kinds that are looked at as a whole.
    surveying: BTreeSet<Kind>,
    /// To be told when the write on that object is done: decided.
    tell: HashMap<ObjectRef, Vec<Event>>,
    /// The same of writes that are under way: the watch may show what they did before they are answered.
    telling: HashMap<ObjectRef, Vec<Event>>,
    refused: HashMap<ObjectRef, Refused>,
    contests: Contests,
    /// How many writes succeeded.
    successes: u64,
    /// Objects on which the last write failed as if the API server were not there, and how many had succeeded by then.
    unavailable: HashMap<ObjectRef, u64>,
    /// Objects on which the last write conflicted with nobody.
    conflicts: HashSet<ObjectRef>,
    /// A write was refused for want of rights, and none succeeded since.
    forbidden: bool,
    /// The API server does not answer: nothing is sent before then.
    paused_until: Option<Instant>,
    pause: Backoff,
    unshown: bool,
    shown_at: Option<Instant>,
}

impl Owner {
    pub(super) fn new(
        options: &Options,
        store: ApiServer,
        versions: Versions,
        reporter: Reporter,
        metrics: Arc<Metrics>,
        readiness: watch::Sender<Readiness>,
    ) -> Self {
        readiness.send_modify(|readiness| {
            readiness.set(Check::Configuration, Ok(()));
            readiness.set(Check::Membership, Ok(()));
        });
        Self {
            store,
            reporter,
            metrics,
            readiness,
            revision: watch::Sender::new(0),
            indexes: Indexes::new(options.rules.clone()),
            planner: Planner::new(),
            versions,
            notes: Notes::default(),
            events: EventLog::default(),
            announced: AnnouncerStatus::default(),
            unreadable: BTreeMap::new(),
            unusable: BTreeSet::new(),
            unlisted: DECIDED_ON.into(),
            unlisted_sessions: [Kind::BgpConf, Kind::BgpPeer, Kind::SpeakerStatus].into(),
            leading: false,
            undecided: true,
            echoed: false,
            unreported: true,
            reported_at: None,
            decided_at: None,
            decision_took: Duration::ZERO,
            decision_began: None,
            queue: VecDeque::new(),
            writers: options.writers.max(1),
            tasks: JoinSet::new(),
            in_flight: HashMap::new(),
            departed: Departed::default(),
            committing: HashMap::new(),
            fences: Fences::default(),
            surveying: BTreeSet::new(),
            tell: HashMap::new(),
            telling: HashMap::new(),
            refused: HashMap::new(),
            contests: Contests::default(),
            successes: 0,
            unavailable: HashMap::new(),
            conflicts: HashSet::new(),
            forbidden: false,
            paused_until: None,
            pause: Backoff::default(),
            unshown: true,
            shown_at: None,
        }
    }

    /// When [`work`](Self::work) is to be called; `None`: not before something happens.
    pub(super) fn due(&self) -> Option<Instant> {
        let now = Instant::now();
        let show = self.unshown.then(|| self.shown_at.map_or(now, |at| at + SHOW_EVERY));
        if !self.leading || !self.unlisted.is_empty() {
            return show;
        }
        let decide = self.has_to_decide().then(|| self.decide_at(now));
        let report = (self.unreported && self.unreported_can_run()).then(|| self.report_at(now));
        let can_send = !self.queue.is_empty() && self.tasks.len() < self.writers;
        let send = can_send.then(|| self.paused_until.unwrap_or(now));
        [show, decide, report, send, self.refused_until(), self.contests.due()].into_iter().flatten().min()
    }

    fn has_to_decide(&self) -> bool {
        self.undecided || self.echoed
    }

    /// At once if nothing is under way, else when enough time has passed since the last decision.
    fn decide_at(&self, now: Instant) -> Instant {
        if let Some(until) = self.paused_until {
            return until;
        }
        match self.decided_at {
            Some(at) if self.undecided && !self.tasks.is_empty() => {
                at + (self.decision_took * DECIDING_SHARE).min(DECIDE_WITHIN)
            }
            Some(at) if !self.undecided && self.is_writing_still() => at + ECHO_WITHIN,
            _ => now,
        }
    }

    /// Is anything of the last decision still to be sent or answered?
    fn is_writing_still(&self) -> bool {
        !self.tasks.is_empty() || !self.queue.is_empty()
    }

    fn report_at(&self, now: Instant) -> Instant {
        self.reported_at.map_or(now, |at| at + REPORT_EVERY)
    }

    /// Status comes after addresses.
    fn unreported_can_run(&self) -> bool {
        !self.has_to_decide() && self.queue.is_empty()
    }

    /// Does what is due.
    pub(super) fn work(&mut self) {
        let now = Instant::now();
        if self.leading && self.unlisted.is_empty() {
            if self.paused_until.is_some_and(|until| until <= now) {
                self.paused_until = None;
            }
            if self.take_refused_due(now) {
                (self.undecided, self.unreported) = (true, true);
            }
            self.undecided |= self.contests.take_due(now);
            if self.has_to_decide() && self.decide_at(now) <= now {
                self.decide(now);
            }
            if self.unreported && self.unreported_can_run() && self.report_at(now) <= now {
                self.report(now);
            }
            self.send();
            // Addresses first: what is told about them can wait.
            self.reporter.hold(self.queue.len() > self.writers);
            if !self.has_to_decide() && self.queue.is_empty() && self.tasks.is_empty() {
                self.settled();
            }
        }
        if self.unshown && self.shown_at.is_none_or(|at| at + SHOW_EVERY <= now) {
            self.show(now);
        }
    }

    /// Decides about addresses; what was decided before and is not sent yet is decided again.
    fn decide(&mut self, now: Instant) {
        (self.undecided, self.echoed) = (false, false);
        self.decision_began.get_or_insert(now);
        self.fences.decide();
        let allocation = self.planner.plan(&mut self.indexes, Timestamp::now());
        // Commits first: others wait for them.
        let (commits, publications): (Vec<Write>, Vec<Write>) =
            allocation.writes.into_iter().partition(|write| write.target.kind == Kind::Eip);
        self.forget_moot(&commits, &publications, now);
        self.tell.clear();
        for event in allocation.events {
            self.tell.entry(event.regarding.clone()).or_default().push(event);
        }
        self.replace_queue(commits.into_iter().chain(publications));
        self.decided_at = Some(Instant::now());
        self.decision_took = now.elapsed();
    }

    fn replace_queue(&mut self, writes: impl Iterator<Item = Write>) {
        let now = Instant::now();
        let busy: BTreeSet<&ObjectRef> = self.in_flight.values().collect();
        let may = |write: &Write| {
            // The end of what is under way leads to another decision.
            !busy.contains(&write.target) && self.may_write(&write.target, now)
        };
        self.queue = writes.filter(may).collect();
    }

    /// Queues writes of status: what has no effect, sessions.
    fn report(&mut self, now: Instant) {
        self.unreported = false;
        self.reported_at = Some(now);
        self.tell_notes();
        let mut targets = BTreeSet::new();
        let now = Timestamp::now();
        let sessions =
            if self.unlisted_sessions.is_empty() { aggregate(&self.indexes, now) } else { Vec::new() };
        let writes: Vec<Write> = sessions
            .into_iter()
            .chain(self.notes.writes(&self.indexes.layer2, now))
            .filter(|write| {
                let first = targets.insert(write.target.clone());
                // One write of an object at a time: the second would be a conflict with the first.
                self.unreported |= !first;
                first
            })
            .collect();
        if self.unlisted_sessions.is_empty() {
            self.forget_moot_reports(&targets);
        }
        self.replace_queue(writes.into_iter());
    }

    /// Starts writes while there are writers.
    fn send(&mut self) {
        if self.paused_until.is_some() {
            return;
        }
        let now = Instant::now();
        while self.tasks.len() < self.writers {
            let Some(write) = self.queue.pop_front() else { break };
            if self.is_held_back(&write) || self.is_contested(&write, now) {
                // It is decided again when what it waits for is done.
                continue;
            }
            self.start(write);
        }
        for eip in self.fences.to_confirm() {
            let may = self.may_write(&ObjectRef::cluster(Kind::Eip, eip.as_str()), now);
            if may && self.tasks.len() < self.writers && !self.is_writing(&eip) {
                self.confirm(&eip);
            }
        }
    }

    fn start(&mut self, write: Write) {
        let target = write.target.clone();
        let confirm = if target.kind == Kind::Eip {
            let mut records = self.fences.confirmed_by(&target.name);
            let (joined, released) = self.moved_by(&write);
            records.extend(joined);
            self.committing.insert(target.name.clone(), records);
            released
        } else {
            Vec::new()
        };
        if let Some(events) = self.tell.remove(&target) {
            self.telling.insert(target.clone(), events);
        }
        let task = self.tasks.spawn(writer::run(self.store.clone(), Job { confirm, write }));
        self.in_flight.insert(task.id(), target);
    }

    /// The next write that ends; never, while none is under way.
    pub(super) async fn finished(&mut self) -> Option<Ended> {
        match self.tasks.join_next_with_id().await {
            None => pending().await,
            Some(Ok((id, ended))) => {
                self.in_flight.remove(&id);
                Some(ended)
            }
            Some(Err(error)) => {
                // Its write may have taken effect; the watch will tell.
                tracing::error!(%error, "a write ended abnormally; it is decided again");
                match self.in_flight.remove(&error.id()) {
                    Some(target) => self.written(&target, None),
                    None => self.surveying.clear(),
                }
                self.undecided = true;
                None
            }
        }
    }

    /// Takes in what has ended.
    pub(super) fn take_ended(&mut self, ended: Ended) {
        let as_decided = match ended {
            Ended::Write(done) => self.take_done(done),
            Ended::Survey(kind, least, found) => {
                self.take_survey(kind, least, found);
                false
            }
        };
        (self.echoed, self.unreported) = (true, true);
        self.undecided |= !as_decided;
        if self.tasks.is_empty() {
            self.departed.clear();
        }
        self.work();
    }

    /// The API server does not answer: those that failed together wait together.
    fn pause(&mut self, error: &StoreError) {
        let asked = match error {
            StoreError::Unavailable { retry_after, .. } => *retry_after,
            _ => Duration::ZERO,
        };
        if self.paused_until.is_none() {
            let pause = self.pause.next_pause().max(asked);
            tracing::warn!(%error, again_in = ?pause, "a request failed");
            self.paused_until = Some(Instant::now() + pause);
        }
    }

    /// Takes in what came of a write; whether that is what was decided, and nobody waits for it.
    fn take_done(&mut self, done: Done) -> bool {
        let Done { write, result, read } = done;
        let made = match &result {
            Ok(Some(object)) => Some(version(object)),
            Ok(None) => Some(0),
            Err(_) => None,
        };
        self.written(&write.target, made);
        let unchanged = matches!(result, Err(StoreError::Conflict { .. })) && is_as_decided(&write, &read);
        // Once may be chance.
        let unchanged = if unchanged {
            !self.conflicts.insert(write.target.clone())
        } else {
            self.conflicts.remove(&write.target);
            false
        };
        for (reference, found) in read {
            match found {
                Some(object) if self.departed.covers(&object) => {}
                Some(object) => {
                    self.versions.set(&object);
                    self.apply(&object, true);
                }
                None => {
                    self.versions.remove(&reference);
                    self.delete(&reference);
                }
            }
        }
        let kind = write.target.kind.as_str();
        // Publications wait for what is committed on an Eip.
        let as_decided = result.is_ok() && write.target.kind != Kind::Eip;
        match result {
            Ok(object) => {
                self.metrics.count_write(kind, WriteResult::Ok);
                self.pause.reset();
                self.successes += 1;
                self.unavailable.remove(&write.target);
                self.recall_forbidden();
                if write.target.kind == Kind::Service {
                    self.note_turn(&write.target);
                }
                if self.refused.remove(&write.target).is_some() {
                    self.forget_refused(&write);
                }
                match object {
                    Some(object) if self.departed.covers(&object) => {}
                    Some(object) => {
                        if self.versions.admit_object(&object) {
                            self.apply(&object, false);
                        }
                    }
                    None => {
                        self.delete(&write.target);
                    }
                }
            }
            Err(StoreError::Conflict { .. }) if unchanged => {
                self.metrics.count_write(kind, WriteResult::Error);
                let cause = "the API server says that it conflicts (409), and nobody else wrote on it: look for a \
                             webhook that denies it";
                self.refuse(&write, cause);
            }
            Err(StoreError::Conflict { .. } | StoreError::NotFound(_)) => {
                self.metrics.count_write(kind, WriteResult::Conflict);
                if matches!(result, Err(StoreError::NotFound(_))) {
                    self.versions.remove(&write.target);
                    self.delete(&write.target);
                }
            }
            // Who asks for a pause is asked by all.
            Err(StoreError::Unavailable { cause, retry_after })
                if retry_after.is_zero() && self.fails_alone(&write.target) =>
            {
                self.metrics.count_write(kind, WriteResult::Error);
                self.refuse(&write, &cause);
            }
            Err(error @ (StoreError::Unavailable { .. } | StoreError::Unauthenticated { .. })) => {
                self.metrics.count_write(kind, WriteResult::Error);
                self.pause(&error);
            }
            Err(error) => {
                self.metrics.count_write(kind, WriteResult::Error);
                self.set_refused(&write.target, &error);
                self.tell_refused(&write, &error);
            }
        }
        as_decided
    }

    /// Takes changes of the API server in.
    pub(super) fn take_in(&mut self, changes: Vec<Change>) {
        for change in changes {
            if !self.versions.admit(&change) {
                continue;
            }
            match change {
                Change::Apply(object) => self.apply(&object, true),
                Change::Delete { reference, version, .. } => {
                    if !self.tasks.is_empty() {
                        self.departed.went(reference.clone(), version);
                    }
                    self.delete(&reference);
                }
                Change::Reached(Kind::Service, version) => self.fences.services_reached(version),
                Change::Reached(Kind::Eip, version) => self.fences.eips_reached(version),
                Change::Reached(..) => {}
                Change::Unreadable(reference, problem) => {
                    let message = problem.to_string();
                    let reason = bad_spec(reference.kind);
                    self.event(EventType::Warning, &reference, condition::READY, reason, &message);
                    self.unreadable.insert(reference, problem);
                    self.show_unreadable();
                }
                Change::Listed(kind) => {
                    self.unlisted.remove(&kind);
                    self.unreported |= self.unlisted_sessions.remove(&kind);
                    if self.unlisted.is_empty() {
                        self.check(Check::Lists, Ok(()));
                        if !self.leading {
                            // A replica that waits has nothing to decide.
                            self.check(Check::Decisions, Ok(()));
                        }
                    }
                }
            }
        }
        if self.leading && self.unlisted.is_empty() {
            self.work();
        }
    }

    fn show_unreadable(&mut self) {
        let all: Vec<(ObjectRef, Problem)> =
            self.unreadable.iter().map(|(reference, problem)| (reference.clone(), problem.clone())).collect();
        if self.indexes.set_unreadable(&all) {
            (self.undecided, self.unreported) = (true, true);
        }
    }

    /// Takes in a version of an object; `foreign`: not as the answer to a write of ours.
    fn apply(&mut self, object: &Object, foreign: bool) {
        let reference = object.reference();
        if self.unreadable.remove(&reference).is_some() {
            self.show_unreadable();
        }
        let departures = self.indexes.pools.departures(&reference.name);
        let uid = |indexes: &Indexes| indexes.services.get(&reference.key()).map(|view| view.uid.clone());
        let before = if reference.kind == Kind::Service { uid(&self.indexes) } else { None };
        if self.indexes.apply(object) {
            // The watch may be faster than the answer. If it is more than an echo, that write fails.
            let echo = reference.kind == Kind::Service
                && (!foreign || self.in_flight.values().any(|target| *target == reference));
            self.echoed |= echo;
            self.undecided |= !echo && DECIDED_ON.contains(&reference.kind);
            self.unshown = true;
        }
        match reference.kind {
            // At the start nobody knows what it lost before.
            Kind::Eip
                if foreign
                    && (self.unlisted.contains(&Kind::Eip)
                        || self.indexes.pools.departures(&reference.name) != departures) =>
            {
                let writing = self.is_writing(&reference.name);
                self.fences.lost(&reference.name, version(object), writing);
            }
            Kind::Service => {
                let view = self.indexes.services.get(&reference.key());
                if view.is_none_or(|view| !view.ours || before.is_some_and(|before| before != view.uid)) {
                    self.fences.forget(&reference.key());
                    self.contests.forget(&reference);
                }
            }
            _ => {}
        }
        if reference.kind.is_ours() {
            self.notes.apply(object);
            self.unreported = true;
            self.tell_spec_problems(&reference);
        }
    }

    fn delete(&mut self, reference: &ObjectRef) {
        if self.unreadable.remove(reference).is_some() {
            self.show_unreadable();
        }
        match reference.kind {
            Kind::Eip => self.fences.forget_eip(&reference.name),
            Kind::Service => self.fences.forget(&reference.key()),
            _ => {}
        }
        if self.indexes.delete(reference) {
            self.unreported |= matches!(reference.kind, Kind::SpeakerStatus | Kind::Node);
            self.undecided |= DECIDED_ON.contains(&reference.kind);
            self.unshown = true;
        }
        self.notes.delete(reference);
        self.events.forget(reference);
        self.unusable.remove(reference);
        self.refused.remove(reference);
        self.contests.forget(reference);
        self.unavailable.remove(reference);
        self.conflicts.remove(reference);
    }

    /// Whether this replica writes.
    pub(super) fn set_leading(&mut self, leading: bool) {
        if std::mem::replace(&mut self.leading, leading) == leading {
            return;
        }
        self.queue.clear();
        self.refused.clear();
        self.unavailable.clear();
        self.conflicts.clear();
        self.contests.clear();
        self.fences.leader_changes();
        self.paused_until = None;
        (self.undecided, self.unreported, self.unshown) = (true, true, true);
        if leading {
            // What was decided long ago says nothing about now.
            self.planner = Planner::new();
        } else {
            self.decision_began = None;
        }
        self.work();
    }

    /// Waits until all writes that have begun are done.
    pub(super) async fn drain(&mut self) {
        while !self.tasks.is_empty() {
            if let Some(ended) = self.finished().await {
                self.take_ended(ended);
            }
        }
    }

    /// Takes the HTTP server's state in.
    pub(super) fn set_server(&mut self, state: &ServerState) {
        let result = match state {
            ServerState::Starting => Err("not open yet".to_owned()),
            ServerState::Off | ServerState::Listening(_) => Ok(()),
            ServerState::Failed(error) => Err(error.clone()),
        };
        self.check(Check::Listeners, result);
    }

    /// Which kinds cannot be watched, and why.
    pub(super) fn set_failing(&mut self, failing: &BTreeMap<Kind, String>) {
        // Once everything was listed, what is known serves on.
        if let Some((kind, error)) = failing.iter().find(|(kind, _)| self.unlisted.contains(kind)) {
            self.check(Check::Lists, Err(format!("{}: {error}", kind.plural())));
        }
    }

    /// Changes whenever [`snapshot`](Self::snapshot) may have another answer.
    pub(super) fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Everything that is known now.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.view().snapshot()
    }

    fn view(&self) -> View<'_> {
        View {
            indexes: &self.indexes,
            node_name: "",
            announced: &self.announced,
            desired: None,
            events: &self.events,
        }
    }

    fn show(&mut self, now: Instant) {
        (self.unshown, self.shown_at) = (false, Some(now));
        let problems = self.unreadable.len() + self.unusable.len();
        let ready = self.readiness.borrow().is_ready();
        self.metrics.set_inventory(self.view().inventory(problems, ready));
        self.revision.send_modify(|revision| *revision = revision.wrapping_add(1));
    }

    /// Nothing is left to do.
    fn settled(&mut self) {
        if let Some(began) = self.decision_began.take() {
            self.metrics.count_decision(began.elapsed());
        }
        self.check(Check::Decisions, Ok(()));
    }

    fn check(&mut self, check: Check, result: Result<(), String>) {
        self.readiness.send_if_modified(|readiness| {
            let before = readiness.clone();
            readiness.set(check, result);
            *readiness != before
        });
        self.unshown = true;
    }

    fn event(&mut self, kind: EventType, object: &ObjectRef, topic: &str, reason: &str, message: &str) {
        if self.events.tell(kind, object, topic, reason, message) {
            self.metrics.count_event(kind.as_str(), reason);
            self.unshown = true;
            if self.leading {
                let uid = match object.kind {
                    Kind::Service => self.indexes.services.get(&object.key()).map(|view| view.uid.as_str()),
                    Kind::Eip => self.indexes.pools.get(&object.name).map(|view| view.uid.as_str()),
                    _ => None,
                };
                self.reporter.report(kind, object, uid, reason, message);
            }
        }
    }

    /// An object that can be read, and whose spec cannot be used, is named in the log as well as in its condition.
    fn tell_spec_problems(&mut self, object: &ObjectRef) {
        let message = openelb_k8s::plan::status::explain(self.indexes.spec_problems(object));
        if !message.is_empty() {
            self.unusable.insert(object.clone());
            self.event(EventType::Warning, object, condition::READY, bad_spec(object.kind), &message);
        } else if self.unusable.remove(object) && self.events.clear(object, condition::READY) {
            tracing::info!(%object, "mended");
        }
    }

    /// Tells which settings have no effect, once each.
    fn tell_notes(&mut self) {
        let told: Vec<(ObjectRef, Option<String>)> = self
            .notes
            .messages()
            .map(|(object, message)| (object.clone(), message.map(str::to_owned)))
            .collect();
        for (object, message) in told {
            match message {
                Some(message) => {
                    let topic = condition::SETTINGS_APPLIED;
                    self.event(EventType::Warning, &object, topic, reason::NOT_SUPPORTED, &message);
                }
                None => {
                    self.events.clear(&object, condition::SETTINGS_APPLIED);
                }
            }
        }
    }
}
