//! Answers ARP requests and neighbour solicitations for the addresses of one link, and says who else claims one.
//!
//! ```
//! use openelb_l2::{MacAddr, responder::Responder, wire::{arp, ethernet}};
//!
//! let ours = MacAddr::new([0x52, 0x54, 0, 0, 0, 1]);
//! let theirs = MacAddr::new([0x52, 0x54, 0, 0, 0, 2]);
//! let mut responder = Responder::new(ours);
//! responder.insert("192.0.2.10".parse()?, ours);
//!
//! let request = arp::Packet {
//!     operation: arp::Operation::Request,
//!     sender_mac: theirs,
//!     sender_ip: "192.0.2.1".parse()?,
//!     target_mac: MacAddr::default(),
//!     target_ip: "192.0.2.10".parse()?,
//! };
//! let heard = responder.handle(&request.to_frame(theirs, MacAddr::BROADCAST))?;
//! let reply = heard.reply.ok_or("no answer")?;
//! let (_, payload) = ethernet::Header::decode(&reply)?;
//! assert_eq!(arp::Packet::decode(payload)?.sender_mac, ours);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Only requests to the broadcast address, to the link itself or to the solicited-node group are answered, and only for
//! the addresses that were inserted. Nothing is allocated for a frame, and the time does not depend on the number of
//! addresses.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
};

use foldhash::fast::FixedState;

use crate::{
    MacAddr, solicited_node_multicast,
    wire::{DecodeError, Frame, arp, ethernet, ndp},
};

/// Somebody says that an address is at a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claim {
    /// The address: ARP sender or the target of a neighbour advertisement.
    pub address: IpAddr,
    /// The station.
    pub mac: MacAddr,
}

/// What a frame means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Heard {
    /// The answer to send on the same link.
    pub reply: Option<Frame>,
    /// What its sender claims. The address may be any; the station is never the link itself.
    pub claim: Option<Claim>,
    /// What its sender is about to claim if nobody answers: a probe (RFC 5227 section 1.1) or duplicate address detection
    /// (RFC 4862 section 5.4.2) that came to the link.
    pub probe: Option<Claim>,
}

/// A change of multicast groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a group is joined or left")]
pub enum GroupChange {
    /// Join this solicited-node group.
    Join(Ipv6Addr),
    /// Leave it.
    Leave(Ipv6Addr),
}

/// Answers for the addresses of one link; see the [module](self).
#[derive(Debug)]
pub struct Responder {
    mac: MacAddr,
    answers: HashMap<IpAddr, MacAddr, FixedState>,
    groups: HashMap<Ipv6Addr, u32, FixedState>,
    changes: VecDeque<GroupChange>,
}

impl Responder {
    /// A responder for the link with this link-layer address, without addresses.
    pub fn new(mac: MacAddr) -> Self {
        Self { mac, answers: HashMap::default(), groups: HashMap::default(), changes: VecDeque::new() }
    }

    /// The link's own address.
    pub const fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Answers for `address` with `mac` from now on: the link's own, or, standing in, that of the address's owner. The
    /// Ethernet source is the link's own in either case, so that no switch learns a wrong port.
    pub fn insert(&mut self, address: IpAddr, mac: MacAddr) {
        if self.answers.insert(address, mac).is_none() {
            self.listen(address);
        }
    }

    /// Answers for `address` no more.
    pub fn remove(&mut self, address: IpAddr) {
        if self.answers.remove(&address).is_some() {
            self.ignore(address);
        }
    }

    /// Joins the group of an address without answering for it, to hear who claims it. Counted: as many
    /// [`ignore`](Self::ignore) as `listen` leave the group.
    pub fn listen(&mut self, address: IpAddr) {
        let IpAddr::V6(address) = address else { return };
        let group = solicited_node_multicast(address);
        let count = self.groups.entry(group).or_insert(0);
        if *count == 0 {
            self.changes.push_back(GroupChange::Join(group));
        }
        *count = count.saturating_add(1);
    }

    /// Takes one [`listen`](Self::listen) back.
    pub fn ignore(&mut self, address: IpAddr) {
        let IpAddr::V6(address) = address else { return };
        let group = solicited_node_multicast(address);
        if let Entry::Occupied(mut entry) = self.groups.entry(group) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
                self.changes.push_back(GroupChange::Leave(group));
            }
        }
    }

    /// With what `address` is answered.
    pub fn answer(&self, address: IpAddr) -> Option<MacAddr> {
        self.answers.get(&address).copied()
    }

    /// How many addresses are answered.
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether no address is answered.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// The groups that have members now, in no order.
    pub fn groups(&self) -> impl Iterator<Item = Ipv6Addr> + '_ {
        self.groups.keys().copied()
    }

    /// The next group to join or leave. A join and a leave of one group are both told, in their order.
    pub fn poll_group(&mut self) -> Option<GroupChange> {
        self.changes.pop_front()
    }

    /// Takes a frame in.
    ///
    /// # Errors
    ///
    /// The frame is neither ARP nor neighbour discovery, or is broken.
    pub fn handle(&self, frame: &[u8]) -> Result<Heard, DecodeError> {
        let (header, payload) = ethernet::Header::decode(frame)?;
        if header.source == self.mac {
            return Ok(Heard::default());
        }
        if !header.source.is_unicast() {
            return Err(DecodeError::Invalid("source of the frame"));
        }
        match header.ethertype {
            ethernet::ETHERTYPE_ARP => self.handle_arp(header, arp::Packet::decode(payload)?),
            ethernet::ETHERTYPE_IPV6 => self.handle_ndp(header, ndp::Packet::decode(payload)?),
            _ => Err(DecodeError::OtherProtocol),
        }
    }

    fn handle_arp(&self, header: ethernet::Header, packet: arp::Packet) -> Result<Heard, DecodeError> {
        if !packet.sender_mac.is_unicast() {
            return Err(DecodeError::Invalid("sender's link-layer address"));
        }
        let own = packet.sender_mac == self.mac;
        let names_sender = !packet.sender_ip.is_unspecified();
        let claim = (names_sender && !own)
            .then_some(Claim { address: IpAddr::V4(packet.sender_ip), mac: packet.sender_mac });
        let to_us = header.destination.is_broadcast() || header.destination == self.mac;
        let asks = packet.operation == arp::Operation::Request && packet.sender_ip != packet.target_ip;
        let reply = (to_us && asks)
            .then(|| self.answers.get(&IpAddr::V4(packet.target_ip)))
            .flatten()
            // A stand-in does not tell the owner of itself.
            .filter(|mac| **mac != packet.sender_mac)
            .map(|mac| packet.reply(*mac).to_frame(self.mac, packet.sender_mac));
        // One that is addressed to this station alone looks after it, as switches do, and not for a free address.
        let probe = (header.destination.is_broadcast() && packet.is_probe() && !own)
            .then_some(Claim { address: IpAddr::V4(packet.target_ip), mac: packet.sender_mac });
        Ok(Heard { reply, claim, probe })
    }

    fn handle_ndp(&self, header: ethernet::Header, packet: ndp::Packet) -> Result<Heard, DecodeError> {
        if packet.source.is_multicast() {
            return Err(DecodeError::Invalid("source"));
        }
        match packet.message {
            ndp::Message::Advertisement(advertisement) => {
                let mac = advertisement.target_mac.unwrap_or(header.source);
                if !mac.is_unicast() {
                    return Err(DecodeError::Invalid("target's link-layer address"));
                }
                let claim = Claim { address: IpAddr::V6(advertisement.target), mac };
                Ok(Heard { claim: (mac != self.mac).then_some(claim), ..Heard::default() })
            }
            ndp::Message::Solicitation(solicitation) => {
                // Its destination is the target's group: the decoder saw to it. The frame's may be this station alone.
                let probe = (packet.source.is_unspecified() && !header.destination.is_unicast())
                    .then_some(Claim { address: IpAddr::V6(solicitation.target), mac: header.source });
                Ok(Heard { reply: self.advertise(header, packet, solicitation), claim: None, probe })
            }
        }
    }

    /// The answer to a solicitation (RFC 4861 section 7.2.4; to duplicate address detection: RFC 4862 section 5.4.3).
    fn advertise(
        &self,
        header: ethernet::Header,
        packet: ndp::Packet,
        solicitation: ndp::Solicitation,
    ) -> Option<Frame> {
        let target = solicitation.target;
        let group = solicited_node_multicast(target);
        let to_us = (packet.destination == group && header.destination == MacAddr::ipv6_multicast(group))
            || (header.destination == self.mac
                && (packet.destination == target || packet.destination == group));
        let mac = *self.answers.get(&IpAddr::V6(target)).filter(|_| to_us)?;
        let detection = packet.source.is_unspecified();
        let (destination, station) = if detection {
            (ndp::ALL_NODES, MacAddr::ipv6_multicast(ndp::ALL_NODES))
        } else {
            (packet.source, solicitation.source_mac.unwrap_or(header.source))
        };
        if !detection && (!station.is_unicast() || station == mac || station == self.mac) {
            return None;
        }
        let message = ndp::Message::Advertisement(ndp::Advertisement {
            target,
            target_mac: Some(mac),
            router: false,
            solicited: !detection,
            override_: true,
        });
        Some(ndp::Packet { source: target, destination, message }.to_frame(self.mac, station))
    }
}

#[cfg(test)]
mod tests;
