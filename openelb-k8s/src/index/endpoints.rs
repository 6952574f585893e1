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
    /// Nodes that are Ready after they were not, and that are not [judged](super::Indexes::judge) yet, with the number
    /// of their last return.
    returning: BTreeMap<String, u64>,
    /// How often Nodes returned.
    returns: u64,
    /// No Node is Ready, or none was, and of those that are again some are returning.
    lost: bool,
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
    /// It was told to serve, after it was not, while its Node was returning: what is said of it is of now.
    told: bool,
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
                told: false,
            }
        });
        let mut parsed = Slice {
            service: NamespacedName::new(namespace, service.clone()),
            endpoints: endpoints.collect(),
        };
        let before = self.slices.get(&key);
        for endpoint in &mut parsed.endpoints {
            let known =
                |known: &&Endpoint| (&known.node, &known.address) == (&endpoint.node, &endpoint.address);
            let known = before.and_then(|before| before.endpoints.iter().find(known));
            let node = endpoint.node.as_deref().and_then(|node| nodes.get(node));
            let returning = node.is_some_and(|node| node.ready && self.returning.contains_key(&node.name));
            if endpoint.serves() {
                endpoint.told = returning && known.is_some_and(|known| known.told || !known.serves());
                continue;
            }
            // One that served may be called unready before the news of its node is here: that waits for the next news.
            endpoint.failed |= match known {
                Some(known) => known.failed && !known.serves() || known.told && returning,
                None => node.is_some_and(|node| node.ready),
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

    /// Forgets all EndpointSlices.
    pub fn clear(&mut self) {
        self.slices.clear();
        self.by_service.clear();
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

    /// A Node is there. It is Ready, or not, and so it was before; `None`: it was not there.
    pub(super) fn node_is(&mut self, node: &str, ready: bool, before: Option<bool>, blind: bool) {
        if blind {
            (self.lost, self.returning) = (true, BTreeMap::new());
        } else if ready && before == Some(false) {
            self.returns += 1;
            self.returning.insert(node.to_owned(), self.returns);
        } else if ready && !self.returning.contains_key(node) {
            self.seen(node);
        }
        self.lost &= blind || !self.returning.is_empty();
    }

    /// A Node is gone.
    pub(super) fn node_is_gone(&mut self, node: &str, blind: bool) {
        self.returning.remove(node);
        self.lost &= blind || !self.returning.is_empty();
    }

    /// This Node is Ready: the control plane sees what is on it.
    fn seen(&mut self, node: &str) {
        let all = self.slices.values_mut().flat_map(|slice| &mut slice.endpoints);
        for endpoint in all.filter(|endpoint| !endpoint.serves() && endpoint.node.as_deref() == Some(node)) {
            endpoint.failed = true;
        }
    }

    /// The Nodes that are Ready again. What is said of their endpoints may still be what was said while they were not,
    /// until somebody [judges](super::Indexes::judge) it: the kubelet first says that the Node is Ready, and then goes
    /// through its Pods. Each has a number, another one whenever it returns.
    #[must_use]
    pub const fn returning(&self) -> &BTreeMap<String, u64> {
        &self.returning
    }

    /// No Node is Ready, or none was, and of those that are again some are [returning](Self::returning).
    #[must_use]
    pub const fn sight_is_lost(&self) -> bool {
        self.lost
    }

    /// What is said of the endpoints of a Node that returned is what is known of them.
    pub(super) fn judge(&mut self, node: &str, nodes: &Nodes) {
        self.returning.remove(node);
        self.lost &= !self.returning.is_empty() || nodes.none_is_ready();
        if nodes.get(node).is_some_and(|node| node.ready) {
            self.seen(node);
        }
    }

    /// Nodes that have ready endpoints of the Service. If there is no ready one anywhere: those that have serving ones
    /// (that end, and still answer), and those whose endpoints have not failed, as far as the control plane saw them:
    /// their Node is not Ready, or was not a moment ago.
    ///
    /// While no Node is Ready the control plane sees nothing, and calls all endpoints unready. Those that had not failed
    /// before count as ready then, and until the Nodes that came back are [judged](super::Indexes::judge).
    #[must_use]
    pub fn nodes(&self, service: &NamespacedName, nodes: &Nodes) -> BTreeSet<&str> {
        let counts = |e: &Endpoint| e.ready || self.lost && !e.failed;
        let some_count = self.of(service).any(counts);
        self.of(service)
            .filter(|e| if some_count { counts(e) } else { e.serving || self.is_unseen(e, nodes) })
            .filter_map(|e| e.node.as_deref())
            .collect()
    }

    /// Has the Service an endpoint that is ready, or else serving? What is not seen counts as for
    /// [`nodes`](Endpoints::nodes).
    #[must_use]
    pub fn any(&self, service: &NamespacedName, nodes: &Nodes) -> bool {
        self.of(service).any(|e| e.serves() || self.lost && !e.failed || self.is_unseen(e, nodes))
    }

    /// It may serve: it did when it was seen last.
    fn is_unseen(&self, endpoint: &Endpoint, nodes: &Nodes) -> bool {
        let node = endpoint.node.as_deref().and_then(|name| nodes.get(name));
        !endpoint.failed && node.is_some_and(|node| !node.ready || self.returning.contains_key(&*node.name))
    }
}
