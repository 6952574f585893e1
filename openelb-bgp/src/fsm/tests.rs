//! Shared by the tests of the machine.

use std::time::Instant;

/// Some instant: tests only add to it.
#[allow(clippy::disallowed_methods, reason = "an origin for virtual time; nothing waits for it")]
pub(super) fn origin() -> Instant {
    Instant::now()
}
