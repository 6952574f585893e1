//! SpeakerStatuses: which nodes have a speaker, and what each says of itself.

use std::collections::BTreeMap;

use crate::crd::{SpeakerStatus, SpeakerStatusStatus};

/// SpeakerStatuses by name of the node.
#[derive(Clone, Debug, Default)]
pub struct Speakers {
    speakers: BTreeMap<String, SpeakerView>,
}

/// A SpeakerStatus.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpeakerView {
    /// The node.
    pub node: String,
    /// The version that this view is of.
    pub resource_version: String,
    /// Unique identifiers of its owners.
    pub owners: Vec<String>,
    /// The status as it is stored.
    pub status: SpeakerStatusStatus,
}

impl Speakers {
    /// Of which no more is known than the nodes that they are on.
    pub(crate) fn on(nodes: impl IntoIterator<Item = String>) -> Self {
        let view = |node: String| (node.clone(), SpeakerView { node, ..SpeakerView::default() });
        Self { speakers: nodes.into_iter().map(view).collect() }
    }

    /// Takes in a new version. Says whether a node has a speaker now that had none, or the speaker's word changed.
    pub fn apply(&mut self, object: &SpeakerStatus) -> bool {
        let metadata = &object.metadata;
        let view = SpeakerView {
            node: metadata.name.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            owners: metadata.owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect(),
            status: object.status.clone().unwrap_or_default(),
        };
        let before = self.speakers.insert(view.node.clone(), view.clone());
        before.is_none_or(|before| (before.owners, before.status) != (view.owners, view.status))
    }

    /// Forgets the speaker of a node.
    pub fn delete(&mut self, node: &str) -> bool {
        self.speakers.remove(node).is_some()
    }

    /// The speaker of a node.
    #[must_use]
    pub fn get(&self, node: &str) -> Option<&SpeakerView> {
        self.speakers.get(node)
    }

    /// Has this node a speaker? One that is down still counts: it will be back.
    #[must_use]
    pub fn has(&self, node: &str) -> bool {
        self.speakers.contains_key(node)
    }

    /// Every speaker, in the order of nodes.
    pub fn iter(&self) -> impl Iterator<Item = &SpeakerView> {
        self.speakers.values()
    }
}
