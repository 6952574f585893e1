//! OpenELB's benchmarks, beside its peers in the same run.
//!
//! A suite is a list of parts. A part is a function `fn(&Options) -> anyhow::Result<Report>` which measures and
//! returns rows; it prints nothing and judges nothing itself. To add one, write it in a module of its own and name it
//! in [`suites::all`].
//!
//! ```
//! use openelb_benches::{Options, Report, Row, Target};
//!
//! fn sorting(options: &Options) -> anyhow::Result<Report> {
//!     let n: u32 = options.scaled(100_000);
//!     let input: Vec<u32> = (0..n).rev().collect();
//!     let mut report = Report::new();
//!     let ours = options.best_of(|| input.clone(), |mut v| { v.sort_unstable(); v });
//!     let peer = options.best_of(|| input.clone(), |mut v| { v.sort(); v });
//!     report.push(
//!         Row::new("sort reversed", "ns/item", ours.per(u64::from(n)))
//!             .beside("slice::sort", peer.per(u64::from(n)))
//!             .target(Target::RatioAtMost(20.0)),
//!     );
//!     Ok(report)
//! }
//!
//! let report = sorting(&Options::smoke())?;
//! assert_eq!(report.rows().len(), 1);
//! # anyhow::Ok(())
//! ```

pub mod bgp_child;
pub mod bgp_codec;
pub mod bgp_originate;
mod bgp_routers;
mod bgp_session;
mod collector;
pub mod ipam;
pub mod kube;
pub mod l2;
mod machine;
pub mod plan;
mod report;
pub mod standalone;
pub mod suites;
#[cfg(test)]
mod tests;

use std::hint::black_box;
use std::time::{Duration, Instant};

pub use machine::Machine;
pub use report::{Outcome, Peer, Report, Row, Target, Verdict};

/// How a run measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Seconds instead of minutes: shows that the bench works, judges no target. Sizes come from [`Options::scaled`].
    pub smoke: bool,
    /// How often each measurement is made; the best counts, because noise on a shared machine only ever adds.
    pub rounds: u32,
    /// Only this many Services, where the number of Services varies.
    pub services: Option<usize>,
}

impl Options {
    /// A real run: best of 9.
    #[must_use]
    pub const fn full() -> Self {
        Self { smoke: false, rounds: 9, services: None }
    }

    /// A run of a few seconds: best of 2, sizes divided by 100.
    #[must_use]
    pub const fn smoke() -> Self {
        Self { smoke: true, rounds: 2, services: None }
    }

    /// `n`, or a hundredth of it (at least 1) in a smoke run.
    #[must_use]
    pub fn scaled<N: Copy + Ord + std::ops::Div<Output = N> + From<u8>>(&self, n: N) -> N {
        if self.smoke { (n / N::from(100)).max(N::from(1)) } else { n }
    }

    /// Is this number of Services to be measured?
    #[must_use]
    pub fn wants(&self, services: usize) -> bool {
        self.services.is_none_or(|wanted| wanted == services)
    }

    /// Runs `work` on a fresh `setup()` [`rounds`](Self::rounds) times and returns the shortest time of `work` alone.
    /// Neither building the input nor dropping the result is measured.
    pub fn best_of<I, O>(&self, mut setup: impl FnMut() -> I, mut work: impl FnMut(I) -> O) -> Best {
        let mut best = Duration::MAX;
        for _ in 0..self.rounds.max(1) {
            let input = black_box(setup());
            let start = Instant::now();
            let output = black_box(work(input));
            best = best.min(start.elapsed());
            drop(output);
        }
        Best { time: best }
    }

    /// As [`best_of`](Self::best_of) for work that measures itself, for example from a session's start to its last
    /// route.
    ///
    /// # Errors
    /// The first error of `work`.
    pub fn best_measured(&self, mut work: impl FnMut() -> anyhow::Result<Duration>) -> anyhow::Result<Best> {
        let mut best = Duration::MAX;
        for _ in 0..self.rounds.max(1) {
            best = best.min(work()?);
        }
        Ok(Best { time: best })
    }
}

/// The shortest of several measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Best {
    /// The time of one whole round.
    pub time: Duration,
}

impl Best {
    /// Nanoseconds for each of the `operations` which a round made.
    #[must_use]
    pub fn per(&self, operations: u64) -> f64 {
        self.time.as_secs_f64() * 1e9 / (operations.max(1) as f64)
    }

    /// Operations a second, when a round makes `operations`.
    #[must_use]
    pub fn rate(&self, operations: u64) -> f64 {
        (operations as f64) / self.time.as_secs_f64().max(1e-12)
    }

    /// Milliseconds of the whole round.
    #[must_use]
    pub fn milliseconds(&self) -> f64 {
        self.time.as_secs_f64() * 1e3
    }
}
