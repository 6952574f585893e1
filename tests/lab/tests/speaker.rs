//! `openelbd speaker` on the nodes of a lab, with a real API server: Services have addresses that are written by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
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
    kube::{CONTROL, CONTROL_V4, CONTROL_V6, ControlPlane, Options, Ready, node_object},
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
        kube.apply_crds().unwrap();
        kube.apply("{apiVersion: v1, kind: Namespace, metadata: {name: openelb-system}}").unwrap();
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

    fn speaker_with(&self, number: u8, more: &[&str]) -> Process {
        let program = binary("openelbd").unwrap();
        let name = node(number);
        let checkpoint = self.checkpoint(number);
        let mut arguments = vec![
            program.to_str().unwrap(),
            "speaker",
            "--kubeconfig",
            self.kube.kubeconfig().to_str().unwrap(),
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

    /// The routes of these Services stay at the router, over these nodes, for so long.
    fn stay(&self, numbers: &[u8], nodes: &[u8], how_long: Duration, what: &str) {
        let wanted: Vec<IpAddr> = nodes.iter().map(|n| node_v4(*n)).collect();
        let began = Instant::now();
        while began.elapsed() < how_long {
            for number in numbers {
                let seen = kernel_next_hops(&self.lab, ROUTER, address(*number)).unwrap();
                assert_eq!(seen, wanted, "{} after {:?} of {what}", address(*number), began.elapsed());
            }
        }
    }

    /// Sessions that ended, and UPDATEs that were sent, on each node.
    fn counts(&self) -> BTreeMap<u8, Counts> {
        NODES.iter().map(|n| (*n, self.counts_of(*n).unwrap())).collect()
    }

    fn counts_of(&self, number: u8) -> anyhow::Result<Counts> {
        let metrics = self.get(number, "/metrics")?;
        let sum = |name: &str, filter: &str| -> u64 {
            metrics
                .lines()
                .filter(|line| line.starts_with(name) && line.contains(filter))
                .map(|line| line.rsplit(' ').next().unwrap().trim_end_matches(".0").parse::<u64>().unwrap())
                .sum()
        };
        Ok(Counts {
            resets: sum("openelb_bgp_sessions_dropped_total", ""),
            updates: sum("openelb_bgp_messages_total", "direction=\"sent\",type=\"update\""),
        })
    }

    /// Waits until the counters of these nodes know of every Service: they are a moment behind the wire.
    fn await_counted(&self, nodes: &[u8]) {
        let services = self.kube.list("services").unwrap();
        let announced = services.iter().filter(|s| s["status"]["loadBalancer"]["ingress"].is_array()).count();
        for number in nodes {
            eventually(&format!("{announced} routes in the counters of node-{number}"), DEADLINE, || {
                let metrics = self.get(*number, "/metrics")?;
                let line = |line: &&str| {
                    line.starts_with("openelb_bgp_routes_advertised{peer=\"router\"") && line.contains("ipv4")
                };
                let advertised = metrics.lines().find(line).unwrap_or_default();
                anyhow::ensure!(advertised.ends_with(&format!(" {announced}.0")), "{advertised}");
                Ok(Some(()))
            })
            .unwrap();
        }
    }

    /// The cost of a change: it is over when a Service that is made after it is at the router, over these nodes.
    fn cost(&self, marker: &mut u8, nodes: &[u8], change: impl FnOnce()) -> BTreeMap<u8, Counts> {
        let before = self.counts();
        change();
        *marker += 1;
        self.services(std::iter::once(*marker));
        self.await_hops(*marker, nodes);
        self.await_counted(nodes);
        let after = self.counts();
        after
            .into_iter()
            .map(|(node, after)| {
                let before = before[&node];
                // The marker's own UPDATE is not the change's.
                let own = u64::from(nodes.contains(&node));
                let updates = (after.updates - before.updates).saturating_sub(own);
                (node, Counts { resets: after.resets - before.resets, updates })
            })
            .collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    resets: u64,
    updates: u64,
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

#[test]
fn a_change_touches_only_what_it_must() {
    let setup = Setup::new("speaker-reload");
    let router = setup.router();
    let _speakers: Vec<Process> = NODES.iter().map(|n| setup.speaker(*n)).collect();
    setup.services(1..=40);
    for number in [1, 40] {
        setup.await_hops(number, &ALL);
    }
    for number in ALL {
        setup.await_ready(number);
    }
    // Each speaker has said that it is there: nobody announces for another.
    for number in ALL {
        let object = ("speakerstatuses.network.kubesphere.io", "", &*node(number));
        let (status, _) = setup
            .kube
            .wait_for(object, DEADLINE, |status| status["status"]["announcedAddresses"] == 40)
            .unwrap();
        assert_eq!(status["status"]["establishedSessions"], 1, "{status:#}");
        assert_eq!(status["metadata"]["ownerReferences"][0]["kind"], "Node", "{status:#}");
    }
    setup.await_counted(&ALL);
    let mut marker = 100;
    let nothing = Counts { resets: 0, updates: 0 };
    let patch = |kind: &str, name: &str, patch: Value| {
        let plural = format!("{kind}.network.kubesphere.io");
        setup.kube.patch(&plural, "", name, None, &patch).unwrap();
    };

    // What means nothing for announcements costs nothing.
    type Change<'a> = (&'static str, Box<dyn Fn() + 'a>);
    let idle: Vec<Change<'_>> = vec![
        (
            "an annotation of a Service",
            Box::new(|| {
                let patch = json!({"metadata": {"annotations": {"team": "a"}}});
                setup.kube.patch("services", "default", "service-1", None, &patch).unwrap();
            }),
        ),
        ("the priority of an Eip", Box::new(|| patch("eips", "pool", json!({"spec": {"priority": 7}})))),
        (
            "the description of a BgpPeer",
            Box::new(|| {
                patch("bgppeers", "router", json!({"spec": {"conf": {"description": "top of rack"}}}));
            }),
        ),
        (
            "an AS number of a rack without nodes",
            Box::new(|| patch("bgpconfs", "default", json!({"spec": {"asPerRack": {"nowhere": 64999}}}))),
        ),
        (
            "another label of a Node",
            Box::new(|| {
                setup
                    .kube
                    .patch("nodes", "", "node-2", None, &json!({"metadata": {"labels": {"zone": "a"}}}))
                    .unwrap();
            }),
        ),
    ];
    for (what, change) in idle {
        let cost = setup.cost(&mut marker, &ALL, change);
        assert!(cost.values().all(|cost| *cost == nothing), "{what}: {cost:?}");
    }

    // One Service: one UPDATE of each node.
    let cost = setup.cost(&mut marker, &ALL, || {
        setup.kube.kubectl(&["delete", "service", "service-40", "--wait=false"]).unwrap();
        setup.await_hops(40, &[]);
        // With the marker there are as many as before: that both are counted could not be told.
        setup.await_counted(&ALL);
    });
    assert!(cost.values().all(|cost| *cost == Counts { resets: 0, updates: 1 }), "{cost:?}");

    // Communities: every route again, in few messages and in the same sessions.
    let rules = json!({"spec": {"advertisements": [{"communities": ["64501:7"]}]}});
    let cost = setup.cost(&mut marker, &ALL, || {
        patch("bgppeers", "router", rules);
        eventually("the community on each path", DEADLINE, || {
            let shown = router.ask("show route all for 198.51.100.1")?;
            anyhow::ensure!(shown.matches("(64501,7)").count() == 3, "{shown}");
            Ok(Some(()))
        })
        .unwrap();
    });
    assert!(cost.values().all(|cost| cost.resets == 0 && (1..=6).contains(&cost.updates)), "{cost:?}");

    aggregation(&setup, &router);

    // Another neighbour, that is not there: nothing in the sessions that are.
    let other = json!({"conf": {"neighborAddress": "192.168.50.99", "peerAs": 64513}});
    let cost = setup.cost(&mut marker, &ALL, || setup.apply(&ours("BgpPeer", "other", &other)));
    assert!(cost.values().all(|cost| *cost == nothing), "{cost:?}");

    // A pool that others announce: withdrawn in few messages.
    let cost = setup.cost(&mut marker, &ALL, || {
        patch("eips", "pool", json!({"spec": {"protocol": "none"}}));
        setup.await_hops(1, &[]);
        patch("eips", "pool", json!({"spec": {"protocol": "bgp"}}));
        setup.await_hops(1, &ALL);
    });
    assert!(cost.values().all(|cost| cost.resets == 0 && (2..=12).contains(&cost.updates)), "{cost:?}");

    // A node that is excluded, and comes back: only its own routes.
    let exclude = |value: Value| {
        let labels = json!({"node.kubernetes.io/exclude-from-external-load-balancers": value});
        setup.kube.patch("nodes", "", "node-3", None, &json!({"metadata": {"labels": labels}})).unwrap();
    };
    let cost = setup.cost(&mut marker, &ALL, || {
        exclude(json!(""));
        setup.await_hops(1, &[1, 2]);
        exclude(json!(null));
        setup.await_hops(1, &ALL);
    });
    assert_eq!((cost[&1], cost[&2]), (nothing, nothing), "{cost:?}");
    assert!(cost[&3].resets == 0 && (2..=12).contains(&cost[&3].updates), "{cost:?}");

    // The rack of a node, with an AS number of its own: its session alone, since that is in the OPEN. The router takes
    // this number from nobody.
    patch("bgpconfs", "default", json!({"spec": {"asPerRack": {"leaf": 64502}}}));
    let cost = setup.cost(&mut marker, &[1, 3], || {
        let labels = json!({"metadata": {"labels": {"openelb.kubesphere.io/rack": "leaf"}}});
        setup.kube.patch("nodes", "", "node-2", None, &labels).unwrap();
        setup.await_hops(1, &[1, 3]);
    });
    assert_eq!((cost[&1], cost[&3]), (nothing, nothing), "{cost:?}");
    assert_eq!(cost[&2].resets, 1, "{cost:?}");
}

/// One prefix in the place of all addresses, and back: in few messages and in the same sessions. While an address in it
/// lives, those that go cost nothing.
fn aggregation(setup: &Setup, router: &Bird<'_>) {
    let before = setup.counts();
    let rules = |rules: Value| {
        let patch = json!({"spec": {"advertisements": rules}});
        setup.kube.patch("bgppeers.network.kubesphere.io", "", "router", None, &patch).unwrap();
    };
    let speaker = ("speakerstatuses.network.kubesphere.io", "", "node-1");
    let announced = |status: &Value| status["status"]["announcedAddresses"].as_i64().unwrap_or_default();
    let addresses = announced(&setup.kube.get(speaker.0, speaker.1, speaker.2).unwrap());

    rules(json!([{"communities": ["64501:7"], "aggregationLength": 24}]));
    eventually("the aggregate alone", DEADLINE, || {
        let shown = router.ask("show route")?;
        let paths = shown.lines().filter(|line| line.trim_start().starts_with("via ")).count();
        anyhow::ensure!(shown.contains("198.51.100.0/24") && !shown.contains("/32") && paths == 3, "{shown}");
        Ok(Some(()))
    })
    .unwrap();
    let aggregated = setup.counts();
    setup.kube.kubectl(&["delete", "service", "service-39", "--wait=false"]).unwrap();
    setup.kube.wait_for(speaker, DEADLINE, |status| announced(status) == addresses - 1).unwrap();
    for (node, counts) in setup.counts() {
        assert_eq!(counts, aggregated[&node], "node-{node}: an address of many in the aggregate");
    }
    rules(json!([{"communities": ["64501:7"]}]));
    setup.await_hops(1, &ALL);
    setup.await_hops(39, &[]);
    setup.await_counted(&ALL);
    assert!(!router.ask("show route").unwrap().contains("198.51.100.0/24"));
    for (node, after) in setup.counts() {
        let (resets, updates) = (after.resets - before[&node].resets, after.updates - before[&node].updates);
        assert!(
            resets == 0 && (2..=12).contains(&updates),
            "node-{node}: {resets} resets, {updates} UPDATEs"
        );
    }
}

#[test]
fn routes_stay_for_a_minute_without_ready_nodes() {
    let setup = Setup::new("speaker-hiccup");
    let _router = setup.router();
    // The speakers announce for each other: this is where a node that is not Ready might be left out.
    let mode = json!({"spec": {"nextHopMode": "AllNodes"}});
    setup.kube.patch("bgpconfs.network.kubesphere.io", "", "default", None, &mode).unwrap();
    let _speakers: Vec<Process> = NODES.iter().map(|n| setup.speaker(*n)).collect();
    setup.services(1..=5);
    for number in 1..=5 {
        setup.await_hops(number, &ALL);
    }
    for number in ALL {
        setup.await_ready(number);
    }

    // The control plane loses sight of one node after the other.
    let before = setup.counts();
    let not_ready: Vec<String> = NODES
        .iter()
        .map(|n| node_object(&node(*n), &[node_v4(*n), node_v6(*n)], &[], Ready::False).to_string())
        .collect();
    setup.kube.replace_status(&not_ready.join("\n---\n")).unwrap();
    setup.stay(&[1, 2, 3, 4, 5], &ALL, MINUTE, "nodes that are not Ready");
    // New Services are announced meanwhile.
    setup.services(6..=6);
    setup.await_hops(6, &ALL);
    let ready: Vec<String> = not_ready.iter().map(|node| node.replace("\"False\"", "\"True\"")).collect();
    setup.kube.replace_status(&ready.join("\n---\n")).unwrap();
    setup.services(7..=7);
    setup.await_hops(7, &ALL);
    for number in ALL {
        assert_eq!(setup.counts()[&number].resets, before[&number].resets);
    }
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
    setup.stay(&[1, 2, 3, 4, 5, 6], &ALL, MINUTE, "no API server");
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
    let controller = [
        program.to_str().unwrap(),
        "controller",
        "--kubeconfig",
        setup.kube.kubeconfig().to_str().unwrap(),
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

    // There is no DaemonSet: a speaker that is asked to end does not come back. It withdraws, and says that it is gone;
    // then the other one announces its node.
    setup.lab.signal(&second, "TERM").unwrap();
    setup.lab.wait_exit(&second, Duration::from_secs(15)).unwrap();
    let gone = setup.kube.get("speakerstatuses.network.kubesphere.io", "", "node-2");
    assert!(gone.is_err(), "{gone:?}");
    setup.await_hops(1, &ALL);
    setup.kube.wait_for(peer, DEADLINE, |peer| sessions(peer) == BTreeSet::from([node(1)])).unwrap();

    // Policy Local: nobody has an endpoint, so nobody announces; then node-2 has one.
    setup.kube.create_objects(&[service(9, "Local")]).unwrap();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "service-9", "labels": {"kubernetes.io/service-name": "service-9"}},
        "endpoints": [{"addresses": ["10.244.2.10"], "nodeName": "node-2", "conditions": {"ready": true}}],
    });
    setup.apply(&slice);
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
