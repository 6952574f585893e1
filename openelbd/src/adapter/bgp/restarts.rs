//! When a speaker that ended by a bug is started again: after a pause, which grows while it ends again and again.

use std::time::{Duration, Instant};

/// The first pause.
const FIRST: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST: Duration = Duration::from_secs(60);
/// A speaker that ran for so long was a good one: the next pause is the first again.
const STABLE: Duration = Duration::from_secs(300);

/// The starts of the speakers that follow each other.
#[derive(Clone, Debug)]
pub struct Restarts {
    random: u64,
    began: Option<Instant>,
    /// That ended soon after each other.
    ended: u32,
    until: Option<Instant>,
}

impl Restarts {
    /// None so far. `seed` is that of the jitter: nodes that all meet one bug are not to come back in step.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: seed, began: None, ended: 0, until: None }
    }

    /// A speaker has started.
    pub fn began(&mut self, now: Instant) {
        self.began = Some(now);
    }

    /// It has ended by itself. Gives the pause, between three quarters of its length and all of it.
    pub fn ended(&mut self, now: Instant) -> Duration {
        let stable = self.began.take().is_some_and(|began| now.saturating_duration_since(began) >= STABLE);
        if stable {
            self.ended = 0;
        }
        let whole = FIRST.saturating_mul(1 << self.ended.min(16)).min(LONGEST);
        self.ended = self.ended.saturating_add(1);
        // splitmix64: jitter needs no secrecy.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let share = u32::try_from((mixed >> 32) % 257).unwrap_or(256) + 768;
        let pause = whole * share / 1024;
        self.until = Some(now + pause);
        pause
    }

    /// When the pause ends; `None`: there is none.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// The pause is over.
    pub fn go_on(&mut self) {
        self.until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_are_short_again_after_a_good_speaker() {
        let mut now = Instant::now();
        let mut restarts = Restarts::new(7);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            restarts.began(now);
            now += Duration::from_secs(5);
            let pause = restarts.ended(now);
            assert_eq!(restarts.until(), Some(now + pause));
            now += pause;
            restarts.go_on();
            assert_eq!(restarts.until(), None);
            pauses.push(pause);
        }
        for (number, pause) in pauses.iter().enumerate() {
            let whole = Duration::from_secs(1 << number.min(10)).min(Duration::from_secs(60));
            assert!((whole * 3 / 4..=whole).contains(pause), "{number}: {pause:?}");
        }
        restarts.began(now);
        assert!(restarts.ended(now + STABLE) <= FIRST);
        // Not of one that never began.
        assert!(restarts.ended(now + 2 * STABLE) > FIRST);
        let mut other = Restarts::new(8);
        assert_ne!(other.ended(now), pauses[0], "nodes differ");
    }
}
