//! How long two may answer, and nobody: from the protocol's own timings, for a LAN that delays and loses so much.
//!
//! **Two that hear each other.** Whoever begins to answer claims the address on the wire, at once. The claim takes one
//! delay `D`. A better owner that hears it claims again at once, or, if it claimed less than [`REPEAT`] ago, after that
//! time; its claim takes `D`, and the worse one stops. That is one exchange:
//!
//! ```text
//! exchange = 2 · D + REPEAT
//! ```
//!
//! Two that owned already when they began to hear each other first have to notice. One that had heard the other in this
//! life, and lost it, asks for it every [`KNOCK`]; if neither had, a seed is asked every [`SEEDS`]. Question and answer
//! take `D` each, and then there is an exchange:
//!
//! ```text
//! meeting = (KNOCK | SEEDS) + 2 · D + exchange
//! ```
//!
//! **Nobody.** The next owner is decided on when the last one is known to be gone: when somebody's turn comes to probe it
//! (in each round of the membership each member is probed once, in another order each time), the probe has failed, nobody
//! objected, and the news got around. Or when the process that may own is new: it waits for the others to say what they
//! hold, in vain if one of them is gone, and asks whether a stranger has the address:
//!
//! ```text
//! detection = turns · probe_interval + probe_interval + suspicion + probe_interval
//! start     = probe_interval + suspicion + probes · probe_spacing
//! gap       = max(detection, start) + 2 · D
//! ```
//!
//! A node that was given up, and is heard all the same, counts as long as it is. If it goes then, that is noticed after
//! [`MUTE`], and then its host is asked ([`HOST`]). So the gap is no shorter after a partition has healed (that a node is
//! gone may be old news from the other side), and where so much is lost that nodes are given up that are there.
//!
//! **Loss.** With a share `p` of all that is sent lost, a step is tried so often that all tries fail once in a million
//! times ([`LUCK`]); state that is not acknowledged is said again every [`RETRY`], which is the slowest of the repetitions.

use std::time::{Duration, Instant};

use openelb_l2::speaker::{NodeName, SpeakerConfig};

use super::{
    Sim,
    measure::{Overlap, SAMPLE},
    ms,
};

/// `speaker::claims`: a claim is repeated at most this often.
const REPEAT: Duration = ms(20);
/// `speaker::gossip`: a node that was lost is asked for this often.
const KNOCK: Duration = ms(40);
/// `speaker::gossip`: nodes that do not live are asked to join this often.
const SEEDS: Duration = ms(1000);
/// `ownership::replica`: state that is not acknowledged is said again after this time.
const RETRY: Duration = ms(100);
/// `speaker::decide`: a node that was given up and heard all the same is gone after this time without a word; that is
/// looked after every tick.
const MUTE: Duration = ms(1500 + 100);
/// `speaker::hosts`: a host that does not answer so long is not there, and nobody need stand in for its owner.
const HOST: Duration = ms(3 * 50);
/// What the switch takes at least.
const SWITCH: Duration = Duration::from_micros(50);
/// What happens less often than that is not counted on.
const LUCK: f64 = 1e-6;

/// The bounds on one LAN.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    delay: Duration,
    /// What loss adds to a step.
    again: Duration,
    nodes: usize,
    probe_interval: Duration,
    suspicion: Duration,
    probing: Duration,
}

impl Bounds {
    pub(crate) fn of(sim: &Sim) -> Self {
        let config = SpeakerConfig::new(NodeName::new("any").unwrap(), "192.0.2.1:7947".parse().unwrap());
        let loss = sim.loss.max(sim.refusal) as f64 / 1000.0;
        let tries = (1..100).find(|tries| loss.powi(*tries) < LUCK).unwrap_or(100).unsigned_abs();
        Self {
            delay: sim.max_delay + SWITCH,
            again: RETRY * (tries - 1),
            nodes: sim.hosts.len(),
            probe_interval: config.probe_interval,
            suspicion: config.suspicion,
            probing: sim.settings.probe_spacing * u32::from(sim.settings.probes),
        }
    }

    pub(crate) fn exchange(&self) -> Duration {
        2 * self.delay + REPEAT + self.again
    }

    /// `known`: one of both heard the other in the life that it lives.
    pub(crate) fn meeting(&self, known: bool) -> Duration {
        (if known { KNOCK } else { SEEDS }) + 2 * self.delay + self.exchange()
    }

    /// When two that answer must have ended it.
    pub(crate) fn end_of(&self, overlap: &Overlap) -> Instant {
        // When they began to hear each other is known to a sample.
        let met = overlap.met + self.meeting(overlap.known);
        met.max(overlap.began + self.exchange())
    }

    /// While one that may own is there all the time.
    pub(crate) fn gap(&self, probers: usize, healed: bool) -> Duration {
        let turns = turns(self.nodes - 1, probers);
        let detection = (turns + 1) * self.probe_interval + self.suspicion + self.probe_interval;
        let start = self.probe_interval + self.suspicion + self.probing;
        let mistaken = if healed || !self.again.is_zero() { MUTE + HOST } else { Duration::ZERO };
        detection.max(start).max(mistaken) + 2 * self.delay + self.again + SAMPLE
    }
}

/// In so many turns at least one of the probers comes to probe one of so many members, but for bad luck. Of each prober
/// the next probe is at most `2 · members - 1` turns away: first in one round, last in the next.
fn turns(members: usize, probers: usize) -> u32 {
    let missed = |turns: usize| -> f64 {
        // In the round that is under way, `past` of `members` are done.
        let of = |past: usize| {
            let next = turns.saturating_sub(members - past).min(members);
            past as f64 / members as f64 * (members - next) as f64 / members as f64
        };
        (0..members).map(of).sum::<f64>() / members as f64
    };
    let unlucky = |turns: &usize| missed(*turns).powi(probers.max(1) as i32) > LUCK;
    (members..2 * members).find(|turns| !unlucky(turns)).unwrap_or(2 * members - 1) as u32
}
