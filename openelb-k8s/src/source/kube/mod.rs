//! Objects of an API server: complete lists, then watches, as changes in batches.
//!
//! Each [`Selection`] has a task that lists in pages, watches from the list's version with bookmarks, lists again when
//! the server says that the version is too old (410), and backs off with jitter while it cannot be reached. Objects
//! are parsed one by one: one that cannot be read is told of as [`Change::Unreadable`] and stops nothing else.
//!
//! Nothing old replaces something newer: a list or an event of a lower `resourceVersion` than what was told already is
//! dropped, so that a stale list (of a lagging replica or cache) takes nothing back. [`Versions`] does the same for
//! whoever also writes, and knows more from the answers than the watch has brought yet.

pub(crate) mod reflector;
pub(crate) mod text;
mod versions;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::{mpsc, watch as signal};
use tokio::task::AbortHandle;

use crate::object::{Kind, Object, ObjectRef};
use crate::problem::Problem;

pub use versions::{Versions, version};

/// So many batches wait for a slow reader: of thousands of objects that it has not taken yet, the server holds the text.
const CHANNEL: usize = 4;

/// Which objects to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The kind.
    pub kind: Kind,
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only those that match, for example `spec.type=LoadBalancer`.
    pub field_selector: Option<String>,
    /// Only those that match.
    pub label_selector: Option<String>,
    /// See [`Self::by_generation`].
    pub by_generation: bool,
}

impl Selection {
    /// Every object of a kind.
    #[must_use]
    pub fn all(kind: Kind) -> Self {
        Self { kind, namespace: None, field_selector: None, label_selector: None, by_generation: false }
    }

    /// Only of this namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Only those whose fields match.
    #[must_use]
    pub fn fields(mut self, selector: impl Into<String>) -> Self {
        self.field_selector = Some(selector.into());
        self
    }

    /// Only those whose labels match.
    #[must_use]
    pub fn labels(mut self, selector: impl Into<String>) -> Self {
        self.label_selector = Some(selector.into());
        self
    }

    /// Watched by metadata, and fetched whole only when the generation, the annotations, the labels or the deletion
    /// change: what changes of the status alone is not transferred. For objects whose status is big and changes often.
    #[must_use]
    pub fn by_generation(mut self) -> Self {
        self.by_generation = true;
        self
    }

    /// Eips for a reader that does not allocate: [by generation](Self::by_generation). Their `status.used` then holds
    /// only what lies outside the ranges of the spec (kept after a shrink): the rest would soon be out of date. While
    /// another Eip covers what was kept, so that it moves there, or the spec is bad, every change is fetched.
    #[must_use]
    pub fn eips_by_generation() -> Self {
        Self::all(Kind::Eip).by_generation()
    }
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The object is new or different.
    Apply(Object),
    /// The object is gone.
    Delete {
        /// Which object.
        reference: ObjectRef,
        /// The `resourceVersion` of the deletion, or of the list that did not hold the object.
        version: u64,
        /// The server said that it was deleted; otherwise it was only missing from a list.
        witnessed: bool,
    },
    /// The object's present version cannot be read; the last good one stays in force. It ends with an
    /// [`Apply`](Self::Apply) or a [`Delete`](Self::Delete) of the object.
    Unreadable(ObjectRef, Problem),
    /// The first complete list of this kind is in.
    Listed(Kind),
    /// Every change of this kind up to this `resourceVersion` has been told.
    Reached(Kind, u64),
}

/// Whether the API server answers; the text says what fails.
pub type Reachability = Result<(), String>;

/// The watches of some selections; they end when this is dropped.
pub struct Watch {
    client: Client,
    tasks: BTreeMap<Kind, AbortHandle>,
    sender: mpsc::Sender<Vec<Change>>,
    reachability: Arc<signal::Sender<BTreeMap<Kind, String>>>,
    /// What the reader knows from elsewhere.
    versions: Versions,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("kinds", &self.tasks.keys()).finish_non_exhaustive()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for task in self.tasks.values() {
            task.abort();
        }
    }
}

/// Watches until the [`Watch`] or the receiver is dropped.
#[must_use]
pub fn watch(
    client: Client,
    selections: impl IntoIterator<Item = Selection>,
) -> (Watch, mpsc::Receiver<Vec<Change>>) {
    watch_beside(client, selections, &Versions::default())
}

/// The same for a reader that also writes: a version of an object that it [knows](Versions) already, from the answer to
/// a write, is not told.
#[must_use]
pub fn watch_beside(
    client: Client,
    selections: impl IntoIterator<Item = Selection>,
    versions: &Versions,
) -> (Watch, mpsc::Receiver<Vec<Change>>) {
    let (sender, receiver) = mpsc::channel(CHANNEL);
    let reachability = Arc::new(signal::Sender::new(BTreeMap::new()));
    let versions = versions.clone();
    let mut watch = Watch { client, tasks: BTreeMap::new(), sender, reachability, versions };
    for selection in selections {
        watch.add(selection);
    }
    (watch, receiver)
}

impl Watch {
    /// Watches one more selection; it replaces one of the same kind.
    pub fn add(&mut self, selection: Selection) {
        let kind = selection.kind;
        let reachability = Arc::clone(&self.reachability);
        let (sender, versions) = (self.sender.clone(), self.versions.clone());
        let reflector =
            reflector::Reflector::new(self.client.clone(), selection, sender, reachability, versions);
        let task = tokio::spawn(reflector.run()).abort_handle();
        if let Some(before) = self.tasks.insert(kind, task) {
            before.abort();
        }
    }

    /// Stops watching a kind. Nothing is told of its objects any more, also not that they are gone.
    pub fn remove(&mut self, kind: Kind) {
        if let Some(task) = self.tasks.remove(&kind) {
            task.abort();
            self.reachability.send_if_modified(|failing| failing.remove(&kind).is_some());
        }
    }

    /// Is this kind watched?
    #[must_use]
    pub fn watches(&self, kind: Kind) -> bool {
        self.tasks.contains_key(&kind)
    }

    /// Which kinds cannot be watched at the moment, and why; empty: all is well.
    #[must_use]
    pub fn failing(&self) -> signal::Receiver<BTreeMap<Kind, String>> {
        self.reachability.subscribe()
    }
}

/// Waits between tries: doubling from 100 ms to 5 s, each between half and the whole of that.
#[derive(Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next pause.
    pub fn next_pause(&mut self) -> Duration {
        let whole = Duration::from_millis(100u64 << self.tries.min(6)).min(Duration::from_secs(5));
        self.tries = self.tries.saturating_add(1);
        whole.mul_f64(0.5 + jitter() / 2.0)
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

/// Between 0 and 1, different in each process and call: so that replicas do not come back in step.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(random >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests;
