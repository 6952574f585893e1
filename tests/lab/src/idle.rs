//! What `openelbd standalone` costs while nothing happens.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::{Lab, Process, eventually, topology};

/// At rest: in so long a time it takes less processor time than this.
const SETTLED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(50));

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Idle {
    /// From the start of the process to the last route in the router.
    pub routed: Duration,
    /// Resident memory, bytes.
    pub resident: u64,
    /// Share of one core, 0 to 1.
    pub core: f64,
}

/// Runs one instance with one BGP peer and `services` Services (at most 200), waits until the router has all of their
/// addresses, and watches it for `window`.
///
/// # Errors
/// The lab cannot be made, or the addresses do not arrive.
pub fn measure(openelbd: &Path, services: u8, window: Duration) -> anyhow::Result<Idle> {
    ensure!((1..=200).contains(&services), "1 to 200 Services, not {services}");
    let lab = topology::start("idle")?;
    let mut text = String::from(
        "apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata:
  name: web
  annotations: {eip.openelb.kubesphere.io/is-default-eip: \"true\"}
spec: {address: 198.51.100.0/24, protocol: bgp}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpConf
metadata: {name: default}
spec: {as: 64501}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata: {name: router}
spec: {conf: {neighborAddress: 192.168.50.1, peerAs: 64512}}
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
status: {addresses: [{type: InternalIP, address: 192.168.50.11}]}
",
    );
    for number in 0..services {
        text.push_str(&format!(
            "---
apiVersion: v1
kind: Service
metadata:
  name: s{number}
  namespace: default
  annotations: {{lb.kubesphere.io/v1alpha1: openelb}}
spec:
  type: LoadBalancer
  ipFamilies: [IPv4]
  ports: [{{port: 80, protocol: TCP}}]
"
        ));
    }
    lab.write("manifests/all.yaml", &text)?;
    let router = topology::start_router(&lab)?;
    let start = Instant::now();
    let process =
        topology::start_node(&lab, openelbd, 1, &lab.path().join("manifests"), &lab.path().join("state"))?;
    let all = format!("{services} of {services} routes");
    eventually("a route for each Service", Duration::from_secs(120), || {
        Ok(router.ask("show route count")?.contains(&all).then_some(()))
    })
    .with_context(|| Lab::log_tail(&process, 5))?;
    let routed = start.elapsed();
    // What it writes about them is not idling.
    eventually("rest", Duration::from_secs(60), || {
        let (_, before) = usage(&lab, &process)?;
        std::thread::sleep(SETTLED.0);
        let (_, after) = usage(&lab, &process)?;
        Ok((after.saturating_sub(before) < SETTLED.1).then_some(()))
    })?;
    let (_, before) = usage(&lab, &process)?;
    let start = Instant::now();
    std::thread::sleep(window); // the measured time itself; nothing is waited for
    let (resident, after) = usage(&lab, &process)?;
    let core = after.saturating_sub(before).as_secs_f64() / start.elapsed().as_secs_f64();
    Ok(Idle { routed, resident, core })
}

/// Resident memory of a process in bytes, and its processor time so far.
///
/// # Errors
/// The process does not run any more.
pub fn usage(lab: &Lab, process: &Process) -> anyhow::Result<(u64, Duration)> {
    // The lab's /proc, from outside: pids in the lab are its own.
    let file = |name: &str| format!("/proc/{}/root/proc/{}/{name}", lab.init_pid(), process.pid);
    let status =
        fs::read_to_string(file("status")).with_context(|| format!("{} runs no more", process.name))?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|value| value.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .context("no VmRSS")?;
    let stat = fs::read_to_string(file("stat"))?;
    // After the command's closing parenthesis: utime and stime are the 12th and 13th field.
    let fields = stat.rsplit_once(')').context("no command in stat")?.1.split_whitespace().skip(11);
    let ticks: u64 = fields.take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok((resident * 1024, Duration::from_secs_f64(ticks as f64 / per_second as f64)))
}
