//! `kubectl openelb reassign`: asks for another address of a Service, and waits for it.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api,
    api::{Patch, PatchParams, WatchParams},
    core::WatchEvent,
};
use openelb_k8s::{
    index::services::ServiceView,
    names::{annotation, condition},
    object::NamespacedName,
};
use serde::Serialize;
use serde_json::json;

use super::Loader;

/// One watch is held for so long at most.
const WATCH: u32 = 60;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reassigned {
    /// The Service.
    pub(crate) service: String,
    /// What it had.
    pub(crate) before: Vec<IpAddr>,
    /// What it has; absent where nobody waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<Vec<IpAddr>>,
}

/// Writes the annotation and, unless `wait` is zero, waits until the Service shows another address.
pub(crate) async fn reassign(
    loader: &Loader,
    key: &NamespacedName,
    wait: Duration,
    now: Timestamp,
) -> anyhow::Result<Reassigned> {
    let services: Api<Service> = Api::namespaced(loader.client(), &key.namespace);
    let rules = loader.rules();
    let service = services.get_opt(&key.name).await?.ok_or_else(|| anyhow!("there is no Service {key}"))?;
    let view = ServiceView::parse(&service, rules);
    let before = view.published();
    if !view.ours {
        bail!("{key} is not OpenELB's: `kubectl openelb explain service {key}` says why");
    }
    if before.is_empty() {
        bail!("{key} has no address that it could leave: `kubectl openelb explain service {key}` says why");
    }
    // Any value but the one before asks for it.
    let patch = json!({"metadata": {"annotations": {annotation::REASSIGN: now.to_string()}}});
    let asked = services
        .patch(&key.name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .with_context(|| format!("{key} cannot be annotated: you need the right to patch Services"))?;
    let mut told = Reassigned { service: key.to_string(), before, after: None };
    if wait.is_zero() {
        return Ok(told);
    }
    let mut last = ServiceView::parse(&asked, rules);
    let moved = async {
        loop {
            let params = WatchParams::default().fields(&format!("metadata.name={}", key.name)).timeout(WATCH);
            let mut events = Box::pin(services.watch(&params, &last.resource_version).await?);
            while let Some(event) = futures::StreamExt::next(&mut events).await {
                match event? {
                    WatchEvent::Added(service) | WatchEvent::Modified(service) => {
                        last = ServiceView::parse(&service, rules);
                    }
                    WatchEvent::Deleted(_) => bail!("{key} was deleted"),
                    WatchEvent::Bookmark(_) => continue,
                    WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
                }
                let published = last.published();
                if !published.is_empty() && published != told.before {
                    return Ok(published);
                }
            }
        }
    };
    if let Ok(after) = tokio::time::timeout(wait, moved).await {
        told.after = Some(after?);
        return Ok(told);
    }
    let why = last.conditions.iter().find(|one| one.type_ == condition::REQUEST_HONOURED);
    let why = why.map_or_else(|| "no controller has answered".to_owned(), |one| one.message.to_string());
    bail!("{key} still has {}: {why}", join(&told.before));
}

impl Reassigned {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let Self { service, before, after } = self;
        match after {
            Some(after) => format!("{service}: {} -> {}\n", join(before), join(after)),
            None => format!("{service}: asked for another address than {}\n", join(before)),
        }
    }
}

fn join(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
