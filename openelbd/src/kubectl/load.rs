//! Lists of objects, once, as the user who asks may read them.

use std::time::Duration;

use anyhow::anyhow;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject, ListParams},
    core::object::HasSpec as _,
};
use openelb_k8s::{
    crd::SpeakerStatus,
    explain::{Controller, Lists, Picture, Speaker},
    index::{Indexes, services::ClassRules},
    names,
    object::{Kind, NamespacedName, Object},
    plan::Settings,
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

/// So many objects are asked for at a time.
const PAGE: u32 = 500;
/// One request may take so long.
const REQUEST: Duration = Duration::from_secs(30);
/// The role of those who only read.
const VIEWER: &str = "openelb-viewer";

/// Reads a cluster.
#[derive(Clone)]
pub(crate) struct Loader {
    client: Client,
    /// Of the controller and the speakers.
    namespace: String,
    rules: ClassRules,
}

/// What was read.
pub(crate) struct Loaded {
    pub(crate) indexes: Indexes,
    lists: Lists,
    /// Objects that cannot be read, in words.
    pub(crate) unreadable: Vec<String>,
}

impl Loaded {
    pub(crate) fn picture(&self, now: Timestamp) -> Picture<'_> {
        Picture::new(&self.indexes, self.lists.clone(), now)
    }
}

impl Loader {
    pub(crate) fn new(client: Client, namespace: String, rules: ClassRules) -> Self {
        Self { client, namespace, rules }
    }

    /// For what is not a list.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Which Services are ours.
    pub(crate) fn rules(&self) -> &ClassRules {
        &self.rules
    }

    /// The namespace that the kubeconfig's context names, else `default`.
    pub(crate) fn default_namespace(&self) -> &str {
        self.client.default_namespace()
    }

    /// Reads every object of these kinds.
    pub(crate) async fn load(&self, kinds: &[Kind]) -> anyhow::Result<Loaded> {
        let mut loaded = Loaded {
            indexes: Indexes::new(self.rules.clone()),
            lists: Lists {
                settings: Settings { namespace: self.namespace.clone(), ..Settings::default() },
                ..Lists::default()
            },
            unreadable: Vec::new(),
        };
        for kind in kinds {
            self.add(&mut loaded, *kind, None, ListParams::default()).await?;
        }
        Ok(loaded)
    }

    /// Adds the Services of one namespace, or of all.
    pub(crate) async fn add_services(
        &self,
        loaded: &mut Loaded,
        namespace: Option<&str>,
    ) -> anyhow::Result<()> {
        // The others are nobody's business here.
        let params = ListParams::default().fields("spec.type=LoadBalancer");
        self.add(loaded, Kind::Service, namespace, params).await
    }

    /// Adds the endpoints of a Service.
    pub(crate) async fn add_endpoints(
        &self,
        loaded: &mut Loaded,
        service: &NamespacedName,
    ) -> anyhow::Result<()> {
        let params =
            ListParams::default().labels(&format!("{}={}", names::label::SERVICE_NAME, service.name));
        self.add(loaded, Kind::EndpointSlice, Some(&service.namespace), params).await
    }

    async fn add(
        &self,
        loaded: &mut Loaded,
        kind: Kind,
        namespace: Option<&str>,
        params: ListParams,
    ) -> anyhow::Result<()> {
        let resource = resource(kind);
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        for object in list(&api, params, kind.plural(), kind.is_ours()).await? {
            let name = object.metadata.name.clone().unwrap_or_default();
            let mut value = serde_json::to_value(&object)?;
            if let Some(map) = value.as_object_mut() {
                map.insert("apiVersion".to_owned(), kind.api_version().into());
                map.insert("kind".to_owned(), kind.as_str().into());
            }
            match Object::from_value(value) {
                Ok(Some(object)) => drop(loaded.indexes.apply(&object)),
                Ok(None) => {}
                Err(problem) => loaded.unreadable.push(format!("{kind} {name}: {problem}")),
            }
        }
        Ok(())
    }

    /// Adds what the speakers say of themselves.
    pub(crate) async fn add_speakers(&self, loaded: &mut Loaded) -> anyhow::Result<()> {
        let api: Api<SpeakerStatus> = Api::all(self.client.clone());
        let all = list(&api, ListParams::default(), "speakerstatuses", true).await?;
        let named =
            |speaker: &&SpeakerStatus| speaker.meta().name.is_some() || speaker.spec().node_name.is_some();
        loaded.lists.speakers = all.iter().filter(named).map(Speaker::from).collect();
        Ok(())
    }

    /// Adds who writes. Whoever may not read the Lease is not told.
    pub(crate) async fn add_controller(&self, loaded: &mut Loaded, now: Timestamp) -> anyhow::Result<()> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        match timeout(REQUEST, api.get_opt(names::LEASE)).await.map_err(|_| silent("the Lease"))? {
            Ok(lease) => loaded.lists.controller = lease.map(|lease| Controller::of(&lease, now)),
            Err(error) => return Err(explained(error, "leases", false)),
        }
        Ok(())
    }

    /// Every object of a kind that is none of ours, for those who need no index of it.
    pub(crate) async fn all<K>(
        &self,
        namespace: Option<&str>,
        params: ListParams,
        what: &str,
    ) -> anyhow::Result<Vec<K>>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let api: Api<K> = match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        list(&api, params, what, false).await
    }
}

fn resource(kind: Kind) -> ApiResource {
    let (group, version) = kind.api_version().split_once('/').unwrap_or_else(|| ("", kind.api_version()));
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: kind.api_version().to_owned(),
        kind: kind.as_str().to_owned(),
        plural: kind.plural().to_owned(),
    }
}

/// Page by page. A list that is too old to go on is begun anew, once.
async fn list<K>(api: &Api<K>, params: ListParams, what: &str, ours: bool) -> anyhow::Result<Vec<K>>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut again = true;
    let mut all = Vec::new();
    let mut page = params.clone().limit(PAGE);
    loop {
        let answer = timeout(REQUEST, api.list(&page)).await.map_err(|_| silent(what))?;
        match answer {
            Ok(list) => {
                all.extend(list.items);
                match list.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => page = page.continue_token(&token),
                    None => return Ok(all),
                }
            }
            Err(kube::Error::Api(status)) if status.code == 410 && again => {
                again = false;
                all.clear();
                page = params.clone();
            }
            Err(error) => return Err(explained(error, what, ours)),
        }
    }
}

fn silent(what: &str) -> anyhow::Error {
    anyhow!("the API server did not answer within {REQUEST:?} when asked for {what}")
}

/// The error with what to do about it.
fn explained(error: kube::Error, what: &str, ours: bool) -> anyhow::Error {
    match &error {
        kube::Error::Api(status) if status.code == 401 => {
            anyhow!("the API server does not accept your credentials ({}); log in again", status.message)
        }
        kube::Error::Api(status) if status.code == 403 => anyhow!(
            "you may not read {what}: {}; have the ClusterRole {VIEWER} bound to you: kubectl create clusterrolebinding NAME --clusterrole={VIEWER} --user=YOU",
            status.message
        ),
        kube::Error::Api(status) if status.code == 404 && ours => anyhow!(
            "the API server knows no {what}.{}: OpenELB's CustomResourceDefinitions are not installed, or are old; install OpenELB, or run: openelbd crds | kubectl apply --server-side -f -",
            names::GROUP
        ),
        kube::Error::Service(_) | kube::Error::HyperError(_) => {
            anyhow!(
                "the API server cannot be reached: {}; is it the right cluster (--kubeconfig, --context)?",
                causes(&error)
            )
        }
        _ => anyhow!("cannot read {what}: {}", causes(&error)),
    }
}

/// An error of the client with its causes, each once.
fn causes(error: &kube::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
