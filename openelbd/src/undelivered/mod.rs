//! Packets to announced addresses that nobody takes.
//!
//! A router sends this node everything for an address that it announces. What no rule of kube-proxy sends on to an
//! endpoint (a port that no Service has, a ping, a packet of no connection) the node would route back to the router,
//! which sends it here again, until its TTL ends. The table `inet openelb` of nf_tables rejects it instead, where it is
//! forwarded and its destination was not translated. It is spoken to the kernel in netlink, without the program `nft`.

mod message;
mod ranges;

use std::{
    collections::BTreeSet,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
use openelb_k8s::announce::{AnnouncerProblem, AnnouncerStatus, Protocol};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with, sockopt,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use message::{Answer, Batch};
use ranges::Ranges;

/// The reason of the warning when the kernel does not take the table.
pub const NOT_REJECTED: &str = "UndeliveredNotRejected";
/// How often it is looked whether the table is still there: `nft flush ruleset` takes it, too.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// The kernel answers at once; this bounds what is not expected.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Keeps the table as the announcements want it.
#[derive(Debug)]
pub struct Undelivered {
    status: watch::Receiver<Arc<AnnouncerStatus>>,
    task: Mutex<Option<JoinHandle<()>>>,
    enabled: bool,
}

impl Undelivered {
    /// Starts the task on the current tokio runtime. `prefixes` are those that BGP announces (`None`: nothing is known
    /// yet, and a table that an earlier process left stays), `layer2` says which addresses this node answers for. Not
    /// `enabled`: an earlier process's table is removed.
    #[must_use]
    pub fn spawn(
        enabled: bool,
        prefixes: watch::Receiver<Option<Arc<BTreeSet<IpNet>>>>,
        layer2: watch::Receiver<Arc<AnnouncerStatus>>,
    ) -> Self {
        let (published, status) = watch::channel(Arc::default());
        let task = if enabled {
            let table = Table { installed: None, failure: None };
            tokio::spawn(run(table, prefixes, layer2, published))
        } else {
            tokio::spawn(async {
                // Without the right to it there is none of ours either.
                let _ = execute(vec![message::remove()]).await;
            })
        };
        Self { status, task: Mutex::new(Some(task)), enabled }
    }

    /// What is to be known.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Arc<AnnouncerStatus>> {
        self.status.clone()
    }

    /// Ends it. `keep` leaves the table to the process that follows.
    pub async fn stop(&self, keep: bool) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
        if self.enabled && !keep {
            let _ = execute(vec![message::remove()]).await;
        }
    }
}

async fn run(
    mut table: Table,
    mut prefixes: watch::Receiver<Option<Arc<BTreeSet<IpNet>>>>,
    mut layer2: watch::Receiver<Arc<AnnouncerStatus>>,
    published: watch::Sender<Arc<AnnouncerStatus>>,
) {
    let mut look = Instant::now() + LOOK_EVERY;
    loop {
        let due = tokio::select! {
            changed = prefixes.changed() => match changed {
                Ok(()) => false,
                Err(_) => return,
            },
            Ok(()) = layer2.changed() => false,
            () = sleep_until(look) => true,
        };
        let known = prefixes.borrow_and_update().clone();
        let answered = Arc::clone(&layer2.borrow_and_update());
        let Some(known) = known else { continue };
        let owned = answered
            .addresses
            .iter()
            .filter(|((_, protocol), status)| *protocol != Protocol::Bgp && status.announced);
        let owned: Vec<IpNet> = owned.map(|((address, _), _)| IpNet::from(*address)).collect();
        if due {
            look = Instant::now() + LOOK_EVERY;
            table.look().await;
        }
        table.set(ranges::ranges(known.iter().chain(&owned)), due).await;
        let warnings: Vec<AnnouncerProblem> = table.failure.iter().map(warning).collect();
        published.send_if_modified(|status| {
            let changed = status.warnings != warnings;
            if changed {
                *status = Arc::new(AnnouncerStatus { warnings, ..AnnouncerStatus::default() });
            }
            changed
        });
    }
}

/// What the kernel is believed to hold.
struct Table {
    installed: Option<[Ranges; 2]>,
    failure: Option<Failure>,
}

impl Table {
    /// Somebody else may have removed it.
    async fn look(&mut self) {
        if self.installed.is_some() && execute(vec![message::ask()]).await.is_err() {
            tracing::warn!(
                "somebody removed the table inet openelb, which rejects undelivered packets; it is made again"
            );
            self.installed = None;
        }
    }

    /// What failed is tried again with `again`, or when it is to be different.
    async fn set(&mut self, wanted: [Ranges; 2], again: bool) {
        let batches = match &self.installed {
            Some(installed) => message::change(installed, &wanted),
            None if self.failure.is_some() && !again => return,
            // Nothing to reject needs no table; what an earlier process left goes.
            None if wanted.iter().all(Ranges::is_empty) => vec![message::remove()],
            None => message::install(&wanted),
        };
        if batches.is_empty() {
            return;
        }
        let empty = wanted.iter().all(Ranges::is_empty);
        let outcome = match execute(batches).await {
            // The table is not what it is believed to be.
            Err(_) if self.installed.is_some() => execute(message::install(&wanted)).await,
            outcome => outcome,
        };
        let was_there = self.installed.is_some();
        match outcome {
            Ok(()) => {
                self.failure = None;
                self.installed = (was_there || !empty).then_some(wanted);
            }
            Err(failure) => {
                if self.failure.as_ref() != Some(&failure) {
                    tracing::warn!("{}", warning(&failure).message);
                }
                (self.failure, self.installed) = (Some(failure), None);
            }
        }
    }
}

/// Why the kernel did not take it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    errno: Option<i32>,
    cause: String,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { errno: error.raw_os_error(), cause: error.to_string() }
    }
}

fn warning(failure: &Failure) -> AnnouncerProblem {
    let is = |errno: rustix::io::Errno| failure.errno == Some(errno.raw_os_error());
    let remedy = if is(rustix::io::Errno::PERM) || is(rustix::io::Errno::ACCESS) {
        "give the process the capability NET_ADMIN"
    } else {
        "load the kernel's modules nf_tables, nft_reject_inet and nft_ct"
    };
    let message = format!(
        "packets to announced addresses that nobody takes are not rejected (nf_tables: {}): they go back and forth \
         between router and node until their TTL ends; {remedy}, or start with --reject-undelivered=false",
        failure.cause
    );
    AnnouncerProblem::new(NOT_REJECTED, message)
}

/// Sends batches one after the other, off the runtime's threads.
async fn execute(batches: Vec<Batch>) -> Result<(), Failure> {
    let outcome = tokio::task::spawn_blocking(move || {
        let socket = open()?;
        batches.iter().try_for_each(|batch| exchange(&socket, batch))
    });
    match outcome.await {
        Ok(outcome) => outcome.map_err(Failure::from),
        Err(error) => Err(Failure { errno: None, cause: error.to_string() }),
    }
}

fn open() -> io::Result<OwnedFd> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(ANSWER_WITHIN))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(ANSWER_WITHIN))?;
    Ok(socket)
}

fn exchange(socket: &OwnedFd, batch: &Batch) -> io::Result<()> {
    send(socket, &batch.bytes, SendFlags::empty())?;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let (len, _) = recv(socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        match message::answer(buffer.get(..len).unwrap_or_default(), batch.last) {
            Answer::More => {}
            Answer::Done => return Ok(()),
            Answer::Failed(errno) => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}
