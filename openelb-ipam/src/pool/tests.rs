mod model;

use super::*;
use crate::{Conflict, Port, Terms, Traffic, Transport};

fn pool(ranges: &str) -> Pool {
    Pool::new(PoolSpec::new("p", ranges).unwrap())
}

fn shaped(ranges: &str, shape: impl FnOnce(&mut PoolSpec)) -> Pool {
    let mut spec = PoolSpec::new("p", ranges).unwrap();
    shape(&mut spec);
    Pool::new(spec)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn holder(name: &str) -> Arc<Holder> {
    Arc::new(Holder::new("ns", name, 0))
}

fn on_port(name: &str, port: u16) -> Holder {
    let mut holder = Holder::new("ns", name, 0);
    holder.terms.ports.insert(Port { protocol: Transport::Tcp, port });
    holder
}

fn take(pool: &mut Pool, family: Family, name: &str) -> Result<IpAddr, Refusal> {
    let holder = holder(name);
    let address = pool.choose(family, &holder, None)?;
    pool.assign(address, holder);
    Ok(address)
}

#[test]
fn every_size_from_one_address_to_all() {
    for (ranges, family, first, last) in [
        ("192.0.2.1/32", Family::V4, "192.0.2.1", "192.0.2.1"),
        ("0.0.0.0/0", Family::V4, "1.0.0.0", "223.255.255.255"),
        ("::/0", Family::V6, "::2", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ] {
        let mut pool = pool(ranges);
        assert_eq!((pool.first(family), pool.last(family)), (Some(ip(first)), Some(ip(last))), "{ranges}");
        assert_eq!(take(&mut pool, family, "a"), Ok(ip(first)), "{ranges}");
        assert_eq!((pool.usage(), pool.is_occupied()), (1, ranges.ends_with("/32")), "{ranges}");
    }
}

#[test]
fn avoid_network_and_broadcast() {
    let mut p =
        shaped("10.0.0.0/8, 192.0.2.64/26, 192.0.2.128/31", |spec| spec.avoid_network_and_broadcast = true);
    assert_eq!(p.size(Family::V4), (1 << 24) - 2 * (1 << 16) + 62 + 2);
    assert_eq!(p.first(Family::V4), Some(ip("10.0.0.1")));
    for (address, usable) in [
        ("10.0.0.0", false),
        ("10.1.2.0", false),
        ("10.1.2.255", false),
        ("10.1.2.254", true),
        ("192.0.2.64", false),
        ("192.0.2.127", false),
        ("192.0.2.128", true),
    ] {
        assert_eq!(p.is_usable(ip(address)), usable, "{address}");
    }
    for _ in 0..254 {
        take(&mut p, Family::V4, "a").unwrap();
    }
    assert_eq!(take(&mut p, Family::V4, "b"), Ok(ip("10.0.1.1")));
    assert_eq!(p.admit(ip("10.0.1.0"), &holder("c"), |_| false), Err(Refusal::Excluded(ip("10.0.1.0"))));
    assert_eq!(p.available(Family::V4), p.size(Family::V4) - 255);
}

#[test]
fn a_pool_of_edges_alone_has_nothing() {
    let mut p = shaped("192.0.2.0, 192.0.2.255", |spec| spec.avoid_network_and_broadcast = true);
    assert_eq!((p.size(Family::V4), p.is_occupied(), p.first(Family::V4)), (0, true, None));
    assert_eq!(take(&mut p, Family::V4, "a"), Err(Refusal::FamilyUnavailable(Family::V4)));
}

#[test]
fn dangerous_addresses_count_and_are_given_only_by_name() {
    let mut p = shaped("192.0.2.1-192.0.2.2", |spec| {
        spec.dangerous = [ip("192.0.2.1"), ip("10.0.0.1")].into_iter().collect();
    });
    assert_eq!((p.size(Family::V4), p.dangerous_count()), (2, 1));
    assert_eq!(take(&mut p, Family::V4, "a"), Ok(ip("192.0.2.2")));
    assert_eq!(
        take(&mut p, Family::V4, "b"),
        Err(Refusal::Exhausted { size: 2, dangerous: vec![ip("192.0.2.1")] })
    );
    assert!(p.is_occupied());
    assert_eq!(p.admit(ip("192.0.2.1"), &holder("b"), |_| false), Ok(()));
    p.assign(ip("192.0.2.1"), holder("b"));
    p.release(ip("192.0.2.1"), &holder("b").id);
    assert_eq!(p.available(Family::V4), 0);
}

#[test]
fn subnet_router_anycast_of_networks_shorter_than_127() {
    let mut p = shaped("2001:db8:1::/64, 2001:db8:2::/127, 2001:db8:3::-2001:db8:3::1", |spec| {
        spec.avoid_subnet_router_anycast = true;
    });
    assert!(p.is_dangerous(ip("2001:db8:1::")));
    assert!(!p.is_dangerous(ip("2001:db8:2::")) && !p.is_dangerous(ip("2001:db8:3::")));
    assert_eq!(take(&mut p, Family::V6, "a"), Ok(ip("2001:db8:1::1")));
}

#[test]
fn growth_and_shrink_around_live_addresses() {
    let mut p = pool("192.0.2.1-192.0.2.3");
    for name in ["a", "b", "c"] {
        take(&mut p, Family::V4, name).unwrap();
    }
    p.reshape(PoolSpec::new("p", "192.0.2.2-192.0.2.4").unwrap());
    assert_eq!(p.outside().iter().copied().collect::<Vec<_>>(), [ip("192.0.2.1")]);
    assert_eq!((p.usage(), p.available(Family::V4)), (3, 1));
    assert_eq!(p.admit(ip("192.0.2.1"), &holder("d"), |_| false), Err(Refusal::OutsidePool(ip("192.0.2.1"))));
    p.release(ip("192.0.2.1"), &holder("a").id);
    assert_eq!((p.usage(), p.available(Family::V4), p.outside().len()), (2, 1, 0));
    assert_eq!(take(&mut p, Family::V4, "d"), Ok(ip("192.0.2.4")));
}

#[test]
fn a_closed_pool_keeps_holders_and_gives_nothing() {
    for closed in [Closed::Disabled, Closed::Deleting, Closed::Invalid, Closed::Full] {
        let mut p = shaped("192.0.2.1-192.0.2.3", |spec| spec.closed = Some(closed));
        p.assign(ip("192.0.2.1"), holder("a"));
        assert_eq!(p.holders(ip("192.0.2.1")).len(), 1);
        assert_eq!(p.choose(Family::V4, &holder("b"), None), Err(closed.into()));
        assert_eq!(p.admit(ip("192.0.2.2"), &holder("b"), |_| false), Err(closed.into()));
        assert_eq!(p.admit(ip("192.0.2.1"), &on_port("b", 1), |_| false), Err(closed.into()));
    }
}

#[test]
fn sharing_rules() {
    let keyed = |group: &str, key: Option<&str>| {
        let terms = Terms { key: key.map(Into::into), ..Terms::default() };
        Holder { terms, ..Holder::new(group, "x", 0) }
    };
    use Sharing as S;
    let table = [
        (S::Standard, ("a", None), ("a", None), Ok(())),
        (S::Standard, ("a", None), ("b", None), Err(Conflict::Group)),
        (S::Standard, ("a", Some("k")), ("b", Some("k")), Ok(())),
        (S::Standard, ("a", Some("k")), ("a", Some("l")), Err(Conflict::Key)),
        (S::Standard, ("a", Some("k")), ("a", None), Err(Conflict::Key)),
        (S::Standard, ("a", None), ("a", Some("k")), Err(Conflict::Key)),
        (S::Address, ("a", None), ("b", None), Ok(())),
        (S::Address, ("a", Some("k")), ("b", None), Err(Conflict::Key)),
        (S::Key, ("a", None), ("a", None), Err(Conflict::Key)),
        (S::Key, ("a", Some("k")), ("b", Some("k")), Ok(())),
        (S::None, ("a", Some("k")), ("a", Some("k")), Err(Conflict::Forbidden)),
    ];
    for (sharing, (g, k), (h, l), expected) in table {
        assert_eq!(
            may_share(sharing, &keyed(g, k), &keyed(h, l)),
            expected,
            "{sharing:?} {g} {k:?} {h} {l:?}"
        );
    }
    let (mut a, mut b) = (on_port("a", 80), on_port("b", 80));
    let port = Port { protocol: Transport::Tcp, port: 80 };
    assert_eq!(may_share(S::Standard, &a, &b), Err(Conflict::Port(port)));
    b.terms.ports = [Port { protocol: Transport::Udp, port: 80 }].into();
    assert_eq!(may_share(S::Standard, &a, &b), Ok(()));
    b.terms.traffic = Traffic::Local { selector: 1 };
    assert_eq!(may_share(S::Standard, &a, &b), Err(Conflict::TrafficPolicy));
    a.terms.traffic = Traffic::Local { selector: 2 };
    assert_eq!(may_share(S::Standard, &a, &b), Err(Conflict::Selector));
    a.terms.traffic = b.terms.traffic;
    assert_eq!(may_share(S::Standard, &a, &b), Ok(()));
}

#[test]
fn quota_counts_distinct_addresses_of_a_group() {
    let mut p = shaped("192.0.2.1-192.0.2.9", |spec| spec.max_per_group = Some(1));
    p.assign(ip("192.0.2.1"), Arc::new(on_port("a", 80)));
    let refused = Refusal::QuotaExceeded { group: "ns".to_owned(), limit: 1 };
    assert_eq!(p.choose(Family::V4, &on_port("b", 81), None), Err(refused.clone()));
    assert_eq!(p.admit(ip("192.0.2.2"), &on_port("b", 81), |_| false), Err(refused));
    assert_eq!(p.admit(ip("192.0.2.1"), &on_port("b", 81), |_| false), Ok(()));
    p.assign(ip("192.0.2.1"), Arc::new(on_port("b", 81)));
    p.release(ip("192.0.2.1"), &on_port("a", 80).id);
    assert_eq!(p.held_by_group("ns"), 1);
    p.release(ip("192.0.2.1"), &on_port("b", 81).id);
    assert_eq!(
        (p.held_by_group("ns"), p.choose(Family::V4, &on_port("b", 81), None)),
        (0, Ok(ip("192.0.2.1")))
    );
}

#[test]
fn assigning_again_takes_the_new_terms() {
    let mut p = pool("192.0.2.1-192.0.2.9");
    let mut a = on_port("a", 80);
    a.terms.key = Some("k".into());
    p.assign(ip("192.0.2.1"), Arc::new(a.clone()));
    let mut b = on_port("b", 81);
    b.terms.key = Some("k".into());
    assert_eq!(p.join_by_key(Family::V4, &b, None), Some(ip("192.0.2.1")));
    a.terms.key = Some("other".into());
    p.assign(ip("192.0.2.1"), Arc::new(a));
    assert_eq!((p.join_by_key(Family::V4, &b, None), p.holders(ip("192.0.2.1")).len()), (None, 1));
}
