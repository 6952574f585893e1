//! Tables over addresses, next hops and rules: which routes there are.

use super::*;

/// Three nodes, a dual-stack pool, two Services; `conf` and `peers` as given.
pub(in crate::adapter::bgp) fn world(
    conf_spec: Value,
    peers: impl IntoIterator<Item = Value>,
    rack_of_node_3: &str,
) -> Announcements {
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
