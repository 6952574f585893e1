//! What the speaker announces, as a neighbour hears it.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use openelb_bgp::{
    net::{self, SpeakerHandle},
    speaker::{Event, PeerConfig, ReceivedRoutes, SpeakerConfig},
};
use tokio::sync::broadcast::error::RecvError;

use crate::checker::Checker;

/// Where it listens, and its AS number.
pub(crate) const ADDRESS: &str = "127.0.0.31";
pub(crate) const PORT: u16 = 1790;
pub(crate) const AS: u32 = 64512;

/// The speaker's side of the session.
pub(crate) const SPEAKER: &str = "127.0.0.32";
pub(crate) const SPEAKER_AS: u32 = 64501;

/// Waits for the speaker, and keeps its routes over a restart.
pub(crate) fn start() -> anyhow::Result<SpeakerHandle> {
    let mut config = SpeakerConfig::new(AS, [192, 0, 2, 31].into());
    config.listen = vec![format!("{ADDRESS}:{PORT}").parse()?];
    let (speaker, _task) = net::spawn(config)?;
    let mut peer = PeerConfig::new("speaker", SPEAKER.parse()?, SPEAKER_AS);
    (peer.passive, peer.received_routes) = (true, ReceivedRoutes::Keep);
    speaker.set_peers(vec![peer])?;
    Ok(speaker)
}

/// Shows the checker every route that comes and goes.
pub(crate) async fn follow(speaker: SpeakerHandle, checker: Arc<Mutex<Checker>>) -> anyhow::Result<()> {
    let mut events = speaker.subscribe(true, false).context("the collector has stopped")?;
    loop {
        match events.recv().await {
            Ok(Event::BestPath { prefix, path: Some(_) }) => {
                let address = prefix.addr().to_string();
                checker.lock().unwrap_or_else(PoisonError::into_inner).announce(&address);
            }
            Ok(Event::BestPath { prefix, path: None }) => {
                let address = prefix.addr().to_string();
                checker.lock().unwrap_or_else(PoisonError::into_inner).withdraw(&address);
            }
            Ok(Event::Lost { .. }) | Err(RecvError::Lagged(_)) => anyhow::bail!("events were lost"),
            Ok(_) => {}
            Err(RecvError::Closed) => anyhow::bail!("the collector has stopped"),
        }
    }
}
