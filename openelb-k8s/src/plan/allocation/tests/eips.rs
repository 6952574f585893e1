//! Eips: grammar, defects, overlaps, figures.

use serde_json::json;

use super::world::{World, asking, default_eip, eip, from, service, with};
use crate::object::{Kind, ObjectRef};

#[test]
fn an_eip_that_cannot_be_used_is_not_ready_and_others_go_on() {
    let world = World::of([
        default_eip("bad", "192.0.2.1-192.0.2.300"),
        with(eip("l2", "192.0.2.1"), json!({"spec": {"protocol": "layer2"}})),
        with(eip("good", "198.51.100.1"), json!({"spec": {"autoAssign": true}})),
        service("a"),
        from("bad", service("b")),
    ]);
    assert_eq!(world.published("a"), "198.51.100.1");
    assert_eq!(world.assigned("b"), "False PoolInvalid");
    for name in ["bad", "l2"] {
        let status = &world.indexes.pools.get(name).unwrap().status;
        let ready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready").unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "InvalidSpec"));
        assert_eq!(status.ready, Some(false));
    }
}

#[test]
fn one_that_becomes_bad_goes_on_with_its_last_good_spec() {
    let mut world = World::of([default_eip("p", "192.0.2.1-192.0.2.9"), service("a")]);
    world.apply(default_eip("p", "rubbish"));
    world.apply(service("b"));
    world.settle();
    assert_eq!((world.published("a"), world.published("b")), ("192.0.2.1".into(), "192.0.2.2".into()));
    assert_eq!(world.eip_condition("p", "Ready"), None);
}

#[test]
fn after_a_restart_its_live_addresses_are_kept_and_nothing_new_is_given() {
    let mut before = World::of([default_eip("p", "192.0.2.1-192.0.2.9"), service("a")]);
    before.apply(default_eip("p", "rubbish"));
    before.settle();
    let mut world = World::new();
    world.apply(before.value(&ObjectRef::cluster(Kind::Eip, "p")).clone());
    world.apply(before.value(&super::world::service_ref("a")).clone());
    world.apply(service("b"));
    world.settle();
    assert_eq!((world.published("a"), world.published("b")), ("192.0.2.1".into(), String::new()));
    assert_eq!(world.used("p"), "192.0.2.1=ns/a");
    assert_eq!(world.assigned("b"), "False PoolInvalid");
}

#[test]
fn of_overlapping_eips_the_older_owns_the_common_part_and_the_younger_shows_it() {
    let world = World::of([
        eip("z-old", "192.0.2.0-192.0.2.1"),
        default_eip("young", "192.0.2.0-192.0.2.3"),
        service("a"),
        asking("192.0.2.0", service("b")),
    ]);
    assert_eq!(world.published("a"), "192.0.2.2");
    assert_eq!(
        (world.used("z-old").as_str(), world.used("young").as_str()),
        ("192.0.2.0=ns/b", "192.0.2.2=ns/a")
    );
    let message = world.eip_condition("young", "Overlapping").unwrap();
    assert!(message.contains("192.0.2.0-192.0.2.1"), "{message}");
    assert_eq!(world.eip_condition("z-old", "Overlapping"), None);
}

#[test]
fn of_two_defaults_the_older_counts_and_the_other_shows_a_condition() {
    let world =
        World::of([default_eip("z-old", "192.0.2.1"), default_eip("a-young", "192.0.2.9"), service("a")]);
    assert_eq!(world.published("a"), "192.0.2.1");
    assert!(world.eip_condition("a-young", "NotDefault").is_some_and(|m| m.contains("z-old")));
    assert_eq!(world.eip_condition("z-old", "NotDefault"), None);
}

#[test]
fn figures_of_the_status() {
    let pool = with(
        default_eip("p", "192.0.2.0/30, 2001:db8::/126"),
        json!({"spec": {"avoidNetworkAndBroadcast": true, "exclude": ["2001:db8::2/127"]}}),
    );
    let mut world = World::of([pool, service("a")]);
    let status = world.indexes.pools.get("p").unwrap().status.clone();
    assert_eq!((status.pool_size, status.usage, status.occupied), (Some(4), Some(1), Some(false)));
    assert_eq!(
        (status.first_ip.as_deref(), status.last_ip.as_deref()),
        (Some("192.0.2.1"), Some("192.0.2.2"))
    );
    assert_eq!((status.v4, status.ready, status.observed_generation), (Some(true), Some(true), Some(1)));
    world.apply(default_eip("p", "2001:db8::/32"));
    world.delete_service("a");
    world.settle();
    let status = world.indexes.pools.get("p").unwrap().status.clone();
    assert_eq!((status.pool_size, status.v4, status.usage), (Some(i64::MAX), Some(false), Some(0)));
    assert_eq!(status.first_ip.as_deref(), Some("2001:db8::"));
}

#[test]
fn occupied_is_nothing_that_automatic_choice_could_give() {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
                      "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.2"}]}});
    let world = World::of([node, default_eip("p", "192.0.2.1-192.0.2.2"), service("a")]);
    let status = &world.indexes.pools.get("p").unwrap().status;
    assert_eq!((status.occupied, status.usage, status.pool_size), (Some(true), Some(1), Some(2)));
}

#[test]
fn never_given_addresses_count_as_excluded_also_by_name() {
    let world = World::of([
        default_eip("p", "127.0.0.0/8, 169.254.0.0/16, 224.0.0.0-255.255.255.255, 0.0.0.0/8, 192.0.2.1"),
        asking("127.0.0.1", service("a")),
        asking("224.0.0.5", service("b")),
        service("c"),
    ]);
    assert_eq!(world.indexes.pools.get("p").unwrap().status.pool_size, Some(1));
    assert_eq!(world.assigned("a"), "False AddressExcluded");
    assert_eq!(world.assigned("b"), "False AddressExcluded");
    assert_eq!(world.published("c"), "192.0.2.1");
}

#[test]
fn an_eip_being_deleted_whose_addresses_a_valid_one_covers_gives_its_records_over_and_goes() {
    let mut world =
        World::of([default_eip("old", "192.0.2.1-192.0.2.9"), service("a"), eip("new", "192.0.2.0/24")]);
    world.delete_eip("old");
    world.settle();
    assert!(!world.exists(&ObjectRef::cluster(Kind::Eip, "old")));
    assert_eq!((world.used("new").as_str(), world.published("a").as_str()), ("192.0.2.1=ns/a", "192.0.2.1"));
    assert!(!world.writes.iter().any(|write| write.target.kind == Kind::Service), "{:?}", world.writes);
}

#[test]
fn a_finalizer_only_while_it_is_in_use() {
    let finalizers = |world: &World| world.indexes.pools.get("p").unwrap().finalizers.clone();
    let mut world = World::of([default_eip("p", "192.0.2.1")]);
    assert_eq!(finalizers(&world), Vec::<String>::new());
    world.apply(service("a"));
    world.settle();
    assert_eq!(finalizers(&world), ["finalizer.ipam.kubesphere.io/v1alpha1"]);
    world.delete_service("a");
    world.settle();
    assert_eq!(finalizers(&world), Vec::<String>::new());
}

#[test]
fn when_used_nears_what_one_object_can_hold_the_next_candidate_pool_is_used() {
    let mut world = World::new();
    let long = "x".repeat(60);
    let mut used = serde_json::Map::new();
    for i in 0..11_000 {
        let name = format!("{long}-{i}");
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + i).to_string();
        used.insert(address, json!(format!("ns/{name}")));
        world.apply(service(&name));
    }
    world.apply(with(default_eip("full", "10.0.0.0/8"), json!({"status": {"used": used}})));
    world.apply(with(eip("next", "192.0.2.1"), json!({"spec": {"autoAssign": true, "priority": 1}})));
    world.apply(service("a"));
    let plan = world.plan();
    let of_next = plan.writes.iter().find(|write| write.target.name == "next").unwrap();
    assert_eq!(of_next.patch()["status"]["used"], json!({"192.0.2.1": "ns/a"}));
    assert!(plan.pools["full"].conditions.iter().any(|c| c.condition == "StatusFull"));
}

/// What we commit ourselves must not end in a pool that takes nothing more and does not say so.
#[test]
fn a_pool_that_our_own_commits_fill_says_so_and_the_rest_go_to_the_next_one() {
    let mut world = World::new();
    let entry = |i: u32| {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + i).to_string();
        (address, format!("{0}/{0}-{i:05}", "x".repeat(57)))
    };
    let (mut used, mut bytes, mut i) = (serde_json::Map::new(), 0, 0);
    while bytes < (900 << 10) - 500 {
        let (address, holder) = entry(i);
        let (namespace, name) = holder.split_once('/').unwrap();
        world.apply(super::world::service_in(namespace, name));
        bytes += address.len() + holder.len() + 6;
        used.insert(address, json!(holder));
        i += 1;
    }
    world.apply(with(default_eip("full", "10.0.0.0/8"), json!({"status": {"used": used}})));
    world.apply(with(eip("next", "192.0.2.0/24"), json!({"spec": {"autoAssign": true, "priority": 1}})));
    let new: Vec<_> = (0..8).map(|n| format!("{}-{n}", "n".repeat(60))).collect();
    for name in &new {
        world.apply(service(name));
    }
    for _ in 0..3 {
        let plan = world.plan();
        // The others publish what they have: of no interest here, and there are thousands.
        let of_interest = |name: &str| new.iter().any(|new| new == name) || ["full", "next"].contains(&name);
        for write in plan.writes.iter().filter(|write| of_interest(&write.target.name)) {
            world.execute(write);
        }
    }
    let (in_next, in_full): (Vec<_>, Vec<_>) =
        new.iter().map(|name| world.published(name)).partition(|address| address.starts_with("192.0.2."));
    assert!(in_full.iter().all(|address| address.starts_with("10.")), "{in_full:?}");
    assert!(in_full.len() >= 3 && in_next.len() >= 2, "{in_full:?} and {in_next:?}");
    assert!(world.eip_condition("full", "StatusFull").is_some());
}
