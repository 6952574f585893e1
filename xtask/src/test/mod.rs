//! `cargo xtask test`: every test of the workspace, each in a process of its own, two side by side.
//!
//! A process for each test means that a test that hangs, aborts or exhausts its stack fails with its own name and takes
//! no other with it, and that the output shown for a failure is its own.

mod cargo;
mod libtest;
mod runner;

use std::time::{Duration, Instant};

use clap::Args;

use crate::{kube, shell, system};

/// Run every test of the workspace: unit, documentation, integration and lab.
///
/// Installs what the tests need from Debian (saying so first), builds everything once, and runs the tests, each in its
/// own process. The lab's tests need root: they make network namespaces. The last line is `N passed, N failed, N
/// skipped`; the exit code is 1 if a test failed or none ran.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Run only tests whose name contains one of these, for example `range::` or `openelb-lab`.
    filters: Vec<String>,
    /// Only the tests of this package; can be repeated.
    #[arg(long, short, value_name = "NAME")]
    package: Vec<String>,
    /// A test that runs longer has failed.
    #[arg(long, value_name = "SECONDS", default_value_t = TIMEOUT_SECONDS, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// How many tests run side by side [default: the number of cores].
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Print a line for each test, not only for the slow and the failed ones.
    #[arg(long, short)]
    verbose: bool,
}

impl Arguments {
    /// Every test, with the defaults of the command line.
    pub(crate) const fn all() -> Self {
        Self {
            filters: Vec::new(),
            package: Vec::new(),
            timeout: TIMEOUT_SECONDS,
            jobs: None,
            verbose: false,
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter.as_str()))
    }
}

/// Generous: a test on a machine that is busy with a build may take long; a hang takes for ever.
const TIMEOUT_SECONDS: u64 = 300;
/// The package whose tests run programs in network namespaces.
pub(crate) const LAB: &str = "openelb-lab";

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let start = Instant::now();
    let chosen =
        |name: &str| arguments.package.is_empty() || arguments.package.iter().any(|package| package == name);
    if chosen(LAB) {
        system::require_root("cargo xtask test")?;
    }
    if chosen(LAB) || chosen("openelb-bgp") {
        system::require("cargo xtask test", system::LAB)?;
    }
    // Beside the rest: Go and Rust fill each other's gaps. With filters it is known only later whether it is needed.
    let everything = arguments.filters.is_empty();
    let control_plane = (everything && chosen(LAB)).then(kube::start).transpose()?;
    let binaries = cargo::build(&arguments.package)?;
    let cases = cargo::cases(&binaries, |name| arguments.wants(name))?;
    if let Some(build) = control_plane {
        build.finish()?;
    } else if cases.iter().any(|case| case.binary.package == LAB) {
        kube::start()?.finish()?;
    }
    println!("built in {}", shell::seconds(start.elapsed()));

    let documentation =
        if arguments.filters.is_empty() { cargo::libraries(&arguments.package)? } else { Vec::new() };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let options = runner::Options {
        jobs: arguments.jobs.map_or(cores, usize::from),
        timeout: Duration::from_secs(arguments.timeout),
        verbose: arguments.verbose,
    };
    let totals = runner::run(&cases, &documentation, &options)?;
    println!("\nbuilt and tested in {}", shell::seconds(start.elapsed()));
    println!("{totals}");
    Ok(u8::from(!totals.is_good()))
}
