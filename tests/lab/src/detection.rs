//! BFD as it is promised: fast when a node falls silent, and never wrong on a busy machine.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::ensure;

use crate::{
    Process, eventually,
    failures::{ADDRESS, Stage},
    routers::{Bfd, Make},
    topology::{self, ROUTER, node_v4},
};

const DAY: f64 = 86_400.0;

/// Cuts a node off silently; its route is to be gone in the router's kernel that soon. Returns how long it took.
///
/// # Errors
/// The lab cannot be made, or the route stays.
pub fn silent_cut(interval: Duration, multiplier: u8) -> anyhow::Result<Duration> {
    let lab = topology::start("bfd-cut")?;
    let stage = Stage::start(&lab, Make::Bird, Some(Bfd { interval, multiplier, graceful: false }))?;
    // The kernel's own word with the time: asking again and again would be coarser.
    let monitor = lab.spawn("monitor", ROUTER, &["env", "TZ=UTC", "ip", "-ts", "-4", "monitor", "route"])?;
    eventually("a monitor that listens", Duration::from_secs(10), || {
        lab.run(ROUTER, &["ip", "route", "replace", "192.0.2.77/32", "via", &node_v4(3).to_string()])?;
        Ok(lines(&monitor)?.iter().any(|line| line.contains("192.0.2.77")).then_some(()))
    })?;
    let before = lines(&monitor)?.len();
    let cut = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() % DAY;
    topology::cut_off(&lab, 1)?;
    eventually("the route without the node", Duration::from_secs(10), || {
        let hops = stage.hops()?;
        ensure!(!hops.contains(&node_v4(1)), "it goes over {hops:?}");
        Ok(Some(()))
    })?;
    let (changed, _) = eventually("the kernel's word of the change", Duration::from_secs(5), || {
        Ok(lines(&monitor)?
            .iter()
            .skip(before)
            .find(|line| line.contains(ADDRESS))
            .and_then(|line| time(line)))
    })?;
    Ok(Duration::from_secs_f64((changed - cut).rem_euclid(DAY)))
}

fn lines(process: &Process) -> anyhow::Result<Vec<String>> {
    Ok(std::fs::read_to_string(&process.log)?.lines().map(str::to_owned).collect())
}

/// Seconds since midnight from `[2026-01-31T12:34:56.789012] ...`.
fn time(line: &str) -> Option<f64> {
    let clock = line.split_once('T')?.1.split_once(']')?.0;
    clock.split(':').try_fold(0.0, |seconds, part| Some(seconds * 60.0 + part.parse::<f64>().ok()?))
}

/// Keeps all processors busy for so long, beside whatever else the machine does; no BFD session may go down. Returns how often one did: what the speakers'
/// logs say.
///
/// # Errors
/// The lab cannot be made.
pub fn busy(interval: Duration, multiplier: u8, length: Duration) -> anyhow::Result<usize> {
    let lab = topology::start("bfd-busy")?;
    let stage = Stage::start(&lab, Make::Bird, Some(Bfd { interval, multiplier, graceful: false }))?;
    let logs = stage.logs();
    let downs = || -> anyhow::Result<usize> {
        let mut count = 0;
        for log in &logs {
            let text = std::fs::read_to_string(log)?;
            count +=
                text.lines().filter(|line| line.contains("BFD") && line.contains("\"from\":\"Up\"")).count();
        }
        Ok(count)
    };
    let before = downs()?;
    let end = AtomicBool::new(false);
    let until = Instant::now() + length;
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !end.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let watched = || -> anyhow::Result<()> {
            while Instant::now() < until {
                let hops = stage.hops()?;
                ensure!(hops.len() == topology::NODES.len(), "a route was lost: it goes over {hops:?}");
                std::thread::sleep(Duration::from_millis(500));
            }
            Ok(())
        };
        let result = watched();
        end.store(true, Ordering::Relaxed);
        result
    })?;
    Ok(downs()? - before)
}

/// `cargo xtask soak bfd`: both.
///
/// # Errors
/// One of them is not as promised.
pub fn soak(minutes: u64) -> anyhow::Result<()> {
    let (fast, usual) = (Duration::from_millis(50), Duration::from_millis(300));
    let mut worst = Duration::ZERO;
    for _ in 0..5 {
        let took = silent_cut(fast, 3)?;
        println!("50 ms x 3, silent cut: route gone after {:.0} ms", took.as_secs_f64() * 1e3);
        worst = worst.max(took);
    }
    let downs = busy(usual, 3, Duration::from_secs(minutes * 60))?;
    println!(
        "50 ms x 3: route gone after {:.0} ms at worst; 300 ms x 3: {downs} false downs in {minutes} minutes, all processors busy",
        worst.as_secs_f64() * 1e3
    );
    ensure!(worst < Duration::from_millis(200), "a silent cut is to be seen within 200 ms");
    ensure!(downs == 0, "no session may go down");
    Ok(())
}
