//! `cargo xtask dist`: the program as one runs it on a node.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;

use crate::{metadata, shell, system};

/// Build the release binary: static, for any Linux of this architecture, with its SHA-256, into target/dist.
///
/// Beside it is a link `kubectl-openelb`: under that name it is a plugin of kubectl.
#[derive(Debug, Args)]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments) -> anyhow::Result<u8> {
    system::require("cargo xtask dist", &[system::MAKE])?;
    let host = metadata::host()?;
    let build = shell::target_directory().join("static");
    // `--target` keeps the flags from build scripts and proc macros, which cannot be static.
    let mut command = shell::cargo();
    command
        .args(["build", "--release", "--locked", "--package", "openelbd", "--target", &host])
        .arg("--target-dir")
        .arg(&build)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    shell::run(&mut command)?;

    let directory = shell::target_directory().join("dist");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let name = format!("openelbd-{}-{host}", env!("CARGO_PKG_VERSION"));
    let program = directory.join(&name);
    std::fs::copy(build.join(&host).join("release/openelbd"), &program)
        .with_context(|| format!("cannot write {}", program.display()))?;
    check_static(&program)?;
    let version = shell::capture(Command::new(&program).arg("--version"))?;
    link_plugin(&directory, &name)?;

    let sum = shell::capture(Command::new("sha256sum").current_dir(&directory).arg(&name))?;
    let sums = directory.join("SHA256SUMS");
    std::fs::write(&sums, &sum).with_context(|| format!("cannot write {}", sums.display()))?;
    let size = std::fs::metadata(&program)?.len();
    println!("{}", program.display());
    println!("  {}, {}.{} MB, static", version.trim(), size / 1_000_000, size / 100_000 % 10);
    println!("  {}", sum.trim());
    Ok(0)
}

/// The plugin of kubectl is the same program under another name.
fn link_plugin(directory: &Path, program: &str) -> anyhow::Result<()> {
    let link = directory.join("kubectl-openelb");
    if link.symlink_metadata().is_ok() {
        std::fs::remove_file(&link).with_context(|| format!("cannot remove {}", link.display()))?;
    }
    symlink(program, &link).with_context(|| format!("cannot make the link {}", link.display()))
}

/// A static program names no interpreter that would load libraries.
fn check_static(program: &Path) -> anyhow::Result<()> {
    let bytes = std::fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    match needs_interpreter(&bytes) {
        Some(false) => Ok(()),
        Some(true) => bail!("{} is not static: it needs an interpreter (ld.so)", program.display()),
        None => bail!("{} is not a 64-bit little-endian ELF program", program.display()),
    }
}

/// Whether the program headers of an ELF file (64 bits, little-endian) have a `PT_INTERP`.
fn needs_interpreter(bytes: &[u8]) -> Option<bool> {
    const PT_INTERP: u64 = 3;
    let number = |at: usize, len: usize| -> Option<u64> {
        let field = bytes.get(at..at.checked_add(len)?)?;
        Some(field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = usize::try_from(number(32, 8)?).ok()?;
    let (size, count) = (usize::try_from(number(54, 2)?).ok()?, usize::try_from(number(56, 2)?).ok()?);
    for index in 0..count {
        if number(table.checked_add(index * size)?, 4)? == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::needs_interpreter;

    #[test]
    fn a_dynamic_program_is_told_from_another_file() {
        // This very test is linked dynamically.
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(needs_interpreter(&program), Some(true));
        assert_eq!(needs_interpreter(b"#!/bin/sh\n"), None);
        assert_eq!(needs_interpreter(&program[..60]), None);
        let mut none = program[..64].to_vec();
        none[56] = 0;
        none[57] = 0;
        assert_eq!(needs_interpreter(&none), Some(false));
    }
}
