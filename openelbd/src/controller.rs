//! `openelbd controller`: gives addresses to the Services of a cluster.
//!
//! Every replica watches and knows everything; the leader writes. One task owns all state (`owner`); the writes run
//! beside it, many at a time, each a compare-and-swap on what it was decided on, so that nothing has to be undone when
//! somebody else was first, and two leaders at once do no harm.

mod departed;
mod fences;
mod leader;
mod owner;
mod writer;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use openelb_k8s::{
    index::services::ClassRules,
    object::Kind,
    source::kube::{Selection, Versions, watch_beside},
    store::ApiServer,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch as state},
    time::{Instant, sleep_until},
};

use crate::{
    api_events,
    http::{
        self, Health, ListenAddress, Readiness, ServerState,
        metrics::{Metrics, Sources},
    },
    kubernetes::{self, ClusterArguments},
};
use owner::Owner;

/// The name under which events are reported.
const REPORTER: &str = "openelb-controller";

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the API server is.
    pub cluster: ClusterArguments,
    /// Our namespace: of the Lease.
    pub namespace: String,
    /// Differs from that of all other replicas.
    pub identity: String,
    /// Only the holder of the Lease writes; without, this process always does.
    pub leader_elect: bool,
    /// Where to serve metrics and health.
    pub metrics_addr: ListenAddress,
    /// Where to serve the read API; a loopback address.
    pub http_bind_address: ListenAddress,
    /// Which Services are ours.
    pub rules: ClassRules,
    /// How many writes run at a time.
    pub writers: usize,
    /// How long writes that have begun may take after SIGTERM.
    pub drain_timeout: Duration,
}

/// Kinds that must be listed before anything is decided.
pub(crate) const DECIDED_ON: [Kind; 4] = [Kind::Eip, Kind::Service, Kind::Namespace, Kind::Node];
/// Kinds whose status or conditions are written besides.
const SHOWN: [Kind; 6] =
    [Kind::BgpConf, Kind::BgpPeer, Kind::BgpPolicy, Kind::Layer2Conf, Kind::VipGroup, Kind::SpeakerStatus];

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// If it cannot start: no cluster is configured. An API server that cannot be reached is waited for.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let client = kubernetes::client(&options.cluster).await?;
    let kinds = DECIDED_ON.into_iter().chain(SHOWN).map(Selection::all);
    let versions = Versions::default();
    let (watches, mut changes) = watch_beside(client.clone(), kinds, &versions);
    let mut failing = watches.failing();

    let metrics = Arc::new(Metrics::new(Sources::default()));
    let (readiness, ready) = state::channel(Readiness::default());
    let (ask, mut questions) = mpsc::channel(16);
    let (server_state, mut server) = state::channel(ServerState::default());
    let observability = http::observability(Health::new(ready, ask), Arc::clone(&metrics));
    let metrics_service = http::Service { name: "metrics and health", flag: "--metrics-addr" };
    let http = tokio::spawn(http::serve(metrics_service, options.metrics_addr, observability, server_state));
    let (leading, mut leads) = state::channel(!options.leader_elect);
    let (stop_leading, stopped) = state::channel(false);
    let leader = options.leader_elect.then(|| {
        tokio::spawn(leader::run(
            client.clone(),
            options.namespace.clone(),
            options.identity.clone(),
            leading,
            stopped,
        ))
    });
    let reporter = api_events::Reporter::spawn(client.clone(), REPORTER, &options.identity);
    let mut owner = Owner::new(&options, ApiServer::new(client), versions, reporter, metrics, readiness);
    let (ask_snapshot, mut readers) = mpsc::channel(16);
    let reader = http::read_api::Reader::new(ask_snapshot, owner.revisions());
    let (api_state, _) = state::channel(ServerState::default());
    let read_service = http::Service { name: "the read API", flag: "--http-bind-address" };
    let api = http::read_api::router(reader);
    let api = tokio::spawn(http::serve(read_service, options.http_bind_address, api, api_state));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        identity = options.identity,
        namespace = options.namespace,
        "controller starts"
    );
    owner.set_leading(*leads.borrow_and_update());
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
            Ok(()) = leads.changed() => owner.set_leading(*leads.borrow_and_update()),
            Some(ended) = owner.finished() => owner.take_ended(ended),
            batch = changes.recv() => match batch {
                Some(batch) => owner.take_in(batch),
                None => anyhow::bail!("the watches ended, which they do not of themselves"),
            },
            Ok(()) = server.changed() => {
                let state = server.borrow_and_update().clone();
                owner.set_server(&state);
            }
            Ok(()) = failing.changed() => owner.set_failing(&failing.borrow_and_update()),
            () = wake => owner.work(),
        }
    }
    tracing::info!(within = ?options.drain_timeout, "controller stops");
    owner.set_leading(false);
    let drained = tokio::time::timeout(options.drain_timeout, owner.drain()).await.is_ok();
    if !drained {
        tracing::warn!(
            "writes that had begun did not end in time; the next leader decides on what they left"
        );
    }
    // Only now: the next leader shall not meet our last writes.
    stop_leading.send_replace(true);
    if let Some(leader) = leader {
        let _ = tokio::time::timeout(Duration::from_secs(2), leader).await;
    }
    http.abort();
    api.abort();
    Ok(())
}
