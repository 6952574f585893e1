//! A neighbour that sends what it must not: each session ends, or goes on, as the RFC says; the others see nothing of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real sockets live in real time")]
#![cfg(feature = "tokio")]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use openelb_bgp::{
    net::{self, SpeakerHandle},
    speaker::{PeerConfig, PeersSnapshot, Route, SpeakerConfig},
    wire::{Capability, Family, Message, Notification, NotificationCode, Open, SessionContext, frame},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
    time::timeout,
};

const DEADLINE: Duration = Duration::from_secs(20);
const BAD: Ipv4Addr = Ipv4Addr::new(127, 0, 3, 2);
const GOOD: Ipv4Addr = Ipv4Addr::new(127, 0, 3, 3);

/// A neighbour that does what the test says.
struct Script {
    stream: TcpStream,
    buffer: BytesMut,
    context: SessionContext,
}

impl Script {
    /// `None`: reset while it was being opened.
    async fn try_connect(from: Ipv4Addr, to: SocketAddr) -> Option<Self> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind((from, 0).into()).unwrap();
        let stream = timeout(DEADLINE, socket.connect(to)).await.unwrap().ok()?;
        Some(Self { stream, buffer: BytesMut::new(), context: SessionContext::default() })
    }

    /// Whether the speaker has not closed it, as far as is known.
    fn is_open(&mut self) -> bool {
        loop {
            match self.stream.try_read_buf(&mut self.buffer) {
                Ok(1..) => {}
                Ok(0) => return false,
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        timeout(DEADLINE, self.stream.write_all(bytes)).await.expect("the speaker reads").unwrap();
    }

    /// The next message; `None`: the connection is closed.
    async fn receive(&mut self) -> Option<Message> {
        loop {
            if let Some(length) = frame(&self.buffer, self.context.max_message_len()).unwrap() {
                let message = Message::decode(&self.buffer[..length], &self.context).unwrap();
                self.buffer.advance(length);
                return Some(message);
            }
            let read =
                timeout(DEADLINE, self.stream.read_buf(&mut self.buffer)).await.expect("no message in time");
            if !matches!(read, Ok(1..)) {
                return None;
            }
        }
    }

    /// Connects, and brings a session up. Waits for the speaker's pause after the error before, if there was one.
    async fn establish(from: Ipv4Addr, to: SocketAddr) -> Self {
        let began = Instant::now();
        loop {
            if let Some(mut script) = Self::try_connect(from, to).await
                && let Some(Message::Open(_)) = script.receive().await
            {
                script.send(&message(open())).await;
                script.send(&message(Message::Keepalive)).await;
                assert_eq!(script.receive().await, Some(Message::Keepalive));
                return script;
            }
            assert!(began.elapsed() < DEADLINE, "{from} is not let in");
            tokio::task::yield_now().await;
        }
    }

    /// The NOTIFICATION that ends the session; the connection must be closed after it.
    async fn notification(&mut self) -> Notification {
        loop {
            match self.receive().await.expect("closed without a NOTIFICATION") {
                Message::Notification(notification) => {
                    assert_eq!(self.receive().await, None, "something after the NOTIFICATION");
                    return notification;
                }
                Message::Keepalive | Message::Update(_) | Message::RouteRefresh(_) => {}
                message @ Message::Open(_) => panic!("{message:?}"),
            }
        }
    }

    /// The speaker answers a route refresh with its routes: the session lives.
    async fn is_alive(&mut self) {
        self.send(&[&[0xff; 16][..], &[0, 23, 5, 0, 1, 0, 1]].concat()).await;
        loop {
            match self.receive().await.expect("closed") {
                Message::Update(_) => return,
                Message::Keepalive | Message::RouteRefresh(_) => {}
                message => panic!("{message:?}"),
            }
        }
    }
}

fn open() -> Open {
    let capabilities = [Capability::Multiprotocol(Family::IPV4_UNICAST), Capability::RouteRefresh];
    Open::new(64999, 90, Ipv4Addr::new(192, 0, 2, 99), capabilities)
}

fn message(message: impl Into<Message>) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    message.into().encode(&SessionContext::default(), &mut bytes).unwrap();
    bytes.to_vec()
}

/// A message of any type with any body, with a right length.
fn raw(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap().to_be_bytes();
    [&[0xff; 16], &length[..], &[kind], body].concat()
}

/// An UPDATE with these attributes and one prefix.
fn update(attributes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(attributes.len()).unwrap().to_be_bytes();
    raw(2, &[&[0, 0], &length[..], attributes, &[32, 203, 0, 113, 7]].concat())
}

const ORIGIN: [u8; 4] = [0x40, 1, 1, 0];
const AS_PATH: [u8; 9] = [0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe7];
const NEXT_HOP: [u8; 7] = [0x40, 3, 4, 192, 0, 2, 99];

fn attributes(more: &[u8]) -> Vec<u8> {
    [&ORIGIN[..], &AS_PATH, &NEXT_HOP, more].concat()
}

struct Setup {
    speaker: SpeakerHandle,
    task: JoinHandle<()>,
    address: SocketAddr,
}

impl Setup {
    /// A speaker that only accepts, on an address of its own, with two neighbours and one route.
    async fn new(last: u8) -> Self {
        let mut config = SpeakerConfig::new(64500, Ipv4Addr::new(192, 0, 2, 1));
        config.listen = vec![(Ipv4Addr::new(127, 0, 3, last), 0).into()];
        let (speaker, task) = net::spawn(config).unwrap();
        let peers = [("bad", BAD), ("good", GOOD)].map(|(name, address)| {
            let mut peer = PeerConfig::new(name, IpAddr::V4(address), 64999);
            peer.passive = true;
            peer.connect_retry = Duration::from_millis(10);
            peer.connect_retry_max = Duration::from_millis(20);
            peer
        });
        speaker.set_peers(peers.into()).unwrap();
        speaker.set_routes("test", [route(1)]);
        let mut watch = speaker.watch_peers();
        let bound = |snapshot: &PeersSnapshot| snapshot.listeners.iter().find_map(|listener| listener.bound);
        let snapshot =
            timeout(DEADLINE, watch.wait_for(|s| bound(s).is_some())).await.unwrap().unwrap().clone();
        Self { speaker, task, address: bound(&snapshot).unwrap() }
    }

    async fn bad(&self) -> Script {
        Script::establish(BAD, self.address).await
    }

    async fn good(&self) -> Script {
        Script::establish(GOOD, self.address).await
    }
}

fn route(number: u32) -> Route {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + number);
    let mut route = Route::new(ipnet::IpNet::from(IpAddr::V4(address)));
    route.next_hop = openelb_bgp::speaker::NextHop::Address(Ipv4Addr::new(192, 0, 2, 1).into());
    route
}

/// Code, subcode and data of a NOTIFICATION; `None`: the session goes on.
type Answer = Option<(NotificationCode, u8, Option<Vec<u8>>)>;

/// RFC 4271 §6.1 to §6.3 and RFC 7606: what the neighbour sends in an established session, and how it is answered:
/// code, subcode and data, or `None`, where the session goes on.
#[tokio::test]
async fn malformed_messages_end_the_session_as_the_rfc_says_or_not_at_all() {
    use NotificationCode::{FiniteStateMachine, MessageHeader, Update as UpdateMessage};
    let mut marker = raw(4, &[]);
    marker[3] = 0;
    let length = |octets: u16, kind: u8| [&[0xff; 16][..], &octets.to_be_bytes(), &[kind]].concat();
    let header = |subcode, data: &[u8]| Some((MessageHeader, subcode, Some(data.to_vec())));
    let end = |code, subcode| Some((code, subcode, None));
    let cases: Vec<(&str, Vec<u8>, Answer)> = vec![
        ("marker", marker, header(1, &[])),
        ("length 18", length(18, 4), header(2, &[0, 18])),
        ("length 4097", length(4097, 2), header(2, &[0x10, 1])),
        ("KEEPALIVE with a body", raw(4, &[0]), header(2, &[0, 20])),
        ("UPDATE too short", raw(2, &[0, 0, 0]), header(2, &[0, 22])),
        ("NOTIFICATION too short", raw(3, &[6]), header(2, &[0, 20])),
        ("type 9", raw(9, &[]), header(3, &[9])),
        ("OPEN again", message(open()), end(FiniteStateMachine, 3)),
        ("withdrawn length over the end", raw(2, &[0xff, 0xff, 0, 0]), end(UpdateMessage, 1)),
        ("attributes length over the end", raw(2, &[0, 0, 0xff, 0xf0]), end(UpdateMessage, 1)),
        ("prefix of 33 bits", raw(2, &[0, 2, 33, 1, 0, 0]), end(UpdateMessage, 10)),
        ("MP_REACH cut off", update(&attributes(&[0x80, 14, 2, 0, 2])), end(UpdateMessage, 9)),
        (
            "MP_REACH twice",
            update(&attributes(&[0x80, 15, 3, 0, 2, 1, 0x80, 15, 3, 0, 2, 1])),
            end(UpdateMessage, 1),
        ),
        ("ORIGIN 3", update(&[&[0x40, 1, 1, 3], &AS_PATH[..], &NEXT_HOP].concat()), None),
        ("ORIGIN of two octets", update(&[&[0x40, 1, 2, 0, 0], &AS_PATH[..], &NEXT_HOP].concat()), None),
        ("AS_PATH over its end", update(&[&ORIGIN[..], &[0x40, 2, 2, 2, 9], &NEXT_HOP].concat()), None),
        ("NEXT_HOP of three octets", update(&[&ORIGIN[..], &AS_PATH, &[0x40, 3, 3, 1, 2, 3]].concat()), None),
        ("no ORIGIN", update(&[&AS_PATH[..], &NEXT_HOP].concat()), None),
        ("no attributes at all", update(&[]), None),
        ("attribute over the end", update(&[&ORIGIN[..], &[0x40, 2, 200, 1]].concat()), None),
        ("MED of five octets", update(&attributes(&[0x80, 4, 5, 0, 0, 0, 0, 1])), None),
        ("ATOMIC_AGGREGATE with a value", update(&attributes(&[0x40, 6, 1, 0])), None),
        ("AGGREGATOR of three octets", update(&attributes(&[0xc0, 7, 3, 0, 0, 0])), None),
        ("communities of three octets", update(&attributes(&[0xc0, 8, 3, 0, 0, 0])), None),
        (
            "large communities of eleven octets",
            update(&attributes(&[&[0xc0, 32, 11][..], &[0; 11]].concat())),
            None,
        ),
        ("flags of ORIGIN", update(&[&[0xc0, 1, 1, 0], &AS_PATH[..], &NEXT_HOP].concat()), None),
        ("ORIGIN twice", update(&attributes(&ORIGIN)), None),
        ("unknown transitive attribute", update(&attributes(&[0xc0, 200, 2, 1, 2])), None),
        ("route refresh of an unknown family", raw(5, &[0, 99, 0, 99]), None),
    ];
    let setup = Setup::new(1).await;
    let mut good = setup.good().await;
    for (name, bytes, answer) in cases {
        let mut bad = setup.bad().await;
        bad.send(&bytes).await;
        match answer {
            Some((code, subcode, data)) => {
                let told = bad.notification().await;
                assert_eq!((told.code, told.subcode), (code, subcode), "{name}: {told}");
                if let Some(data) = data {
                    assert_eq!(told.data, data, "{name}");
                }
            }
            None => bad.is_alive().await,
        }
    }
    good.is_alive().await;
    assert!(!setup.task.is_finished());
}

#[tokio::test]
async fn opens_that_do_not_fit_are_refused_as_the_rfc_says() {
    let setup = Setup::new(4).await;
    let mut version = message(open());
    version[19] = 3;
    let changed = |change: fn(&mut Open)| {
        let mut open = open();
        change(&mut open);
        message(open)
    };
    let wrong_as = Open::new(64998, 90, Ipv4Addr::new(192, 0, 2, 99), open().capabilities.split_off(1));
    let cases = [
        ("version 3", version, Notification::unsupported_version()),
        ("another AS", message(wrong_as), Notification::bad_peer_as()),
        (
            "identifier 0",
            changed(|open| open.router_id = Ipv4Addr::UNSPECIFIED),
            Notification::bad_router_id(),
        ),
        ("hold time 2", changed(|open| open.hold_time = 2), Notification::unacceptable_hold_time()),
        (
            "an unknown parameter",
            raw(1, &[4, 0xfd, 0xe7, 0, 90, 192, 0, 2, 99, 3, 7, 1, 0]),
            Notification::unsupported_parameter(),
        ),
        (
            "parameters over the end",
            raw(1, &[4, 0xfd, 0xe7, 0, 90, 192, 0, 2, 99, 9]),
            Notification::malformed_open(),
        ),
        (
            "KEEPALIVE first",
            message(Message::Keepalive),
            Notification::unexpected_message(1, openelb_bgp::wire::MessageKind::Keepalive),
        ),
    ];
    for (name, bytes, expected) in cases {
        let began = Instant::now();
        let told = loop {
            // In the pause after the error before it is refused without a word.
            if let Some(mut bad) = Script::try_connect(BAD, setup.address).await
                && let Some(Message::Open(_)) = bad.receive().await
            {
                bad.send(&bytes).await;
                break bad.notification().await;
            }
            assert!(began.elapsed() < DEADLINE, "{name}: not let in");
            tokio::task::yield_now().await;
        };
        assert_eq!(told, expected, "{name}");
    }
    setup.bad().await.is_alive().await; // it comes back when it has mended its ways
}

/// Sources that are not configured are closed unread; one that is may have one connection that says nothing, and
/// another neighbour is let in meanwhile.
#[tokio::test]
async fn strangers_and_silent_connections_keep_nobody_out() {
    let setup = Setup::new(5).await;
    for last in 20..60 {
        // Closed, while it is being opened or later; never answered.
        if let Some(mut stranger) = Script::try_connect(Ipv4Addr::new(127, 0, 3, last), setup.address).await {
            let _ = stranger.stream.write_all(&message(open())).await;
            assert!(stranger.receive().await.is_none());
        }
    }
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.extend(Script::try_connect(BAD, setup.address).await);
    }
    let mut good = setup.good().await;
    good.is_alive().await;
    // One that is spoken with, and one that may be the neighbour after a restart.
    let most = async {
        while silent.iter_mut().map(Script::is_open).filter(|open| *open).count() > 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, most).await.expect("one source holds two connections at most");
    drop(silent);
    setup.bad().await.is_alive().await;
}

/// Floods of every kind while another neighbour gets a new route.
#[tokio::test]
async fn floods_delay_nobody_else() {
    let setup = Setup::new(6).await;
    let mut good = setup.good().await;
    good.is_alive().await;
    let floods: [(&str, Vec<u8>); 4] = [
        ("keepalives", raw(4, &[]).repeat(1000)),
        ("updates", update(&attributes(&[])).repeat(1000)),
        ("malformed updates", update(&[]).repeat(1000)),
        ("route refreshes", raw(5, &[0, 1, 0, 1]).repeat(1000)),
    ];
    for (number, (name, flood)) in (10_u32..).zip(floods) {
        let bad = setup.bad().await;
        let flooding = tokio::spawn(async move {
            let (mut read, mut write) = bad.stream.into_split();
            let drain = tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
            for _ in 0..200 {
                if timeout(DEADLINE, write.write_all(&flood)).await.expect("it is read").is_err() {
                    break;
                }
            }
            drain.abort();
        });
        let asked = Instant::now();
        setup.speaker.set_routes("test", [route(1), route(number)]);
        loop {
            if let Some(Message::Update(update)) = good.receive().await
                && update
                    .announcements()
                    .any(|(_, list)| list.iter().any(|nlri| nlri.prefix == prefix(number)))
            {
                break;
            }
        }
        assert!(
            asked.elapsed() < Duration::from_secs(10),
            "{name}: the other neighbour waited {:?}",
            asked.elapsed()
        );
        flooding.await.unwrap();
        good.is_alive().await;
    }
}

fn prefix(number: u32) -> openelb_bgp::wire::Prefix {
    route(number).prefix.into()
}

/// A message that stops in the middle, byte by byte or for good, holds up only its own session.
#[tokio::test]
async fn a_message_that_stops_in_the_middle_holds_up_only_its_own_session() {
    let setup = Setup::new(7).await;
    let mut bad = setup.bad().await;
    let bytes = update(&attributes(&[]));
    bad.send(&bytes[..30]).await;
    let mut good = setup.good().await;
    good.is_alive().await;
    for byte in &bytes[30..] {
        bad.send(&[*byte]).await;
    }
    bad.is_alive().await;
    let mut watch = setup.speaker.watch_peers();
    let counted = |snapshot: &PeersSnapshot| {
        let sessions = snapshot.peers.values().filter_map(|peer| peer.session.as_ref());
        sessions.flat_map(|session| &session.families).map(|family| family.received).sum::<u64>() == 1
    };
    timeout(DEADLINE, watch.wait_for(|snapshot| counted(snapshot))).await.expect("its one prefix").unwrap();
}
