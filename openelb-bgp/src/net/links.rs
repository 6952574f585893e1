//! The host's links and addresses from the kernel (`rtnetlink(7)`): which neighbour is directly connected, and whether
//! the link to it is up.

use std::{collections::BTreeMap, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, TryStreamExt, channel::mpsc::UnboundedReceiver};
use ipnet::IpNet;
use rtnetlink::{
    Handle, MulticastGroup, new_multicast_connection,
    packet_core::NetlinkMessage,
    packet_route::{
        RouteNetlinkMessage,
        address::AddressAttribute,
        link::{LinkAttribute, LinkFlags},
    },
    sys::SocketAddr,
};
use tokio::{sync::watch, time::sleep};

/// The table is read anew at least so often, should the kernel have dropped a message.
const REPAIR: Duration = Duration::from_secs(30);
/// Pause after netlink did not work.
const RETRY: Duration = Duration::from_secs(10);
/// Pause between two readings: a host with a thousand interfaces may change many at once.
const PACE: Duration = Duration::from_millis(10);

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Address {
    local: IpAddr,
    /// Whom it connects to: the subnet, or the other end.
    network: IpNet,
}

/// One link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: String,
    /// By the administrator, and with a carrier.
    pub(super) up: bool,
    loopback: bool,
    addresses: Vec<Address>,
}

/// All links, by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Links(BTreeMap<u32, Link>);

impl Links {
    pub(super) fn is_up(&self, index: u32) -> bool {
        self.0.get(&index).is_some_and(|link| link.up)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The link that a directly connected neighbour is on. `None` for one that is further away, or on this very host.
    pub(super) fn towards(
        &self,
        local: Option<IpAddr>,
        remote: IpAddr,
        scope_id: u32,
    ) -> Option<(u32, &Link)> {
        let remote = remote.to_canonical();
        let local = local.map(|local| local.to_canonical());
        let mut addresses = self.0.values().flat_map(|link| &link.addresses);
        if addresses.any(|address| address.local == remote) {
            return None;
        }
        let link_local = matches!(remote, IpAddr::V6(remote) if remote.is_unicast_link_local());
        let fits = |index: u32, link: &Link| {
            if link_local {
                return index == scope_id;
            }
            link.addresses.iter().any(|address| {
                address.network.contains(&remote) && local.is_none_or(|local| local == address.local)
            })
        };
        self.0
            .iter()
            .map(|(index, link)| (*index, link))
            .find(|(index, link)| !link.loopback && fits(*index, link))
    }
}

/// Publishes the table for ever, anew after each change.
pub(super) async fn watch(links: watch::Sender<Arc<Links>>) {
    loop {
        if let Err(error) = watch_connection(&links).await {
            tracing::debug!(%error, "links cannot be watched; trying again");
        }
        if links.is_closed() {
            return;
        }
        sleep(RETRY).await;
    }
}

struct Connection {
    handle: Handle,
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch_connection(
    links: &watch::Sender<Arc<Links>>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (connection, handle, messages) = new_multicast_connection(&groups)?;
    let mut connection = Connection { handle, messages, task: tokio::spawn(connection) };
    while !links.is_closed() {
        let table = read(&connection.handle).await?;
        links.send_if_modified(|current| {
            let changed = **current != table;
            if changed {
                *current = Arc::new(table);
            }
            changed
        });
        sleep(PACE).await;
        let repair = pin!(sleep(REPAIR));
        tokio::select! {
            message = connection.messages.next() => {
                message.ok_or("the netlink connection ended")?;
                // One reading for a whole burst.
                while let Some(Some(_)) = connection.messages.next().now_or_never() {}
            }
            () = repair => {}
        }
    }
    Ok(())
}

async fn read(handle: &Handle) -> Result<Links, rtnetlink::Error> {
    let mut table = BTreeMap::new();
    let mut links = handle.link().get().execute();
    while let Some(message) = links.try_next().await? {
        let flags = message.header.flags;
        let name = message.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
        let link = Link {
            name: name.unwrap_or_default(),
            up: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            loopback: flags.contains(LinkFlags::Loopback),
            addresses: Vec::new(),
        };
        table.insert(message.header.index, link);
    }
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await? {
        let (mut address, mut local) = (None, None);
        for attribute in message.attributes {
            match attribute {
                AddressAttribute::Address(ip) => address = Some(ip),
                // The address itself where `Address` is that of the other end.
                AddressAttribute::Local(ip) => local = Some(ip),
                _ => {}
            }
        }
        let Some(address) = address.or(local) else { continue };
        if let Some(link) = table.get_mut(&message.header.index)
            && let Ok(network) = IpNet::new(address, message.header.prefix_len)
        {
            link.addresses.push(Address { local: local.unwrap_or(address), network });
        }
    }
    Ok(Links(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, loopback: bool, addresses: &[(&str, &str)]) -> Link {
        let address = |(local, network): &(&str, &str)| Address {
            local: local.parse().unwrap(),
            network: network.parse().unwrap(),
        };
        Link { name: name.into(), up: true, loopback, addresses: addresses.iter().map(address).collect() }
    }

    #[test]
    fn a_neighbour_is_on_the_link_whose_subnet_it_is_in() {
        let lo = link("lo", true, &[("127.0.0.1", "127.0.0.1/8"), ("192.0.2.250", "192.0.2.250/32")]);
        let eth0 = link("eth0", false, &[("192.0.2.10", "192.0.2.10/24"), ("fe80::10", "fe80::10/64")]);
        let eth1 =
            link("eth1", false, &[("192.0.2.11", "192.0.2.11/24"), ("198.51.100.1", "198.51.100.2/32")]);
        let links = Links(BTreeMap::from([(1, lo), (2, eth0), (3, eth1)]));
        let name = |local: Option<&str>, remote: &str, scope| {
            let local = local.map(|local| local.parse().unwrap());
            links.towards(local, remote.parse().unwrap(), scope).map(|(_, link)| link.name.as_str())
        };
        assert_eq!(name(Some("192.0.2.10"), "192.0.2.1", 0), Some("eth0"));
        assert_eq!(name(Some("192.0.2.11"), "192.0.2.1", 0), Some("eth1"), "our address decides");
        assert_eq!(name(None, "198.51.100.2", 0), Some("eth1"), "the other end");
        assert_eq!(name(None, "203.0.113.1", 0), None, "behind a router");
        assert_eq!(name(None, "127.0.0.7", 0), None, "loopback");
        assert_eq!(name(None, "192.0.2.250", 0), None, "this very host");
        assert_eq!(name(Some("fe80::10"), "fe80::1", 2), Some("eth0"));
        assert_eq!(name(None, "fe80::1", 0), None, "on which link?");
        assert!(links.is_up(2) && !links.is_up(9));
    }
}
