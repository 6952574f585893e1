//! The steps of the demo without a cluster.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, bail, ensure};

use super::{
    common::{Addresses, ROUTE_DEADLINE, added, assigned, back, cut, hops, restarted, routes, traffic},
    report::{Detail, Report},
    stage::Stage,
};
use crate::{
    Process,
    client::Plan,
    eventually,
    topology::{self, NODES, Virtual, program_nodes},
};

const ASSIGNED: &str = "network.kubesphere.io/AddressAssigned";

/// Plays all steps.
pub(super) fn play(stage: &Stage<'_>, report: &mut Report) {
    let Some(bird) =
        report.step("Router: BIRD, one BGP session for each node", |_| topology::start_router(stage.lab))
    else {
        return;
    };
    let started = report.step("Nodes: openelbd standalone on each, one state directory, no cluster", |_| {
        let start = |n| topology::start_node(stage.lab, &stage.openelbd, n, &stage.manifests, &stage.state);
        NODES.into_iter().map(start).collect::<anyhow::Result<Vec<Process>>>()
    });
    let Some(nodes) = started else { return };
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
        added(stage, &addresses.web, d, |added| {
            services.push(Virtual { addresses: added.to_vec(), port: 80 });
            program_nodes(stage.lab, &services)
        })
    });
    report.step("Restart: openelbd on node-3 is killed and comes back; downloads through it go on", |d| {
        restarted(stage, &bird, &addresses.web, d, || {
            let process = nodes.last().context("there is no node-3")?;
            stage.lab.signal(process, "KILL")?;
            stage.lab.wait_exit(process, Duration::from_secs(5))?;
            topology::start_node(stage.lab, &stage.openelbd, 3, &stage.manifests, &stage.state).map(drop)
        })
    });
    report.step("Failure: the uplink of node-2 is cut off silently", |d| cut(stage, &addresses.web, d));
    report.step("Return: node-2 is back", |d| back(stage, &addresses.web, d));
    report.step("A bad manifest: named, ignored, nothing lost", |d| bad(stage, &addresses, d));
    report.step("A full pool: the pending Service says why; then the pool grows", |d| full(stage, d));
    report.step("A Service is deleted: route withdrawn, address used again", |d| {
        deleted(stage, &addresses.api, d)
    });
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
