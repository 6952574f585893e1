//! Our speaker with a real neighbour: BIRD, over TCP, in a network namespace of its own.
//!
//! Each test runs itself again under `unshare`, so that addresses, ports and processes are its own and are gone with
//! it. Needs root, `unshare` (util-linux), `ip` (iproute2) and `bird` (bird2).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a real neighbour lives in real time")]
#![cfg(feature = "tokio")]

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use openelb_bgp::{
    fsm::State,
    net::{self, Shutdown, SpeakerHandle},
    speaker::{
        Delta, FamilyConfig, NextHop, PeerConfig, PeerName, PeerStatus, Route, RouteAttributes, SpeakerConfig,
    },
    wire::Family,
};

const INSIDE: &str = "OPENELB_BGP_TEST_INSIDE";
const DEADLINE: Duration = Duration::from_secs(30);
const OURS: &str = "192.0.2.1";
const THEIRS: &str = "192.0.2.2";

/// Runs `body` in namespaces of its own.
fn isolated(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        let ip = |arguments: &str| {
            let status =
                Command::new("ip").args(arguments.split(' ')).status().expect("apt-get install iproute2");
            assert!(status.success(), "ip {arguments}");
        };
        ip("link set lo up");
        for address in [OURS, THEIRS] {
            ip(&format!("address add {address}/32 dev lo"));
        }
        for address in ["2001:db8::1", "2001:db8::2"] {
            ip(&format!("address add {address}/128 dev lo"));
        }
        return body();
    }
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare is missing: apt-get install util-linux");
    assert!(status.success(), "{test} failed in its namespace (it needs root to make one)");
}

/// Waits until `condition` gives something.
fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A BIRD process.
struct Bird {
    directory: tempfile::TempDir,
    child: Child,
}

impl Bird {
    /// `session`: statements within the BGP protocol, `channel`: within each of its channels.
    fn start(session: &str, channel: &str) -> Self {
        Self::run(&format!(
            "router id {THEIRS};\nprotocol device {{}}\n\
             protocol static {{ ipv4; route 203.0.113.0/24 blackhole; route 203.0.113.0/25 blackhole; }}\n\
             protocol static {{ ipv6; route 2001:db8:1::/48 blackhole; }}\n\
             protocol bgp ours {{\n local {THEIRS} as 65001;\n neighbor {OURS} as 65000;\n multihop;\n strict bind;\n\
             connect delay time 1;\n connect retry time 1;\n error wait time 1, 2;\n{session}\n\
             ipv4 {{ import all; export where source = RTS_STATIC; next hop address {THEIRS}; {channel} }};\n\
             ipv6 {{ import all; export where source = RTS_STATIC; next hop address 2001:db8::2; {channel} }};\n}}\n"
        ))
    }

    fn run(configuration: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("bird.conf"), configuration).unwrap();
        let child = Self::spawn(&directory);
        Self { directory, child }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    fn spawn(directory: &tempfile::TempDir) -> Child {
        let at = |name: &str| directory.path().join(name);
        Command::new(program("bird"))
            .arg("-f")
            .args(["-c".into(), at("bird.conf"), "-s".into(), at("bird.ctl"), "-P".into(), at("bird.pid")])
            .stdin(Stdio::null())
            .spawn()
            .expect("bird is missing: apt-get install bird2")
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.stop();
        self.child = Self::spawn(&self.directory);
    }

    fn ask(&self, command: &str) -> String {
        let output = Command::new(program("birdc"))
            .arg("-s")
            .arg(self.directory.path().join("bird.ctl"))
            .args(command.split(' '))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Each route of ours: the prefix and its attributes, one line each.
    fn routes(&self) -> Vec<(String, String)> {
        let mut routes: Vec<(String, String)> = Vec::new();
        let mut prefix = String::new();
        for line in self.ask("show route all protocol ours").lines() {
            if line.contains("[ours ") {
                let first = line.split_whitespace().next().unwrap();
                if first.contains('/') {
                    prefix = first.to_owned();
                }
                routes.push((prefix.clone(), String::new()));
            } else if let (true, Some(last)) = (line.starts_with('\t'), routes.last_mut()) {
                last.1.push_str(line);
                last.1.push('\n');
            }
        }
        routes
    }

    fn wait_for_prefixes(&self, wanted: &[&str]) -> Vec<(String, String)> {
        let mut wanted: Vec<&str> = wanted.to_vec();
        wanted.sort_unstable();
        let mut routes = Vec::new();
        wait_for(&format!("BIRD has {wanted:?}"), || {
            routes = self.routes();
            let mut prefixes: Vec<&str> = routes.iter().map(|route| route.0.as_str()).collect();
            prefixes.sort_unstable();
            (prefixes == wanted).then_some(())
        });
        routes
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program(name: &str) -> PathBuf {
    let sbin = PathBuf::from("/usr/sbin").join(name);
    if sbin.exists() { sbin } else { name.into() }
}

/// A running speaker of ours.
struct Ours {
    speaker: SpeakerHandle,
    runtime: tokio::runtime::Runtime,
    config: PeerConfig,
}

impl Ours {
    fn start(change: impl FnOnce(&mut PeerConfig)) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let guard = runtime.enter();
        let mut config = SpeakerConfig::new(65000, OURS.parse::<Ipv4Addr>().unwrap());
        config.listen = vec![(OURS.parse::<Ipv4Addr>().unwrap(), 179).into()];
        config.next_hop_ipv6 = Some("2001:db8::1".parse().unwrap());
        let (speaker, _) = net::spawn(config).unwrap();
        drop(guard);
        let mut peer = PeerConfig::new("bird", THEIRS.parse().unwrap(), 65001);
        peer.local_address = Some(OURS.parse().unwrap());
        peer.connect_retry_max = Duration::from_secs(2);
        change(&mut peer);
        speaker.set_peers(vec![peer.clone()]).unwrap();
        Self { speaker, runtime, config: peer }
    }

    fn peer(&self) -> PeerStatus {
        wait_for("the peer is known", || {
            self.speaker.watch_peers().borrow().peers.get(&PeerName::from("bird")).cloned()
        })
    }

    fn wait_for_established(&self, times: u64) -> PeerStatus {
        wait_for(&format!("established {times} times"), || {
            let peer = self.peer();
            (peer.state == State::Established && peer.counters.established >= times).then_some(peer)
        })
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.speaker.shutdown(Shutdown::Notify);
    }
}

fn route(prefix: &str) -> Route {
    Route::new(prefix.parse::<ipnet::IpNet>().unwrap())
}

#[test]
fn both_families_on_one_session() {
    isolated("both_families_on_one_session", || {
        let bird = Bird::start("", "");
        let ours = Ours::start(|_| {});
        let mut tagged = route("198.51.100.2/32");
        tagged.attributes = Arc::new(RouteAttributes {
            med: Some(7),
            as_path_prepend: 2,
            communities: vec![65000 << 16 | 1],
            large_communities: vec![[65000, 1, 2]],
            ..RouteAttributes::default()
        });
        ours.speaker.set_routes("test", [route("198.51.100.1/32"), tagged, route("2001:db8:2::1/128")]);
        let routes = bird.wait_for_prefixes(&["198.51.100.1/32", "198.51.100.2/32", "2001:db8:2::1/128"]);
        let of = |prefix: &str| &routes.iter().find(|route| route.0 == prefix).unwrap().1;
        let plain = of("198.51.100.1/32");
        assert!(plain.contains("BGP.origin: IGP") && plain.contains("BGP.as_path: 65000\n"), "{plain}");
        assert!(plain.contains(&format!("BGP.next_hop: {OURS}")), "{plain}");
        assert!(of("2001:db8:2::1/128").contains("BGP.next_hop: 2001:db8::1"), "{routes:?}");
        let tagged = of("198.51.100.2/32");
        for attribute in [
            "BGP.as_path: 65000 65000 65000",
            "BGP.med: 7",
            "BGP.community: (65000,1)",
            "BGP.large_community: (65000, 1, 2)",
        ] {
            assert!(tagged.contains(attribute), "{attribute} in {tagged}");
        }
        // What BIRD announces is counted.
        let families = wait_for("two IPv4 prefixes and one IPv6 prefix received", || {
            let families = ours.peer().session?.families;
            let received: Vec<u64> = families.iter().map(|family| family.received).collect();
            (received == [2, 1]).then_some(families)
        });
        let advertised: Vec<u64> = families.iter().map(|family| family.advertised).collect();
        assert_eq!(advertised, [2, 1]);
        assert!(families.iter().all(|family| family.end_of_rib_sent));
        let status = ours.runtime.block_on(ours.speaker.route_status("198.51.100.1/32".parse().unwrap()));
        assert_eq!(status[0].advertised(), 1);
    });
}

#[test]
fn changes_touch_only_what_changed() {
    isolated("changes_touch_only_what_changed", || {
        let bird = Bird::start("", "");
        let ours = Ours::start(|_| {});
        ours.speaker.set_routes("a", [route("198.51.100.1/32"), route("198.51.100.2/32")]);
        ours.speaker.set_routes("b", [route("2001:db8:2::1/128")]);
        bird.wait_for_prefixes(&["198.51.100.1/32", "198.51.100.2/32", "2001:db8:2::1/128"]);
        let before = wait_for("a session with both End-of-RIB", || {
            let peer = ours.peer();
            let families = &peer.session.as_ref()?.families;
            families.iter().all(|family| family.end_of_rib_sent && family.pending == 0).then_some(peer)
        });
        let delta = Delta {
            add: vec![route("198.51.100.3/32")],
            remove: vec![route("198.51.100.1/32").key(), route("198.51.100.200/32").key()],
        };
        ours.speaker.apply("a", delta);
        bird.wait_for_prefixes(&["198.51.100.2/32", "198.51.100.3/32", "2001:db8:2::1/128"]);
        ours.speaker.set_routes("b", []);
        bird.wait_for_prefixes(&["198.51.100.2/32", "198.51.100.3/32"]);
        let after = wait_for("the counters", || {
            let peer = ours.peer();
            (peer.counters.sent.update >= before.counters.sent.update + 3).then_some(peer)
        });
        assert_eq!(after.counters.established, 1);
        assert_eq!(
            after.counters.sent.update - before.counters.sent.update,
            3,
            "one withdrawal and one route, one withdrawal"
        );
    });
}

#[test]
fn all_paths_with_add_path_the_best_one_without() {
    isolated("all_paths_with_add_path_the_best_one_without", || {
        let mut bird = Bird::start("", "add paths rx;");
        let ours = Ours::start(|peer| {
            peer.families = vec![
                FamilyConfig::with_add_path_send(Family::IPV4_UNICAST, 10),
                FamilyConfig::with_add_path_send(Family::IPV6_UNICAST, 10),
            ];
        });
        let paths = (1..=3_u8).map(|node| Route {
            path_id: u32::from(node),
            next_hop: NextHop::Address(Ipv4Addr::new(192, 0, 2, 100 - node).into()),
            ..route("198.51.100.1/32")
        });
        ours.speaker.set_routes("test", paths);
        let routes = bird.wait_for_prefixes(&["198.51.100.1/32"; 3]);
        for node in 1..=3 {
            let next_hop = format!("BGP.next_hop: 192.0.2.{}", 100 - node);
            assert!(routes.iter().any(|route| route.1.contains(&next_hop)), "{next_hop} in {routes:?}");
        }
        let key = openelb_bgp::speaker::RouteKey { prefix: "198.51.100.1/32".parse().unwrap(), path_id: 3 };
        ours.speaker.apply("test", Delta { add: vec![], remove: vec![key] });
        bird.wait_for_prefixes(&["198.51.100.1/32"; 2]);
        bird.stop();
        let bird = Bird::start("", "");
        let routes = bird.wait_for_prefixes(&["198.51.100.1/32"]);
        assert!(routes[0].1.contains("BGP.next_hop: 192.0.2.98"), "the lowest next hop: {routes:?}");
    });
}

#[test]
fn routes_are_back_after_a_reset_and_after_bird_restarts() {
    isolated("routes_are_back_after_a_reset_and_after_bird_restarts", || {
        let mut bird = Bird::start("", "");
        let ours = Ours::start(|_| {});
        ours.speaker.set_routes("test", [route("198.51.100.1/32"), route("2001:db8:2::1/128")]);
        let all = ["198.51.100.1/32", "2001:db8:2::1/128"];
        bird.wait_for_prefixes(&all);
        ours.speaker.reset(&"bird".into());
        ours.wait_for_established(2);
        bird.wait_for_prefixes(&all);
        bird.restart();
        ours.wait_for_established(3);
        bird.wait_for_prefixes(&all);
        assert!(ours.peer().last_error.is_some());
    });
}

#[test]
fn bird_connects_to_us_and_asks_for_our_routes_again() {
    isolated("bird_connects_to_us_and_asks_for_our_routes_again", || {
        let bird = Bird::start("", "");
        let ours = Ours::start(|peer| peer.passive = true);
        ours.speaker.set_routes("test", [route("198.51.100.1/32")]);
        bird.wait_for_prefixes(&["198.51.100.1/32"]);
        let before = ours.wait_for_established(1).counters;
        bird.ask("reload in ours");
        let after = wait_for("the answer to a route refresh", || {
            let counters = ours.peer().counters;
            (counters.sent.update > before.sent.update).then_some(counters)
        });
        assert_eq!(after.established, 1);
        bird.wait_for_prefixes(&["198.51.100.1/32"]);
    });
}

#[test]
fn bird_is_disabled_enabled_and_restarted_by_hand() {
    isolated("bird_is_disabled_enabled_and_restarted_by_hand", || {
        let bird = Bird::start("", "");
        let ours = Ours::start(|_| {});
        ours.speaker.set_routes("test", [route("198.51.100.1/32")]);
        bird.wait_for_prefixes(&["198.51.100.1/32"]);
        bird.ask("disable ours");
        let reason = wait_for("the session's end", || {
            let peer = ours.peer();
            (peer.counters.dropped == 1).then(|| peer.last_error.unwrap().reason)
        });
        assert!(reason.to_lowercase().contains("administrative"), "{reason}");
        bird.ask("enable ours");
        ours.wait_for_established(2);
        bird.wait_for_prefixes(&["198.51.100.1/32"]);
        bird.ask("restart ours");
        ours.wait_for_established(3);
        bird.wait_for_prefixes(&["198.51.100.1/32"]);
    });
}

#[test]
fn a_wrong_as_number_is_told_and_mended() {
    isolated("a_wrong_as_number_is_told_and_mended", || {
        let bird = Bird::start("", "");
        let ours = Ours::start(|peer| peer.asn = 65099);
        ours.speaker.set_routes("test", [route("198.51.100.1/32")]);
        wait_for("the cause in words", || {
            let reason = ours.peer().last_error?.reason;
            (reason.contains("65001") && reason.contains("65099")).then_some(())
        });
        let mut right = ours.config.clone();
        right.asn = 65001;
        ours.speaker.set_peers(vec![right.clone()]).unwrap();
        bird.wait_for_prefixes(&["198.51.100.1/32"]);
        // Now we are not whom BIRD expects.
        let mut wrong = right.clone();
        wrong.local_asn = Some(65098);
        ours.speaker.set_peers(vec![wrong]).unwrap();
        wait_for("BIRD's refusal", || {
            let reason = ours.peer().last_error?.reason;
            reason.to_lowercase().contains("bad peer as").then_some(())
        });
        ours.speaker.set_peers(vec![right]).unwrap();
        bird.wait_for_prefixes(&["198.51.100.1/32"]);
    });
}

#[test]
fn a_hold_time_of_three_seconds_is_kept_and_notices_a_frozen_bird() {
    isolated("a_hold_time_of_three_seconds_is_kept_and_notices_a_frozen_bird", || {
        let bird = Bird::start("hold time 3;", "");
        let ours = Ours::start(|_| {});
        ours.speaker.set_routes("test", [route("198.51.100.1/32")]);
        let before = ours.wait_for_established(1);
        assert_eq!(before.session.unwrap().hold_time, Duration::from_secs(3));
        let kept = wait_for("more than two hold times of keepalives", || {
            let peer = ours.peer();
            (peer.counters.sent.keepalive > 8).then_some(peer)
        });
        assert_eq!((kept.state, kept.counters.dropped), (State::Established, 0));
        bird.signal("STOP");
        let frozen = Instant::now();
        wait_for("the hold timer", || {
            let peer = ours.peer();
            (peer.counters.dropped == 1 && peer.last_error?.reason.to_lowercase().contains("hold"))
                .then_some(())
        });
        // By default it would be 90 s.
        assert!(frozen.elapsed() < Duration::from_secs(15), "{:?}", frozen.elapsed());
        bird.signal("CONT");
        ours.wait_for_established(2);
        bird.wait_for_prefixes(&["198.51.100.1/32"]);
    });
}

#[test]
fn a_session_over_ipv6_alone_carries_ipv4_with_an_ipv6_next_hop() {
    isolated("a_session_over_ipv6_alone_carries_ipv4_with_an_ipv6_next_hop", || {
        let bird = Bird::run(&format!(
            "router id {THEIRS};\nprotocol device {{}}\n\
             protocol bgp ours {{\n local 2001:db8::2 as 65001;\n neighbor 2001:db8::1 as 65000;\n multihop;\n\
             strict bind;\n connect delay time 1;\n connect retry time 1;\n error wait time 1, 2;\n\
             ipv4 {{ import all; export none; extended next hop on; }};\n\
             ipv6 {{ import all; export none; }};\n}}\n"
        ));
        let ours = Ours::start(|peer| {
            peer.address = "2001:db8::2".parse().unwrap();
            peer.local_address = Some("2001:db8::1".parse().unwrap());
            peer.extended_next_hop = true;
        });
        ours.speaker.set_routes("test", [route("198.51.100.1/32"), route("2001:db8:2::1/128")]);
        let routes = bird.wait_for_prefixes(&["198.51.100.1/32", "2001:db8:2::1/128"]);
        for (prefix, attributes) in routes {
            assert!(attributes.contains("BGP.next_hop: 2001:db8::1\n"), "{prefix}: {attributes}");
        }
        ours.speaker.set_routes("test", [route("2001:db8:2::1/128")]);
        bird.wait_for_prefixes(&["2001:db8:2::1/128"]);
        assert_eq!(ours.peer().counters.established, 1);
    });
}

#[test]
fn a_hundred_thousand_prefixes_with_two_paths_each() {
    isolated("a_hundred_thousand_prefixes_with_two_paths_each", || {
        let bird = Bird::start("", "add paths rx;");
        let ours = Ours::start(|_| {});
        let paths = |count: u32| -> Vec<Route> {
            let all = (0..count).flat_map(|index| [1_u8, 2].map(|node| (index, node)));
            all.map(|(index, node)| Route {
                path_id: node.into(),
                next_hop: NextHop::Address(Ipv4Addr::new(192, 0, 2, 10 + node).into()),
                ..Route::new(ipnet::IpNet::from(std::net::IpAddr::from(Ipv4Addr::from(0x0a00_0000 + index))))
            })
            .collect()
        };
        ours.speaker.set_routes("test", paths(100_000));
        let count = || bird.ask("show route count table master4");
        wait_for("200,000 paths in BIRD", || {
            count().contains("200002 of 200002 routes for 100002").then_some(())
        });
        let peer = ours.wait_for_established(1);
        assert!(peer.counters.sent.update < 1_000, "packed full: {} UPDATEs", peer.counters.sent.update);
        ours.speaker.set_routes("test", paths(1));
        wait_for("all but one withdrawn", || count().contains("4 of 4 routes for 3").then_some(()));
        assert_eq!(ours.peer().counters.established, 1);
    });
}
