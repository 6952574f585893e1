//! OpenELB's daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    openelbd::cli::main()
}
