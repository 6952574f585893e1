//! An API server as the store: every write carries the `resourceVersion` it was decided on.
//!
//! It is a merge patch, but for the status of an Eip that is known as of that very version: see its module `whole`.

mod whole;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::{GetParams, ListParams, Patch, PatchParams, ValidationDirective};
use kube::core::request::Request;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::timeout;

use self::whole::Known;
use super::{Store, StoreError};
use crate::object::{Kind, Object, ObjectRef};
use crate::plan::Write;
use crate::source::kube::reflector::{describe, path};
use crate::source::kube::text::read_text;

/// A request that is not answered by then is given up; whether it took effect is then not known.
const REQUEST: Duration = Duration::from_secs(15);
/// How the API server begins to say that a webhook that must be asked does not answer.
const WEBHOOK: &str = "failed calling webhook";
/// Objects of one page.
const PAGE: u32 = 500;

/// Reads and writes objects of an API server.
///
/// A Service costs one request: `services/status` takes labels, annotations and finalizers along. Of our custom
/// resources, whose status sub-resource ignores metadata, finalizers are a request of their own: set before the status
/// says why, removed after it does not any more.
#[derive(Clone)]
pub struct ApiServer {
    client: Client,
    known: Arc<Known>,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").finish_non_exhaustive()
    }
}

impl ApiServer {
    /// Of this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, known: Arc::default() }
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Reads an object as it is now (a quorum read); `None` if there is none.
    ///
    /// # Errors
    /// If the API server cannot be reached or refuses, or the object cannot be read.
    pub async fn get(&self, reference: &ObjectRef) -> Result<Option<Object>, StoreError> {
        let request = request(reference).get(&reference.name, &GetParams::default());
        match self.ask(reference, request).await {
            Ok(text) => {
                self.known.remember(reference, &text);
                read_text(reference.kind, &text).map(Some).map_err(|problem| invalid(reference, &*problem))
            }
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every object of a kind as it is now, and the version of the list; one that cannot be read is left out.
    ///
    /// # Errors
    /// If the API server cannot be reached or refuses.
    pub async fn list_kind(&self, kind: Kind) -> Result<(Vec<Object>, u64), StoreError> {
        let mut parameters = ListParams { limit: Some(PAGE), ..ListParams::default() };
        let all = ObjectRef::cluster(kind, "");
        let mut objects = Vec::new();
        loop {
            let text = self.ask(&all, Request::new(path(kind, None)).list(&parameters)).await?;
            let page: List = serde_json::from_str(&text).map_err(|error| invalid(&all, &error))?;
            let items = page.items.unwrap_or_default();
            objects.extend(items.into_iter().filter_map(|item| read_text(kind, item.get()).ok()));
            let version = page.metadata.resource_version.and_then(|text| text.parse().ok()).unwrap_or(0);
            match page.metadata.continue_ {
                Some(token) if !token.is_empty() => parameters.continue_token = Some(token),
                _ => return Ok((objects, version)),
            }
        }
    }

    async fn patch(
        &self,
        write: &Write,
        version: &str,
        subresource: Option<&str>,
        parts: &Parts<'_>,
    ) -> Result<Object, StoreError> {
        let target = &write.target;
        let metadata = MetadataParts { resource_version: Some(version), ..parts.metadata };
        let patch = Parts { metadata, status: parts.status };
        let text = self
            .ask(target, patch_request(target, subresource, &patch))
            .await
            .map_err(|error| expecting(error, version))?;
        self.known.remember(target, &text);
        read_text(target.kind, &text).map_err(|problem| invalid(target, &*problem))
    }

    /// Writes the status of an object as a whole, if what it is without this write is known; else, `None`.
    async fn replace(&self, write: &Write, status: &RawValue) -> Option<Result<Object, StoreError>> {
        let (target, version) = (&write.target, write.resource_version.as_str());
        let whole = self.known.take(target, version)?.with(status)?;
        let request = whole.request(target, version).map_err(kube::core::request::Error::BuildRequest);
        let answer = match self.ask(target, request).await {
            Ok(text) => text,
            // By a patch it is allowed, or refused for a reason that has nothing to do with the form of the request.
            Err(StoreError::Refused { .. } | StoreError::Forbidden { .. } | StoreError::Invalid { .. }) => {
                return None;
            }
            Err(error) => return Some(Err(expecting(error, version))),
        };
        let object = whole.read(target.kind, &answer);
        if object.is_ok() {
            self.known.keep(target, whole.written(&answer));
        }
        Some(object.map_err(|problem| invalid(target, &*problem)))
    }

    async fn ask(
        &self,
        target: &ObjectRef,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<String, StoreError> {
        let request = request.map_err(|error| invalid(target, &error))?;
        match timeout(REQUEST, self.client.request_text(request)).await {
            Ok(Ok(text)) => Ok(text),
            Ok(Err(error)) => Err(refused(target, &error)),
            Err(_) => Err(StoreError::Unavailable {
                cause: format!("{target}: no answer within {REQUEST:?}"),
                retry_after: Duration::ZERO,
            }),
        }
    }
}

fn request(reference: &ObjectRef) -> Request {
    Request::new(path(reference.kind, reference.namespace.as_deref()))
}

/// A merge patch. That an API server looks for unknown and double fields would cost it a second reading of the object:
/// there are none in what a plan writes, and what is stored is not ours to complain about.
fn patch_request(
    target: &ObjectRef,
    subresource: Option<&str>,
    patch: &Parts<'_>,
) -> Result<http::Request<Vec<u8>>, kube::core::request::Error> {
    let parameters =
        PatchParams { field_validation: Some(ValidationDirective::Ignore), ..PatchParams::default() };
    let patch = Patch::Merge(patch);
    match subresource {
        Some(subresource) => {
            request(target).patch_subresource(subresource, &target.name, &parameters, &patch)
        }
        None => request(target).patch(&target.name, &parameters, &patch),
    }
}

/// A conflict says which version was expected.
fn expecting(error: StoreError, version: &str) -> StoreError {
    match error {
        StoreError::Conflict { object, found, .. } => {
            StoreError::Conflict { object, expected: version.to_owned(), found }
        }
        error => error,
    }
}

fn invalid(object: &ObjectRef, cause: &dyn std::fmt::Display) -> StoreError {
    StoreError::Invalid { object: object.clone(), cause: cause.to_string() }
}

/// What the answer to a request means for whoever decided on it.
fn refused(target: &ObjectRef, error: &kube::Error) -> StoreError {
    let kube::Error::Api(status) = error else {
        return StoreError::Unavailable { cause: describe(error), retry_after: Duration::ZERO };
    };
    let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    // Where it is overloaded, it asks for a second in a header.
    let seconds = if status.code == 429 { seconds.max(1) } else { seconds };
    match status.code {
        404 if status.details.as_ref().is_some_and(|details| details.name == target.name) => {
            StoreError::NotFound(target.clone())
        }
        409 => StoreError::Conflict {
            object: target.clone(),
            expected: String::new(),
            found: "a later one".to_owned(),
        },
        // It concerns all objects: a token that has run out, an authenticator that is away.
        401 => StoreError::Unauthenticated { cause: describe(error) },
        403 => StoreError::Forbidden { object: target.clone(), cause: describe(error) },
        400 | 404 | 405 | 413 | 415 | 422 => {
            StoreError::Refused { object: target.clone(), cause: describe(error) }
        }
        // It concerns this object alone: others go on.
        500 if status.message.contains(WEBHOOK) => StoreError::Refused {
            object: target.clone(),
            cause: format!(
                "{}; if what the webhook calls is gone (the Go OpenELB's, say), delete its configuration",
                describe(error)
            ),
        },
        _ => StoreError::Unavailable {
            cause: format!("{target}: {}", describe(error)),
            retry_after: Duration::from_secs(u64::from(seconds.min(10))),
        },
    }
}

/// The parts of a patch that a plan may write, as text: nothing is gained by reading them.
#[derive(Clone, Copy, Default, Deserialize, Serialize)]
struct Parts<'a> {
    #[serde(borrow, default)]
    metadata: MetadataParts<'a>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    status: Option<&'a RawValue>,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct MetadataParts<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    labels: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    finalizers: Option<&'a RawValue>,
    /// The version that the patch holds for: not of the plan, but of the request.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    resource_version: Option<&'a str>,
}

impl MetadataParts<'_> {
    const fn is_empty(&self) -> bool {
        self.labels.is_none() && self.annotations.is_none() && self.finalizers.is_none()
    }
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: kube::core::ListMeta,
    #[serde(default)]
    items: Option<Vec<Box<RawValue>>>,
}

#[async_trait::async_trait]
impl Store for ApiServer {
    /// Every object of every kind but Secrets and ConfigMaps; one that cannot be read is left out.
    async fn list(&self) -> Result<Vec<Object>, StoreError> {
        let mut objects = Vec::new();
        for kind in Kind::ALL.iter().copied().filter(|kind| !matches!(kind, Kind::Secret | Kind::ConfigMap)) {
            objects.extend(self.list_kind(kind).await?.0);
        }
        Ok(objects)
    }

    async fn write(&self, write: &Write) -> Result<Option<Object>, StoreError> {
        let text = write.text();
        let Ok(whole) = serde_json::from_str::<Parts<'_>>(&text) else { return Ok(None) };
        let version = write.resource_version.as_str();
        let object = match whole.status {
            None => self.patch(write, version, None, &whole).await?,
            Some(_) if write.target.kind == Kind::Service => {
                self.patch(write, version, Some("status"), &whole).await?
            }
            Some(status) if whole.metadata.is_empty() => match self.replace(write, status).await {
                Some(replaced) => replaced?,
                None => self.patch(write, version, Some("status"), &whole).await?,
            },
            Some(_) => {
                let metadata = (None, Parts { status: None, ..whole });
                let status = (Some("status"), Parts { metadata: MetadataParts::default(), ..whole });
                let removed =
                    whole.metadata.finalizers.is_some_and(|list| matches!(list.get(), "[]" | "null"));
                let (first, second) = if removed { (status, metadata) } else { (metadata, status) };
                let between = self.patch(write, version, first.0, &first.1).await?;
                let version = between.metadata().resource_version.clone().unwrap_or_default();
                self.patch(write, &version, second.0, &second.1).await?
            }
        };
        let metadata = object.metadata();
        let gone =
            metadata.deletion_timestamp.is_some() && metadata.finalizers.as_ref().is_none_or(Vec::is_empty);
        Ok((!gone).then_some(object))
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_has_what_a_plan_may_write_and_the_version() {
        let service = ObjectRef::cluster(Kind::Service, "s");
        let write = Write::new(service, "7")
            .label("a", Some("b"))
            .annotation("c", None)
            .finalizers(&[])
            .set(&["metadata", "name"], json!("another"))
            .set(&["spec", "type"], json!("ClusterIP"))
            .set(&["status", "loadBalancer", "ingress"], json!([{"ip": "192.0.2.1"}]));
        for write in [write.clone(), write.packed()] {
            let text = write.text();
            let parts: Parts<'_> = serde_json::from_str(&text).unwrap();
            assert!(!parts.metadata.is_empty());
            let metadata = MetadataParts { resource_version: Some("7"), ..parts.metadata };
            assert_eq!(
                serde_json::to_value(Parts { metadata, status: parts.status }).unwrap(),
                json!({
                    "metadata": {"labels": {"a": "b"}, "annotations": {"c": null}, "finalizers": [],
                                 "resourceVersion": "7"},
                    "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
                })
            );
        }
        let nothing: Parts<'_> = serde_json::from_str("{}").unwrap();
        assert!(nothing.metadata.is_empty() && nothing.status.is_none());
    }

    #[test]
    fn a_patch_does_not_ask_for_a_second_reading() {
        let service = ObjectRef::namespaced(Kind::Service, &"shop/web".parse().unwrap());
        let patch: Parts<'_> = serde_json::from_str(r#"{"metadata":{"labels":{"a":"b"}}}"#).unwrap();
        for (subresource, path) in [(None, "web"), (Some("status"), "web/status")] {
            let request = patch_request(&service, subresource, &patch).unwrap();
            let uri = request.uri();
            assert_eq!(uri.path(), format!("/api/v1/namespaces/shop/services/{path}"));
            assert!(uri.query().is_some_and(|query| query.contains("fieldValidation=Ignore")), "{uri}");
            assert_eq!(request.body(), br#"{"metadata":{"labels":{"a":"b"}}}"#);
        }
    }

    fn answer(code: u16, message: &str) -> StoreError {
        let status = Status { code, message: message.to_owned(), ..Status::default() };
        refused(&ObjectRef::cluster(Kind::Eip, "p"), &kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn a_webhook_that_does_not_answer_concerns_one_object_and_an_overload_all() {
        let webhook =
            "Internal error occurred: failed calling webhook \"validate.example.com\": no endpoints";
        let StoreError::Refused { cause, .. } = answer(500, webhook) else {
            panic!("it is about one object")
        };
        assert!(
            cause.contains("validate.example.com") && cause.contains("delete its configuration"),
            "{cause}"
        );
        for (code, message) in [(500, "etcdserver: request timed out"), (503, ""), (429, "too many requests")]
        {
            let StoreError::Unavailable { retry_after, .. } = answer(code, message) else { panic!("{code}") };
            assert_eq!(retry_after.as_secs(), u64::from(code == 429), "an overload asks for a pause");
        }
    }

    #[test]
    fn credentials_concern_all_objects_and_rights_one() {
        let all = answer(401, "Unauthorized");
        assert!(matches!(all, StoreError::Unauthenticated { .. }), "{all:?}");
        assert!(all.to_string().contains("check the token"), "{all}");
        let one = answer(403, "eips.network.kubesphere.io \"p\" is forbidden");
        assert!(matches!(one, StoreError::Forbidden { .. }), "{one:?}");
        assert!(one.to_string().contains("the rights of deploy/"), "{one}");
    }
}
