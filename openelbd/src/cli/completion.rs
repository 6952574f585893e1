//! `openelbd completion`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, Failure, Outcome};

/// Print a completion script for a shell
///
/// For example: openelbd completion bash > /etc/bash_completion.d/openelbd
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "openelbd", &mut script);
    super::output::write(&script)?;
    Ok(Outcome::Done)
}
