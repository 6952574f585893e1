//! Tables over every field of `BgpConf` and `BgpPeer`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use openelb_bgp::{
    fsm::State,
    speaker::{
        Advertisement, FamilyConfig, LastError, ListenerState, ListenerStatus, NextHop, PeerConfig, PeerName,
        PeerScope, PeerStatus, PeersSnapshot, RouteAttributes, RouteStatus, RoutesSnapshot,
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
    config::{self, Host},
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

fn translated(extra: &Value) -> PeerConfig {
    let desired = announcements([
        conf(json!({"as": 65000})),
        node(NODE, &["192.0.2.10"], json!({})),
        peer("tor", spec(extra)),
    ]);
    let (peers, refused) = config::peers(&desired.bgp.unwrap());
    assert!(refused.is_empty(), "{extra}: {refused:?}");
    peers.into_iter().next().unwrap()
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
        (json!({}), |p| p.multihop_ttl.is_none() && p.password.is_none() && p.graceful_restart.is_none()),
        (json!({}), |p| {
            p.families
                == [
                    FamilyConfig::with_add_path_send(Family::IPV4_UNICAST, 10),
                    FamilyConfig::with_add_path_send(Family::IPV6_UNICAST, 10),
                ]
        }),
        (json!({"conf": {"neighborAddress": "2001:db8::1"}}), |p| p.address.is_ipv6()),
        (json!({"conf": {"peerAs": 0}}), |p| p.asn == 0),
        (json!({"conf": {"peerAs": 4_200_000_000_u32}}), |p| p.asn == 4_200_000_000),
        (json!({"conf": {"localAs": 64999}}), |p| p.local_asn == Some(64999)),
        (json!({"conf": {"localAs": 0}}), |p| p.local_asn.is_none()),
        (json!({"conf": {"adminDown": true}}), |p| p.admin_down),
        (json!({"conf": {"description": "x"}}), |p| p.address == IpAddr::from([192, 0, 2, 1])),
        // Fails closed: no session without the protection that was asked for.
        (json!({"conf": {"authPassword": "hunter2"}}), |p| p.admin_down && p.password.is_some()),
        (json!({"passwordSecretRef": {"name": "missing"}}), |p| p.admin_down && p.password.is_none()),
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
        (json!({"transport": {"ttlSecurity": {"hops": 1}}}), |p| p.multihop_ttl == Some(255)),
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
        (json!({"prefixLimit": {"maxPrefixes": 1000}}), |p| p.prefix_limit.max_prefixes == 1000),
        (json!({"prefixLimit": {"maxPrefixes": 1000, "action": "Warn"}}), |p| {
            p.prefix_limit.max_prefixes > 1000
        }),
    ];
    for (extra, check) in table {
        let translated = translated(&extra);
        assert!(check(&translated), "{extra}: {translated:?}");
    }
}

#[test]
fn every_setting_without_effect_is_named() {
    let table = [
        (json!({"bfd": {"enabled": true}}), "spec.bfd"),
        (json!({"conf": {"authPassword": "hunter2"}}), "spec.conf.authPassword"),
        (json!({"conf": {"peerGroup": "x"}}), "spec.conf.peerGroup"),
        (json!({"conf": {"removePrivateAs": "ALL"}}), "spec.conf.removePrivateAs"),
        (json!({"conf": {"routeFlapDamping": true}}), "spec.conf.routeFlapDamping"),
        (json!({"conf": {"sendCommunity": 1}}), "spec.conf.sendCommunity"),
        (json!({"conf": {"neighborInterface": "eth0"}}), "spec.conf.neighborInterface"),
        (json!({"conf": {"vrf": "blue"}}), "spec.conf.vrf"),
        (json!({"conf": {"allowOwnAs": 1}}), "spec.conf.allowOwnAs"),
        (json!({"conf": {"replacePeerAs": true}}), "spec.conf.replacePeerAs"),
        (json!({"conf": {"neighborAddress": "192.0.2.0/24"}}), "spec.conf.neighborAddress"),
        (
            json!({"timers": {"config": {"minimumAdvertisementInterval": "5"}}}),
            "spec.timers.config.minimumAdvertisementInterval",
        ),
        (json!({"transport": {"mtuDiscovery": false}}), "spec.transport.mtuDiscovery"),
        (json!({"transport": {"remoteAddress": "192.0.2.1"}}), "spec.transport.remoteAddress"),
        (json!({"transport": {"tcpMss": 1400}}), "spec.transport.tcpMss"),
        (json!({"transport": {"ttlSecurity": {"hops": 1}}}), "spec.transport.ttlSecurity"),
        (json!({"gracefulRestart": {"enabled": true}}), "spec.gracefulRestart"),
        (
            json!({"afiSafis": [{"mpGracefulRestart": {"config": {"enabled": true}}}]}),
            "spec.afiSafis[0].mpGracefulRestart",
        ),
        (json!({"receivedRoutes": "Keep"}), "spec.receivedRoutes"),
        (json!({"prefixLimit": {"maxPrefixes": 1, "action": "Warn"}}), "spec.prefixLimit.action"),
        (json!({"prefixLimit": {"maxPrefixes": 1, "warningPercent": 80}}), "spec.prefixLimit.warningPercent"),
        (json!({"prefixLimit": {"maxPrefixes": 1, "restartTime": "5m"}}), "spec.prefixLimit.restartTime"),
        (json!({"passwordSecretRef": {"name": "x"}}), "spec.passwordSecretRef"),
        (json!({"advertisements": [{"aggregationLength": 24}]}), "spec.advertisements[0].aggregationLength"),
        (
            json!({"advertisements": [{"aggregationLengthV6": 64}]}),
            "spec.advertisements[0].aggregationLengthV6",
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
        let text = notes[0].to_string();
        assert!(!text.contains("hunter2"), "a password is never echoed: {text}");
    }
    assert_eq!(unsupported::of_peer(&serde_json::from_value(spec(&json!({}))).unwrap()), []);

    let table = [
        (json!({"families": [65537]}), "spec.families"),
        (json!({"useMultiplePaths": true}), "spec.useMultiplePaths"),
        (json!({"gracefulRestart": {"enabled": true}}), "spec.gracefulRestart"),
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
    let (peers, refused) = config::peers(&desired.bgp.unwrap());
    let names: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
    assert_eq!(names, ["here", "secret"]);
    assert_eq!(refused.keys().map(String::as_str).collect::<Vec<_>>(), ["dynamic", "twin"]);
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
        let by_source = routes::routes(&desired, &Arc::default());
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
    let mut found = simplified(&routes::routes(&desired, &Arc::default())[ALL_NODES]);
    found.sort();
    assert_eq!(found, expected);

    let desired = world(all, [peer("tor", spec(&json!({})))], "b");
    let found = simplified(&routes::routes(&desired, &Arc::default())[ALL_NODES]);
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
    let by_source = routes::routes(&desired, &Arc::new(base));
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

#[test]
fn without_a_conf_there_are_no_routes_but_every_source() {
    let mut desired = world(json!({"as": 65000}), [peer("tor", spec(&json!({})))], "a");
    desired.bgp = None;
    let by_source = routes::routes(&desired, &Arc::default());
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
