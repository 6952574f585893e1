//! From the indexes to words: which Service has which address, why, who announces it, and what is missing.
//!
//! Pure: objects in, values out. The words are those of the conditions, because they come from the same plans.
//!
//! ```
//! use openelb_k8s::explain::{Lists, Picture};
//! use openelb_k8s::index::Indexes;
//! use openelb_k8s::object::Object;
//! use serde_json::json;
//!
//! let mut indexes = Indexes::default();
//! for object in [
//!     json!({"apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip", "metadata": {"name": "pool"},
//!            "spec": {"address": "192.0.2.0/24", "disable": true, "autoAssign": true}}),
//!     json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "web"},
//!            "spec": {"type": "LoadBalancer", "loadBalancerClass": "openelb.io/openelb"}}),
//! ] {
//!     if let Some(object) = Object::from_value(object)? {
//!         indexes.apply(&object);
//!     }
//! }
//! let picture = Picture::new(&indexes, Lists::default(), jiff::Timestamp::UNIX_EPOCH);
//! let service = picture.service(&"shop/web".parse()?).ok_or("it is there")?;
//! assert_eq!(service.address_assigned.reason, "PoolDisabled");
//! assert_eq!(service.pools[0].why, "is disabled");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod announced;
mod owners;
mod rows;
mod service;
mod status;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;

use crate::crd::bgp_peer::NodePeerStatus;
use crate::crd::speaker_status::{AnnouncedCounts, Layer2Answer};
use crate::crd::{SpeakerStatus, SpeakerStatusStatus};
use crate::index::speakers::{SpeakerView, Speakers};
use crate::index::{Indexes, ServiceView};
use crate::names::condition;
use crate::plan::Settings;
use crate::plan::status::sessions_of;

pub use announced::{AnnouncedBy, NodeExplanation};
pub use rows::{AnswerRow, PeerRow, PoolRow, ServiceRow};
pub use service::{AddressExplanation, AsksFor, PoolExplanation, ServiceExplanation, Told};
pub use status::{Controller, SpeakerRow, Status};

/// What is told about beside the indexes.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    /// What each node's speaker says of itself.
    pub speakers: Vec<Speaker>,
    /// Who writes; `None`: there is no Lease, or it is not known.
    pub controller: Option<Controller>,
    /// How speakers decide: the same as theirs, as far as that is known. The node's name is not looked at.
    pub settings: Settings,
}

/// The state of a cluster, to be told about.
#[derive(Clone, Debug)]
pub struct Picture<'a> {
    indexes: &'a Indexes,
    lists: Lists,
    now: Timestamp,
}

impl<'a> Picture<'a> {
    /// Of complete lists of Eips, Services, Namespaces, Nodes, BgpConfs and BgpPeers; EndpointSlices are needed of
    /// Services with `externalTrafficPolicy: Local` that are asked about.
    #[must_use]
    pub fn new(indexes: &'a Indexes, mut lists: Lists, now: Timestamp) -> Self {
        lists.settings.standalone = false;
        lists.settings.node_name.clear();
        lists.speakers.sort_by(|a, b| a.node.cmp(&b.node));
        Self { indexes, lists, now }
    }

    fn speaker(&self, node: &str) -> Option<&Speaker> {
        self.lists.speakers.iter().find(|speaker| speaker.node == node)
    }

    /// The sessions of a node with a BgpPeer, which are several where its neighbours are dynamic: as its speaker says,
    /// else as the BgpPeer says.
    fn sessions(&self, node: &str, peer: &str) -> Vec<Session> {
        let told = self.speaker(node).map(|speaker| {
            sessions_of(&speaker.sessions, peer).map(|(_, session)| session.clone()).collect::<Vec<_>>()
        });
        if let Some(told) = told.filter(|told| !told.is_empty()) {
            return told;
        }
        let status = self.indexes.peers.get(peer).map(|peer| &peer.status);
        let nodes = status.and_then(|status| status.nodes_peer_status.as_ref());
        nodes
            .map(|nodes| sessions_of(nodes, node).map(|(_, status)| Session::of(status)).collect())
            .unwrap_or_default()
    }

    /// The indexes with these Services alone, to plan for every speaker that is known here.
    fn indexes_with(&self, keep: impl Fn(&ServiceView) -> bool) -> Indexes {
        let mut indexes = self.indexes.clone();
        indexes.services = self.indexes.services.subset(keep);
        indexes.speakers = Speakers::on(self.lists.speakers.iter().map(|speaker| speaker.node.clone()));
        indexes
    }
}

/// What a node's speaker says of itself, in its `SpeakerStatus`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Speaker {
    /// The node.
    pub node: String,
    /// The version of the program.
    pub version: Option<String>,
    /// Sessions by name of the BgpPeer.
    pub sessions: BTreeMap<String, Session>,
    /// How many neighbours it is to talk to.
    pub configured_peers: i64,
    /// How many addresses it announces.
    pub announced: i64,
    /// How many of each pool; `None`: it does not say.
    pub pools: Option<BTreeMap<String, i64>>,
    /// Addresses for which it answers on its segments.
    pub layer2: BTreeSet<IpAddr>,
    /// How it answers for them, as far as it says.
    pub answers: BTreeMap<IpAddr, Layer2Answer>,
    /// `layer2` is cut off.
    pub layer2_truncated: bool,
    /// Conditions that are not as they should be, in words.
    pub problems: Vec<String>,
}

impl From<&SpeakerStatus> for Speaker {
    fn from(object: &SpeakerStatus) -> Self {
        let node = object.spec.node_name.clone().or_else(|| object.metadata.name.clone());
        Self::of(node.unwrap_or_default(), &object.status.clone().unwrap_or_default())
    }
}

impl From<&SpeakerView> for Speaker {
    fn from(view: &SpeakerView) -> Self {
        Self::of(view.node.clone(), &view.status)
    }
}

impl Speaker {
    fn of(node: String, status: &SpeakerStatusStatus) -> Self {
        let conditions = status.conditions.iter().flatten();
        let bad = conditions.filter(|known| (known.type_ == condition::READY) != (known.status == "True"));
        let sessions = status.peers.iter().flatten();
        let count = |of: Option<i64>| of.unwrap_or_default();
        let answer =
            |one: &Layer2Answer| Some((one.address.as_deref()?.parse::<IpAddr>().ok()?, one.clone()));
        Self {
            node,
            version: status.version.clone(),
            sessions: sessions.map(|(peer, node)| (peer.clone(), Session::of(node))).collect(),
            configured_peers: count(status.configured_peers),
            announced: count(status.announced_addresses),
            pools: status.pools.as_ref().map(|pools| {
                let both = |(pool, counts): (&String, &AnnouncedCounts)| {
                    (pool.clone(), count(counts.v4) + count(counts.v6))
                };
                pools.iter().map(both).collect()
            }),
            layer2: status.layer2_addresses.iter().flatten().filter_map(|text| text.parse().ok()).collect(),
            answers: status.layer2_answers.iter().flatten().filter_map(answer).collect(),
            layer2_truncated: status.layer2_truncated.unwrap_or_default(),
            problems: bad.map(|known| format!("{}: {}", known.reason, known.message)).collect(),
        }
    }
}

/// A BGP session of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// The neighbour's address.
    pub neighbor: String,
    /// Its AS number.
    pub peer_asn: Option<u32>,
    /// `ESTABLISHED`, or one of the states before.
    pub state: String,
    /// Since when it is up, or else down, as text.
    pub since: Option<String>,
    /// How often it went down.
    pub flaps: u32,
    /// What BFD says of the path; `None`: without BFD.
    pub bfd: Option<String>,
    /// Why it does not come up, or went down last.
    pub last_error: Option<String>,
}

impl Session {
    fn of(status: &NodePeerStatus) -> Self {
        let peer = status.peer_state.clone().unwrap_or_default();
        let timers = status.timers_state.clone().unwrap_or_default();
        let state = peer.session_state.unwrap_or_else(|| "IDLE".to_owned());
        let established = state == "ESTABLISHED";
        let since = if established { timers.uptime } else { timers.downtime };
        let detail = status.session.clone().unwrap_or_default();
        Self {
            neighbor: peer.neighbor_address.unwrap_or_default(),
            peer_asn: peer.peer_as.filter(|asn| *asn != 0),
            state,
            since: since.filter(|text| !text.is_empty()),
            flaps: peer.flops.unwrap_or_default(),
            bfd: detail.bfd,
            last_error: detail.last_error,
        }
    }

    /// Is it up?
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.state == "ESTABLISHED"
    }
}

impl Controller {
    /// What the Lease says of who writes.
    #[must_use]
    pub fn of(lease: &Lease, now: Timestamp) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        let lasts = i64::from(spec.lease_duration_seconds.unwrap_or_default());
        let renewed = spec.renew_time.map(|time| time.0);
        let held = spec.holder_identity.filter(|holder| !holder.is_empty());
        let age = renewed.map(|renewed| now.as_second().saturating_sub(renewed.as_second()));
        Self { leads: held.is_some() && age.is_some_and(|age| age <= lasts), leader: held, renewed_ago: age }
    }
}
