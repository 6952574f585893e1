//! Routes: what is wanted, what each neighbour has been told, and how many each has announced.

pub(crate) mod adj_in;
pub(crate) mod adj_out;
pub(crate) mod attributes;
pub(crate) mod best_path;
pub(crate) mod egress;
pub(crate) mod packer;
pub(crate) mod received;
pub(crate) mod received_sets;
pub(crate) mod selection;
pub(crate) mod table;
#[cfg(test)]
mod tests;

use attributes::AttributeStore;
use received::Received;
use table::Table;

use crate::wire::{Family, Prefix};

/// All routes that are wanted, and those that were received and are kept.
#[derive(Debug)]
pub(crate) struct Rib {
    pub(crate) ipv4: Table,
    pub(crate) ipv6: Table,
    pub(crate) attributes: AttributeStore,
    /// What neighbours have sent and is kept. It never meets the tables.
    pub(crate) received: Received,
}

impl Rib {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            ipv4: Table::new(seed),
            ipv6: Table::new(seed),
            attributes: AttributeStore::new(seed),
            received: Received::new(seed),
        }
    }

    /// A family's table, and the attribute sets.
    pub(crate) fn table(&mut self, family: Family) -> (&mut Table, &mut AttributeStore) {
        let table = if family == Family::IPV4_UNICAST { &mut self.ipv4 } else { &mut self.ipv6 };
        (table, &mut self.attributes)
    }
}

/// The octets of a prefix that its length makes significant: an array, and how many of it.
fn significant_octets(prefix: Prefix) -> ([u8; 16], usize) {
    let octets = match prefix {
        Prefix::V4(prefix) => {
            let [a, b, c, d] = prefix.address().octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        Prefix::V6(prefix) => prefix.address().octets(),
    };
    (octets, usize::from(prefix.len()).div_ceil(8))
}
