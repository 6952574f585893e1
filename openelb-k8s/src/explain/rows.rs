//! Lists: Services, pools, neighbours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use super::announced::{self, AnnouncedBy};
use super::{Picture, Session, Speaker};
use crate::announce::{Announcement, Protocol};
use crate::index::ServiceView;
use crate::index::peers::{Neighbor, PeerView};
use crate::index::pools::EipView;
use crate::names::condition;
use crate::plan::announcement;
use crate::plan::status::{session_key, sessions_of};

/// A Service of ours, as its status says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRow {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What is published.
    pub addresses: Vec<String>,
    /// The Eips of these.
    pub pools: Vec<String>,
    /// Reason of `AddressAssigned`; empty: nothing was decided yet.
    pub reason: String,
    /// In words.
    pub message: String,
    /// `RequestHonoured` is true.
    pub request_honoured: bool,
    /// It has an address that we are to announce.
    pub is_to_be_announced: bool,
    /// Nodes that announce it.
    pub announced_by: Vec<String>,
    /// How its addresses are answered on their segments.
    pub answers: Vec<AnswerRow>,
}

/// An address, and a node that answers for it on its segments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnswerRow {
    /// The address.
    pub address: IpAddr,
    /// How.
    #[serde(flatten)]
    pub by: AnnouncedBy,
}

/// An Eip, as its status says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolRow {
    /// Its name.
    pub name: String,
    /// `spec.address`.
    pub addresses: String,
    /// How they are announced.
    pub protocols: Vec<&'static str>,
    /// Distinct addresses in use.
    pub usage: i64,
    /// Usable addresses.
    pub pool_size: i64,
    /// It is the default, or is annotated so.
    pub default: bool,
    /// The condition `Ready`.
    pub ready: bool,
    /// What is to be known: reasons and messages of the conditions that are not as usual.
    pub notes: Vec<String>,
}

/// A neighbour of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerRow {
    /// The BgpPeer.
    pub name: String,
    /// The node; empty: none talks to this neighbour.
    pub node: String,
    /// The neighbour's address, or the prefix of its addresses.
    pub neighbor: String,
    /// Its AS number.
    pub peer_as: Option<u32>,
    /// `ESTABLISHED`, or one of the states before; empty: nothing is known.
    pub state: String,
    /// Since when, as text.
    pub since: Option<String>,
    /// How often the session went down.
    pub flaps: u32,
    /// What BFD says of the path; absent: without BFD.
    pub bfd: Option<String>,
    /// Why it is not up, or what else is to be known.
    pub note: String,
}

impl Picture<'_> {
    /// Our Services by namespace and name.
    #[must_use]
    pub fn services(&self) -> Vec<ServiceRow> {
        let plan = announcement::plan(self.indexes, &self.lists.settings);
        let up: Vec<&Speaker> = self
            .lists
            .speakers
            .iter()
            .filter(|speaker| speaker.sessions.values().any(Session::is_established))
            .collect();
        let owners = self.owners();
        let row = |service: &ServiceView| {
            let told = service.conditions.iter().find(|known| known.type_ == condition::ADDRESS_ASSIGNED);
            let honoured = service
                .conditions
                .iter()
                .any(|known| known.type_ == condition::REQUEST_HONOURED && known.status == "True");
            let addresses = service.published();
            let mut announced_by: BTreeSet<&str> = BTreeSet::new();
            for address in &addresses {
                if let Some(announcement) = plan.addresses.get(address)
                    && announcement.protocols.contains(&Protocol::Bgp)
                {
                    let speaks = |speaker: &&&Speaker| self.speaks_for(speaker, announcement);
                    announced_by.extend(up.iter().filter(speaks).map(|speaker| speaker.node.as_str()));
                }
                announced_by.extend(owners.of(*address).iter().copied());
            }
            let answered =
                addresses.iter().flat_map(|address| owners.of(*address).iter().map(|node| (*address, *node)));
            let answer = |(address, node)| {
                let by = self.speaker(node).map(|speaker| announced::answers(speaker, address))?;
                Some(AnswerRow { address, by })
            };
            let answers = answered.filter_map(answer).collect();
            let pools = self.pools_of(service, &addresses);
            let ours = |pool: &EipView| pool.announced_by().is_some_and(|spec| !spec.protocols.is_empty());
            ServiceRow {
                namespace: service.key.namespace.clone(),
                name: service.key.name.clone(),
                is_to_be_announced: pools.iter().any(|name| self.indexes.pools.get(name).is_some_and(ours)),
                pools,
                addresses: addresses.iter().map(ToString::to_string).collect(),
                reason: told.map(|known| known.reason.to_string()).unwrap_or_default(),
                message: told.map(|known| known.message.to_string()).unwrap_or_default(),
                request_honoured: honoured,
                announced_by: announced_by.into_iter().map(str::to_owned).collect(),
                answers,
            }
        };
        self.indexes.services.ours().map(row).collect()
    }

    /// Does this speaker, which has a session, announce the address: for its own node, or on behalf of one without?
    fn speaks_for(&self, speaker: &Speaker, announcement: &Announcement) -> bool {
        let says = speaker.pools.as_ref().map(|pools| pools.get(&announcement.pool).is_some_and(|n| *n > 0));
        if announcement.nodes.iter().any(|hop| hop.node == speaker.node) {
            return says.unwrap_or(true);
        }
        says == Some(true) && announcement.nodes.iter().any(|hop| self.speaker(&hop.node).is_none())
    }

    fn pools_of(&self, service: &ServiceView, addresses: &[IpAddr]) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for address in addresses {
            let pool = self.indexes.pools.iter().find(|pool| pool.is_held_by(*address, &service.key));
            if let Some(pool) = pool.filter(|pool| !names.contains(&pool.name)) {
                names.push(pool.name.clone());
            }
        }
        names
    }

    /// Every Eip, by name.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolRow> {
        self.indexes.pools.iter().map(pool_row).collect()
    }

    /// Every neighbour of every node, by name of the BgpPeer, then of the node.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerRow> {
        self.indexes.peers.iter().flat_map(|peer| self.peer_rows(peer)).collect()
    }

    fn peer_rows(&self, peer: &PeerView) -> Vec<PeerRow> {
        let mut sessions: BTreeMap<String, Session> = BTreeMap::new();
        for (node, status) in peer.status.nodes_peer_status.iter().flatten() {
            sessions.insert(node.clone(), Session::of(status));
        }
        for speaker in &self.lists.speakers {
            for (neighbor, session) in sessions_of(&speaker.sessions, &peer.name) {
                sessions.insert(session_key(&speaker.node, neighbor), session.clone());
            }
        }
        let conditions = peer.status.conditions.as_deref().unwrap_or_default();
        let bad = conditions
            .iter()
            .find(|known| known.type_ == condition::READY && known.status == "False")
            .map(|known| format!("{}: {}", known.reason, known.message));
        let neighbor = peer.spec.as_ref().map(|spec| match spec.neighbor {
            Neighbor::Address(address) => address.to_string(),
            Neighbor::Prefix(prefix) => prefix.to_string(),
        });
        let asn = peer.spec.as_ref().and_then(|spec| spec.asn);
        let warning = conditions
            .iter()
            .find(|known| known.type_ == condition::WARNINGS && known.status == "True")
            .map(|known| known.message.clone());
        let row = |node: &str, session: &Session| PeerRow {
            name: peer.name.clone(),
            // A dynamic neighbour's key has its address behind the node.
            node: node.split('/').next().unwrap_or_default().to_owned(),
            neighbor: Some(session.neighbor.clone())
                .filter(|text| !text.is_empty())
                .or_else(|| neighbor.clone())
                .unwrap_or_default(),
            peer_as: session.peer_asn.or(asn),
            state: session.state.clone(),
            since: session.since.clone(),
            flaps: session.flaps,
            bfd: session.bfd.clone(),
            note: if session.is_established() {
                warning.clone().unwrap_or_default()
            } else {
                bad.clone().or_else(|| session.last_error.clone()).unwrap_or_default()
            },
        };
        if sessions.is_empty() {
            let mut none = row("", &Session::default());
            if none.note.is_empty() {
                none.note = match &peer.spec {
                    Some(_) => {
                        "no node talks to this neighbour: see spec.nodeSelector, and whether speakers run"
                    }
                    None => "its spec cannot be used",
                }
                .to_owned();
            }
            return vec![none];
        }
        sessions.iter().map(|(node, session)| row(node, session)).collect()
    }
}

fn pool_row(pool: &EipView) -> PoolRow {
    let status = &pool.status;
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let ready = conditions.iter().find(|known| known.type_ == condition::READY);
    let mut notes: Vec<String> = conditions
        .iter()
        .filter(|known| (known.type_ == condition::READY) != (known.status == "True"))
        .map(|known| format!("{}: {}", known.reason, known.message))
        .collect();
    if pool.spec.as_ref().is_some_and(|spec| spec.disable) {
        notes.push("disabled: it gives nothing new".to_owned());
    } else if status.occupied == Some(true) {
        notes.push("nothing is left that automatic choice could give".to_owned());
    }
    if ready.is_none() && pool.problems.is_empty() {
        notes.push("the controller has not looked at it yet".to_owned());
    }
    if ready.is_none() && !pool.problems.is_empty() {
        notes.push(crate::plan::status::explain(&pool.problems));
    }
    PoolRow {
        name: pool.name.clone(),
        addresses: pool.spec.as_ref().map(|spec| spec.address.to_string()).unwrap_or_default(),
        protocols: pool
            .announced_by()
            .map(|spec| spec.protocols.iter().map(|protocol| protocol.as_str()).collect())
            .unwrap_or_default(),
        usage: status.usage.unwrap_or_default(),
        pool_size: status.pool_size.unwrap_or_default(),
        default: pool.is_default,
        ready: ready.is_some_and(|known| known.status == "True"),
        notes,
    }
}
