//! Does the host of a speaker that is gone still answer on the links of an address, and with which link-layer address?
//! What it answers on other links says nothing of those.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::LinkIndex;
use crate::{
    MacAddr,
    ownership::{
        arbiter::Kernel,
        message::{Links, NodeId},
    },
};

/// The first questions follow each other fast, so that a decision waits no longer than three of them.
const FAST: Duration = Duration::from_millis(50);
const SLOW: Duration = Duration::from_millis(200);
/// One that is silent for longer is asked less often: nobody may be there who can take over.
const RARE: Duration = Duration::from_secs(1);
const MANY: u32 = 30;
const QUESTIONS: u32 = 3;
/// Which of them is a probe, if there is no answer by then.
const PROBE: u32 = 2;
/// From a question that was not sent to the next one.
const AGAIN: Duration = Duration::from_millis(8);
/// For how long those do not count.
const PATIENCE: Duration = Duration::from_secs(2);
/// An answer is good for this long: three slow questions.
const VALID: Duration = Duration::from_millis(700);

#[derive(Debug)]
struct Host {
    /// The addresses whose owner it is, with the links that each is answered on.
    users: BTreeMap<IpAddr, Vec<LinkIndex>>,
    links: Links,
    /// When the first question that counts was sent.
    started: Instant,
    asked: u32,
    /// Since when a link takes no question, and which was the last of them.
    refused: BTreeMap<LinkIndex, (Instant, Instant)>,
    next: Instant,
    answers: BTreeMap<LinkIndex, (MacAddr, Instant)>,
    /// It was probed, and what it answers now is the answer to that.
    probing: bool,
    /// It answered to a probe, and to nothing else.
    probes: bool,
    /// What the users know of it.
    told: State,
}

/// What is known of a host.
#[derive(Debug, Default, PartialEq, Eq)]
struct State {
    /// Where it answers.
    links: BTreeSet<LinkIndex>,
    /// It had the time to answer elsewhere, too.
    over: bool,
}

impl Host {
    fn state(&self, now: Instant) -> State {
        let valid = |at: &Instant| now.saturating_duration_since(*at) <= VALID;
        let links = self.answers.iter().filter(|(_, (_, at))| valid(at)).map(|(link, _)| *link).collect();
        let patience = FAST * QUESTIONS;
        let over = self.links.iter().all(|(_, probe)| probe.is_none())
            || self.asked >= QUESTIONS && now.saturating_duration_since(self.started) >= patience;
        State { links, over }
    }

    fn is_asked_on(&self, link: LinkIndex) -> bool {
        self.users.values().any(|links| links.contains(&link))
    }
}

/// What is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// A host's own address.
    pub(super) address: IpAddr,
    /// Its link-layer address.
    pub(super) at: MacAddr,
    /// By a probe, if it is of IPv4.
    pub(super) probe: bool,
}

/// The hosts that are asked; see the [module](self).
#[derive(Debug, Default)]
pub(super) struct Hosts {
    hosts: BTreeMap<NodeId, Host>,
}

impl Hosts {
    /// Begins to ask on behalf of an address, or goes on.
    /// `on`: where the address is answered.
    pub(super) fn ask(
        &mut self,
        node: NodeId,
        address: IpAddr,
        on: &[LinkIndex],
        links: &Links,
        now: Instant,
    ) {
        let host = self.hosts.entry(node).or_insert_with(|| Host {
            users: BTreeMap::new(),
            links: links.clone(),
            started: now,
            asked: 0,
            refused: BTreeMap::new(),
            probing: false,
            next: now,
            answers: BTreeMap::new(),
            probes: false,
            told: State::default(),
        });
        if on.iter().any(|link| !host.is_asked_on(*link)) {
            // On this one it was not asked yet.
            (host.started, host.asked, host.next, host.probing) = (now, 0, now, false);
        }
        host.users.insert(address, on.to_vec());
        if !links.is_empty() && host.links != *links {
            host.links.clone_from(links);
        }
    }

    /// Ends it.
    pub(super) fn cease(&mut self, node: NodeId, address: IpAddr) {
        if let Some(host) = self.hosts.get_mut(&node) {
            host.users.remove(&address);
            if host.users.is_empty() {
                self.hosts.remove(&node);
            }
        }
    }

    /// Where those are that are asked.
    pub(super) fn links(&self) -> impl Iterator<Item = (NodeId, &Links)> + Clone {
        self.hosts.iter().map(|(node, host)| (*node, &host.links))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Whether some host is asked for this address of its own.
    pub(super) fn asks_for(&self, address: IpAddr) -> bool {
        let mut links = self.hosts.values().flat_map(|host| &host.links);
        links.any(|(_, probe)| *probe == Some(address))
    }

    /// On how many of these links it answers.
    pub(super) fn count(&self, node: NodeId, on: &[LinkIndex], now: Instant) -> usize {
        let links = self.hosts.get(&node).map(|host| host.state(now).links).unwrap_or_default();
        on.iter().filter(|link| links.contains(link)).count()
    }

    /// What its answers on these links mean, if it has to answer on so many of them.
    pub(super) fn state(&self, node: NodeId, on: &[LinkIndex], least: usize, now: Instant) -> Kernel {
        let Some(host) = self.hosts.get(&node) else { return Kernel::Unknown };
        let state = host.state(now);
        if on.iter().filter(|link| state.links.contains(link)).count() >= least.max(1) {
            Kernel::Answers
        } else if state.over && on.iter().all(|link| host.is_asked_on(*link)) {
            Kernel::Silent
        } else {
            Kernel::Unknown
        }
    }

    /// With which link-layer address the host answers on a link.
    pub(super) fn mac(&self, node: NodeId, link: LinkIndex) -> Option<MacAddr> {
        self.hosts.get(&node)?.answers.get(&link).map(|(mac, _)| *mac)
    }

    /// Somebody says where an address is. Returns the addresses that this decides something for.
    pub(super) fn hear(
        &mut self,
        link: LinkIndex,
        address: IpAddr,
        mac: MacAddr,
        now: Instant,
    ) -> Vec<IpAddr> {
        let mut touched = Vec::new();
        for host in self.hosts.values_mut() {
            if !host.links.iter().any(|(of, probe)| *of == mac && *probe == Some(address)) {
                continue;
            }
            host.next = host.next.min(now + SLOW);
            host.probes |= host.answers.is_empty() && host.probing;
            host.refused.remove(&link);
            let before = host.answers.insert(link, (mac, now)).map(|(mac, _)| mac);
            let state = host.state(now);
            if before != Some(mac) || host.told != state {
                host.told = state;
                touched.extend(host.users.keys().copied());
            }
        }
        touched
    }

    /// What is to be asked now, and the addresses that something has been decided for by time.
    pub(super) fn poll(&mut self, now: Instant) -> (Vec<Question>, Vec<IpAddr>) {
        let (mut questions, mut touched) = (Vec::new(), Vec::new());
        for host in self.hosts.values_mut() {
            if host.next <= now {
                host.asked = host.asked.saturating_add(1);
                host.answers.retain(|_, (_, at)| now.saturating_duration_since(*at) <= VALID);
                host.next = now
                    + match host.asked {
                        ..=QUESTIONS => FAST,
                        MANY.. if host.answers.is_empty() => RARE,
                        _ => SLOW,
                    };
                if host.asked >= MANY && host.answers.is_empty() {
                    // It may be on its way up, and be about to take its address.
                    host.probes = false;
                }
                let first = host.asked == PROBE && host.answers.is_empty();
                host.probing = host.asked <= QUESTIONS && (host.probing || first);
                let probe = host.probes || first;
                let question = |(at, own): &(MacAddr, Option<IpAddr>)| {
                    Some(Question { address: (*own)?, at: *at, probe })
                };
                questions.extend(host.links.iter().filter_map(question));
            }
            let state = host.state(now);
            if state != host.told {
                host.told = state;
                touched.extend(host.users.keys().copied());
            }
        }
        (questions, touched)
    }

    /// A question for a host's own address was not sent on a link: it does not count, and comes again soon, at the time
    /// returned. What the host has answered there stays good as long. `None`: it comes again when it would have anyway, for
    /// nobody is asked for that there, or it decides nothing, or the link has taken nothing for too long.
    pub(super) fn not_asked(&mut self, link: LinkIndex, address: IpAddr, now: Instant) -> Option<Instant> {
        let mut next = None;
        for host in self.hosts.values_mut() {
            if !host.links.iter().any(|(_, own)| *own == Some(address)) {
                continue;
            }
            let (since, last) = host.refused.entry(link).or_insert((now, now));
            if now.saturating_duration_since(*last) > 2 * RARE {
                *since = now;
            }
            *last = now;
            if now.saturating_duration_since(*since) >= PATIENCE {
                continue;
            }
            let recent = now.checked_sub(SLOW).unwrap_or(now);
            let valid = |at: &Instant| now.saturating_duration_since(*at) <= VALID;
            if let Some((_, at)) = host.answers.get_mut(&link).filter(|(_, at)| valid(at)) {
                *at = recent.max(*at);
            }
            // What is decided stays so.
            let over = host.state(now).over;
            if !host.is_asked_on(link) || over && host.answers.is_empty() {
                continue;
            }
            // Of several frames of one question the first counts.
            if host.next > now + AGAIN {
                host.next = now + AGAIN;
                if !over {
                    host.asked = host.asked.saturating_sub(1);
                    let before = FAST * host.asked.min(QUESTIONS);
                    host.started = host.next.checked_sub(before).unwrap_or(now).max(host.started);
                }
            }
            next = next.into_iter().chain([host.next]).min();
        }
        next
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.hosts.values().map(|host| host.next).min()
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any origin of time will do: only differences matter")]
mod tests {
    use super::*;

    const LINK: LinkIndex = LinkIndex(2);
    const MAC: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 7]);

    /// How a host that answers probes alone, or (`never`) nothing, is asked for so long: when, and whether by a probe.
    fn asked(never: bool, time: Duration) -> Vec<(Duration, bool)> {
        let (start, own) = (Instant::now(), IpAddr::from([192, 0, 2, 7]));
        let mut hosts = Hosts::default();
        hosts.ask(NodeId(7), IpAddr::from([192, 0, 2, 100]), &[LINK], &vec![(MAC, Some(own))], start);
        let mut asked = Vec::new();
        while let Some(now) = hosts.poll_timeout().filter(|now| *now <= start + time) {
            for Question { address, at, probe } in hosts.poll(now).0 {
                assert_eq!((address, at), (own, MAC));
                asked.push((now - start, probe));
                if probe && !never {
                    hosts.hear(LINK, own, MAC, now);
                }
            }
        }
        asked
    }

    /// Where one host is asked for its own address.
    struct Asked {
        hosts: Hosts,
        now: Instant,
    }

    const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 100));

    impl Asked {
        fn new() -> Self {
            let (mut hosts, now) = (Hosts::default(), Instant::now());
            hosts.ask(NodeId(7), ADDRESS, &[LINK], &vec![(MAC, Some(OWN))], now);
            Self { hosts, now }
        }

        /// The next questions; says whether something is to be decided.
        fn next(&mut self) -> bool {
            self.now = self.hosts.poll_timeout().expect("it is asked");
            let (questions, touched) = self.hosts.poll(self.now);
            assert_eq!(questions.len(), 1);
            touched == [ADDRESS]
        }

        fn refuse(&mut self) -> bool {
            self.hosts.not_asked(LINK, OWN, self.now).is_some()
        }

        fn state(&self) -> Kernel {
            self.hosts.state(NodeId(7), &[LINK], 1, self.now)
        }
    }

    #[test]
    fn a_question_that_was_not_sent_does_not_count() {
        let mut asked = Asked::new();
        let start = asked.now;
        while asked.now - start < PATIENCE / 2 {
            assert!(!asked.next() && asked.refuse());
            assert_eq!(asked.state(), Kernel::Unknown);
        }
        let elsewhere = (LinkIndex(9), IpAddr::from([192, 0, 2, 9]));
        assert_eq!(asked.hosts.not_asked(elsewhere.0, OWN, asked.now), None, "a link of other addresses");
        assert_eq!(asked.hosts.not_asked(LINK, elsewhere.1, asked.now), None, "another host");
        let before = asked.now;
        for _ in 0..3 {
            assert!(!asked.next());
        }
        assert_eq!(asked.state(), Kernel::Unknown);
        assert!(asked.next(), "it is to be decided");
        assert_eq!(asked.state(), Kernel::Silent);
        assert!(asked.now - before >= FAST * QUESTIONS, "the last of three has as much time as ever");
    }

    #[test]
    fn a_link_that_takes_nothing_keeps_nobody_for_ever() {
        let mut asked = Asked::new();
        let start = asked.now;
        while asked.state() == Kernel::Unknown {
            asked.next();
            asked.refuse();
        }
        assert!((PATIENCE..PATIENCE + VALID).contains(&(asked.now - start)), "{:?}", asked.now - start);
    }

    #[test]
    fn one_that_was_silent_stays_silent_when_a_later_question_is_not_sent() {
        let mut asked = Asked::new();
        while asked.state() == Kernel::Unknown {
            asked.next();
        }
        asked.next();
        assert!(!asked.refuse(), "it comes again when it would have anyway");
        assert_eq!(asked.state(), Kernel::Silent, "nobody would ask again what this decides");
    }

    #[test]
    fn a_probe_that_was_answered_on_one_link_counts_though_another_refused_it() {
        let mut asked = Asked::new();
        let other = LinkIndex(3);
        asked.hosts.ask(NodeId(7), ADDRESS, &[LINK, other], &vec![(MAC, Some(OWN))], asked.now);
        for _ in 0..2 {
            asked.next();
        }
        assert!(asked.hosts.not_asked(other, OWN, asked.now).is_some());
        asked.hosts.hear(LINK, OWN, MAC, asked.now + Duration::from_millis(1));
        asked.now = asked.hosts.poll_timeout().expect("it is asked");
        let (questions, _) = asked.hosts.poll(asked.now);
        assert!(questions[0].probe, "it answers nothing else");
    }

    #[test]
    fn a_link_that_takes_nothing_does_not_count_for_another() {
        let mut asked = Asked::new();
        let other = LinkIndex(3);
        asked.hosts.ask(NodeId(7), ADDRESS, &[LINK, other], &vec![(MAC, Some(OWN))], asked.now);
        let start = asked.now;
        while asked.now - start < 2 * PATIENCE {
            asked.next();
            asked.hosts.not_asked(other, OWN, asked.now);
            asked.hosts.hear(LINK, OWN, MAC, asked.now);
        }
        let refused = asked.now;
        while asked.now - refused < PATIENCE / 2 {
            asked.next();
            asked.hosts.not_asked(other, OWN, asked.now);
            asked.refuse();
            assert_eq!(asked.state(), Kernel::Answers, "after {:?}", asked.now - refused);
        }
    }

    #[test]
    fn what_a_host_answered_where_nothing_is_decided_is_kept_too() {
        let mut asked = Asked::new();
        let other = LinkIndex(3);
        let start = asked.now;
        while asked.now - start < PATIENCE / 2 {
            asked.next();
            asked.hosts.hear(LINK, OWN, MAC, asked.now);
            if asked.now == start {
                asked.hosts.hear(other, OWN, MAC, asked.now);
            } else {
                asked.hosts.not_asked(other, OWN, asked.now);
            }
            assert_eq!(asked.hosts.mac(NodeId(7), other), Some(MAC));
        }
    }

    #[test]
    fn one_that_answers_goes_on_while_questions_are_not_sent() {
        let mut asked = Asked::new();
        let answer = |asked: &mut Asked| {
            asked.next();
            asked.hosts.hear(LINK, OWN, MAC, asked.now);
        };
        (0..20).for_each(|_| answer(&mut asked));
        let begin = asked.now;
        while asked.now - begin < PATIENCE / 2 {
            asked.next();
            asked.refuse();
            assert_eq!(asked.state(), Kernel::Answers, "after {:?}", asked.now - begin);
        }
        answer(&mut asked);
        assert_eq!(asked.state(), Kernel::Answers);
        // In truth silent.
        while asked.state() == Kernel::Answers {
            asked.next();
            assert!(asked.now - begin < PATIENCE);
        }
    }

    #[test]
    fn a_host_is_probed_once_and_on_if_it_answers_to_that() {
        let minute = Duration::from_secs(60);
        let silent = asked(true, minute);
        assert!(silent.len() > 60);
        let probed: Vec<_> = silent.iter().filter(|(_, probe)| *probe).collect();
        assert_eq!(probed, [&(FAST, true)], "one that comes up gives an address up that is probed for");
        let answers = asked(false, minute);
        assert!(answers.len() > 200 && answers.iter().skip(1).all(|(_, probe)| *probe));
    }
}
