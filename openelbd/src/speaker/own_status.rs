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
    time::{Instant, sleep, timeout, timeout_at},
};

/// Who owns the fields (server-side apply).
const MANAGER: &str = "openelb-speaker";
/// Writes are at least so far apart.
const PACE: Duration = Duration::from_secs(1);
/// What an API server says of a field that the definition does not have.
const UNDECLARED: &str = "not declared in schema";
/// The definition may be current after so long.
const LOOK_ANEW: Duration = Duration::from_secs(600);
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
    let mut old_definition = None;
    while is_due(&mut wanted, old_definition).await {
        loop {
            let Some(latest) = wanted.borrow_and_update().clone() else { break };
            match apply(&api, &node, &latest, made == Some(latest.made), &mut old_definition).await {
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

/// Something is to be written, or to be tried with all its fields again; `false`: nothing any more.
async fn is_due(wanted: &mut watch::Receiver<Option<Wanted>>, old_definition: Option<Instant>) -> bool {
    let Some(found) = old_definition else { return wanted.changed().await.is_ok() };
    timeout_at(found + LOOK_ANEW, wanted.changed()).await.is_ok_and(|changed| changed.is_ok())
        || wanted.has_changed().is_ok()
}

/// `old_definition`: when the cluster's CustomResourceDefinition was found to be of a version before this program's.
async fn apply(
    api: &Api<SpeakerStatus>,
    node: &str,
    wanted: &Wanted,
    is_made: bool,
    old_definition: &mut Option<Instant>,
) -> Result<(), String> {
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
    let write = async |status: &SpeakerStatusStatus| {
        let object = json!({
            "apiVersion": version, "kind": kind, "metadata": {"name": node}, "status": status,
        });
        within(api.patch_status(node, &parameters, &Patch::Apply(object))).await
    };
    if old_definition.is_none_or(|found| found.elapsed() >= LOOK_ANEW) {
        match write(&wanted.status).await {
            // The API server takes nothing at all then.
            Err(error) if error.contains(UNDECLARED) => {
                tracing::warn!(
                    error,
                    "the CustomResourceDefinition of SpeakerStatus is older than this speaker: apply that of this \
                     version; until then it is said neither how addresses are answered nor what is to be known of peers"
                );
                *old_definition = Some(Instant::now());
            }
            result => {
                *old_definition = None;
                return result;
            }
        }
    }
    let status = SpeakerStatusStatus { layer2_answers: None, peer_warnings: None, ..wanted.status.clone() };
    write(&status).await
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

    /// The program was upgraded before the definitions.
    #[tokio::test(start_paused = true)]
    async fn a_definition_that_is_too_old_costs_the_new_fields_alone() {
        let taken: Arc<Mutex<Vec<bool>>> = Arc::default();
        let seen = Arc::clone(&taken);
        let is_old = Arc::new(Mutex::new(true));
        let old = Arc::clone(&is_old);
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (seen, old) = (Arc::clone(&seen), *old.lock().unwrap());
            async move {
                let body = request.into_body().collect_bytes().await.unwrap();
                let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                let answers = body.pointer("/status/layer2Answers").is_some();
                let answer = if answers && old {
                    let message = ".status.layer2Answers: field not declared in schema";
                    (500, json!({"status": "Failure", "code": 500, "message": message, "reason": ""}))
                } else {
                    if body.get("status").is_some() {
                        seen.lock().unwrap().push(answers);
                    }
                    (200, json!({"metadata": {"name": "node-1"}, "spec": {"nodeName": "node-1"}}))
                };
                let response = http::Response::builder().status(answer.0);
                Ok::<_, Infallible>(response.body(Body::from(answer.1.to_string().into_bytes())).unwrap())
            }
        });
        let (sender, writer) = spawn(Client::new(service, "default"), "node-1".to_owned());
        let say = |announced| {
            let status = SpeakerStatusStatus {
                announced_addresses: Some(announced),
                layer2_answers: Some(vec![Default::default()]),
                ..SpeakerStatusStatus::default()
            };
            sender.send_replace(Some(Wanted { owner: String::new(), status, made: 1 }));
        };
        for announced in 0..3 {
            say(announced);
            sleep(Duration::from_secs(5)).await;
        }
        assert_eq!(*taken.lock().unwrap(), [false; 3]);
        *is_old.lock().unwrap() = false;
        // Also where nothing else happens.
        sleep(LOOK_ANEW + Duration::from_secs(5)).await;
        say(4);
        drop(sender);
        writer.await.unwrap();
        assert_eq!(taken.lock().unwrap()[3..], [true; 2]);
    }

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
