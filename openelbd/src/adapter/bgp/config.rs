//! `BgpConf` and `BgpPeer` → configuration of the BGP speaker.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use openelb_bgp::{
    speaker::{FamilyConfig, PeerConfig, Secret, SpeakerConfig},
    wire::Family,
};
use openelb_k8s::{
    announce::{BgpAnnouncements, PeerAnnouncements},
    index::peers::{Neighbor, PeerSpec},
};

use super::Note;

/// The longest pause between attempts to connect, unless `connectRetry` asks for a longer one.
const CONNECT_RETRY_MAX: Duration = Duration::from_secs(60);
/// TTL that a neighbour with TTL security expects (RFC 5082).
const TTL_SECURITY: u8 = 255;

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

/// The neighbours that the speaker can have, and what keeps others (by name of the `BgpPeer`) out.
#[must_use]
pub fn peers(bgp: &BgpAnnouncements) -> (Vec<PeerConfig>, BTreeMap<String, Note>) {
    let mut configs: Vec<PeerConfig> = Vec::new();
    let mut refused = BTreeMap::new();
    for (name, announced) in &bgp.peers {
        // Names are in order, so of two with one address the first by name has it, on every node.
        let outcome = peer(name, announced).and_then(|config| {
            match configs.iter().find(|other| other.address == config.address) {
                Some(other) => Err(Note::new(
                    "spec.conf.neighborAddress",
                    format!("BgpPeer {} has the address {} already", other.name, config.address),
                    "remove one of the two, or select different nodes",
                )),
                None => Ok(config),
            }
        });
        match outcome {
            Ok(config) => configs.push(config),
            Err(note) => {
                refused.insert(name.clone(), note);
            }
        }
    }
    (configs, refused)
}

/// One neighbour.
///
/// # Errors
/// If the speaker cannot have it, with the reason.
pub fn peer(name: &str, announced: &PeerAnnouncements) -> Result<PeerConfig, Note> {
    let spec = &announced.spec;
    let address = match spec.neighbor {
        Neighbor::Address(address) => address,
        Neighbor::Prefix(prefix) => {
            return Err(Note::new(
                "spec.conf.neighborAddress",
                format!("dynamic neighbours ({prefix}) are not supported yet"),
                "write one BgpPeer for each neighbour",
            ));
        }
    };
    let timers = Timers::of(spec);
    let mut config = PeerConfig::new(name, address, spec.asn.unwrap_or(0));
    config.port = spec.port;
    config.local_asn = spec.local_asn;
    config.passive = spec.passive;
    config.hold_time = timers.hold_time;
    config.keepalive = timers.keepalive;
    config.connect_retry = timers.connect_retry;
    config.connect_retry_max = CONNECT_RETRY_MAX.max(timers.connect_retry);
    config.multihop_ttl = spec.multihop_ttl.or_else(|| spec.ttl_security_hops.map(|_| TTL_SECURITY));
    config.local_address = spec.local_address;
    config.bind_interface.clone_from(&spec.bind_interface);
    config.password = announced.password.as_ref().map(|password| Secret::new(password.expose()));
    // A session that was to be protected is never opened without protection.
    config.admin_down = spec.admin_down || wants_password(spec);
    if !spec.families.is_empty() {
        config.families = spec
            .families
            .iter()
            .map(|family| FamilyConfig {
                family: if family.v6 { Family::IPV6_UNICAST } else { Family::IPV4_UNICAST },
                add_path_send: family.add_path_send,
                add_path_receive: family.add_path_receive,
            })
            .collect();
    }
    if let Some(limit) = &spec.prefix_limit
        && limit.action.as_deref() != Some("Warn")
        && let Some(max) = limit.max_prefixes
    {
        config.prefix_limit.max_prefixes = max;
    }
    match config.validate() {
        Ok(()) => Ok(config),
        Err(error) => Err(Note::new("spec", error.to_string(), "correct the BgpPeer")),
    }
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
