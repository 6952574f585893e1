//! Two BGP speakers in one process, on loopback: one announces addresses, the other counts them.
//!
//! ```sh
//! cargo run -p openelb-examples --example bgp_speaker
//! ```

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::Context;
use ipnet::IpNet;
use openelb_bgp::{
    net::{self, Shutdown, SpeakerHandle},
    speaker::{PeerConfig, Route, SpeakerConfig},
};
use tokio::time::timeout;

/// Until this neighbour has told of so many prefixes.
async fn received(speaker: &SpeakerHandle, count: u64) -> anyhow::Result<()> {
    let mut peers = speaker.watch_peers();
    peers
        .wait_for(|snapshot| {
            let sessions = snapshot.peers.values().filter_map(|peer| peer.session.as_ref());
            sessions.flat_map(|session| &session.families).map(|family| family.received).sum::<u64>() == count
        })
        .await
        .context("the speaker has stopped")?;
    Ok(())
}

async fn run() -> anyhow::Result<()> {
    let collector_address: SocketAddr = ([127, 0, 0, 22], free_port()?).into();

    // The collector only listens.
    let mut collector = SpeakerConfig::new(64512, Ipv4Addr::new(192, 0, 2, 22));
    collector.listen = vec![collector_address];
    let (collector, collector_task) = net::spawn(collector)?;
    let mut from = PeerConfig::new("announcer", "127.0.0.21".parse()?, 64501);
    from.passive = true;
    collector.set_peers(vec![from])?;

    // The announcer connects, from an address of its own.
    let (announcer, announcer_task) = net::spawn(SpeakerConfig::new(64501, Ipv4Addr::new(192, 0, 2, 21)))?;
    let mut to = PeerConfig::new("collector", collector_address.ip(), 64512);
    to.port = collector_address.port();
    to.local_address = Some("127.0.0.21".parse()?);
    to.connect_retry_max = Duration::from_secs(1);
    announcer.set_peers(vec![to])?;

    // Whole sets: what is not in the set any more is withdrawn.
    let route = |last: u8| Route::new(IpNet::from(std::net::IpAddr::from([203, 0, 113, last])));
    announcer.set_routes("services", (1..=100).map(route));
    received(&collector, 100).await?;
    println!("100 routes received");
    announcer.set_routes("services", (1..=3).map(route));
    received(&collector, 3).await?;
    println!("97 of them withdrawn");

    announcer.shutdown(Shutdown::Notify);
    collector.shutdown(Shutdown::Notify);
    announcer_task.await?;
    collector_task.await?;
    Ok(())
}

/// A port that nobody listens on now.
fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.22", 0))?.local_addr()?.port())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    timeout(Duration::from_secs(20), run()).await.context("the routes did not arrive within 20 s")?
}

#[tokio::test]
async fn the_collector_sees_what_is_announced_and_withdrawn() {
    timeout(Duration::from_secs(20), run()).await.unwrap().unwrap();
}
