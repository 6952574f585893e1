//! Originating 100,000 routes: from Established to the last prefix, beside BIRD in the same run.
//!
//! A collector on a loopback address takes the session, counts prefixes and messages, and keeps nothing. Our speaker
//! and then BIRD, with the same routes as static ones, connect to it. Loopback addresses only.

#![allow(clippy::indexing_slicing, reason = "a malformed message ends the measurement, not a product")]

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use ipnet::{IpNet, Ipv4Net};
use openelb_bgp::{
    net::{self, Shutdown},
    speaker::{Delta, PeerConfig, Route, SpeakerConfig},
};

use crate::{Options, Report, Row, Target};

const ROUTES: u32 = 100_000;
const SPEAKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const COLLECTOR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const SPEAKER_AS: u16 = 65000;
const COLLECTOR_AS: u16 = 65001;
/// Nothing here takes longer, unless it is broken.
const DEADLINE: Duration = Duration::from_secs(60);

/// The benchmark.
///
/// # Errors
/// If our speaker does not deliver its routes in time.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let count = options.scaled(ROUTES);
    let rounds = options.rounds.clamp(1, 5);
    let mut report = Report::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;

    let mut ours: Option<Bulk> = None;
    let mut present = None;
    for round in 0..rounds {
        let last = round + 1 == rounds;
        let (bulk, latencies) = our_round(&runtime, count, if last { 200 } else { 0 })?;
        ours = Some(ours.map_or(bulk, |best| best.better(bulk)));
        if last {
            present = Some(latencies);
        }
    }
    let ours = ours.context("no round was run")?;
    let present = present.context("no round was run")?;

    let mut bird: Option<Bulk> = None;
    let mut missing = None;
    for _ in 0..rounds {
        match bird_round(count) {
            Ok(bulk) => bird = Some(bird.map_or(bulk, |best| best.better(bulk))),
            Err(error) => missing = Some(error),
        }
    }
    if let Some(error) = missing {
        report.note(format!("BIRD: {error:#} (apt-get install bird2)"));
    }
    let beside = |row: Row, value: fn(&Bulk, u32) -> f64| match &bird {
        Some(bulk) => row.beside("bird", value(bulk, count)),
        None => row,
    };
    let rate = |bulk: &Bulk, count: u32| f64::from(count) / bulk.all.as_secs_f64();
    let per_update = |bulk: &Bulk, count: u32| f64::from(count) / (bulk.updates as f64);
    let first = |bulk: &Bulk, _: u32| bulk.first.as_secs_f64() * 1e3;
    report.push(
        beside(Row::new("originate, Established to last NLRI", "routes/s", rate(&ours, count)), rate)
            .target(Target::AtLeastOrRatioAtLeast(500_000.0, 0.5)),
    );
    report.push(
        beside(Row::new("NLRI per UPDATE, equal attributes", "NLRI", per_update(&ours, count)), per_update)
            .target(Target::AtLeast(300.0)),
    );
    report.push(
        beside(Row::new("first route out, Established to first NLRI", "ms", first(&ours, count)), first)
            .target(Target::AtMost(5.0)),
    );
    report.push(
        Row::new("one apply with the table full, to the collector, median", "ms", present.median * 1e3)
            .target(Target::AtMost(1.0)),
    );
    report.push(Row::new("the same, 99th percentile", "ms", present.p99 * 1e3));
    report.push(
        Row::new("one apply while the bulk is sent, to the collector", "ms", present.during_bulk * 1e3)
            .target(Target::AtMost(5.0)),
    );
    report.push(
        Row::new("memory per route, one peer, attribute sets left out", "bytes", present.bytes_per_route)
            .target(Target::AtMost(100.0)),
    );
    Ok(report)
}

/// What one session brought.
#[derive(Debug, Clone, Copy)]
struct Bulk {
    first: Duration,
    all: Duration,
    updates: u64,
}

impl Bulk {
    fn better(self, other: Self) -> Self {
        Self {
            first: self.first.min(other.first),
            all: self.all.min(other.all),
            updates: self.updates.min(other.updates),
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Present {
    median: f64,
    p99: f64,
    during_bulk: f64,
    bytes_per_route: f64,
}

fn address(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + index)
}

fn route(address: Ipv4Addr) -> Route {
    Route::new(IpNet::V4(Ipv4Net::from(address)))
}

fn our_round(runtime: &tokio::runtime::Runtime, count: u32, samples: u32) -> anyhow::Result<(Bulk, Present)> {
    let collector = Collector::listen()?;
    let _context = runtime.enter();
    let (speaker, task) = net::spawn(SpeakerConfig::new(SPEAKER_AS.into(), SPEAKER))?;
    speaker.set_routes("bench", (0..count).map(|index| route(address(index))));
    let mut peer = PeerConfig::new("collector", COLLECTOR.into(), COLLECTOR_AS.into());
    peer.port = collector.address()?.port();
    peer.local_address = Some(SPEAKER.into());
    speaker.set_peers(vec![peer])?;
    let mut session = collector.accept(DEADLINE)?;
    let mut fresh = (0..).map(|index: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 0, 2, 0)) + index));
    let mut present = Present::default();
    let bulk = session.bulk(count)?;
    if samples > 0 {
        let stats = runtime.block_on(speaker.table_stats());
        present.bytes_per_route = stats.reserved_bytes as f64 / stats.routes.max(1) as f64;
        let mut apply = |session: &mut Session| -> anyhow::Result<f64> {
            let address = fresh.next().context("addresses")?;
            let start = Instant::now();
            speaker.apply("bench", Delta { add: vec![route(address)], remove: Vec::new() });
            session.wait_for(address)?;
            Ok(start.elapsed().as_secs_f64())
        };
        let mut times = Vec::new();
        for _ in 0..samples {
            times.push(apply(&mut session)?);
        }
        times.sort_by(f64::total_cmp);
        present.median = times.get(times.len() / 2).copied().unwrap_or_default();
        present.p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
        // All routes once more, on the neighbour's demand, and a new one as soon as they begin to arrive.
        session.ask_for_all()?;
        session.wait_for_any()?;
        present.during_bulk = apply(&mut session)?;
    }
    speaker.shutdown(Shutdown::Quiet);
    drop(session);
    runtime.block_on(task)?;
    Ok((bulk, present))
}

fn bird_round(count: u32) -> anyhow::Result<Bulk> {
    let collector = Collector::listen()?;
    let directory = tempfile::tempdir()?;
    let configuration = directory.path().join("bird.conf");
    std::fs::write(&configuration, bird_configuration(count, collector.address()?.port(), free_port()?))?;
    let _bird = Bird::start(directory.path(), &configuration)?;
    collector.accept(DEADLINE)?.bulk(count)
}

fn bird_configuration(count: u32, collector_port: u16, own_port: u16) -> String {
    let mut text = format!(
        "router id {SPEAKER};\nprotocol device {{}}\nprotocol bgp collector {{\n  local {SPEAKER} port {own_port} as \
         {SPEAKER_AS};\n  neighbor {COLLECTOR} port {collector_port} as {COLLECTOR_AS};\n  multihop;\n  connect delay \
         time 1;\n  connect retry time 1;\n  ipv4 {{ import none; export all; }};\n}}\nprotocol static {{\n  ipv4;\n"
    );
    for index in 0..count {
        text.push_str(&format!("  route {}/32 blackhole;\n", address(index)));
    }
    text.push_str("}\n");
    text
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((SPEAKER, 0))?.local_addr()?.port())
}

/// A BIRD process that ends with us.
struct Bird(Child);

impl Bird {
    fn start(directory: &Path, configuration: &Path) -> anyhow::Result<Self> {
        let program = ["bird", "/usr/sbin/bird"]
            .into_iter()
            .find(|program| Command::new(program).arg("--version").output().is_ok())
            .context("no bird in the path")?;
        let child = Command::new(program)
            .arg("-f")
            .arg("-c")
            .arg(configuration)
            .arg("-s")
            .arg(directory.join("bird.ctl"))
            .arg("-P")
            .arg(directory.join("bird.pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes BGP sessions.
struct Collector(TcpListener);

impl Collector {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self(TcpListener::bind((COLLECTOR, 0))?))
    }

    fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.0.local_addr()?)
    }

    /// Waits for the speaker to connect, and for the session to be Established.
    fn accept(&self, within: Duration) -> anyhow::Result<Session> {
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
            watched: None,
            seen: BTreeSet::new(),
        };
        session.open()?;
        Ok(session)
    }
}

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
struct Session {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    established: Instant,
    first: Option<Instant>,
    updates: u64,
    nlri: u64,
    /// A prefix that is waited for.
    watched: Option<Ipv4Addr>,
    seen: BTreeSet<Ipv4Addr>,
}

impl Session {
    fn open(&mut self) -> anyhow::Result<()> {
        let mut body = vec![4];
        body.extend_from_slice(&COLLECTOR_AS.to_be_bytes());
        body.extend_from_slice(&240_u16.to_be_bytes());
        body.extend_from_slice(&COLLECTOR.octets());
        let [high, low] = COLLECTOR_AS.to_be_bytes();
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

    fn read_updates(&mut self) -> anyhow::Result<()> {
        let (mut updates, mut nlri) = (0, 0);
        let (watched, mut seen) = (self.watched, false);
        self.read(|kind, body| {
            if kind == UPDATE {
                let withdrawn = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let attributes = usize::from(u16::from_be_bytes([body[2 + withdrawn], body[3 + withdrawn]]));
                let mut list = &body[4 + withdrawn + attributes..];
                updates += u64::from(!list.is_empty());
                while let Some(length) = list.first() {
                    let size = 1 + usize::from(*length).div_ceil(8);
                    nlri += 1;
                    seen |= watched.is_some_and(|address| list[1..size] == address.octets());
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
        if seen {
            self.seen.extend(watched);
        }
        Ok(())
    }

    fn bulk(&mut self, count: u32) -> anyhow::Result<Bulk> {
        while self.nlri < u64::from(count) {
            self.read_updates()?;
        }
        let all = self.established.elapsed();
        let first = self.first.map_or(all, |first| first - self.established);
        Ok(Bulk { first, all, updates: self.updates })
    }

    fn wait_for(&mut self, address: Ipv4Addr) -> anyhow::Result<()> {
        self.watched = Some(address);
        while !self.seen.contains(&address) {
            self.read_updates()?;
        }
        Ok(())
    }

    /// ROUTE-REFRESH of IPv4 unicast (RFC 2918).
    fn ask_for_all(&mut self) -> anyhow::Result<()> {
        Ok(self.stream.write_all(&message(5, &[0, 1, 0, 1]))?)
    }

    fn wait_for_any(&mut self) -> anyhow::Result<()> {
        let before = self.nlri;
        while self.nlri == before {
            self.read_updates()?;
        }
        Ok(())
    }
}
