//! Who asked the API server for what.

use anyhow::Context;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::ControlPlane;

const POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  nonResourceURLs: ['/readyz*', '/livez*', '/healthz*']
- level: Request
  verbs: [patch, update]
  resources:
  - {group: '', resources: [services, services/status]}
  - {group: network.kubesphere.io}
- level: Metadata
";

/// A request to the API server, from its audit log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// `system:serviceaccount:NAMESPACE:NAME` for a ServiceAccount.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub verb: String,
    /// The API group; empty for the core.
    pub group: String,
    /// The plural; with `/SUBRESOURCE` if it was for one; a path if it was for none.
    pub resource: String,
    /// Empty for objects of the cluster.
    pub namespace: String,
    /// Empty for a list.
    pub name: String,
    /// `metadata.resourceVersion` of a patch or an update of a Service or of an object of ours; empty: it has none.
    pub written_version: String,
    /// The status of the answer; 101 and 200 of a watch come when it ends.
    pub code: u16,
    /// When the API server received it.
    pub received: Timestamp,
    /// When it was answered, as far as the object is concerned.
    pub answered: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    stage: String,
    verb: String,
    #[serde(rename = "requestURI")]
    uri: String,
    user: User,
    object_ref: Option<Reference>,
    response_status: Option<Status>,
    #[serde(default)]
    request_object: Value,
    request_received_timestamp: Timestamp,
    stage_timestamp: Timestamp,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Reference {
    resource: String,
    subresource: String,
    api_group: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

impl ControlPlane {
    pub(super) fn audit_arguments(&self) -> anyhow::Result<Vec<String>> {
        let policy = self.lab.write("kube/audit.yaml", POLICY)?;
        let log = self.lab.path().join("kube/audit.log");
        Ok(vec![
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", log.display()),
            "--audit-log-mode=blocking".to_owned(),
        ])
    }

    /// All requests so far, in the order of their answers; a watch also when it begins. Needs
    /// [`Options::audit`](super::Options).
    ///
    /// # Errors
    /// There is no audit log, or it has another shape.
    pub fn requests(&self) -> anyhow::Result<Vec<Request>> {
        let path = self.lab.path().join("kube/audit.log");
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!("cannot read {}: was the control plane started with audit?", path.display())
        })?;
        let mut requests = Vec::new();
        // The last line may be in the making.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let event: Event = serde_json::from_str(line).context("an audit event of another shape")?;
            // A watch has two stages; it counts when it begins.
            if event.verb == "watch" && event.stage == "ResponseComplete" {
                continue;
            }
            let reference = event.object_ref.unwrap_or_default();
            let resource = match (reference.resource.as_str(), reference.subresource.as_str()) {
                ("", _) => event.uri,
                (_, "") => reference.resource,
                (resource, subresource) => format!("{resource}/{subresource}"),
            };
            requests.push(Request {
                user: event.user.username,
                verb: event.verb,
                group: reference.api_group,
                resource,
                namespace: reference.namespace,
                name: reference.name,
                written_version: event
                    .request_object
                    .pointer("/metadata/resourceVersion")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned(),
                code: event.response_status.map_or(0, |status| status.code),
                received: event.request_received_timestamp,
                answered: event.stage_timestamp,
            });
        }
        Ok(requests)
    }
}
