//! The seam to the announcers: whole sets down, snapshots up.
//!
//! An adapter (BGP, Layer 2, VIP) implements [`Announcer`]; whoever calls it computes [`Announcements`] with
//! [`crate::plan::announcement`] and hands the whole set over whenever it may have changed. Nothing is ever added or
//! removed one by one, so after any disturbance the next set repairs everything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use jiff::Timestamp;

use crate::index::layer2::Layer2Spec;
use crate::index::peers::PeerSpec;
use crate::object::{NamespacedName, ObjectRef};

/// Announces addresses by one protocol.
pub trait Announcer: Send + Sync {
    /// Replaces what this node should announce. Idempotent, and never blocks.
    fn set_desired(&self, desired: Announcements);

    /// What is announced, as it changes.
    fn status(&self) -> tokio::sync::watch::Receiver<Arc<AnnouncerStatus>>;
}

/// How an address is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Routes to routers.
    Bgp,
    /// ARP and NDP on the pool's segment.
    Layer2,
    /// VRRP.
    Vip,
}

impl Protocol {
    /// The value of `Eip.spec.protocol`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bgp => "bgp",
            Self::Layer2 => "layer2",
            Self::Vip => "vip",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Everything that this node should announce: the whole set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Announcements {
    /// The node that these are for.
    pub node: String,
    /// They are what was known before a start; what is true now is still to come.
    pub provisional: bool,
    /// By address. An adapter takes those whose `protocols` hold its own.
    /// Shared: the whole set is handed on at every change.
    pub addresses: BTreeMap<IpAddr, Arc<Announcement>>,
    /// How this node speaks BGP; `None` without a usable `BgpConf`.
    pub bgp: Option<BgpAnnouncements>,
    /// How Layer 2 is spoken, and with whom ownership is agreed.
    pub layer2: Layer2Announcements,
}

/// How Layer 2 is spoken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer2Announcements {
    /// The `Layer2Conf` named `default`, or the defaults.
    pub spec: Layer2Spec,
    /// Whether any pool is announced by Layer 2: else nobody needs to gossip.
    pub in_use: bool,
    /// The InternalIPs of this node, in the Node's order.
    pub own: Vec<IpAddr>,
    /// Every other node by name, with its InternalIPs: who may own addresses, too.
    pub nodes: BTreeMap<String, Vec<IpAddr>>,
}

/// How one address is announced.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    /// By which protocols.
    pub protocols: BTreeSet<Protocol>,
    /// Name of the Eip that it lies in.
    pub pool: String,
    /// The Services that publish it, in order.
    pub services: Box<[NamespacedName]>,
    /// The labels of these Services, for selectors of advertisements.
    pub service_labels: Box<[crate::selector::Labels]>,
    /// May this node announce itself for it?
    pub self_eligible: bool,
    /// Every node that may carry its traffic, this one too, in the order of their names. Shared by the addresses that
    /// have the same ones.
    pub nodes: Arc<[NodeHop]>,
    /// Every node that may by its labels, its marks and its endpoints, Ready or not, in the order of their names.
    pub permitted: Arc<[String]>,
    /// The interface of layer2 and vip: `Eip.spec.interface`.
    pub interface: Option<crate::index::pools::InterfaceSelector>,
    /// The VipGroup of vip.
    pub vip_group: Option<String>,
}

/// A node that may carry an address's traffic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeHop {
    /// Its name.
    pub node: String,
    /// Its InternalIPs, in the Node's order.
    pub addresses: Vec<IpAddr>,
    /// Its rack (label `openelb.kubesphere.io/rack`).
    pub rack: Option<String>,
}

/// Whose addresses are next hops, decided: `Auto` is `SelfOnly`, with [`PeerAnnouncements::on_behalf`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NextHops {
    /// This node announces itself where it is eligible.
    #[default]
    SelfOnly,
    /// This node announces every eligible node (of its rack, if it has one).
    AllNodes,
}

/// How this node speaks BGP, and with whom.
#[derive(Clone, Debug, PartialEq)]
pub struct BgpAnnouncements {
    /// Its autonomous system number, after racks.
    pub asn: u32,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// Was it derived from the node's name, for want of an IPv4 address?
    pub router_id_derived: bool,
    /// The rack of this node.
    pub rack: Option<String>,
    /// The InternalIPs of this node, in the Node's order: next hops where a session's own address is of the other
    /// family.
    pub addresses: Vec<IpAddr>,
    /// The TCP port to listen on.
    pub listen_port: u16,
    /// The addresses to listen on; empty: all.
    pub listen_addresses: Vec<IpAddr>,
    /// Graceful restart of the BgpConf.
    pub graceful_restart: crate::crd::bgp_conf::GracefulRestart,
    /// The ConfigMap with GoBGP's policy file.
    pub policy: Option<String>,
    /// The neighbours of this node, by name of the BgpPeer.
    pub peers: BTreeMap<String, PeerAnnouncements>,
}

/// One neighbour of this node.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerAnnouncements {
    /// The validated spec.
    pub spec: Arc<PeerSpec>,
    /// Whose addresses are announced to it.
    pub next_hops: NextHops,
    /// Nodes that have no session of their own to it, and are announced by those that have (mode `Auto`); `None`: there
    /// is none.
    pub on_behalf: Option<Arc<OnBehalf>>,
    /// The rules of `spec.advertisements` that hold on this node, by index into them; meaningless where there are none.
    pub advertisements: Vec<usize>,
    /// The session's password, never shown.
    pub password: Option<Password>,
}

/// Nodes without a session of their own to a neighbour, and the speakers that announce them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnBehalf {
    /// The nodes with an IPv4 address that the neighbour can reach.
    pub nodes_v4: BTreeSet<String>,
    /// The nodes with an IPv6 address that the neighbour can reach.
    pub nodes_v6: BTreeSet<String>,
    /// The nodes of this rack whose speakers have a session to the neighbour, this one too.
    pub speakers: BTreeSet<String>,
    /// So many paths of an IPv4 prefix may be sent; 0 and 1: one.
    pub paths_v4: u8,
    /// So many paths of an IPv6 prefix may be sent.
    pub paths_v6: u8,
}

/// A password; its text is never in logs or status.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Wraps a password.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the protocol.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// What an announcer does: a snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnnouncerStatus {
    /// By address and protocol: one address may be announced by several.
    pub addresses: BTreeMap<(IpAddr, Protocol), AddressStatus>,
    /// Sessions by name of the BgpPeer; dynamic neighbours add `/ADDRESS`. Empty for other protocols than BGP.
    pub peers: BTreeMap<String, PeerStatus>,
    /// What hinders the announcer as a whole: a port that is taken, a missing right.
    pub problems: Vec<AnnouncerProblem>,
    /// What hinders nothing, and is to be known: gossip without a key, an address in no subnet.
    pub warnings: Vec<AnnouncerProblem>,
    /// What is to be known about a BgpPeer on this node, by its name.
    pub peer_warnings: BTreeMap<String, String>,
    /// It does not know yet what other nodes announce, and waits for that.
    pub unsettled: bool,
}

impl AnnouncerStatus {
    /// How an address is announced, by each protocol that should.
    pub fn of(&self, address: IpAddr) -> impl Iterator<Item = &AddressStatus> {
        let of_address = (address, Protocol::Bgp)..=(address, Protocol::Vip);
        self.addresses.range(of_address).map(|(_, status)| status)
    }

    /// Is it announced, by whatever protocol?
    #[must_use]
    pub fn is_announced(&self, address: IpAddr) -> bool {
        self.of(address).any(|status| status.announced)
    }
}

/// What hinders an announcer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncerProblem {
    /// A condition reason, such as `PortInUse`.
    pub reason: String,
    /// Cause and remedy.
    pub message: String,
    /// Which objects it concerns; none: BGP, or the process.
    pub objects: BTreeSet<ObjectRef>,
}

impl AnnouncerProblem {
    /// Of BGP or of the process.
    pub fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), objects: BTreeSet::new() }
    }

    /// Of these objects.
    #[must_use]
    pub fn of(self, objects: impl IntoIterator<Item = ObjectRef>) -> Self {
        Self { objects: objects.into_iter().collect(), ..self }
    }
}

/// How one address is announced by one protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct AddressStatus {
    /// By which.
    pub protocol: Protocol,
    /// Is it announced by this node now?
    pub announced: bool,
    /// Since when, or why not, in words.
    pub detail: String,
    /// BGP: neighbours (by name of the BgpPeer) and whether it is advertised to them. Shared by the addresses of which
    /// the same is true.
    pub peers: Arc<BTreeMap<String, bool>>,
    /// Layer 2 and VIP: the interface; several are separated by commas.
    pub interface: Option<String>,
    /// Layer 2: the MAC address that answers.
    pub mac: Option<String>,
    /// VIP: the virtual router.
    pub vrid: Option<u8>,
    /// Layer 2: the node that owns the address, as this node sees it.
    pub owner: Option<String>,
    /// What keeps this node from announcing it where it may: an interface that it does not have, say.
    pub hindrance: Option<String>,
    /// When `announced` changed.
    pub since: Option<Timestamp>,
}

impl AddressStatus {
    /// One that is not announced, and why, in words.
    pub fn new(protocol: Protocol, detail: impl Into<String>) -> Self {
        Self {
            protocol,
            announced: false,
            detail: detail.into(),
            peers: Arc::default(),
            interface: None,
            mac: None,
            vrid: None,
            owner: None,
            hindrance: None,
            since: None,
        }
    }
}

/// State of a BGP session, as RFC 4271 §8.2.2 names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionState {
    /// Idle.
    #[default]
    Idle,
    /// Connect.
    Connect,
    /// Active.
    Active,
    /// OpenSent.
    OpenSent,
    /// OpenConfirm.
    OpenConfirm,
    /// Established.
    Established,
}

impl SessionState {
    /// The value of `peerState.sessionState`, as the Go OpenELB wrote it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "IDLE",
            Self::Connect => "CONNECT",
            Self::Active => "ACTIVE",
            Self::OpenSent => "OPENSENT",
            Self::OpenConfirm => "OPENCONFIRM",
            Self::Established => "ESTABLISHED",
        }
    }
}

/// Message counters of a session in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCounts {
    /// OPEN.
    pub open: u64,
    /// UPDATE.
    pub update: u64,
    /// KEEPALIVE.
    pub keepalive: u64,
    /// NOTIFICATION.
    pub notification: u64,
    /// ROUTE-REFRESH.
    pub refresh: u64,
    /// Thrown away.
    pub discarded: u64,
    /// UPDATEs treated as withdraw (RFC 7606).
    pub withdraw_update: u64,
    /// Prefixes in them.
    pub withdraw_prefix: u64,
}

/// A BGP session; durations in whole seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerStatus {
    /// The neighbour's address.
    pub address: Option<IpAddr>,
    /// Our AS number.
    pub local_asn: u32,
    /// The neighbour's AS number, as configured or received.
    pub peer_asn: u32,
    /// The neighbour's BGP identifier, once it is known.
    pub router_id: Option<Ipv4Addr>,
    /// The session's state.
    pub state: SessionState,
    /// Is it kept down on purpose?
    pub admin_down: bool,
    /// Received messages.
    pub received: MessageCounts,
    /// Sent messages.
    pub sent: MessageCounts,
    /// Messages or route changes that wait to be sent.
    pub out_queue: u32,
    /// How often the session went down.
    pub flaps: u32,
    /// Seconds between attempts to connect.
    pub connect_retry: u64,
    /// Offered hold time, seconds.
    pub hold_time: u64,
    /// KEEPALIVE interval, seconds.
    pub keepalive: u64,
    /// The hold time in force, seconds.
    pub negotiated_hold_time: Option<u64>,
    /// Since when it is established.
    pub up_since: Option<Timestamp>,
    /// Since when it is down.
    pub down_since: Option<Timestamp>,
    /// Prefixes advertised to the neighbour.
    pub advertised: u64,
    /// Prefixes received of it.
    pub received_prefixes: u64,
    /// Why the session went down last, or does not come up.
    pub last_error: Option<String>,
    /// What BFD says of the path, in words; `None`: without BFD.
    pub bfd: Option<String>,
    /// Segments are signed (RFC 2385).
    pub authenticated: bool,
    /// Hops of TTL security (RFC 5082).
    pub ttl_security: Option<u8>,
    /// Graceful restart (RFC 4724): `None`: not offered; whether it was negotiated.
    pub graceful_restart: Option<bool>,
}
