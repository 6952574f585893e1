//! What a neighbour is offered, and which changes of its configuration need another session.

use std::time::{Duration, Instant};

use crate::{
    fsm::{FamilyOffer, FsmConfig},
    speaker::{
        config::{GracefulRestartConfig, PeerConfig, SpeakerConfig},
        options::{PrefixLimit, ReceivedRoutes},
    },
    wire::{GracefulRestart, GracefulRestartFamily},
};

/// So much before the neighbour would drop our routes End-of-RIB is sent, complete or not.
const BEFORE_RESTART_TIME: Duration = Duration::from_secs(10);

/// Whether two configurations have the same session, but for the N bit: the rest can change while it stays up.
pub(super) fn same_session(a: &PeerConfig, b: &PeerConfig) -> bool {
    let plain = |config: &PeerConfig| PeerConfig {
        // Of graceful restart these go into the next OPEN; the first two only say what has been.
        graceful_restart: config.graceful_restart.map(|restart| GracefulRestartConfig {
            restarting: false,
            forwarding_preserved: false,
            notification: false,
            ..restart
        }),
        connect_retry: Duration::ZERO,
        connect_retry_max: Duration::ZERO,
        connect_timeout: Duration::ZERO,
        bfd: None,
        link_failover: false,
        prefix_limit: PrefixLimit::default(),
        received_routes: ReceivedRoutes::Count,
        ..config.clone()
    };
    plain(a) == plain(b)
}

/// When routes count as complete on sessions with this neighbour, whatever is missing.
pub(super) fn complete_at(peer: &PeerConfig, speaker: &SpeakerConfig, began: Instant) -> Option<Instant> {
    let restart_time = peer.graceful_restart.map(|restart| restart.restart_time);
    let within = restart_time.map(|time| time.saturating_sub(BEFORE_RESTART_TIME).max(time / 2));
    began.checked_add(speaker.end_of_rib_within.or(within)?)
}

/// The capability to offer. F says that forwarding went on over the restart, and is set where there was none or it is
/// history: losing a session does not stop it.
pub(super) fn graceful_restart(peer: &PeerConfig, restarting: bool) -> Option<GracefulRestart> {
    let restart = peer.graceful_restart?;
    let forwarding = restart.forwarding_preserved || !restarting;
    let row = |family| GracefulRestartFamily { family, forwarding };
    Some(GracefulRestart {
        restarted: restarting,
        notification: restart.notification,
        time: u16::try_from(restart.restart_time.as_secs())
            .unwrap_or(u16::MAX)
            .min(GracefulRestart::MAX_TIME),
        families: peer
            .families
            .iter()
            .filter(|offer| offer.graceful_restart)
            .map(|offer| row(offer.family))
            .collect(),
    })
}

/// What the state machine is to know of the configuration.
pub(super) fn fsm_config(
    peer: &PeerConfig,
    speaker: &SpeakerConfig,
    local_asn: u32,
    restarting: bool,
) -> FsmConfig {
    let offers = peer.families.iter().map(|offer| FamilyOffer {
        family: offer.family,
        add_path_send: offer.add_path_send > 1,
        add_path_receive: offer.add_path_receive,
    });
    FsmConfig {
        peer_asn: (peer.asn != 0).then_some(peer.asn),
        external_only: peer.external_only,
        passive: peer.passive,
        hold_time: u16::try_from(peer.hold_time.as_secs()).unwrap_or(u16::MAX),
        keepalive: peer.keepalive,
        connect_retry: peer.connect_retry,
        connect_retry_max: peer.connect_retry_max,
        families: offers.collect(),
        graceful_restart: graceful_restart(peer, restarting),
        extended_messages: peer.extended_messages,
        extended_next_hop: peer.extended_next_hop,
        ..FsmConfig::new(local_asn, speaker.router_id)
    }
}
