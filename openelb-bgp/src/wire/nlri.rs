//! Prefixes and lists of them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Family;

/// An IPv4 prefix without host bits. Ordered by address, then length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv4Prefix {
    address: Ipv4Addr,
    length: u8,
}

/// An IPv6 prefix without host bits. Ordered by address, then length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv6Prefix {
    address: Ipv6Addr,
    length: u8,
}

/// A prefix of either family, in 18 octets. IPv4 comes before IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prefix {
    /// An IPv4 prefix.
    V4(Ipv4Prefix),
    /// An IPv6 prefix.
    V6(Ipv6Prefix),
}

/// A prefix length that its family does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("prefix length {length} is longer than the {max} bits of an address")]
pub struct PrefixError {
    /// The length given.
    pub length: u8,
    /// The longest possible: 32 or 128.
    pub max: u8,
}

impl Ipv4Prefix {
    /// A prefix read from NLRI: `length` was checked, host bits may be set.
    #[inline]
    pub(crate) const fn masked(bits: u32, length: u8) -> Self {
        Self { address: Ipv4Addr::from_bits(bits & mask4(length)), length }
    }

    /// The prefix of this length that holds `address`; host bits are cleared.
    ///
    /// # Errors
    /// If `length` is over 32.
    pub const fn new(address: Ipv4Addr, length: u8) -> Result<Self, PrefixError> {
        if length > 32 {
            return Err(PrefixError { length, max: 32 });
        }
        Ok(Self { address: Ipv4Addr::from_bits(address.to_bits() & mask4(length)), length })
    }

    /// The network address.
    #[must_use]
    pub const fn address(self) -> Ipv4Addr {
        self.address
    }

    /// The prefix length, 0 to 32.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "the length of a prefix in bits, no count")]
    pub const fn len(self) -> u8 {
        self.length
    }
}

impl Ipv6Prefix {
    /// A prefix read from NLRI: `length` was checked, host bits may be set.
    #[inline]
    pub(crate) const fn masked(bits: u128, length: u8) -> Self {
        Self { address: Ipv6Addr::from_bits(bits & mask6(length)), length }
    }

    /// The prefix of this length that holds `address`; host bits are cleared.
    ///
    /// # Errors
    /// If `length` is over 128.
    pub const fn new(address: Ipv6Addr, length: u8) -> Result<Self, PrefixError> {
        if length > 128 {
            return Err(PrefixError { length, max: 128 });
        }
        Ok(Self { address: Ipv6Addr::from_bits(address.to_bits() & mask6(length)), length })
    }

    /// The network address.
    #[must_use]
    pub const fn address(self) -> Ipv6Addr {
        self.address
    }

    /// The prefix length, 0 to 128.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "the length of a prefix in bits, no count")]
    pub const fn len(self) -> u8 {
        self.length
    }
}

/// The network mask of a length up to 32.
pub(crate) const fn mask4(length: u8) -> u32 {
    match u32::MAX.checked_shl(32_u32.saturating_sub(length as u32)) {
        Some(mask) => mask,
        None => 0,
    }
}

/// The network mask of a length up to 128.
pub(crate) const fn mask6(length: u8) -> u128 {
    match u128::MAX.checked_shl(128_u32.saturating_sub(length as u32)) {
        Some(mask) => mask,
        None => 0,
    }
}

impl Prefix {
    /// The prefix of this length that holds `address`; host bits are cleared.
    ///
    /// # Errors
    /// If `length` is over 32 or 128.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, PrefixError> {
        Ok(match address {
            IpAddr::V4(address) => Self::V4(Ipv4Prefix::new(address, length)?),
            IpAddr::V6(address) => Self::V6(Ipv6Prefix::new(address, length)?),
        })
    }

    /// The network address.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        match self {
            Self::V4(prefix) => IpAddr::V4(prefix.address),
            Self::V6(prefix) => IpAddr::V6(prefix.address),
        }
    }

    /// The prefix length in bits.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "the length of a prefix in bits, no count")]
    pub const fn len(self) -> u8 {
        match self {
            Self::V4(prefix) => prefix.length,
            Self::V6(prefix) => prefix.length,
        }
    }

    /// IPv4 or IPv6 unicast.
    #[must_use]
    pub const fn family(self) -> Family {
        match self {
            Self::V4(_) => Family::IPV4_UNICAST,
            Self::V6(_) => Family::IPV6_UNICAST,
        }
    }
}

impl fmt::Display for Ipv4Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Display for Ipv6Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(prefix) => prefix.fmt(f),
            Self::V6(prefix) => prefix.fmt(f),
        }
    }
}

impl fmt::Debug for Ipv4Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Ipv6Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Ipv4Net> for Ipv4Prefix {
    fn from(net: Ipv4Net) -> Self {
        Self { address: net.network(), length: net.prefix_len() }
    }
}

impl From<Ipv6Net> for Ipv6Prefix {
    fn from(net: Ipv6Net) -> Self {
        Self { address: net.network(), length: net.prefix_len() }
    }
}

impl From<IpNet> for Prefix {
    fn from(net: IpNet) -> Self {
        match net {
            IpNet::V4(net) => Self::V4(net.into()),
            IpNet::V6(net) => Self::V6(net.into()),
        }
    }
}

impl From<Ipv4Prefix> for Ipv4Net {
    fn from(prefix: Ipv4Prefix) -> Self {
        Self::new_assert(prefix.address, prefix.length)
    }
}

impl From<Ipv6Prefix> for Ipv6Net {
    fn from(prefix: Ipv6Prefix) -> Self {
        Self::new_assert(prefix.address, prefix.length)
    }
}

impl From<Prefix> for IpNet {
    fn from(prefix: Prefix) -> Self {
        match prefix {
            Prefix::V4(prefix) => Self::V4(prefix.into()),
            Prefix::V6(prefix) => Self::V6(prefix.into()),
        }
    }
}

/// The host route of an address.
impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(Ipv4Prefix { address, length: 32 }),
            IpAddr::V6(address) => Self::V6(Ipv6Prefix { address, length: 128 }),
        }
    }
}

impl FromStr for Prefix {
    type Err = ipnet::AddrParseError;

    /// `192.0.2.0/24` or `2001:db8::/32`; host bits are cleared.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<IpNet>().map(Self::from)
    }
}

/// A prefix and the identifier of one path to it (RFC 7911). Ordered by prefix, then path identifier.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nlri {
    /// Path identifier; 0 where the session has no add-path in this direction and family.
    pub path_id: u32,
    /// The prefix.
    pub prefix: Prefix,
}

impl Nlri {
    /// A prefix with a path identifier.
    #[must_use]
    pub const fn new(prefix: Prefix, path_id: u32) -> Self {
        Self { path_id, prefix }
    }
}

impl Ord for Nlri {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.prefix, self.path_id).cmp(&(other.prefix, other.path_id))
    }
}

impl PartialOrd for Nlri {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Nlri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path_id {
            0 => self.prefix.fmt(f),
            id => write!(f, "{} path {id}", self.prefix),
        }
    }
}

impl fmt::Debug for Nlri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Prefix> for Nlri {
    fn from(prefix: Prefix) -> Self {
        Self { path_id: 0, prefix }
    }
}

impl From<IpNet> for Nlri {
    fn from(net: IpNet) -> Self {
        Prefix::from(net).into()
    }
}

/// The host route of an address.
impl From<Ipv4Addr> for Nlri {
    fn from(address: Ipv4Addr) -> Self {
        Prefix::from(IpAddr::V4(address)).into()
    }
}

/// The host route of an address.
impl From<Ipv6Addr> for Nlri {
    fn from(address: Ipv6Addr) -> Self {
        Prefix::from(IpAddr::V6(address)).into()
    }
}
