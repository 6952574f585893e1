//! The thread: sockets and the clock around an [`Endpoint`].

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::{
    sync::{oneshot, watch},
    time::sleep_until,
};

use super::{
    Shared, Snapshot, Wanted,
    sockets::{Buffer, Kind, Path, Receiver, Sender},
};
use crate::{
    bfd::{Endpoint, EndpointOutput, PACKET_LEN, SessionConfig, SessionId},
    net::sys,
    speaker::BfdStatus,
};

/// Packets that are read in a row; then timers are looked at, and the rest waits for [`PAUSE`].
const BURST: usize = 64;
/// So a flood costs at most [`BURST`] packets a millisecond, whatever its rate: the kernel drops the rest.
const PAUSE: Duration = Duration::from_millis(1);
/// Pause before a port that was taken is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Counters are published this often; changes of state at once.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// A thread that is to end says AdminDown for so long at most.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// What a neighbour is told when the program stops is sent again this often: one lost packet would be a lost path.
const FAREWELLS: u8 = 2;
/// The pause between them.
const FAREWELL_EVERY: Duration = Duration::from_millis(50);

/// Runs until the sender of `wanted` is gone and the neighbours were told.
pub(super) fn run(
    seed: u64,
    wanted: watch::Receiver<Arc<[Wanted]>>,
    shared: &Shared,
    status: &watch::Sender<Arc<Snapshot>>,
    done: oneshot::Sender<()>,
) {
    raise_priority();
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let thread = Thread {
                endpoint: Endpoint::new(seed),
                wanted,
                extras: BTreeMap::new(),
                shared,
                status,
                receivers: BTreeMap::new(),
                senders: HashMap::new(),
                paused_until: None,
                publish_due: Instant::now(),
                discarded: 0,
                changed: false,
                leaving: None,
                farewell: Farewell::default(),
                done: Some(done),
            };
            runtime.block_on(thread.run());
        }
        Err(error) => tracing::error!(%error, "BFD cannot run"),
    }
}

/// Before what else runs here, if we may: a late packet is a lost path at the neighbour.
fn raise_priority() {
    let Err(error) = sys::become_realtime() else { return };
    tracing::debug!(%error, "BFD does not run with realtime priority");
    // 0 is the calling thread, not the whole process, on Linux.
    if let Err(error) = rustix::process::setpriority_process(None, -20) {
        tracing::debug!(%error, "BFD runs with ordinary priority");
    }
}

enum Port {
    Open(Receiver),
    Failed { error: String, retry_at: Instant },
}

/// The last words, and when they are said again.
#[derive(Default)]
struct Farewell {
    packets: Vec<(SessionId, [u8; PACKET_LEN])>,
    repeats: u8,
    due: Option<Instant>,
}

struct Thread<'a> {
    endpoint: Endpoint,
    wanted: watch::Receiver<Arc<[Wanted]>>,
    /// The interface that a session is bound to, by the session's name.
    extras: BTreeMap<Arc<str>, Option<String>>,
    shared: &'a Shared,
    status: &'a watch::Sender<Arc<Snapshot>>,
    receivers: BTreeMap<Kind, Port>,
    senders: HashMap<SessionId, Sender>,
    /// Too much came at once.
    paused_until: Option<Instant>,
    publish_due: Instant,
    discarded: u64,
    /// A state changed since the status was published.
    changed: bool,
    /// Nobody wants sessions any more; until then at the latest.
    leaving: Option<Instant>,
    farewell: Farewell,
    done: Option<oneshot::Sender<()>>,
}

impl Thread<'_> {
    async fn run(mut self) {
        self.set_sessions(Instant::now());
        loop {
            let now = Instant::now();
            self.endpoint.handle_timeout(now);
            self.pump(now);
            self.open_ports(now);
            self.publish(now);
            if let Some(until) = self.leaving {
                self.repeat_farewell(now);
                // AdminDown is out, and again.
                if self.farewell.due.is_none() {
                    if let Some(done) = self.done.take() {
                        let _ = done.send(());
                    }
                    if now >= until || self.endpoint.poll_timeout().is_none() {
                        return;
                    }
                }
            }
            let timer = async {
                match self.wake_at() {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let (receivers, paused) = (&self.receivers, self.paused_until.is_some());
            let readable = std::future::poll_fn(|context| {
                let mut any = false;
                for port in receivers.values() {
                    // Each of them has to know whom to wake.
                    any |= matches!(port, Port::Open(receiver) if receiver.poll_readable(context));
                }
                if any { Poll::Ready(()) } else { Poll::Pending }
            });
            let leaving = self.leaving.is_some();
            let mut wanted = self.wanted.clone();
            tokio::select! {
                biased;
                changed = wanted.changed(), if !leaving => {
                    self.wanted = wanted;
                    if changed.is_err() {
                        self.leave(Instant::now());
                    } else {
                        self.set_sessions(Instant::now());
                    }
                }
                () = readable, if !paused => self.receive(),
                () = timer => {}
            }
            if self.paused_until.is_some_and(|until| until <= Instant::now()) {
                self.paused_until = None;
            }
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let retries = self.receivers.values().filter_map(|port| match port {
            Port::Open(_) => None,
            Port::Failed { retry_at, .. } => Some(*retry_at),
        });
        let publish = (!self.extras.is_empty()).then_some(self.publish_due);
        let others =
            [self.endpoint.poll_timeout(), publish, self.paused_until, self.leaving, self.farewell.due];
        retries.chain(others.into_iter().flatten()).min()
    }

    fn leave(&mut self, now: Instant) {
        self.extras.clear();
        self.endpoint.set_sessions([], now);
        self.leaving = Some(now + LEAVE_WITHIN);
        self.farewell = Farewell { packets: Vec::new(), repeats: FAREWELLS, due: Some(now + FAREWELL_EVERY) };
    }

    fn repeat_farewell(&mut self, now: Instant) {
        let Farewell { packets, repeats, due } = &mut self.farewell;
        if due.is_none_or(|at| at > now) {
            return;
        }
        for (session, bytes) in packets.iter() {
            if let Some(sender) = self.senders.get_mut(session) {
                sender.send(bytes);
            }
        }
        *repeats = repeats.saturating_sub(1);
        *due = (*repeats > 0 && !packets.is_empty()).then(|| now + FAREWELL_EVERY);
    }

    fn set_sessions(&mut self, now: Instant) {
        let wanted = Arc::clone(&self.wanted.borrow_and_update());
        self.extras = wanted
            .iter()
            .map(|Wanted { session, bind_interface }| (Arc::clone(&session.name), bind_interface.clone()))
            .collect();
        self.endpoint.set_sessions(wanted.iter().map(|wanted| wanted.session.clone()), now);
        let kinds: std::collections::BTreeSet<Kind> =
            wanted.iter().map(|wanted| kind(&wanted.session)).collect();
        self.receivers.retain(|kind, _| kinds.contains(kind));
        for kind in kinds {
            self.receivers.entry(kind).or_insert(Port::Failed { error: String::new(), retry_at: now });
        }
        self.open_ports(now);
        for (of, port) in &mut self.receivers {
            if let Port::Open(receiver) = port {
                let near = |wanted: &Wanted| wanted.session.minimum_ttl == 255;
                receiver.filter(wanted.iter().filter(|wanted| kind(&wanted.session) == *of).all(near));
            }
        }
        self.changed = true;
    }

    /// Opens the ports that are needed and closed.
    fn open_ports(&mut self, now: Instant) {
        for (kind, port) in &mut self.receivers {
            let Port::Failed { error, retry_at } = port else { continue };
            if *retry_at > now {
                continue;
            }
            match Receiver::open(*kind) {
                Ok(receiver) => *port = Port::Open(receiver),
                Err(failure) => {
                    let text = failure.to_string();
                    if *error != text {
                        tracing::warn!(error = text, "BFD does not work; trying again");
                    }
                    *port = Port::Failed { error: text, retry_at: now + RETRY };
                }
            }
            self.changed = true;
        }
    }

    fn receive(&mut self) {
        let mut buffer = Buffer::new();
        let mut left = BURST;
        for port in self.receivers.values_mut() {
            let Port::Open(receiver) = port else { continue };
            while left > 0
                && let Some((bytes, arrival)) = receiver.receive(&mut buffer)
            {
                left -= 1;
                if let Err(discard) = self.endpoint.handle_packet(&arrival, bytes, Instant::now()) {
                    self.discarded += 1;
                    tracing::trace!(remote = %arrival.remote, %discard, "BFD packet discarded");
                }
            }
        }
        if left == 0 {
            self.paused_until = Some(Instant::now() + PAUSE);
        }
    }

    /// Does what the sessions want.
    fn pump(&mut self, now: Instant) {
        while let Some(output) = self.endpoint.poll_output(now) {
            match output {
                EndpointOutput::Send { session, bytes } => {
                    let Some(config) = self.endpoint.config(session) else { continue };
                    let extra = self.extras.get(&config.name);
                    let path = |bind_interface: Option<String>| Path {
                        remote: config.remote,
                        local: config.local,
                        scope_id: if is_link_local(config.remote) { config.interface } else { 0 },
                        bind_interface,
                        multihop: config.multihop,
                    };
                    let sender = self.senders.entry(session).or_insert_with(|| {
                        let random = RandomState::new().hash_one(&config.name);
                        Sender::new(path(extra.cloned().flatten()), random)
                    });
                    // One that says farewell goes on as it was.
                    if let Some(bind_interface) = extra {
                        sender.set_path(path(bind_interface.clone()));
                    }
                    sender.send(&bytes);
                    if self.leaving.is_some() {
                        self.farewell.packets.push((session, bytes));
                    }
                }
                EndpointOutput::Changed { name, change } => {
                    tracing::info!(peer = %name, from = %change.from, to = %change.to, cause = %change.cause, "BFD");
                    self.shared.tell(name, &change);
                    self.changed = true;
                }
                EndpointOutput::Closed { session } => {
                    self.senders.remove(&session);
                }
            }
        }
    }

    fn publish(&mut self, now: Instant) {
        if !self.changed && now < self.publish_due {
            return;
        }
        self.changed = false;
        self.publish_due = now + PUBLISH_EVERY;
        let sessions = self.endpoint.sessions().map(|(id, config, session)| {
            let port = match self.receivers.get(&kind(config)) {
                Some(Port::Failed { error, .. }) => Some(error.clone()),
                _ => None,
            };
            let sending = || self.senders.get(&id).and_then(|sender| sender.error.clone());
            let status =
                BfdStatus { session: Some(session), multihop: config.multihop, error: port.or_else(sending) };
            (Arc::clone(&config.name), status)
        });
        let snapshot = Snapshot { sessions: sessions.collect(), discarded: self.discarded };
        self.status.send_if_modified(|current| {
            let changed = **current != snapshot;
            if changed {
                *current = Arc::new(snapshot);
            }
            changed
        });
    }
}

fn kind(config: &SessionConfig) -> Kind {
    Kind { multihop: config.multihop, ipv4: config.remote.to_canonical().is_ipv4() }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
