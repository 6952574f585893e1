//! All announcers of this process as one.

use std::{sync::Arc, time::Duration};

use openelb_k8s::announce::{Announcements, Announcer, AnnouncerStatus};
use tokio::sync::{mpsc, watch};

use super::{
    bgp::{BgpAnnouncer, OnStop},
    layer2::{Layer2Announcer, Layer2Options, events::Told},
};
use crate::http::metrics::Sources;

/// Hands announcements to every announcer; each takes what is its own.
#[derive(Debug)]
pub struct Announcers {
    bgp: BgpAnnouncer,
    layer2: Layer2Announcer,
    status: watch::Receiver<Arc<AnnouncerStatus>>,
}

impl Announcers {
    /// Starts all of them on the current tokio runtime. What happens on a LAN is told on the channel.
    #[must_use]
    pub fn spawn(layer2: Layer2Options, seed: u64) -> (Self, mpsc::Receiver<Told>) {
        let bgp = BgpAnnouncer::spawn(seed);
        let (layer2, told) = Layer2Announcer::spawn(layer2, seed);
        let (united, status) = watch::channel(Arc::default());
        tokio::spawn(unite([bgp.status(), layer2.status()], united));
        (Self { bgp, layer2, status }, told)
    }

    /// Where metrics take the state from.
    #[must_use]
    pub fn sources(&self) -> Sources {
        Sources { bgp: self.bgp.source(), layer2: self.layer2.source() }
    }

    /// Ends announcing, within `within`.
    pub async fn stop(&self, how: OnStop, within: Duration) {
        tokio::join!(self.bgp.stop(how, within), self.layer2.stop(how, within));
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

/// Unites what two announcers say, until both are gone.
async fn unite(
    mut parts: [watch::Receiver<Arc<AnnouncerStatus>>; 2],
    united: watch::Sender<Arc<AnnouncerStatus>>,
) {
    loop {
        let [first, second] = &mut parts;
        let alive = tokio::select! {
            changed = first.changed() => changed.is_ok(),
            changed = second.changed() => changed.is_ok(),
            () = united.closed() => false,
        };
        if !alive {
            return;
        }
        let statuses = [Arc::clone(&first.borrow_and_update()), Arc::clone(&second.borrow_and_update())];
        united.send_replace(union(statuses));
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
    all.unsettled |= second.unsettled;
    Arc::new(all)
}
