//! The Ethernet header (IEEE 802.3, Ethernet II).

use super::{DecodeError, Frame};
use crate::MacAddr;

/// The octets of a header.
pub const HEADER: usize = 14;
/// ARP (RFC 826).
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// IPv6 (RFC 2464).
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// An Ethernet II header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// Who shall take the frame.
    pub destination: MacAddr,
    /// Who sent it.
    pub source: MacAddr,
    /// What it carries.
    pub ethertype: u16,
}

impl Header {
    /// The header and what follows it.
    ///
    /// # Errors
    ///
    /// There are fewer than 14 octets.
    pub fn decode(frame: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let (header, payload) =
            frame.split_first_chunk::<HEADER>().ok_or(DecodeError::TooShort(frame.len()))?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
        let header = Self {
            destination: MacAddr::new([d0, d1, d2, d3, d4, d5]),
            source: MacAddr::new([s0, s1, s2, s3, s4, s5]),
            ethertype: u16::from_be_bytes([t0, t1]),
        };
        Ok((header, payload))
    }

    pub(super) fn encode(self, frame: &mut Frame) {
        frame.push(&self.destination.octets());
        frame.push(&self.source.octets());
        frame.push(&self.ethertype.to_be_bytes());
    }
}
