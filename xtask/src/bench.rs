//! `cargo xtask bench`: builds the benches and runs them.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context;
use clap::Args;

use crate::{metallb, shell, system};

/// Measure OpenELB beside its peers, on this machine, in this run.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Suites to run, or `all`; without any, the list of them.
    suites: Vec<String>,
    /// Also write machine, rows and verdicts to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write the tables into this file of the manual, where it has room for the suite: docs/src/benchmarks.md has it
    /// for `kube`.
    #[arg(long, value_name = "FILE", conflicts_with = "smoke")]
    write_docs: Option<PathBuf>,
    /// Seconds instead of minutes, without optimisation: fails when a bench panics or measures nothing, judges no target.
    #[arg(long)]
    smoke: bool,
    /// Rounds of each measurement, of which the best counts [default: 9, with --smoke 2].
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Only the part of this name, for example `one more`.
    #[arg(long, value_name = "NAME")]
    part: Option<String>,
    /// Only this many Services (suite `kube`): one of the sizes that it measures.
    #[arg(long, value_name = "N")]
    services: Option<u16>,
    /// Also measure MetalLB where it does the same (suite `kube`): it is built from its Go module into `target/metallb`,
    /// which takes minutes the first time.
    #[arg(long)]
    with_peers: bool,
}

impl Arguments {
    /// `--smoke` for everything.
    pub(crate) fn smoke() -> Self {
        Self {
            suites: vec!["all".into()],
            json: None,
            write_docs: None,
            smoke: true,
            rounds: None,
            part: None,
            services: None,
            with_peers: false,
        }
    }
}

/// The exit code is the runner's: 0 every judged target is met, 1 not, 2 nothing to measure yet.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    if arguments.suites.iter().any(|suite| suite == "bgp" || suite == "all") {
        system::require("cargo xtask bench", system::BGP_PEERS)?;
    }
    let wants = |name: &str| arguments.suites.iter().any(|suite| suite == name || suite == "all");
    if wants("kube") {
        crate::kube::start()?.finish()?;
    }
    let lab = wants("standalone") || wants("kube") || wants("l2");
    if wants("l2") {
        system::require("cargo xtask bench", &[system::KEEPALIVED])?;
    }
    if lab {
        system::require("cargo xtask bench", system::LAB)?;
    }
    let metallb = (arguments.with_peers && wants("kube")).then(metallb::build).transpose()?;
    // In one go: what they share is built once.
    let mut build = shell::cargo();
    build.args(["build", "--package", "openelb-benches", "--bins"]);
    if lab {
        build.args(["--package", "openelbd", "--package", "openelb-lab"]);
    }
    if !arguments.smoke {
        build.arg("--release");
    }
    shell::run(&mut build)?;
    let profile = if arguments.smoke { "debug" } else { "release" };
    let mut command = Command::new(shell::target_directory().join(profile).join("openelb-benches"));
    command.current_dir(shell::root());
    if let Some(directory) = metallb {
        command.env("OPENELB_BENCH_METALLB", directory);
    }
    command.args(&arguments.suites);
    if let Some(path) = &arguments.json {
        command.arg("--json").arg(std::path::absolute(path)?);
    }
    if let Some(path) = &arguments.write_docs {
        command.arg("--write-docs").arg(std::path::absolute(path)?);
    }
    if arguments.smoke {
        command.arg("--smoke");
    }
    if let Some(rounds) = arguments.rounds {
        command.arg("--rounds").arg(rounds.to_string());
    }
    if let Some(part) = &arguments.part {
        command.arg("--part").arg(part);
    }
    if let Some(services) = arguments.services {
        command.arg("--services").arg(services.to_string());
    }
    println!("$ {}", shell::shown(&command));
    let status = command.stdin(Stdio::null()).status().context("cannot start openelb-benches")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
