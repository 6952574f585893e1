//! `openelbd standalone` beside routers of other makes, feature by feature, many sessions side by side.
//!
//! ```text
//!  dut (AS 64501) ══ one wire, a pair of addresses for each session ══ router (AS 64512)
//!        └───────────────────────── middle ──────────────────────────┘
//! ```

mod cells;
mod checks;
mod dut;
mod matrix;

use std::time::{Duration, Instant};

use anyhow::Context as _;
pub use cells::Cell;
use cells::Evidence;
use dut::Dut;
pub use matrix::{Column, Matrix, Outcome};

use crate::{
    Lab,
    routers::{Make, Session},
};

const DUT: &str = "dut";
const ROUTER: &str = "router";
const MIDDLE: &str = "middle";
const OUR_AS: u32 = 64501;
const THEIR_AS: u32 = 64512;
const PASSWORD: &str = "of-the-lab";
/// The addresses of the one Service.
const ADDRESSES: [&str; 2] = ["198.51.100.10", "fd00:5b::10"];
/// A session comes up, or a route arrives, within this. OpenBGPD waits 30 s after a connection that was refused.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs every cell with one make of router.
///
/// # Errors
/// The lab cannot be made, or router or `openelbd` do not start. What a cell finds is in the outcome.
pub fn run(make: Make) -> anyhow::Result<Vec<(Cell, Outcome)>> {
    let lab = Lab::start(&format!("interop-{}", make.name().to_lowercase()))?;
    lab.network(cells::network)?;
    let tried = |cell: &Cell| cell.lacking(make).is_none_or(|lacking| lacking.evidence != Evidence::Manual);
    let cells: Vec<Cell> = Cell::ALL.into_iter().filter(tried).collect();
    let sessions: Vec<Session> = cells.iter().map(|cell| cell.session()).collect();
    let mut dut = Dut::start(&lab, &cells)?;
    let mut router = make.start(&lab, ROUTER, &sessions)?;
    let began = Instant::now();
    let mut outcomes = Vec::new();
    // Those that end processes come last; the other sessions are there to be compared with.
    for cell in Cell::ALL {
        let session = cell.session();
        // All sessions come up at the same time: those that never do share one deadline.
        let deadline = DEADLINE.saturating_sub(began.elapsed()).max(Duration::from_secs(2));
        let established =
            |router: &dyn crate::routers::Router| checks::established(router, &session, deadline);
        let (result, outcome) = match cell.lacking(make) {
            Some(lacking) => {
                let shown = match lacking.evidence {
                    Evidence::Manual => Ok(()),
                    evidence => {
                        established(router.as_ref()).and_then(|()| checks::lacks(&dut, &session, evidence))
                    }
                };
                (shown.context("it is said to lack this"), Outcome::Lacks(lacking.why))
            }
            None => {
                let result = established(router.as_ref()).and_then(|()| match cell {
                    Cell::TheirRestart => {
                        let asks = cell.one_way(make).is_none();
                        checks::their_restart(&lab, &dut, router.as_mut(), (&session, asks))
                    }
                    Cell::OurRestart => checks::our_restart(&mut dut, router.as_ref(), &session),
                    _ => checks::check(&lab, &dut, router.as_ref(), (make, cell), &session),
                });
                (result, cell.one_way(make).map_or(Outcome::Passes, |way| Outcome::OneWay(way.why())))
            }
        };
        outcomes.push((cell, result.map_or_else(|error| Outcome::Fails(format!("{error:#}")), |()| outcome)));
    }
    Ok(outcomes)
}
