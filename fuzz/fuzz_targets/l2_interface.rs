//! The text of `spec.interface` and the links of a host: never a panic; what was read is written and read again as the
//! same; what is chosen is a link of the host that can carry ARP or neighbour discovery, in order and once.
#![no_main]

use std::net::IpAddr;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use openelb_l2::{
    InterfaceSelector, MacAddr,
    net::{LinkInfo, Prefix, select},
    speaker::LinkIndex,
};

#[derive(Arbitrary, Debug)]
struct Link<'a> {
    name: &'a str,
    other: Option<&'a str>,
    mac: Option<[u8; 6]>,
    up: bool,
    resolves: bool,
    controller: Option<u8>,
    prefixes: Vec<(IpAddr, u8)>,
}

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    text: &'a str,
    address: IpAddr,
    links: Vec<Link<'a>>,
    skipped: Vec<&'a str>,
    /// The link of the route.
    route: Option<u8>,
}

fuzz_target!(|input: Input<'_>| {
    let Ok(selector) = input.text.parse::<InterfaceSelector>() else { return };
    assert_eq!(selector.to_string().parse(), Ok(selector.clone()), "{selector}");
    let table: Vec<LinkInfo> = (1..)
        .zip(&input.links)
        .map(|(index, link)| {
            let mut info = LinkInfo::new(LinkIndex(index), link.name, link.mac.map(MacAddr::new));
            info.other_names.extend(link.other.map(str::to_owned));
            (info.up, info.resolves) = (link.up, link.resolves);
            info.controller = link.controller.map(|index| LinkIndex(index.into()));
            let prefixes = link.prefixes.iter();
            info.prefixes =
                prefixes.map(|(address, length)| Prefix { address: *address, length: *length }).collect();
            info
        })
        .collect();
    let skipped: Vec<String> = input.skipped.iter().map(|prefix| (*prefix).to_owned()).collect();
    let mut asked = 0;
    let found = select(&selector, input.address, &table, &skipped, &mut |_| {
        asked += 1;
        input.route.map(|index| LinkIndex(index.into()))
    });
    assert!(asked == 0 || matches!(selector, InterfaceSelector::CanReach(_)));
    let Ok(found) = found else { return };
    assert!(!found.links.is_empty(), "nothing has an error of its own");
    assert!(found.links.is_sorted_by(|a, b| a < b), "{:?}", found.links);
    for index in &found.links {
        let link = table.iter().find(|link| link.index == *index).expect("a link of this host");
        assert!(link.resolves, "{link:?}");
        match &selector {
            InterfaceSelector::Name(name) => {
                assert!(link.name == *name || link.other_names.contains(name));
            }
            InterfaceSelector::Subnet | InterfaceSelector::All => {
                assert!(link.mac.is_some() && link.controller.is_none());
                assert!(!skipped.iter().any(|prefix| link.name.starts_with(prefix.as_str())));
            }
            _ => {}
        }
    }
    if selector == InterfaceSelector::Subnet {
        assert!(!found.out_of_subnet);
    }
});
