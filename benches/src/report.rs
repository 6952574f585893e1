//! What a benchmark found, and whether that is good enough.

use serde::Serialize;

/// What is asked of a row. Absolute targets and ratios are judged only in a full run: a smoke run is too short, is not
/// optimised, and shares the machine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Our own figure is at most this.
    AtMost(f64),
    /// Our own figure is at least this.
    AtLeast(f64),
    /// Ours divided by the peer's is at most this.
    RatioAtMost(f64),
    /// Ours divided by the peer's is at least this.
    RatioAtLeast(f64),
    /// One of two is enough: our figure is at least the first, or ours divided by the peer's is at least the second.
    AtLeastOrRatioAtLeast(f64, f64),
    /// One of two is enough: our figure is at most the first, or ours divided by the peer's is at most the second.
    AtMostOrRatioAtMost(f64, f64),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(x) => write!(f, "<= {}", Figure(*x)),
            Self::AtLeast(x) => write!(f, ">= {}", Figure(*x)),
            Self::RatioAtMost(x) => write!(f, "ratio <= {}", Figure(*x)),
            Self::RatioAtLeast(x) => write!(f, "ratio >= {}", Figure(*x)),
            Self::AtLeastOrRatioAtLeast(x, r) => write!(f, ">= {} or ratio >= {}", Figure(*x), Figure(*r)),
            Self::AtMostOrRatioAtMost(x, r) => write!(f, "<= {} or ratio <= {}", Figure(*x), Figure(*r)),
        }
    }
}

/// What came of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The target is met.
    Met,
    /// The target is missed.
    Missed,
    /// The row has no target, or a smoke run does not judge it.
    NotJudged,
    /// The figure cannot be one: zero, negative or not a number, so nothing was measured. Fails smoke runs too.
    NoWork,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Met => "met",
            Self::Missed => "MISSED",
            Self::NotJudged => "-",
            Self::NoWork => "NO WORK",
        })
    }
}

/// Someone else's figure for the same work.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Peer {
    /// Program or library with its version, for example `bird 2.17.1`.
    pub name: String,
    /// Its figure, in the row's unit.
    pub value: f64,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What was done, for example `decode UPDATE, 500 /32`.
    pub name: String,
    /// The unit of `ours` and of the peer's value, for example `ns/op` or `routes/s`.
    pub unit: String,
    /// Our figure.
    pub ours: f64,
    /// The peer's, if there is one.
    pub peer: Option<Peer>,
    /// What is asked.
    pub target: Option<Target>,
    /// Whether this figure counts a thing that may rightly be zero (losses, errors).
    pub may_be_zero: bool,
}

impl Row {
    /// A row with our own figure.
    #[must_use]
    pub fn new(name: impl Into<String>, unit: impl Into<String>, ours: f64) -> Self {
        Self { name: name.into(), unit: unit.into(), ours, peer: None, target: None, may_be_zero: false }
    }

    /// Adds the figure of a peer for the same work in the same run.
    #[must_use]
    pub fn beside(mut self, peer: impl Into<String>, value: f64) -> Self {
        self.peer = Some(Peer { name: peer.into(), value });
        self
    }

    /// Says what is asked of the row.
    #[must_use]
    pub const fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// Says that zero is a rightful figure here.
    #[must_use]
    pub const fn zero_is_fine(mut self) -> Self {
        self.may_be_zero = true;
        self
    }

    /// Ours divided by the peer's.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        self.peer.as_ref().map(|peer| self.ours / peer.value)
    }

    /// Whether figures and target fit. `judge` is false in a smoke run.
    #[must_use]
    pub fn verdict(&self, judge: bool) -> Verdict {
        let real = |x: f64| x.is_finite() && (x > 0.0 || (self.may_be_zero && x == 0.0));
        if !real(self.ours) || self.peer.as_ref().is_some_and(|peer| !real(peer.value)) {
            return Verdict::NoWork;
        }
        let Some(target) = self.target.filter(|_| judge) else { return Verdict::NotJudged };
        // A ratio target without a peer is missed: the peer that should have been there was not.
        let at_most = |limit: f64| self.ratio().is_some_and(|ratio| ratio <= limit);
        let at_least = |limit: f64| self.ratio().is_some_and(|ratio| ratio >= limit);
        let met = match target {
            Target::AtMost(limit) => self.ours <= limit,
            Target::AtLeast(limit) => self.ours >= limit,
            Target::RatioAtMost(limit) => at_most(limit),
            Target::RatioAtLeast(limit) => at_least(limit),
            Target::AtLeastOrRatioAtLeast(limit, ratio) => self.ours >= limit || at_least(ratio),
            Target::AtMostOrRatioAtMost(limit, ratio) => self.ours <= limit || at_most(ratio),
        };
        if met { Verdict::Met } else { Verdict::Missed }
    }
}

/// What one part of a suite found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    rows: Vec<Row>,
    notes: Vec<String>,
    failures: Vec<String>,
}

/// Whether a whole run is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every judged target is met.
    Good,
    /// A target is missed, or a row measured nothing.
    Bad,
}

impl Report {
    /// An empty report.
    #[must_use]
    pub const fn new() -> Self {
        Self { rows: Vec::new(), notes: Vec::new(), failures: Vec::new() }
    }

    /// Adds a row.
    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Adds a line that a reader needs to understand the rows, for example why a peer is missing.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Adds the rows and notes of another report.
    pub fn extend(&mut self, other: Self) {
        self.rows.extend(other.rows);
        self.notes.extend(other.notes);
        self.failures.extend(other.failures);
    }

    /// Adds what was measured; or that it could not be, without which the rest still counts.
    pub fn extend_or_fail(&mut self, what: &str, result: anyhow::Result<Self>) {
        match result {
            Ok(report) => self.extend(report),
            Err(error) => self.failures.push(format!("{what}: {error:#}")),
        }
    }

    /// The rows so far.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The notes so far.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What could not be measured.
    #[must_use]
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Bad when a target is missed, something could not be measured, a row measured nothing, or there is no row at all.
    #[must_use]
    pub fn outcome(&self, judge: bool) -> Outcome {
        let bad = |row: &Row| matches!(row.verdict(judge), Verdict::Missed | Verdict::NoWork);
        if self.rows.is_empty() || !self.failures.is_empty() || self.rows.iter().any(bad) {
            Outcome::Bad
        } else {
            Outcome::Good
        }
    }

    /// The rows as a table of text.
    #[must_use]
    pub fn table(&self, judge: bool) -> String {
        let mut cells =
            vec![["what", "ours", "peer", "ratio", "unit", "target", "verdict"].map(String::from)];
        for row in &self.rows {
            let peer = row.peer.as_ref();
            cells.push([
                row.name.clone(),
                Figure(row.ours).to_string(),
                peer.map_or_else(|| "-".into(), |peer| format!("{} ({})", Figure(peer.value), peer.name)),
                row.ratio().map_or_else(|| "-".into(), |ratio| format!("{}x", Figure(ratio))),
                row.unit.clone(),
                row.target.map_or_else(|| "-".into(), |target| target.to_string()),
                row.verdict(judge).to_string(),
            ]);
        }
        let mut widths = [0usize; 7];
        for line in &cells {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for line in &cells {
            for (column, (width, cell)) in widths.iter().zip(line).enumerate() {
                let pad = " ".repeat(width - cell.chars().count());
                // Figures to the right, words to the left.
                let (before, after) =
                    if matches!(column, 1..=3) { (pad.as_str(), "") } else { ("", pad.as_str()) };
                text.push_str(&format!("{before}{cell}{after}  "));
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        for failure in &self.failures {
            text.push_str(&format!("FAILED: {failure}\n"));
        }
        text
    }
}

/// A figure with three significant digits, or all of its whole part.
struct Figure(f64);

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let size = self.0.abs();
        if size >= 100.0 || self.0 == 0.0 {
            write!(f, "{:.0}", self.0)
        } else if size >= 10.0 {
            write!(f, "{:.1}", self.0)
        } else if size >= 1.0 {
            write!(f, "{:.2}", self.0)
        } else {
            write!(f, "{:.3}", self.0)
        }
    }
}
