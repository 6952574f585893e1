//! The table of links from the kernel (`rtnetlink(7)`).

use std::{collections::BTreeMap, io, net::IpAddr, pin::pin, time::Duration};

use futures::{
    FutureExt, StreamExt, TryStreamExt,
    channel::mpsc::UnboundedReceiver,
    future::{BoxFuture, Either, select},
};
use rtnetlink::{
    Handle, MulticastGroup, new_multicast_connection,
    packet_core::NetlinkMessage,
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags},
        link::{LinkAttribute, LinkFlags, LinkLayerType, Prop},
    },
    sys::SocketAddr,
};

use super::links::{LinkInfo, LinkSource, Prefix};
use crate::{MacAddr, speaker::LinkIndex};

/// The table is read anew at least so often, should the kernel have dropped a message.
const REPAIR: Duration = Duration::from_secs(30);

/// RFC 8200 section 5: on a link with less the kernel has no IPv6.
const MIN_MTU: u32 = 1280;

/// The kernel's links. Every event leads to a new reading of the whole table.
pub(super) struct Kernel {
    connection: Option<Connection>,
}

struct Connection {
    handle: Handle,
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    task: tokio::task::JoinHandle<()>,
    /// The table was read once.
    read: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Kernel {
    pub(super) const fn new() -> Self {
        Self { connection: None }
    }

    fn connect(&mut self) -> io::Result<&mut Connection> {
        if self.connection.is_none() {
            let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
            let (connection, handle, messages) = new_multicast_connection(&groups)?;
            let task = tokio::spawn(connection);
            self.connection = Some(Connection { handle, messages, task, read: false });
        }
        self.connection.as_mut().ok_or_else(|| io::Error::other("no netlink connection"))
    }

    async fn table(&mut self) -> io::Result<Vec<LinkInfo>> {
        let connection = self.connect()?;
        if connection.read {
            let repair = pin!(tokio::time::sleep(REPAIR));
            match select(connection.messages.next(), repair).await {
                Either::Left((Some(_), _)) | Either::Right(_) => {}
                Either::Left((None, _)) => return Err(io::Error::other("the netlink connection ended")),
            }
            // One reading for a whole burst.
            while let Some(Some(_)) = connection.messages.next().now_or_never() {}
        }
        // Dropped in the middle, it is read again at the next call.
        connection.read = false;
        let table = read(&connection.handle).await?;
        connection.read = true;
        Ok(table)
    }
}

impl LinkSource for Kernel {
    fn next(&mut self) -> BoxFuture<'_, io::Result<Vec<LinkInfo>>> {
        async {
            let table = self.table().await;
            if table.is_err() {
                self.connection = None;
            }
            table
        }
        .boxed()
    }
}

async fn read(handle: &Handle) -> io::Result<Vec<LinkInfo>> {
    let mut table = BTreeMap::new();
    let mut links = handle.link().get().execute();
    while let Some(message) = links.try_next().await.map_err(io::Error::other)? {
        let flags = message.header.flags;
        let mut link = LinkInfo::new(LinkIndex(message.header.index), "", None);
        // On a link without a carrier of its own (a bridge) the two are equal.
        link.up = flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
        link.resolves = !flags.intersects(LinkFlags::Loopback | LinkFlags::Noarp)
            && message.header.link_layer_type == LinkLayerType::Ether;
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(octets) => {
                    link.mac = <[u8; 6]>::try_from(octets).ok().map(MacAddr::new);
                }
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Controller(index) => link.controller = Some(LinkIndex(index)),
                LinkAttribute::PropList(properties) => {
                    link.other_names.extend(properties.into_iter().filter_map(|property| match property {
                        Prop::AltIfName(name) => Some(name),
                        _ => None,
                    }));
                }
                _ => {}
            }
        }
        table.insert(link.index, link);
    }
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await.map_err(io::Error::other)? {
        let mut tentative =
            message.header.flags.intersects(AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed);
        let (mut address, mut local) = (None, None);
        for attribute in message.attributes {
            match attribute {
                AddressAttribute::Address(ip) => address = Some(ip),
                // The address itself where `Address` is that of the other end.
                AddressAttribute::Local(ip) => local = Some(ip),
                AddressAttribute::Flags(flags) => {
                    tentative |= flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed);
                }
                _ => {}
            }
        }
        let link = table.get_mut(&LinkIndex(message.header.index));
        if let (Some(link), Some(address), false) = (link, local.or(address), tentative) {
            link.prefixes.push(Prefix { address, length: message.header.prefix_len });
        }
    }
    Ok(table.into_values().collect())
}

/// The address from which this host would reach another, by the kernel's routes. Sends nothing.
pub(super) fn source_towards(target: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match target {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    // The port is that of the discard service; connecting a UDP socket only looks a route up.
    socket.connect((target, 9))?;
    Ok(socket.local_addr()?.ip())
}

/// Whether the kernel shows addresses of other links on this one: it answers ARP for them (`arp_ignore` is 0), or asks in
/// their name (`arp_announce` is below 2). Of the settings of a link and of all links the greater one is in force.
pub(super) fn shows_other_links(link: &str) -> bool {
    let read = |of: &str, name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{of}/{name}"));
        text.ok().and_then(|text| text.trim().parse::<u8>().ok())
    };
    let setting = |name| read("all", name).max(read(link, name));
    setting("arp_ignore") == Some(0) || setting("arp_announce").is_some_and(|announce| announce < 2)
}

/// Why IPv6 is off on a link, with the remedy; `None`: it is on, or the link is not of this host.
pub(super) fn cause_without_ipv6(link: &LinkInfo) -> Option<String> {
    let name = &link.name;
    let settings = std::path::Path::new("/proc/sys/net/ipv6/conf");
    if let Ok(disabled) = std::fs::read_to_string(settings.join(name).join("disable_ipv6")) {
        let off = disabled.trim() != "0";
        return off.then(|| format!("IPv6 is off there: set net.ipv6.conf.{name}.disable_ipv6=0"));
    }
    if !settings.exists() {
        return Some("this host has no IPv6 (ipv6.disable=1 on the kernel's command line?)".to_owned());
    }
    let mtu = link.mtu;
    (mtu < MIN_MTU).then(|| {
        format!("IPv6 is off there, for the MTU of {mtu} is below the {MIN_MTU} that it needs: raise the MTU")
    })
}
