use std::{fmt::Write as _, net::IpAddr};

use anyhow::bail;
use serde_json::Value;

use super::{
    ANNOUNCED, COMMUNITY, LARGE_COMMUNITY, Path, ROUTE_TARGET, Router, Session, announced, await_answer,
    host_prefix,
};
use crate::{Lab, Process};

/// GoBGP, asked with its own command line.
pub(super) struct Gobgp<'a> {
    lab: &'a Lab,
    host: String,
    file: String,
    announces: bool,
    processes: [Process; 1],
}

fn configuration(sessions: &[Session]) -> String {
    let asn = sessions.first().map_or(0, |session| session.asn);
    let mut text = format!("[global.config]\n  as = {asn}\n  router-id = \"192.0.2.200\"\n");
    for session in sessions {
        let Session { local, remote, remote_asn, hold_time, .. } = session;
        let _ = write!(
            text,
            "[[neighbors]]\n  [neighbors.config]\n    neighbor-address = \"{remote}\"\n    peer-as = {remote_asn}\n"
        );
        if let Some(password) = &session.password {
            let _ = writeln!(text, "    auth-password = \"{password}\"");
        }
        let _ = write!(
            text,
            "  [neighbors.transport.config]\n    local-address = \"{local}\"\n  [neighbors.timers.config]\n    hold-time = \
             {hold_time}\n    keepalive-interval = {}\n    connect-retry = 1\n    idle-hold-time-after-reset = 1\n",
            hold_time / 3
        );
        if session.multihop {
            text.push_str("  [neighbors.ebgp-multihop.config]\n    enabled = true\n    multihop-ttl = 5\n");
        }
        if session.ttl_security {
            text.push_str("  [neighbors.ttl-security.config]\n    enabled = true\n    ttl-min = 255\n");
        }
        if session.graceful_restart {
            text.push_str(
                "  [neighbors.graceful-restart.config]\n    enabled = true\n    restart-time = 60\n",
            );
        }
        for (name, on) in [("ipv4-unicast", session.ipv4), ("ipv6-unicast", session.ipv6)] {
            if !on {
                continue;
            }
            let _ = write!(
                text,
                "  [[neighbors.afi-safis]]\n    [neighbors.afi-safis.config]\n      afi-safi-name = \"{name}\"\n"
            );
            if session.add_path {
                text.push_str("    [neighbors.afi-safis.add-paths.config]\n      receive = true\n");
                if session.announces.is_some() {
                    text.push_str("      send-max = 8\n");
                }
            }
            if session.graceful_restart {
                text.push_str("    [neighbors.afi-safis.mp-graceful-restart.config]\n      enabled = true\n");
            }
        }
    }
    text
}

impl<'a> Gobgp<'a> {
    pub(super) fn start(lab: &'a Lab, host: &str, sessions: &[Session]) -> anyhow::Result<Self> {
        let file = lab.write(&format!("gobgp-{host}.toml"), &configuration(sessions))?;
        let file = file.to_string_lossy().into_owned();
        let process = Self::run(lab, host, &file, &[])?;
        let announces = sessions.iter().any(|session| session.announces.is_some());
        let gobgp = Self { lab, host: host.to_owned(), file, announces, processes: [process] };
        gobgp.announce(false)?;
        Ok(gobgp)
    }

    /// It has no place for routes in its configuration. All sessions are sent them.
    fn announce(&self, restarted: bool) -> anyhow::Result<()> {
        let [asn, value] = COMMUNITY;
        let ([large, one, two], [target, number]) = (LARGE_COMMUNITY, ROUTE_TARGET);
        let (large, target) = (format!("{large}:{one}:{two}"), format!("{target}:{number}"));
        for (family, prefix) in announced(restarted).filter(|_| self.announces) {
            let paths = if ANNOUNCED.contains(&prefix) { 2 } else { 1 };
            for path in 0..paths {
                let (community, identifier) = (format!("{asn}:{}", value + path), (path + 1).to_string());
                let family = format!("ipv{family}");
                self.ask(&[
                    "global",
                    "rib",
                    "add",
                    "-a",
                    &family,
                    prefix,
                    "identifier",
                    &identifier,
                    "community",
                    &community,
                    "large-community",
                    &large,
                    "rt",
                    &target,
                ])?;
            }
        }
        Ok(())
    }

    fn run(lab: &Lab, host: &str, file: &str, more: &[&str]) -> anyhow::Result<Process> {
        let mut command = vec!["gobgpd", "--pprof-disable", "--api-hosts", "127.0.0.1:50051", "-f", file];
        command.extend(more);
        let process = lab.spawn(&format!("gobgp-{host}"), host, &command)?;
        await_answer(&process, || lab.run(host, &["gobgp", "neighbor"]))?;
        Ok(process)
    }

    /// What is kept of a session that has ended.
    fn kept(&self, session: &Session, family: &str, prefix: &str) -> anyhow::Result<Vec<Path>> {
        let answer = self.ask(&["global", "rib", "-a", family, "-j"])?;
        let table: Value = serde_json::from_str(answer.trim()).unwrap_or_default();
        let remote = session.remote.to_string();
        let mut paths = Vec::new();
        for path in table.get(prefix).and_then(Value::as_array).into_iter().flatten() {
            if path.get("neighbor-ip").and_then(Value::as_str) != Some(&remote) {
                continue;
            }
            let attributes = path.get("attrs").and_then(Value::as_array).into_iter().flatten();
            let hop =
                attributes.filter_map(|attribute| attribute.get("nexthop")?.as_str()?.parse().ok()).next();
            paths.push(Path { next_hop: hop.unwrap_or(session.remote), text: path.to_string() });
        }
        Ok(paths)
    }

    fn ask(&self, command: &[&str]) -> anyhow::Result<String> {
        ask(self.lab, &self.host, command)
    }
}

/// How often `gobgp` is started where nobody takes its connection within a second, which is all that it waits: nothing
/// was asked then.
const TRIES: u32 = 5;

/// What `gobgp` with these words prints on a host.
pub(crate) fn ask(lab: &Lab, host: &str, words: &[&str]) -> anyhow::Result<String> {
    let mut all = vec!["gobgp"];
    all.extend(words);
    let mut answer = lab.run(host, &all);
    for _ in 1..TRIES {
        match &answer {
            Err(error) if error.to_string().contains("context deadline exceeded") => {
                answer = lab.run(host, &all);
            }
            _ => break,
        }
    }
    answer
}

impl Router for Gobgp<'_> {
    fn processes(&self) -> &[Process] {
        &self.processes
    }

    fn established(&self, session: &Session) -> anyhow::Result<bool> {
        let answer = self.ask(&["neighbor", &session.remote.to_string()])?;
        Ok(answer.to_lowercase().contains("bgp state = established"))
    }

    fn paths(&self, session: &Session, address: IpAddr) -> anyhow::Result<Vec<Path>> {
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        let prefix = host_prefix(address);
        let answer = self.ask(&["neighbor", &session.remote.to_string(), "adj-in", "-a", family]);
        if answer.as_ref().is_err_and(|error| error.to_string().contains("not established")) {
            return self.kept(session, family, &prefix);
        }
        let answer = answer?;
        let mut paths = Vec::new();
        for line in answer.lines().filter(|line| line.split_whitespace().any(|word| word == prefix)) {
            // ID, with add-path an identifier, network, next hop, ...
            let hop = line.split_whitespace().skip_while(|word| *word != prefix).nth(1);
            if let Some(next_hop) = hop.and_then(|hop| hop.parse().ok()) {
                paths.push(Path { next_hop, text: line.to_owned() });
            }
        }
        Ok(paths)
    }

    fn refresh(&self, session: &Session) -> anyhow::Result<()> {
        self.ask(&["neighbor", &session.remote.to_string(), "softresetin"]).map(|_| ())
    }

    fn bfd_up(&self, _: &Session) -> anyhow::Result<bool> {
        bail!("GoBGP of this version has no BFD")
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        self.processes = [Self::run(self.lab, &self.host, &self.file, &["-r"])?];
        self.announce(true)
    }
}
