//! What nodes say to each other: one datagram is an envelope, a body, and a tag.
//!
//! | octets | what |
//! |---|---|
//! | 0–2 | `OL2` |
//! | 3 | version: 2, or 0x83 with a key |
//! | 4–11 | sender |
//! | 12–35 | with a key: receiver, and the number of the datagram: life and counter of the sender |
//! | 12, or 36 | kind of body |
//! | … | body, big-endian |
//! | last 16 | with a key: HMAC-SHA-256 over all before it, cut to 128 bits (RFC 2104 section 5) |
//!
//! Without a key a number would say nothing: anybody could write a higher one, and then the real sender would not be heard.

pub(crate) mod window;

use std::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use self::window::Number;
use super::rendezvous;
use crate::{MacAddr, speaker::GossipKey, speaker::NodeName};

/// The longest datagram that is sent or taken.
pub(crate) const MAX_DATAGRAM: usize = 1400;
const HEADER: usize = 37;
const TAG: usize = 16;
/// The longest body.
pub(crate) const MAX_BODY: usize = MAX_DATAGRAM - HEADER - TAG - RELAY;
/// What a relay adds.
const RELAY: usize = 17;
/// At most this many links of a node are told; the rest is not probed by others.
pub(crate) const MAX_LINKS: usize = 8;
/// At most this many links of others.
pub(crate) const MAX_KEPT: usize = 8;

/// A node in messages: the hash of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(pub(crate) u64);

impl NodeId {
    pub(crate) fn of(name: &NodeName) -> Self {
        Self(rendezvous::hash(name.as_str().as_bytes()))
    }
}

/// How well a node reaches the clients of an address: one with a link whose subnet holds the address (`near`) better than
/// any other, for nobody may ask on the links of that; then one that answers on more than one link.
pub(crate) fn reach(near: bool, beyond: usize) -> u8 {
    (if near { NEAR } else { 0 }) | u8::from(beyond > 0)
}

/// See [`reach`].
pub(crate) const fn is_near(reach: u8) -> bool {
    reach & NEAR != 0
}

/// On how many links beyond the first, of which only one counts.
pub(crate) fn beyond(reach: u8) -> usize {
    usize::from(reach & 1)
}

/// What a node says about one address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Item {
    /// It could own the address.
    pub(crate) candidate: bool,
    /// It may not own the address, but could answer in the owner's name.
    pub(crate) helper: bool,
    /// How well it reaches the clients, as [`reach`] says.
    pub(crate) reach: u8,
    /// The address was found free of strangers once.
    pub(crate) proven: bool,
    pub(crate) claim: Claim,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Claim {
    #[default]
    None,
    /// It answers. Of two claims at different times the later one has the higher number.
    Owner { sequence: u32 },
    /// It answers until this node has claimed.
    HandingOver { sequence: u32, to: NodeId },
    /// It answers with the MAC address of this owner, whose claim had that number.
    StandIn { sequence: u32, owner: NodeId },
}

/// A node's links, as others need them: link-layer address, and an address of the host to probe there.
pub(crate) type Links = Vec<(MacAddr, Option<IpAddr>)>;

/// The links of some nodes; at most [`MAX_KEPT`] links.
pub(crate) type Kept = Vec<(NodeId, Links)>;

/// What a node says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct About {
    /// Past its join delay.
    pub(crate) mature: bool,
    /// Knows what the others hold.
    pub(crate) settled: bool,
    /// Is about to restart.
    pub(crate) restarting: bool,
    pub(crate) links: Links,
    /// Links of nodes that are gone, in whose names it answers or asks whether it may: who comes later did not hear of them.
    pub(crate) kept: Kept,
}

/// A piece of a node's state: everything that changed after version `from` up to version `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// Which life of the node the versions are of.
    pub(crate) epoch: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// The newest version.
    pub(crate) last: u64,
    /// What was known before is to be forgotten.
    pub(crate) reset: bool,
    pub(crate) name: NodeName,
    pub(crate) about: About,
    pub(crate) items: Vec<(IpAddr, Item)>,
}

/// How much of a node's state another one has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) epoch: u64,
    pub(crate) version: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// SWIM, opaque here.
    Swim(Vec<u8>),
    State(State),
    /// This much of your state is here. Version 0 of an epoch: lives of yours with lower numbers are ignored.
    Ack(Mark),
    /// Tell me how much state you have; of yours, this much is here.
    Sync {
        nonce: u64,
        have: Mark,
    },
    /// The answer.
    Synced {
        nonce: u64,
        mark: Mark,
    },
    /// A datagram of yours with this number is here, and what you say now is behind it.
    Stale(Number),
    /// To be passed on, because there is no direct way from `origin` to `target`.
    Relay {
        target: NodeId,
        origin: NodeId,
        inner: Box<Self>,
    },
}

/// Lives of a node are numbered; a restart leaves so much room for those that begin without one, and for randomness.
const LIVES: u64 = 1 << 16;

/// The number of a life that begins with a process.
pub(crate) const fn life(incarnation: u64, random: u64) -> u64 {
    incarnation.saturating_mul(LIVES).saturating_add(random % (LIVES / 2))
}

/// A number above that of any life which the process of the life `number` can have led.
pub(crate) const fn life_after(number: u64) -> u64 {
    number.saturating_add(LIVES)
}

/// Whether the life `new` is of a later process than the life `old`.
pub(crate) const fn is_restarted(old: u64, new: u64) -> bool {
    new / LIVES > old / LIVES
}

/// What is on an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) sender: NodeId,
    pub(crate) receiver: NodeId,
    pub(crate) number: Number,
}

/// What was in one; without a key it has no number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) sender: NodeId,
    pub(crate) number: Option<Number>,
    pub(crate) body: Body,
}

const VERSION: u8 = 0x02;
const AUTHENTICATED: u8 = 0x83;

/// Puts a body into an envelope.
pub(crate) fn seal(key: Option<&GossipKey>, envelope: Envelope, body: &Body) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"OL2");
    out.push(if key.is_some() { AUTHENTICATED } else { VERSION });
    out.extend_from_slice(&envelope.sender.0.to_be_bytes());
    if key.is_some() {
        out.extend_from_slice(&envelope.receiver.0.to_be_bytes());
        encode_number(envelope.number, &mut out);
    }
    encode_body(body, &mut out);
    if let Some(mac) = key.and_then(mac) {
        let tag = mac.chain_update(&out).finalize().into_bytes();
        out.extend(tag.iter().take(TAG));
    }
    out
}

/// Takes a body out of an envelope for this node. `None`: not ours, a wrong or missing tag, for another, or broken.
pub(crate) fn open(key: Option<&GossipKey>, own: NodeId, datagram: &[u8]) -> Option<Opened> {
    if datagram.len() > MAX_DATAGRAM {
        return None;
    }
    let signed = match key {
        None => datagram,
        Some(key) => {
            let (signed, tag) = datagram.split_at_checked(datagram.len().checked_sub(TAG)?)?;
            mac(key)?.chain_update(signed).verify_truncated_left(tag).ok()?;
            signed
        }
    };
    let mut reader = Reader(signed);
    let version = if key.is_some() { AUTHENTICATED } else { VERSION };
    if reader.take::<4>()? != [b'O', b'L', b'2', version] {
        return None;
    }
    let sender = NodeId(reader.u64()?);
    let number = match key {
        // What was said to another is not for this node, whoever sends it here.
        Some(_) if NodeId(reader.u64()?) != own => return None,
        Some(_) => Some(reader.number()?),
        None => None,
    };
    let body = decode_body(&mut reader, true)?;
    reader.0.is_empty().then_some(Opened { sender, number, body })
}

fn encode_body(body: &Body, out: &mut Vec<u8>) {
    out.push(match body {
        Body::Swim(_) => 0,
        Body::State(_) => 1,
        Body::Ack(_) => 2,
        Body::Sync { .. } => 3,
        Body::Synced { .. } => 4,
        Body::Relay { .. } => 5,
        Body::Stale(_) => 6,
    });
    match body {
        Body::Swim(octets) => out.extend_from_slice(octets),
        Body::State(state) => encode_state(state, out),
        Body::Ack(mark) => encode_mark(*mark, out),
        Body::Stale(number) => encode_number(*number, out),
        Body::Sync { nonce, have: mark } | Body::Synced { nonce, mark } => {
            out.extend_from_slice(&nonce.to_be_bytes());
            encode_mark(*mark, out);
        }
        Body::Relay { target, origin, inner } => {
            out.extend_from_slice(&target.0.to_be_bytes());
            out.extend_from_slice(&origin.0.to_be_bytes());
            encode_body(inner, out);
        }
    }
}

fn decode_body(reader: &mut Reader<'_>, outer: bool) -> Option<Body> {
    Some(match reader.u8()? {
        0 if outer => Body::Swim(std::mem::take(&mut reader.0).to_vec()),
        1 => Body::State(decode_state(reader)?),
        2 => Body::Ack(reader.mark()?),
        3 => Body::Sync { nonce: reader.u64()?, have: reader.mark()? },
        4 => Body::Synced { nonce: reader.u64()?, mark: reader.mark()? },
        5 if outer => {
            let (target, origin) = (NodeId(reader.u64()?), NodeId(reader.u64()?));
            Body::Relay { target, origin, inner: Box::new(decode_body(reader, false)?) }
        }
        6 => Body::Stale(reader.number()?),
        _ => return None,
    })
}

/// A key of any length is good for HMAC; `None` never happens.
fn mac(key: &GossipKey) -> Option<Hmac<Sha256>> {
    Hmac::<Sha256>::new_from_slice(key.octets()).ok()
}

const RESET: u8 = 1;
const MATURE: u8 = 2;
const SETTLED: u8 = 4;
const RESTARTING: u8 = 8;

const CANDIDATE: u8 = 1;
const PROVEN: u8 = 2;
const OWNER: u8 = 4;
const HANDING_OVER: u8 = 8;
const STAND_IN: u8 = 12;
const CLAIM: u8 = 12;
const HELPER: u8 = 16;
const REACH: u8 = 5;
const MAX_REACH: u8 = 3;
const NEAR: u8 = 2;
const IPV6: u8 = 128;

fn encode_mark(mark: Mark, out: &mut Vec<u8>) {
    out.extend_from_slice(&mark.epoch.to_be_bytes());
    out.extend_from_slice(&mark.version.to_be_bytes());
}

fn encode_number(number: Number, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.life.to_be_bytes());
    out.extend_from_slice(&number.counter.to_be_bytes());
}

fn encode_ip(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()),
        IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
    }
}

/// The octets of an item in a message.
pub(crate) fn item_length(address: IpAddr, item: Item) -> usize {
    let address = if address.is_ipv6() { 16 } else { 4 };
    let claim = match item.claim {
        Claim::None => 0,
        Claim::Owner { .. } => 4,
        Claim::HandingOver { .. } | Claim::StandIn { .. } => 12,
    };
    1 + address + claim
}

/// The octets of a state without its items, at most.
pub(crate) fn state_overhead(name: &NodeName, about: &About) -> usize {
    let kept: usize = about.kept.iter().map(|(_, links)| 8 + 1 + links.len() * LINK).sum();
    4 * 8 + 1 + 1 + name.as_str().len() + 1 + MAX_LINKS * LINK + 1 + kept + 2
}

/// The octets of a link, at most.
const LINK: usize = 6 + 1 + 16;

/// The links of as many of these nodes as there is room for in a message.
pub(crate) fn kept<'a>(all: impl Iterator<Item = (NodeId, &'a Links)>) -> Kept {
    let mut room = MAX_KEPT;
    let mut kept = Kept::new();
    for (node, links) in all.filter(|(_, links)| !links.is_empty()) {
        // Without one of its links, it would seem to be silent there.
        if links.len() <= room {
            room -= links.len();
            kept.push((node, links.clone()));
        }
    }
    kept
}

fn encode_state(state: &State, out: &mut Vec<u8>) {
    for number in [state.epoch, state.from, state.to, state.last] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    let about = &state.about;
    out.push(
        flag(state.reset, RESET)
            | flag(about.mature, MATURE)
            | flag(about.settled, SETTLED)
            | flag(about.restarting, RESTARTING),
    );
    let name = state.name.as_str().as_bytes();
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(name);
    encode_links(&about.links, out);
    out.push(u8::try_from(about.kept.len().min(MAX_KEPT)).unwrap_or(0));
    for (node, links) in about.kept.iter().take(MAX_KEPT) {
        out.extend_from_slice(&node.0.to_be_bytes());
        encode_links(links, out);
    }
    out.extend_from_slice(&u16::try_from(state.items.len()).unwrap_or(u16::MAX).to_be_bytes());
    for (address, item) in &state.items {
        let claim = match item.claim {
            Claim::None => 0,
            Claim::Owner { .. } => OWNER,
            Claim::HandingOver { .. } => HANDING_OVER,
            Claim::StandIn { .. } => STAND_IN,
        };
        let flags =
            flag(item.candidate, CANDIDATE) | flag(item.proven, PROVEN) | flag(item.helper, HELPER) | claim;
        let reach = item.reach.min(MAX_REACH) << REACH;
        out.push(flags | reach | flag(address.is_ipv6(), IPV6));
        encode_ip(*address, out);
        match item.claim {
            Claim::None => {}
            Claim::Owner { sequence } => out.extend_from_slice(&sequence.to_be_bytes()),
            Claim::HandingOver { sequence, to } => {
                out.extend_from_slice(&sequence.to_be_bytes());
                out.extend_from_slice(&to.0.to_be_bytes());
            }
            Claim::StandIn { sequence, owner } => {
                out.extend_from_slice(&sequence.to_be_bytes());
                out.extend_from_slice(&owner.0.to_be_bytes());
            }
        }
    }
}

fn encode_links(links: &Links, out: &mut Vec<u8>) {
    out.push(u8::try_from(links.len().min(MAX_LINKS)).unwrap_or(0));
    for (mac, probe) in links.iter().take(MAX_LINKS) {
        out.extend_from_slice(&mac.octets());
        out.push(probe.map_or(0, |address| if address.is_ipv6() { 6 } else { 4 }));
        if let Some(address) = probe {
            encode_ip(*address, out);
        }
    }
}

fn decode_links(reader: &mut Reader<'_>) -> Option<Links> {
    let count = usize::from(reader.u8()?);
    if count > MAX_LINKS {
        return None;
    }
    let mut links = Links::with_capacity(count);
    for _ in 0..count {
        let mac = MacAddr::new(reader.take()?);
        let probe = match reader.u8()? {
            0 => None,
            family @ (4 | 6) => Some(reader.ip(family == 6)?),
            _ => return None,
        };
        links.push((mac, probe));
    }
    Some(links)
}

fn decode_kept(reader: &mut Reader<'_>) -> Option<Kept> {
    let count = usize::from(reader.u8()?);
    let mut kept = Kept::new();
    for _ in 0..count {
        kept.push((NodeId(reader.u64()?), decode_links(reader)?));
    }
    let links: usize = kept.iter().map(|(_, links)| links.len()).sum();
    (count <= MAX_KEPT && links <= MAX_KEPT).then_some(kept)
}

fn decode_state(reader: &mut Reader<'_>) -> Option<State> {
    let [epoch, from, to, last] = [reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?];
    let flags = reader.u8()?;
    let length = reader.u8()?;
    let name = NodeName::new(std::str::from_utf8(reader.slice(usize::from(length))?).ok()?).ok()?;
    let links = decode_links(reader)?;
    let kept = decode_kept(reader)?;
    let mut items = Vec::new();
    for _ in 0..u16::from_be_bytes(reader.take()?) {
        let flags = reader.u8()?;
        let address = reader.ip(flags & IPV6 != 0)?;
        let claim = match flags & CLAIM {
            0 => Claim::None,
            OWNER => Claim::Owner { sequence: u32::from_be_bytes(reader.take()?) },
            HANDING_OVER => {
                let sequence = u32::from_be_bytes(reader.take()?);
                Claim::HandingOver { sequence, to: NodeId(reader.u64()?) }
            }
            _ => {
                let sequence = u32::from_be_bytes(reader.take()?);
                Claim::StandIn { sequence, owner: NodeId(reader.u64()?) }
            }
        };
        let item = Item {
            candidate: flags & CANDIDATE != 0,
            helper: flags & HELPER != 0,
            reach: flags >> REACH & MAX_REACH,
            proven: flags & PROVEN != 0,
            claim,
        };
        items.push((address, item));
    }
    let about = About {
        mature: flags & MATURE != 0,
        settled: flags & SETTLED != 0,
        restarting: flags & RESTARTING != 0,
        links,
        kept,
    };
    (from <= to && to <= last).then_some(State {
        epoch,
        from,
        to,
        last,
        reset: flags & RESET != 0,
        name,
        about,
        items,
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (octets, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*octets)
    }

    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (octets, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(octets)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[octet]| octet)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn mark(&mut self) -> Option<Mark> {
        Some(Mark { epoch: self.u64()?, version: self.u64()? })
    }

    fn number(&mut self) -> Option<Number> {
        Some(Number { life: self.u64()?, counter: self.u64()? })
    }

    fn ip(&mut self, v6: bool) -> Option<IpAddr> {
        if v6 { self.take::<16>().map(IpAddr::from) } else { self.take::<4>().map(IpAddr::from) }
    }
}

#[cfg(test)]
mod tests;
