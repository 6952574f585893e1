//! What `cargo metadata` and `rustc` know about a workspace.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde::Deserialize;

use crate::shell;

/// `cargo metadata`'s document, as far as it is used here.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
    pub(crate) manifest_path: PathBuf,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// None is a normal dependency, else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
}

/// Reads the metadata of the workspace, or of another manifest.
pub(crate) fn read(manifest: Option<&Path>, arguments: &[&str]) -> anyhow::Result<Metadata> {
    let mut command = shell::cargo();
    command.args(["metadata", "--format-version=1", "--quiet"]).args(arguments);
    if let Some(manifest) = manifest {
        command.arg("--manifest-path").arg(manifest);
    }
    serde_json::from_str(&shell::capture(&mut command)?).context("cargo metadata printed something else")
}

/// The triple of this machine, for example `x86_64-unknown-linux-gnu`.
pub(crate) fn host() -> anyhow::Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let text = shell::capture(Command::new(rustc).arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}
