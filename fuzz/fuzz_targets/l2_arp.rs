//! An Ethernet frame: never a panic; an ARP packet that was read is written and read again as the same; a responder
//! answers only for its addresses, to whoever asked.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use openelb_l2::{
    MacAddr,
    responder::Responder,
    wire::{arp, ethernet},
};

const OWN: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 1]);
const OTHER: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 2]);

fuzz_target!(|input: &[u8]| {
    let mut responder = Responder::new(OWN);
    let owned = Ipv4Addr::new(192, 0, 2, 10);
    let stood_in = Ipv4Addr::new(192, 0, 2, 11);
    responder.insert(owned.into(), OWN);
    responder.insert(stood_in.into(), OTHER);
    let heard = responder.handle(input);
    let packet = ethernet::Header::decode(input)
        .ok()
        .filter(|(header, _)| header.ethertype == ethernet::ETHERTYPE_ARP)
        .and_then(|(header, payload)| Some((header, arp::Packet::decode(payload).ok()?)));
    let Some((header, packet)) = packet else {
        // Neighbour discovery is another target's; it cannot ask for these.
        assert!(heard.is_err() || heard.is_ok_and(|heard| heard.reply.is_none()));
        return;
    };
    let frame = packet.to_frame(header.source, header.destination);
    let (again, payload) = ethernet::Header::decode(&frame).expect("it was written");
    assert_eq!((again.source, again.destination), (header.source, header.destination));
    assert_eq!(arp::Packet::decode(payload), Ok(packet));
    let Ok(heard) = heard else { return };
    if let Some(claim) = heard.claim {
        assert_eq!((claim.address, claim.mac), (IpAddr::V4(packet.sender_ip), packet.sender_mac));
        assert!(claim.mac != OWN && claim.mac.is_unicast());
    }
    let Some(reply) = heard.reply else { return };
    let (header, payload) = ethernet::Header::decode(&reply).expect("it was written");
    assert_eq!(
        (header.source, header.destination),
        (OWN, packet.sender_mac),
        "no switch learns a wrong port"
    );
    let reply = arp::Packet::decode(payload).expect("it was written");
    assert_eq!(packet.operation, arp::Operation::Request);
    assert_eq!(reply.operation, arp::Operation::Reply);
    assert_eq!((reply.sender_ip, reply.target_ip), (packet.target_ip, packet.sender_ip));
    let mac = if packet.target_ip == owned { OWN } else { OTHER };
    assert!(packet.target_ip == owned || packet.target_ip == stood_in);
    assert_eq!(reply.sender_mac, mac);
});
