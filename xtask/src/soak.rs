//! `cargo xtask soak`: what takes longer than a change should wait.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use clap::Args;
use openelb_lab::{lan::figures, manual};

use crate::shell::{self, End, Line};
use crate::{fuzz, system, test};
use std::time::Duration;

/// Fuzz every target for ten minutes, let everything go wrong around the controllers for as long, speak with routers of
/// all makes (which writes docs/src/interop.md), let everything go wrong between BGP speakers and on a LAN in thousands of
/// histories on a virtual clock, and fail over on a real one fifty times in each way (which writes the figures into docs/src/layer2.md), and run
/// the lab's tests again and again.
///
/// Everything that is said is also appended to target/soak/TIME.log, and one line for each target and trial to
/// target/soak/history.tsv, which is kept from run to run: time (Unix seconds), what, how long (s), result.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How long each target is fuzzed, and how long the chaos lasts.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// How often the lab's tests run.
    #[arg(long, value_name = "N", default_value_t = 10)]
    trials: u32,
    /// Seed of the chaos, where what the scheduler does is random anyway, and first seed of the models of BGP and Layer 2.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Only these: a fuzz target, `chaos`, `interop`, `failures`, `bfd`, `bgp-model`, `layer2` (or a half of it:
    /// `layer2-model`, `layer2-lab`) or `lab`.
    only: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let mut targets = fuzz::targets()?;
    let mut trials = arguments.trials;
    if !arguments.only.is_empty() {
        let known = |name: &String| {
            ["lab", "chaos", BGP_MODEL.name, "layer2", "layer2-model", "layer2-lab"].contains(&name.as_str())
                || ROUTERS.iter().any(|(known, _)| known == name)
                || targets.contains(name)
        };
        if let Some(unknown) = arguments.only.iter().find(|name| !known(name)) {
            bail!(
                "nothing to soak is called {unknown:?}; there are: {}, chaos, {}, bgp-model, layer2, layer2-model, layer2-lab, lab",
                targets.join(", "),
                ROUTERS.map(|(name, _)| name).join(", ")
            );
        }
        targets.retain(|target| arguments.only.contains(target));
        trials = if arguments.only.iter().any(|name| name == "lab") { trials } else { 0 };
    }
    let mut log = Log::open()?;
    log.say(&format!("log: {}", log.path.display()))?;
    let mut failed = Vec::new();
    if !targets.is_empty() {
        system::require("cargo xtask soak", &[system::CXX])?;
        let binaries = fuzz::build()?;
        for target in &targets {
            let seconds = arguments.minutes * 60;
            let mut lines = Vec::new();
            let result = fuzz::fuzz(&binaries, target, seconds, &mut |line| lines.push(line.to_owned()));
            for line in lines {
                log.say(&line)?;
            }
            let result = result.map(|statistics| fuzz::describe(target, &statistics));
            log.end(&format!("fuzz {target}"), seconds, &result)?;
            failed.extend(result.is_err().then(|| format!("fuzz {target}")));
        }
    }
    if arguments.only.is_empty() || arguments.only.iter().any(|name| name == "chaos") {
        let seconds = arguments.minutes * 60;
        let mut command = shell::cargo();
        // It settles, and is slower at the end than at the beginning.
        let timeout = (seconds * 2 + 600).to_string();
        command.args(["xtask", "test", "--verbose", "--timeout", &timeout, "--package", "openelb-chaos"]);
        command.env("OPENELB_CHAOS_SECONDS", seconds.to_string());
        command.env("OPENELB_CHAOS_SEED", arguments.seed.to_string());
        let what = format!("chaos, seed {}", arguments.seed);
        log.say(&format!("== {what}"))?;
        let result = tests(&mut log, command);
        log.end(&what, seconds, &result)?;
        failed.extend(result.is_err().then_some(what));
    }
    for (name, page) in ROUTERS {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|only| only == name) {
            continue;
        }
        let began = SystemTime::now();
        let result = routers(&mut log, name, page, arguments.minutes);
        let seconds = began.elapsed().map_or(0, |time| time.as_secs());
        log.end(name, seconds, &result)?;
        failed.extend(result.is_err().then(|| name.to_owned()));
    }
    let wants = |what: &str| arguments.only.is_empty() || arguments.only.iter().any(|name| name == what);
    for model in [BGP_MODEL, LAYER2_MODEL] {
        if !(wants(model.name) || model.name == LAYER2_MODEL.name && wants("layer2")) {
            continue;
        }
        log.say(&format!("== {}", model.name))?;
        let began = SystemTime::now();
        let result = model.run(&mut log, arguments.seed);
        let seconds = began.elapsed().map_or(0, |time| time.as_secs());
        log.end(model.name, seconds, &result)?;
        failed.extend(result.is_err().then(|| model.name.to_owned()));
    }
    if wants("layer2-lab") || wants("layer2") {
        log.say("== layer2-lab")?;
        let began = SystemTime::now();
        let result = layer2(&mut log);
        let seconds = began.elapsed().map_or(0, |time| time.as_secs());
        log.end("layer2-lab", seconds, &result)?;
        failed.extend(result.is_err().then(|| "layer2-lab".to_owned()));
    }
    for trial in 1..=trials {
        let what = format!("lab trial {trial} of {trials}");
        log.say(&format!("== {what}"))?;
        let began = SystemTime::now();
        let mut command = shell::cargo();
        command.args(["xtask", "test", "--verbose", "--package", test::LAB]);
        let result = tests(&mut log, command);
        let seconds = began.elapsed().map_or(0, |time| time.as_secs());
        log.end(&what, seconds, &result)?;
        failed.extend(result.is_err().then_some(what));
    }
    if failed.is_empty() {
        log.say("soaked, nothing found")?;
        return Ok(0);
    }
    log.say(&format!("failed: {}", failed.join(", ")))?;
    Ok(1)
}

/// What is run beside routers of other makes, and the page of the manual that it writes.
const ROUTERS: [(&str, Option<&str>); 3] =
    [("interop", Some("docs/src/interop.md")), ("failures", Some("docs/src/failures.md")), ("bfd", None)];

/// One of them, by the lab's own program.
fn routers(log: &mut Log, name: &str, page: Option<&str>, minutes: u64) -> anyhow::Result<String> {
    system::require_root("cargo xtask soak")?;
    system::require("cargo xtask soak", system::LAB)?;
    system::require("cargo xtask soak", system::MORE_ROUTERS)?;
    let mut build = shell::cargo();
    shell::run(build.args(["build", "--package", "openelbd", "--package", "openelb-lab", "--bins"]))?;
    let mut command = Command::new(shell::target_directory().join("debug/openelb-lab"));
    command.arg(name);
    match page {
        Some(page) => command.arg("--write").arg(shell::root().join(page)),
        None => command.arg("--minutes").arg(minutes.to_string()),
    };
    tests(log, command)
}

/// How often the owner of an address fails in each way, and the page of the manual that says how long it took.
const LAYER2_TRIALS: u32 = 50;
const LAYER2_PAGE: &str = "docs/src/layer2.md";

/// Machines on a virtual clock through many histories, each from a seed of its own; a test runs a few.
struct Model {
    name: &'static str,
    package: &'static str,
    /// The files of tests, and which of them; empty: all.
    tests: (&'static [&'static str], &'static str),
    /// What says how many seeds, and which is the first.
    variables: [&'static str; 2],
    seeds: u32,
}

const BGP_MODEL: Model = Model {
    name: "bgp-model",
    package: "openelb-bgp",
    tests: (&["virtual_network"], ""),
    variables: ["OPENELB_BGP_SEEDS", "OPENELB_BGP_SEED"],
    seeds: 20_000,
};

const LAYER2_MODEL: Model = Model {
    name: "layer2-model",
    package: "openelb-l2",
    tests: (&["chaos", "kernel"], ""),
    variables: ["OPENELB_LAYER2_SEEDS", "OPENELB_LAYER2_SEED"],
    seeds: 3000,
};

impl Model {
    /// The last line of each test says how many histories ran.
    fn run(&self, log: &mut Log, first: u64) -> anyhow::Result<String> {
        let (files, name) = self.tests;
        let mut command = shell::cargo();
        command.args(["test", "--package", self.package]);
        for file in files {
            command.args(["--test", file]);
        }
        command.args(["--", "--nocapture"]);
        if !name.is_empty() {
            command.args(["--exact", name]);
        }
        let [seeds, seed] = self.variables;
        command.env(seeds, self.seeds.to_string()).env(seed, first.to_string());
        let mut ran: Vec<String> = Vec::new();
        let last = watch(log, command, |line| {
            if line.contains(" histories ") {
                ran.push(line.to_owned());
            }
        })?;
        ensure!(!ran.is_empty(), "no history ran: {last}");
        Ok(ran.join("; "))
    }
}

/// The lab's tests of Layer 2 in their long form, with the ceilings that are promised, one after the other.
fn layer2(log: &mut Log) -> anyhow::Result<String> {
    let file = shell::target_directory().join("soak/layer2.figures");
    if file.exists() {
        std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    let mut command = shell::cargo();
    command.args(["xtask", "test", "--verbose", "--timeout", "3600", "--jobs", "1"]);
    command.args(["--package", test::LAB, "layer2"]);
    command.env("OPENELB_LAYER2_TRIALS", LAYER2_TRIALS.to_string());
    command.env("OPENELB_LAYER2_FIGURES", &file);
    let result = tests(log, command);
    // Also where one missed its ceiling: the manual says what is, not what is wanted. But not where something was not
    // measured: what the manual said before is better than half of it.
    let rows = std::fs::read_to_string(&file).context("nothing was measured")?;
    match (result, write_figures(&rows)) {
        (result, Ok(())) => result,
        (Ok(_), Err(error)) => Err(error),
        (Err(first), Err(second)) => bail!("{first:#}; {second:#}"),
    }
}

fn write_figures(rows: &str) -> anyhow::Result<()> {
    let page = shell::root().join(LAYER2_PAGE);
    let cannot = || format!("{LAYER2_PAGE} stays as it is");
    let table = figures::table(rows).with_context(cannot)?;
    let text = std::fs::read_to_string(&page).with_context(cannot)?;
    let text = manual::with_figures(&text, "layer2", &table).with_context(cannot)?;
    std::fs::write(&page, text).with_context(cannot)
}

/// One run of tests, as a program of its own so that its output can be kept. Returns its last line.
fn tests(log: &mut Log, command: Command) -> anyhow::Result<String> {
    watch(log, command, |_| ())
}

fn watch(log: &mut Log, mut command: Command, mut each: impl FnMut(&str)) -> anyhow::Result<String> {
    let mut last = String::new();
    let mut broken = None;
    let end = shell::watch(&mut command, Duration::from_secs(3600), |line| {
        broken = log.say(line).err();
        each(line);
        last = line.to_owned();
        Line::Progress
    })?;
    if let Some(error) = broken {
        return Err(error);
    }
    match end {
        End::Exited(status) if status.success() => Ok(last),
        End::Exited(status) => bail!("{last} ({status})"),
        End::Stalled => bail!("hung after: {last}"),
    }
}

/// What is said goes to a file too.
struct Log {
    path: PathBuf,
    file: File,
    history: File,
}

impl Log {
    fn open() -> anyhow::Result<Self> {
        let directory = shell::target_directory().join("soak");
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let path = directory.join(format!("{}.log", now()));
        let append = |path: &PathBuf| {
            let file = File::options().create(true).append(true).open(path);
            file.with_context(|| format!("cannot write {}", path.display()))
        };
        Ok(Self { file: append(&path)?, history: append(&directory.join("history.tsv"))?, path })
    }

    fn say(&mut self, line: &str) -> anyhow::Result<()> {
        println!("{line}");
        writeln!(self.file, "{line}").with_context(|| format!("cannot write {}", self.path.display()))
    }

    fn end(&mut self, what: &str, seconds: u64, result: &anyhow::Result<String>) -> anyhow::Result<()> {
        let text = match result {
            Ok(text) => text.clone(),
            Err(error) => format!("FAILED: {error:#}"),
        };
        self.say(&format!("{what}: {text}"))?;
        let line = text.replace(['\n', '\t'], " ");
        writeln!(self.history, "{}\t{what}\t{seconds}\t{line}", now()).context("cannot write the history")
    }
}

/// Unix seconds.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests_of_figures {
    use openelb_lab::{lan::figures, manual};

    use super::{LAYER2_PAGE, shell};

    /// What the manual shows is what a soak would write: every row, in order, in the place for it.
    #[test]
    fn the_manual_has_every_figure() {
        let page = std::fs::read_to_string(shell::root().join(LAYER2_PAGE)).expect("there is a page");
        let is_row = |line: &&str| figures::ROWS.iter().any(|row| line.starts_with(&format!("| {row} |")));
        let rows: Vec<_> = page.lines().filter(is_row).collect();
        let table = figures::table(&rows.join("\n")).expect("every figure");
        assert_eq!(manual::with_figures(&page, "layer2", &table).expect("a place for it"), page);
    }
}
