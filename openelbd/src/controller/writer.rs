//! One write, beside the owner.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use openelb_k8s::{
    object::{Kind, NamespacedName, Object, ObjectRef},
    plan::Write,
    store::{ApiServer, Store as _, StoreError},
};
use tokio::time::{Instant, sleep};

/// So many questions about Services run at a time for one write.
const QUESTIONS: usize = 16;
/// So often is each of them asked: one lost answer of thousands must not keep all that leave.
const ATTEMPTS: u32 = 4;
/// Between two attempts, if the API server does not ask for more.
const BETWEEN: Duration = Duration::from_millis(100);
/// Later than this none begins: an API server that hangs, or asks for long pauses, fails everything.
const PATIENCE: Duration = Duration::from_secs(3);

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

/// Reads an object, more than once if the API server is too busy or fails.
async fn ask(store: &ApiServer, reference: &ObjectRef) -> Result<Option<Object>, StoreError> {
    let (mut attempt, began) = (1, Instant::now());
    loop {
        match store.get(reference).await {
            Err(StoreError::Unavailable { retry_after, .. })
                if attempt < ATTEMPTS && began.elapsed() + retry_after < PATIENCE =>
            {
                attempt += 1;
                sleep(retry_after.max(BETWEEN)).await;
            }
            found => return found,
        }
    }
}

async fn write(store: ApiServer, job: Job) -> Done {
    let Job { write, confirm } = job;
    let mut read = Vec::new();
    let mut outdated = None;
    let mut asked = stream::iter(confirm.into_iter().map(|(key, version)| {
        let reference = ObjectRef::namespaced(Kind::Service, &key);
        let store = &store;
        async move {
            let found = ask(store, &reference).await;
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

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use kube::{Client, client::Body};
    use serde_json::json;

    use super::*;

    /// Asks about 500 Services that are gone, of an API server that fails every so many requests; whether the write
    /// was sent.
    async fn is_sent(fails_every: usize) -> bool {
        let (asked, sent) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (count, patched) = (asked.clone(), sent.clone());
        let server = move |request: http::Request<Body>| {
            let status = if request.method() != http::Method::GET {
                patched.fetch_add(1, Ordering::Relaxed);
                404
            } else if count.fetch_add(1, Ordering::Relaxed).is_multiple_of(fails_every) {
                500
            } else {
                404
            };
            let name = request.uri().path().rsplit('/').next().unwrap_or_default();
            let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no",
                "reason": if status == 404 { "NotFound" } else { "InternalError" }, "code": status,
                "details": {"name": name}});
            let body = Body::from(body.to_string().into_bytes());
            async move { Ok::<_, Infallible>(http::Response::builder().status(status).body(body).unwrap()) }
        };
        let store = ApiServer::new(Client::new(tower::service_fn(server), "openelb-system"));
        let write =
            Write::new(ObjectRef::cluster(Kind::Eip, "pool"), "1").set(&["status", "used"], json!({}));
        let confirm = (0..500).map(|i| (NamespacedName::new("ns", format!("s{i}")), None)).collect();
        let _ = super::write(store, Job { write, confirm }).await;
        sent.load(Ordering::Relaxed) > 0
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_about_one_of_many_does_not_keep_all_from_leaving() {
        assert!(is_sent(100).await, "one of a hundred requests fails");
        assert!(!is_sent(1).await, "nothing is known of those that leave");
    }
}
