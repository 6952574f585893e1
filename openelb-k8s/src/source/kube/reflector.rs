//! One selection: list, watch, and again.

mod records;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::core::request::Request;
use kube::core::{ListMeta, WatchEvent};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::text::{Identity, read_text};
use super::versions::{Versions, parse};
use super::{Backoff, Change, Selection};
use crate::index::{SpecProblem, mark_unreadable};
use crate::names::annotation;
use crate::object::{Kind, Object, ObjectRef};
use crate::problem::Problem;
use records::Records;

/// Bytes of annotations that leave little room: an object may have 256 KiB of them.
const MANY_ANNOTATIONS: usize = 192 << 10;
/// So many fields of an object that cannot be read are left out and named.
const UNREADABLE_FIELDS: usize = 16;
/// Objects of one page.
const PAGE: u32 = 500;
/// A request that is not answered by then is given up.
const REQUEST: Duration = Duration::from_secs(30);
/// The server ends a watch after this long; bookmarks come about every minute.
const WATCH: u32 = 120;
/// A watch that says nothing for so long is dead: the server would have ended it.
const SILENCE: Duration = Duration::from_secs(WATCH as u64 + 5);
/// A watch that ends sooner and brought nothing did not work: a server that is ending, say, or a load balancer.
const SHORT: Duration = Duration::from_secs(1);
/// Events that arrive together are told together, so many at most.
const BATCH: usize = 256;

/// The path of a kind's objects, or of those of a namespace.
pub(crate) fn path(kind: Kind, namespace: Option<&str>) -> String {
    let version = kind.api_version();
    let root = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
    match namespace {
        Some(namespace) => format!("{root}/namespaces/{namespace}/{}", kind.plural()),
        None => format!("{root}/{}", kind.plural()),
    }
}

/// What we know of an object that was told: little, for there may be tens of thousands.
struct Known {
    version: u64,
    /// Of [`Selection::by_generation`]: what decides whether it is fetched again.
    essence: Option<Box<Value>>,
    /// Of Eips that are read by generation.
    records: Option<Box<Records>>,
}

/// Why a round ended.
enum End {
    /// The watch ended as it should, or its connection broke: watch on from the last version.
    Watch,
    /// Nobody listens any more.
    Closed,
}

pub(super) struct Reflector {
    client: Client,
    selection: Selection,
    sender: mpsc::Sender<Vec<Change>>,
    failing: Arc<watch::Sender<BTreeMap<Kind, String>>>,
    known: HashMap<ObjectRef, Known>,
    /// What the reader knows without us.
    versions: Versions,
    listed: bool,
    /// A list is being taken in: not all that it holds is known yet.
    listing: bool,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMeta,
    /// The API server writes `null` for an empty list of metadata.
    #[serde(default)]
    items: Option<Vec<Box<RawValue>>>,
}

impl Reflector {
    pub(super) fn new(
        client: Client,
        selection: Selection,
        sender: mpsc::Sender<Vec<Change>>,
        failing: Arc<watch::Sender<BTreeMap<Kind, String>>>,
        versions: Versions,
    ) -> Self {
        Self {
            client,
            selection,
            sender,
            failing,
            known: HashMap::new(),
            versions,
            listed: false,
            listing: false,
        }
    }

    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut version: Option<u64> = None;
        // The last watch brought nothing, because the version of the list was too old for it.
        let mut outdated = false;
        loop {
            let began = Instant::now();
            let mut brought = false;
            let result = match version {
                None => match self.list().await {
                    Ok(Some(listed)) => {
                        version = Some(listed);
                        if !outdated {
                            backoff.reset();
                            self.working();
                        }
                        continue;
                    }
                    Ok(None) => return,
                    Err(error) => Err(error),
                },
                Some(ref mut from) => self.watch(from, &mut brought).await,
            };
            if brought || (matches!(result, Ok(End::Watch)) && began.elapsed() >= SHORT) {
                backoff.reset();
                outdated = false;
            } else if matches!(result, Ok(End::Watch)) {
                tokio::time::sleep(backoff.next_pause()).await;
            }
            match result {
                Ok(End::Closed) => return,
                Ok(End::Watch) => {}
                // Now and then a version becomes too old: list again. Twice in a row is a failure.
                Err(error) if is_gone(&error) && version.is_some() && !outdated => {
                    (version, outdated) = (None, true);
                }
                Err(error) => {
                    self.failed(&error);
                    if is_gone(&error) {
                        version = None;
                    }
                    let asked = asked_pause(&error);
                    tokio::time::sleep(asked.max(backoff.next_pause())).await;
                }
            }
            if self.sender.is_closed() {
                return;
            }
        }
    }

    fn working(&self) {
        let kind = self.selection.kind;
        if self.failing.send_if_modified(|failing| failing.remove(&kind).is_some()) {
            tracing::info!(%kind, "watched again");
        }
    }

    fn failed(&self, error: &kube::Error) {
        let (kind, text) = (self.selection.kind, describe(error));
        self.failing.send_if_modified(|failing| {
            if failing.get(&kind) == Some(&text) {
                return false;
            }
            tracing::warn!(%kind, error = text, "cannot be watched; it is tried again");
            failing.insert(kind, text);
            true
        });
    }

    /// Lists everything; returns the version of the list, or `None` if nobody listens any more.
    async fn list(&mut self) -> Result<Option<u64>, kube::Error> {
        self.listing = true;
        let request = Request::new(path(self.selection.kind, self.selection.namespace.as_deref()));
        let mut parameters = ListParams {
            label_selector: self.selection.label_selector.clone(),
            field_selector: self.selection.field_selector.clone(),
            limit: Some(PAGE),
            ..ListParams::default()
        };
        let mut seen: HashSet<ObjectRef> = HashSet::new();
        let version = loop {
            let request = if self.selection.by_generation {
                request.list_metadata(&parameters)
            } else {
                request.list(&parameters)
            };
            let page: List = self.ask(request.map_err(kube::Error::BuildRequest)?).await?;
            let items = page.items.unwrap_or_default();
            let mut batch = Vec::with_capacity(items.len().min(BATCH));
            for item in items {
                let Some((reference, version)) = self.identify(&item) else { continue };
                seen.insert(reference.clone());
                if let Err(error) = self.take(reference, version, &item, &mut batch).await {
                    self.tell(batch).await;
                    return Err(error);
                }
                if batch.len() >= BATCH && !self.tell(std::mem::take(&mut batch)).await {
                    return Ok(None);
                }
            }
            if !self.tell(batch).await {
                return Ok(None);
            }
            match page.metadata.continue_ {
                Some(token) if !token.is_empty() => parameters.continue_token = Some(token),
                _ => break parse(page.metadata.resource_version.as_deref()),
            }
        };
        // A list that is older than an object cannot know it.
        let gone = |(reference, known): &(&ObjectRef, &Known)| {
            !seen.contains(*reference) && known.version <= version
        };
        let gone: Vec<ObjectRef> = self.known.iter().filter(gone).map(|(r, _)| r.clone()).collect();
        let mut batch = Vec::with_capacity(gone.len());
        for reference in gone {
            self.known.remove(&reference);
            batch.push(Change::Delete { reference, version, witnessed: false });
        }
        if !std::mem::replace(&mut self.listed, true) {
            batch.push(Change::Listed(self.selection.kind));
        }
        batch.push(Change::Reached(self.selection.kind, version));
        Ok(self.tell(batch).await.then_some(version))
    }

    /// Watches from a version, which it moves on; says whether it brought anything.
    async fn watch(&mut self, from: &mut u64, brought: &mut bool) -> Result<End, kube::Error> {
        self.listing = false;
        let parameters = WatchParams {
            label_selector: self.selection.label_selector.clone(),
            field_selector: self.selection.field_selector.clone(),
            timeout: Some(WATCH),
            ..WatchParams::default()
        };
        let request = Request::new(path(self.selection.kind, self.selection.namespace.as_deref()));
        let version = from.to_string();
        let request = if self.selection.by_generation {
            request.watch_metadata(&parameters, &version)
        } else {
            request.watch(&parameters, &version)
        };
        let request = request.map_err(kube::Error::BuildRequest)?;
        let answer = timeout(REQUEST, self.client.request_events::<Box<RawValue>>(request)).await;
        let mut events = pin!(answer.map_err(|_| silent(REQUEST))??);
        self.working();
        loop {
            let Ok(next) = timeout(SILENCE, events.next()).await else {
                return Err(silent(SILENCE));
            };
            let Some(mut event) = next.transpose()? else { return Ok(End::Watch) };
            let mut batch = Vec::new();
            let end = loop {
                match self.event(event, from, &mut batch).await {
                    Ok(()) => *brought = true,
                    Err(error) => break Some(Err(error)),
                }
                if batch.len() >= BATCH {
                    break None;
                }
                // What has arrived already goes with it.
                match events.next().now_or_never() {
                    Some(Some(Ok(more))) => event = more,
                    Some(Some(Err(error))) => break Some(Err(error)),
                    Some(None) => break Some(Ok(End::Watch)),
                    None => break None,
                }
            };
            batch.push(Change::Reached(self.selection.kind, *from));
            // Told also if something failed: what is known here is not told again.
            if !self.tell(batch).await {
                return Ok(End::Closed);
            }
            if let Some(end) = end {
                return end;
            }
        }
    }

    async fn event(
        &mut self,
        event: WatchEvent<Box<RawValue>>,
        from: &mut u64,
        batch: &mut Vec<Change>,
    ) -> Result<(), kube::Error> {
        match event {
            WatchEvent::Added(text) | WatchEvent::Modified(text) => {
                if let Some((reference, version)) = self.identify(&text) {
                    self.take(reference, version, &text, batch).await?;
                    *from = version.max(*from);
                }
            }
            WatchEvent::Deleted(text) => {
                if let Some((reference, version)) = self.identify(&text) {
                    let newer = self.known.get(&reference).is_some_and(|known| known.version > version);
                    if !newer {
                        self.known.remove(&reference);
                        batch.push(Change::Delete { reference, version, witnessed: true });
                    }
                    *from = version.max(*from);
                }
            }
            WatchEvent::Bookmark(bookmark) => {
                *from = parse(Some(&bookmark.metadata.resource_version)).max(*from);
            }
            WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
        }
        Ok(())
    }

    /// Which object it is, and of which version; `None` if it has no name, which an API server does not send.
    fn identify(&self, text: &RawValue) -> Option<(ObjectRef, u64)> {
        let identity = Identity::of(text.get())?;
        Some((identity.reference(self.selection.kind)?, identity.version()))
    }

    /// Takes in the present version of an object, unless a newer one is known.
    async fn take(
        &mut self,
        reference: ObjectRef,
        version: u64,
        text: &RawValue,
        batch: &mut Vec<Change>,
    ) -> Result<(), kube::Error> {
        let known = self.known.get(&reference);
        if known.is_some_and(|known| known.version > version || known.version == version && version != 0) {
            return Ok(());
        }
        let read = if self.selection.by_generation {
            let Ok(metadata) = serde_json::from_str(text.get()) else { return Ok(()) };
            let present = essence_of(&metadata);
            if known.is_some_and(|known| known.essence.as_deref() == Some(&present))
                && !self.records_may_change(&reference)
            {
                if let Some(known) = self.known.get_mut(&reference) {
                    known.version = version;
                }
                return Ok(());
            }
            let request = Request::new(path(reference.kind, reference.namespace.as_deref()))
                .get(&reference.name, &kube::api::GetParams::default())
                .map_err(kube::Error::BuildRequest)?;
            let value: Value = match self.ask(request).await {
                Ok(value) => value,
                // The watch will say that it is gone.
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
                Err(error) => return Err(error),
            };
            let (version, essence) = (value_version(&value).max(version), Some(essence_of(&value)));
            let mut read = read(reference.kind, value);
            let records = read.as_mut().ok().and_then(Records::keep_outside).map(Box::new);
            let essence = essence.map(Box::new);
            self.known.insert(reference.clone(), Known { version, essence, records });
            read
        } else {
            let answered = known.is_some() && self.versions.has(&reference, version);
            self.known.insert(reference.clone(), Known { version, essence: None, records: None });
            if answered {
                // The reader has it, or a later one, from the answer to a write.
                return Ok(());
            }
            read_text(reference.kind, text.get())
        };
        match read {
            Ok(object) => batch.push(Change::Apply(object)),
            Err(problem) => batch.push(Change::Unreadable(reference, *problem)),
        }
        Ok(())
    }

    /// May what was kept of an Eip's records be out of date, though only its status changed?
    fn records_may_change(&self, reference: &ObjectRef) -> bool {
        let known = self.known.get(reference).and_then(|known| known.records.as_deref());
        let others = self.known.iter().filter(|(other, _)| *other != reference);
        known.is_some_and(|records| {
            self.listing && !records.is_empty()
                || records.may_change(others.filter_map(|(_, known)| known.records.as_deref()))
        })
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        request: http::Request<Vec<u8>>,
    ) -> Result<T, kube::Error> {
        timeout(REQUEST, self.client.request(request)).await.map_err(|_| silent(REQUEST))?
    }

    async fn tell(&self, batch: Vec<Change>) -> bool {
        batch.is_empty() || self.sender.send(batch).await.is_ok()
    }
}

/// Reads an object as an API server returns it, in a list or by itself. One of our custom resources that was stored
/// before a field had its type is read without that field, and says so: see [`unreadable`](crate::index::unreadable).
pub(crate) fn read(kind: Kind, mut value: Value) -> Result<Object, Box<Problem>> {
    if let Value::Object(map) = &mut value {
        map.insert("kind".into(), json!(kind.as_str()));
        map.insert("apiVersion".into(), json!(kind.api_version()));
        if let Some(Value::Object(metadata)) = map.get_mut("metadata") {
            // Of no use to us, and often the bigger part.
            metadata.remove("managedFields");
            if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
                let mut kept: BTreeMap<String, Value> = std::mem::take(annotations).into_iter().collect();
                without_noise(&mut kept, |value| value.as_str().map_or(0, str::len));
                annotations.extend(kept);
            }
        }
    }
    let problems = if kind.is_ours() { leave_unreadable_out(kind, &mut value) } else { Vec::new() };
    let mut object = Object::from_value(value)?.ok_or_else(|| {
        Problem::error(format!("is not a {kind}"), "check the version of the CustomResourceDefinitions")
    })?;
    if !problems.is_empty() {
        let marks = object.metadata_mut().annotations.get_or_insert_default();
        marks.insert(annotation::UNREADABLE.to_owned(), mark_unreadable(&problems));
    }
    Ok(object)
}

/// Takes the annotations out that say nothing to us; `length` is that of a value, in bytes.
pub(super) fn without_noise<V>(annotations: &mut BTreeMap<String, V>, length: impl Fn(&V) -> usize) {
    // But where they fill their room, it counts.
    let bytes: usize = annotations.iter().map(|(key, value)| key.len() + length(value)).sum();
    if bytes < MANY_ANNOTATIONS {
        annotations.remove(annotation::LAST_APPLIED);
    }
    annotations.remove(annotation::UNREADABLE);
}

/// Takes what cannot be read out of the spec of an object of ours, and says what that was. The status, which may be
/// large, is not looked at.
fn leave_unreadable_out(kind: Kind, value: &mut Value) -> Vec<SpecProblem> {
    let mut problems = Vec::new();
    let header = json!({"apiVersion": kind.api_version(), "kind": kind.as_str(), "metadata": {"name": "-"}});
    while problems.len() < UNREADABLE_FIELDS {
        let Some(spec) = value.get_mut("spec") else { break };
        let mut alone = header.clone();
        if let Value::Object(map) = &mut alone {
            map.insert("spec".to_owned(), spec.clone());
        }
        let Err(problem) = Object::from_value(alone) else { break };
        let path = problem.field.clone().unwrap_or_default();
        let field = path.strip_prefix("spec.").and_then(|rest| rest.split(['.', '[']).next());
        if spec.is_object() {
            if field.and_then(|field| spec.as_object_mut()?.remove(field)).is_none() {
                break;
            }
        } else {
            *spec = json!({});
        }
        problems.push(SpecProblem::new(path, problem.cause.clone(), problem.remedy.clone()));
    }
    problems
}

/// What of an object's metadata decides whether it is fetched again.
fn essence_of(value: &Value) -> Value {
    let metadata = |key: &str| value.get("metadata").and_then(|metadata| metadata.get(key)).cloned();
    let keys = ["uid", "generation", "annotations", "labels", "deletionTimestamp"];
    Value::Array(keys.iter().map(|key| metadata(key).unwrap_or(Value::Null)).collect())
}

fn value_version(value: &Value) -> u64 {
    let version = value.get("metadata").and_then(|metadata| metadata.get("resourceVersion"));
    parse(version.and_then(Value::as_str))
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 410)
}

/// How long the server asked us to wait (429).
fn asked_pause(error: &kube::Error) -> Duration {
    let seconds = match error {
        kube::Error::Api(status) => status.details.as_ref().map_or(0, |details| details.retry_after_seconds),
        _ => 0,
    };
    Duration::from_secs(u64::from(seconds.min(10)))
}

fn silent(after: Duration) -> kube::Error {
    let error = std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {after:?}"));
    kube::Error::Service(Box::new(error))
}

/// What an error of the client says, with a remedy where there is one.
pub(crate) fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            format!("{}; give this ServiceAccount the rights of deploy/", status.message)
        }
        kube::Error::Api(status) if status.code == 401 => {
            "the API server does not accept our credentials; check the token or kubeconfig".to_owned()
        }
        kube::Error::Api(status) if status.code == 404 => format!(
            "{}; apply the CustomResourceDefinitions first (openelbd crds | kubectl apply -f -)",
            status.message
        ),
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text = format!("{text}: {cause_text}");
                }
                source = cause.source();
            }
            text
        }
    }
}

#[cfg(test)]
mod tests;
