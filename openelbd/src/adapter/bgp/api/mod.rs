//! GoBGP's gRPC interface over the BGP speaker: `--api-hosts` and its like.
//!
//! What clients add is a source of its own beside what the custom resources say: neither erases the other's.

mod listeners;
mod owner;

use std::{collections::BTreeMap, path::PathBuf};

use openelb_bgp::grpc::server::Address;

pub(super) use listeners::spawn;
pub(super) use owner::{ApiOwner, BGP_CONF, Order, Shown};

/// Where and how the interface is served.
#[derive(Clone, Debug, Default)]
pub struct ApiOptions {
    /// Where; nowhere, if empty.
    pub hosts: Vec<Address>,
    /// Clients may change things, where that is safe: on this host alone, or with client certificates.
    pub writable: bool,
    /// TLS of the hosts that are no Unix sockets.
    pub tls: Option<TlsFiles>,
}

/// PEM files; they are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate, with those that lead to its root.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Clients must have a certificate of one of these.
    pub client_ca: Option<PathBuf>,
}

/// Hosts where the interface cannot be served, and why.
pub(super) type Failures = BTreeMap<String, String>;
