//! The machine.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use super::{
    AddressStatus, ConfigError, DesiredAddress, Event, Link, LinkIndex, MemberStatus, Output, Peer, Settings,
    SpeakerConfig, Stats, StopMode,
};
use crate::wire::Frame;

/// One node's Layer 2 speaker; see the [module](super).
#[derive(Debug)]
pub struct Speaker {
    config: SpeakerConfig,
    settings: Settings,
    outputs: VecDeque<Output>,
    events: VecDeque<Event>,
    stats: Stats,
}

impl Speaker {
    /// A speaker that knows nobody and announces nothing.
    ///
    /// # Errors
    ///
    /// Times that do not fit each other, or an unspecified address.
    pub fn new(config: SpeakerConfig, settings: Settings, _now: Instant) -> Result<Self, ConfigError> {
        if config.probe_timeout.is_zero() || config.probe_timeout >= config.probe_interval {
            let (timeout, interval) = (config.probe_timeout, config.probe_interval);
            return Err(ConfigError::ProbeTimeout { timeout, interval });
        }
        if config.suspicion.is_zero() {
            return Err(ConfigError::Suspicion);
        }
        if config.gossip.ip().is_unspecified() || config.gossip.port() == 0 {
            return Err(ConfigError::Gossip(config.gossip));
        }
        Ok(Self {
            config,
            settings,
            outputs: VecDeque::new(),
            events: VecDeque::new(),
            stats: Stats::default(),
        })
    }

    /// Replaces the settings. A schedule that runs goes on as it was.
    pub fn set_settings(&mut self, settings: Settings, _now: Instant) {
        self.settings = settings;
    }

    /// The other nodes that may gossip: the whole set. Who is not in it is not asked to join, and forgotten once gone.
    pub fn set_peers(&mut self, _peers: Vec<Peer>, _now: Instant) {}

    /// The links of this node: the whole set. A link that vanished or went down stops counting at once.
    pub fn set_links(&mut self, _links: Vec<Link>, _now: Instant) {}

    /// The addresses to announce: the whole set. Nothing is claimed before the first call.
    pub fn set_desired(&mut self, _desired: Vec<DesiredAddress>, _now: Instant) {}

    /// Takes a frame in, and returns the answer to send on the same link, if any. Allocates nothing for requests.
    ///
    /// To be handed in on every link of a desired address: ARP with such an address as sender's or target's, neighbour
    /// solicitations and advertisements with such a target, and ARP replies and neighbour advertisements that are
    /// addressed to the link itself. Anything else is ignored.
    pub fn handle_frame(&mut self, _link: LinkIndex, _frame: &[u8], _now: Instant) -> Option<Frame> {
        self.stats.frames += 1;
        None
    }

    /// Takes a datagram of gossip in.
    pub fn handle_datagram(&mut self, _from: SocketAddr, _payload: &[u8], _now: Instant) {
        self.stats.datagrams += 1;
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// When [`handle_timeout`](Self::handle_timeout) is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The next thing to send or do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The next thing to tell of.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Begins to stop. Go on driving the machine until [`is_stopped`](Self::is_stopped), or until patience ends.
    pub fn stop(&mut self, _mode: StopMode, _now: Instant) {}

    /// Whether there is nothing left to hand over or to say.
    pub fn is_stopped(&self) -> bool {
        false
    }

    /// Every desired address as this node sees it, in order of address.
    pub fn addresses(&self) -> Vec<AddressStatus> {
        Vec::new()
    }

    /// One address as this node sees it; `None`: not desired.
    pub fn address(&self, _address: IpAddr) -> Option<AddressStatus> {
        None
    }

    /// The other nodes, in order of name.
    pub fn members(&self) -> Vec<MemberStatus> {
        Vec::new()
    }

    /// Whether this node knows what the others hold, and acts on it: the first round of membership is over.
    pub fn is_settled(&self) -> bool {
        false
    }

    /// Counters since the start.
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// The configuration.
    pub const fn config(&self) -> &SpeakerConfig {
        &self.config
    }
}
