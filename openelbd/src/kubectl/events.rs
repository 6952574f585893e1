//! What the controller and the speakers reported.

use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use serde::Serialize;

use super::Loader;

/// Who reports.
const REPORTERS: [&str; 2] = ["openelb-controller", "openelb-speaker"];

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventRow {
    /// When it was told last.
    pub(crate) time: String,
    /// `Normal` or `Warning`.
    pub(crate) r#type: String,
    /// `Kind namespace/name`, or `Kind name`.
    pub(crate) object: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) count: i32,
}

/// The newest last.
pub(crate) async fn events(loader: &Loader, namespace: Option<&str>) -> anyhow::Result<Vec<EventRow>> {
    let mut rows = Vec::new();
    for reporter in REPORTERS {
        let params = ListParams::default().fields(&format!("reportingController={reporter}"));
        let all: Vec<Event> = loader.all(namespace, params, "events").await?;
        rows.extend(all.into_iter().map(row));
    }
    rows.sort_by(|a, b| (&a.time, &a.object).cmp(&(&b.time, &b.object)));
    Ok(rows)
}

fn row(event: Event) -> EventRow {
    let regarding = event.regarding.unwrap_or_default();
    let (kind, name) = (regarding.kind.unwrap_or_default(), regarding.name.unwrap_or_default());
    let object = match regarding.namespace {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    };
    let last = event.series.as_ref().map(|series| series.last_observed_time.0);
    let time = last.or_else(|| event.event_time.map(|time| time.0));
    EventRow {
        time: time.map(|time| openelb_k8s::plan::whole_seconds(time).to_string()).unwrap_or_default(),
        r#type: event.type_.unwrap_or_default(),
        object,
        reason: event.reason.unwrap_or_default(),
        message: event.note.unwrap_or_default(),
        count: event.series.map_or(1, |series| series.count),
    }
}
