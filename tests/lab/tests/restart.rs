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
    topology::{self, CLIENT, NODES, ROUTER, Virtual, node, node_v4, node_v6},
    wire::{self, Wire},
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

/// What a client sends that no endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// An echo request (RFC 792, RFC 4443).
    Echo,
    /// A UDP datagram to a closed port.
    Datagram,
}

/// A port that no Service has.
const CLOSED: u16 = 81;

fn send(lab: &Lab, probe: Probe, address: IpAddr) {
    use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with};
    // Of ICMPv6 the kernel makes the checksum.
    let (family, protocol, request) = match address {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, [8, 0, 0xf7, 0xfd, 0, 1, 0, 1]),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, [128, 0, 0, 0, 0, 1, 0, 1]),
    };
    let (kind, protocol, port) = match probe {
        Probe::Echo => (SocketType::RAW, protocol, 0),
        Probe::Datagram => (SocketType::DGRAM, ipproto::UDP, CLOSED),
    };
    lab.within(CLIENT, || {
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol)).unwrap();
        sendto(&socket, &request, SendFlags::empty(), &SocketAddr::new(address, port)).unwrap();
    })
    .unwrap();
}

/// A frame of the link between router and node that has to do with a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    /// The probe, whichever way it goes.
    Probe,
    /// An ICMP error about it: type and code.
    Error(u8, u8),
}

/// Reads a frame of Ethernet; `None`: it is about something else.
fn read(frame: &[u8], address: IpAddr) -> Option<Frame> {
    let (protocol, destination, payload, inner) = match (frame.get(12..14)?, address) {
        ([0x08, 0x00], IpAddr::V4(_)) => {
            let header = usize::from(frame.get(14)? & 0x0f) * 4;
            (frame.get(23)?, frame.get(30..34)?, frame.get(14 + header..)?, 16..20)
        }
        ([0x86, 0xdd], IpAddr::V6(_)) => (frame.get(20)?, frame.get(38..54)?, frame.get(54..)?, 24..40),
        _ => return None,
    };
    let is_address = |octets: &[u8]| match address {
        IpAddr::V4(address) => octets == address.octets(),
        IpAddr::V6(address) => octets == address.octets(),
    };
    let (kind, code) = (*payload.first()?, *payload.get(1)?);
    let echo = matches!((protocol, kind), (1, 8) | (58, 128));
    let datagram = *protocol == 17 && payload.get(2..4)? == CLOSED.to_be_bytes();
    if is_address(destination) && (echo || datagram) {
        return Some(Frame::Probe);
    }
    // RFC 792 and RFC 4443 section 2.1: errors, which have the packet that they are about.
    let error = matches!((protocol, kind), (1, 3 | 4 | 5 | 11 | 12) | (58, 1..=4));
    let about = payload.get(8..)?.get(inner).is_some_and(is_address);
    (error && about).then_some(Frame::Error(kind, code))
}

/// Sends one packet, and gives what went over the link between router and node for it: until an error comes, and then
/// as long as a packet that bounces takes to do so a hundred times.
fn seen(lab: &Lab, probe: Probe, address: IpAddr) -> Vec<Frame> {
    const BOUNCES: Duration = Duration::from_millis(300);
    lab.within(ROUTER, || {
        let wire = Wire::open("fab0", wire::EVERYTHING).unwrap();
        send(lab, probe, address);
        let mut frames = Vec::new();
        let errors = wire
            .collect(1, DEADLINE, |frame| {
                let frame = read(frame, address);
                frames.extend(frame);
                frame.filter(|frame| *frame != Frame::Probe)
            })
            .unwrap();
        assert_eq!(errors.len(), 1, "no error for {probe:?} to {address}: {frames:?}");
        frames.extend(wire.collect(usize::MAX, BOUNCES, |frame| read(frame, address)).unwrap());
        frames
    })
    .unwrap()
}

/// One packet to the node, and one error back: port unreachable.
fn assert_rejected(lab: &Lab, address: &str) {
    let address = address.parse().unwrap();
    let error = if matches!(address, IpAddr::V4(_)) { Frame::Error(3, 3) } else { Frame::Error(1, 4) };
    for probe in [Probe::Echo, Probe::Datagram] {
        assert_eq!(seen(lab, probe, address), [Frame::Probe, error], "after one {probe:?} to {address}");
    }
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
        assert_rejected(&setup.lab, address);
        let closed = setup.lab.within(CLIENT, || {
            std::net::TcpStream::connect_timeout(&target(address, CLOSED), Duration::from_secs(5))
                .unwrap_err()
        });
        assert_eq!(closed.unwrap().kind(), std::io::ErrorKind::ConnectionRefused, "{address}");
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

/// A router sends the node everything for an aggregate, also what is for addresses that no Service has.
#[test]
fn what_is_for_nobody_in_an_aggregate_gets_one_error_and_does_not_bounce() {
    let setup = Setup::new("undelivered-aggregate");
    let file = setup.manifests.join("20-bgp.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let rule = "  advertisements:\n    - {aggregationLength: 24, aggregationLengthV6: 64}\n";
    fs::write(&file, format!("{}\n{rule}", text.trim_end())).unwrap();
    let _router = topology::start_router(&setup.lab).unwrap();
    let await_aggregates = || {
        for (family, aggregate) in [("-4", "198.51.100.0/24"), ("-6", "fd00:5b::/64")] {
            let hop = if family == "-4" { node_v4(1) } else { node_v6(1) };
            eventually(&format!("{aggregate} over node-1"), DEADLINE, || {
                let shown = setup.lab.run(ROUTER, &["ip", family, "route", "show", "exact", aggregate])?;
                anyhow::ensure!(shown.contains(&format!("via {hop} ")), "{shown}");
                Ok(Some(()))
            })
            .unwrap();
        }
    };
    let on = setup.start(1, &["--on-stop", "Restart"]);
    eventually("the table with both aggregates", DEADLINE, || {
        let shown = setup.lab.run("node-1", &["nft", "list", "table", "inet", "openelb"])?;
        anyhow::ensure!(shown.contains("198.51.100.0/24") && shown.contains("fd00:5b::/64"), "{shown}");
        Ok(Some(()))
    })
    .unwrap();
    await_aggregates();
    setup.carry();
    let downloads = setup.downloads(4, Duration::from_secs(4));
    // Of a Service, and of nobody.
    for address in [WEB, "198.51.100.200", "fd00:5b::10", "fd00:5b::abcd"] {
        assert_rejected(&setup.lab, address);
    }
    assert_eq!(downloads.finish(), [] as [String; 0], "what is delivered is left alone");

    // Without the table it goes round until its TTL ends: the capture sees that.
    setup.lab.signal(&on, "TERM").unwrap();
    setup.lab.wait_exit(&on, DEADLINE).unwrap();
    let _off = setup.start(1, &["--reject-undelivered=false"]);
    eventually("no table", DEADLINE, || {
        let tables = setup.lab.run("node-1", &["nft", "list", "tables"])?;
        Ok((!tables.contains("inet openelb")).then_some(()))
    })
    .unwrap();
    await_aggregates();
    for nobody in ["198.51.100.200", "fd00:5b::abcd"] {
        let frames = seen(&setup.lab, Probe::Echo, nobody.parse().unwrap());
        let bounced = frames.iter().filter(|frame| **frame == Frame::Probe).count();
        assert!(bounced > 20, "{nobody}: {frames:?}");
    }
}
