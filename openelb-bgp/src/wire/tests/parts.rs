//! Prefixes, AS paths and communities.

use std::{mem::size_of, net::IpAddr};

use ipnet::IpNet;

use super::*;

#[test]
fn prefixes_are_small_and_have_no_host_bits() {
    assert!(size_of::<Prefix>() <= 18 && size_of::<Nlri>() <= 24);
    for (text, expected) in [
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("10.1.2.3/0", "0.0.0.0/0"),
        ("2001:db8::1/33", "2001:db8::/33"),
        ("::1/128", "::1/128"),
    ] {
        let prefix: Prefix = text.parse().unwrap();
        assert_eq!(prefix.to_string(), expected);
        let net: IpNet = expected.parse().unwrap();
        assert_eq!((IpNet::from(prefix), Prefix::from(net)), (net, prefix));
    }
    let address: IpAddr = "10.0.0.1".parse().unwrap();
    assert_eq!(Prefix::new(address, 33), Err(PrefixError { length: 33, max: 32 }));
    assert_eq!(Prefix::new("::".parse().unwrap(), 129), Err(PrefixError { length: 129, max: 128 }));
}

#[test]
fn nlri_are_ordered_by_prefix_then_path() {
    let nlri = |text: &str, path_id| Nlri::new(text.parse().unwrap(), path_id);
    let sorted = [
        nlri("10.0.0.0/8", 9),
        nlri("10.0.0.0/9", 1),
        nlri("10.0.0.0/9", 2),
        nlri("11.0.0.0/8", 0),
        nlri("::/0", 0),
    ];
    assert!(sorted.is_sorted());
}

#[test]
fn as_paths_are_measured_and_shown() {
    let segment = |kind, asns: &[u32]| AsPathSegment { kind, asns: asns.to_vec() };
    let mut path = AsPath {
        segments: vec![
            segment(SegmentKind::ConfederationSequence, &[65_001]),
            segment(SegmentKind::Sequence, &[1, 2]),
            segment(SegmentKind::Set, &[3, 4]),
        ],
    };
    assert_eq!(path.to_string(), "(65001) 1 2 {3,4}");
    assert_eq!((path.hops(), path.first(), path.origin()), (3, Some(1), None));
    assert!(path.contains(65_001) && !path.contains(5));
    path.prepend(7, 2);
    assert_eq!(path.to_string(), "7 7 (65001) 1 2 {3,4}");
    path.prepend(8, 1);
    path.prepend(9, 0);
    assert_eq!(path.to_string(), "8 7 7 (65001) 1 2 {3,4}");
    assert_eq!(AsPath::sequence([]), AsPath::empty());
    assert_eq!(AsPath::sequence([1, 2]).origin(), Some(2));
}

#[test]
fn long_sequences_are_split() {
    let path = AsPath::sequence(1..=300);
    let attributes = Attributes {
        origin: Some(Origin::Igp),
        as_path: Some(path),
        next_hop: Some("192.0.2.1".parse().unwrap()),
        ..Attributes::default()
    };
    let set = attributes.encode(&external()).unwrap();
    let update = decode_update(&update_bytes(&[], set.as_bytes(), &NLRI), &external()).unwrap();
    let read = update.attributes.as_path.unwrap();
    assert_eq!(read.segments.iter().map(|segment| segment.asns.len()).collect::<Vec<_>>(), [255, 45]);
    assert!(read.asns().eq(1..=300));
}

#[test]
fn communities_are_read_and_shown() {
    for text in ["64512:100", "0:0", "65535:65535", "no-export", "graceful-shutdown", "blackhole", "no-peer"]
    {
        assert_eq!(text.parse::<Community>().unwrap().to_string(), text);
    }
    assert_eq!("65535:65281".parse(), Ok(Community::NO_EXPORT));
    assert_eq!("4294967041".parse(), Ok(Community::NO_EXPORT));
    assert_eq!("No-Peer".parse(), Ok(Community::NO_PEER));
    assert_eq!("64512:1:2".parse::<LargeCommunity>().unwrap().to_string(), "64512:1:2");
    for text in ["rt:64512:100", "rt:64512L:100", "soo:192.0.2.1:7", "rt:4200000000:7", "0x4302030405060708"]
    {
        assert_eq!(text.parse::<ExtendedCommunity>().unwrap().to_string(), text);
    }
    assert_eq!("rt:4200000000:7".parse::<ExtendedCommunity>().unwrap().0, [2, 2, 0xfa, 0x56, 0xea, 0, 0, 7]);
    for text in ["", "+1:2", "65536:1", "1:65536", "1:", ":", "no", "1:2:3", "４:1"] {
        let error = text.parse::<Community>().unwrap_err().to_string();
        assert!(error.contains("64512:100"), "{error}");
    }
    for text in ["1:2", "1:2:3:4", "1:2:4294967296", "a:b:c"] {
        assert!(text.parse::<LargeCommunity>().is_err(), "{text}");
    }
    for text in ["rt:1", "xx:1:2", "rt:64512:4294967296", "rt:4200000000:65536", "0x1", "0x+102030405060708"]
    {
        assert!(text.parse::<ExtendedCommunity>().is_err(), "{text}");
    }
}
