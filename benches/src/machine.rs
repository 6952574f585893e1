//! What a figure was measured on.

use std::fs;

use serde::Serialize;

/// The machine of a run, as the kernel tells it. What cannot be read is empty or zero: a figure is worth more with an
/// incomplete description than not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// `model name` of the first processor.
    pub cpu: String,
    /// Processors this process may use.
    pub cores: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Kernel release.
    pub kernel: String,
    /// Load average of the last minute when the run began: above 0.5 the figures are worse than the machine.
    pub load: String,
    /// `release` or `dev`.
    pub profile: &'static str,
}

impl Machine {
    /// Reads `/proc`.
    #[must_use]
    pub fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':').map(str::trim))
                .unwrap_or_default()
                .to_owned()
        };
        let kib = field(&read("/proc/meminfo"), "MemTotal");
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: kib.split(' ').next().and_then(|n| n.parse::<u64>().ok()).map_or(0, |n| n * 1024),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            profile: if cfg!(debug_assertions) { "dev" } else { "release" },
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cpu, cores, memory_bytes, kernel, load, profile } = self;
        let gib = memory_bytes / (1 << 30);
        write!(f, "{cpu}, {cores} cores, {gib} GiB, Linux {kernel}, load {load}, {profile} build")
    }
}
