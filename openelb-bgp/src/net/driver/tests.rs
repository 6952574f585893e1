//! The driver without sockets: what it does when the machine that it drives has a bug.

use bytes::BytesMut;
use tokio::sync::Semaphore;

use super::*;
use crate::{
    fsm::State,
    speaker::{PeerConfig, PeerStatus},
    wire::{Capability, Family, Message, Open, SessionContext},
};

const NAMES: [&str; 2] = ["bad", "good"];
/// What the machine has a bug with, in tests.
const BUG: &[u8] = b"a bug";

struct Bench {
    driver: Driver,
    _handle: SpeakerHandle,
}

impl Bench {
    fn new() -> Self {
        let (mut driver, handle) =
            Driver::new(SpeakerConfig::new(65000, [192, 0, 2, 10].into()), false).unwrap();
        let peers = NAMES.iter().enumerate().map(|(index, name)| {
            let mut peer = PeerConfig::new(*name, address(index), 65001);
            (peer.passive, peer.hold_time) = (true, Duration::ZERO);
            peer
        });
        driver.speaker.set_peers(peers.collect(), Instant::now()).unwrap();
        driver.pump(Instant::now());
        Self { driver, _handle: handle }
    }

    fn received(&mut self, connection: ConnectionId, bytes: &[u8]) {
        let permits = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&permits).try_acquire_owned().unwrap();
        self.driver.handle(IoEvent::Received { connection, bytes: bytes.into(), permit });
        assert_eq!(permits.available_permits(), 1, "its reader goes on");
        self.driver.pump(Instant::now());
    }

    /// `None`: it is refused.
    fn establish(&mut self, index: usize) -> Option<ConnectionId> {
        let info = ConnectionInfo {
            local: SocketAddr::from(([192, 0, 2, 10], 179)),
            remote: SocketAddr::new(address(index), 40_000),
        };
        let connection = self.driver.speaker.accept(info, Instant::now()).ok()?.connection;
        self.driver.speaker.handle_connected(connection, info, Instant::now());
        let families = [Capability::Multiprotocol(Family::IPV4_UNICAST)];
        let open = Open::new(65001, 0, [192, 0, 2, 1].into(), families);
        for message in [Message::Open(open), Message::Keepalive] {
            let mut bytes = BytesMut::new();
            message.encode(&SessionContext::default(), &mut bytes).unwrap();
            self.received(connection, &bytes);
        }
        assert_eq!(self.status(index).state, State::Established);
        Some(connection)
    }

    fn status(&self, index: usize) -> PeerStatus {
        self.driver.speaker.peers().peers[&NAMES[index].into()].clone()
    }
}

fn address(index: usize) -> std::net::IpAddr {
    [192, 0, 2, u8::try_from(index).unwrap() + 1].into()
}

#[tokio::test]
async fn a_bug_in_one_neighbours_input_ends_its_session_alone_and_it_comes_back_after_a_growing_pause() {
    let mut bench = Bench::new();
    let good = bench.establish(1).unwrap();
    let mut pauses = Vec::new();
    for bugs in 1..=4 {
        let bad = bench.establish(0).expect("the pause is over");
        bench.received(bad, BUG);
        let status = bench.status(0);
        assert_eq!((status.state, status.session), (State::Idle, None));
        assert_eq!((status.counters.internal_errors, status.counters.dropped), (bugs, bugs));
        assert!(status.last_error.unwrap().reason.contains("bug"));
        // What the dead connection still says is nobody's.
        bench.received(bad, BUG);
        assert_eq!(bench.establish(0), None, "it pauses");
        let at = bench.driver.speaker.poll_timeout().unwrap();
        pauses.push(at.saturating_duration_since(Instant::now()));
        bench.driver.contain(|driver| driver.speaker.handle_timeout(at));
        bench.driver.pump(at);
    }
    assert!(pauses.windows(2).all(|pair| pair[1] > pair[0].mul_f64(1.3)), "{pauses:?}");
    assert!(pauses[0] <= Duration::from_secs(1), "{pauses:?}");
    assert_eq!((bench.status(1).state, bench.status(1).counters.dropped), (State::Established, 0));
    bench.received(good, &[&[0xff; 16][..], &[0, 19, 4]].concat());
    assert_eq!(bench.status(1).counters.received.keepalive, 2, "and the other one is still heard");
}

#[tokio::test]
async fn a_bug_that_may_have_torn_what_neighbours_share_ends_the_task_and_lets_nobody_wait() {
    let (mut driver, handle) = Driver::new(SpeakerConfig::new(65000, [192, 0, 2, 10].into()), false).unwrap();
    let outcome = catch_unwind(AssertUnwindSafe(|| driver.contain(|_| panic!("on purpose"))));
    assert!(outcome.is_err(), "it is not swallowed");
    drop(driver);
    assert_eq!(handle.query(|speaker| speaker.config().asn).await, None);
}
