//! What a real API server makes of our custom resources.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use openelb_lab::{Lab, eventually, kube::ControlPlane};
use serde_json::{Value, json};

const NEW: &str = "network.kubesphere.io/v1alpha2";
const OLD: &str = "network.kubesphere.io/v1alpha1";

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The documents with every field, as JSON.
fn every_field() -> Vec<Value> {
    let text = std::fs::read_to_string(here("tests/data/every-field.yaml")).unwrap();
    text.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

fn definitions() -> Vec<Value> {
    let files = std::fs::read_dir(here("../../deploy/crds")).unwrap();
    files
        .map(|file| serde_saphyr::from_str(&std::fs::read_to_string(file.unwrap().path()).unwrap()).unwrap())
        .collect()
}

/// The plural of a kind.
fn plural(definitions: &[Value], kind: &str) -> String {
    let definition = definitions.iter().find(|crd| crd["spec"]["names"]["kind"] == kind).unwrap();
    definition["spec"]["names"]["plural"].as_str().unwrap().to_owned()
}

/// The fields that a schema knows, as paths to what has no fields of its own.
fn known(schema: &Value, path: &str, into: &mut BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        properties.iter().for_each(|(name, inner)| known(inner, &format!("{path}.{name}"), into));
    } else if schema["items"].is_object() {
        known(&schema["items"], &format!("{path}[]"), into);
    } else if schema["additionalProperties"].is_object() {
        known(&schema["additionalProperties"], &format!("{path}{{}}"), into);
    } else if schema["type"] != "object" {
        into.insert(path.to_owned());
    }
}

/// The fields of a document, by the same names.
fn used(value: &Value, schema: &Value, path: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if schema["properties"].is_object() => {
            for (name, inner) in fields {
                used(inner, &schema["properties"][name], &format!("{path}.{name}"), into);
            }
        }
        Value::Object(entries) => {
            let schema = &schema["additionalProperties"];
            entries.values().for_each(|inner| used(inner, schema, &format!("{path}{{}}"), into));
        }
        Value::Array(items) => {
            items.iter().for_each(|inner| used(inner, &schema["items"], &format!("{path}[]"), into));
        }
        _ => {
            into.insert(path.to_owned());
        }
    }
}

#[test]
fn the_documents_have_every_field() {
    let documents = every_field();
    let mut left_out = BTreeMap::new();
    for definition in definitions() {
        for version in definition["spec"]["versions"].as_array().unwrap() {
            let schema = &version["schema"]["openAPIV3Schema"];
            let (mut all, mut found) = (BTreeSet::new(), BTreeSet::new());
            known(schema, "", &mut all);
            let api_version = format!("network.kubesphere.io/{}", version["name"].as_str().unwrap());
            let kind = &definition["spec"]["names"]["kind"];
            for document in documents.iter().filter(|d| d["kind"] == *kind && d["apiVersion"] == api_version)
            {
                for part in ["spec", "status"].into_iter().filter(|part| !document[*part].is_null()) {
                    used(&document[part], &schema["properties"][part], &format!(".{part}"), &mut found);
                }
            }
            let missing: Vec<String> = all.difference(&found).cloned().collect();
            if !missing.is_empty() {
                left_out.insert(format!("{api_version} {kind}"), missing);
            }
        }
    }
    // A list that is empty in one document (operator Exists) has its items in another.
    left_out
        .values_mut()
        .for_each(|paths| paths.retain(|path| !path.ends_with(".matchExpressions[].values[]")));
    left_out.retain(|_, paths| !paths.is_empty());
    assert!(left_out.is_empty(), "{left_out:#?}");
}

/// Creates an object and returns what the API server says if it refuses it.
fn create(kube: &ControlPlane, object: &Value, validation: &str) -> Result<(), String> {
    let file = kube.lab().write("object.json", &object.to_string()).unwrap();
    let validate = format!("--validate={validation}");
    kube.kubectl(&["create", &validate, "--filename", &file.to_string_lossy()])
        .map(drop)
        .map_err(|error| format!("{error:#}"))
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": NEW, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// Everything in one test: the API server is the costly part.
#[test]
fn a_real_api_server_takes_our_custom_resources() {
    let lab = Arc::new(Lab::start("crds").unwrap());
    let kube = ControlPlane::start_api(&lab).unwrap();
    kube.apply_crds().unwrap();
    let definitions = definitions();

    definitions_are_established(&kube, &definitions);
    every_field_survives(&kube, &definitions);
    old_objects_are_read_by_the_new_name(&kube);
    only_addresses_of_eips_are_required(&kube, &definitions);
    wrong_values_are_refused(&kube);
    unknown_fields_are_refused_or_dropped(&kube);
    status_is_a_resource_of_its_own(&kube);
    conditions_are_merged_by_type_and_used_is_replaced_as_a_whole(&kube);
    columns_are_printed(&kube);
    the_demo_is_accepted(&kube);
}

fn definitions_are_established(kube: &ControlPlane, definitions: &[Value]) {
    let served = kube.list("customresourcedefinitions").unwrap();
    assert_eq!(served.len(), definitions.len());
    for crd in served {
        let conditions: BTreeMap<&str, &str> = crd["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| (c["type"].as_str().unwrap(), c["status"].as_str().unwrap()))
            .collect();
        let expected = BTreeMap::from([("Established", "True"), ("NamesAccepted", "True")]);
        // Among those that may be there is NonStructuralSchema.
        assert_eq!(conditions, expected, "{}", crd["metadata"]["name"]);
        assert_eq!(crd["status"]["storedVersions"], json!(["v1alpha2"]));
    }
    // They are established before it is told everywhere what there is.
    let ask = |what: &[&str]| {
        eventually("an answer", Duration::from_secs(60), || kube.kubectl(what).map(Some)).unwrap().0
    };
    let group = ask(&["get", "--raw", "/apis/network.kubesphere.io"]);
    let group: Value = serde_json::from_str(&group).unwrap();
    assert_eq!(group["preferredVersion"]["version"], "v1alpha2");
    let explained = ask(&["explain", "eip.spec.address"]);
    assert!(explained.contains("ranges of both families"), "{explained}");
}

fn every_field_survives(kube: &ControlPlane, definitions: &[Value]) {
    let file = here("tests/data/every-field.yaml");
    let file = file.to_string_lossy();
    kube.kubectl(&["create", "--validate=strict", "--filename", &file]).unwrap();
    for document in every_field() {
        if document["apiVersion"] == NEW {
            kube.replace_status(&document.to_string()).unwrap();
        }
        let kind = document["kind"].as_str().unwrap();
        let version = document["apiVersion"].as_str().unwrap().rsplit('/').next().unwrap();
        let resource = format!("{}.{version}.network.kubesphere.io", plural(definitions, kind));
        let there = kube.get(&resource, "", document["metadata"]["name"].as_str().unwrap()).unwrap();
        if version == "v1alpha2" || kind == "Eip" {
            assert_eq!(there["spec"], document["spec"], "{kind}");
            assert_eq!(there["status"], document["status"], "{kind}");
        }
    }
}

fn old_objects_are_read_by_the_new_name(kube: &ControlPlane) {
    let eip = kube.get("eips", "", "every-old-field").unwrap();
    assert_eq!((&eip["apiVersion"], &eip["spec"]["address"]), (&json!(NEW), &json!("192.168.1.0/24")));
    let output = kube
        .kubectl_command(kube.kubeconfig(), &["get", "eips.v1alpha1.network.kubesphere.io"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("Warning: network.kubesphere.io/v1alpha1 Eip is deprecated; use v1alpha2"),
        "{said}"
    );
    // There is no conversion, and never was: what v1alpha2 calls otherwise is lost when it is stored.
    let conf = kube.get("bgpconfs", "", "every-old-field").unwrap();
    assert_eq!(conf["spec"], json!({"as": 65000}));
    // Values are checked by the version that is used.
    let bad = json!({"apiVersion": OLD, "kind": "Eip", "metadata": {"name": "bad"}, "spec": {"address": "fd00::1"}});
    let refused = create(kube, &bad, "strict").unwrap_err();
    assert!(refused.contains("spec.address"), "{refused}");
}

fn only_addresses_of_eips_are_required(kube: &ControlPlane, definitions: &[Value]) {
    for definition in definitions {
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
        for (name, spec) in [("empty-spec", Some(json!({}))), ("no-spec", None)] {
            let mut document = object(kind, name, json!({}));
            match spec {
                Some(spec) => document["spec"] = spec,
                None => {
                    document.as_object_mut().unwrap().remove("spec");
                }
            }
            match create(kube, &document, "strict") {
                Ok(()) => assert!(kind != "Eip" || name == "no-spec", "{kind} {name} was accepted"),
                Err(refused) => {
                    assert!(kind == "Eip" && refused.contains("spec.address: Required value"), "{refused}");
                }
            }
            if kind != "Eip" {
                // Any part of a status alone, too.
                document["status"] = json!({"observedGeneration": 1});
                if kind == "SpeakerStatus" {
                    document["status"] = json!({"version": "1"});
                }
                kube.replace_status(&document.to_string()).unwrap();
            }
        }
    }
}

fn wrong_values_are_refused(kube: &ControlPlane) {
    for (kind, spec, field) in [
        ("Eip", json!({"address": "192.0.2.1", "protocol": "carrier-pigeon"}), "spec.protocol"),
        ("Eip", json!({"address": "192.0.2.1", "sharing": "Everybody"}), "spec.sharing"),
        ("Eip", json!({"address": "192.0.2.1", "protocols": ["bgp", "bgp"]}), "spec.protocols"),
        ("Eip", json!({"address": "192.0.2.1", "maxPerNamespace": 0}), "spec.maxPerNamespace"),
        ("Eip", json!({"address": 1}), "spec.address"),
        ("BgpConf", json!({"as": 4_294_967_296_u64}), "spec.as"),
        ("BgpConf", json!({"as": -1}), "spec.as"),
        ("BgpConf", json!({"nextHopMode": "None"}), "spec.nextHopMode"),
        (
            "BgpConf",
            json!({"bfdProfiles": {"fast": {"minimumTtl": 256}}}),
            "spec.bfdProfiles.fast.minimumTtl",
        ),
        ("BgpPeer", json!({"conf": {"peerAs": 4_294_967_296_u64}}), "spec.conf.peerAs"),
        ("BgpPeer", json!({"bfd": {"detectMultiplier": 0}}), "spec.bfd.detectMultiplier"),
        ("BgpPeer", json!({"policies": {"defaultImport": "maybe"}}), "spec.policies.defaultImport"),
        ("VipGroup", json!({"virtualRouterId": 256}), "spec.virtualRouterId"),
    ] {
        let refused = create(kube, &object(kind, "wrong", spec.clone()), "strict");
        let said = refused.expect_err(&format!("{kind} {spec} was accepted"));
        assert!(said.contains(field), "{kind} {spec}: {said}");
    }
}

fn unknown_fields_are_refused_or_dropped(kube: &ControlPlane) {
    let document = object("Eip", "unknown", json!({"address": "192.0.2.1", "adress": "192.0.2.2"}));
    let refused = create(kube, &document, "strict").unwrap_err();
    assert!(refused.contains(r#"unknown field "spec.adress""#), "{refused}");
    create(kube, &document, "ignore").unwrap();
    let there = kube.get("eips", "", "unknown").unwrap();
    assert_eq!(there["spec"], json!({"address": "192.0.2.1"}));
}

fn status_is_a_resource_of_its_own(kube: &ControlPlane) {
    let before = kube.get("eips", "", "unknown").unwrap();
    let patch = json!({"status": {"usage": 7}});
    kube.patch("eips", "", "unknown", None, &patch).unwrap();
    assert_eq!(kube.get("eips", "", "unknown").unwrap()["status"], Value::Null);
    kube.patch("eips", "", "unknown", Some("status"), &patch).unwrap();
    let after = kube.get("eips", "", "unknown").unwrap();
    assert_eq!(after["status"], json!({"usage": 7}));
    // The generation counts changes of the spec alone.
    assert_eq!(after["metadata"]["generation"], before["metadata"]["generation"]);
}

fn conditions_are_merged_by_type_and_used_is_replaced_as_a_whole(kube: &ControlPlane) {
    let name = "applied";
    create(kube, &object("Eip", name, json!({"address": "192.0.2.0/24"})), "strict").unwrap();
    let apply = |manager: &str, status: Value| {
        let document =
            json!({"apiVersion": NEW, "kind": "Eip", "metadata": {"name": name}, "status": status});
        let file = kube.lab().write("apply.json", &document.to_string()).unwrap();
        let manager = format!("--field-manager={manager}");
        let file = file.to_string_lossy();
        let arguments = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--subresource=status",
            &manager,
            "--filename",
            &file,
        ];
        kube.kubectl(&arguments).unwrap();
        kube.get("eips", "", name).unwrap()["status"].clone()
    };
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z"});
    apply("one", json!({"used": {"192.0.2.1": "a/a"}, "conditions": [condition("Ready")]}));
    let status =
        apply("two", json!({"used": {"192.0.2.2": "b/b"}, "conditions": [condition("SettingsApplied")]}));
    assert_eq!(status["used"], json!({"192.0.2.2": "b/b"}));
    let types: Vec<&Value> = status["conditions"].as_array().unwrap().iter().map(|c| &c["type"]).collect();
    assert_eq!(types, ["Ready", "SettingsApplied"]);
}

fn columns_are_printed(kube: &ControlPlane) {
    let words = |arguments: &[&str]| -> Vec<Vec<String>> {
        let text = kube.kubectl(arguments).unwrap();
        text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    let table = words(&["get", "eips", "every-field"]);
    assert_eq!(table[0], ["NAME", "CIDR", "USAGE", "TOTAL", "READY", "AGE"]);
    let cidr = "192.168.0.100-192.168.0.110,fd00::/64";
    assert_eq!(table[1][..5], ["every-field", cidr, "1", "9223372036854775807", "True"]);
    let wide = words(&["get", "eips", "every-field", "--output=wide"]);
    assert_eq!(wide[0], ["NAME", "CIDR", "USAGE", "TOTAL", "READY", "PROTOCOL", "REASON", "AGE"]);
    assert_eq!(wide[1][5..7], ["layer2", "InForce"]);
    for (resource, columns, values) in [
        ("bgpconfs", "AS PORT READY", "4200000000 17900 True"),
        ("bgppeers", "ADDRESS AS READY", "192.0.2.1 4294967295 False"),
        ("vipgroups", "VRID ACTIVE READY", "51 node-1 True"),
        ("layer2confs", "FAILBACK READY", "Delayed True"),
        ("speakerstatuses", "SESSIONS PEERS ADDRESSES READY", "1 2 7 True"),
    ] {
        let table = words(&["get", resource, "every-field"]);
        let columns: Vec<&str> = columns.split(' ').collect();
        let values: Vec<&str> = values.split(' ').collect();
        assert_eq!(table[0][1..=columns.len()], columns, "{resource}");
        assert_eq!(table[1][1..=values.len()], values, "{resource}");
    }
    // The category that lists them with what belongs to the network.
    assert!(kube.kubectl(&["get", "networking"]).unwrap().contains("every-field"));
}

fn the_demo_is_accepted(kube: &ControlPlane) {
    for file in ["10-pools.yaml", "20-bgp.yaml", "40-services.yaml"] {
        let path = here("../../examples/demo").join(file);
        kube.kubectl(&["apply", "--validate=strict", "--filename", &path.to_string_lossy()]).unwrap();
    }
}
