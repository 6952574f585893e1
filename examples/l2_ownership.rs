//! Leaderless ownership: three nodes in one process decide who owns an address, without a cluster, clock or socket. Each is
//! a machine: what it wants sent is asked of it, what came is handed in, and time is what the caller says.

use std::time::{Duration, Instant};

use openelb_l2::{MacAddr, speaker as l2};

fn node(n: u8, now: Instant) -> anyhow::Result<l2::Speaker> {
    let peer = |n| anyhow::Ok(l2::Peer::new(format!("node-{n}").parse()?, ([192, 0, 2, n], 7947).into()));
    let config = l2::SpeakerConfig::new(peer(n)?.node, peer(n)?.gossip);
    let mut node = l2::Speaker::new(config, l2::Settings::default(), now)?;
    node.set_links(vec![l2::Link::new(l2::LinkIndex(1), "eth0", MacAddr::new([2, 0, 0, 0, 0, n]))], now);
    node.set_peers(vec![peer(1)?, peer(2)?, peer(3)?], now);
    node.set_desired(vec![l2::DesiredAddress::new("192.0.2.100".parse()?, [l2::LinkIndex(1)])], now);
    Ok(node)
}

/// Lets ten seconds go by, of which each node in turn has a millisecond; says who owns the address at their end.
fn ten_seconds(nodes: &mut [l2::Speaker], now: &mut Instant) -> Vec<l2::NodeName> {
    for _ in 0..10_000 {
        *now += Duration::from_millis(1);
        nodes.rotate_left(1);
        let Some((node, others)) = nodes.split_first_mut() else { continue };
        node.handle_timeout(*now);
        while let Some(output) = node.poll_output() {
            let l2::Output::Datagram { to, payload } = output else { continue };
            let Some(other) = others.iter_mut().find(|other| other.config().gossip == to) else { continue };
            other.handle_datagram(node.config().gossip, &payload, *now);
        }
    }
    let all = nodes.iter().flat_map(l2::Speaker::addresses);
    all.filter(|address| address.role == l2::Role::Owner).filter_map(|address| address.owner).collect()
}

pub(crate) fn owner_and_successor() -> anyhow::Result<[Vec<l2::NodeName>; 2]> {
    let mut now = Instant::now();
    let mut nodes = vec![node(1, now)?, node(2, now)?, node(3, now)?];
    let first = ten_seconds(&mut nodes, &mut now);
    nodes.retain(|node| !first.contains(&node.config().node));
    Ok([first, ten_seconds(&mut nodes, &mut now)])
}

fn main() -> anyhow::Result<()> {
    println!("the owner, and the one after its death: {:?}", owner_and_successor()?);
    Ok(())
}
