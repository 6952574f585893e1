//! One malformed object stops nothing else, on a real API server with controller, speakers and router.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod manifests;

use std::{collections::BTreeSet, net::IpAddr, path::Path, sync::Arc, time::Duration};

use manifests::condition;
use openelb_lab::{
    Lab, Process, binary,
    bird::{Bird, kernel_next_hops},
    eventually,
    kube::{CONTROL, CONTROL_V4, CONTROL_V6, ControlPlane, Options, Ready, node_object},
    topology::{self, NODES, ROUTER, node, node_v4, node_v6},
};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(60);
/// The most that the annotations of one object may take.
const ANNOTATIONS: usize = 256 << 10;

/// Objects as a laxer definition of their kinds let them in.
const MALFORMED: &str = r#"
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: wrong-type}
spec: {address: 198.51.100.32/28, protocol: bgp, priority: high, namespaces: default}
status: {used: {198.51.100.33: default/of-wrong-type}, usage: 1}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: address-of-wrong-type}
spec: {address: {from: 198.51.100.48, to: 198.51.100.63}, protocol: bgp}
status: {used: {198.51.100.49: default/of-address-of-wrong-type}, usage: 1}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: unknown-fields}
spec: {address: 198.51.100.64/28, protocol: bgp, comment: [1, {two: 3}], labels: 7}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: unreadable-address}
spec: {address: 198.51.100.x, protocol: bgp}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: no-spec}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: garbled-status}
spec: {address: 198.51.100.80/28, protocol: bgp}
status: {used: all of them, usage: many, conditions: none}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata: {name: wrong-type}
spec: {conf: {neighborAddress: 192.168.50.90, peerAs: "64512"}}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata: {name: unreadable-address}
spec: {conf: {neighborAddress: router.example.com, peerAs: 64512}}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpConf
metadata: {name: wrong-type}
spec: {as: [64501]}
"#;

/// Objects that any API server takes.
const ODD: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: not-text, namespace: openelb-system}
data: {password: //79/Pv6}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata: {name: password-not-text}
spec:
  conf: {neighborAddress: 192.168.50.91, peerAs: 64512}
  passwordSecretRef: {name: not-text, key: password}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: good}
spec: {address: 198.51.100.0/28, protocol: bgp}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpConf
metadata: {name: default}
spec: {as: 64501}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata: {name: router}
spec: {conf: {neighborAddress: 192.168.50.1, peerAs: 64512}}
"#;

struct Setup {
    lab: Arc<Lab>,
    kube: ControlPlane,
}

fn service(name: &str, pool: &str, address: Option<&str>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": name, "namespace": "default",
            "annotations": {"lb.kubesphere.io/v1alpha1": "openelb", "eip.openelb.kubesphere.io/v1alpha2": pool},
        },
        "spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": address.map(|ip| json!([{"ip": ip}])).unwrap_or(json!([]))}},
    })
}

impl Setup {
    fn new() -> Self {
        let lab = Arc::new(topology::start("malformed").unwrap());
        lab.network(|network| {
            network.host(CONTROL);
            let (v4, v6) = (format!("{CONTROL_V4}/24"), format!("{CONTROL_V6}/64"));
            network.plug("podnet", (CONTROL, "eth0", &[&v4, &v6]));
        })
        .unwrap();
        let kube = ControlPlane::start(&lab, Options { address: CONTROL_V4, ..Options::api_only() }).unwrap();
        let setup = Self { lab, kube };
        setup.apply_lax_crds();
        let nodes: Vec<Value> = NODES
            .iter()
            .map(|n| node_object(&node(*n), &[node_v4(*n), node_v6(*n)], &[], Ready::True))
            .collect();
        setup.kube.create_objects(&nodes).unwrap();
        setup
    }

    /// The definitions of `deploy/crds`, without schemas and sub-resources.
    fn apply_lax_crds(&self) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
        for file in std::fs::read_dir(directory).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let mut definition: Value = serde_saphyr::from_str(&text).unwrap();
            for version in definition["spec"]["versions"].as_array_mut().unwrap() {
                version["schema"] = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
                version.as_object_mut().unwrap().remove("subresources");
            }
            let file = self.lab.write("lax.json", &definition.to_string()).unwrap();
            self.kube.kubectl(&["create", "--filename", &file.to_string_lossy()]).unwrap();
        }
        self.kube.wait_crds().unwrap();
    }

    /// Then OpenELB as it is installed: what is stored is not looked at again.
    fn install(&self) {
        self.kube.install().unwrap();
        eventually("the definitions to be in force", DEADLINE, || {
            let bad = r#"{"apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip",
                "metadata": {"name": "bad"}, "spec": {"address": 5}}"#;
            let file = self.lab.write("bad.json", bad)?;
            let dry =
                ["create", "--dry-run=server", "--validate=ignore", "--filename", &*file.to_string_lossy()];
            Ok(self.kube.kubectl(&dry).is_err().then_some(()))
        })
        .unwrap();
    }

    /// With the token of its ServiceAccount.
    fn start(&self, role: &str, host: &str, arguments: &[&str]) -> Process {
        let program = binary("openelbd").unwrap();
        let kubeconfig = self.kube.kubeconfig_of(role).unwrap();
        let mut command = vec![program.to_str().unwrap(), role, "--kubeconfig", kubeconfig.to_str().unwrap()];
        command.extend(arguments);
        self.lab.spawn(&format!("{role}-{host}"), host, &command).unwrap()
    }

    fn start_controller(&self) -> Process {
        self.start("controller", self.kube.host(), &["--metrics-addr", "0", "--http-bind-address", "0"])
    }

    fn start_speaker(&self, number: u8) -> Process {
        let name = node(number);
        let checkpoint = self.lab.path().join(&name).join("checkpoint");
        self.start("speaker", &name, &["--node-name", &name, "--checkpoint", checkpoint.to_str().unwrap()])
    }

    fn ours(&self, resource: &str, name: &str) -> anyhow::Result<Value> {
        self.kube.get(&format!("{resource}.network.kubesphere.io"), "", name)
    }

    fn await_address(&self, name: &str, wanted: &str) {
        eventually(&format!("{wanted} of Service {name}, at the router"), DEADLINE, || {
            let service = self.kube.get("services", "default", name)?;
            let ingress = &service["status"]["loadBalancer"]["ingress"];
            anyhow::ensure!(ingress[0]["ip"] == wanted, "{:#}", service["status"]);
            let hops: BTreeSet<IpAddr> =
                kernel_next_hops(&self.lab, ROUTER, wanted.parse()?)?.into_iter().collect();
            let all: BTreeSet<IpAddr> = NODES.iter().map(|n| node_v4(*n)).collect();
            anyhow::ensure!(hops == all, "it goes over {hops:?}");
            Ok(Some(()))
        })
        .unwrap();
    }

    fn await_reason(&self, name: &str, reason: &str) {
        let what = ("services", "default", name);
        let says = |service: &Value| condition(service, "network.kubesphere.io/AddressAssigned");
        self.kube.wait_for(what, DEADLINE, |service| says(service)["reason"] == reason).unwrap();
    }

    fn await_bad(&self, resource: &str, name: &str, mentions: &str) {
        eventually(&format!("what is said of {resource} {name}"), DEADLINE, || {
            let object = self.ours(resource, name)?;
            let ready = condition(&object, "Ready");
            let message = ready["message"].as_str().unwrap_or_default();
            anyhow::ensure!(ready["status"] == "False" && message.contains(mentions), "{object:#}");
            Ok(Some(()))
        })
        .unwrap();
    }
}

fn router(lab: &Lab) -> Bird<'_> {
    topology::start_router(lab).unwrap()
}

#[test]
fn one_malformed_object_stops_nothing_else() {
    let setup = Setup::new();
    let _router = router(&setup.lab);
    let file = setup.lab.write("malformed.yaml", MALFORMED).unwrap();
    setup.kube.kubectl(&["create", "--filename", &file.to_string_lossy()]).unwrap();
    setup.install();
    // What could not be made now is still there.
    assert_eq!(setup.ours("eips", "wrong-type").unwrap()["spec"]["priority"], "high");
    assert_eq!(setup.ours("eips", "garbled-status").unwrap()["status"]["used"], "all of them");
    setup.kube.apply(ODD).unwrap();
    let live = [
        service("good", "good", Some("198.51.100.0")),
        // They have their addresses for long.
        service("of-wrong-type", "wrong-type", Some("198.51.100.33")),
        service("of-address-of-wrong-type", "address-of-wrong-type", Some("198.51.100.49")),
        service("of-garbled-status", "garbled-status", Some("198.51.100.81")),
        service("of-unknown-fields", "unknown-fields", None),
    ];
    setup.kube.create_with_status(&live.map(|service| service.to_string()).join("\n---\n")).unwrap();
    for (name, address, filled) in
        [("huge", "198.51.100.1", ANNOTATIONS - 600), ("filled-up", "198.51.100.2", ANNOTATIONS - 200)]
    {
        let mut huge = service(name, "good", None);
        huge["metadata"]["annotations"]["eip.openelb.kubesphere.io/v1alpha1"] = address.into();
        huge["metadata"]["annotations"]["example.com/notes"] = "x".repeat(filled).into();
        // Too large for what kubectl apply would note on it as well.
        setup.kube.create_objects(&[huge]).unwrap();
    }
    setup.kube.create_objects(&[service("waits", "wrong-type", None)]).unwrap();

    let controller = setup.start_controller();
    let speakers: Vec<Process> = NODES.iter().map(|n| setup.start_speaker(*n)).collect();
    let all_good = || {
        setup.await_address("good", "198.51.100.0");
        setup.await_address("of-unknown-fields", "198.51.100.64");
        setup.await_address("huge", "198.51.100.1");
        setup.await_address("filled-up", "198.51.100.2");
        // A live address is never lost to somebody's mistake.
        setup.await_address("of-wrong-type", "198.51.100.33");
        setup.await_address("of-address-of-wrong-type", "198.51.100.49");
        setup.await_address("of-garbled-status", "198.51.100.81");
        setup.await_reason("waits", "PoolInvalid");
    };
    all_good();
    // A condition of somebody else that has no time, in place of ours, costs no address and stays.
    let timeless = json!({"type": "example.com/Ready", "status": "True", "reason": "Yes", "message": "",
                          "lastTransitionTime": null});
    let odd = json!({"status": {"conditions": [timeless]}});
    setup.kube.patch("services", "default", "good", Some("status"), &odd).unwrap();
    setup.await_reason("good", "Assigned");
    setup.await_address("good", "198.51.100.0");
    let good = setup.kube.get("services", "default", "good").unwrap();
    assert_eq!(condition(&good, "example.com/Ready"), timeless, "{good:#}");
    setup.await_bad("eips", "wrong-type", "spec.priority");
    setup.await_bad("eips", "wrong-type", "spec.namespaces");
    setup.await_bad("eips", "address-of-wrong-type", "spec.address");
    setup.await_bad("eips", "unreadable-address", "198.51.100.x");
    setup.await_bad("eips", "no-spec", "spec.address");
    setup.await_bad("bgppeers", "wrong-type", "spec.conf.peerAs");
    setup.await_bad("bgppeers", "unreadable-address", "router.example.com");
    setup.await_bad("bgpconfs", "wrong-type", "only the BgpConf named default");
    let peer = ("bgppeers.network.kubesphere.io", "", "password-not-text");
    let told = |peer: &Value| peer["status"]["conditions"].to_string().contains("password");
    setup.kube.wait_for(peer, DEADLINE, told).unwrap();
    let status = setup.ours("eips", "garbled-status").unwrap()["status"].clone();
    assert_eq!(status["used"], json!({"198.51.100.81": "default/of-garbled-status"}));

    // And a replica and a speaker that begin now do as well.
    for process in [controller].iter().chain(&speakers) {
        setup.lab.signal(process, "KILL").unwrap();
        setup.lab.wait_exit(process, Duration::from_secs(10)).unwrap();
    }
    let _controller = setup.start_controller();
    let _speakers: Vec<Process> = NODES.iter().map(|n| setup.start_speaker(*n)).collect();
    setup.kube.create_objects(&[service("late", "good", None)]).unwrap();
    setup.await_address("late", "198.51.100.3");
    all_good();

    // Mended, it is as if nothing had been.
    let mended = json!({"spec": {"priority": 1, "namespaces": ["default"]}});
    setup.kube.patch("eips.network.kubesphere.io", "", "wrong-type", None, &mended).unwrap();
    setup.await_address("waits", "198.51.100.32");
    all_good_but_the_one_that_waits(&setup);
}

fn all_good_but_the_one_that_waits(setup: &Setup) {
    setup.await_address("of-wrong-type", "198.51.100.33");
    let eip = ("eips.network.kubesphere.io", "", "wrong-type");
    setup.kube.wait_for(eip, DEADLINE, |eip| condition(eip, "Ready")["status"] == "True").unwrap();
}
