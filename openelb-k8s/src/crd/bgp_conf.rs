//! `BgpConf`: this cluster as a BGP speaker. Only the object named `default` is honoured.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{fields, schema};

fields! {
    /// How every node speaks BGP.
    #[derive(CustomResource)]
    #[kube(
        group = "network.kubesphere.io", version = "v1alpha2", kind = "BgpConf", plural = "bgpconfs", singular = "bgpconf",
        status = "BgpConfStatus", derive = "Default", derive = "PartialEq",
        doc = "How the nodes speak BGP. Only the object named default is honoured.",
        printcolumn(name = "as", type_ = "integer", json_path = ".spec.as"),
        printcolumn(name = "port", type_ = "integer", json_path = ".spec.listenPort"),
        printcolumn(name = "ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
        printcolumn(name = "age", type_ = "date", json_path = ".metadata.creationTimestamp")
    )]
    pub struct BgpConfSpec {
        /// The autonomous system number of the nodes.
        #[serde(rename = "as")]
        asn: u32,
        /// The autonomous system number by value of the Node label `openelb.kubesphere.io/rack`; overrides `as`.
        as_per_rack: BTreeMap<String, u32>,
        /// The BGP identifier, for the node that owns this address or if there is one node; else each node has its
        /// own: its first IPv4 InternalIP.
        router_id: String,
        /// The TCP port to listen on; 0 or absent: 179.
        listen_port: i32,
        /// The addresses to listen on; absent: all.
        listen_addresses: Vec<String>,
        /// Address families in GoBGP's numbers.
        families: Vec<u32>,
        /// Kept for compatibility with GoBGP's global configuration.
        use_multiple_paths: bool,
        /// Graceful restart for all peers.
        graceful_restart: GracefulRestart,
        /// Name of a ConfigMap in our namespace with a policy file in GoBGP's TOML under the key `gobgp.conf`.
        policy: String,
        /// Whose addresses are announced as next hops: Auto (default), Self or AllNodes.
        #[schemars(schema_with = "schema::next_hop_mode")]
        next_hop_mode: String,
        /// Timers of bidirectional forwarding detection by name, for `spec.bfd.profile` of BgpPeers.
        bfd_profiles: BTreeMap<String, BfdProfile>,
    }
}

fields! {
    /// A named set of the timers of bidirectional forwarding detection (RFC 5880).
    pub struct BfdProfile {
        /// Missed packets until the neighbour counts as down. Default 3.
        #[schemars(range(min = 1, max = 255))]
        detect_multiplier: u32,
        /// The required minimum receive interval, `50ms` to `60s`. Default `300ms`.
        receive_interval: String,
        /// The desired minimum transmit interval, `50ms` to `60s`. Default `300ms`.
        transmit_interval: String,
        /// Do not send until the neighbour does.
        passive: bool,
        /// The lowest TTL that is accepted of a neighbour several hops away.
        #[schemars(range(min = 1, max = 255))]
        minimum_ttl: u32,
    }
}

fields! {
    /// Graceful restart (RFC 4724), GoBGP's fields.
    pub struct GracefulRestart {
        /// Use graceful restart.
        enabled: bool,
        /// Seconds that the peer should keep our routes.
        restart_time: u32,
        /// Only help restarting peers.
        helper_only: bool,
        /// Seconds to wait for End-of-RIB.
        deferral_time: u32,
        /// Also on NOTIFICATION (RFC 8538).
        notification_enabled: bool,
        /// Long-lived graceful restart (RFC 9494).
        longlived_enabled: bool,
        /// Seconds that stale routes of a peer are kept.
        stale_routes_time: u32,
        /// State: the restart time that the peer announced.
        peer_restart_time: u32,
        /// State: the peer is restarting.
        peer_restarting: bool,
        /// State: we are restarting.
        local_restarting: bool,
        /// State: the role.
        mode: String,
    }
}

fields! {
    /// How each node speaks.
    pub struct BgpConfStatus {
        /// By name of the node.
        nodes_conf_status: BTreeMap<String, NodeConfStatus>,
        /// The generation that this status describes.
        observed_generation: i64,
        /// What is true of the configuration now.
        #[schemars(schema_with = "schema::conditions")]
        conditions: Vec<Condition>,
    }
}

fields! {
    /// The identity of one node.
    pub struct NodeConfStatus {
        /// Its BGP identifier.
        router_id: String,
        /// Its autonomous system number.
        #[serde(rename = "as")]
        asn: u32,
    }
}
