use std::{fmt::Write as _, net::IpAddr};

use anyhow::bail;

use super::{Path, Router, Session, await_answer, host_prefix};
use crate::{Lab, Process};

/// OpenBGPD, asked with `bgpctl`.
pub(super) struct Openbgpd<'a> {
    lab: &'a Lab,
    host: String,
    file: String,
    socket: String,
    processes: [Process; 1],
}

fn configuration(sessions: &[Session], socket: &str) -> String {
    let asn = sessions.first().map_or(0, |session| session.asn);
    let mut text =
        format!("AS {asn}\nrouter-id 192.0.2.200\nfib-update no\nconnect-retry 1\nsocket \"{socket}\"\n");
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
        }
        let _ = writeln!(text, "  announce restart {}", if session.graceful_restart { "yes" } else { "no" });
        text.push_str("}\n");
    }
    text.push_str("allow from any\n");
    text
}

impl<'a> Openbgpd<'a> {
    pub(super) fn start(lab: &'a Lab, host: &str, sessions: &[Session]) -> anyhow::Result<Self> {
        let socket = lab.path().join(format!("openbgpd-{host}.sock")).to_string_lossy().into_owned();
        let file = lab.write(&format!("openbgpd-{host}.conf"), &configuration(sessions, &socket))?;
        let file = file.to_string_lossy().into_owned();
        // Where it locks itself in: systemd would have made it.
        lab.script(&format!("chmod 600 {file}; mkdir -p /run/openbgpd"))?;
        let processes = [Self::run(lab, host, &file, &socket)?];
        Ok(Self { lab, host: host.to_owned(), file, socket, processes })
    }

    fn run(lab: &Lab, host: &str, file: &str, socket: &str) -> anyhow::Result<Process> {
        // FRR's program has the same name.
        let process = lab.spawn(&format!("openbgpd-{host}"), host, &["/usr/sbin/bgpd", "-d", "-f", file])?;
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

    fn bfd_up(&self, _: &Session) -> anyhow::Result<bool> {
        bail!("OpenBGPD has no BFD")
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        self.processes = [Self::run(self.lab, &self.host, &self.file, &self.socket)?];
        Ok(())
    }
}
