//! The zones of link-local neighbours (RFC 4007): which interface an address is on, for one address may be on several.

use std::collections::{BTreeMap, BTreeSet};

use openelb_k8s::{announce::BgpAnnouncements, index::peers::Neighbor};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice::name_to_index, socket_with};

/// Indexes of interfaces by name. One that was seen is kept while a neighbour is on it: what has the name next may have
/// another one, and until then the neighbours of other interfaces are told from its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones(BTreeMap<String, u32>);

impl Zones {
    /// These indexes.
    #[cfg(test)]
    pub(super) fn new<'a>(indexes: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        Self(indexes.into_iter().map(|(name, index)| (name.to_owned(), index)).collect())
    }

    /// The interface's index; 0: there was none of this name yet.
    #[must_use]
    pub fn index(&self, interface: Option<&str>) -> u32 {
        interface.and_then(|name| self.0.get(name)).copied().unwrap_or_default()
    }

    /// What `index` says of the interfaces that link-local neighbours are on now. Gives whether anything is another one.
    pub fn renew(&mut self, bgp: Option<&BgpAnnouncements>, index: impl Fn(&str) -> Option<u32>) -> bool {
        let names = bgp.map(interfaces).unwrap_or_default();
        let entry = |name: &str| Some((name.to_owned(), index(name).or_else(|| self.0.get(name).copied())?));
        let now = Self(names.into_iter().filter_map(entry).collect());
        let changed = *self != now;
        *self = now;
        changed
    }
}

/// The interfaces that link-local neighbours are on.
#[must_use]
pub fn interfaces(bgp: &BgpAnnouncements) -> BTreeSet<&str> {
    let specs = bgp.peers.values().map(|announced| &announced.spec);
    specs
        .filter(|spec| is_link_local(spec.neighbor))
        .filter_map(|spec| spec.bind_interface.as_deref())
        .collect()
}

/// Whether the neighbour's address is one of many, told apart by interfaces.
pub(super) fn is_link_local(neighbor: Neighbor) -> bool {
    matches!(neighbor, Neighbor::Address(std::net::IpAddr::V6(address)) if address.is_unicast_link_local())
}

/// The index of an interface that is there.
#[must_use]
pub fn of_kernel(interface: &str) -> Option<u32> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    name_to_index(socket, interface).ok()
}
