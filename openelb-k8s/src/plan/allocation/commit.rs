//! What `status.used` of each Eip may hold now: on the way to what was decided, without ever committing an address
//! that somebody still publishes who may not share it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::outcome::Decided;
use super::state::State;
use crate::index::pools::USED_BYTES;
use crate::index::used::entry_bytes;
use crate::object::NamespacedName;

/// What changes in `status.used` of one Eip.
#[derive(Default)]
pub(super) struct Delta<'a> {
    pub(super) leave: BTreeSet<(IpAddr, &'a NamespacedName)>,
    pub(super) join: BTreeSet<(IpAddr, &'a NamespacedName)>,
}

/// The next state of `status.used` everywhere.
pub(super) struct Commits<'a> {
    /// By Eip, where anything changes.
    pub(super) deltas: BTreeMap<&'a str, Delta<'a>>,
    /// To be un-published although nothing better is there yet: holders that wait for each other in a circle.
    pub(super) unpublish: BTreeSet<(&'a NamespacedName, IpAddr)>,
}

/// Computes the next state.
pub(super) fn commits<'a>(state: &State<'a>, decided: &Decided<'a>) -> Commits<'a> {
    let mut deltas: BTreeMap<&'a str, Delta<'a>> = BTreeMap::new();
    // Those that are about to give an address up, and publish it still.
    let mut leaving: BTreeMap<IpAddr, BTreeSet<&'a NamespacedName>> = BTreeMap::new();
    let mut services = decided.services.iter().peekable();
    for (key, entry) in &state.concerned.entries {
        let placed = services.next_if(|(decided, _)| *decided == key).map(|(_, placed)| placed);
        if placed.is_some_and(|placed| placed.at_peace) {
            continue;
        }
        for (eip, address) in entry.records {
            let (eip, address) = (&**eip, *address);
            let goes_on_in = placed.and_then(|placed| {
                let (pool, _) = placed.addresses.iter().find(|(_, a)| *a == address)?;
                Some(&state.eip(*pool)?.name)
            });
            let stays = match goes_on_in {
                Some(name) if name == eip => true,
                // The record moves: it leaves here once it is there.
                Some(name) => {
                    !state.indexes.pools.get(name).is_some_and(|other| other.is_held_by(address, key))
                }
                None => {
                    let published = entry.is_published(address);
                    if published {
                        leaving.entry(address).or_default().insert(key);
                    }
                    published
                }
            };
            if !stays {
                deltas.entry(eip).or_default().leave.insert((address, key));
            }
        }
    }
    let mut wanted: BTreeMap<&'a str, BTreeSet<(IpAddr, &'a NamespacedName)>> = BTreeMap::new();
    for (key, placed) in decided.services.iter().filter(|(_, placed)| !placed.at_peace) {
        for (pool, address) in &placed.addresses {
            let Some(eip) = state.eip(*pool) else { continue };
            if !eip.is_held_by(*address, key) {
                wanted.entry(&eip.name).or_default().insert((*address, *key));
            }
        }
    }
    let mut waits: BTreeMap<&'a NamespacedName, BTreeSet<(&'a NamespacedName, IpAddr)>> = BTreeMap::new();
    for (name, wanted) in wanted {
        let mut bytes = state.indexes.pools.get(name).map_or(0, |eip| eip.used_bytes);
        for (address, key) in wanted {
            let in_the_way: BTreeSet<_> =
                leaving.get(&address).into_iter().flatten().filter(|other| **other != key).collect();
            if !in_the_way.is_empty() {
                waits.entry(key).or_default().extend(in_the_way.into_iter().map(|other| (*other, address)));
                continue;
            }
            bytes += entry_bytes(address.to_string().len(), key.namespace.len() + key.name.len() + 1);
            if bytes <= USED_BYTES {
                deltas.entry(name).or_default().join.insert((address, key));
            }
        }
    }
    Commits { deltas, unpublish: circles(waits) }
}

/// Who waits for somebody who waits, directly or not, for them. A chain dissolves by itself from its end; in a circle
/// all give up what others of it wait for.
fn circles<'a>(
    mut waits: BTreeMap<&'a NamespacedName, BTreeSet<(&'a NamespacedName, IpAddr)>>,
) -> BTreeSet<(&'a NamespacedName, IpAddr)> {
    loop {
        let before = waits.len();
        let waiting: BTreeSet<_> = waits.keys().copied().collect();
        for others in waits.values_mut() {
            others.retain(|(other, _)| waiting.contains(other));
        }
        let awaited: BTreeSet<_> = waits.values().flatten().map(|(other, _)| *other).collect();
        waits.retain(|key, others| !others.is_empty() && awaited.contains(key));
        if waits.len() == before {
            return waits.into_values().flatten().collect();
        }
    }
}
