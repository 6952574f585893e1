//! The table of RFC 7606: each row with a good value, each kind of bad one, and wrong flags.

use super::*;

/// What a row's attribute may and may not contain.
struct Case {
    code: u8,
    good: &'static str,
    /// Each with the fault to find.
    bad: &'static [(&'static str, AttributeFault)],
}

use AttributeFault::{Length, Unexpected, Value};

const CASES: [Case; 15] = [
    Case { code: 1, good: "02", bad: &[("", Length), ("0000", Length), ("03", Value)] },
    Case {
        code: 2,
        good: "02 02 0000fc00 0000fc01",
        bad: &[
            ("02", Value),                      // half a segment header
            ("02 00", Value),                   // a segment without numbers
            ("02 02 0000fc00", Value),          // a segment that is cut off
            ("02 01 0000fc00 ff", Value),       // an octet left over
            ("05 01 0000fc00", Value),          // a kind that nobody defined
            ("03 01 0000fc00", Value),          // a confederation's, from outside (RFC 5065)
            ("02 02 0000fc00 00000000", Value), // AS 0 (RFC 7607)
        ],
    },
    Case { code: 3, good: "c0000201", bad: &[("", Length), ("c00002", Length), ("c000020100", Length)] },
    Case { code: 4, good: "00000064", bad: &[("", Length), ("000064", Length), ("0000000064", Length)] },
    Case { code: 5, good: "00000064", bad: &[("", Length), ("000064", Length), ("0000000064", Length)] },
    Case { code: 6, good: "", bad: &[("00", Length)] },
    Case {
        code: 7,
        good: "0000fc00 c0000201",
        bad: &[
            ("", Length),
            ("fc00 c0000201", Length),
            ("0000fc00 c000020100", Length),
            ("00000000 c0000201", Value),
        ],
    },
    Case {
        code: 8,
        good: "fc000001 fc000002",
        bad: &[("", Length), ("fc0000", Length), ("fc00000100", Length)],
    },
    Case { code: 9, good: "c0000201", bad: &[("", Length), ("c00002", Length), ("c000020100", Length)] },
    Case {
        code: 10,
        good: "c0000201 c0000202",
        bad: &[("", Length), ("c00002", Length), ("c000020100", Length)],
    },
    Case { code: 16, good: "0002fc0000000001", bad: &[("", Length), ("0002fc00000000", Length)] },
    Case {
        code: 17,
        good: "02 01 00010000",
        bad: &[
            ("", Length),
            ("02", Value),
            ("02 00", Value),
            ("02 02 00010000", Value),
            ("05 01 00010000", Value),
        ],
    },
    Case { code: 18, good: "00010000 c0000201", bad: &[("", Length), ("00010000 c00002", Length)] },
    Case {
        code: 32,
        good: "0000fc00 00000001 00000002",
        bad: &[("", Length), ("0000fc00 00000001", Length), ("0000fc00 00000001 0000000200", Length)],
    },
    Case { code: 35, good: "0000fc00", bad: &[("", Length), ("00fc00", Length), ("000000fc00", Length)] },
];

/// A session on which everybody may send the attribute, and the mandatory attributes without it.
fn setting(rule: &AttributeRule) -> (SessionContext, Vec<u8>) {
    let kind = if rule.from == Senders::Internal { SessionKind::Internal } else { SessionKind::External };
    let cx =
        SessionContext { kind, four_octet_as: rule.from != Senders::TwoOctetAs, ..SessionContext::default() };
    let path = if cx.four_octet_as { "40 02 06 02 01 0000fc00" } else { "40 02 04 02 01 5ba0" };
    let others = [(1, "40 01 01 00"), (2, path), (3, "40 03 04 c0000201")];
    let others =
        others.iter().filter(|(code, _)| *code != rule.code).flat_map(|(_, text)| hex(text)).collect();
    (cx, others)
}

fn update_with(rule: &AttributeRule, flags: u8, value: &[u8]) -> Update {
    let (cx, mut attributes) = setting(rule);
    attributes.extend(attribute(flags, rule.code, value));
    decode_update(&update_bytes(&[], &attributes, &NLRI), &cx).unwrap()
}

#[test]
fn every_row_but_the_multiprotocol_ones_has_a_case() {
    let rows: Vec<u8> = AttributeRule::all().iter().map(|rule| rule.code).collect();
    assert!(rows.is_sorted());
    let mut cases: Vec<u8> = CASES.iter().map(|case| case.code).chain([14, 15]).collect();
    cases.sort_unstable();
    assert_eq!(rows, cases);
    for code in 0..=u8::MAX {
        assert_eq!(AttributeRule::of(code).map(|rule| rule.code), rows.contains(&code).then_some(code));
    }
}

#[test]
fn a_good_value_is_no_error() {
    for case in &CASES {
        let rule = AttributeRule::of(case.code).unwrap();
        for partial in [0, AttributeFlags::PARTIAL.0] {
            let update = update_with(rule, rule.flags.0 | partial, &hex(case.good));
            assert_eq!(update.errors, [], "{}", rule.name);
            assert!(update.attributes.unknown.is_empty());
        }
    }
}

#[test]
fn a_bad_value_is_treated_as_its_row_says() {
    for case in &CASES {
        let rule = AttributeRule::of(case.code).unwrap();
        for (value, fault) in case.bad {
            let update = update_with(rule, rule.flags.0, &hex(value));
            let expected = AttributeError {
                code: case.code,
                fault: *fault,
                treatment: rule.malformed,
                section: rule.section,
            };
            assert_eq!(update.errors, [expected], "{} {value:?}", rule.name);
            let withdrawn = rule.malformed == Treatment::Withdraw;
            assert_eq!(update.treat_as_withdraw(), withdrawn);
            assert_eq!(update.announcements().count(), usize::from(!withdrawn));
            assert_eq!(update.withdrawals().count(), usize::from(withdrawn));
        }
    }
}

/// The treatments that RFC 7606 §7 names, written here a second time.
#[test]
fn the_rows_say_what_the_rfc_says() {
    let discarded = [6, 7, 17, 18];
    let reset = [14, 15];
    let internal = [5, 9, 10];
    for rule in AttributeRule::all() {
        let expected = match rule.code {
            code if discarded.contains(&code) => Treatment::Discard,
            code if reset.contains(&code) => Treatment::Reset,
            _ => Treatment::Withdraw,
        };
        assert_eq!(rule.malformed, expected, "{}", rule.name);
        assert_eq!(rule.from == Senders::Internal, internal.contains(&rule.code), "{}", rule.name);
    }
}

/// RFC 7606 §3c.
#[test]
fn wrong_flags_withdraw() {
    for case in &CASES {
        let rule = AttributeRule::of(case.code).unwrap();
        for wrong in [AttributeFlags::OPTIONAL.0, AttributeFlags::TRANSITIVE.0] {
            let update = update_with(rule, rule.flags.0 ^ wrong, &hex(case.good));
            let [error] = update.errors[..] else { panic!("{}: {:?}", rule.name, update.errors) };
            assert_eq!((error.code, error.fault), (case.code, AttributeFault::Flags));
            assert_eq!((error.treatment, error.section), (Treatment::Withdraw, "RFC 7606 §3c"));
        }
    }
}

/// RFC 7606 §7.5, §7.9, §7.10: whatever they contain.
#[test]
fn internal_attributes_of_external_neighbours_are_discarded() {
    for rule in AttributeRule::all().iter().filter(|rule| rule.from == Senders::Internal) {
        for value in [&hex("c0000201")[..], &hex("c000")[..]] {
            let attributes = [mandatory(), attribute(rule.flags.0, rule.code, value)].concat();
            let update = decode_update(&update_bytes(&[], &attributes, &NLRI), &external()).unwrap();
            let [error] = update.errors[..] else { panic!("{:?}", update.errors) };
            assert_eq!((error.fault, error.treatment), (Unexpected, Treatment::Discard));
            assert_eq!(update.attributes.local_pref, None);
            assert_eq!(update.announcements().count(), 1);
        }
    }
}

/// RFC 6793 §6.
#[test]
fn as4_attributes_are_discarded_where_numbers_have_four_octets() {
    for (code, value) in [(17, "02 01 00010000"), (18, "00010000 c0000201")] {
        let attributes = [mandatory(), attribute(0xc0, code, &hex(value))].concat();
        let update = decode_update(&update_bytes(&[], &attributes, &NLRI), &external()).unwrap();
        let [error] = update.errors[..] else { panic!("{:?}", update.errors) };
        assert_eq!((error.code, error.fault, error.treatment), (code, Unexpected, Treatment::Discard));
        assert_eq!(update.attributes.as_path, Some(AsPath::sequence([64_512])));
    }
}

/// RFC 7606 §3g.
#[test]
fn the_first_of_repeated_attributes_holds() {
    let attributes =
        [mandatory(), hex("80 04 04 00000001"), hex("80 04 04 00000002"), hex("c0 63 01 01 c0 63 01 02")]
            .concat();
    let update = decode_update(&update_bytes(&[], &attributes, &NLRI), &external()).unwrap();
    assert_eq!(update.attributes.med, Some(1));
    assert_eq!(update.attributes.unknown.len(), 1);
    assert_eq!(update.attributes.unknown[0].value[..], [1]);
    let faults: Vec<_> =
        update.errors.iter().map(|error| (error.code, error.fault, error.treatment)).collect();
    let repeated = AttributeFault::Repeated;
    assert_eq!(faults, [(4, repeated, Treatment::Discard), (99, repeated, Treatment::Discard)]);
}

/// RFC 7606 §3d.
#[test]
fn missing_mandatory_attributes_withdraw() {
    for missing in [1, 2, 3] {
        let rule = AttributeRule::of(missing).unwrap();
        let (cx, attributes) = setting(rule);
        let update = decode_update(&update_bytes(&[], &attributes, &NLRI), &cx).unwrap();
        let [error] = update.errors[..] else { panic!("{:?}", update.errors) };
        assert_eq!(
            (error.code, error.fault, error.treatment),
            (missing, AttributeFault::Missing, Treatment::Withdraw)
        );
    }
}

/// RFC 7606 §4: each way in which the attributes can end too early.
#[test]
fn cut_off_attributes_withdraw_and_the_nlri_are_still_found() {
    for tail in ["80", "80 04", "80 04 04 0000", "90 04", "90 04 00", "90 04 0004 0000", "80 04 ff"] {
        let attributes = [mandatory(), hex(tail)].concat();
        let update = decode_update(&update_bytes(&[], &attributes, &NLRI), &external()).unwrap();
        let [error] = update.errors[..] else { panic!("{tail}: {:?}", update.errors) };
        assert_eq!(
            (error.fault, error.treatment, error.section),
            (AttributeFault::Truncated, Treatment::Withdraw, "RFC 7606 §4")
        );
        let withdrawn: Vec<_> = update.withdrawals().flat_map(prefixes).collect();
        assert_eq!(withdrawn, ["203.0.113.0/24"], "{tail}");
    }
}

#[test]
fn unknown_attributes_are_kept_if_optional_and_withdraw_if_not() {
    let attributes = [mandatory(), hex("e0 63 02 abcd")].concat();
    let update = decode_update(&update_bytes(&[], &attributes, &NLRI), &external()).unwrap();
    assert_eq!(update.errors, []);
    let kept = &update.attributes.unknown[0];
    assert_eq!((kept.flags, kept.code, &kept.value[..]), (AttributeFlags(0xe0), 99, &[0xab, 0xcd][..]));

    let attributes = [mandatory(), hex("40 63 02 abcd")].concat();
    let update = decode_update(&update_bytes(&[], &attributes, &NLRI), &external()).unwrap();
    assert_eq!(update.errors[0].fault, AttributeFault::UnknownWellKnown);
    assert!(update.treat_as_withdraw());
}

/// RFC 4271 §6.3, RFC 7606 §3f.
#[test]
fn impossible_next_hops_withdraw() {
    let cases =
        [("00000000", true), ("00000001", true), ("e0000001", true), ("ffffffff", true), ("0a000001", false)];
    for (address, withdrawn) in cases {
        let attributes = [hex("40 01 01 00  40 02 00"), attribute(0x40, 3, &hex(address))].concat();
        let update = decode_update(&update_bytes(&[], &attributes, &NLRI), &internal()).unwrap();
        assert_eq!(update.treat_as_withdraw(), withdrawn, "{address}");
    }
}

/// RFC 7606 §3h: the strongest of several errors.
#[test]
fn one_error_that_withdraws_among_harmless_ones_withdraws() {
    let attributes = [mandatory(), hex("40 06 01 00"), hex("80 04 00"), hex("c0 07 00")].concat();
    let update = decode_update(&update_bytes(&[], &attributes, &NLRI), &external()).unwrap();
    let treatments: Vec<_> = update.errors.iter().map(|error| error.treatment).collect();
    assert_eq!(treatments, [Treatment::Discard, Treatment::Withdraw, Treatment::Discard]);
    assert!(update.treat_as_withdraw());
    assert_eq!(
        update.errors[1].to_string(),
        "MULTI_EXIT_DISC: wrong length: routes treated as withdrawn (RFC 7606 §7.4)"
    );
}

/// RFC 7606 §5.2: with nothing to withdraw the session ends, as RFC 4271 §6.3 says.
#[test]
fn bad_attributes_without_prefixes_end_the_session() {
    let withdrawn = [8, 10];
    let cases: [(&str, u8, &str); 9] = [
        ("80 04 03 000000", 5, "80 04 03 000000"),
        ("c0 04 04 00000000", 4, "c0 04 04 00000000"),
        ("40 01 01 07", 6, "40 01 01 07"),
        ("40 02 02 0200", 11, ""),
        ("40 63 00", 2, "40 63 00"),
        ("c0 08 00", 5, "c0 08 00"),
        ("80 04", 1, ""),
        ("80 04 09 00", 1, ""),
        ("c0 07 08 00000000 c0000201 80 04 00", 5, "80 04 00"),
    ];
    for (attributes, subcode, data) in cases {
        let bytes = update_bytes(&withdrawn, &hex(attributes), &[]);
        assert_eq!(answer(&bytes, &external()), (3, subcode, hex(data)), "{attributes}");
    }
    // What is only discarded does not end it.
    let update = decode_update(&update_bytes(&withdrawn, &hex("40 06 01 00"), &[]), &external()).unwrap();
    assert_eq!(update.errors.len(), 1);
    assert_eq!(update.withdrawals().count(), 1);
}

#[test]
fn a_withdrawal_with_wrong_flags_is_done_and_the_session_stays() {
    // MP_UNREACH_NLRI as transitive, of 2001:db8::/32.
    let unreach = attribute(0xc0, 15, &hex("0002 01 20 20010db8"));
    let update = decode_update(&update_bytes(&[], &unreach, &[]), &external()).unwrap();
    assert_eq!(update.withdrawals().flat_map(prefixes).collect::<Vec<_>>(), ["2001:db8::/32"]);
    assert_eq!(update.errors.len(), 1);
    // With another attribute beside it, prefixes may have been lost (RFC 7606 section 5.2).
    let beside = [unreach, hex("40 01 01 00")].concat();
    let (code, subcode, _) = answer(&update_bytes(&[], &beside, &[]), &external());
    assert_eq!((code, subcode), (3, 4));
}
