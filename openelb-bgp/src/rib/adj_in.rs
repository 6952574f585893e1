//! How many routes a neighbour has announced (Adj-RIB-In), counted exactly: what is announced twice counts once, and
//! a withdrawal of what was not announced counts nothing. Nothing else of a route is kept.
//!
//! Prefixes of one length share a table of their bits alone: five octets for IPv4, 17 for IPv6, before the slack of a
//! hash table, which keeps IPv4 below 12 octets per prefix.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::significant_octets;
use crate::wire::{Family, Nlri};

/// The routes that a neighbour has announced in one family.
#[derive(Debug)]
pub(crate) struct AdjIn {
    tables: Tables,
    hasher: FixedState,
    count: usize,
}

/// By prefix length.
#[derive(Debug)]
enum Tables {
    V4(Vec<HashTable<u32>>),
    V6(Vec<HashTable<[u8; 16]>>),
    V4AddPath(Vec<HashTable<(u32, u32)>>),
    V6AddPath(Vec<HashTable<(u32, [u8; 16])>>),
}

fn update<T: Hash + Eq + Copy>(
    tables: &mut Vec<HashTable<T>>,
    length: u8,
    key: T,
    hasher: &FixedState,
    announced: bool,
) -> isize {
    let index = usize::from(length);
    if tables.len() <= index {
        if !announced {
            return 0;
        }
        tables.resize_with(index + 1, HashTable::new);
    }
    let Some(table) = tables.get_mut(index) else { return 0 };
    let hash = hasher.hash_one(key);
    if !announced {
        return match table.find_entry(hash, |known| *known == key) {
            Ok(entry) => {
                entry.remove();
                if table.is_empty() {
                    *table = HashTable::new();
                }
                -1
            }
            Err(_) => 0,
        };
    }
    match table.entry(hash, |known| *known == key, |known| hasher.hash_one(known)) {
        hashbrown::hash_table::Entry::Occupied(_) => 0,
        hashbrown::hash_table::Entry::Vacant(entry) => {
            entry.insert(key);
            1
        }
    }
}

impl AdjIn {
    /// For a new session.
    pub(crate) fn new(family: Family, add_path: bool, seed: u64) -> Self {
        let tables = match (family == Family::IPV4_UNICAST, add_path) {
            (true, false) => Tables::V4(Vec::new()),
            (false, false) => Tables::V6(Vec::new()),
            (true, true) => Tables::V4AddPath(Vec::new()),
            (false, true) => Tables::V6AddPath(Vec::new()),
        };
        Self { tables, hasher: FixedState::with_seed(seed), count: 0 }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Octets of memory that they take at most, small tables left out: an entry takes most where its table has just
    /// grown.
    pub(crate) fn octets(&self) -> u64 {
        let entry = match &self.tables {
            Tables::V4(_) => 12,
            Tables::V6(_) => 40,
            Tables::V4AddPath(_) => 21,
            Tables::V6AddPath(_) => 49,
        };
        entry * self.count as u64
    }

    /// The neighbour announced this.
    pub(crate) fn announce(&mut self, nlri: &Nlri) {
        self.update(nlri, true);
    }

    /// The neighbour withdrew this.
    pub(crate) fn withdraw(&mut self, nlri: &Nlri) {
        self.update(nlri, false);
    }

    fn update(&mut self, nlri: &Nlri, announced: bool) {
        let (length, hasher) = (nlri.prefix.len(), &self.hasher);
        let (octets, _) = significant_octets(nlri.prefix);
        let [a, b, c, d, ..] = octets;
        let short = u32::from_be_bytes([a, b, c, d]);
        let change = match &mut self.tables {
            Tables::V4(tables) => update(tables, length, short, hasher, announced),
            Tables::V6(tables) => update(tables, length, octets, hasher, announced),
            Tables::V4AddPath(tables) => update(tables, length, (nlri.path_id, short), hasher, announced),
            Tables::V6AddPath(tables) => update(tables, length, (nlri.path_id, octets), hasher, announced),
        };
        self.count = self.count.saturating_add_signed(change);
    }

    /// Octets reserved.
    #[cfg(test)]
    pub(crate) fn reserved_bytes(&self) -> usize {
        fn sum<T>(tables: &[HashTable<T>]) -> usize {
            tables.iter().map(HashTable::allocation_size).sum()
        }
        match &self.tables {
            Tables::V4(tables) => sum(tables),
            Tables::V6(tables) => sum(tables),
            Tables::V4AddPath(tables) => sum(tables),
            Tables::V6AddPath(tables) => sum(tables),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_there_and_nothing_twice() {
        let nlri =
            |text: &str, path_id| Nlri { path_id, prefix: text.parse::<ipnet::IpNet>().unwrap().into() };
        let mut plain = AdjIn::new(Family::IPV4_UNICAST, false, 0);
        plain.withdraw(&nlri("10.0.0.0/8", 0));
        plain.announce(&nlri("10.0.0.0/8", 0));
        plain.announce(&nlri("10.0.0.0/8", 0));
        plain.announce(&nlri("10.0.0.0/9", 0));
        assert_eq!(plain.len(), 2);
        plain.withdraw(&nlri("10.0.0.0/8", 0));
        plain.withdraw(&nlri("10.0.0.0/8", 0));
        assert_eq!(plain.len(), 1);
        let mut paths = AdjIn::new(Family::IPV6_UNICAST, true, 0);
        paths.announce(&nlri("2001:db8::/32", 1));
        paths.announce(&nlri("2001:db8::/32", 2));
        paths.withdraw(&nlri("2001:db8::/32", 3));
        assert_eq!(paths.len(), 2);
    }

    #[test]
    fn an_ipv4_prefix_takes_at_most_16_octets() {
        let mut table = AdjIn::new(Family::IPV4_UNICAST, false, 0);
        let mut worst = 0.0_f64;
        for index in 0..200_000_u32 {
            let prefix = ipnet::Ipv4Net::new(std::net::Ipv4Addr::from(index << 8), 24).unwrap();
            table.announce(&Nlri { path_id: 0, prefix: ipnet::IpNet::V4(prefix).into() });
            if index > 1000 {
                worst = worst.max(table.reserved_bytes() as f64 / table.len() as f64);
                assert!(table.reserved_bytes() as u64 <= table.octets() + 64, "{index}");
            }
        }
        assert!(worst <= 16.0, "{worst} octets per prefix");
    }
}
