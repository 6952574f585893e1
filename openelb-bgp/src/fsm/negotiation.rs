//! Both OPENs: what we offer, whether we accept what the neighbour offers, and what follows.

use std::{net::Ipv4Addr, time::Duration};

use super::{ConnectionInfo, Direction, Negotiated};
use crate::wire::{
    AddPathFamily, AddPathMode, Capability, ExtendedNextHop, Family, GracefulRestart, Notification, Open,
    SessionContext, SessionKind,
};

/// A family that is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyOffer {
    /// The family.
    pub family: Family,
    /// We would send several paths to one prefix (RFC 7911).
    pub add_path_send: bool,
    /// We would take several paths to one prefix.
    pub add_path_receive: bool,
}

/// What a neighbour's machine is configured with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsmConfig {
    /// Our AS number towards this neighbour, not 0.
    pub local_asn: u32,
    /// Our BGP identifier, not 0.0.0.0 (RFC 6286).
    pub router_id: Ipv4Addr,
    /// The neighbour's AS number; `None` accepts any.
    pub peer_asn: Option<u32>,
    /// Of any AS number ours is none: the session is external, or there is none.
    pub external_only: bool,
    /// Never open a connection, only accept.
    pub passive: bool,
    /// Hold time that we offer, seconds: 0, or 3 to 65535.
    pub hold_time: u16,
    /// Interval of keepalives; at most a third of the negotiated hold time, which is also what zero means.
    pub keepalive: Duration,
    /// The first pause between attempts; it doubles with each failure.
    pub connect_retry: Duration,
    /// The longest pause between attempts.
    pub connect_retry_max: Duration,
    /// How long we wait for the neighbour's OPEN; 4 minutes, as RFC 4271 §8.2.2 suggests.
    pub open_hold: Duration,
    /// Families to offer, with add-path.
    pub families: Vec<FamilyOffer>,
    /// The graceful restart capability to offer.
    pub graceful_restart: Option<GracefulRestart>,
    /// Offer messages of up to 65535 octets (RFC 8654).
    pub extended_messages: bool,
    /// Offer IPv4 prefixes with an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
}

impl FsmConfig {
    /// The defaults: hold time 30 s, keepalive 10 s, pauses of 1 s to 60 s, IPv4 and IPv6 unicast without add-path.
    #[must_use]
    pub fn new(local_asn: u32, router_id: Ipv4Addr) -> Self {
        let plain = |family| FamilyOffer { family, add_path_send: false, add_path_receive: false };
        Self {
            local_asn,
            router_id,
            peer_asn: None,
            external_only: false,
            passive: false,
            hold_time: 30,
            keepalive: Duration::from_secs(10),
            connect_retry: Duration::from_secs(1),
            connect_retry_max: Duration::from_secs(60),
            open_hold: Duration::from_secs(240),
            families: vec![plain(Family::IPV4_UNICAST), plain(Family::IPV6_UNICAST)],
            graceful_restart: None,
            extended_messages: true,
            extended_next_hop: false,
        }
    }

    /// Our OPEN.
    pub(crate) fn open(&self) -> Open {
        let mut capabilities: Vec<Capability> =
            self.families.iter().map(|offer| Capability::Multiprotocol(offer.family)).collect();
        capabilities.push(Capability::RouteRefresh);
        capabilities.push(Capability::EnhancedRouteRefresh);
        if self.extended_next_hop {
            let row =
                ExtendedNextHop { family: Family::IPV4_UNICAST, next_hop_afi: Family::IPV6_UNICAST.afi };
            capabilities.push(Capability::ExtendedNextHop(vec![row]));
        }
        if self.extended_messages {
            capabilities.push(Capability::ExtendedMessage);
        }
        if let Some(restart) = &self.graceful_restart {
            capabilities.push(Capability::GracefulRestart(restart.clone()));
        }
        let add_path: Vec<_> = self
            .families
            .iter()
            .filter_map(|offer| {
                let mode = match (offer.add_path_send, offer.add_path_receive) {
                    (true, true) => AddPathMode::Both,
                    (true, false) => AddPathMode::Send,
                    (false, true) => AddPathMode::Receive,
                    (false, false) => return None,
                };
                Some(AddPathFamily { family: offer.family, mode })
            })
            .collect();
        if !add_path.is_empty() {
            capabilities.push(Capability::AddPath(add_path));
        }
        Open::new(self.local_asn, self.hold_time, self.router_id, capabilities)
    }

    /// Whether a session with the sender of this OPEN is possible, and on which terms.
    ///
    /// What makes an OPEN invalid by itself was refused by its decoder; here is what depends on us.
    pub(super) fn accept(
        &self,
        remote: &Open,
        direction: Direction,
        info: ConnectionInfo,
    ) -> Result<Negotiated, (String, Notification)> {
        let asn = remote.four_octet_asn();
        if let Some(expected) = self.peer_asn
            && asn != expected
        {
            let cause = format!("the neighbour is AS {asn}, configured is AS {expected}");
            return Err((cause, Notification::bad_peer_as()));
        }
        if self.peer_asn.is_none() && self.external_only && asn == self.local_asn {
            let cause = format!("the neighbour is in our AS {asn}, configured is an external one");
            return Err((cause, Notification::bad_peer_as()));
        }
        let kind = if asn == self.local_asn { SessionKind::Internal } else { SessionKind::External };
        // RFC 6286 §2.2: identifiers are unique within an AS.
        if kind == SessionKind::Internal && remote.router_id == self.router_id {
            let cause = format!("the neighbour in our AS has our BGP identifier {}", self.router_id);
            return Err((cause, Notification::bad_router_id()));
        }
        let offered = remote.families();
        let families: Vec<Family> = self
            .families
            .iter()
            .map(|offer| offer.family)
            .filter(|family| offered.contains(family))
            .collect();
        if families.is_empty() {
            // RFC 5492 §5: the data lists what is missing.
            let required: Vec<_> =
                self.families.iter().map(|offer| Capability::Multiprotocol(offer.family)).collect();
            let cause = "the neighbour offers none of the configured address families".to_owned();
            return Err((cause, Notification::unsupported_capability(&required)));
        }
        let add_path = |ours: fn(&FamilyOffer) -> bool, theirs: fn(AddPathMode) -> bool| -> Vec<Family> {
            self.families
                .iter()
                .filter(|offer| ours(offer) && families.contains(&offer.family))
                .map(|offer| offer.family)
                .filter(|family| remote.add_path(*family).is_some_and(theirs))
                .collect()
        };
        let context = SessionContext {
            kind,
            four_octet_as: remote.has_four_octet_as(),
            extended_messages: self.extended_messages && remote.has(&Capability::ExtendedMessage),
            add_path_receive: add_path(|offer| offer.add_path_receive, AddPathMode::sends),
            add_path_send: add_path(|offer| offer.add_path_send, AddPathMode::receives),
            extended_next_hop: self.extended_next_hop
                && families.contains(&Family::IPV4_UNICAST)
                && remote.has_extended_next_hop(Family::IPV4_UNICAST, Family::IPV6_UNICAST.afi),
        };
        let hold_time = Duration::from_secs(u64::from(self.hold_time.min(remote.hold_time)));
        Ok(Negotiated {
            context,
            hold_time,
            // RFC 4271 §4.4: only with a hold time of zero are there none.
            keepalive: match self.keepalive {
                Duration::ZERO => hold_time / 3,
                interval => interval.min(hold_time / 3),
            },
            families,
            direction,
            local: info.local,
            remote: info.remote,
            route_refresh: remote.has(&Capability::RouteRefresh),
            enhanced_route_refresh: remote.has(&Capability::RouteRefresh)
                && remote.has(&Capability::EnhancedRouteRefresh),
            notification_restart: self.graceful_restart.as_ref().is_some_and(|restart| restart.notification)
                && remote.graceful_restart().is_some_and(|restart| restart.notification),
            local_open: self.open(),
            remote_open: remote.clone(),
        })
    }
}
