//! More of the sentences, those with several parts: who is bound, who shares after an edit, records that move, quotas.

use serde_json::{Value, json};

use super::world::{World, annotated, asking, default_eip, eip, from, service, service_in, with};
use crate::object::Kind;

const KEY: &str = "openelb.kubesphere.io/allow-shared-ip";

fn labelled(labels: Value, object: Value) -> Value {
    with(object, json!({"metadata": {"labels": labels}}))
}

fn namespace(name: &str, labels: Value) -> Value {
    labelled(labels, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
}

fn port(number: u16, object: Value) -> Value {
    with(object, json!({"spec": {"ports": [{"port": number, "protocol": "TCP"}]}}))
}

#[test]
fn all_labels_of_a_selector_must_match() {
    let labels = [
        (json!({"team": "a", "env": "prod", "other": "x"}), true),
        (json!({"team": "a", "env": "test"}), false),
        (json!({"team": "b", "env": "prod"}), false),
        (json!({"team": "a"}), false),
        (json!({}), false),
    ];
    let wanted = json!({"team": "a", "env": "prod"});
    for (labels, matches) in labels {
        let by_service = json!({"spec": {"serviceSelector": {"matchLabels": wanted}}});
        let world =
            World::of([with(eip("p", "192.0.2.1"), by_service), labelled(labels.clone(), service("a"))]);
        assert_eq!(!world.published("a").is_empty(), matches, "serviceSelector, {labels}");
        let by_namespace = json!({"spec": {"namespaceSelector": wanted}});
        let world = World::of([
            with(eip("p", "192.0.2.1"), by_namespace),
            namespace("ns", labels.clone()),
            service("a"),
        ]);
        assert_eq!(!world.published("a").is_empty(), matches, "namespaceSelector, {labels}");
    }
    // Labels and expressions of one selector, too.
    let both = json!({"spec": {"serviceSelector": {
        "matchLabels": {"team": "a"}, "matchExpressions": [{"key": "env", "operator": "In", "values": ["prod"]}],
    }}});
    for (labels, matches) in [(json!({"team": "a", "env": "prod"}), true), (json!({"team": "a"}), false)] {
        let pool = with(eip("p", "192.0.2.1"), both.clone());
        let world = World::of([pool, labelled(labels.clone(), service("a"))]);
        assert_eq!(!world.published("a").is_empty(), matches, "matchExpressions, {labels}");
    }
}

#[test]
fn of_namespaces_and_namespace_selector_one_is_enough_and_the_service_selector_must_match_as_well() {
    let pool = json!({"spec": {
        "namespaces": ["named"], "namespaceSelector": {"team": "a"},
        "serviceSelector": {"matchLabels": {"tier": "web"}},
    }});
    let web = json!({"tier": "web"});
    // Name of the namespace, its labels, those of the Service; is it given an address?
    let cases = [
        ("named", json!({}), web.clone(), true),
        ("other", json!({"team": "a"}), web.clone(), true),
        ("named", json!({"team": "a"}), web.clone(), true),
        ("other", json!({"team": "b"}), web, false),
        ("named", json!({}), json!({}), false),
        ("other", json!({"team": "a"}), json!({}), false),
    ];
    for (name, labels, of_service, bound) in cases {
        let world = World::of([
            with(eip("p", "192.0.2.1"), pool.clone()),
            namespace(name, labels.clone()),
            labelled(of_service.clone(), service_in(name, "a")),
        ]);
        assert_eq!(!world.published_in(name, "a").is_empty(), bound, "{name} {labels} {of_service}");
    }
}

#[test]
fn sharers_stay_when_a_key_is_edited_and_decide_with_it_who_may_join() {
    for (edit, key) in [("another key", Some("l")), ("no key", None)] {
        let edited = |object: Value| match key {
            Some(key) => annotated(object, KEY, key),
            None => object,
        };
        let mut world = World::of([
            default_eip("p", "192.0.2.1-192.0.2.9"),
            annotated(port(80, service("a")), KEY, "k"),
            annotated(port(81, service("b")), KEY, "k"),
        ]);
        world.apply(edited(port(80, service("a"))));
        world.settle();
        assert_eq!(world.used("p"), "192.0.2.1=ns/a;ns/b", "{edit}");
        assert!(
            !world.writes.iter().any(|write| write.target.kind == Kind::Eip),
            "{edit}: {:?}",
            world.writes
        );
        // Both have to agree to a third one, and they do not.
        world.apply(annotated(port(82, service("c")), KEY, "k"));
        world.settle();
        assert_eq!(world.used("p"), "192.0.2.1=ns/a;ns/b 192.0.2.2=ns/c", "{edit}");
        // Agreed again.
        world.apply(annotated(port(80, service("a")), KEY, "k"));
        world.apply(annotated(port(83, service("d")), KEY, "k"));
        world.settle();
        assert_eq!(world.used("p"), "192.0.2.1=ns/a;ns/b;ns/d 192.0.2.2=ns/c", "{edit}");
    }
}

#[test]
fn an_edit_of_the_traffic_policy_that_makes_sharers_clash_leaves_the_address_to_the_oldest() {
    let local = json!({"spec": {"externalTrafficPolicy": "Local"}});
    let keyed = |number: u16, name: &str| annotated(port(number, service(name)), KEY, "k");
    for edited in ["a", "b"] {
        let number = if edited == "a" { 80 } else { 81 };
        let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9"), keyed(80, "a"), keyed(81, "b")]);
        assert_eq!(world.used("p"), "192.0.2.1=ns/a;ns/b");
        world.apply(with(keyed(number, edited), local.clone()));
        world.settle();
        assert_eq!(world.used("p"), "192.0.2.1=ns/a 192.0.2.2=ns/b", "{edited} is edited");
        assert_eq!(
            (world.assigned("a"), world.assigned("b")),
            ("True Assigned".into(), "True Assigned".into())
        );
        // Back again nothing moves.
        world.apply(keyed(number, edited));
        world.settle();
        assert_eq!(world.used("p"), "192.0.2.1=ns/a 192.0.2.2=ns/b", "{edited} is edited back");
    }
    // Both Local, and then other selectors.
    let local_of = |number: u16, name: &str, app: &str| {
        with(with(keyed(number, name), local.clone()), json!({"spec": {"selector": {"app": app}}}))
    };
    let mut world =
        World::of([default_eip("p", "192.0.2.1-192.0.2.9"), local_of(80, "a", "x"), local_of(81, "b", "x")]);
    assert_eq!(world.used("p"), "192.0.2.1=ns/a;ns/b");
    world.apply(local_of(81, "b", "y"));
    world.settle();
    assert_eq!(world.used("p"), "192.0.2.1=ns/a 192.0.2.2=ns/b");
}

#[test]
fn records_follow_pools_that_are_merged_and_renamed_without_a_write_to_a_service() {
    /// What is done to the pools, one after the other.
    type Edit = fn(&mut World);
    let cases: [(&str, Edit, &str, &str); 4] = [
        (
            "merged: one grows, the other goes",
            |world| {
                world.apply(default_eip("p", "192.0.2.1-192.0.2.8"));
                world.settle();
                world.delete_eip("q");
            },
            "p",
            "192.0.2.1=ns/a 192.0.2.5=ns/b",
        ),
        (
            "merged: one grows in the same moment in which the other gets another range",
            |world| {
                world.apply(default_eip("p", "192.0.2.1-192.0.2.8"));
                world.apply(eip("q", "198.51.100.0/28"));
            },
            "p",
            "192.0.2.1=ns/a 192.0.2.5=ns/b",
        ),
        (
            "renamed: made under the new name before the old one goes",
            |world| {
                world.apply(eip("r", "192.0.2.5-192.0.2.8"));
                world.settle();
                world.delete_eip("q");
            },
            "r",
            "192.0.2.5=ns/b",
        ),
        (
            "renamed: made under the new name while the old one is going",
            |world| {
                world.delete_eip("q");
                world.settle();
                world.apply(eip("r", "192.0.2.5-192.0.2.8"));
            },
            "r",
            "192.0.2.5=ns/b",
        ),
    ];
    for (what, edit, pool, used) in cases {
        let mut world = World::of([
            default_eip("p", "192.0.2.1-192.0.2.4"),
            eip("q", "192.0.2.5-192.0.2.8"),
            service("a"),
            asking("192.0.2.5", service("b")),
        ]);
        edit(&mut world);
        let done = world.writes.len();
        world.settle();
        assert_eq!(world.used(pool), used, "{what}");
        assert_eq!(
            (world.published("a"), world.published("b")),
            ("192.0.2.1".into(), "192.0.2.5".into()),
            "{what}"
        );
        let of_services = world.writes.iter().filter(|write| write.target.kind == Kind::Service).count();
        assert_eq!(of_services, 0, "{what}, after {done} writes: {:?}", world.writes);
        if let Some(q) = world.indexes.pools.get("q") {
            assert!(q.used.is_empty(), "{what}");
        }
    }
}

#[test]
fn a_move_and_a_swap_are_within_the_quota_of_their_namespace() {
    let pool = |name: &str, address: &str, quota: u64| {
        with(eip(name, address), json!({"spec": {"maxPerNamespace": quota}}))
    };
    // A move to another address of the pool, with the quota used up.
    let mut world = World::of([pool("p", "192.0.2.1-192.0.2.9", 1), from("p", service("a"))]);
    world.apply(asking("192.0.2.5", service("a")));
    world.settle();
    assert_eq!((world.used("p"), world.honoured("a")), ("192.0.2.5=ns/a".into(), "True Assigned".into()));
    // On purpose.
    world.apply(annotated(from("p", service("a")), "openelb.kubesphere.io/reassign", "now"));
    world.settle();
    assert_eq!(world.used("p"), "192.0.2.1=ns/a");

    // To another pool, whose quota is used up: it stays where it is until there is room.
    let mut world = World::of([
        pool("p", "192.0.2.1-192.0.2.9", 1),
        pool("q", "198.51.100.1-198.51.100.9", 1),
        from("p", service("a")),
        from("q", service("b")),
    ]);
    world.apply(from("q", service("a")));
    world.settle();
    assert_eq!((world.used("p").as_str(), world.used("q").as_str()), ("192.0.2.1=ns/a", "198.51.100.1=ns/b"));
    assert_eq!(
        (world.assigned("a"), world.honoured("a")),
        ("True Assigned".into(), "False QuotaExceeded".into())
    );
    world.delete_service("b");
    world.settle();
    assert_eq!((world.used("p").as_str(), world.used("q").as_str()), ("", "198.51.100.1=ns/a"));

    // Two that change places, in one pool and over two, with both quotas used up.
    let mut world = World::of([
        pool("p", "192.0.2.1-192.0.2.9", 2),
        asking("192.0.2.1", service("a")),
        asking("192.0.2.2", service("b")),
    ]);
    world.apply(asking("192.0.2.2", service("a")));
    world.apply(asking("192.0.2.1", service("b")));
    world.settle();
    assert_eq!(world.used("p"), "192.0.2.1=ns/b 192.0.2.2=ns/a");
    let mut world = World::of([
        pool("p", "192.0.2.1-192.0.2.9", 1),
        pool("q", "198.51.100.1-198.51.100.9", 1),
        asking("192.0.2.1", service("a")),
        asking("198.51.100.1", service("b")),
    ]);
    world.apply(asking("198.51.100.1", service("a")));
    world.apply(asking("192.0.2.1", service("b")));
    world.settle();
    assert_eq!((world.used("p").as_str(), world.used("q").as_str()), ("192.0.2.1=ns/b", "198.51.100.1=ns/a"));

    // One more than the quota is refused all the same.
    let world =
        World::of([pool("p", "192.0.2.1-192.0.2.9", 1), from("p", service("a")), from("p", service("b"))]);
    assert_eq!(world.assigned("b"), "False QuotaExceeded");
}

#[test]
fn ipv4_mapped_addresses_are_refused_in_exclusions_as_in_addresses() {
    for mapped in ["::ffff:192.0.2.2", "::ffff:192.0.2.0/126", "192.0.2.2, ::ffff:c000:203"] {
        let pool = with(default_eip("p", "192.0.2.1-192.0.2.9"), json!({"spec": {"exclude": [mapped]}}));
        let world = World::of([pool, from("p", service("a"))]);
        assert_eq!(world.assigned("a"), "False PoolInvalid", "{mapped}");
        let status = &world.indexes.pools.get("p").unwrap().status;
        let ready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready").unwrap();
        assert!(ready.message.contains("spec.exclude"), "{mapped}: {}", ready.message);
    }
}
