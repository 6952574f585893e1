//! `openelbd validate`.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use openelb_k8s::{
    index::services::ClassRules,
    object::Object,
    problem::{Problem, Severity},
    source::manifests,
};
use serde::Serialize;

use super::{
    Failure, Outcome,
    output::{self, Format},
};
use crate::{offline, unsupported};

/// Check manifests: every error with file, object, field and remedy
///
/// Exit code 1 if there is any error; warnings (settings without effect in this version, deprecated versions) do not
/// count. For example: openelbd validate -f manifests/
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A file, or a directory with YAML files.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR", required = true)]
    path: PathBuf,
    /// The state directory of "openelbd standalone": an Eip that loses addresses which are in use is an error. It is
    /// only read.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// table: a line for each problem; json, yaml: {problems: [...], errors, warnings}.
    #[arg(short, long, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    output: Format,
}

/// What is printed as JSON and YAML.
#[derive(Debug, Serialize)]
struct Report {
    problems: Vec<Entry>,
    errors: usize,
    warnings: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    severity: &'static str,
    file: Option<PathBuf>,
    document: Option<usize>,
    line: Option<usize>,
    kind: Option<&'static str>,
    namespace: Option<String>,
    name: Option<String>,
    field: Option<String>,
    cause: String,
    remedy: String,
}

impl From<&Problem> for Entry {
    fn from(problem: &Problem) -> Self {
        let object = problem.object.as_ref();
        Self {
            severity: severity(problem),
            file: problem.file.clone(),
            document: problem.document,
            line: problem.line,
            kind: object.map(|object| object.kind.as_str()),
            namespace: object.and_then(|object| object.namespace.clone()),
            name: object.map(|object| object.name.clone()),
            field: problem.field.clone(),
            cause: problem.cause.clone(),
            remedy: problem.remedy.clone(),
        }
    }
}

fn severity(problem: &Problem) -> &'static str {
    match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

/// Everything that is wrong with what was loaded, beside what is stored, and what of it has no effect in this version.
pub(super) fn problems(loaded: &manifests::Loaded, stored: &[Object]) -> Vec<Problem> {
    let mut problems = openelb_k8s::validate::validate_beside(loaded, &ClassRules::default(), stored);
    for document in &loaded.documents {
        let object = document.object.reference();
        for note in unsupported::notes(&document.object) {
            let mut problem = Problem::warning(note.cause, note.remedy).at(note.field).of(object.clone());
            problem.file = Some(document.file.clone());
            problem.document = Some(document.document);
            problem.line = Some(document.line);
            problems.push(problem);
        }
    }
    problems.sort_by(|a, b| {
        (&a.file, a.document, a.severity, &a.field).cmp(&(&b.file, b.document, b.severity, &b.field))
    });
    problems
}

/// How many of them make `validate` fail.
pub(super) fn errors(problems: &[Problem]) -> usize {
    problems.iter().filter(|problem| problem.severity == Severity::Error).count()
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    for path in std::iter::once(&arguments.path).chain(&arguments.state) {
        if let Err(error) = std::fs::metadata(path) {
            return Err(Failure::Other(anyhow!("{}: {error}", path.display())));
        }
    }
    let loaded = manifests::load(&arguments.path);
    let problems = problems(&loaded, &offline::stored(arguments.state.as_deref()));
    let errors = errors(&problems);
    let report = Report {
        problems: problems.iter().map(Entry::from).collect(),
        errors,
        warnings: problems.len() - errors,
    };
    match arguments.output {
        Format::Json => output::json(&report)?,
        Format::Yaml => output::yaml(&report)?,
        Format::Table => {
            let mut text = String::new();
            for problem in &problems {
                text.push_str(&format!("{}: {problem}\n", severity(problem)));
            }
            let documents = loaded.documents.len();
            text.push_str(&format!(
                "{documents} objects read, {errors} errors, {} warnings\n",
                report.warnings
            ));
            output::write(text.as_bytes())?;
        }
    }
    Ok(Outcome::from_ok(errors == 0))
}
