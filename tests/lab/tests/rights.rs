//! The installation's roles are enough for what the programs do, and no right in them is unused: by the API server's
//! audit log, with the ServiceAccounts that `deploy/openelb.yaml` makes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::{collections::BTreeSet, os::unix::fs::symlink, sync::Arc, time::Duration};

use openelb_lab::{
    Lab, binary, eventually,
    kube::{Action, ControlPlane, Fault, Faults, NAMESPACE, Options, Request},
};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(60);

/// A verb on a resource of a group, in one namespace or everywhere (empty), of one name or any (empty).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    verb: String,
    group: String,
    resource: String,
    namespace: String,
    name: String,
}

impl Right {
    fn allows(&self, request: &Request) -> bool {
        // Server-side apply that makes an object takes both.
        let made = request.verb == "patch" && request.code == 201 && self.verb == "create";
        (self.verb == request.verb || made)
            && self.group == request.group
            && self.resource == request.resource
            && (self.namespace.is_empty() || self.namespace == request.namespace)
            && (self.name.is_empty() || self.name == request.name)
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// What the roles of an account allow, as the API server has them.
fn rights(kube: &ControlPlane, account: &str) -> BTreeSet<Right> {
    let mut all = BTreeSet::new();
    for (resource, namespace) in [("clusterroles", ""), ("roles", NAMESPACE)] {
        for rule in kube.get(resource, namespace, account).unwrap()["rules"].as_array().unwrap() {
            let mut names = strings(&rule["resourceNames"]);
            if names.is_empty() {
                names.push(String::new());
            }
            for (group, resource, verb, name) in strings(&rule["apiGroups"]).iter().flat_map(|group| {
                let names = &names;
                strings(&rule["resources"]).into_iter().flat_map(move |resource| {
                    strings(&rule["verbs"]).into_iter().flat_map(move |verb| {
                        let resource = resource.clone();
                        names
                            .iter()
                            .map(move |name| (group.clone(), resource.clone(), verb.clone(), name.clone()))
                    })
                })
            }) {
                assert!(![&group, &resource, &verb].iter().any(|text| text.contains('*')), "{rule}");
                all.insert(Right { verb, group, resource, namespace: namespace.to_owned(), name });
            }
        }
    }
    assert!(!all.is_empty());
    all
}

/// What an account asked the API server for.
fn requests(kube: &ControlPlane, account: &str) -> Vec<Request> {
    let user = format!("system:serviceaccount:{NAMESPACE}:{account}");
    let of_account = |request: &Request| request.user == user && !request.resource.starts_with('/');
    kube.requests().unwrap().into_iter().filter(of_account).collect()
}

/// Waits until every right was used, and sees that nothing else was asked for.
fn await_every_right(kube: &ControlPlane, account: &str, log: impl Fn() -> String) {
    let rights = rights(kube, account);
    let forbidden = |requests: &[Request]| -> BTreeSet<String> {
        let refused = requests.iter().filter(|request| request.code == 403);
        refused
            .map(|r| format!("{} {} {} in {:?} of {:?}", r.verb, r.group, r.resource, r.namespace, r.name))
            .collect()
    };
    let unused = |requests: &[Request]| -> Vec<Right> {
        let used =
            |right: &&Right| !requests.iter().any(|r| r.code < 500 && r.code != 403 && right.allows(r));
        rights.iter().filter(used).cloned().collect()
    };
    let what = format!("the use of every right of {account}");
    let used = eventually(&what, DEADLINE, || {
        let requests = requests(kube, account);
        let refused = forbidden(&requests);
        anyhow::ensure!(refused.is_empty(), "forbidden: {refused:#?}");
        let unused = unused(&requests);
        anyhow::ensure!(unused.is_empty(), "not used: {unused:#?}");
        Ok(Some(()))
    });
    if let Err(error) = used {
        panic!("{error:#}\n{}", log());
    }
    for request in requests(kube, account) {
        assert!(rights.iter().any(|right| right.allows(&request)), "allowed by something else: {request:?}");
    }
}

/// Lets the same thing happen and end, until it is told as one event with a count.
fn await_series(kube: &ControlPlane, reporter: &str, reason: &str, mut happen: impl FnMut(bool)) {
    let mut again = false;
    eventually("an event that says how often", DEADLINE, || {
        again = !again;
        happen(again);
        let events = kube.list("events.events.k8s.io")?;
        let is_it = |event: &&Value| event["reportingController"] == *reporter && event["reason"] == *reason;
        Ok(events
            .iter()
            .filter(is_it)
            .any(|event| event["series"]["count"].as_i64() >= Some(2))
            .then_some(()))
    })
    .unwrap();
}

/// A control plane with an audit log, and OpenELB's objects on it.
fn installed(name: &str) -> (Arc<Lab>, ControlPlane) {
    let lab = Arc::new(Lab::start(name).unwrap());
    let kube = ControlPlane::start_api_with(&lab, Options { audit: true, ..Options::api_only() }).unwrap();
    kube.install().unwrap();
    (lab, kube)
}

/// The first write to an object of each of these plurals meets another writer, so that the object is read again.
fn conflicts(faults: &Faults<'_>, plurals: &[&str]) {
    let fault = |plural: &&str| Fault {
        name: (*plural).to_owned(),
        verb: "patch".to_owned(),
        path: format!("/{plural}/[^/]+(/status)?$"),
        action: Action::Status { code: 409 },
        limit: Some(1),
        ..Fault::default()
    };
    faults.set(&plurals.iter().map(fault).collect::<Vec<_>>()).unwrap();
}

/// One of each kind; some as the Go OpenELB left them, some with a setting that has no effect and says so.
const OBJECTS: &str = r"
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: pool, annotations: {eip.openelb.kubesphere.io/is-default-eip: 'true'}}
spec: {address: 192.0.2.0/24}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpConf
metadata: {name: default, finalizers: [finalizer.lb.kubesphere.io/v1alpha1]}
spec: {as: 65001}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata: {name: router, finalizers: [finalizer.lb.kubesphere.io/v1alpha1]}
spec: {conf: {neighborAddress: 10.0.0.1, peerAs: 65000}, bfd: {enabled: true}}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPolicy
metadata: {name: policy}
spec: {}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: Layer2Conf
metadata: {name: default}
spec: {}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: VipGroup
metadata: {name: group}
spec: {}
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {type: LoadBalancer, loadBalancerClass: openelb.io/openelb, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: left, namespace: default, finalizers: [finalizer.lb.kubesphere.io/v1alpha1]}
spec: {ports: [{port: 80}]}
";

const ONE_MORE: &str = r"
apiVersion: v1
kind: Service
metadata: {name: more, namespace: default}
spec: {type: LoadBalancer, loadBalancerClass: openelb.io/openelb, ports: [{port: 80}]}
";

#[test]
fn the_controller_uses_every_right_it_has_and_asks_for_no_other() {
    let (lab, kube) = installed("rights-controller");
    let faults = kube.start_faults(1).unwrap();
    conflicts(
        &faults,
        &["eips", "bgpconfs", "bgppeers", "bgppolicies", "layer2confs", "vipgroups", "services"],
    );
    kube.apply(OBJECTS).unwrap();
    let kubeconfig = faults.service_account_kubeconfig(NAMESPACE, "openelb-controller").unwrap();
    let program = binary("openelbd").unwrap();
    let arguments = [program.to_str().unwrap(), "controller", "--kubeconfig", kubeconfig.to_str().unwrap()];
    let controller = lab.spawn("controller", kube.host(), &arguments).unwrap();
    eventually("an address", DEADLINE, || {
        let web = kube.get("services", "default", "web")?;
        Ok(web.pointer("/status/loadBalancer/ingress/0").map(drop))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", Lab::log_tail(&controller, 30)));
    // What is stored of the Eip is known by now: its status is sent as a whole.
    kube.apply(ONE_MORE).unwrap();
    await_series(&kube, "openelb-controller", "add/update eip", |again| {
        let address = if again { "nonsense" } else { "192.0.2.0/24" };
        let patch = json!({"spec": {"address": address}});
        kube.patch("eips.network.kubesphere.io", "", "pool", None, &patch).unwrap();
    });
    await_every_right(&kube, "openelb-controller", || Lab::log_tail(&controller, 30));
}

/// What the speaker looks at: published addresses, one of them with `externalTrafficPolicy: Local`.
const PUBLISHED: &str = r"
apiVersion: v1
kind: Service
metadata: {name: local, namespace: default}
spec:
  type: LoadBalancer
  loadBalancerClass: openelb.io/openelb
  externalTrafficPolicy: Local
  selector: {app: web}
  ports: [{port: 80}]
status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}
---
apiVersion: v1
kind: Service
metadata: {name: everywhere, namespace: default}
spec: {type: LoadBalancer, loadBalancerClass: openelb.io/openelb, ports: [{port: 80}]}
status: {loadBalancer: {ingress: [{ip: 192.0.2.2}]}}
";

#[test]
fn the_speaker_uses_every_right_it_has_and_asks_for_no_other() {
    let (lab, kube) = installed("rights-speaker");
    kube.apply(OBJECTS).unwrap();
    kube.create_with_status(PUBLISHED).unwrap();
    let secret = "{apiVersion: v1, kind: Secret, metadata: {name: password, namespace: openelb-system}, stringData: {key: word}}";
    kube.apply(secret).unwrap();
    let peer = json!({"spec": {"passwordSecretRef": {"name": "password", "key": "key"}}});
    kube.patch("bgppeers.network.kubesphere.io", "", "router", None, &peer).unwrap();
    let kubeconfig = kube.kubeconfig_of("speaker").unwrap();
    let checkpoint = lab.path().join("speaker.checkpoint");
    let program = binary("openelbd").unwrap();
    let arguments = [
        program.to_str().unwrap(),
        "speaker",
        "--node-name",
        "node-1",
        "--dataplane-health",
        "none",
        "--kubeconfig",
        kubeconfig.to_str().unwrap(),
        "--checkpoint",
        checkpoint.to_str().unwrap(),
    ];
    let speaker = lab.spawn("speaker", kube.host(), &arguments).unwrap();
    eventually("what the speaker says of itself", DEADLINE, || {
        let status = kube.get("speakerstatuses.network.kubesphere.io", "", "node-1")?;
        Ok(status["status"]["configuredPeers"].is_number().then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", Lab::log_tail(&speaker, 30)));
    // No node is left to announce from, which is worth an event.
    let label = "node.kubernetes.io/exclude-from-external-load-balancers=";
    kube.kubectl(&["label", "node", "node-1", label]).unwrap();
    let announce = |again: bool| {
        let patch = json!({"spec": {"protocol": if again { "bgp" } else { "none" }}});
        kube.patch("eips.network.kubesphere.io", "", "pool", None, &patch).unwrap();
    };
    await_series(&kube, "openelb-speaker", "ConfigSpeaker", announce);
    announce(true);
    eventually("an event of a pool that nobody announces", DEADLINE, || {
        let events = kube.list("events.events.k8s.io")?;
        Ok(events.iter().any(|event| event["reason"] == "NoAnnouncer").then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", Lab::log_tail(&speaker, 30)));
    // Gone for good: it says so, and takes its object away.
    kube.kubectl(&["delete", "daemonset", "openelb-speaker", "--namespace", NAMESPACE]).unwrap();
    lab.signal(&speaker, "TERM").unwrap();
    lab.wait_exit(&speaker, Duration::from_secs(20)).unwrap();
    await_every_right(&kube, "openelb-speaker", || Lab::log_tail(&speaker, 30));
}

#[test]
fn whoever_views_a_cluster_can_ask_the_plugin_everything() {
    let (lab, kube) = installed("rights-viewer");
    kube.apply(OBJECTS).unwrap();
    kube.create_with_status(PUBLISHED).unwrap();
    kube.kubectl(&["create", "serviceaccount", "jane", "--namespace", "default"]).unwrap();
    let role = "--clusterrole=openelb-viewer";
    kube.kubectl(&["create", "clusterrolebinding", "jane", role, "--serviceaccount=default:jane"]).unwrap();
    let kubeconfig = kube.service_account_kubeconfig("default", "jane").unwrap();
    let plugin = lab.path().join("kubectl-openelb");
    symlink(binary("openelbd").unwrap(), &plugin).unwrap();
    for arguments in [
        &["explain", "service", "default/local"][..],
        &["services", "--all-namespaces"],
        &["pools"],
        &["peers"],
        &["status"],
        &["events", "--all-namespaces"],
    ] {
        let mut command = vec![plugin.to_str().unwrap()];
        command.extend(arguments);
        command.extend(["--kubeconfig", kubeconfig.to_str().unwrap()]);
        // A role that has just been bound may take a moment.
        eventually(&arguments.join(" "), Duration::from_secs(10), || {
            lab.run(kube.host(), &command).map(Some)
        })
        .unwrap();
    }
}
