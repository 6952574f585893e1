//! Everything that can go wrong, at random: crashes, restarts, suspensions, partitions in one and both directions, loss,
//! delay, duplication, clocks that go back. One seed, one history: `OPENELB_LAYER2_SEED=n OPENELB_LAYER2_SEEDS=1
//! SIM_TRACE=1` replays one.
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

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use openelb_l2::speaker::StopMode;
use sim::{Family, Sim, bounds::Bounds, measure::SAMPLE, ms};

/// What happens at once is noticed by all in this time: two batches do not meet.
const SETTLE: Duration = ms(2500);
/// What was heard of a node that gossip does not reach counts as a stranger's (`speaker::claims`): it is looked for again
/// after ten seconds, and up to five more.
const STRANGERS: Duration = ms(15_000);
/// Rounds of one history.
const ROUNDS: usize = 30;

/// One history.
#[derive(Clone, Copy, Debug)]
struct Plan {
    seed: u64,
    nodes: usize,
    family: Family,
    /// In 1/1000.
    loss: u64,
    double: u64,
    delay: Duration,
    stand_in: Duration,
    /// How many kinds of things happen.
    kinds: usize,
    /// Every node knows which nodes may own.
    permitted: bool,
    /// Of what is sent, in 1/1000, the kernel has no room for so much.
    refusal: u64,
}

impl Plan {
    /// All combinations, mixed.
    fn of(seed: u64) -> Self {
        let mut mixed = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let mut pick = |below: u64| {
            let picked = (mixed % below) as usize;
            mixed /= below;
            picked
        };
        let loss = [0, 0, 30, 100, 300][pick(5)];
        Self {
            seed,
            nodes: 2 + pick(4),
            family: [Family::V4, Family::V6, Family::Both][pick(3)],
            loss,
            delay: ms([1, 2, 5, 20][pick(4)]),
            stand_in: Duration::from_secs([0, 5, 600][pick(3)]),
            double: [0, 20, 200, 1000][pick(4)],
            kinds: 15,
            permitted: seed.is_multiple_of(3),
            refusal: 0,
        }
    }

    /// As it was when [`FOUND`] were found.
    fn found(seed: u64) -> Self {
        let (loss, double) = if seed % 2 == 1 { (30, 20) } else { (0, 0) };
        Self {
            seed,
            nodes: 2 + (seed % 4) as usize,
            family: Family::V4,
            loss,
            double,
            delay: ms(1 + seed % 5),
            stand_in: Duration::from_secs([0, 5, 600][(seed / 4 % 3) as usize]),
            kinds: 13,
            permitted: false,
            refusal: 0,
        }
    }
}

struct Chaos {
    sim: Sim,
    down_links: BTreeSet<usize>,
    log: Vec<String>,
    /// In this round a partition ended.
    healed: bool,
    /// When some did not hear each other's gossip last, but frames.
    apart: Option<Instant>,
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
    fn disturb(&mut self, kinds: usize) {
        let n = self.pick(self.sim.hosts.len());
        let (runs, suspended, powered) = {
            let host = &self.sim.hosts[n];
            (host.speaker.is_some(), host.suspended, host.powered)
        };
        let what = match self.pick(kinds) {
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
            13 if runs && !suspended => {
                let long = ms(50 + self.sim.random() % 1500);
                self.sim.suspend(n);
                self.sim.run(long);
                self.sim.resume(n);
                format!("suspend {n} for {long:?}")
            }
            14 => {
                self.sim.hosts[n].started += 1_000_000;
                format!("clock of {n} forward")
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
            self.healed = true;
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

    /// Whether they do, and did for so long that nobody takes another for a stranger.
    fn was_connected(&mut self) -> bool {
        if !self.is_connected() {
            self.apart = Some(self.sim.now);
        }
        self.apart.is_none_or(|at| self.sim.now - at > STRANGERS)
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

/// What is checked after each round, which is `settle` long: two, and nobody.
impl Chaos {
    fn check(&mut self, bounds: &Bounds, seed: u64, round: usize, probers: usize, connected: bool) {
        let late = self.sim.overlaps().find(|overlap| overlap.last > bounds.end_of(overlap)).cloned();
        let gap = self.sim.longest_gap();
        let bound = bounds.gap(probers, self.healed);
        if late.is_some() || connected && gap > bound {
            self.dump();
        }
        if let Some(late) = late {
            let origin = self.sim.origin;
            panic!(
                "seed {seed} round {round}: {} is answered by {:?} for {:?}, since {:?}, who met {:?} before (known: {}): {:#?}",
                late.address,
                late.nodes,
                late.last - late.began,
                late.began - origin,
                late.began - late.met,
                late.known,
                self.log
            );
        }
        assert!(
            !connected || gap <= bound,
            "seed {seed} round {round}: nobody for {gap:?} of {bound:?}: {:#?}",
            self.log
        );
        self.sim.forget_overlaps();
    }

    fn probers(&self) -> usize {
        self.sim.hosts.iter().filter(|host| host.speaker.is_some() && !host.suspended).count()
    }
}

fn chaos(plan: Plan) {
    chaos_with(plan, 4, ROUNDS, SAMPLE);
}

fn chaos_with(plan: Plan, addresses: usize, rounds: usize, sample: Duration) {
    let seed = plan.seed;
    let mut sim = Sim::of_family(plan.family, plan.nodes, addresses, seed);
    sim.sample_every = sample;
    (sim.loss, sim.double, sim.refusal) = (plan.loss, plan.double, plan.refusal);
    sim.max_delay = plan.delay;
    sim.settings.stand_in = plan.stand_in;
    sim.settings.join_delay = Duration::from_secs(10);
    sim.knows_permitted = plan.permitted;
    sim.start_all();
    sim.run(ms(3000));
    let bounds = Bounds::of(&sim);
    let mut chaos = Chaos {
        sim,
        down_links: BTreeSet::new(),
        log: vec![format!("{plan:?}")],
        healed: false,
        apart: None,
    };
    for round in 0..rounds {
        let (before, probers) = (chaos.was_connected(), chaos.probers());
        chaos.sim.reset_measures();
        chaos.healed = false;
        chaos.disturb(plan.kinds);
        let connected = before && chaos.was_connected();
        let probers = probers.min(chaos.probers());
        chaos.sim.run(SETTLE);
        chaos.check(&bounds, seed, round, probers, connected);
        let calm = ms(chaos.sim.random() % 4000);
        chaos.sim.run(calm);
        chaos.check(&bounds, seed, round, probers, connected);
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

/// The same, of [`Plan::of`].
const FOUND_LATER: [(u64, &str); 5] = [
    (50764, "a node that was heard once in this life, before it was cut off, was not asked for"),
    (
        70622,
        "two that came back as new members spoke to each other's old lives, and one that gave way seemed deaf",
    ),
    (
        121_181,
        "the bound on nobody did not know that the host of one that was given up, and heard until it went, is asked",
    ),
    (
        140_011,
        "one that woke up stood in for the owner that it remembered, beside one that stood in for the owner after that",
    ),
    (150_964, "the same, when the one that stood in said that it restarts"),
];

#[test]
fn what_went_wrong_once() {
    let plans = FOUND.iter().map(|(seed, what)| (Plan::found(*seed), what));
    for (plan, what) in plans.chain(FOUND_LATER.iter().map(|(seed, what)| (Plan::of(*seed), what))) {
        let result = std::panic::catch_unwind(|| chaos(plan));
        assert!(result.is_ok(), "{plan:?}: {what}");
    }
}

/// A number from the environment: `cargo xtask soak` asks for more.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn one_owner_through_everything() {
    let seeds = number("OPENELB_LAYER2_SEEDS", 96);
    let first = histories(seeds, |seed| chaos(Plan::of(seed)));
    println!("{seeds} histories from seed {first} on, of {ROUNDS} rounds each");
}

/// Runs them all, whichever fail. Returns the first seed.
fn histories(seeds: u64, history: impl Fn(u64)) -> u64 {
    let first = number("OPENELB_LAYER2_SEED", 0);
    let mut failed = Vec::new();
    for seed in first..first + seeds {
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| history(seed))) {
            failed.push(
                panic
                    .downcast_ref::<String>()
                    .map_or("?", |text| text.lines().next().unwrap_or("?"))
                    .to_owned(),
            );
        }
    }
    assert!(failed.is_empty(), "{} of {seeds}:\n{}", failed.len(), failed.join("\n"));
    first
}

/// What a node says of so many addresses takes several datagrams.
#[test]
fn one_owner_of_each_of_hundreds_of_addresses() {
    let seeds = number("OPENELB_LAYER2_SEEDS", 96).div_ceil(24);
    let first = histories(seeds, |seed| chaos_with(Plan::of(seed), 400, 8, 2 * SAMPLE));
    println!("{seeds} histories of 400 addresses from seed {first} on");
}

/// What the kernel has no room for is sent again.
#[test]
fn one_owner_while_links_are_full() {
    let seeds = number("OPENELB_LAYER2_SEEDS", 96).div_ceil(4);
    let plan = |seed| Plan { refusal: [30, 100, 300][(seed % 3) as usize], ..Plan::of(seed) };
    let first = histories(seeds, |seed| chaos(plan(seed)));
    println!("{seeds} histories on full links from seed {first} on, of {ROUNDS} rounds each");
}
