//! `openelbd controller`.

use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgAction, Args};

use super::{Failure, Outcome, klog::KlogArguments, standalone::RuleArguments};
use crate::{
    controller::{self, Options},
    http::ListenAddress,
    kubernetes::ClusterArguments,
};

/// Give addresses to the Services of a cluster
///
/// Watches Eips, Services, Namespaces and Nodes, commits addresses in the status of Eips and publishes them in the
/// status of Services. Several replicas may run: the one that holds the Lease openelb-controller writes, the others
/// follow and take over within seconds. SIGTERM hands over at once.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    cluster: ClusterArguments,
    /// Namespace of the Lease.
    #[arg(long, env = "OPENELB_NAMESPACE", default_value = "openelb-system", value_name = "NAMESPACE")]
    namespace: String,
    /// Write only while holding the Lease. Without, there must be one replica.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL")]
    leader_elect: bool,
    /// What this replica calls itself in the Lease and in events [default: the host's name and a random suffix].
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    identity: Option<String>,
    /// Where to serve /metrics, /healthz and /readyz: :PORT, ADDRESS:PORT, or 0 for nowhere. A port that is taken is
    /// tried again.
    #[arg(long, env = "OPENELB_METRICS_ADDR", default_value = ":50052", value_name = "ADDRESS")]
    metrics_addr: ListenAddress,
    /// Where to serve the read API (/api/v1/…): ADDRESS:PORT on loopback, or 0 for nowhere. A port that is taken is
    /// tried again.
    #[arg(
        long,
        env = "OPENELB_HTTP_BIND_ADDRESS",
        default_value = "127.0.0.1:50054",
        value_name = "ADDRESS"
    )]
    http_bind_address: ListenAddress,
    #[command(flatten)]
    rules: RuleArguments,
    /// How many writes run at a time.
    #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "NUMBER")]
    writers: u16,
    /// Accepted for the Go OpenELB's manifests; readiness is served with the metrics.
    #[arg(long, hide = true, value_name = "ADDRESS")]
    readiness_addr: Option<String>,
    /// Accepted for the Go OpenELB's manifests; there is no webhook yet.
    #[arg(long, hide = true, value_name = "PORT")]
    webhook_port: Option<u16>,
    /// Accepted for the Go OpenELB's manifests; there is no webhook yet.
    #[arg(long, hide = true, value_name = "DIR")]
    webhook_cert_dir: Option<String>,
    #[command(flatten)]
    klog: KlogArguments,
}

impl Arguments {
    #[cfg(test)]
    pub(super) fn klog(&self) -> &KlogArguments {
        &self.klog
    }
}

pub(super) fn run(arguments: Arguments) -> Result<Outcome, Failure> {
    super::require_loopback(arguments.http_bind_address)?;
    for (flag, given) in [
        ("--readiness-addr", arguments.readiness_addr.is_some()),
        ("--webhook-port", arguments.webhook_port.is_some()),
        ("--webhook-cert-dir", arguments.webhook_cert_dir.is_some()),
    ]
    .into_iter()
    .chain(arguments.klog.given())
    {
        if given {
            tracing::info!("{flag} has no effect");
        }
    }
    let options = Options {
        cluster: arguments.cluster,
        namespace: arguments.namespace,
        identity: identity(arguments.identity.as_deref()),
        leader_elect: arguments.leader_elect,
        metrics_addr: arguments.metrics_addr,
        http_bind_address: arguments.http_bind_address,
        rules: arguments.rules.class_rules(),
        writers: usize::from(arguments.writers),
        drain_timeout: Duration::from_secs(1),
    };
    // One thread: all state has one owner, and what a request costs besides is less than to wake another thread for it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(controller::run(options))?;
    Ok(Outcome::Done)
}

/// A name that no other replica has, also not an earlier process of the same Pod.
fn identity(given: Option<&str>) -> String {
    use std::hash::{BuildHasher as _, Hasher as _};
    let name = given
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned(), str::to_owned);
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("{name}_{random:016x}")
}

#[cfg(test)]
mod tests {
    use super::identity;

    #[test]
    fn an_identity_is_never_the_same_twice() {
        let (first, second) = (identity(Some("pod")), identity(Some("pod")));
        assert!(first.starts_with("pod_") && first != second, "{first} {second}");
        assert!(identity(None).len() > 17);
    }
}
