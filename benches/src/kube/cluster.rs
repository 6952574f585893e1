//! The API server of a measurement, its load, and the controller under test.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client, Config,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use openelb_lab::{Lab, Process, binary, eventually, kube::ControlPlane};
use serde_json::{Value, json};

const NAMESPACE: &str = "default";
const WITHIN: Duration = Duration::from_secs(600);
/// Requests at a time while objects are prepared.
const PREPARING: usize = 32;
const METRICS: &str = "127.0.0.1:50052";

/// An API server in a lab of its own.
pub(super) struct Cluster {
    lab: Arc<Lab>,
    kube: ControlPlane,
}

/// `openelbd controller`.
pub(super) struct Controller<'a> {
    cluster: &'a Cluster,
    process: Process,
    serving_after: Duration,
}

impl Cluster {
    pub(super) fn start(name: &str) -> anyhow::Result<Self> {
        let lab = Arc::new(Lab::start(name)?);
        let kube = ControlPlane::start_api(&lab)?;
        kube.apply_crds()?;
        kube.apply("{apiVersion: v1, kind: Namespace, metadata: {name: openelb-system}}")?;
        Ok(Self { lab, kube })
    }

    /// Runs code with a client in the API server's network.
    pub(super) fn run<T: Send, F: Future<Output = anyhow::Result<T>>>(
        &self,
        code: impl FnOnce(Client) -> F + Send,
    ) -> anyhow::Result<T> {
        let kubeconfig = Kubeconfig::read_from(self.kube.kubeconfig())?;
        self.lab.within(self.kube.host(), || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let config =
                    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
                code(Client::try_from(config)?).await
            })
        })?
    }

    pub(super) fn start_controller(&self) -> anyhow::Result<Controller<'_>> {
        let program = binary("openelbd")?;
        let began = Instant::now();
        let arguments: [&str; 8] = [
            program.to_str().context("the path of openelbd is not text")?,
            "controller",
            "--kubeconfig",
            self.kube.kubeconfig().to_str().context("the path of the kubeconfig is not text")?,
            "--metrics-addr",
            METRICS,
            "--log-level",
            "warn",
        ];
        let process = self.lab.spawn("controller", self.kube.host(), &arguments)?;
        let mut controller = Controller { cluster: self, process, serving_after: Duration::ZERO };
        eventually("the controller leads and is ready", Duration::from_secs(60), || {
            let ready = controller.get("readyz").is_ok();
            Ok((ready && controller.leads()?).then_some(()))
        })?;
        controller.serving_after = began.elapsed();
        Ok(controller)
    }
}

impl Controller<'_> {
    fn get(&self, path: &str) -> anyhow::Result<String> {
        let url = format!("http://{METRICS}/{path}");
        self.cluster.lab.run(self.cluster.kube.host(), &["curl", "-fsS", "--max-time", "5", &url])
    }

    fn leads(&self) -> anyhow::Result<bool> {
        let lease =
            self.cluster.kube.get("leases.coordination.k8s.io", "openelb-system", "openelb-controller");
        Ok(lease.is_ok_and(|lease| {
            let holder = lease.pointer("/spec/holderIdentity").and_then(Value::as_str);
            holder.is_some_and(|holder| !holder.is_empty())
        }))
    }

    /// Writes to the API server so far, but for the Lease and events.
    pub(super) fn writes(&self) -> anyhow::Result<u64> {
        let text = self.get("metrics")?;
        let counted = text.lines().filter(|line| line.starts_with("openelb_store_writes_total{"));
        counted.map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse::<u64>()?)).sum()
    }

    pub(super) fn resident(&self) -> anyhow::Result<u64> {
        Ok(openelb_lab::idle::usage(&self.cluster.lab, &self.process)?.0)
    }

    /// From its start until it said that it is ready.
    pub(super) fn serving_after(&self) -> Duration {
        self.serving_after
    }

    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.cluster.lab.signal(&self.process, "TERM")?;
        self.cluster.lab.wait_exit(&self.process, Duration::from_secs(10))?;
        Ok(())
    }

    pub(super) fn restart(self) -> anyhow::Result<Self> {
        let cluster = self.cluster;
        self.stop()?;
        cluster.start_controller()
    }
}

fn services(client: &Client) -> Api<Service> {
    Api::namespaced(client.clone(), NAMESPACE)
}

fn eips(client: &Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("network.kubesphere.io", "v1alpha2", "Eip");
    Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&kind, "eips"))
}

fn service(name: &str, pool: Option<usize>) -> anyhow::Result<Service> {
    let mut annotations = BTreeMap::from([("lb.kubesphere.io/v1alpha1", "openelb".to_owned())]);
    annotations.extend(pool.map(|pool| ("eip.openelb.kubesphere.io/v1alpha2", format!("pool-{pool}"))));
    Ok(serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]},
    }))?)
}

async fn create_pool(client: &Client, number: usize, default: bool) -> anyhow::Result<()> {
    let kind = GroupVersionKind::gvk("network.kubesphere.io", "v1alpha2", "Eip");
    let resource = ApiResource::from_gvk_with_plural(&kind, "eips");
    let mut pool = DynamicObject::new(&format!("pool-{number}"), &resource);
    if default {
        let key = "eip.openelb.kubesphere.io/is-default-eip".to_owned();
        pool.metadata.annotations = Some(BTreeMap::from([(key, "true".to_owned())]));
    }
    pool.data = json!({"spec": {"address": format!("10.{number}.0.0/16"), "protocol": "none"}});
    eips(client).create(&PostParams::default(), &pool).await?;
    Ok(())
}

/// Creates Services that ask for the default pool.
pub(super) async fn create_services(client: Client, prefix: &str, count: usize) -> anyhow::Result<()> {
    create(&client, prefix, count, |_| None).await
}

async fn create(
    client: &Client,
    prefix: &str,
    count: usize,
    pool: impl Fn(usize) -> Option<usize>,
) -> anyhow::Result<()> {
    let api = services(client);
    let all: Vec<Service> =
        (0..count).map(|n| service(&format!("{prefix}-{n}"), pool(n))).collect::<anyhow::Result<_>>()?;
    stream::iter(all)
        .map(|service| {
            let api = api.clone();
            async move { api.create(&PostParams::default(), &service).await }
        })
        .buffer_unordered(PREPARING)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(())
}

fn ingress(service: &Service) -> bool {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.and_then(|status| status.ingress.as_ref()).is_some_and(|ingress| !ingress.is_empty())
}

/// Makes the pool that all wait for; the time until the last of `count` Services has an address.
pub(super) async fn assign_all(client: Client, count: usize) -> anyhow::Result<Duration> {
    let api = services(&client);
    let list = api.list(&ListParams::default()).await?;
    let version = list.metadata.resource_version.context("a list without version")?;
    let mut assigned: std::collections::HashSet<String> = std::collections::HashSet::new();
    let mut events = Box::pin(api.watch(&WatchParams::default().timeout(290), &version).await?);
    let began = Instant::now();
    create_pool(&client, 0, true).await?;
    while assigned.len() < count {
        ensure!(began.elapsed() < WITHIN, "{} of {count} assigned within {WITHIN:?}", assigned.len());
        match tokio::time::timeout(Duration::from_secs(60), events.next()).await {
            Ok(Some(Ok(WatchEvent::Added(service) | WatchEvent::Modified(service)))) if ingress(&service) => {
                assigned.extend(service.metadata.name);
            }
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(error))) => return Err(error.into()),
            Ok(None) | Err(_) => bail!("the watch ended with {} of {count} assigned", assigned.len()),
        }
    }
    Ok(began.elapsed())
}

/// What an assignment writes.
fn status_patch(address: &str) -> Value {
    let now = "2026-01-01T00:00:00Z";
    let condition = |kind: &str| {
        json!({"type": format!("network.kubesphere.io/{kind}"), "status": "True", "reason": "Assigned",
               "message": format!("{address} from Eip pool-0"), "lastTransitionTime": now})
    };
    json!({
        "metadata": {
            "labels": {"eip.openelb.kubesphere.io/v1alpha2": "pool-0"},
            "annotations": {"openelb.kubesphere.io/assigned": format!("{{\"addresses\":{{\"{address}\":\"pool-0\"}}}}")},
        },
        "status": {
            "loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"}]},
            "conditions": [condition("AddressAssigned"), condition("RequestHonoured")],
        },
    })
}

/// `count` bare patches of `services/status`, so many at a time.
pub(super) async fn floor(client: Client, count: usize, at_a_time: usize) -> anyhow::Result<Duration> {
    create(&client, "floor", count, |_| None).await?;
    let api = services(&client);
    let began = Instant::now();
    stream::iter(0..count)
        .map(|number| {
            let api = api.clone();
            let patch = Patch::Merge(status_patch(&format!("10.0.{}.{}", number / 256, number % 256)));
            async move { api.patch_status(&format!("floor-{number}"), &PatchParams::default(), &patch).await }
        })
        .buffer_unordered(at_a_time)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(began.elapsed())
}

/// Makes `count` Services over so many pools, and waits for their addresses.
pub(super) async fn fill(client: Client, count: usize, pools: usize) -> anyhow::Result<()> {
    for number in 0..pools {
        create_pool(&client, number, number == 0).await?;
    }
    create(&client, "present", count, |number| Some(number % pools)).await?;
    let api = services(&client);
    super::until("all present Services assigned", WITHIN, || async {
        let list = api.list(&ListParams::default()).await?;
        let assigned = list.items.iter().filter(|service| ingress(service)).count();
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok((assigned == count).then_some(()))
    })
    .await
}

/// Makes Services one after the other; how long each waits from its creation to its ingress, as a watcher sees it.
pub(super) async fn one_by_one(client: Client, count: usize) -> anyhow::Result<Vec<Duration>> {
    let api = services(&client);
    let list = api.list(&ListParams::default().limit(1)).await?;
    let version = list.metadata.resource_version.context("a list without version")?;
    let mut events = Box::pin(api.watch(&WatchParams::default().timeout(290), &version).await?);
    let mut waits = Vec::new();
    for number in 0..count {
        let name = format!("new-{number}");
        api.create(&PostParams::default(), &service(&name, None)?).await?;
        let created = Instant::now();
        loop {
            let event = tokio::time::timeout(Duration::from_secs(30), events.next())
                .await
                .with_context(|| format!("{name} got no address"))?;
            match event.context("the watch ended")?? {
                WatchEvent::Modified(service)
                    if service.metadata.name.as_deref() == Some(&name) && ingress(&service) =>
                {
                    break;
                }
                _ => {}
            }
        }
        waits.push(created.elapsed());
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    Ok(waits)
}

/// One patch of the status of the default pool, then one of a Service's, as often as asked.
pub(super) async fn two_patches(client: Client, count: usize) -> anyhow::Result<Vec<Duration>> {
    let (services, eips) = (services(&client), eips(&client));
    let mut times = Vec::new();
    for number in 0..count {
        let name = format!("bare-{number}");
        services.create(&PostParams::default(), &service(&name, None)?).await?;
        let began = Instant::now();
        let address = format!("10.0.255.{number}");
        let used = json!({"status": {"used": {&address: format!("default/{name}")}, "usage": number}});
        eips.patch_status("pool-0", &PatchParams::default(), &Patch::Merge(used)).await?;
        services.patch_status(&name, &PatchParams::default(), &Patch::Merge(status_patch(&address))).await?;
        times.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    Ok(times)
}
