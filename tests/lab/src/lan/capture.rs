//! Who answers for which address, request by request.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use openelb_l2::{
    MacAddr, solicited_node_multicast,
    wire::{arp, ethernet, ndp},
};
use socket2::Socket;

pub(super) use super::socket::now;
use super::{CLIENT, FABRIC, Plan, node, socket};
use crate::Lab;

/// Who answered so long ago may not answer any more.
const RECENT: Duration = Duration::from_millis(200);
/// An answer that takes longer is none.
const LATE: Duration = Duration::from_millis(100);
/// An owner that hears a claim may answer for so long.
const OVERLAP: Duration = Duration::from_millis(50);
/// Two that claim by turns may go on for so long.
pub(super) const TURNS: Duration = Duration::from_millis(300);

/// Frames are stamped at different ports: so long they may be on their way.
const SLACK: u64 = 5_000_000;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When it left the port of who gave it; nanoseconds since the epoch.
    pub at: u64,
    /// The host that gave it.
    pub from: String,
    /// What it says.
    pub mac: MacAddr,
}

/// A question with its answers.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When it left the client's port; nanoseconds since the epoch.
    pub at: u64,
    /// In the order in which they came.
    pub answers: Vec<Answer>,
}

/// An unasked announcement that came to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// When it came; nanoseconds since the epoch.
    pub at: u64,
    /// What it says.
    pub mac: MacAddr,
}

/// A question that was answered by the wrong one, or by two.
#[derive(Clone, Debug)]
pub struct Double {
    /// What was asked for.
    pub address: IpAddr,
    /// How long after the claim of the new owner it was asked.
    pub after: Duration,
    /// Who had claimed.
    pub claimed: MacAddr,
    /// Who answered.
    pub answers: Vec<Answer>,
}

#[derive(Debug, Default)]
struct Seen {
    asked: HashMap<IpAddr, Vec<(u32, Asked)>>,
    claimed: HashMap<IpAddr, Vec<Claimed>>,
}

/// Asks for every address, every 10 ms unless the plan says otherwise, and records what is asked, answered and claimed.
#[derive(Debug)]
pub struct Capture {
    seen: Arc<Mutex<Seen>>,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// What is older says nothing of now.
    recent: Duration,
}

/// Questions are numbered in the address of who asks: 10.0.0.0/8 and fe80::5eed:0:0/96, which nobody has.
fn asks_v4(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 | (number & 0x00ff_ffff))
}

fn number_v4(address: Ipv4Addr) -> Option<u32> {
    (address.octets()[0] == 10).then(|| address.to_bits() & 0x00ff_ffff)
}

const ASKS_V6: u128 = 0xfe80_0000_0000_0000_0000_5eed_0000_0000;

fn asks_v6(number: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(ASKS_V6 | u128::from(number))
}

fn number_v6(address: Ipv6Addr) -> Option<u32> {
    let bits = address.to_bits();
    (bits >> 32 == ASKS_V6 >> 32).then(|| u32::try_from(bits & 0xffff_ffff).unwrap_or_default())
}

fn question(address: IpAddr, number: u32, mac: MacAddr) -> openelb_l2::wire::Frame {
    match address {
        IpAddr::V4(target_ip) => arp::Packet {
            operation: arp::Operation::Request,
            sender_mac: mac,
            sender_ip: asks_v4(number),
            target_mac: MacAddr::default(),
            target_ip,
        }
        .to_frame(mac, MacAddr::BROADCAST),
        IpAddr::V6(target) => {
            let destination = solicited_node_multicast(target);
            let message = ndp::Message::Solicitation(ndp::Solicitation { target, source_mac: Some(mac) });
            ndp::Packet { source: asks_v6(number), destination, message }
                .to_frame(mac, MacAddr::ipv6_multicast(destination))
        }
    }
}

enum What {
    Asked(u32),
    Answered(u32, MacAddr),
    Claimed(MacAddr),
}

fn read(frame: &[u8]) -> Option<(IpAddr, What)> {
    let (header, payload) = ethernet::Header::decode(frame).ok()?;
    if header.ethertype == ethernet::ETHERTYPE_ARP {
        let packet = arp::Packet::decode(payload).ok()?;
        return match packet.operation {
            _ if packet.sender_ip == packet.target_ip => {
                Some((packet.sender_ip.into(), What::Claimed(packet.sender_mac)))
            }
            arp::Operation::Request => {
                Some((packet.target_ip.into(), What::Asked(number_v4(packet.sender_ip)?)))
            }
            arp::Operation::Reply => Some((
                packet.sender_ip.into(),
                What::Answered(number_v4(packet.target_ip)?, packet.sender_mac),
            )),
        };
    }
    let packet = ndp::Packet::decode(payload).ok()?;
    match packet.message {
        ndp::Message::Solicitation(one) => Some((one.target.into(), What::Asked(number_v6(packet.source)?))),
        ndp::Message::Advertisement(one) => {
            let mac = one.target_mac.unwrap_or(header.source);
            let what = match number_v6(packet.destination) {
                Some(number) => What::Answered(number, mac),
                None if packet.destination == ndp::ALL_NODES => What::Claimed(mac),
                None => return None,
            };
            Some((one.target.into(), what))
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    fn record(&mut self, at: u64, from: &str, address: IpAddr, what: What) {
        match what {
            What::Asked(number) if from == CLIENT => {
                self.asked.entry(address).or_default().push((number, Asked { at, answers: Vec::new() }));
            }
            What::Asked(_) => {}
            What::Answered(number, mac) => {
                let asked = self.asked.entry(address).or_default();
                // They grow, but for what the kernel saw in another order.
                if let Some((_, one)) = asked.iter_mut().rev().find(|(of, _)| *of == number) {
                    one.answers.push(Answer { at, from: from.to_owned(), mac });
                }
            }
            What::Claimed(_) => {}
        }
    }

    fn claim(&mut self, at: u64, address: IpAddr, mac: MacAddr) {
        self.claimed.entry(address).or_default().push(Claimed { at, mac });
    }
}

impl Capture {
    pub(super) fn start(lab: &Lab, plan: &Plan, addresses: &[IpAddr]) -> anyhow::Result<Self> {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let end: Arc<AtomicBool> = Arc::default();
        let mut ports = HashMap::new();
        for host in (1..=plan.nodes).map(node).chain([CLIENT.to_owned()]) {
            let index = lab.run(FABRIC, &["cat", &format!("/sys/class/net/{host}/ifindex")])?;
            ports.insert(index.trim().parse::<usize>().context("no index")?, host);
        }
        let sniffer = lab.within(FABRIC, socket::sniffer)??;
        let (sender, mac) = lab.within(CLIENT, || socket::sender("eth0"))??;
        let recent = RECENT.max(3 * plan.interval);
        let mut capture = Self { seen, end, threads: Vec::new(), recent };
        // What hosts emit at their ports, but who claims is heard where the client is: a node that is cut off may claim.
        capture.sniff(sniffer, Some(ports));
        let sniffer = lab.within(CLIENT, socket::sniffer)??;
        capture.sniff(sniffer, None);
        let (end, addresses, interval) = (Arc::clone(&capture.end), addresses.to_vec(), plan.interval);
        capture.threads.push(std::thread::spawn(move || {
            socket::hurry();
            let mut number: u32 = 0;
            let mut due = std::time::Instant::now();
            while !end.load(Ordering::Relaxed) {
                for address in &addresses {
                    number = number.wrapping_add(1) & 0x00ff_ffff;
                    let _ = sender.send(question(*address, number, mac).as_bytes());
                }
                due = (due + interval).max(std::time::Instant::now());
                std::thread::sleep(due.saturating_duration_since(std::time::Instant::now()));
            }
        }));
        Ok(capture)
    }

    /// Records what comes in on a host's interfaces. `ports` names what is plugged in at
    /// each; without it only claims count.
    fn sniff(&mut self, socket: Socket, ports: Option<HashMap<usize, String>>) {
        let (seen, end) = (Arc::clone(&self.seen), Arc::clone(&self.end));
        self.threads.push(std::thread::spawn(move || {
            socket::hurry();
            let mut octets = [0; 128];
            while !end.load(Ordering::Relaxed) {
                let Ok((length, at, link)) = socket::frame(&socket, &mut octets) else { continue };
                let Some((address, what)) = octets.get(..length).and_then(read) else { continue };
                match (&ports, what) {
                    (None, What::Claimed(mac)) => lock(&seen).claim(at, address, mac),
                    (Some(ports), what) => {
                        if let Some(host) = ports.get(&link.ifindex()) {
                            lock(&seen).record(at, host, address, what);
                        }
                    }
                    (None, _) => {}
                }
            }
        }));
    }

    /// Forgets what was seen before the last second, but for who claimed last.
    pub fn forget(&self) {
        let before = now().saturating_sub(1_000_000_000);
        let mut seen = lock(&self.seen);
        for asked in seen.asked.values_mut() {
            asked.retain(|(_, one)| one.at >= before);
        }
        for claimed in seen.claimed.values_mut() {
            let last = claimed.iter().rposition(|one| one.at < before).unwrap_or(0);
            claimed.drain(..last);
        }
    }

    /// The last answer for an address, if it was within 200 ms, or three questions.
    pub fn last_answer(&self, address: IpAddr) -> Option<Answer> {
        let since = now().saturating_sub(socket::nanoseconds(self.recent));
        let seen = lock(&self.seen);
        let asked = seen.asked.get(&address)?.iter().rev().take_while(|(_, one)| one.at >= since);
        asked.filter_map(|(_, one)| one.answers.last()).max_by_key(|answer| answer.at).cloned()
    }

    /// What was asked for an address since then, nanoseconds since the epoch.
    pub fn asked_since(&self, address: IpAddr, since: u64) -> Vec<Asked> {
        let seen = lock(&self.seen);
        let asked = seen.asked.get(&address).into_iter().flatten();
        asked.filter(|(_, one)| one.at >= since).map(|(_, one)| one.clone()).collect()
    }

    /// Who claimed an address since then, nanoseconds since the epoch.
    pub fn claimed_since(&self, address: IpAddr, since: u64) -> Vec<Claimed> {
        let seen = lock(&self.seen);
        seen.claimed.get(&address).into_iter().flatten().filter(|one| one.at >= since).cloned().collect()
    }

    /// The longest time without an answer since then: from the first question that was not answered within 100 ms to the
    /// next one that was.
    pub fn outage_since(&self, address: IpAddr, since: u64) -> Duration {
        let late = socket::nanoseconds(LATE);
        let now = now();
        let asked = self.asked_since(address, since);
        let answered = asked.iter().map(|one| {
            let first = one.answers.iter().map(|answer| answer.at).min();
            (one.at, first.is_some_and(|at| at.saturating_sub(one.at) < late))
        });
        // What is not late yet says nothing.
        outage(answered.filter(|(at, good)| *good || now.saturating_sub(*at) > late), since, now, late)
    }

    /// Questions that were sent more than 50 ms after then and after the claim of a new owner, and that somebody else
    /// answered, alone or as well.
    pub fn doubles_since(&self, address: IpAddr, since: u64) -> Vec<Double> {
        let asked = self.asked_since(address, since);
        let claims = self.claimed_since(address, 0);
        // Who claimed what another had: only that counts as new.
        let mut owners: Vec<&Claimed> = Vec::new();
        for claim in &claims {
            if owners.last().is_none_or(|last| last.mac != claim.mac) {
                owners.push(claim);
            }
        }
        let overlap = socket::nanoseconds(OVERLAP);
        let mut doubles = Vec::new();
        for one in asked {
            let Some(answered) = one.answers.iter().map(|answer| answer.at).max() else { continue };
            let Some(owner) = owners.iter().rev().find(|claim| claim.at <= one.at) else { continue };
            // A claim and an answer to a question just before it may overtake each other on their way through the switch.
            let soon = answered + SLACK;
            let changes = owners.iter().any(|claim| claim.at > one.at && claim.at <= soon);
            let after = one.at - owner.at.max(since);
            if after > overlap && !changes && one.answers.iter().any(|answer| answer.mac != owner.mac) {
                let (after, claimed) = (Duration::from_nanos(after), owner.mac);
                doubles.push(Double { address, after, claimed, answers: one.answers });
            }
        }
        doubles
    }

    /// The longest time since then in which two MAC addresses answered for an address, at once or in turns, whoever had
    /// claimed it. Turns that are further apart than an answer is [recent](Self::last_answer) are moves of the address.
    pub fn turns_since(&self, address: IpAddr, since: u64) -> Duration {
        let recent = socket::nanoseconds(self.recent);
        let (mut longest, mut began, mut last) = (0, 0, None);
        let mut before: Vec<MacAddr> = Vec::new();
        for one in self.asked_since(address, since) {
            let macs: Vec<_> = one.answers.iter().map(|answer| answer.mac).collect();
            let Some(first) = macs.first() else { continue };
            let two = macs.iter().any(|mac| mac != first);
            if two || !before.is_empty() && !before.contains(first) {
                if last.is_none_or(|last| one.at.saturating_sub(last) > recent) {
                    began = one.at;
                }
                last = Some(one.at);
                longest = longest.max(one.at.saturating_sub(began));
            }
            before = macs;
        }
        Duration::from_nanos(longest)
    }
}

/// The longest run of what was not answered, to the next that was, or to now.
pub(super) fn outage(
    answered: impl Iterator<Item = (u64, bool)>,
    since: u64,
    now: u64,
    late: u64,
) -> Duration {
    let (mut longest, mut began, mut any) = (0, None, false);
    for (at, good) in answered {
        any = true;
        if good {
            longest = longest.max(began.take().map_or(0, |began: u64| at.saturating_sub(began)));
        } else {
            began.get_or_insert(at);
        }
    }
    let open = if any { began } else { Some(since) };
    longest = longest.max(open.map_or(0, |began| now.saturating_sub(late).saturating_sub(began)));
    Duration::from_nanos(longest)
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    const fn mac(n: u8) -> MacAddr {
        MacAddr::new([2, 0, 0, 0, 0, n])
    }

    fn address() -> IpAddr {
        [192, 0, 2, 100].into()
    }

    /// A question every 10 ms for a second, and who answers it: by milliseconds.
    fn asked(who: impl Fn(u64) -> Vec<u8>) -> Seen {
        let mut seen = Seen::default();
        for number in 0..100_u32 {
            let at = u64::from(number) * 10;
            seen.record(at * MS, CLIENT, address(), What::Asked(number));
            for n in who(at) {
                seen.record((at + 1) * MS, &node(n), address(), What::Answered(number, mac(n)));
            }
        }
        seen
    }

    fn capture(seen: Seen) -> Capture {
        Capture { seen: Arc::new(Mutex::new(seen)), end: Arc::default(), threads: Vec::new(), recent: RECENT }
    }

    #[test]
    fn two_that_claim_and_answer_by_turns_are_found() {
        let both = |_| vec![1, 2];
        let by_turns = |at: u64| vec![1 + u8::from(at / 40 % 2 == 1)];
        for mut seen in [asked(both), asked(by_turns)] {
            for at in (0..1000).step_by(20) {
                seen.claim(at * MS, address(), mac(1 + u8::from(at / 20 % 2 == 1)));
            }
            let capture = capture(seen);
            // Each claim is news.
            assert!(capture.doubles_since(address(), 0).is_empty());
            assert!(capture.turns_since(address(), 0) > 3 * TURNS);
        }
    }

    #[test]
    fn an_address_that_moves_is_not_answered_by_turns() {
        // From one to the other, where both answer for a moment; and back, much later.
        let seen = asked(|at| match at {
            400..440 | 800..840 => vec![1, 2],
            440..800 => vec![2],
            _ => vec![1],
        });
        assert!(capture(seen).turns_since(address(), 0) < OVERLAP);
        assert!(capture(asked(|_| Vec::new())).turns_since(address(), 0).is_zero());
    }
}
