//! Text that a user writes as addresses, networks and ranges: never a panic, what was read prints to itself, and the
//! set holds exactly what the entries cover.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openelb_ipam::{RangeList, parse_address};

fuzz_target!(|text: &str| {
    if let Ok(address) = parse_address(text) {
        assert_eq!(parse_address(&address.to_string()), Ok(address));
    }
    let Ok(list) = text.parse::<RangeList>() else { return };
    assert_eq!(list.to_string().parse::<RangeList>().as_ref(), Ok(&list));
    let set = list.to_set();
    assert!(!set.is_empty());
    for entry in list.entries() {
        assert!(set.contains(entry.range.first()) && set.contains(entry.range.last()));
    }
    for range in set.iter() {
        let covered = |address| list.entries().iter().any(|entry| entry.range.contains(address));
        assert!(covered(range.first()) && covered(range.last()));
    }
});
