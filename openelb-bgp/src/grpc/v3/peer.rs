//! Neighbours as GoBGP's messages.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::{
    capability::capabilities,
    family::{address, family},
    time::timestamp,
};
use crate::{
    fsm::State,
    grpc::{
        apipb,
        core::{Error, PeerView},
    },
    speaker::{FamilyConfig, FamilyStatus, MessageCounters, PeerConfig, PeerDetails, PeerStatus},
    wire::{Capability, Family},
};

/// A neighbour with all that is known about it.
pub(super) fn peer(view: &PeerView) -> apipb::Peer {
    let PeerView { details, description } = view;
    let config = &details.config;
    apipb::Peer {
        apply_policy: Some(apipb::ApplyPolicy::default()),
        conf: Some(conf(details, description)),
        ebgp_multihop: Some(apipb::EbgpMultihop {
            enabled: config.multihop_ttl.is_some(),
            multihop_ttl: config.multihop_ttl.map_or(0, u32::from),
        }),
        route_reflector: Some(apipb::RouteReflector::default()),
        state: Some(state(details, description)),
        timers: Some(timers(details)),
        transport: Some(apipb::Transport {
            local_address: config.local_address.map_or_else(String::new, |local| local.to_string()),
            passive_mode: config.passive,
            remote_address: config.address.to_string(),
            remote_port: u32::from(config.port),
            bind_interface: config.bind_interface.clone().unwrap_or_default(),
            ..apipb::Transport::default()
        }),
        route_server: Some(apipb::RouteServer::default()),
        graceful_restart: Some(graceful_restart(details)),
        afi_safis: afi_safis(details),
        ttl_security: Some(apipb::TtlSecurity {
            enabled: config.ttl_security.is_some(),
            ttl_min: config.ttl_security.map_or(0, |hops| 256 - u32::from(hops)),
        }),
    }
}

/// What tells a neighbour apart from others, also when it has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbor {
    pub(super) address: IpAddr,
    asn: u32,
    local_asn: u32,
}

impl From<&PeerStatus> for Neighbor {
    fn from(status: &PeerStatus) -> Self {
        Self { address: status.address, asn: status.asn, local_asn: status.local_asn }
    }
}

/// What the last change of state of a neighbour is told with that has gone.
pub(super) fn gone(neighbor: &Neighbor, state: State) -> apipb::Peer {
    let &Neighbor { address, asn, local_asn } = neighbor;
    let kind =
        i32::from(if asn == local_asn { apipb::PeerType::Internal } else { apipb::PeerType::External });
    apipb::Peer {
        conf: Some(apipb::PeerConf {
            neighbor_address: address.to_string(),
            peer_asn: asn,
            r#type: kind,
            ..apipb::PeerConf::default()
        }),
        state: Some(apipb::PeerState {
            neighbor_address: address.to_string(),
            peer_asn: asn,
            local_asn,
            r#type: kind,
            session_state: session_state(state),
            messages: Some(apipb::Messages::default()),
            queues: Some(apipb::Queues::default()),
            ..apipb::PeerState::default()
        }),
        timers: Some(apipb::Timers::default()),
        transport: Some(apipb::Transport::default()),
        ..apipb::Peer::default()
    }
}

/// Only what a change of state is told with.
pub(super) fn peer_event(view: &PeerView, state: State) -> apipb::Peer {
    let mut peer = peer(view);
    if let Some(told) = &mut peer.state {
        told.session_state = session_state(state);
    }
    peer
}

fn peer_type(status: &PeerStatus) -> i32 {
    let asn = status.session.as_ref().map_or(status.asn, |session| session.remote_asn);
    let kind = if asn == status.local_asn { apipb::PeerType::Internal } else { apipb::PeerType::External };
    i32::from(kind)
}

fn conf(PeerDetails { status, config, .. }: &PeerDetails, description: &str) -> apipb::PeerConf {
    apipb::PeerConf {
        description: description.to_owned(),
        local_asn: config.local_asn.unwrap_or_default(),
        neighbor_address: status.address.to_string(),
        peer_asn: status.asn,
        r#type: peer_type(status),
        admin_down: config.admin_down,
        ..apipb::PeerConf::default()
    }
}

fn session_state(state: State) -> i32 {
    use apipb::peer_state::SessionState;
    i32::from(match state {
        State::Idle => SessionState::Idle,
        State::Connect => SessionState::Connect,
        State::Active => SessionState::Active,
        State::OpenSent => SessionState::Opensent,
        State::OpenConfirm => SessionState::Openconfirm,
        State::Established => SessionState::Established,
    })
}

fn message(counted: &MessageCounters) -> apipb::Message {
    apipb::Message {
        notification: counted.notification,
        update: counted.update,
        open: counted.open,
        keepalive: counted.keepalive,
        refresh: counted.route_refresh,
        total: counted.total(),
        ..apipb::Message::default()
    }
}

fn state(details: &PeerDetails, description: &str) -> apipb::PeerState {
    use apipb::peer_state::AdminState;
    let status = &details.status;
    let session = status.session.as_ref();
    let pending: u64 = session.map_or(0, |session| session.families.iter().map(|known| known.pending).sum());
    let pending = u32::try_from(pending).unwrap_or(u32::MAX);
    apipb::PeerState {
        description: description.to_owned(),
        local_asn: status.local_asn,
        messages: Some(apipb::Messages {
            received: Some(message(&status.counters.received)),
            sent: Some(message(&status.counters.sent)),
        }),
        neighbor_address: status.address.to_string(),
        peer_asn: session.map_or(status.asn, |session| session.remote_asn),
        r#type: peer_type(status),
        queues: Some(apipb::Queues { input: 0, output: pending }),
        session_state: session_state(status.state),
        admin_state: i32::from(if status.admin_down { AdminState::Down } else { AdminState::Up }),
        out_q: pending,
        flops: u32::try_from(status.counters.dropped).unwrap_or(u32::MAX),
        remote_cap: session.map_or_else(Vec::new, |session| capabilities(&session.remote_capabilities)),
        local_cap: capabilities(&details.local_capabilities),
        router_id: session.map_or_else(String::new, |session| session.remote_router_id.to_string()),
        ..apipb::PeerState::default()
    }
}

fn timers(PeerDetails { status, config, last_session, .. }: &PeerDetails) -> apipb::Timers {
    let session = status.session.as_ref();
    let seconds = |duration: Duration| duration.as_secs();
    let keepalive = session.map_or(config.keepalive, |session| session.keepalive);
    apipb::Timers {
        config: Some(apipb::TimersConfig {
            connect_retry: seconds(config.connect_retry),
            hold_time: seconds(config.hold_time),
            keepalive_interval: seconds(config.keepalive),
            ..apipb::TimersConfig::default()
        }),
        state: Some(apipb::TimersState {
            connect_retry: seconds(config.connect_retry),
            hold_time: seconds(config.hold_time),
            keepalive_interval: seconds(keepalive),
            negotiated_hold_time: session.map_or(0, |session| seconds(session.hold_time)),
            uptime: session
                .map(|session| session.since)
                .or_else(|| last_session.map(|(since, _)| since))
                .map(timestamp),
            downtime: last_session.map(|(_, until)| timestamp(until)),
            ..apipb::TimersState::default()
        }),
    }
}

fn graceful_restart(PeerDetails { status, config, .. }: &PeerDetails) -> apipb::GracefulRestart {
    let Some(restart) = &config.graceful_restart else { return apipb::GracefulRestart::default() };
    let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    let peer = status.session.as_ref().and_then(|session| {
        session.remote_capabilities.iter().find_map(|capability| match capability {
            Capability::GracefulRestart(restart) => Some(restart),
            _ => None,
        })
    });
    apipb::GracefulRestart {
        enabled: true,
        restart_time: seconds(restart.restart_time),
        notification_enabled: restart.notification,
        peer_restart_time: peer.map_or(0, |peer| u32::from(peer.time)),
        peer_restarting: peer.is_some_and(|peer| peer.restarted),
        ..apipb::GracefulRestart::default()
    }
}

fn afi_safis(PeerDetails { status, config, .. }: &PeerDetails) -> Vec<apipb::AfiSafi> {
    let negotiated: BTreeMap<Family, &FamilyStatus> = status
        .session
        .iter()
        .flat_map(|session| &session.families)
        .map(|known| (known.family, known))
        .collect();
    let of = |offer: &FamilyConfig| {
        let known = negotiated.get(&offer.family).copied();
        let named = Some(family(offer.family));
        let send_max = if offer.add_path_send > 1 { u32::from(offer.add_path_send) } else { 0 };
        apipb::AfiSafi {
            mp_graceful_restart: Some(apipb::MpGracefulRestart {
                config: Some(apipb::MpGracefulRestartConfig { enabled: config.graceful_restart.is_some() }),
                state: Some(apipb::MpGracefulRestartState {
                    enabled: config.graceful_restart.is_some(),
                    end_of_rib_received: known.is_some_and(|known| known.end_of_rib_received),
                    end_of_rib_sent: known.is_some_and(|known| known.end_of_rib_sent),
                    ..apipb::MpGracefulRestartState::default()
                }),
            }),
            config: Some(apipb::AfiSafiConfig { family: named, enabled: true }),
            state: Some(apipb::AfiSafiState {
                family: named,
                enabled: known.is_some(),
                received: known.map_or(0, |known| known.received),
                accepted: known.map_or(0, |known| known.received),
                advertised: known.map_or(0, |known| known.advertised),
            }),
            apply_policy: Some(apipb::ApplyPolicy::default()),
            prefix_limits: Some(apipb::PrefixLimit {
                family: named,
                max_prefixes: config.prefix_limit.max_prefixes,
                shutdown_threshold_pct: u32::from(config.prefix_limit.warning_percent),
            }),
            add_paths: Some(apipb::AddPaths {
                config: Some(apipb::AddPathsConfig { receive: offer.add_path_receive, send_max }),
                state: Some(apipb::AddPathsState {
                    receive: offer.add_path_receive,
                    send_max: known.map_or(0, |known| {
                        if known.paths_per_prefix > 1 { u32::from(known.paths_per_prefix) } else { 0 }
                    }),
                }),
            }),
        }
    };
    config.families.iter().map(of).collect()
}

/// The neighbour that a request names; `all` and nothing name every one.
pub(super) fn named(text: &str) -> Result<Option<IpAddr>, Error> {
    if text.is_empty() || text == "all" { Ok(None) } else { address("the neighbour", text).map(Some) }
}

/// The families of a configuration without any: that of its address, as GoBGP has it.
pub(super) fn default_family(config: &PeerConfig) -> Family {
    if config.address.to_canonical().is_ipv4() { Family::IPV4_UNICAST } else { Family::IPV6_UNICAST }
}
