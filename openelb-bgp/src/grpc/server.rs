//! Listeners, and what they allow at most.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::{
    service::interceptor::InterceptedService,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

pub use super::connections::MAX_CONNECTIONS;
use super::{
    apipb::gobgp_api_server::GobgpApiServer,
    connections::{admit, called},
    v3::Api,
};

/// Octets of one request: GoBGP's own bound.
const MAX_REQUEST: usize = 4 << 20;
/// Calls of one connection that may run at the same time.
const CALLS_PER_CONNECTION: u32 = 64;
/// Requests of one connection that may be worked on at the same time.
const WORK_PER_CONNECTION: usize = 64;
/// A connection that says nothing is asked whether it lives.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
/// A TLS handshake, or an answer to that question, may take this long.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Rights of a Unix socket: its user and group.
const SOCKET_MODE: u32 = 0o660;

/// Where to listen: `ADDRESS:PORT`, `:PORT` (every address), or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Whether only this host can connect.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

/// Text that is no [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address: use ADDRESS:PORT, [IPV6]:PORT, :PORT or unix:PATH")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    /// ```
    /// use openelb_bgp::grpc::server::Address;
    ///
    /// assert!("127.0.0.1:50051".parse::<Address>()?.is_local());
    /// assert!("unix:/run/openelb/gobgp.sock".parse::<Address>()?.is_local());
    /// assert!(!":50051".parse::<Address>()?.is_local());
    /// # Ok::<(), openelb_bgp::grpc::server::AddressError>(())
    /// ```
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || AddressError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(error()) } else { Ok(Self::Unix(path.into())) };
        }
        if let Some(port) = text.strip_prefix(':') {
            let port = port.parse().map_err(|_| error())?;
            return Ok(Self::Tcp(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)));
        }
        if let Some(port) = text.strip_prefix("localhost:") {
            let port = port.parse().map_err(|_| error())?;
            return Ok(Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
        }
        text.parse().map(Self::Tcp).map_err(|_| error())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// TLS of a listener on TCP: PEM texts. `Debug` shows none of them.
#[derive(Clone, PartialEq, Eq)]
pub struct Tls {
    /// Our certificate, with those that lead to its root.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// Clients must have a certificate of one of these; `None`: anybody may connect.
    pub client_ca: Option<String>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("client_ca", &self.client_ca.is_some()).finish_non_exhaustive()
    }
}

/// A listener that is open.
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// Removes the socket file when the listener is gone.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Opens a listener. A socket file that nobody listens on any more is taken over.
    ///
    /// # Errors
    /// If the address cannot be had: it is in use, or not this host's.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        let kind = match address {
            Address::Tcp(address) => Kind::Tcp(TcpListener::bind(address).await?),
            Address::Unix(path) => {
                remove_stale(path).await?;
                let listener = UnixListener::bind(path)?;
                let file = SocketFile(path.clone());
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
                Kind::Unix(listener, file)
            }
        };
        Ok(Self { kind })
    }

    /// Where it listens: with the port, if any free one was asked for.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        match &self.kind {
            Kind::Tcp(listener) => listener.local_addr().ok().map(Address::Tcp),
            Kind::Unix(_, file) => Some(Address::Unix(file.0.clone())),
        }
    }
}

async fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(io::Error::from(io::ErrorKind::AddrInUse)),
        Err(_) => std::fs::remove_file(path),
    }
}

/// A server that failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ServeError(String);

fn chain(error: &dyn std::error::Error) -> ServeError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    ServeError(text)
}

/// Serves until it is dropped, or the listener fails, at most [`MAX_CONNECTIONS`] at the same time, of which other hosts
/// have their shares; one whose client makes no call within ten seconds is closed. `tls` is not for Unix sockets.
///
/// # Errors
/// If certificates or key cannot be used, or the listener fails.
pub async fn serve(api: Api, listener: Listener, tls: Option<Tls>) -> Result<(), ServeError> {
    let mut server = Server::builder()
        .concurrency_limit_per_connection(WORK_PER_CONNECTION)
        .max_concurrent_streams(CALLS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(ANSWER_WITHIN))
        .tcp_nodelay(true);
    if let (Some(tls), Kind::Tcp(_)) = (tls, &listener.kind) {
        let mut config = ServerTlsConfig::new()
            .identity(Identity::from_pem(tls.certificate, tls.key))
            .timeout(ANSWER_WITHIN);
        if let Some(roots) = tls.client_ca {
            config = config.client_ca_root(Certificate::from_pem(roots));
        }
        server = server.tls_config(config).map_err(|error| chain(&error))?;
    }
    let service = GobgpApiServer::new(api).max_decoding_message_size(MAX_REQUEST);
    let service = InterceptedService::new(service, called);
    let router = server.add_service(service);
    match listener.kind {
        Kind::Tcp(listener) => router.serve_with_incoming(admit(TcpListenerStream::new(listener))).await,
        Kind::Unix(listener, _file) => {
            router.serve_with_incoming(admit(UnixListenerStream::new(listener))).await
        }
    }
    .map_err(|error| chain(&error))
}
