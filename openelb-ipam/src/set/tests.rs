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
fn families_are_apart() {
    let mut set = RangeSet::default();
    set.insert("0.0.0.5".parse().unwrap());
    assert!(!set.contains("::5".parse().unwrap()));
    assert_eq!((set.first(Family::V4), set.first(Family::V6)), (Some("0.0.0.5".parse().unwrap()), None));
}

proptest! {
    #[test]
    fn like_a_set_of_single_values(operations in prop::collection::vec((any::<bool>(), 0_u8..200, 0_u8..40), 0..60)) {
        // At the upper end, where additions overflow.
        const BASE: u128 = u128::MAX - 255;
        let mut set = IntervalSet::default();
        let mut model = BTreeSet::new();
        for (insert, first, length) in operations {
            let (first, last) = (BASE + u128::from(first), BASE + u128::from(first) + u128::from(length));
            if insert {
                set.insert(first, last);
                model.extend(first..=last);
            } else {
                set.remove(first, last);
                model.retain(|value| !(first..=last).contains(value));
            }
            prop_assert_eq!(set.count(), model.len() as u128);
            prop_assert_eq!(set.first(), model.first().copied());
            prop_assert_eq!(set.iter().flat_map(|(f, l)| f..=l).collect::<BTreeSet<_>>(), model.clone());
        }
    }

    #[test]
    fn algebra_of_range_sets(a in ranges(), b in ranges()) {
        let both = a.intersection(&b);
        let mut rest = a.clone();
        rest.subtract(&b);
        prop_assert_eq!(both.count() + rest.count(), a.count());
        prop_assert!(both.iter().all(|range| a.contains(range.first()) && b.contains(range.last())));
        prop_assert!(rest.iter().all(|range| a.contains(range.first()) && !b.contains(range.first())));
    }
}

fn ranges() -> impl Strategy<Value = RangeSet> {
    prop::collection::vec((any::<bool>(), 0_u128..200, 0_u128..50), 0..8).prop_map(|ranges| {
        let mut set = RangeSet::default();
        for (v4, first, length) in ranges {
            let family = if v4 { Family::V4 } else { Family::V6 };
            set.family_mut(family).insert(first, first + length);
        }
        set
    })
}
