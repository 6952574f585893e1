//! `openelbd version`.

use clap::Args;
use serde::Serialize;

use super::{
    Failure, Outcome,
    output::{self, Format},
};

/// Print the version
///
/// The same as --version. For example: openelbd version -o json
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// table: a line; json, yaml: {version}.
    #[arg(short, long, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let report = Report { version: env!("CARGO_PKG_VERSION") };
    match arguments.output {
        Format::Table => output::write(format!("openelbd {}\n", report.version).as_bytes())?,
        Format::Json => output::json(&report)?,
        Format::Yaml => output::yaml(&report)?,
    }
    Ok(Outcome::Done)
}
