//! Our speaker as a process of its own, so that it is measured as its peers are: commands come on standard input, one a
//! line, and each is answered with a line.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
};

use anyhow::{Context, ensure};
use ipnet::{IpNet, Ipv4Net};
use openelb_bgp::{
    net::{self, Shutdown},
    speaker::{Delta, PeerConfig, Route, RouteAttributes, SpeakerConfig},
};

use crate::{
    bgp_routers::FEEDER_AS,
    bgp_session::{PER_SET, address},
};

/// So many prefixes its limited neighbour may have.
pub(crate) const LIMIT: u32 = 5_000;

/// The argument that makes the benches' program such a speaker.
pub const ARGUMENT: &str = "--as-bgp-speaker";

fn routes(range: std::ops::Range<u32>, community: u32) -> Vec<Route> {
    let sets: Vec<Arc<RouteAttributes>> = (0..range.len().div_ceil(PER_SET as usize))
        .map(|set| {
            let communities = vec![community + u32::try_from(set).unwrap_or(u32::MAX)];
            Arc::new(RouteAttributes { communities, ..RouteAttributes::default() })
        })
        .collect();
    let set_of = |at: usize| sets.get(at / PER_SET as usize).cloned().unwrap_or_default();
    let route = |(at, index)| Route {
        attributes: set_of(at),
        ..Route::new(IpNet::V4(Ipv4Net::from(address(index))))
    };
    range.enumerate().map(route).collect()
}

/// The process itself: ends when its standard input does.
///
/// # Errors
/// A command that it does not know, or a configuration that the speaker refuses.
pub fn run(arguments: &[String]) -> anyhow::Result<()> {
    let [listen, asn, peers @ ..] = arguments else { anyhow::bail!("{ARGUMENT} LISTEN AS PEER...") };
    let listen: SocketAddr = listen.parse()?;
    let SocketAddr::V4(own) = listen else { anyhow::bail!("IPv4 only") };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let _context = runtime.enter();
    let mut config = SpeakerConfig::new(asn.parse()?, *own.ip());
    config.listen = vec![listen];
    let (speaker, task) = net::spawn(config)?;
    let peers: Vec<PeerConfig> = peers
        .iter()
        .map(|text| {
            // ADDRESS@AS
            let (address, asn) = text.split_once('@').context("a peer is ADDRESS@AS")?;
            let mut peer = PeerConfig::new(text.as_str(), address.parse()?, asn.parse()?);
            peer.passive = true;
            // The feeder of a peer is, with ours, the neighbour that has too many prefixes.
            if peer.asn == u32::from(FEEDER_AS) {
                peer.prefix_limit.max_prefixes = LIMIT;
            }
            peer.hold_time = std::time::Duration::from_secs(crate::bgp_session::HOLD_TIME.into());
            Ok(peer)
        })
        .collect::<anyhow::Result<_>>()?;
    speaker.set_peers(peers)?;
    let mut prepared: Vec<Route> = Vec::new();
    let mut stdout = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| -> anyhow::Result<u32> { Ok(words.get(at).context(ARGUMENT)?.parse()?) };
        let answer = match words.first().copied() {
            Some("prepare") => {
                prepared = routes(0..number(1)?, number(2)?);
                String::new()
            }
            Some("give") => {
                speaker.set_routes("bench", std::mem::take(&mut prepared));
                String::new()
            }
            Some("change") => {
                let add = std::mem::take(&mut prepared);
                speaker.apply("bench", Delta { add, remove: Vec::new() });
                String::new()
            }
            Some("withdraw") => {
                speaker.set_routes("bench", []);
                String::new()
            }
            Some("one") => {
                let add = routes(number(1)?..number(1)? + 1, 0);
                speaker.apply("bench", Delta { add, remove: Vec::new() });
                String::new()
            }
            Some("stats") => {
                let stats = runtime.block_on(speaker.table_stats());
                format!("{} {}", stats.routes, stats.reserved_bytes)
            }
            Some("received") => {
                let snapshot = speaker.watch_peers().borrow().clone();
                let sessions = snapshot.peers.values().filter_map(|peer| peer.session.as_ref());
                let received: u64 =
                    sessions.flat_map(|session| &session.families).map(|family| family.received).sum();
                received.to_string()
            }
            _ => anyhow::bail!("{ARGUMENT}: {line:?}"),
        };
        writeln!(stdout, "{answer}")?;
        stdout.flush()?;
    }
    speaker.shutdown(Shutdown::Quiet);
    runtime.block_on(task)?;
    Ok(())
}

/// That process, from outside. It ends when this is dropped.
pub(crate) struct OwnSpeaker {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl OwnSpeaker {
    pub(crate) fn start(listen: SocketAddr, asn: u16, peers: &[(Ipv4Addr, u16)]) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(ARGUMENT)
            .arg(listen.to_string())
            .arg(asn.to_string())
            .args(peers.iter().map(|(address, asn)| format!("{address}@{asn}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("no standard output")?);
        Ok(Self { child, stdin, stdout })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn ask(&mut self, command: &str) -> anyhow::Result<String> {
        let stdin = self.stdin.as_mut().context("no standard input")?;
        // In one piece: a line that comes in two would be read in two.
        stdin.write_all(format!("{command}\n").as_bytes())?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        ensure!(line.ends_with('\n'), "our speaker ended at {command:?}");
        Ok(line.trim().to_owned())
    }
}

impl Drop for OwnSpeaker {
    fn drop(&mut self) {
        self.stdin = None;
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
