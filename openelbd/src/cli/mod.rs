//! The command line: sub-commands, flags, exit codes.
//!
//! Exit codes: 0 done, 1 the input is bad or the check failed, 2 usage.

mod api;
mod completion;
mod controller;
mod crds;
mod klog;
mod kubectl;
mod layer2;
pub mod output;
mod plan;
mod rights;
mod speaker;
mod standalone;
mod validate;
mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{
    http::ListenAddress,
    logging::{self, LogFormat},
};

/// The input is bad, or the check failed.
const FAILED: u8 = 1;
/// The command line is wrong.
const USAGE: u8 = 2;

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 the input is bad or the check failed, 2 wrong usage.

Logs go to standard error: text on a terminal, JSON otherwise. RUST_LOG, where set, rules over --log-level
(for example RUST_LOG=openelb_bgp=debug,info).";

/// OpenELB: a load-balancer implementation for Kubernetes on bare metal, at the edge and in private clouds.
#[derive(Debug, Parser)]
#[command(name = "openelbd", version, about, after_help = AFTER_HELP, max_term_width = 120, subcommand_required = true)]
pub struct Cli {
    /// What log lines look like.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT", help_heading = "Logging")]
    log_format: LogFormat,
    /// What is logged: a level (error, warn, info, debug, trace) or a filter such as openelb_bgp=debug,info
    /// [default: info for controller, speaker and standalone, warn for the other commands].
    #[arg(long, global = true, value_name = "FILTER", help_heading = "Logging")]
    log_level: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Controller(controller::Arguments),
    Speaker(Box<speaker::Arguments>),
    Standalone(standalone::Arguments),
    Plan(plan::Arguments),
    Validate(validate::Arguments),
    Crds(crds::Arguments),
    Rights(rights::Arguments),
    Completion(completion::Arguments),
    Version(version::Arguments),
}

/// Parses the process's arguments and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    if kubectl::is_meant(std::env::args_os().next().as_deref()) {
        return match kubectl::Cli::try_parse() {
            Ok(cli) => ended(logged(LogFormat::Auto, Some("warn")).and_then(|()| kubectl::run(&cli))),
            Err(error) => refused(&error),
        };
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    let serves = matches!(cli.command, Command::Controller(_) | Command::Speaker(_) | Command::Standalone(_));
    let quiet = if serves { None } else { Some("warn") };
    if let Err(failure) = logged(cli.log_format, cli.log_level.as_deref().or(quiet)) {
        return ended(Err(failure));
    }
    ended(match cli.command {
        Command::Controller(arguments) => controller::run(arguments),
        Command::Speaker(arguments) => speaker::run(*arguments),
        Command::Standalone(arguments) => standalone::run(arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Validate(arguments) => validate::run(&arguments),
        Command::Crds(arguments) => crds::run(&arguments),
        Command::Rights(arguments) => rights::run(&arguments),
        Command::Completion(arguments) => completion::run(&arguments),
        Command::Version(arguments) => version::run(&arguments),
    })
}

fn logged(format: LogFormat, level: Option<&str>) -> Result<(), Failure> {
    logging::init(format, level).map_err(Failure::Usage)
}

/// Help and version go to standard output with 0, usage errors to standard error with 2.
fn refused(error: &clap::Error) -> ExitCode {
    let code = if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
    let _ = error.print();
    code
}

fn ended(outcome: Result<Outcome, Failure>) -> ExitCode {
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::from(FAILED),
        Err(Failure::Usage(error)) => {
            eprintln!("error: {error}\n\nFor more information, try '--help'.");
            ExitCode::from(USAGE)
        }
        Err(Failure::Other(error)) => {
            eprintln!("error: {}", in_full(&error));
            ExitCode::from(FAILED)
        }
    }
}

/// An error with its causes, each once: some say their cause themselves.
fn in_full(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// The read API has no authentication: it is served to this host alone.
fn require_loopback(address: ListenAddress) -> Result<(), Failure> {
    if address.is_local() {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "--http-bind-address {address}: the read API has no authentication; give a loopback address, such as 127.0.0.1:50054"
    )))
}

/// How a command that ran to its end came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// It said what is wrong with the input.
    Failed,
}

impl Outcome {
    fn from_ok(ok: bool) -> Self {
        if ok { Self::Done } else { Self::Failed }
    }
}

/// Why a command did not run to its end.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The arguments are wrong.
    #[error("{0}")]
    Usage(String),
    /// Something else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Other(error.into())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::{Cli, in_full};

    #[test]
    fn causes_are_told_once() {
        let error =
            anyhow::anyhow!("no space").context("cannot write x: no space").context("it does not start");
        assert_eq!(in_full(&error), "it does not start: cannot write x: no space");
    }

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_every_option_has_help() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} {} has no help",
                    command.get_name(),
                    argument.get_id()
                );
            }
        }
    }
}
