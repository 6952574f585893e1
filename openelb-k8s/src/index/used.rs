//! `Eip.status.used`, parsed: who holds an address. A new version is compared with the last one, and only what differs
//! is parsed, for it has an entry for each Service and changes with each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::object::NamespacedName;

/// The entries of `status.used`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// Who holds an address, sorted.
    pub(super) holders: BTreeMap<IpAddr, Vec<NamespacedName>>,
    /// What cannot be read.
    pub(super) garbled: Vec<String>,
    /// Entries that are not as we write them, as they are stored.
    pub(super) untidy: BTreeMap<String, String>,
    /// Bytes that they take as JSON, roughly.
    pub(super) bytes: usize,
}

/// One holder of one address came or went.
pub(super) struct Move {
    pub(super) address: IpAddr,
    pub(super) holder: NamespacedName,
    pub(super) came: bool,
}

/// Bytes of an entry, roughly: two quoted strings, a colon and a comma.
pub(crate) const fn entry_bytes(address: usize, holders: usize) -> usize {
    address + holders + 6
}

/// The holders as we write them.
pub(crate) fn join<'a>(holders: impl IntoIterator<Item = &'a NamespacedName>) -> String {
    let mut text = String::new();
    for holder in holders {
        if !text.is_empty() {
            text.push(';');
        }
        text.push_str(&holder.namespace);
        text.push('/');
        text.push_str(&holder.name);
    }
    text
}

/// Is this the text of these holders, as we write it?
fn is_text_of(text: &str, holders: &[NamespacedName]) -> bool {
    let mut parts = text.split(';');
    let same = holders.iter().all(|holder| {
        let part = parts.next().and_then(|part| part.split_once('/'));
        part.is_some_and(|(namespace, name)| holder.namespace == namespace && holder.name == name)
    });
    same && parts.next().is_none()
}

/// Is this how we write the address?
fn is_text_of_address(text: &str, address: IpAddr) -> bool {
    match address {
        // The parser takes IPv4 in this one form only.
        IpAddr::V4(_) => !text.starts_with(char::is_whitespace) && !text.ends_with(char::is_whitespace),
        IpAddr::V6(_) => text == address.to_string(),
    }
}

impl Used {
    /// Takes in what is stored now, and says who came and who went.
    pub(super) fn update(&mut self, stored: Option<&BTreeMap<String, String>>) -> Vec<Move> {
        (self.garbled, self.untidy, self.bytes) = (Vec::new(), BTreeMap::new(), 0);
        let mut moves = Vec::new();
        // Entries that differ: of one address there may be several in different notations.
        let mut changed: BTreeMap<IpAddr, Vec<NamespacedName>> = BTreeMap::new();
        let mut same = Vec::new();
        for (text, holders) in stored.into_iter().flatten() {
            self.bytes += entry_bytes(text.len(), holders.len());
            let Ok(address) = text.trim().parse::<IpAddr>() else {
                self.garbled.push(format!("{text}: {holders}"));
                self.untidy.insert(text.clone(), holders.clone());
                continue;
            };
            let tidy = is_text_of_address(text, address);
            let known = self.holders.get(&address);
            if tidy
                && known.is_some_and(|known| is_text_of(holders, known))
                && !changed.contains_key(&address)
            {
                same.push(address);
                continue;
            }
            let mut parsed = Vec::new();
            for holder in holders.split(';').map(str::trim).filter(|holder| !holder.is_empty()) {
                match holder.parse::<NamespacedName>() {
                    Ok(key) => parsed.push(key),
                    Err(_) => self.garbled.push(format!("{text}: {holder}")),
                }
            }
            parsed.sort();
            parsed.dedup();
            if !tidy || parsed.is_empty() || join(&parsed) != *holders {
                self.untidy.insert(text.clone(), holders.clone());
            }
            if let Some(position) = same.iter().position(|same| *same == address && !tidy) {
                same.swap_remove(position);
                parsed.extend(known.into_iter().flatten().cloned());
            }
            let entry = changed.entry(address).or_default();
            entry.extend(parsed);
            entry.sort();
            entry.dedup();
        }
        let kept = changed.keys().filter(|address| self.holders.contains_key(*address)).count();
        if same.len() + kept < self.holders.len() {
            let same: BTreeSet<IpAddr> = same.into_iter().collect();
            for address in self.holders.keys().filter(|address| !same.contains(*address)) {
                changed.entry(*address).or_default();
            }
        }
        for (address, now) in changed {
            let before = self.holders.remove(&address).unwrap_or_default();
            let moved = |holder: &NamespacedName, came| Move { address, holder: holder.clone(), came };
            moves.extend(
                before.iter().filter(|holder| !now.contains(holder)).map(|holder| moved(holder, false)),
            );
            moves.extend(
                now.iter().filter(|holder| !before.contains(holder)).map(|holder| moved(holder, true)),
            );
            if !now.is_empty() {
                self.holders.insert(address, now);
            }
        }
        moves
    }
}

#[cfg(test)]
mod tests;
