//! The steps of the demo on a LAN without a router.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use super::{
    report::{Detail, Report},
    stage::Stage,
};
use crate::{
    Lab, Process,
    client::Plan,
    eventually,
    topology::{self, CLIENT, NODES, Virtual, node, program_nodes},
    wire::{self, Wire},
};

const DEADLINE: Duration = Duration::from_secs(20);
/// Whoever asks with it has never asked before.
const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 99);
/// Requests while something happens.
const MEANWHILE: Plan =
    Plan { count: 100_000, interval: Duration::from_millis(10), timeout: Duration::from_secs(2) };
/// Whoever owns an address for so long keeps it: in the demo's Layer2Conf it goes at once to whom it belongs.
const SETTLED: Duration = Duration::from_secs(3);
/// A download of twelve seconds.
const CHUNKS: usize = 120;

pub(super) fn start(d: &mut Detail) -> anyhow::Result<Lab> {
    let lab = topology::start_lan("demo-lan")?;
    d.say(format!("in {}, in namespaces of its own", lab.path().display()));
    Ok(lab)
}

/// Plays all steps.
pub(super) fn play(stage: &Stage<'_>, report: &mut Report) {
    let nodes = report.step("LAN: openelbd standalone on each node", |_| {
        NODES
            .iter()
            .map(|n| topology::start_node(stage.lab, &stage.openelbd, *n, &stage.manifests, &stage.state))
            .collect::<anyhow::Result<Vec<_>>>()
    });
    let Some(mut nodes) = nodes else { return };
    let Some(web) = report.step("LAN: addresses are answered, each by one node", |d| answered(stage, d))
    else {
        return;
    };
    report
        .step("LAN: the owner's speaker is killed during a download", |d| killed(stage, &mut nodes, web, d));
    report.step("LAN: the owner's node is cut off silently", |d| cut(stage, web, d));
    report.step("LAN: the node is back, and gets its address back", |d| back(stage, web, d));
}

/// The node whose network card has this address.
fn of_mac(lab: &Lab, mac: [u8; 6]) -> anyhow::Result<u8> {
    let text = mac.map(|octet| format!("{octet:02x}")).join(":");
    for n in NODES {
        if lab.run(&node(n), &["cat", "/sys/class/net/fab0/address"])?.trim() == text {
            return Ok(n);
        }
    }
    bail!("{text} is no node's")
}

/// Asks, as a host that never asked before, until the answers are as wanted: the node whose MAC address they have, and how
/// long that took.
fn ask(
    lab: &Lab,
    address: IpAddr,
    mut wanted: impl FnMut(u8) -> bool + Send,
) -> anyhow::Result<(u8, Duration)> {
    let IpAddr::V4(address) = address else { bail!("asked by ARP: an IPv4 address") };
    let start = Instant::now();
    while start.elapsed() < DEADLINE {
        let mac = lab.within(CLIENT, || {
            let wire = Wire::open("eth0", wire::ARP)?;
            let own = wire.mac();
            let mut question = [0xff_u8; 6].to_vec();
            question.extend(own);
            question.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
            question.extend(own);
            question.extend(STRANGER.octets());
            question.extend([0; 6]);
            question.extend(address.octets());
            wire.send(&question)?;
            let answer = |frame: &[u8]| {
                let is = frame.get(20..22)? == [0, 2] && frame.get(28..32)? == address.octets();
                is.then(|| frame.get(22..28)?.try_into().ok()).flatten()
            };
            wire.collect(1, Duration::from_millis(20), answer).map(|found| found.first().copied())
        })??;
        if let Some(mac) = mac {
            let n = of_mac(lab, mac)?;
            if wanted(n) {
                return Ok((n, start.elapsed()));
            }
        }
    }
    bail!("no such answer for {address} within {} s", DEADLINE.as_secs())
}

fn ms(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}

fn answered(stage: &Stage<'_>, d: &mut Detail) -> anyhow::Result<IpAddr> {
    let (web, took) = stage.await_addresses("default", "web", 2)?;
    d.time("assigned_s", took);
    program_nodes(stage.lab, &[Virtual { addresses: web.clone(), port: 80 }])?;
    let first = *web.first().context("no address")?;
    let (owner, took) = ask(stage.lab, first, |_| true)?;
    d.say(format!("who has {first}? node-{owner} answered {} after it was assigned", ms(took)));
    d.time("answered_s", took);
    // Whoever started first may hand it to the node that it belongs to.
    let mut last = (owner, Instant::now());
    let (owner, _) = eventually("an owner that stays", DEADLINE, || {
        let (now, _) = ask(stage.lab, first, |_| true)?;
        if now != last.0 {
            last = (now, Instant::now());
        }
        Ok((last.1.elapsed() > SETTLED).then_some(now))
    })?;
    d.say(format!("node-{owner} keeps {first}"));
    for address in &web {
        stage.await_answer(*address, 80)?;
        let seen = stage.requests("lan", *address, 80, 100)?;
        d.say(format!(
            "http://{}/: {} requests, {} failed",
            SocketAddr::new(*address, 80),
            seen.requests,
            seen.failed
        ));
        ensure!(seen.failed == 0, "requests failed: {:?}", seen.errors);
    }
    Ok(first)
}

/// Loads a page that takes its time; says how much of it came.
fn download(lab: &Lab, address: IpAddr) -> anyhow::Result<usize> {
    lab.within(CLIENT, || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, 80), Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /slow?chunks={CHUNKS}&interval-ms=100 HTTP/1.1\r\nHost: web\r\n\r\n")?;
        let mut text = String::new();
        let ended = stream.read_to_string(&mut text).map(drop);
        let chunks = text.matches("chunk=").count();
        ended.with_context(|| format!("the download broke after {chunks} of {CHUNKS} parts"))?;
        Ok(chunks)
    })?
}

fn killed(stage: &Stage<'_>, nodes: &mut [Process], web: IpAddr, d: &mut Detail) -> anyhow::Result<()> {
    let (owner, _) = ask(stage.lab, web, |_| true)?;
    std::thread::scope(|scope| {
        let download = scope.spawn(|| download(stage.lab, web));
        let running = stage.client("lan-killed", web, 80, MEANWHILE)?;
        let process = nodes.get_mut(usize::from(owner) - 1).context("no such node")?;
        stage.lab.signal(process, "KILL")?;
        stage.lab.wait_exit(process, Duration::from_secs(5))?;
        let (by, took) = ask(stage.lab, web, |_| true)?;
        d.say(format!("openelbd of node-{owner} killed; a new client is answered after {}", ms(took)));
        d.time("answered_again_s", took);
        ensure!(by == owner, "the address moved to node-{by}, and with it every connection");
        d.say(format!("another node answers in its name: the answer names node-{owner}, which forwards on"));
        *process = topology::start_node(stage.lab, &stage.openelbd, owner, &stage.manifests, &stage.state)?;
        let api = SocketAddr::from(([127, 0, 0, 1], 50054));
        eventually("the address at its owner", DEADLINE, || {
            let body = crate::client::get(stage.lab, &node(owner), api, "/api/v1/services")?.1;
            Ok(body.contains("answers on fab0\"").then_some(()))
        })?;
        d.say(format!("openelbd of node-{owner} is back, and answers itself"));
        let chunks = download.join().map_err(|_| anyhow::anyhow!("the download panicked"))??;
        d.say(format!("the download lived: {chunks} of {CHUNKS} parts"));
        d.count("download_parts", chunks);
        ensure!(chunks == CHUNKS, "it is not whole");
        let seen = running.stop(Duration::from_secs(10))?;
        d.say(format!("{} requests meanwhile, {} failed", seen.requests, seen.failed));
        d.count("meanwhile_failed", seen.failed);
        ensure!(seen.failed == 0, "requests failed: {:?}", seen.errors);
        Ok(())
    })
}

fn cut(stage: &Stage<'_>, web: IpAddr, d: &mut Detail) -> anyhow::Result<()> {
    let (owner, _) = ask(stage.lab, web, |_| true)?;
    let running = stage.client("lan-cut", web, 80, MEANWHILE)?;
    stage.await_answer(web, 80)?;
    topology::cut_off(stage.lab, owner)?;
    let (next, took) = ask(stage.lab, web, |n| n != owner)?;
    d.say(format!("node-{owner} is cut off; node-{next} answers after {}", ms(took)));
    d.time("taken_over_s", took);
    stage.await_answer(web, 80)?;
    let seen = running.stop(Duration::from_secs(10))?;
    d.say(format!(
        "{} requests, {} failed, the first to the last of them within {:.0} ms",
        seen.requests, seen.failed, seen.outage_ms
    ));
    d.count("failed", seen.failed);
    d.time("outage_s", Duration::from_secs_f64(seen.outage_ms / 1000.0));
    // Loose: other load on this machine makes it slow.
    ensure!(took < Duration::from_secs(5), "that took {}", ms(took));
    Ok(())
}

fn back(stage: &Stage<'_>, web: IpAddr, d: &mut Detail) -> anyhow::Result<()> {
    let (now, _) = ask(stage.lab, web, |_| true)?;
    for n in NODES {
        topology::plug_in(stage.lab, n)?;
    }
    let (owner, took) = ask(stage.lab, web, |n| n != now)?;
    d.say(format!("plugged in again; {} later node-{owner} has its address back from node-{now}", ms(took)));
    d.time("back_s", took);
    stage.await_answer(web, 80)?;
    let seen = stage.requests("lan-back", web, 80, 100)?;
    d.say(format!("{} requests, {} failed", seen.requests, seen.failed));
    ensure!(seen.failed == 0, "requests failed: {:?}", seen.errors);
    Ok(())
}
