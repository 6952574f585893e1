use std::{fmt::Write as _, net::IpAddr};

use anyhow::{Context, bail};

use super::{
    COMMUNITY, LARGE_COMMUNITY, Path, ROUTE_TARGET, Router, Session, announced, await_answer, host_prefix,
};
use crate::{Lab, Process};

/// OpenBGPD, asked with `bgpctl`.
pub(super) struct Openbgpd<'a> {
    lab: &'a Lab,
    host: String,
    sessions: Vec<Session>,
    socket: String,
    processes: [Process; 1],
}

fn configuration(sessions: &[Session], socket: &str, restarted: bool) -> String {
    let asn = sessions.first().map_or(0, |session| session.asn);
    let mut text =
        format!("AS {asn}\nrouter-id 192.0.2.200\nfib-update no\nconnect-retry 1\nsocket \"{socket}\"\n");
    let announces = sessions.iter().any(|session| session.announces.is_some());
    if announces {
        let [asn, value] = COMMUNITY;
        let ([large, one, two], [target, number]) = (LARGE_COMMUNITY, ROUTE_TARGET);
        for (_, prefix) in announced(restarted) {
            let _ = writeln!(
                text,
                "network {prefix} set {{ community {asn}:{value} large-community {large}:{one}:{two} ext-community rt \
                 {target}:{number} }}"
            );
        }
    }
    for session in sessions {
        let Session { local, remote, remote_asn, hold_time, .. } = session;
        let _ = write!(
            text,
            "neighbor {remote} {{\n  remote-as {remote_asn}\n  local-address {local}\n  holdtime {hold_time}\n  announce IPv4 \
             {}\n  announce IPv6 {}\n",
            if session.ipv4 { "unicast" } else { "none" },
            if session.ipv6 { "unicast" } else { "none" },
        );
        if let Some(password) = &session.password {
            let _ = writeln!(text, "  tcp md5sig password \"{password}\"");
        }
        if session.ttl_security {
            text.push_str("  ttl-security yes\n");
        }
        if session.multihop {
            text.push_str("  multihop 5\n");
        }
        if session.add_path {
            text.push_str("  announce add-path recv yes\n");
            if session.announces.is_some() {
                text.push_str("  announce add-path send all\n");
            }
        }
        let _ = writeln!(text, "  announce restart {}", if session.graceful_restart { "yes" } else { "no" });
        text.push_str("}\n");
    }
    text.push_str("allow from any\n");
    if announces {
        for (_, prefix) in announced(restarted) {
            let _ = writeln!(text, "allow to any prefix {prefix}");
        }
    }
    text
}

impl<'a> Openbgpd<'a> {
    pub(super) fn start(lab: &'a Lab, host: &str, sessions: &[Session]) -> anyhow::Result<Self> {
        let socket = lab.path().join(format!("openbgpd-{host}.sock")).to_string_lossy().into_owned();
        // Where it locks itself in: systemd would have made it.
        lab.script("mkdir -p /run/openbgpd")?;
        let process = Self::run(lab, host, &configuration(sessions, &socket, false), &socket)?;
        Ok(Self { lab, host: host.to_owned(), sessions: sessions.to_vec(), socket, processes: [process] })
    }

    fn run(lab: &Lab, host: &str, configuration: &str, socket: &str) -> anyhow::Result<Process> {
        let file = lab.write(&format!("openbgpd-{host}.conf"), configuration)?;
        let file = file.to_string_lossy();
        lab.script(&format!("chmod 600 {file}"))?;
        // FRR's program has the same name.
        let process = lab.spawn(&format!("openbgpd-{host}"), host, &["/usr/sbin/bgpd", "-d", "-f", &file])?;
        await_answer(&process, || lab.run(host, &["bgpctl", "-s", socket, "show", "summary"]))?;
        Ok(process)
    }

    fn ask(&self, command: &str) -> anyhow::Result<String> {
        let mut all = vec!["bgpctl", "-s", &self.socket];
        all.extend(command.split(' '));
        self.lab.run(&self.host, &all)
    }
}

impl Router for Openbgpd<'_> {
    fn processes(&self) -> &[Process] {
        &self.processes
    }

    fn established(&self, session: &Session) -> anyhow::Result<bool> {
        Ok(self.ask(&format!("show neighbor {}", session.remote))?.contains("BGP state = Established"))
    }

    fn paths(&self, session: &Session, address: IpAddr) -> anyhow::Result<Vec<Path>> {
        let answer = self.ask(&format!("show rib detail in neighbor {}", session.remote))?;
        let prefix = format!("BGP routing table entry for {}", host_prefix(address));
        let mut paths = Vec::new();
        let (mut block, mut ours) = (String::new(), false);
        for line in answer.lines().chain(["BGP routing table entry for nothing"]) {
            if line.starts_with("BGP routing table entry for") {
                if ours {
                    let hop = block.split_once("Nexthop ").map(|(_, rest)| rest);
                    if let Some(next_hop) =
                        hop.and_then(|hop| hop.split_whitespace().next()).and_then(|hop| hop.parse().ok())
                    {
                        paths.push(Path { next_hop, text: block.clone() });
                    }
                }
                block.clear();
                ours = line.trim_end() == prefix;
            }
            block.push_str(line);
            block.push('\n');
        }
        Ok(paths)
    }

    fn refresh(&self, session: &Session) -> anyhow::Result<()> {
        self.ask(&format!("neighbor {} refresh", session.remote)).map(|_| ())
    }

    fn requests(&self, session: &Session) -> anyhow::Result<u64> {
        // Sent and received, in the statistics of ROUTE-REFRESH.
        let answer = self.ask(&format!("show neighbor {}", session.remote))?;
        let line = answer.lines().find(|line| line.trim_start().starts_with("Request "));
        Ok(line.and_then(|line| line.split_whitespace().nth(2)).context("no count of requests")?.parse()?)
    }

    fn bfd_up(&self, _: &Session) -> anyhow::Result<bool> {
        bail!("OpenBGPD has no BFD")
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        self.processes = [Self::run(
            self.lab,
            &self.host,
            &configuration(&self.sessions, &self.socket, true),
            &self.socket,
        )?];
        Ok(())
    }
}
