//! What the embedder says: the speaker's own identity, its neighbours and its routes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use super::options::{BfdConfig, DynamicPeers, PrefixLimit, ReceivedRoutes};
use crate::wire::{AsPath, Family};

/// The name by which the embedder knows a neighbour; unique within a speaker.
///
/// Cheap to clone and compared as text. Names order the snapshots.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName(Arc<str>);

impl PeerName {
    /// A name from text.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for PeerName {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for PeerName {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

/// A secret that neither `Debug` nor a log line ever shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<Arc<str>>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, for the one place that must have it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// The speaker's own identity and what holds for all its neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeakerConfig {
    /// Autonomous system number, 1 to 4294967295 (RFC 6793). A change resets the sessions of the peers without
    /// [`PeerConfig::local_asn`].
    pub asn: u32,
    /// BGP identifier, not 0.0.0.0 (RFC 6286). A change resets every session: it is part of the OPEN.
    pub router_id: Ipv4Addr,
    /// Addresses to accept connections on (`net` only). Empty: this speaker only connects. A port that is taken is a
    /// status and is tried again; it never stops the speaker.
    pub listen: Vec<SocketAddr>,
    /// What [`NextHop::SelfAddress`] means for an IPv4 prefix on a session whose local address is IPv6.
    pub next_hop_ipv4: Option<Ipv4Addr>,
    /// What [`NextHop::SelfAddress`] means for an IPv6 prefix on a session whose local address is IPv4.
    pub next_hop_ipv6: Option<Ipv6Addr>,
    /// The route sources whose first whole set ([`Speaker::set_routes`](super::Speaker::set_routes)) must have
    /// arrived before End-of-RIB is sent (RFC 4724 §3: an early one makes the neighbour flush routes that are still
    /// to come). Empty: the first whole set of any source is enough.
    pub sources: BTreeSet<String>,
    /// End-of-RIB is sent when this has passed since the speaker began, whatever has arrived by then: nobody keeps
    /// routes for ever that we do not vouch for. `None`: 10 s less than the restart time on sessions with graceful
    /// restart ([`PeerConfig::graceful_restart`]), never on others.
    pub end_of_rib_within: Option<Duration>,
    /// Seed of every random choice (timer jitter): one seed, one history.
    pub seed: u64,
}

impl SpeakerConfig {
    /// A speaker of this AS with this BGP identifier that only connects.
    pub fn new(asn: u32, router_id: Ipv4Addr) -> Self {
        Self {
            asn,
            router_id,
            listen: Vec::new(),
            next_hop_ipv4: None,
            next_hop_ipv6: None,
            sources: BTreeSet::new(),
            end_of_rib_within: None,
            seed: 0,
        }
    }

    /// Checks the values against the protocol.
    ///
    /// # Errors
    /// If the AS number or the BGP identifier is 0.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.asn == 0 {
            return Err(ConfigError::LocalAsnZero);
        }
        if self.router_id.is_unspecified() {
            return Err(ConfigError::RouterIdZero);
        }
        Ok(())
    }
}

/// An address family that is offered to a neighbour (RFC 4760 §8), and add-path in it (RFC 7911).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyConfig {
    /// IPv4 or IPv6 unicast.
    pub family: Family,
    /// At most this many paths per prefix are sent if the neighbour can receive them; 0 and 1 do not offer add-path.
    pub add_path_send: u8,
    /// Whether several paths per prefix are accepted.
    pub add_path_receive: bool,
    /// Whether graceful restart is offered for it, where it is offered at all ([`PeerConfig::graceful_restart`]): else
    /// neither side keeps the other's routes of this family.
    pub graceful_restart: bool,
}

impl FamilyConfig {
    /// The family without add-path.
    pub fn new(family: Family) -> Self {
        Self { family, add_path_send: 0, add_path_receive: false, graceful_restart: true }
    }

    /// The family with add-path for up to `paths` paths per prefix.
    pub fn with_add_path_send(family: Family, paths: u8) -> Self {
        Self { add_path_send: paths, ..Self::new(family) }
    }
}

/// Graceful restart as this speaker offers it (RFC 4724).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracefulRestartConfig {
    /// How long the neighbour keeps our routes while the session is away; 1 s to 4095 s.
    pub restart_time: Duration,
    /// The R bit: this speaker has just restarted. It is told until the neighbour has had the End-of-RIB of all its
    /// families once, or until the restart time is over; then it is cleared without touching the session (RFC 4724
    /// §4.1). Say what holds at the start.
    pub restarting: bool,
    /// The F bit: forwarding state was preserved over that restart. Once R is cleared F is set in any case: a session
    /// that is lost later has not touched forwarding.
    pub forwarding_preserved: bool,
    /// The N bit (RFC 8538): also after a NOTIFICATION.
    pub notification: bool,
}

/// One neighbour.
///
/// [`PeerConfig::new`] gives the defaults; set what differs:
///
/// ```
/// use openelb_bgp::speaker::PeerConfig;
///
/// let mut peer = PeerConfig::new("tor-1", "192.0.2.1".parse()?, 65001);
/// peer.multihop_ttl = Some(4);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// The embedder's name for it.
    pub name: PeerName,
    /// Its address. Connections from it are accepted; two peers never share one.
    pub address: IpAddr,
    /// The interface scope (`sin6_scope_id`) of a link-local address, or 0 if [`bind_interface`](Self::bind_interface)
    /// tells the interface; 0 for all other addresses.
    pub scope_id: u32,
    /// Its TCP port; 179.
    pub port: u16,
    /// Its AS number; 0 accepts any.
    pub asn: u32,
    /// With the AS number 0: any but ours, so that the session is external. Who connects from a prefix is not to become an
    /// internal neighbour by saying so.
    pub external_only: bool,
    /// Our AS number towards it, if it is not the speaker's.
    pub local_asn: Option<u32>,
    /// Never connect, only accept.
    pub passive: bool,
    /// Kept in the configuration, but no session: the state is Idle.
    pub admin_down: bool,
    /// Hold time that is offered: 0 (no keepalives), or 3 s to 65535 s; 30 s.
    pub hold_time: Duration,
    /// Interval of keepalives, at most a third of the negotiated hold time, which is also what 0 means; 10 s.
    pub keepalive: Duration,
    /// The first pause between attempts to connect, not 0; it doubles up to [`connect_retry_max`](Self::connect_retry_max).
    pub connect_retry: Duration,
    /// The longest pause between attempts to connect.
    pub connect_retry_max: Duration,
    /// A TCP connection that is not up by then is given up; 5 s.
    pub connect_timeout: Duration,
    /// TTL (hop limit) of an eBGP session over several hops, 2 to 255. Without it eBGP uses 1, iBGP 64.
    pub multihop_ttl: Option<u8>,
    /// What is offered; by default IPv4 and IPv6 unicast, with add-path for up to 10 paths.
    pub families: Vec<FamilyConfig>,
    /// The local address of outgoing connections. Incoming ones must have come to it, too.
    pub local_address: Option<IpAddr>,
    /// The interface (`SO_BINDTODEVICE`) of outgoing connections.
    pub bind_interface: Option<String>,
    /// Graceful restart, for the families that do not switch it off; not offered without it.
    pub graceful_restart: Option<GracefulRestartConfig>,
    /// Offer messages of up to 65535 octets (RFC 8654).
    pub extended_messages: bool,
    /// Offer IPv4 prefixes with an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// TCP MD5 password (RFC 2385), 1 to 80 octets.
    pub password: Option<Secret>,
    /// The neighbour must be at most this many hops away (GTSM, RFC 5082), 1 to 254: packets are sent with TTL 255, and
    /// those that come with less than 256 minus this are dropped by the kernel. Not together with
    /// [`multihop_ttl`](Self::multihop_ttl).
    pub ttl_security: Option<u8>,
    /// BFD; without it a dead neighbour is noticed when the hold time ends.
    pub bfd: Option<BfdConfig>,
    /// The session of a directly connected neighbour ends at once when the interface to it goes down.
    pub link_failover: bool,
    /// How many prefixes it may have.
    pub prefix_limit: PrefixLimit,
    /// What is kept of its routes.
    pub received_routes: ReceivedRoutes,
}

impl PeerConfig {
    /// A neighbour with this name, address and AS number, and the defaults else.
    pub fn new(name: impl Into<PeerName>, address: IpAddr, asn: u32) -> Self {
        Self {
            name: name.into(),
            address,
            scope_id: 0,
            port: 179,
            asn,
            external_only: false,
            local_asn: None,
            passive: false,
            admin_down: false,
            hold_time: Duration::from_secs(30),
            keepalive: Duration::from_secs(10),
            connect_retry: Duration::from_secs(1),
            connect_retry_max: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            multihop_ttl: None,
            families: vec![
                FamilyConfig::with_add_path_send(Family::IPV4_UNICAST, 10),
                FamilyConfig::with_add_path_send(Family::IPV6_UNICAST, 10),
            ],
            local_address: None,
            bind_interface: None,
            graceful_restart: None,
            extended_messages: true,
            extended_next_hop: false,
            password: None,
            ttl_security: None,
            bfd: None,
            link_failover: true,
            prefix_limit: PrefixLimit::default(),
            received_routes: ReceivedRoutes::Count,
        }
    }

    /// The address and port to connect to.
    pub fn socket_address(&self) -> SocketAddr {
        match self.address.to_canonical() {
            IpAddr::V4(address) => SocketAddr::new(address.into(), self.port),
            IpAddr::V6(address) => std::net::SocketAddrV6::new(address, self.port, 0, self.scope_id).into(),
        }
    }

    /// Checks the values against the protocol.
    ///
    /// # Errors
    /// The first value that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let peer = || self.name.clone();
        let hold = self.hold_time.as_secs();
        if (hold > 0 && hold < 3) || hold > u64::from(u16::MAX) {
            return Err(ConfigError::HoldTime { peer: peer(), hold_time: self.hold_time });
        }
        if self.local_asn == Some(0) {
            return Err(ConfigError::PeerLocalAsnZero { peer: peer() });
        }
        if self.address.is_unspecified() || self.address.is_multicast() {
            return Err(ConfigError::Address { peer: peer(), address: self.address });
        }
        if self.port == 0 && !self.passive {
            return Err(ConfigError::Port { peer: peer() });
        }
        if self.connect_retry.is_zero() {
            return Err(ConfigError::ConnectRetry { peer: peer() });
        }
        if !(1..=100).contains(&self.prefix_limit.warning_percent) {
            let percent = self.prefix_limit.warning_percent;
            return Err(ConfigError::WarningPercent { peer: peer(), percent });
        }
        if let Some(restart) = &self.graceful_restart
            && !(1..=4095).contains(&restart.restart_time.as_secs())
        {
            return Err(ConfigError::RestartTime { peer: peer(), restart_time: restart.restart_time });
        }
        if self.families.is_empty() {
            return Err(ConfigError::NoFamily { peer: peer() });
        }
        for (index, family) in self.families.iter().enumerate() {
            if self.families.iter().take(index).any(|other| other.family == family.family) {
                return Err(ConfigError::DuplicateFamily { peer: peer(), family: family.family });
            }
            if ![Family::IPV4_UNICAST, Family::IPV6_UNICAST].contains(&family.family) {
                return Err(ConfigError::Family { peer: peer(), family: family.family });
            }
        }
        if self.password.as_ref().is_some_and(|password| !(1..=80).contains(&password.expose().len())) {
            return Err(ConfigError::Password { peer: peer() });
        }
        match (self.ttl_security, self.multihop_ttl) {
            (Some(_), Some(_)) => return Err(ConfigError::TtlSecurityMultihop { peer: peer() }),
            (Some(hops @ (0 | 255)), None) => return Err(ConfigError::TtlSecurity { peer: peer(), hops }),
            _ => {}
        }
        if let Some(bfd) = &self.bfd {
            let timers = bfd.timers;
            let range = Duration::from_micros(1)..=Duration::from_micros(u32::MAX.into());
            if timers.detect_multiplier == 0
                || ![timers.desired_min_tx, timers.required_min_rx]
                    .iter()
                    .all(|interval| range.contains(interval))
            {
                return Err(ConfigError::Bfd { peer: peer() });
            }
        }
        if let Some(local) = self.local_address
            && local.to_canonical().is_ipv4() != self.address.to_canonical().is_ipv4()
        {
            return Err(ConfigError::LocalAddress { peer: peer(), local, remote: self.address });
        }
        Ok(())
    }
}

/// A configuration that the protocol does not allow. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// RFC 7607.
    #[error("the AS number is 0: set one from 1 to 4294967295")]
    LocalAsnZero,
    /// RFC 6286 §2.1.
    #[error("the BGP identifier is 0.0.0.0: set it to one of the host's IPv4 addresses")]
    RouterIdZero,
    /// RFC 7607.
    #[error("peer {peer}: the local AS number is 0: leave it out to use the speaker's")]
    PeerLocalAsnZero {
        /// Whose configuration.
        peer: PeerName,
    },
    /// RFC 4271 §4.2.
    #[error("peer {peer}: hold time {hold_time:?}: use 0 s, or 3 s to 65535 s")]
    HoldTime {
        /// Whose configuration.
        peer: PeerName,
        /// The bad value.
        hold_time: Duration,
    },
    /// Not an address of one host.
    #[error("peer {peer}: {address} is not the address of a neighbour")]
    Address {
        /// Whose configuration.
        peer: PeerName,
        /// The bad value.
        address: IpAddr,
    },
    /// Port 0 cannot be connected to.
    #[error("peer {peer}: port 0: set the port that the neighbour listens on, or make the peer passive")]
    Port {
        /// Whose configuration.
        peer: PeerName,
    },
    /// A percentage of the prefix limit.
    #[error("peer {peer}: a warning at {percent} % of the prefix limit: use 1 to 100")]
    WarningPercent {
        /// Whose configuration.
        peer: PeerName,
        /// The bad value.
        percent: u8,
    },
    /// RFC 4724 §3.
    #[error("peer {peer}: restart time {restart_time:?}: use 1 s to 4095 s")]
    RestartTime {
        /// Whose configuration.
        peer: PeerName,
        /// The bad value.
        restart_time: Duration,
    },
    /// RFC 2385, and what the kernel takes.
    #[error("peer {peer}: the TCP MD5 password is empty or has more than 80 octets: use 1 to 80")]
    Password {
        /// Whose configuration.
        peer: PeerName,
    },
    /// RFC 5082 §3.
    #[error("peer {peer}: TTL security over {hops} hops: use 1 to 254, 1 for a directly connected neighbour")]
    TtlSecurity {
        /// Whose configuration.
        peer: PeerName,
        /// The bad value.
        hops: u8,
    },
    /// One says what is sent with, the other what is received with.
    #[error("peer {peer}: TTL security sends with TTL 255: leave the multihop TTL out")]
    TtlSecurityMultihop {
        /// Whose configuration.
        peer: PeerName,
    },
    /// RFC 5880 §4.1.
    #[error("peer {peer}: BFD needs a multiplier of 1 to 255, and intervals of 1 µs to 4294 s")]
    Bfd {
        /// Whose configuration.
        peer: PeerName,
    },
    /// Nothing to talk about.
    #[error("peer {peer}: no address family: offer at least one")]
    NoFamily {
        /// Whose configuration.
        peer: PeerName,
    },
    /// Only unicast can be originated.
    #[error("peer {peer}: family {family} is not supported: use IPv4 or IPv6 unicast")]
    Family {
        /// Whose configuration.
        peer: PeerName,
        /// The bad value.
        family: Family,
    },
    /// Each family is offered once.
    #[error("peer {peer}: family {family} is there twice: offer each once")]
    DuplicateFamily {
        /// Whose configuration.
        peer: PeerName,
        /// The family.
        family: Family,
    },
    /// Attempts to connect without a pause would be a flood.
    #[error("peer {peer}: the pause between attempts to connect is 0 s: use 1 s or more")]
    ConnectRetry {
        /// Whose configuration.
        peer: PeerName,
    },
    /// A TCP connection has one family.
    #[error("peer {peer}: local address {local} and neighbour {remote} are of different families")]
    LocalAddress {
        /// Whose configuration.
        peer: PeerName,
        /// The local address.
        local: IpAddr,
        /// The neighbour's.
        remote: IpAddr,
    },
    /// Two entries of the set have one name.
    #[error("peer {peer} is there twice: names are unique")]
    DuplicateName {
        /// The name.
        peer: PeerName,
    },
    /// Connections are told apart by their source address.
    #[error("peers {first} and {second} have the same address {address}")]
    DuplicateAddress {
        /// One of them.
        first: PeerName,
        /// The other.
        second: PeerName,
        /// Their address.
        address: IpAddr,
    },
    /// Two groups of dynamic peers have one prefix: which one a neighbour belongs to must be clear.
    #[error("dynamic peers {first} and {second} have the same prefix {prefix}")]
    DuplicatePrefix {
        /// One of them.
        first: PeerName,
        /// The other.
        second: PeerName,
        /// Their prefix.
        prefix: IpNet,
    },
}

/// The next hop of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NextHop {
    /// This speaker: on each session the session's local address if it is of the prefix's family, else the
    /// speaker's configured next hop of that family ([`SpeakerConfig::next_hop_ipv4`], `_ipv6`).
    SelfAddress,
    /// This address, of the prefix's family.
    Address(IpAddr),
}

/// ORIGIN (RFC 4271 §5.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteOrigin {
    /// Interior to the originating AS.
    #[default]
    Igp,
    /// Learned by the EGP protocol.
    Egp,
    /// Something else.
    Incomplete,
}

/// The path attributes that the embedder chooses. Share one `Arc` between all routes that have the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RouteAttributes {
    /// ORIGIN.
    pub origin: RouteOrigin,
    /// MULTI_EXIT_DISC (RFC 4271 §5.1.4); sent to every neighbour when set.
    pub med: Option<u32>,
    /// LOCAL_PREF, sent to iBGP neighbours only (RFC 4271 §5.1.5); 100 if not set.
    pub local_pref: Option<u32>,
    /// What AS_PATH ends with, as if the route had been learned so; empty for a route of our own.
    pub as_path: AsPath,
    /// How many more times our AS number is put in front of AS_PATH on eBGP sessions.
    pub as_path_prepend: u8,
    /// COMMUNITIES (RFC 1997); sorted and freed of duplicates when sent.
    pub communities: Vec<u32>,
    /// LARGE_COMMUNITY (RFC 8092), likewise.
    pub large_communities: Vec<[u32; 3]>,
    /// EXTENDED COMMUNITIES (RFC 4360), likewise.
    pub extended_communities: Vec<[u8; 8]>,
}

/// Which neighbours a route is for. Dynamic ones are meant by the name of their group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum PeerScope {
    /// All of them.
    #[default]
    All,
    /// These only.
    Only(Arc<BTreeSet<PeerName>>),
}

/// The source of routes of guests in the embedder's speaker, such as clients of GoBGP's gRPC interface: they come after
/// those of all other sources, whatever they say.
pub const GUESTS: &str = "grpc";

/// A route to announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub prefix: IpNet,
    /// Tells several routes of one prefix apart, those of other sources too: of equal ones only that of the source whose
    /// name sorts first counts ([`GUESTS`] after all others), whatever their [`scope`](Self::scope). It is the path
    /// identifier on sessions with add-path (RFC 7911).
    pub path_id: u32,
    /// The next hop.
    pub next_hop: NextHop,
    /// The other attributes.
    pub attributes: Arc<RouteAttributes>,
    /// Whom it is for.
    pub scope: PeerScope,
}

impl Route {
    /// A route to `prefix` through this speaker, with path identifier 0 and plain attributes, for every neighbour.
    pub fn new(prefix: impl Into<IpNet>) -> Self {
        Self {
            prefix: prefix.into(),
            path_id: 0,
            next_hop: NextHop::SelfAddress,
            attributes: Arc::default(),
            scope: PeerScope::All,
        }
    }

    /// What identifies it within its source.
    pub fn key(&self) -> RouteKey {
        RouteKey { prefix: self.prefix, path_id: self.path_id }
    }
}

/// What identifies a route within its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteKey {
    /// Where to.
    pub prefix: IpNet,
    /// Which of the prefix's routes.
    pub path_id: u32,
}

/// A change of one source's routes. Removals are done first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Routes that are new, or that replace the one with the same key.
    pub add: Vec<Route>,
    /// Routes that go; one that is not there is no error.
    pub remove: Vec<RouteKey>,
}

impl Delta {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }
}

/// Checks a whole set of neighbours and sorts it by name.
pub(crate) fn index_peers(peers: Vec<PeerConfig>) -> Result<BTreeMap<PeerName, PeerConfig>, ConfigError> {
    let mut by_name: BTreeMap<PeerName, PeerConfig> = BTreeMap::new();
    let mut by_address: BTreeMap<(IpAddr, u32), PeerName> = BTreeMap::new();
    for peer in peers {
        peer.validate()?;
        if let Some(first) =
            by_address.insert((peer.address.to_canonical(), peer.scope_id), peer.name.clone())
        {
            return Err(if first == peer.name {
                ConfigError::DuplicateName { peer: first }
            } else {
                ConfigError::DuplicateAddress { first, second: peer.name, address: peer.address }
            });
        }
        if let Some(twice) = by_name.insert(peer.name.clone(), peer) {
            return Err(ConfigError::DuplicateName { peer: twice.name });
        }
    }
    Ok(by_name)
}

/// Checks a whole set of groups of dynamic peers: the longest prefix first, which is the order in which they are tried.
pub(crate) fn index_dynamic_peers(mut groups: Vec<DynamicPeers>) -> Result<Vec<DynamicPeers>, ConfigError> {
    groups.sort_by_key(|group| (std::cmp::Reverse(group.prefix.prefix_len()), group.template.name.clone()));
    let mut prefixes: BTreeMap<IpNet, PeerName> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for group in &mut groups {
        group.prefix = group.prefix.trunc();
        group.validate()?;
        let name = group.template.name.clone();
        if let Some(first) = prefixes.insert(group.prefix, name.clone()) {
            return Err(ConfigError::DuplicatePrefix { first, second: name, prefix: group.prefix });
        }
        if !names.insert(name.clone()) {
            return Err(ConfigError::DuplicateName { peer: name });
        }
    }
    Ok(groups)
}
