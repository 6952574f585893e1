//! Sentences with several cases each, as tables.

use serde_json::{Value, json};

use super::world::{
    World, annotated, asking, default_eip, eip, families, from, service, service_in, service_ref, with,
};
use crate::object::{Kind, ObjectRef};

const KEY: &str = "openelb.kubesphere.io/allow-shared-ip";

fn ports(ports: Value, object: Value) -> Value {
    with(object, json!({"spec": {"ports": ports}}))
}

/// A Service of ours by annotation, without class.
fn opted_in(name: &str) -> Value {
    annotated(
        with(service(name), json!({"spec": {"loadBalancerClass": null}})),
        "lb.kubesphere.io/v1alpha1",
        "openelb",
    )
}

fn label(world: &World, name: &str) -> Value {
    world.value(&service_ref(name))["metadata"]["labels"]["eip.openelb.kubesphere.io/v1alpha2"].clone()
}

#[test]
fn a_service_that_stops_being_ours_gives_its_address_back_un_published_first() {
    let stop: [(&str, Value); 4] = [
        ("type", json!({"spec": {"type": "NodePort"}})),
        ("class", json!({"spec": {"loadBalancerClass": "example.com/other"}})),
        ("annotation", json!({"metadata": {"annotations": {"lb.kubesphere.io/v1alpha1": null}}})),
        (
            "deletion",
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x/y"]}}),
        ),
    ];
    for (how, patch) in stop {
        let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9"), opted_in("a")]);
        assert_eq!((world.published("a").as_str(), label(&world, "a")), ("192.0.2.1", json!("p")), "{how}");
        world.patch_service("a", patch);
        world.settle();
        assert_eq!((world.published("a"), world.used("p"), world.assigned("a")), Default::default(), "{how}");
        assert_eq!(label(&world, "a"), json!(null), "{how}");
        let of_kind = |kind| world.writes.iter().position(|write| write.target.kind == kind).unwrap();
        assert!(of_kind(Kind::Service) < of_kind(Kind::Eip), "{how}: {:?}", world.writes);
    }
}

#[test]
fn a_copied_annotation_takes_nothing_off_a_service_that_was_never_ours() {
    let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9"), service("a")]);
    let copied = &world.value(&service_ref("a"))["metadata"];
    let (annotations, labels) = (copied["annotations"].clone(), copied["labels"].clone());
    let assigned = annotations["openelb.kubesphere.io/assigned"].as_str().unwrap();
    assert!(assigned.contains("192.0.2.1"), "{assigned}");
    let of_others = json!({
        "metadata": {"annotations": annotations, "labels": labels},
        "spec": {"loadBalancerClass": "example.com/other"},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]},
                   "conditions": [{"type": "example.com/Ready", "status": "True", "reason": "Yes", "message": "",
                                   "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    });
    world.apply(with(service("b"), of_others.clone()));
    world.settle();
    let object = world.value(&service_ref("b"));
    assert_eq!(object["status"], of_others["status"]);
    assert_eq!(label(&world, "b"), json!("p"));
    assert!(
        object["metadata"]["annotations"].get("openelb.kubesphere.io/assigned").is_none(),
        "it says nothing true"
    );
    assert_eq!((world.published("a").as_str(), world.used("p").as_str()), ("192.0.2.1", "192.0.2.1=ns/a"));
}

#[test]
fn a_condition_of_others_that_cannot_be_read_stays_as_it_is_and_takes_no_address() {
    let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9"), service("a")]);
    let odd = json!({"type": "example.com/Ready", "status": "True", "reason": "Yes", "message": "",
                     "lastTransitionTime": null});
    let conditions = |world: &World| -> Vec<Value> {
        world.value(&service_ref("a"))["status"]["conditions"].as_array().unwrap().clone()
    };
    let mut all = conditions(&world);
    all.push(odd.clone());
    world.patch_service("a", json!({"status": {"conditions": all}}));
    world.settle();
    assert_eq!((world.published("a").as_str(), world.writes.len()), ("192.0.2.1", 0));
    // Ours are written anew, one of them because it cannot be read either.
    let ours = json!({"type": "network.kubesphere.io/AddressAssigned", "status": "True", "reason": "Assigned",
                      "message": "", "lastTransitionTime": null});
    world.patch_service("a", json!({"status": {"conditions": [odd, ours]}}));
    world.settle();
    assert_eq!((world.published("a").as_str(), world.assigned("a").as_str()), ("192.0.2.1", "True Assigned"));
    let now = conditions(&world);
    assert_eq!((now.len(), now.iter().filter(|condition| **condition == odd).count()), (3, 1), "{now:?}");
    // A Service that is not ours any more.
    world.patch_service("a", json!({"spec": {"type": "NodePort"}}));
    world.settle();
    assert_eq!((world.published("a").as_str(), conditions(&world)), ("", vec![odd]));
}

#[test]
fn a_request_overrides_every_binding() {
    for binding in [
        json!({"namespaces": ["elsewhere"]}),
        json!({"namespaceSelector": {"team": "x"}}),
        json!({"serviceSelector": {"matchLabels": {"tier": "web"}}}),
        json!({"autoAssign": false}),
    ] {
        let pool = |more| with(eip("p", "192.0.2.1-192.0.2.9"), json!({"spec": more}));
        let requests = [from("p", service("a")), asking("192.0.2.7", service("b"))];
        let world = World::of([pool(binding.clone())].into_iter().chain(requests.clone()));
        let published = (world.published("a"), world.published("b"));
        assert_eq!(published, ("192.0.2.1".to_owned(), "192.0.2.7".to_owned()), "{binding}");
        if binding.get("autoAssign").is_some() {
            continue;
        }
        let enforced = with(pool(binding.clone()), json!({"spec": {"enforceSelectors": true}}));
        let world = World::of([enforced].into_iter().chain(requests));
        for name in ["a", "b"] {
            assert_eq!(world.assigned(name), "False NotAllowed", "{binding} {name}");
        }
    }
}

#[test]
fn pools_that_are_no_candidates_bind_nobody() {
    let bound =
        |more: Value| with(with(eip("bound", "192.0.2.10"), json!({"spec": {"namespaces": ["ns"]}})), more);
    for (why, pool) in [
        ("disabled", bound(json!({"spec": {"disable": true}}))),
        ("invalid", bound(json!({"spec": {"address": "rubbish"}}))),
        (
            "deleting",
            bound(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x/y"]}})),
        ),
    ] {
        let world = World::of([default_eip("default", "192.0.2.1"), pool, service("a")]);
        assert_eq!(world.published("a"), "192.0.2.1", "{why}");
    }
}

#[test]
fn each_family_is_chosen_by_itself() {
    let four = with(eip("four", "192.0.2.1"), json!({"spec": {"namespaces": ["ns"]}}));
    let world = World::of([
        four,
        default_eip("default", "198.51.100.1, 2001:db8::1"),
        families("RequireDualStack", &["IPv4", "IPv6"], service("a")),
    ]);
    assert_eq!(world.published("a"), "192.0.2.1 2001:db8::1");
}

#[test]
fn of_the_same_age_by_namespace_then_name() {
    let stamp = |object| with(object, json!({"metadata": {"creationTimestamp": "2024-01-01T00:00:00Z"}}));
    let mut world = World::new();
    for object in [
        service_in("z", "a"),
        service_in("a", "z"),
        service_in("a", "b"),
        default_eip("p", "192.0.2.1-192.0.2.2"),
    ] {
        world.apply(stamp(object));
    }
    world.settle();
    assert_eq!(world.used("p"), "192.0.2.1=a/b 192.0.2.2=a/z");
}

#[test]
fn of_the_same_age_the_eip_that_comes_first_by_name_owns_the_common_part() {
    let stamp = |object| with(object, json!({"metadata": {"creationTimestamp": "2024-01-01T00:00:00Z"}}));
    let world = World::of([
        stamp(eip("b", "192.0.2.1-192.0.2.3")),
        stamp(eip("a", "192.0.2.2-192.0.2.4")),
        asking("192.0.2.2", service("s")),
    ]);
    assert_eq!((world.used("a").as_str(), world.used("b").as_str()), ("192.0.2.2=ns/s", ""));
    assert!(world.eip_condition("b", "Overlapping").is_some_and(|m| m.contains("192.0.2.2-192.0.2.3")));
}

#[test]
fn who_may_join_by_address() {
    let pool = |sharing: Option<&str>| with(eip("p", "192.0.2.1"), json!({"spec": {"sharing": sharing}}));
    let other = |namespace: &str, key: Option<&str>| {
        let object = ports(json!([{"port": 81}]), asking("192.0.2.1", service_in(namespace, "b")));
        match key {
            Some(key) => annotated(object, KEY, key),
            None => object,
        }
    };
    // Sharing of the Eip; key of the holder; namespace and key of who asks; does it join?
    type Case = (Option<&'static str>, Option<&'static str>, &'static str, Option<&'static str>, bool);
    let cases: [Case; 15] = [
        (None, None, "ns", None, true),
        (None, None, "ns", Some("k"), false),
        (None, Some("k"), "ns", None, false),
        (None, Some("k"), "ns", Some("k"), true),
        (None, Some("k"), "ns", Some("l"), false),
        (None, None, "far", None, false),
        (None, Some("k"), "far", Some("k"), true),
        (Some("Address"), None, "far", None, true),
        (Some("Address"), Some("k"), "far", Some("k"), true),
        (Some("Address"), Some("k"), "far", Some("l"), false),
        (Some("Key"), None, "ns", None, false),
        (Some("Key"), Some("k"), "ns", Some("k"), true),
        (Some("Key"), Some("k"), "far", Some("k"), true),
        (Some("None"), None, "ns", None, false),
        (Some("None"), Some("k"), "ns", Some("k"), false),
    ];
    for case in cases {
        let (sharing, holder, namespace, key, joins) = case;
        let first = asking("192.0.2.1", service("a"));
        let first = match holder {
            Some(key) => annotated(first, KEY, key),
            None => first,
        };
        let world = World::of([pool(sharing), first, other(namespace, key)]);
        assert_eq!(world.published("a"), "192.0.2.1", "{case:?}");
        assert_eq!(!world.published_in(namespace, "b").is_empty(), joins, "{case:?}");
    }
}

#[test]
fn one_port_may_be_shared_by_two_protocols() {
    let of = |protocol: &str, name: &str| {
        ports(json!([{"port": 53, "protocol": protocol}]), asking("192.0.2.1", service(name)))
    };
    let world = World::of([eip("p", "192.0.2.1"), of("TCP", "a"), of("UDP", "b"), of("UDP", "c")]);
    assert_eq!(world.used("p"), "192.0.2.1=ns/a;ns/b");
    assert_eq!(world.assigned("c"), "False SharingConflict");
}

#[test]
fn a_key_joins_the_address_that_it_has_not_a_lower_free_one() {
    let mut world = World::of([
        default_eip("p", "192.0.2.1-192.0.2.9"),
        service("holder"),
        annotated(service("a"), KEY, "k"),
    ]);
    world.delete_service("holder");
    world.settle();
    world.apply(annotated(ports(json!([{"port": 81}]), service("b")), KEY, "k"));
    world.settle();
    assert_eq!(world.used("p"), "192.0.2.2=ns/a;ns/b");
}

#[test]
fn a_restart_and_another_leader_write_nothing() {
    let mut before = World::of([
        default_eip("p", "192.0.2.1-192.0.2.9, 2001:db8::/120"),
        service("a"),
        families("PreferDualStack", &["IPv6", "IPv4"], service("b")),
        asking("192.0.2.7", ports(json!([{"port": 1}]), service("c"))),
        asking("192.0.2.7", ports(json!([{"port": 2}]), service("d"))),
        from("nope", service("waits")),
    ]);
    before.settle();
    let mut world = World::new();
    world.apply(before.value(&ObjectRef::cluster(Kind::Eip, "p")).clone());
    for name in ["d", "c", "b", "a", "waits"] {
        world.apply(before.value(&service_ref(name)).clone());
    }
    world.settle();
    assert_eq!((world.writes, world.events), (Vec::new(), Vec::new()));
}

#[test]
fn one_bad_entry_makes_the_whole_eip_unusable() {
    for bad in [
        json!({"address": "192.0.2.1, 192.0.2.300"}),
        json!({"address": "192.0.2.1, 10.0.0.0/255.0.255.0"}),
        json!({"address": "192.0.2.9-192.0.2.1"}),
        json!({"address": "192.0.2.1-2001:db8::1"}),
        json!({"address": "::ffff:192.0.2.1"}),
        json!({"address": "192.0.2.1", "exclude": ["192.0.2.2", "rubbish"]}),
        json!({"address": "192.0.2.1", "protocol": "vip"}),
        json!({"address": "192.0.2.1", "protocol": "layer2", "interface": " "}),
        json!({"address": "192.0.2.1", "protocol": "ospf"}),
    ] {
        let pool = with(default_eip("p", "192.0.2.1"), json!({"spec": bad}));
        let world = World::of([pool, from("p", service("a"))]);
        assert_eq!(world.assigned("a"), "False PoolInvalid", "{bad}");
        assert_eq!(world.eip_condition("p", "Ready"), None, "{bad}");
    }
}

#[test]
fn one_grammar_for_addresses_and_exclusions() {
    let list = "192.0.2.4 - 192.0.2.5;\n2001:db8::1\t192.0.2.8/31, 192.0.2.12/255.255.255.254";
    let given = with(eip("p", list), json!({}));
    let excluded = with(
        eip("q", "198.51.100.0/24"),
        json!({"spec": {"exclude": [list.replace("192.0.2", "198.51.100")]}}),
    );
    let world = World::of([given, excluded]);
    let size = |name: &str| world.indexes.pools.get(name).unwrap().status.pool_size;
    assert_eq!((size("p"), size("q")), (Some(7), Some(250)));
}

#[test]
fn never_given_not_even_by_name() {
    let addresses = [
        "0.0.0.1",
        "127.0.0.1",
        "169.254.1.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "ff02::1",
    ];
    for address in addresses {
        let world = World::of([default_eip("p", address), asking(address, service("a"))]);
        assert_eq!(world.assigned("a"), "False AddressExcluded", "{address}");
        assert_eq!(world.indexes.pools.get("p").unwrap().status.pool_size, Some(0), "{address}");
    }
}

#[test]
fn vip_pools_do_not_give_the_subnet_router_anycast_address_but_by_name() {
    let pool = with(
        eip("p", "2001:db8::/126, 2001:db8:1::/127"),
        json!({"spec": {"protocol": "vip", "interface": "eth0"}}),
    );
    let six = |name: &str| families("SingleStack", &["IPv6"], service(name));
    let mut objects = vec![pool];
    objects.extend(["a", "b", "c", "d"].map(|name| from("p", six(name))));
    objects.push(asking("2001:db8::", six("by-name")));
    let world = World::of(objects);
    let got: Vec<String> = ["a", "b", "c", "d", "by-name"].map(|name| world.published(name)).into();
    // In a /127 both are hosts (RFC 6164).
    assert_eq!(got, ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:1::", "2001:db8::"]);
}

#[test]
fn an_address_and_one_pool_of_two_families_share_one_request() {
    let pools = [eip("four", "192.0.2.1-192.0.2.9"), eip("six", "2001:db8::1-2001:db8::9")];
    let dual = |object| families("RequireDualStack", &["IPv6", "IPv4"], object);
    let asked = from("four,six", asking("192.0.2.4,2001:db8::4", dual(service("a"))));
    // The address of one family does not make the pool of the other superfluous.
    let half = from("four,six", asking("192.0.2.5", dual(service("b"))));
    let world = World::of(pools.into_iter().chain([asked, half]));
    assert_eq!(world.published("a"), "2001:db8::4 192.0.2.4");
    assert_eq!(world.published("b"), "2001:db8::1 192.0.2.5");
}

#[test]
fn a_changed_request_that_is_bad_again_is_told_once_and_kept() {
    let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9"), asking("192.0.2.3", service("a"))]);
    world.apply(asking("203.0.113.1", service("a")));
    world.settle();
    assert_eq!(world.events.len(), 1, "{:?}", world.events);
    world.apply(asking("203.0.113.2", service("a")));
    world.settle();
    assert_eq!(world.events, [], "the cause is the same");
    assert_eq!(
        (world.published("a"), world.honoured("a")),
        ("192.0.2.3".into(), "False AddressOutsidePools".into())
    );
}
