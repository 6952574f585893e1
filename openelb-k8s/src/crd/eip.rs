//! `Eip`: a pool of addresses.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{fields, schema};

fields! {
    /// A pool of addresses for Services of type LoadBalancer, and how they are announced.
    #[derive(CustomResource)]
    #[kube(
        group = "network.kubesphere.io", version = "v1alpha2", kind = "Eip", plural = "eips", singular = "eip",
        status = "EipStatus", derive = "Default", derive = "PartialEq", category = "networking",
        doc = "A pool of addresses for Services of type LoadBalancer, and how they are announced.",
        printcolumn(name = "cidr", type_ = "string", json_path = ".spec.address"),
        printcolumn(name = "usage", type_ = "integer", json_path = ".status.usage"),
        printcolumn(name = "total", type_ = "integer", json_path = ".status.poolSize"),
        printcolumn(name = "ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
        printcolumn(name = "protocol", type_ = "string", json_path = ".spec.protocol", priority = 1),
        printcolumn(name = "reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1),
        printcolumn(name = "age", type_ = "date", json_path = ".metadata.creationTimestamp")
    )]
    pub struct EipSpec {
        /// Addresses, CIDRs and ranges of both families (`A`, `A/len`, `A/mask`, `A-B`), separated by commas,
        /// semicolons or white space.
        address: String,
        /// How the addresses are announced: bgp (default), layer2, vip, or none (somebody else announces them).
        #[schemars(schema_with = "schema::protocol")]
        protocol: String,
        /// Announce by several protocols; overrides `protocol`.
        #[schemars(schema_with = "schema::protocols")]
        protocols: Vec<String>,
        /// The interface of layer2 and vip: `NAME`, `can_reach:IP`, `regex:EXPR`, `subnet` (the one whose subnet
        /// holds the address) or `all`.
        interface: String,
        /// Give no new addresses; those in use stay.
        disable: bool,
        /// Kept for compatibility; nothing reads it.
        #[serde(rename = "usingKnownIPs")]
        using_known_ips: bool,
        /// Lower is preferred among pools that may serve a Service.
        priority: i64,
        /// Namespaces whose Services get addresses of this pool.
        namespaces: Vec<String>,
        /// Labels that a namespace must have, all of them, for its Services to get addresses of this pool.
        namespace_selector: BTreeMap<String, String>,
        /// Addresses that are never given out; same grammar as `address`.
        exclude: Vec<String>,
        /// Never give out IPv4 addresses that end in .0 or .255, nor the first and last of a CIDR shorter than /31.
        avoid_network_and_broadcast: bool,
        /// true: also for Services that name no pool. false: only for those that do. Absent: only if the pool is
        /// bound to namespaces or Services, or the default.
        auto_assign: bool,
        /// Namespaces and selectors also hold for Services that name this pool.
        enforce_selectors: bool,
        /// Who may share an address. Absent: by key, and by address within a namespace.
        #[schemars(schema_with = "schema::sharing")]
        sharing: String,
        /// At most so many distinct addresses for the Services of one namespace.
        #[schemars(range(min = 1))]
        max_per_namespace: u32,
        /// Services that get addresses of this pool.
        service_selector: LabelSelector,
        /// Nodes that may announce addresses of this pool.
        node_selector: LabelSelector,
        /// Name of the VipGroup for protocol vip.
        vip_group: String,
    }
}

fields! {
    /// What is in use of a pool.
    pub struct EipStatus {
        /// Automatic choice could give nothing.
        occupied: bool,
        /// Distinct addresses in `used`.
        usage: i64,
        /// Usable addresses, saturating at 2^63-1.
        pool_size: i64,
        /// Who holds an address: `namespace/name`, several separated by `;`.
        #[schemars(schema_with = "schema::used")]
        used: BTreeMap<String, String>,
        /// The lowest usable address.
        #[serde(rename = "firstIP")]
        first_ip: String,
        /// The highest usable address.
        #[serde(rename = "lastIP")]
        last_ip: String,
        /// The pool can be used.
        ready: bool,
        /// The pool has IPv4 addresses.
        v4: bool,
        /// The generation that this status describes.
        observed_generation: i64,
        /// Counted up by a controller that takes over what another one committed here: what that one decided before is
        /// then refused.
        revision: i64,
        /// What is true of the pool now.
        #[schemars(schema_with = "schema::conditions")]
        conditions: Vec<Condition>,
    }
}
