//! Whoever asks.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use openelb_l2::{
    MacAddr, solicited_node_multicast,
    wire::{Frame, arp, ndp},
};
use openelb_lab::wire::{self, BATCH, Wire};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Requests that wait for their answers.
const WINDOW: u64 = 256;
/// Paced requests that come together: at such a rate a network card interrupts ten thousand times a second, not with each
/// frame. Here each wake-up of the other core is an interrupt that a hypervisor delivers, and with one for each frame that
/// was what was measured: half of the core's time, of which nothing was the responder's own.
const MODERATION: u64 = 10;
/// Whatever was not answered by then is lost.
const PATIENCE: Duration = Duration::from_millis(300);

/// How fast.
#[derive(Clone, Copy)]
pub(super) enum Flood {
    /// As fast as answers come: [`WINDOW`] requests wait for theirs.
    AsAnswered,
    /// So many a second, [`MODERATION`] at a time.
    Paced(u32),
}

/// What came of a flood.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) asked: u64,
    pub(super) answered: u64,
    pub(super) lost: u64,
    pub(super) took: Duration,
}

impl Seen {
    pub(super) fn per_second(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64()
    }
}

/// A client on a core of its own.
pub(super) struct Asker {
    wire: Wire,
    requests: Vec<Frame>,
    /// Where the operation or ICMPv6 type of a frame is, and its value in an answer.
    answer: (usize, u8),
}

impl Asker {
    /// Opens `eth0` of the calling thread's network, and keeps the thread on a core.
    pub(super) fn open(addresses: &[IpAddr], core: usize) -> anyhow::Result<Self> {
        pin(core)?;
        let six = addresses.first().context("no address")?.is_ipv6();
        let wire = Wire::open("eth0", if six { wire::IPV6 } else { wire::ARP })?;
        let mac = MacAddr::new(wire.mac());
        let requests = addresses.iter().map(|address| request(*address, mac)).collect();
        Ok(Self { wire, requests, answer: if six { (54, 136) } else { (21, 2) } })
    }

    /// Asks for the addresses in turn, for so long.
    pub(super) fn flood(&mut self, how: Flood, time: Duration) -> anyhow::Result<Seen> {
        let requests = std::mem::take(&mut self.requests);
        let mut next = requests.iter().cycle();
        let (mut asked, mut answered, mut lost) = (0_u64, 0_u64, 0_u64);
        let start = Instant::now();
        let mut heard = start;
        while start.elapsed() < time {
            let due = match how {
                Flood::AsAnswered => WINDOW.saturating_sub(asked - answered - lost),
                Flood::Paced(pace) => {
                    let due = start.elapsed().as_secs_f64() * f64::from(pace);
                    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
                    let due = (due as u64).saturating_sub(asked);
                    if due < MODERATION { 0 } else { due }
                }
            };
            let batch = usize::try_from(due).unwrap_or(BATCH).min(BATCH);
            if batch > 0 {
                let frames = next.by_ref().take(batch).map(Frame::as_bytes);
                asked += self.wire.send_batch(frames) as u64;
            }
            let answers = self.answers();
            answered += answers;
            if answers > 0 {
                heard = Instant::now();
            } else if matches!(how, Flood::AsAnswered) && heard.elapsed() > PATIENCE {
                lost = asked - answered;
                heard = Instant::now();
            }
        }
        let took = start.elapsed();
        // Those under way count, and their time does not: there are few.
        let end = Instant::now();
        while asked - lost > answered && end.elapsed() < PATIENCE {
            answered += self.answers();
        }
        self.requests = requests;
        ensure!(asked > 0, "the kernel took no request");
        Ok(Seen { asked, answered, lost: asked.saturating_sub(answered), took })
    }

    /// Asks now and then, and says within how many microseconds half of the answers came.
    pub(super) fn idle(&mut self, samples: usize) -> anyhow::Result<f64> {
        let requests = std::mem::take(&mut self.requests);
        let mut times = Vec::with_capacity(samples);
        for request in requests.iter().cycle().take(samples) {
            std::thread::sleep(Duration::from_micros(1500));
            let start = Instant::now();
            self.wire.send(request)?;
            while self.answers() == 0 {
                ensure!(start.elapsed() < PATIENCE, "a request on an idle link was not answered");
            }
            times.push(start.elapsed());
        }
        self.requests = requests;
        times.sort_unstable();
        Ok(times.get(samples / 2).context("no sample")?.as_secs_f64() * 1e6)
    }

    fn answers(&mut self) -> u64 {
        let (offset, value) = self.answer;
        let mut answers = 0;
        self.wire.receive_batch(|frame| answers += u64::from(frame.get(offset) == Some(&value)));
        answers
    }
}

/// Keeps the calling thread, and those that it starts, on a core.
pub(super) fn pin(core: usize) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    let mut set = CpuSet::new();
    set.set(core.min(cores - 1));
    Ok(sched_setaffinity(None, &set)?)
}

/// The question of a client whose cache is empty.
fn request(address: IpAddr, mac: MacAddr) -> Frame {
    match address {
        IpAddr::V4(target_ip) => {
            let operation = arp::Operation::Request;
            let sender_ip = Ipv4Addr::new(10, 77, 0, 1);
            let target_mac = MacAddr::default();
            arp::Packet { operation, sender_mac: mac, sender_ip, target_mac, target_ip }
                .to_frame(mac, MacAddr::BROADCAST)
        }
        IpAddr::V6(target) => {
            let source = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 1);
            let destination = solicited_node_multicast(target);
            let message = ndp::Message::Solicitation(ndp::Solicitation { target, source_mac: Some(mac) });
            ndp::Packet { source, destination, message }.to_frame(mac, MacAddr::ipv6_multicast(destination))
        }
    }
}
