//! What commands print: tables for people, JSON and YAML for programs.

use std::{
    fmt,
    io::{self, Write as _},
};

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;

/// The value of `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people; may change.
    Table,
    /// JSON with a fixed shape.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Columns of text under a heading.
///
/// ```
/// use openelbd::cli::output::Table;
///
/// let mut table = Table::new(["NAME", "USED"]);
/// table.row(["web", "2"]);
/// assert_eq!(table.to_string(), "NAME  USED\nweb   2\n");
/// ```
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new<S: Into<String>>(headings: impl IntoIterator<Item = S>) -> Self {
        Self { rows: vec![headings.into_iter().map(Into::into).collect()] }
    }

    /// Adds a row. An empty cell is shown as `-`.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let cell =
            |cell: S| Some(cell.into()).filter(|cell| !cell.is_empty()).unwrap_or_else(|| "-".to_owned());
        self.rows.push(cells.into_iter().map(cell).collect());
    }

    /// Whether it has a heading only.
    pub fn is_empty(&self) -> bool {
        self.rows.len() <= 1
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                let padding = width.saturating_sub(cell.chars().count()) + 2;
                line.extend(std::iter::repeat_n(' ', padding));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Writes to standard output. A reader that went away (`| head`) is no error.
///
/// # Errors
/// If it cannot be written.
pub(super) fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes a value as indented JSON.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value).context("cannot print JSON")?;
    text.push('\n');
    Ok(write(text.as_bytes())?)
}

/// Writes a value as YAML.
pub(super) fn yaml(value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_saphyr::to_string(value).context("cannot print YAML")?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(write(text.as_bytes())?)
}
