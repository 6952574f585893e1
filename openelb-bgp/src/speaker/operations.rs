//! Which neighbours there are, from several sources and by prefix, and what operators do to them.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use super::{
    config::{ConfigError, PeerConfig, PeerName, index_dynamic_peers},
    event::{Event, PeerId, Refusal},
    options::{CommandError, DynamicPeers, PathState, PeerCommand},
    peer::{Before, Peer},
    speaker::Speaker,
    stats::{PeerClash, PeerSource},
};

/// Which neighbours are wanted.
#[derive(Debug, Default)]
pub(super) struct Neighbors {
    /// By source, in the order in which they win.
    sources: BTreeMap<Arc<str>, BTreeMap<PeerName, PeerConfig>>,
    /// The longest prefix first.
    dynamic: Vec<DynamicPeers>,
    clashes: Vec<PeerClash>,
}

/// The neighbours of all sources, and where each comes from.
type Merged = BTreeMap<PeerName, (PeerConfig, PeerSource)>;

impl Neighbors {
    pub(super) fn set_source(&mut self, source: &str, peers: BTreeMap<PeerName, PeerConfig>) {
        if peers.is_empty() {
            self.sources.remove(source);
        } else {
            self.sources.insert(source.into(), peers);
        }
    }

    /// The neighbours that there should be, and those that are left out.
    pub(super) fn merged(&self) -> (Merged, Vec<PeerClash>) {
        let mut merged = Merged::new();
        let mut clashes = Vec::new();
        let mut addresses: HashMap<(IpAddr, u32), (PeerName, Arc<str>)> = HashMap::new();
        let mut names: HashMap<PeerName, Arc<str>> = HashMap::new();
        for (source, peers) in &self.sources {
            for (name, config) in peers {
                let address = (config.address.to_canonical(), config.scope_id);
                let same_name = names.get(name).map(|source| (name.clone(), Arc::clone(source)));
                if let Some((winner, winner_source)) = same_name.or_else(|| addresses.get(&address).cloned())
                {
                    clashes.push(PeerClash {
                        peer: name.clone(),
                        source: source.to_string(),
                        winner,
                        winner_source: winner_source.to_string(),
                    });
                    continue;
                }
                names.insert(name.clone(), Arc::clone(source));
                addresses.insert(address, (name.clone(), Arc::clone(source)));
                let from = PeerSource::Configured(Arc::clone(source));
                merged.insert(name.clone(), (config.clone(), from));
            }
        }
        (merged, clashes)
    }

    /// Gives whether they are others than before.
    pub(super) fn set_clashes(&mut self, clashes: Vec<PeerClash>) {
        self.clashes = clashes;
    }

    pub(super) fn clashes(&self) -> &[PeerClash] {
        &self.clashes
    }

    fn group(&self, address: IpAddr) -> Option<&DynamicPeers> {
        self.dynamic.iter().find(|group| group.contains(address))
    }

    /// What the configuration of a dynamic neighbour is to be, as long as it belongs to a group.
    pub(super) fn dynamic_config(&self, known: &PeerConfig) -> Option<(PeerConfig, PeerSource)> {
        let group = self.group(known.address)?;
        let config = group.instance(known.address, known.scope_id);
        (config.name == known.name).then(|| (config, PeerSource::Dynamic(group.template.name.clone())))
    }
}

impl Speaker {
    /// Makes this the whole set of groups of dynamic peers: who connects from a group's prefix, and is not configured
    /// otherwise, becomes a neighbour with the group's configuration until its connection ends. Of overlapping prefixes
    /// the longest holds. Sessions of neighbours whose group stays are not touched.
    ///
    /// # Errors
    /// If a template is not valid, or two groups have one prefix or name; the set before stays.
    pub fn set_dynamic_peers(&mut self, groups: Vec<DynamicPeers>, now: Instant) -> Result<(), ConfigError> {
        let groups = index_dynamic_peers(groups)?;
        if groups != self.neighbors.dynamic {
            self.neighbors.dynamic = groups;
            self.reconcile_peers(now);
        }
        Ok(())
    }

    /// The neighbour of a connection from an address that nobody is configured with.
    pub(super) fn add_dynamic_peer(
        &mut self,
        address: IpAddr,
        scope_id: u32,
        source_address: SocketAddr,
        now: Instant,
    ) -> Result<PeerId, Refusal> {
        let group = self.neighbors.group(address).ok_or(Refusal::Unconfigured { source_address })?;
        let name = group.template.name.clone();
        if group.template.admin_down {
            return Err(Refusal::AdminDown { peer: name });
        }
        let of_group = |peer: &&Peer| matches!(&peer.source, PeerSource::Dynamic(group) if *group == name);
        let there = self.peers.values().filter(of_group).count();
        if there >= usize::try_from(group.max_peers).unwrap_or(usize::MAX) {
            return Err(Refusal::TooManyDynamicPeers { group: name, max: group.max_peers, source_address });
        }
        let config = group.instance(address, scope_id);
        if self.by_name.contains_key(&config.name) {
            // Somebody has configured a neighbour with that very name.
            return Err(Refusal::Unconfigured { source_address });
        }
        Ok(self.add_peer(Arc::new(config), Before::new(PeerSource::Dynamic(name)), now))
    }

    fn act<T>(&mut self, peer: &PeerName, act: impl FnOnce(&mut Peer) -> T) -> Result<T, CommandError> {
        let unknown = || CommandError::UnknownPeer { peer: peer.clone() };
        let id = self.by_name.get(peer).copied().ok_or_else(unknown)?;
        let known = self.peers.get_mut(&id).ok_or_else(unknown)?;
        let outcome = act(known);
        self.touch(id);
        Ok(outcome)
    }

    /// Does to a neighbour what an operator says. No other session is touched.
    ///
    /// # Errors
    /// If there is no such neighbour, or its session cannot do that.
    pub fn command(
        &mut self,
        peer: &PeerName,
        command: PeerCommand,
        now: Instant,
    ) -> Result<(), CommandError> {
        match command {
            PeerCommand::Shutdown { text } => self.act(peer, |known| known.shut_down(text, now)),
            PeerCommand::Enable => self.act(peer, |known| known.enable(now)),
            PeerCommand::Reset { text } => self.act(peer, |known| known.reset(&text, now)),
            PeerCommand::SoftResetIn => self.soft_reset(peer, true, false),
            PeerCommand::SoftResetOut => self.soft_reset(peer, false, true),
            PeerCommand::SoftReset => self.soft_reset(peer, true, true),
        }
    }

    fn soft_reset(&mut self, peer: &PeerName, incoming: bool, outgoing: bool) -> Result<(), CommandError> {
        let id = self.by_name.get(peer).copied();
        let known = id.and_then(|id| self.peers.get_mut(&id));
        let known = known.ok_or_else(|| CommandError::UnknownPeer { peer: peer.clone() })?;
        let session = known.session.as_mut();
        let session = session.ok_or_else(|| CommandError::NotEstablished { peer: peer.clone() })?;
        if incoming {
            if !session.negotiated.route_refresh {
                return Err(CommandError::NoRouteRefresh { peer: peer.clone() });
            }
            session.request_all();
        }
        if outgoing {
            for family in session.negotiated.families.clone() {
                session.refresh(family, &mut self.rib);
            }
        }
        if let Some(id) = id {
            self.touch(id);
        }
        Ok(())
    }

    /// Ends the session with this neighbour with Cease/4, Administrative Reset (RFC 4486), and a text for the operators
    /// at the other end (RFC 9003); it comes up again by itself.
    ///
    /// # Errors
    /// If there is no such neighbour.
    pub fn reset(&mut self, peer: &PeerName, text: &str, now: Instant) -> Result<(), CommandError> {
        self.command(peer, PeerCommand::Reset { text: text.to_owned() }, now)
    }

    /// The configurations of all neighbours, dynamic ones that are there included.
    #[cfg(feature = "tokio")]
    pub(crate) fn peer_configs(&self) -> impl Iterator<Item = &PeerConfig> + Clone {
        self.peers.values().map(|peer| &*peer.config)
    }

    /// The configurations of the neighbours that are known by address. What listeners check of a dynamic one its group
    /// says already.
    #[cfg(feature = "tokio")]
    pub(crate) fn known_peer_configs(&self) -> impl Iterator<Item = &PeerConfig> + Clone {
        let known = |peer: &&Peer| !matches!(peer.source, PeerSource::Dynamic(_));
        self.peers.values().filter(known).map(|peer| &*peer.config)
    }

    /// The groups of dynamic peers.
    #[cfg(feature = "tokio")]
    pub(crate) fn dynamic_peers(&self) -> &[DynamicPeers] {
        &self.neighbors.dynamic
    }

    /// BFD says this of the path to a neighbour that has [BFD](PeerConfig::bfd); for others it is ignored.
    ///
    /// When a path that was up fails, an established session ends at once with Cease/10, BFD Down (RFC 9384), and is
    /// tried again as after any error. A session that is not up is neither reset nor delayed, and none waits for BFD to
    /// come up first (RFC 5882 §4 leaves both open): a neighbour whose BFD is broken can still be reached. That the
    /// neighbour's operator holds BFD down says nothing about the path (RFC 5882 §4.2).
    ///
    /// # Errors
    /// If there is no such neighbour.
    pub fn handle_bfd(
        &mut self,
        peer: &PeerName,
        state: PathState,
        now: Instant,
    ) -> Result<(), CommandError> {
        if self.act(peer, |known| known.handle_path(state, now))? {
            self.push_event(Event::Path { peer: peer.clone(), state });
            self.state_revision += 1;
        }
        Ok(())
    }

    /// The interface to a directly connected neighbour has gone down. If the neighbour has
    /// [`link_failover`](PeerConfig::link_failover), its session ends at once, without a NOTIFICATION, which could not
    /// be sent; else, and over several hops, nothing happens.
    ///
    /// # Errors
    /// If there is no such neighbour.
    pub fn handle_link_down(
        &mut self,
        peer: &PeerName,
        interface: &str,
        now: Instant,
    ) -> Result<(), CommandError> {
        self.act(peer, |known| known.handle_link_down(interface, now))
    }
}
