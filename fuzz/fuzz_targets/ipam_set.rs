//! Operations on an interval set, beside a set of single values.
#![no_main]

use std::collections::BTreeSet;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use openelb_ipam::IntervalSet;

/// Values are near one of these: both ends of what an address can be, and a place between.
const BASES: [u128; 3] = [0, (1 << 64) - 77, u128::MAX - 255];

#[derive(Debug, Arbitrary)]
enum Operation {
    Insert { first: u8, length: u8 },
    Remove { first: u8, length: u8 },
}

fuzz_target!(|input: (u8, Vec<Operation>)| {
    let (base, operations) = input;
    let Some(base) = BASES.get(usize::from(base) % BASES.len()).copied() else { return };
    let mut set = IntervalSet::default();
    let mut model = BTreeSet::new();
    for operation in operations {
        let (Operation::Insert { first, length } | Operation::Remove { first, length }) = operation;
        let last = first.saturating_add(length);
        let (from, to) = (base + u128::from(first), base + u128::from(last));
        let values = (first..=last).map(|value| base + u128::from(value));
        match operation {
            Operation::Insert { .. } => {
                set.insert(from, to);
                model.extend(values);
            }
            Operation::Remove { .. } => {
                set.remove(from, to);
                values.for_each(|value| {
                    model.remove(&value);
                });
            }
        }
    }
    assert_eq!(set.is_empty(), model.is_empty());
    assert_eq!(set.count(), model.len() as u128);
    assert_eq!((set.first(), set.last()), (model.first().copied(), model.last().copied()));
    for value in (0..=u8::MAX).map(|value| base + u128::from(value)) {
        assert_eq!(set.contains(value), model.contains(&value));
        assert_eq!(set.next_from(value), model.range(value..).next().copied());
        assert_eq!(set.next_back_from(value), model.range(..=value).next_back().copied());
    }
    // Intervals are sorted, and between two of them is a gap.
    let intervals: Vec<_> = set.iter().collect();
    for pair in intervals.windows(2) {
        if let [(_, end), (start, _)] = pair {
            assert!(end.checked_add(1).is_some_and(|next| next < *start));
        }
    }
});
