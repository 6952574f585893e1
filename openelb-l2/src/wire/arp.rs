//! ARP for IPv4 over Ethernet (RFC 826), with the probes and announcements of RFC 5227.

use std::net::Ipv4Addr;

use super::{DecodeError, Frame, ethernet};
use crate::MacAddr;

/// The octets of a packet, without the Ethernet header.
pub const LENGTH: usize = 28;

/// Hardware type Ethernet, protocol type IPv4, and their lengths.
const PREFIX: [u8; 6] = [0x00, 0x01, 0x08, 0x00, 6, 4];

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "RFC 826 has these two; other codes are other protocols")]
pub enum Operation {
    /// `REQUEST` (1).
    Request,
    /// `REPLY` (2).
    Reply,
}

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "the fields of RFC 826")]
pub struct Packet {
    /// `ar$op`.
    pub operation: Operation,
    /// `ar$sha`: the sender's link-layer address.
    pub sender_mac: MacAddr,
    /// `ar$spa`: the sender's address; unspecified in a probe (RFC 5227 section 1.1).
    pub sender_ip: Ipv4Addr,
    /// `ar$tha`: the target's link-layer address; zero in a request.
    pub target_mac: MacAddr,
    /// `ar$tpa`: the target's address.
    pub target_ip: Ipv4Addr,
}

impl Packet {
    /// The packet at the start of an Ethernet payload; padding behind it is ignored.
    ///
    /// # Errors
    ///
    /// Too short, another hardware or protocol type, or another operation (RARP, InARP …).
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let packet = payload.first_chunk::<LENGTH>().ok_or(DecodeError::TooShort(payload.len()))?;
        let (prefix, rest) = packet.split_at(PREFIX.len());
        if prefix != PREFIX {
            return Err(DecodeError::OtherProtocol);
        }
        let Some(&[o0, o1, a0, a1, a2, a3, a4, a5, p0, p1, p2, p3, b0, b1, b2, b3, b4, b5, q0, q1, q2, q3]) =
            rest.first_chunk::<22>()
        else {
            return Err(DecodeError::TooShort(payload.len()));
        };
        let operation = match u16::from_be_bytes([o0, o1]) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return Err(DecodeError::OtherProtocol),
        };
        Ok(Self {
            operation,
            sender_mac: MacAddr::new([a0, a1, a2, a3, a4, a5]),
            sender_ip: Ipv4Addr::new(p0, p1, p2, p3),
            target_mac: MacAddr::new([b0, b1, b2, b3, b4, b5]),
            target_ip: Ipv4Addr::new(q0, q1, q2, q3),
        })
    }

    /// The frame that carries this packet.
    pub fn to_frame(self, source: MacAddr, destination: MacAddr) -> Frame {
        let mut frame = Frame::new();
        ethernet::Header { destination, source, ethertype: ethernet::ETHERTYPE_ARP }.encode(&mut frame);
        frame.push(&PREFIX);
        frame.push(&[0, if self.operation == Operation::Request { 1 } else { 2 }]);
        frame.push(&self.sender_mac.octets());
        frame.push(&self.sender_ip.octets());
        frame.push(&self.target_mac.octets());
        frame.push(&self.target_ip.octets());
        frame
    }

    /// The answer to this request: `target_ip` is at `mac`.
    pub const fn reply(self, mac: MacAddr) -> Self {
        Self {
            operation: Operation::Reply,
            sender_mac: mac,
            sender_ip: self.target_ip,
            target_mac: self.sender_mac,
            target_ip: self.sender_ip,
        }
    }

    /// An announcement (RFC 5227 section 1.1), also known as gratuitous ARP: as a request its target's link-layer
    /// address is zero, as a reply it is the sender's.
    pub const fn announcement(operation: Operation, ip: Ipv4Addr, mac: MacAddr) -> Self {
        let target_mac = match operation {
            Operation::Request => MacAddr::new([0; 6]),
            Operation::Reply => mac,
        };
        Self { operation, sender_mac: mac, sender_ip: ip, target_mac, target_ip: ip }
    }

    /// A probe (RFC 5227 section 1.1): does anybody have this address?
    pub const fn probe(ip: Ipv4Addr, mac: MacAddr) -> Self {
        Self {
            operation: Operation::Request,
            sender_mac: mac,
            sender_ip: Ipv4Addr::UNSPECIFIED,
            target_mac: MacAddr::new([0; 6]),
            target_ip: ip,
        }
    }

    /// Whether this is a probe (RFC 5227 section 1.1).
    pub const fn is_probe(self) -> bool {
        matches!(self.operation, Operation::Request) && self.sender_ip.is_unspecified()
    }
}
