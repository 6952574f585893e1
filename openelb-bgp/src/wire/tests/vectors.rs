//! Messages of BIRD 2.0.12, as it put them on the wire between AS 4200000001 (add-path both ways in IPv4, graceful
//! restart, extended messages) and AS 64513.

use super::*;

const OPEN: &str = "ffffffffffffffffffffffffffffffff 004b 01  04 5ba0 00f0 0a000001 2e 02 2c
    01 04 00010001  01 04 00020001  02 00  06 00  40 0a 0078 00010100 00020100  41 04 fa56ea01  45 04 00010103
    46 00  47 00";
const ANNOUNCE_IPV4: &str = "ffffffffffffffffffffffffffffffff 0055 02 0000 0035
    40 01 01 00  40 02 06 0201fa56ea01  40 03 04 0a090001  c0 08 04 fc000064  c0 10 08 0002fc0000000007
    c0 20 0c 0000fc000000000100000002  00000002 20 cb007101";
const ANNOUNCE_IPV6: &str = "ffffffffffffffffffffffffffffffff 0063 02 0000 004c
    90 0e 003b 000201 20 20010db8ffff00000000000000000001 fe80000000000000486a7ffffeb33f89 00
    20 20010db8  80 20010db8000100000000000000000001  40 01 01 00  40 02 06 0201fa56ea01";
const END_OF_RIB_IPV4: &str = "ffffffffffffffffffffffffffffffff 0017 02 0000 0000";
const END_OF_RIB_IPV6: &str = "ffffffffffffffffffffffffffffffff 001d 02 0000 0006 80 0f 03 000201";

fn session() -> SessionContext {
    SessionContext {
        extended_messages: true,
        add_path_receive: vec![Family::IPV4_UNICAST],
        add_path_send: vec![Family::IPV4_UNICAST],
        ..SessionContext::default()
    }
}

#[test]
fn birds_open_is_read_and_written_the_same() {
    let bytes = hex(OPEN);
    let message = Message::decode(&bytes, &session()).unwrap();
    let Message::Open(open) = &message else { panic!() };
    assert_eq!((open.asn, open.four_octet_asn(), open.hold_time), (AS_TRANS, 4_200_000_001, 240));
    assert_eq!(open.families(), [Family::IPV4_UNICAST, Family::IPV6_UNICAST]);
    assert_eq!(open.add_path(Family::IPV4_UNICAST), Some(AddPathMode::Both));
    assert_eq!(open.add_path(Family::IPV6_UNICAST), None);
    let restart = open.graceful_restart().unwrap();
    assert_eq!((restart.time, restart.families.len(), restart.restarted), (120, 2, false));
    assert_eq!(encode(&message, &session()), bytes);
}

#[test]
fn birds_ipv4_route_is_read_and_written_the_same() {
    let bytes = hex(ANNOUNCE_IPV4);
    let update = decode_update(&bytes, &session()).unwrap();
    assert_eq!(update.errors, []);
    let attributes = &update.attributes;
    assert_eq!(attributes.as_path.as_ref().unwrap().to_string(), "4200000001");
    assert_eq!(attributes.communities, [Community::new(64_512, 100)]);
    assert_eq!(attributes.extended_communities[0].to_string(), "rt:64512:7");
    assert_eq!(attributes.large_communities, [LargeCommunity::new(64_512, 1, 2)]);
    assert_eq!(prefixes(&update.announced), ["203.0.113.1/32 path 2"]);
    assert_eq!(encode(&update.clone().into(), &session()), bytes);
    // And by the builder.
    let mut out = BytesMut::new();
    let set = attributes.encode(&session()).unwrap();
    UpdateBuilder::new(&session()).announce_ipv4(&set, &update.announced, &mut out).unwrap();
    assert_eq!(out[..], bytes);
}

#[test]
fn birds_ipv6_routes_are_read_and_written_the_same() {
    let bytes = hex(ANNOUNCE_IPV6);
    let update = decode_update(&bytes, &session()).unwrap();
    let [(next_hop, nlri)] = update.announcements().collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!(next_hop.to_string(), "2001:db8:ffff::1 fe80::486a:7fff:feb3:3f89");
    assert_eq!(prefixes(nlri), ["2001:db8::/32", "2001:db8:1::1/128"]);
    // The builder writes the long form of the length, as BIRD does.
    let mut out = BytesMut::new();
    let set = update.attributes.encode(&session()).unwrap();
    UpdateBuilder::new(&session()).announce_mp(Family::IPV6_UNICAST, next_hop, &set, nlri, &mut out).unwrap();
    assert_eq!(out[..], bytes);
}

#[test]
fn birds_end_of_rib_markers_are_read_and_written_the_same() {
    for (text, family) in [(END_OF_RIB_IPV4, Family::IPV4_UNICAST), (END_OF_RIB_IPV6, Family::IPV6_UNICAST)] {
        let bytes = hex(text);
        assert_eq!(decode_update(&bytes, &session()).unwrap().end_of_rib_family(), Some(family));
        assert_eq!(encode(&Update::end_of_rib(family).into(), &session()), bytes);
    }
}
