//! `cargo xtask ci`: everything that is asked of a change besides its tests.

mod arrows;
mod deny;
pub(crate) mod generated;
mod lengths;
mod links;
mod purity;
mod sources;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;

use crate::{bench, fuzz, metadata, shell, test};

/// Check everything that is asked of a change: tests, format, lints, licences, documentation, generated files, and a
/// few seconds of each bench and each fuzz target.
///
/// Every step runs, also after one that failed; a table at the end says how each went. The exit code is 1 if one
/// failed.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Leave out the tests, for example because `cargo xtask test` ran them already.
    #[arg(long)]
    skip_test: bool,
    /// Only this step; can be repeated.
    #[arg(long, value_name = "STEP", conflicts_with = "skip_test")]
    only: Vec<String>,
    /// Only list the steps.
    #[arg(long, conflicts_with_all = ["skip_test", "only"])]
    list: bool,
}

/// How a step that did not fail went.
enum Verdict {
    /// Good, with what a reader of the table may want to know.
    Good(String),
    /// It could not be done here, and why.
    Skipped(String),
}

impl Verdict {
    const fn good() -> Self {
        Self::Good(String::new())
    }
}

struct Step {
    name: &'static str,
    about: &'static str,
    run: fn() -> anyhow::Result<Verdict>,
}

/// Quick ones first; those that build the same things in a row.
const STEPS: &[Step] = &[
    Step { name: "test", about: "cargo xtask test", run: tests },
    Step { name: "format", about: "rustfmt and gofmt have nothing to change", run: format },
    Step { name: "lock", about: "both Cargo.lock files fit their manifests", run: lock },
    Step { name: "arrows", about: "which crate may depend on which", run: arrows::check },
    Step { name: "purity", about: "the cores have no IO and no Kubernetes word", run: purity::check },
    Step { name: "lengths", about: "no source file is too long", run: lengths::check },
    Step { name: "links", about: "relative links in the documents lead somewhere", run: links::check },
    Step { name: "deny", about: "licences, banned crates, sources, advisories", run: deny::check },
    Step {
        name: "generated",
        about: "generated files are what would be generated now",
        run: generated::check,
    },
    Step { name: "helm", about: "Helm renders the chart as we do", run: generated::compare_with_helm },
    Step { name: "clippy", about: "no lint fires, with and without default features", run: clippy },
    Step { name: "docs", about: "rustdoc has nothing to warn about", run: documentation },
    Step { name: "bench", about: "every bench runs and does work", run: benches },
    Step { name: "fuzz", about: "every fuzz target runs, with coverage", run: fuzz_targets },
];

/// The libraries that must build without their defaults: no IO, no runtime.
const CORES: &[&str] = &["openelb-ipam", "openelb-bgp", "openelb-l2"];

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    if arguments.list {
        STEPS.iter().for_each(|step| println!("{:10} {}", step.name, step.about));
        return Ok(0);
    }
    if let Some(unknown) = arguments.only.iter().find(|name| STEPS.iter().all(|step| step.name != *name)) {
        let known: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        bail!("no step {unknown:?}; there are: {}", known.join(", "));
    }
    let chosen = STEPS.iter().filter(|step| {
        let wanted = arguments.only.is_empty() || arguments.only.iter().any(|name| name == step.name);
        wanted && !(arguments.skip_test && step.name == "test")
    });
    let start = Instant::now();
    let mut rows = Vec::new();
    for step in chosen {
        println!("\n== {}: {}", step.name, step.about);
        let began = Instant::now();
        let result = (step.run)();
        let time = began.elapsed();
        match &result {
            Ok(Verdict::Good(note)) if note.is_empty() => println!("good, in {}", shell::seconds(time)),
            Ok(Verdict::Good(note)) => println!("good, in {}: {note}", shell::seconds(time)),
            Ok(Verdict::Skipped(why)) => println!("not done here: {why}"),
            Err(error) => println!("FAILED, in {}: {error:#}", shell::seconds(time)),
        }
        rows.push((step.name, time, result));
    }
    Ok(summary(&rows, start.elapsed()))
}

fn summary(rows: &[(&str, Duration, anyhow::Result<Verdict>)], total: Duration) -> u8 {
    println!("\n{:10} {:>8}  result", "step", "time");
    let mut failed = Vec::new();
    for (name, time, result) in rows {
        let text = match result {
            Ok(Verdict::Good(note)) if note.is_empty() => "good".to_owned(),
            Ok(Verdict::Good(note)) => format!("good: {note}"),
            Ok(Verdict::Skipped(why)) => format!("not done here: {why}"),
            Err(error) => {
                failed.push(*name);
                let text = format!("{error:#}");
                format!("FAILED: {}", text.lines().next().unwrap_or_default())
            }
        };
        println!("{name:10} {:>8}  {text}", shell::seconds(*time));
    }
    println!("{:10} {:>8}", "all", shell::seconds(total));
    if !failed.is_empty() {
        println!(
            "\nfailed: {}; again with: cargo xtask ci --only {}",
            failed.join(", "),
            failed.join(" --only ")
        );
    }
    u8::from(!failed.is_empty())
}

fn tests() -> anyhow::Result<Verdict> {
    match test::run(&test::Arguments::all())? {
        0 => Ok(Verdict::good()),
        _ => bail!("a test failed, or none ran"),
    }
}

fn format() -> anyhow::Result<Verdict> {
    let fuzz = shell::root().join("fuzz/Cargo.toml");
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))
        .and_then(|()| shell::run(shell::cargo().args(["fmt", "--check", "--manifest-path"]).arg(fuzz)))
        .map_err(|error| error.context("run: cargo fmt --all (and in fuzz/: cargo fmt)"))?;
    if !shell::is_installed("gofmt") {
        return Ok(Verdict::Good("without tests/kube: there is no gofmt".into()));
    }
    let module = shell::root().join("tests/kube");
    let unformatted = shell::capture(Command::new("gofmt").arg("-l").arg(module))?;
    let unformatted: Vec<String> = unformatted.lines().map(str::to_owned).collect();
    verdict("files are not as gofmt -w would write them:", &unformatted, String::new())
}

fn lock() -> anyhow::Result<Verdict> {
    metadata::read(None, &["--locked"])
        .and_then(|_| metadata::read(Some(&shell::root().join("fuzz/Cargo.toml")), &["--locked"]))
        .map(|_| Verdict::good())
        .map_err(|error| {
            error.context("run: cargo metadata > /dev/null, also in fuzz/, and commit Cargo.lock")
        })
}

fn clippy() -> anyhow::Result<Verdict> {
    shell::run(shell::cargo().args("clippy --workspace --all-targets -- -D warnings".split(' ')))?;
    // One at a time: together, one crate's features would count for the others.
    for package in CORES {
        let arguments = ["clippy", "--package", package, "--no-default-features", "--", "-D", "warnings"];
        shell::run(shell::cargo().args(arguments))?;
    }
    Ok(Verdict::good())
}

fn documentation() -> anyhow::Result<Verdict> {
    let mut command = shell::cargo();
    command.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
    shell::run(&mut command).map(|()| Verdict::good())
}

fn benches() -> anyhow::Result<Verdict> {
    match bench::run(&bench::Arguments::smoke())? {
        0 => Ok(Verdict::good()),
        2 => Ok(Verdict::Skipped("no suite has content".into())),
        _ => bail!("a bench failed or did no work; see above"),
    }
}

fn fuzz_targets() -> anyhow::Result<Verdict> {
    match fuzz::run(&fuzz::Arguments::smoke())? {
        0 => Ok(Verdict::Good(format!("{} targets", fuzz::targets()?.len()))),
        _ => Ok(Verdict::Skipped("there is no target".into())),
    }
}

/// Fails with one line for each finding, or is good with a note.
fn verdict(what: &str, findings: &[String], note: String) -> anyhow::Result<Verdict> {
    if findings.is_empty() {
        return Ok(Verdict::Good(note));
    }
    bail!("{} {what}\n  {}", findings.len(), findings.join("\n  "))
}
