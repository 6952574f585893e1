//! What each step took, and whether it held.

use std::{collections::BTreeMap, time::Instant};

use serde::Serialize;

/// One step.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was to happen.
    pub step: String,
    /// Whether it did.
    pub held: bool,
    /// How long the step took, seconds.
    pub seconds: f64,
    /// What was seen, or what went wrong.
    pub seen: Vec<String>,
    /// Figures by name; times in seconds.
    pub figures: BTreeMap<String, f64>,
}

/// All steps.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// In order.
    pub steps: Vec<Row>,
}

/// What a step tells while it runs.
#[derive(Debug)]
pub struct Detail {
    start: Instant,
    seen: Vec<String>,
    figures: BTreeMap<String, f64>,
}

impl Detail {
    /// Prints and keeps a line.
    pub fn say(&mut self, line: impl Into<String>) {
        let line = line.into();
        println!("   {:>6.2} s  {line}", self.start.elapsed().as_secs_f64());
        self.seen.push(line);
    }

    /// Keeps a figure.
    #[allow(clippy::cast_precision_loss, reason = "counts of requests")]
    pub fn count(&mut self, name: &str, count: usize) {
        self.figures.insert(name.to_owned(), count as f64);
    }

    /// Keeps a time.
    pub fn time(&mut self, name: &str, time: std::time::Duration) {
        self.figures.insert(name.to_owned(), time.as_secs_f64());
    }
}

impl Report {
    /// Runs a step. After one that did not hold, the next ones are tried all the same.
    pub fn step<T>(&mut self, name: &str, body: impl FnOnce(&mut Detail) -> anyhow::Result<T>) -> Option<T> {
        println!("\n{:>2}. {name}", self.steps.len() + 1);
        let mut detail = Detail { start: Instant::now(), seen: Vec::new(), figures: BTreeMap::new() };
        let result = body(&mut detail);
        if let Err(error) = &result {
            detail.say(format!("FAILED: {error:#}"));
        }
        self.steps.push(Row {
            step: name.to_owned(),
            held: result.is_ok(),
            seconds: detail.start.elapsed().as_secs_f64(),
            seen: detail.seen,
            figures: detail.figures,
        });
        result.ok()
    }

    /// Whether every step held.
    pub fn all_held(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|row| row.held)
    }

    /// Prints a line for each step.
    pub fn print_summary(&self) {
        println!("\nSummary");
        for (number, row) in self.steps.iter().enumerate() {
            let verdict = if row.held { "held" } else { "FAILED" };
            println!("{:>2}. {:<66} {:>7.2} s  {verdict}", number + 1, row.step, row.seconds);
        }
        let total: f64 = self.steps.iter().map(|row| row.seconds).sum();
        println!("    {:<66} {total:>7.2} s", "in all");
    }
}
