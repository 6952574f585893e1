//! Where objects come from: an API server, or a directory of manifests.

pub mod kube;
pub mod manifests;

use std::collections::BTreeSet;

use notify::event::{AccessKind, AccessMode, EventKind};

use crate::object::{Object, ObjectRef};
use crate::problem::Problem;

/// What one look at a source found: the difference to the look before.
///
/// A pass is taken in as a whole: objects that are first seen in one pass are equally old.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pass {
    /// Objects that are new or different, in the order of files and documents.
    pub applied: Vec<Object>,
    /// Objects that are gone.
    pub deleted: Vec<ObjectRef>,
    /// Objects whose present document cannot be used; their last good version (if any) stays in force.
    pub unreadable: Vec<(ObjectRef, Problem)>,
    /// Everything that is wrong now (not only what is new).
    pub problems: Vec<Problem>,
    /// Every object that a document holds, readable or not.
    pub held: BTreeSet<ObjectRef>,
    /// Could every document be attributed to an object? If not, an object that is not in `held` may still be meant
    /// to exist.
    pub complete: bool,
}

impl Pass {
    /// Did nothing change that a reader of objects would see?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.applied.is_empty() && self.deleted.is_empty() && self.unreadable.is_empty()
    }
}

/// Can this event of a file system mean a change? Looking makes events of its own, and must not lead to another look.
pub(crate) fn is_change(event: &notify::Result<notify::Event>) -> bool {
    match event {
        Ok(event) => match event.kind {
            EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
            _ => true,
        },
        // Events were lost: look.
        Err(_) => true,
    }
}
