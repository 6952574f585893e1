//! What happened to objects: one log line for each change, never again for the same cause.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};

use jiff::Timestamp;
use openelb_k8s::{
    announce::{Announcement, Announcements, AnnouncerProblem, AnnouncerStatus},
    names::{event, reason},
    object::{Kind, ObjectRef},
};

/// So many of the last events are kept to be read.
const KEPT: usize = 200;

/// Of several problems with one reason so many are told.
const JOINED: usize = 3;

/// How an event is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum EventType {
    /// As wanted.
    Normal,
    /// Somebody should look.
    Warning,
}

impl EventType {
    /// As Kubernetes writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Pools with an address that nobody answers for, and what keeps this node from it. `tells`: whether it is this node that
/// tells of an address.
pub(crate) fn hindered(
    announced: &AnnouncerStatus,
    desired: &Announcements,
    tells: impl Fn(&Announcement) -> bool,
) -> BTreeMap<String, String> {
    let mut hindered: BTreeMap<String, String> = BTreeMap::new();
    for ((address, _), one) in announced.addresses.iter().filter(|_| !announced.unsettled) {
        if let (Some(hindrance), None) = (&one.hindrance, &one.owner)
            && let Some(announcement) =
                desired.addresses.get(address).filter(|announcement| tells(announcement))
        {
            let message = || format!("{}: {hindrance}", desired.node);
            hindered.entry(announcement.pool.clone()).or_insert_with(message);
        }
    }
    hindered
}

/// The reason of an event that says that an object's spec cannot be used.
pub(crate) fn bad_spec(kind: Kind) -> &'static str {
    // As the Go OpenELB names it.
    if kind == Kind::Eip { event::ADD_UPDATE_EIP } else { reason::INVALID_SPEC }
}

/// The reason of an event that says that the API server refuses a write on an object.
pub(crate) fn refused_write(kind: Kind) -> &'static str {
    match kind {
        Kind::Eip => event::ADD_UPDATE_EIP,
        Kind::Service => event::UPDATE_SERVICE_STATUS,
        _ => "WriteRefused",
    }
}

/// The last event of each object and topic, so that a cause is told once.
#[derive(Debug, Default)]
pub(crate) struct EventLog {
    /// By object: each topic, and a digest of the last word on it. There may be one for each of many Services.
    last: BTreeMap<ObjectRef, Vec<(Box<str>, u64)>>,
    digests: RandomState,
    recent: VecDeque<Told>,
}

/// An event that was told.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) time: Timestamp,
    pub(crate) kind: EventType,
    pub(crate) object: ObjectRef,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl EventLog {
    /// Tells that `reason` holds for the `topic` (a condition type, for example) of an object. Nothing happens if
    /// that was the last word on this topic already.
    pub(crate) fn tell(
        &mut self,
        kind: EventType,
        object: &ObjectRef,
        topic: &str,
        reason: &str,
        message: &str,
    ) -> bool {
        let said = self.digests.hash_one((reason, message));
        let topics = self.last.entry(object.clone()).or_default();
        match topics.iter_mut().find(|(known, _)| **known == *topic) {
            Some((_, last)) if *last == said => return false,
            Some((_, last)) => *last = said,
            None => topics.push((topic.into(), said)),
        }
        if self.recent.len() == KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(Told {
            time: Timestamp::now(),
            kind,
            object: object.clone(),
            reason: reason.to_owned(),
            message: message.to_owned(),
        });
        match kind {
            EventType::Normal => tracing::info!(%object, reason, "{message}"),
            EventType::Warning => tracing::warn!(%object, reason, "{message}"),
        }
        true
    }

    /// The last events, the newest last.
    pub(crate) fn recent(&self) -> impl Iterator<Item = &Told> {
        self.recent.iter()
    }

    /// Forgets a topic whose cause is gone: when it comes back it is told again.
    pub(crate) fn clear(&mut self, object: &ObjectRef, topic: &str) -> bool {
        let Some(topics) = self.last.get_mut(object) else { return false };
        let before = topics.len();
        topics.retain(|(known, _)| **known != *topic);
        let cleared = topics.len() < before;
        if topics.is_empty() {
            self.last.remove(object);
        }
        cleared
    }

    /// Forgets what was wrong in `before` and is not in `now`: when it comes back it is told again.
    pub(crate) fn clear_mended(&mut self, before: &Wrong<'_>, now: &Wrong<'_>) {
        for (object, reason) in before.keys().filter(|wrong| !now.contains_key(wrong)) {
            if self.clear(object, reason) {
                tracing::info!(%object, reason, "mended");
            }
        }
    }

    /// Forgets an object that is gone.
    pub(crate) fn forget(&mut self, object: &ObjectRef) {
        self.last.remove(object);
    }
}

/// What is wrong, one text for each object and reason: a reason may have as many problems as there are addresses. The text
/// does not change with every one of them.
pub(crate) type Wrong<'a> = BTreeMap<(ObjectRef, &'a str), String>;

/// What is wrong, all of it with this object.
pub(crate) fn all_of<'a>(object: &ObjectRef, status: &'a AnnouncerStatus) -> Wrong<'a> {
    wrong(status, |_| vec![object.clone()])
}

/// What is wrong, each with the objects that it concerns, or else with this one.
pub(crate) fn each_of<'a>(object: &ObjectRef, status: &'a AnnouncerStatus) -> Wrong<'a> {
    wrong(status, |problem| {
        if problem.objects.is_empty() {
            vec![object.clone()]
        } else {
            problem.objects.iter().cloned().collect()
        }
    })
}

fn wrong(status: &AnnouncerStatus, objects: impl Fn(&AnnouncerProblem) -> Vec<ObjectRef>) -> Wrong<'_> {
    let mut messages: BTreeMap<(ObjectRef, &str), BTreeSet<&str>> = BTreeMap::new();
    for problem in status.problems.iter().chain(&status.warnings) {
        for object in objects(problem) {
            messages.entry((object, &problem.reason)).or_default().insert(&problem.message);
        }
    }
    let joined = messages.into_iter().map(|(wrong, messages)| {
        let mut told = messages.iter().take(JOINED).copied().collect::<Vec<_>>().join("; ");
        if messages.len() > JOINED {
            told.push_str("; and more");
        }
        (wrong, told)
    });
    joined.collect()
}

#[cfg(test)]
mod tests {
    use openelb_k8s::{
        announce::{AnnouncerProblem, AnnouncerStatus},
        object::{Kind, ObjectRef},
    };

    use super::{EventLog, EventType::Warning};

    fn status(problems: impl IntoIterator<Item = (&'static str, String)>) -> AnnouncerStatus {
        let problems = problems.into_iter().map(|(reason, message)| AnnouncerProblem::new(reason, message));
        AnnouncerStatus { problems: problems.collect(), ..AnnouncerStatus::default() }
    }

    /// As the owners do it; says how much was told.
    fn tell(events: &mut EventLog, before: &AnnouncerStatus, now: &AnnouncerStatus) -> usize {
        let object = ObjectRef::cluster(Kind::SpeakerStatus, "node-1");
        let wrong = super::all_of(&object, now);
        let told = wrong
            .iter()
            .filter(|((object, reason), message)| events.tell(Warning, object, reason, reason, message))
            .count();
        events.clear_mended(&super::all_of(&object, before), &wrong);
        told
    }

    #[test]
    fn many_problems_with_one_reason_are_told_once() {
        let mut events = EventLog::default();
        let lacking = |count: usize| (10..10 + count).map(|n| ("GroupNotJoined", format!("ff02::{n}")));
        let other = ("ListenFailed", "port 179".to_owned());
        let many = status(lacking(80).chain([other.clone()]));
        assert_eq!(tell(&mut events, &AnnouncerStatus::default(), &many), 2);
        let last = events.recent().find(|told| told.reason == "GroupNotJoined").unwrap();
        assert_eq!(last.message, "ff02::10; ff02::11; ff02::12; and more");
        assert_eq!(tell(&mut events, &many, &many), 0, "nothing is new");
        let more = status(lacking(81).chain([other]));
        assert_eq!(tell(&mut events, &many, &more), 0, "one more of the same");
    }

    #[test]
    fn a_problem_is_one_of_the_objects_that_it_concerns() {
        let eips = ["a", "b"].map(|name| ObjectRef::cluster(Kind::Eip, name));
        let conf = ObjectRef::cluster(Kind::BgpConf, "default");
        let mut status = status([("ListenFailed", "port 179".to_owned())]);
        status.warnings.push(AnnouncerProblem::new("InterfaceNotFound", "no nope0").of(eips.clone()));
        let whole = super::all_of(&conf, &status);
        assert_eq!(whole.len(), 2);
        assert!(whole.keys().all(|(object, _)| *object == conf));
        let each: Vec<_> = super::each_of(&conf, &status).into_keys().collect();
        let [a, b] = eips;
        assert_eq!(each, [(a, "InterfaceNotFound"), (b, "InterfaceNotFound"), (conf, "ListenFailed")]);
    }

    #[test]
    fn what_was_mended_is_told_when_it_comes_back() {
        let mut events = EventLog::default();
        let good = AnnouncerStatus::default();
        let bad = status([("InterfaceDown", "interface eth0 is down".to_owned())]);
        assert_eq!(tell(&mut events, &good, &bad), 1);
        assert_eq!(tell(&mut events, &bad, &good), 0);
        assert_eq!(tell(&mut events, &good, &bad), 1, "it is down again");
    }

    #[test]
    fn the_last_events_are_kept_and_no_more() {
        let mut events = EventLog::default();
        let object = ObjectRef::cluster(Kind::Eip, "a");
        for number in 0..super::KEPT + 5 {
            events.tell(Warning, &object, "Ready", "InvalidSpec", &number.to_string());
        }
        let kept: Vec<&str> = events.recent().map(|told| told.message.as_str()).collect();
        assert_eq!((kept.len(), kept[0]), (super::KEPT, "5"));
    }

    #[test]
    fn a_cause_is_told_once_until_it_changes_or_goes() {
        let mut events = EventLog::default();
        let (a, b) = (ObjectRef::cluster(Kind::Eip, "a"), ObjectRef::cluster(Kind::Eip, "b"));
        assert!(events.tell(Warning, &a, "Ready", "InvalidSpec", "x"));
        assert!(!events.tell(Warning, &a, "Ready", "InvalidSpec", "x"));
        assert!(events.tell(Warning, &b, "Ready", "InvalidSpec", "x"), "another object");
        assert!(events.tell(Warning, &a, "Ready", "InvalidSpec", "y"), "another message");
        assert!(events.clear(&a, "Ready"));
        assert!(events.tell(Warning, &a, "Ready", "InvalidSpec", "y"), "it came back");
        events.forget(&a);
        assert!(events.tell(Warning, &a, "Ready", "InvalidSpec", "y"), "a new object");
    }
}
