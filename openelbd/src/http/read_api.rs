//! The read API: pools, Services, peers, nodes and events as JSON, and their changes as server-sent events.
//!
//! `GET /api/v1/{pools,services,peers,nodes,events}` answer `{"items": [...]}`; `GET /api/v1/stream` sends an event of
//! each name whenever that list changes, and all of them at the beginning. It only reads, listens on loopback, and
//! answers only to requests whose Host is a loopback name (else a web page could reach it by DNS rebinding).

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response, Sse, sse},
    routing::get,
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::Stream;

/// The lists that there are, by the last part of their path.
pub const LISTS: [&str; 5] = ["pools", "services", "peers", "nodes", "events"];
/// Changes are sent at most this often.
const PACE: Duration = Duration::from_millis(250);
/// A connection that is idle is kept open by a comment this often.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What is known now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Eips.
    pub pools: Vec<Value>,
    /// Services that are ours.
    pub services: Vec<Value>,
    /// Neighbours.
    pub peers: Vec<Value>,
    /// Nodes.
    pub nodes: Vec<Value>,
    /// The last things that happened, the newest last.
    pub events: Vec<Value>,
}

impl Snapshot {
    fn list(&self, name: &str) -> Option<&[Value]> {
        Some(match name {
            "pools" => &self.pools,
            "services" => &self.services,
            "peers" => &self.peers,
            "nodes" => &self.nodes,
            "events" => &self.events,
            _ => return None,
        })
    }
}

/// A question for a [`Snapshot`].
pub type Question = oneshot::Sender<Snapshot>;

/// Asks the owner of the state, who is asked only when somebody wants to know.
#[derive(Clone, Debug)]
pub struct Reader {
    questions: mpsc::Sender<Question>,
    /// Counts whatever may have changed an answer.
    revision: watch::Receiver<u64>,
}

impl Reader {
    /// Asks through `questions`; `revision` changes whenever an answer may be another one.
    #[must_use]
    pub fn new(questions: mpsc::Sender<Question>, revision: watch::Receiver<u64>) -> Self {
        Self { questions, revision }
    }

    async fn snapshot(&self) -> Option<Snapshot> {
        let (answer, answered) = oneshot::channel();
        self.questions.send(answer).await.ok()?;
        answered.await.ok()
    }
}

/// The routes of the read API.
pub fn router(reader: Reader) -> Router {
    Router::new()
        .route("/api/v1/stream", get(stream))
        .route("/api/v1/{list}", get(list))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "there is only /api/v1/…") })
        .layer(middleware::from_fn(check_host))
        .with_state(Arc::new(reader))
}

fn problem(code: StatusCode, message: &str) -> Response {
    (code, Json(json!({ "error": message }))).into_response()
}

async fn check_host(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = host.or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    if authority.is_some_and(is_loopback) {
        next.run(request).await
    } else {
        problem(
            StatusCode::MISDIRECTED_REQUEST,
            "the Host of the request is not localhost or a loopback address",
        )
    }
}

/// Whether `HOST` or `HOST:PORT` names this machine.
fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')) => {
            host
        }
        _ => authority,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

async fn list(State(reader): State<Arc<Reader>>, Path(name): Path<String>) -> Response {
    let Some(snapshot) = reader.snapshot().await else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "the program is stopping");
    };
    match snapshot.list(&name) {
        Some(items) => Json(json!({ "items": items })).into_response(),
        None => problem(
            StatusCode::NOT_FOUND,
            &format!("there is no list {name:?}; there are {}", LISTS.join(", ")),
        ),
    }
}

async fn stream(State(reader): State<Arc<Reader>>) -> Response {
    let (sender, receiver) = mpsc::channel(LISTS.len());
    tokio::spawn(send_changes(reader, sender));
    let keep_alive = sse::KeepAlive::new().interval(KEEP_ALIVE);
    Sse::new(events(receiver)).keep_alive(keep_alive).into_response()
}

fn events(receiver: mpsc::Receiver<sse::Event>) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    use tokio_stream::StreamExt as _;
    tokio_stream::wrappers::ReceiverStream::new(receiver).map(Ok)
}

/// Sends the lists that changed, until nobody listens. A slow reader gets fewer, newer lists.
async fn send_changes(reader: Arc<Reader>, sender: mpsc::Sender<sse::Event>) {
    let mut revision = reader.revision.clone();
    let mut sent: Option<Snapshot> = None;
    loop {
        revision.mark_unchanged();
        let Some(snapshot) = reader.snapshot().await else { return };
        for name in LISTS {
            let items = snapshot.list(name).unwrap_or_default();
            if sent.as_ref().and_then(|sent| sent.list(name)) == Some(items) {
                continue;
            }
            let Ok(event) = sse::Event::default().event(name).json_data(json!({ "items": items })) else {
                return;
            };
            if sender.send(event).await.is_err() {
                return;
            }
        }
        sent = Some(snapshot);
        tokio::select! {
            () = sender.closed() => return,
            changed = revision.changed() => if changed.is_err() { return },
        }
        tokio::time::sleep(PACE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn only_loopback_names_are_answered() {
        for host in
            ["localhost", "LocalHost:50054", "127.0.0.1", "127.0.0.1:50054", "[::1]", "[::1]:50054", "::1"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in
            ["", "example.org", "example.org:50054", "192.0.2.1", "localhost.example.org", "[2001:db8::1]:1"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
