//! The annotation `openelb.kubesphere.io/assigned`: what was assigned, on which request. A hint: users can edit it, so
//! it decides only what harms nobody but its Service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::index::ServiceView;
use crate::index::services::TrafficPolicy;

/// The annotation's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Hint {
    /// Each address with the Eip it was assigned from.
    pub(super) addresses: BTreeMap<IpAddr, String>,
    /// The pools that were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) requested_pools: Vec<String>,
    /// The value of the annotation `reassign` that has been seen to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reassign: Option<String>,
    /// A reassignment that could not be seen to for each family yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pending: Option<Pending>,
    /// A digest of the terms of sharing: another one now means that they were edited.
    pub(super) terms: String,
    /// Whom it shares an address with although neither port nor traffic policy allow it: they were found so, and no
    /// edit that leaves it at that makes one of them give up. Each says so of the other, by Namespace and name.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) clashes: BTreeSet<String>,
}

/// A reassignment on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Pending {
    /// The value of the annotation `reassign`.
    pub(super) reassign: String,
    /// Addresses that were assigned since: they are not moved again.
    pub(super) addresses: BTreeSet<IpAddr>,
}

impl Hint {
    /// What the Service carries; `None` if nothing, or nothing that can be read.
    pub(super) fn of(service: &ServiceView) -> Option<Self> {
        serde_json::from_str(service.assigned.as_deref()?).ok()
    }

    /// Was the address assigned since the Service's present request to move?
    pub(super) fn is_moved(&self, service: &ServiceView, address: IpAddr) -> bool {
        self.pending.as_ref().is_some_and(|pending| {
            service.reassign.as_ref() == Some(&pending.reassign) && pending.addresses.contains(&address)
        })
    }

    /// As text. Equal hints have equal texts.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// FNV-1a, 64 bits, over everything that decides who may share with the Service; the same in every process.
pub(super) fn terms_digest(service: &ServiceView) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for (protocol, port) in &service.ports {
        add(protocol.to_string().as_bytes());
        add(&port.to_be_bytes());
    }
    match service.traffic_policy {
        TrafficPolicy::Cluster => add(b"Cluster"),
        TrafficPolicy::Local => {
            add(b"Local");
            add(&service.selector_digest.to_be_bytes());
        }
    }
    format!("{hash:016x}")
}
