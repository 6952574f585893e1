//! Against an API server that says what the test tells it to say.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::super::{Change, Selection, Watch, watch};
use super::List;
use crate::object::{Kind, Object, ObjectRef};

/// Answers in the order of the requests; when there are none left, it is silent.
#[derive(Clone, Default)]
struct Server {
    answers: Arc<Mutex<VecDeque<(u16, String)>>>,
    asked: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Server {
    fn then(self, status: u16, body: impl ToString) -> Self {
        self.answers.lock().unwrap().push_back((status, body.to_string()));
        self
    }

    /// A watch that brings these events and ends.
    fn then_events(self, events: &[Value]) -> Self {
        // An API server says the type first: `metav1.WatchEvent`.
        let line = |event: &Value| format!(r#"{{"type":{},"object":{}}}"#, event["type"], event["object"]);
        let lines: Vec<String> = events.iter().map(line).collect();
        self.then(200, lines.join("\n"))
    }

    fn watch(&self, selection: Selection) -> (Watch, mpsc::Receiver<Vec<Change>>) {
        let server = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let server = server.clone();
            async move {
                server.asked.lock().unwrap().push((Instant::now(), request.uri().to_string()));
                let answer = server.answers.lock().unwrap().pop_front();
                let Some((status, body)) = answer else { return std::future::pending().await };
                let response = http::Response::builder().status(status);
                Ok::<_, Infallible>(response.body(Body::from(body.into_bytes())).unwrap())
            }
        });
        watch(Client::new(service, "default"), [selection])
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(_, uri)| uri.clone()).collect()
    }

    /// How long each request came after the one before it.
    fn pauses(&self) -> Vec<Duration> {
        let asked = self.asked.lock().unwrap();
        asked.windows(2).map(|two| two[1].0 - two[0].0).collect()
    }
}

fn node(name: &str, version: u64) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "resourceVersion": version.to_string()}})
}

fn list(version: u64, token: &str, items: &[Value]) -> Value {
    json!({"kind": "NodeList", "apiVersion": "v1",
           "metadata": {"resourceVersion": version.to_string(), "continue": token}, "items": items})
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

fn status(code: u16, seconds: u32) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": "no", "code": code,
           "details": {"retryAfterSeconds": seconds}})
}

/// What a change says, in few words.
fn words(change: &Change) -> String {
    match change {
        Change::Apply(object) => {
            let metadata = object.metadata();
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            format!("{}@{}", text(&metadata.name), text(&metadata.resource_version))
        }
        Change::Delete { reference, version, witnessed } => {
            format!("-{}@{version}{}", reference.name, if *witnessed { "" } else { "?" })
        }
        Change::Unreadable(reference, _) => format!("!{}", reference.name),
        Change::Listed(_) => "listed".to_owned(),
        Change::Reached(_, version) => format!("={version}"),
    }
}

/// Everything that is told until nothing more comes.
async fn told(changes: &mut mpsc::Receiver<Vec<Change>>) -> Vec<String> {
    let mut all = Vec::new();
    // The clock stands still while anything can go on.
    while let Ok(Some(batch)) = timeout(Duration::from_secs(20), changes.recv()).await {
        all.extend(batch.iter().map(words));
    }
    all
}

#[test]
fn an_empty_list_of_metadata_has_no_items() {
    // As kube-apiserver 1.36 answers.
    let text = r#"{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"304"},"items":null}"#;
    let list: List = serde_json::from_str(text).unwrap();
    assert!(list.items.unwrap_or_default().is_empty());
    assert_eq!(list.metadata.resource_version.as_deref(), Some("304"));
}

#[tokio::test(start_paused = true)]
async fn a_list_comes_in_pages_and_the_watch_begins_where_it_ended() {
    let server = Server::default()
        .then(200, list(10, "more", &[node("a", 3)]))
        .then(200, list(10, "", &[node("b", 9)]))
        .then_events(&[
            event("ADDED", node("c", 11)),
            event("MODIFIED", node("a", 12)),
            event("DELETED", node("b", 13)),
            event("BOOKMARK", node("", 40)),
        ]);
    let (_watch, mut changes) = server.watch(Selection::all(Kind::Node));
    assert_eq!(told(&mut changes).await, ["a@3", "b@9", "listed", "=10", "c@11", "a@12", "-b@13", "=40"]);
    let asked = server.asked();
    assert!(asked[0].contains("limit=500") && !asked[0].contains("continue="), "{asked:?}");
    assert!(asked[1].contains("continue=more"), "{asked:?}");
    assert!(asked[2].contains("watch=true") && asked[2].contains("resourceVersion=10"), "{asked:?}");
    assert!(asked[2].contains("allowWatchBookmarks=true"), "{asked:?}");
    // The bookmark is where it goes on.
    assert!(asked[3].contains("resourceVersion=40"), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_too_old_means_another_list_which_says_what_is_gone() {
    for gone in [(410, status(410, 0)), (200, event("ERROR", status(410, 0)))] {
        let server = Server::default()
            .then(200, list(10, "", &[node("a", 3), node("b", 9)]))
            .then(gone.0, gone.1)
            .then(200, list(20, "", &[node("b", 9), node("c", 15)]));
        let (_watch, mut changes) = server.watch(Selection::all(Kind::Node));
        // What has not changed is not told again.
        let mut told = told(&mut changes).await;
        told.dedup();
        assert_eq!(told, ["a@3", "b@9", "listed", "=10", "c@15", "-a@20?", "=20"]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_list_takes_nothing_back() {
    let server = Server::default()
        .then(200, list(10, "", &[node("a", 3)]))
        .then_events(&[event("MODIFIED", node("a", 12)), event("ADDED", node("b", 13))])
        .then(410, status(410, 0))
        .then(200, list(5, "", &[node("a", 3)]))
        .then_events(&[event("DELETED", node("a", 11)), event("ADDED", node("b", 13))]);
    let (_watch, mut changes) = server.watch(Selection::all(Kind::Node));
    assert_eq!(told(&mut changes).await, ["a@3", "listed", "=10", "a@12", "b@13", "=13", "=5", "=13"]);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_stops_nobody() {
    let mut bad = node("bad", 4);
    bad["metadata"]["labels"] = json!("none");
    let server =
        Server::default().then(200, list(10, "", &[node("a", 3), bad.clone(), node("b", 5)])).then_events(&[
            event("MODIFIED", bad),
            event("ADDED", node("c", 11)),
            event("MODIFIED", node("bad", 12)),
        ]);
    let (_watch, mut changes) = server.watch(Selection::all(Kind::Node));
    assert_eq!(told(&mut changes).await, ["a@3", "!bad", "b@5", "listed", "=10", "c@11", "bad@12", "=12"]);
}

#[tokio::test(start_paused = true)]
async fn failures_are_tried_again_ever_later_and_not_before_the_server_says_so() {
    let server = Server::default()
        .then(500, status(500, 0))
        .then(500, status(500, 0))
        .then(500, status(500, 0))
        .then(429, status(429, 7))
        .then(200, list(10, "", &[node("a", 3)]));
    let (watch, mut changes) = server.watch(Selection::all(Kind::Node));
    let failing = watch.failing();
    assert_eq!(changes.recv().await.unwrap().iter().map(words).collect::<Vec<_>>(), ["a@3"]);
    let pauses = server.pauses();
    // Between half and the whole of 100, 200, 400 ms; then as asked.
    for (pause, whole) in pauses.iter().zip([100, 200, 400]) {
        let whole = Duration::from_millis(whole);
        assert!(*pause >= whole / 2 && *pause <= whole + Duration::from_millis(2), "{pauses:?}");
    }
    assert!(pauses[3] >= Duration::from_secs(7), "{pauses:?}");
    tokio::task::yield_now().await;
    assert!(failing.borrow().is_empty(), "it can be watched again: {:?}", failing.borrow());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_given_up_and_named() {
    let server = Server::default();
    let (watch, _changes) = server.watch(Selection::all(Kind::Node));
    let mut failing = watch.failing();
    let began = Instant::now();
    failing.changed().await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 30);
    let said = failing.borrow().get(&Kind::Node).cloned().unwrap();
    assert!(said.contains("no answer within 30s"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn eips_by_generation_are_fetched_when_more_than_their_status_changes() {
    let metadata = |version: u64, generation: u64| {
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
               "metadata": {"name": "p", "resourceVersion": version.to_string(), "generation": generation}})
    };
    let eip = |version: u64, generation: u64| {
        json!({"apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip",
               "metadata": {"name": "p", "resourceVersion": version.to_string(), "generation": generation},
               "spec": {"address": "192.0.2.0/29"},
               "status": {"used": {"192.0.2.1": "ns/a", "203.0.113.1": "ns/kept"}}})
    };
    let items = json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                       "metadata": {"resourceVersion": "10"}, "items": [metadata(3, 1)]});
    let server = Server::default()
        .then(200, items)
        .then(200, eip(3, 1))
        .then_events(&[event("MODIFIED", metadata(11, 1)), event("MODIFIED", metadata(12, 2))])
        .then(200, eip(12, 2));
    let (_watch, mut changes) = server.watch(Selection::eips_by_generation());
    let mut eips = Vec::new();
    while let Ok(Some(batch)) = timeout(Duration::from_secs(20), changes.recv()).await {
        eips.extend(batch.into_iter().filter_map(|change| match change {
            Change::Apply(Object::Eip(eip)) => Some(eip),
            _ => None,
        }));
    }
    assert_eq!(eips.len(), 2, "a change of the status alone is not fetched");
    let used = eips[1].status.as_ref().unwrap().used.clone().unwrap();
    assert_eq!(used.keys().collect::<Vec<_>>(), ["203.0.113.1"], "only what the ranges do not cover");
    let fetched: Vec<String> = server.asked().into_iter().filter(|uri| uri.contains("/eips/p")).collect();
    assert_eq!(fetched.len(), 2);
    let reference = ObjectRef::cluster(Kind::Eip, "p");
    assert!(fetched[0].contains(&reference.name));
}
