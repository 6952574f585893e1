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
mod transaction;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use notify::Watcher as _;

use super::{Store, StoreChange, StoreError};
use crate::object::{Kind, Object, ObjectRef};
use crate::plan::Write;
use crate::problem::Problem;
use crate::source::Pass;
use file::Fingerprint;
use transaction::Transaction;

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
    /// What a writer found changed by another process and nobody was told of yet.
    untold: BTreeSet<ObjectRef>,
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
        transaction.tell(|change| changes.push(change));
        transaction.finish()?;
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
        let mut transaction = self.begin()?;
        transaction.look(|change| changes.push(change))?;
        transaction.finish()?;
        Ok(changes)
    }

    fn is_unchanged(&self) -> bool {
        let state = self.state();
        file::list(&self.inner.path).is_ok_and(|files| {
            state.untold.is_empty()
                && files.len() == state.entries.len()
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
        Ok(Transaction { root: &self.inner.path, state, _lock: lock, unsynced: BTreeSet::new() })
    }

    fn commit(&self, write: &Write) -> Result<Option<Object>, StoreError> {
        let mut transaction = self.begin()?;
        let written = transaction.write(write)?;
        transaction.finish()?;
        Ok(written)
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

/// The kinds that are stored.
fn stored_kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|kind| kind.has_our_status())
}
