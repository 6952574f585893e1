//! The connections of a listener: at most so many, and none that keeps its place without a call.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Sleep, sleep},
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{
    Request, Status,
    transport::server::{Connected, TlsConnectInfo},
};

use super::places::{Limits, Place, Places, Source};

/// Connections of one listener that may be open at the same time.
pub const MAX_CONNECTIONS: usize = 64;
/// And of whom.
const LIMITS: Limits = Limits { connections: MAX_CONNECTIONS, reserved: 16, per_source: 16 };
/// A client makes its first call within this time. Octets are no measure: a TLS handshake has many.
const CALL_WITHIN: Duration = Duration::from_secs(10);

/// A connection that comes from somewhere.
pub(super) trait Sourced {
    /// From where.
    fn source(&self) -> io::Result<Source>;
}

impl Sourced for TcpStream {
    fn source(&self) -> io::Result<Source> {
        Ok(Source::of(self.peer_addr()?, self.local_addr().ok()))
    }
}

impl Sourced for UnixStream {
    fn source(&self) -> io::Result<Source> {
        Ok(Source::Own)
    }
}

/// The connections that have a place. One for which there is none is closed at once.
pub(super) fn admit<C: Sourced>(
    incoming: impl Stream<Item = io::Result<C>>,
) -> impl Stream<Item = io::Result<Admitted<C>>> {
    let places = Places::new(LIMITS);
    incoming.filter_map(move |connection| {
        let connection = match connection {
            Ok(connection) => connection,
            Err(error) => return Some(Err(error)),
        };
        // It has gone already.
        let source = connection.source().ok()?;
        match places.take(source) {
            Ok(place) => {
                let silence = Some(Box::pin(sleep(CALL_WITHIN)));
                Some(Ok(Admitted { connection, silence, called: Called::default(), _place: place }))
            }
            Err(reason) => {
                if places.tell() {
                    tracing::warn!(
                        ?source, %reason, connections = LIMITS.connections, per_source = LIMITS.per_source,
                        "a connection to GoBGP's gRPC interface is closed unread: close some clients"
                    );
                }
                None
            }
        }
    })
}

/// Whether a connection has had a call.
#[derive(Clone, Debug, Default)]
pub(super) struct Called(Arc<AtomicBool>);

impl Called {
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Takes note of a call on its connection.
#[allow(clippy::result_large_err, clippy::unnecessary_wraps, reason = "the form of an interceptor")]
pub(super) fn called(request: Request<()>) -> Result<Request<()>, Status> {
    let extensions = request.extensions();
    let plain = extensions.get::<Called>();
    let connection = plain.or_else(|| Some(extensions.get::<TlsConnectInfo<Called>>()?.get_ref()));
    if let Some(connection) = connection {
        connection.set();
    }
    Ok(request)
}

/// A connection and its place.
#[derive(Debug)]
pub(super) struct Admitted<C> {
    connection: C,
    /// Runs until the client has made a call.
    silence: Option<Pin<Box<Sleep>>>,
    called: Called,
    _place: Place,
}

impl<C: AsyncRead + Unpin> AsyncRead for Admitted<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(silence) = &mut this.silence {
            if this.called.get() {
                this.silence = None;
            } else if silence.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client makes no call")));
            }
        }
        Pin::new(&mut this.connection).poll_read(context, buffer)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Admitted<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }
}

impl<C> Connected for Admitted<C> {
    type ConnectInfo = Called;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.called.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        time::Instant,
    };

    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;

    impl Sourced for DuplexStream {
        fn source(&self) -> io::Result<Source> {
            Ok(Source::Own)
        }
    }

    fn pairs(count: usize) -> (Vec<DuplexStream>, Vec<io::Result<DuplexStream>>) {
        (0..count).map(|_| duplex(64)).map(|(client, server)| (client, Ok(server))).unzip()
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_place_is_closed_and_a_place_that_is_left_is_had_again() {
        let (mut clients, servers) = pairs(MAX_CONNECTIONS + 2);
        let (sender, incoming) = tokio::sync::mpsc::unbounded_channel();
        let mut admitted = pin!(admit(UnboundedReceiverStream::new(incoming)));
        let mut servers = servers.into_iter();
        let mut offer = || sender.send(servers.next().unwrap()).unwrap();
        let mut open = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            offer();
            open.push(admitted.next().await.unwrap().unwrap());
        }
        offer();
        let asked = tokio::time::timeout(Duration::from_secs(1), admitted.next()).await;
        assert!(asked.is_err(), "it gets no place");
        let mut octet = [0];
        let refused = &mut clients[MAX_CONNECTIONS];
        assert_eq!(refused.read(&mut octet).await.unwrap(), 0, "and is closed");
        open.pop();
        offer();
        assert!(admitted.next().await.unwrap().is_ok(), "there is a place again");
    }

    #[tokio::test(start_paused = true)]
    async fn who_makes_no_call_loses_its_place_however_much_it_says() {
        let (mut clients, servers) = pairs(2);
        let mut admitted = pin!(admit(tokio_stream::iter(servers)));
        let (mut calls, mut talks) =
            (admitted.next().await.unwrap().unwrap(), admitted.next().await.unwrap().unwrap());
        let mut octets = [0; 60];
        let mut request = Request::new(());
        request.extensions_mut().insert(calls.connect_info());
        called(request).unwrap();
        let began = Instant::now();
        let error = loop {
            clients[1].write_all(&octets).await.unwrap();
            match talks.read_exact(&mut octets).await {
                Ok(_) => tokio::time::advance(Duration::from_secs(1)).await,
                Err(error) => break error,
            }
        };
        assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, 10));
        tokio::time::advance(CALL_WITHIN * 100).await;
        clients[0].write_all(&octets).await.unwrap();
        calls.read_exact(&mut octets).await.unwrap();
    }
}
