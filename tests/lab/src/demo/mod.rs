//! The demo: pools, addresses, routes and traffic, step by step, on one machine and without a cluster.

mod report;
mod stage;
mod steps;

use std::path::PathBuf;

pub use report::{Report, Row};

/// What the demo is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `openelbd` to run on the nodes.
    pub openelbd: PathBuf,
    /// The directory of the demo's manifests; they are copied, and edited there.
    pub manifests: PathBuf,
    /// Leave everything running at the end, and say how to look at it, until standard input ends or a signal comes.
    pub keep: bool,
}

/// Plays the demo, printing as it goes.
///
/// # Errors
/// The lab cannot be made. A step that does not hold is no error but in the [`Report`].
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let lab = report.step("Network: router, three nodes, three pods, a client", |detail| {
        let lab = crate::topology::start("demo")?;
        detail.say(format!("in {}, in namespaces of its own", lab.path().display()));
        Ok(lab)
    });
    let Some(lab) = lab else { return Ok(report) };
    let stage = stage::Stage::new(&lab, options)?;
    steps::play(&stage, &mut report);
    report.print_summary();
    if !report.all_held() {
        stage.print_where_to_look();
    }
    if options.keep {
        stage.keep()?;
    }
    Ok(report)
}
