//! What the kernel says of this process: the names that every Prometheus client library uses.

use std::{fmt, fs, sync::LazyLock, time::SystemTime};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter},
};
use rustix::time::{ClockId, clock_gettime};

use super::{count, gauges};

/// Unix time of the first look; the program takes one when it starts.
static STARTED: LazyLock<f64> = LazyLock::new(|| {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
});

/// Remembers that the process starts now.
pub(super) fn started() {
    LazyLock::force(&STARTED);
}

#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        #[allow(clippy::cast_precision_loss, reason = "a sample is a float")]
        let seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        let metric = encoder.encode_descriptor(
            "process_cpu_seconds",
            "Processor time of this process",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(seconds).encode(metric)?;
        let start = "process_start_time_seconds";
        gauges(&mut encoder, start, "When this process started, Unix time", [(vec![], *STARTED)])?;
        if let Some(octets) = resident() {
            let resident = "process_resident_memory_bytes";
            gauges(&mut encoder, resident, "Resident memory of this process", [(vec![], count(octets))])?;
        }
        if let Some(open) = open_files() {
            gauges(&mut encoder, "process_open_fds", "Open file descriptors", [(vec![], count(open))])?;
        }
        Ok(())
    }
}

fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn open_files() -> Option<u64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?;
    u64::try_from(entries.count()).ok()
}
