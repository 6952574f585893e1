//! What is told of writes that the API server refuses.

use openelb_k8s::{
    names::event,
    object::{Kind, ObjectRef},
    plan::Write,
    store::StoreError,
};

use super::Owner;
use crate::events::{EventType, refused_write};

/// The topic of events on the object itself.
const WRITE: &str = "write";
/// The topic of events on Services that wait for a write on an Eip.
const RELEASE: &str = "release";

impl Owner {
    /// Tells that a write was refused: on its object, and on the Services that still hold an address because of it.
    pub(super) fn tell_refused(&mut self, write: &Write, error: &StoreError) {
        let message = format!("a write was refused: {error}");
        let reason = refused_write(write.target.kind);
        self.event(EventType::Warning, &write.target, WRITE, reason, &message);
        for service in self.released_by(write) {
            let message = format!("an address of Eip {} is not free yet: {error}", write.target.name);
            self.event(EventType::Warning, &service, RELEASE, event::RELEASE_IP_FAILED, &message);
        }
    }

    /// A write that was refused before has been taken: the next refusal is told again.
    pub(super) fn forget_refused(&mut self, write: &Write) {
        self.events.clear(&write.target, WRITE);
        for service in self.released_by(write) {
            self.events.clear(&service, RELEASE);
        }
    }

    /// Services that are there and lose an address by this write.
    fn released_by(&self, write: &Write) -> Vec<ObjectRef> {
        if write.target.kind != Kind::Eip {
            return Vec::new();
        }
        let (_, released) = self.moved_by(write);
        let there = released.into_iter().filter(|(_, version)| version.is_some());
        there.map(|(key, _)| ObjectRef::namespaced(Kind::Service, &key)).collect()
    }
}
