//! State of the BGP speaker → status in the words of the seam.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use openelb_bgp::{
    fsm::State,
    speaker::{
        Advertisement, ListenerState, MessageCounters, PathState, PeerStatus, PeersSnapshot, RoutesSnapshot,
        SessionStatus,
    },
    wire::Capability,
};
use openelb_k8s::{
    announce::{
        self, AddressStatus, Announcements, AnnouncerProblem, AnnouncerStatus, MessageCounts, Protocol,
        SessionState,
    },
    crd::bgp_conf::GracefulRestart,
};

use super::config::Timers;

/// Ties the monotonic clock to the calendar, once: the same instant always gives the same time of day.
#[derive(Clone, Copy, Debug)]
pub struct Calendar {
    instant: Instant,
    timestamp: Timestamp,
}

impl Calendar {
    /// `instant` was at `timestamp`.
    #[must_use]
    pub fn new(instant: Instant, timestamp: Timestamp) -> Self {
        Self { instant, timestamp }
    }

    /// The time of day of an instant, in whole seconds.
    #[must_use]
    pub fn at(&self, instant: Instant) -> Timestamp {
        let later = instant.saturating_duration_since(self.instant);
        let earlier = self.instant.saturating_duration_since(instant);
        let offset = SignedDuration::try_from(later).unwrap_or(SignedDuration::ZERO)
            - SignedDuration::try_from(earlier).unwrap_or(SignedDuration::ZERO);
        let exact = self.timestamp.checked_add(offset).unwrap_or(self.timestamp);
        Timestamp::from_second(exact.as_second()).unwrap_or(exact)
    }
}

/// What the speaker does for these announcements. `before` is the last status: `since` of what did not change stays.
#[must_use]
pub fn status(
    desired: &Announcements,
    peers: &PeersSnapshot,
    routes: &RoutesSnapshot,
    before: &AnnouncerStatus,
    calendar: Calendar,
    now: Instant,
) -> AnnouncerStatus {
    let wanted = desired.addresses.iter().filter(|(_, a)| a.protocols.contains(&Protocol::Bgp));
    let mut shared: Arc<BTreeMap<String, bool>> = Arc::default();
    let aggregates = desired.bgp.as_ref().is_some_and(|bgp| {
        let mut rules = bgp.peers.values().flat_map(|peer| peer.spec.advertisements.iter().flatten());
        rules.any(|rule| rule.aggregation_length.is_some() || rule.aggregation_length_v6.is_some())
    });
    let addresses = wanted
        .map(|(address, announcement)| {
            let wider = if aggregates {
                super::routes::aggregates(desired, *address, announcement)
            } else {
                BTreeSet::new()
            };
            let mut status = address_status(*address, &wider, desired, announcement, peers, routes);
            if status.peers == shared {
                status.peers = Arc::clone(&shared);
            } else {
                shared = Arc::clone(&status.peers);
            }
            let last = before
                .addresses
                .get(&(*address, Protocol::Bgp))
                .filter(|last| last.announced == status.announced);
            status.since = last.and_then(|last| last.since).or_else(|| Some(calendar.at(now)));
            ((*address, Protocol::Bgp), status)
        })
        .collect();
    let sessions = peers
        .peers
        .iter()
        .map(|(name, peer)| {
            // A dynamic neighbour is named NAME/ADDRESS.
            let of = name.as_str().split('/').next().unwrap_or_default();
            let bgp = desired.bgp.as_ref();
            let configured = bgp.and_then(|bgp| Some((bgp.peers.get(of)?, &bgp.graceful_restart)));
            (name.as_str().to_owned(), peer_status(peer, configured, calendar))
        })
        .collect();
    AnnouncerStatus {
        addresses,
        peers: sessions,
        problems: listener_problems(peers),
        warnings: unprotected(peers),
        peer_warnings: peer_warnings(desired, peers),
        ..AnnouncerStatus::default()
    }
}

/// The reason of a problem: a port cannot be listened on.
pub const LISTEN_FAILED: &str = "ListenFailed";

/// Ports that cannot be listened on.
fn listener_problems(peers: &PeersSnapshot) -> Vec<AnnouncerProblem> {
    peers
        .listeners
        .iter()
        .filter_map(|listener| match &listener.state {
            ListenerState::Listening => None,
            ListenerState::Failed { error } => {
                let message = format!(
                    "BGP cannot listen on {}: {error}; sessions are opened from this side only, and listening is \
                     tried again",
                    listener.address
                );
                Some(AnnouncerProblem::new(LISTEN_FAILED, message))
            }
        })
        .collect()
}

/// Neighbours that a listener cannot protect as they are to be.
fn unprotected(peers: &PeersSnapshot) -> Vec<AnnouncerProblem> {
    let all = peers.listeners.iter().flat_map(|listener| &listener.unprotected);
    all.map(|text| AnnouncerProblem::new("NotProtected", text.as_str())).collect()
}

fn address_status(
    address: IpAddr,
    wider: &BTreeSet<IpNet>,
    desired: &Announcements,
    announcement: &announce::Announcement,
    peers: &PeersSnapshot,
    routes: &RoutesSnapshot,
) -> AddressStatus {
    let mut advertised: BTreeMap<String, bool> =
        peers.peers.keys().map(|name| (name.as_str().to_owned(), false)).collect();
    let mut why: BTreeMap<String, Advertisement> = BTreeMap::new();
    let prefixes = std::iter::once(IpNet::from(address)).chain(wider.iter().copied());
    for route in prefixes.flat_map(|prefix| routes.get(prefix)) {
        for (peer, state) in &route.peers {
            if *state == Advertisement::Advertised {
                advertised.insert(peer.as_str().to_owned(), true);
            } else if *state != Advertisement::OutOfScope {
                // The first reason that is not about another route of the prefix.
                let entry = why.entry(peer.as_str().to_owned()).or_insert(*state);
                if *entry == Advertisement::NotBest {
                    *entry = *state;
                }
            }
        }
    }
    let announced = advertised.values().any(|yes| *yes);
    let detail = if announced {
        let to: Vec<&str> =
            advertised.iter().filter(|(_, yes)| **yes).map(|(name, _)| name.as_str()).collect();
        let prefixes: Vec<String> = wider.iter().map(ToString::to_string).collect();
        let within = if prefixes.is_empty() { String::new() } else { format!(" in {}", prefixes.join(", ")) };
        format!("advertised{within} to {}", to.join(", "))
    } else if desired.bgp.is_none() {
        "there is no usable BgpConf named default".to_owned()
    } else if peers.peers.is_empty() {
        "there is no BgpPeer for this node".to_owned()
    } else if !announcement.self_eligible && announcement.nodes.is_empty() {
        "no node is eligible".to_owned()
    } else if why.is_empty() {
        "this node is not eligible".to_owned()
    } else {
        let reasons = why.iter().map(|(peer, state)| format!("{peer}: {}", in_words(*state)));
        reasons.collect::<Vec<_>>().join("; ")
    };
    AddressStatus { announced, peers: Arc::new(advertised), ..AddressStatus::new(Protocol::Bgp, detail) }
}

fn in_words(state: Advertisement) -> &'static str {
    match state {
        Advertisement::Advertised => "advertised",
        Advertisement::Pending => "waits to be sent",
        Advertisement::Withdrawing => "is being withdrawn",
        Advertisement::NotEstablished => "the session is not established",
        Advertisement::FamilyNotNegotiated => "the session has not negotiated this address family",
        Advertisement::OutOfScope => "not for this neighbour",
        Advertisement::NoNextHop => "this node has no address of this family to be the next hop",
        Advertisement::NotBest => "another route of the address is sent",
        _ => "not advertised",
    }
}

/// The state's name on the other side of the seam.
#[must_use]
pub fn session_state(state: State) -> SessionState {
    match state {
        State::Idle => SessionState::Idle,
        State::Connect => SessionState::Connect,
        State::Active => SessionState::Active,
        State::OpenSent => SessionState::OpenSent,
        State::OpenConfirm => SessionState::OpenConfirm,
        State::Established => SessionState::Established,
    }
}

fn counts(of: &MessageCounters) -> MessageCounts {
    MessageCounts {
        open: of.open,
        update: of.update,
        keepalive: of.keepalive,
        notification: of.notification,
        refresh: of.route_refresh,
        ..MessageCounts::default()
    }
}

fn peer_status(
    peer: &PeerStatus,
    configured: Option<(&announce::PeerAnnouncements, &GracefulRestart)>,
    calendar: Calendar,
) -> announce::PeerStatus {
    let session = peer.session.as_ref();
    let families = || session.into_iter().flat_map(|session| &session.families);
    let timers = configured.map(|(configured, _)| Timers::of(&configured.spec)).unwrap_or_default();
    let restarts =
        configured.is_some_and(|(peer, conf)| super::config::restart_time(&peer.spec, conf).is_some());
    let pending: u64 = families().map(|family| family.pending).sum();
    let up = peer.state == State::Established;
    announce::PeerStatus {
        address: Some(peer.address),
        local_asn: peer.local_asn,
        peer_asn: session.map_or(peer.asn, |session| session.remote_asn),
        router_id: session.map(|session| session.remote_router_id),
        state: session_state(peer.state),
        admin_down: peer.admin_down,
        received: MessageCounts {
            withdraw_update: peer.counters.malformed_updates,
            ..counts(&peer.counters.received)
        },
        sent: counts(&peer.counters.sent),
        out_queue: u32::try_from(pending).unwrap_or(u32::MAX),
        flaps: u32::try_from(peer.counters.dropped).unwrap_or(u32::MAX),
        connect_retry: timers.connect_retry.as_secs(),
        hold_time: timers.hold_time.as_secs(),
        keepalive: timers.keepalive.as_secs(),
        negotiated_hold_time: session.map(|session| session.hold_time.as_secs()),
        up_since: session.map(|session| calendar.at(session.since)),
        down_since: (!up).then(|| calendar.at(down_since(peer))),
        advertised: families().map(|family| family.advertised).sum(),
        received_prefixes: families().map(|family| family.received).sum(),
        last_error: peer.last_error.as_ref().map(|error| error.reason.clone()),
        // Down, and not yet up for the first time, are told apart by whether anything was said.
        bfd: configured.filter(|(peer, _)| peer.spec.bfd.is_some()).map(|_| {
            peer.path.map_or_else(|| "down: nothing was heard yet".to_owned(), |path| path.to_string())
        }),
        authenticated: configured.is_some_and(|(peer, _)| peer.password.is_some()),
        ttl_security: configured.and_then(|(peer, _)| peer.spec.ttl_security_hops),
        graceful_restart: restarts.then(|| session.is_some_and(takes_graceful_restart)),
    }
}

fn takes_graceful_restart(session: &SessionStatus) -> bool {
    session.remote_capabilities.iter().any(|capability| matches!(capability, Capability::GracefulRestart(_)))
}

/// What is to be known about each BgpPeer, in words.
fn peer_warnings(desired: &Announcements, peers: &PeersSnapshot) -> BTreeMap<String, String> {
    let mut warnings: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let Some(bgp) = &desired.bgp else { return BTreeMap::new() };
    for (name, peer) in &peers.peers {
        let of = name.as_str().split('/').next().unwrap_or_default();
        let Some(configured) = bgp.peers.get(of) else { continue };
        let mut told = Vec::new();
        if let (Some(_), Some(PathState::Down(cause))) = (configured.spec.bfd, peer.path) {
            told.push(format!("BFD with {} is down: {cause}", peer.address));
        }
        let limit = super::config::prefix_limit(&configured.spec);
        for family in peer.session.iter().flat_map(|session| &session.families) {
            let max = u64::from(limit.max_prefixes);
            let close = (max * u64::from(limit.warning_percent)).div_ceil(100);
            // The numbers move all the time; what is told does not.
            if family.over_limit || family.received > max {
                told.push(format!(
                    "{} has more prefixes of {} than prefixLimit allows ({max})",
                    peer.address, family.family
                ));
            } else if family.received > 0 && family.received >= close {
                let percent = limit.warning_percent;
                told.push(format!(
                    "{} has {percent} % or more of the {max} prefixes of {} that prefixLimit allows",
                    peer.address, family.family
                ));
            }
        }
        let (octets, max) = (peer.received_octets, peer.max_received_octets);
        if octets > 0 && octets >= max.saturating_mul(u64::from(limit.warning_percent)).div_ceil(100) {
            let percent = limit.warning_percent;
            told.push(format!(
                "the routes of {} take {percent} % or more of the {max} octets of memory that they may take",
                peer.address
            ));
        }
        if !told.is_empty() {
            warnings.entry(of.to_owned()).or_default().extend(told);
        }
    }
    warnings.into_iter().map(|(name, told)| (name, told.join("; "))).collect()
}

/// While it goes round Connect, Active and OpenSent the session is down all the time; the last error is when that
/// was last certain.
fn down_since(peer: &PeerStatus) -> Instant {
    peer.last_error.as_ref().map_or(peer.state_since, |error| error.at)
}

/// Nothing changed but counters?
#[must_use]
pub fn is_same_but_for_counters(a: &AnnouncerStatus, b: &AnnouncerStatus) -> bool {
    let strip = |peer: &announce::PeerStatus| announce::PeerStatus {
        received: MessageCounts::default(),
        sent: MessageCounts::default(),
        out_queue: 0,
        ..peer.clone()
    };
    a.addresses == b.addresses
        && a.problems == b.problems
        && a.warnings == b.warnings
        && a.peer_warnings == b.peer_warnings
        && a.peers.len() == b.peers.len()
        && a.peers.iter().zip(&b.peers).all(|((an, a), (bn, b))| an == bn && strip(a) == strip(b))
}

/// Counters are not worth a write more often than this.
pub const COUNTERS_EVERY: Duration = Duration::from_secs(30);
