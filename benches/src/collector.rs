//! A router that takes BGP sessions, counts prefixes and messages, and keeps nothing but what is waited for.

#![allow(clippy::indexing_slicing, reason = "a malformed message ends the measurement, not a product")]

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

/// Its AS number.
pub(crate) const AS: u16 = 65001;
/// Its BGP identifier.
const IDENTIFIER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);

/// What one session brought.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bulk {
    pub(crate) first: Duration,
    pub(crate) all: Duration,
    pub(crate) updates: u64,
}

impl Bulk {
    pub(crate) fn better(self, other: Self) -> Self {
        Self {
            first: self.first.min(other.first),
            all: self.all.min(other.all),
            updates: self.updates.min(other.updates),
        }
    }
}

/// Takes BGP sessions.
pub(crate) struct Collector(TcpListener);

impl Collector {
    pub(crate) fn listen(address: Ipv4Addr, port: u16) -> anyhow::Result<Self> {
        Ok(Self(TcpListener::bind((address, port)).with_context(|| format!("{address} port {port}"))?))
    }

    pub(crate) fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.0.local_addr()?)
    }

    /// Waits for the speaker to connect, and for the session to be Established.
    pub(crate) fn accept(&self, within: Duration) -> anyhow::Result<Session> {
        self.0.set_nonblocking(true)?;
        let deadline = Instant::now() + within;
        let stream = loop {
            match self.0.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    ensure!(Instant::now() < deadline, "nobody connected within {within:?}");
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error.into()),
            }
        };
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(within))?;
        stream.set_nodelay(true)?;
        let mut session = Session {
            stream,
            buffer: vec![0; 1 << 20],
            filled: 0,
            established: Instant::now(),
            first: None,
            updates: 0,
            nlri: 0,
        };
        session.open()?;
        Ok(session)
    }
}

/// What has been announced, for as long as the collector runs.
#[derive(Clone, Default)]
pub(crate) struct Arrivals(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    times: HashMap<Ipv4Addr, Instant>,
    updates: u64,
}

impl Arrivals {
    fn with<T>(&self, look: impl FnOnce(&mut Inner) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many prefixes there are, when the last of them came, and in how many UPDATEs.
    pub(crate) fn total(&self) -> (usize, Option<Instant>, u64) {
        self.with(|inner| (inner.times.len(), inner.times.values().max().copied(), inner.updates))
    }

    /// Begins anew.
    pub(crate) fn forget(&self) {
        self.with(|inner| *inner = Inner::default());
    }

    /// When this one came first.
    pub(crate) fn of(&self, address: Ipv4Addr) -> Option<Instant> {
        self.with(|inner| inner.times.get(&address).copied())
    }
}

impl Collector {
    /// Takes one session after the other on a thread of its own, until the process ends.
    pub(crate) fn run(self) -> Arrivals {
        let arrivals = Arrivals::default();
        let seen = arrivals.clone();
        std::thread::spawn(move || {
            while let Ok(session) = self.accept(Duration::from_secs(3600)) {
                // A session that ends is followed by the next one.
                let _ = session.follow(&seen);
            }
        });
        arrivals
    }
}

/// Well within any hold time.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);

const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xff; 16];
    out.extend_from_slice(&u16::try_from(19 + body.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.push(kind);
    out.extend_from_slice(body);
    out
}

/// A session of the collector.
pub(crate) struct Session {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    established: Instant,
    first: Option<Instant>,
    updates: u64,
    nlri: u64,
}

impl Session {
    fn open(&mut self) -> anyhow::Result<()> {
        let mut body = vec![4];
        body.extend_from_slice(&AS.to_be_bytes());
        body.extend_from_slice(&240_u16.to_be_bytes());
        body.extend_from_slice(&IDENTIFIER.octets());
        let [high, low] = AS.to_be_bytes();
        // Multiprotocol IPv4 unicast, route refresh, four-octet AS numbers.
        let capabilities = [1, 4, 0, 1, 0, 1, 2, 0, 65, 4, 0, 0, high, low];
        let length = u8::try_from(capabilities.len())?;
        body.extend_from_slice(&[length + 2, 2, length]);
        body.extend_from_slice(&capabilities);
        self.stream.write_all(&message(OPEN, &body))?;
        loop {
            let (mut opened, mut confirmed) = (false, false);
            self.read(|kind, _| {
                opened |= kind == OPEN;
                confirmed |= kind == KEEPALIVE;
                kind == OPEN || kind == KEEPALIVE
            })?;
            if opened {
                // The speaker is Established when this reaches it. The clock of whoever measures must not start
                // later: on a busy machine the routes may be here before we run again.
                self.established = Instant::now();
                self.stream.write_all(&message(KEEPALIVE, &[]))?;
            }
            if confirmed {
                return Ok(());
            }
        }
    }

    fn has_message(&self) -> bool {
        let length = usize::from(u16::from_be_bytes([self.buffer[16], self.buffer[17]]));
        self.filled >= 19 && self.filled >= length
    }

    /// Reads if need be, and gives each whole message to `take` until it returns false; what it did not take stays.
    fn read(&mut self, mut take: impl FnMut(u8, &[u8]) -> bool) -> anyhow::Result<()> {
        if !self.has_message() {
            let free = &mut self.buffer[self.filled..];
            let read = self.stream.read(free).context("the speaker sent nothing in time")?;
            ensure!(read > 0, "the speaker closed the session");
            self.filled += read;
            // A sender without TCP_NODELAY would wait for our delayed acknowledgements: that is not what is measured.
            #[cfg(target_os = "linux")]
            socket2::SockRef::from(&self.stream).set_tcp_quickack(true)?;
        }
        let mut at = 0;
        while self.filled - at >= 19 {
            let length = usize::from(u16::from_be_bytes([self.buffer[at + 16], self.buffer[at + 17]]));
            ensure!(length >= 19, "a message of {length} octets");
            if self.filled - at < length {
                break;
            }
            let (kind, body) = (self.buffer[at + 18], &self.buffer[at + 19..at + length]);
            if kind == NOTIFICATION {
                bail!("the speaker sent NOTIFICATION {body:?}");
            }
            if !take(kind, body) {
                break;
            }
            at += length;
        }
        self.buffer.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }

    /// Reads once; `each` is called with every prefix that is announced.
    fn read_updates(&mut self, mut each: impl FnMut(Ipv4Addr)) -> anyhow::Result<()> {
        let (mut updates, mut nlri) = (0, 0);
        self.read(|kind, body| {
            if kind == UPDATE {
                let withdrawn = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let attributes = usize::from(u16::from_be_bytes([body[2 + withdrawn], body[3 + withdrawn]]));
                let mut list = &body[4 + withdrawn + attributes..];
                updates += u64::from(!list.is_empty());
                while let Some(length) = list.first() {
                    let size = 1 + usize::from(*length).div_ceil(8);
                    nlri += 1;
                    let mut octets = [0; 4];
                    octets[..size - 1].copy_from_slice(&list[1..size]);
                    each(octets.into());
                    list = &list[size..];
                }
            }
            true
        })?;
        self.updates += updates;
        self.nlri += nlri;
        if nlri > 0 && self.first.is_none() {
            self.first = Some(Instant::now());
        }
        Ok(())
    }

    pub(crate) fn bulk(&mut self, count: u32) -> anyhow::Result<Bulk> {
        while self.nlri < u64::from(count) {
            self.read_updates(|_| {})?;
        }
        let all = self.established.elapsed();
        let first = self.first.map_or(all, |first| first - self.established);
        Ok(Bulk { first, all, updates: self.updates })
    }

    pub(crate) fn wait_for(&mut self, address: Ipv4Addr) -> anyhow::Result<()> {
        let mut seen = false;
        while !seen {
            self.read_updates(|announced| seen |= announced == address)?;
        }
        Ok(())
    }

    /// ROUTE-REFRESH of IPv4 unicast (RFC 2918).
    pub(crate) fn ask_for_all(&mut self) -> anyhow::Result<()> {
        Ok(self.stream.write_all(&message(5, &[0, 1, 0, 1]))?)
    }

    pub(crate) fn wait_for_any(&mut self) -> anyhow::Result<()> {
        let before = self.nlri;
        while self.nlri == before {
            self.read_updates(|_| {})?;
        }
        Ok(())
    }

    fn follow(mut self, arrivals: &Arrivals) -> anyhow::Result<()> {
        let mut keepalives = self.stream.try_clone()?;
        std::thread::spawn(move || {
            while keepalives.write_all(&message(KEEPALIVE, &[])).is_ok() {
                std::thread::sleep(KEEPALIVE_INTERVAL);
            }
        });
        loop {
            let mut announced = Vec::new();
            let before = self.updates;
            self.read_updates(|address| announced.push(address))?;
            let now = Instant::now();
            arrivals.with(|inner| {
                inner.updates += self.updates - before;
                for address in announced {
                    inner.times.entry(address).or_insert(now);
                }
            });
        }
    }
}
