//! BIRD as a router of a lab.

use std::{net::IpAddr, time::Duration};

use anyhow::Context;

use crate::{Lab, Process, eventually};

/// A running BIRD.
#[derive(Debug)]
pub struct Bird<'a> {
    lab: &'a Lab,
    host: String,
    control: String,
    /// Its process.
    pub process: Process,
}

/// The next hops of one prefix in the kernel of a router.
pub type NextHops = Vec<IpAddr>;

impl<'a> Bird<'a> {
    /// Starts BIRD on a host with this configuration, and waits until it answers.
    ///
    /// # Errors
    /// It does not start; the message has the end of its log.
    pub fn start(lab: &'a Lab, host: &str, configuration: &str) -> anyhow::Result<Self> {
        Self::run(lab, host, configuration, &[])
    }

    /// Starts BIRD as one that has restarted (RFC 4724).
    ///
    /// # Errors
    /// It does not start; the message has the end of its log.
    pub fn recover(lab: &'a Lab, host: &str, configuration: &str) -> anyhow::Result<Self> {
        Self::run(lab, host, configuration, &["-R"])
    }

    fn run(lab: &'a Lab, host: &str, configuration: &str, more: &[&str]) -> anyhow::Result<Self> {
        let file = lab.write(&format!("bird-{host}.conf"), configuration)?;
        let control = lab.path().join(format!("bird-{host}.ctl")).to_string_lossy().into_owned();
        let pid = lab.path().join(format!("bird-{host}.bird.pid"));
        let (file, pid) = (file.to_string_lossy(), pid.to_string_lossy());
        let mut command = vec!["bird", "-f", "-c", &file, "-s", &control, "-P", &pid];
        command.extend(more);
        let process = lab.spawn(&format!("bird-{host}"), host, &command)?;
        let bird = Self { lab, host: host.to_owned(), control, process };
        eventually("an answer of BIRD", Duration::from_secs(60), || bird.ask("show status").map(Some))
            .with_context(|| Lab::log_tail(&bird.process, 10))?;
        Ok(bird)
    }

    /// The answer to a command of `birdc`.
    ///
    /// # Errors
    /// BIRD does not answer.
    pub fn ask(&self, command: &str) -> anyhow::Result<String> {
        self.birdc(&["-r"], command)
    }

    /// The answer to a command that changes something.
    ///
    /// # Errors
    /// BIRD does not answer.
    pub fn order(&self, command: &str) -> anyhow::Result<String> {
        self.birdc(&[], command)
    }

    fn birdc(&self, options: &[&str], command: &str) -> anyhow::Result<String> {
        let mut arguments = vec!["birdc"];
        arguments.extend(options);
        arguments.extend(["-s", &self.control]);
        arguments.extend(command.split(' '));
        self.lab.run(&self.host, &arguments)
    }

    /// How many of its BGP sessions are established.
    ///
    /// # Errors
    /// BIRD does not answer.
    pub fn established(&self) -> anyhow::Result<usize> {
        let answer = self.ask("show protocols")?;
        Ok(answer.lines().filter(|line| line.contains("BGP") && line.contains("Established")).count())
    }
}

/// The next hops of the kernel's route to exactly this host prefix; empty: there is none.
///
/// # Errors
/// The kernel cannot be asked.
pub fn kernel_next_hops(lab: &Lab, host: &str, address: IpAddr) -> anyhow::Result<NextHops> {
    let family = if address.is_ipv4() { "-4" } else { "-6" };
    let length = if address.is_ipv4() { 32 } else { 128 };
    let exact = format!("{address}/{length}");
    let text = lab.run(host, &["ip", "-j", family, "route", "show", "exact", &exact])?;
    let routes: serde_json::Value = serde_json::from_str(text.trim()).unwrap_or_default();
    let mut hops: Vec<IpAddr> = Vec::new();
    for route in routes.as_array().into_iter().flatten() {
        let nexthops = route.get("nexthops").and_then(|hops| hops.as_array());
        let single = std::slice::from_ref(route);
        for hop in nexthops.map_or(single, Vec::as_slice) {
            let gateway = hop.get("gateway").or_else(|| hop.get("via").and_then(|via| via.get("host")));
            if let Some(gateway) = gateway.and_then(|gateway| gateway.as_str()) {
                hops.push(gateway.parse()?);
            }
        }
    }
    hops.sort_unstable();
    hops.dedup();
    Ok(hops)
}
