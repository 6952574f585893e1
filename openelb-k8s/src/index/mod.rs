//! Indexes: plain structs with `apply` and `delete` that hold parsed views of the objects.
//!
//! Parsing happens here, once. A bad object becomes a view with a typed problem, which becomes a condition on that
//! object; it never affects others.

pub mod conditions;
pub mod endpoints;
pub mod layer2;
pub mod nodes;
pub mod peers;
pub mod pools;
pub mod services;
pub mod speakers;
pub(crate) mod used;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::names::{DEFAULT_OBJECT, annotation};
use crate::object::{Kind, NamespacedName, Object, ObjectRef};
use crate::problem::Problem;
use crate::selector::Labels;

pub use endpoints::Endpoints;
pub use layer2::Layer2;
pub use nodes::{NodeView, Nodes};
pub use peers::{BgpConfView, PeerView, Peers};
pub use pools::{EipView, PoolSpec, Pools};
pub use services::{ServiceView, Services};
pub use speakers::{SpeakerView, Speakers};

/// All indexes together: what the plans are computed from.
#[derive(Clone, Debug, Default)]
pub struct Indexes {
    /// Eips.
    pub pools: Pools,
    /// Services.
    pub services: Services,
    /// EndpointSlices by Service.
    pub endpoints: Endpoints,
    /// Nodes.
    pub nodes: Nodes,
    /// BgpConfs, BgpPeers and what they name.
    pub peers: Peers,
    /// The Layer2Conf.
    pub layer2: Layer2,
    /// SpeakerStatuses: which nodes have a speaker.
    pub speakers: Speakers,
    /// Labels of Namespaces.
    pub namespaces: Namespaces,
    /// Objects whose present version cannot be read.
    unreadable: BTreeMap<ObjectRef, SpecProblem>,
    /// How often changes were taken.
    taken: u64,
}

/// What an allocation plan looks at and changed since the last one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// How often changes were taken from these indexes.
    pub(crate) number: u64,
    /// Anything may be different.
    pub(crate) everything: bool,
    /// Eips that are different, though not in what they give to whom.
    pub(crate) eips: BTreeSet<String>,
    /// Services that are different, or their records in Eips, or their namespace.
    pub(crate) services: BTreeSet<NamespacedName>,
}

impl Indexes {
    /// Empty indexes; `rules` decide which Services are ours.
    #[must_use]
    pub fn new(rules: services::ClassRules) -> Self {
        Self { services: Services::new(rules), ..Self::default() }
    }

    /// What changed since the last call; at the first, everything.
    pub(crate) fn take_changes(&mut self) -> Changes {
        self.taken += 1;
        let mut changes = Changes { number: self.taken, ..Changes::default() };
        let moved = self.nodes.take_moved();
        let namespaces = self.namespaces.take_changes();
        let (Some(pools), Some(services)) = (self.pools.take_changes(), self.services.take_changes()) else {
            return Changes { everything: true, ..changes };
        };
        changes.everything = moved || pools.reshaped;
        changes.eips = pools.eips;
        changes.services = services;
        changes.services.extend(pools.holders);
        for namespace in namespaces {
            changes.services.extend(self.services.in_namespace(&namespace).cloned());
        }
        changes
    }

    /// Takes in a new version of an object. Says whether anything that a plan looks at changed.
    pub fn apply(&mut self, object: &Object) -> bool {
        let changed = self.apply_readable(object);
        if !self.unreadable.is_empty()
            && let Some(problem) = self.unreadable.get(&object.reference()).cloned()
        {
            self.show(&object.reference(), &problem, true);
        }
        changed
    }

    fn apply_readable(&mut self, object: &Object) -> bool {
        match object {
            Object::Eip(eip) => self.pools.apply(eip),
            Object::Service(service) => self.services.apply(service),
            Object::EndpointSlice(slice) => self.endpoints.apply(slice, &self.nodes),
            Object::Node(node) => {
                let name = node.metadata.name.as_deref().unwrap_or_default();
                let before = self.nodes.get(name).map(|node| node.ready);
                let changed = self.nodes.apply(node);
                let ready = self.nodes.get(name).is_some_and(|node| node.ready);
                self.endpoints.node_is(name, ready, before, self.nodes.none_is_ready());
                changed
            }
            Object::Namespace(namespace) => self.namespaces.apply(
                namespace.metadata.name.as_deref().unwrap_or_default(),
                namespace.metadata.labels.clone().unwrap_or_default().into(),
            ),
            Object::BgpConf(conf) => self.peers.apply_conf(conf),
            Object::BgpPeer(peer) => self.peers.apply_peer(peer),
            Object::Secret(secret) => self.peers.apply_secret(secret),
            Object::Layer2Conf(conf) => self.layer2.apply(conf),
            Object::SpeakerStatus(status) => self.speakers.apply(status),
            // Kept by those that use them.
            Object::BgpPolicy(_) | Object::VipGroup(_) | Object::ConfigMap(_) => false,
        }
    }

    /// What is said of the endpoints of a Node that is Ready again is what is known of them from now on: see
    /// [`Endpoints::returning`].
    pub fn judge(&mut self, node: &str) {
        self.endpoints.judge(node, &self.nodes);
    }

    /// Forgets an object. Says whether it was there.
    pub fn delete(&mut self, reference: &ObjectRef) -> bool {
        match reference.kind {
            Kind::Eip => self.pools.delete(&reference.name),
            Kind::Service => self.services.delete(&reference.key()),
            Kind::EndpointSlice => self.endpoints.delete(&reference.key()),
            Kind::Node => {
                let deleted = self.nodes.delete(&reference.name);
                self.endpoints.node_is_gone(&reference.name, self.nodes.none_is_ready());
                deleted
            }
            Kind::Namespace => self.namespaces.delete(&reference.name),
            Kind::BgpConf => self.peers.delete_conf(&reference.name),
            Kind::BgpPeer => self.peers.delete_peer(&reference.name),
            Kind::Secret => self.peers.delete_secret(&reference.key()),
            Kind::SpeakerStatus => self.speakers.delete(&reference.name),
            Kind::Layer2Conf => self.layer2.delete(&reference.name),
            Kind::BgpPolicy | Kind::VipGroup | Kind::ConfigMap => false,
        }
    }

    /// The objects whose present version could not even be read: the whole set. What is known of them stays in
    /// force, with the problem shown on them, until the set does not hold them any more. Says whether the set changed.
    pub fn set_unreadable(&mut self, unreadable: &[(ObjectRef, Problem)]) -> bool {
        let wanted: BTreeMap<ObjectRef, SpecProblem> = unreadable
            .iter()
            .map(|(reference, problem)| {
                let field = problem.field.clone().unwrap_or_else(|| "spec".to_owned());
                (reference.clone(), SpecProblem::new(field, problem.cause.clone(), problem.remedy.clone()))
            })
            .collect();
        if wanted == self.unreadable {
            return false;
        }
        for (reference, problem) in std::mem::take(&mut self.unreadable) {
            self.show(&reference, &problem, false);
        }
        for (reference, problem) in &wanted {
            self.show(reference, problem, true);
        }
        self.unreadable = wanted;
        true
    }

    /// What of an object's spec cannot be used; nothing of kinds that are used whatever they say.
    #[must_use]
    pub fn spec_problems(&self, object: &ObjectRef) -> &[SpecProblem] {
        let name = &object.name;
        let problems = match object.kind {
            Kind::Eip => self.pools.get(name).map(|view| view.problems.as_slice()),
            Kind::BgpPeer => self.peers.get(name).map(|view| view.problems.as_slice()),
            Kind::BgpConf => {
                let conf = self.peers.confs().find(|view| view.name == *name);
                conf.map(|view| view.problems.as_slice())
            }
            Kind::Layer2Conf if name == DEFAULT_OBJECT => Some(self.layer2.problems()),
            _ => None,
        };
        problems.unwrap_or_default()
    }

    /// Puts a problem on the view of an object, or takes it off.
    fn show(&mut self, reference: &ObjectRef, problem: &SpecProblem, shown: bool) {
        let name = &reference.name;
        let place = match reference.kind {
            Kind::Eip => self.pools.problems_mut(name),
            Kind::BgpPeer => self.peers.peer_problems_mut(name),
            Kind::BgpConf => self.peers.conf_problems_mut(name),
            Kind::Layer2Conf => self.layer2.problems_mut(name),
            Kind::Service => self.services.problems_mut(&reference.key()).map(|problems| (problems, None)),
            _ => None,
        };
        let Some((problems, last_good)) = place else { return };
        problems.retain(|known| known != problem);
        if shown {
            problems.push(problem.clone());
        }
        if let Some(last_good) = last_good {
            *last_good = shown || *last_good && !problems.is_empty();
        }
    }
}

/// Labels of Namespaces.
#[derive(Clone, Debug, Default)]
pub struct Namespaces {
    labels: BTreeMap<String, Labels>,
    /// Those that changed since they were asked for the last time.
    changes: BTreeSet<String>,
}

impl Namespaces {
    /// Takes in the labels of a Namespace.
    pub fn apply(&mut self, name: &str, mut labels: Labels) -> bool {
        let key = crate::names::label::NAMESPACE_NAME;
        if !labels.contains_key(key) {
            let given = labels.iter().map(|(key, value)| (key.clone(), value.clone()));
            labels = given.chain([(key.to_owned(), name.to_owned())]).collect();
        }
        let changed = self.labels.get(name) != Some(&labels);
        if changed {
            self.changes.insert(name.to_owned());
            self.labels.insert(name.to_owned(), labels);
        }
        changed
    }

    fn take_changes(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.changes)
    }

    /// Forgets a Namespace.
    pub fn delete(&mut self, name: &str) -> bool {
        self.changes.insert(name.to_owned());
        self.labels.remove(name).is_some()
    }

    /// The labels of a Namespace. One that is not known has the label that every Namespace has: its name.
    #[must_use]
    pub fn labels(&self, name: &str) -> Labels {
        self.labels.get(name).cloned().unwrap_or_else(|| {
            Labels::from([(crate::names::label::NAMESPACE_NAME.to_owned(), name.to_owned())])
        })
    }
}

/// A part of a spec that cannot be used; becomes a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecProblem {
    /// The field: a path such as `spec.address`.
    pub field: String,
    /// What is wrong.
    pub cause: String,
    /// What to do about it.
    pub remedy: String,
}

/// What of an object's spec could not be read and was left out, when it came from an API server: an object that was
/// stored before a field had its type. It counts as one with a bad spec, and keeps its status and its place.
#[must_use]
pub fn unreadable(metadata: &ObjectMeta) -> Vec<SpecProblem> {
    let text = metadata.annotations.as_ref().and_then(|all| all.get(annotation::UNREADABLE));
    let Some(text) = text else { return Vec::new() };
    let problems: Vec<[String; 3]> = serde_json::from_str(text).unwrap_or_default();
    problems.into_iter().map(|[field, cause, remedy]| SpecProblem { field, cause, remedy }).collect()
}

/// Puts what of a spec cannot be read before what else is wrong with it, and leaves out what follows from that.
fn add_unreadable(metadata: &ObjectMeta, problems: &mut Vec<SpecProblem>) {
    let unreadable = unreadable(metadata);
    let follows = |problem: &SpecProblem| unreadable.iter().any(|first| within(&first.field, &problem.field));
    problems.retain(|problem| !follows(problem));
    problems.splice(0..0, unreadable);
}

/// Are two fields in the same part of the spec?
fn within(one: &str, other: &str) -> bool {
    let part = |field: &str| -> Option<String> {
        Some(field.strip_prefix("spec.")?.split(['.', '[']).next()?.to_owned())
    };
    part(one).is_some() && part(one) == part(other)
}

/// How [`unreadable`] is noted on the object.
pub(crate) fn mark_unreadable(problems: &[SpecProblem]) -> String {
    let parts: Vec<[&str; 3]> =
        problems.iter().map(|problem| [&*problem.field, &*problem.cause, &*problem.remedy]).collect();
    serde_json::json!(parts).to_string()
}

impl SpecProblem {
    /// Of these parts.
    pub fn new(field: impl Into<String>, cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { field: field.into(), cause: cause.into(), remedy: remedy.into() }
    }

    /// As a problem of an object.
    #[must_use]
    pub fn into_problem(self, object: ObjectRef) -> Problem {
        Problem::error(self.cause, self.remedy).at(self.field).of(object)
    }
}

impl std::fmt::Display for SpecProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}; {}", self.field, self.cause, self.remedy)
    }
}
