//! What happened to objects: one log line for each change, never again for the same cause.

use std::collections::BTreeMap;

use openelb_k8s::object::ObjectRef;

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
        match kind {
            EventType::Normal => tracing::info!(%object, reason, "{message}"),
            EventType::Warning => tracing::warn!(%object, reason, "{message}"),
        }
        true
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
