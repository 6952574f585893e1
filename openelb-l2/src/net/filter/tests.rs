use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// What the kernel does with a frame of this packet type and VLAN tag: how many octets come through.
fn run(program: &[Instruction], frame: &[u8], packet_type: u32, vlan: u32) -> u32 {
    let (mut at, mut a) = (0, 0_u32);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let load = |length: usize| {
            let start = usize::try_from(k).unwrap();
            frame
                .get(start..start + length)
                .map(|octets| octets.iter().fold(0, |a, o| a << 8 | u32::from(*o)))
        };
        let mut branch = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match code {
            LOAD_WORD | LOAD_HALF | LOAD_BYTE => {
                a = match k {
                    PACKET_TYPE => packet_type,
                    VLAN_TAG => vlan,
                    _ => match load(match code {
                        LOAD_WORD => 4,
                        LOAD_HALF => 2,
                        _ => 1,
                    }) {
                        Some(value) => value,
                        None => return 0,
                    },
                }
            }
            JUMP => at += usize::try_from(k).unwrap(),
            JUMP_EQUAL => branch(a == k),
            JUMP_ABOVE => branch(a > k),
            JUMP_AT_LEAST => branch(a >= k),
            JUMP_ANY_BIT => branch(a & k != 0),
            RETURN => return k,
            other => panic!("{other:#x} is no operation"),
        }
    }
}

fn arp_frame(operation: u8, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0; 42];
    frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame[28..32].copy_from_slice(&sender.octets());
    frame[38..42].copy_from_slice(&target.octets());
    frame
}

fn ndp_frame(kind: u8, target: Ipv6Addr) -> Vec<u8> {
    let mut frame = vec![0; 86];
    frame[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
    (frame[20], frame[21], frame[54]) = (58, 255, kind);
    frame[62..78].copy_from_slice(&target.octets());
    frame
}

const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

#[test]
fn arp_by_sender_target_and_destination() {
    let program = arp([OURS], MAX_INSTRUCTIONS);
    for (operation, sender, target, packet_type, vlan, passes, what) in [
        (1, OTHER, OURS, 1, 0, true, "a request to all"),
        (1, OTHER, OURS, 0, 0, true, "a request to us"),
        (1, OTHER, OURS, 1, 0xe000, true, "a request with a priority and no VLAN"),
        (1, OURS, OURS, 1, 0, true, "an announcement of a stranger"),
        (2, OURS, OTHER, 1, 0, true, "a claim as a reply"),
        (2, OTHER, OTHER, 0, 0, true, "a reply to a question of ours"),
        (2, OTHER, OTHER, 1, 0, false, "a foreign reply"),
        (1, OTHER, OTHER, 1, 0, false, "a foreign request"),
        (1, OTHER, OTHER, 0, 0, false, "a request for the host itself"),
        (1, OTHER, OURS, 3, 0, false, "a frame to another host"),
        (1, OTHER, OURS, 4, 0, false, "a frame of our own"),
        (1, OTHER, OURS, 1, 5, false, "a frame of a VLAN"),
    ] {
        let through = run(&program, &arp_frame(operation, sender, target), packet_type, vlan);
        assert_eq!(through > 0, passes, "{what}");
    }
    assert_eq!(run(&program, &arp_frame(1, OTHER, OURS)[..40], 1, 0), 0, "a cut frame");
}

#[test]
fn neighbour_discovery_by_target_and_type() {
    let (ours, other) = ("2001:db8::10".parse().unwrap(), "2001:db8::11".parse().unwrap());
    let program = ndp([ours], MAX_INSTRUCTIONS);
    for (kind, target, packet_type, passes) in [
        (135, ours, 2, true),
        (135, ours, 0, true),
        (136, ours, 2, true),
        (136, other, 0, true),
        (136, other, 2, false),
        (135, other, 2, false),
        (135, other, 0, false),
        (134, ours, 2, false),
        (135, ours, 3, false),
    ] {
        assert_eq!(run(&program, &ndp_frame(kind, target), packet_type, 0) > 0, passes, "{kind} {target}");
    }
    let mut far = ndp_frame(135, ours);
    far[21] = 254;
    assert_eq!(run(&program, &far, 2, 0), 0, "it came through a router");
}

#[test]
fn no_address_lets_only_answers_to_this_host_through() {
    assert_eq!(run(&arp([], MAX_INSTRUCTIONS), &arp_frame(1, OTHER, OURS), 1, 0), 0);
    assert!(run(&arp([], MAX_INSTRUCTIONS), &arp_frame(2, OTHER, OURS), 0, 0) > 0);
    assert_eq!(run(&ndp([], MAX_INSTRUCTIONS), &ndp_frame(135, "::1".parse().unwrap()), 2, 0), 0);
}

#[test]
fn ten_thousand_scattered_addresses_fit() {
    let v4 = (0..10_000_u32).map(|n| Ipv4Addr::from(0x0a00_0000 + 7 * n));
    let v6 = (0..10_000_u128).map(|n| Ipv6Addr::from((0x2001_0db8 << 96) + (n << 64) + n * n));
    let (arp, ndp) = (arp(v4.clone(), MAX_INSTRUCTIONS), ndp(v6.clone(), MAX_INSTRUCTIONS));
    assert!(arp.len() <= MAX_INSTRUCTIONS && ndp.len() <= MAX_INSTRUCTIONS);
    assert!(v4.into_iter().all(|address| run(&arp, &arp_frame(1, OTHER, address), 1, 0) > 0));
    assert!(v6.into_iter().all(|address| run(&ndp, &ndp_frame(135, address), 2, 0) > 0));
    assert_eq!(run(&arp, &arp_frame(1, OTHER, OTHER), 1, 0), 0, "far from all of them");
}

proptest! {
    #[test]
    fn exact_while_it_fits(all in proptest::collection::btree_set(0_u32..400, 0..60), probe in 0_u32..400, spread in 0_u32..25) {
        let at = |n: u32| n << spread;
        let v4 = |n| Ipv4Addr::from(at(n));
        let program = arp(all.iter().map(|n| v4(*n)), MAX_INSTRUCTIONS);
        let wanted = all.iter().any(|n| at(*n) == at(probe));
        prop_assert_eq!(run(&program, &arp_frame(1, Ipv4Addr::BROADCAST, v4(probe)), 1, 0) > 0, wanted);

        let v6 = |n: u32| Ipv6Addr::from(u128::from(n) << (4 * spread));
        let program = ndp(all.iter().map(|n| v6(*n)), MAX_INSTRUCTIONS);
        prop_assert_eq!(run(&program, &ndp_frame(135, v6(probe)), 2, 0) > 0, all.contains(&probe));
    }
}
