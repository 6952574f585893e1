//! Allocation in a cluster: `openelbd controller` on a real API server, beside what that server itself can do.
//!
//! The floor of *assigning N Services* is N bare patches of `services/status`, sent by the bench with as many at a time
//! as serves it best; the floor of *one new Service* is one patch of an Eip's status and one of a Service's, one after
//! the other, on objects of the same size. Both are measured in the same run, on an API server of their own.

mod cluster;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use self::cluster::Cluster;
use crate::{Options, Report, Row, Target};

/// How many patches at a time are tried for the floor.
const CONCURRENCY: [usize; 3] = [16, 32, 64];
/// New Services for one latency.
const NEW: usize = 60;

/// Measures how long waiting Services take to get their addresses, and how many writes.
///
/// # Errors
/// Not root, a program of the lab or `openelbd` is missing (says which), or Services are left without an address.
pub fn assign(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::new();
    for count in [1_000usize, 5_000, 10_000] {
        if options.smoke && count > 1_000 {
            continue;
        }
        let count = if options.smoke { 50 } else { count };
        let mut floor = Duration::MAX;
        let tried: &[usize] = if options.smoke { &[32] } else { &CONCURRENCY };
        for at_a_time in tried {
            let cluster = Cluster::start("floor")?;
            floor = floor.min(cluster.run(|client| cluster::floor(client, count, *at_a_time))?);
        }
        let cluster = Cluster::start("assign")?;
        let controller = cluster.start_controller()?;
        cluster.run(|client| cluster::create_services(client, "waiting", count))?;
        let took = cluster.run(|client| cluster::assign_all(client, count))?;
        let writes = controller.writes()?;
        let per_service = writes as f64 / count as f64;
        report.push(
            Row::new(format!("{count} waiting Services → all assigned"), "s", took.as_secs_f64())
                .beside("bare status patches", floor.as_secs_f64())
                .target(Target::RatioAtMost(1.3)),
        );
        report.push(
            Row::new(format!("API writes per Service, {count}"), "writes", per_service)
                .target(Target::AtMost(1.1)),
        );
        let memory = controller.resident()?;
        let mut row = Row::new(format!("controller's memory, {count} Services"), "MB", memory as f64 / 1e6);
        if count == 10_000 {
            row = row.target(Target::AtMost(100.0));
        }
        report.push(row);
        // The same controller again, with everything assigned.
        let again = controller.restart()?;
        let serving = again.serving_after();
        let written = again.writes()?;
        report.push(
            Row::new(format!("restart with {count} assigned → ready"), "s", serving.as_secs_f64())
                .target(Target::AtMost(2.0)),
        );
        report.push(
            Row::new(format!("writes after that restart, {count}"), "writes", written as f64)
                .target(Target::AtMost(0.0))
                .zero_is_fine(),
        );
    }
    Ok(report)
}

/// Measures how long one new Service waits for its address.
///
/// # Errors
/// As [`assign`].
pub fn one_more(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::new();
    for (present, pools) in [(1_000usize, 1usize), (10_000, 10)] {
        if options.smoke && pools > 1 {
            continue;
        }
        let (present, new) = if options.smoke { (50, 5) } else { (present, NEW) };
        let cluster = Cluster::start("one-more")?;
        let controller = cluster.start_controller()?;
        cluster.run(|client| cluster::fill(client, present, pools))?;
        let waits = cluster.run(|client| cluster::one_by_one(client, new))?;
        // The floor last, without a controller that reacts to it, on the very same objects.
        controller.stop()?;
        let floors = cluster.run(|client| cluster::two_patches(client, new))?;
        let (ours, floor) = (median(&waits)?, median(&floors)?);
        let size = format!("{present} present in {pools} pool{}", if pools == 1 { "" } else { "s" });
        report.push(
            Row::new(format!("one new Service → ingress, p50, {size}"), "ms", ours.as_secs_f64() * 1e3)
                .beside("two bare patches", floor.as_secs_f64() * 1e3)
                .target(Target::RatioAtMost(2.0)),
        );
    }
    Ok(report)
}

fn median(times: &[Duration]) -> anyhow::Result<Duration> {
    ensure!(!times.is_empty(), "nothing was measured");
    let mut times = times.to_vec();
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
