//! What the read API and `/metrics` show of the state: the same for standalone, controller and speaker.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use openelb_k8s::{
    announce::{AddressStatus, Announcements, AnnouncerStatus, PeerStatus, Protocol},
    explain::{AnnouncedBy, Lists, Picture, Speaker},
    index::{EipView, Indexes, SpeakerView, services::ServiceView},
    names::condition,
};
use serde_json::{Value, json};

use crate::{
    events::EventLog,
    http::{
        metrics::{Inventory, PoolInventory},
        read_api::Snapshot,
    },
};

/// What is known now, as one process sees it.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) indexes: &'a Indexes,
    /// The node of this process; empty: none in particular.
    pub(crate) node_name: &'a str,
    /// What this process announces.
    pub(crate) announced: &'a AnnouncerStatus,
    /// What it should announce.
    pub(crate) desired: Option<&'a Announcements>,
    pub(crate) events: &'a EventLog,
}

/// Who announces each address, in words that the read API shows.
type Announcers = BTreeMap<(IpAddr, &'static str), Vec<Value>>;

impl View<'_> {
    /// Everything that the read API shows.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let of_nodes = self.announcers_of_nodes();
        Snapshot {
            pools: self.pools(),
            services: self.indexes.services.ours().map(|service| self.service(service, &of_nodes)).collect(),
            peers: self
                .announced
                .peers
                .iter()
                .map(|(name, status)| self.peer(name, status))
                .chain(self.peers_of_nodes())
                .collect(),
            nodes: self.nodes(),
            events: self.events.recent().map(event).collect(),
        }
    }

    /// What speakers say of themselves, but for that of this node: what it does is known better than what it said.
    fn others(&self) -> impl Iterator<Item = &SpeakerView> {
        self.indexes.speakers.iter().filter(|speaker| speaker.node != self.node_name)
    }

    /// What the speakers of all other nodes announce.
    fn announcers_of_nodes(&self) -> Announcers {
        let mut all = Announcers::new();
        let speakers: Vec<Speaker> = self.others().map(Speaker::from).collect();
        if speakers.is_empty() {
            return all;
        }
        let lists = Lists { speakers, ..Lists::default() };
        for (address, by) in Picture::new(self.indexes, lists, Timestamp::now()).announcers() {
            let mut peers: BTreeMap<&str, Vec<&AnnouncedBy>> = BTreeMap::new();
            for by in by.iter().filter(|by| by.protocol == Protocol::Bgp.as_str()) {
                peers.entry(&by.node).or_default().push(by);
            }
            let peer = |by: &&AnnouncedBy| json!({ "neighbor": by.neighbor.as_ref().or(by.peer.as_ref()), "advertised": by.announced });
            let announcing = peers.iter().filter(|(_, peers)| peers.iter().any(|by| by.announced));
            let by_bgp = announcing.map(
                |(node, peers)| json!({ "node": node, "peers": peers.iter().map(peer).collect::<Vec<_>>() }),
            );
            let by_bgp: Vec<Value> = by_bgp.collect();
            if !by_bgp.is_empty() {
                all.insert((address, Protocol::Bgp.as_str()), by_bgp);
            }
            for by in by.iter().filter(|by| by.protocol != Protocol::Bgp.as_str()) {
                let entry = json!({
                    "node": by.node, "interface": by.interface, "mac": by.mac, "vrid": null, "since": by.since,
                    "state": by.state,
                });
                all.entry((address, by.protocol)).or_default().push(entry);
            }
        }
        all
    }

    /// Sessions as the speakers of all other nodes tell them.
    fn peers_of_nodes(&self) -> impl Iterator<Item = Value> {
        self.others().flat_map(|speaker| {
            speaker.status.peers.iter().flatten().map(|(name, status)| {
                let peer = status.peer_state.clone().unwrap_or_default();
                let detail = status.session.clone().unwrap_or_default();
                let timers = status.timers_state.clone().unwrap_or_default();
                let state = peer.session_state.unwrap_or_else(|| "IDLE".to_owned());
                json!({
                    "name": name,
                    "node": speaker.node,
                    "neighbor": peer.neighbor_address,
                    "localAs": peer.local_as,
                    "peerAs": peer.peer_as,
                    "routerId": peer.router_id,
                    "upSince": timers.uptime.filter(|time| state == "ESTABLISHED" && !time.is_empty()),
                    "adminDown": peer.admin_state.as_deref() == Some("DOWN"),
                    "state": state,
                    "received": detail.received_prefixes,
                    "flaps": peer.flops.unwrap_or_default(),
                    "lastError": detail.last_error,
                })
            })
        })
    }

    /// Everything that `/metrics` counts of it.
    pub(crate) fn inventory(&self, problems: usize, ready: bool) -> Inventory {
        let mut services: BTreeMap<String, u64> = BTreeMap::new();
        for service in self.indexes.services.ours() {
            let assigned = service.conditions.iter().find(|c| c.type_ == condition::ADDRESS_ASSIGNED);
            let reason = assigned.map_or("Undecided", |condition| &*condition.reason);
            *services.entry(reason.to_owned()).or_default() += 1;
        }
        let pools = self.indexes.pools.iter().map(|pool| {
            let holders = pool.used.values().map(Vec::len).sum::<usize>();
            let inventory = PoolInventory {
                size: pool.status.pool_size.unwrap_or_default(),
                used: i64::try_from(pool.used.len()).unwrap_or(i64::MAX),
                services: i64::try_from(holders).unwrap_or(i64::MAX),
                ready: pool.spec.is_some(),
            };
            (pool.name.clone(), inventory)
        });
        let mut desired: BTreeMap<&'static str, u64> = BTreeMap::new();
        for announcement in self.desired.iter().flat_map(|desired| desired.addresses.values()) {
            for protocol in &announcement.protocols {
                *desired.entry(protocol.as_str()).or_default() += 1;
            }
        }
        // None is a number, too.
        let mut announced: BTreeMap<&'static str, u64> =
            desired.keys().map(|protocol| (*protocol, 0)).collect();
        for address in self.announced.addresses.values().filter(|address| address.announced) {
            *announced.entry(address.protocol.as_str()).or_default() += 1;
        }
        Inventory {
            pools: pools.collect(),
            services,
            announced,
            desired,
            manifest_problems: u64::try_from(problems).unwrap_or(u64::MAX),
            ready,
        }
    }

    fn pools(&self) -> Vec<Value> {
        let pool = |pool: &EipView| {
            json!({
                "name": pool.name,
                "default": pool.is_default,
                "ready": pool.spec.is_some() && pool.problems.is_empty(),
                "deleting": pool.deleting,
                "poolSize": pool.status.pool_size.unwrap_or_default(),
                "usage": pool.status.usage.unwrap_or_default(),
                "occupied": pool.status.occupied.unwrap_or_default(),
                "firstIP": pool.status.first_ip,
                "lastIP": pool.status.last_ip,
                "conditions": conditions(pool.status.conditions.as_deref().unwrap_or_default()),
            })
        };
        self.indexes.pools.iter().map(pool).collect()
    }

    fn service(&self, service: &ServiceView, of_nodes: &Announcers) -> Value {
        let addresses: Vec<Value> = service
            .published()
            .into_iter()
            .flat_map(|address| self.address(service, address, of_nodes))
            .collect();
        let assigned = service.conditions.iter().find(|known| known.type_ == condition::ADDRESS_ASSIGNED);
        json!({
            "namespace": service.key.namespace,
            "name": service.key.name,
            "addresses": addresses,
            "reason": assigned.map(|known| &*known.reason),
            "message": assigned.map(|known| &*known.message),
            "conditions": conditions(&service.conditions.iter().map(Into::into).collect::<Vec<_>>()),
        })
    }

    /// An address, once for each protocol that announces it, or should.
    fn address(&self, service: &ServiceView, address: IpAddr, of_nodes: &Announcers) -> Vec<Value> {
        let desired = self.desired.iter().find_map(|desired| desired.addresses.get(&address));
        let holding = self.indexes.pools.iter().find(|pool| pool.is_held_by(address, &service.key));
        // A speaker does not read who holds what in a pool, but knows why it announces.
        let pool = holding
            .map(|pool| pool.name.as_str())
            .or_else(|| desired.map(|announcement| announcement.pool.as_str()));
        let wanted = desired.iter().flat_map(|desired| desired.protocols.iter().copied());
        let mut protocols: BTreeSet<Option<Protocol>> =
            wanted.chain(self.announced.of(address).map(|status| status.protocol)).map(Some).collect();
        if self.node_name.is_empty() {
            // Of no node in particular: as the pool says.
            let spec = holding.and_then(EipView::announced_by);
            protocols.extend(spec.iter().flat_map(|spec| spec.protocols.iter().copied().map(Some)));
        }
        if protocols.is_empty() {
            protocols.insert(None);
        }
        let entry = |protocol: Option<Protocol>| {
            let status = protocol.and_then(|protocol| self.announced.addresses.get(&(address, protocol)));
            let by = status.filter(|status| status.announced).map(|status| self.announced_by(status));
            let elsewhere = protocol.and_then(|protocol| of_nodes.get(&(address, protocol.as_str())));
            let elsewhere = elsewhere.into_iter().flatten().cloned();
            let mut value = json!({
                "address": address,
                "protocol": protocol.map(Protocol::as_str),
                "pool": pool,
                "announcedBy": by.into_iter().chain(elsewhere).collect::<Vec<_>>(),
            });
            if let (Value::Object(map), Some(status)) = (&mut value, status) {
                map.insert("detail".to_owned(), json!(status.detail));
                map.extend(status.owner.iter().map(|owner| ("owner".to_owned(), json!(owner))));
            }
            value
        };
        protocols.into_iter().map(entry).collect()
    }

    fn announced_by(&self, status: &AddressStatus) -> Value {
        if status.protocol == Protocol::Bgp {
            let peers = status.peers.iter().map(
                |(name, advertised)| json!({ "neighbor": self.neighbor(name), "advertised": advertised }),
            );
            return json!({ "node": self.node_name, "peers": Vec::from_iter(peers) });
        }
        json!({
            "node": self.node_name,
            "interface": status.interface,
            "mac": status.mac,
            "vrid": status.vrid,
            "since": status.since.map(|time| time.to_string()),
            "state": status.detail,
        })
    }

    /// A neighbour's address, or the name of its BgpPeer while the address is not known.
    fn neighbor(&self, name: &str) -> String {
        let address = self.announced.peers.get(name).and_then(|peer| peer.address);
        address.map_or_else(|| name.to_owned(), |address| address.to_string())
    }

    fn peer(&self, name: &str, status: &PeerStatus) -> Value {
        json!({
            "name": name,
            "node": self.node_name,
            "neighbor": status.address,
            "localAs": status.local_asn,
            "peerAs": status.peer_asn,
            "routerId": status.router_id,
            "state": status.state.as_str(),
            "adminDown": status.admin_down,
            "upSince": status.up_since.map(|time| time.to_string()),
            "advertised": status.advertised,
            "received": status.received_prefixes,
            "flaps": status.flaps,
            "lastError": status.last_error,
        })
    }

    fn nodes(&self) -> Vec<Value> {
        let node = |node: &openelb_k8s::index::nodes::NodeView| {
            json!({
                "name": node.name,
                "ready": node.ready,
                "cordoned": node.cordoned,
                "addresses": node.internal_ips,
                "self": node.name == self.node_name,
            })
        };
        self.indexes.nodes.iter().map(node).collect()
    }
}

fn conditions(conditions: &[Condition]) -> Vec<Value> {
    let shown = |condition: &Condition| {
        json!({
            "type": condition.type_,
            "status": condition.status,
            "reason": condition.reason,
            "message": condition.message,
        })
    };
    conditions.iter().map(shown).collect()
}

fn event(told: &crate::events::Told) -> Value {
    json!({
        "time": told.time.to_string(),
        "type": told.kind.as_str(),
        "kind": told.object.kind.as_str(),
        "namespace": told.object.namespace,
        "name": told.object.name,
        "reason": told.reason,
        "message": told.message,
    })
}

#[cfg(test)]
mod tests {
    use openelb_k8s::{
        object::Object,
        plan::{Settings, announcement},
    };

    use super::*;

    #[test]
    fn a_speaker_shows_the_pool_of_an_address_although_it_does_not_read_who_holds_what() {
        let mut indexes = Indexes::default();
        let version = "network.kubesphere.io/v1alpha2";
        for value in [
            json!({"apiVersion": version, "kind": "Eip", "metadata": {"name": "pool"},
                   "spec": {"address": "192.0.2.0/24", "protocol": "bgp"}}),
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}),
            json!({"apiVersion": "v1", "kind": "Service",
                   "metadata": {"name": "web", "namespace": "shop",
                                "annotations": {"lb.kubesphere.io/v1alpha1": "openelb"}},
                   "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
                   "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}),
        ] {
            indexes.apply(&Object::from_value(value).unwrap().unwrap());
        }
        let settings = Settings { node_name: "node-1".to_owned(), standalone: false, ..Settings::default() };
        let desired = announcement::plan(&indexes, &settings);
        let (announced, events) = (AnnouncerStatus::default(), EventLog::default());
        let view = View {
            indexes: &indexes,
            node_name: "node-1",
            announced: &announced,
            desired: Some(&desired),
            events: &events,
        };
        let inventory = view.inventory(0, true);
        assert_eq!((inventory.desired, inventory.announced), ([("bgp", 1)].into(), [("bgp", 0)].into()));
        let services = view.snapshot().services;
        assert_eq!(services[0]["addresses"][0]["pool"], "pool", "{services:?}");
    }

    #[test]
    fn what_the_speakers_of_all_nodes_announce_is_shown_once() {
        let mut indexes = Indexes::default();
        let version = "network.kubesphere.io/v1alpha2";
        let eip = |name: &str, address: &str, protocol: &str, used: &str, service: &str| {
            json!({"apiVersion": version, "kind": "Eip", "metadata": {"name": name},
                   "spec": {"address": address, "protocol": protocol, "interface": "eth0"},
                   "status": {"used": {used: service}}})
        };
        let service = |name: &str, address: &str| {
            json!({"apiVersion": "v1", "kind": "Service",
                   "metadata": {"name": name, "namespace": "shop",
                                "annotations": {"lb.kubesphere.io/v1alpha1": "openelb"}},
                   "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
                   "status": {"loadBalancer": {"ingress": [{"ip": address}]}}})
        };
        let node = |name: &str| {
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                   "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.9"}],
                              "conditions": [{"type": "Ready", "status": "True"}]}})
        };
        let speaker = |name: &str, state: &str, owned: &[&str]| {
            let peer = json!({"peerState": {"neighborAddress": "10.0.0.1", "peerAs": 65000, "sessionState": state},
                              "session": {"receivedPrefixes": 3}});
            json!({"apiVersion": version, "kind": "SpeakerStatus", "metadata": {"name": name},
                   "spec": {"nodeName": name},
                   "status": {"peers": {"tor": peer}, "pools": {"routed": {"v4": 1}}, "layer2Addresses": owned,
                              "layer2Answers": owned.iter().map(|address| json!({"address": address,
                                  "interface": "eth0", "mac": "02:00:00:00:00:02", "since": "2026-01-01T00:00:00Z"}))
                                  .collect::<Vec<_>>()}})
        };
        for value in [
            eip("routed", "192.0.2.0/24", "bgp", "192.0.2.1", "shop/web"),
            eip("flat", "198.51.100.0/24", "layer2", "198.51.100.1", "shop/mail"),
            service("web", "192.0.2.1"),
            service("mail", "198.51.100.1"),
            node("node-1"),
            node("node-2"),
            json!({"apiVersion": version, "kind": "BgpConf", "metadata": {"name": "default"}, "spec": {"as": 65001}}),
            json!({"apiVersion": version, "kind": "BgpPeer", "metadata": {"name": "tor"},
                   "spec": {"conf": {"neighborAddress": "10.0.0.1", "peerAs": 65000}}}),
            speaker("node-1", "ESTABLISHED", &[]),
            speaker("node-2", "ACTIVE", &["198.51.100.1"]),
        ] {
            indexes.apply(&Object::from_value(value).unwrap().unwrap());
        }
        let (announced, events) = (AnnouncerStatus::default(), EventLog::default());
        let view =
            View { indexes: &indexes, node_name: "", announced: &announced, desired: None, events: &events };
        let Snapshot { services, peers, .. } = view.snapshot();
        let mail = json!([{"address": "198.51.100.1", "protocol": "layer2", "pool": "flat",
                           "announcedBy": [{"node": "node-2", "interface": "eth0", "mac": "02:00:00:00:00:02",
                                            "vrid": null, "since": "2026-01-01T00:00:00Z",
                                            "state": "it owns the address on its segment"}]}]);
        let web = json!([{"address": "192.0.2.1", "protocol": "bgp", "pool": "routed",
                          "announcedBy": [{"node": "node-1",
                                           "peers": [{"neighbor": "10.0.0.1", "advertised": true}]}]}]);
        assert_eq!((&services[0]["addresses"], &services[1]["addresses"]), (&mail, &web));
        let told = peers
            .iter()
            .map(|peer| [&peer["name"], &peer["node"], &peer["neighbor"], &peer["state"], &peer["received"]]);
        let told: Vec<Value> = told.map(|fields| json!(fields)).collect();
        let session = |node: &str, state: &str| json!(["tor", node, "10.0.0.1", state, 3]);
        assert_eq!(told, [session("node-1", "ESTABLISHED"), session("node-2", "ACTIVE")]);

        // A speaker shows itself once, as it knows itself, beside what the others say.
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let mut own = AddressStatus::new(Protocol::Bgp, "");
        own.announced = true;
        own.peers = std::sync::Arc::new(BTreeMap::from([("tor".to_owned(), true)]));
        let mut announced = AnnouncerStatus::default();
        announced.addresses.insert((address, Protocol::Bgp), own);
        for (node, nodes) in [("node-1", vec!["node-1"]), ("node-2", vec!["node-2", "node-1"])] {
            let view = View {
                indexes: &indexes,
                node_name: node,
                announced: &announced,
                desired: None,
                events: &events,
            };
            let Snapshot { services, peers, .. } = view.snapshot();
            let by = services[1]["addresses"][0]["announcedBy"].as_array().unwrap();
            assert_eq!(by.iter().map(|by| &by["node"]).collect::<Vec<_>>(), nodes, "{by:?}");
            let own = peers.iter().filter(|peer| peer["node"] == node).count();
            assert_eq!(own, 0, "of this node only what it knows: {peers:?}");
        }
    }
}
