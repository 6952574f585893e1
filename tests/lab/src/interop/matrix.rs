//! The outcomes as a page of the manual.

use std::fmt::Write as _;

use super::Cell;

/// What came of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It works.
    Passes,
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
             when the session comes up with the feature and the router has our routes with the right next hops, or it says \
             which side lacks the feature. `cargo xtask test interop` runs the columns of BIRD, FRR and GoBGP.\n\n|  |",
        );
        for Column { version, .. } in &self.columns {
            let _ = write!(text, " {version} |");
        }
        text.push_str("\n|---|");
        for _ in &self.columns {
            text.push_str("---|");
        }
        let mut notes: Vec<&str> = Vec::new();
        for cell in Cell::ALL {
            let _ = write!(text, "\n| {} |", cell.title());
            for Column { outcomes, .. } in &self.columns {
                let outcome = outcomes.iter().find(|(other, _)| *other == cell).map(|(_, outcome)| outcome);
                match outcome {
                    Some(Outcome::Passes) => text.push_str(" yes |"),
                    Some(Outcome::Lacks(reason)) => {
                        let number = notes.iter().position(|note| note == reason).unwrap_or_else(|| {
                            notes.push(reason);
                            notes.len() - 1
                        });
                        let _ = write!(text, " – ({}) |", number + 1);
                    }
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
