//! Validation of BgpConfs and BgpPeers.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;

use super::{
    AdvertisementSpec, BfdTimers, BgpConfParsed, Neighbor, NextHopMode, PeerFamily, PeerSpec, community,
};
use crate::announce::Password;
use crate::crd::BgpConfSpec;
use crate::crd::bgp_conf::GracefulRestart;
use crate::crd::bgp_peer::{Advertisement, AfiSafi, BgpPeerSpec, PrefixLimit};
use crate::duration;
use crate::index::SpecProblem;
use crate::selector::Selector;

/// Validates a BgpConf.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_conf(spec: &BgpConfSpec) -> Result<BgpConfParsed, Vec<SpecProblem>> {
    let mut problems = Vec::new();
    let asn = spec.asn.unwrap_or(0);
    let as_per_rack = spec.as_per_rack.clone().unwrap_or_default();
    if asn == 0 && as_per_rack.values().all(|asn| *asn == 0) {
        problems.push(SpecProblem::new("spec.as", "there is no AS number", "for example as: 65001"));
    }
    reserved_asn("spec.as", asn, &mut problems);
    for (rack, asn) in &as_per_rack {
        reserved_asn(&format!("spec.asPerRack[{rack}]"), *asn, &mut problems);
    }
    let router_id = text(spec.router_id.as_deref()).and_then(|text| match text.parse::<Ipv4Addr>() {
        Ok(id) if id.is_unspecified() => {
            problems.push(SpecProblem::new(
                "spec.routerId",
                "0.0.0.0 is no BGP identifier",
                "leave it out, or use an IPv4 address",
            ));
            None
        }
        Ok(id) => Some(id),
        Err(_) => {
            let cause = format!("{text:?} is not of the form of an IPv4 address");
            problems.push(SpecProblem::new("spec.routerId", cause, "leave it out, or use an IPv4 address"));
            None
        }
    });
    let listen_port = match spec.listen_port.unwrap_or(0) {
        0 => 179,
        port => u16::try_from(port).unwrap_or_else(|_| {
            problems.push(SpecProblem::new(
                "spec.listenPort",
                format!("{port} is not a port"),
                "use 1 to 65535",
            ));
            0
        }),
    };
    let listen_addresses = spec.listen_addresses.iter().flatten().filter_map(|address| {
        address
            .trim()
            .parse()
            .map_err(|_| {
                let cause = format!("{address:?} is not an address");
                problems.push(SpecProblem::new(
                    "spec.listenAddresses",
                    cause,
                    "use addresses of the nodes, or leave it out",
                ));
            })
            .ok()
    });
    let listen_addresses = listen_addresses.collect();
    let next_hop_mode = parse_next_hop_mode(spec.next_hop_mode.as_deref(), &mut problems).unwrap_or_default();
    graceful_restart(spec.graceful_restart.as_ref(), &mut problems);
    let mut p = Problems { list: problems };
    let bfd_profiles = p.bfd_profiles(spec);
    if !p.list.is_empty() {
        return Err(p.list);
    }
    Ok(BgpConfParsed {
        asn,
        as_per_rack,
        router_id,
        listen_port,
        listen_addresses,
        next_hop_mode,
        graceful_restart: spec.graceful_restart.clone().unwrap_or_default(),
        policy: text(spec.policy.as_deref()).map(str::to_owned),
        bfd_profiles,
    })
}

pub(super) fn text(value: Option<&str>) -> Option<&str> {
    value.map(str::trim).filter(|value| !value.is_empty())
}

fn reserved_asn(field: &str, asn: u32, problems: &mut Vec<SpecProblem>) {
    if matches!(asn, 23_456 | 65_535 | u32::MAX) {
        let cause = format!("AS {asn} is reserved (RFC 6793, RFC 7300)");
        problems.push(SpecProblem::new(field, cause, "use another, for example of 64512 to 65534"));
    }
}

/// RFC 4724 §3: the restart time has 12 bits.
fn graceful_restart(graceful_restart: Option<&GracefulRestart>, problems: &mut Vec<SpecProblem>) {
    if let Some(time) = graceful_restart.and_then(|g| g.restart_time).filter(|time| *time > 4095) {
        let cause = format!("{time} seconds do not fit into 12 bits");
        problems.push(SpecProblem::new("spec.gracefulRestart.restartTime", cause, "use at most 4095"));
    }
}

fn parse_next_hop_mode(value: Option<&str>, problems: &mut Vec<SpecProblem>) -> Option<NextHopMode> {
    match text(value) {
        None => None,
        Some("Auto") => Some(NextHopMode::Auto),
        Some("Self") => Some(NextHopMode::SelfOnly),
        Some("AllNodes") => Some(NextHopMode::AllNodes),
        Some(other) => {
            problems.push(SpecProblem::new(
                "spec.nextHopMode",
                format!("{other:?} is not known"),
                "use Auto, Self or AllNodes",
            ));
            None
        }
    }
}

/// Validates a BgpPeer.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_peer(spec: &BgpPeerSpec) -> Result<PeerSpec, Vec<SpecProblem>> {
    let mut p = Problems::default();
    let conf = spec.conf.clone().unwrap_or_default();
    let transport = spec.transport.clone().unwrap_or_default();
    let interface =
        text(transport.bind_interface.as_deref()).or_else(|| text(conf.neighbor_interface.as_deref()));
    let (neighbor, zone) = p.neighbor(text(conf.neighbor_address.as_deref()), interface);
    for (field, asn) in [("spec.conf.peerAs", conf.peer_as), ("spec.conf.localAs", conf.local_as)] {
        reserved_asn(field, asn.unwrap_or(0), &mut p.list);
    }
    let timers = spec.timers.clone().and_then(|t| t.config).unwrap_or_default();
    let hold_time =
        p.seconds("spec.timers.config.holdTime", timers.hold_time.as_deref(), 65_535).unwrap_or(30);
    let keepalive =
        p.seconds("spec.timers.config.keepaliveInterval", timers.keepalive_interval.as_deref(), 65_535);
    let connect_retry = p.seconds("spec.timers.config.connectRetry", timers.connect_retry.as_deref(), 65_535);
    if matches!(hold_time, 1 | 2) {
        p.push(
            "spec.timers.config.holdTime",
            format!("{hold_time} seconds"),
            "use 0, or at least 3 (RFC 4271 §4.2)",
        );
    }
    // As with GoBGP, 0 is the default. Without keepalives the neighbour would end the session again and again.
    let keepalive = keepalive.filter(|s| *s > 0).unwrap_or_else(|| (hold_time / 3).min(10));
    if hold_time > 0 && keepalive >= hold_time {
        let cause = format!("{keepalive} seconds are not less than the hold time, {hold_time}");
        p.push("spec.timers.config.keepaliveInterval", cause, "use a third of the hold time");
    }
    let multihop = spec.ebgp_multihop.clone().unwrap_or_default();
    let multihop_ttl = multihop.enabled.unwrap_or(false).then(|| match multihop.multihop_ttl.unwrap_or(0) {
        0 => 255,
        ttl => u8::try_from(ttl).unwrap_or_else(|_| {
            p.push("spec.ebgpMultihop.multihopTtl", format!("{ttl} is no TTL"), "use 1 to 255");
            255
        }),
    });
    let ttl_security_hops =
        transport.ttl_security.as_ref().map(|security| match security.hops.unwrap_or(1) {
            hops @ 1..=254 => u8::try_from(hops).unwrap_or(1),
            hops => {
                p.push("spec.transport.ttlSecurity.hops", format!("{hops} is out of range"), "use 1 to 254");
                1
            }
        });
    if ttl_security_hops.is_some() && multihop_ttl.is_some() {
        p.push("spec.transport.ttlSecurity", "it excludes ebgpMultihop", "leave one of them out");
    }
    let port = match transport.remote_port.unwrap_or(0) {
        0 => 179,
        port => u16::try_from(port).unwrap_or_else(|_| {
            p.push("spec.transport.remotePort", format!("{port} is not a port"), "use 1 to 65535");
            179
        }),
    };
    let local_address =
        text(transport.local_address.as_deref()).and_then(|address| match address.parse::<IpAddr>() {
            Ok(address) => Some(address),
            Err(_) => {
                p.push(
                    "spec.transport.localAddress",
                    format!("{address:?} is not an address"),
                    "use an address of the node",
                );
                None
            }
        });
    let node_selector = p.selector("spec.nodeSelector", spec.node_selector.as_ref());
    let next_hop_mode = parse_next_hop_mode(spec.next_hop_mode.as_deref(), &mut p.list);
    let keep_received_routes = match text(spec.received_routes.as_deref()) {
        None | Some("Count") => false,
        Some("Keep") => true,
        Some(other) => {
            p.push("spec.receivedRoutes", format!("{other:?} is not known"), "use Count or Keep");
            false
        }
    };
    p.prefix_limit(spec.prefix_limit.as_ref());
    graceful_restart(spec.graceful_restart.as_ref(), &mut p.list);
    let password_secret = spec.password_secret_ref.as_ref().map(|reference| {
        let name = text(reference.name.as_deref()).unwrap_or_default().to_owned();
        if name.is_empty() {
            p.push("spec.passwordSecretRef.name", "is missing", "name a Secret of OpenELB's namespace");
        }
        (name, text(reference.key.as_deref()).unwrap_or("password").to_owned())
    });
    let bfd_written = p.bfd(spec);
    let families = p.families(spec.afi_safis.as_deref().unwrap_or_default());
    let advertisements = spec.advertisements.as_ref().map(|rules| p.advertisements(rules));
    let policies = spec.policies.clone().unwrap_or_default();
    for (field, value) in
        [("defaultImport", &policies.default_import), ("defaultExport", &policies.default_export)]
    {
        if let Some(other) = text(value.as_deref()).filter(|v| !["accept", "reject"].contains(v)) {
            p.push(
                &format!("spec.policies.{field}"),
                format!("{other:?} is not known"),
                "use accept or reject",
            );
        }
    }
    let tcp_mss = transport.tcp_mss.filter(|mss| *mss > 0).and_then(|mss| {
        let small = u16::try_from(mss).ok();
        if small.is_none() {
            p.push("spec.transport.tcpMss", format!("{mss} is too big"), "use at most 65535");
        }
        small
    });
    match neighbor {
        Some(neighbor) if p.list.is_empty() => Ok(PeerSpec {
            neighbor,
            description: text(conf.description.as_deref()).map(str::to_owned),
            port,
            asn: conf.peer_as.filter(|asn| *asn != 0),
            local_asn: conf.local_as.filter(|asn| *asn != 0),
            admin_down: conf.admin_down.unwrap_or(false),
            passive: transport.passive_mode.unwrap_or(false) || matches!(neighbor, Neighbor::Prefix(_)),
            multihop_ttl,
            ttl_security_hops,
            hold_time: Duration::from_secs(hold_time),
            keepalive: Duration::from_secs(keepalive),
            connect_retry: connect_retry.filter(|s| *s > 0).map(Duration::from_secs),
            local_address,
            bind_interface: zone.or_else(|| text(transport.bind_interface.as_deref()).map(str::to_owned)),
            tcp_mss,
            graceful_restart: spec.graceful_restart.clone(),
            families,
            node_selector,
            next_hop_mode,
            keep_received_routes,
            prefix_limit: spec.prefix_limit.clone(),
            password_secret,
            password: conf
                .auth_password
                .filter(|password| !password.expose().is_empty())
                .map(|password| Password::new(password.expose())),
            link_failover: spec.link_failover.unwrap_or(true),
            bfd: bfd_written.under(&BfdTimers::default()),
            bfd_written,
            advertisements,
            policies,
        }),
        _ => Err(p.list),
    }
}

/// What was found wrong so far.
#[derive(Default)]
pub(super) struct Problems {
    list: Vec<SpecProblem>,
}

impl Problems {
    pub(super) fn push(&mut self, field: &str, cause: impl Into<String>, remedy: &str) {
        self.list.push(SpecProblem::new(field, cause, remedy));
    }

    /// Who it is, and the interface of a link-local address.
    fn neighbor(
        &mut self,
        address: Option<&str>,
        interface: Option<&str>,
    ) -> (Option<Neighbor>, Option<String>) {
        const FIELD: &str = "spec.conf.neighborAddress";
        const REMEDY: &str = "use the router's address, or a prefix for dynamic neighbours";
        let Some(written) = address else {
            self.push(FIELD, "is missing", REMEDY);
            return (None, None);
        };
        // RFC 4007 section 11: the zone of a link-local address is the interface.
        let (address, zone) = match written.split_once('%') {
            Some((address, zone)) => (address, Some(zone)),
            None => (written, None),
        };
        let parsed = if address.contains('/') {
            address.parse::<IpNet>().ok().map(|net| Neighbor::Prefix(net.trunc()))
        } else {
            address.parse::<IpAddr>().ok().map(Neighbor::Address)
        };
        let link_local = match parsed {
            None => {
                self.push(FIELD, format!("{written:?} is not an address"), REMEDY);
                return (None, None);
            }
            Some(Neighbor::Address(ip)) if ip.is_unspecified() || ip.is_multicast() => {
                self.push(FIELD, format!("{ip} cannot be a neighbour"), REMEDY);
                return (None, None);
            }
            Some(Neighbor::Address(IpAddr::V6(ip))) => ip.is_unicast_link_local(),
            Some(_) => false,
        };
        if zone.is_some() && !link_local {
            self.push(FIELD, format!("{written:?}: only a link-local address has a zone"), REMEDY);
        } else if let (Some(zone), Some(interface)) = (zone, interface)
            && zone != interface
        {
            let cause = format!("{written:?} is on another interface than {interface}");
            self.push(FIELD, cause, "name one of them");
        } else if link_local && zone.or(interface).is_none() {
            let cause = format!("{written} is a link-local address, and its interface is not known");
            self.push(FIELD, cause, "name it in conf.neighborInterface");
        }
        let zone = zone.or(interface).filter(|_| link_local).map(str::to_owned);
        (parsed, zone)
    }

    fn seconds(&mut self, field: &str, value: Option<&str>, maximum: u64) -> Option<u64> {
        let value = text(value)?;
        match value.parse::<u64>() {
            Ok(seconds) if seconds <= maximum => Some(seconds),
            Ok(seconds) => {
                self.push(
                    field,
                    format!("{seconds} seconds are too many"),
                    &format!("use at most {maximum}"),
                );
                None
            }
            Err(_) => {
                self.push(
                    field,
                    format!("{value:?} is not a number of seconds"),
                    "write decimal seconds, for example \"30\"",
                );
                None
            }
        }
    }

    fn selector(
        &mut self,
        field: &str,
        selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    ) -> Selector {
        selector.map_or_else(Selector::default, |selector| {
            Selector::parse(selector).unwrap_or_else(|error| {
                self.push(field, error.to_string(), "correct the expression");
                Selector::default()
            })
        })
    }

    fn prefix_limit(&mut self, limit: Option<&PrefixLimit>) {
        let Some(limit) = limit else { return };
        if limit.max_prefixes.unwrap_or(0) == 0 {
            self.push(
                "spec.prefixLimit.maxPrefixes",
                "is missing or 0",
                "say how many prefixes of a family are allowed",
            );
        }
        if limit.warning_percent.is_some_and(|percent| !(1..=100).contains(&percent)) {
            self.push("spec.prefixLimit.warningPercent", "is out of range", "use 1 to 100");
        }
        if let Some(other) = text(limit.action.as_deref()).filter(|v| !["Cease", "Warn"].contains(v)) {
            self.push("spec.prefixLimit.action", format!("{other:?} is not known"), "use Cease or Warn");
        }
        if let Some(time) = text(limit.restart_time.as_deref()) {
            self.duration("spec.prefixLimit.restartTime", time);
        }
    }

    pub(super) fn duration(&mut self, field: &str, value: &str) -> Option<Duration> {
        duration::parse(value)
            .map_err(|error| self.push(field, error.to_string(), "write for example 300ms, 10s or 5m"))
            .ok()
    }

    fn families(&mut self, afi_safis: &[AfiSafi]) -> Vec<PeerFamily> {
        let mut families: Vec<PeerFamily> = Vec::new();
        for (index, afi_safi) in afi_safis.iter().enumerate() {
            let Some(config) = afi_safi.config.as_ref() else { continue };
            let family = config.family.clone().unwrap_or_default();
            if config.enabled == Some(false) {
                continue;
            }
            let field = format!("spec.afiSafis[{index}].config.family");
            if !matches!(text(family.safi.as_deref()), None | Some("SAFI_UNICAST")) {
                self.push(&field, "only SAFI_UNICAST is spoken", "use SAFI_UNICAST");
                continue;
            }
            let v6 = match text(family.afi.as_deref()) {
                None | Some("AFI_IP") => false,
                Some("AFI_IP6") => true,
                Some(other) => {
                    self.push(&field, format!("{other:?} is not known"), "use AFI_IP or AFI_IP6");
                    continue;
                }
            };
            let paths = afi_safi.add_paths.clone().and_then(|a| a.config).unwrap_or_default();
            let add_path_send = u8::try_from(paths.send_max.unwrap_or(0)).unwrap_or_else(|_| {
                self.push(
                    &format!("spec.afiSafis[{index}].addPaths.config.sendMax"),
                    "is out of range",
                    "use 0 to 255",
                );
                255
            });
            let graceful_restart =
                afi_safi.mp_graceful_restart.as_ref().and_then(|g| g.config.as_ref()).and_then(|c| c.enabled);
            let family = PeerFamily {
                v6,
                add_path_send,
                add_path_receive: paths.receive.unwrap_or(false),
                graceful_restart: graceful_restart.unwrap_or(true),
            };
            if !families.iter().any(|known| known.v6 == v6) {
                families.push(family);
            }
        }
        families
    }

    fn communities<T>(
        &mut self,
        field: &str,
        texts: Option<&[String]>,
        parse: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Vec<T> {
        let mut parsed = Vec::new();
        for text in texts.unwrap_or_default() {
            match parse(text.trim()) {
                Ok(community) => parsed.push(community),
                Err(remedy) => self.push(field, format!("{text:?} is none"), remedy),
            }
        }
        parsed
    }

    fn advertisements(&mut self, rules: &[Advertisement]) -> Vec<AdvertisementSpec> {
        let mut parsed = Vec::with_capacity(rules.len());
        for (index, rule) in rules.iter().enumerate() {
            let field = |name: &str| format!("spec.advertisements[{index}].{name}");
            let communities =
                self.communities(&field("communities"), rule.communities.as_deref(), community::standard);
            let large = self.communities(
                &field("largeCommunities"),
                rule.large_communities.as_deref(),
                community::large,
            );
            let extended = self.communities(
                &field("extCommunities"),
                rule.ext_communities.as_deref(),
                community::extended,
            );
            if rule.as_path_prepend.is_some_and(|times| times > 16) {
                self.push(&field("asPathPrepend"), "is out of range", "use 0 to 16");
            }
            for (name, length, maximum) in [
                ("aggregationLength", rule.aggregation_length, 32),
                ("aggregationLengthV6", rule.aggregation_length_v6, 128),
            ] {
                if length.is_some_and(|length| length == 0 || length > maximum) {
                    self.push(&field(name), "is out of range", &format!("use 1 to {maximum}"));
                }
            }
            let service_selector = self.selector(&field("serviceSelector"), rule.service_selector.as_ref());
            let node_selector = self.selector(&field("nodeSelector"), rule.node_selector.as_ref());
            let length = |length: Option<u32>, host: u8| {
                length.and_then(|length| u8::try_from(length).ok()).filter(|length| *length < host)
            };
            parsed.push(AdvertisementSpec {
                service_selector,
                node_selector,
                communities,
                large_communities: large,
                extended_communities: extended,
                aggregation_length: length(rule.aggregation_length, 32),
                aggregation_length_v6: length(rule.aggregation_length_v6, 128),
                rule: rule.clone(),
            });
        }
        parsed
    }
}
