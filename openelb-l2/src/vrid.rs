//! Virtual router identifiers.

use crate::MacAddr;
use std::fmt;
use std::num::NonZeroU8;

/// A virtual router identifier (VRID): 1 to 255, unique on its LAN and address family (RFC 9568 section 1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualRouterId(NonZeroU8);

/// A VRID outside 1 to 255.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value} is not a virtual router identifier: use 1 to 255 (RFC 9568 section 1.6)")]
pub struct InvalidVirtualRouterId {
    value: u32,
}

impl VirtualRouterId {
    /// The identifier with this number.
    ///
    /// # Errors
    ///
    /// `value` is 0 or above 255.
    pub fn new(value: u32) -> Result<Self, InvalidVirtualRouterId> {
        let id = u8::try_from(value).ok().and_then(NonZeroU8::new);
        id.map(Self).ok_or(InvalidVirtualRouterId { value })
    }

    /// The number, 1 to 255.
    pub const fn get(self) -> u8 {
        self.0.get()
    }

    /// The virtual router MAC address for IPv4, `00:00:5e:00:01:{VRID}` (RFC 9568 section 7.3).
    pub const fn virtual_mac_v4(self) -> MacAddr {
        MacAddr::new([0x00, 0x00, 0x5e, 0x00, 0x01, self.get()])
    }

    /// The virtual router MAC address for IPv6, `00:00:5e:00:02:{VRID}` (RFC 9568 section 7.3).
    pub const fn virtual_mac_v6(self) -> MacAddr {
        MacAddr::new([0x00, 0x00, 0x5e, 0x00, 0x02, self.get()])
    }
}

impl fmt::Display for VirtualRouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_1_to_255() {
        for (value, ok) in [(0, false), (1, true), (255, true), (256, false), (u32::MAX, false)] {
            assert_eq!(VirtualRouterId::new(value).is_ok(), ok, "{value}");
        }
        let error = VirtualRouterId::new(256).unwrap_err().to_string();
        assert!(error.contains("256") && error.contains("1 to 255"), "{error}");
    }

    #[test]
    fn the_families_have_different_virtual_macs() {
        let id = VirtualRouterId::new(1).unwrap();
        assert_eq!(id.virtual_mac_v4().to_string(), "00:00:5e:00:01:01");
        assert_eq!(id.virtual_mac_v6().to_string(), "00:00:5e:00:02:01");
    }
}
