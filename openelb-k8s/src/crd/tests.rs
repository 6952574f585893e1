use std::path::{Path, PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use super::{all, to_yaml};
use crate::object::{Kind, Object};

fn definition(name: &str) -> Value {
    let crd = all().into_iter().find(|crd| crd.metadata.name.as_deref() == Some(name)).unwrap();
    serde_json::to_value(crd).unwrap()
}

fn schema(name: &str, version: &str) -> Value {
    let definition = definition(name);
    let versions = definition.pointer("/spec/versions").unwrap().as_array().unwrap();
    let version = versions.iter().find(|v| v["name"] == version).unwrap();
    version.pointer("/schema/openAPIV3Schema").unwrap().clone()
}

/// Every field name in a document, as paths; list items are `[]`.
fn paths(value: &Value, path: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| paths(value, &format!("{path}|{key}"), into));
        }
        Value::Array(list) => list.iter().for_each(|value| paths(value, &format!("{path}[]"), into)),
        _ => into.push(path.to_owned()),
    }
}

/// Reads and writes a document of a kind: nothing of spec and status is lost.
#[track_caller]
fn survives(kind: Kind, spec: Value, status: Value) {
    let document = json!({
        "apiVersion": kind.api_version(), "kind": kind.as_str(), "metadata": {"name": "x"},
        "spec": spec, "status": status,
    });
    let object = Object::from_value(document.clone()).unwrap().unwrap();
    let written = object.to_value().unwrap();
    assert_eq!(written["spec"], document["spec"]);
    assert_eq!(written["status"], document["status"]);
    assert_eq!(object.unknown_fields(&document), Vec::<String>::new());
    // The schema knows every field too.
    let schema = schema(&format!("{}.network.kubesphere.io", kind.plural()), "v1alpha2");
    let mut found = Vec::new();
    paths(&json!({"spec": document["spec"], "status": document["status"]}), "", &mut found);
    for path in found {
        let mut place = &schema;
        for part in path.split('|').skip(1) {
            let (name, items) = part.strip_suffix("[]").map_or((part, false), |name| (name, true));
            place = place
                .pointer(&format!("/properties/{name}"))
                .or_else(|| place.get("additionalProperties"))
                .unwrap_or_else(|| panic!("{path} is not in the schema"));
            if items {
                place = &place["items"];
            }
        }
        assert!(place.get("type").is_some(), "{path} has no type");
    }
}

fn condition() -> Value {
    json!([{"type": "Ready", "status": "True", "reason": "Ready", "message": "in force",
            "lastTransitionTime": "2026-01-02T03:04:05Z", "observedGeneration": 3}])
}

#[test]
fn every_field_of_an_eip_survives() {
    survives(
        Kind::Eip,
        json!({
            "address": "192.168.0.100-192.168.0.110", "protocol": "layer2", "protocols": ["bgp", "layer2"],
            "interface": "can_reach:192.168.0.1", "disable": true, "usingKnownIPs": true, "priority": 10,
            "namespaces": ["a", "b"], "namespaceSelector": {"label": "test"}, "exclude": ["192.168.0.105"],
            "avoidNetworkAndBroadcast": true, "autoAssign": false, "enforceSelectors": true, "sharing": "Key",
            "maxPerNamespace": 4, "serviceSelector": {"matchLabels": {"a": "b"}},
            "nodeSelector": {"matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]}, "vipGroup": "g",
        }),
        json!({
            "occupied": true, "usage": 1, "poolSize": 9_223_372_036_854_775_807_i64,
            "used": {"192.168.0.100": "ns/a;ns/b"}, "firstIP": "192.168.0.100", "lastIP": "192.168.0.110",
            "ready": true, "v4": true, "observedGeneration": 3, "conditions": condition(),
        }),
    );
}

fn graceful_restart() -> Value {
    json!({
        "enabled": true, "restartTime": 60, "helperOnly": false, "deferralTime": 5, "notificationEnabled": true,
        "longlivedEnabled": false, "staleRoutesTime": 10, "peerRestartTime": 11, "peerRestarting": false,
        "localRestarting": false, "mode": "m",
    })
}

#[test]
fn every_field_of_a_bgp_conf_survives() {
    survives(
        Kind::BgpConf,
        json!({
            "as": 4_200_000_000_u32, "asPerRack": {"leaf1": 65001}, "routerId": "8.8.8.8", "listenPort": 17900,
            "listenAddresses": ["0.0.0.0"], "families": [65537], "useMultiplePaths": true,
            "gracefulRestart": graceful_restart(), "policy": "policy", "nextHopMode": "AllNodes",
            "bfdProfiles": {"fast": {"detectMultiplier": 3, "receiveInterval": "50ms", "transmitInterval": "50ms",
                                      "passive": false, "minimumTtl": 254}},
        }),
        json!({
            "nodesConfStatus": {"node-1": {"routerId": "192.168.0.2", "as": 65001}}, "observedGeneration": 1,
            "conditions": condition(),
        }),
    );
}

#[test]
fn debug_of_a_bgp_peer_does_not_show_passwords() {
    let document = json!({
        "apiVersion": Kind::BgpPeer.api_version(), "kind": "BgpPeer", "metadata": {"name": "x"},
        "spec": {"conf": {"neighborAddress": "192.0.2.1", "authPassword": "hunter2"}},
        // The Go OpenELB's may hold it.
        "status": {"nodesPeerStatus": {"node-1": {"peerState": {"authPassword": "hunter2"}}}},
    });
    let object = Object::from_value(document.clone()).unwrap().unwrap();
    for shown in [format!("{object:?}"), format!("{object:#?}")] {
        assert!(shown.contains("192.0.2.1") && !shown.contains("hunter2"), "{shown}");
    }
    assert_eq!(object.to_value().unwrap()["spec"], document["spec"], "documents have it");
}

#[test]
fn every_field_of_a_bgp_peer_survives() {
    let counters = json!({
        "notification": "1", "update": "2", "open": "1", "keepalive": "4", "refresh": "0", "discarded": "0",
        "total": "8", "withdrawUpdate": "0", "withdrawPrefix": "0",
    });
    survives(
        Kind::BgpPeer,
        json!({
            "conf": {
                "authPassword": "p", "description": "d", "localAs": 1, "neighborAddress": "192.0.2.1", "peerAs": 2,
                "peerGroup": "g", "peerType": 1, "removePrivateAs": "REMOVE_ALL", "routeFlapDamping": true,
                "sendCommunity": 3, "neighborInterface": "eth0", "vrf": "v", "allowOwnAs": 1, "replacePeerAs": true,
                "adminDown": true,
            },
            "ebgpMultihop": {"enabled": true, "multihopTtl": 5},
            "timers": {"config": {"connectRetry": "10", "holdTime": "30", "keepaliveInterval": "10",
                                   "minimumAdvertisementInterval": "1"}},
            "transport": {"mtuDiscovery": true, "passiveMode": true, "remoteAddress": "192.0.2.1",
                           "remotePort": 17901, "tcpMss": 1400, "localAddress": "192.0.2.2", "bindInterface": "eth0",
                           "ttlSecurity": {"hops": 1}},
            "gracefulRestart": graceful_restart(),
            "afiSafis": [{"config": {"family": {"afi": "AFI_IP", "safi": "SAFI_UNICAST"}, "enabled": true},
                           "mpGracefulRestart": {"config": {"enabled": true}},
                           "addPaths": {"config": {"receive": true, "sendMax": 10}}}],
            "nodeSelector": {"matchLabels": {"openelb.kubesphere.io/rack": "leaf1"}},
            "nextHopMode": "Self", "receivedRoutes": "Keep", "linkFailover": false,
            "prefixLimit": {"maxPrefixes": 100, "warningPercent": 75, "action": "Cease", "restartTime": "5m"},
            "passwordSecretRef": {"name": "bgp", "key": "password"},
            "bfd": {"enabled": true, "profile": "fast", "detectMultiplier": 3, "receiveInterval": "300ms",
                     "transmitInterval": "300ms", "passive": false, "minimumTtl": 254},
            "advertisements": [{
                "poolNames": ["p"], "serviceSelector": {"matchLabels": {"a": "b"}},
                "nodeSelector": {"matchLabels": {"a": "b"}}, "communities": ["65000:100"],
                "largeCommunities": ["1:2:3"], "extCommunities": ["rt:1:2"], "localPreference": 100, "med": 50,
                "asPathPrepend": 2, "aggregationLength": 24, "aggregationLengthV6": 64,
            }],
            "policies": {"import": ["a"], "export": ["b"], "defaultImport": "accept", "defaultExport": "reject"},
        }),
        json!({
            "nodesPeerStatus": {"node-1": {
                "peerState": {
                    "authPassword": "", "description": "d", "localAs": 1, "neighborAddress": "192.0.2.1",
                    "peerAs": 2, "peerGroup": "g", "peerType": 1, "removePrivateAs": "x", "routeFlapDamping": true,
                    "sendCommunity": 1, "sessionState": "ESTABLISHED", "adminState": "UP", "outQ": 1, "flops": 2,
                    "routerId": "1.1.1.1", "queues": {"input": 0, "output": 1},
                    "messages": {"received": counters, "sent": counters},
                },
                "timersState": {"connectRetry": "1", "holdTime": "30", "keepaliveInterval": "10",
                                 "minimumAdvertisementInterval": "1", "negotiatedHoldTime": "30",
                                 "uptime": "2026-01-02T03:04:05Z", "downtime": "2026-01-02T03:04:05Z"},
            }},
            "observedGeneration": 1, "conditions": condition(),
        }),
    );
}

#[test]
fn every_field_of_the_new_kinds_survives() {
    let texts = json!({"values": ["65000:1"], "matchType": "All"});
    let change = json!({"operation": "add", "communities": ["65000:1"]});
    survives(
        Kind::BgpPolicy,
        json!({"statements": [{
            "name": "s",
            "match": {
                "prefixSet": {"prefixes": [{"prefix": "10.0.0.0/8", "maskLengthRange": "24..32"}], "matchType": "Any"},
                "neighborSet": texts, "communitySet": texts, "extCommunitySet": texts, "largeCommunitySet": texts,
                "asPathSet": texts, "nextHops": ["192.0.2.1"], "afiSafis": ["ipv4-unicast"],
                "asPathLength": {"operator": "le", "value": 3}, "communityCount": {"operator": "ge", "value": 1},
                "routeType": "external",
            },
            "actions": {
                "disposition": "accept", "community": change, "extCommunity": change, "largeCommunity": change,
                "med": "+10", "localPreference": 100, "asPathPrepend": {"as": 65000, "repeat": 2}, "nextHop": "self",
            },
        }]}),
        json!({"observedGeneration": 1, "conditions": condition()}),
    );
    survives(
        Kind::Layer2Conf,
        json!({
            "gratuitous": {"schedule": ["0", "100ms"], "refreshInterval": "60s"},
            "standIn": {"enabled": true, "timeout": "10m"}, "joinDelay": "30s", "failback": "Delayed",
            "failbackDelay": "5m",
        }),
        json!({"observedGeneration": 1, "conditions": condition()}),
    );
    survives(
        Kind::VipGroup,
        json!({
            "virtualRouterId": 51, "virtualRouterIdRange": "100-110", "advertisementInterval": "1s", "preempt": true,
            "preemptDelay": "5m", "checksum": "RFC9568", "virtualMac": false, "unicastPeers": ["192.0.2.1"],
            "priorities": [{"nodeSelector": {"matchLabels": {"a": "b"}}, "priority": 200}],
            "nodeSelector": {"matchLabels": {"a": "b"}},
        }),
        json!({
            "virtualRouterIds": [51], "members": ["node-1"], "activeNode": "node-1", "activeNodes": {"51": "node-1"},
            "observedGeneration": 1, "conditions": condition(),
        }),
    );
}

#[test]
fn an_empty_and_a_missing_spec_are_read() {
    for kind in Kind::ALL.iter().filter(|kind| kind.is_ours()) {
        for spec in [Some(json!({})), Some(Value::Null), None] {
            let mut document =
                json!({"apiVersion": kind.api_version(), "kind": kind.as_str(), "metadata": {"name": "x"}});
            if let Some(spec) = spec {
                document["spec"] = spec;
            }
            let object = Object::from_value(document).unwrap().unwrap();
            assert_eq!(object.kind(), *kind);
        }
    }
}

#[test]
fn an_unknown_value_of_an_enumeration_is_still_readable() {
    let document = json!({
        "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip", "metadata": {"name": "x"},
        "spec": {"address": "192.0.2.1", "protocol": "carrier-pigeon", "sharing": "Everybody"},
    });
    assert!(Object::from_value(document).unwrap().is_some());
}

#[test]
fn a_garbled_status_does_not_hide_the_spec() {
    let document = json!({
        "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip", "metadata": {"name": "x"},
        "spec": {"address": "192.0.2.1"}, "status": {"used": ["not", "a", "map"]},
    });
    let Some(Object::Eip(eip)) = Object::from_value(document).unwrap() else { panic!("not read") };
    assert_eq!(eip.spec.address.as_deref(), Some("192.0.2.1"));
    assert_eq!(eip.status, None);
}

#[test]
fn unknown_fields_are_named() {
    let document = json!({
        "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpPeer", "metadata": {"name": "x"},
        "spec": {"conf": {"peerAS": 1}, "afiSafis": [{"config": {"familly": {}}}]},
    });
    let object = Object::from_value(document.clone()).unwrap().unwrap();
    assert_eq!(object.unknown_fields(&document), ["spec.afiSafis[0].config.familly", "spec.conf.peerAS"]);
}

#[test]
fn versions_are_as_documented() {
    for crd in all() {
        let name = crd.metadata.name.clone().unwrap();
        let old = ["eips", "bgpconfs", "bgppeers"].contains(&crd.spec.names.plural.as_str());
        let versions: Vec<(&str, bool, bool, bool)> = crd
            .spec
            .versions
            .iter()
            .map(|v| (v.name.as_str(), v.served, v.storage, v.deprecated.unwrap_or(false)))
            .collect();
        let current = ("v1alpha2", true, true, false);
        let expected = if old { vec![("v1alpha1", true, false, true), current] } else { vec![current] };
        assert_eq!(versions, expected, "{name}");
        assert_eq!(crd.spec.scope, "Cluster", "{name}");
        assert_eq!(crd.spec.names.short_names, None, "{name}");
        let status = crd.spec.versions.last().unwrap().subresources.as_ref().unwrap().status.is_some();
        assert!(status, "{name}");
    }
}

#[test]
fn printer_columns_of_an_eip_stay() {
    let definition = definition("eips.network.kubesphere.io");
    for version in definition.pointer("/spec/versions").unwrap().as_array().unwrap() {
        let columns = version["additionalPrinterColumns"].as_array().unwrap();
        let shown: Vec<(&str, &str, &str)> = columns
            .iter()
            .take(3)
            .map(|c| {
                (c["name"].as_str().unwrap(), c["jsonPath"].as_str().unwrap(), c["type"].as_str().unwrap())
            })
            .collect();
        let expected = [
            ("cidr", ".spec.address", "string"),
            ("usage", ".status.usage", "integer"),
            ("total", ".status.poolSize", "integer"),
        ];
        assert_eq!(shown, expected);
    }
    assert_eq!(definition.pointer("/spec/names/categories"), Some(&json!(["networking"])));
}

#[test]
fn used_is_atomic() {
    let schema = schema("eips.network.kubesphere.io", "v1alpha2");
    assert_eq!(
        schema.pointer("/properties/status/properties/used"),
        Some(&json!({
            "type": "object", "additionalProperties": {"type": "string"}, "x-kubernetes-map-type": "atomic",
            "description": "Who holds an address: `namespace/name`, several separated by `;`.",
        }))
    );
}

/// What an API server refuses: formats and types that it does not know, schemas that are not structural.
#[test]
fn schemas_are_structural() {
    fn check(schema: &Value, path: &str) {
        let map = schema.as_object().unwrap_or_else(|| panic!("{path}: {schema}"));
        assert!(map.get("type").is_some_and(Value::is_string), "{path} has no single type: {schema}");
        for keyword in ["anyOf", "oneOf", "allOf", "$ref", "$defs", "nullable", "title", "const", "default"] {
            assert!(!map.contains_key(keyword), "{path} has {keyword}");
        }
        if let Some(format) = map.get("format").and_then(Value::as_str) {
            assert!(["int32", "int64", "date-time"].contains(&format), "{path} has format {format}");
        }
        for (name, property) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
            check(property, &format!("{path}.{name}"));
        }
        for key in ["items", "additionalProperties"] {
            if let Some(inner) = map.get(key) {
                check(inner, &format!("{path}[{key}]"));
            }
        }
        for value in map.get("enum").and_then(Value::as_array).into_iter().flatten() {
            assert!(value.is_string(), "{path}: {value}");
        }
    }
    for crd in all() {
        let value = serde_json::to_value(&crd).unwrap();
        for version in value.pointer("/spec/versions").unwrap().as_array().unwrap() {
            let schema = version.pointer("/schema/openAPIV3Schema").unwrap();
            check(schema, &format!("{} {}", crd.spec.names.plural, version["name"]));
            assert!(schema.get("required").is_none(), "{}", crd.spec.names.plural);
        }
    }
}

/// Everything is optional, but what never was.
#[test]
fn nothing_is_required_that_was_not_always() {
    fn required(schema: &Value, path: &str, into: &mut Vec<String>) {
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            into.push(format!("{path}.{}", name.as_str().unwrap()));
        }
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            required(property, &format!("{path}.{name}"), into);
        }
        for key in ["items", "additionalProperties"] {
            schema.get(key).into_iter().for_each(|inner| required(inner, path, into));
        }
    }
    let mut all_required = Vec::new();
    for crd in all() {
        let value = serde_json::to_value(&crd).unwrap();
        for version in value.pointer("/spec/versions").unwrap().as_array().unwrap() {
            let path = format!("{} {}", crd.spec.names.plural, version["name"].as_str().unwrap());
            required(version.pointer("/schema/openAPIV3Schema").unwrap(), &path, &mut all_required);
        }
    }
    // Those of Kubernetes' own types.
    all_required.retain(|path| !path.contains(".conditions.") && !path.contains(".matchExpressions."));
    assert_eq!(all_required, ["eips v1alpha1.spec.address", "eips v1alpha2.spec.address"]);
}

#[test]
fn numbers_have_their_ranges() {
    let conf = schema("bgpconfs.network.kubesphere.io", "v1alpha2");
    let asn = conf.pointer("/properties/spec/properties/as").unwrap();
    assert_eq!(asn["format"], json!("int64"));
    assert_eq!((asn["minimum"].as_f64(), asn["maximum"].as_f64()), (Some(0.0), Some(f64::from(u32::MAX))));
    let eip = schema("eips.network.kubesphere.io", "v1alpha2");
    let pool_size = eip.pointer("/properties/status/properties/poolSize").unwrap();
    assert_eq!(pool_size["format"], json!("int64"));
    assert_eq!(eip.pointer("/properties/spec/required"), Some(&json!(["address"])));
}

fn deployed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds")
}

/// `OPENELB_WRITE_CRDS=1 cargo test -p openelb-k8s deployed` writes them.
#[test]
fn the_deployed_definitions_are_current() {
    let write = std::env::var_os("OPENELB_WRITE_CRDS").is_some();
    for crd in all() {
        let file = deployed().join(format!("{}.yaml", crd.metadata.name.clone().unwrap()));
        let yaml = to_yaml(&crd).unwrap();
        if write {
            std::fs::create_dir_all(deployed()).unwrap();
            std::fs::write(&file, &yaml).unwrap();
        }
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            found == yaml,
            "{} is not current: run OPENELB_WRITE_CRDS=1 cargo test -p openelb-k8s deployed",
            file.display()
        );
    }
    assert_eq!(std::fs::read_dir(deployed()).unwrap().count(), all().len());
}

#[test]
fn yaml_reads_back_as_the_same_definition() {
    for crd in all() {
        let yaml = to_yaml(&crd).unwrap();
        assert_eq!(yaml, to_yaml(&crd).unwrap());
        let back: CustomResourceDefinition = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(back, crd);
    }
}

#[test]
fn old_objects_become_new_ones() {
    let mut peer = json!({
        "apiVersion": "network.kubesphere.io/v1alpha1", "kind": "BgpPeer", "metadata": {"name": "x"},
        "spec": {"config": {"peerAs": 65000, "neighborAddress": "192.0.2.1"}, "addPaths": {"sendMax": 10},
                  "transport": {"passiveMode": true, "remotePort": 17901}, "usingPortForward": true},
    });
    super::v1alpha1::convert(Kind::BgpPeer, &mut peer);
    let Some(Object::BgpPeer(peer)) = Object::from_value(peer.clone()).unwrap() else {
        panic!("not read: {peer}")
    };
    let conf = peer.spec.conf.unwrap();
    assert_eq!((conf.peer_as, conf.neighbor_address.as_deref()), (Some(65000), Some("192.0.2.1")));
    let paths = peer.spec.afi_safis.unwrap()[0].add_paths.clone().unwrap().config.unwrap();
    assert_eq!(paths.send_max, Some(10));

    let mut conf = json!({
        "apiVersion": "network.kubesphere.io/v1alpha1", "kind": "BgpConf", "metadata": {"name": "default"},
        "spec": {"as": 65001, "routerID": "192.0.2.9", "port": 17900},
    });
    super::v1alpha1::convert(Kind::BgpConf, &mut conf);
    let Some(Object::BgpConf(conf)) = Object::from_value(conf).unwrap() else { panic!("not read") };
    assert_eq!((conf.spec.router_id.as_deref(), conf.spec.listen_port), (Some("192.0.2.9"), Some(17900)));
}
