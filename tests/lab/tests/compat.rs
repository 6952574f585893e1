//! Manifests as users of the Go OpenELB have them, against a real API server, controller, speakers and router.
//!
//! They are in `tests/compat`, with a list of the fields, annotations, labels and cases that they must have among them:
//! `contract.txt`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod manifests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use manifests::{
    Contract, condition, directory, documents, files, get, is_within, meets, read, validation_errors,
};
use openelb_lab::{
    Lab, Process, binary,
    bird::Bird,
    eventually,
    kube::{CONTROL, CONTROL_V4, CONTROL_V6, ControlPlane, Options, Ready, node_object},
    topology::{self, NODES, ROUTER, node, node_v4, node_v6},
};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(90);

/// What becomes of a Service.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// It has these addresses, announced by every node.
    Has(&'static [&'static str]),
    /// It has this address, announced by these nodes.
    Over(&'static str, &'static [u8]),
    /// It has this address, and one node answers ARP for it.
    Answered(&'static str),
    /// It has this address; nobody announces it yet, and the Eip says why.
    Silent(&'static str),
    /// It has this address, announced by every node, and not all that it would have.
    Partly(&'static str),
    /// It has none, for this reason.
    Waits(&'static str),
    /// It is not ours.
    Untouched,
}

use Expect::{Answered, Has, Over, Partly, Silent, Untouched, Waits};

/// A manifest with an Eip and Services.
struct Row {
    file: &'static str,
    /// What becomes of its Services, by namespace and name.
    services: &'static [(&'static str, Expect)],
    /// The fields that `openelbd validate` finds an error in: those that leave a Service without address for good.
    errors: &'static [&'static str],
}

const fn row(file: &'static str, services: &'static [(&'static str, Expect)]) -> Row {
    Row { file, services, errors: &[] }
}

/// Every manifest of the directory itself.
const ROWS: &[Row] = &[
    row("eip-single-ipv4.yaml", &[("default/single-ipv4", Has(&["10.100.1.1"]))]),
    row("eip-single-ipv6.yaml", &[("default/single-ipv6", Has(&["fd00:100:2::1"]))]),
    row("eip-cidr-ipv4.yaml", &[("default/cidr-ipv4", Has(&["10.100.3.0"]))]),
    row("eip-range-ipv4.yaml", &[("default/range-ipv4", Has(&["10.100.4.50"]))]),
    row("eip-mask-ipv4.yaml", &[("default/mask-ipv4", Has(&["10.100.5.0"]))]),
    row("eip-range-ipv6.yaml", &[("default/range-ipv6", Has(&["fd00:100:6::5"]))]),
    row("eip-cidr-ipv6.yaml", &[("default/cidr-ipv6", Has(&["fd00:100:7::"]))]),
    row("eip-layer2.yaml", &[("default/layer2-pool", Answered("10.100.8.10"))]),
    row("eip-layer2-can-reach.yaml", &[("default/layer2-can-reach", Over("10.100.9.10", &[]))]),
    row("eip-vip.yaml", &[("default/vip-pool", Silent("10.100.10.100"))]),
    row("eip-disabled.yaml", &[("default/disabled", Waits("PoolDisabled"))]),
    row("eip-using-known-ips.yaml", &[("default/using-known-ips", Has(&["10.100.12.1"]))]),
    row(
        "eip-priority.yaml",
        &[
            ("priority/a", Has(&["10.100.13.2"])),
            ("priority/b", Has(&["10.100.13.1"])),
            ("priority/c", Waits("PoolExhausted")),
        ],
    ),
    row(
        "eip-namespaces.yaml",
        &[("bound/auto", Has(&["10.100.14.1"])), ("default/not-bound", Has(&["10.100.14.2"]))],
    ),
    row("eip-namespace-selector.yaml", &[("selected/auto", Has(&["10.100.15.1"]))]),
    row("eip-default.yaml", &[("default/from-the-default", Has(&["10.100.16.0"]))]),
    row("eip-cni.yaml", &[("default/cni", Has(&["10.100.17.1"]))]),
    row("eip-v1alpha1.yaml", &[("default/old-version", Has(&["10.100.18.1"]))]),
    row(
        "service-pool-and-load-balancer-ip.yaml",
        &[("default/pool-and-ip", Has(&["10.100.20.50"])), ("default/only-ip", Has(&["10.100.20.51"]))],
    ),
    row("service-address-annotation-wins.yaml", &[("default/annotation-wins", Has(&["10.100.21.100"]))]),
    row(
        "service-local.yaml",
        &[
            ("default/local", Over("10.100.22.1", &[2])),
            ("default/local-without-endpoints", Over("10.100.22.2", &[])),
        ],
    ),
    row(
        "service-shared.yaml",
        &[
            ("default/shared-http", Has(&["10.100.23.100"])),
            ("default/shared-https", Has(&["10.100.23.100"])),
            ("default/shared-same-port", Waits("SharingConflict")),
        ],
    ),
    row(
        "service-shared-across-namespaces.yaml",
        &[
            ("sharing-a/across", Has(&["10.100.24.100"])),
            ("sharing-b/across", Waits("SharingConflict")),
            ("sharing-a/across-by-address", Has(&["10.100.25.100"])),
            ("sharing-b/across-by-address", Has(&["10.100.25.100"])),
        ],
    ),
    row(
        "service-old-annotations.yaml",
        &[("default/old-annotations", Has(&["10.100.26.1"])), ("default/porter", Untouched)],
    ),
    Row {
        file: "service-node-proxy.yaml",
        services: &[
            ("default/node-proxy-deployment", Waits("NodeProxyUnsupported")),
            ("default/node-proxy-daemonset", Waits("NodeProxyUnsupported")),
        ],
        errors: &["metadata.annotations[node-proxy.openelb.kubesphere.io/type]"],
    },
    row(
        "service-other-fields.yaml",
        &[("default/other-fields", Has(&["10.100.27.1"])), ("default/other-class", Untouched)],
    ),
    row(
        "service-not-ours.yaml",
        &[
            ("default/cluster-ip", Untouched),
            ("default/without-annotation", Untouched),
            ("default/another-value", Untouched),
        ],
    ),
    Row {
        file: "service-refused.yaml",
        services: &[
            ("default/unknown-pool", Waits("PoolNotFound")),
            ("default/outside", Waits("AddressOutsidePools")),
            ("default/outside-of-the-pool", Waits("AddressOutsidePools")),
            ("default/not-an-address", Waits("InvalidRequest")),
            ("default/full-1", Has(&["10.100.28.1"])),
            ("default/full-2", Has(&["10.100.28.2"])),
            ("default/full-3", Waits("PoolExhausted")),
            ("default/different-family", Waits("FamilyUnavailable")),
        ],
        errors: &["metadata.annotations[eip.openelb.kubesphere.io/v1alpha1]"],
    },
    row(
        "service-dual-stack.yaml",
        &[
            ("default/dual-one-pool", Partly("10.100.29.1")),
            ("default/dual-two-pools", Has(&["fd00:100:29::1", "10.100.29.2"])),
        ],
    ),
    row(
        "ipv6-everything.yaml",
        &[
            ("six/auto", Has(&["fd00:100:31::"])),
            ("six/load-balancer-ip", Has(&["fd00:100:30::1"])),
            ("six/shared-1", Has(&["fd00:100:31::2"])),
            ("six/shared-2", Has(&["fd00:100:31::2"])),
        ],
    ),
    row("cluster-objects.yaml", &[]),
];

/// A manifest of a BgpConf or BgpPeer.
struct Session {
    file: &'static str,
    name: &'static str,
    /// Status and reason of `Ready`.
    ready: (&'static str, &'static str),
    /// Some of what `SettingsApplied` says has no effect; what a later version does is not named here.
    unapplied: &'static [&'static str],
    /// The nodes with an established session, of a BgpPeer.
    established: &'static [u8],
    /// The fields that `openelbd validate` finds an error in.
    errors: &'static [&'static str],
}

const fn session(file: &'static str, name: &'static str, ready: (&'static str, &'static str)) -> Session {
    Session { file, name, ready, unapplied: &[], established: &[], errors: &[] }
}

const IN_FORCE: (&str, &str) = ("True", "Ready");
const INVALID: (&str, &str) = ("False", "InvalidSpec");

/// In this order, one after another: all but one are the object `default`.
const CONFS: &[Session] = &[
    session("bgpconf/docs.yaml", "default", IN_FORCE),
    session("bgpconf/router-id.yaml", "default", IN_FORCE),
    Session {
        unapplied: &["spec.families", "spec.useMultiplePaths"],
        ..session("bgpconf/every-field.yaml", "default", IN_FORCE)
    },
    session("bgpconf/rack.yaml", "default", IN_FORCE),
    session("bgpconf/another-name.yaml", "another", ("False", "NotHonoured")),
    session("bgpconf/cni.yaml", "calico", ("False", "NotHonoured")),
    Session { errors: &["spec.as"], ..session("bgpconf/empty.yaml", "empty", ("False", "NotHonoured")) },
    session("bgpconf/v1alpha1.yaml", "old-version", ("False", "NotHonoured")),
];

const PEERS: &[Session] = &[
    Session { established: &[1], ..session("bgppeer/node-selector.yaml", "node-selector", IN_FORCE) },
    Session {
        established: &[2],
        ..session("bgppeer/node-selector-expressions.yaml", "node-selector-expressions", IN_FORCE)
    },
    Session { established: &[3], ..session("bgppeer/rack.yaml", "leaf1", IN_FORCE) },
    Session {
        unapplied: &["spec.conf.peerGroup", "spec.conf.vrf", "spec.transport.tcpMss"],
        ..session("bgppeer/every-field.yaml", "every-field", IN_FORCE)
    },
    session("bgppeer/empty-selector.yaml", "empty-selector", IN_FORCE),
    session("bgppeer/entry-without-config.yaml", "entry-without-config", IN_FORCE),
    session("bgppeer/cni.yaml", "calico", ("False", "CniDuty")),
    Session { errors: &["spec.conf.neighborAddress"], ..session("bgppeer/empty.yaml", "empty", INVALID) },
    session("bgppeer/v1alpha1.yaml", "old-version", INVALID),
];

struct Setup {
    lab: Arc<Lab>,
    kube: ControlPlane,
}

impl Setup {
    fn new() -> Self {
        let lab = Arc::new(topology::start("compat").unwrap());
        lab.network(|network| {
            network.host(CONTROL);
            let (v4, v6) = (format!("{CONTROL_V4}/24"), format!("{CONTROL_V6}/64"));
            network.plug("podnet", (CONTROL, "eth0", &[&v4, &v6]));
        })
        .unwrap();
        for n in NODES {
            // The manifests say eth0, as the Go OpenELB's do.
            let other_name = ["ip", "link", "property", "add", "dev", "fab0", "altname", "eth0"];
            lab.run(&node(n), &other_name).unwrap();
        }
        let kube = ControlPlane::start(&lab, Options { address: CONTROL_V4, ..Options::api_only() }).unwrap();
        kube.install().unwrap();
        let mut nodes: Vec<Value> = NODES
            .iter()
            .map(|n| node_object(&node(*n), &[node_v4(*n), node_v6(*n)], &[], Ready::True))
            .collect();
        nodes[2]["metadata"]["labels"]["openelb.kubesphere.io/rack"] = "leaf1".into();
        kube.create_objects(&nodes).unwrap();
        Self { lab, kube }
    }

    /// BIRD, as a router that takes all addresses of the manifests. One of its neighbours does not connect by itself.
    fn router(&self) -> Bird<'_> {
        let configuration = topology::router_configuration()
            .replace("198.51.100.0/24{24,32}", "10.100.0.0/16{32,32}")
            .replace("fd00:5b::/64{64,128}", "fd00:100::/32{128,128}")
            .replace("neighbor 192.168.50.13 as 64501", "neighbor 192.168.50.13 port 17900 as 64501");
        Bird::start(&self.lab, ROUTER, &configuration).unwrap()
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
        let arguments = ["--node-name", &name, "--checkpoint", checkpoint.to_str().unwrap()];
        self.start("speaker", &name, &arguments)
    }

    /// `kubectl apply` of a file, and that what is stored is what was applied.
    fn apply_unchanged(&self, file: &str) {
        let path = directory().join(file);
        self.kube.apply_path(&path).unwrap_or_else(|error| panic!("{file}: {error:#}"));
        for document in documents(&read(file)) {
            self.stored(file, document);
        }
    }

    fn stored(&self, file: &str, mut applied: Value) {
        // Written only; what it becomes is in `data`.
        applied.as_object_mut().unwrap().remove("stringData");
        // Without conversion, v1alpha1 of these two loses what v1alpha2 does not know: as with the Go OpenELB.
        let old = applied["apiVersion"].as_str().unwrap().ends_with("/v1alpha1");
        if old && applied["kind"] != "Eip" {
            applied.as_object_mut().unwrap().remove("spec");
        }
        let there = get(&self.kube, &applied).unwrap();
        if let Err(path) = is_within(&applied, &there) {
            panic!("{file}: {path} is not stored as it was applied: {there:#}");
        }
    }

    fn validates(&self, file: &str, errors: &[&str]) {
        let wanted: BTreeSet<String> = errors.iter().map(|field| (*field).to_owned()).collect();
        assert_eq!(validation_errors(&self.kube, &directory().join(file)), wanted, "{file}");
    }

    fn object(&self, resource: &str, name: &str) -> anyhow::Result<Value> {
        self.kube.get(&format!("{resource}.network.kubesphere.io"), "", name)
    }
}

/// The nodes that announce each address, from what the router has.
fn announced(router: &Bird<'_>) -> anyhow::Result<BTreeMap<IpAddr, BTreeSet<u8>>> {
    let mut found: BTreeMap<IpAddr, BTreeSet<u8>> = BTreeMap::new();
    let mut prefix = None;
    for line in router.ask("show route")?.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if let Some((address, _)) = first.split_once('/').filter(|_| !line.starts_with([' ', '\t'])) {
            prefix = address.parse().ok();
        }
        let hop: Option<IpAddr> =
            line.trim().strip_prefix("via ").and_then(|rest| rest.split(' ').next()?.parse().ok());
        if let (Some(prefix), Some(hop)) = (prefix, hop) {
            let number = NODES.into_iter().find(|n| node_v4(*n) == hop || node_v6(*n) == hop);
            found.entry(prefix).or_default().extend(number);
        }
    }
    Ok(found)
}

/// The addresses that are to be announced, and by which nodes.
fn wanted_routes() -> BTreeMap<IpAddr, BTreeSet<u8>> {
    let mut routes = BTreeMap::new();
    for (_, expected) in ROWS.iter().flat_map(|row| row.services) {
        let (addresses, nodes): (&[&str], &[u8]) = match expected {
            Has(addresses) => (addresses, &NODES),
            Partly(address) => (std::slice::from_ref(address), &NODES),
            Over(address, nodes) => (std::slice::from_ref(address), nodes),
            Answered(_) | Silent(_) | Waits(_) | Untouched => continue,
        };
        for address in addresses.iter().filter(|_| !nodes.is_empty()) {
            routes.insert(address.parse().unwrap(), nodes.iter().copied().collect());
        }
    }
    routes
}

/// Is a Service what it is to be?
fn is_as_expected(service: &Value, expected: Expect) -> Result<(), String> {
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
    let addresses: Vec<&str> = ingress.iter().filter_map(|entry| entry["ip"].as_str()).collect();
    let assigned = condition(service, "network.kubesphere.io/AddressAssigned");
    let label = &service["metadata"]["labels"]["eip.openelb.kubesphere.io/v1alpha2"];
    let (wanted, status, reason): (&[&str], &str, &str) = match &expected {
        Has(addresses) => (addresses, "True", "Assigned"),
        Over(address, _) | Answered(address) | Silent(address) => {
            (std::slice::from_ref(address), "True", "Assigned")
        }
        Partly(address) => (std::slice::from_ref(address), "True", "PartiallyAssigned"),
        Waits(reason) => (&[], "False", reason),
        Untouched => {
            let touched = !assigned.is_null() || !addresses.is_empty() || !label.is_null();
            return if touched { Err(format!("it was touched: {service:#}")) } else { Ok(()) };
        }
    };
    let says = (&assigned["status"], &assigned["reason"]);
    if addresses != wanted || says != (&status.into(), &reason.into()) {
        return Err(format!("it has {addresses:?}, not {wanted:?}, and says {assigned}"));
    }
    if label.is_null() != wanted.is_empty() {
        return Err(format!("its label is {label}"));
    }
    Ok(())
}

/// A field of the contract without manifest, or a manifest without row, is a failure.
#[test]
fn every_field_of_the_contract_has_a_manifest_and_every_manifest_a_row() {
    let contract = Contract::read();
    let given: Vec<Value> = ["", "bgpconf", "bgppeer", "vectors"]
        .iter()
        .flat_map(|sub| files(sub))
        .flat_map(|file| documents(&read(&file)))
        .collect();
    let kept: Vec<Value> = files("legacy").iter().flat_map(|file| documents(&read(file))).collect();
    let mut missing = contract.unmet("given", &given);
    missing.extend(contract.unmet("kept", &kept));
    let all = ["", "bgpconf", "bgppeer", "vectors", "legacy"];
    let cases: BTreeSet<String> = all
        .iter()
        .flat_map(|sub| files(sub))
        .flat_map(|file| {
            read(&file)
                .lines()
                .filter_map(|l| Some(l.strip_prefix("# case ")?.to_owned()))
                .collect::<Vec<_>>()
        })
        .collect();
    missing.extend(contract.cases().filter(|case| !cases.contains(*case)).map(|case| format!("case {case}")));
    assert!(missing.is_empty(), "no manifest has {missing:#?}");

    let rows: BTreeSet<String> = ROWS
        .iter()
        .map(|row| row.file.to_owned())
        .chain(CONFS.iter().chain(PEERS).map(|session| session.file.to_owned()))
        .collect();
    let found: BTreeSet<String> = ["", "bgpconf", "bgppeer"].iter().flat_map(|sub| files(sub)).collect();
    assert_eq!(rows, found);
}

/// Everything in one test: the API server is the costly part.
#[test]
fn manifests_of_the_go_openelb_are_accepted_understood_and_announced() {
    let setup = Setup::new();
    let router = setup.router();
    // Stored as they are, before anybody of ours has seen them.
    for row in ROWS {
        setup.validates(row.file, row.errors);
        setup.apply_unchanged(row.file);
    }
    setup.apply_unchanged(CONFS[0].file);
    for peer in PEERS {
        setup.validates(peer.file, peer.errors);
        setup.apply_unchanged(peer.file);
    }

    let _controller = setup.start_controller();
    let _speakers: Vec<Process> = NODES.iter().map(|n| setup.start_speaker(*n)).collect();
    services_are_as_expected(&setup);
    pools_say_what_is_not_announced(&setup);
    routes_are_as_expected(&router);
    one_node_answers(&setup);
    sessions_are_as_expected(&setup);
    for (index, conf) in CONFS.iter().enumerate() {
        setup.validates(conf.file, conf.errors);
        if index > 0 {
            setup.apply_unchanged(conf.file);
        }
        says(&setup, "bgpconfs", conf);
    }
    // After all these settings the last one for the object default is in force.
    routes_are_as_expected(&router);
    sessions_are_as_expected(&setup);
    the_status_has_what_the_contract_says(&setup);
    everything_can_be_deleted(&setup, &router);
    vectors_of_addresses(&setup);
    what_the_webhook_refused_is_told(&setup);
}

fn services_are_as_expected(setup: &Setup) {
    let mut last = Vec::new();
    eventually("what is awaited of every Service", DEADLINE, || {
        let services: BTreeMap<String, Value> = setup
            .kube
            .list("services")?
            .into_iter()
            .map(|service| {
                let metadata = &service["metadata"];
                let key = format!(
                    "{}/{}",
                    metadata["namespace"].as_str().unwrap(),
                    metadata["name"].as_str().unwrap()
                );
                (key, service)
            })
            .collect();
        last = ROWS
            .iter()
            .flat_map(|row| row.services.iter().map(move |service| (row.file, service)))
            .filter_map(|(file, (key, expected))| {
                let wrong = is_as_expected(&services[*key], *expected).err()?;
                Some(format!("{file}: {key}: {wrong}"))
            })
            .collect();
        anyhow::ensure!(last.is_empty(), "{last:#?}");
        Ok(Some(()))
    })
    .unwrap();
    let service = setup.kube.get("services", "default", "annotation-wins").unwrap();
    assert!(service["status"]["conditions"].to_string().contains("loadBalancerIP"), "{service:#}");
}

/// The router's kernel asks, and one of the nodes says that it is there; its speaker says the same.
fn one_node_answers(setup: &Setup) {
    let answered = ROWS.iter().flat_map(|row| row.services).filter_map(|(_, expected)| match expected {
        Answered(address) => Some(*address),
        _ => None,
    });
    for address in answered {
        setup.lab.run(ROUTER, &["ip", "route", "replace", address, "dev", "fab0"]).unwrap();
        eventually(&format!("the answer for {address}"), DEADLINE, || {
            let ask = ["arping", "-c", "1", "-w", "2", "-I", "fab0", address];
            let output = setup.lab.command(ROUTER, &ask).output()?;
            let seen = String::from_utf8_lossy(&output.stdout).to_lowercase();
            let mac = seen.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
            let Some((mac, _)) = mac else { return Ok(None) };
            let mut owners = Vec::new();
            for n in NODES {
                let status = setup.object("speakerstatuses", &node(n))?;
                let owned = status["status"]["layer2Addresses"].as_array().cloned().unwrap_or_default();
                if owned.contains(&address.into()) {
                    let link = setup.lab.run(&node(n), &["ip", "link", "show", "dev", "fab0"])?;
                    anyhow::ensure!(link.contains(mac), "{mac} is not that of {}: {link}", node(n));
                    owners.push(n);
                }
            }
            anyhow::ensure!(owners.len() <= 1, "{owners:?} say that they answer for {address}");
            Ok((owners.len() == 1).then_some(()))
        })
        .unwrap();
    }
}

fn pools_say_what_is_not_announced(setup: &Setup) {
    for row in ROWS {
        let silent = row.services.iter().any(|(_, expected)| matches!(expected, Silent(_)));
        for eip in documents(&read(row.file)).iter().filter(|document| document["kind"] == "Eip") {
            let name = eip["metadata"]["name"].as_str().unwrap();
            eventually(&format!("the conditions of Eip {name}"), DEADLINE, || {
                let there = setup.object("eips", name)?;
                anyhow::ensure!(condition(&there, "Ready")["status"] == "True", "{there:#}");
                let applied = condition(&there, "SettingsApplied");
                let names = applied["message"].as_str().unwrap_or_default().contains("spec.protocol");
                anyhow::ensure!(names == silent, "{applied}");
                Ok(Some(()))
            })
            .unwrap();
        }
    }
}

fn routes_are_as_expected(router: &Bird<'_>) {
    let wanted = wanted_routes();
    eventually("the routes of every address", DEADLINE, || {
        let found = announced(router)?;
        let differ: Vec<_> = wanted
            .keys()
            .chain(found.keys())
            .filter(|address| wanted.get(address) != found.get(address))
            .map(|address| (address, wanted.get(address), found.get(address)))
            .collect();
        anyhow::ensure!(differ.is_empty(), "wanted and found differ: {differ:?}");
        Ok(Some(()))
    })
    .unwrap();
}

fn sessions_are_as_expected(setup: &Setup) {
    for peer in PEERS {
        let there = says(setup, "bgppeers", peer);
        let text = there["status"]["nodesPeerStatus"].to_string();
        assert!(!text.contains("authPassword"), "{text}");
        let wanted: BTreeSet<String> = peer.established.iter().map(|n| node(*n)).collect();
        eventually(&format!("sessions of BgpPeer {}", peer.name), DEADLINE, || {
            let there = setup.object("bgppeers", peer.name)?;
            let nodes = there["status"]["nodesPeerStatus"].as_object().cloned().unwrap_or_default();
            let up: BTreeSet<String> = nodes
                .iter()
                .filter(|(_, node)| node["peerState"]["sessionState"] == "ESTABLISHED")
                .map(|(name, _)| name.clone())
                .collect();
            anyhow::ensure!(up == wanted, "{up:?} have one: {nodes:#?}");
            Ok(Some(()))
        })
        .unwrap();
    }
}

/// Waits until the conditions of an object are as they are to be, and returns it.
fn says(setup: &Setup, resource: &str, session: &Session) -> Value {
    let what = format!("the conditions of {resource} {} after {}", session.name, session.file);
    eventually(&what, DEADLINE, || {
        let there = setup.object(resource, session.name)?;
        let ready = condition(&there, "Ready");
        anyhow::ensure!(
            there["status"]["observedGeneration"] == there["metadata"]["generation"],
            "{there:#}"
        );
        let (status, reason) = session.ready;
        anyhow::ensure!(
            (&ready["status"], &ready["reason"]) == (&status.into(), &reason.into()),
            "{there:#}"
        );
        let applied = condition(&there, "SettingsApplied");
        let message = applied["message"].as_str().unwrap_or_default();
        anyhow::ensure!(session.unapplied.iter().all(|field| message.contains(field)), "{message}");
        Ok(Some(there))
    })
    .unwrap()
    .0
}

fn the_status_has_what_the_contract_says(setup: &Setup) {
    let contract = Contract::read();
    eventually("all that is written", DEADLINE, || {
        let mut objects = Vec::new();
        for resource in ["services", "eips", "bgpconfs", "bgppeers"] {
            objects.extend(setup.kube.list(resource)?);
        }
        let missing = contract.unmet("written", &objects);
        anyhow::ensure!(missing.is_empty(), "no object has {missing:#?}");
        Ok(Some(()))
    })
    .unwrap();
    // No finalizer of ours on anything that is not in use by us.
    for kind in ["services", "bgpconfs", "bgppeers"] {
        for object in setup.kube.list(kind).unwrap() {
            assert!(!meets(&object, &["metadata", "finalizers", "*"], None), "{object:#}");
        }
    }
}

fn everything_can_be_deleted(setup: &Setup, router: &Bird<'_>) {
    let resources = ["services", "eips", "bgppeers", "bgpconfs"];
    for resource in resources {
        let mut arguments = vec!["delete", resource, "--wait=false"];
        if resource == "services" {
            arguments.extend(["--all-namespaces", "--field-selector=metadata.name!=kubernetes"]);
        } else {
            arguments.push("--all");
        }
        setup.kube.kubectl(&arguments).unwrap();
    }
    eventually("the end of all objects", DEADLINE, || {
        for resource in resources {
            let left = setup.kube.list(resource)?;
            let left = left.iter().filter(|object| object["metadata"]["name"] != "kubernetes");
            let names: Vec<&Value> = left.map(|object| &object["metadata"]["name"]).collect();
            anyhow::ensure!(names.is_empty(), "{resource} {names:?} are there");
        }
        anyhow::ensure!(announced(router)?.is_empty(), "routes are left");
        Ok(Some(()))
    })
    .unwrap();
}

/// Each alone for `validate`, all together for the controller.
fn vectors_of_addresses(setup: &Setup) {
    for (file, usable) in [("vectors/usable.yaml", true), ("vectors/unusable.yaml", false)] {
        let eips = documents(&read(file));
        for eip in &eips {
            let path = setup.lab.write("one.yaml", &eip.to_string()).unwrap();
            let errors = validation_errors(&setup.kube, &path);
            let wanted: &[&str] = if usable { &[] } else { &["spec.address"] };
            assert!(errors.iter().eq(wanted.iter()), "{eip}: {errors:?}");
        }
        setup.apply_unchanged(file);
        for eip in &eips {
            let name = eip["metadata"]["name"].as_str().unwrap();
            eventually(&format!("what is said of Eip {name}"), DEADLINE, || {
                let there = setup.object("eips", name)?;
                let ready = condition(&there, "Ready");
                let (status, reason) = if usable { IN_FORCE } else { INVALID };
                anyhow::ensure!(ready["status"] == status, "{there:#}");
                anyhow::ensure!(usable || ready["reason"] == reason, "{there:#}");
                Ok(Some(()))
            })
            .unwrap();
        }
        setup.kube.kubectl(&["delete", "eips", "--all"]).unwrap();
    }
}

/// Accepted by the API server, told by the conditions, and refused by `validate`.
fn what_the_webhook_refused_is_told(setup: &Setup) {
    let file = "vectors/refused-by-webhook.yaml";
    setup.validates(
        file,
        &["spec.address", "spec.interface", "metadata.annotations[eip.openelb.kubesphere.io/is-default-eip]"],
    );
    setup.apply_unchanged(file);
    for (name, kind, status) in [
        ("first", "Ready", "True"),
        ("overlapping", "Overlapping", "True"),
        ("second-default", "NotDefault", "True"),
        ("layer2-without-interface", "Ready", "False"),
        ("vip-without-interface", "Ready", "False"),
    ] {
        let object = ("eips.network.kubesphere.io", "", name);
        setup.kube.wait_for(object, DEADLINE, |eip| condition(eip, kind)["status"] == status).unwrap();
    }
}
