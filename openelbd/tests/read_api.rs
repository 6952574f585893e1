//! The read API of `openelbd standalone`: lists, their changes, and who is not answered.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use common::{
    Daemon, Site, bgp_conf, bgp_peer, eip, eventually, free_port, get, node, openelbd, router::Router,
    service,
};
use serde_json::Value;

fn start(site: &Site) -> (Daemon, SocketAddr) {
    let daemon = site.start_with("n1", &["--http-bind-address", "127.0.0.1:0"]);
    let line: Value = serde_json::from_str(&daemon.wait_for_log(&["the read API served"])).unwrap();
    let address = line["address"].as_str().unwrap().parse().unwrap();
    (daemon, address)
}

fn items(address: SocketAddr, list: &str) -> Vec<Value> {
    let (code, body) = get(address, &format!("/api/v1/{list}"));
    assert_eq!(code, 200, "{body}");
    serde_json::from_str::<Value>(&body).unwrap()["items"].as_array().unwrap().clone()
}

fn site(router: &Router) -> Site {
    let site = Site::new();
    let pool = eip("web", "203.0.113.0/30") + &node("n1", "127.0.0.1");
    site.write("pool.yaml", &(pool + &bgp_conf(free_port()) + &bgp_peer("tor", router.address())));
    site.write("a.yaml", &service("a"));
    site
}

#[test]
fn every_list_says_what_is_really_happening() {
    let router = Router::start();
    let site = site(&router);
    let (_daemon, address) = start(&site);
    let service = eventually("the announced address", || {
        let services = items(address, "services");
        let by = services.first()?.pointer("/addresses/0/announcedBy/0/peers/0/advertised")?;
        (by == &Value::Bool(true)).then(|| services[0].clone())
    });
    assert_eq!((&service["namespace"], &service["name"]), (&"default".into(), &"a".into()));
    let expected = serde_json::json!({
        "address": "203.0.113.0", "protocol": "bgp", "pool": "web", "detail": "advertised to tor",
        "announcedBy": [{"node": "n1", "peers": [{"neighbor": "127.0.0.2", "advertised": true}]}],
    });
    assert_eq!(service["addresses"], serde_json::json!([expected]));
    assert_eq!(service["reason"], "Assigned");

    let pool = &items(address, "pools")[0];
    assert_eq!((&pool["name"], &pool["usage"], &pool["poolSize"]), (&"web".into(), &1.into(), &4.into()));
    let peer = &items(address, "peers")[0];
    assert_eq!((&peer["name"], &peer["state"]), (&"tor".into(), &"ESTABLISHED".into()));
    assert_eq!((&peer["neighbor"], &peer["peerAs"]), (&"127.0.0.2".into(), &65001.into()));
    let node = &items(address, "nodes")[0];
    assert_eq!((&node["name"], &node["self"]), (&"n1".into(), &true.into()));
    let events = items(address, "events");
    assert!(events.iter().any(|event| event["reason"] == "AssignIP" && event["name"] == "a"), "{events:?}");
}

#[test]
fn the_stream_begins_with_everything_and_goes_on_with_what_changes() {
    let router = Router::start();
    let site = site(&router);
    let (_daemon, address) = start(&site);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET /api/v1/stream HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let mut seen = Vec::new();
    let mut next = || {
        let name = lines.find_map(|line| line.strip_prefix("event: ").map(str::to_owned)).unwrap();
        let data = lines.find_map(|line| line.strip_prefix("data: ").map(str::to_owned)).unwrap();
        (name, serde_json::from_str::<Value>(&data).unwrap())
    };
    while seen.len() < 5 {
        let (name, _) = next();
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen.sort();
    assert_eq!(seen, ["events", "nodes", "peers", "pools", "services"]);
    site.write("b.yaml", &service("b"));
    // The read timeout ends this if it never comes.
    loop {
        let (name, data) = next();
        let services = data["items"].as_array().unwrap();
        if name == "services" && services.iter().any(|service| service["name"] == "b") {
            return;
        }
    }
}

#[test]
fn requests_under_another_name_and_for_nothing_are_refused() {
    let site = Site::new();
    let (_daemon, address) = start(&site);
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /api/v1/services HTTP/1.1\r\nHost: attacker.example\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    assert_eq!(get(address, "/api/v1/secrets").0, 404);
    assert_eq!(get(address, "/metrics").0, 404);
}

#[test]
fn an_address_that_others_could_reach_is_a_usage_error() {
    for address in [":50054", "0.0.0.0:50054", "192.0.2.1:50054"] {
        let output = openelbd()
            .args([
                "standalone",
                "--manifests",
                "m",
                "--state",
                "s",
                "--node-name",
                "n",
                "--http-bind-address",
                address,
            ])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{address}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("loopback"), "{address}");
    }
}
