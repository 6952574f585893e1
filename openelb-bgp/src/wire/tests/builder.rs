//! Messages packed full.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

fn set(next_hop: Option<Ipv4Addr>) -> EncodedAttributes {
    let path = Some(AsPath::sequence([64_512]));
    let attributes =
        Attributes { origin: Some(Origin::Igp), as_path: path, next_hop, ..Attributes::default() };
    attributes.encode(&external()).unwrap()
}

fn hosts4(count: u32) -> impl Iterator<Item = Nlri> {
    (0..count).map(|index| Nlri { path_id: index, ..Ipv4Addr::from_bits(0x0a00_0000 + index).into() })
}

fn hosts6(count: u32) -> impl Iterator<Item = Nlri> {
    (0..count)
        .map(|index| Nlri { path_id: index, ..Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(index)).into() })
}

/// Reads every message of a buffer; each is checked to be within the limit.
fn read_all(mut bytes: &[u8], cx: &SessionContext) -> Vec<Update> {
    let mut updates = Vec::new();
    while let Some(length) = frame(bytes, cx.max_message_len()).unwrap() {
        updates.push(decode_update(&bytes[..length], cx).unwrap());
        assert_eq!(updates.last().unwrap().errors, []);
        bytes = &bytes[length..];
    }
    assert!(bytes.is_empty());
    updates
}

#[test]
fn ipv4_routes_are_packed_full() {
    for (extended_messages, path_ids, least) in
        [(false, false, 800), (false, true, 440), (true, false, 13_000), (true, true, 7_200)]
    {
        let families = if path_ids { vec![Family::IPV4_UNICAST] } else { vec![] };
        let cx = SessionContext { extended_messages, add_path_send: families, ..external() };
        let builder = UpdateBuilder::new(&cx);
        let set = set(Some("192.0.2.1".parse().unwrap()));
        let (mut rest, mut out, mut counts) = (hosts4(20_000), BytesMut::new(), Vec::new());
        loop {
            match builder.announce_ipv4(&set, &mut rest, &mut out).unwrap() {
                0 => break,
                count => counts.push(count),
            }
        }
        let (_, full) = counts.split_last().unwrap();
        assert!(full.iter().all(|count| *count >= least), "{counts:?}");
        let updates = read_all(&out, &cx.reversed());
        assert_eq!(updates.len(), counts.len());
        let read: Vec<Nlri> = updates.iter().flat_map(|update| update.announced.iter()).collect();
        let expected: Vec<Nlri> =
            hosts4(20_000).map(|nlri| if path_ids { nlri } else { nlri.prefix.into() }).collect();
        assert_eq!(read, expected);
    }
}

#[test]
fn ipv6_routes_are_packed_full() {
    for path_ids in [false, true] {
        let families = if path_ids { vec![Family::IPV6_UNICAST] } else { vec![] };
        let cx = SessionContext { add_path_send: families, ..external() };
        let builder = UpdateBuilder::new(&cx);
        let next_hop = NextHop::V6("2001:db8::1".parse().unwrap());
        let (mut rest, mut out) = (hosts6(1000), BytesMut::new());
        let mut total = 0;
        while let count @ 1.. =
            builder.announce_mp(Family::IPV6_UNICAST, next_hop, &set(None), &mut rest, &mut out).unwrap()
        {
            assert!(count >= 190 || total + count == 1000);
            total += count;
        }
        assert!(out.len() <= 40 * total, "{} octets for {total} prefixes", out.len());
        let updates = read_all(&out, &cx.reversed());
        let read: Vec<Nlri> =
            updates.iter().flat_map(Update::announcements).flat_map(|(_, nlri)| nlri.iter()).collect();
        let expected: Vec<Nlri> =
            hosts6(1000).map(|nlri| if path_ids { nlri } else { nlri.prefix.into() }).collect();
        assert_eq!(read, expected);
        assert!(updates.iter().flat_map(Update::announcements).all(|(told, _)| told == next_hop));
    }
}

#[test]
fn withdrawals_are_packed_full() {
    let builder = UpdateBuilder::new(&external());
    let (mut ipv4, mut ipv6, mut out) = (hosts4(2000), hosts6(500), BytesMut::new());
    while builder.withdraw(Family::IPV4_UNICAST, &mut ipv4, &mut out).unwrap() > 0 {}
    while builder.withdraw(Family::IPV6_UNICAST, &mut ipv6, &mut out).unwrap() > 0 {}
    let updates = read_all(&out, &external());
    assert_eq!(updates.len(), 3 + 3);
    let read: Vec<Prefix> = updates
        .iter()
        .flat_map(Update::withdrawals)
        .flat_map(NlriList::iter)
        .map(|nlri| nlri.prefix)
        .collect();
    let expected: Vec<Prefix> = hosts4(2000).chain(hosts6(500)).map(|nlri| nlri.prefix).collect();
    assert_eq!(read, expected);
}

#[test]
fn every_prefix_length_is_written() {
    let builder = UpdateBuilder::new(&external());
    let ones4 =
        (0..=32).map(|length| Nlri::from(Prefix::V4(Ipv4Prefix::new(Ipv4Addr::BROADCAST, length).unwrap())));
    let ones6 = (0..=128).map(|length| {
        Nlri::from(Prefix::V6(Ipv6Prefix::new(Ipv6Addr::from_bits(u128::MAX), length).unwrap()))
    });
    for (family, nlri) in
        [(Family::IPV4_UNICAST, ones4.collect::<Vec<_>>()), (Family::IPV6_UNICAST, ones6.collect::<Vec<_>>())]
    {
        let mut out = BytesMut::new();
        assert_eq!(builder.withdraw(family, nlri.iter().copied(), &mut out), Ok(nlri.len()));
        let [update] = &read_all(&out, &external())[..] else { panic!() };
        let read: Vec<Nlri> = update.withdrawals().flat_map(NlriList::iter).collect();
        assert_eq!(read, nlri);
        assert_eq!(NlriList::new(family, false, nlri).unwrap(), *update.withdrawals().next().unwrap());
    }
}

#[test]
fn mistakes_of_the_caller_write_nothing() {
    let builder = UpdateBuilder::new(&external());
    let address: Ipv4Addr = "192.0.2.1".parse().unwrap();
    let (with, without) = (set(Some(address)), set(None));
    let v4 = Family::IPV4_UNICAST;
    let v6 = Family::IPV6_UNICAST;
    let mut out = BytesMut::new();
    assert_eq!(
        builder.announce_ipv4(&without, hosts4(1), &mut out),
        Err(EncodeError::WrongNextHop { family: v4 })
    );
    assert_eq!(
        builder.announce_ipv4(&with, hosts6(1), &mut out),
        Err(EncodeError::WrongFamily { family: v4 })
    );
    let next_hop = NextHop::V6("2001:db8::1".parse().unwrap());
    let wrong = Err(EncodeError::WrongNextHop { family: v6 });
    assert_eq!(builder.announce_mp(v6, NextHop::V4(address), &without, hosts6(1), &mut out), wrong);
    assert_eq!(builder.announce_mp(v6, next_hop, &with, hosts6(1), &mut out), wrong);
    let not_agreed = builder.announce_mp(v4, next_hop, &without, hosts4(1), &mut out);
    assert_eq!(not_agreed, Err(EncodeError::WrongNextHop { family: v4 }));
    let mixed = hosts6(1).chain(hosts4(1));
    assert_eq!(builder.withdraw(v6, mixed, &mut out), Err(EncodeError::WrongFamily { family: v6 }));
    let big = Attributes {
        communities: (0..1100).map(Community).collect(),
        next_hop: Some(address),
        ..Attributes::default()
    };
    let big = big.encode(&external()).unwrap();
    let too_long = builder.announce_ipv4(&big, hosts4(1), &mut out);
    assert!(matches!(too_long, Err(EncodeError::MessageTooLong { max: 4096, .. })), "{too_long:?}");
    let huge = Attributes { communities: (0..20_000).map(Community).collect(), ..Attributes::default() };
    assert_eq!(huge.encode(&external()), Err(EncodeError::AttributesTooLong { length: 80_000 }));
    assert_eq!(builder.announce_ipv4(&with, [], &mut out), Ok(0));
    assert!(out.is_empty());
}

#[test]
fn markers_are_written() {
    let builder = UpdateBuilder::new(&external());
    for family in [Family::IPV4_UNICAST, Family::IPV6_UNICAST] {
        let mut out = BytesMut::new();
        builder.end_of_rib(family, &mut out).unwrap();
        let [update] = &read_all(&out, &external())[..] else { panic!() };
        assert_eq!(update.end_of_rib_family(), Some(family));
    }
}
