//! The deprecated version: schemas only. Objects are stored and read as `v1alpha2`.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use serde_json::{Value, json};

use super::{fields, schema};
use crate::object::Kind;

fields! {
    /// A pool of addresses.
    #[derive(CustomResource)]
    #[kube(
        group = "network.kubesphere.io", version = "v1alpha1", kind = "Eip", plural = "eips", singular = "eip",
        status = "EipStatus", derive = "Default", derive = "PartialEq", category = "networking", storage = false,
        deprecated = "network.kubesphere.io/v1alpha1 Eip is deprecated; use v1alpha2", doc = "A pool of addresses.",
        printcolumn(name = "cidr", type_ = "string", json_path = ".spec.address"),
        printcolumn(name = "usage", type_ = "integer", json_path = ".status.usage"),
        printcolumn(name = "total", type_ = "integer", json_path = ".status.poolSize")
    )]
    pub struct EipSpec {
        /// An IPv4 address, CIDR or range.
        #[schemars(schema_with = "schema::v1alpha1_address")]
        address: String,
        /// bgp or layer2.
        #[schemars(schema_with = "schema::v1alpha1_protocol")]
        protocol: String,
        /// Give no new addresses.
        disable: bool,
        /// Kept for compatibility.
        #[serde(rename = "usingKnownIPs")]
        using_known_ips: bool,
    }
}

fields! {
    /// What is in use of a pool.
    pub struct EipStatus {
        /// Nothing is free.
        occupied: bool,
        /// Addresses in use.
        usage: i64,
        /// Addresses.
        pool_size: i64,
    }
}

fields! {
    /// How the nodes speak BGP.
    #[derive(CustomResource)]
    #[kube(
        group = "network.kubesphere.io", version = "v1alpha1", kind = "BgpConf", plural = "bgpconfs", singular = "bgpconf",
        status = "EmptyStatus", derive = "Default", derive = "PartialEq", storage = false,
        deprecated = "network.kubesphere.io/v1alpha1 BgpConf is deprecated; use v1alpha2", doc = "How the nodes speak BGP."
    )]
    pub struct BgpConfSpec {
        /// The autonomous system number.
        #[serde(rename = "as")]
        asn: u32,
        /// The BGP identifier.
        #[serde(rename = "routerID")]
        #[schemars(schema_with = "schema::ipv4")]
        router_id: String,
        /// The TCP port.
        #[schemars(range(min = 1, max = 65535))]
        port: u32,
    }
}

fields! {
    /// Nothing.
    pub struct EmptyStatus {}
}

fields! {
    /// A BGP neighbour of the nodes.
    #[derive(CustomResource)]
    #[kube(
        group = "network.kubesphere.io", version = "v1alpha1", kind = "BgpPeer", plural = "bgppeers", singular = "bgppeer",
        status = "EmptyStatus", derive = "Default", derive = "PartialEq", storage = false,
        deprecated = "network.kubesphere.io/v1alpha1 BgpPeer is deprecated; use v1alpha2", doc = "A BGP neighbour of the nodes."
    )]
    pub struct BgpPeerSpec {
        /// Who the neighbour is.
        config: PeerConfig,
        /// Additional paths.
        add_paths: AddPaths,
        /// The TCP connection.
        transport: Transport,
        /// Historical.
        using_port_forward: bool,
    }
}

fields! {
    /// Who the neighbour is.
    pub struct PeerConfig {
        /// Its autonomous system number.
        peer_as: u32,
        /// Its address.
        #[schemars(schema_with = "schema::ipv4")]
        neighbor_address: String,
    }
}

fields! {
    /// Additional paths.
    pub struct AddPaths {
        /// Send at most so many.
        send_max: u8,
    }
}

fields! {
    /// The TCP connection.
    pub struct Transport {
        /// Wait for the neighbour to connect.
        passive_mode: bool,
        /// The neighbour's TCP port.
        #[schemars(range(min = 1, max = 65535))]
        remote_port: u32,
    }
}

/// Renames the fields of a `v1alpha1` object to those of `v1alpha2`, as far as they have a counterpart.
pub fn convert(kind: Kind, value: &mut Value) {
    if let Value::Object(map) = value {
        map.insert("apiVersion".to_owned(), json!(kind.api_version()));
    }
    let Some(Value::Object(spec)) = value.get_mut("spec") else { return };
    let mut rename = |from: &str, to: &str| {
        if let Some(value) = spec.remove(from) {
            spec.entry(to).or_insert(value);
        }
    };
    match kind {
        Kind::BgpConf => {
            rename("routerID", "routerId");
            rename("port", "listenPort");
        }
        Kind::BgpPeer => {
            rename("config", "conf");
            spec.remove("usingPortForward");
            if let Some(send_max) = spec.remove("addPaths").as_ref().and_then(|paths| paths.get("sendMax")) {
                let v6 = spec
                    .get("conf")
                    .and_then(|conf| conf.get("neighborAddress"))
                    .and_then(Value::as_str)
                    .is_some_and(|address| address.contains(':'));
                let family = json!({"afi": if v6 { "AFI_IP6" } else { "AFI_IP" }, "safi": "SAFI_UNICAST"});
                spec.entry("afiSafis").or_insert(json!([{
                    "config": {"family": family, "enabled": true},
                    "addPaths": {"config": {"sendMax": send_max}},
                }]));
            }
        }
        _ => {}
    }
}
