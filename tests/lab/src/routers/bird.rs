use std::{fmt::Write as _, net::IpAddr};

use super::{
    ANNOUNCED, COMMUNITY, LARGE_COMMUNITY, MANY, Path, ROUTE_TARGET, Router, Session, announced, host_prefix,
};
use crate::{Lab, Process, bird};

/// BIRD 2, one protocol for each session; what it gets goes into the kernel, too.
pub(super) struct Bird<'a> {
    lab: &'a Lab,
    host: String,
    sessions: Vec<Session>,
    bird: bird::Bird<'a>,
    processes: [Process; 1],
}

/// What is announced, and how: a second path where add-path shows it, many communities where a message has the room.
fn announcements(text: &mut String, restarted: bool) {
    let [asn, value] = COMMUNITY;
    let ([large, one, two], [target, number]) = (LARGE_COMMUNITY, ROUTE_TARGET);
    let tagged = format!(
        "bgp_large_community.add(({large}, {one}, {two})); bgp_ext_community.add((rt, {target}, {number}));"
    );
    for (index, (family, prefix)) in announced(restarted).enumerate() {
        let _ = writeln!(
            text,
            "protocol static announced{index} {{ ipv{family} {{ preference 210; }}; route {prefix} blackhole {{ \
             bgp_community.add(({asn}, {value})); {tagged} }}; }}"
        );
        if ANNOUNCED.contains(&prefix) {
            let _ = writeln!(
                text,
                "protocol static second{index} {{ ipv{family} {{ preference 200; }}; route {prefix} blackhole {{ \
                 bgp_community.add(({asn}, {})); {tagged} }}; }}",
                value + 1
            );
        }
    }
    text.push_str("filter announced_many {\n  if source != RTS_STATIC then reject;\n");
    for value in MANY {
        let _ = writeln!(text, "  bgp_community.add(({asn}, {value}));");
    }
    text.push_str("  accept;\n}\n");
}

fn configuration(sessions: &[Session], restarted: bool) -> String {
    let mut text = String::from(
        "log stderr all;\nrouter id 192.0.2.200;\nprotocol device { scan time 1; }\n\
         protocol kernel { graceful restart on; ipv4 { import none; export all; }; merge paths yes limit 16; }\n\
         protocol kernel { graceful restart on; ipv6 { import none; export all; }; merge paths yes limit 16; }\nprotocol bfd {\n",
    );
    if let Some(bfd) = sessions.iter().find_map(|session| session.bfd) {
        let (interval, multiplier) = (bfd.interval.as_millis(), bfd.multiplier);
        let _ = writeln!(
            text,
            "  interface \"*\" {{ min rx interval {interval} ms; min tx interval {interval} ms; multiplier {multiplier}; }};"
        );
    }
    text.push_str("}\n");
    if sessions.iter().any(|session| session.announces.is_some()) {
        announcements(&mut text, restarted);
    }
    for session in sessions {
        let Session { name, local, asn, remote, remote_asn, hold_time, .. } = session;
        let _ = writeln!(
            text,
            "protocol bgp to_{name} {{\n  local {local} as {asn};\n  neighbor {remote} as {remote_asn};"
        );
        let _ = writeln!(
            text,
            "  strict bind; hold time {hold_time}; connect delay time 1; connect retry time 1; error wait time 1, 2;"
        );
        if let Some(password) = &session.password {
            let _ = writeln!(text, "  password \"{password}\";");
        }
        let switches = [
            (session.ttl_security, "ttl security on;"),
            (session.multihop, "multihop 5;"),
            (!session.multihop, "direct;"),
            (session.extended_messages, "enable extended messages on;"),
            (session.graceful_restart, "graceful restart on;"),
            (!session.graceful_restart, "graceful restart off;"),
            (session.bfd.is_some_and(|bfd| !bfd.graceful), "bfd on;"),
            (session.bfd.is_some_and(|bfd| bfd.graceful), "bfd graceful;"),
        ];
        for (_, line) in switches.iter().filter(|(on, _)| *on) {
            let _ = writeln!(text, "  {line}");
        }
        let add_path = match (session.add_path, session.announces) {
            (false, _) => "",
            (true, None) => " add paths rx;",
            (true, Some(_)) => " add paths on;",
        };
        let export = match (session.announces, session.extended_messages) {
            (None, _) => "export none",
            (Some(_), false) => "export where source = RTS_STATIC",
            (Some(_), true) => "export filter announced_many",
        };
        // Over an IPv4 session it has to be told.
        let next_hop6 = session.announces.filter(|_| session.remote.is_ipv4());
        let next_hop6 = next_hop6.map(|[_, hop]| format!(" next hop address {hop};")).unwrap_or_default();
        let next_hop = if session.extended_next_hop { " extended next hop on;" } else { "" };
        if session.ipv4 {
            let _ = writeln!(text, "  ipv4 {{ import all; {export};{add_path}{next_hop} }};");
        }
        if session.ipv6 {
            let _ = writeln!(text, "  ipv6 {{ import all; {export};{add_path}{next_hop6} }};");
        }
        text.push_str("}\n");
    }
    text
}

impl<'a> Bird<'a> {
    pub(super) fn start(lab: &'a Lab, host: &str, sessions: &[Session]) -> anyhow::Result<Self> {
        let bird = bird::Bird::start(lab, host, &configuration(sessions, false))?;
        let processes = [bird.process.clone()];
        Ok(Self { lab, host: host.to_owned(), sessions: sessions.to_vec(), bird, processes })
    }
}

impl Router for Bird<'_> {
    fn processes(&self) -> &[Process] {
        &self.processes
    }

    fn established(&self, session: &Session) -> anyhow::Result<bool> {
        Ok(self.bird.ask(&format!("show protocols to_{}", session.name))?.contains("Established"))
    }

    fn paths(&self, session: &Session, address: IpAddr) -> anyhow::Result<Vec<Path>> {
        let command = format!("show route for {} all protocol to_{}", host_prefix(address), session.name);
        let text = match self.bird.ask(&command) {
            Err(error) if error.to_string().contains("Network not found") => return Ok(Vec::new()),
            answer => answer?,
        };
        let mut paths: Vec<Path> = Vec::new();
        let mut block = String::new();
        let mut end = |block: &mut String| {
            let hop = block.lines().find_map(|line| line.trim().strip_prefix("BGP.next_hop: "));
            // A global and a link-local one: the first.
            if let Some(next_hop) = hop.and_then(|hop| hop.split(' ').next()).and_then(|hop| hop.parse().ok())
            {
                paths.push(Path { next_hop, text: block.clone() });
            }
            block.clear();
        };
        for line in text.lines() {
            if line.contains(&format!("[to_{} ", session.name)) {
                end(&mut block);
            }
            block.push_str(line);
            block.push('\n');
        }
        end(&mut block);
        Ok(paths)
    }

    fn refresh(&self, session: &Session) -> anyhow::Result<()> {
        self.bird.order(&format!("reload in to_{}", session.name)).map(|_| ())
    }

    fn bfd_up(&self, session: &Session) -> anyhow::Result<bool> {
        let answer = self.bird.ask("show bfd sessions")?;
        Ok(answer.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(&session.remote.to_string()) && words.any(|word| word == "Up")
        }))
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        // -R: it keeps what is in the kernel and tells its neighbours that it has restarted.
        self.bird = bird::Bird::recover(self.lab, &self.host, &configuration(&self.sessions, true))?;
        self.processes = [self.bird.process.clone()];
        Ok(())
    }
}
