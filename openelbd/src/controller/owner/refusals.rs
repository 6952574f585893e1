//! Writes that the API server refuses: when they are tried again, and what is told of them.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use openelb_k8s::{
    names::event,
    object::{Kind, Object, ObjectRef},
    plan::Write,
    store::StoreError,
};

use super::Owner;
use crate::events::{EventType, refused_write};

/// The topic of events on the object itself.
const WRITE: &str = "write";
/// The topic of events on Services that wait for a write on an Eip.
const RELEASE: &str = "release";
/// A write that the server refuses is tried again after this long, doubling up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_secs(2);
/// The longest pause after a refusal.
const LONGEST: Duration = Duration::from_secs(120);

/// A write that was refused.
pub(super) struct Refused {
    /// It is tried again then.
    pub(super) until: Instant,
    /// How long it waits until then.
    pub(super) pause: Duration,
    /// For want of rights.
    forbidden: bool,
    early: Early,
    /// That it is due has led to a decision.
    seen: bool,
}

/// Whether a write that waits may be tried before its time: once, so that one success does not undo all pauses again
/// and again where rights are had in part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Early {
    NotYet,
    Now,
    Tried,
}

impl Refused {
    fn is_due(&self, now: Instant) -> bool {
        self.until <= now || self.early == Early::Now
    }
}

/// Is the object, read after the write failed, of the very version that the write was decided on?
pub(super) fn is_as_decided(write: &Write, read: &[(ObjectRef, Option<Object>)]) -> bool {
    let is_target = |(reference, _): &&(ObjectRef, Option<Object>)| *reference == write.target;
    let found = read.iter().find(is_target).and_then(|(_, found)| found.as_ref());
    found.is_some_and(|object| {
        object.metadata().resource_version.as_deref() == Some(write.resource_version.as_str())
    })
}

impl Owner {
    /// A write on that object failed as if the API server were not there. Did others succeed since that happened the
    /// last time? Then it is about this object (it is too large for etcd, say). One that waits for that reason goes on
    /// to do so if nothing succeeded since, and not for longer: the API server may be away now.
    pub(super) fn fails_alone(&mut self, target: &ObjectRef) -> bool {
        let Some(before) = self.unavailable.insert(target.clone(), self.successes) else { return false };
        let others = before < self.successes;
        match self.refused.get_mut(target) {
            Some(waits) if !others => {
                // It is doubled when it is refused.
                waits.pause /= 2;
                true
            }
            _ => others,
        }
    }

    /// The API server will not take this write by being asked again at once.
    pub(super) fn refuse(&mut self, write: &Write, cause: &str) {
        let named = format!("{}: ", write.target);
        let cause = cause.strip_prefix(&named).unwrap_or(cause).to_owned();
        let error = StoreError::Refused { object: write.target.clone(), cause };
        self.set_refused(&write.target, &error);
        self.tell_refused(write, &error);
    }

    /// A write on that object was refused.
    pub(super) fn set_refused(&mut self, target: &ObjectRef, error: &StoreError) {
        let now = Instant::now();
        let forbidden = matches!(error, StoreError::Forbidden { .. });
        self.forbidden |= forbidden;
        let (until, pause, early) = match self.refused.get(target) {
            Some(before) if before.early == Early::Now && before.until > now => {
                (before.until, before.pause, Early::Tried)
            }
            Some(before) => {
                let pause = (before.pause * 2).min(LONGEST);
                (now + pause, pause, Early::NotYet)
            }
            None => (now + SHORTEST, SHORTEST, Early::NotYet),
        };
        self.refused.insert(target.clone(), Refused { until, pause, forbidden, early, seen: false });
    }

    /// A write succeeded: the rights that others waited for may be there again.
    pub(super) fn recall_forbidden(&mut self) {
        if !std::mem::take(&mut self.forbidden) {
            return;
        }
        for refused in self.refused.values_mut() {
            if refused.forbidden && refused.early == Early::NotYet {
                refused.early = Early::Now;
                (self.undecided, self.unreported) = (true, true);
            }
        }
    }

    /// May that object be written on now?
    pub(super) fn may_write(&self, target: &ObjectRef, now: Instant) -> bool {
        self.refused.get(target).is_none_or(|refused| refused.is_due(now))
            && !self.contests.holds(target, now)
    }

    /// When the next write that was refused is due; in the past if that was not seen in time.
    pub(super) fn refused_until(&self) -> Option<Instant> {
        self.refused.values().filter(|refused| !refused.seen).map(|refused| refused.until).min()
    }

    /// Are writes due that were refused? Asked once of each.
    pub(super) fn take_refused_due(&mut self, now: Instant) -> bool {
        let mut due = false;
        for refused in self.refused.values_mut().filter(|refused| !refused.seen && refused.is_due(now)) {
            (refused.seen, due) = (true, true);
        }
        due
    }

    /// Forgets what was refused, is due, and is not wanted any more, of addresses.
    pub(super) fn forget_moot(&mut self, commits: &[Write], publications: &[Write], now: Instant) {
        if !self.refused.values().any(|refused| refused.is_due(now)) {
            return;
        }
        let wanted: BTreeSet<&ObjectRef> =
            commits.iter().chain(publications).map(|write| &write.target).collect();
        // Of Eips, other writes than those of addresses may have been refused.
        let notes: BTreeSet<ObjectRef> = self
            .notes
            .writes(&self.indexes.layer2, Timestamp::now())
            .into_iter()
            .map(|write| write.target)
            .collect();
        let unconfirmed = self.fences.to_confirm();
        let is_moot = |target: &ObjectRef| match target.kind {
            Kind::Service => !wanted.contains(target),
            Kind::Eip => {
                !wanted.contains(target) && !notes.contains(target) && !unconfirmed.contains(&target.name)
            }
            _ => false,
        };
        self.forget_where(now, is_moot);
    }

    /// The same of status of sessions and settings.
    pub(super) fn forget_moot_reports(&mut self, wanted: &BTreeSet<ObjectRef>) {
        let is_moot = |target: &ObjectRef| {
            !matches!(target.kind, Kind::Service | Kind::Eip) && !wanted.contains(target)
        };
        self.forget_where(Instant::now(), is_moot);
    }

    fn forget_where(&mut self, now: Instant, is_moot: impl Fn(&ObjectRef) -> bool) {
        let events = &mut self.events;
        self.refused.retain(|target, refused| {
            let stays = !refused.is_due(now) || !is_moot(target);
            if !stays {
                events.clear(target, WRITE);
            }
            stays
        });
    }

    /// Tells that a write was refused: on its object, and on the Services that still hold an address because of it.
    pub(super) fn tell_refused(&mut self, write: &Write, error: &StoreError) {
        let message = format!("a write was refused: {error}");
        let reason = refused_write(write.target.kind);
        self.event(EventType::Warning, &write.target, WRITE, reason, &message);
        for service in self.released_by(write) {
            let message = format!("an address of Eip {} is not free yet: {error}", write.target.name);
            self.event(EventType::Warning, &service, RELEASE, event::RELEASE_IP_FAILED, &message);
        }
    }

    /// A write that was refused before has been taken: the next refusal is told again.
    pub(super) fn forget_refused(&mut self, write: &Write) {
        self.events.clear(&write.target, WRITE);
        for service in self.released_by(write) {
            self.events.clear(&service, RELEASE);
        }
    }

    /// Services that are there and lose an address by this write.
    fn released_by(&self, write: &Write) -> Vec<ObjectRef> {
        if write.target.kind != Kind::Eip {
            return Vec::new();
        }
        let (_, released) = self.moved_by(write);
        let there = released.into_iter().filter(|(_, version)| version.is_some());
        there.map(|(key, _)| ObjectRef::namespaced(Kind::Service, &key)).collect()
    }
}
