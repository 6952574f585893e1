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
use openelb_bgp::grpc::places::{Limits, Places, Source};
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

use super::{Health, ListenAddress, metrics::Metrics};

/// How long to wait before a port that was taken is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Connections at a time: they share the process's descriptors with BGP and Layer 2. The kubelet, which probes from this
/// host, has places of its own, and a host elsewhere has a few; a further connection is closed.
const LIMITS: Limits = Limits { connections: 128, reserved: 16, per_source: 16 };
/// A client has so long to send the head of a request, also for the next one on a connection that is kept.
const PATIENCE: Duration = Duration::from_secs(5);
/// And so long to take in more of an answer.
const READ_WITHIN: Duration = Duration::from_secs(30);
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
                accept(&listener, &app, name, Source::of).await;
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

/// Where a connection from the first to the second address comes from.
type SourceOf = fn(SocketAddr, Option<SocketAddr>) -> Source;

/// Accepts for ever.
async fn accept(listener: &TcpListener, app: &Router, name: &'static str, source_of: SourceOf) {
    let places = Places::new(LIMITS);
    let mut failure = None;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                failure = None;
                let place = match places.take(source_of(peer, stream.local_addr().ok())) {
                    Ok(place) => place,
                    Err(reason) => {
                        if places.tell() {
                            tracing::warn!(
                                %peer, %reason, connections = LIMITS.connections, per_source = LIMITS.per_source,
                                "a connection for {name} is closed unread; look for clients that keep many open"
                            );
                        }
                        continue;
                    }
                };
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
    // Without it a client that reads nothing more is kept for ever; with an error it is only kept longer.
    let _ = set_tcp_user_timeout(&stream, u32::try_from(READ_WITHIN.as_millis()).unwrap_or(u32::MAX));
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

    use std::{net::IpAddr, os::fd::AsFd as _};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpSocket,
        time::{Instant, timeout},
    };

    use super::*;

    const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    const DEADLINE: Duration = Duration::from_secs(20);

    /// The first loopback address is this host; the others are elsewhere.
    fn source_of(peer: SocketAddr, _: Option<SocketAddr>) -> Source {
        let own = peer.ip() == IpAddr::from([127, 0, 0, 1]);
        if own { Source::Own } else { Source::Other(peer.ip()) }
    }

    async fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/metrics", get(|| async { "ours 1\n" }));
        tokio::spawn(async move { accept(&listener, &app, "the test", source_of).await });
        address
    }

    async fn from(host: u8, server: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((IpAddr::from([127, 0, 0, host]), 0).into()).unwrap();
        socket.connect(server).await.unwrap()
    }

    /// What a request is answered with; nothing if the connection is closed unread.
    async fn ask(mut client: TcpStream) -> String {
        let mut answer = Vec::new();
        let asked = async {
            // It may be closed already.
            let _ = client.write_all(REQUEST).await;
            let _ = client.read_to_end(&mut answer).await;
        };
        timeout(DEADLINE, asked).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    async fn is_closed(client: &mut TcpStream) {
        let read = timeout(DEADLINE, client.read(&mut [0])).await.unwrap();
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }

    #[tokio::test]
    async fn a_flood_from_elsewhere_does_not_take_the_probes_of_this_host_away() {
        let address = server().await;
        let mut flood = Vec::new();
        for host in 2..=20 {
            for _ in 0..LIMITS.per_source {
                flood.push(from(host, address).await);
            }
        }
        assert!(flood.len() > 2 * LIMITS.connections);
        is_closed(flood.last_mut().unwrap()).await;
        assert_eq!(ask(from(21, address).await).await, "", "all places for other hosts are taken");
        for _ in 0..LIMITS.reserved * 2 {
            let answer = ask(from(1, address).await).await;
            assert!(answer.ends_with("ours 1\n"), "{answer}");
        }
    }

    #[tokio::test]
    async fn one_host_elsewhere_has_its_share_and_leaves_the_rest_to_others() {
        let address = server().await;
        let mut held = Vec::new();
        for _ in 0..LIMITS.per_source {
            held.push(from(2, address).await);
        }
        assert_eq!(ask(from(2, address).await).await, "");
        let answer = ask(from(3, address).await).await;
        assert!(answer.ends_with("ours 1\n"), "{answer}");
        // A place that is left is had again.
        assert!(ask(held.pop().unwrap()).await.ends_with("ours 1\n"));
        let began = std::time::Instant::now();
        while !ask(from(2, address).await).await.ends_with("ours 1\n") {
            assert!(began.elapsed() < DEADLINE, "the place is not given back");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_its_request_too_slowly_is_sent_away() {
        let address = server().await;
        let began = Instant::now();
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /metrics HT").await.unwrap();
        let mut answer = Vec::new();
        let _ = slow.read_to_end(&mut answer).await;
        let took = began.elapsed();
        assert!(took >= PATIENCE && took < PATIENCE * 2, "{took:?}");
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    }

    #[tokio::test]
    async fn a_client_has_so_long_to_read_its_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let shown = stream.as_fd().try_clone_to_owned().unwrap();
        let app = Router::new().route("/metrics", get(|| async { "ours 1\n" }));
        tokio::spawn(converse(stream, app));
        client.write_all(REQUEST).await.unwrap();
        // The kernel counts, not we: half a minute is too long for a test.
        let mut octet = [0];
        timeout(DEADLINE, client.read(&mut octet)).await.unwrap().unwrap();
        assert_eq!(rustix::net::sockopt::tcp_user_timeout(&shown).unwrap(), 30_000);
    }
}
