//! The chart as it is in the repository.

use super::*;

fn chart() -> Chart {
    Chart::read(&BTreeMap::new()).unwrap()
}

fn objects(values: &Value) -> BTreeMap<String, Value> {
    parsed(&chart().render(values).unwrap()).unwrap()
}

#[test]
fn selectors_never_change_with_the_version() {
    let mut newer = chart();
    newer.chart["version"] = json!("9.9.9");
    newer.chart["appVersion"] = json!("9.9.9");
    let (now, later) = (objects(&json!({})), parsed(&newer.render(&json!({})).unwrap()).unwrap());
    let mut compared = 0;
    for (key, object) in &now {
        let at = |object: &Value| object.pointer("/spec/selector").cloned();
        assert_eq!(at(object), at(&later[key]), "{key}");
        compared += usize::from(at(object).is_some());
    }
    assert_eq!(compared, 5, "two workloads, two Services, a PodDisruptionBudget");
}

#[test]
fn what_selects_finds_what_it_selects() {
    let all = objects(&json!({"controller": {"monitorEnable": true}, "speaker": {"monitorEnable": true}}));
    for component in ["controller", "speaker"] {
        let workload = if component == "controller" { "Deployment" } else { "DaemonSet" };
        let pod = &all[&format!("{workload} openelb-{component}")]["spec"]["template"]["metadata"]["labels"];
        let service = &all[&format!("Service openelb-{component}")];
        let monitor = &all[&format!("ServiceMonitor openelb-{component}")];
        let within = |selector: &Value, labels: &Value| {
            selector.as_object().unwrap().iter().all(|(key, value)| labels.get(key) == Some(value))
        };
        assert!(within(&service["spec"]["selector"], pod));
        assert!(within(&monitor["spec"]["selector"]["matchLabels"], &service["metadata"]["labels"]));
        assert_eq!(monitor["spec"]["endpoints"][0]["port"], service["spec"]["ports"][0]["name"]);
    }
}

#[test]
fn nothing_renders_as_null() {
    fn nulls(value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::Null => found.push(path.to_owned()),
            Value::Object(map) => {
                map.iter().for_each(|(key, value)| nulls(value, &format!("{path}.{key}"), found));
            }
            Value::Array(items) => items.iter().for_each(|value| nulls(value, &format!("{path}[]"), found)),
            _ => {}
        }
    }
    for values in [json!({}), other_values(), json!({"speaker": {"enable": false}})] {
        for (key, object) in objects(&values) {
            let mut found = Vec::new();
            nulls(&object, &key, &mut found);
            assert!(found.is_empty(), "{found:?}");
        }
    }
}

#[test]
fn accounts_have_only_what_they_are_given() {
    let all = objects(&json!({}));
    let controller = &all["Deployment openelb-controller"]["spec"]["template"]["spec"];
    assert_eq!(controller["securityContext"]["runAsNonRoot"], true);
    assert_eq!(controller["containers"][0]["securityContext"]["capabilities"], json!({"drop": ["ALL"]}));
    let speaker = &all["DaemonSet openelb-speaker"]["spec"]["template"]["spec"];
    let capabilities = json!({"drop": ["ALL"], "add": ["NET_ADMIN", "NET_BIND_SERVICE", "NET_RAW"]});
    assert_eq!(speaker["containers"][0]["securityContext"]["capabilities"], capabilities);
    for (account, pod) in [("controller", controller), ("speaker", speaker)] {
        let name = format!("openelb-{account}");
        assert_eq!(pod["serviceAccountName"], name.as_str());
        for binding in ["ClusterRoleBinding", "RoleBinding"] {
            let binding = &all[&format!("{binding} {name}")];
            assert_eq!(binding["subjects"][0]["name"], name.as_str());
            assert_eq!(binding["subjects"][0]["namespace"], NAMESPACE);
        }
    }
    let without = objects(&json!({"speaker": {"enable": false}}));
    assert!(without.keys().all(|key| !key.ends_with("openelb-speaker")), "{:?}", without.keys());
}

#[test]
fn definitions_stay_when_the_rest_goes() {
    let all = objects(&json!({}));
    let definitions: Vec<_> =
        all.iter().filter(|(key, _)| key.starts_with("CustomResourceDefinition")).collect();
    assert!(definitions.len() >= 7);
    for (key, definition) in definitions {
        assert_eq!(definition["metadata"]["annotations"]["helm.sh/resource-policy"], "keep", "{key}");
    }
}
