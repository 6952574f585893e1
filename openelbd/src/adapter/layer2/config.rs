//! Announcements → what the Layer 2 speaker is told.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use openelb_k8s::{
    announce::{Announcements, Protocol},
    index::{
        layer2::{Failback, Layer2Spec},
        pools,
    },
};
use openelb_l2::{
    InterfaceSelector,
    net::WantedAddress,
    speaker::{self, NodeName, NodeSet, Peer, Settings},
};

/// How addresses are announced and moved.
#[must_use]
pub fn settings(spec: &Layer2Spec) -> Settings {
    let mut settings = Settings::default();
    settings.gratuitous.clone_from(&spec.schedule);
    settings.refresh = spec.refresh;
    settings.stand_in = spec.stand_in;
    settings.join_delay = spec.join_delay;
    settings.failback = match spec.failback {
        Failback::Delayed(delay) => speaker::Failback::Delayed(delay),
        Failback::Immediate => speaker::Failback::Immediate,
        Failback::Manual => speaker::Failback::Manual,
    };
    settings
}

/// The addresses of Layer 2, in order. Without an interface the one whose subnet holds the address is meant.
#[must_use]
pub fn addresses(desired: &Announcements) -> Vec<WantedAddress> {
    let wanted = desired.addresses.iter().filter(|(_, one)| one.protocols.contains(&Protocol::Layer2));
    // Thousands of addresses share them.
    let mut known: BTreeMap<*const String, NodeSet> = BTreeMap::new();
    let set = |names: &Arc<[String]>| {
        let names = names.iter().map(|name| NodeName::new(name));
        names.collect::<Result<Vec<_>, _>>().map(|names| names.iter().collect::<NodeSet>()).ok()
    };
    let mut permitted = |names: &Arc<[String]>| match known.get(&names.as_ptr()) {
        Some(found) => Some(found.clone()),
        None => set(names).inspect(|found| drop(known.insert(names.as_ptr(), found.clone()))),
    };
    wanted
        .map(|(address, announcement)| {
            let mut one = WantedAddress::new(*address, interface(announcement.interface.as_ref()));
            one.eligible = announcement.self_eligible;
            one.permitted = permitted(&announcement.permitted);
            one
        })
        .collect()
}

fn interface(selector: Option<&pools::InterfaceSelector>) -> InterfaceSelector {
    match selector {
        Some(pools::InterfaceSelector::Name(name)) => InterfaceSelector::Name(name.clone()),
        Some(pools::InterfaceSelector::CanReach(address)) => InterfaceSelector::CanReach(*address),
        Some(pools::InterfaceSelector::Regex(expression)) => InterfaceSelector::Regex(expression.clone()),
        Some(pools::InterfaceSelector::All) => InterfaceSelector::All,
        Some(pools::InterfaceSelector::Subnet) | None => InterfaceSelector::Subnet,
    }
}

/// The other nodes, each by its first address of the family of `own`. A node without one cannot gossip with this one.
#[must_use]
pub fn peers(desired: &Announcements, own: SocketAddr) -> Vec<Peer> {
    let nodes = desired.layer2.nodes.iter().filter_map(|(name, addresses)| {
        let same = |address: &&IpAddr| address.is_ipv4() == own.is_ipv4();
        let address = addresses.iter().find(same)?;
        Some(Peer::new(NodeName::new(name).ok()?, SocketAddr::new(*address, own.port())))
    });
    nodes.collect()
}
