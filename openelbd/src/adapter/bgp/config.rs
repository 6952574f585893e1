//! `BgpConf` and `BgpPeer` → configuration of the BGP speaker.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use openelb_bgp::{
    bfd,
    speaker::{
        BfdConfig, DynamicPeers, FamilyConfig, GracefulRestartConfig, LimitAction, PeerConfig, PrefixLimit,
        ReceivedRoutes, Secret, SpeakerConfig,
    },
    wire::Family,
};
use openelb_k8s::{
    announce::{BgpAnnouncements, PeerAnnouncements},
    crd::bgp_conf::GracefulRestart,
    duration,
    index::peers::{Neighbor, PeerSpec},
};

use super::{
    Note,
    zones::{Zones, is_link_local},
};

/// The longest pause between attempts to connect, unless `connectRetry` asks for a longer one.
const CONNECT_RETRY_MAX: Duration = Duration::from_secs(60);
/// How long neighbours keep our routes while the speaker is away, unless `restartTime` says otherwise.
pub const RESTART_TIME: Duration = Duration::from_secs(60);
/// So many dynamic neighbours of one BgpPeer may be there at the same time.
pub const MAX_DYNAMIC_PEERS: u32 = 256;

/// What the host can do, and who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Whether it speaks IPv6 at all.
    pub has_ipv6: bool,
    /// The first IPv4 InternalIP of its Node.
    pub ipv4: Option<Ipv4Addr>,
    /// The first IPv6 InternalIP of its Node.
    pub ipv6: Option<Ipv6Addr>,
    /// Seed of the speaker's timer jitter.
    pub seed: u64,
}

/// The speaker's own configuration. `sources` are the route sources that End-of-RIB waits for.
#[must_use]
pub fn speaker(
    bgp: &BgpAnnouncements,
    host: Host,
    sources: impl IntoIterator<Item = String>,
) -> SpeakerConfig {
    let mut config = SpeakerConfig::new(bgp.asn, bgp.router_id);
    let unspecified: &[IpAddr] = if host.has_ipv6 {
        &[IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
    } else {
        &[IpAddr::V4(Ipv4Addr::UNSPECIFIED)]
    };
    let addresses = if bgp.listen_addresses.is_empty() { unspecified } else { &bgp.listen_addresses };
    config.listen = addresses.iter().map(|address| SocketAddr::new(*address, bgp.listen_port)).collect();
    config.next_hop_ipv4 = host.ipv4;
    config.next_hop_ipv6 = host.ipv6;
    config.sources = sources.into_iter().collect();
    config.seed = host.seed;
    config
}

/// Of TCP MD5.
const MAX_PASSWORD: usize = 80;

/// How this process came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The kernel runs since before the last speaker of this host ended: it forwards as it did (the F bit).
    pub forwarding_preserved: bool,
}

/// The neighbours that the speaker can have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// Those with an address.
    pub known: Vec<PeerConfig>,
    /// Whoever connects from a prefix.
    pub dynamic: Vec<DynamicPeers>,
    /// What keeps others out, by name of the `BgpPeer`.
    pub refused: BTreeMap<String, Note>,
}

/// The neighbours that the speaker can have, and what keeps others out.
#[must_use]
pub fn peers(bgp: &BgpAnnouncements, zones: &Zones, start: Start) -> Peers {
    let mut peers = Peers::default();
    for (name, announced) in &bgp.peers {
        // Names are in order, so of two with one address the first by name has it, on every node.
        let outcome = peer(name, announced, &bgp.graceful_restart, start).and_then(|mut config| {
            let neighbor = announced.spec.neighbor;
            match neighbor {
                Neighbor::Address(_) => {
                    if is_link_local(neighbor) {
                        config.scope_id = zones.index(config.bind_interface.as_deref());
                    }
                    let mut others = peers.known.iter().filter(|other| same_address(other, &config));
                    others.try_for_each(|other| beside(&config, announced, other, bgp))?;
                }
                Neighbor::Prefix(prefix) => {
                    if let Some(other) = peers.dynamic.iter().find(|other| other.prefix == prefix) {
                        return Err(taken(&other.template, neighbor));
                    }
                }
            }
            Ok(config)
        });
        match (outcome, announced.spec.neighbor) {
            (Ok(config), Neighbor::Address(_)) => peers.known.push(config),
            (Ok(template), Neighbor::Prefix(prefix)) => {
                peers.dynamic.push(DynamicPeers { prefix, template, max_peers: MAX_DYNAMIC_PEERS });
            }
            (Err(note), _) => {
                peers.refused.insert(name.clone(), note);
            }
        }
    }
    peers
}

fn same_address(a: &PeerConfig, b: &PeerConfig) -> bool {
    a.address.to_canonical() == b.address.to_canonical()
}

/// Whether there can be a neighbour beside another one with its address: on another interface.
fn beside(
    config: &PeerConfig,
    announced: &PeerAnnouncements,
    other: &PeerConfig,
    bgp: &BgpAnnouncements,
) -> Result<(), Note> {
    const FIELD: &str = "spec.conf.neighborAddress";
    let neighbor = announced.spec.neighbor;
    if !is_link_local(neighbor) || config.bind_interface == other.bind_interface {
        return Err(taken(other, neighbor));
    }
    if config.scope_id == other.scope_id {
        let interface = config.bind_interface.as_deref().unwrap_or_default();
        return Err(Note::new(
            FIELD,
            format!("there is no interface {interface}, and BgpPeer {} has the address, too", other.name),
            "correct the interface, or select the nodes that have it",
        ));
    }
    // Listeners know keys by address alone.
    let others = bgp.peers.get(other.name.as_str()).is_some_and(|other| wants_password(&other.spec));
    let differ = match (&config.password, &other.password) {
        (Some(ours), Some(theirs)) => ours != theirs,
        _ => wants_password(&announced.spec) != others,
    };
    if differ {
        return Err(Note::new(
            FIELD,
            format!(
                "BgpPeer {} has the address on another interface, and another password or none: the kernel knows one \
                 for each address",
                other.name
            ),
            "use one password for both, or different addresses",
        ));
    }
    Ok(())
}

fn taken(other: &PeerConfig, neighbor: Neighbor) -> Note {
    Note::new(
        "spec.conf.neighborAddress",
        format!("BgpPeer {} has the address {} already", other.name, written(neighbor)),
        "remove one of the two, or select different nodes",
    )
}

fn written(neighbor: Neighbor) -> String {
    match neighbor {
        Neighbor::Address(address) => address.to_string(),
        Neighbor::Prefix(prefix) => prefix.to_string(),
    }
}

/// One neighbour, or the pattern of those of a prefix.
///
/// # Errors
/// If the speaker cannot have it, with the reason.
pub fn peer(
    name: &str,
    announced: &PeerAnnouncements,
    conf: &GracefulRestart,
    start: Start,
) -> Result<PeerConfig, Note> {
    let spec = &announced.spec;
    let address = match spec.neighbor {
        Neighbor::Address(address) => address,
        Neighbor::Prefix(prefix) => first_host(prefix),
    };
    let timers = Timers::of(spec);
    let mut config = PeerConfig::new(name, address, spec.asn.unwrap_or(0));
    config.external_only = spec.asn.is_none();
    config.port = spec.port;
    config.local_asn = spec.local_asn;
    config.passive = spec.passive;
    config.hold_time = timers.hold_time;
    config.keepalive = timers.keepalive;
    config.connect_retry = timers.connect_retry;
    config.connect_retry_max = CONNECT_RETRY_MAX.max(timers.connect_retry);
    config.multihop_ttl = spec.multihop_ttl;
    config.ttl_security = spec.ttl_security_hops;
    config.local_address = spec.local_address;
    config.bind_interface.clone_from(&spec.bind_interface);
    config.password = announced.password.as_ref().map(|password| Secret::new(password.expose()));
    // A session that was to be protected is never opened without protection.
    config.admin_down = spec.admin_down || (wants_password(spec) && config.password.is_none());
    // An IPv4 address over a session between IPv6 addresses may go out with our IPv6 next hop (RFC 8950).
    config.extended_next_hop = !address.to_canonical().is_ipv4();
    if !spec.families.is_empty() {
        config.families = spec
            .families
            .iter()
            .map(|family| FamilyConfig {
                family: if family.v6 { Family::IPV6_UNICAST } else { Family::IPV4_UNICAST },
                add_path_send: family.add_path_send,
                add_path_receive: family.add_path_receive,
                graceful_restart: family.graceful_restart,
            })
            .collect();
    }
    config.graceful_restart = graceful_restart(spec, conf, start);
    config.bfd = spec.bfd.map(|bfd| BfdConfig {
        timers: bfd::Timers {
            detect_multiplier: bfd.detect_multiplier,
            desired_min_tx: bfd.transmit_interval,
            required_min_rx: bfd.receive_interval,
            passive: bfd.passive,
        },
        minimum_ttl: bfd.minimum_ttl,
    });
    config.link_failover = spec.link_failover;
    config.prefix_limit = prefix_limit(spec);
    if spec.keep_received_routes {
        config.received_routes = ReceivedRoutes::Keep;
    }
    if config.password.as_ref().is_some_and(|password| password.expose().len() > MAX_PASSWORD) {
        let field =
            if spec.password_secret.is_some() { "spec.passwordSecretRef" } else { "spec.conf.authPassword" };
        let cause = format!("the password is longer than {MAX_PASSWORD} octets (RFC 2385, Linux)");
        return Err(Note::new(field, cause, "use a shorter one on both sides"));
    }
    match config.validate() {
        Ok(()) => Ok(config),
        Err(error) => Err(Note::new("spec", error.to_string(), "correct the BgpPeer")),
    }
}

/// An address that the pattern of dynamic neighbours has in the place of theirs.
fn first_host(prefix: IpNet) -> IpAddr {
    prefix.hosts().next().filter(|address| !address.is_unspecified()).unwrap_or_else(|| prefix.broadcast())
}

/// Graceful restart towards a neighbour: on, unless the BgpPeer or else the BgpConf switches it off.
fn graceful_restart(spec: &PeerSpec, conf: &GracefulRestart, start: Start) -> Option<GracefulRestartConfig> {
    let restart_time = restart_time(spec, conf)?;
    Some(GracefulRestartConfig {
        restart_time,
        restarting: true,
        forwarding_preserved: start.forwarding_preserved,
        // A dead node without BFD is withdrawn when the hold time ends, and never later (RFC 8538 section 4).
        notification: spec.bfd.is_some()
            && first(spec, conf, |restart| restart.notification_enabled).unwrap_or(true),
    })
}

/// For how long the neighbour keeps our routes; `None`: not at all.
#[must_use]
pub fn restart_time(spec: &PeerSpec, conf: &GracefulRestart) -> Option<Duration> {
    let on = first(spec, conf, |restart| restart.enabled).unwrap_or(true);
    let helper_only = first(spec, conf, |restart| restart.helper_only).unwrap_or(false);
    // Without a family in it there is nothing that could be kept.
    let some_family = spec.families.is_empty() || spec.families.iter().any(|family| family.graceful_restart);
    let seconds = first(spec, conf, |restart| restart.restart_time.filter(|seconds| *seconds > 0));
    (on && !helper_only && some_family)
        .then(|| seconds.map_or(RESTART_TIME, |seconds| Duration::from_secs(seconds.into())))
}

/// What the BgpPeer says, else what the BgpConf says.
fn first<T>(
    spec: &PeerSpec,
    conf: &GracefulRestart,
    field: impl Fn(&GracefulRestart) -> Option<T>,
) -> Option<T> {
    spec.graceful_restart.as_ref().and_then(&field).or_else(|| field(conf))
}

/// How many prefixes the neighbour may have.
#[must_use]
pub fn prefix_limit(spec: &PeerSpec) -> PrefixLimit {
    let mut limit = PrefixLimit::default();
    let Some(wanted) = &spec.prefix_limit else { return limit };
    if let Some(max) = wanted.max_prefixes {
        limit.max_prefixes = max;
    }
    if let Some(percent) = wanted.warning_percent.and_then(|percent| u8::try_from(percent).ok()) {
        limit.warning_percent = percent;
    }
    if wanted.action.as_deref() == Some("Warn") {
        limit.action = LimitAction::Warn;
    }
    limit.restart_after = wanted.restart_time.as_deref().and_then(|time| duration::parse(time).ok());
    limit
}

/// Whether the session is to have a password, be it there or not.
#[must_use]
pub fn wants_password(spec: &PeerSpec) -> bool {
    spec.password.is_some() || spec.password_secret.is_some()
}

/// The timers in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Offered hold time.
    pub hold_time: Duration,
    /// KEEPALIVE interval.
    pub keepalive: Duration,
    /// The first pause between attempts to connect.
    pub connect_retry: Duration,
}

impl Timers {
    /// The timers of a neighbour.
    #[must_use]
    pub fn of(spec: &PeerSpec) -> Self {
        Self {
            hold_time: spec.hold_time,
            keepalive: spec.keepalive,
            connect_retry: spec.connect_retry.unwrap_or_else(|| Self::default().connect_retry),
        }
    }
}

impl Default for Timers {
    fn default() -> Self {
        let defaults = PeerConfig::new("", IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        Self {
            hold_time: defaults.hold_time,
            keepalive: defaults.keepalive,
            connect_retry: defaults.connect_retry,
        }
    }
}
