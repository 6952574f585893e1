//! UPDATE: fields, multiprotocol attributes, AS4 merge, End-of-RIB.

use std::net::Ipv6Addr;

use super::*;

fn two_octet() -> SessionContext {
    SessionContext { four_octet_as: false, ..SessionContext::default() }
}

#[test]
fn lengths_that_do_not_fit_the_message_end_the_session() {
    let bodies = [
        "0000 0001",          // attributes beyond the end
        "0001 0000",          // no room for the attributes' length
        "ffff 0000 0000",     // withdrawn routes beyond the end
        "0000 ffff 00000000", // a length that wraps in 16 bits
        "0003 08 0a 00 00",   // half a length
    ];
    for body in bodies {
        assert_eq!(answer(&message(2, &hex(body)), &external()), (3, 1, vec![]), "{body}");
    }
}

/// RFC 7606 §5.3.
#[test]
fn unreadable_prefixes_end_the_session() {
    for nlri in ["21 cb007100 00", "18 cb00", "20", "18 cb0071 ff"] {
        let announced = update_bytes(&[], &mandatory(), &hex(nlri));
        assert_eq!(answer(&announced, &external()), (3, 10, vec![]), "{nlri}");
        let withdrawn = update_bytes(&hex(nlri), &[], &[]);
        assert_eq!(answer(&withdrawn, &external()), (3, 10, vec![]), "{nlri}");
    }
}

#[test]
fn host_bits_do_not_count() {
    let update =
        decode_update(&update_bytes(&[], &mandatory(), &hex("14 0affff  00  20 0a000001")), &external());
    assert_eq!(prefixes(&update.unwrap().announced), ["10.255.240.0/20", "0.0.0.0/0", "10.0.0.1/32"]);
}

#[test]
fn path_identifiers_are_read_where_agreed() {
    let cx = SessionContext { add_path_receive: vec![Family::IPV4_UNICAST], ..external() };
    let nlri = hex("00000007 18 cb0071  00000008 20 0a000001  00000009 00");
    let update = decode_update(&update_bytes(&[], &mandatory(), &nlri), &cx).unwrap();
    assert_eq!(
        prefixes(&update.announced),
        ["203.0.113.0/24 path 7", "10.0.0.1/32 path 8", "0.0.0.0/0 path 9"]
    );
    let cut = update_bytes(&[], &mandatory(), &hex("000000 "));
    assert_eq!(answer(&cut, &cx), (3, 10, vec![]));
}

#[test]
fn ipv6_prefixes_come_with_their_next_hop() {
    let mp = hex("80 0e 1a 0002 01 10 20010db8000000000000000000000001 00 20 20010db8");
    let attributes = [mandatory(), mp].concat();
    let update = decode_update(&update_bytes(&[], &attributes, &[]), &external()).unwrap();
    assert_eq!(update.errors, []);
    let [(next_hop, nlri)] = update.announcements().collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!(next_hop.to_string(), "2001:db8::1");
    assert_eq!(prefixes(nlri), ["2001:db8::/32"]);
}

#[test]
fn a_link_local_next_hop_comes_beside_the_global_one() {
    let mp = hex(
        "80 0e 2a 0002 01 20 20010db8000000000000000000000001 fe800000000000000000000000000001 00 20 20010db8",
    );
    let update = decode_update(&update_bytes(&[], &[mandatory(), mp].concat(), &[]), &external()).unwrap();
    let Some(MpReach::Unicast { next_hop, .. }) = &update.mp_reach else { panic!() };
    let link_local: Ipv6Addr = "fe80::1".parse().unwrap();
    assert_eq!(*next_hop, NextHop::V6WithLinkLocal { global: "2001:db8::1".parse().unwrap(), link_local });
}

/// RFC 8950: only where agreed.
#[test]
fn ipv4_prefixes_may_have_an_ipv6_next_hop() {
    let mp = hex("80 0e 19 0001 01 10 20010db8000000000000000000000001 00 18 cb0071");
    let bytes = update_bytes(&[], &[mandatory(), mp.clone()].concat(), &[]);
    assert_eq!(answer(&bytes, &external()), (3, 9, mp));
    let cx = SessionContext { extended_next_hop: true, ..external() };
    let update = decode_update(&bytes, &cx).unwrap();
    let [(next_hop, nlri)] = update.announcements().collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!(
        (next_hop.to_string(), prefixes(nlri)),
        ("2001:db8::1".to_owned(), vec!["203.0.113.0/24".to_owned()])
    );
}

/// RFC 7606 §7.11, §7.12, §3g.
#[test]
fn unreadable_multiprotocol_attributes_end_the_session() {
    let bad = [
        "80 0e 02 0002",
        "80 0e 04 0002 01 10",
        "80 0e 05 0002 01 00 00",
        "80 0e 09 0002 01 04 c0000201 00",
        "80 0e 16 0002 01 10 20010db8000000000000000000000001 00 81",
        "80 0e 17 0002 01 10 20010db8000000000000000000000001 00 20 20",
        "80 0f 02 0002",
        "80 0f 04 0002 01 81",
        "80 0f 05 0002 01 20 20",
        "80 0e ff 0002 01 10",
        "80 0f ff 0002 01 10",
    ];
    for attribute in bad {
        let attribute = hex(attribute);
        let bytes = update_bytes(&[], &[mandatory(), attribute.clone()].concat(), &NLRI);
        assert_eq!(answer(&bytes, &external()), (3, 9, attribute));
    }
    let twice = hex("80 0f 03 0002 01 80 0f 03 0002 01");
    assert_eq!(answer(&update_bytes(&[], &twice, &[]), &external()), (3, 1, vec![]));
}

#[test]
fn wrong_flags_of_a_multiprotocol_attribute_withdraw_its_prefixes() {
    let mp = hex("c0 0e 1a 0002 01 10 20010db8000000000000000000000001 00 20 20010db8");
    let update = decode_update(&update_bytes(&[], &[mandatory(), mp].concat(), &[]), &external()).unwrap();
    assert_eq!(update.announcements().count(), 0);
    assert_eq!(update.withdrawals().flat_map(prefixes).collect::<Vec<_>>(), ["2001:db8::/32"]);
}

#[test]
fn other_families_are_opaque() {
    let mp = hex("80 0e 0a 0019 46 04 c0000201 00 ab");
    let unreach = hex("80 0f 04 0019 46 cd");
    let bytes = update_bytes(&[], &[mp, unreach, mandatory()].concat(), &[]);
    let update = decode_update(&bytes, &external()).unwrap();
    assert_eq!(update.announcements().count() + update.withdrawals().count(), 0);
    let family = Family { afi: 25, safi: 70 };
    assert_eq!(update.mp_reach.as_ref().unwrap().family(), family);
    assert_eq!(update.mp_unreach.as_ref().unwrap().family(), family);
    assert_eq!(encode(&update.into(), &external()), bytes);
}

/// RFC 6793 §4.2.3: the numbers of AS4_PATH take the place of the last ones.
#[test]
fn as4_path_is_merged() {
    let cases = [
        // AS_PATH, AS4_PATH, what comes out
        ("02 03 fc00 5ba0 fc02", "02 02 00010000 0000fc02", "64512 65536 64514"),
        ("02 02 5ba0 5ba0", "02 02 00010000 00010001", "65536 65537"),
        ("02 01 fc00", "02 02 00010000 00010001", "64512"),
        (
            "02 02 fc00 fc01 01 02 5ba0 fc02",
            "02 01 0000fc01 01 02 00010000 0000fc02",
            "64512 64513 {65536,64514}",
        ),
        ("02 03 fc00 5ba0 5ba0", "03 01 00000007 02 02 00010000 00010001", "64512 65536 65537"),
    ];
    for (path, as4_path, expected) in cases {
        let attributes = [
            hex("40 01 01 00 40 03 04 c0000201"),
            attribute(0x40, 2, &hex(path)),
            attribute(0xc0, 17, &hex(as4_path)),
        ];
        let update = decode_update(&update_bytes(&[], &attributes.concat(), &NLRI), &two_octet()).unwrap();
        assert_eq!(update.errors, []);
        assert_eq!(update.attributes.as_path.unwrap().to_string(), expected);
    }
}

#[test]
fn an_aggregator_that_is_not_as_trans_outdates_both_as4_attributes() {
    let attributes = [
        hex("40 01 01 00 40 03 04 c0000201 40 02 04 02 01 5ba0 c0 11 06 02 01 00010000"),
        hex("c0 07 06 fc00 0a000001 c0 12 08 00010000 0a000001"),
    ];
    let update = decode_update(&update_bytes(&[], &attributes.concat(), &NLRI), &two_octet()).unwrap();
    assert_eq!(update.attributes.aggregator.unwrap().asn, 64_512);
    assert_eq!(update.attributes.as_path, Some(AsPath::sequence([23_456])));
}

/// AS4_AGGREGATOR is what is outdated: where it is missing the aggregator's number has two octets by itself.
#[test]
fn an_aggregator_of_two_octets_leaves_as4_path_alone() {
    let path = "40 02 06 02 02 fc00 5ba0  c0 11 0a 02 02 0000fc00 fa56ea00";
    for (aggregator, expected) in [("fc01", 64_513), ("5ba0", 23_456)] {
        let attributes = format!("40 01 01 00 40 03 04 c0000201 {path} c0 07 06 {aggregator} 0a000001");
        let message = update_bytes(&[], &hex(&attributes), &NLRI);
        let update = decode_update(&message, &two_octet()).unwrap();
        assert_eq!(update.errors, []);
        assert_eq!(update.attributes.aggregator.unwrap().asn, expected);
        assert_eq!(update.attributes.as_path.unwrap().to_string(), "64512 4200000000");
    }
}

#[test]
fn large_numbers_cross_a_two_octet_session() {
    let router_id = "10.0.0.1".parse().unwrap();
    let attributes = Attributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::sequence([64_512, 70_000, 4_200_000_000])),
        next_hop: Some("192.0.2.1".parse().unwrap()),
        aggregator: Some(Aggregator { asn: 70_000, router_id }),
        ..Attributes::default()
    };
    let announced =
        NlriList::new(Family::IPV4_UNICAST, false, ["10.0.0.0/8".parse::<Prefix>().unwrap().into()]);
    let update = Update { announced: announced.unwrap(), attributes, ..Update::empty() };
    let bytes = encode(&update.clone().into(), &two_octet());
    assert_eq!(decode_update(&bytes, &two_octet()).unwrap(), update);
}

#[test]
fn end_of_rib_markers_are_known() {
    let other = Family { afi: 25, safi: 70 };
    for family in [Family::IPV4_UNICAST, Family::IPV6_UNICAST, other] {
        let bytes = encode(&Update::end_of_rib(family).into(), &external());
        assert_eq!(decode_update(&bytes, &external()).unwrap().end_of_rib_family(), Some(family));
    }
    let withdrawal = decode_update(&update_bytes(&[8, 10], &[], &[]), &external()).unwrap();
    assert_eq!(withdrawal.end_of_rib_family(), None);
}

/// RFC 8092 §5; more than a handful are compared by hash.
#[test]
fn repeated_large_communities_are_dropped() {
    for count in [2_u8, 20] {
        let value: Vec<u8> = (0..count).flat_map(|i| [0, 0, 0, 1, 0, 0, 0, i / 2, 0, 0, 0, 1]).collect();
        let attributes = [mandatory(), attribute(0xc0, 32, &value)].concat();
        let update = decode_update(&update_bytes(&[], &attributes, &NLRI), &external()).unwrap();
        let expected: Vec<_> = (0..u32::from(count / 2)).map(|i| LargeCommunity::new(1, i, 1)).collect();
        assert_eq!(update.attributes.large_communities, expected);
    }
}
