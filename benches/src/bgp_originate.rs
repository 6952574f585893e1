//! Originating 100,000 routes: from Established to the last prefix, beside BIRD in the same run.
//!
//! A collector on a loopback address takes the session, counts prefixes and messages, and keeps nothing. Our speaker
//! and then BIRD, with the same routes as static ones, connect to it. Loopback addresses only.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use ipnet::{IpNet, Ipv4Net};
use openelb_bgp::{
    net::{self, Shutdown},
    speaker::{Delta, PeerConfig, Route, SpeakerConfig},
};

use crate::{
    Options, Report, Row, Target,
    collector::{AS as COLLECTOR_AS, Bulk, Collector, Session},
};

const ROUTES: u32 = 100_000;
const SPEAKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const COLLECTOR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const SPEAKER_AS: u16 = 65000;
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
    let collector = Collector::listen(COLLECTOR, 0)?;
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
    let collector = Collector::listen(COLLECTOR, 0)?;
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
