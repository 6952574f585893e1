//! Interval sets of addresses: every operation on one address takes O(log n) in the number of *intervals*, whatever
//! the number of addresses.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Bound;

use crate::range::{AddressRange, Family};

/// A set of `u128` as disjoint, non-adjacent, closed intervals.
///
/// ```
/// use openelb_ipam::IntervalSet;
///
/// let mut set = IntervalSet::default();
/// set.insert(10, 20);
/// set.remove(12, 12);
/// assert_eq!(set.iter().collect::<Vec<_>>(), [(10, 11), (13, 20)]);
/// assert_eq!(set.count(), 10);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IntervalSet {
    /// First value of each interval, and its last.
    intervals: BTreeMap<u128, u128>,
    /// Number of values modulo 2^128; only the full set wraps, to 0.
    count: u128,
}

impl IntervalSet {
    /// The empty set.
    pub const EMPTY: Self = Self { intervals: BTreeMap::new(), count: 0 };

    /// Whether nothing is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    /// Number of values, saturating at `u128::MAX` (the full set has one more). O(1).
    #[must_use]
    pub fn count(&self) -> u128 {
        if self.count == 0 && !self.is_empty() { u128::MAX } else { self.count }
    }

    /// Lowest value.
    #[must_use]
    pub fn first(&self) -> Option<u128> {
        self.intervals.first_key_value().map(|(first, _)| *first)
    }

    /// Highest value.
    #[must_use]
    pub fn last(&self) -> Option<u128> {
        self.intervals.last_key_value().map(|(_, last)| *last)
    }

    /// The interval that holds `value`.
    #[must_use]
    pub fn interval_of(&self, value: u128) -> Option<(u128, u128)> {
        let (first, last) = self.intervals.range(..=value).next_back()?;
        (*last >= value).then_some((*first, *last))
    }

    /// Whether `value` is in the set.
    #[must_use]
    pub fn contains(&self, value: u128) -> bool {
        self.interval_of(value).is_some()
    }

    /// The lowest value that is at least `value`.
    #[must_use]
    pub fn next_from(&self, value: u128) -> Option<u128> {
        if self.contains(value) {
            return Some(value);
        }
        self.intervals.range(value..).next().map(|(first, _)| *first)
    }

    /// The highest value that is at most `value`.
    #[must_use]
    pub fn next_back_from(&self, value: u128) -> Option<u128> {
        self.intervals.range(..=value).next_back().map(|(_, last)| (*last).min(value))
    }

    /// Intervals in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u128, u128)> + '_ {
        self.intervals.iter().map(|(first, last)| (*first, *last))
    }

    /// The parts of `first..=last` that are in the set, in ascending order.
    pub fn overlap(&self, first: u128, last: u128) -> impl Iterator<Item = (u128, u128)> + '_ {
        let start = self.interval_of(first).map_or(first, |(start, _)| start);
        let range = if first <= last { Some(self.intervals.range(start..=last)) } else { None };
        range.into_iter().flatten().map(move |(f, l)| ((*f).max(first), (*l).min(last)))
    }

    /// Adds `first..=last`; nothing if `first > last`.
    pub fn insert(&mut self, first: u128, last: u128) {
        if first > last {
            return;
        }
        let reach = last.saturating_add(1);
        // The last interval that begins before the end of the new one: if it begins below it, too, nothing above has to
        // be merged, and one way down the tree is enough to grow it, two to add one. This is how single addresses come.
        match self.intervals.range_mut(..=reach).next_back() {
            Some((start, end)) if *start <= first => {
                if *end >= last {
                    return;
                }
                if *end >= first.saturating_sub(1) {
                    self.count = self.count.wrapping_sub(size(*start, *end)).wrapping_add(size(*start, last));
                    *end = last;
                    return;
                }
                self.intervals.insert(first, last);
                self.count = self.count.wrapping_add(size(first, last));
                return;
            }
            // The only one that can begin above a single value begins right behind it: it moves into the one below, or
            // begins one earlier.
            Some((&above, &mut end)) if first == last => {
                self.intervals.remove(&above);
                self.count = self.count.wrapping_add(1);
                match self.intervals.range_mut(..first).next_back() {
                    Some((_, below)) if *below >= first.saturating_sub(1) => *below = end,
                    _ => {
                        self.intervals.insert(first, end);
                    }
                }
                return;
            }
            Some(_) => {}
            None => {
                self.intervals.insert(first, last);
                self.count = self.count.wrapping_add(size(first, last));
                return;
            }
        }
        // The neighbour below grows in place when it overlaps or touches: that is one change of the tree less.
        let below = self
            .intervals
            .range(..=first)
            .next_back()
            .map(|(start, end)| (*start, *end))
            .filter(|(_, end)| end.checked_add(1).is_none_or(|next| next >= first));
        let (start, mut end) = match below {
            Some((_, end)) if end >= last => return,
            Some((start, end)) => {
                self.count = self.count.wrapping_sub(size(start, end));
                (start, last)
            }
            None => (first, last),
        };
        let after = if below.is_some() { Bound::Excluded(start) } else { Bound::Included(start) };
        while let Some((&f, &l)) = self.intervals.range((after, Bound::Included(reach))).next() {
            self.intervals.remove(&f);
            self.count = self.count.wrapping_sub(size(f, l));
            end = end.max(l);
        }
        *self.intervals.entry(start).or_insert(end) = end;
        self.count = self.count.wrapping_add(size(start, end));
    }

    /// Takes `first..=last` out; nothing if `first > last`.
    pub fn remove(&mut self, first: u128, last: u128) {
        if first > last {
            return;
        }
        if let Some((_, end)) = self.intervals.range_mut(..first).next_back()
            && *end >= first
        {
            let old = std::mem::replace(end, first - 1);
            self.count = self.count.wrapping_sub(size(first, old));
            if old > last {
                self.intervals.insert(last + 1, old);
                self.count = self.count.wrapping_add(size(last + 1, old));
                return;
            }
        }
        while let Some((&f, &l)) = self.intervals.range(first..=last).next() {
            self.intervals.remove(&f);
            self.count = self.count.wrapping_sub(size(f, l));
            if l > last {
                self.intervals.insert(last + 1, l);
                self.count = self.count.wrapping_add(size(last + 1, l));
            }
        }
    }
}

/// Number of values of a closed interval, modulo 2^128.
const fn size(first: u128, last: u128) -> u128 {
    last.wrapping_sub(first).wrapping_add(1)
}

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
