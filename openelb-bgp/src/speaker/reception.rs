//! What a neighbour sends: counted or kept, limited, and kept for a while when its session is gone (RFC 4724 §4.2).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    config::PeerConfig,
    event::Event,
    options::{LimitAction, ReceivedRoutes},
    peer::{Peer, Surroundings},
    session::{LimitTold, Reception, Session},
    view::{PathAttributes, ReceivedRoute},
};
use crate::{
    fsm::DownReason,
    rib::{Rib, received::MAX_PATHS, selection::Origination},
    wire::{Attributes, Family, GracefulRestart, Nlri, NlriList, Notification, Prefix, SessionKind, Update},
};

/// Refreshes of a family that a neighbour begins sooner after each other are one.
const REFRESH_SPACING: Duration = Duration::from_secs(1);
/// How long a neighbour that is back may take to send all its routes again, after a restart (RFC 4724 §4.2 asks for a
/// bound) or in a refresh (RFC 7313 §4).
const AGAIN_WITHIN: Duration = Duration::from_secs(360);

/// When stale routes go at the latest.
#[derive(Debug, Default)]
pub(super) struct StaleRoutes {
    until: Option<Instant>,
}

impl StaleRoutes {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// Whether routes of a neighbour wait for it.
    pub(super) fn is_waiting(&self) -> bool {
        self.until.is_some()
    }
}

/// What is told of routes that a neighbour has no more.
pub(super) fn withdrawals(peer: &PeerConfig, prefixes: &[Prefix]) -> impl Iterator<Item = Event> {
    prefixes.iter().map(|prefix| Event::Received {
        peer: peer.name.clone(),
        prefix: (*prefix).into(),
        path_id: 0,
        route: None,
    })
}

impl Surroundings<'_> {
    /// A neighbour has these routes no more.
    fn gone(&mut self, peer: &PeerConfig, prefixes: Vec<Prefix>) {
        if self.tell_received {
            self.events.extend(withdrawals(peer, &prefixes));
        }
        self.touch(prefixes);
    }

    /// A neighbour has a route that is kept, or has it no more.
    fn tell(&mut self, peer: &PeerConfig, nlri: &Nlri, set: Option<&Arc<PathAttributes>>, now: Instant) {
        self.touch([nlri.prefix]);
        if !self.tell_received {
            return;
        }
        let (prefix, path_id) = (nlri.prefix.into(), nlri.path_id);
        let route = set.map(|set| {
            let attributes = Arc::clone(set);
            Box::new(ReceivedRoute { prefix, path_id, attributes, since: now, stale: false })
        });
        self.events.push_back(Event::Received { peer: peer.name.clone(), prefix, path_id, route });
    }

    /// Received routes of these prefixes have changed.
    fn touch(&mut self, prefixes: impl IntoIterator<Item = Prefix>) {
        if let Some(touched) = &mut self.touched {
            touched.extend(prefixes);
        }
    }
}

impl Session {
    /// See [`FamilySession::set_reception`](super::session::FamilySession::set_reception). Gives the prefixes of what is
    /// kept no more.
    pub(super) fn set_reception(
        &mut self,
        wanted: ReceivedRoutes,
        (peer, seed): (super::PeerId, u64),
        rib: &mut Rib,
    ) -> Vec<Prefix> {
        let mut gone = Vec::new();
        // Without route refresh what was only counted would be missing: it stays so until the next session.
        if wanted == ReceivedRoutes::Keep && !self.negotiated.route_refresh {
            return gone;
        }
        let mut ask = false;
        for known in &mut self.families {
            let add_path = self.negotiated.context.receives_path_ids(known.family);
            let (missing, prefixes) = known.set_reception(wanted, (peer, add_path, seed), rib);
            ask |= missing;
            gone.extend(prefixes);
        }
        if ask {
            self.request_all();
        }
        gone
    }
}

/// Whether graceful restart is offered for the family.
fn covers(restart: Option<&GracefulRestart>, family: Family) -> bool {
    restart.is_some_and(|restart| restart.families.iter().any(|row| row.family == family))
}

impl Peer {
    /// A session has come up: whose routes they are, and what is left of the session before.
    pub(super) fn begin_reception(&mut self, around: &mut Surroundings<'_>, now: Instant) {
        let Some(session) = &self.session else { return };
        let negotiated = &session.negotiated;
        around.rib.received.set_neighbor(
            self.id,
            Origination {
                external: negotiated.context.kind == SessionKind::External,
                router_id: negotiated.remote_open.router_id,
                address: negotiated.remote.ip().to_canonical(),
            },
        );
        if self.stale.until.is_none() {
            return;
        }
        // RFC 4724 §4.2: what the neighbour has not kept forwarding for goes at once.
        let restart = negotiated.remote_open.graceful_restart();
        let kept = |family: Family| {
            session
                .families
                .iter()
                .any(|known| known.family == family && matches!(known.reception, Reception::Keep))
                && covers(negotiated.local_open.graceful_restart(), family)
                && restart.is_some_and(|restart| {
                    restart.families.iter().any(|row| row.family == family && row.forwarding)
                })
        };
        let gone: Vec<Family> =
            self.config.families.iter().map(|offer| offer.family).filter(|family| !kept(*family)).collect();
        for family in gone {
            let prefixes = around.rib.received.clear((self.id, family));
            around.gone(&self.config, prefixes);
        }
        self.stale.until = Some(now + AGAIN_WITHIN);
        self.stop_waiting(around);
    }

    /// The session is gone: its kept routes are stale, or go.
    pub(super) fn end_reception(
        &mut self,
        session: &Session,
        reason: &DownReason,
        around: &mut Surroundings<'_>,
        now: Instant,
    ) {
        let negotiated = &session.negotiated;
        let restart = negotiated
            .remote_open
            .graceful_restart()
            .filter(|_| negotiated.local_open.graceful_restart().is_some())
            .filter(|_| reason.keeps_routes(negotiated.notification_restart));
        self.stale.until = None;
        for known in &session.families {
            let owner = (self.id, known.family);
            // What was stale already has had its chance.
            let prefixes = around.rib.received.sweep(owner);
            around.gone(&self.config, prefixes);
            let kept = restart.filter(|restart| {
                covers(Some(restart), known.family)
                    && covers(negotiated.local_open.graceful_restart(), known.family)
            });
            match kept {
                Some(restart) if around.rib.received.len(owner) > 0 => {
                    around.rib.received.mark_stale(owner);
                    self.stale.until = Some(now + Duration::from_secs(restart.time.into()));
                }
                _ => {
                    let prefixes = around.rib.received.clear(owner);
                    around.gone(&self.config, prefixes);
                }
            }
        }
    }

    /// The time of stale routes is over.
    pub(super) fn expire_stale(&mut self, around: &mut Surroundings<'_>, now: Instant) {
        if self.stale.until.is_none_or(|at| at > now) {
            return;
        }
        self.stale.until = None;
        for family in self.config.families.iter().map(|offer| offer.family) {
            let prefixes = around.rib.received.sweep((self.id, family));
            self.changed |= !prefixes.is_empty();
            around.gone(&self.config, prefixes);
        }
    }

    /// Nothing is waited for once nothing is stale.
    fn stop_waiting(&mut self, around: &Surroundings<'_>) {
        let mut families = self.config.families.iter();
        if families.all(|offer| around.rib.received.stale((self.id, offer.family)) == 0) {
            self.stale.until = None;
        }
    }

    fn sweep(&mut self, family: Family, around: &mut Surroundings<'_>) {
        let prefixes = around.rib.received.sweep((self.id, family));
        self.changed |= !prefixes.is_empty();
        around.gone(&self.config, prefixes);
        self.stop_waiting(around);
    }

    pub(super) fn handle_end_of_rib(&mut self, family: Family, around: &mut Surroundings<'_>) {
        if let Some(known) = self.session.as_mut().and_then(|session| session.family_mut(family)) {
            self.changed |= !std::mem::replace(&mut known.end_of_rib_received, true);
            self.sweep(family, around);
        }
    }

    /// The neighbour sends all its routes again: those that do not come are gone (RFC 7313 §4).
    pub(super) fn begin_refresh(&mut self, family: Family, around: &mut Surroundings<'_>, now: Instant) {
        let Some(session) = self.session.as_mut() else { return };
        let enhanced = session.negotiated.enhanced_route_refresh;
        // Before End-of-RIB, which removes what is stale, a beginning is to be ignored.
        let restarts = session.negotiated.remote_open.graceful_restart().is_some();
        let Some(known) = session.family_mut(family) else { return };
        if !enhanced || (restarts && !known.end_of_rib_received) {
            return;
        }
        // At once again: each would look at every route. What is gone since the last one was withdrawn.
        let spacing = |at: Instant| now.saturating_duration_since(at) < REFRESH_SPACING;
        if known.refreshed_at.is_some_and(spacing) {
            return;
        }
        (known.is_refreshed, known.refreshed_at) = (true, Some(now));
        if matches!(known.reception, Reception::Keep) && around.rib.received.len((self.id, family)) > 0 {
            around.rib.received.mark_stale((self.id, family));
            self.stale.until = Some(now + AGAIN_WITHIN);
        }
    }

    pub(super) fn end_refresh(&mut self, family: Family, around: &mut Surroundings<'_>) {
        let known = self.session.as_mut().and_then(|session| session.family_mut(family));
        // An end without a beginning is none.
        if known.is_some_and(|known| std::mem::take(&mut known.is_refreshed)) {
            self.sweep(family, around);
        }
    }

    /// Takes in what the neighbour says.
    pub(super) fn handle_update(&mut self, update: &Update, around: &mut Surroundings<'_>, now: Instant) {
        let local_asn = self.local_asn();
        let Some(session) = self.session.as_mut().filter(|session| !session.ending) else { return };
        if !update.errors.is_empty() {
            self.counters.malformed_updates += 1;
        }
        for list in update.withdrawals() {
            let _ = take((self.id, &self.config), session, list, None, around, now);
        }
        // A route that comes back to us replaces what the neighbour had before, and is not used (RFC 4271 §9.1.2, RFC
        // 4456 §8).
        let attributes = &update.attributes;
        let looped = attributes.as_path.as_ref().is_some_and(|path| path.contains(local_asn))
            || attributes.originator_id == Some(session.negotiated.local_open.router_id);
        for (next_hop, list) in update.announcements() {
            self.counters.as_loops += u64::from(looped);
            let routes = (!looped).then_some((&update.attributes, next_hop));
            let (unkept, first) = take((self.id, &self.config), session, list, routes, around, now);
            self.counters.unkept_paths += unkept;
            if let Some(prefix) = first
                && !std::mem::replace(&mut session.unkept_told, true)
            {
                let (peer, prefix) = (self.config.name.clone(), prefix.into());
                around.events.push_back(Event::PathsNotKept { peer, prefix, kept: MAX_PATHS });
            }
        }
        self.check_limit(around, now);
    }

    pub(super) fn check_limit(&mut self, around: &mut Surroundings<'_>, now: Instant) {
        let limit = self.config.prefix_limit;
        let Some(session) = self.session.as_mut().filter(|session| !session.ending) else { return };
        let max = u64::from(limit.max_prefixes);
        let mut over = None;
        for known in &mut session.families {
            let received = known.received(self.id, around.rib) as u64;
            let now_is = LimitTold::of(received, max, limit.warning_percent);
            // Whatever was told: the action may have been another one then.
            if now_is == LimitTold::Over && limit.action == LimitAction::Cease {
                over = Some(known.family);
            }
            if now_is == known.limit_told {
                continue;
            }
            self.changed = true;
            if std::mem::replace(&mut known.limit_told, now_is) < now_is {
                around.events.push_back(Event::PrefixLimit {
                    peer: self.config.name.clone(),
                    family: known.family,
                    received,
                    limit: limit.max_prefixes,
                    exceeded: now_is == LimitTold::Over,
                });
            }
        }
        if let Some(family) = over {
            session.ending = true;
            let notification = Notification::maximum_prefixes(family, limit.max_prefixes);
            return self.end_for_limit(notification, limit.restart_after, now);
        }
        let octets = around.rib.received.octets(self.id) + session.counted_octets();
        let max = limit.octets();
        let now_is = LimitTold::of(octets, max, limit.warning_percent);
        if now_is == session.octets_told {
            return;
        }
        self.changed = true;
        let exceeded = now_is == LimitTold::Over;
        if std::mem::replace(&mut session.octets_told, now_is) < now_is {
            let peer = self.config.name.clone();
            around.events.push_back(Event::OctetLimit { peer, octets, limit: max, exceeded });
        }
        if exceeded {
            session.ending = true;
            // RFC 4486 gives Cease/8 no data: only our own operators are told how much.
            self.end_cause = Some(format!(
                "the neighbour's routes take more memory than the {max} octets that its prefix limit allows: raise it, or \
                 let the neighbour send fewer routes or smaller attributes"
            ));
            self.end_for_limit(Notification::out_of_resources(), limit.restart_after, now);
        }
    }
}

/// Takes in the routes of a list, or that they are gone. Gives how many were not kept, and the first one's prefix.
fn take(
    (peer, config): (super::PeerId, &PeerConfig),
    session: &mut Session,
    list: &NlriList,
    routes: Option<(&Attributes, crate::wire::NextHop)>,
    around: &mut Surroundings<'_>,
    now: Instant,
) -> (u64, Option<Prefix>) {
    let mut unkept = (0, None);
    let Some(known) = session.family_mut(list.family()) else { return unkept };
    let owner = (peer, known.family);
    match &mut known.reception {
        Reception::Count(counted) => match routes {
            Some(_) => list.iter().for_each(|nlri| counted.announce(&nlri)),
            None => list.iter().for_each(|nlri| counted.withdraw(&nlri)),
        },
        Reception::Keep => match routes {
            Some((attributes, next_hop)) => {
                let attributes = Attributes { next_hop: None, ..attributes.clone() };
                let set = around.rib.received.intern(peer, PathAttributes { attributes, next_hop });
                let told = Arc::clone(around.rib.received.attributes(set));
                for nlri in list.iter() {
                    if around.rib.received.announce(owner, nlri, set, now) {
                        around.tell(config, &nlri, Some(&told), now);
                    } else {
                        unkept.0 += 1;
                        unkept.1.get_or_insert(nlri.prefix);
                    }
                }
                around.rib.received.release(set);
            }
            None => {
                for nlri in list.iter() {
                    if around.rib.received.withdraw(owner, nlri) {
                        around.tell(config, &nlri, None, now);
                    }
                }
            }
        },
    }
    unkept
}
