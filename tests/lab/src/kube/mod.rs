//! A real Kubernetes control plane in a lab: etcd, kube-apiserver, kube-controller-manager, kube-proxy and kubectl.
//!
//! For a test of objects and controllers an API server alone is enough, and is there in about three seconds:
//!
//! ```no_run
//! use std::sync::Arc;
//! use openelb_lab::{Lab, kube::ControlPlane};
//!
//! let lab = Arc::new(Lab::start("objects")?);
//! let kube = ControlPlane::start_api(&lab)?; // on the loopback of a new host, `control`
//! kube.apply_crds()?; // deploy/crds, until they are established
//! kube.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}")?;
//! kube.kubectl(&["create", "serviceaccount", "web", "--namespace", "shop"])?;
//! let kubeconfig = kube.service_account_kubeconfig("shop", "web")?; // with its own token, so RBAC counts
//! // A program in the lab:
//! lab.spawn("controller", kube.host(), &["openelbd", "controller", "--kubeconfig", &kubeconfig.to_string_lossy()])?;
//! // Code of the test itself, on a thread in the host's network (a tokio runtime made there stays there):
//! lab.within(kube.host(), || std::net::TcpStream::connect(("127.0.0.1", 6443)).map(drop))??;
//! # anyhow::Ok(())
//! ```
//!
//! With traffic it is [`Cluster::start`]: the network of [`topology`](crate::topology) with a control plane at
//! [`CONTROL_V4`], three ready Nodes, a ready Pod with label `app: web` on each, and kube-proxy. Pods and Nodes are
//! objects made by hand; EndpointSlices come from the real controller, and what carries the traffic is the real
//! kube-proxy.
//!
//! ```no_run
//! use openelb_lab::kube::{Cluster, ProxyMode};
//!
//! let cluster = Cluster::start("traffic", ProxyMode::Nftables)?;
//! cluster.kube.apply("{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: LoadBalancer, \
//!     selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}}")?;
//! let kubeconfig = cluster.kube.kubeconfig(); // admin's; reaches the API server from nodes, pods and control
//! cluster.lab.run("node-1", &["cat", &kubeconfig.to_string_lossy()])?;
//! cluster.kube.kill_api()?; // and pause_api, resume_api, start_api_again
//! # anyhow::Ok(())
//! ```
//!
//! [`ControlPlane::start_faults`] puts a proxy before the API server that delays, refuses, cuts or forgets what is asked
//! of it; [`ControlPlane::requests`] tells who asked for what.
//!
//! Everything runs in the namespaces of the [`Lab`](crate::Lab) and ends with it. [`program`] is the one binary that
//! has all of these programs; `cargo xtask kube` builds it.

mod audit;
mod cluster;
mod control_plane;
mod faults;
mod kubectl;
mod objects;
mod proxy;
mod workload;

use std::path::PathBuf;

use anyhow::{anyhow, ensure};

pub use audit::Request;
pub use cluster::{CONTROL, CONTROL_V4, CONTROL_V6, Cluster, topology_pod};
pub use control_plane::{ControlPlane, Options};
pub use faults::{Action, Fault, Faults};
pub use objects::{Ready, node_object, pod_object};
pub use proxy::ProxyMode;
pub use workload::{NAMESPACE, Place};

/// The environment variable that names another [`program`].
pub const PROGRAM_VARIABLE: &str = "OPENELB_KUBE_BINARY";

/// The program that has the control plane: `$OPENELB_KUBE_BINARY`, else what `cargo xtask kube` built.
///
/// # Errors
/// It is not there; says how to build it.
pub fn program() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(PROGRAM_VARIABLE) {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "${PROGRAM_VARIABLE} is {}, and there is no such file", path.display());
        return Ok(path.canonicalize()?);
    }
    let own = std::env::current_exe()?;
    own.ancestors()
        .skip(1)
        .take(4)
        .map(|directory| directory.join("kube/openelb-kube"))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            anyhow!(
                "there is no control plane near {}: run `cargo xtask kube` (minutes the first time), or set ${PROGRAM_VARIABLE}",
                own.display()
            )
        })
}
