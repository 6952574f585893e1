//! Steps that are the same with and without a cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, ensure};

use super::{report::Detail, stage::Stage};
use crate::{
    bird::{Bird, kernel_next_hops},
    client::{Figures, Plan},
    download::Downloads,
    eventually,
    topology::{self, CLIENT, NODES, ROUTER, node, node_of, node_v4, node_v6},
};

pub(super) const ROUTE_DEADLINE: Duration = Duration::from_secs(60);
/// The hold time of the demo's BgpPeer.
const HOLD_TIME: Duration = Duration::from_secs(9);

/// Who announces an address of this family.
pub(super) fn hops(address: IpAddr, nodes: impl IntoIterator<Item = u8>) -> Vec<IpAddr> {
    nodes.into_iter().map(|n| if address.is_ipv4() { node_v4(n) } else { node_v6(n) }).collect()
}

/// The addresses of the demo's Services.
pub(super) struct Addresses {
    pub(super) web: Vec<IpAddr>,
    pub(super) api: Vec<IpAddr>,
    pub(super) all: Vec<IpAddr>,
}

pub(super) fn assigned(stage: &Stage<'_>, d: &mut Detail) -> anyhow::Result<Addresses> {
    let (web, took) = stage.await_addresses("default", "web", 2)?;
    d.say(format!("default/web (dual stack) has {} and {}", show(web.first()), show(web.get(1))));
    d.time("assigned_s", took);
    let (api, _) = stage.await_addresses("default", "api", 1)?;
    d.say(format!("default/api has {}, the address that it asked for", show(api.first())));
    ensure!(api == ["198.51.100.17".parse::<IpAddr>()?], "default/api asked for 198.51.100.17");
    let eip = stage.object("eips", "_", "web")?;
    let usage = eip.pointer("/status/usage").and_then(serde_json::Value::as_u64);
    d.say(format!(
        "Eip web: usage {}, poolSize {}",
        usage.unwrap_or_default(),
        eip.pointer("/status/poolSize").unwrap_or(&serde_json::Value::Null)
    ));
    ensure!(usage == Some(3), "usage should be 3");
    let all = web.iter().chain(&api).copied().collect();
    Ok(Addresses { web, api, all })
}

pub(super) fn show(address: Option<&IpAddr>) -> String {
    address.map_or_else(|| "none".to_owned(), ToString::to_string)
}

pub(super) fn routes(
    stage: &Stage<'_>,
    bird: &Bird<'_>,
    addresses: &[IpAddr],
    d: &mut Detail,
) -> anyhow::Result<()> {
    let what = "three established sessions";
    let (_, took) =
        eventually(what, ROUTE_DEADLINE, || Ok((bird.established()? == NODES.len()).then_some(())))?;
    d.say("BIRD: three sessions are Established");
    d.time("established_s", took);
    for address in addresses {
        stage.await_route(*address, &hops(*address, NODES), ROUTE_DEADLINE)?;
        let told = bird.ask(&format!("show route for {address}"))?;
        let from_bgp = told.lines().filter(|line| line.trim_start().starts_with("via ")).count();
        ensure!(from_bgp == NODES.len(), "BIRD has {from_bgp} routes for {address}: {told}");
        let hops: Vec<_> = hops(*address, NODES).iter().map(ToString::to_string).collect();
        d.say(format!("{address}: {from_bgp} routes in BIRD, in the kernel via {}", hops.join(", ")));
    }
    Ok(())
}

/// How the requests were spread over the nodes.
pub(super) fn spread(seen: &Figures) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut nodes = BTreeMap::new();
    for (remote, count) in &seen.remotes {
        let number = node_of(remote.parse()?).with_context(|| format!("{remote} is no node"))?;
        *nodes.entry(node(number)).or_default() += count;
    }
    Ok(nodes)
}

pub(super) fn traffic(stage: &Stage<'_>, web: &[IpAddr], d: &mut Detail) -> anyhow::Result<()> {
    for address in web {
        // An answer is one flow, and goes over one node.
        eventually("answers over every node", ROUTE_DEADLINE, || {
            let seen = stage.requests("warm", *address, 80, 60)?;
            ensure!(seen.failed == 0 && spread(&seen)?.len() == NODES.len(), "{seen:?}");
            Ok(Some(()))
        })?;
        let seen = stage.requests("requests", *address, 80, 300)?;
        let nodes = spread(&seen)?;
        let pods: BTreeSet<_> = seen.pods.keys().cloned().collect();
        d.say(format!(
            "{address}: {} requests, {} failed; by node {nodes:?}; by pod {:?}",
            seen.requests, seen.failed, seen.pods
        ));
        d.count(&format!("failed_{}", if address.is_ipv4() { "ipv4" } else { "ipv6" }), seen.failed);
        for (node, count) in &nodes {
            d.count(&format!("{node}_{}", if address.is_ipv4() { "ipv4" } else { "ipv6" }), *count);
        }
        ensure!(seen.failed == 0, "{} requests failed: {:?}", seen.failed, seen.errors);
        ensure!(nodes.len() == NODES.len(), "not every node got requests");
        ensure!(pods.len() == NODES.len(), "not every pod got requests");
        // 300 flows over three equal routes: 100 each with a standard deviation of 8; 50 would be six of them.
        ensure!(nodes.values().all(|count| *count >= 50), "the spread is not even");
    }
    Ok(())
}

const ADDED: &str = r#"apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata:
  name: added
spec:
  address: 198.51.100.128/30
  avoidNetworkAndBroadcast: true
  protocol: bgp
---
apiVersion: v1
kind: Service
metadata:
  name: added
  namespace: default
  annotations:
    lb.kubesphere.io/v1alpha1: openelb
    eip.openelb.kubesphere.io/v1alpha2: added
spec:
  type: LoadBalancer
  ipFamilies: [IPv4]
  selector: {app: web}
  ports:
    - {name: http, port: 80, targetPort: 8080, protocol: TCP}
"#;

pub(super) fn added(
    stage: &Stage<'_>,
    web: &[IpAddr],
    d: &mut Detail,
    carry: impl FnOnce(&[IpAddr]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let first = *web.first().context("web has no address")?;
    let plan = Plan { count: 10_000, interval: Duration::from_millis(20), timeout: Duration::from_secs(2) };
    let running = stage.client("meanwhile", first, 80, plan)?;
    stage.apply("60-added.yaml", ADDED)?;
    let (addresses, took) = stage.await_addresses("default", "added", 1)?;
    let address = *addresses.first().context("no address")?;
    d.say(format!("default/added has {address} after {:.0} ms", took.as_secs_f64() * 1000.0));
    d.time("assigned_s", took);
    let took = stage.await_route(address, &hops(address, NODES), ROUTE_DEADLINE)?;
    d.say(format!("the router has three next hops for it {:.0} ms later", took.as_secs_f64() * 1000.0));
    d.time("routed_s", took);
    carry(&addresses)?;
    stage.await_answer(address, 80)?;
    let meanwhile = running.stop(Duration::from_secs(10))?;
    d.say(format!(
        "it answers; meanwhile {} requests to {first}: {} failed",
        meanwhile.requests, meanwhile.failed
    ));
    d.count("meanwhile_failed", meanwhile.failed);
    ensure!(meanwhile.failed == 0, "requests to another Service failed: {:?}", meanwhile.errors);
    Ok(())
}

/// So many downloads at once: that none of them goes over one node of three has the odds of 1 to 130.
const DOWNLOADS: usize = 12;

/// A speaker dies and comes back: the router keeps its routes (graceful restart), and the node forwards.
pub(super) fn restarted(
    stage: &Stage<'_>,
    bird: &Bird<'_>,
    web: &[IpAddr],
    d: &mut Detail,
    restart: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let first = *web.first().context("web has no address")?;
    let downloads =
        Downloads::start(stage.lab, CLIENT, SocketAddr::new(first, 80), DOWNLOADS, Duration::from_secs(4))?;
    restart()?;
    let wanted = hops(first, NODES);
    let mut changed = None;
    let what = "three established sessions";
    let (_, took) = eventually(what, ROUTE_DEADLINE, || {
        let seen = kernel_next_hops(stage.lab, ROUTER, first)?;
        if seen != wanted {
            changed = Some(seen);
        }
        Ok((changed.is_some() || bird.established()? == NODES.len()).then_some(()))
    })?;
    ensure!(changed.is_none(), "the router changed its route to {first}: {changed:?}");
    d.say(format!(
        "the session is Established again after {:.1} s; the router had three next hops all the time",
        took.as_secs_f64()
    ));
    d.time("back_s", took);
    let broken = downloads.finish();
    d.say(format!("{DOWNLOADS} downloads of 4 s went on meanwhile, {} broke", broken.len()));
    d.count("downloads_broken", broken.len());
    ensure!(broken.is_empty(), "downloads broke: {broken:?}");
    Ok(())
}

pub(super) fn cut(stage: &Stage<'_>, web: &[IpAddr], d: &mut Detail) -> anyhow::Result<()> {
    let plan = Plan { count: 10_000, interval: Duration::from_millis(10), timeout: Duration::from_secs(1) };
    let clients = web
        .iter()
        .map(|address| Ok((*address, stage.client(&format!("cut-{address}"), *address, 80, plan)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    topology::cut_off(stage.lab, 2)?;
    let mut last = Duration::ZERO;
    for address in web {
        last += stage.await_route(*address, &hops(*address, [1, 3]), HOLD_TIME + Duration::from_secs(6))?;
    }
    d.say(format!(
        "the routes over node-2 are gone after {:.1} s (hold time {} s)",
        last.as_secs_f64(),
        HOLD_TIME.as_secs()
    ));
    d.time("route_gone_s", last);
    for (address, client) in clients {
        let seen = client.stop(Duration::from_secs(15))?;
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        d.say(format!(
            "{address}: {} requests meanwhile, {} failed over {:.1} s: those that the router still sent to node-2",
            seen.requests,
            seen.failed,
            seen.outage_ms / 1000.0
        ));
        d.count(&format!("requests_{family}"), seen.requests);
        d.count(&format!("failed_{family}"), seen.failed);
    }
    for address in web {
        let after = stage.requests("after", *address, 80, 100)?;
        let nodes = spread(&after)?;
        d.say(format!("{address}: then 100 requests, {} failed; by node {nodes:?}", after.failed));
        ensure!(after.failed == 0, "requests fail without node-2: {:?}", after.errors);
        ensure!(!nodes.contains_key("node-2"), "node-2 still gets requests");
    }
    Ok(())
}

pub(super) fn back(stage: &Stage<'_>, web: &[IpAddr], d: &mut Detail) -> anyhow::Result<()> {
    topology::plug_in(stage.lab, 2)?;
    let mut took = Duration::ZERO;
    for address in web {
        took += stage.await_route(*address, &hops(*address, NODES), Duration::from_secs(30))?;
    }
    d.say(format!("three next hops again after {:.1} s", took.as_secs_f64()));
    d.time("back_s", took);
    let first = *web.first().context("web has no address")?;
    let seen = stage.requests("back", first, 80, 100)?;
    let nodes = spread(&seen)?;
    d.say(format!("100 requests: {} failed; by node {nodes:?}", seen.failed));
    ensure!(seen.failed == 0 && nodes.len() == NODES.len(), "not all nodes carry traffic again");
    Ok(())
}
