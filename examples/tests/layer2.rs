//! The examples of Layer 2, at work.
#![allow(clippy::unwrap_used, dead_code, reason = "tests; nobody calls the programs' own main")]

#[path = "../l2_ownership.rs"]
mod l2_ownership;
#[path = "../l2_responder.rs"]
mod l2_responder;

use openelb_lab::{Lab, Network, eventually};

#[test]
fn one_owner_always() {
    let [first, next] = l2_ownership::owner_and_successor().unwrap();
    assert_eq!((first.len(), next.len()), (1, 1), "{first:?} {next:?}");
    assert_ne!(first, next);
}

#[test]
fn a_host_of_the_lab_is_answered() {
    let lab = Lab::start("example-l2").unwrap();
    let build = |network: &mut Network| {
        network.host("a").host("b").wire(("a", "eth0", &["192.0.2.1/24"]), ("b", "eth0", &["192.0.2.2/24"]));
    };
    lab.network(build).unwrap();
    let respond = || l2_responder::respond("eth0", &["192.0.2.100".parse().unwrap()]);
    let responder = lab.within("a", respond).unwrap().unwrap();
    let arping = ["arping", "-c", "1", "-w", "1", "-I", "eth0", "192.0.2.100"];
    let asked = || lab.run("b", &arping).map(|text| text.contains("reply from 192.0.2.100").then_some(()));
    eventually("an answer", std::time::Duration::from_secs(20), asked).unwrap();
    drop(responder);
}

/// They are there to be read at a glance.
#[test]
fn each_is_forty_lines() {
    for (name, text) in [
        ("l2_ownership", include_str!("../l2_ownership.rs")),
        ("l2_responder", include_str!("../l2_responder.rs")),
    ] {
        let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
        assert!(lines <= 40, "{name} has {lines} lines");
    }
}
