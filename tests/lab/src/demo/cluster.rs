//! The steps of the demo on a real control plane.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context, ensure};

use super::{
    common::{ROUTE_DEADLINE, added, assigned, back, cut, hops, routes, traffic},
    report::{Detail, Report},
    stage::Stage,
};
use crate::{
    Lab, Process,
    client::{self, Plan},
    download::Downloads,
    eventually,
    kube::{Cluster, Place, ProxyMode},
    topology::{self, CLIENT, NODES, node},
};

const NAMESPACE: &str = "openelb-system";
/// The Service of the API server, as nodes with kube-proxy reach it.
const API_SERVICE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)), 443);
/// Where controller and speaker serve `/readyz`.
const CONTROLLER_PORT: u16 = 50052;
const SPEAKER_PORT: u16 = 50053;
/// Two replicas of the controller, on hosts of their own in the pod network.
const REPLICAS: [u8; 2] = [1, 2];
/// A new leader may come when the Lease of the killed one has run out.
const LEADER_DEADLINE: Duration = Duration::from_secs(60);

pub(super) fn start(d: &mut Detail) -> anyhow::Result<Cluster> {
    let cluster = Cluster::start("demo-kube", ProxyMode::Nftables)?;
    cluster.lab.network(|network| {
        for n in REPLICAS {
            let host = format!("controller-{n}");
            network.host(&host);
            network.plug("podnet", (&host, "eth0", &[&format!("172.30.0.2{n}/24")]));
        }
    })?;
    d.say(format!("in {}, in namespaces of its own", cluster.lab.path().display()));
    let version = cluster.kube.kubectl(&["version"])?;
    let version = version.lines().find(|line| line.starts_with("Server")).unwrap_or_default();
    d.say(format!("{version}, at {}", cluster.kube.address()));
    Ok(cluster)
}

/// Plays all steps.
pub(super) fn play(cluster: &Cluster, stage: &Stage<'_>, report: &mut Report) {
    let Some(bird) =
        report.step("Router: BIRD, one BGP session for each node", |_| topology::start_router(stage.lab))
    else {
        return;
    };
    let installed = report
        .step("Install: kubectl apply of the definitions, roles and workloads", |d| install(cluster, d));
    if installed.is_none() {
        return;
    }
    let Some(mut controllers) = report
        .step("Controllers: two replicas with their ServiceAccount; one leads", |d| {
            start_controllers(cluster, stage, d)
        })
    else {
        return;
    };
    let Some(mut speakers) = report.step("Speakers: one on each node", |d| start_speakers(cluster, stage, d))
    else {
        return;
    };
    let Some(addresses) = report.step("Addresses: kubectl apply of pools and two Services", |d| {
        for file in ["10-pools.yaml", "20-bgp.yaml", "40-services.yaml"] {
            cluster.kube.apply_path(&stage.manifests.join(file))?;
        }
        assigned(stage, d)
    }) else {
        return;
    };
    report.step("Routes: three next hops for each address in the router", |d| {
        routes(stage, &bird, &addresses.all, d)
    });
    report.step("Traffic: 300 requests through kube-proxy, and how they spread", |d| {
        traffic(stage, &addresses.web, d)
    });
    report.step("Live: an Eip and a Service are added, nothing is restarted", |d| {
        added(stage, &addresses.web, d, |_| Ok(()))
    });
    report.step("Failure: the controller that leads is killed", |d| {
        kill_leader(cluster, stage, &mut controllers, &addresses.web, d)
    });
    report.step("Failure: the speaker of node-3 is killed, and started again", |d| {
        kill_speaker(cluster, stage, &mut speakers, &addresses.web, d)
    });
    report.step("Failure: the uplink of node-2 is cut off silently", |d| cut(stage, &addresses.web, d));
    report.step("Return: node-2 is back", |d| back(stage, &addresses.web, d));
    report.step("Failure: the API server is away; everything stays", |d| {
        api_away(cluster, stage, &addresses.all, d)
    });
    report.step("A Service is deleted: route withdrawn, address free", |d| {
        deleted(cluster, stage, &addresses.api, d)
    });
}

fn install(cluster: &Cluster, d: &mut Detail) -> anyhow::Result<()> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/openelb.yaml");
    let applied = cluster.kube.apply_path(&manifest)?;
    d.say(format!("kubectl apply -f deploy/openelb.yaml: {} objects", applied.lines().count()));
    cluster.kube.wait_crds()?;
    let definitions = cluster.kube.list("customresourcedefinitions")?.len();
    d.say(format!("{definitions} CustomResourceDefinitions are established"));
    Ok(())
}

fn start_controller(cluster: &Cluster, stage: &Stage<'_>, n: u8) -> anyhow::Result<Process> {
    let host = format!("controller-{n}");
    let place = Place { host: &host, node: &node(n), api: cluster.kube.address() };
    cluster.kube.start_workload(("deployments", NAMESPACE, "openelb-controller"), &stage.openelbd, place)
}

fn start_speaker(cluster: &Cluster, stage: &Stage<'_>, n: u8) -> anyhow::Result<Process> {
    let host = node(n);
    let place = Place { host: &host, node: &host, api: API_SERVICE };
    cluster.kube.start_workload(("daemonsets", NAMESPACE, "openelb-speaker"), &stage.openelbd, place)
}

/// Waits until a process says that it is ready.
fn await_ready(stage: &Stage<'_>, process: &Process, host: &str, port: u16) -> anyhow::Result<Duration> {
    let target = SocketAddr::from(([127, 0, 0, 1], port));
    let (runs, took) = eventually(&format!("a ready process on {host}"), Duration::from_secs(30), || {
        if !stage.lab.is_running(process) {
            return Ok(Some(false));
        }
        let (status, body) = client::get(stage.lab, host, target, "/readyz")?;
        ensure!(status == 200, "{status} {body}");
        Ok(Some(true))
    })?;
    ensure!(runs, "{} ended: {}", process.name, Lab::log_tail(process, 3));
    Ok(took)
}

/// Who leads: 1 or 2.
fn leader(cluster: &Cluster) -> anyhow::Result<Option<u8>> {
    let lease = cluster.kube.get("leases", NAMESPACE, "openelb-controller")?;
    let holder =
        lease.pointer("/spec/holderIdentity").and_then(serde_json::Value::as_str).unwrap_or_default();
    Ok(REPLICAS.into_iter().find(|n| holder.contains(&format!("controller-{n}"))))
}

fn start_controllers(cluster: &Cluster, stage: &Stage<'_>, d: &mut Detail) -> anyhow::Result<Vec<Process>> {
    let processes =
        REPLICAS.iter().map(|n| start_controller(cluster, stage, *n)).collect::<anyhow::Result<Vec<_>>>()?;
    let (leads, took) = eventually("a leader", LEADER_DEADLINE, || leader(cluster))?;
    d.say(format!("controller-{leads} leads after {:.0} ms", took.as_secs_f64() * 1000.0));
    for (n, process) in REPLICAS.into_iter().zip(&processes) {
        await_ready(stage, process, &format!("controller-{n}"), CONTROLLER_PORT)?;
    }
    d.say("both are ready");
    Ok(processes)
}

fn start_speakers(cluster: &Cluster, stage: &Stage<'_>, d: &mut Detail) -> anyhow::Result<Vec<Process>> {
    let processes =
        NODES.iter().map(|n| start_speaker(cluster, stage, *n)).collect::<anyhow::Result<Vec<_>>>()?;
    for (n, process) in NODES.into_iter().zip(&processes) {
        await_ready(stage, process, &node(n), SPEAKER_PORT)?;
    }
    d.say("three are ready");
    Ok(processes)
}

const AFTERWARDS: &str = "apiVersion: v1
kind: Service
metadata: {name: afterwards, namespace: default, annotations: {lb.kubesphere.io/v1alpha1: openelb}}
spec:
  type: LoadBalancer
  ipFamilies: [IPv4]
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
";

/// Requests to an address while something happens.
const MEANWHILE: Plan =
    Plan { count: 100_000, interval: Duration::from_millis(20), timeout: Duration::from_secs(2) };

fn kill_leader(
    cluster: &Cluster,
    stage: &Stage<'_>,
    controllers: &mut [Process],
    web: &[IpAddr],
    d: &mut Detail,
) -> anyhow::Result<()> {
    let first = *web.first().context("web has no address")?;
    let running = stage.client("leader-killed", first, 80, MEANWHILE)?;
    let leads = leader(cluster)?.context("nobody leads")?;
    let process = controllers.get_mut(usize::from(leads) - 1).context("no such replica")?;
    stage.lab.signal(process, "KILL")?;
    cluster.kube.apply(AFTERWARDS)?;
    let (next, took) = eventually("another leader", LEADER_DEADLINE, || {
        Ok(leader(cluster)?.filter(|leader| *leader != leads))
    })?;
    d.say(format!("controller-{leads} killed; controller-{next} leads after {:.1} s", took.as_secs_f64()));
    d.time("leader_s", took);
    let (addresses, _) = stage.await_addresses("default", "afterwards", 1)?;
    let address = *addresses.first().context("no address")?;
    let took = stage.await_route(address, &hops(address, NODES), ROUTE_DEADLINE)?;
    d.say(format!("a new Service has {address}, and its routes {:.0} ms later", took.as_secs_f64() * 1000.0));
    ensure!(stage.addresses("default", "web")? == web, "default/web has other addresses now");
    let meanwhile = running.stop(Duration::from_secs(10))?;
    d.say(format!("{} requests meanwhile, {} failed", meanwhile.requests, meanwhile.failed));
    d.count("meanwhile_failed", meanwhile.failed);
    ensure!(meanwhile.failed == 0, "requests failed: {:?}", meanwhile.errors);
    *process = start_controller(cluster, stage, leads)?;
    await_ready(stage, process, &format!("controller-{leads}"), CONTROLLER_PORT)?;
    d.say(format!("controller-{leads} is back, and follows"));
    ensure!(leader(cluster)? == Some(next), "the lead moved without need");
    Ok(())
}

fn kill_speaker(
    cluster: &Cluster,
    stage: &Stage<'_>,
    speakers: &mut [Process],
    web: &[IpAddr],
    d: &mut Detail,
) -> anyhow::Result<()> {
    let first = *web.first().context("web has no address")?;
    let running = stage.client("speaker-killed", first, 80, MEANWHILE)?;
    let target = SocketAddr::new(first, 80);
    let downloads = Downloads::start(stage.lab, CLIENT, target, 12, Duration::from_secs(4))?;
    let process = speakers.get_mut(2).context("no speaker on node-3")?;
    stage.lab.signal(process, "KILL")?;
    stage.lab.wait_exit(process, Duration::from_secs(5))?;
    *process = start_speaker(cluster, stage, 3)?;
    let took = await_ready(stage, process, "node-3", SPEAKER_PORT)?;
    d.say(format!("killed, and ready again after {:.1} s", took.as_secs_f64()));
    let mut routed = Duration::ZERO;
    for address in web {
        routed += stage.await_route(*address, &hops(*address, NODES), ROUTE_DEADLINE)?;
    }
    d.say(format!("the router has three next hops {:.1} s later", routed.as_secs_f64()));
    d.time("back_s", took + routed);
    ensure!(stage.addresses("default", "web")? == web, "default/web has other addresses now");
    let broken = downloads.finish();
    d.say(format!("12 downloads went on meanwhile, {} broke", broken.len()));
    d.count("downloads_broken", broken.len());
    ensure!(broken.is_empty(), "downloads broke: {broken:?}");
    let meanwhile = running.stop(Duration::from_secs(10))?;
    d.say(format!("{} requests meanwhile, {} failed", meanwhile.requests, meanwhile.failed));
    d.count("meanwhile_failed", meanwhile.failed);
    // A flow whose node changes while it is open is reset there; these last for a millisecond each.
    ensure!(meanwhile.failed * 100 <= meanwhile.requests, "requests failed: {:?}", meanwhile.errors);
    Ok(())
}

fn api_away(
    cluster: &Cluster,
    stage: &Stage<'_>,
    addresses: &[IpAddr],
    d: &mut Detail,
) -> anyhow::Result<()> {
    let first = *addresses.first().context("no address")?;
    let running = stage.client("api-away", first, 80, MEANWHILE)?;
    cluster.kube.kill_api()?;
    let without = without_api(stage, addresses, d);
    // In any case: the next steps need it.
    cluster.kube.start_api_again()?;
    without?;
    let (_, took) = eventually("a leader", LEADER_DEADLINE, || leader(cluster))?;
    d.say(format!("it is back; a leader after {:.1} s", took.as_secs_f64()));
    let meanwhile = running.stop(Duration::from_secs(10))?;
    d.say(format!("{} requests in all, {} failed", meanwhile.requests, meanwhile.failed));
    ensure!(meanwhile.failed == 0, "requests failed: {:?}", meanwhile.errors);
    for address in addresses {
        stage.await_route(*address, &hops(*address, NODES), Duration::from_secs(1))?;
    }
    Ok(())
}

fn without_api(stage: &Stage<'_>, addresses: &[IpAddr], d: &mut Detail) -> anyhow::Result<()> {
    let first = *addresses.first().context("no address")?;
    let seen = stage.requests("without", first, 80, 300)?;
    d.say(format!("the API server is killed; {} requests, {} failed", seen.requests, seen.failed));
    ensure!(seen.failed == 0, "requests failed: {:?}", seen.errors);
    for address in addresses {
        stage.await_route(*address, &hops(*address, NODES), Duration::from_secs(1))?;
    }
    Ok(())
}

fn deleted(cluster: &Cluster, stage: &Stage<'_>, api: &[IpAddr], d: &mut Detail) -> anyhow::Result<()> {
    let address = *api.first().context("default/api has no address")?;
    cluster.kube.kubectl(&["delete", "service", "api", "--wait=false"])?;
    let took = stage.await_route(address, &[], ROUTE_DEADLINE)?;
    d.say(format!("{address}: withdrawn after {:.0} ms", took.as_secs_f64() * 1000.0));
    d.time("withdrawn_s", took);
    let used = || -> anyhow::Result<bool> {
        let eip = stage.object("eips", "_", "web")?;
        Ok(eip.pointer("/status/used").is_some_and(|used| used.get(address.to_string()).is_some()))
    };
    let (_, took) = eventually("a free address", ROUTE_DEADLINE, || Ok((!used()?).then_some(())))?;
    d.say(format!("and free in Eip web {:.0} ms later", took.as_secs_f64() * 1000.0));
    let gone = cluster.kube.get("services", "default", "api").is_err();
    ensure!(gone, "default/api is still there");
    Ok(())
}
