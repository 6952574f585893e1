//! A proxy in front of an API server that lets requests fail in every way a network and a busy server know.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt as _;
use kube::Client;
use serde_json::json;
use tokio::{net::TcpListener, time::sleep};

/// Answers of each list that are kept to be given again when they are old.
const OLD_LISTS: usize = 8;
const LARGEST: usize = 64 << 20;

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// It takes longer.
    Late,
    /// 429 with Retry-After.
    Busy,
    /// 500 before anything happened.
    Internal,
    /// 409 before anything happened.
    Conflict,
    /// It happens, and the answer is lost.
    LostAnswer,
    /// A list as it was before.
    Stale,
    /// A watch: 410.
    Gone,
    /// A watch: cut after a while.
    Cut,
}

/// The proxy's state.
#[derive(Clone)]
pub(crate) struct Proxy {
    client: Client,
    stale: bool,
    /// While false it passes everything on.
    faulty: Arc<AtomicBool>,
    random: Arc<Mutex<fastrand::Rng>>,
    lists: Arc<Mutex<HashMap<String, VecDeque<Bytes>>>>,
    counts: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

impl Proxy {
    /// `stale`: whether lists are answered as they were before.
    pub(crate) fn new(client: Client, seed: u64, stale: bool) -> Self {
        Self {
            client,
            stale,
            faulty: Arc::new(AtomicBool::new(true)),
            random: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))),
            lists: Arc::default(),
            counts: Arc::default(),
        }
    }

    /// From now on, is anything wrong?
    pub(crate) fn set_faulty(&self, faulty: bool) {
        self.faulty.store(faulty, Ordering::Relaxed);
    }

    /// How often what went wrong.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serves until it is dropped.
    pub(crate) async fn serve(self, address: SocketAddr) -> anyhow::Result<()> {
        let listener = TcpListener::bind(address).await.context("the proxy's port")?;
        axum::serve(listener, Router::new().fallback(forward).with_state(self)).await?;
        Ok(())
    }

    fn count(&self, what: &'static str) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    }

    /// Draws what goes wrong: about one request in five.
    fn draw(&self, watch: bool, list: bool, write: bool) -> Option<Fault> {
        if !self.faulty.load(Ordering::Relaxed) {
            return None;
        }
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let roll = random.u32(0..1000);
        if watch {
            return match roll {
                0..100 => Some(Fault::Gone),
                100..700 => Some(Fault::Cut),
                _ => None,
            };
        }
        match roll {
            0..80 => Some(Fault::Late),
            80..110 => Some(Fault::Busy),
            110..150 => Some(Fault::Internal),
            150..180 if write => Some(Fault::Conflict),
            180..210 if write => Some(Fault::LostAnswer),
            150..500 if list && self.stale => Some(Fault::Stale),
            _ => None,
        }
    }

    fn number(&self, range: std::ops::Range<u64>) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).u64(range)
    }
}

fn failure(code: StatusCode, reason: &str, headers: HeaderMap) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
                        "message": format!("{reason}, says the proxy"), "code": code.as_u16()});
    (code, headers, [(header::CONTENT_TYPE, "application/json")], status.to_string()).into_response()
}

async fn forward(State(proxy): State<Proxy>, request: Request) -> Response {
    match try_forward(&proxy, request).await {
        Ok(response) => response,
        // The API server is away.
        Err(_) => failure(StatusCode::BAD_GATEWAY, "BadGateway", HeaderMap::new()),
    }
}

async fn try_forward(proxy: &Proxy, request: Request) -> anyhow::Result<Response> {
    let (mut parts, body) = request.into_parts();
    let body = to_bytes(body, LARGEST).await?;
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let reads = parts.method == http::Method::GET;
    let watch = reads && query.contains("watch=true");
    let list = reads && !watch && query.contains("limit=");
    let key = parts.uri.to_string();
    // Who asks is for the API server to see: the client that passes it on has no identity of its own.
    for name in [header::HOST, header::CONTENT_LENGTH, header::ACCEPT_ENCODING] {
        parts.headers.remove(name);
    }
    parts.uri = http::Uri::try_from(parts.uri.path_and_query().map_or("/", |path| path.as_str()))?;
    let fault = proxy.draw(watch, list, !reads);
    let mut cut_after = None;
    match fault {
        None => {}
        Some(Fault::Late) => {
            proxy.count("late");
            sleep(Duration::from_millis(proxy.number(5..400))).await;
        }
        Some(Fault::Busy) => {
            proxy.count("429");
            let headers =
                HeaderMap::from_iter([(header::RETRY_AFTER, header::HeaderValue::from_static("1"))]);
            return Ok(failure(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", headers));
        }
        Some(Fault::Internal) => {
            proxy.count("500");
            return Ok(failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", HeaderMap::new()));
        }
        Some(Fault::Conflict) => {
            proxy.count("409");
            return Ok(failure(StatusCode::CONFLICT, "Conflict", HeaderMap::new()));
        }
        Some(Fault::Gone) => {
            proxy.count("410");
            return Ok(failure(StatusCode::GONE, "Expired", HeaderMap::new()));
        }
        Some(Fault::Cut) => {
            proxy.count("watch cut");
            cut_after = Some(Duration::from_millis(proxy.number(50..4000)));
        }
        Some(Fault::LostAnswer) => proxy.count("answer lost"),
        Some(Fault::Stale) => {
            let lists = proxy.lists.lock().unwrap_or_else(PoisonError::into_inner);
            let old = lists.get(&key).and_then(|old| old.front()).cloned();
            drop(lists);
            if let Some(old) = old {
                proxy.count("stale list");
                return Ok(([(header::CONTENT_TYPE, "application/json")], old).into_response());
            }
        }
    }
    let upstream = http::Request::from_parts(parts, kube::client::Body::from(body.to_vec()));
    let answer = proxy.client.send(upstream).await?;
    let (mut parts, body) = answer.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.remove(header::TRANSFER_ENCODING);
    if fault == Some(Fault::LostAnswer) {
        return Ok(failure(StatusCode::GATEWAY_TIMEOUT, "Timeout", HeaderMap::new()));
    }
    let mut stream = Body::new(body).into_data_stream();
    if watch {
        let until = cut_after.map(|after| tokio::time::Instant::now() + after);
        let body = async_stream(stream, until);
        return Ok(Response::from_parts(parts, Body::from_stream(body)));
    }
    let mut whole = Vec::new();
    while let Some(part) = stream.next().await {
        whole.extend_from_slice(&part?);
    }
    let whole = Bytes::from(whole);
    if list && parts.status.is_success() {
        let mut lists = proxy.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let old = lists.entry(key).or_default();
        old.push_back(whole.clone());
        if old.len() > OLD_LISTS {
            old.pop_front();
        }
    }
    Ok(Response::from_parts(parts, Body::from(whole)))
}

/// The stream, ended at a time.
fn async_stream(
    stream: axum::body::BodyDataStream,
    until: Option<tokio::time::Instant>,
) -> impl futures::Stream<Item = Result<Bytes, Infallible>> {
    futures::stream::unfold(stream, move |mut stream| async move {
        let next = stream.next();
        let next = match until {
            Some(until) => tokio::time::timeout_at(until, next).await.ok()?,
            None => next.await,
        };
        Some((Ok(next?.ok()?), stream))
    })
}
