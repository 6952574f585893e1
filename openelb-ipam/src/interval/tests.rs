use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[test]
fn counts_saturate_and_empty_again() {
    let mut set = IntervalSet::default();
    assert_eq!((set.count(), set.is_empty()), (0, true));
    set.insert(0, u128::MAX);
    assert_eq!((set.count(), set.first(), set.last()), (u128::MAX, Some(0), Some(u128::MAX)));
    set.remove(5, 5);
    assert_eq!(set.count(), u128::MAX);
    set.remove(6, 6);
    assert_eq!(set.count(), u128::MAX - 1);
    set.remove(0, u128::MAX);
    assert_eq!((set.count(), set.is_empty()), (0, true));
}

#[test]
fn neighbours_merge_and_holes_split() {
    let mut set = IntervalSet::default();
    set.insert(10, 19);
    set.insert(30, 39);
    set.insert(20, 29);
    assert_eq!(set.iter().collect::<Vec<_>>(), [(10, 39)]);
    set.remove(15, 34);
    assert_eq!(set.iter().collect::<Vec<_>>(), [(10, 14), (35, 39)]);
    set.insert(5, 3);
    set.remove(36, 35);
    assert_eq!(set.count(), 10);
    assert_eq!(set.overlap(12, 36).collect::<Vec<_>>(), [(12, 14), (35, 36)]);
    assert_eq!(set.overlap(15, 34).count(), 0);
    assert_eq!((set.next_from(15), set.next_from(36), set.next_from(40)), (Some(35), Some(36), None));
    assert_eq!((set.next_back_from(34), set.next_back_from(9)), (Some(14), None));
}

#[test]
fn intervals_go_through_blocks() {
    let mut set = IntervalSet::default();
    set.insert(100, 1_000_000);
    assert_eq!(set.interval_of(128), Some((100, 1_000_000)));
    assert_eq!(set.interval_of(500_000), Some((100, 1_000_000)));
    assert_eq!(set.iter().collect::<Vec<_>>(), [(100, 1_000_000)]);
    set.remove(640, 640);
    assert_eq!((set.interval_of(639), set.interval_of(641)), (Some((100, 639)), Some((641, 1_000_000))));
    assert_eq!(set.interval_of(640), None);
    let before = set.clone();
    set.insert(640, 640);
    assert_eq!(set.iter().collect::<Vec<_>>(), [(100, 1_000_000)]);
    set.remove(640, 640);
    assert_eq!(set, before);
}

/// Lower ends of what is worked on: both ends of all numbers, and a place between that no block begins at.
const BASES: [u128; 3] = [0, (1 << 64) - 77, u128::MAX - 1279];

proptest! {
    #[test]
    fn like_a_set_of_single_values(
        base in prop::sample::select(&BASES[..]),
        operations in prop::collection::vec((any::<bool>(), 0_u128..700, length()), 0..60),
    ) {
        let mut set = IntervalSet::default();
        let mut model = BTreeSet::new();
        for (insert, first, length) in operations {
            let (first, last) = (base + first, base + first + length);
            if insert {
                set.insert(first, last);
                model.extend(first..=last);
            } else {
                set.remove(first, last);
                model.retain(|value| !(first..=last).contains(value));
            }
            prop_assert_eq!(set.count(), model.len() as u128);
            prop_assert_eq!(set.first(), model.first().copied());
            prop_assert_eq!(set.last(), model.last().copied());
        }
        let intervals: Vec<_> = set.iter().collect();
        for pair in intervals.windows(2) {
            prop_assert!(pair[0].1 + 1 < pair[1].0);
        }
        prop_assert_eq!(intervals.iter().flat_map(|(f, l)| *f..=*l).collect::<BTreeSet<_>>(), model.clone());
        let rebuilt = intervals.iter().fold(IntervalSet::default(), |mut set, (f, l)| {
            set.insert(*f, *l);
            set
        });
        prop_assert_eq!(&rebuilt, &set);
        for value in (0..1280).step_by(7).map(|value| base + value) {
            let around = intervals.iter().copied().find(|(f, l)| (*f..=*l).contains(&value));
            prop_assert_eq!(set.contains(value), model.contains(&value));
            prop_assert_eq!(set.interval_of(value), around);
            prop_assert_eq!(set.next_from(value), model.range(value..).next().copied());
            prop_assert_eq!(set.next_back_from(value), model.range(..=value).next_back().copied());
            let last = value.saturating_add(150);
            let parts: BTreeSet<_> = set.overlap(value, last).flat_map(|(f, l)| f..=l).collect();
            prop_assert_eq!(parts, model.range(value..=last).copied().collect::<BTreeSet<_>>());
        }
    }
}

/// Of single values, and of several blocks.
fn length() -> impl Strategy<Value = u128> {
    prop_oneof![Just(0), 0_u128..40, 0_u128..580]
}
