//! The embedded store: a directory with one file an object.
//!
//! `DIR/<plural>/<namespace or _>/<name>.yaml` holds the object as an API server would return it, with metadata and
//! status: Services and our own kinds. (Nodes, EndpointSlices, Namespaces, Secrets and ConfigMaps have no status of
//! ours, and are only passed on.)
//!
//! A file is written beside its place, flushed to the disk, and renamed: whoever reads sees the old or the new one.
//! Writers hold an exclusive lock on `DIR/.lock` and read the file again under it, so several processes can share the
//! directory, and one that dies at any moment leaves it whole. A file that cannot be read is reported, set aside as
//! `.garbled-…`, and rebuilt.

mod file;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use notify::Watcher as _;
use serde_json::{Map, Value};

use super::{Store, StoreChange, StoreError};
use crate::names::{annotation, label};
use crate::object::{Kind, Object, ObjectRef};
use crate::plan::{Write, merge_patch, whole_seconds};
use crate::problem::Problem;
use crate::source::Pass;
use file::{Fingerprint, Read};

/// How long a writer waits for another process's lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// A directory that keeps objects. Clones share it.
#[derive(Clone, Debug)]
pub struct StateDirectory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<ObjectRef, Entry>,
    /// The highest `resourceVersion` that was seen or given.
    version: u64,
}

#[derive(Debug)]
struct Entry {
    object: Object,
    fingerprint: Fingerprint,
}

impl StateDirectory {
    /// Opens the directory, and makes it if it is not there. Files that cannot be read are set aside and reported.
    ///
    /// # Errors
    /// If it cannot be made, read or locked.
    pub fn open(path: &Path) -> Result<(Self, Vec<Problem>), StoreError> {
        std::fs::create_dir_all(path).map_err(|source| file::io_error(path, source))?;
        let store =
            Self { inner: Arc::new(Inner { path: path.to_path_buf(), state: Mutex::new(State::default()) }) };
        let mut problems = Vec::new();
        {
            let mut transaction = store.begin()?;
            file::remove_leftovers(path);
            transaction.look(|change| {
                if let StoreChange::Problem(problem) = change {
                    problems.push(problem);
                }
            })?;
        }
        Ok((store, problems))
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Every object that is stored, as this process knows it.
    #[must_use]
    pub fn objects(&self) -> Vec<Object> {
        self.state().entries.values().map(|entry| entry.object.clone()).collect()
    }

    /// One object, as this process knows it.
    #[must_use]
    pub fn get(&self, reference: &ObjectRef) -> Option<Object> {
        self.state().entries.get(reference).map(|entry| entry.object.clone())
    }

    /// Takes in a pass of manifests as `kubectl apply` and `kubectl delete` would: spec, labels and annotations come
    /// from the manifest, status stays. Returns what changed, objects that are only passed on too.
    ///
    /// With `first` (the first pass after start) stored objects that no manifest holds are deleted, if the pass is
    /// complete. New objects get `now`, cut to seconds, as their creation time.
    ///
    /// # Errors
    /// If the directory cannot be written. What was written stays written; take the pass in again.
    pub fn take_in(&self, pass: &Pass, first: bool, now: Timestamp) -> Result<Vec<StoreChange>, StoreError> {
        let mut changes = Vec::new();
        let mut transaction = self.begin()?;
        for object in &pass.applied {
            if !object.kind().has_our_status() {
                changes.push(StoreChange::Apply(object.clone()));
                continue;
            }
            match transaction.apply(object, now) {
                Ok(Some(object)) => changes.push(StoreChange::Apply(object)),
                Ok(None) => {}
                Err(StoreError::Io { path, source }) => return Err(StoreError::Io { path, source }),
                // One bad object does not stop the others.
                Err(error) => changes.push(StoreChange::Problem(
                    Problem::error(error.to_string(), "correct the manifest").of(object.reference()),
                )),
            }
        }
        let mut deleted: BTreeSet<ObjectRef> = pass.deleted.iter().cloned().collect();
        if first && pass.complete {
            deleted.extend(
                transaction.references().into_iter().filter(|reference| !pass.held.contains(reference)),
            );
        }
        for reference in deleted {
            if !reference.kind.has_our_status() {
                changes.push(StoreChange::Delete(reference));
            } else if let Some(change) = transaction.delete(&reference, now)? {
                changes.push(change);
            }
        }
        Ok(changes)
    }

    /// Changes that other processes make, noticed by events and by looking every `poll`. The thread ends with the
    /// receiver, at the next look.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn watch(&self, poll: Duration) -> Result<tokio::sync::mpsc::Receiver<Vec<StoreChange>>, StoreError> {
        let (sender, receiver) = tokio::sync::mpsc::channel(16);
        let (wake, woken) = channel();
        let store = self.clone();
        let thread = std::thread::Builder::new().name("state-directory".to_owned()).spawn(move || {
            let watcher = notify::recommended_watcher(move |event| {
                if crate::source::is_change(&event) {
                    // The receiver is gone only when the thread ends.
                    let _ = wake.send(());
                }
            });
            let _watcher = watcher.ok().and_then(|mut watcher| {
                watcher.watch(store.path(), notify::RecursiveMode::Recursive).ok().map(|()| watcher)
            });
            let mut failed = false;
            while !sender.is_closed() {
                match store.look() {
                    Ok(changes) => {
                        failed = false;
                        if !changes.is_empty() && sender.blocking_send(changes).is_err() {
                            return;
                        }
                    }
                    Err(error) if !failed => {
                        failed = true;
                        let problem = Problem::error(error.to_string(), "the last known state goes on");
                        if sender.blocking_send(vec![StoreChange::Problem(problem)]).is_err() {
                            return;
                        }
                    }
                    Err(_) => {}
                }
                match woken.recv_timeout(poll) {
                    Ok(()) => {
                        // Several events belong to one write; reading also makes events.
                        std::thread::sleep(Duration::from_millis(10).min(poll));
                        while woken.try_recv().is_ok() {}
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => std::thread::sleep(poll),
                }
            }
        });
        thread.map_err(|source| file::io_error(&self.inner.path, source))?;
        Ok(receiver)
    }

    /// Looks at the files once: what did other processes change?
    ///
    /// # Errors
    /// If the directory cannot be read or locked.
    pub fn look(&self) -> Result<Vec<StoreChange>, StoreError> {
        // Most looks find nothing: no lock for them.
        if self.is_unchanged() {
            return Ok(Vec::new());
        }
        let mut changes = Vec::new();
        self.begin()?.look(|change| changes.push(change))?;
        Ok(changes)
    }

    fn is_unchanged(&self) -> bool {
        let state = self.state();
        file::list(&self.inner.path).is_ok_and(|files| {
            files.len() == state.entries.len()
                && files.iter().all(|(reference, path)| {
                    state
                        .entries
                        .get(reference)
                        .is_some_and(|entry| file::fingerprint(path) == Some(entry.fingerprint))
                })
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held left whole entries: each is replaced as one.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> Result<Transaction<'_>, StoreError> {
        let state = self.state();
        let lock_path = self.inner.path.join(".lock");
        let io = |source| file::io_error(&lock_path, source);
        let lock = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(io)?;
        let started = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(std::fs::TryLockError::WouldBlock) if started.elapsed() < LOCK_TIMEOUT => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(std::fs::TryLockError::WouldBlock) => {
                    let message = "another process holds the lock and does not give it back";
                    return Err(io(io::Error::new(io::ErrorKind::TimedOut, message)));
                }
                Err(std::fs::TryLockError::Error(error)) => return Err(io(error)),
            }
        }
        Ok(Transaction { root: &self.inner.path, state, _lock: lock })
    }

    fn commit(&self, write: &Write) -> Result<Option<Object>, StoreError> {
        self.begin()?.write(write)
    }
}

#[async_trait::async_trait]
impl Store for StateDirectory {
    async fn list(&self) -> Result<Vec<Object>, StoreError> {
        Ok(self.objects())
    }

    async fn write(&self, write: &Write) -> Result<Option<Object>, StoreError> {
        let (store, task) = (self.clone(), write.clone());
        match tokio::task::spawn_blocking(move || store.commit(&task)).await {
            Ok(result) => result,
            Err(error) => Err(file::io_error(&self.inner.path, io::Error::other(error))),
        }
    }
}

/// Both locks are held: this process's and the directory's (which goes with the file).
struct Transaction<'a> {
    root: &'a Path,
    state: MutexGuard<'a, State>,
    _lock: std::fs::File,
}

impl Transaction<'_> {
    fn references(&self) -> Vec<ObjectRef> {
        self.state.entries.keys().cloned().collect()
    }

    /// Reads an object again if another process changed it.
    fn refresh(&mut self, reference: &ObjectRef) -> Result<(), StoreError> {
        let path = file::path(self.root, reference)?;
        let known = self.state.entries.get(reference).map(|entry| entry.fingerprint);
        let found = file::fingerprint(&path);
        if known == found {
            return Ok(());
        }
        match file::read(&path, reference) {
            Read::Object(object, fingerprint) => {
                self.insert(*object, fingerprint);
            }
            Read::Gone => {
                self.state.entries.remove(reference);
            }
            // What this process still knows replaces it with the write that follows.
            Read::Garbled(_) => file::set_aside(&path)?,
            Read::Failed(error) => return Err(error),
        }
        Ok(())
    }

    fn insert(&mut self, object: Object, fingerprint: Fingerprint) {
        if let Some(version) = object.metadata().resource_version.as_ref().and_then(|v| v.parse().ok()) {
            self.state.version = self.state.version.max(version);
        }
        self.state.entries.insert(object.reference(), Entry { object, fingerprint });
    }

    /// Reads every file that changed.
    fn look(&mut self, mut report: impl FnMut(StoreChange)) -> Result<(), StoreError> {
        let files = file::list(self.root)?;
        for (reference, path) in &files {
            let known = self.state.entries.get(reference);
            if known.is_some_and(|entry| file::fingerprint(path) == Some(entry.fingerprint)) {
                continue;
            }
            match file::read(path, reference) {
                Read::Object(object, fingerprint) => {
                    let changed = known.is_none_or(|entry| entry.object != *object);
                    self.insert((*object).clone(), fingerprint);
                    if changed {
                        report(StoreChange::Apply(*object));
                    }
                }
                Read::Gone => {}
                Read::Garbled(cause) => {
                    file::set_aside(path)?;
                    let mut problem = Problem::error(
                        format!("the stored object cannot be read: {cause}"),
                        "it was set aside as .garbled-… beside its place and is rebuilt; nothing needs to be done",
                    );
                    problem.file = Some(path.clone());
                    report(StoreChange::Problem(problem.of(reference.clone())));
                    if let Some(entry) = self.state.entries.remove(reference) {
                        self.persist(entry.object)?;
                    }
                }
                Read::Failed(error) => return Err(error),
            }
        }
        let present: BTreeSet<&ObjectRef> = files.iter().map(|(reference, _)| reference).collect();
        for reference in self.references() {
            if !present.contains(&reference)
                && file::fingerprint(&file::path(self.root, &reference)?).is_none()
            {
                self.state.entries.remove(&reference);
                report(StoreChange::Delete(reference));
            }
        }
        Ok(())
    }

    /// Gives the object the next version and writes it.
    fn persist(&mut self, mut object: Object) -> Result<Object, StoreError> {
        // Time keeps versions of a deleted object's successor apart from its own.
        let time = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or(0);
        let version = self.state.version.saturating_add(1).max(time);
        object.metadata_mut().resource_version = Some(version.to_string());
        let path = file::path(self.root, &object.reference())?;
        let fingerprint = file::write(&path, &object)?;
        self.insert(object.clone(), fingerprint);
        Ok(object)
    }

    fn write(&mut self, write: &Write) -> Result<Option<Object>, StoreError> {
        self.refresh(&write.target)?;
        let Some(entry) = self.state.entries.get(&write.target) else {
            return Err(StoreError::NotFound(write.target.clone()));
        };
        let found = entry.object.metadata().resource_version.clone().unwrap_or_default();
        if found != write.resource_version {
            return Err(StoreError::Conflict {
                object: write.target.clone(),
                expected: write.resource_version.clone(),
                found,
            });
        }
        let invalid = |cause: String| StoreError::Invalid { object: write.target.clone(), cause };
        let mut value = entry.object.to_value().map_err(|error| invalid(error.to_string()))?;
        merge_patch(&mut value, &allowed(&write.patch));
        let object = Object::from_value(value)
            .map_err(|problem| invalid(problem.to_string()))?
            .ok_or_else(|| invalid("the write changes its kind".to_owned()))?;
        if object == entry.object {
            return Ok(Some(object));
        }
        let metadata = object.metadata();
        if metadata.deletion_timestamp.is_some() && metadata.finalizers.as_ref().is_none_or(Vec::is_empty) {
            file::remove(&file::path(self.root, &write.target)?)?;
            self.state.entries.remove(&write.target);
            return Ok(None);
        }
        self.persist(object).map(Some)
    }

    /// Creates or updates an object from its manifest. `None` if nothing changed.
    fn apply(&mut self, manifest: &Object, now: Timestamp) -> Result<Option<Object>, StoreError> {
        let reference = manifest.reference();
        self.refresh(&reference)?;
        let Some(entry) = self.state.entries.get(&reference) else {
            let mut object = manifest.clone();
            let metadata = object.metadata_mut();
            metadata.uid = Some(file::uid());
            metadata.creation_timestamp = Some(Time(whole_seconds(now)));
            metadata.generation = Some(1);
            metadata.deletion_timestamp = None;
            return self.persist(object).map(Some);
        };
        let invalid = |error: serde_json::Error| StoreError::Invalid {
            object: reference.clone(),
            cause: error.to_string(),
        };
        let before = entry.object.to_value().map_err(invalid)?;
        let mut after = manifest.to_value().map_err(invalid)?;
        let changed = before.get("spec") != after.get("spec");
        if let (Some(status), Value::Object(map)) = (before.get("status"), &mut after) {
            map.insert("status".to_owned(), status.clone());
        }
        let mut object = Object::from_value(after)
            .map_err(|problem| StoreError::Invalid { object: reference.clone(), cause: problem.to_string() })?
            .unwrap_or_else(|| manifest.clone());
        let old = entry.object.metadata();
        let metadata = object.metadata_mut();
        metadata.uid.clone_from(&old.uid);
        metadata.creation_timestamp.clone_from(&old.creation_timestamp);
        metadata.resource_version.clone_from(&old.resource_version);
        metadata.generation = Some(old.generation.unwrap_or(1) + i64::from(changed));
        metadata.finalizers.clone_from(&old.finalizers);
        // A document that is there again cancels the deletion.
        metadata.deletion_timestamp = None;
        keep(&mut metadata.labels, old.labels.as_ref(), &[label::POOL]);
        keep(&mut metadata.annotations, old.annotations.as_ref(), &[annotation::ASSIGNED]);
        if object == entry.object {
            return Ok(None);
        }
        self.persist(object).map(Some)
    }

    /// Deletes an object, or marks it if it has finalizers. `None` if it was not there or is marked already.
    fn delete(&mut self, reference: &ObjectRef, now: Timestamp) -> Result<Option<StoreChange>, StoreError> {
        self.refresh(reference)?;
        let Some(entry) = self.state.entries.get(reference) else { return Ok(None) };
        let metadata = entry.object.metadata();
        let finalizers = metadata.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty());
        // An Eip in use goes when its last address is released, whether its finalizer was written already or not.
        let in_use = match &entry.object {
            Object::Eip(eip) => {
                eip.status.as_ref().and_then(|s| s.used.as_ref()).is_some_and(|used| !used.is_empty())
            }
            _ => false,
        };
        if finalizers || in_use {
            if metadata.deletion_timestamp.is_some() {
                return Ok(None);
            }
            let mut object = entry.object.clone();
            let metadata = object.metadata_mut();
            metadata.deletion_timestamp = Some(Time(whole_seconds(now)));
            if !finalizers {
                metadata.finalizers = Some(vec![crate::names::finalizer::EIP.to_owned()]);
            }
            return self.persist(object).map(|object| Some(StoreChange::Apply(object)));
        }
        file::remove(&file::path(self.root, reference)?)?;
        self.state.entries.remove(reference);
        Ok(Some(StoreChange::Delete(reference.clone())))
    }
}

/// Keeps what we wrote ourselves: no manifest has it.
fn keep(
    labels: &mut Option<BTreeMap<String, String>>,
    old: Option<&BTreeMap<String, String>>,
    ours: &[&str],
) {
    for key in ours {
        if let Some(value) = old.and_then(|old| old.get(*key)) {
            labels.get_or_insert_default().entry((*key).to_owned()).or_insert_with(|| value.clone());
        }
    }
}

/// The part of a patch that a plan may write.
fn allowed(patch: &Value) -> Value {
    let mut allowed = Map::new();
    if let Some(status) = patch.get("status") {
        allowed.insert("status".to_owned(), status.clone());
    }
    let metadata: Map<String, Value> = ["labels", "annotations", "finalizers"]
        .iter()
        .filter_map(|key| patch.get("metadata")?.get(key).map(|value| ((*key).to_owned(), value.clone())))
        .collect();
    if !metadata.is_empty() {
        allowed.insert("metadata".to_owned(), Value::Object(metadata));
    }
    Value::Object(allowed)
}

/// The kinds that are stored.
fn stored_kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|kind| kind.has_our_status())
}
