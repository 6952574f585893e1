//! What a Service asks for, and which Services are ours.

use serde_json::json;

use super::world::{
    World, annotated, asking, default_eip, eip, families, from, service, service_in, service_ref, with,
};

fn dual() -> [serde_json::Value; 2] {
    [default_eip("four", "192.0.2.1-192.0.2.9"), default_eip("six", "2001:db8::1-2001:db8::9")]
}

#[test]
fn a_service_with_another_class_is_never_ours_and_is_not_touched() {
    let other = with(
        annotated(service("a"), "lb.kubesphere.io/v1alpha1", "openelb"),
        json!({"spec": {"loadBalancerClass": "example.com/other"},
               "metadata": {"labels": {"eip.openelb.kubesphere.io/v1alpha2": "theirs"}},
               "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}),
    );
    let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9")]);
    world.apply(other);
    world.settle();
    assert_eq!(world.writes, []);
    assert_eq!(world.published("a"), "192.0.2.1");
}

#[test]
fn without_class_the_annotation_makes_it_ours() {
    let unclassed = |name| with(service(name), json!({"spec": {"loadBalancerClass": null}}));
    let world = World::of([
        default_eip("p", "192.0.2.1-192.0.2.9"),
        unclassed("no"),
        annotated(unclassed("yes"), "lb.kubesphere.io/v1alpha1", "openelb"),
    ]);
    assert_eq!((world.published("no"), world.published("yes")), (String::new(), "192.0.2.1".to_owned()));
}

#[test]
fn the_address_is_parsed_not_compared_as_text() {
    let mut world = World::of([eip("p", "fd00::/64"), asking(" FD00::0:1 ", service("a"))]);
    assert_eq!(world.published("a"), "fd00::1");
    assert_eq!(world.used("p"), "fd00::1=ns/a");
    world.apply(asking("fd00:0::1", service("a")));
    world.settle();
    assert_eq!(world.writes, []);
}

#[test]
fn an_explicit_address_needs_no_binding_default_or_auto_assign() {
    let bound =
        with(eip("p", "192.0.2.1-192.0.2.9"), json!({"spec": {"namespaces": ["x"], "autoAssign": false}}));
    let world = World::of([bound, asking("192.0.2.5", service("a")), from("p", service("b"))]);
    assert_eq!(
        (world.published("a"), world.published("b")),
        ("192.0.2.5".to_owned(), "192.0.2.1".to_owned())
    );
}

#[test]
fn unless_the_eip_enforces_its_selectors() {
    let bound = with(
        eip("p", "192.0.2.1-192.0.2.9"),
        json!({"spec": {"namespaces": ["x"], "enforceSelectors": true}}),
    );
    let world = World::of([
        bound,
        asking("192.0.2.5", service("a")),
        from("p", service("b")),
        asking("192.0.2.6", service_in("x", "c")),
    ]);
    assert_eq!(world.assigned("a"), "False NotAllowed");
    assert_eq!(world.assigned("b"), "False NotAllowed");
    assert_eq!(world.published_in("x", "c"), "192.0.2.6");
}

#[test]
fn a_request_never_overrides_disable_exclusions_or_deletion() {
    let disabled = with(eip("off", "192.0.2.1"), json!({"spec": {"disable": true}}));
    let excluded = with(eip("ex", "192.0.2.16/28"), json!({"spec": {"exclude": ["192.0.2.20"]}}));
    let mut world = World::of([
        disabled,
        excluded,
        eip("going", "192.0.2.40-192.0.2.41"),
        from("going", service("holder")),
        asking("192.0.2.1", service("a")),
        asking("192.0.2.20", service("b")),
    ]);
    world.delete_eip("going");
    world.apply(from("going", service("c")));
    world.settle();
    assert_eq!(world.assigned("a"), "False PoolDisabled");
    assert_eq!(world.assigned("b"), "False AddressExcluded");
    assert_eq!(world.assigned("c"), "False PoolDeleting");
    world.delete_service("holder");
    world.settle();
    assert_eq!(world.assigned("c"), "False PoolNotFound");
}

#[test]
fn the_annotation_wins_over_load_balancer_ip_and_a_condition_says_so() {
    let both = with(asking("192.0.2.2", service("a")), json!({"spec": {"loadBalancerIP": "192.0.2.3"}}));
    let world = World::of([eip("p", "192.0.2.1-192.0.2.9"), both]);
    assert_eq!(world.published("a"), "192.0.2.2");
    let view = world.indexes.services.get(&service_ref("a").key()).unwrap();
    let honoured = view.conditions.iter().find(|c| c.type_.ends_with("RequestHonoured")).unwrap();
    assert!(honoured.message.contains("spec.loadBalancerIP differs"), "{}", honoured.message);
}

#[test]
fn load_balancer_ip_alone_counts_and_a_list_in_it_is_invalid() {
    let ip = |name, ip: &str| with(service(name), json!({"spec": {"loadBalancerIP": ip}}));
    let world =
        World::of([eip("p", "192.0.2.1-192.0.2.9"), ip("a", "192.0.2.3"), ip("b", "192.0.2.4,192.0.2.5")]);
    assert_eq!(world.published("a"), "192.0.2.3");
    assert_eq!(world.assigned("b"), "False InvalidRequest");
}

#[test]
fn with_address_and_pool_the_address_must_be_in_one_of_the_pools() {
    let world = World::of([
        eip("p", "192.0.2.1-192.0.2.9"),
        eip("q", "192.0.2.11-192.0.2.19"),
        from("q", asking("192.0.2.1", service("a"))),
        from("q,p", asking("192.0.2.2", service("b"))),
    ]);
    assert_eq!(world.assigned("a"), "False AddressOutsidePools");
    assert_eq!(world.published("b"), "192.0.2.2");
}

#[test]
fn an_eip_that_is_not_asked_for_does_not_hide_that_the_address_is_outside_of_those_that_are() {
    let bound = json!({"spec": {"namespaces": ["x"], "enforceSelectors": true}});
    for (pools, reason) in [("q", "AddressOutsidePools"), ("none", "PoolNotFound"), ("q,p", "NotAllowed")] {
        let world = World::of([
            with(eip("p", "192.0.2.1-192.0.2.9"), bound.clone()),
            eip("q", "192.0.2.11-192.0.2.19"),
            from(pools, asking("192.0.2.1", service("a"))),
        ]);
        assert_eq!(world.assigned("a"), format!("False {reason}"), "{pools}");
    }
}

#[test]
fn an_address_of_a_foreign_family_is_named_where_it_was_asked_for() {
    let four = |object| families("SingleStack", &["IPv4"], object);
    let annotation = "metadata.annotations[eip.openelb.kubesphere.io/v1alpha1]";
    let ip = json!({"spec": {"loadBalancerIP": "2001:db8::1"}});
    for (asks, named, other) in [
        (with(four(service("a")), ip), "spec.loadBalancerIP", annotation),
        (asking("2001:db8::1", four(service("a"))), annotation, "spec.loadBalancerIP"),
    ] {
        let world = World::of([default_eip("p", "192.0.2.1-192.0.2.9"), asks]);
        let message = world.message("a");
        assert_eq!(world.assigned("a"), "False InvalidRequest");
        assert!(message.contains(named) && !message.contains(other), "{message}");
    }
}

#[test]
fn each_family_takes_the_first_named_pool_that_has_it() {
    let world = World::of([
        eip("four", "192.0.2.1-192.0.2.9"),
        eip("mixed", "192.0.2.20, 2001:db8::1"),
        from("four, mixed", families("RequireDualStack", &["IPv6", "IPv4"], service("a"))),
    ]);
    assert_eq!(world.published("a"), "2001:db8::1 192.0.2.1");
}

#[test]
fn a_named_pool_that_does_not_exist_is_pool_not_found() {
    let world = World::of([default_eip("p", "192.0.2.1"), from("nope", service("a"))]);
    assert_eq!(world.assigned("a"), "False PoolNotFound");
    assert_eq!(world.message("a"), "nope: there is no such Eip");
}

#[test]
fn families_follow_ip_families_and_ingress_is_in_their_order() {
    let [four, six] = dual();
    let world = World::of([
        four,
        six,
        families("SingleStack", &["IPv6"], service("a")),
        families("PreferDualStack", &["IPv6", "IPv4"], service("b")),
    ]);
    assert_eq!(world.published("a"), "2001:db8::1");
    assert_eq!(world.published("b"), "2001:db8::2 192.0.2.1");
}

#[test]
fn without_ip_families_the_requested_address_then_the_cluster_ip_then_ipv4_then_ipv6() {
    let [four, six] = dual();
    let cluster_ip = with(service("b"), json!({"spec": {"clusterIP": "fd00::1"}}));
    let mut world = World::of([
        four,
        six,
        asking("2001:db8::7", service("a")),
        cluster_ip,
        service("c"),
        with(service("d"), json!({"spec": {"ipFamilyPolicy": "PreferDualStack"}})),
    ]);
    assert_eq!(world.published("a"), "2001:db8::7");
    assert_eq!(world.published("b"), "2001:db8::1");
    assert_eq!(world.published("c"), "192.0.2.1");
    assert_eq!(world.published("d"), "192.0.2.2 2001:db8::2");
    world = World::of([default_eip("six", "2001:db8::1"), service("e")]);
    assert_eq!(world.published("e"), "2001:db8::1");
}

#[test]
fn require_dual_stack_both_at_once_or_none() {
    let require = |name| families("RequireDualStack", &["IPv4", "IPv6"], service(name));
    let mut world = World::of([default_eip("four", "192.0.2.1"), require("a"), service("b")]);
    assert_eq!(world.published("a"), "");
    assert_eq!(world.assigned("a"), "False FamilyUnavailable");
    // What it cannot use is for others.
    assert_eq!(world.published("b"), "192.0.2.1");
    world.delete_service("b");
    world.apply(default_eip("six", "2001:db8::1"));
    let first = world.plan();
    assert!(first.writes.iter().all(|w| w.patch().pointer("/status/loadBalancer").is_none()), "{first:?}");
    world.settle();
    assert_eq!(world.published("a"), "192.0.2.1 2001:db8::1");
}

#[test]
fn prefer_dual_stack_the_missing_one_is_added_as_soon_as_it_can_be_had() {
    let mut world = World::of([
        default_eip("four", "192.0.2.1"),
        families("PreferDualStack", &["IPv6", "IPv4"], service("a")),
    ]);
    assert_eq!(world.published("a"), "192.0.2.1");
    assert_eq!(world.assigned("a"), "True PartiallyAssigned");
    world.apply(default_eip("six", "2001:db8::1"));
    world.settle();
    assert_eq!(world.published("a"), "2001:db8::1 192.0.2.1");
    assert_eq!(world.assigned("a"), "True Assigned");
}

#[test]
fn a_request_for_a_family_that_the_service_does_not_have_is_invalid() {
    let [four, six] = dual();
    let world =
        World::of([four, six, asking("2001:db8::7", families("SingleStack", &["IPv4"], service("a")))]);
    assert_eq!(world.assigned("a"), "False InvalidRequest");
}

#[test]
fn an_explicit_address_for_one_family_leaves_the_other_automatic() {
    let [four, six] = dual();
    let world = World::of([
        four,
        six,
        asking("192.0.2.5", families("PreferDualStack", &["IPv4", "IPv6"], service("a"))),
    ]);
    assert_eq!(world.published("a"), "192.0.2.5 2001:db8::1");
}

#[test]
fn a_bad_request_never_costs_a_live_address() {
    let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9"), service("a")]);
    for bad in ["rubbish", "::ffff:192.0.2.1", "192.0.2.010", "192.0.2.1,192.0.2.2"] {
        world.apply(asking(bad, service("a")));
        world.settle();
        assert_eq!(world.published("a"), "192.0.2.1", "{bad}");
        assert_eq!(world.assigned("a"), "True Assigned", "{bad}");
        assert_eq!(world.honoured("a"), "False InvalidRequest", "{bad}");
    }
}

#[test]
fn another_address_or_pool_that_cannot_be_had_leaves_the_old_one() {
    let mut world = World::of([
        default_eip("p", "192.0.2.1-192.0.2.9"),
        eip("full", "198.51.100.1"),
        from("full", service_in("other", "taker")),
        service("a"),
    ]);
    world.apply(asking("203.0.113.1", service("a")));
    world.settle();
    assert_eq!(
        (world.published("a"), world.honoured("a")),
        ("192.0.2.1".into(), "False AddressOutsidePools".into())
    );
    world.apply(from("full", service("a")));
    world.settle();
    assert_eq!(
        (world.published("a"), world.honoured("a")),
        ("192.0.2.1".into(), "False PoolExhausted".into())
    );
}

#[test]
fn the_change_to_another_address_is_one_status_write() {
    let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9"), service("a")]);
    world.apply(asking("192.0.2.7", service("a")));
    world.settle();
    assert_eq!(world.published("a"), "192.0.2.7");
    assert_eq!(world.used("p"), "192.0.2.7=ns/a");
    let on_service = world.writes.iter().filter(|write| write.target == service_ref("a")).count();
    assert_eq!(on_service, 1);
}

#[test]
fn annotation_values_are_trimmed_and_an_empty_one_is_as_if_absent() {
    let world = World::of([
        default_eip("p", "192.0.2.1-192.0.2.9"),
        asking("  ", service("a")),
        from("  p ", service("b")),
    ]);
    assert_eq!((world.published("a"), world.published("b")), ("192.0.2.1".into(), "192.0.2.2".into()));
}

#[test]
fn two_eips_for_one_require_dual_stack_if_the_second_fails_the_first_is_released() {
    let require = |name| families("RequireDualStack", &["IPv4", "IPv6"], service(name));
    let mut world = World::of([default_eip("four", "192.0.2.1"), default_eip("six", "2001:db8::1")]);
    world.apply(require("a"));
    let plan = world.plan();
    let four = plan.writes.iter().find(|write| write.target.name == "four").unwrap().clone();
    world.execute(&four);
    // Somebody else is faster on the second.
    world.apply(asking("2001:db8::1", service_in("other", "fast")));
    world.patch_eip("six", json!({"status": {"used": {"2001:db8::1": "other/fast"}}}));
    world.settle();
    assert_eq!(world.published("a"), "");
    assert_eq!(world.used("four"), "");
    assert_eq!(world.used("six"), "2001:db8::1=other/fast");
}

#[test]
fn node_proxy_gets_no_address_and_is_told_what_to_do() {
    let proxy = annotated(service("a"), "node-proxy.openelb.kubesphere.io/type", "deployment");
    let world = World::of([default_eip("p", "192.0.2.1"), proxy]);
    assert_eq!(world.published("a"), "");
    assert_eq!(world.assigned("a"), "False NodeProxyUnsupported");
}
