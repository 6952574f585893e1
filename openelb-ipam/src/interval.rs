//! Sets of numbers: every operation on one number takes O(log n) in the number of *intervals* at most, whatever the
//! number of numbers; and far less where many small intervals are close together, as in the free space of a pool that
//! has been in use for long.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::iter::Peekable;

/// Bits of a number that tell the values of one block apart.
const BITS: u32 = 7;
/// A block that is in the set as a whole.
const WHOLE: u128 = u128::MAX;

/// A set of `u128`, seen as disjoint, non-adjacent, closed intervals.
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
// One set has one representation: a block is either in `whole`, or in `mixed` with some but not all of its values, or
// in neither. So equal sets are equal field by field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IntervalSet {
    /// Blocks of which all values are in the set: number of the first block of a run, and of its last. Runs are
    /// disjoint and not adjacent.
    whole: BTreeMap<u128, u128>,
    /// Blocks of which some values are in the set: a bit for each.
    mixed: BTreeMap<u128, u128>,
    /// Number of values modulo 2^128; only the full set wraps, to 0.
    count: u128,
}

/// The block of a value, and the value's bit in it.
const fn locate(value: u128) -> (u128, u32) {
    let bit = (value & ((1 << BITS) - 1)) as u32;
    (value >> BITS, bit)
}

/// The bits from `first` to `last`, both at most 127.
const fn bits(first: u32, last: u32) -> u128 {
    (WHOLE << first) & (WHOLE >> (127 - last))
}

impl IntervalSet {
    /// The empty set.
    pub const EMPTY: Self = Self { whole: BTreeMap::new(), mixed: BTreeMap::new(), count: 0 };

    /// Whether nothing is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.mixed.is_empty()
    }

    /// Number of values, saturating at `u128::MAX` (the full set has one more). O(1).
    #[must_use]
    pub fn count(&self) -> u128 {
        if self.count == 0 && !self.is_empty() { u128::MAX } else { self.count }
    }

    /// Lowest value.
    #[must_use]
    pub fn first(&self) -> Option<u128> {
        let whole = self.whole.first_key_value().map(|(first, _)| first << BITS);
        let mixed = self
            .mixed
            .first_key_value()
            .map(|(block, mask)| block << BITS | u128::from(mask.trailing_zeros()));
        whole.into_iter().chain(mixed).min()
    }

    /// Highest value.
    #[must_use]
    pub fn last(&self) -> Option<u128> {
        let whole = self.whole.last_key_value().map(|(_, last)| last << BITS | 127);
        let mixed = self
            .mixed
            .last_key_value()
            .map(|(block, mask)| block << BITS | u128::from(127 - mask.leading_zeros()));
        whole.into_iter().chain(mixed).max()
    }

    /// The run of whole blocks that holds `block`.
    fn run_of(&self, block: u128) -> Option<(u128, u128)> {
        let (first, last) = self.whole.range(..=block).next_back()?;
        (*last >= block).then_some((*first, *last))
    }

    /// The bits of a block that are in the set.
    fn mask(&self, block: u128) -> u128 {
        match self.mixed.get(&block) {
            Some(mask) => *mask,
            None if self.run_of(block).is_some() => WHOLE,
            None => 0,
        }
    }

    /// The interval that holds `value`.
    #[must_use]
    pub fn interval_of(&self, value: u128) -> Option<(u128, u128)> {
        let (block, bit) = locate(value);
        let mask = self.mask(block);
        if mask & 1 << bit == 0 {
            return None;
        }
        Some((self.start_of(block, bit, mask), self.end_of(block, bit, mask)))
    }

    /// Where the interval begins that holds a bit of a block.
    fn start_of(&self, mut block: u128, bit: u32, mask: u128) -> u128 {
        // Ones from the bit downwards.
        let mut ones = (mask << (127 - bit)).leading_ones();
        let mut low = bit + 1 - ones;
        while low == 0 {
            if ones == 128 {
                block = self.run_of(block).map_or(block, |(first, _)| first);
            }
            let Some(below) = block.checked_sub(1) else { break };
            ones = self.mask(below).leading_ones();
            if ones == 0 {
                break;
            }
            (block, low) = (below, 128 - ones);
        }
        block << BITS | u128::from(low)
    }

    /// Where the interval ends that holds a bit of a block.
    fn end_of(&self, mut block: u128, bit: u32, mask: u128) -> u128 {
        const LAST: u128 = u128::MAX >> BITS;
        let mut ones = (mask >> bit).trailing_ones();
        let mut high = bit + ones - 1;
        while high == 127 {
            if ones == 128 {
                block = self.run_of(block).map_or(block, |(_, last)| last);
            }
            if block == LAST {
                break;
            }
            ones = self.mask(block + 1).trailing_ones();
            if ones == 0 {
                break;
            }
            (block, high) = (block + 1, ones - 1);
        }
        block << BITS | u128::from(high)
    }

    /// Whether `value` is in the set.
    #[must_use]
    pub fn contains(&self, value: u128) -> bool {
        let (block, bit) = locate(value);
        self.mask(block) & 1 << bit != 0
    }

    /// The lowest value that is at least `value`.
    #[must_use]
    pub fn next_from(&self, value: u128) -> Option<u128> {
        let (block, bit) = locate(value);
        let mut mixed = self.mixed.range(block..);
        let mut next = mixed.next();
        if let Some((found, mask)) = next
            && *found == block
        {
            let mask = mask & WHOLE << bit;
            if mask != 0 {
                return Some(block << BITS | u128::from(mask.trailing_zeros()));
            }
            next = mixed.next();
        } else if self.run_of(block).is_some() {
            return Some(value);
        }
        let mixed = next.map(|(block, mask)| block << BITS | u128::from(mask.trailing_zeros()));
        let whole = self.whole.range(block..).next().map(|(first, _)| first << BITS);
        whole.into_iter().chain(mixed).min()
    }

    /// The highest value that is at most `value`.
    #[must_use]
    pub fn next_back_from(&self, value: u128) -> Option<u128> {
        let (block, bit) = locate(value);
        let mut mixed = self.mixed.range(..=block);
        let mut next = mixed.next_back();
        if let Some((found, mask)) = next
            && *found == block
        {
            let mask = mask & bits(0, bit);
            if mask != 0 {
                return Some(block << BITS | u128::from(127 - mask.leading_zeros()));
            }
            next = mixed.next_back();
        }
        let mixed = next.map(|(block, mask)| block << BITS | u128::from(127 - mask.leading_zeros()));
        let whole = self.whole.range(..=block).next_back().map(|(_, last)| (last << BITS | 127).min(value));
        whole.into_iter().chain(mixed).max()
    }

    /// Intervals in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (u128, u128)> + '_ {
        Iter::from(self, 0)
    }

    /// The parts of `first..=last` that are in the set, in ascending order.
    pub fn overlap(&self, first: u128, last: u128) -> impl Iterator<Item = (u128, u128)> + '_ {
        let iter = (first <= last).then(|| Iter::from(self, first));
        iter.into_iter()
            .flatten()
            .skip_while(move |(_, l)| *l < first)
            .take_while(move |(f, _)| *f <= last)
            .map(move |(f, l)| (f.max(first), l.min(last)))
    }

    /// Adds `first..=last`; nothing if `first > last`.
    pub fn insert(&mut self, first: u128, last: u128) {
        self.each_part(first, last, Self::insert_bits, Self::insert_blocks);
    }

    /// Takes `first..=last` out; nothing if `first > last`.
    pub fn remove(&mut self, first: u128, last: u128) {
        self.each_part(first, last, Self::remove_bits, Self::remove_blocks);
    }

    /// Cuts `first..=last` into parts of blocks, and whole blocks.
    fn each_part(
        &mut self,
        first: u128,
        last: u128,
        part: impl Fn(&mut Self, u128, u128),
        whole: impl Fn(&mut Self, u128, u128),
    ) {
        if first > last {
            return;
        }
        let ((mut from, low), (mut to, high)) = (locate(first), locate(last));
        if from == to && (low, high) != (0, 127) {
            return part(self, from, bits(low, high));
        }
        if low != 0 {
            part(self, from, bits(low, 127));
            from += 1;
        }
        if high != 127 {
            part(self, to, bits(0, high));
            // There is a block below, the one that `first` is in.
            to -= 1;
        }
        if from <= to {
            whole(self, from, to);
        }
    }

    fn insert_bits(&mut self, block: u128, bits: u128) {
        if let Some(mask) = self.mixed.get_mut(&block) {
            self.count = self.count.wrapping_add(u128::from((bits & !*mask).count_ones()));
            *mask |= bits;
            if *mask == WHOLE {
                self.mixed.remove(&block);
                self.join(block, block);
            }
        } else if self.run_of(block).is_none() {
            self.count = self.count.wrapping_add(u128::from(bits.count_ones()));
            self.mixed.insert(block, bits);
        }
    }

    fn remove_bits(&mut self, block: u128, bits: u128) {
        if let Some(mask) = self.mixed.get_mut(&block) {
            self.count = self.count.wrapping_sub(u128::from((bits & *mask).count_ones()));
            *mask &= !bits;
            if *mask == 0 {
                self.mixed.remove(&block);
            }
        } else if let Some(run) = self.run_of(block) {
            self.count = self.count.wrapping_sub(u128::from(bits.count_ones()));
            self.mixed.insert(block, !bits);
            self.cut(run, block, block);
        }
    }

    fn insert_blocks(&mut self, from: u128, to: u128) {
        self.remove_blocks(from, to);
        self.count = self.count.wrapping_add((to - from + 1).wrapping_shl(BITS));
        self.join(from, to);
    }

    fn remove_blocks(&mut self, from: u128, to: u128) {
        while let Some((&block, &mask)) = self.mixed.range(from..=to).next() {
            self.mixed.remove(&block);
            self.count = self.count.wrapping_sub(u128::from(mask.count_ones()));
        }
        while let Some((&first, &last)) = self.whole.range(..=to).next_back()
            && last >= from
        {
            let (low, high) = (first.max(from), last.min(to));
            self.cut((first, last), low, high);
            self.count = self.count.wrapping_sub((high - low + 1).wrapping_shl(BITS));
        }
    }

    /// Makes whole blocks, none of which was, part of the runs.
    fn join(&mut self, mut from: u128, mut to: u128) {
        // Numbers of blocks have 121 bits: one more is no overflow.
        if let Some(last) = self.whole.remove(&(to + 1)) {
            to = last;
        }
        if let Some((first, last)) = self.whole.range_mut(..from).next_back()
            && *last + 1 == from
        {
            *last = to;
            from = *first;
        }
        self.whole.entry(from).or_insert(to);
    }

    /// Takes blocks out of the run that holds them.
    fn cut(&mut self, (first, last): (u128, u128), from: u128, to: u128) {
        if first < from {
            self.whole.insert(first, from - 1);
        } else {
            self.whole.remove(&first);
        }
        if to < last {
            self.whole.insert(to + 1, last);
        }
    }
}

/// Intervals from a block on, in ascending order; the first may begin before it.
struct Iter<'a> {
    whole: Peekable<btree_map::Range<'a, u128, u128>>,
    mixed: Peekable<btree_map::Range<'a, u128, u128>>,
    /// What is left of the present mixed block.
    block: (u128, u128),
    /// What was found and may go on.
    open: Option<(u128, u128)>,
}

impl<'a> Iter<'a> {
    /// From the interval on that holds `value`, or one that is close before it.
    fn from(set: &'a IntervalSet, value: u128) -> Self {
        let start = set.interval_of(value).map_or(value, |(start, _)| start);
        let (block, _) = locate(start);
        let run = set.run_of(block).map_or(block, |(first, _)| first);
        Self {
            whole: set.whole.range(run..).peekable(),
            mixed: set.mixed.range(block..).peekable(),
            block: (0, 0),
            open: None,
        }
    }

    /// The next piece: of one block, or a run of blocks.
    fn piece(&mut self) -> Option<(u128, u128)> {
        let (block, mask) = &mut self.block;
        if *mask == 0 {
            let next = self.mixed.peek().map(|(block, _)| **block);
            if let Some((first, last)) =
                self.whole.next_if(|(first, _)| next.is_none_or(|next| **first < next))
            {
                return Some((first << BITS, last << BITS | 127));
            }
            let (number, bits) = self.mixed.next()?;
            (*block, *mask) = (*number, *bits);
        }
        let low = mask.trailing_zeros();
        let high = low + (*mask >> low).trailing_ones() - 1;
        *mask &= !bits(low, high);
        Some((*block << BITS | u128::from(low), *block << BITS | u128::from(high)))
    }
}

impl Iterator for Iter<'_> {
    type Item = (u128, u128);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match (self.piece(), self.open) {
                (Some((first, last)), Some((start, end))) if end + 1 == first => {
                    self.open = Some((start, last));
                }
                (Some(piece), open) => {
                    self.open = Some(piece);
                    if open.is_some() {
                        return open;
                    }
                }
                (None, _) => return self.open.take(),
            }
        }
    }
}

#[cfg(test)]
mod tests;
