//! What is wrong with an input, where, and what to do about it.

use std::fmt;
use std::path::PathBuf;

use crate::object::ObjectRef;

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The input is used, but probably not as it was meant.
    Warning,
    /// The input, or the part of it that is named, is not used.
    Error,
}

/// What is wrong with an input: where it stands, which object and field it is, the cause, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file it stands in, if it came from one.
    pub file: Option<PathBuf>,
    /// The document in the file, from 1.
    pub document: Option<usize>,
    /// The line in the file, from 1.
    pub line: Option<usize>,
    /// The object, as far as it could be read.
    pub object: Option<ObjectRef>,
    /// The field: a path such as `spec.address`.
    pub field: Option<String>,
    /// What is wrong.
    pub cause: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    /// An error without a place yet.
    #[must_use]
    pub fn error(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: None,
            document: None,
            line: None,
            object: None,
            field: None,
            cause: cause.into(),
            remedy: remedy.into(),
        }
    }

    /// A warning without a place yet.
    #[must_use]
    pub fn warning(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(cause, remedy) }
    }

    /// Says which field it is.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Says which object it is.
    #[must_use]
    pub fn of(mut self, object: ObjectRef) -> Self {
        self.object = Some(object);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}", file.display())?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            if let Some(document) = self.document {
                write!(f, " (document {document})")?;
            }
            f.write_str(": ")?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.cause)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
