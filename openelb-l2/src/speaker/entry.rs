//! One address, as this node knows it.

use std::time::Instant;

use super::{LinkIndex, NodeName, NodeSet, Role};
use crate::{
    MacAddr,
    ownership::{
        arbiter::Last,
        message::{Claim, Item, NodeId},
    },
};

/// What this node does for an address, with the deadlines of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    Probing { left: u8, next: Instant },
    Owner,
    HandingOver { to: NodeId, until: Instant },
    StandIn { owner: NodeId },
    Conflict { mac: MacAddr, retry: Instant },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) links: Vec<LinkIndex>,
    pub(super) home: Vec<LinkIndex>,
    pub(super) eligible: bool,
    pub(super) permitted: Option<NodeSet>,
}

impl Wanted {
    /// The links on which somebody has to answer.
    pub(super) fn decisive(&self) -> &[LinkIndex] {
        if self.home.is_empty() { &self.links } else { &self.home }
    }

    /// Whether a node may own it, as far as is known.
    pub(super) fn permits(&self, node: NodeId) -> bool {
        self.permitted.as_ref().is_none_or(|nodes| nodes.contains(node))
    }
}

/// Where a station was heard with an address, until when it may be introduced, and how often it was heard meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Untold {
    pub(super) link: LinkIndex,
    pub(super) mac: MacAddr,
    pub(super) until: Instant,
    pub(super) times: u64,
}

#[derive(Debug)]
pub(super) struct Entry {
    /// What the caller wants; `None`: only others speak of it.
    pub(super) wanted: Option<Wanted>,
    /// What the others say.
    pub(super) bids: Vec<(NodeId, Item)>,
    pub(super) phase: Phase,
    pub(super) since: Instant,
    /// When it began to stand in for this owner, also if it paused meanwhile.
    pub(super) standing: Option<(NodeId, Instant)>,
    /// The highest number of a claim.
    pub(super) sequence: u32,
    /// The number of this node's claim, if it owns the address.
    pub(super) number: u32,
    /// Who claimed last, unless it gave the address up of its own accord.
    pub(super) last: Option<Last>,
    /// The furthest that this node reached since it owns the address: see [`Item::reach`].
    pub(super) peak: u8,
    /// Since when this node owns the address and may not.
    pub(super) unfit: Option<Instant>,
    /// How far the host of the last owner reached when it was given up, if it still answered on some link.
    pub(super) lame: Option<(NodeId, u8)>,
    /// A better candidate than the owner, this node, and since when there is one.
    pub(super) better: Option<(NodeId, Instant)>,
    /// Who was heard with it on the wire, and until when it is left to them.
    pub(super) yielded: Option<(NodeId, Instant)>,
    /// When the claim was repeated last because a worse node claimed, too.
    pub(super) repeated: Option<Instant>,
    /// A worse node that claims, too, and since when and when last it was heard to.
    pub(super) rival: Option<(NodeId, Instant, Instant)>,
    /// When the claim is to be repeated once more: it was, just before another was heard.
    pub(super) again: Option<Instant>,
    /// Who asks, as this node does, whether the address is free, and where; a stranger, unless it turns out by then that
    /// it is a node.
    pub(super) asker: Option<(LinkIndex, MacAddr, Instant)>,
    /// A stranger, and when it was heard last.
    pub(super) conflict: Option<(MacAddr, Instant)>,
    /// When a stranger was told of last.
    pub(super) told: Option<Instant>,
    /// One was told of, and not that it is gone.
    pub(super) telling: bool,
    /// One that may turn out to be a node, and is not told of yet.
    pub(super) untold: Option<Untold>,
    /// Whose host is asked on behalf of this address.
    pub(super) asks: Option<NodeId>,
    /// Found free of strangers once, by this node.
    pub(super) proven: bool,
    pub(super) owner: Option<NodeId>,
    pub(super) wake: Option<Instant>,
}

impl Entry {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            wanted: None,
            bids: Vec::new(),
            phase: Phase::Idle,
            since: now,
            standing: None,
            sequence: 0,
            number: 0,
            last: None,
            peak: 0,
            unfit: None,
            lame: None,
            better: None,
            yielded: None,
            repeated: None,
            rival: None,
            again: None,
            asker: None,
            conflict: None,
            told: None,
            telling: false,
            untold: None,
            asks: None,
            proven: false,
            owner: None,
            wake: None,
        }
    }

    /// Takes in what a node says now, in the same life as before.
    pub(super) fn hear(&mut self, node: NodeId, item: Item) {
        self.lame = self.lame.filter(|(of, _)| *of != node);
        let position = self.bids.iter().position(|(of, _)| *of == node);
        let old = position.and_then(|at| self.bids.get(at)).map(|(_, item)| *item).unwrap_or_default();
        match (position, item == Item::default()) {
            (Some(at), true) => {
                self.bids.swap_remove(at);
            }
            (Some(at), false) => {
                if let Some(bid) = self.bids.get_mut(at) {
                    bid.1 = item;
                }
            }
            (None, true) => {}
            (None, false) => self.bids.push((node, item)),
        }
        match item.claim {
            Claim::Owner { sequence } => {
                if sequence >= self.sequence || self.last.is_none() {
                    self.last = Some(Last { node, sequence });
                }
                self.sequence = self.sequence.max(sequence);
            }
            Claim::HandingOver { sequence, .. } => self.sequence = self.sequence.max(sequence),
            Claim::None | Claim::StandIn { .. } => {
                let owned = matches!(old.claim, Claim::Owner { .. } | Claim::HandingOver { .. });
                if owned && self.last_node() == Some(node) {
                    self.last = None;
                }
                if let Claim::StandIn { sequence, owner } = item.claim {
                    self.sequence = self.sequence.max(sequence);
                    let owns = matches!(self.phase, Phase::Owner | Phase::HandingOver { .. });
                    // Who came or slept since that one claimed learns of it so, whatever becomes of the one that says it.
                    if !owns && self.last.is_none_or(|last| last.sequence < sequence) {
                        self.last = Some(Last { node: owner, sequence });
                    }
                }
                // It gave way: if it claims again, that is something new.
                self.rival = self.rival.filter(|(rival, ..)| *rival != node);
            }
        }
    }

    pub(super) fn last_node(&self) -> Option<NodeId> {
        self.last.map(|last| last.node)
    }

    /// A node was heard to claim the address, with a number that is not known: it knew of all that this one knows.
    pub(super) const fn leave_to(&mut self, node: NodeId) {
        self.last = Some(Last { node, sequence: self.sequence });
    }

    /// There is no stranger any more, or none that concerns this node; says whether that there was one was told.
    pub(super) fn end_conflict(&mut self) -> bool {
        (self.conflict, self.untold) = (None, None);
        std::mem::take(&mut self.telling)
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proven || self.sequence > 0 || self.bids.iter().any(|(_, item)| item.proven)
    }

    /// Whether what is heard on this link concerns it.
    pub(super) fn is_wanted_on(&self, link: LinkIndex) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| wanted.links.contains(&link))
    }

    /// Whether nothing is lost by forgetting it.
    pub(super) fn is_idle(&self) -> bool {
        self.wanted.is_none() && self.bids.is_empty() && self.phase == Phase::Idle
    }

    /// How far another node reaches; no further than one link where it never said so.
    pub(super) fn reach_of(&self, node: NodeId) -> u8 {
        self.known_reach_of(node).unwrap_or(0)
    }

    /// How far another node reaches, if it said so or was seen to.
    pub(super) fn known_reach_of(&self, node: NodeId) -> Option<u8> {
        let said = || self.bids.iter().find(|(of, _)| *of == node).map(|(_, item)| item.reach);
        self.lame.filter(|(of, _)| *of == node).map(|(_, reach)| reach).or_else(said)
    }

    /// What is said of the address to the others. `reach`: of a candidate.
    pub(super) fn item(&self, reach: Option<u8>, helper: bool) -> Item {
        let (candidate, reach) = (reach.is_some(), reach.unwrap_or(0));
        let sequence = self.number;
        let claim = match self.phase {
            Phase::Owner => Claim::Owner { sequence },
            Phase::HandingOver { to, .. } => Claim::HandingOver { sequence, to },
            Phase::StandIn { owner } => {
                let last = self.last.filter(|last| last.node == owner);
                Claim::StandIn { sequence: last.map_or(0, |last| last.sequence), owner }
            }
            Phase::Idle | Phase::Probing { .. } | Phase::Conflict { .. } => Claim::None,
        };
        Item { candidate, helper, reach, proven: self.wanted.is_some() && self.is_proven(), claim }
    }

    pub(super) fn role(&self, name: impl Fn(NodeId) -> NodeName) -> Role {
        match self.phase {
            Phase::Idle => Role::Standby,
            Phase::Probing { .. } => Role::Probing,
            Phase::Owner => Role::Owner,
            Phase::HandingOver { to, .. } => Role::HandingOver { to: name(to) },
            Phase::StandIn { owner } => Role::StandIn { owner: name(owner) },
            Phase::Conflict { mac, .. } => Role::Conflict { mac },
        }
    }
}
