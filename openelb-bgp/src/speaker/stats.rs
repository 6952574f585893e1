//! What the speaker says: snapshots of peers, listeners and routes. Plain values, counted and never exported here.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;

use super::{
    config::{PeerConfig, PeerName},
    options::PathState,
};
use crate::{
    bfd,
    fsm::State,
    wire::{Capability, Family},
};

/// Messages of one direction since the peer was configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCounters {
    /// OPEN messages.
    pub open: u64,
    /// UPDATE messages.
    pub update: u64,
    /// NOTIFICATION messages.
    pub notification: u64,
    /// KEEPALIVE messages.
    pub keepalive: u64,
    /// ROUTE-REFRESH messages (RFC 2918, RFC 7313).
    pub route_refresh: u64,
    /// Octets of all messages.
    pub bytes: u64,
}

impl MessageCounters {
    /// All messages.
    pub fn total(&self) -> u64 {
        self.open + self.update + self.notification + self.keepalive + self.route_refresh
    }
}

/// Counters of a peer since it was configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// What was sent.
    pub sent: MessageCounters,
    /// What was received.
    pub received: MessageCounters,
    /// How often the session reached Established.
    pub established: u64,
    /// How often an established session ended.
    pub dropped: u64,
    /// UPDATE messages with an attribute error that did not end the session (RFC 7606).
    pub malformed_updates: u64,
    /// Received announcements with our own AS in AS_PATH (RFC 4271 §9.1.2), ignored.
    pub as_loops: u64,
    /// Received paths that were not kept because so many of their prefix are (RFC 7911).
    pub unkept_paths: u64,
    /// How often a bug in this program ended the session or an attempt.
    pub internal_errors: u64,
}

/// One family of an established session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyStatus {
    /// IPv4 or IPv6 unicast.
    pub family: Family,
    /// Routes that the neighbour has been sent and not withdrawn.
    pub advertised: u64,
    /// Changes that wait to be sent.
    pub pending: u64,
    /// Routes that the neighbour has announced and not withdrawn.
    pub received: u64,
    /// How many paths per prefix are sent: 1 without add-path.
    pub paths_per_prefix: u8,
    /// End-of-RIB was sent (RFC 4724 §2).
    pub end_of_rib_sent: bool,
    /// End-of-RIB was received.
    pub end_of_rib_received: bool,
    /// The received routes are kept, not only counted ([`ReceivedRoutes::Keep`](super::ReceivedRoutes::Keep)).
    pub kept: bool,
    /// How many of the kept routes the neighbour has to send again, or they go.
    pub stale: u64,
    /// There are more than [`PrefixLimit::max_prefixes`](super::PrefixLimit::max_prefixes).
    pub over_limit: bool,
}

impl FamilyStatus {
    /// A family in which nothing has happened.
    pub fn new(family: Family) -> Self {
        Self {
            family,
            advertised: 0,
            pending: 0,
            received: 0,
            paths_per_prefix: 1,
            end_of_rib_sent: false,
            end_of_rib_received: false,
            kept: false,
            stale: 0,
            over_limit: false,
        }
    }
}

/// An established session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    /// When it reached Established.
    pub since: Instant,
    /// Our end.
    pub local: SocketAddr,
    /// The neighbour's end.
    pub remote: SocketAddr,
    /// The neighbour's AS number.
    pub remote_asn: u32,
    /// The neighbour's BGP identifier.
    pub remote_router_id: Ipv4Addr,
    /// The negotiated hold time; zero: none.
    pub hold_time: Duration,
    /// The interval of our keepalives.
    pub keepalive: Duration,
    /// The negotiated families.
    pub families: Vec<FamilyStatus>,
    /// What we offered in our OPEN.
    pub local_capabilities: Arc<[Capability]>,
    /// What the neighbour offered.
    pub remote_capabilities: Arc<[Capability]>,
}

impl SessionStatus {
    /// A session between these ends about which nothing else is known.
    pub fn new(since: Instant, local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            since,
            local,
            remote,
            remote_asn: 0,
            remote_router_id: Ipv4Addr::UNSPECIFIED,
            hold_time: Duration::ZERO,
            keepalive: Duration::ZERO,
            families: Vec::new(),
            local_capabilities: Arc::default(),
            remote_capabilities: Arc::default(),
        }
    }
}

/// Why a session ended or did not come up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// In words, with the RFC's names of the codes.
    pub reason: String,
    /// When.
    pub at: Instant,
}

/// Where a neighbour comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerSource {
    /// It is configured, by this source ([`Speaker::set_peers_of`](super::Speaker::set_peers_of)); `""` is that of
    /// [`Speaker::set_peers`](super::Speaker::set_peers).
    Configured(Arc<str>),
    /// It has connected from the prefix of a group, which has this name
    /// ([`Speaker::set_dynamic_peers`](super::Speaker::set_dynamic_peers)).
    Dynamic(PeerName),
}

/// A neighbour that is left out because another source's has its name or address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerClash {
    /// Which one is left out.
    pub peer: PeerName,
    /// Whose it is.
    pub source: String,
    /// Which one is there instead.
    pub winner: PeerName,
    /// Whose that is: of a source that sorts first.
    pub winner_source: String,
}

/// BFD with a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BfdStatus {
    /// The session as it stands, and its counters; `None` where BFD cannot run.
    pub session: Option<bfd::SessionStatus>,
    /// Over several hops (RFC 5883), not with a directly connected neighbour (RFC 5881).
    pub multihop: bool,
    /// What keeps packets from coming or going, in words; tried again.
    pub error: Option<String>,
}

/// One neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The embedder's name for it.
    pub name: PeerName,
    /// Its address.
    pub address: IpAddr,
    /// Its configured AS number; 0: any.
    pub asn: u32,
    /// Our AS number towards it.
    pub local_asn: u32,
    /// The state of the session (RFC 4271 §8.2.2).
    pub state: State,
    /// Since when the state is what it is.
    pub state_since: Instant,
    /// Switched off, by configuration or by [`shutdown`](Self::shutdown).
    pub admin_down: bool,
    /// Shut down by an operator ([`PeerCommand::Shutdown`](super::PeerCommand::Shutdown)), with this text.
    pub shutdown: Option<String>,
    /// Where it comes from.
    pub source: PeerSource,
    /// What BFD last said of the path; `None` if nothing yet.
    pub path: Option<PathState>,
    /// BFD (`net` only).
    pub bfd: Option<BfdStatus>,
    /// The session, while Established.
    pub session: Option<SessionStatus>,
    /// Octets of memory that the neighbour's routes take, as [`PrefixLimit::octets`](super::PrefixLimit::octets) counts
    /// them; those of a neighbour that restarts are among them.
    pub received_octets: u64,
    /// How many it may take.
    pub max_received_octets: u64,
    /// Why the last session ended, or the last attempt failed.
    pub last_error: Option<LastError>,
    /// Counters since the peer was configured.
    pub counters: PeerCounters,
}

impl PeerStatus {
    /// A neighbour with this name and address, Idle since `now`, about which nothing else is known.
    pub fn new(name: PeerName, address: IpAddr, now: Instant) -> Self {
        Self {
            name,
            address,
            asn: 0,
            local_asn: 0,
            state: State::Idle,
            state_since: now,
            admin_down: false,
            shutdown: None,
            source: PeerSource::Configured(Arc::from("")),
            path: None,
            bfd: None,
            session: None,
            received_octets: 0,
            max_received_octets: super::PrefixLimit::default().octets(),
            last_error: None,
            counters: PeerCounters::default(),
        }
    }

    /// How many routes the neighbour has announced and not withdrawn, in all families; 0 while there is no session.
    pub fn received_routes(&self) -> u64 {
        self.session.iter().flat_map(|session| &session.families).map(|family| family.received).sum()
    }
}

/// One neighbour with what is rarely asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerDetails {
    /// What the snapshots have.
    pub status: PeerStatus,
    /// Its configuration.
    pub config: Arc<PeerConfig>,
    /// The capabilities of our OPEN: that of the session, else that of the next one.
    pub local_capabilities: Vec<Capability>,
    /// From when to when the last session was established that has ended since.
    pub last_session: Option<(Instant, Instant)>,
}

/// Whether connections can be accepted on an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerState {
    /// Accepting.
    Listening,
    /// Not accepting (active-only); it is tried again.
    Failed {
        /// The cause, in words.
        error: String,
    },
}

/// One address of [`SpeakerConfig::listen`](super::SpeakerConfig::listen).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerStatus {
    /// The configured address.
    pub address: SocketAddr,
    /// The port in use, if the configured one is 0.
    pub bound: Option<SocketAddr>,
    /// Whether it accepts.
    pub state: ListenerState,
    /// Whose TCP MD5 password or TTL security it cannot check, and why, in words. Connections of these neighbours are
    /// refused if they cannot be protected after they were accepted either.
    pub unprotected: Vec<String>,
}

/// All neighbours at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeersSnapshot {
    /// The neighbours by name.
    pub peers: BTreeMap<PeerName, PeerStatus>,
    /// The listeners, in configured order (`net` only).
    pub listeners: Vec<ListenerStatus>,
    /// The first whole set of routes of every awaited source has arrived.
    pub routes_complete: bool,
    /// Connections from addresses that no peer has, refused.
    pub refused_connections: u64,
    /// Segments that the kernel has dropped since the speaker began because their TCP MD5 signature was missing, wrong
    /// or not expected (`net` only; 0 while no neighbour has a password). It counts those of other programs in this
    /// network namespace, too; a neighbour with another password shows in nothing else.
    pub md5_failures: u64,
    /// BFD packets that were discarded: malformed, from strangers or from too far away (`net` only).
    pub bfd_discarded: u64,
    /// Neighbours that are left out because another source's has their name or address.
    pub clashes: Vec<PeerClash>,
}

/// Where a route stands with a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Advertisement {
    /// The neighbour has been sent it as it is wanted.
    Advertised,
    /// It waits to be sent.
    Pending,
    /// It is no longer wanted; the withdrawal waits to be sent.
    Withdrawing,
    /// The session is not Established.
    NotEstablished,
    /// The session has not negotiated the prefix's family.
    FamilyNotNegotiated,
    /// The route is not for this neighbour ([`PeerScope`](super::PeerScope)).
    OutOfScope,
    /// There is no next hop of the prefix's family: configure one
    /// ([`SpeakerConfig::next_hop_ipv4`](super::SpeakerConfig::next_hop_ipv4), `_ipv6`).
    NoNextHop,
    /// The path attributes leave no room for a prefix in a message of 4096 octets (RFC 4271 §4): fewer communities.
    AttributesTooLarge,
    /// Another route of the prefix is better, and the session takes no more.
    NotBest,
}

/// One route and where it stands with each neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteStatus {
    /// The prefix.
    pub prefix: IpNet,
    /// Which of the prefix's routes.
    pub path_id: u32,
    /// By neighbour; in the order of the names.
    pub peers: Vec<(PeerName, Advertisement)>,
}

impl RouteStatus {
    /// How many neighbours have it.
    pub fn advertised(&self) -> usize {
        self.peers.iter().filter(|(_, state)| *state == Advertisement::Advertised).count()
    }
}

/// All routes at one time, sorted by prefix and path identifier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutesSnapshot {
    /// The routes; `Arc` so that a snapshot is cheap to hand on.
    pub routes: Arc<[RouteStatus]>,
}

impl RoutesSnapshot {
    /// The routes of a prefix.
    pub fn get(&self, prefix: IpNet) -> &[RouteStatus] {
        let start = self.routes.partition_point(|route| route.prefix < prefix);
        let rest = self.routes.get(start..).unwrap_or_default();
        let len = rest.partition_point(|route| route.prefix == prefix);
        rest.get(..len).unwrap_or_default()
    }
}

/// How much the tables hold, for metrics and for judging memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Prefixes with at least one route, wanted or not yet withdrawn everywhere.
    pub prefixes: usize,
    /// Routes.
    pub routes: usize,
    /// Distinct attribute sets of our own routes.
    pub attribute_sets: usize,
    /// Received routes that are kept.
    pub received_routes: usize,
    /// Distinct attribute sets of them.
    pub received_attribute_sets: usize,
    /// Octets of memory that the tables and the peers' advertised state have reserved, attribute sets left out.
    pub reserved_bytes: usize,
}
