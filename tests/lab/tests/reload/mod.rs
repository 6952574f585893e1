//! What each kind of change costs: sessions that are reset, and UPDATEs.

use std::collections::BTreeMap;

use super::*;

impl Setup {
    /// Sessions that ended, and UPDATEs that were sent, on each node.
    pub(super) fn counts(&self) -> BTreeMap<u8, Counts> {
        NODES.iter().map(|n| (*n, self.counts_of(*n).unwrap())).collect()
    }

    pub(super) fn counts_of(&self, number: u8) -> anyhow::Result<Counts> {
        let metrics = self.get(number, "/metrics")?;
        let sum = |name: &str, filter: &str| -> u64 {
            metrics
                .lines()
                .filter(|line| line.starts_with(name) && line.contains(filter))
                .map(|line| line.rsplit(' ').next().unwrap().trim_end_matches(".0").parse::<u64>().unwrap())
                .sum()
        };
        Ok(Counts {
            resets: sum("openelb_bgp_sessions_dropped_total", ""),
            updates: sum("openelb_bgp_messages_total", "direction=\"sent\",type=\"update\""),
        })
    }

    /// Waits until the counters of these nodes know of every Service: they are a moment behind the wire.
    fn await_counted(&self, nodes: &[u8]) {
        let services = self.kube.list("services").unwrap();
        let announced = services.iter().filter(|s| s["status"]["loadBalancer"]["ingress"].is_array()).count();
        self.await_advertised(nodes, announced);
    }

    /// Waits until the counters of these nodes know of so many routes.
    fn await_advertised(&self, nodes: &[u8], announced: usize) {
        for number in nodes {
            eventually(&format!("{announced} routes in the counters of node-{number}"), DEADLINE, || {
                let metrics = self.get(*number, "/metrics")?;
                let line = |line: &&str| {
                    line.starts_with("openelb_bgp_routes_advertised{peer=\"router\"") && line.contains("ipv4")
                };
                let advertised = metrics.lines().find(line).unwrap_or_default();
                anyhow::ensure!(advertised.ends_with(&format!(" {announced}.0")), "{advertised}");
                Ok(Some(()))
            })
            .unwrap();
        }
    }

    /// The cost of a change: it is over when a Service that is made after it is at the router, over these nodes.
    fn cost(&self, marker: &mut u8, nodes: &[u8], change: impl FnOnce()) -> BTreeMap<u8, Counts> {
        let before = self.counts();
        change();
        *marker += 1;
        self.services(std::iter::once(*marker));
        self.await_hops(*marker, nodes);
        self.await_counted(nodes);
        let after = self.counts();
        after
            .into_iter()
            .map(|(node, after)| {
                let before = before[&node];
                // The marker's own UPDATE is not the change's.
                let own = u64::from(nodes.contains(&node));
                let updates = (after.updates - before.updates).saturating_sub(own);
                (node, Counts { resets: after.resets - before.resets, updates })
            })
            .collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) resets: u64,
    pub(super) updates: u64,
}

const NOTHING: Counts = Counts { resets: 0, updates: 0 };

#[test]
fn a_change_touches_only_what_it_must() {
    let setup = Setup::new("speaker-reload");
    let router = setup.router();
    let _speakers: Vec<Process> = NODES.iter().map(|n| setup.speaker(*n)).collect();
    setup.services(1..=40);
    for number in [1, 40] {
        setup.await_hops(number, &ALL);
    }
    for number in ALL {
        setup.await_ready(number);
    }
    // Each speaker has said that it is there: nobody announces for another.
    for number in ALL {
        let object = ("speakerstatuses.network.kubesphere.io", "", &*node(number));
        let (status, _) = setup
            .kube
            .wait_for(object, DEADLINE, |status| status["status"]["announcedAddresses"] == 40)
            .unwrap();
        assert_eq!(status["status"]["establishedSessions"], 1, "{status:#}");
        assert_eq!(status["metadata"]["ownerReferences"][0]["kind"], "Node", "{status:#}");
    }
    setup.await_counted(&ALL);
    let mut marker = 100;
    let patch = |kind: &str, name: &str, patch: Value| {
        let plural = format!("{kind}.network.kubesphere.io");
        setup.kube.patch(&plural, "", name, None, &patch).unwrap();
    };

    // What means nothing for announcements costs nothing.
    type Change<'a> = (&'static str, Box<dyn Fn() + 'a>);
    let idle: Vec<Change<'_>> = vec![
        (
            "an annotation of a Service",
            Box::new(|| {
                let patch = json!({"metadata": {"annotations": {"team": "a"}}});
                setup.kube.patch("services", "default", "service-1", None, &patch).unwrap();
            }),
        ),
        ("the priority of an Eip", Box::new(|| patch("eips", "pool", json!({"spec": {"priority": 7}})))),
        (
            "the description of a BgpPeer",
            Box::new(|| {
                patch("bgppeers", "router", json!({"spec": {"conf": {"description": "top of rack"}}}));
            }),
        ),
        (
            "an AS number of a rack without nodes",
            Box::new(|| patch("bgpconfs", "default", json!({"spec": {"asPerRack": {"nowhere": 64999}}}))),
        ),
        (
            "another label of a Node",
            Box::new(|| {
                setup
                    .kube
                    .patch("nodes", "", "node-2", None, &json!({"metadata": {"labels": {"zone": "a"}}}))
                    .unwrap();
            }),
        ),
    ];
    for (what, change) in idle {
        let cost = setup.cost(&mut marker, &ALL, change);
        assert!(cost.values().all(|cost| *cost == NOTHING), "{what}: {cost:?}");
    }

    // One Service: one UPDATE of each node.
    let cost = setup.cost(&mut marker, &ALL, || {
        setup.kube.kubectl(&["delete", "service", "service-40", "--wait=false"]).unwrap();
        setup.await_hops(40, &[]);
        // With the marker there are as many as before: that both are counted could not be told.
        setup.await_counted(&ALL);
    });
    assert!(cost.values().all(|cost| *cost == Counts { resets: 0, updates: 1 }), "{cost:?}");

    // Communities: every route again, in few messages and in the same sessions.
    let rules = json!({"spec": {"advertisements": [{"communities": ["64501:7"]}]}});
    let cost = setup.cost(&mut marker, &ALL, || {
        patch("bgppeers", "router", rules);
        eventually("the community on each path", DEADLINE, || {
            let shown = router.ask("show route all for 198.51.100.1")?;
            anyhow::ensure!(shown.matches("(64501,7)").count() == 3, "{shown}");
            Ok(Some(()))
        })
        .unwrap();
    });
    assert!(cost.values().all(|cost| cost.resets == 0 && (1..=6).contains(&cost.updates)), "{cost:?}");

    aggregation(&setup, &router);

    // Another neighbour, that is not there: nothing in the sessions that are.
    let other = json!({"conf": {"neighborAddress": "192.168.50.99", "peerAs": 64513}});
    let cost = setup.cost(&mut marker, &ALL, || setup.apply(&ours("BgpPeer", "other", &other)));
    assert!(cost.values().all(|cost| *cost == NOTHING), "{cost:?}");

    configuration(&setup, &router, &mut marker);

    // A pool that others announce: withdrawn in few messages.
    let cost = setup.cost(&mut marker, &ALL, || {
        patch("eips", "pool", json!({"spec": {"protocol": "none"}}));
        setup.await_hops(1, &[]);
        patch("eips", "pool", json!({"spec": {"protocol": "bgp"}}));
        setup.await_hops(1, &ALL);
    });
    assert!(cost.values().all(|cost| cost.resets == 0 && (2..=12).contains(&cost.updates)), "{cost:?}");

    // A node that is excluded, and comes back: only its own routes.
    let exclude = |value: Value| {
        let labels = json!({"node.kubernetes.io/exclude-from-external-load-balancers": value});
        setup.kube.patch("nodes", "", "node-3", None, &json!({"metadata": {"labels": labels}})).unwrap();
    };
    let cost = setup.cost(&mut marker, &ALL, || {
        exclude(json!(""));
        setup.await_hops(1, &[1, 2]);
        exclude(json!(null));
        setup.await_hops(1, &ALL);
    });
    assert_eq!((cost[&1], cost[&2]), (NOTHING, NOTHING), "{cost:?}");
    assert!(cost[&3].resets == 0 && (2..=12).contains(&cost[&3].updates), "{cost:?}");

    // The rack of a node, with an AS number of its own: its session alone, since that is in the OPEN. The router takes
    // this number from nobody.
    patch("bgpconfs", "default", json!({"spec": {"asPerRack": {"leaf": 64502}}}));
    let cost = setup.cost(&mut marker, &[1, 3], || {
        let labels = json!({"metadata": {"labels": {"openelb.kubesphere.io/rack": "leaf"}}});
        setup.kube.patch("nodes", "", "node-2", None, &labels).unwrap();
        setup.await_hops(1, &[1, 3]);
    });
    assert_eq!((cost[&1], cost[&3]), (NOTHING, NOTHING), "{cost:?}");
    assert_eq!(cost[&2].resets, 1, "{cost:?}");
}

/// One prefix in the place of all addresses, and back: in few messages and in the same sessions. While an address in it
/// lives, those that go cost nothing.
fn aggregation(setup: &Setup, router: &Bird<'_>) {
    let before = setup.counts();
    let rules = |rules: Value| {
        let patch = json!({"spec": {"advertisements": rules}});
        setup.kube.patch("bgppeers.network.kubesphere.io", "", "router", None, &patch).unwrap();
    };
    let speaker = ("speakerstatuses.network.kubesphere.io", "", "node-1");
    let announced = |status: &Value| status["status"]["announcedAddresses"].as_i64().unwrap_or_default();
    let addresses = announced(&setup.kube.get(speaker.0, speaker.1, speaker.2).unwrap());

    rules(json!([{"communities": ["64501:7"], "aggregationLength": 24}]));
    eventually("the aggregate alone", DEADLINE, || {
        let shown = router.ask("show route")?;
        let paths = shown.lines().filter(|line| line.trim_start().starts_with("via ")).count();
        anyhow::ensure!(shown.contains("198.51.100.0/24") && !shown.contains("/32") && paths == 3, "{shown}");
        Ok(Some(()))
    })
    .unwrap();
    setup.await_advertised(&ALL, 1);
    let aggregated = setup.counts();
    setup.kube.kubectl(&["delete", "service", "service-39", "--wait=false"]).unwrap();
    setup.kube.wait_for(speaker, DEADLINE, |status| announced(status) == addresses - 1).unwrap();
    for (node, counts) in setup.counts() {
        assert_eq!(counts, aggregated[&node], "node-{node}: an address of many in the aggregate");
    }
    rules(json!([{"communities": ["64501:7"]}]));
    setup.await_hops(1, &ALL);
    setup.await_hops(39, &[]);
    setup.await_counted(&ALL);
    assert!(!router.ask("show route").unwrap().contains("198.51.100.0/24"));
    for (node, after) in setup.counts() {
        let (resets, updates) = (after.resets - before[&node].resets, after.updates - before[&node].updates);
        assert!(
            resets == 0 && (2..=12).contains(&updates),
            "node-{node}: {resets} resets, {updates} UPDATEs"
        );
    }
}

/// Is the router's session with this node up?
fn is_up(router: &Bird<'_>, number: u8) -> anyhow::Result<bool> {
    Ok(router.ask(&format!("show protocols node{number}"))?.contains("Established"))
}

/// Every kind of change of the objects that say what is announced and how, with exactly what it costs each node.
fn configuration(setup: &Setup, router: &Bird<'_>, marker: &mut u8) {
    let patch = |kind: &str, name: &str, spec: Value| {
        let plural = format!("{kind}.network.kubesphere.io");
        setup.kube.patch(&plural, "", name, None, &json!({ "spec": spec })).unwrap();
    };
    let eip = |spec: Value| patch("eips", "pool", spec);
    let conf = |spec: Value| patch("bgpconfs", "default", spec);
    let peer = |spec: Value| patch("bgppeers", "router", spec);
    let mut exactly = |what: &str, change: &dyn Fn(), wanted: [(u64, u64); 3]| {
        let cost = setup.cost(marker, &ALL, change);
        let found = ALL.map(|n| (cost[&n].resets, cost[&n].updates));
        assert_eq!(found, wanted, "{what}: resets and UPDATEs of each node");
    };

    let none = [(0, 0); 3];
    exactly("an Eip grows", &|| eip(json!({"address": "198.51.100.0/24, 203.0.113.0/28"})), none);
    exactly(
        "an Eip shrinks, where nobody has an address",
        &|| eip(json!({"address": "198.51.100.0/24"})),
        none,
    );
    exactly("an Eip is disabled", &|| eip(json!({"disable": true})), none);
    exactly("and enabled again", &|| eip(json!({"disable": false})), none);
    exactly("each node has a speaker: Self is Auto", &|| conf(json!({"nextHopMode": "Self"})), none);
    exactly("another port to listen on", &|| conf(json!({"listenPort": 1790})), none);
    exactly("and the usual one", &|| conf(json!({"listenPort": null, "nextHopMode": null})), none);
    exactly("pauses between attempts", &|| peer(json!({"timers": {"config": {"connectRetry": "1"}}})), none);
    let delete = |kind: &str, name: &str| setup.kube.kubectl(&["delete", kind, name]).map(drop).unwrap();
    exactly("a neighbour goes that is not there", &|| delete("bgppeers", "other"), none);

    // Every address has the paths of two more nodes, one UPDATE for each node; and then they go, in one.
    let all_nodes = || {
        let paths = |count: usize| {
            eventually(&format!("{count} paths at the router"), DEADLINE, || {
                let shown = router.ask("show route for 198.51.100.1")?;
                let paths = shown.lines().filter(|line| line.trim_start().starts_with("via ")).count();
                anyhow::ensure!(paths == count, "{shown}");
                Ok(Some(()))
            })
            .unwrap();
        };
        conf(json!({"nextHopMode": "AllNodes"}));
        paths(9);
        conf(json!({"nextHopMode": "Auto"}));
        paths(3);
    };
    exactly("AllNodes, and Auto again", &all_nodes, [(0, 3); 3]);

    // Nodes that may not announce a pool: theirs are withdrawn in one UPDATE, and come back in one.
    let without_node_3 = || {
        let nodes = json!([{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["node-3"]}]);
        eip(json!({"nodeSelector": {"matchExpressions": nodes}}));
        setup.await_hops(1, &[1, 2]);
        eip(json!({"nodeSelector": null}));
        setup.await_hops(1, &ALL);
    };
    exactly("the nodeSelector of an Eip", &without_node_3, [(0, 0), (0, 0), (0, 2)]);

    // Local: where no endpoint is, one withdrawal; and one UPDATE when it is Cluster again.
    setup.endpoints(1, &[(2, true)]);
    let policy = |policy: &str| {
        let spec = json!({"spec": {"externalTrafficPolicy": policy}});
        setup.kube.patch("services", "default", "service-1", None, &spec).unwrap();
    };
    let local = || {
        policy("Local");
        setup.await_hops(1, &[2]);
        policy("Cluster");
        setup.await_hops(1, &ALL);
    };
    exactly("Local, and Cluster again", &local, [(0, 2), (0, 0), (0, 2)]);

    // What is in the OPEN, or belongs to the connection: one session each, and then the routes in one UPDATE and the two
    // ends of the families' tables.
    let anew = [(1, 3); 3];
    let established = |numbers: &[u8], up: bool| {
        eventually(&format!("sessions with {numbers:?}, up: {up}"), DEADLINE, || {
            for number in numbers {
                anyhow::ensure!(is_up(router, *number)? == up, "node-{number}");
            }
            Ok(Some(()))
        })
        .unwrap();
    };
    let reset = |change: &dyn Fn()| {
        let before = setup.counts();
        change();
        for number in ALL {
            eventually(&format!("a reset on node-{number}"), DEADLINE, || {
                Ok((setup.counts_of(number)?.resets > before[&number].resets).then_some(()))
            })
            .unwrap();
        }
        established(&ALL, true);
        setup.await_hops(1, &ALL);
    };
    exactly("a hold time", &|| reset(&|| peer(json!({"timers": {"config": {"holdTime": "20"}}}))), anew);
    exactly("graceful restart", &|| reset(&|| conf(json!({"gracefulRestart": {"restartTime": 90}}))), anew);
    // The router knows no password, and no such number.
    let password = || {
        peer(json!({"conf": {"authPassword": "word"}}));
        established(&ALL, false);
        peer(json!({"conf": {"authPassword": null}}));
    };
    exactly("a password that the router does not have, and none", &|| reset(&password), anew);
    let number = || {
        conf(json!({"as": 64509}));
        established(&ALL, false);
        conf(json!({"as": 64501}));
    };
    exactly("an AS number that the router does not take, and the old one", &|| reset(&number), anew);

    // A neighbour that a node has no more: its session ends, and the others announce the node, each with one UPDATE, and
    // withdraw it when it has a session again. Its counters begin anew.
    let before = setup.counts();
    peer(json!({"nodeSelector": {"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["node-3"]},
    ]}}));
    established(&[3], false);
    setup.await_hops(1, &ALL);
    let others = |updates: u64| {
        for number in [1, 2] {
            eventually(&format!("{updates} UPDATEs of node-{number}"), DEADLINE, || {
                let after = setup.counts_of(number)?;
                let cost = (after.resets - before[&number].resets, after.updates - before[&number].updates);
                anyhow::ensure!(cost == (0, updates), "{cost:?}");
                Ok(Some(()))
            })
            .unwrap();
        }
    };
    others(1);
    peer(json!({"nodeSelector": null}));
    established(&[3], true);
    others(2);
    let begun = |number: u8| {
        eventually(&format!("all routes of node-{number} in a new session"), DEADLINE, || {
            let counts = setup.counts_of(number)?;
            anyhow::ensure!(counts == Counts { resets: 0, updates: 3 }, "{counts:?}");
            Ok(Some(()))
        })
        .unwrap();
    };
    begun(3);

    // A neighbour that is deleted: all sessions end, once; and one that is made again has them in one UPDATE.
    let manifest = setup.kube.get("bgppeers.network.kubesphere.io", "", "router").unwrap();
    delete("bgppeers", "router");
    established(&ALL, false);
    setup.await_hops(1, &[]);
    setup.apply(&ours("BgpPeer", "router", &manifest["spec"]));
    established(&ALL, true);
    setup.await_hops(1, &ALL);
    for number in ALL {
        begun(number);
    }
}
