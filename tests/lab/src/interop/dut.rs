//! Our side: one `openelbd standalone`, one BgpPeer for each cell.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{Cell, DUT, OUR_AS, PASSWORD};
use crate::{
    Lab, Process, binary, eventually,
    routers::{Session, gobgp},
};

pub(super) struct Dut<'a> {
    lab: &'a Lab,
    openelbd: PathBuf,
    process: Process,
}

/// A route that the router has sent us, as our interface for `gobgp` tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) next_hop: String,
    /// Kept while the router restarts.
    pub(super) stale: bool,
    /// Of RFC 1997: AS number and value.
    pub(super) communities: Vec<[u64; 2]>,
    /// Of RFC 8092.
    pub(super) large: Vec<[u64; 3]>,
    /// Of RFC 4360, `AS:VALUE` of those that are route targets.
    pub(super) targets: Vec<String>,
}

impl Received {
    fn new(path: &Value) -> Self {
        let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
        let attributes = list(path.get("attrs"));
        let of = |kind: u64, name: &str| {
            let wanted = attributes.iter().find(|one| one.get("type").and_then(Value::as_u64) == Some(kind));
            list(wanted.and_then(|one| one.get(name)))
        };
        let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_u64).unwrap_or_default();
        let target = |value: &&Value| number(value, "subtype") == 2;
        let text = |value: &Value| Some(value.get("value")?.as_str()?.to_owned());
        Self {
            next_hop: attributes
                .iter()
                .find_map(|one| one.get("nexthop")?.as_str())
                .unwrap_or_default()
                .to_owned(),
            stale: path.get("stale").and_then(Value::as_bool).unwrap_or(false),
            communities: of(8, "communities")
                .iter()
                .filter_map(Value::as_u64)
                .map(|both| [both >> 16, both & 0xffff])
                .collect(),
            large: of(32, "value")
                .iter()
                .map(|value| ["ASN", "LocalData1", "LocalData2"].map(|name| number(value, name)))
                .collect(),
            targets: of(16, "value").iter().filter(target).filter_map(text).collect(),
        }
    }
}

const OBJECTS: &str = r#"apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata:
  name: web
  annotations: {eip.openelb.kubesphere.io/is-default-eip: "true"}
spec:
  address: 198.51.100.10-198.51.100.19, fd00:5b::10-fd00:5b::19
  protocol: bgp
---
apiVersion: v1
kind: Node
metadata: {name: dut}
status:
  addresses: [{type: InternalIP, address: "fd00:9:1::1"}]
---
apiVersion: v1
kind: Node
metadata: {name: other}
status:
  addresses: [{type: InternalIP, address: 10.9.8.3}, {type: InternalIP, address: "fd00:9:8::3"}]
---
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: default
  annotations: {lb.kubesphere.io/v1alpha1: openelb}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  ports: [{port: 80}]
---
"#;

impl<'a> Dut<'a> {
    pub(super) fn start(lab: &'a Lab, cells: &[Cell]) -> anyhow::Result<Self> {
        let mut text = OBJECTS.to_owned();
        text.push_str(&format!(
            "apiVersion: network.kubesphere.io/v1alpha2\nkind: BgpConf\nmetadata: {{name: default}}\nspec: {{as: {OUR_AS}, \
             listenPort: 179, routerId: 192.0.2.100}}\n---\napiVersion: v1\nkind: Secret\nmetadata: {{name: lab, namespace: \
             openelb-system}}\nstringData: {{md5: {PASSWORD}}}\n---\n"
        ));
        for cell in cells {
            text.push_str(&cell.manifest());
        }
        lab.write("manifests/all.yaml", &text)?;
        let openelbd = binary("openelbd")?;
        let process = Self::run(lab, &openelbd)?;
        let dut = Self { lab, openelbd, process };
        eventually("a DUT that listens", Duration::from_secs(30), || dut.metrics().map(Some))?;
        Ok(dut)
    }

    fn run(lab: &Lab, openelbd: &std::path::Path) -> anyhow::Result<Process> {
        let at = |name: &str| lab.path().join(name).to_string_lossy().into_owned();
        lab.spawn(
            "openelbd",
            DUT,
            &[
                &openelbd.to_string_lossy(),
                "standalone",
                "--manifests",
                &at("manifests"),
                "--state",
                &at("state"),
                "--node-name",
                "dut",
                "--api-writable",
            ],
        )
    }

    pub(super) fn kill(&self) -> anyhow::Result<()> {
        self.lab.signal(&self.process, "KILL")?;
        self.lab.wait_exit(&self.process, Duration::from_secs(10)).map(|_| ())
    }

    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        self.process = Self::run(self.lab, &self.openelbd)?;
        Ok(())
    }

    /// The sum of the samples of a metric whose labels contain all of these.
    pub(super) fn metric(&self, name: &str, labels: &[&str]) -> anyhow::Result<f64> {
        let (text, _) =
            eventually("an answer of /metrics", Duration::from_secs(30), || self.metrics().map(Some))?;
        let samples = text.lines().filter(|line| line.starts_with(name));
        let ours = samples.filter(|line| labels.iter().all(|label| line.contains(label)));
        Ok(ours.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// What `gobgp neighbor ROUTER ...` prints of our side.
    pub(super) fn gobgp(&self, session: &Session, command: &[&str]) -> anyhow::Result<String> {
        let router = session.local.to_string();
        let mut all = vec!["neighbor", &router];
        all.extend(command);
        gobgp::ask(self.lab, DUT, &all)
    }

    /// The paths of a prefix that came over a session, or are kept of one that has ended.
    pub(super) fn received(&self, session: &Session, prefix: &str) -> anyhow::Result<Vec<Received>> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let text = match self.gobgp(session, &["adj-in", "-a", family, "-j"]) {
            // Of a session that is down, and of which nothing is kept.
            Err(error) if error.to_string().contains("not established") => return Ok(Vec::new()),
            answer => answer?,
        };
        // `Network not in table`, where there is none at all.
        let table: Value = serde_json::from_str(text.trim()).unwrap_or_default();
        let paths = table.get(prefix).and_then(Value::as_array).into_iter().flatten();
        Ok(paths.map(Received::new).collect())
    }

    fn metrics(&self) -> anyhow::Result<String> {
        self.lab.within(DUT, || {
            let mut stream = TcpStream::connect("127.0.0.1:50053").context("no metrics")?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            ensure!(text.starts_with("HTTP/1.1 200"), "{}", text.lines().next().unwrap_or_default());
            Ok(text)
        })?
    }
}
