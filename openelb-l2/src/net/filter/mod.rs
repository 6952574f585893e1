//! Socket filters (classic BPF) that let ARP and neighbour discovery for some addresses through and nothing else, so
//! that foreign frames do not wake the process.
//!
//! One program per protocol, for a packet socket bound to that ethertype: data traffic then never meets the filter.
//! A program that would be longer than the limit (with some hundreds of ranges of addresses that do not touch each other)
//! is made shorter by letting the addresses between close neighbours through as well; the responder knows exactly, a filter
//! may be generous.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The most instructions that Linux accepts (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// How many octets of a frame a filter lets through: all of one on a link with the MTU of Ethernet. A question may have
/// options that nobody knows (RFC 4861 section 4.6), and long ones (RFC 3971), and without its end it is none.
pub const SNAP_LENGTH: u32 = 1514;

/// One instruction, with the fields of Linux' `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the fields of struct sock_filter")]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// How many instructions to skip when a condition holds.
    pub jt: u8,
    /// How many when it does not.
    pub jf: u8,
    /// Constant, offset or distance.
    pub k: u32,
}

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_ABOVE: u16 = 0x25;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// `SKF_AD_OFF + SKF_AD_PKTTYPE`: 0 to us, 1 broadcast, 2 multicast, 3 to another host, 4 outgoing.
const PACKET_TYPE: u32 = 0xffff_f004;
/// `SKF_AD_OFF + SKF_AD_VLAN_TAG`.
const VLAN_TAG: u32 = 0xffff_f02c;
const VLAN_ID: u32 = 0x0fff;

/// The program for ARP (RFC 826) whose sender's or target's address is one of these, and for replies to this host.
/// It has at most `limit` instructions, and never fewer than it takes for one range of addresses (about 30, and for IPv6
/// up to 128).
pub fn arp(addresses: impl IntoIterator<Item = Ipv4Addr>, limit: usize) -> Vec<Instruction> {
    let ranges = ranges(addresses.into_iter().map(|address| u128::from(u32::from(address))));
    shorten(ranges, limit, |ranges| {
        let mut program = Program::default();
        program.addressed_to_us_or_all();
        // A reply to this host answers a question that it asked.
        program.push(LOAD_HALF, 0, 0, 20);
        program.push(JUMP_EQUAL, 0, 3, 2);
        program.push(LOAD_HALF, 0, 0, PACKET_TYPE);
        program.push(JUMP_EQUAL, 0, 1, 0);
        program.accept();
        for offset in [38, 28] {
            program.lookup(&[offset], ranges);
        }
        program.drop();
        program.0
    })
}

/// The program for neighbour solicitations and advertisements (RFC 4861) with one of these targets, and for
/// advertisements to this host. For `limit` see [`arp`].
pub fn ndp(addresses: impl IntoIterator<Item = Ipv6Addr>, limit: usize) -> Vec<Instruction> {
    let ranges = ranges(addresses.into_iter().map(u128::from));
    shorten(ranges, limit, |ranges| {
        let mut program = Program::default();
        program.addressed_to_us_or_all();
        // ICMPv6 right behind the header, hop limit 255.
        program.push(LOAD_HALF, 0, 0, 20);
        program.push(JUMP_EQUAL, 1, 0, 0x3aff);
        program.drop();
        program.push(LOAD_BYTE, 0, 0, 54);
        program.push(JUMP_EQUAL, 5, 0, 135);
        program.push(JUMP_EQUAL, 1, 0, 136);
        program.drop();
        program.push(LOAD_HALF, 0, 0, PACKET_TYPE);
        program.push(JUMP_EQUAL, 0, 1, 0);
        program.accept();
        program.lookup(&[62, 66, 70, 74], ranges);
        program.drop();
        program.0
    })
}

/// Inclusive ranges, in order, none touching another.
type Range = (u128, u128);

fn ranges(addresses: impl Iterator<Item = u128>) -> Vec<Range> {
    let mut all: Vec<u128> = addresses.collect();
    all.sort_unstable();
    let mut ranges: Vec<Range> = Vec::new();
    for address in all {
        match ranges.last_mut() {
            Some((_, last)) if address <= last.saturating_add(1) => *last = address,
            _ => ranges.push((address, address)),
        }
    }
    ranges
}

/// Joins the closest ranges until what `build` makes of them is short enough.
fn shorten(
    mut ranges: Vec<Range>,
    limit: usize,
    build: impl Fn(&[Range]) -> Vec<Instruction>,
) -> Vec<Instruction> {
    loop {
        let program = build(&ranges);
        if program.len() <= limit.min(MAX_INSTRUCTIONS) || ranges.len() <= 1 {
            return program;
        }
        let keep = (ranges.len() / 2).max(1);
        let mut gaps: Vec<(u128, usize)> = ranges
            .iter()
            .zip(ranges.iter().skip(1))
            .enumerate()
            .map(|(index, (left, right))| (right.0 - left.1, index))
            .collect();
        gaps.sort_unstable();
        let mut joined: Vec<usize> =
            gaps.into_iter().take(ranges.len() - keep).map(|(_, index)| index).collect();
        joined.sort_unstable();
        let mut shorter: Vec<Range> = Vec::with_capacity(keep);
        for (index, range) in ranges.iter().enumerate() {
            let joins = index > 0 && joined.binary_search(&(index - 1)).is_ok();
            match shorter.last_mut() {
                Some((_, last)) if joins => *last = range.1,
                _ => shorter.push(*range),
            }
        }
        ranges = shorter;
    }
}

/// A program that is being written.
#[derive(Debug, Default)]
struct Program(Vec<Instruction>);

impl Program {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) {
        self.0.push(Instruction { code, jt, jf, k });
    }

    fn accept(&mut self) {
        self.push(RETURN, 0, 0, SNAP_LENGTH);
    }

    fn drop(&mut self) {
        self.push(RETURN, 0, 0, 0);
    }

    /// Drops frames of this host, to other hosts, and of VLANs that have no interface of their own here.
    fn addressed_to_us_or_all(&mut self) {
        self.push(LOAD_HALF, 0, 0, PACKET_TYPE);
        self.push(JUMP_ABOVE, 2, 0, 2);
        self.push(LOAD_HALF, 0, 0, VLAN_TAG);
        self.push(JUMP_ANY_BIT, 0, 1, VLAN_ID);
        self.drop();
    }

    /// Accepts when the number whose words are at these offsets is in a range, and goes on behind itself when not.
    fn lookup(&mut self, offsets: &[u32], ranges: &[Range]) {
        let Some((offset, rest)) = offsets.split_first() else { return self.accept() };
        let mut block = Self::default();
        block.push(LOAD_WORD, 0, 0, *offset);
        let shift = 32 * u32::try_from(rest.len()).unwrap_or(0);
        block.search(&intervals(ranges, shift), rest);
        // A miss was written as a jump of no length; it goes behind the block.
        let length = block.0.len();
        for (index, instruction) in block.0.iter_mut().enumerate() {
            if instruction.code == MISS {
                let distance = u32::try_from(length - index - 1).unwrap_or(u32::MAX);
                *instruction = Instruction { code: JUMP, jt: 0, jf: 0, k: distance };
            }
        }
        self.0.append(&mut block.0);
    }

    fn search(&mut self, intervals: &[Interval], rest: &[u32]) {
        match intervals {
            [] => self.push(MISS, 0, 0, 0),
            [interval] => {
                if interval.first == interval.last {
                    self.push(JUMP_EQUAL, 1, 0, interval.first);
                    self.push(MISS, 0, 0, 0);
                } else {
                    self.push(JUMP_AT_LEAST, 0, 1, interval.first);
                    self.push(JUMP_ABOVE, 0, 1, interval.last);
                    self.push(MISS, 0, 0, 0);
                }
                if interval.below.is_empty() {
                    self.accept();
                } else {
                    self.lookup(rest, &interval.below);
                    self.push(MISS, 0, 0, 0);
                }
            }
            [..] => {
                let (left, right) = intervals.split_at(intervals.len() / 2);
                let Some(pivot) = right.first() else { return };
                let mut block = Self::default();
                block.search(left, rest);
                let distance = u32::try_from(block.0.len()).unwrap_or(u32::MAX);
                self.push(JUMP_AT_LEAST, 0, 1, pivot.first);
                self.push(JUMP, 0, 0, distance);
                self.0.append(&mut block.0);
                self.search(right, rest);
            }
        }
    }
}

/// Stands for a jump behind the block that is being written; no operation of classic BPF.
const MISS: u16 = u16::MAX;

/// Values of one word, and what the words behind it must be; nothing: anything.
#[derive(Debug)]
struct Interval {
    first: u32,
    last: u32,
    below: Vec<Range>,
}

/// Cuts ranges of numbers with `shift` bits behind their first word by that word.
fn intervals(ranges: &[Range], shift: u32) -> Vec<Interval> {
    let word = |number: u128| u32::try_from(number >> shift & u128::from(u32::MAX)).unwrap_or(u32::MAX);
    let mask = (1_u128 << shift) - 1;
    let mut all: Vec<Interval> = Vec::new();
    let mut add = |first: u32, last: u32, low: u128, high: u128| {
        let whole = low == 0 && high == mask;
        match all.last_mut() {
            Some(before) if first == last && before.first == first && before.last == first => {
                before.below.push((low, high));
            }
            _ => all.push(Interval { first, last, below: if whole { vec![] } else { vec![(low, high)] } }),
        }
    };
    for (low, high) in ranges {
        let (mut first, mut last) = (word(*low), word(*high));
        if first == last {
            add(first, last, low & mask, high & mask);
            continue;
        }
        if low & mask != 0 {
            add(first, first, low & mask, mask);
            first += 1;
        }
        let tail = high & mask != mask;
        if tail {
            last -= 1;
        }
        if first <= last {
            add(first, last, 0, mask);
        }
        if tail {
            add(last + 1, last + 1, 0, high & mask);
        }
    }
    all
}

#[cfg(test)]
mod tests;
