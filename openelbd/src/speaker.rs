//! `openelbd speaker`: announces the addresses of Services from its node.
//!
//! From its own watches of the API server to announcements, without anybody between: whatever a controller does or does
//! not do, what is published stays announced. One task owns all state (`owner`). Without API server the last known
//! state goes on; a start without it announces what the checkpoint on the host holds.

mod checkpoint;
mod connected;
mod data_plane;
mod own_status;
mod owner;
mod secrets;
mod stop;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use openelb_k8s::{
    announce::Announcer as _,
    index::services::ClassRules,
    object::Kind,
    plan::Settings,
    source::kube::{Selection, watch},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch as state},
    time::{Instant, sleep_until},
};

use crate::{
    adapter::{
        AnnouncerOptions, Announcers,
        bgp::{ApiOptions, config::Start},
        layer2::Layer2Options,
    },
    api_events,
    http::{self, Health, ListenAddress, Readiness, ServerState, metrics::Metrics},
    kubernetes::{self, ClusterArguments},
};
use owner::{Owner, Parts};

pub use data_plane::Probe;
pub use stop::{StopMode, Workload};

/// The name under which events are reported.
const REPORTER: &str = "openelb-speaker";

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the API server is.
    pub cluster: ClusterArguments,
    /// Where to serve metrics and health.
    pub metrics_addr: ListenAddress,
    /// Where to serve the read API; a loopback address.
    pub http_bind_address: ListenAddress,
    /// Which Services are ours.
    pub rules: ClassRules,
    /// What plans need to know.
    pub settings: Settings,
    /// How Layer 2 is spoken.
    pub layer2: Layer2Options,
    /// How GoBGP's gRPC interface is served.
    pub api: ApiOptions,
    /// Packets to announced addresses that nobody takes are rejected.
    pub reject_undelivered: bool,
    /// The checkpoint file; `None`: without.
    pub checkpoint: Option<PathBuf>,
    /// Who says whether this node forwards.
    pub data_plane: Probe,
    /// How announcing ends.
    pub on_stop: StopMode,
    /// The DaemonSet that `StopMode::Auto` asks for.
    pub workload: Workload,
    /// How long ending may take.
    pub drain_timeout: Duration,
}

/// What is watched from the start. Services by their type; Eips by metadata: their status is big and changes often.
fn selections() -> Vec<Selection> {
    vec![
        Selection::all(Kind::Service).fields("spec.type=LoadBalancer"),
        Selection::eips_by_generation(),
        Selection::all(Kind::Node),
        Selection::all(Kind::BgpConf),
        Selection::all(Kind::BgpPeer),
        Selection::all(Kind::Layer2Conf),
        Selection::all(Kind::SpeakerStatus),
    ]
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// If it cannot start: no cluster is configured. An API server that cannot be reached is waited for.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let client = kubernetes::client(&options.cluster).await?;
    let (watches, mut changes) = watch(client.clone(), selections());
    let mut failing = watches.failing();
    let (secrets, mut secret_changes) = secrets::Secrets::new(client.clone(), &options.settings.namespace);
    let mut data_plane = data_plane::watch(options.data_plane.clone());

    let remembered = options.checkpoint.as_ref().and_then(|path| {
        checkpoint::read(path, &options.settings.node_name, &options.rules).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "the checkpoint cannot be used");
            None
        })
    });
    let start = Start {
        forwarding_preserved: remembered.as_ref().is_some_and(|(header, _)| header.is_of_this_boot()),
    };
    let (announcers, mut told) = Announcers::spawn(AnnouncerOptions {
        layer2: Layer2Options {
            incarnation_file: options.checkpoint.as_deref().map(|path| path.with_extension("layer2")),
            ..options.layer2.clone()
        },
        api: options.api.clone(),
        start,
        reject_undelivered: options.reject_undelivered,
        seed: crate::seed(),
    });
    let announcer = Arc::new(announcers);
    let metrics = Arc::new(Metrics::new(announcer.sources()));
    let (readiness, ready) = state::channel(Readiness::default());
    let (ask, mut questions) = mpsc::channel(16);
    let (server_state, mut server) = state::channel(ServerState::default());
    let observability = http::observability(Health::new(ready, ask), Arc::clone(&metrics));
    let metrics_service = http::Service { name: "metrics and health", flag: "--metrics-addr" };
    let http = tokio::spawn(http::serve(metrics_service, options.metrics_addr, observability, server_state));
    let reporter = api_events::Reporter::spawn(client.clone(), REPORTER, &options.settings.node_name);
    let (own_status, status_writer) = own_status::spawn(client.clone(), options.settings.node_name.clone());
    let mut announced = announcer.status();
    let parts = Parts {
        announcer: announcer.clone(),
        watches,
        secrets,
        own_status,
        reporter,
        metrics,
        readiness,
        data_plane: data_plane.borrow_and_update().clone(),
    };
    let mut owner = Owner::new(&options, remembered, parts);
    let (ask_snapshot, mut readers) = mpsc::channel(16);
    let reader = http::read_api::Reader::new(ask_snapshot, owner.revisions());
    let (api_state, _) = state::channel(ServerState::default());
    let read_service = http::Service { name: "the read API", flag: "--http-bind-address" };
    let api = http::read_api::router(reader);
    let api = tokio::spawn(http::serve(read_service, options.http_bind_address, api, api_state));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = options.settings.node_name,
        namespace = options.settings.namespace,
        "speaker starts"
    );
    loop {
        let due = owner.due();
        let wake = async {
            match due {
                Some(at) => sleep_until(Instant::from_std(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            Some(question) = questions.recv() => drop(question.send(())),
            Some(reader) = readers.recv() => drop(reader.send(owner.snapshot())),
            batch = changes.recv() => match batch {
                Some(batch) => owner.take_in(batch),
                None => anyhow::bail!("the watches ended, which they do not of themselves"),
            },
            Some(batch) = secret_changes.recv() => owner.take_in_secrets(batch),
            Ok(()) = announced.changed() => {
                let status = Arc::clone(&announced.borrow_and_update());
                owner.set_announced(status);
            }
            Some(told) = told.recv() => owner.tell_of_layer2(&told),
            Ok(()) = data_plane.changed() => owner.set_data_plane(data_plane.borrow_and_update().clone()),
            Ok(()) = server.changed() => {
                let state = server.borrow_and_update().clone();
                owner.set_server(&state);
            }
            Ok(()) = failing.changed() => {
                let failing = failing.borrow_and_update().clone();
                owner.set_failing(failing);
            }
            () = wake => owner.work(),
        }
    }
    let (node, listed) = owner.own_node();
    let decision =
        stop::decide(options.on_stop, client.clone(), &options.workload, node.as_ref(), listed).await;
    tracing::info!(how = ?decision.how, why = decision.why, within = ?options.drain_timeout, "speaker stops");
    owner.save().await;
    announcer.stop(decision.how, options.drain_timeout).await;
    if decision.for_good {
        drop(owner);
        own_status::remove(client, &options.settings.node_name, status_writer).await;
    }
    http.abort();
    api.abort();
    Ok(())
}
