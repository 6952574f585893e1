//! All announcers of this process as one.

use std::{sync::Arc, time::Duration};

use openelb_k8s::announce::{Announcements, Announcer, AnnouncerStatus};
use tokio::sync::{mpsc, watch};

use super::{
    bgp::{ApiOptions, BgpAnnouncer, OnStop, config::Start},
    layer2::{Layer2Announcer, Layer2Options, events::Told},
};
use crate::{http::metrics::Sources, undelivered::Undelivered};

/// How announcing starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// How Layer 2 is spoken.
    pub layer2: Layer2Options,
    /// How GoBGP's gRPC interface is served.
    pub api: ApiOptions,
    /// How this process came to be.
    pub start: Start,
    /// Packets to announced addresses that nobody takes are rejected.
    pub reject_undelivered: bool,
    /// Of the timers' jitter.
    pub seed: u64,
}

/// Hands announcements to every announcer; each takes what is its own.
#[derive(Debug)]
pub struct Announcers {
    bgp: BgpAnnouncer,
    layer2: Layer2Announcer,
    undelivered: Undelivered,
    status: watch::Receiver<Arc<AnnouncerStatus>>,
}

impl Announcers {
    /// Starts all of them on the current tokio runtime. What happens on a LAN is told on the channel.
    #[must_use]
    pub fn spawn(options: Options) -> (Self, mpsc::Receiver<Told>) {
        let bgp = BgpAnnouncer::spawn(&options.api, options.seed, options.start);
        let (layer2, told) = Layer2Announcer::spawn(options.layer2, options.seed);
        let undelivered = Undelivered::spawn(options.reject_undelivered, bgp.prefixes(), layer2.status());
        let (united, status) = watch::channel(Arc::default());
        tokio::spawn(unite([bgp.status(), layer2.status(), undelivered.status()], united));
        (Self { bgp, layer2, undelivered, status }, told)
    }

    /// Where metrics take the state from.
    #[must_use]
    pub fn sources(&self) -> Sources {
        Sources { bgp: self.bgp.source(), layer2: self.layer2.source() }
    }

    /// Ends announcing, within `within`.
    pub async fn stop(&self, how: OnStop, within: Duration) {
        tokio::join!(self.bgp.stop(how, within), self.layer2.stop(how, within));
        self.undelivered.stop(how == OnStop::Restart).await;
    }
}

impl Announcer for Announcers {
    fn set_desired(&self, desired: Announcements) {
        self.bgp.set_desired(desired.clone());
        self.layer2.set_desired(desired);
    }

    fn status(&self) -> watch::Receiver<Arc<AnnouncerStatus>> {
        self.status.clone()
    }
}

/// Unites what several announcers say, until one of them is gone.
async fn unite(
    mut parts: [watch::Receiver<Arc<AnnouncerStatus>>; 3],
    united: watch::Sender<Arc<AnnouncerStatus>>,
) {
    loop {
        let [first, second, third] = &mut parts;
        let alive = tokio::select! {
            changed = first.changed() => changed.is_ok(),
            changed = second.changed() => changed.is_ok(),
            // It has nothing to say where it is switched off.
            Ok(()) = third.changed() => true,
            () = united.closed() => false,
        };
        if !alive {
            return;
        }
        let [first, second, third] = &mut parts;
        let statuses = [Arc::clone(&first.borrow_and_update()), Arc::clone(&second.borrow_and_update())];
        let both = union(statuses);
        united.send_replace(union([both, Arc::clone(&third.borrow_and_update())]));
    }
}

/// What one of them says where the other says nothing; else all of both.
fn union([first, second]: [Arc<AnnouncerStatus>; 2]) -> Arc<AnnouncerStatus> {
    let nothing = AnnouncerStatus::default();
    if *second == nothing {
        return first;
    }
    if *first == nothing {
        return second;
    }
    let mut all = AnnouncerStatus::clone(&first);
    all.addresses.extend(second.addresses.iter().map(|(key, status)| (*key, status.clone())));
    all.peers.extend(second.peers.iter().map(|(name, status)| (name.clone(), status.clone())));
    all.problems.extend(second.problems.iter().cloned());
    all.warnings.extend(second.warnings.iter().cloned());
    all.peer_warnings.extend(second.peer_warnings.iter().map(|(name, text)| (name.clone(), text.clone())));
    all.unsettled |= second.unsettled;
    Arc::new(all)
}
