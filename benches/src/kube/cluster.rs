//! The API server of a measurement, and the programs under test.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use openelb_lab::{
    Lab, Process, binary, eventually,
    kube::{CONTROL, ControlPlane, Options, Ready, node_object},
};
use serde_json::Value;

use super::system::System;
use crate::collector::{Arrivals, Collector};

/// The API server's address, and the router's: they share a host.
pub(super) const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
/// The only node.
pub(super) const NODE: &str = "node-1";
const NODE_V4: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 11);
const METRICS: &str = "127.0.0.1:50052";

/// An API server in a lab of its own, and a node.
pub(super) struct Cluster {
    lab: Arc<Lab>,
    kube: ControlPlane,
}

/// A program that runs.
pub(super) struct Running<'a> {
    cluster: &'a Cluster,
    process: Process,
    /// When it was started.
    pub(super) began: Instant,
}

/// `openelbd controller`.
pub(super) struct Controller<'a> {
    running: Running<'a>,
    serving_after: Duration,
}

impl Cluster {
    pub(super) fn start(name: &str, system: System) -> anyhow::Result<Self> {
        let lab = Arc::new(Lab::start(name)?);
        lab.network(|network| {
            network.host(CONTROL).host(NODE);
            let (router, node) = (format!("{ROUTER_V4}/24"), format!("{NODE_V4}/24"));
            network.wire((CONTROL, "eth0", &[&router]), (NODE, "eth0", &[&node]));
        })?;
        let kube = ControlPlane::start(&lab, Options { address: ROUTER_V4.into(), ..Options::api_only() })?;
        let node = node_object(NODE, &[IpAddr::V4(NODE_V4)], &[], Ready::True);
        kube.create_objects(&[node])?;
        let cluster = Self { lab, kube };
        system.install(&cluster)?;
        Ok(cluster)
    }

    pub(super) fn lab(&self) -> &Lab {
        &self.lab
    }

    pub(super) fn kube(&self) -> &ControlPlane {
        &self.kube
    }

    pub(super) fn kubeconfig(&self) -> anyhow::Result<&str> {
        self.kube.kubeconfig().to_str().context("the path of the kubeconfig is not text")
    }

    /// Runs code with a client in the API server's network.
    pub(super) fn run<T: Send, F: Future<Output = anyhow::Result<T>>>(
        &self,
        code: impl FnOnce(Client) -> F + Send,
    ) -> anyhow::Result<T> {
        let kubeconfig = Kubeconfig::read_from(self.kube.kubeconfig())?;
        self.lab.within(self.kube.host(), || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let config =
                    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
                code(Client::try_from(config)?).await
            })
        })?
    }

    /// Processor time of the API server so far.
    pub(super) fn api_processor(&self) -> anyhow::Result<Duration> {
        Ok(openelb_lab::idle::usage(&self.lab, &self.kube.api_server()?)?.1)
    }

    /// Starts the router.
    pub(super) fn start_router(&self) -> anyhow::Result<Arrivals> {
        Ok(self.lab.within(CONTROL, || Collector::listen(ROUTER_V4, 179))??.run())
    }

    pub(super) fn spawn(&self, name: &str, host: &str, arguments: &[&str]) -> anyhow::Result<Running<'_>> {
        let began = Instant::now();
        let process = self.lab.spawn(name, host, arguments)?;
        Ok(Running { cluster: self, process, began })
    }

    pub(super) fn start_controller(&self) -> anyhow::Result<Controller<'_>> {
        let program = binary("openelbd")?;
        let arguments: [&str; 8] = [
            program.to_str().context("the path of openelbd is not text")?,
            "controller",
            "--kubeconfig",
            self.kubeconfig()?,
            "--metrics-addr",
            METRICS,
            "--log-level",
            "warn",
        ];
        let running = self.spawn("controller", self.kube.host(), &arguments)?;
        let mut controller = Controller { running, serving_after: Duration::ZERO };
        eventually("the controller leads and is ready", Duration::from_secs(60), || {
            let ready = controller.get("readyz").is_ok();
            Ok((ready && controller.leads()?).then_some(()))
        })
        .with_context(|| {
            let waits_for = controller.get("readyz?verbose").unwrap_or_else(|error| format!("{error:#}"));
            format!("{waits_for}\n{}", controller.running.log())
        })?;
        controller.serving_after = controller.running.began.elapsed();
        Ok(controller)
    }

    /// Starts `openelbd speaker` on the node, as after its installation: without a checkpoint.
    pub(super) fn start_speaker(&self) -> anyhow::Result<Running<'_>> {
        let program = binary("openelbd")?;
        let arguments = [
            program.to_str().context("the path of openelbd is not text")?,
            "speaker",
            "--node-name",
            NODE,
            "--kubeconfig",
            self.kubeconfig()?,
            "--checkpoint",
            "",
            "--dataplane-health",
            "none",
            "--log-level",
            "warn",
        ];
        self.spawn("speaker", NODE, &arguments)
    }
}

impl Running<'_> {
    /// The end of what it said.
    pub(super) fn log(&self) -> String {
        Lab::log_tail(&self.process, 10)
    }

    pub(super) fn resident(&self) -> anyhow::Result<u64> {
        Ok(openelb_lab::idle::usage(&self.cluster.lab, &self.process)?.0)
    }

    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.cluster.lab.signal(&self.process, "TERM")?;
        self.cluster.lab.wait_exit(&self.process, Duration::from_secs(20))?;
        Ok(())
    }
}

impl Controller<'_> {
    fn get(&self, path: &str) -> anyhow::Result<String> {
        let url = format!("http://{METRICS}/{path}");
        let cluster = self.running.cluster;
        cluster.lab.run(cluster.kube.host(), &["curl", "-fsS", "--max-time", "5", &url])
    }

    fn leads(&self) -> anyhow::Result<bool> {
        let kube = &self.running.cluster.kube;
        let lease = kube.get("leases.coordination.k8s.io", "openelb-system", "openelb-controller");
        Ok(lease.is_ok_and(|lease| {
            let holder = lease.pointer("/spec/holderIdentity").and_then(Value::as_str);
            holder.is_some_and(|holder| !holder.is_empty())
        }))
    }

    /// Writes to the API server so far, but for the Lease and events.
    pub(super) fn writes(&self) -> anyhow::Result<u64> {
        let text = self.get("metrics")?;
        let counted = text.lines().filter(|line| line.starts_with("openelb_store_writes_total{"));
        counted.map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse::<u64>()?)).sum()
    }

    /// The same, once there are no more for a second.
    pub(super) fn writes_at_rest(&self) -> anyhow::Result<u64> {
        let mut last = (self.writes()?, Instant::now());
        let (writes, _) = eventually("a controller at rest", Duration::from_secs(120), || {
            let writes = self.writes()?;
            if writes != last.0 {
                last = (writes, Instant::now());
            }
            Ok((last.1.elapsed() > Duration::from_secs(1)).then_some(writes))
        })?;
        Ok(writes)
    }

    pub(super) fn resident(&self) -> anyhow::Result<u64> {
        self.running.resident()
    }

    /// Processor time so far.
    pub(super) fn processor(&self) -> anyhow::Result<Duration> {
        Ok(openelb_lab::idle::usage(&self.running.cluster.lab, &self.running.process)?.1)
    }

    /// From its start until it said that it is ready.
    pub(super) fn serving_after(&self) -> Duration {
        self.serving_after
    }

    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.running.stop()
    }

    pub(super) fn restart(self) -> anyhow::Result<Self> {
        let cluster = self.running.cluster;
        self.stop()?;
        cluster.start_controller()
    }
}
