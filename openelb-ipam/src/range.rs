//! Text <-> ranges of addresses.
//!
//! The grammar, for pools and exclusions alike: entries separated by commas, semicolons or white space (new lines
//! too), each one of
//!
//! | form | example | meaning |
//! |---|---|---|
//! | `A` | `192.0.2.7`, `2001:db8::7` | one address |
//! | `A/len` | `192.0.2.0/24` | a network; host bits are ignored |
//! | `A-B` | `192.0.2.10 - 192.0.2.20` | both ends included; white space around the `-` is fine |
//! | `A/mask` | `192.0.2.0/255.255.255.0` | IPv4 with a canonical mask |

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::error::{RangeError, RangeProblem};
use crate::set::{RangeSet, from_number, to_number};

/// Address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bits of an address: 32 or 128.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A non-empty range of addresses of one family, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    family: Family,
    first: u128,
    last: u128,
}

impl AddressRange {
    /// The range from `first` to `last`.
    ///
    /// # Errors
    /// The ends are of two families, or in the wrong order.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, RangeProblem> {
        let (family, low) = to_number(first);
        let (last_family, high) = to_number(last);
        if family != last_family {
            return Err(RangeProblem::MixedFamilies);
        }
        if low > high {
            return Err(RangeProblem::Reversed);
        }
        Ok(Self { family, first: low, last: high })
    }

    pub(crate) const fn from_numbers(family: Family, first: u128, last: u128) -> Self {
        Self { family, first, last }
    }

    pub(crate) const fn numbers(&self) -> (u128, u128) {
        (self.first, self.last)
    }

    /// The family of both ends.
    #[must_use]
    pub const fn family(&self) -> Family {
        self.family
    }

    /// Lowest address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        from_number(self.family, self.first)
    }

    /// Highest address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        from_number(self.family, self.last)
    }

    /// Whether `address` lies between the ends.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (family, value) = to_number(address);
        family == self.family && (self.first..=self.last).contains(&value)
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first())
        } else {
            write!(f, "{}-{}", self.first(), self.last())
        }
    }
}

/// One entry of a [`RangeList`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// What it covers.
    pub range: AddressRange,
    /// The prefix length where the entry was written as a network, of the family's bits.
    pub prefix_len: Option<u8>,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix_len {
            Some(len) => write!(f, "{}/{len}", self.range.first()),
            None => write!(f, "{}", self.range),
        }
    }
}

/// A parsed list of ranges, in the order of the text.
///
/// ```
/// use openelb_ipam::RangeList;
///
/// let list: RangeList = "192.0.2.5/24, 198.51.100.1 - 198.51.100.9\n2001:db8::1".parse()?;
/// assert_eq!(list.to_string(), "192.0.2.0/24,198.51.100.1-198.51.100.9,2001:db8::1");
/// let error = "192.0.2.0/24, 192.0.2.300".parse::<RangeList>().unwrap_err();
/// assert_eq!(error.entry, "192.0.2.300");
/// # Ok::<(), openelb_ipam::RangeError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeList {
    entries: Vec<Entry>,
}

impl RangeList {
    /// The entries in the order of the text; they may overlap.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Appends the entries of `other`.
    pub fn extend(&mut self, other: Self) {
        self.entries.extend(other.entries);
    }

    /// The addresses, overlaps merged.
    #[must_use]
    pub fn to_set(&self) -> RangeSet {
        self.entries.iter().map(|entry| entry.range).collect()
    }
}

impl fmt::Display for RangeList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, entry) in self.entries.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{entry}")?;
        }
        Ok(())
    }
}

impl FromStr for RangeList {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let mut entries = Vec::new();
        for raw in split(text) {
            let entry = raw.parse().map_err(|problem| RangeError { entry: raw.to_string(), problem })?;
            entries.push(entry);
        }
        if entries.is_empty() {
            return Err(RangeError { entry: text.trim().to_owned(), problem: RangeProblem::Empty });
        }
        Ok(Self { entries })
    }
}

/// Parses one address as users write it: the plain forms of RFC 4291 §2.2 and dotted IPv4, white space trimmed.
/// IPv4-mapped IPv6, zones, and IPv4 parts with leading zeros are refused.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_address(text: &str) -> Result<IpAddr, RangeProblem> {
    let text = text.trim();
    if text.contains('%') {
        return Err(RangeProblem::Zone);
    }
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => Err(RangeProblem::Ipv4Mapped),
        Ok(address) => Ok(address),
        Err(_) if has_leading_zeros(text) => Err(RangeProblem::LeadingZeros),
        Err(_) => Err(RangeProblem::NotAnAddress),
    }
}

/// Four dotted decimal parts of which one begins with a superfluous zero.
fn has_leading_zeros(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 4
        && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
        && parts.iter().any(|part| part.len() > 1 && part.starts_with('0'))
}

/// An entry's text: its word, and what follows the `-`.
#[derive(Debug, Clone, Copy)]
enum Raw<'a> {
    One(&'a str),
    Range(&'a str, &'a str),
    /// A `-` without an end on one side, or two in a row; the text around it.
    Dangling(&'a str),
}

impl fmt::Display for Raw<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(word) | Self::Dangling(word) => f.write_str(word),
            Self::Range(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

impl Raw<'_> {
    fn parse(&self) -> Result<Entry, RangeProblem> {
        match self {
            Self::Dangling(_) => Err(RangeProblem::DanglingDash),
            Self::Range(first, last) => {
                if first.contains('/') || last.contains('/') {
                    return Err(RangeProblem::NetworkInRange);
                }
                let range = AddressRange::new(parse_address(first)?, parse_address(last)?)?;
                Ok(Entry { range, prefix_len: None })
            }
            Self::One(word) => match word.split_once('/') {
                None => {
                    let address = parse_address(word)?;
                    Ok(Entry { range: AddressRange::new(address, address)?, prefix_len: None })
                }
                Some((address, length)) => network(parse_address(address)?, length),
            },
        }
    }
}

fn network(address: IpAddr, length: &str) -> Result<Entry, RangeProblem> {
    let (family, value) = to_number(address);
    let len = if length.contains('.') && family == Family::V4 {
        let mask = match parse_address(length)? {
            IpAddr::V4(mask) => u32::from(mask),
            IpAddr::V6(_) => return Err(RangeProblem::NotAMask),
        };
        if mask.leading_ones() + mask.trailing_zeros() < 32 {
            return Err(RangeProblem::NotAMask);
        }
        u8::try_from(mask.leading_ones()).unwrap_or(32)
    } else {
        let plain = length.bytes().all(|b| b.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
        let parsed = if plain { length.parse::<u8>().ok() } else { None };
        parsed
            .filter(|len| *len <= family.bits())
            .ok_or_else(|| RangeProblem::PrefixLength { max: family.bits() })?
    };
    // The host part as ones; a shift by all 128 bits (::/0) would overflow.
    let host = u128::MAX.checked_shr(128 - u32::from(family.bits() - len)).unwrap_or(0);
    let first = value & !host;
    Ok(Entry { range: AddressRange::from_numbers(family, first, first | host), prefix_len: Some(len) })
}

/// Cuts the text into entries.
fn split(text: &str) -> Vec<Raw<'_>> {
    let mut entries = Vec::new();
    for part in text.split([',', ';']) {
        split_part(part, &mut entries);
    }
    entries
}

/// One part between commas: words and dashes.
fn split_part<'a>(part: &'a str, entries: &mut Vec<Raw<'a>>) {
    let mut tokens = tokens(part).peekable();
    while let Some(word) = tokens.next() {
        if word == "-" {
            entries.push(Raw::Dangling(part.trim()));
            return;
        }
        if tokens.next_if_eq(&"-").is_none() {
            entries.push(Raw::One(word));
            continue;
        }
        match tokens.next() {
            Some(last) if last != "-" && tokens.peek() != Some(&"-") => entries.push(Raw::Range(word, last)),
            _ => {
                entries.push(Raw::Dangling(part.trim()));
                return;
            }
        }
    }
}

/// Words and single dashes; no address has a `-` in it.
fn tokens(part: &str) -> impl Iterator<Item = &str> {
    part.split_whitespace().flat_map(|word| word.split_inclusive('-')).flat_map(|piece| {
        match piece.strip_suffix('-') {
            Some("") => [Some("-"), None],
            Some(word) => [Some(word), Some("-")],
            None => [Some(piece), None],
        }
        .into_iter()
        .flatten()
    })
}

/// The addresses that no pool ever gives, not even by name: "this network" (RFC 1122 §3.2.1.3), loopback, multicast
/// and class E with broadcast (224.0.0.0/3), the unspecified and loopback IPv6 addresses, IPv6 multicast, link-local
/// of both families (RFC 3927, RFC 4291 §2.5.6), and IPv4-mapped IPv6 (RFC 4291 §2.5.5.2: never on the wire).
#[must_use]
pub fn never_given() -> RangeSet {
    const V4: [(Ipv4Addr, Ipv4Addr); 4] = [
        (Ipv4Addr::new(0, 0, 0, 0), Ipv4Addr::new(0, 255, 255, 255)),
        (Ipv4Addr::new(127, 0, 0, 0), Ipv4Addr::new(127, 255, 255, 255)),
        (Ipv4Addr::new(169, 254, 0, 0), Ipv4Addr::new(169, 254, 255, 255)),
        (Ipv4Addr::new(224, 0, 0, 0), Ipv4Addr::new(255, 255, 255, 255)),
    ];
    const V6: [(Ipv6Addr, Ipv6Addr); 4] = [
        (Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST),
        (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0xffff, 0xffff)),
        (
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
            Ipv6Addr::new(0xfebf, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff),
        ),
        (
            Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0),
            Ipv6Addr::new(0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff),
        ),
    ];
    let mut set = RangeSet::default();
    for (first, last) in V4 {
        set.family_mut(Family::V4).insert(u128::from(u32::from(first)), u128::from(u32::from(last)));
    }
    for (first, last) in V6 {
        set.family_mut(Family::V6).insert(u128::from(first), u128::from(last));
    }
    set
}

#[cfg(test)]
mod tests;
