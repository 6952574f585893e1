//! `SpeakerStatus`: what one node's speaker does. Written by that speaker only.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{bgp_peer::NodePeerStatus, fields, schema};

fields! {
    /// What one node's speaker does; the object has the node's name.
    #[derive(CustomResource)]
    #[kube(
        group = "network.kubesphere.io", version = "v1alpha2", kind = "SpeakerStatus", plural = "speakerstatuses", singular = "speakerstatus",
        status = "SpeakerStatusStatus", derive = "Default", derive = "PartialEq",
        doc = "What one node's speaker does.",
        printcolumn(name = "sessions", type_ = "integer", json_path = ".status.establishedSessions"),
        printcolumn(name = "peers", type_ = "integer", json_path = ".status.configuredPeers"),
        printcolumn(name = "addresses", type_ = "integer", json_path = ".status.announcedAddresses"),
        printcolumn(name = "ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
        printcolumn(name = "age", type_ = "date", json_path = ".metadata.creationTimestamp")
    )]
    pub struct SpeakerStatusSpec {
        /// The node.
        node_name: String,
    }
}

fields! {
    /// What the speaker does.
    pub struct SpeakerStatusStatus {
        /// Its BGP identifier.
        router_id: String,
        /// Its autonomous system number.
        #[serde(rename = "as")]
        asn: u32,
        /// Its sessions, by name of the BgpPeer; those of dynamic neighbours by `NAME/ADDRESS`.
        peers: BTreeMap<String, NodePeerStatus>,
        /// What keeps a BgpPeer from being used on this node, by its name.
        peer_problems: BTreeMap<String, String>,
        /// What is to be known about a BgpPeer on this node and hinders nothing, by its name.
        peer_warnings: BTreeMap<String, String>,
        /// How many peers are configured on this node.
        configured_peers: i64,
        /// How many of them are established.
        established_sessions: i64,
        /// How many addresses are announced.
        announced_addresses: i64,
        /// How many of each pool and family.
        pools: BTreeMap<String, AnnouncedCounts>,
        /// Addresses for which this node answers on its segments, up to the limit; the read API has them all.
        layer2_addresses: Vec<String>,
        /// How it answers for them; of the first of them where all would be too long.
        layer2_answers: Vec<Layer2Answer>,
        /// `layer2Addresses` is cut off.
        layer2_truncated: bool,
        /// The version of the speaker.
        version: String,
        /// What is true of the speaker now.
        #[schemars(schema_with = "schema::conditions")]
        conditions: Vec<Condition>,
    }
}

fields! {
    /// How a node answers for an address on its segments.
    #[derive(Eq)]
    pub struct Layer2Answer {
        /// The address.
        address: String,
        /// Where; several interfaces are separated by commas.
        interface: String,
        /// The MAC address that it gives; of a stand-in, that of the owner.
        mac: String,
        /// Since when (RFC 3339).
        since: String,
        /// The node for whose speaker it stands in; absent: it owns the address.
        stand_in_for: String,
    }
}

fields! {
    /// Announced addresses of a pool.
    pub struct AnnouncedCounts {
        /// IPv4.
        v4: i64,
        /// IPv6.
        v6: i64,
    }
}
