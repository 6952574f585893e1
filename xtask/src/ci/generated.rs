//! Files that a program writes and the repository keeps: they must be what the program writes now.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;

use super::{Verdict, sources, verdict};
use crate::{chart, shell};

/// What `openelb-bgp/proto` becomes.
const GRPC: &str = "openelb-bgp/src/grpc/generated/apipb.rs";

/// Write the generated files anew: deploy/crds, roles and definitions of the chart, deploy/openelb.yaml, the code of the
/// gRPC interface.
#[derive(Debug, Args)]
pub(crate) struct Arguments {}

/// `cargo xtask generate`.
pub(crate) fn generate(_: &Arguments) -> anyhow::Result<u8> {
    let directory = directory();
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let files = files()?;
    for path in sources::files(&directory, &["yaml"])? {
        if !files.contains_key(&path) {
            std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    for (path, text) in &files {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {}", sources::shown(path));
    }
    Ok(0)
}

pub(super) fn check() -> anyhow::Result<Verdict> {
    let directory = directory();
    if !directory.is_dir() {
        bail!("no {}; run: cargo xtask generate", sources::shown(&directory));
    }
    let files = files()?;
    let mut found = Vec::new();
    for (path, text) in &files {
        match std::fs::read_to_string(path) {
            Ok(kept) if kept == *text => {}
            Ok(kept) => {
                let line =
                    (1..).zip(kept.lines().zip(text.lines())).find(|(_, (a, b))| a != b).map(|(n, _)| n);
                let line = line.unwrap_or_else(|| kept.lines().count().min(text.lines().count()) + 1);
                found.push(format!("{}:{line}: differs", sources::shown(path)));
            }
            Err(_) => found.push(format!("{}: missing", sources::shown(path))),
        }
    }
    for path in sources::files(&directory, &["yaml"])? {
        if !files.contains_key(&path) {
            found.push(format!("{}: nothing generates it", sources::shown(&path)));
        }
    }
    verdict("files have drifted; run: cargo xtask generate", &found, format!("{} files", files.len()))
}

/// The chart as Helm renders it; only where Helm was built.
pub(super) fn compare_with_helm() -> anyhow::Result<Verdict> {
    Ok(match chart::compare()? {
        Some(objects) => Verdict::Good(format!("{objects} objects")),
        None => Verdict::Skipped("Helm is not built; cargo xtask helm does it".to_owned()),
    })
}

fn directory() -> PathBuf {
    shell::root().join("deploy/crds")
}

/// Every generated file with its text.
fn files() -> anyhow::Result<BTreeMap<PathBuf, String>> {
    let mut files = definitions()?;
    let templates = chart::directory().join("templates");
    let definitions = chart::definitions(files.values().map(String::as_str))?;
    files.insert(templates.join("crds.yaml"), definitions);
    let rights = openelbd(&["rights", "--output", "json"])?;
    files.insert(templates.join("rbac.yaml"), chart::roles(&rights)?);
    let manifest = chart::manifest(&files)?;
    files.insert(shell::root().join("deploy/openelb.yaml"), manifest);
    files.insert(shell::root().join(GRPC), grpc()?);
    Ok(files)
}

/// The code of the gRPC interface.
fn grpc() -> anyhow::Result<String> {
    let protos = shell::root().join("openelb-bgp/proto");
    let mut command = shell::cargo();
    command.args(["run", "--quiet", "--package", "openelb-grpc-codegen", "--"]).arg(protos);
    shell::capture(&mut command)
}

/// What the daemon prints.
fn openelbd(arguments: &[&str]) -> anyhow::Result<String> {
    shell::capture(shell::cargo().args(["run", "--quiet", "--package", "openelbd", "--"]).args(arguments))
}

/// Each definition that the daemon prints, by the file that holds it.
fn definitions() -> anyhow::Result<BTreeMap<PathBuf, String>> {
    let text = openelbd(&["crds"])?;
    let mut files = BTreeMap::new();
    for document in documents(&text) {
        let name = name(&document).context("openelbd crds printed a document without metadata.name")?;
        files.insert(directory().join(format!("{name}.yaml")), document);
    }
    if files.is_empty() {
        bail!("openelbd crds printed nothing");
    }
    Ok(files)
}

/// The documents of a YAML stream, each with a line break at its end and without the separator.
fn documents(text: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    for line in text.lines() {
        if line == "---" {
            all.push(String::new());
        } else if let Some(last) = all.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    all.retain(|document| !document.trim().is_empty());
    all
}

/// `metadata.name` of a document in block style.
fn name(document: &str) -> Option<&str> {
    let metadata = document.lines().skip_while(|line| *line != "metadata:").skip(1);
    metadata.take_while(|line| line.starts_with(' ')).find_map(|line| line.strip_prefix("  name: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_split_and_named() {
        let text = "---\nkind: C\nmetadata:\n  labels:\n    name: no\n  name: a.example\nspec:\n  name: no\n---\nkind: C\nmetadata:\n  name: b.example\n";
        let all = documents(text);
        assert_eq!(all.len(), 2);
        assert_eq!(
            all.iter().map(|document| name(document)).collect::<Vec<_>>(),
            [Some("a.example"), Some("b.example")]
        );
        assert!(all[0].starts_with("kind: C\n") && all[0].ends_with("  name: no\n"));
        assert_eq!(name("kind: C\nspec:\n  name: x\n"), None);
    }
}
