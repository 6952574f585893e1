//! All of it together.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client, Config,
    api::{DynamicObject, ListParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use openelb_lab::{
    Lab,
    kube::{ControlPlane, NAMESPACE},
};
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    checker::Checker,
    collector::{self, ADDRESS, AS, PORT, SPEAKER, SPEAKER_AS},
    disruptor::Disruptor,
    load::Load,
    proxy::Proxy,
};

const PROXY: &str = "127.0.0.1:7443";
/// The speaker's way: it is given no old lists, for it announces what it is told.
const SPEAKERS_PROXY: &str = "127.0.0.1:7444";
/// The Node that the speaker is on.
pub(crate) const NODE: &str = "chaos";
/// After the last operation everything is as it should be within this time.
const SETTLE: Duration = Duration::from_secs(120);

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Services created or deleted, statuses lost, pools edited: at least so many.
    pub operations: u64,
    /// For at least so long.
    pub time: Duration,
    /// Of all that is random; what the scheduler does is not.
    pub seed: u64,
    /// Whether the API server is restarted, too.
    pub api_restarts: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { operations: 1000, time: Duration::ZERO, seed: 1, api_restarts: true }
    }
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Promises that were broken; should be empty.
    pub violations: Vec<String>,
    /// How often what was done.
    pub done: BTreeMap<&'static str, u64>,
    /// How often published addresses changed.
    pub publications: u64,
    /// How often the speaker announced an address.
    pub announcements: u64,
    /// The ends of the logs of controllers and speaker.
    pub logs: String,
}

/// Plays a plan.
///
/// # Errors
/// The lab cannot be made, or the API server does not come back.
pub fn run(name: &str, plan: Plan) -> anyhow::Result<Report> {
    let lab = Arc::new(Lab::start(name)?);
    let kube = ControlPlane::start_api(&lab)?;
    kube.install()?;
    let direct = Kubeconfig::read_from(kube.kubeconfig())?;
    kube.create_with_status(&format!(
        "{{apiVersion: v1, kind: Node, metadata: {{name: {NODE}}}, status: {{conditions: [{{type: Ready, status: 'True'}}]}}}}"
    ))?;
    kube.apply(&objects())?;
    let token = |account: &str| kube.token(NAMESPACE, account);
    let proxied = lab.write("proxied.kubeconfig", &through(PROXY, &token("openelb-controller")?))?;
    let speakers = lab.write("speaker.kubeconfig", &through(SPEAKERS_PROXY, &token("openelb-speaker")?))?;
    let stop = AtomicBool::new(false);
    let mut disruptor = Disruptor::new(&lab, &kube, [&proxied, &speakers], plan.seed, plan.api_restarts);
    let mut report = std::thread::scope(|scope| -> anyhow::Result<Report> {
        let driver = scope.spawn(|| {
            let driven = lab.within(kube.host(), || -> anyhow::Result<Report> {
                let runtime =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
                runtime.block_on(drive(direct, plan, &stop))
            });
            stop.store(true, Ordering::Relaxed);
            driven?
        });
        let disrupted = disruptor.run(&stop);
        stop.store(true, Ordering::Relaxed);
        let report = driver.join().map_err(|_| anyhow!("the load panicked"))?;
        disrupted.context("the disruptor")?;
        report
    })?;
    report.done.extend(disruptor.done.clone());
    report.logs = disruptor.logs();
    Ok(report)
}

/// A kubeconfig that leads through a proxy, with the token of a ServiceAccount.
fn through(proxy: &str, token: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Config, current-context: p, clusters: [{{name: p, cluster: {{server: 'http://{proxy}'}}}}], \
         users: [{{name: p, user: {{token: '{token}'}}}}], contexts: [{{name: p, context: {{cluster: p, user: p}}}}]}}"
    )
}

/// The speaker and its neighbour.
fn objects() -> String {
    format!(
        "
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpConf
metadata: {{name: default}}
spec: {{as: {SPEAKER_AS}, routerId: 192.0.2.32, nextHopMode: Self}}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata: {{name: collector}}
spec:
  conf: {{neighborAddress: {ADDRESS}, peerAs: {AS}}}
  transport: {{remotePort: {PORT}, localAddress: {SPEAKER}}}
  timers: {{config: {{connectRetry: '1'}}}}
"
    )
}

async fn client(kubeconfig: &Kubeconfig) -> anyhow::Result<Client> {
    let config = Config::from_custom_kubeconfig(kubeconfig.clone(), &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Nobody, at the same API server: for those who say themselves who they are.
fn without_identity(mut kubeconfig: Kubeconfig) -> Kubeconfig {
    for user in &mut kubeconfig.auth_infos {
        user.auth_info = Some(kube::config::AuthInfo::default());
    }
    kubeconfig
}

/// The load, in the API server's network.
async fn drive(direct: Kubeconfig, plan: Plan, stop: &AtomicBool) -> anyhow::Result<Report> {
    let nobody = without_identity(direct.clone());
    let proxy = Proxy::new(client(&nobody).await?, plan.seed, true);
    let server = tokio::spawn(proxy.clone().serve(PROXY.parse()?));
    let speakers = Proxy::new(client(&nobody).await?, plan.seed, false);
    let speakers_server = tokio::spawn(speakers.clone().serve(SPEAKERS_PROXY.parse()?));
    let checker = Arc::new(Mutex::new(Checker::new()));
    let watcher = tokio::spawn(watch(client(&direct).await?, Arc::clone(&checker)));
    let journal = tokio::spawn(follow_eips(client(&direct).await?, Arc::clone(&checker)));
    let mut collector = tokio::spawn(collector::follow(collector::start()?, Arc::clone(&checker)));
    let mut load = Load::new(client(&direct).await?, plan.seed, Arc::clone(&checker));
    load.create_pools().await?;
    let began = Instant::now();
    let mut number = 0;
    while number < plan.operations || began.elapsed() < plan.time {
        tokio::select! {
            step = load.step(number) => step.with_context(|| format!("operation {number}"))?,
            end = &mut collector => end?.context("the collector")?,
        }
        number += 1;
    }
    stop.store(true, Ordering::Relaxed);
    proxy.set_faulty(false);
    speakers.set_faulty(false);
    load.enable_all().await?;
    load.settled(SETTLE).await?;
    let committed = load.committed().await?;
    let mut checker = checker.lock().unwrap_or_else(PoisonError::into_inner);
    checker.settle(&committed, &load.expected());
    let mut done = load.done.clone();
    done.extend(proxy.counts());
    watcher.abort();
    journal.abort();
    server.abort();
    speakers_server.abort();
    collector.abort();
    Ok(Report {
        violations: checker.violations.clone(),
        done,
        publications: checker.publications,
        announcements: checker.announcements,
        logs: String::new(),
    })
}

/// Shows the checker every change of every Service, in the order of the API server.
async fn watch(client: Client, checker: Arc<Mutex<Checker>>) {
    let api: Api<Service> = Api::all(client);
    let name = |service: &Service| {
        let metadata = &service.metadata;
        format!(
            "{}/{}",
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default()
        )
    };
    let mut version: Option<String> = None;
    loop {
        if version.is_none() {
            match api.list(&ListParams::default()).await {
                Ok(list) => version = list.metadata.resource_version,
                Err(_) => {
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            }
        }
        let from = version.clone().unwrap_or_default();
        let Ok(events) = api.watch(&WatchParams::default(), &from).await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let mut events = Box::pin(events);
        while let Some(Ok(event)) = events.next().await {
            let mut checker = checker.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                WatchEvent::Added(service) | WatchEvent::Modified(service) => {
                    checker.apply(&name(&service), &service);
                    version.clone_from(&service.metadata.resource_version);
                }
                WatchEvent::Deleted(service) => {
                    checker.delete(&name(&service));
                    version.clone_from(&service.metadata.resource_version);
                }
                WatchEvent::Bookmark(bookmark) => version = Some(bookmark.metadata.resource_version),
                // Too old: what happened between is not seen.
                WatchEvent::Error(_) => {
                    version = None;
                    break;
                }
            }
        }
    }
}

/// Writes down what each change of an Eip's `status.used` was.
async fn follow_eips(client: Client, checker: Arc<Mutex<Checker>>) {
    let kind = GroupVersionKind::gvk("network.kubesphere.io", "v1alpha2", "Eip");
    let api: Api<DynamicObject> = Api::all_with(client, &ApiResource::from_gvk_with_plural(&kind, "eips"));
    let mut before: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    let mut version = "0".to_owned();
    loop {
        let Ok(events) = api.watch(&WatchParams::default(), &version).await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let mut events = Box::pin(events);
        while let Some(Ok(event)) = events.next().await {
            let (WatchEvent::Added(eip) | WatchEvent::Modified(eip)) = event else { continue };
            let Some(name) = eip.metadata.name.clone() else { continue };
            version = eip.metadata.resource_version.clone().unwrap_or_default();
            let used = eip.data.pointer("/status/used").cloned().unwrap_or_default();
            let used: BTreeMap<String, Value> = serde_json::from_value(used).unwrap_or_default();
            let old = before.insert(name.clone(), used.clone()).unwrap_or_default();
            let gone: Vec<_> = old.iter().filter(|entry| used.get(entry.0) != Some(entry.1)).collect();
            let new: Vec<_> = used.iter().filter(|entry| old.get(entry.0) != Some(entry.1)).collect();
            let text = format!("version {version}, gone {gone:?}, new {new:?}");
            checker.lock().unwrap_or_else(PoisonError::into_inner).note(&name, &text);
        }
        sleep(Duration::from_millis(100)).await;
    }
}
