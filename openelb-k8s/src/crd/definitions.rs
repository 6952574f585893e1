//! CustomResourceDefinitions, as an API server wants them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::{Map, Value, json};

use super::{BgpConf, BgpPeer, BgpPolicy, Eip, Layer2Conf, SpeakerStatus, VipGroup, v1alpha1};

/// Every CustomResourceDefinition, in the order of their names.
///
/// `v1alpha2` is stored; `v1alpha1` of `Eip`, `BgpConf` and `BgpPeer` is served and deprecated.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut all = vec![
        with_v1alpha1(BgpConf::crd(), v1alpha1::BgpConf::crd()),
        with_v1alpha1(BgpPeer::crd(), v1alpha1::BgpPeer::crd()),
        BgpPolicy::crd(),
        with_v1alpha1(Eip::crd(), v1alpha1::Eip::crd()),
        Layer2Conf::crd(),
        SpeakerStatus::crd(),
        VipGroup::crd(),
    ];
    all.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    all.into_iter().map(finish).collect()
}

/// One definition as YAML, the same bytes every time.
///
/// # Errors
/// If the definition cannot be serialised, which would be a defect of this crate.
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, CrdError> {
    let value = serde_json::to_value(crd).map_err(|e| CrdError(e.to_string()))?;
    serde_saphyr::to_string(&value).map_err(|e| CrdError(e.to_string()))
}

/// A definition could not be serialised.
#[derive(Debug, thiserror::Error)]
#[error("cannot serialise the CustomResourceDefinition: {0}")]
pub struct CrdError(String);

fn with_v1alpha1(
    mut crd: CustomResourceDefinition,
    old: CustomResourceDefinition,
) -> CustomResourceDefinition {
    for mut version in old.spec.versions {
        version.storage = false;
        // The old version never had a status subresource.
        version.subresources = None;
        crd.spec.versions.insert(0, version);
    }
    crd
}

/// Rewrites the schemas for an API server. A definition that does not survive the way through JSON is left as it is
/// (a test shows that every one of ours does).
fn finish(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let Ok(mut value) = serde_json::to_value(&crd) else { return crd };
    if let Some(Value::Array(versions)) = value.pointer_mut("/spec/versions") {
        for version in versions {
            if let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema") {
                root(schema);
                structural(schema);
            }
        }
    }
    serde_json::from_value(value).unwrap_or(crd)
}

/// `spec` may be absent, as ever.
fn root(schema: &mut Value) {
    let Value::Object(schema) = schema else { return };
    schema.remove("required");
    schema.remove("title");
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        let address =
            properties.get("spec").is_some_and(|spec| spec.pointer("/properties/address").is_some());
        if address && let Some(Value::Object(spec)) = properties.get_mut("spec") {
            // Eip.spec.address was always required.
            spec.insert("required".into(), json!(["address"]));
        }
    }
}

fn structural(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if !map.contains_key("x-kubernetes-int-or-string") {
                map.remove("nullable");
            }
            integers(map);
            for (key, value) in map.iter_mut() {
                if key == "properties" {
                    // Names of fields, not keywords.
                    if let Value::Object(properties) = value {
                        properties.values_mut().for_each(structural);
                    }
                } else if !matches!(key.as_str(), "enum" | "default" | "required") {
                    structural(value);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(structural),
        _ => {}
    }
}

/// Kubernetes knows int32 and int64 only.
fn integers(map: &mut Map<String, Value>) {
    let (format, maximum) = match map.get("format").and_then(Value::as_str) {
        Some("uint8") => ("int32", Some(255_u64)),
        Some("uint16") => ("int32", Some(65_535)),
        Some("uint32") => ("int64", Some(4_294_967_295)),
        Some("uint64" | "uint") => ("int64", None),
        _ => return,
    };
    map.insert("format".into(), json!(format));
    map.entry("minimum").or_insert(json!(0));
    if let Some(maximum) = maximum {
        map.entry("maximum").or_insert(json!(maximum));
    }
}
