//! Sharing one address.

use serde_json::{Value, json};

use super::world::{World, annotated, asking, default_eip, eip, service_in, with};

fn port(port: u16, object: Value) -> Value {
    with(object, json!({"spec": {"ports": [{"port": port, "protocol": "TCP"}]}}))
}

fn keyed(key: &str, object: Value) -> Value {
    annotated(object, "openelb.kubesphere.io/allow-shared-ip", key)
}

fn service(name: &str, number: u16) -> Value {
    port(number, super::world::service(name))
}

#[test]
fn services_with_the_same_key_share_and_the_lowest_compatible_address_is_joined_first() {
    let world = World::of([
        default_eip("p", "192.0.2.1-192.0.2.9"),
        service("other", 80),
        keyed("k", service("a", 80)),
        keyed("k", service("b", 81)),
        keyed("k", service("c", 80)),
        keyed("k", port(82, service_in("far", "d"))),
    ]);
    assert_eq!(world.published("a"), "192.0.2.2");
    assert_eq!(world.published("b"), "192.0.2.2");
    // Same port as a: the next free address.
    assert_eq!(world.published("c"), "192.0.2.3");
    assert_eq!(world.published_in("far", "d"), "192.0.2.2");
    assert_eq!(world.used("p"), "192.0.2.1=ns/other 192.0.2.2=far/d;ns/a;ns/b 192.0.2.3=ns/c");
    assert_eq!(world.indexes.pools.get("p").unwrap().status.usage, Some(3));
}

#[test]
fn by_address_within_a_namespace_if_neither_has_a_key() {
    let world = World::of([
        eip("p", "192.0.2.1-192.0.2.9"),
        asking("192.0.2.5", service("a", 80)),
        asking("192.0.2.5", service("b", 81)),
        asking("192.0.2.5", keyed("k", service("c", 82))),
        asking("192.0.2.5", port(83, service_in("far", "d"))),
        asking("192.0.2.5", service("e", 80)),
    ]);
    assert_eq!(world.used("p"), "192.0.2.5=ns/a;ns/b");
    assert_eq!(world.assigned("c"), "False SharingConflict");
    assert_eq!(world.assigned("e"), "False SharingConflict");
    assert!(world.message("e").contains("ns/a: both use TCP 80"), "{}", world.message("e"));
}

#[test]
fn across_namespaces_by_address_only_where_the_eip_says_sharing_address() {
    let pool = |mode: &str| with(eip("p", "192.0.2.1"), json!({"spec": {"sharing": mode}}));
    for (mode, joined) in [("Address", "192.0.2.1"), ("Key", ""), ("None", "")] {
        let world = World::of([
            pool(mode),
            asking("192.0.2.1", service("a", 80)),
            asking("192.0.2.1", port(81, service_in("far", "b"))),
        ]);
        assert_eq!(world.published_in("far", "b"), joined, "{mode}");
    }
}

#[test]
fn sharing_none_is_address_in_use() {
    let pool = with(eip("p", "192.0.2.1"), json!({"spec": {"sharing": "None"}}));
    let world =
        World::of([pool, asking("192.0.2.1", service("a", 80)), asking("192.0.2.1", service("b", 81))]);
    assert_eq!(world.assigned("b"), "False AddressInUse");
}

#[test]
fn traffic_policies_both_cluster_or_both_local_with_equal_selectors() {
    let local = |name: &str, number, app: &str| {
        asking(
            "192.0.2.1",
            with(
                service(name, number),
                json!({"spec": {"externalTrafficPolicy": "Local", "selector": {"app": app}}}),
            ),
        )
    };
    let world = World::of([
        eip("p", "192.0.2.1"),
        local("a", 80, "x"),
        local("b", 81, "x"),
        local("c", 82, "y"),
        asking("192.0.2.1", service("d", 83)),
    ]);
    assert_eq!(world.used("p"), "192.0.2.1=ns/a;ns/b");
    assert_eq!(world.assigned("c"), "False SharingConflict");
    assert_eq!(world.assigned("d"), "False SharingConflict");
}

#[test]
fn existing_sharers_found_at_start_stay_together_and_a_violation_is_a_condition() {
    let mut world = World::new();
    world.apply(with(
        eip("p", "192.0.2.1-192.0.2.9"),
        json!({"status": {"used": {"192.0.2.1": "far/b;ns/a"}}}),
    ));
    let live = |object| with(object, json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}));
    world.apply(live(service("a", 80)));
    world.apply(live(port(80, service_in("far", "b"))));
    world.settle();
    assert_eq!(world.used("p"), "192.0.2.1=far/b;ns/a");
    assert!(world.eip_condition("p", "SharingViolation").is_some_and(|m| m.contains("both use TCP 80")));
    // And they stay so.
    world.apply(service_in("x", "unrelated"));
    world.settle();
    assert_eq!(world.used("p"), "192.0.2.1=far/b;ns/a");
    // Not even an edit of one of them is to blame that was none of that.
    let more = |number: u16, object| {
        with(
            object,
            json!({"spec": {"ports": [{"port": 80, "protocol": "TCP"}, {"port": number, "protocol": "TCP"}]}}),
        )
    };
    world.apply(more(8443, service("a", 80)));
    world.settle();
    world.apply(more(9443, service_in("far", "b")));
    world.settle();
    assert_eq!(world.used("p"), "192.0.2.1=far/b;ns/a");
    // One that ends it and another that begins it anew are.
    world.apply(port(81, service_in("far", "b")));
    world.settle();
    assert_eq!(world.eip_condition("p", "SharingViolation"), None);
    assert_eq!(world.used("p"), "192.0.2.1=far/b;ns/a");
    world.apply(port(80, service_in("far", "b")));
    world.settle();
    assert_eq!(world.used("p"), "192.0.2.1=ns/a");
}

/// An edit that does no harm is not remembered against a Service when something else goes wrong later.
#[test]
fn an_edit_without_a_clash_is_forgotten() {
    let mut world = World::of([
        default_eip("p", "192.0.2.1-192.0.2.9"),
        keyed("k", service("a", 80)),
        keyed("k", service("b", 81)),
    ]);
    world.apply(keyed("k", service("a", 82)));
    world.settle();
    // A record of another one is put in by hand: a violation, and nobody's edit.
    world.apply(with(
        service("c", 82),
        json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}),
    ));
    world.patch_eip("p", json!({"status": {"used": {"192.0.2.1": "ns/a;ns/b;ns/c"}}}));
    world.settle();
    assert_eq!(world.used("p"), "192.0.2.1=ns/a;ns/b;ns/c");
    assert!(world.eip_condition("p", "SharingViolation").is_some());
}

#[test]
fn if_an_edit_makes_live_sharers_clash_the_oldest_keeps_the_address_and_the_other_gets_another() {
    let mut world = World::of([
        default_eip("p", "192.0.2.1-192.0.2.9"),
        keyed("k", service("a", 80)),
        keyed("k", service("b", 81)),
    ]);
    world.apply(keyed("k", service("a", 81)));
    world.settle();
    assert_eq!((world.published("a"), world.published("b")), ("192.0.2.1".into(), "192.0.2.2".into()));
    assert_eq!(world.used("p"), "192.0.2.1=ns/a 192.0.2.2=ns/b");
}

#[test]
fn or_waits_if_it_had_asked_for_this_very_one_and_is_told() {
    let mut world = World::of([
        eip("p", "192.0.2.1-192.0.2.9"),
        asking("192.0.2.1", service("a", 80)),
        asking("192.0.2.1", service("b", 81)),
    ]);
    world.apply(asking("192.0.2.1", service("a", 81)));
    world.settle();
    assert_eq!((world.published("a"), world.published("b")), ("192.0.2.1".into(), String::new()));
    assert_eq!(world.assigned("b"), "False SharingConflict");
    assert!(world.events.iter().any(|e| e.reason == "AssignIPFailed" && e.regarding.name == "b"));
    assert_eq!(world.used("p"), "192.0.2.1=ns/a");
    world.apply(asking("192.0.2.1", service("b", 82)));
    world.settle();
    assert_eq!(world.published("b"), "192.0.2.1");
}

#[test]
fn max_per_namespace_counts_distinct_addresses() {
    let pool = with(default_eip("p", "192.0.2.1-192.0.2.9"), json!({"spec": {"maxPerNamespace": 1}}));
    let world = World::of([
        pool,
        keyed("k", service("a", 80)),
        keyed("k", service("b", 81)),
        service("c", 80),
        port(80, service_in("far", "d")),
    ]);
    assert_eq!(world.published("b"), "192.0.2.1");
    assert_eq!(world.assigned("c"), "False QuotaExceeded");
    assert_eq!(world.published_in("far", "d"), "192.0.2.2");
}
