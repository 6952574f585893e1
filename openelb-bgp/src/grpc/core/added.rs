//! What clients have added: kept so that it can be told apart, deleted, and given to the next speaker.

use std::{
    collections::{
        BTreeMap, HashMap,
        hash_map::{Entry, RandomState},
    },
    hash::BuildHasher as _,
    net::IpAddr,
    time::Instant,
};

use super::{Error, ErrorKind};
use crate::{
    speaker::{PeerConfig, Route, RouteKey},
    wire::{Family, Prefix},
};

/// Neighbours that clients may add.
const MAX_PEERS: usize = 1_000;
/// Routes that clients may add.
const MAX_ROUTES: usize = 1_000_000;
/// Those of one prefix: the speaker looks through them at each change of one.
const MAX_PATHS: usize = 256;
/// Marks the path identifiers of clients' routes: of two with one prefix and identifier there is only one, the
/// embedder's, and those that embedders count from 0 are to leave room for the clients'.
const CLIENTS: u32 = 1 << 31;

/// Names a route that a client has added.
pub type RouteId = [u8; 16];

/// A route that a client has added.
#[derive(Clone, Debug)]
pub(crate) struct AddedRoute {
    pub(crate) route: Route,
    pub(crate) id: RouteId,
    pub(crate) since: Instant,
}

/// A neighbour that a client has added.
#[derive(Clone, Debug)]
pub(crate) struct AddedPeer {
    pub(crate) config: PeerConfig,
    pub(crate) description: String,
}

#[derive(Debug, Default)]
pub(crate) struct Added {
    /// By address.
    pub(crate) peers: BTreeMap<IpAddr, AddedPeer>,
    routes: HashMap<RouteKey, AddedRoute>,
    by_id: HashMap<RouteId, RouteKey>,
    /// How many routes a prefix has.
    paths: HashMap<Prefix, usize>,
    sequence: u64,
    random: [RandomState; 2],
}

/// The path identifier that a client's route has with neighbours, of the one that the client gave.
///
/// # Errors
/// If it is too high.
pub fn path_id(identifier: u32) -> Result<u32, Error> {
    if identifier & CLIENTS != 0 {
        return Err(Error::invalid(format!("path identifier {identifier}: use 0 to {}", CLIENTS - 1)));
    }
    Ok(identifier | CLIENTS)
}

/// The identifier that the client gave.
#[must_use]
pub fn identifier(path_id: u32) -> u32 {
    path_id & !CLIENTS
}

impl Added {
    pub(crate) fn route(&self, key: &RouteKey) -> Option<&AddedRoute> {
        self.routes.get(key)
    }

    pub(crate) fn routes(&self) -> impl Iterator<Item = &AddedRoute> {
        self.routes.values()
    }

    pub(crate) fn by_id(&self, id: &RouteId) -> Option<RouteKey> {
        self.by_id.get(id).copied()
    }

    /// The keys of all routes, or of those of one family.
    pub(crate) fn keys(&self, family: Option<Family>) -> Vec<RouteKey> {
        let of = |key: &RouteKey| {
            let ipv4 = key.prefix.addr().is_ipv4();
            family.is_none_or(|family| (family == Family::IPV4_UNICAST) == ipv4)
        };
        self.routes.keys().filter(|key| of(key)).copied().collect()
    }

    pub(crate) fn insert_route(&mut self, route: Route, now: Instant) -> Result<RouteId, Error> {
        let key = route.key();
        let old = self.routes.get(&key);
        if old.is_none() {
            if self.routes.len() >= MAX_ROUTES {
                return Err(exhausted(MAX_ROUTES, "routes"));
            }
            let paths = self.paths.entry(key.prefix.into()).or_default();
            if *paths >= MAX_PATHS {
                return Err(exhausted(MAX_PATHS, &format!("routes to {}", key.prefix)));
            }
            *paths += 1;
        }
        self.sequence += 1;
        let [high, low] = self.random.each_ref().map(|random| random.hash_one((self.sequence, key)));
        let id = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
        if let Some(old) = old {
            self.by_id.remove(&old.id);
        }
        self.by_id.insert(id, key);
        self.routes.insert(key, AddedRoute { route, id, since: now });
        Ok(id)
    }

    pub(crate) fn remove_route(&mut self, key: &RouteKey) -> bool {
        let Some(old) = self.routes.remove(key) else { return false };
        self.by_id.remove(&old.id);
        if let Entry::Occupied(mut paths) = self.paths.entry(key.prefix.into()) {
            *paths.get_mut() -= 1;
            if *paths.get() == 0 {
                paths.remove();
            }
        }
        true
    }

    pub(crate) fn room_for_peer(&self) -> Result<(), Error> {
        if self.peers.len() < MAX_PEERS { Ok(()) } else { Err(exhausted(MAX_PEERS, "neighbours")) }
    }
}

fn exhausted(max: usize, what: &str) -> Error {
    Error::new(
        ErrorKind::ResourceExhausted,
        format!("clients have added {max} {what}, which is the most that they may: delete some first"),
    )
}
