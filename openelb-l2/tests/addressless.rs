//! Nodes whose link has no address of its own: when the speaker of one is gone, there is nothing to ask its host for.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests; any origin of time will do"
)]

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use openelb_l2::{
    MacAddr,
    speaker::{
        DesiredAddress, Link, LinkIndex, NodeName, Output, Peer, Role, Settings, Speaker, SpeakerConfig,
    },
};

const LINK: LinkIndex = LinkIndex(1);

fn peer(n: u8) -> Peer {
    let gossip = SocketAddr::from(([192, 0, 2, n], 7947));
    Peer::new(NodeName::new(&format!("node-{n}")).unwrap(), gossip)
}

fn run(nodes: &mut [Speaker], now: &mut Instant, time: Duration) {
    let end = *now + time;
    while *now < end {
        *now += Duration::from_millis(1);
        for at in 0..nodes.len() {
            if nodes[at].poll_timeout().is_some_and(|due| due <= *now) {
                nodes[at].handle_timeout(*now);
            }
            let from = nodes[at].config().gossip;
            while let Some(output) = nodes[at].poll_output() {
                let Output::Datagram { to, payload } = output else { continue };
                if let Some(node) = nodes.iter_mut().find(|node| node.config().gossip == to) {
                    node.handle_datagram(from, &payload, *now);
                }
            }
        }
    }
}

fn owners(nodes: &[Speaker], address: IpAddr) -> Vec<NodeName> {
    let owns = |node: &&Speaker| node.address(address).is_some_and(|one| one.role == Role::Owner);
    nodes.iter().filter(owns).map(|node| node.config().node.clone()).collect()
}

#[test]
fn an_owner_without_an_address_to_ask_for_is_replaced_when_it_is_gone() {
    let mut now = Instant::now();
    let addresses: Vec<IpAddr> = (100..110).map(|n| IpAddr::from([192, 0, 2, n])).collect();
    let speaker = |n: u8| {
        let Peer { node, gossip, .. } = peer(n);
        let mut speaker = Speaker::new(SpeakerConfig::new(node, gossip), Settings::default(), now).unwrap();
        speaker.set_links(vec![Link::new(LINK, "eth0", MacAddr::new([2, 0, 0, 0, 0, n]))], now);
        speaker.set_peers((1..=3).map(peer).collect(), now);
        speaker.set_desired(addresses.iter().map(|one| DesiredAddress::new(*one, [LINK])).collect(), now);
        speaker
    };
    let mut nodes: Vec<Speaker> = (1..=3).map(speaker).collect();
    run(&mut nodes, &mut now, Duration::from_secs(5));
    let before: Vec<_> = addresses.iter().map(|one| owners(&nodes, *one)).collect();
    assert!(before.iter().all(|owners| owners.len() == 1), "{before:?}");
    let dead = before[0][0].clone();
    nodes.retain(|node| node.config().node != dead);
    run(&mut nodes, &mut now, Duration::from_secs(2));
    for (address, before) in addresses.iter().zip(before) {
        let after = owners(&nodes, *address);
        assert_eq!(after.len(), 1, "{address}: {after:?}");
        assert!(after == before || before[0] == dead, "{address} moved without need");
    }
}
