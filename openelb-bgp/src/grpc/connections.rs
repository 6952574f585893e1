//! The connections of a listener: at most so many, and none that keeps its place without a word.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::server::Connected;

/// Connections of one listener that may be open at the same time.
pub const MAX_CONNECTIONS: usize = 64;
/// A client begins to speak within this time.
const SPEAK_WITHIN: Duration = Duration::from_secs(10);
/// Octets that HTTP/2 begins with (RFC 9113 §3.4); a TLS handshake has more.
const PREFACE: usize = 24;

/// The connections that have a place. One for which there is none is closed at once.
pub(super) fn admit<C>(
    incoming: impl Stream<Item = io::Result<C>>,
) -> impl Stream<Item = io::Result<Admitted<C>>> {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut told = false;
    incoming.filter_map(move |connection| {
        let connection = match connection {
            Ok(connection) => connection,
            Err(error) => return Some(Err(error)),
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(
                    connections = MAX_CONNECTIONS,
                    "GoBGP's gRPC interface has all the connections that it takes; further ones are closed: close some \
                     clients"
                );
            }
            return None;
        };
        told = false;
        let silence = Some(Box::pin(sleep(SPEAK_WITHIN)));
        Some(Ok(Admitted { connection, silence, heard: 0, _place: place }))
    })
}

/// A connection and its place.
#[derive(Debug)]
pub(super) struct Admitted<C> {
    connection: C,
    /// Runs until the client has spoken.
    silence: Option<Pin<Box<Sleep>>>,
    heard: usize,
    _place: OwnedSemaphorePermit,
}

impl<C: AsyncRead + Unpin> AsyncRead for Admitted<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.connection).poll_read(context, buffer);
        let Some(silence) = &mut self.silence else { return read };
        if read.is_pending() && silence.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client says nothing")));
        }
        self.heard = self.heard.saturating_add(buffer.filled().len().saturating_sub(before));
        if self.heard >= PREFACE {
            self.silence = None;
        }
        read
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

impl<C: Connected> Connected for Admitted<C> {
    type ConnectInfo = C::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.connection.connect_info()
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
    async fn who_says_nothing_loses_its_place() {
        let (mut clients, servers) = pairs(2);
        let mut admitted = pin!(admit(tokio_stream::iter(servers)));
        let (mut talks, mut silent) =
            (admitted.next().await.unwrap().unwrap(), admitted.next().await.unwrap().unwrap());
        let began = Instant::now();
        let mut octets = [0; PREFACE];
        clients[1].write_all(&octets[1..]).await.unwrap();
        silent.read_exact(&mut octets[1..]).await.unwrap();
        let error = silent.read(&mut octets).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, 10));
        clients[0].write_all(&octets).await.unwrap();
        talks.read_exact(&mut octets).await.unwrap();
        tokio::time::advance(SPEAK_WITHIN * 100).await;
        clients[0].write_all(&octets).await.unwrap();
        talks.read_exact(&mut octets).await.unwrap();
    }
}
