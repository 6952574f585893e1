//! Eips, parsed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr as _;
use std::sync::Arc;

use jiff::Timestamp;
use openelb_ipam::RangeList;
use regex_lite::Regex;

use super::SpecProblem;
use super::used::{Move, Used, entry_bytes};
use crate::announce::Protocol;
use crate::crd::{Eip, EipSpec, EipStatus};
use crate::names::annotation;
use crate::object::NamespacedName;
use crate::selector::{Labels, Selector};

/// `status.used` may take so many bytes; an object may have 1 MiB (and the rest of it takes its share).
pub(crate) const USED_BYTES: usize = 900 << 10;
/// The most that one more address takes there: an IPv6 address, and the names of a Namespace and of a Service.
const LARGEST_ENTRY: usize = entry_bytes(39, 63 + 1 + 63);

/// Is there no room in `status.used` for one more address, whoever holds it? It must not depend on whose turn it is: else
/// one Service would wait for this pool while another is sent to the next one.
pub(crate) const fn is_full(used_bytes: usize) -> bool {
    used_bytes + LARGEST_ENTRY > USED_BYTES
}

/// Eips by name.
#[derive(Clone, Debug, Default)]
pub struct Pools {
    pools: BTreeMap<String, EipView>,
    /// What each Service holds according to `status.used`, sorted.
    records: BTreeMap<NamespacedName, Vec<(Arc<str>, IpAddr)>>,
    /// What changed since it was asked for the last time; `None` if it never was.
    changes: Option<PoolChanges>,
    /// How many records each Eip has lost so far.
    departures: BTreeMap<String, u64>,
}

/// What changed in Eips.
#[derive(Clone, Debug, Default)]
pub(crate) struct PoolChanges {
    /// An Eip came, went, or gives other addresses or to others than before.
    pub(crate) reshaped: bool,
    /// Eips that are different in anything.
    pub(crate) eips: BTreeSet<String>,
    /// Services whose records in `status.used` are different.
    pub(crate) holders: BTreeSet<NamespacedName>,
}

impl Pools {
    /// Takes in a new version of an Eip. One whose spec became bad keeps its last good one.
    pub fn apply(&mut self, eip: &Eip) -> bool {
        let mut view = EipView::parse_without_used(eip);
        let mut before = self.pools.remove(&view.name);
        if view.spec.is_none()
            && let Some(before) = &before
            && before.uid == view.uid
        {
            view.spec = before.spec.clone();
            view.last_good = view.spec.is_some();
        }
        let mut used = before.as_mut().map(EipView::take_used).unwrap_or_default();
        let was = (used.garbled.clone(), used.untidy.clone(), used.bytes);
        let moves = used.update(eip.status.as_ref().and_then(|status| status.used.as_ref()));
        let reshaped = before.as_ref().is_none_or(|before| !before.same_shape(&view))
            || is_full(was.2) != is_full(used.bytes);
        let changed = before.as_ref() != Some(&view)
            || !moves.is_empty()
            || was.0 != used.garbled
            || was.1 != used.untidy;
        self.note(&view.name, reshaped, changed);
        self.record(&view.name, moves);
        view.put_used(used);
        self.pools.insert(view.name.clone(), view);
        changed
    }

    fn note(&mut self, name: &str, reshaped: bool, changed: bool) {
        if let Some(changes) = &mut self.changes {
            changes.reshaped |= reshaped;
            if changed && !changes.eips.contains(name) {
                changes.eips.insert(name.to_owned());
            }
        }
    }

    /// How many records have left `status.used` of an Eip since it was first seen.
    #[must_use]
    pub fn departures(&self, name: &str) -> u64 {
        self.departures.get(name).copied().unwrap_or(0)
    }

    fn record(&mut self, name: &str, moves: Vec<Move>) {
        let left = moves.iter().filter(|one| !one.came).count() as u64;
        if left > 0 {
            *self.departures.entry(name.to_owned()).or_default() += left;
        }
        let name: Arc<str> = name.into();
        for Move { address, holder, came } in moves {
            if let Some(changes) = &mut self.changes {
                changes.holders.insert(holder.clone());
            }
            if came {
                let records = self.records.entry(holder).or_default();
                let record = (Arc::clone(&name), address);
                if let Err(place) = records.binary_search(&record) {
                    records.insert(place, record);
                }
            } else if let Some(records) = self.records.get_mut(&holder) {
                records.retain(|(eip, a)| (&**eip, *a) != (&*name, address));
                if records.is_empty() {
                    self.records.remove(&holder);
                }
            }
        }
    }

    /// What changed since the last call; `None` at the first.
    pub(super) fn take_changes(&mut self) -> Option<PoolChanges> {
        self.changes.replace(PoolChanges::default())
    }

    /// The problems of an Eip, and whether its last good spec is in force.
    pub(super) fn problems_mut(&mut self, name: &str) -> Option<(&mut Vec<SpecProblem>, Option<&mut bool>)> {
        self.note(name, true, true);
        let view = self.pools.get_mut(name)?;
        Some((&mut view.problems, view.spec.is_some().then_some(&mut view.last_good)))
    }

    /// Forgets an Eip.
    pub fn delete(&mut self, name: &str) -> bool {
        let Some(mut view) = self.pools.remove(name) else { return false };
        self.note(name, true, true);
        self.record(name, view.take_used().update(None));
        true
    }

    /// The Eip of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&EipView> {
        self.pools.get(name)
    }

    /// Every Eip, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = &EipView> {
        self.pools.values()
    }

    /// What a Service holds according to `status.used`: name of the Eip and address, sorted.
    #[must_use]
    pub fn records(&self, service: &NamespacedName) -> &[(Arc<str>, IpAddr)] {
        self.records.get(service).map_or(&[], Vec::as_slice)
    }

    /// Every Service, there or not, that holds something according to `status.used`, by namespace and name.
    pub fn holders(&self) -> impl Iterator<Item = (&NamespacedName, &[(Arc<str>, IpAddr)])> {
        self.records.iter().map(|(key, records)| (key, records.as_slice()))
    }

    /// The name of a Service, if it holds something according to `status.used`.
    pub(crate) fn holder(&self, service: &NamespacedName) -> Option<&NamespacedName> {
        self.records.get_key_value(service).map(|(key, _)| key)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pools.len()
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }
}

/// An Eip, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct EipView {
    /// Its name.
    pub name: String,
    /// Its unique identifier.
    pub uid: String,
    /// The version that this view is of.
    pub resource_version: String,
    /// Counts changes of the spec.
    pub generation: i64,
    /// When it was created; the older of two owns what both cover.
    pub created: Option<Timestamp>,
    /// Is it being deleted?
    pub deleting: bool,
    /// Its annotations.
    pub annotations: Labels,
    /// Its finalizers.
    pub finalizers: Vec<String>,
    /// Annotated as default (`true` in any case).
    pub is_default: bool,
    /// The generation of the annotation `openelb.kubesphere.io/force`.
    pub force: Option<i64>,
    /// The validated spec, or the last good one; `None` if there never was one.
    pub spec: Option<Arc<PoolSpec>>,
    /// What of a bad spec can be used, without addresses: how those that are in use go on being announced after a
    /// restart, when no good version is known. `None` if the present spec is good.
    pub remains: Option<Arc<PoolSpec>>,
    /// `spec` is of an earlier version, because the present one is bad.
    pub last_good: bool,
    /// What is wrong with the present spec; empty if nothing is.
    pub problems: Vec<SpecProblem>,
    /// The status as it is stored, without `used`.
    pub status: EipStatus,
    /// Who holds an address, from `status.used`.
    pub used: BTreeMap<IpAddr, Vec<NamespacedName>>,
    /// Entries of `status.used` that cannot be read.
    pub garbled_used: Vec<String>,
    /// Entries of `status.used` that are not as we write them, as they are stored.
    pub(crate) untidy_used: BTreeMap<String, String>,
    /// Bytes that `status.used` takes, roughly.
    pub(crate) used_bytes: usize,
}

/// A validated spec.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSpec {
    /// The addresses.
    pub address: RangeList,
    /// Addresses that are never given out.
    pub exclude: RangeList,
    /// Also exclude .0, .255 and the ends of CIDRs.
    pub avoid_network_and_broadcast: bool,
    /// How addresses are announced; empty: somebody else does it.
    pub protocols: BTreeSet<Protocol>,
    /// The interface of layer2 and vip.
    pub interface: Option<InterfaceSelector>,
    /// Give nothing new.
    pub disable: bool,
    /// Lower is preferred.
    pub priority: i64,
    /// Namespaces that the pool is bound to.
    pub namespaces: Vec<String>,
    /// Labels of namespaces that the pool is bound to; `None` if the field is absent or empty.
    pub namespace_selector: Option<Labels>,
    /// Services that the pool is bound to.
    pub service_selector: Option<Selector>,
    /// `Eip.spec.autoAssign`.
    pub auto_assign: Option<bool>,
    /// Selectors also hold for Services that name the pool.
    pub enforce_selectors: bool,
    /// Who may share an address.
    pub sharing: Option<Sharing>,
    /// Distinct addresses that Services of one namespace may hold.
    pub max_per_namespace: Option<u32>,
    /// Nodes that may announce.
    pub node_selector: Option<Selector>,
    /// Name of a VipGroup.
    pub vip_group: Option<String>,
}

impl PoolSpec {
    /// Does the address lie in the ranges, excluded or not?
    #[must_use]
    pub fn covers(&self, address: IpAddr) -> bool {
        self.address.entries().iter().any(|entry| entry.range.contains(address))
    }

    /// Is the address taken out by `exclude`, or one that is never given?
    #[must_use]
    pub fn excludes(&self, address: IpAddr) -> bool {
        self.exclude.entries().iter().any(|entry| entry.range.contains(address))
            || openelb_ipam::never_given().contains(address)
    }

    /// Is the pool bound to namespaces or Services?
    #[must_use]
    pub fn is_bound(&self) -> bool {
        !self.namespaces.is_empty() || self.namespace_selector.is_some() || self.service_selector.is_some()
    }

    /// Does the binding match a Service (of labels `service`, in `namespace` of labels `namespace_labels`)? A pool
    /// that is not bound matches every Service.
    #[must_use]
    pub fn matches(&self, namespace: &str, namespace_labels: &Labels, service: &Labels) -> bool {
        let named = self.namespaces.iter().any(|n| n == namespace);
        let selected = self
            .namespace_selector
            .as_ref()
            .is_some_and(|wanted| wanted.iter().all(|(key, value)| namespace_labels.get(key) == Some(value)));
        let neither = self.namespaces.is_empty() && self.namespace_selector.is_none();
        (neither || named || selected) && self.service_selector.as_ref().is_none_or(|s| s.matches(service))
    }
}

/// Who may share an address (`Eip.spec.sharing`; absent: by key, and by address within a namespace).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// By address across namespaces too.
    Address,
    /// By key only.
    Key,
    /// Nobody.
    None,
}

/// `Eip.spec.interface`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterfaceSelector {
    /// The interface of this name.
    Name(String),
    /// The interface of the route to this address.
    CanReach(IpAddr),
    /// Interfaces whose name matches this regular expression.
    Regex(String),
    /// The interface whose subnet holds the address.
    Subnet,
    /// Every interface.
    All,
}

/// The longest name of an interface, in octets: that of an alternative one (Linux `ALTIFNAMSIZ` − 1).
const MAX_INTERFACE_NAME: usize = 127;

/// Whether Linux takes it, but for `:` and `,`.
fn is_interface_name(text: &str) -> bool {
    let bad = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    text.len() <= MAX_INTERFACE_NAME && !text.contains(bad) && !matches!(text, "." | "..")
}

impl InterfaceSelector {
    /// Parses the field.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match text.split_once(':') {
            None if text.is_empty() => Err("is empty".to_owned()),
            None if text == "subnet" => Ok(Self::Subnet),
            None if text == "all" => Ok(Self::All),
            None if text.eq_ignore_ascii_case("subnet") || text.eq_ignore_ascii_case("all") => Err(format!(
                "{text:?} is no name of an interface; {} is written in small letters",
                text.to_ascii_lowercase()
            )),
            None if text.contains(',') => {
                let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
                let names: Vec<String> = names.map(regex_lite::escape).collect();
                Err(format!("{text:?} names several interfaces, which is regex:^({})$", names.join("|")))
            }
            None if !is_interface_name(text) => Err(format!("{text:?} cannot be the name of an interface")),
            None => Ok(Self::Name(text.to_owned())),
            Some(("can_reach", address)) => address
                .trim()
                .parse()
                .map(Self::CanReach)
                .map_err(|_| format!("{address:?} after can_reach: is not an address")),
            Some(("regex", expression)) => match expression.trim() {
                "" => Err("the expression after regex: is empty".to_owned()),
                // Each node would find it out, and announce nothing.
                expression => {
                    Regex::new(expression).map(|_| Self::Regex(expression.to_owned())).map_err(|error| {
                        format!("{expression:?} after regex: is no regular expression: {error}")
                    })
                }
            },
            Some((prefix, _)) => Err(format!("{prefix:?} is none of can_reach:IP and regex:EXPR")),
        }
    }
}

impl fmt::Display for InterfaceSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::CanReach(address) => write!(f, "can_reach:{address}"),
            Self::Regex(expression) => write!(f, "regex:{expression}"),
            Self::Subnet => f.write_str("subnet"),
            Self::All => f.write_str("all"),
        }
    }
}

impl EipView {
    /// Parses an Eip. Never fails: what is wrong is in `problems`.
    #[must_use]
    pub fn parse(eip: &Eip) -> Self {
        let mut view = Self::parse_without_used(eip);
        let mut used = Used::default();
        used.update(eip.status.as_ref().and_then(|status| status.used.as_ref()));
        view.put_used(used);
        view
    }

    fn parse_without_used(eip: &Eip) -> Self {
        let metadata = &eip.metadata;
        let annotations: Labels = metadata.annotations.clone().unwrap_or_default().into();
        let (read, mut problems) = read_spec(&eip.spec);
        super::add_unreadable(metadata, &mut problems);
        let (spec, remains) = if problems.is_empty() { (Some(read), None) } else { (None, Some(read)) };
        let (spec, remains) = (
            spec.map(Arc::new),
            remains.map(|mut remains| {
                // Nothing is announced on an interface that is not known.
                if remains.interface.is_none() {
                    remains.protocols.retain(|protocol| *protocol == Protocol::Bgp);
                }
                (remains.address, remains.exclude) = (RangeList::default(), RangeList::default());
                Arc::new(remains)
            }),
        );
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            created: metadata.creation_timestamp.as_ref().map(|t| t.0),
            deleting: metadata.deletion_timestamp.is_some(),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
            is_default: annotations
                .get(annotation::DEFAULT_EIP)
                .is_some_and(|v| v.trim().eq_ignore_ascii_case("true")),
            force: annotations.get(annotation::FORCE).and_then(|v| v.trim().parse().ok()),
            annotations,
            spec,
            remains,
            last_good: false,
            problems,
            status: eip.status.as_ref().map(without_used).unwrap_or_default(),
            used: BTreeMap::new(),
            garbled_used: Vec::new(),
            untidy_used: BTreeMap::new(),
            used_bytes: 0,
        }
    }

    fn take_used(&mut self) -> Used {
        Used {
            holders: std::mem::take(&mut self.used),
            garbled: std::mem::take(&mut self.garbled_used),
            untidy: std::mem::take(&mut self.untidy_used),
            bytes: std::mem::take(&mut self.used_bytes),
        }
    }

    fn put_used(&mut self, used: Used) {
        self.used = used.holders;
        self.garbled_used = used.garbled;
        self.untidy_used = used.untidy;
        self.used_bytes = used.bytes;
    }

    /// Does it give the same addresses to the same Services as another version, given the same `status.used`?
    fn same_shape(&self, other: &Self) -> bool {
        self.uid == other.uid
            && self.generation == other.generation
            && self.created == other.created
            && self.deleting == other.deleting
            && self.is_default == other.is_default
            && self.force == other.force
            && self.spec == other.spec
            && self.last_good == other.last_good
            && self.problems == other.problems
    }

    /// How the pool's addresses are announced: by the spec, or by what remains of a bad one.
    #[must_use]
    pub fn announced_by(&self) -> Option<&Arc<PoolSpec>> {
        self.spec.as_ref().or(self.remains.as_ref())
    }

    /// Can the pool give anything new? Not while it is deleted, disabled, or its present spec is bad after a restart.
    #[must_use]
    pub fn gives(&self) -> bool {
        !self.deleting && self.spec.as_ref().is_some_and(|spec| !spec.disable)
    }

    /// Is this address held by this Service in `status.used`?
    #[must_use]
    pub fn is_held_by(&self, address: IpAddr, service: &NamespacedName) -> bool {
        self.used.get(&address).is_some_and(|holders| holders.contains(service))
    }
}

fn without_used(status: &EipStatus) -> EipStatus {
    EipStatus {
        occupied: status.occupied,
        usage: status.usage,
        pool_size: status.pool_size,
        used: None,
        first_ip: status.first_ip.clone(),
        last_ip: status.last_ip.clone(),
        ready: status.ready,
        v4: status.v4,
        observed_generation: status.observed_generation,
        revision: status.revision,
        conditions: status.conditions.clone(),
    }
}

/// Validates a spec.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_spec(spec: &EipSpec) -> Result<PoolSpec, Vec<SpecProblem>> {
    let (parsed, problems) = read_spec(spec);
    if problems.is_empty() { Ok(parsed) } else { Err(problems) }
}

/// Reads a spec; what is wrong is left out, and listed.
fn read_spec(spec: &EipSpec) -> (PoolSpec, Vec<SpecProblem>) {
    let mut problems = Vec::new();
    let address = match spec.address.as_deref().map(str::trim) {
        None | Some("") => {
            problems.push(SpecProblem::new("spec.address", "there are no addresses", GRAMMAR));
            RangeList::default()
        }
        Some(text) => RangeList::from_str(text).unwrap_or_else(|error| {
            problems.push(SpecProblem::new("spec.address", error.to_string(), GRAMMAR));
            RangeList::default()
        }),
    };
    let exclude = spec.exclude.clone().unwrap_or_default().join(",");
    let exclude = if exclude.trim().is_empty() {
        RangeList::default()
    } else {
        RangeList::from_str(&exclude).unwrap_or_else(|error| {
            problems.push(SpecProblem::new("spec.exclude", error.to_string(), GRAMMAR));
            RangeList::default()
        })
    };
    let protocols = parse_protocols(spec, &mut problems);
    let interface = match spec.interface.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
        None => {
            if protocols.iter().any(|p| *p != Protocol::Bgp) {
                problems.push(SpecProblem::new(
                    "spec.interface",
                    "protocol layer2 and vip need an interface",
                    "name one, or say subnet for the one whose subnet holds the address",
                ));
            }
            None
        }
        // BGP has no use for it, whatever it is.
        Some(text) if protocols.iter().all(|protocol| *protocol == Protocol::Bgp) => {
            InterfaceSelector::parse(text).ok()
        }
        Some(text) => InterfaceSelector::parse(text)
            .map_err(|cause| {
                problems.push(SpecProblem::new(
                    "spec.interface",
                    cause,
                    if text.starts_with("regex:") {
                        "write an expression for names of interfaces, such as regex:^eth[0-9]+$"
                    } else {
                        "use NAME, can_reach:IP, regex:EXPR, subnet or all"
                    },
                ));
            })
            .ok(),
    };
    let sharing = match spec.sharing.as_deref() {
        None | Some("") => None,
        Some("Address") => Some(Sharing::Address),
        Some("Key") => Some(Sharing::Key),
        Some("None") => Some(Sharing::None),
        Some(other) => {
            problems.push(SpecProblem::new(
                "spec.sharing",
                format!("{other:?} is not known"),
                "use Address, Key or None",
            ));
            None
        }
    };
    let mut selector = |field: &str, selector: Option<&_>| {
        selector.and_then(|selector| {
            Selector::parse(selector)
                .map_err(|error| {
                    problems.push(SpecProblem::new(field, error.to_string(), "correct the expression"));
                })
                .ok()
        })
    };
    let service_selector = selector("spec.serviceSelector", spec.service_selector.as_ref());
    let node_selector = selector("spec.nodeSelector", spec.node_selector.as_ref());
    if spec.max_per_namespace == Some(0) {
        problems.push(SpecProblem::new(
            "spec.maxPerNamespace",
            "0 would give nothing to anybody",
            "use at least 1, or disable",
        ));
    }
    let parsed = PoolSpec {
        address,
        exclude,
        avoid_network_and_broadcast: spec.avoid_network_and_broadcast.unwrap_or(false),
        protocols,
        interface,
        disable: spec.disable.unwrap_or(false),
        priority: spec.priority.unwrap_or(0),
        namespaces: spec.namespaces.clone().unwrap_or_default(),
        namespace_selector: spec
            .namespace_selector
            .clone()
            .filter(|labels| !labels.is_empty())
            .map(Labels::from),
        service_selector,
        auto_assign: spec.auto_assign,
        enforce_selectors: spec.enforce_selectors.unwrap_or(false),
        sharing,
        max_per_namespace: spec.max_per_namespace,
        node_selector,
        vip_group: spec.vip_group.clone().filter(|name| !name.is_empty()),
    };
    (parsed, problems)
}

const GRAMMAR: &str = "write addresses (192.0.2.1), CIDRs (192.0.2.0/24) and ranges (192.0.2.10-192.0.2.20), separated by commas";

fn parse_protocols(spec: &EipSpec, problems: &mut Vec<SpecProblem>) -> BTreeSet<Protocol> {
    let mut parse = |field: &str, text: &str| match text {
        "" | "bgp" => Some(Protocol::Bgp),
        "layer2" => Some(Protocol::Layer2),
        "vip" => Some(Protocol::Vip),
        "none" => None,
        other => {
            problems.push(SpecProblem::new(
                field,
                format!("{other:?} is not known"),
                "use bgp, layer2, vip or none",
            ));
            None
        }
    };
    match spec.protocols.as_deref() {
        None | Some([]) => {
            parse("spec.protocol", spec.protocol.as_deref().unwrap_or_default().trim()).into_iter().collect()
        }
        Some(list) => list.iter().filter_map(|text| parse("spec.protocols", text.trim())).collect(),
    }
}
