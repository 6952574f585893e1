//! The table of links from the kernel (`rtnetlink(7)`).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    pin::pin,
    time::Duration,
};

use futures::{
    FutureExt, Stream, StreamExt, TryStreamExt,
    channel::mpsc::UnboundedReceiver,
    future::{BoxFuture, Either, select},
};
use rtnetlink::{
    Handle, MulticastGroup, new_multicast_connection,
    packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
        link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo as Details, LinkLayerType, LinkMessage, Prop},
        route::{RouteAttribute, RouteMessage},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

use super::links::{LinkInfo, LinkSource, Prefix};
use crate::{MacAddr, speaker::LinkIndex};

/// The table is read anew at least so often, should the kernel have dropped a message.
const REPAIR: Duration = Duration::from_secs(30);

/// How many controllers may be above each other (`MAX_NEST_DEV` of Linux).
const MAX_NESTED: usize = 8;

/// RFC 8200 section 5: on a link with less the kernel has no IPv6.
const MIN_MTU: u32 = 1280;

/// The kernel's links. Every event leads to a new reading of the whole table.
pub(super) struct Kernel {
    connection: Option<Connection>,
    /// The links of the last table, also of a connection before.
    links: BTreeSet<LinkIndex>,
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
        Self { connection: None, links: BTreeSet::new() }
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
        let known = self.links.clone();
        let table = self.table_after(&known).await?;
        self.links = table.iter().map(|link| link.index).collect();
        Ok(table)
    }

    async fn table_after(&mut self, known: &BTreeSet<LinkIndex>) -> io::Result<Vec<LinkInfo>> {
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
        let mut table = connection.dump().await?;
        // The kernel's tables change while they are read: what was there is looked for once more before it is missed.
        if lacks(&table, known) {
            table = connection.dump().await?;
        }
        connection.read = true;
        Ok(table)
    }
}

impl Connection {
    async fn dump(&self) -> io::Result<Vec<LinkInfo>> {
        let links = self.handle.link().get().execute().map_err(io::Error::other);
        let addresses = || self.handle.address().get().execute().map_err(io::Error::other);
        read(links, addresses, || self.task.is_finished()).await
    }
}

fn lacks(table: &[LinkInfo], links: &BTreeSet<LinkIndex>) -> bool {
    let there: BTreeSet<_> = table.iter().map(|link| link.index).collect();
    !links.is_subset(&there)
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

/// Reads both tables, the second one when the first is read: the kernel takes one request at a time. Where a connection
/// ends in the middle of them, its streams end as if that was all.
async fn read<A: Stream<Item = io::Result<AddressMessage>>>(
    links: impl Stream<Item = io::Result<LinkMessage>>,
    addresses: impl FnOnce() -> A,
    has_ended: impl Fn() -> bool,
) -> io::Result<Vec<LinkInfo>> {
    let links = links.try_collect().await?;
    let addresses = addresses().try_collect().await?;
    if has_ended() {
        return Err(io::Error::other("the netlink connection ended while the interfaces were read"));
    }
    Ok(table_of(links, addresses))
}

fn table_of(links: Vec<LinkMessage>, addresses: Vec<AddressMessage>) -> Vec<LinkInfo> {
    let mut table = BTreeMap::new();
    let (mut vrfs, mut bridges) = (BTreeSet::new(), BTreeSet::new());
    for message in links {
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
                LinkAttribute::LinkInfo(details) => {
                    for detail in details {
                        match detail {
                            Details::Kind(InfoKind::Vrf) => vrfs.insert(link.index),
                            Details::Kind(kind) if is_bridge(&kind) => bridges.insert(link.index),
                            _ => false,
                        };
                    }
                }
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
    let controllers: BTreeMap<LinkIndex, LinkIndex> =
        table.values().filter_map(|link| Some((link.index, link.controller?))).collect();
    // A bond may be a port of a bridge, and what comes in on its own ports goes there, too.
    let above = |link| std::iter::successors(Some(link), |link| controllers.get(link).copied()).skip(1);
    for link in table.values_mut() {
        link.controller = link.controller.filter(|controller| !vrfs.contains(controller));
        link.bridged = above(link.index).take(MAX_NESTED).any(|controller| bridges.contains(&controller));
    }
    for message in addresses {
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
    table.into_values().collect()
}

/// Whether it takes what comes in on its ports before a packet socket of theirs sees it, as a bond does not.
fn is_bridge(kind: &InfoKind) -> bool {
    matches!(kind, InfoKind::Bridge) || matches!(kind, InfoKind::Other(kind) if kind == "openvswitch")
}

/// The link by which this host would reach another, by the kernel's routes. Sends nothing.
pub(super) fn link_towards(target: IpAddr) -> io::Result<LinkIndex> {
    if matches!(target, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "every link has that subnet"));
    }
    let mut question = RouteMessage::default();
    (question.header.address_family, question.header.destination_prefix_length) = match target {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    question.attributes.push(RouteAttribute::Destination(target.into()));
    let mut question = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(question));
    question.header.flags = NLM_F_REQUEST;
    question.finalize();
    let mut octets = vec![0; question.buffer_len()];
    question.serialize(&mut octets);
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    // The kernel has answered when the question is sent.
    socket.set_non_blocking(true)?;
    socket.send_to(&octets, &SocketAddr::new(0, 0), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
    let link = |attribute| match attribute {
        RouteAttribute::Oif(index) => Some(LinkIndex(index)),
        _ => None,
    };
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
            let link = route.attributes.into_iter().find_map(link);
            link.ok_or_else(|| io::Error::other("the kernel's route has no link"))
        }
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::Error::other("the kernel answers something else")),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_of_a_vrf_receives_itself_and_a_port_of_a_bridge_does_not() {
        let link = |index: u32, name: &str, controller: Option<u32>, kind: Option<InfoKind>| {
            let mut message = LinkMessage::default();
            message.header.index = index;
            message.header.link_layer_type = LinkLayerType::Ether;
            message.attributes.push(LinkAttribute::IfName(name.to_owned()));
            message.attributes.extend(controller.map(LinkAttribute::Controller));
            message.attributes.extend(kind.map(|kind| LinkAttribute::LinkInfo(vec![Details::Kind(kind)])));
            message
        };
        let links = vec![
            link(2, "eth0", Some(5), None),
            link(3, "eth1", Some(4), None),
            link(4, "br0", None, Some(InfoKind::Bridge)),
            link(5, "red", None, Some(InfoKind::Vrf)),
            link(6, "eth2", Some(7), None),
            link(7, "bond0", None, Some(InfoKind::Bond)),
            link(8, "eth3", Some(9), None),
            link(10, "eth4", Some(11), None),
            link(11, "bond1", Some(4), Some(InfoKind::Bond)),
            link(9, "ovs-system", None, Some(InfoKind::Other("openvswitch".to_owned()))),
        ];
        let controllers: Vec<_> = table_of(links, Vec::new())
            .into_iter()
            .map(|link| (link.name, link.controller.map(|controller| controller.0), link.bridged))
            .collect();
        let expected = [
            ("eth0", None, false),
            ("eth1", Some(4), true),
            ("br0", None, false),
            ("red", None, false),
            ("eth2", Some(7), false),
            ("bond0", None, false),
            ("eth3", Some(9), true),
            ("ovs-system", None, false),
            ("eth4", Some(11), true),
            ("bond1", Some(4), true),
        ];
        assert_eq!(
            controllers,
            expected.map(|(name, controller, bridged)| (name.to_owned(), controller, bridged))
        );
    }

    #[tokio::test]
    async fn a_connection_that_ends_while_the_links_are_read_gives_no_table() {
        for ends in [false, true] {
            let links = futures::stream::iter([Ok(LinkMessage::default())]);
            let table = read(links, futures::stream::empty, || ends).await;
            assert_eq!(table.is_err(), ends, "{table:?}");
        }
    }

    /// With the request for the addresses in it.
    #[tokio::test]
    async fn a_connection_that_ends_before_the_answer_gives_no_table() {
        for ends in [false, true] {
            let mut kernel = Kernel::new();
            let connection = kernel.connect().expect("netlink");
            let links = connection.handle.link().get().execute().map_err(io::Error::other);
            let addresses = || {
                let addresses = connection.handle.address().get().execute().map_err(io::Error::other);
                if ends {
                    connection.task.abort();
                }
                addresses
            };
            let table = read(links, addresses, || connection.task.is_finished()).await;
            assert_eq!(table.is_err(), ends, "{table:?}");
        }
    }

    #[test]
    fn a_link_that_was_there_is_missed_and_a_new_one_is_not() {
        let table = [1, 2, 3].map(|index| LinkInfo::new(LinkIndex(index), "eth", None));
        let known = |all: &[u32]| all.iter().copied().map(LinkIndex).collect();
        assert!(!lacks(&table, &known(&[])) && !lacks(&table, &known(&[1, 3])));
        assert!(lacks(&table, &known(&[1, 4])));
    }
}
