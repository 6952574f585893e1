//! `kubectl openelb`: this program under the name `kubectl-openelb`.

use std::{ffi::OsStr, path::Path, time::Duration};

use anyhow::{Context as _, anyhow};
use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use openelb_k8s::{
    index::services::TrafficPolicy,
    object::{Kind, NamespacedName},
};
use serde::Serialize;

use super::{
    Failure, Outcome,
    output::{self, Format},
    standalone::{RuleArguments, duration},
};
use crate::{
    kubectl::{Loaded, Loader, events, reassign, show},
    kubernetes::{self, ClusterArguments},
};

const AFTER_HELP: &str = "\
It acts with your own rights. All but reassign only read; the ClusterRole openelb-viewer has all that they need.
Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// Show what OpenELB does in a cluster, and why
#[derive(Debug, Parser)]
#[command(name = "kubectl openelb", bin_name = "kubectl openelb", version, after_help = AFTER_HELP, max_term_width = 120, subcommand_required = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Explain(Explain),
    /// List Services with their addresses, pools, and who announces them
    Services(Namespaced),
    /// List pools, how full they are, and what is wrong with them
    Pools(Common),
    /// List BGP neighbours with the state of the session of each node
    Peers(Common),
    /// Tell in a few lines who works, what is served, and every problem
    Status(Common),
    /// List what the controller and the speakers reported, the newest last
    Events(Namespaced),
    Reassign(Reassign),
}

/// What every command takes.
#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    cluster: ClusterArguments,
    /// Namespace of controller and speakers.
    #[arg(long, env = "OPENELB_NAMESPACE", default_value = "openelb-system", value_name = "NAMESPACE")]
    openelb_namespace: String,
    #[command(flatten)]
    rules: RuleArguments,
    /// table: for people; json, yaml: with a fixed shape.
    #[arg(short, long, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    output: Format,
}

impl Command {
    fn common(&self) -> &Common {
        match self {
            Self::Explain(arguments) => &arguments.common,
            Self::Services(arguments) | Self::Events(arguments) => &arguments.common,
            Self::Reassign(arguments) => &arguments.common,
            Self::Pools(common) | Self::Peers(common) | Self::Status(common) => common,
        }
    }
}

/// Say which addresses a Service has, from which pool, why, who announces them, and what is missing
///
/// Each pool is named with what stands against it, in the words of the Service's conditions. For example: kubectl
/// openelb explain service shop/web
#[derive(Debug, Args)]
struct Explain {
    /// What to explain.
    #[arg(value_enum)]
    kind: Explainable,
    /// NAMESPACE/NAME, or NAME in the namespace of --namespace.
    name: String,
    /// The namespace [default: that of the kubeconfig's context].
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Explainable {
    /// A Service.
    #[value(alias = "services", alias = "svc")]
    Service,
}

/// Give a Service another address, on purpose
///
/// Writes the annotation openelb.kubesphere.io/reassign, for which you need the right to patch the Service, and waits
/// until the Service shows another address. While there is no other, it keeps the one that it has. For example: kubectl
/// openelb reassign shop/web
#[derive(Debug, Args)]
struct Reassign {
    /// NAMESPACE/NAME, or NAME in the namespace of --namespace.
    name: String,
    /// The namespace [default: that of the kubeconfig's context].
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// How long to wait for the other address; 0s: not at all.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    wait: Duration,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Namespaced {
    /// Only this namespace [default: that of the kubeconfig's context].
    #[arg(short, long, value_name = "NAMESPACE", conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// All namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[command(flatten)]
    common: Common,
}

impl Namespaced {
    /// `None`: all.
    fn of<'a>(&'a self, loader: &'a Loader) -> Option<&'a str> {
        if self.all_namespaces {
            return None;
        }
        Some(self.namespace.as_deref().unwrap_or_else(|| loader.default_namespace()))
    }
}

/// A list, as JSON and YAML.
#[derive(Debug, Serialize)]
struct Items<'a, T> {
    items: &'a [T],
}

/// Is the program called as a plugin of kubectl?
pub(super) fn is_meant(program: Option<&OsStr>) -> bool {
    let name = program.and_then(|program| Path::new(program).file_name()).and_then(OsStr::to_str);
    name.is_some_and(|name| name.starts_with("kubectl-openelb"))
}

pub(super) fn run(cli: &Cli) -> Result<Outcome, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(show(cli))?;
    Ok(Outcome::Done)
}

async fn show(cli: &Cli) -> Result<(), Failure> {
    let named = match &cli.command {
        Command::Explain(arguments) => Some(&arguments.name),
        Command::Reassign(arguments) => Some(&arguments.name),
        _ => None,
    };
    if let Some(name) = named.filter(|name| name.contains('/') && name.parse::<NamespacedName>().is_err()) {
        return Err(Failure::Usage(format!("{name:?} is not of the form NAMESPACE/NAME")));
    }
    let common = cli.command.common();
    let client = kubernetes::client(&common.cluster).await?;
    let loader = Loader::new(client, common.openelb_namespace.clone(), common.rules.class_rules());
    let now = Timestamp::now();
    match &cli.command {
        Command::Explain(explain) => self::explain(&loader, explain, now).await?,
        Command::Services(arguments) => {
            let mut loaded = loader.load(&[Kind::Eip, Kind::Node, Kind::BgpConf, Kind::BgpPeer]).await?;
            loader.add_services(&mut loaded, arguments.of(&loader)).await?;
            loader.add_speakers(&mut loaded).await?;
            let rows = warned(&loaded).picture(now).services();
            print(common.output, &Items { items: &rows }, || show::services(&rows).to_string())?;
        }
        Command::Pools(_) => {
            let rows = warned(&loader.load(&[Kind::Eip]).await?).picture(now).pools();
            print(common.output, &Items { items: &rows }, || show::pools(&rows).to_string())?;
        }
        Command::Peers(_) => {
            let mut loaded = loader.load(&[Kind::BgpPeer]).await?;
            loader.add_speakers(&mut loaded).await?;
            let rows = warned(&loaded).picture(now).peers();
            print(common.output, &Items { items: &rows }, || show::peers(&rows).to_string())?;
        }
        Command::Status(_) => {
            let mut loaded = loader.load(&[Kind::Eip, Kind::Node, Kind::BgpConf, Kind::BgpPeer]).await?;
            loader.add_services(&mut loaded, None).await?;
            loader.add_speakers(&mut loaded).await?;
            loader.add_controller(&mut loaded, now).await?;
            let status = warned(&loaded).picture(now).status();
            print(common.output, &status, || show::status(&status))?;
        }
        Command::Events(arguments) => {
            let rows = events::events(&loader, arguments.of(&loader)).await?;
            print(common.output, &Items { items: &rows }, || show::events(&rows).to_string())?;
        }
        Command::Reassign(arguments) => {
            let key = key(&loader, &arguments.name, arguments.namespace.as_deref());
            let told = reassign::reassign(&loader, &key, arguments.wait, now).await?;
            print(common.output, &told, || told.text())?;
        }
    }
    Ok(())
}

/// NAMESPACE/NAME, or NAME in a namespace.
fn key(loader: &Loader, name: &str, namespace: Option<&str>) -> NamespacedName {
    name.parse().unwrap_or_else(|_| {
        NamespacedName::new(namespace.unwrap_or_else(|| loader.default_namespace()), name)
    })
}

async fn explain(loader: &Loader, explain: &Explain, now: Timestamp) -> anyhow::Result<()> {
    let Explainable::Service = explain.kind;
    let key = key(loader, &explain.name, explain.namespace.as_deref());
    let kinds = [Kind::Eip, Kind::Service, Kind::Namespace, Kind::Node, Kind::BgpConf, Kind::BgpPeer];
    let mut loaded = loader.load(&kinds).await?;
    let local = loaded.indexes.services.get(&key).map(|service| service.traffic_policy);
    if local == Some(TrafficPolicy::Local) {
        loader.add_endpoints(&mut loaded, &key).await?;
    }
    loader.add_speakers(&mut loaded).await?;
    loader.add_controller(&mut loaded, now).await?;
    let service =
        warned(&loaded).picture(now).service(&key).ok_or_else(|| anyhow!("there is no Service {key}"))?;
    print(explain.common.output, &service, || show::service(&service))
}

/// Tells what of the cluster could not be read.
fn warned(loaded: &Loaded) -> &Loaded {
    for problem in &loaded.unreadable {
        eprintln!("warning: {problem}");
    }
    loaded
}

fn print(format: Format, value: &impl Serialize, table: impl FnOnce() -> String) -> anyhow::Result<()> {
    match format {
        Format::Json => output::json(value),
        Format::Yaml => output::yaml(value),
        Format::Table => Ok(output::write(table().as_bytes())?),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::{Cli, is_meant};

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_name_of_the_program_decides() {
        for (name, meant) in [
            ("kubectl-openelb", true),
            ("/usr/local/bin/kubectl-openelb", true),
            ("openelbd", false),
            ("/opt/kubectl-openelb/openelbd", false),
        ] {
            assert_eq!(is_meant(Some(name.as_ref())), meant, "{name}");
        }
        assert!(!is_meant(None));
    }
}
