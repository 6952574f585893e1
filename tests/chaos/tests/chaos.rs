//! What controllers promise while everything goes wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::time::Duration;

use openelb_chaos::{Plan, run};

/// A number from the environment: `cargo xtask soak` asks for more.
fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn a_thousand_operations_while_everything_goes_wrong_break_no_promise() {
    let plan = Plan {
        operations: number("OPENELB_CHAOS_OPERATIONS", 1000),
        time: Duration::from_secs(number("OPENELB_CHAOS_SECONDS", 0)),
        seed: number("OPENELB_CHAOS_SEED", 1),
        ..Plan::default()
    };
    let report = run("chaos", plan).unwrap();
    println!(
        "{plan:?}: {} publications, {} announcements, {:#?}",
        report.publications, report.announcements, report.done
    );
    assert!(report.violations.is_empty(), "{:#?}\n{}", report.violations, report.logs);
    // It was not quiet.
    assert!(report.publications > plan.operations / 5, "{}", report.publications);
    assert!(report.announcements > report.publications / 4, "{}", report.announcements);
    for what in [
        "controller killed",
        "controller suspended",
        "a second leader at once",
        "speaker killed",
        "API server restarted",
        "status of a Service lost",
        "status of an Eip lost",
        "pool grown",
        "pool shrunk",
        "pool split",
        "pool disabled or enabled",
        "answer lost",
        "stale list",
        "watch cut",
        "409",
        "410",
        "429",
        "500",
        "late",
    ] {
        assert!(report.done.contains_key(what), "{what} did not happen: {:#?}", report.done);
    }
}
