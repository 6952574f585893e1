//! A proxy before the API server that makes it err.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use serde::Serialize;

use super::{ControlPlane, control_plane::ADMIN};
use crate::{Lab, Process, eventually};

/// Where the proxy listens.
const PORT: u16 = 7443;

/// What happens to requests; of several faults, the first that matches counts.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Fault {
    /// Names it in [`Faults::hits`], and keeps its count when the faults are set again.
    pub name: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch` or `delete`; empty: any.
    pub verb: String,
    /// A regular expression that the path matches, such as `/services/[^/]+/status$`; empty: any.
    pub path: String,
    /// What is done.
    #[serde(flatten)]
    pub action: Action,
    /// Of the requests, so many in a hundred are hit; `None`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// So many are hit in all; `None`: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// What a [`Fault`] does.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub enum Action {
    /// Nothing: such requests go on, whatever the faults behind this one say.
    #[default]
    #[serde(rename = "")]
    Pass,
    /// The answer has this status, with the body that the API server has for it: 403, 404, 409, 410, 429, 500, 503.
    Status {
        /// The status.
        code: u16,
    },
    /// The request goes on after this time.
    Delay {
        /// Milliseconds.
        milliseconds: u64,
    },
    /// The stream is cut after this time; at 0 the request never arrives.
    Cut {
        /// Milliseconds.
        milliseconds: u64,
    },
    /// The request is carried out, and its answer is lost.
    Lose,
    /// A list is answered as it was answered the last time before.
    Stale,
}

/// A proxy before the API server. It ends with the lab.
#[derive(Debug)]
pub struct Faults<'a> {
    kube: &'a ControlPlane,
    rules: PathBuf,
    counts: PathBuf,
    admin: PathBuf,
    /// Its process.
    pub process: Process,
}

impl ControlPlane {
    /// Starts a proxy at the API server's address, port 7443, without faults. What it does by chance follows the seed.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_faults(&self, seed: u64) -> anyhow::Result<Faults<'_>> {
        let certificate = self.certificate_authority();
        let key = certificate.with_extension("key");
        let rules = self.lab.write("kube/faults.json", "[]")?;
        let counts = self.lab.write("kube/faults-hits.json", "{}")?;
        let listen = SocketAddr::new(self.options.address, PORT);
        let admin = self.write_kubeconfig_at("faults-admin", ADMIN, listen)?;
        let process = self.lab.spawn(
            "faults",
            self.host(),
            &[
                &self.program.to_string_lossy(),
                "faults",
                &format!("https://{}", self.address()),
                &certificate.to_string_lossy(),
                &listen.to_string(),
                &certificate.to_string_lossy(),
                &key.to_string_lossy(),
                &rules.to_string_lossy(),
                &counts.to_string_lossy(),
                &seed.to_string(),
            ],
        )?;
        let faults = Faults { kube: self, rules, counts, admin, process };
        eventually("an answer of the proxy", Duration::from_secs(20), || {
            self.lab.within(self.host(), || std::net::TcpStream::connect(listen).map(drop))??;
            Ok(Some(()))
        })
        .with_context(|| Lab::log_tail(&faults.process, 10))?;
        Ok(faults)
    }
}

impl Faults<'_> {
    /// From now on these faults, and no others. Counts of a name go on.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn set(&self, faults: &[Fault]) -> anyhow::Result<()> {
        let new = self.kube.lab.write("kube/faults-new.json", &serde_json::to_string(faults)?)?;
        std::fs::rename(new, &self.rules).context("cannot write the faults")
    }

    /// How many requests each fault has hit.
    ///
    /// # Errors
    /// The counts cannot be read.
    pub fn hits(&self) -> anyhow::Result<BTreeMap<String, usize>> {
        serde_json::from_str(&std::fs::read_to_string(&self.counts)?).context("the counts have another shape")
    }

    /// The kubeconfig of an administrator who goes through the proxy.
    pub fn kubeconfig(&self) -> &Path {
        &self.admin
    }

    /// A kubeconfig through the proxy with a new token of a ServiceAccount.
    ///
    /// # Errors
    /// There is no such ServiceAccount.
    pub fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> anyhow::Result<PathBuf> {
        let token = self.kube.token(namespace, name)?;
        let listen = SocketAddr::new(self.kube.options.address, PORT);
        self.kube.write_kubeconfig_at(&format!("faults-{namespace}-{name}"), &token, listen)
    }
}
