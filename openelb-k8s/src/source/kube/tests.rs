//! What is read of an object that was stored before its fields had types.

use serde_json::{Value, json};

use super::reflector::read;
use crate::index::{EipView, Indexes, PeerView, unreadable};
use crate::names::annotation::LAST_APPLIED;
use crate::object::{Kind, Object};

fn eip(spec: Value) -> Object {
    let status = json!({"used": {"192.0.2.1": "ns/a"}});
    let object = json!({"metadata": {"name": "p", "resourceVersion": "7"}, "spec": spec, "status": status});
    read(Kind::Eip, object).unwrap()
}

fn view(spec: Value) -> EipView {
    let Object::Eip(eip) = eip(spec) else { panic!("an Eip is one") };
    EipView::parse(&eip)
}

fn fields(view: &EipView) -> Vec<&str> {
    view.problems.iter().map(|problem| problem.field.as_str()).collect()
}

#[test]
fn fields_of_wrong_types_are_left_out_named_and_make_the_spec_bad() {
    let view =
        view(json!({"address": "192.0.2.0/24", "priority": "high", "namespaces": "a", "interface": "eth0"}));
    let mut named = fields(&view);
    named.sort_unstable();
    assert_eq!(named, ["spec.namespaces", "spec.priority"]);
    assert!(view.spec.is_none() && !view.gives(), "it gives nothing new");
    assert_eq!((view.used.len(), view.resource_version.as_str()), (1, "7"), "what is live is known");
    assert_eq!(view.announced_by().unwrap().interface.as_ref().unwrap().to_string(), "eth0");
}

#[test]
fn what_follows_from_it_is_not_told() {
    assert_eq!(fields(&view(json!({"address": {"from": "192.0.2.0"}}))), ["spec.address"]);
    let nothing = view(json!("all of them"));
    assert!(fields(&nothing).contains(&"spec") && nothing.used.len() == 1, "{:?}", nothing.problems);
}

#[test]
fn unknown_fields_of_any_type_are_nothing() {
    let Object::Eip(eip) = eip(json!({"address": "192.0.2.0/24", "comment": [1, {"two": 3}]})) else {
        panic!("an Eip is one")
    };
    assert!(unreadable(&eip.metadata).is_empty());
    assert!(EipView::parse(&eip).gives());
}

#[test]
fn the_mark_is_not_for_users_to_set() {
    let mark = json!({"openelb.kubesphere.io/unreadable": "[[\"spec.address\",\"a\",\"b\"]]"});
    let object = json!({"metadata": {"name": "p", "annotations": mark}, "spec": {"address": "192.0.2.0/24"}});
    let Object::Eip(eip) = read(Kind::Eip, object).unwrap() else { panic!("an Eip is one") };
    assert!(EipView::parse(&eip).problems.is_empty());
}

#[test]
fn a_neighbour_with_a_field_of_the_wrong_type_is_not_spoken_to() {
    let spec = json!({"conf": {"neighborAddress": "192.0.2.1", "peerAs": 1}, "nodeSelector": "node-1"});
    let object = json!({"metadata": {"name": "p"}, "spec": spec});
    let Object::BgpPeer(peer) = read(Kind::BgpPeer, object).unwrap() else { panic!("a BgpPeer is one") };
    let view = PeerView::parse(&peer);
    assert!(view.spec.is_none(), "not with all nodes");
    assert_eq!(view.problems[0].field, "spec.nodeSelector");
}

#[test]
fn what_is_no_object_at_all_is_told() {
    assert!(read(Kind::Service, json!({"metadata": {"name": "s"}, "spec": {"ports": 5}})).is_err());
}

#[test]
fn one_that_becomes_unreadable_goes_on_with_its_last_good_spec() {
    let mut indexes = Indexes::default();
    indexes.apply(&eip(json!({"address": "192.0.2.0/24", "priority": 3})));
    indexes.apply(&eip(json!({"address": "192.0.2.0/24", "priority": "three"})));
    let view = indexes.pools.get("p").unwrap();
    assert!(view.last_good && view.gives());
    assert_eq!((view.spec.as_ref().unwrap().priority, fields(view)), (3, vec!["spec.priority"]));
}

#[test]
fn what_kubectl_noted_counts_only_where_annotations_fill_their_room() {
    for (bytes, kept) in [(1 << 10, false), (200 << 10, true)] {
        let annotations = json!({LAST_APPLIED: "x".repeat(bytes), "example.com/note": "y"});
        let object = json!({"metadata": {"name": "s", "namespace": "ns", "annotations": annotations}});
        let object = read(Kind::Service, object).unwrap();
        assert_eq!(
            object.metadata().annotations.as_ref().unwrap().contains_key(LAST_APPLIED),
            kept,
            "{bytes}"
        );
    }
}
