//! kubectl, as an administrator or as somebody else.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::ControlPlane;
use crate::eventually;

/// For the names of files with documents.
static FILES: AtomicUsize = AtomicUsize::new(0);

impl ControlPlane {
    /// Runs `kubectl ARGUMENTS` as an administrator on the control plane's host; returns its standard output.
    ///
    /// # Errors
    /// kubectl failed: the message has what it said.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.kubectl_as(self.kubeconfig(), arguments)
    }

    /// The same with another kubeconfig, as from [`ControlPlane::service_account_kubeconfig`].
    ///
    /// # Errors
    /// kubectl failed: the message has what it said.
    pub fn kubectl_as(&self, kubeconfig: &Path, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.kubectl_command(kubeconfig, arguments).output().context("cannot run kubectl")?;
        ensure!(
            output.status.success(),
            "kubectl {} failed: {}{}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stdout).trim(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The command, to be run by the caller: for what a failure prints, or warnings.
    pub fn kubectl_command(&self, kubeconfig: &Path, arguments: &[&str]) -> std::process::Command {
        let program = self.program.to_string_lossy();
        let kubeconfig = kubeconfig.to_string_lossy();
        let cache = self.lab.path().join("kube/cache");
        let cache = cache.to_string_lossy();
        let mut command = vec![&*program, "kubectl", "--kubeconfig", &*kubeconfig, "--cache-dir", &*cache];
        command.extend(arguments);
        self.lab.command(self.host(), &command)
    }

    /// Writes documents to a file of the lab, for `--filename`.
    fn documents(&self, documents: &str) -> anyhow::Result<PathBuf> {
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        // kubectl takes a file that begins with a brace as JSON.
        self.lab.write(&format!("kube/documents-{number}.yaml"), &format!("---\n{documents}"))
    }

    fn with_documents(&self, arguments: &[&str], documents: &str) -> anyhow::Result<String> {
        let file = self.documents(documents)?;
        let path = file.to_string_lossy();
        let mut all = arguments.to_vec();
        all.extend(["--filename", &path]);
        let result = self.kubectl(&all);
        // Kept after a failure, to look at.
        if result.is_ok() {
            let _ = std::fs::remove_file(&file);
        }
        result
    }

    /// `kubectl apply` of YAML documents.
    ///
    /// # Errors
    /// The API server refuses one.
    pub fn apply(&self, documents: &str) -> anyhow::Result<String> {
        self.with_documents(&["apply"], documents)
    }

    /// `kubectl apply` of a file or directory.
    ///
    /// # Errors
    /// The API server refuses a document.
    pub fn apply_path(&self, path: &Path) -> anyhow::Result<String> {
        self.kubectl(&["apply", "--filename", &path.to_string_lossy()])
    }

    /// Creates objects, and then writes their `status`, which the API server drops when it creates one.
    ///
    /// # Errors
    /// The API server refuses one.
    pub fn create_with_status(&self, documents: &str) -> anyhow::Result<()> {
        self.with_documents(&["create"], documents)?;
        self.replace_status(documents)
    }

    /// Replaces the `status` of objects that exist: whole objects are given, only their `status` is written.
    ///
    /// # Errors
    /// The API server refuses one.
    pub fn replace_status(&self, documents: &str) -> anyhow::Result<()> {
        self.with_documents(&["replace", "--subresource=status"], documents).map(drop)
    }

    /// Merges a patch (RFC 7396) into an object, or into its `status` with `subresource: Some("status")`.
    ///
    /// # Errors
    /// There is no such object, or the API server refuses the patch.
    pub fn patch(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        patch: &Value,
    ) -> anyhow::Result<()> {
        let patch = patch.to_string();
        let mut arguments = vec!["patch", resource, name, "--type=merge", "--patch", &patch];
        if !namespace.is_empty() {
            arguments.extend(["--namespace", namespace]);
        }
        let subresource = subresource.map(|subresource| format!("--subresource={subresource}"));
        arguments.extend(subresource.as_deref());
        self.kubectl(&arguments).map(drop)
    }

    /// An object; without a namespace (`""`) one of the cluster.
    ///
    /// # Errors
    /// There is no such object.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> anyhow::Result<Value> {
        let mut arguments = vec!["get", resource, name, "--output=json"];
        if !namespace.is_empty() {
            arguments.extend(["--namespace", namespace]);
        }
        serde_json::from_str(&self.kubectl(&arguments)?).context("kubectl printed no JSON")
    }

    /// All objects of a resource, in all namespaces.
    ///
    /// # Errors
    /// There is no such resource.
    pub fn list(&self, resource: &str) -> anyhow::Result<Vec<Value>> {
        let text = self.kubectl(&["get", resource, "--all-namespaces", "--output=json"])?;
        let list: Value = serde_json::from_str(&text).context("kubectl printed no JSON")?;
        Ok(list.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// Waits until an object is as it should be, and returns it with the time that took.
    ///
    /// # Errors
    /// The deadline passed; the message has the object as it is.
    pub fn wait_for(
        &self,
        (resource, namespace, name): (&str, &str, &str),
        deadline: Duration,
        mut good: impl FnMut(&Value) -> bool,
    ) -> anyhow::Result<(Value, Duration)> {
        let mut last = Value::Null;
        eventually(&format!("what is awaited of {resource} {namespace}/{name}"), deadline, || {
            last = self.get(resource, namespace, name)?;
            Ok(good(&last).then(|| last.clone()))
        })
        .with_context(|| format!("it is {last:#}"))
    }

    /// Applies `deploy/crds`, and waits until the API server has established all of them.
    ///
    /// # Errors
    /// It refuses one, or does not establish it within 30 seconds.
    pub fn apply_crds(&self) -> anyhow::Result<()> {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/crds");
        // Server side: a client-side apply would put each whole definition into an annotation.
        self.kubectl(&["apply", "--server-side", "--filename", directory])?;
        self.wait_crds()
    }

    /// Waits until the API server has established the definitions of `deploy/crds`, however they were applied.
    ///
    /// # Errors
    /// It has not within 30 seconds.
    pub fn wait_crds(&self) -> anyhow::Result<()> {
        self.wait_crds_of(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/crds")))
    }

    /// Waits until the API server has established the definitions of a directory.
    ///
    /// # Errors
    /// It has not within 30 seconds.
    pub fn wait_crds_of(&self, directory: &Path) -> anyhow::Result<()> {
        let directory = directory.to_string_lossy();
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "--filename", &directory])
            .map(drop)
    }
}
