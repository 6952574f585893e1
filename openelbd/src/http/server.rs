//! The HTTP server: a port that is taken is a state and a retry, never the end of the program.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::sleep,
};

use super::{Health, ListenAddress, metrics::Metrics};

/// How long to wait before a port that was taken is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Connections at a time: a further one waits in the kernel until one of them ends. They share the process's descriptors
/// with BGP and Layer 2.
const CONNECTIONS: usize = 128;
/// A client has so long to send the head of a request, also for the next one on a connection that is kept.
const PATIENCE: Duration = Duration::from_secs(30);
/// After an error of accepting: there may be no descriptor left.
const BREATH: Duration = Duration::from_millis(100);
/// OpenMetrics, which Prometheus and its relatives read.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the server accepts connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ServerState {
    /// Not yet known.
    #[default]
    Starting,
    /// Not wanted.
    Off,
    /// On this address.
    Listening(SocketAddr),
    /// The port cannot be had; it is tried again.
    Failed(String),
}

/// `/metrics`, `/healthz` and `/readyz`.
pub fn observability(health: Arc<Health>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/metrics", get(render))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .with_state(Shared { health, metrics })
}

/// What is served where, for messages about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// What is served.
    pub name: &'static str,
    /// The flag that says where.
    pub flag: &'static str,
}

/// Serves `app` until it is dropped.
pub async fn serve(service: Service, address: ListenAddress, app: Router, state: watch::Sender<ServerState>) {
    let Service { name, flag } = service;
    if address == ListenAddress::Off {
        state.send_replace(ServerState::Off);
        return;
    }
    loop {
        match bind(address).await {
            Ok(listener) => {
                let local = listener.local_addr();
                if let Ok(local) = local {
                    tracing::info!(address = %local, "{name} served");
                    state.send_replace(ServerState::Listening(local));
                }
                accept(&listener, &app, name).await;
            }
            Err(error) => {
                let reason = format!("{address}: {error}");
                let failed = ServerState::Failed(reason.clone());
                if *state.borrow() != failed {
                    tracing::warn!(
                        %address, %error, retry_seconds = RETRY_AFTER.as_secs(),
                        "{name} cannot be served; free the port or set {flag}; it is tried again"
                    );
                }
                state.send_replace(failed);
            }
        }
        sleep(RETRY_AFTER).await;
    }
}

/// Accepts for ever.
async fn accept(listener: &TcpListener, app: &Router, name: &'static str) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut failure = None;
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                failure = None;
                let app = app.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, app).await {
                        tracing::debug!(%peer, %error, "a connection for {name} ends");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                let text = error.to_string();
                if failure.as_ref() != Some(&text) {
                    tracing::warn!(%error, "no connection for {name} can be accepted; it is tried again");
                }
                failure = Some(text);
                sleep(BREATH).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, app: Router) -> hyper::Result<()> {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)).await
}

async fn bind(address: ListenAddress) -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for candidate in address.candidates() {
        match TcpListener::bind(candidate).await {
            Ok(listener) => return Ok(listener),
            // A host without IPv6 has IPv4; a port that is taken is taken.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[derive(Clone)]
struct Shared {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

async fn render(State(shared): State<Shared>) -> Response {
    match shared.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the metrics: {error}\n"))
            .into_response(),
    }
}

async fn alive(State(shared): State<Shared>) -> Response {
    if shared.health.is_alive().await {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the main loop does not answer\n").into_response()
    }
}

async fn ready(State(shared): State<Shared>) -> Response {
    let readiness = shared.health.readiness();
    let code = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, readiness.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    async fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/metrics", get(|| async { "ours 1\n" }));
        tokio::spawn(async move { accept(&listener, &app, "the test").await });
        address
    }

    #[tokio::test]
    async fn clients_that_hold_connections_wait_for_their_turn_and_hold_up_nothing_else() {
        let address = server().await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut one = TcpStream::connect(address).await.unwrap();
        one.write_all(REQUEST).await.unwrap();
        let mut octets = [0; 1];
        // All places are taken, and stay so while nobody goes.
        let early = tokio::time::timeout(Duration::from_millis(200), one.read(&mut octets)).await;
        assert!(early.is_err(), "{early:?}");
        silent.pop();
        let mut answer = String::new();
        one.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("ours 1\n"), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_its_request_too_slowly_is_sent_away() {
        let address = server().await;
        let began = tokio::time::Instant::now();
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /metrics HT").await.unwrap();
        let mut answer = Vec::new();
        let _ = slow.read_to_end(&mut answer).await;
        assert!(began.elapsed() >= PATIENCE, "{:?}", began.elapsed());
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    }
}
