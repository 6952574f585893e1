use super::*;

const ME: NodeId = NodeId(1);

fn me(score: u64, holding: Holding) -> Me {
    Me {
        node: ME,
        score,
        candidate: true,
        helper: false,
        reach: 0,
        lost: false,
        lingers: false,
        mature: true,
        answerable: true,
        holding,
        failback: false,
        stand_in: true,
    }
}

fn bid(node: u64, score: u64, claim: Claim) -> Bid {
    let item = Item { candidate: true, proven: true, claim, ..Item::default() };
    Bid {
        node: NodeId(node),
        score,
        live: true,
        suspect: false,
        ready: true,
        fresh: false,
        mature: true,
        item,
    }
}

const OWNS: Claim = Claim::Owner { sequence: 1 };
const NOBODY: Verdict = Verdict::Standby { owner: None };

fn standby(node: u64) -> Verdict {
    Verdict::Standby { owner: Some(NodeId(node)) }
}

fn decided(me: Me, bids: &[Bid], last: Option<u64>, kernel: Kernel) -> Verdict {
    decide(&me, bids, last.map(|node| Last { node: NodeId(node), sequence: 1 }), |_| kernel)
}

#[test]
fn the_best_takes_what_nobody_has_and_leaves_what_somebody_has() {
    use Kernel::Unknown;
    let idle = |score| me(score, Holding::Nothing);
    assert_eq!(decided(idle(5), &[], None, Unknown), Verdict::Own);
    assert_eq!(decided(idle(5), &[bid(2, 4, Claim::None)], None, Unknown), Verdict::Own);
    assert_eq!(decided(idle(5), &[bid(2, 6, Claim::None)], None, Unknown), NOBODY);
    assert_eq!(decided(idle(5), &[bid(2, 4, OWNS)], None, Unknown), standby(2), "an incumbent stays");
    let away = Me { candidate: false, ..idle(5) };
    assert_eq!(decided(away, &[bid(2, 4, Claim::None)], None, Unknown), NOBODY);
}

#[test]
fn of_two_owners_the_better_one_stays() {
    let owner = me(5, Holding::Owner);
    assert_eq!(decided(owner, &[bid(2, 4, OWNS)], None, Kernel::Unknown), Verdict::Own);
    assert_eq!(decided(owner, &[bid(2, 6, OWNS)], None, Kernel::Unknown), standby(2));
    let silent = Bid { live: false, ..bid(2, 6, OWNS) };
    assert_eq!(decided(owner, &[silent], None, Kernel::Unknown), Verdict::Own);
}

#[test]
fn the_join_delay_is_waived_when_nobody_is_past_it() {
    let young = Me { mature: false, ..me(5, Holding::Nothing) };
    assert_eq!(decided(young, &[bid(2, 4, Claim::None)], None, Kernel::Unknown), NOBODY);
    let other = Bid { mature: false, ..bid(2, 4, Claim::None) };
    assert_eq!(decided(young, &[other], None, Kernel::Unknown), Verdict::Own);
}

#[test]
fn an_owner_that_may_no_longer_hands_over() {
    let owner = Me { candidate: false, ..me(5, Holding::Owner) };
    let bids = [bid(2, 4, Claim::None), bid(3, 6, Claim::None)];
    assert_eq!(decided(owner, &bids, None, Kernel::Unknown), Verdict::HandOver { to: NodeId(3) });
    assert_eq!(decided(owner, &[], None, Kernel::Unknown), NOBODY);
    let handing = |overdue| Me { holding: Holding::HandingOver { to: NodeId(3), overdue }, ..owner };
    assert_eq!(decided(handing(false), &bids, None, Kernel::Unknown), Verdict::HandOver { to: NodeId(3) });
    let claimed = [bid(2, 4, Claim::None), bid(3, 6, OWNS)];
    assert_eq!(decided(handing(false), &claimed, None, Kernel::Unknown), standby(3));
    assert_eq!(decided(handing(true), &bids, None, Kernel::Unknown), NOBODY, "after a bound it stops");
    let died = [bid(2, 4, Claim::None)];
    assert_eq!(decided(handing(false), &died, None, Kernel::Unknown), Verdict::HandOver { to: NodeId(2) });
    let unplugged = Me { answerable: false, ..owner };
    assert_eq!(decided(unplugged, &bids, None, Kernel::Unknown), NOBODY);
}

#[test]
fn whoever_is_asked_takes_over() {
    let asks = bid(2, 9, Claim::HandingOver { sequence: 1, to: ME });
    assert_eq!(decided(me(5, Holding::Nothing), &[asks], Some(2), Kernel::Unknown), Verdict::Own);
    let other = bid(2, 9, Claim::HandingOver { sequence: 1, to: NodeId(3) });
    assert_eq!(decided(me(5, Holding::Nothing), &[other], Some(2), Kernel::Unknown), standby(2));
}

#[test]
fn failback_waits_until_it_is_due() {
    let bids = [bid(2, 9, Claim::None)];
    let owner = me(5, Holding::Owner);
    assert_eq!(decided(owner, &bids, None, Kernel::Unknown), Verdict::Own);
    let due = Me { failback: true, ..owner };
    assert_eq!(decided(due, &bids, None, Kernel::Unknown), Verdict::HandOver { to: NodeId(2) });
}

#[test]
fn the_runner_up_stands_in_while_the_host_answers() {
    let idle = me(5, Holding::Nothing);
    let gone = Bid { live: false, ..bid(2, 9, OWNS) };
    let third = bid(3, 4, Claim::None);
    let stands = Verdict::StandIn { owner: NodeId(2) };
    let asks = Verdict::Ask { owner: NodeId(2) };
    assert_eq!(decided(idle, &[gone, third], Some(2), Kernel::Unknown), asks);
    assert_eq!(decided(idle, &[gone, third], Some(2), Kernel::Answers), stands);
    assert_eq!(decided(idle, &[gone, third], Some(2), Kernel::Silent), Verdict::Own);
    let better = bid(3, 6, Claim::None);
    assert_eq!(decided(idle, &[gone, better], Some(2), Kernel::Answers), standby(2));
    // It goes on although a better candidate came, and ends after its time.
    let standing = |expired| me(5, Holding::StandIn { owner: NodeId(2), expired });
    assert_eq!(decided(standing(false), &[gone, better], Some(2), Kernel::Answers), stands);
    assert_eq!(decided(standing(false), &[gone, better], Some(2), Kernel::Silent), Verdict::Own);
    assert_eq!(decided(standing(true), &[gone, third], Some(2), Kernel::Answers), Verdict::Own);
    // Whatever the host does: its node may not own the address any more.
    assert_eq!(decided(idle, &[gone, third], Some(2), Kernel::Barred), Verdict::Own);
    assert_eq!(decided(standing(false), &[gone, third], Some(2), Kernel::Barred), Verdict::Own);
    assert_eq!(decided(idle, &[gone, better], Some(2), Kernel::Barred), standby(2));
    let helper = Me { candidate: false, helper: true, ..standing(false) };
    assert_eq!(decided(helper, &[gone], Some(2), Kernel::Answers), stands);
    assert_eq!(decided(helper, &[gone], Some(2), Kernel::Barred), standby(2));
    // Two began: the better one stays.
    let also = bid(3, 6, Claim::StandIn { sequence: 1, owner: NodeId(2) });
    assert_eq!(decided(standing(false), &[gone, also], Some(2), Kernel::Answers), standby(2));
    // Without standing in, the address moves.
    let never = Me { stand_in: false, ..idle };
    assert_eq!(decided(never, &[gone, third], Some(2), Kernel::Answers), Verdict::Own);
}

#[test]
fn a_suspect_is_stood_in_for_but_never_robbed() {
    let idle = me(5, Holding::Nothing);
    let suspect = Bid { suspect: true, ..bid(2, 9, OWNS) };
    assert_eq!(decided(idle, &[suspect], Some(2), Kernel::Answers), Verdict::StandIn { owner: NodeId(2) });
    assert_eq!(decided(idle, &[suspect], Some(2), Kernel::Silent), Verdict::Ask { owner: NodeId(2) });
}

#[test]
fn nobody_stands_in_for_a_suspect_beside_an_owner_that_lives() {
    let idle = me(5, Holding::Nothing);
    let suspect = Bid { suspect: true, ..bid(2, 9, OWNS) };
    let lives = bid(3, 1, OWNS);
    for kernel in [Kernel::Answers, Kernel::Unknown, Kernel::Silent] {
        assert_eq!(decided(idle, &[suspect, lives], Some(2), kernel), standby(3));
        assert_eq!(decided(idle, &[lives, suspect], Some(3), kernel), standby(3));
    }
    let stands = me(5, Holding::StandIn { owner: NodeId(2), expired: false });
    assert_eq!(decided(stands, &[suspect, lives], Some(2), Kernel::Answers), standby(3));
}

#[test]
fn an_owner_that_comes_back_takes_its_own() {
    let idle = me(5, Holding::Nothing);
    let stands = bid(2, 9, Claim::StandIn { sequence: 1, owner: ME });
    assert_eq!(decided(idle, &[stands], None, Kernel::Unknown), Verdict::Own);
    assert_eq!(decided(idle, &[bid(2, 9, Claim::None)], Some(1), Kernel::Unknown), Verdict::Own);
    assert_eq!(decided(idle, &[bid(2, 4, OWNS)], Some(1), Kernel::Unknown), standby(2));
    // While it is back and not settled, the stand-in goes on.
    let unready = Bid { ready: false, ..bid(2, 9, Claim::None) };
    let standing = me(5, Holding::StandIn { owner: NodeId(2), expired: false });
    assert_eq!(
        decided(standing, &[unready], Some(2), Kernel::Answers),
        Verdict::StandIn { owner: NodeId(2) }
    );
    // It is back, and may not know yet that it is its own.
    let fresh = Bid { fresh: true, ..bid(2, 4, Claim::None) };
    let stands = Verdict::StandIn { owner: NodeId(2) };
    assert_eq!(decided(standing, &[fresh], Some(2), Kernel::Answers), stands);
    assert_eq!(decided(idle, &[fresh], Some(2), Kernel::Answers), stands);
    assert_eq!(decided(idle, &[fresh], Some(2), Kernel::Unknown), Verdict::Ask { owner: NodeId(2) });
    // Not where that leads to nothing, nor against it.
    let best = Bid { score: 9, ..fresh };
    assert_eq!(decided(idle, &[fresh], Some(2), Kernel::Silent), Verdict::Own);
    assert_eq!(decided(idle, &[best], Some(2), Kernel::Silent), NOBODY);
    let away = Bid { item: Item { candidate: false, ..fresh.item }, ..fresh };
    assert_eq!(decided(idle, &[away], Some(2), Kernel::Answers), Verdict::Own);
    // It is back and does not want it.
    let content = Bid { item: Item::default(), ..bid(2, 9, Claim::None) };
    assert_eq!(decided(standing, &[content], Some(2), Kernel::Answers), Verdict::Own);
}

#[test]
fn of_two_that_stand_in_for_two_owners_the_better_one_stays() {
    let answers = Kernel::Answers;
    let other = bid(2, 6, Claim::StandIn { sequence: 1, owner: NodeId(4) });
    let standing = |score| me(score, Holding::StandIn { owner: NodeId(3), expired: false });
    assert_eq!(decided(standing(5), &[other], Some(3), answers), standby(4));
    assert_eq!(decided(standing(7), &[other], Some(3), answers), Verdict::StandIn { owner: NodeId(3) });
    assert_eq!(decided(me(7, Holding::Nothing), &[other], Some(3), answers), standby(4), "it is answered");
    let gone = Bid { live: false, ..other };
    assert_eq!(decided(standing(5), &[gone], Some(3), answers), Verdict::StandIn { owner: NodeId(3) });
    // The same where the owner is one that this node still believes to be there, but for a suspicion.
    let believed = Bid { suspect: true, ..bid(3, 2, OWNS) };
    let (idle, both) = (me(7, Holding::Nothing), [other, believed]);
    assert_eq!(decided(idle, &both, Some(3), answers), standby(4));
    assert_eq!(decided(idle, &both[1..], Some(3), answers), Verdict::StandIn { owner: NodeId(3) });
    assert_eq!(decided(standing(5), &both, Some(3), answers), standby(4));
    assert_eq!(decided(standing(7), &both, Some(3), answers), Verdict::StandIn { owner: NodeId(3) });
    let owns = [other, bid(3, 2, OWNS)];
    assert_eq!(decided(idle, &owns, Some(3), answers), standby(3), "it is there");
}

#[test]
fn an_owner_that_lost_a_link_hands_over_to_one_that_has_more() {
    let reaches = |reach, score| {
        let other = bid(2, score, Claim::None);
        Bid { item: Item { reach, ..other.item }, ..other }
    };
    let lost = Me { lost: true, ..me(5, Holding::Owner) };
    assert_eq!(decided(lost, &[reaches(1, 4)], None, Kernel::Unknown), Verdict::HandOver { to: NodeId(2) });
    assert_eq!(decided(lost, &[reaches(0, 9)], None, Kernel::Unknown), Verdict::Own, "it has no more");
    // One that has more, and always had, takes the address as failback says.
    let poor = me(5, Holding::Owner);
    assert_eq!(decided(poor, &[reaches(1, 4)], None, Kernel::Unknown), Verdict::Own);
    let due = Me { failback: true, ..poor };
    assert_eq!(decided(due, &[reaches(1, 4)], None, Kernel::Unknown), Verdict::HandOver { to: NodeId(2) });
}

#[test]
fn one_that_may_not_own_stands_in_where_nobody_else_can() {
    let helper = Me { candidate: false, helper: true, ..me(5, Holding::Nothing) };
    let gone = Bid { live: false, ..bid(2, 9, OWNS) };
    let other = |score| {
        let item = Item { helper: true, ..Item::default() };
        Bid { item, ..bid(3, score, Claim::None) }
    };
    let (stands, asks) = (Verdict::StandIn { owner: NodeId(2) }, Verdict::Ask { owner: NodeId(2) });
    assert_eq!(decided(helper, &[gone, other(4)], Some(2), Kernel::Unknown), asks);
    assert_eq!(decided(helper, &[gone, other(4)], Some(2), Kernel::Answers), stands);
    assert_eq!(decided(helper, &[gone, other(4)], Some(2), Kernel::Silent), asks, "it never owns");
    assert_eq!(decided(helper, &[gone, other(6)], Some(2), Kernel::Answers), standby(2));
    assert_eq!(decided(helper, &[gone, bid(3, 4, Claim::None)], Some(2), Kernel::Answers), standby(2));
    let never = Me { stand_in: false, ..helper };
    assert_eq!(decided(never, &[gone], Some(2), Kernel::Answers), standby(2));
    let holding = |expired| Me { holding: Holding::StandIn { owner: NodeId(2), expired }, ..helper };
    assert_eq!(decided(holding(true), &[gone, other(6)], Some(2), Kernel::Answers), stands);
    assert_eq!(decided(holding(true), &[gone, bid(3, 4, Claim::None)], Some(2), Kernel::Answers), standby(2));
    assert_eq!(decided(holding(false), &[gone], Some(2), Kernel::Silent), asks);
    // A candidate begins beside it, and then it ends.
    let began = Bid {
        item: Item { claim: Claim::StandIn { sequence: 1, owner: NodeId(2) }, ..other(9).item },
        ..other(9)
    };
    assert_eq!(decided(me(5, Holding::Nothing), &[gone, began], Some(2), Kernel::Answers), stands);
    let relief = bid(3, 4, Claim::StandIn { sequence: 1, owner: NodeId(2) });
    assert_eq!(decided(holding(false), &[gone, relief], Some(2), Kernel::Answers), standby(2));
}

/// With this last claim, and its number.
fn decided_after(me: Me, bids: &[Bid], (node, sequence): (u64, u32), kernel: Kernel) -> Verdict {
    decide(&me, bids, Some(Last { node: NodeId(node), sequence }), |_| kernel)
}

fn stands_in(node: u64, score: u64, owner: u64, sequence: u32) -> Bid {
    bid(node, score, Claim::StandIn { sequence, owner: NodeId(owner) })
}

#[test]
fn one_that_slept_leaves_its_address_to_the_stand_in_of_who_had_it_after_it() {
    let idle = me(7, Holding::Nothing);
    // What it remembers from before has no number.
    let slept = |bids: &[Bid]| decided_after(idle, bids, (ME.0, 0), Kernel::Unknown);
    assert_eq!(slept(&[stands_in(2, 6, 4, 3)]), standby(4));
    assert_eq!(slept(&[stands_in(2, 6, ME.0, 3)]), Verdict::Own, "it waits for this one");
    assert_eq!(slept(&[bid(2, 6, Claim::None)]), Verdict::Own, "nobody had it");
    assert_eq!(slept(&[stands_in(2, 6, ME.0, 3), stands_in(3, 5, 4, 4)]), standby(4), "the other was later");
    assert_eq!(slept(&[stands_in(2, 6, ME.0, 4), stands_in(3, 8, 4, 3)]), Verdict::Own);
    // Whoever waits for it does not know of a later claim that it knows.
    let waits = [stands_in(2, 6, ME.0, 3)];
    assert_eq!(decided_after(idle, &waits, (3, 4), Kernel::Answers), Verdict::StandIn { owner: NodeId(3) });
    let standing = me(5, Holding::StandIn { owner: NodeId(3), expired: false });
    assert_eq!(
        decided_after(standing, &waits, (3, 4), Kernel::Answers),
        Verdict::StandIn { owner: NodeId(3) }
    );
    // One that did not sleep, and claimed later.
    assert_eq!(decided_after(idle, &[stands_in(2, 6, 4, 3)], (ME.0, 4), Kernel::Unknown), Verdict::Own);
}

#[test]
fn whoever_is_told_of_an_owner_by_its_stand_in_decides_the_same_when_it_looks_again() {
    let idle = me(7, Holding::Nothing);
    let stands = stands_in(4, 6, 3, 2);
    for (live, suspect, ready) in
        [(false, false, true), (true, true, true), (true, false, true), (true, false, false)]
    {
        let owner = Bid { live, suspect, ready, ..bid(3, 2, Claim::None) };
        for known in [(3, 2), (5, 1), (3, 1)] {
            assert_eq!(
                decided_after(idle, &[stands, owner], known, Kernel::Answers),
                standby(3),
                "{owner:?}"
            );
        }
    }
}

#[test]
fn the_later_of_two_claims_is_gone_on_with() {
    let idle = me(7, Holding::Nothing);
    let answers = Kernel::Answers;
    let standing = |score| me(score, Holding::StandIn { owner: NodeId(3), expired: false });
    let stands = |owner| Verdict::StandIn { owner: NodeId(owner) };
    // Whatever the scores.
    assert_eq!(decided_after(standing(7), &[stands_in(2, 6, 4, 2)], (3, 1), answers), standby(4));
    assert_eq!(decided_after(standing(5), &[stands_in(2, 6, 4, 1)], (3, 2), answers), stands(3));
    assert_eq!(decided_after(idle, &[stands_in(2, 6, 4, 2)], (3, 1), answers), standby(4));
    assert_eq!(decided_after(idle, &[stands_in(2, 6, 4, 1)], (3, 2), answers), stands(3));
    // One that is suspected and claimed before is no owner: of whom this node heard since, it goes on in the name.
    let suspect = Bid { suspect: true, ..bid(3, 9, Claim::Owner { sequence: 1 }) };
    assert_eq!(decided_after(idle, &[suspect], (4, 2), answers), standby(4), "the best is suspected, too");
    let best = me(10, Holding::Nothing);
    assert_eq!(decided_after(best, &[suspect], (4, 2), answers), stands(4));
    assert_eq!(decided_after(best, &[suspect], (4, 1), answers), stands(3), "and otherwise in its own");
    let lives = Bid { suspect: false, ..suspect };
    assert_eq!(decided_after(idle, &[lives], (4, 2), answers), standby(3), "it is there");
    // Of two that are suspected.
    let later = Bid { suspect: true, ..bid(4, 2, Claim::Owner { sequence: 2 }) };
    assert_eq!(holder(&[suspect, later]).map(|bid| bid.node), Some(NodeId(4)));
}

#[test]
fn nobody_waits_for_itself() {
    let idle = me(7, Holding::Nothing);
    let suspect = |sequence| Bid { suspect: true, ..bid(3, 2, Claim::Owner { sequence }) };
    let stands = stands_in(4, 6, ME.0, 2);
    let answers = Kernel::Answers;
    let in_its_name = Verdict::StandIn { owner: NodeId(3) };
    assert_eq!(decided_after(idle, &[suspect(3), stands], (3, 3), answers), in_its_name, "it claimed later");
    assert_eq!(decided_after(idle, &[suspect(1), stands], (3, 1), answers), Verdict::Own, "this one did");
    let away = Me { candidate: false, helper: true, ..idle };
    let verdict = decided_after(away, &[stands], (ME.0, 2), answers);
    assert_eq!(verdict, NOBODY, "it may not have it, and whoever stands in sees that");
}
