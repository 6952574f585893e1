//! Speakers on one virtual clock and one LAN: kernels that answer ARP and neighbour discovery for their own addresses, a
//! switch that loses, delays and duplicates and passes groups on to members only, links that are cut in one or both
//! directions, processes that crash, restart and are suspended.
#![allow(dead_code, reason = "each suite uses a part of it")]

pub(crate) mod bounds;
pub(crate) mod measure;
pub(crate) mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use openelb_l2::{
    MacAddr, solicited_node_multicast,
    speaker::{
        DesiredAddress, Event, GossipKey, Link, LinkIndex, NodeName, NodeSet, Output, Peer, Settings,
        Speaker, SpeakerConfig, StopMode,
    },
    wire::{Frame, ethernet, ndp},
};

use measure::{Measures, SAMPLE};

pub(crate) const LINK: LinkIndex = LinkIndex(2);
/// The other LAN, of hosts that have a [`Second`].
pub(crate) const OTHER: LinkIndex = LinkIndex(3);
pub(crate) const CLIENT: MacAddr = MacAddr::new([2, 0xc, 0, 0, 0, 1]);

pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Which addresses there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    /// Hosts have no IPv4 addresses either.
    V6,
    /// In turn; hosts have addresses of both.
    Both,
}

pub(crate) struct Host {
    pub(crate) name: NodeName,
    pub(crate) mac: MacAddr,
    /// Its own, for which its kernel answers.
    pub(crate) ips: Vec<IpAddr>,
    /// Where its gossip is reached.
    pub(crate) gossip: SocketAddr,
    /// The groups that its speaker joined.
    pub(crate) groups: BTreeSet<Ipv6Addr>,
    pub(crate) link_up: bool,
    pub(crate) second: Option<Second>,
    fit_since: Option<Instant>,
    helps_since: Option<Instant>,
    pub(crate) speaker: Option<Speaker>,
    pub(crate) powered: bool,
    pub(crate) suspended: bool,
    /// It was told to stop.
    pub(crate) stopping: bool,
    pub(crate) eligible: bool,
    /// None of its subnets holds the addresses.
    pub(crate) far: bool,
    /// Its way back to the source of an ARP question is by another link, and its kernel is told not to answer then.
    pub(crate) strict: bool,
    pub(crate) uptime: Duration,
    pub(crate) started: u64,
    /// Datagrams wait in the socket of a suspended process; frames are dropped by the driver.
    waiting: Vec<(SocketAddr, Vec<u8>)>,
    pub(crate) events: Vec<(Duration, Event)>,
}

/// A link to another LAN.
pub(crate) struct Second {
    pub(crate) mac: MacAddr,
    pub(crate) ip: IpAddr,
    pub(crate) up: bool,
}

enum Delivery {
    Frame(usize, LinkIndex, Frame),
    Datagram(usize, SocketAddr, Vec<u8>),
}

pub(crate) struct Sim {
    pub(crate) origin: Instant,
    pub(crate) now: Instant,
    pub(crate) hosts: Vec<Host>,
    pub(crate) addresses: Vec<IpAddr>,
    /// The links of addresses, and those whose subnet holds them; of others [`LINK`].
    pub(crate) placed: BTreeMap<IpAddr, (Vec<LinkIndex>, Vec<LinkIndex>)>,
    /// Every node knows which nodes may own.
    pub(crate) knows_permitted: bool,
    pub(crate) settings: Settings,
    /// Gossip has one in every other history.
    key: Option<GossipKey>,
    queue: BTreeMap<(Instant, u64), Delivery>,
    counter: u64,
    random: u64,
    /// Share of datagrams and frames that are lost, and doubled, in 1/1000.
    pub(crate) loss: u64,
    pub(crate) double: u64,
    /// Share of frames for which the kernel of the sender has no room, in 1/1000; it has dice of its own.
    pub(crate) refusal: u64,
    refusals: u64,
    pub(crate) max_delay: Duration,
    /// Directions that are cut: (from, to).
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// The same, for datagrams only.
    pub(crate) deaf: BTreeSet<(usize, usize)>,
    next_sample: Instant,
    pub(crate) sample_every: Duration,
    measures: Measures,
    pub(crate) longest_silence: Duration,
    pub(crate) longest_double: Duration,
    /// This node does not hear the n-th claim of each address, with all frames of it.
    pub(crate) lost: Option<(usize, usize)>,
    claims: BTreeMap<IpAddr, (usize, Instant)>,
    /// By address: who answered last with its own MAC address and did not give it up; since when, and when last.
    owned: BTreeMap<IpAddr, (usize, Instant, Instant)>,
    /// Since when two hear each other, frames and gossip.
    met: BTreeMap<(usize, usize), Instant>,
    /// Who heard whose gossip in the life that it lives: (who, whose).
    heard: BTreeSet<(usize, usize)>,
    pub(crate) frames: u64,
    pub(crate) datagrams: u64,
    stranger: Option<(IpAddr, MacAddr)>,
    /// The switch answers in the place of all hosts, also of those that are off, what is sent to all (RFC 9161).
    pub(crate) proxy: bool,
    /// By address: who claimed it last on the wire, as a client hears it that hears all.
    pub(crate) claimed: BTreeMap<IpAddr, MacAddr>,
}

impl Host {
    fn mac_on(&self, link: LinkIndex) -> Option<MacAddr> {
        if link == LINK { Some(self.mac) } else { self.second.as_ref().map(|second| second.mac) }
    }

    fn is_up(&self, link: LinkIndex) -> bool {
        if link == LINK { self.link_up } else { self.second.as_ref().is_some_and(|second| second.up) }
    }

    /// Whether a frame from a wire gets past the network card there. The other LAN has IPv4 only.
    fn hears_on(&self, link: LinkIndex, frame: &[u8]) -> bool {
        if link == LINK {
            return self.hears(frame);
        }
        let (header, _) = ethernet::Header::decode(frame).unwrap();
        let own = Some(header.destination) == self.mac_on(link);
        self.powered && self.is_up(link) && (own || header.destination.is_broadcast())
    }

    fn has(&self, link: LinkIndex, address: IpAddr) -> bool {
        let second = self.second.as_ref().is_some_and(|second| second.ip == address);
        if link == LINK { self.ips.contains(&address) } else { second }
    }

    /// Whether a frame from the wire gets past its network card.
    fn hears(&self, frame: &[u8]) -> bool {
        let (header, _) = ethernet::Header::decode(frame).unwrap();
        let group = |address: &Ipv6Addr| header.destination == MacAddr::ipv6_multicast(*address);
        let own = self.ips.iter().filter_map(|ip| match ip {
            IpAddr::V6(ip) => Some(solicited_node_multicast(*ip)),
            IpAddr::V4(_) => None,
        });
        self.powered
            && self.link_up
            && (header.destination == self.mac
                || header.destination.is_broadcast()
                || group(&ndp::ALL_NODES)
                || self.groups.iter().any(group)
                || own.into_iter().any(|of| group(&of)))
    }
}

/// Throws dice.
fn throw(dice: &mut u64) -> u64 {
    *dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *dice;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Sim {
    pub(crate) fn new(nodes: usize, addresses: usize, seed: u64) -> Self {
        Self::of_family(Family::V4, nodes, addresses, seed)
    }

    #[allow(clippy::disallowed_methods, reason = "any origin of time will do: only differences matter")]
    pub(crate) fn of_family(family: Family, nodes: usize, addresses: usize, seed: u64) -> Self {
        let origin = Instant::now();
        let address = |n: usize| {
            let v6 = match family {
                Family::V4 => false,
                Family::V6 => true,
                Family::Both => n % 2 == 1,
            };
            if v6 {
                IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100 + n as u16))
            } else {
                // Beside those of hosts and of the client, or where there are none.
                let first =
                    if n < 100 { Ipv4Addr::new(192, 0, 2, 100) } else { Ipv4Addr::new(198, 18, 0, 0) };
                IpAddr::V4(Ipv4Addr::from_bits(first.to_bits() + n as u32))
            }
        };
        let mut sim = Self {
            origin,
            now: origin,
            hosts: Vec::new(),
            addresses: (0..addresses).map(address).collect(),
            placed: BTreeMap::new(),
            knows_permitted: false,
            settings: Settings::default(),
            key: GossipKey::new(b"a key of the cluster").filter(|_| seed % 2 == 1),
            queue: BTreeMap::new(),
            counter: 0,
            random: seed,
            loss: 0,
            double: 0,
            refusal: 0,
            refusals: seed,
            max_delay: ms(2),
            cut: BTreeSet::new(),
            deaf: BTreeSet::new(),
            next_sample: origin,
            sample_every: SAMPLE,
            measures: Measures::default(),
            longest_silence: Duration::ZERO,
            longest_double: Duration::ZERO,
            lost: None,
            claims: BTreeMap::new(),
            owned: BTreeMap::new(),
            met: BTreeMap::new(),
            heard: BTreeSet::new(),
            frames: 0,
            datagrams: 0,
            stranger: None,
            proxy: false,
            claimed: BTreeMap::new(),
        };
        for n in 0..nodes {
            let v4 = IpAddr::V4(Ipv4Addr::new(192, 0, 2, n as u8 + 1));
            let v6 = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n as u16 + 1));
            let local = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n as u16 + 1));
            let ips = match family {
                Family::V4 => vec![v4],
                Family::V6 => vec![local, v6],
                Family::Both => vec![v4, local, v6],
            };
            sim.hosts.push(Host {
                name: NodeName::new(&format!("node-{n}")).unwrap(),
                mac: MacAddr::new([2, 0, 0, 0, 0, n as u8 + 1]),
                ips,
                gossip: SocketAddr::new(if family == Family::V6 { v6 } else { v4 }, 7947),
                groups: BTreeSet::new(),
                link_up: true,
                second: None,
                fit_since: None,
                helps_since: None,
                speaker: None,
                powered: true,
                suspended: false,
                stopping: false,
                eligible: true,
                far: false,
                strict: false,
                uptime: Duration::from_secs(3600),
                started: 0,
                waiting: Vec::new(),
                events: Vec::new(),
            });
        }
        sim
    }

    pub(crate) fn with_all(nodes: usize, addresses: usize, seed: u64) -> Self {
        let mut sim = Self::new(nodes, addresses, seed);
        sim.start_all();
        sim
    }

    pub(crate) fn start_all(&mut self) {
        (0..self.hosts.len()).for_each(|n| self.start(n));
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.origin
    }

    pub(crate) fn random(&mut self) -> u64 {
        throw(&mut self.random)
    }

    /// All hosts get a link to another LAN, which all addresses are answered on, too.
    pub(crate) fn add_other_link(&mut self, home: &[LinkIndex]) {
        for (n, host) in self.hosts.iter_mut().enumerate() {
            let mac = MacAddr::new([2, 0, 0, 0, 1, n as u8 + 1]);
            let ip = IpAddr::V4(Ipv4Addr::new(198, 51, 100, n as u8 + 1));
            host.second = Some(Second { mac, ip, up: true });
        }
        for address in &self.addresses {
            self.placed.insert(*address, (vec![LINK, OTHER], home.to_vec()));
        }
    }

    pub(crate) fn links(&self, n: usize) -> Vec<Link> {
        let second = self.hosts[n].second.as_ref().map(|second| {
            let mut link = Link::new(OTHER, "eth1", second.mac);
            (link.addresses, link.up) = (vec![second.ip], second.up);
            link
        });
        std::iter::once(self.link(n)).chain(second).collect()
    }

    fn link(&self, n: usize) -> Link {
        let host = &self.hosts[n];
        let mut link = Link::new(LINK, "eth0", host.mac);
        link.addresses.clone_from(&host.ips);
        link.up = host.link_up;
        link
    }

    pub(crate) fn start(&mut self, n: usize) {
        self.begin(n);
        self.learn_peers(n);
        self.learn_links(n);
    }

    /// A process that hears of its peers so much later than of its links and addresses, and that nobody speaks to before.
    pub(crate) fn start_alone(&mut self, n: usize, lag: Duration) {
        self.begin(n);
        self.learn_links(n);
        self.deaf.extend((0..self.hosts.len()).flat_map(|other| [(n, other), (other, n)]));
        self.run(lag);
        self.deaf.clear();
        self.learn_peers(n);
    }

    /// The same, but it is told of no peers first.
    pub(crate) fn start_without_peers(&mut self, n: usize, lag: Duration) {
        self.begin(n);
        let now = self.now;
        self.act(n, |speaker| speaker.set_peers(Vec::new(), now));
        self.learn_links(n);
        self.deaf.extend((0..self.hosts.len()).flat_map(|other| [(n, other), (other, n)]));
        self.run(lag);
        self.deaf.clear();
        self.learn_peers(n);
    }

    /// A process that hears of its peers so much sooner than of its links and addresses.
    pub(crate) fn start_blind(&mut self, n: usize, lag: Duration) {
        self.begin(n);
        self.learn_peers(n);
        self.run(lag);
        self.learn_links(n);
    }

    pub(crate) fn peers(&self) -> Vec<Peer> {
        self.hosts.iter().map(|host| Peer::new(host.name.clone(), host.gossip)).collect()
    }

    fn learn_peers(&mut self, n: usize) {
        let (now, all) = (self.now, self.peers());
        self.act(n, |speaker| speaker.set_peers(all, now));
    }

    fn learn_links(&mut self, n: usize) {
        let (now, links, wanted) = (self.now, self.links(n), self.desired(n));
        self.act(n, |speaker| speaker.set_links(links, now));
        self.act(n, |speaker| speaker.set_desired(wanted, now));
    }

    fn begin(&mut self, n: usize) {
        let seed = self.random();
        let now = self.now;
        let settings = self.settings.clone();
        self.forget_life(n);
        self.hosts[n].link_up = true;
        let host = &mut self.hosts[n];
        host.started += 1;
        host.powered = true;
        (host.suspended, host.stopping) = (false, false);
        let mut config = SpeakerConfig::new(host.name.clone(), host.gossip);
        config.host_uptime = host.uptime;
        config.incarnation = host.started;
        config.seed = seed;
        config.key.clone_from(&self.key);
        host.speaker = Some(Speaker::new(config, settings, now).unwrap());
        self.drain(n);
    }

    pub(crate) fn set_eligible(&mut self, n: usize, eligible: bool) {
        self.hosts[n].eligible = eligible;
        if !eligible {
            self.disown(n);
        }
        let now = self.now;
        let all = self.knows_permitted;
        for other in 0..self.hosts.len() {
            // Who is suspended hears of it when it wakes.
            if other == n || all && !self.hosts[other].suspended {
                let wanted = self.desired(other);
                self.act(other, |speaker| speaker.set_desired(wanted, now));
            }
        }
    }

    pub(crate) fn set_link_up(&mut self, n: usize, up: bool) {
        let now = self.now;
        self.hosts[n].link_up = up;
        if !up {
            self.disown(n);
        }
        let links = self.links(n);
        self.act(n, |speaker| speaker.set_links(links, now));
    }

    pub(crate) fn set_other_link_up(&mut self, n: usize, up: bool) {
        let now = self.now;
        self.hosts[n].second.as_mut().unwrap().up = up;
        let links = self.links(n);
        self.act(n, |speaker| speaker.set_links(links, now));
    }

    /// kill -9
    pub(crate) fn kill(&mut self, n: usize) {
        self.hosts[n].speaker = None;
        self.hosts[n].suspended = false;
        self.forget_life(n);
    }

    /// What a process had goes with it.
    fn forget_life(&mut self, n: usize) {
        self.hosts[n].waiting.clear();
        self.hosts[n].groups.clear();
        self.hosts[n].fit_since = None;
        self.hosts[n].helps_since = None;
        self.heard.retain(|(who, _)| *who != n);
        self.met.retain(|(a, b), _| *a != n && *b != n);
    }

    pub(crate) fn power_off(&mut self, n: usize) {
        self.kill(n);
        self.hosts[n].powered = false;
        self.disown(n);
    }

    /// It gave up what it owned, or cannot be reached any more.
    fn disown(&mut self, n: usize) {
        self.owned.retain(|_, (owner, ..)| *owner != n);
    }

    pub(crate) fn stop(&mut self, n: usize, mode: StopMode) {
        let now = self.now;
        self.hosts[n].stopping = true;
        if mode == StopMode::Withdraw {
            self.disown(n);
        }
        self.act(n, |speaker| speaker.stop(mode, now));
    }

    pub(crate) fn suspend(&mut self, n: usize) {
        self.hosts[n].suspended = true;
    }

    pub(crate) fn resume(&mut self, n: usize) {
        if !std::mem::take(&mut self.hosts[n].suspended) {
            return;
        }
        let now = self.now;
        for (from, payload) in std::mem::take(&mut self.hosts[n].waiting) {
            self.act(n, |speaker| speaker.handle_datagram(from, &payload, now));
        }
        self.act(n, |speaker| speaker.handle_timeout(now));
        if self.knows_permitted {
            let wanted = self.desired(n);
            self.act(n, |speaker| speaker.set_desired(wanted, now));
        }
    }

    /// Nothing passes between the two groups.
    pub(crate) fn partition(&mut self, group: &[usize]) {
        for a in 0..self.hosts.len() {
            for b in 0..self.hosts.len() {
                if group.contains(&a) != group.contains(&b) {
                    self.cut.insert((a, b));
                }
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.deaf.clear();
        self.forget_doubles();
    }

    pub(crate) fn set_stranger(&mut self, stranger: Option<(IpAddr, MacAddr)>) {
        self.stranger = stranger;
    }

    /// A station that is no node claims an address.
    pub(crate) fn announce_stranger(&mut self, address: IpAddr, mac: MacAddr) {
        for frame in openelb_l2::announcer::announcement(address, mac) {
            for n in 0..self.hosts.len() {
                self.deliver(None, Delivery::Frame(n, LINK, frame), n);
            }
        }
    }

    /// A station that is no node asks whether an address is free.
    pub(crate) fn probe_stranger(&mut self, address: IpAddr, mac: MacAddr) {
        for n in 0..self.hosts.len() {
            let frame = openelb_l2::announcer::probe(address, mac);
            self.deliver(None, Delivery::Frame(n, LINK, frame), n);
        }
    }

    pub(crate) fn act(&mut self, n: usize, action: impl FnOnce(&mut Speaker)) {
        if let Some(speaker) = self.hosts[n].speaker.as_mut() {
            action(speaker);
            self.drain(n);
        }
    }

    fn drain(&mut self, n: usize) {
        let at = self.elapsed();
        while let Some(speaker) = self.hosts[n].speaker.as_mut() {
            match speaker.poll_output() {
                Some(Output::Frame { link, frame }) => {
                    let now = self.now;
                    if self.refusal > 0 && throw(&mut self.refusals) % 1000 < self.refusal {
                        speaker.handle_unsent(link, &frame, now);
                    } else {
                        self.send_frame(n, link, frame);
                    }
                }
                Some(Output::Datagram { to, payload }) => {
                    assert!(payload.len() <= 1400);
                    self.datagrams += 1;
                    let from = self.hosts[n].gossip;
                    let target = self.hosts.iter().position(|host| host.gossip == to);
                    if let Some(target) = target.filter(|t| !self.deaf.contains(&(n, *t))) {
                        self.deliver(Some(n), Delivery::Datagram(target, from, payload), target);
                    }
                }
                Some(Output::JoinGroup { link, group }) => {
                    assert!(link == LINK && self.hosts[n].groups.insert(group), "joined already: {group}");
                }
                Some(Output::LeaveGroup { link, group }) => {
                    assert!(link == LINK && self.hosts[n].groups.remove(&group), "never joined: {group}");
                }
                Some(other) => panic!("what is this? {other:?}"),
                None => match speaker.poll_event() {
                    Some(event) => {
                        if std::env::var_os("SIM_TRACE").is_some() {
                            eprintln!("{at:?} node-{n}: {event:?}");
                        }
                        self.hosts[n].events.push((at, event));
                    }
                    None => return,
                },
            }
        }
    }

    fn deliver(&mut self, from: Option<usize>, delivery: Delivery, to: usize) {
        if from.is_some_and(|from| self.cut.contains(&(from, to))) {
            return;
        }
        if self.random() % 1000 < self.loss {
            return;
        }
        let copies = if self.random() % 1000 < self.double { 2 } else { 1 };
        for _ in 0..copies {
            let delay = self.random() % (self.max_delay.as_micros() as u64 + 1);
            self.counter += 1;
            let copy = match &delivery {
                Delivery::Frame(to, link, frame) => Delivery::Frame(*to, *link, *frame),
                Delivery::Datagram(to, from, payload) => Delivery::Datagram(*to, *from, payload.clone()),
            };
            self.queue.insert((self.now + Duration::from_micros(50 + delay), self.counter), copy);
        }
    }

    fn send_frame(&mut self, from: usize, link: LinkIndex, frame: Frame) {
        self.frames += 1;
        let (header, _) = ethernet::Header::decode(&frame).unwrap();
        assert_eq!(Some(header.source), self.hosts[from].mac_on(link), "a frame leaves with its own address");
        if !self.hosts[from].is_up(link) {
            return;
        }
        for to in 0..self.hosts.len() {
            if to != from && self.hosts[to].hears_on(link, &frame) {
                self.deliver(Some(from), Delivery::Frame(to, link, frame), to);
            }
        }
        if link != LINK {
            return;
        }
        match wire::read(&frame) {
            wire::Says::Claims(address, mac) => drop(self.claimed.insert(address, mac)),
            wire::Says::Asks(asked) => {
                if let Some((address, mac)) = self.stranger
                    && address == asked
                    && let Some(answer) = wire::answer(&frame, mac)
                {
                    self.deliver(None, Delivery::Frame(from, link, answer), from);
                }
                if self.proxy
                    && !header.destination.is_unicast()
                    && let Some(host) = self.hosts.iter().find(|host| host.ips.contains(&asked))
                    && let Some(answer) = wire::answer(&frame, host.mac)
                {
                    self.deliver(None, Delivery::Frame(from, link, answer), from);
                }
            }
            wire::Says::Answers(..) => {}
        }
    }

    fn receive(&mut self, delivery: Delivery) {
        let now = self.now;
        match delivery {
            Delivery::Frame(n, link, frame) => {
                if !self.hosts[n].hears_on(link, &frame) {
                    return;
                }
                // The kernel answers for the addresses of the host.
                if let wire::Says::Asks(address) = wire::read(&frame)
                    && self.hosts[n].has(link, address)
                    && !(self.hosts[n].strict && wire::has_source(&frame))
                    && let Some(answer) = self.hosts[n].mac_on(link).and_then(|mac| wire::answer(&frame, mac))
                {
                    self.send_frame(n, link, answer);
                }
                if self.hosts[n].suspended {
                    return;
                }
                if let Some((_, nth)) = self.lost.filter(|(to, _)| *to == n)
                    && let wire::Says::Claims(address, _) = wire::read(&frame)
                {
                    let (count, last) = self.claims.entry(address).or_insert_with(|| (0, now - ms(1000)));
                    if now - std::mem::replace(last, now) > ms(10) {
                        *count += 1;
                    }
                    if *count == nth + 1 {
                        return;
                    }
                }
                let mut reply = None;
                self.act(n, |speaker| reply = speaker.handle_frame(link, &frame, now));
                if let Some(reply) = reply {
                    self.send_frame(n, link, reply);
                }
            }
            Delivery::Datagram(n, from, payload) => {
                if self.hosts[n].suspended && self.hosts[n].speaker.is_some() {
                    self.hosts[n].waiting.push((from, payload));
                } else {
                    let whose = self.hosts.iter().position(|host| host.gossip == from);
                    if self.hosts[n].speaker.is_some() {
                        self.heard.extend(whose.map(|whose| (n, whose)));
                    }
                    self.act(n, |speaker| speaker.handle_datagram(from, &payload, now));
                }
            }
        }
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let timeout = |host: &Host| {
                host.speaker.as_ref().filter(|_| !host.suspended).and_then(Speaker::poll_timeout)
            };
            let next = self
                .hosts
                .iter()
                .filter_map(timeout)
                .chain(self.queue.keys().next().map(|(at, _)| *at))
                .chain([self.next_sample])
                .min()
                .unwrap();
            if next > end {
                self.now = end;
                return;
            }
            assert!(next >= self.now - ms(1), "time stands still");
            self.now = self.now.max(next);
            while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let delivery = entry.remove();
                self.receive(delivery);
            }
            for n in 0..self.hosts.len() {
                if timeout(&self.hosts[n]).is_some_and(|at| at <= self.now) {
                    let now = self.now;
                    self.act(n, |speaker| speaker.handle_timeout(now));
                    let again = timeout(&self.hosts[n]);
                    assert!(again.is_none_or(|at| at > now), "a deadline is not met: node-{n} {again:?}");
                }
            }
            if self.next_sample <= self.now {
                self.next_sample = self.now + self.sample_every;
                self.sample();
            }
        }
    }
}

impl Sim {
    pub(crate) fn desired(&self, n: usize) -> Vec<DesiredAddress> {
        let (eligible, far) = (self.hosts[n].eligible, self.hosts[n].far);
        let may = self.hosts.iter().filter(|host| host.eligible).map(|host| &host.name);
        let permitted: Option<NodeSet> = self.knows_permitted.then(|| may.collect());
        let one = |address: &IpAddr| {
            let (links, home) = self.placed.get(address).cloned().unwrap_or_else(|| (vec![LINK], Vec::new()));
            let mut desired = DesiredAddress::new(*address, links);
            (desired.home, desired.eligible) = (if far { Vec::new() } else { home }, eligible);
            desired.permitted.clone_from(&permitted);
            desired
        };
        self.addresses.iter().map(one).collect()
    }
}
