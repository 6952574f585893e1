//! Layer 2 on real interfaces, seen by others: the kernel of a Linux client, `arping`, `ndisc6`, and captures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    pin::Pin,
    time::Duration,
};

use openelb_l2::{
    InterfaceSelector, MacAddr,
    net::{self, DriverConfig, DriverHandle, LinkInfo, LinkSource, Problem, WantedAddress},
    solicited_node_multicast,
    speaker::{LinkIndex, NodeName, Peer, Role, SpeakerConfig},
    wire::{Frame, arp, ethernet, ndp},
};
use openelb_lab::{
    Lab, binary, client, eventually,
    wire::{self, Wire},
};
use serde_json::Value;

const CLIENT: &str = "client";
const LAN: &str = "lan";
const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
const SOON: Duration = Duration::from_secs(10);

/// A client and nodes on a switch; each has `eth0`.
fn lan(name: &str, nodes: u8) -> Lab {
    let lab = Lab::start(name).unwrap();
    lab.network(|network| {
        network.switch(LAN).host(CLIENT);
        network.plug(LAN, (CLIENT, "eth0", &["192.0.2.1/24", "2001:db8::1/64"]));
        for n in 1..=nodes {
            let node = node(n);
            network.host(&node);
            network.plug(LAN, (&node, "eth0", &[&format!("192.0.2.1{n}/24"), &format!("2001:db8::1{n}/64")]));
        }
    })
    .unwrap();
    lab
}

fn node(n: u8) -> String {
    format!("node-{n}")
}

fn gossip(n: u8) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 10 + n), 7947).into()
}

/// The speaker of a node, with these others beside it.
fn speaker(lab: &Lab, n: u8, others: &[u8], interface: &str) -> DriverHandle {
    speaker_with(lab, n, others, interface, None)
}

fn speaker_with(
    lab: &Lab,
    n: u8,
    others: &[u8],
    interface: &str,
    links: Option<Box<dyn LinkSource>>,
) -> DriverHandle {
    let start = || {
        let name = NodeName::new(&node(n)).unwrap();
        let mut config = DriverConfig::new(SpeakerConfig::new(name, gossip(n)));
        config.settings.probes = 0;
        config.links = links;
        net::spawn(config).unwrap()
    };
    let handle = lab.within(&node(n), start).unwrap();
    let selector: InterfaceSelector = interface.parse().unwrap();
    let wanted = [IpAddr::from(V4), V6.into()].map(|address| WantedAddress::new(address, selector.clone()));
    handle.set_addresses(wanted.to_vec());
    let peer = |n: &u8| Peer::new(NodeName::new(&node(*n)).unwrap(), gossip(*n));
    handle.set_peers(others.iter().map(peer).collect());
    handle
}

fn owns(handle: &DriverHandle, address: IpAddr) -> bool {
    let snapshot = handle.watch().borrow().clone();
    snapshot.addresses.iter().any(|one| one.status.address == address && one.status.role == Role::Owner)
}

fn await_both(handle: &DriverHandle) {
    eventually("the ownership of both addresses", SOON, || {
        Ok((owns(handle, V4.into()) && owns(handle, V6.into())).then_some(()))
    })
    .unwrap();
}

fn end(handle: DriverHandle) {
    let snapshots = handle.watch();
    drop(handle);
    eventually("the end of the speaker", SOON, || Ok(snapshots.borrow().stopped.then_some(()))).unwrap();
}

fn mac(lab: &Lab, host: &str) -> MacAddr {
    let text = lab.run(host, &["ip", "-j", "link", "show", "dev", "eth0"]).unwrap();
    let links: Value = serde_json::from_str(&text).unwrap();
    links[0]["address"].as_str().unwrap().parse().unwrap()
}

/// What the client's kernel knows of an address: MAC address and state.
fn neighbour(lab: &Lab, address: IpAddr) -> Option<(MacAddr, String)> {
    let text = lab.run(CLIENT, &["ip", "-j", "neigh", "show", &address.to_string(), "dev", "eth0"]).unwrap();
    let all: Value = serde_json::from_str(&text).ok()?;
    let mac = all[0]["lladdr"].as_str()?.parse().ok()?;
    Some((mac, all[0]["state"][0].as_str()?.to_owned()))
}

/// Has the client send something to an address: its kernel asks where that is.
fn send_to(lab: &Lab, address: IpAddr) {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let send = || UdpSocket::bind(any).unwrap().send_to(b"x", (address, 9)).map(drop);
    // What an earlier datagram met with is of no interest.
    let _ = lab.within(CLIENT, send).unwrap();
}

fn await_neighbour(lab: &Lab, address: IpAddr, mac: MacAddr, states: &[&str]) {
    let mut seen = None;
    let result = eventually(&format!("{address} at {mac}, {states:?}"), SOON, || {
        seen = neighbour(lab, address);
        Ok(seen.as_ref().filter(|(at, state)| *at == mac && states.contains(&state.as_str())).map(drop))
    });
    assert!(result.is_ok(), "{result:?}: {seen:?}");
}

#[test]
fn a_linux_client_resolves_an_address_and_follows_it_to_its_next_owner() {
    let lab = lan("l2-client", 2);
    let first = speaker(&lab, 1, &[], "eth0");
    await_both(&first);
    let all = [IpAddr::from(V4), V6.into()];
    for address in all {
        send_to(&lab, address);
        await_neighbour(&lab, address, mac(&lab, "node-1"), &["REACHABLE"]);
    }
    end(first);
    // Whatever state the client's entry is in, it goes to the next owner, by gratuitous frames alone: nothing is sent to
    // the address meanwhile.
    for (n, state) in [(2, "reachable"), (1, "stale")] {
        for address in all {
            let text = [address.to_string(), neighbour(&lab, address).unwrap().0.to_string()];
            let change = ["ip", "neigh", "change", &text[0], "lladdr", &text[1], "dev", "eth0", "nud", state];
            lab.run(CLIENT, &change).unwrap();
        }
        let next = speaker(&lab, n, &[], "eth0");
        for address in all {
            await_neighbour(&lab, address, mac(&lab, &node(n)), &["STALE", "REACHABLE"]);
        }
        end(next);
    }
}

#[test]
fn a_client_that_probes_an_entry_by_unicast_is_answered() {
    let lab = lan("l2-nud", 1);
    let speaker = speaker(&lab, 1, &[], "eth0");
    await_both(&speaker);
    let own = mac(&lab, "node-1");
    for address in [IpAddr::from(V4), V6.into()] {
        send_to(&lab, address);
        await_neighbour(&lab, address, own, &["REACHABLE"]);
        let probes = lab
            .within(CLIENT, || {
                let wire = Wire::open("eth0", wire::EVERYTHING).unwrap();
                let text = [address.to_string(), own.to_string()];
                let change =
                    ["ip", "neigh", "change", &text[0], "lladdr", &text[1], "dev", "eth0", "nud", "probe"];
                lab.run(CLIENT, &change).unwrap();
                let to_node = |frame: &[u8]| {
                    let (header, payload) = ethernet::Header::decode(frame).ok()?;
                    let question = match arp::Packet::decode(payload) {
                        Ok(packet) => packet.operation == arp::Operation::Request && packet.target_ip == V4,
                        Err(_) => matches!(
                            ndp::Packet::decode(payload).ok()?.message,
                            ndp::Message::Solicitation(solicitation) if solicitation.target == V6
                        ),
                    };
                    question.then_some(header.destination)
                };
                wire.collect(1, SOON, to_node).unwrap()
            })
            .unwrap();
        assert_eq!(probes, [own], "the client did not ask by unicast, so this shows nothing");
        await_neighbour(&lab, address, own, &["REACHABLE"]);
    }
}

#[test]
fn arping_and_ndisc6_see_one_mac_address_while_two_nodes_could_answer() {
    let lab = lan("l2-tools", 2);
    let nodes = [speaker(&lab, 1, &[2], "eth0"), speaker(&lab, 2, &[1], "eth0")];
    for address in [IpAddr::from(V4), V6.into()] {
        eventually("an owner, and one only", SOON, || {
            let agreed = nodes.iter().all(|node| {
                node.watch()
                    .borrow()
                    .addresses
                    .iter()
                    .any(|one| one.status.address == address && one.status.owner.is_some())
            });
            Ok((agreed && nodes.iter().filter(|node| owns(node, address)).count() == 1).then_some(()))
        })
        .unwrap();
    }
    let owner = |address| mac(&lab, &node(if owns(&nodes[0], address) { 1 } else { 2 })).to_string();
    let address = V4.to_string();
    // Its exit code says whether there were as many replies as questions; the announcement of the claim may be one more.
    let output = lab.command(CLIENT, &["arping", "-c", "3", "-I", "eth0", &address]).output().unwrap();
    let seen = String::from_utf8_lossy(&output.stdout).into_owned();
    let replies: Vec<_> = seen.lines().filter(|line| line.contains("reply from")).collect();
    assert!(replies.len() >= 3, "{seen}");
    let of_owner = owner(V4.into());
    assert!(replies.iter().all(|line| line.to_lowercase().contains(&of_owner)), "{of_owner}: {seen}");
    assert!(seen.contains(&format!("Received {} response", replies.len())), "{seen}");
    // Duplicate address detection of another host: somebody has it.
    let output = lab.command(CLIENT, &["arping", "-D", "-c", "2", "-I", "eth0", &address]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&of_owner), "{text}");

    let seen = lab.run(CLIENT, &["ndisc6", "-m", "-r", "1", &V6.to_string(), "eth0"]).unwrap().to_lowercase();
    let macs: Vec<_> = seen.lines().filter(|line| line.contains("link-layer address")).collect();
    assert_eq!(macs.len(), 1, "{seen}");
    assert!(macs[0].contains(&owner(V6.into())), "{seen}");
}

#[test]
fn a_host_that_gives_itself_the_ipv6_address_finds_that_it_is_taken() {
    let lab = lan("l2-dad", 1);
    let speaker = speaker(&lab, 1, &[], "eth0");
    await_both(&speaker);
    lab.run(CLIENT, &["sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=1"]).unwrap();
    lab.run(CLIENT, &["ip", "addr", "add", &format!("{V6}/64"), "dev", "eth0"]).unwrap();
    eventually("dadfailed", SOON, || {
        let shown = lab.run(CLIENT, &["ip", "-6", "addr", "show", "dev", "eth0"])?;
        Ok(shown.contains("dadfailed").then_some(()))
    })
    .unwrap();
    assert!(owns(&speaker, V6.into()), "asking is no claim");
}

#[test]
fn the_solicited_node_group_is_joined_with_an_mld_report_and_left_again() {
    let lab = lan("l2-mld", 1);
    let group = solicited_node_multicast(V6);
    // On the switch's port: switches that listen to MLD forward such reports to no host.
    let reports = lab.within(LAN, || {
        let wire = Wire::open("node-1", wire::EVERYTHING).unwrap();
        let speaker = speaker(&lab, 1, &[], "eth0");
        let is_report = |frame: &[u8]| {
            // IPv6, hop-by-hop options with a router alert, ICMPv6 type 143 (RFC 3810 section 5.2).
            let report = frame.get(12..14)? == [0x86, 0xdd] && *frame.get(20)? == 0 && *frame.get(62)? == 143;
            let names = frame.windows(16).any(|part| part == group.octets());
            (report && names).then_some(())
        };
        let reports = wire.collect(1, SOON, is_report).unwrap();
        await_both(&speaker);
        let joined = || lab.run("node-1", &["ip", "-6", "maddr", "show", "dev", "eth0"]).unwrap();
        assert!(joined().contains(&group.to_string()), "{}", joined());
        speaker.set_addresses(Vec::new());
        eventually("the end of the membership", SOON, || {
            Ok((!joined().contains(&group.to_string())).then_some(()))
        })
        .unwrap();
        reports.len()
    });
    assert_eq!(reports.unwrap(), 1);
}

fn request(target_ip: Ipv4Addr, from: MacAddr, to: MacAddr) -> Frame {
    let (operation, sender_ip) = (arp::Operation::Request, Ipv4Addr::new(192, 0, 2, 1));
    let target_mac = MacAddr::default();
    arp::Packet { operation, sender_mac: from, sender_ip, target_mac, target_ip }.to_frame(from, to)
}

#[test]
fn what_others_are_asked_is_not_answered() {
    let lab = lan("l2-foreign", 1);
    let speaker = speaker(&lab, 1, &[], "eth0");
    await_both(&speaker);
    let own = mac(&lab, "node-1");
    let answers = lab.within(CLIENT, || {
        let wire = Wire::open("eth0", wire::ARP).unwrap();
        let client = MacAddr::new(wire.mac());
        let neighbour = MacAddr::new([2, 0xff, 0, 0, 0, 1]);
        for n in 101..=120 {
            wire.send(&request(Ipv4Addr::new(192, 0, 2, n), client, MacAddr::BROADCAST)).unwrap();
        }
        // For ours, but to another station, as on a switch that floods; and an announcement by itself.
        wire.send(&request(V4, client, neighbour)).unwrap();
        // A barrier: what came before it has been worked on when this is answered; first broadcast, then to us alone.
        wire.send(&request(V4, client, MacAddr::BROADCAST)).unwrap();
        wire.send(&request(V4, client, own)).unwrap();
        let reply = |frame: &[u8]| {
            let (header, payload) = ethernet::Header::decode(frame).ok()?;
            let packet = arp::Packet::decode(payload).ok()?;
            let to_us = packet.operation == arp::Operation::Reply && header.destination == client;
            to_us.then_some((packet.sender_ip, packet.sender_mac, header.source))
        };
        wire.collect(3, Duration::from_secs(1), reply).unwrap()
    });
    assert_eq!(answers.unwrap(), [(V4, own, own); 2]);
    let stats = speaker.watch().borrow().stats;
    assert!(stats.frames < 20, "foreign frames passed the filter: {stats:?}");
}

#[test]
fn an_interface_may_change_its_mac_address_its_name_and_its_carrier() {
    let lab = lan("l2-interface", 1);
    let speaker = speaker(&lab, 1, &[], "regex:^(eth|up)");
    await_both(&speaker);
    let all = [IpAddr::from(V4), V6.into()];
    for address in all {
        send_to(&lab, address);
        await_neighbour(&lab, address, mac(&lab, "node-1"), &["REACHABLE"]);
    }
    // The MAC address: clients are told.
    let new: MacAddr = "02:00:00:00:be:ef".parse().unwrap();
    lab.run("node-1", &["ip", "link", "set", "eth0", "address", &new.to_string()]).unwrap();
    all.into_iter().for_each(|address| await_neighbour(&lab, address, new, &["STALE", "REACHABLE"]));

    // The name, while it is up.
    lab.run("node-1", &["ip", "link", "set", "eth0", "name", "up0"]).unwrap();
    eventually("the new name", SOON, || {
        Ok(speaker.watch().borrow().links.iter().any(|link| link.name == "up0").then_some(()))
    })
    .unwrap();
    await_both(&speaker);
    forget_and_ask(&lab, new);

    // The carrier: nothing is owned without, and everything again with it.
    lab.run(LAN, &["ip", "link", "set", "node-1", "down"]).unwrap();
    let problem =
        || speaker.watch().borrow().addresses.iter().map(|one| one.problems.clone()).collect::<Vec<_>>();
    eventually("the loss of the carrier", SOON, || {
        let down = problem().iter().all(|all| matches!(all[..], [Problem::Down { .. }]));
        Ok((down && all.iter().all(|address| !owns(&speaker, *address))).then_some(()))
    })
    .unwrap();
    lab.run(LAN, &["ip", "link", "set", "node-1", "up"]).unwrap();
    await_both(&speaker);
    forget_and_ask(&lab, new);
}

/// Empties the client's cache and has it ask anew.
fn forget_and_ask(lab: &Lab, mac: MacAddr) {
    lab.run(CLIENT, &["ip", "neigh", "flush", "dev", "eth0"]).unwrap();
    lab.run(CLIENT, &["ip", "-6", "neigh", "flush", "dev", "eth0"]).unwrap();
    for address in [IpAddr::from(V4), V6.into()] {
        eventually("an answer", SOON, || {
            send_to(lab, address);
            Ok(neighbour(lab, address).filter(|(at, _)| *at == mac))
        })
        .unwrap();
    }
}

#[test]
fn an_interface_may_vanish_and_come_again() {
    let lab = lan("l2-vanish", 1);
    let speaker = speaker(&lab, 1, &[], "subnet");
    await_both(&speaker);
    forget_and_ask(&lab, mac(&lab, "node-1"));
    let index = || -> Value {
        let text = lab.run("node-1", &["ip", "-j", "link", "show", "dev", "eth0"]).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()[0]["ifindex"].clone()
    };
    // With another index, and then with the same: a virtual function that is unplugged may come back as it was.
    for same in [false, true] {
        let old = index();
        lab.run("node-1", &["ip", "link", "del", "eth0"]).unwrap();
        if !same {
            eventually("the loss of the interface", SOON, || {
                let snapshot = speaker.watch().borrow().clone();
                let gone = |one: &net::AddressView| matches!(one.problems[..], [Problem::NoLink(_)]);
                Ok(snapshot.addresses.iter().all(gone).then_some(()))
            })
            .unwrap();
        }
        let index_argument = if same { format!("index {old}") } else { String::new() };
        lab.script(&format!(
            "ip -n node-1 link add eth0 {index_argument} address 02:00:00:00:00:0{} type veth peer name node-1 netns {LAN}
             ip -n {LAN} link set node-1 master br0 up
             ip -n node-1 addr add 192.0.2.11/24 dev eth0
             ip -n node-1 addr add 2001:db8::11/64 dev eth0 nodad
             ip -n node-1 link set eth0 up",
            7 + u8::from(same),
        ))
        .unwrap();
        assert_eq!(index() == old, same);
        forget_and_ask(&lab, mac(&lab, "node-1"));
        await_both(&speaker);
    }
}

/// The links as they were once.
struct Still(Option<Vec<LinkInfo>>);

impl LinkSource for Still {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = io::Result<Vec<LinkInfo>>> + Send + '_>> {
        match self.0.take() {
            Some(table) => Box::pin(std::future::ready(Ok(table))),
            None => Box::pin(std::future::pending()),
        }
    }
}

/// The links as a test says.
struct Said(tokio::sync::mpsc::UnboundedReceiver<Vec<LinkInfo>>);

impl LinkSource for Said {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = io::Result<Vec<LinkInfo>>> + Send + '_>> {
        Box::pin(async { self.0.recv().await.ok_or_else(|| io::Error::other("the test is over")) })
    }
}

/// What is said of links counts, and not what the kernel knows of them.
#[test]
fn links_are_what_their_source_says() {
    let lab = lan("l2-said", 1);
    let text = lab.run("node-1", &["ip", "-j", "link", "show", "dev", "eth0"]).unwrap();
    let index = serde_json::from_str::<Value>(&text).unwrap()[0]["ifindex"].as_u64().unwrap();
    let link = |name: &str, up: bool| {
        let mut link = LinkInfo::new(LinkIndex(index.try_into().unwrap()), name, Some(mac(&lab, "node-1")));
        link.up = up;
        link
    };
    let (say, said) = tokio::sync::mpsc::unbounded_channel();
    let speaker = speaker_with(&lab, 1, &[], "eth0", Some(Box::new(Said(said))));
    for (links, announced) in [
        (vec![link("eth0", true)], true),
        (vec![link("eth0", false)], false),
        (vec![link("eth0", true)], true),
        (vec![link("lan0", true)], false),
        (vec![link("eth0", true)], true),
        (vec![], false),
        (vec![link("eth0", true)], true),
    ] {
        say.send(links.clone()).unwrap();
        eventually(&format!("{announced} of {links:?}"), SOON, || {
            let both = [IpAddr::from(V4), V6.into()].map(|address| owns(&speaker, address));
            Ok((both == [announced; 2]).then_some(()))
        })
        .unwrap();
        if announced {
            forget_and_ask(&lab, mac(&lab, "node-1"));
        }
    }
    end(speaker);
}

/// With the same index and MAC address, so fast that no reading of the table shows it: a link that only takes what it was
/// told to take, as network cards do.
#[test]
fn an_interface_may_vanish_and_come_again_between_two_readings() {
    let lab = lan("l2-blink", 1);
    let own: MacAddr = "02:00:00:00:00:aa".parse().unwrap();
    let add = |index: &str| {
        format!(
            "link add vip0 {index} link eth0 address {own} type macvlan mode bridge
             link set vip0 addrgenmode none
             addr add 192.0.2.111/24 dev vip0
             addr add 2001:db8::111/64 dev vip0 nodad
             link set vip0 up"
        )
    };
    let batch = |commands: &str| {
        let file = lab.write("batch", commands).unwrap();
        lab.run("node-1", &["ip", "-batch", file.to_str().unwrap()]).unwrap();
    };
    batch(&add(""));
    let text = lab.run("node-1", &["ip", "-j", "link", "show", "dev", "vip0"]).unwrap();
    let index = serde_json::from_str::<Value>(&text).unwrap()[0]["ifindex"].as_u64().unwrap();
    let again = format!("link del vip0\n{}", add(&format!("index {index}")));
    for still in [false, true] {
        let table = vec![LinkInfo::new(LinkIndex(index.try_into().unwrap()), "vip0", Some(own))];
        let links = still.then(|| Box::new(Still(Some(table))) as Box<dyn LinkSource>);
        let speaker = speaker_with(&lab, 1, &[], "vip0", links);
        await_both(&speaker);
        forget_and_ask(&lab, own);
        for _ in 0..5 {
            batch(&again);
            forget_and_ask(&lab, own);
        }
        end(speaker);
    }
}

#[test]
fn a_link_without_ipv6_is_told_with_the_remedy_and_its_groups_are_joined_again() {
    let lab = lan("l2-no-ipv6", 1);
    let speaker = speaker(&lab, 1, &[], "eth0");
    await_both(&speaker);
    let group = solicited_node_multicast(V6).to_string();
    let joined = || {
        let all = lab.run("node-1", &["ip", "maddr", "show", "dev", "eth0"]).unwrap();
        let [.., a, b, c] = solicited_node_multicast(V6).octets();
        all.contains(&group) && all.contains(&format!("33:33:ff:{a:02x}:{b:02x}:{c:02x}"))
    };
    let causes = || {
        let snapshot = speaker.watch().borrow().clone();
        let problems = snapshot.addresses.iter().flat_map(|one| one.problems.clone());
        let causes = problems.filter_map(|problem| match problem {
            Problem::Group { cause, .. } => Some(cause),
            _ => None,
        });
        causes.collect::<Vec<_>>()
    };
    let set_mtu = |mtu: &str| lab.run("node-1", &["ip", "link", "set", "eth0", "mtu", mtu]).unwrap();
    let disable = |value: u8| {
        let setting = format!("net.ipv6.conf.eth0.disable_ipv6={value}");
        lab.run("node-1", &["sysctl", "-qw", &setting]).unwrap()
    };
    let await_word = |word: &str| {
        eventually(&format!("a word of {word}"), SOON, || {
            Ok(matches!(&causes()[..], [cause] if cause.contains(word)).then_some(()))
        })
        .unwrap();
    };
    let await_well = || {
        eventually("the group", SOON, || Ok((joined() && causes().is_empty()).then_some(()))).unwrap();
        assert!(owns(&speaker, V6.into()));
    };
    await_well();
    // The kernel forgets the groups, and refuses them: `EINVAL`.
    set_mtu("1279");
    await_word("MTU of 1279");
    set_mtu("1500");
    await_well();
    // It keeps them, does nothing for them, and takes more of them.
    disable(1);
    await_word("net.ipv6.conf.eth0.disable_ipv6=0");
    disable(0);
    await_well();
    // Off and on again before anybody looks.
    let file = lab.write("batch", "link set eth0 mtu 1200\nlink set eth0 mtu 1500\n").unwrap();
    lab.run("node-1", &["ip", "-batch", file.to_str().unwrap()]).unwrap();
    await_well();
}

#[test]
fn an_address_that_the_kernel_has_too_is_told_until_it_keeps_silent() {
    let lab = lan("l2-local", 1);
    let speaker = speaker(&lab, 1, &[], "eth0");
    await_both(&speaker);
    let problems = |address: IpAddr| {
        let snapshot = speaker.watch().borrow().clone();
        let view = snapshot.addresses.iter().find(|one| one.status.address == address);
        view.map(|view| view.problems.clone()).unwrap_or_default()
    };
    // As kube-proxy's IPVS mode does, on an interface of its own. For ARP the kernel has an address on all interfaces,
    // for neighbour discovery on one.
    for address in [format!("{V4}/32"), format!("{V6}/128")] {
        lab.run("node-1", &["ip", "addr", "add", &address, "dev", "lo"]).unwrap();
    }
    eventually("a word about the address of the kernel", SOON, || {
        Ok(matches!(&problems(V4.into())[..], [Problem::Local { link, indirect: true }] if link == "lo")
            .then_some(()))
    })
    .unwrap();
    assert_eq!(problems(V6.into()), []);
    let text = problems(V4.into())[0].to_string();
    assert!(text.contains("arp_ignore=1") && text.contains("--ipvs-strict-arp"), "{text}");
    // Both are needed: else the kernel still asks in the address's name. Of all links and of this one the greater counts.
    lab.run("node-1", &["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1"]).unwrap();
    lab.run("node-1", &["sysctl", "-qw", "net.ipv4.conf.eth0.arp_announce=2"]).unwrap();
    eventually("no word any more", Duration::from_secs(25), || {
        Ok(problems(V4.into()).is_empty().then_some(()))
    })
    .unwrap();
    // On the interface itself nothing helps but taking it off.
    lab.run("node-1", &["ip", "addr", "add", &format!("{V6}/128"), "dev", "eth0", "nodad"]).unwrap();
    eventually("a word about the address on eth0", SOON, || {
        Ok(matches!(&problems(V6.into())[..], [Problem::Local { indirect: false, .. }]).then_some(()))
    })
    .unwrap();
    assert!(owns(&speaker, V4.into()) && owns(&speaker, V6.into()), "a warning");
}

const MANIFEST: &str = "apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata:
  name: lan
  annotations: {eip.openelb.kubesphere.io/is-default-eip: \"true\"}
spec:
  address: 192.0.2.100, 2001:db8::100
  protocol: layer2
  interface: eth0
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
status:
  addresses: [{type: InternalIP, address: 192.0.2.11}]
---
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: default
  annotations: {lb.kubesphere.io/v1alpha1: openelb}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  ports: [{port: 80, protocol: TCP}]
";

#[test]
fn the_daemon_answers_says_so_and_names_a_stranger() {
    let lab = lan("l2-daemon", 1);
    lab.write("manifests/all.yaml", MANIFEST).unwrap();
    let openelbd = binary("openelbd").unwrap();
    let path = |name: &str| lab.path().join(name).to_string_lossy().into_owned();
    let (program, manifests, state) = (openelbd.to_string_lossy(), path("manifests"), path("state"));
    let arguments =
        [&program, "standalone", "--manifests", &manifests, "--state", &state, "--node-name", "node-1"];
    let process = lab.spawn("openelbd", "node-1", &arguments).unwrap();
    let own = mac(&lab, "node-1");
    for address in [IpAddr::from(V4), V6.into()] {
        eventually("an answer", SOON, || {
            send_to(&lab, address);
            Ok(neighbour(&lab, address).filter(|(at, _)| *at == own))
        })
        .unwrap();
    }
    let api: SocketAddr = ([127, 0, 0, 1], 50054).into();
    let addresses = || -> anyhow::Result<Value> {
        let (status, body) = client::get(&lab, "node-1", api, "/api/v1/services")?;
        anyhow::ensure!(status == 200, "{status} {body}");
        let all: Value = serde_json::from_str(&body)?;
        let services = &all["items"];
        Ok(services[0]["addresses"].clone())
    };
    let (shown, _) = eventually("both addresses in the read API", SOON, || {
        let shown = addresses()?;
        let by = |n: usize| shown[n]["announcedBy"][0].clone();
        let whole = (0..2).all(|n| {
            let by = by(n);
            by["node"] == "node-1"
                && by["interface"] == "eth0"
                && by["mac"] == own.to_string()
                && by["since"].is_string()
        });
        anyhow::ensure!(whole, "{shown}");
        Ok(Some(shown))
    })
    .unwrap();
    assert_eq!(shown.as_array().unwrap().len(), 2, "{shown}");

    // Another host takes the address: it is named, and counted; ours goes on.
    lab.run(CLIENT, &["ip", "addr", "add", &format!("{V4}/24"), "dev", "eth0"]).unwrap();
    lab.run(CLIENT, &["arping", "-U", "-c", "1", "-w", "3", "-I", "eth0", &V4.to_string()]).ok();
    let stranger = mac(&lab, CLIENT).to_string();
    eventually("a word about the stranger", SOON, || {
        let shown = addresses()?.to_string();
        anyhow::ensure!(std::fs::read_to_string(&process.log)?.contains("AddressConflict"), "not in the log");
        let metrics = client::get(&lab, "node-1", ([127, 0, 0, 1], 50053).into(), "/metrics")?.1;
        let counted = metrics
            .lines()
            .find_map(|line| line.strip_prefix("openelb_l2_address_conflicts_total "))
            .and_then(|count| count.parse::<f64>().ok());
        anyhow::ensure!(counted.is_some_and(|count| count >= 1.0), "{counted:?}");
        Ok(shown.contains(&stranger).then_some(()))
    })
    .unwrap();
}
