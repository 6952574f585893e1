//! The file on the host that holds what was announced last, for a start without API server.
//!
//! One JSON document a line: a header, then the objects that the announcements were made from, as an API server would
//! return them, cut to what matters. Passwords are never in it: a session that needs one waits for the API server.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use jiff::Timestamp;
use openelb_k8s::{
    index::{
        Indexes,
        nodes::NodeView,
        services::{ClassRules, ServiceView, TrafficPolicy},
    },
    names::{annotation, label},
    object::{Kind, Object, ObjectRef},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The form of the file; another one is not read.
const VERSION: u32 = 1;
/// Names no Secret: a BgpPeer whose password is left out here must not come up without one.
const LEFT_OUT: &str = "left-out-of-the-checkpoint";

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Header {
    openelb_checkpoint: u32,
    pub(super) node: String,
    pub(super) saved_at: Timestamp,
    /// Under which boot of the host it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) boot_id: Option<String>,
}

impl Header {
    /// Was it written under the kernel that runs now? Then that forwards as it did.
    pub(super) fn is_of_this_boot(&self) -> bool {
        self.boot_id.is_some() && self.boot_id == crate::boot::id()
    }
}

/// What cannot be derived from the indexes: specs as they were written.
#[derive(Debug, Default)]
pub(super) struct Specs {
    objects: std::collections::BTreeMap<ObjectRef, Value>,
}

impl Specs {
    /// Takes in an object.
    pub(super) fn apply(&mut self, object: &Object) {
        if !matches!(object.kind(), Kind::Eip | Kind::BgpConf | Kind::BgpPeer | Kind::Layer2Conf) {
            return;
        }
        let Ok(mut value) = object.to_value() else { return };
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|key, _| {
                ["name", "uid", "labels", "annotations", "creationTimestamp", "generation"]
                    .contains(&key.as_str())
            });
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                // It holds the password, too.
                annotations.remove(annotation::LAST_APPLIED);
            }
        }
        if let Some(map) = value.as_object_mut() {
            let used = map.remove("status").and_then(|mut status| Some(status.get_mut("used")?.take()));
            if let Some(used) = used.filter(|_| object.kind() == Kind::Eip) {
                map.insert("status".to_owned(), json!({ "used": used }));
            }
        }
        let conf = value.pointer_mut("/spec/conf").and_then(Value::as_object_mut);
        let password = conf.and_then(|conf| conf.remove("authPassword"));
        // An empty text is no password.
        if password.is_some_and(|password| password.as_str() != Some(""))
            && let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut)
        {
            spec.entry("passwordSecretRef").or_insert_with(|| json!({ "name": LEFT_OUT }));
        }
        self.objects.insert(object.reference(), value);
    }

    /// Forgets an object.
    pub(super) fn delete(&mut self, reference: &ObjectRef) {
        self.objects.remove(reference);
    }
}

/// The lines after the header.
pub(super) fn body(indexes: &Indexes, specs: &Specs, endpoints_matter: bool) -> Vec<u8> {
    let mut body = Vec::new();
    let mut line = |value: &Value| {
        // Into memory it cannot fail.
        if serde_json::to_writer(&mut body, value).is_ok() {
            body.push(b'\n');
        }
    };
    specs.objects.values().for_each(&mut line);
    for node in indexes.nodes.iter() {
        line(&of_node(node));
    }
    for speaker in indexes.speakers.iter() {
        line(&json!({
            "apiVersion": Kind::SpeakerStatus.api_version(), "kind": "SpeakerStatus",
            "metadata": {"name": speaker.node}, "spec": {"nodeName": speaker.node},
        }));
    }
    for service in indexes.services.ours().filter(|service| !service.ingress.is_empty()) {
        line(&of_service(service));
        if endpoints_matter || service.traffic_policy == TrafficPolicy::Local {
            line(&of_endpoints(indexes, service));
        }
    }
    body
}

fn of_node(node: &NodeView) -> Value {
    let addresses: Vec<Value> =
        node.internal_ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": node.name, "uid": node.uid, "labels": node.labels},
        "spec": {"unschedulable": node.cordoned},
        "status": {
            "addresses": addresses,
            "conditions": [{"type": "Ready", "status": if node.ready { "True" } else { "False" }}],
        },
    })
}

fn of_service(service: &ServiceView) -> Value {
    let kept = [annotation::OPT_IN, annotation::NODE_PROXY_TYPE];
    let annotations = service.annotations.only(|key| kept.contains(&key));
    let policy = match service.traffic_policy {
        TrafficPolicy::Local => "Local",
        TrafficPolicy::Cluster => "Cluster",
    };
    let ingress: Vec<Value> = service.published().iter().map(|ip| json!({ "ip": ip })).collect();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "namespace": service.key.namespace, "name": service.key.name, "uid": service.uid,
            "labels": service.labels, "annotations": annotations,
        },
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": service.class, "externalTrafficPolicy": policy,
        },
        "status": {"loadBalancer": {"ingress": ingress}},
    })
}

fn of_endpoints(indexes: &Indexes, service: &ServiceView) -> Value {
    let endpoint = |node: Option<&str>| json!({"addresses": [], "nodeName": node});
    let nodes = indexes.endpoints.nodes(&service.key, &indexes.nodes);
    let endpoints: Vec<Value> = if nodes.is_empty() && indexes.endpoints.any(&service.key, &indexes.nodes) {
        vec![endpoint(None)]
    } else {
        nodes.into_iter().map(|node| endpoint(Some(node))).collect()
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "namespace": service.key.namespace, "name": service.key.name,
            "labels": {label::SERVICE_NAME: service.key.name},
        },
        "endpoints": endpoints,
    })
}

/// Writes the file: whole or not at all, readable for its owner alone.
///
/// # Errors
/// If the directory or the file cannot be written.
pub(super) fn write(path: &Path, node: &str, saved_at: Timestamp, body: &[u8]) -> io::Result<()> {
    let directory =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let header =
        Header { openelb_checkpoint: VERSION, node: node.to_owned(), saved_at, boot_id: crate::boot::id() };
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    serde_json::to_writer(&mut file, &header)?;
    file.write_all(b"\n")?;
    file.write_all(body)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(directory)?.sync_all()
}

/// Reads the file; `None` if there is none, or it is of another node.
///
/// # Errors
/// If it cannot be read or its header is of another form. An object that cannot be read is left out.
pub(super) fn read(path: &Path, node: &str, rules: &ClassRules) -> io::Result<Option<(Header, Indexes)>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut lines = BufReader::new(file).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let header: Header = serde_json::from_str(&first)?;
    if header.openelb_checkpoint != VERSION {
        let cause = format!("it is of form {}, this program reads {VERSION}", header.openelb_checkpoint);
        return Err(io::Error::new(io::ErrorKind::InvalidData, cause));
    }
    if header.node != node {
        return Ok(None);
    }
    let mut indexes = Indexes::new(rules.clone());
    for line in lines {
        let value: Value = serde_json::from_str(&line?)?;
        match Object::from_value(value) {
            Ok(Some(object)) => {
                indexes.apply(&object);
            }
            Ok(None) => {}
            Err(problem) => tracing::warn!(%problem, "left out of the checkpoint"),
        }
    }
    Ok(Some((header, indexes)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use openelb_k8s::{
        index::{Indexes, services::ClassRules},
        object::Object,
        plan::{self, Settings},
    };
    use serde_json::{Value, json};

    use super::{Header, LEFT_OUT, Specs, body, read, write};

    fn world() -> (Indexes, Specs) {
        let (mut indexes, mut specs) = (Indexes::default(), Specs::default());
        let ours = |kind: &str, name: &str, spec: Value, status: Value| {
            json!({
                "apiVersion": "network.kubesphere.io/v1alpha2", "kind": kind, "spec": spec, "status": status,
                "metadata": {
                    "name": name, "uid": "u", "resourceVersion": "9", "generation": 3,
                    "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "hunter2"},
                },
            })
        };
        let service = |name: &str, policy: &str, address: &str| {
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {
                    "name": name, "namespace": "ns", "labels": {"app": name},
                    "annotations": {"lb.kubesphere.io/v1alpha1": "openelb", "big": "x".repeat(1000)},
                },
                "spec": {"type": "LoadBalancer", "externalTrafficPolicy": policy, "ports": [{"port": 80}]},
                "status": {"loadBalancer": {"ingress": [{"ip": address}]}},
            })
        };
        let peer = json!({
            "conf": {"neighborAddress": "10.0.0.254", "peerAs": 65000, "authPassword": "hunter2"},
            "advertisements": [{"serviceSelector": {"matchLabels": {"app": "a"}}, "communities": ["65000:1"]}],
        });
        let mut objects = vec![
            ours("Eip", "pool", json!({"address": "192.0.2.0/25"}), json!({"used": {"192.0.2.200": "ns/c"}})),
            ours("BgpConf", "default", json!({"as": 65001}), json!({})),
            ours("BgpPeer", "router", peer, json!({})),
            ours("SpeakerStatus", "node-1", json!({"nodeName": "node-1"}), json!({"version": "1"})),
            service("a", "Cluster", "192.0.2.1"),
            service("b", "Local", "192.0.2.2"),
            service("c", "Cluster", "192.0.2.200"),
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": "b-x", "namespace": "ns", "labels": {"kubernetes.io/service-name": "b"}},
                "endpoints": [{"addresses": ["10.1.0.1"], "nodeName": "node-2"}],
            }),
        ];
        for number in 1..=3 {
            objects.push(json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": format!("node-{number}"), "labels": {"openelb.kubesphere.io/rack": "leaf"}},
                "status": {"addresses": [{"type": "InternalIP", "address": format!("10.0.0.{number}")}]},
            }));
        }
        for value in objects {
            let object = Object::from_value(value).unwrap().unwrap();
            indexes.apply(&object);
            specs.apply(&object);
        }
        (indexes, specs)
    }

    #[test]
    fn what_is_read_announces_the_same_but_for_passwords() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("speaker/checkpoint");
        let (indexes, specs) = world();
        let body = body(&indexes, &specs, false);
        let text = String::from_utf8(body.clone()).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        assert!(!text.contains("xxxx"), "only what matters is kept");
        let now = jiff::Timestamp::from_second(1_800_000_000).unwrap();
        write(&path, "node-1", now, &body).unwrap();
        write(&path, "node-1", now, &body).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (header, restored) = read(&path, "node-1", &ClassRules::default()).unwrap().unwrap();
        assert_eq!((header.node.as_str(), header.saved_at), ("node-1", now));
        assert!(header.is_of_this_boot());
        assert!(!Header { boot_id: Some("another".to_owned()), ..header.clone() }.is_of_this_boot());
        assert!(!Header { boot_id: None, ..header }.is_of_this_boot());
        let settings = Settings { node_name: "node-1".to_owned(), standalone: false, ..Settings::default() };
        let (before, mut after) =
            (plan::announcement::plan(&indexes, &settings), plan::announcement::plan(&restored, &settings));
        assert_eq!(before.addresses.len(), 3);
        assert_eq!(before.addresses, after.addresses);
        let (before, after) = (before.bgp.unwrap(), after.bgp.take().unwrap());
        assert_eq!((before.asn, before.router_id, &before.rack), (after.asn, after.router_id, &after.rack));
        let (before, after) = (&before.peers["router"], &after.peers["router"]);
        assert_eq!(before.on_behalf, after.on_behalf);
        assert_eq!(before.spec.advertisements, after.spec.advertisements);
        assert!(
            after.password.is_none() && after.spec.password_secret.is_some(),
            "it stays down without one"
        );
        assert!(read(&path, "node-2", &ClassRules::default()).unwrap().is_none(), "of another node");
    }

    #[test]
    fn an_empty_password_that_is_left_out_keeps_nothing_down() {
        let peer = |password: Value| {
            let mut specs = Specs::default();
            let value = json!({
                "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpPeer", "metadata": {"name": "router"},
                "spec": {"conf": {"neighborAddress": "10.0.0.254", "authPassword": password}},
            });
            specs.apply(&Object::from_value(value).unwrap().unwrap());
            specs.objects.into_values().next().unwrap()["spec"].clone()
        };
        assert_eq!(peer(json!("")), json!({"conf": {"neighborAddress": "10.0.0.254"}}));
        assert_eq!(
            peer(json!("hunter2")),
            json!({"conf": {"neighborAddress": "10.0.0.254"}, "passwordSecretRef": {"name": LEFT_OUT}})
        );
    }

    #[test]
    fn what_is_not_there_or_cut_off_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("checkpoint");
        let rules = ClassRules::default();
        assert!(read(&path, "node-1", &rules).unwrap().is_none());
        for bad in [
            "",
            "{}\n",
            "{\"openelbCheckpoint\":7,\"node\":\"node-1\",\"savedAt\":\"2026-01-01T00:00:00Z\"}\n",
        ] {
            std::fs::write(&path, bad).unwrap();
            assert!(read(&path, "node-1", &rules).is_err(), "{bad:?}");
        }
    }
}
