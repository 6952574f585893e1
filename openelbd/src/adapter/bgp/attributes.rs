//! `spec.advertisements` of a `BgpPeer` → which addresses it hears of, in which prefix, and with which path attributes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use openelb_bgp::speaker::RouteAttributes;
use openelb_k8s::{
    announce::{Announcement, PeerAnnouncements},
    index::peers::AdvertisementSpec,
};

/// How a neighbour hears of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// In which prefix: the address itself, or one that has room for others.
    pub prefix: IpNet,
    /// The rules that say so, by index into `spec.advertisements`; empty: there are no rules.
    pub rules: Vec<usize>,
}

/// How a neighbour hears of an address; `None` if no rule lets it. Of the rules that match, the first with a length for
/// the address's family says in which prefix.
#[must_use]
pub fn advertised(
    peer: &PeerAnnouncements,
    address: IpAddr,
    announcement: &Announcement,
) -> Option<Advertised> {
    let host = IpNet::from(address);
    let Some(matching) = peer.rules_for(announcement) else {
        return Some(Advertised { prefix: host, rules: Vec::new() });
    };
    if matching.is_empty() {
        return None;
    }
    let length = rules(peer, &matching).find_map(|rule| rule.aggregation_length_of(address));
    let prefix = length.and_then(|length| IpNet::new(address, length).ok()).map_or(host, |net| net.trunc());
    Some(Advertised { prefix, rules: matching })
}

fn rules<'a>(
    peer: &'a PeerAnnouncements,
    indexes: impl IntoIterator<Item = &'a usize>,
) -> impl Iterator<Item = &'a AdvertisementSpec> {
    let rules = peer.spec.advertisements.as_deref().unwrap_or_default();
    indexes.into_iter().filter_map(|index| rules.get(*index))
}

/// The attributes that these rules give, on top of `base`. They unite their communities; of single values the first
/// rule's is taken.
#[must_use]
pub fn attributes(
    peer: &PeerAnnouncements,
    indexes: &BTreeSet<usize>,
    base: &Arc<RouteAttributes>,
) -> Arc<RouteAttributes> {
    if indexes.is_empty() {
        return Arc::clone(base);
    }
    let mut attributes = RouteAttributes::clone(base);
    let mut prepend = None;
    for rule in rules(peer, indexes) {
        attributes.communities.extend(&rule.communities);
        attributes.large_communities.extend(&rule.large_communities);
        attributes.extended_communities.extend(&rule.extended_communities);
        attributes.local_pref = attributes.local_pref.or(rule.rule.local_preference);
        attributes.med = attributes.med.or(rule.rule.med);
        prepend = prepend.or(rule.rule.as_path_prepend);
    }
    attributes.as_path_prepend = prepend.map_or(0, |times| u8::try_from(times).unwrap_or(u8::MAX));
    attributes.communities.sort_unstable();
    attributes.communities.dedup();
    attributes.large_communities.sort_unstable();
    attributes.large_communities.dedup();
    attributes.extended_communities.sort_unstable();
    attributes.extended_communities.dedup();
    Arc::new(attributes)
}

/// Attributes by the rules that give them: thousands of addresses have the same.
#[derive(Debug)]
pub(super) struct Known<'a> {
    peer: &'a PeerAnnouncements,
    base: &'a Arc<RouteAttributes>,
    by_rules: BTreeMap<BTreeSet<usize>, Arc<RouteAttributes>>,
}

impl<'a> Known<'a> {
    pub(super) fn new(peer: &'a PeerAnnouncements, base: &'a Arc<RouteAttributes>) -> Self {
        Self { peer, base, by_rules: BTreeMap::new() }
    }

    pub(super) fn of(&mut self, rules: &BTreeSet<usize>) -> Arc<RouteAttributes> {
        if let Some(known) = self.by_rules.get(rules) {
            return Arc::clone(known);
        }
        let made = attributes(self.peer, rules, self.base);
        self.by_rules.insert(rules.clone(), Arc::clone(&made));
        made
    }
}

/// Single values that rules give one prefix differently: which value, and the rules by index. The first one's counts.
#[must_use]
pub fn conflicts(peer: &PeerAnnouncements, indexes: &BTreeSet<usize>) -> Vec<(&'static str, usize, usize)> {
    type Value = fn(&AdvertisementSpec) -> Option<u32>;
    const SINGLE: [(&str, Value); 5] = [
        ("localPreference", |rule| rule.rule.local_preference),
        ("med", |rule| rule.rule.med),
        ("asPathPrepend", |rule| rule.rule.as_path_prepend),
        ("aggregationLength", |rule| rule.rule.aggregation_length),
        ("aggregationLengthV6", |rule| rule.rule.aggregation_length_v6),
    ];
    let all = peer.spec.advertisements.as_deref().unwrap_or_default();
    let mut found = Vec::new();
    for (name, value) in SINGLE {
        let mut first = None;
        for (index, rule) in indexes.iter().filter_map(|index| Some((*index, all.get(*index)?))) {
            let Some(value) = value(rule) else { continue };
            match first {
                None => first = Some((index, value)),
                Some((first, taken)) if taken != value => {
                    found.push((name, first, index));
                    break;
                }
                Some(_) => {}
            }
        }
    }
    found
}
