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
        Advertisement, BfdConfig, FamilyConfig, GracefulRestartConfig, LastError, LimitAction, ListenerState,
        ListenerStatus, NextHop, PeerConfig, PeerName, PeerScope, PeerStatus, PeersSnapshot,
        PrefixLimit, ReceivedRoutes, RouteAttributes, RouteStatus, RoutesSnapshot,
    },
    wire::Family,
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
};

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

fn peer(name: &str, spec: Value) -> Value {
    object("BgpPeer", name, json!({"spec": spec}))
}

/// A minimal `BgpPeer` with `extra` merged into its spec.
fn spec(extra: &Value) -> Value {
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
    let peers = config::peers(&desired.bgp.unwrap_or_else(|| panic!("{extra}")), Start::default());
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
        (json!({"conf": {"peerAs": 0}}), |p| p.asn == 0),
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

#[test]
fn every_setting_without_effect_is_named() {
    let table = [
        (json!({"conf": {"peerGroup": "x"}}), "spec.conf.peerGroup"),
        (json!({"conf": {"removePrivateAs": "ALL"}}), "spec.conf.removePrivateAs"),
        (json!({"conf": {"routeFlapDamping": true}}), "spec.conf.routeFlapDamping"),
        (json!({"conf": {"sendCommunity": 1}}), "spec.conf.sendCommunity"),
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
        (
            json!({"afiSafis": [{}, {"mpGracefulRestart": {"config": {"enabled": false}}}]}),
            "spec.afiSafis[1].mpGracefulRestart",
        ),
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
        json!({"conf": {"neighborAddress": "fe80::1", "neighborInterface": "eth0"}}),
        json!({"conf": {"neighborAddress": "fe80::1%eth0"}}),
        json!({"transport": {"ttlSecurity": {"hops": 1}}}),
        json!({"gracefulRestart": {"enabled": true, "restartTime": 120}}),
        json!({"afiSafis": [{"mpGracefulRestart": {"config": {"enabled": true}}}]}),
        json!({"afiSafis": [{"mpGracefulRestart": {"config": {"enabled": false}}}]}),
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
        config::peers(&desired.bgp.unwrap(), Start { forwarding_preserved: true });
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

/// Three nodes, a dual-stack pool, two Services; `conf` and `peers` as given.
fn world(conf_spec: Value, peers: impl IntoIterator<Item = Value>, rack_of_node_3: &str) -> Announcements {
    let service = |name: &str, labels: Value, address: &str| {
        object(
            "Service",
            name,
            json!({
                "metadata": {"namespace": "default", "labels": labels, "annotations": {"lb.kubesphere.io/v1alpha1": "openelb"}},
                "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
                "status": {"loadBalancer": {"ingress": [{"ip": address}]}},
            }),
        )
    };
    let rack = |rack: &str| json!({"openelb.kubesphere.io/rack": rack});
    let mut objects = vec![
        conf(conf_spec),
        node(NODE, &["192.0.2.10", "2001:db8::10"], rack("a")),
        node("node-2", &["192.0.2.11", "2001:db8::11"], rack("a")),
        node("node-3", &["192.0.2.12"], rack(rack_of_node_3)),
        object("Eip", "web", json!({"spec": {"address": "203.0.113.0/24, 2001:db8:100::/64"}})),
        service("a", json!({"tier": "web"}), "203.0.113.1"),
        service("b", json!({"tier": "db"}), "2001:db8:100::1"),
    ];
    objects.extend(peers);
    announcements(objects)
}

/// Prefix, path identifier and next hop of each route.
fn simplified(routes: &[openelb_bgp::speaker::Route]) -> Vec<(String, u32, NextHop)> {
    routes.iter().map(|route| (route.prefix.to_string(), route.path_id, route.next_hop)).collect()
}

#[test]
fn next_hops_self() {
    for mode in [
        json!({"as": 65000}),
        json!({"as": 65000, "nextHopMode": "Auto"}),
        json!({"as": 65000, "nextHopMode": "Self"}),
    ] {
        let desired = world(mode, [peer("tor", spec(&json!({})))], "a");
        let by_source = routes::routes(&desired, &Arc::default()).sources;
        let own = NextHop::SelfAddress;
        let expected = vec![
            ("203.0.113.1/32".to_owned(), path_identifier("self/192.0.2.10") & 0x7fff_ffff, own),
            ("2001:db8:100::1/128".to_owned(), path_identifier("self/2001:db8::10") & 0x7fff_ffff, own),
        ];
        assert_eq!(simplified(&by_source[SELF]), expected);
        assert!(by_source[SELF].iter().all(|route| route.scope == PeerScope::All));
        assert_eq!(by_source[ALL_NODES], []);
        assert_eq!(
            routes::own_addresses(&desired),
            (Some(Ipv4Addr::new(192, 0, 2, 10)), Some("2001:db8::10".parse().unwrap()))
        );
    }
}

#[test]
fn next_hops_all_nodes_of_the_rack_and_the_family() {
    let all = json!({"as": 65000, "nextHopMode": "AllNodes"});
    let address = |text: &str| NextHop::Address(text.parse().unwrap());
    let v4 = |own: &str| ("203.0.113.1/32".to_owned(), path_identifier(own));
    let v6 = |own: &str| ("2001:db8:100::1/128".to_owned(), path_identifier(own));
    let with = |(prefix, id): (String, u32), next_hop| (prefix, id, next_hop);
    let desired = world(all.clone(), [peer("tor", spec(&json!({})))], "a");
    let mut expected = vec![
        with(v4("192.0.2.10"), NextHop::SelfAddress),
        with(v4("192.0.2.11"), address("192.0.2.11")),
        with(v4("192.0.2.12"), address("192.0.2.12")),
        with(v6("2001:db8::10"), NextHop::SelfAddress),
        // node-3 has no IPv6 address.
        with(v6("2001:db8::11"), address("2001:db8::11")),
    ];
    expected.sort();
    let mut found = simplified(&routes::routes(&desired, &Arc::default()).sources[ALL_NODES]);
    found.sort();
    assert_eq!(found, expected);

    let desired = world(all, [peer("tor", spec(&json!({})))], "b");
    let found = simplified(&routes::routes(&desired, &Arc::default()).sources[ALL_NODES]);
    assert!(!found.iter().any(|(_, _, hop)| *hop == address("192.0.2.12")), "another rack: {found:?}");
    assert_eq!(found.len(), 4);
}

#[test]
fn peers_with_different_modes_and_rules_hear_different_routes() {
    let other = |address: &str, extra: Value| {
        let mut spec = spec(&extra);
        spec["conf"]["neighborAddress"] = json!(address);
        spec
    };
    let rules = json!({"advertisements": [
        {"poolNames": ["web"], "serviceSelector": {"matchLabels": {"tier": "web"}}, "communities": ["65000:1"], "med": 5},
        {"communities": ["no-export"], "localPreference": 200, "asPathPrepend": 2, "med": 6,
         "nodeSelector": {"matchLabels": {"openelb.kubesphere.io/rack": "a"}},
         "serviceSelector": {"matchLabels": {"tier": "web"}}},
        {"nodeSelector": {"matchLabels": {"no": "node"}}},
    ]});
    let desired = world(
        json!({"as": 65000}),
        [
            peer("plain", spec(&json!({}))),
            peer("all", other("192.0.2.2", json!({"nextHopMode": "AllNodes"}))),
            peer("ruled", other("192.0.2.3", rules)),
        ],
        "a",
    );
    let base = RouteAttributes { communities: vec![0xffff_0000], ..RouteAttributes::default() };
    let by_source = routes::routes(&desired, &Arc::new(base)).sources;
    let only = |name: &str| PeerScope::Only(Arc::new(BTreeSet::from([PeerName::from(name)])));
    assert!(by_source[SELF].iter().all(|route| route.scope == only("plain")), "{:?}", by_source[SELF]);
    assert!(by_source[ALL_NODES].iter().all(|route| route.scope == only("all")));
    // A speaker has one route of a prefix and identifier: sources must not hide each other's.
    let keys: Vec<_> = by_source.values().flatten().map(openelb_bgp::speaker::Route::key).collect();
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len(), "{keys:?}");
    let ruled = &by_source["peer/ruled"];
    assert_eq!(ruled.len(), 1, "only the Service that a rule matches: {ruled:?}");
    assert_eq!(ruled[0].prefix.to_string(), "203.0.113.1/32");
    assert_eq!(ruled[0].scope, only("ruled"));
    let attributes = &ruled[0].attributes;
    assert_eq!(
        attributes.communities,
        [0xfde8_0001, 0xffff_0000, 0xffff_ff01],
        "united, with those of the base"
    );
    assert_eq!((attributes.med, attributes.local_pref, attributes.as_path_prepend), (Some(5), Some(200), 2));
}

/// The world with four Services in one /24 and two in one /64; node-1 has endpoints of all but `without`.
fn crowd(peers: impl IntoIterator<Item = Value>, without: &[&str]) -> Announcements {
    let mut objects = vec![
        conf(json!({"as": 65000})),
        node(NODE, &["192.0.2.10", "2001:db8::10"], json!({})),
        node("node-2", &["192.0.2.11", "2001:db8::11"], json!({})),
        object("Eip", "web", json!({"spec": {"address": "203.0.112.0/23, 2001:db8:100::/64"}})),
    ];
    let services = [
        ("a", "203.0.113.1", "web"),
        ("b", "203.0.113.2", "web"),
        ("c", "203.0.112.3", "web"),
        ("d", "203.0.113.200", "db"),
        ("e", "2001:db8:100::1", "web"),
        ("f", "2001:db8:100::2", "web"),
    ];
    for (name, address, tier) in services {
        objects.push(object(
            "Service",
            name,
            json!({
                "metadata": {"namespace": "default", "labels": {"tier": tier}, "annotations": {"lb.kubesphere.io/v1alpha1": "openelb"}},
                "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]},
                "status": {"loadBalancer": {"ingress": [{"ip": address}]}},
            }),
        ));
        let mut on = vec![json!({"addresses": ["10.0.0.1"], "nodeName": "node-2"})];
        if !without.contains(&name) {
            on.push(json!({"addresses": ["10.0.0.2"], "nodeName": NODE}));
        }
        let mut slice = object(
            "EndpointSlice",
            name,
            json!({"addressType": "IPv4", "endpoints": on, "metadata": {"namespace": "default", "labels": {"kubernetes.io/service-name": name}}}),
        );
        slice["apiVersion"] = json!("discovery.k8s.io/v1");
        objects.push(slice);
    }
    objects.extend(peers);
    announcements(objects)
}

#[test]
fn an_aggregate_lives_while_any_specific_of_it_does_and_stands_for_it() {
    let rules = json!({"advertisements": [
        {"aggregationLength": 24, "aggregationLengthV6": 64, "serviceSelector": {"matchLabels": {"tier": "web"}},
         "communities": ["65000:1"], "med": 5},
        {"communities": ["65000:2"], "med": 6},
    ]});
    let announced = |without: &[&str]| {
        let desired = crowd([peer("ruled", spec(&rules))], without);
        let plan = routes::routes(&desired, &Arc::default());
        let routes = plan.sources["peer/ruled"].clone();
        let prefixes: Vec<String> = routes.iter().map(|route| route.prefix.to_string()).collect();
        (prefixes.join(" "), routes, plan.warnings, desired)
    };
    let (prefixes, routes, warnings, desired) = announced(&[]);
    assert_eq!(prefixes, "203.0.112.0/24 203.0.113.0/24 203.0.113.200/32 2001:db8:100::/64");
    let communities = |index: usize| routes[index].attributes.communities.clone();
    assert_eq!(communities(1), [0xfde8_0001, 0xfde8_0002], "what the rules of its addresses say, united");
    assert_eq!(communities(2), [0xfde8_0002]);
    assert_eq!(routes[1].attributes.med, Some(5), "the first rule's");
    assert!(
        warnings["ruled"]
            .contains("spec.advertisements[0] and [1] give 203.0.112.0/24 different values of med"),
        "{warnings:?}"
    );
    let a = "203.0.113.1".parse().unwrap();
    let wider = routes::aggregates(&desired, a, &desired.addresses[&a]);
    assert_eq!(wider.iter().map(ToString::to_string).collect::<Vec<_>>(), ["203.0.113.0/24"]);

    // One specific less changes nothing; the last one takes the aggregate with it.
    assert_eq!(announced(&["a"]).1, routes);
    assert_eq!(announced(&["a", "b"]).0, "203.0.112.0/24 203.0.113.200/32 2001:db8:100::/64");
    assert_eq!(announced(&["a", "b", "c", "d"]).0, "2001:db8:100::/64");
    assert_eq!(announced(&["e"]).1, routes);
    assert_eq!(announced(&["a", "b", "c", "d", "e", "f"]).0, "");

    // An address that is not announced from here is not part of the aggregate, alive as that may be.
    let (_, _, _, desired) = announced(&["a"]);
    assert_eq!(routes::aggregates(&desired, a, &desired.addresses[&a]), BTreeSet::new());
}

#[test]
fn an_aggregate_has_every_nodes_path_and_only_where_it_is_asked_for() {
    let other = |address: &str, extra: Value| {
        let mut spec = spec(&extra);
        spec["conf"]["neighborAddress"] = json!(address);
        spec
    };
    let aggregate = json!([{"aggregationLength": 24, "aggregationLengthV6": 128}]);
    let desired = crowd(
        [
            peer("plain", spec(&json!({}))),
            peer("all", other("192.0.2.2", json!({"nextHopMode": "AllNodes", "advertisements": aggregate}))),
            peer("host", other("192.0.2.3", json!({"advertisements": [{"aggregationLength": 32}]}))),
        ],
        &["a", "b", "d"],
    );
    let plan = routes::routes(&desired, &Arc::default());
    assert_eq!(plan.warnings, BTreeMap::new());
    let told = |source: &str| -> Vec<(String, NextHop)> {
        plan.sources[source].iter().map(|route| (route.prefix.to_string(), route.next_hop)).collect()
    };
    let hosts: Vec<String> = told(SELF).into_iter().map(|(prefix, _)| prefix).collect();
    assert_eq!(hosts, ["203.0.112.3/32", "2001:db8:100::1/128", "2001:db8:100::2/128"]);
    assert_eq!(told("peer/host"), told(SELF), "a prefix of one address is that address");
    let of_24: Vec<NextHop> = told("peer/all")
        .into_iter()
        .filter(|(prefix, _)| prefix == "203.0.113.0/24")
        .map(|(_, hop)| hop)
        .collect();
    assert_eq!(of_24, [NextHop::Address("192.0.2.11".parse().unwrap())], "only node-2 has endpoints there");
    let of_24: Vec<NextHop> = told("peer/all")
        .into_iter()
        .filter(|(prefix, _)| prefix == "203.0.112.0/24")
        .map(|(_, hop)| hop)
        .collect();
    assert_eq!(of_24, [NextHop::SelfAddress, NextHop::Address("192.0.2.11".parse().unwrap())]);
    assert!(told("peer/all").iter().any(|(prefix, _)| prefix == "2001:db8:100::1/128"));
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

#[test]
fn without_a_conf_there_are_no_routes_but_every_source() {
    let mut desired = world(json!({"as": 65000}), [peer("tor", spec(&json!({})))], "a");
    desired.bgp = None;
    let by_source = routes::routes(&desired, &Arc::default()).sources;
    assert_eq!(by_source, BTreeMap::from([(SELF.to_owned(), vec![]), (ALL_NODES.to_owned(), vec![])]));
}

#[test]
fn a_path_identifier_is_fnv_1a_of_the_text() {
    // Test vectors of the FNV authors.
    for (text, hash) in [("", 0x811c_9dc5), ("a", 0xe40c_292c), ("foobar", 0xbf9c_f968)] {
        assert_eq!(path_identifier(text), hash, "{text}");
    }
}

fn peer_status(name: &str, state: State, at: Instant) -> (PeerName, PeerStatus) {
    let address = "192.0.2.1".parse().unwrap();
    let status = PeerStatus {
        asn: 65001,
        local_asn: 65000,
        state,
        last_error: Some(LastError { reason: "hold timer expired".to_owned(), at }),
        ..PeerStatus::new(PeerName::from(name), address, at)
    };
    (status.name.clone(), status)
}

#[test]
fn status_says_to_whom_an_address_is_advertised_or_why_not() {
    let desired = world(json!({"as": 65000}), [peer("tor", spec(&json!({})))], "a");
    let now = Instant::now();
    let calendar = Calendar::new(now, "2026-01-02T03:04:05Z".parse::<Timestamp>().unwrap());
    let peers = PeersSnapshot {
        peers: BTreeMap::from([peer_status("tor", State::Active, now)]),
        listeners: vec![ListenerStatus {
            address: "0.0.0.0:179".parse().unwrap(),
            bound: None,
            state: ListenerState::Failed { error: "address in use".to_owned() },
        }],
        routes_complete: true,
        refused_connections: 0,
        clashes: Vec::new(),
    };
    let route = |prefix: &str, state| RouteStatus {
        prefix: prefix.parse().unwrap(),
        path_id: 1,
        peers: vec![(PeerName::from("tor"), state)],
    };
    let routes = RoutesSnapshot {
        routes: vec![
            route("203.0.113.1/32", Advertisement::Advertised),
            route("2001:db8:100::1/128", Advertisement::FamilyNotNegotiated),
        ]
        .into(),
    };
    let first = status::status(&desired, &peers, &routes, &AnnouncerStatus::default(), calendar, now);
    let v4 = &first.addresses[&("203.0.113.1".parse().unwrap(), openelb_k8s::announce::Protocol::Bgp)];
    assert!(v4.announced && v4.peers["tor"], "{v4:?}");
    let v6 = &first.addresses[&("2001:db8:100::1".parse().unwrap(), openelb_k8s::announce::Protocol::Bgp)];
    assert!(!v6.announced && v6.detail.contains("not negotiated this address family"), "{v6:?}");
    assert_eq!(first.problems.len(), 1);
    assert!(first.problems[0].message.contains("0.0.0.0:179"), "{:?}", first.problems);
    let session = &first.peers["tor"];
    assert_eq!(session.last_error.as_deref(), Some("hold timer expired"));
    assert_eq!(session.down_since.unwrap().to_string(), "2026-01-02T03:04:05Z");
    assert_eq!((session.hold_time, session.keepalive), (30, 10));

    // Later, with nothing changed, `since` stays; the counters are not a change either.
    let later = now + Duration::from_secs(60);
    let mut counted = peers;
    counted.peers.values_mut().for_each(|peer| peer.counters.received.keepalive += 3);
    let second = status::status(&desired, &counted, &routes, &first, calendar, later);
    assert_eq!(second.addresses, first.addresses);
    assert_ne!(second, first);
    assert!(status::is_same_but_for_counters(&second, &first));
    let third = status::status(&desired, &counted, &RoutesSnapshot::default(), &second, calendar, later);
    assert!(!status::is_same_but_for_counters(&third, &second));
    let v4 = &third.addresses[&("203.0.113.1".parse().unwrap(), openelb_k8s::announce::Protocol::Bgp)];
    assert_eq!(v4.since.unwrap().to_string(), "2026-01-02T03:05:05Z", "not announced since");
}
