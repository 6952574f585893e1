//! x
use super::Pass;
use crate::object::Object;
use crate::problem::Problem;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    /// Readable documents in order.
    pub documents: Vec<Document>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}
/// Loads a file or a directory once.
#[must_use]
pub fn load(path: &Path) -> Loaded {
    let _ = path;
    Loaded::default()
}
/// Watches a directory (events and every `poll`). The first pass comes at once, also if it is empty. The thread ends with the receiver.
///
/// # Errors
/// If the directory cannot be read.
pub fn watch(directory: &Path, poll: Duration) -> std::io::Result<tokio::sync::mpsc::Receiver<Pass>> {
    let _ = (directory, poll);
    Ok(tokio::sync::mpsc::channel(16).1)
}
