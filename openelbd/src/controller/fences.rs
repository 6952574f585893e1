//! What two leaders at once need beyond a compare-and-swap on each object.
//!
//! An address is committed on an Eip and published on a Service: two objects, two versions. These rules close the gap
//! between them, whatever the Lease says, however far a watch lags and however old a list is:
//!
//! - **Who publishes has written the Eip.** A record that another process committed, or this one before a crash, is
//!   confirmed with a write on its Eip (`status.revision`) after the Service was seen to wait for it. A leader that is
//!   about to release that record, on what it knew before, then fails on the Eip's version.
//! - **Who gives has seen the Services.** An Eip that lost records which this process did not take away (its status was
//!   deleted or edited, or another leader released them) gives nothing until every Service has been seen at least as of
//!   that version: one of them may publish what now seems free.
//! - **Who takes has seen the Eips.** An address that a Service publishes and no known Eip holds for it stays until every
//!   Eip has been seen at least as of the Service's version: whoever published it knew one.
//!
//! A fourth, that nobody's record is released before a fresh read of the Service, is the [`writer`](super::writer)'s.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use openelb_k8s::object::NamespacedName;

/// An address that a Service holds in `status.used` of some Eip.
pub(super) type Record = (NamespacedName, IpAddr);

/// What has been seen and written of Eips and Services, as far as it matters for others.
#[derive(Debug, Default)]
pub(super) struct Fences {
    /// Every change of a Service up to this version has been seen.
    services_at: u64,
    /// Every change of an Eip up to this version has been seen.
    eips_at: u64,
    /// Eips that lost records without us, and when.
    doubts: BTreeMap<String, u64>,
    /// The same, while a write of ours is under way that may have been it.
    suspicions: BTreeMap<String, u64>,
    /// By Service, what this process wrote or confirmed, and in which Eip, after it saw that the Service waits for it.
    own: BTreeMap<NamespacedName, BTreeSet<(IpAddr, String)>>,
    /// Records by Eip that are still to be confirmed.
    unconfirmed: BTreeMap<String, BTreeSet<Record>>,
    /// How many lists in a row were older than they should be.
    old_lists: u32,
}

/// After so many old lists in a row, versions of Services and Eips have nothing to do with each other: an API server may
/// keep them in different stores (`--etcd-servers-overrides`). Then a list counts as of when it was asked for.
const OLD_LISTS: u32 = 10;

impl Fences {
    /// Every change of a Service up to this version has been seen.
    pub(super) fn services_reached(&mut self, version: u64) {
        self.services_at = self.services_at.max(version);
        self.doubts.retain(|_, doubt| *doubt > self.services_at);
    }

    /// Every change of an Eip up to this version has been seen.
    pub(super) fn eips_reached(&mut self, version: u64) {
        self.eips_at = self.eips_at.max(version);
    }

    /// A list of this version was asked for because one of at least `least` is needed: up to which version everything has
    /// been seen with it; `None`: it is too old, and is to be asked for again.
    pub(super) fn listed(&mut self, version: u64, least: u64) -> Option<u64> {
        if version >= least {
            self.old_lists = 0;
            return Some(version);
        }
        self.old_lists = self.old_lists.saturating_add(1);
        (self.old_lists > OLD_LISTS).then_some(least)
    }

    /// May an address that no known Eip holds for it be taken off a Service of this version?
    pub(super) fn may_take(&self, version: u64) -> bool {
        version <= self.eips_at
    }

    /// An Eip lost records in this version, and not by an answer to us; or what it lost before is not known.
    /// `writing`: a write of ours on it is under way.
    pub(super) fn lost(&mut self, eip: &str, version: u64, writing: bool) {
        if writing {
            self.suspicions.insert(eip.to_owned(), version);
        } else {
            self.doubt(eip, version);
        }
    }

    fn doubt(&mut self, eip: &str, version: u64) {
        self.disown(eip);
        if version > self.services_at {
            self.doubts.insert(eip.to_owned(), version);
        }
    }

    /// Our write on an Eip has ended: with this version, or unheard. What it held of `records` is ours.
    pub(super) fn written(&mut self, eip: &str, version: Option<u64>, records: BTreeSet<Record>) {
        // Nobody comes between the version a write was decided on and the one it made.
        if let Some(seen) = self.suspicions.remove(eip)
            && version.is_none_or(|version| version < seen)
        {
            self.doubt(eip, seen);
            return;
        }
        if version.is_some() && !records.is_empty() {
            for (service, address) in records {
                self.own.entry(service).or_default().insert((address, eip.to_owned()));
            }
        }
    }

    fn disown(&mut self, eip: &str) {
        self.own.retain(|_, places| {
            places.retain(|(_, place)| place != eip);
            !places.is_empty()
        });
    }

    /// The version up to which Services must be seen before this Eip may give or take; `None`: it may.
    pub(super) fn behind(&self, eip: &str) -> Option<u64> {
        self.doubts.get(eip).copied()
    }

    /// May the Service publish the address that it holds in one of these Eips? If not, that is to be confirmed.
    pub(super) fn may_publish<'a>(
        &mut self,
        record: &Record,
        mut eips: impl Iterator<Item = &'a str>,
    ) -> bool {
        let mut first = None;
        let (service, address) = record;
        let own = self.own.get(service);
        let known = eips.any(|eip| {
            first.get_or_insert(eip);
            own.is_some_and(|own| own.iter().any(|(a, place)| a == address && place == eip))
        });
        if let (false, Some(eip)) = (known, first) {
            self.unconfirmed.entry(eip.to_owned()).or_default().insert(record.clone());
        }
        known
    }

    /// Everything is decided anew.
    pub(super) fn decide(&mut self) {
        self.unconfirmed.clear();
    }

    /// The Eips with records that are to be confirmed.
    pub(super) fn to_confirm(&self) -> Vec<String> {
        self.unconfirmed.keys().cloned().collect()
    }

    /// A write on this Eip begins: what it confirms, if it succeeds.
    pub(super) fn confirmed_by(&mut self, eip: &str) -> BTreeSet<Record> {
        self.unconfirmed.remove(eip).unwrap_or_default()
    }

    /// The Service publishes what it waited for, or does not wait any more.
    pub(super) fn forget(&mut self, service: &NamespacedName) {
        self.own.remove(service);
    }

    /// The Eip is gone.
    pub(super) fn forget_eip(&mut self, eip: &str) {
        self.doubts.remove(eip);
        self.suspicions.remove(eip);
        self.disown(eip);
        self.unconfirmed.remove(eip);
    }

    /// This process leads from now on, or does not any more: what others do meanwhile is theirs.
    pub(super) fn leader_changes(&mut self) {
        self.own.clear();
        self.unconfirmed.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, last: u8) -> Record {
        (NamespacedName::new("default", name), [192, 0, 2, last].into())
    }

    #[test]
    fn an_eip_that_lost_records_gives_nothing_until_services_are_seen_as_of_then() {
        let mut fences = Fences::default();
        fences.services_reached(10);
        fences.lost("a", 9, false);
        assert_eq!(fences.behind("a"), None, "every Service was seen after that");
        fences.lost("a", 20, false);
        assert_eq!((fences.behind("a"), fences.behind("b")), (Some(20), None));
        fences.services_reached(19);
        assert_eq!(fences.behind("a"), Some(20));
        fences.services_reached(20);
        assert_eq!(fences.behind("a"), None);
        fences.services_reached(5);
        fences.lost("a", 12, false);
        assert_eq!(fences.behind("a"), None, "an old list takes nothing back");
    }

    #[test]
    fn nothing_is_taken_off_a_service_that_is_newer_than_what_is_known_of_eips() {
        let mut fences = Fences::default();
        fences.eips_reached(10);
        assert!(fences.may_take(10));
        assert!(!fences.may_take(11), "the list of Eips may be older than the one that it publishes from");
        fences.eips_reached(11);
        fences.eips_reached(3);
        assert!(fences.may_take(11));
    }

    #[test]
    fn a_list_that_is_too_old_is_asked_for_again_but_not_for_ever() {
        let mut fences = Fences::default();
        assert_eq!(fences.listed(20, 10), Some(20));
        for _ in 0..OLD_LISTS {
            assert_eq!(fences.listed(9, 10), None);
        }
        assert_eq!(fences.listed(9, 10), Some(10), "the versions cannot be compared");
        assert_eq!(fences.listed(8, 11), Some(11));
        assert_eq!(fences.listed(12, 11), Some(12));
        assert_eq!(fences.listed(8, 11), None);
    }

    #[test]
    fn what_the_watch_brings_of_our_own_write_is_no_loss() {
        let mut fences = Fences::default();
        fences.lost("a", 20, true);
        assert_eq!(fences.behind("a"), None);
        fences.written("a", Some(21), BTreeSet::new());
        assert_eq!(fences.behind("a"), None, "both steps of a write are ours");
        // Its answer did not come, or it was refused because somebody else was first.
        fences.lost("a", 30, true);
        fences.written("a", None, BTreeSet::from([record("s", 1)]));
        assert_eq!(fences.behind("a"), Some(30));
        assert!(!fences.may_publish(&record("s", 1), ["a"].into_iter()));
        // It was lost after what we wrote.
        fences.lost("b", 41, true);
        fences.written("b", Some(40), BTreeSet::new());
        assert_eq!(fences.behind("b"), Some(41));
    }

    #[test]
    fn a_record_is_published_by_who_wrote_or_confirmed_it() {
        let mut fences = Fences::default();
        fences.written("a", Some(1), BTreeSet::from([record("s", 1)]));
        assert!(fences.may_publish(&record("s", 1), ["a"].into_iter()));
        assert!(fences.to_confirm().is_empty());
        assert!(!fences.may_publish(&record("t", 2), ["a"].into_iter()), "another process committed it");
        assert_eq!(fences.to_confirm(), ["a"]);
        let confirmed = fences.confirmed_by("a");
        assert!(fences.to_confirm().is_empty());
        fences.written("a", Some(2), confirmed);
        assert!(fences.may_publish(&record("t", 2), ["a"].into_iter()));
        // A write that fails confirms nothing.
        assert!(!fences.may_publish(&record("u", 3), ["a"].into_iter()));
        let confirmed = fences.confirmed_by("a");
        fences.written("a", None, confirmed);
        assert!(!fences.may_publish(&record("u", 3), ["a"].into_iter()));
    }

    #[test]
    fn a_record_is_confirmed_anew_once_its_service_did_not_wait_or_the_eip_changed_without_us() {
        let mut fences = Fences::default();
        let records = || BTreeSet::from([record("s", 1), record("t", 2)]);
        fences.written("a", Some(1), records());
        fences.forget(&record("s", 1).0);
        assert!(!fences.may_publish(&record("s", 1), ["a"].into_iter()));
        assert!(fences.may_publish(&record("t", 2), ["a"].into_iter()));
        fences.services_reached(100);
        fences.lost("a", 50, false);
        assert!(!fences.may_publish(&record("t", 2), ["a"].into_iter()), "somebody else writes there");
        fences.written("a", Some(60), records());
        fences.forget_eip("a");
        assert!(!fences.may_publish(&record("t", 2), ["a"].into_iter()));
        fences.written("a", Some(70), records());
        fences.leader_changes();
        assert!(!fences.may_publish(&record("t", 2), ["a"].into_iter()));
    }
}
