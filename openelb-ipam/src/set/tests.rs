use proptest::prelude::*;

use super::*;

#[test]
fn families_are_apart() {
    let mut set = RangeSet::default();
    set.insert("0.0.0.5".parse().unwrap());
    assert!(!set.contains("::5".parse().unwrap()));
    assert_eq!((set.first(Family::V4), set.first(Family::V6)), (Some("0.0.0.5".parse().unwrap()), None));
}

proptest! {
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
