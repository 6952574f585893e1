//! The demo, as a test: every step holds.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use openelb_lab::{binary, demo};

#[test]
fn every_step_of_the_demo_holds() {
    let options = demo::Options {
        openelbd: binary("openelbd").unwrap(),
        manifests: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo"),
        keep: false,
    };
    let report = demo::run(&options).unwrap();
    let failed: Vec<_> = report.steps.iter().filter(|row| !row.held).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(report.steps.len(), 19, "a step was left out");
}
