//! Objects in, words out.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Controller, Lists, Picture, ServiceExplanation, Speaker};
use crate::crd::SpeakerStatus;
use crate::index::Indexes;
use crate::index::services::ClassRules;
use crate::names::condition;
use crate::object::Object;
use crate::plan::allocation;
use crate::plan::merge_patch;

/// Objects as an API server would hold them, with what the controller made of them.
struct World {
    objects: Vec<Value>,
    indexes: Indexes,
    lists: Lists,
}

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

impl World {
    fn of(objects: impl IntoIterator<Item = Value>) -> Self {
        let mut world = Self {
            objects: Vec::new(),
            indexes: Indexes::new(ClassRules::default()),
            lists: Lists::default(),
        };
        for object in objects {
            world.add(object);
        }
        world
    }

    fn add(&mut self, object: Value) {
        if object["kind"] == "SpeakerStatus" {
            let status: SpeakerStatus = serde_json::from_value(object).unwrap();
            let speaker = Speaker::from(&status);
            self.lists.speakers.retain(|known| known.node != speaker.node);
            self.lists.speakers.push(speaker);
            return;
        }
        let read = Object::from_value(object.clone()).unwrap().unwrap();
        self.indexes.apply(&read);
        self.objects.retain(|known| {
            Object::from_value(known.clone()).unwrap().unwrap().reference() != read.reference()
        });
        self.objects.push(object);
    }

    /// Has the controller do its work.
    fn settled(mut self) -> Self {
        for _ in 0..16 {
            let plan = allocation::plan(&self.indexes, NOW);
            if plan.writes.is_empty() {
                self.lists.controller = Some(Controller {
                    leads: true,
                    leader: Some("openelb-controller-0".to_owned()),
                    renewed_ago: Some(1),
                });
                return self;
            }
            for write in plan.writes {
                let object = self.objects.iter_mut().find(|object| {
                    let read = Object::from_value((*object).clone()).unwrap().unwrap();
                    read.reference() == write.target
                });
                let object = object.unwrap();
                merge_patch(object, &write.patch());
                self.indexes.apply(&Object::from_value(object.clone()).unwrap().unwrap());
            }
        }
        panic!("it does not settle");
    }

    fn picture(&self) -> Picture<'_> {
        Picture::new(&self.indexes, self.lists.clone(), NOW)
    }

    fn service(&self, name: &str) -> ServiceExplanation {
        self.picture().service(&name.parse().unwrap()).unwrap()
    }
}

fn with(mut object: Value, more: Value) -> Value {
    merge_patch(&mut object, &more);
    object
}

fn eip(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip",
           "metadata": {"name": name, "uid": name, "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
           "spec": spec})
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
           "metadata": {"namespace": "shop", "name": name, "creationTimestamp": "2026-01-02T00:00:00Z"},
           "spec": {"type": "LoadBalancer", "loadBalancerClass": "openelb.io/openelb", "selector": {"app": name},
                    "ports": [{"port": 80}]}})
}

fn node(name: &str, n: u8) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
           "status": {"addresses": [{"type": "InternalIP", "address": format!("172.30.0.{n}")}],
                      "conditions": [{"type": "Ready", "status": "True"}]}})
}

fn bgp() -> [Value; 2] {
    let object = |kind: &str, name: &str, spec: Value| {
        json!({"apiVersion": "network.kubesphere.io/v1alpha2", "kind": kind, "metadata": {"name": name},
               "spec": spec})
    };
    [
        object("BgpConf", "default", json!({"as": 65001})),
        object("BgpPeer", "router", json!({"conf": {"neighborAddress": "10.0.0.1", "peerAs": 65000}})),
    ]
}

fn speaker(node: &str, state: &str, announced: i64) -> Value {
    json!({"apiVersion": "network.kubesphere.io/v1alpha2", "kind": "SpeakerStatus", "metadata": {"name": node},
           "spec": {"nodeName": node},
           "status": {"peers": {"router": {"peerState": {"neighborAddress": "10.0.0.1", "sessionState": state}}},
                      "configuredPeers": 1, "announcedAddresses": announced, "version": "0.1.0",
                      "pools": {"pool": {"v4": announced}}}})
}

fn served() -> World {
    let [conf, peer] = bgp();
    World::of([
        eip("pool", json!({"address": "192.0.2.0/29", "autoAssign": true})),
        service("web"),
        node("node-1", 1),
        node("node-2", 2),
        conf,
        peer,
    ])
}

#[test]
fn a_service_that_is_served_lacks_nothing() {
    let mut world = served();
    world.add(speaker("node-1", "ESTABLISHED", 1));
    world.add(speaker("node-2", "ESTABLISHED", 1));
    let web = world.settled().service("shop/web");
    assert!(web.ours && web.missing.is_empty(), "{web:#?}");
    assert_eq!(web.address_assigned.reason, "Assigned");
    assert_eq!(web.addresses[0].pool.as_deref(), Some("pool"));
    assert_eq!(web.addresses[0].protocols, ["bgp"]);
    let by: Vec<_> =
        web.addresses[0].announced_by.iter().map(|by| (by.node.as_str(), by.announced)).collect();
    assert_eq!(by, [("node-1", true), ("node-2", true)]);
    assert_eq!(web.pools[0].verdict, "Holds");
    assert_eq!(web.pools[0].why, "192.0.2.0");
}

#[test]
fn how_a_node_answers_is_shown_as_far_as_it_says() {
    let mut world = World::of([
        eip("lan", json!({"address": "192.0.2.0/29", "autoAssign": true, "protocol": "layer2", "interface": "subnet"})),
        service("web"),
        node("node-1", 1),
        node("node-2", 2),
    ])
    .settled();
    let says = |answers: Value| {
        json!({"apiVersion": "network.kubesphere.io/v1alpha2", "kind": "SpeakerStatus", "metadata": {"name": "node-2"},
               "spec": {"nodeName": "node-2"},
               "status": {"layer2Addresses": ["192.0.2.0"], "layer2Answers": answers}})
    };
    let shown = |world: &World| {
        let row = json!(world.picture().services()[0].answers);
        let explained = json!(world.service("shop/web").addresses[0].announced_by);
        let mut of_row = row.clone();
        assert_eq!(of_row[0].as_object_mut().unwrap().remove("address"), Some(json!("192.0.2.0")));
        assert_eq!(of_row, explained);
        row
    };
    let owns = json!({"address": "192.0.2.0", "node": "node-2", "protocol": "layer2", "announced": true,
                      "state": "it owns the address on its segment"});
    world.add(says(json!(null)));
    assert_eq!(shown(&world), json!([owns]));
    let mut answer = json!({"address": "192.0.2.0", "interface": "eth0", "mac": "02:00:00:00:00:02",
                            "since": "2026-01-01T00:00:00Z"});
    world.add(says(json!([answer])));
    let mut all = owns;
    all.as_object_mut().unwrap().extend(answer.as_object().unwrap().clone());
    assert_eq!(shown(&world), json!([all]));
    answer["standInFor"] = json!("node-1");
    world.add(says(json!([answer])));
    all["state"] = json!("it stands in for node-1, whose speaker is gone");
    assert_eq!(shown(&world), json!([all]));
}

#[test]
fn a_dead_owner_is_not_shown_beside_the_new_one() {
    let owner = |node: &str, addresses: &[&str]| {
        json!({"apiVersion": "network.kubesphere.io/v1alpha2", "kind": "SpeakerStatus", "metadata": {"name": node},
               "spec": {"nodeName": node}, "status": {"layer2Addresses": addresses}})
    };
    let not_ready = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
    let lan =
        json!({"address": "192.0.2.0/29", "autoAssign": true, "protocol": "layer2", "interface": "subnet"});
    let world = World::of([
        eip("lan", lan),
        service("web"),
        with(node("node-1", 1), not_ready),
        node("node-2", 2),
        owner("node-1", &["192.0.2.0"]),
    ]);
    let mut world = world.settled();
    let shown = |world: &World| {
        let announcers = world.picture().announcers();
        let by: Vec<Vec<String>> = vec![
            world.picture().services()[0].announced_by.clone(),
            world.service("shop/web").addresses[0].announced_by.iter().map(|by| by.node.clone()).collect(),
            announcers.values().flatten().map(|by| by.node.clone()).collect(),
        ];
        by
    };
    assert_eq!(shown(&world), [["node-1"], ["node-1"], ["node-1"]], "nobody else says that it answers");
    world.add(owner("node-2", &["192.0.2.0"]));
    assert_eq!(shown(&world), [["node-2"], ["node-2"], ["node-2"]]);
}

#[test]
fn what_stands_between_an_address_and_the_router_is_named() {
    // Each: what is changed, and words that must be among what is missing.
    let cases: [(&str, Value, &str); 5] = [
        ("down", speaker("node-1", "ACTIVE", 0), "node-1 to router: session ACTIVE"),
        ("no speaker", Value::Null, "no speaker says anything of itself"),
        (
            "told nothing yet",
            speaker("node-1", "ESTABLISHED", 0),
            "node-1 to router: session ESTABLISHED, but the speaker announces nothing of this pool yet",
        ),
        (
            "rules",
            json!({"apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpPeer", "metadata": {"name": "router"},
                   "spec": {"conf": {"neighborAddress": "10.0.0.1", "peerAs": 65000},
                            "advertisements": [{"poolNames": ["other"]}]}}),
            "no rule of spec.advertisements of BgpPeer router takes it",
        ),
        (
            "excluded",
            with(
                node("node-1", 1),
                json!({"metadata": {"labels": {"node.kubernetes.io/exclude-from-external-load-balancers": ""}}}),
            ),
            "no node may carry its traffic: node-1, node-2: it has the label node.kubernetes.io/exclude-from-external-load-balancers",
        ),
    ];
    for (name, object, words) in cases {
        let mut world = served();
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        if kind == "Node" {
            world.add(with(object.clone(), json!({"metadata": {"name": "node-2"}})));
        }
        if !kind.is_empty() && kind != "SpeakerStatus" {
            world.add(speaker("node-1", "ESTABLISHED", 1));
        }
        if !kind.is_empty() {
            world.add(object);
        }
        let web = world.settled().service("shop/web");
        assert!(web.missing.iter().any(|text| text.contains(words)), "{name}: {:#?}", web.missing);
    }
}

/// Excluded from carrying traffic.
fn excluded(node: Value) -> Value {
    with(
        node,
        json!({"metadata": {"labels": {"node.kubernetes.io/exclude-from-external-load-balancers": ""}}}),
    )
}

#[test]
fn a_node_that_carries_nothing_announces_on_behalf_of_nodes_without_a_speaker() {
    let mut world = served();
    for n in [3, 4] {
        world.add(excluded(node(&format!("node-{n}"), n)));
        world.add(speaker(&format!("node-{n}"), "ESTABLISHED", 1));
    }
    let world = world.settled();
    let web = world.service("shop/web");
    assert!(web.missing.is_empty(), "{:#?}", web.missing);
    let by: Vec<_> = web.addresses[0]
        .announced_by
        .iter()
        .map(|by| (by.node.as_str(), by.announced, by.state.as_str()))
        .collect();
    let words = "session ESTABLISHED, on behalf of node-1, node-2";
    assert_eq!(by, [("node-3", true, words), ("node-4", true, words)]);
    // The list of Services and the read API say the same.
    let picture = world.picture();
    assert_eq!(picture.services()[0].announced_by, ["node-3", "node-4"]);
    let announcers = picture.announcers();
    let by: Vec<_> = announcers.values().flatten().map(|by| (by.node.as_str(), by.announced)).collect();
    assert_eq!(by, [("node-3", true), ("node-4", true)]);
}

#[test]
fn a_node_whose_speaker_is_down_is_announced_by_nobody_else() {
    let mut world = served();
    world.add(speaker("node-1", "ACTIVE", 0));
    world.add(speaker("node-2", "ACTIVE", 0));
    world.add(excluded(node("node-3", 3)));
    world.add(speaker("node-3", "ESTABLISHED", 1));
    let web = world.settled().service("shop/web");
    let by: Vec<_> =
        web.addresses[0].announced_by.iter().map(|by| (by.node.as_str(), by.announced)).collect();
    assert_eq!(by, [("node-1", false), ("node-2", false)]);
}

#[test]
fn sessions_of_dynamic_neighbours_are_found() {
    let mut world = served();
    world.add(json!({"apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpPeer",
        "metadata": {"name": "router"}, "spec": {"conf": {"neighborAddress": "10.0.0.0/24", "peerAs": 65000}}}));
    let session = |address: &str, state: &str| json!({"peerState": {"neighborAddress": address, "sessionState": state}});
    let mut speaker = speaker("node-1", "ESTABLISHED", 1);
    speaker["status"]["peers"] = json!({
        "router/10.0.0.1": session("10.0.0.1", "ESTABLISHED"), "router/10.0.0.2": session("10.0.0.2", "ACTIVE"),
        "router2": session("10.0.9.9", "ESTABLISHED")});
    world.add(speaker);
    let mut none = self::speaker("node-2", "", 0);
    none["status"]["peers"] = json!({});
    world.add(none);
    let world = world.settled();
    let web = world.service("shop/web");
    let by: Vec<_> = web.addresses[0]
        .announced_by
        .iter()
        .map(|by| (by.node.as_str(), by.neighbor.as_deref(), by.announced, by.state.as_str()))
        .collect();
    assert_eq!(
        by,
        [
            ("node-1", Some("10.0.0.1"), true, "session ESTABLISHED"),
            ("node-1", Some("10.0.0.2"), false, "session ACTIVE"),
            ("node-2", None, false, "no neighbour of 10.0.0.0/24 has connected"),
        ]
    );
    let announcers = world.picture().announcers();
    let neighbors: Vec<_> = announcers.values().flatten().filter_map(|by| by.neighbor.as_deref()).collect();
    assert_eq!(neighbors, ["10.0.0.1", "10.0.0.2"]);
}

#[test]
fn a_local_service_names_the_nodes_without_endpoints() {
    let mut world = served();
    world.add(with(service("web"), json!({"spec": {"externalTrafficPolicy": "Local"}})));
    world.add(speaker("node-1", "ESTABLISHED", 1));
    world.add(speaker("node-2", "ESTABLISHED", 1));
    world.add(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": ["10.1.0.1"], "nodeName": "node-2"}]}));
    let web = world.settled().service("shop/web");
    let nodes = &web.addresses[0].nodes;
    assert_eq!(nodes[0].why, "it has no ready endpoint (externalTrafficPolicy: Local)");
    assert!(!nodes[0].eligible && nodes[1].eligible);
    let by: Vec<_> = web.addresses[0].announced_by.iter().map(|by| by.node.as_str()).collect();
    assert_eq!(by, ["node-2"]);
    assert!(web.missing.is_empty(), "{:#?}", web.missing);
}

#[test]
fn each_pool_is_told_with_the_words_of_the_conditions() {
    let pools = [
        ("bound", json!({"address": "192.0.2.0/30", "namespaces": ["other"]})),
        ("byname", json!({"address": "192.0.2.4/30", "autoAssign": false})),
        ("disabled", json!({"address": "192.0.2.8/30", "autoAssign": true, "disable": true})),
        ("garbled", json!({"address": "192.0.2.300"})),
        ("plain", json!({"address": "192.0.2.12/30"})),
        ("six", json!({"address": "2001:db8::/120", "autoAssign": true})),
    ];
    let world = World::of(
        pools
            .into_iter()
            .map(|(name, spec)| eip(name, spec))
            .chain([with(service("web"), json!({"spec": {"ipFamilies": ["IPv4"]}}))]),
    )
    .settled();
    let web = world.service("shop/web");
    assert_eq!(web.address_assigned.reason, "PoolDisabled", "{:?}", web.address_assigned);
    for pool in &web.pools {
        let words = format!("{}: {}", pool.pool, pool.why);
        assert!(web.address_assigned.message.contains(&words), "{words} / {}", web.address_assigned.message);
        assert_eq!(pool.verdict, "NotAsked");
    }
    assert_eq!(web.pools.len(), 6);
    assert!(web.missing[0].starts_with("an address: PoolDisabled: "), "{:?}", web.missing);
    // The condition on the object says exactly this.
    let stored = world.indexes.services.get(&"shop/web".parse().unwrap()).unwrap();
    let told = stored.conditions.iter().find(|c| c.type_ == condition::ADDRESS_ASSIGNED).unwrap();
    assert_eq!(*told.message, *web.address_assigned.message);
}

#[test]
fn a_pool_that_is_asked_says_what_it_would_give_or_why_not() {
    let bound = json!({"address": "192.0.2.0/32", "namespaces": ["shop"]});
    let mut world = World::of([
        eip("bound", bound),
        eip("auto", json!({"address": "198.51.100.0/24", "autoAssign": true})),
        service("first"),
    ]);
    world.add(service("second"));
    let world = world.settled();
    let first = world.service("shop/first");
    let (of, auto) = (&first.pools[0], &first.pools[1]);
    assert_eq!((of.pool.as_str(), of.verdict, of.place), ("bound", "Holds", Some(1)));
    assert_eq!(auto.why, "a pool whose namespaces or selectors match comes before it");
    let second = world.service("shop/second");
    assert_eq!(
        (second.pools[0].verdict, second.address_assigned.reason.as_str()),
        ("Refuses", "PoolExhausted")
    );
    let words = format!("bound: {}", second.pools[0].why);
    assert_eq!(second.address_assigned.message, words);
}

#[test]
fn a_request_that_cannot_be_met_keeps_what_it_has_and_says_so() {
    let mut world = World::of([
        eip("pool", json!({"address": "192.0.2.0/29", "autoAssign": true})),
        eip("other", json!({"address": "198.51.100.0/29"})),
        service("web"),
    ])
    .settled();
    let asking = |key: &str, value: &str| json!({"metadata": {"annotations": {key: value}}});
    let stored = world.objects.last().cloned().unwrap();
    world.add(with(stored.clone(), asking("eip.openelb.kubesphere.io/v1alpha1", "198.51.100.200")));
    let web = world.service("shop/web");
    assert!(web.address_assigned.status && !web.request_honoured.status);
    assert_eq!(web.request_honoured.reason, "AddressOutsidePools");
    assert!(
        web.missing[0].starts_with("what it asks for: AddressOutsidePools: 192.0.2.0 is kept"),
        "{:?}",
        web.missing
    );
    // Nobody wrote that down yet: the condition on the object is of before.
    assert!(web.missing[1].starts_with("the controller has not written this yet; "), "{:?}", web.missing);

    world.add(with(stored, asking("eip.openelb.kubesphere.io/v1alpha2", "other")));
    let web = world.service("shop/web");
    let other = web.pools.iter().find(|pool| pool.pool == "other").unwrap();
    assert_eq!((other.verdict, other.place), ("Could", Some(1)));
    assert_eq!(other.why, "could give 198.51.100.0: the Service names it");
    assert_eq!(web.addresses[1].pool.as_deref(), None, "on the way from one to the other");
}

#[test]
fn whose_a_service_is() {
    let cases = [
        (json!({"spec": {"loadBalancerClass": "example.com/x"}}), false, "OpenELB serves openelb.io/openelb"),
        (json!({"spec": {"loadBalancerClass": null}}), false, "it has neither spec.loadBalancerClass"),
        (json!({"spec": {"type": "ClusterIP"}}), false, "spec.type is not LoadBalancer"),
        (
            json!({"spec": {"loadBalancerClass": null}, "metadata": {"annotations": {"lb.kubesphere.io/v1alpha1": "openelb"}}}),
            true,
            "it has the annotation lb.kubesphere.io/v1alpha1: openelb",
        ),
        (json!({}), true, "spec.loadBalancerClass is openelb.io/openelb"),
    ];
    for (change, ours, words) in cases {
        let web = World::of([with(service("web"), change)]).service("shop/web");
        assert_eq!(web.ours, ours, "{words}");
        assert!(web.why.contains(words), "{} / {words}", web.why);
    }
    assert!(World::of([]).picture().service(&"shop/web".parse().unwrap()).is_none());
}

#[test]
fn lists_and_the_whole() {
    let mut world = served();
    world.add(eip("broken", json!({"address": "no"})));
    world.add(with(
        service("waiting"),
        json!({"metadata": {"annotations": {"eip.openelb.kubesphere.io/v1alpha2": "gone"}}}),
    ));
    world.add(speaker("node-1", "ESTABLISHED", 1));
    world.add(speaker("node-2", "ACTIVE", 0));
    let world = world.settled();
    let picture = world.picture();
    let services = picture.services();
    assert_eq!(services[1].announced_by, ["node-1"]);
    assert_eq!((services[0].name.as_str(), services[0].reason.as_str()), ("waiting", "PoolNotFound"));
    let pools = picture.pools();
    assert!(
        !pools[0].ready && pools[0].notes[0].starts_with("InvalidSpec: spec.address: "),
        "{:?}",
        pools[0]
    );
    assert_eq!((pools[1].usage, pools[1].pool_size, pools[1].protocols.as_slice()), (1, 8, &["bgp"][..]));
    let peers = picture.peers();
    let states: Vec<_> = peers.iter().map(|peer| (peer.node.as_str(), peer.state.as_str())).collect();
    assert_eq!(states, [("node-1", "ESTABLISHED"), ("node-2", "ACTIVE")]);
    let status = picture.status();
    assert_eq!((status.services, status.assigned, status.pools, status.usage), (2, 1, 2, 1));
    let problems = status.problems.join("\n");
    for words in [
        "Eip broken: InvalidSpec",
        "1 Services wait for an address (PoolNotFound): kubectl openelb explain service shop/waiting",
        "BgpPeer router on node-2: session ACTIVE",
    ] {
        assert!(problems.contains(words), "{words} / {problems}");
    }
    assert!(!problems.contains("Lease"), "{problems}");
}

#[test]
fn a_controller_that_is_gone_is_a_problem() {
    let lease = |ago: i64| -> k8s_openapi::api::coordination::v1::Lease {
        let renewed = Timestamp::from_second(1_000 - ago).unwrap();
        serde_json::from_value(json!({"metadata": {"name": "openelb-controller"}, "spec": {
            "holderIdentity": "a", "leaseDurationSeconds": 8, "renewTime": format!("{renewed:.6}")}}))
        .unwrap()
    };
    let now = Timestamp::from_second(1_000).unwrap();
    for (ago, leads) in [(0, true), (8, true), (9, false)] {
        assert_eq!(Controller::of(&lease(ago), now).leads, leads, "{ago}");
    }
    let indexes = Indexes::default();
    for controller in [None, Some(Controller::of(&lease(60), now))] {
        let lists = Lists { controller, ..Lists::default() };
        let problems = Picture::new(&indexes, lists, now).status().problems;
        assert!(problems[0].starts_with("no controller"), "{problems:?}");
    }
}
