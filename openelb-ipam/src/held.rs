//! Which addresses are held: a hash table of pages of neighbouring addresses, because allocation goes through neighbours
//! and a table of single addresses would miss the cache on each.

use std::collections::HashMap;
use std::net::IpAddr;

use foldhash::fast::RandomState;

use crate::pool::Holders;
use crate::range::Family;
use crate::set::{from_number, to_number};

/// Addresses on a page: few enough that a lone IPv6 address wastes little, enough that neighbours share.
const PAGE: u128 = 16;

/// Holders by address.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    pages: HashMap<(Family, u128), Page, RandomState>,
    len: usize,
}

#[derive(Debug, Clone)]
struct Page {
    slots: Box<[Option<Holders>]>,
    used: usize,
}

impl Page {
    fn new() -> Self {
        Self { slots: (0..PAGE).map(|_| None).collect(), used: 0 }
    }
}

/// Page and slot of an address.
fn locate(address: IpAddr) -> ((Family, u128), usize) {
    let (family, value) = to_number(address);
    ((family, value / PAGE), usize::try_from(value % PAGE).unwrap_or(0))
}

impl Held {
    /// Number of addresses.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, address: IpAddr) -> Option<&Holders> {
        let (page, slot) = locate(address);
        self.pages.get(&page)?.slots.get(slot)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, address: IpAddr) -> Option<&mut Holders> {
        let (page, slot) = locate(address);
        self.pages.get_mut(&page)?.slots.get_mut(slot)?.as_mut()
    }

    pub(crate) fn insert(&mut self, address: IpAddr, holders: Holders) {
        let (key, slot) = locate(address);
        let page = self.pages.entry(key).or_insert_with(Page::new);
        if let Some(slot) = page.slots.get_mut(slot)
            && slot.replace(holders).is_none()
        {
            page.used += 1;
            self.len += 1;
        }
    }

    /// Takes the holders of an address away.
    pub(crate) fn take(&mut self, address: IpAddr) -> Option<Holders> {
        let (key, slot) = locate(address);
        let page = self.pages.get_mut(&key)?;
        let taken = page.slots.get_mut(slot)?.take()?;
        page.used -= 1;
        self.len -= 1;
        if page.used == 0 {
            self.pages.remove(&key);
        }
        Some(taken)
    }

    /// In no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpAddr, &Holders)> {
        self.pages.iter().flat_map(|((family, number), page)| {
            let first = number * PAGE;
            (first..)
                .zip(&page.slots)
                .filter_map(move |(value, slot)| Some((from_number(*family, value), slot.as_ref()?)))
        })
    }
}
