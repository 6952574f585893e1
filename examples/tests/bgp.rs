//! The examples of BGP, at work.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "tests; programs as modules")]

#[path = "../anycast_health.rs"]
mod anycast_health;
#[path = "../bgp_speaker.rs"]
mod bgp_speaker;
#[path = "../route_collector.rs"]
mod route_collector;

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    time::Duration,
};

use openelb_bgp::net::{self, SpeakerHandle};
use openelb_bgp::speaker::{PeerConfig, PeerStatus, Route, SpeakerConfig};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(20);

/// A port of this address that nobody listens on now.
fn free(last: u8) -> SocketAddr {
    TcpListener::bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap().local_addr().unwrap()
}

/// A neighbour that is connected to from 127.0.0.`from`.
fn neighbour(at: SocketAddr, asn: u32, from: u8) -> PeerConfig {
    let mut peer = PeerConfig::new("neighbour", at.ip(), asn);
    (peer.port, peer.local_address) = (at.port(), Some(IpAddr::from([127, 0, 0, from])));
    peer.connect_retry_max = Duration::from_secs(1);
    peer
}

#[tokio::test]
async fn the_collector_sees_what_is_announced_and_withdrawn() {
    timeout(LONG, bgp_speaker::announce_and_withdraw(free(22))).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_a_neighbour_announces_is_collected() {
    let at = free(31);
    let collector = route_collector::collect(at, "127.0.0.32/32".parse().unwrap(), 64512).unwrap();
    let (announcer, _task) = net::spawn(SpeakerConfig::new(64513, [192, 0, 2, 32].into())).unwrap();
    announcer.set_peers(vec![neighbour(at, 64512, 32)]).unwrap();
    announcer.set_routes("test", (1..=20).map(|n| Route::new(IpAddr::from([203, 0, 113, n]))));
    let (told, mut shown) = tokio::sync::mpsc::unbounded_channel();
    let report = route_collector::report(&collector, |now| {
        let _ = told.send(now.peers.values().map(PeerStatus::received_routes).sum::<u64>());
    });
    let all = async { while shown.recv().await.unwrap() < 20 {} };
    tokio::select! {
        () = report => panic!("the collector has stopped"),
        outcome = timeout(LONG, all) => outcome.unwrap(),
    }
}

/// Until the router has a session, and so many routes.
async fn known(router: &SpeakerHandle, count: u64) {
    let known = |peer: &PeerStatus| peer.session.is_some() && peer.received_routes() == count;
    let mut peers = router.watch_peers();
    let known = peers.wait_for(|now| now.peers.values().any(known));
    timeout(LONG, known).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_address_comes_and_goes_with_the_service() {
    let at = free(42);
    let mut config = SpeakerConfig::new(64512, [192, 0, 2, 42].into());
    config.listen = vec![at];
    let (router, _task) = net::spawn(config).unwrap();
    let mut host = PeerConfig::new("host", "127.0.0.41".parse().unwrap(), 64513);
    host.passive = true;
    router.set_peers(vec![host]).unwrap();
    let anycast = anycast_health::speaker(neighbour(at, 64512, 41), 64513).unwrap();

    let service = tokio::net::TcpListener::bind("127.0.0.43:0").await.unwrap();
    let place = service.local_addr().unwrap();
    let changes = async {
        known(&router, 1).await;
        drop(service); // nobody answers any more
        known(&router, 0).await;
        let _again = tokio::net::TcpListener::bind(place).await.unwrap();
        known(&router, 1).await;
    };
    let address = "203.0.113.53/32".parse().unwrap();
    tokio::select! {
        () = anycast_health::follow(&anycast, address, place, Duration::from_millis(50)) => unreachable!(),
        () = changes => {}
    }
}

/// They are there to be read at a glance.
#[test]
fn each_is_forty_lines() {
    for (name, text) in [
        ("anycast_health", include_str!("../anycast_health.rs")),
        ("bgp_speaker", include_str!("../bgp_speaker.rs")),
        ("route_collector", include_str!("../route_collector.rs")),
    ] {
        let code = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
        let lines = text.lines().filter(code).count();
        assert!(lines <= 40, "{name} has {lines} lines");
    }
}
