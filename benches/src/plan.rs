//! The allocation plan of the controller, with 1,000 Services in one pool and 10,000 in ten, beside a plan that begins
//! from nothing each time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::Timestamp;
use openelb_k8s::index::Indexes;
use openelb_k8s::index::services::ClassRules;
use openelb_k8s::object::{Object, ObjectRef};
use openelb_k8s::plan::allocation::{Planner, plan};
use openelb_k8s::plan::{Write, merge_patch};
use serde_json::{Value, json};

use crate::{Options, Report, Row, Target};

/// Services and pools.
const SIZES: [(u32, u32); 2] = [(1_000, 1), (10_000, 10)];
/// When everything was created.
const CREATED: &str = "2026-01-01T00:00:00Z";

/// Measures all waiting, one more, and nothing to do; and one more that waits beside all others that do.
///
/// # Errors
/// The objects of the bench cannot be read, or a plan does not settle.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::new();
    for (services, pools) in SIZES {
        let services = options.scaled(services);
        let mut world = World::new();
        for i in 0..pools {
            world.put(eip(i))?;
        }
        for i in 0..services {
            world.put(service(i, pools))?;
        }
        let name = format!("{services} Services, {pools} pools");
        // Nothing is assigned yet: commit, publish, nothing left.
        let mut planner = Planner::new();
        let mut times = Times::default();
        let plans = settle(&mut world, &mut planner, &mut times)?;
        anyhow::ensure!(plans == 3, "{plans} plans for waiting Services");
        for (step, time) in ["all wait", "all committed", "all published"].into_iter().zip(&times.plans) {
            report.push(
                Row::new(format!("{name}: {step}, the plan"), "ms", milliseconds(*time))
                    .target(Target::AtMost(100.0)),
            );
        }
        report.push(Row::new(
            format!("{name}: commits and publications into the indexes"),
            "ms",
            milliseconds(times.index),
        ));
        anyhow::ensure!(
            planner.services().values().all(|outcome| !outcome.addresses.is_empty()),
            "no address"
        );
        let before = resident();
        let copy = world.indexes.clone();
        let taken = resident().saturating_sub(before) as f64 / 1e6;
        drop(copy);
        // A copy of a few fits into pages that were there before.
        report.push(Row::new(format!("{name}: memory of the indexes"), "MB", taken).zero_is_fine());
        let full = options.best_of(|| (), |()| plan(&world.indexes, now()));
        anyhow::ensure!(plan(&world.indexes, now()).writes.is_empty(), "not settled");
        let idle = options.best_of(|| (), |()| planner.plan(&mut world.indexes, now()));
        report.push(
            Row::new(format!("{name}: nothing to do"), "ms", idle.milliseconds())
                .beside("from nothing", full.milliseconds())
                .target(Target::AtMost(1.0)),
        );
        let (mut plans, mut indexes) = (Duration::MAX, Duration::MAX);
        for round in 0..options.rounds.max(1) {
            let mut times = Times::default();
            world.put(service(services + round, pools))?;
            let rounds = settle(&mut world, &mut planner, &mut times)?;
            anyhow::ensure!(rounds == 3, "{rounds} plans for one Service");
            (plans, indexes) = (plans.min(times.plans.iter().sum()), indexes.min(times.index));
        }
        report.push(
            Row::new(format!("{name}: one more, its three plans"), "ms", milliseconds(plans))
                .beside("from nothing", 3.0 * full.milliseconds())
                .target(Target::AtMost(1.0)),
        );
        report.push(
            Row::new(format!("{name}: one more, both writes into the indexes"), "ms", milliseconds(indexes))
                .target(Target::AtMost(1.0)),
        );
        report.push(
            Row::new(
                format!("{services} Services that wait for a pool: one more, its plans"),
                "ms",
                milliseconds(one_more_that_waits(options, services, pools)?),
            )
            .target(Target::AtMost(1.0)),
        );
    }
    Ok(report)
}

/// Best of several.
fn one_more_that_waits(options: &Options, services: u32, pools: u32) -> anyhow::Result<Duration> {
    let mut world = World::new();
    for i in 0..services {
        world.put(service(i, pools))?;
    }
    let mut planner = Planner::new();
    settle(&mut world, &mut planner, &mut Times::default())?;
    let mut best = Duration::MAX;
    for round in 0..options.rounds.max(1) {
        let mut times = Times::default();
        world.put(service(services + round, pools))?;
        settle(&mut world, &mut planner, &mut times)?;
        best = best.min(times.plans.iter().sum());
    }
    anyhow::ensure!(planner.services().values().all(|outcome| outcome.addresses.is_empty()), "an address");
    Ok(best)
}

/// Time spent.
#[derive(Default)]
struct Times {
    /// Of each plan.
    plans: Vec<Duration>,
    /// Of taking writes into the indexes.
    index: Duration,
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Plans and executes until nothing is left; how many plans that took.
fn settle(world: &mut World, planner: &mut Planner, times: &mut Times) -> anyhow::Result<u32> {
    for round in 1..=10 {
        let start = Instant::now();
        let allocation = planner.plan(&mut world.indexes, now());
        times.plans.push(start.elapsed());
        if allocation.writes.is_empty() {
            return Ok(round);
        }
        world.execute(&allocation.writes, times)?;
    }
    anyhow::bail!("the plan does not settle")
}

const fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn eip(i: u32) -> Value {
    json!({"apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip",
           "metadata": {"name": format!("pool-{i}"), "generation": 1, "uid": format!("eip-{i}"),
                        "creationTimestamp": CREATED},
           "spec": {"address": format!("10.{i}.0.0/16"), "protocol": "bgp", "namespaces": [namespace(i)]}})
}

fn namespace(i: u32) -> String {
    format!("tenant-{i}")
}

fn service(i: u32, pools: u32) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
           "metadata": {"namespace": namespace(i % pools), "name": format!("service-{i}"),
                        "uid": format!("service-{i}"), "creationTimestamp": CREATED,
                        "labels": {"app": format!("service-{i}"), "team": "blue"}},
           "spec": {"type": "LoadBalancer", "loadBalancerClass": "openelb.io/openelb", "ipFamilies": ["IPv4"],
                    "ipFamilyPolicy": "SingleStack", "allocateLoadBalancerNodePorts": false,
                    "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
                    "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
                    "selector": {"app": format!("service-{i}")}}})
}

/// A store in memory, and the indexes over it.
struct World {
    objects: BTreeMap<ObjectRef, Value>,
    indexes: Indexes,
    version: u64,
}

impl World {
    fn new() -> Self {
        Self { objects: BTreeMap::new(), indexes: Indexes::new(ClassRules::default()), version: 0 }
    }

    /// The time that the indexes took.
    fn put(&mut self, mut value: Value) -> anyhow::Result<Duration> {
        self.version += 1;
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), json!(self.version.to_string()));
        }
        let object = Object::from_value(value.clone())
            .map_err(|problem| anyhow::anyhow!("{problem}"))?
            .context("an object of a foreign kind")?;
        let start = Instant::now();
        self.indexes.apply(&object);
        let time = start.elapsed();
        self.objects.insert(object.reference(), value);
        Ok(time)
    }

    fn execute(&mut self, writes: &[Write], times: &mut Times) -> anyhow::Result<()> {
        for write in writes {
            let mut value = self.objects.remove(&write.target).context("a write on nothing")?;
            merge_patch(&mut value, &write.patch());
            times.index += self.put(value)?;
        }
        Ok(())
    }
}

/// Resident memory of this process, in bytes; 0 where it cannot be read.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
