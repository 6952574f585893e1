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
use crate::index::Indexes;
use crate::object::{Kind, Object};
use crate::plan::Settings;
use crate::plan::announcement::plan;

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

/// Each pause is between half and the whole of these, in milliseconds.
#[track_caller]
fn assert_pauses(server: &Server, wholes: &[u64]) {
    let pauses = server.pauses();
    assert!(pauses.len() >= wholes.len(), "{pauses:?}");
    for (pause, whole) in pauses.iter().zip(wholes) {
        let whole = Duration::from_millis(*whole);
        assert!(
            *pause >= whole / 2 && *pause <= whole + Duration::from_millis(2),
            "{pauses:?}, not {wholes:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_at_once_and_brings_nothing_is_repeated_ever_later() {
    let nothing = |server: Server| server.then_events(&[]).then_events(&[]).then_events(&[]);
    let server = nothing(Server::default().then(200, list(10, "", &[node("a", 3)])));
    // What comes shows that it works: the next one is repeated at once, and ended ones soon again.
    let server = nothing(server.then_events(&[event("BOOKMARK", node("", 40))]));
    let (_watch, mut changes) = server.watch(Selection::all(Kind::Node));
    assert_eq!(told(&mut changes).await, ["a@3", "listed", "=10", "=40"]);
    assert_pauses(&server, &[0, 100, 200, 400, 0, 100, 200, 400]);
}

#[tokio::test(start_paused = true)]
async fn an_error_in_the_stream_is_tried_again_ever_later() {
    for code in [429, 500] {
        let error = || event("ERROR", status(code, 0));
        let server = Server::default()
            .then(200, list(10, "", &[node("a", 3)]))
            .then_events(&[error()])
            .then_events(&[error()])
            .then_events(&[error()])
            .then_events(&[event("ADDED", node("b", 11)), error()])
            .then_events(&[error()]);
        let (_watch, mut changes) = server.watch(Selection::all(Kind::Node));
        told(&mut changes).await;
        assert_pauses(&server, &[0, 100, 200, 400, 100, 200]);
    }
}

#[tokio::test(start_paused = true)]
async fn versions_that_are_too_old_again_and_again_are_a_failure() {
    for gone in [(410, status(410, 0)), (200, event("ERROR", status(410, 0)))] {
        let mut server = Server::default();
        for _ in 0..4 {
            server = server.then(200, list(10, "", &[node("a", 3)])).then(gone.0, &gone.1);
        }
        let (watch, mut changes) = server.watch(Selection::all(Kind::Node));
        told(&mut changes).await;
        // List, watch; at once list, watch; and then with pauses before each list.
        assert_pauses(&server, &[0, 0, 0, 100, 0, 200, 0, 400]);
        assert!(watch.failing().borrow().contains_key(&Kind::Node));
    }
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

/// An Eip as it is stored, and what its metadata says.
struct Stored(Value);

fn stored(name: &str, version: u64, generation: i64, address: &str, used: Value) -> Stored {
    Stored(json!({
        "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip",
        "metadata": {"name": name, "resourceVersion": version.to_string(), "generation": generation},
        "spec": {"address": address}, "status": {"used": used},
    }))
}

impl Stored {
    fn metadata(&self) -> Value {
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": self.0["metadata"]})
    }
}

/// Eips that are told until nothing more comes.
async fn told_eips(changes: &mut mpsc::Receiver<Vec<Change>>) -> Vec<Object> {
    let mut eips = Vec::new();
    while let Ok(Some(batch)) = timeout(Duration::from_secs(20), changes.recv()).await {
        eips.extend(batch.into_iter().filter_map(|change| match change {
            Change::Apply(eip @ Object::Eip(_)) => Some(eip),
            _ => None,
        }));
    }
    eips
}

fn used(eip: &Object) -> Vec<String> {
    let Object::Eip(eip) = eip else { return Vec::new() };
    let used = eip.status.as_ref().and_then(|status| status.used.as_ref());
    used.into_iter().flatten().map(|(address, holder)| format!("{address}={holder}")).collect()
}

impl Server {
    fn fetched(&self) -> Vec<String> {
        let asked = self.asked().into_iter();
        asked.filter_map(|uri| Some(uri.split_once("/eips/")?.1.trim_end_matches('?').to_owned())).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn eips_by_generation_are_fetched_when_more_than_their_status_changes() {
    let kept = json!({"192.0.2.1": "ns/a", "203.0.113.1": "ns/kept"});
    let eip = |version, generation| stored("p", version, generation, "192.0.2.0/29", kept.clone());
    let server = Server::default()
        .then(200, list(10, "", &[eip(3, 1).metadata()]))
        .then(200, eip(3, 1).0)
        .then_events(&[event("MODIFIED", eip(11, 1).metadata()), event("MODIFIED", eip(12, 2).metadata())])
        .then(200, eip(12, 2).0);
    let (_watch, mut changes) = server.watch(Selection::eips_by_generation());
    let eips = told_eips(&mut changes).await;
    assert_eq!(eips.len(), 2, "a change of the status alone is not fetched");
    assert_eq!(used(&eips[1]), ["203.0.113.1=ns/kept"], "only what the ranges do not cover");
    assert_eq!(server.fetched(), ["p", "p"]);
}

/// p1 is shrunk while ns/a holds an address, p2 is created over it, and the record moves there. Then ns/a goes, and
/// ns/b gets the address.
#[tokio::test(start_paused = true)]
async fn a_record_that_moved_after_a_split_is_not_in_the_way_of_the_next_holder() {
    let p1 = |version, used| stored("p1", version, 2, "192.0.2.0/25", used);
    let p2 = stored("p2", 12, 1, "192.0.2.128/25", json!({}));
    let server = Server::default()
        .then(200, list(10, "", &[p1(3, json!({})).metadata()]))
        .then(200, p1(3, json!({"192.0.2.200": "ns/a"})).0)
        .then_events(&[
            // Nobody else covers it: nothing that was kept is anybody else's.
            event("MODIFIED", p1(11, json!({})).metadata()),
            event("ADDED", p2.metadata()),
            event("MODIFIED", p1(13, json!({})).metadata()),
            event("MODIFIED", p1(14, json!({})).metadata()),
        ])
        .then(200, p2.0)
        .then(200, p1(13, json!({})).0);
    let (_watch, mut changes) = server.watch(Selection::eips_by_generation());
    let mut indexes = Indexes::default();
    for eip in told_eips(&mut changes).await {
        indexes.apply(&eip);
    }
    assert_eq!(server.fetched(), ["p1", "p2", "p1"]);
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "b", "namespace": "ns", "annotations": {"lb.kubesphere.io/v1alpha1": "openelb"}},
        "spec": {"type": "LoadBalancer"},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.200"}]}},
    });
    indexes.apply(&Object::from_value(service).unwrap().unwrap());
    let settings = Settings { node_name: "n".to_owned(), standalone: true, ..Settings::default() };
    let announced = plan(&indexes, &settings).addresses;
    let pools: Vec<&str> = announced.values().map(|announcement| announcement.pool.as_str()).collect();
    assert_eq!(pools, ["p2"]);
}

#[tokio::test(start_paused = true)]
async fn a_list_fetches_eips_of_which_something_was_kept() {
    // What covers it may come later in the list.
    let p1 = |version, used| stored("p1", version, 2, "192.0.2.0/25", used);
    let p2 = stored("p2", 12, 1, "192.0.2.128/25", json!({}));
    let server = Server::default()
        .then(200, list(10, "", &[p1(3, json!({})).metadata()]))
        .then(200, p1(3, json!({"192.0.2.200": "ns/a"})).0)
        .then(410, status(410, 0))
        .then(200, list(20, "", &[p1(13, json!({})).metadata(), p2.metadata()]))
        .then(200, p1(13, json!({})).0)
        .then(200, p2.0);
    let (_watch, mut changes) = server.watch(Selection::eips_by_generation());
    let eips = told_eips(&mut changes).await;
    assert_eq!(
        eips.iter().map(used).collect::<Vec<_>>(),
        [vec!["192.0.2.200=ns/a".to_owned()], vec![], vec![]]
    );
    assert_eq!(server.fetched(), ["p1", "p1", "p2"]);
}

#[tokio::test(start_paused = true)]
async fn every_change_of_a_bad_eip_is_fetched() {
    let bad = |version, used| stored("p", version, 2, "192.0.2.0/99", used);
    let server = Server::default()
        .then(200, list(10, "", &[bad(3, json!({})).metadata()]))
        .then(200, bad(3, json!({"192.0.2.1": "ns/a"})).0)
        .then_events(&[event("MODIFIED", bad(11, json!({})).metadata())])
        .then(200, bad(11, json!({"192.0.2.1": "ns/b"})).0);
    let (_watch, mut changes) = server.watch(Selection::eips_by_generation());
    let eips = told_eips(&mut changes).await;
    assert_eq!(eips.iter().map(used).collect::<Vec<_>>(), [["192.0.2.1=ns/a"], ["192.0.2.1=ns/b"]]);
}
