//! What goes into a [`Speaker`](super::Speaker) and what comes out.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use super::NodeName;
use crate::{MacAddr, ownership::message::NodeId, wire::Frame};

/// The kernel's index of a network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_structs, reason = "a number and no more")]
pub struct LinkIndex(pub u32);

/// A network interface of this node as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Link {
    /// Its index.
    pub index: LinkIndex,
    /// Its name, for status.
    pub name: String,
    /// Its link-layer address; a link without a unicast one is not used.
    pub mac: MacAddr,
    /// Administratively up, with carrier.
    pub up: bool,
    /// Its own addresses of both families, link-local ones included, tentative ones not. The others probe them to see
    /// whether this host lives.
    pub addresses: Vec<IpAddr>,
}

impl Link {
    /// A link that is up and has no addresses.
    pub fn new(index: LinkIndex, name: impl Into<String>, mac: MacAddr) -> Self {
        Self { index, name: name.into(), mac, up: true, addresses: Vec::new() }
    }
}

/// An address that this node should announce when it is its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DesiredAddress {
    /// The address.
    pub address: IpAddr,
    /// The links to answer on. Whoever gives them resolves names, expressions and routes, and gives them anew when those
    /// change. Without one that exists and is up, this node is no candidate.
    pub links: Vec<LinkIndex>,
    /// Those on which clients ask for it, because a subnet there holds it. Without one of them up, this node is no
    /// candidate, whatever the others of `links` are. Empty: each of `links` counts.
    pub home: Vec<LinkIndex>,
    /// Whether this node may own the address (labels, cordon, endpoints, health). An owner that may no longer hands the
    /// address over; an address that is not desired at all is dropped at once.
    pub eligible: bool,
    /// Which nodes may, as far as the caller knows; `None`: unknown. Nobody stands in for an owner whose speaker is gone
    /// and that is not one of them: the address moves. Whether a node lives is no concern of this.
    pub permitted: Option<NodeSet>,
}

impl DesiredAddress {
    /// An address that this node may own, on these links.
    pub fn new(address: IpAddr, links: impl Into<Vec<LinkIndex>>) -> Self {
        Self { address, links: links.into(), home: Vec::new(), eligible: true, permitted: None }
    }
}

/// Nodes by name; a clone is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSet(Arc<BTreeSet<NodeId>>);

impl NodeSet {
    pub(super) fn contains(&self, node: NodeId) -> bool {
        self.0.contains(&node)
    }
}

impl<'a> FromIterator<&'a NodeName> for NodeSet {
    fn from_iter<T: IntoIterator<Item = &'a NodeName>>(names: T) -> Self {
        Self(Arc::new(names.into_iter().map(NodeId::of).collect()))
    }
}

/// Another node that gossips.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// Its name.
    pub node: NodeName,
    /// Where its gossip is reached.
    pub gossip: SocketAddr,
}

impl Peer {
    /// A node and where its gossip is reached.
    pub const fn new(node: NodeName, gossip: SocketAddr) -> Self {
        Self { node, gossip }
    }
}

/// What the machine wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Send a frame.
    Frame {
        /// Where.
        link: LinkIndex,
        /// The whole Ethernet frame, without check sequence.
        frame: Frame,
    },
    /// Send a UDP datagram of gossip.
    Datagram {
        /// Where to.
        to: SocketAddr,
        /// Its content, at most 1,400 octets.
        payload: Vec<u8>,
    },
    /// Join a multicast group (MLD report, filter of the network card).
    JoinGroup {
        /// Where.
        link: LinkIndex,
        /// A solicited-node group.
        group: Ipv6Addr,
    },
    /// Leave a group that was joined before.
    LeaveGroup {
        /// Where.
        link: LinkIndex,
        /// The group.
        group: Ipv6Addr,
    },
}

/// What happened, for logs and for users.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// An address has another owner, as this node sees it.
    OwnerChanged {
        /// The address.
        address: IpAddr,
        /// Its owner; `None`: nobody.
        owner: Option<NodeName>,
    },
    /// This node began to answer for an owner whose speaker is gone.
    StandInStarted {
        /// The address.
        address: IpAddr,
        /// Its owner.
        owner: NodeName,
    },
    /// It stopped doing so.
    StandInEnded {
        /// The address.
        address: IpAddr,
        /// Its owner.
        owner: NodeName,
    },
    /// A station that is no node of ours claims an address.
    AddressConflict {
        /// The address.
        address: IpAddr,
        /// Where it was heard.
        link: LinkIndex,
        /// The station.
        mac: MacAddr,
    },
    /// The station was not heard again; the address is announced. Not told where this node gave the address up meanwhile.
    AddressConflictEnded {
        /// The address.
        address: IpAddr,
    },
    /// The speaker of a node answers gossip.
    SpeakerUp {
        /// The node.
        node: NodeName,
    },
    /// It answers no more, or has left.
    SpeakerDown {
        /// The node.
        node: NodeName,
    },
    /// This process did not run for this long. It answers for nothing until the others have said what they hold.
    Stalled {
        /// How late it was.
        late: Duration,
    },
}

/// What this node does for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Nothing: another node owns it, or nobody can.
    Standby,
    /// It asks whether a stranger has it, before the first claim.
    Probing,
    /// It answers.
    Owner,
    /// It answers with the MAC address of this owner, whose speaker is gone.
    StandIn {
        /// The owner.
        owner: NodeName,
    },
    /// It answers until the next owner has claimed.
    HandingOver {
        /// The next owner.
        to: NodeName,
    },
    /// It would own the address, but a stranger has it.
    Conflict {
        /// The stranger.
        mac: MacAddr,
    },
}

/// An address as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddressStatus {
    /// The address.
    pub address: IpAddr,
    /// What this node does for it.
    pub role: Role,
    /// Since when.
    pub since: Instant,
    /// Its owner as far as this node knows, itself included.
    pub owner: Option<NodeName>,
    /// Whether this node could own it.
    pub candidate: bool,
    /// The links on which it would be answered.
    pub links: Vec<LinkIndex>,
    /// With what it is answered by this node, on each of its links that are up: their own link-layer addresses, or, of a
    /// stand-in, the owner's.
    pub macs: Vec<MacAddr>,
    /// A stranger that was heard with the address, also while it is announced and defended.
    pub conflict: Option<MacAddr>,
}

/// A node that gossips, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberStatus {
    /// Its name.
    pub node: NodeName,
    /// Its liveness.
    pub state: MemberState,
    /// Addresses that it says it owns.
    pub owned: usize,
}

impl MemberStatus {
    /// A node that says nothing of addresses.
    pub const fn new(node: NodeName, state: MemberState) -> Self {
        Self { node, state, owned: 0 }
    }
}

/// Whether a member lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It did not answer; it may still object.
    Suspect,
    /// It is gone.
    Down,
    /// It said that it restarts.
    Restarting,
}

/// How a speaker stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopMode {
    /// The process will be back: the others stand in with this node's MAC address; no connection moves.
    Restart,
    /// The node goes: every address is handed over.
    Withdraw,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Frames handed in.
    pub frames: u64,
    /// Requests answered, as owner or as stand-in.
    pub replies: u64,
    /// Gratuitous frames sent.
    pub gratuitous: u64,
    /// Frames in which a stranger claimed an address of ours.
    pub conflicts: u64,
    /// Frames that were sent against strangers.
    pub defences: u64,
    /// Frames with an unknown or broken content.
    pub malformed_frames: u64,
    /// Datagrams taken in.
    pub datagrams: u64,
    /// Datagrams with a wrong key, or none, or a broken content.
    pub rejected_datagrams: u64,
    /// Addresses claimed.
    pub claims: u64,
    /// Times that it was decided what to do for an address.
    pub decisions: u64,
    /// Times that this process did not run for too long.
    pub stalls: u64,
}
