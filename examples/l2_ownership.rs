//! Leaderless ownership: three nodes in one process decide who owns an address, without a cluster, clock or socket.
//!
//! ```sh
//! cargo run -p openelb-examples --example l2_ownership
//! ```
//!
//! Each node is a machine: what it wants sent is asked of it, what came is handed in, and time is whatever the caller
//! says. Here datagrams arrive at once, and the LAN has no clients.

use std::time::{Duration, Instant};

use openelb_l2::{
    MacAddr,
    speaker::{
        DesiredAddress, Link, LinkIndex, NodeName, Output, Peer, Role, Settings, Speaker, SpeakerConfig,
    },
};

fn speaker(n: u8, nodes: &[Peer], now: Instant) -> anyhow::Result<Speaker> {
    let peer = nodes.get(usize::from(n)).ok_or_else(|| anyhow::anyhow!("no such node"))?;
    let config = SpeakerConfig::new(peer.node.clone(), peer.gossip);
    let mut speaker = Speaker::new(config, Settings::default(), now)?;
    speaker.set_links(vec![Link::new(LinkIndex(1), "eth0", MacAddr::new([2, 0, 0, 0, 0, n]))], now);
    speaker.set_peers(nodes.to_vec(), now);
    speaker.set_desired(vec![DesiredAddress::new("192.0.2.100".parse()?, [LinkIndex(1)])], now);
    Ok(speaker)
}

/// Lets a second go by in steps of a millisecond; says who owns the address at its end.
fn second(nodes: &mut [Speaker], now: &mut Instant) -> Vec<NodeName> {
    for _ in 0..1000 {
        *now += Duration::from_millis(1);
        nodes
            .iter_mut()
            .filter(|node| node.poll_timeout() <= Some(*now))
            .for_each(|node| node.handle_timeout(*now));
        for from in 0..nodes.len() {
            let Some(sender) = nodes.get_mut(from).map(|node| node.config().gossip) else { continue };
            while let Some(output) = nodes.get_mut(from).and_then(Speaker::poll_output) {
                let Output::Datagram { to, payload } = output else { continue };
                let receiver = nodes.iter_mut().find(|node| node.config().gossip == to);
                receiver.into_iter().for_each(|node| node.handle_datagram(sender, &payload, *now));
            }
        }
    }
    let owner = |node: &&Speaker| node.addresses().iter().any(|address| address.role == Role::Owner);
    nodes.iter().filter(owner).map(|node| node.config().node.clone()).collect()
}

fn decide() -> anyhow::Result<[Vec<NodeName>; 2]> {
    let mut now = Instant::now();
    let peer =
        |n: u8| Ok(Peer::new(NodeName::new(&format!("node-{n}"))?, format!("192.0.2.1{n}:7947").parse()?));
    let peers = (0..3).map(peer).collect::<anyhow::Result<Vec<_>>>()?;
    let mut nodes = (0..3).map(|n| speaker(n, &peers, now)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut settle =
        |nodes: &mut [Speaker]| (0..10).map(|_| second(nodes, &mut now)).last().unwrap_or_default();
    let first = settle(&mut nodes);
    nodes.retain(|node| !first.contains(&node.config().node));
    Ok([first, settle(&mut nodes)])
}

fn main() -> anyhow::Result<()> {
    let [first, next] = decide()?;
    println!("owner: {first:?}; after its death: {next:?}");
    Ok(())
}

#[test]
fn one_owner_always() {
    let [first, next] = decide().unwrap();
    assert_eq!((first.len(), next.len()), (1, 1), "{first:?} {next:?}");
    assert_ne!(first, next);
}
