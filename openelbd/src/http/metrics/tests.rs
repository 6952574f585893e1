use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use openelb_bgp::{
    fsm::State,
    speaker::{
        FamilyStatus, ListenerState, ListenerStatus, MessageCounters, PathState, PeerCounters, PeerName,
        PeerStatus, PeersSnapshot, SessionStatus,
    },
    wire::Family,
};

use super::{Inventory, Metrics, PoolInventory, Sources, WriteResult};

fn snapshot() -> PeersSnapshot {
    let now = Instant::now();
    let name = PeerName::from("tor \"1\"");
    let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let session = SessionStatus {
        since: now,
        local: "192.0.2.2:179".parse().unwrap(),
        remote: "192.0.2.1:179".parse().unwrap(),
        remote_asn: 65001,
        remote_router_id: Ipv4Addr::new(192, 0, 2, 1),
        hold_time: Duration::from_secs(30),
        keepalive: Duration::from_secs(10),
        families: vec![FamilyStatus {
            family: Family::IPV4_UNICAST,
            advertised: 7,
            pending: 1,
            received: 3,
            paths_per_prefix: 1,
            end_of_rib_sent: true,
            end_of_rib_received: true,
            ..FamilyStatus::new(Family::IPV4_UNICAST)
        }],
        ..SessionStatus::new(now, "192.0.2.2:179".parse().unwrap(), "192.0.2.1:179".parse().unwrap())
    };
    let peer = PeerStatus {
        name: name.clone(),
        address,
        asn: 65001,
        local_asn: 65000,
        state: State::Established,
        state_since: now,
        admin_down: false,
        session: Some(session),
        last_error: None,
        counters: PeerCounters {
            sent: MessageCounters { update: 4, bytes: 400, ..MessageCounters::default() },
            established: 2,
            dropped: 1,
            unkept_paths: 9,
            internal_errors: 6,
            ..PeerCounters::default()
        },
        received_octets: 4096,
        max_received_octets: 8192,
        path: Some(PathState::Down(openelb_bgp::bfd::Cause::TimeExpired)),
        ..PeerStatus::new(name.clone(), address, now)
    };
    PeersSnapshot {
        peers: BTreeMap::from([(name, peer)]),
        listeners: vec![ListenerStatus {
            address: "0.0.0.0:179".parse().unwrap(),
            bound: None,
            state: ListenerState::Failed { error: "address in use".to_owned() },
            unprotected: Vec::new(),
        }],
        routes_complete: true,
        refused_connections: 5,
        md5_failures: 0,
        bfd_discarded: 0,
        clashes: Vec::new(),
    }
}

#[test]
fn every_value_is_under_its_name_and_labels() {
    let snapshot = Arc::new(snapshot());
    let metrics =
        Metrics::new(Sources { bgp: Arc::new(move || Arc::clone(&snapshot)), ..Sources::default() });
    metrics.count_write("Eip", WriteResult::Conflict);
    metrics.count_event("Warning", "PoolExhausted");
    metrics.count_decision(Duration::from_millis(3));
    metrics.set_inventory(Inventory {
        pools: BTreeMap::from([(
            "web".to_owned(),
            PoolInventory { size: 256, used: 2, services: 3, ready: true },
        )]),
        services: BTreeMap::from([("Assigned".to_owned(), 3)]),
        announced: BTreeMap::from([("bgp", 2)]),
        desired: BTreeMap::from([("bgp", 2)]),
        manifest_problems: 1,
        ready: true,
    });
    let text = metrics.render().unwrap();
    let peer = r#"peer="tor \"1\"",neighbor="192.0.2.1""#;
    for line in [
        "openelb_ready 1.0",
        r#"openelb_pool_addresses{pool="web"} 256.0"#,
        r#"openelb_pool_addresses_in_use{pool="web"} 2.0"#,
        r#"openelb_services{reason="Assigned"} 3.0"#,
        r#"openelb_announced_addresses{protocol="bgp"} 2.0"#,
        "openelb_manifest_problems 1.0",
        r#"openelb_store_writes_total{kind="Eip",result="conflict"} 1"#,
        r#"openelb_events_total{type="Warning",reason="PoolExhausted"} 1"#,
        "openelb_decisions_total 1",
        "openelb_decision_duration_seconds_count 1",
        &format!("openelb_bgp_session_up{{{peer}}} 1.0"),
        &format!("openelb_bgp_session_state{{{peer}}} 6.0"),
        &format!("openelb_bgp_sessions_dropped_total{{{peer}}} 1"),
        &format!("openelb_bgp_internal_errors_total{{{peer}}} 6"),
        &format!("openelb_bgp_paths_not_kept_total{{{peer}}} 9"),
        &format!("openelb_bgp_received_routes_bytes{{{peer}}} 4096.0"),
        &format!("openelb_bgp_received_routes_max_bytes{{{peer}}} 8192.0"),
        &format!("openelb_bgp_bfd_up{{{peer}}} 0.0"),
        &format!("openelb_bgp_graceful_restart_negotiated{{{peer}}} 0.0"),
        &format!(r#"openelb_bgp_prefix_limit_exceeded{{{peer},family="ipv4-unicast"}} 0.0"#),
        &format!(r#"openelb_bgp_messages_total{{{peer},direction="sent",type="update"}} 4"#),
        &format!(r#"openelb_bgp_message_bytes_total{{{peer},direction="sent"}} 400"#),
        &format!(r#"openelb_bgp_routes_advertised{{{peer},family="ipv4-unicast"}} 7.0"#),
        r#"openelb_bgp_listener_up{address="0.0.0.0:179"} 0.0"#,
        "openelb_bgp_refused_connections_total 5",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert!(text.lines().any(|l| l.starts_with("process_resident_memory_bytes ")), "{text}");
}

#[test]
fn without_peers_there_are_no_empty_families() {
    let metrics = Metrics::new(Sources::default());
    let text = metrics.render().unwrap();
    assert!(!text.contains("bgp_session"), "{text}");
    let mut names: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(all, names.len(), "a family is there twice:\n{text}");
}
