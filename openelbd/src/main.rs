//! OpenELB's daemon.

use std::process::ExitCode;

/// Thousands of objects are read at a time, and most of what they took is free afterwards. This allocator gives it back;
/// `.cargo/config.toml` says how soon.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    openelbd::cli::main()
}
