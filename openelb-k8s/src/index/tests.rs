use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::endpoints::Endpoints;
use super::peers::Neighbor;
use super::pools::{InterfaceSelector, Sharing};
use super::services::{ClassRules, FamilyPolicy, IpFamily, PortProtocol, TrafficPolicy};
use super::{EipView, Indexes, NodeView, Nodes, PeerView, ServiceView};
use crate::announce::Protocol;
use crate::crd::{BgpPeer, Eip};
use crate::object::{Kind, NamespacedName, Object, ObjectRef};
use crate::problem::Problem;
use crate::selector::{Labels, Selector};

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap().unwrap()
}

fn eip(spec: Value, status: Value) -> Box<Eip> {
    let value = json!({
        "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip",
        "metadata": {"name": "pool", "uid": "1", "generation": 2}, "spec": spec, "status": status,
    });
    let Object::Eip(eip) = object(value) else { panic!("no Eip") };
    eip
}

fn service(metadata: Value, spec: Value, status: Value) -> ServiceView {
    let mut value =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec, "status": status});
    value["metadata"]["name"] = json!("s");
    value["metadata"]["namespace"] = json!("ns");
    let Object::Service(service) = object(value) else { panic!("no Service") };
    ServiceView::parse(&service, &ClassRules::default())
}

/// A Service with these annotations beside the opt-in.
fn annotated(annotations: Value, spec: Value) -> ServiceView {
    let mut annotations = annotations;
    annotations["lb.kubesphere.io/v1alpha1"] = json!("openelb");
    let mut spec = spec;
    spec["type"] = json!("LoadBalancer");
    service(json!({"annotations": annotations}), spec, json!({}))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn which_services_are_ours() {
    let opt_in = json!({"lb.kubesphere.io/v1alpha1": "openelb"});
    let cases = [
        (json!({}), json!({"type": "LoadBalancer"}), false, true),
        (opt_in.clone(), json!({"type": "LoadBalancer"}), true, true),
        (json!({"lb.kubesphere.io/v1alpha1": " openelb "}), json!({"type": "LoadBalancer"}), true, true),
        (json!({"lb.kubesphere.io/v1alpha1": "porter"}), json!({"type": "LoadBalancer"}), false, true),
        (opt_in.clone(), json!({"type": "ClusterIP"}), false, false),
        (opt_in.clone(), json!({}), false, false),
        (json!({}), json!({"type": "LoadBalancer", "loadBalancerClass": "openelb.io/openelb"}), true, true),
        (opt_in, json!({"type": "LoadBalancer", "loadBalancerClass": "other.io/lb"}), false, false),
    ];
    for (annotations, spec, ours, unclassed) in cases {
        let metadata = json!({"name": "s", "namespace": "ns", "annotations": annotations});
        let Object::Service(service) =
            object(json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}))
        else {
            panic!("no Service")
        };
        assert_eq!(ServiceView::parse(&service, &ClassRules::default()).ours, ours, "{annotations} {spec}");
        let rules = ClassRules { handle_unclassed: true, ..ClassRules::default() };
        assert_eq!(ServiceView::parse(&service, &rules).ours, unclassed, "{annotations} {spec}");
    }
    let deleting = json!({"annotations": {"lb.kubesphere.io/v1alpha1": "openelb"}, "deletionTimestamp": "2026-01-01T00:00:00Z"});
    assert!(!service(deleting, json!({"type": "LoadBalancer"}), json!({})).ours);
}

#[test]
fn what_a_service_asks_for() {
    let view = annotated(
        json!({
            "eip.openelb.kubesphere.io/v1alpha1": " FD00::0:1 , 192.0.2.1, ",
            "eip.openelb.kubesphere.io/v1alpha2": "b, a,b",
            "openelb.kubesphere.io/allow-shared-ip": " key ",
            "openelb.kubesphere.io/reassign": "1",
        }),
        json!({
            "ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack", "externalTrafficPolicy": "Local",
            "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}], "selector": {"app": "a"},
        }),
    );
    assert_eq!(view.requested_addresses, [ip("fd00::1"), ip("192.0.2.1")]);
    assert_eq!(view.requested_pools, ["b", "a"]);
    assert_eq!(view.sharing_key.as_deref(), Some("key"));
    assert_eq!(view.reassign.as_deref(), Some("1"));
    assert_eq!(view.families, [IpFamily::V6, IpFamily::V4]);
    assert_eq!(view.family_policy, FamilyPolicy::RequireDualStack);
    assert_eq!(view.traffic_policy, TrafficPolicy::Local);
    assert_eq!(view.ports, BTreeSet::from([(PortProtocol::Tcp, 80), (PortProtocol::Udp, 53)]));
    assert_eq!(view.request_problems, []);

    let view = annotated(json!({}), json!({"loadBalancerIP": "192.0.2.7", "clusterIP": "fd00::9"}));
    assert_eq!(view.requested_addresses, [ip("192.0.2.7")]);
    assert_eq!(*view.cluster_ip_families, [IpFamily::V6]);
    assert!(!view.address_sources_differ);

    let empty = annotated(
        json!({"eip.openelb.kubesphere.io/v1alpha1": " ", "eip.openelb.kubesphere.io/v1alpha2": ""}),
        json!({"loadBalancerIP": "192.0.2.7"}),
    );
    assert_eq!(empty.requested_addresses, [ip("192.0.2.7")]);
    assert_eq!(empty.requested_pools, Vec::<String>::new());

    let both = annotated(
        json!({"eip.openelb.kubesphere.io/v1alpha1": "192.0.2.100"}),
        json!({"loadBalancerIP": "192.0.2.50"}),
    );
    assert_eq!(both.requested_addresses, [ip("192.0.2.100")]);
    assert!(both.address_sources_differ && both.request_problems.is_empty());
}

#[test]
fn a_bad_request_is_a_problem_of_its_field() {
    let bad = |value: &str| annotated(json!({"eip.openelb.kubesphere.io/v1alpha1": value}), json!({}));
    for value in
        ["x", "192.0.2.01", "192.0.2.0/24", "::ffff:192.0.2.1", "192.0.2.1,192.0.2.2", "fe80::1%eth0"]
    {
        let view = bad(value);
        assert_eq!(view.request_problems.len(), 1, "{value}");
        assert_eq!(
            view.request_problems[0].field,
            "metadata.annotations[eip.openelb.kubesphere.io/v1alpha1]"
        );
    }
    let view = annotated(json!({}), json!({"loadBalancerIP": "192.0.2.1,192.0.2.2"}));
    assert_eq!(view.request_problems[0].field, "spec.loadBalancerIP");
    let view =
        annotated(json!({"eip.openelb.kubesphere.io/v1alpha1": "fd00::1"}), json!({"ipFamilies": ["IPv4"]}));
    assert_eq!(view.request_problems.len(), 1);
    let view = annotated(json!({}), json!({"ipFamilies": ["IPX"]}));
    assert_eq!(view.request_problems[0].field, "spec.ipFamilies");
}

#[test]
fn what_a_service_has() {
    let view = service(
        json!({
            "labels": {"eip.openelb.kubesphere.io/v1alpha2": "pool"},
            "annotations": {"openelb.kubesphere.io/assigned": "{}"},
            "finalizers": ["finalizer.lb.kubesphere.io/v1alpha1", "theirs"],
            "creationTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": "7",
        }),
        json!({"type": "LoadBalancer"}),
        json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}, {"hostname": "h"}, {"ip": "2001:DB8::1"}]}}),
    );
    assert_eq!(view.published(), [ip("192.0.2.1"), ip("2001:db8::1")]);
    assert_eq!(view.ingress[1].hostname.as_deref(), Some("h"));
    assert_eq!(view.pool_label.as_deref(), Some("pool"));
    assert_eq!(view.legacy_finalizers().collect::<Vec<_>>(), ["finalizer.lb.kubesphere.io/v1alpha1"]);
    assert!(view.has_traces());
    assert_eq!(view.resource_version, "7");
    assert!(!annotated(json!({}), json!({})).has_traces());
}

#[test]
fn equal_selectors_have_equal_digests() {
    let digest = |selector: Value| annotated(json!({}), json!({"selector": selector})).selector_digest;
    assert_eq!(digest(json!({"a": "1", "b": "2"})), digest(json!({"b": "2", "a": "1"})));
    assert_ne!(digest(json!({"a": "1"})), digest(json!({"a": "2"})));
    assert_ne!(digest(json!({"ab": "c"})), digest(json!({"a": "bc"})));
}

#[test]
fn an_eip_with_everything() {
    let view = EipView::parse(&eip(
        json!({
            "address": "192.0.2.0/24, 2001:db8::/64", "exclude": ["192.0.2.0-192.0.2.9"], "protocol": "vip",
            "protocols": ["bgp", "layer2"], "interface": "can_reach:192.0.2.1", "priority": 3, "sharing": "Key",
            "namespaces": ["a"], "namespaceSelector": {}, "vipGroup": "", "maxPerNamespace": 4,
        }),
        json!({"used": {"192.0.2.10": "ns/b;ns/a", "2001:DB8::1": "ns/c", "x": "ns/d", "192.0.2.11": "nobody"}}),
    ));
    let spec = view.spec.clone().unwrap();
    assert_eq!(spec.protocols, BTreeSet::from([Protocol::Bgp, Protocol::Layer2]));
    assert_eq!(spec.interface, Some(InterfaceSelector::CanReach(ip("192.0.2.1"))));
    assert_eq!((spec.sharing, spec.max_per_namespace, spec.priority), (Some(Sharing::Key), Some(4), 3));
    assert_eq!((&spec.namespace_selector, &spec.vip_group), (&None, &None));
    assert!(
        spec.covers(ip("192.0.2.5")) && spec.excludes(ip("192.0.2.5")) && !spec.excludes(ip("192.0.2.10"))
    );
    assert!(!spec.covers(ip("192.0.3.0")) && spec.covers(ip("2001:db8::ffff")));
    assert_eq!(
        view.used[&ip("192.0.2.10")],
        [NamespacedName::new("ns", "a"), NamespacedName::new("ns", "b")]
    );
    assert!(view.is_held_by(ip("2001:db8::1"), &NamespacedName::new("ns", "c")));
    assert_eq!(view.garbled_used, ["192.0.2.11: nobody", "x: ns/d"]);
    assert!(view.gives() && view.problems.is_empty());
}

#[test]
fn binding_of_pools() {
    let spec = |value: Value| EipView::parse(&eip(value, json!({}))).spec.unwrap();
    let labels = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Labels>()
    };
    let plain = spec(json!({"address": "192.0.2.1"}));
    assert!(!plain.is_bound() && plain.matches("any", &labels(&[]), &labels(&[])));
    let both = spec(json!({
        "address": "192.0.2.1", "namespaces": ["a"], "namespaceSelector": {"team": "x", "env": "prod"},
        "serviceSelector": {"matchLabels": {"app": "web"}},
    }));
    assert!(both.is_bound());
    let web = labels(&[("app", "web")]);
    assert!(both.matches("a", &labels(&[]), &web));
    assert!(both.matches("b", &labels(&[("team", "x"), ("env", "prod"), ("more", "")]), &web));
    assert!(!both.matches("b", &labels(&[("team", "x")]), &web));
    assert!(!both.matches("a", &labels(&[]), &labels(&[])));
}

#[test]
fn interfaces() {
    for (text, expected) in [
        ("eth0", Ok(InterfaceSelector::Name("eth0".to_owned()))),
        ("can_reach:192.0.2.1", Ok(InterfaceSelector::CanReach(ip("192.0.2.1")))),
        ("regex:^eth", Ok(InterfaceSelector::Regex("^eth".to_owned()))),
        ("subnet", Ok(InterfaceSelector::Subnet)),
        ("all", Ok(InterfaceSelector::All)),
        ("can_reach:x", Err(())),
        ("regex:", Err(())),
        ("regex:eth[", Err(())),
        ("x:y", Err(())),
        ("enp0s31f6np0alternative", Ok(InterfaceSelector::Name("enp0s31f6np0alternative".to_owned()))),
        (&*"x".repeat(127), Ok(InterfaceSelector::Name("x".repeat(127)))),
        (&*"x".repeat(128), Err(())),
        ("..", Err(())),
    ] {
        let parsed = InterfaceSelector::parse(text).map_err(|_| ());
        assert_eq!(parsed, expected, "{text}");
        if let Ok(parsed) = parsed {
            assert_eq!(parsed.to_string(), text);
        }
    }
}

/// The Go OpenELB took anything there.
#[test]
fn an_interface_that_nobody_needs_may_be_anything() {
    for (spec, problems) in [
        (json!({"address": "192.0.2.0/24", "protocol": "bgp", "interface": "eth0,eth1"}), 0),
        (json!({"address": "192.0.2.0/24", "interface": "Subnet"}), 0),
        (json!({"address": "192.0.2.0/24", "protocols": ["bgp", "layer2"], "interface": "eth0,eth1"}), 1),
    ] {
        let mut indexes = Indexes::default();
        indexes.apply(&Object::Eip(eip(spec.clone(), json!({}))));
        let view = indexes.pools.get("pool").unwrap();
        assert_eq!((view.problems.len(), view.spec.is_some()), (problems, problems == 0), "{spec}");
    }
}

#[test]
fn an_eip_that_becomes_bad_keeps_its_last_good_spec() {
    let mut indexes = Indexes::default();
    let good = Object::Eip(eip(json!({"address": "192.0.2.0/24"}), json!({})));
    assert!(indexes.apply(&good));
    assert!(!indexes.apply(&good), "the same again changes nothing");
    let bad = Object::Eip(eip(json!({"address": "nonsense"}), json!({"used": {"192.0.2.1": "ns/a"}})));
    assert!(indexes.apply(&bad));
    let view = indexes.pools.get("pool").unwrap();
    assert!(view.last_good && view.spec.as_ref().unwrap().covers(ip("192.0.2.1")));
    assert_eq!(view.problems[0].field, "spec.address");
    assert_eq!(view.used.len(), 1, "the rest of the object is new");
    // A bad one that never was good has no spec; the other Eip is not touched.
    let mut other = eip(json!({"protocol": "layer2", "address": "192.0.3.1"}), json!({}));
    other.metadata.name = Some("other".to_owned());
    indexes.apply(&Object::Eip(other));
    let view = indexes.pools.get("other").unwrap();
    assert!(view.spec.is_none() && !view.gives() && !view.last_good);
    // An unreadable version: the same, through further versions (our own status writes), until it is read again.
    indexes.apply(&good);
    let unreadable =
        [(ObjectRef::cluster(Kind::Eip, "pool"), Problem::error("cannot be read", "correct it"))];
    assert!(indexes.set_unreadable(&unreadable));
    assert!(!indexes.set_unreadable(&unreadable), "the same again");
    for _ in 0..2 {
        let view = indexes.pools.get("pool").unwrap();
        assert!(view.last_good && view.gives() && view.problems.len() == 1, "{view:?}");
        indexes.apply(&good);
    }
    assert!(indexes.set_unreadable(&[]));
    let view = indexes.pools.get("pool").unwrap();
    assert!(!view.last_good && view.problems.is_empty());
    // Another Eip of the same name does not inherit.
    let mut bad = eip(json!({}), json!({}));
    bad.metadata.uid = Some("2".to_owned());
    indexes.apply(&Object::Eip(bad));
    assert!(indexes.pools.get("pool").unwrap().spec.is_none());
}

#[test]
fn nodes() {
    let node = |status: Value| {
        let value = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "n", "labels": {"openelb.kubesphere.io/rack": "leaf1"}},
            "spec": {"unschedulable": true, "taints": [{"key": "k", "effect": "NoSchedule"}]}, "status": status,
        });
        let Object::Node(node) = object(value) else { panic!("no Node") };
        NodeView::parse(&node)
    };
    let view = node(json!({"addresses": [
        {"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "2001:db8::1"},
        {"type": "InternalIP", "address": "192.0.2.1"}, {"type": "InternalIP", "address": "x"},
        {"type": "ExternalIP", "address": "198.51.100.1"},
    ]}));
    assert_eq!(view.internal_ips, [ip("2001:db8::1"), ip("192.0.2.1")]);
    assert_eq!(
        (view.external_ips.as_slice(), view.garbled_addresses.len()),
        ([ip("198.51.100.1")].as_slice(), 1)
    );
    assert_eq!(view.first_ipv4().map(IpAddr::V4), Some(ip("192.0.2.1")));
    assert!(view.ready && view.cordoned && view.rack() == Some("leaf1"));
    for (status, ready) in [("True", true), ("False", false), ("Unknown", false)] {
        assert_eq!(node(json!({"conditions": [{"type": "Ready", "status": status}]})).ready, ready);
    }
}

#[test]
fn a_heartbeat_of_a_node_changes_nothing() {
    let node = |heartbeat: &str| {
        object(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
            "status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat}]},
        }))
    };
    let mut indexes = Indexes::default();
    assert!(indexes.apply(&node("2026-01-01T00:00:00Z")));
    assert!(!indexes.apply(&node("2026-01-01T00:00:10Z")));
    assert!(indexes.delete(&ObjectRef::cluster(Kind::Node, "n")));
    assert!(!indexes.delete(&ObjectRef::cluster(Kind::Node, "n")));
}

#[test]
fn endpoints_are_ready_else_serving() {
    let slice = |name: &str, endpoints: Value| {
        let value = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": "ns", "labels": {"kubernetes.io/service-name": "s"}},
            "endpoints": endpoints,
        });
        let Object::EndpointSlice(slice) = object(value) else { panic!("no slice") };
        slice
    };
    let key = NamespacedName::new("ns", "s");
    let (mut endpoints, nodes) = (Endpoints::default(), Nodes::default());
    assert!(!endpoints.any(&key, &nodes));
    let endpoint = |node: &str, conditions: Value| json!({"addresses": ["10.0.0.1"], "nodeName": node, "conditions": conditions});
    let ends = json!([endpoint("a", json!({"ready": false, "serving": true, "terminating": true}))]);
    assert!(endpoints.apply(&slice("1", ends), &nodes));
    assert_eq!(
        endpoints.nodes(&key, &nodes),
        BTreeSet::from(["a"]),
        "nobody is ready: who ends still serves"
    );
    let others = json!([endpoint("b", json!({})), endpoint("c", json!({"ready": false, "serving": false}))]);
    assert!(endpoints.apply(&slice("2", others.clone()), &nodes));
    assert_eq!(endpoints.nodes(&key, &nodes), BTreeSet::from(["b"]));
    assert!(!endpoints.apply(&slice("2", others), &nodes));
    assert!(endpoints.delete(&NamespacedName::new("ns", "2")));
    assert_eq!(endpoints.nodes(&key, &nodes), BTreeSet::from(["a"]));
    endpoints.delete(&NamespacedName::new("ns", "1"));
    assert!(endpoints.nodes(&key, &nodes).is_empty() && !endpoints.any(&key, &nodes));
}

/// An endpoint of the test below: on which node, and `ready`, `serving`, `terminating` of it; `None`: it is not there.
type Seen = (&'static str, Option<[bool; 3]>);

#[test]
fn while_no_node_is_ready_endpoints_that_had_not_failed_count() {
    const READY: Option<[bool; 3]> = Some([true, true, false]);
    const UNREADY: Option<[bool; 3]> = Some([false, false, false]);
    const ENDS: Option<[bool; 3]> = Some([false, true, true]);
    const ENDED: Option<[bool; 3]> = Some([false, false, true]);
    /// What is said of the nodes a and b, or that they are judged; and what is said of the endpoints then.
    struct Step(&'static [(&'static str, &'static str)], &'static [Seen], &'static [&'static str]);
    let cases: [(&str, &[Step]); 11] = [
        (
            "all are lost from sight, one after the other, and come back",
            &[
                Step(&[("a", "True"), ("b", "True")], &[("a", READY), ("b", READY)], &["a", "b"]),
                Step(&[("a", "Unknown"), ("b", "Unknown")], &[("a", READY), ("b", READY)], &["a", "b"]),
                Step(&[], &[("a", UNREADY), ("b", READY)], &["a", "b"]),
                Step(&[], &[("a", UNREADY), ("b", UNREADY)], &["a", "b"]),
                Step(&[], &[("a", READY), ("b", UNREADY)], &["a", "b"]),
                Step(&[("a", "True")], &[("a", UNREADY), ("b", UNREADY)], &["a", "b"]),
                Step(&[], &[("a", READY), ("b", UNREADY)], &["a", "b"]),
                Step(&[("b", "True")], &[("a", READY), ("b", UNREADY)], &["a", "b"]),
                Step(&[("a", "judged")], &[("a", READY), ("b", UNREADY)], &["a", "b"]),
                Step(&[], &[("a", READY), ("b", READY)], &["a", "b"]),
                Step(&[("b", "judged")], &[("a", READY), ("b", READY)], &["a", "b"]),
                Step(&[], &[("a", READY), ("b", UNREADY)], &["a"]),
            ],
        ),
        (
            "all are lost from sight, and one does not come back",
            &[
                Step(&[("a", "True"), ("b", "True")], &[("a", READY), ("b", READY)], &["a", "b"]),
                Step(&[("a", "Unknown"), ("b", "Unknown")], &[("a", UNREADY), ("b", UNREADY)], &["a", "b"]),
                Step(&[("a", "True")], &[("a", READY), ("b", UNREADY)], &["a", "b"]),
                Step(&[("a", "judged")], &[("a", READY), ("b", UNREADY)], &["a"]),
                Step(&[("b", "True")], &[("a", READY), ("b", UNREADY)], &["a"]),
                Step(&[("b", "judged")], &[("a", UNREADY), ("b", UNREADY)], &[]),
            ],
        ),
        (
            "all are lost from sight, and an endpoint fails soon after they came back",
            &[
                Step(&[("a", "True")], &[("a", READY)], &["a"]),
                Step(&[("a", "Unknown")], &[("a", UNREADY)], &["a"]),
                Step(&[("a", "True")], &[("a", READY)], &["a"]),
                Step(&[], &[("a", READY)], &["a"]),
                Step(&[], &[("a", UNREADY)], &[]),
                Step(&[("a", "Unknown")], &[("a", UNREADY)], &[]),
            ],
        ),
        (
            "all are lost from sight, and an endpoint does not come back",
            &[
                Step(&[("a", "True")], &[("a", READY)], &["a"]),
                Step(&[("a", "Unknown")], &[("a", UNREADY)], &["a"]),
                Step(&[("a", "True")], &[("a", UNREADY)], &["a"]),
                Step(&[("a", "judged")], &[("a", UNREADY)], &[]),
            ],
        ),
        (
            "the news of endpoints are faster than those of their nodes",
            &[
                Step(&[("a", "True")], &[("a", READY)], &["a"]),
                Step(&[], &[("a", UNREADY)], &[]),
                Step(&[("a", "Unknown")], &[("a", UNREADY)], &["a"]),
            ],
        ),
        (
            "one had failed before: its node is Ready after it",
            &[
                Step(&[("a", "True"), ("b", "True")], &[("a", READY), ("b", READY)], &["a", "b"]),
                Step(&[], &[("a", READY), ("b", UNREADY)], &["a"]),
                Step(&[("b", "True")], &[("a", READY), ("b", UNREADY)], &["a"]),
                Step(&[("a", "Unknown"), ("b", "Unknown")], &[("a", UNREADY), ("b", UNREADY)], &["a"]),
            ],
        ),
        (
            "one was never ready",
            &[
                Step(&[("a", "True"), ("b", "True")], &[("a", READY), ("b", UNREADY)], &["a"]),
                Step(&[("a", "Unknown"), ("b", "Unknown")], &[("a", UNREADY), ("b", UNREADY)], &["a"]),
            ],
        ),
        (
            "one had failed and was mended",
            &[
                Step(&[("a", "True")], &[("a", UNREADY)], &[]),
                Step(&[], &[("a", READY)], &["a"]),
                Step(&[("a", "Unknown")], &[("a", UNREADY)], &["a"]),
            ],
        ),
        (
            "what ends serves where nothing else does, and no longer than it serves",
            &[
                Step(&[("a", "True"), ("b", "True")], &[("a", ENDS), ("b", READY)], &["b"]),
                Step(&[("a", "Unknown"), ("b", "Unknown")], &[("a", ENDS), ("b", UNREADY)], &["b"]),
                Step(&[], &[("a", ENDS), ("b", None)], &["a"]),
                Step(&[], &[("a", ENDED), ("b", None)], &[]),
            ],
        ),
        (
            "one of two nodes is lost from sight: what was there counts where nothing else does",
            &[
                Step(&[("a", "True"), ("b", "True")], &[("a", READY), ("b", READY)], &["a", "b"]),
                Step(&[("a", "Unknown")], &[("a", UNREADY), ("b", READY)], &["b"]),
                Step(&[], &[("a", UNREADY), ("b", None)], &["a"]),
                Step(&[], &[("a", UNREADY), ("b", ENDS)], &["a", "b"]),
                Step(&[("a", "True")], &[("a", UNREADY), ("b", None)], &["a"]),
                Step(&[("a", "judged")], &[("a", UNREADY), ("b", None)], &[]),
                Step(&[("a", "Unknown")], &[("a", UNREADY), ("b", None)], &[]),
            ],
        ),
        (
            "a start in the dark",
            &[Step(&[("a", "Unknown"), ("b", "Unknown")], &[("a", UNREADY), ("b", READY)], &["a", "b"])],
        ),
    ];
    let key = NamespacedName::new("ns", "s");
    for (what, steps) in cases {
        let mut indexes = Indexes::default();
        for (number, Step(nodes, endpoints, wanted)) in steps.iter().enumerate() {
            for (name, said) in *nodes {
                if *said == "judged" {
                    indexes.judge(name);
                    continue;
                }
                indexes.apply(&object(json!({
                    "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                    "status": {"conditions": [{"type": "Ready", "status": said}]},
                })));
            }
            let endpoints = endpoints.iter().filter_map(|(node, said)| {
                let [ready, serving, terminating] = (*said)?;
                Some(json!({"addresses": [format!("10.0.0.{node}")], "nodeName": node,
                            "conditions": {"ready": ready, "serving": serving, "terminating": terminating}}))
            });
            indexes.apply(&object(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": "s", "namespace": "ns", "labels": {"kubernetes.io/service-name": "s"}},
                "endpoints": endpoints.collect::<Vec<_>>(),
            })));
            let seen = indexes.endpoints.nodes(&key, &indexes.nodes);
            assert_eq!(seen, wanted.iter().copied().collect(), "{what}, step {number}");
            assert_eq!(
                indexes.endpoints.any(&key, &indexes.nodes),
                !seen.is_empty(),
                "{what}, step {number}"
            );
        }
    }
}

fn peer(spec: Value) -> Box<BgpPeer> {
    let value = json!({"apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpPeer", "metadata": {"name": "p"}, "spec": spec});
    let Object::BgpPeer(peer) = object(value) else { panic!("no peer") };
    peer
}

#[test]
fn a_peer_with_defaults() {
    let spec = PeerView::parse(&peer(json!({"conf": {"neighborAddress": "192.0.2.1", "peerAs": 65000}})))
        .spec
        .unwrap();
    assert_eq!(spec.neighbor, Neighbor::Address(ip("192.0.2.1")));
    assert_eq!((spec.port, spec.asn, spec.local_asn, spec.passive), (179, Some(65000), None, false));
    assert_eq!((spec.hold_time.as_secs(), spec.keepalive.as_secs()), (30, 10));
    assert!(spec.families.is_empty() && spec.advertisements.is_none() && spec.bfd.is_none());
    let spec = PeerView::parse(&peer(json!({
        "conf": {"neighborAddress": "192.0.2.9/24", "authPassword": "hunter2"},
        "timers": {"config": {"holdTime": "9"}}, "ebgpMultihop": {"enabled": true},
        "afiSafis": [{"config": {"family": {"afi": "AFI_IP6", "safi": "SAFI_UNICAST"}, "enabled": true},
                       "addPaths": {"config": {"sendMax": 10}}}],
        "bfd": {"enabled": true},
    })))
    .spec
    .unwrap();
    assert_eq!(spec.neighbor, Neighbor::Prefix("192.0.2.0/24".parse().unwrap()));
    assert!(spec.passive && spec.asn.is_none());
    assert_eq!((spec.keepalive.as_secs(), spec.multihop_ttl), (3, Some(255)));
    assert_eq!((spec.families[0].v6, spec.families[0].add_path_send), (true, 10));
    assert_eq!(spec.bfd.unwrap().detect_multiplier, 3);
    assert!(!format!("{spec:?}").contains("hunter2"), "passwords are not shown");
}

#[test]
fn a_peer_that_becomes_bad_keeps_its_last_good_spec() {
    let mut indexes = Indexes::default();
    indexes.apply(&Object::BgpPeer(peer(json!({"conf": {"neighborAddress": "192.0.2.1"}}))));
    indexes.apply(&Object::BgpPeer(peer(json!({}))));
    let view = indexes.peers.get("p").unwrap();
    assert!(view.last_good && view.spec.is_some() && view.problems.len() == 1);
}

#[test]
fn selectors() {
    let parse = |value: Value| Selector::parse(&serde_json::from_value(value).unwrap());
    let labels: Labels = [("a".to_owned(), "1".to_owned())].into();
    for (value, expected) in [
        (json!({}), true),
        (json!({"matchLabels": {"a": "1"}}), true),
        (json!({"matchLabels": {"a": "2"}}), false),
        (json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["2", "1"]}]}), true),
        (json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}), false),
        (json!({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}), true),
        (json!({"matchExpressions": [{"key": "b", "operator": "Exists"}]}), false),
        (json!({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}), true),
    ] {
        assert_eq!(parse(value.clone()).unwrap().matches(&labels), expected, "{value}");
    }
    for bad in [
        json!({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}),
        json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
        json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["1"]}]}),
    ] {
        assert!(parse(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn namespaces_have_their_name_as_label() {
    let mut indexes = Indexes::default();
    let name =
        |indexes: &Indexes| indexes.namespaces.labels("ns").get("kubernetes.io/metadata.name").cloned();
    assert_eq!(name(&indexes).as_deref(), Some("ns"));
    indexes.apply(&object(
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns", "labels": {"a": "b"}}}),
    ));
    assert_eq!(name(&indexes).as_deref(), Some("ns"));
    assert_eq!(indexes.namespaces.labels("ns").get("a").map(String::as_str), Some("b"));
}

#[test]
fn a_service_that_cannot_be_read_keeps_what_is_known_and_says_so() {
    let mut indexes = Indexes::default();
    let key = NamespacedName::new("ns", "s");
    let service = object(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "ns"},
        "spec": {"type": "LoadBalancer", "loadBalancerIP": "192.0.2.1"},
    }));
    indexes.apply(&service);
    let problem = Problem::error("cannot be read", "correct it").at("spec.ports[0].port");
    indexes.set_unreadable(&[(service.reference(), problem)]);
    let view = indexes.services.get(&key).unwrap();
    assert_eq!(view.request_problems[0].field, "spec.ports[0].port");
    assert_eq!(view.requested_addresses, [ip("192.0.2.1")]);
    indexes.set_unreadable(&[]);
    assert_eq!(indexes.services.get(&key).unwrap().request_problems, []);
}
