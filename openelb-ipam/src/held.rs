//! Which addresses are held: hash tables of pages of neighbouring addresses, because allocation goes through neighbours
//! and a table of single addresses would miss the cache on each.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::range::Family;
use crate::set::from_number;
use crate::sharing::Holder;

/// Bits of an address that tell the addresses of one page apart.
const BITS: u32 = 4;
/// Addresses on a page: few enough that a lone IPv6 address wastes little, enough that neighbours share.
const PAGE: usize = 1 << BITS;

/// Holders by address.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    v4: Pages<u32>,
    v6: Pages<u128>,
    /// The holders of addresses that several hold; nearly always empty.
    shared: HashMap<IpAddr, Vec<Arc<Holder>>, RandomState>,
    len: usize,
}

/// By what the addresses of a page begin with.
type Pages<K> = HashMap<K, Box<Page>, RandomState>;

#[derive(Debug, Clone, Default)]
struct Page {
    /// The first holder of each address.
    first: [Option<Arc<Holder>>; PAGE],
    /// Addresses with more than one holder: a bit for each.
    shared: u16,
    used: u8,
}

/// Slot of an address in its page.
fn slot(address: IpAddr) -> usize {
    let last = match address {
        IpAddr::V4(v4) => v4.octets().last().copied(),
        IpAddr::V6(v6) => v6.octets().last().copied(),
    };
    usize::from(last.unwrap_or(0)) % PAGE
}

impl Page {
    fn is_shared(&self, slot: usize) -> bool {
        self.shared & 1 << slot != 0
    }
}

impl Held {
    /// Number of addresses.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    fn page(&self, address: IpAddr) -> Option<&Page> {
        match address {
            IpAddr::V4(v4) => self.v4.get(&(u32::from(v4) >> BITS)),
            IpAddr::V6(v6) => self.v6.get(&(u128::from(v6) >> BITS)),
        }
        .map(|page| &**page)
    }

    /// The holders of an address, in the order in which they came.
    pub(crate) fn get(&self, address: IpAddr) -> &[Arc<Holder>] {
        let slot = slot(address);
        let Some(page) = self.page(address) else { return &[] };
        if page.is_shared(slot) {
            return self.shared.get(&address).map_or(&[], Vec::as_slice);
        }
        page.first.get(slot).and_then(Option::as_ref).map_or(&[], std::slice::from_ref)
    }

    /// Adds a holder behind those that are there. Whether it is the first.
    pub(crate) fn push(&mut self, address: IpAddr, holder: Arc<Holder>) -> bool {
        let page = match address {
            IpAddr::V4(v4) => self.v4.entry(u32::from(v4) >> BITS).or_default(),
            IpAddr::V6(v6) => self.v6.entry(u128::from(v6) >> BITS).or_default(),
        };
        let number = slot(address);
        let Some(slot) = page.first.get_mut(number) else { return false };
        match slot {
            None => {
                *slot = Some(holder);
                page.used += 1;
                self.len += 1;
                true
            }
            Some(first) => {
                let holders = self.shared.entry(address).or_insert_with(|| vec![Arc::clone(first)]);
                holders.push(holder);
                page.shared |= 1 << number;
                false
            }
        }
    }

    /// Takes the holder away that `is` says, with whether the address has none left.
    pub(crate) fn take(
        &mut self,
        address: IpAddr,
        is: impl Fn(&Holder) -> bool,
    ) -> Option<(Arc<Holder>, bool)> {
        match address {
            IpAddr::V4(v4) => take(&mut self.v4, u32::from(v4) >> BITS, &mut self.shared, address, is),
            IpAddr::V6(v6) => take(&mut self.v6, u128::from(v6) >> BITS, &mut self.shared, address, is),
        }
        .inspect(|(_, empty)| self.len -= usize::from(*empty))
    }

    /// In no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpAddr, &[Arc<Holder>])> {
        let v4 = self.v4.iter().map(|(key, page)| (Family::V4, u128::from(*key), page));
        let v6 = self.v6.iter().map(|(key, page)| (Family::V6, *key, page));
        v4.chain(v6).flat_map(move |(family, key, page)| {
            (key << BITS..).zip(&page.first).filter_map(move |(value, first)| {
                let first = first.as_ref()?;
                let address = from_number(family, value);
                let alone = !page.is_shared(slot(address));
                Some((address, if alone { std::slice::from_ref(first) } else { self.get(address) }))
            })
        })
    }
}

fn take<K: Eq + Hash>(
    pages: &mut Pages<K>,
    key: K,
    shared: &mut HashMap<IpAddr, Vec<Arc<Holder>>, RandomState>,
    address: IpAddr,
    is: impl Fn(&Holder) -> bool,
) -> Option<(Arc<Holder>, bool)> {
    let page = pages.get_mut(&key)?;
    let number = slot(address);
    let is_shared = page.is_shared(number);
    let slot = page.first.get_mut(number)?;
    if is_shared {
        let holders = shared.get_mut(&address)?;
        let position = holders.iter().position(|holder| is(holder))?;
        let gone = holders.remove(position);
        *slot = holders.first().cloned();
        if holders.len() == 1 {
            shared.remove(&address);
            page.shared &= !(1 << number);
        }
        return Some((gone, false));
    }
    let gone = slot.take_if(|holder| is(holder))?;
    page.used -= 1;
    if page.used == 0 {
        pages.remove(&key);
    }
    Some((gone, true))
}
