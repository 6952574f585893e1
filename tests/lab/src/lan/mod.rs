//! A LAN without a router: a client and nodes on one switch, and pods behind the nodes.
//!
//! ```text
//!  client ══ fabric (switch) ══ node-1 … node-n ══ podnet ══ pod-1, pod-2, pod-3
//!                               openelbd standalone, DNAT to the pods
//! ```
//!
//! The client asks by ARP and NDP for every address ([`Capture`]), and sends datagrams to it ([`Traffic`]), both every
//! 10 ms unless the [`Plan`] says otherwise; what each host emits is captured at its port of the switch, with the kernel's
//! time stamps: so for every answer it is known which node gave it, with which MAC address, and to which request. Pods are
//! reached over a second switch: a node that is cut off keeps them.

mod capture;
mod faults;
pub mod figures;
mod socket;
mod streams;
mod traffic;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use openelb_l2::MacAddr;

pub use capture::{Answer, Asked, Capture, Claimed, Double};
pub use streams::Streams;
pub use traffic::Traffic;

use crate::{Lab, Network, Process, binary, eventually};

/// The host that asks.
pub const CLIENT: &str = "client";
/// The switch that all are plugged into.
pub const FABRIC: &str = "fabric";
/// Pods that serve.
const PODS: u8 = 3;
/// The port of the Services.
const PORT: u16 = 80;
/// Starts of a node, and what it needs to be reached.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between two questions, and between two datagrams, unless the plan says otherwise.
pub const INTERVAL: Duration = Duration::from_millis(10);

/// How the nodes reach each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gossip {
    /// Over the switch on which the addresses are announced.
    #[default]
    Fabric,
    /// Over the other one: a link that goes down takes nothing of it with it.
    Podnet,
}

/// What a LAN is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Appears in the name of the lab.
    pub name: String,
    /// Nodes, 1 to 20.
    pub nodes: u8,
    /// IPv4 addresses that are announced, at most 100.
    pub v4: u8,
    /// IPv6 addresses that are announced, at most 100.
    pub v6: u8,
    /// Lines of `spec` of the Layer2Conf, as YAML in braces.
    pub conf: String,
    /// Where the nodes gossip.
    pub gossip: Gossip,
    /// Flags of every `openelbd standalone`.
    pub flags: Vec<String>,
    /// `externalTrafficPolicy` of the Services.
    pub local: bool,
    /// How often every address is asked for, and how often a datagram goes to it.
    pub interval: Duration,
}

impl Plan {
    /// Three nodes, two addresses of each family, all defaults.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            nodes: 3,
            v4: 2,
            v6: 2,
            conf: "{}".to_owned(),
            gossip: Gossip::Fabric,
            flags: Vec::new(),
            local: false,
            interval: INTERVAL,
        }
    }

    /// With this Layer2Conf.
    #[must_use]
    pub fn conf(mut self, conf: &str) -> Self {
        conf.clone_into(&mut self.conf);
        self
    }

    /// With these flags of `openelbd standalone`, separated by blanks.
    #[must_use]
    pub fn flags(mut self, flags: &str) -> Self {
        self.flags.extend(flags.split_whitespace().map(str::to_owned));
        self
    }
}

/// A LAN that runs.
#[derive(Debug)]
pub struct Lan {
    /// The lab.
    pub lab: Lab,
    /// What it is made of.
    pub plan: Plan,
    /// The addresses of the Services.
    pub addresses: Vec<IpAddr>,
    /// What is on the wire.
    pub capture: Capture,
    openelbd: PathBuf,
    manifests: PathBuf,
    state: PathBuf,
    processes: BTreeMap<u8, Process>,
    macs: BTreeMap<u8, MacAddr>,
    /// Nodes that are cordoned, and those with the exclude label.
    cordoned: Vec<u8>,
    excluded: Vec<u8>,
    /// Nodes with an endpoint.
    endpoints: Vec<u8>,
}

/// The name of a node's host, and of its Node object.
pub fn node(number: u8) -> String {
    format!("node-{number}")
}

/// A node's address on the fabric.
pub fn node_v4(number: u8) -> IpAddr {
    Ipv4Addr::new(192, 168, 50, 10 + number).into()
}

fn v4(number: u8) -> IpAddr {
    Ipv4Addr::new(192, 168, 50, 128 + number).into()
}

fn v6(number: u8) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0x50, 0, 0, 0, 0, 0x80, u16::from(number)).into()
}

fn build(network: &mut Network, nodes: u8) {
    network.host(CLIENT).switch(FABRIC).switch("podnet");
    network.plug(FABRIC, (CLIENT, "eth0", &["192.168.50.2/24", "fd00:50::2/64"]));
    for n in 1..=nodes {
        let node = node(n);
        network.router(&node);
        let (a, b) = (format!("192.168.50.{}/24", 10 + n), format!("fd00:50::{:x}/64", 0x10 + n));
        network.plug(FABRIC, (&node, "fab0", &[&a, &b]));
        let (a, b) = (format!("172.30.0.{}/24", 10 + n), format!("fd00:30::{:x}/64", 0x10 + n));
        network.plug("podnet", (&node, "pods0", &[&a, &b]));
    }
    for n in 1..=PODS {
        let pod = format!("pod-{n}");
        let (a, b) = (format!("172.30.0.{}/24", 100 + n), format!("fd00:30::{:x}/64", 0x100 + u16::from(n)));
        network.host(&pod);
        network.plug("podnet", (&pod, "eth0", &[&a, &b]));
    }
}

impl Lan {
    /// Makes it, and starts a speaker on every node; ready when every address is answered.
    ///
    /// # Errors
    /// The lab cannot be made, or an address is not answered in time.
    pub fn start(plan: Plan) -> anyhow::Result<Self> {
        let mut lan = Self::build(plan)?;
        for n in lan.nodes() {
            lan.start_node(n, &[])?;
        }
        lan.await_all_answered()?;
        Ok(lan)
    }

    /// Makes it without any speaker.
    ///
    /// # Errors
    /// The lab cannot be made.
    pub fn build(plan: Plan) -> anyhow::Result<Self> {
        let lab = Lab::start(&plan.name)?;
        lab.network(|network| build(network, plan.nodes))?;
        let addresses: Vec<IpAddr> = (0..plan.v4).map(v4).chain((0..plan.v6).map(v6)).collect();
        let helper = binary("openelb-lab")?;
        for n in 1..=PODS {
            let pod = format!("pod-{n}");
            // What measures must not wait for what compiles beside it.
            let command = ["nice", "-n", "-5", &helper.to_string_lossy(), "pod", &pod, "[::]:8080"];
            lab.spawn(&pod, &pod, &command)?;
        }
        let mut macs = BTreeMap::new();
        for n in 1..=plan.nodes {
            let text = lab.run(&node(n), &["cat", "/sys/class/net/fab0/address"])?;
            macs.insert(n, text.trim().parse().context("no MAC address")?);
        }
        let capture = Capture::start(&lab, &plan, &addresses)?;
        let manifests = lab.path().join("manifests");
        fs::create_dir(&manifests)?;
        let state = lab.path().join("state");
        let lan = Self {
            openelbd: binary("openelbd")?,
            endpoints: (1..=plan.nodes).collect(),
            cordoned: Vec::new(),
            excluded: Vec::new(),
            processes: BTreeMap::new(),
            lab,
            plan,
            addresses,
            capture,
            manifests,
            state,
            macs,
        };
        lan.program_nodes()?;
        lan.write_manifests()?;
        Ok(lan)
    }

    /// The numbers of the nodes.
    pub fn nodes(&self) -> Vec<u8> {
        (1..=self.plan.nodes).collect()
    }

    /// Which node has this MAC address.
    pub fn node_with(&self, mac: MacAddr) -> Option<u8> {
        self.macs.iter().find(|(_, of)| **of == mac).map(|(n, _)| *n)
    }

    /// A node's MAC address on the fabric.
    pub fn mac(&self, number: u8) -> MacAddr {
        self.macs.get(&number).copied().unwrap_or_default()
    }

    /// Starts the speaker of a node.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_node(&mut self, number: u8, flags: &[&str]) -> anyhow::Result<()> {
        let name = node(number);
        let (openelbd, manifests, state) =
            (self.openelbd.to_string_lossy(), self.manifests.to_string_lossy(), self.state.to_string_lossy());
        let mut command =
            vec!["nice", "-n", "-5", &openelbd, "standalone", "--manifests", &manifests, "--state", &state];
        command.extend(["--node-name", &name]);
        command.extend(self.plan.flags.iter().map(String::as_str));
        command.extend(flags);
        let process = self.lab.spawn(&format!("openelbd-{name}"), &name, &command)?;
        self.processes.insert(number, process);
        Ok(())
    }

    /// The speaker of a node.
    ///
    /// # Errors
    /// None was started.
    pub fn process(&self, number: u8) -> anyhow::Result<&Process> {
        self.processes.get(&number).with_context(|| format!("no speaker was started on node-{number}"))
    }

    /// Sends a signal to a node's speaker.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, number: u8, signal: &str) -> anyhow::Result<()> {
        self.lab.signal(self.process(number)?, signal)
    }

    /// Waits until a node's speaker has ended.
    ///
    /// # Errors
    /// It runs on.
    pub fn await_exit(&self, number: u8) -> anyhow::Result<()> {
        self.lab.wait_exit(self.process(number)?, DEADLINE).map(drop)
    }

    /// Waits until a node's speaker says that it is ready.
    ///
    /// # Errors
    /// It is not in time.
    pub fn await_ready(&self, number: u8) -> anyhow::Result<()> {
        let process = self.process(number)?;
        eventually(&format!("a ready speaker on node-{number}"), DEADLINE, || {
            let (status, body) = self.ask(number, 50053, "/readyz")?;
            anyhow::ensure!(status == 200, "{status} {body}");
            Ok(Some(()))
        })
        .with_context(|| Lab::log_tail(process, 10))?;
        Ok(())
    }

    /// Asks a node's speaker by HTTP.
    ///
    /// # Errors
    /// No answer.
    pub fn ask(&self, number: u8, port: u16, path: &str) -> anyhow::Result<(u16, String)> {
        crate::client::get(&self.lab, &node(number), (Ipv4Addr::LOCALHOST, port).into(), path)
    }

    /// A list of a node's read API.
    ///
    /// # Errors
    /// No answer, or none that is JSON.
    pub fn read_api(&self, number: u8, list: &str) -> anyhow::Result<serde_json::Value> {
        let (status, body) = self.ask(number, 50054, &format!("/api/v1/{list}"))?;
        anyhow::ensure!(status == 200, "{status} {body}");
        Ok(serde_json::from_str(&body)?)
    }

    /// A node's figures, as Prometheus reads them: the value of the line that begins like this.
    ///
    /// # Errors
    /// No answer, or no such line.
    pub fn metric(&self, number: u8, line: &str) -> anyhow::Result<f64> {
        let (_, body) = self.ask(number, 50053, "/metrics")?;
        let value = body.lines().find_map(|one| one.strip_prefix(line)?.split(' ').next_back()?.parse().ok());
        value.with_context(|| format!("no metric {line}"))
    }

    /// Waits until every address is answered, by one node each, for 300 ms.
    ///
    /// # Errors
    /// One is not in time.
    pub fn await_all_answered(&self) -> anyhow::Result<()> {
        let result = eventually("an answer for every address", DEADLINE, || {
            let since = capture::now().saturating_sub(400_000_000);
            for address in &self.addresses {
                let seen = self.capture.outage_since(*address, since);
                anyhow::ensure!(seen < 2 * self.plan.interval, "{address}: {seen:?} without an answer");
            }
            Ok(Some(()))
        });
        result.map(drop).with_context(|| self.logs())
    }

    /// Which node answers for each address, and which addresses each node answers for, as far as anybody answers.
    pub fn owners(&self) -> BTreeMap<u8, Vec<IpAddr>> {
        let mut owners: BTreeMap<u8, Vec<IpAddr>> = BTreeMap::new();
        for address in &self.addresses {
            if let Ok(owner) = self.owner(*address) {
                owners.entry(owner).or_default().push(*address);
            }
        }
        owners
    }

    /// Waits until every address is answered by a node other than these, and says which answers for which.
    ///
    /// # Errors
    /// One is not in time.
    pub fn await_owners_without(&self, gone: &[u8]) -> anyhow::Result<BTreeMap<u8, Vec<IpAddr>>> {
        let result = eventually("an owner for every address", DEADLINE, || {
            let owners = self.owners();
            let count: usize = owners.values().map(Vec::len).sum();
            anyhow::ensure!(count == self.addresses.len(), "{count} are answered");
            Ok((!gone.iter().any(|gone| owners.contains_key(gone))).then_some(owners))
        });
        result.map(|(owners, _)| owners).with_context(|| self.logs())
    }

    /// The node that answers for most addresses.
    ///
    /// # Errors
    /// Nobody answers for one of them.
    pub fn main_owner(&self) -> anyhow::Result<u8> {
        let owners = self.await_owners_without(&[])?;
        owners.iter().max_by_key(|(_, all)| all.len()).map(|(n, _)| *n).context("nobody answers")
    }

    /// Nanoseconds since the epoch, as what is captured has them.
    pub fn now(&self) -> u64 {
        capture::now()
    }

    /// The longest time without an answer for any of the addresses since then, and for a client that has asked before.
    pub fn outages_since(&self, traffic: &Traffic, since: u64) -> (Duration, Duration) {
        let new = self.addresses.iter().map(|address| self.capture.outage_since(*address, since)).max();
        let old = self.addresses.iter().map(|address| traffic.outage_since(*address, since)).max();
        (new.unwrap_or_default(), old.unwrap_or_default())
    }

    /// Says which questions since then were answered by two, or by somebody else than who claimed last; and which address
    /// was answered by two in turns, whoever claimed.
    ///
    /// # Errors
    /// There are some.
    pub fn check_one_owner_since(&self, since: u64) -> anyhow::Result<()> {
        let all = self.addresses.iter().flat_map(|address| self.capture.doubles_since(*address, since));
        let all: Vec<Double> = all.collect();
        let Some(first) = all.first() else { return self.check_turns_since(since) };
        let claims: Vec<_> = self.capture.claimed_since(first.address, since.saturating_sub(5_000_000_000));
        let mut text = format!("{} questions were answered by the wrong node, for example\n", all.len());
        for double in all.iter().take(5) {
            let answers: Vec<_> = double.answers.iter().map(|a| (&a.from, self.node_with(a.mac))).collect();
            let _ = writeln!(
                text,
                "  {} {:?} after the claim of {:?}: {answers:?}",
                double.address,
                double.after,
                self.node_with(double.claimed)
            );
        }
        for claim in claims {
            let ms = (claim.at as i128 - since as i128) as f64 / 1e6;
            let _ = writeln!(text, "  claim at {ms:.1} ms by {:?}", self.node_with(claim.mac));
        }
        anyhow::bail!("{text}{}", self.logs())
    }

    fn check_turns_since(&self, since: u64) -> anyhow::Result<()> {
        for address in &self.addresses {
            let turns = self.capture.turns_since(*address, since);
            anyhow::ensure!(
                turns <= capture::TURNS,
                "{address} was answered by two in turns for {turns:?}\n{}",
                self.logs()
            );
        }
        Ok(())
    }

    /// Starts to send datagrams, and waits until all come back.
    ///
    /// # Errors
    /// They do not.
    pub fn traffic(&self) -> anyhow::Result<Traffic> {
        let traffic = Traffic::start(self)?;
        self.await_settled(&traffic)?;
        Ok(traffic)
    }

    /// Waits until every address is answered, and all datagrams come back, for 400 ms.
    ///
    /// # Errors
    /// They do not in time.
    pub fn await_settled(&self, traffic: &Traffic) -> anyhow::Result<()> {
        // Of what was asked just now it is not known yet whether it is answered.
        let known = self.now().saturating_add(150_000_000);
        let result = eventually("answers to everything", DEADLINE, || {
            if self.now() < known {
                return Ok(None);
            }
            let (new, old) = self.outages_since(traffic, self.now().saturating_sub(400_000_000));
            let longest = new.max(old);
            anyhow::ensure!(longest < 2 * self.plan.interval, "{new:?} and {old:?} without");
            Ok(Some(()))
        });
        result.map(drop).with_context(|| format!("{:?}\n{}", self.owners(), self.logs()))
    }

    /// Waits until other nodes than this one answer for all addresses.
    ///
    /// # Errors
    /// They do not in time.
    pub fn await_gone(&self, number: u8) -> anyhow::Result<()> {
        let result = eventually(&format!("no address at node-{number}"), DEADLINE, || {
            let owners = self.owners();
            let count: usize = owners.values().map(Vec::len).sum();
            Ok((!owners.contains_key(&number) && count == self.addresses.len()).then_some(()))
        });
        result.map(drop).with_context(|| self.logs())
    }

    /// How many others a node's speaker hears.
    ///
    /// # Errors
    /// No answer.
    pub fn members(&self, number: u8) -> anyhow::Result<usize> {
        let alive = self.metric(number, "openelb_l2_members{state=\"alive\"}")?;
        (0..=64).find(|count| f64::from(*count) == alive).map(|count: u8| count.into()).context("too many")
    }

    /// Waits until a node's speaker hears so many others.
    ///
    /// # Errors
    /// It does not in time.
    pub fn await_member_count(&self, number: u8, count: usize) -> anyhow::Result<()> {
        let what = format!("{count} nodes that node-{number} hears");
        let result = eventually(&what, DEADLINE, || {
            let members = self.members(number)?;
            anyhow::ensure!(members == count, "it hears {members}");
            Ok(Some(()))
        });
        result.map(drop).with_context(|| self.logs())
    }

    /// Waits until all speakers hear each other.
    ///
    /// # Errors
    /// They do not in time.
    pub fn await_members(&self) -> anyhow::Result<()> {
        let others = self.processes.len().saturating_sub(1);
        self.nodes().into_iter().try_for_each(|n| self.await_member_count(n, others))
    }

    /// Lets things go on for a while: the time in which something must not happen.
    pub fn watch_for(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// The ends of the speakers' logs.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for process in self.processes.values() {
            let _ = writeln!(text, "{}:\n{}", process.name, Lab::log_tail(process, 12));
        }
        text
    }

    /// How many octets there are in each node's log.
    pub fn log_lengths(&self) -> BTreeMap<u8, usize> {
        let length = |process: &Process| fs::read(&process.log).map_or(0, |log| log.len());
        self.processes.iter().map(|(number, process)| (*number, length(process))).collect()
    }

    /// Where nodes other than this one took each other for gone, or stood still themselves, by what came into their logs
    /// after they had been so long: the machine did not let them run.
    pub fn lost_sight(&self, besides: u8, lengths: &BTreeMap<u8, usize>) -> Vec<String> {
        let gone = format!("\\\"{}\\\"", node(besides));
        let others = self.processes.iter().filter(|(number, _)| **number != besides);
        let logs = others.map(|(number, process)| {
            let log = fs::read(&process.log).unwrap_or_default();
            let before = lengths.get(number).copied().unwrap_or(0);
            String::from_utf8_lossy(log.get(before..).unwrap_or_default()).into_owned()
        });
        let told = logs.flat_map(|log| log.lines().map(str::to_owned).collect::<Vec<_>>());
        told.filter(|line| {
            line.contains("Stalled {") || line.contains("SpeakerDown {") && !line.contains(&gone)
        })
        .collect()
    }

    /// Which node answers for an address now.
    ///
    /// # Errors
    /// None does.
    pub fn owner(&self, address: IpAddr) -> anyhow::Result<u8> {
        let mac = self.capture.last_answer(address).context("nobody answers")?.mac;
        self.node_with(mac).with_context(|| format!("{mac} is no node"))
    }

    /// Waits until a node answers for an address.
    ///
    /// # Errors
    /// It does not in time.
    pub fn await_owner(&self, address: IpAddr, owner: u8) -> anyhow::Result<Duration> {
        let what = format!("{address} at node-{owner}");
        let result = eventually(&what, DEADLINE, || Ok((self.owner(address)? == owner).then_some(())));
        result.map(|((), took)| took).with_context(|| self.logs())
    }

    fn program_nodes(&self) -> anyhow::Result<()> {
        let mut rules = String::from("table inet lab {\n");
        for n in 1..=PODS {
            let (a, b) = (100 + n, 0x100 + u16::from(n));
            let _ = writeln!(rules, "  chain endpoint{n} {{");
            for protocol in ["tcp", "udp"] {
                let _ = writeln!(
                    rules,
                    "    meta nfproto ipv4 {protocol} dport 1-65535 dnat ip to 172.30.0.{a}:8080
    meta nfproto ipv6 {protocol} dport 1-65535 dnat ip6 to [fd00:30::{b:x}]:8080"
                );
            }
            rules.push_str("  }\n");
        }
        let goto: Vec<String> = (1..=PODS).map(|n| format!("{} : goto endpoint{n}", n - 1)).collect();
        let goto = format!("numgen random mod {PODS} vmap {{ {} }}", goto.join(", "));
        rules.push_str("  chain prerouting {\n    type nat hook prerouting priority dstnat;\n");
        for protocol in ["tcp", "udp"] {
            let _ = writeln!(rules, "    ip daddr 192.168.50.128/25 {protocol} dport {PORT} {goto}");
            let _ = writeln!(rules, "    ip6 daddr fd00:50::80:0/112 {protocol} dport {PORT} {goto}");
        }
        rules.push_str(
            "  }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    ct status dnat masquerade
  }
  chain forward {
    type filter hook forward priority filter;
    ct status dnat accept
    ip daddr 192.168.50.128/25 reject with icmpx admin-prohibited
    ip6 daddr fd00:50::80:0/112 reject with icmpx admin-prohibited
  }
}
",
        );
        let file = self.lab.write("services.nft", &rules)?;
        for n in self.nodes() {
            self.lab
                .run(&node(n), &["nft", "-f", &file.to_string_lossy()])
                .context("nft refuses the rules")?;
        }
        Ok(())
    }

    /// Cordons and uncordons, sets and removes the exclude label, and moves endpoints: all at once.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_nodes(&mut self, cordoned: &[u8], excluded: &[u8], endpoints: &[u8]) -> anyhow::Result<()> {
        (self.cordoned, self.excluded, self.endpoints) =
            (cordoned.to_vec(), excluded.to_vec(), endpoints.to_vec());
        self.write_manifests()
    }

    /// Replaces the spec of the Layer2Conf.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_conf(&mut self, conf: &str) -> anyhow::Result<()> {
        conf.clone_into(&mut self.plan.conf);
        self.write_manifests()
    }

    fn write_manifests(&self) -> anyhow::Result<()> {
        let mut text = format!(
            "apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {{name: lan}}
spec: {{address: '192.168.50.128/25,fd00:50::80:0/112', protocol: layer2, interface: fab0}}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: Layer2Conf
metadata: {{name: default}}
spec: {}
",
            self.plan.conf
        );
        for n in self.nodes() {
            let (a, b) = match self.plan.gossip {
                Gossip::Fabric => (format!("192.168.50.{}", 10 + n), format!("fd00:50::{:x}", 0x10 + n)),
                Gossip::Podnet => (format!("172.30.0.{}", 10 + n), format!("fd00:30::{:x}", 0x10 + n)),
            };
            let label = "node.kubernetes.io/exclude-from-external-load-balancers";
            let labels = if self.excluded.contains(&n) { format!("{label}: \"\"") } else { String::new() };
            let _ = write!(
                text,
                "---
apiVersion: v1
kind: Node
metadata: {{name: node-{n}, labels: {{{labels}}}}}
spec: {{unschedulable: {}}}
status:
  addresses: [{{type: InternalIP, address: {a}}}, {{type: InternalIP, address: '{b}'}}]
",
                self.cordoned.contains(&n)
            );
        }
        for (index, address) in self.addresses.iter().enumerate() {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let policy = if self.plan.local { "Local" } else { "Cluster" };
            let _ = write!(
                text,
                "---
apiVersion: v1
kind: Service
metadata:
  name: s{index}
  namespace: default
  annotations: {{lb.kubesphere.io/v1alpha1: openelb, eip.openelb.kubesphere.io/v1alpha2: lan,
    eip.openelb.kubesphere.io/v1alpha1: '{address}'}}
spec:
  type: LoadBalancer
  externalTrafficPolicy: {policy}
  ipFamilies: [{family}]
  ports: [{{port: {PORT}, protocol: TCP, name: t}}, {{port: {PORT}, protocol: UDP, name: u}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: s{index}-1, namespace: default, labels: {{kubernetes.io/service-name: s{index}}}}}
addressType: {family}
ports: [{{port: 8080, protocol: TCP, name: t}}, {{port: 8080, protocol: UDP, name: u}}]
endpoints:
"
            );
            for n in &self.endpoints {
                let pod =
                    if address.is_ipv4() { format!("10.244.{n}.10") } else { format!("fd00:244:{n}::10") };
                let _ = writeln!(
                    text,
                    "- {{addresses: ['{pod}'], nodeName: node-{n}, conditions: {{ready: true, serving: true}}}}"
                );
            }
        }
        // As an editor does it: never half a file.
        let new = self.lab.path().join("all.new");
        fs::write(&new, text)?;
        fs::rename(new, self.manifests.join("all.yaml")).context("cannot write the manifests")
    }
}
