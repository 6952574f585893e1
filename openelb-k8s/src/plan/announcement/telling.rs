//! What of the announcements somebody should be told, by one node for all.

use std::collections::BTreeMap;

use super::{Settings, addresses};
use crate::index::Indexes;
use crate::names::{event, label};
use crate::object::{Kind, ObjectRef};
use crate::plan::Event;

/// The node whose speaker tells what concerns all of them: the first with a speaker that is `Ready`, else the first with
/// a speaker. `None`: no speaker has said anything yet.
#[must_use]
pub fn teller(indexes: &Indexes) -> Option<&str> {
    let speakers = || indexes.speakers.iter().map(|speaker| speaker.node.as_str());
    let ready = |node: &&str| indexes.nodes.get(node).is_some_and(|node| node.ready);
    speakers().find(ready).or_else(|| speakers().next())
}

/// Warnings that concern the whole cluster: pools whose addresses nobody announces because every node that could has the
/// label `node.kubernetes.io/exclude-from-external-load-balancers`, which kubeadm puts on control-plane nodes.
#[must_use]
pub fn warnings(indexes: &Indexes, settings: &Settings) -> Vec<Event> {
    if settings.ignore_exclude_label || !indexes.nodes.iter().any(|node| node.is_excluded()) {
        return Vec::new();
    }
    let cluster = Settings { dataplane_healthy: true, ..settings.clone() };
    let announced = addresses(indexes, &cluster, None);
    let without_label = addresses(indexes, &Settings { ignore_exclude_label: true, ..cluster }, None);
    let mut silent: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (address, announcement) in
        without_label.iter().filter(|(address, _)| !announced.contains_key(*address))
    {
        silent.entry(&announcement.pool).or_default().push(address.to_string());
    }
    let warning = |(pool, addresses): (&str, Vec<String>)| Event {
        regarding: ObjectRef::cluster(Kind::Eip, pool),
        warning: true,
        reason: event::NO_ANNOUNCER,
        message: format!(
            "nobody announces {} of this pool ({}{}): every node that could has the label {}; remove it from nodes \
             that take traffic, or start the speakers with --ignore-exclude-label",
            if addresses.len() == 1 {
                "1 address".to_owned()
            } else {
                format!("{} addresses", addresses.len())
            },
            addresses.iter().take(3).cloned().collect::<Vec<_>>().join(", "),
            if addresses.len() > 3 { ", …" } else { "" },
            label::EXCLUDE_NODE,
        ),
    };
    silent.into_iter().map(warning).collect()
}
