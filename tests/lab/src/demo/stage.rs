//! What the steps work with: the lab, the manifests, the state, and what users would look at.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::Options;
use crate::{
    Lab,
    bird::kernel_next_hops,
    client::{Client, Figures, Plan},
    eventually,
    kube::ControlPlane,
    topology::{CLIENT, ROUTER},
};

/// Everything that a step may use.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    pub(super) lab: &'a Lab,
    pub(super) openelbd: PathBuf,
    pub(super) manifests: PathBuf,
    pub(super) state: PathBuf,
    /// The cluster, if there is one: objects are its, not the state directory's.
    pub(super) kube: Option<&'a ControlPlane>,
}

impl<'a> Stage<'a> {
    /// Copies the manifests into the lab.
    pub(super) fn new(
        lab: &'a Lab,
        kube: Option<&'a ControlPlane>,
        options: &Options,
    ) -> anyhow::Result<Self> {
        let stage = Self {
            lab,
            openelbd: options.openelbd.clone(),
            manifests: lab.path().join("manifests"),
            state: lab.path().join("state"),
            kube,
        };
        fs::create_dir_all(&stage.manifests)?;
        let files = fs::read_dir(&options.manifests)
            .with_context(|| format!("there are no manifests in {}", options.manifests.display()))?;
        for file in files {
            let file = file?;
            fs::copy(file.path(), stage.manifests.join(file.file_name()))?;
        }
        Ok(stage)
    }

    /// Adds objects to those in force: as a new manifest, or in the cluster.
    pub(super) fn apply(&self, name: &str, documents: &str) -> anyhow::Result<()> {
        match self.kube {
            Some(kube) => kube.apply(documents).map(drop),
            None => self.write_manifest(name, documents),
        }
    }

    /// Writes a manifest, as an editor does: all at once.
    pub(super) fn write_manifest(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let new = self.lab.write(&format!("new-{name}"), text)?;
        fs::rename(new, self.manifests.join(name)).with_context(|| format!("cannot write {name}"))
    }

    pub(super) fn edit_manifest(&self, name: &str, from: &str, to: &str) -> anyhow::Result<()> {
        let text = fs::read_to_string(self.manifests.join(name))?;
        ensure!(text.contains(from), "{name} does not contain {from:?}");
        self.write_manifest(name, &text.replace(from, to))
    }

    pub(super) fn delete_manifest(&self, name: &str) -> anyhow::Result<()> {
        fs::remove_file(self.manifests.join(name)).with_context(|| format!("cannot delete {name}"))
    }

    /// An object of the cluster, or of the state directory, which has it as an API server would return it. Those of no
    /// namespace are in `_`.
    pub(super) fn object(&self, plural: &str, namespace: &str, name: &str) -> anyhow::Result<Value> {
        if let Some(kube) = self.kube {
            return kube.get(plural, namespace.trim_start_matches('_'), name);
        }
        let path = self.state.join(plural).join(namespace).join(format!("{name}.yaml"));
        let text =
            fs::read_to_string(&path).with_context(|| format!("there is no {plural} {name} in the state"))?;
        serde_saphyr::from_str(&text).with_context(|| format!("{} is no YAML", path.display()))
    }

    /// The addresses in a Service's status, in order.
    pub(super) fn addresses(&self, namespace: &str, name: &str) -> anyhow::Result<Vec<IpAddr>> {
        let service = self.object("services", namespace, name)?;
        let ingress = service.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
        ingress
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.get("ip").and_then(Value::as_str))
            .map(|ip| ip.parse().with_context(|| format!("{ip} is no address")))
            .collect()
    }

    /// A condition of an object: its status, reason and message.
    pub(super) fn condition(object: &Value, kind: &str) -> Option<(String, String, String)> {
        let conditions = object.pointer("/status/conditions").and_then(Value::as_array)?;
        let condition = conditions.iter().find(|c| c.get("type").and_then(Value::as_str) == Some(kind))?;
        let text = |field: &str| condition.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some((text("status"), text("reason"), text("message")))
    }

    /// Waits until a Service has this many addresses.
    pub(super) fn await_addresses(
        &self,
        namespace: &str,
        name: &str,
        count: usize,
    ) -> anyhow::Result<(Vec<IpAddr>, Duration)> {
        let what = format!("an address for {namespace}/{name}");
        eventually(&what, Duration::from_secs(60), || {
            let addresses = self.addresses(namespace, name)?;
            Ok((addresses.len() == count).then_some(addresses))
        })
    }

    /// Waits until the router's kernel has exactly these next hops for an address.
    pub(super) fn await_route(
        &self,
        address: IpAddr,
        hops: &[IpAddr],
        deadline: Duration,
    ) -> anyhow::Result<Duration> {
        let mut wanted = hops.to_vec();
        wanted.sort_unstable();
        let mut seen = Vec::new();
        let result = eventually(&format!("the route of {address} over {wanted:?}"), deadline, || {
            seen = kernel_next_hops(self.lab, ROUTER, address)?;
            Ok((seen == wanted).then_some(()))
        });
        result.map(|((), took)| took).with_context(|| format!("the router has {seen:?}"))
    }

    /// Starts a client.
    pub(super) fn client(
        &self,
        name: &str,
        address: IpAddr,
        port: u16,
        plan: Plan,
    ) -> anyhow::Result<Client<'a>> {
        Client::start(self.lab, name, CLIENT, SocketAddr::new(address, port), plan)
    }

    /// Sends requests one after the other, and says who answered.
    pub(super) fn requests(
        &self,
        name: &str,
        address: IpAddr,
        port: u16,
        count: usize,
    ) -> anyhow::Result<Figures> {
        let plan = Plan { count, interval: Duration::ZERO, timeout: Duration::from_secs(2) };
        self.client(name, address, port, plan)?.finish(Duration::from_secs(60))
    }

    /// Waits until an address answers.
    pub(super) fn await_answer(&self, address: IpAddr, port: u16) -> anyhow::Result<Duration> {
        let what = format!("an answer from {}", SocketAddr::new(address, port));
        eventually(&what, Duration::from_secs(60), || {
            let plan = Plan { count: 1, interval: Duration::ZERO, timeout: Duration::from_millis(500) };
            let seen = self.client("probe", address, port, plan)?.finish(Duration::from_secs(5))?;
            Ok((seen.failed == 0).then_some(()))
        })
        .map(|((), took)| took)
    }

    /// All that the nodes have logged.
    pub(super) fn logs(&self) -> String {
        let nodes = self.lab.processes().into_iter().filter(|process| process.name.starts_with("openel"));
        nodes.map(|process| fs::read_to_string(process.log).unwrap_or_default()).collect()
    }

    fn enter(&self, host: &str) -> String {
        format!("nsenter -t {} -n -m -p ip netns exec {host}", self.lab.init_pid())
    }

    pub(super) fn print_where_to_look(&self) {
        println!("\nThe ends of the logs:");
        for process in self.lab.processes() {
            println!("--- {}\n{}", process.name, Lab::log_tail(&process, 8));
        }
    }

    /// Waits for the user, with everything running.
    pub(super) fn keep(&self) -> anyhow::Result<()> {
        let control = self.lab.path().join("bird-router.ctl");
        println!("\nEverything is still running. Look at it from another shell, as root:");
        println!("  router's routes   {} birdc -s {} show route all", self.enter(ROUTER), control.display());
        println!("  kernel's routes   {} ip route", self.enter(ROUTER));
        println!("  a client          {} curl http://198.51.100.10/", self.enter(CLIENT));
        match self.kube {
            Some(kube) => {
                let (program, file) = (show(&kube.program), show(kube.kubeconfig()));
                let kubectl = format!("{program} kubectl --kubeconfig {file}");
                println!("  the cluster       {} {kubectl} get eips,services", self.enter(kube.host()));
            }
            None => {
                println!("  a node's metrics  {} curl http://127.0.0.1:50053/metrics", self.enter("node-1"));
                println!(
                    "  what it knows     {} curl http://127.0.0.1:50054/api/v1/services",
                    self.enter("node-1")
                );
                println!("  manifests         {} (edit them)", show(&self.manifests));
                println!("  state             {}", show(&self.state));
            }
        }
        println!("  logs              {}", show(&self.lab.path().join("logs")));
        println!("Press Enter (or Ctrl-C) to end it; nothing is left behind.");
        let mut line = String::new();
        if std::io::stdin().read_line(&mut line)? == 0 {
            // No terminal: stay until a signal.
            loop {
                std::thread::park();
            }
        }
        Ok(())
    }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}
