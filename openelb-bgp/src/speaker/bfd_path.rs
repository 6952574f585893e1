//! Which path BFD watches for a neighbour.

use std::net::IpAddr;

use super::config::PeerConfig;

/// What tells the BFD sessions of one neighbour apart. As long as it stays BFD goes on, whatever becomes of the BGP
/// session, and says nothing anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BfdPath {
    remote: IpAddr,
    local: Option<IpAddr>,
    /// These two decide whether it runs over one hop or several.
    far: bool,
    internal: bool,
}

impl BfdPath {
    /// `None`: BFD does not run.
    pub(super) fn of(config: &PeerConfig, local_asn: u32) -> Option<Self> {
        let runs = config.bfd.is_some() && !config.admin_down;
        runs.then(|| Self {
            remote: config.address.to_canonical(),
            local: config.local_address,
            far: config.multihop_ttl.is_some() || config.ttl_security.is_some_and(|hops| hops > 1),
            internal: config.asn == local_asn,
        })
    }
}
