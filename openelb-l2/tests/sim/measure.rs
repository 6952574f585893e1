//! What a client would be told, and for how long by nobody or by two.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use openelb_l2::{
    MacAddr,
    speaker::{LinkIndex, Role},
};

use super::{Host, LINK, Sim, wire};

/// How often it is looked.
pub(crate) const SAMPLE: Duration = Duration::from_millis(10);

/// Who has owned an address for this long is known to be its owner.
const KNOWN: Duration = Duration::from_secs(1);

/// Two that hear each other answer for one address with different MAC addresses.
#[derive(Clone, Debug)]
pub(crate) struct Overlap {
    pub(crate) address: IpAddr,
    pub(crate) nodes: (usize, usize),
    /// Since when both do so and hear each other.
    pub(crate) began: Instant,
    /// Since when they hear each other, and each is the process that it is now.
    pub(crate) met: Instant,
    /// One of the two heard the other's gossip in the life that it lives.
    pub(crate) known: bool,
    pub(crate) last: Instant,
}

/// What was measured since the last reset.
#[derive(Default)]
pub(crate) struct Measures {
    /// By address: since when nobody answers, since when two that hear each other do.
    silent: BTreeMap<IpAddr, Instant>,
    /// Since when somebody could answer in the owner's name.
    kept: BTreeMap<IpAddr, Instant>,
    double_since: BTreeMap<IpAddr, Instant>,
    /// Those that go on, and those that are over.
    open: BTreeMap<(IpAddr, usize, usize), Overlap>,
    pub(crate) overlaps: Vec<Overlap>,
    /// The longest time in which nobody answered, while one that may own was there all the time, or the owner's host and
    /// one that could answer in its name.
    pub(crate) longest_gap: Duration,
}

impl Host {
    /// Whether it could own at once: it runs, and may.
    pub(crate) fn is_fit(&self) -> bool {
        self.helps() && self.eligible
    }

    /// Whether it could at least answer in another's name.
    fn helps(&self) -> bool {
        self.speaker.is_some() && self.powered && !self.suspended && !self.stopping && self.link_up
    }
}

impl Sim {
    /// What each node would answer a client, as (node, MAC address in the answer).
    pub(crate) fn answers(&mut self, address: IpAddr) -> Vec<(usize, MacAddr)> {
        self.answers_on(LINK, address)
    }

    /// The same on one of the LANs.
    pub(crate) fn answers_on(&mut self, link: LinkIndex, address: IpAddr) -> Vec<(usize, MacAddr)> {
        let question = wire::question(address);
        let now = self.now;
        let mut answers = Vec::new();
        for (n, host) in self.hosts.iter_mut().enumerate() {
            if host.suspended || !host.hears_on(link, &question) {
                continue;
            }
            let reply = host.speaker.as_mut().and_then(|speaker| speaker.handle_frame(link, &question, now));
            if let Some(reply) = reply {
                let wire::Says::Answers(_, mac) = wire::read(&reply) else { panic!("no answer: {reply:?}") };
                answers.push((n, mac));
            }
        }
        answers
    }

    pub(super) fn sample(&mut self) {
        for n in 0..self.hosts.len() {
            let host = &mut self.hosts[n];
            host.fit_since = host.is_fit().then(|| host.fit_since.unwrap_or(self.now));
            host.helps_since = host.helps().then(|| host.helps_since.unwrap_or(self.now));
        }
        self.note_meetings();
        let fit = self.hosts.iter().filter_map(|host| host.fit_since).min();
        for address in self.addresses.clone() {
            let answers = self.answers(address);
            self.note_owner(address, &answers);
            if answers.is_empty() {
                let since = *self.measures.silent.entry(address).or_insert(self.now);
                self.longest_silence = self.longest_silence.max(self.now - since);
                let kept = self.measures.kept.get(&address).copied();
                let alone = fit
                    .into_iter()
                    .chain(kept)
                    .min()
                    .map(|fit| self.now - since.max(fit))
                    .unwrap_or_default();
                self.measures.longest_gap = self.measures.longest_gap.max(alone);
            } else {
                self.measures.silent.remove(&address);
            }
            self.note_doubles(address, &answers);
        }
    }

    /// Who owns an address, and since when that host still forwards and others know it, whatever its speaker does.
    fn note_owner(&mut self, address: IpAddr, answers: &[(usize, MacAddr)]) {
        let now = self.now;
        for (n, mac) in answers {
            if self.hosts[*n].mac == *mac {
                let since = self.owned.get(&address).filter(|(owner, ..)| owner == n);
                let since = since.map_or(now, |(_, since, _)| *since);
                self.owned.insert(address, (*n, since, now));
            }
        }
        let kept = self.owned.get(&address).is_some_and(|(owner, since, last)| {
            let knows = |helper: Instant| helper.max(*since) + KNOWN <= *last;
            let helpers = self.hosts.iter().enumerate().filter(|(n, _)| n != owner);
            let host = &self.hosts[*owner];
            let reached = host.powered && host.link_up && self.cut.is_empty() && self.deaf.is_empty();
            let mut helpers = helpers.filter_map(|(_, host)| host.helps_since);
            !self.settings.stand_in.is_zero() && reached && host.eligible && helpers.any(knows)
        });
        if kept {
            self.measures.kept.entry(address).or_insert(now);
        } else {
            self.measures.kept.remove(&address);
        }
    }

    /// Since when each two hear each other.
    fn note_meetings(&mut self) {
        let runs = |host: &Host| host.speaker.is_some() && host.powered && !host.suspended && host.link_up;
        for a in 0..self.hosts.len() {
            for b in a + 1..self.hosts.len() {
                let hear =
                    [(a, b), (b, a)].iter().all(|pair| !self.cut.contains(pair) && !self.deaf.contains(pair))
                        && runs(&self.hosts[a])
                        && runs(&self.hosts[b]);
                if !hear {
                    self.met.remove(&(a, b));
                } else {
                    self.met.entry((a, b)).or_insert(self.now);
                }
            }
        }
    }

    fn note_doubles(&mut self, address: IpAddr, answers: &[(usize, MacAddr)]) {
        let mut clash = false;
        for (a, mac) in answers {
            for (b, other) in answers.iter().filter(|(b, _)| b > a) {
                let apart = self.cut.contains(&(*a, *b)) || self.cut.contains(&(*b, *a));
                if mac == other || apart {
                    continue;
                }
                clash = true;
                let met = self.met.get(&(*a, *b)).copied();
                let (now, known) =
                    (self.now, self.heard.contains(&(*a, *b)) || self.heard.contains(&(*b, *a)));
                let Some(met) = met else { continue };
                let open = self.measures.open.entry((address, *a, *b)).or_insert_with(|| Overlap {
                    address,
                    nodes: (*a, *b),
                    began: now,
                    met,
                    known,
                    last: now,
                });
                open.last = now;
            }
        }
        let now = self.now;
        let over: Vec<_> = self
            .measures
            .open
            .iter()
            .filter(|((of, ..), overlap)| *of == address && overlap.last < now)
            .map(|(key, _)| *key)
            .collect();
        for key in over {
            self.measures.overlaps.extend(self.measures.open.remove(&key));
        }
        if clash {
            let since = *self.measures.double_since.entry(address).or_insert(now);
            let lasts = now - since + SAMPLE;
            if lasts == SAMPLE && std::env::var_os("SIM_TRACE").is_some() {
                eprintln!("{:?} {address} is answered by {answers:?}", self.elapsed());
            }
            self.longest_double = self.longest_double.max(lasts);
        } else {
            self.measures.double_since.remove(&address);
        }
    }

    /// Those that are over, and those that go on.
    pub(crate) fn overlaps(&self) -> impl Iterator<Item = &Overlap> {
        self.measures.overlaps.iter().chain(self.measures.open.values())
    }

    /// Forgets the overlaps that are over.
    pub(crate) fn forget_overlaps(&mut self) {
        self.measures.overlaps.clear();
    }

    /// The longest time without an answer while one that may own was there all the time.
    pub(crate) fn longest_gap(&self) -> Duration {
        self.measures.longest_gap
    }

    /// Forgets what was measured so far.
    pub(crate) fn reset_measures(&mut self) {
        self.measures = Measures::default();
        (self.longest_silence, self.longest_double) = (Duration::ZERO, Duration::ZERO);
    }

    pub(super) fn forget_doubles(&mut self) {
        self.measures.double_since.clear();
    }

    pub(crate) fn role(&self, n: usize, address: IpAddr) -> Role {
        self.hosts[n].speaker.as_ref().unwrap().address(address).unwrap().role
    }

    /// The one node that answers, with its own MAC address.
    pub(crate) fn owner(&mut self, address: IpAddr) -> usize {
        match self.answers(address)[..] {
            [(n, mac)] if mac == self.hosts[n].mac => n,
            ref other => panic!("{:?}: {address} is answered by {other:?}", self.elapsed()),
        }
    }
}
