//! The real control plane, and what it makes of our custom resources.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use openelb_lab::{
    Lab,
    client::{Client, Plan},
    eventually,
    kube::{Action, Cluster, ControlPlane, Fault, Options, Place, ProxyMode, Ready, topology_pod},
    topology::{CLIENT, NODES, ROUTER, node_v4, node_v6},
};
use serde_json::json;

/// Where a test's Service is reached.
const V4: &str = "198.51.100.10";
const V6: &str = "fd00:5b::10";

#[test]
fn an_api_server_alone_checks_tokens_and_writes_down_who_asked_for_what() {
    let lab = Arc::new(Lab::start("api").unwrap());
    let kube = ControlPlane::start_api_with(&lab, Options { audit: true, ..Options::api_only() }).unwrap();
    assert!(kube.kubectl(&["version"]).unwrap().contains("Server Version: v1."));
    // Code of the test reaches it, too.
    lab.within(kube.host(), || std::net::TcpStream::connect(kube.address()).map(drop)).unwrap().unwrap();
    assert!(std::net::TcpStream::connect(kube.address()).is_err(), "it listens on the machine itself");

    kube.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}").unwrap();
    kube.kubectl(&["create", "serviceaccount", "web", "--namespace", "shop"]).unwrap();
    let web = kube.service_account_kubeconfig("shop", "web").unwrap();
    let refused = kube.kubectl_as(&web, &["get", "nodes"]).unwrap_err().to_string();
    assert!(refused.contains(r#"User "system:serviceaccount:shop:web" cannot list"#), "{refused}");
    let role = "--clusterrole=system:node-proxier";
    kube.kubectl(&["create", "clusterrolebinding", "web", role, "--serviceaccount=shop:web"]).unwrap();
    eventually("the new binding", Duration::from_secs(60), || {
        kube.kubectl_as(&web, &["get", "nodes"]).map(Some)
    })
    .unwrap();
    let requests = kube.requests().unwrap();
    let codes: BTreeSet<u16> = requests
        .iter()
        .filter(|request| request.user == "system:serviceaccount:shop:web")
        .filter(|request| (request.verb.as_str(), request.resource.as_str()) == ("list", "nodes"))
        .map(|request| request.code)
        .collect();
    assert_eq!(codes, BTreeSet::from([200, 403]));
}

#[test]
fn an_api_server_that_is_killed_or_stopped_comes_back_with_everything() {
    let lab = Arc::new(Lab::start("api-again").unwrap());
    let kube = ControlPlane::start_api(&lab).unwrap();
    kube.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}").unwrap();
    kube.kubectl(&["create", "serviceaccount", "web", "--namespace", "shop"]).unwrap();
    let web = kube.service_account_kubeconfig("shop", "web").unwrap();
    kube.kill_api().unwrap();
    assert!(kube.kubectl(&["get", "namespace", "shop"]).is_err());
    kube.start_api_again().unwrap();
    assert_eq!(kube.get("namespaces", "", "shop").unwrap()["metadata"]["name"], "shop");
    // Tokens from before hold: the key is the same.
    let refused = kube.kubectl_as(&web, &["get", "nodes"]).unwrap_err().to_string();
    assert!(refused.contains("Forbidden"), "{refused}");

    kube.pause_api().unwrap();
    assert!(kube.kubectl(&["get", "namespaces", "--request-timeout=1s"]).is_err());
    kube.resume_api().unwrap();
    kube.kubectl(&["get", "namespaces"]).unwrap();
}

#[test]
fn a_proxy_makes_the_api_server_err() {
    let lab = Arc::new(Lab::start("faults").unwrap());
    let kube = ControlPlane::start_api(&lab).unwrap();
    let faults = kube.start_faults(1).unwrap();
    let through = |arguments: &[&str]| kube.kubectl_as(faults.kubeconfig(), arguments);
    let fault = |verb: &str, path: &str, action: Action| Fault {
        name: verb.to_owned(),
        verb: verb.to_owned(),
        path: path.to_owned(),
        action,
        ..Fault::default()
    };
    through(&["create", "configmap", "one"]).unwrap();

    // Refused, as often as it is said.
    faults
        .set(&[Fault { limit: Some(1), ..fault("create", "/configmaps$", Action::Status { code: 409 }) }])
        .unwrap();
    let refused = through(&["create", "configmap", "two"]).unwrap_err().to_string();
    assert!(refused.contains("injected"), "{refused}");
    through(&["create", "configmap", "two"]).unwrap();
    assert_eq!(faults.hits().unwrap(), std::collections::BTreeMap::from([("create".to_owned(), 1)]));

    // Carried out, and not told.
    faults.set(&[fault("delete", "/configmaps/two$", Action::Lose)]).unwrap();
    assert!(through(&["delete", "configmap", "two", "--wait=false"]).is_err());
    assert!(kube.get("configmaps", "default", "two").is_err());

    // A list as it was.
    let names = |text: String| text.lines().count();
    let list = ["get", "configmaps", "--output=name"];
    let before = names(through(&list).unwrap());
    faults.set(&[fault("list", "/configmaps$", Action::Stale)]).unwrap();
    kube.kubectl(&["create", "configmap", "three"]).unwrap();
    assert_eq!(names(through(&list).unwrap()), before);
    faults.set(&[]).unwrap();
    assert_eq!(names(through(&list).unwrap()), before + 1);

    // A watch is cut; kubectl says that it ended too early, or just ends.
    faults.set(&[fault("watch", "/configmaps", Action::Cut { milliseconds: 300 })]).unwrap();
    let begun = std::time::Instant::now();
    let _ = through(&["get", "configmaps", "--watch", "--request-timeout=30s"]);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(faults.hits().unwrap()["watch"] >= 1);

    // Late.
    faults.set(&[fault("get", "/configmaps/one$", Action::Delay { milliseconds: 1000 })]).unwrap();
    let begun = std::time::Instant::now();
    through(&["get", "configmap", "one"]).unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

/// A Service of the pods with an address that nobody assigned: its status is written by hand.
fn service(name: &str, policy: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "type": "LoadBalancer", "selector": {"app": "web"}, "externalTrafficPolicy": policy,
            "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"],
            "ports": [{"port": 80, "targetPort": 8080}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": V4}, {"ip": V6}]}},
    })
}

/// Who answers `count` requests to an address: the pods, and the addresses from which they were asked.
fn answers(lab: &Lab, address: IpAddr, count: usize) -> anyhow::Result<(BTreeSet<String>, BTreeSet<IpAddr>)> {
    let plan = Plan { count, interval: Duration::ZERO, timeout: Duration::from_secs(1) };
    let seen = Client::start(lab, "client", CLIENT, SocketAddr::new(address, 80), plan)?
        .finish(Duration::from_secs(60))?;
    anyhow::ensure!(seen.failed == 0, "{} of {} failed: {:?}", seen.failed, seen.requests, seen.errors);
    let remotes = seen.remotes.keys().map(|remote| remote.parse()).collect::<Result<_, _>>()?;
    Ok((seen.pods.into_keys().collect(), remotes))
}

/// kube-proxy carries the address of a Service's status to the pods, and follows their readiness.
fn carries(cluster: &Cluster) {
    let (lab, kube) = (&cluster.lab, &cluster.kube);
    let all: BTreeSet<String> = NODES.iter().map(|n| format!("pod-{n}")).collect();
    kube.create_objects(&[service("web", "Cluster")]).unwrap();
    // No BGP here: the router is told.
    for (address, node) in [(V4, node_v4(1)), (V6, node_v6(1))] {
        let length = if node.is_ipv4() { 32 } else { 128 };
        lab.run(ROUTER, &["ip", "route", "add", &format!("{address}/{length}"), "via", &node.to_string()])
            .unwrap();
    }
    for address in [V4, V6] {
        let address: IpAddr = address.parse().unwrap();
        eventually(&format!("all pods behind {address}"), Duration::from_secs(60), || {
            let (pods, _) = answers(lab, address, 60)?;
            anyhow::ensure!(pods == all, "only {pods:?}");
            Ok(Some(()))
        })
        .unwrap();
    }
    // A real EndpointSlice follows the pod: pod-2 is not ready any more.
    kube.replace_status(&topology_pod(2, Ready::False).to_string()).unwrap();
    let address: IpAddr = V4.parse().unwrap();
    eventually("no answer from pod-2", Duration::from_secs(60), || {
        let (pods, _) = answers(lab, address, 60)?;
        Ok((!pods.contains("pod-2") && pods.len() == 2).then_some(()))
    })
    .unwrap();
    // Local: only the node's own pod, and it sees the client.
    kube.patch("services", "default", "web", None, &json!({"spec": {"externalTrafficPolicy": "Local"}}))
        .unwrap();
    eventually("only the node's own pod", Duration::from_secs(60), || {
        let (pods, remotes) = answers(lab, address, 10)?;
        let own = pods == BTreeSet::from(["pod-1".to_owned()]);
        Ok((own && remotes == BTreeSet::from(["203.0.113.2".parse()?])).then_some(()))
    })
    .unwrap();
}

#[test]
fn kube_proxy_with_nftables_carries_an_address_to_the_pods() {
    let cluster = Cluster::start("nftables", ProxyMode::Nftables).unwrap();
    carries(&cluster);
    a_workload_finds_its_service_account(&cluster);
}

#[test]
fn kube_proxy_with_iptables_carries_an_address_to_the_pods() {
    carries(&Cluster::start("iptables", ProxyMode::Iptables).unwrap());
}

/// A program that is told nothing finds the API server and its own token as in a Pod.
fn a_workload_finds_its_service_account(cluster: &Cluster) {
    let kube = &cluster.kube;
    kube.kubectl(&["create", "serviceaccount", "agent"]).unwrap();
    let workload = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {
                "metadata": {"labels": {"app": "agent"}},
                "spec": {
                    "serviceAccountName": "agent",
                    "containers": [{
                        "name": "agent", "image": "kubectl",
                        "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                        "securityContext": {
                            "runAsUser": 0, "readOnlyRootFilesystem": true,
                            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
                        },
                        "command": ["openelb-kube", "kubectl", "--profile=cpu", "--profile-output=/var/lib/profile"],
                        "args": ["auth", "whoami", "--output=jsonpath={.status.userInfo.username} on $(NODE)"],
                    }],
                },
            },
        },
    });
    kube.apply(&workload.to_string()).unwrap();
    // By the Service of the API server, which kube-proxy translates.
    let place = Place { host: "node-2", node: "node-2", api: "10.96.0.1:443".parse().unwrap() };
    let program = openelb_lab::kube::program().unwrap();
    let process = kube.start_workload(("daemonsets", "default", "agent"), &program, place).unwrap();
    cluster.lab.wait_exit(&process, Duration::from_secs(60)).unwrap();
    let said = std::fs::read_to_string(&process.log).unwrap();
    assert_eq!(said.trim(), "system:serviceaccount:default:agent on node-2");
    assert!(cluster.lab.path().join("nodes/node-2/var-lib/profile").is_file());
    assert!(!std::path::Path::new("/var/lib/profile").exists(), "it wrote to the machine's own /var/lib");
}

#[test]
fn a_node_without_heartbeats_is_not_ready_and_comes_back() {
    let cluster = Cluster::start("lifecycle", ProxyMode::Nftables).unwrap();
    let (lab, kube) = (&cluster.lab, &cluster.kube);
    let beats: Vec<_> = NODES.iter().map(|n| kube.start_heartbeat(&format!("node-{n}")).unwrap()).collect();
    kube.start_node_lifecycle(Duration::from_secs(4)).unwrap();
    let ready = |wanted: &'static str| {
        kube.wait_for(("nodes", "", "node-2"), Duration::from_secs(30), |node| {
            let conditions = node["status"]["conditions"].as_array().unwrap();
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == wanted)
        })
        .unwrap()
    };
    lab.signal(&beats[1], "STOP").unwrap();
    ready("Unknown");
    let of_pod = |wanted: bool| {
        kube.wait_for(("pods", "default", "pod-2"), Duration::from_secs(30), |pod| {
            let conditions = pod["status"]["conditions"].as_array().unwrap();
            conditions.iter().any(|c| c["type"] == "Ready" && (c["status"] == "True") == wanted)
        })
        .unwrap()
    };
    of_pod(false);
    lab.signal(&beats[1], "CONT").unwrap();
    ready("True");
    of_pod(true);
    // The others were ready all the time: nothing was evicted.
    assert_eq!(kube.list("pods").unwrap().len(), 3);
}
