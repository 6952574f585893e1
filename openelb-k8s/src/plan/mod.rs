//! Plans: pure functions from the [`Indexes`](crate::index::Indexes) to values: writes, announcements, conditions.
//!
//! A plan returns only writes that are safe given what the indexes hold *now* (an address is published once the index
//! shows that it is committed). Whoever executes them takes the results into the indexes and plans again, until
//! nothing is left to write.

pub mod allocation;
pub mod announcement;
pub mod speaker_status;
pub mod status;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::object::ObjectRef;

/// A write that a plan wants: a JSON merge patch (RFC 7386) that holds only if the object still has this
/// `resourceVersion`.
#[derive(Clone, Debug)]
pub struct Write {
    /// The object.
    pub target: ObjectRef,
    /// The version that the decision was made on; another one means: decide again.
    pub resource_version: String,
    patch: Patch,
}

/// Many writes wait at a time: as text they take a tenth of the room.
#[derive(Clone, Debug)]
enum Patch {
    Open(Value),
    Packed(Arc<str>),
}

/// What a patch says of the addresses of a Service.
#[derive(Deserialize)]
struct Shown<'a> {
    #[serde(borrow)]
    status: Option<ShownStatus<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ShownStatus<'a> {
    #[serde(borrow)]
    load_balancer: Option<ShownBalancer<'a>>,
}

#[derive(Deserialize)]
struct ShownBalancer<'a> {
    #[serde(borrow)]
    ingress: Option<Vec<ShownIngress<'a>>>,
}

#[derive(Deserialize)]
struct ShownIngress<'a> {
    #[serde(borrow)]
    ip: Option<Cow<'a, str>>,
}

impl PartialEq for Write {
    fn eq(&self, other: &Self) -> bool {
        self.target == other.target
            && self.resource_version == other.resource_version
            && self.patch() == other.patch()
    }
}

impl Write {
    /// A write that changes nothing yet.
    #[must_use]
    pub fn new(target: ObjectRef, resource_version: impl Into<String>) -> Self {
        let patch = Patch::Open(Value::Object(Map::new()));
        Self { target, resource_version: resource_version.into(), patch }
    }

    /// What changes: `metadata.labels`, `metadata.annotations`, `metadata.finalizers` and `status` only.
    #[must_use]
    pub fn patch(&self) -> Cow<'_, Value> {
        match &self.patch {
            Patch::Open(patch) => Cow::Borrowed(patch),
            Patch::Packed(text) => Cow::Owned(serde_json::from_str(text).unwrap_or_default()),
        }
    }

    /// The same as text.
    #[must_use]
    pub(crate) fn text(&self) -> Cow<'_, str> {
        match &self.patch {
            Patch::Open(patch) => Cow::Owned(patch.to_string()),
            Patch::Packed(text) => Cow::Borrowed(text),
        }
    }

    /// The addresses that a Service publishes after this write; `None` if they stay as they are.
    ///
    /// ```
    /// use openelb_k8s::{object::{Kind, NamespacedName, ObjectRef}, plan::Write};
    ///
    /// let service = ObjectRef::namespaced(Kind::Service, &NamespacedName::new("shop", "web"));
    /// let write = Write::new(service, "7");
    /// assert_eq!(write.published(), None);
    /// let ingress = serde_json::json!([{"ip": "192.0.2.1", "ipMode": "VIP"}]);
    /// let write = write.set(&["status", "loadBalancer", "ingress"], ingress);
    /// assert_eq!(write.published(), Some(vec!["192.0.2.1".parse().unwrap()]));
    /// ```
    #[must_use]
    pub fn published(&self) -> Option<Vec<IpAddr>> {
        let text = self.text();
        let shown: Shown<'_> = serde_json::from_str(&text).ok()?;
        let ingress = shown.status?.load_balancer?.ingress?;
        Some(ingress.iter().filter_map(|entry| entry.ip.as_deref()?.parse().ok()).collect())
    }

    /// The same, small and cheap to clone: for whoever keeps it.
    #[must_use]
    pub(crate) fn packed(self) -> Self {
        let patch = match self.patch {
            Patch::Open(patch) => Patch::Packed(patch.to_string().into()),
            packed @ Patch::Packed(_) => packed,
        };
        Self { patch, ..self }
    }

    /// Replaces a part of the object; `path` are the keys from the root. `null` removes.
    #[must_use]
    pub fn set(self, path: &[&str], value: Value) -> Self {
        let Self { target, resource_version, patch } = self;
        let mut patch = match patch {
            Patch::Open(patch) => patch,
            Patch::Packed(text) => serde_json::from_str(&text).unwrap_or_default(),
        };
        if let Some((last, parents)) = path.split_last() {
            let mut place = &mut patch;
            for key in parents {
                if !place.is_object() {
                    *place = Value::Object(Map::new());
                }
                let Value::Object(map) = place else { break };
                place = map.entry(*key).or_insert_with(|| Value::Object(Map::new()));
            }
            if !place.is_object() {
                *place = Value::Object(Map::new());
            }
            if let Value::Object(map) = place {
                map.insert((*last).to_owned(), value);
            }
        }
        Self { target, resource_version, patch: Patch::Open(patch) }
    }

    /// Sets or (with `None`) removes a label.
    #[must_use]
    pub fn label(self, key: &str, value: Option<&str>) -> Self {
        self.set(&["metadata", "labels", key], value.map_or(Value::Null, |v| json!(v)))
    }

    /// Sets or (with `None`) removes an annotation.
    #[must_use]
    pub fn annotation(self, key: &str, value: Option<&str>) -> Self {
        self.set(&["metadata", "annotations", key], value.map_or(Value::Null, |v| json!(v)))
    }

    /// Replaces the finalizers.
    #[must_use]
    pub fn finalizers(self, finalizers: &[String]) -> Self {
        self.set(&["metadata", "finalizers"], json!(finalizers))
    }

    /// Does it change nothing?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match &self.patch {
            Patch::Open(patch) => patch.as_object().is_none_or(Map::is_empty),
            Patch::Packed(text) => &**text == "{}",
        }
    }
}

/// An event about an object, best effort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The object.
    pub regarding: ObjectRef,
    /// `Warning`, or else `Normal`.
    pub warning: bool,
    /// One of [`crate::names::event`].
    pub reason: &'static str,
    /// What happened, in words.
    pub message: String,
}

/// What every plan needs to know beside the indexes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The node that this process runs on.
    pub node_name: String,
    /// Cordoned nodes do not announce.
    pub exclude_cordoned_nodes: bool,
    /// The label `node.kubernetes.io/exclude-from-external-load-balancers` means nothing.
    pub ignore_exclude_label: bool,
    /// Policy `Cluster`: without a ready endpoint, withdraw.
    pub withdraw_without_endpoints: bool,
    /// The namespace of Secrets and ConfigMaps that our objects name.
    pub namespace: String,
    /// Is this node's data plane healthy? If not, it does not announce itself.
    pub dataplane_healthy: bool,
    /// Prefixes that are directly connected to this host; empty: not known. A neighbour on one of them reaches other
    /// nodes' addresses only on the same.
    pub connected: Vec<ipnet::IpNet>,
    /// Is it known which nodes have a speaker? If not, `nextHopMode: Auto` means `Self`.
    pub speakers_known: bool,
    /// There is no cluster: `nextHopMode: Auto` means `Self`.
    pub standalone: bool,
    /// It is not known which nodes have endpoints: every node counts as one that has.
    pub endpoints_unknown: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node_name: String::new(),
            exclude_cordoned_nodes: false,
            ignore_exclude_label: false,
            withdraw_without_endpoints: false,
            namespace: "openelb-system".to_owned(),
            dataplane_healthy: true,
            connected: Vec::new(),
            speakers_known: true,
            standalone: true,
            endpoints_unknown: false,
        }
    }
}

/// Applies a JSON merge patch (RFC 7386) to `target`.
pub fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge_patch(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// The time that conditions are stamped with, as Kubernetes writes it: whole seconds.
#[must_use]
pub fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Which keys a merge patch must have to turn the map `before` into `after`.
#[must_use]
pub fn map_patch(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Map<String, Value> {
    let mut patch = Map::new();
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in after.iter().filter(|(key, value)| before.get(*key) != Some(value)) {
        patch.insert(key.clone(), json!(value));
    }
    patch
}
