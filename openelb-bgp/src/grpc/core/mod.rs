//! Calls in the speaker's own values: what clients may do, what they have added, and to which speaker.

mod added;
mod error;
mod owner;
mod peers;
mod routes;
#[cfg(test)]
mod tests;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use added::Added;
pub use added::{RouteId, identifier, path_id};
pub use error::{Error, ErrorKind};
pub use owner::{Embedded, Owner, ruled};
pub use peers::{NewPeer, PeerView};
pub use routes::{Listing, Lookup, NewRoute, RouteName, Table, TableSize};

use crate::{
    net::SpeakerHandle,
    speaker::{GUESTS, PeerStatus, PeersSnapshot, Route, SpeakerConfig},
};

/// The source of the routes and neighbours that clients add: the embedder's routes are better.
pub const SOURCE: &str = GUESTS;
/// Whole tables that may be listed at the same time: each is held until its reader has it.
const LISTINGS: usize = 8;
/// Clients that may watch at the same time.
const WATCHERS: usize = 64;

/// What the clients of a listener may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Look only; why, and what to do about it.
    Read {
        /// Words for who tries to change something.
        remedy: String,
    },
    /// Everything.
    Write,
}

impl Access {
    /// Whether something may be changed.
    ///
    /// # Errors
    /// If not, with the remedy.
    pub fn write(&self) -> Result<(), Error> {
        match self {
            Self::Write => Ok(()),
            Self::Read { remedy } => {
                Err(Error::new(ErrorKind::PermissionDenied, format!("this listener is read-only: {remedy}")))
            }
        }
    }
}

/// What all listeners of one speaker share.
#[derive(Debug)]
pub struct Core {
    owner: Arc<dyn Owner>,
    speaker: watch::Receiver<Option<SpeakerHandle>>,
    /// Held while the speaker is told, so that it hears of changes in their order.
    added: Mutex<Added>,
    listings: Arc<Semaphore>,
    /// Whose table the speaker looks through: it does nothing else meanwhile, so its sessions come between two of them.
    turn: tokio::sync::Mutex<()>,
    watchers: Arc<Semaphore>,
    began: Instant,
}

impl Core {
    /// For the speaker of this owner. An owner whose speaker can be another one runs [`follow`](Self::follow).
    #[must_use]
    pub fn new(owner: Arc<dyn Owner>) -> Arc<Self> {
        let speaker = owner.speaker();
        Arc::new(Self {
            owner,
            speaker,
            added: Mutex::default(),
            listings: Arc::new(Semaphore::new(LISTINGS)),
            turn: tokio::sync::Mutex::default(),
            watchers: Arc::new(Semaphore::new(WATCHERS)),
            began: Instant::now(),
        })
    }

    /// Gives each new speaker what clients have added, until the owner is gone.
    pub async fn follow(&self) {
        let mut speaker = self.speaker.clone();
        speaker.mark_changed();
        while speaker.changed().await.is_ok() {
            let current = speaker.borrow_and_update().clone();
            if let Some(current) = current {
                self.give(&current, &self.added());
            }
        }
    }

    fn give(&self, speaker: &SpeakerHandle, added: &Added) {
        speaker.set_routes(SOURCE, added.routes().map(|known| known.route.clone()));
        let peers = added.peers.values().map(|known| known.config.clone()).collect();
        if let Err(error) = speaker.set_peers_of(SOURCE, peers) {
            // They were taken one by one.
            tracing::error!(%error, "neighbours that clients added are refused");
        }
    }

    /// The routes that clients have added. Who takes the speaker away first knows all that it has been told of them.
    #[must_use]
    pub fn added_routes(&self) -> Vec<Route> {
        self.added().routes().map(|known| known.route.clone()).collect()
    }

    fn added(&self) -> MutexGuard<'_, Added> {
        // A holder that panicked left whole values behind: each change is one call.
        self.added.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What clients have added, to be changed, and the speaker that is to be told. Whatever speaker comes after it is
    /// given what was added, once that is free again.
    ///
    /// # Errors
    /// If there is no speaker.
    fn changing(&self) -> Result<(MutexGuard<'_, Added>, SpeakerHandle), Error> {
        let added = self.added();
        // Not before: a speaker that takes its place meanwhile would never hear of the change.
        let speaker = self.speaker()?;
        Ok((added, speaker))
    }

    /// The speaker.
    ///
    /// # Errors
    /// If there is none.
    pub fn speaker(&self) -> Result<SpeakerHandle, Error> {
        self.speaker.borrow().clone().ok_or_else(Error::not_started)
    }

    /// The neighbours as they are now; none without a speaker.
    pub(crate) fn snapshot(&self) -> Arc<PeersSnapshot> {
        self.speaker
            .borrow()
            .as_ref()
            .map_or_else(Arc::default, |speaker| Arc::clone(&speaker.watch_peers().borrow()))
    }

    /// A place for listing a whole table.
    ///
    /// # Errors
    /// If all are taken.
    fn listing(&self) -> Result<OwnedSemaphorePermit, Error> {
        place(&self.listings, || {
            format!("{LISTINGS} tables are being listed already: try again when one is done")
        })
    }

    /// A place for watching.
    ///
    /// # Errors
    /// If all are taken.
    pub(crate) fn watcher(&self) -> Result<OwnedSemaphorePermit, Error> {
        place(&self.watchers, || {
            format!("{WATCHERS} clients are watching already: try again when one is done")
        })
    }

    /// The speaker's own configuration; `None`: there is no speaker.
    pub async fn global(&self) -> Option<SpeakerConfig> {
        let speaker = self.speaker().ok()?;
        speaker.query(|speaker| speaker.config().clone()).await
    }

    /// Starts a speaker.
    ///
    /// # Errors
    /// If there is one already, or something else decides about it.
    pub async fn start(&self, config: SpeakerConfig) -> Result<(), Error> {
        if let Some(by) = self.owner.ruled_by() {
            return Err(ruled(&by));
        }
        config.validate().map_err(|error| Error::invalid(error.to_string()))?;
        self.owner.start(config).await
    }

    /// Stops the speaker that clients have started, and forgets what they have added.
    ///
    /// # Errors
    /// If there is none, or something else decides about it.
    pub async fn stop(&self) -> Result<(), Error> {
        if let Some(by) = self.owner.ruled_by() {
            return Err(ruled(&by));
        }
        self.owner.stop().await?;
        *self.added() = Added::default();
        Ok(())
    }
}

fn place(places: &Arc<Semaphore>, taken: impl FnOnce() -> String) -> Result<OwnedSemaphorePermit, Error> {
    Arc::clone(places).try_acquire_owned().map_err(|_| Error::new(ErrorKind::ResourceExhausted, taken()))
}

/// The neighbour with this address.
fn by_address(snapshot: &PeersSnapshot, address: IpAddr) -> Option<&PeerStatus> {
    let address = address.to_canonical();
    snapshot.peers.values().find(|peer| peer.address.to_canonical() == address)
}
