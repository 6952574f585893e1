//! Which of a prefix's routes comes first. All of them are our own, so the decision of RFC 4271 §9.1 reduces to an
//! order that every speaker with the same routes agrees on.

use std::cmp::Ordering;

use super::attributes::AttributeSet;
use crate::speaker::NextHop;

/// Orders two routes of one prefix, the better one first: this speaker itself, then the lowest next hop, then the
/// lowest path identifier. A route that is no longer wanted comes last.
pub(crate) fn compare(a: (Option<&AttributeSet>, u32), b: (Option<&AttributeSet>, u32)) -> Ordering {
    match (a.0, b.0) {
        (Some(x), Some(y)) => next_hop(x.next_hop, y.next_hop).then(a.1.cmp(&b.1)),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.1.cmp(&b.1),
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
    fn self_then_lowest_next_hop_then_lowest_path_id() {
        let set = |next_hop| AttributeSet {
            next_hop,
            attributes: std::sync::Arc::default(),
            scope: crate::speaker::PeerScope::All,
        };
        let own = set(NextHop::SelfAddress);
        let low = set(NextHop::Address("192.0.2.1".parse().unwrap()));
        let high = set(NextHop::Address("192.0.2.10".parse().unwrap()));
        let mut routes = [(None, 0), (Some(&high), 1), (Some(&low), 9), (Some(&low), 3), (Some(&own), 7)];
        routes.sort_by(|a, b| compare(*a, *b));
        let order: Vec<u32> = routes.iter().map(|route| route.1).collect();
        assert_eq!(order, [7, 3, 9, 1, 0]);
    }
}
