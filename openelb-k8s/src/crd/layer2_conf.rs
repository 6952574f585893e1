//! `Layer2Conf`: how addresses are announced by ARP and NDP. Only the object named `default` is honoured.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{fields, schema};

fields! {
    /// How addresses are announced by ARP and NDP.
    #[derive(CustomResource)]
    #[kube(
        group = "network.kubesphere.io", version = "v1alpha2", kind = "Layer2Conf", plural = "layer2confs", singular = "layer2conf",
        status = "Layer2ConfStatus", derive = "Default", derive = "PartialEq",
        doc = "How addresses are announced by ARP and NDP. Only the object named default is honoured.",
        printcolumn(name = "failback", type_ = "string", json_path = ".spec.failback"),
        printcolumn(name = "ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
        printcolumn(name = "age", type_ = "date", json_path = ".metadata.creationTimestamp")
    )]
    pub struct Layer2ConfSpec {
        /// Gratuitous announcements.
        gratuitous: Gratuitous,
        /// Another node answers for one whose speaker is gone.
        stand_in: StandIn,
        /// A node takes addresses so long after its host's boot. Default `30s`.
        join_delay: String,
        /// When an address goes back to its preferred node: Delayed (default), Immediate or Manual.
        #[schemars(schema_with = "schema::failback")]
        failback: String,
        /// The delay of `failback: Delayed`. Default `5m`.
        failback_delay: String,
    }
}

fields! {
    /// Gratuitous announcements.
    pub struct Gratuitous {
        /// When, after taking an address. Default `0`, `100ms`, `300ms`, `1s`, `2s`, `4s`.
        schedule: Vec<String>,
        /// Again so often. Default `60s`.
        refresh_interval: String,
    }
}

fields! {
    /// Another node answers for one whose speaker is gone while its kernel lives.
    pub struct StandIn {
        /// Default true.
        enabled: bool,
        /// Take the address over after so long. Default `10m`.
        timeout: String,
    }
}

fields! {
    /// What is true of the configuration.
    pub struct Layer2ConfStatus {
        /// The generation that this status describes.
        observed_generation: i64,
        /// What is true of the configuration now.
        #[schemars(schema_with = "schema::conditions")]
        conditions: Vec<Condition>,
    }
}
