//! Services that come, change and go; statuses that get lost; pools that are edited.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::checker::Checker;

const NAMESPACE: &str = "default";
/// Between so many Services are there at a time.
const FEWEST: usize = 20;
const MOST: usize = 70;

/// Addresses of the pools; each is bigger than [`MOST`], so that nobody has to wait for good.
pub(crate) const POOLS: [(&str, &str); 3] =
    [("a", "198.51.100.0-198.51.100.99"), ("b", "203.0.113.0/24"), ("c", "2001:db8:1::/64")];
/// The first when it is shrunk. Who lives outside of it stays.
const SHRUNK: &str = "198.51.100.0-198.51.100.19";
/// The second when it is split. Who lives in the second half is taken over by the new one.
const HALVES: [&str; 2] = ["203.0.113.0/25", "203.0.113.128/25"];
const SECOND_HALF: &str = "b-2";

/// Of every request: the plain ones.
#[derive(Default)]
struct Parameters {
    post: PostParams,
    plain: PatchParams,
    delete: DeleteParams,
    list: ListParams,
}

pub(crate) struct Load {
    parameters: Parameters,
    services: Api<Service>,
    eips: Api<DynamicObject>,
    random: fastrand::Rng,
    checker: Arc<Mutex<Checker>>,
    /// Names, and whether they can be changed freely.
    live: BTreeMap<String, String>,
    made: u64,
    /// Names of pools that give nothing new for now, and until which operation.
    disabled: BTreeMap<String, u64>,
    grown: u64,
    /// Until which operation the first pool is shrunk.
    shrunk: Option<u64>,
    split: bool,
    pub(crate) done: BTreeMap<&'static str, u64>,
}

impl Load {
    pub(crate) fn new(client: Client, seed: u64, checker: Arc<Mutex<Checker>>) -> Self {
        let kind = GroupVersionKind::gvk("network.kubesphere.io", "v1alpha2", "Eip");
        let resource = ApiResource::from_gvk_with_plural(&kind, "eips");
        Self {
            parameters: Parameters::default(),
            services: Api::namespaced(client.clone(), NAMESPACE),
            eips: Api::all_with(client, &resource),
            random: fastrand::Rng::with_seed(seed),
            checker,
            live: BTreeMap::new(),
            made: 0,
            disabled: BTreeMap::new(),
            grown: 0,
            shrunk: None,
            split: false,
            done: BTreeMap::new(),
        }
    }

    pub(crate) async fn create_pools(&self) -> anyhow::Result<()> {
        for (name, address) in POOLS {
            self.create_pool(name, address).await?;
        }
        Ok(())
    }

    async fn create_pool(&self, name: &str, address: &str) -> anyhow::Result<()> {
        let pool = json!({
            "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip",
            "metadata": {"name": name, "annotations": {"eip.openelb.kubesphere.io/is-default-eip": (name == "a").to_string()}},
            // The session of the speaker has IPv4 alone.
            "spec": {"address": address, "protocol": if name == "c" { "none" } else { "bgp" },
                     "autoAssign": name != "b" && name != SECOND_HALF, "priority": 1},
        });
        let pool: DynamicObject = serde_json::from_value(pool)?;
        again(|| self.eips.create(&self.parameters.post, &pool)).await?;
        Ok(())
    }

    /// The Services that must have an address in the end.
    pub(crate) fn expected(&self) -> Vec<String> {
        self.live.keys().map(|name| format!("{NAMESPACE}/{name}")).collect()
    }

    /// One operation.
    pub(crate) async fn step(&mut self, number: u64) -> anyhow::Result<()> {
        for name in self.enabled_by(number) {
            self.set_disabled(&name, false).await?;
        }
        if self.shrunk.is_some_and(|until| until <= number) {
            self.set_shrunk(None).await?;
        }
        let roll = self.random.u32(0..1000);
        match roll {
            0..12 => self.lose_service_status().await?,
            12..18 => self.lose_eip_status().await?,
            18..30 => self.flip_type().await?,
            30..36 => {
                let pool = POOLS.get(self.random.usize(0..POOLS.len())).map_or("a", |pool| pool.0);
                self.disabled.insert(pool.to_owned(), number + 25);
                self.set_disabled(pool, true).await?;
            }
            36..42 => self.grow().await?,
            42..48 => self.set_shrunk(Some(number + 25)).await?,
            48..60 if !self.split => self.split().await?,
            _ if self.live.len() >= MOST => self.delete().await?,
            _ if self.live.len() <= FEWEST => self.create().await?,
            _ if self.random.bool() => self.create().await?,
            _ => self.delete().await?,
        }
        sleep(Duration::from_millis(self.random.u64(0..60))).await;
        Ok(())
    }

    /// All pools give again.
    pub(crate) async fn enable_all(&mut self) -> anyhow::Result<()> {
        self.set_shrunk(None).await?;
        for name in self.enabled_by(u64::MAX) {
            self.set_disabled(&name, false).await?;
        }
        Ok(())
    }

    fn enabled_by(&mut self, number: u64) -> Vec<String> {
        let due: Vec<String> = self
            .disabled
            .iter()
            .filter(|(_, until)| **until <= number)
            .map(|(name, _)| name.clone())
            .collect();
        for name in &due {
            self.disabled.remove(name);
        }
        due
    }

    fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    async fn create(&mut self) -> anyhow::Result<()> {
        self.made += 1;
        let name = format!("s-{}", self.made);
        let mut annotations = BTreeMap::from([("lb.kubesphere.io/v1alpha1", "openelb".to_owned())]);
        let mut dual = json!({});
        let mut spec = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
                              "ports": [{"port": 1000 + self.made % 30000}]});
        match self.random.u32(0..10) {
            0 => {
                annotations.insert("eip.openelb.kubesphere.io/v1alpha2", "b".to_owned());
            }
            1 => {
                // Each number once at a time, so that nobody waits for another's; and soon again, on both sides of where
                // the pool is split, for another Service.
                let address = format!("203.0.113.{}", 118 + self.made % 20);
                let taken = self.live.values().any(|asked| *asked == address);
                if !taken {
                    annotations.insert("eip.openelb.kubesphere.io/v1alpha1", address);
                }
            }
            2 => {
                annotations.insert("openelb.kubesphere.io/allow-shared-ip", "shared".to_owned());
            }
            3 => {
                dual = json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4", "IPv6"]});
            }
            _ => {}
        }
        if let (Value::Object(spec), Value::Object(dual)) = (&mut spec, dual) {
            spec.extend(dual);
        }
        let asked = annotations.get("eip.openelb.kubesphere.io/v1alpha1").cloned().unwrap_or_default();
        let service: Service = serde_json::from_value(
            json!({"metadata": {"name": name, "annotations": annotations}, "spec": spec}),
        )?;
        again(|| self.services.create(&self.parameters.post, &service)).await?;
        self.live.insert(name, asked);
        self.count("created");
        Ok(())
    }

    fn pick(&mut self) -> Option<String> {
        let at = self.random.usize(0..self.live.len().max(1));
        self.live.keys().nth(at).cloned()
    }

    async fn delete(&mut self) -> anyhow::Result<()> {
        let Some(name) = self.pick() else { return Ok(()) };
        self.live.remove(&name);
        again(|| self.services.delete(&name, &self.parameters.delete)).await?;
        self.count("deleted");
        Ok(())
    }

    async fn uid(&self, name: &str) -> anyhow::Result<String> {
        let service = again(|| self.services.get(name)).await?;
        service.context("a Service that is there")?.metadata.uid.context("a uid")
    }

    fn excuse(&self, uid: &str, forget: bool) {
        self.checker.lock().unwrap_or_else(PoisonError::into_inner).excuse(uid, forget);
    }

    async fn lose_service_status(&mut self) -> anyhow::Result<()> {
        // Only where the rest can tell what it was.
        if !self.settles().await? {
            return Ok(());
        }
        let Some(name) = self.pick() else { return Ok(()) };
        self.excuse(&self.uid(&name).await?, false);
        let nothing = Patch::Merge(json!({"status": {"loadBalancer": null, "conditions": null}}));
        again(|| self.services.patch_status(&name, &self.parameters.plain, &nothing)).await?;
        self.count("status of a Service lost");
        Ok(())
    }

    async fn lose_eip_status(&mut self) -> anyhow::Result<()> {
        // Nothing but the record says whose an address is that no pool has.
        if self.shrunk.is_some() || !self.settles().await? {
            return Ok(());
        }
        let pool = POOLS.get(self.random.usize(0..POOLS.len())).map_or("a", |pool| pool.0);
        let nothing = Patch::Merge(json!({"status": null}));
        again(|| self.eips.patch_status(pool, &self.parameters.plain, &nothing)).await?;
        self.count("status of an Eip lost");
        Ok(())
    }

    async fn flip_type(&mut self) -> anyhow::Result<()> {
        let Some(name) = self.pick() else { return Ok(()) };
        self.excuse(&self.uid(&name).await?, true);
        for kind in ["ClusterIP", "LoadBalancer"] {
            let patch = Patch::Merge(json!({"spec": {"type": kind, "allocateLoadBalancerNodePorts": null}}));
            again(|| self.services.patch(&name, &self.parameters.plain, &patch)).await?;
            sleep(Duration::from_millis(self.random.u64(0..300))).await;
        }
        self.excuse(&self.uid(&name).await?, true);
        self.count("type changed");
        Ok(())
    }

    async fn set_disabled(&mut self, pool: &str, disabled: bool) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({"spec": {"disable": disabled}}));
        again(|| self.eips.patch(pool, &self.parameters.plain, &patch)).await?;
        self.count("pool disabled or enabled");
        Ok(())
    }

    async fn grow(&mut self) -> anyhow::Result<()> {
        self.grown += 1;
        self.count("pool grown");
        self.write_first().await
    }

    async fn set_shrunk(&mut self, until: Option<u64>) -> anyhow::Result<()> {
        if until.is_some() {
            self.count("pool shrunk");
        }
        self.shrunk = until;
        self.write_first().await
    }

    /// The ranges of the first pool as they are now.
    async fn write_first(&self) -> anyhow::Result<()> {
        let mut address = if self.shrunk.is_some() { SHRUNK } else { POOLS[0].1 }.to_owned();
        if self.grown > 0 {
            address.push_str(&format!(", 192.0.2.0-192.0.2.{}", self.grown.min(200)));
        }
        let patch = Patch::Merge(json!({"spec": {"address": address, "priority": self.grown.max(1)}}));
        again(|| self.eips.patch(POOLS[0].0, &self.parameters.plain, &patch)).await?;
        Ok(())
    }

    /// The second pool becomes two, for good.
    async fn split(&mut self) -> anyhow::Result<()> {
        self.split = true;
        let patch = Patch::Merge(json!({"spec": {"address": HALVES[0]}}));
        again(|| self.eips.patch(POOLS[1].0, &self.parameters.plain, &patch)).await?;
        sleep(Duration::from_millis(self.random.u64(0..1000))).await;
        self.create_pool(SECOND_HALF, HALVES[1]).await?;
        self.count("pool split");
        Ok(())
    }

    /// Who holds what, over all Eips.
    pub(crate) async fn committed(&self) -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
        let list = again(|| self.eips.list(&self.parameters.list)).await?.context("a list of Eips")?;
        let mut committed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for eip in list {
            let used =
                eip.data.pointer("/status/used").and_then(Value::as_object).cloned().unwrap_or_default();
            for (address, holders) in used {
                let holders = holders.as_str().unwrap_or_default().split(';').map(str::to_owned);
                committed.entry(address).or_default().extend(holders);
            }
        }
        Ok(committed)
    }

    /// Waits until everything is as it should be, while things go wrong. It has to be in time.
    async fn settles(&self) -> anyhow::Result<bool> {
        let settled = self.settled(Duration::from_secs(90)).await?;
        if !settled {
            let committed = self.committed().await?;
            let mut checker = self.checker.lock().unwrap_or_else(PoisonError::into_inner);
            checker.note_unsettled(&committed, &[]);
        }
        Ok(settled)
    }

    /// Waits until everything is as it should be; `false` if it is not in time (pools may be disabled).
    pub(crate) async fn settled(&self, within: Duration) -> anyhow::Result<bool> {
        let expected =
            if self.disabled.is_empty() && self.shrunk.is_none() { self.expected() } else { Vec::new() };
        let began = Instant::now();
        loop {
            let committed = self.committed().await?;
            let problems = {
                let checker = self.checker.lock().unwrap_or_else(PoisonError::into_inner);
                checker.unsettled(&committed, &expected)
            };
            if problems.is_empty() {
                return Ok(true);
            }
            if began.elapsed() > within {
                return Ok(false);
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Asks until the API server answers: it is restarted now and then. `None`: somebody (we, unheard) did it before.
async fn again<T, F: Future<Output = Result<T, kube::Error>>>(
    mut ask: impl FnMut() -> F,
) -> anyhow::Result<Option<T>> {
    let began = Instant::now();
    loop {
        match tokio::time::timeout(Duration::from_secs(5), ask()).await {
            Ok(Ok(answer)) => return Ok(Some(answer)),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => return Ok(None),
            Ok(Err(kube::Error::Api(status))) if status.code < 500 && status.code != 429 => {
                return Err(kube::Error::Api(status).into());
            }
            Ok(Err(error)) if began.elapsed() > Duration::from_secs(60) => return Err(error.into()),
            Err(error) if began.elapsed() > Duration::from_secs(60) => return Err(error.into()),
            Ok(Err(_)) | Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}
