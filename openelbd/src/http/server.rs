//! The HTTP server: a port that is taken is a state and a retry, never the end of the program.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, sync::watch, time::sleep};

use super::{Health, ListenAddress, metrics::Metrics};

/// How long to wait before a port that was taken is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(2);
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
                // It only returns if accepting fails for good.
                if let Err(error) = axum::serve(listener, app.clone()).await {
                    tracing::warn!(%error, "the listener for {name} failed; it is opened again");
                }
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
