//! A BGP session of the measuring side: it counts what comes, sends bulks of routes, and keeps nothing.

#![allow(clippy::indexing_slicing, reason = "a malformed message ends the measurement, not a product")]

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use socket2::{Domain, Socket, Type};

/// Well within it every measurement ends, so that nothing here sends a keepalive while it measures.
pub(crate) const HOLD_TIME: u16 = 240;
/// How many prefixes share an attribute set in a bulk.
pub(crate) const PER_SET: u32 = 500;

/// Prefixes are host routes from here on.
const BASE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);

/// The prefix with this number, from 0 to 16,777,215.
pub(crate) fn address(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(BASE) + index)
}

const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
pub(crate) const KEEPALIVE: u8 = 4;
const ROUTE_REFRESH: u8 = 5;
const COMMUNITIES: u8 = 8;

pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xff; 16];
    out.extend_from_slice(&u16::try_from(19 + body.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.push(kind);
    out.extend_from_slice(body);
    out
}

/// What an UPDATE said about one prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Announced, with the first of its communities (0: none).
    Announced { prefix: Ipv4Addr, community: u32 },
    /// Withdrawn.
    Withdrawn { prefix: Ipv4Addr },
}

/// A session, Established.
pub(crate) struct Session {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    asn: u16,
    identifier: Ipv4Addr,
    /// When the other side became Established, at the latest.
    pub(crate) established: Instant,
    /// UPDATEs with at least one announced prefix.
    pub(crate) updates: u64,
    /// The code and subcode of the NOTIFICATION that ended it.
    pub(crate) notification: Option<(u8, u8)>,
}

impl Session {
    /// Connects from an address and waits for Established; tries again until then, as the speaker may still start.
    pub(crate) fn connect(
        local: Ipv4Addr,
        remote: SocketAddr,
        asn: u16,
        within: Duration,
    ) -> anyhow::Result<Self> {
        let deadline = Instant::now() + within;
        loop {
            let attempt = || -> anyhow::Result<Self> {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                socket.bind(&SocketAddr::from((local, 0)).into())?;
                socket.connect(&remote.into())?;
                Self::open(socket.into(), asn, local, within)
            };
            match attempt() {
                Ok(session) => return Ok(session),
                Err(error) if Instant::now() >= deadline => {
                    return Err(error.context(format!("no session from {local} to {remote}")));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Exchanges OPEN and KEEPALIVE on a connection.
    pub(crate) fn open(
        stream: TcpStream,
        asn: u16,
        identifier: Ipv4Addr,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_nodelay(true)?;
        let mut session = Self {
            stream,
            buffer: vec![0; 256 << 10],
            filled: 0,
            asn,
            identifier,
            established: Instant::now(),
            updates: 0,
            notification: None,
        };
        session.exchange()?;
        Ok(session)
    }

    fn exchange(&mut self) -> anyhow::Result<()> {
        let mut body = vec![4];
        body.extend_from_slice(&self.asn.to_be_bytes());
        body.extend_from_slice(&HOLD_TIME.to_be_bytes());
        body.extend_from_slice(&self.identifier.octets());
        let [high, low] = self.asn.to_be_bytes();
        // Multiprotocol IPv4 unicast, route refresh, four-octet AS numbers.
        let capabilities = [1, 4, 0, 1, 0, 1, 2, 0, 65, 4, 0, 0, high, low];
        let length = u8::try_from(capabilities.len())?;
        body.extend_from_slice(&[length + 2, 2, length]);
        body.extend_from_slice(&capabilities);
        self.stream.write_all(&message(OPEN, &body))?;
        loop {
            let (mut opened, mut confirmed) = (false, false);
            self.read(|kind, _| {
                opened |= kind == OPEN;
                confirmed |= kind == KEEPALIVE;
                kind == OPEN || kind == KEEPALIVE
            })?;
            if opened {
                // The speaker is Established when this reaches it. The clock of whoever measures must not start
                // later: on a busy machine the routes may be here before we run again.
                self.established = Instant::now();
                self.stream.write_all(&message(KEEPALIVE, &[]))?;
            }
            if confirmed {
                return Ok(());
            }
        }
    }

    fn has_message(&self) -> bool {
        let length = usize::from(u16::from_be_bytes([self.buffer[16], self.buffer[17]]));
        self.filled >= 19 && self.filled >= length
    }

    /// Reads if need be, and gives each whole message to `take` until it returns false; what it did not take stays.
    fn read(&mut self, mut take: impl FnMut(u8, &[u8]) -> bool) -> anyhow::Result<()> {
        if !self.has_message() {
            let free = &mut self.buffer[self.filled..];
            let read = self.stream.read(free).context("the speaker sent nothing in time")?;
            ensure!(read > 0, "the speaker closed the session");
            self.filled += read;
            // A sender without TCP_NODELAY would wait for our delayed acknowledgements: that is not what is measured.
            #[cfg(target_os = "linux")]
            socket2::SockRef::from(&self.stream).set_tcp_quickack(true)?;
        }
        let mut at = 0;
        while self.filled - at >= 19 {
            let length = usize::from(u16::from_be_bytes([self.buffer[at + 16], self.buffer[at + 17]]));
            ensure!(length >= 19, "a message of {length} octets");
            if self.filled - at < length {
                break;
            }
            let (kind, body) = (self.buffer[at + 18], &self.buffer[at + 19..at + length]);
            if kind == NOTIFICATION {
                self.notification = Some((body[0], body[1]));
                bail!("the speaker sent NOTIFICATION {body:?}");
            }
            if !take(kind, body) {
                break;
            }
            at += length;
        }
        self.buffer.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }

    /// Reads once; `each` is called with every prefix that is announced or withdrawn.
    pub(crate) fn read_updates(&mut self, mut each: impl FnMut(Change)) -> anyhow::Result<()> {
        let mut updates = 0;
        self.read(|kind, body| {
            if kind == UPDATE {
                let withdrawn = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let attributes = usize::from(u16::from_be_bytes([body[2 + withdrawn], body[3 + withdrawn]]));
                prefixes(&body[2..2 + withdrawn], |prefix| each(Change::Withdrawn { prefix }));
                let list = &body[4 + withdrawn + attributes..];
                if !list.is_empty() {
                    updates += 1;
                    let community = community(&body[4 + withdrawn..4 + withdrawn + attributes]);
                    prefixes(list, |prefix| each(Change::Announced { prefix, community }));
                }
            }
            true
        })?;
        self.updates += updates;
        Ok(())
    }

    /// Reads until `count` prefixes were announced; says when the first came, and the last.
    pub(crate) fn announced(&mut self, count: u32) -> anyhow::Result<(Instant, Instant)> {
        self.until(count, |change| matches!(change, Change::Announced { .. }))
    }

    /// Reads until `count` prefixes were withdrawn.
    pub(crate) fn withdrawn(&mut self, count: u32) -> anyhow::Result<(Instant, Instant)> {
        self.until(count, |change| matches!(change, Change::Withdrawn { .. }))
    }

    /// Reads until `count` different prefixes met a condition; says when the first came, and the last.
    pub(crate) fn until(
        &mut self,
        count: u32,
        meets: impl Fn(Change) -> bool,
    ) -> anyhow::Result<(Instant, Instant)> {
        let (mut first, mut seen, mut known) = (None, 0, Seen::default());
        loop {
            self.read_updates(|change| seen += u32::from(meets(change) && known.insert(change)))?;
            if seen > 0 {
                let now = Instant::now();
                let first = *first.get_or_insert(now);
                if seen >= count {
                    return Ok((first, now));
                }
            }
        }
    }

    /// Reads until this prefix is announced.
    pub(crate) fn wait_for(&mut self, address: Ipv4Addr) -> anyhow::Result<()> {
        let wanted = |change| matches!(change, Change::Announced { prefix, .. } if prefix == address);
        self.until(1, wanted).map(|_| ())
    }

    /// ROUTE-REFRESH of IPv4 unicast (RFC 2918).
    pub(crate) fn ask_for_all(&mut self) -> anyhow::Result<()> {
        Ok(self.stream.write_all(&message(ROUTE_REFRESH, &[0, 1, 0, 1]))?)
    }

    /// Sends bytes that were made before ([`bulk`]).
    pub(crate) fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }
}

/// The prefixes that were seen, one bit each.
#[derive(Default)]
struct Seen(Vec<u64>);

impl Seen {
    /// Whether it is new.
    fn insert(&mut self, change: Change) -> bool {
        let (Change::Announced { prefix, .. } | Change::Withdrawn { prefix }) = change;
        let index = u32::from(prefix).wrapping_sub(u32::from(BASE)) as usize;
        let (word, bit) = (index / 64, 1 << (index % 64));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }
}

fn prefixes(mut list: &[u8], mut each: impl FnMut(Ipv4Addr)) {
    while let Some(length) = list.first() {
        let size = 1 + usize::from(*length).div_ceil(8);
        let mut octets = [0; 4];
        octets[..size - 1].copy_from_slice(&list[1..size]);
        each(octets.into());
        list = &list[size..];
    }
}

/// The first community of a list of path attributes, or 0.
fn community(mut attributes: &[u8]) -> u32 {
    while attributes.len() >= 3 {
        let (flags, kind) = (attributes[0], attributes[1]);
        let (header, length) = if flags & 0x10 == 0 {
            (3, usize::from(attributes[2]))
        } else {
            (4, usize::from(u16::from_be_bytes([attributes[2], attributes[3]])))
        };
        let value = &attributes[header..header + length];
        if kind == COMMUNITIES && value.len() >= 4 {
            return u32::from_be_bytes([value[0], value[1], value[2], value[3]]);
        }
        attributes = &attributes[header + length..];
    }
    0
}

/// The UPDATEs that announce host routes, [`PER_SET`] to an attribute set: the neighbour's AS, a next hop that is no
/// loopback address, and one community, `community` and those that follow it.
pub(crate) fn bulk(asn: u16, addresses: impl IntoIterator<Item = Ipv4Addr>, community: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut addresses = addresses.into_iter().peekable();
    let mut set = community;
    while addresses.peek().is_some() {
        let mut attributes = vec![0x40, 1, 1, 0];
        attributes.extend_from_slice(&[0x40, 2, 6, 2, 1, 0, 0]);
        attributes.extend_from_slice(&asn.to_be_bytes());
        attributes.extend_from_slice(&[0x40, 3, 4, 192, 0, 2, 9]);
        attributes.extend_from_slice(&[0xc0, 8, 4]);
        attributes.extend_from_slice(&set.to_be_bytes());
        let mut body = vec![0, 0];
        body.extend_from_slice(&u16::try_from(attributes.len()).unwrap_or(u16::MAX).to_be_bytes());
        body.extend_from_slice(&attributes);
        for address in addresses.by_ref().take(PER_SET as usize) {
            body.push(32);
            body.extend_from_slice(&address.octets());
        }
        out.extend_from_slice(&message(UPDATE, &body));
        set += 1;
    }
    out
}
