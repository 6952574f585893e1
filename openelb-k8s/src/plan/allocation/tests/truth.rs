//! Commit, publish, repair.

use serde_json::{Value, json};

use super::world::{World, annotated, asking, default_eip, eip, service, service_in, service_ref, with};
use crate::object::{Kind, NamespacedName, ObjectRef};

fn live(addresses: &[&str], object: Value) -> Value {
    let ingress: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    with(object, json!({"status": {"loadBalancer": {"ingress": ingress}}}))
}

fn used(entries: Value, object: Value) -> Value {
    with(object, json!({"status": {"used": entries}}))
}

#[test]
fn committed_first_then_published_with_the_resource_version_it_was_decided_on() {
    let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9")]);
    world.apply(service("a"));
    let first = world.plan();
    let [commit] = first.writes.as_slice() else { panic!("{first:?}") };
    assert_eq!(commit.target, ObjectRef::cluster(Kind::Eip, "p"));
    assert_eq!(commit.patch()["status"]["used"], json!({"192.0.2.1": "ns/a"}));
    world.execute(commit);
    let second = world.plan();
    let [publish] = second.writes.as_slice() else { panic!("{second:?}") };
    assert_eq!(publish.target, service_ref("a"));
    let view = world.indexes.services.get(&service_ref("a").key()).unwrap();
    assert_eq!(publish.resource_version, view.resource_version);
    assert_eq!(
        publish.patch()["status"]["loadBalancer"]["ingress"],
        json!([{"ip": "192.0.2.1", "ipMode": "VIP"}])
    );
}

#[test]
fn one_write_commits_all_waiting_services_of_a_pool() {
    let mut world = World::of([default_eip("p", "192.0.2.0/24")]);
    for i in 0..100 {
        world.apply(service(&format!("s{i:03}")));
    }
    world.settle();
    assert_eq!(world.writes.iter().filter(|write| write.target.kind == Kind::Eip).count(), 1);
    assert_eq!(world.writes.len(), 101);
}

#[test]
fn released_the_other_way_round_un_published_then_un_committed() {
    let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9"), service("a")]);
    world.apply(with(service("a"), json!({"spec": {"type": "ClusterIP"}})));
    let first = world.plan();
    let [unpublish] = first.writes.as_slice() else { panic!("{first:?}") };
    assert_eq!(unpublish.target, service_ref("a"));
    world.execute(unpublish);
    let second = world.plan();
    let [uncommit] = second.writes.as_slice() else { panic!("{second:?}") };
    assert_eq!(uncommit.patch()["status"]["used"], json!({"192.0.2.1": null}));
    world.settle();
    assert_eq!(world.used("p"), "");
}

#[test]
fn exactly_what_we_put_there_is_removed_from_a_service_that_is_ours_no_more() {
    let theirs = json!({"metadata": {"labels": {"app": "x"}, "annotations": {"note": "y"}}});
    let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9"), with(service("a"), theirs.clone())]);
    world.patch_service(
        "a",
        json!({"metadata": {"finalizers": ["finalizer.lb.kubesphere.io/v1alpha1", "x/y"]}}),
    );
    let ingress = json!([{"ip": "192.0.2.1"}, {"ip": "203.0.113.9"}, {"hostname": "example.com"}]);
    world.patch_service("a", json!({"status": {"loadBalancer": {"ingress": ingress}}}));
    let other = json!({"spec": {"loadBalancerClass": "example.com/other"}});
    world.apply(with(with(service("a"), theirs), other));
    world.settle();
    let object = world.value(&service_ref("a"));
    assert_eq!(object["metadata"]["labels"], json!({"app": "x"}));
    assert_eq!(object["metadata"]["annotations"], json!({"note": "y"}));
    assert_eq!(object["metadata"]["finalizers"], json!(["x/y"]));
    assert_eq!(object["status"]["conditions"], json!([]));
    assert_eq!(
        object["status"]["loadBalancer"]["ingress"],
        json!([{"ip": "203.0.113.9"}, {"hostname": "example.com"}])
    );
    assert_eq!(world.used("p"), "");
}

#[test]
fn published_and_not_committed_to_another_is_committed_again() {
    let world = World::of([default_eip("p", "192.0.2.1-192.0.2.9"), live(&["192.0.2.5"], service("a"))]);
    assert_eq!((world.published("a").as_str(), world.used("p").as_str()), ("192.0.2.5", "192.0.2.5=ns/a"));
}

#[test]
fn committed_and_unpublished_is_published_if_it_satisfies_the_request() {
    let world = World::of([
        used(json!({"192.0.2.5": "ns/a"}), default_eip("p", "192.0.2.1-192.0.2.9")),
        service("a"),
    ]);
    assert_eq!(world.published("a"), "192.0.2.5");
}

#[test]
fn else_it_is_completed_or_released() {
    let mut world = World::new();
    world.apply(used(json!({"192.0.2.5": "ns/a", "192.0.2.6": "ns/b"}), eip("p", "192.0.2.1-192.0.2.9")));
    world.apply(asking("192.0.2.7", service("a")));
    world.apply(asking("203.0.113.1", service("b")));
    world.settle();
    assert_eq!(world.published("a"), "192.0.2.7");
    assert_eq!(world.published("b"), "");
    assert_eq!(world.used("p"), "192.0.2.7=ns/a");
}

#[test]
fn committed_and_published_differ_the_published_one_stays_if_it_is_still_wanted() {
    let mut world = World::new();
    world.apply(used(json!({"192.0.2.5": "ns/a"}), default_eip("p", "192.0.2.1-192.0.2.9")));
    world.apply(live(&["192.0.2.6"], service("a")));
    world.settle();
    assert_eq!((world.published("a").as_str(), world.used("p").as_str()), ("192.0.2.6", "192.0.2.6=ns/a"));
}

#[test]
fn else_the_committed_one_is_published() {
    let mut world = World::new();
    world.apply(used(json!({"192.0.2.5": "ns/a"}), default_eip("p", "192.0.2.1-192.0.2.9")));
    world.apply(asking("192.0.2.5", live(&["192.0.2.6"], service("a"))));
    world.settle();
    assert_eq!((world.published("a").as_str(), world.used("p").as_str()), ("192.0.2.5", "192.0.2.5=ns/a"));
}

#[test]
fn committed_for_a_service_that_is_gone_or_not_ours_is_released() {
    let mut world = World::new();
    world.apply(used(
        json!({"192.0.2.5": "ns/gone;ns/b", "192.0.2.6": "junk"}),
        default_eip("p", "192.0.2.0/28"),
    ));
    world.apply(with(service("b"), json!({"spec": {"loadBalancerClass": "example.com/other"}})));
    world.settle();
    assert_eq!(world.used("p"), "");
}

#[test]
fn what_others_published_is_replaced_and_was_never_given() {
    let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9")]);
    world.apply(live(&["203.0.113.7"], service("a")));
    world.settle();
    assert_eq!(world.published("a"), "192.0.2.1");
    assert!(world.events.iter().all(|event| event.reason != "ReleaseIP"), "{:?}", world.events);
}

#[test]
fn two_that_publish_one_address_the_one_in_used_keeps_it() {
    let mut world = World::new();
    world.apply(used(json!({"192.0.2.5": "ns/young"}), default_eip("p", "192.0.2.5-192.0.2.6")));
    world.apply(live(&["192.0.2.5"], service("old")));
    world.apply(live(&["192.0.2.5"], service("young")));
    world.settle();
    assert_eq!((world.published("young"), world.published("old")), ("192.0.2.5".into(), "192.0.2.6".into()));
}

#[test]
fn two_that_publish_one_address_else_the_oldest_keeps_it() {
    let world = World::of([
        default_eip("p", "192.0.2.5-192.0.2.6"),
        live(&["192.0.2.5"], service("z-old")),
        live(&["192.0.2.5"], service("a-young")),
    ]);
    assert_eq!(
        (world.published("z-old"), world.published("a-young")),
        ("192.0.2.5".into(), "192.0.2.6".into())
    );
}

#[test]
fn an_address_in_any_eips_used_counts_as_taken_for_every_eip() {
    let mut world = World::new();
    world.apply(used(json!({"192.0.2.1": "ns/a"}), eip("other", "198.51.100.1")));
    world.apply(live(&["192.0.2.1"], service("a")));
    world.apply(asking("192.0.2.1", service_in("far", "b")));
    world.apply(default_eip("p", "192.0.2.1"));
    world.settle();
    assert_eq!(world.published_in("far", "b"), "");
    assert_eq!(world.published("a"), "192.0.2.1");
}

#[test]
fn if_another_eip_covers_it_the_record_moves_without_a_write_to_the_service() {
    let mut world =
        World::of([default_eip("p", "192.0.2.1-192.0.2.9"), super::world::from("p", service("a"))]);
    world.apply(default_eip("p", "192.0.2.5-192.0.2.9"));
    world.apply(eip("q", "192.0.2.1-192.0.2.4"));
    world.settle();
    assert_eq!((world.used("p").as_str(), world.used("q").as_str()), ("", "192.0.2.1=ns/a"));
    assert!(!world.writes.iter().any(|write| write.target.kind == Kind::Service), "{:?}", world.writes);
    // It names p and stays in q until its annotation changes.
    assert_eq!(world.published("a"), "192.0.2.1");
    world.apply(super::world::from("p ,p", annotated(service("a"), "x", "y")));
    world.settle();
    assert_eq!(world.published("a"), "192.0.2.1");
}

#[test]
fn a_request_that_names_the_pool_it_already_has_holds_through_a_later_split() {
    let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9"), service("a")]);
    world.apply(super::world::from("p", service("a")));
    world.settle();
    assert_eq!(world.writes.len(), 1, "one write for the edit: {:?}", world.writes);
    assert!(world.writes[0].patch().get("status").is_none(), "{:?}", world.writes);
    world.settle();
    assert_eq!(world.writes, [], "and none after it");
    world.apply(default_eip("p", "192.0.2.5-192.0.2.9"));
    world.apply(eip("q", "192.0.2.1-192.0.2.4"));
    world.settle();
    assert_eq!(world.published("a"), "192.0.2.1");
    assert_eq!((world.used("p").as_str(), world.used("q").as_str()), ("", "192.0.2.1=ns/a"));
    assert!(!world.writes.iter().any(|write| write.target.kind == Kind::Service), "{:?}", world.writes);
    // Asked for again after that, it is given from p.
    world.apply(service("a"));
    world.settle();
    world.apply(super::world::from("p", service("a")));
    world.settle();
    assert_eq!((world.published("a").as_str(), world.used("p").as_str()), ("192.0.2.5", "192.0.2.5=ns/a"));
}

#[test]
fn host_names_and_foreign_addresses_in_the_status_are_replaced() {
    let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9")]);
    let ingress = json!([{"hostname": "example.com"}, {"ip": "203.0.113.5"}]);
    world.apply(with(service("a"), json!({"status": {"loadBalancer": {"ingress": ingress}}})));
    world.settle();
    let object = world.value(&service_ref("a"));
    assert_eq!(object["status"]["loadBalancer"]["ingress"], json!([{"ip": "192.0.2.1", "ipMode": "VIP"}]));
}

#[test]
fn ip_mode_that_the_server_drops_is_not_written_again_and_proxy_is_replaced() {
    let mut world = World::of([default_eip("p", "192.0.2.1"), service("a")]);
    world.patch_service("a", json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}));
    world.settle();
    assert_eq!(world.writes, []);
    let proxy = json!([{"ip": "192.0.2.1", "ipMode": "Proxy"}]);
    world.patch_service("a", json!({"status": {"loadBalancer": {"ingress": proxy}}}));
    world.settle();
    assert_eq!(world.value(&service_ref("a"))["status"]["loadBalancer"]["ingress"][0]["ipMode"], "VIP");
}

#[test]
fn services_that_swap_explicit_addresses_in_one_edit_converge() {
    let mut world = World::of([
        eip("p", "192.0.2.1-192.0.2.9"),
        asking("192.0.2.1", service("a")),
        asking("192.0.2.2", service("b")),
        asking("192.0.2.3", service("c")),
    ]);
    world.apply(asking("192.0.2.2", service("a")));
    world.apply(asking("192.0.2.3", service("b")));
    world.apply(asking("192.0.2.1", service("c")));
    world.settle();
    assert_eq!(world.used("p"), "192.0.2.1=ns/c 192.0.2.2=ns/a 192.0.2.3=ns/b");
    assert_eq!(world.published("a"), "192.0.2.2");
}

#[test]
fn a_chain_of_moves_needs_nobody_to_be_without_address() {
    let mut world = World::of([
        eip("p", "192.0.2.1-192.0.2.9"),
        asking("192.0.2.1", service("a")),
        asking("192.0.2.2", service("b")),
    ]);
    world.apply(asking("192.0.2.2", service("a")));
    world.apply(asking("192.0.2.3", service("b")));
    world.settle();
    assert_eq!(world.used("p"), "192.0.2.2=ns/a 192.0.2.3=ns/b");
    let empty = json!([]);
    assert!(!world.writes.iter().any(|w| w.patch().pointer("/status/loadBalancer/ingress") == Some(&empty)));
}

#[test]
fn a_service_created_again_under_the_same_name_takes_part_as_a_new_one() {
    let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9"), service("a")]);
    world.delete_service("a");
    world.apply(service("a"));
    world.settle();
    assert_eq!(world.published("a"), "192.0.2.1");
    assert!(world.indexes.services.get(&NamespacedName::new("ns", "a")).is_some());
}

#[test]
fn a_bad_key_in_used_is_rewritten_in_canonical_form() {
    let mut world = World::new();
    world.apply(used(json!({"2001:DB8:0::1": "ns/a"}), eip("p", "2001:db8::/64")));
    world.apply(live(&["2001:db8::1"], service("a")));
    world.settle();
    assert_eq!(world.used("p"), "2001:db8::1=ns/a");
}

#[test]
fn what_the_go_openelb_put_there_is_taken_off_in_the_write_that_publishes() {
    let mut world = World::new();
    world.apply(used(json!({"192.0.2.5": "ns/a"}), default_eip("p", "192.0.2.1-192.0.2.9")));
    let left = json!({"metadata": {
        "labels": {"eip.openelb.kubesphere.io/v1alpha2": "p"},
        "annotations": {
            "layer2.openelb.kubesphere.io/v1alpha1": "node-1",
            "protocol.openelb.kubesphere.io/v1alpha1": "layer2",
            "node-proxy.openelb.kubesphere.io/external-ip": "203.0.113.1",
        },
        "finalizers": ["x/y", "finalizer.lb.kubesphere.io/v1alpha1"],
    }});
    world.apply(with(live(&["192.0.2.5"], service("a")), left));
    world.settle();
    let object = world.value(&service_ref("a"));
    assert_eq!(object["metadata"]["finalizers"], json!(["x/y"]));
    let annotations = object["metadata"]["annotations"].as_object().unwrap();
    // The one that users write stays.
    let keys: Vec<&str> = annotations.keys().map(String::as_str).collect();
    assert_eq!(keys, ["openelb.kubesphere.io/assigned", "protocol.openelb.kubesphere.io/v1alpha1"]);
    let writes: Vec<_> = world.writes.iter().filter(|write| write.target.kind == Kind::Service).collect();
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert_eq!(writes[0].patch().pointer("/status/loadBalancer"), None, "its address is not written again");
}
