//! `openelbd standalone`.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::{ArgAction, Args, ValueEnum};
use openelb_k8s::{index::services::ClassRules, names, plan::Settings};

use super::{Failure, Outcome, api::ApiArguments, layer2::Layer2Arguments};
use crate::{
    adapter::bgp::OnStop,
    http::ListenAddress,
    standalone::{self, Options},
};

/// Assign and announce addresses without a cluster, from a directory of manifests
///
/// Reads the same YAML that "kubectl apply" takes (Eip, BgpConf, BgpPeer, Service, Node, EndpointSlice, Namespace,
/// Secret, ConfigMap, Layer2Conf, VipGroup, BgpPolicy), keeps the objects with their status in the state directory,
/// and announces the addresses of Services. An edit of a file takes effect within a second. SIGHUP reads all files
/// again; SIGTERM and SIGINT end the program as --on-stop says.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Directory of YAML files, each with one or more documents. It is watched.
    #[arg(long, env = "OPENELB_MANIFESTS", value_name = "DIR")]
    manifests: PathBuf,
    /// Directory of the objects with their status; made if it is not there. Several instances may share it.
    #[arg(long, env = "OPENELB_STATE", value_name = "DIR")]
    state: PathBuf,
    /// Which Node document is this host.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node_name: String,
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
    /// Namespace of the Secrets that BgpPeers name.
    #[arg(long, env = "OPENELB_NAMESPACE", default_value = "openelb-system", value_name = "NAMESPACE")]
    namespace: String,
    /// A cordoned Node (spec.unschedulable) does not announce.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL")]
    exclude_cordoned_nodes: bool,
    /// The label node.kubernetes.io/exclude-from-external-load-balancers means nothing.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL")]
    ignore_exclude_label: bool,
    /// Withdraw addresses of Services with policy Cluster that have no ready endpoint.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL")]
    withdraw_without_endpoints: bool,
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
}

/// Which Services are ours.
#[derive(Debug, Args)]
pub(super) struct RuleArguments {
    /// The spec.loadBalancerClass that is ours.
    #[arg(long, default_value = names::DEFAULT_LOAD_BALANCER_CLASS, value_name = "CLASS")]
    load_balancer_class: String,
    /// Services without a class are ours, too, even without the annotation lb.kubesphere.io/v1alpha1: openelb.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL")]
    handle_unclassed_services: bool,
}

impl RuleArguments {
    pub(super) fn class_rules(&self) -> ClassRules {
        ClassRules {
            load_balancer_class: self.load_balancer_class.clone(),
            handle_unclassed: self.handle_unclassed_services,
        }
    }
}

/// The value of `--on-stop`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum Stop {
    /// Standalone: the same as Withdraw.
    #[default]
    Auto,
    /// Close connections without a word: the process is back at once.
    Restart,
    /// Neighbours are asked to prefer others (RFC 8326), then routes are withdrawn, then sessions closed.
    Withdraw,
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    openelb_k8s::duration::parse(text).map_err(|error| format!("{error}; write for example 10s or 500ms"))
}

pub(super) fn run(arguments: Arguments) -> Result<Outcome, Failure> {
    if arguments.node_name.trim().is_empty() {
        return Err(Failure::Usage("--node-name is empty: name the Node document of this host".to_owned()));
    }
    super::require_loopback(arguments.http_bind_address)?;
    let layer2 = arguments.layer2.options()?;
    let api = arguments.api.options()?;
    let options = Options {
        manifests: arguments.manifests,
        state: arguments.state,
        metrics_addr: arguments.metrics_addr,
        http_bind_address: arguments.http_bind_address,
        rules: arguments.rules.class_rules(),
        settings: Settings {
            node_name: arguments.node_name,
            exclude_cordoned_nodes: arguments.exclude_cordoned_nodes,
            ignore_exclude_label: arguments.ignore_exclude_label,
            withdraw_without_endpoints: arguments.withdraw_without_endpoints,
            namespace: arguments.namespace,
            dataplane_healthy: true,
            connected: Vec::new(),
            speakers_known: false,
            standalone: true,
            endpoints_unknown: false,
        },
        layer2,
        api,
        reject_undelivered: arguments.reject_undelivered,
        on_stop: match arguments.on_stop {
            Stop::Auto | Stop::Withdraw => OnStop::Withdraw,
            Stop::Restart => OnStop::Restart,
        },
        drain_timeout: arguments.drain_timeout,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // One for decisions and the disk, one so that BGP never waits for them.
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(standalone::run(options))?;
    Ok(Outcome::Done)
}
