//! Neighbours that clients want.

use std::time::Duration;

use super::{
    any::shown,
    family::{address, family_or_ipv4},
    peer::default_family,
};
use crate::{
    grpc::{
        apipb,
        core::{Error, NewPeer},
    },
    speaker::{FamilyConfig, GracefulRestartConfig, PeerConfig, ReceivedRoutes, Secret},
};

/// TTL of a session over several hops where the client says only that there are several.
const MULTIHOP_TTL: u8 = 255;
/// A client's words for a neighbour, in characters.
const MAX_DESCRIPTION: usize = 256;

/// Reads a neighbour of a client.
pub(super) fn parse(peer: Option<apipb::Peer>) -> Result<NewPeer, Error> {
    let peer = peer.ok_or_else(|| Error::invalid("no peer in the request"))?;
    let conf = peer.conf.clone().unwrap_or_default();
    unsupported(&peer, &conf)?;
    let text = if conf.neighbor_address.is_empty() {
        peer.state.as_ref().map_or("", |state| state.neighbor_address.as_str())
    } else {
        &conf.neighbor_address
    };
    let mut new = NewPeer::new(address("the neighbour", text)?, conf.peer_asn);
    new.description = conf.description.chars().take(MAX_DESCRIPTION).collect();
    let config = &mut new.config;
    config.local_asn = (conf.local_asn != 0).then_some(conf.local_asn);
    config.admin_down = conf.admin_down;
    config.password = (!conf.auth_password.is_empty()).then(|| Secret::new(conf.auth_password.as_str()));
    // Clients ask for what a neighbour has sent.
    config.received_routes = ReceivedRoutes::Keep;
    if let Some(multihop) = peer.ebgp_multihop.filter(|multihop| multihop.enabled) {
        config.multihop_ttl = Some(match multihop.multihop_ttl {
            0 => MULTIHOP_TTL,
            ttl => octet("ebgp_multihop.multihop_ttl", ttl)?,
        });
    }
    if let Some(security) = peer.ttl_security.filter(|security| security.enabled) {
        let minimum = if security.ttl_min == 0 { 255 } else { security.ttl_min };
        let hops = 256_u32.checked_sub(minimum).filter(|hops| (1..=254).contains(hops));
        let hops =
            hops.ok_or_else(|| Error::invalid(format!("ttl_security.ttl_min {minimum}: use 2 to 255")))?;
        config.ttl_security = Some(octet("ttl_security.ttl_min", hops)?);
    }
    timers(&peer, config);
    transport(&peer, config)?;
    if let Some(restart) = peer.graceful_restart.as_ref().filter(|restart| restart.enabled) {
        config.graceful_restart = Some(GracefulRestartConfig {
            restart_time: Duration::from_secs(match restart.restart_time {
                0 => u64::from(DEFAULT_RESTART_TIME),
                seconds => u64::from(seconds),
            }),
            restarting: false,
            forwarding_preserved: false,
            notification: false,
        });
    }
    families(&peer, config)?;
    Ok(new)
}

/// Seconds; half of the longest hold time that is usual.
const DEFAULT_RESTART_TIME: u16 = 120;

fn octet(what: &str, value: u32) -> Result<u8, Error> {
    u8::try_from(value).map_err(|_| Error::invalid(format!("{what} {value}: at most 255")))
}

/// Settings that would have no effect are refused.
fn unsupported(peer: &apipb::Peer, conf: &apipb::PeerConf) -> Result<(), Error> {
    let reflector = peer.route_reflector.as_ref().is_some_and(|reflector| reflector.route_reflector_client);
    let server = peer.route_server.as_ref().is_some_and(|server| server.route_server_client);
    let restart = peer.graceful_restart.as_ref();
    let found = [
        ("conf.neighbor_interface", !conf.neighbor_interface.is_empty()),
        ("conf.peer_group", !conf.peer_group.is_empty()),
        ("conf.vrf", !conf.vrf.is_empty()),
        ("conf.allow_own_asn", conf.allow_own_asn != 0),
        ("conf.replace_peer_asn", conf.replace_peer_asn),
        ("conf.remove_private", conf.remove_private != 0),
        ("conf.route_flap_damping", conf.route_flap_damping),
        ("route_reflector.route_reflector_client", reflector),
        ("route_server.route_server_client", server),
        ("graceful_restart.helper_only", restart.is_some_and(|restart| restart.helper_only)),
        ("graceful_restart.longlived_enabled", restart.is_some_and(|restart| restart.longlived_enabled)),
    ];
    if let Some((field, _)) = found.iter().find(|(_, set)| *set) {
        return Err(Error::unimplemented(format!(
            "{field}: this speaker announces its own routes and passes none on, it has no such setting"
        )));
    }
    // RFC 8538 §4: with the N bit an expired hold time withdraws nothing, so that only BFD tells that a node is dead.
    if restart.is_some_and(|restart| restart.notification_enabled) {
        return Err(Error::unimplemented(
            "graceful_restart.notification_enabled: only together with BFD, which clients cannot switch on: a dead \
             node would go on getting packets for the restart time; configure such a neighbour where BFD is",
        ));
    }
    Ok(())
}

/// Zero is the default, as in GoBGP.
fn timers(peer: &apipb::Peer, config: &mut PeerConfig) {
    let Some(timers) = peer.timers.as_ref().and_then(|timers| timers.config.as_ref()) else { return };
    let set = |value: u64, to: &mut Duration| {
        if value != 0 {
            *to = Duration::from_secs(value);
        }
    };
    set(timers.hold_time, &mut config.hold_time);
    if timers.hold_time != 0 {
        config.keepalive = config.hold_time / 3;
    }
    set(timers.keepalive_interval, &mut config.keepalive);
    set(timers.connect_retry, &mut config.connect_retry);
    config.connect_retry_max = config.connect_retry_max.max(config.connect_retry);
}

fn transport(peer: &apipb::Peer, config: &mut PeerConfig) -> Result<(), Error> {
    let Some(transport) = &peer.transport else { return Ok(()) };
    config.passive = transport.passive_mode;
    if !transport.local_address.is_empty() {
        let local = address("transport.local_address", &transport.local_address)?;
        config.local_address = (!local.is_unspecified()).then_some(local);
    }
    if transport.remote_port != 0 {
        config.port = u16::try_from(transport.remote_port).map_err(|_| {
            Error::invalid(format!("transport.remote_port {}: at most 65535", transport.remote_port))
        })?;
    }
    // IFNAMSIZ of Linux.
    if transport.bind_interface.len() > 15 || transport.bind_interface.contains(['/', '\0']) {
        return Err(Error::invalid(format!(
            "transport.bind_interface {}: no interface has this name",
            shown(&transport.bind_interface)
        )));
    }
    config.bind_interface = (!transport.bind_interface.is_empty()).then(|| transport.bind_interface.clone());
    Ok(())
}

fn families(peer: &apipb::Peer, config: &mut PeerConfig) -> Result<(), Error> {
    config.families = vec![FamilyConfig::new(default_family(config))];
    if peer.afi_safis.is_empty() {
        return Ok(());
    }
    if peer.afi_safis.len() > 16 {
        return Err(Error::invalid(format!("{} families: there are two", peer.afi_safis.len())));
    }
    config.families.clear();
    let mut limited = None;
    for wanted in &peer.afi_safis {
        let family = family_or_ipv4(wanted.config.as_ref().and_then(|config| config.family))?;
        let add_paths = wanted.add_paths.as_ref().and_then(|paths| paths.config.as_ref());
        config.families.push(FamilyConfig {
            family,
            add_path_send: octet("add_paths.config.send_max", add_paths.map_or(0, |paths| paths.send_max))?,
            add_path_receive: add_paths.is_some_and(|paths| paths.receive),
            graceful_restart: true,
        });
        let Some(limit) = wanted.prefix_limits.filter(|limit| limit.max_prefixes != 0) else { continue };
        // One for both families: the lower one would be too low for one, the higher one none for the other.
        if limited.replace(limit.max_prefixes).is_some_and(|other| other != limit.max_prefixes) {
            return Err(Error::invalid("prefix_limits.max_prefixes: give both families the same"));
        }
        config.prefix_limit.max_prefixes = limit.max_prefixes;
        if limit.shutdown_threshold_pct != 0 {
            config.prefix_limit.warning_percent =
                octet("prefix_limits.shutdown_threshold_pct", limit.shutdown_threshold_pct)?;
        }
    }
    Ok(())
}
