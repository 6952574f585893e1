//! `openelbd rights`.

use anyhow::Context as _;
use clap::Args;
use openelb_k8s::rights::{Account, Scope};

use super::{
    Failure, Outcome,
    output::{self, Format, Table},
};

/// Print what each program may do at the API server, and what for
///
/// The roles of the installation are these. For example: openelbd rights -o table
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// yaml: ClusterRoles and Roles, one document each; json: a List; table: each right with its reason.
    #[arg(short, long, value_enum, default_value_t = Format::Yaml, value_name = "FORMAT")]
    output: Format,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let roles: Vec<_> = Account::ALL.into_iter().flat_map(Account::roles).collect();
    match arguments.output {
        Format::Yaml => {
            let mut text = String::new();
            for role in &roles {
                let yaml = serde_saphyr::to_string(role).context("cannot print the roles")?;
                text.push_str("---\n");
                text.push_str(yaml.trim_end());
                text.push('\n');
            }
            output::write(text.as_bytes())?;
        }
        Format::Json => {
            output::json(&serde_json::json!({"apiVersion": "v1", "kind": "List", "items": roles}))?;
        }
        Format::Table => {
            let mut table = Table::new(["ACCOUNT", "SCOPE", "GROUP", "RESOURCES", "VERBS", "WHAT FOR"]);
            for (account, right) in Account::ALL
                .into_iter()
                .flat_map(|account| account.rights().iter().map(move |r| (account, r)))
            {
                table.row([
                    account.name(),
                    if right.scope == Scope::Cluster { "cluster" } else { "namespace" },
                    right.group,
                    &right.resources.join(","),
                    &right.verbs.join(","),
                    right.why,
                ]);
            }
            output::write(table.to_string().as_bytes())?;
        }
    }
    Ok(Outcome::Done)
}
