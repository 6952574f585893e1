//! `openelbd standalone` beside routers of other makes, every cell of the matrix.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use openelb_lab::{
    interop::{self, Cell, Column, Matrix},
    routers::Make,
};

fn all_pass(make: Make) {
    let outcomes = interop::run(make).unwrap();
    assert_eq!(outcomes.len(), Cell::ALL.len());
    let matrix = Matrix { columns: vec![Column { version: make.version().unwrap(), outcomes }] };
    assert_eq!(matrix.failures(), Vec::<String>::new());
}

#[test]
fn interop_bird() {
    all_pass(Make::Bird);
}

#[test]
fn interop_frr() {
    all_pass(Make::Frr);
}

#[test]
fn interop_gobgp() {
    all_pass(Make::Gobgp);
}
