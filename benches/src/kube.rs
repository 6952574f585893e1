//! A cluster: `openelbd controller` and `openelbd speaker` on a real API server, beside what that server itself can do.
//!
//! The floor of *assigning N Services* is N bare patches of `services/status`, sent by the bench with as many at a time
//! as serves it best, to Services that have been told to wait as ours are; the floor of *one new Service* is one write of an Eip's status and one of a Service's, one after
//! the other, on objects of the same size, each of the kind that serves best. Both are measured in the same run, on an API server of their own. The router
//! is a collector of the bench, which takes one BGP session. With MetalLB built (`--with-peers`) it does the same work
//! in the same run, on an API server of its own.

mod cluster;
mod load;
mod system;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use self::{
    cluster::Cluster,
    load::Wait,
    system::{System, has_metallb, start_metallb},
};
use crate::{Options, Report, Row, Target, collector::Arrivals};

/// How many patches at a time are tried for the floor.
const CONCURRENCY: [usize; 3] = [16, 32, 64];
/// New Services for one latency.
const NEW: usize = 60;
const QUIET: System = System::OpenElb { announced: false };
const ANNOUNCED: System = System::OpenElb { announced: true };

/// Measures how long waiting Services take to get their addresses, and how many writes.
///
/// # Errors
/// Not root, a program of the lab or `openelbd` is missing (says which), or Services are left without an address.
pub fn assign(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::new();
    for count in [1_000usize, 5_000, 10_000] {
        if options.smoke && count > 1_000 || !options.wants(count) {
            continue;
        }
        let (count, tried): (usize, &[usize]) =
            if options.smoke { (50, &[32]) } else { (count, &CONCURRENCY) };
        report.extend_or_fail(&format!("{count} waiting Services"), assign_so_many(count, tried));
    }
    Ok(report)
}

fn assign_so_many(count: usize, tried: &[usize]) -> anyhow::Result<Report> {
    let mut report = Report::new();
    // By turns, one as often as the other: what else the machine does hits both.
    let mut rounds = Vec::new();
    for at_a_time in tried {
        rounds.push((bare_patches(count, *at_a_time)?, assigned(count)?));
    }
    let best =
        |of: fn(&(Bare, Assigned)) -> Duration| rounds.iter().map(of).min().context("no round was run");
    let (floor, took) = (best(|(bare, _)| bare.took)?, best(|(_, ours)| ours.took)?);
    let each = |time: Duration| time.as_secs_f64() * 1e3 / count as f64;
    let most = |of: fn(&Assigned) -> u64| rounds.iter().map(|(_, ours)| of(ours)).max().unwrap_or(0);
    report.push(
        Row::new(format!("{count} waiting Services → all assigned"), "s", took.as_secs_f64())
            .beside("bare status patches", floor.as_secs_f64())
            .target(Target::RatioAtMost(1.3)),
    );
    let per_service = most(|ours| ours.writes) as f64 / count as f64;
    report.push(
        Row::new(format!("API writes per Service, {count}"), "writes", per_service)
            .target(Target::AtMost(1.1)),
    );
    report.push(Row::new(
        format!("processor time of the controller per Service, {count}"),
        "ms",
        each(best(|(_, ours)| ours.processor)?),
    ));
    report.push(
        Row::new(
            format!("processor time of the API server per Service, {count}"),
            "ms",
            each(best(|(_, ours)| ours.api_processor)?),
        )
        .beside("bare status patches", each(best(|(bare, _)| bare.api_processor)?)),
    );
    let serving = best(|(_, ours)| ours.serving_after)?;
    report.push(
        Row::new(format!("restart with {count} assigned → ready"), "s", serving.as_secs_f64())
            .target(Target::AtMost(2.0)),
    );
    let written = most(|ours| ours.written_again);
    report.push(
        Row::new(format!("writes after that restart, {count}"), "writes", written as f64)
            .target(Target::AtMost(0.0))
            .zero_is_fine(),
    );
    let memory = most(|ours| ours.memory);
    let peer = has_metallb().then(|| metallb_assigns(count)).transpose()?;
    if let Some((theirs, _)) = peer {
        report.push(
            Row::new(format!("{count} waiting Services, the same"), "s", took.as_secs_f64())
                .beside("MetalLB", theirs.as_secs_f64())
                .target(Target::RatioAtMost(1.0 / 3.0)),
        );
    }
    let mut row = Row::new(format!("controller's memory, {count} Services"), "MB", memory as f64 / 1e6);
    if count == 10_000 {
        row = row.target(Target::AtMost(100.0));
    }
    if let Some((_, theirs)) = peer {
        row = row.beside("MetalLB", theirs as f64 / 1e6);
    }
    report.push(row);
    Ok(report)
}

/// What the API server can do by itself.
struct Bare {
    took: Duration,
    api_processor: Duration,
}

/// Bare patches of Services that were told to wait, so many at a time.
fn bare_patches(count: usize, at_a_time: usize) -> anyhow::Result<Bare> {
    let cluster = Cluster::start("floor", QUIET)?;
    cluster.run(|client| load::create_services(client, "waiting", count))?;
    cluster.run(|client| load::tell_waiting(client, count))?;
    let before = cluster.api_processor()?;
    let took = cluster.run(|client| load::floor(client, count, at_a_time))?;
    Ok(Bare { took, api_processor: cluster.api_processor()?.saturating_sub(before) })
}

/// What the controller did with waiting Services once there was a pool, and after a restart.
struct Assigned {
    took: Duration,
    writes: u64,
    processor: Duration,
    api_processor: Duration,
    memory: u64,
    serving_after: Duration,
    written_again: u64,
}

fn assigned(count: usize) -> anyhow::Result<Assigned> {
    let cluster = Cluster::start("assign", QUIET)?;
    let controller = cluster.start_controller()?;
    cluster.run(|client| load::create_services(client, "waiting", count))?;
    // That they wait, and for what, is told before.
    let written = controller.writes_at_rest()?;
    let (processor, api_processor) = (controller.processor()?, cluster.api_processor()?);
    let took = cluster.run(|client| load::assign_all(client, QUIET, count))?;
    let processor = controller.processor()?.saturating_sub(processor);
    let api_processor = cluster.api_processor()?.saturating_sub(api_processor);
    let writes = controller.writes_at_rest()?.saturating_sub(written);
    let memory = controller.resident()?;
    // The same controller again, with everything assigned.
    let again = controller.restart()?;
    let (serving_after, written_again) = (again.serving_after(), again.writes_at_rest()?);
    Ok(Assigned { took, writes, processor, api_processor, memory, serving_after, written_again })
}

/// The time, and its controller's memory.
fn metallb_assigns(count: usize) -> anyhow::Result<(Duration, u64)> {
    let cluster = Cluster::start("metallb", System::MetalLb)?;
    let controller = start_metallb(&cluster, "controller")?;
    cluster.run(|client| load::create_services(client, "waiting", count))?;
    let took = cluster.run(|client| load::assign_all(client, System::MetalLb, count))?;
    Ok((took, controller.resident()?))
}

/// Measures how long one new Service waits for its address, and for its route.
///
/// # Errors
/// As [`assign`].
pub fn one_more(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::new();
    for (present, pools) in [(1_000usize, 1usize), (10_000, 10)] {
        if options.smoke && pools > 1 || !options.wants(present) {
            continue;
        }
        let (present, new) = if options.smoke { (50, 5) } else { (present, NEW) };
        report.extend_or_fail(&format!("one more than {present}"), one_more_than(present, pools, new));
    }
    Ok(report)
}

fn one_more_than(present: usize, pools: usize, new: usize) -> anyhow::Result<Report> {
    let mut report = Report::new();
    let cluster = Cluster::start("one-more", ANNOUNCED)?;
    let controller = cluster.start_controller()?;
    let arrivals = cluster.start_router()?;
    let speaker = cluster.start_speaker()?;
    cluster.run(|client| load::fill(client, ANNOUNCED, present, pools))?;
    let waits = one_by_one(&cluster, ANNOUNCED, present, new, &arrivals)?;
    // The floor last, without a controller that reacts to it, on the very same objects.
    controller.stop()?;
    speaker.stop()?;
    let floors = cluster.run(|client| load::two_writes(client, new))?;
    drop(cluster);
    let floor = median(floors)?;
    let size = format!("{present} present in {pools} pool{}", if pools == 1 { "" } else { "s" });
    let theirs = if has_metallb() { Some(metallb_one_more(present, pools, new)?) } else { None };
    for what in ["ingress", "route at the router"] {
        let of = |wait: &Wait| if what == "ingress" { wait.ingress } else { wait.route };
        let ours = median(waits.iter().map(of).collect())?;
        let row =
            || Row::new(format!("one new Service → {what}, p50, {size}"), "ms", ours.as_secs_f64() * 1e3);
        report.push(
            row().beside("two bare writes", floor.as_secs_f64() * 1e3).target(Target::RatioAtMost(2.0)),
        );
        if let Some(theirs) = &theirs {
            let theirs = median(theirs.iter().map(of).collect())?;
            report.push(row().beside("MetalLB", theirs.as_secs_f64() * 1e3).target(Target::RatioAtMost(1.0)));
        }
    }
    Ok(report)
}

fn metallb_one_more(present: usize, pools: usize, new: usize) -> anyhow::Result<Vec<Wait>> {
    let cluster = Cluster::start("metallb", System::MetalLb)?;
    let _controller = start_metallb(&cluster, "controller")?;
    let arrivals = cluster.start_router()?;
    let _speaker = start_metallb(&cluster, "speaker")?;
    cluster.run(|client| load::fill(client, System::MetalLb, present, pools))?;
    one_by_one(&cluster, System::MetalLb, present, new, &arrivals)
}

fn one_by_one(
    cluster: &Cluster,
    system: System,
    present: usize,
    new: usize,
    arrivals: &Arrivals,
) -> anyhow::Result<Vec<Wait>> {
    load::all_routes(arrivals, present)?;
    cluster.run(|client| load::one_by_one(client, system, new, arrivals))
}

/// Measures how long a speaker takes from its start until the router has all routes, and what it then holds.
///
/// # Errors
/// As [`assign`].
pub fn speaker(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::new();
    for count in [5_000usize, 10_000] {
        if options.smoke && count > 5_000 || !options.wants(count) {
            continue;
        }
        let count = if options.smoke { 50 } else { count };
        let rounds = options.rounds.clamp(1, 3);
        report.extend_or_fail(&format!("a speaker with {count} Services"), speaker_of(count, rounds));
    }
    Ok(report)
}

fn speaker_of(count: usize, rounds: u32) -> anyhow::Result<Report> {
    let mut report = Report::new();
    let mut best: Option<(Duration, u64)> = None;
    let mut memory = 0;
    let cluster = Cluster::start("speaker", ANNOUNCED)?;
    cluster.run(|client| load::publish(client, ANNOUNCED, count))?;
    let router = cluster.start_router()?;
    for _ in 0..rounds {
        router.forget();
        let speaker = cluster.start_speaker()?;
        let (last, updates) = load::all_routes(&router, count)?;
        let took = last.saturating_duration_since(speaker.began);
        best = Some(best.map_or((took, updates), |(least, few)| (least.min(took), few.min(updates))));
        memory = speaker.resident()?;
        speaker.stop()?;
    }
    drop(cluster);
    let (took, updates) = best.context("no round was run")?;
    let theirs = if has_metallb() && count == 5_000 { Some(metallb_announces(count)?) } else { None };
    let row = Row::new(format!("speaker: start → {count} routes at the router"), "s", took.as_secs_f64());
    let row = if count == 10_000 { row } else { row.target(Target::AtMost(1.0)) };
    report.push(match theirs {
        Some((theirs, _)) => row.beside("MetalLB", theirs.as_secs_f64()),
        None => row,
    });
    let row = Row::new(format!("UPDATEs for these {count} routes"), "messages", updates as f64);
    report.push(if count == 10_000 { row } else { row.target(Target::AtMost(20.0)) });
    let row = Row::new(format!("speaker's memory, {count} Services"), "MB", memory as f64 / 1e6);
    let row = if count == 10_000 { row.target(Target::AtMost(60.0)) } else { row };
    report.push(match theirs {
        Some((_, theirs)) => row.beside("MetalLB", theirs as f64 / 1e6),
        None => row,
    });
    Ok(report)
}

/// The time, and its speaker's memory.
fn metallb_announces(count: usize) -> anyhow::Result<(Duration, u64)> {
    let cluster = Cluster::start("metallb", System::MetalLb)?;
    cluster.run(|client| load::publish(client, System::MetalLb, count))?;
    let router = cluster.start_router()?;
    let speaker = start_metallb(&cluster, "speaker")?;
    let (last, _) = load::all_routes(&router, count)?;
    Ok((last.saturating_duration_since(speaker.began), speaker.resident()?))
}

fn median(mut times: Vec<Duration>) -> anyhow::Result<Duration> {
    ensure!(!times.is_empty(), "nothing was measured");
    times.sort_unstable();
    times.get(times.len() / 2).copied().context("nothing was measured")
}

/// Asks until there is an answer.
async fn until<T, F: Future<Output = anyhow::Result<Option<T>>>>(
    what: &str,
    within: Duration,
    mut ask: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        ensure!(began.elapsed() < within, "{what}: not within {within:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
