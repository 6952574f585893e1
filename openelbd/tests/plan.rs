//! `openelbd plan`: what the pools would give, and why; with and without a state directory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use common::{Site, code, eip, node, run, service, service_with, snapshot, stderr, stdout};
use serde_json::{Value, json};

/// Runs `plan -o json`; the exit code and the report, without messages (they are for people).
fn plan(site: &Site, with_state: bool) -> (i32, Value) {
    let (manifests, state) = (site.manifests(), site.state());
    let mut arguments = vec!["plan", "--manifests", manifests.to_str().unwrap(), "-o", "json"];
    if with_state {
        arguments.extend(["--state", state.to_str().unwrap()]);
    }
    let output = run(&arguments);
    let mut report: Value =
        serde_json::from_str(&stdout(&output)).unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)));
    for service in report["services"].as_array_mut().unwrap() {
        let message = service.as_object_mut().unwrap().remove("message").unwrap();
        assert!(!message.as_str().unwrap().is_empty(), "{service}");
    }
    for pool in report["pools"].as_array_mut().unwrap() {
        for condition in pool["conditions"].as_array_mut().unwrap() {
            condition.as_object_mut().unwrap().remove("message").unwrap();
        }
    }
    (code(&output), report)
}

fn ready() -> Value {
    json!([{"type": "Ready", "status": "True", "reason": "Ready"}])
}

#[test]
fn the_report_has_a_fixed_shape() {
    let site = Site::new();
    site.write("pool.yaml", &(eip("web", "203.0.113.1-203.0.113.2") + &node("n1", "192.0.2.1")));
    let named = ", loadBalancerIP: 203.0.113.2";
    site.write("services.yaml", &(service("a") + &service_with("b", named) + &service("c")));
    let (code, report) = plan(&site, false);
    let expected = json!({
        "services": [
            {"namespace": "default", "name": "a", "addresses": ["203.0.113.1"], "pools": ["web"], "reason": "Assigned", "requestHonoured": true},
            {"namespace": "default", "name": "b", "addresses": ["203.0.113.2"], "pools": ["web"], "reason": "Assigned", "requestHonoured": true},
            {"namespace": "default", "name": "c", "addresses": [], "pools": [], "reason": "PoolExhausted", "requestHonoured": false},
        ],
        "pools": [{"name": "web", "usage": 2, "poolSize": 2, "conditions": ready()}],
    });
    assert_eq!(report, expected);
    assert_eq!(code, 0, "0 also if something is pending");
    assert!(!site.state().exists(), "nothing is written");
}

#[test]
fn it_fails_if_and_only_if_validate_does() {
    let site = Site::new();
    site.write("a.yaml", &(eip("web", "203.0.113.0/28") + &service("a")));
    site.write("b.yaml", &eip("bad", "nonsense"));
    let (code, report) = plan(&site, false);
    assert_eq!(code, 1);
    assert_eq!(report["services"][0]["reason"], "Assigned", "the good ones are planned: {report:#}");
    let manifests = site.manifests();
    assert_eq!(common::code(&run(&["validate", "-f", manifests.to_str().unwrap()])), 1);
    site.remove("b.yaml");
    assert_eq!(plan(&site, false).0, 0);
}

#[test]
fn what_is_assigned_stays_and_nothing_is_written() {
    let site = Site::new();
    site.write("pool.yaml", &(eip("web", "203.0.113.0/28") + &node("n1", "192.0.2.1")));
    site.write("b.yaml", &service("b"));
    let mut daemon = site.start("n1");
    let held = site.wait_for_addresses("b", 1);
    daemon.wait_until_ready();
    assert_eq!(daemon.terminate(), 0);
    let before = (snapshot(&site.state()), snapshot(&site.manifests()));

    // Alone, a would get the first address; beside the state it gets the next.
    site.write("a.yaml", &service("a"));
    let (ended, report) = plan(&site, true);
    assert_eq!(ended, 0);
    assert_eq!(report["services"][1]["addresses"], json!(held));
    assert_eq!(report["services"][0]["addresses"], json!(["203.0.113.1"]));
    assert_eq!(plan(&site, false).1["services"][0]["addresses"], json!(["203.0.113.0"]));
    site.remove("a.yaml");

    // An edit that takes its address out of the pool is refused, unless it is meant.
    let (manifests, state) = (site.manifests(), site.state());
    let validate = ["validate", "-f", manifests.to_str().unwrap(), "--state", state.to_str().unwrap()];
    assert_eq!(code(&run(&validate)), 0);
    let good = std::fs::read_to_string(manifests.join("pool.yaml")).unwrap();
    let shrunk = good.replace("203.0.113.0/28", "203.0.113.8/29");
    site.write("pool.yaml", &shrunk);
    let refused = run(&validate);
    let said = format!("{} (default/b) is in use", held[0]);
    assert!(code(&refused) == 1 && stdout(&refused).contains(&said), "{}", stdout(&refused));
    assert_eq!(plan(&site, true).0, 1);
    assert_eq!(plan(&site, false).0, 0);
    let forced = "annotations: {openelb.kubesphere.io/force: '1', ";
    site.write("pool.yaml", &shrunk.replacen("annotations: {", forced, 1));
    let (forced, report) = plan(&site, true);
    assert_eq!((forced, &report["services"][0]["addresses"]), (0, &json!(held)));
    site.write("pool.yaml", &good);
    assert_eq!((snapshot(&site.state()), snapshot(&site.manifests())), before, "nothing is written");
}

#[test]
fn the_plan_is_what_standalone_does() {
    let site = Site::new();
    site.write("pool.yaml", &(eip("web", "203.0.113.0/30, 2001:db8::/126") + &node("n1", "192.0.2.1")));
    let dual = ", ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv6, IPv4]";
    site.write(
        "a.yaml",
        &(service_with("a", dual) + &service("b") + &service_with("c", ", ipFamilies: [IPv6]")),
    );
    let (_, report) = plan(&site, false);
    let _daemon = site.start("n1");
    for service in report["services"].as_array().unwrap() {
        let expected: Vec<String> = serde_json::from_value(service["addresses"].clone()).unwrap();
        assert!(!expected.is_empty(), "{service}");
        let name = service["name"].as_str().unwrap();
        assert_eq!(site.wait_for_addresses(name, expected.len()), expected);
    }
}

#[test]
fn tables_and_yaml_say_the_same() {
    let site = Site::new();
    site.write("a.yaml", &(eip("web", "203.0.113.7") + &service("a") + &service("b")));
    let manifests = site.manifests();
    let table = stdout(&run(&["plan", "--manifests", manifests.to_str().unwrap()]));
    for part in ["NAMESPACE", "203.0.113.7", "PoolExhausted", "web"] {
        assert!(table.contains(part), "{part} is not in\n{table}");
    }
    let yaml = stdout(&run(&["plan", "--manifests", manifests.to_str().unwrap(), "-o", "yaml"]));
    let yaml: Value = serde_saphyr::from_str(&yaml).unwrap();
    let json = stdout(&run(&["plan", "--manifests", manifests.to_str().unwrap(), "-o", "json"]));
    assert_eq!(yaml, serde_json::from_str::<Value>(&json).unwrap());
}
