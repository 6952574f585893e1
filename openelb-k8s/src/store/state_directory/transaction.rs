//! What a writer does while it holds both locks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::MutexGuard;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::file::{self, Fingerprint, Read};
use super::{Entry, State};
use crate::names::{annotation, label};
use crate::object::{Object, ObjectRef};
use crate::plan::{Write, merge_patch, whole_seconds};
use crate::problem::Problem;
use crate::store::{StoreChange, StoreError, allowed};

/// Both locks are held: this process's and the directory's (which goes with the file).
pub(super) struct Transaction<'a> {
    pub(super) root: &'a Path,
    pub(super) state: MutexGuard<'a, State>,
    pub(super) _lock: std::fs::File,
    /// Directories whose names must still be flushed.
    pub(super) unsynced: BTreeSet<PathBuf>,
}

impl Transaction<'_> {
    /// Flushes what was written: only then it may be told of.
    pub(super) fn finish(self) -> Result<(), StoreError> {
        self.unsynced.iter().try_for_each(|directory| file::sync(directory))
    }

    fn touched(&mut self, path: &Path) {
        if let Some(directory) = path.parent() {
            self.unsynced.insert(directory.to_path_buf());
        }
    }

    fn remove(&mut self, reference: &ObjectRef) -> Result<(), StoreError> {
        let path = file::path(self.root, reference)?;
        file::remove(&path)?;
        self.touched(&path);
        self.state.entries.remove(reference);
        Ok(())
    }

    pub(super) fn references(&self) -> Vec<ObjectRef> {
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
                self.state.untold.insert(reference.clone());
            }
            Read::Gone => {
                self.state.entries.remove(reference);
                self.state.untold.insert(reference.clone());
            }
            // What this process still knows replaces it with the write that follows.
            Read::Garbled(_) => file::set_aside(&path)?,
            Read::Failed(error) => return Err(error),
        }
        Ok(())
    }

    /// Reports, as it is now, what [`refresh`](Self::refresh) found changed: the next look would find it known.
    pub(super) fn tell(&mut self, mut report: impl FnMut(StoreChange)) {
        for reference in std::mem::take(&mut self.state.untold) {
            report(match self.state.entries.get(&reference) {
                Some(entry) => StoreChange::Apply(entry.object.clone()),
                None => StoreChange::Delete(reference),
            });
        }
    }

    fn insert(&mut self, object: Object, fingerprint: Fingerprint) {
        if let Some(version) = object.metadata().resource_version.as_ref().and_then(|v| v.parse().ok()) {
            self.state.version = self.state.version.max(version);
        }
        self.state.entries.insert(object.reference(), Entry { object, fingerprint });
    }

    /// Reads every file that changed.
    pub(super) fn look(&mut self, mut report: impl FnMut(StoreChange)) -> Result<(), StoreError> {
        let files = file::list(self.root)?;
        for (reference, path) in &files {
            let known = self.state.entries.get(reference);
            if known.is_some_and(|entry| file::fingerprint(path) == Some(entry.fingerprint)) {
                continue;
            }
            match file::read(path, reference) {
                Read::Object(object, fingerprint) => {
                    let changed = known.is_none_or(|entry| entry.object != *object);
                    self.insert(*object, fingerprint);
                    if changed {
                        self.state.untold.insert(reference.clone());
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
                self.state.untold.insert(reference);
            }
        }
        self.tell(report);
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
        self.touched(&path);
        self.insert(object.clone(), fingerprint);
        Ok(object)
    }

    pub(super) fn write(&mut self, write: &Write) -> Result<Option<Object>, StoreError> {
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
        merge_patch(&mut value, &allowed(&write.patch()));
        let object = Object::from_value(value)
            .map_err(|problem| invalid(problem.to_string()))?
            .ok_or_else(|| invalid("the write changes its kind".to_owned()))?;
        if object == entry.object {
            return Ok(Some(object));
        }
        let metadata = object.metadata();
        if metadata.deletion_timestamp.is_some() && metadata.finalizers.as_ref().is_none_or(Vec::is_empty) {
            self.remove(&write.target)?;
            return Ok(None);
        }
        self.persist(object).map(Some)
    }

    /// Creates or updates an object from its manifest. `None` if nothing changed.
    pub(super) fn apply(&mut self, manifest: &Object, now: Timestamp) -> Result<Option<Object>, StoreError> {
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
        metadata.generation = Some(old.generation.unwrap_or(1).saturating_add(changed.into()));
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
    pub(super) fn delete(
        &mut self,
        reference: &ObjectRef,
        now: Timestamp,
    ) -> Result<Option<StoreChange>, StoreError> {
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
            // As an API server counts it: permission for the last change is none for this one.
            metadata.generation = Some(metadata.generation.unwrap_or(1).saturating_add(1));
            if !finalizers {
                metadata.finalizers = Some(vec![crate::names::finalizer::EIP.to_owned()]);
            }
            return self.persist(object).map(|object| Some(StoreChange::Apply(object)));
        }
        self.remove(reference)?;
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
