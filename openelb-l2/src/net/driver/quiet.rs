//! From the packet socket to the packet socket: a request costs no allocation and no line in the log.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tracing::{Dispatch, Event, Metadata, span};

use super::{
    super::{
        clock::Clock,
        handle::{DriverStats, WantedAddress},
        links::LinkInfo,
        packet_socket::PacketSockets,
    },
    ports::Ports,
};
use crate::{
    MacAddr, announcer, solicited_node_multicast,
    speaker::{LinkIndex, NodeName, Settings, Speaker, SpeakerConfig},
    wire::{Frame, arp, ndp},
};

const OWN: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 1]);
const CLIENT: MacAddr = MacAddr::new([2, 0xc, 0, 0, 0, 1]);
const REQUESTS: u64 = 1000;

/// Counts events and spans of every level.
#[derive(Clone, Default)]
struct Lines(Arc<AtomicUsize>);

impl Lines {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl tracing::Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        self.0.fetch_add(1, Ordering::Relaxed);
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// A driver without its loop, on the loopback.
struct Bench {
    ports: Ports,
    speaker: Speaker,
    clock: Clock,
    stats: DriverStats,
    client: PacketSockets,
}

impl Bench {
    fn new() -> Self {
        let lo = LinkIndex(nix::net::if_::if_nametoindex("lo").expect("every host has lo"));
        let clock = Clock::new();
        let mut now = clock.now();
        let node = NodeName::new("node-1").expect("a name");
        let config = SpeakerConfig::new(node, "192.0.2.1:7947".parse().expect("an address"));
        let settings = Settings { probes: 0, ..Settings::default() };
        let mut speaker = Speaker::new(config, settings, now).expect("the defaults are good");
        let mut ports = Ports::new(Vec::new());
        ports.set_table(vec![LinkInfo::new(lo, "lo", Some(OWN))]);
        let wanted = ["192.0.2.100", "2001:db8::100"].map(|text| {
            let interface = "lo".parse().expect("an interface");
            WantedAddress::new(text.parse().expect("an address"), interface)
        });
        ports.set_wanted(wanted.to_vec());
        speaker.set_peers(Vec::new(), now);
        ports.apply(&mut speaker, now);
        while let Some(at) = speaker.poll_timeout().filter(|_| !speaker.is_settled()) {
            now = at;
            speaker.handle_timeout(now);
        }
        while speaker.poll_output().is_some() || speaker.poll_event().is_some() {}
        let client = PacketSockets::open(lo).expect("needs the capability CAP_NET_RAW");
        Self { ports, speaker, clock, stats: DriverStats::default(), client }
    }

    /// Sends a frame, and has it taken in. Returns how often memory was allocated for that.
    async fn take(&mut self, frame: &Frame) -> u64 {
        let before = self.speaker.stats().frames;
        self.client.send(frame).expect("the loopback takes it");
        let mut allocations = 0;
        while self.speaker.stats().frames == before {
            let ready = poll_fn(|context| self.ports.poll_ready(context));
            tokio::time::timeout(Duration::from_secs(10), ready).await.expect("the frame comes");
            let receive = || self.ports.receive(&mut self.speaker, &self.clock, &mut self.stats);
            allocations += allocation_counter::measure(receive).count_total;
        }
        allocations
    }
}

fn questions() -> [Frame; 2] {
    let packet = arp::Packet {
        operation: arp::Operation::Request,
        sender_mac: CLIENT,
        sender_ip: [192, 0, 2, 250].into(),
        target_mac: MacAddr::default(),
        target_ip: [192, 0, 2, 100].into(),
    };
    let target = "2001:db8::100".parse().expect("an address");
    let message = ndp::Message::Solicitation(ndp::Solicitation { target, source_mac: Some(CLIENT) });
    let destination = solicited_node_multicast(target);
    let solicitation = ndp::Packet { source: "fe80::c".parse().expect("an address"), destination, message };
    [
        packet.to_frame(CLIENT, MacAddr::BROADCAST),
        solicitation.to_frame(CLIENT, MacAddr::ipv6_multicast(destination)),
    ]
}

#[tokio::test]
async fn a_request_through_the_sockets_allocates_and_logs_nothing() {
    let mut bench = Bench::new();
    let lines = Lines::default();
    let _guard = tracing::dispatcher::set_default(&Dispatch::new(lines.clone()));
    for question in questions() {
        bench.take(&question).await;
        let replies = bench.speaker.stats().replies;
        let mut allocations = 0;
        for _ in 0..REQUESTS {
            allocations += bench.take(&question).await;
        }
        assert_eq!(bench.speaker.stats().replies - replies, REQUESTS);
        assert_eq!((allocations, bench.stats.unsent), (0, 0));
    }
    // What a stranger claims, again and again, is told of once, and not here.
    let stranger = MacAddr::new([2, 0xee, 0, 0, 0, 1]);
    for address in ["192.0.2.100", "2001:db8::100"] {
        for frame in announcer::announcement(address.parse().expect("an address"), stranger) {
            for _ in 0..REQUESTS {
                bench.take(&frame).await;
            }
        }
    }
    assert!(bench.speaker.stats().conflicts >= 2 * REQUESTS);
    assert_eq!(lines.count(), 0);
    tracing::trace!("the counter counts");
    assert_eq!(lines.count(), 1);
    assert_ne!(
        allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1)))).count_total,
        0,
        "and the other, too"
    );
}
