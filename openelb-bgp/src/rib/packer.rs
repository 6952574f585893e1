//! Packs prefixes that share their attributes into as few UPDATE messages as they fit (RFC 4271 §4.3, RFC 4760).

use std::net::IpAddr;

use super::{
    attributes::AttributeSet,
    egress::{Egress, Encoded},
    significant_octets,
};
use crate::wire::{Family, Nlri};

const HEADER: usize = 19;
const MARKER: [u8; 16] = [0xff; 16];
const UPDATE: u8 = 2;
/// The longest NLRI: path identifier, length, IPv6 address.
const LONGEST_NLRI: usize = 4 + 1 + 16;

/// What the open messages say of their prefixes.
#[derive(Debug)]
enum Group {
    Withdraw,
    Announce(Encoded),
}

/// An UPDATE that is being filled.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// Where it begins.
    start: usize,
    /// Where the prefixes begin.
    nlri: usize,
}

/// Writes UPDATE messages of one family to one neighbour.
#[derive(Debug)]
pub(crate) struct Packer<'a> {
    out: &'a mut Vec<u8>,
    /// No message is begun once this much is written.
    limit: usize,
    max_message: usize,
    ipv4: bool,
    add_path: bool,
    group: Group,
    open: Option<Open>,
    messages: u64,
}

impl<'a> Packer<'a> {
    /// `limit`: about how many octets to write; `max_message`: 4096, or 65535 (RFC 8654).
    pub(crate) fn new(out: &'a mut Vec<u8>, limit: usize, max_message: usize, egress: &Egress) -> Self {
        Self {
            out,
            limit,
            max_message,
            ipv4: egress.ipv4,
            add_path: egress.add_path,
            group: Group::Withdraw,
            open: None,
            messages: 0,
        }
    }

    /// Whether it is time to send: as much as asked is written, and the last message is full.
    pub(crate) fn is_full(&self) -> bool {
        self.open.is_none() && self.out.len() >= self.limit
    }

    /// How many messages were written.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    /// The prefixes to come have these attributes; `None`: they are withdrawn.
    pub(crate) fn begin(&mut self, set: Option<&AttributeSet>, egress: &Egress) {
        self.finish();
        self.group = set.map_or(Group::Withdraw, |set| Group::Announce(egress.encode(set)));
    }

    /// Adds a prefix.
    pub(crate) fn push(&mut self, nlri: Nlri) {
        if self.open.is_none() {
            self.open();
        }
        if self.add_path {
            self.out.extend_from_slice(&nlri.path_id.to_be_bytes());
        }
        self.out.push(nlri.prefix.len());
        let (octets, len) = significant_octets(nlri.prefix);
        self.out.extend_from_slice(octets.get(..len).unwrap_or_default());
        let trailer = match &self.group {
            Group::Announce(Encoded { attributes, mp_next_hop: Some(_) }) => attributes.len(),
            _ => 2,
        };
        let start = self.open.map_or(0, |open| open.start);
        if self.out.len() - start + trailer + LONGEST_NLRI > self.max_message {
            self.finish();
        }
    }

    fn open(&mut self) {
        let start = self.out.len();
        let out = &mut *self.out;
        out.extend_from_slice(&MARKER);
        out.extend_from_slice(&[0, 0, UPDATE]);
        let (afi, safi) = if self.ipv4 { (1, 1) } else { (2, 1) };
        match &self.group {
            Group::Withdraw if self.ipv4 => out.extend_from_slice(&[0, 0]),
            Group::Withdraw => out.extend_from_slice(&[0, 0, 0, 0, 0x90, 15, 0, 0, 0, afi, safi]),
            Group::Announce(Encoded { attributes, mp_next_hop: None }) => {
                out.extend_from_slice(&[0, 0]);
                out.extend_from_slice(&u16::try_from(attributes.len()).unwrap_or(u16::MAX).to_be_bytes());
                out.extend_from_slice(attributes);
            }
            Group::Announce(Encoded { mp_next_hop: Some(next_hop), .. }) => {
                out.extend_from_slice(&[0, 0, 0, 0, 0x90, 14, 0, 0, 0, afi, safi]);
                match next_hop {
                    IpAddr::V4(address) => {
                        out.push(4);
                        out.extend_from_slice(&address.octets());
                    }
                    IpAddr::V6(address) => {
                        out.push(16);
                        out.extend_from_slice(&address.octets());
                    }
                }
                out.push(0); // reserved
            }
        }
        self.open = Some(Open { start, nlri: out.len() });
    }

    /// Completes the open message.
    pub(crate) fn finish(&mut self) {
        let Some(Open { start, nlri }) = self.open.take() else { return };
        self.messages += 1;
        let body = start + HEADER;
        match &self.group {
            Group::Withdraw if self.ipv4 => {
                self.patch(body, self.out.len() - nlri);
                self.out.extend_from_slice(&[0, 0]);
            }
            Group::Announce(Encoded { mp_next_hop: None, .. }) => {}
            mp => {
                // [withdrawn length 2][attributes length 2][flags 1][type 1][length 2][value]
                let value = body + 8;
                let length = self.out.len() - value;
                if let Group::Announce(encoded) = mp {
                    self.out.extend_from_slice(&encoded.attributes);
                }
                self.patch(body + 6, length);
                self.patch(body + 2, self.out.len() - body - 4);
            }
        }
        self.patch(start + 16, self.out.len() - start);
    }

    fn patch(&mut self, at: usize, length: usize) {
        let length = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        if let Some(slot) = self.out.get_mut(at..at + 2) {
            slot.copy_from_slice(&length);
        }
    }
}

/// The End-of-RIB marker of a family (RFC 4724 §2).
pub(crate) fn end_of_rib(family: Family) -> Vec<u8> {
    let mut out = Vec::with_capacity(29);
    out.extend_from_slice(&MARKER);
    if family == Family::IPV4_UNICAST {
        out.extend_from_slice(&[0, 23, UPDATE, 0, 0, 0, 0]);
    } else {
        out.extend_from_slice(&[0, 29, UPDATE, 0, 0, 0, 6, 0x80, 15, 3]);
        out.extend_from_slice(&family.afi.to_be_bytes());
        out.push(family.safi);
    }
    out
}
