//! The steps of the demo.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use anyhow::{Context, bail, ensure};

use super::{
    report::{Detail, Report},
    stage::Stage,
};
use crate::{
    bird::Bird,
    client::{Figures, Plan},
    eventually,
    topology::{self, NODES, Virtual, node, node_of, node_v4, node_v6, program_nodes},
};

const ROUTE_DEADLINE: Duration = Duration::from_secs(20);
/// The hold time of the demo's BgpPeer.
const HOLD_TIME: Duration = Duration::from_secs(9);
const ASSIGNED: &str = "network.kubesphere.io/AddressAssigned";

/// Who announces an address of this family.
fn hops(address: IpAddr, nodes: impl IntoIterator<Item = u8>) -> Vec<IpAddr> {
    nodes.into_iter().map(|n| if address.is_ipv4() { node_v4(n) } else { node_v6(n) }).collect()
}

/// Plays all steps.
pub(super) fn play(stage: &Stage<'_>, report: &mut Report) {
    let Some(bird) =
        report.step("Router: BIRD, one BGP session for each node", |_| topology::start_router(stage.lab))
    else {
        return;
    };
    let started = report.step("Nodes: openelbd standalone on each, one state directory, no cluster", |_| {
        for n in NODES {
            topology::start_node(stage.lab, &stage.openelbd, n, &stage.manifests, &stage.state)?;
        }
        Ok(())
    });
    if started.is_none() {
        return;
    }
    let Some(addresses) =
        report.step("Addresses: two Services get theirs from the pool", |d| assigned(stage, d))
    else {
        return;
    };
    report.step("Routes: three next hops for each address in the router", |d| {
        routes(stage, &bird, &addresses.all, d)
    });
    let mut services = vec![
        Virtual { addresses: addresses.web.clone(), port: 80 },
        Virtual { addresses: addresses.api.clone(), port: 8080 },
    ];
    report.step("Traffic: 300 requests, and how they spread over the nodes", |d| {
        program_nodes(stage.lab, &services)?;
        traffic(stage, &addresses.web, d)
    });
    report.step("Live: an Eip and a Service are added, nothing is restarted", |d| {
        added(stage, &mut services, &addresses.web, d)
    });
    report.step("Failure: the uplink of node-2 is cut off silently", |d| cut(stage, &addresses.web, d));
    report.step("Return: node-2 is back", |d| back(stage, &addresses.web, d));
    report.step("A bad manifest: named, ignored, nothing lost", |d| bad(stage, &addresses, d));
    report.step("A full pool: the pending Service says why; then the pool grows", |d| full(stage, d));
    report.step("A Service is deleted: route withdrawn, address used again", |d| {
        deleted(stage, &addresses.api, d)
    });
}

struct Addresses {
    web: Vec<IpAddr>,
    api: Vec<IpAddr>,
    all: Vec<IpAddr>,
}

fn assigned(stage: &Stage<'_>, d: &mut Detail) -> anyhow::Result<Addresses> {
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

fn show(address: Option<&IpAddr>) -> String {
    address.map_or_else(|| "none".to_owned(), ToString::to_string)
}

fn routes(stage: &Stage<'_>, bird: &Bird<'_>, addresses: &[IpAddr], d: &mut Detail) -> anyhow::Result<()> {
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
fn spread(seen: &Figures) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut nodes = BTreeMap::new();
    for (remote, count) in &seen.remotes {
        let number = node_of(remote.parse()?).with_context(|| format!("{remote} is no node"))?;
        *nodes.entry(node(number)).or_default() += count;
    }
    Ok(nodes)
}

fn traffic(stage: &Stage<'_>, web: &[IpAddr], d: &mut Detail) -> anyhow::Result<()> {
    for address in web {
        stage.await_answer(*address, 80)?;
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

fn added(
    stage: &Stage<'_>,
    services: &mut Vec<Virtual>,
    web: &[IpAddr],
    d: &mut Detail,
) -> anyhow::Result<()> {
    let first = *web.first().context("web has no address")?;
    let plan = Plan { count: 10_000, interval: Duration::from_millis(20), timeout: Duration::from_secs(2) };
    let running = stage.client("meanwhile", first, 80, plan)?;
    stage.write_manifest("60-added.yaml", ADDED)?;
    let (addresses, took) = stage.await_addresses("default", "added", 1)?;
    let address = *addresses.first().context("no address")?;
    d.say(format!("default/added has {address} after {:.0} ms", took.as_secs_f64() * 1000.0));
    d.time("assigned_s", took);
    let took = stage.await_route(address, &hops(address, NODES), ROUTE_DEADLINE)?;
    d.say(format!("the router has three next hops for it {:.0} ms later", took.as_secs_f64() * 1000.0));
    d.time("routed_s", took);
    services.push(Virtual { addresses, port: 80 });
    program_nodes(stage.lab, services)?;
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

fn cut(stage: &Stage<'_>, web: &[IpAddr], d: &mut Detail) -> anyhow::Result<()> {
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

fn back(stage: &Stage<'_>, web: &[IpAddr], d: &mut Detail) -> anyhow::Result<()> {
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

const BAD: &str = "apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata:
  name: broken
spec:
  address: 198.51.100.300-198.51.100.310
  protocol: bgp
---
apiVersion: v1
kind: Service
metadata: {name: broken, namespace: default
";

fn bad(stage: &Stage<'_>, addresses: &Addresses, d: &mut Detail) -> anyhow::Result<()> {
    let first = *addresses.web.first().context("web has no address")?;
    let plan = Plan { count: 10_000, interval: Duration::from_millis(10), timeout: Duration::from_secs(2) };
    let running = stage.client("bad", first, 80, plan)?;
    stage.write_manifest("70-bad.yaml", BAD)?;
    let (line, _) = eventually("a word about 70-bad.yaml in the logs", Duration::from_secs(10), || {
        Ok(stage.logs().lines().find(|line| line.contains("70-bad.yaml")).map(str::to_owned))
    })?;
    d.say(format!("the log names it: {}", shorten(&line)));
    let openelbd = stage.openelbd.to_string_lossy().into_owned();
    let manifests = stage.manifests.to_string_lossy().into_owned();
    let output = stage.lab.command("node-1", &[&openelbd, "validate", "-f", &manifests]).output()?;
    ensure!(
        output.status.code() == Some(1),
        "openelbd validate should exit 1, not {:?}",
        output.status.code()
    );
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines().filter(|line| line.contains("70-bad") || line.contains("198.51.100.300")).take(4)
    {
        d.say(format!("openelbd validate: {}", shorten(line)));
    }
    ensure!(text.contains("198.51.100.300"), "openelbd validate does not name the address: {text}");
    ensure!(stage.addresses("default", "web")? == addresses.web, "default/web lost its addresses");
    for address in &addresses.all {
        stage.await_route(*address, &hops(*address, NODES), Duration::from_secs(2))?;
    }
    let meanwhile = running.stop(Duration::from_secs(10))?;
    d.say(format!(
        "every address and every route is where it was; {} requests meanwhile, {} failed",
        meanwhile.requests, meanwhile.failed
    ));
    ensure!(meanwhile.failed == 0, "requests failed: {:?}", meanwhile.errors);
    stage.delete_manifest("70-bad.yaml")
}

fn shorten(line: &str) -> String {
    if line.chars().count() <= 220 {
        line.to_owned()
    } else {
        line.chars().take(219).chain(['…']).collect()
    }
}

fn small(name: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: small
  annotations:
    lb.kubesphere.io/v1alpha1: openelb
spec:
  type: LoadBalancer
  ipFamilies: [IPv4]
  ports:
    - {{name: http, port: 80, targetPort: 8080, protocol: TCP}}
"
    )
}

fn full(stage: &Stage<'_>, d: &mut Detail) -> anyhow::Result<()> {
    let text: String = ["one", "three", "two"].iter().map(|name| small(name)).collect();
    stage.write_manifest("80-small.yaml", &text)?;
    let what = "a pending Service with the reason PoolExhausted";
    let ((name, message), _) = eventually(what, Duration::from_secs(10), || {
        for name in ["one", "three", "two"] {
            let service = stage.object("services", "small", name)?;
            if let Some((_, reason, message)) = Stage::condition(&service, ASSIGNED)
                && reason == "PoolExhausted"
            {
                return Ok(Some((name, message)));
            }
        }
        Ok(None)
    })?;
    d.say(format!("small/{name} is pending: PoolExhausted: {}", shorten(&message)));
    ensure!(stage.addresses("small", name)?.is_empty(), "it has an address all the same");
    stage.edit_manifest("10-pools.yaml", "198.51.100.64-198.51.100.65", "198.51.100.64-198.51.100.70")?;
    let (addresses, took) = stage.await_addresses("small", name, 1)?;
    let address = *addresses.first().context("no address")?;
    d.say(format!("the pool grew; {:.0} ms later it has {address}", took.as_secs_f64() * 1000.0));
    d.time("assigned_after_growth_s", took);
    ensure!(address == "198.51.100.66".parse::<IpAddr>()?, "the lowest new address is 198.51.100.66");
    stage.await_route(address, &hops(address, NODES), ROUTE_DEADLINE)?;
    d.say("and a route over three nodes");
    Ok(())
}

fn deleted(stage: &Stage<'_>, api: &[IpAddr], d: &mut Detail) -> anyhow::Result<()> {
    let Some(&address) = api.first() else { bail!("default/api has no address") };
    let manifest = std::fs::read_to_string(stage.manifests.join("40-services.yaml"))?;
    let (web, api) = manifest.split_once("---").context("40-services.yaml has two documents")?;
    stage.write_manifest("40-services.yaml", web)?;
    let took = stage.await_route(address, &[], ROUTE_DEADLINE)?;
    d.say(format!("{address}: withdrawn after {:.0} ms", took.as_secs_f64() * 1000.0));
    d.time("withdrawn_s", took);
    // Another Service asks for the same address, under another name.
    stage.write_manifest("90-reuse.yaml", &format!("---{}", api.replace("name: api", "name: reuse")))?;
    let (addresses, _) = stage.await_addresses("default", "reuse", 1)?;
    ensure!(addresses == [address], "default/reuse has {addresses:?}");
    stage.await_route(address, &hops(address, NODES), ROUTE_DEADLINE)?;
    let took = stage.await_answer(address, 8080)?;
    d.say(format!(
        "default/reuse has {address}, over three nodes, and answers after {:.0} ms",
        took.as_secs_f64() * 1000.0
    ));
    Ok(())
}
