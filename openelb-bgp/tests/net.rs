//! Two speakers in one process, over TCP on loopback addresses.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real sockets live in real time")]
#![cfg(feature = "tokio")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use openelb_bgp::{
    fsm::State,
    net::{self, Shutdown, SpeakerHandle},
    speaker::{
        CommandError, DynamicPeers, Event, ListenerState, PeerCommand, PeerConfig, PeersSnapshot,
        ReceivedRoutes, Route, RoutesSnapshot, SpeakerConfig,
    },
    wire::Family,
};
use tokio::{io::AsyncReadExt, sync::watch, task::JoinHandle, time::timeout};

const DEADLINE: Duration = Duration::from_secs(20);

async fn wait_for<T>(
    watch: &mut watch::Receiver<Arc<T>>,
    what: &str,
    condition: impl Fn(&T) -> bool,
) -> Arc<T> {
    let found = timeout(DEADLINE, watch.wait_for(|value| condition(value))).await;
    found.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}")).unwrap().clone()
}

fn start(address: Ipv4Addr, asn: u32, listen: SocketAddr) -> (SpeakerHandle, JoinHandle<()>) {
    let mut config = SpeakerConfig::new(asn, address);
    config.listen = vec![listen];
    net::spawn(config).unwrap()
}

async fn listening(speaker: &SpeakerHandle) -> SocketAddr {
    let open = |snapshot: &PeersSnapshot| snapshot.listeners.iter().any(|listener| listener.bound.is_some());
    wait_for(&mut speaker.watch_peers(), "listening", open).await.listeners[0].bound.unwrap()
}

fn peer(address: Ipv4Addr, asn: u32, port: u16, local: Ipv4Addr) -> PeerConfig {
    let mut peer = PeerConfig::new("other", address.into(), asn);
    peer.port = port;
    peer.local_address = Some(local.into());
    peer
}

fn established(snapshot: &PeersSnapshot) -> bool {
    snapshot.peers.values().any(|peer| peer.state == State::Established)
}

fn received(snapshot: &PeersSnapshot, count: u64) -> bool {
    let families = snapshot.peers.values().filter_map(|peer| peer.session.as_ref()).flat_map(|s| &s.families);
    families.map(|family| family.received).sum::<u64>() == count
}

#[tokio::test]
async fn a_route_goes_from_one_speaker_to_the_other_and_a_shutdown_says_why() {
    let [one, two] = [Ipv4Addr::new(127, 0, 1, 1), Ipv4Addr::new(127, 0, 1, 2)];
    let (first, first_task) = start(one, 65000, (one, 0).into());
    let (second, second_task) = start(two, 65001, (two, 0).into());
    let port = listening(&second).await.port();
    first.set_routes("test", [Route::new("198.51.100.1/32".parse::<ipnet::IpNet>().unwrap())]);
    first.set_peers(vec![peer(two, 65001, port, one)]).unwrap();
    let mut passive = peer(one, 65000, 179, two);
    passive.passive = true;
    second.set_peers(vec![passive]).unwrap();
    let mut watch = second.watch_peers();
    wait_for(&mut watch, "established", established).await;
    wait_for(&mut watch, "the route", |snapshot| received(snapshot, 1)).await;
    let told = |snapshot: &RoutesSnapshot| snapshot.routes.iter().any(|route| route.advertised() == 1);
    wait_for(&mut first.watch_routes(), "the route's state", told).await;
    first.set_routes("test", []);
    wait_for(&mut watch, "no route", |snapshot| received(snapshot, 0)).await;

    first.shutdown(Shutdown::Notify);
    timeout(DEADLINE, first_task).await.expect("a bounded time").unwrap();
    let down = |snapshot: &PeersSnapshot| !established(snapshot);
    let snapshot = wait_for(&mut watch, "the session's end", down).await;
    let counters = snapshot.peers.values().next().unwrap().counters;
    assert_eq!((counters.dropped, counters.received.notification), (1, 1));
    assert!(
        first.route_status("198.51.100.1/32".parse().unwrap()).await.is_empty(),
        "answered after the end"
    );
    drop((second, watch));
    timeout(DEADLINE, second_task).await.expect("the last handle was dropped").unwrap();
}

#[tokio::test]
async fn a_taken_port_leaves_a_speaker_that_connects() {
    let [one, two] = [Ipv4Addr::new(127, 0, 2, 1), Ipv4Addr::new(127, 0, 2, 2)];
    let taken = std::net::TcpListener::bind((one, 0)).unwrap();
    let (first, _first_task) = start(one, 65000, taken.local_addr().unwrap());
    let (second, _second_task) = start(two, 65001, (two, 0).into());
    let port = listening(&second).await.port();
    let failed = |snapshot: &PeersSnapshot| {
        matches!(&snapshot.listeners[..], [listener] if matches!(&listener.state,
            ListenerState::Failed { error } if error.contains("another program")))
    };
    wait_for(&mut first.watch_peers(), "the port is reported as taken", failed).await;
    first.set_peers(vec![peer(two, 65001, port, one)]).unwrap();
    second.set_peers(vec![peer(one, 65000, 1, two)]).unwrap();
    wait_for(&mut first.watch_peers(), "established", established).await;
    drop(taken);
    let open = |snapshot: &PeersSnapshot| snapshot.listeners[0].state == ListenerState::Listening;
    wait_for(&mut first.watch_peers(), "the port is tried again", open).await;
}

#[tokio::test]
async fn strangers_are_refused_and_counted() {
    let one = Ipv4Addr::new(127, 0, 3, 1);
    let (speaker, _task) = start(one, 65000, (one, 0).into());
    let address = listening(&speaker).await;
    for _ in 0..20 {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let read = timeout(DEADLINE, stream.read(&mut [0; 1])).await.expect("closed in a bounded time");
        assert!(!matches!(read, Ok(1..)), "a stranger is told nothing");
    }
    wait_for(&mut speaker.watch_peers(), "20 refusals", |snapshot| snapshot.refused_connections == 20).await;
}

#[tokio::test]
async fn a_neighbour_that_floods_does_not_delay_another() {
    use tokio::io::AsyncWriteExt;
    let [one, two, flooder] = [1, 2, 3].map(|host| Ipv4Addr::new(127, 0, 4, host));
    let (speaker, _task) = start(one, 65000, (one, 0).into());
    let port = listening(&speaker).await.port();
    let (other, _other_task) = start(two, 65001, (two, 0).into());
    let mut passive = peer(two, 65001, 179, one);
    passive.passive = true;
    let mut hostile = peer(flooder, 65002, 179, one);
    hostile.name = "hostile".into();
    hostile.passive = true;
    speaker.set_peers(vec![passive, hostile]).unwrap();
    // Connects again and again, and sends what is no BGP as fast as it can.
    let flood = tokio::spawn(async move {
        loop {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind((flooder, 0).into()).unwrap();
            if let Ok(mut stream) = socket.connect((one, port).into()).await {
                while stream.write_all(&[0xff; 4096]).await.is_ok() {}
            }
        }
    });
    other.set_peers(vec![peer(one, 65000, port, two)]).unwrap();
    wait_for(&mut other.watch_peers(), "established", established).await;
    speaker.set_routes("test", [Route::new("198.51.100.1/32".parse::<ipnet::IpNet>().unwrap())]);
    wait_for(&mut other.watch_peers(), "the route", |snapshot| received(snapshot, 1)).await;
    flood.abort();
}

#[tokio::test]
async fn an_operator_looks_inside_and_shuts_a_dynamic_neighbour_down() {
    let [one, two] = [Ipv4Addr::new(127, 0, 12, 1), Ipv4Addr::new(127, 0, 12, 2)];
    let (rack, _rack_task) = start(one, 65000, (one, 0).into());
    let (host, _host_task) = start(two, 65001, (two, 0).into());
    let port = listening(&rack).await.port();
    let mut template = PeerConfig::new("hosts", Ipv4Addr::UNSPECIFIED.into(), 65001);
    template.received_routes = ReceivedRoutes::Keep;
    let group = DynamicPeers { prefix: "127.0.12.0/24".parse().unwrap(), template, max_peers: 4 };
    rack.set_dynamic_peers(vec![group]).unwrap();
    let mut events = rack.subscribe(true, false).expect("it runs");
    let prefix: ipnet::IpNet = "198.51.100.1/32".parse().unwrap();
    host.set_routes("test", [Route::new(prefix)]);
    host.set_peers_of("grpc", vec![peer(one, 65000, port, two)]).unwrap();
    let told = timeout(DEADLINE, async {
        loop {
            if let Event::BestPath { prefix, path: Some(_) } = events.recv().await.unwrap() {
                return prefix;
            }
        }
    });
    assert_eq!(told.await.expect("the route is told of"), prefix);
    let name = "hosts/127.0.12.2".into();
    let received = rack.adj_in(&name, Family::IPV4_UNICAST).await.unwrap();
    let sent = host.adj_out(&"other".into(), Family::IPV4_UNICAST).await.unwrap();
    assert_eq!((received.len(), sent.len()), (1, 1));
    assert_eq!(received[0].attributes.attributes.as_path, sent[0].attributes.attributes.as_path);
    assert_eq!(rack.rib(Family::IPV4_UNICAST).await[0].prefix, prefix);
    assert_eq!(rack.query(|speaker| speaker.peers().peers.len()).await, Some(1));
    rack.command(&name, PeerCommand::SoftReset).await.unwrap();
    rack.command(&name, PeerCommand::Shutdown { text: "new cables".into() }).await.unwrap();
    let down = |snapshot: &PeersSnapshot| {
        let last = snapshot.peers.values().next().and_then(|peer| peer.last_error.as_ref());
        last.is_some_and(|last| last.reason.contains("new cables"))
    };
    wait_for(&mut host.watch_peers(), "the text", down).await;
    let unknown = rack.command(&"nobody".into(), PeerCommand::Enable).await;
    assert!(matches!(unknown, Err(CommandError::UnknownPeer { .. })));
    rack.command(&name, PeerCommand::Enable).await.unwrap();
    wait_for(&mut host.watch_peers(), "established again", established).await;
    rack.shutdown(Shutdown::Quiet);
    let stopped = timeout(DEADLINE, async {
        while rack.command(&name, PeerCommand::Enable).await != Err(CommandError::Stopped) {}
    });
    stopped.await.expect("who asks a speaker that has stopped is told so");
}
