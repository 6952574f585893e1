//! Neighbour solicitations and advertisements (RFC 4861 sections 4.3 and 4.4) with their IPv6 and ICMPv6 headers.

use std::net::Ipv6Addr;

use super::{DecodeError, Frame, ethernet};
use crate::{MacAddr, solicited_node_multicast};

const IPV6_HEADER: usize = 40;
const NEXT_HEADER_ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const OPTION_SOURCE_LINK_LAYER: u8 = 1;
const OPTION_TARGET_LINK_LAYER: u8 = 2;
/// All nodes on the link (RFC 4291 section 2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A neighbour solicitation (RFC 4861 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the fields of RFC 4861 section 4.3")]
pub struct Solicitation {
    /// The address that is asked for.
    pub target: Ipv6Addr,
    /// The source link-layer address option.
    pub source_mac: Option<MacAddr>,
}

/// A neighbour advertisement (RFC 4861 section 4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the fields of RFC 4861 section 4.4")]
pub struct Advertisement {
    /// The address that is told of.
    pub target: Ipv6Addr,
    /// The target link-layer address option.
    pub target_mac: Option<MacAddr>,
    /// R: the sender is a router.
    pub router: bool,
    /// S: the answer to a solicitation.
    pub solicited: bool,
    /// O: replace what the receiver's cache has.
    pub override_: bool,
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "other ICMPv6 types are other protocols")]
pub enum Message {
    /// Who has an address?
    Solicitation(Solicitation),
    /// An address is here.
    Advertisement(Advertisement),
}

/// A message with the addresses of its IPv6 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "what a packet of neighbour discovery consists of")]
pub struct Packet {
    /// The source; unspecified in duplicate address detection.
    pub source: Ipv6Addr,
    /// The destination.
    pub destination: Ipv6Addr,
    /// The message.
    pub message: Message,
}

impl Packet {
    /// The packet at the start of an Ethernet payload; padding behind it is ignored.
    ///
    /// # Errors
    ///
    /// Not neighbour discovery, or invalid by RFC 4861 sections 7.1.1 and 7.1.2.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        use DecodeError as E;
        let short = E::TooShort(payload.len());
        let (header, rest) = payload.split_first_chunk::<IPV6_HEADER>().ok_or(short)?;
        let [version, _, _, _, l0, l1, next_header, hop_limit, addresses @ ..] = header;
        if version >> 4 != 6 || *next_header != NEXT_HEADER_ICMPV6 {
            return Err(E::OtherProtocol);
        }
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let body = rest.get(..length).ok_or(short)?;
        let (source, destination) = addresses.split_first_chunk::<16>().ok_or(short)?;
        let destination = destination.first_chunk::<16>().ok_or(short)?;
        let source = Ipv6Addr::from_octets(*source);
        let destination = Ipv6Addr::from_octets(*destination);

        let (icmp, options) = body.split_first_chunk::<24>().ok_or(E::OtherProtocol)?;
        let [kind, code, _, _, flags, _, _, _, target @ ..] = icmp;
        if !matches!(*kind, NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT) {
            return Err(E::OtherProtocol);
        }
        // RFC 4861 sections 7.1.1 and 7.1.2: hop limit, checksum, code, target, options.
        if *hop_limit != 255 {
            return Err(E::Invalid("hop limit"));
        }
        if *code != 0 {
            return Err(E::Invalid("code"));
        }
        if checksum(source, destination, body) != 0 {
            return Err(E::Checksum);
        }
        let target = Ipv6Addr::from_octets(*target);
        if target.is_multicast() || target.is_unspecified() {
            return Err(E::Invalid("target"));
        }
        let solicitation = *kind == NEIGHBOUR_SOLICITATION;
        let wanted = if solicitation { OPTION_SOURCE_LINK_LAYER } else { OPTION_TARGET_LINK_LAYER };
        let mac = link_layer_option(options, wanted)?;
        let message = if solicitation {
            if source.is_unspecified() {
                if mac.is_some() {
                    return Err(E::Invalid("source link-layer address without a source address"));
                }
                if destination != solicited_node_multicast(target) {
                    return Err(E::Invalid("destination of duplicate address detection"));
                }
            }
            Message::Solicitation(Solicitation { target, source_mac: mac })
        } else {
            let solicited = flags & 0x40 != 0;
            if destination.is_multicast() && solicited {
                return Err(E::Invalid("solicited flag towards a group"));
            }
            Message::Advertisement(Advertisement {
                target,
                target_mac: mac,
                router: flags & 0x80 != 0,
                solicited,
                override_: flags & 0x20 != 0,
            })
        };
        Ok(Self { source, destination, message })
    }

    /// The frame that carries this packet: hop limit 255, traffic class 0, checksum set.
    pub fn to_frame(self, source: MacAddr, destination: MacAddr) -> Frame {
        let (kind, flags, target, option, mac) = match self.message {
            Message::Solicitation(s) => {
                (NEIGHBOUR_SOLICITATION, 0, s.target, OPTION_SOURCE_LINK_LAYER, s.source_mac)
            }
            Message::Advertisement(a) => {
                let flags = u8::from(a.router) << 7 | u8::from(a.solicited) << 6 | u8::from(a.override_) << 5;
                (NEIGHBOUR_ADVERTISEMENT, flags, a.target, OPTION_TARGET_LINK_LAYER, a.target_mac)
            }
        };
        let length: u8 = if mac.is_some() { 32 } else { 24 };
        let mut frame = Frame::new();
        ethernet::Header { destination, source, ethertype: ethernet::ETHERTYPE_IPV6 }.encode(&mut frame);
        frame.push(&[0x60, 0, 0, 0, 0, length, NEXT_HEADER_ICMPV6, 255]);
        frame.push(&self.source.octets());
        frame.push(&self.destination.octets());
        let body = ethernet::HEADER + IPV6_HEADER;
        frame.push(&[kind, 0, 0, 0, flags, 0, 0, 0]);
        frame.push(&target.octets());
        if let Some(mac) = mac {
            frame.push(&[option, 1]);
            frame.push(&mac.octets());
        }
        let sum = checksum(self.source, self.destination, frame.get(body..).unwrap_or_default());
        frame.patch(body + 2, &sum.to_be_bytes());
        frame
    }
}

/// The value of the first link-layer address option of this type. All options are checked: none may have length zero
/// or reach beyond the message.
fn link_layer_option(mut options: &[u8], wanted: u8) -> Result<Option<MacAddr>, DecodeError> {
    let mut found = None;
    while let [kind, length, ..] = *options {
        let octets = usize::from(length) * 8;
        if octets == 0 {
            return Err(DecodeError::Invalid("option of length zero"));
        }
        let Some((option, rest)) = options.split_at_checked(octets) else {
            return Err(DecodeError::Invalid("option beyond the end"));
        };
        if kind == wanted
            && found.is_none()
            && let [_, _, a, b, c, d, e, f] = *option
        {
            found = Some(MacAddr::new([a, b, c, d, e, f]));
        }
        options = rest;
    }
    if options.is_empty() { Ok(found) } else { Err(DecodeError::Invalid("octet behind the options")) }
}

/// The ICMPv6 checksum (RFC 4443 section 2.3): the one's complement of the one's complement sum over pseudo-header and
/// message. Over a message with its checksum in place it is zero.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, body: &[u8]) -> u16 {
    // Twice as wide as the words of the RFC: folded together they have the same sum.
    let words = |octets: &[u8]| -> u64 {
        let (quads, rest) = octets.as_chunks::<4>();
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        quads.iter().chain([&last]).map(|quad| u64::from(u32::from_be_bytes(*quad))).sum()
    };
    let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
    let mut sum = words(&source.octets())
        + words(&destination.octets())
        + length
        + u64::from(NEXT_HEADER_ICMPV6)
        + words(body);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}
