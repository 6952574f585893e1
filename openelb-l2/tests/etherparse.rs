//! Encoder and decoder beside those of `etherparse`, an implementation by others.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Icmpv6Type, LinkSlice, NetSlice, PacketBuilder,
    SlicedPacket, TransportSlice,
};
use openelb_l2::{
    MacAddr, solicited_node_multicast,
    wire::{Frame, arp, ethernet, ndp},
};
use proptest::prelude::*;

fn macs() -> impl Strategy<Value = MacAddr> {
    any::<[u8; 6]>().prop_map(MacAddr::new)
}

fn packets() -> impl Strategy<Value = arp::Packet> {
    (any::<bool>(), macs(), any::<u32>(), macs(), any::<u32>()).prop_map(
        |(request, sender_mac, s, target_mac, t)| {
            let operation = if request { arp::Operation::Request } else { arp::Operation::Reply };
            let (sender_ip, target_ip) = (Ipv4Addr::from_bits(s), Ipv4Addr::from_bits(t));
            arp::Packet { operation, sender_mac, sender_ip, target_mac, target_ip }
        },
    )
}

fn unicast() -> impl Strategy<Value = Ipv6Addr> {
    any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits >> 8 | 0x20 << 120))
}

fn theirs(packet: arp::Packet) -> ArpPacket {
    let operation = match packet.operation {
        arp::Operation::Request => ArpOperation::REQUEST,
        arp::Operation::Reply => ArpOperation::REPLY,
    };
    ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        operation,
        &packet.sender_mac.octets(),
        &packet.sender_ip.octets(),
        &packet.target_mac.octets(),
        &packet.target_ip.octets(),
    )
    .unwrap()
}

fn link(sliced: &SlicedPacket<'_>) -> (MacAddr, MacAddr) {
    let Some(LinkSlice::Ethernet2(ethernet)) = &sliced.link else { panic!("no Ethernet: {sliced:?}") };
    (MacAddr::new(ethernet.source()), MacAddr::new(ethernet.destination()))
}

/// Type, the four octets behind the checksum, and the rest, as etherparse sees them. It checks the checksum.
fn icmpv6(frame: &Frame) -> (Ipv6Addr, Ipv6Addr, u8, Vec<u8>) {
    let sliced = SlicedPacket::from_ethernet(frame.as_bytes()).unwrap();
    let Some(NetSlice::Ipv6(ip)) = &sliced.net else { panic!("no IPv6: {sliced:?}") };
    let Some(TransportSlice::Icmpv6(icmp)) = &sliced.transport else { panic!("no ICMPv6: {sliced:?}") };
    let header = ip.header();
    assert_eq!(header.hop_limit(), 255);
    assert!(icmp.is_checksum_valid(header.source(), header.destination()), "{frame:?}");
    let body = icmp.slice().iter().skip(4).copied().collect();
    (header.source_addr(), header.destination_addr(), icmp.type_u8(), body)
}

proptest! {
    #[test]
    fn etherparse_reads_the_arp_that_we_write(packet in packets(), source in macs(), destination in macs()) {
        let frame = packet.to_frame(source, destination);
        let sliced = SlicedPacket::from_ethernet(frame.as_bytes()).unwrap();
        prop_assert_eq!(link(&sliced), (source, destination));
        let Some(NetSlice::Arp(read)) = &sliced.net else { panic!("no ARP: {sliced:?}") };
        prop_assert_eq!(read.to_packet(), theirs(packet));
    }

    #[test]
    fn we_read_the_arp_that_etherparse_writes(packet in packets(), padding in 0_usize..20) {
        let mut octets = theirs(packet).to_bytes().to_vec();
        octets.extend(vec![0; padding]);
        prop_assert_eq!(arp::Packet::decode(&octets), Ok(packet));
    }

    #[test]
    fn etherparse_reads_the_solicitation_that_we_write(
        source in unicast(), target in unicast(), from in macs(), named in any::<bool>(), group in any::<bool>(),
    ) {
        let destination = if group { solicited_node_multicast(target) } else { target };
        let message = ndp::Message::Solicitation(ndp::Solicitation { target, source_mac: named.then_some(from) });
        let frame = ndp::Packet { source, destination, message }.to_frame(from, MacAddr::BROADCAST);
        let mut body = vec![0; 4];
        body.extend(target.octets());
        if named {
            body.extend([1, 1]);
            body.extend(from.octets());
        }
        prop_assert_eq!(icmpv6(&frame), (source, destination, 135, body));
    }

    #[test]
    fn etherparse_reads_the_advertisement_that_we_write(
        source in unicast(), destination in unicast(), mac in macs(), flags in any::<[bool; 4]>(),
    ) {
        let [router, solicited, override_, named] = flags;
        let target_mac = named.then_some(mac);
        let advertisement = ndp::Advertisement { target: source, target_mac, router, solicited, override_ };
        let message = ndp::Message::Advertisement(advertisement);
        let frame = ndp::Packet { source, destination, message }.to_frame(mac, MacAddr::BROADCAST);
        let bits = u8::from(router) << 7 | u8::from(solicited) << 6 | u8::from(override_) << 5;
        let mut body = vec![bits, 0, 0, 0];
        body.extend(source.octets());
        if named {
            body.extend([2, 1]);
            body.extend(mac.octets());
        }
        prop_assert_eq!(icmpv6(&frame), (source, destination, 136, body));
    }

    #[test]
    fn we_read_the_neighbour_discovery_that_etherparse_writes(
        source in unicast(), target in unicast(), mac in macs(), kind in 135_u8..=136, bits in 0_u8..8, named in any::<bool>(),
    ) {
        let destination = if kind == 135 { solicited_node_multicast(target) } else { source };
        let mut payload = target.octets().to_vec();
        if named {
            // An option that nobody knows first (RFC 4861 section 4.6: to be skipped), then the address.
            payload.extend([200, 1, 1, 2, 3, 4, 5, 6]);
            payload.extend([kind - 134, 1]);
            payload.extend(mac.octets());
        }
        let unknown = Icmpv6Type::Unknown { type_u8: kind, code_u8: 0, bytes5to8: [bits << 5, 0, 0, 0] };
        let mut octets = Vec::new();
        PacketBuilder::ethernet2([2; 6], [3; 6])
            .ipv6(source.octets(), destination.octets(), 255)
            .icmpv6(unknown)
            .write(&mut octets, &payload)
            .unwrap();
        let (header, body) = ethernet::Header::decode(&octets).unwrap();
        prop_assert_eq!(header.source, MacAddr::new([2; 6]));
        let read = ndp::Packet::decode(body).unwrap();
        prop_assert_eq!((read.source, read.destination), (source, destination));
        let named = named.then_some(mac);
        match read.message {
            ndp::Message::Solicitation(one) => {
                prop_assert_eq!((kind, one.target, one.source_mac), (135, target, named));
            }
            ndp::Message::Advertisement(one) => {
                prop_assert_eq!((kind, one.target, one.target_mac), (136, target, named));
                let flags = u8::from(one.router) << 2 | u8::from(one.solicited) << 1 | u8::from(one.override_);
                prop_assert_eq!(flags, bits);
            }
        }
    }
}
