//! A route collector: takes sessions from anybody in a prefix, announces nothing, and prints who tells how much.
//!
//! ```sh
//! cargo run -p openelb-examples --example route_collector -- 127.0.0.31:1790 127.0.0.0/8 64512
//! ```

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use ipnet::IpNet;
use openelb_bgp::{
    net::{self, SpeakerHandle},
    speaker::{DynamicPeers, PeerConfig, ReceivedRoutes, SpeakerConfig},
};

/// Starts a collector.
fn collect(listen: SocketAddr, prefix: IpNet, asn: u32) -> anyhow::Result<SpeakerHandle> {
    let mut config = SpeakerConfig::new(asn, Ipv4Addr::new(192, 0, 2, 31));
    config.listen = vec![listen];
    let (speaker, _task) = net::spawn(config)?;
    // Its address is not used: each neighbour has the one that it connects from. AS number 0: any.
    let mut template = PeerConfig::new("collected", prefix.addr(), 0);
    template.received_routes = ReceivedRoutes::Keep;
    speaker.set_dynamic_peers(vec![DynamicPeers { prefix, template, max_peers: 100 }])?;
    Ok(speaker)
}

/// Prints each change, until `enough` prefixes were told by all neighbours together.
async fn report(speaker: &SpeakerHandle, enough: u64) -> anyhow::Result<()> {
    let mut peers = speaker.watch_peers();
    loop {
        let mut sum = 0;
        for (name, peer) in &peers.borrow_and_update().peers {
            let received: u64 =
                peer.session.iter().flat_map(|session| &session.families).map(|family| family.received).sum();
            println!("{name}: {:?}, {received} prefixes", peer.state);
            sum += received;
        }
        if sum >= enough {
            return Ok(());
        }
        peers.changed().await.context("the speaker has stopped")?;
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| {
        arguments.next().with_context(|| format!("usage: ADDRESS:PORT PREFIX AS; {what} is missing"))
    };
    let (listen, prefix, asn) =
        (next("ADDRESS:PORT")?.parse()?, next("PREFIX")?.parse()?, next("AS")?.parse()?);
    let speaker = collect(listen, prefix, asn)?;
    report(&speaker, u64::MAX).await
}

#[tokio::test]
async fn what_a_neighbour_announces_is_collected() {
    let free = std::net::TcpListener::bind(("127.0.0.31", 0)).unwrap().local_addr().unwrap();
    let collector = collect(free, "127.0.0.32/32".parse().unwrap(), 64512).unwrap();
    let (announcer, _) = net::spawn(SpeakerConfig::new(64513, Ipv4Addr::new(192, 0, 2, 32))).unwrap();
    let mut to = PeerConfig::new("collector", free.ip(), 64512);
    to.port = free.port();
    to.local_address = Some("127.0.0.32".parse().unwrap());
    to.connect_retry_max = std::time::Duration::from_secs(1);
    announcer.set_peers(vec![to]).unwrap();
    let route =
        |last: u8| openelb_bgp::speaker::Route::new(IpNet::from(std::net::IpAddr::from([203, 0, 113, last])));
    announcer.set_routes("test", (1..=20).map(route));
    tokio::time::timeout(std::time::Duration::from_secs(20), report(&collector, 20)).await.unwrap().unwrap();
}
