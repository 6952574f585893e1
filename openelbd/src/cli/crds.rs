//! `openelbd crds`.

use anyhow::Context as _;
use clap::Args;
use openelb_k8s::crd;

use super::{
    Failure, Outcome,
    output::{self, Format, Table},
};

/// Print the CustomResourceDefinitions
///
/// For example: openelbd crds | kubectl apply --server-side -f -
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// yaml: one document for each definition; json: a List; table: their names.
    #[arg(short, long, value_enum, default_value_t = Format::Yaml, value_name = "FORMAT")]
    output: Format,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let all = crd::all();
    match arguments.output {
        Format::Yaml => {
            let mut text = String::new();
            for definition in &all {
                text.push_str("---\n");
                let yaml = crd::to_yaml(definition).context("cannot print the definitions")?;
                text.push_str(yaml.trim_end());
                text.push('\n');
            }
            output::write(text.as_bytes())?;
        }
        Format::Json => {
            let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": all});
            output::json(&list)?;
        }
        Format::Table => {
            let mut table = Table::new(["NAME", "KIND", "SCOPE", "VERSIONS"]);
            for definition in &all {
                let versions = definition.spec.versions.iter().map(|version| version.name.as_str());
                table.row([
                    definition.metadata.name.clone().unwrap_or_default(),
                    definition.spec.names.kind.clone(),
                    definition.spec.scope.clone(),
                    versions.collect::<Vec<_>>().join(","),
                ]);
            }
            output::write(table.to_string().as_bytes())?;
        }
    }
    Ok(Outcome::Done)
}
