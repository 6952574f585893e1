//! What the speaker shows of routes when it is asked: what neighbours sent, what they were sent, which is the best.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Instant,
};

use ipnet::IpNet;

use super::config::PeerName;
pub use crate::rib::selection::BestPathStep;
use crate::wire::{Attributes, NextHop};

/// All path attributes of a route, and its next hop wherever it stood: NEXT_HOP or MP_REACH_NLRI.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathAttributes {
    /// The attributes, unknown ones included. [`Attributes::next_hop`] is not set.
    pub attributes: Attributes,
    /// The next hop; of an own route that stands for "this speaker", the unspecified address.
    pub next_hop: NextHop,
}

/// A route that a neighbour has sent (Adj-RIB-In), where they are [kept](super::ReceivedRoutes::Keep).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedRoute {
    /// Where to.
    pub prefix: IpNet,
    /// The neighbour's path identifier (RFC 7911); 0 without add-path.
    pub path_id: u32,
    /// Its attributes. Equal ones are shared.
    pub attributes: Arc<PathAttributes>,
    /// When it came as it is.
    pub since: Instant,
    /// The neighbour has to send it again (RFC 4724 §4.2, RFC 7313 §4), or it goes.
    pub stale: bool,
}

/// A route as a neighbour was sent it (Adj-RIB-Out).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdvertisedRoute {
    /// Where to.
    pub prefix: IpNet,
    /// Our path identifier (RFC 7911); 0 without add-path.
    pub path_id: u32,
    /// Its attributes as they went out on this session.
    pub attributes: Arc<PathAttributes>,
}

/// Whose a route is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteOwner {
    /// Our own, of this source ([`Speaker::set_routes`](super::Speaker::set_routes)).
    Local {
        /// The source's name.
        source: String,
    },
    /// A neighbour's.
    Peer {
        /// Its name.
        name: PeerName,
        /// Its address.
        address: IpAddr,
        /// Its AS number in the session in which it sent the route.
        asn: u32,
        /// Its BGP identifier, likewise.
        router_id: Ipv4Addr,
    },
}

/// One of a prefix's routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RibPath {
    /// Whose it is.
    pub owner: RouteOwner,
    /// The path identifier: ours of an own route, the neighbour's of another.
    pub path_id: u32,
    /// Its attributes.
    pub attributes: Arc<PathAttributes>,
    /// When a received one came; `None` of our own.
    pub since: Option<Instant>,
    /// Waits to be sent again.
    pub stale: bool,
    /// The step of the decision that made it the best one, or that it lost at.
    pub step: BestPathStep,
}

/// A prefix with all its routes, the best one first: our own, and what is kept of neighbours' (RFC 4271 §9.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RibEntry {
    /// Where to.
    pub prefix: IpNet,
    /// The routes; never empty.
    pub paths: Vec<RibPath>,
}
