//! What the owner tells: events, readiness, metrics.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use openelb_k8s::{
    announce::{AnnouncerStatus, SessionState},
    names::{condition, reason},
    object::{Kind, ObjectRef},
    plan,
    problem::{Problem, Severity},
};

use super::Owner;
use crate::{
    adapter::bgp::status,
    events::EventType,
    http::{
        Check, Readiness, ServerState,
        metrics::{Inventory, PoolInventory},
    },
};

impl Owner {
    /// Takes the announcer's status in.
    pub(in crate::standalone) fn set_announced(&mut self, status: Arc<AnnouncerStatus>) {
        if !status::is_same_but_for_counters(&status, &self.announced) {
            self.unreported = true;
        }
        for problem in &status.problems {
            let conf = ObjectRef::cluster(Kind::BgpConf, openelb_k8s::names::DEFAULT_OBJECT);
            self.event(EventType::Warning, &conf, &problem.reason, &problem.reason, &problem.message);
        }
        for (name, peer) in &status.peers {
            let object = ObjectRef::cluster(Kind::BgpPeer, name.as_str());
            match &peer.last_error {
                Some(error) if peer.state != SessionState::Established => {
                    self.event(EventType::Warning, &object, "session", "SessionDown", error);
                }
                _ => {
                    self.events.clear(&object, "session");
                }
            }
        }
        self.announced = status;
        self.check_listeners();
        self.publish_inventory();
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
        let problems = match object.kind {
            Kind::Eip => self.indexes.pools.get(&object.name).map(|view| view.problems.as_slice()),
            Kind::BgpPeer => self.indexes.peers.get(&object.name).map(|view| view.problems.as_slice()),
            Kind::BgpConf => {
                let conf = self.indexes.peers.confs().find(|view| view.name == object.name);
                conf.map(|view| view.problems.as_slice())
            }
            _ => None,
        };
        let message = problems.map(plan::status::explain).unwrap_or_default();
        if message.is_empty() {
            self.unusable.remove(object);
            if self.events.clear(object, condition::READY) {
                tracing::info!(%object, "mended");
            }
        } else {
            self.unusable.insert(object.clone());
            self.event(EventType::Warning, object, condition::READY, reason::INVALID_SPEC, &message);
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
        self.readiness.send_if_modified(|readiness| set(readiness, Check::Listeners, result));
        self.publish_inventory();
    }

    pub(super) fn publish_inventory(&self) {
        self.revise();
        let mut services: BTreeMap<String, u64> = BTreeMap::new();
        for service in self.indexes.services.ours() {
            let assigned = service.conditions.iter().find(|c| c.type_ == condition::ADDRESS_ASSIGNED);
            let reason = assigned.map_or("Undecided", |condition| condition.reason.as_str());
            *services.entry(reason.to_owned()).or_default() += 1;
        }
        let pools = self.indexes.pools.iter().map(|pool| {
            let holders = pool.used.values().map(Vec::len).sum::<usize>();
            let inventory = PoolInventory {
                size: pool.status.pool_size.unwrap_or_default(),
                used: i64::try_from(pool.used.len()).unwrap_or(i64::MAX),
                services: i64::try_from(holders).unwrap_or(i64::MAX),
                ready: pool.spec.is_some(),
            };
            (pool.name.clone(), inventory)
        });
        let mut desired = BTreeMap::new();
        for announcement in self.desired.iter().flat_map(|desired| desired.addresses.values()) {
            for protocol in &announcement.protocols {
                *desired.entry(protocol.as_str()).or_default() += 1;
            }
        }
        let mut announced = BTreeMap::new();
        for address in self.announced.addresses.values().filter(|address| address.announced) {
            *announced.entry(address.protocol.as_str()).or_default() += 1;
        }
        self.metrics.set_inventory(Inventory {
            pools: pools.collect(),
            services,
            announced,
            desired,
            manifest_problems: u64::try_from(self.problems.len() + self.unusable.len()).unwrap_or(u64::MAX),
            ready: self.readiness.borrow().is_ready(),
        });
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
