//! `openelbd standalone` beside routers of other makes, feature by feature, many sessions side by side.
//!
//! ```text
//!  dut (AS 64501) ══ one wire, a pair of addresses for each session ══ router (AS 64512)
//!        └───────────────────────── middle ──────────────────────────┘
//! ```

mod cells;
mod dut;
mod matrix;

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

pub use cells::Cell;
use dut::Dut;
pub use matrix::{Column, Matrix, Outcome};

use crate::{
    Lab, eventually,
    routers::{Make, Path, Router, Session},
};

const DUT: &str = "dut";
const ROUTER: &str = "router";
const MIDDLE: &str = "middle";
const OUR_AS: u32 = 64501;
const THEIR_AS: u32 = 64512;
const PASSWORD: &str = "of-the-lab";
/// The addresses of the one Service.
const ADDRESSES: [&str; 2] = ["198.51.100.10", "fd00:5b::10"];
/// A session comes up, or a route arrives, within this. OpenBGPD waits 30 s after a connection that was refused.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs every cell with one make of router.
///
/// # Errors
/// The lab cannot be made, or router or `openelbd` do not start. What a cell finds is in the outcome.
pub fn run(make: Make) -> anyhow::Result<Vec<(Cell, Outcome)>> {
    let lab = Lab::start(&format!("interop-{}", make.name().to_lowercase()))?;
    lab.network(cells::network)?;
    let cells: Vec<Cell> = Cell::ALL.into_iter().filter(|cell| cell.lacking(make).is_none()).collect();
    let sessions: Vec<Session> = cells.iter().map(|cell| cell.session()).collect();
    let mut dut = Dut::start(&lab, &cells)?;
    let mut router = make.start(&lab, ROUTER, &sessions)?;
    let began = Instant::now();
    let mut outcomes = Vec::new();
    // Those that end processes come last; the other sessions are there to be compared with.
    for cell in Cell::ALL {
        if let Some(reason) = cell.lacking(make) {
            outcomes.push((cell, Outcome::Lacks(reason)));
            continue;
        }
        let session = cell.session();
        // All sessions come up at the same time: those that never do share one deadline.
        let deadline = DEADLINE.saturating_sub(began.elapsed()).max(Duration::from_secs(2));
        let result = established(router.as_ref(), &session, deadline).and_then(|()| match cell {
            Cell::TheirRestart => their_restart(&lab, &dut, router.as_mut(), &session),
            Cell::OurRestart => our_restart(&mut dut, router.as_ref(), &session),
            _ => check(&lab, &dut, router.as_ref(), cell, &session),
        });
        outcomes.push((
            cell,
            result.map_or_else(|error| Outcome::Fails(format!("{error:#}")), |()| Outcome::Passes),
        ));
    }
    Ok(outcomes)
}

fn established(router: &dyn Router, session: &Session, deadline: Duration) -> anyhow::Result<()> {
    let what = format!("session {} Established at the router", session.name);
    eventually(&what, deadline, || Ok(router.established(session)?.then_some(()))).map(|_| ())
}

/// Waits until the router has so many paths to an address.
fn paths(router: &dyn Router, session: &Session, address: IpAddr, count: usize) -> anyhow::Result<Vec<Path>> {
    let what = format!("{count} path(s) to {address} on session {}", session.name);
    let mut last = 0;
    eventually(&what, Duration::from_secs(15), || {
        let paths = router.paths(session, address)?;
        last = paths.len();
        Ok((paths.len() == count).then_some(paths))
    })
    .map(|(paths, _)| paths)
    .with_context(|| format!("there are {last}"))
}

fn addresses(session: &Session) -> Vec<IpAddr> {
    let all = ADDRESSES.iter().filter_map(|text| text.parse::<IpAddr>().ok());
    all.filter(|address| if address.is_ipv4() { session.ipv4 } else { session.ipv6 }).collect()
}

/// How many segments the kernel of our side dropped because of their TTL.
fn dropped(lab: &Lab) -> anyhow::Result<u64> {
    let text = lab.run(DUT, &["cat", "/proc/net/netstat"])?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (lines.next().context("no names")?, lines.next().context("no values")?);
    let position = names.split(' ').position(|name| name == "TCPMinTTLDrop").context("no TCPMinTTLDrop")?;
    Ok(values.split(' ').nth(position).context("no value")?.parse()?)
}

/// Somebody with the router's address connects and speaks with this TTL.
fn speak(lab: &Lab, session: &Session, ttl: u32) -> anyhow::Result<()> {
    use rustix::{
        io::Errno,
        net::{AddressFamily, SendFlags, SocketType, bind, connect, send, socket, sockopt},
    };
    lab.within(ROUTER, || {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        sockopt::set_ip_ttl(&socket, ttl)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(Duration::from_secs(2)))?;
        bind(&socket, &SocketAddr::new(session.local, 0))?;
        match connect(&socket, &SocketAddr::new(session.remote, 179)) {
            // The listener may already have dropped it; what was accepted may be closed by now.
            Ok(()) => drop(send(&socket, &[0xff; 19], SendFlags::NOSIGNAL)),
            Err(Errno::INPROGRESS | Errno::TIMEDOUT) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    })?
}

fn check(lab: &Lab, dut: &Dut<'_>, router: &dyn Router, cell: Cell, session: &Session) -> anyhow::Result<()> {
    let count = if cell == Cell::AddPath { 2 } else { 1 };
    for address in addresses(session) {
        let paths = paths(router, session, address, count)?;
        if session.remote.is_ipv4() == address.is_ipv4() || cell == Cell::ExtendedNextHop {
            let ours = paths.iter().any(|path| path.next_hop == session.remote);
            ensure!(ours, "the next hop of {address} is not {}: {paths:?}", session.remote);
        }
        for wanted in cell.wanted() {
            let text = paths.iter().map(|path| path.text.replace(", ", ",")).collect::<String>();
            let found = wanted.iter().any(|form| text.contains(form));
            ensure!(
                found,
                "{address} comes without any of {wanted:?}: {}",
                text.chars().take(2000).collect::<String>()
            );
        }
    }
    match cell {
        Cell::Bfd => {
            let what = "BFD is Up at the router";
            eventually(what, Duration::from_secs(10), || Ok(router.bfd_up(session)?.then_some(())))
                .map(|_| ())
        }
        Cell::Gtsm => {
            // One hop away it is 255; from two hops away it cannot be more than 254 (RFC 5082 §3).
            let before = dropped(lab)?;
            speak(lab, session, 254)?;
            eventually("a segment with a TTL of 254 is dropped", Duration::from_secs(5), || {
                Ok((dropped(lab)? > before).then_some(()))
            })?;
            ensure!(router.established(session)?, "the session of the router itself ended");
            Ok(())
        }
        Cell::RouteRefresh => {
            let (type_, peer) = ("type=\"route-refresh\"", cell.name());
            let received =
                || dut.metric("openelb_bgp_messages_total", &[type_, "direction=\"received\"", peer]);
            let sent =
                || dut.metric("openelb_bgp_messages_total", &["type=\"update\"", "direction=\"sent\"", peer]);
            let (asked, before) = (received()?, sent()?);
            router.refresh(session)?;
            eventually("a ROUTE-REFRESH that is answered", Duration::from_secs(10), || {
                Ok((received()? > asked && sent()? > before).then_some(()))
            })?;
            ensure!(dut.metric("openelb_bgp_sessions_dropped_total", &[peer])? == 0.0, "the session ended");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The router is killed and comes back: it has everything again.
fn their_restart(lab: &Lab, dut: &Dut<'_>, router: &mut dyn Router, session: &Session) -> anyhow::Result<()> {
    let peer = [Cell::TheirRestart.name()];
    let established_before = dut.metric("openelb_bgp_sessions_established_total", &peer)?;
    for address in addresses(session) {
        paths(router, session, address, 1)?;
    }
    let process = router.processes().first().cloned().context("no process")?;
    lab.signal(&process, "KILL")?;
    lab.wait_exit(&process, Duration::from_secs(10))?;
    router.restart()?;
    established(router, session, DEADLINE)?;
    for address in addresses(session) {
        paths(router, session, address, 1)?;
    }
    let what = "the session is counted anew";
    eventually(what, Duration::from_secs(5), || {
        let now = dut.metric("openelb_bgp_sessions_established_total", &peer)?;
        Ok((now > established_before).then_some(()))
    })
    .map(|_| ())
}

/// We are killed and come back: the router keeps the routes all the time. On a session without graceful restart it does
/// not.
fn our_restart(dut: &mut Dut<'_>, router: &dyn Router, session: &Session) -> anyhow::Result<()> {
    let addresses = addresses(session);
    for address in &addresses {
        paths(router, session, *address, 1)?;
    }
    dut.kill()?;
    eventually("the router sees the session end", DEADLINE, || {
        Ok((!router.established(session)?).then_some(()))
    })?;
    let plain = Cell::Both.session();
    eventually("routes without graceful restart are gone", DEADLINE, || {
        let kept = router.paths(&plain, *addresses.first().context("no address")?)?;
        Ok(kept.is_empty().then_some(()))
    })?;
    let keeps = |when: &str| -> anyhow::Result<()> {
        for address in &addresses {
            ensure!(!router.paths(session, *address)?.is_empty(), "{address} is gone {when}");
        }
        Ok(())
    };
    keeps("while we are away")?;
    dut.restart()?;
    let deadline = Instant::now() + DEADLINE;
    while !router.established(session)? {
        keeps("before the session is back")?;
        ensure!(Instant::now() < deadline, "the session does not come back");
    }
    // End-of-RIB comes with the routes or after them: what the router drops then, it drops now.
    eventually("the routes were sent again", Duration::from_secs(10), || {
        keeps("after the session is back")?;
        let advertised = dut.metric("openelb_bgp_routes_advertised", &[Cell::OurRestart.name()])?;
        Ok((advertised >= addresses.len() as f64).then_some(()))
    })?;
    let settled = Instant::now() + Duration::from_secs(2);
    while Instant::now() < settled {
        keeps("after End-of-RIB")?;
    }
    Ok(())
}
