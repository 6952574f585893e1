//! Tables over every field of `BgpConf` and `BgpPeer`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use openelb_bgp::{
    bfd,
    fsm::State,
    speaker::{
        Advertisement, BfdConfig, FamilyConfig, FamilyStatus, GracefulRestartConfig, LastError, LimitAction,
        ListenerState, ListenerStatus, NextHop, PathState, PeerConfig, PeerName, PeerScope, PeerStatus,
        PeersSnapshot, PrefixLimit, ReceivedRoutes, RouteAttributes, RouteStatus, RoutesSnapshot,
        SessionStatus,
    },
    wire::{Capability, Family, GracefulRestart},
};
use openelb_k8s::{
    announce::{Announcements, AnnouncerStatus},
    index::Indexes,
    object::Object,
    plan::{Settings, announcement},
};
use serde_json::{Value, json};

use super::{
    config::{self, Host, Peers, Start},
    routes::{self, ALL_NODES, SELF, path_identifier},
    status::{self, Calendar},
    unsupported,
    zones::{self, Zones},
};

pub(super) mod announced;
mod link_local;
mod told;

const NODE: &str = "node-1";

fn object(kind: &str, name: &str, body: Value) -> Value {
    let version = if kind == "Service" || kind == "Node" || kind == "Secret" {
        "v1"
    } else {
        "network.kubesphere.io/v1alpha2"
    };
    let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}});
    for (key, value) in body.as_object().unwrap() {
        if key == "metadata" {
            object["metadata"].as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        } else {
            object[key] = value.clone();
        }
    }
    object
}

fn node(name: &str, addresses: &[&str], labels: Value) -> Value {
    let addresses: Vec<Value> =
        addresses.iter().map(|a| json!({"type": "InternalIP", "address": a})).collect();
    object("Node", name, json!({"metadata": {"labels": labels}, "status": {"addresses": addresses}}))
}

fn announcements(objects: impl IntoIterator<Item = Value>) -> Announcements {
    let mut indexes = Indexes::default();
    for value in objects {
        let object = Object::from_value(value).unwrap().unwrap();
        indexes.apply(&object);
    }
    announcement::plan(&indexes, &Settings { node_name: NODE.to_owned(), ..Settings::default() })
}

fn conf(spec: Value) -> Value {
    object("BgpConf", "default", json!({"spec": spec}))
}

pub(super) fn peer(name: &str, spec: Value) -> Value {
    object("BgpPeer", name, json!({"spec": spec}))
}

/// A minimal `BgpPeer` with `extra` merged into its spec.
pub(super) fn spec(extra: &Value) -> Value {
    let mut spec = json!({"conf": {"neighborAddress": "192.0.2.1", "peerAs": 65001}});
    openelb_k8s::plan::merge_patch(&mut spec, extra);
    spec
}

fn restart(seconds: u64, notification: bool) -> GracefulRestartConfig {
    GracefulRestartConfig {
        restart_time: Duration::from_secs(seconds),
        restarting: true,
        forwarding_preserved: false,
        notification,
    }
}

fn translated(extra: &Value) -> PeerConfig {
    let desired = announcements([
        conf(json!({"as": 65000})),
        node(NODE, &["192.0.2.10"], json!({})),
        peer("tor", spec(extra)),
    ]);
    let peers =
        config::peers(&desired.bgp.unwrap_or_else(|| panic!("{extra}")), &Zones::default(), Start::default());
    assert!(peers.refused.is_empty(), "{extra}: {peers:?}");
    peers.known.into_iter().next().unwrap_or_else(|| panic!("{extra}"))
}

type Check = fn(&PeerConfig) -> bool;

#[test]
fn every_field_of_a_peer_that_has_an_effect() {
    let table: Vec<(Value, Check)> = vec![
        (json!({}), |p| p.name == PeerName::from("tor") && p.address == IpAddr::from([192, 0, 2, 1])),
        (json!({}), |p| {
            p.asn == 65001 && p.port == 179 && p.local_asn.is_none() && !p.passive && !p.admin_down
        }),
        (json!({}), |p| p.hold_time == Duration::from_secs(30) && p.keepalive == Duration::from_secs(10)),
        (json!({}), |p| p.multihop_ttl.is_none() && p.password.is_none() && p.ttl_security.is_none()),
        (json!({}), |p| p.bfd.is_none() && p.received_routes == ReceivedRoutes::Count && p.link_failover),
        // Graceful restart is on; the N bit only with BFD.
        (json!({}), |p| p.graceful_restart == Some(restart(60, false))),
        (json!({"gracefulRestart": {"enabled": true}}), |p| p.graceful_restart == Some(restart(60, false))),
        (json!({"gracefulRestart": {"restartTime": 120}}), |p| {
            p.graceful_restart == Some(restart(120, false))
        }),
        (json!({"gracefulRestart": {"restartTime": 0}}), |p| p.graceful_restart == Some(restart(60, false))),
        (json!({"gracefulRestart": {"notificationEnabled": true}}), |p| {
            p.graceful_restart == Some(restart(60, false))
        }),
        (json!({"bfd": {"enabled": true}}), |p| p.graceful_restart == Some(restart(60, true))),
        (json!({"bfd": {"enabled": true}, "gracefulRestart": {"notificationEnabled": false}}), |p| {
            p.graceful_restart == Some(restart(60, false))
        }),
        (json!({"gracefulRestart": {"enabled": false}}), |p| p.graceful_restart.is_none()),
        (json!({"gracefulRestart": {"helperOnly": true}}), |p| p.graceful_restart.is_none()),
        (
            json!({"afiSafis": [{"config": {"family": {"afi": "AFI_IP"}}, "mpGracefulRestart": {"config": {"enabled": false}}}]}),
            |p| p.graceful_restart.is_none(),
        ),
        (
            json!({"afiSafis": [{"config": {"family": {"afi": "AFI_IP"}}},
                {"config": {"family": {"afi": "AFI_IP6"}}, "mpGracefulRestart": {"config": {"enabled": false}}}]}),
            |p| {
                let on = |family: &FamilyConfig| (family.family, family.graceful_restart);
                p.graceful_restart.is_some()
                    && p.families
                        .iter()
                        .map(on)
                        .eq([(Family::IPV4_UNICAST, true), (Family::IPV6_UNICAST, false)])
            },
        ),
        (json!({"bfd": {"enabled": false, "passive": true}}), |p| p.bfd.is_none()),
        (json!({"bfd": {"enabled": true}}), |p| p.bfd.unwrap().timers == bfd::Timers::default()),
        (
            json!({"bfd": {"enabled": true, "detectMultiplier": 5, "receiveInterval": "50ms", "transmitInterval": "1s",
                "passive": true, "minimumTtl": 250}}),
            |p| {
                let timers = bfd::Timers {
                    detect_multiplier: 5,
                    desired_min_tx: Duration::from_secs(1),
                    required_min_rx: Duration::from_millis(50),
                    passive: true,
                };
                p.bfd == Some(BfdConfig { timers, minimum_ttl: Some(250) })
            },
        ),
        (json!({"linkFailover": false}), |p| !p.link_failover),
        (json!({"linkFailover": true}), |p| p.link_failover),
        (json!({"receivedRoutes": "Count"}), |p| p.received_routes == ReceivedRoutes::Count),
        (json!({"receivedRoutes": "Keep"}), |p| p.received_routes == ReceivedRoutes::Keep),
        (json!({}), |p| {
            p.families
                == [
                    FamilyConfig::with_add_path_send(Family::IPV4_UNICAST, 10),
                    FamilyConfig::with_add_path_send(Family::IPV6_UNICAST, 10),
                ]
        }),
        (json!({"conf": {"neighborAddress": "2001:db8::1"}}), |p| p.address.is_ipv6() && p.extended_next_hop),
        (json!({}), |p| !p.extended_next_hop && p.bind_interface.is_none()),
        (json!({"conf": {"neighborAddress": "fe80::1%eth0"}}), |p| {
            p.address == IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 1])
                && p.bind_interface.as_deref() == Some("eth0")
        }),
        (json!({"conf": {"neighborAddress": "fe80::1", "neighborInterface": "eth0"}}), |p| {
            p.bind_interface.as_deref() == Some("eth0")
        }),
        (json!({"conf": {"neighborAddress": "fe80::1"}, "transport": {"bindInterface": "eth0"}}), |p| {
            p.bind_interface.as_deref() == Some("eth0")
        }),
        (json!({"conf": {"peerAs": 0}}), |p| p.asn == 0 && p.external_only),
        (json!({}), |p| p.asn == 65001 && !p.external_only),
        (json!({"conf": {"peerAs": 4_200_000_000_u32}}), |p| p.asn == 4_200_000_000),
        (json!({"conf": {"localAs": 64999}}), |p| p.local_asn == Some(64999)),
        (json!({"conf": {"localAs": 0}}), |p| p.local_asn.is_none()),
        (json!({"conf": {"adminDown": true}}), |p| p.admin_down),
        (json!({"conf": {"description": "x"}}), |p| p.address == IpAddr::from([192, 0, 2, 1])),
        (json!({"conf": {"authPassword": "hunter2"}}), |p| {
            !p.admin_down && p.password.as_ref().is_some_and(|password| password.expose() == "hunter2")
        }),
        // Fails closed: no session without the protection that was asked for, and none with another one.
        (json!({"passwordSecretRef": {"name": "missing"}}), |p| p.admin_down && p.password.is_none()),
        (json!({"passwordSecretRef": {"name": "missing"}, "conf": {"authPassword": "hunter2"}}), |p| {
            p.admin_down && p.password.is_none()
        }),
        (json!({"ebgpMultihop": {"enabled": true, "multihopTtl": 5}}), |p| p.multihop_ttl == Some(5)),
        (json!({"ebgpMultihop": {"enabled": true}}), |p| p.multihop_ttl == Some(255)),
        (json!({"ebgpMultihop": {"enabled": false, "multihopTtl": 5}}), |p| p.multihop_ttl.is_none()),
        (json!({"timers": {"config": {"holdTime": "90"}}}), |p| p.hold_time == Duration::from_secs(90)),
        (json!({"timers": {"config": {"holdTime": "0"}}}), |p| p.hold_time.is_zero()),
        (json!({"timers": {"config": {"keepaliveInterval": "3"}}}), |p| {
            p.keepalive == Duration::from_secs(3)
        }),
        // As with GoBGP, 0 is the default.
        (json!({"timers": {"config": {"keepaliveInterval": "0"}}}), |p| {
            p.keepalive == Duration::from_secs(10)
        }),
        (json!({"timers": {"config": {"keepaliveInterval": "0", "holdTime": "9"}}}), |p| {
            p.keepalive == Duration::from_secs(3)
        }),
        (json!({"timers": {"config": {"connectRetry": "7"}}}), |p| p.connect_retry == Duration::from_secs(7)),
        (json!({"timers": {"config": {"connectRetry": "120"}}}), |p| {
            p.connect_retry_max == Duration::from_secs(120)
        }),
        (json!({"transport": {"passiveMode": true}}), |p| p.passive),
        (json!({"transport": {"remotePort": 1179}}), |p| p.port == 1179),
        (json!({"transport": {"localAddress": "192.0.2.10"}}), |p| {
            p.local_address == Some(IpAddr::from([192, 0, 2, 10]))
        }),
        (json!({"transport": {"bindInterface": "vrf-blue"}}), |p| {
            p.bind_interface.as_deref() == Some("vrf-blue")
        }),
        (json!({"transport": {"ttlSecurity": {"hops": 2}}}), |p| {
            p.ttl_security == Some(2) && p.multihop_ttl.is_none()
        }),
        (json!({"transport": {"ttlSecurity": {}}}), |p| p.ttl_security == Some(1)),
        (
            json!({"afiSafis": [{"config": {"family": {"afi": "AFI_IP", "safi": "SAFI_UNICAST"}, "enabled": true}}]}),
            |p| p.families == [FamilyConfig::new(Family::IPV4_UNICAST)],
        ),
        (
            json!({"afiSafis": [{"config": {"family": {"afi": "AFI_IP6", "safi": "SAFI_UNICAST"}},
                "addPaths": {"config": {"sendMax": 4, "receive": true}}}]}),
            |p| {
                p.families
                    == [FamilyConfig {
                        family: Family::IPV6_UNICAST,
                        add_path_send: 4,
                        add_path_receive: true,
                        graceful_restart: true,
                    }]
            },
        ),
        (json!({}), |p| p.prefix_limit == PrefixLimit::default()),
        (json!({"prefixLimit": {"maxPrefixes": 1000}}), |p| {
            p.prefix_limit == PrefixLimit { max_prefixes: 1000, ..PrefixLimit::default() }
        }),
        (
            json!({"prefixLimit": {"maxPrefixes": 1000, "warningPercent": 90, "action": "Warn", "restartTime": "5m"}}),
            |p| {
                p.prefix_limit
                    == PrefixLimit {
                        max_octets: None,
                        max_prefixes: 1000,
                        warning_percent: 90,
                        action: LimitAction::Warn,
                        restart_after: Some(Duration::from_secs(300)),
                    }
            },
        ),
    ];
    for (extra, check) in table {
        let translated = translated(&extra);
        assert!(check(&translated), "{extra}: {translated:?}");
    }
}

/// So the sessions stay: BFD changes in place, by a Poll Sequence.
#[test]
fn a_changed_bfd_profile_changes_the_timers_of_bfd_and_nothing_else() {
    let peer_of = |profile: Value| {
        let desired = announcements([
            conf(json!({"as": 65000, "bfdProfiles": {"fast": profile}})),
            node(NODE, &["192.0.2.10"], json!({})),
            peer("tor", spec(&json!({"bfd": {"enabled": true, "profile": "fast", "detectMultiplier": 5}}))),
        ]);
        config::peers(&desired.bgp.unwrap(), &Zones::default(), Start::default()).known.remove(0)
    };
    let mut before = peer_of(json!({"receiveInterval": "50ms", "transmitInterval": "60ms"}));
    let after = peer_of(json!({"receiveInterval": "100ms", "minimumTtl": 250}));
    let timers = |milliseconds: [u64; 2]| {
        let [receive, transmit] = milliseconds.map(Duration::from_millis);
        bfd::Timers {
            detect_multiplier: 5,
            required_min_rx: receive,
            desired_min_tx: transmit,
            passive: false,
        }
    };
    assert_eq!(before.bfd, Some(BfdConfig { timers: timers([50, 60]), minimum_ttl: None }));
    assert_eq!(after.bfd, Some(BfdConfig { timers: timers([100, 300]), minimum_ttl: Some(250) }));
    before.bfd = after.bfd;
    assert_eq!(before, after);
}

#[test]
fn every_setting_without_effect_is_named() {
    let table = [
        (json!({"conf": {"peerGroup": "x"}}), "spec.conf.peerGroup"),
        (json!({"conf": {"removePrivateAs": "ALL"}}), "spec.conf.removePrivateAs"),
        (json!({"conf": {"routeFlapDamping": true}}), "spec.conf.routeFlapDamping"),
        (json!({"conf": {"sendCommunity": 1}}), "spec.conf.sendCommunity"),
        (json!({"conf": {"peerType": 0, "localAs": 65000}}), "spec.conf.peerType"),
        (json!({"conf": {"peerType": 0, "peerAs": 0}}), "spec.conf.peerType"),
        (json!({"conf": {"peerType": 1, "localAs": 65001}}), "spec.conf.peerType"),
        (json!({"conf": {"peerType": 2}}), "spec.conf.peerType"),
        (json!({"conf": {"neighborInterface": "eth0"}}), "spec.conf.neighborInterface"),
        (json!({"conf": {"vrf": "blue"}}), "spec.conf.vrf"),
        (json!({"conf": {"allowOwnAs": 1}}), "spec.conf.allowOwnAs"),
        (json!({"conf": {"replacePeerAs": true}}), "spec.conf.replacePeerAs"),
        (
            json!({"timers": {"config": {"minimumAdvertisementInterval": "5"}}}),
            "spec.timers.config.minimumAdvertisementInterval",
        ),
        (json!({"transport": {"mtuDiscovery": false}}), "spec.transport.mtuDiscovery"),
        (json!({"transport": {"remoteAddress": "192.0.2.1"}}), "spec.transport.remoteAddress"),
        (json!({"transport": {"tcpMss": 1400}}), "spec.transport.tcpMss"),
        (
            json!({"gracefulRestart": {"notificationEnabled": true}}),
            "spec.gracefulRestart.notificationEnabled",
        ),
        (json!({"gracefulRestart": {"longlivedEnabled": true}}), "spec.gracefulRestart.longlivedEnabled"),
        (json!({"gracefulRestart": {"helperOnly": true}}), "spec.gracefulRestart.helperOnly"),
        (json!({"gracefulRestart": {"staleRoutesTime": 30}}), "spec.gracefulRestart.staleRoutesTime"),
        (json!({"gracefulRestart": {"deferralTime": 30}}), "spec.gracefulRestart.deferralTime"),
        (json!({"bfd": {"profile": "fast"}}), "spec.bfd.profile"),
        (json!({"policies": {"import": ["p"]}}), "spec.policies.import"),
        (json!({"policies": {"defaultImport": "reject"}}), "spec.policies.import"),
        (json!({"policies": {"export": ["p"]}}), "spec.policies.export"),
        (json!({"policies": {"defaultExport": "reject"}}), "spec.policies.export"),
    ];
    for (extra, field) in table {
        let notes = unsupported::of_peer(&serde_json::from_value(spec(&extra)).unwrap());
        let fields: Vec<&str> = notes.iter().map(|note| note.field.as_str()).collect();
        assert_eq!(fields, [field], "{extra}");
    }
    for nothing in [
        json!({}),
        json!({"bfd": {"enabled": true}, "gracefulRestart": {"notificationEnabled": true}}),
        json!({"conf": {"authPassword": "hunter2"}, "passwordSecretRef": {"name": "x"}}),
        json!({"conf": {"neighborAddress": "192.0.2.0/24"}}),
        json!({"conf": {"peerType": 0, "localAs": 65001}}),
        json!({"conf": {"peerType": 1, "localAs": 65000}}),
        json!({"conf": {"peerType": 1, "peerAs": 0}}),
        json!({"conf": {"peerType": 1}}),
        json!({"conf": {"neighborAddress": "fe80::1", "neighborInterface": "eth0"}}),
        json!({"conf": {"neighborAddress": "fe80::1%eth0"}}),
        json!({"transport": {"ttlSecurity": {"hops": 1}}}),
        json!({"gracefulRestart": {"enabled": true, "restartTime": 120}}),
        json!({"afiSafis": [{"mpGracefulRestart": {"config": {"enabled": true}}}]}),
        json!({"afiSafis": [{"mpGracefulRestart": {"config": {"enabled": false}}}]}),
        json!({"afiSafis": [{}, {"mpGracefulRestart": {"config": {"enabled": false}}}]}),
        json!({"receivedRoutes": "Keep"}),
        json!({"prefixLimit": {"maxPrefixes": 1, "action": "Warn", "warningPercent": 80, "restartTime": "5m"}}),
        json!({"advertisements": [{"aggregationLength": 24, "aggregationLengthV6": 64}]}),
    ] {
        assert_eq!(unsupported::of_peer(&serde_json::from_value(spec(&nothing)).unwrap()), [], "{nothing}");
    }

    let table = [
        (json!({"families": [65537]}), "spec.families"),
        (json!({"useMultiplePaths": true}), "spec.useMultiplePaths"),
        (json!({"gracefulRestart": {"longlivedEnabled": true}}), "spec.gracefulRestart.longlivedEnabled"),
        (json!({"policy": "gobgp"}), "spec.policy"),
    ];
    for (spec, field) in table {
        let notes = unsupported::of_conf(&serde_json::from_value(spec.clone()).unwrap());
        let fields: Vec<&str> = notes.iter().map(|note| note.field.as_str()).collect();
        assert_eq!(fields, [field], "{spec}");
    }
}

#[test]
fn every_field_of_the_conf_that_has_an_effect() {
    let rack = json!({"openelb.kubesphere.io/rack": "r1"});
    let speaker = |spec: Value, labels: &Value, has_ipv6| {
        let other = node("node-2", &["192.0.2.11"], json!({}));
        let desired = announcements([conf(spec), node(NODE, &["192.0.2.10"], labels.clone()), other]);
        config::speaker(&desired.bgp.unwrap(), Host { has_ipv6, ..Host::default() }, ["self".to_owned()])
    };
    let listen = |spec: Value, has_ipv6| -> Vec<String> {
        speaker(spec, &json!({}), has_ipv6).listen.iter().map(ToString::to_string).collect()
    };
    assert_eq!(listen(json!({"as": 65000}), true), ["0.0.0.0:179", "[::]:179"]);
    assert_eq!(listen(json!({"as": 65000}), false), ["0.0.0.0:179"]);
    assert_eq!(listen(json!({"as": 65000, "listenPort": 17900}), false), ["0.0.0.0:17900"]);
    let one = json!({"as": 65000, "listenAddresses": ["192.0.2.10"]});
    assert_eq!(listen(one, true), ["192.0.2.10:179"]);
    let of = |spec: Value, labels: &Value| {
        let config = speaker(spec, labels, false);
        (config.asn, config.router_id.to_string())
    };
    let plain = json!({});
    assert_eq!(of(json!({"as": 65000}), &plain), (65000, "192.0.2.10".to_owned()));
    // The identifier is only for the node that owns the address: others would clash.
    assert_eq!(of(json!({"as": 65000, "routerId": "192.0.2.11"}), &plain), (65000, "192.0.2.10".to_owned()));
    let racks = json!({"as": 65000, "asPerRack": {"r1": 65101}});
    assert_eq!(of(racks.clone(), &rack).0, 65101);
    assert_eq!(of(racks, &plain).0, 65000);
    assert_eq!(speaker(json!({"as": 65000}), &plain, false).sources, BTreeSet::from(["self".to_owned()]));
}

#[test]
fn a_node_selector_a_secret_and_a_neighbour_that_cannot_be() {
    let desired = announcements([
        conf(json!({"as": 65000})),
        node(NODE, &["192.0.2.10"], json!({"role": "edge"})),
        peer(
            "here",
            json!({"conf": {"neighborAddress": "192.0.2.1", "peerAs": 1}, "nodeSelector": {"matchLabels": {"role": "edge"}}}),
        ),
        peer(
            "not-here",
            json!({"conf": {"neighborAddress": "192.0.2.2", "peerAs": 1}, "nodeSelector": {"matchLabels": {"role": "core"}}}),
        ),
        peer("dynamic", json!({"conf": {"neighborAddress": "198.51.100.0/24", "peerAs": 1}})),
        peer("dynamic-twin", json!({"conf": {"neighborAddress": "198.51.100.7/24", "peerAs": 1}})),
        peer(
            "long",
            json!({"conf": {"neighborAddress": "192.0.2.9", "peerAs": 1, "authPassword": "x".repeat(81)}}),
        ),
        peer("twin", json!({"conf": {"neighborAddress": "192.0.2.1", "peerAs": 2}})),
        peer(
            "secret",
            json!({"conf": {"neighborAddress": "192.0.2.3", "peerAs": 1}, "passwordSecretRef": {"name": "tor", "key": "md5"}}),
        ),
        object(
            "Secret",
            "tor",
            json!({"metadata": {"namespace": "openelb-system"}, "stringData": {"md5": "hunter2"}}),
        ),
    ]);
    let Peers { known: peers, dynamic, refused } =
        config::peers(&desired.bgp.unwrap(), &Zones::default(), Start { forwarding_preserved: true });
    assert!(peers.iter().all(|peer| peer.graceful_restart.unwrap().forwarding_preserved));
    assert_eq!(dynamic.len(), 1, "{dynamic:?}");
    assert_eq!(dynamic[0].prefix.to_string(), "198.51.100.0/24");
    assert_eq!(dynamic[0].template.name, PeerName::from("dynamic"));
    assert!(dynamic[0].template.passive);
    let names: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
    assert_eq!(names, ["here", "secret"]);
    assert_eq!(refused.keys().map(String::as_str).collect::<Vec<_>>(), ["dynamic-twin", "long", "twin"]);
    assert!(!refused["long"].to_string().contains("xxxx"), "a password is never echoed");
    assert!(refused["twin"].cause.contains("BgpPeer here"), "{}", refused["twin"]);
    let secret = &peers[1];
    assert_eq!(secret.password.as_ref().unwrap().expose(), "hunter2");
    assert!(!format!("{secret:?}").contains("hunter2"), "a password is never echoed");
}

#[test]
fn what_cannot_be_parsed_says_what_to_write() {
    let table = [
        (json!({"advertisements": [{"communities": ["70000:1"]}]}), "spec.advertisements[0].communities"),
        (
            json!({"advertisements": [{"largeCommunities": ["1:2"]}]}),
            "spec.advertisements[0].largeCommunities",
        ),
        (
            json!({"advertisements": [{"extCommunities": ["rt:x:1"]}]}),
            "spec.advertisements[0].extCommunities",
        ),
        (json!({"advertisements": [{"aggregationLength": 33}]}), "spec.advertisements[0].aggregationLength"),
        (json!({"advertisements": [{"asPathPrepend": 17}]}), "spec.advertisements[0].asPathPrepend"),
        (json!({"bfd": {"enabled": true, "receiveInterval": "10ms"}}), "spec.bfd.receiveInterval"),
        (json!({"bfd": {"enabled": true, "transmitInterval": "61s"}}), "spec.bfd.transmitInterval"),
        (json!({"bfd": {"enabled": true, "transmitInterval": "soon"}}), "spec.bfd.transmitInterval"),
        (json!({"bfd": {"enabled": true, "detectMultiplier": 0}}), "spec.bfd.detectMultiplier"),
        (json!({"bfd": {"enabled": true, "minimumTtl": 256}}), "spec.bfd.minimumTtl"),
        (json!({"transport": {"ttlSecurity": {"hops": 255}}}), "spec.transport.ttlSecurity.hops"),
        (
            json!({"transport": {"ttlSecurity": {"hops": 1}}, "ebgpMultihop": {"enabled": true}}),
            "spec.transport.ttlSecurity",
        ),
        (json!({"gracefulRestart": {"restartTime": 4096}}), "spec.gracefulRestart.restartTime"),
        (json!({"conf": {"neighborAddress": "fe80::1"}}), "spec.conf.neighborAddress"),
        (json!({"conf": {"neighborAddress": "192.0.2.1%eth0"}}), "spec.conf.neighborAddress"),
        (
            json!({"conf": {"neighborAddress": "fe80::1%eth0", "neighborInterface": "eth1"}}),
            "spec.conf.neighborAddress",
        ),
        (
            json!({"prefixLimit": {"maxPrefixes": 1, "warningPercent": 101}}),
            "spec.prefixLimit.warningPercent",
        ),
        (json!({"receivedRoutes": "All"}), "spec.receivedRoutes"),
    ];
    for (extra, field) in table {
        let spec = serde_json::from_value(spec(&extra)).unwrap();
        let problems = openelb_k8s::index::peers::parse_peer(&spec).unwrap_err();
        let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, [field], "{extra}");
    }
}
