//! Layer 2 announcement: making an address reachable on a LAN without a router that speaks BGP.
//!
//! ```
//! use openelb_l2::{InterfaceSelector, MacAddr, VirtualRouterId, solicited_node_multicast};
//!
//! // What a responder puts into an ARP reply (RFC 826) or a neighbour advertisement (RFC 4861 section 4.4).
//! let mac: MacAddr = "52:54:00:12:34:56".parse()?;
//! assert!(mac.is_unicast());
//!
//! // Where a neighbour solicitation for an address is sent to, and the Ethernet group that carries it.
//! let group = solicited_node_multicast("2001:db8::1:800:200e:8c6c".parse()?);
//! assert_eq!(group.to_string(), "ff02::1:ff0e:8c6c");
//! assert_eq!(MacAddr::ipv6_multicast(group).to_string(), "33:33:ff:0e:8c:6c");
//!
//! // The virtual MAC address of a virtual router (RFC 9568 section 7.3).
//! assert_eq!(VirtualRouterId::new(128)?.virtual_mac_v4().to_string(), "00:00:5e:00:01:80");
//!
//! // On which interface of a node a pool lives, as text.
//! let on: InterfaceSelector = "can_reach:192.0.2.1".parse()?;
//! assert_eq!(on, InterfaceSelector::CanReach("192.0.2.1".parse()?));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # State
//!
//! The machine of a node is [`speaker::Speaker`]: it answers ARP and neighbour solicitations ([`responder`]), announces
//! ([`announcer`]), and agrees with the other nodes, by gossip, on who owns which address ([`ownership`]). It is driven
//! with frames, datagrams and the time. VRRP has a vocabulary, and no machine yet.
//!
//! # What lives where
//!
//! | room | what | knows |
//! |---|---|---|
//! | `wire/{ethernet,arp,ndp}.rs` | bytes to values and back (RFC 826, 4861, 5227) | nothing else |
//! | `responder/` | answers for owned addresses, and who else claims them | `wire` |
//! | `announcer.rs` | gratuitous bursts, refresh, defences | `wire`, `now` |
//! | `ownership/{rendezvous,arbiter}` | who owns an address: pure functions | values |
//! | `ownership/{membership,message,replica}` | who lives (SWIM), what nodes say to each other and in which version | `now`, datagrams |
//! | `speaker/` | one node: all of the above | `now`, frames, datagrams |
//! | `net/` | sockets, clocks, tasks; feature `tokio` | everything above |
//!
//! Everything outside `net/` is sans-IO: bytes, commands and the time come in as arguments, output and the next
//! deadline are polled. The crate's lints refuse a clock or a socket there.
#![warn(clippy::exhaustive_enums, clippy::exhaustive_structs)]

pub mod announcer;
mod interface;
mod mac;
pub mod net;
pub mod ownership;
pub mod responder;
pub mod speaker;
mod vrid;
pub mod wire;

pub use interface::{InterfaceSelector, ParseInterfaceSelectorError};
pub use mac::{MacAddr, ParseMacAddrError, solicited_node_multicast};
pub use vrid::{InvalidVirtualRouterId, VirtualRouterId};
