//! Two routers of a rack with one link-local address, each on a link of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::time::Duration;

use openelb_lab::{Lab, binary, bird::Bird, eventually};

const DEADLINE: Duration = Duration::from_secs(30);
const NODE: &str = "node";

const OBJECTS: &str = r#"apiVersion: network.kubesphere.io/v1alpha2
kind: BgpConf
metadata: {name: default}
spec: {as: 64501, routerId: 192.0.2.100, listenPort: 179}
---
apiVersion: v1
kind: Node
metadata: {name: node}
---
"#;

fn peer(number: u8, more: &str) -> String {
    format!(
        "apiVersion: network.kubesphere.io/v1alpha2\nkind: BgpPeer\nmetadata: {{name: tor{number}}}\nspec:\n  conf: \
         {{neighborAddress: \"fe80::1%eth{number}\", peerAs: 64512}}\n  timers: {{config: {{holdTime: \"9\", connectRetry: \
         \"1\"}}}}\n{more}---\n"
    )
}

fn router<'a>(lab: &'a Lab, number: u8, more: &str) -> Bird<'a> {
    let configuration = format!(
        "log stderr all;\nrouter id 192.0.2.{number};\nprotocol device {{ scan time 1; }}\nprotocol bgp node {{\n  \
         local fe80::1 as 64512;\n  neighbor fe80::2%eth0 as 64501;\n  hold time 9; connect delay time 1; connect retry \
         time 1; error wait time 1, 2;\n  {more}\n  ipv6 {{ import all; export none; }};\n}}\n"
    );
    Bird::start(lab, &format!("tor{number}"), &configuration).unwrap()
}

#[test]
fn two_routers_with_one_link_local_address_have_a_session_each() {
    let lab = Lab::start("link-local").unwrap();
    lab.network(|network| {
        network.host(NODE);
        for number in 1..=2 {
            let router = format!("tor{number}");
            network.host(&router);
            let ours = format!("eth{number}");
            network.wire((NODE, &ours, &["fe80::2/64"]), (&router, "eth0", &["fe80::1/64"]));
        }
    })
    .unwrap();
    // Whoever connects: to the first router we do, the second connects to us.
    // The kernel gave each link an address of its own, too.
    let [active, passive] = ["false", "true"]
        .map(|passive| format!("  transport: {{localAddress: \"fe80::2\", passiveMode: {passive}}}\n"));
    lab.write("manifests/all.yaml", &format!("{OBJECTS}{}{}", peer(1, &active), peer(2, &passive))).unwrap();
    let routers = [router(&lab, 1, "passive on;"), router(&lab, 2, "")];
    let at = |name: &str| lab.path().join(name).to_string_lossy().into_owned();
    let openelbd = binary("openelbd").unwrap().to_string_lossy().into_owned();
    let (manifests, state) = (at("manifests"), at("state"));
    let arguments =
        [&*openelbd, "standalone", "--manifests", &manifests, "--state", &state, "--node-name", NODE];
    let process = lab.spawn("openelbd", NODE, &arguments).unwrap();
    for router in &routers {
        eventually("a session with each router", DEADLINE, || {
            let shown = router.ask("show protocols node")?;
            anyhow::ensure!(shown.contains("Established"), "{shown}{}", Lab::log_tail(&process, 20));
            Ok(Some(()))
        })
        .unwrap();
    }
}
