//! Address allocation at 1 to 1,000,000 used addresses, beside a pool that finds by scanning.

use std::collections::HashMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use openelb_ipam::{Ask, Family, Holder, HolderId, Pool, PoolSpec, Pools, Request, Terms, Want, decide};

use crate::{Options, Report, Row, Target};

/// First address of the pools: 10.0.0.0/8.
const BASE: u32 = 0x0a00_0000;
/// A scan may take this share of a second in total; it is repeated less often than ours.
const SCANS: u32 = 20;
/// Operations of ours in one measurement.
const OPERATIONS: u32 = 2_000;
/// Used addresses.
const SIZES: [u32; 4] = [1, 1_000, 65_536, 1_000_000];

/// Neighbours in a run: Services come and go in groups, and their addresses are neighbours.
const RUN: u32 = 64;

/// Measures allocate-lowest, explicit allocation and release.
///
/// In each pool the upper half of what is used has a gap after each address, so that the free space is fragmented.
/// Explicit allocation and release go through runs of neighbours, and the runs are spread over the whole pool.
///
/// # Errors
/// None; the signature is that of every part.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::new();
    let mut small = [0.0; 3];
    for used in SIZES {
        let used = options.scaled(used);
        let ours = measure_ours(options, used)?;
        let scan = measure_scan(options, used);
        for (i, name) in ["lowest", "explicit", "release"].into_iter().enumerate() {
            let (Some(ours), Some(scan), Some(small)) = (ours.get(i), scan.get(i), small.get_mut(i)) else {
                continue;
            };
            let mut row =
                Row::new(format!("{name}, {used} used"), "ns/op", *ours).beside("linear scan", *scan);
            if used == options.scaled(65_536) {
                row = row.target(Target::RatioAtMost(0.01));
            }
            report.push(row);
            if used == options.scaled(1_000) {
                *small = *ours;
            }
            if used == options.scaled(1_000_000) {
                let row =
                    Row::new(format!("{name}, {used} used beside {}", options.scaled(1_000)), "ns/op", *ours);
                report.push(row.beside("ours at 1 k", *small).target(Target::RatioAtMost(2.0)));
            }
        }
    }
    report.push(batch(options)?);
    Ok(report)
}

fn address(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(BASE + number))
}

/// The `i`-th used address: the first half without gaps, then every other one.
const fn nth(i: u32, used: u32) -> u32 {
    let half = used / 2;
    if i < half { i } else { half + 2 * (i - half) }
}

/// At most [`OPERATIONS`] different indices below `used`: runs of neighbours at places without order.
fn runs(used: u32, round: u32) -> Vec<u32> {
    let run = RUN.min(used);
    let places = used / run;
    let wanted = (OPERATIONS / run).clamp(1, places);
    // Odd steps over a power of two visit every place once; those beyond the end are skipped.
    let mask = places.next_power_of_two() - 1;
    let mut place = round;
    let mut starts = Vec::new();
    while starts.len() < usize::try_from(wanted).unwrap_or(usize::MAX) {
        place = place.wrapping_add(2_654_435_761) & mask;
        if place < places {
            starts.push(place * run);
        }
    }
    starts.into_iter().flat_map(|start| start..start + run).collect()
}

/// One of many holders of one group, whose name they share.
fn holder(group: &Arc<str>, i: u32) -> Arc<Holder> {
    let id = HolderId { group: Arc::clone(group), name: format!("service-{i}").into() };
    Arc::new(Holder { id, created: i64::from(i), terms: Terms::default() })
}

fn measure_ours(options: &Options, used: u32) -> anyhow::Result<[f64; 3]> {
    let mut pool = Pool::new(PoolSpec::new("bench", "10.0.0.0/8")?);
    let group: Arc<str> = "bench".into();
    let mut holders = Vec::new();
    for i in 0..used {
        let holder = holder(&group, i);
        pool.assign(address(nth(i, used)), Arc::clone(&holder));
        holders.push(holder);
    }
    let newcomers: Vec<_> = (0..OPERATIONS).map(|i| holder(&group, used + i)).collect();
    let mut best = [f64::MAX; 3];
    for round in 0..options.rounds.max(1) {
        let mut given = Vec::with_capacity(newcomers.len());
        let start = std::time::Instant::now();
        for holder in &newcomers {
            if let Ok(address) = pool.choose(Family::V4, holder, None) {
                pool.assign(address, Arc::clone(holder));
                given.push(address);
            }
        }
        let lowest = start.elapsed();
        anyhow::ensure!(given.len() == newcomers.len(), "the pool is too small");
        for (address, holder) in given.iter().zip(&newcomers) {
            pool.release(*address, &holder.id);
        }
        // Holders give their address up and ask for the same one again.
        let spread: Vec<(IpAddr, &Arc<Holder>)> = runs(used, round)
            .into_iter()
            .filter_map(|i| Some((address(nth(i, used)), holders.get(usize::try_from(i).ok()?)?)))
            .collect();
        // Who releases has its own name at hand, as who asks has: the pool is measured, not the caller's memory.
        let ids: Vec<HolderId> = spread.iter().map(|(_, holder)| holder.id.clone()).collect();
        let start = std::time::Instant::now();
        for ((address, _), id) in spread.iter().zip(&ids) {
            black_box(pool.release(*address, id));
        }
        let release = start.elapsed();
        let start = std::time::Instant::now();
        for (address, holder) in &spread {
            if pool.admit(*address, holder, |_| false).is_ok() {
                pool.assign(*address, Arc::clone(holder));
            }
        }
        let explicit = start.elapsed();
        anyhow::ensure!(pool.usage() == holders.len(), "an address was lost");
        let count = spread.len() as f64;
        let times = [
            lowest.as_secs_f64() / f64::from(OPERATIONS),
            explicit.as_secs_f64() / count,
            release.as_secs_f64() / count,
        ];
        for (best, time) in best.iter_mut().zip(times) {
            *best = best.min(time * 1e9);
        }
    }
    Ok(best)
}

/// A pool as one writes it first, and as the Go OpenELB's works: a map from address to holder; the lowest free address
/// is found by asking the map for each, a holder's record by looking at every entry.
#[derive(Default)]
struct ScanPool {
    used: HashMap<IpAddr, String>,
}

impl ScanPool {
    fn lowest(&self, size: u32) -> Option<IpAddr> {
        (0..size).map(address).find(|address| !self.used.contains_key(address))
    }

    fn record(&self, holder: &str) -> Option<IpAddr> {
        self.used.iter().find(|(_, name)| *name == holder).map(|(address, _)| *address)
    }

    fn explicit(&mut self, address: IpAddr, holder: &str) -> bool {
        // A holder that has an address already keeps it.
        if self.record(holder).is_some() || self.used.contains_key(&address) {
            return false;
        }
        self.used.insert(address, holder.to_owned());
        true
    }

    fn release(&mut self, holder: &str) {
        if let Some(address) = self.record(holder) {
            self.used.remove(&address);
        }
    }
}

fn measure_scan(options: &Options, used: u32) -> [f64; 3] {
    let mut pool = ScanPool::default();
    for i in 0..used {
        pool.used.insert(address(nth(i, used)), format!("bench/service-{i}"));
    }
    let scans = if used >= 1_000_000 { SCANS / 4 } else { SCANS };
    let names: Vec<_> = (0..scans).map(|i| format!("bench/new-{i}")).collect();
    let size = used * 2 + scans;
    let mut best = [f64::MAX; 3];
    for _ in 0..options.rounds.clamp(1, 3) {
        let mut given = Vec::new();
        let start = std::time::Instant::now();
        for name in &names {
            if let Some(address) = pool.lowest(size) {
                pool.used.insert(address, name.clone());
                given.push(address);
            }
        }
        let lowest = start.elapsed();
        let start = std::time::Instant::now();
        for name in &names {
            pool.release(name);
        }
        let release = start.elapsed();
        let start = std::time::Instant::now();
        for (name, address) in names.iter().zip(&given) {
            black_box(pool.explicit(*address, name));
        }
        let explicit = start.elapsed();
        for name in &names {
            pool.release(name);
        }
        for (best, time) in best.iter_mut().zip([lowest, explicit, release]) {
            *best = best.min(time.as_secs_f64() * 1e9 / f64::from(scans));
        }
    }
    best
}

/// A thousand new requests in one batch, with 65,536 addresses used.
fn batch(options: &Options) -> anyhow::Result<Row> {
    let used = options.scaled(65_536);
    let count = options.scaled(1_000_u32);
    let group: Arc<str> = "bench".into();
    let mut full = Pools::new([PoolSpec::new("bench", "10.0.0.0/8")?]);
    let Some(id) = full.find("bench") else { anyhow::bail!("the pool is not there") };
    for i in 0..used {
        full.assign(id, address(nth(i, used)), holder(&group, i));
    }
    let requests: Vec<Request> = (0..count)
        .map(|i| Request {
            holder: holder(&group, used + i),
            wants: vec![Want { family: Family::V4, ask: Ask::Any(vec![id]), held: None, leave: false }],
            all_or_none: false,
        })
        .collect();
    let best = options.best_of(
        || full.clone(),
        |mut pools| {
            let decision = decide(&mut pools, &requests);
            (pools, decision)
        },
    );
    Ok(Row::new(format!("batch of {count}, {used} used"), "ns/request", best.per(u64::from(count))))
}
