//! Who announces an address, and why another node does not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use super::{Picture, Session, Speaker};
use crate::announce::{Announcement, NextHops, PeerAnnouncements, Protocol};
use crate::index::NodeView;
use crate::index::peers::Neighbor;
use crate::index::pools::EipView;
use crate::index::services::{ServiceView, TrafficPolicy};
use crate::names::label;
use crate::plan::{Settings, announcement};

/// May a node carry an address's traffic?
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeExplanation {
    /// The node.
    pub node: String,
    /// It may.
    pub eligible: bool,
    /// Why not; empty if it may.
    pub why: String,
}

/// One node that announces an address, or should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnnouncedBy {
    /// The node whose speaker it is.
    pub node: String,
    /// `bgp`, `layer2` or `vip`.
    pub protocol: &'static str,
    /// The BgpPeer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The neighbour's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbor: Option<String>,
    /// Layer 2: where the node answers; several interfaces are separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Layer 2: the MAC address that it gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Layer 2: since when (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// It is announced.
    pub announced: bool,
    /// The session's state, or why it is not announced.
    pub state: String,
}

/// How one address is announced.
#[derive(Clone, Debug, Default)]
pub(super) struct Announced {
    pub(super) nodes: Vec<NodeExplanation>,
    pub(super) by: Vec<AnnouncedBy>,
    pub(super) missing: Vec<String>,
}

impl Picture<'_> {
    /// How `address`, which `services` publish and which is of `pool`, is announced.
    pub(super) fn announced(&self, address: IpAddr, pool: &EipView, services: &[&ServiceView]) -> Announced {
        let mut told = Announced::default();
        let Some(spec) = pool.announced_by() else { return told };
        if spec.protocols.is_empty() {
            // Protocol none: that it is announced is somebody else's business, and nothing is missing here.
            return told;
        }
        // The plans need no more than this address.
        let keys: BTreeSet<_> = services.iter().map(|service| &service.key).collect();
        let indexes = self.indexes_with(|service| keys.contains(&service.key));
        let plan = |node: &str| {
            let settings = Settings { node_name: node.to_owned(), ..self.lists.settings.clone() };
            announcement::plan(&indexes, &settings)
        };
        let eligible: BTreeSet<String> = plan("")
            .addresses
            .get(&address)
            .map(|announcement| announcement.nodes.iter().map(|hop| hop.node.clone()).collect())
            .unwrap_or_default();
        for node in self.indexes.nodes.iter() {
            let may = eligible.contains(&node.name);
            let why = if may { String::new() } else { self.why_not(node, pool, services) };
            told.nodes.push(NodeExplanation { node: node.name.clone(), eligible: may, why });
        }
        if eligible.is_empty() {
            told.missing.push(nobody(&told.nodes));
        }
        let owners = self.owners();
        for speaker in &self.lists.speakers {
            let plan = plan(&speaker.node);
            let announcement = plan.addresses.get(&address);
            if let Some(announcement) = announcement.filter(|a| a.protocols.contains(&Protocol::Bgp)) {
                let carries = announcement.self_eligible;
                for (name, peer) in plan.bgp.iter().flat_map(|bgp| &bgp.peers) {
                    let of = (address, &**announcement);
                    told.by.extend(self.to_neighbor(&speaker.node, carries, (name, peer), of));
                }
            }
            told.by.extend(
                owners.of(address).contains(&speaker.node.as_str()).then(|| answers(speaker, address)),
            );
        }
        let protocols: Vec<Protocol> = spec.protocols.iter().copied().collect();
        self.lacks(&protocols, &eligible, &mut told);
        told
    }

    /// Who announces each published address, or should, in the order of nodes; an address of a Service with
    /// `externalTrafficPolicy: Local` only by its owner, unless its EndpointSlices are known.
    #[must_use]
    pub fn announcers(&self) -> BTreeMap<IpAddr, Vec<AnnouncedBy>> {
        let mut announcers: BTreeMap<IpAddr, Vec<AnnouncedBy>> = BTreeMap::new();
        let published = announcement::plan(self.indexes, &self.lists.settings).addresses;
        let by_bgp = || published.iter().filter(|(_, known)| known.protocols.contains(&Protocol::Bgp));
        // Who its neighbours are does not depend on what is published.
        let indexes = self.indexes_with(|_| false);
        let owners = self.owners();
        for speaker in &self.lists.speakers {
            let node = &speaker.node;
            let settings = Settings { node_name: node.clone(), ..self.lists.settings.clone() };
            let neighbors = announcement::plan(&indexes, &settings).bgp;
            for (name, peer) in neighbors.iter().flat_map(|bgp| &bgp.peers) {
                for (address, known) in by_bgp() {
                    let carries = known.nodes.iter().any(|hop| hop.node == *node);
                    let by = self.to_neighbor(node, carries, (name, peer), (*address, known));
                    if !by.is_empty() {
                        announcers.entry(*address).or_default().extend(by);
                    }
                }
            }
            let owned = |address: &&IpAddr| owners.of(**address).contains(&node.as_str());
            for address in speaker.layer2.iter().filter(owned) {
                announcers.entry(*address).or_default().push(answers(speaker, *address));
            }
        }
        announcers
    }

    /// A BgpPeer of one node, which may carry the traffic itself or not: each of its sessions; empty: it has nothing to
    /// say there, not even on behalf of another node.
    fn to_neighbor(
        &self,
        node: &str,
        carries: bool,
        (name, peer): (&str, &PeerAnnouncements),
        (address, announcement): (IpAddr, &Announcement),
    ) -> Vec<AnnouncedBy> {
        let others = if carries || peer.next_hops != NextHops::SelfOnly {
            Vec::new()
        } else {
            peer.on_behalf_of(node, address, announcement)
        };
        if !carries && peer.next_hops == NextHops::SelfOnly && others.is_empty() {
            return Vec::new();
        }
        let behalf = if others.is_empty() {
            String::new()
        } else {
            let names: Vec<&str> = others.iter().map(|hop| hop.node.as_str()).collect();
            format!(", on behalf of {}", in_short(&names))
        };
        let refused = peer.rules_for(announcement).is_some_and(|rules| rules.is_empty());
        // Its own count comes last: a session that has just come up may have told nothing yet.
        let told = self
            .speaker(node)
            .and_then(|speaker| speaker.pools.as_ref())
            .is_none_or(|pools| pools.get(&announcement.pool).is_some_and(|count| *count > 0));
        let state = |session: &Session| {
            if refused {
                format!("not advertised: no rule of spec.advertisements of BgpPeer {name} takes it")
            } else if peer.spec.admin_down {
                format!("session down on purpose (adminDown of BgpPeer {name})")
            } else if session.is_established() && !told {
                format!("session {}, but the speaker announces nothing of this pool yet", session.state)
            } else if !session.state.is_empty() {
                format!("session {}{behalf}", session.state)
            } else if let Neighbor::Prefix(prefix) = peer.spec.neighbor {
                format!("no neighbour of {prefix} has connected")
            } else {
                "nothing is known of the session".to_owned()
            }
        };
        let mut sessions = self.sessions(node, name);
        if sessions.is_empty() {
            sessions.push(Session::default());
        }
        let by = |session: Session| AnnouncedBy {
            node: node.to_owned(),
            protocol: Protocol::Bgp.as_str(),
            peer: Some(name.to_owned()),
            interface: None,
            mac: None,
            since: None,
            announced: session.is_established() && told && !refused && !peer.spec.admin_down,
            state: state(&session),
            neighbor: Some(session.neighbor).filter(|neighbor| !neighbor.is_empty()),
        };
        sessions.into_iter().map(by).collect()
    }

    fn why_not(&self, node: &NodeView, pool: &EipView, services: &[&ServiceView]) -> String {
        let settings = &self.lists.settings;
        let selected = pool
            .announced_by()
            .and_then(|spec| spec.node_selector.as_ref())
            .is_none_or(|selector| selector.matches(&node.labels));
        let local = services.iter().all(|service| service.traffic_policy == TrafficPolicy::Local);
        if node.deleting {
            "it is being deleted".to_owned()
        } else if node.is_excluded() && !settings.ignore_exclude_label {
            format!("it has the label {}", label::EXCLUDE_NODE)
        } else if node.cordoned && settings.exclude_cordoned_nodes {
            "it is cordoned (--exclude-cordoned-nodes)".to_owned()
        } else if !selected {
            format!("nodeSelector of Eip {} does not match it", pool.name)
        } else if local
            && !services.iter().any(|service| {
                let nodes = self.indexes.endpoints.nodes(&service.key, &self.indexes.nodes);
                nodes.contains(node.name.as_str())
            })
        {
            "it has no ready endpoint (externalTrafficPolicy: Local)".to_owned()
        } else if !node.ready {
            "it is NotReady".to_owned()
        } else {
            "it does not forward to the Service".to_owned()
        }
    }

    /// What keeps the address from being announced as it should.
    fn lacks(&self, protocols: &[Protocol], eligible: &BTreeSet<String>, told: &mut Announced) {
        if self.lists.speakers.is_empty() {
            told.missing.push(format!(
                "no speaker says anything of itself (there is no SpeakerStatus); see kubectl -n {} get pods",
                self.lists.settings.namespace
            ));
            return;
        }
        if eligible.is_empty() {
            return;
        }
        if protocols.contains(&Protocol::Bgp) {
            self.lacks_bgp(told);
        }
        for protocol in protocols.iter().filter(|protocol| **protocol != Protocol::Bgp) {
            let truncated = self.lists.speakers.iter().any(|speaker| speaker.layer2_truncated);
            if !told.by.iter().any(|by| by.protocol == protocol.as_str() && by.announced) && !truncated {
                told.missing.push(format!("no speaker says that it owns the address by {protocol}"));
            }
        }
    }

    fn lacks_bgp(&self, told: &mut Announced) {
        match self.indexes.peers.conf() {
            None => {
                told.missing.push("there is no BgpConf named default; create one".to_owned());
                return;
            }
            Some(conf) if conf.spec.is_none() => {
                told.missing.push(format!(
                    "BgpConf default cannot be used: {}",
                    crate::plan::status::explain(&conf.problems)
                ));
                return;
            }
            Some(conf) if conf.cni_duty => {
                told.missing.push(format!("a CNI speaks BGP (label {} of BgpConf default)", label::CNI));
                return;
            }
            Some(_) => {}
        }
        if self.indexes.peers.iter().next().is_none() {
            told.missing.push("there is no BgpPeer; create one for each router".to_owned());
            return;
        }
        let bgp: Vec<&AnnouncedBy> =
            told.by.iter().filter(|by| by.protocol == Protocol::Bgp.as_str()).collect();
        if bgp.is_empty() {
            told.missing.push(
                "no eligible node has a speaker with a neighbour: see spec.nodeSelector of the BgpPeers"
                    .to_owned(),
            );
            return;
        }
        let down = bgp
            .iter()
            .filter(|by| !by.announced)
            .map(|by| format!("{} to {}: {}", by.node, by.peer.as_deref().unwrap_or_default(), by.state));
        told.missing.extend(down.collect::<Vec<_>>());
    }
}

/// The node that answers for an address on its segment.
pub(super) fn answers(speaker: &Speaker, address: IpAddr) -> AnnouncedBy {
    let how = speaker.answers.get(&address).cloned().unwrap_or_default();
    AnnouncedBy {
        node: speaker.node.clone(),
        protocol: Protocol::Layer2.as_str(),
        peer: None,
        neighbor: None,
        interface: how.interface,
        mac: how.mac,
        since: how.since,
        announced: true,
        state: match how.stand_in_for {
            None => "it owns the address on its segment".to_owned(),
            Some(owner) => format!("it stands in for {owner}, whose speaker is gone"),
        },
    }
}

/// Nobody may carry the traffic: the reasons, each with its nodes.
fn nobody(nodes: &[NodeExplanation]) -> String {
    if nodes.is_empty() {
        return "no node may carry its traffic: there is no Node".to_owned();
    }
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for node in nodes {
        match reasons.iter_mut().find(|(why, _)| *why == node.why) {
            Some((_, names)) => names.push(&node.node),
            None => reasons.push((&node.why, vec![&node.node])),
        }
    }
    let reasons = reasons.iter().map(|(why, names)| format!("{}: {why}", in_short(names)));
    format!("no node may carry its traffic: {}", reasons.collect::<Vec<_>>().join("; "))
}

/// The first names, and how many more there are.
fn in_short(names: &[&str]) -> String {
    match names.split_at_checked(3) {
        Some((first, rest)) if !rest.is_empty() => format!("{} and {} more", first.join(", "), rest.len()),
        _ => names.join(", "),
    }
}
