//! Sets of addresses of both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::interval::IntervalSet;
use crate::range::{AddressRange, Family};

/// A set of addresses of both families.
///
/// ```
/// use openelb_ipam::{RangeList, RangeSet};
///
/// let mut set: RangeSet = "192.0.2.0/24, 2001:db8::/64".parse::<RangeList>()?.to_set();
/// set.remove("192.0.2.0".parse()?);
/// assert_eq!(set.first(openelb_ipam::Family::V4), Some("192.0.2.1".parse()?));
/// assert_eq!(set.count(), 255 + (1 << 64));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    v4: IntervalSet,
    v6: IntervalSet,
}

impl RangeSet {
    /// The empty set.
    pub const EMPTY: Self = Self { v4: IntervalSet::EMPTY, v6: IntervalSet::EMPTY };

    /// The intervals of one family, as numbers.
    #[must_use]
    pub const fn family(&self, family: Family) -> &IntervalSet {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    pub(crate) const fn family_mut(&mut self, family: Family) -> &mut IntervalSet {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Number of addresses of both families, saturating at `u128::MAX`.
    #[must_use]
    pub fn count(&self) -> u128 {
        self.v4.count().saturating_add(self.v6.count())
    }

    /// Whether `address` is in the set.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (family, value) = to_number(address);
        self.family(family).contains(value)
    }

    /// Lowest address of a family.
    #[must_use]
    pub fn first(&self, family: Family) -> Option<IpAddr> {
        self.family(family).first().map(|value| from_number(family, value))
    }

    /// Highest address of a family.
    #[must_use]
    pub fn last(&self, family: Family) -> Option<IpAddr> {
        self.family(family).last().map(|value| from_number(family, value))
    }

    /// Adds one address.
    pub fn insert(&mut self, address: IpAddr) {
        let (family, value) = to_number(address);
        self.family_mut(family).insert(value, value);
    }

    /// Takes one address out.
    pub fn remove(&mut self, address: IpAddr) {
        let (family, value) = to_number(address);
        self.family_mut(family).remove(value, value);
    }

    /// Adds a range.
    pub fn insert_range(&mut self, range: AddressRange) {
        let (first, last) = range.numbers();
        self.family_mut(range.family()).insert(first, last);
    }

    /// Takes a range out.
    pub fn remove_range(&mut self, range: AddressRange) {
        let (first, last) = range.numbers();
        self.family_mut(range.family()).remove(first, last);
    }

    /// Takes out everything that is in `other`.
    pub fn subtract(&mut self, other: &Self) {
        for family in Family::ALL {
            for (first, last) in other.family(family).iter() {
                self.family_mut(family).remove(first, last);
            }
        }
    }

    /// What is in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        for family in Family::ALL {
            for (first, last) in other.family(family).iter() {
                for (f, l) in self.family(family).overlap(first, last) {
                    both.family_mut(family).insert(f, l);
                }
            }
        }
        both
    }

    /// Ranges in ascending order, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = AddressRange> + '_ {
        Family::ALL.into_iter().flat_map(|family| {
            self.family(family)
                .iter()
                .map(move |(first, last)| AddressRange::from_numbers(family, first, last))
        })
    }
}

impl FromIterator<IpAddr> for RangeSet {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let mut set = Self::default();
        for address in addresses {
            set.insert(address);
        }
        set
    }
}

impl FromIterator<AddressRange> for RangeSet {
    fn from_iter<I: IntoIterator<Item = AddressRange>>(ranges: I) -> Self {
        let mut set = Self::default();
        for range in ranges {
            set.insert_range(range);
        }
        set
    }
}

/// An address as its family and number.
pub(crate) fn to_number(address: IpAddr) -> (Family, u128) {
    match address {
        IpAddr::V4(v4) => (Family::V4, u128::from(u32::from(v4))),
        IpAddr::V6(v6) => (Family::V6, u128::from(v6)),
    }
}

/// The reverse of [`to_number`]; an IPv4 number above `u32::MAX` cannot occur and would saturate.
pub(crate) fn from_number(family: Family, value: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(value).unwrap_or(u32::MAX))),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(value)),
    }
}

#[cfg(test)]
mod tests;
