//! One object, one file.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crate::object::{Object, ObjectRef};
use crate::store::StoreError;

/// Stands for the namespace of objects that have none.
const NO_NAMESPACE: &str = "_";
const TEMPORARY: &str = ".tmp-";
const GARBLED: &str = ".garbled-";

/// Tells versions of a file apart: every write makes a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

pub(super) enum Read {
    Object(Box<Object>, Fingerprint),
    Gone,
    Garbled(String),
    Failed(StoreError),
}

pub(super) fn io_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { path: path.to_path_buf(), source }
}

/// Where an object is kept.
pub(super) fn path(root: &Path, reference: &ObjectRef) -> Result<PathBuf, StoreError> {
    let namespace = reference.namespace.as_deref().unwrap_or(NO_NAMESPACE);
    let bad = |name: &str| {
        name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) || name.len() > 250
    };
    if bad(namespace) || bad(&reference.name) {
        return Err(StoreError::Name(reference.clone()));
    }
    Ok(root.join(reference.kind.plural()).join(namespace).join(format!("{}.yaml", reference.name)))
}

pub(super) fn fingerprint(path: &Path) -> Option<Fingerprint> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = fs::metadata(path).ok()?;
    Some(Fingerprint { modified: metadata.modified().ok(), length: metadata.len(), inode: metadata.ino() })
}

/// Every stored object's file.
pub(super) fn list(root: &Path) -> Result<Vec<(ObjectRef, PathBuf)>, StoreError> {
    let mut files = Vec::new();
    for kind in super::stored_kinds() {
        for namespace in entries(&root.join(kind.plural()))? {
            let Some(name) = namespace.file_name().and_then(|n| n.to_str()).map(str::to_owned) else {
                continue;
            };
            if name.starts_with('.') || (name == NO_NAMESPACE) == kind.is_namespaced() {
                continue;
            }
            for file in entries(&namespace)? {
                let stem = file.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".yaml"));
                if let Some(stem) = stem.filter(|stem| !stem.starts_with('.')) {
                    let namespace = kind.is_namespaced().then(|| name.clone());
                    files.push((ObjectRef { kind, namespace, name: stem.to_owned() }, file));
                }
            }
        }
    }
    files.sort();
    Ok(files)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    match fs::read_dir(directory) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()).map_err(|source| io_error(directory, source)))
            .collect(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(source) => Err(io_error(directory, source)),
    }
}

pub(super) fn read(path: &Path, reference: &ObjectRef) -> Read {
    // The fingerprint is older than the content or equal: a change in between is seen the next time.
    let Some(fingerprint) = fingerprint(path) else { return Read::Gone };
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        // A pipe would be waited for, a device never ends.
        return Read::Garbled("it is not a regular file".to_owned());
    }
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Read::Gone,
        Err(source) => return Read::Failed(io_error(path, source)),
    };
    let Ok(text) = std::str::from_utf8(&bytes) else { return Read::Garbled("it is not UTF-8".to_owned()) };
    let value: serde_json::Value = match serde_saphyr::from_str(text) {
        Ok(value) => value,
        Err(error) => {
            let message = error.without_snippet().to_string();
            return Read::Garbled(message.lines().next().unwrap_or_default().to_owned());
        }
    };
    match Object::from_value(value) {
        Ok(Some(object)) if object.reference() == *reference => Read::Object(Box::new(object), fingerprint),
        Ok(Some(object)) => Read::Garbled(format!("it holds {}", object.reference())),
        Ok(None) => Read::Garbled("it is of another kind".to_owned()),
        Err(problem) => Read::Garbled(problem.to_string()),
    }
}

/// Writes beside the place, flushes, renames. The name is on the disk only after [`sync`] of the directory.
pub(super) fn write(path: &Path, object: &Object) -> Result<Fingerprint, StoreError> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let invalid = |cause: String| StoreError::Invalid { object: object.reference(), cause };
    let value = object.to_value().map_err(|error| invalid(error.to_string()))?;
    let text = serde_saphyr::to_string(&value).map_err(|error| invalid(error.to_string()))?;
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(directory).map_err(|source| io_error(directory, source))?;
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let temporary = directory.join(format!("{TEMPORARY}{}-{serial}", std::process::id()));
    let result = (|| {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        drop(file);
        fs::rename(&temporary, path)
    })();
    if let Err(source) = result {
        // Best effort: it is also removed at the next start.
        let _ = fs::remove_file(&temporary);
        return Err(io_error(path, source));
    }
    fingerprint(path).ok_or_else(|| io_error(path, io::Error::from(io::ErrorKind::NotFound)))
}

pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path, error)),
        _ => Ok(()),
    }
}

/// Flushes the names in a directory.
pub(super) fn sync(directory: &Path) -> Result<(), StoreError> {
    fs::File::open(directory).and_then(|d| d.sync_all()).map_err(|source| io_error(directory, source))
}

/// Moves a file that cannot be read out of the way, and keeps it.
pub(super) fn set_aside(path: &Path) -> Result<(), StoreError> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis());
    let aside = path.with_file_name(format!("{GARBLED}{name}-{time}"));
    fs::rename(path, aside).map_err(|source| io_error(path, source))
}

/// Removes what writers left that died. Nobody else writes: the lock is held.
pub(super) fn remove_leftovers(root: &Path) {
    for kind in super::stored_kinds() {
        for namespace in entries(&root.join(kind.plural())).unwrap_or_default() {
            for file in entries(&namespace).unwrap_or_default() {
                if file.file_name().and_then(|n| n.to_str()).is_some_and(|name| name.starts_with(TEMPORARY)) {
                    // It does no harm if it stays.
                    let _ = fs::remove_file(file);
                }
            }
        }
    }
}

/// A new unique identifier.
pub(super) fn uid() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid").map_or_else(
        |_| {
            let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
            format!("{time:032x}")
        },
        |uuid| uuid.trim().to_owned(),
    )
}
