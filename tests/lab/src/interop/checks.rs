//! What is looked at on each session, at both ends.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use super::{
    ADDRESSES, Cell, DEADLINE, DUT, ROUTER,
    cells::{Evidence, OneWay},
    dut::{Dut, Received},
};
use crate::{
    Lab, eventually,
    routers::{
        ANNOUNCED, COMMUNITY, LARGE_COMMUNITY, LEAVING, MANY, Make, Path, ROUTE_TARGET, Router, Session,
    },
};

/// What one side was sent, or did, the other knows of within this.
const SOON: Duration = Duration::from_secs(15);

pub(super) fn established(router: &dyn Router, session: &Session, deadline: Duration) -> anyhow::Result<()> {
    let what = format!("session {} Established at the router", session.name);
    eventually(&what, deadline, || Ok(router.established(session)?.then_some(()))).map(|_| ())
}

/// What the router is said to lack it lacks, though the session is there.
pub(super) fn lacks(dut: &Dut<'_>, session: &Session, evidence: Evidence) -> anyhow::Result<()> {
    match evidence {
        Evidence::Manual => Ok(()),
        Evidence::Unsaid(capability) => {
            let text = dut.gobgp(session, &[])?;
            let mut lines = text.lines().map(str::trim);
            let line = lines.find(|line| line.starts_with(capability)).unwrap_or_default();
            ensure!(text.contains("Neighbor capabilities"), "no capabilities in {text}");
            ensure!(!line.contains("received"), "the router offers it: {line}");
            Ok(())
        }
        Evidence::Ends => {
            let ended = || dut.metric("openelb_bgp_sessions_dropped_total", &[session.name.as_str()]);
            let before = ended()?;
            dut.gobgp(session, &["softresetin"])?;
            eventually("an end of the session", SOON, || Ok((ended()? > before).then_some(()))).map(|_| ())
        }
    }
}

/// Waits until the router has so many paths to an address.
fn paths(router: &dyn Router, session: &Session, address: IpAddr, count: usize) -> anyhow::Result<Vec<Path>> {
    let what = format!("{count} path(s) to {address} on session {}", session.name);
    let mut last = 0;
    eventually(&what, SOON, || {
        let paths = router.paths(session, address)?;
        last = paths.len();
        Ok((paths.len() == count).then_some(paths))
    })
    .map(|(paths, _)| paths)
    .with_context(|| format!("there are {last}"))
}

/// Waits until we have so many fresh paths of a prefix of the router's.
fn received(dut: &Dut<'_>, session: &Session, prefix: &str, count: usize) -> anyhow::Result<Vec<Received>> {
    let what = format!("{count} fresh path(s) of {prefix} from the router on session {}", session.name);
    let mut last = Vec::new();
    eventually(&what, SOON, || {
        last = dut.received(session, prefix)?;
        let all = last.len() == count && last.iter().all(|path| !path.stale);
        Ok(all.then(|| last.clone()))
    })
    .map(|(paths, _)| paths)
    .with_context(|| format!("there are {last:?}"))
}

fn addresses(session: &Session) -> Vec<IpAddr> {
    let all = ADDRESSES.iter().filter_map(|text| text.parse::<IpAddr>().ok());
    all.filter(|address| if address.is_ipv4() { session.ipv4 } else { session.ipv6 }).collect()
}

/// Those of the router's prefixes that a session carries, with their next hop.
fn prefixes(session: &Session, all: [&'static str; 2]) -> impl Iterator<Item = (&'static str, IpAddr)> {
    let hops = session.announces.into_iter().flatten();
    let on = [session.ipv4, session.ipv6];
    all.into_iter().zip(hops).zip(on).filter(|(_, on)| *on).map(|(of, _)| of)
}

/// One of the kernel's counters of TCP on our side.
fn counter(lab: &Lab, name: &str) -> anyhow::Result<u64> {
    let text = lab.run(DUT, &["cat", "/proc/net/netstat"])?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (lines.next().context("no names")?, lines.next().context("no values")?);
    let position = names.split(' ').position(|other| other == name).with_context(|| format!("no {name}"))?;
    Ok(values.split(' ').nth(position).context("no value")?.parse()?)
}

/// Somebody with the router's address connects and speaks with this TTL, without a key.
fn speak(lab: &Lab, session: &Session, ttl: u8) -> anyhow::Result<()> {
    use rustix::{
        io::Errno,
        net::{AddressFamily, SendFlags, SocketType, bind, connect, send, socket, sockopt},
    };
    lab.within(ROUTER, || {
        let ipv4 = session.local.is_ipv4();
        let family = if ipv4 { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket(family, SocketType::STREAM, None)?;
        if ipv4 {
            sockopt::set_ip_ttl(&socket, u32::from(ttl))?;
        } else {
            sockopt::set_ipv6_unicast_hops(&socket, Some(ttl))?;
        }
        // What is dropped is never answered: nothing is gained by a longer wait.
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(Duration::from_millis(300)))?;
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

/// A segment that must not come through: it is dropped and counted, and the session of the router goes on.
fn dropped(lab: &Lab, router: &dyn Router, session: &Session, (ttl, name): (u8, &str)) -> anyhow::Result<()> {
    let before = counter(lab, name)?;
    speak(lab, session, ttl)?;
    eventually(&format!("{name} rises"), Duration::from_secs(30), || {
        Ok((counter(lab, name)? > before).then_some(()))
    })?;
    ensure!(router.established(session)?, "the session of the router itself ended");
    Ok(())
}

/// What the router has of us.
fn sent(router: &dyn Router, cell: Cell, session: &Session) -> anyhow::Result<()> {
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
    Ok(())
}

/// What we have of the router.
fn heard(dut: &Dut<'_>, (make, cell): (Make, Cell), session: &Session) -> anyhow::Result<()> {
    let several = cell == Cell::AddPath && !matches!(cell.one_way(make), Some(OneWay::Ours(_)));
    for (prefix, next_hop) in prefixes(session, ANNOUNCED) {
        let paths = received(dut, session, prefix, if several { 2 } else { 1 })?;
        let mut communities = Vec::new();
        for path in &paths {
            let described = || format!("{prefix} came as {:.2000}", format!("{path:?}"));
            if session.local.is_ipv4() == prefix.contains('.') || cell == Cell::ExtendedNextHop {
                ensure!(path.next_hop == next_hop.to_string(), "not with {next_hop}: {}", described());
            }
            communities.extend(path.communities.iter().copied());
            if cell == Cell::ExtendedMessages {
                let all = MANY.len() < path.communities.len();
                ensure!(all, "{} communities: {}", path.communities.len(), described());
            }
            if cell == Cell::Communities {
                let [asn, value] = ROUTE_TARGET;
                // Of two paths it may send either.
                let [asn_of, first] = COMMUNITY.map(u64::from);
                let all = path.large == [LARGE_COMMUNITY.map(u64::from)]
                    && path.targets == [format!("{asn}:{value}")]
                    && [[asn_of, first], [asn_of, first + 1]]
                        .map(|one| vec![one])
                        .contains(&path.communities);
                ensure!(all, "not as sent: {}", described());
            }
        }
        if several {
            // The two paths are two: their first communities are.
            communities.sort_unstable();
            let [asn, value] = COMMUNITY.map(u64::from);
            ensure!(communities == [[asn, value], [asn, value + 1]], "{prefix} came as {paths:?}");
        }
    }
    Ok(())
}

pub(super) fn check(
    lab: &Lab,
    dut: &Dut<'_>,
    router: &dyn Router,
    (make, cell): (Make, Cell),
    session: &Session,
) -> anyhow::Result<()> {
    sent(router, cell, session).context("what the router has of us")?;
    heard(dut, (make, cell), session).context("what we have of the router")?;
    match cell {
        Cell::Bfd => {
            eventually("BFD is Up at both ends", Duration::from_secs(30), || {
                let ours = dut.metric("openelb_bgp_bfd_up", &[cell.name()])? == 1.0;
                Ok((router.bfd_up(session)? && ours).then_some(()))
            })?;
            Ok(())
        }
        Cell::Md5 | Cell::Md5OverIpv6 => dropped(lab, router, session, (255, "TCPMD5NotFound")),
        // One hop away it is 255; from two hops away it cannot be more than 254 (RFC 5082 §3).
        Cell::Gtsm | Cell::GtsmOverIpv6 => dropped(lab, router, session, (254, "TCPMinTTLDrop")),
        Cell::RouteRefresh => {
            let way = cell.one_way(make);
            if !matches!(way, Some(OneWay::Ours(_))) {
                refresh(dut, cell, ["received", "sent"], || router.refresh(session))
                    .context("the router asks")?;
            }
            let ask = || dut.gobgp(session, &["softresetin"]).map(drop);
            if !matches!(way, Some(OneWay::Theirs(_))) {
                refresh(dut, cell, ["sent", "received"], ask).context("we ask")?;
            } else {
                let before = router.requests(session)?;
                ask()?;
                eventually("a request that the router has counted", SOON, || {
                    Ok((router.requests(session)? > before).then_some(()))
                })?;
            }
            heard(dut, (make, cell), session).context("after the refresh")
        }
        _ => Ok(()),
    }
}

/// A ROUTE-REFRESH in one direction is answered by UPDATEs in the other, and the session stays.
fn refresh(
    dut: &Dut<'_>,
    cell: Cell,
    [asks, answers]: [&str; 2],
    ask: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let count = |kind: &str, direction: &str| {
        let labels = [&*format!("type=\"{kind}\""), &*format!("direction=\"{direction}\""), cell.name()];
        dut.metric("openelb_bgp_messages_total", &labels)
    };
    let (asked, before) = (count("route-refresh", asks)?, count("update", answers)?);
    ask()?;
    eventually("a ROUTE-REFRESH that is answered", Duration::from_secs(30), || {
        Ok((count("route-refresh", asks)? > asked && count("update", answers)? > before).then_some(()))
    })?;
    let dropped = dut.metric("openelb_bgp_sessions_dropped_total", &[cell.name()])?;
    ensure!(dropped == 0.0, "the session ended");
    Ok(())
}

/// The router is killed and comes back: it has everything again. If it asks for that, we keep its routes meanwhile, as
/// stale ones, but those of a session without graceful restart; what it does not send again goes.
pub(super) fn their_restart(
    lab: &Lab,
    dut: &Dut<'_>,
    router: &mut dyn Router,
    (session, asks): (&Session, bool),
) -> anyhow::Result<()> {
    let peer = [Cell::TheirRestart.name()];
    let plain = Cell::Both.session();
    let established_before = dut.metric("openelb_bgp_sessions_established_total", &peer)?;
    for address in addresses(session) {
        paths(router, session, address, 1)?;
    }
    for (prefix, _) in prefixes(session, ANNOUNCED).chain(prefixes(session, LEAVING)) {
        received(dut, session, prefix, 1)?;
        received(dut, &plain, prefix, 1)?;
    }
    let process = router.processes().first().cloned().context("no process")?;
    lab.signal(&process, "KILL")?;
    lab.wait_exit(&process, Duration::from_secs(10))?;
    for (prefix, _) in prefixes(session, ANNOUNCED).chain(prefixes(session, LEAVING)) {
        let what = if asks { "is kept as stale" } else { "is gone, as nobody asked for anything else" };
        eventually(&format!("{prefix} {what}"), SOON, || {
            let kept = dut.received(session, prefix)?;
            ensure!(!asks || !kept.is_empty(), "it is gone while the router is away");
            Ok((kept.is_empty() != asks && kept.iter().all(|path| path.stale)).then_some(()))
        })?;
        eventually(&format!("{prefix} without graceful restart is gone"), SOON, || {
            Ok(dut.received(&plain, prefix)?.is_empty().then_some(()))
        })?;
    }
    router.restart()?;
    let began = Instant::now();
    for (prefix, _) in prefixes(session, ANNOUNCED).filter(|_| asks) {
        loop {
            let now = dut.received(session, prefix)?;
            ensure!(!now.is_empty(), "{prefix} is gone when the router is back");
            if now.iter().all(|path| !path.stale) {
                break;
            }
            ensure!(began.elapsed() < DEADLINE, "{prefix} stays stale when the router is back");
        }
    }
    for (prefix, _) in prefixes(session, LEAVING) {
        eventually(&format!("{prefix}, which the router does not send again, is gone"), DEADLINE, || {
            Ok(dut.received(session, prefix)?.is_empty().then_some(()))
        })?;
    }
    for (prefix, _) in prefixes(session, ANNOUNCED) {
        received(dut, session, prefix, 1).context("after the router's End-of-RIB")?;
    }
    established(router, session, DEADLINE)?;
    for address in addresses(session) {
        paths(router, session, address, 1)?;
    }
    let what = "the session is counted anew";
    eventually(what, Duration::from_secs(30), || {
        let now = dut.metric("openelb_bgp_sessions_established_total", &peer)?;
        Ok((now > established_before).then_some(()))
    })
    .map(|_| ())
}

/// We are killed and come back: the router keeps the routes all the time. On a session without graceful restart it does
/// not.
pub(super) fn our_restart(dut: &mut Dut<'_>, router: &dyn Router, session: &Session) -> anyhow::Result<()> {
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
    eventually("the routes were sent again", Duration::from_secs(30), || {
        keeps("after the session is back")?;
        let advertised = dut.metric("openelb_bgp_routes_advertised", &[Cell::OurRestart.name()])?;
        Ok((advertised >= addresses.len() as f64).then_some(()))
    })?;
    let settled = Instant::now() + Duration::from_secs(2);
    while Instant::now() < settled {
        keeps("after End-of-RIB")?;
    }
    for (prefix, _) in prefixes(session, ANNOUNCED) {
        received(dut, session, prefix, 1).context("what the router sends who has restarted")?;
    }
    Ok(())
}
