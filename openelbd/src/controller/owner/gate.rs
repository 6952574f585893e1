//! What must be done before a write goes out, see [`fences`](crate::controller::fences).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use openelb_k8s::{
    object::{Kind, NamespacedName, Object, ObjectRef},
    plan::Write,
    store::StoreError,
};

use super::{
    super::{fences::Record, writer},
    Owner,
};
use crate::events::EventType;

impl Owner {
    pub(super) fn is_writing(&self, eip: &str) -> bool {
        self.committing.contains_key(eip)
    }

    /// Must something else be done before this write? If so that is begun, or waits for its turn.
    pub(super) fn is_held_back(&mut self, write: &Write) -> bool {
        match write.target.kind {
            Kind::Eip => {
                let Some(least) = self.fences.behind(&write.target.name) else { return false };
                let gives = write.patch().pointer("/status/used").is_some();
                if gives {
                    self.survey(Kind::Service, least);
                }
                gives
            }
            Kind::Service => {
                let (Some(after), key) = (write.published(), write.target.key()) else { return false };
                let Some(view) = self.indexes.services.get(&key) else { return false };
                let (before, version) = (view.published(), view.resource_version.parse().unwrap_or(0));
                let records = self.indexes.pools.records(&key);
                let mut held = false;
                for address in after.iter().filter(|address| !before.contains(address)) {
                    let eips = records.iter().filter(|(_, a)| a == address).map(|(eip, _)| &**eip);
                    held |= !self.fences.may_publish(&(key.clone(), *address), eips);
                }
                let unknown = |address: &&IpAddr| !records.iter().any(|(_, a)| a == *address);
                let taken = before.iter().filter(|address| !after.contains(address));
                if view.ours && taken.filter(unknown).count() > 0 && !self.fences.may_take(version) {
                    self.survey(Kind::Eip, version);
                    held = true;
                }
                held
            }
            _ => false,
        }
    }

    /// A write that only says that what is committed there is ours to publish.
    pub(super) fn confirm(&mut self, eip: &str) {
        let Some(view) = self.indexes.pools.get(eip) else { return };
        let revision = view.status.revision.unwrap_or(0).saturating_add(1);
        let write = Write::new(ObjectRef::cluster(Kind::Eip, eip), &view.resource_version)
            .set(&["status", "revision"], serde_json::json!(revision));
        self.start(write);
    }

    /// Looks at all objects of a kind, at least as of this version.
    fn survey(&mut self, kind: Kind, least: u64) {
        if self.surveying.insert(kind) {
            tracing::debug!(%kind, least, "what is known may be too old for what was decided: looking at all");
            self.tasks.spawn(writer::survey(self.store.clone(), kind, least));
        }
    }

    /// What this write of an Eip commits, and the Services that lose an address by it.
    pub(super) fn moved_by(
        &self,
        write: &Write,
    ) -> (BTreeSet<Record>, Vec<(NamespacedName, Option<String>)>) {
        let (mut joined, mut released) = (BTreeSet::new(), BTreeMap::new());
        let patch = write.patch();
        let used = patch.get("status").and_then(|status| status.get("used"));
        let pool = self.indexes.pools.get(&write.target.name);
        let (Some(used), Some(pool)) = (used.and_then(serde_json::Value::as_object), pool) else {
            return (joined, Vec::new());
        };
        for (address, holders) in used {
            let Ok(address) = address.parse() else { continue };
            let before = pool.used.get(&address).into_iter().flatten();
            let after: BTreeSet<&str> = holders.as_str().unwrap_or_default().split(';').collect();
            for holder in before.filter(|holder| !after.contains(holder.to_string().as_str())) {
                let version = self.indexes.services.get(holder).map(|view| view.resource_version.clone());
                released.insert(holder.clone(), version);
            }
            joined.extend(after.iter().filter_map(|holder| Some((holder.parse().ok()?, address))));
        }
        (joined, released.into_iter().collect())
    }

    /// A write has ended, and made this version.
    pub(super) fn written(&mut self, target: &ObjectRef, made: Option<u64>) {
        for event in self.telling.remove(target).filter(|_| made.is_some()).unwrap_or_default() {
            let kind = if event.warning { EventType::Warning } else { EventType::Normal };
            self.event(kind, &event.regarding, "address", event.reason, &event.message);
        }
        match target.kind {
            Kind::Eip => {
                let records = self.committing.remove(&target.name).unwrap_or_default();
                self.fences.written(&target.name, made, records);
            }
            Kind::Service if made.is_some() => self.fences.forget(&target.key()),
            _ => {}
        }
    }

    /// Takes in every object of a kind as it is.
    pub(super) fn take_survey(
        &mut self,
        kind: Kind,
        least: u64,
        found: Result<(Vec<Object>, u64), StoreError>,
    ) {
        self.surveying.remove(&kind);
        let (objects, listed) = match found {
            Ok(found) => found,
            Err(error) => return self.pause(&error),
        };
        let Some(reached) = self.fences.listed(listed, least) else {
            let cause = format!("the list of {} is of version {listed}, older than {least}", kind.plural());
            return self.pause(&StoreError::Unavailable { cause, retry_after: Duration::ZERO });
        };
        let there: BTreeSet<ObjectRef> = objects.iter().map(Object::reference).collect();
        for object in &objects {
            if !self.departed.covers(object) && self.versions.admit_object(object) {
                self.apply(object, true);
            }
        }
        let old = |version: &str| version.parse().is_ok_and(|version: u64| version <= listed);
        let mut gone: Vec<ObjectRef> = if kind == Kind::Service {
            let known = self.indexes.services.iter().filter(|view| old(&view.resource_version));
            known.map(|view| ObjectRef::namespaced(kind, &view.key)).collect()
        } else {
            let known = self.indexes.pools.iter().filter(|view| old(&view.resource_version));
            known.map(|view| ObjectRef::cluster(kind, &view.name)).collect()
        };
        gone.retain(|reference| !there.contains(reference));
        for reference in gone {
            self.versions.remove(&reference);
            self.delete(&reference);
        }
        match kind {
            Kind::Service => self.fences.services_reached(reached),
            _ => self.fences.eips_reached(reached),
        }
    }
}
