//! BgpConfs and BgpPeers, parsed.

mod bfd;
pub mod community;
mod parse;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Secret;

use super::{SpecProblem, add_unreadable};
use crate::announce::Password;
use crate::crd::bgp_conf::{BgpConfStatus, GracefulRestart};
use crate::crd::bgp_peer::{Advertisement, BgpPeerStatus, PeerPolicies, PrefixLimit};
use crate::crd::{BgpConf, BgpPeer};
use crate::names::{DEFAULT_OBJECT, annotation, label};
use crate::object::NamespacedName;
use crate::selector::{Labels, Selector};

pub(crate) use bfd::unknown_profile;
pub use bfd::{BfdSpec, BfdTimers, BfdWritten};
pub use parse::{parse_conf, parse_peer};

/// BgpConfs, BgpPeers and the Secrets that they may name.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    confs: BTreeMap<String, BgpConfView>,
    peers: BTreeMap<String, PeerView>,
    secrets: BTreeMap<NamespacedName, BTreeMap<String, Password>>,
}

impl Peers {
    /// Takes in a new version of a BgpConf. One whose spec became bad keeps its last good one.
    pub fn apply_conf(&mut self, conf: &BgpConf) -> bool {
        let mut view = BgpConfView::parse(conf);
        if view.spec.is_none()
            && let Some(before) = self.confs.get(&view.name)
        {
            view.spec = before.spec.clone();
            view.last_good = view.spec.is_some();
        }
        let changed = self.confs.get(&view.name) != Some(&view);
        self.confs.insert(view.name.clone(), view);
        self.take_profiles();
        changed
    }

    /// Takes in a new version of a BgpPeer. One whose spec became bad, or names a BFD profile that is not there, keeps its
    /// last good one.
    pub fn apply_peer(&mut self, peer: &BgpPeer) -> bool {
        let mut view = PeerView::parse(peer);
        let before = self.peers.get(&view.name);
        if view.written.is_none() {
            view.written = before.and_then(|before| before.written.clone());
        }
        view.take_profile(self.bfd_profiles(), before.and_then(|before| before.spec.clone()));
        let changed = self.peers.get(&view.name) != Some(&view);
        self.peers.insert(view.name.clone(), view);
        changed
    }

    fn bfd_profiles(&self) -> &BTreeMap<String, BfdTimers> {
        const NONE: &BTreeMap<String, BfdTimers> = &BTreeMap::new();
        self.conf().and_then(|conf| conf.spec.as_deref()).map_or(NONE, |spec| &spec.bfd_profiles)
    }

    /// The BgpConf is another one: what BgpPeers take of its profiles may be, too.
    fn take_profiles(&mut self) {
        let profiles = self.bfd_profiles().clone();
        for view in self.peers.values_mut() {
            let before = view.spec.clone();
            view.take_profile(&profiles, before);
        }
    }

    /// The problems of a BgpPeer, and whether its last good spec is in force.
    pub(super) fn peer_problems_mut(
        &mut self,
        name: &str,
    ) -> Option<(&mut Vec<SpecProblem>, Option<&mut bool>)> {
        let view = self.peers.get_mut(name)?;
        Some((&mut view.problems, view.spec.is_some().then_some(&mut view.last_good)))
    }

    /// The problems of a BgpConf, and whether its last good spec is in force.
    pub(super) fn conf_problems_mut(
        &mut self,
        name: &str,
    ) -> Option<(&mut Vec<SpecProblem>, Option<&mut bool>)> {
        let view = self.confs.get_mut(name)?;
        Some((&mut view.problems, view.spec.is_some().then_some(&mut view.last_good)))
    }

    /// Takes in a Secret.
    pub fn apply_secret(&mut self, secret: &Secret) -> bool {
        let key = NamespacedName::new(
            secret.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()),
            secret.metadata.name.clone().unwrap_or_default(),
        );
        let mut data: BTreeMap<String, Password> = BTreeMap::new();
        for (name, bytes) in secret.data.iter().flatten() {
            if let Ok(text) = std::str::from_utf8(&bytes.0) {
                data.insert(name.clone(), Password::new(text.trim_end_matches(['\n', '\r'])));
            }
        }
        for (name, text) in secret.string_data.iter().flatten() {
            data.insert(name.clone(), Password::new(text.trim_end_matches(['\n', '\r'])));
        }
        // Nothing is no password.
        data.retain(|_, password| !password.expose().is_empty());
        self.secrets.insert(key, data.clone()).as_ref() != Some(&data)
    }

    /// Forgets a BgpConf.
    pub fn delete_conf(&mut self, name: &str) -> bool {
        let known = self.confs.remove(name).is_some();
        self.take_profiles();
        known
    }

    /// Forgets a BgpPeer.
    pub fn delete_peer(&mut self, name: &str) -> bool {
        self.peers.remove(name).is_some()
    }

    /// Forgets a Secret.
    pub fn delete_secret(&mut self, key: &NamespacedName) -> bool {
        self.secrets.remove(key).is_some()
    }

    /// The BgpConf that is honoured: `default`.
    #[must_use]
    pub fn conf(&self) -> Option<&BgpConfView> {
        self.confs.get(DEFAULT_OBJECT)
    }

    /// Every BgpConf, in the order of names.
    pub fn confs(&self) -> impl Iterator<Item = &BgpConfView> {
        self.confs.values()
    }

    /// The BgpPeer of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&PeerView> {
        self.peers.get(name)
    }

    /// Every BgpPeer, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = &PeerView> {
        self.peers.values()
    }

    /// A password in a Secret of `namespace`.
    #[must_use]
    pub fn secret(&self, namespace: &str, name: &str, key: &str) -> Option<&Password> {
        self.secrets.get(&NamespacedName::new(namespace, name)).and_then(|data| data.get(key))
    }
}

/// A BgpConf, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct BgpConfView {
    /// Its name; only `default` is honoured.
    pub name: String,
    /// The version that this view is of.
    pub resource_version: String,
    /// Counts changes of the spec.
    pub generation: i64,
    /// A CNI speaks BGP (label `openelb.kubesphere.io/cni`).
    pub cni_duty: bool,
    /// The validated spec, or the last good one.
    pub spec: Option<Arc<BgpConfParsed>>,
    /// `spec` is of an earlier version, because the present one is bad.
    pub last_good: bool,
    /// What is wrong with the present spec.
    pub problems: Vec<SpecProblem>,
    /// The status as it is stored.
    pub status: BgpConfStatus,
    /// Its finalizers; those of the Go OpenELB are removed.
    pub finalizers: Vec<String>,
    /// The Go OpenELB's speakers have left the time at which they took it into use; it is removed.
    pub has_legacy_annotation: bool,
}

/// A validated BgpConf.
#[derive(Clone, Debug, PartialEq)]
pub struct BgpConfParsed {
    /// Our AS number; 0 if only racks have one.
    pub asn: u32,
    /// AS numbers by rack.
    pub as_per_rack: BTreeMap<String, u32>,
    /// The BGP identifier that was asked for.
    pub router_id: Option<Ipv4Addr>,
    /// The TCP port.
    pub listen_port: u16,
    /// Addresses to listen on; empty: all.
    pub listen_addresses: Vec<IpAddr>,
    /// Whose addresses are next hops.
    pub next_hop_mode: NextHopMode,
    /// Graceful restart.
    pub graceful_restart: GracefulRestart,
    /// Name of the ConfigMap with the policy file.
    pub policy: Option<String>,
    /// Timers of BFD by name, for BgpPeers.
    pub bfd_profiles: BTreeMap<String, BfdTimers>,
}

/// `nextHopMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NextHopMode {
    /// Decided by whoever plans: `Self` in standalone.
    #[default]
    Auto,
    /// Each node announces itself.
    SelfOnly,
    /// Each speaker announces every eligible node.
    AllNodes,
}

impl BgpConfView {
    /// Parses a BgpConf. Never fails: what is wrong is in `problems`.
    #[must_use]
    pub fn parse(conf: &BgpConf) -> Self {
        let metadata = &conf.metadata;
        let (spec, mut problems) = match parse_conf(&conf.spec) {
            Ok(spec) => (Some(Arc::new(spec)), Vec::new()),
            Err(problems) => (None, problems),
        };
        add_unreadable(metadata, &mut problems);
        let spec = spec.filter(|_| problems.is_empty());
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            cni_duty: metadata.labels.as_ref().is_some_and(|l| l.contains_key(label::CNI)),
            spec,
            last_good: false,
            problems,
            status: conf.status.clone().unwrap_or_default(),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
            has_legacy_annotation: metadata
                .annotations
                .as_ref()
                .is_some_and(|annotations| annotations.contains_key(annotation::OPT_IN)),
        }
    }
}

/// A BgpPeer, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerView {
    /// Its name.
    pub name: String,
    /// The version that this view is of.
    pub resource_version: String,
    /// Counts changes of the spec.
    pub generation: i64,
    /// A CNI speaks BGP (label `openelb.kubesphere.io/cni`).
    pub cni_duty: bool,
    /// Is it being deleted?
    pub deleting: bool,
    /// The validated spec, or the last good one, with what it takes of its BFD profile.
    pub spec: Option<Arc<PeerSpec>>,
    /// The same without the profile, which may be unknown.
    written: Option<Arc<PeerSpec>>,
    /// `spec` is of an earlier version, because the present one is bad.
    pub last_good: bool,
    /// What is wrong with the present spec.
    pub problems: Vec<SpecProblem>,
    /// The status as it is stored.
    pub status: BgpPeerStatus,
    /// Its finalizers; those of the Go OpenELB are removed.
    pub finalizers: Vec<String>,
}

/// Who the neighbour is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbor {
    /// At this address.
    Address(IpAddr),
    /// Whoever connects from within this prefix.
    Prefix(IpNet),
}

/// A validated BgpPeer.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerSpec {
    /// Who the neighbour is.
    pub neighbor: Neighbor,
    /// Free text.
    pub description: Option<String>,
    /// Its TCP port.
    pub port: u16,
    /// Its AS number; `None`: any external one.
    pub asn: Option<u32>,
    /// Our AS number towards it; `None`: the BgpConf's.
    pub local_asn: Option<u32>,
    /// Keep the session down.
    pub admin_down: bool,
    /// Wait for it to connect.
    pub passive: bool,
    /// IP TTL towards an external neighbour several hops away.
    pub multihop_ttl: Option<u8>,
    /// Hops of TTL security (RFC 5082).
    pub ttl_security_hops: Option<u8>,
    /// Offered hold time; zero: none.
    pub hold_time: Duration,
    /// KEEPALIVE interval.
    pub keepalive: Duration,
    /// Time between attempts to connect; `None`: the speaker's default.
    pub connect_retry: Option<Duration>,
    /// Our address of the session.
    pub local_address: Option<IpAddr>,
    /// The interface of the session.
    pub bind_interface: Option<String>,
    /// Maximum segment size.
    pub tcp_mss: Option<u16>,
    /// Graceful restart; `None`: on, with defaults.
    pub graceful_restart: Option<GracefulRestart>,
    /// Address families; empty: both, with additional paths.
    pub families: Vec<PeerFamily>,
    /// The nodes that talk to it.
    pub node_selector: Selector,
    /// Overrides the BgpConf's.
    pub next_hop_mode: Option<NextHopMode>,
    /// Keep received routes (`receivedRoutes: Keep`)?
    pub keep_received_routes: bool,
    /// How many prefixes it may announce.
    pub prefix_limit: Option<PrefixLimit>,
    /// `passwordSecretRef`: name and key.
    pub password_secret: Option<(String, String)>,
    /// `conf.authPassword`.
    pub password: Option<Password>,
    /// BFD as it is in force, with the values of the profile.
    pub bfd: Option<BfdSpec>,
    /// BFD as it is written.
    pub bfd_written: BfdWritten,
    /// A link that goes down ends the session at once.
    pub link_failover: bool,
    /// What is announced; `None`: everything, plain.
    pub advertisements: Option<Vec<AdvertisementSpec>>,
    /// Policies.
    pub policies: PeerPolicies,
}

/// A family of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerFamily {
    /// IPv6? Else IPv4. Unicast.
    pub v6: bool,
    /// Send at most so many paths of a prefix; 0: one, without additional paths.
    pub add_path_send: u8,
    /// Accept additional paths.
    pub add_path_receive: bool,
    /// Graceful restart of this family.
    pub graceful_restart: bool,
}

/// A rule of what is announced.
#[derive(Clone, Debug, PartialEq)]
pub struct AdvertisementSpec {
    /// Which Services.
    pub service_selector: Selector,
    /// On which nodes.
    pub node_selector: Selector,
    /// COMMUNITIES (RFC 1997).
    pub communities: Vec<u32>,
    /// LARGE_COMMUNITY (RFC 8092).
    pub large_communities: Vec<[u32; 3]>,
    /// EXTENDED COMMUNITIES (RFC 4360), as on the wire.
    pub extended_communities: Vec<[u8; 8]>,
    /// IPv4 addresses are announced as a prefix of this length, below 32.
    pub aggregation_length: Option<u8>,
    /// IPv6 addresses are announced as a prefix of this length, below 128.
    pub aggregation_length_v6: Option<u8>,
    /// The rule as it is written.
    pub rule: Advertisement,
}

impl AdvertisementSpec {
    /// The length of the prefix that an address is announced in; `None`: as itself.
    #[must_use]
    pub fn aggregation_length_of(&self, address: IpAddr) -> Option<u8> {
        if address.is_ipv4() { self.aggregation_length } else { self.aggregation_length_v6 }
    }

    /// Does the rule take an address of this pool and these Services?
    #[must_use]
    pub fn matches(&self, pool: &str, services: &[Labels]) -> bool {
        let named = self
            .rule
            .pool_names
            .as_deref()
            .is_none_or(|pools| pools.is_empty() || pools.iter().any(|p| p == pool));
        named && services.iter().any(|labels| self.service_selector.matches(labels))
    }
}

impl PeerView {
    /// Parses a BgpPeer. Never fails: what is wrong is in `problems`.
    #[must_use]
    pub fn parse(peer: &BgpPeer) -> Self {
        let metadata = &peer.metadata;
        let (spec, mut problems) = match parse_peer(&peer.spec) {
            Ok(spec) => (Some(Arc::new(spec)), Vec::new()),
            Err(problems) => (None, problems),
        };
        add_unreadable(metadata, &mut problems);
        let spec = spec.filter(|_| problems.is_empty());
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            cni_duty: metadata.labels.as_ref().is_some_and(|l| l.contains_key(label::CNI)),
            deleting: metadata.deletion_timestamp.is_some(),
            written: spec.clone(),
            spec,
            last_good: false,
            problems,
            status: peer.status.clone().unwrap_or_default(),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
        }
    }

    /// Takes over what the profile that is named says; `before` stays in force if there is no such profile.
    fn take_profile(&mut self, profiles: &BTreeMap<String, BfdTimers>, before: Option<Arc<PeerSpec>>) {
        self.problems.retain(|problem| problem.field != bfd::PROFILE);
        self.spec = match self.written.as_ref().map(|written| written.with_profile(profiles)) {
            Some(Ok(spec)) => Some(spec),
            Some(Err(problem)) => {
                self.problems.push(problem);
                before
            }
            None => None,
        };
        self.last_good = self.spec.is_some() && !self.problems.is_empty();
    }
}
