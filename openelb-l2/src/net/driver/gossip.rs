//! The socket of gossip.

use std::{
    io,
    net::SocketAddr,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use crate::speaker::Speaker;

/// A port that is taken is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);
/// Datagrams that are taken in before anything else has its turn.
const BATCH: usize = 64;
/// More than the longest datagram of gossip: what is longer is none, and is refused.
const ROOM: usize = 2048;

pub(super) struct Gossip {
    bind: SocketAddr,
    socket: Result<UdpSocket, String>,
    retry: Option<Instant>,
    room: Box<[u8; ROOM]>,
}

impl Gossip {
    /// Not bound yet: [`retry`](Self::retry) does it.
    pub(super) fn new(bind: SocketAddr, now: Instant) -> Self {
        Self { bind, socket: Err("not bound yet".to_owned()), retry: Some(now), room: Box::new([0; ROOM]) }
    }

    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.retry
    }

    /// Binds the socket when it is time to. Says whether anything changed.
    pub(super) fn retry(&mut self, now: Instant) -> bool {
        if self.retry.is_none_or(|at| at > now) {
            return false;
        }
        let was = self.problem().map(str::to_owned);
        self.socket = bind(self.bind).map_err(|error| {
            format!("gossip cannot be listened for on {}: {error}; it is tried again", self.bind)
        });
        self.retry = self.socket.is_err().then(|| now + RETRY);
        match &self.socket {
            Ok(_) => tracing::info!(address = %self.bind, "listening for gossip"),
            Err(error) if was.as_deref() != Some(error) => tracing::warn!("{error}"),
            Err(_) => {}
        }
        self.problem() != was.as_deref()
    }

    pub(super) fn problem(&self) -> Option<&str> {
        self.socket.as_ref().err().map(String::as_str)
    }

    pub(super) fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        self.socket.as_ref().map_or(Poll::Pending, |socket| socket.poll_recv_ready(context).map(|_| ()))
    }

    pub(super) fn receive(&mut self, speaker: &mut Speaker, now: Instant) {
        let Ok(socket) = &self.socket else { return };
        for _ in 0..BATCH {
            match socket.try_recv_from(&mut *self.room) {
                Ok((length, from)) => {
                    speaker.handle_datagram(from, self.room.get(..length).unwrap_or_default(), now);
                }
                // Nothing more, or the echo of a datagram that somebody refused.
                Err(_) => break,
            }
        }
    }

    /// Says whether the kernel took it.
    pub(super) fn send(&self, to: SocketAddr, payload: &[u8]) -> bool {
        // Not by way of tokio, which sends nothing before it has looked whether the socket has room: the first words of a
        // start would be lost.
        let send = |socket| SockRef::from(socket).send_to(payload, &to.into()).is_ok();
        self.socket.as_ref().is_ok_and(send)
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_said_right_after_binding_is_sent() {
        let other = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let to = other.local_addr().expect("its address");
        let now = super::super::Clock::new().now();
        let mut gossip = Gossip::new(SocketAddr::from(([127, 0, 0, 1], 0)), now);
        assert!(!gossip.send(to, b"not bound"));
        assert!(gossip.retry(now));
        assert!(gossip.send(to, b"first"));
        other.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let mut room = [0; 16];
        let (length, _) = other.recv_from(&mut room).expect("it comes");
        assert_eq!(room.get(..length), Some(&b"first"[..]));
    }
}
