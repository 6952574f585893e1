//! Runs benchmark suites and prints their tables; `cargo xtask bench` builds and starts this.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use openelb_benches::bgp_child;
use openelb_benches::suites::{self, Part, Suite};
use openelb_benches::{Machine, Options, Outcome, Report};
use openelb_lab::manual::with_figures;
use serde_json::json;

/// Measure OpenELB beside its peers, on this machine, in this run.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", version)]
struct Arguments {
    /// Suites to run, or `all`; without any, the list of them.
    suites: Vec<String>,
    /// Also write machine, rows and verdicts to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write the tables into this file of the manual, where it has room for the suite.
    #[arg(long, value_name = "FILE", conflicts_with = "smoke")]
    write_docs: Option<PathBuf>,
    /// Seconds instead of minutes: fails when a bench panics, errs or measures nothing, judges no target.
    #[arg(long)]
    smoke: bool,
    /// Rounds of each measurement, of which the best counts [default: 9, with --smoke 2].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Only the part of this name.
    #[arg(long, value_name = "NAME")]
    part: Option<String>,
    /// Only this many Services (suite `kube`).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16))]
    services: Option<u16>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let result = match arguments.get(1..) {
        Some([first, rest @ ..]) if first == bgp_child::ARGUMENT => bgp_child::run(rest).map(|()| 0),
        _ => run(&Arguments::parse()),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The exit code: 0 every judged target is met, 1 not, 2 the suite has no content.
fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    if arguments.suites.is_empty() {
        for suite in suites::all() {
            println!("{:8} {}", suite.name, suite.about);
        }
        return Ok(0);
    }
    let chosen = choose(&arguments.suites)?;
    let mut options = if arguments.smoke { Options::smoke() } else { Options::full() };
    options.rounds = arguments.rounds.unwrap_or(options.rounds);
    options.services = arguments.services.map(usize::from);
    let judge = !options.smoke;

    let machine = Machine::this();
    println!("machine: {machine}");
    println!("best of {} rounds{}", options.rounds, if judge { "" } else { ", smoke: no target is judged" });

    let mut bad = false;
    let mut parts = Vec::new();
    for suite in chosen {
        let mut tables = Vec::new();
        let wanted = |part: &&Part| arguments.part.as_deref().is_none_or(|name| name == part.name);
        for part in suite.parts.iter().filter(wanted) {
            eprintln!("running {} / {} ...", suite.name, part.name);
            let report = (part.run)(&options).unwrap_or_else(|error| {
                println!("\n== {} / {}\nerror: {error:#}", suite.name, part.name);
                Report::new()
            });
            if !report.rows().is_empty() || !report.failures().is_empty() {
                println!("\n== {} / {}\n{}", suite.name, part.name, report.table(judge));
                tables.push(format!("== {}\n{}", part.name, report.table(judge)));
            }
            bad |= report.outcome(judge) == Outcome::Bad;
            let rows: Vec<_> = report
                .rows()
                .iter()
                .map(|row| json!({"row": row, "ratio": row.ratio(), "verdict": row.verdict(judge)}))
                .collect();
            parts.push(json!({
                "suite": suite.name, "part": part.name, "rows": rows, "notes": report.notes(),
                "failures": report.failures(),
            }));
        }
        if let Some(path) = arguments.write_docs.as_ref().filter(|_| !tables.is_empty()) {
            let cannot = || format!("cannot write the figures into {}", path.display());
            let text = std::fs::read_to_string(path).with_context(cannot)?;
            let figures = format!(
                "Measured on {machine}; best of {} rounds.\n\n```text\n{}\n```",
                options.rounds,
                tables.join("\n").trim_end()
            );
            let text = with_figures(&text, suite.name, &figures).with_context(cannot)?;
            std::fs::write(path, text).with_context(cannot)?;
        }
    }
    if parts.is_empty() {
        println!("nothing to measure yet in: {}", arguments.suites.join(", "));
        return Ok(2);
    }
    if let Some(path) = &arguments.json {
        let document =
            json!({"machine": machine, "smoke": options.smoke, "rounds": options.rounds, "parts": parts});
        let text = format!("{}\n", serde_json::to_string_pretty(&document)?);
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{}", if bad { "a target is missed, or a bench measured nothing" } else { "all good" });
    Ok(u8::from(bad))
}

fn choose(names: &[String]) -> anyhow::Result<Vec<&'static Suite>> {
    if names.iter().any(|name| name == "all") {
        return Ok(suites::all().iter().collect());
    }
    names
        .iter()
        .map(|name| {
            suites::all().iter().find(|suite| suite.name == name).with_context(|| {
                let known: Vec<_> = suites::all().iter().map(|suite| suite.name).collect();
                format!("no suite {name:?}; there are: {}, all", known.join(", "))
            })
        })
        .collect()
}
