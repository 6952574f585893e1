//! A router that takes BGP sessions, counts prefixes and messages, and keeps nothing but what is waited for.

use std::{
    collections::HashMap,
    io::Write,
    net::{Ipv4Addr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::bgp_session::{Change, KEEPALIVE, Session, message};

/// Its AS number.
pub(crate) const AS: u16 = 65001;
/// Its BGP identifier.
const IDENTIFIER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);

/// Takes BGP sessions.
pub(crate) struct Collector(TcpListener);

impl Collector {
    pub(crate) fn listen(address: Ipv4Addr, port: u16) -> anyhow::Result<Self> {
        Ok(Self(TcpListener::bind((address, port)).with_context(|| format!("{address} port {port}"))?))
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
        Session::open(stream, AS, IDENTIFIER, within)
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
                let _ = follow(session, &seen);
            }
        });
        arrivals
    }
}

/// Well within any hold time.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);

fn follow(mut session: Session, arrivals: &Arrivals) -> anyhow::Result<()> {
    let mut keepalives = session.stream.try_clone()?;
    std::thread::spawn(move || {
        while keepalives.write_all(&message(KEEPALIVE, &[])).is_ok() {
            std::thread::sleep(KEEPALIVE_INTERVAL);
        }
    });
    loop {
        let mut announced = Vec::new();
        let before = session.updates;
        session.read_updates(|change| {
            if let Change::Announced { prefix, .. } = change {
                announced.push(prefix);
            }
        })?;
        let now = Instant::now();
        arrivals.with(|inner| {
            inner.updates += session.updates - before;
            for address in announced {
                inner.times.entry(address).or_insert(now);
            }
        });
    }
}
