//! Generated messages: what is written is read again, and whatever is read never panics.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::{collection::vec, option, prelude::*};

use super::*;

fn nlri(family: Family, path_ids: bool) -> impl Strategy<Value = NlriList> {
    let ipv6 = family == Family::IPV6_UNICAST;
    let one = (any::<u128>(), 0..=if ipv6 { 128_u8 } else { 32 }, any::<u32>()).prop_map(
        move |(bits, length, id)| {
            let prefix = if ipv6 {
                Prefix::V6(Ipv6Prefix::new(Ipv6Addr::from_bits(bits), length).unwrap())
            } else {
                let bits = u32::try_from(bits & 0xffff_ffff).unwrap();
                Prefix::V4(Ipv4Prefix::new(Ipv4Addr::from_bits(bits), length).unwrap())
            };
            Nlri { path_id: if path_ids { id } else { 0 }, prefix }
        },
    );
    vec(one, 0..40).prop_map(move |list| {
        let path_ids = path_ids && !list.is_empty();
        NlriList::new(family, path_ids, list).unwrap()
    })
}

fn context() -> impl Strategy<Value = SessionContext> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<[bool; 2]>(), any::<bool>()).prop_map(
        |(internal, four_octet_as, extended_messages, add_path, extended_next_hop)| {
            let families: Vec<Family> = [Family::IPV4_UNICAST, Family::IPV6_UNICAST]
                .into_iter()
                .zip(add_path)
                .filter_map(|(family, agreed)| agreed.then_some(family))
                .collect();
            SessionContext {
                kind: if internal { SessionKind::Internal } else { SessionKind::External },
                four_octet_as,
                extended_messages,
                add_path_receive: families.clone(),
                add_path_send: families,
                extended_next_hop,
            }
        },
    )
}

fn attributes(cx: &SessionContext) -> impl Strategy<Value = Attributes> + use<> {
    let internal = cx.kind == SessionKind::Internal;
    // Of two octets and of four, AS_TRANS among them.
    let asn = || prop_oneof![1..=65_535_u32, 1_u32.., Just(u32::from(AS_TRANS))];
    let segment = (any::<bool>(), vec(asn(), 1..6)).prop_map(|(set, asns)| AsPathSegment {
        kind: if set { SegmentKind::Set } else { SegmentKind::Sequence },
        asns,
    });
    let path = vec(segment, 0..4).prop_map(|segments| AsPath { segments });
    let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)];
    let address = (1_u32..0xe000_0000).prop_map(|bits| Ipv4Addr::from_bits(bits | 0x0100_0000));
    let aggregator =
        (asn(), any::<u32>()).prop_map(|(asn, id)| Aggregator { asn, router_id: Ipv4Addr::from_bits(id) });
    let large = proptest::collection::btree_set(any::<[u32; 3]>(), 0..20);
    let unknown = proptest::collection::btree_map(100..200_u8, vec(any::<u8>(), 0..300), 0..3);
    let first =
        (origin, path, address.clone(), option::of(any::<u32>()), option::of(any::<u32>()), any::<bool>());
    let second =
        (option::of(aggregator), vec(any::<u32>(), 0..5), option::of(address), vec(any::<u32>(), 0..3));
    let third = (vec(any::<[u8; 8]>(), 0..3), large, option::of(1_u32..), unknown);
    (first, second, third).prop_map(move |(first, second, third)| {
        let (origin, path, next_hop, med, local_pref, atomic_aggregate) = first;
        let (aggregator, communities, originator_id, clusters) = second;
        let (extended, large, only_to_customer, unknown) = third;
        Attributes {
            origin: Some(origin),
            as_path: Some(path),
            next_hop: Some(next_hop),
            med,
            local_pref: local_pref.filter(|_| internal),
            atomic_aggregate,
            aggregator,
            communities: communities.into_iter().map(Community).collect(),
            originator_id: originator_id.filter(|_| internal),
            cluster_list: clusters.into_iter().filter(|_| internal).map(Ipv4Addr::from_bits).collect(),
            extended_communities: extended.into_iter().map(ExtendedCommunity).collect(),
            large_communities: large.into_iter().map(|[a, b, c]| LargeCommunity::new(a, b, c)).collect(),
            only_to_customer,
            unknown: unknown
                .into_iter()
                .map(|(code, value)| UnknownAttribute {
                    flags: AttributeFlags(0xc0),
                    code,
                    value: value.into(),
                })
                .collect(),
        }
    })
}

fn update() -> impl Strategy<Value = (SessionContext, Update)> {
    context().prop_flat_map(|cx| {
        let path_ids = |family| cx.receives_path_ids(family);
        let (v4, v6) = (Family::IPV4_UNICAST, Family::IPV6_UNICAST);
        let reach = (any::<u128>(), nlri(v6, path_ids(v6))).prop_map(|(bits, nlri)| MpReach::Unicast {
            next_hop: NextHop::V6(Ipv6Addr::from_bits(bits & !(0xff << 120) | 0x20 << 120)),
            nlri,
        });
        let unreach = nlri(v6, path_ids(v6)).prop_map(MpUnreach::Unicast);
        let lists = (nlri(v4, path_ids(v4)), nlri(v4, path_ids(v4)), option::of(reach), option::of(unreach));
        (Just(cx.clone()), lists, attributes(&cx)).prop_map(|(cx, lists, attributes)| {
            let (withdrawn, announced, mp_reach, mp_unreach) = lists;
            (cx, Update { withdrawn, announced, mp_reach, mp_unreach, attributes, errors: Vec::new() })
        })
    })
}

/// What holds for any octets, in any session: no panic, and what was read and is sound is written and read again as the
/// same. The fuzz targets check this too.
fn read_again(bytes: &[u8], cx: &SessionContext) {
    let Ok(message) = Message::decode(bytes, cx) else { return };
    let expected = match message {
        Message::Update(update) if update.treat_as_withdraw() => return,
        Message::Update(update) => Message::Update(Update { errors: Vec::new(), ..update }),
        other => other,
    };
    let mut out = BytesMut::new();
    // Long OPENs are read but not written.
    if expected.encode(cx, &mut out).is_ok() {
        assert_eq!(Message::decode(&out, cx), Ok(expected));
    }
}

proptest! {
    #[test]
    fn updates_are_read_as_written((cx, update) in update()) {
        let mut out = BytesMut::new();
        let message = Message::Update(update);
        message.encode(&cx, &mut out).unwrap();
        prop_assert_eq!(Message::decode(&out, &cx), Ok(message));
    }

    /// RFC 7606's point: whatever the attributes are, the session lives if the prefixes can be read.
    #[test]
    fn mutated_updates_never_panic(
        (cx, update) in update(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut out = BytesMut::new();
        Message::Update(update).encode(&cx, &mut out).unwrap();
        for (index, value) in changes {
            let length = out.len() - HEADER_LEN;
            out[HEADER_LEN + index.index(length)] = value;
        }
        read_again_two_octet_safe(&out, &cx);
    }

    #[test]
    fn any_octets_never_panic(kind in 1_u8..6, body in vec(any::<u8>(), 0..200), cx in context()) {
        read_again_two_octet_safe(&message(kind, &body), &cx);
    }

    #[test]
    fn frames_never_panic_and_are_within_bounds(bytes in vec(any::<u8>(), 0..64), extended: bool) {
        let max = if extended { EXTENDED_MAX_MESSAGE_LEN } else { MAX_MESSAGE_LEN };
        let whole = [vec![0xff; 16], bytes].concat();
        if let Ok(Some(length)) = frame(&whole, max) {
            prop_assert!((HEADER_LEN..=whole.len()).contains(&length));
        }
    }
}

/// On a two-octet session the merge of AS4_PATH is one way: only that nothing panics is asked there.
fn read_again_two_octet_safe(bytes: &[u8], cx: &SessionContext) {
    if cx.four_octet_as {
        read_again(bytes, cx);
    } else {
        let _ = Message::decode(bytes, cx);
    }
}
