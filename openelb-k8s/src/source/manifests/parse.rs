//! One file: documents to objects and problems.

use std::path::Path;

use serde_json::Value;

use super::Document;
use crate::names::VERSION_V1ALPHA1;
use crate::object::{Header, Kind, Object, ObjectRef};
use crate::problem::Problem;

/// What one file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ParsedFile {
    /// Usable documents.
    pub(super) documents: Vec<Document>,
    /// Documents whose object is known, but that cannot be used.
    pub(super) unreadable: Vec<(ObjectRef, Problem)>,
    /// Everything that is wrong, with its place; holds those of `unreadable` too.
    pub(super) problems: Vec<Problem>,
    /// Some document could not even be attributed to an object.
    pub(super) illegible: bool,
}

/// A stretch of the file.
struct Chunk<'a> {
    text: std::borrow::Cow<'a, str>,
    document: usize,
    line: usize,
}

pub(super) fn parse_file(file: &Path, text: &str) -> ParsedFile {
    let mut parsed = ParsedFile::default();
    for chunk in split(text) {
        let place = Place { file, document: chunk.document, line: chunk.line, text: &chunk.text };
        match read(&chunk.text) {
            Ok(Value::Null) => {}
            Ok(value) => document(&place, value, &mut parsed),
            Err(error) => {
                let within = error.location().map_or(1, |l| usize::try_from(l.line()).unwrap_or(1).max(1));
                let place = Place { line: chunk.line + within - 1, ..place };
                let message = error.without_snippet().to_string();
                let problem = Problem::error(
                    format!("is not valid YAML: {}", message.lines().next().unwrap_or_default()),
                    "correct the file; until then the last good version stays in force",
                );
                match scan_header(&chunk.text) {
                    Some(reference) => place.unreadable(reference, problem, &mut parsed),
                    None => {
                        parsed.illegible = true;
                        place.report(problem, &mut parsed);
                    }
                }
            }
        }
    }
    parsed
}

/// Splits at document markers. A line that starts with `---` at its first column is one everywhere in YAML.
fn split(text: &str) -> Vec<Chunk<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut chunks = Vec::new();
    let mut current: Option<(usize, String)> = None;
    let mut number = 0;
    let mut flush = |current: Option<(usize, String)>, number: &mut usize| {
        let Some((line, text)) = current else { return };
        let blank = |line: &str| {
            line.trim().is_empty() || line.trim_start().starts_with('#') || line.starts_with('%')
        };
        if text.lines().all(blank) {
            return;
        }
        *number += 1;
        chunks.push(Chunk { text: text.into(), document: *number, line });
    };
    for (index, line) in text.lines().enumerate() {
        let marker = |marker: &str| {
            line.strip_prefix(marker).filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r']))
        };
        if let Some(rest) = marker("---") {
            flush(current.take(), &mut number);
            current = Some((index + 1, format!("{rest}\n")));
        } else if marker("...").is_some() {
            flush(current.take(), &mut number);
        } else {
            let (_, text) = current.get_or_insert_with(|| (index + 1, String::new()));
            text.push_str(line);
            text.push('\n');
        }
    }
    flush(current, &mut number);
    chunks
}

fn read(text: &str) -> Result<Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options)
}

#[derive(Clone, Copy)]
struct Place<'a> {
    file: &'a Path,
    document: usize,
    line: usize,
    text: &'a str,
}

impl Place<'_> {
    fn locate(&self, mut problem: Problem) -> Problem {
        problem.file = Some(self.file.to_path_buf());
        problem.document = Some(self.document);
        problem.line = Some(self.line + problem.field.as_deref().map_or(0, |field| self.offset(field)));
        problem
    }

    /// How many lines into the document a field stands: where its last name is first a key.
    fn offset(&self, field: &str) -> usize {
        let name = field.rsplit('.').next().unwrap_or_default();
        let name = name.split('[').next().unwrap_or_default();
        let is_key = |line: &str| {
            let line = line.trim_start().trim_start_matches("- ").trim_start_matches('"');
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with([':', '"']))
        };
        self.text.lines().position(is_key).unwrap_or(0)
    }

    fn report(&self, problem: Problem, parsed: &mut ParsedFile) {
        parsed.problems.push(self.locate(problem));
    }

    fn unreadable(&self, reference: ObjectRef, problem: Problem, parsed: &mut ParsedFile) {
        let problem = self.locate(problem.of(reference.clone()));
        parsed.problems.push(problem.clone());
        parsed.unreadable.push((reference, problem));
    }
}

fn document(place: &Place<'_>, mut value: Value, parsed: &mut ParsedFile) {
    let is_list = value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
    if is_list && let Some(Value::Array(items)) = value.get_mut("items") {
        for item in std::mem::take(items) {
            document(place, item, parsed);
        }
        return;
    }
    let header = match Object::header(&value) {
        Ok(Some(header)) => header,
        Ok(None) => {
            let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
            let api = value.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
            let (cause, remedy) = match Kind::by_name(kind) {
                Some(known) => (
                    format!("{kind} of {api} is not used"),
                    format!("write apiVersion: {}", known.api_version()),
                ),
                None => (format!("kind {kind} is not used"), "keep it elsewhere".to_owned()),
            };
            place.report(Problem::warning(cause, remedy).at("kind"), parsed);
            return;
        }
        Err(problem) => {
            parsed.illegible = true;
            place.report(*problem, parsed);
            return;
        }
    };
    if let Err(problem) = check_header(&header) {
        place.unreadable(header.reference, *problem, parsed);
        return;
    }
    if header.api_version.ends_with(VERSION_V1ALPHA1) {
        let problem = Problem::warning(
            format!("apiVersion {} is deprecated", header.api_version),
            format!("write {}", header.reference.kind.api_version()),
        );
        place.report(problem.at("apiVersion").of(header.reference.clone()), parsed);
        crate::crd::v1alpha1::convert(header.reference.kind, &mut value);
    }
    strip(header.reference.kind, &mut value);
    let given = value.clone();
    match Object::from_value(value) {
        Ok(Some(object)) => {
            let unknown = object.unknown_fields(&given);
            if let Some(field) = unknown.first() {
                let problem = Problem::error(
                    format!(
                        "unknown field{} {}",
                        if unknown.len() > 1 { "s" } else { "" },
                        unknown.join(", ")
                    ),
                    "correct the name; openelbd crds prints every field",
                );
                place.unreadable(header.reference, problem.at(field.clone()), parsed);
            } else {
                parsed.documents.push(Document {
                    file: place.file.to_path_buf(),
                    document: place.document,
                    line: place.line,
                    object,
                });
            }
        }
        Ok(None) => {}
        Err(problem) => place.unreadable(header.reference, *problem, parsed),
    }
}

/// Names must be what an API server would accept; they become names of files.
fn check_header(header: &Header) -> Result<(), Box<Problem>> {
    let bad = |name: &str| {
        name.is_empty()
            || name.len() > 253
            || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
            || name.starts_with(['-', '.'])
            || name.ends_with(['-', '.'])
    };
    let remedy = "use lower-case letters, digits, '-' and '.'";
    if bad(&header.reference.name) {
        let cause = format!("{:?} is not a valid name", header.reference.name);
        return Err(Problem::error(cause, remedy).at("metadata.name").into());
    }
    if let Some(namespace) = header.reference.namespace.as_deref().filter(|namespace| bad(namespace)) {
        let cause = format!("{namespace:?} is not a valid namespace");
        return Err(Problem::error(cause, remedy).at("metadata.namespace").into());
    }
    Ok(())
}

/// Takes out what an API server sets itself.
fn strip(kind: Kind, value: &mut Value) {
    let Value::Object(map) = value else { return };
    if kind.has_our_status() {
        map.remove("status");
    }
    if let Some(Value::Object(metadata)) = map.get_mut("metadata") {
        for key in [
            "resourceVersion",
            "uid",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "managedFields",
            "selfLink",
        ] {
            metadata.remove(key);
        }
    }
}

/// Kind and name of a document that is not valid YAML, where they stand on lines of their own.
fn scan_header(text: &str) -> Option<ObjectRef> {
    let value = |line: &str, key: &str| {
        let rest = line.strip_prefix(key)?.strip_prefix(':')?;
        let rest = rest.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
        (!rest.is_empty()).then(|| rest.to_owned())
    };
    let kind = text.lines().find_map(|line| value(line, "kind")).and_then(|kind| Kind::by_name(&kind))?;
    let mut metadata = text.lines().skip_while(|line| line.trim_end() != "metadata:").skip(1);
    let (mut name, mut namespace, mut indent) = (None, None, None);
    for line in metadata.by_ref().take_while(|line| line.starts_with(' ') || line.trim().is_empty()) {
        let depth = line.len() - line.trim_start().len();
        if line.trim().is_empty() || depth != *indent.get_or_insert(depth) {
            continue;
        }
        name = name.or_else(|| value(line.trim_start(), "name"));
        namespace = namespace.or_else(|| value(line.trim_start(), "namespace"));
    }
    let namespace = kind.is_namespaced().then(|| namespace.unwrap_or_else(|| "default".to_owned()));
    name.map(|name| ObjectRef { kind, namespace, name })
}
