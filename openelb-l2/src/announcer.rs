//! When to say, unasked, that an address is here: gratuitous bursts, the slow refresh, and defences.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use openelb_l2::announcer::{Announcer, Schedule};
//!
//! let now = Instant::now();
//! let mut announcer = Announcer::new(Schedule::default());
//! announcer.claim("192.0.2.10".parse()?, now);
//! let mut sent = Vec::new();
//! while announcer.poll_timeout().is_some_and(|at| at <= now + Duration::from_secs(5)) {
//!     let at = announcer.poll_timeout().unwrap_or(now);
//!     while announcer.poll_due(at).is_some() {
//!         sent.push((at - now).as_millis());
//!     }
//! }
//! assert_eq!(sent, [0, 100, 300, 1000, 2000, 4000]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

use foldhash::fast::FixedState;

use crate::{
    MacAddr,
    wire::{Frame, arp, ethernet, ndp},
};

/// At most this many unsolicited advertisements in a burst (RFC 4861 section 10, `MAX_NEIGHBOR_ADVERTISEMENT`).
const MAX_ADVERTISEMENTS: usize = 3;
/// The last of them is not sent earlier where the schedule has so late an offset (RFC 4861 section 10, `RETRANS_TIMER`):
/// another node that claims the address, and that this one does not hear, learns from it that it is not heard.
const RETRANS_TIMER: Duration = Duration::from_secs(1);
/// At most one defence in this time (RFC 5227 section 1.1, `DEFEND_INTERVAL`).
pub const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// When gratuitous frames are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Schedule {
    /// Offsets from the claim, ascending. Of an IPv6 address only three count (RFC 4861 section 7.2.6): the first two, and
    /// of the others the first that is a second or more.
    pub burst: Vec<Duration>,
    /// Interval after the burst; zero: none.
    pub refresh: Duration,
}

impl Schedule {
    /// A schedule; the offsets are sorted, and the first one is 0: a claim is told of at once, whatever follows, for that
    /// is how the others hear of it.
    pub fn new(mut burst: Vec<Duration>, refresh: Duration) -> Self {
        burst.sort_unstable();
        if burst.first().is_none_or(|first| !first.is_zero()) {
            burst.insert(0, Duration::ZERO);
        }
        Self { burst, refresh }
    }
}

impl Default for Schedule {
    /// 0, 100 ms, 300 ms, 1 s, 2 s and 4 s, then every 60 s.
    fn default() -> Self {
        Self::new(
            [0, 100, 300, 1000, 2000, 4000].map(Duration::from_millis).to_vec(),
            Duration::from_secs(60),
        )
    }
}

#[derive(Debug)]
struct Claimed {
    since: Instant,
    /// When it was announced last.
    last: Option<Instant>,
    due: Option<Instant>,
    defended: Option<Instant>,
}

/// Says when an address is to be announced; see the [module](self).
#[derive(Debug)]
pub struct Announcer {
    schedule: Schedule,
    claims: HashMap<IpAddr, Claimed, FixedState>,
    due: BTreeSet<(Instant, IpAddr)>,
}

impl Announcer {
    /// An announcer without addresses.
    pub fn new(schedule: Schedule) -> Self {
        Self { schedule, claims: HashMap::default(), due: BTreeSet::new() }
    }

    /// Replaces the schedule; bursts and refreshes go on by the new one.
    pub fn set_schedule(&mut self, schedule: Schedule) {
        if schedule == self.schedule {
            return;
        }
        self.schedule = schedule;
        self.due.clear();
        for (address, claim) in &mut self.claims {
            claim.due = next_due(&self.schedule, *address, claim.since, claim.last);
            self.due.extend(claim.due.map(|at| (at, *address)));
        }
    }

    /// Begins the burst of an address, anew if it had one.
    pub fn claim(&mut self, address: IpAddr, now: Instant) {
        let defended = self.claims.get(&address).and_then(|claim| claim.defended);
        self.release(address);
        let due = next_due(&self.schedule, address, now, None);
        self.due.extend(due.map(|at| (at, address)));
        self.claims.insert(address, Claimed { since: now, last: None, due, defended });
    }

    /// Announces an address no more.
    pub fn release(&mut self, address: IpAddr) {
        if let Some(Claimed { due: Some(at), .. }) = self.claims.remove(&address) {
            self.due.remove(&(at, address));
        }
    }

    /// Whether a claimed address may be defended against a stranger now: at most once in [`DEFEND_INTERVAL`]. To be
    /// followed by one announcement.
    pub fn defend(&mut self, address: IpAddr, now: Instant) -> bool {
        let Some(claim) = self.claims.get_mut(&address) else { return false };
        let may = claim.defended.is_none_or(|at| now.saturating_duration_since(at) >= DEFEND_INTERVAL);
        if may {
            claim.defended = Some(now);
        }
        may
    }

    /// An address that is to be announced now.
    pub fn poll_due(&mut self, now: Instant) -> Option<IpAddr> {
        let (at, address) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        let claim = self.claims.get_mut(&address)?;
        // Steps that passed unused are not made up for.
        claim.last = Some(now);
        claim.due = next_due(&self.schedule, address, claim.since, claim.last);
        self.due.extend(claim.due.map(|at| (at, address)));
        Some(address)
    }

    /// Whether an address is one of those that are announced.
    pub fn is_claimed(&self, address: IpAddr) -> bool {
        self.claims.contains_key(&address)
    }

    /// When the next address is to be announced.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }
}

/// How long after the claim an address is announced for the `step`th time in its burst.
fn burst_offset(schedule: &Schedule, address: IpAddr, step: usize) -> Option<Duration> {
    let burst = &schedule.burst;
    let offset = match address {
        IpAddr::V6(_) if step >= MAX_ADVERTISEMENTS => None,
        IpAddr::V6(_) if step + 1 == MAX_ADVERTISEMENTS => {
            let late = burst.iter().skip(step).find(|offset| **offset >= RETRANS_TIMER);
            late.or_else(|| burst.get(step))
        }
        _ => burst.get(step),
    };
    offset.copied()
}

/// What follows `last`: the next step of the burst, or else the refresh.
fn next_due(schedule: &Schedule, address: IpAddr, since: Instant, last: Option<Instant>) -> Option<Instant> {
    let mut burst = (0..)
        .map_while(|step| burst_offset(schedule, address, step))
        .filter_map(|offset| since.checked_add(offset));
    if let Some(next) = burst.find(|at| last.is_none_or(|last| *at > last)) {
        return Some(next);
    }
    if schedule.refresh.is_zero() {
        return None;
    }
    // Spread over a tenth of the interval, so that many addresses that were claimed together do not stay together.
    let part = (crate::ownership::rendezvous::hash(&octets(address)) & 0xff) as u32;
    let spread = schedule.refresh / 2560 * part;
    let last = last.unwrap_or(since);
    let first = last.saturating_duration_since(since) < schedule.refresh / 2;
    last.checked_add(schedule.refresh)?.checked_sub(if first { spread } else { Duration::ZERO })
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The frames that announce an address: for IPv4 an ARP request and an ARP reply to the broadcast address (RFC 5227
/// section 3), for IPv6 one unsolicited advertisement with O=1 to all nodes (RFC 4861 section 7.2.6).
pub fn announcement(address: IpAddr, mac: MacAddr) -> impl Iterator<Item = Frame> {
    let frames = match address {
        IpAddr::V4(v4) => [arp::Operation::Request, arp::Operation::Reply].map(|operation| {
            Some(arp::Packet::announcement(operation, v4, mac).to_frame(mac, MacAddr::BROADCAST))
        }),
        IpAddr::V6(v6) => [Some(advertisement(v6, mac, ndp::ALL_NODES)), None],
    };
    frames.into_iter().flatten()
}

/// The address of a frame that is an [`announcement`], and nothing else.
pub(crate) fn announced(frame: &[u8]) -> Option<IpAddr> {
    let (header, payload) = ethernet::Header::decode(frame).ok()?;
    let address = match header.ethertype {
        ethernet::ETHERTYPE_ARP => arp::Packet::decode(payload).ok()?.sender_ip.into(),
        _ => ndp::Packet::decode(payload).ok()?.source.into(),
    };
    announcement(address, header.source).any(|one| one.as_bytes() == frame).then_some(address)
}

/// One frame that says again that an address is here, to other nodes that may have it, too, more than to clients: for IPv4
/// an ARP request to the broadcast address, for IPv6 an advertisement to the group of those that answer for the address,
/// for all nodes are told no more than three times (RFC 4861 section 7.2.6).
pub fn insistence(address: IpAddr, mac: MacAddr) -> Frame {
    match address {
        IpAddr::V4(v4) => {
            arp::Packet::announcement(arp::Operation::Request, v4, mac).to_frame(mac, MacAddr::BROADCAST)
        }
        IpAddr::V6(v6) => advertisement(v6, mac, crate::solicited_node_multicast(v6)),
    }
}

/// An unsolicited advertisement to a group.
fn advertisement(target: std::net::Ipv6Addr, mac: MacAddr, group: std::net::Ipv6Addr) -> Frame {
    let message = ndp::Message::Advertisement(ndp::Advertisement {
        target,
        target_mac: Some(mac),
        router: false,
        solicited: false,
        override_: true,
    });
    ndp::Packet { source: target, destination: group, message }.to_frame(mac, MacAddr::ipv6_multicast(group))
}

/// The frame that asks whether a station has an address, without saying that the sender has any: an ARP probe (RFC 5227
/// section 2.1.1), or the solicitation of duplicate address detection (RFC 4862 section 5.4.2).
pub fn probe(address: IpAddr, mac: MacAddr) -> Frame {
    match address {
        IpAddr::V4(v4) => arp::Packet::probe(v4, mac).to_frame(mac, MacAddr::BROADCAST),
        IpAddr::V6(v6) => {
            let group = crate::solicited_node_multicast(v6);
            let message = ndp::Message::Solicitation(ndp::Solicitation { target: v6, source_mac: None });
            ndp::Packet { source: std::net::Ipv6Addr::UNSPECIFIED, destination: group, message }
                .to_frame(mac, MacAddr::ipv6_multicast(group))
        }
    }
}

/// The address of a frame that is a [`probe`], and nothing else.
pub(crate) fn probed(frame: &[u8]) -> Option<IpAddr> {
    let (header, payload) = ethernet::Header::decode(frame).ok()?;
    let address = match header.ethertype {
        ethernet::ETHERTYPE_ARP => arp::Packet::decode(payload).ok()?.target_ip.into(),
        _ => match ndp::Packet::decode(payload).ok()?.message {
            ndp::Message::Solicitation(question) => question.target.into(),
            ndp::Message::Advertisement(_) => return None,
        },
    };
    (probe(address, header.source).as_bytes() == frame).then_some(address)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "any origin of time will do: only differences matter")]

    use super::*;

    fn sent(address: &str, burst: &[u64], until: Duration) -> Vec<u128> {
        let burst = burst.iter().copied().map(Duration::from_millis).collect();
        let mut announcer = Announcer::new(Schedule::new(burst, Duration::from_secs(60)));
        let now = Instant::now();
        announcer.claim(address.parse().expect("an address"), now);
        let mut sent = Vec::new();
        while let Some(at) = announcer.poll_timeout().filter(|at| *at <= now + until) {
            while announcer.poll_due(at).is_some() {
                sent.push((at - now).as_millis());
            }
        }
        sent
    }

    #[test]
    fn an_ipv6_address_is_advertised_three_times_the_last_a_second_after_the_claim() {
        let long = [0, 100, 300, 1000, 2000, 4000];
        let ten = Duration::from_secs(10);
        assert_eq!(sent("2001:db8::1", &long, ten), [0, 100, 1000]);
        assert_eq!(sent("192.0.2.1", &long, ten), [0, 100, 300, 1000, 2000, 4000]);
        // As it is asked for, where nothing is so late, or no more is asked for.
        assert_eq!(sent("2001:db8::1", &[0, 100, 300, 500], ten), [0, 100, 300]);
        assert_eq!(sent("2001:db8::1", &[0, 2000], ten), [0, 2000]);
        // The first one comes at once, asked for or not.
        assert_eq!(sent("2001:db8::1", &[], ten), [0]);
        assert_eq!(sent("192.0.2.1", &[1000], ten), [0, 1000]);
    }

    #[test]
    fn no_interval_is_too_long() {
        let now = Instant::now();
        for refresh in [Duration::MAX, Duration::MAX / 10, Duration::from_secs(1 << 62)] {
            let mut announcer = Announcer::new(Schedule::new(vec![Duration::ZERO, refresh], refresh));
            for address in ["192.0.2.1", "2001:db8::1"] {
                announcer.claim(address.parse().expect("an address"), now);
            }
            assert_eq!(std::iter::from_fn(|| announcer.poll_due(now)).count(), 2);
            assert!(announcer.poll_timeout().is_none_or(|at| at > now + Duration::from_secs(1 << 40)));
        }
    }

    #[test]
    fn an_announcement_is_told_from_other_frames_of_its_address() {
        let mac = MacAddr::new([2, 0, 0, 0, 0, 1]);
        for text in ["192.0.2.1", "2001:db8::1"] {
            let address = text.parse().expect("an address");
            let frames: Vec<_> = announcement(address, mac).collect();
            assert_eq!(frames.len(), if address.is_ipv4() { 2 } else { 1 });
            assert!(frames.iter().all(|frame| announced(frame) == Some(address)));
            assert_eq!(announced(&probe(address, mac)), None);
        }
        // Not to be said to all nodes a fourth time.
        assert_eq!(announced(&insistence("2001:db8::1".parse().expect("an address"), mac)), None);
    }

    #[test]
    fn insisting_is_a_claim_to_those_that_answer_for_the_address() {
        let mac = MacAddr::new([2, 0, 0, 0, 0, 1]);
        let other = crate::responder::Responder::new(MacAddr::new([2, 0, 0, 0, 0, 2]));
        for address in ["192.0.2.1", "2001:db8::1"] {
            let address = address.parse().expect("an address");
            let heard = other.handle(&insistence(address, mac)).expect("it is valid");
            assert_eq!(heard.claim, Some(crate::responder::Claim { address, mac }));
        }
        let group = crate::solicited_node_multicast("2001:db8::1".parse().expect("an address"));
        let frame = insistence("2001:db8::1".parse().expect("an address"), mac);
        let (header, _) = ethernet::Header::decode(&frame).expect("a frame");
        assert_eq!(header.destination, MacAddr::ipv6_multicast(group), "clients do not hear it");
    }

    #[test]
    fn a_new_schedule_holds_from_the_last_announcement_on() {
        let (now, hour) = (Instant::now(), Duration::from_secs(3600));
        let address = "192.0.2.1".parse().expect("an address");
        let mut announcer = Announcer::new(Schedule::new(vec![Duration::ZERO], hour));
        announcer.claim(address, now);
        let mut at = now;
        for _ in 0..50 {
            at = announcer.poll_timeout().expect("there is a refresh");
            assert_eq!(announcer.poll_due(at), Some(address));
        }
        let minute = Duration::from_secs(60);
        announcer.set_schedule(Schedule::new(vec![Duration::ZERO], minute));
        assert_eq!(announcer.poll_timeout(), Some(at + minute));
        announcer.set_schedule(Schedule::new(vec![Duration::ZERO], Duration::ZERO));
        assert_eq!(announcer.poll_timeout(), None);
        announcer.set_schedule(Schedule::new(vec![Duration::ZERO], 24 * hour));
        assert_eq!(announcer.poll_timeout(), Some(at + 24 * hour));
        // Long past, it is made up for once.
        announcer.set_schedule(Schedule::new(vec![Duration::ZERO], Duration::from_secs(1)));
        let late = at + 24 * hour;
        assert_eq!(announcer.poll_due(late), Some(address));
        assert_eq!(announcer.poll_due(late), None);
        assert_eq!(announcer.poll_timeout(), Some(late + Duration::from_secs(1)));
    }

    #[test]
    fn the_refresh_follows_the_burst() {
        for address in ["192.0.2.1", "2001:db8::1"] {
            let all = sent(address, &[0, 100, 300, 1000], Duration::from_secs(130));
            let slow: Vec<_> = all.iter().filter(|at| **at > 1000).collect();
            assert_eq!(slow.len(), 2, "{all:?}");
            assert_eq!(slow[1] - slow[0], 60_000);
            assert!((55_000..=61_000).contains(slow[0]), "spread over a tenth of the interval: {all:?}");
        }
        assert_eq!(sent("2001:db8::1", &[], Duration::from_secs(70)).len(), 2);
    }
}
