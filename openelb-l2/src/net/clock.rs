//! A clock that goes on while the host is suspended.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// How long the host has been up, suspended time included (Linux `CLOCK_BOOTTIME`).
pub fn host_uptime() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// Instants that advance with [`host_uptime`], while those of the standard library stand still on a suspended host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    base: Instant,
    boot: Duration,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { base: Instant::now(), boot: host_uptime() }
    }

    pub(super) fn now(&self) -> Instant {
        self.base + host_uptime().saturating_sub(self.boot)
    }
}
