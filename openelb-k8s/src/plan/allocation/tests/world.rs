//! A store in memory.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::{Allocation, Planner, plan};
use crate::index::Indexes;
use crate::index::services::ClassRules;
use crate::object::{Kind, NamespacedName, Object, ObjectRef};
use crate::plan::{Event, Patch, Write, merge_patch};

/// Objects, and the indexes over them.
pub(super) struct World {
    objects: BTreeMap<ObjectRef, Value>,
    pub(super) indexes: Indexes,
    planner: Planner,
    pub(super) events: Vec<Event>,
    /// Writes since the last call of [`World::settle`] began.
    pub(super) writes: Vec<Write>,
    clock: i64,
    version: u64,
}

/// An object in the making.
pub(super) fn eip(name: &str, address: &str) -> Value {
    json!({"apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip", "metadata": {"name": name},
           "spec": {"address": address}})
}

/// A Service of ours in the namespace `ns`, one port TCP 80.
pub(super) fn service(name: &str) -> Value {
    service_in("ns", name)
}

pub(super) fn service_in(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name},
           "spec": {"type": "LoadBalancer", "loadBalancerClass": "openelb.io/openelb",
                    "ports": [{"port": 80, "protocol": "TCP"}], "selector": {"app": name}}})
}

/// Merges more into an object.
pub(super) fn with(mut object: Value, more: Value) -> Value {
    merge_patch(&mut object, &more);
    object
}

/// Sets an annotation.
pub(super) fn annotated(object: Value, key: &str, value: &str) -> Value {
    with(object, json!({"metadata": {"annotations": {key: value}}}))
}

/// A default Eip.
pub(super) fn default_eip(name: &str, address: &str) -> Value {
    annotated(eip(name, address), "eip.openelb.kubesphere.io/is-default-eip", "true")
}

/// A Service that asks for pools.
pub(super) fn from(pools: &str, object: Value) -> Value {
    annotated(object, "eip.openelb.kubesphere.io/v1alpha2", pools)
}

/// A Service that asks for addresses.
pub(super) fn asking(addresses: &str, object: Value) -> Value {
    annotated(object, "eip.openelb.kubesphere.io/v1alpha1", addresses)
}

/// A Service with families.
pub(super) fn families(policy: &str, families: &[&str], object: Value) -> Value {
    with(object, json!({"spec": {"ipFamilyPolicy": policy, "ipFamilies": families}}))
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            objects: BTreeMap::new(),
            indexes: Indexes::new(ClassRules::default()),
            planner: Planner::new(),
            events: Vec::new(),
            writes: Vec::new(),
            clock: 1_700_000_000,
            version: 0,
        }
    }

    /// With these objects, settled after each.
    pub(super) fn of(objects: impl IntoIterator<Item = Value>) -> Self {
        let mut world = Self::new();
        for object in objects {
            world.apply(object);
        }
        world.settle();
        world
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.clock).unwrap()
    }

    /// What a user applies: metadata and status that we own stay, a change of spec counts a generation.
    pub(super) fn apply(&mut self, mut object: Value) {
        let reference = Object::from_value(object.clone()).unwrap().unwrap().reference();
        self.clock += 1;
        if let Some(before) = self.objects.get(&reference) {
            let changed = before["spec"] != object["spec"];
            let generation = before["metadata"]["generation"].as_i64().unwrap() + i64::from(changed);
            let metadata = &before["metadata"];
            let mut keep = json!({"generation": generation});
            for field in ["uid", "creationTimestamp", "finalizers", "deletionTimestamp"] {
                if let Some(value) = metadata.get(field) {
                    keep[field] = value.clone();
                }
            }
            let assigned = &metadata["annotations"]["openelb.kubesphere.io/assigned"];
            if !assigned.is_null() {
                keep["annotations"] = json!({"openelb.kubesphere.io/assigned": assigned});
            }
            let label = &metadata["labels"]["eip.openelb.kubesphere.io/v1alpha2"];
            if !label.is_null() {
                keep["labels"] = json!({"eip.openelb.kubesphere.io/v1alpha2": label});
            }
            merge_patch(&mut object, &json!({"metadata": keep}));
            if object.get("status").is_none()
                && let Some(status) = before.get("status")
            {
                object["status"] = status.clone();
            }
        } else {
            let created = self.now().to_string();
            let defaults = json!({"metadata": {"generation": 1, "uid": reference.to_string(),
                                               "creationTimestamp": created}});
            let mut full = defaults;
            merge_patch(&mut full, &object);
            object = full;
        }
        self.put(reference, object);
    }

    fn put(&mut self, reference: ObjectRef, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.indexes.apply(&Object::from_value(object.clone()).unwrap().unwrap());
        self.objects.insert(reference, object);
    }

    /// Changes an object as somebody who may do anything would.
    pub(super) fn patch(&mut self, reference: &ObjectRef, patch: Value) {
        let mut object = self.objects[reference].clone();
        merge_patch(&mut object, &patch);
        self.put(reference.clone(), object);
    }

    pub(super) fn patch_eip(&mut self, name: &str, patch: Value) {
        self.patch(&ObjectRef::cluster(Kind::Eip, name), patch);
    }

    pub(super) fn patch_service(&mut self, name: &str, patch: Value) {
        self.patch(&service_ref(name), patch);
    }

    /// What `kubectl delete` does: gone, or going while there are finalizers.
    pub(super) fn delete(&mut self, reference: &ObjectRef) {
        let object = &self.objects[reference];
        let held = object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
        if held {
            let now = self.now().to_string();
            let generation = object["metadata"]["generation"].as_i64().unwrap() + 1;
            self.patch(reference, json!({"metadata": {"deletionTimestamp": now, "generation": generation}}));
        } else {
            self.objects.remove(reference);
            self.indexes.delete(reference);
        }
    }

    pub(super) fn delete_eip(&mut self, name: &str) {
        self.delete(&ObjectRef::cluster(Kind::Eip, name));
    }

    pub(super) fn delete_service(&mut self, name: &str) {
        self.delete(&service_ref(name));
    }

    /// What is to be written. The planner, which looks only at what changed, says the same.
    pub(super) fn plan(&mut self) -> Allocation {
        let now = self.now();
        let full = plan(&self.indexes, now);
        let mut allocation = self.planner.plan(&mut self.indexes, now);
        for (planned, full) in allocation.writes.iter_mut().zip(&full.writes) {
            planned.patch = Patch::Open(with_times_of(planned.patch().into_owned(), &full.patch()));
        }
        assert_eq!(allocation.writes, full.writes);
        assert_eq!(allocation.events, full.events);
        assert_eq!(*self.planner.services(), full.services);
        assert_eq!(*self.planner.pools(), full.pools);
        full
    }

    /// Executes one write, as a store does.
    pub(super) fn execute(&mut self, write: &Write) {
        let object = &self.objects[&write.target];
        assert_eq!(object["metadata"]["resourceVersion"], json!(write.resource_version), "{write:?}");
        self.writes.push(write.clone());
        let service = self.indexes.services.get(&write.target.key());
        let before = service.map(|service| service.published()).unwrap_or_default();
        self.patch(&write.target, (*write.patch()).clone());
        let metadata = &self.objects[&write.target]["metadata"];
        let held = metadata["finalizers"].as_array().is_some_and(|list| !list.is_empty());
        if metadata.get("deletionTimestamp").is_some() && !held {
            self.objects.remove(&write.target);
            self.indexes.delete(&write.target);
        }
        self.check(&before);
    }

    /// Plans and executes until nothing is left. The last plan is returned.
    pub(super) fn settle(&mut self) -> Allocation {
        self.writes.clear();
        self.events.clear();
        for _ in 0..12 {
            let allocation = self.plan();
            if allocation.writes.is_empty() {
                return allocation;
            }
            for write in &allocation.writes {
                self.execute(write);
            }
            self.events.extend(allocation.events);
        }
        panic!("does not settle: {:#?}", self.plan().writes);
    }

    /// Nothing is published that is not committed to its Service, unless it was so before we came.
    fn check(&self, before: &[IpAddr]) {
        let last = self.writes.last().unwrap();
        if last.target.kind != Kind::Service {
            return;
        }
        let key = last.target.key();
        let Some(service) = self.indexes.services.get(&key).filter(|service| service.ours) else { return };
        if last.patch().pointer("/status/loadBalancer/ingress").is_none() {
            return;
        }
        for address in service.published().into_iter().filter(|address| !before.contains(address)) {
            assert!(
                self.indexes.pools.iter().any(|eip| eip.is_held_by(address, &key)),
                "{address} is published on {key} and not committed"
            );
        }
    }

    /// The published addresses of `ns/name`, separated by blanks.
    pub(super) fn published(&self, name: &str) -> String {
        self.published_in("ns", name)
    }

    pub(super) fn published_in(&self, namespace: &str, name: &str) -> String {
        let key = NamespacedName::new(namespace, name);
        let service = self.indexes.services.get(&key).unwrap();
        service.published().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    /// `status.used` as `address=holders` separated by blanks.
    pub(super) fn used(&self, eip: &str) -> String {
        let eip = &self.objects[&ObjectRef::cluster(Kind::Eip, eip)];
        let used = eip["status"]["used"].as_object().into_iter().flatten();
        used.map(|(address, holders)| format!("{address}={}", holders.as_str().unwrap()))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Reason of a condition with its status, for example `True Assigned`; empty without the condition.
    pub(super) fn condition(&self, name: &str, condition: &str) -> String {
        let service = self.indexes.services.get(&NamespacedName::new("ns", name)).unwrap();
        let found = service.conditions.iter().find(|c| c.type_.ends_with(condition));
        found.map(|c| format!("{} {}", c.status, c.reason)).unwrap_or_default()
    }

    /// Reason of `AddressAssigned`.
    pub(super) fn assigned(&self, name: &str) -> String {
        self.condition(name, "/AddressAssigned")
    }

    /// Reason of `RequestHonoured`.
    pub(super) fn honoured(&self, name: &str) -> String {
        self.condition(name, "/RequestHonoured")
    }

    /// The message of `AddressAssigned`.
    pub(super) fn message(&self, name: &str) -> String {
        let service = self.indexes.services.get(&NamespacedName::new("ns", name)).unwrap();
        let found = service.conditions.iter().find(|c| c.type_.ends_with("/AddressAssigned"));
        found.map(|c| c.message.to_string()).unwrap_or_default()
    }

    /// The message of a condition of an Eip, if it is `True`.
    pub(super) fn eip_condition(&self, eip: &str, condition: &str) -> Option<String> {
        let eip = self.indexes.pools.get(eip).unwrap();
        let conditions = eip.status.conditions.as_deref().unwrap_or_default();
        conditions.iter().find(|c| c.type_ == condition && c.status == "True").map(|c| c.message.clone())
    }

    pub(super) fn value(&self, reference: &ObjectRef) -> &Value {
        &self.objects[reference]
    }

    pub(super) fn exists(&self, reference: &ObjectRef) -> bool {
        self.objects.contains_key(reference)
    }
}

pub(super) fn service_ref(name: &str) -> ObjectRef {
    ObjectRef::namespaced(Kind::Service, &NamespacedName::new("ns", name))
}

/// The same but for the times of conditions: a write that waits has that of the plan which first wanted it.
fn with_times_of(mut value: Value, other: &Value) -> Value {
    match (&mut value, other) {
        (Value::Object(map), Value::Object(others)) => {
            for (key, value) in map {
                let Some(other) = others.get(key) else { continue };
                *value = if key == "lastTransitionTime" {
                    other.clone()
                } else {
                    with_times_of(value.take(), other)
                };
            }
        }
        (Value::Array(list), Value::Array(others)) => {
            for (value, other) in list.iter_mut().zip(others) {
                *value = with_times_of(value.take(), other);
            }
        }
        _ => {}
    }
    value
}
