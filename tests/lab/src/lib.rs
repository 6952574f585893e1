//! A network on one machine: hosts, links, routers, pods and clients in namespaces of their own.
//!
//! ```
//! use openelb_lab::Lab;
//!
//! let lab = Lab::start("example")?;
//! lab.network(|network| {
//!     network.host("a").host("b");
//!     network.wire(("a", "eth0", &["192.0.2.1/30"]), ("b", "eth0", &["192.0.2.2/30"]));
//! })?;
//! let route = lab.run("a", &["ip", "route", "get", "192.0.2.2"])?;
//! assert!(route.contains("dev eth0"));
//! # anyhow::Ok(())
//! ```
//!
//! A [`Lab`] has net, mount and pid namespaces of its own. Several run side by side with the same addresses and ports,
//! and when the process that started one ends, for whatever reason, everything in it ends: its init waits for the end
//! of a pipe that only that process holds. Nothing of a lab reaches the machine's network.
//!
//! Needs root, and Debian's iproute2, util-linux, nftables and bird2; [`Lab::start`] says what is missing.

pub mod bird;
pub mod client;
pub mod demo;
pub mod detection;
pub mod download;
pub mod failures;
pub mod idle;
pub mod interop;
pub mod kube;
mod lab;
pub mod lan;
pub mod manual;
mod network;
pub mod pod;
pub mod routers;
pub mod topology;
mod wait;
pub mod wire;

pub use lab::{Lab, Process, binary};
pub use network::{End, Network};
pub use wait::eventually;
