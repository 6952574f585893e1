//! What `/metrics` shows, in OpenMetrics text. Values are read when they are asked for, from the snapshots that the
//! parts publish; nothing is counted twice.

mod bgp;
mod layer2;
mod process;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use openelb_bgp::speaker::PeersSnapshot;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue},
    metrics::{MetricType, counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use crate::adapter::layer2::Layer2Source;

/// What the daemon counts itself, and where it takes the rest from.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    inventory: Arc<Mutex<Arc<Inventory>>>,
    writes: Family<WriteLabels, Counter>,
    events: Family<EventLabels, Counter>,
    decisions: Counter,
    decision_seconds: Histogram,
}

/// Where the state of the BGP speaker comes from.
pub type BgpSource = Arc<dyn Fn() -> Arc<PeersSnapshot> + Send + Sync>;

/// Where the state of the announcers comes from.
#[derive(Clone)]
pub struct Sources {
    /// BGP.
    pub bgp: BgpSource,
    /// Layer 2.
    pub layer2: Layer2Source,
}

impl Default for Sources {
    /// Of a process that announces nothing.
    fn default() -> Self {
        Self { bgp: Arc::new(Arc::default), layer2: Arc::new(|| None) }
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

/// What there is: taken over as a whole after each decision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    /// Pools by name.
    pub pools: BTreeMap<String, PoolInventory>,
    /// How many Services of ours there are, by the reason of their condition `AddressAssigned`.
    pub services: BTreeMap<String, u64>,
    /// How many addresses this node announces, by protocol.
    pub announced: BTreeMap<&'static str, u64>,
    /// How many addresses it should announce, by protocol.
    pub desired: BTreeMap<&'static str, u64>,
    /// What is wrong in the manifests.
    pub manifest_problems: u64,
    /// Whether `/readyz` says yes.
    pub ready: bool,
}

/// One pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolInventory {
    /// Usable addresses, saturating at 2^63-1.
    pub size: i64,
    /// Distinct addresses in use.
    pub used: i64,
    /// Services that hold one.
    pub services: i64,
    /// Whether it can be used.
    pub ready: bool,
}

/// What came of a write to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteResult {
    /// Done.
    Ok,
    /// Somebody else was first; it is decided again.
    Conflict,
    /// It failed; it is tried again.
    Error,
}

impl EncodeLabelValue for WriteResult {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>) -> fmt::Result {
        let text = match self {
            Self::Ok => "ok",
            Self::Conflict => "conflict",
            Self::Error => "error",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    kind: &'static str,
    result: WriteResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    r#type: &'static str,
    reason: String,
}

/// Upper bounds of the decision histogram, in seconds.
const DECISION_BUCKETS: [f64; 9] = [0.000_1, 0.000_5, 0.002, 0.01, 0.05, 0.2, 1.0, 5.0, 20.0];

impl Metrics {
    /// Metrics that take the state of the announcers from `sources`.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        let mut registry = Registry::with_prefix("openelb");
        let inventory = Arc::new(Mutex::new(Arc::default()));
        let writes = Family::<WriteLabels, Counter>::default();
        registry.register(
            "store_writes",
            "Writes to the store, by kind of object and result",
            writes.clone(),
        );
        let events = Family::<EventLabels, Counter>::default();
        registry.register("events", "Events of objects, by type and reason", events.clone());
        let decisions = Counter::default();
        registry.register("decisions", "Times that everything was decided anew", decisions.clone());
        let decision_seconds = Histogram::new(DECISION_BUCKETS);
        registry.register(
            "decision_duration_seconds",
            "Time from the first change to the end of the decision's writes",
            decision_seconds.clone(),
        );
        registry.register_collector(Box::new(InventoryCollector(Arc::clone(&inventory))));
        registry.register_collector(Box::new(bgp::BgpCollector::new(sources.bgp)));
        registry.register_collector(Box::new(layer2::Layer2Collector::new(sources.layer2)));
        process::started();
        Self { registry, inventory, writes, events, decisions, decision_seconds }
    }

    /// The text of all metrics.
    ///
    /// # Errors
    /// If a collector cannot write its values, which would be a defect.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode_registry(&mut text, &self.registry)?;
        let mut process = Registry::default();
        process.register_collector(Box::new(process::ProcessCollector));
        prometheus_client::encoding::text::encode_registry(&mut text, &process)?;
        prometheus_client::encoding::text::encode_eof(&mut text)?;
        Ok(text)
    }

    /// Takes over what there is.
    pub fn set_inventory(&self, inventory: Inventory) {
        *self.inventory.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(inventory);
    }

    /// Counts a write.
    pub fn count_write(&self, kind: &'static str, result: WriteResult) {
        self.writes.get_or_create(&WriteLabels { kind, result }).inc();
    }

    /// Counts an event.
    pub fn count_event(&self, r#type: &'static str, reason: &str) {
        self.events.get_or_create(&EventLabels { r#type, reason: reason.to_owned() }).inc();
    }

    /// Counts a decision and how long it took.
    pub fn count_decision(&self, took: Duration) {
        self.decisions.inc();
        self.decision_seconds.observe(took.as_secs_f64());
    }
}

/// Our counters carry no exemplars.
type NoExemplar = [(&'static str, &'static str); 0];

/// Labels of one sample.
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Writes one gauge with all its samples; none: nothing at all.
fn gauges<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (Labels<'a>, f64)>,
) -> fmt::Result {
    let mut samples = samples.into_iter().peekable();
    if samples.peek().is_none() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in samples {
        if labels.is_empty() {
            metric.encode_gauge(&value)?;
        } else {
            metric.encode_family(&labels.as_slice())?.encode_gauge(&value)?;
        }
    }
    Ok(())
}

/// Writes one counter with all its samples; none: nothing at all.
fn counters<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (Labels<'a>, u64)>,
) -> fmt::Result {
    let mut samples = samples.into_iter().peekable();
    if samples.peek().is_none() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in samples {
        if labels.is_empty() {
            metric.encode_counter::<NoExemplar, _, u64>(&value, None)?;
        } else {
            metric.encode_family(&labels.as_slice())?.encode_counter::<NoExemplar, _, u64>(&value, None)?;
        }
    }
    Ok(())
}

/// Prometheus has one kind of number.
#[allow(clippy::cast_precision_loss, reason = "a sample is a float; pools beyond 2^53 addresses are rounded")]
fn float(value: i64) -> f64 {
    value as f64
}

/// As [`float`], for counts.
fn count(value: u64) -> f64 {
    float(i64::try_from(value).unwrap_or(i64::MAX))
}

#[derive(Debug)]
struct InventoryCollector(Arc<Mutex<Arc<Inventory>>>);

impl Collector for InventoryCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let inventory = Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        gauges(&mut encoder, "build_info", "The program's version; always 1", [(version, 1.0)])?;
        gauges(
            &mut encoder,
            "ready",
            "Whether /readyz says yes",
            [(vec![], f64::from(u8::from(inventory.ready)))],
        )?;
        let pools = |value: fn(&PoolInventory) -> f64| {
            inventory.pools.iter().map(move |(name, pool)| (vec![("pool", name.as_str())], value(pool)))
        };
        gauges(
            &mut encoder,
            "pool_addresses",
            "Usable addresses of the pool",
            pools(|pool| float(pool.size)),
        )?;
        gauges(
            &mut encoder,
            "pool_addresses_in_use",
            "Distinct addresses of the pool that Services hold",
            pools(|pool| float(pool.used)),
        )?;
        gauges(
            &mut encoder,
            "pool_services",
            "Services that hold an address of the pool",
            pools(|pool| float(pool.services)),
        )?;
        gauges(
            &mut encoder,
            "pool_ready",
            "Whether the pool can be used",
            pools(|pool| f64::from(u8::from(pool.ready))),
        )?;
        gauges(
            &mut encoder,
            "services",
            "Services of ours, by the reason of their condition AddressAssigned",
            inventory.services.iter().map(|(reason, n)| (vec![("reason", reason.as_str())], count(*n))),
        )?;
        let protocols =
            |of: &'static str, map: &BTreeMap<&'static str, u64>| -> Vec<(Labels<'static>, f64)> {
                map.iter().map(|(protocol, n)| (vec![(of, *protocol)], count(*n))).collect()
            };
        gauges(
            &mut encoder,
            "desired_addresses",
            "Addresses that this node should announce",
            protocols("protocol", &inventory.desired),
        )?;
        gauges(
            &mut encoder,
            "announced_addresses",
            "Addresses that this node announces to somebody",
            protocols("protocol", &inventory.announced),
        )?;
        gauges(
            &mut encoder,
            "manifest_problems",
            "What is wrong in the manifests; each is in the log",
            [(vec![], count(inventory.manifest_problems))],
        )
    }
}

#[cfg(test)]
mod tests;
