//! A cluster as the Go OpenELB leaves it, taken over: no address changes, and what it put on objects goes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod manifests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use manifests::{condition, directory, documents, files, get, meets, read, validation_errors};
use openelb_lab::{
    Lab, Process, binary, eventually,
    kube::{ControlPlane, Options, Ready, Request, node_object},
};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(90);
/// As whom our controller speaks to the API server; the tests are somebody else.
const CONTROLLER: (&str, &str) = ("system:kube-controller-manager", "manager");
/// The name under which the Go OpenELB wrote, of its program.
const GO: &str = "--field-manager=openelb-controller";

/// The addresses of Services, in the end; none: it has no address.
const SERVICES: &[(&str, Option<&str>)] = &[
    ("default/plain", Some("192.0.2.0")),
    ("default/by-pool", Some("192.0.2.1")),
    ("default/by-ip", Some("192.0.2.50")),
    ("default/shared-a", Some("192.0.2.60")),
    ("default/shared-b", Some("192.0.2.60")),
    ("default/across-a", Some("192.0.2.61")),
    ("other/across-b", Some("192.0.2.61")),
    ("default/clash-a", Some("192.0.2.62")),
    ("default/clash-b", Some("192.0.2.62")),
    ("default/from-0-5", Some("192.0.2.70")),
    ("default/node-local", Some("192.0.2.80")),
    ("default/six", Some("2001:db8::50")),
    ("default/of-disabled", Some("192.0.3.0")),
    ("default/of-full", Some("192.0.3.8")),
    ("default/status-lost", Some("192.0.4.7")),
    ("default/status-and-label-lost", Some("192.0.4.8")),
    ("default/nothing-matches", Some("192.0.4.9")),
    ("default/record-lost", Some("192.0.5.77")),
    ("default/record-and-label-lost", Some("192.0.5.78")),
    // The lowest free address of the pool that it names now.
    ("default/other-pool", Some("192.0.7.0")),
    ("default/other-address", Some("192.0.6.110")),
    ("default/not-opted-in", None),
    ("default/no-load-balancer", None),
    ("default/stays-of-going", Some("192.0.8.0")),
    ("default/stays-and-waits", None),
    ("default/stays-node-proxy", None),
];

/// These had an address that they were to lose.
const CHANGED: &[&str] = &["default/other-pool", "default/other-address", "default/not-opted-in"];

/// Of these the objects go.
const GOING: &[(&str, &str)] = &[
    ("services", "going-recorded"),
    ("services", "going-unrecorded"),
    ("services", "going-without-eip"),
    ("services", "going-node-proxy"),
    ("bgppeers", "going"),
];

struct Setup {
    lab: Arc<Lab>,
    kube: ControlPlane,
}

impl Setup {
    /// An API server that writes down who changes what, with everything that the Go OpenELB left.
    fn new() -> Self {
        let lab = Arc::new(Lab::start("legacy").unwrap());
        let options = Options { audit: true, ..Options::api_only() };
        let kube = ControlPlane::start_api_with(&lab, options).unwrap();
        kube.apply_crds().unwrap();
        kube.apply("{apiVersion: v1, kind: Namespace, metadata: {name: openelb-system}}").unwrap();
        let node = node_object("node-1", &["192.168.50.11".parse().unwrap()], &[], Ready::True);
        kube.create_objects(&[node]).unwrap();
        let setup = Self { lab, kube };
        // The webhook's configuration comes last: what it refuses is there before.
        let last = "legacy/leftovers.yaml";
        for file in files("legacy").iter().filter(|file| *file != last) {
            setup.leave(&directory().join(file));
        }
        for (resource, name) in GOING {
            setup.kube.kubectl(&["delete", resource, name, "--wait=false"]).unwrap();
        }
        setup.kube.kubectl(&["delete", "eips", "going-used", "going-unused", "--wait=false"]).unwrap();
        setup.leave(&directory().join(last));
        setup
    }

    /// Creates objects as the Go OpenELB did: spec and metadata, then the status.
    fn leave(&self, path: &Path) {
        let text = std::fs::read_to_string(path).unwrap();
        let (with, without): (Vec<Value>, Vec<Value>) =
            documents(&text).into_iter().partition(|document| !document["status"].is_null());
        let list =
            |items: Vec<Value>| json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        for (number, (items, status)) in [(without, false), (with, true)].into_iter().enumerate() {
            if items.is_empty() {
                continue;
            }
            let file = self.lab.write(&format!("legacy-{number}.json"), &list(items)).unwrap();
            let file = file.to_string_lossy();
            self.kube.kubectl(&["create", GO, "--filename", &file]).unwrap();
            if status {
                self.kube.kubectl(&["replace", GO, "--subresource=status", "--filename", &file]).unwrap();
            }
        }
    }

    fn start_controller(&self) -> Process {
        let kubeconfig = self.kube.write_kubeconfig("controller", CONTROLLER.1).unwrap();
        let program = binary("openelbd").unwrap();
        let command = [
            program.to_str().unwrap(),
            "controller",
            "--kubeconfig",
            kubeconfig.to_str().unwrap(),
            "--metrics-addr",
            "0",
            "--http-bind-address",
            "0",
        ];
        self.lab.spawn("controller", self.kube.host(), &command).unwrap()
    }

    fn service(&self, key: &str) -> anyhow::Result<Value> {
        let (namespace, name) = key.split_once('/').unwrap();
        self.kube.get("services", namespace, name)
    }

    /// What our controller changed of objects: not what it wrote beside them (Lease, events).
    fn writes(&self) -> Vec<Request> {
        let ours = ["services", "eips", "bgpconfs", "bgppeers"];
        let of_objects = |request: &Request| {
            request.user == CONTROLLER.0
                && ours.contains(&request.resource.split('/').next().unwrap())
                && ["patch", "update", "create", "delete"].contains(&&*request.verb)
        };
        self.kube.requests().unwrap().into_iter().filter(of_objects).collect()
    }
}

fn addresses(service: &Value) -> Vec<String> {
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
    ingress.iter().map(|entry| entry["ip"].as_str().unwrap().to_owned()).collect()
}

/// What of the Go OpenELB is on an object.
fn marks(object: &Value) -> Vec<String> {
    let metadata = &object["metadata"];
    let mut found: Vec<String> =
        ["finalizer.lb.kubesphere.io/v1alpha1", "node-proxy.openelb.kubesphere.io/finalizer"]
            .into_iter()
            .filter(|finalizer| meets(metadata, &["finalizers", "*"], Some(finalizer)))
            .map(str::to_owned)
            .collect();
    let mut written = vec![
        "layer2.openelb.kubesphere.io/v1alpha1",
        "node-proxy.openelb.kubesphere.io/external-ip",
        "node-proxy.openelb.kubesphere.io/internal-ip",
    ];
    if object["kind"] == "BgpConf" {
        written.push("lb.kubesphere.io/v1alpha1");
    }
    let annotations = &metadata["annotations"];
    found.extend(written.into_iter().filter(|key| !annotations[*key].is_null()).map(str::to_owned));
    found
}

#[test]
fn addresses_stay_and_finalizers_go_when_the_go_openelb_is_replaced() {
    let setup = Setup::new();
    let before: BTreeMap<&str, Vec<String>> =
        SERVICES.iter().map(|(key, _)| (*key, addresses(&setup.service(key).unwrap()))).collect();
    let managed = setup.service("default/plain").unwrap();
    assert!(
        !before["default/plain"].is_empty() && marks(&managed) == ["finalizer.lb.kubesphere.io/v1alpha1"],
        "{managed:#}"
    );
    let managers =
        setup.kube.kubectl(&["get", "service", "plain", "--show-managed-fields", "--output=json"]).unwrap();
    assert!(managers.contains("\"manager\": \"openelb-controller\""), "{managers}");

    what_the_api_server_prints_can_be_validated(&setup);
    let controller = setup.start_controller();
    all_is_taken_over(&setup);
    one_refusal_is_tried_again_alone(&controller);
    every_write_carries_a_version(&setup);
    nobody_was_without_address(&setup, &before);
    the_webhook_that_is_left_is_told_and_removed(&setup);
    everything_can_be_deleted(&setup);
}

/// As the manual says it.
fn what_the_api_server_prints_can_be_validated(setup: &Setup) {
    let kinds = ["eips,bgpconfs,bgppeers", "services"];
    let of_kinds = kinds.map(|kinds| {
        let text = setup.kube.kubectl(&["get", kinds, "--all-namespaces", "--output=yaml"]).unwrap();
        let path = setup.lab.write(&format!("{kinds}.yaml"), &text).unwrap();
        validation_errors(&setup.kube, &path)
    });
    let node_proxy = "metadata.annotations[node-proxy.openelb.kubesphere.io/type]".to_owned();
    assert_eq!(of_kinds, [BTreeSet::new(), BTreeSet::from([node_proxy])]);
}

fn all_is_taken_over(setup: &Setup) {
    let (_, took) = eventually("the take-over", DEADLINE, || {
        let mut wrong = Vec::new();
        for (key, wanted) in SERVICES {
            let service = setup.service(key)?;
            let addresses = addresses(&service);
            let label = &service["metadata"]["labels"]["eip.openelb.kubesphere.io/v1alpha2"];
            if !addresses.iter().map(String::as_str).eq(wanted.iter().copied()) {
                let says = condition(&service, "network.kubesphere.io/AddressAssigned");
                wrong.push(format!("{key} has {addresses:?}, not {wanted:?}: {says}"));
            } else if label.is_null() != wanted.is_none() {
                wrong.push(format!("{key} has the label {label}"));
            }
            let marks = marks(&service);
            if !marks.is_empty() {
                wrong.push(format!("{key} has {marks:?}"));
            }
        }
        for (resource, name) in GOING {
            let namespace = if *resource == "services" { "default" } else { "" };
            if let Ok(object) = setup.kube.get(resource, namespace, name) {
                wrong.push(format!("{resource} {name} is there: {}", object["metadata"]));
            }
        }
        for (resource, name) in [("bgpconfs", "default"), ("bgppeers", "router")] {
            let object = setup.kube.get(resource, "", name)?;
            let marks = marks(&object);
            if !marks.is_empty() {
                wrong.push(format!("{resource} {name} has {marks:?}"));
            }
            let status = object["status"].to_string();
            if status.contains("a-secret") || status.contains("a-node-that-is-gone") {
                wrong.push(format!("{resource} {name} has the status {status}"));
            }
        }
        anyhow::ensure!(wrong.is_empty(), "{wrong:#?}");
        Ok(Some(()))
    })
    .unwrap();
    println!("taken over after {took:?}, most of it the Lease that the Go OpenELB held");
    // What others put there is left alone.
    let kept = setup.service("default/stays-node-proxy").unwrap();
    assert_eq!(kept["metadata"]["finalizers"], json!(["example.com/of-somebody-else"]));
    let told = condition(&kept, "network.kubesphere.io/AddressAssigned");
    assert_eq!(told["reason"], "NodeProxyUnsupported");
    let waits = setup.service("default/stays-and-waits").unwrap();
    assert_eq!(condition(&waits, "network.kubesphere.io/AddressAssigned")["reason"], "PoolDeleting");

    // What is committed is what is published, once what was lost is released.
    let published: BTreeSet<(String, String)> = SERVICES
        .iter()
        .filter_map(|(key, address)| Some(((*key).to_owned(), (*address)?.to_owned())))
        .collect();
    eventually("what is committed is what is published", DEADLINE, || {
        let mut committed = BTreeSet::new();
        for eip in setup.kube.list("eips")? {
            for (address, holders) in eip["status"]["used"].as_object().into_iter().flatten() {
                let holders = holders.as_str().unwrap().split(';');
                committed.extend(holders.map(|holder| (holder.to_owned(), address.clone())));
            }
        }
        anyhow::ensure!(committed == published, "{committed:?}, and not {published:?}");
        Ok(Some(()))
    })
    .unwrap();
    let legacy = setup.kube.get("eips", "", "legacy").unwrap();
    assert_eq!(condition(&legacy, "SharingViolation")["status"], "True", "{legacy:#}");
}

/// The webhook stands in the way of one Eip that goes. That is told once, and does not hold the others up.
fn one_refusal_is_tried_again_alone(controller: &Process) {
    let log = Lab::log_tail(controller, 1000);
    let refused: Vec<&str> = log.lines().filter(|line| line.contains("a write was refused")).collect();
    assert!(refused.len() == 1 && refused[0].contains("validate.eip.network.kubesphere.io"), "{log}");
    let held_up = |line: &str| line.contains("again_in") && line.contains("validate.eip");
    assert!(!log.lines().any(held_up), "all writes were held up: {log}");
}

/// Of what our controller wrote on objects that others write, too, everything is a patch or the status of an Eip as a
/// whole, with the version that it was decided on.
fn every_write_carries_a_version(setup: &Setup) {
    let writes = setup.writes();
    assert!(!writes.is_empty());
    for request in &writes {
        let whole = request.verb == "update" && request.resource == "eips/status";
        assert!(request.verb == "patch" || whole, "{request:?}");
        assert!(!request.written_version.is_empty(), "{request:?}");
    }
    // Taken over in one write; those that change need more.
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for request in writes.iter().filter(|request| request.code == 200) {
        if request.resource.starts_with("services") {
            *counts.entry(format!("{}/{}", request.namespace, request.name)).or_default() += 1;
        }
    }
    for (key, _) in SERVICES.iter().filter(|(key, _)| !CHANGED.contains(key)) {
        assert_eq!(counts.get(*key).copied().unwrap_or_default(), 1, "{key}: {writes:#?}");
    }
}

/// No version of a Service that kept its address was without it, or had another.
fn nobody_was_without_address(setup: &Setup, before: &BTreeMap<&str, Vec<String>>) {
    for (key, published) in before.iter().filter(|(key, was)| !was.is_empty() && !CHANGED.contains(*key)) {
        // One write was made, and both ends are the same.
        assert_eq!(addresses(&setup.service(key).unwrap()), *published, "{key}");
    }
}

/// It stands in the way of a new Eip, and of finalizers; not of addresses.
fn the_webhook_that_is_left_is_told_and_removed(setup: &Setup) {
    let refused = setup
        .kube
        .apply("{apiVersion: network.kubesphere.io/v1alpha2, kind: Eip, metadata: {name: new}, spec: {address: 192.0.10.0/24}}");
    let refused = format!("{:#}", refused.unwrap_err());
    assert!(refused.contains("validate.eip.network.kubesphere.io"), "{refused}");
    assert!(setup.kube.get("eips", "", "going-unused").is_ok());
    setup.kube.kubectl(&["delete", "validatingwebhookconfiguration", "openelb-admission"]).unwrap();
    eventually("the end of an Eip that nobody uses", DEADLINE, || {
        let left = setup.kube.list("eips")?;
        Ok((!left.iter().any(|eip| eip["metadata"]["name"] == "going-unused")).then_some(()))
    })
    .unwrap();
}

fn everything_can_be_deleted(setup: &Setup) {
    for (key, _) in SERVICES {
        let (namespace, name) = key.split_once('/').unwrap();
        setup.kube.kubectl(&["delete", "service", name, "--namespace", namespace, "--wait=false"]).unwrap();
    }
    for resource in ["eips", "bgpconfs", "bgppeers"] {
        setup.kube.kubectl(&["delete", resource, "--all", "--wait=false"]).unwrap();
    }
    // Its finalizer is not ours.
    setup
        .kube
        .patch("services", "default", "stays-node-proxy", None, &json!({"metadata": {"finalizers": null}}))
        .unwrap();
    eventually("the end of all objects", DEADLINE, || {
        for resource in ["services", "eips", "bgpconfs", "bgppeers"] {
            let left = setup.kube.list(resource)?;
            let left = left.iter().filter(|object| object["metadata"]["name"] != "kubernetes");
            let left: Vec<&Value> = left.map(|object| &object["metadata"]).collect();
            anyhow::ensure!(left.is_empty(), "{resource}: {left:#?}");
        }
        Ok(Some(()))
    })
    .unwrap();
    for (file, kind) in [("legacy/leftovers.yaml", "DaemonSet"), ("legacy/leftovers.yaml", "ConfigMap")] {
        let leftover = documents(&read(file)).into_iter().find(|document| document["kind"] == kind).unwrap();
        // Whose they are is the user's to say: the manual names them.
        assert!(get(&setup.kube, &leftover).is_ok(), "{kind} is gone");
    }
}
