//! cargo-deny: licences, banned crates, sources; advisories where their database can be had.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::Verdict;
use crate::shell;

/// Pinned: a new version may judge differently, and that is a change of its own.
const VERSION: &str = "0.20.2";

pub(super) fn check() -> anyhow::Result<Verdict> {
    let program = program()?;
    let mut warnings = 0;
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        warnings += deny(&program, manifest, &["check", "bans", "licenses", "sources"])?;
    }
    let duplicates = format!("{warnings} crates in several versions");
    let mut fetch = command(&program, "Cargo.toml");
    let fetched =
        fetch.args(["fetch", "db"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if !fetched.status().context("cannot start cargo-deny")?.success() {
        return Ok(Verdict::Good(format!(
            "bans, licenses, sources; {duplicates}; advisories not checked: their database cannot be fetched here"
        )));
    }
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        deny(&program, manifest, &["check", "--disable-fetch", "advisories"])?;
    }
    Ok(Verdict::Good(format!("bans, licenses, sources, advisories; {duplicates}")))
}

fn command(program: &Path, manifest: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(shell::root()).args(["--manifest-path", manifest, "--config", "deny.toml"]);
    command
}

/// Runs cargo-deny, shows what it says if it denies, and counts the crates it found in several versions.
fn deny(program: &Path, manifest: &str, arguments: &[&str]) -> anyhow::Result<usize> {
    let mut command = command(program, manifest);
    command.args(arguments);
    println!("$ {}", shell::shown(&command));
    let output = command.stdin(Stdio::null()).output().context("cannot start cargo-deny")?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        println!("{text}");
        bail!("cargo-deny denies something; deny.toml says what and why");
    }
    Ok(text.lines().filter(|line| line.starts_with("warning[duplicate]")).count())
}

/// The pinned cargo-deny, installed below the target directory if it is not there yet.
fn program() -> anyhow::Result<PathBuf> {
    let tools = shell::target_directory().join("tools");
    let program = tools.join("bin/cargo-deny");
    let installed = |program: &Path| {
        let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
        output.is_ok_and(|output| {
            String::from_utf8_lossy(&output.stdout).trim() == format!("cargo-deny {VERSION}")
        })
    };
    if !installed(&program) {
        println!("installing cargo-deny {VERSION} into {} (a minute or two)", tools.display());
        let build = tools.join("build");
        let mut command = shell::cargo();
        // Not optimised: it builds three times as fast, and a check still takes a second.
        command.args([
            "install",
            "--debug",
            "--locked",
            "--quiet",
            "--force",
            "--version",
            VERSION,
            "cargo-deny",
        ]);
        command.arg("--root").arg(&tools).arg("--target-dir").arg(&build);
        shell::run(&mut command)?;
        std::fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))?;
    }
    if !installed(&program) {
        bail!("{} is not cargo-deny {VERSION}", program.display());
    }
    Ok(program)
}
