//! One link-local address on several interfaces: the usual two routers of a rack, each `fe80::1`.

use super::*;

/// Its name, its interface and the scope of its address.
type Neighbour = (String, Option<String>, u32);

/// What becomes of these BgpPeers: those that are known with their scopes, and those that are refused with the cause.
fn outcome(zones: &Zones, peers: &[(&str, &str, Value)]) -> (Vec<Neighbour>, BTreeMap<String, String>) {
    let peers = peers.iter().map(|(name, address, extra)| {
        let mut spec = json!({"conf": {"neighborAddress": address, "peerAs": 65001}});
        openelb_k8s::plan::merge_patch(&mut spec, extra);
        peer(name, spec)
    });
    let first = [conf(json!({"as": 65000})), node(NODE, &["192.0.2.10"], json!({}))];
    let bgp = announcements(first.into_iter().chain(peers)).bgp.unwrap();
    let Peers { known, refused, .. } = config::peers(&bgp, zones, Start::default());
    // The speaker takes them all: it tells neighbours by address and scope.
    let mut speaker = openelb_bgp::speaker::Speaker::new(
        openelb_bgp::speaker::SpeakerConfig::new(65000, Ipv4Addr::new(192, 0, 2, 10)),
        Instant::now(),
    )
    .unwrap();
    speaker.set_peers(known.clone(), Instant::now()).unwrap();
    let known = known
        .into_iter()
        .map(|peer| (peer.name.as_str().to_owned(), peer.bind_interface, peer.scope_id))
        .collect();
    (known, refused.into_iter().map(|(name, note)| (name, note.cause)).collect())
}

fn known(name: &str, interface: &str, scope: u32) -> (String, Option<String>, u32) {
    (name.to_owned(), Some(interface.to_owned()), scope)
}

#[test]
fn one_link_local_address_may_be_on_two_interfaces() {
    let zones = Zones::new([("eth1", 5), ("eth2", 7)]);
    let (there, refused) = outcome(
        &zones,
        &[
            ("a", "fe80::1%eth1", json!({})),
            ("b", "fe80::1", json!({"transport": {"bindInterface": "eth2"}})),
            ("c", "fe80::1", json!({"conf": {"neighborInterface": "eth1"}})),
            ("d", "192.0.2.1", json!({"transport": {"bindInterface": "eth1"}})),
            ("e", "192.0.2.1", json!({"transport": {"bindInterface": "eth2"}})),
        ],
    );
    let other = ("d".to_owned(), Some("eth1".to_owned()), 0);
    assert_eq!(there, [known("a", "eth1", 5), known("b", "eth2", 7), other]);
    assert_eq!(refused.keys().collect::<Vec<_>>(), ["c", "e"]);
    assert!(refused["c"].contains("BgpPeer a has the address fe80::1 already"), "{refused:?}");
}

#[test]
fn an_interface_that_is_not_there_yet_takes_no_session_from_others() {
    let peers = [
        ("a", "fe80::1%eth1", json!({})),
        ("b", "fe80::1%eth2", json!({})),
        ("c", "fe80::1%eth3", json!({})),
    ];
    let (there, refused) = outcome(&Zones::new([("eth2", 7)]), &peers);
    assert_eq!(there, [known("a", "eth1", 0), known("b", "eth2", 7)]);
    assert!(refused["c"].contains("no interface eth3"), "{refused:?}");
}

#[test]
fn neighbours_with_one_address_have_one_password() {
    let zones = Zones::new([("eth1", 5), ("eth2", 7)]);
    let password = |text: &str| json!({"conf": {"authPassword": text}});
    let missing = json!({"passwordSecretRef": {"name": "missing"}});
    for (first, second, both) in [
        (password("hunter2"), password("hunter2"), true),
        (password("hunter2"), password("hunter3"), false),
        (password("hunter2"), json!({}), false),
        (json!({}), password("hunter2"), false),
        (json!({}), missing.clone(), false),
        (missing.clone(), json!({}), false),
        // It is not known yet, and the session is down meanwhile.
        (missing, password("hunter2"), true),
    ] {
        let (there, refused) =
            outcome(&zones, &[("a", "fe80::1%eth1", first.clone()), ("b", "fe80::1%eth2", second.clone())]);
        assert_eq!((there.len(), refused.is_empty()), (1 + usize::from(both), both), "{first} {second}");
        let told =
            refused.values().all(|cause| cause.contains("another password") && !cause.contains("hunter"));
        assert!(told, "{refused:?}");
    }
}

#[test]
fn zones_follow_interfaces_that_come_back_under_another_index() {
    let bgp = |peers: &[&str]| {
        let peers = peers.iter().map(|address| peer(address, json!({"conf": {"neighborAddress": address}})));
        announcements(
            [conf(json!({"as": 65000})), node(NODE, &["192.0.2.10"], json!({}))].into_iter().chain(peers),
        )
        .bgp
    };
    let two = bgp(&["fe80::1%eth1", "fe80::1%eth2", "192.0.2.1"]);
    let mut known = Zones::default();
    assert!(known.renew(two.as_ref(), |name| (name == "eth1").then_some(5)));
    assert_eq!(known, Zones::new([("eth1", 5)]));
    assert!(!known.renew(two.as_ref(), |_| None), "what was seen stays");
    assert!(known.renew(two.as_ref(), |name| (name == "eth1").then_some(9)));
    assert_eq!((known.index(Some("eth1")), known.index(Some("eth2")), known.index(None)), (9, 0, 0));
    assert!(known.renew(bgp(&["192.0.2.1"]).as_ref(), |_| Some(1)), "nobody is there any more");
    assert!(!known.renew(None, |_| Some(1)));
    assert_eq!(known, Zones::default());
    assert!(zones::of_kernel("lo").is_some() && zones::of_kernel("openelb-none").is_none());
}
