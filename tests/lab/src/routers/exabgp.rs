use std::{fmt::Write as _, net::IpAddr, path::PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

use super::{
    ANNOUNCED, COMMUNITY, LARGE_COMMUNITY, MANY, Path, ROUTE_TARGET, Router, Session, announced,
    await_answer, host_prefix,
};
use crate::{Lab, Process};

/// ExaBGP, which writes what it hears to a file.
pub(super) struct Exabgp<'a> {
    lab: &'a Lab,
    host: String,
    sessions: Vec<Session>,
    heard: PathBuf,
    processes: [Process; 1],
}

/// What is announced on one session.
fn announcements(text: &mut String, session: &Session, next_hops: [IpAddr; 2], restarted: bool) {
    let [asn, value] = COMMUNITY;
    let ([large, one, two], [target, number]) = (LARGE_COMMUNITY, ROUTE_TARGET);
    text.push_str("  announce {\n");
    for (of, on, next_hop) in [(4, session.ipv4, next_hops[0]), (6, session.ipv6, next_hops[1])] {
        if !on {
            continue;
        }
        let _ = writeln!(text, "    ipv{of} {{");
        for (_, prefix) in announced(restarted).filter(|(family, _)| *family == of) {
            let paths = if session.add_path && ANNOUNCED.contains(&prefix) { 2 } else { 1 };
            for path in 0..paths {
                let mut communities = format!("{asn}:{}", value + path);
                if session.extended_messages {
                    for value in MANY {
                        let _ = write!(communities, " {asn}:{value}");
                    }
                }
                let identifier =
                    if session.add_path { format!(" path-information {}", path + 1) } else { String::new() };
                let _ = writeln!(
                    text,
                    "      unicast {prefix} next-hop {next_hop}{identifier} community [{communities}] large-community \
                     [{large}:{one}:{two}] extended-community [target:{target}:{number}];"
                );
            }
        }
        text.push_str("    }\n");
    }
    text.push_str("  }\n");
}

fn configuration(sessions: &[Session], heard: &str, restarted: bool) -> String {
    let mut text =
        format!("process heard {{\n  run /bin/sh -c \"cat >>{heard}; true\";\n  encoder json;\n}}\n");
    for session in sessions {
        let Session { local, asn, remote, remote_asn, hold_time, .. } = session;
        let _ = write!(
            text,
            "neighbor {remote} {{\n  router-id 192.0.2.200;\n  local-address {local};\n  local-as {asn};\n  peer-as \
             {remote_asn};\n  hold-time {hold_time};\n"
        );
        if let Some(password) = &session.password {
            let _ = writeln!(text, "  md5-password \"{password}\";");
        }
        if session.ttl_security {
            text.push_str("  outgoing-ttl 255;\n  incoming-ttl 255;\n");
        }
        if session.multihop {
            text.push_str("  outgoing-ttl 5;\n");
        }
        text.push_str("  family {\n");
        for (family, on) in [("ipv4", session.ipv4), ("ipv6", session.ipv6)] {
            if on {
                let _ = writeln!(text, "    {family} unicast;");
            }
        }
        text.push_str("  }\n  capability {\n    asn4 enable;\n    route-refresh enable;\n");
        if session.add_path {
            let both = session.announces.is_some();
            let _ = writeln!(text, "    add-path {};", if both { "send/receive" } else { "receive" });
        }
        if session.extended_messages {
            text.push_str("    extended-message enable;\n");
        } else {
            text.push_str("    extended-message disable;\n");
        }
        if session.extended_next_hop {
            text.push_str("    nexthop enable;\n");
        }
        if session.graceful_restart {
            text.push_str("    graceful-restart 60;\n");
        }
        text.push_str("  }\n");
        if session.extended_next_hop {
            text.push_str("  nexthop {\n    ipv4 unicast ipv6;\n  }\n");
        }
        if session.add_path {
            text.push_str("  add-path {\n");
            for (family, on) in [("ipv4", session.ipv4), ("ipv6", session.ipv6)] {
                if on {
                    let _ = writeln!(text, "    {family} unicast;");
                }
            }
            text.push_str("  }\n");
        }
        if let Some(next_hops) = session.announces {
            announcements(&mut text, session, next_hops, restarted);
        }
        text.push_str("  api {\n    processes [ heard ];\n    neighbor-changes;\n    receive {\n      parsed;\n      update;\n    }\n  }\n}\n");
    }
    text
}

impl<'a> Exabgp<'a> {
    pub(super) fn start(lab: &'a Lab, host: &str, sessions: &[Session]) -> anyhow::Result<Self> {
        let heard = lab.write(&format!("exabgp-{host}.json"), "")?;
        // It drops privileges, and so does what writes.
        lab.script(&format!("chmod 666 {0}; chmod 755 {1}", heard.display(), lab.path().display()))?;
        let process = Self::run(lab, host, &configuration(sessions, &heard.to_string_lossy(), false))?;
        Ok(Self { lab, host: host.to_owned(), sessions: sessions.to_vec(), heard, processes: [process] })
    }

    fn run(lab: &Lab, host: &str, configuration: &str) -> anyhow::Result<Process> {
        let file = lab.write(&format!("exabgp-{host}.conf"), configuration)?;
        let file = file.to_string_lossy();
        let command = [
            "env",
            "exabgp.daemon.user=root",
            "exabgp.log.destination=stdout",
            "exabgp.api.cli=false",
            "exabgp.tcp.bind=",
            "exabgp",
            &file,
        ];
        let process = lab.spawn(&format!("exabgp-{host}"), host, &command)?;
        await_answer(&process, || lab.is_running(&process).then_some(()).context("it has ended"))?;
        Ok(process)
    }

    /// What was heard of a neighbour, in order.
    fn heard(&self, session: &Session) -> anyhow::Result<Vec<Value>> {
        let text = std::fs::read_to_string(&self.heard)?;
        let remote = session.remote.to_string();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let of =
            |line: &Value| line.pointer("/neighbor/address/peer").and_then(Value::as_str) == Some(&remote);
        Ok(lines.filter(of).collect())
    }
}

impl Router for Exabgp<'_> {
    fn processes(&self) -> &[Process] {
        &self.processes
    }

    fn established(&self, session: &Session) -> anyhow::Result<bool> {
        let heard = self.heard(session)?;
        let last =
            heard.iter().rev().find_map(|line| line.pointer("/neighbor/state").and_then(Value::as_str));
        Ok(last == Some("up"))
    }

    fn paths(&self, session: &Session, address: IpAddr) -> anyhow::Result<Vec<Path>> {
        let family = if address.is_ipv4() { "ipv4 unicast" } else { "ipv6 unicast" };
        let prefix = host_prefix(address);
        // (path identifier, path)
        let mut paths: Vec<(String, Path)> = Vec::new();
        for line in self.heard(session)? {
            if line.pointer("/neighbor/state").and_then(Value::as_str) == Some("down") {
                paths.clear();
            }
            let Some(update) = line.pointer("/neighbor/message/update") else { continue };
            let of = |entry: &Value| -> Option<String> {
                let nlri = entry.get("nlri").and_then(Value::as_str)?;
                let id = entry.get("path-information").map(ToString::to_string).unwrap_or_default();
                (nlri == prefix).then_some(id)
            };
            let withdrawn = update.get("withdraw").and_then(|all| all.get(family)).and_then(Value::as_array);
            for id in withdrawn.into_iter().flatten().filter_map(of) {
                paths.retain(|(other, _)| *other != id);
            }
            let announced = update.get("announce").and_then(|all| all.get(family)).and_then(Value::as_object);
            for (hop, entries) in announced.into_iter().flatten() {
                let next_hop: IpAddr = hop.parse()?;
                for id in entries.as_array().into_iter().flatten().filter_map(of) {
                    paths.retain(|(other, _)| *other != id);
                    let text = update.get("attribute").map(ToString::to_string).unwrap_or_default();
                    paths.push((id, Path { next_hop, text }));
                }
            }
        }
        Ok(paths.into_iter().map(|(_, path)| path).collect())
    }

    fn refresh(&self, _: &Session) -> anyhow::Result<()> {
        bail!("ExaBGP has no command for it")
    }

    fn bfd_up(&self, _: &Session) -> anyhow::Result<bool> {
        bail!("ExaBGP has no BFD")
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        std::fs::write(&self.heard, "")?;
        let configuration = configuration(&self.sessions, &self.heard.to_string_lossy(), true);
        self.processes = [Self::run(self.lab, &self.host, &configuration)?];
        Ok(())
    }
}
