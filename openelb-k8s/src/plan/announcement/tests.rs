use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{may_be_announced, plan, teller, update, warnings};
use crate::announce::{AddressStatus, AnnouncerStatus, PeerAnnouncements, Protocol};
use crate::object::{Kind, ObjectRef};
use crate::plan::tests::{Cluster, ip, object, ours};

const RACK: &str = "openelb.kubesphere.io/rack";

/// A cluster with BGP, not standalone, in which the speakers of these nodes run.
fn cluster(peer: Value, speakers: &[u8]) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.settings.standalone = false;
    cluster.bgp(json!({"as": 65001}), peer);
    for number in speakers {
        speaker(&mut cluster, &format!("node-{number}"));
    }
    cluster
}

fn speaker(cluster: &mut Cluster, node: &str) {
    cluster.indexes.apply(&ours(Kind::SpeakerStatus, node, json!({"nodeName": node}), json!({})));
}

fn peer(cluster: &Cluster) -> PeerAnnouncements {
    plan(&cluster.indexes, &cluster.settings).bgp.unwrap().peers["router"].clone()
}

/// Whom this node announces 192.0.2.1 for, beside itself.
fn on_behalf(cluster: &Cluster) -> Vec<String> {
    let announcement = cluster.announced("192.0.2.1").unwrap();
    let peer = peer(cluster);
    let hops = peer.on_behalf_of(&cluster.settings.node_name, ip("192.0.2.1"), &announcement);
    hops.into_iter().map(|hop| hop.node.clone()).collect()
}

#[test]
fn auto_announces_nodes_without_a_speaker() {
    let mut cluster = cluster(json!({}), &[1]);
    assert_eq!(on_behalf(&cluster), ["node-2", "node-3"]);
    cluster.settings.node_name = "node-2".to_owned();
    speaker(&mut cluster, "node-2");
    assert_eq!(on_behalf(&cluster), ["node-3"]);
    speaker(&mut cluster, "node-3");
    assert_eq!(peer(&cluster).on_behalf, None, "each has its own session");
    cluster.indexes.delete(&ObjectRef::cluster(Kind::SpeakerStatus, "node-3"));
    assert_eq!(on_behalf(&cluster), ["node-3"], "its speaker was removed");
}

#[test]
fn auto_announces_nodes_that_the_peers_node_selector_leaves_out() {
    let edge = json!({"nodeSelector": {"matchLabels": {"edge": "yes"}}});
    let mut cluster = cluster(edge, &[1, 2, 3]);
    cluster.node(1, json!({"edge": "yes"}), json!({}), json!(null));
    assert_eq!(on_behalf(&cluster), ["node-2", "node-3"]);
    // A node that has no session announces nobody.
    cluster.settings.node_name = "node-2".to_owned();
    assert!(plan(&cluster.indexes, &cluster.settings).bgp.unwrap().peers.is_empty());
}

#[test]
fn auto_is_self_in_standalone_and_other_modes_know_no_behalf() {
    let mut auto = cluster(json!({}), &[1]);
    auto.settings.standalone = true;
    assert_eq!(peer(&auto).on_behalf, None);
    for mode in ["Self", "AllNodes"] {
        assert_eq!(peer(&cluster(json!({"nextHopMode": mode}), &[1])).on_behalf, None, "{mode}");
    }
}

#[test]
fn auto_announces_only_nodes_of_its_rack() {
    let mut cluster = cluster(json!({}), &[1]);
    cluster.node(2, json!({RACK: "leaf"}), json!({}), json!(null));
    assert_eq!(on_behalf(&cluster), ["node-3"]);
    cluster.node(1, json!({RACK: "leaf"}), json!({}), json!(null));
    assert_eq!(on_behalf(&cluster), ["node-2"]);
}

#[test]
fn auto_announces_only_eligible_nodes_that_are_ready() {
    let down = json!([{"type": "Ready", "status": "Unknown"}]);
    let mut cluster = cluster(json!({}), &[1]);
    cluster.node(2, json!({}), json!({}), down.clone());
    assert_eq!(on_behalf(&cluster), ["node-3"]);
    let permitted = |cluster: &Cluster| {
        let plan = plan(&cluster.indexes, &cluster.settings);
        plan.addresses.values().next().map(|one| one.permitted.to_vec()).unwrap_or_default()
    };
    assert_eq!(permitted(&cluster), ["node-1", "node-2", "node-3"], "it may all the same");
    // The control plane has hiccups: all are NotReady for a minute, and nothing is withdrawn.
    cluster.node(3, json!({}), json!({}), down.clone());
    cluster.node(1, json!({}), json!({}), down);
    assert_eq!(on_behalf(&cluster), ["node-2", "node-3"]);
    cluster.assert_carriers(&["node-1", "node-2", "node-3"], true);
    // Local: only where endpoints are.
    cluster.service("s", json!({"externalTrafficPolicy": "Local"}), &["192.0.2.1"]);
    cluster.endpoints("s", &["node-3"]);
    assert_eq!(on_behalf(&cluster), ["node-3"]);
    assert_eq!(permitted(&cluster), ["node-3"]);
}

#[test]
fn a_hiccup_of_the_control_plane_withdraws_nothing_of_a_local_service() {
    let down = json!([{"type": "Ready", "status": "Unknown"}]);
    let unreachable = json!({"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]});
    for mode in ["Auto", "Self", "AllNodes"] {
        let mut cluster = cluster(json!({"nextHopMode": mode}), &[1]);
        cluster.service("s", json!({"externalTrafficPolicy": "Local"}), &["192.0.2.1"]);
        let endpoints = |cluster: &mut Cluster, ready: [bool; 3]| {
            let endpoint = |number: usize| {
                json!({"addresses": [format!("10.1.{number}.1")], "nodeName": format!("node-{number}"),
                       "conditions": {"ready": ready[number - 1], "serving": ready[number - 1]}})
            };
            cluster.indexes.apply(&object(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": "s", "namespace": "ns", "labels": {"kubernetes.io/service-name": "s"}},
                "endpoints": [endpoint(1), endpoint(2), endpoint(3)],
            })));
        };
        // That of node-3 does not work.
        endpoints(&mut cluster, [true, true, false]);
        let before = plan(&cluster.indexes, &cluster.settings);
        cluster.assert_carriers(&["node-1", "node-2"], true);
        // The node lifecycle controller goes from node to node, and then to their Pods.
        for number in 1..=3 {
            cluster.node(number, json!({}), unreachable.clone(), down.clone());
            assert_eq!(plan(&cluster.indexes, &cluster.settings).bgp, before.bgp, "{mode}");
        }
        for ready in [[true, false, false], [false, false, false]] {
            endpoints(&mut cluster, ready);
            assert_eq!(plan(&cluster.indexes, &cluster.settings), before, "{mode}: {ready:?}");
        }
        for number in 1..=3 {
            cluster.node(number, json!({}), json!({}), json!(null));
            assert_eq!(plan(&cluster.indexes, &cluster.settings).bgp, before.bgp, "{mode}");
            cluster.assert_carriers(&["node-1", "node-2"], true);
        }
        let returning = cluster.indexes.endpoints.returning().clone();
        assert!(returning.keys().eq(["node-1", "node-2", "node-3"]), "{mode}: {returning:?}");
        for node in returning.into_keys() {
            cluster.indexes.judge(&node);
        }
        assert_eq!(cluster.announced("192.0.2.1"), None, "{mode}: it is seen that nobody serves");
    }
}

#[test]
fn auto_announces_only_next_hops_that_the_neighbour_reaches() {
    let mut far = cluster(json!({}), &[1]);
    // The neighbour is 10.0.0.254.
    far.settings.connected = vec!["10.0.0.0/30".parse().unwrap(), "10.0.0.128/25".parse().unwrap()];
    assert_eq!(peer(&far).on_behalf, None, "10.0.0.2 is not on the neighbour's subnet");
    far.settings.connected = vec!["10.0.0.0/24".parse().unwrap()];
    assert_eq!(on_behalf(&far), ["node-2", "node-3"]);
    // Beyond several hops it looks next hops up.
    let mut multihop = cluster(json!({"ebgpMultihop": {"enabled": true, "multihopTtl": 4}}), &[1]);
    multihop.settings.connected = vec!["172.16.0.0/24".parse().unwrap()];
    assert_eq!(on_behalf(&multihop), ["node-2", "node-3"]);
    let mut own = cluster(json!({}), &[1]);
    own.settings.connected = vec!["172.16.0.0/24".parse().unwrap()];
    assert_eq!(peer(&own).on_behalf, None);
    // An internal one, too.
    own.indexes.apply(&ours(Kind::BgpConf, "default", json!({"as": 65000}), json!({})));
    assert_eq!(on_behalf(&own), ["node-2", "node-3"]);
    // A node without an address of the family cannot be announced.
    own.indexes.apply(&object(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-2"},
        "status": {"addresses": [{"type": "InternalIP", "address": "fd00::2"}]},
    })));
    assert_eq!(on_behalf(&own), ["node-3"]);
}

fn family(send_max: u8) -> Value {
    json!({"afiSafis": [{
        "config": {"family": {"afi": "AFI_IP", "safi": "SAFI_UNICAST"}, "enabled": true},
        "addPaths": {"config": {"sendMax": send_max}},
    }]})
}

/// Whom each of the speakers announces, by node.
fn split(cluster: &mut Cluster, speakers: &[u8]) -> BTreeMap<String, Vec<String>> {
    let mut split = BTreeMap::new();
    for number in speakers {
        cluster.settings.node_name = format!("node-{number}");
        split.insert(cluster.settings.node_name.clone(), on_behalf(cluster));
    }
    split
}

#[test]
fn more_nodes_than_paths_are_split_between_the_sessions() {
    let mut cluster = cluster(family(4), &[1, 2]);
    for number in 4..=8 {
        cluster.node(number, json!({}), json!({}), json!(null));
    }
    // Six nodes without a session, and room for three beside each speaker itself: each node has one announcer.
    let shares = split(&mut cluster, &[1, 2]);
    assert!(shares.values().all(|share| share.len() == 3), "{shares:?}");
    let all: BTreeSet<&String> = shares.values().flatten().collect();
    assert_eq!(all.len(), 6, "{shares:?}");
    assert_eq!(split(&mut cluster, &[1, 2]), shares, "always the same");
    // Room for more: nodes are announced by both where that is possible, and all are announced.
    cluster.bgp(json!({"as": 65001}), family(6));
    let shares = split(&mut cluster, &[1, 2]);
    assert!(shares.values().all(|share| share.len() == 5), "{shares:?}");
    assert_eq!(shares.values().flatten().collect::<BTreeSet<_>>().len(), 6);
    cluster.bgp(json!({"as": 65001}), family(7));
    assert!(split(&mut cluster, &[1, 2]).values().all(|share| share.len() == 6), "all fit");
}

#[test]
fn a_node_that_leaves_moves_few_others() {
    let mut cluster = cluster(family(30), &[1, 2]);
    for number in 4..=53 {
        cluster.node(number, json!({}), json!({}), json!(null));
    }
    let before = split(&mut cluster, &[1, 2]);
    cluster.indexes.delete(&ObjectRef::cluster(Kind::Node, "node-40"));
    let after = split(&mut cluster, &[1, 2]);
    let moved: usize = before
        .iter()
        .map(|(speaker, nodes)| nodes.iter().filter(|node| !after[speaker].contains(node)).count())
        .sum();
    assert!(moved <= 6, "{moved} of {}", before.values().map(Vec::len).sum::<usize>());
}

#[test]
fn without_additional_paths_a_speaker_announces_itself_or_else_one_other() {
    let mut cluster = cluster(family(0), &[1, 2]);
    for number in 4..=6 {
        cluster.node(number, json!({}), json!({}), json!(null));
    }
    assert_eq!(on_behalf(&cluster), [""; 0], "it is eligible itself");
    for number in [1, 2] {
        cluster.node(
            number,
            json!({"node.kubernetes.io/exclude-from-external-load-balancers": ""}),
            json!({}),
            json!(null),
        );
    }
    let shares = split(&mut cluster, &[1, 2]);
    assert!(shares.values().all(|share| share.len() == 1), "{shares:?}");
    assert_ne!(shares["node-1"], shares["node-2"], "two speakers load two nodes");
}

#[test]
fn an_unhealthy_data_plane_leaves_the_others_even_if_they_are_not_ready() {
    let down = json!([{"type": "Ready", "status": "Unknown"}]);
    let mut cluster = cluster(json!({}), &[1]);
    cluster.settings.dataplane_healthy = false;
    for number in [2, 3] {
        cluster.node(number, json!({}), json!({}), down.clone());
    }
    cluster.assert_carriers(&["node-2", "node-3"], false);
}

#[test]
fn forged_hints_announce_nothing_outside_of_a_pool() {
    let mut cluster = cluster(json!({}), &[1]);
    cluster.indexes.apply(&object(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "forged", "namespace": "ns", "labels": {"eip.openelb.kubesphere.io/v1alpha2": "pool"},
            "annotations": {
                "lb.kubesphere.io/v1alpha1": "openelb",
                "eip.openelb.kubesphere.io/v1alpha1": "203.0.113.1",
                "openelb.kubesphere.io/assigned": "{\"pool\":[\"203.0.113.1\"]}",
            }},
        "spec": {"type": "LoadBalancer", "loadBalancerIP": "203.0.113.1"},
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}, {"ip": "10.0.0.2"}, {"ip": "192.0.2.1"}, {"hostname": "h"}]}},
    })));
    let announced = plan(&cluster.indexes, &cluster.settings).addresses;
    assert_eq!(announced.keys().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.1"]);
    let services = &announced[&ip("192.0.2.1")].services;
    assert_eq!(services.iter().map(ToString::to_string).collect::<Vec<_>>(), ["ns/s"], "its holder alone");
}

#[test]
fn a_cluster_whose_nodes_are_all_excluded_is_warned() {
    let exclude = json!({"node.kubernetes.io/exclude-from-external-load-balancers": ""});
    let mut cluster = cluster(json!({}), &[1]);
    for number in [1, 2] {
        cluster.node(number, exclude.clone(), json!({}), json!(null));
    }
    assert_eq!(warnings(&cluster.indexes, &cluster.settings), [], "node-3 is left");
    cluster.node(3, exclude, json!({}), json!(null));
    let warning = &warnings(&cluster.indexes, &cluster.settings)[0];
    assert_eq!((warning.regarding.to_string().as_str(), warning.reason), ("Eip pool", "NoAnnouncer"));
    assert!(
        warning.message.contains("192.0.2.1") && warning.message.contains("--ignore-exclude-label"),
        "{warning:?}"
    );
    cluster.settings.ignore_exclude_label = true;
    assert_eq!(warnings(&cluster.indexes, &cluster.settings), []);
}

#[test]
fn one_speaker_tells_for_all() {
    let mut cluster = cluster(json!({}), &[]);
    assert_eq!(teller(&cluster.indexes, &cluster.settings), None);
    for number in [2, 3] {
        speaker(&mut cluster, &format!("node-{number}"));
    }
    assert_eq!(teller(&cluster.indexes, &cluster.settings), Some("node-2"));
    cluster.node(2, json!({}), json!({}), json!([{"type": "Ready", "status": "Unknown"}]));
    assert_eq!(teller(&cluster.indexes, &cluster.settings), Some("node-3"));
}

#[test]
fn a_node_that_carries_nothing_does_not_tell_while_another_can() {
    let exclude = json!({"node.kubernetes.io/exclude-from-external-load-balancers": ""});
    let mut cluster = cluster(json!({}), &[1, 2, 3]);
    let tells = |cluster: &Cluster| teller(&cluster.indexes, &cluster.settings).unwrap().to_owned();
    cluster.node(1, exclude.clone(), json!({}), json!(null));
    assert_eq!(tells(&cluster), "node-2", "a control plane node announces nothing");
    cluster.settings.ignore_exclude_label = true;
    assert_eq!(tells(&cluster), "node-1");
    cluster.settings.ignore_exclude_label = false;
    cluster.node(2, json!({}), json!({"unschedulable": true}), json!(null));
    assert_eq!(tells(&cluster), "node-2");
    cluster.settings.exclude_cordoned_nodes = true;
    assert_eq!(tells(&cluster), "node-3");
    cluster.node(3, exclude, json!({}), json!(null));
    assert_eq!(tells(&cluster), "node-1", "somebody tells that nobody announces");
}

#[test]
fn only_what_this_node_may_announce_is_waited_for() {
    let mut cluster = cluster(json!({}), &[1, 2, 3]);
    let layer2 = |address: &str| json!({"address": address, "protocol": "layer2", "interface": "eth0"});
    cluster.eip("lan", layer2("198.51.100.0/24"), json!({}));
    cluster.eip(
        "vip",
        json!({"address": "203.0.113.0/24", "protocol": "vip", "interface": "eth0"}),
        json!({}),
    );
    cluster.eip("six", json!({"address": "2001:db8::/64"}), json!({}));
    cluster.eip("elsewhere", json!({"address": "192.0.3.0/24"}), json!({}));
    for (name, address) in [("lan", "198.51.100.1"), ("vip", "203.0.113.1"), ("six", "2001:db8::1")] {
        cluster.service(name, json!({}), &[address]);
    }
    cluster.service("local", json!({"externalTrafficPolicy": "Local"}), &["192.0.3.1"]);
    cluster.endpoints("local", &["node-2"]);
    let mut status = AnnouncerStatus::default();
    let waited = |cluster: &Cluster, status: &AnnouncerStatus| -> Vec<String> {
        let desired = plan(&cluster.indexes, &cluster.settings);
        let waited = desired
            .addresses
            .iter()
            .filter(|(address, announcement)| may_be_announced(&desired, **address, announcement, status));
        waited.map(|(address, _)| address.to_string()).collect()
    };
    assert_eq!(waited(&cluster, &status), ["192.0.2.1", "198.51.100.1", "2001:db8::1"]);
    // Another node answers on the LAN.
    let mut lan = AddressStatus::new(Protocol::Layer2, "");
    lan.owner = Some("node-2".to_owned());
    status.addresses.insert((ip("198.51.100.1"), Protocol::Layer2), lan.clone());
    assert_eq!(waited(&cluster, &status), ["192.0.2.1", "2001:db8::1"]);
    lan.owner = Some("node-1".to_owned());
    status.addresses.insert((ip("198.51.100.1"), Protocol::Layer2), lan);
    assert_eq!(waited(&cluster, &status), ["192.0.2.1", "198.51.100.1", "2001:db8::1"]);
    // The neighbour takes IPv4 only.
    cluster.bgp(json!({"as": 65001}), family(2));
    assert_eq!(waited(&cluster, &status), ["192.0.2.1", "198.51.100.1"]);
    // It hears of nothing.
    cluster.bgp(json!({"as": 65001}), json!({"advertisements": [{"poolNames": ["other"]}]}));
    assert_eq!(waited(&cluster, &status), ["198.51.100.1"]);
    // What is announced on behalf of another node counts.
    cluster.bgp(json!({"as": 65001}), json!({}));
    cluster.indexes.delete(&ObjectRef::cluster(Kind::SpeakerStatus, "node-2"));
    assert_eq!(waited(&cluster, &status), ["192.0.2.1", "192.0.3.1", "198.51.100.1", "2001:db8::1"]);
}

#[test]
fn a_live_address_stays_when_its_service_asks_for_a_node_proxy() {
    let mut cluster = cluster(json!({}), &[1]);
    cluster.indexes.apply(&object(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "s", "namespace": "ns", "annotations": {
            "lb.kubesphere.io/v1alpha1": "openelb", "node-proxy.openelb.kubesphere.io/type": "daemonset",
        }},
        "spec": {"type": "LoadBalancer"},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
    })));
    cluster.assert_carriers(&["node-1", "node-2", "node-3"], true);
}

#[test]
fn what_is_updated_is_what_is_planned() {
    let mut cluster = cluster(json!({}), &[1, 2, 3]);
    let service = |name: &str, addresses: &[&str], node_proxy: bool| {
        let ingress: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let mut annotations = json!({"lb.kubesphere.io/v1alpha1": "openelb"});
        if node_proxy {
            annotations["node-proxy.openelb.kubesphere.io/type"] = json!("daemonset");
        }
        object(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "default", "annotations": annotations},
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
            "status": {"loadBalancer": {"ingress": ingress}},
        }))
    };
    let mut announcements = plan(&cluster.indexes, &cluster.settings);
    let steps: [(&str, &[&str], bool); 8] = [
        ("b", &["192.0.2.10"], false),
        ("a", &["192.0.2.10"], false),
        ("c", &["192.0.2.11", "198.51.100.1"], false),
        ("c", &["192.0.2.12"], false),
        ("b", &[], false),
        ("a", &["192.0.2.10"], true),
        ("d", &["192.0.2.12"], false),
        ("c", &[], false),
    ];
    for (name, addresses, node_proxy) in steps {
        let key = crate::object::NamespacedName::new("default", name);
        let published = |cluster: &Cluster| {
            cluster.indexes.services.get(&key).map(|service| service.published()).unwrap_or_default()
        };
        let mut touched: BTreeSet<_> = published(&cluster).into_iter().collect();
        cluster.indexes.apply(&service(name, addresses, node_proxy));
        touched.extend(published(&cluster));
        let before = announcements.clone();
        let changed = update(&mut announcements, &cluster.indexes, &cluster.settings, &touched);
        let whole = plan(&cluster.indexes, &cluster.settings);
        assert_eq!(announcements, whole, "{name} {addresses:?}");
        assert_eq!(changed, before != whole, "{name} {addresses:?}");
    }
}
