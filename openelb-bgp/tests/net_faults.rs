//! What goes wrong around a running speaker: addresses that are not there, neighbours that never answer or flap,
//! listeners that change, many speakers at once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real sockets live in real time")]
#![cfg(feature = "tokio")]

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use openelb_bgp::{
    fsm::State,
    net::{self, Shutdown, SpeakerHandle},
    speaker::{
        ListenerState, ListenerStatus, PeerConfig, PeerStatus, PeersSnapshot, Route, RouteAttributes,
        SpeakerConfig,
    },
    wire::{Message, Open, SessionContext},
};
use tokio::{io::AsyncWriteExt, net::TcpSocket, sync::watch, task::JoinHandle, time::timeout};

const DEADLINE: Duration = Duration::from_secs(20);

async fn wait_for<T>(
    watch: &mut watch::Receiver<Arc<T>>,
    what: &str,
    condition: impl Fn(&T) -> bool,
) -> Arc<T> {
    let found = timeout(DEADLINE, watch.wait_for(|value| condition(value))).await;
    found.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}")).unwrap().clone()
}

fn config(router_id: Ipv4Addr, asn: u32, listen: &[SocketAddr]) -> SpeakerConfig {
    let mut config = SpeakerConfig::new(asn, router_id);
    config.listen = listen.to_vec();
    config
}

fn start(router_id: Ipv4Addr, asn: u32, listen: &[SocketAddr]) -> (SpeakerHandle, JoinHandle<()>) {
    net::spawn(config(router_id, asn, listen)).unwrap()
}

/// Once no listener waits for its task any more.
async fn listeners(speaker: &SpeakerHandle, wanted: &[SocketAddr]) -> Vec<ListenerStatus> {
    let pending = |status: &ListenerStatus| matches!(&status.state, ListenerState::Failed { error } if error == "not open yet");
    let ready = |snapshot: &PeersSnapshot| {
        let addresses: Vec<SocketAddr> = snapshot.listeners.iter().map(|status| status.address).collect();
        addresses == wanted && !snapshot.listeners.iter().any(pending)
    };
    wait_for(&mut speaker.watch_peers(), "listeners", ready).await.listeners.clone()
}

fn peer(name: &str, address: impl Into<IpAddr>, asn: u32, port: u16, local: impl Into<IpAddr>) -> PeerConfig {
    let mut peer = PeerConfig::new(name, address.into(), asn);
    peer.port = port;
    peer.local_address = Some(local.into());
    peer
}

fn status<'a>(snapshot: &'a PeersSnapshot, name: &str) -> Option<&'a PeerStatus> {
    snapshot.peers.get(&name.into())
}

fn is_established(name: &'static str) -> impl Fn(&PeersSnapshot) -> bool {
    move |snapshot| status(snapshot, name).is_some_and(|peer| peer.state == State::Established)
}

fn route(prefix: &str) -> Route {
    Route::new(prefix.parse::<ipnet::IpNet>().unwrap())
}

#[tokio::test]
async fn listeners_change_without_touching_those_that_stay() {
    let [one, two] = [Ipv4Addr::new(127, 0, 5, 1), Ipv4Addr::new(127, 0, 5, 2)];
    let [first, second]: [SocketAddr; 2] = [(one, 0).into(), (two, 0).into()];
    let (speaker, _task) = start(one, 65000, &[first]);
    let before = listeners(&speaker, &[first]).await;
    speaker.set_config(config(one, 65000, &[second, first])).unwrap();
    let both = listeners(&speaker, &[second, first]).await;
    assert_eq!(both[1], before[0], "the same socket: the port was chosen by the kernel");
    // The old address makes way at once for one that overlaps it, in both directions.
    let port = both[1].bound.unwrap().port();
    let [exact, any]: [SocketAddr; 2] = [(one, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()];
    for address in [any, exact, any] {
        speaker.set_config(config(one, 65000, &[address])).unwrap();
        let now = listeners(&speaker, &[address]).await;
        assert_eq!(now[0].state, ListenerState::Listening, "{address}");
    }
}

#[tokio::test]
async fn a_local_address_that_is_not_there_is_told_and_tried_again() {
    let [one, two] = [Ipv4Addr::new(127, 0, 6, 1), Ipv4Addr::new(127, 0, 6, 2)];
    let absent = Ipv4Addr::new(203, 0, 113, 77);
    let (speaker, _task) = start(one, 65000, &[(absent, 0).into()]);
    let (other, _other_task) = start(two, 65001, &[(two, 0).into()]);
    let port = listeners(&other, &[(two, 0).into()]).await[0].bound.unwrap().port();
    let mut peer = peer("other", two, 65001, port, absent);
    peer.connect_retry = Duration::from_millis(10);
    speaker.set_peers(vec![peer.clone()]).unwrap();
    let told = |snapshot: &PeersSnapshot| {
        let reason = status(snapshot, "other").and_then(|peer| Some(&peer.last_error.as_ref()?.reason));
        reason.is_some_and(|reason| reason.contains(&format!("cannot bind to local address {absent}")))
    };
    let first = wait_for(&mut speaker.watch_peers(), "the peer's error", told).await;
    let at = |snapshot: &PeersSnapshot| status(snapshot, "other").unwrap().last_error.as_ref().unwrap().at;
    wait_for(&mut speaker.watch_peers(), "another attempt", |now| told(now) && at(now) > at(&first)).await;
    let listener = &listeners(&speaker, &[(absent, 0).into()]).await[0];
    assert!(matches!(&listener.state, ListenerState::Failed { error } if error.contains("no interface")));
    // Mended, it comes up.
    peer.local_address = Some(one.into());
    speaker.set_peers(vec![peer]).unwrap();
    let mut from = self::peer("us", one, 65000, 1, two);
    from.passive = true;
    other.set_peers(vec![from]).unwrap();
    wait_for(&mut speaker.watch_peers(), "established", is_established("other")).await;
}

#[tokio::test]
async fn a_neighbour_that_never_answers_does_not_hold_up_the_end() {
    let [one, two] = [Ipv4Addr::new(127, 0, 7, 1), Ipv4Addr::new(127, 0, 7, 2)];
    // A queue of waiting connections that is full: further SYNs are not answered.
    let silent = TcpSocket::new_v4().unwrap();
    silent.bind((two, 0).into()).unwrap();
    let silent = silent.listen(1).unwrap();
    let address = silent.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = timeout(Duration::from_secs(2), tokio::net::TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    for mode in [Shutdown::Quiet, Shutdown::Notify] {
        let (speaker, task) = start(one, 65000, &[]);
        speaker.set_peers(vec![peer("silent", two, 65001, address.port(), one)]).unwrap();
        let connecting = |snapshot: &PeersSnapshot| {
            status(snapshot, "silent").is_some_and(|peer| peer.state == State::Connect)
        };
        wait_for(&mut speaker.watch_peers(), "connecting", connecting).await;
        speaker.shutdown(mode);
        timeout(Duration::from_secs(4), task).await.unwrap_or_else(|_| panic!("{mode:?}: at once")).unwrap();
    }
}

#[tokio::test]
async fn a_session_over_ipv6_carries_both_families() {
    let localhost = Ipv6Addr::LOCALHOST;
    let (first, _first_task) = start(Ipv4Addr::new(127, 0, 8, 1), 65000, &[(localhost, 0).into()]);
    let mut second_config = config(Ipv4Addr::new(127, 0, 8, 2), 65001, &[]);
    second_config.next_hop_ipv4 = Some(Ipv4Addr::new(192, 0, 2, 8));
    let (second, _second_task) = net::spawn(second_config).unwrap();
    let port = listeners(&first, &[(localhost, 0).into()]).await[0].bound.unwrap().port();
    let mut passive = peer("second", localhost, 65001, 179, localhost);
    passive.passive = true;
    first.set_peers(vec![passive]).unwrap();
    second.set_peers(vec![peer("first", localhost, 65000, port, localhost)]).unwrap();
    second.set_routes("test", [route("2001:db8::1/128"), route("198.51.100.1/32")]);
    let complete = |snapshot: &PeersSnapshot| {
        let session = status(snapshot, "second").and_then(|peer| peer.session.as_ref());
        session.is_some_and(|session| session.families.iter().all(|family| family.received == 1))
    };
    wait_for(&mut first.watch_peers(), "a route of each family", complete).await;
}

#[tokio::test]
async fn twenty_speakers_in_one_process_do_not_know_of_each_other() {
    let hub = Ipv4Addr::new(127, 0, 9, 200);
    let (central, _central_task) = start(hub, 65000, &[(hub, 0).into()]);
    let port = listeners(&central, &[(hub, 0).into()]).await[0].bound.unwrap().port();
    let addresses: Vec<Ipv4Addr> = (1..=20).map(|host| Ipv4Addr::new(127, 0, 9, host)).collect();
    let passive = addresses.iter().map(|address| {
        let mut peer = peer(&address.to_string(), *address, 65001, 179, hub);
        peer.passive = true;
        peer
    });
    central.set_peers(passive.collect()).unwrap();
    let speakers: Vec<_> = addresses
        .iter()
        .map(|address| {
            let (speaker, task) = start(*address, 65001, &[]);
            speaker.set_peers(vec![peer("hub", hub, 65000, port, *address)]).unwrap();
            speaker.set_routes("test", [Route::new(ipnet::IpNet::from(IpAddr::from(*address)))]);
            (speaker, task)
        })
        .collect();
    let all = |snapshot: &PeersSnapshot| {
        let received = |peer: &PeerStatus| Some(peer.session.as_ref()?.families[0].received);
        snapshot.peers.values().all(|peer| received(peer) == Some(1))
    };
    wait_for(&mut central.watch_peers(), "20 sessions with a route each", all).await;
    for (speaker, task) in speakers {
        drop(speaker);
        timeout(DEADLINE, task).await.expect("ends with its handle").unwrap();
    }
    let none = |snapshot: &PeersSnapshot| snapshot.peers.values().all(|peer| peer.session.is_none());
    wait_for(&mut central.watch_peers(), "no session", none).await;
}

#[tokio::test]
async fn a_neighbour_that_comes_back_and_back_leaves_nothing_behind_and_is_served_at_the_end() {
    let [one, two] = [Ipv4Addr::new(127, 0, 10, 1), Ipv4Addr::new(127, 0, 10, 2)];
    let (speaker, _task) = start(one, 65000, &[(one, 0).into()]);
    let port = listeners(&speaker, &[(one, 0).into()]).await[0].bound.unwrap().port();
    let mut passive = peer("other", two, 65001, 179, one);
    passive.passive = true;
    passive.connect_retry = Duration::from_millis(100);
    passive.connect_retry_max = Duration::from_millis(100);
    speaker.set_peers(vec![passive]).unwrap();
    let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = files();
    // Kept open on the other side: each would linger until the speaker gives it up.
    let mut kept = Vec::new();
    for _ in 0..300 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((two, 0).into()).unwrap();
        if let Ok(mut stream) = socket.connect((one, port).into()).await {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
            kept.push(stream);
        }
    }
    let refused = |snapshot: &PeersSnapshot| snapshot.refused_connections > 200;
    wait_for(&mut speaker.watch_peers(), "most are refused", refused).await;
    // Tests beside this one have files open, too.
    let lingering = files().saturating_sub(before + kept.len());
    assert!(lingering < 150, "{lingering} connections linger");
    drop(kept);
    let (other, _other_task) = start(two, 65001, &[]);
    other.set_peers(vec![peer("us", one, 65000, port, two)]).unwrap();
    wait_for(&mut other.watch_peers(), "established", is_established("us")).await;
}

#[tokio::test]
async fn a_neighbour_that_never_reads_costs_a_bounded_backlog_and_delays_nobody() {
    let [one, two, deaf] = [1, 2, 3].map(|host| Ipv4Addr::new(127, 0, 11, host));
    let (speaker, _task) = start(one, 65000, &[(one, 0).into()]);
    let (other, _other_task) = start(two, 65001, &[]);
    let port = listeners(&speaker, &[(one, 0).into()]).await[0].bound.unwrap().port();
    let passive = |name, address, asn| {
        let mut peer = peer(name, address, asn, 179, one);
        peer.passive = true;
        peer
    };
    speaker.set_peers(vec![passive("other", two, 65001), passive("deaf", deaf, 65002)]).unwrap();
    other.set_peers(vec![peer("us", one, 65000, port, two)]).unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind((deaf, 0).into()).unwrap();
    let mut stream = socket.connect((one, port).into()).await.unwrap();
    let mut hello = bytes::BytesMut::new();
    let families = [openelb_bgp::wire::Capability::Multiprotocol(openelb_bgp::wire::Family::IPV4_UNICAST)];
    let open = Open::new(65002, 0, deaf, families);
    for message in [Message::Open(open), Message::Keepalive] {
        message.encode(&SessionContext::default(), &mut hello).unwrap();
    }
    stream.write_all(&hello).await.unwrap();
    let mut watch = speaker.watch_peers();
    wait_for(&mut watch, "both sessions", |now| is_established("other")(now) && is_established("deaf")(now))
        .await;
    // Each round changes every route: 80 x 20,000 x 5 octets, 8 MB for who reads.
    let rounds = 80;
    for round in 0..rounds {
        let attributes = Arc::new(RouteAttributes { med: Some(round), ..RouteAttributes::default() });
        let routes = (0..20_000_u32).map(|index| Route {
            attributes: Arc::clone(&attributes),
            ..Route::new(ipnet::IpNet::from(IpAddr::from(Ipv4Addr::from(0x0a00_0000 + index))))
        });
        speaker.set_routes("bulk", routes.collect::<Vec<_>>());
        let marker: ipnet::IpNet = format!("198.51.100.{round}/32").parse().unwrap();
        speaker.set_routes("marker", [Route::new(marker)]);
        let sent = timeout(DEADLINE, async {
            while !speaker.route_status(marker).await.iter().any(|route| {
                route.peers.iter().any(|(name, state)| {
                    name.as_str() == "other" && *state == openelb_bgp::speaker::Advertisement::Advertised
                })
            }) {
                tokio::task::yield_now().await;
            }
        });
        sent.await.unwrap_or_else(|_| panic!("round {round} is held up by the deaf neighbour"));
    }
    // Counters are published once a second: one that still tells of an earlier round is not meant.
    let caught_up = |snapshot: &PeersSnapshot| {
        let sent = status(snapshot, "other").map_or(0, |peer| peer.counters.sent.bytes);
        let session = status(snapshot, "other").and_then(|peer| peer.session.as_ref());
        session.is_some_and(|session| {
            session.families[0].pending == 0 && session.families[0].advertised == 20_001 && sent > 7_000_000
        })
    };
    let snapshot = wait_for(&mut watch, "the other has all", caught_up).await;
    let sent = |name| status(&snapshot, name).unwrap().counters.sent.bytes;
    // What the kernel buffers (4 MB on loopback at most, by default) and one window of ours.
    assert!(
        sent("deaf") < 5_000_000 && sent("other") > 7_000_000,
        "{} for the deaf one, {} for the other",
        sent("deaf"),
        sent("other")
    );
    drop(stream);
    let gone = |snapshot: &PeersSnapshot| status(snapshot, "deaf").is_some_and(|peer| peer.session.is_none());
    wait_for(&mut watch, "the deaf one's end", gone).await;
    let collected = timeout(DEADLINE, async {
        while speaker.table_stats().await.prefixes != 20_001 {
            tokio::task::yield_now().await;
        }
    });
    collected.await.expect("nothing is held for a neighbour that is gone");
}
