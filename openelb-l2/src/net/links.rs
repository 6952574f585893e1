//! The links of a host, as a table.

use std::{io, net::IpAddr};

use futures::future::BoxFuture;

use crate::{MacAddr, speaker::LinkIndex};

/// An address of a link and how long its prefix is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a pair")]
pub struct Prefix {
    /// The address.
    pub address: IpAddr,
    /// 0 to 32 bits, or 0 to 128.
    pub length: u8,
}

impl Prefix {
    /// Whether an address lies in the subnet. A subnet of one address holds no other.
    pub fn holds(self, other: IpAddr) -> bool {
        let (own, other, width) = match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (u128::from(u32::from(own)), u128::from(u32::from(other)), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => (u128::from(own), u128::from(other), 128),
            _ => return false,
        };
        let host = u32::from(width - self.length.min(width));
        host > 0 && own.checked_shr(host).unwrap_or(0) == other.checked_shr(host).unwrap_or(0)
    }

    /// Whether it spans a subnet with neighbours: not of a single address, not link-local.
    pub fn is_subnet(self) -> bool {
        match self.address {
            IpAddr::V4(address) => self.length < 32 && !address.is_link_local(),
            IpAddr::V6(address) => self.length < 128 && !address.is_unicast_link_local(),
        }
    }
}

/// A network interface of the host as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkInfo {
    /// Its index.
    pub index: LinkIndex,
    /// Its name.
    pub name: String,
    /// Its other names.
    pub other_names: Vec<String>,
    /// Its link-layer address, if it has one of Ethernet's length.
    pub mac: Option<MacAddr>,
    /// The longest packet that it carries, in octets.
    pub mtu: u32,
    /// Administratively up, with carrier.
    pub up: bool,
    /// It can carry ARP and neighbour discovery: neither the loopback nor marked `NOARP`.
    pub resolves: bool,
    /// The bridge, bond or team that it is a port of, and that receives in its place. Not a VRF: its members receive
    /// themselves.
    pub controller: Option<LinkIndex>,
    /// The controller is a bridge, or Open vSwitch: it takes what comes in before this link's own sockets hear it. Those of
    /// a port of a bond or a team do.
    pub bridged: bool,
    /// Its addresses, without tentative ones.
    pub prefixes: Vec<Prefix>,
}

impl LinkInfo {
    /// A link that is up, resolves neighbours and has no addresses.
    pub fn new(index: LinkIndex, name: impl Into<String>, mac: Option<MacAddr>) -> Self {
        Self {
            index,
            name: name.into(),
            other_names: Vec::new(),
            mac,
            mtu: 1500,
            up: true,
            resolves: true,
            controller: None,
            bridged: false,
            prefixes: Vec::new(),
        }
    }
}

/// Where the table of links comes from: the kernel, or a test.
pub trait LinkSource: Send {
    /// The whole table: at the first call as it is, later as soon as it may have changed. May be dropped and called again
    /// at any time.
    ///
    /// # Errors
    ///
    /// The table cannot be read now. The one before stays in force, and it is asked again after a pause.
    fn next(&mut self) -> BoxFuture<'_, io::Result<Vec<LinkInfo>>>;
}
