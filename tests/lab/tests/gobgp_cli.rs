//! GoBGP's own command line tool, `gobgp`, against `openelbd standalone` beside a BIRD router: every command that we
//! serve, and what it prints.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::{fs, process::Output, time::Duration};

use openelb_lab::{Lab, Process, binary, bird::Bird, eventually};
use serde_json::Value;

const ROUTER: &str = "router";
const OTHER: &str = "other";
const NODE: &str = "node-1";
/// The neighbour that the manifests have, and the one that a client adds.
const FIRST: &str = "192.168.50.1";
const SECOND: &str = "192.168.50.2";
const SOON: Duration = Duration::from_secs(20);

/// The neighbour of the manifests: it has routes of both families.
const BIRD: &str = "log stderr all;
router id 192.168.50.1;
protocol device { scan time 1; }
protocol static known4 {
  ipv4;
  route 203.0.113.0/24 blackhole { bgp_community.add((64512, 7)); };
  route 203.0.113.128/25 blackhole;
}
protocol static known6 { ipv6; route 2001:db8:77::/48 blackhole; }
template bgp node {
  hold time 9; keepalive time 3;
  connect delay time 1; connect retry time 2; error wait time 1, 3;
}
protocol bgp tor from node {
  local 192.168.50.1 as 64512; neighbor 192.168.50.11 as 64501;
  ipv4 { import all; export where source = RTS_STATIC; };
  ipv6 { import all; export where source = RTS_STATIC; next hop address fd00:50::1; };
}
";

/// The neighbour that clients add: it has none, and takes all.
const OTHER_BIRD: &str = "log stderr all;
router id 192.168.50.2;
protocol device { scan time 1; }
protocol bgp added {
  local 192.168.50.2 as 64513; neighbor 192.168.50.11 as 64501;
  hold time 9; keepalive time 3;
  connect delay time 1; connect retry time 2; error wait time 1, 3;
  ipv4 { import all; export none; };
}
";

const MANIFESTS: &str = r#"
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpConf
metadata: {name: default}
spec: {as: 64501, listenPort: 179}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata: {name: tor}
spec:
  conf: {neighborAddress: 192.168.50.1, peerAs: 64512}
  timers: {config: {holdTime: "9", keepaliveInterval: "3"}}
  receivedRoutes: Keep
---
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: web, annotations: {eip.openelb.kubesphere.io/is-default-eip: "true"}}
spec: {address: "198.51.100.10-198.51.100.19,fd00:5b::10-fd00:5b::19", protocol: bgp}
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
status:
  addresses: [{type: InternalIP, address: 192.168.50.11}, {type: InternalIP, address: "fd00:50::11"}]
  conditions: [{type: Ready, status: "True"}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default, annotations: {lb.kubesphere.io/v1alpha1: openelb}}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  ports: [{name: http, port: 80, targetPort: 8080, protocol: TCP}]
"#;

struct Setup {
    lab: Lab,
}

impl Setup {
    /// A router and a node.
    fn new(name: &str) -> Self {
        let lab = Lab::start(name).unwrap();
        lab.network(|network| {
            network.router(ROUTER).router(OTHER).host(NODE).switch("fabric");
            network.plug("fabric", (ROUTER, "fab0", &["192.168.50.1/24", "fd00:50::1/64"]));
            network.plug("fabric", (OTHER, "fab0", &["192.168.50.2/24"]));
            network.plug("fabric", (NODE, "fab0", &["192.168.50.11/24", "fd00:50::11/64"]));
        })
        .unwrap();
        fs::create_dir(lab.path().join("manifests")).unwrap();
        Self { lab }
    }

    fn manifests(&self, text: &str) {
        self.lab.write("manifests/all.yaml", text).unwrap();
    }

    fn openelbd(&self, arguments: &[&str]) -> Process {
        let path = |name: &str| self.lab.path().join(name).to_string_lossy().into_owned();
        let (program, manifests, state) =
            (binary("openelbd").unwrap().to_string_lossy().into_owned(), path("manifests"), path("state"));
        let mut command =
            vec![&*program, "standalone", "--manifests", &manifests, "--state", &state, "--node-name", NODE];
        command.extend(arguments);
        self.lab.spawn("openelbd", NODE, &command).unwrap()
    }

    fn output(&self, arguments: &[&str]) -> Output {
        let mut command = vec!["gobgp"];
        command.extend(arguments);
        self.lab.command(NODE, &command).output().unwrap()
    }

    /// What `gobgp` prints, words apart by one blank.
    fn gobgp(&self, line: &str) -> String {
        self.try_gobgp(line).unwrap_or_else(|error| panic!("gobgp {line}: {error}"))
    }

    fn try_gobgp(&self, line: &str) -> Result<String, String> {
        let mut tries = 0;
        let (output, text) = loop {
            let output = self.output(&line.split(' ').collect::<Vec<_>>());
            let text = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            tries += 1;
            // It waits for a second that its connection is taken: nothing was asked then.
            if tries == 5 || !text.contains("context deadline exceeded") {
                break (output, text);
            }
        };
        let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        let text = words.collect::<Vec<_>>().join("\n");
        if output.status.success() { Ok(text) } else { Err(text) }
    }

    fn json(&self, line: &str) -> Value {
        let text = self.gobgp(&format!("{line} -j"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("gobgp {line} -j: {error}: {text}"))
    }

    /// Waits until `gobgp` prints all of this.
    fn await_words(&self, line: &str, wanted: &[&str]) -> String {
        let what = format!("gobgp {line} with {wanted:?}");
        let shown = eventually(&what, SOON, || {
            let text = self.try_gobgp(line).unwrap_or_else(|error| error);
            let all = wanted.iter().all(|words| text.contains(words));
            if all { Ok(Some(text)) } else { Err(anyhow::anyhow!("{text}")) }
        });
        shown.unwrap().0
    }

    fn await_bird(&self, bird: &Bird<'_>, question: &str, wanted: &[&str]) {
        eventually(&format!("{wanted:?} in BIRD's {question}"), SOON, || {
            let text = bird.ask(question)?;
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let all = wanted.iter().all(|wanted| words.contains(wanted));
            if all { Ok(Some(())) } else { Err(anyhow::anyhow!("{words}")) }
        })
        .unwrap();
    }

    /// Starts a `gobgp` that goes on, and gives its log.
    fn monitor(&self, name: &str, line: &str) -> Process {
        let mut command = vec!["gobgp"];
        command.extend(line.split(' '));
        self.lab.spawn(name, NODE, &command).unwrap()
    }
}

fn await_log(process: &Process, wanted: &[&str]) {
    eventually(&format!("{wanted:?} from {}", process.name), SOON, || {
        let text = fs::read_to_string(&process.log)?;
        let all = wanted.iter().all(|words| text.contains(words));
        if all { Ok(Some(())) } else { Err(anyhow::anyhow!("{text}")) }
    })
    .unwrap();
}

#[test]
fn gobgp_shows_sessions_routes_and_policies_and_may_change_nothing_by_default() {
    let setup = Setup::new("gobgp-show");
    setup.manifests(MANIFESTS);
    let _bird = Bird::start(&setup.lab, ROUTER, BIRD).unwrap();
    let _daemon = setup.openelbd(&[]);
    setup.await_words("neighbor", &[&format!("{FIRST} 64512 "), "Establ | 3 3"]);

    // global
    let global = setup.gobgp("global");
    assert!(global.contains("AS: 64501") && global.contains("Router-ID: 192.168.50.11"), "{global}");
    assert!(global.contains("Listening Port: 179, Addresses: 0.0.0.0, ::"), "{global}");

    // neighbor, neighbor A
    let one = setup.await_words(&format!("neighbor {FIRST}"), &["Advertised: 2"]);
    for words in [
        "BGP neighbor is 192.168.50.1, remote AS 64512",
        "BGP version 4, remote router ID 192.168.50.1",
        "BGP state = ESTABLISHED, up for 00:0",
        "Hold time is 9, keepalive interval is 3 seconds",
        "Configured hold time is 9, keepalive interval is 3 seconds",
        "multiprotocol:\nipv4-unicast: advertised and received\nipv6-unicast: advertised and received",
        "route-refresh: advertised and received",
        "4-octet-as: advertised and received",
        "UnknownCapability(6): advertised",
        "graceful-restart:",
        "add-path: advertised",
        "Received: 3",
        "Accepted: 3",
        "Maximum prefixes allowed 1500000, Threshold for warning message 75%",
    ] {
        assert!(one.contains(words), "no {words:?} in {one}");
    }
    assert!(setup.gobgp("neighbor -q").contains(FIRST));
    let unknown = setup.try_gobgp("neighbor 192.168.50.99").unwrap_err();
    assert!(unknown.contains("not found neighbor 192.168.50.99"), "{unknown}");

    // adj-in, adj-out, local
    let adj_in = setup.gobgp(&format!("neighbor {FIRST} adj-in"));
    assert!(adj_in.contains("203.0.113.0/24 192.168.50.1 64512 "), "{adj_in}");
    assert!(adj_in.contains("[{Origin: i} {Communities: 64512:7}]"), "{adj_in}");
    assert!(adj_in.contains("203.0.113.128/25 192.168.50.1 64512 "), "{adj_in}");
    let six = setup.gobgp(&format!("neighbor {FIRST} adj-in -a ipv6"));
    assert!(six.contains("2001:db8:77::/48 fd00:50::1 64512 "), "{six}");
    let out = setup.await_words(
        &format!("neighbor {FIRST} adj-out"),
        &["198.51.100.10/32 192.168.50.11 64501 [{Origin: i}"],
    );
    assert!(!out.contains("203.0.113"), "what is received is not passed on: {out}");
    setup.await_words(&format!("neighbor {FIRST} adj-out -a ipv6"), &["fd00:5b::10/128 fd00:50::11 64501 "]);
    let local = setup.gobgp(&format!("neighbor {FIRST} local 203.0.113.0/24"));
    assert!(local.contains("*> 203.0.113.0/24 192.168.50.1 64512"), "{local}");
    let summary = setup.gobgp(&format!("neighbor {FIRST} adj-in summary"));
    assert!(summary.contains("Destination: 2, Path: 2"), "{summary}");

    // What is received is kept to be looked at, and never in the kernel.
    for family in ["-4", "-6"] {
        let routes = setup.lab.run(NODE, &["ip", family, "route", "show", "table", "all"]).unwrap();
        assert!(routes.contains("fab0"), "{routes}");
        assert!(!routes.contains("203.0.113.") && !routes.contains("2001:db8:77:"), "{routes}");
    }

    // global rib, of both families, one prefix, longest match, longer and shorter ones, summary
    let rib = setup.gobgp("global rib");
    for words in
        ["*> 198.51.100.10/32 0.0.0.0 ", "*> 203.0.113.0/24 192.168.50.1 64512 ", "*> 203.0.113.128/25 "]
    {
        assert!(rib.contains(words), "no {words:?} in {rib}");
    }
    assert!(setup.gobgp("global rib -a ipv6").contains("*> fd00:5b::10/128 :: "));
    let lines = |text: &str| text.lines().filter(|line| line.starts_with('*')).count();
    for (prefix, count) in [
        ("203.0.113.0/24", 1),
        ("203.0.113.200", 1),
        ("203.0.113.0/24 longer-prefixes", 2),
        ("203.0.113.128/25 shorter-prefixes", 2),
        ("0.0.0.0/0 longer-prefixes", 3),
    ] {
        let shown = setup.gobgp(&format!("global rib {prefix}"));
        assert_eq!(lines(&shown), count, "{prefix}: {shown}");
    }
    assert!(setup.gobgp("global rib 203.0.113.200").contains("203.0.113.128/25"), "the longest match");
    assert!(setup.gobgp("global rib 192.0.2.0/24").contains("Network not in table"));
    assert!(setup.gobgp("global rib summary").contains("Destination: 3, Path: 3"));
    let json = setup.json("global rib");
    assert_eq!(json["203.0.113.0/24"][0]["source-id"], "192.168.50.1", "{json}");

    // what there is not: empty
    for line in [
        "policy",
        "policy prefix",
        "policy neighbor",
        "policy as-path",
        "policy community",
        "policy ext-community",
        "policy large-community",
        "policy statement",
        "vrf",
        "rpki server",
        "rpki table",
        "bmp",
    ] {
        let shown = setup.gobgp(line);
        assert!(!shown.contains("rror"), "{line}: {shown}");
    }
    assert!(setup.gobgp("global policy").contains("Import policy:\nDefault: ACCEPT\n"));
    assert!(setup.gobgp(&format!("neighbor {FIRST} policy")).contains("Default: ACCEPT"));

    // without --api-writable nothing is changed
    for line in [
        format!("neighbor add {SECOND} as 64513"),
        format!("neighbor del {FIRST}"),
        format!("neighbor {FIRST} reset"),
        format!("neighbor {FIRST} disable"),
        "global rib add 192.0.2.0/24".to_owned(),
        "global rib del all".to_owned(),
        "global del all".to_owned(),
        "vrf add blue rd 1:1 rt both 1:1".to_owned(),
        "log-level debug".to_owned(),
    ] {
        let refused = setup.try_gobgp(&line).unwrap_err();
        assert!(
            refused.contains("PermissionDenied") && refused.contains("--api-writable"),
            "{line}: {refused}"
        );
    }
    assert!(setup.gobgp("neighbor").contains("Establ"));
}

#[test]
fn gobgp_adds_and_deletes_routes_and_neighbors_beside_those_of_the_manifests() {
    let setup = Setup::new("gobgp-write");
    setup.manifests(MANIFESTS);
    let bird = Bird::start(&setup.lab, ROUTER, BIRD).unwrap();
    let other = Bird::start(&setup.lab, OTHER, OTHER_BIRD).unwrap();
    let daemon = setup.openelbd(&["--api-writable"]);
    setup.await_words("neighbor", &[&format!("{FIRST} 64512 "), "Establ"]);
    let best = setup.monitor("monitor-rib", "monitor global rib");
    let received = setup.monitor("monitor-adj-in", "monitor adj-in --current");
    let sessions = setup.monitor("monitor-neighbor", &format!("monitor neighbor {SECOND}"));
    await_log(&received, &["[ROUTE] 203.0.113.0/24 via 192.168.50.1 aspath [64512]"]);

    // A route with all that a route can have, to the neighbour, and shown.
    setup.gobgp(
        "global rib add 192.0.2.0/24 origin egp aspath 65010,65011 nexthop 192.168.50.77 med 20 local-pref 300 \
         community 64501:1 large-community 64501:2:3 rt 64501:9",
    );
    let shown = setup.gobgp("global rib 192.0.2.0/24");
    assert!(shown.contains("*> 192.0.2.0/24 192.168.50.77 65010 65011 00:00:0"), "{shown}");
    for words in [
        "{Origin: e}",
        "{Med: 20}",
        "{LocalPref: 300}",
        "{Communities: 64501:1}",
        "{Extcomms: [64501:9]}",
        "{LargeCommunity: [ 64501:2:3]}",
    ] {
        assert!(shown.contains(words), "no {words:?} in {shown}");
    }
    setup.await_bird(
        &bird,
        "show route all 192.0.2.0/24",
        &[
            "BGP.origin: EGP",
            "BGP.as_path: 64501 65010 65011",
            "BGP.next_hop: 192.168.50.77",
            "BGP.med: 20",
            "BGP.community: (64501,1)",
            "BGP.ext_community: (rt, 64501, 9)",
            "BGP.large_community: (64501, 2, 3)",
        ],
    );
    setup.gobgp("global rib add -a ipv6 2001:db8:1::/48 nexthop fd00:50::77");
    setup.await_bird(&bird, "show route all 2001:db8:1::/48", &["BGP.next_hop: fd00:50::77"]);
    setup.gobgp("global rib add 192.0.2.7/32");
    setup.await_bird(&bird, "show route all 192.0.2.7/32", &["BGP.next_hop: 192.168.50.11"]);
    await_log(&best, &["[ROUTE] 192.0.2.0/24 via 192.168.50.77", "[ROUTE] 192.0.2.7/32"]);

    // A change of the manifests does not touch them, and they do not touch what the manifests say.
    let (_, service) = MANIFESTS.rsplit_once("---").unwrap();
    let second = service.replace("name: web, namespace", "name: second, namespace");
    setup.manifests(&format!("{MANIFESTS}---{second}"));
    setup.await_words("global rib", &["198.51.100.10/32", "198.51.100.11/32", "192.0.2.7/32"]);
    setup.gobgp("global rib del 192.0.2.7/32");
    await_log(&best, &["[DELROUTE] 192.0.2.7/32"]);
    let missing = setup.try_gobgp("global rib del 198.51.100.10/32").unwrap_err();
    assert!(missing.contains("NotFound"), "{missing}");
    setup.gobgp("global rib del all");
    setup.gobgp("global rib del all -a ipv6");
    setup.await_bird(&bird, "show route count", &["routes"]);
    let rib = setup.gobgp("global rib");
    assert!(!rib.contains("192.0.2.0/24"), "{rib}");
    assert!(rib.contains("198.51.100.10/32") && rib.contains("198.51.100.11/32"), "{rib}");

    // A neighbour of a client, beside that of the manifests.
    setup.gobgp(&format!("neighbor add {SECOND} as 64513"));
    setup.await_words("neighbor", &[&format!("{SECOND} 64513"), "Establ | 0 0"]);
    await_log(&sessions, &["fsm: ESTABLISHED admin: UP"]);
    setup.await_bird(&other, "show route", &["198.51.100.1"]);
    let twice = setup.try_gobgp(&format!("neighbor add {SECOND} as 64513")).unwrap_err();
    assert!(twice.contains("AlreadyExists"), "{twice}");
    let owned = setup.try_gobgp(&format!("neighbor del {FIRST}")).unwrap_err();
    assert!(owned.contains("FailedPrecondition") && owned.contains("BgpPeer tor"), "{owned}");

    // What is done to sessions.
    for command in ["softreset", "softresetin", "softresetout"] {
        setup.gobgp(&format!("neighbor {SECOND} {command}"));
    }
    eventually("refreshes both ways", SOON, || {
        let text = setup.gobgp(&format!("neighbor {SECOND}"));
        let line = text.lines().find_map(|line| line.strip_prefix("Route Refresh: ")).unwrap_or_default();
        let counts: Vec<u64> = line.split(' ').filter_map(|count| count.parse().ok()).collect();
        // Each side marks begin and end of what it sends again (RFC 7313), and we have asked twice.
        if matches!(counts[..], [sent, received] if sent >= 4 && received >= 2) {
            Ok(Some(()))
        } else {
            Err(anyhow::anyhow!("{text}"))
        }
    })
    .unwrap();
    setup.gobgp(&format!("neighbor {SECOND} disable --reason maintenance"));
    setup.await_words("neighbor", &["Idle(Admin)"]);
    setup.await_bird(&other, "show protocols all added", &["Administrative shutdown"]);
    await_log(&sessions, &["fsm: IDLE admin: DOWN"]);
    setup.gobgp(&format!("neighbor {SECOND} enable"));
    setup.await_words(&format!("neighbor {SECOND}"), &["BGP state = ESTABLISHED", "Flops = 1"]);
    setup.gobgp(&format!("neighbor {SECOND} shutdown"));
    setup.await_words("neighbor", &["Idle(Admin)"]);
    setup.gobgp(&format!("neighbor {SECOND} enable"));
    setup.await_words(&format!("neighbor {SECOND}"), &["BGP state = ESTABLISHED", "Flops = 2"]);
    setup.gobgp(&format!("neighbor {SECOND} reset"));
    setup.await_words(&format!("neighbor {SECOND}"), &["BGP state = ESTABLISHED", "Flops = 3"]);
    setup.gobgp(&format!("neighbor update {SECOND} ebgp-multihop-ttl 3"));
    setup.await_words(&format!("neighbor {SECOND}"), &["BGP state = ESTABLISHED"]);
    assert_eq!(setup.json(&format!("neighbor {SECOND}"))["ebgp_multihop"]["multihop_ttl"], 3);
    setup.gobgp(&format!("neighbor del {SECOND}"));
    let rest = setup.gobgp("neighbor");
    assert!(rest.contains(FIRST) && !rest.contains(SECOND), "{rest}");

    // The speaker is the BgpConf's; what this speaker does not have says so.
    for (line, code, words) in [
        ("global del all", "FailedPrecondition", "BgpConf"),
        ("global as 65000 router-id 192.0.2.1", "FailedPrecondition", "BgpConf"),
        ("policy prefix add ps 10.0.0.0/8", "Unimplemented", "no policies"),
        ("vrf add blue rd 1:1 rt both 1:1", "Unimplemented", "no VRFs"),
        ("bmp add 192.0.2.1", "Unimplemented", "BMP"),
        ("log-level debug", "Unimplemented", "log level"),
    ] {
        let refused = setup.try_gobgp(line).unwrap_err();
        assert!(refused.contains(code) && refused.contains(words), "{line}: {refused}");
    }
    assert!(setup.lab.is_running(&daemon));
}

/// Another BgpPeer, for the address of the neighbour that clients add.
const LEAF: &str = "---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata: {name: leaf}
spec:
  conf: {neighborAddress: 192.168.50.2, peerAs: 64513}
";

#[test]
fn a_neighbour_of_a_client_and_one_of_a_bgppeer_do_not_erase_each_other() {
    let setup = Setup::new("gobgp-owners");
    setup.manifests(MANIFESTS);
    let _bird = Bird::start(&setup.lab, ROUTER, BIRD).unwrap();
    let other = Bird::start(&setup.lab, OTHER, OTHER_BIRD).unwrap();
    let daemon = setup.openelbd(&["--api-writable"]);
    let first = format!("neighbor {FIRST}");
    let second = format!("neighbor {SECOND}");
    let established = ["BGP state = ESTABLISHED"];
    setup.await_words(&first, &established);
    let owner = |wanted: &str| {
        eventually(&format!("{SECOND} belongs to {wanted:?}"), SOON, || {
            let shown = setup.json(&second);
            let description = shown["conf"]["description"].as_str().unwrap_or_default();
            if description == wanted { Ok(Some(())) } else { Err(anyhow::anyhow!("{shown}")) }
        })
        .unwrap();
    };

    // Other addresses: what changes one of them leaves the session of the other alone.
    setup.gobgp(&format!("neighbor add {SECOND} as 64513"));
    setup.await_words(&second, &established);
    owner("");
    setup.manifests(&MANIFESTS.replace("receivedRoutes: Keep", "receivedRoutes: Count"));
    eventually("the changed BgpPeer", SOON, || {
        Ok(setup.try_gobgp(&format!("{first} adj-in")).is_err().then_some(()))
    })
    .unwrap();
    setup.await_words(&first, &established);
    assert!(setup.gobgp(&second).contains("BGP state = ESTABLISHED"));
    assert!(!setup.gobgp(&second).contains("Flops = 1"), "the client's session was touched");
    let documents: Vec<&str> =
        MANIFESTS.split("---").filter(|text| !text.contains("kind: BgpPeer")).collect();
    setup.manifests(&documents.join("---"));
    eventually("without the BgpPeer", SOON, || {
        let all = setup.gobgp("neighbor");
        if all.contains(FIRST) { Err(anyhow::anyhow!("{all}")) } else { Ok(Some(())) }
    })
    .unwrap();
    assert!(setup.gobgp(&second).contains("BGP state = ESTABLISHED"));
    assert!(!setup.gobgp(&second).contains("Flops = 1"), "the client's session was touched");
    setup.manifests(MANIFESTS);
    setup.await_words(&first, &established);

    // The same address: the BgpPeer is there first, and a client cannot add, change or delete it.
    for line in ["add", "del"] {
        let more = if line == "add" { " as 64512" } else { "" };
        let refused = setup.try_gobgp(&format!("neighbor {line} {FIRST}{more}")).unwrap_err();
        assert!(refused.contains("BgpPeer tor"), "{line}: {refused}");
    }
    setup.await_words(&first, &established);

    // The client is there first: the BgpPeer takes the neighbour over, and leaves the client's when it goes.
    setup.manifests(&format!("{MANIFESTS}{LEAF}"));
    owner("BgpPeer leaf");
    setup.await_words(&second, &established);
    setup.manifests(MANIFESTS);
    owner("");
    setup.await_words(&second, &established);
    setup.await_bird(&other, "show route", &["198.51.100.10/32"]);

    // The client takes its own away: the BgpPeer's stays, until that goes.
    setup.manifests(&format!("{MANIFESTS}{LEAF}"));
    owner("BgpPeer leaf");
    setup.gobgp(&format!("neighbor del {SECOND}"));
    owner("BgpPeer leaf");
    setup.await_words(&second, &established);
    let refused = setup.try_gobgp(&format!("neighbor del {SECOND}")).unwrap_err();
    assert!(refused.contains("FailedPrecondition") && refused.contains("BgpPeer leaf"), "{refused}");
    setup.manifests(MANIFESTS);
    eventually("nobody's neighbour is gone", SOON, || {
        let all = setup.gobgp("neighbor");
        if all.contains(SECOND) { Err(anyhow::anyhow!("{all}")) } else { Ok(Some(())) }
    })
    .unwrap();
    assert!(setup.gobgp(&first).contains("BGP state = ESTABLISHED"));
    assert!(setup.lab.is_running(&daemon));
}

#[test]
fn gobgp_starts_and_stops_a_speaker_where_no_bgp_conf_decides() {
    let setup = Setup::new("gobgp-start");
    let bird = Bird::start(&setup.lab, ROUTER, BIRD).unwrap();
    let other = Bird::start(&setup.lab, OTHER, OTHER_BIRD).unwrap();
    let socket = setup.lab.path().join("gobgp.sock").to_string_lossy().into_owned();
    let hosts = format!("unix:{socket},127.0.0.1:50051");
    let daemon = setup.openelbd(&["--api-writable", "--api-hosts", &hosts]);
    setup.await_words("global", &["AS: 0"]);
    let none = setup.try_gobgp("global rib").unwrap_err();
    assert!(none.contains("FailedPrecondition") && none.contains("global as"), "{none}");

    // The socket is for its user and group.
    let mode = setup.lab.run(NODE, &["stat", "-c", "%F %a", &socket]).unwrap();
    assert_eq!(mode.trim(), "socket 660");
    let client = |line: &str| setup.gobgp(&format!("--target unix:{socket} {line}"));
    client("global as 64501 router-id 192.168.50.11");
    client(&format!("neighbor add {SECOND} as 64513"));
    client("global rib add 192.0.2.0/24");
    setup.await_bird(&other, "show route", &["192.0.2.0/24"]);
    let twice = setup.try_gobgp("global as 64501 router-id 192.168.50.11").unwrap_err();
    assert!(twice.contains("FailedPrecondition") && twice.contains("stop it first"), "{twice}");

    // A BgpConf takes the speaker over, with what clients have added; clients cannot stop it any more.
    setup.manifests(MANIFESTS);
    setup.await_words("neighbor", &[&format!("{FIRST} 64512 "), &format!("{SECOND} 64513 ")]);
    setup.await_bird(&bird, "show route", &["192.0.2.0/24", "198.51.100.10/32"]);
    assert!(setup.try_gobgp("global del all").unwrap_err().contains("BgpConf"));
    setup.manifests("");
    setup.await_words("global", &["AS: 0"]);
    client("global as 64501 router-id 192.168.50.11");
    setup.await_words("neighbor", &[&format!("{SECOND} 64513 ")]);
    setup.await_bird(&other, "show route", &["192.0.2.0/24"]);
    client("global del all");
    assert!(setup.gobgp("global").contains("AS: 0"));
    client("global as 64501 router-id 192.168.50.11");
    assert!(!client("neighbor").contains(SECOND), "stopping forgets what clients added");
    assert!(setup.lab.is_running(&daemon));
}

#[test]
fn an_address_that_others_reach_is_read_only_and_one_that_is_taken_is_tried_again() {
    let setup = Setup::new("gobgp-hosts");
    setup.manifests(MANIFESTS);
    // Somebody has the port.
    let taken = setup.monitor_port();
    let daemon = setup.openelbd(&["--api-writable", "--api-hosts", "192.168.50.11:50051,127.0.0.1:50052"]);
    let log = |words: &'static str| await_log(&daemon, &[words]);
    log("GoBGP's gRPC interface cannot be served");
    setup.await_words("-p 50052 global", &["AS: 64501"]);
    setup.lab.signal(&taken, "KILL").unwrap();
    setup.await_words("-u 192.168.50.11 global", &["AS: 64501"]);
    let refused = setup.try_gobgp("-u 192.168.50.11 global rib add 192.0.2.0/24").unwrap_err();
    assert!(refused.contains("PermissionDenied") && refused.contains("--api-tls-client-ca"), "{refused}");
    setup.gobgp("-p 50052 global rib add 192.0.2.0/24");
    log("served to whoever reaches this address");
}

#[test]
fn tls_shows_our_certificate_and_asks_for_the_clients() {
    let setup = Setup::new("gobgp-tls");
    setup.manifests(MANIFESTS);
    let directory = setup.lab.path().join("tls");
    fs::create_dir(&directory).unwrap();
    setup.lab.script(&CERTIFICATES.replace("DIRECTORY", &directory.to_string_lossy())).unwrap();
    let file = |name: &str| directory.join(name).to_string_lossy().into_owned();
    let (ca, certificate, key) = (file("ca.pem"), file("node.pem"), file("node.key"));
    let flags = ["--api-writable", "--api-hosts", "192.168.50.11:50051"];
    let tls = ["--api-tls-cert", &certificate, "--api-tls-key", &key];

    // Without certificates of clients: encrypted, and read-only, for others reach it.
    let daemon = setup.openelbd(&[&flags[..], &tls].concat());
    let line = format!("--tls --tls-ca-file {ca} -u 192.168.50.11");
    setup.await_words(&format!("{line} global"), &["AS: 64501"]);
    let refused = setup.try_gobgp(&format!("{line} global rib add 192.0.2.0/24")).unwrap_err();
    assert!(refused.contains("PermissionDenied"), "{refused}");
    assert!(setup.try_gobgp("-u 192.168.50.11 global").is_err(), "not in the clear");
    setup.lab.signal(&daemon, "TERM").unwrap();
    setup.lab.wait_exit(&daemon, SOON).unwrap();

    // With them: who has none is not heard. (gobgp cannot show one.)
    let _daemon = setup.openelbd(&[&flags[..], &tls, &["--api-tls-client-ca", &ca]].concat());
    // One that is let in stays until it is told to go.
    let connect = |seconds: &str, extra: &[&str]| {
        let mut command = vec!["openssl", "s_client", "-connect", "192.168.50.11:50051", "-CAfile", &ca];
        command.extend(["-alpn", "h2", "-verify_return_error", "-ign_eof"]);
        command.extend(extra);
        let command: Vec<&str> = ["timeout", seconds].into_iter().chain(command).collect();
        let output = setup.lab.command(NODE, &command).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let (client, client_key) = (file("client.pem"), file("client.key"));
    let shown = eventually("a session of TLS", SOON, || {
        let text = connect("3", &["-cert", &client, "-key", &client_key]);
        Ok(text.contains("Verify return code: 0 (ok)").then_some(text))
    });
    let (shown, _) = shown.unwrap();
    assert!(shown.contains("ALPN protocol: h2") && !shown.contains("alert"), "{shown}");
    let (stranger, stranger_key) = (file("stranger.pem"), file("stranger.key"));
    for (what, extra) in
        [("none", vec![]), ("a stranger's", vec!["-cert", &*stranger, "-key", &*stranger_key])]
    {
        let text = connect("20", &extra);
        assert!(text.contains("alert"), "{what}: {text}");
    }
    assert!(setup.try_gobgp(&format!("{line} global")).is_err(), "without a certificate");
}

/// An authority, a certificate of the node and one of a client; and a client of another authority.
const CERTIFICATES: &str = "cd DIRECTORY
issue() { # name, subjectAltName, authority
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $1.key -out $1.csr -subj /CN=$1 2>/dev/null
  echo subjectAltName=$2 > $1.ext
  openssl x509 -req -in $1.csr -CA $3.pem -CAkey $3.key -CAcreateserial -days 2 -extfile $1.ext -out $1.pem 2>/dev/null
}
for authority in ca other; do
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \\
    -keyout $authority.key -out $authority.pem -subj /CN=$authority 2>/dev/null
done
issue node IP:192.168.50.11 ca
issue client DNS:client ca
issue stranger DNS:stranger other
";

impl Setup {
    /// Something listens on the address that is wanted.
    fn monitor_port(&self) -> Process {
        let configuration = "[global.config]\nas = 1\nrouter-id = \"192.0.2.1\"\nport = -1\n";
        let file = self.lab.write("gobgpd.toml", configuration).unwrap().to_string_lossy().into_owned();
        let process = self
            .lab
            .spawn(
                "gobgpd",
                NODE,
                &["gobgpd", "-f", &file, "--api-hosts", "192.168.50.11:50051", "--pprof-disable"],
            )
            .unwrap();
        self.await_words("-u 192.168.50.11 global", &["AS: 1"]);
        process
    }
}
