//! What goes down to a running speaker and what comes up.

use std::{
    fmt, io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, broadcast, watch};

use super::{links::LinkSource, select::NoLink};
use crate::{
    InterfaceSelector, MacAddr,
    speaker::{
        AddressStatus, ConfigError, Event, LinkIndex, MemberStatus, NodeSet, Peer, Settings, SpeakerConfig,
        Stats, StopMode,
    },
};

/// How a speaker is run.
#[non_exhaustive]
pub struct DriverConfig {
    /// Who this node is.
    pub speaker: SpeakerConfig,
    /// Where gossip is listened for; the default is the address that the others are told.
    pub bind: SocketAddr,
    /// How addresses are announced and moved.
    pub settings: Settings,
    /// Beginnings of names of links that are not meant for clients: `subnet` and `all` do not choose them.
    pub skipped_links: Vec<String>,
    /// Where the table of links comes from; `None`: the kernel.
    pub links: Option<Box<dyn LinkSource>>,
}

impl DriverConfig {
    /// With all defaults.
    pub fn new(speaker: SpeakerConfig) -> Self {
        let bind = speaker.gossip;
        Self { speaker, bind, settings: Settings::default(), skipped_links: Vec::new(), links: None }
    }
}

impl fmt::Debug for DriverConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { speaker, bind, settings, skipped_links, links: _ } = self;
        let mut all = f.debug_struct("DriverConfig");
        all.field("speaker", speaker).field("bind", bind).field("settings", settings);
        all.field("skipped_links", skipped_links).finish_non_exhaustive()
    }
}

/// Why a speaker cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No thread, or no runtime.
    #[error("the thread of the Layer 2 speaker cannot be started: {0}")]
    Thread(#[source] io::Error),
}

/// An address that this node should announce when it is its turn, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WantedAddress {
    /// The address.
    pub address: IpAddr,
    /// On which links.
    pub interface: InterfaceSelector,
    /// Whether this node may own it.
    pub eligible: bool,
    /// Which nodes may, if that is known; see [`DesiredAddress::permitted`](crate::speaker::DesiredAddress::permitted).
    pub permitted: Option<NodeSet>,
}

impl WantedAddress {
    /// An address that this node may own.
    pub const fn new(address: IpAddr, interface: InterfaceSelector) -> Self {
        Self { address, interface, eligible: true, permitted: None }
    }
}

/// Something that keeps an address from being announced well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// It has no link on this node.
    #[error("{0}")]
    NoLink(#[from] NoLink),
    /// A link that it needs cannot be used.
    #[error("interface {link} cannot be used: {cause}")]
    Link {
        /// The link's name.
        link: String,
        /// What the kernel said.
        cause: String,
    },
    /// All its links are down.
    #[error("interface {link} is down")]
    Down {
        /// The first of them.
        link: String,
    },
    /// The kernel has the address, and answers for it with its own MAC address whoever the owner is.
    #[error(
        "{link} of this node has the address, so the kernel answers for it, too: take it off the interface{}",
        if *.indirect { " or set net.ipv4.conf.all.arp_ignore=1 and arp_announce=2 (with IPVS: --ipvs-strict-arp)" } else { "" }
    )]
    Local {
        /// The link that has it.
        link: String,
        /// It is another link than those on which it is announced.
        indirect: bool,
    },
    /// A solicited-node group cannot be joined (RFC 4291 section 2.7.1), or the kernel does nothing for it; it is joined as
    /// soon as it can be. A warning: the question may arrive all the same.
    #[error(
        "the multicast group {group} cannot be joined on {link}: {cause}; neighbours may not find the address"
    )]
    Group {
        /// The link's name.
        link: String,
        /// The group.
        group: Ipv6Addr,
        /// Why IPv6 is off there and how to switch it on, or what the kernel said.
        cause: String,
    },
    /// It lies in no subnet of its links. A warning: clients that are told to ask for it there find it.
    #[error("the address lies in no subnet of {link}: clients there need a route to it")]
    OutOfSubnet {
        /// The first of its links.
        link: String,
    },
}

impl Problem {
    /// Whether the address is announced all the same.
    pub const fn is_warning(&self) -> bool {
        matches!(self, Self::Local { .. } | Self::Group { .. } | Self::OutOfSubnet { .. })
    }
}

/// A link that some address uses.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkView {
    /// Its index.
    pub index: LinkIndex,
    /// Its name.
    pub name: String,
    /// Its link-layer address.
    pub mac: Option<MacAddr>,
    /// Up, with carrier.
    pub up: bool,
    /// Why it cannot be used, or not for all addresses.
    pub problem: Option<String>,
}

/// An address as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddressView {
    /// What the machine says.
    pub status: AddressStatus,
    /// What keeps it from being announced well, the worst first.
    pub problems: Vec<Problem>,
}

/// Everything as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The addresses, in order.
    pub addresses: Vec<AddressView>,
    /// The links that they use, in order of index.
    pub links: Vec<LinkView>,
    /// The other nodes.
    pub members: Vec<MemberStatus>,
    /// Whether the first round of membership is over.
    pub settled: bool,
    /// Why gossip cannot be listened for; it is tried again every second.
    pub gossip_problem: Option<String>,
    /// Counters of the machine.
    pub stats: Stats,
    /// Counters of the driver.
    pub driver: DriverStats,
    /// The thread has ended.
    pub stopped: bool,
}

/// Counters of the driver since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DriverStats {
    /// Frames that were thrown away because they had waited while the process did not run.
    pub discarded: u64,
    /// Frames and datagrams that the kernel did not take, but for gratuitous frames that are sent again soon.
    pub unsent: u64,
    /// Errors of packet sockets.
    pub receive_errors: u64,
}

/// What waits for the thread. Whole sets replace what waited before.
#[derive(Default)]
pub(super) struct Mailbox {
    pub(super) addresses: Option<Vec<WantedAddress>>,
    pub(super) peers: Option<Vec<Peer>>,
    pub(super) settings: Option<Settings>,
    pub(super) stop: Option<StopMode>,
    /// No handle is left.
    pub(super) abandoned: bool,
}

#[derive(Default)]
pub(super) struct Shared {
    mailbox: Mutex<Mailbox>,
    pub(super) wake: Notify,
}

impl Shared {
    pub(super) fn take(&self) -> Mailbox {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Mailbox> {
        // Every change is one assignment: nothing is left half done.
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Mailbox)) {
        change(&mut self.lock());
        self.wake.notify_one();
    }
}

/// Commands and watches of a running speaker; none of them waits. Clones drive the same speaker; when the last one is
/// dropped, it stops as with [`StopMode::Withdraw`].
#[derive(Clone)]
pub struct DriverHandle {
    owner: Arc<Owner>,
}

struct Owner {
    shared: Arc<Shared>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    events: broadcast::Sender<Event>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.change(|mailbox| {
            mailbox.abandoned = true;
            mailbox.stop.get_or_insert(StopMode::Withdraw);
        });
    }
}

impl fmt::Debug for DriverHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriverHandle").finish_non_exhaustive()
    }
}

impl DriverHandle {
    pub(super) fn new(
        shared: Arc<Shared>,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        events: broadcast::Sender<Event>,
    ) -> Self {
        Self { owner: Arc::new(Owner { shared, snapshots, events }) }
    }

    /// The addresses to announce: the whole set. Nothing is claimed before this and
    /// [`set_peers`](Self::set_peers) were called.
    pub fn set_addresses(&self, addresses: Vec<WantedAddress>) {
        self.owner.shared.change(|mailbox| mailbox.addresses = Some(addresses));
    }

    /// The other nodes that may gossip: the whole set. This node itself may be in it.
    pub fn set_peers(&self, peers: Vec<Peer>) {
        self.owner.shared.change(|mailbox| mailbox.peers = Some(peers));
    }

    /// How addresses are announced and moved.
    pub fn set_settings(&self, settings: Settings) {
        self.owner.shared.change(|mailbox| mailbox.settings = Some(settings));
    }

    /// Everything as it is: a change is seen within 100 ms, counters within some seconds.
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.owner.snapshots.clone()
    }

    /// What happens from here on. Who reads too slowly is told how many events it missed.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.owner.events.subscribe()
    }

    /// Begins to stop, and waits until it is over and the sockets of frames and of gossip are closed, at most for `within`.
    /// Says whether it is: else it goes on saying goodbye.
    pub async fn stop(&self, mode: StopMode, within: Duration) -> bool {
        self.owner.shared.change(|mailbox| mailbox.stop = Some(mode));
        let mut snapshots = self.watch();
        let stopped = snapshots.wait_for(|snapshot| snapshot.stopped);
        // An error: the thread is gone.
        tokio::time::timeout(within, stopped).await.is_ok()
    }
}
