//! What is asked about routes: Adj-RIB-In, Adj-RIB-Out, and the best of all; and who is told when the best changes.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;

use super::{
    config::{NextHop as RouteNextHop, PeerName, RouteOrigin},
    event::{Event, PeerId},
    speaker::Speaker,
    stats::PeerDetails,
    view::{AdvertisedRoute, BestPathStep, PathAttributes, ReceivedRoute, RibEntry, RibPath, RouteOwner},
};
use crate::{
    rib::{
        attributes::AttributeSet,
        received::ReceivedPath,
        selection::{Candidate, decide},
        table::Table,
    },
    wire::{Attributes, Community, ExtendedCommunity, Family, LargeCommunity, NextHop, Origin, Prefix},
};

/// How long the best routes are known after the last one who watched: who comes and goes, again and again, does not make
/// the speaker look at every prefix each time.
const KNOWN_FOR: Duration = Duration::from_secs(60);

/// Best routes as they were told, for those who watch.
#[derive(Debug, Default)]
pub(super) struct BestPaths {
    told: HashMap<Prefix, Best>,
    /// Nobody watches: when they are forgotten.
    until: Option<Instant>,
}

impl BestPaths {
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }
}

/// What makes a best route another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Best {
    /// Our own: path identifier, attribute set and its generation.
    Own(u32, u32, u32),
    /// A neighbour's: path identifier, and since when it is as it is.
    Received(PeerId, u32, Instant),
}

/// Our own attributes as they would go to nobody in particular.
fn own_attributes(set: &AttributeSet, family: Family) -> PathAttributes {
    let from = &set.attributes;
    let next_hop = match set.next_hop {
        RouteNextHop::Address(address) => address,
        RouteNextHop::SelfAddress if family == Family::IPV4_UNICAST => {
            IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)
        }
        RouteNextHop::SelfAddress => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    };
    let attributes = Attributes {
        origin: Some(match from.origin {
            RouteOrigin::Igp => Origin::Igp,
            RouteOrigin::Egp => Origin::Egp,
            RouteOrigin::Incomplete => Origin::Incomplete,
        }),
        as_path: Some(from.as_path.clone()),
        med: from.med,
        local_pref: from.local_pref,
        communities: from.communities.iter().copied().map(Community).collect(),
        extended_communities: from.extended_communities.iter().copied().map(ExtendedCommunity).collect(),
        large_communities: from
            .large_communities
            .iter()
            .map(|&[global, local1, local2]| LargeCommunity { global, local1, local2 })
            .collect(),
        ..Attributes::default()
    };
    PathAttributes { attributes, next_hop: NextHop::from(next_hop) }
}

/// Our own routes of a prefix.
struct Own {
    source: String,
    path_id: u32,
    attributes: Arc<PathAttributes>,
}

impl Speaker {
    /// The neighbours with all that is known about them, by name.
    pub fn peer_details(&self) -> Vec<PeerDetails> {
        let ids = self.by_name.values();
        ids.filter_map(|id| self.peers.get(id)).map(|peer| peer.details(&self.rib)).collect()
    }

    fn table(&self, family: Family) -> &Table {
        if family == Family::IPV4_UNICAST { &self.rib.ipv4 } else { &self.rib.ipv6 }
    }

    /// What a neighbour has sent of a family, sorted by prefix and path identifier: empty unless its routes are
    /// [kept](super::ReceivedRoutes::Keep). Routes that were treated as withdrawn (RFC 7606) or that looped are not in
    /// it. `None`: there is no such neighbour.
    pub fn adj_in(&self, peer: &PeerName, family: Family) -> Option<Vec<ReceivedRoute>> {
        let prefixes: Vec<Prefix> = self.received_prefixes(family).collect();
        let mut routes = self.received_routes(peer, &prefixes)?;
        routes.sort_unstable_by_key(|route| (route.prefix, route.path_id));
        Some(routes)
    }

    /// What a neighbour has sent to these prefixes. `None`: there is no such neighbour.
    pub(crate) fn received_routes(&self, peer: &PeerName, prefixes: &[Prefix]) -> Option<Vec<ReceivedRoute>> {
        let id = *self.by_name.get(peer)?;
        let received = &self.rib.received;
        let of = |prefix| {
            received.paths(prefix).iter().filter(|path| path.peer == id).map(move |path| (prefix, path))
        };
        let route = |(prefix, path): (&Prefix, &ReceivedPath)| ReceivedRoute {
            prefix: (*prefix).into(),
            path_id: path.path_id,
            attributes: Arc::clone(received.attributes(path.set)),
            since: path.since,
            stale: path.stale,
        };
        Some(prefixes.iter().flat_map(of).map(route).collect())
    }

    /// What a neighbour has been sent of a family, as it was sent, sorted by prefix and path identifier; empty without a
    /// session. `None`: there is no such neighbour.
    pub fn adj_out(&self, peer: &PeerName, family: Family) -> Option<Vec<AdvertisedRoute>> {
        let (mut routes, _) = self.advertised_routes(peer, family, 0, usize::MAX)?;
        routes.sort_unstable_by_key(|route| (route.prefix, route.path_id));
        Some(routes)
    }

    /// A part of what a neighbour has been sent: of so many places of its table from a place on. Gives them in no order,
    /// and the place to go on at, if there is more. `None`: there is no such neighbour.
    pub(crate) fn advertised_routes(
        &self,
        peer: &PeerName,
        family: Family,
        from: usize,
        places: usize,
    ) -> Option<(Vec<AdvertisedRoute>, Option<usize>)> {
        let peer = self.peers.get(self.by_name.get(peer)?)?;
        let known = peer.session.iter().flat_map(|session| &session.families);
        let Some(known) = known.into_iter().find(|known| known.family == family) else {
            return Some((Vec::new(), None));
        };
        let mut sets: HashMap<u32, Option<Arc<PathAttributes>>> = HashMap::new();
        let mut routes = Vec::new();
        for (nlri, id) in known.adj_out.told(self.table(family), from, places) {
            let set = sets.entry(id).or_insert_with(|| {
                let set = self.rib.attributes.get(id)?;
                let (attributes, next_hop) = known.adj_out.egress().attributes(set);
                let attributes = Attributes { next_hop: None, ..attributes };
                Some(Arc::new(PathAttributes { attributes, next_hop: NextHop::from(next_hop?) }))
            });
            if let Some(attributes) = set {
                let attributes = Arc::clone(attributes);
                routes.push(AdvertisedRoute {
                    prefix: nlri.prefix.into(),
                    path_id: nlri.path_id,
                    attributes,
                });
            }
        }
        let next = from.saturating_add(places);
        Some((routes, (next < known.adj_out.places()).then_some(next)))
    }

    /// All routes of a family, our own and those that are kept of neighbours, sorted by prefix: the best of each first.
    pub fn rib(&self, family: Family) -> Vec<RibEntry> {
        let mut prefixes = self.prefixes(family);
        prefixes.sort_unstable();
        prefixes.dedup();
        self.rib_entries(&prefixes)
    }

    /// The prefixes of a family that have a route, in no order; some twice.
    pub(crate) fn prefixes(&self, family: Family) -> Vec<Prefix> {
        let table = self.table(family);
        let own = table.ids().filter_map(|id| table.destination(id)).map(|destination| destination.prefix);
        own.chain(self.received_prefixes(family)).collect()
    }

    /// The prefixes of a family to which some neighbour has sent a route that is kept, in no order.
    pub(crate) fn received_prefixes(&self, family: Family) -> impl Iterator<Item = Prefix> {
        self.rib.received.prefixes(family).copied()
    }

    /// The routes of these prefixes; those without are left out.
    pub(crate) fn rib_entries(&self, prefixes: &[Prefix]) -> Vec<RibEntry> {
        prefixes.iter().filter_map(|prefix| self.entry(prefix)).collect()
    }

    /// The routes of one prefix, the best first; `None` if there are none.
    pub fn rib_entry(&self, prefix: IpNet) -> Option<RibEntry> {
        self.entry(&Prefix::from(prefix))
    }

    fn own_routes(&self, prefix: &Prefix) -> Vec<Own> {
        let family = prefix.family();
        let table = self.table(family);
        let Some(id) = table.find(prefix) else { return Vec::new() };
        let own = table.chain(id).filter_map(|(_, path)| {
            let set = self.rib.attributes.get(path.attributes)?;
            Some(Own {
                source: self.sources.name(path.source()).to_owned(),
                path_id: path.path_id,
                attributes: Arc::new(own_attributes(set, family)),
            })
        });
        own.collect()
    }

    fn entry(&self, prefix: &Prefix) -> Option<RibEntry> {
        let own = self.own_routes(prefix);
        let received = self.rib.received.paths(prefix);
        // Of our own the first is the one that goes out first: the decision among them is `rib::best_path`'s.
        let first = own.first().map(|own| Candidate {
            attributes: &own.attributes.attributes,
            from: None,
            path_id: own.path_id,
        });
        let candidates: Vec<Candidate<'_>> =
            first.into_iter().chain(received.iter().map(|path| self.rib.received.candidate(path))).collect();
        let (best, steps) = decide(&candidates)?;
        let step = |index: usize| steps.get(index).copied().unwrap_or(BestPathStep::OnlyRoute);
        let offset = usize::from(!own.is_empty());
        let mut paths: Vec<(usize, RibPath)> = Vec::with_capacity(own.len() + received.len());
        for (index, own) in own.into_iter().enumerate() {
            let path = RibPath {
                owner: RouteOwner::Local { source: own.source },
                path_id: own.path_id,
                attributes: own.attributes,
                since: None,
                stale: false,
                step: if index == 0 { step(0) } else { BestPathStep::PathIdentifier },
            };
            paths.push((usize::from(index > 0 || best != 0), path));
        }
        for (index, path) in received.iter().enumerate() {
            let path = self.received_path(path, step(index + offset));
            paths.push((usize::from(best != index + offset), path));
        }
        // The best, then those that lost last.
        paths.sort_by_key(|(lost, path)| (*lost, std::cmp::Reverse(path.step), path.path_id));
        Some(RibEntry { prefix: (*prefix).into(), paths: paths.into_iter().map(|(_, path)| path).collect() })
    }

    fn received_path(&self, path: &ReceivedPath, step: BestPathStep) -> RibPath {
        let peer = self.peers.get(&path.peer);
        let from = self.rib.received.candidate(path).from;
        let asn = peer.map_or(0, |peer| peer.remote_asn());
        RibPath {
            owner: RouteOwner::Peer {
                name: peer.map_or_else(|| PeerName::from(""), |peer| peer.config.name.clone()),
                address: peer.map_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), |peer| peer.config.address),
                asn,
                router_id: from.map_or(std::net::Ipv4Addr::UNSPECIFIED, |from| from.router_id),
            },
            path_id: path.path_id,
            attributes: Arc::clone(self.rib.received.attributes(path.set)),
            since: Some(path.since),
            stale: path.stale,
            step,
        }
    }

    /// Whether [`Event::BestPath`] is told from now on. It costs memory per prefix, so it is off until asked for; that is
    /// given back a minute after it is off again.
    pub fn watch_best_paths(&mut self, wanted: bool, now: Instant) {
        if let Some(known) = &mut self.best_paths {
            if wanted {
                known.until = None;
            } else {
                known.until.get_or_insert(now + KNOWN_FOR);
            }
        } else if wanted {
            let mut told = HashMap::new();
            for family in [Family::IPV4_UNICAST, Family::IPV6_UNICAST] {
                let table = self.table(family);
                let own = table.ids().filter_map(|id| table.destination(id)).map(|known| known.prefix);
                for prefix in own.chain(self.rib.received.prefixes(family).copied()) {
                    told.extend(self.best(&prefix).map(|best| (prefix, best)));
                }
            }
            self.best_paths = Some(BestPaths { told, until: None });
        }
    }

    fn best(&self, prefix: &Prefix) -> Option<Best> {
        let table = self.table(prefix.family());
        let own = table.find(prefix).and_then(|id| {
            table
                .chain(id)
                .map(|(_, path)| path)
                .find(|path| self.rib.attributes.get(path.attributes).is_some())
        });
        if let Some(path) = own {
            let generation = self.rib.attributes.generation(path.attributes);
            return Some(Best::Own(path.path_id, path.attributes, generation));
        }
        let best = self.rib.received.best(prefix)?;
        Some(Best::Received(best.peer, best.path_id, best.since))
    }

    /// Routes of these prefixes have changed.
    pub(super) fn tell_best_paths(&mut self, prefixes: Vec<Prefix>) {
        if prefixes.is_empty() {
            return;
        }
        self.routes_revision += 1;
        let Some(mut watched) = self.best_paths.take() else { return };
        for prefix in prefixes {
            let now_is = self.best(&prefix);
            let before = match now_is {
                Some(best) => watched.told.insert(prefix, best),
                None => watched.told.remove(&prefix),
            };
            if before != now_is && watched.until.is_none() {
                let path = self.entry(&prefix).and_then(|entry| entry.paths.into_iter().next());
                self.push_event(Event::BestPath { prefix: prefix.into(), path });
            }
        }
        self.best_paths = Some(watched);
    }
}
