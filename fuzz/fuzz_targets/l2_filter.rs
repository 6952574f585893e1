//! Addresses, a limit and a frame: the kernel would take the program, it stays below the limit, lets every frame through
//! that the responder would answer or learn from, and, unless it had to be made shorter, no foreign one.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use openelb_l2::{
    MacAddr,
    net::filter::{self, Instruction, MAX_INSTRUCTIONS},
    responder::Responder,
    wire::ethernet,
};

const OWN: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 1]);
/// What one range of IPv6 addresses takes at most.
const SHORTEST: usize = 128;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// First address and how many follow it.
    v4: Vec<(u32, u8)>,
    v6: Vec<(u128, u8)>,
    limit: u16,
    frame: &'a [u8],
}

/// The rules of the kernel's checker (`bpf_check_classic`) that a program of these instructions can break.
fn check(program: &[Instruction], limit: usize) {
    assert!(program.len() <= limit.clamp(SHORTEST, MAX_INSTRUCTIONS), "{} of {limit}", program.len());
    assert_eq!(program.last().map(|last| last.code), Some(0x06), "it ends with a return");
    for (at, instruction) in program.iter().enumerate() {
        let rest = program.len() - at - 1;
        match instruction.code {
            0x20 | 0x28 | 0x30 | 0x06 => {}
            0x05 => assert!((instruction.k as usize) < rest, "a jump out of the program"),
            0x15 | 0x25 | 0x35 | 0x45 => {
                assert!(usize::from(instruction.jt.max(instruction.jf)) < rest, "a branch out of it");
            }
            other => panic!("{other:#x} is no operation"),
        }
    }
}

/// What the kernel does: whether a frame of this packet type and of no VLAN comes through.
fn passes(program: &[Instruction], frame: &[u8], packet_type: u32) -> bool {
    let (mut at, mut a) = (0, 0_u32);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let width = match code {
            0x20 => 4,
            0x28 => 2,
            _ => 1,
        };
        let holds = match code {
            0x20 | 0x28 | 0x30 => {
                a = match k {
                    0xffff_f004 => packet_type,
                    0xffff_f02c => 0,
                    _ => match frame.get(k as usize..k as usize + width) {
                        Some(octets) => octets.iter().fold(0, |a, octet| a << 8 | u32::from(*octet)),
                        None => return false,
                    },
                };
                continue;
            }
            0x05 => {
                at += k as usize;
                continue;
            }
            0x15 => a == k,
            0x25 => a > k,
            0x35 => a >= k,
            0x45 => a & k != 0,
            _ => return k > 0,
        };
        at += usize::from(if holds { jt } else { jf });
    }
}

fuzz_target!(|input: Input<'_>| {
    let spread = |count: u8| 0..=u32::from(count % 16);
    let v4: Vec<Ipv4Addr> = (input.v4.iter())
        .flat_map(|(first, count)| spread(*count).map(|n| first.wrapping_add(n).into()))
        .collect();
    let v6: Vec<Ipv6Addr> = (input.v6.iter())
        .flat_map(|(first, count)| spread(*count).map(|n| first.wrapping_add(n.into()).into()))
        .collect();
    let limit = usize::from(input.limit);
    let Ok((header, _)) = ethernet::Header::decode(input.frame) else { return };
    let (program, exact) = match header.ethertype {
        ethernet::ETHERTYPE_ARP => {
            (filter::arp(v4.clone(), limit), filter::arp(v4.clone(), MAX_INSTRUCTIONS))
        }
        ethernet::ETHERTYPE_IPV6 => {
            (filter::ndp(v6.clone(), limit), filter::ndp(v6.clone(), MAX_INSTRUCTIONS))
        }
        _ => return,
    };
    check(&program, limit);
    check(&exact, MAX_INSTRUCTIONS);

    let mut responder = Responder::new(OWN);
    for address in v4.iter().copied().map(IpAddr::V4).chain(v6.iter().copied().map(IpAddr::V6)) {
        responder.insert(address, OWN);
    }
    let holds = |address: IpAddr| match address {
        IpAddr::V4(address) => v4.contains(&address),
        IpAddr::V6(address) => v6.contains(&address),
    };
    let packet_type = match header.destination {
        OWN => 0,
        all if all.is_broadcast() => 1,
        group if !group.is_unicast() => 2,
        _ => 3,
    };
    let Ok(heard) = responder.handle(input.frame) else { return };
    let of_ours = |claim: &openelb_l2::responder::Claim| holds(claim.address);
    let concerns = heard.reply.is_some()
        || heard.claim.as_ref().is_some_and(of_ours)
        || heard.probe.as_ref().is_some_and(of_ours);
    // A switch that floods shows frames to others; whoever answers those answers for them.
    if concerns && packet_type != 3 {
        assert!(passes(&program, input.frame, packet_type), "{heard:?} was not let through");
        assert!(passes(&exact, input.frame, packet_type), "{heard:?} was not let through");
    }
    if passes(&exact, input.frame, packet_type) {
        assert!(passes(&program, input.frame, packet_type), "what is shorter is more generous");
    }
});
