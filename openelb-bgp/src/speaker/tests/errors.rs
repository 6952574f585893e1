//! What a neighbour does wrong, one test a row: the answer of RFC 4271 §6 with code, subcode and data, or the treatment
//! of RFC 7606, and what becomes of the routes that it had sent before.

use super::{
    challenge::{Scripted, bytes_of, their_open},
    operations::update,
    *,
};
use crate::{
    speaker::ReceivedRoutes,
    wire::{Capability, Notification, NotificationCode, Open, PrefixError, SessionKind},
};

/// The prefix that the bad message is about, and one that it is not about.
const SUBJECT: &str = "203.0.113.1/32";
const BYSTANDER: &str = "203.0.113.2/32";
const NLRI: [u8; 5] = [32, 203, 0, 113, 1];

/// What is to happen.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// The route is taken, without the attribute.
    Discarded,
    /// The route is withdrawn; all others and the session stay.
    Withdrawn,
    /// The session ends with this code, subcode and data, and all routes are gone.
    Ends(u8, u8, &'static [u8]),
    /// The session ends, and the data is the attribute itself.
    EndsWithAttribute(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    External,
    Internal,
    TwoOctet,
}

impl Session {
    fn establish(self) -> (Scripted, ConnectionId) {
        let mut scripted = Scripted::new(|peer| {
            peer.received_routes = ReceivedRoutes::Keep;
            if self == Self::Internal {
                peer.asn = ASNS[0];
            }
        });
        let mut open = their_open(None);
        match self {
            Self::External => {}
            Self::Internal => {
                open.asn = u16::try_from(ASNS[0]).unwrap();
                open.capabilities[0] = Capability::FourOctetAs(ASNS[0]);
            }
            Self::TwoOctet => drop(open.capabilities.remove(0)),
        }
        let connection = scripted.establish(open);
        scripted.context.kind =
            if self == Self::Internal { SessionKind::Internal } else { SessionKind::External };
        scripted.context.four_octet_as = self != Self::TwoOctet;
        scripted.send(connection, update([SUBJECT, BYSTANDER].map(nlri).into_iter()));
        assert_eq!(prefixes(&scripted), [SUBJECT, BYSTANDER]);
        (scripted, connection)
    }

    /// The attributes that every route has here, with one of them replaced or added.
    fn attributes(self, code: u8, whole: &[u8]) -> Vec<u8> {
        let path: &[u8] = match self {
            Self::External => &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9],
            Self::Internal => &[0x40, 2, 0],
            Self::TwoOctet => &[0x40, 2, 4, 2, 1, 0xfd, 0xe9],
        };
        let mut all: Vec<(u8, &[u8])> =
            vec![(1, &[0x40, 1, 1, 0]), (2, path), (3, &[0x40, 3, 4, 192, 0, 2, 2])];
        if self == Self::Internal {
            all.push((5, &[0x40, 5, 4, 0, 0, 0, 100]));
        }
        all.retain(|(known, _)| *known != code);
        all.push((code, whole));
        all.into_iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect()
    }
}

fn prefixes(scripted: &Scripted) -> Vec<String> {
    let received = scripted.speaker.adj_in(&"other".into(), Family::IPV4_UNICAST).unwrap();
    received.iter().map(|route| route.prefix.to_string()).collect()
}

fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![flags, code, u8::try_from(value.len()).unwrap()];
    bytes.extend_from_slice(value);
    bytes
}

/// A message of any type with any body.
fn raw(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap().to_be_bytes();
    [&[0xff; 16], &length[..], &[kind], body].concat()
}

fn update_of(attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let length = u16::try_from(attributes.len()).unwrap().to_be_bytes();
    raw(2, &[&[0, 0], &length[..], attributes, nlri].concat())
}

fn last_notification(scripted: &Scripted) -> Option<Notification> {
    scripted.sent.iter().rev().find_map(|(_, message)| match message {
        Message::Notification(notification) => Some(notification.clone()),
        _ => None,
    })
}

fn ends(scripted: &Scripted, code: u8, subcode: u8, data: &[u8]) {
    let code = NotificationCode::from_code(code);
    let expected = Notification::new(code, subcode, Bytes::copy_from_slice(data));
    assert_eq!(last_notification(scripted), Some(expected));
    assert_eq!(scripted.status().counters.dropped, 1);
    assert_eq!(prefixes(scripted), [""; 0], "its routes went with the session");
}

/// An attribute in an UPDATE for a prefix that was announced before.
fn row(session: Session, code: u8, whole: &[u8], fate: Fate) {
    let (mut scripted, connection) = session.establish();
    let attributes = session.attributes(code, whole);
    scripted.send_raw(connection, &update_of(&attributes, &NLRI));
    judge(&scripted, code, whole, fate);
}

fn judge(scripted: &Scripted, code: u8, whole: &[u8], fate: Fate) {
    match fate {
        Fate::Discarded | Fate::Withdrawn => {
            assert_eq!(scripted.status().state, State::Established, "{:?}", scripted.status().last_error);
            assert_eq!(scripted.status().counters.malformed_updates, 1);
            assert_eq!(last_notification(scripted), None);
        }
        Fate::Ends(code, subcode, data) => return ends(scripted, code, subcode, data),
        Fate::EndsWithAttribute(subcode) => return ends(scripted, 3, subcode, whole),
    }
    if matches!(fate, Fate::Withdrawn) {
        assert_eq!(prefixes(scripted), [BYSTANDER]);
        return;
    }
    assert_eq!(prefixes(scripted), [SUBJECT, BYSTANDER]);
    let routes = scripted.speaker.adj_in(&"other".into(), Family::IPV4_UNICAST).unwrap();
    let kept = &routes[0].attributes.attributes;
    match code {
        5 => assert_eq!(kept.local_pref, None),
        6 => assert!(!kept.atomic_aggregate),
        7 | 18 => assert_eq!(kept.aggregator, None),
        9 => assert_eq!(kept.originator_id, None),
        10 => assert!(kept.cluster_list.is_empty()),
        17 => assert_eq!(kept.as_path.as_ref().unwrap().asns().collect::<Vec<_>>(), [ASNS[1]]),
        _ => panic!("attribute {code} is never discarded"),
    }
}

macro_rules! attributes {
    ($($name:ident: $session:ident, $flags:literal $code:literal $value:expr => $fate:expr;)*) => {$(
        #[test]
        fn $name() {
            row(Session::$session, $code, &attribute($flags, $code, &$value), $fate);
        }
    )*};
}

// RFC 7606 §3 and §7, an attribute after the other, and RFC 8092, RFC 9234, RFC 6793.
attributes! {
    origin_of_a_wrong_length_withdraws: External, 0x40 1 [0, 0] => Fate::Withdrawn;
    origin_of_an_undefined_value_withdraws: External, 0x40 1 [3] => Fate::Withdrawn;
    origin_with_wrong_flags_withdraws: External, 0xc0 1 [0] => Fate::Withdrawn;
    as_path_of_an_unknown_segment_withdraws: External, 0x40 2 [5, 1, 0, 0, 0xfd, 0xe9] => Fate::Withdrawn;
    as_path_that_overruns_withdraws: External, 0x40 2 [2, 2, 0, 0, 0xfd, 0xe9] => Fate::Withdrawn;
    as_path_that_underruns_withdraws: External, 0x40 2 [2, 1, 0, 0, 0xfd, 0xe9, 2] => Fate::Withdrawn;
    as_path_of_an_empty_segment_withdraws: External, 0x40 2 [2, 0] => Fate::Withdrawn;
    as_path_with_as_0_withdraws: External, 0x40 2 [2, 1, 0, 0, 0, 0] => Fate::Withdrawn;
    as_path_of_a_confederation_from_outside_withdraws: External, 0x40 2 [3, 1, 0, 0, 0xfd, 0xe9] => Fate::Withdrawn;
    as_path_with_wrong_flags_withdraws: External, 0xc0 2 [2, 1, 0, 0, 0xfd, 0xe9] => Fate::Withdrawn;
    next_hop_of_a_wrong_length_withdraws: External, 0x40 3 [192, 0, 2] => Fate::Withdrawn;
    next_hop_that_is_no_host_withdraws: External, 0x40 3 [0, 0, 0, 0] => Fate::Withdrawn;
    next_hop_that_is_multicast_withdraws: External, 0x40 3 [224, 0, 0, 1] => Fate::Withdrawn;
    next_hop_with_wrong_flags_withdraws: External, 0x80 3 [192, 0, 2, 2] => Fate::Withdrawn;
    med_of_a_wrong_length_withdraws: External, 0x80 4 [0, 0, 1] => Fate::Withdrawn;
    med_with_wrong_flags_withdraws: External, 0x40 4 [0, 0, 0, 1] => Fate::Withdrawn;
    local_pref_of_a_wrong_length_withdraws: Internal, 0x40 5 [0, 0, 1] => Fate::Withdrawn;
    local_pref_of_an_external_neighbour_is_discarded: External, 0x40 5 [0, 0, 0, 7] => Fate::Discarded;
    malformed_local_pref_of_an_external_neighbour_is_discarded: External, 0x40 5 [7] => Fate::Discarded;
    atomic_aggregate_of_a_wrong_length_is_discarded: External, 0x40 6 [1] => Fate::Discarded;
    atomic_aggregate_with_wrong_flags_withdraws: External, 0xc0 6 [] => Fate::Withdrawn;
    aggregator_of_a_wrong_length_is_discarded: External, 0xc0 7 [0xfd, 0xe9, 192, 0, 2, 1] => Fate::Discarded;
    aggregator_of_as_0_is_discarded: External, 0xc0 7 [0, 0, 0, 0, 192, 0, 2, 1] => Fate::Discarded;
    aggregator_of_four_octets_on_a_two_octet_session_is_discarded: TwoOctet, 0xc0 7 [0, 0, 0xfd, 0xe9, 192, 0, 2, 1] => Fate::Discarded;
    communities_of_a_wrong_length_withdraw: External, 0xc0 8 [0xfd, 0xe9, 0] => Fate::Withdrawn;
    communities_that_are_empty_withdraw: External, 0xc0 8 [] => Fate::Withdrawn;
    communities_with_wrong_flags_withdraw: External, 0x40 8 [0xfd, 0xe9, 0, 1] => Fate::Withdrawn;
    originator_id_of_a_wrong_length_withdraws: Internal, 0x80 9 [1, 2, 3] => Fate::Withdrawn;
    originator_id_of_an_external_neighbour_is_discarded: External, 0x80 9 [1, 2, 3, 4] => Fate::Discarded;
    cluster_list_of_a_wrong_length_withdraws: Internal, 0x80 10 [1, 2, 3, 4, 5] => Fate::Withdrawn;
    cluster_list_that_is_empty_withdraws: Internal, 0x80 10 [] => Fate::Withdrawn;
    cluster_list_of_an_external_neighbour_is_discarded: External, 0x80 10 [1, 2, 3] => Fate::Discarded;
    extended_communities_of_a_wrong_length_withdraw: External, 0xc0 16 [0, 2, 0xfd, 0xe9, 0, 0, 0] => Fate::Withdrawn;
    extended_communities_that_are_empty_withdraw: External, 0xc0 16 [] => Fate::Withdrawn;
    as4_path_that_is_malformed_is_discarded: TwoOctet, 0xc0 17 [2, 0] => Fate::Discarded;
    as4_path_on_a_four_octet_session_is_discarded: External, 0xc0 17 [2, 1, 0, 1, 0, 0] => Fate::Discarded;
    as4_aggregator_of_a_wrong_length_is_discarded: TwoOctet, 0xc0 18 [0, 1, 0, 0, 192] => Fate::Discarded;
    as4_aggregator_on_a_four_octet_session_is_discarded: External, 0xc0 18 [0, 1, 0, 0, 192, 0, 2, 1] => Fate::Discarded;
    large_communities_of_a_wrong_length_withdraw: External, 0xc0 32 [0, 0, 0xfd, 0xe9, 0, 0, 0, 1] => Fate::Withdrawn;
    large_communities_that_are_empty_withdraw: External, 0xc0 32 [] => Fate::Withdrawn;
    only_to_customer_of_a_wrong_length_withdraws: External, 0xc0 35 [0xfd, 0xe9] => Fate::Withdrawn;
    an_unknown_well_known_attribute_withdraws: External, 0x40 99 [1] => Fate::Withdrawn;
    mp_reach_with_a_next_hop_of_another_family_ends_the_session: External, 0x80 14 [0, 2, 1, 4, 192, 0, 2, 2, 0] => Fate::EndsWithAttribute(9);
    mp_reach_that_is_cut_off_ends_the_session: External, 0x80 14 [0, 2, 1, 16, 1] => Fate::EndsWithAttribute(9);
    mp_reach_with_an_impossible_prefix_ends_the_session: External, 0x80 14 [0, 2, 1, 16, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 129] => Fate::EndsWithAttribute(9);
    mp_unreach_that_is_cut_off_ends_the_session: External, 0x80 15 [0, 2] => Fate::EndsWithAttribute(9);
    mp_unreach_with_an_impossible_prefix_ends_the_session: External, 0x80 15 [0, 2, 1, 200] => Fate::EndsWithAttribute(9);
}

/// §3d.
#[test]
fn each_mandatory_attribute_that_is_missing_withdraws() {
    for code in [1, 2, 3] {
        row(Session::External, code, &[], Fate::Withdrawn);
    }
}

/// §3g: the first one counts, MP_REACH_NLRI and MP_UNREACH_NLRI end the session.
#[test]
fn repeated_attributes_are_discarded_but_for_the_multiprotocol_ones() {
    let (mut scripted, connection) = Session::External.establish();
    let twice = [attribute(0x80, 4, &[0, 0, 0, 1]), attribute(0x80, 4, &[0, 0, 0, 2])].concat();
    scripted.send_raw(connection, &update_of(&Session::External.attributes(4, &twice), &NLRI));
    let routes = scripted.speaker.adj_in(&"other".into(), Family::IPV4_UNICAST).unwrap();
    assert_eq!((routes.len(), routes[0].attributes.attributes.med), (2, Some(1)));
    let twice = attribute(0x80, 15, &[0, 2, 1]).repeat(2);
    row(Session::External, 15, &twice, Fate::Ends(3, 1, &[]));
}

/// §4: the NLRI are found by the total length, whatever the attributes' lengths say.
#[test]
fn attributes_that_overrun_their_total_length_withdraw() {
    row(Session::External, 8, &[0xc0, 8, 200, 1, 2, 3, 4], Fate::Withdrawn);
    row(Session::External, 8, &[0xc0, 8], Fate::Withdrawn);
}

/// §2: unknown optional attributes are kept, partial bit or not.
#[test]
fn unknown_optional_attributes_are_kept_with_the_route() {
    for flags in [0x80, 0xc0, 0xe0] {
        let (mut scripted, connection) = Session::External.establish();
        let attributes = Session::External.attributes(99, &attribute(flags, 99, &[1, 2, 3]));
        scripted.send_raw(connection, &update_of(&attributes, &NLRI));
        let routes = scripted.speaker.adj_in(&"other".into(), Family::IPV4_UNICAST).unwrap();
        let unknown = &routes[0].attributes.attributes.unknown;
        assert_eq!((unknown.len(), unknown[0].code, unknown[0].flags.0), (1, 99, flags));
        assert_eq!(unknown[0].value[..], [1, 2, 3]);
        assert_eq!(scripted.status().counters.malformed_updates, 0);
    }
}

/// §5.2: a malformed attribute in a message that says of no prefix what it is about.
#[test]
fn a_malformed_attribute_without_prefixes_ends_the_session_with_its_own_subcode() {
    let table: [(u8, Vec<u8>, Fate); 7] = [
        (1, attribute(0x40, 1, &[3]), Fate::EndsWithAttribute(6)),
        (1, attribute(0x40, 1, &[0, 0]), Fate::EndsWithAttribute(5)),
        (1, attribute(0xc0, 1, &[0]), Fate::EndsWithAttribute(4)),
        (2, attribute(0x40, 2, &[2, 0]), Fate::Ends(3, 11, &[])),
        (8, attribute(0xc0, 8, &[1]), Fate::EndsWithAttribute(5)),
        (99, attribute(0x40, 99, &[1]), Fate::EndsWithAttribute(2)),
        (8, vec![0xc0, 8, 200, 1], Fate::Ends(3, 1, &[])),
    ];
    for (code, whole, fate) in table {
        let (mut scripted, connection) = Session::External.establish();
        scripted.send_raw(connection, &update_of(&Session::External.attributes(code, &whole), &[]));
        judge(&scripted, code, &whole, fate);
    }
}

#[test]
fn a_route_that_comes_back_replaces_what_was_there_and_is_not_kept() {
    let looped = [0x40, 2, 10, 2, 2, 0, 0, 0xfd, 0xe9, 0, 0, 0xfd, 0xe8];
    let (mut scripted, connection) = Session::External.establish();
    scripted.send_raw(connection, &update_of(&Session::External.attributes(2, &looped), &NLRI));
    assert_eq!(prefixes(&scripted), [BYSTANDER]);
    assert_eq!((scripted.status().counters.as_loops, scripted.status().state), (1, State::Established));
    // RFC 4456 §8: ours by ORIGINATOR_ID.
    let (mut scripted, connection) = Session::Internal.establish();
    let ours = attribute(0x80, 9, &ADDRESSES[0].octets());
    scripted.send_raw(connection, &update_of(&Session::Internal.attributes(9, &ours), &NLRI));
    assert_eq!(prefixes(&scripted), [BYSTANDER]);
}

/// RFC 6793 §4.2.3, as it is kept.
#[test]
fn a_two_octet_neighbours_true_path_and_aggregator_are_kept() {
    let (mut scripted, connection) = Session::TwoOctet.establish();
    let mut attributes = Session::TwoOctet.attributes(2, &[0x40, 2, 6, 2, 2, 0xfd, 0xe9, 0x5b, 0xa0]);
    attributes.extend(attribute(0xc0, 7, &[0x5b, 0xa0, 192, 0, 2, 9]));
    attributes.extend(attribute(0xc0, 17, &[2, 1, 0xfa, 0x56, 0xea, 0]));
    attributes.extend(attribute(0xc0, 18, &[0xfa, 0x56, 0xea, 0, 192, 0, 2, 9]));
    scripted.send_raw(connection, &update_of(&attributes, &NLRI));
    let routes = scripted.speaker.adj_in(&"other".into(), Family::IPV4_UNICAST).unwrap();
    let kept = &routes[0].attributes.attributes;
    assert_eq!(kept.as_path.as_ref().unwrap().asns().collect::<Vec<_>>(), [65_001, 4_200_000_000]);
    assert_eq!(kept.aggregator.unwrap().asn, 4_200_000_000);
}

/// Something that an established session gets.
fn established(bytes: &[u8], code: u8, subcode: u8, data: &[u8]) {
    let (mut scripted, connection) = Session::External.establish();
    scripted.send_raw(connection, bytes);
    ends(&scripted, code, subcode, data);
    // And it comes back.
    scripted.advance(Duration::from_secs(3));
    scripted.establish(their_open(None));
}

fn header(length: u16, kind: u8) -> Vec<u8> {
    [&[0xff; 16], &length.to_be_bytes()[..], &[kind]].concat()
}

macro_rules! messages {
    ($($name:ident: $bytes:expr => $code:literal $subcode:literal $data:expr;)*) => {$(
        #[test]
        fn $name() {
            established(&$bytes, $code, $subcode, &$data);
        }
    )*};
}

// RFC 4271 §6.1, §6.3, §6.6; RFC 6608; RFC 7313 §5.
messages! {
    a_marker_that_is_not_all_ones_ends_the_session: [0xfe; 19] => 1 1 [];
    a_length_below_the_header_ends_the_session: header(18, 4) => 1 2 [0, 18];
    a_length_over_4096_ends_the_session: header(4097, 2) => 1 2 [0x10, 1];
    an_update_that_is_too_short_ends_the_session: header(22, 2) => 1 2 [0, 22];
    a_keepalive_that_is_too_long_ends_the_session: header(20, 4) => 1 2 [0, 20];
    a_notification_that_is_too_short_ends_the_session: header(20, 3) => 1 2 [0, 20];
    an_open_that_is_too_short_ends_the_session: header(28, 1) => 1 2 [0, 28];
    a_route_refresh_that_is_too_short_ends_the_session: header(22, 5) => 1 2 [0, 22];
    an_unknown_type_ends_the_session: header(19, 9) => 1 3 [9];
    withdrawn_routes_that_overrun_the_message_end_the_session: raw(2, &[0, 9, 0, 0]) => 3 1 [];
    attributes_that_overrun_the_message_end_the_session: raw(2, &[0, 0, 0, 9]) => 3 1 [];
    a_withdrawn_prefix_of_impossible_length_ends_the_session: raw(2, &[0, 1, 33, 0, 0]) => 3 10 [];
    an_announced_prefix_of_impossible_length_ends_the_session: update_of(&Session::External.attributes(0, &[]), &[33, 1, 2, 3, 4, 5]) => 3 10 [];
    an_announced_prefix_that_is_cut_off_ends_the_session: update_of(&Session::External.attributes(0, &[]), &[32, 1, 2]) => 3 10 [];
    an_open_on_an_established_session_ends_it: bytes_of(their_open(None), &SessionContext::default()) => 5 3 [1];
    a_refresh_marker_of_a_wrong_length_ends_the_session: raw(5, &[0, 1, 1, 1, 0]) => 7 1 raw(5, &[0, 1, 1, 1, 0]);
}

/// What is answered to an OPEN.
fn opens(bytes: &[u8], code: u8, subcode: u8, data: &[u8]) {
    opens_of(ASNS[1], bytes, code, subcode, data);
}

fn opens_of(asn: u32, bytes: &[u8], code: u8, subcode: u8, data: &[u8]) {
    let mut scripted = Scripted::new(|peer| peer.asn = asn);
    let connection = scripted.connect();
    scripted.send_raw(connection, bytes);
    let expected =
        Notification::new(NotificationCode::from_code(code), subcode, Bytes::copy_from_slice(data));
    assert_eq!(last_notification(&scripted), Some(expected));
    assert_eq!(scripted.closed, [connection]);
    assert_eq!(scripted.status().counters.established, 0);
}

/// Our OPEN with other octets of its body from `at` on.
fn open_with(at: usize, octets: &[u8]) -> Vec<u8> {
    let mut bytes = bytes_of(their_open(None), &SessionContext::default());
    bytes[19 + at..19 + at + octets.len()].copy_from_slice(octets);
    bytes
}

fn open_offering(capabilities: Vec<Capability>) -> Vec<u8> {
    bytes_of(Open::new(ASNS[1], 90, ADDRESSES[1], capabilities), &SessionContext::default())
}

fn open_with_parameters(parameters: &[u8]) -> Vec<u8> {
    let length = u8::try_from(parameters.len()).unwrap();
    let head = [4, 0xfd, 0xe9, 0, 90, 192, 0, 2, 2, length];
    raw(1, &[&head, parameters].concat())
}

macro_rules! open_messages {
    ($($name:ident: $bytes:expr => $code:literal $subcode:literal $data:expr;)*) => {$(
        #[test]
        fn $name() {
            opens(&$bytes, $code, $subcode, &$data);
        }
    )*};
}

// RFC 4271 §6.2, RFC 5492 §5, RFC 6286, RFC 7607; §6.6 before a session is established.
open_messages! {
    another_version_is_refused_with_ours: open_with(0, &[3]) => 2 1 [0, 4];
    as_0_is_refused: open_with(1, &[0, 0]) => 2 2 [];
    another_as_is_refused: bytes_of(Open::new(65_099, 90, ADDRESSES[1], []), &SessionContext::default()) => 2 2 [];
    identifier_0_is_refused: open_with(5, &[0, 0, 0, 0]) => 2 3 [];
    a_hold_time_of_1_s_is_refused: open_with(3, &[0, 1]) => 2 6 [];
    a_hold_time_of_2_s_is_refused: open_with(3, &[0, 2]) => 2 6 [];
    an_unknown_parameter_is_refused: open_with_parameters(&[7, 1, 0]) => 2 4 [];
    parameters_that_do_not_add_up_are_refused: open_with_parameters(&[2, 9, 1]) => 2 0 [];
    a_neighbour_without_our_families_is_told_which_are_missing: open_offering(vec![Capability::Multiprotocol(Family { afi: 25, safi: 70 })]) => 2 7 [1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1];
    a_keepalive_before_the_open_is_refused: bytes_of(Message::Keepalive, &SessionContext::default()) => 5 1 [4];
    an_update_before_the_open_is_refused: raw(2, &[0, 0, 0, 0]) => 5 1 [2];
    an_update_before_the_keepalive_is_refused: [bytes_of(their_open(None), &SessionContext::default()), raw(2, &[0, 0, 0, 0])].concat() => 5 2 [2];
    a_second_open_before_the_keepalive_is_refused: bytes_of(their_open(None), &SessionContext::default()).repeat(2) => 5 2 [1];
}

/// RFC 6286 §2.2.
#[test]
fn our_identifier_in_our_as_is_refused() {
    let open = Open::new(ASNS[0], 90, ADDRESSES[0], [Capability::Multiprotocol(Family::IPV4_UNICAST)]);
    opens_of(ASNS[0], &bytes_of(open, &SessionContext::default()), 2, 3, &[]);
}

/// §6.5.
#[test]
fn silence_for_the_hold_time_ends_the_session() {
    let (mut scripted, _) = Session::External.establish();
    scripted.advance(Duration::from_secs(89));
    assert_eq!(scripted.status().state, State::Established);
    scripted.advance(Duration::from_secs(1));
    ends(&scripted, 4, 0, &[]);
}

#[test]
fn a_hold_time_of_0_is_agreed_on_and_never_ends_the_session() {
    let mut scripted = Scripted::new(|peer| peer.hold_time = Duration::ZERO);
    scripted.establish(their_open(None));
    scripted.sent.clear();
    scripted.advance(Duration::from_secs(86_400));
    assert_eq!(scripted.status().state, State::Established);
    assert_eq!(scripted.sent, [], "no keepalives either");
    for seconds in [3, 65_535] {
        let mut scripted = Scripted::new(|peer| peer.hold_time = Duration::from_secs(seconds));
        let mut open = their_open(None);
        open.hold_time = 65_535;
        scripted.establish(open);
        assert_eq!(scripted.status().session.unwrap().hold_time, Duration::from_secs(seconds));
    }
}

#[test]
fn a_prefix_length_beyond_its_family_is_a_value_that_cannot_be_made() {
    let error = crate::wire::Prefix::new(ADDRESSES[0].into(), 33).unwrap_err();
    assert_eq!(error, PrefixError { length: 33, max: 32 });
}
