//! Whose speaker it is.

use std::fmt;

use tokio::sync::watch;

use super::{Error, ErrorKind};
use crate::{net::SpeakerHandle, speaker::SpeakerConfig};

/// Who runs the speaker that clients talk to, and decides whether they may start and stop it.
#[tonic::async_trait]
pub trait Owner: fmt::Debug + Send + Sync + 'static {
    /// The speaker, while there is one; a change means that it is another one, or none.
    fn speaker(&self) -> watch::Receiver<Option<SpeakerHandle>>;

    /// What decides about the speaker itself, so that clients do not: its name, for messages. `None`: nothing does, and
    /// clients may start one.
    fn ruled_by(&self) -> Option<String>;

    /// Who owns a neighbour that clients did not add, for messages: its name in the owner's words.
    fn peer_owner(&self, peer: &str) -> String {
        format!("peer {peer} of this program")
    }

    /// Starts a speaker.
    ///
    /// # Errors
    /// If there is one already, or something else decides.
    async fn start(&self, config: SpeakerConfig) -> Result<(), Error>;

    /// Stops the speaker that clients started; its neighbours are told.
    ///
    /// # Errors
    /// If there is none, or something else decides.
    async fn stop(&self) -> Result<(), Error>;
}

/// A speaker that an embedding program runs: clients cannot start and stop it.
#[derive(Debug)]
pub struct Embedded {
    speaker: watch::Sender<Option<SpeakerHandle>>,
}

impl Embedded {
    /// This speaker.
    #[must_use]
    pub fn new(speaker: SpeakerHandle) -> Self {
        Self { speaker: watch::Sender::new(Some(speaker)) }
    }
}

const PROGRAM: &str = "the program that this speaker is part of";

#[tonic::async_trait]
impl Owner for Embedded {
    fn speaker(&self) -> watch::Receiver<Option<SpeakerHandle>> {
        self.speaker.subscribe()
    }

    fn ruled_by(&self) -> Option<String> {
        Some(PROGRAM.to_owned())
    }

    async fn start(&self, _config: SpeakerConfig) -> Result<(), Error> {
        Err(ruled(PROGRAM))
    }

    async fn stop(&self) -> Result<(), Error> {
        Err(ruled(PROGRAM))
    }
}

/// Something else decides about the speaker.
#[must_use]
pub fn ruled(by: &str) -> Error {
    Error::new(
        ErrorKind::FailedPrecondition,
        format!("{by} decides about the BGP speaker: change it there, clients cannot start or stop it"),
    )
}
