//! The one owner of all state: takes changes in, decides what this node announces, says what it does.

mod telling;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use openelb_k8s::{
    announce::{Announcements, Announcer, AnnouncerStatus},
    crd::SpeakerStatusStatus,
    index::{Indexes, NodeView, services::TrafficPolicy},
    names::{condition, event, reason},
    object::{Kind, NamespacedName, Object, ObjectRef},
    plan::{self, Settings, speaker_status, status::Wanted},
    problem::Problem,
    source::kube::{Change, Selection, Watch},
};
use tokio::sync::watch;

use super::{
    Options, checkpoint, connected,
    data_plane::Health,
    own_status::{self, Wanted as WantedStatus},
    secrets::Secrets,
};
use crate::{
    api_events::Reporter,
    events::{EventLog, EventType},
    http::{Check, Readiness, ServerState, metrics::Metrics},
};

/// Without complete lists for so long after the start, what the checkpoint holds is announced.
const STALE_AFTER: Duration = Duration::from_secs(5);
/// The data plane's first word is waited for so long, so that a restart does not begin with a withdrawal.
const DATA_PLANE_WITHIN: Duration = Duration::from_secs(3);
/// While much changes, deciding takes at most the fifth part of the time.
const DECIDING_SHARE: u32 = 4;
/// But it does not wait longer than this.
const DECIDE_WITHIN: Duration = Duration::from_millis(250);
/// What `/metrics`, the read API and the SpeakerStatus show is this old at most.
const SHOW_EVERY: Duration = Duration::from_millis(500);
/// The checkpoint is written at most this often.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// What is looked at without being told: connected prefixes, warnings about the whole cluster.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A Node that is Ready again says within this time how its Pods are: a kubelet says it of the Node first, and a probe of
/// a Pod takes ten seconds unless told otherwise.
const RETURN_WITHIN: Duration = Duration::from_secs(30);

/// What must be listed before anything is decided.
const REQUIRED: [Kind; 7] = [
    Kind::Service,
    Kind::Eip,
    Kind::Node,
    Kind::BgpConf,
    Kind::BgpPeer,
    Kind::Layer2Conf,
    Kind::SpeakerStatus,
];

/// What the owner works with.
pub(super) struct Parts {
    pub(super) announcer: Arc<dyn Announcer>,
    pub(super) watches: Watch,
    pub(super) secrets: Secrets,
    pub(super) own_status: watch::Sender<Option<own_status::Wanted>>,
    pub(super) reporter: Reporter,
    pub(super) metrics: Arc<Metrics>,
    pub(super) readiness: watch::Sender<Readiness>,
    pub(super) data_plane: Option<Health>,
}

/// All state and what is still to be done.
pub(super) struct Owner {
    parts: Parts,
    settings: Settings,
    indexes: Indexes,
    specs: checkpoint::Specs,
    events: EventLog,
    revision: watch::Sender<u64>,
    started: Instant,
    /// What is not listed yet.
    unlisted: BTreeSet<Kind>,
    failing: BTreeMap<Kind, String>,
    unreadable: BTreeMap<ObjectRef, Problem>,
    unusable: BTreeSet<ObjectRef>,
    server: ServerState,

    /// What the checkpoint held when the program started, until the API server says better.
    remembered: Option<(checkpoint::Header, Indexes)>,
    /// What is announced comes from there.
    stale: bool,
    checkpoint: Option<PathBuf>,
    /// A digest of what is in the file.
    saved: Option<u64>,
    unsaved: bool,
    saved_at: Option<Instant>,
    saving: Option<tokio::task::JoinHandle<()>>,

    undecided: bool,
    /// Nothing has changed since the last decision but Services that published or publish these; `None`: anything.
    touched: Option<BTreeSet<IpAddr>>,
    decided_at: Option<Instant>,
    decision_took: Duration,
    desired: Option<Announcements>,
    announced: Arc<AnnouncerStatus>,

    /// The SpeakerStatus that was handed to the writer last.
    said: Option<SpeakerStatusStatus>,
    made: u64,
    unshown: bool,
    shown_at: Option<Instant>,
    looked_at: Option<Instant>,
    /// Nodes that are Ready again, by which return, and until when what is said of their Pods may be from before.
    returned: BTreeMap<String, (u64, Instant)>,
    /// Services that are announced; `None`: nothing was settled yet, so that nothing is news.
    announced_services: Option<BTreeSet<NamespacedName>>,
    /// How the addresses of each pool are to be announced; `None`: as above.
    arranged: Option<BTreeMap<String, String>>,
    /// Pools that this node cannot announce, while nobody else does.
    hindered: BTreeSet<String>,
}

impl Owner {
    /// `remembered` is what the checkpoint holds.
    pub(super) fn new(
        options: &Options,
        remembered: Option<(checkpoint::Header, Indexes)>,
        parts: Parts,
    ) -> Self {
        parts.readiness.send_modify(|readiness| readiness.set(Check::Configuration, Ok(())));
        let settings = Settings { connected: connected::prefixes(), ..options.settings.clone() };
        Self {
            settings,
            indexes: Indexes::new(options.rules.clone()),
            specs: checkpoint::Specs::default(),
            events: EventLog::default(),
            revision: watch::Sender::new(0),
            started: Instant::now(),
            unlisted: REQUIRED.into(),
            failing: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            unusable: BTreeSet::new(),
            server: ServerState::default(),
            remembered,
            stale: false,
            checkpoint: options.checkpoint.clone(),
            saved: None,
            unsaved: false,
            saved_at: None,
            saving: None,
            undecided: true,
            touched: None,
            decided_at: None,
            decision_took: Duration::ZERO,
            desired: None,
            announced: Arc::default(),
            said: None,
            made: 0,
            unshown: true,
            shown_at: None,
            looked_at: None,
            returned: BTreeMap::new(),
            announced_services: None,
            arranged: None,
            hindered: BTreeSet::new(),
            parts,
        }
    }

    /// Is everything there that a decision needs? Where no SpeakerStatus can be had, it is decided without; and a
    /// speaker that announces goes on while it waits for the EndpointSlices of its first `Local` Service.
    fn is_listed(&self) -> bool {
        let announces = self.desired.is_some() && !self.stale && !self.endpoints_matter();
        self.unlisted.iter().all(|kind| self.is_spared(*kind) || *kind == Kind::EndpointSlice && announces)
    }

    /// Is everything there that can be had?
    fn is_complete(&self) -> bool {
        self.unlisted.iter().all(|kind| self.is_spared(*kind))
    }

    fn is_spared(&self, kind: Kind) -> bool {
        kind == Kind::SpeakerStatus && self.failing.contains_key(&kind)
    }

    /// When [`work`](Self::work) is to be called; `None`: not before something happens.
    pub(super) fn due(&self) -> Option<Instant> {
        let now = Instant::now();
        let show = self.unshown.then(|| self.shown_at.map_or(now, |at| at + SHOW_EVERY));
        if !self.is_listed() {
            let waits = self.desired.is_none() && self.remembered.is_some();
            let stale = waits.then(|| self.started + STALE_AFTER);
            return [show, stale].into_iter().flatten().min();
        }
        let decide = self.undecided.then(|| self.decide_at(now));
        let save = (self.unsaved && self.checkpoint.is_some() && self.is_complete())
            .then(|| self.saved_at.map_or(now, |at| at + SAVE_EVERY));
        let look = self.looked_at.map_or(now, |at| at + LOOK_EVERY);
        let judge = self.returned.values().map(|(_, at)| *at).min();
        [show, decide, save, Some(look), judge].into_iter().flatten().min()
    }

    fn decide_at(&self, now: Instant) -> Instant {
        if self.parts.data_plane.is_none() && self.started + DATA_PLANE_WITHIN > now {
            return self.started + DATA_PLANE_WITHIN;
        }
        let pause = (self.decision_took * DECIDING_SHARE).min(DECIDE_WITHIN);
        self.decided_at.map_or(now, |at| at + pause)
    }

    /// Does what is due.
    pub(super) fn work(&mut self) {
        let now = Instant::now();
        if self.is_listed() {
            if self.looked_at.is_none_or(|at| at + LOOK_EVERY <= now) {
                self.look(now);
            }
            self.judge_returned(now);
            if self.undecided && self.decide_at(now) <= now {
                self.decide(now);
            }
            if self.unsaved && self.is_complete() && self.saved_at.is_none_or(|at| at + SAVE_EVERY <= now) {
                self.start_saving(now);
            }
        } else if self.desired.is_none() && self.started + STALE_AFTER <= now {
            self.announce_remembered();
        }
        if self.unshown && self.shown_at.is_none_or(|at| at + SHOW_EVERY <= now) {
            self.show(now);
        }
    }

    /// Nodes that are Ready again have had the time to say how their Pods are.
    fn judge_returned(&mut self, now: Instant) {
        let returning = self.indexes.endpoints.returning();
        self.returned.retain(|node, (number, _)| returning.get(node) == Some(number));
        for (node, number) in returning {
            self.returned.entry(node.clone()).or_insert((*number, now + RETURN_WITHIN));
        }
        let due = self.returned.iter().filter(|(_, (_, at))| *at <= now).map(|(node, _)| node.clone());
        for node in due.collect::<Vec<_>>() {
            self.returned.remove(&node);
            self.indexes.judge(&node);
            self.decide_anew();
        }
    }

    /// Looks at what nobody tells.
    fn look(&mut self, now: Instant) {
        self.looked_at = Some(now);
        let connected = connected::prefixes();
        if connected != self.settings.connected {
            self.settings.connected = connected;
            self.decide_anew();
        }
        self.tell_cluster_warnings();
        self.tell_hindrances();
    }

    fn is_unlisted(&self, kind: Kind) -> bool {
        self.unlisted.contains(&kind)
    }

    /// Computes the whole set of announcements, and hands it over if it changed.
    fn decide(&mut self, now: Instant) {
        self.watch_what_is_needed();
        if !self.is_listed() {
            return;
        }
        self.undecided = false;
        let touched = self.touched.replace(BTreeSet::new()).filter(|_| !self.stale);
        self.settings.dataplane_healthy = self.parts.data_plane.as_ref().is_some_and(Health::is_healthy);
        self.settings.speakers_known = !self.is_unlisted(Kind::SpeakerStatus);
        let waits = self.is_unlisted(Kind::EndpointSlice);
        let changed = match (&mut self.desired, touched) {
            (Some(before), _) if waits => {
                let desired =
                    plan::announcement::plan_without_endpoints(before, &self.indexes, &self.settings);
                let changed = *before != desired;
                *before = desired;
                changed
            }
            (Some(desired), Some(touched)) => {
                plan::announcement::update(desired, &self.indexes, &self.settings, &touched)
            }
            (before, _) => {
                let desired = plan::announcement::plan(&self.indexes, &self.settings);
                let changed = before.as_ref() != Some(&desired);
                *before = Some(desired);
                changed
            }
        };
        self.remembered = None;
        if std::mem::take(&mut self.stale) {
            self.events.clear(&self.own_reference(), condition::STALE);
            tracing::info!("what is announced is what the API server says");
        }
        self.check(Check::Decisions, Ok(()));
        if let Some(desired) = self.desired.as_ref().filter(|_| changed) {
            tracing::debug!(addresses = desired.addresses.len(), "announcements change");
            self.parts.announcer.set_desired(desired.clone());
        }
        self.tell_pools();
        (self.unsaved, self.unshown) = (true, true);
        self.decided_at = Some(Instant::now());
        self.decision_took = now.elapsed();
        self.parts.metrics.count_decision(self.decision_took);
    }

    /// Anything may be different.
    fn decide_anew(&mut self) {
        (self.undecided, self.touched) = (true, None);
    }

    /// EndpointSlices while a `Local` Service of ours or a flag needs them; the Secrets that BgpPeers name.
    fn watch_what_is_needed(&mut self) {
        let needed =
            self.endpoints_matter()
                || self.indexes.services.ours().any(|service| {
                    service.traffic_policy == TrafficPolicy::Local && !service.ingress.is_empty()
                });
        if needed != self.parts.watches.watches(Kind::EndpointSlice) {
            // A new watch does not know what was told by the last one, and so cannot say that it is gone.
            self.indexes.endpoints.clear();
            if needed {
                self.parts.watches.add(Selection::all(Kind::EndpointSlice));
                self.unlisted.insert(Kind::EndpointSlice);
            } else {
                self.parts.watches.remove(Kind::EndpointSlice);
                self.unlisted.remove(&Kind::EndpointSlice);
            }
        }
        let peers = self.indexes.peers.iter().filter_map(|peer| peer.spec.as_ref());
        let named = peers.filter_map(|spec| spec.password_secret.as_ref()).map(|(name, _)| name.clone());
        for name in self.parts.secrets.set(&named.collect()) {
            self.indexes.peers.delete_secret(&NamespacedName::new(self.settings.namespace.clone(), name));
        }
    }

    fn endpoints_matter(&self) -> bool {
        self.settings.withdraw_without_endpoints
    }

    /// The API server has not said anything yet: what was announced before the start is announced again.
    fn announce_remembered(&mut self) {
        let Some((header, indexes)) = &self.remembered else { return };
        self.settings.dataplane_healthy = self.parts.data_plane.as_ref().is_none_or(Health::is_healthy);
        let mut desired = plan::announcement::plan(indexes, &self.settings);
        desired.provisional = true;
        let message = format!(
            "the API server has not listed everything yet; the {} addresses of the checkpoint of {} are announced \
             (sessions with a password wait)",
            desired.addresses.len(),
            header.saved_at
        );
        let object = self.own_reference();
        self.event(EventType::Warning, &object, condition::STALE, event::STALE, &message);
        self.check(Check::Lists, Err(format!("Stale: {message}")));
        self.parts.announcer.set_desired(desired.clone());
        self.desired = Some(desired);
        (self.stale, self.unshown) = (true, true);
    }

    /// Takes changes of the API server in.
    pub(super) fn take_in(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.take_in_change(change);
        }
        self.check_lists();
        if self.is_listed() {
            self.work();
        }
    }

    fn check_lists(&mut self) {
        if self.is_complete() {
            self.check(Check::Lists, Ok(()));
        } else if let Some(error) = self
            .unlisted
            .iter()
            .find_map(|kind| self.failing.get(kind).map(|error| format!("{}: {error}", kind.plural())))
        {
            let stale = if self.stale { "Stale: the checkpoint is announced; " } else { "" };
            self.check(Check::Lists, Err(format!("{stale}{error}")));
        }
    }

    /// Takes changes of Secrets in. There is no list to wait for: a session waits for its password.
    pub(super) fn take_in_secrets(&mut self, changes: Vec<Change>) {
        for change in
            changes.into_iter().filter(|change| !matches!(change, Change::Listed(_) | Change::Reached(..)))
        {
            self.take_in_change(change);
        }
        self.work();
    }

    fn take_in_change(&mut self, change: Change) {
        match change {
            Change::Apply(object) => self.apply(&object),
            Change::Delete { reference, .. } => self.delete(&reference),
            Change::Unreadable(reference, problem) => {
                let message = problem.to_string();
                self.event(EventType::Warning, &reference, condition::READY, reason::INVALID_SPEC, &message);
                self.unreadable.insert(reference, problem);
                self.show_unreadable();
            }
            Change::Listed(kind) => {
                if self.unlisted.remove(&kind) {
                    self.decide_anew();
                }
            }
            Change::Reached(..) => {}
        }
    }

    fn show_unreadable(&mut self) {
        let all: Vec<(ObjectRef, Problem)> =
            self.unreadable.iter().map(|(reference, problem)| (reference.clone(), problem.clone())).collect();
        if self.indexes.set_unreadable(&all) {
            self.decide_anew();
        }
    }

    fn apply(&mut self, object: &Object) {
        let reference = object.reference();
        if self.unreadable.remove(&reference).is_some() {
            self.show_unreadable();
        }
        if self.is_left_over(reference.kind) {
            return;
        }
        let before = self.published(&reference);
        let had_speaker = self.indexes.speakers.has(&reference.name);
        if self.indexes.apply(object) {
            match reference.kind {
                Kind::Service => {
                    let now = self.published(&reference);
                    self.touch(before.into_iter().chain(now));
                }
                // What a speaker says of itself is only shown: it is decided by which nodes have one.
                Kind::SpeakerStatus if had_speaker => {}
                _ => self.decide_anew(),
            }
            self.unshown = true;
        }
        self.specs.apply(object);
        if reference.kind.is_ours() {
            self.tell_spec_problems(&reference);
        }
    }

    /// Is what comes of this kind from a watch that has ended? Batches of it may still have waited to be taken in.
    fn is_left_over(&self, kind: Kind) -> bool {
        kind == Kind::EndpointSlice && !self.parts.watches.watches(kind)
    }

    /// The addresses that a Service publishes.
    fn published(&self, reference: &ObjectRef) -> Vec<IpAddr> {
        if reference.kind != Kind::Service {
            return Vec::new();
        }
        self.indexes.services.get(&reference.key()).map(|service| service.published()).unwrap_or_default()
    }

    /// Services that publish these are different. One that waits is announced by nobody.
    fn touch(&mut self, addresses: impl Iterator<Item = IpAddr>) {
        for address in addresses {
            self.undecided = true;
            if let Some(touched) = &mut self.touched {
                touched.insert(address);
            }
        }
    }

    fn delete(&mut self, reference: &ObjectRef) {
        if self.unreadable.remove(reference).is_some() {
            self.show_unreadable();
        }
        let before = self.published(reference);
        if self.indexes.delete(reference) {
            if reference.kind == Kind::Service {
                self.touch(before.into_iter());
            } else {
                self.decide_anew();
            }
            self.unshown = true;
        }
        if *reference == self.own_reference() {
            // Somebody removed it: others would announce this node as one without a speaker.
            self.said = None;
        }
        self.specs.delete(reference);
        self.events.forget(reference);
        self.unusable.remove(reference);
    }

    fn own_reference(&self) -> ObjectRef {
        ObjectRef::cluster(Kind::SpeakerStatus, self.settings.node_name.clone())
    }

    /// This node, and whether it is known at all.
    pub(super) fn own_node(&self) -> (Option<NodeView>, bool) {
        let listed = !self.unlisted.contains(&Kind::Node);
        (self.indexes.nodes.get(&self.settings.node_name).cloned(), listed)
    }

    /// What the data plane says of itself.
    pub(super) fn set_data_plane(&mut self, health: Option<Health>) {
        let node = ObjectRef::cluster(Kind::Node, self.settings.node_name.clone());
        if matches!(health, Some(Health::Healthy)) {
            self.events.clear(&node, "dataplane");
        }
        if let Some(Health::Unhealthy(message)) = &health {
            let message = format!("{message}; this node does not announce itself until it is healthy again");
            self.event(EventType::Warning, &node, "dataplane", "DataPlaneUnhealthy", &message);
        }
        self.parts.data_plane = health;
        self.decide_anew();
        self.unshown = true;
        self.work();
    }

    /// Takes the HTTP server's state in.
    pub(super) fn set_server(&mut self, state: &ServerState) {
        self.server = state.clone();
        self.check_listeners();
    }

    /// Which kinds cannot be watched, and why. What is known serves on.
    pub(super) fn set_failing(&mut self, failing: BTreeMap<Kind, String>) {
        self.failing = failing;
        self.check_lists();
        self.work();
    }

    /// Says what this node does, if that is news: hands its SpeakerStatus to the writer.
    fn say(&mut self) {
        if self.is_unlisted(Kind::SpeakerStatus) || self.stale {
            return;
        }
        let Some(desired) = &self.desired else { return };
        let known = self.indexes.speakers.get(&self.settings.node_name);
        let before = self.said.as_ref().or_else(|| known.map(|known| &known.status));
        let healthy = match &self.parts.data_plane {
            Some(Health::Healthy) => {
                Wanted::new(condition::DATA_PLANE_HEALTHY, true, reason::HEALTHY, "forwards, or is not asked")
            }
            Some(Health::Unhealthy(message)) => {
                Wanted::new(condition::DATA_PLANE_HEALTHY, false, reason::UNHEALTHY, message.clone())
            }
            None => {
                Wanted::new(condition::DATA_PLANE_HEALTHY, false, reason::UNHEALTHY, "has not answered yet")
            }
        };
        let own = speaker_status::Own {
            desired,
            announced: &self.announced,
            peer_problems: &self.peer_problems(),
            conditions: &[healthy],
            version: env!("CARGO_PKG_VERSION"),
        };
        let status = speaker_status::own(&self.indexes, &own, before, Timestamp::now());
        let owner =
            self.indexes.nodes.get(&self.settings.node_name).map(|node| node.uid.clone()).unwrap_or_default();
        let is_there = known.is_some_and(|known| owner.is_empty() || known.owners.contains(&owner));
        if self.said.is_none() && !is_there {
            self.made += 1;
        }
        let is_news = (self.said.is_none() && !is_there)
            || before.is_none_or(|before| speaker_status::is_worth_writing(before, &status));
        if is_news {
            self.said = Some(status.clone());
            let made = self.made;
            self.parts.own_status.send_replace(Some(WantedStatus { owner, status, made }));
        }
    }

    /// What keeps BgpPeers from being used on this node.
    fn peer_problems(&self) -> BTreeMap<String, String> {
        let configured =
            self.desired.iter().filter_map(|desired| desired.bgp.as_ref()).flat_map(|bgp| &bgp.peers);
        configured
            .filter_map(|(name, _)| {
                let peer = self.indexes.peers.get(name)?;
                Some((name.clone(), plan::status::missing_secret(&self.indexes, &self.settings, peer)?))
            })
            .collect()
    }

    /// Writes the checkpoint beside the loop, if it changed.
    fn start_saving(&mut self, now: Instant) {
        if self.saving.as_ref().is_some_and(|saving| !saving.is_finished()) {
            self.saved_at = Some(now);
            return;
        }
        (self.unsaved, self.saved_at) = (false, Some(now));
        let Some(path) = self.checkpoint.clone() else { return };
        let body = checkpoint::body(&self.indexes, &self.specs, self.endpoints_matter());
        let mut digest = DefaultHasher::new();
        body.hash(&mut digest);
        if self.saved.replace(digest.finish()) == Some(digest.finish()) {
            return;
        }
        let node = self.settings.node_name.clone();
        self.saving = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = checkpoint::write(&path, &node, Timestamp::now(), &body) {
                tracing::error!(
                    path = %path.display(), %error,
                    "the checkpoint cannot be written: a speaker that starts without API server announces nothing; \
                     mount a writable directory there, or give another one with --checkpoint"
                );
            }
        }));
    }

    /// Writes what is not saved yet, before the end.
    pub(super) async fn save(&mut self) {
        if let Some(saving) = self.saving.take() {
            let _ = saving.await;
        }
        if self.unsaved && self.is_complete() {
            self.start_saving(Instant::now());
            if let Some(saving) = self.saving.take() {
                let _ = saving.await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
