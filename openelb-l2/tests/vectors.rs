//! Frames as others sent them, captured with tcpdump on a veth pair: both ways where this crate sends the like.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::net::{Ipv4Addr, Ipv6Addr};

use openelb_l2::{
    MacAddr, announcer,
    responder::Responder,
    solicited_node_multicast,
    wire::{Frame, arp, ethernet, ndp},
};

const A: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 0xa]);
const B: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 0xb]);
const NOBODY: MacAddr = MacAddr::new([0; 6]);
const A4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const B4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
const LOCAL_A: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 0xa);

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(|c| !c.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&String::from_iter(pair), 16).unwrap()).collect()
}

fn both_ways(captured: &[u8], made: &Frame) {
    assert_eq!(made.as_bytes(), captured, "{made:?}");
}

const fn packet(
    operation: arp::Operation,
    sender: (MacAddr, Ipv4Addr),
    target: (MacAddr, Ipv4Addr),
) -> arp::Packet {
    arp::Packet {
        operation,
        sender_mac: sender.0,
        sender_ip: sender.1,
        target_mac: target.0,
        target_ip: target.1,
    }
}

#[test]
fn arp_of_linux_6_18_arping_20221126_and_keepalived_2_2_7() {
    use arp::Operation::{Reply, Request};
    let all = MacAddr::BROADCAST;
    // What, the frame, its destination, its content.
    let cases = [
        (
            "Linux asks",
            "ffffffffffff02000000000a0806 000108000604000102000000000ac0000201000000000000c0000202",
            all,
            packet(Request, (A, A4), (NOBODY, B4)),
        ),
        (
            "Linux answers",
            "02000000000a02000000000b0806 000108000604000202000000000bc000020202000000000ac0000201",
            A,
            packet(Reply, (B, B4), (A, A4)),
        ),
        (
            "Linux asks again, by unicast",
            "02000000000a02000000000b0806 000108000604000102000000000bc0000202000000000000c0000201",
            A,
            packet(Request, (B, B4), (NOBODY, A4)),
        ),
        (
            "arping -D: a probe that names the broadcast address as target",
            "ffffffffffff02000000000a0806 000108000604000102000000000a00000000ffffffffffffc0000202",
            all,
            packet(Request, (A, Ipv4Addr::UNSPECIFIED), (all, B4)),
        ),
        (
            "Linux answers a probe",
            "02000000000a02000000000b0806 000108000604000202000000000bc000020202000000000a00000000",
            A,
            packet(Reply, (B, B4), (A, Ipv4Addr::UNSPECIFIED)),
        ),
        (
            "arping -U",
            "ffffffffffff02000000000a0806 000108000604000102000000000ac0000201ffffffffffffc0000201",
            all,
            packet(Request, (A, A4), (all, A4)),
        ),
        (
            "arping -A",
            "ffffffffffff02000000000a0806 000108000604000202000000000ac000020102000000000ac0000201",
            all,
            packet(Reply, (A, A4), (A, A4)),
        ),
        (
            "keepalived becomes master",
            "ffffffffffff02000000000a0806 000108000604000102000000000ac0000264ffffffffffffc0000264",
            all,
            packet(Request, (A, VIP4), (all, VIP4)),
        ),
    ];
    for (what, hex, destination, expected) in cases {
        let captured = octets(hex);
        let (header, payload) = ethernet::Header::decode(&captured).unwrap();
        assert_eq!(arp::Packet::decode(payload), Ok(expected), "{what}");
        both_ways(&captured, &expected.to_frame(header.source, destination));
    }
}

#[test]
fn the_answer_is_that_of_linux_and_the_announcement_that_of_arping() {
    let mut responder = Responder::new(B);
    responder.insert(B4.into(), B);
    responder.insert(B6.into(), B);
    let cases = [
        (
            "ffffffffffff02000000000a0806 000108000604000102000000000ac0000201000000000000c0000202",
            "02000000000a02000000000b0806 000108000604000202000000000bc000020202000000000ac0000201",
        ),
        (
            "ffffffffffff02000000000a0806 000108000604000102000000000a00000000ffffffffffffc0000202",
            "02000000000a02000000000b0806 000108000604000202000000000bc000020202000000000a00000000",
        ),
        (
            "3333ff000002 02000000000a86dd 6000000000203aff 20010db8000000000000000000000001
             ff0200000000000000000001ff000002 87001c1e00000000 20010db8000000000000000000000002 010102000000000a",
            "02000000000a 02000000000b86dd 6000000000203aff 20010db8000000000000000000000002
             20010db8000000000000000000000001 88008a6860000000 20010db8000000000000000000000002 020102000000000b",
        ),
    ];
    for (question, answer) in cases {
        let reply = responder.handle(&octets(question)).unwrap().reply.unwrap();
        both_ways(&octets(answer), &reply);
    }
    let [_, reply] = &announcer::announcement(A4.into(), A).collect::<Vec<_>>()[..] else {
        panic!("two forms")
    };
    both_ways(
        &octets("ffffffffffff02000000000a0806000108000604000202000000000ac000020102000000000ac0000201"),
        reply,
    );
    let [advertisement] = &announcer::announcement(VIP6.into(), A).collect::<Vec<_>>()[..] else {
        panic!("one form")
    };
    // keepalived, as master of 2001:db8::100.
    let captured = "333300000001 02000000000a86dd 6000000000203aff 20010db8000000000000000000000100
                    ff020000000000000000000000000001 8800f72320000000 20010db8000000000000000000000100 020102000000000a";
    both_ways(&octets(captured), advertisement);
}

#[test]
fn neighbour_discovery_of_linux_6_18_and_ndisc6_1_0_5() {
    let solicitation =
        |target, source_mac| ndp::Message::Solicitation(ndp::Solicitation { target, source_mac });
    let advertisement = |target, target_mac, override_| {
        let (router, solicited) = (false, true);
        ndp::Message::Advertisement(ndp::Advertisement { target, target_mac, router, solicited, override_ })
    };
    let group = solicited_node_multicast(B6);
    // What, the frame, source, destination, message, whether this crate would write the very same.
    let cases = [
        (
            "Linux looks for a duplicate, with a nonce (RFC 7527)",
            "3333ff000002 02000000000b86dd 6000000000203aff 00000000000000000000000000000000
             ff0200000000000000000001ff000002 87004bd400000000 20010db8000000000000000000000002 0e019f76319e21f9",
            Ipv6Addr::UNSPECIFIED,
            group,
            solicitation(B6, None),
            false,
        ),
        (
            "Linux asks",
            "3333ff000002 02000000000a86dd 6000000000203aff 20010db8000000000000000000000001
             ff0200000000000000000001ff000002 87001c1e00000000 20010db8000000000000000000000002 010102000000000a",
            A6,
            group,
            solicitation(B6, Some(A)),
            true,
        ),
        (
            "Linux answers",
            "02000000000a 02000000000b86dd 6000000000203aff 20010db8000000000000000000000002
             20010db8000000000000000000000001 88008a6860000000 20010db8000000000000000000000002 020102000000000b",
            B6,
            A6,
            advertisement(B6, Some(B), true),
            true,
        ),
        (
            "Linux asks again, by unicast",
            "02000000000b 02000000000a86dd 6000000000203aff fe80000000000000000000fffe00000a
             20010db8000000000000000000000002 87001c9900000000 20010db8000000000000000000000002 010102000000000a",
            LOCAL_A,
            B6,
            solicitation(B6, Some(A)),
            true,
        ),
        (
            "Linux answers that, without its link-layer address",
            "02000000000a 02000000000b86dd 6000000000183aff 20010db8000000000000000000000002
             fe80000000000000000000fffe00000a 8800deab40000000 20010db8000000000000000000000002",
            B6,
            LOCAL_A,
            advertisement(B6, None, false),
            true,
        ),
        (
            "ndisc6 asks, with a flow label",
            "3333ff000002 02000000000a86dd 600ad51d00203aff fe80000000000000000000fffe00000a
             ff0200000000000000000001ff000002 87004c4d00000000 20010db8000000000000000000000002 010102000000000a",
            LOCAL_A,
            group,
            solicitation(B6, Some(A)),
            false,
        ),
    ];
    for (what, hex, source, destination, message, same) in cases {
        let captured = octets(hex);
        let (header, payload) = ethernet::Header::decode(&captured).unwrap();
        let expected = ndp::Packet { source, destination, message };
        assert_eq!(ndp::Packet::decode(payload), Ok(expected), "{what}");
        if same {
            both_ways(&captured, &expected.to_frame(header.source, header.destination));
        }
    }
}
