//! What is told of objects and writes that are no good.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::{Client, client::Body};
use openelb_k8s::{
    index::services::ClassRules,
    object::{Kind, NamespacedName, Object, ObjectRef},
    plan::Write,
    problem::Problem,
    source::kube::{Change, Versions},
    store::{ApiServer, StoreError},
};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{DECIDED_ON, Done, Owner};
use crate::{
    api_events::Reporter,
    controller::Options,
    http::{
        Readiness,
        metrics::{Metrics, Sources},
    },
    kubernetes::ClusterArguments,
};

/// One that follows, beside an API server that says nothing.
fn owner() -> Owner {
    let silent = |_: http::Request<Body>| std::future::pending::<Result<http::Response<Body>, Infallible>>();
    let client = Client::new(tower::service_fn(silent), "openelb-system");
    let options = Options {
        cluster: ClusterArguments::default(),
        namespace: "openelb-system".to_owned(),
        identity: "a".to_owned(),
        leader_elect: true,
        metrics_addr: "0".parse().unwrap(),
        http_bind_address: "0".parse().unwrap(),
        rules: ClassRules::default(),
        writers: 1,
        drain_timeout: Duration::from_secs(1),
    };
    let reporter = Reporter::spawn(client.clone(), "openelb-controller", "a");
    let metrics = Arc::new(Metrics::new(Sources::default()));
    let (readiness, _) = watch::channel(Readiness::default());
    Owner::new(&options, ApiServer::new(client), Versions::default(), reporter, metrics, readiness)
}

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap().unwrap()
}

fn eip(version: u64, address: &str) -> Object {
    object(json!({"apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip",
        "metadata": {"name": "pool", "uid": "pool", "resourceVersion": version.to_string()},
        "spec": {"address": address}, "status": {"used": {"192.0.2.1": "ns/a"}}}))
}

fn service() -> Object {
    object(json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "ns", "name": "a", "uid": "a", "resourceVersion": "2"},
        "spec": {"type": "ClusterIP"}}))
}

/// The events since the last call: kind, name and reason.
fn told(owner: &mut Owner, seen: &mut usize) -> Vec<String> {
    let all: Vec<String> = owner
        .events
        .recent()
        .map(|told| format!("{} {}: {}", told.object.kind, told.object.name, told.reason))
        .collect();
    let new = all[*seen..].to_vec();
    *seen = all.len();
    new
}

fn refused(write: &Write) -> Done {
    let error = StoreError::Refused { object: write.target.clone(), cause: "the webhook says no".to_owned() };
    Done { write: write.clone(), result: Err(error), read: Vec::new() }
}

#[tokio::test]
async fn a_refused_write_is_told_with_the_reasons_of_the_go_openelb_once() {
    let (mut owner, mut seen) = (owner(), 0);
    owner.take_in(vec![Change::Apply(eip(1, "192.0.2.0/24")), Change::Apply(service())]);
    assert_eq!(told(&mut owner, &mut seen), [""; 0]);

    let pool = Write::new(ObjectRef::cluster(Kind::Eip, "pool"), "1")
        .set(&["status", "used"], json!({"192.0.2.1": null}));
    owner.take_done(refused(&pool));
    assert_eq!(told(&mut owner, &mut seen), ["Eip pool: add/update eip", "Service a: ReleaseIPFailed"]);
    owner.take_done(refused(&pool));
    assert_eq!(told(&mut owner, &mut seen), [""; 0], "the same cause");

    let service = ObjectRef::namespaced(Kind::Service, &NamespacedName::new("ns", "a"));
    let publish = Write::new(service, "2").set(&["status", "loadBalancer", "ingress"], json!([]));
    owner.take_done(refused(&publish));
    let peer = Write::new(ObjectRef::cluster(Kind::BgpPeer, "router"), "1").set(&["status"], json!({}));
    owner.take_done(refused(&peer));
    assert_eq!(
        told(&mut owner, &mut seen),
        ["Service a: UpdateServiceStatus", "BgpPeer router: WriteRefused"]
    );

    // Taken, and refused again: another cause.
    let result = Ok(Some(eip(3, "192.0.2.0/24")));
    owner.take_done(Done { write: pool.clone(), result, read: Vec::new() });
    owner.take_done(refused(&pool));
    assert_eq!(told(&mut owner, &mut seen), ["Eip pool: add/update eip", "Service a: ReleaseIPFailed"]);
}

#[tokio::test]
async fn an_eip_that_cannot_be_used_is_told_as_the_go_openelb_did() {
    let (mut owner, mut seen) = (owner(), 0);
    owner.take_in(vec![Change::Apply(eip(1, "192.0.2.0/33"))]);
    assert_eq!(told(&mut owner, &mut seen), ["Eip pool: add/update eip"]);
    let unreadable = Problem::error("spec is a list", "write a mapping");
    owner.take_in(vec![
        Change::Unreadable(ObjectRef::cluster(Kind::Eip, "other"), unreadable.clone()),
        Change::Unreadable(ObjectRef::cluster(Kind::BgpPeer, "router"), unreadable),
    ]);
    assert_eq!(told(&mut owner, &mut seen), ["Eip other: add/update eip", "BgpPeer router: InvalidSpec"]);
}

#[tokio::test]
async fn a_layer2_conf_that_becomes_bad_is_told_and_noted_on_it() {
    let (mut owner, mut seen) = (owner(), 0);
    let conf = |version: u64, failback: &str| {
        object(json!({"apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Layer2Conf",
            "metadata": {"name": "default", "uid": "u", "resourceVersion": version.to_string()},
            "spec": {"failback": failback}}))
    };
    let reasons = |owner: &Owner| -> Vec<String> {
        let writes = owner.notes.writes(&owner.indexes.layer2, Timestamp::now());
        writes.iter().map(|write| format!("{write:?}")).collect()
    };
    owner.take_in(vec![Change::Apply(conf(1, "never"))]);
    assert_eq!(told(&mut owner, &mut seen), ["Layer2Conf default: InvalidSpec"]);
    assert!(matches!(&reasons(&owner)[..], [one] if one.contains("has the defaults there")));
    owner.take_in(vec![Change::Apply(conf(2, "Manual"))]);
    owner.take_in(vec![Change::Apply(conf(3, "manual"))]);
    assert_eq!(told(&mut owner, &mut seen), ["Layer2Conf default: InvalidSpec"]);
    assert!(matches!(&reasons(&owner)[..], [one] if one.contains("LastGoodSpec")));
}

/// What is decided on: an Eip with an address, and a Service that waits for one.
fn waiting() -> Vec<Change> {
    let eip = json!({"apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip",
        "metadata": {"name": "pool", "uid": "pool", "resourceVersion": "1",
                     "annotations": {"eip.openelb.kubesphere.io/is-default-eip": "true"}},
        "spec": {"address": "192.0.2.1"}});
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "ns", "name": "a", "uid": "a", "resourceVersion": "2"},
        "spec": {"type": "LoadBalancer", "loadBalancerClass": "openelb.io/openelb", "ports": [{"port": 80}]}});
    let objects = [eip, service].map(|value| Change::Apply(object(value)));
    // Nothing but the lists is to be waited for.
    objects.into_iter().chain([Change::Reached(Kind::Service, 2), Change::Reached(Kind::Eip, 2)]).collect()
}

#[tokio::test]
async fn nothing_is_allocated_before_the_first_complete_lists() {
    // Whichever comes last, and whether the Lease was had before the lists or comes after them.
    for last in DECIDED_ON {
        for leads_first in [true, false] {
            let what = format!("{last:?} is listed last, leading first: {leads_first}");
            let mut owner = owner();
            let idle = |owner: &Owner| owner.queue.is_empty() && owner.tasks.is_empty();
            owner.set_leading(leads_first);
            owner.take_in(waiting());
            owner.work();
            assert!(idle(&owner), "{what}: no list is complete");
            for kind in DECIDED_ON.into_iter().filter(|kind| *kind != last) {
                owner.take_in(vec![Change::Listed(kind)]);
                owner.work();
                assert!(idle(&owner), "{what}: {kind:?} is complete, {last:?} is not");
            }
            owner.set_leading(true);
            owner.work();
            assert!(idle(&owner), "{what}: {last:?} is missing");
            owner.take_in(vec![Change::Listed(last)]);
            owner.work();
            let committing: Vec<String> = owner.in_flight.values().map(ToString::to_string).collect();
            assert_eq!(committing, ["Eip pool"], "{what}: the commit is under way");
        }
    }
}

/// A write on a Service that is there.
fn publication(name: &str) -> Write {
    let service = ObjectRef::namespaced(Kind::Service, &NamespacedName::new("ns", name));
    Write::new(service, "2").set(&["status", "loadBalancer", "ingress"], json!([]))
}

fn failed(write: &Write, error: StoreError) -> Done {
    Done { write: write.clone(), result: Err(error), read: Vec::new() }
}

fn forbidden(write: &Write) -> Done {
    failed(write, StoreError::Forbidden { object: write.target.clone(), cause: "no rights".to_owned() })
}

fn succeeded(write: &Write) -> Done {
    let target = &write.target;
    let object = object(json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "ns", "name": target.name, "uid": target.name, "resourceVersion": "3"},
        "spec": {"type": "ClusterIP"}}));
    Done { write: write.clone(), result: Ok(Some(object)), read: Vec::new() }
}

#[tokio::test]
async fn credentials_that_are_not_accepted_stop_all_writes_for_a_moment_and_no_object_for_long() {
    let mut owner = owner();
    let cause = "the API server does not accept our credentials".to_owned();
    owner.take_done(failed(&publication("a"), StoreError::Unauthenticated { cause }));
    assert!(owner.refused.is_empty());
    let until = owner.paused_until.unwrap();
    assert!(until <= Instant::now() + Duration::from_millis(100));
}

#[tokio::test]
async fn the_first_success_after_missing_rights_lets_the_others_try_once_before_their_time() {
    let mut owner = owner();
    let (a, b, c) = (publication("a"), publication("b"), publication("c"));
    let now = Instant::now();
    owner.take_done(forbidden(&a));
    owner.take_done(refused(&b));
    assert!(!owner.may_write(&a.target, now) && !owner.may_write(&b.target, now));
    owner.undecided = false;
    owner.take_done(succeeded(&c));
    assert!(owner.may_write(&a.target, now) && owner.undecided);
    assert!(!owner.may_write(&b.target, now), "that another is taken says nothing about this one");
    // In vain: it waits as long as it would have, however much succeeds elsewhere.
    let until = owner.refused[&a.target].until;
    owner.take_done(forbidden(&a));
    owner.take_done(succeeded(&c));
    assert!(!owner.may_write(&a.target, now));
    let waits = &owner.refused[&a.target];
    assert_eq!((waits.until, waits.pause), (until, Duration::from_secs(2)));
    // In its own time it is tried again, waits longer, and may have another try before that.
    owner.refused.get_mut(&a.target).unwrap().until = now;
    owner.take_done(forbidden(&a));
    assert!(!owner.may_write(&a.target, now));
    assert_eq!(owner.refused[&a.target].pause, Duration::from_secs(4));
    owner.take_done(succeeded(&c));
    assert!(owner.may_write(&a.target, now));
    owner.take_done(succeeded(&a));
    assert!(!owner.refused.contains_key(&a.target));
}

fn unavailable(write: &Write, seconds: u64) -> Done {
    let cause = format!("{}: etcdserver: request is too large (500)", write.target);
    let retry_after = Duration::from_secs(seconds);
    failed(write, StoreError::Unavailable { cause, retry_after })
}

#[tokio::test]
async fn an_object_that_fails_while_others_succeed_waits_alone_and_ever_longer() {
    let (mut owner, mut seen) = (owner(), 0);
    let (a, b) = (publication("a"), publication("b"));
    let now = Instant::now();
    let paused = |owner: &mut Owner| owner.paused_until.take().is_some();
    // It may be the API server.
    for _ in 0..3 {
        owner.take_done(unavailable(&a, 0));
        assert!(paused(&mut owner) && owner.refused.is_empty());
    }
    // Longer only if others succeed meanwhile.
    for (meanwhile, pause) in [(true, 2), (true, 4), (false, 4), (true, 8)] {
        if meanwhile {
            owner.take_done(succeeded(&b));
        }
        owner.take_done(unavailable(&a, 0));
        assert!(!paused(&mut owner), "others go on");
        assert!(!owner.may_write(&a.target, now) && owner.may_write(&b.target, now));
        assert_eq!(owner.refused[&a.target].pause, Duration::from_secs(pause));
    }
    let told = told(&mut owner, &mut seen);
    assert_eq!(told, ["Service a: UpdateServiceStatus"]);
    // An overload concerns all, and so does what fails for the first time.
    owner.take_done(unavailable(&a, 1));
    assert!(paused(&mut owner));
    owner.take_done(unavailable(&b, 0));
    assert!(paused(&mut owner));
    owner.take_done(succeeded(&a));
    owner.take_done(unavailable(&a, 0));
    assert!(paused(&mut owner) && !owner.refused.contains_key(&a.target), "it succeeded meanwhile");
}

#[tokio::test]
async fn a_second_conflict_with_nobody_is_a_refusal() {
    let mut owner = owner();
    let write = publication("a");
    let conflict = |version: &str| {
        let object = object(json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "ns", "name": "a", "uid": "a", "resourceVersion": version},
            "spec": {"type": "ClusterIP"}}));
        let (expected, found) = ("2".to_owned(), "a later one".to_owned());
        let error = StoreError::Conflict { object: write.target.clone(), expected, found };
        Done { read: vec![(write.target.clone(), Some(object))], ..failed(&write, error) }
    };
    for version in ["3", "2", "3", "2"] {
        owner.take_done(conflict(version));
        assert!(
            owner.refused.is_empty(),
            "it is decided again on what somebody else wrote, and once by chance"
        );
    }
    for pause in [2, 4] {
        owner.take_done(conflict("2"));
        assert_eq!(owner.refused[&write.target].pause, Duration::from_secs(pause));
    }
}

/// One that leads, and has listed everything.
fn leader() -> Owner {
    let mut owner = owner();
    owner.set_leading(true);
    let kinds = DECIDED_ON.into_iter().chain([Kind::BgpConf, Kind::BgpPeer, Kind::SpeakerStatus]);
    owner.take_in(waiting());
    owner.take_in(kinds.map(Change::Listed).collect());
    owner
}

/// Lets it work as if the pauses between decisions and reports were over.
fn work(owner: &mut Owner) -> bool {
    (owner.decided_at, owner.reported_at) = (None, None);
    owner.work();
    owner.decided_at.is_some() || owner.reported_at.is_some()
}

#[tokio::test]
async fn what_was_refused_and_is_not_wanted_any_more_leads_to_one_decision() {
    let mut owner = leader();
    let peer = Write::new(ObjectRef::cluster(Kind::BgpPeer, "router"), "1").set(&["status"], json!({}));
    let pool = Write::new(ObjectRef::cluster(Kind::Eip, "other"), "1").set(&["status"], json!({}));
    let moot = [publication("gone"), peer, pool];
    for write in &moot {
        owner.take_done(refused(write));
    }
    work(&mut owner);
    assert!(!work(&mut owner), "nothing is due");
    assert_eq!(owner.refused.len(), moot.len());
    for refused in owner.refused.values_mut() {
        refused.until = Instant::now();
    }
    // Reports wait while the commit is under way, unless that is all there is.
    owner.queue.clear();
    assert!(work(&mut owner), "they are due");
    assert_eq!(owner.refused.len(), 0, "nobody wants them");
    assert!(!work(&mut owner));
}

#[tokio::test]
async fn what_is_due_and_under_way_leads_to_one_decision() {
    let mut owner = leader();
    let pool = ObjectRef::cluster(Kind::Eip, "pool");
    assert!(owner.in_flight.values().any(|target| *target == pool));
    owner.take_done(refused(&Write::new(pool.clone(), "1").set(&["status"], json!({}))));
    work(&mut owner);
    owner.refused.get_mut(&pool).unwrap().until = Instant::now();
    assert!(work(&mut owner), "it is due");
    assert!(!work(&mut owner), "and was decided");
    assert!(owner.refused.contains_key(&pool), "it is still wanted");
}

#[tokio::test]
async fn what_came_due_while_something_else_was_done_is_not_slept_through() {
    let mut owner = leader();
    owner.take_done(refused(&publication("gone")));
    work(&mut owner);
    let now = Instant::now();
    for refused in owner.refused.values_mut() {
        refused.until = now;
    }
    (owner.undecided, owner.echoed, owner.unreported, owner.unshown) = (false, false, false, false);
    owner.queue.clear();
    assert!(owner.due().is_some_and(|due| due <= now), "it is due, and nobody has seen it");
}

#[tokio::test]
async fn a_service_whose_addresses_are_replaced_again_and_again_is_written_more_seldom_and_told_once() {
    let (mut owner, mut seen) = (leader(), 0);
    let assigned = r#"{"addresses":{"192.0.2.1":"pool"}}"#;
    let replaced = |class: &str| {
        object(json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "ns", "name": "a", "uid": "a", "resourceVersion": "4",
                         "annotations": {"openelb.kubesphere.io/assigned": assigned}},
            "spec": {"type": "LoadBalancer", "loadBalancerClass": class, "ports": [{"port": 80}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}}}))
    };
    owner.take_in(vec![Change::Apply(eip(3, "192.0.2.0/24"))]);
    owner.apply(&replaced("openelb.io/openelb"), true);
    let now = Instant::now();
    let _ = told(&mut owner, &mut seen);
    let target = publication("a").target;
    let publication = Write::new(target.clone(), "4")
        .set(&["status", "loadBalancer", "ingress"], json!([{"ip": "192.0.2.1"}]));
    let others = [
        Write::new(target.clone(), "4").set(&["status", "conditions"], json!([])),
        Write::new(target.clone(), "4").set(&["status", "loadBalancer", "ingress"], json!([])),
        publication.clone().annotation("openelb.kubesphere.io/assigned", Some("another")),
    ];
    for other in others.iter().cycle().take(30) {
        assert!(!owner.is_contested(other, now), "it publishes no addresses, or others than before");
        owner.note_turn(&target);
    }
    for _ in 0..20 {
        assert!(!owner.is_contested(&publication, now), "what fails is no turn");
        assert!(!owner.is_contested(&others[0], now));
        owner.note_turn(&target); // nor is something else that succeeds after it
    }
    for _ in 0..5 {
        assert!(!owner.is_contested(&publication, now));
        owner.note_turn(&target);
    }
    assert_eq!(told(&mut owner, &mut seen), [""; 0]);
    assert!(owner.is_contested(&publication, now));
    assert_eq!(told(&mut owner, &mut seen), ["Service a: IngressContested"]);
    assert!(!owner.may_write(&target, now) && owner.refused.is_empty());
    let until = owner.contests.due().unwrap();
    assert!(until > now && owner.may_write(&target, until));
    assert!(!owner.is_contested(&publication, until), "it has waited");
    owner.note_turn(&target);
    assert!(owner.is_contested(&publication, until) && told(&mut owner, &mut seen).is_empty());
    // Of a Service that is ours no more, what is left is taken off at once.
    owner.apply(&replaced("example.com/another"), true);
    assert!(owner.may_write(&target, now) && owner.contests.due().is_none());
}
