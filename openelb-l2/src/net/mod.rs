//! What stands between the machine and Linux: sockets, the clock and a thread (feature `tokio`).
//!
//! [`spawn`] starts a thread of its own with a runtime of one thread that drives one
//! [`Speaker`](crate::speaker::Speaker): no other work of the process delays an answer. Whole sets go down through the
//! [`DriverHandle`], a [`Snapshot`] and events come up. The generator of socket filters is pure and always there.
//!
//! | file | what |
//! |---|---|
//! | `driver/` | the loop |
//! | `handle.rs` | what goes down, what comes up |
//! | `links.rs` | the links of the host as a table; where the table comes from is a trait |
//! | `netlink.rs` | the table from the kernel, and its changes |
//! | `select.rs` | from an interface selector to links |
//! | `packet_socket.rs` | the packet sockets of a link |
//! | `filter/` | socket filters that let only our addresses through |
//! | `multicast.rs` | memberships of solicited-node groups |
//! | `clock.rs` | a clock that goes on while the host is suspended |

#![cfg_attr(
    feature = "tokio",
    allow(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        reason = "the place for sockets and the clock"
    )
)]

pub mod filter;

#[cfg(feature = "tokio")]
mod clock;
#[cfg(feature = "tokio")]
mod driver;
#[cfg(feature = "tokio")]
mod handle;
#[cfg(feature = "tokio")]
mod links;
#[cfg(feature = "tokio")]
mod multicast;
#[cfg(feature = "tokio")]
mod netlink;
#[cfg(feature = "tokio")]
mod packet_socket;
#[cfg(feature = "tokio")]
mod select;

#[cfg(feature = "tokio")]
pub use clock::host_uptime;
#[cfg(feature = "tokio")]
pub use driver::spawn;
#[cfg(feature = "tokio")]
pub use handle::{
    AddressView, DriverConfig, DriverHandle, DriverStats, LinkView, Problem, Snapshot, SpawnError,
    WantedAddress,
};
#[cfg(feature = "tokio")]
pub use links::{LinkInfo, LinkSource, Prefix};
#[cfg(feature = "tokio")]
pub use select::{NoLink, Selection, select};
