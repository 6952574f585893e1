use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<String, (String, RangeProblem)> {
    text.parse::<RangeList>().map(|list| list.to_string()).map_err(|error| (error.entry, error.problem))
}

#[test]
fn every_form_of_the_grammar() {
    let table = [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:DB8:0::7", "2001:db8::7"),
        ("192.0.2.77/24", "192.0.2.0/24"),
        ("2001:db8::1/64", "2001:db8::/64"),
        ("192.0.2.1-192.0.2.9", "192.0.2.1-192.0.2.9"),
        ("192.0.2.1 - 192.0.2.9", "192.0.2.1-192.0.2.9"),
        ("192.0.2.1\n-\t192.0.2.9", "192.0.2.1-192.0.2.9"),
        ("192.0.2.1- 192.0.2.9 192.0.2.20", "192.0.2.1-192.0.2.9,192.0.2.20"),
        ("192.0.2.0/255.255.255.0", "192.0.2.0/24"),
        ("192.0.2.0/0.0.0.0", "0.0.0.0/0"),
        ("192.0.2.1/255.255.255.255", "192.0.2.1/32"),
        (
            "192.0.2.1,192.0.2.2;192.0.2.3 192.0.2.4\n192.0.2.5",
            "192.0.2.1,192.0.2.2,192.0.2.3,192.0.2.4,192.0.2.5",
        ),
        (" , 192.0.2.1 ,, ", "192.0.2.1"),
        ("0.0.0.0/0, ::/0", "0.0.0.0/0,::/0"),
        ("192.0.2.9-192.0.2.9", "192.0.2.9"),
        ("2001:db8::1-2001:db8::ffff", "2001:db8::1-2001:db8::ffff"),
    ];
    for (text, expected) in table {
        assert_eq!(read(text), Ok(expected.to_owned()), "{text}");
    }
}

#[test]
fn one_bad_entry_is_named_with_what_is_wrong() {
    use RangeProblem as P;
    let table = [
        ("", "", P::Empty),
        (" ,; ", ",;", P::Empty),
        ("192.0.2.1, 192.0.2.300", "192.0.2.300", P::NotAnAddress),
        ("192.0.2.010", "192.0.2.010", P::LeadingZeros),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1", P::Ipv4Mapped),
        ("fe80::1%eth0", "fe80::1%eth0", P::Zone),
        ("192.0.2.0/33", "192.0.2.0/33", P::PrefixLength { max: 32 }),
        ("192.0.2.0/024", "192.0.2.0/024", P::PrefixLength { max: 32 }),
        ("192.0.2.0/+24", "192.0.2.0/+24", P::PrefixLength { max: 32 }),
        ("192.0.2.0/", "192.0.2.0/", P::PrefixLength { max: 32 }),
        ("2001:db8::/129", "2001:db8::/129", P::PrefixLength { max: 128 }),
        ("2001:db8::/ffff::", "2001:db8::/ffff::", P::PrefixLength { max: 128 }),
        ("192.0.2.0/255.0.255.0", "192.0.2.0/255.0.255.0", P::NotAMask),
        ("192.0.2.9-192.0.2.1", "192.0.2.9-192.0.2.1", P::Reversed),
        ("192.0.2.1-2001:db8::1", "192.0.2.1-2001:db8::1", P::MixedFamilies),
        ("192.0.2.0/25-192.0.2.200", "192.0.2.0/25-192.0.2.200", P::NetworkInRange),
        ("192.0.2.1 -, 192.0.2.5", "192.0.2.1 -", P::DanglingDash),
        ("- 192.0.2.5", "- 192.0.2.5", P::DanglingDash),
        ("192.0.2.1 - - 192.0.2.5", "192.0.2.1 - - 192.0.2.5", P::DanglingDash),
        ("192.0.2.1-192.0.2.5-192.0.2.9", "192.0.2.1-192.0.2.5-192.0.2.9", P::DanglingDash),
    ];
    for (text, entry, problem) in table {
        assert_eq!(read(text), Err((entry.to_owned(), problem)), "{text}");
    }
}

#[test]
fn any_size_of_both_families() {
    for len in 0..=32_u8 {
        let list: RangeList = format!("203.0.113.9/{len}").parse().unwrap();
        assert_eq!(list.to_set().count(), 1 << (32 - len), "/{len}");
    }
    for len in 0..=128_u8 {
        let list: RangeList = format!("2001:db8::9/{len}").parse().unwrap();
        let count = 1_u128.checked_shl(u32::from(128 - len)).unwrap_or(u128::MAX);
        assert_eq!(list.to_set().count(), count, "/{len}");
        assert!(list.to_set().contains("2001:db8::9".parse().unwrap()), "/{len}");
    }
}

#[test]
fn overlaps_are_merged() {
    let list: RangeList = "192.0.2.0/25, 192.0.2.64/26, 192.0.2.128/25".parse().unwrap();
    assert_eq!(list.to_set().iter().map(|r| r.to_string()).collect::<Vec<_>>(), ["192.0.2.0-192.0.2.255"]);
}

#[test]
fn never_given() {
    let set = super::never_given();
    for address in [
        "0.0.0.0",
        "0.255.0.1",
        "127.0.0.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "169.254.1.1",
        "::",
        "::1",
        "fe80::1",
        "febf::1",
        "ff02::1",
        "::ffff:192.0.2.1",
    ] {
        assert!(set.contains(address.parse().unwrap()), "{address}");
    }
    for address in
        ["1.0.0.0", "126.255.255.255", "128.0.0.0", "223.255.255.255", "169.253.255.255", "::2", "fec0::1"]
    {
        assert!(!set.contains(address.parse().unwrap()), "{address}");
    }
}

proptest! {
    #[test]
    fn no_text_panics_and_what_is_read_prints_to_itself(text in "[0-9a-f:./,; \n%-]{0,60}") {
        if let Ok(list) = text.parse::<RangeList>() {
            prop_assert_eq!(list.to_string().parse::<RangeList>(), Ok(list));
        }
    }
}
