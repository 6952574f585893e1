//! Two machines and the connections between them, on one virtual clock, in whatever order a seed gives.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::origin;
use crate::{
    fsm::{ConnectionInfo, Direction, DownReason, Fsm, FsmConfig, Output, State},
    wire::{Message, Notification, SessionContext},
};

/// What arrives at one end of a connection.
#[derive(Clone, Debug)]
enum Arrival {
    Connected,
    Bytes(Bytes),
    Closed,
}

/// A TCP connection. End 0 is machine 0.
#[derive(Clone, Debug)]
struct Tcp {
    opener: usize,
    open: [bool; 2],
    queues: [VecDeque<Arrival>; 2],
}

/// One machine and what it said.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) fsm: Fsm,
    /// The connection of each direction: outgoing, incoming.
    links: [Option<usize>; 2],
    pub(super) established: usize,
    /// Sessions that ended.
    pub(super) dropped: usize,
    pub(super) downs: Vec<DownReason>,
    pub(super) sent: Vec<Message>,
    up: bool,
}

/// Two machines.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) ends: [End; 2],
    connections: Vec<Tcp>,
    pub(super) now: Instant,
    random: u64,
    /// No connection can be opened, and nothing arrives.
    pub(super) cut: bool,
    /// Deliver in small pieces.
    pub(super) split: bool,
}

fn slot(direction: Direction) -> usize {
    usize::from(direction == Direction::Incoming)
}

pub(super) fn info(local: u8, remote: u8) -> ConnectionInfo {
    let address = |last| SocketAddr::from((Ipv4Addr::new(192, 0, 2, last), 179));
    ConnectionInfo { local: address(local), remote: address(remote) }
}

impl Pair {
    pub(super) fn new(configs: [FsmConfig; 2], seed: u64) -> Self {
        let end = |config, seed| End {
            fsm: Fsm::new(config, seed),
            links: [None, None],
            established: 0,
            dropped: 0,
            downs: Vec::new(),
            sent: Vec::new(),
            up: false,
        };
        let [a, b] = configs;
        Self {
            ends: [end(a, seed), end(b, !seed)],
            connections: Vec::new(),
            now: origin(),
            random: seed,
            cut: false,
            split: false,
        }
    }

    pub(super) fn start(&mut self) {
        for end in 0..2 {
            self.ends[end].fsm.start(self.now);
            self.drain(end);
        }
    }

    fn random(&mut self, below: usize) -> usize {
        // xorshift64*, never 0
        let mut x = self.random | 1;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random = x;
        usize::try_from(x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % below
    }

    /// Carries out what a machine wants.
    pub(super) fn drain(&mut self, end: usize) {
        while let Some(output) = self.ends[end].fsm.poll_output() {
            match output {
                Output::Connect => self.connect(end),
                Output::Send { direction, bytes } => self.send(end, direction, bytes),
                Output::Close { direction } => self.close(end, direction),
                Output::Established(_) => {
                    assert!(!self.ends[end].up, "two sessions at once");
                    self.ends[end].up = true;
                    self.ends[end].established += 1;
                }
                Output::Down(reason) => {
                    let end = &mut self.ends[end];
                    end.dropped += usize::from(std::mem::take(&mut end.up));
                    end.downs.push(reason);
                }
                Output::Update(_)
                | Output::RouteRefresh(_)
                | Output::EndOfRib(_)
                | Output::StateChanged(_) => {}
            }
        }
    }

    fn connect(&mut self, end: usize) {
        if self.cut {
            // The SYN is lost; the driver's timeout tells later.
            self.ends[end].fsm.handle_connect_failed(self.now);
            return self.drain(end);
        }
        let mut queues = [VecDeque::new(), VecDeque::new()];
        queues.iter_mut().for_each(|queue| queue.push_back(Arrival::Connected));
        self.ends[end].links[0] = Some(self.connections.len());
        self.connections.push(Tcp { opener: end, open: [true, true], queues });
    }

    fn send(&mut self, end: usize, direction: Direction, bytes: Bytes) {
        self.ends[end].sent.extend(Message::decode(&bytes, &SessionContext::default()).ok());
        let Some(id) = self.ends[end].links[slot(direction)] else { return };
        if !self.connections[id].open[end] {
            return;
        }
        if self.split {
            let mut rest = bytes;
            while !rest.is_empty() {
                let piece = rest.split_to(1 + self.random(rest.len().min(7)));
                self.connections[id].queues[1 - end].push_back(Arrival::Bytes(piece));
            }
        } else {
            self.connections[id].queues[1 - end].push_back(Arrival::Bytes(bytes));
        }
    }

    fn close(&mut self, end: usize, direction: Direction) {
        if let Some(id) = self.ends[end].links[slot(direction)].take() {
            self.hang_up(id, end);
        }
    }

    fn hang_up(&mut self, id: usize, end: usize) {
        let tcp = &mut self.connections[id];
        tcp.open[end] = false;
        tcp.queues[end].clear();
        tcp.queues[1 - end].push_back(Arrival::Closed);
    }

    /// The process behind an end is gone and another one is there: connections break, or (`silently`) the other end
    /// does not hear of it.
    pub(super) fn restart(&mut self, end: usize, config: FsmConfig, seed: u64, silently: bool) {
        for id in 0..self.connections.len() {
            if self.connections[id].open[end] {
                if silently {
                    self.connections[id].open[end] = false;
                    self.connections[id].queues[end].clear();
                } else {
                    self.hang_up(id, end);
                }
            }
        }
        self.ends[end].links = [None, None];
        self.ends[end].up = false;
        self.ends[end].fsm = Fsm::new(config, seed);
        self.ends[end].fsm.start(self.now);
        self.drain(end);
    }

    /// What can be delivered next: connection and end.
    pub(super) fn ready(&self) -> Vec<(usize, usize)> {
        let mut ready = Vec::new();
        for (id, tcp) in self.connections.iter().enumerate() {
            ready.extend(
                (0..2).filter(|end| tcp.open[*end] && !tcp.queues[*end].is_empty()).map(|end| (id, end)),
            );
        }
        ready
    }

    /// Connections that both ends still have.
    pub(super) fn open_connections(&self) -> Vec<usize> {
        let open = self.connections.iter().enumerate().filter(|(_, tcp)| tcp.open == [true, true]);
        open.map(|(id, _)| id).collect()
    }

    /// A connection breaks: what is under way is lost, and both ends hear of it.
    pub(super) fn break_connection(&mut self, id: usize) {
        for queue in &mut self.connections[id].queues {
            queue.retain(|arrival| matches!(arrival, Arrival::Connected));
            queue.push_back(Arrival::Closed);
        }
    }

    /// All that decides what happens from here on, as text.
    pub(super) fn fingerprint(&self) -> String {
        let ends =
            self.ends.each_ref().map(|end| (&end.fsm, end.links, end.established, end.dropped, end.up));
        format!("{ends:?}{:?}", self.connections)
    }

    /// Delivers something, chosen by the seed; `false`: nothing is under way.
    pub(super) fn step(&mut self) -> bool {
        let ready = self.ready();
        if ready.is_empty() || self.cut {
            return false;
        }
        let chosen = self.random(ready.len());
        self.deliver(ready[chosen]);
        true
    }

    /// Delivers the next of what is under way to an end of a connection.
    pub(super) fn deliver(&mut self, (id, end): (usize, usize)) {
        let direction =
            if self.connections[id].opener == end { Direction::Outgoing } else { Direction::Incoming };
        let arrival = self.connections[id].queues[end].pop_front().unwrap();
        let now = self.now;
        match arrival {
            Arrival::Connected => {
                if direction == Direction::Incoming {
                    if self.ends[end].links[1].is_some() {
                        self.hang_up(id, end); // the driver has one of this neighbour
                        return;
                    }
                    self.ends[end].links[1] = Some(id);
                }
                let ends = info(u8::try_from(end).unwrap() + 1, u8::try_from(1 - end).unwrap() + 1);
                self.ends[end].fsm.handle_connected(direction, ends, now);
            }
            Arrival::Bytes(bytes) => {
                if self.connections[id].open[1 - end] {
                    self.ends[1 - end].fsm.handle_write_progress(direction.other(), false, now);
                }
                self.ends[end].fsm.handle_bytes(direction, &bytes, now);
            }
            Arrival::Closed => {
                self.connections[id].open[end] = false;
                let link = &mut self.ends[end].links[slot(direction)];
                if *link == Some(id) {
                    *link = None;
                    self.ends[end].fsm.handle_closed(direction, now);
                }
            }
        }
        self.drain(end);
    }

    /// Delivers everything, and lets virtual time pass until then.
    pub(super) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let mut steps = 0;
            while self.step() {
                steps += 1;
                assert!(steps < 10_000, "they never come to rest");
            }
            let next = self.ends.iter().filter_map(|end| end.fsm.poll_timeout()).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            for end in 0..2 {
                self.ends[end].fsm.handle_timeout(self.now);
                let after = self.ends[end].fsm.poll_timeout();
                assert!(after.is_none_or(|at| at > self.now), "a deadline that has passed is still there");
                self.drain(end);
            }
        }
        self.now = until;
    }

    /// Whether both have a session, and over the same connection.
    pub(super) fn agree(&self) -> bool {
        let session = |end: &End| {
            (end.fsm.state() == State::Established && end.up).then(|| {
                let live: Vec<_> = end.links.iter().flatten().collect();
                (live.len() == 1).then(|| *live[0])
            })
        };
        matches!((session(&self.ends[0]), session(&self.ends[1])), (Some(Some(a)), Some(Some(b))) if a == b)
    }
}

/// A machine alone: what it sent, and what it did else.
pub(super) fn outputs(fsm: &mut Fsm) -> Vec<Output> {
    std::iter::from_fn(|| fsm.poll_output()).collect()
}

/// The NOTIFICATION among these.
pub(super) fn notification(outputs: &[Output]) -> Option<Notification> {
    outputs.iter().find_map(|output| match output {
        Output::Send { bytes, .. } => match Message::decode(bytes, &SessionContext::default()) {
            Ok(Message::Notification(notification)) => Some(notification),
            _ => None,
        },
        _ => None,
    })
}
