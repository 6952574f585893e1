//! An announcer of one's own behind OpenELB's seam: it keeps a file of static routes, for a host without BGP.
//!
//! ```sh
//! cargo run -p openelb-examples --example static_routes
//! ```
//!
//! Manifests go into the indexes, a plan computes what this node should announce, and the backend gets the whole set:
//! it never has to know what was added or removed.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use openelb_k8s::{
    announce::{AddressStatus, Announcements, Announcer, AnnouncerStatus, Protocol},
    index::Indexes,
    object::Object,
    plan::{Settings, announcement, merge_patch},
};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Writes `ip route` commands to a file: one next hop for each node that may carry the address.
struct StaticRoutes {
    file: PathBuf,
    written: Mutex<String>,
    status: watch::Sender<Arc<AnnouncerStatus>>,
}

impl StaticRoutes {
    fn new(file: PathBuf) -> Self {
        Self { file, written: Mutex::default(), status: watch::Sender::new(Arc::default()) }
    }
}

impl Announcer for StaticRoutes {
    fn set_desired(&self, desired: Announcements) {
        let mut text = String::new();
        let mut addresses = BTreeMap::new();
        for (address, announcement) in &desired.addresses {
            let same_family = |hop: &&IpAddr| hop.is_ipv4() == address.is_ipv4();
            let hops: Vec<String> = announcement
                .nodes
                .iter()
                .filter_map(|node| node.addresses.iter().find(same_family))
                .map(|hop| format!("nexthop via {hop}"))
                .collect();
            let announced = !hops.is_empty();
            if announced {
                text.push_str(&format!("ip route replace {address} {}\n", hops.join(" ")));
            }
            let detail = if announced { "" } else { "no node has an address of its family" };
            addresses.insert(*address, (announced, detail));
        }
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written == text {
            return;
        }
        // A real backend does this on a task of its own: the seam must not block.
        let result = fs::write(&self.file, &text);
        *written = text;
        let status = addresses.into_iter().map(|(address, (announced, detail))| {
            let announced = announced && result.is_ok();
            let status = AddressStatus { announced, ..AddressStatus::new(Protocol::Bgp, detail) };
            ((address, Protocol::Bgp), status)
        });
        self.status.send_replace(Arc::new(AnnouncerStatus {
            addresses: status.collect(),
            ..AnnouncerStatus::default()
        }));
    }

    fn status(&self) -> watch::Receiver<Arc<AnnouncerStatus>> {
        self.status.subscribe()
    }
}

fn objects() -> Vec<Value> {
    let node = |name: &str, address: &str| {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
               "status": {"addresses": [{"type": "InternalIP", "address": address}]}})
    };
    vec![
        node("one", "192.0.2.11"),
        node("two", "192.0.2.12"),
        json!({"apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip", "metadata": {"name": "pool"},
               "spec": {"address": "203.0.113.0/24", "protocol": "bgp"}}),
        json!({"apiVersion": "v1", "kind": "Service",
               "metadata": {"name": "web", "namespace": "shop", "annotations": {"lb.kubesphere.io/v1alpha1": "openelb"}},
               "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
               "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}}),
    ]
}

/// Gives the backend what the manifests say, then the same with a cordoned node that must not carry anything.
fn run(backend: &dyn Announcer) -> anyhow::Result<()> {
    let mut indexes = Indexes::default();
    let settings =
        Settings { node_name: "one".to_owned(), exclude_cordoned_nodes: true, ..Settings::default() };
    for value in objects() {
        if let Some(object) = Object::from_value(value)? {
            indexes.apply(&object);
        }
    }
    backend.set_desired(announcement::plan(&indexes, &settings));
    println!("announced: {:?}", backend.status().borrow().addresses.keys());

    let mut node = objects().swap_remove(1);
    merge_patch(&mut node, &json!({"spec": {"unschedulable": true}}));
    if let Some(object) = Object::from_value(node)? {
        indexes.apply(&object);
    }
    backend.set_desired(announcement::plan(&indexes, &settings));
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let file = std::env::temp_dir().join("openelb-static-routes");
    run(&StaticRoutes::new(file.clone()))?;
    println!("{}", fs::read_to_string(&file)?);
    Ok(fs::remove_file(file)?)
}

#[test]
fn the_file_follows_the_whole_set() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("routes");
    let backend = StaticRoutes::new(file.clone());
    let mut status = backend.status();
    run(&backend).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "ip route replace 203.0.113.7 nexthop via 192.0.2.11\n");
    let announced = status.borrow_and_update().is_announced("203.0.113.7".parse().unwrap());
    assert!(announced);
    // Nothing left: the whole set is empty, and so is the file.
    backend.set_desired(Announcements::default());
    assert_eq!(fs::read_to_string(&file).unwrap(), "");
    assert!(status.borrow().addresses.is_empty());
}
