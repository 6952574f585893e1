//! etcd, kube-apiserver and kube-controller-manager on a host of a lab.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, ensure};

use super::{cluster::CONTROL, program};
use crate::{Lab, Process, eventually};

/// Where the API server listens.
const PORT: u16 = 6443;
/// How long a control plane may take to be ready on a machine that does other things.
const READY_DEADLINE: Duration = Duration::from_secs(120);
/// The services' addresses; the API server itself is the first of them.
const SERVICE_RANGES: &str = "10.96.0.0/16,fd00:96::/112";

/// Tokens of the users that have no ServiceAccount. The networks in which they mean something end with their lab.
pub(super) const ADMIN: &str = "admin";
const TOKENS: &str = "admin,admin,1,system:masters
manager,system:kube-controller-manager,2,system:masters
proxy,system:kube-proxy,3
nodes,lab-nodes,4,system:masters
";

/// The controllers of the controller manager that a lab needs.
const CONTROLLERS: &str = "endpointslice-controller,namespace-controller,garbage-collector-controller,\
                           serviceaccount-controller,serviceaccount-token-controller,\
                           root-ca-certificate-publisher-controller";

/// What a [`ControlPlane`] is.
#[derive(Clone, Debug)]
pub struct Options {
    /// The host that it runs on.
    pub host: String,
    /// The address at which other hosts reach it; the loopback address: only its own host does.
    pub address: IpAddr,
    /// Whether kube-controller-manager runs: EndpointSlices, namespaces, ServiceAccounts, garbage.
    pub controllers: bool,
    /// Whether every request is written down; see [`ControlPlane::requests`].
    pub audit: bool,
}

impl Options {
    /// Only etcd and an API server, for their own host.
    pub fn api_only() -> Self {
        Self {
            host: CONTROL.to_owned(),
            address: Ipv4Addr::LOCALHOST.into(),
            controllers: false,
            audit: false,
        }
    }
}

/// A control plane. Its processes end with the lab.
#[derive(Debug)]
pub struct ControlPlane {
    pub(super) lab: Arc<Lab>,
    pub(super) options: Options,
    pub(crate) program: PathBuf,
    admin: PathBuf,
    processes: Mutex<BTreeMap<&'static str, Process>>,
}

impl ControlPlane {
    /// Adds a host `control` to the lab, with etcd and an API server on its loopback address.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub fn start_api(lab: &Arc<Lab>) -> anyhow::Result<Self> {
        Self::start_api_with(lab, Options::api_only())
    }

    /// The same with other options; the host must not exist yet.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub fn start_api_with(lab: &Arc<Lab>, options: Options) -> anyhow::Result<Self> {
        lab.network(|network| {
            network.host(&options.host);
        })?;
        Self::start(lab, options)
    }

    /// Starts a control plane on a host that exists, and waits until it is ready.
    ///
    /// # Errors
    /// The program is not built (says how), or does not become ready: the message has the ends of the logs.
    pub fn start(lab: &Arc<Lab>, options: Options) -> anyhow::Result<Self> {
        let control = Self::start_unready(lab, options)?;
        control.wait_ready()?;
        Ok(control)
    }

    /// Starts a control plane and does not wait for it.
    pub(super) fn start_unready(lab: &Arc<Lab>, options: Options) -> anyhow::Result<Self> {
        let control = Self {
            lab: Arc::clone(lab),
            options,
            program: program()?,
            admin: lab.path().join("kube/admin.kubeconfig"),
            processes: Mutex::default(),
        };
        lab.write("kube/tokens.csv", TOKENS)?;
        control.write_kubeconfig("admin", ADMIN)?;
        control.start_etcd()?;
        control.start_api_server()?;
        Ok(control)
    }

    /// Waits until the API server is ready, and starts the controller manager if one is wanted and none runs.
    pub(super) fn wait_ready(&self) -> anyhow::Result<()> {
        self.wait_api()?;
        if self.options.controllers && !self.runs("kube-controller-manager") {
            self.start_manager("kube-controller-manager", CONTROLLERS, &[])?;
        }
        Ok(())
    }

    /// The lab that it is in.
    pub fn lab(&self) -> &Arc<Lab> {
        &self.lab
    }

    /// The lab's host that it runs on.
    pub fn host(&self) -> &str {
        &self.options.host
    }

    /// Where the API server listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.options.address, PORT)
    }

    /// The kubeconfig of an administrator. It works on every host that reaches [`ControlPlane::address`].
    pub fn kubeconfig(&self) -> &Path {
        &self.admin
    }

    /// The certificate of the authority that the API server's certificate is from.
    pub fn certificate_authority(&self) -> PathBuf {
        // The API server makes its own certificate, with its authority's behind it in the same file.
        self.file("certificates/apiserver.crt")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.lab.path().join("kube").join(name)
    }

    /// Writes a kubeconfig for who has this token; `name` is the file's.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_kubeconfig(&self, name: &str, token: &str) -> anyhow::Result<PathBuf> {
        self.write_kubeconfig_at(name, token, self.address())
    }

    pub(super) fn write_kubeconfig_at(
        &self,
        name: &str,
        token: &str,
        server: SocketAddr,
    ) -> anyhow::Result<PathBuf> {
        let text = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {
                "server": format!("https://{server}"),
                "certificate-authority": self.certificate_authority(),
            }}],
            "users": [{"name": "lab", "user": {"token": token}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        });
        self.lab.write(&format!("kube/{name}.kubeconfig"), &format!("{text:#}\n"))
    }

    /// A kubeconfig with a new token of a ServiceAccount that exists.
    ///
    /// # Errors
    /// There is no such ServiceAccount.
    pub fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> anyhow::Result<PathBuf> {
        let token = self.token(namespace, name)?;
        self.write_kubeconfig(&format!("{namespace}-{name}"), &token)
    }

    /// A new token of a ServiceAccount that exists, good for a day.
    ///
    /// # Errors
    /// There is no such ServiceAccount.
    pub fn token(&self, namespace: &str, name: &str) -> anyhow::Result<String> {
        let token =
            self.kubectl(&["create", "token", name, "--namespace", namespace, "--duration", "24h"])?;
        Ok(token.trim().to_owned())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Process>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn runs(&self, name: &str) -> bool {
        self.lock().get(name).is_some_and(|process| self.lab.is_running(process))
    }

    fn spawn(&self, name: &'static str, arguments: &[String]) -> anyhow::Result<()> {
        // A log for each start: that of the last one is of use when this one fails.
        let log = if self.lock().contains_key(name) { format!("{name}-again") } else { name.to_owned() };
        let program = self.program.to_string_lossy();
        let command: Vec<&str> =
            std::iter::once(&*program).chain(arguments.iter().map(String::as_str)).collect();
        let process = self.lab.spawn(&log, &self.options.host, &command)?;
        self.lock().insert(name, process);
        Ok(())
    }

    fn process(&self, name: &str) -> anyhow::Result<Process> {
        self.lock().get(name).cloned().with_context(|| format!("{name} was not started"))
    }

    /// The process of the API server.
    ///
    /// # Errors
    /// It was never started.
    pub fn api_server(&self) -> anyhow::Result<Process> {
        self.process("kube-apiserver")
    }

    fn start_etcd(&self) -> anyhow::Result<()> {
        self.spawn(
            "etcd",
            &strings(&[
                "etcd",
                "--data-dir",
                &self.file("etcd").to_string_lossy(),
                "--listen-client-urls=http://127.0.0.1:2379",
                "--advertise-client-urls=http://127.0.0.1:2379",
                "--listen-peer-urls=http://127.0.0.1:2380",
                "--unsafe-no-fsync",
                "--log-level=error",
            ]),
        )
    }

    fn start_api_server(&self) -> anyhow::Result<()> {
        let key = self.file("certificates/apiserver.key");
        let mut arguments = strings(&[
            "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            &format!("--secure-port={PORT}"),
            &format!("--cert-dir={}", self.file("certificates").display()),
            &format!("--token-auth-file={}", self.file("tokens.csv").display()),
            "--authorization-mode=RBAC",
            "--allow-privileged",
            "--service-account-issuer=https://kubernetes.default.svc",
            &format!("--service-account-key-file={}", key.display()),
            &format!("--service-account-signing-key-file={}", key.display()),
            &format!("--service-cluster-ip-range={SERVICE_RANGES}"),
            "--disable-admission-plugins=ServiceAccount",
        ]);
        if self.options.address.is_loopback() {
            // Not reached from elsewhere; an advertised address may not be a loopback address all the same.
            arguments.extend(strings(&[
                &format!("--bind-address={}", self.options.address),
                "--advertise-address=192.0.2.1",
                "--endpoint-reconciler-type=none",
            ]));
        } else {
            arguments.extend(strings(&[
                "--bind-address=0.0.0.0",
                &format!("--advertise-address={}", self.options.address),
            ]));
        }
        if self.options.audit {
            arguments.extend(self.audit_arguments()?);
        }
        self.spawn("kube-apiserver", &arguments)
    }

    fn start_manager(&self, name: &'static str, controllers: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let kubeconfig = self.write_kubeconfig("manager", "manager")?;
        let mut all = strings(&[
            "kube-controller-manager",
            &format!("--kubeconfig={}", kubeconfig.display()),
            &format!("--controllers={controllers}"),
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            &format!(
                "--service-account-private-key-file={}",
                self.file("certificates/apiserver.key").display()
            ),
            &format!("--root-ca-file={}", self.certificate_authority().display()),
            "--endpointslice-updates-batch-period=0s",
        ]);
        all.extend(strings(arguments));
        self.spawn(name, &all)
    }

    /// Starts a second controller manager that makes Nodes unready whose Lease is not renewed for `grace`, and with
    /// them their pods. Start heartbeats first: [`ControlPlane::start_heartbeat`].
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_node_lifecycle(&self, grace: Duration) -> anyhow::Result<()> {
        self.start_manager(
            "node-lifecycle",
            "node-lifecycle-controller",
            &[
                &format!("--node-monitor-grace-period={}ms", grace.as_millis()),
                "--node-monitor-period=500ms",
                "--secure-port=10258",
            ],
        )
    }

    /// Waits until the API server is ready.
    ///
    /// # Errors
    /// It is not within two minutes; the message has the ends of the logs.
    pub fn wait_api(&self) -> anyhow::Result<()> {
        let program = self.program.to_string_lossy().into_owned();
        let admin = self.admin.to_string_lossy().into_owned();
        let authority = self.certificate_authority();
        let failed = || {
            let logs: Vec<String> = self
                .lock()
                .values()
                .map(|process| format!("--- {}\n{}", process.name, Lab::log_tail(process, 15)))
                .collect();
            logs.join("\n")
        };
        eventually("the certificate of the API server", READY_DEADLINE, || {
            ensure!(self.runs("kube-apiserver"), "kube-apiserver ended");
            Ok(authority.exists().then_some(()))
        })
        .with_context(failed)?;
        let seconds = READY_DEADLINE.as_secs().to_string();
        self.lab
            .run(&self.options.host, &["timeout", &seconds, &program, "wait-ready", &admin])
            .map(drop)
            .context("the API server is not ready")
            .with_context(failed)
    }

    /// Kills the API server with SIGKILL; everything that it holds stays in etcd.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_api(&self) -> anyhow::Result<()> {
        let process = self.api_server()?;
        self.lab.signal(&process, "KILL")?;
        self.lab.wait_exit(&process, Duration::from_secs(10)).map(drop)
    }

    /// Starts the API server again after [`ControlPlane::kill_api`], and waits until it is ready.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub fn start_api_again(&self) -> anyhow::Result<()> {
        self.start_api_server()?;
        self.wait_api()
    }

    /// Stops the API server with SIGSTOP: connections stay, and nothing answers.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause_api(&self) -> anyhow::Result<()> {
        self.lab.signal(&self.api_server()?, "STOP")
    }

    /// Lets it run again.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume_api(&self) -> anyhow::Result<()> {
        self.lab.signal(&self.api_server()?, "CONT")
    }
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
