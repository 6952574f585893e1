//! Frames of both families, as a client, a stranger and the kernel of a host make and read them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use openelb_l2::{
    MacAddr, solicited_node_multicast,
    wire::{Frame, arp, ethernet, ndp},
};

use super::CLIENT;

const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 250);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xc11e);

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// Somebody asks for an address.
    Asks(IpAddr),
    /// An address is at a station, unasked.
    Claims(IpAddr, MacAddr),
    /// An address is at a station, as an answer.
    Answers(IpAddr, MacAddr),
}

pub(crate) fn read(frame: &[u8]) -> Says {
    let (header, payload) = ethernet::Header::decode(frame).unwrap();
    if header.ethertype == ethernet::ETHERTYPE_ARP {
        let packet = arp::Packet::decode(payload).unwrap();
        let sender = IpAddr::V4(packet.sender_ip);
        return match packet.operation {
            _ if packet.sender_ip == packet.target_ip => Says::Claims(sender, packet.sender_mac),
            arp::Operation::Request => Says::Asks(packet.target_ip.into()),
            arp::Operation::Reply => Says::Answers(sender, packet.sender_mac),
        };
    }
    let packet = ndp::Packet::decode(payload).unwrap();
    match packet.message {
        ndp::Message::Solicitation(one) => Says::Asks(one.target.into()),
        ndp::Message::Advertisement(one) => {
            let (address, mac) = (one.target.into(), one.target_mac.unwrap_or(header.source));
            // To a probe is answered to all, too, and all believe it.
            if one.solicited { Says::Answers(address, mac) } else { Says::Claims(address, mac) }
        }
    }
}

/// A client's question.
pub(crate) fn question(address: IpAddr) -> Frame {
    match address {
        IpAddr::V4(target_ip) => arp::Packet {
            operation: arp::Operation::Request,
            sender_mac: CLIENT,
            sender_ip: CLIENT_V4,
            target_mac: MacAddr::default(),
            target_ip,
        }
        .to_frame(CLIENT, MacAddr::BROADCAST),
        IpAddr::V6(target) => {
            let destination = solicited_node_multicast(target);
            let message = ndp::Message::Solicitation(ndp::Solicitation { target, source_mac: Some(CLIENT) });
            ndp::Packet { source: CLIENT_V6, destination, message }
                .to_frame(CLIENT, MacAddr::ipv6_multicast(destination))
        }
    }
}

/// Whether this is an ARP question with a source.
pub(crate) fn has_source(frame: &[u8]) -> bool {
    let (header, payload) = ethernet::Header::decode(frame).unwrap();
    let arp = header.ethertype == ethernet::ETHERTYPE_ARP;
    arp && arp::Packet::decode(payload).is_ok_and(|packet| !packet.is_probe())
}

/// What a host says that has the address of which a frame asks; `None`: it asks for nothing.
pub(crate) fn answer(frame: &[u8], mac: MacAddr) -> Option<Frame> {
    let (header, payload) = ethernet::Header::decode(frame).unwrap();
    if header.ethertype == ethernet::ETHERTYPE_ARP {
        let packet = arp::Packet::decode(payload).unwrap();
        let asks = packet.operation == arp::Operation::Request && packet.sender_ip != packet.target_ip;
        return asks.then(|| packet.reply(mac).to_frame(mac, packet.sender_mac));
    }
    let packet = ndp::Packet::decode(payload).unwrap();
    let ndp::Message::Solicitation(asked) = packet.message else { return None };
    let probe = packet.source.is_unspecified();
    let (destination, station) = if probe {
        (ndp::ALL_NODES, MacAddr::ipv6_multicast(ndp::ALL_NODES))
    } else {
        (packet.source, asked.source_mac.unwrap_or(header.source))
    };
    let message = ndp::Message::Advertisement(ndp::Advertisement {
        target: asked.target,
        target_mac: Some(mac),
        router: false,
        solicited: !probe,
        override_: true,
    });
    Some(ndp::Packet { source: asked.target, destination, message }.to_frame(mac, station))
}
