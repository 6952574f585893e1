//! What a [`Speaker`](super::Speaker) is told about itself and about how to behave.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

/// The name of a node: 1 to 255 octets, the same text on every node that speaks of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

/// A name that is empty or longer than 255 octets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a node name of {length} octets: write 1 to 255")]
pub struct InvalidNodeName {
    length: usize,
}

impl NodeName {
    /// The name with this text.
    ///
    /// # Errors
    ///
    /// The text is empty or longer than 255 octets.
    pub fn new(text: &str) -> Result<Self, InvalidNodeName> {
        match text.len() {
            1..=255 => Ok(Self(text.into())),
            length => Err(InvalidNodeName { length }),
        }
    }

    /// A stand-in for the name of a node that has not been heard yet.
    pub(crate) fn numbered(number: u64) -> Self {
        Self(format!("unknown-{number:016x}").into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::str::FromStr for NodeName {
    type Err = InvalidNodeName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

/// The key that authenticates gossip: HMAC-SHA-256 over every datagram. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct GossipKey(Arc<[u8]>);

impl GossipKey {
    /// A key of any length; 32 octets of randomness are best. An empty one is no key: `None`.
    pub fn new(secret: &[u8]) -> Option<Self> {
        (!secret.is_empty()).then(|| Self(secret.into()))
    }

    /// The octets.
    pub(crate) fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for GossipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GossipKey(..)")
    }
}

/// Who this node is, and how it finds the others. Fixed for the life of a [`Speaker`](super::Speaker).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SpeakerConfig {
    /// This node.
    pub node: NodeName,
    /// Where the others reach its gossip.
    pub gossip: SocketAddr,
    /// Authenticates gossip; `None`: anybody who reaches the port may speak.
    pub key: Option<GossipKey>,
    /// How often a member is probed (SWIM's protocol period). Default 200 ms.
    pub probe_interval: Duration,
    /// How long its answer may take before others are asked to probe it. Default 60 ms; below `probe_interval`.
    pub probe_timeout: Duration,
    /// How long a suspected member may take to object. Default 600 ms; at least `probe_interval`. A driver that is late by
    /// half of it throws frames away, and a speaker that is late by all of it takes itself for suspended.
    pub suspicion: Duration,
    /// How long the host had been up when the speaker was made (Linux `CLOCK_BOOTTIME`). Default: long enough.
    pub host_uptime: Duration,
    /// Grows with every start of the process on this host: milliseconds of the wall clock do, as long as that does not
    /// go back; whoever can keeps the number and takes at least one more the next time. A number that went back is
    /// noticed and repaired as soon as another member is heard, with a moment in which addresses of this node may be
    /// unanswered. Where two lives have the same number, the others may take what the first said for words of the
    /// second, until that speaks.
    pub incarnation: u64,
    /// Seeds everything random: jitter, and who is probed next.
    pub seed: u64,
}

impl SpeakerConfig {
    /// The configuration of a node with all defaults.
    pub fn new(node: NodeName, gossip: SocketAddr) -> Self {
        Self {
            node,
            gossip,
            key: None,
            probe_interval: Duration::from_millis(200),
            probe_timeout: Duration::from_millis(60),
            suspicion: Duration::from_millis(600),
            host_uptime: Duration::from_secs(365 * 24 * 3600),
            incarnation: 0,
            seed: 0,
        }
    }
}

/// When an address returns to its best node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failback {
    /// Once the better node has been a candidate for this long.
    Delayed(Duration),
    /// At once.
    Immediate,
    /// Never by itself.
    Manual,
}

/// How addresses are announced and moved. May change at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Offsets from a claim at which gratuitous frames are sent. Default 0, 100 ms, 300 ms, 1 s, 2 s, 4 s.
    pub gratuitous: Vec<Duration>,
    /// Interval of the gratuitous frames after that; zero: none. Default 60 s.
    pub refresh: Duration,
    /// How long the runner-up answers with the MAC address of an owner whose speaker is gone but whose kernel answers,
    /// before it takes the address over; zero: it takes over as soon as the speaker is known to be gone. Default 10 min.
    pub stand_in: Duration,
    /// How long after its host's boot a node takes no address that another candidate can hold. Default 30 s.
    pub join_delay: Duration,
    /// When an address returns to its best node. Default: delayed by 5 min.
    pub failback: Failback,
    /// Before an address is announced for the first time ever: how many probes (RFC 5227 section 2.1.1, RFC 4862
    /// section 5.4); zero: none. Default 3.
    pub probes: u8,
    /// Time between two of them, and after the last one, at least 1 ms. Default 200 ms.
    pub probe_spacing: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            gratuitous: [0, 100, 300, 1000, 2000, 4000].map(Duration::from_millis).to_vec(),
            refresh: Duration::from_secs(60),
            stand_in: Duration::from_secs(600),
            join_delay: Duration::from_secs(30),
            failback: Failback::Delayed(Duration::from_secs(300)),
            probes: 3,
            probe_spacing: Duration::from_millis(200),
        }
    }
}

/// Why a [`SpeakerConfig`] is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// SWIM needs time for the indirect probe.
    #[error("the probe timeout {timeout:?} must be above zero and below the probe interval {interval:?}")]
    ProbeTimeout {
        /// `probe_timeout`.
        timeout: Duration,
        /// `probe_interval`.
        interval: Duration,
    },
    /// A member could hardly object, and every hiccup would pass for a suspension.
    #[error("the suspicion time {suspicion:?} is below the probe interval {interval:?}: write at least that")]
    Suspicion {
        /// `suspicion`.
        suspicion: Duration,
        /// `probe_interval`.
        interval: Duration,
    },
    /// `gossip` is where others send to.
    #[error("{0} is nowhere to send gossip to: give this node's own address and port")]
    Gossip(SocketAddr),
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests; any origin of time will do")]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::speaker::Speaker;

    #[test]
    fn a_suspicion_below_the_probe_interval_is_refused() {
        let interval = Duration::from_millis(200);
        for (suspicion, good) in [(0, false), (50, false), (199, false), (200, true), (600, true)] {
            let suspicion = Duration::from_millis(suspicion);
            let gossip = SocketAddr::from(([192, 0, 2, 1], 7947));
            let mut config = SpeakerConfig::new(NodeName::new("node-1").unwrap(), gossip);
            config.suspicion = suspicion;
            let made = Speaker::new(config, Settings::default(), Instant::now());
            let refused = (!good).then_some(ConfigError::Suspicion { suspicion, interval });
            assert_eq!(made.err(), refused, "{suspicion:?}");
        }
    }
}
