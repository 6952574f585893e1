//! `openelbd standalone` as a process: addresses, files, restarts, several instances, health and metrics.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::TcpListener,
    time::{Duration, Instant},
};

use common::{
    Site, bgp_conf, bgp_peer, eip, eventually, free_port, node, router::Router, service, service_with,
};
use serde_json::Value;

/// An edit takes effect within this time.
const EDIT: Duration = Duration::from_secs(1);

fn basic(site: &Site) {
    site.write("pool.yaml", &(eip("web", "203.0.113.0/28") + &node("n1", "127.0.0.1")));
}

#[test]
fn a_service_gets_an_address_and_a_status() {
    let site = Site::new();
    basic(&site);
    site.write("a.yaml", &service("a"));
    let daemon = site.start("n1");
    assert_eq!(site.wait_for_addresses("a", 1), ["203.0.113.0"]);
    let service = "services/default/a.yaml";
    let assigned = eventually("AddressAssigned", || {
        site.condition(service, "network.kubesphere.io/AddressAssigned").filter(|c| c["status"] == "True")
    });
    assert_eq!(assigned["reason"], "Assigned");
    let honoured = site.condition(service, "network.kubesphere.io/RequestHonoured").unwrap();
    assert_eq!(honoured["status"], "True");
    let eip =
        eventually("usage", || site.object("eips/_/web.yaml").filter(|eip| eip["status"]["usage"] == 1));
    assert_eq!(eip["status"]["used"], serde_json::json!({"203.0.113.0": "default/a"}));
    assert_eq!(eip["status"]["poolSize"], 16);
    daemon.wait_until_ready();
}

/// How long it takes from an edit until something is so.
fn took(what: &str, edit: impl FnOnce(), is_so: impl Fn() -> bool) -> Duration {
    edit();
    let began = Instant::now();
    eventually(what, || is_so().then_some(()));
    began.elapsed()
}

#[test]
fn edits_take_effect_within_a_second() {
    let site = Site::new();
    basic(&site);
    let daemon = site.start("n1");
    daemon.wait_until_ready();
    // A machine that is kept waiting may miss it; one of a few times it is not.
    let mut times = Vec::new();
    let prompt = (0..5).any(|_| {
        let new = took(
            "an address for a new Service",
            || site.write("a.yaml", &service("a")),
            || site.addresses("a").len() == 1,
        );
        let changed = took(
            "the address that is asked for",
            || site.write("a.yaml", &service_with("a", ", loadBalancerIP: 203.0.113.9")),
            || site.addresses("a") == ["203.0.113.9"],
        );
        let used = || {
            let eip = site.object("eips/_/web.yaml")?;
            Some(eip.pointer("/status/used")?.as_object()?.len())
        };
        let gone = took(
            "the release",
            || site.remove("a.yaml"),
            || used().unwrap_or_default() == 0 && site.object("services/default/a.yaml").is_none(),
        );
        times.push([new, changed, gone]);
        [new, changed, gone].iter().all(|took| *took < EDIT)
    });
    assert!(prompt, "{times:?}");
}

#[test]
fn a_full_pool_says_so_and_growing_it_serves_who_waits() {
    let site = Site::new();
    site.write("pool.yaml", &(eip("web", "203.0.113.7") + &node("n1", "127.0.0.1")));
    site.write("services.yaml", &(service("a") + &service("b")));
    let _daemon = site.start("n1");
    site.wait_for_addresses("a", 1);
    let condition = eventually("the reason of the one that waits", || {
        site.condition("services/default/b.yaml", "network.kubesphere.io/AddressAssigned")
    });
    assert_eq!((&condition["status"], &condition["reason"]), (&"False".into(), &"PoolExhausted".into()));
    assert!(condition["message"].as_str().unwrap().contains("web"), "{condition}");
    site.write("pool.yaml", &(eip("web", "203.0.113.7-203.0.113.8") + &node("n1", "127.0.0.1")));
    assert_eq!(site.wait_for_addresses("b", 1), ["203.0.113.8"]);
    assert_eq!(site.addresses("a"), ["203.0.113.7"]);
}

#[test]
fn a_bad_manifest_is_named_and_loses_nothing() {
    let site = Site::new();
    basic(&site);
    site.write("a.yaml", &service("a"));
    let mut daemon = site.start("n1");
    site.wait_for_addresses("a", 1);
    daemon.wait_until_ready();
    site.write(
        "a.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: default}\nspec: [oops\n",
    );
    daemon.wait_for_log(&["a.yaml"]);
    site.write("pool.yaml", &(eip("web", "not an address") + &node("n1", "127.0.0.1")));
    daemon.wait_for_log(&["Eip web", "spec.address"]);
    eventually("the problems in the metrics", || {
        (daemon.metric("openelb_manifest_problems")? >= 2.0).then_some(())
    });
    // The last good version of the pool stays in force, and others go on.
    site.write("b.yaml", &service("b"));
    assert_eq!(site.wait_for_addresses("b", 1), ["203.0.113.1"]);
    assert_eq!(site.addresses("a"), ["203.0.113.0"]);
    let ready = eventually("the Eip's condition", || {
        site.condition("eips/_/web.yaml", "Ready").filter(|condition| condition["status"] == "False")
    });
    assert!(ready["message"].as_str().unwrap().contains("spec.address"), "{ready}");
    basic(&site);
    eventually("the mended Eip", || {
        site.condition("eips/_/web.yaml", "Ready").filter(|condition| condition["status"] == "True")
    });
    assert!(daemon.is_running());
}

#[test]
fn a_document_of_the_wrong_type_keeps_the_last_good_version_and_its_condition() {
    let site = Site::new();
    basic(&site);
    let daemon = site.start("n1");
    daemon.wait_until_ready();
    let ready = |status: &str| {
        eventually(&format!("Ready={status}"), || {
            site.condition("eips/_/web.yaml", "Ready").filter(|condition| condition["status"] == status)
        })
    };
    ready("True");
    site.write("pool.yaml", &(eip("web", "[1, 2]") + &node("n1", "127.0.0.1")));
    daemon.wait_for_log(&["pool.yaml", "Eip web"]);
    ready("False");
    // Other writes to the object do not make it look well.
    site.write("a.yaml", &service("a"));
    assert_eq!(site.wait_for_addresses("a", 1), ["203.0.113.0"]);
    eventually("the record", || {
        site.object("eips/_/web.yaml").filter(|eip| eip.pointer("/status/usage") == Some(&Value::from(1)))
    });
    ready("False");
    basic(&site);
    ready("True");
    eventually("no problem in the metrics", || {
        (daemon.metric("openelb_manifest_problems")? == 0.0).then_some(())
    });
}

#[test]
fn a_layer2_conf_that_becomes_bad_is_named_and_its_last_good_version_stays_in_force() {
    let site = Site::new();
    basic(&site);
    let conf = |spec: &str| {
        let head =
            "apiVersion: network.kubesphere.io/v1alpha2\nkind: Layer2Conf\nmetadata: {name: default}\nspec: ";
        site.write("layer2.yaml", &format!("{head}{spec}\n"));
    };
    conf("{failback: Manual, joinDelay: 1s}");
    let daemon = site.start("n1");
    daemon.wait_until_ready();
    let ready = |reason: &str| {
        eventually(&format!("Ready with {reason}"), || {
            site.condition("layer2confs/_/default.yaml", "Ready").filter(|known| known["reason"] == reason)
        })
    };
    let problems = |count: f64| {
        eventually("the problems in the metrics", || {
            (daemon.metric("openelb_manifest_problems")? == count).then_some(())
        });
    };
    assert_eq!(ready("Ready")["status"], "True");
    for (bad, field) in [("{failback: manual}", "spec.failback"), ("{joinDelay: soon}", "spec.joinDelay")] {
        conf(bad);
        daemon.wait_for_log(&["Layer2Conf default", field]);
        problems(1.0);
        let condition = eventually("the condition", || {
            let known = site.condition("layer2confs/_/default.yaml", "Ready")?;
            known["message"].as_str()?.contains(field).then_some(known)
        });
        assert_eq!((&condition["status"], &condition["reason"]), (&"False".into(), &"LastGoodSpec".into()));
    }
    conf("{failback: Manual, joinDelay: 1s}");
    ready("Ready");
    problems(0.0);
    // So it is with one that cannot even be read.
    conf("{joinDelay: [1]}");
    daemon.wait_for_log(&["layer2.yaml", "Layer2Conf default"]);
    ready("LastGoodSpec");
    conf("{failback: Manual}");
    ready("Ready");
    problems(0.0);
}

#[test]
fn an_address_that_nobody_answers_for_is_told_on_its_eip() {
    let site = Site::new();
    let pool = eip("web", "203.0.113.0/28\n  protocol: layer2\n  interface: nope0");
    site.write("pool.yaml", &(pool + &node("n1", "127.0.0.1")));
    site.write("a.yaml", &service("a"));
    let port = free_port().to_string();
    let daemon = site.start_with("n1", &["--bind-port", &port]);
    site.wait_for_addresses("a", 1);
    // What Layer 2 says is of the Eip, not of how BGP is spoken.
    let line = daemon.wait_for_log(&["InterfaceNotFound", "nope0"]);
    assert!(line.contains("Eip web"), "{line}");
    daemon.wait_for_log(&["Eip web", "ConfigSpeakerFailed", "n1: ", "nope0"]);
    assert!(!daemon.log().contains("BgpConf"), "{}", daemon.log());
    let sample = |name: &str| daemon.metric(&format!("openelb_{name}_addresses{{protocol=\"layer2\"}}"));
    assert_eq!((sample("desired"), sample("announced")), (Some(1.0), Some(0.0)));
}

#[test]
fn kill_and_restart_keep_addresses() {
    let site = Site::new();
    basic(&site);
    let all: String = ["a", "b", "c", "d"].map(service).concat();
    site.write("services.yaml", &all);
    let daemon = site.start("n1");
    let before: Vec<Vec<String>> = ["a", "b", "c", "d"].map(|name| site.wait_for_addresses(name, 1)).to_vec();
    daemon.kill();
    // While nobody runs, a Service goes and another comes.
    site.write("services.yaml", &["b", "c", "d", "e"].map(service).concat());
    let daemon = site.start("n1");
    daemon.wait_until_ready();
    let after: Vec<Vec<String>> = ["b", "c", "d"].map(|name| site.addresses(name)).to_vec();
    assert_eq!(after, before[1..]);
    assert_eq!(
        site.wait_for_addresses("e", 1),
        before[0],
        "a's address was released, and is the lowest free one"
    );
}

#[test]
fn instances_that_share_a_state_directory_never_give_one_address_twice() {
    const SERVICES: usize = 24;
    let site = Site::new();
    let nodes: String = ["n1", "n2", "n3"].map(|name| node(name, "127.0.0.1")).concat();
    site.write("pool.yaml", &(eip("web", "203.0.113.0/27") + &nodes));
    let names: Vec<String> = (0..SERVICES).map(|index| format!("s{index:02}")).collect();
    let mut daemons: Vec<_> = ["n1", "n2", "n3"].map(|name| site.start(name)).into_iter().collect();
    // All three decide at the same time, and one of them is killed in the middle of it.
    site.write("services.yaml", &names.iter().map(|name| service(name)).collect::<String>());
    site.wait_for_addresses(&names[0], 1);
    daemons.remove(0).kill();
    let mut holders: BTreeMap<String, String> = BTreeMap::new();
    for name in &names {
        let address = site.wait_for_addresses(name, 1).remove(0);
        assert_eq!(holders.insert(address.clone(), name.clone()), None, "{address} was given twice");
    }
    let eip = eventually("the record of all", || {
        site.object("eips/_/web.yaml").filter(|eip| eip["status"]["usage"] == SERVICES)
    });
    for (address, name) in &holders {
        assert_eq!(eip["status"]["used"][address], format!("default/{name}"));
    }
    for daemon in &daemons {
        daemon.wait_until_ready();
    }
}

#[test]
fn a_router_hears_of_addresses_and_sigterm_withdraws_them() {
    let site = Site::new();
    let router = Router::start();
    let pool = eip("web", "203.0.113.0/28, 2001:db8:1::/64") + &node("n1", "127.0.0.1");
    site.write("pool.yaml", &(pool + &bgp_conf(free_port()) + &bgp_peer("tor", router.address())));
    site.write("a.yaml", &service("a"));
    let mut daemon = site.start("n1");
    let first = BTreeMap::from([("203.0.113.0/32".to_owned(), 1)]);
    eventually("the route of a", || (router.routes() == first).then_some(()));
    let id = "127.0.0.1".parse().unwrap();
    assert_eq!(router.neighbors()[&id].routes["203.0.113.0/32"], "127.0.0.1", "the next hop is this node");
    daemon.wait_until_ready();

    site.write("b.yaml", &service("b"));
    eventually("the route of b", || router.routes().contains_key("203.0.113.1/32").then_some(()));
    site.remove("b.yaml");
    eventually("the withdrawal of b", || (router.routes() == first).then_some(()));

    let peer = "bgppeers/_/tor.yaml";
    let status = eventually("nodesPeerStatus", || {
        let status = site.object(peer)?.pointer("/status/nodesPeerStatus/n1").cloned()?;
        (status["peerState"]["sessionState"] == "ESTABLISHED").then_some(status)
    });
    assert_eq!(status["peerState"]["neighborAddress"], "127.0.0.2");
    assert_eq!(status["peerState"]["routerId"], "192.0.2.254");
    assert_eq!(status["peerState"]["peerAs"], 65001);
    assert_eq!(status["timersState"]["negotiatedHoldTime"], "30");
    let established = site.condition(peer, "Established").unwrap();
    assert_eq!((&established["status"], &established["reason"]), (&"True".into(), &"AllEstablished".into()));
    let conf = site.object("bgpconfs/_/default.yaml").unwrap();
    assert_eq!(
        conf["status"]["nodesConfStatus"]["n1"],
        serde_json::json!({"as": 65000, "routerId": "127.0.0.1"})
    );

    let labels = r#"{peer="tor",neighbor="127.0.0.2""#;
    assert_eq!(daemon.metric(&format!("openelb_bgp_session_up{labels}}}")), Some(1.0));
    eventually("the route in the metrics", || {
        let sample = format!(r#"openelb_bgp_routes_advertised{labels},family="ipv4-unicast"}}"#);
        (daemon.metric(&sample)? == 1.0).then_some(())
    });
    eventually("the address in the metrics", || {
        (daemon.metric(r#"openelb_announced_addresses{protocol="bgp"}"#)? == 1.0).then_some(())
    });

    assert_eq!(daemon.terminate(), 0);
    let neighbor = eventually("the end of the session", || {
        router.neighbors().get(&id).cloned().filter(|neighbor| !neighbor.established)
    });
    assert!(neighbor.communities.contains(&0xffff_0000), "GRACEFUL_SHUTDOWN comes first: {neighbor:?}");
    assert_eq!(neighbor.withdrawn.last().map(String::as_str), Some("203.0.113.0/32"), "{neighbor:?}");
    assert_eq!(neighbor.notifications, [(6, 2)], "Cease, Administrative Shutdown");
    assert_eq!(neighbor.sessions, 1, "edits do not reset the session");
}

#[test]
fn on_stop_restart_closes_without_a_word() {
    let site = Site::new();
    let router = Router::start();
    let pool = eip("web", "203.0.113.0/28") + &node("n1", "127.0.0.1");
    site.write(
        "pool.yaml",
        &(pool + &bgp_conf(free_port()) + &bgp_peer("tor", router.address()) + &service("a")),
    );
    let mut daemon = site.start_with("n1", &["--on-stop", "Restart"]);
    eventually("the route", || (router.routes().len() == 1).then_some(()));
    assert_eq!(daemon.terminate(), 0);
    let id = "127.0.0.1".parse().unwrap();
    let neighbor = eventually("the end of the session", || {
        router.neighbors().get(&id).cloned().filter(|neighbor| !neighbor.established)
    });
    assert_eq!((neighbor.withdrawn.len(), neighbor.notifications.len()), (0, 0), "{neighbor:?}");
}

#[test]
fn a_bgp_port_that_is_taken_is_told_and_sessions_are_opened_all_the_same() {
    let site = Site::new();
    let router = Router::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let pool = eip("web", "203.0.113.0/28") + &node("n1", "127.0.0.1") + &bgp_peer("tor", router.address());
    site.write("pool.yaml", &(pool + &bgp_conf(taken.local_addr().unwrap().port()) + &service("a")));
    let mut daemon = site.start("n1");
    eventually("the route", || (router.routes().len() == 1).then_some(()));
    eventually("/readyz names the port", || {
        let (code, body) = daemon.get("/readyz");
        (code == 503 && body.contains("[-] listeners") && body.contains("127.0.0.1")).then_some(())
    });
    let condition = eventually("the BgpConf names the port", || {
        let ready = site.condition("bgpconfs/_/default.yaml", "Ready")?;
        ready["message"].as_str()?.contains("cannot listen").then_some(ready)
    });
    assert_eq!(condition["status"], "True", "{condition}");
    assert!(daemon.is_running());
    drop(taken);
    daemon.wait_until_ready();
}

#[test]
fn a_metrics_port_that_is_taken_is_told_and_tried_again() {
    let site = Site::new();
    basic(&site);
    site.write("a.yaml", &service("a"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut daemon = site.start_with("n1", &["--metrics-addr", &taken.local_addr().unwrap().to_string()]);
    daemon.wait_for_log(&["metrics and health cannot be served"]);
    site.wait_for_addresses("a", 1);
    assert!(daemon.is_running());
    drop(taken);
    daemon.wait_until_ready();
}

#[test]
fn settings_without_effect_become_conditions_and_secrets_are_never_shown() {
    let site = Site::new();
    basic(&site);
    let peer = |name: &str, address: &str, more: &str| {
        format!(
            "apiVersion: network.kubesphere.io/v1alpha2\nkind: BgpPeer\nmetadata: {{name: {name}}}\nspec: {{conf: {{neighborAddress: {address}, peerAs: 65001}}, {more}}}\n---\n"
        )
    };
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: tor, namespace: openelb-system}\nstringData: {password: correct-horse}\n---\n";
    let vip = eip("vip", "198.51.100.0/28\n  protocol: vip\n  interface: eth0").replace("true", "false");
    let peers = peer("mss", "127.0.0.3", "transport: {tcpMss: 1400}")
        + &peer("md5", "127.0.0.4", "passwordSecretRef: {name: tor}")
        + &peer("missing", "127.0.0.6", "passwordSecretRef: {name: nobody}")
        + &peer("plain", "127.0.0.5", "transport: {passiveMode: true}");
    site.write("bgp.yaml", &(bgp_conf(free_port()) + &peers + secret + &vip));
    let daemon = site.start("n1");
    for (path, part) in
        [("bgppeers/_/mss.yaml", "spec.transport.tcpMss"), ("eips/_/vip.yaml", "spec.protocol")]
    {
        let condition =
            eventually(&format!("SettingsApplied of {path}"), || site.condition(path, "SettingsApplied"));
        assert_eq!((&condition["status"], &condition["reason"]), (&"False".into(), &"NotSupported".into()));
        assert!(condition["message"].as_str().unwrap().contains(part), "{condition}");
    }
    daemon.wait_until_ready();
    assert_eq!(site.condition("bgppeers/_/plain.yaml", "SettingsApplied"), None);
    let state = |path: &str, wanted: &str| {
        eventually(&format!("{path} {wanted}"), || {
            let status = site.object(path)?.pointer("/status/nodesPeerStatus/n1").cloned()?;
            (status["peerState"]["adminState"] == wanted).then_some(status)
        })
    };
    let down = state("bgppeers/_/missing.yaml", "DOWN");
    assert_eq!(down["peerState"]["sessionState"], "IDLE", "without the password that it is to have");
    assert_eq!(site.condition("bgppeers/_/missing.yaml", "Ready").unwrap()["reason"], "SecretNotFound");
    let protected = state("bgppeers/_/md5.yaml", "UP");
    assert_eq!(protected["session"]["authentication"], "TCP MD5", "{protected}");
    // The Secret comes, and the session may.
    site.write("secret.yaml", &secret.replace("tor", "nobody").replace("horse", "cow").replace("---\n", ""));
    state("bgppeers/_/missing.yaml", "UP");
    eventually("a peer that is in force", || {
        (site.condition("bgppeers/_/missing.yaml", "Ready")?["status"] == "True").then_some(())
    });
    // A setting that is taken back takes its condition with it.
    site.write("bgp.yaml", &(bgp_conf(free_port()) + &peer("mss", "127.0.0.3", "transport: {tcpMss: 0}")));
    eventually("the condition goes", || {
        site.condition("bgppeers/_/mss.yaml", "SettingsApplied").is_none().then_some(())
    });
    assert!(!daemon.log().contains("correct-"));
    assert!(!daemon.get("/metrics").1.contains("correct-horse"));
    for (path, content) in common::snapshot(&site.state()) {
        assert!(!String::from_utf8_lossy(&content).contains("correct-horse"), "{}", path.display());
    }
}

#[test]
fn health_and_metrics_and_nothing_else() {
    let site = Site::new();
    basic(&site);
    site.write("a.yaml", &service("a"));
    let daemon = site.start("n1");
    daemon.wait_until_ready();
    assert_eq!(daemon.get("/healthz"), (200, "ok\n".to_owned()));
    for path in ["/", "/api/v1/pools", "/metrics/", "/debug"] {
        assert_eq!(daemon.get(path).0, 404, "{path}");
    }
    let (code, text) = daemon.get("/metrics");
    assert_eq!(code, 200);
    check_syntax(&text);
    eventually("the pool's use", || {
        (daemon.metric(r#"openelb_pool_addresses_in_use{pool="web"}"#)? == 1.0).then_some(())
    });
    assert_eq!(daemon.metric(r#"openelb_services{reason="Assigned"}"#), Some(1.0));
    assert_eq!(daemon.metric("openelb_ready"), Some(1.0));
}

/// What `promtool check metrics` checks: every sample belongs to a family that has help and a type and is written in
/// one piece; names, labels and values are well formed; counters end in `_total`; no sample is there twice.
fn check_syntax(text: &str) {
    let mut types: BTreeMap<String, String> = BTreeMap::new();
    let (mut helped, mut samples) = (BTreeSet::new(), BTreeSet::new());
    let mut current = String::new();
    let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF");
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect(line);
            assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect(line);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(types.insert(name.to_owned(), kind.to_owned()), None, "{line}: twice");
            assert!(helped.contains(name), "{line}: without help");
            assert!(name.starts_with("openelb_") || name.starts_with("process_"), "{line}");
            name.clone_into(&mut current);
            continue;
        }
        assert!(!line.starts_with('#'), "{line}");
        let (sample, value) = line.rsplit_once(' ').expect(line);
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(samples.insert(sample.to_owned()), "{line}: twice");
        let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
        assert!(labels.ends_with('}') && !labels.is_empty() && sample != format!("{name}{{}}"), "{line}");
        let suffix =
            name.strip_prefix(current.as_str()).unwrap_or_else(|| panic!("{line} is not of {current}"));
        let allowed: &[&str] = match types[&current].as_str() {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        assert!(allowed.contains(&suffix), "{line}");
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
        assert!(name.chars().all(valid), "{line}");
        for pair in labels.trim_end_matches('}').split("\",").filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once("=\"").expect(line);
            assert!(key.chars().all(valid) && !value.is_empty(), "{line}");
        }
    }
    assert!(samples.len() > 20, "{text}");
}

#[test]
fn sighup_reads_everything_again() {
    let site = Site::new();
    basic(&site);
    site.write("a.yaml", &service("a"));
    let daemon = site.start("n1");
    site.wait_for_addresses("a", 1);
    daemon.wait_until_ready();
    daemon.signal("HUP");
    daemon.wait_for_log(&["SIGHUP"]);
    site.write("b.yaml", &service("b"));
    assert_eq!(site.wait_for_addresses("b", 1), ["203.0.113.1"]);
    assert_eq!(site.addresses("a"), ["203.0.113.0"]);
}

#[test]
fn a_lost_status_is_repaired() {
    let site = Site::new();
    basic(&site);
    site.write("a.yaml", &(service("a") + &service("b")));
    let daemon = site.start("n1");
    let held = site.wait_for_addresses("b", 1);
    site.wait_for_addresses("a", 1);
    daemon.wait_until_ready();
    daemon.kill();
    // The Eip's record is lost; the Services still publish.
    fs::write(site.state().join("eips/_/web.yaml"), "garbled: [").unwrap();
    let daemon = site.start("n1");
    daemon.wait_for_log(&["garbled"]);
    let eip = eventually("the record is rebuilt", || {
        site.object("eips/_/web.yaml").filter(|eip| eip.pointer("/status/usage") == Some(&Value::from(2)))
    });
    assert_eq!(eip["status"]["used"][&held[0]], "default/b");
    assert_eq!(site.addresses("b"), held);
}

#[test]
fn idle_costs_next_to_nothing() {
    const SERVICES: usize = 100;
    /// Of one core, in percent; a release build takes less than 0.5, and a loop that never rests 100.
    const CEILING: f64 = 5.0;
    let site = Site::new();
    let router = Router::start();
    let pool = eip("web", "203.0.113.0/24") + &node("n1", "127.0.0.1") + &bgp_peer("tor", router.address());
    site.write("pool.yaml", &(pool + &bgp_conf(free_port())));
    site.write(
        "services.yaml",
        &(0..SERVICES).map(|index| service(&format!("s{index:02}"))).collect::<String>(),
    );
    let daemon = site.start("n1");
    eventually("all routes", || (router.routes().len() == SERVICES).then_some(()));
    daemon.wait_until_ready();
    let cpu = || daemon.metric("process_cpu_seconds_total").unwrap();
    // The last writes of status settle; then a window of two seconds.
    let window = |length: Duration| {
        let (began, before) = (Instant::now(), cpu());
        eventually("the window's end", || (began.elapsed() >= length).then_some(()));
        (cpu() - before) / began.elapsed().as_secs_f64() * 100.0
    };
    let used = eventually("rest", || Some(window(Duration::from_secs(2))).filter(|used| *used < CEILING));
    println!("idle: {used:.2} % of a core");
}

#[test]
fn every_instance_announces_and_the_others_go_on_when_one_dies() {
    let site = Site::new();
    let router = Router::start();
    let nodes = node("n1", "127.0.0.1") + &node("n2", "127.0.0.3");
    // Both hosts are this one: the second finds the BGP port taken, and opens its session itself.
    let bgp = bgp_conf(free_port()) + &bgp_peer("tor", router.address());
    site.write("pool.yaml", &(eip("web", "203.0.113.0/28") + &nodes + &bgp));
    site.write("a.yaml", &service("a"));
    let first = site.start("n1");
    let _second = site.start("n2");
    let with = |count| BTreeMap::from([("203.0.113.0/32".to_owned(), count)]);
    eventually("two routes", || (router.routes() == with(2)).then_some(()));
    eventually("both in nodesPeerStatus", || {
        let status = site.condition("bgppeers/_/tor.yaml", "Established")?;
        (status["reason"] == "AllEstablished" && status["message"] == "2 of 2 sessions").then_some(())
    });
    first.kill();
    eventually("one route", || (router.routes() == with(1)).then_some(()));
    site.write("b.yaml", &service("b"));
    assert_eq!(site.wait_for_addresses("b", 1), ["203.0.113.1"]);
    eventually("the route of b", || router.routes().contains_key("203.0.113.1/32").then_some(()));
}
