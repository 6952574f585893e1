//! `VipGroup`: virtual routers (VRRP) that carry addresses of protocol vip.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{fields, schema};

fields! {
    /// Virtual routers (VRRPv3, RFC 9568) that carry addresses.
    #[derive(CustomResource)]
    #[kube(
        group = "network.kubesphere.io", version = "v1alpha2", kind = "VipGroup", plural = "vipgroups", singular = "vipgroup",
        status = "VipGroupStatus", derive = "Default", derive = "PartialEq",
        doc = "Virtual routers (VRRP) that carry addresses of protocol vip.",
        printcolumn(name = "vrid", type_ = "integer", json_path = ".spec.virtualRouterId"),
        printcolumn(name = "active", type_ = "string", json_path = ".status.activeNode"),
        printcolumn(name = "ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
        printcolumn(name = "age", type_ = "date", json_path = ".metadata.creationTimestamp")
    )]
    pub struct VipGroupSpec {
        /// The one virtual router of this group.
        #[schemars(range(min = 1, max = 255))]
        virtual_router_id: u32,
        /// Virtual routers of this group: `100-110`.
        virtual_router_id_range: String,
        /// `10ms` to `40s`. Default `1s`.
        advertisement_interval: String,
        /// A node of higher priority takes over from a lower one. Default true.
        preempt: bool,
        /// It waits so long first. Default `5m`.
        preempt_delay: String,
        /// How the VRRP checksum is computed: PseudoHeader or RFC9568.
        #[schemars(schema_with = "schema::checksum")]
        checksum: String,
        /// Use the virtual router's MAC address. Default false.
        virtual_mac: bool,
        /// Talk to these addresses instead of the multicast group.
        unicast_peers: Vec<String>,
        /// Priorities of nodes; the first that matches.
        priorities: Vec<NodePriority>,
        /// Nodes that may carry the group.
        node_selector: LabelSelector,
    }
}

fields! {
    /// The priority of some nodes.
    pub struct NodePriority {
        /// Which nodes.
        node_selector: LabelSelector,
        /// 1 to 254.
        #[schemars(range(min = 1, max = 254))]
        priority: u32,
    }
}

fields! {
    /// Who carries the group.
    pub struct VipGroupStatus {
        /// The virtual routers in use.
        virtual_router_ids: Vec<u32>,
        /// The nodes that may carry it.
        members: Vec<String>,
        /// The node that carries it; with several virtual routers, of the lowest.
        active_node: String,
        /// The node that carries each virtual router, by its number.
        active_nodes: BTreeMap<String, String>,
        /// The generation that this status describes.
        observed_generation: i64,
        /// What is true of the group now.
        #[schemars(schema_with = "schema::conditions")]
        conditions: Vec<Condition>,
    }
}
