//! The network of the demo with a real control plane: Nodes, Pods and kube-proxy.
//!
//! ```text
//!  client ── router ══ fabric ══ node-1, node-2, node-3 ── pod-1, pod-2, pod-3
//!                                   ║
//!                                podnet ══ control: etcd, kube-apiserver, kube-controller-manager
//! ```

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use anyhow::Context;
use serde_json::Value;

use super::{ControlPlane, Options, ProxyMode, Ready, node_object, pod_object};
use crate::{
    Lab, Process,
    topology::{self, NODES, node, node_v4, node_v6},
};

/// The host of the control plane.
pub const CONTROL: &str = "control";
/// Its address.
pub const CONTROL_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 30, 0, 1));
/// Its IPv6 address; the API server listens on the other one.
pub const CONTROL_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 1));

/// What a node does with packets to the addresses of Services that kube-proxy translates for nobody (another port, a
/// ping): they would go back to the router by the default route, and come again.
const GUARD: &str = "table inet guard {
  chain forward {
    type filter hook forward priority filter; policy accept;
    ct status dnat accept
    ip daddr 198.51.100.0/24 reject with icmpx admin-prohibited
    ip6 daddr fd00:5b::/64 reject with icmpx admin-prohibited
  }
}
";

/// A cluster with traffic.
#[derive(Debug)]
pub struct Cluster {
    /// Its network.
    pub lab: Arc<Lab>,
    /// Its control plane.
    pub kube: ControlPlane,
    /// kube-proxy of each node, in their order.
    pub proxies: Vec<Process>,
}

impl Cluster {
    /// Starts everything, and waits until each kube-proxy is healthy.
    ///
    /// # Errors
    /// The lab cannot be made, or something does not start: says which, with the end of its log.
    pub fn start(name: &str, mode: ProxyMode) -> anyhow::Result<Self> {
        let options = Options { address: CONTROL_V4, controllers: true, ..Options::api_only() };
        Self::start_with(name, mode, options)
    }

    /// The same, with other options for the control plane, such as `audit`. Its host is added.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_with(name: &str, mode: ProxyMode, options: Options) -> anyhow::Result<Self> {
        let lab = Arc::new(topology::start(name)?);
        connect(&lab, &options.host)?;
        let kube = ControlPlane::start(&lab, options)?;
        kube.create_objects(&objects())?;
        kube.allow_proxies()?;
        let guard = lab.write("guard.nft", GUARD)?;
        let mut proxies = Vec::new();
        for n in NODES {
            lab.run(&node(n), &["nft", "-f", &guard.to_string_lossy()]).context("nft refuses the guard")?;
            proxies.push(kube.start_proxy(&node(n), mode)?);
        }
        for (n, proxy) in NODES.into_iter().zip(&proxies) {
            kube.wait_proxy(proxy, &node(n))?;
        }
        Ok(Self { lab, kube, proxies })
    }
}

/// Plugs the host of the control plane into the pod network, where it reaches nodes and pods.
fn connect(lab: &Lab, host: &str) -> anyhow::Result<()> {
    lab.network(|network| {
        network.host(host);
        let (v4, v6) = (format!("{CONTROL_V4}/24"), format!("{CONTROL_V6}/64"));
        network.plug("podnet", (host, "eth0", &[&v4, &v6]));
        for n in NODES {
            network
                .route(host, &format!("10.244.{n}.0/24 via 172.30.0.1{n}"))
                .route(host, &format!("fd00:244:{n}::/64 via fd00:30::1{n}"));
        }
    })
}

/// The Nodes and Pods of the network.
fn objects() -> Vec<Value> {
    let mut objects = Vec::new();
    for n in NODES {
        let (v4, v6) = (format!("10.244.{n}.0/24"), format!("fd00:244:{n}::/64"));
        objects.push(node_object(&node(n), &[node_v4(n), node_v6(n)], &[&v4, &v6], Ready::True));
        objects.push(topology_pod(n, Ready::True));
    }
    objects
}

/// The Pod object `pod-N` of the network's pod on node N, with label `app: web`.
pub fn topology_pod(number: u8, ready: Ready) -> Value {
    let addresses: [IpAddr; 2] = [
        Ipv4Addr::new(10, 244, number, 10).into(),
        Ipv6Addr::new(0xfd00, 0x244, number.into(), 0, 0, 0, 0, 0x10).into(),
    ];
    pod_object(&format!("pod-{number}"), "web", &node(number), &addresses, ready)
}
