//! Which datagrams are new: what was recorded and is sent again must not count, least of all as a sign of life.
//!
//! Each datagram has a number that grows: the life of its sender, and a counter. The receiver takes each number once, and
//! none that is far behind the highest (RFC 4303 section 3.4.3; the bitmap is that of RFC 6479).

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{NodeId, life_after};

/// Datagrams that overtake others by fewer than this do no harm to those. A node counts what it sends to all.
const WIDTH: u64 = 1024;
const WORDS: usize = 16;
/// Who says again what is not new hears so this often at most.
const PATIENCE: Duration = Duration::from_millis(100);

/// Where a datagram stands among all of its sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Number {
    pub(crate) life: u64,
    pub(crate) counter: u64,
}

/// A datagram that is not new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// It was here already, or may have been; or its sender was told lately.
    Seen,
    /// It is far behind this one: its sender should hear of it, for it may have begun a new life with a number that is lower.
    Behind(Number),
}

/// What was taken of one sender.
#[derive(Debug)]
struct Window {
    newest: Number,
    /// One bit for each of the last numbers, at the number modulo the width.
    seen: [u64; WORDS],
    at: Instant,
    told: Option<Instant>,
}

const fn place(counter: u64) -> (usize, u64) {
    let bit = counter % WIDTH;
    #[allow(clippy::cast_possible_truncation, reason = "below the number of words")]
    let word = (bit / 64) as usize;
    (word, 1 << (bit % 64))
}

impl Window {
    const fn new(number: Number, now: Instant) -> Self {
        let newest = Number { life: number.life, counter: 0 };
        Self { newest, seen: [0; WORDS], at: now, told: None }
    }

    fn take(&mut self, number: Number, now: Instant) -> Result<(), Stale> {
        if number.life > self.newest.life {
            *self = Self { told: self.told, ..Self::new(number, now) };
        }
        let behind = self.newest.counter.saturating_sub(number.counter);
        if number.life < self.newest.life || behind >= WIDTH {
            let told = self.told.is_some_and(|at| now.saturating_duration_since(at) < PATIENCE);
            if told {
                return Err(Stale::Seen);
            }
            self.told = Some(now);
            return Err(Stale::Behind(self.newest));
        }
        let ahead = number.counter.saturating_sub(self.newest.counter);
        if ahead >= WIDTH {
            self.seen = [0; WORDS];
        } else {
            for skipped in (self.newest.counter..=number.counter).skip(1) {
                let (word, bit) = place(skipped);
                if let Some(word) = self.seen.get_mut(word) {
                    *word &= !bit;
                }
            }
        }
        self.newest = self.newest.max(number);
        let (word, bit) = place(number.counter);
        let Some(word) = self.seen.get_mut(word).filter(|word| **word & bit == 0) else {
            return Err(Stale::Seen);
        };
        *word |= bit;
        self.at = now;
        Ok(())
    }
}

/// What this node has sent, and taken of others.
#[derive(Debug)]
pub(crate) struct Numbers {
    sent: Number,
    windows: BTreeMap<NodeId, Window>,
}

impl Numbers {
    /// Of a process that begins.
    pub(crate) const fn new(life: u64) -> Self {
        Self { sent: Number { life, counter: 0 }, windows: BTreeMap::new() }
    }

    /// The number of the next datagram.
    pub(crate) const fn next(&mut self) -> Number {
        self.sent.counter = self.sent.counter.saturating_add(1);
        self.sent
    }

    /// Somebody took a datagram of this node with this number. If it was none of this process, an earlier one had a later
    /// clock, and this one goes on after it.
    pub(crate) fn outlive(&mut self, known: Number) {
        if known > self.sent {
            self.sent = Number { life: life_after(known.life), counter: 0 };
        }
    }

    /// Takes a datagram with this number, if it is new. Of those who are not to be `kept`, at most so many are remembered.
    pub(crate) fn take(
        &mut self,
        sender: NodeId,
        number: Number,
        now: Instant,
        room: usize,
        kept: impl Fn(NodeId) -> bool,
    ) -> Result<(), Stale> {
        if !self.windows.contains_key(&sender) && self.windows.len() >= room {
            let others = self.windows.iter().filter(|(node, _)| !kept(**node));
            if let Some((oldest, _)) = others.min_by_key(|(_, window)| window.at) {
                let oldest = *oldest;
                self.windows.remove(&oldest);
            }
        }
        self.windows.entry(sender).or_insert_with(|| Window::new(number, now)).take(number, now)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests; any origin of time will do")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn number(life: u64, counter: u64) -> Number {
        Number { life, counter }
    }

    fn take(numbers: &mut Numbers, number: Number, now: Instant) -> Result<(), Stale> {
        numbers.take(NodeId(2), number, now, 2, |node| node == NodeId(2))
    }

    #[test]
    fn what_overtook_others_does_not_keep_them_out_and_each_comes_once() {
        let now = Instant::now();
        let mut numbers = Numbers::new(1);
        for counter in [5000, 5001, 5003, 5002, 4999, 5001 + WIDTH, 5003 + WIDTH, 5004] {
            assert_eq!(take(&mut numbers, number(7, counter), now), Ok(()), "{counter}");
            assert_eq!(take(&mut numbers, number(7, counter), now), Err(Stale::Seen), "{counter}");
        }
        let newest = number(7, 5003 + WIDTH);
        assert_eq!(take(&mut numbers, number(7, 5003), now), Err(Stale::Behind(newest)));
        assert_eq!(take(&mut numbers, number(7, u64::MAX), now), Ok(()));
        assert_eq!(take(&mut numbers, number(7, u64::MAX), now), Err(Stale::Seen));
    }

    #[test]
    fn an_earlier_life_is_over_and_is_told_so_now_and_then() {
        let now = Instant::now();
        let mut numbers = Numbers::new(1);
        assert_eq!(take(&mut numbers, number(7, 9), now), Ok(()));
        assert_eq!(take(&mut numbers, number(8, 1), now), Ok(()));
        let late = now + PATIENCE;
        for (at, result) in [
            (now, Stale::Behind(number(8, 1))),
            (now, Stale::Seen),
            (late, Stale::Behind(number(8, 1))),
            (late, Stale::Seen),
        ] {
            assert_eq!(take(&mut numbers, number(7, 10), at), Err(result));
        }
        assert_eq!(take(&mut numbers, number(8, 2), late), Ok(()));
    }

    #[test]
    fn a_process_goes_on_after_what_others_know_of_an_earlier_one() {
        let mut numbers = Numbers::new(100);
        let first = numbers.next();
        assert!(numbers.next() > first);
        // What is said of this life, or of one before, is no news: somebody sent again what was recorded.
        for known in [number(99, 1000), first, number(100, 2)] {
            numbers.outlive(known);
            assert_eq!(numbers.sent, number(100, 2));
        }
        for known in [number(100, 3), number(1 << 60, 5)] {
            numbers.outlive(known);
            assert!(numbers.next().life > known.life);
        }
        // The end of all numbers.
        numbers.outlive(number(u64::MAX, u64::MAX));
        assert_eq!(numbers.next().life, u64::MAX);
    }

    #[test]
    fn senders_are_remembered_up_to_so_many_and_peers_always() {
        let now = Instant::now();
        let mut numbers = Numbers::new(1);
        for node in 0..100 {
            let at = now + Duration::from_millis(node);
            let _ = numbers.take(NodeId(node), number(1, 1), at, 5, |node| node.0 == 3 || node.0 == 50);
            assert!(numbers.windows.len() <= 5);
        }
        let all: Vec<_> = numbers.windows.keys().map(|node| node.0).collect();
        assert_eq!(all, [3, 50, 97, 98, 99]);
    }

    proptest! {
        /// Against a set of all that was taken.
        #[test]
        fn the_window_is_as_a_set_would_be(steps in prop::collection::vec((0_u64..3, 0_u64..3000), 0..300)) {
            let now = Instant::now();
            let mut window = Window::new(number(0, 0), now);
            let (mut taken, mut newest) = (std::collections::BTreeSet::new(), number(0, 0));
            for (life, counter) in steps {
                let number = number(life, counter);
                let old = life < newest.life || life == newest.life && counter + WIDTH <= newest.counter;
                let fresh = !old && taken.insert(number);
                prop_assert_eq!(window.take(number, now).is_ok(), fresh, "{:?} after {:?}", number, newest);
                newest = newest.max(number);
            }
        }
    }
}
