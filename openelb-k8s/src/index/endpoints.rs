//! EndpointSlices, by Service.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::names::label;
use crate::object::NamespacedName;

/// Endpoints of Services, from their EndpointSlices.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    slices: BTreeMap<NamespacedName, Slice>,
    by_service: BTreeMap<NamespacedName, BTreeSet<NamespacedName>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Slice {
    service: NamespacedName,
    endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, PartialEq)]
struct Endpoint {
    node: Option<String>,
    ready: bool,
    serving: bool,
}

impl Endpoints {
    /// Takes in a new version of an EndpointSlice.
    pub fn apply(&mut self, slice: &EndpointSlice) -> bool {
        let namespace = slice.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let key = NamespacedName::new(namespace.clone(), slice.metadata.name.clone().unwrap_or_default());
        let Some(service) = slice.metadata.labels.as_ref().and_then(|l| l.get(label::SERVICE_NAME)) else {
            return self.delete(&key);
        };
        let endpoints = slice.endpoints.iter().flatten().map(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            // Absent conditions count as true, as Kubernetes says; terminating endpoints are serving, not ready.
            let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            Endpoint {
                node: endpoint.node_name.clone(),
                ready,
                serving: conditions.and_then(|c| c.serving).unwrap_or(ready),
            }
        });
        let parsed = Slice {
            service: NamespacedName::new(namespace, service.clone()),
            endpoints: endpoints.collect(),
        };
        if self.slices.get(&key) == Some(&parsed) {
            return false;
        }
        self.delete(&key);
        self.by_service.entry(parsed.service.clone()).or_default().insert(key.clone());
        self.slices.insert(key, parsed);
        true
    }

    /// Forgets an EndpointSlice.
    pub fn delete(&mut self, key: &NamespacedName) -> bool {
        let Some(slice) = self.slices.remove(key) else { return false };
        if let Some(keys) = self.by_service.get_mut(&slice.service) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_service.remove(&slice.service);
            }
        }
        true
    }

    fn of<'a>(&'a self, service: &NamespacedName) -> impl Iterator<Item = &'a Endpoint> + use<'a> {
        self.by_service
            .get(service)
            .into_iter()
            .flatten()
            .filter_map(|key| self.slices.get(key))
            .flat_map(|slice| &slice.endpoints)
    }

    /// Nodes that have ready endpoints of the Service; if there is no ready one anywhere, those that have serving
    /// ones (that end, and still answer).
    #[must_use]
    pub fn nodes(&self, service: &NamespacedName) -> BTreeSet<&str> {
        let on = |wanted: fn(&Endpoint) -> bool| -> BTreeSet<&str> {
            self.of(service).filter(|e| wanted(e)).filter_map(|e| e.node.as_deref()).collect()
        };
        if self.of(service).any(|e| e.ready) { on(|e| e.ready) } else { on(|e| e.serving) }
    }

    /// Has the Service an endpoint that is ready, or else serving?
    #[must_use]
    pub fn any(&self, service: &NamespacedName) -> bool {
        self.of(service).any(|e| e.ready || e.serving)
    }
}
