//! `openelbd plan`.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use jiff::Timestamp;
use openelb_k8s::{
    index::{EipView, Indexes, ServiceView},
    names::condition,
    source::manifests,
};
use serde::Serialize;

use super::{
    Failure, Outcome,
    output::{self, Format, Table},
    standalone::RuleArguments,
    validate,
};
use crate::offline::{self, World};

/// Print what the pools would give these Services, and why
///
/// Opens no socket and writes nothing. Exit code 0 also if some Service would wait; 1 if and only if "openelbd
/// validate" with the same state would fail. For example: openelbd plan --manifests manifests/ --state /var/lib/openelb
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A file, or a directory with YAML files.
    #[arg(long, value_name = "DIR")]
    manifests: PathBuf,
    /// The state directory of "openelbd standalone": what is assigned already stays. It is only read.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(flatten)]
    rules: RuleArguments,
    /// table: for people; json, yaml: {services: [...], pools: [...]}.
    #[arg(short, long, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    output: Format,
}

/// What is printed as JSON and YAML; the shape is fixed.
#[derive(Debug, Serialize)]
struct Report {
    services: Vec<ServiceReport>,
    pools: Vec<PoolReport>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceReport {
    namespace: String,
    name: String,
    addresses: Vec<String>,
    pools: Vec<String>,
    reason: String,
    message: String,
    request_honoured: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PoolReport {
    name: String,
    usage: i64,
    pool_size: i64,
    conditions: Vec<ConditionReport>,
}

#[derive(Debug, Serialize)]
struct ConditionReport {
    r#type: String,
    status: String,
    reason: String,
    message: String,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    for path in std::iter::once(&arguments.manifests).chain(&arguments.state) {
        if let Err(error) = std::fs::metadata(path) {
            return Err(Failure::Other(anyhow!("{}: {error}", path.display())));
        }
    }
    let loaded = manifests::load(&arguments.manifests);
    let stored = offline::stored(arguments.state.as_deref());
    let problems = validate::problems(&loaded, &stored);
    for problem in &problems {
        eprintln!(
            "{}: {problem}",
            if problem.severity == openelb_k8s::problem::Severity::Error { "error" } else { "warning" }
        );
    }
    let mut world = World::new(&loaded, stored, arguments.rules.class_rules(), Timestamp::now());
    world.settle(Timestamp::now())?;
    let report = report(world.indexes());
    match arguments.output {
        Format::Json => output::json(&report)?,
        Format::Yaml => output::yaml(&report)?,
        Format::Table => output::write(table(&report).as_bytes())?,
    }
    Ok(Outcome::from_ok(validate::errors(&problems) == 0))
}

fn report(indexes: &Indexes) -> Report {
    let services = indexes.services.ours();
    Report {
        services: services.map(|service| service_report(service, indexes)).collect(),
        pools: indexes.pools.iter().map(pool_report).collect(),
    }
}

fn service_report(service: &ServiceView, indexes: &Indexes) -> ServiceReport {
    let find = |kind: &str| service.conditions.iter().find(|condition| condition.type_ == kind);
    let assigned = find(condition::ADDRESS_ASSIGNED);
    let addresses = service.published();
    let mut pools: Vec<String> = Vec::new();
    for address in &addresses {
        let pool = indexes.pools.iter().find(|pool| pool.is_held_by(*address, &service.key));
        if let Some(pool) = pool.filter(|pool| !pools.contains(&pool.name)) {
            pools.push(pool.name.clone());
        }
    }
    ServiceReport {
        namespace: service.key.namespace.clone(),
        name: service.key.name.clone(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        pools,
        reason: assigned.map(|condition| condition.reason.to_string()).unwrap_or_default(),
        message: assigned.map(|condition| condition.message.to_string()).unwrap_or_default(),
        request_honoured: find(condition::REQUEST_HONOURED)
            .is_some_and(|condition| condition.status == "True"),
    }
}

fn pool_report(pool: &EipView) -> PoolReport {
    let conditions = pool.status.conditions.iter().flatten().map(|condition| ConditionReport {
        r#type: condition.type_.clone(),
        status: condition.status.clone(),
        reason: condition.reason.clone(),
        message: condition.message.clone(),
    });
    PoolReport {
        name: pool.name.clone(),
        usage: pool.status.usage.unwrap_or_default(),
        pool_size: pool.status.pool_size.unwrap_or_default(),
        conditions: conditions.collect(),
    }
}

fn table(report: &Report) -> String {
    let mut services = Table::new(["NAMESPACE", "SERVICE", "ADDRESSES", "POOLS", "REASON", "MESSAGE"]);
    for service in &report.services {
        services.row([
            service.namespace.clone(),
            service.name.clone(),
            service.addresses.join(","),
            service.pools.join(","),
            service.reason.clone(),
            service.message.clone(),
        ]);
    }
    let mut pools = Table::new(["POOL", "USED", "SIZE", "CONDITIONS"]);
    for pool in &report.pools {
        let conditions = pool.conditions.iter().map(|c| format!("{}={}({})", c.r#type, c.status, c.reason));
        pools.row([
            pool.name.clone(),
            pool.usage.to_string(),
            pool.pool_size.to_string(),
            conditions.collect::<Vec<_>>().join(" "),
        ]);
    }
    format!("{services}\n{pools}")
}
