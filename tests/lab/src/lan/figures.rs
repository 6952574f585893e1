//! How many trials, what is allowed, and the table of what was measured.

use std::{fs::OpenOptions, io::Write as _, path::PathBuf, time::Duration};

use anyhow::Context as _;

/// How often something is tried: `$OPENELB_LAYER2_TRIALS`, else five times.
pub fn trials() -> usize {
    std::env::var("OPENELB_LAYER2_TRIALS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

/// Whether this is a soak, whose ceilings are those that we promise; else they are loose.
pub fn is_soak() -> bool {
    std::env::var_os("OPENELB_LAYER2_TRIALS").is_some()
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
    /// median and maximum against what is promised: in a soak as it is, else three times as much.
    ///
    /// # Errors
    /// It took longer.
    pub fn judge(&self, median: Duration, maximum: Duration) -> anyhow::Result<()> {
        let (p50, max) = (self.quantile(0.5), self.quantile(1.0));
        let ms = |time: Duration| time.as_millis();
        let line = format!(
            "| {} | {} | {} ms | {} ms | {} ms |",
            self.name,
            self.times.len(),
            ms(p50),
            ms(max),
            ms(maximum)
        );
        println!("{line}");
        if let Some(file) = std::env::var_os("OPENELB_LAYER2_FIGURES") {
            let file = PathBuf::from(file);
            let mut file =
                OpenOptions::new().create(true).append(true).open(&file).context("cannot write")?;
            writeln!(file, "{line}")?;
        }
        let loose = if is_soak() { 1 } else { 3 };
        anyhow::ensure!(
            p50 <= median * loose && max <= maximum * loose,
            "{}: median {p50:?} of {median:?}, maximum {max:?} of {maximum:?} (times {loose}): {:?}",
            self.name,
            self.times
        );
        Ok(())
    }
}
