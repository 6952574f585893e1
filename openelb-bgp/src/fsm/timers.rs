//! Deadlines, and the jitter of their intervals.

use std::time::{Duration, Instant};

/// The deadlines of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// The pause after an error is over.
    IdleHold,
    /// The next attempt to connect.
    ConnectRetry,
    /// Nothing came in on our connection.
    HoldOutgoing,
    /// Nothing came in on the neighbour's connection.
    HoldIncoming,
    /// A keepalive is due on the session's connection.
    Keepalive,
    /// The neighbour does not read (RFC 9687).
    SendHold,
    /// The connection that would win a collision has not come up.
    Defer,
}

impl Timer {
    pub(super) const ALL: [Self; 7] = [
        Self::IdleHold,
        Self::ConnectRetry,
        Self::HoldOutgoing,
        Self::HoldIncoming,
        Self::Keepalive,
        Self::SendHold,
        Self::Defer,
    ];
}

/// A deadline for each [`Timer`], or none.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers {
    deadlines: [Option<Instant>; Timer::ALL.len()],
}

impl Timers {
    fn slot(&mut self, timer: Timer) -> Option<&mut Option<Instant>> {
        self.deadlines.get_mut(timer as usize)
    }

    pub(super) fn set(&mut self, timer: Timer, deadline: Instant) {
        if let Some(slot) = self.slot(timer) {
            *slot = Some(deadline);
        }
    }

    pub(super) fn clear(&mut self, timer: Timer) {
        if let Some(slot) = self.slot(timer) {
            *slot = None;
        }
    }

    pub(super) fn get(&self, timer: Timer) -> Option<Instant> {
        self.deadlines.get(timer as usize).copied().flatten()
    }

    pub(super) fn clear_all(&mut self) {
        *self = Self::default();
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.deadlines.iter().flatten().min().copied()
    }

    /// Takes a timer that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        let due = Timer::ALL.into_iter().find(|timer| self.get(*timer).is_some_and(|at| at <= now))?;
        self.clear(due);
        Some(due)
    }
}

/// A small deterministic generator (splitmix64): jitter needs no secrecy, and one seed must give one history.
#[derive(Clone, Debug)]
pub(super) struct Jitter {
    state: u64,
}

impl Jitter {
    pub(super) const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 75 % to 100 % of an interval (RFC 4271 §10).
    pub(super) fn apply(&mut self, interval: Duration) -> Duration {
        let share = u32::try_from(self.next() % 257).unwrap_or(256) + 768;
        interval.saturating_mul(share) / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_three_quarters_to_one_and_repeats_by_seed() {
        let second = Duration::from_secs(1);
        let values = |seed| {
            let mut jitter = Jitter::new(seed);
            (0..1000).map(|_| jitter.apply(second)).collect::<Vec<_>>()
        };
        let some = values(7);
        assert!(some.iter().all(|v| (Duration::from_millis(750)..=second).contains(v)));
        assert!(some.iter().any(|v| *v < Duration::from_millis(800)));
        assert!(some.iter().any(|v| *v > Duration::from_millis(950)));
        assert_eq!(some, values(7));
        assert_ne!(some, values(8));
    }

    #[test]
    fn the_earliest_deadline_counts_and_is_taken_once() {
        let start = super::super::tests::origin();
        let mut timers = Timers::default();
        timers.set(Timer::Keepalive, start + Duration::from_secs(2));
        timers.set(Timer::SendHold, start + Duration::from_secs(1));
        assert_eq!(timers.next(), Some(start + Duration::from_secs(1)));
        assert_eq!(timers.take_due(start), None);
        assert_eq!(timers.take_due(start + Duration::from_secs(3)), Some(Timer::Keepalive));
        assert_eq!(timers.take_due(start + Duration::from_secs(3)), Some(Timer::SendHold));
        assert_eq!(timers.take_due(start + Duration::from_secs(3)), None);
    }
}
