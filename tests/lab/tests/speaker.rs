//! `openelbd speaker` on the nodes of a lab, with a real API server: Services have addresses that are written by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod reload;

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{IpAddr, TcpListener},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use openelb_lab::{
    Lab, Process, binary,
    bird::{Bird, kernel_next_hops},
    eventually,
    kube::{CONTROL, CONTROL_V4, CONTROL_V6, ControlPlane, NAMESPACE, Options, Ready, node_object},
    topology::{self, NODES, ROUTER, node, node_v4, node_v6},
};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(60);
/// How long the control plane is away.
const MINUTE: Duration = Duration::from_secs(60);
const GROUP: &str = "network.kubesphere.io/v1alpha2";

struct Setup {
    lab: Arc<Lab>,
    kube: ControlPlane,
}

impl Setup {
    /// The network of the demo with an API server; Nodes, a pool, and how to speak BGP.
    fn new(name: &str) -> Self {
        let lab = Arc::new(topology::start(name).unwrap());
        lab.network(|network| {
            network.host(CONTROL);
            let (v4, v6) = (format!("{CONTROL_V4}/24"), format!("{CONTROL_V6}/64"));
            network.plug("podnet", (CONTROL, "eth0", &[&v4, &v6]));
        })
        .unwrap();
        let kube = ControlPlane::start(&lab, Options { address: CONTROL_V4, ..Options::api_only() }).unwrap();
        kube.install().unwrap();
        let nodes: Vec<Value> = NODES
            .iter()
            .map(|n| node_object(&node(*n), &[node_v4(*n), node_v6(*n)], &[], Ready::True))
            .collect();
        kube.create_objects(&nodes).unwrap();
        let setup = Self { lab, kube };
        setup.apply(&ours("Eip", "pool", &json!({"address": "198.51.100.0/24", "protocol": "bgp"})));
        setup.apply(&ours("BgpConf", "default", &json!({"as": 64501})));
        setup.apply(&ours(
            "BgpPeer",
            "router",
            &json!({"conf": {"neighborAddress": "192.168.50.1", "peerAs": 64512}}),
        ));
        setup
    }

    fn router(&self) -> Bird<'_> {
        topology::start_router(&self.lab).unwrap()
    }

    fn apply(&self, object: &Value) {
        self.kube.apply(&object.to_string()).unwrap();
    }

    fn speaker(&self, number: u8) -> Process {
        self.speaker_with(number, &[])
    }

    /// With the token of its ServiceAccount.
    fn speaker_with(&self, number: u8, more: &[&str]) -> Process {
        let program = binary("openelbd").unwrap();
        let kubeconfig = self.kube.kubeconfig_of("speaker").unwrap();
        let name = node(number);
        let checkpoint = self.checkpoint(number);
        let mut arguments = vec![
            program.to_str().unwrap(),
            "speaker",
            "--kubeconfig",
            kubeconfig.to_str().unwrap(),
            "--node-name",
            &name,
            "--checkpoint",
            checkpoint.to_str().unwrap(),
        ];
        arguments.extend(more);
        self.lab.spawn(&format!("speaker-{number}"), &name, &arguments).unwrap()
    }

    fn checkpoint(&self, number: u8) -> PathBuf {
        self.lab.path().join(node(number)).join("checkpoint")
    }

    /// Services with these last numbers of their addresses.
    fn services(&self, numbers: impl Iterator<Item = u8>) {
        let documents: Vec<String> = numbers.map(|number| service(number, "Cluster").to_string()).collect();
        self.kube.create_with_status(&documents.join("\n---\n")).unwrap();
    }

    fn await_hops(&self, number: u8, nodes: &[u8]) {
        let wanted: Vec<IpAddr> = nodes.iter().map(|n| node_v4(*n)).collect();
        let address = address(number);
        let mut seen = Vec::new();
        eventually(&format!("{address} over nodes {nodes:?}"), DEADLINE, || {
            seen = kernel_next_hops(&self.lab, ROUTER, address)?;
            anyhow::ensure!(seen == wanted, "it goes over {seen:?}");
            Ok(Some(()))
        })
        .unwrap();
    }

    /// What a path of a node's observability port answers, and with which code.
    fn get(&self, number: u8, path: &str) -> anyhow::Result<String> {
        let url = format!("http://127.0.0.1:50053{path}");
        self.lab.run(&node(number), &["curl", "-sS", "--max-time", "5", "-w", "%{http_code}", &url])
    }

    fn await_ready(&self, number: u8) {
        eventually(&format!("a ready speaker on node-{number}"), DEADLINE, || {
            let answer = self.get(number, "/readyz")?;
            anyhow::ensure!(answer.ends_with("200"), "{answer}");
            Ok(Some(()))
        })
        .unwrap();
    }

    /// The routes of these Services stay at the router, each over these nodes, for so long.
    fn stay(&self, routes: &[(u8, &[u8])], how_long: Duration, what: &str) {
        let began = Instant::now();
        while began.elapsed() < how_long {
            for (number, nodes) in routes {
                let wanted: Vec<IpAddr> = nodes.iter().map(|n| node_v4(*n)).collect();
                let seen = kernel_next_hops(&self.lab, ROUTER, address(*number)).unwrap();
                assert_eq!(seen, wanted, "{} after {:?} of {what}", address(*number), began.elapsed());
            }
        }
    }

    /// The EndpointSlice of a Service: on which nodes it has endpoints, and which of them are ready.
    fn endpoints(&self, number: u8, nodes: &[(u8, bool)]) {
        let endpoints: Vec<Value> = nodes
            .iter()
            .map(|(n, ready)| {
                json!({"addresses": [format!("10.244.{n}.10")], "nodeName": node(*n),
                       "conditions": {"ready": ready, "serving": ready, "terminating": false}})
            })
            .collect();
        let name = format!("service-{number}");
        self.apply(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "endpoints": endpoints,
        }));
    }
}

fn ours(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": GROUP, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn address(number: u8) -> IpAddr {
    [198, 51, 100, number].into()
}

fn service(number: u8, policy: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": format!("service-{number}"), "namespace": "default",
            "annotations": {"lb.kubesphere.io/v1alpha1": "openelb"},
        },
        "spec": {
            "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "externalTrafficPolicy": policy,
            "ports": [{"port": 80}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": address(number)}]}},
    })
}

const ALL: [u8; 3] = NODES;

/// A Service with `externalTrafficPolicy: Local`.
const LOCAL: u8 = 9;

#[test]
fn routes_stay_for_a_minute_without_ready_nodes() {
    let setup = Setup::new("speaker-hiccup");
    let _router = setup.router();
    // The speakers announce for each other and for node-3, which has none: this is where a node that is not Ready might
    // be left out.
    let mode = |mode: &str| {
        let mode = json!({"spec": {"nextHopMode": mode}});
        setup.kube.patch("bgpconfs.network.kubesphere.io", "", "default", None, &mode).unwrap();
    };
    mode("AllNodes");
    let speakers = [1, 2];
    let _speakers: Vec<Process> = speakers.iter().map(|n| setup.speaker(*n)).collect();
    setup.services(1..=5);
    setup.kube.create_objects(&[service(LOCAL, "Local")]).unwrap();
    // The endpoint of node-2 does not work.
    setup.endpoints(LOCAL, &[(1, true), (2, false), (3, true)]);
    let (all, local): (&[u8], &[u8]) = (&ALL, &[1, 3]);
    let before_all: Vec<(u8, &[u8])> = (1..=5).map(|number| (number, all)).chain([(LOCAL, local)]).collect();
    for (number, nodes) in &before_all {
        setup.await_hops(*number, nodes);
    }
    for number in speakers {
        setup.await_ready(number);
    }

    // The control plane loses sight of one node after the other, and calls their Pods unready.
    let count = |number: u8| setup.counts_of(number).unwrap();
    let before = speakers.map(count);
    let nodes = |ready: Ready| {
        let object = |n: &u8| node_object(&node(*n), &[node_v4(*n), node_v6(*n)], &[], ready).to_string();
        let nodes: Vec<String> = NODES.iter().map(object).collect();
        setup.kube.replace_status(&nodes.join("\n---\n")).unwrap();
    };
    let taint = |value: Value| {
        for n in NODES {
            setup.kube.patch("nodes", "", &node(n), None, &json!({"spec": {"taints": value}})).unwrap();
        }
    };
    nodes(Ready::Unknown);
    let unreachable = |effect: &str| json!({"key": "node.kubernetes.io/unreachable", "effect": effect});
    taint(json!([unreachable("NoSchedule"), unreachable("NoExecute")]));
    setup.endpoints(LOCAL, &[(1, false), (2, false), (3, true)]);
    setup.endpoints(LOCAL, &[(1, false), (2, false), (3, false)]);
    // On the way there some were not Ready beside others that were, and left out by those that announce for them. Now
    // nothing is said any more.
    setup.stay(&before_all, MINUTE / 6, "nodes that are not seen, in mode AllNodes");
    let settled = speakers.map(count);
    setup.stay(&before_all, MINUTE / 3, "nodes that are not seen, in mode AllNodes");
    assert_eq!(speakers.map(count), settled);
    // New Services are announced meanwhile.
    setup.services(6..=6);
    setup.await_hops(6, &ALL);
    mode("Auto");
    let during_auto: Vec<(u8, &[u8])> = before_all.iter().copied().chain([(6, all)]).collect();
    for (number, nodes) in &during_auto {
        setup.await_hops(*number, nodes);
    }
    setup.stay(&during_auto, MINUTE / 2, "nodes that are not seen, in mode Auto");

    // A kubelet says of the Node first that it is Ready, and then looks after its Pods.
    taint(json!([]));
    nodes(Ready::True);
    setup.stay(&during_auto, MINUTE / 12, "nodes that are seen again before their Pods");
    setup.endpoints(LOCAL, &[(1, true), (2, false), (3, false)]);
    setup.stay(&during_auto, MINUTE / 12, "one Pod that is seen again before the other");
    setup.endpoints(LOCAL, &[(1, true), (2, false), (3, true)]);
    setup.services(7..=7);
    setup.await_hops(7, &ALL);
    setup.await_hops(LOCAL, &[1, 3]);
    for (number, before) in speakers.into_iter().zip(before) {
        assert_eq!(count(number).resets, before.resets, "node-{number}");
    }
    // It is seen again: now an endpoint that is not ready counts.
    setup.endpoints(LOCAL, &[(1, false), (2, false), (3, true)]);
    setup.await_hops(LOCAL, &[3]);
}

#[test]
fn routes_stay_for_a_minute_without_api_server_and_come_back_from_the_checkpoint() {
    let setup = Setup::new("speaker-checkpoint");
    let _router = setup.router();
    setup
        .kube
        .patch(
            "bgpconfs.network.kubesphere.io",
            "",
            "default",
            None,
            &json!({"spec": {"nextHopMode": "AllNodes"}}),
        )
        .unwrap();
    let mut speakers: Vec<Process> = NODES.iter().map(|n| setup.speaker(*n)).collect();
    setup.services(1..=5);
    // An address of no pool, and one of somebody's annotation.
    let mut forged = service(77, "Cluster");
    forged["metadata"]["annotations"]["eip.openelb.kubesphere.io/v1alpha1"] = json!("203.0.113.77");
    forged["status"]["loadBalancer"]["ingress"] = json!([{"ip": "203.0.113.77"}]);
    setup.kube.create_objects(&[forged]).unwrap();
    setup.await_hops(1, &ALL);
    for number in ALL {
        setup.await_ready(number);
    }

    setup.services(6..=6);
    setup.await_hops(6, &ALL);
    // Without API server everything stays, and a speaker that is killed comes back with its routes.
    let saved = |number: u8, what: &str| {
        eventually(&format!("{what} in the checkpoint of node-{number}"), DEADLINE, || {
            Ok(std::fs::read_to_string(setup.checkpoint(number))?.contains(what).then_some(()))
        })
        .unwrap();
    };
    saved(1, "198.51.100.6");
    setup.kube.kill_api().unwrap();
    setup.lab.signal(&speakers[0], "KILL").unwrap();
    setup.lab.wait_exit(&speakers[0], Duration::from_secs(5)).unwrap();
    let began = Instant::now();
    speakers[0] = setup.speaker(1);
    eventually("routes of node-1 from its checkpoint", DEADLINE, || {
        let answer = setup.get(1, "/metrics")?;
        let advertised = answer
            .lines()
            .find(|line| line.starts_with("openelb_bgp_routes_advertised") && line.contains("ipv4"))
            .map(str::to_owned)
            .unwrap_or_default();
        // Six addresses over three nodes each.
        anyhow::ensure!(advertised.ends_with(" 18.0"), "{advertised}");
        Ok(Some(()))
    })
    .unwrap();
    println!("routes after a start without API server: {:?}", began.elapsed());
    let ready = setup.get(1, "/readyz").unwrap();
    assert!(ready.ends_with("503") && ready.contains("Stale"), "{ready}");
    setup.await_hops(1, &ALL);
    let all: &[u8] = &ALL;
    let routes: Vec<(u8, &[u8])> = (1..=6).map(|number| (number, all)).collect();
    setup.stay(&routes, MINUTE, "no API server");
    let stale = setup.counts();

    // It is there again: what it says is what is announced, and nothing was withdrawn on the way.
    setup.kube.start_api_again().unwrap();
    setup.await_ready(1);
    setup.services(7..=7);
    setup.await_hops(7, &ALL);
    let fresh = setup.counts();
    assert_eq!(fresh[&1].resets, stale[&1].resets);
    assert!(fresh[&1].updates <= stale[&1].updates + 3, "{stale:?} {fresh:?}");
    assert_eq!(kernel_next_hops(&setup.lab, ROUTER, [203, 0, 113, 77].into()).unwrap(), [] as [IpAddr; 0]);
}

#[test]
fn few_speakers_announce_all_nodes_and_the_leader_shows_all_sessions() {
    let setup = Setup::new("speaker-behalf");
    let _router = setup.router();
    let first = setup.speaker(1);
    setup.services(1..=3);
    // The others have no speaker.
    setup.await_hops(1, &ALL);
    let second = setup.speaker(2);
    setup.await_ready(2);
    setup.await_hops(1, &ALL);
    let program = binary("openelbd").unwrap();
    let kubeconfig = setup.kube.kubeconfig_of("controller").unwrap();
    let controller = [
        program.to_str().unwrap(),
        "controller",
        "--kubeconfig",
        kubeconfig.to_str().unwrap(),
        "--metrics-addr",
        "0",
        "--http-bind-address",
        "0",
    ];
    setup.lab.spawn("controller", setup.kube.host(), &controller).unwrap();
    let peer = ("bgppeers.network.kubesphere.io", "", "router");
    let sessions = |peer: &Value| -> BTreeSet<String> {
        let nodes = peer["status"]["nodesPeerStatus"].as_object().cloned().unwrap_or_default();
        let up = nodes.iter().filter(|(_, node)| node["peerState"]["sessionState"] == "ESTABLISHED");
        up.map(|(name, _)| name.clone()).collect()
    };
    let (shown, _) = setup
        .kube
        .wait_for(peer, DEADLINE, |peer| sessions(peer) == BTreeSet::from([node(1), node(2)]))
        .unwrap();
    let conditions = shown["status"]["conditions"].to_string();
    assert!(conditions.contains("AllEstablished"), "{conditions}");
    let conf = ("bgpconfs.network.kubesphere.io", "", "default");
    setup
        .kube
        .wait_for(conf, DEADLINE, |conf| {
            conf["status"]["nodesConfStatus"]["node-2"] == json!({"routerId": "192.168.50.12", "as": 64501})
        })
        .unwrap();

    // Without its DaemonSet a speaker that is asked to end does not come back. It withdraws, and says that it is gone;
    // then the other one announces its node.
    setup.kube.kubectl(&["delete", "daemonset", "openelb-speaker", "--namespace", NAMESPACE]).unwrap();
    setup.lab.signal(&second, "TERM").unwrap();
    setup.lab.wait_exit(&second, Duration::from_secs(15)).unwrap();
    let gone = setup.kube.get("speakerstatuses.network.kubesphere.io", "", "node-2");
    assert!(gone.is_err(), "{gone:?}");
    setup.await_hops(1, &ALL);
    setup.kube.wait_for(peer, DEADLINE, |peer| sessions(peer) == BTreeSet::from([node(1)])).unwrap();

    // Policy Local: nobody has an endpoint, so nobody announces; then node-2 has one.
    setup.kube.create_objects(&[service(9, "Local")]).unwrap();
    setup.endpoints(9, &[(2, true)]);
    setup.await_hops(9, &[2]);
    setup.await_hops(1, &ALL);
    assert!(setup.lab.is_running(&first));
}

/// kube-proxy's health check, which answers what it is told.
fn serve_health(lab: &Lab, host: &str) -> Arc<AtomicU16> {
    let status = Arc::new(AtomicU16::new(200));
    let listener = lab.within(host, || TcpListener::bind("127.0.0.1:10256").unwrap()).unwrap();
    let answer = Arc::clone(&status);
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let mut request = [0; 1024];
            let _ = connection.read(&mut request);
            let code = answer.load(Ordering::Relaxed);
            let _ =
                write!(connection, "HTTP/1.1 {code} told\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    status
}

#[test]
fn an_unhealthy_data_plane_withdraws_its_node_and_a_flag_ignores_the_exclude_label() {
    let setup = Setup::new("speaker-health");
    let _router = setup.router();
    let health = serve_health(&setup.lab, &node(2));
    let speakers = [setup.speaker(1), setup.speaker(2), setup.speaker_with(3, &["--ignore-exclude-label"])];
    setup.services(1..=2);
    setup.await_hops(1, &ALL);
    for number in ALL {
        setup.await_ready(number);
    }
    health.store(503, Ordering::Relaxed);
    setup.await_hops(1, &[1, 3]);
    let status = ("speakerstatuses.network.kubesphere.io", "", "node-2");
    let (told, _) = setup
        .kube
        .wait_for(status, Duration::from_secs(15), |status| status["status"]["announcedAddresses"] == 0)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", Lab::log_tail(&speakers[1], 30)));

    assert_eq!(told["status"]["establishedSessions"], 1, "the session stays: {told:#}");
    health.store(200, Ordering::Relaxed);
    setup.await_hops(1, &ALL);

    let label = "node.kubernetes.io/exclude-from-external-load-balancers=";
    for number in [1, 3] {
        setup.kube.kubectl(&["label", "node", &node(number), label]).unwrap();
    }
    setup.await_hops(1, &[2, 3]);
    setup.await_hops(2, &[2, 3]);
}
