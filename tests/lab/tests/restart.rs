//! A speaker that dies, restarts or is rolled out is not a node that dies: routes and connections stay. And what it
//! leaves in the kernel for packets that nobody takes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use openelb_lab::{
    Lab, Process, binary,
    bird::{Bird, kernel_next_hops},
    download::Downloads,
    eventually,
    topology::{self, CLIENT, NODES, ROUTER, Virtual, node, node_v4},
};

const DEADLINE: Duration = Duration::from_secs(30);
const WEB: &str = "198.51.100.10";
const API: &str = "198.51.100.17";

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

    fn start(&self, number: u8, more: &[&str]) -> Process {
        let directories = (&*self.manifests, &*self.state);
        topology::start_node_with(&self.lab, &self.openelbd, number, directories, more).unwrap()
    }

    fn start_all(&self, more: &[&str]) -> Vec<Process> {
        NODES.into_iter().map(|n| self.start(n, more)).collect()
    }

    fn carry(&self) {
        let web = [WEB, "fd00:5b::10"].map(|text| text.parse().unwrap());
        topology::program_nodes(&self.lab, &[Virtual { addresses: web.into(), port: 80 }]).unwrap();
    }

    fn hops(&self, address: &str) -> anyhow::Result<Vec<IpAddr>> {
        kernel_next_hops(&self.lab, ROUTER, address.parse()?)
    }

    fn await_hops(&self, address: &str, nodes: &[u8]) {
        let wanted: Vec<IpAddr> = nodes.iter().map(|n| node_v4(*n)).collect();
        eventually(&format!("{address} over nodes {nodes:?}"), DEADLINE, || {
            let seen = self.hops(address)?;
            anyhow::ensure!(seen == wanted, "it goes over {seen:?}");
            Ok(Some(()))
        })
        .unwrap();
    }

    fn downloads(&self, count: usize, length: Duration) -> Downloads {
        let target = SocketAddr::new(WEB.parse().unwrap(), 80);
        Downloads::start(&self.lab, CLIENT, target, count, length).unwrap()
    }

    /// Until so many sessions are established, looking at the route all the time: it must not change.
    fn routes_stay_until(&self, router: &Bird<'_>, sessions: usize) {
        let all: Vec<IpAddr> = NODES.iter().map(|n| node_v4(*n)).collect();
        let mut changed = None;
        eventually(&format!("{sessions} established sessions"), DEADLINE, || {
            let seen = self.hops(WEB)?;
            if seen != all {
                changed = Some(seen);
                return Ok(Some(()));
            }
            let established = router.established()?;
            anyhow::ensure!(established == sessions, "{established}");
            Ok(Some(()))
        })
        .unwrap();
        assert_eq!(changed, None, "the route must stay");
    }
}

/// What BIRD says of a neighbour's graceful restart: restarting, and the families with preserved forwarding.
fn told(router: &Bird<'_>, number: u8) -> anyhow::Result<(bool, String)> {
    let shown = router.ask(&format!("show protocols all node{number}"))?;
    let remote = shown.split("Neighbor capabilities").nth(1).unwrap_or_default();
    let preserved = remote.lines().find_map(|line| line.trim().strip_prefix("AF preserved:"));
    Ok((remote.contains("Restart recovery"), preserved.unwrap_or_default().trim().to_owned()))
}

fn restart(name: &str, more: &[&str], signal: &str) {
    let setup = Setup::new(name);
    let router = topology::start_router(&setup.lab).unwrap();
    let nodes = setup.start_all(more);
    setup.await_hops(WEB, &NODES);
    setup.await_hops(API, &NODES);
    setup.carry();
    assert_eq!(told(&router, 1).unwrap().1, "", "nobody knows whether the host forwarded before");
    eventually("a session that is settled", DEADLINE, || Ok((router.established()? == 3).then_some(())))
        .unwrap();

    let downloads = setup.downloads(12, Duration::from_secs(8));
    for process in &nodes {
        setup.lab.signal(process, signal).unwrap();
    }
    for process in &nodes {
        setup.lab.wait_exit(process, Duration::from_secs(10)).unwrap();
    }
    setup.routes_stay_until(&router, 0);
    // What is not wanted any more goes when the speakers are back, and nothing else does.
    let services = setup.manifests.join("40-services.yaml");
    let text = fs::read_to_string(&services).unwrap();
    let without: Vec<&str> =
        text.split("\n---\n").filter(|document| !document.contains("name: api\n")).collect();
    fs::write(&services, without.join("\n---\n")).unwrap();
    setup.start_all(more);
    setup.routes_stay_until(&router, 3);
    setup.await_hops(API, &[]);
    setup.routes_stay_until(&router, 3);
    for n in NODES {
        assert_eq!(told(&router, n).unwrap(), (true, "ipv4 ipv6".to_owned()), "node-{n} of the same boot");
    }
    assert_eq!(downloads.finish(), [] as [String; 0], "downloads that broke");
}

#[test]
fn speakers_that_are_killed_come_back_and_no_route_and_no_download_is_lost() {
    restart("gr-kill", &[], "KILL");
}

#[test]
fn speakers_that_are_told_to_restart_do_so_without_a_word() {
    restart("gr-term", &["--on-stop", "Restart"], "TERM");
}

#[test]
fn a_host_that_was_rebooted_says_that_it_did_not_forward_meanwhile() {
    let setup = Setup::new("gr-boot");
    let router = topology::start_router(&setup.lab).unwrap();
    let boot = setup.lab.write("boot-id", "first\n").unwrap();
    let file = format!("OPENELB_BOOT_ID_FILE={}", boot.display());
    let start = || {
        let arguments = [
            "env",
            &file,
            &setup.openelbd.to_string_lossy(),
            "standalone",
            "--manifests",
            &setup.manifests.to_string_lossy(),
            "--state",
            &setup.state.to_string_lossy(),
            "--node-name",
            "node-1",
        ];
        let process = setup.lab.spawn("openelbd-node-1", "node-1", &arguments).unwrap();
        eventually("a session", DEADLINE, || Ok((router.established()? == 1).then_some(()))).unwrap();
        setup.await_hops(WEB, &[1]);
        process
    };
    let stop = |process: &Process| {
        setup.lab.signal(process, "KILL").unwrap();
        setup.lab.wait_exit(process, Duration::from_secs(5)).unwrap();
        eventually("a lost session", DEADLINE, || Ok((router.established()? == 0).then_some(()))).unwrap();
    };
    let first = start();
    assert_eq!(told(&router, 1).unwrap(), (true, String::new()));
    stop(&first);
    let second = start();
    assert_eq!(told(&router, 1).unwrap(), (true, "ipv4 ipv6".to_owned()));
    stop(&second);
    fs::write(&boot, "second\n").unwrap();
    start();
    assert_eq!(told(&router, 1).unwrap(), (true, String::new()));
}

#[test]
fn a_speaker_that_goes_for_good_asks_for_other_paths_first() {
    let setup = Setup::new("gr-withdraw");
    let router = topology::start_router(&setup.lab).unwrap();
    let nodes = setup.start_all(&["--on-stop", "Withdraw", "--drain-timeout", "20s"]);
    setup.await_hops(WEB, &NODES);
    setup.carry();
    setup.lab.signal(&nodes[0], "TERM").unwrap();
    // GRACEFUL_SHUTDOWN (RFC 8326) on its path alone, while that still works.
    eventually("the community of RFC 8326", DEADLINE, || {
        let shown = router.ask(&format!("show route all for {WEB}"))?;
        anyhow::ensure!(shown.matches("(65535,0)").count() == 1, "{shown}");
        Ok(Some(()))
    })
    .unwrap();
    setup.await_hops(WEB, &[2, 3]);
    setup.lab.wait_exit(&nodes[0], DEADLINE).unwrap();
    let tables = setup.lab.run("node-1", &["nft", "list", "tables"]).unwrap();
    assert!(!tables.contains("openelb"), "{tables}");
    // It said goodbye: nobody waits for it.
    let log = fs::read_to_string(&router.process.log).unwrap();
    assert!(log.contains("Administrative shutdown"), "{log}");
}

/// Packets on the link between router and node-1: to addresses of ours, and ICMP errors back.
fn count_on_link(lab: &Lab) {
    let rules = "table inet count
delete table inet count
table inet count {
  chain out {
    type filter hook postrouting priority 300; policy accept;
    oifname fab0 ip daddr 198.51.100.0/24 tcp dport 81 counter comment \"to\"
    oifname fab0 ip6 daddr fd00:5b::/64 tcp dport 81 counter comment \"to\"
  }
  chain in {
    type filter hook prerouting priority -300; policy accept;
    iifname fab0 ip daddr 198.51.100.0/24 counter comment \"bounced\"
    iifname fab0 ip6 daddr fd00:5b::/64 counter comment \"bounced\"
    iifname fab0 icmp type destination-unreachable counter comment \"error\"
    iifname fab0 icmpv6 type destination-unreachable counter comment \"error\"
  }
}
";
    let file = lab.write("count.nft", rules).unwrap();
    lab.run(ROUTER, &["nft", "-f", &file.to_string_lossy()]).unwrap();
}

/// To a closed port of ours, back again, and errors.
fn counted(lab: &Lab) -> [u64; 3] {
    let shown = lab.run(ROUTER, &["nft", "list", "table", "inet", "count"]).unwrap();
    ["\"to\"", "\"bounced\"", "\"error\""].map(|comment| {
        let lines = shown.lines().filter(|line| line.contains(comment));
        let packets = lines.map(|line| {
            let after = line.split("packets ").nth(1).unwrap();
            after.split(' ').next().unwrap().parse::<u64>().unwrap()
        });
        packets.sum()
    })
}

/// One echo request (RFC 792, RFC 4443) from the client.
fn ping(lab: &Lab, address: IpAddr) {
    use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with};
    // Of ICMPv6 the kernel makes the checksum.
    let (family, protocol, request) = match address {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, [8, 0, 0xf7, 0xfd, 0, 1, 0, 1]),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, [128, 0, 0, 0, 0, 1, 0, 1]),
    };
    lab.within(CLIENT, || {
        let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol)).unwrap();
        sendto(&socket, &request, SendFlags::empty(), &SocketAddr::new(address, 0)).unwrap();
    })
    .unwrap();
}

#[test]
fn a_packet_that_nobody_takes_gets_one_error_and_does_not_bounce() {
    let setup = Setup::new("undelivered");
    let _router = topology::start_router(&setup.lab).unwrap();
    let process = setup.start(1, &["--on-stop", "Restart"]);
    setup.await_hops(WEB, &[1]);
    setup.carry();
    let table = || setup.lab.run("node-1", &["nft", "list", "table", "inet", "openelb"]);
    // What nft understands is what the kernel has.
    eventually("the table with both addresses", DEADLINE, || {
        let shown = table()?;
        anyhow::ensure!(shown.contains(WEB) && shown.contains("fd00:5b::10"), "{shown}");
        anyhow::ensure!(shown.contains("hook forward") && shown.matches(" reject\n").count() == 2, "{shown}");
        Ok(Some(()))
    })
    .unwrap();

    let downloads = setup.downloads(4, Duration::from_secs(4));
    let target = |address: &str, port: u16| SocketAddr::new(address.parse().unwrap(), port);
    for address in [WEB, "fd00:5b::10"] {
        count_on_link(&setup.lab);
        let before = counted(&setup.lab);
        ping(&setup.lab, address.parse().unwrap());
        eventually(&format!("an answer to one ping of {address}"), DEADLINE, || {
            Ok((counted(&setup.lab)[2] > before[2]).then_some(()))
        })
        .unwrap();
        let [_, bounced, errors] = counted(&setup.lab);
        assert_eq!((bounced - before[1], errors - before[2]), (0, 1), "after one ping of {address}");

        let closed = setup.lab.within(CLIENT, || {
            std::net::TcpStream::connect_timeout(&target(address, 81), Duration::from_secs(5)).unwrap_err()
        });
        assert_eq!(closed.unwrap().kind(), std::io::ErrorKind::ConnectionRefused, "{address}");
        // An error that comes while connect() still holds the socket is forgotten, and the SYN sent again.
        let [sent, bounced, errors] = counted(&setup.lab);
        assert!((1..=3).contains(&sent), "{sent} SYNs to {address}");
        assert_eq!(
            (bounced - before[1], errors - before[2]),
            (0, 1 + sent),
            "after {sent} SYNs to {address}"
        );
    }
    assert_eq!(downloads.finish(), [] as [String; 0], "what is delivered is left alone");

    // A restart leaves the table in place; what changed meanwhile is taken in.
    setup.lab.signal(&process, "TERM").unwrap();
    setup.lab.wait_exit(&process, DEADLINE).unwrap();
    assert!(table().unwrap().contains(WEB));
    let process = setup.start(1, &["--on-stop", "Withdraw", "--drain-timeout", "1s"]);
    fs::remove_file(setup.manifests.join("40-services.yaml")).unwrap();
    // Nothing to reject needs no table.
    eventually("no address in it", DEADLINE, || {
        Ok((!table().unwrap_or_default().contains(WEB)).then_some(()))
    })
    .unwrap();
    setup.lab.signal(&process, "TERM").unwrap();
    setup.lab.wait_exit(&process, DEADLINE).unwrap();
    assert!(table().is_err(), "nothing is announced, and nothing is left behind");
    let off = setup.start(1, &["--reject-undelivered=false"]);
    assert!(setup.lab.run(&node(1), &["nft", "list", "tables"]).unwrap().is_empty() || table().is_err());
    assert!(setup.lab.is_running(&off));
}
