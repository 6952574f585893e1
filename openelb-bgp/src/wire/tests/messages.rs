//! Frames, OPEN, NOTIFICATION, KEEPALIVE, ROUTE-REFRESH.

use super::*;

#[test]
fn a_frame_is_found_as_soon_as_it_is_whole() {
    let stream = [message(4, &[]), update_bytes(&[], &[], &[])].concat();
    for length in 0..19 {
        assert_eq!(frame(&stream[..length], MAX_MESSAGE_LEN), Ok(None));
    }
    assert_eq!(frame(&stream, MAX_MESSAGE_LEN), Ok(Some(19)));
    assert_eq!(frame(&stream[19..], MAX_MESSAGE_LEN), Ok(Some(23)));
    assert_eq!(frame(&stream[19..41], MAX_MESSAGE_LEN), Ok(None));
}

#[test]
fn a_wrong_marker_is_seen_at_its_first_octet() {
    assert_eq!(frame(&[0xff, 0xfe], MAX_MESSAGE_LEN), Err(HeaderError::NotSynchronized));
    let mut bytes = message(4, &[]);
    bytes[15] = 0;
    assert_eq!(answer(&bytes, &external()), (1, 1, vec![]));
}

/// RFC 4271 §6.1, RFC 8654 §4: what is too short or too long for its type.
#[test]
fn impossible_lengths_are_refused() {
    let with = |kind: u8, length: u16| {
        let mut bytes = message(kind, &[]);
        bytes[16..18].copy_from_slice(&length.to_be_bytes());
        frame(&bytes, EXTENDED_MAX_MESSAGE_LEN)
    };
    let cases = [(1, 29, 4096), (2, 23, 65_535), (3, 21, 65_535), (4, 19, 19), (5, 23, 65_535)];
    for (kind, least, most) in cases {
        assert_eq!(with(kind, least - 1), Err(HeaderError::BadLength { length: least - 1 }));
        assert!(with(kind, least).is_ok());
        assert!(with(kind, most).is_ok());
        if most < u16::MAX {
            assert_eq!(with(kind, most + 1), Err(HeaderError::BadLength { length: most + 1 }));
        }
    }
    let mut bytes = message(2, &[0; 4]);
    bytes[16..18].copy_from_slice(&4097_u16.to_be_bytes());
    assert_eq!(frame(&bytes, MAX_MESSAGE_LEN), Err(HeaderError::BadLength { length: 4097 }));
    assert_eq!(answer(&bytes, &external()), (1, 2, vec![0x10, 0x01]));
}

#[test]
fn unknown_types_are_refused() {
    for kind in [0, 6, 255] {
        assert_eq!(answer(&message(kind, &[0; 10]), &external()), (1, 3, vec![kind]));
    }
}

fn open_body(parameters: &[u8]) -> Vec<u8> {
    [&hex("04 fc00 00b4 0a000001"), parameters].concat()
}

#[test]
fn an_open_is_read() {
    let capabilities = "01 04 0001 00 01  02 00  06 00  46 00  41 04 00010000
        40 06 c078 0001 01 80  45 08 0001 01 03 0002 01 01  05 06 0001 0001 0002  80 01 07";
    let list = hex(capabilities);
    let inner = u8::try_from(list.len()).unwrap();
    let body = open_body(&[&[inner + 2, 2, inner][..], &list].concat());
    let Message::Open(open) = Message::decode(&message(1, &body), &external()).unwrap() else { panic!() };
    assert_eq!((open.version, open.asn, open.hold_time), (4, 64_512, 180));
    assert_eq!((open.four_octet_asn(), open.has_four_octet_as()), (65_536, true));
    assert_eq!(open.families(), [Family::IPV4_UNICAST]);
    assert!(open.has(&Capability::RouteRefresh) && open.has(&Capability::EnhancedRouteRefresh));
    assert!(open.has(&Capability::ExtendedMessage));
    assert_eq!(open.add_path(Family::IPV4_UNICAST), Some(AddPathMode::Both));
    assert_eq!(open.add_path(Family::IPV6_UNICAST), Some(AddPathMode::Receive));
    assert!(open.has_extended_next_hop(Family::IPV4_UNICAST, 2));
    assert!(!open.has_extended_next_hop(Family::IPV6_UNICAST, 2));
    let restart = open.graceful_restart().unwrap();
    assert_eq!((restart.restarted, restart.notification, restart.time), (true, true, 120));
    assert_eq!(restart.families, [GracefulRestartFamily { family: Family::IPV4_UNICAST, forwarding: true }]);
    let last = Capability::Unknown { code: 128, value: bytes::Bytes::from_static(&[7]) };
    assert_eq!(open.capabilities.last(), Some(&last));
    assert_eq!(encode(&open.into(), &external()), message(1, &body));
}

#[test]
fn capabilities_may_come_one_a_parameter_or_in_the_long_form() {
    let one_each = open_body(&hex("0c 02 06 01 04 0001 00 01  02 02 02 00"));
    let long = open_body(&hex("ff ff 000f  02 0006 01 04 0001 00 01  02 0003 80 01 07"));
    let expected = [Capability::Multiprotocol(Family::IPV4_UNICAST), Capability::RouteRefresh];
    let Message::Open(open) = Message::decode(&message(1, &one_each), &external()).unwrap() else { panic!() };
    assert_eq!(open.capabilities, expected);
    let Message::Open(open) = Message::decode(&message(1, &long), &external()).unwrap() else { panic!() };
    assert_eq!(open.capabilities[..1], expected[..1]);
    assert_eq!(open.capabilities.len(), 2);
}

/// RFC 4271 §6.2 and its updates.
#[test]
fn bad_opens_are_answered() {
    let cases = [
        ("03 fc00 00b4 0a000001 00", (1, "0004")),
        ("04 0000 00b4 0a000001 00", (2, "")),
        ("04 fc00 00b4 0a000001 08 02 06 41 04 00000000", (2, "")),
        ("04 fc00 00b4 00000000 00", (3, "")),
        ("04 fc00 00b4 0a000001 04 01 02 0000", (4, "")),
        ("04 fc00 0001 0a000001 00", (6, "")),
        ("04 fc00 0002 0a000001 00", (6, "")),
        ("04 fc00 00b4 0a000001 01", (0, "")), // longer than the message
        ("04 fc00 00b4 0a000001 00 00", (0, "")), // shorter than the message
        ("04 fc00 00b4 0a000001 02 02 02", (0, "")), // a parameter that is cut off
        ("04 fc00 00b4 0a000001 04 02 02 01 04", (0, "")), // a capability that is cut off
        ("04 fc00 00b4 0a000001 03 02 01 01", (0, "")), // half a capability
        ("04 fc00 00b4 0a000001 ff ff 0001", (0, "")), // the long form, cut off
        ("04 fc00 00b4 0a000001 ff ff", (0, "")),
    ];
    for (body, (subcode, data)) in cases {
        assert_eq!(answer(&message(1, &hex(body)), &external()), (2, subcode, hex(data)), "{body}");
    }
    let forever = Message::decode(&message(1, &hex("04 fc00 0000 0a000001 00")), &external()).unwrap();
    assert!(matches!(forever, Message::Open(Open { hold_time: 0, .. })));
}

/// RFC 5492 §3: what is not understood is as if it were not there.
#[test]
fn malformed_capabilities_are_kept_as_unknown() {
    for (code, value) in [
        (1, "0001"),
        (2, "00"),
        (5, "0001"),
        (6, "00"),
        (64, "00"),
        (64, "0078 00"),
        (65, "0000"),
        (69, "00"),
        (70, "00"),
    ] {
        let value = hex(value);
        let list = [&[code, u8::try_from(value.len()).unwrap()][..], &value].concat();
        let inner = u8::try_from(list.len()).unwrap();
        let body = open_body(&[&[inner + 2, 2, inner][..], &list].concat());
        let Message::Open(open) = Message::decode(&message(1, &body), &external()).unwrap() else { panic!() };
        assert_eq!(open.capabilities, [Capability::Unknown { code, value: value.into() }]);
    }
}

#[test]
fn capabilities_that_do_not_fit_are_refused() {
    let unknown = |length| Capability::Unknown { code: 200, value: vec![0; length].into() };
    let open = |capabilities| Message::Open(Open::new(1, 90, "10.0.0.1".parse().unwrap(), capabilities));
    let mut out = BytesMut::from(&b"before"[..]);
    // 6 octets for the AS number, 2 of header: 253 in all.
    open(vec![unknown(245)]).encode(&external(), &mut out).unwrap();
    out.truncate(6);
    let error = open(vec![unknown(246)]).encode(&external(), &mut out).unwrap_err();
    assert_eq!(error, EncodeError::CapabilitiesTooLong { length: 254 });
    assert_eq!(&out[..], b"before");
    let restart = GracefulRestart { time: 4096, ..GracefulRestart::default() };
    assert!(open(vec![Capability::GracefulRestart(restart)]).encode(&external(), &mut out).is_err());
}

#[test]
fn notifications_keep_code_subcode_and_data() {
    for body in ["06 02 04 74657374", "ff 07", "04 00"] {
        let bytes = message(3, &hex(body));
        let notification = Message::decode(&bytes, &external()).unwrap();
        assert_eq!(encode(&notification, &external()), bytes);
    }
}

/// RFC 9003 §2.
#[test]
fn shutdown_texts_are_read_if_well_formed() {
    let notification = Notification::administrative_shutdown("back at 14:00\n");
    assert_eq!(notification.shutdown_text(), Some("back at 14:00\n"));
    assert_eq!(notification.to_string(), r#"cease: administrative shutdown: "back at 14:00\n""#);
    let long = "ä".repeat(200);
    assert_eq!(Notification::administrative_reset(&long).shutdown_text().unwrap().len(), 254);
    assert_eq!(Notification::administrative_reset("").shutdown_text(), None);
    for data in ["", "05 74657374", "02 fffe"] {
        let notification = Notification::new(NotificationCode::Cease, 2, hex(data).into());
        assert_eq!(notification.shutdown_text(), None);
    }
    assert_eq!(Notification::new(NotificationCode::Cease, 6, hex("01 61").into()).shutdown_text(), None);
}

#[test]
fn notifications_are_told_in_words() {
    let hard = Notification::hard_reset(&Notification::hold_timer_expired());
    assert_eq!(hard.hard_reset_reason(), Some(Notification::hold_timer_expired()));
    assert_eq!(hard.to_string(), "cease: hard reset: hold timer expired");
    assert_eq!(Notification::bfd_down().to_string(), "cease: BFD down");
    assert_eq!(Notification::unexpected_message(2, MessageKind::Update).data[..], [2]);
    let limit = Notification::maximum_prefixes(Family::IPV6_UNICAST, 1000);
    assert_eq!(limit.data[..], hex("0002 01 000003e8"));
    let required = [Capability::FourOctetAs(70_000), Capability::RouteRefresh];
    assert_eq!(Notification::unsupported_capability(&required).data[..], hex("41 04 00011170 02 00"));
    let unknown = Notification::new(NotificationCode::Unknown(77), 5, bytes::Bytes::new());
    assert_eq!(unknown.to_string(), "error code 77: subcode 5");
}

#[test]
fn route_refreshes_are_read() {
    let cases = [
        ("0001 00 01", RouteRefreshKind::Request),
        ("0001 01 01", RouteRefreshKind::Begin),
        ("0001 02 01", RouteRefreshKind::End),
        ("0001 09 01", RouteRefreshKind::Unknown(9)),
    ];
    for (body, kind) in cases {
        let bytes = message(5, &hex(body));
        let refresh = Message::decode(&bytes, &external()).unwrap();
        assert_eq!(refresh, RouteRefresh { family: Family::IPV4_UNICAST, kind }.into());
        assert_eq!(encode(&refresh, &external()), bytes);
    }
    // Filters that nobody asked for (RFC 5291) are left out; a marker has none (RFC 7313 §5).
    let filters = Message::decode(&message(5, &hex("0001 00 01 01 40 0000")), &external()).unwrap();
    assert_eq!(filters, RouteRefresh::request(Family::IPV4_UNICAST).into());
    let marker = message(5, &hex("0001 01 01 00"));
    assert_eq!(answer(&marker, &external()), (7, 1, marker));
}

#[test]
fn decode_takes_whole_messages_only() {
    let bytes = update_bytes(&[], &mandatory(), &NLRI);
    for length in 0..bytes.len() {
        assert!(Message::decode(&bytes[..length], &external()).is_err(), "{length}");
    }
}
