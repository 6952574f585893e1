//! Link-layer addresses and the groups that IPv6 maps onto them.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// A 48-bit IEEE 802 MAC address (EUI-48), in transmission order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`: every station on the segment.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address with these six octets.
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The six octets.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether the I/G bit is clear and the address is not all zeros: one station, usable as a sender.
    pub const fn is_unicast(self) -> bool {
        let [first, ..] = self.0;
        first & 0x01 == 0 && !self.is_zero()
    }

    /// Whether all octets are zero, as in the target hardware address of an ARP request (RFC 5227 section 1.1).
    pub const fn is_zero(self) -> bool {
        matches!(self.0, [0, 0, 0, 0, 0, 0])
    }

    /// Whether this is [`MacAddr::BROADCAST`].
    pub const fn is_broadcast(self) -> bool {
        matches!(self.0, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff])
    }

    /// The Ethernet group that carries an IPv6 multicast group: `33:33` and its last four octets (RFC 2464 section 7).
    pub const fn ipv6_multicast(group: Ipv6Addr) -> Self {
        let [.., a, b, c, d] = group.octets();
        Self([0x33, 0x33, a, b, c, d])
    }
}

/// The solicited-node multicast group of an address: `ff02::1:ff` and its last 24 bits (RFC 4291 section 2.7.1).
///
/// Several addresses may share a group, so a member that joins groups counts references.
pub const fn solicited_node_multicast(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from_octets([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

impl From<[u8; 6]> for MacAddr {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not six hexadecimal octets separated by colons or hyphens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a MAC address: write six hexadecimal octets, like 52:54:00:12:34:56")]
pub struct ParseMacAddrError {
    text: String,
}

impl FromStr for MacAddr {
    type Err = ParseMacAddrError;

    /// Six octets of exactly two hexadecimal digits, separated throughout by `:` or throughout by `-`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseMacAddrError { text: text.to_owned() };
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut octets = [0; 6];
        let mut parts = text.split(separator);
        for octet in &mut octets {
            let part = parts.next().ok_or_else(error)?;
            // `from_str_radix` would take a sign.
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(error());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() { Err(error()) } else { Ok(Self(octets)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_that_is_no_mac_address_is_refused() {
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52:54:00:12:34:5",
            "+1:54:00:12:34:56",
            "52-54:00:12:34:56",
            "gg:54:00:12:34:56",
            " 52:54:00:12:34:56",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }

    #[test]
    fn kinds_of_address() {
        let unicast: MacAddr = "52-54-00-12-34-56".parse().unwrap();
        assert!(unicast.is_unicast() && !unicast.is_broadcast() && !unicast.is_zero());
        assert!(!MacAddr::BROADCAST.is_unicast() && MacAddr::BROADCAST.is_broadcast());
        assert!(!MacAddr::default().is_unicast() && MacAddr::default().is_zero());
        assert!(!MacAddr::new([0x33, 0x33, 0, 0, 0, 1]).is_unicast());
    }

    #[test]
    fn addresses_that_differ_above_24_bits_share_a_solicited_node_group() {
        let one = solicited_node_multicast("2001:db8::1:2:3456".parse().unwrap());
        let two = solicited_node_multicast("fd00::ffff:aa02:3456".parse().unwrap());
        assert_eq!(one, two);
        assert_eq!(one, "ff02::1:ff02:3456".parse::<Ipv6Addr>().unwrap());
    }

    proptest! {
        #[test]
        fn display_and_parse_are_inverse(octets: [u8; 6]) {
            let mac = MacAddr::new(octets);
            prop_assert_eq!(mac.to_string().parse::<MacAddr>().unwrap(), mac);
        }

        #[test]
        fn parsing_any_text_ends(text in ".*") {
            let _ = text.parse::<MacAddr>();
        }
    }
}
