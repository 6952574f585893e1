//! The whole, in a few lines.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Picture, ServiceRow};

/// Who writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Controller {
    /// Somebody holds the Lease, and it is not over.
    pub leads: bool,
    /// The identity of who held it last.
    pub leader: Option<String>,
    /// Seconds since it was renewed, by the clock of whoever asks.
    pub renewed_ago: Option<i64>,
}

/// A node's speaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerRow {
    /// The node.
    pub node: String,
    /// The version of the program.
    pub version: Option<String>,
    /// Sessions that are established.
    pub established: usize,
    /// Neighbours that it is to talk to.
    pub peers: i64,
    /// Addresses that it announces.
    pub announced: i64,
    /// What is wrong, in words.
    pub problems: Vec<String>,
}

/// The whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Who writes; `None`: nobody ever did, or it is not known.
    pub controller: Option<Controller>,
    /// Every speaker, by node.
    pub speakers: Vec<SpeakerRow>,
    /// How many Eips there are.
    pub pools: usize,
    /// Addresses in use.
    pub usage: i64,
    /// Usable addresses, saturating.
    pub pool_size: i64,
    /// Services of ours.
    pub services: usize,
    /// How many of them have an address.
    pub assigned: usize,
    /// What is wrong, each with where to look; empty: nothing.
    pub problems: Vec<String>,
}

impl Picture<'_> {
    /// The whole, and what is wrong with it.
    #[must_use]
    pub fn status(&self) -> Status {
        let (pools, services) = (self.pools(), self.services());
        let speakers: Vec<SpeakerRow> = self
            .lists
            .speakers
            .iter()
            .map(|speaker| SpeakerRow {
                node: speaker.node.clone(),
                version: speaker.version.clone(),
                established: speaker.sessions.values().filter(|s| s.is_established()).count(),
                peers: speaker.configured_peers,
                announced: speaker.announced,
                problems: speaker.problems.clone(),
            })
            .collect();
        let mut problems = Vec::new();
        if !self.lists.controller.as_ref().is_some_and(|controller| controller.leads) {
            problems.push(self.controller_in_words());
        }
        for pool in pools.iter().filter(|pool| !pool.ready) {
            problems.push(format!("Eip {}: {}", pool.name, pool.notes.join("; ")));
        }
        let mut waiting: BTreeMap<&str, (usize, String)> = BTreeMap::new();
        for service in services.iter().filter(|service| service.addresses.is_empty()) {
            let reason = if service.reason.is_empty() { "not decided yet" } else { &service.reason };
            let first = format!("{}/{}", service.namespace, service.name);
            waiting.entry(reason).or_insert((0, first)).0 += 1;
        }
        for (reason, (count, first)) in waiting {
            problems.push(format!(
                "{count} Services wait for an address ({reason}): kubectl openelb explain service {first}"
            ));
        }
        let unheard: Vec<_> = services.iter().filter(|service| is_unheard(service)).collect();
        if let Some(first) = unheard.first() {
            problems.push(format!(
                "{} Services have an address that no node announces: kubectl openelb explain service {}/{}",
                unheard.len(),
                first.namespace,
                first.name
            ));
        }
        self.peer_problems(&mut problems);
        for speaker in &speakers {
            problems
                .extend(speaker.problems.iter().map(|text| format!("speaker on {}: {text}", speaker.node)));
        }
        Status {
            controller: self.lists.controller.clone(),
            speakers,
            pools: pools.len(),
            usage: pools.iter().fold(0, |sum, pool| sum.saturating_add(pool.usage)),
            pool_size: pools.iter().fold(0, |sum, pool| sum.saturating_add(pool.pool_size)),
            assigned: services.iter().filter(|service| !service.addresses.is_empty()).count(),
            services: services.len(),
            problems,
        }
    }

    fn peer_problems(&self, problems: &mut Vec<String>) {
        for conf in self.indexes.peers.confs().filter(|conf| !conf.problems.is_empty()) {
            problems.push(format!("BgpConf {}: {}", conf.name, crate::plan::status::explain(&conf.problems)));
        }
        for peer in self.peers() {
            if peer.state == "ESTABLISHED" {
                continue;
            }
            let node = if peer.node.is_empty() { String::new() } else { format!(" on {}", peer.node) };
            let what = match (peer.state.as_str(), peer.note.as_str()) {
                ("", note) => note.to_owned(),
                (state, "") => format!("session {state}"),
                (state, note) => format!("session {state}: {note}"),
            };
            problems.push(format!("BgpPeer {}{node}: {what}", peer.name));
        }
    }

    /// Whether somebody writes.
    pub(super) fn controller_in_words(&self) -> String {
        let look = format!("see kubectl -n {} get pods", self.lists.settings.namespace);
        match &self.lists.controller {
            None => format!("no controller holds the Lease {}; {look}", crate::names::LEASE),
            Some(controller) => {
                let name = controller.leader.as_deref().unwrap_or("nobody");
                let ago =
                    controller.renewed_ago.map_or(String::new(), |ago| format!(", renewed {ago} s ago"));
                if controller.leads {
                    format!("{name} leads{ago}")
                } else {
                    format!("no controller leads (the last was {name}{ago}); {look}")
                }
            }
        }
    }
}

/// It has an address that is to be announced, and nobody does.
fn is_unheard(service: &ServiceRow) -> bool {
    !service.addresses.is_empty() && service.announced_by.is_empty() && service.is_to_be_announced
}
