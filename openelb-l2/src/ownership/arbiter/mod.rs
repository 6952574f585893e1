//! Who owns an address: a pure function of what is known of it, evaluated by every node for itself.
//!
//! An incumbent stays. Without one the candidate with the best score takes the address. Of two that claim, the one with
//! the better score stays, whoever was first: that needs no view of the membership, so all decide alike.

use super::message::{Claim, Item, NodeId};

/// A claim: whose, and its number. Of two claims the later one has the higher number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Last {
    pub(crate) node: NodeId,
    pub(crate) sequence: u32,
}

/// Another node that says something of the address, or has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bid {
    pub(crate) node: NodeId,
    pub(crate) score: u64,
    /// It answers gossip, or is only suspected.
    pub(crate) live: bool,
    pub(crate) suspect: bool,
    /// It has settled and is not about to restart: what it says counts.
    pub(crate) ready: bool,
    /// It has for so short a time that it may not have heard yet that somebody waits for it.
    pub(crate) fresh: bool,
    pub(crate) mature: bool,
    pub(crate) item: Item,
}

impl Bid {
    const fn counts(&self) -> bool {
        self.live && self.ready
    }

    const fn owns(&self) -> bool {
        self.counts() && matches!(self.item.claim, Claim::Owner { .. })
    }

    /// What it claims, or claimed until it began to hand it over.
    pub(crate) const fn claimed(&self) -> Last {
        let sequence = match self.item.claim {
            Claim::Owner { sequence } | Claim::HandingOver { sequence, .. } => sequence,
            Claim::None | Claim::StandIn { .. } => 0,
        };
        Last { node: self.node, sequence }
    }

    /// In whose name it answers.
    fn stands_in_for(&self) -> Option<Last> {
        match self.item.claim {
            Claim::StandIn { sequence, owner } if self.counts() => Some(Last { node: owner, sequence }),
            _ => None,
        }
    }
}

/// What this node does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holding {
    Nothing,
    Owner,
    HandingOver { to: NodeId, overdue: bool },
    StandIn { owner: NodeId, expired: bool },
}

/// This node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Me {
    pub(crate) node: NodeId,
    pub(crate) score: u64,
    pub(crate) candidate: bool,
    /// It may at least answer in the owner's name.
    pub(crate) helper: bool,
    /// As in [`Item`].
    pub(crate) reach: u8,
    /// It could answer on more links since it owns the address.
    pub(crate) lost: bool,
    pub(crate) mature: bool,
    /// It owns the address and may not any more, for so short a time that whoever may now may not have heard of it yet.
    pub(crate) lingers: bool,
    /// There is a link to answer on.
    pub(crate) answerable: bool,
    pub(crate) holding: Holding,
    /// The best node has been better for long enough.
    pub(crate) failback: bool,
    /// Standing in is wanted at all.
    pub(crate) stand_in: bool,
}

/// Whether the host of a node whose speaker is gone still answers on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    Unknown,
    Answers,
    Silent,
    /// Whatever it does: the node may not own the address any more.
    Barred,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing; this one owns it.
    Standby {
        owner: Option<NodeId>,
    },
    /// Nothing until it is known whether this node's host answers.
    Ask {
        owner: NodeId,
    },
    Own,
    HandOver {
        to: NodeId,
    },
    StandIn {
        owner: NodeId,
    },
}

/// The best candidate other than `without`: mature ones first, then those that answer on most links, then by score.
pub(crate) fn best(me: &Me, bids: &[Bid], without: Option<NodeId>) -> Option<NodeId> {
    let own = me.candidate.then_some((me.mature, me.reach, me.score, me.node));
    let others = bids
        .iter()
        .filter(|bid| bid.counts() && bid.item.candidate)
        .map(|bid| (bid.mature, bid.item.reach, bid.score, bid.node));
    own.into_iter().chain(others).filter(|(.., node)| Some(*node) != without).max().map(|(.., node)| node)
}

/// Who answers in the owner's name: the best candidate, for it takes over later. Without one, the best of those that may
/// not own the address: nobody else is there for the only node that may.
fn deputy(me: &Me, bids: &[Bid], owner: NodeId) -> Option<NodeId> {
    best(me, bids, Some(owner)).or_else(|| {
        let own = me.helper.then_some((me.mature, me.score, me.node));
        let others = bids
            .iter()
            .filter(|bid| bid.counts() && bid.item.helper)
            .map(|bid| (bid.mature, bid.score, bid.node));
        own.into_iter().chain(others).filter(|(.., node)| *node != owner).max().map(|(.., node)| node)
    })
}

/// Of the others that claim the address, the one that stays.
pub(crate) fn rival(bids: &[Bid]) -> Option<&Bid> {
    bids.iter().filter(|bid| bid.owns()).max_by_key(|bid| (bid.score, bid.node))
}

/// The same, for one that does not claim itself: one that is suspected may be gone, and is no owner beside one that lives,
/// nor beside one that claimed later.
pub(crate) fn holder(bids: &[Bid]) -> Option<&Bid> {
    let late = |bid: &Bid| if bid.suspect { bid.claimed().sequence } else { 0 };
    bids.iter().filter(|bid| bid.owns()).max_by_key(|bid| (!bid.suspect, late(bid), bid.score, bid.node))
}

/// Decides. `last` is who claimed the address last, unless it gave it up of its own accord.
pub(crate) fn decide(
    me: &Me,
    bids: &[Bid],
    last: Option<Last>,
    kernel: impl Fn(NodeId) -> Kernel,
) -> Verdict {
    let rival = rival(bids);
    match me.holding {
        Holding::Owner => keep(me, bids, rival),
        Holding::HandingOver { to, overdue } => {
            let next = bids.iter().find(|bid| bid.node == to && bid.counts() && bid.item.candidate);
            match (rival, next) {
                (Some(rival), _) => Verdict::Standby { owner: Some(rival.node) },
                (None, Some(_)) if !overdue && me.answerable => Verdict::HandOver { to },
                // Whoever was asked did not claim in time.
                (None, Some(_)) if me.candidate => Verdict::Own,
                (None, Some(_)) => Verdict::Standby { owner: None },
                (None, None) => keep(me, bids, None),
            }
        }
        Holding::Nothing | Holding::StandIn { .. } => take(me, bids, holder(bids), last, kernel),
    }
}

/// The decision of an owner.
fn keep(me: &Me, bids: &[Bid], rival: Option<&Bid>) -> Verdict {
    if let Some(rival) = rival
        && (!me.candidate || (rival.score, rival.node) > (me.score, me.node))
    {
        return Verdict::Standby { owner: Some(rival.node) };
    }
    if !me.answerable {
        return Verdict::Standby { owner: None };
    }
    // Clients of the link that it lost are answered by nobody.
    let relieves = |node| me.lost && bids.iter().any(|bid| bid.node == node && bid.item.reach > me.reach);
    match best(me, bids, (!me.candidate).then_some(me.node)) {
        Some(better) if better != me.node && (!me.candidate || me.failback || relieves(better)) => {
            Verdict::HandOver { to: better }
        }
        _ if me.candidate || me.lingers => Verdict::Own,
        _ => Verdict::Standby { owner: None },
    }
}

/// The decision of one that does not own.
fn take(
    me: &Me,
    bids: &[Bid],
    rival: Option<&Bid>,
    last: Option<Last>,
    kernel: impl Fn(NodeId) -> Kernel,
) -> Verdict {
    let counting = || bids.iter().filter(|bid| bid.counts());
    let offered =
        counting().any(|bid| matches!(bid.item.claim, Claim::HandingOver { to, .. } if to == me.node));
    if me.candidate && offered {
        return Verdict::Own;
    }
    let standby = |owner| Verdict::Standby { owner: Some(owner) };
    if let Some(rival) = rival.filter(|rival| !rival.suspect) {
        return standby(rival.node);
    }
    // It was this node's, and nobody is known to have claimed it later.
    let own = last.filter(|last| last.node == me.node).map(|last| last.sequence);
    let waiting = counting().filter_map(Bid::stands_in_for).filter(|of| of.node == me.node);
    let own = own.into_iter().chain(waiting.map(|of| of.sequence)).max();
    // One that is suspected and claimed before somebody else of whom this node knows is no owner.
    let rival = rival
        .map(Bid::claimed)
        .filter(|rival| last.is_none_or(|last| last.node == rival.node || last.sequence <= rival.sequence));
    if me.candidate
        && let Some(sequence) = own
        && last.is_none_or(|last| last.node == me.node || last.sequence <= sequence)
        && rival.is_none_or(|rival| rival.sequence < sequence)
        && latest_stand_in(me, bids, me.node).is_none_or(|(other, _)| other.sequence <= sequence)
    {
        return Verdict::Own;
    }
    if let Some(rival) = rival {
        // A node that was suspended, and still believes an owner that is long gone, hears from others who came after.
        return match elsewhere(me, bids, Some(rival)) {
            Some(owner) => standby(owner),
            None => stand_in(me, bids, rival.node, false, kernel),
        };
    }
    if let Some(giver) = counting().find(|bid| matches!(bid.item.claim, Claim::HandingOver { .. })) {
        return standby(giver.node);
    }
    if let Some(owner) = elsewhere(me, bids, last) {
        return standby(owner);
    }
    if let Some(last) = last.map(|last| last.node).filter(|last| *last != me.node) {
        // Gone, about to restart, or back and not yet settled, or back so fast that nobody stood in for it, by which it
        // would know that the address is its own. One that is back and settled and claims nothing does not want the
        // address; whoever stands in for it all the same knows better, or ends by itself.
        let Some(back) = bids.iter().find(|bid| bid.node == last && bid.counts()) else {
            return stand_in(me, bids, last, true, kernel);
        };
        let host = || !matches!(kernel(last), Kernel::Silent | Kernel::Barred);
        if back.fresh && back.item.candidate && me.stand_in && host() {
            return stand_in(me, bids, last, false, kernel);
        }
        if me.holding == Holding::Nothing && represented(bids, last).is_some() {
            return stand_in(me, bids, last, false, kernel);
        }
    }
    match best(me, bids, None) {
        Some(node) if node == me.node => Verdict::Own,
        _ => Verdict::Standby { owner: None },
    }
}

/// The claim of this owner, if somebody who lives stands in for it.
pub(crate) fn represented(bids: &[Bid], owner: NodeId) -> Option<Last> {
    let living = bids.iter().filter(|bid| !bid.suspect).filter_map(Bid::stands_in_for);
    living.filter(|of| of.node == owner).max_by_key(|of| of.sequence)
}

/// The latest claim for which somebody who lives stands in, other than one of `owner` or of this node, and the best of those
/// who do.
fn latest_stand_in<'a>(me: &Me, bids: &'a [Bid], owner: NodeId) -> Option<(Last, &'a Bid)> {
    let living = bids.iter().filter(|bid| !bid.suspect);
    living
        .filter_map(|bid| Some((bid.stands_in_for()?, bid)))
        .filter(|(of, _)| of.node != owner && of.node != me.node)
        .max_by_key(|(of, bid)| (of.sequence, bid.score, bid.node))
}

/// For whom another stands in, and for whom this node then does not, where it is not for the owner that it knows: after a
/// partition, two may do so for two owners. The later claim stays; of two that are equal, that of the better stand-in.
fn elsewhere(me: &Me, bids: &[Bid], known: Option<Last>) -> Option<NodeId> {
    let (other, bid) = latest_stand_in(me, bids, known.map_or(me.node, |known| known.node))?;
    let sequence = known.map_or(0, |known| known.sequence);
    let stays = match me.holding {
        Holding::StandIn { .. } => (sequence, me.score, me.node) > (other.sequence, bid.score, bid.node),
        _ => sequence > other.sequence,
    };
    (!stays).then_some(other.node)
}

/// The owner is suspected, or gone for certain: does this node answer in its name, or take over?
fn stand_in(me: &Me, bids: &[Bid], owner: NodeId, gone: bool, kernel: impl Fn(NodeId) -> Kernel) -> Verdict {
    let standby = Verdict::Standby { owner: Some(owner) };
    let holding = matches!(me.holding, Holding::StandIn { owner: of, .. } if of == owner);
    // Who began stays at it, unless a better one began, too.
    let other = bids
        .iter()
        .filter(|bid| !bid.suspect && bid.stands_in_for().is_some_and(|of| of.node == owner))
        .max_by_key(|bid| (bid.score, bid.node));
    let able = me.candidate || me.helper;
    let better =
        |other: &Bid| (me.candidate, me.score, me.node) > (other.item.candidate, other.score, other.node);
    let first = match other {
        Some(other) if holding => able && better(other),
        // One that can take over relieves one that cannot: it begins before the other ends.
        Some(other) if other.item.candidate || !me.candidate => false,
        None if holding => able,
        _ => deputy(me, bids, owner) == Some(me.node),
    };
    if !first {
        return standby;
    }
    let expired = matches!(me.holding, Holding::StandIn { expired: true, .. });
    if !me.candidate {
        // It never takes over, and goes on while nobody else can.
        let relieved = expired && best(me, bids, Some(owner)).is_some();
        return match kernel(owner) {
            _ if !me.stand_in || relieved => standby,
            Kernel::Barred => standby,
            Kernel::Answers => Verdict::StandIn { owner },
            Kernel::Unknown if holding => Verdict::StandIn { owner },
            Kernel::Unknown | Kernel::Silent => Verdict::Ask { owner },
        };
    }
    match kernel(owner) {
        _ if gone && (!me.stand_in || expired) => Verdict::Own,
        Kernel::Barred if gone => Verdict::Own,
        Kernel::Barred => standby,
        _ if !me.stand_in => standby,
        Kernel::Answers => Verdict::StandIn { owner },
        Kernel::Unknown if holding => Verdict::StandIn { owner },
        Kernel::Unknown => Verdict::Ask { owner },
        Kernel::Silent if gone => Verdict::Own,
        Kernel::Silent => Verdict::Ask { owner },
    }
}

#[cfg(test)]
mod tests;
