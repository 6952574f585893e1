//! EndpointSlices, by Service.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::Nodes;
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
    /// Tells it from others of its node.
    address: Option<String>,
    ready: bool,
    serving: bool,
    /// That it does not serve was seen while its node was Ready, or it ends: that is its own doing, and not that the
    /// control plane, which calls the Pods of a Node that it does not see unready, has lost sight of it.
    failed: bool,
}

impl Endpoint {
    fn serves(&self) -> bool {
        self.ready || self.serving
    }
}

impl Endpoints {
    /// Takes in a new version of an EndpointSlice. `nodes` say whether the control plane sees what is on them.
    pub fn apply(&mut self, slice: &EndpointSlice, nodes: &Nodes) -> bool {
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
                address: endpoint.addresses.first().cloned(),
                ready,
                serving: conditions.and_then(|c| c.serving).unwrap_or(ready),
                failed: conditions.and_then(|c| c.terminating).unwrap_or(false),
            }
        });
        let mut parsed = Slice {
            service: NamespacedName::new(namespace, service.clone()),
            endpoints: endpoints.collect(),
        };
        let before = self.slices.get(&key);
        for endpoint in parsed.endpoints.iter_mut().filter(|endpoint| !endpoint.serves()) {
            let known =
                |known: &&Endpoint| (&known.node, &known.address) == (&endpoint.node, &endpoint.address);
            let known = before.and_then(|before| before.endpoints.iter().find(known));
            // One that served may be called unready before the news of its node is here: that waits for the next news.
            endpoint.failed |= match known {
                Some(known) => known.failed && !known.serves(),
                None => {
                    endpoint.node.as_deref().and_then(|node| nodes.get(node)).is_some_and(|node| node.ready)
                }
            };
        }
        if before == Some(&parsed) {
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

    /// This Node is Ready now: the control plane sees what is on it.
    pub(super) fn seen(&mut self, node: &str) {
        let all = self.slices.values_mut().flat_map(|slice| &mut slice.endpoints);
        for endpoint in all.filter(|endpoint| !endpoint.serves() && endpoint.node.as_deref() == Some(node)) {
            endpoint.failed = true;
        }
    }

    /// Nodes that have ready endpoints of the Service; if there is no ready one anywhere, those that have serving
    /// ones (that end, and still answer).
    ///
    /// While no Node is Ready the control plane sees nothing, and calls all endpoints unready. Those that had not failed
    /// before count as ready then.
    #[must_use]
    pub fn nodes(&self, service: &NamespacedName, nodes: &Nodes) -> BTreeSet<&str> {
        let blind = nodes.none_is_ready();
        let counts = |e: &Endpoint| e.ready || blind && !e.failed;
        let some_count = self.of(service).any(counts);
        self.of(service)
            .filter(|e| if some_count { counts(e) } else { e.serving })
            .filter_map(|e| e.node.as_deref())
            .collect()
    }

    /// Has the Service an endpoint that is ready, or else serving? What is not seen counts as for
    /// [`nodes`](Endpoints::nodes).
    #[must_use]
    pub fn any(&self, service: &NamespacedName, nodes: &Nodes) -> bool {
        let blind = nodes.none_is_ready();
        self.of(service).any(|e| e.serves() || blind && !e.failed)
    }
}
