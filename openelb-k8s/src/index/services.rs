//! Services, parsed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::conditions::ServiceCondition;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use serde_json::Value;

use super::SpecProblem;
use crate::names::{self, annotation, finalizer, label};
use crate::object::{NamespacedName, conditions_aside};
use crate::selector::Labels;

/// Which Services without annotation are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassRules {
    /// Our load balancer class.
    pub load_balancer_class: String,
    /// Are Services without class ours, annotated or not?
    pub handle_unclassed: bool,
}

impl Default for ClassRules {
    fn default() -> Self {
        Self { load_balancer_class: names::DEFAULT_LOAD_BALANCER_CLASS.to_owned(), handle_unclassed: false }
    }
}

/// Services by namespace and name: all of them, ours or not (another's may hold an address that was ours).
#[derive(Clone, Debug, Default)]
pub struct Services {
    rules: ClassRules,
    /// Boxed: a node of the tree has room for eleven, and is half empty.
    services: BTreeMap<NamespacedName, Box<ServiceView>>,
    /// What changed since it was asked for the last time; `None` if it never was.
    changes: Option<BTreeSet<NamespacedName>>,
}

impl Services {
    /// Empty.
    #[must_use]
    pub fn new(rules: ClassRules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Takes in a new version of a Service.
    pub fn apply(&mut self, service: &Service) -> bool {
        let view = ServiceView::parse(service, &self.rules);
        let changed = self.services.get(&view.key).is_none_or(|known| **known != view);
        if changed {
            self.note(&view.key);
            self.services.insert(view.key.clone(), Box::new(view));
        }
        changed
    }

    fn note(&mut self, key: &NamespacedName) {
        if let Some(changes) = &mut self.changes {
            changes.insert(key.clone());
        }
    }

    /// What changed since the last call; `None` at the first.
    pub(super) fn take_changes(&mut self) -> Option<BTreeSet<NamespacedName>> {
        self.changes.replace(BTreeSet::new())
    }

    /// Those of a namespace.
    pub(super) fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &NamespacedName> {
        let first = NamespacedName::new(namespace, "");
        self.services.range(first..).map(|(key, _)| key).take_while(move |key| key.namespace == namespace)
    }

    /// What of a Service's request cannot be understood.
    pub(super) fn problems_mut(&mut self, key: &NamespacedName) -> Option<&mut Vec<SpecProblem>> {
        self.note(key);
        self.services.get_mut(key).map(|view| &mut view.request_problems)
    }

    /// Forgets a Service.
    pub fn delete(&mut self, key: &NamespacedName) -> bool {
        self.note(key);
        self.services.remove(key).is_some()
    }

    /// The Service of this name.
    #[must_use]
    pub fn get(&self, key: &NamespacedName) -> Option<&ServiceView> {
        self.services.get(key).map(|view| &**view)
    }

    /// Every Service, by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &ServiceView> {
        self.services.values().map(|view| &**view)
    }

    /// Ours, by namespace and name.
    pub fn ours(&self) -> impl Iterator<Item = &ServiceView> {
        self.iter().filter(|service| service.ours)
    }

    /// Only those that `keep` says yes to.
    #[must_use]
    pub fn subset(&self, keep: impl Fn(&ServiceView) -> bool) -> Self {
        let kept = self.services.iter().filter(|(_, service)| keep(service));
        Self {
            rules: self.rules.clone(),
            services: kept.map(|(key, service)| (key.clone(), service.clone())).collect(),
            changes: None,
        }
    }

    /// Which of them are ours.
    #[must_use]
    pub fn rules(&self) -> &ClassRules {
        &self.rules
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpFamily {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// `spec.ipFamilyPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FamilyPolicy {
    /// One family.
    #[default]
    SingleStack,
    /// Both, as far as they can be had.
    PreferDualStack,
    /// Both or none.
    RequireDualStack,
}

/// `spec.externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrafficPolicy {
    /// Every node forwards.
    #[default]
    Cluster,
    /// Only nodes with endpoints do.
    Local,
}

/// A layer-4 protocol of a Service's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for PortProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// One entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// The address, if it is one.
    pub address: Option<IpAddr>,
    /// The text of the address as it is stored.
    pub text: Option<String>,
    /// A host name (of somebody else).
    pub hostname: Option<String>,
    /// `VIP` or `Proxy`.
    pub ip_mode: Option<String>,
}

/// A Service, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceView {
    /// Namespace and name.
    pub key: NamespacedName,
    /// Its unique identifier.
    pub uid: String,
    /// The version that this view is of; every status write carries it.
    pub resource_version: String,
    /// When it was created: the order of waiting Services.
    pub created: Option<Timestamp>,
    /// Is it being deleted?
    pub deleting: bool,
    /// Its labels.
    pub labels: Labels,
    /// Is it ours (type, class, annotation; not while it is being deleted)?
    pub ours: bool,
    /// `spec.type: LoadBalancer`.
    pub is_load_balancer: bool,
    /// `spec.loadBalancerClass`.
    pub class: Option<String>,
    /// It asks for the Go OpenELB's NodeProxy, which is not supported: no address.
    pub node_proxy: bool,
    /// Addresses that it asks for, at most one of each family; the annotation wins over `spec.loadBalancerIP`.
    pub requested_addresses: Vec<IpAddr>,
    /// Annotation and `spec.loadBalancerIP` differ.
    pub address_sources_differ: bool,
    /// Pools that it asks for, in order.
    pub requested_pools: Vec<String>,
    /// What of its request cannot be understood; it then keeps what it has.
    pub request_problems: Vec<SpecProblem>,
    /// `spec.ipFamilies`; empty where absent.
    pub families: Vec<IpFamily>,
    /// `spec.ipFamilyPolicy`.
    pub family_policy: FamilyPolicy,
    /// Families of `spec.clusterIPs` (or `clusterIP`).
    pub cluster_ip_families: Box<[IpFamily]>,
    /// Annotation `openelb.kubesphere.io/allow-shared-ip`.
    pub sharing_key: Option<String>,
    /// Protocols and ports.
    pub ports: BTreeSet<(PortProtocol, u16)>,
    /// `spec.externalTrafficPolicy`.
    pub traffic_policy: TrafficPolicy,
    /// `spec.selector`.
    pub selector: Labels,
    /// A digest of `spec.selector`: equal for equal selectors, the same in every process.
    pub selector_digest: u64,
    /// `status.loadBalancer.ingress`.
    pub ingress: Box<[Ingress]>,
    /// `status.conditions`.
    pub conditions: Box<[ServiceCondition]>,
    /// Those that cannot be read, as they are.
    pub unread_conditions: Box<[Value]>,
    /// The label that names the pool.
    pub pool_label: Option<String>,
    /// Annotation `openelb.kubesphere.io/assigned`: JSON, a hint only.
    pub assigned: Option<String>,
    /// Annotation `openelb.kubesphere.io/reassign`.
    pub reassign: Option<String>,
    /// All annotations but `assigned` and our note of what cannot be read.
    pub annotations: Labels,
    /// All finalizers.
    pub finalizers: Box<[String]>,
}

impl ServiceView {
    /// Parses a Service. Never fails: what of its request cannot be understood is in `request_problems`.
    #[must_use]
    pub fn parse(service: &Service, rules: &ClassRules) -> Self {
        let metadata = &service.metadata;
        let spec = service.spec.clone().unwrap_or_default();
        let annotations: Labels = metadata.annotations.clone().unwrap_or_default().into();
        let labels: Labels = metadata.labels.clone().unwrap_or_default().into();
        let text =
            |key: &str| annotations.get(key).map(|v| v.trim()).filter(|v| !v.is_empty()).map(str::to_owned);
        let deleting = metadata.deletion_timestamp.is_some();
        let is_load_balancer = spec.type_.as_deref() == Some("LoadBalancer");
        let class = spec.load_balancer_class.clone().filter(|class| !class.is_empty());
        let opted_in = text(annotation::OPT_IN).as_deref() == Some(annotation::OPT_IN_VALUE);
        let ours = is_load_balancer
            && !deleting
            && match &class {
                Some(class) => *class == rules.load_balancer_class,
                None => opted_in || rules.handle_unclassed,
            };
        let mut request_problems = Vec::new();
        let annotated = text(annotation::ADDRESSES).map(|value| {
            parse_addresses(&annotation_field(annotation::ADDRESSES), &value, &mut request_problems)
        });
        let from_spec =
            spec.load_balancer_ip.as_deref().map(str::trim).filter(|v| !v.is_empty()).map(|value| {
                // Where the annotation rules, what stands here cannot spoil the request.
                let mut ignored = Vec::new();
                let problems = if annotated.is_some() { &mut ignored } else { &mut request_problems };
                if value.contains([',', ';', ' ']) {
                    problems.push(SpecProblem::new(
                        "spec.loadBalancerIP",
                        format!("{value:?} is not one address"),
                        format!("ask for several with the annotation {}", annotation::ADDRESSES),
                    ));
                    return Vec::new();
                }
                parse_addresses("spec.loadBalancerIP", value, problems)
            });
        let address_sources_differ = match (&annotated, &from_spec) {
            (Some(annotated), Some(from_spec)) => annotated != from_spec,
            _ => false,
        };
        let mut requested_pools: Vec<String> = Vec::new();
        for name in
            text(annotation::POOLS).iter().flat_map(|v| v.split(',')).map(str::trim).filter(|n| !n.is_empty())
        {
            if !requested_pools.iter().any(|known| known == name) {
                requested_pools.push(name.to_owned());
            }
        }
        let families = parse_families(&spec.ip_families.clone().unwrap_or_default(), &mut request_problems);
        let family_policy = match spec.ip_family_policy.as_deref() {
            Some("RequireDualStack") => FamilyPolicy::RequireDualStack,
            Some("PreferDualStack") => FamilyPolicy::PreferDualStack,
            _ => FamilyPolicy::SingleStack,
        };
        let asked_in = if annotated.is_some() {
            annotation_field(annotation::ADDRESSES)
        } else {
            "spec.loadBalancerIP".to_owned()
        };
        let requested_addresses = annotated.or(from_spec).unwrap_or_default();
        if !families.is_empty() {
            for address in &requested_addresses {
                if !families.contains(&IpFamily::of(*address)) {
                    request_problems.push(SpecProblem::new(
                        asked_in.clone(),
                        format!(
                            "{address} is of a family that the Service does not have ({})",
                            list(&families)
                        ),
                        "ask for an address of its family, or change spec.ipFamilies",
                    ));
                }
            }
        }
        let selector: Labels = spec.selector.clone().unwrap_or_default().into();
        let cluster_ips = spec.cluster_ips.clone().or_else(|| spec.cluster_ip.clone().map(|ip| vec![ip]));
        let mut cluster_ip_families: Vec<IpFamily> = Vec::new();
        for ip in cluster_ips.iter().flatten().filter_map(|ip| ip.parse::<IpAddr>().ok()) {
            if !cluster_ip_families.contains(&IpFamily::of(ip)) {
                cluster_ip_families.push(IpFamily::of(ip));
            }
        }
        let status = service.status.as_ref();
        Self {
            key: NamespacedName::new(
                metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()),
                metadata.name.clone().unwrap_or_default(),
            ),
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            created: metadata.creation_timestamp.as_ref().map(|t| t.0),
            deleting,
            ours,
            is_load_balancer,
            class,
            node_proxy: text(annotation::NODE_PROXY_TYPE).is_some(),
            requested_addresses,
            address_sources_differ,
            requested_pools,
            request_problems,
            families,
            family_policy,
            cluster_ip_families: cluster_ip_families.into(),
            sharing_key: text(annotation::SHARING_KEY),
            ports: parse_ports(&spec),
            traffic_policy: match spec.external_traffic_policy.as_deref() {
                Some("Local") => TrafficPolicy::Local,
                _ => TrafficPolicy::Cluster,
            },
            selector_digest: digest(&selector),
            selector,
            ingress: status
                .and_then(|s| s.load_balancer.as_ref())
                .and_then(|lb| lb.ingress.as_ref())
                .into_iter()
                .flatten()
                .map(|ingress| Ingress {
                    address: ingress.ip.as_deref().and_then(|ip| ip.trim().parse().ok()),
                    text: ingress.ip.clone(),
                    hostname: ingress.hostname.clone(),
                    ip_mode: ingress.ip_mode.clone(),
                })
                .collect(),
            conditions: status
                .and_then(|s| s.conditions.as_deref())
                .unwrap_or_default()
                .iter()
                .map(Into::into)
                .collect(),
            unread_conditions: conditions_aside(annotations.get(annotation::UNREADABLE).map(|v| &**v)).into(),
            pool_label: labels.get(label::POOL).cloned(),
            assigned: text(annotation::ASSIGNED),
            reassign: text(annotation::REASSIGN),
            labels,
            annotations: annotations
                .only(|key| ![annotation::ASSIGNED, annotation::UNREADABLE].contains(&key)),
            finalizers: metadata.finalizers.clone().unwrap_or_default().into(),
        }
    }

    /// The addresses that are published, in order.
    #[must_use]
    pub fn published(&self) -> Vec<IpAddr> {
        self.ingress.iter().filter_map(|ingress| ingress.address).collect()
    }

    /// Finalizers that the Go OpenELB left.
    pub fn legacy_finalizers(&self) -> impl Iterator<Item = &str> {
        self.finalizers
            .iter()
            .map(String::as_str)
            .filter(|f| [finalizer::LEGACY_LB, finalizer::LEGACY_NODE_PROXY].contains(f))
    }

    /// The types of its conditions, also of those that cannot be read.
    pub fn condition_types(&self) -> impl Iterator<Item = &str> {
        let unread = self.unread_conditions.iter().filter_map(|condition| condition.get("type")?.as_str());
        self.conditions.iter().map(|condition| &*condition.type_).chain(unread)
    }

    /// Did we (or the Go OpenELB) put anything on it?
    #[must_use]
    pub fn has_traces(&self) -> bool {
        self.pool_label.is_some()
            || self.assigned.is_some()
            || self.legacy_finalizers().next().is_some()
            || self.condition_types().any(|condition| {
                [names::condition::ADDRESS_ASSIGNED, names::condition::REQUEST_HONOURED].contains(&condition)
            })
    }

    /// The order in which waiting Services are served, and in which the oldest keeps an address.
    #[must_use]
    pub fn order(&self) -> (Option<Timestamp>, &NamespacedName) {
        (self.created, &self.key)
    }
}

fn annotation_field(key: &str) -> String {
    format!("metadata.annotations[{key}]")
}

fn list(families: &[IpFamily]) -> String {
    families.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn parse_addresses(field: &str, text: &str, problems: &mut Vec<SpecProblem>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let address = match part.parse::<IpAddr>() {
            Ok(IpAddr::V6(v6)) if is_mapped(v6) => {
                problems.push(SpecProblem::new(
                    field,
                    format!("{part} is an IPv4-mapped address"),
                    "write it as IPv4",
                ));
                continue;
            }
            Ok(address) => address,
            Err(_) => {
                problems.push(SpecProblem::new(
                    field,
                    format!("{part:?} is not an address"),
                    "write IPv4 without leading zeros, or IPv6, separated by commas",
                ));
                continue;
            }
        };
        if addresses.contains(&address) {
            continue;
        }
        if addresses.iter().any(|known| known.is_ipv4() == address.is_ipv4()) {
            problems.push(SpecProblem::new(
                field,
                format!("{address} is the second {} address", IpFamily::of(address)),
                "ask for at most one of each family",
            ));
            continue;
        }
        addresses.push(address);
    }
    addresses
}

fn is_mapped(address: Ipv6Addr) -> bool {
    address.to_ipv4_mapped().is_some()
}

fn parse_families(families: &[String], problems: &mut Vec<SpecProblem>) -> Vec<IpFamily> {
    let mut parsed = Vec::new();
    for family in families {
        let family = match family.as_str() {
            "IPv4" => IpFamily::V4,
            "IPv6" => IpFamily::V6,
            other => {
                problems.push(SpecProblem::new(
                    "spec.ipFamilies",
                    format!("{other:?} is not known"),
                    "use IPv4 and IPv6",
                ));
                continue;
            }
        };
        if !parsed.contains(&family) {
            parsed.push(family);
        }
    }
    parsed
}

fn parse_ports(spec: &k8s_openapi::api::core::v1::ServiceSpec) -> BTreeSet<(PortProtocol, u16)> {
    spec.ports
        .iter()
        .flatten()
        .filter_map(|port| {
            let protocol = match port.protocol.as_deref() {
                Some("UDP") => PortProtocol::Udp,
                Some("SCTP") => PortProtocol::Sctp,
                _ => PortProtocol::Tcp,
            };
            u16::try_from(port.port).ok().map(|port| (protocol, port))
        })
        .collect()
}

/// FNV-1a, 64 bits, over the sorted labels.
fn digest(labels: &Labels) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for (key, value) in labels.iter() {
        for byte in key.bytes().chain([0]).chain(value.bytes()).chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}
