//! A directory of YAML files, watched (and polled, for file systems without events).
//!
//! Files are those that `kubectl apply -f DIR` would take: `*.yaml`, `*.yml` and `*.json`, not in sub-directories, not
//! hidden. A bad document is reported and ignored; the last good version of its object stays in force. A file counts
//! as changed once two looks at it, 100 ms apart, saw the same content: so a half-written file has no effect.

mod directory;
mod parse;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use notify::Watcher as _;

use super::Pass;
use crate::object::{Object, ObjectRef};
use crate::problem::Problem;

pub use directory::Directory;

/// Looks at a file that has just changed are so far apart.
const SETTLE: Duration = Duration::from_millis(100);

/// A document of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The file.
    pub file: PathBuf,
    /// Its number in the file, from 1.
    pub document: usize,
    /// The line that it starts on, from 1.
    pub line: usize,
    /// The object.
    pub object: Object,
}

/// What a file or directory holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// Readable documents in the order of files; an object that several documents hold is there once.
    pub documents: Vec<Document>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Objects whose document cannot be used.
    pub unreadable: Vec<(ObjectRef, Problem)>,
}

/// Loads a file, or the files of a directory, once.
#[must_use]
pub fn load(path: &Path) -> Loaded {
    let mut loaded = Loaded::default();
    let files = if path.is_dir() {
        match directory::list(path) {
            Ok(files) => files,
            Err(error) => {
                loaded.problems.push(io_problem(path, &error));
                return loaded;
            }
        }
    } else {
        vec![path.to_path_buf()]
    };
    let mut seen = directory::Seen::default();
    for file in files {
        match directory::read(&file) {
            Ok(text) => {
                let parsed = parse::parse_file(&file, &text);
                loaded.problems.extend(parsed.problems);
                for document in parsed.documents {
                    match seen.first(&document) {
                        Ok(()) => loaded.documents.push(document),
                        Err(problem) => loaded.problems.push(*problem),
                    }
                }
                loaded.unreadable.extend(parsed.unreadable);
            }
            Err(error) => loaded.problems.push(io_problem(&file, &error)),
        }
    }
    loaded
}

/// Watches a directory, by events and by looking every `poll`. The first pass comes at once, also if it is empty. The
/// thread ends with the receiver, at the next look.
///
/// A directory that vanishes is a problem in the pass, and nothing is forgotten.
///
/// # Errors
/// If the directory cannot be read now, or no thread can be started.
pub fn watch(directory: &Path, poll: Duration) -> io::Result<tokio::sync::mpsc::Receiver<Pass>> {
    std::fs::read_dir(directory)?;
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    let (wake, woken) = channel();
    let watched = directory.to_path_buf();
    std::thread::Builder::new().name("manifests".to_owned()).spawn(move || {
        let watcher = notify::recommended_watcher(move |event| {
            if crate::source::is_change(&event) {
// The receiver is gone only when the thread ends.
            let _ = wake.send(());
}
        });
        let _watcher = match watcher {
            Ok(mut watcher) => match watcher.watch(&watched, notify::RecursiveMode::NonRecursive) {
                Ok(()) => Some(watcher),
                Err(error) => {
                    tracing::warn!(directory = %watched.display(), %error, "no file events: looking every {poll:?}");
                    None
                }
            },
            Err(error) => {
                tracing::warn!(directory = %watched.display(), %error, "no file events: looking every {poll:?}");
                None
            }
        };
        let mut state = Directory::new(&watched);
        loop {
            let scan = state.scan();
            if let Some(pass) = scan.pass
                && sender.blocking_send(pass).is_err()
            {
                return;
            }
            if sender.is_closed() {
                return;
            }
            if scan.unsettled {
                // Events of the same change would wake us too early.
                std::thread::sleep(SETTLE.min(poll));
                while woken.try_recv().is_ok() {}
                continue;
            }
            match woken.recv_timeout(poll) {
                Ok(()) => while woken.try_recv().is_ok() {},
                Err(RecvTimeoutError::Timeout) => {}
                // Without a watcher there is nobody to wake us.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(poll),
            }
        }
    })?;
    Ok(receiver)
}

fn io_problem(path: &Path, error: &io::Error) -> Problem {
    let mut problem = Problem::error(
        format!("cannot be read: {error}"),
        "check that it exists and that OpenELB may read it",
    );
    problem.file = Some(path.to_path_buf());
    problem
}
