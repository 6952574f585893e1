use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use super::{MAX_BYTES, MAX_NODES, Own, aggregate, is_worth_writing, own};
use crate::announce::{AddressStatus, AnnouncerProblem, AnnouncerStatus, Protocol, SessionState};
use crate::crd::SpeakerStatusStatus;
use crate::names::condition;
use crate::object::{Kind, ObjectRef};
use crate::plan::announcement;
use crate::plan::status::Wanted;
use crate::plan::tests::{Cluster, established, ip, now, ours};

fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.settings.standalone = false;
    cluster.bgp(json!({"as": 65001}), json!({}));
    cluster
}

fn announced() -> AnnouncerStatus {
    let mut status = established();
    let address = AddressStatus { announced: true, ..AddressStatus::new(Protocol::Bgp, "") };
    status.addresses.insert((ip("192.0.2.1"), Protocol::Bgp), address);
    status
}

fn status(cluster: &Cluster, announced: &AnnouncerStatus) -> SpeakerStatusStatus {
    let desired = announcement::plan(&cluster.indexes, &cluster.settings);
    let healthy = [Wanted::new(condition::DATA_PLANE_HEALTHY, true, "Healthy", "")];
    let problems = BTreeMap::new();
    let words =
        Own { desired: &desired, announced, peer_problems: &problems, conditions: &healthy, version: "1.0" };
    own(&cluster.indexes, &words, None, now())
}

fn say(cluster: &mut Cluster, node: &str, status: &SpeakerStatusStatus) {
    cluster.indexes.apply(&ours(Kind::SpeakerStatus, node, json!({"nodeName": node}), json!(status)));
}

#[test]
fn a_speaker_says_what_it_does() {
    let status = json!(status(&cluster(), &announced()));
    for (path, value) in [
        ("/routerId", json!("10.0.0.1")),
        ("/as", json!(65001)),
        ("/configuredPeers", json!(1)),
        ("/establishedSessions", json!(1)),
        ("/announcedAddresses", json!(1)),
        ("/pools/pool", json!({"v4": 1})),
        ("/peers/router/peerState/sessionState", json!("ESTABLISHED")),
        ("/version", json!("1.0")),
        ("/conditions/0/type", json!("DataPlaneHealthy")),
        ("/conditions/1/status", json!("True")),
    ] {
        assert_eq!(status.pointer(path), Some(&value), "{path} of {status}");
    }
    assert!(!status.to_string().contains("hunter2"), "the password is never written");
}

#[test]
fn what_hinders_a_speaker_is_a_condition() {
    let mut hindered = announced();
    let problem = AnnouncerProblem::new("ListenFailed", "port 179 is taken");
    hindered.problems.push(problem);
    let status = status(&cluster(), &hindered);
    let ready = status.conditions.unwrap().into_iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.message.as_str()), ("False", "port 179 is taken"));
}

#[test]
fn warnings_are_a_condition_and_hinder_nothing() {
    let mut announced = announced();
    let outside = "the address lies in no subnet of eth0: clients there need a route to it (192.0.2.1)";
    announced.warnings.push(AnnouncerProblem::new("AddressOutOfSubnet", outside));
    let said = |announced: &AnnouncerStatus| {
        let conditions = status(&cluster(), announced).conditions.unwrap();
        ["Ready", "Warnings"].map(|kind| {
            let found = conditions.iter().find(|condition| condition.type_ == kind);
            found.map(|found| (found.status.clone(), found.message.clone()))
        })
    };
    let [ready, warnings] = said(&announced);
    assert_eq!(ready.unwrap().0, "True");
    assert_eq!(warnings, Some(("True".to_owned(), outside.to_owned())));
    let local =
        "eth0 of this node has the address, so the kernel answers for it, too: take it off the interface";
    let lan = ObjectRef::cluster(Kind::Eip, "lan");
    announced.problems.push(AnnouncerProblem::new("AddressLocal", local).of([lan]));
    let [ready, warnings] = said(&announced);
    assert_eq!(ready, Some(("False".to_owned(), local.to_owned())), "whatever object it concerns");
    assert_eq!(warnings.unwrap().1, outside);
}

#[test]
fn counters_alone_are_not_worth_a_write() {
    let cluster = cluster();
    let before = status(&cluster, &announced());
    let mut later = announced();
    let session = later.peers.get_mut("router").unwrap();
    (session.sent.keepalive, session.received.keepalive, session.out_queue) = (1000, 1000, 3);
    assert!(!is_worth_writing(&before, &status(&cluster, &later)));
    later.peers.get_mut("router").unwrap().state = SessionState::Active;
    assert!(is_worth_writing(&before, &status(&cluster, &later)));
}

#[test]
fn a_status_stays_below_its_limit() {
    let mut cluster = cluster();
    for number in 0..1000 {
        let spec = json!({"conf": {"neighborAddress": format!("10.{}.{}.1", number / 250, number % 250), "description": "x".repeat(100)}});
        cluster.indexes.apply(&ours(Kind::BgpPeer, &format!("peer-{number}"), spec, json!({})));
    }
    let status = status(&cluster, &announced());
    assert!(serde_json::to_vec(&status).unwrap().len() <= MAX_BYTES);
    assert_eq!(status.configured_peers, Some(1001), "the total stays");
    let kept = status.peers.unwrap().len();
    assert!((20..1001).contains(&kept), "{kept}");
    assert!(status.conditions.unwrap().iter().any(|c| c.type_ == "Truncated" && c.status == "True"));
}

/// A speaker of Layer 2 with so many addresses, of which it stands in for another's with the last.
fn answering(addresses: u32) -> SpeakerStatusStatus {
    let cluster = cluster();
    let mut desired = announcement::plan(&cluster.indexes, &cluster.settings);
    "node-1".clone_into(&mut desired.node);
    let one = desired.addresses.values().next().unwrap().clone();
    desired.addresses.clear();
    let mut announced = AnnouncerStatus::default();
    for number in 1..=addresses {
        let address = IpAddr::from(Ipv4Addr::from(0xc633_0000 + number));
        desired.addresses.insert(address, one.clone());
        let mut status = AddressStatus::new(Protocol::Layer2, "");
        status.announced = true;
        status.interface = Some("eth0".into());
        status.mac = Some("02:00:00:00:00:01".into());
        status.owner = Some(if number == addresses { "node-2" } else { "node-1" }.into());
        status.since = Some(now());
        announced.addresses.insert((address, Protocol::Layer2), status);
    }
    let problems = BTreeMap::new();
    let words = Own {
        desired: &desired,
        announced: &announced,
        peer_problems: &problems,
        conditions: &[],
        version: "1.0",
    };
    own(&cluster.indexes, &words, None, now())
}

#[test]
fn a_speaker_says_how_it_answers() {
    let status = answering(2);
    let answer = |address: &str| {
        json!({"address": address, "interface": "eth0", "mac": "02:00:00:00:00:01",
               "since": json!(now())})
    };
    let mut stand_in = answer("198.51.0.2");
    stand_in["standInFor"] = json!("node-2");
    assert_eq!(json!(status.layer2_answers), json!([answer("198.51.0.1"), stand_in]));
    assert_eq!(json!(status.layer2_addresses), json!(["198.51.0.1", "198.51.0.2"]));
}

#[test]
fn which_addresses_are_answered_is_said_of_more_than_how() {
    let status = answering(2000);
    assert!(serde_json::to_vec(&status).unwrap().len() <= MAX_BYTES);
    assert_eq!(status.layer2_addresses.as_ref().map(Vec::len), Some(2000));
    assert_eq!(status.layer2_truncated, None);
    let answers = status.layer2_answers.unwrap();
    assert!((50..2000).contains(&answers.len()), "{}", answers.len());
    assert!(!status.conditions.unwrap().iter().any(|c| c.type_ == "Truncated"));
    // All of them are too many.
    let status = answering(8000);
    assert!(serde_json::to_vec(&status).unwrap().len() <= MAX_BYTES);
    assert!(status.layer2_addresses.unwrap().len() >= 200);
    assert_eq!((status.layer2_truncated, status.layer2_answers), (Some(true), None));
}

fn patch(cluster: &Cluster, kind: Kind) -> Option<Value> {
    let writes = aggregate(&cluster.indexes, now());
    writes.into_iter().find(|write| write.target.kind == kind).map(|write| write.patch().into_owned())
}

#[test]
fn the_leader_copies_all_speakers_into_peers_and_confs() {
    let mut cluster = cluster();
    let own = status(&cluster, &announced());
    say(&mut cluster, "node-1", &own);
    let mut down = own.clone();
    down.router_id = Some("10.0.0.2".to_owned());
    let session = down.peers.as_mut().unwrap().get_mut("router").unwrap();
    session.peer_state.as_mut().unwrap().session_state = Some("ACTIVE".to_owned());
    say(&mut cluster, "node-2", &down);
    let conf = patch(&cluster, Kind::BgpConf).unwrap();
    assert_eq!(
        conf["status"]["nodesConfStatus"],
        json!({"node-1": {"routerId": "10.0.0.1", "as": 65001}, "node-2": {"routerId": "10.0.0.2", "as": 65001}})
    );
    let peer = patch(&cluster, Kind::BgpPeer).unwrap();
    let sessions = &peer["status"]["nodesPeerStatus"];
    assert_eq!(sessions["node-1"]["peerState"]["sessionState"], "ESTABLISHED");
    assert_eq!(sessions["node-2"]["peerState"]["sessionState"], "ACTIVE");
    let conditions = peer["status"]["conditions"].to_string();
    assert!(
        conditions.contains("SomeDown") && conditions.contains("1 of 2 sessions; down: node-2"),
        "{conditions}"
    );

    // Written, it is not written again.
    for write in aggregate(&cluster.indexes, now()) {
        let (spec, status) = match write.target.kind {
            Kind::BgpConf => (json!({"as": 65001}), write.patch()["status"].clone()),
            _ => (
                json!({"conf": {"neighborAddress": "10.0.0.254", "peerAs": 65000}}),
                write.patch()["status"].clone(),
            ),
        };
        cluster.indexes.apply(&ours(write.target.kind, &write.target.name, spec, status));
    }
    assert_eq!(aggregate(&cluster.indexes, now()), []);

    // The entry of a node without a speaker goes, and so does that of a node that is gone.
    cluster.indexes.delete(&ObjectRef::cluster(Kind::SpeakerStatus, "node-2"));
    cluster.indexes.delete(&ObjectRef::cluster(Kind::Node, "node-1"));
    let peer = patch(&cluster, Kind::BgpPeer).unwrap();
    assert_eq!(peer["status"]["nodesPeerStatus"], json!({"node-1": null, "node-2": null}));
    assert!(peer["status"]["conditions"].to_string().contains("NoNodeSelected"));
}

#[test]
fn the_words_of_a_speaker_reach_the_conditions_of_peers_and_confs() {
    let mut cluster = cluster();
    let mut own = status(&cluster, &announced());
    own.peer_problems = Some([("router".to_owned(), "there is no Secret".to_owned())].into());
    own.conditions.as_mut().unwrap().iter_mut().find(|c| c.type_ == "Ready").unwrap().status =
        "False".to_owned();
    say(&mut cluster, "node-1", &own);
    let peer = patch(&cluster, Kind::BgpPeer).unwrap()["status"]["conditions"].to_string();
    assert!(peer.contains("node-1: there is no Secret"), "{peer}");
    let conf = patch(&cluster, Kind::BgpConf).unwrap()["status"]["conditions"].to_string();
    assert!(conf.contains("node-1: announces what it should"), "{conf}");
}

#[test]
fn no_more_nodes_are_copied_than_an_object_can_hold() {
    let mut cluster = cluster();
    let own = status(&cluster, &announced());
    let count = u8::MAX - 2;
    for number in 1..=count {
        cluster.node(number, json!({}), json!({}), json!(null));
        say(&mut cluster, &format!("node-{number}"), &own);
    }
    let peer = patch(&cluster, Kind::BgpPeer).unwrap();
    assert_eq!(peer["status"]["nodesPeerStatus"].as_object().unwrap().len(), MAX_NODES);
    let conditions = peer["status"]["conditions"].to_string();
    assert!(
        conditions.contains(&format!("{count} of {count} sessions")),
        "the conditions know all: {conditions}"
    );
}
