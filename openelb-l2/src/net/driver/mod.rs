//! The loop that drives one [`Speaker`] on a thread of its own.

#[cfg(test)]
mod cabled;
mod gossip;
mod ports;
mod publish;
#[cfg(test)]
mod quiet;

use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::sync::{broadcast, mpsc, watch};

use self::{
    gossip::Gossip,
    ports::{Ports, Sending},
    publish::Publisher,
};
use super::{
    clock::Clock,
    handle::{DriverConfig, DriverHandle, DriverStats, Shared, Snapshot, SpawnError},
    links::{LinkInfo, LinkSource},
    multicast::{Memberships, Sockets},
    netlink::Kernel,
};
use crate::speaker::{Output, Speaker};

/// Events that a slow reader may be behind.
const EVENTS: usize = 1024;
/// After an error of the table of links.
const PAUSE: Duration = Duration::from_secs(1);
/// An embedder that dropped its handle is not kept waiting longer.
const ABANDONED: Duration = Duration::from_secs(5);
/// Longer than any of the machine's own deadlines.
const IDLE: Duration = Duration::from_secs(3600);

/// Starts a speaker on a thread of its own.
///
/// It needs the capability `CAP_NET_RAW`; without it, and on every other trouble with an interface or a port, the speaker
/// runs and its [`Snapshot`] names the [`Problem`](super::Problem), and it tries again.
///
/// # Errors
///
/// The configuration is refused, or there is no thread to be had.
pub fn spawn(config: DriverConfig) -> Result<DriverHandle, SpawnError> {
    let clock = Clock::new();
    let speaker = Speaker::new(config.speaker, config.settings, clock.now())?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SpawnError::Thread)?;
    let shared = Arc::new(Shared::default());
    let (snapshots, snapshot) = watch::channel(Arc::new(Snapshot::default()));
    let (events, _) = broadcast::channel(EVENTS);
    let handle = DriverHandle::new(Arc::clone(&shared), snapshot, events.clone());
    let (links, bind, skipped) = (config.links, config.bind, config.skipped_links);
    let run = move || {
        runtime.block_on(async move {
            let (sender, tables) = mpsc::channel(1);
            let source = links.unwrap_or_else(|| Box::new(Kernel::new()));
            let watcher = tokio::spawn(watch_links(source, sender));
            let driver = Driver {
                ports: Ports::new(skipped),
                gossip: Gossip::new(bind, clock.now()),
                publisher: Publisher::new(snapshots, events, clock.now()),
                memberships: Memberships::default(),
                stats: DriverStats::default(),
                stopping: None,
                speaker,
                clock,
                shared,
                tables,
            };
            driver.run().await;
            watcher.abort();
        });
    };
    std::thread::Builder::new().name("layer2".to_owned()).spawn(run).map_err(SpawnError::Thread)?;
    Ok(handle)
}

async fn watch_links(mut source: Box<dyn LinkSource>, tables: mpsc::Sender<Vec<LinkInfo>>) {
    loop {
        match source.next().await {
            Ok(table) => {
                if tables.send(table).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the table of interfaces cannot be read; it is tried again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

struct Driver {
    speaker: Speaker,
    clock: Clock,
    shared: Arc<Shared>,
    tables: mpsc::Receiver<Vec<LinkInfo>>,
    ports: Ports,
    gossip: Gossip,
    memberships: Memberships<Sockets>,
    publisher: Publisher,
    stats: DriverStats,
    /// When it has to be over.
    stopping: Option<Option<Instant>>,
}

/// Why the loop goes round.
#[derive(Default)]
struct Wake {
    table: Option<Vec<LinkInfo>>,
    /// Nobody reads the table of links any more.
    blind: bool,
    mailbox: bool,
    frames: bool,
    datagrams: bool,
}

impl Driver {
    async fn run(mut self) {
        loop {
            let wake = self.wait().await;
            if wake.blind {
                // What changes from here on is not told: whoever started the speaker starts it anew.
                tracing::error!("a bug has ended the watch of the interfaces; the speaker ends with it");
                break;
            }
            let now = self.clock.now();
            self.discard_stale(now);
            let mut resolve = false;
            if let Some(table) = wake.table {
                resolve |= self.ports.set_table(table);
                self.memberships.suspect(now);
            }
            if wake.mailbox {
                resolve |= self.read_mailbox(now);
            }
            if resolve || self.ports.is_due(now) {
                self.ports.apply(&mut self.speaker, now);
                self.publisher.touch();
            }
            if wake.frames {
                self.ports.receive(&mut self.speaker, &self.clock, &mut self.stats);
            }
            if wake.datagrams {
                self.gossip.receive(&mut self.speaker, now);
            }
            if self.gossip.retry(now) {
                self.publisher.touch();
            }
            if self.speaker.poll_timeout().is_some_and(|at| at <= now) {
                self.speaker.handle_timeout(now);
            }
            self.flush(now);
            if self.is_over(now) {
                break;
            }
            self.publisher.run(&self.speaker, &self.ports, &self.gossip, self.stats, now);
        }
        let last = publish::snapshot(&self.speaker, &self.ports, &self.gossip, self.stats);
        let Self { publisher, gossip, ports, memberships, .. } = self;
        // Whoever waits for the end may want to use the port.
        drop((gossip, ports, memberships));
        publisher.end(last);
    }

    /// Waits for something to do.
    async fn wait(&mut self) -> Wake {
        let now = self.clock.now();
        let deadlines = [
            self.speaker.poll_timeout(),
            self.ports.poll_timeout(),
            self.gossip.poll_timeout(),
            self.memberships.poll_timeout(),
            self.publisher.poll_timeout(),
            self.stopping.flatten(),
        ];
        let deadline = deadlines.into_iter().flatten().min();
        let pause = deadline.map_or(IDLE, |at| at.saturating_duration_since(now));
        let mut sleep = pin!(tokio::time::sleep(pause));
        let mut mailbox = pin!(self.shared.wake.notified());
        poll_fn(|context| {
            let mut wake = Wake::default();
            let mut ready = false;
            if let Poll::Ready(table) = self.tables.poll_recv(context) {
                (wake.blind, wake.table) = (table.is_none(), table);
                ready = true;
            }
            wake.mailbox = mailbox.as_mut().poll(context).is_ready();
            wake.frames = self.ports.poll_ready(context).is_ready();
            wake.datagrams = self.gossip.poll_ready(context).is_ready();
            ready |= wake.mailbox || wake.frames || wake.datagrams;
            ready |= sleep.as_mut().poll(context).is_ready();
            if ready { Poll::Ready(wake) } else { Poll::Pending }
        })
        .await
    }

    /// What waited while this process did not run may have been answered by another node since.
    fn discard_stale(&mut self, now: Instant) {
        let late = self.speaker.config().suspicion / 2;
        if self.speaker.lateness(now) >= late {
            self.stats.discarded += self.ports.discard();
        }
    }

    /// Takes over what the handles want. Says whether addresses are to be resolved anew.
    fn read_mailbox(&mut self, now: Instant) -> bool {
        let mail = self.shared.take();
        if let Some(settings) = mail.settings {
            self.speaker.set_settings(settings, now);
        }
        if let Some(peers) = mail.peers {
            self.speaker.set_peers(peers, now);
        }
        let resolve = mail.addresses.is_some();
        if let Some(addresses) = mail.addresses {
            self.ports.set_wanted(addresses);
        }
        if let Some(mode) = mail.stop {
            self.speaker.stop(mode, now);
            let bound = mail.abandoned.then(|| now + ABANDONED);
            self.stopping = Some(self.stopping.flatten().or(bound));
        }
        self.publisher.touch();
        resolve
    }

    fn is_over(&self, now: Instant) -> bool {
        self.stopping.is_some_and(|bound| self.speaker.is_stopped() || bound.is_some_and(|at| at <= now))
    }

    /// Does what the machine wants done.
    fn flush(&mut self, now: Instant) {
        while let Some(output) = self.speaker.poll_output() {
            match output {
                Output::Frame { link, frame } => {
                    let again = match self.ports.send(link, &frame, now) {
                        Sending::Done => continue,
                        Sending::Full => self.speaker.handle_unsent(link, &frame, self.clock.now()),
                        Sending::Failed => false,
                    };
                    self.stats.unsent += u64::from(!again);
                }
                Output::Datagram { to, payload } => {
                    self.stats.unsent += u64::from(!self.gossip.send(to, &payload));
                }
                Output::JoinGroup { link, group } => self.memberships.join(link, group, now),
                Output::LeaveGroup { link, group } => self.memberships.leave(link, group, now),
            }
        }
        self.memberships.retry(now);
        if let Some(refused) = self.memberships.take_refused() {
            self.ports.set_refused(refused);
            self.publisher.touch();
        }
        while let Some(event) = self.speaker.poll_event() {
            self.publisher.tell(event);
        }
    }
}

/// What the kernel said, for people.
fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "a packet socket needs the capability CAP_NET_RAW, which this process does not have".to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use futures::future::BoxFuture;

    use super::{super::packet_socket::tests::CHILDREN, *};
    use crate::speaker::{NodeName, SpeakerConfig};

    /// Reads the table once.
    struct Broken(bool);

    impl LinkSource for Broken {
        fn next(&mut self) -> BoxFuture<'_, io::Result<Vec<LinkInfo>>> {
            assert!(!std::mem::replace(&mut self.0, true), "a bug of a test, and meant");
            Box::pin(async { Ok(Vec::new()) })
        }
    }

    #[expect(clippy::await_holding_lock, reason = "no other task waits for it on this thread")]
    #[tokio::test]
    async fn a_speaker_that_has_stopped_has_closed_its_sockets() {
        // Of this host, and of no other test.
        let bind = "127.53.0.1:7946".parse().expect("an address");
        for _ in 0..20 {
            let node = NodeName::new("node-1").expect("a name");
            let handle = spawn(DriverConfig::new(SpeakerConfig::new(node, bind))).expect("a thread");
            let mut snapshots = handle.watch();
            let listens =
                snapshots.wait_for(|snapshot| snapshot.settled && snapshot.gossip_problem.is_none());
            handle.set_peers(Vec::new());
            handle.set_addresses(Vec::new());
            tokio::time::timeout(Duration::from_secs(10), listens).await.expect("in time").expect("it runs");
            // A child of another test would have the socket, too.
            let _alone = CHILDREN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            assert!(handle.stop(crate::speaker::StopMode::Restart, Duration::from_secs(10)).await);
            std::net::UdpSocket::bind(bind).expect("the port is free again");
        }
    }

    #[tokio::test]
    async fn a_speaker_whose_watch_of_the_links_has_ended_ends() {
        let node = NodeName::new("node-1").expect("a name");
        let speaker = SpeakerConfig::new(node, "127.0.0.1:7947".parse().expect("an address"));
        let config = DriverConfig {
            bind: "127.0.0.1:0".parse().expect("an address"),
            links: Some(Box::new(Broken(false))),
            ..DriverConfig::new(speaker)
        };
        let handle = spawn(config).expect("a thread");
        let mut snapshots = handle.watch();
        let ended = async {
            // Until nobody is left who publishes any.
            while snapshots.changed().await.is_ok() {}
        };
        tokio::time::timeout(Duration::from_secs(10), ended).await.expect("it ends");
        assert!(snapshots.borrow().stopped);
    }
}
