//! Whether any other node is heard at all.

use std::time::{Duration, Instant};

use openelb_l2::net::Snapshot;

/// Nobody was heard for so long: something is wrong with the way, for members gossip several times a second.
const SILENCE: Duration = Duration::from_secs(10);
/// Snapshots come every two seconds. What is longer is a pause of this process, and says nothing of the others.
const STEP: Duration = Duration::from_secs(3);

/// For how long nobody has been heard.
#[derive(Debug)]
pub(super) struct Hearing {
    heard: u64,
    refused: u64,
    silence: Duration,
    looked: Instant,
}

impl Hearing {
    /// As of the start of the speaker.
    pub(super) const fn new(now: Instant) -> Self {
        Self { heard: 0, refused: 0, silence: Duration::ZERO, looked: now }
    }

    /// Takes the counters in; what is to be said behind the address where gossip is listened for, if nobody was heard for
    /// ten seconds.
    pub(super) fn look(&mut self, snapshot: &Snapshot, now: Instant) -> Option<&'static str> {
        let refused = snapshot.stats.rejected_datagrams;
        let heard = snapshot.stats.datagrams.saturating_sub(refused);
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.looked, now));
        if heard == self.heard {
            self.silence = self.silence.saturating_add(passed.min(STEP));
        } else {
            // What was refused before somebody was heard says nothing of the next silence.
            *self = Self { heard, refused, silence: Duration::ZERO, looked: now };
        }
        if self.silence < SILENCE {
            None
        } else if refused > self.refused {
            Some(
                "hears no other node: what arrives is refused, so give all speakers the same secret (--secret, or \
                 MEMBER_LIST_SECRET), and each node a name of its own",
            )
        } else {
            Some(
                "hears no other node, so none stands in for another, and addresses move without agreement: let this UDP \
                 port through between the nodes; with --bind-addr give each the first InternalIP of its Node, for there \
                 the others look for it; and see whether their speakers run",
            )
        }
    }
}
