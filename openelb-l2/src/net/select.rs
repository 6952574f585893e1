//! From an interface selector to links.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use regex_lite::Regex;

use super::links::LinkInfo;
use crate::{InterfaceSelector, speaker::LinkIndex};

/// The links of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Selection {
    /// Where it is to be answered, in order of index. They may be down.
    pub links: Vec<LinkIndex>,
    /// None of them has a subnet with the address: clients there ask for it only if they are told to.
    pub out_of_subnet: bool,
}

/// Why an address has no link on this host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum NoLink {
    /// No link of this name.
    #[error("this node has no interface {0:?}")]
    Name(String),
    /// It is the loopback, or has no ARP.
    #[error("interface {0:?} carries neither ARP nor neighbour discovery")]
    Kind(String),
    /// It hears nothing itself.
    #[error("interface {0:?} is a port of a bridge, which takes what comes in there: name the bridge itself")]
    Port(String),
    /// No route.
    #[error("this node has no route to {0} by an interface that carries ARP or neighbour discovery")]
    Route(IpAddr),
    /// Not a regular expression.
    #[error("{expression:?} is not a regular expression: {cause}")]
    Expression {
        /// What was written.
        expression: String,
        /// What is wrong.
        cause: String,
    },
    /// Nothing matches.
    #[error("no interface of this node matches {0:?}")]
    NoMatch(String),
    /// No subnet.
    #[error("no interface of this node has a subnet with {0}")]
    Subnet(IpAddr),
    /// No link at all.
    #[error("this node has no interface with a subnet")]
    Nothing,
}

/// Links that are meant for what runs on the host: by the beginning of their names.
fn is_virtual(link: &LinkInfo, skipped: &[String]) -> bool {
    skipped.iter().any(|prefix| link.name.starts_with(prefix.as_str()))
}

/// A link that a selector without a name may choose.
fn is_choice(link: &LinkInfo, skipped: &[String]) -> bool {
    link.resolves
        && link.mac.is_some()
        && link.controller.is_none()
        && !is_virtual(link, skipped)
        && link.prefixes.iter().any(|prefix| prefix.is_subnet())
}

/// The links of `table` on which an address is to be answered. `skipped`: beginnings of names that neither `all` nor
/// `subnet` choose. `link_towards`: the link by which the route to another host leaves.
///
/// # Errors
///
/// There is none; the error says why.
pub fn select(
    selector: &InterfaceSelector,
    address: IpAddr,
    table: &[LinkInfo],
    skipped: &[String],
    link_towards: &mut dyn FnMut(IpAddr) -> Option<LinkIndex>,
) -> Result<Selection, NoLink> {
    Selector::new(&Table::new(table), skipped, link_towards).select(selector, address)
}

/// The table of links, to be looked up in for many addresses.
pub(super) struct Table<'a> {
    links: &'a [LinkInfo],
    by_index: HashMap<LinkIndex, &'a LinkInfo>,
    by_address: HashMap<IpAddr, Vec<&'a LinkInfo>>,
}

impl<'a> Table<'a> {
    pub(super) fn new(links: &'a [LinkInfo]) -> Self {
        let mut by_address: HashMap<IpAddr, Vec<&LinkInfo>> = HashMap::new();
        for link in links {
            for prefix in &link.prefixes {
                by_address.entry(prefix.address).or_default().push(link);
            }
        }
        Self { links, by_index: links.iter().map(|link| (link.index, link)).collect(), by_address }
    }

    /// Those of these links that are there, in the same order.
    pub(super) fn links(&self, all: &[LinkIndex]) -> impl Iterator<Item = &'a LinkInfo> {
        all.iter().filter_map(|index| self.by_index.get(index).copied())
    }

    /// The links that have an address as their own.
    pub(super) fn holders(&self, address: IpAddr) -> &[&'a LinkInfo] {
        self.by_address.get(&address).map(Vec::as_slice).unwrap_or_default()
    }
}

/// What of a link can make a difference to a set of addresses.
#[derive(PartialEq)]
pub(super) enum Part<'a> {
    /// It may be chosen.
    Whole(&'a LinkInfo),
    /// It has some of them as its own, among others perhaps: a proxy that works with IPVS puts thousands on one link.
    Held(LinkIndex, &'a str, Vec<IpAddr>),
}

/// Which links can make a difference to a set of addresses. On a node with hundreds of Pods the others come and go all the
/// time.
#[derive(Default)]
pub(super) struct Interests {
    names: HashSet<String>,
    expressions: Vec<Regex>,
    /// Some address is where its subnet is, or everywhere.
    choices: bool,
    /// Some address is where a route leads.
    routes: bool,
    addresses: HashSet<IpAddr>,
}

impl Interests {
    pub(super) fn new<'a>(wanted: impl Iterator<Item = (IpAddr, &'a InterfaceSelector)>) -> Self {
        let mut all = Self::default();
        let mut known = HashSet::new();
        for (address, selector) in wanted {
            all.addresses.insert(address);
            if !known.insert(selector) {
                continue;
            }
            match selector {
                InterfaceSelector::Name(name) => all.names.extend([name.clone()]),
                // One that is none never matches.
                InterfaceSelector::Regex(expression) => all.expressions.extend(Regex::new(expression).ok()),
                InterfaceSelector::CanReach(_) => all.routes = true,
                InterfaceSelector::Subnet | InterfaceSelector::All => all.choices = true,
            }
        }
        all
    }

    /// What of a link matters; `None`: nothing.
    pub(super) fn part<'a>(&self, link: &'a LinkInfo, skipped: &[String]) -> Option<Part<'a>> {
        let named = |name: &String| self.names.contains(name);
        // Every link has a link-local address; of those of Pods no route to another host goes by one without more.
        let has_source = || {
            !is_virtual(link, skipped)
                || link.prefixes.iter().any(|prefix| match prefix.address {
                    IpAddr::V4(_) => true,
                    IpAddr::V6(v6) => !v6.is_unicast_link_local(),
                })
        };
        if self.choices && is_choice(link, skipped)
            || self.routes && link.resolves && has_source()
            || named(&link.name)
            || link.other_names.iter().any(named)
            || self.expressions.iter().any(|regex| regex.is_match(&link.name))
        {
            return Some(Part::Whole(link));
        }
        let own = link.prefixes.iter().map(|prefix| prefix.address);
        let held: Vec<_> = own.filter(|address| self.addresses.contains(address)).collect();
        (!held.is_empty()).then_some(Part::Held(link.index, &link.name, held))
    }
}

/// What is found once for many addresses.
pub(super) struct Selector<'a> {
    table: &'a Table<'a>,
    link_towards: &'a mut dyn FnMut(IpAddr) -> Option<LinkIndex>,
    choices: Vec<&'a LinkInfo>,
    cache: HashMap<InterfaceSelector, Result<Vec<LinkIndex>, NoLink>>,
}

impl<'a> Selector<'a> {
    pub(super) fn new(
        table: &'a Table<'a>,
        skipped: &'a [String],
        link_towards: &'a mut dyn FnMut(IpAddr) -> Option<LinkIndex>,
    ) -> Self {
        let choices = table.links.iter().filter(|link| is_choice(link, skipped)).collect();
        Self { table, link_towards, choices, cache: HashMap::new() }
    }

    pub(super) fn select(
        &mut self,
        selector: &InterfaceSelector,
        address: IpAddr,
    ) -> Result<Selection, NoLink> {
        let links = if *selector == InterfaceSelector::Subnet {
            self.subnet(address)?
        } else if let Some(found) = self.cache.get(selector) {
            found.clone()?
        } else {
            let found = self.find(selector);
            self.cache.insert(selector.clone(), found.clone());
            found?
        };
        let holds = |link: &LinkInfo| link.prefixes.iter().any(|prefix| prefix.holds(address));
        let out_of_subnet = !self.table.links(&links).any(holds);
        Ok(Selection { links, out_of_subnet })
    }

    fn find(&mut self, selector: &InterfaceSelector) -> Result<Vec<LinkIndex>, NoLink> {
        let table = self.table.links;
        let (links, nothing): (Vec<_>, _) = match selector {
            InterfaceSelector::Name(name) => {
                let named = |link: &&LinkInfo| link.name == *name || link.other_names.contains(name);
                let link = table.iter().find(named).ok_or_else(|| NoLink::Name(name.clone()))?;
                if !link.resolves || link.mac.is_none() {
                    return Err(NoLink::Kind(name.clone()));
                }
                if link.bridged {
                    return Err(NoLink::Port(name.clone()));
                }
                return Ok(vec![link.index]);
            }
            InterfaceSelector::CanReach(target) => {
                let index = (self.link_towards)(*target);
                let by_route = table.iter().find(|link| link.resolves && Some(link.index) == index);
                // The way to an address of this host's own is no link.
                let own = || {
                    let has = |link: &LinkInfo| link.prefixes.iter().any(|own| own.address == *target);
                    table.iter().find(|link| link.resolves && has(link))
                };
                let link = by_route.or_else(own);
                if let Some(link) = link.filter(|link| link.bridged) {
                    return Err(NoLink::Port(link.name.clone()));
                }
                (link.into_iter().collect(), NoLink::Route(*target))
            }
            InterfaceSelector::Regex(expression) => {
                let regex = Regex::new(expression).map_err(|error| NoLink::Expression {
                    expression: expression.clone(),
                    cause: error.to_string(),
                })?;
                let matches = |link: &&LinkInfo| {
                    link.resolves
                        && link.mac.is_some()
                        && link.controller.is_none()
                        && regex.is_match(&link.name)
                };
                (table.iter().filter(matches).collect(), NoLink::NoMatch(expression.clone()))
            }
            InterfaceSelector::Subnet | InterfaceSelector::All => (self.choices.clone(), NoLink::Nothing),
        };
        if links.is_empty() { Err(nothing) } else { Ok(links.into_iter().map(|link| link.index).collect()) }
    }

    /// The links with the longest prefix that holds the address.
    fn subnet(&self, address: IpAddr) -> Result<Vec<LinkIndex>, NoLink> {
        let with_length = self.choices.iter().filter_map(|link| {
            let lengths =
                link.prefixes.iter().filter(|prefix| prefix.holds(address)).map(|prefix| prefix.length);
            Some((lengths.max()?, link.index))
        });
        let found: Vec<_> = with_length.collect();
        let longest = found.iter().map(|(length, _)| *length).max().ok_or(NoLink::Subnet(address))?;
        Ok(found.into_iter().filter(|(length, _)| *length == longest).map(|(_, link)| link).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::links::Prefix, *};
    use crate::MacAddr;

    fn link(index: u32, name: &str, prefixes: &[&str]) -> LinkInfo {
        let mac = MacAddr::new([2, 0, 0, 0, 0, u8::try_from(index).unwrap()]);
        let mut link = LinkInfo::new(LinkIndex(index), name, Some(mac));
        link.prefixes = prefixes
            .iter()
            .map(|text| {
                let (address, length) = text.split_once('/').unwrap();
                Prefix { address: address.parse().unwrap(), length: length.parse().unwrap() }
            })
            .collect();
        link
    }

    fn host() -> Vec<LinkInfo> {
        let mut lo = link(1, "lo", &["127.0.0.1/8", "::1/128"]);
        lo.resolves = false;
        let mut port = link(4, "eth2", &[]);
        port.controller = Some(LinkIndex(5));
        let mut bridged = link(9, "eth3", &[]);
        (bridged.controller, bridged.bridged) = (Some(LinkIndex(5)), true);
        bridged.other_names = vec!["enp3s0".into()];
        let mut wide = link(2, "eth0", &["192.0.2.11/24", "2001:db8::11/64", "fe80::1/64"]);
        wide.other_names = vec!["enp1s0".into()];
        vec![
            lo,
            wide,
            link(3, "eth1", &["192.0.2.200/26", "198.51.100.1/24"]),
            port,
            link(5, "br0", &["203.0.113.1/24"]),
            link(6, "cni0", &["10.244.0.1/24"]),
            link(7, "veth1", &["169.254.1.1/16"]),
            link(8, "tun0", &["10.9.9.9/32"]),
            bridged,
        ]
    }

    fn chosen(selector: &str, address: &str) -> Result<(Vec<u32>, bool), NoLink> {
        let mut routes = |target: IpAddr| match target.to_string().as_str() {
            // Not the link that has the source address.
            "8.8.8.8" => Some(LinkIndex(3)),
            "8.8.4.4" => Some(LinkIndex(9)),
            "127.0.0.5" | "203.0.113.1" => Some(LinkIndex(1)),
            _ => None,
        };
        let selector = selector.parse().unwrap();
        select(&selector, address.parse().unwrap(), &host(), &["cni".into()], &mut routes)
            .map(|found| (found.links.iter().map(|link| link.0).collect(), found.out_of_subnet))
    }

    #[test]
    fn every_form() {
        for (selector, address, expected) in [
            ("eth0", "192.0.2.50", Ok((vec![2], false))),
            ("enp1s0", "192.0.2.50", Ok((vec![2], false))),
            ("eth0", "10.0.0.1", Ok((vec![2], true))),
            ("eth2", "10.0.0.1", Ok((vec![4], true))),
            ("eth3", "10.0.0.1", Err(NoLink::Port("eth3".into()))),
            ("enp3s0", "10.0.0.1", Err(NoLink::Port("enp3s0".into()))),
            ("br0", "10.0.0.1", Ok((vec![5], true))),
            ("cni0", "10.244.0.9", Ok((vec![6], false))),
            ("eth9", "10.0.0.1", Err(NoLink::Name("eth9".into()))),
            ("lo", "127.0.0.9", Err(NoLink::Kind("lo".into()))),
            ("can_reach:8.8.8.8", "192.0.2.201", Ok((vec![3], false))),
            ("can_reach:8.8.4.4", "192.0.2.50", Err(NoLink::Port("eth3".into()))),
            // Its own.
            ("can_reach:203.0.113.1", "203.0.113.9", Ok((vec![5], false))),
            ("can_reach:9.9.9.9", "192.0.2.50", Err(NoLink::Route("9.9.9.9".parse().unwrap()))),
            ("can_reach:127.0.0.5", "192.0.2.50", Err(NoLink::Route("127.0.0.5".parse().unwrap()))),
            ("regex:^eth", "192.0.2.50", Ok((vec![2, 3], false))),
            ("regex:^ens", "192.0.2.50", Err(NoLink::NoMatch("^ens".into()))),
            ("subnet", "192.0.2.50", Ok((vec![2], false))),
            // The longest prefix.
            ("subnet", "192.0.2.201", Ok((vec![3], false))),
            ("subnet", "2001:db8::50", Ok((vec![2], false))),
            ("subnet", "203.0.113.9", Ok((vec![5], false))),
            ("subnet", "10.244.0.9", Err(NoLink::Subnet("10.244.0.9".parse().unwrap()))),
            // A prefix of one address holds no other, and not itself.
            ("subnet", "10.9.9.9", Err(NoLink::Subnet("10.9.9.9".parse().unwrap()))),
            ("subnet", "fe80::2", Ok((vec![2], false))),
            ("all", "192.0.2.50", Ok((vec![2, 3, 5], false))),
            ("all", "10.0.0.1", Ok((vec![2, 3, 5], true))),
        ] {
            assert_eq!(chosen(selector, address), expected, "{selector} {address}");
        }
    }

    #[test]
    fn a_bad_expression_says_what_is_wrong() {
        let Err(NoLink::Expression { expression, cause }) = chosen("regex:eth[", "192.0.2.1") else {
            panic!("accepted")
        };
        assert_eq!(expression, "eth[");
        assert!(!cause.is_empty());
    }

    #[test]
    fn prefixes_hold_their_subnet() {
        let holds =
            |prefix: &str, address: &str| link(1, "x", &[prefix]).prefixes[0].holds(address.parse().unwrap());
        assert!(holds("0.0.0.0/0", "203.0.113.1"));
        assert!(holds("::/0", "2001:db8::1"));
        assert!(!holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("192.0.2.1/31", "192.0.2.0"));
        assert!(!holds("192.0.2.1/32", "192.0.2.1"));
        assert!(!holds("192.0.2.1/24", "192.0.3.1"));
    }
}
