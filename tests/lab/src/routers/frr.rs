use std::{fmt::Write as _, net::IpAddr};

use anyhow::Context;
use serde_json::Value;

use super::{
    ANNOUNCED, COMMUNITY, LARGE_COMMUNITY, MANY, Path, ROUTE_TARGET, Router, Session, announced,
    await_answer, host_prefix,
};
use crate::{Lab, Process};

/// FRRouting: zebra, bgpd, and bfdd where a session has BFD.
pub(super) struct Frr<'a> {
    lab: &'a Lab,
    host: String,
    directory: String,
    sessions: Vec<Session>,
    processes: Vec<Process>,
}

/// So many communities go into one line of a route map.
const OF_A_LINE: usize = 100;

/// Where what is announced gets its attributes from, and which neighbour is sent what.
fn route_maps(restarted: bool) -> String {
    let mut text = String::new();
    let [asn, value] = COMMUNITY;
    let ([large, one, two], [target, number]) = (LARGE_COMMUNITY, ROUTE_TARGET);
    let lists = |family: u8| if family == 4 { ("ip", "announced4") } else { ("ipv6", "announced6") };
    for (family, prefix) in announced(restarted) {
        let (word, list) = lists(family);
        let _ = writeln!(text, "{word} prefix-list {list} permit {prefix}");
    }
    let tagged = |text: &mut String, value: u16| {
        let _ = write!(
            text,
            " set community {asn}:{value}\n set large-community {large}:{one}:{two}\n set extcommunity rt \
             {target}:{number}\n"
        );
    };
    text.push_str("route-map announced permit 10\n");
    tagged(&mut text, value);
    for (family, map, step) in [(4, "second4", 10), (6, "second6", 10), (4, "sent", 10), (6, "sent", 20)] {
        let (word, list) = lists(family);
        let _ = write!(text, "route-map {map} permit {step}\n match {word} address prefix-list {list}\n");
        if map != "sent" {
            tagged(&mut text, value + 1);
        }
    }
    // The session that is sent many of them has IPv4 alone.
    let many: Vec<String> = MANY.map(|value| format!("{asn}:{value}")).collect();
    for (index, part) in many.chunks(OF_A_LINE).enumerate() {
        let last = (index + 1) * OF_A_LINE >= many.len();
        let _ = write!(
            text,
            "route-map many permit {}\n match ip address prefix-list announced4\n set community {} additive\n{}",
            index + 1,
            part.join(" "),
            if last { "" } else { " on-match next\n" }
        );
    }
    text
}

fn configuration(sessions: &[Session], restarted: bool) -> String {
    let asn = sessions.first().map_or(0, |session| session.asn);
    let mut text = String::from("log stdout\n");
    let announces = sessions.iter().any(|session| session.announces.is_some());
    if announces {
        // Before they are used: what changes later takes effect seconds later.
        text.push_str(&route_maps(restarted));
    }
    let _ = write!(
        text,
        "router bgp {asn}\n bgp router-id 192.0.2.200\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n \
         bgp graceful-restart stalepath-time 120\n"
    );
    if announces {
        // The F bit (RFC 4724 section 3): else its neighbours drop its routes as soon as the session is back.
        text.push_str(" no bgp network import-check\n bgp graceful-restart preserve-fw-state\n");
    }
    for session in sessions {
        let Session { local, remote, remote_asn, hold_time, .. } = session;
        let _ = write!(
            text,
            " neighbor {remote} remote-as {remote_asn}\n neighbor {remote} update-source {local}\n neighbor {remote} \
             timers {} {hold_time}\n neighbor {remote} timers connect 1\n neighbor {remote} timers delayopen 0\n",
            hold_time / 3
        );
        if let Some(password) = &session.password {
            let _ = writeln!(text, " neighbor {remote} password {password}");
        }
        if session.ttl_security {
            let _ = writeln!(text, " neighbor {remote} ttl-security hops 1");
        }
        if session.multihop {
            let _ = writeln!(text, " neighbor {remote} ebgp-multihop 5");
        }
        if session.extended_next_hop {
            let _ = writeln!(text, " neighbor {remote} capability extended-nexthop");
        }
        if session.graceful_restart {
            let _ = writeln!(text, " neighbor {remote} graceful-restart");
        } else {
            let _ = writeln!(text, " neighbor {remote} graceful-restart-disable");
        }
        if session.bfd.is_some() {
            let _ = writeln!(text, " neighbor {remote} bfd\n neighbor {remote} bfd profile lab");
            if session.bfd.is_some_and(|bfd| bfd.graceful) {
                let _ = writeln!(text, " neighbor {remote} bfd check-control-plane-failure");
            }
        }
    }
    for (family, on) in [("ipv4", true), ("ipv6", false)] {
        let _ = writeln!(text, " address-family {family} unicast");
        if announces {
            for (_, prefix) in announced(restarted).filter(|(of, _)| (*of == 4) == on) {
                let _ = writeln!(text, "  network {prefix} route-map announced");
            }
            // A second path of a prefix: where it is connected, too.
            let _ = writeln!(text, "  redistribute connected route-map second{}", if on { 4 } else { 6 });
        }
        for session in sessions.iter().filter(|session| if on { session.ipv4 } else { session.ipv6 }) {
            let remote = session.remote;
            let _ = write!(
                text,
                "  neighbor {remote} activate\n  neighbor {remote} soft-reconfiguration inbound\n"
            );
            if !session.add_path {
                let _ = writeln!(text, "  neighbor {remote} disable-addpath-rx");
            } else if session.announces.is_some() {
                let _ = writeln!(text, "  neighbor {remote} addpath-tx-all-paths");
            }
            if session.announces.is_some() {
                let map = if session.extended_messages { "many" } else { "sent" };
                let _ = writeln!(text, "  neighbor {remote} route-map {map} out");
            }
        }
        text.push_str(" exit-address-family\n");
    }
    text.push_str("exit\n");
    if let Some(bfd) = sessions.iter().find_map(|session| session.bfd) {
        let (interval, multiplier) = (bfd.interval.as_millis(), bfd.multiplier);
        let _ = write!(
            text,
            "bfd\n profile lab\n  detect-multiplier {multiplier}\n  receive-interval {interval}\n  transmit-interval \
             {interval}\n exit\nexit\n"
        );
    }
    text
}

impl<'a> Frr<'a> {
    pub(super) fn start(lab: &'a Lab, host: &str, sessions: &[Session]) -> anyhow::Result<Self> {
        let directory = lab.path().join(format!("frr-{host}")).to_string_lossy().into_owned();
        std::fs::create_dir_all(&directory)?;
        // zebra and bfdd insist on a user of their own.
        lab.script(&format!("chmod 755 {}; chown frr:frr {directory}", lab.path().display()))?;
        if sessions.iter().any(|session| session.announces.is_some() && session.add_path) {
            for prefix in ANNOUNCED {
                lab.run(host, &["ip", "address", "add", prefix, "dev", "lo"])?;
            }
        }
        let sessions = sessions.to_vec();
        let mut frr = Self { lab, host: host.to_owned(), directory, sessions, processes: Vec::new() };
        let sessions = &frr.sessions;
        let empty = lab.write(&format!("zebra-{host}.conf"), "log stdout\n")?.to_string_lossy().into_owned();
        let zebra = frr.daemon("zebra", &empty, &["-u", "frr", "-g", "frr"])?;
        let bfdd = if sessions.iter().any(|session| session.bfd.is_some()) {
            let control = format!("unix:{}/bfdd.sock", frr.directory);
            let bfd: String = configuration(sessions, false)
                .split_once("\nbfd\n")
                .map(|(_, bfd)| format!("bfd\n{bfd}"))
                .unwrap_or_default();
            let file = lab.write(&format!("bfdd-{host}.conf"), &bfd)?.to_string_lossy().into_owned();
            Some(frr.daemon("bfdd", &file, &["-u", "frr", "-g", "frr", "--bfdctl", &control])?)
        } else {
            None
        };
        let bgpd = frr.bgpd(false)?;
        frr.processes = [bgpd, zebra].into_iter().chain(bfdd).collect();
        Ok(frr)
    }

    fn bgpd(&self, restarted: bool) -> anyhow::Result<Process> {
        // It reads this file; what bfdd has is bfdd's.
        let text = configuration(&self.sessions, restarted);
        let own = text.split("\nbfd\n").next().unwrap_or_default();
        let file = self.lab.write(&format!("bgpd-{}.conf", self.host), &format!("{own}\n"))?;
        let process = self.daemon("bgpd", &file.to_string_lossy(), &["-S"])?;
        await_answer(&process, || self.ask("show bgp summary json"))?;
        Ok(process)
    }

    fn daemon(&self, name: &str, file: &str, more: &[&str]) -> anyhow::Result<Process> {
        let Self { lab, host, directory, .. } = self;
        let program = format!("/usr/lib/frr/{name}");
        let (pid, zebra) = (format!("{directory}/{name}.pid"), format!("{directory}/zserv.api"));
        let mut command = vec![
            program.as_str(),
            "-P",
            "0",
            "-f",
            file,
            "-i",
            &pid,
            "-z",
            &zebra,
            "--vty_socket",
            directory,
        ];
        command.extend(more);
        let process = lab.spawn(&format!("{name}-{host}"), host, &command)?;
        await_answer(&process, || {
            std::fs::metadata(format!("{directory}/{name}.vty")).context("no control socket")
        })?;
        Ok(process)
    }

    fn ask(&self, command: &str) -> anyhow::Result<String> {
        self.lab.run(&self.host, &["vtysh", "--vty_socket", &self.directory, "-c", command])
    }

    fn json(&self, command: &str) -> anyhow::Result<Value> {
        let text = self.ask(command)?;
        // vtysh may say before it that it has no configuration of its own.
        let start = text.find(['{', '[']).context("no JSON")?;
        Ok(serde_json::from_str(text.get(start..).unwrap_or_default())?)
    }
}

impl Router for Frr<'_> {
    fn processes(&self) -> &[Process] {
        &self.processes
    }

    fn established(&self, session: &Session) -> anyhow::Result<bool> {
        let answer = self.json(&format!("show bgp neighbors {} json", session.remote))?;
        let state = answer.pointer(&format!("/{}/bgpState", session.remote)).and_then(Value::as_str);
        Ok(state == Some("Established"))
    }

    fn paths(&self, session: &Session, address: IpAddr) -> anyhow::Result<Vec<Path>> {
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        let answer = self.json(&format!("show bgp {family} unicast {} json", host_prefix(address)))?;
        let mut paths = Vec::new();
        let remote = session.remote.to_string();
        for path in answer.pointer("/paths").and_then(Value::as_array).into_iter().flatten() {
            if path.pointer("/peer/peerId").and_then(Value::as_str) != Some(&remote) {
                continue;
            }
            let hops = path.pointer("/nexthops").and_then(Value::as_array);
            let global = hops.into_iter().flatten().find(|hop| {
                hop.pointer("/scope").and_then(Value::as_str).is_none_or(|scope| scope == "global")
            });
            let hop =
                global.and_then(|hop| hop.pointer("/ip")).and_then(Value::as_str).context("no next hop")?;
            paths.push(Path { next_hop: hop.parse()?, text: path.to_string() });
        }
        Ok(paths)
    }

    fn refresh(&self, session: &Session) -> anyhow::Result<()> {
        // With soft-reconfiguration it would look only at what it has.
        let (asn, remote) = (session.asn, session.remote);
        let mut command = vec!["vtysh", "--vty_socket", &self.directory, "-c", "configure terminal"];
        let router = format!("router bgp {asn}");
        let off = format!("no neighbor {remote} soft-reconfiguration inbound");
        let clear = format!("clear bgp {} {remote} in", if session.ipv4 { "ipv4" } else { "ipv6" });
        for line in [&router, "address-family ipv4 unicast", &off, "end", &clear] {
            command.extend(["-c", line]);
        }
        self.lab.run(&self.host, &command).map(|_| ())
    }

    fn bfd_up(&self, session: &Session) -> anyhow::Result<bool> {
        let answer = self.json("show bfd peers json")?;
        let remote = session.remote.to_string();
        Ok(answer.as_array().into_iter().flatten().any(|peer| {
            let text = |name: &str| peer.get(name).and_then(Value::as_str);
            text("peer") == Some(&remote) && text("status") == Some("up")
        }))
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        let bgpd = self.bgpd(true)?;
        if let Some(first) = self.processes.first_mut() {
            *first = bgpd;
        }
        Ok(())
    }
}
