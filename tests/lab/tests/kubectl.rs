//! `kubectl openelb` on a real API server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::{os::unix::fs::symlink, path::Path, process::Output, sync::Arc, time::Duration};

use openelb_lab::{Lab, binary, eventually, kube::ControlPlane, kube::program};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(60);

struct Setup {
    lab: Arc<Lab>,
    kube: ControlPlane,
}

impl Setup {
    fn new(name: &str) -> Self {
        let lab = Arc::new(Lab::start(name).unwrap());
        let kube = ControlPlane::start_api(&lab).unwrap();
        std::fs::create_dir_all(lab.path().join("bin")).unwrap();
        symlink(binary("openelbd").unwrap(), lab.path().join("bin/kubectl-openelb")).unwrap();
        Self { lab, kube }
    }

    /// `kubectl openelb ARGUMENTS`, through the real kubectl.
    fn run_as(&self, kubeconfig: &Path, arguments: &[&str]) -> Output {
        let path = format!("PATH={}:/usr/bin:/bin", self.lab.path().join("bin").display());
        let kubeconfig = format!("KUBECONFIG={}", kubeconfig.display());
        let kubectl = program().unwrap();
        let mut command = vec![
            "env",
            "-u",
            "OPENELB_NAMESPACE",
            &path,
            &kubeconfig,
            kubectl.to_str().unwrap(),
            "kubectl",
            "openelb",
        ];
        command.extend(arguments);
        self.lab.command(self.kube.host(), &command).output().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.run_as(self.kube.kubeconfig(), arguments);
        let (out, error) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{arguments:?}: {error}");
        assert_eq!(error, "", "{arguments:?}");
        out
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        serde_json::from_str(&self.run(&all)).unwrap()
    }

    fn refused(&self, kubeconfig: &Path, arguments: &[&str]) -> String {
        let output = self.run_as(kubeconfig, arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

const OBJECTS: &str = r"
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: pool, annotations: {eip.openelb.kubesphere.io/is-default-eip: 'true'}}
spec: {address: 192.0.2.0/30}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: shut}
spec: {address: 198.51.100.0/24, autoAssign: true, disable: true}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpConf
metadata: {name: default}
spec: {as: 65001}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata: {name: router}
spec: {conf: {neighborAddress: 10.0.0.1, peerAs: 65000}}
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
metadata: {name: wants, namespace: default, annotations: {eip.openelb.kubesphere.io/v1alpha2: shut}}
spec: {type: LoadBalancer, loadBalancerClass: openelb.io/openelb, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: default}
spec: {type: LoadBalancer, ports: [{port: 80}]}
";

#[test]
fn what_the_controller_decided_is_explained_in_its_words() {
    let setup = Setup::new("plugin");
    let kube = &setup.kube;
    let missing = setup.refused(kube.kubeconfig(), &["pools"]);
    assert!(missing.contains("CustomResourceDefinitions are not installed"), "{missing}");
    assert!(missing.contains("openelbd crds | kubectl apply"), "{missing}");

    kube.apply_crds().unwrap();
    kube.apply("{apiVersion: v1, kind: Namespace, metadata: {name: openelb-system}}").unwrap();
    kube.apply(OBJECTS).unwrap();
    // Nobody has decided anything yet, and it says so.
    let web = setup.json(&["explain", "service", "web"]);
    assert_eq!(web["addressAssigned"]["reason"], "Assigned");
    let missing = web["missing"][0].as_str().unwrap();
    assert!(missing.contains("no controller holds the Lease openelb-controller"), "{missing}");

    let openelbd = binary("openelbd").unwrap();
    let config = kube.kubeconfig().to_str().unwrap();
    let arguments =
        [openelbd.to_str().unwrap(), "controller", "--kubeconfig", config, "--identity", "controller"];
    setup.lab.spawn("controller", kube.host(), &arguments).unwrap();
    eventually("decisions on both Services", DEADLINE, || {
        let services = setup.json(&["services"])["items"].as_array().unwrap().clone();
        Ok(services.iter().all(|service| service["reason"] != "").then_some(()))
    })
    .unwrap();

    let services = setup.json(&["services", "-A"])["items"].clone();
    assert_eq!(services.as_array().unwrap().len(), 2, "the third is not ours: {services}");
    for service in services.as_array().unwrap() {
        let name = service["name"].as_str().unwrap();
        let explained = setup.json(&["explain", "service", &format!("default/{name}")]);
        // The words of the condition.
        let object = kube.get("services", "default", name).unwrap();
        let conditions = object["status"]["conditions"].as_array().unwrap();
        for (kind, told) in [
            ("network.kubesphere.io/AddressAssigned", &explained["addressAssigned"]),
            ("network.kubesphere.io/RequestHonoured", &explained["requestHonoured"]),
        ] {
            let condition = conditions.iter().find(|condition| condition["type"] == kind).unwrap();
            assert_eq!((&condition["reason"], &condition["message"]), (&told["reason"], &told["message"]));
        }
    }
    let wants = setup.run(&["explain", "svc", "wants", "-n", "default"]);
    assert!(wants.contains("False PoolDisabled"), "{wants}");
    let web = setup.run(&["explain", "service", "default/web"]);
    for words in ["192.0.2.0 of Eip pool, by bgp", "no speaker says anything of itself", "shut"] {
        assert!(web.contains(words), "{words}: {web}");
    }
    let other = setup.run(&["explain", "service", "default/other"]);
    assert!(other.contains("ours             no: it has neither spec.loadBalancerClass"), "{other}");
    let none = setup.refused(kube.kubeconfig(), &["explain", "service", "default/none"]);
    assert!(none.contains("there is no Service default/none"), "{none}");

    let pools = setup.run(&["pools"]);
    assert!(
        pools.contains("pool  192.0.2.0/30") && pools.contains("disabled: it gives nothing new"),
        "{pools}"
    );
    assert_eq!(setup.json(&["peers"])["items"][0]["neighbor"], "10.0.0.1");
    let status = setup.json(&["status"]);
    assert_eq!(status["controller"]["leads"], true, "{status}");
    assert_eq!((&status["services"], &status["assigned"]), (&json!(2), &json!(1)), "{status}");
    let yaml = setup.run(&["status", "-o", "yaml"]);
    assert!(yaml.starts_with("controller:\n"), "{yaml}");
    eventually("the event of the address", DEADLINE, || {
        let events = setup.json(&["events", "-A"])["items"].as_array().unwrap().clone();
        Ok(events.iter().any(|event| event["reason"] == "AssignIP").then_some(()))
    })
    .unwrap();

    let moved = setup.json(&["reassign", "web", "-n", "default"]);
    assert_eq!(moved["before"], json!(["192.0.2.0"]), "{moved}");
    let after = moved["after"][0].as_str().unwrap();
    assert!(after.starts_with("192.0.2.") && after != "192.0.2.0", "{moved}");
    let shown = &kube.get("services", "default", "web").unwrap()["status"]["loadBalancer"]["ingress"];
    assert_eq!(shown[0]["ip"], moved["after"][0], "{shown}");
    for (name, words) in [
        ("default/wants", "has no address that it could leave"),
        ("default/other", "is not OpenELB's"),
        ("default/none", "there is no Service default/none"),
    ] {
        let refused = setup.refused(kube.kubeconfig(), &["reassign", name]);
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn a_user_who_may_not_read_is_told_which_role_is_missing() {
    let setup = Setup::new("plugin-rights");
    let kube = &setup.kube;
    kube.apply_crds().unwrap();
    kube.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}").unwrap();
    kube.kubectl(&["create", "serviceaccount", "reader", "--namespace", "shop"]).unwrap();
    let reader = kube.service_account_kubeconfig("shop", "reader").unwrap();
    let refused = setup.refused(&reader, &["pools"]);
    assert!(
        refused.contains("you may not read eips") && refused.contains("--clusterrole=openelb-viewer"),
        "{refused}"
    );
    assert_eq!(refused.lines().count(), 1, "{refused}");
}
