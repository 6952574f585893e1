//! What of the announcements somebody should be told, by one node for all.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Settings, addresses, may_carry_any};
use crate::announce::{
    Announcement, Announcements, AnnouncerStatus, BgpAnnouncements, NextHops, PeerAnnouncements, Protocol,
};
use crate::index::Indexes;
use crate::names::{event, label};
use crate::object::{Kind, ObjectRef};
use crate::plan::Event;

/// The node whose speaker tells what concerns all of them: the first with a speaker that is `Ready` and may carry
/// addresses, else the first that is `Ready`, else the first with a speaker. `None`: no speaker has said anything yet.
#[must_use]
pub fn teller<'a>(indexes: &'a Indexes, settings: &Settings) -> Option<&'a str> {
    let speakers = || indexes.speakers.iter().map(|speaker| speaker.node.as_str());
    let ready = |node: &&str| indexes.nodes.get(node).is_some_and(|node| node.ready);
    let carries = |node: &&str| indexes.nodes.get(node).is_some_and(|node| may_carry_any(node, settings));
    let carrier = speakers().filter(ready).find(carries);
    carrier.or_else(|| speakers().find(ready)).or_else(|| speakers().next())
}

/// Of the nodes that may carry an address's traffic, the first with a speaker: it tells what keeps all of them from that.
#[must_use]
pub fn teller_of<'a>(indexes: &Indexes, announcement: &'a Announcement) -> Option<&'a str> {
    let mut nodes = announcement.nodes.iter().map(|hop| hop.node.as_str());
    nodes.find(|node| indexes.speakers.has(node))
}

/// May this node announce an address, as things are? Not one that only other nodes carry, that another node owns on its
/// LAN, or that no neighbour is to hear of: to wait for that is to wait for ever.
#[must_use]
pub fn may_be_announced(
    desired: &Announcements,
    address: IpAddr,
    announcement: &Announcement,
    status: &AnnouncerStatus,
) -> bool {
    announcement.protocols.iter().any(|protocol| match protocol {
        Protocol::Bgp => desired.bgp.as_ref().is_some_and(|bgp| {
            bgp.peers.values().any(|peer| goes_to(desired, bgp, peer, address, announcement))
        }),
        Protocol::Layer2 => {
            let own = status.addresses.get(&(address, Protocol::Layer2));
            let owner = own.and_then(|own| own.owner.as_deref());
            announcement.self_eligible && owner.is_none_or(|owner| owner == desired.node)
        }
        // Nobody speaks it yet.
        Protocol::Vip => false,
    })
}

/// Is a neighbour to hear of an address from this node?
fn goes_to(
    desired: &Announcements,
    bgp: &BgpAnnouncements,
    peer: &PeerAnnouncements,
    address: IpAddr,
    announcement: &Announcement,
) -> bool {
    let families = &peer.spec.families;
    let of_family = families.is_empty() || families.iter().any(|family| family.v6 == address.is_ipv6());
    let for_somebody = match peer.next_hops {
        NextHops::AllNodes => announcement.hops_of_rack(bgp.rack.as_deref()).next().is_some(),
        NextHops::SelfOnly => announcement.self_eligible,
    };
    of_family
        && peer.rules_for(announcement).is_none_or(|rules| !rules.is_empty())
        && (for_somebody || !peer.on_behalf_of(&desired.node, address, announcement).is_empty())
}

/// Warnings that concern the whole cluster: pools whose addresses nobody announces because every node that could has the
/// label `node.kubernetes.io/exclude-from-external-load-balancers`, which kubeadm puts on control-plane nodes.
#[must_use]
pub fn warnings(indexes: &Indexes, settings: &Settings) -> Vec<Event> {
    if settings.ignore_exclude_label || !indexes.nodes.iter().any(|node| node.is_excluded()) {
        return Vec::new();
    }
    let cluster = Settings { dataplane_healthy: true, ..settings.clone() };
    let announced = addresses(indexes, &cluster, None);
    let without_label = addresses(indexes, &Settings { ignore_exclude_label: true, ..cluster }, None);
    let mut silent: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (address, announcement) in
        without_label.iter().filter(|(address, _)| !announced.contains_key(*address))
    {
        silent.entry(&announcement.pool).or_default().push(address.to_string());
    }
    let warning = |(pool, addresses): (&str, Vec<String>)| Event {
        regarding: ObjectRef::cluster(Kind::Eip, pool),
        warning: true,
        reason: event::NO_ANNOUNCER,
        message: format!(
            "nobody announces {} of this pool ({}{}): every node that could has the label {}; remove it from nodes \
             that take traffic, or start the speakers with --ignore-exclude-label",
            if addresses.len() == 1 {
                "1 address".to_owned()
            } else {
                format!("{} addresses", addresses.len())
            },
            addresses.iter().take(3).cloned().collect::<Vec<_>>().join(", "),
            if addresses.len() > 3 { ", …" } else { "" },
            label::EXCLUDE_NODE,
        ),
    };
    silent.into_iter().map(warning).collect()
}
