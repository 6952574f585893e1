//! What SIGTERM means: does this node stop announcing, or is the speaker back in a moment?

mod placement;

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{Api, Client};
use openelb_k8s::index::NodeView;
use tokio::time::timeout;

use crate::adapter::bgp::OnStop;

/// The API server is asked for so long.
const REQUEST: Duration = Duration::from_secs(2);

/// `--on-stop`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StopMode {
    /// Decided when the time comes.
    #[default]
    Auto,
    /// The speaker is back in a moment.
    Restart,
    /// Routes are withdrawn.
    Withdraw,
}

/// The DaemonSet whose Pod this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What to do, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) how: OnStop,
    /// The speaker does not come back to this node.
    pub(super) for_good: bool,
    pub(super) why: String,
}

impl Decision {
    fn new(how: OnStop, for_good: bool, why: impl Into<String>) -> Self {
        Self { how, for_good, why: why.into() }
    }
}

/// Decides. An API server that does not answer in time means: back in a moment.
pub(super) async fn decide(
    mode: StopMode,
    client: Client,
    workload: &Workload,
    node: Option<&NodeView>,
    listed: bool,
) -> Decision {
    match mode {
        StopMode::Restart => return Decision::new(OnStop::Restart, false, "--on-stop Restart"),
        StopMode::Withdraw => return Decision::new(OnStop::Withdraw, false, "--on-stop Withdraw"),
        StopMode::Auto => {}
    }
    if let Some(why) = of_node(node, listed) {
        return Decision::new(OnStop::Withdraw, node.is_none(), why);
    }
    let api: Api<DaemonSet> = Api::namespaced(client, &workload.namespace);
    match timeout(REQUEST, api.get_opt(&workload.name)).await {
        Ok(Ok(found)) => match of_daemon_set(found.as_ref(), node) {
            Some(why) => Decision::new(OnStop::Withdraw, true, why),
            None => Decision::new(OnStop::Restart, false, "the DaemonSet keeps a speaker on this node"),
        },
        Ok(Err(error)) => {
            Decision::new(OnStop::Restart, false, format!("the DaemonSet cannot be read: {error}"))
        }
        Err(_) => Decision::new(OnStop::Restart, false, "the API server does not answer"),
    }
}

/// Why a node stops announcing, as far as its Node says so.
fn of_node(node: Option<&NodeView>, listed: bool) -> Option<&'static str> {
    match node {
        None if listed => Some("the Node is gone"),
        None => None,
        Some(node) if node.deleting => Some("the Node is being deleted"),
        Some(node) if node.cordoned => Some("the Node is cordoned"),
        Some(node) if node.shutting_down => Some("the Node is shutting down"),
        Some(_) => None,
    }
}

/// Why a DaemonSet has no Pod on a node any more, as far as that is known.
fn of_daemon_set(found: Option<&DaemonSet>, node: Option<&NodeView>) -> Option<&'static str> {
    let Some(found) = found else { return Some("the DaemonSet is gone") };
    if found.metadata.deletion_timestamp.is_some() {
        return Some("the DaemonSet is being deleted");
    }
    let pod = found.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    placement::why_not(pod?, node?)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::DaemonSet;
    use openelb_k8s::index::NodeView;
    use serde_json::json;

    use super::{of_daemon_set, of_node};

    #[test]
    fn a_node_that_goes_withdraws() {
        let node = NodeView::default();
        assert_eq!(of_node(Some(&node), true), None);
        assert!(of_node(None, true).is_some());
        assert_eq!(of_node(None, false), None, "nothing is known");
        for gone in [
            NodeView { deleting: true, ..NodeView::default() },
            NodeView { cordoned: true, ..NodeView::default() },
            NodeView { shutting_down: true, ..NodeView::default() },
        ] {
            assert!(of_node(Some(&gone), true).is_some(), "{gone:?}");
        }
    }

    #[test]
    fn a_daemon_set_that_leaves_the_node_withdraws() {
        let labels = [("zone".to_owned(), "a".to_owned())].into();
        let node = NodeView { labels, ..NodeView::default() };
        let node = Some(&node);
        let set = |selector: serde_json::Value| -> DaemonSet {
            let pod = json!({"containers": [], "nodeSelector": selector});
            serde_json::from_value(json!({
                "metadata": {"name": "openelb-speaker"}, "spec": {"selector": {}, "template": {"spec": pod}},
            }))
            .unwrap()
        };
        assert_eq!(of_daemon_set(None, node), Some("the DaemonSet is gone"));
        assert_eq!(of_daemon_set(Some(&set(json!(null))), node), None);
        assert_eq!(of_daemon_set(Some(&set(json!({"zone": "a"}))), node), None);
        assert!(of_daemon_set(Some(&set(json!({"zone": "b"}))), node).is_some());
        assert_eq!(of_daemon_set(Some(&set(json!({"zone": "b"}))), None), None, "the Node is not known yet");
        let mut deleted = set(json!(null));
        deleted.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert!(of_daemon_set(Some(&deleted), node).is_some());
    }
}
