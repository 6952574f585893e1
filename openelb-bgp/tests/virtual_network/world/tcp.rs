//! Connections: what is sent on one arrives whole and in order, late and in bursts.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use openelb_bgp::{fsm::ConnectionInfo, speaker::ConnectionId};

use super::{World, address};

/// What TCP sends again it sends after this, then after twice this, and so on.
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// What was lost while nothing got through is sent again within this after something does.
const BACKOFF: Duration = Duration::from_secs(3);
/// A speaker has no more octets under way on a connection: UPDATEs up to its window of 64 KiB, the one that goes over it,
/// and what needs no window.
const MOST_UNDER_WAY: usize = 2 * 65_536 + 4_096;

#[derive(Debug)]
pub(super) enum Item {
    Connected,
    Octets(Bytes),
    Closed,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) items: VecDeque<(Instant, Item)>,
    /// Octets that were not acknowledged.
    under_way: usize,
    /// Octets that have arrived, but nothing gets back to say so.
    unacknowledged: usize,
}

/// A TCP connection. End 0 has opened it. A lane leads to its end.
#[derive(Debug)]
pub(super) struct Tcp {
    pub(super) nodes: [usize; 2],
    pub(super) ids: [Option<ConnectionId>; 2],
    /// The process at this end has it.
    pub(super) open: [bool; 2],
    pub(super) lanes: [Lane; 2],
    pub(super) port: u16,
}

impl World {
    /// What was sent meanwhile comes by and by, in the order in which it was sent.
    pub(crate) fn heal(&mut self, from: usize, to: usize) {
        if !self.blocked.remove(&(from, to)) {
            return;
        }
        for id in 0..self.connections.len() {
            for end in [0, 1] {
                let nodes = self.connections[id].nodes;
                if (nodes[1 - end], nodes[end]) == (from, to) {
                    // TCP does not know that it could send again, and finds out.
                    let later =
                        self.now + Duration::from_millis(self.random(BACKOFF.as_millis() as usize) as u64);
                    for (at, _) in &mut self.connections[id].lanes[end].items {
                        *at = later.max(*at);
                    }
                    // Acknowledgements of what came the other way.
                    let octets = std::mem::take(&mut self.connections[id].lanes[1 - end].unacknowledged);
                    self.acknowledge(id, end, octets);
                }
            }
        }
    }

    /// An end is told that its octets have arrived.
    fn acknowledge(&mut self, id: usize, end: usize, octets: usize) {
        let Tcp { nodes, ids, open, lanes, .. } = &mut self.connections[id];
        lanes[1 - end].under_way = lanes[1 - end].under_way.saturating_sub(octets);
        let (node, connection, open) = (nodes[end], ids[end], open[end]);
        if let Some(connection) = connection.filter(|_| open && octets > 0) {
            let now = self.now;
            self.hosts[node].speaker.handle_written(connection, octets, now);
            self.drain(node);
        }
    }

    /// Something is on its way to an end, behind all that was sent before it.
    pub(super) fn enqueue(&mut self, id: usize, end: usize, item: Item) {
        let mut at = self.now + self.delay();
        let mut again = RETRANSMISSION;
        while self.chance(self.nature.loss) && again < BACKOFF {
            at += again;
            again *= 2;
        }
        let items = &mut self.connections[id].lanes[end].items;
        // What overtakes is not handed out before what it has overtaken.
        let at = items.back().map_or(at, |(before, _)| at.max(*before));
        items.push_back((at, item));
    }

    /// Octets in segments.
    pub(super) fn transmit(&mut self, id: usize, end: usize, mut bytes: Bytes) {
        self.connections[id].lanes[end].under_way += bytes.len();
        let under_way = self.connections[id].lanes[end].under_way;
        assert!(under_way <= MOST_UNDER_WAY, "{under_way} octets are under way to one neighbour");
        while !bytes.is_empty() {
            let length = (1 + self.random(self.nature.segment)).min(bytes.len());
            let segment = bytes.split_to(length);
            self.enqueue(id, end, Item::Octets(segment));
        }
    }

    pub(super) fn find(&self, node: usize, connection: ConnectionId) -> Option<(usize, usize)> {
        self.connections.iter().enumerate().find_map(|(id, tcp)| {
            let has =
                |end: &usize| tcp.open[*end] && tcp.nodes[*end] == node && tcp.ids[*end] == Some(connection);
            Some((id, (0..2).find(has)?))
        })
    }

    pub(super) fn hang_up(&mut self, id: usize, end: usize) {
        self.connections[id].open[end] = false;
        self.connections[id].lanes[end].items.clear();
        self.enqueue(id, 1 - end, Item::Closed);
    }

    fn info(&self, id: usize, end: usize) -> ConnectionInfo {
        let tcp = &self.connections[id];
        let ends = [
            SocketAddr::new(address(tcp.nodes[0]).into(), tcp.port),
            SocketAddr::new(address(tcp.nodes[1]).into(), 179),
        ];
        ConnectionInfo { local: ends[end], remote: ends[1 - end] }
    }

    /// What is there at an end is handed out.
    pub(super) fn arrive(&mut self, id: usize, end: usize) {
        let now = self.now;
        let items = &mut self.connections[id].lanes[end].items;
        let Some((_, first)) = items.pop_front() else { return };
        let node = self.connections[id].nodes[end];
        let open = self.connections[id].open[end];
        match first {
            Item::Octets(first) => {
                let mut burst = BytesMut::from(&*first);
                let items = &mut self.connections[id].lanes[end].items;
                while let Some((_, Item::Octets(next))) =
                    items.pop_front_if(|(at, item)| *at <= now && matches!(item, Item::Octets(_)))
                {
                    burst.extend_from_slice(&next);
                }
                if open {
                    self.hand_in(id, end, &burst);
                    let other = self.connections[id].nodes[1 - end];
                    if self.blocked.contains(&(node, other)) {
                        self.connections[id].lanes[end].unacknowledged += burst.len();
                    } else {
                        let octets = std::mem::take(&mut self.connections[id].lanes[end].unacknowledged);
                        self.acknowledge(id, 1 - end, octets + burst.len());
                    }
                } else if self.connections[id].open[1 - end] {
                    // Nobody is there: a reset is the answer.
                    self.enqueue(id, 1 - end, Item::Closed);
                }
            }
            _ if !open => {}
            Item::Connected => {
                let info = self.info(id, end);
                if end == 1 {
                    match self.hosts[node].speaker.accept(info, now) {
                        Ok(accepted) => self.connections[id].ids[1] = Some(accepted.connection),
                        Err(_) => self.hang_up(id, 1),
                    }
                }
                if let Some(connection) =
                    self.connections[id].ids[end].filter(|_| self.connections[id].open[end])
                {
                    self.hosts[node].speaker.handle_connected(connection, info, now);
                }
            }
            Item::Closed => {
                self.connections[id].open[end] = false;
                if let Some(connection) = self.connections[id].ids[end] {
                    self.hosts[node].speaker.handle_closed(connection, now);
                }
            }
        }
        self.drain(node);
    }

    /// Bytes as a program reads them: in pieces that have nothing to do with those that were sent.
    fn hand_in(&mut self, id: usize, end: usize, mut bytes: &[u8]) {
        let node = self.connections[id].nodes[end];
        while !bytes.is_empty() {
            // It may be closed by what it has read.
            let Some(connection) = self.connections[id].ids[end].filter(|_| self.connections[id].open[end])
            else {
                return;
            };
            let length = if self.chance(50) { bytes.len() } else { 1 + self.random(bytes.len()) };
            let (piece, rest) = bytes.split_at(length);
            let now = self.now;
            self.hosts[node].speaker.handle_bytes(connection, piece, now);
            bytes = rest;
            if self.chance(50) {
                self.drain(node);
            }
        }
    }

    /// The next thing to arrive on a connection: when, on which, at which end.
    pub(super) fn next_arrival(&self) -> Option<(Instant, usize, usize)> {
        let lanes = self.connections.iter().enumerate().flat_map(|(id, tcp)| {
            [0, 1].into_iter().filter_map(move |end| {
                let open = !self.blocked.contains(&(tcp.nodes[1 - end], tcp.nodes[end]));
                let (at, _) = tcp.lanes[end].items.front().filter(|_| open)?;
                Some((*at, id, end))
            })
        });
        lanes.min()
    }

    /// A connection between these two breaks, at both ends.
    pub(crate) fn break_one(&mut self) {
        if self.connections.is_empty() {
            return;
        }
        let id = self.random(self.connections.len());
        for end in [0, 1] {
            if self.connections[id].open[end] {
                self.connections[id].lanes[end].items.clear();
                self.enqueue(id, end, Item::Closed);
            }
        }
    }
}
