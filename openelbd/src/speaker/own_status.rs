//! Writes this node's SpeakerStatus: as late as its pace, and until it is there.

use std::time::Duration;

use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use openelb_k8s::{
    crd::{SpeakerStatus, SpeakerStatusStatus},
    object::Kind,
    source::kube::Backoff,
};
use serde_json::json;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Who owns the fields (server-side apply).
const MANAGER: &str = "openelb-speaker";
/// Writes are at least so far apart.
const PACE: Duration = Duration::from_secs(1);
/// One request may take so long.
const REQUEST: Duration = Duration::from_secs(10);

/// What the object should be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    /// The unique identifier of the Node, which owns the object: it goes with the Node.
    ///
    /// Not the Pod: an object of the cluster cannot be owned by one of a namespace.
    pub(super) owner: String,
    pub(super) status: SpeakerStatusStatus,
    /// Counts up where the object itself must be written, too: it is not there, or not as it should be.
    pub(super) made: u64,
}

/// Writes whatever is wanted, the latest only, until the sender is dropped and the last word was written.
pub(super) fn spawn(client: Client, node: String) -> (watch::Sender<Option<Wanted>>, JoinHandle<()>) {
    let (sender, receiver) = watch::channel(None);
    let writer = tokio::spawn(run(Api::all(client), node, receiver));
    (sender, writer)
}

async fn run(api: Api<SpeakerStatus>, node: String, mut wanted: watch::Receiver<Option<Wanted>>) {
    let mut made = None;
    let mut backoff = Backoff::default();
    let mut told = None;
    while wanted.changed().await.is_ok() {
        loop {
            let Some(latest) = wanted.borrow_and_update().clone() else { break };
            match apply(&api, &node, &latest, made == Some(latest.made)).await {
                Ok(()) => {
                    made = Some(latest.made);
                    backoff.reset();
                    told = None;
                    sleep(PACE).await;
                    break;
                }
                Err(error) => {
                    made = None;
                    if told.as_ref() != Some(&error) {
                        tracing::warn!(
                            error,
                            "the SpeakerStatus of this node cannot be written; it is tried again"
                        );
                    }
                    told = Some(error);
                    sleep(backoff.next_pause().max(PACE)).await;
                }
            }
        }
    }
}

async fn apply(api: &Api<SpeakerStatus>, node: &str, wanted: &Wanted, is_made: bool) -> Result<(), String> {
    let parameters = PatchParams::apply(MANAGER).force();
    let (version, kind) = (Kind::SpeakerStatus.api_version(), Kind::SpeakerStatus.as_str());
    if !is_made {
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": node, "uid": wanted.owner});
        let owners = if wanted.owner.is_empty() { json!([]) } else { json!([owner]) };
        let object = json!({
            "apiVersion": version, "kind": kind,
            "metadata": {"name": node, "ownerReferences": owners}, "spec": {"nodeName": node},
        });
        within(api.patch(node, &parameters, &Patch::Apply(object))).await?;
    }
    let status = json!({
        "apiVersion": version, "kind": kind, "metadata": {"name": node}, "status": wanted.status,
    });
    within(api.patch_status(node, &parameters, &Patch::Apply(status))).await
}

/// Removes the object: this node has no speaker any more, and those of others may announce it. The writer ends before:
/// a write that it tries again would make the object anew.
pub(super) async fn remove(client: Client, node: &str, writer: JoinHandle<()>) {
    writer.abort();
    let _ = writer.await;
    let api: Api<SpeakerStatus> = Api::all(client);
    if let Err(error) = within(api.delete(node, &DeleteParams::default())).await {
        tracing::warn!(error, "the SpeakerStatus of this node cannot be removed");
    }
}

async fn within<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<(), String> {
    match timeout(REQUEST, request).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {REQUEST:?}")),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use kube::client::Body;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_write_that_is_tried_again_does_not_make_anew_what_was_removed() {
        let asked: Arc<Mutex<Vec<http::Method>>> = Arc::default();
        let seen = Arc::clone(&asked);
        let service = tower::service_fn(move |request: http::Request<Body>| {
            seen.lock().unwrap().push(request.method().clone());
            let response = http::Response::builder().status(500);
            async move { Ok::<_, Infallible>(response.body(Body::from(b"{}".to_vec())).unwrap()) }
        });
        let client = Client::new(service, "default");
        let (sender, writer) = spawn(client.clone(), "node-1".to_owned());
        let status = SpeakerStatusStatus::default();
        sender.send_replace(Some(Wanted { owner: String::new(), status, made: 1 }));
        while asked.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        drop(sender);
        remove(client, "node-1", writer).await;
        // The clock does not stand still while nothing else can go on.
        sleep(Duration::from_secs(60)).await;
        assert_eq!(*asked.lock().unwrap(), [http::Method::PATCH, http::Method::DELETE]);
    }
}
