//! A client: HTTP requests, each from a port of its own, and who answered them.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};

use crate::{Lab, Process, binary, eventually};

/// What a client saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Requests sent.
    pub requests: usize,
    /// Requests without an answer.
    pub failed: usize,
    /// Answers by pod.
    pub pods: BTreeMap<String, usize>,
    /// Answers by the address from which the pod was asked: with policy Cluster, the node that took the request in.
    pub remotes: BTreeMap<String, usize>,
    /// From the first request without an answer to the last one, milliseconds.
    pub outage_ms: f64,
    /// What went wrong, each once.
    pub errors: Vec<String>,
}

/// What a client does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Requests in all.
    pub count: usize,
    /// Time between the beginnings of two; zero: one after the other as fast as they are answered, eight at a time.
    pub interval: Duration,
    /// For the connection and for the answer.
    pub timeout: Duration,
}

/// Sends one request and reads the answer: pod and remote address.
///
/// # Errors
/// No connection, no answer, or one that is not a pod's.
pub fn request(target: SocketAddr, timeout: Duration) -> anyhow::Result<(String, IpAddr)> {
    let mut stream = TcpStream::connect_timeout(&target, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let line =
        answer.lines().find(|line| line.starts_with("pod=")).ok_or_else(|| anyhow!("no pod answered"))?;
    let mut words = line.split(' ');
    let pod = words.next().and_then(|word| word.strip_prefix("pod=")).context("no pod")?;
    let remote = words.next().and_then(|word| word.strip_prefix("remote=")).context("no remote address")?;
    let (remote, _port) = remote.rsplit_once(':').context("no port")?;
    Ok((pod.to_owned(), remote.parse()?))
}

/// Asks for a path by HTTP, from a host of a lab: the status and the body of the answer.
///
/// # Errors
/// No connection, or no answer for ten seconds.
pub fn get(lab: &Lab, host: &str, target: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let limit = Duration::from_secs(10);
    let answer = lab.within(host, || {
        let mut stream = TcpStream::connect_timeout(&target, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    })??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no HTTP status")?;
    Ok((status, body.to_owned()))
}

/// Sends requests until `plan.count` are done, or `stop` exists.
pub fn run(target: SocketAddr, plan: Plan, stop: Option<&Path>) -> Figures {
    let start = Instant::now();
    let (sender, receiver) = mpsc::channel();
    let mut figures = Figures::default();
    let workers = if plan.interval.is_zero() { 8 } else { usize::MAX };
    let mut running = 0;
    let mut failures: Vec<Duration> = Vec::new();
    let mut collect =
        |figures: &mut Figures, (at, result): (Duration, anyhow::Result<(String, IpAddr)>)| match result {
            Ok((pod, remote)) => {
                *figures.pods.entry(pod).or_default() += 1;
                *figures.remotes.entry(remote.to_string()).or_default() += 1;
            }
            Err(error) => {
                figures.failed += 1;
                failures.push(at);
                let error = format!("{error:#}");
                if !figures.errors.contains(&error) {
                    figures.errors.push(error);
                }
            }
        };
    while figures.requests < plan.count && !stop.is_some_and(Path::exists) {
        if !plan.interval.is_zero() {
            let due = plan.interval * u32::try_from(figures.requests).unwrap_or(u32::MAX);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
        while running >= workers {
            let Ok(result) = receiver.recv() else { break };
            running -= 1;
            collect(&mut figures, result);
        }
        let sender = sender.clone();
        let at = start.elapsed();
        figures.requests += 1;
        running += 1;
        std::thread::spawn(move || {
            let _ = sender.send((at, request(target, plan.timeout)));
        });
        for result in receiver.try_iter() {
            running -= 1;
            collect(&mut figures, result);
        }
    }
    drop(sender);
    for result in receiver {
        collect(&mut figures, result);
    }
    failures.sort_unstable();
    if let (Some(first), Some(last)) = (failures.first(), failures.last()) {
        figures.outage_ms = (*last - *first + plan.interval).as_secs_f64() * 1000.0;
    }
    figures
}

/// A client on a host of a lab.
#[derive(Debug)]
pub struct Client<'a> {
    lab: &'a Lab,
    process: Process,
    figures: PathBuf,
    stop: PathBuf,
}

impl<'a> Client<'a> {
    /// Starts sending requests.
    ///
    /// # Errors
    /// The client cannot be started.
    pub fn start(
        lab: &'a Lab,
        name: &str,
        host: &str,
        target: SocketAddr,
        plan: Plan,
    ) -> anyhow::Result<Self> {
        let figures = lab.path().join(format!("{name}.json"));
        let stop = lab.path().join(format!("{name}.stop"));
        for file in [&figures, &stop] {
            let _ = std::fs::remove_file(file);
        }
        let program = binary("openelb-lab")?;
        let process = lab.spawn(
            name,
            host,
            &[
                &program.to_string_lossy(),
                "client",
                &target.to_string(),
                "--count",
                &plan.count.to_string(),
                "--interval-ms",
                &plan.interval.as_millis().to_string(),
                "--timeout-ms",
                &plan.timeout.as_millis().to_string(),
                "--stop",
                &stop.to_string_lossy(),
                "--figures",
                &figures.to_string_lossy(),
            ],
        )?;
        Ok(Self { lab, process, figures, stop })
    }

    /// Waits for the last answer, and says what the client saw.
    ///
    /// # Errors
    /// The client did not end in time.
    pub fn finish(self, deadline: Duration) -> anyhow::Result<Figures> {
        eventually("the end of the client", deadline, || {
            Ok(std::fs::read_to_string(&self.figures).ok().and_then(|text| serde_json::from_str(&text).ok()))
        })
        .map(|(figures, _)| figures)
        .with_context(|| Lab::log_tail(&self.process, 5))
    }

    /// Tells the client to stop, and says what it saw.
    ///
    /// # Errors
    /// The client did not end in time.
    pub fn stop(self, deadline: Duration) -> anyhow::Result<Figures> {
        std::fs::write(&self.stop, "")?;
        let _ = self.lab;
        self.finish(deadline)
    }
}
