//! What is newer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Change;
use crate::object::{Object, ObjectRef};

/// The newest version known of each object: lets changes pass that are not older.
///
/// For readers that also write: the answer to a write is newer than what the watch brings next. A clone shares what is
/// known, so that a [watch](super::watch_beside) need not read what the answer has said already.
#[derive(Clone, Debug, Default)]
pub struct Versions {
    known: Arc<Mutex<HashMap<ObjectRef, u64>>>,
}

/// An object's `resourceVersion` as a number (they are comparable: KEP-5504), or 0 if it is none.
#[must_use]
pub fn version(object: &Object) -> u64 {
    parse(object.metadata().resource_version.as_deref())
}

pub(super) fn parse(version: Option<&str>) -> u64 {
    version.and_then(|version| version.parse().ok()).unwrap_or(0)
}

impl Versions {
    fn known(&self) -> MutexGuard<'_, HashMap<ObjectRef, u64>> {
        // A map of numbers is whole at every moment.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is exactly this version, or a newer one, known already?
    pub(super) fn has(&self, reference: &ObjectRef, version: u64) -> bool {
        version != 0 && self.known().get(reference).is_some_and(|known| *known >= version)
    }

    /// Is the change not older than what is known? If so it is known from now on.
    pub fn admit(&mut self, change: &Change) -> bool {
        match change {
            Change::Apply(object) => self.admit_object(object),
            Change::Delete { reference, version, .. } => {
                let mut known = self.known();
                if known.get(reference).is_some_and(|known| known > version) {
                    return false;
                }
                known.remove(reference).is_some()
            }
            Change::Unreadable(..) | Change::Listed(_) | Change::Reached(..) => true,
        }
    }

    /// Is this object not older than what is known? If so it is known from now on.
    pub fn admit_object(&mut self, object: &Object) -> bool {
        let version = version(object);
        match self.known().entry(object.reference()) {
            std::collections::hash_map::Entry::Occupied(mut known) => {
                let newer = version >= *known.get();
                if newer {
                    known.insert(version);
                }
                newer
            }
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(version);
                true
            }
        }
    }

    /// The object was read directly: that is how it is, whatever was known.
    pub fn set(&mut self, object: &Object) {
        self.known().insert(object.reference(), version(object));
    }

    /// The object is not there: that is how it is, whatever was known.
    pub fn remove(&mut self, reference: &ObjectRef) {
        self.known().remove(reference);
    }
}
