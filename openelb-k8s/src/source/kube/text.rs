//! Objects as text: what an API server sends, read once and without what is of no use to us.
//!
//! Services are many. They are read in one go; `metadata.managedFields`, often the bigger part, and what of the spec
//! says nothing to us are skipped. Everything else, and a Service that is not of its form, goes by way of [`Value`], where
//! what is wrong can be named.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec, ServiceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Deserialize;
use serde_json::Value;

use super::reflector::{read, without_noise};
use super::versions::parse;
use crate::object::{Kind, Object, ObjectRef};
use crate::problem::Problem;

/// Which object a text is of, and of which version.
#[derive(Deserialize)]
pub(super) struct Identity<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    namespace: Option<Cow<'a, str>>,
    #[serde(borrow)]
    resource_version: Option<Cow<'a, str>>,
}

impl<'a> Identity<'a> {
    /// `None` if it has no name, which an API server does not send.
    pub(super) fn of(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn reference(&self, kind: Kind) -> Option<ObjectRef> {
        let owned = |text: &Option<Cow<'_, str>>| text.as_deref().map(str::to_owned);
        let namespace = kind.is_namespaced().then(|| owned(&self.metadata.namespace)).flatten();
        Some(ObjectRef { kind, namespace, name: owned(&self.metadata.name)? })
    }

    pub(super) fn version(&self) -> u64 {
        parse(self.metadata.resource_version.as_deref())
    }
}

/// A Service without its managed fields, and of the spec only what [`ServiceView`](crate::index::ServiceView) looks at.
#[derive(Deserialize)]
struct Lean {
    metadata: LeanMetadata,
    spec: Option<LeanSpec>,
    status: Option<ServiceStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeanSpec {
    #[serde(rename = "type")]
    kind: Option<String>,
    load_balancer_class: Option<String>,
    #[serde(rename = "loadBalancerIP")]
    load_balancer_ip: Option<String>,
    ip_families: Option<Vec<String>>,
    ip_family_policy: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    ports: Option<Vec<LeanPort>>,
    external_traffic_policy: Option<String>,
    selector: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct LeanPort {
    port: i32,
    protocol: Option<String>,
}

impl From<LeanSpec> for ServiceSpec {
    fn from(lean: LeanSpec) -> Self {
        let port = |LeanPort { port, protocol }| ServicePort { port, protocol, ..ServicePort::default() };
        Self {
            type_: lean.kind,
            load_balancer_class: lean.load_balancer_class,
            load_balancer_ip: lean.load_balancer_ip,
            ip_families: lean.ip_families,
            ip_family_policy: lean.ip_family_policy,
            cluster_ip: lean.cluster_ip,
            cluster_ips: lean.cluster_ips,
            ports: lean.ports.map(|ports| ports.into_iter().map(port).collect()),
            external_traffic_policy: lean.external_traffic_policy,
            selector: lean.selector,
            ..Self::default()
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeanMetadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    finalizers: Option<Vec<String>>,
}

impl From<Lean> for Service {
    fn from(lean: Lean) -> Self {
        let metadata = lean.metadata;
        Self {
            metadata: ObjectMeta {
                name: metadata.name,
                namespace: Some(metadata.namespace.unwrap_or_else(|| "default".to_owned())),
                uid: metadata.uid,
                resource_version: metadata.resource_version,
                generation: metadata.generation,
                creation_timestamp: metadata.creation_timestamp,
                deletion_timestamp: metadata.deletion_timestamp,
                labels: metadata.labels,
                annotations: metadata.annotations,
                finalizers: metadata.finalizers,
                ..ObjectMeta::default()
            },
            spec: lean.spec.map(ServiceSpec::from),
            status: lean.status,
        }
    }
}

/// Reads an object as an API server returns it: see [`read`].
pub(crate) fn read_text(kind: Kind, text: &str) -> Result<Object, Box<Problem>> {
    if kind == Kind::Service
        && let Ok(lean) = serde_json::from_str::<Lean>(text)
        && lean.metadata.name.as_deref().is_some_and(|name| !name.is_empty())
    {
        let mut service = Service::from(lean);
        if let Some(annotations) = &mut service.metadata.annotations {
            without_noise(annotations, String::len);
        }
        return Ok(service.into());
    }
    let value: Value = serde_json::from_str(text).map_err(|error| {
        Problem::error(format!("is not JSON: {error}"), "look at what stands between us and the API server")
    })?;
    read(kind, value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::index::{ServiceView, services::ClassRules};
    use crate::names::annotation;

    fn service() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7", "generation": 2,
                "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-02T00:00:00Z",
                "labels": {"app": "web"}, "finalizers": ["service.kubernetes.io/load-balancer-cleanup"],
                "annotations": {"a": "b", annotation::LAST_APPLIED: "{}", annotation::UNREADABLE: "[]"},
                "managedFields": [{"manager": "m", "operation": "Update", "fieldsType": "FieldsV1",
                                   "fieldsV1": {"f:spec": {}}}],
            },
            "spec": {
                "type": "LoadBalancer", "loadBalancerClass": "openelb.io/openelb", "loadBalancerIP": "192.0.2.1",
                "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00::9"], "ipFamilies": ["IPv4", "IPv6"],
                "ipFamilyPolicy": "PreferDualStack", "externalTrafficPolicy": "Local", "selector": {"app": "web"},
                "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080, "targetPort": "http", "name": "http"},
                          {"port": 53, "protocol": "UDP", "targetPort": 53}],
                "sessionAffinity": "None", "newer": {"a": 1},
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]},
                       "conditions": [{"type": "a", "status": "True", "reason": "b", "message": "c",
                                       "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        })
    }

    fn view(object: &Object) -> ServiceView {
        let Object::Service(service) = object else { panic!("a Service is one") };
        ServiceView::parse(service, &ClassRules::default())
    }

    #[test]
    fn a_service_is_read_in_one_go_as_it_is_read_by_way_of_values() {
        let mut texts = vec![service()];
        for part in ["namespace", "labels", "annotations", "finalizers", "deletionTimestamp", "generation"] {
            let mut without = service();
            without["metadata"].as_object_mut().unwrap().remove(part);
            texts.push(without);
        }
        for part in ["spec", "status"] {
            let mut without = service();
            without.as_object_mut().unwrap().remove(part);
            texts.push(without);
        }
        for part in service()["spec"].as_object().unwrap().keys() {
            let mut without = service();
            without["spec"].as_object_mut().unwrap().remove(part);
            texts.push(without);
        }
        let mut garbled = service();
        garbled["status"] = json!({"loadBalancer": "gone"});
        texts.push(garbled);
        for value in texts {
            let text = value.to_string();
            let (at_once, by_value) =
                (read_text(Kind::Service, &text).unwrap(), read(Kind::Service, value).unwrap());
            assert_eq!(at_once.metadata(), by_value.metadata(), "{text}");
            assert_eq!(view(&at_once), view(&by_value), "{text}");
        }
    }

    #[test]
    fn a_condition_that_cannot_be_read_costs_neither_the_addresses_nor_itself() {
        let sound = service()["status"]["conditions"][0].clone();
        let with = |key: &str, value: Value| {
            let mut condition = sound.clone();
            condition["type"] = json!("example.com/Odd");
            condition[key] = value;
            condition
        };
        let mut timeless = with("status", json!("True"));
        timeless.as_object_mut().unwrap().remove("lastTransitionTime");
        let odd = [
            timeless,
            with("lastTransitionTime", Value::Null),
            with("lastTransitionTime", json!(17)),
            with("lastTransitionTime", json!("yesterday")),
            with("status", json!(true)),
            json!("Ready"),
            Value::Null,
        ];
        for odd in odd {
            let mut value = service();
            value["status"]["conditions"] = json!([odd, sound]);
            let object = read_text(Kind::Service, &value.to_string()).unwrap();
            let view = view(&object);
            assert_eq!(view.published(), ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()], "{odd}");
            let read: Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> =
                view.conditions.iter().map(Into::into).collect();
            assert_eq!(json!(read), json!([sound]), "{odd}");
            assert_eq!(&*view.unread_conditions, std::slice::from_ref(&odd));
            assert_eq!(view.annotations.iter().count(), 1, "what is noted of {odd} is ours alone");
            let back = object.to_value().unwrap();
            assert_eq!(back["status"]["conditions"], json!([sound, odd]));
            assert_eq!(back["metadata"]["annotations"], json!({"a": "b"}));
        }
        // Nor all of them.
        let mut value = service();
        value["status"]["conditions"] = json!("none");
        let view = view(&read_text(Kind::Service, &value.to_string()).unwrap());
        assert_eq!((view.published().len(), view.conditions.len()), (1, 0));
    }

    #[test]
    fn what_is_wrong_with_a_service_is_named() {
        let mut wrong = service();
        wrong["spec"]["ports"][0]["port"] = json!("http");
        let problem = read_text(Kind::Service, &wrong.to_string()).unwrap_err();
        assert_eq!(problem.field.as_deref(), Some("spec.ports[0].port"));
        assert!(read_text(Kind::Service, "{\"metadata\":").is_err());
        assert!(read_text(Kind::Eip, "[").is_err());
    }

    #[test]
    fn an_identity_is_read_whatever_the_rest_is() {
        let text = r#"{"spec": 5, "metadata": {"name": "a\u0062", "namespace": "n", "resourceVersion": "12", "x": []}}"#;
        let identity = Identity::of(text).unwrap();
        assert_eq!(identity.version(), 12);
        assert_eq!(identity.reference(Kind::Service).unwrap().to_string(), "Service n/ab");
        assert_eq!(identity.reference(Kind::Eip).unwrap().namespace, None);
        assert!(Identity::of("{}").is_none() && Identity::of(r#"{"metadata": {"name": 5}}"#).is_none());
        assert!(Identity::of(r#"{"metadata": {}}"#).unwrap().reference(Kind::Node).is_none());
    }
}
