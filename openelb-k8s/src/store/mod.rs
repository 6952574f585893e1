//! Where objects with their status are kept.

pub mod api_server;
pub mod state_directory;

use crate::object::{Object, ObjectRef};
use serde_json::{Map, Value};

use crate::plan::Write;
use crate::problem::Problem;

pub use api_server::ApiServer;
pub use state_directory::StateDirectory;

/// Keeps objects with their status, and commits writes by compare-and-swap on `metadata.resourceVersion`.
#[async_trait::async_trait]
pub trait Store: Send + Sync {
    /// Every object.
    async fn list(&self) -> Result<Vec<Object>, StoreError>;

    /// Commits a write: the object must still be of the version that the write was decided on. Returns the object as
    /// it is now, or `None` if the write completed its deletion.
    async fn write(&self, write: &Write) -> Result<Option<Object>, StoreError>;
}

/// A change of the store, by this process or another.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreChange {
    /// The object is new or different.
    Apply(Object),
    /// The object is gone.
    Delete(ObjectRef),
    /// Something is wrong with the store; nothing is lost that can be rebuilt.
    Problem(Problem),
}

/// Why the store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The object is of another version by now: decide again.
    #[error("{object} is of version {found}, not {expected}: decided on an old state")]
    Conflict {
        /// The object.
        object: ObjectRef,
        /// The version that the write was decided on.
        expected: String,
        /// The version that is stored.
        found: String,
    },
    /// There is no such object.
    #[error("{0} does not exist")]
    NotFound(ObjectRef),
    /// The object's name cannot be the name of a file.
    #[error("{0}: the name cannot be stored; use a valid Kubernetes name")]
    Name(ObjectRef),
    /// The write would make the object unreadable.
    #[error("{object}: {cause}")]
    Invalid {
        /// The object.
        object: ObjectRef,
        /// What is wrong.
        cause: String,
    },
    /// The store does not take it, and will not take it again: rules of the API server.
    #[error("{object}: {cause}")]
    Refused {
        /// The object.
        object: ObjectRef,
        /// What it said, with the remedy where there is one.
        cause: String,
    },
    /// The store does not take it from us: rights. Some rules of an API server say so, too.
    #[error("{object}: {cause}")]
    Forbidden {
        /// The object.
        object: ObjectRef,
        /// What it said, with the remedy where there is one.
        cause: String,
    },
    /// The store does not know who we are, so that it takes nothing from us: try again.
    #[error("{cause}")]
    Unauthenticated {
        /// What it said, with the remedy.
        cause: String,
    },
    /// The store cannot be reached, is overloaded, or did not answer in time: try again. A write may have taken effect.
    #[error("{cause}; is the API server there and reachable?")]
    Unavailable {
        /// What happened.
        cause: String,
        /// How long it asked us to wait; zero: it did not say.
        retry_after: std::time::Duration,
    },
    /// The store cannot be reached: for a directory, the file system.
    #[error("{path}: {source}; check that the directory exists, is writable, and has space")]
    Io {
        /// The file or directory.
        path: std::path::PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
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
