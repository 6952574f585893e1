//! One write, beside the owner.

use futures::{StreamExt as _, stream};
use openelb_k8s::{
    object::{Kind, NamespacedName, Object, ObjectRef},
    plan::Write,
    store::{ApiServer, Store as _, StoreError},
};

/// So many questions about Services run at a time for one write.
const QUESTIONS: usize = 16;

/// A write, and the Services whose absence or silence it is decided on.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) write: Write,
    /// Services that lose a committed address by this write, with the version of each that the decision knows.
    ///
    /// A list may have been stale, and a watch lags: before an address is free for others it is asked whether its
    /// holder really is gone, or really as it was seen.
    pub(super) confirm: Vec<(NamespacedName, Option<String>)>,
}

/// What came of a write.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) write: Write,
    pub(super) result: Result<Option<Object>, StoreError>,
    /// Objects that were read on the way; `None`: they do not exist.
    pub(super) read: Vec<(ObjectRef, Option<Object>)>,
}

/// What has ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// A write.
    Write(Done),
    /// A look at all objects of a kind, which should be of this version at least: they, and the one that they are of.
    Survey(Kind, u64, Result<(Vec<Object>, u64), StoreError>),
}

/// Lists all objects of a kind, which should be of this version at least.
pub(super) async fn survey(store: ApiServer, kind: Kind, least: u64) -> Ended {
    Ended::Survey(kind, least, store.list_kind(kind).await)
}

/// Runs a job to its end.
pub(super) async fn run(store: ApiServer, job: Job) -> Ended {
    Ended::Write(write(store, job).await)
}

async fn write(store: ApiServer, job: Job) -> Done {
    let Job { write, confirm } = job;
    let mut read = Vec::new();
    let mut outdated = None;
    let mut asked = stream::iter(confirm.into_iter().map(|(key, version)| {
        let reference = ObjectRef::namespaced(Kind::Service, &key);
        let store = &store;
        async move {
            let found = store.get(&reference).await;
            (reference, version, found)
        }
    }))
    .buffer_unordered(QUESTIONS);
    while let Some((reference, version, found)) = asked.next().await {
        match found {
            Ok(found) => {
                let now = found.as_ref().and_then(|object| object.metadata().resource_version.clone());
                if now != version {
                    outdated.get_or_insert_with(|| StoreError::Conflict {
                        object: reference.clone(),
                        expected: version.clone().unwrap_or_else(|| "none".to_owned()),
                        found: now.clone().unwrap_or_else(|| "none".to_owned()),
                    });
                    read.push((reference, found));
                }
            }
            Err(error) => {
                drop(asked);
                return Done { write, result: Err(error), read };
            }
        }
    }
    drop(asked);
    if let Some(error) = outdated {
        return Done { write, result: Err(error), read };
    }
    let result = store.write(&write).await;
    if matches!(result, Err(StoreError::Conflict { .. }))
        && let Ok(found) = store.get(&write.target).await
    {
        // The watch will bring it, too; this is sooner, and true also if the watch is cut.
        read.push((write.target.clone(), found));
    }
    Done { write, result, read }
}
