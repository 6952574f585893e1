use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Directory, load, watch};
use crate::object::{Kind, NamespacedName, Object, ObjectRef};
use crate::problem::Severity;
use crate::source::Pass;

fn eip(name: &str, address: &str) -> String {
    format!(
        "apiVersion: network.kubesphere.io/v1alpha2\nkind: Eip\nmetadata:\n  name: {name}\nspec:\n  address: {address}\n"
    )
}

fn reference(name: &str) -> ObjectRef {
    ObjectRef::cluster(Kind::Eip, name)
}

fn names(objects: &[Object]) -> Vec<String> {
    objects.iter().map(|object| object.metadata().name.clone().unwrap_or_default()).collect()
}

struct Fixture {
    directory: TempDir,
    state: Directory,
}

impl Fixture {
    fn new(files: &[(&str, &str)]) -> (Self, Pass) {
        let directory = TempDir::new().unwrap();
        let state = Directory::new(directory.path());
        let mut fixture = Self { directory, state };
        files.iter().for_each(|(name, text)| fixture.write(name, text));
        let pass = fixture.state.scan().pass.unwrap();
        (fixture, pass)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Looks until nothing is changing any more.
    fn settle(&mut self) -> Option<Pass> {
        let scan = self.state.scan();
        if !scan.unsettled {
            return scan.pass;
        }
        assert_eq!(scan.pass, None, "an unsettled file has an effect");
        let scan = self.state.scan();
        assert!(!scan.unsettled);
        scan.pass
    }
}

#[test]
fn the_first_look_sees_everything_in_order() {
    let text = format!("{}---\n# nothing\n---\n{}", eip("b", "192.0.2.0/24"), eip("a", "192.0.3.0/24"));
    let (_fixture, pass) = Fixture::new(&[("1.yaml", &text), ("2.yml", &eip("c", "192.0.4.0/24"))]);
    assert_eq!(names(&pass.applied), ["b", "a", "c"]);
    assert!(pass.complete);
    assert_eq!(pass.problems, []);
}

#[test]
fn files_that_do_not_count() {
    let (fixture, pass) = Fixture::new(&[
        (".hidden.yaml", &eip("a", "192.0.2.1")),
        ("a.yaml~", &eip("b", "192.0.2.1")),
        ("README.md", "text"),
    ]);
    assert!(pass.applied.is_empty() && pass.problems.is_empty() && pass.complete);
    fs::create_dir(fixture.path("sub.yaml")).unwrap();
    let mut fixture = fixture;
    assert_eq!(fixture.settle(), None);
}

#[test]
fn what_is_no_regular_file_is_named_and_does_not_stall_the_rest() {
    let (mut fixture, _) = Fixture::new(&[("a.yaml", &eip("a", "192.0.2.1"))]);
    let pipe = fixture.path("pipe.yaml");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::os::unix::fs::symlink("/dev/zero", fixture.path("zero.yaml")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(fixture.path("socket.yaml")).unwrap();
    // A reader that waits for the pipe never answers; one that reads the device never ends.
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let pass = fixture.settle();
        let _ = sender.send((fixture, pass));
    });
    let (_fixture, pass) = receiver.recv_timeout(Duration::from_secs(20)).expect("the look stalls");
    let pass = pass.unwrap();
    let causes: Vec<&str> = pass.problems.iter().map(|problem| problem.cause.as_str()).collect();
    assert_eq!(causes, ["cannot be read: not a regular file"; 3]);
    assert!(pass.deleted.is_empty() && !pass.complete);
}

#[test]
fn an_edit_counts_once_it_is_seen_twice() {
    let (mut fixture, _) = Fixture::new(&[("a.yaml", &eip("a", "192.0.2.1"))]);
    fixture.write("a.yaml", &eip("a", "192.0.2.2"));
    let scan = fixture.state.scan();
    assert!(scan.unsettled && scan.pass.is_none());
    // Still being written: the count starts again.
    fixture.write("a.yaml", &eip("a", "192.0.2.3"));
    let scan = fixture.state.scan();
    assert!(scan.unsettled && scan.pass.is_none());
    let pass = fixture.state.scan().pass.unwrap();
    let [Object::Eip(eip)] = pass.applied.as_slice() else { panic!("{pass:?}") };
    assert_eq!(eip.spec.address.as_deref(), Some("192.0.2.3"));
    assert_eq!(fixture.settle(), None);
}

#[test]
fn a_half_written_file_that_is_completed_costs_nothing() {
    let whole = format!("{}---\n{}", eip("a", "192.0.2.1"), eip("b", "192.0.2.2"));
    let (mut fixture, _) = Fixture::new(&[("a.yaml", &whole)]);
    for end in [0, 10, whole.len() / 2] {
        fixture.write("a.yaml", &whole[..end]);
        assert_eq!(fixture.state.scan().pass, None);
        fixture.write("a.yaml", &whole);
        assert_eq!(fixture.settle(), None, "cut at {end}");
    }
}

#[test]
fn an_editor_that_moves_the_file_away_costs_nothing() {
    let text = eip("a", "192.0.2.1");
    let (mut fixture, _) = Fixture::new(&[("a.yaml", &text)]);
    fs::rename(fixture.path("a.yaml"), fixture.path("a.yaml~")).unwrap();
    assert!(fixture.state.scan().unsettled);
    fixture.write("a.yaml", &text);
    assert_eq!(fixture.settle(), None);
}

#[test]
fn a_removed_file_takes_its_objects_along() {
    let (mut fixture, _) =
        Fixture::new(&[("a.yaml", &eip("a", "192.0.2.1")), ("b.yaml", &eip("b", "192.0.2.2"))]);
    fs::remove_file(fixture.path("a.yaml")).unwrap();
    assert_eq!(fixture.settle().unwrap().deleted, [reference("a")]);
}

#[test]
fn a_bad_document_is_named_and_its_last_good_version_stays() {
    let good = format!("{}---\n{}", eip("a", "192.0.2.1"), eip("b", "192.0.2.2"));
    let (mut fixture, _) = Fixture::new(&[("a.yaml", &good)]);
    let header = "---\napiVersion: network.kubesphere.io/v1alpha2\nkind: Eip\nmetadata:\n  name: b\nspec:\n";
    for (bad, field, words) in [
        ("  adress: x\n", Some("spec.adress"), "unknown field"),
        ("  priority: high\n", Some("spec.priority"), "invalid type"),
        ("  address: [x\n", None, "YAML"),
    ] {
        fixture.write("a.yaml", &format!("{}\n{header}{bad}", eip("a", "192.0.9.9")));
        let pass = fixture.settle().unwrap();
        assert_eq!(names(&pass.applied), ["a"], "the good one is taken: {words}");
        assert_eq!(pass.deleted, []);
        assert!(pass.complete && pass.held.contains(&reference("b")));
        let [(object, problem)] = pass.unreadable.as_slice() else { panic!("{pass:?}") };
        assert_eq!(*object, reference("b"));
        assert_eq!((problem.document, problem.severity), (Some(2), Severity::Error));
        assert_eq!(problem.field.as_deref(), field);
        assert!(matches!(problem.line, Some(14 | 15)), "{problem}");
        let text = problem.to_string();
        assert!(text.contains("a.yaml:") && text.contains("Eip b") && text.contains(words), "{text}");
        fixture.write("a.yaml", &good);
        let pass = fixture.settle().unwrap();
        assert_eq!(names(&pass.applied), ["a", "b"], "healed: also the one that did not change");
        assert_eq!(pass.problems, []);
    }
}

#[test]
fn a_file_that_cannot_be_attributed_keeps_its_objects() {
    let (mut fixture, _) = Fixture::new(&[("a.yaml", &eip("a", "192.0.2.1"))]);
    fixture.write("a.yaml", "{{{ what is this");
    let pass = fixture.settle().unwrap();
    assert!(pass.applied.is_empty() && pass.deleted.is_empty());
    assert!(!pass.complete);
    assert!(pass.held.contains(&reference("a")));
    assert_eq!(pass.problems.len(), 1);
    assert_eq!(pass.problems[0].line, Some(1));
    // Not UTF-8: the same.
    fs::write(fixture.path("a.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    let pass = fixture.settle().unwrap();
    assert!(!pass.complete && pass.held.contains(&reference("a")) && pass.deleted.is_empty(), "{pass:?}");
}

#[test]
fn the_first_file_rules_over_the_same_object_in_another() {
    let (mut fixture, pass) =
        Fixture::new(&[("1.yaml", &eip("a", "192.0.2.1")), ("2.yaml", &eip("a", "192.0.2.2"))]);
    let [Object::Eip(found)] = pass.applied.as_slice() else { panic!("{pass:?}") };
    assert_eq!(found.spec.address.as_deref(), Some("192.0.2.1"));
    assert!(pass.problems[0].to_string().contains("1.yaml:1"), "{}", pass.problems[0]);
    fs::remove_file(fixture.path("1.yaml")).unwrap();
    let pass = fixture.settle().unwrap();
    let [Object::Eip(found)] = pass.applied.as_slice() else { panic!("{pass:?}") };
    assert_eq!(found.spec.address.as_deref(), Some("192.0.2.2"));
    assert!(pass.problems.is_empty() && pass.deleted.is_empty());
}

#[test]
fn the_same_object_twice_in_one_file() {
    let text = format!("{}---\n{}", eip("a", "192.0.2.1"), eip("a", "192.0.2.2"));
    let (_fixture, pass) = Fixture::new(&[("1.yaml", &text)]);
    let [Object::Eip(found)] = pass.applied.as_slice() else { panic!("{pass:?}") };
    assert_eq!(found.spec.address.as_deref(), Some("192.0.2.1"));
    assert_eq!(pass.problems.len(), 1);
    assert_eq!(pass.problems[0].document, Some(2));
}

#[test]
fn a_directory_that_vanishes_forgets_nothing() {
    let (mut fixture, _) = Fixture::new(&[("a.yaml", &eip("a", "192.0.2.1"))]);
    fs::rename(fixture.directory.path(), fixture.directory.path().with_extension("away")).unwrap();
    let pass = fixture.state.scan().pass.unwrap();
    assert!(pass.deleted.is_empty() && !pass.complete && pass.held.contains(&reference("a")));
    assert_eq!(fixture.state.scan().pass, None, "said once");
    fs::rename(fixture.directory.path().with_extension("away"), fixture.directory.path()).unwrap();
    let pass = fixture.state.scan().pass.unwrap();
    assert!(pass.applied.is_empty() && pass.problems.is_empty());
}

#[test]
fn what_kubectl_reads_is_read() {
    let text = "\u{feff}%YAML 1.1\n--- # a comment\napiVersion: network.kubesphere.io/v1alpha2\nkind: Eip\nmetadata: {name: a}\nspec:\n  address: 192.0.2.1\n  disable: yes\n...\n---\n{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"n\"}}]}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n  gobgp.conf: |\n    # ---\n    [global]\n";
    let (_fixture, pass) = Fixture::new(&[("a.yaml", text)]);
    assert_eq!(pass.problems, []);
    let [Object::Eip(eip), Object::Namespace(_), Object::ConfigMap(map)] = pass.applied.as_slice() else {
        panic!("{pass:?}")
    };
    assert_eq!(eip.spec.disable, Some(true));
    assert_eq!(map.metadata.namespace.as_deref(), Some("default"));
    assert_eq!(map.data.as_ref().unwrap()["gobgp.conf"], "# ---\n[global]\n");
}

#[test]
fn status_of_ours_is_ignored_and_of_nodes_is_read() {
    let text = "apiVersion: network.kubesphere.io/v1alpha2\nkind: Eip\nmetadata: {name: a, uid: x, resourceVersion: \"7\", generation: 4}\nspec: {address: 192.0.2.1}\nstatus: {used: {192.0.2.1: ns/a}}\n---\napiVersion: v1\nkind: Node\nmetadata: {name: node}\nstatus: {addresses: [{type: InternalIP, address: 192.0.2.9}]}\n";
    let (_fixture, pass) = Fixture::new(&[("a.yaml", text)]);
    let [Object::Eip(eip), Object::Node(node)] = pass.applied.as_slice() else { panic!("{pass:?}") };
    assert_eq!(eip.status, None);
    assert_eq!(
        (&eip.metadata.uid, &eip.metadata.resource_version, eip.metadata.generation),
        (&None, &None, None)
    );
    assert_eq!(node.status.as_ref().unwrap().addresses.as_ref().unwrap()[0].address, "192.0.2.9");
}

#[test]
fn names_that_are_none_are_refused() {
    for name in ["../../etc/passwd", "UPPER", "a/b", "-a", ".", "a_b"] {
        let text = format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: {name:?}\n  namespace: x\n");
        let (_fixture, pass) = Fixture::new(&[("a.yaml", &text)]);
        assert!(pass.applied.is_empty(), "{name}");
        assert_eq!(pass.unreadable.len(), 1, "{name}");
    }
}

#[test]
fn other_kinds_are_only_warned_about() {
    let text = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d}}\n---\n{}",
        eip("a", "192.0.2.1")
    );
    let (_fixture, pass) = Fixture::new(&[("a.yaml", &text)]);
    assert_eq!(names(&pass.applied), ["a"]);
    assert!(pass.complete);
    assert_eq!(pass.problems[0].severity, Severity::Warning);
}

#[test]
fn loading_once() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("a.yaml"), eip("a", "192.0.2.1")).unwrap();
    fs::write(directory.path().join("b.yaml"), format!("{}---\nkind: Eip\n", eip("a", "192.0.2.2"))).unwrap();
    let loaded = load(directory.path());
    assert_eq!(loaded.documents.len(), 1);
    assert_eq!((loaded.documents[0].document, loaded.documents[0].line), (1, 1));
    assert_eq!(loaded.problems.len(), 2, "{:?}", loaded.problems);
    let loaded = load(&directory.path().join("a.yaml"));
    assert_eq!((loaded.documents.len(), loaded.problems.len()), (1, 0));
    let loaded = load(Path::new("/nonexistent"));
    assert_eq!(loaded.problems.len(), 1);
}

fn wait(receiver: &mut tokio::sync::mpsc::Receiver<Pass>, what: &str) -> Pass {
    let started = Instant::now();
    loop {
        if let Ok(pass) = receiver.try_recv() {
            return pass;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{what} did not come");
        std::thread::yield_now();
    }
}

/// By events alone (the poll is far off), and by polling alone.
#[test]
fn a_watched_edit_arrives_within_a_second() {
    for poll in [Duration::from_secs(600), Duration::from_millis(50)] {
        let directory = TempDir::new().unwrap();
        let mut receiver = watch(directory.path(), poll).unwrap();
        assert_eq!(wait(&mut receiver, "the first pass"), Pass { complete: true, ..Pass::default() });
        let started = Instant::now();
        fs::write(directory.path().join("a.yaml"), eip("a", "192.0.2.1")).unwrap();
        let pass = wait(&mut receiver, "the edit");
        assert_eq!(names(&pass.applied), ["a"]);
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
        fs::remove_file(directory.path().join("a.yaml")).unwrap();
        assert_eq!(wait(&mut receiver, "the removal").deleted, [reference("a")]);
    }
    assert!(watch(Path::new("/nonexistent"), Duration::from_secs(1)).is_err());
}

#[test]
fn services_default_to_the_default_namespace() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {type: LoadBalancer}\n";
    let (_fixture, pass) = Fixture::new(&[("a.yaml", text)]);
    assert_eq!(
        pass.applied[0].reference(),
        ObjectRef::namespaced(Kind::Service, &NamespacedName::new("default", "s"))
    );
}
