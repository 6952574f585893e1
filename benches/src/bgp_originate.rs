//! Many routes to many neighbours, beside BIRD, FRR and GoBGP in the same run.
//!
//! Every speaker is a process of its own with a full table on a loopback address. Collectors connect to it and count;
//! from the first Established to the last prefix at the last collector is one figure, the withdrawal of everything
//! another, everything anew while the sessions are up the third.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::{
    Options, Report, Row, Target,
    bgp_child::LIMIT,
    bgp_routers::{COLLECTOR_AS, COMMUNITY, DEADLINE, FEEDER, FEEDER_AS, Kind, Router, collector},
    bgp_session::{Change, PER_SET, Session, address, bulk},
};

/// Routes, collectors, and the peers that are measured with so many: GoBGP sends one prefix to an UPDATE and would
/// take minutes with more.
const SIZES: [(u32, u8, &[Kind]); 4] = [
    (100_000, 1, &Kind::PEERS),
    (500_000, 1, &[Kind::Bird, Kind::Frr]),
    (100_000, 10, &[Kind::Bird, Kind::Frr]),
    (10_000, 100, &[Kind::Bird, Kind::Frr]),
];
/// Routes that change together, again and again.
const CHANGING: u32 = 10_000;

/// How many rounds of something that takes seconds.
fn rounds(options: &Options) -> u32 {
    options.rounds.clamp(1, if options.smoke { 1 } else { 3 })
}

/// A row of ours beside a peer's, in milliseconds, with the target that this peer sets.
fn beside(name: String, unit: &str, ours: f64, kind: Kind, theirs: f64, bird: Option<f64>) -> Row {
    let row = Row::new(name, unit, ours).beside(kind.name(), theirs);
    match (kind, bird) {
        (Kind::Bird, Some(ratio)) => row.target(Target::RatioAtMost(ratio)),
        (Kind::Bird, None) => row,
        _ => row.target(Target::RatioAtMost(1.0)),
    }
}

/// The part `originate`.
///
/// # Errors
/// If our speaker does not deliver its routes in time.
pub fn originate(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::new();
    let versions: Vec<String> = Kind::PEERS.iter().map(|kind| kind.version()).collect();
    report.note(format!("peers: {}", versions.join(", ")));
    report.note(
        "a peer is fed by one neighbour and passes on; ours, which passes nothing on, is given its routes by its embedder: \
         only \"while up\" has the peer read its feed within the time",
    );
    report.note(format!(
        "{PER_SET} prefixes to an attribute set; ms until the last collector has the last prefix"
    ));
    let rounds = rounds(options);
    for (count, collectors, peers) in SIZES {
        let (routes, collectors) = (options.scaled(count), options.scaled(collectors).max(collectors.min(2)));
        let best = |kind: Kind| -> anyhow::Result<Figures> {
            let mut best: Option<Figures> = None;
            let rounds = if kind == Kind::Gobgp { 1 } else { rounds };
            for _ in 0..rounds {
                let figures = Figures::measure(kind, routes, collectors)
                    .with_context(|| format!("{}, {routes} routes to {collectors}", kind.name()))?;
                best = Some(best.map_or(figures, |best| best.better(figures)));
            }
            best.context("no round was run")
        };
        let ours = best(Kind::Ours)?;
        for kind in peers {
            let theirs = match best(*kind) {
                Ok(figures) => figures,
                Err(error) => {
                    report.note(format!("missing: {error:#}"));
                    continue;
                }
            };
            let to = format!("{} k to {collectors}", f64::from(routes) / 1e3);
            let ratio = (count >= 100_000).then_some(1.5);
            let mut push = |what: &str, ours: Duration, theirs: Duration, bird: Option<f64>| {
                let (ours, theirs) = (ours.as_secs_f64() * 1e3, theirs.as_secs_f64() * 1e3);
                report.push(beside(format!("{what}, {to}"), "ms", ours, *kind, theirs, bird));
            };
            push("Established to last NLRI", ours.originate, theirs.originate, ratio);
            push("withdraw all", ours.withdraw, theirs.withdraw, ratio);
            push("give all while up", ours.given, theirs.given, ratio);
            push("Established to first NLRI", ours.first, theirs.first, None);
            if collectors == 1 {
                let resident = |bytes: u64| bytes as f64 / f64::from(routes);
                let (ours, theirs) = (resident(ours.resident), resident(theirs.resident));
                report.push(beside(
                    format!("resident memory a route, {to}"),
                    "bytes",
                    ours,
                    *kind,
                    theirs,
                    None,
                ));
            }
        }
        if count == 500_000 {
            report.push(
                Row::new("memory a route beyond shared attributes, 1 peer", "bytes", ours.reserved)
                    .target(Target::AtMost(100.0)),
            );
            report.push(Row::new("NLRI an UPDATE", "NLRI", ours.per_update).target(Target::AtLeast(300.0)));
        }
    }
    Ok(report)
}

/// What one round gave.
#[derive(Debug, Clone, Copy)]
struct Figures {
    originate: Duration,
    first: Duration,
    withdraw: Duration,
    given: Duration,
    /// Bytes more with a full table and its collectors than before.
    resident: u64,
    reserved: f64,
    per_update: f64,
}

impl Figures {
    fn better(self, other: Self) -> Self {
        Self {
            originate: self.originate.min(other.originate),
            first: self.first.min(other.first),
            withdraw: self.withdraw.min(other.withdraw),
            given: self.given.min(other.given),
            resident: self.resident.min(other.resident),
            reserved: self.reserved.min(other.reserved),
            per_update: self.per_update.max(other.per_update),
        }
    }

    fn measure(kind: Kind, routes: u32, collectors: u8) -> anyhow::Result<Self> {
        let mut router = Router::start(kind, collectors)?;
        // It answers: what it needs without routes is there.
        drop(Session::connect(collector(1), router.address, COLLECTOR_AS, DEADLINE)?);
        let empty = router.resident()?;
        router.load(routes)?;
        let to = router.address;
        let awake = router.awake()?;
        let (mut sessions, times): (Vec<Session>, Vec<(Instant, Instant)>) =
            each(1..=collectors, |number| {
                let mut session = Session::connect(collector(number), to, COLLECTOR_AS, DEADLINE)?;
                let times = session.announced(routes)?;
                Ok((session, times))
            })?
            .into_iter()
            .unzip();
        drop(awake);
        let established = sessions.iter().map(|session| session.established).min().context("no collector")?;
        let first = times.iter().map(|(first, _)| *first).min().context("no collector")? - established;
        let originate = last(&times)? - established;
        let updates = sessions.iter().map(|session| session.updates).sum::<u64>() as f64;
        let resident = router.resident()?.saturating_sub(empty);
        let reserved = match kind {
            Kind::Ours => {
                let stats = router.ask("stats")?;
                let (routes, bytes) = stats.split_once(' ').context("two figures")?;
                bytes.parse::<f64>()? / routes.parse::<f64>()?
            }
            _ => 0.0,
        };

        let start = Instant::now();
        let times = during(&mut sessions, |session| session.withdrawn(routes), || router.withdraw())?;
        let withdraw = last(&times)? - start;

        router.prepare(routes, COMMUNITY + 10_000)?;
        let start = Instant::now();
        let times = during(
            &mut sessions,
            |session| session.announced(routes),
            || {
                router.give()?;
                router.awake()
            },
        )?;
        let given = last(&times)? - start;
        Ok(Self {
            originate,
            first,
            withdraw,
            given,
            resident,
            reserved,
            per_update: f64::from(routes) * f64::from(collectors) / updates,
        })
    }
}

fn last(times: &[(Instant, Instant)]) -> anyhow::Result<Instant> {
    times.iter().map(|(_, last)| *last).max().context("no collector")
}

/// Runs `work` for each collector on a thread of its own.
fn each<T: Send>(
    items: impl IntoIterator<Item = u8>,
    work: impl Fn(u8) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = items.into_iter().map(|item| scope.spawn(move || work(item))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow::anyhow!("panicked"))?).collect()
    })
}

/// Lets every session wait for something, and meanwhile does what brings it about.
///
/// What that returns is kept as long.
fn during<T: Send, G>(
    sessions: &mut [Session],
    wait: impl Fn(&mut Session) -> anyhow::Result<T> + Sync,
    act: impl FnOnce() -> anyhow::Result<G>,
) -> anyhow::Result<Vec<T>> {
    std::thread::scope(|scope| {
        let wait = &wait;
        let threads: Vec<_> = sessions.iter_mut().map(|session| scope.spawn(move || wait(session))).collect();
        let _guard = act()?;
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow::anyhow!("panicked"))?).collect()
    })
}

/// The part `change`: a table of 100,000 routes, one collector, and changes.
///
/// # Errors
/// If our speaker does not deliver its routes in time.
pub fn change(options: &Options) -> anyhow::Result<Report> {
    let routes = options.scaled(100_000_u32);
    let mut report = Report::new();
    let ours = Changes::measure(Kind::Ours, routes, options)?;
    for kind in Kind::PEERS {
        let theirs = match Changes::measure(kind, routes, options) {
            Ok(changes) => changes,
            Err(error) => {
                report.note(format!("missing: {}: {error:#}", kind.name()));
                continue;
            }
        };
        let row = Row::new("continuous change, passed on", "changes/s", ours.churn)
            .beside(kind.name(), theirs.churn);
        report.push(if kind == Kind::Bird { row } else { row.target(Target::RatioAtLeast(1.0)) });
        let mut push = |what: &str, ours: f64, theirs: f64| {
            report.push(beside(what.to_owned(), "ms", ours * 1e3, kind, theirs * 1e3, None));
        };
        push("one new route with the table full, median", ours.median, theirs.median);
        push("one new route while all are sent again", ours.during_bulk, theirs.during_bulk);
    }
    report.push(
        Row::new("one new route with the table full, median", "ms", ours.median * 1e3)
            .target(Target::AtMost(1.0)),
    );
    report.push(Row::new("the same, 99th percentile", "ms", ours.p99 * 1e3));
    report.push(
        Row::new("one new route while all are sent again", "ms", ours.during_bulk * 1e3)
            .target(Target::AtMost(5.0)),
    );
    report
        .note(format!("{routes} routes, 1 collector; of them {} change together", options.scaled(CHANGING)));
    Ok(report)
}

#[derive(Debug, Clone, Copy)]
struct Changes {
    churn: f64,
    median: f64,
    p99: f64,
    during_bulk: f64,
}

impl Changes {
    fn measure(kind: Kind, routes: u32, options: &Options) -> anyhow::Result<Self> {
        let mut router = Router::start(kind, 1)?;
        router.load(routes)?;
        let mut session = Session::connect(collector(1), router.address, COLLECTOR_AS, DEADLINE)?;
        let awake = router.awake()?;
        session.announced(routes)?;
        drop(awake);

        let (changing, seconds) = (options.scaled(CHANGING), if options.smoke { 0.1 } else { 2.0 });
        let (mut changed, mut spent) = (0.0, Duration::ZERO);
        let mut community = COMMUNITY;
        while spent.as_secs_f64() < seconds {
            community += 1000;
            router.prepare(changing, community)?;
            let mut sessions = [session];
            let start = Instant::now();
            let news = |change| matches!(change, Change::Announced { community: of, .. } if of >= community);
            let times = during(
                &mut sessions,
                |session| session.until(changing, news),
                || {
                    router.change()?;
                    router.awake()
                },
            )?;
            spent += last(&times)? - start;
            changed += f64::from(changing);
            [session] = sessions;
            if changed >= 1e7 {
                break;
            }
        }

        let mut fresh = routes..;
        let mut one = |session: &mut Session, router: &mut Router| -> anyhow::Result<f64> {
            let index = fresh.next().context("addresses")?;
            let start = Instant::now();
            router.one(index)?;
            session.wait_for(address(index))?;
            Ok(start.elapsed().as_secs_f64())
        };
        let mut times = Vec::new();
        for _ in 0..if options.smoke { 5 } else { 200 } {
            times.push(one(&mut session, &mut router)?);
        }
        times.sort_by(f64::total_cmp);
        let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
        // All routes once more, on the neighbour's demand, and a new one as soon as they begin to arrive.
        let mut during_bulk = f64::INFINITY;
        for _ in 0..rounds(options) {
            let awake = router.awake()?;
            session.ask_for_all()?;
            session.announced(1)?;
            // The new route wakes it, and two must not write to one feed.
            drop(awake);
            during_bulk = during_bulk.min(one(&mut session, &mut router)?);
            session.ask_for_all()?;
            session.announced(routes)?;
        }
        Ok(Self { churn: changed / spent.as_secs_f64(), median: at(50), p99: at(99), during_bulk })
    }
}

/// The part `receive`: a full table of 1,000,000 prefixes to a neighbour of which only the number is kept.
///
/// # Errors
/// If our speaker does not take them.
pub fn receive(options: &Options) -> anyhow::Result<Report> {
    let count = options.scaled(1_000_000_u32);
    let mut report = Report::new();
    let bytes = bulk(FEEDER_AS, (0..count).map(address), COMMUNITY);
    let mut router = Router::start(Kind::Ours, 1)?;
    let mut session = Session::connect(collector(1), router.address, COLLECTOR_AS, DEADLINE)?;
    let before = router.resident()?;
    let start = Instant::now();
    session.send(&bytes)?;
    let deadline = start + DEADLINE;
    while router.ask("received")?.parse::<u32>()? < count {
        anyhow::ensure!(Instant::now() < deadline, "not all {count} prefixes are counted");
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = start.elapsed();
    let more = router.resident()?.saturating_sub(before);
    report.push(
        Row::new(format!("memory for {count} prefixes that are counted"), "MB", more as f64 / 1e6)
            .target(Target::AtMost(40.0)),
    );
    report.push(Row::new("the same, received", "prefixes/s", f64::from(count) / took.as_secs_f64()));

    let mut session = Session::connect(FEEDER, router.address, FEEDER_AS, DEADLINE)?;
    let before = router.resident()?;
    let mut sender = session.stream.try_clone()?;
    let ended = std::thread::scope(|scope| {
        // It is closed before it has sent everything: that is the point.
        scope.spawn(move || sender.write_all(&bytes));
        loop {
            if let Err(error) = session.read_updates(|_| {}) {
                break error;
            }
        }
    });
    anyhow::ensure!(
        session.notification == Some((6, 1)),
        "a neighbour with {count} of {LIMIT} prefixes is not sent Cease/1: {ended:#}"
    );
    let more = router.resident()?.saturating_sub(before);
    report.push(
        Row::new(format!("memory for {count} prefixes where {LIMIT} are allowed"), "MB", more as f64 / 1e6)
            .zero_is_fine()
            .target(Target::AtMost(5.0)),
    );
    report.note("the number is published once a second: the rate is at least this");
    Ok(report)
}
