//! Would a DaemonSet's Pod be placed on a node? As the DaemonSet controller decides it.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Toleration};
use openelb_k8s::index::{NodeView, nodes::Taint};

/// Taints that come and go with the node's state. The DaemonSet controller lets its Pods tolerate them (the network's:
/// those on the host's network), and a speaker is back at the latest when they have gone.
const OF_STATE: [&str; 7] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/pid-pressure",
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/network-unavailable",
];

/// Why no Pod of this template is placed on the node; `None`: one is.
pub(super) fn why_not(pod: &PodSpec, node: &NodeView) -> Option<&'static str> {
    let mut wanted = pod.node_selector.iter().flatten();
    let named = pod.node_name.as_ref().is_none_or(|name| name.is_empty() || *name == node.name);
    if !named || !wanted.all(|(key, value)| node.labels.get(key) == Some(value)) {
        return Some("the DaemonSet does not select this Node any more");
    }
    let affinity = pod.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required =
        affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    if required.is_some_and(|required| !required.node_selector_terms.iter().any(|term| matches(term, node))) {
        return Some("the node affinity of the DaemonSet leaves this Node out");
    }
    let tolerations = pod.tolerations.as_deref().unwrap_or_default();
    let keeps_off = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    let tolerated = |taint: &Taint| {
        OF_STATE.contains(&taint.key.as_str())
            || tolerations.iter().any(|toleration| tolerates(toleration, taint))
    };
    let mut taints = node.taints.iter().filter(keeps_off);
    taints.any(|taint| !tolerated(taint)).then_some("the DaemonSet does not tolerate a taint of this Node")
}

/// A term matches if all of it does; an empty one matches nothing.
fn matches(term: &NodeSelectorTerm, node: &NodeView) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label =
        |wanted: &NodeSelectorRequirement| holds(wanted, node.labels.get(&wanted.key).map(String::as_str));
    let field = |wanted: &NodeSelectorRequirement| {
        holds(wanted, (wanted.key == "metadata.name").then_some(node.name.as_str()))
    };
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(label)
        && fields.iter().all(field)
}

fn holds(wanted: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|wanted| wanted == value));
    let numbers = || -> Option<(i64, i64)> {
        Some((value?.parse().ok()?, values.first()?.parse().ok().filter(|_| values.len() == 1)?))
    };
    match wanted.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, wanted)| value > wanted),
        "Lt" => numbers().is_some_and(|(value, wanted)| value < wanted),
        // Not known to us: what a speaker leaves behind when it does not come back is better than a withdrawal of one
        // that does.
        _ => true,
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (key, effect) = (text(&toleration.key), text(&toleration.effect));
    let of_taint = (key.is_empty() || key == taint.key) && (effect.is_empty() || effect == taint.effect);
    of_taint
        && match text(&toleration.operator).as_str() {
            // Every key only with `Exists`.
            "" | "Equal" => !key.is_empty() && text(&toleration.value) == taint.value,
            _ => true,
        }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Node, PodSpec};
    use openelb_k8s::index::NodeView;
    use serde_json::{Value, json};

    use super::why_not;

    fn node() -> NodeView {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": {"zone": "a", "slots": "4", "edge": ""}},
            "spec": {"taints": [{"key": "calm", "effect": "PreferNoSchedule"}]},
        }))
        .unwrap();
        NodeView::parse(&node)
    }

    fn pod(parts: Value) -> PodSpec {
        let mut pod = json!({"containers": []});
        pod.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
        serde_json::from_value(pod).unwrap()
    }

    fn affinity(terms: &Value) -> PodSpec {
        let required =
            json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
        pod(json!({"affinity": {"nodeAffinity": required}}))
    }

    #[test]
    fn a_node_selector_and_a_node_name_are_looked_at() {
        for (parts, placed) in [
            (json!({}), true),
            (json!({"nodeSelector": {"zone": "a", "edge": ""}}), true),
            (json!({"nodeSelector": {"zone": "a", "rack": ""}}), false),
            (json!({"nodeName": "n"}), true),
            (json!({"nodeName": "m"}), false),
        ] {
            assert_eq!(why_not(&pod(parts.clone()), &node()).is_none(), placed, "{parts}");
        }
    }

    #[test]
    fn a_required_node_affinity_is_looked_at() {
        let expression = |key: &str, operator: &str, values: &[&str]| json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]);
        let field = |operator: &str, name: &str| json!([{"matchFields": [{"key": "metadata.name", "operator": operator, "values": [name]}]}]);
        for (terms, placed) in [
            (expression("zone", "In", &["b", "a"]), true),
            (expression("zone", "In", &["b"]), false),
            (expression("rack", "In", &["b"]), false),
            (expression("zone", "NotIn", &["b"]), true),
            (expression("zone", "NotIn", &["a"]), false),
            (expression("rack", "NotIn", &["a"]), true),
            (expression("edge", "Exists", &[]), true),
            (expression("rack", "Exists", &[]), false),
            (expression("rack", "DoesNotExist", &[]), true),
            (expression("edge", "DoesNotExist", &[]), false),
            (expression("slots", "Gt", &["3"]), true),
            (expression("slots", "Gt", &["4"]), false),
            (expression("slots", "Lt", &["5"]), true),
            (expression("slots", "Lt", &["4"]), false),
            (expression("zone", "Gt", &["0"]), false),
            (expression("rack", "Lt", &["9"]), false),
            (expression("slots", "Gt", &["many"]), false),
            (expression("zone", "Resembles", &["b"]), true),
            (field("In", "n"), true),
            (field("In", "m"), false),
            (field("NotIn", "n"), false),
            (field("NotIn", "m"), true),
            // Any term, and all of a term.
            (json!([]), false),
            (json!([{}]), false),
            (json!([{}, {"matchExpressions": [{"key": "edge", "operator": "Exists"}]}]), true),
            (
                json!([{"matchExpressions": [
                    {"key": "edge", "operator": "Exists"}, {"key": "rack", "operator": "Exists"},
                ]}]),
                false,
            ),
            (
                json!([{"matchExpressions": [{"key": "edge", "operator": "Exists"}],
                        "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["m"]}]}]),
                false,
            ),
        ] {
            assert_eq!(why_not(&affinity(&terms), &node()).is_none(), placed, "{terms}");
        }
    }

    #[test]
    fn taints_that_are_not_tolerated_are_looked_at() {
        let taint =
            |key: &str, value: &str, effect: &str| json!({"key": key, "value": value, "effect": effect});
        let own = taint("own", "db", "NoSchedule");
        for (taint, tolerations, placed) in [
            (&own, json!([]), false),
            (&own, json!([{"operator": "Exists"}]), true),
            (&own, json!([{"operator": "Exists", "effect": "NoExecute"}]), false),
            (&own, json!([{"key": "own", "operator": "Exists"}]), true),
            (&own, json!([{"key": "other", "operator": "Exists"}]), false),
            (&own, json!([{"key": "own", "operator": "Exists", "effect": "NoSchedule"}]), true),
            (&own, json!([{"key": "own", "value": "db"}]), true),
            (&own, json!([{"key": "own", "operator": "Equal", "value": "web"}]), false),
            (&own, json!([{"key": "own"}]), false),
            (&own, json!([{"key": "other", "operator": "Exists"}, {"key": "own", "value": "db"}]), true),
            (&taint("own", "", "NoExecute"), json!([]), false),
            (&taint("own", "", "NoExecute"), json!([{"key": "own"}]), true),
            (&taint("own", "", "PreferNoSchedule"), json!([]), true),
            (&taint("node.kubernetes.io/not-ready", "", "NoExecute"), json!([]), true),
            (&taint("node.kubernetes.io/unreachable", "", "NoExecute"), json!([]), true),
            (&taint("node.kubernetes.io/disk-pressure", "", "NoSchedule"), json!([]), true),
            (&taint("node.kubernetes.io/memory-pressure", "", "NoSchedule"), json!([]), true),
            (&taint("node.kubernetes.io/pid-pressure", "", "NoSchedule"), json!([]), true),
            (&taint("node.kubernetes.io/unschedulable", "", "NoSchedule"), json!([]), true),
            (&taint("node.kubernetes.io/network-unavailable", "", "NoSchedule"), json!([]), true),
            (&taint("node.kubernetes.io/out-of-service", "", "NoExecute"), json!([]), false),
        ] {
            let tainted: Node =
                serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"taints": [taint]}}))
                    .unwrap();
            let found = why_not(&pod(json!({"tolerations": tolerations})), &NodeView::parse(&tainted));
            assert_eq!(found.is_none(), placed, "{taint} {tolerations}");
        }
    }
}
