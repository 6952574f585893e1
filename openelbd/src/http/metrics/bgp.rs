//! What the BGP speaker says of itself and its neighbours.

use std::{fmt, time::Instant};

use openelb_bgp::{
    fsm::State,
    speaker::{ListenerState, MessageCounters, PathState, PeerStatus, PeersSnapshot},
    wire::{Capability, Family},
};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use super::{BgpSource, Labels, count, counters, gauges};

pub(super) struct BgpCollector {
    source: BgpSource,
}

impl BgpCollector {
    pub(super) fn new(source: BgpSource) -> Self {
        Self { source }
    }
}

impl fmt::Debug for BgpCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BgpCollector").finish_non_exhaustive()
    }
}

/// RFC 4271 section 8.2.2's states, in the order of the numbers that the BGP MIB (RFC 4273) gives them.
fn state_number(state: State) -> u8 {
    match state {
        State::Idle => 1,
        State::Connect => 2,
        State::Active => 3,
        State::OpenSent => 4,
        State::OpenConfirm => 5,
        State::Established => 6,
    }
}

pub(super) fn family_name(family: Family) -> &'static str {
    if family == Family::IPV4_UNICAST {
        "ipv4-unicast"
    } else if family == Family::IPV6_UNICAST {
        "ipv6-unicast"
    } else {
        "other"
    }
}

type MessageKind = (&'static str, fn(&MessageCounters) -> u64);

const MESSAGES: [MessageKind; 5] = [
    ("open", |counters| counters.open),
    ("update", |counters| counters.update),
    ("notification", |counters| counters.notification),
    ("keepalive", |counters| counters.keepalive),
    ("route-refresh", |counters| counters.route_refresh),
];

/// A neighbour and what it is called in labels.
struct Named<'a> {
    name: &'a str,
    address: String,
    status: &'a PeerStatus,
}

impl Named<'_> {
    fn labels(&self) -> Labels<'_> {
        self.with([])
    }

    fn with<const N: usize>(&self, more: [(&'static str, &'static str); N]) -> Labels<'_> {
        [("peer", self.name), ("neighbor", self.address.as_str())].into_iter().chain(more).collect()
    }
}

impl Collector for BgpCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = (self.source)();
        encode(&mut encoder, &snapshot, Instant::now())
    }
}

fn encode(encoder: &mut DescriptorEncoder<'_>, snapshot: &PeersSnapshot, now: Instant) -> fmt::Result {
    let peers: Vec<Named<'_>> = snapshot
        .peers
        .iter()
        .map(|(name, status)| Named { name: name.as_str(), address: status.address.to_string(), status })
        .collect();
    sessions(encoder, &peers, now)?;
    messages(encoder, &peers)?;
    routes(encoder, &peers)?;
    let listeners: Vec<(String, bool)> = snapshot
        .listeners
        .iter()
        .map(|listener| (listener.address.to_string(), listener.state == ListenerState::Listening))
        .collect();
    gauges(
        encoder,
        "bgp_listener_up",
        "Whether BGP connections are accepted on this address",
        listeners.iter().map(|(address, up)| (vec![("address", address.as_str())], f64::from(u8::from(*up)))),
    )?;
    counters(
        encoder,
        "bgp_refused_connections",
        "BGP connections from addresses that no peer has",
        [(vec![], snapshot.refused_connections)],
    )?;
    counters(
        encoder,
        "bgp_md5_failures",
        "Segments that the kernel dropped for their TCP MD5 signature, in this network namespace",
        [(vec![], snapshot.md5_failures)],
    )?;
    counters(
        encoder,
        "bgp_bfd_discarded_packets",
        "BFD packets that were discarded",
        [(vec![], snapshot.bfd_discarded)],
    )
}

fn sessions(encoder: &mut DescriptorEncoder<'_>, peers: &[Named<'_>], now: Instant) -> fmt::Result {
    let established = |peer: &Named<'_>| peer.status.state == State::Established;
    gauges(
        encoder,
        "bgp_session_up",
        "Whether the session is Established",
        peers.iter().map(|peer| (peer.labels(), f64::from(u8::from(established(peer))))),
    )?;
    gauges(
        encoder,
        "bgp_session_state",
        "The session's state: 1 Idle, 2 Connect, 3 Active, 4 OpenSent, 5 OpenConfirm, 6 Established",
        peers.iter().map(|peer| (peer.labels(), f64::from(state_number(peer.status.state)))),
    )?;
    gauges(
        encoder,
        "bgp_session_uptime_seconds",
        "For how long the session is Established",
        peers.iter().filter_map(|peer| {
            let session = peer.status.session.as_ref()?;
            Some((peer.labels(), now.saturating_duration_since(session.since).as_secs_f64()))
        }),
    )?;
    gauges(
        encoder,
        "bgp_session_hold_time_seconds",
        "The negotiated hold time; 0: none",
        peers
            .iter()
            .filter_map(|peer| Some((peer.labels(), peer.status.session.as_ref()?.hold_time.as_secs_f64()))),
    )?;
    gauges(
        encoder,
        "bgp_bfd_up",
        "Whether BFD says that packets get through both ways",
        peers.iter().filter_map(|peer| {
            let path = peer.status.path?;
            Some((peer.labels(), f64::from(u8::from(path == PathState::Up))))
        }),
    )?;
    gauges(
        encoder,
        "bgp_graceful_restart_negotiated",
        "Whether both sides offer graceful restart: the neighbour keeps our routes while the speaker restarts",
        peers.iter().filter_map(|peer| {
            let session = peer.status.session.as_ref()?;
            let offered = |capabilities: &[Capability]| {
                capabilities.iter().any(|one| matches!(one, Capability::GracefulRestart(_)))
            };
            let both = offered(&session.local_capabilities) && offered(&session.remote_capabilities);
            Some((peer.labels(), f64::from(u8::from(both))))
        }),
    )?;
    counters(
        encoder,
        "bgp_sessions_established",
        "Times that the session reached Established",
        peers.iter().map(|peer| (peer.labels(), peer.status.counters.established)),
    )?;
    counters(
        encoder,
        "bgp_sessions_dropped",
        "Times that an established session ended",
        peers.iter().map(|peer| (peer.labels(), peer.status.counters.dropped)),
    )?;
    counters(
        encoder,
        "bgp_internal_errors",
        "Times that a bug in this program ended the session or an attempt",
        peers.iter().map(|peer| (peer.labels(), peer.status.counters.internal_errors)),
    )
}

fn messages(encoder: &mut DescriptorEncoder<'_>, peers: &[Named<'_>]) -> fmt::Result {
    let directions = |peer: &PeerStatus| [("sent", peer.counters.sent), ("received", peer.counters.received)];
    counters(
        encoder,
        "bgp_messages",
        "BGP messages, by direction and type",
        peers.iter().flat_map(|peer| {
            directions(peer.status).into_iter().flat_map(move |(direction, of)| {
                MESSAGES.iter().map(move |(kind, value)| {
                    (peer.with([("direction", direction), ("type", kind)]), value(&of))
                })
            })
        }),
    )?;
    counters(
        encoder,
        "bgp_message_bytes",
        "Octets of BGP messages, by direction",
        peers.iter().flat_map(|peer| {
            directions(peer.status)
                .into_iter()
                .map(move |(direction, of)| (peer.with([("direction", direction)]), of.bytes))
        }),
    )?;
    counters(
        encoder,
        "bgp_malformed_updates",
        "Received UPDATEs with an attribute error that did not end the session (RFC 7606)",
        peers.iter().map(|peer| (peer.labels(), peer.status.counters.malformed_updates)),
    )
}

fn routes(encoder: &mut DescriptorEncoder<'_>, peers: &[Named<'_>]) -> fmt::Result {
    counters(
        encoder,
        "bgp_paths_not_kept",
        "Received paths that were not kept because there were so many of their prefix",
        peers.iter().map(|peer| (peer.labels(), peer.status.counters.unkept_paths)),
    )?;
    gauges(
        encoder,
        "bgp_received_routes_bytes",
        "Octets of memory that the neighbour's routes take",
        peers.iter().map(|peer| (peer.labels(), count(peer.status.received_octets))),
    )?;
    gauges(
        encoder,
        "bgp_received_routes_max_bytes",
        "Octets of memory that the neighbour's routes may take",
        peers.iter().map(|peer| (peer.labels(), count(peer.status.max_received_octets))),
    )?;
    type Value = fn(&openelb_bgp::speaker::FamilyStatus) -> u64;
    let metrics: [(&str, &str, Value); 4] = [
        (
            "bgp_prefix_limit_exceeded",
            "Whether the neighbour has announced more prefixes than prefixLimit allows",
            |f| u64::from(f.over_limit),
        ),
        ("bgp_routes_advertised", "Routes that the neighbour has been sent and not withdrawn", |f| {
            f.advertised
        }),
        ("bgp_routes_pending", "Changes of routes that wait to be sent to the neighbour", |f| f.pending),
        ("bgp_routes_received", "Routes that the neighbour has announced and not withdrawn", |f| f.received),
    ];
    for (name, help, value) in metrics {
        gauges(
            encoder,
            name,
            help,
            peers.iter().flat_map(|peer| {
                let families = peer.status.session.iter().flat_map(|session| &session.families);
                families.map(move |family| {
                    (peer.with([("family", family_name(family.family))]), count(value(family)))
                })
            }),
        )?;
    }
    Ok(())
}
