//! The network of the demo: a client behind a router, three nodes, and a pod on each.
//!
//! ```text
//!  client ── router ══ fabric (switch) ══ node-1, node-2, node-3 ── pod-1, pod-2, pod-3
//!            AS 64512                     AS 64501
//!            BIRD, ECMP                   openelbd standalone, DNAT to the pods
//! ```
//!
//! Pods of other nodes are reached over a second switch, as over a pod network: a node whose uplink to the fabric is cut
//! off keeps its pod.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    time::Duration,
};

use anyhow::Context;

use crate::{Lab, Network, Process, binary, bird::Bird, eventually};

/// The nodes, by number.
pub const NODES: [u8; 3] = [1, 2, 3];
/// The host with BIRD.
pub const ROUTER: &str = "router";
/// The host that sends requests.
pub const CLIENT: &str = "client";
/// The switch between router and nodes.
pub const FABRIC: &str = "fabric";

/// A Service as kube-proxy would carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Virtual {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its TCP port; the pods listen on 8080.
    pub port: u16,
}

/// The name of a node's host, and of its Node object.
pub fn node(number: u8) -> String {
    format!("node-{number}")
}

/// A node's address on the fabric.
pub fn node_v4(number: u8) -> IpAddr {
    Ipv4Addr::new(192, 168, 50, 10 + number).into()
}

/// A node's IPv6 address on the fabric.
pub fn node_v6(number: u8) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0x50, 0, 0, 0, 0, 0, 0x10 + u16::from(number)).into()
}

/// Which node took a request in, from the address under which it asked the pod.
pub fn node_of(remote: IpAddr) -> Option<u8> {
    NODES.into_iter().find(|number| {
        let own: [IpAddr; 4] = [
            Ipv4Addr::new(10, 244, *number, 1).into(),
            Ipv4Addr::new(172, 30, 0, 10 + number).into(),
            Ipv6Addr::new(0xfd00, 0x244, u16::from(*number), 0, 0, 0, 0, 1).into(),
            Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 0x10 + u16::from(*number)).into(),
        ];
        own.contains(&remote)
    })
}

fn build(network: &mut Network) {
    network.router(ROUTER).host(CLIENT).switch(FABRIC).switch("podnet");
    network.plug(FABRIC, (ROUTER, "fab0", &["192.168.50.1/24", "fd00:50::1/64"]));
    network.wire(
        (ROUTER, "cl0", &["203.0.113.1/24", "fd00:c1::1/64"]),
        (CLIENT, "eth0", &["203.0.113.2/24", "fd00:c1::2/64"]),
    );
    network.route(CLIENT, "default via 203.0.113.1").route(CLIENT, "default via fd00:c1::1");
    build_nodes(network);
    for n in NODES {
        network.route(&node(n), "default via 192.168.50.1").route(&node(n), "default via fd00:50::1");
    }
}

/// The client beside the nodes, and no router.
fn build_lan(network: &mut Network) {
    network.host(CLIENT).switch(FABRIC).switch("podnet");
    network.plug(FABRIC, (CLIENT, "eth0", &["192.168.50.100/24", "fd00:50::100/64"]));
    build_nodes(network);
}

fn build_nodes(network: &mut Network) {
    for n in NODES {
        let (node, pod) = (node(n), format!("pod-{n}"));
        network.router(&node).host(&pod);
        network
            .plug(FABRIC, (&node, "fab0", &[&format!("192.168.50.1{n}/24"), &format!("fd00:50::1{n}/64")]));
        network
            .plug("podnet", (&node, "pods0", &[&format!("172.30.0.1{n}/24"), &format!("fd00:30::1{n}/64")]));
        network.wire(
            (&node, "veth0", &[&format!("10.244.{n}.1/24"), &format!("fd00:244:{n}::1/64")]),
            (&pod, "eth0", &[&format!("10.244.{n}.10/24"), &format!("fd00:244:{n}::10/64")]),
        );
        network
            .route(&pod, &format!("default via 10.244.{n}.1"))
            .route(&pod, &format!("default via fd00:244:{n}::1"));
    }
    for n in NODES {
        for other in NODES.into_iter().filter(|other| *other != n) {
            network
                .route(&node(n), &format!("10.244.{other}.0/24 via 172.30.0.1{other}"))
                .route(&node(n), &format!("fd00:244:{other}::/64 via fd00:30::1{other}"));
        }
    }
}

/// BIRD's configuration: one session with each node, routes of both families into the kernel, equal ones merged.
pub fn router_configuration() -> String {
    let mut text = String::from(
        "log stderr all;
router id 192.168.50.1;
protocol device { scan time 1; }
protocol kernel kernel4 { ipv4 { import none; export all; }; merge paths yes limit 16; }
protocol kernel kernel6 { ipv6 { import none; export all; }; merge paths yes limit 16; }
filter addresses {
  if net ~ [198.51.100.0/24{24,32}, fd00:5b::/64{64,128}] then accept;
  reject;
}
template bgp nodes {
  local 192.168.50.1 as 64512;
  hold time 9; keepalive time 3;
  connect delay time 1; connect retry time 2; error wait time 1, 3;
  graceful restart on;
  ipv4 { import filter addresses; export none; add paths rx; };
  ipv6 { import filter addresses; export none; add paths rx; };
}
",
    )
    .replace(
        "if net ~ [198.51.100.0/24{24,32}, fd00:5b::/64{64,128}] then accept;",
        "\
if (net.type = NET_IP4) then { if net ~ [198.51.100.0/24{24,32}] then accept; }
  if (net.type = NET_IP6) then { if net ~ [fd00:5b::/64{64,128}] then accept; }",
    );
    for n in NODES {
        text.push_str(&format!("protocol bgp node{n} from nodes {{ neighbor {} as 64501; }}\n", node_v4(n)));
    }
    text
}

/// Makes the network, and starts the pods.
///
/// # Errors
/// The lab cannot be made, or a pod does not answer.
pub fn start(name: &str) -> anyhow::Result<Lab> {
    start_on(name, build)
}

/// Makes the network without a router, the client on the nodes' switch, and starts the pods.
///
/// # Errors
/// The lab cannot be made, or a pod does not answer.
pub fn start_lan(name: &str) -> anyhow::Result<Lab> {
    start_on(name, build_lan)
}

fn start_on(name: &str, build: fn(&mut Network)) -> anyhow::Result<Lab> {
    let lab = Lab::start(name)?;
    lab.network(build)?;
    let program = binary("openelb-lab")?;
    for n in NODES {
        let pod = format!("pod-{n}");
        lab.spawn(&pod, &pod, &[&program.to_string_lossy(), "pod", &pod, "[::]:8080"])?;
    }
    for n in NODES {
        let target = format!("10.244.{n}.10:8080");
        eventually(&format!("an answer of pod-{n}"), Duration::from_secs(10), || {
            lab.run(&node(n), &[&program.to_string_lossy(), "client", &target, "--count", "1"])
                .map(|seen| (seen.contains("\"failed\": 0")).then_some(()))
        })?;
    }
    Ok(lab)
}

/// Starts BIRD on the router.
///
/// # Errors
/// It does not start.
pub fn start_router(lab: &Lab) -> anyhow::Result<Bird<'_>> {
    Bird::start(lab, ROUTER, &router_configuration())
}

/// Starts `openelbd standalone` on a node.
///
/// # Errors
/// It cannot be started.
pub fn start_node(
    lab: &Lab,
    openelbd: &Path,
    number: u8,
    manifests: &Path,
    state: &Path,
) -> anyhow::Result<Process> {
    start_node_with(lab, openelbd, number, (manifests, state), &[])
}

/// The same with more arguments; `directories` are those of the manifests and of the state.
///
/// # Errors
/// It cannot be started.
pub fn start_node_with(
    lab: &Lab,
    openelbd: &Path,
    number: u8,
    (manifests, state): (&Path, &Path),
    more: &[&str],
) -> anyhow::Result<Process> {
    let name = node(number);
    let (program, manifests, state) =
        (openelbd.to_string_lossy(), manifests.to_string_lossy(), state.to_string_lossy());
    let mut arguments =
        vec![&*program, "standalone", "--manifests", &manifests, "--state", &state, "--node-name", &name];
    arguments.extend(more);
    lab.spawn(&format!("openelbd-{name}"), &name, &arguments)
}

/// Writes on every node what kube-proxy writes for these Services: DNAT to all pods, and masquerade, so that answers
/// come back the same way. Packets to their addresses that are not translated are openelbd's to reject, else they would
/// bounce between node and router.
///
/// # Errors
/// nft refuses the rules.
pub fn program_nodes(lab: &Lab, services: &[Virtual]) -> anyhow::Result<()> {
    let mut rules = String::from("table inet lab\ndelete table inet lab\ntable inet lab {\n");
    let mut goto = Vec::new();
    for n in NODES {
        rules.push_str(&format!(
            "  chain endpoint{n} {{\n    meta nfproto ipv4 tcp dport 1-65535 dnat ip to 10.244.{n}.10:8080\n    meta nfproto ipv6 tcp dport 1-65535 dnat ip6 to [fd00:244:{n}::10]:8080\n  }}\n"
        ));
        goto.push(format!("{} : goto endpoint{n}", goto.len()));
    }
    let goto = format!("numgen random mod {} vmap {{ {} }}", NODES.len(), goto.join(", "));
    rules.push_str("  chain prerouting {\n    type nat hook prerouting priority dstnat; policy accept;\n");
    for service in services {
        for address in &service.addresses {
            let family = if address.is_ipv4() { "ip" } else { "ip6" };
            rules.push_str(&format!("    {family} daddr {address} tcp dport {} {goto}\n", service.port));
        }
    }
    rules.push_str(
        "  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ct status dnat masquerade
  }
}
",
    );
    let file = lab.write("services.nft", &rules)?;
    for n in NODES {
        lab.run(&node(n), &["nft", "-f", &file.to_string_lossy()]).context("nft refuses the rules")?;
    }
    Ok(())
}

/// Cuts a node's uplink silently: no link goes down, packets just do not arrive.
///
/// # Errors
/// iproute2 failed.
pub fn cut_off(lab: &Lab, number: u8) -> anyhow::Result<()> {
    lab.script(&format!("ip -n {FABRIC} link set {} nomaster", node(number)))
}

/// Plugs it in again.
///
/// # Errors
/// iproute2 failed.
pub fn plug_in(lab: &Lab, number: u8) -> anyhow::Result<()> {
    lab.script(&format!("ip -n {FABRIC} link set {} master br0", node(number)))
}
