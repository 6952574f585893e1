//! OpenELB's daemon: the only crate that sees everything. It joins the libraries: manifests and the state directory
//! (`openelb-k8s`) on one side, BGP (`openelb-bgp`) on the other, and the command line, health and metrics around it.
//!
//! The program is `openelbd`; this library exists so that its parts can be tested and documented. What of a
//! peer's manifest has no effect, for example, is a pure function:
//!
//! ```
//! use openelb_k8s::crd::BgpPeerSpec;
//! use openelbd::adapter::bgp::unsupported;
//!
//! // A setting without effect in this version is named, never silently ignored.
//! let spec: BgpPeerSpec = serde_json::from_value(serde_json::json!({"conf": {"vrf": "blue"}}))?;
//! assert_eq!(unsupported::of_peer(&spec)[0].field, "spec.conf.vrf");
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`] | sub-commands, flags, exit codes, output formats |
//! | [`controller`] | the loop in a cluster: watches → indexes → allocation → writes, by one leader |
//! | [`speaker`] | the loop on each node of a cluster: watches → indexes → announcement → announcers |
//! | [`standalone`] | the loop: manifests → indexes → allocation → store → announcement → announcers |
//! | [`adapter`] | the announcers: translates plans into what the protocol libraries take, and their state back |
//! | `kubectl` | what `kubectl openelb` reads and shows |
//! | [`undelivered`] | rejects packets to announced addresses that nobody takes |
//! | [`http`] | `/metrics`, `/healthz`, `/readyz` |

pub mod adapter;
mod api_events;
mod boot;
pub mod cli;
pub mod controller;
mod decide;
mod events;
pub mod http;
mod kubectl;
pub mod kubernetes;
mod logging;
mod notes;
mod offline;
mod snapshot;
pub mod speaker;
pub mod standalone;
pub mod undelivered;
mod unsupported;

/// Timer jitter differs between processes; nothing else depends on it.
pub(crate) fn seed() -> u64 {
    let now = jiff::Timestamp::now().as_nanosecond();
    u64::from(std::process::id()) ^ u64::try_from(now & i128::from(u64::MAX)).unwrap_or(0)
}
