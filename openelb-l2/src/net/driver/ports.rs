//! The links in use, with their sockets; from what is wanted and the table of links to what the machine is told.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::IpAddr,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use nix::errno::Errno;

use super::{
    super::{
        clock::Clock,
        handle::{DriverStats, LinkView, Problem, WantedAddress},
        links::LinkInfo,
        multicast::Refused,
        netlink,
        packet_socket::{Batch, PacketSockets},
        select::{Interests, Part, Selector, Table},
    },
    cause,
};
use crate::{
    InterfaceSelector, solicited_node_multicast,
    speaker::{DesiredAddress, Link, LinkIndex, Speaker},
    wire::Frame,
};

/// A link whose sockets could not be opened is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);
/// Sockets that met with an error are looked at again after this time.
const DOUBT: Duration = Duration::from_millis(200);
/// Routes and kernel settings are looked up again after this time: nobody tells of their changes.
const ROUTES: Duration = Duration::from_secs(10);

struct Port {
    sockets: Result<PacketSockets, String>,
    /// What the filters let in, in order.
    addresses: Vec<IpAddr>,
    /// Why they do not let in all that is wanted.
    lacking: Option<String>,
}

impl Port {
    /// Whether an address is one of those that the filters should let in, and do not.
    fn lacks(&self, address: IpAddr) -> bool {
        self.lacking.is_some() && self.addresses.binary_search(&address).is_err()
    }

    /// Why nothing is heard here that concerns an address.
    fn cause(&self, address: IpAddr) -> Option<&String> {
        self.sockets.as_ref().err().or_else(|| self.lacking.as_ref().filter(|_| self.lacks(address)))
    }
}

pub(super) struct Ports {
    skipped: Vec<String>,
    /// `None`: not read yet.
    table: Option<Vec<LinkInfo>>,
    wanted: Option<Vec<WantedAddress>>,
    interests: Interests,
    ports: BTreeMap<LinkIndex, Port>,
    problems: HashMap<IpAddr, Vec<Problem>>,
    /// By address: the links whose subnet holds it.
    homes: HashMap<IpAddr, Vec<LinkIndex>>,
    refused: Refused,
    /// Links of IPv6 addresses on which IPv6 is off, and why.
    without_ipv6: BTreeMap<LinkIndex, String>,
    due: Option<Instant>,
    batch: Batch,
    /// [`PacketSockets::set_addresses`], but in tests.
    attach: fn(&PacketSockets, &[IpAddr]) -> io::Result<()>,
}

impl Ports {
    pub(super) fn new(skipped: Vec<String>) -> Self {
        Self {
            skipped,
            table: None,
            wanted: None,
            interests: Interests::default(),
            ports: BTreeMap::new(),
            problems: HashMap::new(),
            homes: HashMap::new(),
            refused: Refused::new(),
            without_ipv6: BTreeMap::new(),
            due: None,
            batch: Batch::new(),
            attach: PacketSockets::set_addresses,
        }
    }

    /// Says whether there is something to do: a link differs that concerns an address, or went and came as it was between
    /// two readings.
    pub(super) fn set_table(&mut self, table: Vec<LinkInfo>) -> bool {
        let same = |old: &Vec<LinkInfo>| self.parts(old).eq(self.parts(&table));
        let changed = !self.table.as_ref().is_some_and(same) || !self.are_bound();
        self.table = Some(table);
        changed
    }

    /// What of the links matters.
    fn parts<'a>(&self, table: &'a [LinkInfo]) -> impl Iterator<Item = Part<'a>> {
        table.iter().filter_map(|link| {
            let used = self.ports.contains_key(&link.index).then_some(Part::Whole(link));
            used.or_else(|| self.interests.part(link, &self.skipped))
        })
    }

    pub(super) fn set_wanted(&mut self, wanted: Vec<WantedAddress>) {
        self.interests = Interests::new(wanted.iter().map(|one| (one.address, &one.interface)));
        self.wanted = Some(wanted);
    }

    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|at| at <= now)
    }

    /// What keeps an address from being announced well.
    pub(super) fn problems(&self, address: IpAddr, links: &[LinkIndex]) -> Vec<Problem> {
        let mut problems = self.problems.get(&address).cloned().unwrap_or_default();
        let hindered = !self.refused.is_empty() || !self.without_ipv6.is_empty();
        if let (IpAddr::V6(address), true) = (address, hindered) {
            let group = solicited_node_multicast(address);
            let table = || self.table.iter().flatten();
            problems.extend(links.iter().filter_map(|index| {
                // The kernel itself names no cause, or takes the group and does nothing for it.
                let off = self.without_ipv6.get(index);
                let cause = off.or_else(|| self.refused.get(&(*index, group)))?.clone();
                let link = table().find(|link| link.index == *index).map(|link| link.name.clone());
                Some(Problem::Group { link: link.unwrap_or_default(), group, cause })
            }));
        }
        problems
    }

    /// The groups that could not be joined: the addresses are answered, but network cards, and switches that listen to MLD,
    /// may not bring the question.
    pub(super) fn set_refused(&mut self, refused: Refused) {
        self.refused = refused;
    }

    /// The links in use.
    pub(super) fn views(&self) -> Vec<LinkView> {
        let table = self.table.iter().flatten();
        let used = table.filter_map(|link| {
            let port = self.ports.get(&link.index)?;
            let problem = port.sockets.as_ref().err().or(port.lacking.as_ref()).cloned();
            Some(LinkView { index: link.index, name: link.name.clone(), mac: link.mac, up: link.up, problem })
        });
        used.collect()
    }

    /// Resolves everything anew and tells the machine.
    pub(super) fn apply(&mut self, speaker: &mut Speaker, now: Instant) {
        self.due = None;
        let (Some(links), Some(wanted)) = (&self.table, &self.wanted) else { return };
        let table = Table::new(links);
        let mut route = |target| netlink::link_towards(target).ok();
        let mut selector = Selector::new(&table, &self.skipped, &mut route);
        let mut used: BTreeMap<LinkIndex, Vec<IpAddr>> = BTreeMap::new();
        let mut desired = Vec::with_capacity(wanted.len());
        let mut problems: HashMap<IpAddr, Vec<Problem>> = HashMap::new();
        let mut leaky: HashMap<String, bool> = HashMap::new();
        let mut leaks = |link: &str| match leaky.get(link) {
            Some(known) => *known,
            None => *leaky.entry(link.to_owned()).or_insert_with(|| netlink::shows_other_links(link)),
        };
        let mut local = false;
        let mut homes = HashMap::new();
        for wish in wanted {
            let mut note = |problem| problems.entry(wish.address).or_default().push(problem);
            let mut one = DesiredAddress::new(wish.address, Vec::new());
            one.eligible = wish.eligible;
            one.permitted.clone_from(&wish.permitted);
            match selector.select(&wish.interface, wish.address) {
                Ok(selection) => {
                    let links = || table.links(&selection.links);
                    let first = || links().next().map(|link| link.name.clone()).unwrap_or_default();
                    if !links().any(|link| link.up) {
                        note(Problem::Down { link: first() });
                    }
                    if selection.out_of_subnet {
                        note(Problem::OutOfSubnet { link: first() });
                    }
                    if let Some((link, direct)) = holder(&table, wish.address, &selection.links) {
                        if direct || (wish.address.is_ipv4() && links().any(|link| leaks(&link.name))) {
                            note(Problem::Local { link: link.name.clone(), indirect: !direct });
                        }
                        // A problem or not, by kernel settings that may change.
                        local = true;
                    }
                    for link in &selection.links {
                        used.entry(*link).or_default().push(wish.address);
                    }
                    one.home = home(&table, wish.address, &selection.links, self.homes.get(&wish.address));
                    if !one.home.is_empty() {
                        homes.insert(wish.address, one.home.clone());
                    }
                    one.links = selection.links;
                }
                Err(error) => note(Problem::NoLink(error)),
            }
            desired.push(one);
        }
        let wants_ipv6 =
            |link: &&LinkInfo| used.get(&link.index).is_some_and(|all| all.iter().any(IpAddr::is_ipv6));
        let off = links.iter().filter(wants_ipv6);
        self.without_ipv6 =
            off.filter_map(|link| Some((link.index, netlink::cause_without_ipv6(link)?))).collect();
        local |= !self.without_ipv6.is_empty();
        if local || wanted.iter().any(|wish| matches!(wish.interface, InterfaceSelector::CanReach(_))) {
            self.due = Some(now + ROUTES);
        }
        let names: HashMap<LinkIndex, String> =
            links.iter().map(|link| (link.index, link.name.clone())).collect();
        if self.close_lost() {
            // To the machine they vanished, and come again.
            speaker.set_links(self.links(|index| self.is_open(index)), now);
        }
        let old: BTreeSet<LinkIndex> = self.ports.keys().copied().collect();
        self.open(used, now);
        for one in &mut desired {
            for link in &one.links {
                if let Some(cause) = self.ports.get(link).and_then(|port| port.cause(one.address)) {
                    let link = names.get(link).cloned().unwrap_or_default();
                    let problem = Problem::Link { link, cause: cause.clone() };
                    problems.entry(one.address).or_default().insert(0, problem);
                }
            }
            // Where nobody hears the question, there is no use in being the one that is asked.
            let lacks = |link: &LinkIndex| self.ports.get(link).is_some_and(|port| port.lacks(one.address));
            let has_home = !one.home.is_empty();
            one.links.retain(|link| !lacks(link));
            one.home.retain(|link| !lacks(link));
            if has_home && one.home.is_empty() {
                // Where its clients are it is not heard: the other links alone are no use.
                one.links.clear();
            }
        }
        (self.problems, self.homes) = (problems, homes);
        let new: BTreeSet<LinkIndex> = self.ports.keys().copied().collect();
        // An address that moves from one link to another is not dropped between the two.
        if !old.is_subset(&new) {
            speaker.set_links(self.links(|index| old.contains(&index) || self.is_open(index)), now);
        } else {
            speaker.set_links(self.links(|index| self.is_open(index)), now);
        }
        speaker.set_desired(desired, now);
        if !old.is_subset(&new) {
            speaker.set_links(self.links(|index| self.is_open(index)), now);
        }
    }

    /// Closes the sockets of links that vanished, also where a link with the same index has come since. Says whether
    /// there were any.
    fn close_lost(&mut self) -> bool {
        let all = self.ports.len();
        self.ports
            .retain(|link, port| port.sockets.as_ref().map_or(true, |sockets| sockets.are_bound(*link)));
        self.ports.len() < all
    }

    fn is_open(&self, link: LinkIndex) -> bool {
        self.ports.get(&link).is_some_and(|port| port.sockets.is_ok())
    }

    /// The links of the table as the machine sees them.
    fn links(&self, chosen: impl Fn(LinkIndex) -> bool) -> Vec<Link> {
        let table = self.table.iter().flatten();
        let links = table.filter(|link| chosen(link.index)).filter_map(|link| {
            let mut one = Link::new(link.index, link.name.clone(), link.mac?);
            one.up = link.up;
            one.addresses = link.prefixes.iter().map(|prefix| prefix.address).collect();
            Some(one)
        });
        links.collect()
    }

    /// Opens and closes sockets, and sets their filters.
    fn open(&mut self, used: BTreeMap<LinkIndex, Vec<IpAddr>>, now: Instant) {
        self.ports.retain(|link, _| used.contains_key(link));
        for (link, mut addresses) in used {
            addresses.sort_unstable();
            addresses.dedup();
            let port = match self.ports.remove(&link) {
                Some(Port { sockets: Ok(sockets), addresses: old, lacking }) => {
                    let refused = if old == addresses && lacking.is_none() {
                        None
                    } else {
                        (self.attach)(&sockets, &addresses).err()
                    };
                    // A filter that cannot be replaced goes on as it is, and so does what it lets in.
                    let addresses = if refused.is_some() { old } else { addresses };
                    Port { sockets: Ok(sockets), addresses, lacking: refused.map(|error| cause(&error)) }
                }
                // Never opened, or tried in vain.
                _ => {
                    let sockets = PacketSockets::open(link)
                        .and_then(|sockets| (self.attach)(&sockets, &addresses).map(|()| sockets))
                        .map_err(|error| cause(&error));
                    Port { sockets, addresses, lacking: None }
                }
            };
            if port.sockets.is_err() || port.lacking.is_some() {
                self.due = Some(self.due.map_or(now + RETRY, |at| at.min(now + RETRY)));
            }
            self.ports.insert(link, port);
        }
    }

    pub(super) fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut ready = false;
        for port in self.ports.values() {
            if let Ok(sockets) = &port.sockets {
                ready |= sockets.poll_ready(context).is_ready();
            }
        }
        if ready { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Hands in what has come, one batch of each socket, and sends the answers.
    pub(super) fn receive(&mut self, speaker: &mut Speaker, clock: &Clock, stats: &mut DriverStats) {
        let mut errors_seen = false;
        for (link, port) in &self.ports {
            let Ok(sockets) = &port.sockets else { continue };
            let mut unsent = 0;
            let errors = sockets.receive(&mut self.batch, |batch| {
                let now = clock.now();
                batch.answer(|frame| speaker.handle_frame(*link, frame, now));
                unsent += sockets.send_replies(batch);
            });
            errors_seen |= errors > 0;
            stats.receive_errors += errors;
            stats.unsent += unsent;
        }
        if errors_seen {
            self.doubt(clock.now());
        }
    }

    /// A socket said that its link is down. If the link is gone, the socket has to be opened anew, also where the table
    /// looks as before; and a link that goes says so a moment before it is gone.
    fn doubt(&mut self, now: Instant) {
        let at = if self.are_bound() { now + DOUBT } else { now };
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Whether all sockets belong to their links.
    fn are_bound(&self) -> bool {
        let bound = |(link, port): (&LinkIndex, &Port)| {
            port.sockets.as_ref().map_or(true, |sockets| sockets.are_bound(*link))
        };
        self.ports.iter().all(bound)
    }

    /// Throws away what has queued up on all links.
    pub(super) fn discard(&mut self) -> u64 {
        let sockets = self.ports.values().filter_map(|port| port.sockets.as_ref().ok());
        sockets.map(|sockets| sockets.discard(&mut self.batch)).sum()
    }

    /// Sends a frame, or tries to.
    pub(super) fn send(&mut self, link: LinkIndex, frame: &Frame, now: Instant) -> Sending {
        let Some(Ok(sockets)) = self.ports.get(&link).map(|port| port.sockets.as_ref()) else {
            return Sending::Failed;
        };
        match sockets.send(frame) {
            Ok(()) => return Sending::Done,
            Err(error) if is_gone(&error) => self.doubt(now),
            Err(error) if is_full(&error) => return Sending::Full,
            Err(_) => {}
        }
        Sending::Failed
    }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// The kernel took it.
    Done,
    /// The kernel has no room for it now.
    Full,
    /// It is lost.
    Failed,
}

/// The buffer of the socket is full, or the queue of the link.
fn is_full(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM))
}

/// The link of a socket is down, or gone.
fn is_gone(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ENETDOWN | Errno::ENODEV | Errno::ENXIO))
}

/// Those of its links whose subnet holds an address. A link that goes down loses its IPv6 addresses, and is still where
/// clients are.
fn home(
    table: &Table<'_>,
    address: IpAddr,
    links: &[LinkIndex],
    before: Option<&Vec<LinkIndex>>,
) -> Vec<LinkIndex> {
    let holds = |link: &&LinkInfo| link.prefixes.iter().any(|prefix| prefix.holds(address));
    let home: Vec<_> = table.links(links).filter(holds).map(|link| link.index).collect();
    let are_down = |all: &[LinkIndex]| {
        // One that vanished is not down.
        table.links(all).count() == all.len() && table.links(all).all(|link| !link.up)
    };
    let chosen = |before: &&Vec<LinkIndex>| before.iter().all(|link| links.contains(link));
    let before = before.filter(chosen).filter(|before| home.is_empty() && are_down(before));
    before.cloned().unwrap_or(home)
}

/// The link that has an address as its own, and whether it is one of those on which it is announced.
fn holder<'a>(table: &Table<'a>, address: IpAddr, links: &[LinkIndex]) -> Option<(&'a LinkInfo, bool)> {
    let holders = table.holders(address);
    let direct = holders.iter().find(|link| links.contains(&link.index));
    direct.map(|link| (*link, true)).or_else(|| holders.first().map(|link| (*link, false)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        net::{
            Prefix,
            packet_socket::tests::{link as link_of_test, with_a_cable},
        },
        speaker::{Event, Role, SpeakerConfig},
    };

    fn link(index: u32, prefix: Option<(&str, u8)>) -> LinkInfo {
        let mut link = LinkInfo::new(LinkIndex(index), format!("eth{index}"), None);
        let prefixes = prefix.map(|(address, length)| Prefix { address: address.parse().unwrap(), length });
        link.prefixes = prefixes.into_iter().collect();
        link
    }

    #[test]
    fn a_link_that_lost_its_addresses_with_its_carrier_is_still_where_clients_are() {
        let address = "2001:db8::100".parse().unwrap();
        let links = [LinkIndex(1), LinkIndex(2)];
        let other = || link(2, Some(("2001:db8:1::1", 64)));
        let table = [link(1, Some(("2001:db8::1", 64))), other()];
        let home = |table: &[LinkInfo], before| home(&Table::new(table), address, &links, before);
        let known = home(&table, None);
        assert_eq!(known, [LinkIndex(1)]);
        let down = || LinkInfo { up: false, ..link(1, None) };
        assert_eq!(home(&[down(), other()], Some(&known)), known);
        // The pool is on another link meanwhile.
        let moved = super::home(&Table::new(&[down(), other()]), address, &links[1..], Some(&known));
        assert_eq!(moved, []);
        // Up without them, or gone: it is none any more.
        assert_eq!(home(&[link(1, None), other()], Some(&known)), []);
        assert_eq!(home(&[other()], Some(&known)), []);
    }

    #[test]
    fn links_that_concern_no_address_come_and_go_without_work() {
        let mac = crate::MacAddr::new([2, 0, 0, 0, 0, 1]);
        let nic = || LinkInfo { mac: Some(mac), ..link(1, Some(("192.0.2.1", 24))) };
        // A Pod's, as some networks of Pods have them: routed, with the address of the other end.
        let pod = |prefix| LinkInfo { mac: Some(mac), name: "cali1".to_owned(), ..link(7, prefix) };
        let local = Some(("fe80::7", 64));
        for (selector, of_nic, of_pod, of_routed) in [
            ("subnet", true, false, false),
            ("all", true, false, false),
            ("eth1", true, false, false),
            ("regex:^eth", true, false, false),
            ("can_reach:192.0.2.254", true, false, true),
            ("cali1", false, true, true),
            ("regex:^cali", false, true, true),
        ] {
            let mut ports = Ports::new(vec!["cali".to_owned()]);
            let wanted = |selector: &str| {
                let address = "192.0.2.100".parse().expect("an address");
                WantedAddress::new(address, selector.parse().expect("a selector"))
            };
            assert!(ports.set_table(vec![nic()]), "the first");
            ports.set_wanted(vec![wanted(selector)]);
            assert!(!ports.set_table(vec![nic()]), "{selector}: as it was");
            assert_eq!(ports.set_table(vec![nic(), pod(local)]), of_pod, "{selector}: a Pod came");
            assert_eq!(ports.set_table(vec![nic(), pod(None)]), of_pod, "{selector}: it lost its address");
            let far = Some(("203.0.113.1", 24));
            assert_eq!(ports.set_table(vec![nic(), pod(far)]), of_routed, "{selector}: it has another");
            let same = Some(("192.0.2.100", 32));
            assert!(ports.set_table(vec![nic(), pod(same)]), "{selector}: it has the address itself");
            assert_eq!(ports.set_table(vec![pod(same)]), of_nic, "{selector}: the NIC is gone");
        }
    }

    #[test]
    fn without_a_filter_on_the_link_of_the_subnet_the_other_links_do_not_count() {
        with_a_cable(|_| {
            let (near, far) = (link_of_test("near"), link_of_test("far"));
            let now = Clock::new().now();
            let node = crate::speaker::NodeName::new("node-1").expect("a name");
            let config = SpeakerConfig::new(node, "192.0.2.1:7947".parse().expect("an address"));
            let settings = crate::speaker::Settings { probes: 0, ..Default::default() };
            let mut speaker = Speaker::new(config, settings, now).expect("the defaults are good");
            speaker.set_peers(Vec::new(), now);
            let all =
                ["192.0.2.100", "192.0.2.101", "203.0.113.1"].map(|text| text.parse().expect("an address"));
            let wanted = |all: &[IpAddr]| {
                all.iter().map(|one| WantedAddress::new(*one, InterfaceSelector::All)).collect::<Vec<_>>()
            };
            let on = |LinkIndex(index), prefix| {
                let mac = crate::MacAddr::new([2, 0, 0, 0, 0, u8::try_from(index).unwrap_or(1)]);
                LinkInfo { mac: Some(mac), ..link(index, Some((prefix, 24))) }
            };
            let mut ports = Ports::new(Vec::new());
            ports.set_table(vec![on(near, "192.0.2.1"), on(far, "198.51.100.1")]);
            let [old, new, elsewhere] = all;
            ports.set_wanted(wanted(&[old]));
            ports.apply(&mut speaker, now);
            ports.attach = |sockets, addresses| {
                if sockets.are_bound(link_of_test("near")) {
                    return Err(Errno::ENOMEM.into());
                }
                sockets.set_addresses(addresses)
            };
            ports.set_wanted(wanted(&all));
            ports.apply(&mut speaker, now);
            let seen = |address| {
                let status = speaker.address(address).expect("it is wanted");
                (status.role, status.candidate, status.links)
            };
            assert_eq!(seen(old), (Role::Owner, true, vec![near, far]));
            assert_eq!(seen(new), (Role::Standby, false, Vec::new()));
            // Of one that no subnet holds, each link counts.
            assert_eq!(seen(elsewhere), (Role::Owner, true, vec![far]));
        });
    }

    #[tokio::test]
    async fn a_filter_that_cannot_be_replaced_costs_the_new_addresses_only() {
        let lo = LinkIndex(nix::net::if_::if_nametoindex("lo").expect("every host has lo"));
        let now = Clock::new().now();
        let node = crate::speaker::NodeName::new("node-1").expect("a name");
        let config = SpeakerConfig::new(node, "192.0.2.1:7947".parse().expect("an address"));
        let settings = crate::speaker::Settings { probes: 0, ..Default::default() };
        let mut speaker = Speaker::new(config, settings, now).expect("the defaults are good");
        speaker.set_peers(Vec::new(), now);
        let wanted = |all: &[&str]| {
            let one = |text: &&str| {
                WantedAddress::new(text.parse().expect("an address"), "lo".parse().expect("an interface"))
            };
            all.iter().map(one).collect::<Vec<_>>()
        };
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let (old, new) = (address("192.0.2.100"), address("192.0.2.101"));
        let mut ports = Ports::new(Vec::new());
        ports.set_table(vec![LinkInfo::new(lo, "lo", Some(crate::MacAddr::new([2, 0, 0, 0, 0, 1])))]);
        ports.set_wanted(wanted(&["192.0.2.100"]));
        ports.apply(&mut speaker, now);
        let role = |speaker: &Speaker, address| speaker.address(address).map(|status| status.role);
        assert_eq!(role(&speaker, old), Some(Role::Owner));
        ports.attach = |_, _| Err(Errno::ENOMEM.into());
        ports.set_wanted(wanted(&["192.0.2.100", "192.0.2.101"]));
        while speaker.poll_event().is_some() {}
        ports.apply(&mut speaker, now);
        assert_eq!((role(&speaker, old), role(&speaker, new)), (Some(Role::Owner), Some(Role::Standby)));
        let moved = |event| matches!(event, Event::OwnerChanged { .. });
        assert!(!std::iter::from_fn(|| speaker.poll_event()).any(moved), "it stays where it is");
        let is_lost = |ports: &Ports, address| {
            ports.problems(address, &[lo]).iter().any(|problem| matches!(problem, Problem::Link { .. }))
        };
        assert_eq!((is_lost(&ports, old), is_lost(&ports, new)), (false, true));
        assert!(ports.views().iter().any(|view| view.problem.is_some()));
        // It is tried again.
        assert_eq!(ports.poll_timeout(), Some(now + RETRY));
        ports.attach = PacketSockets::set_addresses;
        ports.apply(&mut speaker, now + RETRY);
        assert_eq!((role(&speaker, old), role(&speaker, new)), (Some(Role::Owner), Some(Role::Owner)));
        assert_eq!((is_lost(&ports, old), is_lost(&ports, new)), (false, false));
    }
}
