//! Neighbour discovery: never a panic; a packet that was read is written and read again as the same; a responder answers
//! only for its addresses.
//!
//! The input is a frame as it is; and it is a frame whose checksum is put right first, without which nothing behind the
//! checksum would ever be reached.
#![no_main]

use std::net::{IpAddr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use openelb_l2::{
    MacAddr,
    responder::Responder,
    wire::{ethernet, ndp},
};

const OWN: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 1]);
const OWNED: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const IPV6: usize = ethernet::HEADER;
const ICMP: usize = IPV6 + 40;

/// RFC 4443 section 2.3, written once more.
fn put_right(frame: &mut [u8]) {
    if frame.len() < ICMP + 4 {
        return;
    }
    let length = usize::from(u16::from_be_bytes([frame[IPV6 + 4], frame[IPV6 + 5]]));
    let end = (ICMP + length).min(frame.len());
    if end < ICMP + 4 {
        return;
    }
    frame[ICMP + 2..ICMP + 4].fill(0);
    let words = |octets: &[u8]| -> u32 {
        octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
    };
    let mut sum = words(&frame[IPV6 + 8..end]) + u32::try_from(length).expect("16 bits") + 58;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).expect("16 bits");
    frame[ICMP + 2..ICMP + 4].copy_from_slice(&sum.to_be_bytes());
}

fn check(input: &[u8]) {
    let mut responder = Responder::new(OWN);
    responder.insert(OWNED.into(), OWN);
    let heard = responder.handle(input);
    let packet = ethernet::Header::decode(input)
        .ok()
        .filter(|(header, _)| header.ethertype == ethernet::ETHERTYPE_IPV6)
        .and_then(|(header, payload)| Some((header, ndp::Packet::decode(payload).ok()?)));
    let Some((header, packet)) = packet else {
        // ARP is another target's; it cannot ask for this.
        assert!(heard.is_err() || heard.is_ok_and(|heard| heard.reply.is_none()));
        return;
    };
    let frame = packet.to_frame(header.source, header.destination);
    let (_, payload) = ethernet::Header::decode(&frame).expect("it was written");
    assert_eq!(ndp::Packet::decode(payload), Ok(packet));
    let Ok(heard) = heard else { return };
    if let Some(claim) = heard.claim {
        let ndp::Message::Advertisement(advertisement) = packet.message else { panic!("{packet:?}") };
        assert_eq!(claim.address, IpAddr::V6(advertisement.target));
        assert!(claim.mac != OWN && claim.mac.is_unicast());
    }
    let Some(reply) = heard.reply else { return };
    let ndp::Message::Solicitation(solicitation) = packet.message else { panic!("{packet:?}") };
    assert_eq!(solicitation.target, OWNED);
    let (header, payload) = ethernet::Header::decode(&reply).expect("it was written");
    let reply = ndp::Packet::decode(payload).expect("a valid answer");
    assert_eq!((header.source, reply.source), (OWN, OWNED));
    let ndp::Message::Advertisement(advertisement) = reply.message else { panic!("{reply:?}") };
    assert_eq!((advertisement.target, advertisement.target_mac), (OWNED, Some(OWN)));
    assert_eq!(advertisement.solicited, !packet.source.is_unspecified(), "RFC 4861 section 7.2.4");
    assert_eq!(header.destination.is_unicast(), advertisement.solicited);
}

fuzz_target!(|input: &[u8]| {
    check(input);
    let mut frame = input.to_vec();
    put_right(&mut frame);
    check(&frame);
});
