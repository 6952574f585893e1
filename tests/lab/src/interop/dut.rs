//! Our side: one `openelbd standalone`, one BgpPeer for each cell.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, ensure};

use super::{Cell, DUT, OUR_AS, PASSWORD};
use crate::{Lab, Process, binary, eventually};

pub(super) struct Dut<'a> {
    lab: &'a Lab,
    openelbd: PathBuf,
    process: Process,
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
            eventually("an answer of /metrics", Duration::from_secs(5), || self.metrics().map(Some))?;
        let samples = text.lines().filter(|line| line.starts_with(name));
        let ours = samples.filter(|line| labels.iter().all(|label| line.contains(label)));
        Ok(ours.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
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
