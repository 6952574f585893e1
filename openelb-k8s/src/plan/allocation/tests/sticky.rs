//! A live address is kept.

use serde_json::{Value, json};

use super::world::{World, annotated, asking, default_eip, eip, families, from, service, service_ref, with};
use crate::object::{Kind, ObjectRef};

/// One Service with 192.0.2.1 of the default pool `p`, after an edit and settling.
fn after(edit: impl FnOnce(&mut World)) -> World {
    let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9"), service("a")]);
    edit(&mut world);
    world.settle();
    world
}

#[test]
fn kept_through_every_change_of_pools() {
    let edits: [(&str, Value); 6] = [
        ("disabled", with(default_eip("p", "192.0.2.1-192.0.2.9"), json!({"spec": {"disable": true}}))),
        ("grown", default_eip("p", "192.0.2.0/24")),
        ("re-prioritised", with(default_eip("p", "192.0.2.1-192.0.2.9"), json!({"spec": {"priority": 9}}))),
        ("re-bound", with(default_eip("p", "192.0.2.1-192.0.2.9"), json!({"spec": {"namespaces": ["x"]}}))),
        ("default moved", eip("p", "192.0.2.1-192.0.2.9")),
        ("better pool", with(eip("better", "198.51.100.1"), json!({"spec": {"namespaces": ["ns"]}}))),
    ];
    for (name, object) in edits {
        let world = after(|world| world.apply(object));
        assert_eq!(world.published("a"), "192.0.2.1", "{name}");
        let on_service = world.writes.iter().filter(|write| write.target == service_ref("a")).count();
        assert_eq!(on_service, 0, "{name}: kept means no status write: {:?}", world.writes);
        assert_eq!(world.events, [], "{name}");
    }
}

#[test]
fn kept_when_request_annotations_are_removed() {
    let mut world = World::of([
        default_eip("p", "192.0.2.1-192.0.2.9"),
        eip("q", "198.51.100.1"),
        asking("192.0.2.7", service("a")),
        from("q", service("b")),
    ]);
    world.apply(service("a"));
    world.apply(service("b"));
    world.settle();
    assert_eq!((world.published("a"), world.published("b")), ("192.0.2.7".into(), "198.51.100.1".into()));
}

#[test]
fn kept_through_a_lost_eip_status() {
    let world =
        after(|world| world.patch_eip("p", json!({"status": null, "metadata": {"finalizers": null}})));
    assert_eq!(world.published("a"), "192.0.2.1");
    assert_eq!(world.used("p"), "192.0.2.1=ns/a");
    assert!(!world.writes.iter().any(|write| write.target.kind == Kind::Service));
}

#[test]
fn kept_through_a_lost_service_status() {
    let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9"), service("x"), service("a")]);
    world.delete_service("x");
    world.patch_service("a", json!({"status": null}));
    world.settle();
    assert_eq!(world.published("a"), "192.0.2.2");
}

#[test]
fn a_shrunk_pool_keeps_its_live_addresses_shows_it_and_gives_them_to_nobody_new() {
    let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9"), service("a"), service("b")]);
    world.apply(default_eip("p", "192.0.2.2-192.0.2.2"));
    world.apply(service("c"));
    world.apply(asking("192.0.2.1", with(service("d"), json!({"spec": {"ports": [{"port": 81}]}}))));
    world.settle();
    assert_eq!((world.published("a"), world.published("b")), ("192.0.2.1".into(), "192.0.2.2".into()));
    assert_eq!(world.used("p"), "192.0.2.1=ns/a 192.0.2.2=ns/b");
    assert!(world.eip_condition("p", "AddressesOutsidePool").is_some_and(|m| m.contains("192.0.2.1")));
    assert_eq!((world.published("c"), world.published("d")), (String::new(), String::new()));
    world.delete_service("a");
    world.settle();
    assert_eq!(world.used("p"), "192.0.2.2=ns/b");
    assert_eq!(world.eip_condition("p", "AddressesOutsidePool"), None);
}

#[test]
fn an_exclusion_added_under_a_live_address_keeps_it() {
    let world = after(|world| {
        world.apply(with(
            default_eip("p", "192.0.2.1-192.0.2.9"),
            json!({"spec": {"exclude": ["192.0.2.1"]}}),
        ));
    });
    assert_eq!(world.published("a"), "192.0.2.1");
    assert!(world.eip_condition("p", "AddressesOutsidePool").is_some());
}

#[test]
fn reassign_moves_a_service_on_purpose_once() {
    const REASSIGN: &str = "openelb.kubesphere.io/reassign";
    let mut world =
        World::of([default_eip("p", "192.0.2.1-192.0.2.9"), annotated(service("a"), REASSIGN, "1")]);
    assert_eq!(world.published("a"), "192.0.2.1", "at first assignment recorded without a move");
    world.settle();
    assert_eq!(world.writes, []);
    world.apply(annotated(service("a"), REASSIGN, "2"));
    world.settle();
    assert_eq!(world.published("a"), "192.0.2.2");
    assert_eq!(world.used("p"), "192.0.2.2=ns/a");
    world.settle();
    assert_eq!(world.writes, []);
}

#[test]
fn reassign_gives_another_address_if_another_is_free_the_old_one_stays_until_then() {
    let mut world = World::of([default_eip("p", "192.0.2.1"), service("a")]);
    world.apply(annotated(service("a"), "openelb.kubesphere.io/reassign", "now"));
    world.settle();
    assert_eq!(
        (world.published("a"), world.honoured("a")),
        ("192.0.2.1".into(), "False PoolExhausted".into())
    );
    world.apply(default_eip("p", "192.0.2.1-192.0.2.2"));
    world.settle();
    assert_eq!((world.published("a"), world.honoured("a")), ("192.0.2.2".into(), "True Assigned".into()));
}

#[test]
fn an_eip_deleted_while_in_use_stays_gives_nothing_new_and_goes_with_its_last_address() {
    let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9"), service("a")]);
    let reference = ObjectRef::cluster(Kind::Eip, "p");
    world.delete_eip("p");
    world.apply(service("b"));
    world.settle();
    assert_eq!((world.published("a"), world.published("b")), ("192.0.2.1".into(), String::new()));
    assert_eq!(world.assigned("b"), "False PoolDeleting");
    world.delete_service("a");
    world.settle();
    assert!(!world.exists(&reference));
}

#[test]
fn with_the_force_annotation_it_goes_at_once_and_its_services_are_assigned_anew() {
    let mut world = World::of([
        default_eip("p", "192.0.2.1-192.0.2.9"),
        service("a"),
        with(eip("q", "198.51.100.1"), json!({"spec": {"autoAssign": true}})),
    ]);
    world.patch_eip("p", json!({"metadata": {"annotations": {"openelb.kubesphere.io/force": "1"}}}));
    world.delete_eip("p");
    world.settle();
    assert!(!world.exists(&ObjectRef::cluster(Kind::Eip, "p")));
    assert_eq!(world.published("a"), "198.51.100.1");
}

#[test]
fn a_force_annotation_of_any_number_but_the_generation_forces_nothing() {
    for force in [i64::MIN, -1, 0, 7, i64::MAX - 1, i64::MAX] {
        let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9"), service("a")]);
        world.patch_eip(
            "p",
            json!({"metadata": {"annotations": {"openelb.kubesphere.io/force": force.to_string()}}}),
        );
        world.delete_eip("p");
        world.settle();
        assert!(world.exists(&ObjectRef::cluster(Kind::Eip, "p")), "{force}");
        assert_eq!(world.published("a"), "192.0.2.1", "{force}");
    }
}

#[test]
fn deleting_an_eip_and_its_services_in_any_order_ends_with_all_gone() {
    for eip_first in [true, false] {
        let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9"), service("a"), service("b")]);
        if eip_first {
            world.delete_eip("p");
            world.settle();
        }
        world.delete_service("a");
        world.settle();
        world.delete_service("b");
        if !eip_first {
            world.delete_eip("p");
        }
        world.settle();
        assert!(!world.exists(&ObjectRef::cluster(Kind::Eip, "p")), "eip first: {eip_first}");
    }
}

#[test]
fn family_policy_narrowed_releases_the_family_that_is_no_longer_asked_for() {
    let mut world = World::of([
        default_eip("four", "192.0.2.1"),
        default_eip("six", "2001:db8::1"),
        families("PreferDualStack", &["IPv4", "IPv6"], service("a")),
    ]);
    world.apply(families("SingleStack", &["IPv4"], service("a")));
    world.settle();
    assert_eq!(world.published("a"), "192.0.2.1");
    assert_eq!((world.used("four").as_str(), world.used("six").as_str()), ("192.0.2.1=ns/a", ""));
}

#[test]
fn an_address_of_a_family_that_the_service_does_not_have_any_more_is_replaced_when_it_can_be() {
    let mut world =
        World::of([default_eip("four", "192.0.2.1"), families("SingleStack", &["IPv4"], service("a"))]);
    world.apply(families("SingleStack", &["IPv6"], service("a")));
    world.settle();
    assert_eq!(
        (world.published("a"), world.honoured("a")),
        ("192.0.2.1".into(), "False FamilyUnavailable".into())
    );
    world.apply(default_eip("six", "2001:db8::1"));
    world.settle();
    assert_eq!(world.published("a"), "2001:db8::1");
    assert_eq!(world.used("four"), "");
}

#[test]
fn a_holder_of_one_address_that_now_requires_both_keeps_it() {
    let mut world =
        World::of([default_eip("four", "192.0.2.1"), families("SingleStack", &["IPv4"], service("a"))]);
    world.apply(families("RequireDualStack", &["IPv4", "IPv6"], service("a")));
    world.settle();
    assert_eq!(world.published("a"), "192.0.2.1");
    assert!(world.honoured("a").starts_with("False"), "{}", world.honoured("a"));
    world.apply(default_eip("six", "2001:db8::1"));
    world.settle();
    assert_eq!(
        (world.published("a"), world.honoured("a")),
        ("192.0.2.1 2001:db8::1".into(), "True Assigned".into())
    );
}

#[test]
fn a_service_whose_annotations_leave_no_room_for_the_hint_has_its_address_all_the_same() {
    let full = annotated(service("a"), "example.com/notes", &"x".repeat((256 << 10) - 60));
    let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9"), full]);
    assert_eq!(world.published("a"), "192.0.2.1");
    let object = world.value(&service_ref("a"));
    assert_eq!(object["metadata"]["annotations"].as_object().unwrap().len(), 1);
    world.writes.clear();
    world.settle();
    assert_eq!(world.writes, [], "it is not tried again");
}
