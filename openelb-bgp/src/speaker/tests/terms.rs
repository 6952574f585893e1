//! The terms of a session: what is sent to which kind of neighbour, and whom a connection belongs to.

use super::*;
use crate::wire::{AsPath, Capability, Open};

/// What a speaker answers to a neighbour whose OPEN this is.
fn answers(speaker: &mut Speaker, local: SocketAddr, remote: SocketAddr, open: Open) -> Vec<u8> {
    let now = *ORIGIN;
    while speaker.poll_output(now).is_some() {} // it would like to connect
    let info = ConnectionInfo { local, remote };
    let connection = speaker.accept(info, *ORIGIN).unwrap().connection;
    speaker.handle_connected(connection, info, now);
    let mut bytes = bytes::BytesMut::new();
    for message in [Message::Open(open), Message::Keepalive] {
        message.encode(&SessionContext::default(), &mut bytes).unwrap();
    }
    speaker.handle_bytes(connection, &bytes, now);
    let mut sent = Vec::new();
    while let Some(output) = speaker.poll_output(now) {
        if let Output::Send { connection: on, bytes } = output {
            assert_eq!(on, connection);
            sent.extend_from_slice(&bytes);
        }
    }
    sent
}

/// The messages of a stream.
fn messages(mut bytes: &[u8], context: &SessionContext) -> Vec<Message> {
    let mut all = Vec::new();
    while let Some(length) = frame(bytes, 4096).unwrap() {
        all.push(Message::decode(&bytes[..length], context).unwrap());
        bytes = &bytes[length..];
    }
    all
}

fn speaker_of(asn: u32, peer: PeerConfig) -> Speaker {
    let mut speaker = Speaker::new(SpeakerConfig::new(asn, ADDRESSES[0]), *ORIGIN).unwrap();
    speaker.set_peers(vec![peer], *ORIGIN).unwrap();
    speaker.set_routes("test", [route("198.51.100.1/32")], *ORIGIN);
    speaker
}

#[test]
fn a_neighbour_of_two_octet_as_numbers_gets_as_trans_and_as4_path() {
    let peer = PeerConfig::new("old", ADDRESSES[1].into(), 65001);
    let mut speaker = speaker_of(4_200_000_000, peer);
    let open = Open {
        version: 4,
        asn: 65001,
        hold_time: 30,
        router_id: ADDRESSES[1],
        capabilities: vec![Capability::Multiprotocol(Family::IPV4_UNICAST)],
    };
    let [local, remote] = [SocketAddr::new(ADDRESSES[0].into(), 179), (ADDRESSES[1], 50_000).into()];
    let sent = answers(&mut speaker, local, remote, open);
    // A two-octet neighbour keeps AS4_PATH as an attribute that it does not know.
    let on_the_wire = |needle: &[u8]| sent.windows(needle.len()).any(|window| window == needle);
    assert!(on_the_wire(&[0x40, 2, 4, 2, 1, 0x5b, 0xa0]), "AS_PATH 23456");
    assert!(on_the_wire(&[0xc0, 17, 6, 2, 1, 0xfa, 0x56, 0xea, 0x00]), "AS4_PATH 4200000000");
    let context = SessionContext { four_octet_as: false, ..SessionContext::default() };
    let messages = messages(&sent, &context);
    assert!(
        matches!(&messages[0], Message::Open(open) if open.asn == 23_456 && open.four_octet_asn() == 4_200_000_000)
    );
    let update = messages.iter().find_map(|message| match message {
        Message::Update(update) if !update.announced.is_empty() => Some(update),
        _ => None,
    });
    assert_eq!(update.unwrap().attributes.as_path, Some(AsPath::sequence([4_200_000_000])), "merged again");
}

#[test]
fn the_local_as_number_of_a_neighbour_is_in_the_open_and_in_as_path() {
    let mut peer = PeerConfig::new("other", ADDRESSES[1].into(), 65001);
    peer.local_asn = Some(64_999);
    let mut speaker = speaker_of(65_000, peer);
    let families = [Capability::Multiprotocol(Family::IPV4_UNICAST)];
    let open = Open::new(65_001, 30, ADDRESSES[1], families);
    let [local, remote] = [SocketAddr::new(ADDRESSES[0].into(), 179), (ADDRESSES[1], 50_000).into()];
    let sent = answers(&mut speaker, local, remote, open);
    let messages = messages(&sent, &SessionContext::default());
    assert!(matches!(&messages[0], Message::Open(open) if open.four_octet_asn() == 64_999));
    let paths: Vec<_> = messages
        .iter()
        .filter_map(|message| match message {
            Message::Update(update) => update.attributes.as_path.clone(),
            _ => None,
        })
        .collect();
    assert_eq!(paths, [AsPath::sequence([64_999])]);
}

#[test]
fn a_link_local_neighbour_is_known_by_its_interface_or_by_its_address_alone() {
    let address: IpAddr = "fe80::2".parse().unwrap();
    let from = |scope| ConnectionInfo {
        local: std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 179, 0, scope).into(),
        remote: std::net::SocketAddrV6::new("fe80::2".parse().unwrap(), 50_000, 0, scope).into(),
    };
    let mut first = PeerConfig::new("first", address, 65001);
    first.scope_id = 7;
    let second = PeerConfig { name: "second".into(), scope_id: 8, ..first.clone() };
    let bound = PeerConfig { name: "bound".into(), scope_id: 0, ..first.clone() };
    let mut speaker = Speaker::new(SpeakerConfig::new(65000, ADDRESSES[0]), *ORIGIN).unwrap();
    speaker.set_peers(vec![first, second], *ORIGIN).unwrap();
    assert_eq!(speaker.accept(from(8), *ORIGIN).unwrap().config.name.as_str(), "second");
    assert!(matches!(speaker.accept(from(9), *ORIGIN).unwrap_err(), Refusal::Unconfigured { .. }));
    speaker.set_peers(vec![bound], *ORIGIN).unwrap();
    assert_eq!(speaker.accept(from(9), *ORIGIN).unwrap().config.name.as_str(), "bound");
}

#[test]
fn a_neighbour_that_pauses_after_an_error_is_refused_at_once() {
    let mut peer = PeerConfig::new("other", ADDRESSES[1].into(), 65_001);
    peer.passive = true;
    let mut speaker = speaker_of(65_000, peer);
    let [local, remote] = [SocketAddr::new(ADDRESSES[0].into(), 179), (ADDRESSES[1], 50_000).into()];
    let info = ConnectionInfo { local, remote };
    let connection = speaker.accept(info, *ORIGIN).unwrap().connection;
    speaker.handle_connected(connection, info, *ORIGIN);
    speaker.handle_bytes(connection, b"GET / HTTP/1.1\r\n\r\n", *ORIGIN);
    while speaker.poll_output(*ORIGIN).is_some() {}
    assert!(matches!(speaker.accept(info, *ORIGIN).unwrap_err(), Refusal::Idle { .. }));
    speaker.handle_timeout(speaker.poll_timeout().expect("the end of the pause"));
    assert!(speaker.accept(info, *ORIGIN).is_ok());
}

#[test]
fn what_cannot_work_is_refused_as_configuration() {
    let good = PeerConfig::new("other", ADDRESSES[1].into(), 65_001);
    let mut twice = good.clone();
    twice.families.push(FamilyConfig::new(Family::IPV4_UNICAST));
    assert!(matches!(twice.validate(), Err(ConfigError::DuplicateFamily { .. })));
    let eager = PeerConfig { connect_retry: Duration::ZERO, ..good.clone() };
    assert!(matches!(eager.validate(), Err(ConfigError::ConnectRetry { .. })));
    let mapped =
        PeerConfig { name: "mapped".into(), address: ADDRESSES[1].to_ipv6_mapped().into(), ..good.clone() };
    assert_eq!(mapped.socket_address(), good.socket_address());
    let mut speaker = Speaker::new(SpeakerConfig::new(65_000, ADDRESSES[0]), *ORIGIN).unwrap();
    let error = speaker.set_peers(vec![good, mapped], *ORIGIN).unwrap_err();
    assert!(matches!(error, ConfigError::DuplicateAddress { .. }));
}
