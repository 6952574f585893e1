//! What is told of sessions and addresses.

use super::{announced::world, *};

fn peer_status(name: &str, state: State, at: Instant) -> (PeerName, PeerStatus) {
    let address = "192.0.2.1".parse().unwrap();
    let status = PeerStatus {
        asn: 65001,
        local_asn: 65000,
        state,
        last_error: Some(LastError { reason: "hold timer expired".to_owned(), at }),
        ..PeerStatus::new(PeerName::from(name), address, at)
    };
    (status.name.clone(), status)
}

#[test]
fn status_says_what_bfd_limits_and_protection_do() {
    let mut group = spec(&json!({"bfd": {"enabled": true}}));
    group["conf"]["neighborAddress"] = json!("198.51.100.0/24");
    let desired = world(
        json!({"as": 65000, "gracefulRestart": {"restartTime": 30}}),
        [
            peer(
                "tor",
                spec(&json!({
                    "bfd": {"enabled": true}, "prefixLimit": {"maxPrefixes": 4}, "transport": {"ttlSecurity": {"hops": 1}},
                    "conf": {"authPassword": "hunter2"},
                })),
            ),
            peer("rack", group),
            peer(
                "plain",
                spec(
                    &json!({"conf": {"neighborAddress": "192.0.2.2"}, "gracefulRestart": {"enabled": false}}),
                ),
            ),
        ],
        "a",
    );
    let now = Instant::now();
    let calendar = Calendar::new(now, Timestamp::UNIX_EPOCH);
    let restart = Capability::GracefulRestart(GracefulRestart { time: 120, ..GracefulRestart::default() });
    let established = |received: u64, capabilities: Vec<Capability>| SessionStatus {
        families: vec![FamilyStatus {
            received,
            over_limit: received > 4,
            ..FamilyStatus::new(Family::IPV4_UNICAST)
        }],
        remote_capabilities: capabilities.into(),
        ..SessionStatus::new(now, "192.0.2.10:179".parse().unwrap(), "192.0.2.1:179".parse().unwrap())
    };
    let of = |name: &str, path: Option<PathState>, session: Option<SessionStatus>| {
        let (key, status) = peer_status(name, State::Established, now);
        (key, PeerStatus { path, session, ..status })
    };
    let status = |peers: Vec<(PeerName, PeerStatus)>| {
        let peers = PeersSnapshot { peers: peers.into_iter().collect(), ..PeersSnapshot::default() };
        status::status(
            &desired,
            &peers,
            &RoutesSnapshot::default(),
            &AnnouncerStatus::default(),
            calendar,
            now,
        )
    };
    let down = PathState::Down(bfd::Cause::TimeExpired);
    let told = status(vec![
        of("tor", Some(PathState::Up), Some(established(2, vec![restart.clone()]))),
        of("rack/198.51.100.7", Some(down), None),
        of("plain", None, Some(established(2, vec![restart]))),
    ]);
    let tor = &told.peers["tor"];
    assert_eq!((tor.bfd.as_deref(), tor.authenticated, tor.ttl_security), (Some("up"), true, Some(1)));
    assert_eq!(tor.graceful_restart, Some(true));
    let rack = &told.peers["rack/198.51.100.7"];
    assert_eq!(rack.bfd.as_deref(), Some("down: nothing was heard for the detection time"));
    assert_eq!((rack.graceful_restart, rack.authenticated), (Some(false), false));
    let plain = &told.peers["plain"];
    assert_eq!((plain.bfd.as_deref(), plain.graceful_restart), (None, None));
    let warned: Vec<&str> = told.peer_warnings.keys().map(String::as_str).collect();
    assert_eq!(warned, ["rack"], "{:?}", told.peer_warnings);
    for (received, words) in [(3, "75 % or more of the 4 prefixes"), (5, "more prefixes of")] {
        let told = status(vec![of("tor", Some(PathState::Up), Some(established(received, Vec::new())))]);
        assert!(told.peer_warnings["tor"].contains(words), "{received}: {:?}", told.peer_warnings);
        assert_eq!(told.peers["tor"].graceful_restart, Some(false));
    }
    assert!(!format!("{told:?}").contains("hunter2"));
    for (octets, warned) in [(0, false), (74, false), (75, true), (101, true)] {
        let (key, tor) = of("tor", Some(PathState::Up), Some(established(2, Vec::new())));
        let tor = PeerStatus { received_octets: octets, max_received_octets: 100, ..tor };
        let told = status(vec![(key, tor)]);
        let words =
            told.peer_warnings.get("tor").is_some_and(|told| told.contains("of the 100 octets of memory"));
        assert_eq!(words, warned, "{octets}: {:?}", told.peer_warnings);
    }
}

#[test]
fn status_says_to_whom_an_address_is_advertised_or_why_not() {
    let desired = world(json!({"as": 65000}), [peer("tor", spec(&json!({})))], "a");
    let now = Instant::now();
    let calendar = Calendar::new(now, "2026-01-02T03:04:05Z".parse::<Timestamp>().unwrap());
    let peers = PeersSnapshot {
        peers: BTreeMap::from([peer_status("tor", State::Active, now)]),
        listeners: vec![ListenerStatus {
            address: "0.0.0.0:179".parse().unwrap(),
            bound: None,
            state: ListenerState::Failed { error: "address in use".to_owned() },
            unprotected: Vec::new(),
        }],
        routes_complete: true,
        refused_connections: 0,
        clashes: Vec::new(),
        md5_failures: 0,
        bfd_discarded: 0,
    };
    let route = |prefix: &str, state| RouteStatus {
        prefix: prefix.parse().unwrap(),
        path_id: 1,
        peers: vec![(PeerName::from("tor"), state)],
    };
    let routes = RoutesSnapshot {
        routes: vec![
            route("203.0.113.1/32", Advertisement::Advertised),
            route("2001:db8:100::1/128", Advertisement::FamilyNotNegotiated),
        ]
        .into(),
    };
    let first = status::status(&desired, &peers, &routes, &AnnouncerStatus::default(), calendar, now);
    let v4 = &first.addresses[&("203.0.113.1".parse().unwrap(), openelb_k8s::announce::Protocol::Bgp)];
    assert!(v4.announced && v4.peers["tor"], "{v4:?}");
    let v6 = &first.addresses[&("2001:db8:100::1".parse().unwrap(), openelb_k8s::announce::Protocol::Bgp)];
    assert!(!v6.announced && v6.detail.contains("not negotiated this address family"), "{v6:?}");
    assert_eq!(first.problems.len(), 1);
    assert!(first.problems[0].message.contains("0.0.0.0:179"), "{:?}", first.problems);
    let session = &first.peers["tor"];
    assert_eq!(session.last_error.as_deref(), Some("hold timer expired"));
    assert_eq!(session.down_since.unwrap().to_string(), "2026-01-02T03:04:05Z");
    assert_eq!((session.hold_time, session.keepalive), (30, 10));

    // Later, with nothing changed, `since` stays; the counters are not a change either.
    let later = now + Duration::from_secs(60);
    let mut counted = peers;
    counted.peers.values_mut().for_each(|peer| peer.counters.received.keepalive += 3);
    let second = status::status(&desired, &counted, &routes, &first, calendar, later);
    assert_eq!(second.addresses, first.addresses);
    assert_ne!(second, first);
    assert!(status::is_same_but_for_counters(&second, &first));
    let third = status::status(&desired, &counted, &RoutesSnapshot::default(), &second, calendar, later);
    assert!(!status::is_same_but_for_counters(&third, &second));
    let v4 = &third.addresses[&("203.0.113.1".parse().unwrap(), openelb_k8s::announce::Protocol::Bgp)];
    assert_eq!(v4.since.unwrap().to_string(), "2026-01-02T03:05:05Z", "not announced since");
}
