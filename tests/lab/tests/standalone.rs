//! `openelbd standalone` on the nodes of a lab: what restarts, crashes and idleness do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use openelb_lab::{
    Lab, Process, binary,
    bird::kernel_next_hops,
    eventually,
    topology::{self, NODES, ROUTER, node_v4},
};

struct Setup {
    lab: Lab,
    openelbd: PathBuf,
    manifests: PathBuf,
    state: PathBuf,
}

impl Setup {
    fn new(name: &str) -> Self {
        let lab = topology::start(name).unwrap();
        let manifests = lab.path().join("manifests");
        fs::create_dir(&manifests).unwrap();
        for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo")).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), manifests.join(file.file_name())).unwrap();
        }
        let state = lab.path().join("state");
        Self { openelbd: binary("openelbd").unwrap(), manifests, state, lab }
    }

    fn start(&self, number: u8) -> Process {
        topology::start_node(&self.lab, &self.openelbd, number, &self.manifests, &self.state).unwrap()
    }

    fn service(&self, namespace: &str, name: &str) -> serde_json::Value {
        let file = self.state.join("services").join(namespace).join(format!("{name}.yaml"));
        fs::read_to_string(file).ok().and_then(|text| serde_saphyr::from_str(&text).ok()).unwrap_or_default()
    }

    fn addresses(&self, namespace: &str, name: &str) -> Vec<IpAddr> {
        let service = self.service(namespace, name);
        let ingress = service.pointer("/status/loadBalancer/ingress").and_then(|ingress| ingress.as_array());
        ingress.into_iter().flatten().map(|entry| entry["ip"].as_str().unwrap().parse().unwrap()).collect()
    }

    fn await_hops(&self, address: IpAddr, nodes: &[u8]) {
        let wanted: Vec<IpAddr> = nodes.iter().map(|n| node_v4(*n)).collect();
        eventually(&format!("{address} over nodes {nodes:?}"), Duration::from_secs(30), || {
            Ok((kernel_next_hops(&self.lab, ROUTER, address)? == wanted).then_some(()))
        })
        .unwrap();
    }
}

#[test]
fn addresses_stay_through_kill_and_restart_and_a_stopped_node_withdraws_at_once() {
    let setup = Setup::new("restart");
    let _router = topology::start_router(&setup.lab).unwrap();
    let nodes: Vec<Process> = NODES.into_iter().map(|n| setup.start(n)).collect();
    let (web, _) = eventually("the addresses of default/web", Duration::from_secs(15), || {
        let addresses = setup.addresses("default", "web");
        Ok((addresses.len() == 2).then_some(addresses))
    })
    .unwrap();
    setup.await_hops(web[0], &[1, 2, 3]);

    // Killed: its routes go with its connection; the others' stay.
    setup.lab.signal(&nodes[0], "KILL").unwrap();
    setup.lab.wait_exit(&nodes[0], Duration::from_secs(5)).unwrap();
    setup.await_hops(web[0], &[2, 3]);
    let first = setup.start(1);
    setup.await_hops(web[0], &[1, 2, 3]);
    assert_eq!(setup.addresses("default", "web"), web);

    // Stopped: withdrawn before the process ends, far inside the hold time.
    let stopped = Instant::now();
    setup.lab.signal(&first, "TERM").unwrap();
    setup.await_hops(web[0], &[2, 3]);
    assert!(stopped.elapsed() < Duration::from_secs(6), "as slow as the hold time: {:?}", stopped.elapsed());
    setup.lab.wait_exit(&first, Duration::from_secs(15)).unwrap();

    // All killed at once, and started again: nothing is assigned anew.
    for process in &nodes[1..] {
        setup.lab.signal(process, "KILL").unwrap();
    }
    let before = setup.service("default", "web");
    for n in NODES {
        setup.start(n);
    }
    setup.await_hops(web[0], &[1, 2, 3]);
    assert_eq!(setup.addresses("default", "web"), web);
    assert_eq!(setup.service("default", "web")["metadata"]["uid"], before["metadata"]["uid"]);
}

/// Resident kilobytes, and clock ticks of processor time, of a process of the lab.
fn usage(lab: &Lab, process: &Process) -> (u64, u64) {
    let path = |file: &str| format!("/proc/{}/{file}", process.pid);
    let status = lab.run("node-1", &["cat", &path("status")]).unwrap();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let rss = rss.trim().trim_end_matches(" kB").parse().unwrap();
    let stat = lab.run("node-1", &["cat", &path("stat")]).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (rss, fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap())
}

#[test]
fn an_idle_instance_with_a_hundred_services_is_small_and_quiet() {
    let setup = Setup::new("idle");
    let pools = setup.manifests.join("10-pools.yaml");
    let text = fs::read_to_string(&pools)
        .unwrap()
        .replace("198.51.100.10-198.51.100.19", "198.51.100.10-198.51.100.199");
    fs::write(&pools, text.replace("198.51.100.64-198.51.100.65", "198.51.100.200-198.51.100.201")).unwrap();
    let services: String = (0..100)
        .map(|number| {
            format!(
                "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: s{number}\n  namespace: default\n  annotations:\n    \
                 lb.kubesphere.io/v1alpha1: openelb\nspec:\n  type: LoadBalancer\n  ipFamilies: [IPv4]\n  ports:\n    \
                 - {{port: 80, protocol: TCP}}\n"
            )
        })
        .collect();
    fs::write(setup.manifests.join("60-hundred.yaml"), services).unwrap();
    let router = topology::start_router(&setup.lab).unwrap();
    let process = setup.start(1);
    eventually("a hundred addresses in the router", Duration::from_secs(60), || {
        let count = router.ask("show route count")?;
        // 100 and the demo's three.
        Ok(count.contains("103 of 103 routes").then_some(())).or_else(|_: std::convert::Infallible| Ok(None))
    })
    .unwrap();
    let (_, before) = usage(&setup.lab, &process);
    let start = Instant::now();
    // Several keepalives and polls of the directories.
    let window = Duration::from_secs(10);
    eventually("the end of the window", window * 2, || Ok((start.elapsed() >= window).then_some(())))
        .unwrap();
    let (rss, after) = usage(&setup.lab, &process);
    let share = (after - before) as f64 / 100.0 / start.elapsed().as_secs_f64();
    println!("resident {rss} kB, {:.2} % of a core", share * 100.0);
    // Loose: this is a build without optimisation. `cargo xtask bench idle` judges 20 MB and 0.5 %.
    assert!(rss < 60_000, "{rss} kB resident");
    assert!(share < 0.05, "{:.1} % of a core while idle", share * 100.0);
}
