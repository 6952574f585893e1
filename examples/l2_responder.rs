//! A Layer 2 responder: answers ARP and neighbour discovery for addresses on an interface, until a key is pressed.
//!
//! ```sh
//! cargo run -p openelb-examples --example l2_responder -- eth0 192.0.2.100 2001:db8::100   # as root
//! ```
//!
//! The interface does not get the addresses. They are announced when they are new, when the interface changes its MAC
//! address or its carrier comes back, and every minute; a stranger that has one already is named.

use std::{io::Read, net::IpAddr};

use anyhow::Context;
use openelb_l2::InterfaceSelector;
use openelb_l2::net::{DriverConfig, DriverHandle, WantedAddress, spawn};
use openelb_l2::speaker::{NodeName, SpeakerConfig};

pub(crate) fn respond(interface: &str, addresses: &[IpAddr]) -> anyhow::Result<DriverHandle> {
    // Alone: gossip stays on the loopback.
    let speaker = SpeakerConfig::new(NodeName::new("responder")?, "127.0.0.1:7947".parse()?);
    let handle = spawn(DriverConfig::new(speaker))?;
    let on: InterfaceSelector = interface.parse()?;
    handle.set_addresses(addresses.iter().map(|one| WantedAddress::new(*one, on.clone())).collect());
    handle.set_peers(Vec::new());
    Ok(handle)
}

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let interface = words.next().context("write INTERFACE ADDRESS…")?;
    let addresses: Vec<IpAddr> = words.map(|word| word.parse()).collect::<Result<_, _>>()?;
    let handle = respond(&interface, &addresses)?;
    println!("Press Enter to end it.");
    std::io::stdin().read_exact(&mut [0])?;
    for one in &handle.watch().borrow().addresses {
        println!("{}: {:?} {:?}", one.status.address, one.status.role, one.problems);
    }
    Ok(())
}
