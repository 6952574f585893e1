//! Which nodes answer for addresses of Layer 2.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Picture;

/// The nodes of each address, in order of name.
pub(super) struct Owners<'a>(BTreeMap<IpAddr, Vec<&'a str>>);

impl Owners<'_> {
    /// The nodes that answer for `address`.
    pub(super) fn of(&self, address: IpAddr) -> &[&str] {
        self.0.get(&address).map(Vec::as_slice).unwrap_or_default()
    }
}

impl Picture<'_> {
    /// As the speakers say. A node that died cannot take back what it said last: where another says the same of an
    /// address, a node that is gone or not Ready does not count.
    pub(super) fn owners(&self) -> Owners<'_> {
        let mut owners: BTreeMap<IpAddr, Vec<&str>> = BTreeMap::new();
        for speaker in &self.lists.speakers {
            for address in &speaker.layer2 {
                owners.entry(*address).or_default().push(&speaker.node);
            }
        }
        let lives = |node: &&str| self.indexes.nodes.get(node).is_some_and(|node| node.ready);
        for nodes in owners.values_mut().filter(|nodes| nodes.len() > 1) {
            if nodes.iter().any(lives) {
                nodes.retain(lives);
            }
        }
        Owners(owners)
    }
}
