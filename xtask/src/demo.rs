//! `cargo xtask demo`: builds the daemon and plays the demo.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use openelb_lab::demo;

use crate::{kube, shell, system};

/// See it work: pools, addresses, BGP routes and traffic on this machine, without a cluster or (`--kube`) on one.
///
/// Makes a client, a router (BIRD), three nodes and three pods in network namespaces of their own, and shows step by
/// step what OpenELB does. Needs root; installs what is missing from Debian, saying so first. Exit code 0 only if every
/// step held.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// On a real Kubernetes: etcd, API server, controller manager and kube-proxy, with two controllers and three speakers.
    /// Needs Go, and minutes the first time, to build them.
    #[arg(long)]
    kube: bool,
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
    let control_plane = arguments.kube.then(kube::start).transpose()?;
    shell::run(shell::cargo().args([
        "build",
        "--package",
        "openelbd",
        "--package",
        "openelb-lab",
        "--bins",
    ]))
    .context("OpenELB does not build: the compiler says why above; it needs Rust 1.95 or newer (rustc --version)")?;
    if let Some(build) = control_plane {
        build.finish()?;
    }
    let options = demo::Options {
        openelbd: openelb_lab::binary("openelbd")?,
        manifests: shell::root().join("examples/demo"),
        keep: arguments.keep,
    };
    let report = if arguments.kube { demo::run_on_kubernetes(&options)? } else { demo::run(&options)? };
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
