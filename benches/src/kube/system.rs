//! Who assigns and announces: OpenELB, or MetalLB beside it.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use kube::{
    Api, Client,
    api::{DynamicObject, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use openelb_lab::eventually;
use serde_json::{Value, json};

use super::cluster::{Cluster, NODE, ROUTER_V4, Running};
use crate::collector;

/// Names the directory with MetalLB's `controller`, `speaker` and `crds/`.
const METALLB: &str = "OPENELB_BENCH_METALLB";
const METALLB_NAMESPACE: &str = "metallb-system";
/// The AS number of the nodes.
const NODES_AS: u16 = 65000;

/// A load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    /// Ours; whether its addresses are announced.
    OpenElb { announced: bool },
    /// MetalLB, in native BGP mode.
    MetalLb,
}

impl System {
    /// Makes `10.NUMBER.0.0/16` a pool; number 0 is the default one.
    pub(super) async fn create_pool(self, client: &Client, number: usize) -> anyhow::Result<()> {
        let range = format!("10.{number}.0.0/16");
        let name = format!("pool-{number}");
        match self {
            Self::OpenElb { announced } => {
                let kind = GroupVersionKind::gvk("network.kubesphere.io", "v1alpha2", "Eip");
                let resource = ApiResource::from_gvk_with_plural(&kind, "eips");
                let mut pool = DynamicObject::new(&name, &resource);
                if number == 0 {
                    let key = "eip.openelb.kubesphere.io/is-default-eip".to_owned();
                    pool.metadata.annotations = Some([(key, "true".to_owned())].into());
                }
                let protocol = if announced { "bgp" } else { "none" };
                pool.data = json!({"spec": {"address": range, "protocol": protocol}});
                let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
                api.create(&PostParams::default(), &pool).await?;
            }
            Self::MetalLb => {
                let kind = GroupVersionKind::gvk("metallb.io", "v1beta1", "IPAddressPool");
                let resource = ApiResource::from_gvk_with_plural(&kind, "ipaddresspools");
                let mut pool = DynamicObject::new(&name, &resource);
                pool.data = json!({"spec": {"addresses": [range], "autoAssign": number == 0}});
                let api: Api<DynamicObject> =
                    Api::namespaced_with(client.clone(), METALLB_NAMESPACE, &resource);
                api.create(&PostParams::default(), &pool).await?;
            }
        }
        Ok(())
    }

    /// Puts its definitions and the router's address into the cluster.
    pub(super) fn install(self, cluster: &Cluster) -> anyhow::Result<()> {
        let kube = cluster.kube();
        let object = |version: &str, kind: &str, metadata: Value, spec: Value| {
            json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}).to_string()
        };
        match self {
            Self::OpenElb { .. } => {
                kube.apply_crds()?;
                kube.apply("{apiVersion: v1, kind: Namespace, metadata: {name: openelb-system}}")?;
                let version = "network.kubesphere.io/v1alpha2";
                let conf = json!({"as": NODES_AS});
                kube.apply(&object(version, "BgpConf", json!({"name": "default"}), conf))?;
                let peer = json!({"conf": {"neighborAddress": ROUTER_V4, "peerAs": collector::AS}});
                kube.apply(&object(version, "BgpPeer", json!({"name": "router"}), peer))?;
            }
            Self::MetalLb => {
                let definitions = metallb("crds")?;
                kube.apply_path(&definitions)?;
                kube.wait_crds_of(&definitions)?;
                kube.apply(&format!(
                    "{{apiVersion: v1, kind: Namespace, metadata: {{name: {METALLB_NAMESPACE}}}}}"
                ))?;
                let metadata = |name: &str| json!({"name": name, "namespace": METALLB_NAMESPACE});
                let peer = json!({"myASN": NODES_AS, "peerASN": collector::AS, "peerAddress": ROUTER_V4});
                kube.apply(&object("metallb.io/v1beta2", "BGPPeer", metadata("router"), peer))?;
                // Its programs want to know the Pods that they run in.
                for program in ["controller", "speaker"] {
                    let container = json!({"name": program, "image": program});
                    let spec = json!({"nodeName": NODE, "containers": [container]});
                    kube.apply(&object("v1", "Pod", metadata(program), spec))?;
                }
                let all = json!({});
                kube.apply(&object("metallb.io/v1beta1", "BGPAdvertisement", metadata("all"), all))?;
            }
        }
        Ok(())
    }
}

/// Whether MetalLB was built to be measured beside ours.
pub(super) fn has_metallb() -> bool {
    std::env::var_os(METALLB).is_some()
}

/// A file of MetalLB's.
fn metallb(name: &str) -> anyhow::Result<PathBuf> {
    let directory = std::env::var_os(METALLB)
        .context("MetalLB is not built: `cargo xtask bench kube --with-peers` does it")?;
    Ok(PathBuf::from(directory).join(name))
}

/// MetalLB's controller or speaker, once it is ready.
pub(super) fn start_metallb<'a>(cluster: &'a Cluster, program: &str) -> anyhow::Result<Running<'a>> {
    let path = metallb(program)?;
    let kubeconfig = format!("KUBECONFIG={}", cluster.kubeconfig()?);
    let (host, ports) = match program {
        "speaker" => (NODE, ["7473", "7475"]),
        _ => (cluster.kube().host(), ["7472", "7474"]),
    };
    let mut arguments = vec![
        "env",
        &kubeconfig,
        path.to_str().context("the path of MetalLB is not text")?,
        "--namespace",
        METALLB_NAMESPACE,
        "--log-level",
        "error",
        "--pod-name",
        program,
        "--port",
        ports[0],
        "--health-probe-port",
        ports[1],
    ];
    match program {
        "speaker" => arguments.extend(["--node-name", NODE]),
        _ => arguments.extend(["--webhook-mode", "disabled", "--disable-cert-rotation"]),
    }
    let running = cluster.spawn(&format!("metallb-{program}"), host, &arguments)?;
    let health = format!("http://127.0.0.1:{}/readyz", ports[1]);
    eventually(&format!("a ready {program} of MetalLB"), Duration::from_secs(60), || {
        cluster.lab().run(host, &["curl", "-fsS", "--max-time", "5", &health]).map(Some)
    })
    .with_context(|| running.log())?;
    Ok(running)
}
