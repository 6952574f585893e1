//! The task runner: `cargo xtask demo|test|ci|soak|bench|fuzz|kube|dist`.
//!
//! Everything that a developer, CI or a newcomer does with this repository is a sub-command here, so that all of them
//! do the same thing. Exit codes: 0 good, 1 failed, 2 not available (yet) or wrong arguments.

mod bench;
mod chart;
mod ci;
mod demo;
mod dist;
mod fuzz;
mod kube;
mod metadata;
mod metallb;
mod shell;
mod soak;
mod system;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// OpenELB's task runner.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    Demo(demo::Arguments),
    Test(test::Arguments),
    Ci(ci::Arguments),
    Bench(bench::Arguments),
    Fuzz(fuzz::Arguments),
    Soak(soak::Arguments),
    Dist(dist::Arguments),
    Kube(kube::Arguments),
    Generate(ci::generated::Arguments),
    Helm(chart::HelmArguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Ci(arguments) => ci::run(&arguments),
        Task::Soak(arguments) => soak::run(&arguments),
        Task::Dist(arguments) => dist::run(&arguments),
        Task::Kube(arguments) => kube::run(&arguments),
        Task::Generate(arguments) => ci::generated::generate(&arguments),
        Task::Helm(arguments) => chart::build_helm(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
