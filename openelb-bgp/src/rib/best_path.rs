//! Which of a prefix's routes comes first. All of them are our own, so the decision of RFC 4271 §9.1 reduces to an
//! order that every speaker with the same routes agrees on.

use std::cmp::Ordering;

use super::attributes::AttributeSet;
use crate::speaker::NextHop;

/// What the order looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    /// `None`: no longer wanted.
    pub(crate) set: Option<&'a AttributeSet>,
    /// It is of [`GUESTS`](crate::speaker::GUESTS).
    pub(crate) guest: bool,
    pub(crate) path_id: u32,
}

/// Orders two routes of one prefix, the better one first: the embedder's before those of guests, then this speaker
/// itself, then the lowest next hop, then the lowest path identifier. A route that is no longer wanted comes last.
pub(crate) fn compare(a: Candidate<'_>, b: Candidate<'_>) -> Ordering {
    let by_path_id = || a.path_id.cmp(&b.path_id);
    match (a.set, b.set) {
        (Some(x), Some(y)) => {
            a.guest.cmp(&b.guest).then_with(|| next_hop(x.next_hop, y.next_hop)).then_with(by_path_id)
        }
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => by_path_id(),
    }
}

fn next_hop(a: NextHop, b: NextHop) -> Ordering {
    match (a, b) {
        (NextHop::SelfAddress, NextHop::SelfAddress) => Ordering::Equal,
        (NextHop::SelfAddress, NextHop::Address(_)) => Ordering::Less,
        (NextHop::Address(_), NextHop::SelfAddress) => Ordering::Greater,
        (NextHop::Address(a), NextHop::Address(b)) => a.cmp(&b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_last_then_self_then_lowest_next_hop_then_lowest_path_id() {
        let set = |next_hop| AttributeSet {
            next_hop,
            attributes: std::sync::Arc::default(),
            scope: crate::speaker::PeerScope::All,
        };
        let own = set(NextHop::SelfAddress);
        let low = set(NextHop::Address("192.0.2.1".parse().unwrap()));
        let high = set(NextHop::Address("192.0.2.10".parse().unwrap()));
        let route = |set, guest, path_id| Candidate { set, guest, path_id };
        let mut routes = [
            route(None, false, 0),
            route(Some(&own), true, 2),
            route(Some(&high), false, 1),
            route(Some(&low), false, 9),
            route(Some(&low), true, 4),
            route(Some(&low), false, 3),
            route(Some(&own), false, 7),
        ];
        routes.sort_by(|a, b| compare(*a, *b));
        assert_eq!(routes.map(|route| route.path_id), [7, 3, 9, 1, 2, 4, 0]);
    }
}
