//! Services on which another controller writes its own addresses, too: neither of both ever ends, and each turn withdraws
//! and announces. So ours takes its turns ever more seldom, and says so.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use openelb_k8s::{
    names::event,
    object::{Kind, ObjectRef},
    plan::Write,
};

use super::Owner;
use crate::events::EventType;

/// The topic of events on the Service.
const CONTEST: &str = "contest";
/// So many turns of each other within [`WITHIN`] are no chance.
const TURNS: u32 = 5;
/// A turn so long after the last one is the first.
const WITHIN: Duration = Duration::from_secs(10);
/// The first pause, doubled with each turn up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_secs(2);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(120);
/// From so many Services on, those that are quiet again are forgotten.
const MANY: usize = 1024;

/// What was published, replaced, and published again.
struct Turns {
    /// How often of late.
    count: u32,
    last: Instant,
    /// The last pause.
    pause: Duration,
    /// The next turn is not taken before then.
    held_until: Option<Instant>,
    /// The turn that comes next has waited for its pause.
    waited: bool,
    /// A turn is being taken: it counts if it succeeds.
    sent: bool,
}

impl Turns {
    const fn first(now: Instant) -> Self {
        Self { count: 0, last: now, pause: Duration::ZERO, held_until: None, waited: false, sent: false }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) > WITHIN + 2 * self.pause
    }
}

/// Whose addresses were replaced of late.
#[derive(Default)]
pub(super) struct Contests {
    turns: HashMap<ObjectRef, Turns>,
    /// How many there are before the quiet ones are looked for.
    most: usize,
}

impl Contests {
    /// The Service is gone, or ours no more.
    pub(super) fn forget(&mut self, service: &ObjectRef) {
        self.turns.remove(service);
    }

    pub(super) fn clear(&mut self) {
        self.turns.clear();
    }

    /// Something is about to be written on it: whether that is a turn is to be seen.
    fn begin(&mut self, service: &ObjectRef) {
        if let Some(turns) = self.turns.get_mut(service) {
            turns.sent = false;
        }
    }

    /// Its addresses are to be written again as they were. For how long that has to wait, if it has to.
    fn turn(&mut self, service: &ObjectRef, now: Instant) -> Option<Duration> {
        if self.turns.len() >= self.most.max(MANY) {
            self.turns.retain(|_, turns| !turns.is_over(now));
            self.most = 2 * self.turns.len();
        }
        let turns = self.turns.entry(service.clone()).or_insert_with(|| Turns::first(now));
        if turns.is_over(now) {
            *turns = Turns::first(now);
        }
        if turns.count >= TURNS && !turns.waited {
            turns.pause = (2 * turns.pause).clamp(SHORTEST, LONGEST);
            turns.waited = true;
            turns.last = now;
            turns.held_until = Some(now + turns.pause);
            return Some(turns.pause);
        }
        turns.sent = true;
        None
    }

    /// A write succeeded; whether it was a turn, and the first.
    pub(super) fn succeeded(&mut self, service: &ObjectRef, now: Instant) -> bool {
        let Some(turns) = self.turns.get_mut(service).filter(|turns| turns.sent) else { return false };
        (turns.sent, turns.waited, turns.last) = (false, false, now);
        turns.count = turns.count.saturating_add(1);
        turns.count == 1
    }

    /// Is nothing written on that Service now?
    pub(super) fn holds(&self, service: &ObjectRef, now: Instant) -> bool {
        self.turns.get(service).and_then(|turns| turns.held_until).is_some_and(|until| until > now)
    }

    /// When the next turn may be taken.
    pub(super) fn due(&self) -> Option<Instant> {
        self.turns.values().filter_map(|turns| turns.held_until).min()
    }

    /// May turns be taken that had to wait? Asked once of each.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        let mut due = false;
        for turns in self.turns.values_mut() {
            due |= turns.held_until.take_if(|until| *until <= now).is_some();
        }
        due
    }
}

impl Owner {
    /// Has this write to wait, because the addresses that it publishes were published before, and replaced, again and
    /// again? Asked once before it is sent.
    pub(super) fn is_contested(&mut self, write: &Write, now: Instant) -> bool {
        if write.target.kind != Kind::Service {
            return false;
        }
        self.contests.begin(&write.target);
        let Some(view) = self.indexes.services.get(&write.target.key()) else { return false };
        if view.assigned.is_none() || write.published().is_none_or(|after| after.is_empty()) {
            return false;
        }
        // The annotation names what was published, and is written with it: if it stays, only the status was changed.
        let patch = write.patch();
        let marked = patch.pointer("/metadata/annotations/openelb.kubesphere.io~1assigned");
        let as_before = marked.is_none_or(|marked| marked.as_str() == view.assigned.as_deref());
        if !as_before || self.contests.turn(&write.target, now).is_none() {
            return false;
        }
        let message = "another controller replaces the addresses in the status of this Service again and again; it is \
                       written more seldom now: switch the other controller off (that of K3s by --disable servicelb), \
                       or create the Service anew with a loadBalancerClass";
        self.event(EventType::Warning, &write.target, CONTEST, event::INGRESS_CONTESTED, message);
        true
    }

    /// A write on a Service succeeded.
    pub(super) fn note_turn(&mut self, service: &ObjectRef) {
        if self.contests.succeeded(service, Instant::now()) {
            self.events.clear(service, CONTEST);
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests; any origin of time will do")]
mod tests {
    use openelb_k8s::object::NamespacedName;

    use super::*;

    fn service(n: u32) -> ObjectRef {
        ObjectRef::namespaced(Kind::Service, &NamespacedName::new("ns", format!("s{n}")))
    }

    /// So many turns, one every 100 ms, or as soon as its pause is over: how long they took.
    fn take_turns(contests: &mut Contests, now: &mut Instant, turns: u32) -> Duration {
        let (service, began) = (service(0), *now);
        for _ in 0..turns {
            *now += Duration::from_millis(100);
            if let Some(pause) = contests.turn(&service, *now) {
                assert!(contests.holds(&service, *now) && !contests.take_due(*now));
                *now += pause;
                assert_eq!(contests.due(), Some(*now));
                assert!(contests.take_due(*now) && contests.due().is_none() && !contests.take_due(*now));
                assert!(!contests.holds(&service, *now));
                assert_eq!(contests.turn(&service, *now), None, "what waited is sent");
            }
            contests.succeeded(&service, *now);
        }
        *now - began
    }

    #[test]
    fn turns_that_never_end_are_taken_ever_more_seldom() {
        let (mut contests, mut now) = (Contests::default(), Instant::now());
        assert_eq!(take_turns(&mut contests, &mut now, 5), Duration::from_millis(500));
        // 2, 4, 8, 16, 32, 64, 120 and 120 s.
        assert_eq!(take_turns(&mut contests, &mut now, 8), Duration::from_millis(366_800));
        // Quiet for long enough: all is forgotten.
        now += Duration::from_secs(251);
        assert_eq!(take_turns(&mut contests, &mut now, 5), Duration::from_millis(500));
    }

    #[test]
    fn what_fails_is_no_turn() {
        let (mut contests, now) = (Contests::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(contests.turn(&service(0), now), None, "the API server fails");
        }
        assert!(contests.succeeded(&service(0), now), "the first one");
        assert!(!contests.succeeded(&service(0), now), "nothing was sent");
    }

    #[test]
    fn those_that_are_quiet_again_are_forgotten() {
        let (mut contests, mut now) = (Contests::default(), Instant::now());
        for n in 0..100_000 {
            now += Duration::from_millis(100);
            assert_eq!(contests.turn(&service(n), now), None);
            assert!(contests.succeeded(&service(n), now));
        }
        assert!(contests.turns.len() <= MANY, "{}", contests.turns.len());
    }
}
