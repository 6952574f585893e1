use super::*;
use std::net::Ipv4Addr;

const OURS: MacAddr = MacAddr::new([0x52, 0x54, 0, 0, 0, 1]);
const OWNER: MacAddr = MacAddr::new([0x52, 0x54, 0, 0, 0, 3]);
const CLIENT: MacAddr = MacAddr::new([0x52, 0x54, 0, 0, 0, 2]);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99);

fn responder(mac: MacAddr) -> Responder {
    let mut responder = Responder::new(OURS);
    responder.insert(VIP.into(), mac);
    responder.insert(VIP6.into(), mac);
    responder
}

fn request(sender: Ipv4Addr, target: Ipv4Addr) -> arp::Packet {
    arp::Packet {
        operation: arp::Operation::Request,
        sender_mac: CLIENT,
        sender_ip: sender,
        target_mac: MacAddr::default(),
        target_ip: target,
    }
}

fn arp_reply(responder: &Responder, frame: &[u8]) -> Option<(ethernet::Header, arp::Packet)> {
    let reply = responder.handle(frame).unwrap().reply?;
    let (header, payload) = ethernet::Header::decode(&reply).unwrap();
    Some((header, arp::Packet::decode(payload).unwrap()))
}

fn solicitation(source: Ipv6Addr, destination: Ipv6Addr, to: MacAddr, option: bool) -> Frame {
    let message =
        ndp::Message::Solicitation(ndp::Solicitation { target: VIP6, source_mac: option.then_some(CLIENT) });
    ndp::Packet { source, destination, message }.to_frame(CLIENT, to)
}

fn advertisement(
    responder: &Responder,
    frame: &[u8],
) -> Option<(ethernet::Header, ndp::Packet, ndp::Advertisement)> {
    let reply = responder.handle(frame).unwrap().reply?;
    let (header, payload) = ethernet::Header::decode(&reply).unwrap();
    let packet = ndp::Packet::decode(payload).unwrap();
    let ndp::Message::Advertisement(advertisement) = packet.message else { panic!("no advertisement") };
    Some((header, packet, advertisement))
}

#[test]
fn a_request_is_answered_to_the_one_who_asks() {
    let asks = request(Ipv4Addr::new(192, 0, 2, 1), VIP);
    for destination in [MacAddr::BROADCAST, OURS] {
        let (header, reply) = arp_reply(&responder(OURS), &asks.to_frame(CLIENT, destination)).unwrap();
        assert_eq!((header.source, header.destination), (OURS, CLIENT));
        assert_eq!(reply, asks.reply(OURS));
        assert_eq!((reply.sender_ip, reply.target_mac), (VIP, CLIENT));
    }
}

#[test]
fn what_is_not_for_us_is_not_answered() {
    let asks = request(Ipv4Addr::new(192, 0, 2, 1), VIP);
    let other = MacAddr::new([0x52, 0x54, 0, 0, 0, 9]);
    assert!(arp_reply(&responder(OURS), &asks.to_frame(CLIENT, other)).is_none(), "another station");
    let foreign = request(Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 11));
    assert!(
        arp_reply(&responder(OURS), &foreign.to_frame(CLIENT, MacAddr::BROADCAST)).is_none(),
        "another address"
    );
    let announcement = arp::Packet::announcement(arp::Operation::Request, VIP, CLIENT);
    assert!(arp_reply(&responder(OURS), &announcement.to_frame(CLIENT, MacAddr::BROADCAST)).is_none());
    let group = MacAddr::new([0x01, 0, 0x5e, 0, 0, 1]);
    assert!(arp_reply(&responder(OURS), &asks.to_frame(CLIENT, group)).is_none(), "some group");
}

#[test]
fn a_probe_is_answered() {
    let probe = arp::Packet::probe(VIP, CLIENT).to_frame(CLIENT, MacAddr::BROADCAST);
    let heard = responder(OURS).handle(&probe).unwrap();
    assert_eq!(heard.claim, None, "a probe claims nothing");
    let (_, reply) = arp_reply(&responder(OURS), &probe).unwrap();
    assert_eq!((reply.sender_ip, reply.target_ip), (VIP, Ipv4Addr::UNSPECIFIED));
}

/// Switches look in that way after the stations that they know.
#[test]
fn a_probe_to_this_station_alone_is_answered_and_asks_for_no_free_address() {
    let group = solicited_node_multicast(VIP6);
    let all = MacAddr::ipv6_multicast(group);
    for (destination, asks) in [(MacAddr::BROADCAST, true), (OURS, false)] {
        let heard =
            responder(OURS).handle(&arp::Packet::probe(VIP, CLIENT).to_frame(CLIENT, destination)).unwrap();
        assert_eq!((heard.reply.is_some(), heard.probe.is_some()), (true, asks));
    }
    for (destination, asks) in [(all, true), (OURS, false)] {
        let heard =
            responder(OURS).handle(&solicitation(Ipv6Addr::UNSPECIFIED, group, destination, false)).unwrap();
        assert_eq!((heard.reply.is_some(), heard.probe.is_some()), (true, asks));
    }
}

#[test]
fn a_stand_in_names_the_owner_but_sends_as_itself() {
    let asks = request(Ipv4Addr::new(192, 0, 2, 1), VIP).to_frame(CLIENT, MacAddr::BROADCAST);
    let (header, reply) = arp_reply(&responder(OWNER), &asks).unwrap();
    assert_eq!((header.source, reply.sender_mac), (OURS, OWNER));
    let group = solicited_node_multicast(VIP6);
    let asks = solicitation(CLIENT6, group, MacAddr::ipv6_multicast(group), true);
    let (header, _, reply) = advertisement(&responder(OWNER), &asks).unwrap();
    assert_eq!((header.source, reply.target_mac), (OURS, Some(OWNER)));
}

#[test]
fn solicitations_to_the_group_and_to_us_with_and_without_option() {
    let group = solicited_node_multicast(VIP6);
    for (destination, to) in [(group, MacAddr::ipv6_multicast(group)), (VIP6, OURS)] {
        for option in [true, false] {
            let asks = solicitation(CLIENT6, destination, to, option);
            let (header, packet, reply) = advertisement(&responder(OURS), &asks).unwrap();
            assert_eq!((header.source, header.destination), (OURS, CLIENT));
            assert_eq!((packet.source, packet.destination), (VIP6, CLIENT6));
            assert_eq!(
                reply,
                ndp::Advertisement {
                    target: VIP6,
                    target_mac: Some(OURS),
                    router: false,
                    solicited: true,
                    override_: true
                }
            );
        }
    }
    let other = MacAddr::new([0x52, 0x54, 0, 0, 0, 9]);
    assert!(advertisement(&responder(OURS), &solicitation(CLIENT6, VIP6, other, true)).is_none());
}

#[test]
fn duplicate_address_detection_is_answered_to_all_nodes() {
    let group = solicited_node_multicast(VIP6);
    let asks = solicitation(Ipv6Addr::UNSPECIFIED, group, MacAddr::ipv6_multicast(group), false);
    let (header, packet, reply) = advertisement(&responder(OURS), &asks).unwrap();
    assert_eq!(header.destination, MacAddr::ipv6_multicast(ndp::ALL_NODES));
    assert_eq!(packet.destination, ndp::ALL_NODES);
    assert!(!reply.solicited && reply.override_);
}

#[test]
fn claims_of_others_are_told() {
    let responder = responder(OURS);
    let claim = Some(Claim { address: VIP.into(), mac: CLIENT });
    for operation in [arp::Operation::Request, arp::Operation::Reply] {
        let frame = arp::Packet::announcement(operation, VIP, CLIENT).to_frame(CLIENT, MacAddr::BROADCAST);
        assert_eq!(responder.handle(&frame).unwrap(), Heard { claim, ..Heard::default() });
    }
    let own = arp::Packet::announcement(arp::Operation::Reply, VIP, OURS).to_frame(OURS, MacAddr::BROADCAST);
    assert_eq!(responder.handle(&own).unwrap(), Heard::default());
    let message = ndp::Message::Advertisement(ndp::Advertisement {
        target: VIP6,
        target_mac: None,
        router: false,
        solicited: false,
        override_: true,
    });
    let frame = ndp::Packet { source: CLIENT6, destination: ndp::ALL_NODES, message }
        .to_frame(CLIENT, MacAddr::ipv6_multicast(ndp::ALL_NODES));
    assert_eq!(responder.handle(&frame).unwrap().claim, Some(Claim { address: VIP6.into(), mac: CLIENT }));
}

#[test]
fn a_group_is_left_with_its_last_address() {
    let mut responder = Responder::new(OURS);
    let one: Ipv6Addr = "2001:db8::1:2:3456".parse().unwrap();
    let two: Ipv6Addr = "fd00::ffff:aa02:3456".parse().unwrap();
    let group = solicited_node_multicast(one);
    assert_eq!(group, solicited_node_multicast(two));
    responder.insert(one.into(), OURS);
    responder.insert(one.into(), OWNER);
    responder.insert(two.into(), OURS);
    assert_eq!(responder.poll_group(), Some(GroupChange::Join(group)));
    responder.remove(one.into());
    responder.remove(one.into());
    assert_eq!(responder.poll_group(), None);
    responder.remove(two.into());
    assert_eq!(responder.poll_group(), Some(GroupChange::Leave(group)));
    assert_eq!(responder.poll_group(), None);
}
