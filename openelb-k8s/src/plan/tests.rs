use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

use super::status::{Wanted, bgp_counter_writes, bgp_writes, merge_conditions};
use super::{Settings, Write, announcement, map_patch, merge_patch};
use crate::announce::{
    Announcement, AnnouncerProblem, AnnouncerStatus, MessageCounts, NextHops, PeerStatus, Protocol,
    SessionState,
};
use crate::index::Indexes;
use crate::object::{Kind, NamespacedName, Object, ObjectRef};

pub(super) fn object(value: Value) -> Object {
    Object::from_value(value).unwrap().unwrap()
}

pub(super) fn ours(kind: Kind, name: &str, spec: Value, status: Value) -> Object {
    object(json!({
        "apiVersion": kind.api_version(), "kind": kind.as_str(),
        "metadata": {"name": name, "resourceVersion": "7", "generation": 1}, "spec": spec, "status": status,
    }))
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// Three nodes, a pool, and a Service that holds and publishes 192.0.2.1.
pub(super) struct Cluster {
    pub(super) indexes: Indexes,
    pub(super) settings: Settings,
}

impl Cluster {
    pub(super) fn new() -> Self {
        let settings = Settings { node_name: "node-1".to_owned(), ..Settings::default() };
        let mut cluster = Self { indexes: Indexes::default(), settings };
        for number in 1..=3 {
            cluster.node(number, json!({}), json!({}), json!(null));
        }
        cluster.eip("pool", json!({"address": "192.0.2.0/24"}), json!({"192.0.2.1": "ns/s"}));
        cluster.service("s", json!({}), &["192.0.2.1"]);
        cluster
    }

    pub(super) fn node(&mut self, number: u8, labels: Value, spec: Value, conditions: Value) {
        let addresses = json!([{"type": "InternalIP", "address": format!("10.0.0.{number}")}]);
        self.indexes.apply(&object(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("node-{number}"), "labels": labels},
            "spec": spec, "status": {"addresses": addresses, "conditions": conditions},
        })));
    }

    pub(super) fn eip(&mut self, name: &str, spec: Value, used: Value) {
        self.indexes.apply(&ours(Kind::Eip, name, spec, json!({"used": used})));
    }

    pub(super) fn service(&mut self, name: &str, mut spec: Value, addresses: &[&str]) {
        spec["type"] = json!("LoadBalancer");
        let ingress: Vec<Value> = addresses.iter().map(|address| json!({"ip": address})).collect();
        self.indexes.apply(&object(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "ns", "labels": {"app": name},
                          "annotations": {"lb.kubesphere.io/v1alpha1": "openelb"}},
            "spec": spec, "status": {"loadBalancer": {"ingress": ingress}},
        })));
    }

    pub(super) fn endpoints(&mut self, service: &str, nodes: &[&str]) {
        let endpoints: Vec<Value> =
            nodes.iter().map(|node| json!({"addresses": ["10.1.0.1"], "nodeName": node})).collect();
        self.indexes.apply(&object(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": service, "namespace": "ns", "labels": {"kubernetes.io/service-name": service}},
            "endpoints": endpoints,
        })));
    }

    pub(super) fn bgp(&mut self, conf: Value, peer: Value) {
        self.indexes.apply(&ours(Kind::BgpConf, "default", conf, json!({})));
        let mut peer = peer;
        peer["conf"] = json!({"neighborAddress": "10.0.0.254", "peerAs": 65000, "authPassword": "hunter2"});
        self.indexes.apply(&ours(Kind::BgpPeer, "router", peer, json!({})));
    }

    pub(super) fn announced(&self, address: &str) -> Option<Arc<Announcement>> {
        announcement::plan(&self.indexes, &self.settings).addresses.remove(&ip(address))
    }

    /// Who carries 192.0.2.1, and does this node?
    pub(super) fn carriers(&self) -> (Vec<String>, bool) {
        self.announced("192.0.2.1").map_or_else(Default::default, |announcement| {
            (announcement.nodes.iter().map(|hop| hop.node.clone()).collect(), announcement.self_eligible)
        })
    }

    #[track_caller]
    pub(super) fn assert_carriers(&self, nodes: &[&str], this: bool) {
        assert_eq!(self.carriers(), (nodes.iter().map(|node| (*node).to_owned()).collect(), this));
    }
}

const ALL: &[&str] = &["node-1", "node-2", "node-3"];

#[test]
fn what_is_published_and_backed_is_announced() {
    let cluster = Cluster::new();
    let announcement = cluster.announced("192.0.2.1").unwrap();
    assert_eq!(announcement.protocols, BTreeSet::from([Protocol::Bgp]));
    assert_eq!(announcement.pool, "pool");
    assert_eq!(announcement.services, [NamespacedName::new("ns", "s")].into());
    assert_eq!(announcement.nodes[1].addresses, [ip("10.0.0.2")]);
    cluster.assert_carriers(ALL, true);
    let plan = announcement::plan(&cluster.indexes, &cluster.settings);
    assert_eq!((plan.node.as_str(), plan.addresses.len(), plan.bgp), ("node-1", 1, None));
}

#[test]
fn what_no_pool_backs_is_not_announced() {
    let mut cluster = Cluster::new();
    // Outside of every pool; committed to another; a host name; not ours.
    cluster.service("outside", json!({}), &["198.51.100.1"]);
    cluster.service("thief", json!({}), &["192.0.2.1"]);
    cluster.service("foreign", json!({"loadBalancerClass": "other"}), &["192.0.2.9"]);
    let plan = announcement::plan(&cluster.indexes, &cluster.settings);
    assert_eq!(plan.addresses.keys().collect::<Vec<_>>(), [&ip("192.0.2.1")]);
    assert_eq!(plan.addresses[&ip("192.0.2.1")].services, [NamespacedName::new("ns", "s")].into());
    // Covered by one pool, but another records it for somebody else.
    cluster.eip("younger", json!({"address": "203.0.113.0/24"}), json!({"192.0.2.7": "ns/x"}));
    cluster.service("y", json!({}), &["192.0.2.7"]);
    assert_eq!(cluster.announced("192.0.2.7"), None);
}

#[test]
fn a_lost_eip_status_withdraws_nothing() {
    let mut cluster = Cluster::new();
    cluster.eip("pool", json!({"address": "192.0.2.0/24"}), json!({}));
    cluster.assert_carriers(ALL, true);
    cluster.eip("pool", json!({"address": "192.0.2.0/24", "exclude": ["192.0.2.1"]}), json!({}));
    assert_eq!(cluster.announced("192.0.2.1"), None);
}

#[test]
fn an_address_kept_after_a_shrink_is_announced() {
    let mut cluster = Cluster::new();
    cluster.eip("pool", json!({"address": "192.0.2.128/25"}), json!({"192.0.2.1": "ns/s"}));
    cluster.assert_carriers(ALL, true);
    cluster.eip("pool", json!({"address": "192.0.2.128/25"}), json!({}));
    assert_eq!(cluster.announced("192.0.2.1"), None);
}

#[test]
fn protocols() {
    let mut cluster = Cluster::new();
    let used = json!({"192.0.2.1": "ns/s"});
    cluster.eip("pool", json!({"address": "192.0.2.0/24", "protocol": "none"}), used.clone());
    assert_eq!(cluster.announced("192.0.2.1"), None);
    let spec = json!({"address": "192.0.2.0/24", "protocols": ["bgp", "layer2"], "interface": "eth0", "vipGroup": "g"});
    cluster.eip("pool", spec, used);
    let announcement = cluster.announced("192.0.2.1").unwrap();
    assert_eq!(announcement.protocols, BTreeSet::from([Protocol::Bgp, Protocol::Layer2]));
    assert_eq!(announcement.interface.as_ref().unwrap().to_string(), "eth0");
    assert_eq!(announcement.vip_group, None, "only for vip");
}

#[test]
fn the_label_of_a_cni_on_a_pool_means_nothing() {
    let mut cluster = Cluster::new();
    let mut eip =
        ours(Kind::Eip, "pool", json!({"address": "192.0.2.0/24"}), json!({"used": {"192.0.2.1": "ns/s"}}));
    eip.metadata_mut().labels = Some([("openelb.kubesphere.io/cni".to_owned(), "calico".to_owned())].into());
    cluster.indexes.apply(&eip);
    assert!(cluster.announced("192.0.2.1").is_some());
}

#[test]
fn local_follows_the_endpoints() {
    let mut cluster = Cluster::new();
    cluster.service("s", json!({"externalTrafficPolicy": "Local"}), &["192.0.2.1"]);
    assert_eq!(cluster.announced("192.0.2.1"), None, "no endpoint: withdrawn");
    cluster.endpoints("s", &["node-2", "node-3"]);
    cluster.assert_carriers(&["node-2", "node-3"], false);
    cluster.endpoints("s", &["node-1"]);
    cluster.assert_carriers(&["node-1"], true);
    // Shared: the union.
    cluster.eip("pool", json!({"address": "192.0.2.0/24"}), json!({"192.0.2.1": "ns/s;ns/t"}));
    cluster.service("t", json!({"externalTrafficPolicy": "Local"}), &["192.0.2.1"]);
    cluster.endpoints("t", &["node-3"]);
    cluster.assert_carriers(&["node-1", "node-3"], true);
}

#[test]
fn cluster_looks_at_endpoints_only_when_told_to() {
    let mut cluster = Cluster::new();
    cluster.settings.withdraw_without_endpoints = true;
    assert_eq!(cluster.announced("192.0.2.1"), None);
    cluster.endpoints("s", &["node-2"]);
    cluster.assert_carriers(ALL, true);
}

#[test]
fn nodes_that_may_not_carry() {
    let exclude = json!({"node.kubernetes.io/exclude-from-external-load-balancers": ""});
    let mut cluster = Cluster::new();
    cluster.node(2, exclude.clone(), json!({}), json!(null));
    cluster.assert_carriers(&["node-1", "node-3"], true);
    cluster.settings.ignore_exclude_label = true;
    cluster.assert_carriers(ALL, true);
    cluster.settings.ignore_exclude_label = false;
    cluster.node(1, exclude, json!({}), json!(null));
    cluster.assert_carriers(&["node-3"], false);

    let mut cluster = Cluster::new();
    cluster.node(1, json!({}), json!({"unschedulable": true}), json!(null));
    cluster.assert_carriers(ALL, true);
    cluster.settings.exclude_cordoned_nodes = true;
    cluster.assert_carriers(&["node-2", "node-3"], false);

    let mut cluster = Cluster::new();
    cluster.node(3, json!({"edge": "yes"}), json!({}), json!(null));
    let spec = json!({"address": "192.0.2.0/24", "nodeSelector": {"matchLabels": {"edge": "yes"}}});
    cluster.eip("pool", spec, json!({"192.0.2.1": "ns/s"}));
    cluster.assert_carriers(&["node-3"], false);
}

#[test]
fn not_ready_removes_others_but_never_this_node_and_never_all() {
    let down = json!([{"type": "Ready", "status": "Unknown"}]);
    let mut cluster = Cluster::new();
    cluster.node(2, json!({}), json!({}), down.clone());
    cluster.assert_carriers(&["node-1", "node-3"], true);
    cluster.node(1, json!({}), json!({}), down.clone());
    cluster.assert_carriers(&["node-1", "node-3"], true);
    cluster.node(3, json!({}), json!({}), down);
    cluster.assert_carriers(ALL, true);
}

#[test]
fn an_unhealthy_data_plane_takes_this_node_out() {
    let mut cluster = Cluster::new();
    cluster.settings.dataplane_healthy = false;
    cluster.assert_carriers(&["node-2", "node-3"], false);
}

#[test]
fn a_single_host_needs_no_node_document() {
    let mut cluster = Cluster::new();
    for node in ALL {
        cluster.indexes.delete(&ObjectRef::cluster(Kind::Node, *node));
    }
    cluster.assert_carriers(&["node-1"], true);
    cluster.settings.standalone = false;
    assert_eq!(cluster.announced("192.0.2.1"), None);
    // Where there are documents, a node without one is none.
    let mut cluster = Cluster::new();
    cluster.indexes.delete(&ObjectRef::cluster(Kind::Node, "node-1"));
    cluster.assert_carriers(&["node-2", "node-3"], false);
}

#[test]
fn an_address_in_use_outlives_a_bad_spec_and_a_restart() {
    let mut cluster = Cluster::new();
    let used = json!({"192.0.2.1": "ns/s"});
    let bad = json!({"address": "nonsense", "protocol": "layer2", "interface": "eth0"});
    cluster.indexes.delete(&ObjectRef::cluster(Kind::Eip, "pool"));
    cluster.eip("pool", bad, used.clone());
    let announcement = cluster.announced("192.0.2.1").unwrap();
    assert_eq!(announcement.protocols, BTreeSet::from([Protocol::Layer2]));
    cluster.indexes.delete(&ObjectRef::cluster(Kind::Eip, "pool"));
    cluster.eip("pool", json!({"address": "192.0.2.0/24", "protocol": "layer2"}), used);
    assert_eq!(cluster.announced("192.0.2.1"), None, "on no interface");
}

#[test]
fn bgp_of_this_node() {
    let mut cluster = Cluster::new();
    cluster.bgp(json!({"as": 65001, "listenPort": 17900, "routerId": "10.0.0.2"}), json!({}));
    let bgp = announcement::plan(&cluster.indexes, &cluster.settings).bgp.unwrap();
    assert_eq!((bgp.asn, bgp.listen_port), (65001, 17900));
    assert_eq!(IpAddr::V4(bgp.router_id), ip("10.0.0.1"), "10.0.0.2 belongs to another node");
    let peer = &bgp.peers["router"];
    assert_eq!(peer.next_hops, NextHops::SelfOnly);
    assert_eq!(peer.password.as_ref().map(|password| password.expose()), Some("hunter2"));
    assert!(!format!("{bgp:?}").contains("hunter2"));
    cluster.settings.node_name = "node-2".to_owned();
    let bgp = announcement::plan(&cluster.indexes, &cluster.settings).bgp.unwrap();
    assert_eq!(IpAddr::V4(bgp.router_id), ip("10.0.0.2"));
}

#[test]
fn a_node_without_ipv4_has_a_derived_router_id() {
    let mut cluster = Cluster::new();
    cluster.bgp(json!({"as": 65001}), json!({}));
    let id = |cluster: &Cluster| {
        let bgp = announcement::plan(&cluster.indexes, &cluster.settings).bgp.unwrap();
        (bgp.router_id, bgp.router_id_derived)
    };
    cluster.settings.node_name = "unknown-a".to_owned();
    let (first, derived) = id(&cluster);
    assert!(derived && !first.is_unspecified());
    assert_eq!(id(&cluster).0, first, "stable");
    cluster.settings.node_name = "unknown-b".to_owned();
    assert_ne!(id(&cluster).0, first);
}

#[test]
fn racks() {
    let mut cluster = Cluster::new();
    let rack = |rack: &str| json!({"openelb.kubesphere.io/rack": rack});
    cluster.node(1, rack("leaf1"), json!({}), json!(null));
    cluster.node(2, rack("leaf2"), json!({}), json!(null));
    cluster.node(3, rack("leaf1"), json!({}), json!(null));
    let selector = json!({"nodeSelector": {"matchLabels": {"openelb.kubesphere.io/rack": "leaf1"}}});
    cluster.bgp(json!({"as": 65001, "asPerRack": {"leaf1": 65011}, "nextHopMode": "AllNodes"}), selector);
    let plan = announcement::plan(&cluster.indexes, &cluster.settings);
    let bgp = plan.bgp.unwrap();
    assert_eq!((bgp.asn, bgp.rack.as_deref()), (65011, Some("leaf1")));
    assert_eq!(bgp.peers["router"].next_hops, NextHops::AllNodes);
    let hops = plan.addresses[&ip("192.0.2.1")].hops_of_rack(bgp.rack.as_deref());
    assert_eq!(hops.map(|hop| hop.node.as_str()).collect::<Vec<_>>(), ["node-1", "node-3"]);
    cluster.settings.node_name = "node-2".to_owned();
    let bgp = announcement::plan(&cluster.indexes, &cluster.settings).bgp.unwrap();
    assert_eq!((bgp.asn, bgp.peers.len()), (65001, 0));
}

#[test]
fn the_peers_next_hop_mode_overrides_the_confs() {
    let mut cluster = Cluster::new();
    for (conf, peer, expected) in [
        (json!("AllNodes"), json!(null), NextHops::AllNodes),
        (json!("AllNodes"), json!("Self"), NextHops::SelfOnly),
        (json!("Self"), json!("AllNodes"), NextHops::AllNodes),
        (json!(null), json!("Auto"), NextHops::SelfOnly),
    ] {
        cluster.bgp(json!({"as": 65001, "nextHopMode": conf}), json!({"nextHopMode": peer}));
        let bgp = announcement::plan(&cluster.indexes, &cluster.settings).bgp.unwrap();
        assert_eq!(bgp.peers["router"].next_hops, expected, "{conf} {peer}");
    }
}

#[test]
fn rules_of_advertisements() {
    let mut cluster = Cluster::new();
    let rules = json!([
        {"poolNames": ["other"]}, {"serviceSelector": {"matchLabels": {"app": "s"}}},
        {"nodeSelector": {"matchLabels": {"a": "b"}}}, {},
    ]);
    cluster.bgp(json!({"as": 65001}), json!({"advertisements": rules}));
    let plan = announcement::plan(&cluster.indexes, &cluster.settings);
    let address = &plan.addresses[&ip("192.0.2.1")];
    assert_eq!(plan.bgp.unwrap().peers["router"].rules_for(address), Some(vec![1, 3]));
    cluster.bgp(json!({"as": 65001}), json!({}));
    let plan = announcement::plan(&cluster.indexes, &cluster.settings);
    assert_eq!(plan.bgp.unwrap().peers["router"].rules_for(address), None);
}

#[test]
fn a_password_of_a_secret_comes_first() {
    let mut cluster = Cluster::new();
    cluster.bgp(json!({"as": 65001}), json!({"passwordSecretRef": {"name": "bgp", "key": "k"}}));
    cluster.indexes.apply(&object(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bgp", "namespace": "openelb-system"},
        "data": {"k": "c2VjcmV0Cg=="},
    })));
    let bgp = announcement::plan(&cluster.indexes, &cluster.settings).bgp.unwrap();
    assert_eq!(bgp.peers["router"].password.as_ref().unwrap().expose(), "secret");
}

pub(super) fn established() -> AnnouncerStatus {
    let session = PeerStatus {
        address: Some(ip("10.0.0.254")),
        local_asn: 65001,
        peer_asn: 65000,
        router_id: Some("1.1.1.1".parse().unwrap()),
        state: SessionState::Established,
        sent: MessageCounts { open: 1, keepalive: 5, ..MessageCounts::default() },
        hold_time: 30,
        negotiated_hold_time: Some(9),
        up_since: Some(now()),
        ..PeerStatus::default()
    };
    AnnouncerStatus { peers: [("router".to_owned(), session)].into(), ..AnnouncerStatus::default() }
}

/// Executes writes on the objects as a store would.
fn execute(cluster: &mut Cluster, writes: &[Write]) {
    for write in writes {
        assert_eq!(write.resource_version, "7");
        let (kind, name) = (write.target.kind, write.target.name.clone());
        let (spec, status) = match kind {
            Kind::BgpConf => {
                let view = cluster.indexes.peers.conf().unwrap();
                (json!({"as": 65001}), serde_json::to_value(&view.status).unwrap())
            }
            _ => {
                let view = cluster.indexes.peers.get(&name).unwrap();
                let conf =
                    json!({"neighborAddress": "10.0.0.254", "peerAs": 65000, "authPassword": "hunter2"});
                (json!({"conf": conf}), serde_json::to_value(&view.status).unwrap())
            }
        };
        let mut value = ours(kind, &name, spec, status).to_value().unwrap();
        merge_patch(&mut value, &write.patch());
        cluster.indexes.apply(&object(value));
    }
}

#[test]
fn a_bgp_conf_says_nothing_of_other_objects() {
    let mut cluster = Cluster::new();
    cluster.bgp(json!({"as": 65001}), json!({}));
    let mut status = established();
    let lan = ObjectRef::cluster(Kind::Eip, "lan");
    status
        .problems
        .push(AnnouncerProblem::new("AddressLocal", "eth0 of this node has the address").of([lan]));
    let said = |status: &AnnouncerStatus| {
        let writes = bgp_writes(&cluster.indexes, &cluster.settings, status, now());
        writes[0].patch().pointer("/status/conditions/0/message").cloned()
    };
    assert_eq!(said(&status), Some(json!("in force")));
    status.problems.push(AnnouncerProblem::new("ListenFailed", "port 179 is taken"));
    assert_eq!(said(&status), Some(json!("port 179 is taken")));
}

#[test]
fn the_status_of_peers_has_the_shape_of_the_go_openelb() {
    let mut cluster = Cluster::new();
    cluster.bgp(json!({"as": 65001}), json!({}));
    let writes = bgp_writes(&cluster.indexes, &cluster.settings, &established(), now());
    let targets: Vec<&ObjectRef> = writes.iter().map(|write| &write.target).collect();
    assert_eq!(
        targets,
        [&ObjectRef::cluster(Kind::BgpConf, "default"), &ObjectRef::cluster(Kind::BgpPeer, "router")]
    );
    assert_eq!(
        writes[0].patch().pointer("/status/nodesConfStatus"),
        Some(&json!({"node-1": {"routerId": "10.0.0.1", "as": 65001}}))
    );
    let patch = writes[1].patch();
    let node = patch.pointer("/status/nodesPeerStatus/node-1").unwrap();
    let state = &node["peerState"];
    assert_eq!(
        (&state["sessionState"], &state["neighborAddress"]),
        (&json!("ESTABLISHED"), &json!("10.0.0.254"))
    );
    assert_eq!(
        (&state["localAs"], &state["peerAs"], &state["peerType"]),
        (&json!(65001), &json!(65000), &json!(1))
    );
    assert_eq!((&state["routerId"], &state["adminState"]), (&json!("1.1.1.1"), &json!("UP")));
    assert_eq!(
        (&state["messages"]["sent"]["keepalive"], &state["messages"]["sent"]["total"]),
        (&json!("5"), &json!("6"))
    );
    assert_eq!(node["timersState"]["negotiatedHoldTime"], json!("9"));
    assert_eq!(node["timersState"]["uptime"], json!("2027-01-15T08:00:00Z"));
    assert!(!format!("{writes:?}").contains("hunter2"), "the password is never written");

    execute(&mut cluster, &writes);
    assert_eq!(
        bgp_writes(&cluster.indexes, &cluster.settings, &established(), now()),
        [],
        "everything is written"
    );
    let mut later = established();
    later.peers.get_mut("router").unwrap().sent.keepalive = 6;
    assert_eq!(bgp_writes(&cluster.indexes, &cluster.settings, &later, now()), [], "a counter is no reason");
    assert_eq!(bgp_counter_writes(&cluster.indexes, &cluster.settings, &later, now()).len(), 1);
    later.peers.get_mut("router").unwrap().state = SessionState::Active;
    let writes = bgp_writes(&cluster.indexes, &cluster.settings, &later, now());
    let patch = writes[0].patch();
    let conditions = patch.pointer("/status/conditions").unwrap();
    let established = conditions.as_array().unwrap().iter().find(|c| c["type"] == "Established").unwrap();
    assert_eq!((&established["status"], &established["reason"]), (&json!("False"), &json!("AllDown")));
}

/// What a session had and has no more is removed, else the same would be written again for ever.
#[test]
fn what_a_session_has_no_more_goes_from_its_status() {
    let mut cluster = Cluster::new();
    cluster.bgp(json!({"as": 65001}), json!({}));
    let writes = bgp_writes(&cluster.indexes, &cluster.settings, &established(), now());
    execute(&mut cluster, &writes);
    let mut down = established();
    let session = down.peers.get_mut("router").unwrap();
    (session.state, session.negotiated_hold_time, session.up_since, session.router_id) =
        (SessionState::Active, None, None, None);
    session.last_error = Some("hold timer expired".to_owned());
    for status in [down, established()] {
        let writes = bgp_writes(&cluster.indexes, &cluster.settings, &status, now());
        assert_ne!(writes, []);
        execute(&mut cluster, &writes);
        assert_eq!(
            bgp_writes(&cluster.indexes, &cluster.settings, &status, now()),
            [],
            "everything is written"
        );
    }
    let view = cluster.indexes.peers.get("router").unwrap();
    let node = &view.status.nodes_peer_status.as_ref().unwrap()["node-1"];
    assert_eq!(node.session.as_ref().unwrap().last_error, None);
}

#[test]
fn entries_of_nodes_that_are_gone_go() {
    let mut cluster = Cluster::new();
    cluster.bgp(json!({"as": 65001}), json!({}));
    let status = json!({"nodesPeerStatus": {"gone": {}, "node-2": {"peerState": {"sessionState": "IDLE"}}}});
    let conf = json!({"neighborAddress": "10.0.0.254"});
    cluster.indexes.apply(&ours(Kind::BgpPeer, "router", json!({"conf": conf}), status));
    let writes = bgp_writes(&cluster.indexes, &cluster.settings, &established(), now());
    let patch = writes[1].patch();
    let entries = patch.pointer("/status/nodesPeerStatus").unwrap();
    assert_eq!(entries["gone"], json!(null));
    assert_eq!(entries.get("node-2"), None, "another node's entry is not ours to write");
    let conditions = writes[1].patch().pointer("/status/conditions").unwrap().to_string();
    assert!(conditions.contains("SomeDown") && conditions.contains("down: node-2"), "{conditions}");
}

#[test]
fn a_bad_conf_says_so_and_finalizers_of_the_go_openelb_go() {
    let mut cluster = Cluster::new();
    let mut conf = ours(Kind::BgpConf, "default", json!({}), json!({}));
    conf.metadata_mut().finalizers =
        Some(vec!["finalizer.lb.kubesphere.io/v1alpha1".to_owned(), "theirs".to_owned()]);
    conf.metadata_mut().annotations =
        Some([("lb.kubesphere.io/v1alpha1".to_owned(), "2024-06-14 08:00:00 UTC".to_owned())].into());
    cluster.indexes.apply(&conf);
    let writes = bgp_writes(&cluster.indexes, &cluster.settings, &AnnouncerStatus::default(), now());
    assert_eq!(
        writes[0].patch()["metadata"],
        json!({"finalizers": ["theirs"], "annotations": {"lb.kubesphere.io/v1alpha1": null}})
    );
    let patch = writes[0].patch();
    let condition = &patch.pointer("/status/conditions").unwrap()[0];
    assert_eq!(
        (&condition["type"], &condition["status"], &condition["reason"]),
        (&json!("Ready"), &json!("False"), &json!("InvalidSpec"))
    );
    assert!(condition["message"].as_str().unwrap().contains("spec.as: there is no AS number"));
}

#[test]
fn conditions_keep_their_transition_time() {
    let wanted = |status, message: &str| Wanted::new("Ready", status, "Reason", message);
    let first = merge_conditions(&[], &["Ready"], &[wanted(true, "a")], Some(1), now());
    let later = Timestamp::from_second(1_900_000_000).unwrap();
    let second = merge_conditions(&first, &["Ready"], &[wanted(true, "b")], Some(2), later);
    assert_eq!(second[0].last_transition_time.0, now());
    assert_eq!((second[0].message.as_str(), second[0].observed_generation), ("b", Some(2)));
    let third = merge_conditions(&second, &["Ready"], &[wanted(false, "b")], Some(2), later);
    assert_eq!(third[0].last_transition_time.0, later);
    let theirs = Condition { type_: "Theirs".to_owned(), ..third[0].clone() };
    let both = [third[0].clone(), theirs.clone()];
    assert_eq!(merge_conditions(&both, &["Ready"], &[], None, later), [theirs]);
    let long = merge_conditions(&[], &[], &[wanted(true, &"ä".repeat(40_000))], None, now());
    assert!(long[0].message.len() <= 32_768 && long[0].message.ends_with('…'));
}

#[test]
fn merge_patches() {
    // The examples of RFC 7386, Appendix A.
    for (target, patch, expected) in [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
        (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
    ] {
        let mut value = target.clone();
        merge_patch(&mut value, &patch);
        assert_eq!(value, expected, "{target} {patch}");
    }
}

#[test]
fn a_write_is_a_patch_of_what_was_set() {
    let write = Write::new(ObjectRef::cluster(Kind::Eip, "pool"), "7");
    assert!(write.is_empty());
    let write =
        write.label("l", Some("v")).annotation("a", None).set(&["status", "usage"], json!(1)).finalizers(&[]);
    assert_eq!(
        *write.patch(),
        json!({"metadata": {"labels": {"l": "v"}, "annotations": {"a": null}, "finalizers": []}, "status": {"usage": 1}})
    );
    let map =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let patch =
        map_patch(&map(&[("a", "1"), ("b", "2"), ("c", "3")]), &map(&[("a", "1"), ("b", "9"), ("d", "4")]));
    assert_eq!(Value::Object(patch), json!({"b": "9", "c": null, "d": "4"}));
}
