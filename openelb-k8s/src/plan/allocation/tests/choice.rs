//! Automatic choice of pool.

use serde_json::json;

use super::world::{World, annotated, default_eip, eip, families, from, service, service_in, with};

#[test]
fn a_bound_pool_goes_before_the_default() {
    let bound = with(eip("bound", "192.0.2.10-192.0.2.11"), json!({"spec": {"namespaces": ["ns"]}}));
    let world =
        World::of([default_eip("default", "192.0.2.1"), bound, service("a"), service_in("other", "b")]);
    assert_eq!(world.published("a"), "192.0.2.10");
    assert_eq!(world.published_in("other", "b"), "192.0.2.1");
}

#[test]
fn if_any_bound_pool_matches_full_or_not_the_default_is_not_reached() {
    let bound = with(eip("bound", "192.0.2.10"), json!({"spec": {"namespaces": ["ns"]}}));
    let world = World::of([default_eip("default", "192.0.2.1"), bound, service("a"), service("b")]);
    assert_eq!(world.published("a"), "192.0.2.10");
    assert_eq!(world.published("b"), "");
    assert_eq!(world.assigned("b"), "False PoolExhausted");
    assert!(world.message("b").contains("bound: all 1 addresses are taken"), "{}", world.message("b"));
}

#[test]
fn binding_by_namespace_labels_and_by_service_labels() {
    let by_namespace = with(eip("n", "192.0.2.1"), json!({"spec": {"namespaceSelector": {"team": "a"}}}));
    let by_service =
        with(eip("s", "192.0.2.2"), json!({"spec": {"serviceSelector": {"matchLabels": {"tier": "web"}}}}));
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
                           "metadata": {"name": "teamed", "labels": {"team": "a"}}});
    let labelled = with(service("s"), json!({"metadata": {"labels": {"tier": "web"}}}));
    let world = World::of([
        by_namespace,
        by_service,
        namespace,
        service_in("teamed", "n"),
        labelled,
        service("none"),
    ]);
    assert_eq!(world.published_in("teamed", "n"), "192.0.2.1");
    assert_eq!(world.published("s"), "192.0.2.2");
    assert_eq!(world.assigned("none"), "False NoMatchingPool");
}

#[test]
fn namespaces_and_service_selector_must_both_match() {
    let both = with(
        eip("both", "192.0.2.1"),
        json!({"spec": {"namespaces": ["ns"], "serviceSelector": {"matchLabels": {"tier": "web"}}}}),
    );
    let world =
        World::of([both, service("a"), with(service("b"), json!({"metadata": {"labels": {"tier": "web"}}}))]);
    assert_eq!(world.published("a"), "");
    assert_eq!(world.published("b"), "192.0.2.1");
}

#[test]
fn unbound_pools_serve_everybody_with_auto_assign_true_only() {
    let auto = with(eip("auto", "192.0.2.1"), json!({"spec": {"autoAssign": true}}));
    let world = World::of([eip("silent", "192.0.2.9"), auto, service("a"), service("b")]);
    assert_eq!(world.published("a"), "192.0.2.1");
    assert_eq!(world.published("b"), "");
    assert!(world.message("b").contains("auto: all 1 addresses are taken"));
}

#[test]
fn auto_assign_false_never_without_a_request_also_if_default_with_a_condition() {
    let silent = with(default_eip("silent", "192.0.2.1-192.0.2.2"), json!({"spec": {"autoAssign": false}}));
    let world = World::of([silent, service("a"), from("silent", service("b"))]);
    assert_eq!(world.published("a"), "");
    assert_eq!(world.assigned("a"), "False NoMatchingPool");
    assert_eq!(world.published("b"), "192.0.2.1");
    assert!(world.eip_condition("silent", "NotDefault").is_some_and(|m| m.contains("autoAssign")));
}

#[test]
fn order_is_priority_then_default_then_name() {
    let pool = |name: &str, address: &str, priority: i64| {
        with(eip(name, address), json!({"spec": {"autoAssign": true, "priority": priority}}))
    };
    let mut default = pool("z-default", "192.0.2.3", 5);
    default = annotated(default, "eip.openelb.kubesphere.io/is-default-eip", "TRUE");
    let world = World::of([
        pool("late", "192.0.2.9", 7),
        pool("b", "192.0.2.5", 5),
        pool("a", "192.0.2.4", 5),
        default,
        pool("first", "192.0.2.1", 0),
        service("s1"),
        service("s2"),
        service("s3"),
        service("s4"),
        service("s5"),
    ]);
    let order: Vec<_> = ["s1", "s2", "s3", "s4", "s5"].map(|s| world.published(s)).into();
    assert_eq!(order, ["192.0.2.1", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.9"]);
}

#[test]
fn within_a_pool_the_lowest_free_address() {
    let mut world =
        World::of([default_eip("p", "192.0.2.1-192.0.2.9"), service("a"), service("b"), service("c")]);
    world.delete_service("b");
    world.apply(service("d"));
    world.settle();
    assert_eq!(world.published("d"), "192.0.2.2");
}

#[test]
fn an_address_of_a_node_is_given_only_by_name_and_a_condition_counts_it() {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
                      "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
    let world = World::of([
        node,
        default_eip("p", "192.0.2.1-192.0.2.2"),
        service("a"),
        service("b"),
        super::world::asking("192.0.2.1", service("c")),
    ]);
    assert_eq!(world.published("a"), "192.0.2.2");
    assert_eq!(world.assigned("b"), "False PoolExhausted");
    assert_eq!(world.published("c"), "192.0.2.1");
    assert!(world.eip_condition("p", "DangerousAddresses").is_some_and(|m| m.starts_with("1 ")));
}

#[test]
fn when_only_dangerous_addresses_are_left_the_message_names_them() {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
                      "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
    let world = World::of([node, default_eip("p", "192.0.2.1"), service("a")]);
    assert_eq!(world.assigned("a"), "False PoolExhausted");
    assert!(world.message("a").contains("only by name: 192.0.2.1"), "{}", world.message("a"));
}

#[test]
fn layer2_does_not_give_the_subnet_router_anycast_address_bgp_does() {
    let pool = |name: &str, address: &str, protocol: &str| {
        with(eip(name, address), json!({"spec": {"protocol": protocol, "interface": "eth0"}}))
    };
    let v6 = |name: &str, pool: &str| from(pool, families("SingleStack", &["IPv6"], service(name)));
    let world = World::of([
        pool("l2", "2001:db8:1::/64", "layer2"),
        pool("bgp", "2001:db8:2::/64", "bgp"),
        v6("a", "l2"),
        v6("b", "bgp"),
    ]);
    assert_eq!(world.published("a"), "2001:db8:1::1");
    assert_eq!(world.published("b"), "2001:db8:2::");
}

#[test]
fn waiting_services_are_served_in_order_of_creation_at_once_when_something_is_released() {
    let mut world = World::of([
        default_eip("p", "192.0.2.1"),
        service("holder"),
        service("z-first"),
        service("a-second"),
    ]);
    world.delete_service("holder");
    world.settle();
    assert_eq!(world.published("z-first"), "192.0.2.1");
    assert_eq!(world.published("a-second"), "");
}

#[test]
fn waiting_services_are_served_at_once_when_a_pool_grows_is_added_or_enabled() {
    let mut world =
        World::of([default_eip("p", "192.0.2.1"), service("a"), service("b"), service("c"), service("d")]);
    world.apply(default_eip("p", "192.0.2.1-192.0.2.2"));
    world.settle();
    assert_eq!(world.published("b"), "192.0.2.2");
    world.apply(with(eip("q", "192.0.2.9"), json!({"spec": {"autoAssign": true}})));
    world.settle();
    assert_eq!(world.published("c"), "192.0.2.9");
    world.apply(with(eip("r", "192.0.2.20"), json!({"spec": {"autoAssign": true, "disable": true}})));
    world.settle();
    assert_eq!(world.published("d"), "");
    world.apply(with(eip("r", "192.0.2.20"), json!({"spec": {"autoAssign": true}})));
    world.settle();
    assert_eq!(world.published("d"), "192.0.2.20");
}

#[test]
fn a_disabled_pool_is_no_candidate_and_the_reason_says_so() {
    let pool = with(default_eip("p", "192.0.2.1"), json!({"spec": {"disable": true}}));
    let world = World::of([pool, service("a")]);
    assert_eq!(world.assigned("a"), "False PoolDisabled");
    assert_eq!(world.message("a"), "p: is disabled");
}
