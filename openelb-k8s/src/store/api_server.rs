//! An API server as the store: every write is a merge patch that carries the `resourceVersion` it was decided on.

use std::time::Duration;

use kube::Client;
use kube::api::{GetParams, ListParams, Patch, PatchParams};
use kube::core::request::Request;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::{Store, StoreError, allowed};
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
        Self { client }
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
        mut patch: Map<String, Value>,
    ) -> Result<Object, StoreError> {
        let target = &write.target;
        let metadata = patch.entry("metadata").or_insert_with(|| json!({}));
        if let Value::Object(metadata) = metadata {
            metadata.insert("resourceVersion".to_owned(), json!(version));
        }
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(Value::Object(patch)));
        let request = match subresource {
            Some(subresource) => {
                request(target).patch_subresource(subresource, &target.name, &parameters, &patch)
            }
            None => request(target).patch(&target.name, &parameters, &patch),
        };
        let text = match self.ask(target, request).await {
            Ok(text) => text,
            Err(StoreError::Conflict { object, found, .. }) => {
                return Err(StoreError::Conflict { object, expected: version.to_owned(), found });
            }
            Err(error) => return Err(error),
        };
        read_text(target.kind, &text).map_err(|problem| invalid(target, &*problem))
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

fn invalid(object: &ObjectRef, cause: &dyn std::fmt::Display) -> StoreError {
    StoreError::Invalid { object: object.clone(), cause: cause.to_string() }
}

/// What the answer to a request means for whoever decided on it.
fn refused(target: &ObjectRef, error: &kube::Error) -> StoreError {
    let kube::Error::Api(status) = error else {
        return StoreError::Unavailable { cause: describe(error), retry_after: Duration::ZERO };
    };
    let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    match status.code {
        404 if status.details.as_ref().is_some_and(|details| details.name == target.name) => {
            StoreError::NotFound(target.clone())
        }
        409 => StoreError::Conflict {
            object: target.clone(),
            expected: String::new(),
            found: "a later one".to_owned(),
        },
        400 | 401 | 403 | 404 | 405 | 413 | 415 | 422 => {
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
        let Value::Object(mut patch) = allowed(&write.patch()) else { return Ok(None) };
        let version = write.resource_version.as_str();
        let status = patch.remove("status");
        let mut metadata = Map::new();
        metadata.extend(patch.remove("metadata").map(|metadata| ("metadata".to_owned(), metadata)));
        let with_status = |status: Value| Map::from_iter([("status".to_owned(), status)]);
        let object = match status {
            None => self.patch(write, version, None, metadata).await?,
            Some(status) if write.target.kind == Kind::Service => {
                metadata.insert("status".to_owned(), status);
                self.patch(write, version, Some("status"), metadata).await?
            }
            Some(status) if metadata.is_empty() => {
                self.patch(write, version, Some("status"), with_status(status)).await?
            }
            Some(status) => {
                let finalizers = metadata.get("metadata").and_then(|metadata| metadata.get("finalizers"));
                let removed = finalizers.is_some_and(|list| list.as_array().is_none_or(Vec::is_empty));
                let (first, second) = if removed {
                    ((Some("status"), with_status(status)), (None, metadata))
                } else {
                    ((None, metadata), (Some("status"), with_status(status)))
                };
                let between = self.patch(write, version, first.0, first.1).await?;
                let version = between.metadata().resource_version.clone().unwrap_or_default();
                self.patch(write, &version, second.0, second.1).await?
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

    use super::*;

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
            assert!(matches!(answer(code, message), StoreError::Unavailable { .. }), "{code}");
        }
    }
}
