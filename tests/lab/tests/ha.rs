//! Any one of controllers and speakers dies: addresses stay, routes stay, connections live.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use openelb_lab::{
    Lab, Process, binary,
    bird::kernel_next_hops,
    client, eventually,
    kube::{Cluster, NAMESPACE, Place, ProxyMode},
    topology::{self, CLIENT, NODES, ROUTER, node, node_v4, node_v6},
};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(60);
/// The Service of the API server, as nodes with kube-proxy reach it.
const API_SERVICE: ([u8; 4], u16) = ([10, 96, 0, 1], 443);
const REPLICAS: [u8; 2] = [1, 2];
const DOWNLOADS: usize = 12;
/// Lines of a download, one every tenth of a second.
const LINES: usize = 60;
/// How long the router is watched after a death: longer than anything takes that could go wrong at once.
const WATCHED: Duration = Duration::from_secs(3);

const OBJECTS: &str = "
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: pool, annotations: {eip.openelb.kubesphere.io/is-default-eip: 'true'}}
spec: {address: 198.51.100.0/28, protocol: bgp}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpConf
metadata: {name: default}
spec: {as: 64501, nextHopMode: AllNodes}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata: {name: router}
spec: {conf: {neighborAddress: 192.168.50.1, peerAs: 64512}}
";

struct Setup {
    cluster: Cluster,
    program: PathBuf,
}

impl Setup {
    fn new(name: &str) -> Self {
        let cluster = Cluster::start(name, ProxyMode::Nftables).unwrap();
        cluster
            .lab
            .network(|network| {
                for n in REPLICAS {
                    let host = format!("controller-{n}");
                    network.host(&host);
                    network.plug("podnet", (&host, "eth0", &[&format!("172.30.0.2{n}/24")]));
                }
            })
            .unwrap();
        cluster.kube.install().unwrap();
        Self { cluster, program: binary("openelbd").unwrap() }
    }

    fn lab(&self) -> &Lab {
        &self.cluster.lab
    }

    fn ready(&self, process: Process, host: &str, port: u16) -> Process {
        let target = SocketAddr::from(([127, 0, 0, 1], port));
        eventually(&format!("a ready process on {host}"), DEADLINE, || {
            let (status, body) = client::get(self.lab(), host, target, "/readyz")?;
            anyhow::ensure!(status == 200, "{status} {body}");
            Ok(Some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", Lab::log_tail(&process, 10)));
        process
    }

    fn controller(&self, n: u8) -> Process {
        let host = format!("controller-{n}");
        let place = Place { host: &host, node: &node(n), api: self.cluster.kube.address() };
        let what = ("deployments", NAMESPACE, "openelb-controller");
        let process = self.cluster.kube.start_workload(what, &self.program, place).unwrap();
        self.ready(process, &host, 50052)
    }

    fn speaker(&self, n: u8) -> Process {
        let host = node(n);
        let place = Place { host: &host, node: &host, api: API_SERVICE.into() };
        let what = ("daemonsets", NAMESPACE, "openelb-speaker");
        let process = self.cluster.kube.start_workload(what, &self.program, place).unwrap();
        self.ready(process, &host, 50053)
    }

    fn addresses(&self) -> Vec<IpAddr> {
        let address = |number: usize| {
            let service = self.cluster.kube.get("services", "default", &format!("web-{number}"))?;
            let ip = service.pointer("/status/loadBalancer/ingress/0/ip").and_then(|ip| ip.as_str());
            Ok(ip.and_then(|ip| ip.parse().ok()))
        };
        let all: anyhow::Result<Option<Vec<IpAddr>>> = (0..3).map(address).collect();
        all.unwrap().unwrap_or_default()
    }

    /// Three Services that have their addresses.
    fn three_services(&self) -> Vec<IpAddr> {
        for number in 0..3 {
            let service = format!(
                "{{apiVersion: v1, kind: Service, metadata: {{name: web-{number}, namespace: default, \
                 annotations: {{lb.kubesphere.io/v1alpha1: openelb}}}}, spec: {{type: LoadBalancer, \
                 ipFamilies: [IPv4], selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}}}"
            );
            self.cluster.kube.apply(&service).unwrap();
        }
        let assigned = || Ok(Some(self.addresses()).filter(|addresses| addresses.len() == 3));
        eventually("addresses of three Services", DEADLINE, assigned).unwrap().0
    }

    fn leader(&self) -> Option<u8> {
        let lease = self.cluster.kube.get("leases", NAMESPACE, "openelb-controller").ok()?;
        let holder = lease.pointer("/spec/holderIdentity")?.as_str()?.to_owned();
        REPLICAS.into_iter().find(|n| holder.contains(&format!("controller-{n}")))
    }

    fn hops(&self, address: IpAddr) -> Vec<IpAddr> {
        kernel_next_hops(self.lab(), ROUTER, address).unwrap()
    }

    fn await_hops(&self, addresses: &[IpAddr], wanted: &[IpAddr]) {
        for address in addresses {
            eventually(&format!("{address} over {wanted:?}"), DEADLINE, || {
                let seen = self.hops(*address);
                anyhow::ensure!(seen == wanted, "it goes over {seen:?}");
                Ok(Some(()))
            })
            .unwrap();
        }
    }

    /// Kills a process while downloads run, and watches the router: every address keeps all next hops at every moment,
    /// and every download ends as it should.
    fn kill(&self, victim: &Process, addresses: &[IpAddr], wanted: &[IpAddr]) {
        let what = &victim.name;
        let downloads = Downloads::start(self.lab(), what, addresses);
        self.lab().signal(victim, "KILL").unwrap();
        let began = Instant::now();
        let mut looks = 0;
        while began.elapsed() < WATCHED || looks <= 10 {
            for address in addresses {
                assert_eq!(
                    self.hops(*address),
                    wanted,
                    "{address} after {:?} without {what}",
                    began.elapsed()
                );
            }
            looks += 1;
        }
        downloads.finish(what);
        assert_eq!(self.addresses(), addresses, "after the death of {what}");
    }
}

/// Answers that take their time.
struct Downloads {
    files: Vec<PathBuf>,
}

impl Downloads {
    /// Starts them, and waits until each has begun to arrive.
    fn start(lab: &Lab, name: &str, addresses: &[IpAddr]) -> Self {
        let mut files = Vec::new();
        for number in 0..DOWNLOADS {
            let address = addresses[number % addresses.len()];
            let file = lab.path().join(format!("download-{name}-{number}"));
            let url = format!("http://{address}/slow?chunks={LINES}&interval-ms=100");
            let output = file.to_string_lossy().into_owned();
            let curl = ["curl", "-sS", "-N", "--max-time", "60", "-o", &output, &url];
            lab.spawn(&format!("curl-{name}-{number}"), CLIENT, &curl).unwrap();
            files.push(file);
        }
        let downloads = Self { files };
        eventually("downloads that have begun", DEADLINE, || {
            Ok(downloads.lines().iter().all(|lines| *lines > 0).then_some(()))
        })
        .unwrap();
        downloads
    }

    fn lines(&self) -> Vec<usize> {
        let count = |file: &PathBuf| fs::read_to_string(file).map_or(0, |text| text.lines().count());
        self.files.iter().map(count).collect()
    }

    fn finish(&self, what: &str) {
        eventually(&format!("the ends of all downloads through the death of {what}"), DEADLINE, || {
            let lines = self.lines();
            anyhow::ensure!(lines.iter().all(|lines| *lines == LINES), "lines: {lines:?}");
            Ok(Some(()))
        })
        .unwrap();
    }
}

#[test]
fn any_one_dies_and_addresses_routes_and_connections_stay() {
    let setup = Setup::new("ha");
    let router = topology::start_router(setup.lab()).unwrap();
    let mut controllers: Vec<Process> = REPLICAS.iter().map(|n| setup.controller(*n)).collect();
    let mut speakers: Vec<Process> = NODES.iter().map(|n| setup.speaker(*n)).collect();
    setup.cluster.kube.apply(OBJECTS).unwrap();
    let addresses = setup.three_services();
    let wanted: Vec<IpAddr> = NODES.iter().map(|n| node_v4(*n)).collect();
    setup.await_hops(&addresses, &wanted);
    // Each speaker announces all nodes: three sessions, nine routes for each address.
    for address in &addresses {
        eventually("kube-proxy's rules", DEADLINE, || {
            let target = format!("http://{address}/");
            Ok(setup.lab().run(CLIENT, &["curl", "-sS", "--max-time", "1", &target]).ok())
        })
        .unwrap();
        eventually("nine routes", DEADLINE, || {
            let told = router.ask(&format!("show route for {address}"))?;
            let routes = told.lines().filter(|line| line.trim_start().starts_with("via ")).count();
            anyhow::ensure!(routes == 9, "{told}");
            Ok(Some(()))
        })
        .unwrap();
    }

    the_read_api_tells_what_is(&setup, &addresses);

    for (index, n) in NODES.into_iter().enumerate() {
        setup.kill(&speakers[index], &addresses, &wanted);
        speakers[index] = setup.speaker(n);
        // Before the next one goes, this one announces again.
        eventually("nine routes", DEADLINE, || {
            let told = router.ask(&format!("show route for {}", addresses[0]))?;
            let routes = told.lines().filter(|line| line.trim_start().starts_with("via ")).count();
            anyhow::ensure!(routes == 9, "{told}");
            Ok(Some(()))
        })
        .unwrap();
    }
    for _ in REPLICAS {
        // Whoever leads; then the other one.
        let (leads, _) = eventually("a leader", DEADLINE, || Ok(setup.leader())).unwrap();
        let index = usize::from(leads) - 1;
        setup.kill(&controllers[index], &addresses, &wanted);
        eventually("another leader", DEADLINE, || Ok(setup.leader().filter(|leader| *leader != leads)))
            .unwrap();
        controllers[index] = setup.controller(leads);
    }
    assert_eq!(setup.addresses(), addresses);
}

const LAYER2: &str = "
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: pool, annotations: {eip.openelb.kubesphere.io/is-default-eip: 'true'}}
spec: {address: 192.168.50.200-192.168.50.209, protocol: layer2, interface: 'can_reach:192.168.50.1'}
";

impl Setup {
    /// The node whose speaker says that it answers for the address, and no other says so.
    fn owner(&self, address: IpAddr) -> anyhow::Result<Option<u8>> {
        let mut owners = Vec::new();
        for n in NODES {
            let status = self.cluster.kube.get("speakerstatuses", "", &node(n))?;
            let owned = status.pointer("/status/layer2Addresses").and_then(|all| all.as_array()).cloned();
            if owned.unwrap_or_default().contains(&address.to_string().into()) {
                owners.push(n);
            }
        }
        Ok(if let [owner] = owners[..] { Some(owner) } else { None })
    }

    /// The MAC address that the router learns by asking.
    fn answer(&self, address: IpAddr) -> anyhow::Result<Option<String>> {
        let ask = ["arping", "-c", "1", "-w", "2", "-I", "fab0", &address.to_string()];
        let output = self.lab().command(ROUTER, &ask).output()?;
        let seen = String::from_utf8_lossy(&output.stdout).to_lowercase();
        let mac = seen.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        Ok(mac.map(|(mac, _)| mac.to_owned()))
    }

    fn is_of(&self, mac: &str, n: u8) -> anyhow::Result<bool> {
        Ok(self.lab().run(&node(n), &["ip", "link", "show", "dev", "fab0"])?.contains(mac))
    }

    /// The owner's SpeakerStatus has the interface, the MAC address that the router learns, and since when; and so does the
    /// plugin.
    fn shows_how_it_is_answered(&self, address: IpAddr, owner: u8) {
        let plugin = self.lab().path().join("kubectl-openelb");
        if !plugin.exists() {
            std::os::unix::fs::symlink(&self.program, &plugin).unwrap();
        }
        let kubeconfig = self.cluster.kube.kubeconfig().to_str().unwrap();
        let services = [plugin.to_str().unwrap(), "services", "--kubeconfig", kubeconfig];
        eventually(&format!("how {address} is answered"), DEADLINE, || {
            let Some(mac) = self.answer(address)? else { return Ok(None) };
            anyhow::ensure!(self.is_of(&mac, owner)?, "{mac} is not that of {}", node(owner));
            let status = self.cluster.kube.get("speakerstatuses", "", &node(owner))?;
            let answers = status.pointer("/status/layer2Answers").and_then(Value::as_array).cloned();
            let of_address = |one: &Value| one["address"] == address.to_string();
            let Some(answer) = answers.into_iter().flatten().find(of_address) else {
                anyhow::bail!("{status:#}");
            };
            anyhow::ensure!(answer["interface"] == "fab0" && answer["mac"] == mac, "{answer}");
            let since = answer["since"].as_str().unwrap_or_default();
            anyhow::ensure!(since.parse::<jiff::Timestamp>().is_ok(), "{answer}");
            let shown = self.lab().run(self.cluster.kube.host(), &services)?;
            let line = shown.lines().find(|line| line.contains(&address.to_string())).unwrap_or_default();
            let words = [&node(owner), "fab0", &mac, since];
            anyhow::ensure!(words.iter().all(|word| line.contains(word)), "no {words:?} in {shown}");
            Ok(Some(()))
        })
        .unwrap();
    }

    /// There is such an Event on the object.
    fn await_event(&self, (kind, name): (&str, &str), reason: &str, words: &str) {
        eventually(&format!("{reason} on {kind} {name}"), DEADLINE, || {
            let events = self.cluster.kube.list("events.events.k8s.io")?;
            let found = events.iter().any(|event| {
                let of = &event["regarding"];
                (&of["kind"], &of["name"], &event["reason"]) == (&kind.into(), &name.into(), &reason.into())
                    && event["note"].as_str().is_some_and(|note| note.contains(words))
            });
            let seen = || events.iter().map(|event| format!("{} {}", event["reason"], event["note"]));
            anyhow::ensure!(found, "{:#?}", seen().collect::<Vec<_>>());
            Ok(Some(()))
        })
        .unwrap();
    }

    /// Whoever says that it owns the address also answers for it; the owner.
    fn await_owner(&self, address: IpAddr, wanted: impl Fn(u8) -> bool) -> u8 {
        let (owner, _) = eventually(&format!("one owner of {address}"), DEADLINE, || {
            let Some(owner) = self.owner(address)?.filter(|owner| wanted(*owner)) else { return Ok(None) };
            let Some(mac) = self.answer(address)? else { return Ok(None) };
            Ok(self.is_of(&mac, owner)?.then_some(owner))
        })
        .unwrap();
        owner
    }
}

/// Layer 2 with the manifests that are installed: a rollout of the DaemonSet leaves each address where it is and breaks
/// no download, nor does a speaker that is killed; a node that is excluded hands its addresses over.
#[test]
fn a_rollout_of_layer2_speakers_moves_no_address_and_breaks_nothing() {
    let setup = Setup::new("ha-layer2");
    let _controller = setup.controller(1);
    let mut speakers: Vec<Process> = NODES.iter().map(|n| setup.speaker(*n)).collect();
    setup.cluster.kube.apply(LAYER2).unwrap();
    let addresses = setup.three_services();
    let owners: Vec<u8> = addresses.iter().map(|address| setup.await_owner(*address, |_| true)).collect();
    for address in &addresses {
        eventually("kube-proxy's rules", DEADLINE, || {
            let target = format!("http://{address}/");
            Ok(setup.lab().run(CLIENT, &["curl", "-sS", "--max-time", "1", &target]).ok())
        })
        .unwrap();
    }

    for (index, n) in NODES.into_iter().enumerate() {
        for signal in ["TERM", "KILL"] {
            let name = format!("{signal}-{n}");
            let downloads = Downloads::start(setup.lab(), &name, &addresses);
            setup.lab().signal(&speakers[index], signal).unwrap();
            setup.lab().wait_exit(&speakers[index], DEADLINE).unwrap();
            speakers[index] = setup.speaker(n);
            downloads.finish(&name);
            for (address, owner) in addresses.iter().zip(&owners) {
                setup.await_owner(*address, |now| now == *owner);
            }
        }
    }

    setup.shows_how_it_is_answered(addresses[0], owners[0]);
    let (gone, index) = (node(owners[0]), usize::from(owners[0]) - 1);
    setup.lab().signal(&speakers[index], "KILL").unwrap();
    setup.lab().wait_exit(&speakers[index], DEADLINE).unwrap();
    setup.await_event(("Service", "web-0"), "StandIn", &format!("answers for {}", addresses[0]));
    setup.await_event(("Node", &gone), "SpeakerDown", &format!("the speaker of {gone} does not answer"));
    speakers[index] = setup.speaker(owners[0]);
    setup.await_event(("Node", &gone), "SpeakerUp", &format!("the speaker of {gone} answers"));
    setup.await_owner(addresses[0], |now| now == owners[0]);

    let label = "node.kubernetes.io/exclude-from-external-load-balancers=";
    setup.cluster.kube.kubectl(&["label", "node", &gone, label]).unwrap();
    let next = setup.await_owner(addresses[0], |now| now != owners[0]);
    assert!(NODES.contains(&next));
    let answers = format!("{} answers for {}", node(next), addresses[0]);
    setup.await_event(("Service", "web-0"), "OwnerChanged", &answers);
    setup.shows_how_it_is_answered(addresses[0], next);
    assert_eq!(setup.addresses(), addresses);
}

/// Where the read API is, by default, on every host.
const READ_API: ([u8; 4], u16) = ([127, 0, 0, 1], 50054);
const LISTS: [&str; 5] = ["events", "nodes", "peers", "pools", "services"];

/// The items of a list of the read API on a host.
fn items(setup: &Setup, host: &str, list: &str) -> anyhow::Result<Vec<Value>> {
    let (status, body) = client::get(setup.lab(), host, READ_API.into(), &format!("/api/v1/{list}"))?;
    anyhow::ensure!(status == 200, "{status} {body}");
    let answer: Value = serde_json::from_str(&body)?;
    let items = answer["items"].as_array().cloned();
    items.ok_or_else(|| anyhow::anyhow!("no items: {answer}"))
}

/// Only these fields of an object.
fn only(value: &Value, fields: &[&str]) -> Value {
    fields.iter().map(|field| ((*field).to_owned(), value[*field].clone())).collect()
}

fn sort_by_node(values: &mut [Value]) {
    values.sort_by_key(|value| value["node"].as_str().unwrap_or_default().to_owned());
}

/// Controllers, the one that leads and the one that follows, show the cluster; speakers do, too, and say which node they
/// are on.
fn the_read_api_tells_what_is(setup: &Setup, addresses: &[IpAddr]) {
    let peers = json!([{"neighbor": "192.168.50.1", "advertised": true}]);
    let announced_by =
        |nodes: &[u8]| -> Value { nodes.iter().map(|n| json!({"node": node(*n), "peers": peers})).collect() };
    let session = |n: u8| {
        json!({"name": "router", "node": node(n), "neighbor": "192.168.50.1", "localAs": 64501, "peerAs": 64512,
               "routerId": "192.168.50.1", "state": "ESTABLISHED", "adminDown": false})
    };
    let controllers = REPLICAS.iter().map(|n| (format!("controller-{n}"), None));
    for (host, speaker) in controllers.chain(NODES.iter().map(|n| (node(*n), Some(*n)))) {
        // What speakers say of themselves comes with a delay.
        let told = eventually(&format!("the whole picture in the read API of {host}"), DEADLINE, || {
            let services: Vec<Value> = items(setup, &host, "services")?
                .iter()
                .map(|service| {
                    let of_address = ["address", "protocol", "pool", "announcedBy"];
                    let all = service["addresses"].as_array().into_iter().flatten();
                    let mut all: Vec<Value> = all.map(|address| only(address, &of_address)).collect();
                    for address in &mut all {
                        sort_by_node(address["announcedBy"].as_array_mut().unwrap());
                    }
                    json!([service["namespace"], service["name"], service["reason"], all])
                })
                .collect();
            let wanted: Vec<Value> = addresses
                .iter()
                .enumerate()
                .map(|(number, address)| {
                    let address = json!([{"address": address, "protocol": "bgp", "pool": "pool",
                                          "announcedBy": announced_by(&NODES)}]);
                    json!(["default", format!("web-{number}"), "Assigned", address])
                })
                .collect();
            anyhow::ensure!(services == wanted, "{services:#?}");
            let fields = ["name", "node", "neighbor", "localAs", "peerAs", "routerId", "state", "adminDown"];
            let mut peers: Vec<Value> =
                items(setup, &host, "peers")?.iter().map(|peer| only(peer, &fields)).collect();
            sort_by_node(&mut peers);
            anyhow::ensure!(peers == NODES.map(session), "{peers:#?}");
            Ok(Some(()))
        });
        told.unwrap();
        let nodes: Vec<Value> = NODES
            .iter()
            .map(|n| {
                json!({"name": node(*n), "ready": true, "cordoned": false,
                       "addresses": [node_v4(*n), node_v6(*n)], "self": speaker == Some(*n)})
            })
            .collect();
        assert_eq!(items(setup, &host, "nodes").unwrap(), nodes, "{host}");

        let pools = items(setup, &host, "pools").unwrap();
        assert_eq!(pools.len(), 1, "{host}: {pools:#?}");
        let pool = &pools[0];
        assert_eq!(
            (&pool["name"], &pool["ready"], &pool["default"]),
            (&json!("pool"), &json!(true), &json!(true))
        );
        // A speaker does not follow who holds what.
        if speaker.is_none() {
            let figures = ["poolSize", "usage", "occupied", "firstIP", "lastIP", "deleting"];
            let wanted = json!({"poolSize": 16, "usage": 3, "occupied": false, "deleting": false,
                                "firstIP": "198.51.100.0", "lastIP": "198.51.100.15"});
            assert_eq!(only(pool, &figures), wanted, "{host}");
            let conditions = pool["conditions"].as_array().unwrap();
            let ready = conditions.iter().find(|condition| condition["type"] == "Ready").unwrap();
            assert_eq!(ready["status"], "True", "{host}: {ready}");
        }

        // What does not exist, and what may not be asked.
        let get = |path: &str| client::get(setup.lab(), &host, READ_API.into(), path).unwrap();
        let (status, body) = get("/api/v1/secrets");
        let error: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, 404, "{host}: {body}");
        assert!(LISTS.iter().all(|list| error["error"].as_str().unwrap().contains(list)), "{host}: {body}");
        for path in ["/api/v1/services/default/none", "/api/v1/", "/metrics", "/"] {
            assert_eq!(get(path).0, 404, "{host}{path}");
        }
        let curl = |arguments: &[&str]| {
            let code = [
                "curl",
                "-sS",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "http://127.0.0.1:50054/api/v1/pools",
            ];
            setup.lab().run(&host, &[&code[..], arguments].concat()).unwrap()
        };
        assert_eq!(curl(&["-X", "DELETE"]), "405", "{host}");
        assert_eq!(curl(&["-H", "Host: example.com"]), "421", "{host}");
        assert_eq!(streamed(setup, &host), BTreeSet::from(LISTS.map(str::to_owned)), "{host}");
    }
    // Who decided remembers it.
    let leader = format!("controller-{}", setup.leader().unwrap());
    let events = items(setup, &leader, "events").unwrap();
    for (number, address) in addresses.iter().enumerate() {
        let name = format!("web-{number}");
        let told = |event: &&Value| event["name"] == *name && event["reason"] == "AssignIP";
        let event = events.iter().find(told).unwrap_or_else(|| panic!("{name}: {events:#?}"));
        let fields = only(event, &["kind", "namespace", "type"]);
        assert_eq!(fields, json!({"kind": "Service", "namespace": "default", "type": "Normal"}));
        assert!(event["message"].as_str().unwrap().contains(&address.to_string()), "{event}");
    }
}

/// The names of the events with which the stream begins: one for each list, with its items.
fn streamed(setup: &Setup, host: &str) -> BTreeSet<String> {
    let lists = setup.lab().within(host, || -> anyhow::Result<BTreeSet<String>> {
        let mut stream = TcpStream::connect(SocketAddr::from(READ_API))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut lines = BufReader::new(stream).lines();
        let mut found = BTreeSet::new();
        while found.len() < LISTS.len() {
            let mut field = |name: &str| -> anyhow::Result<String> {
                loop {
                    let line = lines.next().ok_or_else(|| anyhow::anyhow!("the stream ended"))??;
                    if let Some(value) = line.strip_prefix(name) {
                        return Ok(value.to_owned());
                    }
                }
            };
            let list = field("event: ")?;
            let data: Value = serde_json::from_str(&field("data: ")?)?;
            anyhow::ensure!(data["items"].is_array(), "{list}: {data}");
            found.insert(list);
        }
        Ok(found)
    });
    lists.unwrap().unwrap()
}
