//! OpenELB's daemon: the only crate that sees everything. It joins the libraries: manifests and the state directory
//! (`openelb-k8s`) on one side, BGP (`openelb-bgp`) on the other, and the command line, health and metrics around it.
//!
//! The program is `openelbd`; this library exists so that its parts can be tested and documented. What a peer's
//! manifest means to the BGP speaker, for example, is a pure translation:
//!
//! ```
//! use openelbd::adapter::bgp::timers::seconds;
//!
//! // The timers of a `BgpPeer` are decimal seconds in text, as in the Go OpenELB.
//! assert_eq!(seconds("90").map(|hold| hold.as_secs()), Ok(90));
//! assert!(seconds("1m").is_err());
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`] | sub-commands, flags, exit codes, output formats |
//! | [`standalone`] | the loop: manifests → indexes → allocation → store → announcement → announcers |
//! | [`adapter`] | the announcers: translates plans into what the protocol libraries take, and their state back |
//! | [`http`] | `/metrics`, `/healthz`, `/readyz` |

pub mod adapter;
pub mod cli;
mod events;
pub mod http;
mod logging;
pub mod standalone;
