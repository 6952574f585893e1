//! Two BGP speakers in one process, on loopback: one announces addresses, the other counts them.
//!
//! ```sh
//! cargo run -p openelb-examples --example bgp_speaker
//! ```

use std::net::{IpAddr, SocketAddr};

use openelb_bgp::net::{self, Shutdown, SpeakerHandle};
use openelb_bgp::speaker::{PeerConfig, PeerStatus, Route, SpeakerConfig};

/// Until the neighbours have told of so many routes.
async fn received(speaker: &SpeakerHandle, count: u64) -> anyhow::Result<()> {
    let mut peers = speaker.watch_peers();
    peers.wait_for(|now| now.peers.values().map(PeerStatus::received_routes).sum::<u64>() == count).await?;
    Ok(())
}

/// Announces 100 routes to a speaker at this address, and withdraws 97.
pub async fn announce_and_withdraw(at: SocketAddr) -> anyhow::Result<()> {
    // The collector only listens.
    let mut collector = SpeakerConfig::new(64512, [192, 0, 2, 22].into());
    collector.listen = vec![at];
    let (collector, collecting) = net::spawn(collector)?;
    let mut from = PeerConfig::new("announcer", "127.0.0.21".parse()?, 64501);
    from.passive = true;
    collector.set_peers(vec![from])?;

    // The announcer connects, from an address of its own.
    let (announcer, announcing) = net::spawn(SpeakerConfig::new(64501, [192, 0, 2, 21].into()))?;
    let mut to = PeerConfig::new("collector", at.ip(), 64512);
    (to.port, to.local_address) = (at.port(), Some("127.0.0.21".parse()?));
    announcer.set_peers(vec![to])?;

    // Whole sets: what is not in the set any more is withdrawn.
    for count in [100, 3] {
        announcer.set_routes("services", (1..=count).map(|n| Route::new(IpAddr::from([203, 0, 113, n]))));
        received(&collector, count.into()).await?;
        println!("{count} routes are known");
    }
    announcer.shutdown(Shutdown::Notify);
    collector.shutdown(Shutdown::Notify);
    tokio::try_join!(announcing, collecting)?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    announce_and_withdraw("127.0.0.22:1790".parse()?).await
}
