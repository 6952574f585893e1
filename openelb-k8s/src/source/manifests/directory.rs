//! The files of a directory, and what changed in them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::parse::{ParsedFile, parse_file};
use super::{Document, Pass, io_problem};
use crate::object::{Object, ObjectRef};
use crate::problem::Problem;

/// Files beyond this size are refused.
const MAX_FILE: u64 = 64 << 20;

/// The files that count, in the order of names.
pub(super) fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().and_then(|n| n.to_str()).is_none_or(|name| name.starts_with('.'));
        let yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if !hidden && yaml && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

pub(super) fn read(file: &Path) -> io::Result<String> {
    let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, "larger than 64 MiB");
    let metadata = std::fs::metadata(file)?;
    if !metadata.is_file() {
        // A pipe would be waited for, a device never ends.
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if metadata.len() > MAX_FILE {
        return Err(too_large());
    }
    // It may grow meanwhile.
    let mut text = String::new();
    std::fs::File::open(file)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|length| length <= MAX_FILE) { Ok(text) } else { Err(too_large()) }
}

/// Which document holds an object: the first.
#[derive(Default)]
pub(super) struct Seen(BTreeMap<ObjectRef, (PathBuf, usize)>);

impl Seen {
    pub(super) fn first(&mut self, document: &Document) -> Result<(), Box<Problem>> {
        let reference = document.object.reference();
        if let Some((file, line)) = self.0.get(&reference) {
            let mut problem = Problem::error(
                format!("the same object is in {}:{line}, which rules", file.display()),
                "remove one of the two",
            );
            problem.file = Some(document.file.clone());
            problem.document = Some(document.document);
            problem.line = Some(document.line);
            return Err(problem.of(reference).into());
        }
        self.0.insert(reference, (document.file.clone(), document.line));
        Ok(())
    }
}

/// A directory of manifests: what its files held, and hold now.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    files: BTreeMap<PathBuf, File>,
    objects: BTreeMap<ObjectRef, Object>,
    unreadable: Vec<(ObjectRef, Problem)>,
    problems: Vec<Problem>,
    /// The first look has been.
    looked: bool,
}

/// What one look found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scan {
    /// What changed; `None` if nothing did.
    pub pass: Option<Pass>,
    /// A file is changing: look again soon.
    pub unsettled: bool,
}

/// Enough of a file's metadata to see that it changed: when its content and its metadata did, its size, its inode.
type Fingerprint = (Option<SystemTime>, (i64, i64), u64, u64);

fn fingerprint(path: &Path) -> Option<Fingerprint> {
    let metadata = std::fs::metadata(path).ok()?;
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    Some((metadata.modified().ok(), changed, metadata.len(), metadata.ino()))
}

#[derive(Debug, Default)]
struct File {
    /// The content that is in force.
    accepted: Option<u64>,
    /// Content that was seen once (`None` inside: the file was gone).
    candidate: Option<Option<u64>>,
    /// The metadata at which `accepted` was read.
    fingerprint: Option<Fingerprint>,
    parsed: ParsedFile,
    /// The last good version of each object that this file holds.
    good: BTreeMap<ObjectRef, Document>,
    /// It cannot be read at present.
    failure: Option<Problem>,
}

impl Directory {
    /// A directory at which nobody has looked yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            files: BTreeMap::new(),
            objects: BTreeMap::new(),
            unreadable: Vec::new(),
            problems: Vec::new(),
            looked: false,
        }
    }

    /// Looks at the files. At the first look everything counts; later a change counts once two looks saw the same.
    pub fn scan(&mut self) -> Scan {
        let first = !self.looked;
        self.looked = true;
        let present = match list(&self.path) {
            Ok(present) => present,
            Err(error) => {
                // The directory is gone or unreadable: nothing is forgotten for that.
                let mut problems = vec![io_problem(&self.path, &error)];
                problems.extend(self.files.values().flat_map(|file| file.parsed.problems.clone()));
                let changed = first || problems != self.problems;
                self.problems.clone_from(&problems);
                let held = self.objects.keys().cloned().collect();
                return Scan {
                    pass: changed.then(|| Pass { problems, held, ..Pass::default() }),
                    unsettled: false,
                };
            }
        };
        let mut unsettled = false;
        for path in &present {
            unsettled |= self.files.entry(path.clone()).or_default().look(path, first);
        }
        let known: BTreeSet<&PathBuf> = present.iter().collect();
        self.files.retain(|path, file| {
            if known.contains(path) {
                return true;
            }
            if file.candidate == Some(None) || file.accepted.is_none() {
                return false;
            }
            file.candidate = Some(None);
            unsettled = true;
            true
        });
        Scan { pass: self.difference(first), unsettled }
    }

    fn difference(&mut self, first: bool) -> Option<Pass> {
        let mut seen = Seen::default();
        let mut order = Vec::new();
        let mut objects = BTreeMap::new();
        let mut pass = Pass { complete: true, ..Pass::default() };
        for file in self.files.values() {
            pass.problems.extend(file.failure.clone());
            pass.problems.extend(file.parsed.problems.iter().cloned());
            pass.unreadable.extend(file.parsed.unreadable.iter().cloned());
            pass.complete &= !file.parsed.illegible && file.failure.is_none();
            let mut documents: Vec<&Document> = file.good.values().collect();
            documents.sort_by_key(|document| (document.line, document.document));
            // A document twice in one file: the first rules; `good` has it, the other is reported here.
            let twice = file.parsed.documents.iter().filter(|document| {
                file.good.get(&document.object.reference()).is_some_and(|good| good.line != document.line)
            });
            for document in documents.into_iter().chain(twice) {
                match seen.first(document) {
                    Ok(()) => {
                        let reference = document.object.reference();
                        order.push(reference.clone());
                        objects.insert(reference, document.object.clone());
                    }
                    Err(problem) => pass.problems.push(*problem),
                }
            }
        }
        let was_unreadable: BTreeSet<&ObjectRef> =
            self.unreadable.iter().map(|(reference, _)| reference).collect();
        let is_unreadable: BTreeSet<&ObjectRef> =
            pass.unreadable.iter().map(|(reference, _)| reference).collect();
        pass.applied = order
            .iter()
            .filter(|reference| {
                let healed = was_unreadable.contains(reference) && !is_unreadable.contains(reference);
                healed || self.objects.get(*reference) != objects.get(*reference)
            })
            .filter_map(|reference| objects.get(reference).cloned())
            .collect();
        pass.held = objects.keys().chain(is_unreadable.iter().copied()).cloned().collect();
        pass.deleted =
            self.objects.keys().filter(|reference| !pass.held.contains(*reference)).cloned().collect();
        let changed = first
            || !pass.applied.is_empty()
            || !pass.deleted.is_empty()
            || pass.unreadable != self.unreadable
            || pass.problems != self.problems;
        self.objects = objects;
        self.unreadable.clone_from(&pass.unreadable);
        self.problems.clone_from(&pass.problems);
        changed.then_some(pass)
    }
}

impl File {
    /// Looks at the file; says whether it must be looked at again soon.
    fn look(&mut self, path: &Path, first: bool) -> bool {
        let fingerprint = fingerprint(path);
        if fingerprint.is_some() && fingerprint == self.fingerprint && self.failure.is_none() {
            self.candidate = None;
            return false;
        }
        let text = match read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return true,
            Err(error) => {
                self.failure = Some(io_problem(path, &error));
                return false;
            }
        };
        self.failure = None;
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let content = hasher.finish();
        if self.accepted == Some(content) {
            self.candidate = None;
            self.remember(fingerprint);
            return false;
        }
        if !first && self.candidate != Some(Some(content)) {
            self.candidate = Some(Some(content));
            return true;
        }
        self.candidate = None;
        self.accepted = Some(content);
        self.remember(fingerprint);
        self.take(parse_file(path, &text));
        false
    }

    /// A file that was written a moment ago may be written again without a visible change of its metadata.
    fn remember(&mut self, fingerprint: Option<Fingerprint>) {
        let old = fingerprint
            .and_then(|(modified, ..)| modified)
            .and_then(|modified| modified.elapsed().ok())
            .is_some_and(|age| age.as_secs() >= 2);
        self.fingerprint = fingerprint.filter(|_| old);
    }

    /// Takes a new content: good documents replace, bad ones keep the last good version.
    fn take(&mut self, parsed: ParsedFile) {
        let mut good: BTreeMap<ObjectRef, Document> = BTreeMap::new();
        for document in &parsed.documents {
            good.entry(document.object.reference()).or_insert_with(|| document.clone());
        }
        let unreadable: BTreeSet<&ObjectRef> =
            parsed.unreadable.iter().map(|(reference, _)| reference).collect();
        for (reference, document) in std::mem::take(&mut self.good) {
            if parsed.illegible || unreadable.contains(&reference) {
                good.entry(reference).or_insert(document);
            }
        }
        self.good = good;
        self.parsed = parsed;
    }
}
