//! Anycast with a health check: announces an address to a router as long as a TCP port answers, and withdraws it when
//! it does not. Run the same on several hosts, and the router sends each client to one that works.
//!
//! ```sh
//! cargo run -p openelb-examples --example anycast_health -- 203.0.113.53/32 127.0.0.1:53 192.0.2.1 64512 64513
//! ```

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::Context;
use ipnet::IpNet;
use openelb_bgp::{
    bfd,
    net::{self, SpeakerHandle},
    speaker::{BfdConfig, PeerConfig, Route, SpeakerConfig},
};
use tokio::{net::TcpStream, time::timeout};

/// A speaker with one neighbour, watched by BFD: if this host dies, the router knows within a second.
fn speaker(router: PeerConfig, asn: u32) -> anyhow::Result<SpeakerHandle> {
    let (speaker, _task) = net::spawn(SpeakerConfig::new(asn, Ipv4Addr::new(192, 0, 2, 41)))?;
    speaker.set_peers(vec![router])?;
    Ok(speaker)
}

/// Announces `address` while `service` answers within `interval`; for ever.
async fn follow(speaker: &SpeakerHandle, address: IpNet, service: SocketAddr, interval: Duration) {
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
    let mut router = PeerConfig::new(
        "router",
        router.parse().context("ROUTER")?,
        router_asn.parse().context("ROUTER_AS")?,
    );
    router.bfd = Some(BfdConfig { timers: bfd::Timers::default(), minimum_ttl: None });
    let speaker = speaker(router, asn.parse().context("AS")?)?;
    follow(&speaker, address.parse().context("PREFIX")?, service.parse()?, Duration::from_secs(1)).await;
    Ok(())
}

#[tokio::test]
async fn the_address_comes_and_goes_with_the_service() {
    let free = |last: u8| {
        std::net::TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), 0)).unwrap().local_addr().unwrap()
    };
    let mut config = SpeakerConfig::new(64512, Ipv4Addr::new(192, 0, 2, 42));
    config.listen = vec![free(42)];
    let (router, _) = net::spawn(config.clone()).unwrap();
    let mut host = PeerConfig::new("host", "127.0.0.41".parse().unwrap(), 64513);
    host.passive = true;
    router.set_peers(vec![host]).unwrap();
    let mut to = PeerConfig::new("router", "127.0.0.42".parse().unwrap(), 64512);
    to.port = config.listen[0].port();
    to.local_address = Some("127.0.0.41".parse().unwrap());
    to.connect_retry_max = Duration::from_secs(1);
    let anycast = speaker(to, 64513).unwrap();

    let service = tokio::net::TcpListener::bind("127.0.0.43:0").await.unwrap();
    let place = service.local_addr().unwrap();
    let announced = async |count: u64| {
        let mut peers = router.watch_peers();
        let received = peers.wait_for(|snapshot| {
            let sessions = snapshot.peers.values().filter_map(|peer| peer.session.as_ref());
            sessions.flat_map(|session| &session.families).map(|family| family.received).sum::<u64>() == count
                && snapshot.peers.values().all(|peer| peer.session.is_some())
        });
        timeout(Duration::from_secs(20), received).await.expect("in time").unwrap();
    };
    let changes = async {
        announced(1).await;
        drop(service); // nobody answers any more
        announced(0).await;
        let _again = tokio::net::TcpListener::bind(place).await.unwrap();
        announced(1).await;
    };
    let address = "203.0.113.53/32".parse().unwrap();
    tokio::select! {
        () = follow(&anycast, address, place, Duration::from_millis(50)) => unreachable!(),
        () = changes => {}
    }
}
