//! The codec beside two others: the same octets in, and every difference must be one that has a name and a reason here.
//!
//! `rustbgpd-wire` handles errors by RFC 7606 as we do, so outcome and prefixes are compared for good and bad messages.
//! `netgauze-bgp-pkt` is strict (the first error fails), so only what it accepts, and what is free of errors, is compared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use ipnet::IpNet;
use netgauze_bgp_pkt::{BgpMessage, wire::deserializer::BgpParsingContext};
use netgauze_iana::address_family::AddressType;
use netgauze_parse_utils::{reader::SliceReader, traits::ParseFromWithOneInput};
use openelb_bgp::wire::{
    AsPath, AttributeFault, DecodeError, Family, Message, NlriList, SessionContext, SessionKind, Update,
    UpdateError,
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use rustbgpd_wire as rustbgpd;

/// What becomes of an UPDATE.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// The session ends.
    Reset,
    /// The prefixes announced (none if treated as withdrawn), and those gone.
    Routes { announced: Prefixes, gone: Prefixes },
}

type Prefixes = BTreeSet<(u32, IpNet)>;

fn session(internal: bool, add_path: bool) -> SessionContext {
    let families = if add_path { vec![Family::IPV4_UNICAST] } else { Vec::new() };
    SessionContext {
        kind: if internal { SessionKind::Internal } else { SessionKind::External },
        add_path_receive: families.clone(),
        add_path_send: families,
        ..SessionContext::default()
    }
}

fn collect<'a>(lists: impl Iterator<Item = &'a NlriList>) -> Prefixes {
    lists.flat_map(NlriList::iter).map(|nlri| (nlri.path_id, nlri.prefix.into())).collect()
}

fn ours(bytes: &[u8], cx: &SessionContext) -> (Outcome, Result<Update, DecodeError>) {
    match Message::decode(bytes, cx) {
        Ok(Message::Update(update)) => {
            let announced = collect(update.announcements().map(|(_, nlri)| nlri));
            let gone = collect(update.withdrawals());
            (Outcome::Routes { announced, gone }, Ok(update))
        }
        Ok(other) => panic!("{other:?}"),
        Err(error) => (Outcome::Reset, Err(error)),
    }
}

fn rustbgpd(bytes: &[u8], internal: bool, add_path: bool) -> Outcome {
    use rustbgpd::{PathAttribute, Prefix};
    let net = |prefix: &Prefix| -> IpNet {
        format!("{}/{}", prefix.addr_string(), prefix.prefix_len()).parse().unwrap()
    };
    let v4 = |entry: &rustbgpd::Ipv4NlriEntry| (entry.path_id, net(&Prefix::V4(entry.prefix)));
    let Ok(rustbgpd::Message::Update(update)) =
        rustbgpd::decode_message(&mut Bytes::copy_from_slice(bytes), 4096)
    else {
        return Outcome::Reset;
    };
    let Ok(parsed) = update.parse_revised(true, internal, add_path, &[]) else { return Outcome::Reset };
    let update = parsed.update;
    let mut announced: Prefixes = update.announced.iter().map(v4).collect();
    let mut gone: Prefixes = update.withdrawn.iter().map(v4).collect();
    let mut has_mp = false;
    for attribute in &update.attributes {
        match attribute {
            PathAttribute::MpReachNlri(reach) => {
                has_mp |= !reach.announced.is_empty();
                announced.extend(reach.announced.iter().map(|entry| (entry.path_id, net(&entry.prefix))));
            }
            PathAttribute::MpUnreachNlri(unreach) => {
                gone.extend(unreach.withdrawn.iter().map(|entry| (entry.path_id, net(&entry.prefix))));
            }
            _ => {}
        }
    }
    let has_body = !update.announced.is_empty();
    let validated = rustbgpd::validate::validate_update_attributes(
        &update.attributes,
        has_body || has_mp,
        has_body,
        !internal,
    );
    let dispositions = parsed.malformed.iter().map(|malformed| malformed.disposition);
    match dispositions.chain(validated.err().map(|error| error.disposition)).max() {
        Some(rustbgpd::ErrorDisposition::SessionReset) => Outcome::Reset,
        Some(rustbgpd::ErrorDisposition::TreatAsWithdraw) => {
            gone.append(&mut announced);
            Outcome::Routes { announced, gone }
        }
        _ => Outcome::Routes { announced, gone },
    }
}

/// The prefixes in the body and those withdrawn there, if the message is accepted.
fn netgauze(bytes: &[u8], add_path: bool) -> Option<(Prefixes, Prefixes)> {
    let add_path = HashMap::from([(AddressType::Ipv4Unicast, add_path)]);
    let mut context = BgpParsingContext::new(true, HashMap::new(), add_path, true, true, true, true);
    let message = BgpMessage::parse(&mut SliceReader::new(bytes), &mut context).ok()?;
    let BgpMessage::Update(update) = message else { return None };
    let read = |list: &[netgauze_bgp_pkt::nlri::Ipv4UnicastAddress]| {
        list.iter()
            .map(|entry| (entry.path_id().unwrap_or(0), IpNet::V4(entry.network().address().trunc())))
            .collect()
    };
    Some((read(update.nlri()), read(update.withdraw_routes())))
}

/// The name of a difference from `rustbgpd-wire` that is known and meant.
fn known(ours: &Result<Update, DecodeError>, internal: bool) -> Option<&'static str> {
    match ours {
        // RFC 7606 §5.2: what a message without prefixes is about may be lost; the peer only drops the attribute.
        Err(DecodeError::Update(UpdateError::NothingToWithdraw { .. })) => Some("nothing to withdraw"),
        Ok(update) => {
            let value = |code| {
                update.errors.iter().any(|error| error.code == code && error.fault == AttributeFault::Value)
            };
            let fault = |fault| update.errors.iter().any(|error| error.fault == fault);
            let next_hop = update.attributes.next_hop;
            if fault(AttributeFault::Unexpected) {
                // Discarded whatever it looks like (RFC 6793 §6, RFC 7606 §7.5, §7.9, §7.10); the peer still judges
                // its flags.
                Some("attribute that has no meaning on the session")
            } else if next_hop.is_some_and(|address| address.is_loopback()) {
                // Loopback next hops are left to policy here.
                Some("loopback next hop")
            } else if value(3) || value(14) {
                // 0/8, 240/4: no host address (RFC 4271 §6.3); the peer refuses only 0.0.0.0 and broadcast.
                Some("next hop that is no host")
            } else if update.attributes.as_path.iter().any(has_confederation_segment) {
                // Within an AS they may come from another member of a confederation (RFC 5065 §4); the peer knows none.
                Some("confederation segment from an internal neighbour")
            } else if internal
                && update.errors.iter().any(|error| error.code == 3 && fault(AttributeFault::Missing))
            {
                // NEXT_HOP is mandatory whoever the neighbour is (RFC 4271 §5.1.3); the peer asks external ones only.
                Some("NEXT_HOP missing from an internal neighbour")
            } else {
                None
            }
        }
        Err(_) => None,
    }
}

fn has_confederation_segment(path: &AsPath) -> bool {
    path.segments.iter().any(|segment| segment.kind.is_confederation())
}

/// An attribute: mostly good, sometimes with a wrong value, length or flags.
fn attribute() -> impl Strategy<Value = Vec<u8>> {
    let good: Vec<(u8, u8, Vec<u8>)> = vec![
        (0x40, 1, vec![0]),
        (0x40, 2, vec![2, 1, 0, 0, 0xfc, 0]),
        (0x40, 3, vec![192, 0, 2, 1]),
        (0x80, 4, vec![0, 0, 0, 9]),
        (0x40, 5, vec![0, 0, 0, 100]),
        (0x40, 6, vec![]),
        (0xc0, 7, vec![0, 0, 0xfc, 0, 10, 0, 0, 1]),
        (0xc0, 8, vec![0xfc, 0, 0, 1]),
        (0x80, 9, vec![10, 0, 0, 9]),
        (0x80, 10, vec![10, 0, 0, 9]),
        (0xc0, 16, vec![0, 2, 0xfc, 0, 0, 0, 0, 1]),
        (0xc0, 32, vec![0, 0, 0xfc, 0, 0, 0, 0, 1, 0, 0, 0, 2]),
        (0xc0, 99, vec![1, 2, 3]),
    ];
    let bad_value = prop_oneof![9 => Just(None), 1 => vec(any::<u8>(), 0..14).prop_map(Some)];
    let bad_flags = prop_oneof![19 => Just(0_u8), 1 => select(vec![0x80_u8, 0x40])];
    (select(good), bad_value, bad_flags).prop_map(|((flags, code, value), bad_value, bad_flags)| {
        let value = bad_value.unwrap_or(value);
        [&[flags ^ bad_flags, code, u8::try_from(value.len()).unwrap()][..], &value].concat()
    })
}

fn nlri(path_ids: bool) -> impl Strategy<Value = Vec<u8>> {
    let one = (
        prop_oneof![5 => 0..=32_u8, 5 => Just(32), 1 => 33..40_u8],
        1..223_u8,
        any::<[u8; 3]>(),
        any::<u32>(),
    )
        .prop_map(move |(length, first, [b, c, d], id)| {
            let octets = usize::from(length.div_ceil(8));
            let id = id.to_be_bytes();
            let id = if path_ids { &id[..] } else { &[] };
            [id, &[length], &[first, b, c, d, 0][..octets]].concat()
        });
    // A prefix that is too long is rare: it ends the session.
    vec(one, 0..6).prop_map(|list| list.concat())
}

fn update_bytes(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let length = |field: &[u8]| u16::try_from(field.len()).unwrap().to_be_bytes();
    let body = [&length(withdrawn)[..], withdrawn, &length(attributes), attributes, nlri].concat();
    let total = u16::try_from(19 + body.len()).unwrap().to_be_bytes();
    [&[0xff; 16][..], &total, &[2], &body].concat()
}

/// The mandatory attributes, mostly, and others.
fn message(path_ids: bool) -> impl Strategy<Value = Vec<u8>> {
    let mandatory = [0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfc, 0, 0x40, 3, 4, 192, 0, 2, 1];
    let head = prop_oneof![4 => Just(mandatory.to_vec()), 1 => Just(Vec::new())];
    let attributes = (head, vec(attribute(), 0..6)).prop_map(|(head, list)| [head, list.concat()].concat());
    (nlri(path_ids), attributes, nlri(path_ids))
        .prop_map(|(withdrawn, attributes, nlri)| update_bytes(&withdrawn, &attributes, &nlri))
}

/// Changes a few octets behind the header.
fn mutated(path_ids: bool) -> impl Strategy<Value = Vec<u8>> {
    (message(path_ids), vec((any::<prop::sample::Index>(), any::<u8>()), 0..3)).prop_map(
        |(mut bytes, changes)| {
            for (index, value) in changes {
                let at = 19 + index.index(bytes.len() - 19);
                bytes[at] = value;
            }
            bytes
        },
    )
}

/// Attributes that the peers decode and we keep opaque: no word is spoken of them here.
fn only_common_attributes(update: &Update) -> bool {
    update.attributes.unknown.iter().all(|unknown| unknown.code == 99)
        && update.mp_reach.as_ref().is_none_or(|reach| reach.family().is_unicast())
        && update.mp_unreach.as_ref().is_none_or(|unreach| unreach.family().is_unicast())
}

/// Generated messages, the same ones in every run.
fn messages(count: usize) -> Vec<(bool, bool, Vec<u8>)> {
    let strategy = any::<(bool, bool)>()
        .prop_flat_map(|(add_path, internal)| (Just(add_path), Just(internal), mutated(add_path)));
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

#[test]
fn as_rustbgpd_but_for_known_differences() {
    let mut unexplained = Vec::new();
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    let mut equal = 0;
    for (add_path, internal, bytes) in messages(20_000) {
        let (outcome, result) = ours(&bytes, &session(internal, add_path));
        if !result.as_ref().map_or(true, only_common_attributes) {
            continue;
        }
        let peers = rustbgpd(&bytes, internal, add_path);
        if outcome == peers {
            equal += 1;
        } else if let Some(name) = known(&result, internal) {
            *named.entry(name).or_default() += 1;
        } else {
            unexplained.push(format!("{:02x?}\n  ours {result:?}\n  rustbgpd-wire {peers:?}", &bytes[19..]));
        }
    }
    println!("{equal} equal, {named:?}");
    assert!(
        unexplained.is_empty(),
        "{} differences, such as:\n{}",
        unexplained.len(),
        unexplained[..unexplained.len().min(8)].join("\n")
    );
    assert!(equal > 15_000, "only {equal} messages were judged the same");
}

#[test]
fn what_is_sound_is_read_by_netgauze_as_the_same() {
    let mut compared = 0;
    for (add_path, internal, bytes) in messages(20_000) {
        let (_, result) = ours(&bytes, &session(internal, add_path));
        let Ok(update) = result else { continue };
        let plain = update.mp_reach.is_none() && update.mp_unreach.is_none();
        if !plain || !update.errors.is_empty() || !only_common_attributes(&update) {
            continue;
        }
        // It refuses networks of class D and E, 0/8 and 127/8, and knows more attributes than we do. What it accepts,
        // it must have read as we did.
        if let Some((announced, withdrawn)) = netgauze(&bytes, add_path) {
            assert_eq!(announced, collect([&update.announced].into_iter()), "{bytes:02x?}");
            assert_eq!(withdrawn, collect([&update.withdrawn].into_iter()), "{bytes:02x?}");
            compared += 1;
        }
    }
    assert!(compared > 2_000, "only {compared} messages were compared");
}

/// The comparison would be empty if the peers refused everything.
#[test]
fn the_peers_read_a_plain_message() {
    let attributes = [0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfc, 0, 0x40, 3, 4, 192, 0, 2, 1];
    let bytes = update_bytes(&[8, 10], &attributes, &[24, 203, 0, 113, 32, 198, 51, 100, 7]);
    let (outcome, _) = ours(&bytes, &session(false, false));
    let set = |texts: &[&str]| texts.iter().map(|text| (0, text.parse().unwrap())).collect::<Prefixes>();
    let (announced, gone) = (set(&["203.0.113.0/24", "198.51.100.7/32"]), set(&["10.0.0.0/8"]));
    assert_eq!(outcome, Outcome::Routes { announced: announced.clone(), gone: gone.clone() });
    assert_eq!(rustbgpd(&bytes, false, false), outcome);
    assert_eq!(netgauze(&bytes, false), Some((announced, gone)));
}
