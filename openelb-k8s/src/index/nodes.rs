//! Nodes, parsed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::Node;

use crate::names::label;
use crate::selector::Labels;

/// Nodes by name.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    nodes: BTreeMap<String, NodeView>,
    /// An address came or went since it was asked for the last time.
    moved: bool,
}

/// A Node, parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its unique identifier.
    pub uid: String,
    /// Its labels.
    pub labels: Labels,
    /// `Ready`; true where no condition says anything (standalone).
    pub ready: bool,
    /// `spec.unschedulable`.
    pub cordoned: bool,
    /// Is it being deleted?
    pub deleting: bool,
    /// Does kubelet say that the host is shutting down?
    pub shutting_down: bool,
    /// Its InternalIPs, in order.
    pub internal_ips: Vec<IpAddr>,
    /// Its ExternalIPs, in order.
    pub external_ips: Vec<IpAddr>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Addresses of `status.addresses` that cannot be read.
    pub garbled_addresses: Vec<String>,
}

/// A taint of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value; empty where there is none.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

impl NodeView {
    /// Parses a Node.
    #[must_use]
    pub fn parse(node: &Node) -> Self {
        let (spec, status) = (node.spec.as_ref(), node.status.as_ref());
        let ready = status
            .and_then(|s| s.conditions.as_ref())
            .and_then(|conditions| conditions.iter().find(|c| c.type_ == "Ready"));
        // What kubelet says on graceful shutdown.
        let shutting_down = ready
            .and_then(|condition| condition.message.as_deref())
            .is_some_and(|message| message.contains("node is shutting down"));
        let ready = ready.is_none_or(|condition| condition.status == "True");
        let mut view = Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            uid: node.metadata.uid.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default().into(),
            ready,
            shutting_down,
            cordoned: spec.and_then(|s| s.unschedulable).unwrap_or(false),
            deleting: node.metadata.deletion_timestamp.is_some(),
            taints: spec
                .and_then(|s| s.taints.as_ref())
                .into_iter()
                .flatten()
                .map(|taint| Taint {
                    key: taint.key.clone(),
                    value: taint.value.clone().unwrap_or_default(),
                    effect: taint.effect.clone(),
                })
                .collect(),
            ..Self::default()
        };
        for address in status.and_then(|s| s.addresses.as_ref()).into_iter().flatten() {
            let list = match address.type_.as_str() {
                "InternalIP" => &mut view.internal_ips,
                "ExternalIP" => &mut view.external_ips,
                _ => continue,
            };
            match address.address.trim().parse::<IpAddr>() {
                Ok(ip) if list.contains(&ip) => {}
                Ok(ip) => list.push(ip),
                Err(_) => view.garbled_addresses.push(address.address.clone()),
            }
        }
        view
    }

    /// Its rack (label `openelb.kubesphere.io/rack`).
    #[must_use]
    pub fn rack(&self) -> Option<&str> {
        self.labels.get(label::RACK).map(String::as_str).filter(|rack| !rack.is_empty())
    }

    /// Does the label keep load-balancer traffic away from it?
    #[must_use]
    pub fn is_excluded(&self) -> bool {
        self.labels.contains_key(label::EXCLUDE_NODE)
    }

    /// Its first IPv4 InternalIP.
    #[must_use]
    pub fn first_ipv4(&self) -> Option<Ipv4Addr> {
        self.internal_ips.iter().find_map(|ip| match ip {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        })
    }
}

impl Nodes {
    /// Takes in a new version of a Node. Heartbeats change nothing.
    pub fn apply(&mut self, node: &Node) -> bool {
        let view = NodeView::parse(node);
        let before = self.nodes.get(&view.name);
        let changed = before != Some(&view);
        self.moved |= before.is_none_or(|before| {
            (&before.internal_ips, &before.external_ips) != (&view.internal_ips, &view.external_ips)
        });
        self.nodes.insert(view.name.clone(), view);
        changed
    }

    /// Forgets a Node.
    pub fn delete(&mut self, name: &str) -> bool {
        self.moved = true;
        self.nodes.remove(name).is_some()
    }

    /// Did any address of a Node come or go since the last call?
    pub(super) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// The Node of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&NodeView> {
        self.nodes.get(name)
    }

    /// Every Node, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Are there Nodes, and the control plane sees none of them?
    #[must_use]
    pub fn none_is_ready(&self) -> bool {
        !self.nodes.is_empty() && self.nodes.values().all(|node| !node.ready)
    }

    /// Addresses of Nodes: dangerous to give to a Service.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, &NodeView)> {
        self.nodes.values().flat_map(|node| {
            node.internal_ips.iter().chain(&node.external_ips).map(move |address| (*address, node))
        })
    }
}
