//! Conditions, messages, events, label.

use serde_json::json;

use super::world::{World, default_eip, eip, from, service, service_ref, with};

#[test]
fn the_message_names_each_pool_considered_and_why_it_was_refused() {
    let pool = |name: &str, address: &str| with(eip(name, address), json!({"spec": {"autoAssign": true}}));
    let world =
        World::of([pool("a", "192.0.2.1"), pool("b", "192.0.2.9"), service("1"), service("2"), service("3")]);
    assert_eq!(world.message("3"), "a: all 1 addresses are taken; b: all 1 addresses are taken");
}

#[test]
fn without_any_eip_it_says_so() {
    let world = World::of([service("a")]);
    assert_eq!(world.assigned("a"), "False NoMatchingPool");
    assert_eq!(world.message("a"), "there is no Eip; create one");
}

#[test]
fn with_pools_that_are_no_candidates_it_says_why() {
    let world = World::of([
        eip("silent", "192.0.2.1"),
        with(eip("bound", "192.0.2.9"), json!({"spec": {"namespaces": ["x"]}})),
        service("a"),
    ]);
    assert_eq!(world.assigned("a"), "False NoMatchingPool");
    let message = world.message("a");
    assert!(message.contains("bound: its namespaces and selectors do not match"), "{message}");
    assert!(message.contains("silent: is neither bound nor default"), "{message}");
}

#[test]
fn one_event_per_change_never_repeated_for_the_same_cause() {
    let mut world = World::of([default_eip("p", "192.0.2.1")]);
    world.apply(service("a"));
    world.apply(service("b"));
    world.settle();
    let reasons: Vec<_> = world.events.iter().map(|e| (e.regarding.name.as_str(), e.reason)).collect();
    assert_eq!(reasons, [("b", "AssignIPFailed"), ("a", "AssignIP")]);
    world.settle();
    assert_eq!(world.events, []);
    // Another message for the same cause is no event.
    world.apply(with(eip("q", "192.0.2.7"), json!({"spec": {"autoAssign": true}})));
    world.apply(service("c"));
    world.settle();
    world.apply(default_eip("p", "192.0.2.1-192.0.2.2"));
    world.delete_service("b");
    world.settle();
    assert!(world.events.iter().all(|event| event.reason != "AssignIPFailed"), "{:?}", world.events);
}

#[test]
fn release_and_invalid_requests_are_told() {
    let mut world = World::of([default_eip("p", "192.0.2.1"), service("a")]);
    world.apply(super::world::asking("rubbish", service("a")));
    world.settle();
    assert_eq!(world.events.iter().map(|e| e.reason).collect::<Vec<_>>(), ["ConstructRequest"]);
    world.apply(with(service("a"), json!({"spec": {"type": "ClusterIP"}})));
    world.settle();
    assert_eq!(world.events.iter().map(|e| e.reason).collect::<Vec<_>>(), ["ReleaseIP"]);
}

#[test]
fn the_label_names_the_pool_of_the_first_address_while_one_is_held() {
    const LABEL: &str = "eip.openelb.kubesphere.io/v1alpha2";
    let mut world = World::of([eip("p", "192.0.2.1"), from("p", service("a"))]);
    assert_eq!(world.value(&service_ref("a"))["metadata"]["labels"][LABEL], "p");
    world.patch_service("a", json!({"metadata": {"labels": {LABEL: null}}}));
    world.settle();
    assert_eq!(world.value(&service_ref("a"))["metadata"]["labels"][LABEL], "p");
    let long = "p".repeat(64);
    let world = World::of([eip(&long, "192.0.2.1"), from(&long, service("a"))]);
    assert_eq!(world.published("a"), "192.0.2.1");
    assert!(world.value(&service_ref("a"))["metadata"].get("labels").is_none_or(|l| l.get(LABEL).is_none()));
}

#[test]
fn the_outcome_is_what_the_service_then_shows() {
    let mut world = World::of([default_eip("p", "192.0.2.1"), service("a"), service("b")]);
    let settled = world.settle();
    let a = &settled.services[&service_ref("a").key()];
    assert_eq!((a.addresses.len(), a.pools.as_slice(), a.reason), (1, &["p".to_owned()][..], "Assigned"));
    assert!(a.request_honoured);
    let b = &settled.services[&service_ref("b").key()];
    assert_eq!((b.addresses.len(), b.reason, b.request_honoured), (0, "PoolExhausted", false));
    assert_eq!(b.message, world.message("b"));
    assert_eq!((settled.pools["p"].usage, settled.pools["p"].pool_size), (1, 1));
}

#[test]
fn nothing_depends_on_the_order_in_which_objects_were_seen() {
    let stamp = |object, second: i64| {
        let at = format!("2024-01-01T00:00:{second:02}Z");
        with(object, json!({"metadata": {"creationTimestamp": at}}))
    };
    let objects = [
        stamp(default_eip("p", "192.0.2.1-192.0.2.2"), 1),
        stamp(service("c"), 2),
        stamp(service("a"), 2),
        stamp(service("b"), 3),
    ];
    let outcome = |order: [usize; 4]| {
        let mut world = World::new();
        for i in order {
            world.apply(objects[i].clone());
        }
        world.settle();
        world.used("p")
    };
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
        assert_eq!(outcome(order), "192.0.2.1=ns/a 192.0.2.2=ns/c");
    }
}
