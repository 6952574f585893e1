//! Speakers on one virtual clock and one LAN: kernels that answer ARP for their own address, a switch that loses, delays
//! and duplicates, links that are cut in one or both directions, processes that crash, restart and are suspended.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use openelb_l2::{
    MacAddr,
    speaker::{
        DesiredAddress, Event, Link, LinkIndex, NodeName, Output, Peer, Role, Settings, Speaker,
        SpeakerConfig, StopMode,
    },
    wire::{Frame, arp, ethernet},
};

pub(crate) const LINK: LinkIndex = LinkIndex(2);
pub(crate) const CLIENT: MacAddr = MacAddr::new([2, 0xc, 0, 0, 0, 1]);
const SAMPLE: Duration = Duration::from_millis(10);

pub(crate) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(crate) struct Host {
    pub(crate) name: NodeName,
    pub(crate) mac: MacAddr,
    pub(crate) ip: Ipv4Addr,
    pub(crate) speaker: Option<Speaker>,
    pub(crate) powered: bool,
    pub(crate) suspended: bool,
    /// It was told to stop.
    pub(crate) stopping: bool,
    pub(crate) eligible: bool,
    pub(crate) uptime: Duration,
    pub(crate) started: u64,
    /// Datagrams wait in the socket of a suspended process; frames are dropped by the driver.
    waiting: Vec<(SocketAddr, Vec<u8>)>,
    pub(crate) events: Vec<(Duration, Event)>,
}

enum Delivery {
    Frame(usize, Frame),
    Datagram(usize, SocketAddr, Vec<u8>),
}

pub(crate) struct Sim {
    pub(crate) origin: Instant,
    pub(crate) now: Instant,
    pub(crate) hosts: Vec<Host>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) settings: Settings,
    queue: BTreeMap<(Instant, u64), Delivery>,
    counter: u64,
    random: u64,
    /// Share of datagrams and frames that are lost, and doubled, in 1/1000.
    pub(crate) loss: u64,
    pub(crate) double: u64,
    pub(crate) max_delay: Duration,
    /// Directions that are cut: (from, to).
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// The same, for datagrams only.
    pub(crate) deaf: BTreeSet<(usize, usize)>,
    /// This node does not hear the n-th claim of each address, with all frames of it.
    pub(crate) lost: Option<(usize, usize)>,
    claims: BTreeMap<Ipv4Addr, (usize, Instant)>,
    next_sample: Instant,
    /// By address: since when nobody answers, since when two that hear each other do.
    silent: BTreeMap<IpAddr, Instant>,
    double_since: BTreeMap<IpAddr, Instant>,
    pub(crate) longest_silence: Duration,
    pub(crate) longest_double: Duration,
    pub(crate) frames: u64,
    pub(crate) datagrams: u64,
    stranger: Option<(IpAddr, MacAddr)>,
    /// By address: who claimed it last on the wire, as a client hears it that hears all.
    pub(crate) claimed: BTreeMap<IpAddr, MacAddr>,
}

impl Sim {
    #[allow(clippy::disallowed_methods, reason = "any origin of time will do: only differences matter")]
    pub(crate) fn new(nodes: usize, addresses: usize, seed: u64) -> Self {
        let origin = Instant::now();
        let address = |n: usize| IpAddr::V4(Ipv4Addr::new(192, 0, 2, 100 + n as u8));
        let mut sim = Self {
            origin,
            now: origin,
            hosts: Vec::new(),
            addresses: (0..addresses).map(address).collect(),
            settings: Settings::default(),
            queue: BTreeMap::new(),
            counter: 0,
            random: seed,
            loss: 0,
            double: 0,
            max_delay: ms(2),
            cut: BTreeSet::new(),
            deaf: BTreeSet::new(),
            lost: None,
            claims: BTreeMap::new(),
            next_sample: origin,
            silent: BTreeMap::new(),
            double_since: BTreeMap::new(),
            longest_silence: Duration::ZERO,
            longest_double: Duration::ZERO,
            frames: 0,
            datagrams: 0,
            stranger: None,
            claimed: BTreeMap::new(),
        };
        for n in 0..nodes {
            sim.hosts.push(Host {
                name: NodeName::new(&format!("node-{n}")).unwrap(),
                mac: MacAddr::new([2, 0, 0, 0, 0, n as u8 + 1]),
                ip: Ipv4Addr::new(192, 0, 2, n as u8 + 1),
                speaker: None,
                powered: true,
                suspended: false,
                stopping: false,
                eligible: true,
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
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn gossip(n: usize) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(192, 0, 2, n as u8 + 1), 7947))
    }

    pub(crate) fn start(&mut self, n: usize) {
        let seed = self.random();
        let now = self.now;
        let all: Vec<_> = self
            .hosts
            .iter()
            .enumerate()
            .map(|(i, host)| Peer::new(host.name.clone(), Self::gossip(i)))
            .collect();
        let (settings, addresses) = (self.settings.clone(), self.addresses.clone());
        let host = &mut self.hosts[n];
        host.started += 1;
        host.powered = true;
        (host.suspended, host.stopping) = (false, false);
        let mut config = SpeakerConfig::new(host.name.clone(), Self::gossip(n));
        config.host_uptime = host.uptime;
        config.incarnation = host.started;
        config.seed = seed;
        let mut speaker = Speaker::new(config, settings, now).unwrap();
        let mut link = Link::new(LINK, "eth0", host.mac);
        link.addresses = vec![host.ip.into()];
        speaker.set_links(vec![link], now);
        speaker.set_peers(all, now);
        let eligible = host.eligible;
        speaker.set_desired(desired(&addresses, eligible), now);
        host.speaker = Some(speaker);
        self.drain(n);
    }

    pub(crate) fn set_eligible(&mut self, n: usize, eligible: bool) {
        self.hosts[n].eligible = eligible;
        let (now, wanted) = (self.now, desired(&self.addresses, eligible));
        self.act(n, |speaker| speaker.set_desired(wanted, now));
    }

    pub(crate) fn set_link_up(&mut self, n: usize, up: bool) {
        let now = self.now;
        let mut link = Link::new(LINK, "eth0", self.hosts[n].mac);
        link.addresses = vec![self.hosts[n].ip.into()];
        link.up = up;
        self.act(n, |speaker| speaker.set_links(vec![link], now));
    }

    /// kill -9
    pub(crate) fn kill(&mut self, n: usize) {
        self.hosts[n].speaker = None;
        self.hosts[n].waiting.clear();
        self.hosts[n].suspended = false;
    }

    pub(crate) fn power_off(&mut self, n: usize) {
        self.kill(n);
        self.hosts[n].powered = false;
    }

    pub(crate) fn stop(&mut self, n: usize, mode: StopMode) {
        let now = self.now;
        self.hosts[n].stopping = true;
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
        self.double_since.clear();
    }

    pub(crate) fn set_stranger(&mut self, stranger: Option<(IpAddr, MacAddr)>) {
        self.stranger = stranger;
    }

    /// A station that is no node claims an address.
    pub(crate) fn announce_stranger(&mut self, address: IpAddr, mac: MacAddr) {
        for frame in openelb_l2::announcer::announcement(address, mac) {
            for n in 0..self.hosts.len() {
                self.deliver(None, Delivery::Frame(n, frame), n);
            }
        }
    }

    /// A station that is no node asks whether an address is free.
    pub(crate) fn probe_stranger(&mut self, address: IpAddr, mac: MacAddr) {
        for n in 0..self.hosts.len() {
            let frame = openelb_l2::announcer::probe(address, mac);
            self.deliver(None, Delivery::Frame(n, frame), n);
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
                    assert_eq!(link, LINK);
                    self.send_frame(n, frame);
                }
                Some(Output::Datagram { to, payload }) => {
                    assert!(payload.len() <= 1400);
                    self.datagrams += 1;
                    let target = (0..self.hosts.len()).find(|i| Self::gossip(*i) == to);
                    if let Some(target) = target.filter(|t| !self.deaf.contains(&(n, *t))) {
                        self.deliver(Some(n), Delivery::Datagram(target, Self::gossip(n), payload), target);
                    }
                }
                Some(_) => {}
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
                Delivery::Frame(to, frame) => Delivery::Frame(*to, *frame),
                Delivery::Datagram(to, from, payload) => Delivery::Datagram(*to, *from, payload.clone()),
            };
            self.queue.insert((self.now + Duration::from_micros(50 + delay), self.counter), copy);
        }
    }

    fn send_frame(&mut self, from: usize, frame: Frame) {
        self.frames += 1;
        let (header, payload) = ethernet::Header::decode(&frame).unwrap();
        assert_eq!(header.source, self.hosts[from].mac, "a frame leaves with its own address");
        for to in 0..self.hosts.len() {
            let takes = !header.destination.is_unicast() || header.destination == self.hosts[to].mac;
            if to != from && takes && self.hosts[to].powered {
                self.deliver(Some(from), Delivery::Frame(to, frame), to);
            }
        }
        let Ok(packet) = arp::Packet::decode(payload) else { return };
        if packet.sender_ip == packet.target_ip {
            self.claimed.insert(packet.sender_ip.into(), packet.sender_mac);
        }
        if let Some((address, mac)) = self.stranger
            && packet.operation == arp::Operation::Request
            && address == IpAddr::V4(packet.target_ip)
        {
            let reply = packet.reply(mac).to_frame(mac, packet.sender_mac);
            self.deliver(None, Delivery::Frame(from, reply), from);
        }
    }

    fn receive(&mut self, delivery: Delivery) {
        let now = self.now;
        match delivery {
            Delivery::Frame(n, frame) => {
                if !self.hosts[n].powered {
                    return;
                }
                // The kernel answers for the address of the host.
                let (_, payload) = ethernet::Header::decode(&frame).unwrap();
                let packet = arp::Packet::decode(payload).unwrap();
                if packet.operation == arp::Operation::Request && packet.target_ip == self.hosts[n].ip {
                    let mac = self.hosts[n].mac;
                    self.send_frame(n, packet.reply(mac).to_frame(mac, packet.sender_mac));
                }
                if self.hosts[n].suspended {
                    return;
                }
                if let Some((_, nth)) = self.lost.filter(|(to, _)| *to == n)
                    && packet.sender_ip == packet.target_ip
                {
                    let (count, last) =
                        self.claims.entry(packet.sender_ip).or_insert_with(|| (0, now - ms(1000)));
                    if now - std::mem::replace(last, now) > ms(10) {
                        *count += 1;
                    }
                    if *count == nth + 1 {
                        return;
                    }
                }
                let mut reply = None;
                self.act(n, |speaker| reply = speaker.handle_frame(LINK, &frame, now));
                if let Some(reply) = reply {
                    self.send_frame(n, reply);
                }
            }
            Delivery::Datagram(n, from, payload) => {
                if self.hosts[n].suspended && self.hosts[n].speaker.is_some() {
                    self.hosts[n].waiting.push((from, payload));
                } else {
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
                self.next_sample = self.now + SAMPLE;
                self.sample();
            }
        }
    }

    /// What each node would answer a client, as (node, MAC address in the answer).
    pub(crate) fn answers(&mut self, address: IpAddr) -> Vec<(usize, MacAddr)> {
        let IpAddr::V4(target_ip) = address else { return Vec::new() };
        let request = arp::Packet {
            operation: arp::Operation::Request,
            sender_mac: CLIENT,
            sender_ip: Ipv4Addr::new(192, 0, 2, 250),
            target_mac: MacAddr::default(),
            target_ip,
        }
        .to_frame(CLIENT, MacAddr::BROADCAST);
        let now = self.now;
        let mut answers = Vec::new();
        for (n, host) in self.hosts.iter_mut().enumerate() {
            let Some(speaker) = host.speaker.as_mut().filter(|_| host.powered && !host.suspended) else {
                continue;
            };
            if let Some(reply) = speaker.handle_frame(LINK, &request, now) {
                let (_, payload) = ethernet::Header::decode(&reply).unwrap();
                answers.push((n, arp::Packet::decode(payload).unwrap().sender_mac));
            }
        }
        answers
    }

    fn sample(&mut self) {
        for address in self.addresses.clone() {
            let answers = self.answers(address);
            if answers.is_empty() {
                let since = *self.silent.entry(address).or_insert(self.now);
                self.longest_silence = self.longest_silence.max(self.now - since);
            } else {
                self.silent.remove(&address);
            }
            let clash = answers.iter().any(|(a, mac)| {
                answers.iter().any(|(b, other)| {
                    mac != other && !self.cut.contains(&(*a, *b)) && !self.cut.contains(&(*b, *a))
                })
            });
            if clash {
                let since = *self.double_since.entry(address).or_insert(self.now);
                let lasts = self.now - since + SAMPLE;
                if lasts == SAMPLE && std::env::var_os("SIM_TRACE").is_some() {
                    eprintln!("{:?} {address} is answered by {answers:?}", self.elapsed());
                }
                self.longest_double = self.longest_double.max(lasts);
            } else {
                self.double_since.remove(&address);
            }
        }
    }

    /// Forgets what was measured so far.
    pub(crate) fn reset_measures(&mut self) {
        self.silent.clear();
        self.double_since.clear();
        self.longest_silence = Duration::ZERO;
        self.longest_double = Duration::ZERO;
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

fn desired(addresses: &[IpAddr], eligible: bool) -> Vec<DesiredAddress> {
    addresses
        .iter()
        .map(|address| {
            let mut desired = DesiredAddress::new(*address, [LINK]);
            desired.eligible = eligible;
            desired
        })
        .collect()
}
