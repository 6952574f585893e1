//! Events as objects of the API server: best effort, and never more than the server should bear.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
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
            while let Some(event) = receiver.recv().await {
                drop(timeout(HELD, holding.wait_for(|held| !held)).await);
                let namespace =
                    event.metadata.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
                let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
                match timeout(WITHIN, api.create(&PostParams::default(), &event)).await {
                    Ok(Ok(_)) => {}
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
    use super::{NOTE_LENGTH, cut};

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let cut = cut(&"ä".repeat(NOTE_LENGTH));
        assert!(cut.len() <= NOTE_LENGTH && cut.ends_with('…'), "{}", cut.len());
    }
}
