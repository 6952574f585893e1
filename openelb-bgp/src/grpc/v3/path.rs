//! Routes as GoBGP's messages.

use std::{sync::Arc, time::Instant};

use ipnet::IpNet;

use super::{
    any::shown,
    attributes::{self, attributes},
    family::{family, family_of, family_or_ipv4, nlri, parse_family, parse_nlri},
    time::timestamp,
};
use crate::{
    grpc::{
        apipb,
        core::{Core, Error, Listing, Lookup, NewRoute, RouteName, Table, identifier, path_id},
    },
    speaker::{
        AdvertisedRoute, PathAttributes, PeerScope, PeerStatus, ReceivedRoute, RibEntry, RibPath, Route,
        RouteKey, RouteOwner,
    },
};

/// Prefixes that one request may look for.
const MAX_LOOKUPS: usize = 1_000;

/// What every route is shown with.
fn shown_path(prefix: IpNet, with: &PathAttributes, since: Instant) -> apipb::Path {
    apipb::Path {
        nlri: Some(nlri(prefix)),
        pattrs: attributes(with, prefix),
        age: Some(timestamp(since)),
        family: Some(family(family_of(prefix))),
        ..apipb::Path::default()
    }
}

/// One of a prefix's routes.
pub(super) fn rib_path(core: &Core, prefix: IpNet, path: &RibPath, best: bool) -> apipb::Path {
    match &path.owner {
        RouteOwner::Local { source } => {
            let key = RouteKey { prefix, path_id: path.path_id };
            let (since, id) = core.route_age(source, &key);
            apipb::Path {
                best,
                stale: path.stale,
                neighbor_ip: "<nil>".to_owned(),
                uuid: id.map_or_else(Vec::new, |id| id.to_vec()),
                identifier: if id.is_some() { identifier(path.path_id) } else { path.path_id },
                local_identifier: path.path_id,
                ..shown_path(prefix, &path.attributes, since)
            }
        }
        RouteOwner::Peer { name, address, asn, router_id } => apipb::Path {
            best,
            stale: path.stale,
            source_asn: *asn,
            source_id: router_id.to_string(),
            neighbor_ip: address.to_string(),
            is_from_external: core.snapshot().peers.get(name).is_none_or(|peer| peer.local_asn != *asn),
            identifier: path.path_id,
            ..shown_path(prefix, &path.attributes, path.since.unwrap_or_else(Instant::now))
        },
    }
}

/// A prefix that has no route any more.
pub(super) fn withdrawn(prefix: IpNet, identifier: u32) -> apipb::Path {
    apipb::Path {
        nlri: Some(nlri(prefix)),
        is_withdraw: true,
        family: Some(family(family_of(prefix))),
        age: Some(timestamp(Instant::now())),
        identifier,
        ..apipb::Path::default()
    }
}

fn entry(core: &Core, entry: &RibEntry) -> apipb::Destination {
    let path = |(index, path)| rib_path(core, entry.prefix, path, index == 0);
    apipb::Destination {
        prefix: entry.prefix.to_string(),
        paths: entry.paths.iter().enumerate().map(path).collect(),
    }
}

/// A route that a neighbour has sent.
pub(super) fn received(from: &PeerStatus, route: &ReceivedRoute) -> apipb::Path {
    let session = from.session.as_ref();
    apipb::Path {
        stale: route.stale,
        source_asn: session.map_or(from.asn, |session| session.remote_asn),
        source_id: session.map_or_else(String::new, |session| session.remote_router_id.to_string()),
        neighbor_ip: from.address.to_string(),
        is_from_external: session.is_none_or(|session| session.remote_asn != from.local_asn),
        identifier: route.path_id,
        ..shown_path(route.prefix, &route.attributes, route.since)
    }
}

fn sent(to: &PeerStatus, route: &AdvertisedRoute) -> apipb::Path {
    let since = to.session.as_ref().map_or_else(Instant::now, |session| session.since);
    apipb::Path {
        neighbor_ip: to.address.to_string(),
        local_identifier: route.path_id,
        ..shown_path(route.prefix, &route.attributes, since)
    }
}

/// A listing as destinations, made one by one while they are read.
pub(super) fn destinations(
    core: Arc<Core>,
    listing: Listing,
) -> Box<dyn Iterator<Item = apipb::Destination> + Send> {
    match listing {
        Listing::Local(entries) => Box::new(entries.into_iter().map(move |known| entry(&core, &known))),
        Listing::AdjIn(from, routes) => {
            grouped(routes, |route| route.prefix, move |route| received(&from, route))
        }
        Listing::AdjOut(to, routes) => grouped(routes, |route| route.prefix, move |route| sent(&to, route)),
    }
}

/// Neighbouring routes of one prefix are one destination.
fn grouped<T: Send + 'static>(
    routes: Vec<T>,
    prefix: impl Fn(&T) -> IpNet + Send + 'static,
    path: impl Fn(&T) -> apipb::Path + Send + 'static,
) -> Box<dyn Iterator<Item = apipb::Destination> + Send> {
    let mut routes = routes.into_iter().peekable();
    Box::new(std::iter::from_fn(move || {
        let first = routes.next()?;
        let of = prefix(&first);
        let mut paths = vec![path(&first)];
        while let Some(next) = routes.next_if(|next| prefix(next) == of) {
            paths.push(path(&next));
        }
        Some(apipb::Destination { prefix: of.to_string(), paths })
    }))
}

/// The table that a request means.
pub(super) fn table(kind: i32, name: &str) -> Result<Table, Error> {
    use apipb::TableType;
    let neighbor = || super::family::address("the neighbour", name);
    match TableType::try_from(kind) {
        Ok(TableType::Global | TableType::Local) => Ok(Table::Local),
        Ok(TableType::AdjIn) => neighbor().map(Table::AdjIn),
        Ok(TableType::AdjOut) => neighbor().map(Table::AdjOut),
        Ok(TableType::Vrf) => Err(no_vrf()),
        Err(_) => Err(Error::invalid(format!("table type {kind}: use 0 (global) to 3 (adj-out)"))),
    }
}

fn no_vrf() -> Error {
    Error::unimplemented("this speaker has no VRFs: its routes are all in the global table")
}

/// Which prefixes a request looks for.
pub(super) fn lookups(wanted: &[apipb::TableLookupPrefix]) -> Result<Vec<Lookup>, Error> {
    use apipb::table_lookup_prefix::Type;
    if wanted.len() > MAX_LOOKUPS {
        return Err(Error::invalid(format!(
            "{} prefixes: look for at most {MAX_LOOKUPS} at a time",
            wanted.len()
        )));
    }
    let lookup = |wanted: &apipb::TableLookupPrefix| {
        let text = wanted.prefix.as_str();
        let kind = Type::try_from(wanted.r#type)
            .map_err(|_| Error::invalid(format!("lookup type {}: use 0 to 2", wanted.r#type)))?;
        if kind == Type::Exact
            && let Ok(address) = text.parse()
        {
            return Ok(Lookup::Longest(address));
        }
        let host = |address: std::net::IpAddr| IpNet::from(address);
        let prefix = text.parse::<IpNet>().map(|net| net.trunc()).or_else(|_| text.parse().map(host));
        let prefix = prefix
            .map_err(|_| Error::invalid(format!("{} is neither a prefix nor an address", shown(text))))?;
        Ok(match kind {
            Type::Exact => Lookup::Exact(prefix),
            Type::Longer => Lookup::Longer(prefix),
            Type::Shorter => Lookup::Shorter(prefix),
        })
    };
    wanted.iter().map(lookup).collect()
}

/// Routes are added to the global table.
pub(super) fn into_global(table: i32, vrf: &str) -> Result<(), Error> {
    match apipb::TableType::try_from(table) {
        Ok(apipb::TableType::Global) if vrf.is_empty() => Ok(()),
        Ok(apipb::TableType::Global | apipb::TableType::Vrf) => Err(no_vrf()),
        _ => Err(Error::invalid(format!(
            "table type {table}: routes are added to, and deleted from, table 0 (global)"
        ))),
    }
}

/// What identifies a client's route.
fn key(path: &apipb::Path, in_attributes: &[IpNet]) -> Result<RouteKey, Error> {
    if !path.nlri_binary.is_empty() || !path.pattrs_binary.is_empty() {
        return Err(Error::unimplemented("nlri_binary and pattrs_binary are not read: use nlri and pattrs"));
    }
    let prefix = match (&path.nlri, in_attributes) {
        (Some(nlri), _) => parse_nlri(nlri)?,
        (None, [one]) => *one,
        (None, _) => return Err(Error::invalid("a path without nlri")),
    };
    if let Some(said) = path.family
        && parse_family(said)? != family_of(prefix)
    {
        return Err(Error::invalid(format!("{prefix} is not of the family that its path says")));
    }
    if in_attributes.iter().any(|other| *other != prefix) {
        return Err(Error::invalid(format!(
            "{prefix} and another prefix in MP_REACH_NLRI: add them one by one"
        )));
    }
    Ok(RouteKey { prefix, path_id: path_id(path.identifier)? })
}

/// A client's route.
pub(super) fn parse(path: &apipb::Path) -> Result<NewRoute, Error> {
    let parsed = attributes::parse(&path.pattrs)?;
    let RouteKey { prefix, path_id } = key(path, &parsed.nlris)?;
    let next_hop = parsed.next_hop(prefix)?;
    Ok(NewRoute {
        route: Route {
            prefix,
            path_id,
            next_hop,
            attributes: Arc::new(parsed.attributes),
            scope: PeerScope::All,
        },
    })
}

/// A change of a client's routes.
pub(super) fn change(path: &apipb::Path) -> Result<(RouteKey, Option<Route>), Error> {
    if path.is_withdraw {
        return Ok((withdrawal(path)?, None));
    }
    let route = parse(path)?.route;
    Ok((route.key(), Some(route)))
}

/// The attributes of a withdrawal do not matter, but where a prefix is in MP_REACH_NLRI alone.
fn withdrawal(path: &apipb::Path) -> Result<RouteKey, Error> {
    if path.nlri.is_some() {
        return key(path, &[]);
    }
    key(path, &attributes::parse(&path.pattrs)?.nlris)
}

/// Which routes a client wants to have deleted.
pub(super) fn deleted(request: &apipb::DeletePathRequest) -> Result<RouteName, Error> {
    into_global(request.table_type, &request.vrf_id)?;
    if !request.uuid.is_empty() {
        let id = request.uuid.as_slice().try_into();
        return id
            .map(RouteName::Id)
            .map_err(|_| Error::invalid(format!("a uuid of {} octets: it has 16", request.uuid.len())));
    }
    match &request.path {
        Some(path) => withdrawal(path).map(RouteName::Key),
        None => Ok(RouteName::All(match request.family {
            Some(family) if family.afi != 0 => Some(family_or_ipv4(Some(family))?),
            _ => None,
        })),
    }
}
