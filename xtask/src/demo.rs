//! `cargo xtask demo`: builds the daemon and plays the demo.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use openelb_lab::demo;

use crate::{shell, system};

/// See it work: pools, addresses, BGP routes and traffic on this machine, without a cluster.
///
/// Makes a client, a router (BIRD), three nodes and three pods in network namespaces of their own, and shows step by
/// step what OpenELB does. Needs root; installs what is missing from Debian, saying so first. Exit code 0 only if every
/// step held.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Leave everything running at the end, and say how to look at it.
    #[arg(long)]
    keep: bool,
    /// Also write what was seen, with all figures, to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    system::require_root("cargo xtask demo")?;
    system::require("cargo xtask demo", system::LAB)?;
    shell::run(shell::cargo().args([
        "build",
        "--package",
        "openelbd",
        "--package",
        "openelb-lab",
        "--bins",
    ]))
    .context("OpenELB does not build: the compiler says why above; it needs Rust 1.95 or newer (rustc --version)")?;
    let options = demo::Options {
        openelbd: openelb_lab::binary("openelbd")?,
        manifests: shell::root().join("examples/demo"),
        keep: arguments.keep,
    };
    let report = demo::run(&options)?;
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        println!("The figures are in {}.", file.display());
    }
    if report.all_held() {
        return Ok(0);
    }
    println!("Not every step held; each one that did not says why above.");
    println!(
        "Run it again with --keep to look at what is running. Other load on this machine makes it slow."
    );
    Ok(1)
}
