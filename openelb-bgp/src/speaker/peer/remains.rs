//! What stays of a neighbour that is configured anew, or made anew.

use std::time::{Duration, Instant};

use super::Peer;
use crate::{
    fsm::State,
    speaker::{
        bfd_path::BfdPath,
        options::PathState,
        stats::{LastError, PeerCounters, PeerSource},
    },
};

/// A bug that is not met again for so long is forgotten: the next pause is the first again.
const BUG_FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// What a neighbour that is configured anew had before.
#[derive(Clone, Debug)]
pub(in crate::speaker) struct Before {
    pub(in crate::speaker) counters: PeerCounters,
    pub(in crate::speaker) source: PeerSource,
    pub(in crate::speaker) shutdown: Option<String>,
    /// It has had all our routes since this speaker began.
    pub(in crate::speaker) told: bool,
    /// What BFD says, and of which path.
    pub(in crate::speaker) path: Option<(BfdPath, PathState)>,
    pub(in crate::speaker) bugs: Option<(u32, Instant)>,
    /// Before the first attempt.
    pub(in crate::speaker) pause: Option<Duration>,
    pub(in crate::speaker) last_error: Option<LastError>,
}

impl Before {
    /// Nothing.
    pub(in crate::speaker) fn new(source: PeerSource) -> Self {
        Self {
            counters: PeerCounters::default(),
            source,
            shutdown: None,
            told: false,
            path: None,
            bugs: None,
            pause: None,
            last_error: None,
        }
    }
}

impl Peer {
    /// What stays when the neighbour is configured anew; an end that is coming is counted.
    pub(in crate::speaker) fn remains(&self) -> Before {
        let dropped = self.counters.dropped + u64::from(self.state == State::Established);
        Before {
            counters: PeerCounters { dropped, ..self.counters },
            source: self.source.clone(),
            shutdown: self.shutdown.clone(),
            told: self.told,
            path: BfdPath::of(&self.config, self.local_asn).zip(self.path),
            bugs: self.bugs,
            pause: None,
            last_error: None,
        }
    }

    /// What stays when a bug was met that may have left anything behind in here: the next attempt is after a pause,
    /// which doubles each time.
    pub(in crate::speaker) fn remains_of_bug(&self, reason: &str, now: Instant) -> Before {
        let recent = |at: Instant| now.saturating_duration_since(at) < BUG_FORGOTTEN_AFTER;
        let before = self.bugs.filter(|(_, at)| recent(*at)).map_or(0, |(bugs, _)| bugs);
        let longest = self.config.connect_retry_max.max(self.config.connect_retry);
        let pause = self.config.connect_retry.saturating_mul(1 << before.min(16)).min(longest);
        let mut remains = self.remains();
        remains.counters.internal_errors += 1;
        remains.bugs = Some((before.saturating_add(1), now));
        remains.pause = Some(pause);
        remains.last_error = Some(LastError { reason: reason.to_owned(), at: now });
        remains
    }
}
