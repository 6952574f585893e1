//! Operations on the announcer: never an announcement of what is not claimed, never one before its time, never the same
//! instant for ever; of an IPv6 address three in a burst at most (RFC 4861 section 7.2.6), then the refresh or nothing; one
//! defence in ten seconds (RFC 5227 section 1.1).
//!
//! Each pair of octets is an operation and its argument:
//!
//! | first, modulo 8 | |
//! |---|---|
//! | 0, 1 | an address is claimed: its number is the argument modulo 6, odd ones are IPv6 |
//! | 2 | it is released |
//! | 3 | a stranger claims it |
//! | 4 | another schedule: the low four bits of the argument say which offsets, the upper which refresh |
//! | 5 | time passes, to the next deadline |
//! | 6 | the argument times 10 ms pass |
//! | 7 | the argument times 10 s pass |
#![no_main]

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::OnceLock,
    time::{Duration, Instant},
};

use libfuzzer_sys::fuzz_target;
use openelb_l2::announcer::{Announcer, DEFEND_INTERVAL, Schedule};

/// One origin for all inputs: only differences matter.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

fn address(n: u8) -> IpAddr {
    match n % 6 {
        n if n % 2 == 1 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)).into(),
        n => Ipv4Addr::new(192, 0, 2, n).into(),
    }
}

fn schedule(argument: u8) -> Schedule {
    let ms = Duration::from_millis;
    let burst = match argument & 0x0f {
        0 => Vec::new(),
        1 => vec![ms(0)],
        2 => vec![ms(0); 9],
        3 => vec![ms(4000), ms(100), ms(0)],
        4 => vec![ms(0), ms(100), ms(300), ms(500)],
        5 => vec![ms(700)],
        6 => vec![ms(0), Duration::MAX],
        7 => (0..50).map(|n| ms(n * 40)).collect(),
        8 => vec![Duration::from_nanos(1), ms(999), ms(1000), ms(1001)],
        _ => Schedule::default().burst,
    };
    let refresh = match argument >> 4 {
        0 => Duration::ZERO,
        1 => Duration::from_nanos(1),
        2 => ms(20),
        3 => ms(1000),
        4 => Duration::MAX,
        5 => Duration::from_secs(86_400),
        _ => Duration::from_secs(60),
    };
    Schedule::new(burst, refresh)
}

/// What is known of a claim.
struct Claim {
    since: Instant,
    sent: u32,
    /// The schedule has been the same all the time.
    steady: bool,
}

struct Model {
    announcer: Announcer,
    schedule: Schedule,
    claims: BTreeMap<IpAddr, Claim>,
    defended: BTreeMap<IpAddr, Instant>,
    now: Instant,
}

impl Model {
    /// Takes what is due: no address twice at one time.
    fn drain(&mut self) {
        let mut announced = Vec::new();
        while let Some(address) = self.announcer.poll_due(self.now) {
            assert!(!announced.contains(&address), "{address} twice at one time");
            announced.push(address);
            let claim = self.claims.get_mut(&address).expect("only what is claimed is announced");
            claim.sent += 1;
            let past = self.now - claim.since;
            let burst = self.schedule.burst.iter().filter(|offset| **offset <= past).count();
            let most = if address.is_ipv6() { burst.min(3) } else { burst };
            // Spread, the first refresh comes a tenth of the interval sooner.
            let refresh = self.schedule.refresh;
            let refreshes = match refresh.as_nanos() * 9 / 10 {
                0 => u128::from(!refresh.is_zero()) * u128::MAX,
                least => past.as_nanos() / least,
            };
            let allowed = (most as u128).saturating_add(refreshes);
            assert!(
                !claim.steady || u128::from(claim.sent) <= allowed,
                "{address}: {} of {allowed}",
                claim.sent
            );
        }
        let next = self.announcer.poll_timeout();
        assert!(next.is_none_or(|at| at > self.now), "a deadline has passed");
        if self.claims.is_empty() {
            assert_eq!(next, None);
        }
    }

    fn operate(&mut self, operation: u8, argument: u8) {
        let address = address(argument);
        match operation % 8 {
            0 | 1 => {
                self.announcer.claim(address, self.now);
                self.claims.insert(address, Claim { since: self.now, sent: 0, steady: true });
            }
            2 => {
                self.announcer.release(address);
                self.claims.remove(&address);
                self.defended.remove(&address);
            }
            3 => {
                let may = self.announcer.defend(address, self.now);
                let last = self.defended.get(&address);
                let due = last.is_none_or(|at| self.now - *at >= DEFEND_INTERVAL);
                assert_eq!(may, due && self.claims.contains_key(&address));
                if may {
                    self.defended.insert(address, self.now);
                }
            }
            4 => {
                let schedule = schedule(argument);
                if schedule != self.schedule {
                    self.claims.values_mut().for_each(|claim| claim.steady = false);
                }
                self.announcer.set_schedule(schedule.clone());
                self.schedule = schedule;
            }
            5 => self.now = self.announcer.poll_timeout().map_or(self.now, |at| at.max(self.now)),
            unit => {
                let step = Duration::from_millis(if unit == 6 { 10 } else { 10_000 });
                self.now += step * u32::from(argument);
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let mut model = Model {
        announcer: Announcer::new(Schedule::default()),
        schedule: Schedule::default(),
        claims: BTreeMap::new(),
        defended: BTreeMap::new(),
        now: origin(),
    };
    for pair in input.chunks_exact(2).take(500) {
        let &[operation, argument] = pair else { return };
        model.operate(operation, argument);
        // A deadline that is centuries away is as good as none.
        if model.now > origin() + Duration::from_secs(1 << 32) {
            return;
        }
        model.drain();
    }
});
