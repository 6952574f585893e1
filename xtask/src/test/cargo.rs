//! Builds the tests and finds out what is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde::Deserialize;

use super::{LAB, libtest};
use crate::{metadata, shell};

/// A test binary.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Binary {
    /// Its package.
    pub(super) package: String,
    /// The name of an integration test's file; empty for the unit tests of a package's library.
    target: String,
    executable: PathBuf,
    /// The package's directory: where its tests run.
    directory: PathBuf,
}

impl Binary {
    #[cfg(test)]
    pub(super) fn new(package: &str, executable: &Path, directory: &Path) -> Self {
        let (executable, directory) = (executable.to_owned(), directory.to_owned());
        Self { package: package.to_owned(), target: String::new(), executable, directory }
    }

    /// The binary's command, in the environment that cargo gives to tests.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command.current_dir(&self.directory).env("CARGO_MANIFEST_DIR", &self.directory);
        command
    }
}

/// One test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) binary: Binary,
    /// The name that libtest knows.
    pub(super) name: String,
    /// `package target name`: what is shown and filtered.
    pub(super) shown: String,
    /// Marked `#[ignore]`.
    pub(super) ignored: bool,
}

/// Builds the daemon and all tests; of some packages, or without any, of all.
pub(super) fn build(packages: &[String]) -> anyhow::Result<Vec<Binary>> {
    // The lab starts the daemon as a program; the features are those of the whole workspace, as for the tests.
    if packages.is_empty() || packages.iter().any(|package| package == LAB) {
        shell::run(shell::cargo().args(["build", "--workspace", "--bins"]))?;
    }
    let mut command = shell::cargo();
    command.args(["test", "--no-run", "--message-format=json-render-diagnostics"]);
    select(&mut command, packages);
    println!("$ {}", shell::shown(&command));
    let output =
        command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the tests do not build; see the compiler's messages above");
    }
    let members = metadata::read(None, &["--no-deps"])?;
    let names: BTreeMap<PathBuf, String> =
        members.packages.into_iter().map(|package| (package.manifest_path, package.name)).collect();
    binaries(&String::from_utf8_lossy(&output.stdout), &names)
}

/// Adds `--workspace` or `--package` arguments.
pub(super) fn select(command: &mut Command, packages: &[String]) {
    if packages.is_empty() {
        command.arg("--workspace");
    }
    for package in packages {
        command.args(["--package", package]);
    }
}

/// Those of the packages (of all, if there are none) that have a library, and so documentation tests.
pub(super) fn libraries(packages: &[String]) -> anyhow::Result<Vec<String>> {
    let members = metadata::read(None, &["--no-deps"])?.packages;
    let wanted = |package: &metadata::Package| {
        let library =
            package.targets.iter().any(|target| target.kind.iter().any(|kind| kind.ends_with("lib")));
        library && (packages.is_empty() || packages.contains(&package.name))
    };
    Ok(members.into_iter().filter(wanted).map(|package| package.name).collect())
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    target: Option<metadata::Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// The test binaries in cargo's messages, sorted.
fn binaries(messages: &str, names: &BTreeMap<PathBuf, String>) -> anyhow::Result<Vec<Binary>> {
    let mut found = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Message =
            serde_json::from_str(line).context("cargo printed a message of another shape")?;
        let (Some(manifest), Some(target), Some(profile), Some(executable)) =
            (message.manifest_path, message.target, message.profile, message.executable)
        else {
            continue;
        };
        if message.reason != "compiler-artifact" || !profile.test {
            continue;
        }
        let directory = manifest.parent().unwrap_or_else(|| Path::new(".")).to_owned();
        let package = names.get(&manifest).cloned().unwrap_or_else(|| directory.display().to_string());
        let library = target.kind.iter().any(|kind| kind.ends_with("lib"));
        let target = if library || target.name == package { String::new() } else { target.name };
        found.push(Binary { package, target, executable, directory });
    }
    found.sort();
    Ok(found)
}

/// Asks each binary for its tests and keeps those whose shown name is wanted.
pub(super) fn cases(binaries: &[Binary], wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for binary in binaries {
        let ask = |ignored: bool| {
            let mut command = binary.command();
            command.args(["--list", "--format", "terse"]);
            if ignored {
                command.arg("--ignored");
            }
            shell::capture(&mut command)
                .with_context(|| format!("cannot list the tests of {}", binary.executable.display()))
        };
        let (all, ignored) = (ask(false)?, ask(true)?);
        let ignored: BTreeSet<&str> = libtest::list(&ignored).collect();
        for name in libtest::list(&all) {
            let parts = [binary.package.as_str(), &binary.target, name];
            let shown = parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(" ");
            if wanted(&shown) {
                let ignored = ignored.contains(name);
                cases.push(Case { binary: binary.clone(), name: name.to_owned(), shown, ignored });
            }
        }
    }
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_binaries_are_found_in_the_messages_of_cargo() {
        let artifact = |manifest: &str, kind: &str, name: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"x","manifest_path":"{manifest}","target":{{"kind":["{kind}"],"name":"{name}"}},"profile":{{"opt_level":"0","test":{test}}},"executable":{executable},"fresh":true}}"#
            )
        };
        let messages = [
            artifact("/r/ipam/Cargo.toml", "lib", "openelb_ipam", true, r#""/t/ipam-1""#),
            artifact("/r/ipam/Cargo.toml", "test", "model", true, r#""/t/model-1""#),
            artifact("/r/ipam/Cargo.toml", "lib", "openelb_ipam", false, "null"),
            artifact("/r/d/Cargo.toml", "bin", "openelbd", false, r#""/t/openelbd""#),
            artifact("/r/d/Cargo.toml", "bin", "openelbd", true, r#""/t/openelbd-1""#),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
            "not a message".to_owned(),
        ]
        .join("\n");
        let names = [("/r/ipam/Cargo.toml", "openelb-ipam"), ("/r/d/Cargo.toml", "openelbd")]
            .map(|(path, name)| (PathBuf::from(path), name.to_owned()))
            .into();
        let found = binaries(&messages, &names).unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|b| (b.package.as_str(), b.target.as_str(), b.executable.to_str().unwrap()))
            .collect();
        let expected = [
            ("openelb-ipam", "", "/t/ipam-1"),
            ("openelb-ipam", "model", "/t/model-1"),
            ("openelbd", "", "/t/openelbd-1"),
        ];
        assert_eq!(shown, expected);
    }
}
