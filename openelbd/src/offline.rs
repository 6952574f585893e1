//! What `standalone` would decide, without a disk to write to: objects in memory, writes applied to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use openelb_k8s::{
    index::{Indexes, services::ClassRules},
    names::{annotation, label},
    object::{Kind, Object, ObjectRef},
    plan::{Write, merge_patch},
    problem::{Problem, Severity},
    source::manifests::Loaded,
};

use crate::decide;

/// Decisions follow each other (commit, then publish); each is made at most so often before something is wrong.
const ROUNDS: usize = 64;

/// Objects with their status, in memory.
#[derive(Debug)]
pub(crate) struct World {
    objects: BTreeMap<ObjectRef, Object>,
    indexes: Indexes,
}

impl World {
    /// The objects of the manifests, with the status that they have in what is [`stored`].
    pub(crate) fn new(loaded: &Loaded, stored: Vec<Object>, rules: ClassRules, now: Timestamp) -> Self {
        let mut stored: BTreeMap<ObjectRef, Object> =
            stored.into_iter().map(|object| (object.reference(), object)).collect();
        let mut world = Self { objects: BTreeMap::new(), indexes: Indexes::new(rules) };
        for document in &loaded.documents {
            let reference = document.object.reference();
            // The same object in two files: the first file by name wins.
            if world.objects.contains_key(&reference) {
                continue;
            }
            let before = stored.remove(&reference);
            world.objects.insert(reference, merge(&document.object, before, now));
        }
        // A document that cannot be used holds its object; one that cannot be attributed may hold any.
        let attributed = |problem: &Problem| problem.severity != Severity::Error || problem.object.is_some();
        let complete = loaded.problems.iter().all(attributed);
        let held: BTreeSet<&ObjectRef> = loaded.unreadable.iter().map(|(reference, _)| reference).collect();
        let kept: Vec<ObjectRef> =
            stored.keys().filter(|reference| !complete || held.contains(reference)).cloned().collect();
        for reference in kept {
            if let Some(object) = stored.remove(&reference) {
                world.objects.entry(reference).or_insert(object);
            }
        }
        // What no manifest holds any more is deleted: Services at once, an Eip when its last address is released.
        let in_use =
            |object: &Object| !object.metadata().finalizers.as_deref().unwrap_or_default().is_empty();
        for (reference, mut object) in stored {
            if reference.kind == Kind::Eip && in_use(&object) {
                object.metadata_mut().deletion_timestamp = Some(Time(now));
                world.objects.insert(reference, object);
            }
        }
        for object in world.objects.values() {
            world.indexes.apply(object);
        }
        world
    }

    /// Decides until nothing is left to write.
    pub(crate) fn settle(&mut self, now: Timestamp) -> anyhow::Result<()> {
        for _ in 0..ROUNDS {
            let decision = decide::decide(&self.indexes, now);
            if decision.writes.is_empty() {
                return Ok(());
            }
            for write in &decision.writes {
                self.write(write)?;
            }
        }
        bail!(
            "the decisions do not come to an end after {ROUNDS} rounds; please report this with your manifests"
        )
    }

    /// What was decided.
    pub(crate) fn indexes(&self) -> &Indexes {
        &self.indexes
    }

    fn write(&mut self, write: &Write) -> anyhow::Result<()> {
        let Some(object) = self.objects.get(&write.target) else { return Ok(()) };
        let mut value = object.to_value().with_context(|| write.target.to_string())?;
        merge_patch(&mut value, &write.patch());
        let patched = Object::from_value(value)
            .map_err(|problem| anyhow!("{problem}"))?
            .with_context(|| write.target.to_string())?;
        let mut patched = patched;
        let metadata = patched.metadata_mut();
        let before = metadata.resource_version.as_deref().and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
        metadata.resource_version = Some(before.saturating_add(1).to_string());
        let done = metadata.deletion_timestamp.is_some()
            && metadata.finalizers.as_deref().unwrap_or_default().is_empty();
        if done {
            self.objects.remove(&write.target);
            self.indexes.delete(&write.target);
        } else {
            self.indexes.apply(&patched);
            self.objects.insert(write.target.clone(), patched);
        }
        Ok(())
    }
}

/// The manifest's object as the store would have it: metadata and status that we own come from the store.
fn merge(manifest: &Object, before: Option<Object>, now: Timestamp) -> Object {
    let mut object = manifest.clone();
    let old = before.as_ref().map(|before| before.metadata().clone());
    let metadata = object.metadata_mut();
    take_over(metadata, old, now);
    match (&mut object, before) {
        (Object::Eip(new), Some(Object::Eip(old))) => new.status = old.status,
        (Object::Service(new), Some(Object::Service(old))) => new.status = old.status,
        (Object::Eip(new), _) => new.status = None,
        (Object::Service(new), _) => new.status = None,
        _ => {}
    }
    object
}

fn take_over(metadata: &mut ObjectMeta, old: Option<ObjectMeta>, now: Timestamp) {
    let old = old.unwrap_or_else(|| ObjectMeta {
        creation_timestamp: Some(Time(now)),
        generation: Some(1),
        resource_version: Some("1".to_owned()),
        ..ObjectMeta::default()
    });
    metadata.uid = old.uid.or_else(|| metadata.name.clone());
    metadata.creation_timestamp = old.creation_timestamp;
    metadata.generation = old.generation;
    metadata.resource_version = old.resource_version;
    metadata.finalizers = old.finalizers;
    let keep =
        |new: &mut Option<BTreeMap<String, String>>, old: Option<BTreeMap<String, String>>, key: &str| {
            if let Some(value) = old.and_then(|mut old| old.remove(key)) {
                new.get_or_insert_default().insert(key.to_owned(), value);
            }
        };
    keep(&mut metadata.labels, old.labels, label::POOL);
    keep(&mut metadata.annotations, old.annotations, annotation::ASSIGNED);
}

/// What a state directory holds; nothing without one. It is only read.
pub(crate) fn stored(directory: Option<&Path>) -> Vec<Object> {
    directory.map(read_state).unwrap_or_default()
}

/// Objects of `DIR/<plural>/<namespace or _>/<name>.yaml`. One that cannot be read is told and left out.
fn read_state(directory: &Path) -> Vec<Object> {
    let mut objects = Vec::new();
    for kind in Kind::ALL.iter().filter(|kind| kind.has_our_status()) {
        for file in entries(&directory.join(kind.plural())).iter().flat_map(|namespace| entries(namespace)) {
            let hidden =
                file.file_name().and_then(|name| name.to_str()).is_none_or(|name| name.starts_with('.'));
            if hidden || file.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            match read_object(&file) {
                Ok(object) => objects.extend(object),
                Err(error) => tracing::warn!("{}: {error:#}; it is left out", file.display()),
            }
        }
    }
    objects
}

/// A directory's entries, in order; none if it cannot be read.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn read_object(file: &Path) -> anyhow::Result<Option<Object>> {
    if !file.is_file() {
        return Err(anyhow!("it is not a regular file"));
    }
    let text = std::fs::read_to_string(file)?;
    let value: serde_json::Value = serde_saphyr::from_str(&text)?;
    Object::from_value(value).map_err(|problem| anyhow!("{problem}"))
}
