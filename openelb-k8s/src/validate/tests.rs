use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{eip_change, has_errors, validate, validate_beside};
use crate::crd::Eip;
use crate::index::services::ClassRules;
use crate::names::annotation;
use crate::object::Object;
use crate::problem::{Problem, Severity};
use crate::source::manifests::load;

fn check(text: &str) -> Vec<Problem> {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("objects.yaml"), text).unwrap();
    let problems = validate(&load(directory.path()));
    for problem in &problems {
        assert!(problem.file.is_some() && problem.line.is_some(), "no place: {problem}");
        assert!(!problem.remedy.is_empty(), "no remedy: {problem}");
    }
    problems
}

fn ours(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: network.kubesphere.io/v1alpha2\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

/// One document with one error, in this field, whose message holds these words.
#[track_caller]
fn refused(kind: &str, spec: &str, field: &str, words: &str) {
    let name = if kind == "BgpConf" || kind == "Layer2Conf" { "default" } else { "x" };
    let problems: Vec<Problem> =
        check(&ours(kind, name, spec)).into_iter().filter(|p| p.severity == Severity::Error).collect();
    let [problem] = problems.as_slice() else { panic!("{spec}: {problems:?}") };
    assert_eq!(problem.field.as_deref(), Some(field), "{problem}");
    assert!(problem.to_string().contains(words), "{problem}");
    assert_eq!(problem.object.as_ref().map(|object| object.name.as_str()), Some(name));
}

#[track_caller]
fn accepted(kind: &str, spec: &str) {
    let name = if kind == "BgpConf" || kind == "Layer2Conf" { "default" } else { "x" };
    let problems = check(&ours(kind, name, spec));
    assert!(!has_errors(&problems), "{spec}: {problems:?}");
}

#[test]
fn a_neighbour_is_one_by_its_address_and_where_that_is_link_local_its_interface() {
    let conf = |address: &str, interface: &str| {
        format!("{{conf: {{neighborAddress: '{address}', peerAs: 64512, neighborInterface: '{interface}'}}}}")
    };
    for (one, other, errors) in [
        (conf("fe80::1", "eth1"), conf("fe80::1", "eth2"), 0),
        (conf("fe80::1", "eth1"), conf("fe80::1", "eth1"), 1),
        (conf("192.0.2.1", "eth1"), conf("192.0.2.1", "eth2"), 1),
        (conf("2001:db8::1", ""), conf("2001:DB8:0::1", ""), 1),
    ] {
        let text = ours("BgpConf", "default", "{as: 64501}")
            + &ours("BgpPeer", "a", &one)
            + &ours("BgpPeer", "b", &other);
        let found: Vec<_> =
            check(&text).into_iter().filter(|problem| problem.severity == Severity::Error).collect();
        assert_eq!(found.len(), errors, "{one} {other}: {found:?}");
    }
}

#[test]
fn eips() {
    accepted("Eip", "{address: 192.168.0.1/24}");
    accepted("Eip", "{address: 192.168.0.1-192.168.0.100, protocol: layer2, interface: eth0}");
    accepted("Eip", "{address: '2001:db8::/64, 192.0.2.0/255.255.255.0', protocol: none}");
    for bad in
        ["192.168.0.100-192.168.0.1", "xxxx", "192.0.2.1-192.0.2.2-192.0.2.3", "192.0.2.1.", "192.0.2.0/33"]
    {
        refused("Eip", &format!("{{address: '{bad}'}}"), "spec.address", "CIDRs");
    }
    refused("Eip", "{}", "spec.address", "no addresses");
    refused("Eip", "{address: 192.0.2.0/24, exclude: [192.0.2.300]}", "spec.exclude", "192.0.2.300");
    refused("Eip", "{address: 192.0.2.0/24, protocol: layer2}", "spec.interface", "need an interface");
    refused(
        "Eip",
        "{address: 192.0.2.0/24, protocol: vip, interface: ''}",
        "spec.interface",
        "need an interface",
    );
    refused(
        "Eip",
        "{address: 192.0.2.0/24, protocol: layer2, interface: 'can_reach:x'}",
        "spec.interface",
        "can_reach",
    );
    accepted("Eip", "{address: 192.0.2.0/24, protocol: layer2, interface: 'regex:^(eth|ens)[0-9]+$'}");
    for (bad, remedy) in [
        (".", "NAME"),
        ("Subnet", "subnet is written in small letters"),
        ("ALL", "all is written in small letters"),
        ("'eth0, bond0.1'", "regex:^(eth0|bond0"),
    ] {
        let spec = format!("{{address: 192.0.2.0/24, protocol: layer2, interface: {bad}}}");
        refused("Eip", &spec, "spec.interface", remedy);
    }
    for bad in ["regex:[", "regex:eth(", "regex:*", "regex:"] {
        let spec = format!("{{address: 192.0.2.0/24, protocol: layer2, interface: '{bad}'}}");
        refused("Eip", &spec, "spec.interface", "such as regex:^eth[0-9]+$");
    }
    refused("Eip", "{address: 192.0.2.0/24, protocol: ospf}", "spec.protocol", "ospf");
    refused("Eip", "{address: 192.0.2.0/24, sharing: All}", "spec.sharing", "All");
    refused("Eip", "{address: 192.0.2.0/24, maxPerNamespace: 0}", "spec.maxPerNamespace", "anybody");
    refused(
        "Eip",
        "{address: 192.0.2.0/24, serviceSelector: {matchExpressions: [{key: a, operator: Like}]}}",
        "spec.serviceSelector",
        "Like",
    );
}

/// An Eip of generation 3 with two addresses in use.
fn stored_eip(spec: Value) -> Eip {
    serde_json::from_value(json!({"metadata": {"name": "pool", "generation": 3}, "spec": spec,
        "status": {"used": {"192.0.2.9": "ns/a;ns/b", "192.0.2.200": "ns/c"}}}))
    .unwrap()
}

#[test]
fn an_edit_that_takes_live_addresses_out_of_an_eip_is_refused() {
    let whole = json!({"address": "192.0.2.0/24"});
    let part = json!({"address": "192.0.2.0/25"});
    let edge = json!({"address": "192.0.2.0-192.0.2.255", "exclude": ["192.0.2.0/28"]});
    let bad = json!({"address": "192.0.2.0/33"});
    // Each: before, after, the field that is named, the first words.
    let cases = [
        ("grown", &whole, json!({"address": "192.0.2.0/23"}), None),
        ("written in another way", &whole, json!({"address": "192.0.2.0-192.0.2.255"}), None),
        ("nothing in use there", &whole, json!({"address": "192.0.2.1-192.0.2.200"}), None),
        ("shrunk", &whole, part.clone(), Some(("spec.address", "192.0.2.200 (ns/c) is in use"))),
        (
            "moved",
            &whole,
            json!({"address": "198.51.100.0/24"}),
            Some(("spec.address", "192.0.2.9 (ns/a, ns/b), 192.0.2.200 (ns/c) are in use")),
        ),
        ("excluded", &whole, edge.clone(), Some(("spec.exclude", "192.0.2.9 (ns/a, ns/b) is in use"))),
        ("outside already", &part, json!({"address": "192.0.2.0/25", "disable": true}), None),
        (
            "another field",
            &edge,
            json!({"address": "192.0.2.0-192.0.2.255", "exclude": ["192.0.2.0/28"], "priority": 2}),
            None,
        ),
        ("a bad spec takes nothing away", &whole, bad.clone(), None),
        ("nor does one that was bad", &bad, part.clone(), None),
    ];
    for (name, before, after, expected) in cases {
        let mut after = stored_eip(after);
        // What is applied has no status.
        after.status = None;
        let problem = eip_change(&stored_eip((*before).clone()), &after);
        let found = problem.as_ref().map(|problem| (problem.field.as_str(), problem.cause.as_str()));
        match (found, expected) {
            (None, None) => {}
            (Some((field, cause)), Some((wanted, words))) => {
                assert!(field == wanted && cause.starts_with(words), "{name}: {field}: {cause}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    for (force, through) in [("3", true), (" 3 ", true), ("2", false), ("4", false), ("true", false)] {
        let mut after = stored_eip(part.clone());
        after.metadata.annotations = Some([(annotation::FORCE.to_owned(), force.to_owned())].into());
        assert_eq!(eip_change(&stored_eip(whole.clone()), &after).is_none(), through, "{force}");
    }
}

#[test]
fn edits_are_compared_with_what_is_stored() {
    let stored = [Object::Eip(Box::new(stored_eip(json!({"address": "192.0.2.0/24"}))))];
    let errors = |text: &str| {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("objects.yaml"), text).unwrap();
        let problems = validate_beside(&load(directory.path()), &ClassRules::default(), &stored);
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let shrunk = ours("Eip", "pool", "{address: 192.0.2.0/25}");
    let [error] = &errors(&shrunk)[..] else { panic!("{:?}", errors(&shrunk)) };
    assert!(error.contains("192.0.2.200 (ns/c) is in use") && error.contains("force: \"3\""), "{error}");
    assert_eq!(check(&shrunk), []);
    // Split: the record moves.
    assert_eq!(errors(&(shrunk.clone() + &ours("Eip", "other", "{address: 192.0.2.128/25}"))), [""; 0]);
    let forced =
        shrunk.replace("{name: pool}", "{name: pool, annotations: {openelb.kubesphere.io/force: '3'}}");
    assert_eq!(errors(&forced), [""; 0]);
}

#[test]
fn overlapping_eips() {
    let text = |exclude: &str| {
        ours("Eip", "a", "{address: 192.0.2.0/24}")
            + &ours("Eip", "b", &format!("{{address: 192.0.2.128-192.0.3.5{exclude}}}"))
    };
    let problems = check(&text(""));
    let [problem] = problems.as_slice() else { panic!("{problems:?}") };
    let shown = problem.to_string();
    assert!(
        shown.contains("Eip b") && shown.contains("192.0.2.128 (and 127 more) is also of Eip a"),
        "{shown}"
    );
    assert_eq!(check(&text(", exclude: [192.0.2.0/24]")), []);
    let apart = ours("Eip", "a", "{address: 192.0.2.100-192.0.2.200}")
        + &ours("Eip", "b", "{address: 192.0.2.1-192.0.2.99}");
    assert_eq!(check(&apart), []);
}

#[test]
fn two_defaults() {
    let eip = |name: &str, address: &str, value: &str| {
        format!(
            "---\napiVersion: network.kubesphere.io/v1alpha2\nkind: Eip\nmetadata: {{name: {name}, annotations: {{eip.openelb.kubesphere.io/is-default-eip: '{value}'}}}}\nspec: {{address: {address}}}\n"
        )
    };
    let problems = check(&(eip("a", "192.0.2.1", "True") + &eip("b", "192.0.2.2", "true")));
    assert_eq!(problems.len(), 1);
    assert!(problems[0].to_string().contains("Eip a is the default already"));
    assert_eq!(check(&(eip("a", "192.0.2.1", "true") + &eip("b", "192.0.2.2", "false"))), []);
}

#[test]
fn bgp_confs() {
    accepted("BgpConf", "{as: 65001, listenPort: 17900, routerId: 8.8.8.8}");
    accepted("BgpConf", "{asPerRack: {leaf1: 65001}}");
    refused("BgpConf", "{}", "spec.as", "no AS number");
    refused("BgpConf", "{as: 23456}", "spec.as", "reserved");
    refused("BgpConf", "{as: 65001, listenPort: 70000}", "spec.listenPort", "70000");
    refused("BgpConf", "{as: 65001, listenPort: -1}", "spec.listenPort", "-1");
    refused("BgpConf", "{as: 65001, routerId: '2001:db8::1'}", "spec.routerId", "IPv4");
    refused("BgpConf", "{as: 65001, routerId: 0.0.0.0}", "spec.routerId", "0.0.0.0");
    refused("BgpConf", "{as: 65001, listenAddresses: [eth0]}", "spec.listenAddresses", "eth0");
    refused("BgpConf", "{as: 65001, nextHopMode: Both}", "spec.nextHopMode", "Both");
    refused(
        "BgpConf",
        "{as: 65001, gracefulRestart: {restartTime: 4096}}",
        "spec.gracefulRestart.restartTime",
        "12 bits",
    );
    accepted("BgpConf", "{as: 65001, bfdProfiles: {fast: {receiveInterval: 50ms}, plain: {}}}");
    for (values, field, words) in [
        ("{receiveInterval: 10ms}", "receiveInterval", "out of range"),
        ("{transmitInterval: soon}", "transmitInterval", "soon"),
        ("{detectMultiplier: 256}", "detectMultiplier", "out of range"),
        ("{minimumTtl: 0}", "minimumTtl", "out of range"),
    ] {
        let spec = format!("{{as: 65001, bfdProfiles: {{fast: {values}}}}}");
        refused("BgpConf", &spec, &format!("spec.bfdProfiles[fast].{field}"), words);
    }
    let problems = check(&ours("BgpConf", "other", "{as: 65001}"));
    assert_eq!((problems.len(), problems[0].severity), (1, Severity::Warning));
}

#[test]
fn bgp_peers() {
    let peer = |rest: &str| format!("{{conf: {{peerAs: 65000, neighborAddress: 192.0.2.1}}{rest}}}");
    accepted("BgpPeer", &peer(""));
    accepted("BgpPeer", "{conf: {peerAs: 65000, neighborAddress: '2001:db8::/64'}}");
    refused("BgpPeer", "{}", "spec.conf.neighborAddress", "missing");
    refused("BgpPeer", "{conf: {neighborAddress: router}}", "spec.conf.neighborAddress", "router");
    refused("BgpPeer", "{conf: {neighborAddress: 224.0.0.1}}", "spec.conf.neighborAddress", "224.0.0.1");
    refused("BgpPeer", "{conf: {neighborAddress: 192.0.2.1, peerAs: 65535}}", "spec.conf.peerAs", "reserved");
    let config = |field: &str, value: &str| peer(&format!(", timers: {{config: {{{field}: '{value}'}}}}"));
    refused("BgpPeer", &config("holdTime", "2"), "spec.timers.config.holdTime", "at least 3");
    refused("BgpPeer", &config("holdTime", "30s"), "spec.timers.config.holdTime", "decimal seconds");
    refused(
        "BgpPeer",
        &config("keepaliveInterval", "30"),
        "spec.timers.config.keepaliveInterval",
        "not less",
    );
    refused("BgpPeer", &config("connectRetry", "99999"), "spec.timers.config.connectRetry", "too many");
    accepted("BgpPeer", &config("holdTime", "0"));
    let cases = [
        (", transport: {remotePort: 65536}", "spec.transport.remotePort", "65536"),
        (", transport: {localAddress: x}", "spec.transport.localAddress", "x"),
        (", ebgpMultihop: {enabled: true, multihopTtl: 256}", "spec.ebgpMultihop.multihopTtl", "256"),
        (
            ", ebgpMultihop: {enabled: true}, transport: {ttlSecurity: {hops: 1}}",
            "spec.transport.ttlSecurity",
            "excludes",
        ),
        (", prefixLimit: {}", "spec.prefixLimit.maxPrefixes", "missing"),
        (", receivedRoutes: All", "spec.receivedRoutes", "All"),
        (", passwordSecretRef: {key: k}", "spec.passwordSecretRef.name", "missing"),
        (", bfd: {enabled: true, receiveInterval: fast}", "spec.bfd.receiveInterval", "fast"),
        (", bfd: {enabled: true, detectMultiplier: 0}", "spec.bfd.detectMultiplier", "out of range"),
        (", afiSafis: [{config: {family: {afi: AFI_L2VPN}}}]", "spec.afiSafis[0].config.family", "AFI_L2VPN"),
        (", advertisements: [{communities: ['70000:1']}]", "spec.advertisements[0].communities", "70000:1"),
        (", advertisements: [{largeCommunities: ['1:2']}]", "spec.advertisements[0].largeCommunities", "1:2"),
        (
            ", advertisements: [{aggregationLength: 33}]",
            "spec.advertisements[0].aggregationLength",
            "1 to 32",
        ),
        (", policies: {import: [nobody]}", "spec.policies.import", "nobody"),
        (", policies: {defaultExport: maybe}", "spec.policies.defaultExport", "maybe"),
        (", nodeSelector: {matchExpressions: [{key: a, operator: In}]}", "spec.nodeSelector", "needs values"),
    ];
    for (rest, field, words) in cases {
        refused("BgpPeer", &peer(rest), field, words);
    }
}

#[test]
fn a_bfd_profile_that_is_not_there() {
    let peer =
        ours("BgpPeer", "p", "{conf: {neighborAddress: 192.0.2.1}, bfd: {enabled: true, profile: fast}}");
    let conf = |profile: &str| {
        ours("BgpConf", "default", &format!("{{as: 65001, bfdProfiles: {{{profile}: {{}}}}}}"))
    };
    assert_eq!(check(&(conf("fast") + &peer)), []);
    let problems = check(&(conf("slow") + &peer));
    assert_eq!((problems.len(), problems[0].field.as_deref()), (1, Some("spec.bfd.profile")));
    assert!(problems[0].to_string().contains("no BFD profile fast"), "{}", problems[0]);
    // Without any BgpConf that is what is missing.
    assert!(!has_errors(&check(&peer)));
}

#[test]
fn the_same_neighbour_twice() {
    let peer = |name: &str, rest: &str| {
        ours("BgpPeer", name, &format!("{{conf: {{neighborAddress: 192.0.2.1}}{rest}}}"))
    };
    let conf = ours("BgpConf", "default", "{as: 65001}");
    assert!(has_errors(&check(&(conf.clone() + &peer("a", "") + &peer("b", "")))));
    let rack = |name: &str| peer(name, &format!(", nodeSelector: {{matchLabels: {{rack: {name}}}}}"));
    assert_eq!(check(&(conf + &rack("a") + &rack("b"))), []);
}

#[test]
fn other_kinds() {
    accepted("Layer2Conf", "{gratuitous: {schedule: ['0', 100ms], refreshInterval: 60s}, failback: Manual}");
    refused("Layer2Conf", "{joinDelay: soon}", "spec.joinDelay", "soon");
    refused("Layer2Conf", "{failback: Never}", "spec.failback", "Never");
    accepted("VipGroup", "{virtualRouterIdRange: 100-110, advertisementInterval: 100ms}");
    refused("VipGroup", "{virtualRouterId: 256}", "spec.virtualRouterId", "1 to 255");
    refused("VipGroup", "{virtualRouterIdRange: 110-100}", "spec.virtualRouterIdRange", "110-100");
    refused("VipGroup", "{advertisementInterval: 41s}", "spec.advertisementInterval", "41s");
    refused("VipGroup", "{priorities: [{priority: 255}]}", "spec.priorities[0].priority", "1 to 254");
    let clash = ours("VipGroup", "a", "{virtualRouterId: 100}")
        + &ours("VipGroup", "b", "{virtualRouterIdRange: 99-101}");
    assert!(check(&clash)[0].to_string().contains("VipGroup a uses virtual router 100 too"));
    refused(
        "BgpPolicy",
        "{statements: [{match: {prefixSet: {prefixes: [{prefix: 10.0.0.0/8, maskLengthRange: 24-32}]}}}]}",
        "spec.statements[0].match.prefixSet.prefixes[0].maskLengthRange",
        "24..32",
    );
    refused("BgpPolicy", "{statements: [{actions: {med: much}}]}", "spec.statements[0].actions.med", "much");
    refused(
        "BgpPolicy",
        "{statements: [{actions: {disposition: drop}}]}",
        "spec.statements[0].actions.disposition",
        "drop",
    );
}

#[test]
fn services() {
    let service = |annotations: &str, spec: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s, namespace: ns, annotations: {{lb.kubesphere.io/v1alpha1: openelb{annotations}}}}}\nspec: {{type: LoadBalancer{spec}}}\n"
        )
    };
    assert_eq!(check(&service("", "")), []);
    // A pool that is not there yet only leaves the Service waiting.
    assert_eq!(check(&service(", eip.openelb.kubesphere.io/v1alpha2: nowhere", "")), []);
    for (annotations, spec, words) in [
        (", eip.openelb.kubesphere.io/v1alpha1: 192.0.2.300", "", "192.0.2.300"),
        (", eip.openelb.kubesphere.io/v1alpha1: '::ffff:192.0.2.3'", "", "mapped"),
        (", eip.openelb.kubesphere.io/v1alpha1: 192.0.2.03", "", "leading zeros"),
        (", eip.openelb.kubesphere.io/v1alpha1: '192.0.2.3,192.0.2.4'", "", "second IPv4"),
        (", eip.openelb.kubesphere.io/v1alpha1: '2001:db8::1'", ", ipFamilies: [IPv4]", "family"),
        ("", ", loadBalancerIP: '192.0.2.3,2001:db8::1'", "not one address"),
        (", node-proxy.openelb.kubesphere.io/type: daemonset", "", "NodeProxy"),
    ] {
        let problems = check(&service(annotations, spec));
        assert!(
            has_errors(&problems) && problems[0].to_string().contains(words),
            "{annotations}{spec}: {problems:?}"
        );
        assert!(problems[0].to_string().contains("Service ns/s"), "{}", problems[0]);
    }
    // Another class: none of our business.
    let foreign = service(", eip.openelb.kubesphere.io/v1alpha1: x", ", loadBalancerClass: other");
    assert_eq!(check(&foreign), []);
}

#[test]
fn unreadable_documents_are_errors() {
    let problems = check(
        "apiVersion: network.kubesphere.io/v1alpha2\nkind: Eip\nmetadata: {name: x}\nspec: {adress: 192.0.2.1}\n",
    );
    assert!(has_errors(&problems));
    let problems = check(
        "apiVersion: network.kubesphere.io/v1alpha1\nkind: Eip\nmetadata: {name: x}\nspec: {address: 192.0.2.1}\n",
    );
    assert!(!has_errors(&problems) && problems[0].to_string().contains("deprecated"), "{problems:?}");
}
