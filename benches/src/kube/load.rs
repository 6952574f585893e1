//! What is asked of the API server: objects, waiting for addresses and routes, bare patches.

use std::{
    collections::{BTreeMap, HashSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    core::{ApiResource, GroupVersionKind, PartialObjectMeta, Request},
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};

use super::{cluster::NODE, system::System};
use crate::collector::Arrivals;

const NAMESPACE: &str = "default";
/// MetalLB takes minutes for 10,000 routes.
const WITHIN: Duration = Duration::from_secs(900);
/// Requests at a time while objects are prepared.
const PREPARING: usize = 32;

fn services(client: &Client) -> Api<Service> {
    Api::namespaced(client.clone(), NAMESPACE)
}

fn eips(client: &Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("network.kubesphere.io", "v1alpha2", "Eip");
    Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&kind, "eips"))
}

fn service(name: &str, pool: Option<usize>) -> anyhow::Result<Service> {
    let mut annotations = BTreeMap::from([("lb.kubesphere.io/v1alpha1", "openelb".to_owned())]);
    for key in ["eip.openelb.kubesphere.io/v1alpha2", "metallb.io/address-pool"] {
        annotations.extend(pool.map(|pool| (key, format!("pool-{pool}"))));
    }
    Ok(serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]},
    }))?)
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

/// Gives Services that may not exist yet a ready endpoint, without which MetalLB does not announce them.
async fn create_endpoints(client: &Client, prefix: &str, count: usize) -> anyhow::Result<()> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
    let slice = |number: usize| {
        let name = format!("{prefix}-{number}");
        serde_json::from_value::<EndpointSlice>(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "endpoints": [{"addresses": ["10.244.1.10"], "nodeName": NODE, "conditions": {"ready": true}}],
        }))
    };
    let all: Vec<EndpointSlice> = (0..count).map(slice).collect::<Result<_, _>>()?;
    stream::iter(all)
        .map(|slice| {
            let api = api.clone();
            async move { api.create(&PostParams::default(), &slice).await }
        })
        .buffer_unordered(PREPARING)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(())
}

fn address(service: &Service) -> Option<Ipv4Addr> {
    let status = service.status.as_ref()?.load_balancer.as_ref()?;
    status.ingress.as_ref()?.first()?.ip.as_ref()?.parse().ok()
}

fn ingress(service: &Service) -> bool {
    address(service).is_some()
}

/// What is of interest of a Service that waits.
#[derive(Clone, Deserialize)]
struct Waiting {
    metadata: WaitingMetadata,
    status: Option<WaitingStatus>,
}

#[derive(Clone, Deserialize)]
struct WaitingMetadata {
    name: String,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WaitingStatus {
    load_balancer: Option<WaitingBalancer>,
}

#[derive(Clone, Deserialize)]
struct WaitingBalancer {
    ingress: Option<Vec<IgnoredAny>>,
}

/// Makes the pool that all wait for; the time until a watcher has seen the last of `count` Services with an address.
pub(super) async fn assign_all(client: Client, system: System, count: usize) -> anyhow::Result<Duration> {
    let (_, took) = until_assigned(&client, count, system.create_pool(&client, 0)).await?;
    Ok(took)
}

/// Does something; the time from there until a watcher has seen `count` Services with an address.
///
/// Reads by halves: whoever measures shares the machine.
async fn until_assigned<T>(
    client: &Client,
    count: usize,
    what: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(T, Duration)> {
    let mut watcher = Watcher::begin(client.clone()).await?;
    let began = Instant::now();
    let (done, seen) = tokio::join!(what, watcher.wait_for(count, began + WITHIN));
    let done = done?;
    seen?;
    Ok((done, began.elapsed()))
}

/// Who counts the Services that have an address.
struct Watcher {
    client: Client,
    assigned: HashSet<String>,
    version: String,
}

impl Watcher {
    async fn begin(client: Client) -> anyhow::Result<Self> {
        let mut watcher = Self { client, assigned: HashSet::new(), version: String::new() };
        watcher.list().await?;
        Ok(watcher)
    }

    async fn list(&mut self) -> anyhow::Result<()> {
        let list = services(&self.client).list(&ListParams::default()).await?;
        self.version = list.metadata.resource_version.context("a list without version")?;
        let assigned = list.items.into_iter().filter(ingress);
        self.assigned.extend(assigned.filter_map(|service| service.metadata.name));
        Ok(())
    }

    async fn wait_for(&mut self, count: usize, until: Instant) -> anyhow::Result<()> {
        loop {
            self.watch(count, until).await?;
            if self.assigned.len() >= count {
                return Ok(());
            }
            // The server ended the watch.
            self.list().await?;
        }
    }

    /// Until all are assigned, or the watch ends.
    async fn watch(&mut self, count: usize, until: Instant) -> anyhow::Result<()> {
        let request = Request::new("/api/v1/namespaces/default/services")
            .watch(&WatchParams::default().timeout(290), &self.version)?;
        let mut events = Box::pin(self.client.request_events::<Waiting>(request).await?);
        while self.assigned.len() < count {
            let assigned = self.assigned.len();
            ensure!(Instant::now() < until, "{assigned} of {count} assigned within {WITHIN:?}");
            match tokio::time::timeout(Duration::from_secs(10), events.next()).await {
                Ok(Some(Ok(WatchEvent::Added(service) | WatchEvent::Modified(service)))) => {
                    let ingress = service.status.and_then(|status| status.load_balancer?.ingress);
                    if ingress.is_some_and(|ingress| !ingress.is_empty()) {
                        self.assigned.insert(service.metadata.name);
                    }
                }
                Ok(Some(Ok(WatchEvent::Error(_)) | Err(_)) | None) => break,
                // Nothing for a while, or of no interest.
                Ok(Some(Ok(_))) | Err(_) => {}
            }
        }
        Ok(())
    }
}

/// A condition as the controller writes it.
fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": format!("network.kubesphere.io/{kind}"), "status": status, "reason": reason,
           "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

/// What an assignment writes.
fn status_patch(address: &str) -> Value {
    let told = format!("{address} from Eip pool-0");
    let conditions =
        ["AddressAssigned", "RequestHonoured"].map(|kind| condition(kind, "True", "Assigned", &told));
    json!({
        "metadata": {
            "labels": {"eip.openelb.kubesphere.io/v1alpha2": "pool-0"},
            "annotations": {"openelb.kubesphere.io/assigned": format!("{{\"addresses\":{{\"{address}\":\"pool-0\"}}}}")},
        },
        "status": {
            "loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"}]},
            "conditions": conditions,
        },
    })
}

/// Tells `count` Services that they wait, as the controller does before there is a pool: what is assigned later is to
/// be written over the same objects.
pub(super) async fn tell_waiting(client: Client, count: usize) -> anyhow::Result<()> {
    let told = "there is no Eip that could give an IPv4 address";
    let conditions =
        ["AddressAssigned", "RequestHonoured"].map(|kind| condition(kind, "False", "NoPool", told));
    let patch = json!({"status": {"conditions": conditions}});
    patch_all(&client, count, PREPARING, |_| patch.clone()).await
}

/// Bare patches of `services/status` of the Services `waiting-N`, so many at a time.
async fn patch_all(
    client: &Client,
    count: usize,
    at_a_time: usize,
    patch: impl Fn(usize) -> Value,
) -> anyhow::Result<()> {
    let api = services(client);
    stream::iter(0..count)
        .map(|number| {
            let (api, patch) = (api.clone(), Patch::Merge(patch(number)));
            async move {
                api.patch_status(&format!("waiting-{number}"), &PatchParams::default(), &patch).await
            }
        })
        .buffer_unordered(at_a_time)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(())
}

/// `count` bare patches of `services/status` of the Services `waiting-N`, so many at a time, until the same watcher has
/// seen the last of them.
pub(super) async fn floor(client: Client, count: usize, at_a_time: usize) -> anyhow::Result<Duration> {
    let patch = |number| status_patch(&format!("10.0.{}.{}", number / 256, number % 256));
    let (_, took) = until_assigned(&client, count, patch_all(&client, count, at_a_time, patch)).await?;
    Ok(took)
}

/// Makes `count` Services over so many pools, and waits for their addresses.
pub(super) async fn fill(client: Client, system: System, count: usize, pools: usize) -> anyhow::Result<()> {
    for number in 0..pools {
        system.create_pool(&client, number).await?;
    }
    if system == System::MetalLb {
        create_endpoints(&client, "present", count).await?;
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

/// How long one Service waited.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    /// From its creation until a watcher saw its ingress.
    pub(super) ingress: Duration,
    /// From its creation until the router had its route.
    pub(super) route: Duration,
}

/// Makes Services one after the other; how long each waits.
pub(super) async fn one_by_one(
    client: Client,
    system: System,
    count: usize,
    arrivals: &Arrivals,
) -> anyhow::Result<Vec<Wait>> {
    if system == System::MetalLb {
        create_endpoints(&client, "new", count).await?;
    }
    let api = services(&client);
    let list = api.list(&ListParams::default().limit(1)).await?;
    let version = list.metadata.resource_version.context("a list without version")?;
    let mut events = Box::pin(api.watch(&WatchParams::default().timeout(290), &version).await?);
    let mut waits = Vec::new();
    for number in 0..count {
        let name = format!("new-{number}");
        api.create(&PostParams::default(), &service(&name, Some(0))?).await?;
        let created = Instant::now();
        let address = loop {
            let event = tokio::time::timeout(Duration::from_secs(30), events.next())
                .await
                .with_context(|| format!("{name} got no address"))?;
            match event.context("the watch ended")?? {
                WatchEvent::Modified(service) if service.metadata.name.as_deref() == Some(&name) => {
                    if let Some(address) = address(&service) {
                        break address;
                    }
                }
                _ => {}
            }
        };
        let ingress = created.elapsed();
        let arrived = loop {
            if let Some(arrived) = arrivals.of(address) {
                break arrived;
            }
            ensure!(created.elapsed() < Duration::from_secs(30), "{address} of {name} was not announced");
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        waits.push(Wait { ingress, route: arrived.saturating_duration_since(created) });
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    Ok(waits)
}

/// Waits until the router has so many routes; when the last one came, and in how many UPDATEs.
pub(super) fn all_routes(arrivals: &Arrivals, count: usize) -> anyhow::Result<(Instant, u64)> {
    let began = Instant::now();
    loop {
        let (routes, last, updates) = arrivals.total();
        if let (true, Some(last)) = (routes >= count, last) {
            return Ok((last, updates));
        }
        ensure!(began.elapsed() < WITHIN, "{routes} of {count} routes within {WITHIN:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Makes `count` Services with published addresses of the default pool.
pub(super) async fn publish(client: Client, system: System, count: usize) -> anyhow::Result<()> {
    system.create_pool(&client, 0).await?;
    if system == System::MetalLb {
        create_endpoints(&client, "waiting", count).await?;
    }
    create(&client, "waiting", count, |_| None).await?;
    floor(client, count, PREPARING).await?;
    Ok(())
}

/// One write of the status of the default pool, then one of a Service's, as often as asked.
///
/// Each is of the kind that serves best: for a big status, to send it as a whole and to ask for the metadata alone.
pub(super) async fn two_writes(client: Client, count: usize) -> anyhow::Result<Vec<Duration>> {
    let (services, eips) = (services(&client), eips(&client));
    let pool = eips.get("pool-0").await?;
    let mut status = pool.data.get("status").cloned().context("the pool has no status")?;
    let mut version = pool.metadata.resource_version.context("a pool without version")?;
    let mut times = Vec::new();
    for number in 0..count {
        let name = format!("bare-{number}");
        services.create(&PostParams::default(), &service(&name, Some(0))?).await?;
        let began = Instant::now();
        let address = format!("10.0.255.{number}");
        *status.pointer_mut("/usage").context("the pool says no usage")? = json!(number);
        let used = status.pointer_mut("/used").and_then(Value::as_object_mut);
        used.context("nothing of the pool is used")?
            .insert(address.clone(), json!(format!("default/{name}")));
        version = replace_status(&client, "pool-0", &version, &status).await?;
        services.patch_status(&name, &PatchParams::default(), &Patch::Merge(status_patch(&address))).await?;
        times.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    Ok(times)
}

/// Writes the status of an Eip of this version; the version that it has then.
async fn replace_status(
    client: &Client,
    name: &str,
    version: &str,
    status: &Value,
) -> anyhow::Result<String> {
    let body = json!({
        "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip",
        "metadata": {"name": name, "resourceVersion": version}, "status": status,
    });
    let path = format!("/apis/network.kubesphere.io/v1alpha2/eips/{name}/status?fieldValidation=Ignore");
    let request = http::Request::put(path)
        .header("content-type", "application/json")
        .header("accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
        .body(body.to_string().into_bytes())?;
    let answer: PartialObjectMeta<DynamicObject> = client.request(request).await?;
    answer.metadata.resource_version.context("an answer without version")
}
