//! What the owner tells: events, readiness, metrics.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use openelb_k8s::{
    announce::{AnnouncerStatus, SessionState},
    names::{condition, event, reason},
    object::{Kind, ObjectRef},
    plan,
    problem::{Problem, Severity},
};

use tokio::sync::watch;

use super::{Hindrance, Owner};
use crate::{
    adapter::{
        bgp::status,
        layer2::events::{About, Told},
    },
    events::{self, EventType, bad_spec, hindered},
    http::{Check, Readiness, ServerState, read_api::Snapshot},
    snapshot::View,
};

/// So long nobody answers before it is told: other nodes may be about to.
const HINDERED_FOR: Duration = Duration::from_secs(10);

impl Owner {
    /// Takes the announcer's status in.
    pub(in crate::standalone) fn set_announced(&mut self, status: Arc<AnnouncerStatus>) {
        if !status::is_same_but_for_counters(&status, &self.announced) {
            self.unreported = true;
        }
        let conf = ObjectRef::cluster(Kind::BgpConf, openelb_k8s::names::DEFAULT_OBJECT);
        let (wrong, before) = (events::each_of(&conf, &status), Arc::clone(&self.announced));
        for ((object, reason), message) in &wrong {
            self.event(EventType::Warning, object, reason, reason, message);
        }
        self.events.clear_mended(&events::each_of(&conf, &before), &wrong);
        for (name, peer) in &status.peers {
            // A dynamic neighbour is named BGPPEER/ADDRESS.
            let (object, topic) = match name.split_once('/') {
                Some((name, address)) => (name, format!("session/{address}")),
                None => (name.as_str(), "session".to_owned()),
            };
            let object = ObjectRef::cluster(Kind::BgpPeer, object);
            match &peer.last_error {
                Some(error) if peer.state != SessionState::Established => {
                    let message = error.clone();
                    self.event(EventType::Warning, &object, &topic, "SessionDown", &message);
                }
                _ => {
                    self.events.clear(&object, &topic);
                }
            }
        }
        for (name, warning) in &status.peer_warnings {
            let (object, message) = (ObjectRef::cluster(Kind::BgpPeer, name.as_str()), warning.clone());
            self.event(EventType::Warning, &object, condition::WARNINGS, event::PEER_WARNING, &message);
        }
        for name in
            self.announced.peer_warnings.keys().filter(|name| !status.peer_warnings.contains_key(*name))
        {
            self.events.clear(&ObjectRef::cluster(Kind::BgpPeer, name.as_str()), condition::WARNINGS);
        }
        self.announced = status;
        self.find_hindrances();
        self.check_listeners();
        self.publish_inventory();
    }

    /// Pools with an address that nobody answers for, and since when; the others are forgotten.
    pub(super) fn find_hindrances(&mut self) {
        let desired = self.desired.as_ref();
        let found = desired.map(|desired| hindered(&self.announced, desired, |_| true)).unwrap_or_default();
        let (now, topic) = (Instant::now(), event::CONFIG_SPEAKER_FAILED);
        for pool in self.hindered.keys().filter(|pool| !found.contains_key(*pool)) {
            self.events.clear(&ObjectRef::cluster(Kind::Eip, pool.clone()), topic);
        }
        self.hindered.retain(|pool, _| found.contains_key(pool));
        for (pool, message) in found {
            let hindrance = self.hindered.entry(pool).or_insert_with(|| Hindrance::new(now));
            hindrance.told &= hindrance.message == message;
            hindrance.message = message;
        }
    }

    /// When [`tell_hindrances`](Self::tell_hindrances) has something to tell.
    pub(super) fn hindrances_at(&self) -> Option<Instant> {
        let untold = self.hindered.values().filter(|hindrance| !hindrance.told);
        untold.map(|hindrance| hindrance.since + HINDERED_FOR).min()
    }

    /// Tells of pools that have been so for a while: a new address has no owner at first.
    pub(super) fn tell_hindrances(&mut self) {
        let now = Instant::now();
        let mut told = Vec::new();
        for (pool, hindrance) in &mut self.hindered {
            if !hindrance.told && hindrance.since + HINDERED_FOR <= now {
                hindrance.told = true;
                told.push((ObjectRef::cluster(Kind::Eip, pool.clone()), hindrance.message.clone()));
            }
        }
        let topic = event::CONFIG_SPEAKER_FAILED;
        for (object, message) in told {
            self.event(EventType::Warning, &object, topic, topic, &message);
        }
    }

    /// Tells of what happened on a LAN.
    pub(in crate::standalone) fn tell_of_layer2(&mut self, told: &Told) {
        let objects: Vec<ObjectRef> = match &told.about {
            About::Address(address) => {
                let announcement = self.desired.iter().find_map(|desired| desired.addresses.get(address));
                let services = announcement.into_iter().flat_map(|announcement| announcement.services.iter());
                services.map(|key| ObjectRef::namespaced(Kind::Service, key)).collect()
            }
            About::Node(node) => vec![ObjectRef::cluster(Kind::Node, node.clone())],
            About::Speaker => vec![ObjectRef::cluster(Kind::Node, self.settings.node_name.clone())],
        };
        for object in objects {
            let Some(word) = &told.word else {
                self.events.clear(&object, told.topic);
                continue;
            };
            let kind = if word.warning { EventType::Warning } else { EventType::Normal };
            self.event(kind, &object, told.topic, word.reason, &word.message);
        }
    }

    /// Takes the HTTP server's state in.
    pub(in crate::standalone) fn set_server(&mut self, state: &ServerState) {
        self.server = state.clone();
        self.check_listeners();
    }

    /// Tells about a problem once.
    pub(in crate::standalone) fn tell_problem(&self, problem: &Problem) {
        match problem.severity {
            Severity::Error => tracing::error!("{problem}"),
            Severity::Warning => tracing::warn!("{problem}"),
        }
    }

    /// An object that can be read, and whose spec cannot be used, is named in the log as well as in its condition.
    pub(super) fn tell_spec_problems(&mut self, object: &ObjectRef) {
        let message = plan::status::explain(self.indexes.spec_problems(object));
        if message.is_empty() {
            self.unusable.remove(object);
            if self.events.clear(object, condition::READY) {
                tracing::info!(%object, "mended");
            }
        } else {
            self.unusable.insert(object.clone());
            self.event(EventType::Warning, object, condition::READY, bad_spec(object.kind), &message);
        }
    }

    /// Nothing is left to do.
    pub(super) fn settled(&mut self) {
        if let Some(began) = self.decision_began.take() {
            self.metrics.count_decision(began.elapsed());
        }
        self.readiness.send_if_modified(|readiness| set(readiness, Check::Decisions, Ok(())));
        self.publish_inventory();
    }

    pub(super) fn check_listeners(&mut self) {
        let http = match &self.server {
            ServerState::Starting => Err("not open yet".to_owned()),
            ServerState::Off | ServerState::Listening(_) => Ok(()),
            ServerState::Failed(error) => Err(error.clone()),
        };
        let problems =
            self.announced.problems.iter().filter(|problem| problem.reason == status::LISTEN_FAILED);
        let problems = problems.map(|problem| Err(problem.message.clone()));
        let result = std::iter::once(http).chain(problems).find(Result::is_err).unwrap_or(Ok(()));
        let settled = if self.announced.unsettled {
            Err("Layer 2 does not know yet what the other nodes hold".to_owned())
        } else {
            Ok(())
        };
        self.readiness.send_if_modified(|readiness| {
            let listeners = set(readiness, Check::Listeners, result);
            set(readiness, Check::Membership, settled) || listeners
        });
        self.publish_inventory();
    }

    pub(super) fn publish_inventory(&self) {
        self.revise();
        let problems = self.problems.len() + self.unusable.len();
        self.metrics.set_inventory(self.view().inventory(problems, self.readiness.borrow().is_ready()));
    }

    fn view(&self) -> View<'_> {
        View {
            indexes: &self.indexes,
            node_name: &self.settings.node_name,
            announced: &self.announced,
            desired: self.desired.as_ref(),
            events: &self.events,
        }
    }

    /// Changes whenever [`snapshot`](Self::snapshot) may have another answer.
    pub(in crate::standalone) fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Something that the read API shows may have changed.
    fn revise(&self) {
        self.revision.send_modify(|revision| *revision = revision.wrapping_add(1));
    }

    /// Everything that is known now, as this node sees it.
    pub(in crate::standalone) fn snapshot(&self) -> Snapshot {
        self.view().snapshot()
    }

    /// Tells what is new among everything that is wrong in the manifests.
    pub(super) fn set_problems(&mut self, problems: &[Problem]) {
        let problems: BTreeSet<Problem> = problems.iter().cloned().collect();
        for problem in problems.difference(&self.problems) {
            self.tell_problem(problem);
        }
        for problem in self.problems.difference(&problems) {
            tracing::info!("mended: {problem}");
        }
        self.problems = problems;
    }

    pub(super) fn event(
        &mut self,
        kind: EventType,
        object: &ObjectRef,
        topic: &str,
        reason: &str,
        message: &str,
    ) {
        if self.events.tell(kind, object, topic, reason, message) {
            self.metrics.count_event(kind.as_str(), reason);
            self.revise();
        }
    }

    /// Tells which settings have no effect, once each.
    pub(super) fn tell_notes(&mut self) {
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

/// Says a check's result; whether that changed anything.
pub(super) fn set(readiness: &mut Readiness, check: Check, result: Result<(), String>) -> bool {
    let before = readiness.clone();
    readiness.set(check, result);
    *readiness != before
}
