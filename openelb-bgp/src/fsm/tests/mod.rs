//! The machine, alone and against itself, on a virtual clock.

mod alone;
mod pair;
mod support;

use std::time::Instant;

/// Some instant: tests only add to it.
#[allow(clippy::disallowed_methods, reason = "an origin for virtual time; nothing waits for it")]
pub(super) fn origin() -> Instant {
    Instant::now()
}
