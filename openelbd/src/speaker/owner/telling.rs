//! What the owner tells: events, readiness, metrics.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use openelb_k8s::{
    announce::{Announcement, AnnouncerStatus, Protocol, SessionState},
    index::pools::EipView,
    names::{condition, event, reason},
    object::{Kind, NamespacedName, ObjectRef},
    plan::{self, announcement},
};
use tokio::sync::watch;

use super::Owner;
use crate::{
    adapter::{
        bgp::status,
        layer2::events::{About, Told},
    },
    events::{self, EventType, hindered},
    http::{Check, ServerState, read_api::Snapshot},
    snapshot::View,
};

impl Owner {
    /// Takes the announcer's status in.
    pub(in crate::speaker) fn set_announced(&mut self, status: Arc<AnnouncerStatus>) {
        self.unshown |= !status::is_same_but_for_counters(&status, &self.announced);
        let object = self.own_reference();
        let (wrong, before) = (events::all_of(&object, &status), Arc::clone(&self.announced));
        for ((object, reason), message) in &wrong {
            self.event(EventType::Warning, object, reason, reason, message);
        }
        self.events.clear_mended(&events::all_of(&object, &before), &wrong);
        for (name, peer) in &status.peers {
            // A dynamic neighbour is named BGPPEER/ADDRESS.
            let (object, topic) = match name.split_once('/') {
                Some((name, address)) => (name, format!("session/{address}")),
                None => (name.as_str(), "session".to_owned()),
            };
            let object = ObjectRef::cluster(Kind::BgpPeer, object);
            match &peer.last_error {
                Some(error) if peer.state != SessionState::Established => {
                    let message = format!("{}: {error}", self.settings.node_name);
                    self.event(EventType::Warning, &object, &topic, "SessionDown", &message);
                }
                _ => {
                    self.events.clear(&object, &topic);
                }
            }
        }
        for (name, warning) in &status.peer_warnings {
            let (object, message) = (
                ObjectRef::cluster(Kind::BgpPeer, name.as_str()),
                format!("{}: {warning}", self.settings.node_name),
            );
            self.event(EventType::Warning, &object, condition::WARNINGS, event::PEER_WARNING, &message);
        }
        for name in
            self.announced.peer_warnings.keys().filter(|name| !status.peer_warnings.contains_key(*name))
        {
            self.events.clear(&ObjectRef::cluster(Kind::BgpPeer, name.as_str()), condition::WARNINGS);
        }
        self.announced = status;
        self.check_listeners();
        self.work();
    }

    /// Tells of what happened on a LAN.
    pub(in crate::speaker) fn tell_of_layer2(&mut self, told: &Told) {
        let objects: Vec<ObjectRef> = match &told.about {
            About::Address(address) => {
                let announcement = self.desired.iter().find_map(|desired| desired.addresses.get(address));
                let services = announcement.into_iter().flat_map(|announcement| announcement.services.iter());
                services.map(|key| ObjectRef::namespaced(Kind::Service, key)).collect()
            }
            About::Node(node) => vec![ObjectRef::cluster(Kind::Node, node.clone())],
            About::Speaker => vec![self.own_reference()],
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

    /// Which Services are announced now, and which no more: one speaker tells for all.
    fn tell_services(&mut self) {
        let Some(desired) = &self.desired else { return };
        let mut now: BTreeSet<NamespacedName> = BTreeSet::new();
        let mut complete = true;
        for (address, announcement) in &desired.addresses {
            if self.announced.is_announced(*address) {
                now.extend(announcement.services.iter().cloned());
            } else if complete && self.announced_services.is_none() {
                complete = !announcement::may_be_announced(desired, *address, announcement, &self.announced);
            }
        }
        let Some(before) = &self.announced_services else {
            // What a start finds is no news.
            if complete && !self.stale {
                self.announced_services = Some(now);
            }
            return;
        };
        if *before == now {
            return;
        }
        let gained: Vec<NamespacedName> = now.difference(before).cloned().collect();
        let lost: Vec<NamespacedName> = before.difference(&now).cloned().collect();
        self.announced_services = Some(now);
        if !self.is_teller() {
            return;
        }
        for key in gained {
            let object = ObjectRef::namespaced(Kind::Service, &key);
            let message = "its addresses are announced";
            self.event(EventType::Normal, &object, "announced", event::SET_BALANCER, message);
        }
        for key in lost {
            let object = ObjectRef::namespaced(Kind::Service, &key);
            if self.indexes.services.get(&key).is_some() {
                let message = format!("{} does not announce its addresses any more", self.settings.node_name);
                self.event(EventType::Normal, &object, "announced", event::DEL_BALANCER, &message);
            }
        }
    }

    /// How pools are announced from now on: one speaker tells for all.
    pub(super) fn tell_pools(&mut self) {
        let arrange = |pool: &EipView| {
            let spec = pool.spec.as_ref().filter(|_| !pool.deleting)?;
            // Nobody speaks VRRP yet; a condition says so.
            let spoken = spec.protocols.iter().filter(|protocol| **protocol != Protocol::Vip);
            let protocols = spoken.map(|protocol| protocol.as_str()).collect::<Vec<_>>().join(" and ");
            let interface = spec.interface.as_ref().map(|interface| format!(", interface {interface}"));
            let message =
                format!("its addresses are announced by {protocols}{}", interface.unwrap_or_default());
            (!protocols.is_empty()).then(|| (pool.name.clone(), message))
        };
        let now: BTreeMap<String, String> = self.indexes.pools.iter().filter_map(arrange).collect();
        // What a start finds is no news.
        let Some(before) = self.arranged.replace(now.clone()) else { return };
        let topic = event::CONFIG_SPEAKER;
        for pool in before.iter().filter(|(pool, said)| now.get(*pool) != Some(said)).map(|(pool, _)| pool) {
            self.events.clear(&ObjectRef::cluster(Kind::Eip, pool.clone()), topic);
        }
        if now == before || !self.is_teller() {
            return;
        }
        for (pool, message) in now.iter().filter(|(pool, message)| before.get(*pool) != Some(*message)) {
            let object = ObjectRef::cluster(Kind::Eip, pool.clone());
            self.event(EventType::Normal, &object, topic, topic, message);
        }
    }

    /// Pools with an address that nobody answers for, and what keeps this node from it: one speaker tells for all that
    /// could, of what was so at the last look, too, for a new address has no owner at first.
    pub(super) fn tell_hindrances(&mut self) {
        let desired = self.desired.as_ref();
        let tells = |announcement: &Announcement| {
            announcement::teller_of(&self.indexes, announcement) == Some(self.settings.node_name.as_str())
        };
        let hindered = desired.map(|desired| hindered(&self.announced, desired, tells)).unwrap_or_default();
        let topic = event::CONFIG_SPEAKER_FAILED;
        let before = std::mem::replace(&mut self.hindered, hindered.keys().cloned().collect());
        for pool in before.iter().filter(|pool| !hindered.contains_key(*pool)) {
            self.events.clear(&ObjectRef::cluster(Kind::Eip, pool.clone()), topic);
        }
        for (pool, message) in hindered.iter().filter(|(pool, _)| before.contains(*pool)) {
            let object = ObjectRef::cluster(Kind::Eip, pool.clone());
            self.event(EventType::Warning, &object, topic, topic, message);
        }
    }

    fn is_teller(&self) -> bool {
        announcement::teller(&self.indexes, &self.settings) == Some(self.settings.node_name.as_str())
    }

    /// What concerns the whole cluster, by one speaker.
    pub(super) fn tell_cluster_warnings(&mut self) {
        let told = Kind::Eip;
        if !self.is_teller() {
            return;
        }
        let warnings = announcement::warnings(&self.indexes, &self.settings);
        let warned: BTreeSet<&ObjectRef> = warnings.iter().map(|warning| &warning.regarding).collect();
        let silent: Vec<ObjectRef> =
            self.indexes.pools.iter().map(|pool| ObjectRef::cluster(told, pool.name.clone())).collect();
        for object in silent.iter().filter(|object| !warned.contains(object)) {
            self.events.clear(object, event::NO_ANNOUNCER);
        }
        for warning in &warnings {
            let topic = event::NO_ANNOUNCER;
            self.event(EventType::Warning, &warning.regarding, topic, warning.reason, &warning.message);
        }
    }

    /// An object that can be read, and whose spec cannot be used, is named in the log; its condition is the leader's.
    pub(super) fn tell_spec_problems(&mut self, object: &ObjectRef) {
        let message = plan::status::explain(self.indexes.spec_problems(object));
        if !message.is_empty() {
            self.unusable.insert(object.clone());
            if self.events.tell(EventType::Warning, object, condition::READY, reason::INVALID_SPEC, &message)
            {
                self.parts.metrics.count_event(EventType::Warning.as_str(), reason::INVALID_SPEC);
            }
        } else if self.unusable.remove(object) && self.events.clear(object, condition::READY) {
            tracing::info!(%object, "mended");
        }
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
        self.check(Check::Listeners, result);
        let settled = if self.announced.unsettled {
            Err("Layer 2 does not know yet what the other nodes hold".to_owned())
        } else {
            Ok(())
        };
        self.check(Check::Membership, settled);
    }

    pub(super) fn check(&mut self, check: Check, result: Result<(), String>) {
        let changed = self.parts.readiness.send_if_modified(|readiness| {
            let before = readiness.clone();
            readiness.set(check, result);
            *readiness != before
        });
        self.unshown |= changed;
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
            self.parts.metrics.count_event(kind.as_str(), reason);
            self.unshown = true;
            let uid = match object.kind {
                Kind::Service => self.indexes.services.get(&object.key()).map(|view| view.uid.as_str()),
                Kind::Eip => self.indexes.pools.get(&object.name).map(|view| view.uid.as_str()),
                Kind::Node => self.indexes.nodes.get(&object.name).map(|view| view.uid.as_str()),
                _ => None,
            };
            self.parts.reporter.report(kind, object, uid, reason, message);
        }
    }

    /// Changes whenever [`snapshot`](Self::snapshot) may have another answer.
    pub(in crate::speaker) fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Everything that is known now, as this node sees it.
    pub(in crate::speaker) fn snapshot(&self) -> Snapshot {
        self.view().snapshot()
    }

    fn view(&self) -> View<'_> {
        let remembered = self.remembered.as_ref().filter(|_| self.stale).map(|(_, indexes)| indexes);
        View {
            indexes: remembered.unwrap_or(&self.indexes),
            node_name: &self.settings.node_name,
            announced: &self.announced,
            desired: self.desired.as_ref(),
            events: &self.events,
        }
    }

    pub(super) fn show(&mut self, now: Instant) {
        (self.unshown, self.shown_at) = (false, Some(now));
        let problems = self.unreadable.len() + self.unusable.len();
        let ready = self.parts.readiness.borrow().is_ready();
        self.parts.metrics.set_inventory(self.view().inventory(problems, ready));
        self.revision.send_modify(|revision| *revision = revision.wrapping_add(1));
        self.tell_services();
        self.say();
    }
}
