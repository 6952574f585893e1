//! Nodes and Pods made by hand, as kubelet would report them.

use std::net::IpAddr;

use serde_json::{Value, json};

/// Whether a Node or a Pod is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// It is.
    True,
    /// It says that it is not.
    False,
    /// It says nothing any more: what the node lifecycle controller makes of that.
    Unknown,
}

impl Ready {
    const fn status(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A Node with these internal addresses and ranges for its pods (`10.244.1.0/24`).
pub fn node_object(name: &str, addresses: &[IpAddr], pod_ranges: &[&str], ready: Ready) -> Value {
    let mut addresses: Vec<Value> =
        addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    addresses.push(json!({"type": "Hostname", "address": name}));
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
        "spec": {"podCIDR": pod_ranges.first(), "podCIDRs": pod_ranges},
        "status": {
            "addresses": addresses,
            "conditions": [{
                "type": "Ready", "status": ready.status(), "reason": "KubeletReady",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        },
    })
}

/// A running Pod in namespace `default` with label `app`, on a node, with its addresses; it serves port 8080.
pub fn pod_object(name: &str, app: &str, node: &str, addresses: &[IpAddr], ready: Ready) -> Value {
    let ready = ready.status();
    let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "pod", "image": "openelb-lab", "ports": [{"containerPort": 8080}]}],
        },
        "status": {
            "phase": "Running", "podIP": addresses.first(), "podIPs": ips,
            "conditions": [
                {"type": "Initialized", "status": "True"},
                {"type": "PodScheduled", "status": "True"},
                {"type": "ContainersReady", "status": ready},
                {"type": "Ready", "status": ready},
            ],
        },
    })
}

/// Objects as YAML documents (JSON is YAML).
pub(super) fn documents(objects: &[Value]) -> String {
    let documents: Vec<String> = objects.iter().map(Value::to_string).collect();
    documents.join("\n---\n")
}
