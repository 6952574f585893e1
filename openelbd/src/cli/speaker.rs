//! `openelbd speaker`.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::{ArgAction, Args, ValueEnum};
use openelb_k8s::plan::Settings;

use super::{
    Failure, Outcome,
    api::ApiArguments,
    klog::KlogArguments,
    layer2::Layer2Arguments,
    standalone::{RuleArguments, duration},
};
use crate::{
    http::ListenAddress,
    kubernetes::ClusterArguments,
    speaker::{self, Options, Probe, StopMode, Workload},
};

/// Announce the addresses of a cluster's Services from this node
///
/// Runs on every node, on the host network; or on a few nodes, on behalf of the others. Watches Services, Eips, Nodes,
/// BgpConfs and BgpPeers and announces what Services publish. While the API server cannot be reached, what is known
/// stays announced; a start without it announces what the checkpoint holds. SIGTERM ends it as --on-stop says.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    cluster: ClusterArguments,
    /// The Node that this host is.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node_name: String,
    /// Namespace of the Secrets that BgpPeers name, and of the speaker's own DaemonSet.
    #[arg(long, env = "OPENELB_NAMESPACE", default_value = "openelb-system", value_name = "NAMESPACE")]
    namespace: String,
    /// Where to serve /metrics, /healthz and /readyz: :PORT, ADDRESS:PORT, or 0 for nowhere. A port that is taken is
    /// tried again.
    #[arg(long, env = "OPENELB_METRICS_ADDR", default_value = ":50053", value_name = "ADDRESS")]
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
    #[command(flatten)]
    layer2: Layer2Arguments,
    #[command(flatten)]
    api: ApiArguments,
    /// A cordoned Node (spec.unschedulable) does not announce.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL")]
    exclude_cordoned_nodes: bool,
    /// The label node.kubernetes.io/exclude-from-external-load-balancers means nothing.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL")]
    ignore_exclude_label: bool,
    /// Withdraw addresses of Services with policy Cluster that have no ready endpoint.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL")]
    withdraw_without_endpoints: bool,
    /// Who says whether this node forwards: the URL of kube-proxy's health check, or none. While it answers that it is
    /// unhealthy, this node does not announce itself.
    #[arg(long, default_value = "http://127.0.0.1:10256/healthz", value_name = "URL")]
    dataplane_health: Probe,
    /// Reject packets to announced addresses that nobody takes, with a table of nf_tables named "inet openelb": else
    /// they go back and forth between router and node. Needs the capability NET_ADMIN.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL")]
    reject_undelivered: bool,
    /// What happens to announcements on SIGTERM.
    #[arg(long, value_enum, default_value_t, ignore_case = true, value_name = "MODE")]
    on_stop: Stop,
    /// How long withdrawing may take at most.
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "DURATION")]
    drain_timeout: Duration,
    /// File that holds what was announced last, for a start without API server; empty: none. It holds no passwords.
    #[arg(
        long,
        env = "OPENELB_CHECKPOINT",
        default_value = "/var/lib/openelb/speaker.checkpoint",
        value_name = "FILE"
    )]
    checkpoint: OsString,
    /// The DaemonSet that this speaker is a Pod of: where it is gone or leaves this node, SIGTERM means to withdraw.
    #[arg(long, env = "OPENELB_DSNAME", default_value = "openelb-speaker", value_name = "NAME")]
    daemon_set: String,
    /// Accepted for the Go OpenELB's manifests; VRRP is not spoken yet.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL")]
    enable_keepalived_vip: Option<bool>,
    /// Accepted for the Go OpenELB's manifests; there is no keepalived.
    #[arg(long, hide = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    keepalived_args: Option<String>,
    /// Accepted for the Go OpenELB's manifests; logs go to standard error.
    #[arg(long, hide = true, value_name = "PATH")]
    log_path: Option<String>,
    #[command(flatten)]
    klog: KlogArguments,
}

impl Arguments {
    #[cfg(test)]
    pub(super) fn klog(&self) -> &KlogArguments {
        &self.klog
    }
}

/// The value of `--on-stop`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum Stop {
    /// Withdraw if the Node is cordoned, shutting down or removed, or the DaemonSet leaves it; else Restart.
    #[default]
    Auto,
    /// Close connections without a word: the speaker is back at once.
    Restart,
    /// Neighbours are asked to prefer others (RFC 8326), then routes are withdrawn, then sessions closed.
    Withdraw,
}

pub(super) fn run(arguments: Arguments) -> Result<Outcome, Failure> {
    if arguments.node_name.trim().is_empty() {
        return Err(Failure::Usage("--node-name is empty: name the Node that this host is".to_owned()));
    }
    super::require_loopback(arguments.http_bind_address)?;
    for (flag, given) in [
        ("--enable-keepalived-vip", arguments.enable_keepalived_vip == Some(true)),
        ("--keepalived-args", arguments.keepalived_args.is_some()),
        ("--log-path", arguments.log_path.is_some()),
    ]
    .into_iter()
    .chain(arguments.klog.given())
    {
        if given {
            tracing::info!("{flag} has no effect in this version");
        }
    }
    let layer2 = arguments.layer2.options()?;
    let api = arguments.api.options()?;
    let workload = Workload { namespace: arguments.namespace.clone(), name: arguments.daemon_set };
    let options = Options {
        cluster: arguments.cluster,
        metrics_addr: arguments.metrics_addr,
        http_bind_address: arguments.http_bind_address,
        rules: arguments.rules.class_rules(),
        settings: Settings {
            node_name: arguments.node_name,
            exclude_cordoned_nodes: arguments.exclude_cordoned_nodes,
            ignore_exclude_label: arguments.ignore_exclude_label,
            withdraw_without_endpoints: arguments.withdraw_without_endpoints,
            namespace: arguments.namespace,
            standalone: false,
            ..Settings::default()
        },
        layer2,
        api,
        reject_undelivered: arguments.reject_undelivered,
        checkpoint: Some(arguments.checkpoint).filter(|path| !path.is_empty()).map(PathBuf::from),
        data_plane: arguments.dataplane_health,
        on_stop: match arguments.on_stop {
            Stop::Auto => StopMode::Auto,
            Stop::Restart => StopMode::Restart,
            Stop::Withdraw => StopMode::Withdraw,
        },
        workload,
        drain_timeout: arguments.drain_timeout,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // One for decisions, one so that BGP never waits for them.
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(speaker::run(options))?;
    Ok(Outcome::Done)
}
