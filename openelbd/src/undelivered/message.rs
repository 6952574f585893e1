//! nf_tables in netlink's messages (linux/netfilter/nf_tables.h): what is sent, and what comes back.
//!
//! Every change is one batch, which the kernel takes as a whole or not at all.

use std::net::IpAddr;

use super::ranges::Ranges;

/// The table that is ours.
pub(super) const TABLE: &str = "openelb";
const CHAIN: &str = "undelivered";
/// The sets of addresses, by family.
const SETS: [Family; 2] = [
    // The numbers of nft's types `ipv4_addr` and `ipv6_addr`; where the header has the destination (RFC 791 section 3.1,
    // RFC 8200 section 3).
    Family { set: "addresses4", id: 1, key_type: 7, len: 4, protocol: 2, offset: 16 },
    Family { set: "addresses6", id: 2, key_type: 8, len: 16, protocol: 10, offset: 24 },
];

struct Family {
    set: &'static str,
    id: u32,
    key_type: u32,
    /// Octets of an address.
    len: u32,
    /// NFPROTO_IPV4, NFPROTO_IPV6.
    protocol: u8,
    /// Of the destination in the header.
    offset: u32,
}

const SUBSYSTEM: u16 = 10 << 8;
const NFPROTO_INET: u8 = 1;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
const DELETE_ELEMENTS: u16 = 14;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const REQUEST: u16 = 0x01;
const ACK: u16 = 0x04;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

const NESTED: u16 = 0x8000;
/// Two registers of 16 octets.
const REGISTER: u32 = 1;
/// NF_INET_FORWARD.
const HOOK_FORWARD: u32 = 2;
/// The priority of filters.
const PRIORITY: i32 = 0;
/// IPS_DST_NAT: kube-proxy, or whoever else, has sent the connection to an endpoint.
const STATUS_DNAT: u32 = 1 << 5;
/// So many ranges go into one batch: a message of netlink has to fit into the socket's buffer.
const RANGES_IN_A_BATCH: usize = 1000;
/// So many go into one message: its list of elements has a length of 16 bits.
const RANGES_IN_A_MESSAGE: usize = 500;

/// A batch of messages, and the number of its last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// What the kernel answers to it is the answer to the whole.
    pub(super) last: u32,
}

/// The table anew, whatever was there before, in one batch and, if there are many addresses, more that follow.
pub(super) fn install(ranges: &[Ranges; 2]) -> Vec<Batch> {
    let mut rest = parts(ranges);
    let mut room = RANGES_IN_A_BATCH;
    let mut first = Writer::begin();
    // Adding it first makes the deletion succeed where there was none.
    first.message(NEW_TABLE, CREATE, |m| m.text(1, TABLE));
    first.message(DELETE_TABLE, 0, |m| m.text(1, TABLE));
    first.message(NEW_TABLE, CREATE, |m| m.text(1, TABLE));
    for family in &SETS {
        first.message(NEW_SET, CREATE, |m| {
            m.text(1, TABLE);
            m.text(2, family.set);
            m.number(3, 0x4); // NFT_SET_INTERVAL
            m.number(4, family.key_type);
            m.number(5, family.len);
            m.number(10, family.id);
        });
    }
    first.message(NEW_CHAIN, CREATE, |m| {
        m.text(1, TABLE);
        m.text(3, CHAIN);
        m.nest(4, |hook| {
            hook.number(1, HOOK_FORWARD);
            hook.number(2, PRIORITY.cast_unsigned());
        });
        m.number(5, 1); // NF_ACCEPT
        m.text(7, "filter");
    });
    for family in &SETS {
        first.message(NEW_RULE, CREATE | APPEND, |m| rule(m, family));
    }
    rest.retain(|part| {
        let fits = part.ranges.len() <= room;
        if fits {
            room -= part.ranges.len();
            part.write(&mut first, NEW_ELEMENTS);
        }
        !fits
    });
    let mut batches = vec![first.end()];
    batches.extend(rest.into_iter().map(|part| part.batch(NEW_ELEMENTS)));
    batches
}

/// What makes `before` into `after`: first what goes, then what comes.
pub(super) fn change(before: &[Ranges; 2], after: &[Ranges; 2]) -> Vec<Batch> {
    let minus = |a: &[Ranges; 2], b: &[Ranges; 2]| {
        let [a4, a6] = a;
        let [b4, b6] = b;
        [a4.difference(b4).copied().collect(), a6.difference(b6).copied().collect()]
    };
    let gone: [Ranges; 2] = minus(before, after);
    let come: [Ranges; 2] = minus(after, before);
    let count = |ranges: &[Ranges; 2]| ranges.iter().map(Ranges::len).sum::<usize>();
    if count(&gone) + count(&come) == 0 {
        return Vec::new();
    }
    if count(&gone) + count(&come) <= RANGES_IN_A_BATCH {
        let mut writer = Writer::begin();
        parts(&gone).into_iter().for_each(|part| part.write(&mut writer, DELETE_ELEMENTS));
        parts(&come).into_iter().for_each(|part| part.write(&mut writer, NEW_ELEMENTS));
        return vec![writer.end()];
    }
    let gone = parts(&gone).into_iter().map(|part| part.batch(DELETE_ELEMENTS));
    let come = parts(&come).into_iter().map(|part| part.batch(NEW_ELEMENTS));
    gone.chain(come).collect()
}

/// The table goes, if it is there.
pub(super) fn remove() -> Batch {
    let mut writer = Writer::begin();
    writer.message(NEW_TABLE, CREATE, |m| m.text(1, TABLE));
    writer.message(DELETE_TABLE, 0, |m| m.text(1, TABLE));
    writer.end()
}

/// Asks whether the chain is there; the answer has this number.
pub(super) fn ask() -> Batch {
    let mut writer = Writer { bytes: Vec::new(), sequence: 0, last_start: 0 };
    writer.header(SUBSYSTEM | GET_CHAIN, REQUEST | ACK, 0, |m| {
        m.text(1, TABLE);
        m.text(3, CHAIN);
    });
    Batch { last: writer.sequence, bytes: writer.bytes }
}

/// Ranges of one set, few enough for a batch.
struct Part {
    family: &'static Family,
    ranges: Vec<(IpAddr, IpAddr)>,
}

fn parts(ranges: &[Ranges; 2]) -> Vec<Part> {
    let mut parts = Vec::new();
    for (family, ranges) in SETS.iter().zip(ranges) {
        let ranges: Vec<_> = ranges.iter().copied().collect();
        parts.extend(ranges.chunks(RANGES_IN_A_BATCH).map(|part| Part { family, ranges: part.to_vec() }));
    }
    parts
}

impl Part {
    fn batch(&self, kind: u16) -> Batch {
        let mut writer = Writer::begin();
        self.write(&mut writer, kind);
        writer.end()
    }

    fn write(&self, writer: &mut Writer, kind: u16) {
        for ranges in self.ranges.chunks(RANGES_IN_A_MESSAGE) {
            writer.message(kind, if kind == NEW_ELEMENTS { CREATE } else { 0 }, |m| {
                m.text(1, TABLE);
                m.text(2, self.family.set);
                if kind == NEW_ELEMENTS {
                    m.number(4, self.family.id);
                }
                m.nest(3, |list| {
                    for (first, last) in ranges {
                        element(list, *first, false);
                        // An interval ends before its second element; one up to the last address has none.
                        if let Some(end) = successor(*last) {
                            element(list, end, true);
                        }
                    }
                });
            });
        }
    }
}

fn element(list: &mut Writer, address: IpAddr, end: bool) {
    list.nest(1, |element| {
        element.nest(1, |key| match address {
            IpAddr::V4(address) => key.attribute(1, &address.octets()),
            IpAddr::V6(address) => key.attribute(1, &address.octets()),
        });
        if end {
            element.number(3, 1); // NFT_SET_ELEM_INTERVAL_END
        }
    });
}

fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => u32::from(address).checked_add(1).map(|next| IpAddr::V4(next.into())),
        IpAddr::V6(address) => u128::from(address).checked_add(1).map(|next| IpAddr::V6(next.into())),
    }
}

/// `meta nfproto ipv4 ip daddr @addresses4 ct status & dnat == 0 counter reject with icmpx port-unreachable`
fn rule(m: &mut Writer, family: &Family) {
    m.text(1, TABLE);
    m.text(2, CHAIN);
    m.nest(4, |expressions| {
        expression(expressions, "meta", |data| {
            data.number(1, REGISTER);
            data.number(2, 15); // NFT_META_NFPROTO
        });
        equals(expressions, &[family.protocol]);
        expression(expressions, "payload", |data| {
            data.number(1, REGISTER);
            data.number(2, 1); // NFT_PAYLOAD_NETWORK_HEADER
            data.number(3, family.offset);
            data.number(4, family.len);
        });
        expression(expressions, "lookup", |data| {
            data.text(1, family.set);
            data.number(2, REGISTER);
            data.number(4, family.id);
        });
        expression(expressions, "ct", |data| {
            data.number(1, REGISTER);
            data.number(2, 2); // NFT_CT_STATUS
        });
        // Registers hold the kernel's numbers as the processor has them.
        expression(expressions, "bitwise", |data| {
            data.number(1, REGISTER);
            data.number(2, REGISTER);
            data.number(3, 4);
            data.nest(4, |mask| mask.attribute(1, &STATUS_DNAT.to_ne_bytes()));
            data.nest(5, |xor| xor.attribute(1, &[0; 4]));
        });
        equals(expressions, &[0; 4]);
        expression(expressions, "counter", |_| {});
        expression(expressions, "reject", |data| {
            data.number(1, 2); // NFT_REJECT_ICMPX_UNREACH
            data.attribute(2, &[1]); // NFT_REJECT_ICMPX_PORT_UNREACH
        });
    });
}

fn equals(expressions: &mut Writer, value: &[u8]) {
    expression(expressions, "cmp", |data| {
        data.number(1, REGISTER);
        data.number(2, 0); // NFT_CMP_EQ
        data.nest(3, |data| data.attribute(1, value));
    });
}

fn expression(list: &mut Writer, name: &str, data: impl FnOnce(&mut Writer)) {
    list.nest(1, |expression| {
        expression.text(1, name);
        expression.nest(2, data);
    });
}

/// Writes messages and attributes, aligned to four octets.
struct Writer {
    bytes: Vec<u8>,
    sequence: u32,
    /// Where the last message begins.
    last_start: usize,
}

impl Writer {
    fn begin() -> Self {
        let mut writer = Self { bytes: Vec::new(), sequence: 0, last_start: 0 };
        writer.header(BATCH_BEGIN, REQUEST, SUBSYSTEM >> 8, |_| {});
        writer
    }

    /// The last message before the end asks for an answer, as older kernels answer no end; those before are answered
    /// only if they fail.
    fn end(mut self) -> Batch {
        let last = self.sequence;
        if let Some(flags) = self.bytes.get_mut(self.last_start + 6..self.last_start + 8) {
            let asked = flags.try_into().map_or(0, u16::from_ne_bytes) | ACK;
            flags.copy_from_slice(&asked.to_ne_bytes());
        }
        self.header(BATCH_END, REQUEST, SUBSYSTEM >> 8, |_| {});
        Batch { last, bytes: self.bytes }
    }

    fn message(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Self)) {
        self.header(SUBSYSTEM | kind, REQUEST | flags, 0, body);
    }

    fn header(&mut self, kind: u16, flags: u16, resource: u16, body: impl FnOnce(&mut Self)) {
        self.sequence += 1;
        let start = self.bytes.len();
        self.last_start = start;
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        // nfgenmsg
        self.bytes.extend([NFPROTO_INET, 0]);
        self.bytes.extend(resource.to_be_bytes());
        body(self);
        let len = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        if let Some(field) = self.bytes.get_mut(start..start + 4) {
            field.copy_from_slice(&len.to_ne_bytes());
        }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend(len.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn text(&mut self, kind: u16, text: &str) {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.attribute(kind, &value);
    }

    fn number(&mut self, kind: u16, number: u32) {
        self.attribute(kind, &number.to_be_bytes());
    }

    fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend((kind | NESTED).to_ne_bytes());
        body(self);
        let len = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        if let Some(field) = self.bytes.get_mut(start..start + 2) {
            field.copy_from_slice(&len.to_ne_bytes());
        }
    }
}

/// What a datagram of the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing about the batch as a whole yet.
    More,
    /// It was taken.
    Done,
    /// It was not; a number of errno(3).
    Failed(i32),
}

/// Reads the answers in a datagram. `last` is the number of the batch's last message.
pub(super) fn answer(datagram: &[u8], last: u32) -> Answer {
    const ERROR: u16 = 2;
    let mut rest = datagram;
    while let Some(head) = rest.first_chunk::<20>() {
        let number = |at: usize| {
            let bytes = head.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
            u32::from_ne_bytes(bytes)
        };
        let len = usize::try_from(number(0)).unwrap_or(usize::MAX);
        let kind = head.get(4..6).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_ne_bytes);
        if kind == ERROR {
            match number(16).cast_signed() {
                0 if number(8) == last => return Answer::Done,
                0 => {}
                error => return Answer::Failed(error.wrapping_neg()),
            }
        }
        match rest.get(len.max(20).next_multiple_of(4)..) {
            Some(next) => rest = next,
            None => break,
        }
    }
    Answer::More
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{super::ranges::ranges, Answer, answer, ask, change, install, remove};

    fn of(prefixes: &[&str]) -> [super::Ranges; 2] {
        let prefixes: Vec<ipnet::IpNet> = prefixes.iter().map(|text| text.parse().unwrap()).collect();
        ranges(&prefixes)
    }

    /// Walks the messages of a batch: number and length of each add up.
    fn kinds(bytes: &[u8]) -> Vec<u16> {
        let mut rest = bytes;
        let mut kinds = Vec::new();
        while !rest.is_empty() {
            let len = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
            kinds.push(u16::from_ne_bytes([rest[4], rest[5]]));
            rest = &rest[len..];
        }
        kinds
    }

    #[test]
    fn a_table_is_replaced_in_one_batch_and_changed_by_its_differences() {
        let nothing = of(&[]);
        let some = of(&["192.0.2.1/32", "2001:db8::/64"]);
        let batches = install(&some);
        assert_eq!(batches.len(), 1);
        let expected = [0x10, 0xa00, 0xa02, 0xa00, 0xa09, 0xa09, 0xa03, 0xa06, 0xa06, 0xa0c, 0xa0c, 0x11];
        assert_eq!(kinds(&batches[0].bytes), expected);
        assert_eq!(kinds(&install(&nothing)[0].bytes).len(), 10);
        assert_eq!(change(&some, &some), []);
        assert_eq!(kinds(&change(&nothing, &some)[0].bytes), [0x10, 0xa0c, 0xa0c, 0x11]);
        assert_eq!(kinds(&change(&some, &nothing)[0].bytes), [0x10, 0xa0e, 0xa0e, 0x11]);
        let other = of(&["192.0.2.2/32", "2001:db8::/64"]);
        assert_eq!(kinds(&change(&some, &other)[0].bytes), [0x10, 0xa0e, 0xa0c, 0x11]);
        assert_eq!(kinds(&remove().bytes), [0x10, 0xa00, 0xa02, 0x11]);
        assert_eq!(kinds(&ask().bytes), [0xa04]);
    }

    #[test]
    fn many_addresses_are_many_batches_of_bounded_size() {
        let addresses: Vec<ipnet::IpNet> =
            (0..5000_u32).map(|n| IpAddr::V6((u128::from(n) << 64).into()).into()).collect();
        let batches = install(&ranges(&addresses));
        assert_eq!(batches.len(), 5);
        assert!(batches.iter().all(|batch| batch.bytes.len() < 100_000));
        assert_eq!(change(&of(&[]), &ranges(&addresses)).len(), 5);
    }

    #[test]
    fn answers_are_read_and_nothing_else_is() {
        let message = |kind: u16, sequence: u32, error: i32| {
            let mut bytes = 36_u32.to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 2]);
            bytes.extend(sequence.to_ne_bytes());
            bytes.extend([0; 4]);
            bytes.extend(error.to_ne_bytes());
            bytes.resize(36, 0);
            bytes
        };
        assert_eq!(answer(&message(2, 7, 0), 7), Answer::Done);
        assert_eq!(answer(&message(2, 6, 0), 7), Answer::More);
        assert_eq!(answer(&message(2, 3, -1), 7), Answer::Failed(1));
        assert_eq!(answer(&message(0xa03, 7, 0), 7), Answer::More);
        assert_eq!(answer(&[message(2, 6, 0), message(2, 7, 0)].concat(), 7), Answer::Done);
        for cut in 0..36 {
            let _ = answer(&message(2, 7, 0)[..cut], 7);
        }
        let mut short = message(2, 6, 0);
        short[..4].copy_from_slice(&0_u32.to_ne_bytes());
        assert_eq!(answer(&short, 7), Answer::More, "a length of nothing is no loop");
    }
}
