//! What runs on every node: kube-proxy, and the heartbeats of kubelet.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{ControlPlane, objects};
use crate::{Lab, Process, client, eventually};

/// How kube-proxy programs a node's kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyMode {
    /// With nftables.
    Nftables,
    /// With iptables.
    Iptables,
}

impl ControlPlane {
    /// Creates objects with their `status`, as [`node_object`](super::node_object) and
    /// [`pod_object`](super::pod_object) make them.
    ///
    /// # Errors
    /// The API server refuses one.
    pub fn create_objects(&self, objects: &[Value]) -> anyhow::Result<()> {
        self.create_with_status(&objects::documents(objects))
    }

    /// Lets kube-proxy's user do its work; once for a cluster.
    ///
    /// # Errors
    /// The API server refuses it.
    pub fn allow_proxies(&self) -> anyhow::Result<()> {
        let role = "--clusterrole=system:node-proxier";
        self.kubectl(&["create", "clusterrolebinding", "lab-proxy", role, "--user=system:kube-proxy"])
            .map(drop)
    }

    /// Starts kube-proxy on a node; its Node must exist with an InternalIP.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_proxy(&self, node: &str, mode: ProxyMode) -> anyhow::Result<Process> {
        let kubeconfig = self.write_kubeconfig("proxy", "proxy")?;
        let mode = match mode {
            ProxyMode::Nftables => "nftables",
            ProxyMode::Iptables => {
                let there = crate::lab::installed("iptables-restore");
                ensure!(there, "this kube-proxy runs iptables: as root, apt-get install iptables");
                "iptables"
            }
        };
        let configuration = serde_json::json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "mode": mode,
            "hostnameOverride": node,
            "clientConnection": {"kubeconfig": kubeconfig},
            "clusterCIDR": "10.244.0.0/16,fd00:244::/48",
            "detectLocalMode": "ClusterCIDR",
            "healthzBindAddress": "0.0.0.0:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            // These sysctls are read-only in a network namespace.
            "conntrack": {"maxPerCore": 0, "min": 0},
            "nftables": {"minSyncPeriod": "100ms"},
            "iptables": {"minSyncPeriod": "100ms"},
        });
        let name = format!("kube-proxy-{node}");
        let file = self.lab.write(&format!("kube/{name}.json"), &configuration.to_string())?;
        let (program, file) = (self.program.to_string_lossy(), file.to_string_lossy());
        self.lab.spawn(&name, node, &[&program, "kube-proxy", "--config", &file])
    }

    /// Waits until kube-proxy has programmed a node once.
    ///
    /// # Errors
    /// It has not within a minute; the message has the end of its log.
    pub fn wait_proxy(&self, process: &Process, node: &str) -> anyhow::Result<()> {
        let target = ([127, 0, 0, 1], 10256).into();
        let probe = || client::get(&self.lab, node, target, "/healthz").map(|(status, _)| status == 200);
        eventually(&format!("a healthy kube-proxy on {node}"), Duration::from_secs(60), || match probe() {
            Err(error) if self.lab.is_running(process) => Err(error),
            Err(_) => Ok(Some(false)),
            Ok(healthy) => Ok(healthy.then_some(true)),
        })
        .and_then(|(runs, _)| {
            ensure!(runs, "kube-proxy ended");
            Ok(())
        })
        .with_context(|| Lab::log_tail(process, 15))
    }

    /// Starts the heartbeats of a node's kubelet: the Lease is renewed every second, from the node's own network, and
    /// the Node and its Pods are made ready again after the node lifecycle controller took them for dead.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_heartbeat(&self, node: &str) -> anyhow::Result<Process> {
        let kubeconfig = self.write_kubeconfig("nodes", "nodes")?;
        let (program, kubeconfig) = (self.program.to_string_lossy(), kubeconfig.to_string_lossy());
        self.lab.spawn(&format!("heartbeat-{node}"), node, &[&program, "heartbeat", &kubeconfig, node])
    }
}
