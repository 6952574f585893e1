use proptest::prelude::*;

use super::*;

/// What a `status.used` may hold, tidy and not.
fn stored() -> impl Strategy<Value = BTreeMap<String, String>> {
    let address = prop::sample::select(
        &["192.0.2.1", " 192.0.2.1", "192.0.2.2", "192.0.2.10", "fd00::1", "FD00::1", "fd00::0:1", "x"][..],
    );
    let holders = prop::sample::select(
        &["ns/a", "ns/b", "ns/a;ns/b", "ns/b;ns/a", "ns/a;", "", "nobody", "ns/a;nobody"][..],
    );
    prop::collection::btree_map(address.prop_map(str::to_owned), holders.prop_map(str::to_owned), 0..6)
}

proptest! {
    #[test]
    fn a_new_version_reads_as_it_would_alone(versions in prop::collection::vec(stored(), 1..6)) {
        let mut used = Used::default();
        let mut records = BTreeSet::new();
        for version in versions {
            for Move { address, holder, came } in used.update(Some(&version)) {
                let new = if came { records.insert((address, holder)) } else { records.remove(&(address, holder)) };
                prop_assert!(new);
            }
            let mut alone = Used::default();
            alone.update(Some(&version));
            prop_assert_eq!(&alone, &used);
            let held: BTreeSet<_> =
                used.holders.iter().flat_map(|(a, keys)| keys.iter().map(|key| (*a, key.clone()))).collect();
            prop_assert_eq!(&held, &records);
            // What is tidy is what we would write.
            let ours: BTreeMap<String, String> =
                used.holders.iter().map(|(address, keys)| (address.to_string(), join(keys))).collect();
            prop_assert_eq!(ours == version, used.untidy.is_empty());
        }
        prop_assert_eq!(used.update(None).len(), records.len());
    }
}
