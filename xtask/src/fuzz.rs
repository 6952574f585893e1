//! `cargo xtask fuzz`: libFuzzer targets with stable Rust.
//!
//! `-Zsanitizer` needs a nightly compiler, LLVM's coverage pass does not: rustc's `-Cpasses=sancov-module` instruments
//! every crate, and libFuzzer, which `libfuzzer-sys` compiles from C++, reads the counters. `--target` is given so
//! that build scripts and proc macros are built without it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use crate::shell::{self, End, Line};
use crate::{metadata, system};

const RUSTFLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
    "-Coverflow-checks",
    "--cfg=fuzzing",
];

/// One input may take this long; more is a finding.
const INPUT_TIMEOUT: Duration = Duration::from_secs(10);
const SMOKE_SECONDS: u64 = 2;

/// Fuzz a decoder or a state machine: all targets, or one.
///
/// New inputs go to target/fuzz/corpus/TARGET and are kept for the next run; the seeds are in fuzz/corpus/TARGET. A
/// finding is written to target/fuzz/findings/TARGET.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The target; without it, all of them, one after the other.
    target: Option<String>,
    /// How long to fuzz each target.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Run the seeds and two seconds of fuzzing: shows that the targets work.
    #[arg(long, conflicts_with = "seconds")]
    smoke: bool,
    /// Run this one input, for example a finding, and print what it does.
    #[arg(long, value_name = "FILE", requires = "target", conflicts_with_all = ["seconds", "smoke"])]
    input: Option<PathBuf>,
    /// Only list the targets.
    #[arg(long, conflicts_with_all = ["target", "seconds", "smoke", "input"])]
    list: bool,
}

impl Arguments {
    /// `--smoke` for everything.
    pub(crate) fn smoke() -> Self {
        Self { target: None, seconds: 1, smoke: true, input: None, list: false }
    }
}

/// What a run of one target came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Statistics {
    /// Instrumented places, from `INFO: Loaded 1 modules (N inline 8-bit counters)`.
    pub(crate) counters: u64,
    /// Places reached by the seeds and by the inputs kept from runs before.
    pub(crate) covered_by_seeds: u64,
    /// Places reached at the end.
    pub(crate) covered: u64,
    /// Inputs tried.
    pub(crate) executions: u64,
}

impl Statistics {
    /// Reads one line of libFuzzer's output; true when it said something.
    fn read(&mut self, line: &str) -> bool {
        if let Some((_, rest)) = line.split_once("INFO: Loaded ") {
            let number = rest.split_once('(').and_then(|(_, rest)| rest.split(' ').next());
            self.counters = number.and_then(|n| n.parse().ok()).unwrap_or(self.counters);
            return true;
        }
        // "#1024\tpulse  cov: 52 ft: 60 corp: 3/30b ..."
        let Some(rest) = line.strip_prefix('#') else { return false };
        let mut words = rest.split_ascii_whitespace();
        let Some(executions) = words.next().and_then(|n| n.parse().ok()) else { return false };
        self.executions = executions;
        let event = words.next();
        let mut rest = words.skip_while(|word| *word != "cov:");
        if let Some(covered) = rest.nth(1).and_then(|n| n.parse().ok()) {
            self.covered = covered;
            if event == Some("INITED") {
                self.covered_by_seeds = covered;
            }
        }
        true
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let known = targets()?;
    if arguments.list {
        known.iter().for_each(|target| println!("{target}"));
        return Ok(0);
    }
    let chosen: Vec<String> = match &arguments.target {
        None => known,
        Some(name) if known.contains(name) => vec![name.clone()],
        Some(name) => bail!("no fuzz target {name:?}; there are: {}", known.join(", ")),
    };
    if chosen.is_empty() {
        println!("no fuzz targets yet");
        return Ok(2);
    }
    system::require("cargo xtask fuzz", &[system::CXX])?;
    let binaries = build()?;
    if let (Some(input), [target]) = (&arguments.input, chosen.as_slice()) {
        if !input.is_file() {
            bail!("there is no file {}", input.display());
        }
        shell::run(Command::new(binaries.join(target)).arg(input))
            .with_context(|| format!("{} is a finding in {target}", input.display()))?;
        println!("{} does no harm in {target}", input.display());
        return Ok(0);
    }
    let seconds = if arguments.smoke { SMOKE_SECONDS } else { arguments.seconds };
    let mut findings = 0;
    for target in &chosen {
        match fuzz(&binaries, target, seconds, &mut |line| println!("  {line}")) {
            Ok(statistics) => println!("{}", describe(target, &statistics)),
            Err(error) => {
                findings += 1;
                println!("{target}: {error:#}");
            }
        }
    }
    if findings > 0 {
        bail!("{findings} of {} fuzz targets failed", chosen.len());
    }
    Ok(0)
}

/// One line about a run without a finding.
pub(crate) fn describe(target: &str, statistics: &Statistics) -> String {
    let Statistics { counters, covered_by_seeds, covered, executions } = statistics;
    format!(
        "{target}: no finding in {executions} inputs; {covered} of {counters} places reached ({covered_by_seeds} by the inputs known before)"
    )
}

/// The names of the targets, in the order of `fuzz/Cargo.toml`.
pub(crate) fn targets() -> anyhow::Result<Vec<String>> {
    let metadata = metadata::read(Some(&manifest()), &["--no-deps"])?;
    let mut names = Vec::new();
    for package in metadata.packages {
        names.extend(
            package.targets.into_iter().filter(|t| t.kind.iter().any(|k| k == "bin")).map(|t| t.name),
        );
    }
    Ok(names)
}

fn manifest() -> PathBuf {
    shell::root().join("fuzz/Cargo.toml")
}

/// Builds all targets and returns the directory of the binaries.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let host = metadata::host()?;
    let directory = shell::target_directory().join("fuzz/build");
    let mut command = shell::cargo();
    command
        .args(["build", "--bins", "--target", &host])
        .arg("--manifest-path")
        .arg(manifest())
        .env("CARGO_TARGET_DIR", &directory)
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\u{1f}"));
    shell::run(&mut command)?;
    Ok(directory.join(host).join("debug"))
}

/// Fuzzes one target; `show` gets a line of libFuzzer's now and then.
///
/// # Errors
/// A finding, with how to reproduce it; also a target which is not instrumented or never ran.
pub(crate) fn fuzz(
    binaries: &Path,
    target: &str,
    seconds: u64,
    show: &mut dyn FnMut(&str),
) -> anyhow::Result<Statistics> {
    let work = shell::target_directory().join("fuzz");
    let corpus = work.join("corpus").join(target);
    let findings = work.join("findings").join(target);
    let seeds = shell::root().join("fuzz/corpus").join(target);
    for directory in [&corpus, &findings] {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
    }
    if !seeds.is_dir() {
        bail!("no seeds: put a few small inputs into {}", seeds.display());
    }
    println!("fuzzing {target} for {seconds} s");
    let mut command = Command::new(binaries.join(target));
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={}", INPUT_TIMEOUT.as_secs()))
        .args(["-rss_limit_mb=2048", "-print_final_stats=0", "-reload=0"])
        .arg(format!("-artifact_prefix={}/", findings.display()))
        .arg(&corpus)
        .arg(&seeds);

    let mut statistics = Statistics::default();
    let mut tail = VecDeque::new();
    let mut artifact = None;
    // libFuzzer prints pulses at powers of two, so silence is normal; its own clocks end the run.
    let patience = Duration::from_secs(seconds) + 6 * INPUT_TIMEOUT;
    let end = shell::watch(&mut command, patience, |line| {
        if !statistics.read(line) {
            if tail.len() == 60 {
                tail.pop_front();
            }
            tail.push_back(line.to_owned());
        } else if line.contains("pulse") {
            show(line);
        }
        if let Some((_, path)) = line.split_once("Test unit written to ") {
            artifact = Some(path.trim().to_owned());
        }
        Line::Noise
    })?;
    if let End::Exited(status) = end
        && status.success()
    {
        if statistics.counters == 0 || statistics.covered == 0 {
            bail!("the target is not instrumented: libFuzzer saw no coverage, so it only guessed");
        }
        return Ok(statistics);
    }
    for line in &tail {
        println!("  {line}");
    }
    match (artifact, end) {
        (Some(path), _) => bail!("a finding; see it again with: cargo xtask fuzz {target} --input {path}"),
        (None, End::Stalled) => {
            bail!("the fuzzer did not end by itself {} s after its time", 6 * INPUT_TIMEOUT.as_secs())
        }
        (None, End::Exited(status)) => bail!("the fuzzer failed ({status})"),
    }
}

#[cfg(test)]
mod tests {
    use super::Statistics;

    #[test]
    fn statistics_come_from_the_lines_of_libfuzzer() {
        let mut statistics = Statistics::default();
        let lines = [
            "INFO: Seed: 3242424",
            "INFO: Loaded 1 modules   (5152 inline 8-bit counters): 5152 [0x55, 0x56), ",
            "#2\tINITED cov: 21 ft: 22 corp: 1/1b exec/s: 0 rss: 30Mb",
            "#8\tNEW    cov: 23 ft: 24 corp: 2/3b lim: 4 exec/s: 0 rss: 30Mb L: 2/2 MS: 1 CrossOver-",
            "#65536\tpulse  cov: 101 ft: 240 corp: 60/900b lim: 100 exec/s: 32768 rss: 40Mb",
            "#90000\tDONE   cov: 103 ft: 250 corp: 61/910b lim: 120 exec/s: 30000 rss: 41Mb",
            "Done 90000 runs in 3 second(s)",
        ];
        let said: Vec<bool> = lines.iter().map(|line| statistics.read(line)).collect();
        assert_eq!(said, [false, true, true, true, true, true, false]);
        let expected = Statistics { counters: 5152, covered_by_seeds: 21, covered: 103, executions: 90_000 };
        assert_eq!(statistics, expected);
    }
}
