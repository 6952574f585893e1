//! A route collector: takes sessions from anybody in a prefix, announces nothing, and prints who tells how much.
//!
//! ```sh
//! cargo run -p openelb-examples --example route_collector -- 127.0.0.31:1790 127.0.0.0/8 64512
//! ```

use std::net::SocketAddr;

use anyhow::Context;
use ipnet::IpNet;
use openelb_bgp::net::{self, SpeakerHandle};
use openelb_bgp::speaker::{
    DynamicPeers, PeerConfig, PeerStatus, PeersSnapshot, ReceivedRoutes, SpeakerConfig,
};

/// Takes neighbours from within a prefix, whatever their AS number.
pub fn collect(listen: SocketAddr, prefix: IpNet, asn: u32) -> anyhow::Result<SpeakerHandle> {
    let mut config = SpeakerConfig::new(asn, [192, 0, 2, 31].into());
    config.listen = vec![listen];
    let (speaker, _task) = net::spawn(config)?;
    // Its address is not used: each neighbour has the one that it connects from. AS number 0: any.
    let mut template = PeerConfig::new("collected", prefix.addr(), 0);
    template.received_routes = ReceivedRoutes::Keep;
    speaker.set_dynamic_peers(vec![DynamicPeers { prefix, template, max_peers: 100 }])?;
    Ok(speaker)
}

/// Shows the neighbours after each change; ends with the speaker.
pub async fn report(speaker: &SpeakerHandle, mut show: impl FnMut(&PeersSnapshot)) {
    let mut peers = speaker.watch_peers();
    while peers.changed().await.is_ok() {
        show(&peers.borrow_and_update());
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, prefix, asn] = arguments.as_slice() else { anyhow::bail!("usage: ADDRESS:PORT PREFIX AS") };
    let collector = collect(listen.parse()?, prefix.parse()?, asn.parse().context("AS")?)?;
    let line =
        |peer: &PeerStatus| println!("{}: {:?}, {} routes", peer.name, peer.state, peer.received_routes());
    report(&collector, |now| now.peers.values().for_each(line)).await;
    Ok(())
}
