//! Everything that can go wrong, at random: crashes, restarts, suspensions, partitions in one and both directions, loss,
//! delay, duplication, clocks that go back. One seed, one history: `CHAOS_SEED=n CHAOS_SEEDS=1 SIM_TRACE=1` replays one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]
// Not every suite uses all of the model.
#![allow(dead_code, reason = "shared with model.rs")]

mod sim;

use std::{collections::BTreeSet, time::Duration};

use openelb_l2::speaker::StopMode;
use sim::{Sim, ms};

/// Two that hear each other: a claim, its hearing, and the time between two samples.
const EXCHANGE: Duration = Duration::from_millis(30);
/// While frames are lost, a claim may have to be repeated.
const LOSSY_EXCHANGE: Duration = Duration::from_millis(500);
/// What a heal may take until both have heard of each other.
const REJOIN: Duration = Duration::from_millis(2500);
const SILENCE: Duration = Duration::from_millis(2000);

struct Chaos {
    sim: Sim,
    down_links: BTreeSet<usize>,
    log: Vec<String>,
}

impl Chaos {
    fn pick(&mut self, below: usize) -> usize {
        (self.sim.random() % below as u64) as usize
    }

    fn note(&mut self, text: String) {
        let line = format!("{:?} {text}", self.sim.elapsed());
        if std::env::var_os("SIM_TRACE").is_some() {
            eprintln!("---- {line}");
        }
        self.log.push(line);
    }

    /// One thing goes wrong, or right again.
    fn disturb(&mut self) {
        let n = self.pick(self.sim.hosts.len());
        let (runs, suspended, powered) = {
            let host = &self.sim.hosts[n];
            (host.speaker.is_some(), host.suspended, host.powered)
        };
        let what = match self.pick(13) {
            0 if runs => {
                self.sim.kill(n);
                format!("kill {n}")
            }
            1 if runs => {
                self.sim.kill(n);
                self.sim.start(n);
                format!("kill and start {n}")
            }
            2 if runs && !suspended => {
                self.sim.suspend(n);
                format!("suspend {n}")
            }
            3 if powered => {
                self.sim.power_off(n);
                format!("power off {n}")
            }
            4 if runs && !suspended => {
                self.sim.stop(n, StopMode::Restart);
                self.sim.run(ms(300));
                self.sim.kill(n);
                format!("announced restart {n}")
            }
            5 if runs && !suspended => {
                self.sim.stop(n, StopMode::Withdraw);
                self.sim.run(ms(300));
                self.sim.kill(n);
                format!("withdraw {n}")
            }
            6 if runs && !suspended => {
                let eligible = !self.sim.hosts[n].eligible;
                self.sim.set_eligible(n, eligible);
                format!("eligible {n} {eligible}")
            }
            7 if runs && !suspended => {
                let up = self.down_links.remove(&n);
                if !up {
                    self.down_links.insert(n);
                }
                self.sim.set_link_up(n, up);
                format!("link {n} {up}")
            }
            8 if self.sim.deaf.is_empty() => {
                let group: Vec<_> =
                    (0..self.sim.hosts.len()).filter(|_| self.sim.random().is_multiple_of(2)).collect();
                self.sim.partition(&group);
                format!("partition {group:?}")
            }
            // Without gossip and with frames in one direction only, nothing tells a deaf node from a dead one.
            9 if self.sim.deaf.is_empty() => {
                let other = self.pick(self.sim.hosts.len());
                self.sim.cut.insert((n, other));
                format!("cut {n} to {other}")
            }
            10 if self.sim.cut.is_empty() => {
                let other = self.pick(self.sim.hosts.len());
                self.sim.deaf.extend([(n, other), (other, n)]);
                format!("no gossip between {n} and {other}")
            }
            11 => {
                // The clock went back: this life is younger by its number.
                self.sim.hosts[n].started = self.sim.hosts[n].started.saturating_sub(2);
                format!("clock of {n} back")
            }
            _ => "nothing".into(),
        };
        self.note(what);
        self.down_links.retain(|n| self.sim.hosts[*n].speaker.is_some());
        self.repair_some();
        self.keep_one();
    }

    fn repair(&mut self, n: usize) {
        if self.sim.hosts[n].suspended {
            self.sim.resume(n);
        } else if self.sim.hosts[n].speaker.is_none() {
            let rebooted = !self.sim.hosts[n].powered;
            self.sim.hosts[n].uptime = Duration::from_secs(if rebooted { 5 } else { 3600 });
            self.down_links.remove(&n);
            self.sim.start(n);
        }
    }

    fn repair_some(&mut self) {
        for n in 0..self.sim.hosts.len() {
            if self.pick(3) == 0 && (self.sim.hosts[n].suspended || self.sim.hosts[n].speaker.is_none()) {
                self.repair(n);
                self.note(format!("repair {n}"));
            }
        }
        if self.pick(3) == 0 && !(self.sim.cut.is_empty() && self.sim.deaf.is_empty()) {
            self.sim.heal();
            self.note("heal".into());
        }
    }

    /// There is always a node that could own.
    fn keep_one(&mut self) {
        let good = |host: &sim::Host| host.speaker.is_some() && !host.suspended && host.eligible;
        let any =
            (0..self.sim.hosts.len()).any(|n| good(&self.sim.hosts[n]) && !self.down_links.contains(&n));
        if !any {
            self.repair(0);
            if self.down_links.remove(&0) {
                self.sim.set_link_up(0, true);
            }
            self.sim.set_eligible(0, true);
            self.note("0 is made good".into());
        }
    }

    /// Whether all that run hear each other's gossip, directly or by way of one other, or not at all. To one that hears
    /// nothing of an owner but its frames, the owner is a stranger like any other; and of one that hears, but is not
    /// heard, nobody can say what it knows.
    fn is_connected(&self) -> bool {
        let (hosts, sim) = (0..self.sim.hosts.len(), &self.sim);
        let runs = |n: usize| sim.hosts[n].speaker.is_some();
        let helps = |n: usize| runs(n) && !sim.hosts[n].suspended;
        let hears = |a: usize, b: usize| !sim.cut.contains(&(a, b)) && !sim.deaf.contains(&(a, b));
        let both = |a, b| hears(a, b) && hears(b, a);
        let apart = |a, b| sim.cut.contains(&(a, b)) && sim.cut.contains(&(b, a));
        sim.deaf.iter().chain(&sim.cut).all(|(a, b)| {
            let around = || hosts.clone().any(|via| helps(via) && both(*a, via) && both(via, *b));
            a == b || apart(*a, *b) || !runs(*a) || !runs(*b) || around()
        })
    }

    /// What everybody thinks, with `SIM_TRACE`.
    fn dump(&self) {
        if std::env::var_os("SIM_TRACE").is_none() {
            return;
        }
        for host in &self.sim.hosts {
            eprintln!(
                "{} powered {} suspended {} eligible {}",
                host.name, host.powered, host.suspended, host.eligible
            );
            if let Some(speaker) = &host.speaker {
                for member in speaker.members() {
                    eprintln!("    {member:?}");
                }
                for address in speaker.addresses() {
                    eprintln!(
                        "    {} {:?} owner {:?} {:?}",
                        address.address, address.role, address.owner, address.candidate
                    );
                }
            }
        }
    }

    fn repair_all(&mut self) {
        self.sim.heal();
        (self.sim.loss, self.sim.double) = (0, 0);
        for n in 0..self.sim.hosts.len() {
            self.repair(n);
            self.sim.set_link_up(n, true);
            self.sim.set_eligible(n, true);
        }
        self.down_links.clear();
        self.note("all is repaired".into());
    }
}

fn chaos(seed: u64) {
    let mut sim = Sim::new(2 + (seed % 4) as usize, 4, seed);
    let lossy = seed % 2 == 1;
    (sim.loss, sim.double) = if lossy { (30, 20) } else { (0, 0) };
    sim.max_delay = ms(1 + seed % 5);
    sim.settings.stand_in = Duration::from_secs([0, 5, 600][(seed / 4 % 3) as usize]);
    sim.settings.join_delay = Duration::from_secs(10);
    sim.start_all();
    sim.run(ms(3000));
    let mut chaos = Chaos { sim, down_links: BTreeSet::new(), log: Vec::new() };
    for round in 0..30 {
        let before = chaos.is_connected();
        chaos.sim.reset_measures();
        chaos.disturb();
        let connected = before && chaos.is_connected();
        // Whatever happened takes a while to be noticed by all.
        chaos.sim.run(REJOIN);
        let (silence, double) = (chaos.sim.longest_silence, chaos.sim.longest_double);
        if silence > SILENCE || double > LOSSY_EXCHANGE {
            chaos.dump();
        }
        let bound = if lossy { SILENCE + ms(500) } else { SILENCE };
        assert!(
            !connected || silence <= bound,
            "seed {seed} round {round}: silence {silence:?}: {:#?}",
            chaos.log
        );
        assert!(double <= REJOIN, "seed {seed} round {round}: double {double:?}: {:#?}", chaos.log);
        chaos.sim.reset_measures();
        let calm = ms(chaos.sim.random() % 4000);
        chaos.sim.run(calm);
        let (silence, double) = (chaos.sim.longest_silence, chaos.sim.longest_double);
        if silence > SILENCE || double > LOSSY_EXCHANGE {
            chaos.dump();
        }
        let bound = if lossy { LOSSY_EXCHANGE } else { EXCHANGE };
        assert!(double <= bound, "seed {seed} round {round}: calm double {double:?}: {:#?}", chaos.log);
        let bound = if lossy { SILENCE } else { ms(700) };
        assert!(
            !connected || silence <= bound,
            "seed {seed} round {round}: calm silence {silence:?}: {:#?}",
            chaos.log
        );
    }
    chaos.repair_all();
    chaos.sim.run(Duration::from_secs(15));
    for address in chaos.sim.addresses.clone() {
        let answers = chaos.sim.answers(address);
        assert_eq!(answers.len(), 1, "seed {seed}: {address}: {answers:?}: {:#?}", chaos.log);
        let (n, mac) = answers[0];
        assert_eq!(
            chaos.sim.hosts[n].mac, mac,
            "seed {seed}: {address}: a stand-in is left: {:#?}",
            chaos.log
        );
    }
}

/// Histories that went wrong once, and what was behind it.
const FOUND: [(u64, &str); 15] = [
    (27, "two lives of a node with the same number were taken for one"),
    (29, "the same"),
    (33, "a host that is silent was forgotten when its address was looked for, and asked again, for ever"),
    (39, "the same as 27"),
    (46, "an address stayed with a deaf node after that could hear again"),
    (56, "a node whose clock went back was not taken for a member again by the only other one"),
    (161, "a node that came back as a new member did not probe the others until one of them spoke"),
    (196, "a deaf node that was gone was looked after, and left the address for another time"),
    (284, "two nodes that never gossiped took each other for strangers, and both kept the address"),
    (547, "two nodes stood in for two owners"),
    (
        582,
        "the owner that won after a partition was not the last one when it restarted: another one took over",
    ),
    (1113, "the same"),
    (1192, "a second stand-in ended with the time of the first one"),
    (1248, "a deaf node that was gone was waited for, because it had not gossiped after its last claim"),
    (3292, "a clock that went back by more than a few lives made a storm of attempts to come back"),
];

#[test]
fn what_went_wrong_once() {
    for (seed, what) in FOUND {
        let result = std::panic::catch_unwind(|| chaos(seed));
        assert!(result.is_ok(), "seed {seed}: {what}");
    }
}

#[test]
fn one_owner_through_everything() {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let first: u64 = number("CHAOS_SEED", 0);
    let seeds: u64 = number("CHAOS_SEEDS", 100);
    let mut failed = Vec::new();
    for seed in first..first + seeds {
        if let Err(panic) = std::panic::catch_unwind(|| chaos(seed)) {
            failed.push(
                panic
                    .downcast_ref::<String>()
                    .map_or("?", |text| text.lines().next().unwrap_or("?"))
                    .to_owned(),
            );
        }
    }
    assert!(failed.is_empty(), "{} of {seeds}:\n{}", failed.len(), failed.join("\n"));
}
