//! The lab itself: isolation, the end of everything, ECMP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::{
    collections::BTreeMap, net::IpAddr, os::unix::process::CommandExt as _, path::Path, process::Command,
    time::Duration,
};

use openelb_lab::{
    Lab,
    bird::{Bird, kernel_next_hops},
    client::{Client, Plan},
    eventually,
    topology::{self, CLIENT, FABRIC, NODES, ROUTER, Virtual, node, node_of},
};

#[test]
fn labs_with_equal_addresses_run_side_by_side() {
    let labs: Vec<Lab> = (0..2)
        .map(|number| {
            let lab = Lab::start(&format!("side-{number}")).unwrap();
            lab.network(|network| {
                network.host("a").host("b");
                network.wire(
                    ("a", "eth0", &["198.51.100.1/30"]),
                    ("b", "eth0", &["198.51.100.2/30", "2001:db8::2/64"]),
                );
            })
            .unwrap();
            lab
        })
        .collect();
    for lab in &labs {
        let links = lab.run("b", &["ip", "-br", "address", "show", "dev", "eth0"]).unwrap();
        assert!(links.contains("198.51.100.2/30") && links.contains("2001:db8::2/64"), "{links}");
        assert!(lab.run("a", &["false"]).is_err());
    }
    // Nothing of it is in the machine's own namespace.
    let own = Command::new("ip").args(["-br", "address"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&own.stdout).contains("198.51.100."));
}

/// The processes of a lab, seen from outside.
fn alive(marker: &str) -> usize {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| {
            std::fs::read(entry.path().join("cmdline"))
                .is_ok_and(|text| String::from_utf8_lossy(&text).replace('\0', " ").contains(marker))
        })
        .count()
}

#[test]
fn nothing_is_left_when_a_lab_is_dropped() {
    let lab = Lab::start("dropped").unwrap();
    lab.network(|network| {
        network.host("a");
    })
    .unwrap();
    let directory = lab.path().to_owned();
    // An argument that no other process has.
    let marker = format!("sleep 86{}", std::process::id());
    let process = lab.spawn("sleeper", "a", &marker.split(' ').collect::<Vec<_>>()).unwrap();
    assert!(lab.is_running(&process));
    assert_ne!(alive(&marker), 0);
    drop(lab);
    eventually("the end of the lab's processes", Duration::from_secs(5), || {
        Ok((alive(&marker) == 0).then_some(()))
    })
    .unwrap();
    assert!(!directory.exists());
}

/// The processes of a lab whose owner is killed with this signal, or its whole group with it.
fn nothing_is_left(signal: &str, group: bool) {
    let test = std::thread::current().name().unwrap().to_owned();
    if let Ok(marker) = std::env::var("OPENELB_LAB_OWNER") {
        // This is the child: it makes a lab and waits to be killed.
        let lab = Lab::start(&marker.replace(' ', "-")).unwrap();
        lab.network(|network| {
            network.host("a");
        })
        .unwrap();
        // One that is stopped, too, and one that never stops writing.
        let program = marker.split(' ').collect::<Vec<_>>();
        let stopped = lab.spawn("stopped", "a", &program).unwrap();
        lab.signal(&stopped, "STOP").unwrap();
        let file = lab.path().join("file");
        let write = format!("while :; do echo x >>{0}; rm {0}; done", file.display());
        lab.spawn("writer", "a", &["sh", "-c", &write]).unwrap();
        lab.spawn("sleeper", "a", &program).unwrap();
        loop {
            std::thread::park();
        }
    }
    let marker = format!("sleep 85{}{}", std::process::id(), signal.len());
    // Where this program itself was started with SIGINT ignored, a child would be, too.
    let mut owner = Command::new("env")
        .arg("--default-signal=INT")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &test])
        .env("OPENELB_LAB_OWNER", &marker)
        .stdout(std::process::Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let directories = || {
        let prefix = format!("openelb-lab-{}", marker.replace(' ', "-"));
        let all = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten();
        all.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).count()
    };
    let started = eventually("the lab of the child", Duration::from_secs(20), || {
        Ok((alive(&marker) >= 2).then_some(()))
    });
    let whom = if group { format!("-{}", owner.id()) } else { owner.id().to_string() };
    let status = Command::new("kill").args(["-s", signal, "--", &whom]).status().unwrap();
    assert!(status.success());
    let ended = eventually("the end of the child", Duration::from_secs(20), || Ok(owner.try_wait()?));
    if ended.is_err() {
        owner.kill().unwrap();
        owner.wait().unwrap();
    }
    started.unwrap();
    ended.unwrap();
    eventually("the end of the child's lab", Duration::from_secs(10), || {
        Ok((alive(&marker) == 0 && directories() == 0).then_some(()))
    })
    .unwrap();
}

#[test]
fn nothing_is_left_when_the_owner_of_a_lab_is_killed() {
    nothing_is_left("KILL", false);
}

#[test]
fn nothing_is_left_after_ctrl_c() {
    nothing_is_left("INT", true);
}

/// The router's part of the demo with BIRD on the nodes too: ECMP works, whoever announces.
#[test]
fn flows_spread_over_equal_routes_and_leave_a_node_that_is_cut_off() {
    let lab = topology::start("ecmp").unwrap();
    let router = topology::start_router(&lab).unwrap();
    let address: IpAddr = "198.51.100.10".parse().unwrap();
    let mut nodes = Vec::new();
    for n in NODES {
        let configuration = format!(
            "log stderr all;\nrouter id 192.168.50.1{n};\nprotocol device {{}}\n\
             protocol static {{ ipv4; route {address}/32 unreachable; }}\n\
             protocol bgp up {{ local 192.168.50.1{n} as 64501; neighbor 192.168.50.1 as 64512;\n\
             connect delay time 1; connect retry time 2; error wait time 1, 2; hold time 3; ipv4 {{ import none; export all; next hop self; }}; }}\n"
        );
        nodes.push(Bird::start(&lab, &node(n), &configuration).unwrap());
    }
    let routed = |wanted: usize| {
        eventually(&format!("{wanted} next hops"), Duration::from_secs(30), || {
            Ok((kernel_next_hops(&lab, ROUTER, address)?.len() == wanted).then_some(()))
        })
    };
    routed(3).unwrap();
    assert_eq!(router.established().unwrap(), 3);
    topology::program_nodes(&lab, &[Virtual { addresses: vec![address], port: 80 }]).unwrap();
    let plan = Plan { count: 300, interval: Duration::ZERO, timeout: Duration::from_secs(2) };
    let spread = |name: &str| {
        let client = Client::start(&lab, name, CLIENT, (address, 80).into(), plan).unwrap();
        let seen = client.finish(Duration::from_secs(60)).unwrap();
        assert_eq!((seen.requests, seen.failed), (300, 0), "{:?}", seen.errors);
        let mut nodes: BTreeMap<u8, usize> = BTreeMap::new();
        for (remote, count) in &seen.remotes {
            *nodes.entry(node_of(remote.parse().unwrap()).unwrap()).or_default() += count;
        }
        nodes
    };
    let all = spread("all");
    assert!(all.len() == 3 && all.values().all(|count| *count >= 50), "{all:?}");
    topology::cut_off(&lab, 2).unwrap();
    routed(2).unwrap();
    let without = spread("without");
    assert!(without.len() == 2 && !without.contains_key(&2), "{without:?}");
    topology::plug_in(&lab, 2).unwrap();
    routed(3).unwrap();
    assert!(Path::new(lab.path()).join("logs").is_dir());
    assert!(lab.run(FABRIC, &["ip", "-br", "link"]).unwrap().contains("node-2"));
}
