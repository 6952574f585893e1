use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;
use tempfile::TempDir;

use super::StateDirectory;
use crate::names::{annotation, finalizer, label};
use crate::object::{Kind, NamespacedName, Object, ObjectRef};
use crate::plan::Write;
use crate::source::Pass;
use crate::store::{Store as _, StoreChange, StoreError};

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn object(value: serde_json::Value) -> Object {
    Object::from_value(value).unwrap().unwrap()
}

fn eip(address: &str) -> Object {
    object(json!({
        "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip", "metadata": {"name": "pool"},
        "spec": {"address": address},
    }))
}

fn service(name: &str) -> Object {
    object(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "ns", "labels": {"app": name}},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    }))
}

fn pass(applied: &[Object]) -> Pass {
    Pass {
        applied: applied.to_vec(),
        held: applied.iter().map(Object::reference).collect(),
        complete: true,
        ..Pass::default()
    }
}

fn pool() -> ObjectRef {
    ObjectRef::cluster(Kind::Eip, "pool")
}

fn service_ref(name: &str) -> ObjectRef {
    ObjectRef::namespaced(Kind::Service, &NamespacedName::new("ns", name))
}

struct Fixture {
    directory: TempDir,
    store: StateDirectory,
}

impl Fixture {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let (store, problems) = StateDirectory::open(directory.path()).unwrap();
        assert_eq!(problems, []);
        Self { directory, store }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    fn take_in(&self, applied: &[Object]) -> Vec<StoreChange> {
        self.store.take_in(&pass(applied), false, now()).unwrap()
    }

    fn delete(&self, reference: ObjectRef) -> Vec<StoreChange> {
        let pass = Pass { deleted: vec![reference], complete: true, ..Pass::default() };
        self.store.take_in(&pass, false, now()).unwrap()
    }

    fn version(&self, reference: &ObjectRef) -> String {
        self.store.get(reference).unwrap().metadata().resource_version.clone().unwrap()
    }

    fn write(&self, write: &Write) -> Result<Option<Object>, StoreError> {
        self.store.commit(write)
    }

    /// Marks an address of the pool as used.
    fn use_address(&self) -> Object {
        let write = Write::new(pool(), self.version(&pool()))
            .set(&["status", "used"], json!({"192.0.2.1": "ns/a"}))
            .finalizers(&[finalizer::EIP.to_owned()]);
        self.write(&write).unwrap().unwrap()
    }
}

#[test]
fn an_object_is_kept_as_an_api_server_would_return_it() {
    let fixture = Fixture::new();
    let changes = fixture.take_in(&[eip("192.0.2.0/24"), service("a")]);
    assert_eq!(changes.len(), 2);
    let text = fs::read_to_string(fixture.path("services/ns/a.yaml")).unwrap();
    let value: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!((&value["apiVersion"], &value["kind"]), (&json!("v1"), &json!("Service")));
    let metadata = &value["metadata"];
    assert_eq!(metadata["creationTimestamp"], json!("2027-01-15T08:00:00Z"));
    assert_eq!(metadata["generation"], json!(1));
    assert_eq!(metadata["uid"].as_str().map(str::len), Some(36));
    assert!(metadata["resourceVersion"].as_str().unwrap().parse::<u64>().is_ok());
    assert!(fixture.path("eips/_/pool.yaml").exists());
    // Nothing else lies about.
    let left: Vec<_> =
        fs::read_dir(fixture.path("services/ns")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["a.yaml"]);
}

#[test]
fn kinds_without_our_status_are_only_passed_on() {
    let fixture = Fixture::new();
    let node = object(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}));
    assert_eq!(fixture.take_in(std::slice::from_ref(&node)), [StoreChange::Apply(node.clone())]);
    assert_eq!(fixture.delete(node.reference()), [StoreChange::Delete(node.reference())]);
    assert!(!fixture.path("nodes").exists());
}

#[test]
fn the_same_manifest_again_writes_nothing() {
    let fixture = Fixture::new();
    fixture.take_in(&[service("a")]);
    let version = fixture.version(&service_ref("a"));
    assert_eq!(fixture.take_in(&[service("a")]), []);
    assert_eq!(fixture.version(&service_ref("a")), version);
}

#[test]
fn a_write_holds_only_for_the_version_it_was_decided_on() {
    let fixture = Fixture::new();
    fixture.take_in(&[eip("192.0.2.0/24")]);
    let old = fixture.version(&pool());
    let write = |used: &str| Write::new(pool(), &old).set(&["status", "used"], json!({"192.0.2.1": used}));
    let Some(Object::Eip(written)) = fixture.write(&write("ns/a")).unwrap() else { panic!("not written") };
    assert_eq!(written.status.unwrap().used.unwrap()["192.0.2.1"], "ns/a");
    assert!(matches!(fixture.write(&write("ns/b")), Err(StoreError::Conflict { .. })));
    let gone = Write::new(ObjectRef::cluster(Kind::Eip, "other"), "1");
    assert!(matches!(fixture.write(&gone), Err(StoreError::NotFound(_))));
    // What changes nothing makes no version.
    let version = fixture.version(&pool());
    fixture
        .write(&Write::new(pool(), &version).set(&["status", "used"], json!({"192.0.2.1": "ns/a"})))
        .unwrap();
    assert_eq!(fixture.version(&pool()), version);
}

#[test]
fn a_write_touches_status_labels_annotations_and_finalizers_only() {
    let fixture = Fixture::new();
    fixture.take_in(&[service("a")]);
    let reference = service_ref("a");
    let write = Write::new(reference.clone(), fixture.version(&reference))
        .label(label::POOL, Some("pool"))
        .label("app", None)
        .annotation(annotation::ASSIGNED, Some("{}"))
        .set(&["status", "loadBalancer"], json!({"ingress": [{"ip": "192.0.2.1"}]}))
        .set(&["spec", "type"], json!("ClusterIP"))
        .set(&["metadata", "name"], json!("b"));
    let Some(Object::Service(written)) = fixture.write(&write).unwrap() else { panic!("not written") };
    assert_eq!(written.metadata.name.as_deref(), Some("a"));
    assert_eq!(written.spec.unwrap().type_.as_deref(), Some("LoadBalancer"));
    assert_eq!(
        written.metadata.labels.unwrap(),
        BTreeMap::from([(label::POOL.to_owned(), "pool".to_owned())])
    );
    assert_eq!(written.metadata.generation, Some(1));

    // An edit of the manifest keeps what we wrote, and counts as a new generation only if the spec changed.
    fixture.take_in(&[service("a")]);
    let Some(Object::Service(again)) = fixture.store.get(&reference) else { panic!("gone") };
    let labels = again.metadata.labels.unwrap();
    assert_eq!((labels["app"].as_str(), labels[label::POOL].as_str()), ("a", "pool"));
    assert_eq!(again.metadata.annotations.unwrap()[annotation::ASSIGNED], "{}");
    assert!(again.status.unwrap().load_balancer.is_some());
    assert_eq!(again.metadata.generation, Some(1));
    fixture.take_in(&[eip("192.0.2.0/24")]);
    fixture.take_in(&[eip("192.0.2.0/23")]);
    assert_eq!(fixture.store.get(&pool()).unwrap().metadata().generation, Some(2));
}

#[test]
fn an_eip_in_use_stays_until_its_finalizer_goes() {
    let fixture = Fixture::new();
    fixture.take_in(&[eip("192.0.2.0/24")]);
    fixture.use_address();
    let changes = fixture.delete(pool());
    let [StoreChange::Apply(marked)] = changes.as_slice() else { panic!("{changes:?}") };
    assert!(marked.metadata().deletion_timestamp.is_some());
    assert_eq!(fixture.delete(pool()), []);
    let release =
        Write::new(pool(), fixture.version(&pool())).set(&["status", "used"], json!(null)).finalizers(&[]);
    assert_eq!(fixture.write(&release).unwrap(), None);
    assert!(!fixture.path("eips/_/pool.yaml").exists());
    assert_eq!(fixture.store.get(&pool()), None);
}

#[test]
fn an_eip_that_comes_back_while_it_goes_stays() {
    let fixture = Fixture::new();
    fixture.take_in(&[eip("192.0.2.0/24")]);
    let uid = fixture.use_address().metadata().uid.clone();
    fixture.delete(pool());
    fixture.take_in(&[eip("192.0.2.0/24")]);
    let Some(Object::Eip(back)) = fixture.store.get(&pool()) else { panic!("gone") };
    assert_eq!((back.metadata.deletion_timestamp, back.metadata.uid), (None, uid));
    assert_eq!(back.status.unwrap().used.unwrap().len(), 1);
}

#[test]
fn what_no_manifest_holds_at_start_goes_if_every_file_was_legible() {
    let fixture = Fixture::new();
    fixture.take_in(&[service("a"), service("b")]);
    let (store, _) = StateDirectory::open(fixture.directory.path()).unwrap();
    let incomplete = Pass { complete: false, ..pass(&[service("a")]) };
    assert_eq!(store.take_in(&incomplete, true, now()).unwrap(), []);
    let later = Timestamp::from_second(1_900_000_000).unwrap();
    let changes = store.take_in(&pass(&[service("a")]), true, later).unwrap();
    assert_eq!(changes, [StoreChange::Delete(service_ref("b"))]);
    // It was created when it was first seen.
    let created = store.get(&service_ref("a")).unwrap().metadata().creation_timestamp.clone().unwrap();
    assert_eq!(created.0, now());
}

#[test]
fn it_survives_a_restart() {
    let fixture = Fixture::new();
    fixture.take_in(&[eip("192.0.2.0/24"), service("a")]);
    fixture.use_address();
    let before = fixture.store.objects();
    let (store, problems) = StateDirectory::open(fixture.directory.path()).unwrap();
    assert_eq!((store.objects(), problems), (before, vec![]));
}

#[test]
fn a_garbled_file_is_reported_and_set_aside_and_the_rest_goes_on() {
    let fixture = Fixture::new();
    fixture.take_in(&[eip("192.0.2.0/24"), service("a")]);
    let other = "apiVersion: v1\nkind: Service\nmetadata: {name: b, namespace: ns}\n";
    for garbage in [&b"\x00\x01\xff"[..], b"", b"{", b"kind: Eip", other.as_bytes()] {
        fs::write(fixture.path("services/ns/a.yaml"), garbage).unwrap();
        let (store, problems) = StateDirectory::open(fixture.directory.path()).unwrap();
        let [problem] = problems.as_slice() else { panic!("{garbage:?}: {problems:?}") };
        assert_eq!(problem.object, Some(service_ref("a")));
        assert!(problem.to_string().contains("services/ns/a.yaml"), "{problem}");
        assert!(store.get(&pool()).is_some());
        let aside = fs::read_dir(fixture.path("services/ns")).unwrap().map(|entry| entry.unwrap().path());
        let aside: Vec<PathBuf> = aside
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(".garbled-a.yaml"))
            .collect();
        assert_eq!(aside.len(), 1, "{garbage:?}");
        assert_eq!(fs::read(&aside[0]).unwrap(), garbage);
        fs::remove_file(&aside[0]).unwrap();
        // It is rebuilt from the manifest.
        store.take_in(&pass(&[service("a")]), false, now()).unwrap();
        assert!(fixture.path("services/ns/a.yaml").exists());
    }
}

#[test]
fn what_is_no_regular_file_is_set_aside() {
    let fixture = Fixture::new();
    fixture.take_in(&[eip("192.0.2.0/24")]);
    let directory = fixture.path("services/ns");
    fs::create_dir_all(directory.join("directory.yaml")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", directory.join("device.yaml")).unwrap();
    let pipe = directory.join("pipe.yaml");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // A reader that waits for the pipe never answers; one that reads the device never ends.
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let opened = StateDirectory::open(fixture.directory.path());
        let _ = sender.send((opened, fixture));
    });
    let (opened, fixture) = receiver.recv_timeout(Duration::from_secs(20)).expect("opening stalls");
    let (store, problems) = opened.unwrap();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems.iter().all(|problem| problem.cause.contains("not a regular file")), "{problems:?}");
    assert!(store.get(&pool()).is_some());
    let left = fs::read_dir(fixture.path("services/ns")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| name.to_str().unwrap().starts_with(".garbled-")));
}

#[test]
fn a_file_garbled_while_it_runs_is_rebuilt_with_its_status() {
    let fixture = Fixture::new();
    fixture.take_in(&[eip("192.0.2.0/24")]);
    fixture.use_address();
    fs::write(fixture.path("eips/_/pool.yaml"), "][").unwrap();
    let changes = fixture.store.look().unwrap();
    assert!(matches!(changes.as_slice(), [StoreChange::Problem(_)]), "{changes:?}");
    let (store, problems) = StateDirectory::open(fixture.directory.path()).unwrap();
    assert_eq!(problems, []);
    let Some(Object::Eip(eip)) = store.get(&pool()) else { panic!("gone") };
    assert_eq!(eip.status.unwrap().used.unwrap()["192.0.2.1"], "ns/a");
}

#[test]
fn leftovers_of_a_dead_writer_go() {
    let fixture = Fixture::new();
    fixture.take_in(&[service("a")]);
    fs::write(fixture.path("services/ns/.tmp-1-1"), "half").unwrap();
    let (store, problems) = StateDirectory::open(fixture.directory.path()).unwrap();
    assert_eq!((store.objects().len(), problems.len()), (1, 0));
    assert!(!fixture.path("services/ns/.tmp-1-1").exists());
}

#[test]
fn another_instance_sees_every_change() {
    let fixture = Fixture::new();
    let (other, _) = StateDirectory::open(fixture.directory.path()).unwrap();
    assert_eq!(other.look().unwrap(), []);
    fixture.take_in(&[eip("192.0.2.0/24")]);
    assert_eq!(other.look().unwrap(), [StoreChange::Apply(fixture.store.get(&pool()).unwrap())]);
    assert_eq!(fixture.store.look().unwrap(), [], "not its own");
    // A decision on what the other knows of an older version is refused, without a look before.
    let old = fixture.version(&pool());
    fixture.use_address();
    let write = Write::new(pool(), old).set(&["status", "used"], json!({"192.0.2.1": "ns/b"}));
    assert!(matches!(other.commit(&write), Err(StoreError::Conflict { .. })));
    fixture
        .store
        .commit(&Write::new(pool(), fixture.version(&pool())).set(&["status"], json!(null)).finalizers(&[]))
        .unwrap();
    fixture.delete(pool());
    assert_eq!(other.look().unwrap(), [StoreChange::Delete(pool())]);
}

#[test]
fn a_watch_tells_of_other_instances_within_a_second() {
    for poll in [Duration::from_secs(600), Duration::from_millis(20)] {
        let fixture = Fixture::new();
        fixture.take_in(&[eip("192.0.2.0/24")]);
        let (other, _) = StateDirectory::open(fixture.directory.path()).unwrap();
        let mut changes = other.watch(poll).unwrap();
        let started = Instant::now();
        let written = fixture.use_address();
        let change = loop {
            if let Ok(changes) = changes.try_recv() {
                break changes;
            }
            assert!(started.elapsed() < Duration::from_secs(1), "with {poll:?}");
            std::thread::yield_now();
        };
        assert_eq!(change, [StoreChange::Apply(written)]);
    }
}

#[test]
fn a_stored_generation_that_cannot_grow_stops_neither_an_edit_nor_a_deletion() {
    let fixture = Fixture::new();
    fixture.take_in(&[eip("192.0.2.0/24")]);
    fixture.use_address();
    let path = fixture.path("eips/_/pool.yaml");
    let mut value: serde_json::Value = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    value["metadata"]["generation"] = json!(i64::MAX);
    fs::write(&path, value.to_string()).unwrap();
    fixture.take_in(&[eip("192.0.2.0/25")]);
    fixture.delete(pool());
    let metadata = fixture.store.get(&pool()).unwrap().metadata().clone();
    assert_eq!((metadata.generation, metadata.deletion_timestamp.is_some()), (Some(i64::MAX), true));
}

/// Its generation is what `force` is compared with.
#[test]
fn a_deletion_that_waits_counts_as_a_generation() {
    let fixture = Fixture::new();
    fixture.take_in(&[eip("192.0.2.0/24")]);
    fixture.use_address();
    fixture.take_in(&[eip("192.0.2.0/25")]);
    let before = fixture.store.get(&pool()).unwrap().metadata().generation.unwrap();
    assert_eq!(before, 2);
    assert_eq!(fixture.delete(pool()).len(), 1);
    assert_eq!(fixture.store.get(&pool()).unwrap().metadata().generation, Some(3));
    assert_eq!(fixture.delete(pool()), [], "it is marked already");
    assert_eq!(fixture.store.get(&pool()).unwrap().metadata().generation, Some(3));
}

#[test]
fn names_that_would_leave_the_directory_are_refused() {
    let fixture = Fixture::new();
    for name in ["../x", ".hidden", "a/b", ""] {
        let mut object = service("a");
        object.metadata_mut().name = Some(name.to_owned());
        let changes = fixture.take_in(&[object]);
        assert!(matches!(changes.as_slice(), [StoreChange::Problem(_)]), "{name}: {changes:?}");
    }
}

#[tokio::test]
async fn the_trait_does_what_the_directory_does() {
    let fixture = Fixture::new();
    fixture.take_in(&[eip("192.0.2.0/24")]);
    assert_eq!(fixture.store.list().await.unwrap().len(), 1);
    let write = Write::new(pool(), fixture.version(&pool())).set(&["status", "usage"], json!(0));
    assert!(fixture.store.write(&write).await.unwrap().is_some());
    assert!(matches!(fixture.store.write(&write).await, Err(StoreError::Conflict { .. })));
}

const CHILD: &str = "OPENELB_TEST_STATE_DIRECTORY_CHILD";

/// A child process: gives the lowest free address of the pool to a new holder, again and again, and says so after
/// each commit.
fn give_addresses(directory: &Path, name: &str) {
    let (store, problems) = StateDirectory::open(directory).unwrap();
    assert_eq!(problems, []);
    for number in 0.. {
        let holder = format!("ns/{name}-{number}");
        loop {
            let Some(Object::Eip(eip)) = store.get(&pool()) else { panic!("the pool is gone") };
            let used = eip.status.clone().unwrap_or_default().used.unwrap_or_default();
            let free = (0..)
                .map(|n| format!("10.0.{}.{}", n / 256, n % 256))
                .find(|a| !used.contains_key(a))
                .unwrap();
            let version = eip.metadata.resource_version.clone().unwrap();
            let write = Write::new(pool(), version).set(&["status", "used", &free], json!(holder));
            match store.commit(&write) {
                Ok(_) => {
                    println!("gave {free} {holder}");
                    break;
                }
                Err(StoreError::Conflict { .. }) => {
                    store.look().unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

struct Giver {
    process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Giver {
    fn start(directory: &Path, name: &str) -> Self {
        let test = "store::state_directory::tests::killed_writers_lose_nothing_and_give_nothing_twice";
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env(CHILD, format!("{name} {}", directory.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// The next commit that it tells of.
    fn gave(&mut self) -> Option<(String, String)> {
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            if let Some((_, gave)) = line.split_once("gave ") {
                // The last line of a killed process may be cut off.
                return gave.split_once(' ').map(|(address, holder)| (address.to_owned(), holder.to_owned()));
            }
        }
        None
    }

    fn kill(mut self, into: &mut Vec<(String, String)>) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        while let Some(gave) = self.gave() {
            into.push(gave);
        }
    }
}

#[test]
fn killed_writers_lose_nothing_and_give_nothing_twice() {
    if let Ok(task) = std::env::var(CHILD) {
        let (name, directory) = task.split_once(' ').unwrap();
        return give_addresses(Path::new(directory), name);
    }
    let fixture = Fixture::new();
    fixture.take_in(&[eip("10.0.0.0/16")]);
    let mut gave: Vec<(String, String)> = Vec::new();
    let mut generation = 0;
    let mut start = || {
        generation += 1;
        Giver::start(fixture.directory.path(), &format!("g{generation}"))
    };
    let mut steady = start();
    // The kills fall wherever the other process is after so many commits.
    for commits in [1, 4, 2, 7, 1, 3, 5, 2, 1, 6] {
        let mut victim = start();
        for _ in 0..commits {
            gave.push(victim.gave().unwrap());
            gave.push(steady.gave().unwrap());
        }
        victim.kill(&mut gave);
    }
    steady.kill(&mut gave);

    let (store, problems) = StateDirectory::open(fixture.directory.path()).unwrap();
    assert_eq!(problems, [], "nothing is garbled");
    let Some(Object::Eip(eip)) = store.get(&pool()) else { panic!("gone") };
    let used = eip.status.unwrap().used.unwrap();
    assert!(gave.len() >= 64, "{}", gave.len());
    for (address, holder) in &gave {
        let cut = used.get(address).is_some_and(|found| found.starts_with(holder.as_str()));
        assert!(cut, "{address} was given to {holder}, but {:?} has it", used.get(address));
    }
    let mut holders: Vec<&String> = used.values().collect();
    holders.sort();
    holders.dedup();
    assert_eq!(holders.len(), used.len(), "a holder committed twice");
}

/// Instances that share manifests do the same at the same time; the second one changes nothing, and must still be told.
#[test]
fn a_pass_tells_what_another_instance_was_first_to_do() {
    let fixture = Fixture::new();
    let (other, _) = StateDirectory::open(fixture.directory.path()).unwrap();
    assert_eq!(other.take_in(&pass(&[service("a")]), true, now()).unwrap().len(), 1);
    let changes = fixture.take_in(&[service("a")]);
    assert!(
        matches!(&changes[..], [StoreChange::Apply(object)] if object.reference() == service_ref("a")),
        "{changes:?}"
    );
    assert_eq!(fixture.store.look().unwrap(), []);

    let gone = Pass { deleted: vec![service_ref("a")], complete: true, ..Pass::default() };
    other.take_in(&gone, false, now()).unwrap();
    assert_eq!(fixture.store.take_in(&gone, false, now()).unwrap(), [StoreChange::Delete(service_ref("a"))]);
    assert_eq!(fixture.store.look().unwrap(), []);
}
