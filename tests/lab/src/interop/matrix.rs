//! The outcomes as a page of the manual.

use std::fmt::Write as _;

use super::Cell;

/// What came of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It works.
    Passes,
    /// It works in one direction; which, and why the other cannot be tried.
    OneWay(&'static str),
    /// The router does not offer it, and why we say so.
    Lacks(&'static str),
    /// It does not work.
    Fails(String),
}

/// The outcomes with one make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name and version.
    pub version: String,
    /// What came of each cell.
    pub outcomes: Vec<(Cell, Outcome)>,
}

/// The outcomes with all makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matrix {
    /// In the order of the page.
    pub columns: Vec<Column>,
}

impl Matrix {
    /// What failed, one line each.
    pub fn failures(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for Column { version, outcomes } in &self.columns {
            for (cell, outcome) in outcomes {
                if let Outcome::Fails(reason) = outcome {
                    lines.push(format!("{version}, {}: {reason}", cell.title()));
                }
            }
        }
        lines
    }

    /// The page `docs/src/interop.md`.
    pub fn page(&self) -> String {
        let mut text = String::from(
            "# Interoperability\n\n\
             `openelbd standalone` in a lab beside routers from Debian; written by `cargo xtask soak interop`. A cell passes \
             when the session comes up with the feature, the router has our routes and we have the router's (as \
             `gobgp neighbor ROUTER adj-in` shows them), each with the right next hops, and the feature shows in both; or it \
             says which side lacks it. `cargo xtask test interop` runs the columns of BIRD, FRR and GoBGP.\n\n\
             - communities, add-path, extended messages: as we send them, and as we receive them;\n\
             - TCP MD5, GTSM: a segment without signature, or from two hops away, is dropped and counted by our kernel while \
             the session goes on;\n\
             - route refresh: either side asks, the other sends its routes again, and no session ends;\n\
             - graceful restart, the router restarts: it is killed; its routes stay with us, marked as stale, and those of \
             another session go; when it is back what it sends again is fresh, and what it does not is gone;\n\
             - graceful restart, we restart: we are killed; the router keeps our routes all the time, and those of another \
             session go.\n\n|  |",
        );
        for Column { version, .. } in &self.columns {
            let _ = write!(text, " {version} |");
        }
        text.push_str("\n|---|");
        for _ in &self.columns {
            text.push_str("---|");
        }
        let mut notes: Vec<&'static str> = Vec::new();
        for cell in Cell::ALL {
            let _ = write!(text, "\n| {} |", cell.title());
            for Column { outcomes, .. } in &self.columns {
                let mut number = |reason: &'static str| {
                    let known = notes.iter().position(|note| *note == reason);
                    known.unwrap_or_else(|| {
                        notes.push(reason);
                        notes.len() - 1
                    }) + 1
                };
                let outcome = outcomes.iter().find(|(other, _)| *other == cell).map(|(_, outcome)| outcome);
                match outcome {
                    Some(Outcome::Passes) => text.push_str(" yes |"),
                    Some(Outcome::OneWay(reason)) => drop(write!(text, " one way ({}) |", number(reason))),
                    Some(Outcome::Lacks(reason)) => drop(write!(text, " – ({}) |", number(reason))),
                    Some(Outcome::Fails(_)) => text.push_str(" **no** |"),
                    None => text.push_str(" not run |"),
                }
            }
        }
        text.push_str("\n\n");
        for (number, note) in notes.iter().enumerate() {
            let _ = writeln!(text, "{}. {note}.", number + 1);
        }
        for failure in self.failures() {
            let _ = writeln!(text, "- {failure}");
        }
        text
    }
}
