//! Who owns an address: a pure function of what is known of it, evaluated by every node for itself.
//!
//! An incumbent stays. Without one the candidate with the best score takes the address. Of two that claim, the one with
//! the better score stays, whoever was first: that needs no view of the membership, so all decide alike.

use super::message::{Claim, Item, NodeId};

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

/// The same, for one that does not claim itself: one that is suspected may be gone, and is no owner beside one that lives.
pub(crate) fn holder(bids: &[Bid]) -> Option<&Bid> {
    bids.iter().filter(|bid| bid.owns()).max_by_key(|bid| (!bid.suspect, bid.score, bid.node))
}

/// Decides. `last` is who claimed the address last, unless it gave it up of its own accord.
pub(crate) fn decide(
    me: &Me,
    bids: &[Bid],
    last: Option<NodeId>,
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
    last: Option<NodeId>,
    kernel: impl Fn(NodeId) -> Kernel,
) -> Verdict {
    let counting = || bids.iter().filter(|bid| bid.counts());
    let offered =
        counting().any(|bid| matches!(bid.item.claim, Claim::HandingOver { to, .. } if to == me.node));
    let waits = counting().any(|bid| bid.item.claim == Claim::StandIn { owner: me.node });
    if me.candidate && offered {
        return Verdict::Own;
    }
    if let Some(rival) = rival {
        // A node that was suspended, and still believes an owner that is long gone, hears from others who came after.
        return match elsewhere(me, bids, Some(rival.node)).filter(|_| rival.suspect) {
            Some(owner) => Verdict::Standby { owner: Some(owner) },
            None if rival.suspect => stand_in(me, bids, rival.node, false, kernel),
            None => Verdict::Standby { owner: Some(rival.node) },
        };
    }
    if me.candidate && (waits || last == Some(me.node)) {
        return Verdict::Own;
    }
    if let Some(giver) = counting().find(|bid| matches!(bid.item.claim, Claim::HandingOver { .. })) {
        return Verdict::Standby { owner: Some(giver.node) };
    }
    if let Some(owner) = elsewhere(me, bids, last) {
        return Verdict::Standby { owner: Some(owner) };
    }
    if let Some(last) = last.filter(|last| *last != me.node) {
        // Gone, about to restart, or back and not yet settled. One that is back and settled and claims nothing does not
        // want the address.
        let back = bids.iter().any(|bid| bid.node == last && bid.counts());
        if !back {
            return stand_in(me, bids, last, true, kernel);
        }
    }
    match best(me, bids, None) {
        Some(node) if node == me.node => Verdict::Own,
        _ => Verdict::Standby { owner: None },
    }
}

/// Whether somebody who lives stands in for this owner.
pub(crate) fn is_represented(bids: &[Bid], owner: NodeId) -> bool {
    let stands = |bid: &Bid| bid.counts() && !bid.suspect && bid.item.claim == Claim::StandIn { owner };
    bids.iter().any(stands)
}

/// For whom another stands in, and for whom this node then does not, where it is not for `owner`: after a partition, two may
/// do so for two owners.
fn elsewhere(me: &Me, bids: &[Bid], owner: Option<NodeId>) -> Option<NodeId> {
    let counting = bids.iter().filter(|bid| bid.counts() && !bid.suspect);
    let stand_ins = counting.filter_map(|bid| match bid.item.claim {
        Claim::StandIn { owner: other } if Some(other) != owner => Some((bid.score, bid.node, other)),
        _ => None,
    });
    let (score, node, other) = stand_ins.max()?;
    let stays = matches!(me.holding, Holding::StandIn { .. }) && (me.score, me.node) > (score, node);
    (!stays).then_some(other)
}

/// The owner is suspected, or gone for certain: does this node answer in its name, or take over?
fn stand_in(me: &Me, bids: &[Bid], owner: NodeId, gone: bool, kernel: impl Fn(NodeId) -> Kernel) -> Verdict {
    let standby = Verdict::Standby { owner: Some(owner) };
    let holding = matches!(me.holding, Holding::StandIn { owner: of, .. } if of == owner);
    // Who began stays at it, unless a better one began, too.
    let other = bids
        .iter()
        .filter(|bid| bid.counts() && !bid.suspect && bid.item.claim == Claim::StandIn { owner })
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
