//! What happened to objects: one log line for each change, never again for the same cause.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use openelb_k8s::object::ObjectRef;

/// So many of the last events are kept to be read.
const KEPT: usize = 200;

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

/// The last event of each object and topic, so that a cause is told once.
#[derive(Debug, Default)]
pub(crate) struct EventLog {
    last: BTreeMap<(ObjectRef, String), (String, String)>,
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
        let said = (reason.to_owned(), message.to_owned());
        let key = (object.clone(), topic.to_owned());
        if self.last.get(&key) == Some(&said) {
            return false;
        }
        self.last.insert(key, said);
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
        self.last.remove(&(object.clone(), topic.to_owned())).is_some()
    }

    /// Forgets an object that is gone.
    pub(crate) fn forget(&mut self, object: &ObjectRef) {
        self.last.retain(|(other, _), _| other != object);
    }
}

#[cfg(test)]
mod tests {
    use openelb_k8s::object::{Kind, ObjectRef};

    use super::{EventLog, EventType::Warning};

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
