//! Events as objects of the API server: best effort, and never more than the server should bear.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use openelb_k8s::object::ObjectRef;
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use crate::events::EventType;

/// So many wait to be written; more are dropped.
const WAITING: usize = 512;
/// The pause after each: about 40 a second at most.
const PACE: Duration = Duration::from_millis(25);
/// Held back no longer than this.
const HELD: Duration = Duration::from_secs(10);
/// One that is not taken by then is dropped.
const WITHIN: Duration = Duration::from_secs(5);
/// Longer notes are refused.
const NOTE_LENGTH: usize = 1024;
/// Events about objects without a namespace are kept here.
const DEFAULT_NAMESPACE: &str = "default";
/// What is told again within this time, word for word, is one more of a series, as with the components of Kubernetes.
const SERIES: Duration = Duration::from_secs(6 * 60);
/// So many are remembered for that.
const REMEMBERED: usize = 2048;

/// Writes events in the background.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    sender: mpsc::Sender<Event>,
    held: watch::Sender<bool>,
    controller: &'static str,
    instance: String,
}

impl Reporter {
    /// Starts; `instance` is the Pod or the node.
    pub(crate) fn spawn(client: Client, controller: &'static str, instance: &str) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Event>(WAITING);
        let (held, mut holding) = watch::channel(false);
        tokio::spawn(async move {
            let mut series = Series::default();
            while let Some(event) = receiver.recv().await {
                drop(timeout(HELD, holding.wait_for(|held| !held)).await);
                let namespace =
                    event.metadata.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
                let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
                match timeout(WITHIN, write(&api, &mut series, &event)).await {
                    Ok(Ok(())) => {}
                    // A namespace that is going takes no events.
                    Ok(Err(error)) => tracing::debug!(%error, "an event is dropped"),
                    Err(_) => tracing::debug!("an event is dropped: no answer within {WITHIN:?}"),
                }
                sleep(PACE).await;
            }
        });
        Self { sender, held, controller, instance: instance.to_owned() }
    }

    /// The server has more urgent things to do, or not any more.
    pub(crate) fn hold(&self, hold: bool) {
        self.held.send_if_modified(|held| std::mem::replace(held, hold) != hold);
    }

    /// Reports an event about an object; `uid` is the object's, if it is known. Dropped if too many wait.
    pub(crate) fn report(
        &self,
        kind: EventType,
        object: &ObjectRef,
        uid: Option<&str>,
        reason: &str,
        message: &str,
    ) {
        let now = Timestamp::now();
        let namespace = object.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{:x}", object.name, now.as_nanosecond())),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            action: Some(reason.to_owned()),
            event_time: Some(MicroTime(now)),
            note: Some(cut(message)),
            reason: Some(reason.to_owned()),
            regarding: Some(ObjectReference {
                api_version: Some(object.kind.api_version().to_owned()),
                kind: Some(object.kind.as_str().to_owned()),
                name: Some(object.name.clone()),
                namespace: object.namespace.clone(),
                uid: uid.map(str::to_owned),
                ..ObjectReference::default()
            }),
            reporting_controller: Some(self.controller.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(kind.as_str().to_owned()),
            ..Event::default()
        };
        // Full: it is in the log.
        drop(self.sender.try_send(event));
    }
}

/// What was told lately, and how often: by object, reason and words.
#[derive(Debug, Default)]
struct Series {
    told: BTreeMap<String, Told>,
}

#[derive(Debug)]
struct Told {
    name: String,
    last: Instant,
    count: i32,
}

impl Series {
    fn key(event: &Event) -> String {
        let regarding = event.regarding.clone().unwrap_or_default();
        let object = [regarding.kind, regarding.namespace, regarding.name, regarding.uid];
        let said = [event.type_.clone(), event.reason.clone(), event.note.clone()];
        object.into_iter().chain(said).map(Option::unwrap_or_default).collect::<Vec<_>>().join("\0")
    }

    /// The event that says the same already, and how often it was told, this time included.
    fn repeats(&self, key: &str, now: Instant) -> Option<(String, i32)> {
        let told = self.told.get(key).filter(|told| now.saturating_duration_since(told.last) < SERIES)?;
        Some((told.name.clone(), told.count.saturating_add(1)))
    }

    fn note(&mut self, key: String, name: String, count: i32, now: Instant) {
        if self.told.len() >= REMEMBERED && !self.told.contains_key(&key) {
            self.told.retain(|_, told| now.saturating_duration_since(told.last) < SERIES);
        }
        if self.told.len() < REMEMBERED || self.told.contains_key(&key) {
            self.told.insert(key, Told { name, last: now, count });
        }
    }
}

/// Writes an event, or that it is one more of a series.
async fn write(api: &Api<Event>, series: &mut Series, event: &Event) -> Result<(), kube::Error> {
    let (key, now) = (Series::key(event), Instant::now());
    if let Some((name, count)) = series.repeats(&key, now) {
        let body = serde_json::json!({"series": {"count": count, "lastObservedTime": event.event_time}});
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(body)).await {
            Ok(_) => {
                series.note(key, name, count, now);
                return Ok(());
            }
            // It went meanwhile, or may not be patched: it is told as a new one.
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
                tracing::debug!(error = %status, "an event cannot be counted");
            }
            Err(error) => return Err(error),
        }
    }
    let created = api.create(&PostParams::default(), event).await?;
    series.note(key, created.metadata.name.unwrap_or_default(), 1, now);
    Ok(())
}

fn cut(message: &str) -> String {
    if message.len() <= NOTE_LENGTH {
        return message.to_owned();
    }
    let mut end = NOTE_LENGTH - 3;
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", message.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{NOTE_LENGTH, REMEMBERED, SERIES, Series, cut};

    #[test]
    fn what_is_told_again_soon_is_one_more_of_a_series() {
        let (mut series, now) = (Series::default(), Instant::now());
        assert_eq!(series.repeats("a", now), None, "the first");
        series.note("a".to_owned(), "event".to_owned(), 1, now);
        assert_eq!(series.repeats("b", now), None, "other words");
        let soon = now + SERIES / 2;
        assert_eq!(series.repeats("a", soon), Some(("event".to_owned(), 2)));
        assert_eq!(series.repeats("a", soon), Some(("event".to_owned(), 2)), "it was not written");
        series.note("a".to_owned(), "event".to_owned(), 2, soon);
        assert_eq!(series.repeats("a", soon + SERIES / 2), Some(("event".to_owned(), 3)));
        assert_eq!(series.repeats("a", soon + SERIES), None, "long ago");
    }

    #[test]
    fn only_so_many_events_are_remembered() {
        let (mut series, now) = (Series::default(), Instant::now());
        (0..REMEMBERED * 2).for_each(|n| series.note(n.to_string(), "old".to_owned(), 1, now));
        assert_eq!(series.told.len(), REMEMBERED);
        series.note("0".to_owned(), "new".to_owned(), 1, now);
        assert_eq!(series.repeats("0", now), Some(("new".to_owned(), 2)), "one that was made anew");
        series.note("new".to_owned(), String::new(), 1, now + SERIES);
        assert_eq!(series.told.len(), 1, "what is over makes room");
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let cut = cut(&"ä".repeat(NOTE_LENGTH));
        assert!(cut.len() <= NOTE_LENGTH && cut.ends_with('…'), "{}", cut.len());
    }
}
