//! Runs BFD sessions (RFC 5880, RFC 5881, RFC 5883) in a thread of their own, so that a speaker that is busy with a
//! million routes is not taken for a dead path.
//!
//! The thread shares nothing with the speaker's task but three small things: the sessions that are wanted, the changes
//! that were seen, and a status; each is locked only while it is moved in or out.

mod sockets;
mod thread;

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot, watch},
    time::timeout,
};

use crate::{
    bfd::{SessionConfig, State, StateChange},
    speaker::{BfdStatus, PathState},
};

/// How long a stopping speaker waits until all neighbours were told that BFD ends.
const FAREWELL_WITHIN: Duration = Duration::from_millis(500);
/// Changes of one session that are kept for the speaker; of more, the first ones are forgotten in pairs.
const CHANGES: usize = 4;

/// A session that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// As the machine knows it. Its interface is that of a link-local neighbour.
    pub(super) session: SessionConfig,
    /// The interface (`SO_BINDTODEVICE`) that its packets leave through, and come through.
    pub(super) bind_interface: Option<String>,
}

/// All sessions at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// By name.
    pub(super) sessions: BTreeMap<Arc<str>, BfdStatus>,
    /// Packets that were discarded.
    pub(super) discarded: u64,
}

/// What the thread hands over.
#[derive(Debug, Default)]
struct Shared {
    changes: Mutex<BTreeMap<Arc<str>, VecDeque<PathState>>>,
    wake: Notify,
}

impl Shared {
    fn tell(&self, name: Arc<str>, change: &StateChange) {
        let state = match (change.from, change.to) {
            (_, State::Up) => PathState::Up,
            (State::Up | State::Init, _) => PathState::Down(change.cause),
            _ => return, // down before, and not up now
        };
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let of_session = changes.entry(name).or_default();
        if of_session.len() == CHANGES {
            of_session.drain(..2);
        }
        of_session.push_back(state);
        drop(changes);
        self.wake.notify_one();
    }
}

struct Running {
    wanted: watch::Sender<Arc<[Wanted]>>,
    status: watch::Receiver<Arc<Snapshot>>,
    /// Told when the last session has said that it ends.
    done: oneshot::Receiver<()>,
}

/// The speaker's side of the thread, which starts with the first session that is wanted.
#[derive(Default)]
pub(super) struct Bfd {
    shared: Arc<Shared>,
    running: Option<Running>,
}

impl Bfd {
    /// Makes this the whole set of sessions.
    pub(super) fn set(&mut self, wanted: Vec<Wanted>) {
        if self.running.is_none() {
            if wanted.is_empty() {
                return;
            }
            match self.start() {
                Ok(running) => self.running = Some(running),
                Err(error) => return tracing::error!(%error, "BFD cannot start"),
            }
        }
        if let Some(running) = &self.running {
            running.wanted.send_if_modified(|current| {
                let changed = **current != *wanted;
                if changed {
                    *current = wanted.into();
                }
                changed
            });
        }
    }

    fn start(&self) -> std::io::Result<Running> {
        let (wanted, wanted_receiver) = watch::channel(Arc::from([]));
        let (status_sender, status) = watch::channel(Arc::default());
        let (done_sender, done) = oneshot::channel();
        // Randomly keyed: discriminators must not be guessable.
        let seed = RandomState::new().build_hasher().finish();
        let shared = Arc::clone(&self.shared);
        std::thread::Builder::new()
            .name("bfd".to_owned())
            .spawn(move || thread::run(seed, wanted_receiver, &shared, &status_sender, done_sender))?;
        Ok(Running { wanted, status, done })
    }

    /// Until there is something to [`take`](Self::take) or the status is another one. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let ended = tokio::select! {
            () = self.shared.wake.notified() => false,
            changed = running.status.changed() => changed.is_err(),
        };
        if ended {
            tracing::error!("the BFD thread has ended; it starts again with the next change");
            self.running = None;
        }
    }

    /// What was seen of which session, in order.
    pub(super) fn take(&self) -> impl Iterator<Item = (Arc<str>, PathState)> + use<> {
        let changes =
            std::mem::take(&mut *self.shared.changes.lock().unwrap_or_else(PoisonError::into_inner));
        changes
            .into_iter()
            .flat_map(|(name, states)| states.into_iter().map(move |state| (name.clone(), state)))
    }

    /// The sessions as they stand, at most a second old; a change of a state is there at once.
    pub(super) fn status(&self) -> Option<Arc<Snapshot>> {
        self.running.as_ref().map(|running| Arc::clone(&running.status.borrow()))
    }

    /// Ends all sessions; the neighbours are told AdminDown, which is no failure (RFC 5882 §4.2).
    pub(super) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            drop(running.wanted);
            let _ = timeout(FAREWELL_WITHIN, running.done).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::bfd::Cause;

    #[test]
    fn changes_wait_in_order_and_are_bounded() {
        let bfd = Bfd::default();
        let name: Arc<str> = "router".into();
        let tell = |from, to, cause| {
            bfd.shared.tell(name.clone(), &StateChange { from, to, cause, at: Instant::now() });
        };
        let taken = || bfd.take().map(|(_, state)| state).collect::<Vec<_>>();
        tell(State::Down, State::Init, Cause::Heard);
        assert_eq!(taken(), [], "not a path yet");
        tell(State::Init, State::Up, Cause::Heard);
        tell(State::Up, State::Down, Cause::TimeExpired);
        assert_eq!(taken(), [PathState::Up, PathState::Down(Cause::TimeExpired)]);
        for _ in 0..100 {
            tell(State::Init, State::Up, Cause::Heard);
            tell(State::Up, State::Down, Cause::NeighborDown);
        }
        let taken = taken();
        assert_eq!(taken.len(), CHANGES);
        assert_eq!(taken.last(), Some(&PathState::Down(Cause::NeighborDown)));
    }
}
