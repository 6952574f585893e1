//! How many trials, what is allowed, and the table of what was measured.

use std::{fmt::Display, fs::OpenOptions, io::Write as _, time::Duration};

use anyhow::Context as _;

/// How often something is tried: `$OPENELB_LAYER2_TRIALS`, else five times.
pub fn trials() -> usize {
    std::env::var("OPENELB_LAYER2_TRIALS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

/// Whether this is a soak, whose ceilings are those that we promise; else they are loose.
pub fn is_soak() -> bool {
    std::env::var_os("OPENELB_LAYER2_TRIALS").is_some()
}

/// What a machine that stands still for a moment may cost, beside the time that a test watches.
const STANDSTILL: Duration = Duration::from_millis(700);

/// What is allowed of what is promised: in a soak the same, else three times as much, and at least what a machine costs
/// that stands still.
pub fn loose(time: Duration) -> Duration {
    if is_soak() { time } else { (time * 3).max(STANDSTILL) }
}

/// All that is measured, in the order of the table.
pub const ROWS: [&str; 20] = [
    "link down: new clients",
    "link down: clients",
    "node cut off: new clients",
    "node cut off: clients",
    "SIGTERM: new clients",
    "SIGTERM: clients",
    "cordon: new clients",
    "cordon: clients",
    "exclude label: new clients",
    "exclude label: clients",
    "rolling update: new clients",
    "rolling update: clients",
    "rolling update: broken downloads of 12",
    "speaker killed: new clients",
    "speaker killed: clients",
    "speaker killed: broken downloads of 12",
    "reboot and return: resets of a connection",
    "failback after it: resets of a connection",
    "one-way cut: until one answers",
    SPREAD,
];

/// The row that is no time.
pub const SPREAD: &str = "100 addresses on 10 nodes: most at one node";

/// The table, from the rows of a run in whatever order.
///
/// # Errors
/// A row is missing, is there twice, or is none of [`ROWS`].
pub fn table(rows: &str) -> anyhow::Result<String> {
    let name = |row: &str| row.split('|').nth(1).map(|name| name.trim().to_owned()).unwrap_or_default();
    if let Some(unknown) = rows.lines().find(|row| !ROWS.contains(&name(row).as_str())) {
        anyhow::bail!("no row of the table: {unknown}");
    }
    let mut table = String::from("| | trials | median | maximum | at most |\n|---|---|---|---|---|\n");
    let (mut missing, mut twice) = (Vec::new(), Vec::new());
    for row in ROWS {
        let mut of = rows.lines().filter(|line| name(line) == row);
        match (of.next(), of.next()) {
            (Some(line), None) => table.extend([line, "\n"]),
            (None, _) => missing.push(row),
            (Some(_), Some(_)) => twice.push(row),
        }
    }
    anyhow::ensure!(missing.is_empty(), "not measured: {}", missing.join(", "));
    anyhow::ensure!(twice.is_empty(), "measured twice: {}", twice.join(", "));
    Ok(table)
}

/// Prints a row of the table, and appends it to `$OPENELB_LAYER2_FIGURES` if there is such a variable.
///
/// # Errors
/// It is none of [`ROWS`], or the file cannot be written.
pub fn write_row(name: &str, trials: usize, values: [&dyn Display; 3]) -> anyhow::Result<()> {
    anyhow::ensure!(ROWS.contains(&name), "{name:?} is no row of the table");
    let [median, maximum, most] = values;
    let line = format!("| {name} | {trials} | {median} | {maximum} | {most} |");
    println!("{line}");
    if let Some(file) = std::env::var_os("OPENELB_LAYER2_FIGURES") {
        let mut file =
            OpenOptions::new().create(true).append(true).open(&file).context("cannot write the figures")?;
        writeln!(file, "{line}")?;
    }
    Ok(())
}

/// Prints a row of what was counted, trial by trial, and holds the maximum against what is promised.
///
/// # Errors
/// As [`write_row`]; it was more.
pub fn judge_counts(name: &str, counts: &[usize], most: usize) -> anyhow::Result<()> {
    let mut counts = counts.to_vec();
    counts.sort_unstable();
    let (median, maximum) = (counts.get(counts.len() / 2), counts.last());
    let (median, maximum) = median.zip(maximum).context("nothing was counted")?;
    write_row(name, counts.len(), [median, maximum, &most])?;
    anyhow::ensure!(*maximum <= most, "{name}: {maximum}, and not {most} at most: {counts:?}");
    Ok(())
}

/// What was measured of one thing, trial by trial.
#[derive(Debug)]
pub struct Figures {
    name: String,
    times: Vec<Duration>,
}

impl Figures {
    /// Of what.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), times: Vec::new() }
    }

    /// One trial.
    pub fn add(&mut self, time: Duration) {
        self.times.push(time);
    }

    fn quantile(&self, share: f64) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        let last = times.len().saturating_sub(1);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index of a short list"
        )]
        let index = (last as f64 * share).ceil() as usize;
        times.get(index).copied().unwrap_or_default()
    }

    /// Prints the line of the table, appends it to `$OPENELB_LAYER2_FIGURES` if there is such a variable, and holds
    /// median and maximum against what is promised: in a soak as it is, else the median against three times as much, and the
    /// maximum against what [`loose`] says.
    ///
    /// # Errors
    /// It took longer.
    pub fn judge(&self, median: Duration, maximum: Duration) -> anyhow::Result<()> {
        self.judge_times(median * if is_soak() { 1 } else { 3 }, loose(maximum), maximum)
    }

    /// The same for what is promised with room enough: it holds in every run.
    ///
    /// # Errors
    /// It took longer.
    pub fn judge_strictly(&self, median: Duration, maximum: Duration) -> anyhow::Result<()> {
        self.judge_times(median, maximum, maximum)
    }

    fn judge_times(&self, median: Duration, maximum: Duration, promised: Duration) -> anyhow::Result<()> {
        let (p50, max) = (self.quantile(0.5), self.quantile(1.0));
        let ms = |time: Duration| format!("{} ms", time.as_millis());
        write_row(&self.name, self.times.len(), [&ms(p50), &ms(max), &ms(promised)])?;
        anyhow::ensure!(
            p50 <= median && max <= maximum,
            "{}: median {p50:?} of {median:?}, maximum {max:?} of {maximum:?}: {:?}",
            self.name,
            self.times
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::{ROWS, table};

    #[test]
    fn a_table_has_every_row_once_and_in_order() {
        let line = |name: &str| format!("| {name} | 50 | 1 ms | 2 ms | 3 ms |\n");
        let all: String = ROWS.iter().rev().map(|name| line(name)).collect();
        let whole = table(&all).unwrap();
        let names: Vec<_> = whole.lines().skip(2).filter_map(|row| row.split('|').nth(1)).collect();
        assert_eq!(names.iter().map(|name| name.trim()).collect::<Vec<_>>(), ROWS);

        let without: String = ROWS.iter().skip(1).map(|name| line(name)).collect();
        let error = table(&without).unwrap_err().to_string();
        assert_eq!(error, format!("not measured: {}", ROWS[0]));
        let twice = format!("{all}{}", line(ROWS[3]));
        assert_eq!(table(&twice).unwrap_err().to_string(), format!("measured twice: {}", ROWS[3]));
        assert!(table(&format!("{all}{}", line("something else"))).is_err());
        assert!(table("").is_err());
    }
}
