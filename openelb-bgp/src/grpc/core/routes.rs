//! Routes: the tables, and what clients put into them.

use std::{collections::HashMap, net::IpAddr, time::Instant};

use ipnet::IpNet;
use tokio::sync::OwnedSemaphorePermit;

use super::{Core, Error, RouteId, SOURCE, by_address};
use crate::{
    net::SpeakerHandle,
    speaker::{AdvertisedRoute, Delta, PeerName, PeerStatus, ReceivedRoute, RibEntry, Route, RouteKey},
    wire::Family,
};

/// A route that a client wants.
#[derive(Clone, Debug)]
pub struct NewRoute {
    /// The route; its path identifier is one of [`path_id`](super::path_id).
    pub route: Route,
}

/// Which routes of clients are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteName {
    /// The one with this prefix and path identifier.
    Key(RouteKey),
    /// The one with this name.
    Id(RouteId),
    /// All of a family, or all.
    All(Option<Family>),
}

/// A table of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The best routes and those beside them (Loc-RIB).
    Local,
    /// What this neighbour has sent.
    AdjIn(IpAddr),
    /// What this neighbour has been sent.
    AdjOut(IpAddr),
}

/// Which prefixes of a table are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// This one.
    Exact(IpNet),
    /// The longest one with this address.
    Longest(IpAddr),
    /// This one and those within it.
    Longer(IpNet),
    /// This one and those that it is within.
    Shorter(IpNet),
}

impl Lookup {
    fn matches(self, prefix: IpNet) -> bool {
        match self {
            Self::Exact(wanted) => prefix == wanted,
            Self::Longest(address) => prefix.contains(&address),
            Self::Longer(wanted) => wanted.contains(&prefix),
            Self::Shorter(wanted) => prefix.contains(&wanted),
        }
    }
}

/// A table, or a part of it, sorted by prefix.
#[derive(Clone, Debug)]
pub enum Listing {
    /// Prefixes with their routes, the best one first.
    Local(Vec<RibEntry>),
    /// What a neighbour has sent.
    AdjIn(Box<PeerStatus>, Vec<ReceivedRoute>),
    /// What a neighbour has been sent.
    AdjOut(Box<PeerStatus>, Vec<AdvertisedRoute>),
}

/// How much a table holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableSize {
    /// Prefixes.
    pub destinations: u64,
    /// Routes.
    pub paths: u64,
}

impl Core {
    /// Adds a route, or changes the one with its prefix and path identifier.
    ///
    /// # Errors
    /// If there is no speaker, or no room.
    pub fn add_route(&self, new: NewRoute) -> Result<RouteId, Error> {
        let (mut added, speaker) = self.changing()?;
        let id = added.insert_route(new.route.clone(), Instant::now())?;
        speaker.apply(SOURCE, Delta { add: vec![new.route], remove: Vec::new() });
        Ok(id)
    }

    /// Adds and deletes many routes at once: `None` deletes.
    ///
    /// # Errors
    /// If there is no speaker; or no room, and then those before it are there.
    pub fn change_routes(&self, changes: Vec<(RouteKey, Option<Route>)>) -> Result<(), Error> {
        let now = Instant::now();
        // Of several changes of one route the last one counts.
        let mut last: HashMap<RouteKey, Option<Route>> = HashMap::new();
        let mut outcome = Ok(());
        let (mut added, speaker) = self.changing()?;
        for (key, route) in changes {
            if let Some(route) = &route {
                if let Err(error) = added.insert_route(route.clone(), now) {
                    outcome = Err(error);
                    break;
                }
            } else if !added.remove_route(&key) {
                continue;
            }
            last.insert(key, route);
        }
        let mut delta = Delta::default();
        for (key, route) in last {
            match route {
                Some(route) => delta.add.push(route),
                None => delta.remove.push(key),
            }
        }
        speaker.apply(SOURCE, delta);
        outcome
    }

    /// Deletes routes that clients have added.
    ///
    /// # Errors
    /// If there is no such route.
    pub fn delete_routes(&self, name: RouteName) -> Result<(), Error> {
        let (mut added, speaker) = self.changing()?;
        let keys = match name {
            RouteName::Key(key) => vec![key],
            RouteName::Id(id) => {
                vec![added.by_id(&id).ok_or_else(|| Error::not_found("no route has this uuid"))?]
            }
            RouteName::All(family) => added.keys(family),
        };
        let gone: Vec<RouteKey> = keys.into_iter().filter(|key| added.remove_route(key)).collect();
        if let (RouteName::Key(key), true) = (name, gone.is_empty()) {
            return Err(Error::not_found(format!(
                "clients have added no route to {}: routes of others cannot be deleted by clients",
                key.prefix
            )));
        }
        speaker.apply(SOURCE, Delta { add: Vec::new(), remove: gone });
        Ok(())
    }

    /// When a client added this route, and the name it got; for one of another source since when it can be there.
    pub(crate) fn route_age(&self, source: &str, key: &RouteKey) -> (Instant, Option<RouteId>) {
        let known =
            (source == SOURCE).then(|| self.added().route(key).map(|known| (known.since, Some(known.id))));
        known.flatten().unwrap_or((self.began, None))
    }

    /// A table, or the parts of it that are looked up. What is listed is held until `permit` is dropped.
    ///
    /// # Errors
    /// If there is no speaker or no such neighbour, its routes are not kept, or too many tables are being listed.
    pub async fn list(
        &self,
        table: Table,
        family: Family,
        lookups: &[Lookup],
    ) -> Result<(Listing, OwnedSemaphorePermit), Error> {
        let speaker = self.speaker()?;
        let permit = self.listing()?;
        let mut listing = self.table(&speaker, table, family, lookups).await?;
        match &mut listing {
            Listing::Local(entries) => filter(entries, lookups, |entry| entry.prefix),
            Listing::AdjIn(_, routes) => filter(routes, lookups, |route| route.prefix),
            Listing::AdjOut(_, routes) => filter(routes, lookups, |route| route.prefix),
        }
        Ok((listing, permit))
    }

    async fn table(
        &self,
        speaker: &SpeakerHandle,
        table: Table,
        family: Family,
        lookups: &[Lookup],
    ) -> Result<Listing, Error> {
        match table {
            Table::Local => Ok(Listing::Local(match lookups {
                // One prefix is found without a look at all others.
                [Lookup::Exact(prefix)] => {
                    let prefix = *prefix;
                    let entry = speaker.query(move |speaker| speaker.rib_entry(prefix)).await.flatten();
                    entry.into_iter().filter(|entry| family_of(entry.prefix) == family).collect()
                }
                _ => self.in_turn(speaker.rib(family)).await,
            })),
            Table::AdjIn(address) => {
                let (name, status) = self.named(address)?;
                let known = status.session.iter().flat_map(|session| &session.families);
                if known.into_iter().any(|known| known.family == family && !known.kept && known.received > 0)
                {
                    return Err(Error::precondition(format!(
                        "the routes of neighbour {address} are only counted: set receivedRoutes: Keep, or its like, \
                         where {} is configured",
                        self.owner.peer_owner(name.as_str())
                    )));
                }
                let routes =
                    self.in_turn(speaker.adj_in(&name, family)).await.ok_or_else(|| gone(address))?;
                Ok(Listing::AdjIn(status, routes))
            }
            Table::AdjOut(address) => {
                let (name, status) = self.named(address)?;
                let routes =
                    self.in_turn(speaker.adj_out(&name, family)).await.ok_or_else(|| gone(address))?;
                Ok(Listing::AdjOut(status, routes))
            }
        }
    }

    /// Asks for a whole table when the one before is there.
    async fn in_turn<T>(&self, asked: impl Future<Output = T>) -> T {
        let _turn = self.turn.lock().await;
        asked.await
    }

    fn named(&self, address: IpAddr) -> Result<(PeerName, Box<PeerStatus>), Error> {
        let snapshot = self.snapshot();
        let status = by_address(&snapshot, address).ok_or_else(|| gone(address))?;
        Ok((status.name.clone(), Box::new(status.clone())))
    }

    /// How much a table holds.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn size(&self, table: Table, family: Family) -> Result<TableSize, Error> {
        let (listing, _permit) = self.list(table, family, &[]).await?;
        let count = |length: usize| length as u64;
        Ok(match listing {
            Listing::Local(entries) => TableSize {
                destinations: count(entries.len()),
                paths: count(entries.iter().map(|entry| entry.paths.len()).sum()),
            },
            Listing::AdjIn(_, routes) => of(routes.iter().map(|route| route.prefix)),
            Listing::AdjOut(_, routes) => of(routes.iter().map(|route| route.prefix)),
        })
    }
}

/// Sizes of sorted routes.
fn of(prefixes: impl Iterator<Item = IpNet>) -> TableSize {
    let mut size = TableSize::default();
    let mut last = None;
    for prefix in prefixes {
        size.paths += 1;
        size.destinations += u64::from(last != Some(prefix));
        last = Some(prefix);
    }
    size
}

fn filter<T>(all: &mut Vec<T>, lookups: &[Lookup], prefix: impl Fn(&T) -> IpNet) {
    if lookups.is_empty() {
        return;
    }
    // The longest match of an address is known only when all were seen.
    let longest: Vec<Lookup> = lookups
        .iter()
        .filter_map(|lookup| match lookup {
            Lookup::Longest(address) => all
                .iter()
                .map(&prefix)
                .filter(|known| known.contains(address))
                .max_by_key(IpNet::prefix_len)
                .map(Lookup::Exact),
            other => Some(*other),
        })
        .collect();
    all.retain(|entry| longest.iter().any(|lookup| lookup.matches(prefix(entry))));
}

fn family_of(prefix: IpNet) -> Family {
    if prefix.addr().is_ipv4() { Family::IPV4_UNICAST } else { Family::IPV6_UNICAST }
}

fn gone(address: IpAddr) -> Error {
    Error::not_found(format!("there is no neighbour {address}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{grpc::core::Embedded, net, speaker::SpeakerConfig};

    #[tokio::test]
    async fn the_speaker_is_asked_for_one_table_at_a_time() {
        let (speaker, _) = net::spawn_offline(SpeakerConfig::new(65000, [192, 0, 2, 1].into())).unwrap();
        let core = Core::new(Arc::new(Embedded::new(speaker)));
        let turn = core.turn.lock().await;
        let second = tokio::spawn({
            let core = Arc::clone(&core);
            async move { core.list(Table::Local, Family::IPV4_UNICAST, &[]).await.map(drop) }
        });
        // One prefix is found at once; all that waits for nothing but the speaker is there when it is.
        let prefix = Lookup::Exact("198.51.100.1/32".parse().unwrap());
        for _ in 0..10 {
            core.list(Table::Local, Family::IPV4_UNICAST, &[prefix]).await.map(drop).unwrap();
        }
        assert!(!second.is_finished());
        drop(turn);
        second.await.unwrap().unwrap();
    }
}
