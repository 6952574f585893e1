//! Answering ARP and neighbour discovery, beside the Linux kernel, a plain AF_PACKET loop and keepalived, in the lab: a
//! client that asks on one core, and whoever answers on the other.

mod load;
mod responder;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Context, ensure};
use openelb_lab::Lab;

use self::{
    load::{Asker, Flood},
    responder::{Kind, Responder},
};
use crate::{Options, Report, Row, Target};

const CLIENT: &str = "client";
const SERVER: &str = "server";
/// The cores of the client and of the responder.
const CORES: (usize, usize) = (0, 1);
/// Requests a second of those that are offered at a pace.
const PACE: u32 = 100_000;
/// So many rounds of them are enough where one was whole.
const ENOUGH: u32 = 3;

/// How long each measurement is, and how often it is made.
#[derive(Clone, Copy)]
struct Sizes {
    rounds: u32,
    flood: Duration,
    /// Requests on an idle link.
    samples: usize,
    many: u32,
    /// The share of [`PACE`] that is offered at least; below it a round says nothing.
    offered: f64,
}

impl Sizes {
    fn of(options: &Options) -> Self {
        if options.smoke {
            Self { rounds: 1, flood: Duration::from_millis(200), samples: 50, many: 100, offered: 0.1 }
        } else {
            Self {
                rounds: options.rounds,
                flood: Duration::from_secs(1),
                samples: 1000,
                many: 10_000,
                offered: 0.95,
            }
        }
    }
}

/// The rounds of one kind of responder.
#[derive(Clone, Debug, Default)]
struct Rounds {
    /// Answers a second, of as many requests as are answered: of the best round.
    rate: f64,
    /// Half of the requests on an idle link are answered within, microseconds: of each round.
    idle: Vec<f64>,
}

impl Rounds {
    fn add(&mut self, (rate, idle): (f64, f64)) {
        self.rate = self.rate.max(rate);
        self.idle.push(idle);
    }

    /// Of the middle round: a hypervisor wakes an idle core in one round much faster than in the next, whoever answers.
    fn idle(&self) -> f64 {
        let mut all = self.idle.clone();
        all.sort_unstable_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// Measures answers.
///
/// # Errors
/// Not root, or a program of the lab or keepalived is missing, or somebody does not answer.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let sizes = Sizes::of(options);
    let mut report = Report::new();
    let lab = lab()?;
    let cores = std::thread::available_parallelism()?.get();
    if cores < 2 {
        report.note("one core: client and responder share it, so every figure is too bad");
    }

    let address = v4(1);
    let mut all = Vec::new();
    for kind in [Kind::OpenElb, Kind::Plain, Kind::Kernel, Kind::Keepalived] {
        all.push((kind, Rounds::default()));
    }
    for _ in 0..sizes.rounds {
        for (kind, rounds) in &mut all {
            let responder = Responder::start(&lab, *kind, &[address], CORES.1)?;
            rounds.add(measure(&lab, sizes, &[address])?);
            responder.stop()?;
        }
    }
    let of =
        |kind: Kind| all.iter().find(|(of, _)| *of == kind).map(|(_, rounds)| rounds).context("not measured");
    let (arp, plain, kernel) = (of(Kind::OpenElb)?, of(Kind::Plain)?, of(Kind::Kernel)?);
    let keepalived = of(Kind::Keepalived)?;

    let row = || Row::new("ARP, 1 address: answers", "answers/s", arp.rate);
    report.push(row().beside("AF_PACKET loop", plain.rate).target(Target::AtLeast(f64::from(PACE))));
    report.push(row().beside("Linux", kernel.rate));
    report.push(row().beside("keepalived", keepalived.rate));
    let row = || Row::new("ARP, idle link: half are answered within", "us", arp.idle());
    report.push(row().beside("AF_PACKET loop", plain.idle()).target(Target::RatioAtMost(1.5)));
    report.push(row().beside("Linux", kernel.idle()));
    report.push(row().beside("keepalived", keepalived.idle()));

    let mut six = [Kind::OpenElb, Kind::Plain, Kind::Kernel].map(|kind| (kind, Rounds::default()));
    for _ in 0..sizes.rounds {
        for (kind, rounds) in &mut six {
            let responder = Responder::start(&lab, *kind, &[v6(1)], CORES.1)?;
            rounds.add(measure(&lab, sizes, &[v6(1)])?);
            responder.stop()?;
        }
    }
    let [(_, ours), (_, plain), (_, kernel)] = six;
    let row = || Row::new("NDP, 1 address: answers", "answers/s", ours.rate);
    report.push(row().beside("AF_PACKET loop", plain.rate).target(Target::AtLeast(f64::from(PACE))));
    report.push(row().beside("Linux", kernel.rate));
    let row = || Row::new("NDP, idle link: half are answered within", "us", ours.idle());
    report.push(row().beside("AF_PACKET loop", plain.idle()).target(Target::RatioAtMost(1.5)));
    report.push(row().beside("Linux", kernel.idle()));

    paced(&lab, sizes, &[address], "1 address", &mut report)?;
    let count = sizes.many;
    many(&lab, sizes, (1..=count).map(v4).collect(), &format!("{count} addresses"), &mut report)?;
    // No two of them beside each other: the socket's filter cannot hold them all.
    let scattered = (1..=count).map(|n| v4(3 * n)).collect();
    many(&lab, sizes, scattered, &format!("{count} scattered addresses"), &mut report)?;
    report.note(format!(
        "the client asks from core {}, the responder answers on core {} (the kernel's part included); processor \
         time is that of the responder's thread; paced requests come ten at a time; on an idle link the middle round \
         counts",
        CORES.0, CORES.1
    ));
    Ok(report)
}

/// Answers a second, and the microseconds in which half of them come on an idle link.
fn measure(lab: &Lab, sizes: Sizes, addresses: &[IpAddr]) -> anyhow::Result<(f64, f64)> {
    let (rate, idle) = lab.within(CLIENT, || {
        let mut asker = Asker::open(addresses, CORES.0)?;
        Ok::<_, anyhow::Error>((asker.flood(Flood::AsAnswered, sizes.flood)?, asker.idle(sizes.samples)?))
    })??;
    ensure!(rate.lost == 0, "{} of {} requests were not answered", rate.lost, rate.asked);
    Ok((rate.per_second(), idle))
}

/// A fixed number of requests a second: all are answered; and as many for addresses of others: none wakes the thread.
fn paced(
    lab: &Lab,
    sizes: Sizes,
    addresses: &[IpAddr],
    what: &str,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut answered: f64 = 0.0;
    let (mut busy, mut foreign, mut plain) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
    let mut plain_answered = f64::NAN;
    let (mut made, mut whole, mut most) = (0, 0, 0.0);
    let others: Vec<IpAddr> = (0..256).map(|n| IpAddr::V4(Ipv4Addr::from_bits(0x0a4d_f000 + n))).collect();
    // A hypervisor that takes the core away loses frames, whoever is to answer them: one whole round says that all can be.
    for round in 0..2 * sizes.rounds {
        if round >= ENOUGH.min(sizes.rounds) && answered >= 100.0 {
            break;
        }
        let responder = Responder::start(lab, Kind::OpenElb, addresses, CORES.1)?;
        let flood = |addresses: &[IpAddr]| {
            let before = responder.processor_time()?;
            let seen = lab.within(CLIENT, || {
                Asker::open(addresses, CORES.0)?.flood(Flood::Paced(PACE), 2 * sizes.flood)
            })??;
            let spent = responder.processor_time()?.saturating_sub(before).as_secs_f64();
            anyhow::Ok((seen, 100.0 * spent / seen.took.as_secs_f64()))
        };
        let (seen, share) = flood(addresses)?;
        let (foreign_seen, of_others) = flood(&others)?;
        responder.stop()?;
        let offered = [seen, foreign_seen].map(|seen| seen.asked as f64 / seen.took.as_secs_f64());
        most = offered.into_iter().fold(most, f64::max);
        // A machine that had no time for the client either.
        if offered.into_iter().any(|offered| offered < sizes.offered * f64::from(PACE)) {
            continue;
        }
        let share_answered = 100.0 * seen.answered as f64 / seen.asked as f64;
        made += 1;
        whole += u32::from(share_answered >= 100.0);
        if share_answered > answered {
            (answered, busy) = (share_answered, share);
        } else if share_answered >= answered {
            busy = busy.min(share);
        }
        foreign = foreign.min(of_others);
        if addresses.len() == 1 {
            let responder = Responder::start(lab, Kind::Plain, addresses, CORES.1)?;
            let seen = lab.within(CLIENT, || {
                Asker::open(addresses, CORES.0)?.flood(Flood::Paced(PACE), 2 * sizes.flood)
            })??;
            plain_answered = plain_answered.max(100.0 * seen.answered as f64 / seen.asked as f64);
            let before = responder.processor_time()?;
            let seen = lab.within(CLIENT, || {
                Asker::open(&others, CORES.0)?.flood(Flood::Paced(PACE), 2 * sizes.flood)
            })??;
            let spent = responder.processor_time()?.saturating_sub(before).as_secs_f64();
            plain = plain.min(100.0 * spent / seen.took.as_secs_f64());
            responder.stop()?;
        }
    }
    ensure!(made > 0, "only {most:.0} requests a second could be sent");
    let row = Row::new(format!("ARP, {what}, 100,000 requests/s: answered"), "%", answered);
    let row = if plain_answered.is_nan() { row } else { row.beside("AF_PACKET loop", plain_answered) };
    report.push(row.target(Target::AtLeast(100.0)));
    report.push(Row::new(format!("ARP, {what}, 100,000 requests/s: processor time"), "% of a core", busy));
    let row = Row::new(format!("ARP, {what}, 100,000 foreign/s: processor time"), "% of a core", foreign);
    let row = if plain.is_finite() { row.beside("AF_PACKET loop", plain) } else { row };
    report.push(row.target(Target::AtMost(10.0)).zero_is_fine());
    report.note(format!("ARP, {what}, 100,000 requests/s: {whole} of {made} rounds were whole"));
    Ok(())
}

/// The same with many addresses: it is to make no difference.
fn many(
    lab: &Lab,
    sizes: Sizes,
    addresses: Vec<IpAddr>,
    what: &str,
    report: &mut Report,
) -> anyhow::Result<()> {
    // By turns, for the machine may be another one minutes later.
    let (mut all, mut one) = (Rounds::default(), Rounds::default());
    let single = [v4(1)];
    for _ in 0..sizes.rounds {
        for (addresses, rounds) in [(&single[..], &mut one), (&addresses, &mut all)] {
            let responder = Responder::start(lab, Kind::OpenElb, addresses, CORES.1)?;
            rounds.add(measure(lab, sizes, addresses)?);
            responder.stop()?;
        }
    }
    let row = Row::new(format!("ARP, {what}: answers"), "answers/s", all.rate);
    report.push(row.beside("1 address", one.rate).target(Target::RatioAtLeast(0.8)));
    let row = Row::new(format!("ARP, {what}, idle link: half are answered within"), "us", all.idle());
    report.push(row.beside("1 address", one.idle()).target(Target::RatioAtMost(1.25)));
    paced(lab, sizes, &addresses, what, report)
}

fn lab() -> anyhow::Result<Lab> {
    let lab = Lab::start("bench-l2")?;
    lab.network(|network| {
        network.host(CLIENT).host(SERVER);
        let client = (CLIENT, "eth0", &["10.77.0.1/16", "fd00:77::1/64"][..]);
        network.wire(client, (SERVER, "eth0", &["10.77.0.2/16", "fd00:77::2/64"]));
    })?;
    // What comes in is worked on by the core of whoever it is for, as with a network card; else the kernel's part of the
    // answer, or all of it, would be done by the core that asks.
    for (host, core) in [(CLIENT, CORES.0), (SERVER, CORES.1)] {
        let steer = format!("echo {:x} >/sys/class/net/eth0/queues/rx-0/rps_cpus", 1_u32 << core);
        lab.run(host, &["sh", "-c", &steer])?;
    }
    Ok(lab)
}

fn v4(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a4d_4000 + n).into()
}

fn v6(n: u32) -> IpAddr {
    Ipv6Addr::from_bits((0xfd00_0077_u128 << 96) + 0x10_0000 + u128::from(n)).into()
}
