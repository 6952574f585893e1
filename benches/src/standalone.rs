//! `openelbd standalone` while nothing happens, in the lab: one BGP peer, 100 Services.

use std::time::Duration;

use crate::{Options, Report, Row, Target};

/// Measures an instance that has announced everything.
///
/// # Errors
/// Not root, a program of the lab or `openelbd` is missing (says which), or the routes do not arrive.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let openelbd = openelb_lab::binary("openelbd")?;
    let window = Duration::from_secs(if options.smoke { 2 } else { 60 });
    let idle = openelb_lab::idle::measure(&openelbd, 100, window)?;
    let mut report = Report::new();
    report.push(
        Row::new("resident memory, 1 peer, 100 Services", "MB", idle.resident as f64 / 1e6)
            .target(Target::AtMost(20.0)),
    );
    report.push(
        Row::new("processor time while idle", "% of a core", idle.core * 100.0)
            .target(Target::AtMost(0.5))
            .zero_is_fine(),
    );
    report.push(Row::new(
        "start of the process to the last of 100 routes",
        "ms",
        idle.routed.as_secs_f64() * 1e3,
    ));
    Ok(report)
}
