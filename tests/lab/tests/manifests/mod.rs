//! The manifests of `tests/compat`, and the list of what they must have.
#![allow(dead_code, reason = "not every test uses all of it")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use openelb_lab::{binary, kube::ControlPlane};
use serde_json::Value;

/// `tests/compat`.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../compat")
}

/// The manifests of a directory in it, by their paths from there.
pub(crate) fn files(sub: &str) -> Vec<String> {
    let entries = std::fs::read_dir(directory().join(sub)).unwrap();
    let mut files: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml"))
        .map(|name| if sub.is_empty() { name } else { format!("{sub}/{name}") })
        .collect();
    files.sort();
    files
}

/// The text of a manifest.
pub(crate) fn read(file: &str) -> String {
    std::fs::read_to_string(directory().join(file)).unwrap()
}

/// Its documents.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    text.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

/// What an API server has in the place of a document, in the document's version.
pub(crate) fn get(kube: &ControlPlane, document: &Value) -> anyhow::Result<Value> {
    let kind = document["kind"].as_str().unwrap().to_lowercase();
    let resource = match document["apiVersion"].as_str().unwrap().split_once('/') {
        Some((group, version)) => format!("{kind}.{version}.{group}"),
        None => kind,
    };
    let metadata = &document["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or_default();
    let of_cluster = document["apiVersion"].as_str().unwrap().starts_with("network.kubesphere.io/")
        || matches!(document["kind"].as_str(), Some("Node" | "Namespace"));
    let namespace = if of_cluster || !namespace.is_empty() { namespace } else { "default" };
    kube.get(&resource, namespace, metadata["name"].as_str().unwrap())
}

/// Is everything of `part` in `whole`? Lists are equal. `Err` says where not.
pub(crate) fn is_within(part: &Value, whole: &Value) -> Result<(), String> {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part.iter().try_for_each(|(key, value)| {
            is_within(value, whole.get(key).unwrap_or(&Value::Null)).map_err(|path| format!("/{key}{path}"))
        }),
        (Value::Array(part), Value::Array(whole)) if part.len() == whole.len() => {
            part.iter().zip(whole).enumerate().try_for_each(|(index, (part, whole))| {
                is_within(part, whole).map_err(|path| format!("/{index}{path}"))
            })
        }
        (part, whole) if part == whole => Ok(()),
        (part, whole) => Err(format!(": {part} is {whole}")),
    }
}

/// Has a value this path (`*` is any key or index), with this text at its end?
pub(crate) fn meets(value: &Value, path: &[&str], text: Option<&str>) -> bool {
    let Some((first, rest)) = path.split_first() else {
        return match (text, value) {
            (None, value) => !value.is_null(),
            (Some(text), Value::String(value)) => value == text,
            (Some(text), value) => text == value.to_string().as_str(),
        };
    };
    match value {
        Value::Object(map) if *first == "*" => map.values().any(|value| meets(value, rest, text)),
        Value::Array(list) if *first == "*" => list.iter().any(|value| meets(value, rest, text)),
        Value::Object(map) => map.get(*first).is_some_and(|value| meets(value, rest, text)),
        _ => false,
    }
}

/// The fields that `openelbd validate` finds errors in.
pub(crate) fn validation_errors(kube: &ControlPlane, path: &Path) -> BTreeSet<String> {
    let program = binary("openelbd").unwrap();
    let command = [program.to_str().unwrap(), "validate", "-f", path.to_str().unwrap(), "-o", "json"];
    let output = kube.lab().command(kube.host(), &command).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let problems = report["problems"].as_array().unwrap();
    let errors = problems.iter().filter(|problem| problem["severity"] == "error");
    let fields: BTreeSet<String> =
        errors.map(|problem| problem["field"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(output.status.success(), fields.is_empty(), "{report:#}");
    fields
}

/// A condition of an object; null if there is none.
pub(crate) fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|c| c["type"] == kind).cloned().unwrap_or_default()
}

/// `contract.txt`.
pub(crate) struct Contract(Vec<String>);

impl Contract {
    /// Reads it.
    pub(crate) fn read() -> Self {
        let text = std::fs::read_to_string(directory().join("contract.txt")).unwrap();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(str::to_owned).collect())
    }

    /// The lines that begin with this word and that no object meets.
    pub(crate) fn unmet(&self, word: &str, objects: &[Value]) -> Vec<String> {
        let lines = self.0.iter().filter(|line| line.split(' ').next() == Some(word));
        lines.filter(|line| !objects.iter().any(|object| line_is_met(line, object))).cloned().collect()
    }

    /// The cases.
    pub(crate) fn cases(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|line| line.strip_prefix("case "))
    }
}

fn line_is_met(line: &str, object: &Value) -> bool {
    let (path, text) = match line.split_once(" = ") {
        Some((path, text)) => (path, Some(text)),
        None => (line, None),
    };
    let words: Vec<&str> = path.split(' ').collect();
    object["kind"] == words[1] && meets(object, &words[2..], text)
}
