//! The speakers that are measured, ours and its peers, each a process of its own on a loopback address.
//!
//! A peer is fed over BGP by one neighbour and passes on what it got, for it has no other way to get routes one by one.
//! Ours gets them from its embedder: it passes nothing on.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, ensure};

use crate::{
    bgp_child::OwnSpeaker,
    bgp_session::{HOLD_TIME, KEEPALIVE, Session, address, bulk, message},
};

pub(crate) const SPEAKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SPEAKER_AS: u16 = 65000;
/// Feeds a peer.
pub(crate) const FEEDER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
pub(crate) const FEEDER_AS: u16 = 65001;
/// Tells when the table is full.
const WITNESS: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 250);
pub(crate) const COLLECTOR_AS: u16 = 65002;
/// Nothing takes longer, unless it is broken.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);
/// The community of the first set of a bulk; those of other bulks are far from it.
pub(crate) const COMMUNITY: u32 = 65100 << 16;

/// The address of a collector.
pub(crate) fn collector(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, number)
}

/// Whose speaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    Bird,
    Frr,
    Gobgp,
}

impl Kind {
    pub(crate) const PEERS: [Self; 3] = [Self::Bird, Self::Frr, Self::Gobgp];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Bird => "bird",
            Self::Frr => "frr",
            Self::Gobgp => "gobgp",
        }
    }

    /// The program, and the Debian package that has it.
    const fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::Ours => ("", ""),
            Self::Bird => ("/usr/sbin/bird", "bird2"),
            Self::Frr => ("/usr/lib/frr/bgpd", "frr"),
            Self::Gobgp => ("/usr/bin/gobgpd", "gobgpd"),
        }
    }

    /// Name and version.
    pub(crate) fn version(self) -> String {
        let output = Command::new(self.program().0).arg("--version").output();
        let text = output.map(|output| {
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        });
        let number = text.ok().and_then(|text| {
            let word = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
            word.map(ToOwned::to_owned)
        });
        format!("{} {}", self.name(), number.unwrap_or_default()).trim().to_owned()
    }
}

/// A running speaker with its table.
pub(crate) struct Router {
    kind: Kind,
    pub(crate) address: SocketAddr,
    source: Source,
    /// Its files.
    _directory: Option<tempfile::TempDir>,
    /// Made ahead, so that making it is not measured.
    prepared: Vec<u8>,
}

enum Source {
    Ours(OwnSpeaker),
    Fed { process: Peer, feed: Option<Session> },
}

/// A peer's process; it ends with this.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Router {
    /// Starts it with so many collectors as neighbours.
    pub(crate) fn start(kind: Kind, collectors: u8) -> anyhow::Result<Self> {
        let port = TcpListener::bind((SPEAKER, 0))?.local_addr()?.port();
        let address = SocketAddr::from((SPEAKER, port));
        let mut neighbours: Vec<(Ipv4Addr, u16)> = vec![(FEEDER, FEEDER_AS), (WITNESS, COLLECTOR_AS)];
        neighbours.extend((1..=collectors).map(|number| (collector(number), COLLECTOR_AS)));
        let (source, directory) = if kind == Kind::Ours {
            (Source::Ours(OwnSpeaker::start(address, SPEAKER_AS, &neighbours)?), None)
        } else {
            let (program, package) = kind.program();
            ensure!(Path::new(program).is_file(), "there is no {program} (apt-get install {package})");
            let directory = tempfile::tempdir()?;
            let file = directory.path().join("router.conf");
            let text = match kind {
                Kind::Bird => bird(port, &neighbours),
                Kind::Frr => frr(&neighbours),
                Kind::Gobgp | Kind::Ours => gobgp(port, &neighbours),
            };
            std::fs::write(&file, text)?;
            let at = |name: &str| directory.path().join(name).into_os_string();
            let mut command = Command::new(program);
            match kind {
                Kind::Bird => command.args(["-f".into(), "-c".into(), at("router.conf")]).args([
                    "-s".into(),
                    at("bird.ctl"),
                    "-P".into(),
                    at("bird.pid"),
                ]),
                Kind::Frr => command
                    .args(["-Z", "-S", "-P", "0", "-l", &SPEAKER.to_string(), "-p", &port.to_string()])
                    .args(["-f".into(), at("router.conf"), "-i".into(), at("bgpd.pid")])
                    .args(["--vty_socket".into(), directory.path().as_os_str().to_owned()]),
                Kind::Gobgp | Kind::Ours => {
                    let api = TcpListener::bind((SPEAKER, 0))?.local_addr()?;
                    command
                        .args(["--pprof-disable", "--api-hosts", &api.to_string(), "-l", "error", "-f"])
                        .arg(at("router.conf"))
                }
            };
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let process = Peer(command.spawn().with_context(|| format!("cannot start {program}"))?);
            (Source::Fed { process, feed: None }, Some(directory))
        };
        Ok(Self { kind, address, source, _directory: directory, prepared: Vec::new() })
    }

    /// Resident memory of its process in bytes.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        let id = match &self.source {
            Source::Ours(speaker) => speaker.id(),
            Source::Fed { process, .. } => process.0.id(),
        };
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// Has the first `count` routes ready, and a session to feed them, where they are fed.
    pub(crate) fn prepare(&mut self, count: u32, community: u32) -> anyhow::Result<()> {
        match &mut self.source {
            Source::Ours(speaker) => speaker.ask(&format!("prepare {count} {community}")).map(|_| ()),
            Source::Fed { feed, .. } => {
                self.prepared = bulk(FEEDER_AS, (0..count).map(address), community);
                if feed.is_none() {
                    *feed = Some(Session::connect(FEEDER, self.address, FEEDER_AS, DEADLINE)?);
                }
                Ok(())
            }
        }
    }

    fn feed(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let Source::Fed { feed, .. } = &mut self.source else { anyhow::bail!("ours is not fed") };
        feed.as_mut().context("no feeder")?.send(bytes)
    }

    /// Gives it what is prepared.
    pub(crate) fn give(&mut self) -> anyhow::Result<()> {
        if let Source::Ours(speaker) = &mut self.source {
            return speaker.ask("give").map(|_| ());
        }
        let bytes = std::mem::take(&mut self.prepared);
        self.feed(&bytes)
    }

    /// Changes what is prepared.
    pub(crate) fn change(&mut self) -> anyhow::Result<()> {
        if let Source::Ours(speaker) = &mut self.source {
            return speaker.ask("change").map(|_| ());
        }
        let bytes = std::mem::take(&mut self.prepared);
        self.feed(&bytes)
    }

    /// One more route.
    pub(crate) fn one(&mut self, index: u32) -> anyhow::Result<()> {
        if let Source::Ours(speaker) = &mut self.source {
            return speaker.ask(&format!("one {index}")).map(|_| ());
        }
        self.feed(&bulk(FEEDER_AS, [address(index)], COMMUNITY))
    }

    /// Takes all routes away at once: ours gets an empty set, the feeder of a peer closes its session.
    pub(crate) fn withdraw(&mut self) -> anyhow::Result<()> {
        match &mut self.source {
            Source::Ours(speaker) => speaker.ask("withdraw").map(|_| ()),
            Source::Fed { feed, .. } => {
                if let Some(feed) = feed.take() {
                    feed.stream.shutdown(std::net::Shutdown::Both)?;
                }
                Ok(())
            }
        }
    }

    /// Gives it the first `count` routes, and waits until it has them all.
    pub(crate) fn load(&mut self, count: u32) -> anyhow::Result<()> {
        self.prepare(count, COMMUNITY)?;
        self.give()?;
        let mut witness = Session::connect(WITNESS, self.address, COLLECTOR_AS, DEADLINE)?;
        witness.announced(count).with_context(|| format!("{} has no full table", self.kind.name()))?;
        Ok(())
    }

    /// Keeps BIRD awake until this is dropped: BIRD 2.0 may wait in poll() for 3 s with routes left to send, until some
    /// socket has something for it.
    pub(crate) fn awake(&self) -> anyhow::Result<Option<Awake>> {
        match &self.source {
            Source::Fed { feed: Some(feed), .. } if self.kind == Kind::Bird => {
                Awake::start(feed.stream.try_clone()?).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// What our speaker says; nothing of a peer.
    pub(crate) fn ask(&mut self, command: &str) -> anyhow::Result<String> {
        let Source::Ours(speaker) = &mut self.source else { anyhow::bail!("only ours is asked") };
        speaker.ask(command)
    }
}

/// KEEPALIVEs from the feeder, one after the other.
pub(crate) struct Awake {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Awake {
    fn start(mut feed: TcpStream) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::Builder::new().spawn(move || {
            let keepalive = message(KEEPALIVE, &[]);
            while !seen.load(Ordering::Relaxed) && feed.write_all(&keepalive).is_ok() {
                std::thread::yield_now();
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

fn bird(port: u16, neighbours: &[(Ipv4Addr, u16)]) -> String {
    let mut text = format!("router id {SPEAKER};\nprotocol device {{}}\n");
    for (number, (address, asn)) in neighbours.iter().enumerate() {
        let _ = write!(
            text,
            "protocol bgp n{number} {{\n  local {SPEAKER} port {port} as {SPEAKER_AS};\n  neighbor {address} as \
             {asn};\n  strict bind;\n  passive;\n  multihop;\n  hold time {HOLD_TIME};\n  error wait time 1, 1;\n  \
             ipv4 {{ import all; export all; }};\n}}\n"
        );
    }
    text
}

fn frr(neighbours: &[(Ipv4Addr, u16)]) -> String {
    let mut text = format!(
        "router bgp {SPEAKER_AS}\n bgp router-id {SPEAKER}\n no bgp ebgp-requires-policy\n timers bgp 80 {HOLD_TIME}\n"
    );
    for (address, asn) in neighbours {
        let _ = write!(
            text,
            " neighbor {address} remote-as {asn}\n neighbor {address} passive\n neighbor {address} ebgp-multihop 255\n"
        );
    }
    text
}

fn gobgp(port: u16, neighbours: &[(Ipv4Addr, u16)]) -> String {
    let mut text = format!(
        "[global.config]\n  as = {SPEAKER_AS}\n  router-id = \"{SPEAKER}\"\n  port = {port}\n  local-address-list = \
         [\"{SPEAKER}\"]\n"
    );
    for (address, asn) in neighbours {
        let _ = write!(
            text,
            "[[neighbors]]\n  [neighbors.config]\n    neighbor-address = \"{address}\"\n    peer-as = {asn}\n  \
             [neighbors.transport.config]\n    passive-mode = true\n  [neighbors.ebgp-multihop.config]\n    enabled \
             = true\n    multihop-ttl = 10\n  [neighbors.timers.config]\n    hold-time = {HOLD_TIME}\n    \
             idle-hold-time-after-reset = 1\n    connect-retry = 1\n"
        );
    }
    text
}
