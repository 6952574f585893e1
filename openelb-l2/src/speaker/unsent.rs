//! Announcements and probes that the kernel had no room for. When many addresses are claimed at once, the frames of all of
//! them are more than a socket and a queue hold, and the schedule gives all of them the same next time. So they are sent
//! again soon, a part at a time, in the order in which they were refused: made anew, and only where they still apply. A
//! probe that was not sent is none: the address is claimed no sooner than if it had been sent when it was.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use foldhash::fast::FixedState;

use super::{LinkIndex, Output, Speaker, entry::Phase};
use crate::{
    MacAddr, announcer,
    wire::{Frame, arp, ethernet, ndp},
};

/// Addresses that are said again at a time: less than the smallest queues hold.
const TURN: usize = 128;
/// From a refusal to the next turn, and from one turn to the next.
const PAUSE: Duration = Duration::from_millis(1);
/// At most, where turns are refused again and again.
const LONGEST_PAUSE: Duration = Duration::from_millis(8);
/// A link that takes nothing for so long is left to the schedule, and its probes count as sent.
const PATIENCE: Duration = Duration::from_secs(2);

/// The addresses of one link.
#[derive(Debug)]
struct Queue {
    /// With when they were refused first.
    waiting: VecDeque<(IpAddr, Instant)>,
    known: HashSet<IpAddr, FixedState>,
    /// Those of the last turn, with the same.
    tried: HashMap<IpAddr, Instant, FixedState>,
    /// Those of them that were refused again.
    again: HashSet<IpAddr, FixedState>,
    /// When some were not.
    progress: Instant,
    next: Instant,
    pause: Duration,
    /// Something was refused since the last turn.
    full: bool,
}

impl Queue {
    fn new(now: Instant) -> Self {
        Self {
            waiting: VecDeque::new(),
            known: HashSet::default(),
            tried: HashMap::default(),
            again: HashSet::default(),
            progress: now,
            next: now + PAUSE,
            pause: PAUSE,
            full: false,
        }
    }

    /// An address was refused. Says whether it waits.
    fn refuse(&mut self, address: IpAddr, now: Instant) -> bool {
        self.full = true;
        if self.known.contains(&address) {
            return true;
        }
        let tried = self.tried.get(&address).copied();
        if tried.is_some() {
            self.again.insert(address);
        }
        let since = tried.unwrap_or(now);
        let waits = now.saturating_duration_since(since.max(self.progress)) < PATIENCE;
        if waits {
            self.known.insert(address);
            self.waiting.push_back((address, since));
        }
        waits
    }

    fn turn(&mut self, now: Instant) -> Vec<IpAddr> {
        self.pause = if self.full { (self.pause * 2).min(LONGEST_PAUSE) } else { PAUSE };
        self.full = false;
        self.next = now + self.pause;
        if self.again.len() < self.tried.len() {
            self.progress = now;
        }
        self.again.clear();
        self.tried.clear();
        let count = self.waiting.len().min(TURN);
        let mut all = Vec::with_capacity(count);
        for (address, since) in self.waiting.drain(..count) {
            self.known.remove(&address);
            self.tried.insert(address, since);
            all.push(address);
        }
        all
    }
}

/// What waits for being said again; see the [module](self).
#[derive(Debug, Default)]
pub(super) struct Unsent {
    queues: BTreeMap<LinkIndex, Queue>,
}

impl Unsent {
    /// When something is to be said again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.queues.values().map(|queue| queue.next).min()
    }

    pub(super) fn waits(&self, link: LinkIndex, address: IpAddr) -> bool {
        self.queues.get(&link).is_some_and(|queue| queue.known.contains(&address))
    }
}

impl Speaker {
    /// The kernel had no room for a [frame](Output::Frame). Says whether it is sent again, soon and as far as it applies
    /// then: gratuitous frames and probes are, for some time, and so are questions to the host of a speaker that is gone;
    /// others have their own repetition, or whoever asked asks again. [`poll_timeout`](Self::poll_timeout) may be earlier
    /// after that.
    pub fn handle_unsent(&mut self, link: LinkIndex, frame: &Frame, now: Instant) -> bool {
        if let Some(address) = announcer::announced(frame) {
            if !self.announcer.is_claimed(address) {
                return false;
            }
            self.stats.gratuitous = self.stats.gratuitous.saturating_sub(1);
            return self.refuse(link, address, now);
        }
        if let Some(address) = announcer::probed(frame)
            && self.is_probing(address)
        {
            return self.refuse(link, address, now);
        }
        let Some(at) = asked(frame).and_then(|host| self.hosts.not_asked(link, host, now)) else {
            return false;
        };
        self.deadline = self.deadline.into_iter().chain([at]).min();
        true
    }

    fn refuse(&mut self, link: LinkIndex, address: IpAddr, now: Instant) -> bool {
        self.unsent.queues.entry(link).or_insert_with(|| Queue::new(now)).refuse(address, now)
    }

    fn is_probing(&self, address: IpAddr) -> bool {
        self.entries.get(&address).is_some_and(|entry| matches!(entry.phase, Phase::Probing { .. }))
    }

    /// Says what is due by the schedule; what waits is said when it is its turn.
    pub(super) fn announce_due(&mut self, now: Instant) {
        while let Some(address) = self.announcer.poll_due(now) {
            for (link, mac) in self.usable_links(address) {
                if !self.unsent.waits(link, address) {
                    self.announce_on(link, mac, address);
                }
            }
        }
    }

    /// Sends again what was refused.
    pub(super) fn announce_again(&mut self, now: Instant) {
        let mut queues = std::mem::take(&mut self.unsent.queues);
        // Nothing waits, and all of the last turn was taken.
        queues.retain(|_, queue| queue.next > now || !queue.waiting.is_empty());
        for (link, queue) in queues.iter_mut().filter(|(_, queue)| queue.next <= now) {
            for address in queue.turn(now) {
                // It may have moved meanwhile, or the link may be down or have another link-layer address.
                let claimed = self.announcer.is_claimed(address);
                let usable = self.usable_links(address).into_iter().find(|(usable, _)| usable == link);
                let Some((_, mac)) = usable.filter(|_| claimed || self.is_probing(address)) else {
                    queue.tried.remove(&address);
                    continue;
                };
                if claimed {
                    self.announce_on(*link, mac, address);
                } else {
                    self.outputs
                        .push_back(Output::Frame { link: *link, frame: announcer::probe(address, mac) });
                    self.await_answers(address, now);
                    self.dirty.insert(address);
                }
            }
        }
        self.unsent.queues = queues;
    }

    /// An answer to a probe has as much time as ever.
    pub(super) fn await_answers(&mut self, address: IpAddr, now: Instant) {
        let until = self.answered_by(now);
        if let Some(entry) = self.entries.get_mut(&address)
            && let Phase::Probing { next, .. } = &mut entry.phase
        {
            *next = until;
        }
    }

    fn announce_on(&mut self, link: LinkIndex, mac: MacAddr, address: IpAddr) {
        for frame in announcer::announcement(address, mac) {
            self.stats.gratuitous += 1;
            self.outputs.push_back(Output::Frame { link, frame });
        }
    }
}

/// The address that a question is for.
fn asked(frame: &Frame) -> Option<IpAddr> {
    let (header, payload) = ethernet::Header::decode(frame.as_bytes()).ok()?;
    if header.ethertype == ethernet::ETHERTYPE_ARP {
        return arp::Packet::decode(payload).ok().map(|packet| packet.target_ip.into());
    }
    match ndp::Packet::decode(payload).ok()?.message {
        ndp::Message::Solicitation(question) => Some(question.target.into()),
        ndp::Message::Advertisement(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "any origin of time will do: only differences matter")]

    use super::{
        super::{DesiredAddress, Link, NodeName, Peer, Role, Settings, SpeakerConfig},
        *,
    };
    use crate::ownership::arbiter::Kernel;

    const LINKS: [LinkIndex; 2] = [LinkIndex(2), LinkIndex(3)];

    /// A speaker that owns so many addresses, on both links, and does not say so again by itself.
    struct Bench {
        speaker: Speaker,
        now: Instant,
        addresses: Vec<IpAddr>,
    }

    impl Bench {
        fn new(count: u32) -> Self {
            Self::with_probes(count, 0)
        }

        /// One that asks so many times before it claims.
        fn with_probes(count: u32, probes: u8) -> Self {
            let now = Instant::now();
            let gossip = "192.0.2.1:7947".parse().expect("an address");
            let config = SpeakerConfig::new(NodeName::new("node-1").expect("a name"), gossip);
            let settings =
                Settings { probes, gratuitous: Vec::new(), refresh: Duration::ZERO, ..Settings::default() };
            let speaker = Speaker::new(config, settings, now).expect("the defaults are good");
            let address = |n| IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n));
            let mut bench = Self { speaker, now, addresses: (0..count).map(address).collect() };
            bench.set_links(1);
            bench.speaker.set_peers(Vec::new(), now);
            bench.want(bench.addresses.clone());
            while !bench.speaker.is_settled() {
                bench.flush(|_, _| true);
                bench.now = bench.speaker.poll_timeout().expect("it looks around").max(bench.now);
                bench.speaker.handle_timeout(bench.now);
            }
            bench
        }

        fn set_links(&mut self, mac: u8) {
            let link = |index| Link::new(index, "eth", MacAddr::new([2, 0, 0, 0, 0, mac]));
            self.speaker.set_links(LINKS.map(link).to_vec(), self.now);
        }

        fn want(&mut self, addresses: Vec<IpAddr>) {
            let desired = addresses.into_iter().map(|address| DesiredAddress::new(address, LINKS));
            self.speaker.set_desired(desired.collect(), self.now);
        }

        /// Sends what is to be sent, as far as the kernel takes it. Returns what it took.
        fn flush(&mut self, mut takes: impl FnMut(LinkIndex, Instant) -> bool) -> Vec<(LinkIndex, Frame)> {
            let mut taken = Vec::new();
            while let Some(output) = self.speaker.poll_output() {
                let Output::Frame { link, frame } = output else { continue };
                if takes(link, self.now) {
                    taken.push((link, frame));
                } else {
                    self.speaker.handle_unsent(link, &frame, self.now);
                }
            }
            taken
        }

        fn run(
            &mut self,
            time: Duration,
            mut takes: impl FnMut(LinkIndex, Instant) -> bool,
        ) -> Vec<(LinkIndex, Frame)> {
            let end = self.now + time;
            let mut taken = self.flush(&mut takes);
            while let Some(at) = self.speaker.poll_timeout().filter(|at| *at <= end) {
                self.now = at.max(self.now);
                self.speaker.handle_timeout(self.now);
                taken.extend(self.flush(&mut takes));
            }
            self.now = end;
            taken
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_a_full_link_refuses_is_said_there_again_and_nowhere_else() {
        let mut bench = Bench::new(5000);
        // A queue of 200 frames, of which 20 leave in a millisecond.
        let (mut queued, mut then) = (0_u128, bench.now);
        let said = bench.run(SECOND, |link, now| {
            let left = 20 * (now - then).as_millis();
            (queued, then) = (queued.saturating_sub(left), now);
            let takes = link == LINKS[1] || queued < 200;
            queued += u128::from(takes && link == LINKS[0]);
            takes
        });
        for (link, most) in [(LINKS[0], 4), (LINKS[1], 2)] {
            let mut times: HashMap<IpAddr, usize> = HashMap::new();
            for (_, frame) in said.iter().filter(|(on, _)| *on == link) {
                *times.entry(announcer::announced(frame).expect("it is one")).or_default() += 1;
            }
            assert_eq!(times.len(), bench.addresses.len(), "all of them were said");
            assert!(times.values().all(|times| *times <= most), "{:?}", times.values().max());
        }
        assert_eq!(bench.speaker.stats().gratuitous, u64::try_from(said.len()).expect("few"));
        assert_eq!(bench.speaker.poll_timeout(), None, "that was all");
    }

    #[test]
    fn an_address_is_not_claimed_before_each_of_its_probes_was_sent() {
        claimed_after(3, 20);
        // The last probes of some wait for longer than an answer has time.
        claimed_after(1, 5);
    }

    /// A queue of 200 frames, of which so many leave in a millisecond.
    fn claimed_after(probes: u8, leave: u128) {
        let mut bench = Bench::with_probes(5000, probes);
        bench.want(Vec::new());
        bench.run(SECOND, |_, _| true);
        bench.want(bench.addresses.clone());
        let spacing = Settings::default().probe_spacing;
        let (mut queued, mut then) = (0_u128, bench.now);
        let mut sent: HashMap<(LinkIndex, IpAddr), Vec<Instant>> = HashMap::new();
        let end = bench.now + 10 * SECOND;
        loop {
            let now = bench.now;
            for (link, frame) in bench.flush(|link, now| {
                queued = queued.saturating_sub(leave * (now - then).as_millis());
                then = now;
                let takes = link == LINKS[1] || queued < 200;
                queued += u128::from(takes && link == LINKS[0]);
                takes
            }) {
                if let Some(address) = announcer::probed(&frame) {
                    sent.entry((link, address)).or_default().push(now);
                } else if let Some(address) = announcer::announced(&frame) {
                    let asked = &sent[&(link, address)];
                    assert_eq!(asked.len(), usize::from(probes), "{address} on {link:?}");
                    let last = now - asked[asked.len() - 1];
                    assert!(last >= spacing, "{address}: the last answer had {last:?}");
                }
            }
            let Some(at) = bench.speaker.poll_timeout().filter(|at| *at <= end) else { break };
            bench.now = at.max(bench.now);
            bench.speaker.handle_timeout(bench.now);
        }
        let claimed =
            |address: &&IpAddr| bench.speaker.address(**address).is_some_and(|one| one.role == Role::Owner);
        assert_eq!(bench.addresses.iter().filter(claimed).count(), bench.addresses.len());
    }

    #[test]
    fn a_host_is_asked_over_ipv6_once_the_link_has_a_source() {
        let mut bench = Bench::new(1);
        bench.run(3 * SECOND, |_, _| true);
        let (own, station) = ("2001:db8::7".parse().expect("an address"), MacAddr::new([2, 0, 0, 0, 0, 7]));
        let links = vec![(station, Some(own))];
        let node = crate::ownership::message::NodeId(7);
        // One that has none for long gets none, and nobody waits for that.
        let now = bench.now;
        bench.speaker.hosts.ask(node, bench.addresses[0], &LINKS, &links, now);
        bench.speaker.finish(now);
        bench.run(SECOND / 2, |_, _| true);
        assert_eq!(bench.speaker.hosts.state(node, &LINKS, 1, bench.now), Kernel::Silent);
        bench.speaker.hosts.cease(node, bench.addresses[0]);
        // The links are new.
        bench.set_links(1);
        bench.speaker.set_links(Vec::new(), bench.now);
        bench.set_links(1);
        let now = bench.now;
        bench.speaker.hosts.ask(node, bench.addresses[0], &LINKS, &links, now);
        bench.speaker.finish(now);
        let is_question = |(_, frame): &(LinkIndex, Frame)| asked(frame) == Some(own);
        assert!(!bench.run(SECOND, |_, _| true).iter().any(is_question), "nobody would hear the answer");
        assert_eq!(bench.speaker.hosts.state(node, &LINKS, 1, bench.now), Kernel::Unknown);
        let link = |index| {
            let mut link = Link::new(index, "eth", MacAddr::new([2, 0, 0, 0, 0, 1]));
            link.addresses.push("fe80::1".parse().expect("an address"));
            link
        };
        bench.speaker.set_links(LINKS.map(link).to_vec(), bench.now);
        let said = bench.run(SECOND, |_, _| true);
        let (_, frame) = said.iter().find(|one| is_question(one)).expect("a question");
        let (header, _) = ethernet::Header::decode(frame.as_bytes()).expect("a frame");
        assert_eq!(header.destination, station);
        assert_eq!(bench.speaker.hosts.state(node, &LINKS, 1, bench.now), Kernel::Silent);
    }

    #[test]
    fn a_probe_that_was_refused_is_waited_for_also_where_probes_have_no_pauses() {
        let mut bench = Bench::with_probes(5, 3);
        let settings = |probes| Settings { probes, probe_spacing: Duration::ZERO, ..Settings::default() };
        bench.speaker.set_settings(settings(3), bench.now);
        bench.want(Vec::new());
        bench.want(bench.addresses.clone());
        assert!(bench.flush(|_, _| false).is_empty());
        // Everything is decided anew while they wait.
        bench.speaker.set_settings(settings(4), bench.now);
        let sent = bench.run(SECOND, |_, _| true);
        let probed: HashSet<_> =
            sent.iter().filter_map(|(link, frame)| Some((*link, announcer::probed(frame)?))).collect();
        assert_eq!(probed.len(), bench.addresses.len() * LINKS.len(), "each, on both links");
        let owner =
            |address: &IpAddr| bench.speaker.address(*address).is_some_and(|one| one.role == Role::Owner);
        assert!(bench.addresses.iter().all(owner));
    }

    #[test]
    fn what_is_not_true_any_more_is_not_said_again() {
        let mut bench = Bench::new(3);
        assert!(bench.flush(|_, _| false).is_empty());
        // The second may not be owned any more, and is given up after a second, for nobody else takes it; the third is not
        // wanted, and the links were exchanged.
        let kept = bench.addresses[0];
        let mut second = DesiredAddress::new(bench.addresses[1], LINKS);
        second.eligible = false;
        bench.speaker.set_desired(vec![DesiredAddress::new(kept, LINKS), second], bench.now);
        bench.set_links(9);
        while bench.speaker.address(bench.addresses[1]).is_none_or(|status| status.role != Role::Standby) {
            assert!(bench.flush(|_, _| false).is_empty());
            bench.now = bench.speaker.poll_timeout().expect("it is said again").max(bench.now);
            bench.speaker.handle_timeout(bench.now);
        }
        let said = bench.run(SECOND, |_, _| true);
        assert_eq!(said.len(), 4, "two frames on both links");
        for (_, frame) in said {
            assert_eq!(announcer::announced(&frame), Some(kept));
            let mut own = announcer::announcement(kept, MacAddr::new([2, 0, 0, 0, 0, 9]));
            assert!(own.any(|one| one.as_bytes() == frame.as_bytes()), "{frame:?}");
        }
    }

    #[test]
    fn a_link_that_takes_nothing_is_left_alone_after_a_while() {
        let mut bench = Bench::new(1000);
        let mut tries = 0;
        bench.run(PATIENCE + SECOND, |_, _| {
            tries += 1;
            false
        });
        assert!((8000..=4 * TURN * 2500 / 8).contains(&tries), "{tries}");
        assert_eq!((bench.speaker.poll_timeout(), bench.speaker.stats().gratuitous), (None, 0));
    }

    #[test]
    fn a_link_that_begins_to_take_something_when_patience_is_over_keeps_what_waits() {
        let mut bench = Bench::new(2000);
        let (start, mut left, mut then) = (bench.now, 0, bench.now);
        let said = bench.run(2 * PATIENCE, |link, now| {
            // Of two frames of an address one may be taken.
            if link == LINKS[0] && now > then && now - start > PATIENCE + LONGEST_PAUSE {
                (left, then) = (101, now);
            }
            left -= usize::from(left > 0 && link == LINKS[0]);
            link == LINKS[1] || left > 0
        });
        let on_first = said.iter().filter(|(link, _)| *link == LINKS[0]);
        let addresses: HashSet<_> = on_first.filter_map(|(_, frame)| announcer::announced(frame)).collect();
        // Two turns are lost: the last before, and the first that took a part.
        assert!(addresses.len() >= 2000 - 3 * TURN, "{}", addresses.len());
    }

    #[test]
    fn what_is_not_wanted_any_more_is_no_sign_that_a_link_takes_something() {
        let mut bench = Bench::new(400);
        bench.flush(|_, _| false);
        let start = bench.now;
        let mut wanted = bench.addresses.clone();
        while bench.now - start < PATIENCE + SECOND {
            // One is given up every 20 ms.
            wanted.pop();
            bench.want(wanted.clone());
            bench.run(Duration::from_millis(20), |_, _| false);
        }
        assert_eq!(bench.speaker.unsent.poll_timeout(), None, "the others are left to the schedule");
    }

    #[test]
    fn one_that_says_things_again_is_not_taken_for_suspended_sooner() {
        let mut bench = Bench::new(1);
        let other =
            Peer::new(NodeName::new("node-2").expect("a name"), "192.0.2.2:7947".parse().expect("one"));
        bench.speaker.set_peers(vec![other], bench.now);
        let due = bench.speaker.poll_timeout().expect("there are peers");
        bench.flush(|_, _| false);
        let again = bench.speaker.poll_timeout().expect("it is said again");
        assert!(again < due, "soon");
        // A moment before it would be late.
        bench.now = due + bench.speaker.config().suspicion;
        assert_eq!(bench.speaker.lateness(bench.now), bench.speaker.config().suspicion);
        bench.speaker.handle_timeout(bench.now);
        assert_eq!(bench.speaker.stats().stalls, 0);
        assert!(bench.flush(|_, _| true).iter().any(|(_, frame)| announcer::announced(frame).is_some()));
    }
}
