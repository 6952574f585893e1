//! What a failure costs: speaker, node or router fail under traffic, with and without BFD, beside BIRD and FRR.
//!
//! The network is that of [`topology`]. The client downloads twelve files and sends a request every 50 ms meanwhile.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::{
    Lab, Process, binary,
    bird::kernel_next_hops,
    client::{Client, Figures, Plan},
    download::Downloads,
    eventually,
    routers::{Bfd, Make, Router, Session},
    topology::{self, CLIENT, NODES, ROUTER, Virtual, node_v4},
};

/// The hold time of the sessions, in seconds: that of `examples/demo`. The default is 30.
pub const HOLD: u16 = 9;
/// A speaker or router that was killed is started again after this.
const AWAY: Duration = Duration::from_secs(3);
/// What hangs or is cut off is so for longer than the hold time.
const LONG: Duration = Duration::from_secs(HOLD as u64 + 6);
/// Downloads at once.
pub const DOWNLOADS: usize = 12;
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two requests.
const PACE: Duration = Duration::from_millis(50);
/// The Service's address.
pub const ADDRESS: &str = "198.51.100.10";

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The speaker of a node is killed (SIGKILL) and is back 3 s later.
    Killed,
    /// The speaker of a node hangs (SIGSTOP) for longer than the hold time.
    Hangs,
    /// A node is cut off silently for longer than the hold time: its links stay up.
    CutOff,
    /// The router's BGP process is killed and is back 3 s later.
    RouterKilled,
    /// All speakers are restarted, one after the other, as a DaemonSet does it.
    RollingUpdate,
}

impl Failure {
    /// All of them, in the order of the page.
    pub const ALL: [Self; 5] =
        [Self::Killed, Self::Hangs, Self::CutOff, Self::RouterKilled, Self::RollingUpdate];

    /// What a reader calls it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Killed => "a node's speaker is killed (SIGKILL), back after 3 s",
            Self::Hangs => "a node's speaker hangs (SIGSTOP) for 15 s",
            Self::CutOff => "a node is cut off silently for 15 s",
            Self::RouterKilled => "the router's BGP process is killed, back after 3 s",
            Self::RollingUpdate => "rolling update of all speakers",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Hangs => "hangs",
            Self::CutOff => "cut",
            Self::RouterKilled => "router",
            Self::RollingUpdate => "rolling",
        }
    }
}

/// What the router runs beside BGP to find a dead node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Nothing: the hold time.
    HoldTime,
    /// BFD, plain: what is lost is down.
    Bfd,
    /// BFD, where what is lost may be restarting ([`Bfd::graceful`]).
    GracefulBfd,
}

impl Watch {
    const ALL: [Self; 3] = [Self::HoldTime, Self::Bfd, Self::GracefulBfd];

    const fn title(self) -> &'static str {
        match self {
            Self::HoldTime => "no",
            Self::Bfd => "yes",
            Self::GracefulBfd => "graceful",
        }
    }

    fn profile(self) -> Option<Bfd> {
        let graceful = self == Self::GracefulBfd;
        (self != Self::HoldTime).then_some(Bfd {
            interval: Duration::from_millis(300),
            multiplier: 3,
            graceful,
        })
    }
}

/// What came of a failure.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// From the failure until the router's kernel had a path less; `None`: it never had.
    pub gone: Option<Duration>,
    /// For so long it had a path less.
    pub without: Duration,
    /// What the client saw.
    pub figures: Figures,
    /// How many of the downloads broke.
    pub broken: usize,
}

/// A lab of three nodes and a router of any make.
pub struct Stage<'a> {
    lab: &'a Lab,
    openelbd: PathBuf,
    manifests: PathBuf,
    sessions: Vec<Session>,
    /// The router.
    pub router: Box<dyn Router + 'a>,
    nodes: Vec<Process>,
}

impl<'a> Stage<'a> {
    /// Starts everything, and waits until the Service is reached over all nodes.
    ///
    /// # Errors
    /// Something does not start or come up.
    pub fn start(lab: &'a Lab, make: Make, bfd: Option<Bfd>) -> anyhow::Result<Self> {
        let manifests = lab.path().join("manifests");
        std::fs::create_dir(&manifests)?;
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo");
        for file in std::fs::read_dir(&examples)? {
            let file = file?;
            std::fs::copy(file.path(), manifests.join(file.file_name()))?;
        }
        if let Some(bfd) = bfd {
            let file = manifests.join("20-bgp.yaml");
            let milliseconds = bfd.interval.as_millis();
            let mut text = std::fs::read_to_string(&file)?;
            let _ = writeln!(
                text,
                "  bfd: {{enabled: true, transmitInterval: {milliseconds}ms, receiveInterval: {milliseconds}ms, \
                 detectMultiplier: {}}}",
                bfd.multiplier
            );
            std::fs::write(&file, text)?;
        }
        let local = IpAddr::from([192, 168, 50, 1]);
        let sessions: Vec<Session> = NODES
            .into_iter()
            .map(|n| Session {
                graceful_restart: true,
                hold_time: HOLD,
                bfd,
                ..Session::new(&format!("node{n}"), local, 64512, node_v4(n), 64501)
            })
            .collect();
        let router = make.start(lab, ROUTER, &sessions)?;
        let mut stage =
            Self { lab, openelbd: binary("openelbd")?, manifests, sessions, router, nodes: Vec::new() };
        for n in NODES {
            let process = stage.speaker(n)?;
            stage.nodes.push(process);
        }
        stage.whole()?;
        let addresses = vec![ADDRESS.parse()?];
        topology::program_nodes(lab, &[Virtual { addresses, port: 80 }])?;
        Ok(stage)
    }

    fn speaker(&self, number: u8) -> anyhow::Result<Process> {
        let state = self.lab.path().join(format!("state-{number}"));
        let directories = (self.manifests.as_path(), state.as_path());
        topology::start_node_with(self.lab, &self.openelbd, number, directories, &["--on-stop", "Restart"])
    }

    /// The nodes over which the router's kernel sends.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn hops(&self) -> anyhow::Result<Vec<IpAddr>> {
        kernel_next_hops(self.lab, ROUTER, ADDRESS.parse()?)
    }

    /// The logs of the speakers.
    pub fn logs(&self) -> Vec<PathBuf> {
        self.nodes.iter().map(|process| process.log.clone()).collect()
    }

    fn up(&self, session: &Session) -> anyhow::Result<()> {
        ensure!(self.router.established(session)?, "{} is not Established", session.name);
        ensure!(session.bfd.is_none() || self.router.bfd_up(session)?, "BFD with {} is down", session.name);
        Ok(())
    }

    /// Waits until all sessions are up, and all nodes are next hops.
    fn whole(&self) -> anyhow::Result<()> {
        eventually("all sessions up, and all nodes next hops", DEADLINE, || {
            self.sessions.iter().try_for_each(|session| self.up(session))?;
            let hops = self.hops()?;
            ensure!(hops.len() == NODES.len(), "it goes over {hops:?}");
            Ok(Some(()))
        })
        .map(|_| ())
    }

    fn fail(&mut self, failure: Failure) -> anyhow::Result<()> {
        let first = self.nodes.first().cloned().context("no node")?;
        match failure {
            Failure::Killed => {
                self.lab.signal(&first, "KILL")?;
                std::thread::sleep(AWAY);
                self.speaker(1)?;
            }
            Failure::Hangs => {
                self.lab.signal(&first, "STOP")?;
                std::thread::sleep(LONG);
                self.lab.signal(&first, "CONT")?;
            }
            Failure::CutOff => {
                topology::cut_off(self.lab, 1)?;
                std::thread::sleep(LONG);
                topology::plug_in(self.lab, 1)?;
            }
            Failure::RouterKilled => {
                let process = self.router.processes().first().cloned().context("no process")?;
                self.lab.signal(&process, "KILL")?;
                std::thread::sleep(AWAY);
                self.router.restart()?;
            }
            Failure::RollingUpdate => {
                for (n, process) in NODES.into_iter().zip(self.nodes.clone()) {
                    self.lab.signal(&process, "TERM")?;
                    self.lab.wait_exit(&process, DEADLINE)?;
                    self.speaker(n)?;
                    let session = self.sessions.get(usize::from(n) - 1).context("no session")?;
                    eventually("the session is back", DEADLINE, || self.up(session).map(Some))?;
                }
            }
        }
        Ok(())
    }
}

/// Looks at the next hops until told to stop: when there was first one less, and for how long in all.
fn watch(lab: &Lab, began: Instant, end: &AtomicBool) -> anyhow::Result<(Option<Duration>, Duration)> {
    let (mut gone, mut without) = (None, Duration::ZERO);
    let mut last = began;
    while !end.load(Ordering::Relaxed) {
        let hops = kernel_next_hops(lab, ROUTER, ADDRESS.parse()?)?;
        let now = Instant::now();
        if hops.len() < NODES.len() {
            gone.get_or_insert(now - began);
            without += now - last;
        }
        last = now;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok((gone, without))
}

/// Runs one failure.
///
/// # Errors
/// The lab cannot be made, or does not become whole again.
pub fn run(make: Make, watch_by: Watch, failure: Failure) -> anyhow::Result<Outcome> {
    let name = format!("fail-{}-{}-{}", failure.name(), make.name().to_lowercase(), watch_by.title());
    let lab = topology::start(&name)?;
    let mut stage = Stage::start(&lab, make, watch_by.profile())?;
    let target = SocketAddr::new(ADDRESS.parse()?, 80);
    let plan = Plan { count: usize::MAX, interval: PACE, timeout: Duration::from_secs(1) };
    let client = Client::start(&lab, "requests", CLIENT, target, plan)?;
    let downloads = Downloads::start(&lab, CLIENT, target, DOWNLOADS, LONG + Duration::from_secs(10))?;
    let end = AtomicBool::new(false);
    let began = Instant::now();
    let (result, watched) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&lab, began, &end));
        let result = stage.fail(failure).and_then(|()| stage.whole());
        end.store(true, Ordering::Relaxed);
        (result, watching.join())
    });
    result.with_context(|| format!("{name}: it does not become whole again"))?;
    let (gone, without) = watched.map_err(|_| anyhow::anyhow!("the watcher panicked"))??;
    let broken = downloads.finish().len();
    let figures = client.stop(DEADLINE)?;
    Ok(Outcome { gone, without, figures, broken })
}

/// The makes of routers of the table.
pub const MAKES: [Make; 2] = [Make::Bird, Make::Frr];

/// Runs everything, or only failures and makes of these names, and says each outcome as it comes; returns the page `docs/src/failures.md`.
///
/// # Errors
/// One failure could not be run, or nothing became whole again.
pub fn table(only: &[String]) -> anyhow::Result<String> {
    let mut text = format!(
        "# Failures\n\nWhat a failure costs, measured by `cargo xtask soak failures`: a client downloads {DOWNLOADS} files \
         through a router and three nodes, and sends a request every {} ms; then something fails. The hold time is {HOLD} s \
         here (the default is 30 s), BFD 300 ms × 3 (the default), graceful restart as it is by default: on, the N bit only \
         with BFD. BFD \"graceful\" is `bfd graceful` at BIRD, and `bfd check-control-plane-failure` at FRR. \"Route\" is the \
         path over the node at the router.\n\n| failure | router | BFD | route | requests lost | \
         downloads broken |\n|---|---|---|---|---|---|\n",
        PACE.as_millis()
    );
    for failure in Failure::ALL {
        for make in MAKES {
            let named = |name: &String| name == failure.name() || name.eq_ignore_ascii_case(make.name());
            if !only.iter().all(named) {
                continue;
            }
            for watch_by in Watch::ALL {
                let outcome = run(make, watch_by, failure)?;
                let line = row(make, watch_by, failure, &outcome);
                eprint!("{line}");
                text.push_str(&line);
            }
        }
    }
    text.push_str(CONCLUSIONS);
    Ok(text)
}

/// What the defaults owe to the table.
const CONCLUSIONS: &str = "
So the defaults are:

- **Graceful restart is on**: a speaker that is killed, and the update of all of them, cost nothing without BFD.
- **BFD is off**: it takes a silent node away within a second, where without it a third of the connections fail until the
  hold time ends. But a speaker that is away looks like that, too. FRR keeps the routes through any restart,
  BIRD 2.0.12 through a planned one: it holds BFD as the speaker asks it to. When a speaker crashes it drops them with
  `bfd on`, and the connections that are spread anew break. With `bfd graceful` it keeps them then, too, and those of a dead
  node, until the node's restart time is over.
- **The N bit goes with BFD only**: without BFD the end of the hold time is all that finds a dead node, and takes it away.
- **The hold time is 30 s**: it is how long a dead node may cost traffic without BFD. Choose 9 s, as here, or BFD where
  that is too long.

BIRD keeps the kernel's routes through its own restart only with `graceful restart on` in its kernel protocols, as here.
";

fn row(make: Make, watch_by: Watch, failure: Failure, outcome: &Outcome) -> String {
    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    let route = outcome.gone.map_or_else(
        || "stays".to_owned(),
        |gone| format!("gone after {}, for {}", seconds(gone), seconds(outcome.without)),
    );
    let Figures { requests, failed, outage_ms, .. } = &outcome.figures;
    let lost = if *failed == 0 {
        format!("0 of {requests}")
    } else {
        format!("{failed} of {requests}, within {:.1} s", outage_ms / 1000.0)
    };
    format!(
        "| {} | {} | {} | {route} | {lost} | {} of {DOWNLOADS} |\n",
        failure.title(),
        make.name(),
        watch_by.title(),
        outcome.broken
    )
}
