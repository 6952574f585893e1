//! The container of a Deployment or DaemonSet, as a process on a host.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde_json::Value;

use super::ControlPlane;
use crate::Process;

/// Where a container runs, in place of what kubelet would know.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The lab's host whose network it has.
    pub host: &'a str,
    /// The Node that it is on (`spec.nodeName`).
    pub node: &'a str,
    /// The API server as it sees it: the first of the services' addresses on a node with kube-proxy.
    pub api: SocketAddr,
}

/// Gives a container what kubelet mounts, in a mount namespace of its own, and becomes it: `$1` is the directory with
/// the ServiceAccount's token, `$2` one that is the host's `/var/lib`, `$3` `ro` if the root file system is read-only.
const ENTER: &str = r#"
mount -t tmpfs tmpfs /run
mkdir -p /run/secrets/kubernetes.io/serviceaccount "$2"
mount --bind "$1" /run/secrets/kubernetes.io/serviceaccount
mount --bind "$2" /var/lib
ro=$3
shift 3
if [ "$ro" = ro ]; then
  # Not / itself: the log is open for writing on it.
  mkdir /run/root
  mount --rbind / /run/root
  mount -o remount,bind,ro /run/root
  exec chroot /run/root "$@"
fi
exec "$@"
"#;

/// What the `securityContext` of a Pod and of its container ask for.
struct Security {
    /// Whether the root file system is read-only: `ro` or `rw`.
    root: &'static str,
    /// The command that gives privileges up, before the one that it runs.
    command: Vec<String>,
}

impl Security {
    fn of(pod: &Value, container: &Value) -> anyhow::Result<Self> {
        let contexts = [container.get("securityContext"), pod.get("securityContext")];
        // The container's own word comes first.
        let field = |name: &str| contexts.iter().flatten().find_map(|context| context.get(name));
        let capabilities = |verb: &str| -> Vec<String> {
            let words = field("capabilities").and_then(|all| all.get(verb)).and_then(Value::as_array);
            words.into_iter().flatten().filter_map(Value::as_str).map(str::to_lowercase).collect()
        };
        let root = if field("readOnlyRootFilesystem") == Some(&Value::Bool(true)) { "ro" } else { "rw" };
        let mut command = vec!["setpriv".to_owned(), "--no-new-privs".to_owned()];
        let (drop, add) = (capabilities("drop"), capabilities("add"));
        if drop.iter().any(|word| word == "all") {
            let kept: String = add.iter().map(|word| format!(",+{word}")).collect();
            command.push(format!("--bounding-set=-all{kept}"));
            command.push("--inh-caps=-all".to_owned());
        } else if !drop.is_empty() {
            bail!("only the drop of all capabilities is made here, not of {drop:?}");
        }
        if let Some(user) = field("runAsUser").and_then(Value::as_u64) {
            let group = field("runAsGroup").and_then(Value::as_u64).unwrap_or(0);
            command.extend([
                "--clear-groups".to_owned(),
                format!("--regid={group}"),
                format!("--reuid={user}"),
            ]);
        }
        Ok(Self { root, command })
    }
}

/// The namespace that `deploy/openelb.yaml` installs OpenELB into.
pub const NAMESPACE: &str = "openelb-system";

impl ControlPlane {
    /// Applies `deploy/openelb.yaml`: definitions, roles with their ServiceAccounts, and workloads, of which nothing runs
    /// by itself.
    ///
    /// # Errors
    /// The API server refuses something, or does not establish the definitions within 30 seconds.
    pub fn install(&self) -> anyhow::Result<()> {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/openelb.yaml");
        // By force: a test may have had other definitions before.
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "--filename", manifest])?;
        self.wait_crds()
    }

    /// The kubeconfig with which OpenELB's `controller` or `speaker` runs: with the token of its ServiceAccount, which may
    /// do what the roles of [`install`](Self::install) allow and nothing else.
    ///
    /// # Errors
    /// OpenELB is not installed.
    pub fn kubeconfig_of(&self, program: &str) -> anyhow::Result<PathBuf> {
        let account = format!("openelb-{program}");
        let file = self.lab.path().join(format!("kube/{NAMESPACE}-{account}.kubeconfig"));
        // Not written again while a process that was just started may be reading it.
        if file.exists() { Ok(file) } else { self.service_account_kubeconfig(NAMESPACE, &account) }
    }

    /// Starts the first container of a Deployment or DaemonSet (`deployments`, `daemonsets`) that was applied: with its
    /// arguments and environment, its user, capabilities and read-only root, its ServiceAccount's token where a Pod has
    /// it, and what it finds under `/var/lib` kept on its node. `program` runs in the place of the image's entry point.
    ///
    /// # Errors
    /// There is no such object, or it wants something that is not made here.
    pub fn start_workload(
        &self,
        (resource, namespace, name): (&str, &str, &str),
        program: &Path,
        place: Place<'_>,
    ) -> anyhow::Result<Process> {
        let object = self.get(resource, namespace, name)?;
        let pod = object.pointer("/spec/template/spec").context("it has no template of a Pod")?;
        let container = pod.pointer("/containers/0").context("it has no container")?;
        let account = pod.get("serviceAccountName").and_then(Value::as_str).unwrap_or("default");
        let directory = self.service_account_directory(namespace, account)?;
        let process = format!("{name}-{}", place.host);
        let mut environment = vec![
            ("KUBERNETES_SERVICE_HOST".to_owned(), place.api.ip().to_string()),
            ("KUBERNETES_SERVICE_PORT".to_owned(), place.api.port().to_string()),
        ];
        for variable in container.get("env").and_then(Value::as_array).into_iter().flatten() {
            let key = variable.get("name").and_then(Value::as_str).context("a variable without name")?;
            let value = match variable.pointer("/valueFrom/fieldRef/fieldPath").and_then(Value::as_str) {
                // As if the object were not there.
                None if variable.pointer("/valueFrom/secretKeyRef/optional") == Some(&Value::Bool(true)) => {
                    continue;
                }
                None if variable.get("valueFrom").is_some() => {
                    bail!("{key} comes from what is not made here")
                }
                None => variable.get("value").and_then(Value::as_str).unwrap_or_default().to_owned(),
                Some("metadata.name") => process.clone(),
                Some("metadata.namespace") => namespace.to_owned(),
                Some("spec.nodeName") => place.node.to_owned(),
                Some("spec.serviceAccountName") => account.to_owned(),
                Some("status.hostIP" | "status.podIP") => self.internal_address(place.node)?,
                Some(other) => bail!("{key} comes from {other}, which is not made here"),
            };
            environment.push((key.to_owned(), value));
        }
        let var_lib = self.lab.path().join("nodes").join(place.node).join("var-lib");
        let mut command: Vec<String> = ["sh", "-e", "-c", ENTER, "container"].map(str::to_owned).to_vec();
        let security = Security::of(pod, container)?;
        command.extend([directory, var_lib.to_string_lossy().into_owned(), security.root.to_owned()]);
        command.extend(security.command);
        command.extend(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"].map(str::to_owned));
        command.extend(environment.iter().map(|(key, value)| format!("{key}={value}")));
        command.push(program.to_string_lossy().into_owned());
        // The first word of a command is the program.
        let words = |field: &str, skip: usize| {
            let words = container.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
            words
                .into_iter()
                .skip(skip)
                .filter_map(|word| word.as_str().map(str::to_owned))
                .collect::<Vec<_>>()
        };
        for word in words("command", 1).into_iter().chain(words("args", 0)) {
            let expanded =
                environment.iter().fold(word, |word, (key, value)| word.replace(&format!("$({key})"), value));
            command.push(expanded);
        }
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        self.lab.spawn(&process, place.host, &command)
    }

    /// What kubelet mounts for a ServiceAccount.
    fn service_account_directory(&self, namespace: &str, account: &str) -> anyhow::Result<String> {
        let name = format!("kube/accounts/{namespace}-{account}");
        let token = self.token(namespace, account)?;
        self.lab.write(&format!("{name}/token"), &token)?;
        self.lab.write(&format!("{name}/namespace"), namespace)?;
        let authority = std::fs::read_to_string(self.certificate_authority())
            .context("there is no certificate of the API server")?;
        self.lab.write(&format!("{name}/ca.crt"), &authority)?;
        Ok(self.lab.path().join(name).to_string_lossy().into_owned())
    }

    fn internal_address(&self, node: &str) -> anyhow::Result<String> {
        let object = self.get("nodes", "", node)?;
        let addresses = object.pointer("/status/addresses").and_then(Value::as_array);
        let internal = addresses
            .into_iter()
            .flatten()
            .find(|address| address.get("type").and_then(Value::as_str) == Some("InternalIP"))
            .and_then(|address| address.get("address").and_then(Value::as_str));
        internal.map(str::to_owned).with_context(|| format!("{node} has no InternalIP"))
    }
}
