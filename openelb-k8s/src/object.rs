//! The kinds of objects that we read, and one type over all of them.

use std::fmt;
use std::str::FromStr;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use crate::crd::{BgpConf, BgpPeer, BgpPolicy, Eip, Layer2Conf, SpeakerStatus, VipGroup};
use crate::names;
use crate::problem::Problem;

macro_rules! kinds {
    ($($kind:ident, $plural:literal, $api:literal, $namespaced:literal;)*) => {
        /// A kind of object that we read.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $(#[doc = concat!("`", stringify!($kind), "`")] $kind,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// The name of the kind, as in a manifest.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind),)* }
            }

            /// The name of the resource, as in the API's paths.
            #[must_use]
            pub fn plural(self) -> &'static str {
                match self { $(Self::$kind => $plural,)* }
            }

            /// The `apiVersion` of a manifest.
            #[must_use]
            pub fn api_version(self) -> &'static str {
                match self { $(Self::$kind => $api,)* }
            }

            /// Do objects of this kind live in a namespace?
            #[must_use]
            pub fn is_namespaced(self) -> bool {
                match self { $(Self::$kind => $namespaced,)* }
            }
        }

        /// An object of any kind that we read.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Object {
            $(#[doc = concat!("`", stringify!($kind), "`")] $kind(Box<$kind>),)*
        }

        impl Object {
            /// What kind of object it is.
            #[must_use]
            pub fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind,)* }
            }

            /// Its metadata.
            #[must_use]
            pub fn metadata(&self) -> &ObjectMeta {
                match self { $(Self::$kind(object) => &object.metadata,)* }
            }

            /// Its metadata.
            pub fn metadata_mut(&mut self) -> &mut ObjectMeta {
                match self { $(Self::$kind(object) => &mut object.metadata,)* }
            }

            fn typed(kind: Kind, value: Value) -> Result<Self, Unreadable> {
                Ok(match kind { $(Kind::$kind => Self::$kind(Box::new(serde_path_to_error::deserialize(value)?)),)* })
            }

            fn typed_value(&self) -> Result<Value, serde_json::Error> {
                match self { $(Self::$kind(object) => serde_json::to_value(object),)* }
            }
        }

        $(impl From<$kind> for Object {
            fn from(object: $kind) -> Self { Self::$kind(Box::new(object)) }
        })*
    };
}

kinds! {
    Eip, "eips", "network.kubesphere.io/v1alpha2", false;
    BgpConf, "bgpconfs", "network.kubesphere.io/v1alpha2", false;
    BgpPeer, "bgppeers", "network.kubesphere.io/v1alpha2", false;
    BgpPolicy, "bgppolicies", "network.kubesphere.io/v1alpha2", false;
    Layer2Conf, "layer2confs", "network.kubesphere.io/v1alpha2", false;
    VipGroup, "vipgroups", "network.kubesphere.io/v1alpha2", false;
    SpeakerStatus, "speakerstatuses", "network.kubesphere.io/v1alpha2", false;
    Service, "services", "v1", true;
    Node, "nodes", "v1", false;
    EndpointSlice, "endpointslices", "discovery.k8s.io/v1", true;
    Namespace, "namespaces", "v1", false;
    Secret, "secrets", "v1", true;
    ConfigMap, "configmaps", "v1", true;
}

impl Kind {
    /// Is it one of our custom resources?
    #[must_use]
    pub fn is_ours(self) -> bool {
        self.api_version().starts_with(names::GROUP)
    }

    /// Do we write the status of objects of this kind?
    #[must_use]
    pub fn has_our_status(self) -> bool {
        self.is_ours() || self == Self::Service
    }

    /// The kind of this name, whatever its group.
    #[must_use]
    pub fn by_name(kind: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|k| k.as_str() == kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Namespace and name of a namespaced object; orders by namespace, then name. Its text is `namespace/name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacedName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl NamespacedName {
    /// Of these parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Text that is not `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not of the form namespace/name")]
pub struct NamespacedNameError(String);

impl FromStr for NamespacedName {
    type Err = NamespacedNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::new(namespace, name))
            }
            _ => Err(NamespacedNameError(text.to_owned())),
        }
    }
}

/// Which object: kind, namespace and name. Its text is `Kind namespace/name`, or `Kind name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// The kind.
    pub kind: Kind,
    /// The namespace, of namespaced kinds.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl ObjectRef {
    /// An object without namespace.
    pub fn cluster(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, namespace: None, name: name.into() }
    }

    /// An object in a namespace.
    pub fn namespaced(kind: Kind, key: &NamespacedName) -> Self {
        Self { kind, namespace: Some(key.namespace.clone()), name: key.name.clone() }
    }

    /// Namespace and name; the namespace is empty if there is none.
    #[must_use]
    pub fn key(&self) -> NamespacedName {
        NamespacedName::new(self.namespace.clone().unwrap_or_default(), self.name.clone())
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// What a document says about itself, as far as that is legible.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Which object it is.
    pub reference: ObjectRef,
    /// Its `apiVersion`.
    pub api_version: String,
}

impl Object {
    /// Which object it is.
    #[must_use]
    pub fn reference(&self) -> ObjectRef {
        let metadata = self.metadata();
        let kind = self.kind();
        ObjectRef {
            kind,
            namespace: kind
                .is_namespaced()
                .then(|| metadata.namespace.clone().unwrap_or_else(|| "default".to_owned())),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }

    /// Reads kind and name of a document. `None` for kinds that we do not read.
    ///
    /// # Errors
    /// If kind or name cannot be read.
    pub fn header(value: &Value) -> Result<Option<Header>, Box<Problem>> {
        let Value::Object(map) = value else {
            return Err(
                Problem::error("the document is not an object", "start it with apiVersion and kind").into()
            );
        };
        let Some(kind) = map.get("kind").and_then(Value::as_str) else {
            return Err(Problem::error("kind is missing", "say what the document is, for example kind: Eip")
                .at("kind")
                .into());
        };
        let Some(api_version) = map.get("apiVersion").and_then(Value::as_str) else {
            return Err(Problem::error(
                "apiVersion is missing",
                "for example network.kubesphere.io/v1alpha2",
            )
            .at("apiVersion")
            .into());
        };
        let Some(kind) = Kind::by_name(kind) else { return Ok(None) };
        if group(api_version) != group(kind.api_version()) {
            return Ok(None);
        }
        let metadata = |key: &str| map.get("metadata").and_then(|metadata| metadata.get(key));
        let Some(name) = metadata("name").and_then(Value::as_str).filter(|name| !name.is_empty()) else {
            let problem = match metadata("name") {
                None | Some(Value::Null | Value::String(_)) => {
                    Problem::error("metadata.name is missing", "name the object")
                }
                // `name: 1` and `name: no` are a number and a boolean in YAML.
                Some(other) => {
                    Problem::error(format!("metadata.name is {other}, not text"), "put it in quotes")
                }
            };
            return Err(problem.at("metadata.name").into());
        };
        let namespace = kind.is_namespaced().then(|| {
            metadata("namespace")
                .and_then(Value::as_str)
                .filter(|n| !n.is_empty())
                .unwrap_or("default")
                .to_owned()
        });
        Ok(Some(Header {
            reference: ObjectRef { kind, namespace, name: name.to_owned() },
            api_version: api_version.to_owned(),
        }))
    }

    /// Reads an object. `Ok(None)` for kinds that we do not read. A missing `spec` counts as an empty one; an object
    /// of `v1alpha1` is read as `v1alpha2`, as an API server without conversion does.
    ///
    /// # Errors
    /// If the document is not an object of that kind; the problem names the object where it can be read.
    pub fn from_value(mut value: Value) -> Result<Option<Self>, Box<Problem>> {
        let Some(header) = Self::header(&value)? else { return Ok(None) };
        let kind = header.reference.kind;
        if let Value::Object(map) = &mut value {
            map.insert("apiVersion".into(), json!(kind.api_version()));
            if kind.is_ours() && map.get("spec").is_none_or(Value::is_null) {
                map.insert("spec".into(), Value::Object(Map::new()));
            }
            if let (Some(namespace), Some(Value::Object(metadata))) =
                (&header.reference.namespace, map.get_mut("metadata"))
            {
                metadata.insert("namespace".into(), json!(namespace));
            }
        }
        if kind == Kind::Service {
            set_conditions_aside(&mut value);
        }
        // A status that somebody garbled must not make the object unreadable: what was lost is repaired.
        let status = value.as_object_mut().and_then(|map| map.remove("status"));
        let without = value.clone();
        if let (Some(status), Value::Object(map)) = (status, &mut value) {
            map.insert("status".into(), status);
        }
        let object = Self::typed(kind, value).or_else(|first| {
            // Was it the status, or something else?
            Self::typed(kind, without).map_err(|_| first)
        });
        object.map(Some).map_err(|error| unreadable(&error).of(header.reference).into())
    }

    /// The object as JSON, as an API server would return it.
    ///
    /// # Errors
    /// If it cannot be serialised, which would be a defect.
    pub fn to_value(&self) -> Result<Value, serde_json::Error> {
        let mut value = self.typed_value()?;
        if self.kind() == Kind::Service {
            put_conditions_back(&mut value);
        }
        Ok(value)
    }

    /// Fields of `value` that this kind does not know, as paths. Only for our custom resources: the others may be of
    /// a newer Kubernetes.
    #[must_use]
    pub fn unknown_fields(&self, value: &Value) -> Vec<String> {
        let mut unknown = Vec::new();
        if self.kind().is_ours()
            && let Ok(known) = self.to_value()
            && let (Some(given), Some(known)) = (value.get("spec"), known.get("spec"))
        {
            missing("spec", given, known, &mut unknown);
        }
        unknown
    }
}

/// The part of an `apiVersion` before the slash; empty for the core group.
fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Where and why a document is not of its kind's form.
type Unreadable = serde_path_to_error::Error<serde_json::Error>;

fn unreadable(error: &Unreadable) -> Problem {
    let remedy = "correct the value's type; openelbd crds prints every field";
    let problem = Problem::error(format!("cannot be read: {}", error.inner()), remedy);
    match error.path().to_string() {
        path if path == "." => problem,
        path => problem.at(path),
    }
}

/// An API server takes any condition of a Service, and sends a time that nobody set as null. One that cannot be read
/// must not make the addresses unreadable: it is set aside as it is, in an annotation.
fn set_conditions_aside(service: &mut Value) {
    let conditions = service.get_mut("status").and_then(|status| status.get_mut("conditions"));
    let mut aside = Vec::new();
    match conditions {
        None => {}
        Some(Value::Array(list)) => {
            let is_readable = |condition: &Value| Condition::deserialize(condition).is_ok();
            (*list, aside) = std::mem::take(list).into_iter().partition(is_readable);
        }
        Some(other) => *other = Value::Null,
    }
    let Some(Value::Object(metadata)) = service.get_mut("metadata") else { return };
    if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
        annotations.remove(names::annotation::UNREADABLE);
    }
    if aside.is_empty() {
        return;
    }
    let annotations = metadata.entry("annotations").or_insert(Value::Null);
    if annotations.is_null() {
        *annotations = json!({});
    }
    if let Value::Object(annotations) = annotations {
        annotations.insert(names::annotation::UNREADABLE.to_owned(), json!(Value::Array(aside).to_string()));
    }
}

/// The conditions of a Service that could not be read, as they are.
pub(crate) fn conditions_aside(annotation: Option<&str>) -> Vec<Value> {
    annotation.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn put_conditions_back(service: &mut Value) {
    let annotations = service.get_mut("metadata").and_then(|metadata| metadata.get_mut("annotations"));
    let Some(Value::Object(annotations)) = annotations else { return };
    let Some(noted) = annotations.remove(names::annotation::UNREADABLE) else { return };
    let status = service.as_object_mut().map(|map| map.entry("status").or_insert_with(|| json!({})));
    if let Some(Value::Object(status)) = status
        && let Value::Array(list) = status.entry("conditions").or_insert_with(|| json!([]))
    {
        list.extend(conditions_aside(noted.as_str()));
    }
}

fn missing(path: &str, given: &Value, known: &Value, unknown: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (key, value) in given {
                match known.get(key) {
                    Some(known) => missing(&format!("{path}.{key}"), value, known, unknown),
                    None if value.is_null() => {}
                    None => unknown.push(format!("{path}.{key}")),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (index, (given, known)) in given.iter().zip(known).enumerate() {
                missing(&format!("{path}[{index}]"), given, known, unknown);
            }
        }
        _ => {}
    }
}
