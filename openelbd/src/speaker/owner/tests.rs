use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kube::Client;
use openelb_k8s::{
    announce::{AddressStatus, Announcements, Announcer, AnnouncerStatus, Protocol},
    index::{layer2::Failback, services::ClassRules},
    object::{Kind, NamespacedName, Object, ObjectRef},
    plan::Settings,
    source::kube::{Change, watch as watch_kinds},
};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Owner, Parts, REQUIRED, RETURN_WITHIN};
use crate::{
    adapter::{bgp::ApiOptions, layer2::Layer2Options},
    api_events::Reporter,
    http::{
        ListenAddress, Readiness,
        metrics::{Metrics, Sources},
    },
    kubernetes::ClusterArguments,
    speaker::{Options, Probe, StopMode, Workload, data_plane::Health, own_status, secrets::Secrets},
};

/// Announces nothing: the tests say what is announced.
struct Nobody;

impl Announcer for Nobody {
    fn set_desired(&self, _: Announcements) {}

    fn status(&self) -> watch::Receiver<Arc<AnnouncerStatus>> {
        watch::channel(Arc::default()).1
    }
}

fn options() -> Options {
    Options {
        cluster: ClusterArguments::default(),
        metrics_addr: ListenAddress::Off,
        http_bind_address: ListenAddress::Off,
        rules: ClassRules::default(),
        settings: Settings { node_name: "node-1".to_owned(), standalone: false, ..Settings::default() },
        layer2: Layer2Options::default(),
        api: ApiOptions::default(),
        reject_undelivered: false,
        checkpoint: None,
        data_plane: Probe::None,
        on_stop: StopMode::Auto,
        workload: Workload { namespace: "openelb-system".to_owned(), name: "openelb-speaker".to_owned() },
        drain_timeout: Duration::ZERO,
    }
}

/// The speaker of node-1 with an API server that never answers; everything is listed, and nothing is there but two nodes
/// with speakers, two pools and a neighbour.
fn owner() -> Owner {
    let client = Client::new(axum::Router::<()>::new().fallback(std::future::pending::<()>), "default");
    let parts = Parts {
        announcer: Arc::new(Nobody),
        watches: watch_kinds(client.clone(), []).0,
        secrets: Secrets::new(client.clone(), "openelb-system").0,
        own_status: own_status::spawn(client.clone(), "node-1".to_owned()).0,
        reporter: Reporter::spawn(client, "test", "node-1"),
        metrics: Arc::new(Metrics::new(Sources::default())),
        readiness: watch::channel(Readiness::default()).0,
        data_plane: Some(Health::Healthy),
    };
    let mut owner = Owner::new(&options(), None, parts);
    for node in ["node-1", "node-2"] {
        owner.apply(&object("Node", "v1", node, json!({})));
        owner.apply(&speaker(node, "1"));
    }
    let ours = "network.kubesphere.io/v1alpha2";
    owner.apply(&object("Eip", ours, "pool", json!({"spec": {"address": "192.0.2.0/24"}})));
    let lan = json!({"spec": {"address": "198.51.100.0/24", "protocol": "layer2", "interface": "eth0"}});
    owner.apply(&object("Eip", ours, "lan", lan));
    owner.apply(&object("BgpConf", ours, "default", json!({"spec": {"as": 65001}})));
    let conf = json!({"spec": {"conf": {"neighborAddress": "10.0.0.254", "peerAs": 65000}}});
    owner.apply(&object("BgpPeer", ours, "router", conf));
    for kind in REQUIRED {
        owner.take_in_change(Change::Listed(kind));
    }
    decide(&mut owner);
    owner
}

fn decide(owner: &mut Owner) {
    owner.decide(Instant::now());
    assert!(!owner.undecided);
}

fn object(kind: &str, version: &str, name: &str, rest: Value) -> Object {
    let mut value = json!({
        "apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": null, "generation": 1},
    });
    value.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    Object::from_value(value).unwrap().unwrap()
}

fn speaker(node: &str, version: &str) -> Object {
    let rest = json!({"spec": {"nodeName": node}, "status": {"version": version}});
    object("SpeakerStatus", "network.kubesphere.io/v1alpha2", node, rest)
}

fn service(name: &str, address: &str, policy: &str) -> Object {
    let value = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "ns", "annotations": {"lb.kubesphere.io/v1alpha1": "openelb"}},
        "spec": {"type": "LoadBalancer", "externalTrafficPolicy": policy},
        "status": {"loadBalancer": {"ingress": [{"ip": address}]}},
    });
    Object::from_value(value).unwrap().unwrap()
}

fn slice(service: &str, node: &str) -> Object {
    let value = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": service, "namespace": "ns", "labels": {"kubernetes.io/service-name": service}},
        "endpoints": [{"addresses": ["10.1.0.1"], "nodeName": node}],
    });
    Object::from_value(value).unwrap().unwrap()
}

#[tokio::test]
async fn what_another_speaker_says_of_itself_plans_nothing() {
    let mut owner = owner();
    owner.unshown = false;
    owner.apply(&speaker("node-2", "2"));
    assert!(!owner.undecided, "it is there as before");
    assert!(owner.unshown);
    owner.apply(&speaker("node-3", "1"));
    assert!(owner.undecided && owner.touched.is_none(), "a node has a speaker that had none");
    decide(&mut owner);
    owner.delete(&ObjectRef::cluster(Kind::SpeakerStatus, "node-3"));
    assert!(owner.undecided && owner.touched.is_none(), "its speaker was removed");
}

#[tokio::test]
async fn a_layer2_conf_that_becomes_bad_is_told_and_its_last_good_version_stays_in_force() {
    let mut owner = owner();
    let conf = |failback: &str| {
        let spec = json!({"spec": {"failback": failback, "joinDelay": "1s"}});
        object("Layer2Conf", "network.kubesphere.io/v1alpha2", "default", spec)
    };
    owner.apply(&conf("Manual"));
    decide(&mut owner);
    assert!(owner.unusable.is_empty());
    let good = owner.desired.as_ref().unwrap().layer2.spec.clone();
    assert_eq!(good.failback, Failback::Manual);
    owner.apply(&conf("manual"));
    decide(&mut owner);
    assert_eq!(owner.desired.as_ref().unwrap().layer2.spec, good);
    let reference = ObjectRef::cluster(Kind::Layer2Conf, "default");
    assert_eq!(owner.unusable.iter().collect::<Vec<_>>(), [&reference], "it counts as a problem");
    let told: Vec<_> = owner.events.recent().filter(|told| told.object == reference).collect();
    assert!(
        matches!(&told[..], [told] if told.reason == "InvalidSpec" && told.message.contains("spec.failback"))
    );
    owner.apply(&conf("Immediate"));
    assert!(owner.unusable.is_empty(), "mended");
}

#[tokio::test]
async fn endpoints_of_a_watch_that_has_ended_are_forgotten() {
    let mut owner = owner();
    let key = NamespacedName::new("ns", "s");
    owner.apply(&service("s", "192.0.2.1", "Local"));
    owner.decide(Instant::now());
    assert!(owner.is_unlisted(Kind::EndpointSlice), "they are watched from now on");
    owner.take_in_change(Change::Apply(slice("s", "node-1")));
    assert!(owner.indexes.endpoints.any(&key, &owner.indexes.nodes));
    owner.apply(&service("s", "192.0.2.1", "Cluster"));
    owner.decide(Instant::now());
    // A batch that waited to be taken in.
    owner.take_in_change(Change::Apply(slice("s", "node-1")));
    owner.apply(&service("s", "192.0.2.1", "Local"));
    owner.decide(Instant::now());
    assert!(
        !owner.indexes.endpoints.any(&key, &owner.indexes.nodes),
        "it may be gone, and the new watch cannot know"
    );
    owner.take_in_change(Change::Apply(slice("s", "node-2")));
    assert!(owner.indexes.endpoints.any(&key, &owner.indexes.nodes));
}

#[tokio::test]
async fn a_node_that_is_ready_again_has_time_to_say_how_its_pods_are() {
    let mut owner = owner();
    owner.apply(&service("s", "192.0.2.1", "Local"));
    owner.decide(Instant::now());
    owner.take_in_change(Change::Listed(Kind::EndpointSlice));
    let said = |owner: &mut Owner, ready: bool| {
        let ready = if ready { "True" } else { "Unknown" };
        let conditions = json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}});
        for node in ["node-1", "node-2"] {
            owner.apply(&object("Node", "v1", node, conditions.clone()));
        }
    };
    let pod = |owner: &mut Owner, ready: bool| {
        let Object::EndpointSlice(mut slice) = slice("s", "node-1") else { panic!("no slice") };
        let conditions = json!({"ready": ready, "serving": ready});
        slice.endpoints.as_mut().unwrap()[0].conditions = Some(serde_json::from_value(conditions).unwrap());
        owner.apply(&Object::EndpointSlice(slice));
    };
    let carried = |owner: &mut Owner, now: Instant| {
        owner.judge_returned(now);
        owner.decide(now);
        owner.desired.as_ref().unwrap().addresses.contains_key(&"192.0.2.1".parse().unwrap())
    };
    let now = Instant::now();
    said(&mut owner, true);
    pod(&mut owner, true);
    assert!(carried(&mut owner, now));
    said(&mut owner, false);
    pod(&mut owner, false);
    assert!(carried(&mut owner, now), "nobody sees it");
    said(&mut owner, true);
    assert!(carried(&mut owner, now));
    let end = now + RETURN_WITHIN;
    assert!(carried(&mut owner, end - Duration::from_millis(1)), "the kubelet has not come to it yet");
    assert_eq!(owner.returned.len(), 2);
    assert!(owner.due().is_some_and(|at| at <= end), "nothing else would wake it");
    // It goes and comes again between two looks.
    said(&mut owner, false);
    said(&mut owner, true);
    assert!(carried(&mut owner, end), "the time begins anew");
    let end = end + RETURN_WITHIN;
    assert!(!carried(&mut owner, end), "it does not serve");
    assert!(owner.returned.is_empty());
}

fn addresses(owner: &Owner) -> Vec<String> {
    owner.desired.iter().flat_map(|desired| desired.addresses.keys()).map(ToString::to_string).collect()
}

#[tokio::test]
async fn others_go_on_while_the_endpoints_of_the_first_local_service_are_listed() {
    let mut owner = owner();
    owner.apply(&service("old", "192.0.2.1", "Cluster"));
    owner.apply(&service("becomes-local", "192.0.2.2", "Cluster"));
    owner.apply(&service("becomes-local-and-goes", "192.0.2.3", "Cluster"));
    decide(&mut owner);
    owner.apply(&service("becomes-local", "192.0.2.2", "Local"));
    owner.apply(&service("becomes-local-and-goes", "192.0.2.3", "Local"));
    owner.apply(&service("local", "192.0.2.4", "Local"));
    decide(&mut owner);
    assert!(owner.is_unlisted(Kind::EndpointSlice));
    let nodes = |owner: &Owner, address: &str| {
        let announcement = &owner.desired.as_ref().unwrap().addresses[&address.parse().unwrap()];
        announcement.nodes.iter().map(|hop| hop.node.clone()).collect::<Vec<_>>()
    };
    // What was announced stays as it was, and what was not is not yet.
    assert_eq!(addresses(&owner), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
    assert_eq!(nodes(&owner, "192.0.2.2"), ["node-1", "node-2"]);
    owner.apply(&service("new", "192.0.2.5", "Cluster"));
    for gone in ["old", "becomes-local-and-goes"] {
        owner.delete(&ObjectRef::namespaced(Kind::Service, &NamespacedName::new("ns", gone)));
    }
    owner.take_in(vec![Change::Apply(slice("becomes-local", "node-2"))]);
    decide(&mut owner);
    assert_eq!(addresses(&owner), ["192.0.2.2", "192.0.2.5"]);
    assert_eq!(nodes(&owner, "192.0.2.2"), ["node-1", "node-2"], "there may be more endpoints");
    assert!(!owner.is_complete(), "no checkpoint is written of it");
    owner.take_in(vec![Change::Apply(slice("local", "node-1")), Change::Listed(Kind::EndpointSlice)]);
    decide(&mut owner);
    assert_eq!(addresses(&owner), ["192.0.2.2", "192.0.2.4", "192.0.2.5"]);
    assert_eq!(nodes(&owner, "192.0.2.2"), ["node-2"]);
    // No pool backs it any more.
    owner.apply(&service("becomes-local", "192.0.2.2", "Cluster"));
    owner.apply(&service("local", "192.0.2.4", "Cluster"));
    decide(&mut owner);
    owner.apply(&service("local", "192.0.2.4", "Local"));
    owner.delete(&ObjectRef::cluster(Kind::Eip, "pool"));
    decide(&mut owner);
    assert!(owner.is_unlisted(Kind::EndpointSlice));
    assert_eq!(addresses(&owner), [""; 0]);
}

/// What was told of Services.
fn told(owner: &Owner) -> Vec<String> {
    let of_services = owner.events.recent().filter(|told| told.object.kind == Kind::Service);
    of_services.map(|told| format!("{} {}", told.reason, told.object.name)).collect()
}

fn announced(owner: &mut Owner, addresses: &[&str]) {
    let mut status = AnnouncerStatus::default();
    for address in addresses {
        let announced = AddressStatus { announced: true, ..AddressStatus::new(Protocol::Bgp, "") };
        status.addresses.insert((address.parse().unwrap(), Protocol::Bgp), announced);
    }
    let lan = AddressStatus { owner: Some("node-2".to_owned()), ..AddressStatus::new(Protocol::Layer2, "") };
    status.addresses.insert(("198.51.100.1".parse().unwrap(), Protocol::Layer2), lan);
    owner.announced = Arc::new(status);
    owner.show(Instant::now());
}

#[tokio::test]
async fn services_are_told_of_beside_those_that_other_nodes_carry() {
    let mut owner = owner();
    owner.apply(&service("old", "192.0.2.1", "Cluster"));
    owner.apply(&service("local", "192.0.2.2", "Local"));
    owner.apply(&service("lan", "198.51.100.1", "Cluster"));
    owner.decide(Instant::now());
    owner.take_in_change(Change::Apply(slice("local", "node-2")));
    owner.take_in_change(Change::Listed(Kind::EndpointSlice));
    decide(&mut owner);
    // Node-2 carries one and owns the other on its LAN. What a start finds is no news.
    announced(&mut owner, &[]);
    assert_eq!(owner.announced_services, None, "its own one is still to come");
    announced(&mut owner, &["192.0.2.1"]);
    assert_eq!(told(&owner), [""; 0]);
    owner.apply(&service("new", "192.0.2.3", "Cluster"));
    decide(&mut owner);
    announced(&mut owner, &["192.0.2.1"]);
    announced(&mut owner, &["192.0.2.1", "192.0.2.3"]);
    announced(&mut owner, &["192.0.2.3"]);
    assert_eq!(told(&owner), ["SetBalancer new", "DelBalancer old"]);
}

/// What was told of pools.
fn told_of_pools(owner: &Owner) -> Vec<String> {
    let of_pools = owner.events.recent().filter(|told| told.object.kind == Kind::Eip);
    of_pools.map(|told| format!("{} {}: {}", told.reason, told.object.name, told.message)).collect()
}

#[tokio::test]
async fn pools_are_told_of_as_they_are_set_up() {
    let mut owner = owner();
    assert_eq!(told_of_pools(&owner), [""; 0], "what a start finds is no news");
    let lan = |interface: &str| {
        let spec = json!({"address": "198.51.100.0/24", "protocol": "layer2", "interface": interface});
        object("Eip", "network.kubesphere.io/v1alpha2", "lan", json!({"spec": spec}))
    };
    for vip in ["vip", "none"] {
        let spec = json!({"address": "203.0.113.0/24", "protocol": vip, "interface": "eth0"});
        owner.apply(&object("Eip", "network.kubesphere.io/v1alpha2", vip, json!({"spec": spec})));
    }
    owner.apply(&lan("eth1"));
    decide(&mut owner);
    decide(&mut owner);
    let set_up = "ConfigSpeaker lan: its addresses are announced by layer2, interface eth1";
    assert_eq!(told_of_pools(&owner), [set_up]);
    owner.apply(&object(
        "Eip",
        "network.kubesphere.io/v1alpha2",
        "lan",
        json!({"spec": {"address": "198.51.100.0/24", "protocol": "none"}}),
    ));
    decide(&mut owner);
    assert_eq!(told_of_pools(&owner), [set_up], "somebody else announces it");
    owner.apply(&lan("eth1"));
    decide(&mut owner);
    assert_eq!(told_of_pools(&owner), [set_up, set_up], "it is ours again");

    // A Service has an address of it, and this node has no such interface.
    owner.apply(&service("web", "198.51.100.1", "Cluster"));
    decide(&mut owner);
    let state = |hindrance: Option<&str>, owner: Option<&str>, unsettled| {
        let mut status = AnnouncerStatus { unsettled, ..AnnouncerStatus::default() };
        let mut one = AddressStatus::new(Protocol::Layer2, "");
        (one.hindrance, one.owner) = (hindrance.map(str::to_owned), owner.map(str::to_owned));
        status.addresses.insert(("198.51.100.1".parse().unwrap(), Protocol::Layer2), one);
        Arc::new(status)
    };
    let mut look = |status| {
        owner.set_announced(status);
        owner.look(Instant::now());
        told_of_pools(&owner).split_off(2)
    };
    for _ in 0..2 {
        assert_eq!(look(state(Some("no eth1"), None, true)), [""; 0], "another node may have it");
        assert_eq!(look(state(Some("no eth1"), Some("node-2"), false)), [""; 0], "another node has it");
    }
    assert_eq!(look(state(Some("no eth1"), None, false)), [""; 0], "a new one has no owner at first");
    let failed = "ConfigSpeakerFailed lan: node-1: no eth1";
    for _ in 0..2 {
        assert_eq!(look(state(Some("no eth1"), None, false)), [failed], "once");
    }
    look(state(None, Some("node-1"), false));
    look(state(Some("no eth1"), None, false));
    assert_eq!(look(state(Some("no eth1"), None, false)), [failed, failed], "it came back");
}

#[tokio::test]
async fn one_of_the_nodes_that_may_carry_an_address_tells_what_keeps_all_of_them_from_it() {
    let failed = "ConfigSpeakerFailed lan: node-1: no eth1";
    // Another node is the first by name: it has a speaker, or not, and may carry addresses of the pool, or not.
    for (has_speaker, selector, expected) in [
        (true, json!({}), None),
        (false, json!({}), Some(failed)),
        (true, json!({"nodeSelector": {"matchLabels": {"lan": "here"}}}), Some(failed)),
    ] {
        let mut owner = owner();
        for node in ["node-0", "node-1"] {
            let labels = if node == "node-1" { json!({"lan": "here"}) } else { json!({}) };
            owner.apply(&object("Node", "v1", node, json!({"metadata": {"name": node, "labels": labels}})));
        }
        if has_speaker {
            owner.apply(&speaker("node-0", "1"));
        }
        let mut spec = json!({"address": "198.51.100.0/24", "protocol": "layer2", "interface": "eth1"});
        spec.as_object_mut().unwrap().extend(selector.as_object().unwrap().clone());
        owner.apply(&object("Eip", "network.kubesphere.io/v1alpha2", "lan", json!({"spec": spec})));
        owner.apply(&service("web", "198.51.100.1", "Cluster"));
        decide(&mut owner);
        let mut status = AnnouncerStatus::default();
        let mut one = AddressStatus::new(Protocol::Layer2, "");
        one.hindrance = Some("no eth1".to_owned());
        status.addresses.insert(("198.51.100.1".parse().unwrap(), Protocol::Layer2), one);
        let status = Arc::new(status);
        for _ in 0..2 {
            owner.set_announced(Arc::clone(&status));
            owner.look(Instant::now());
        }
        let told = told_of_pools(&owner);
        let told: Vec<_> = told.iter().filter(|told| told.starts_with("ConfigSpeakerFailed")).collect();
        assert_eq!(told, expected.iter().collect::<Vec<_>>(), "{has_speaker} {selector}");
    }
}

#[tokio::test]
async fn each_outage_of_the_data_plane_is_told_once() {
    let mut owner = owner();
    let told =
        |owner: &Owner| owner.events.recent().filter(|event| event.reason == "DataPlaneUnhealthy").count();
    for outages in 1..=3 {
        owner.set_data_plane(Some(Health::Unhealthy("kube-proxy does not answer".to_owned())));
        owner.set_data_plane(Some(Health::Unhealthy("kube-proxy does not answer".to_owned())));
        assert_eq!(told(&owner), outages, "one event for each outage");
        owner.set_data_plane(Some(Health::Healthy));
    }
}
