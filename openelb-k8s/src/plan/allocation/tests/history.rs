//! Random histories: the planner, which looks only at what changed, says at each point what a plan from nothing says
//! ([`World::plan`] compares them), and every history comes to rest.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::*;
use crate::object::{Kind, NamespacedName, ObjectRef};

#[derive(Clone)]
enum Step {
    /// A Service or an Eip, as a user writes it.
    Apply(Value),
    DeleteService(usize),
    DeleteEip(usize, bool),
    Namespace(&'static str, &'static str),
    Node(&'static str),
    /// Somebody writes this where only we should.
    Tamper(ObjectRef, Value),
    /// Plans, and executes those of its writes whose bit is set.
    Execute(u32),
}

/// On one line: what a counterexample shows.
impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Apply(object) => write!(f, "apply {object}"),
            Self::DeleteService(i) => write!(f, "delete {}", reference(*i)),
            Self::DeleteEip(i, force) => write!(f, "delete e{i}, force: {force}"),
            Self::Namespace(name, team) => write!(f, "namespace {name} of {team}"),
            Self::Node(address) => write!(f, "node {address}"),
            Self::Tamper(reference, patch) => write!(f, "tamper {reference} {patch}"),
            Self::Execute(bits) => write!(f, "execute {bits:b}"),
        }
    }
}

const SERVICES: [(&str, &str); 7] =
    [("a", "s0"), ("a", "s1"), ("a", "s2"), ("a", "s3"), ("b", "s4"), ("b", "s5"), ("b", "s6")];
const EIPS: [&str; 3] = ["e0", "e1", "e2"];
const ADDRESSES: [&str; 6] =
    ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.9", "2001:db8::1", "192.0.2.2,2001:db8::2"];

fn one(of: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(of)
}

fn service() -> impl Strategy<Value = Step> {
    let request = prop_oneof![
        4 => Just((None, None)),
        2 => one(&ADDRESSES).prop_map(|address| (Some(address), None)),
        2 => one(&["e0", "e1", "e1,e2", "none"]).prop_map(|pool| (None, Some(pool))),
        1 => (one(&ADDRESSES), one(&EIPS)).prop_map(|(address, pool)| (Some(address), Some(pool))),
    ];
    let families = prop_oneof![
        3 => Just(("SingleStack", &["IPv4"][..])),
        1 => Just(("SingleStack", &["IPv6"][..])),
        1 => Just(("PreferDualStack", &["IPv4", "IPv6"][..])),
        1 => Just(("RequireDualStack", &["IPv6", "IPv4"][..])),
    ];
    let key = prop::option::weighted(0.3, one(&["k", "l"]));
    let reassign = prop::option::weighted(0.1, one(&["1", "2"]));
    let policy = prop::option::weighted(0.2, Just("Local"));
    let ours = prop::bool::weighted(0.9);
    (0..SERVICES.len(), request, families, key, reassign, policy, 80_u16..83, ours).prop_map(
        |(i, (address, pool), (policy, list), key, reassign, traffic, port, ours)| {
            let (namespace, name) = SERVICES[i];
            let mut object = families_of(policy, list, service_in(namespace, name));
            object["spec"]["ports"][0]["port"] = json!(port);
            if let Some(traffic) = traffic {
                object["spec"]["externalTrafficPolicy"] = json!(traffic);
            }
            if !ours {
                object["spec"]["loadBalancerClass"] = json!("another.io/one");
            }
            for (name, value) in [
                ("eip.openelb.kubesphere.io/v1alpha1", address),
                ("eip.openelb.kubesphere.io/v1alpha2", pool),
                ("openelb.kubesphere.io/allow-shared-ip", key),
                ("openelb.kubesphere.io/reassign", reassign),
            ] {
                if let Some(value) = value {
                    object = annotated(object, name, value);
                }
            }
            Step::Apply(object)
        },
    )
}

fn families_of(policy: &str, list: &[&str], object: Value) -> Value {
    families(policy, list, object)
}

fn an_eip() -> impl Strategy<Value = Step> {
    let address = one(&[
        "192.0.2.1-192.0.2.3",
        "192.0.2.2-192.0.2.9",
        "192.0.2.1-192.0.2.2, 2001:db8::1-2001:db8::2",
        "2001:db8::/64",
        "192.0.2.1",
        "nonsense",
    ]);
    let spec = prop::collection::vec(
        prop::sample::select(
            &[
                r#"{"autoAssign": true}"#,
                r#"{"autoAssign": false}"#,
                r#"{"disable": true}"#,
                r#"{"priority": 5}"#,
                r#"{"sharing": "Address"}"#,
                r#"{"sharing": "None"}"#,
                r#"{"maxPerNamespace": 1}"#,
                r#"{"namespaces": ["a"]}"#,
                r#"{"namespaceSelector": {"team": "red"}}"#,
                r#"{"enforceSelectors": true}"#,
                r#"{"exclude": ["192.0.2.2"]}"#,
            ][..],
        ),
        0..3,
    );
    (0..EIPS.len(), address, spec, prop::bool::weighted(0.6)).prop_map(|(i, address, parts, default)| {
        let mut object = if default { default_eip(EIPS[i], address) } else { eip(EIPS[i], address) };
        for part in parts {
            let part: Value = serde_json::from_str(part).unwrap();
            object = with(object, json!({"spec": part}));
        }
        Step::Apply(object)
    })
}

fn reference(i: usize) -> ObjectRef {
    let (namespace, name) = SERVICES[i];
    ObjectRef::namespaced(Kind::Service, &NamespacedName::new(namespace, name))
}

fn tamper() -> impl Strategy<Value = Step> {
    let used = (
        0..EIPS.len(),
        one(&["192.0.2.1", " 192.0.2.2", "192.0.2.77", "2001:DB8::1", "x"]),
        one(&["a/s0", "a/s1;b/s4", "b/s4;a/s1", "a/gone", "nobody"]),
    )
        .prop_map(|(i, address, holders)| {
            (ObjectRef::cluster(Kind::Eip, EIPS[i]), json!({"status": {"used": {address: holders}}}))
        });
    let lost =
        (0..EIPS.len()).prop_map(|i| (ObjectRef::cluster(Kind::Eip, EIPS[i]), json!({"status": null})));
    let published =
        (0..SERVICES.len(), one(&ADDRESSES[..4]), any::<bool>()).prop_map(|(i, address, gone)| {
            let ingress = if gone { json!([]) } else { json!([{"ip": address}]) };
            (reference(i), json!({"status": {"loadBalancer": {"ingress": ingress}}}))
        });
    let forgotten = (0..SERVICES.len()).prop_map(|i| {
        (reference(i), json!({"metadata": {"annotations": {"openelb.kubesphere.io/assigned": null}}}))
    });
    prop_oneof![used, lost, published, forgotten]
        .prop_map(|(reference, patch)| Step::Tamper(reference, patch))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => service(),
        2 => (0..SERVICES.len()).prop_map(Step::DeleteService),
        2 => an_eip(),
        1 => (0..EIPS.len(), any::<bool>()).prop_map(|(i, force)| Step::DeleteEip(i, force)),
        1 => (one(&["a", "b"]), one(&["red", "blue"])).prop_map(|(name, team)| Step::Namespace(name, team)),
        1 => one(&["192.0.2.1", "192.0.2.3", "198.51.100.1"]).prop_map(Step::Node),
        2 => tamper(),
        6 => any::<u32>().prop_map(Step::Execute),
        4 => Just(Step::Execute(u32::MAX)),
    ]
}

fn take(world: &mut World, step: Step) {
    match step {
        Step::Apply(object) => world.apply(object),
        Step::DeleteService(i) => {
            if world.exists(&reference(i)) {
                world.delete(&reference(i));
            }
        }
        Step::DeleteEip(i, force) => {
            let eip = ObjectRef::cluster(Kind::Eip, EIPS[i]);
            if !world.exists(&eip) {
                return;
            }
            if force {
                let generation = world.value(&eip)["metadata"]["generation"].to_string();
                let annotations = json!({"openelb.kubesphere.io/force": generation});
                world.patch(&eip, json!({"metadata": {"annotations": annotations}}));
            }
            world.delete(&eip);
        }
        Step::Namespace(name, team) => world.apply(json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"team": team}}
        })),
        Step::Node(address) => world.apply(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]}
        })),
        Step::Tamper(reference, patch) => {
            if world.exists(&reference) {
                world.patch(&reference, patch);
            }
        }
        Step::Execute(bits) => {
            for (i, write) in world.plan().writes.iter().enumerate() {
                if bits >> (i % 32) & 1 == 1 {
                    world.execute(write);
                }
            }
        }
    }
}

/// Both plans are made after each step, and compared.
fn planned_after_each(steps: impl IntoIterator<Item = Step>) {
    let mut world = World::new();
    for step in steps {
        take(&mut world, step);
        world.plan();
    }
    world.settle();
}

/// Found by [`a_plan_of_what_changed_is_the_plan_of_everything`].
#[test]
fn a_record_in_one_eip_occupies_another_that_has_its_address() {
    let service = families_of("SingleStack", &["IPv4"], service_in("a", "s1"));
    let record = json!({"status": {"used": {"192.0.2.1": "a/s1;b/s4"}}});
    planned_after_each([
        Step::Apply(service),
        Step::Apply(eip("e0", "192.0.2.1")),
        Step::Apply(eip("e1", "192.0.2.1-192.0.2.2, 2001:db8::1-2001:db8::2")),
        Step::Tamper(ObjectRef::cluster(Kind::Eip, "e1"), record),
    ]);
}

/// Found by [`a_plan_of_what_changed_is_the_plan_of_everything`]: nothing is recorded of what it shows, and it comes
/// before one that was to have that address.
#[test]
fn one_that_shows_an_address_and_becomes_ours_is_decided_with_all_others() {
    let ours = |name| families_of("SingleStack", &["IPv4"], service_in("a", name));
    let mut foreign = ours("s2");
    foreign["spec"]["loadBalancerClass"] = json!("another.io/one");
    let shown = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
    planned_after_each([
        Step::Apply(ours("s0")),
        Step::Apply(foreign),
        Step::Tamper(reference(2), shown),
        Step::Apply(default_eip("e0", "192.0.2.1-192.0.2.2")),
        Step::Apply(ours("s2")),
    ]);
}

/// Found by [`a_plan_of_what_changed_is_the_plan_of_everything`]: the quota is used up by what is decided and not
/// committed yet.
#[test]
fn one_that_comes_while_another_is_about_to_get_an_address_is_decided_with_it() {
    let quota = with(default_eip("e0", "192.0.2.1-192.0.2.3"), json!({"spec": {"maxPerNamespace": 1}}));
    planned_after_each([
        Step::Apply(families_of("PreferDualStack", &["IPv4", "IPv6"], service_in("a", "s0"))),
        Step::Apply(quota),
        Step::Apply(families_of("SingleStack", &["IPv4"], service_in("a", "s3"))),
    ]);
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]
    #[test]
    fn a_plan_of_what_changed_is_the_plan_of_everything(steps in prop::collection::vec(step(), 1..40)) {
        planned_after_each(steps);
    }
}
