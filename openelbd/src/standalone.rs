//! Assigns and announces addresses without a cluster.
//!
//! One task owns everything that is decided: manifests → indexes → allocation → store → announcements → announcers,
//! and back from the announcers' status into the store. It is level-triggered: whatever happens, it looks at the
//! whole state again and writes what is missing; whoever was interrupted starts from what the store holds.

mod owner;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use openelb_k8s::{
    announce::Announcer as _,
    index::services::ClassRules,
    plan::Settings,
    source::{Pass, manifests},
    store::StateDirectory,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use crate::{
    adapter::{
        AnnouncerOptions, Announcers,
        bgp::{ApiOptions, OnStop, config::Start},
        layer2::Layer2Options,
    },
    boot,
    http::{self, Health, ListenAddress, Readiness, ServerState, metrics::Metrics},
};
use owner::Owner;

/// File systems without events are looked at this often.
const POLL: Duration = Duration::from_millis(700);

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of manifests.
    pub manifests: PathBuf,
    /// State directory.
    pub state: PathBuf,
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
    /// How announcing ends.
    pub on_stop: OnStop,
    /// How long that may take.
    pub drain_timeout: Duration,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// If it cannot start: a directory that cannot be read or written.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut hang_up = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    let (store, problems) = StateDirectory::open(&options.state)
        .with_context(|| format!("the state directory {} cannot be used", options.state.display()))?;
    let mut passes = watch_manifests(&options)?;
    let mut changes = store.watch(POLL).context("the state directory cannot be watched")?;

    // Several hosts may share the state directory; names with a dot in front are no objects of it.
    let name = options.settings.node_name.replace('/', "_");
    let boot = options.state.join(format!(".boot-{name}"));
    let start = Start { forwarding_preserved: boot::is_unchanged(&boot) };
    let (announcers, mut told) = Announcers::spawn(AnnouncerOptions {
        layer2: Layer2Options {
            incarnation_file: Some(options.state.join(format!(".layer2-{name}"))),
            ..options.layer2.clone()
        },
        api: options.api.clone(),
        start,
        reject_undelivered: options.reject_undelivered,
        seed: crate::seed(),
    });
    let announcer = Arc::new(announcers);
    let metrics = Arc::new(Metrics::new(announcer.sources()));
    let (readiness, ready) = watch::channel(Readiness::default());
    let (ask, mut questions) = mpsc::channel(16);
    let (server_state, mut server) = watch::channel(ServerState::default());
    let observability = http::observability(Health::new(ready, ask), Arc::clone(&metrics));
    let metrics_service = http::Service { name: "metrics and health", flag: "--metrics-addr" };
    let http = tokio::spawn(http::serve(metrics_service, options.metrics_addr, observability, server_state));
    let mut announced = announcer.status();
    let mut owner = Owner::new(&options, store, Arc::clone(&announcer), metrics, readiness);
    for problem in problems {
        owner.tell_problem(&problem);
    }
    let (ask_snapshot, mut readers) = mpsc::channel(16);
    let reader = http::read_api::Reader::new(ask_snapshot, owner.revisions());
    let (api_state, _) = watch::channel(ServerState::default());
    let read_service = http::Service { name: "the read API", flag: "--http-bind-address" };
    let api = http::read_api::router(reader);
    let api = tokio::spawn(http::serve(read_service, options.http_bind_address, api, api_state));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = options.settings.node_name,
        manifests = %options.manifests.display(),
        state = %options.state.display(),
        "standalone starts"
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
            _ = hang_up.recv() => {
                tracing::info!("SIGHUP: all files are read again");
                match watch_manifests(&options) {
                    Ok(again) => {
                        passes = again;
                        owner.restart_source();
                    }
                    Err(error) => tracing::error!("{error:#}"),
                }
            }
            Some(question) = questions.recv() => drop(question.send(())),
            Some(reader) = readers.recv() => drop(reader.send(owner.snapshot())),
            pass = passes.recv() => match pass {
                Some(pass) => owner.take_in(pass).await,
                None => {
                    // Its thread ended, which it does not of itself.
                    tracing::error!("the manifests are not watched any more; they are watched again");
                    passes = watch_manifests(&options)?;
                    owner.restart_source();
                }
            },
            Some(change) = changes.recv() => owner.apply_changes(change),
            _ = announced.changed() => {
                let status = Arc::clone(&announced.borrow_and_update());
                owner.set_announced(status);
            }
            Some(told) = told.recv() => owner.tell_of_layer2(&told),
            _ = server.changed() => {
                let state = server.borrow_and_update().clone();
                owner.set_server(&state);
            }
            () = wake => owner.work().await,
        }
    }
    tracing::info!(how = ?options.on_stop, within = ?options.drain_timeout, "standalone stops");
    announcer.stop(options.on_stop, options.drain_timeout).await;
    http.abort();
    api.abort();
    Ok(())
}

fn watch_manifests(options: &Options) -> anyhow::Result<mpsc::Receiver<Pass>> {
    manifests::watch(&options.manifests, POLL)
        .with_context(|| format!("the manifests in {} cannot be read", options.manifests.display()))
}
