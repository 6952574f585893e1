//! An established session: which families it carries, and what goes out next.

use std::{net::IpAddr, time::Instant};

use bytes::BytesMut;

use super::{
    config::{PeerConfig, PeerName, SpeakerConfig},
    event::PeerId,
    options::ReceivedRoutes,
    stats::FamilyStatus,
};
use crate::{
    fsm::{Direction, Negotiated},
    rib::{
        Rib,
        adj_in::AdjIn,
        adj_out::{AdjOut, Urgency},
        egress::Egress,
        packer::Packer,
        table::DestinationId,
    },
    wire::{Family, Message, Nlri, Prefix, RouteRefresh, RouteRefreshKind, SessionContext, UpdateBuilder},
};

/// About how many octets of UPDATEs are made at a time.
const CHUNK: usize = 64 * 1024;

/// RFC 7313: how a neighbour is told that all routes are being sent anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refresh {
    No,
    /// The beginning is still to be announced.
    Begin,
    /// All routes are being sent; the end is still to be announced.
    Running,
}

/// What becomes of received routes.
#[derive(Debug)]
pub(super) enum Reception {
    /// They are counted.
    Count(AdjIn),
    /// They are kept, in [`Rib::received`].
    Keep,
}

/// What was told of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LimitTold {
    Nothing,
    /// The neighbour comes close to it.
    Close,
    /// It is over it.
    Over,
}

/// One family of a session.
#[derive(Debug)]
pub(super) struct FamilySession {
    pub(super) family: Family,
    pub(super) adj_out: AdjOut,
    pub(super) reception: Reception,
    pub(super) limit_told: LimitTold,
    pub(super) end_of_rib_sent: bool,
    pub(super) end_of_rib_received: bool,
    /// The neighbour sends all its routes again, between markers (RFC 7313).
    pub(super) is_refreshed: bool,
    /// When that began last.
    pub(super) refreshed_at: Option<Instant>,
    refresh: Refresh,
    /// Asked for while one was running, or the first of all routes were being sent.
    refresh_again: bool,
}

/// An established session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) since: Instant,
    pub(super) direction: Direction,
    pub(super) negotiated: Negotiated,
    pub(super) families: Vec<FamilySession>,
    /// Whose turn it is.
    turn: usize,
    /// It is about to end: nothing more is taken in.
    pub(super) ending: bool,
    /// Of the limit of octets.
    pub(super) octets_told: LimitTold,
    /// It was told that not all paths are kept.
    pub(super) unkept_told: bool,
    /// Families that the neighbour is to be asked for (RFC 2918).
    pub(super) requests: Vec<Family>,
}

/// What [`Session::pull`] made.
#[derive(Debug, Default)]
pub(super) struct Pulled {
    pub(super) bytes: BytesMut,
    pub(super) updates: u64,
    pub(super) route_refreshes: u64,
}

/// The terms of one family.
fn egress(family: Family, peer: &PeerConfig, speaker: &SpeakerConfig, negotiated: &Negotiated) -> Egress {
    let context = &negotiated.context;
    let ipv4 = family == Family::IPV4_UNICAST;
    let local = negotiated.local.ip().to_canonical();
    let configured =
        if ipv4 { speaker.next_hop_ipv4.map(IpAddr::V4) } else { speaker.next_hop_ipv6.map(IpAddr::V6) };
    let extended_next_hop = ipv4 && context.extended_next_hop;
    let usable = local.is_ipv4() == ipv4;
    let self_next_hop =
        if usable { Some(local) } else { configured.or_else(|| extended_next_hop.then_some(local)) };
    // A dynamic neighbour is called GROUP/ADDRESS, and hears what is for its group.
    let of_group = peer.name.as_str().strip_suffix(&format!("/{}", peer.address)).map(PeerName::from);
    Egress {
        peer: of_group.unwrap_or_else(|| peer.name.clone()),
        family,
        local_asn: peer.local_asn.unwrap_or(speaker.asn),
        context: context.clone(),
        self_next_hop,
    }
}

impl Session {
    pub(super) fn new(
        peer: &PeerConfig,
        speaker: &SpeakerConfig,
        negotiated: Negotiated,
        rib: &mut Rib,
        now: Instant,
    ) -> Self {
        let families = peer
            .families
            .iter()
            .filter(|offer| negotiated.families.contains(&offer.family))
            .map(|offer| {
                let egress = egress(offer.family, peer, speaker, &negotiated);
                let max_paths = egress.add_path().then_some(offer.add_path_send);
                let mut adj_out = AdjOut::new(egress, max_paths);
                let (table, attributes) = rib.table(offer.family);
                adj_out.refresh(table, attributes);
                let add_path = negotiated.context.receives_path_ids(offer.family);
                let reception = match peer.received_routes {
                    ReceivedRoutes::Count => {
                        Reception::Count(AdjIn::new(offer.family, add_path, speaker.seed))
                    }
                    ReceivedRoutes::Keep => Reception::Keep,
                };
                FamilySession {
                    family: offer.family,
                    adj_out,
                    reception,
                    limit_told: LimitTold::Nothing,
                    end_of_rib_sent: false,
                    end_of_rib_received: false,
                    is_refreshed: false,
                    refreshed_at: None,
                    refresh: Refresh::No,
                    refresh_again: false,
                }
            })
            .collect();
        Self {
            since: now,
            direction: negotiated.direction,
            negotiated,
            families,
            turn: 0,
            ending: false,
            octets_told: LimitTold::Nothing,
            unkept_told: false,
            requests: Vec::new(),
        }
    }

    /// Whether the neighbour has had the End-of-RIB of every family.
    pub(super) fn is_complete(&self) -> bool {
        self.families.iter().all(|known| known.end_of_rib_sent)
    }

    /// Octets of memory that the routes take that are only counted.
    pub(super) fn counted_octets(&self) -> u64 {
        let counted = |known: &FamilySession| match &known.reception {
            Reception::Count(counted) => counted.octets(),
            Reception::Keep => 0,
        };
        self.families.iter().map(counted).sum()
    }

    /// The neighbour is to be asked for all its routes.
    pub(super) fn request_all(&mut self) {
        self.requests = self.families.iter().map(|known| known.family).collect();
    }

    pub(super) fn family_mut(&mut self, family: Family) -> Option<&mut FamilySession> {
        self.families.iter_mut().find(|known| known.family == family)
    }

    /// The next hops that the speaker is configured with may have changed.
    pub(super) fn set_config(&mut self, peer: &PeerConfig, speaker: &SpeakerConfig, rib: &mut Rib) {
        for known in &mut self.families {
            let egress = egress(known.family, peer, speaker, &self.negotiated);
            let (table, attributes) = rib.table(known.family);
            known.adj_out.set_egress(egress, table, attributes);
        }
    }

    /// What is wanted of these destinations may have changed.
    pub(super) fn reconcile(
        &mut self,
        family: Family,
        changed: &[DestinationId],
        urgency: Urgency,
        rib: &mut Rib,
    ) {
        if let Some(known) = self.family_mut(family) {
            let (table, attributes) = rib.table(family);
            for destination in changed {
                known.adj_out.reconcile(*destination, urgency, table, attributes);
            }
        }
    }

    /// The neighbour asks for all routes of a family (RFC 2918).
    pub(super) fn refresh(&mut self, family: Family, rib: &mut Rib) {
        let Some(known) = self.family_mut(family) else { return };
        // One at a time, however often it asks: who asks again and again would else never be done.
        if known.refresh != Refresh::No || (!known.end_of_rib_sent && !known.adj_out.is_idle()) {
            // Of the first of all routes nothing may have gone out yet: they are all still to come.
            known.refresh_again |= known.refresh != Refresh::No || known.adj_out.advertised() > 0;
            return;
        }
        known.begin_refresh(rib);
    }

    /// The session is gone.
    pub(super) fn release(self, rib: &mut Rib) {
        for known in self.families {
            let (table, attributes) = rib.table(known.family);
            known.adj_out.release(table, attributes);
        }
    }

    /// Makes the next messages, at most about [`CHUNK`]; empty: there are none.
    pub(super) fn pull(&mut self, routes_complete: bool, rib: &mut Rib) -> Pulled {
        let mut pulled = Pulled::default();
        for family in std::mem::take(&mut self.requests) {
            pulled.mark(family, RouteRefreshKind::Request, &self.negotiated.context);
        }
        let count = self.families.len();
        for step in 0..count {
            let Some(known) = self.families.get_mut((self.turn + step) % count) else { break };
            while pulled.bytes.len() < CHUNK
                && known.pull(&mut pulled, &self.negotiated, routes_complete, rib)
            {}
        }
        self.turn = (self.turn + 1) % count.max(1);
        pulled
    }

    pub(super) fn family_status(&self, peer: PeerId, rib: &Rib) -> Vec<FamilyStatus> {
        self.families
            .iter()
            .map(|known| FamilyStatus {
                family: known.family,
                advertised: known.adj_out.advertised() as u64,
                pending: known.adj_out.pending() as u64,
                received: known.received(peer, rib) as u64,
                paths_per_prefix: u8::try_from(known.adj_out.max_paths()).unwrap_or(u8::MAX),
                end_of_rib_sent: known.end_of_rib_sent,
                end_of_rib_received: known.end_of_rib_received,
                kept: matches!(known.reception, Reception::Keep),
                stale: rib.received.stale((peer, known.family)) as u64,
                over_limit: known.limit_told == LimitTold::Over,
            })
            .collect()
    }
}

impl LimitTold {
    /// What is to be told of so much, where `max` is allowed.
    pub(super) fn of(amount: u64, max: u64, warning_percent: u8) -> Self {
        let close = max.saturating_mul(u64::from(warning_percent)).div_ceil(100);
        if amount > max {
            Self::Over
        } else if amount >= close && amount > 0 {
            Self::Close
        } else {
            Self::Nothing
        }
    }
}

impl FamilySession {
    /// All routes are to be sent again.
    fn begin_refresh(&mut self, rib: &mut Rib) {
        // RFC 7313 §4: no marker before End-of-RIB, which is still to come after all routes.
        if self.end_of_rib_sent {
            self.refresh = Refresh::Begin;
        }
        let (table, attributes) = rib.table(self.family);
        self.adj_out.refresh(table, attributes);
    }

    /// Makes the next messages, as far as there is room. Gives whether there are more to be made at once.
    fn pull(
        &mut self,
        pulled: &mut Pulled,
        negotiated: &Negotiated,
        routes_complete: bool,
        rib: &mut Rib,
    ) -> bool {
        let (context, enhanced) = (&negotiated.context, negotiated.enhanced_route_refresh);
        if self.refresh == Refresh::Begin {
            self.refresh = Refresh::Running;
            if enhanced {
                pulled.mark(self.family, RouteRefreshKind::Begin, context);
            }
        }
        if !self.adj_out.is_idle() {
            let (table, attributes) = rib.table(self.family);
            let mut packer = Packer::new(&mut pulled.bytes, CHUNK, self.adj_out.egress());
            self.adj_out.pull(&mut packer, table, attributes);
            pulled.updates += packer.messages();
        }
        if !self.adj_out.is_idle() {
            return false;
        }
        if self.refresh == Refresh::Running {
            self.refresh = Refresh::No;
            if enhanced {
                pulled.mark(self.family, RouteRefreshKind::End, context);
            }
        }
        if routes_complete && !self.end_of_rib_sent {
            self.end_of_rib_sent = true;
            let builder = UpdateBuilder::new(context);
            if let Err(error) = builder.end_of_rib(self.family, &mut pulled.bytes) {
                tracing::error!(%error, "End-of-RIB cannot be written");
            }
            pulled.updates += 1;
        }
        // What was asked for meanwhile.
        let again = std::mem::take(&mut self.refresh_again);
        if again {
            self.begin_refresh(rib);
        }
        again
    }

    /// How many routes the neighbour has.
    pub(super) fn received(&self, peer: PeerId, rib: &Rib) -> usize {
        match &self.reception {
            Reception::Count(counted) => counted.len(),
            Reception::Keep => rib.received.len((peer, self.family)),
        }
    }

    /// The routes are to be kept or counted from now on, while the session stays. What is kept can be counted; what was
    /// only counted has to be sent again. Gives whether the neighbour must be asked for it, and what is kept no more.
    pub(super) fn set_reception(
        &mut self,
        wanted: ReceivedRoutes,
        (peer, add_path, seed): (PeerId, bool, u64),
        rib: &mut Rib,
    ) -> (bool, Vec<Prefix>) {
        match (&self.reception, wanted) {
            (Reception::Count(_), ReceivedRoutes::Keep) => {
                self.reception = Reception::Keep;
                (true, Vec::new())
            }
            (Reception::Keep, ReceivedRoutes::Count) => {
                let mut counted = AdjIn::new(self.family, add_path, seed);
                for (prefix, path) in rib.received.of((peer, self.family)) {
                    counted.announce(&Nlri { path_id: path.path_id, prefix: *prefix });
                }
                self.reception = Reception::Count(counted);
                (false, rib.received.clear((peer, self.family)))
            }
            _ => (false, Vec::new()),
        }
    }
}

impl Pulled {
    /// A ROUTE-REFRESH message that marks the begin or the end of all routes (RFC 7313 §3.2).
    fn mark(&mut self, family: Family, kind: RouteRefreshKind, context: &SessionContext) {
        match Message::RouteRefresh(RouteRefresh { family, kind }).encode(context, &mut self.bytes) {
            Ok(()) => self.route_refreshes += 1,
            Err(error) => tracing::error!(%error, "a refresh cannot be marked"),
        }
    }
}
