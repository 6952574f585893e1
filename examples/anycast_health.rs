//! Anycast with a health check: announces an address to a router as long as a TCP port answers, and withdraws it when
//! it does not. Run the same on several hosts, and the router sends each client to one that works.
//!
//! ```sh
//! cargo run -p openelb-examples --example anycast_health -- 203.0.113.53/32 127.0.0.1:53 192.0.2.1 64512 64513
//! ```

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use ipnet::IpNet;
use openelb_bgp::net::{self, SpeakerHandle};
use openelb_bgp::speaker::{BfdConfig, PeerConfig, Route, SpeakerConfig};
use tokio::{net::TcpStream, time::timeout};

/// A speaker with one neighbour.
pub fn speaker(router: PeerConfig, asn: u32) -> anyhow::Result<SpeakerHandle> {
    let (speaker, _task) = net::spawn(SpeakerConfig::new(asn, [192, 0, 2, 41].into()))?;
    speaker.set_peers(vec![router])?;
    Ok(speaker)
}

/// Announces `address` while `service` answers within `interval`; for ever.
pub async fn follow(speaker: &SpeakerHandle, address: IpNet, service: SocketAddr, interval: Duration) {
    loop {
        let healthy = matches!(timeout(interval, TcpStream::connect(service)).await, Ok(Ok(_)));
        // A whole set: the same one again sends nothing.
        speaker.set_routes("anycast", healthy.then(|| Route::new(address)));
        tokio::time::sleep(interval).await;
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, service, router, router_asn, asn] = arguments.as_slice() else {
        anyhow::bail!("usage: PREFIX ADDRESS:PORT ROUTER ROUTER_AS AS");
    };
    let mut router = PeerConfig::new("router", router.parse().context("ROUTER")?, router_asn.parse()?);
    // If this host dies, the router knows within a second.
    router.bfd = Some(BfdConfig::default());
    let speaker = speaker(router, asn.parse().context("AS")?)?;
    follow(&speaker, address.parse().context("PREFIX")?, service.parse()?, Duration::from_secs(1)).await;
    Ok(())
}
