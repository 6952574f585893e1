//! Snapshots and events for the handles.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{broadcast, watch};

use super::{
    super::handle::{AddressView, DriverStats, Snapshot},
    gossip::Gossip,
    ports::Ports,
};
use crate::speaker::{Event, Speaker};

/// Between two snapshots, however much happens.
const SPACING: Duration = Duration::from_millis(100);
/// And when nothing seems to happen: for counters, and for members that are suspected.
const REFRESH: Duration = Duration::from_secs(2);

pub(super) struct Publisher {
    snapshots: watch::Sender<Arc<Snapshot>>,
    events: broadcast::Sender<Event>,
    last: Instant,
    touched: bool,
}

impl Publisher {
    pub(super) const fn new(
        snapshots: watch::Sender<Arc<Snapshot>>,
        events: broadcast::Sender<Event>,
        now: Instant,
    ) -> Self {
        Self { snapshots, events, last: now, touched: false }
    }

    /// Something changed.
    pub(super) const fn touch(&mut self) {
        self.touched = true;
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.touched = true;
        // Nobody may listen.
        let _ = self.events.send(event);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        Some(self.last + if self.touched { SPACING } else { REFRESH })
    }

    /// Publishes when it is time to.
    pub(super) fn run(
        &mut self,
        speaker: &Speaker,
        ports: &Ports,
        gossip: &Gossip,
        driver: DriverStats,
        now: Instant,
    ) {
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.touched = false;
            self.last = now;
            self.snapshots.send_replace(Arc::new(snapshot(speaker, ports, gossip, driver)));
        }
    }

    /// The last one.
    pub(super) fn end(self, last: Snapshot) {
        self.snapshots.send_replace(Arc::new(Snapshot { stopped: true, ..last }));
    }
}

pub(super) fn snapshot(speaker: &Speaker, ports: &Ports, gossip: &Gossip, driver: DriverStats) -> Snapshot {
    let addresses = speaker.addresses().into_iter().map(|status| {
        let problems = ports.problems(status.address, &status.links);
        AddressView { status, problems }
    });
    Snapshot {
        addresses: addresses.collect(),
        links: ports.views(),
        members: speaker.members(),
        settled: speaker.is_settled(),
        gossip_problem: gossip.problem().map(str::to_owned),
        stats: speaker.stats(),
        driver,
        stopped: false,
    }
}
