//! Every error of a set of objects, with file, object, field, cause and remedy; also what admission would refuse.
//!
//! Pure functions. What only leaves a Service waiting (a pool that does not exist yet, say) is no error.

mod change;
mod kinds;

pub use change::eip_change;
pub(crate) use kinds::layer2_conf;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use openelb_ipam::Family;

use crate::crd::Eip;
use crate::index::services::ClassRules;
use crate::index::{EipView, SpecProblem};
use crate::names::{DEFAULT_OBJECT, label};
use crate::object::{Kind, Object, ObjectRef};
use crate::problem::{Problem, Severity};
use crate::source::manifests::{Document, Loaded};

/// Everything that is wrong with what was loaded, in the order of files and lines; empty if nothing is.
///
/// The check failed if one of them is an [`Severity::Error`]: see [`has_errors`].
#[must_use]
pub fn validate(loaded: &Loaded) -> Vec<Problem> {
    validate_with(loaded, &ClassRules::default())
}

/// The same, with other rules for which Services are ours.
#[must_use]
pub fn validate_with(loaded: &Loaded, rules: &ClassRules) -> Vec<Problem> {
    validate_beside(loaded, rules, &[])
}

/// The same, and what the edits since these objects were stored would do to what is in use.
#[must_use]
pub fn validate_beside(loaded: &Loaded, rules: &ClassRules, stored: &[Object]) -> Vec<Problem> {
    let mut report = Report { problems: loaded.problems.clone(), places: places(&loaded.documents) };
    let objects: Vec<&Object> = loaded.documents.iter().map(|document| &document.object).collect();
    for object in &objects {
        single(object, rules, &mut report);
    }
    pools(&objects, &mut report);
    peers(&objects, &mut report);
    groups(&objects, &mut report);
    changes(&objects, stored, &mut report);
    let Report { mut problems, .. } = report;
    problems.sort_by(|a, b| {
        (&a.file, a.line, &a.object, &a.field, &a.cause)
            .cmp(&(&b.file, b.line, &b.object, &b.field, &b.cause))
    });
    problems.dedup();
    problems
}

/// Is there an error among them (and not only warnings)?
#[must_use]
pub fn has_errors(problems: &[Problem]) -> bool {
    problems.iter().any(|problem| problem.severity == Severity::Error)
}

type Places<'a> = BTreeMap<ObjectRef, &'a Document>;

fn places(documents: &[Document]) -> Places<'_> {
    documents.iter().map(|document| (document.object.reference(), document)).collect()
}

struct Report<'a> {
    problems: Vec<Problem>,
    places: Places<'a>,
}

impl Report<'_> {
    fn add(&mut self, object: &ObjectRef, mut problem: Problem) {
        if let Some(document) = self.places.get(object) {
            problem.file = Some(document.file.clone());
            problem.document = Some(document.document);
            problem.line = Some(document.line);
        }
        self.problems.push(problem.of(object.clone()));
    }

    fn error(&mut self, object: &ObjectRef, field: &str, cause: impl Into<String>, remedy: &str) {
        self.add(object, Problem::error(cause, remedy).at(field));
    }

    fn warning(&mut self, object: &ObjectRef, field: &str, cause: impl Into<String>, remedy: &str) {
        self.add(object, Problem::warning(cause, remedy).at(field));
    }

    fn spec(&mut self, object: &ObjectRef, problems: impl IntoIterator<Item = SpecProblem>) {
        for problem in problems {
            self.add(object, problem.into_problem(object.clone()));
        }
    }
}

/// What is wrong with one object by itself.
fn single(object: &Object, rules: &ClassRules, report: &mut Report<'_>) {
    let reference = object.reference();
    match object {
        Object::Eip(eip) => {
            let view = EipView::parse(eip);
            report.spec(&reference, view.problems);
            let spec = &eip.spec;
            if view.is_default && spec.auto_assign == Some(false) {
                let cause = "it is the default, but gives nothing without a request";
                report.warning(
                    &reference,
                    "spec.autoAssign",
                    cause,
                    "leave autoAssign out, or the annotation",
                );
            }
        }
        Object::BgpConf(conf) => {
            if conf.metadata.name.as_deref() != Some(DEFAULT_OBJECT) {
                let cause = "only the BgpConf named default is honoured";
                report.warning(&reference, "metadata.name", cause, "name it default");
            }
            report.spec(&reference, crate::index::BgpConfView::parse(conf).problems);
        }
        Object::BgpPeer(peer) => report.spec(&reference, crate::index::PeerView::parse(peer).problems),
        Object::BgpPolicy(policy) => report.spec(&reference, kinds::bgp_policy(&policy.spec)),
        Object::Layer2Conf(conf) => {
            if conf.metadata.name.as_deref() != Some(DEFAULT_OBJECT) {
                let cause = "only the Layer2Conf named default is honoured";
                report.warning(&reference, "metadata.name", cause, "name it default");
            }
            report.spec(&reference, layer2_conf(&conf.spec));
        }
        Object::VipGroup(group) => report.spec(&reference, kinds::vip_group(&group.spec)),
        Object::Service(service) => {
            let view = crate::index::ServiceView::parse(service, rules);
            if !view.ours {
                return;
            }
            report.spec(&reference, view.request_problems.clone());
            let annotation = |key: &str| format!("metadata.annotations[{key}]");
            if view.address_sources_differ {
                let cause = "the annotation and spec.loadBalancerIP differ; the annotation wins";
                report.warning(&reference, "spec.loadBalancerIP", cause, "leave one of them out");
            }
            if view.node_proxy {
                report.error(
                    &reference,
                    &annotation(crate::names::annotation::NODE_PROXY_TYPE),
                    "NodeProxy is not supported: the Service gets no address",
                    "leave the annotation out and use an Eip of protocol layer2 or bgp",
                );
            }
        }
        Object::Node(node) => {
            for address in crate::index::NodeView::parse(node).garbled_addresses {
                let cause = format!("{address:?} is not an address");
                report.error(&reference, "status.addresses", cause, "write an IPv4 or IPv6 address");
            }
        }
        Object::EndpointSlice(slice) => {
            if slice.metadata.labels.as_ref().is_none_or(|labels| !labels.contains_key(label::SERVICE_NAME)) {
                let cause = format!("the label {} is missing", label::SERVICE_NAME);
                report.warning(&reference, "metadata.labels", cause, "name the Service that it belongs to");
            }
        }
        Object::SpeakerStatus(_) | Object::Namespace(_) | Object::Secret(_) | Object::ConfigMap(_) => {}
    }
}

/// Overlaps and several defaults; of two the one that stands first counts as the older.
fn pools(objects: &[&Object], report: &mut Report<'_>) {
    let eips = || eips_of(objects);
    let table = change::table(eips());
    for (id, pool) in table.iter() {
        let overlap = table.overlaps(id);
        let Some(first) = overlap.first(Family::V4).or_else(|| overlap.first(Family::V6)) else { continue };
        let owner =
            table.owner(first).and_then(|owner| table.get(owner)).map_or("another Eip", |owner| owner.name());
        let cause =
            format!("{first} (and {} more) is also of Eip {owner}", overlap.count().saturating_sub(1));
        let reference = ObjectRef::cluster(Kind::Eip, pool.name());
        report.error(
            &reference,
            "spec.address",
            cause,
            "take it out of one of the two, or list it in spec.exclude",
        );
    }
    let defaults: Vec<String> =
        eips().map(EipView::parse).filter(|view| view.is_default).map(|view| view.name).collect();
    if let Some((first, others)) = defaults.split_first() {
        for name in others {
            let field = format!("metadata.annotations[{}]", crate::names::annotation::DEFAULT_EIP);
            let cause = format!("Eip {first} is the default already");
            report.error(
                &ObjectRef::cluster(Kind::Eip, name),
                &field,
                cause,
                "leave the annotation to one Eip",
            );
        }
    }
    let groups: Vec<String> = names(objects, Kind::VipGroup);
    for eip in eips() {
        if let Some(group) =
            eip.spec.vip_group.as_ref().filter(|group| !group.is_empty() && !groups.contains(group))
        {
            let cause = format!("there is no VipGroup {group}");
            report.warning(&object_ref(eip), "spec.vipGroup", cause, "create it, or leave the field out");
        }
    }
}

/// Edits that take addresses out of an Eip which are in use, unless they lie in another one.
fn changes(objects: &[&Object], stored: &[Object], report: &mut Report<'_>) {
    let eips = || eips_of(objects);
    let table = change::table(eips());
    for after in eips() {
        let reference = object_ref(after);
        let before = stored.iter().find_map(|object| match object {
            Object::Eip(before) if object_ref(before) == reference => Some(before),
            _ => None,
        });
        let moves = |address| {
            let mut others = table.iter().filter(|(_, pool)| pool.name() != reference.name);
            others.any(|(_, pool)| pool.is_usable(address))
        };
        let problem = before.and_then(|before| change::eip_change_unless(before, after, moves));
        report.spec(&reference, problem);
    }
}

fn eips_of<'a>(objects: &'a [&'a Object]) -> impl Iterator<Item = &'a Eip> {
    objects.iter().filter_map(|object| if let Object::Eip(eip) = object { Some(&**eip) } else { None })
}

fn object_ref(eip: &Eip) -> ObjectRef {
    ObjectRef::cluster(Kind::Eip, eip.metadata.name.clone().unwrap_or_default())
}

fn names(objects: &[&Object], kind: Kind) -> Vec<String> {
    objects.iter().map(|object| object.reference()).filter(|r| r.kind == kind).map(|r| r.name).collect()
}

/// What BgpPeers name, and whether two are the same.
fn peers(objects: &[&Object], report: &mut Report<'_>) {
    let policies = names(objects, Kind::BgpPolicy);
    let has_conf = names(objects, Kind::BgpConf).iter().any(|name| name == DEFAULT_OBJECT);
    let secrets: Vec<String> = names(objects, Kind::Secret);
    let profiles: Vec<&str> = objects
        .iter()
        .filter_map(|object| if let Object::BgpConf(conf) = object { Some(conf) } else { None })
        .filter(|conf| conf.metadata.name.as_deref() == Some(DEFAULT_OBJECT))
        .flat_map(|conf| conf.spec.bfd_profiles.iter().flatten())
        .map(|(name, _)| name.as_str())
        .collect();
    let mut addresses: BTreeMap<String, (String, bool)> = BTreeMap::new();
    for object in objects {
        let Object::BgpPeer(peer) = object else { continue };
        let reference = object.reference();
        let named = peer.spec.policies.clone().unwrap_or_default();
        for (field, list) in [("spec.policies.import", named.import), ("spec.policies.export", named.export)]
        {
            for policy in list.iter().flatten().filter(|policy| !policies.contains(policy)) {
                let cause = format!("there is no BgpPolicy {policy}");
                report.error(&reference, field, cause, "create it, or correct the name");
            }
        }
        if let Some(name) = peer.spec.password_secret_ref.as_ref().and_then(|r| r.name.as_ref())
            && !secrets.contains(name)
        {
            let cause = format!("there is no Secret {name}");
            report.warning(
                &reference,
                "spec.passwordSecretRef.name",
                cause,
                "create it in OpenELB's namespace",
            );
        }
        let profile = peer.spec.bfd.as_ref().and_then(|bfd| bfd.profile.as_deref()).map(str::trim);
        if let Some(name) = profile.filter(|name| has_conf && !name.is_empty() && !profiles.contains(name)) {
            report.spec(&reference, vec![crate::index::peers::unknown_profile(name)]);
        }
        if !has_conf {
            let cause = "without a BgpConf named default nobody talks to this neighbour";
            report.warning(&reference, "spec", cause, "add a BgpConf named default");
        }
        let conf = peer.spec.conf.clone().unwrap_or_default();
        let (Some(address), Some(name)) = (conf.neighbor_address, peer.metadata.name.clone()) else {
            continue;
        };
        let address = address.trim().parse::<std::net::IpAddr>().map_or(address, |ip| {
            // Two routers may have one link-local address, each on a link of its own (RFC 4291 §2.5.6).
            let bound =
                peer.spec.transport.as_ref().and_then(|transport| transport.bind_interface.as_deref());
            let interface = bound.or(conf.neighbor_interface.as_deref()).map_or("", str::trim);
            match ip {
                std::net::IpAddr::V6(v6) if v6.is_unicast_link_local() => format!("{ip}%{interface}"),
                _ => ip.to_string(),
            }
        });
        let everywhere = peer.spec.node_selector.is_none();
        match addresses.get(&address) {
            // With selectors both may be meant, each for its nodes.
            Some((other, other_everywhere)) if everywhere || *other_everywhere => {
                let cause = format!("BgpPeer {other} has this neighbour too");
                report.error(
                    &reference,
                    "spec.conf.neighborAddress",
                    cause,
                    "remove one, or give both a nodeSelector",
                );
            }
            Some(_) => {}
            None => {
                addresses.insert(address, (name, everywhere));
            }
        }
    }
}

/// Two groups with one virtual router.
fn groups(objects: &[&Object], report: &mut Report<'_>) {
    let mut owners: BTreeMap<u32, String> = BTreeMap::new();
    for object in objects {
        let Object::VipGroup(group) = object else { continue };
        let name = group.metadata.name.clone().unwrap_or_default();
        let Ok(ids) = kinds::virtual_routers(&group.spec) else { continue };
        let mut clash = None;
        for id in ids {
            let owner = owners.entry(id).or_insert_with(|| name.clone());
            if *owner != name {
                clash.get_or_insert_with(|| (id, owner.clone()));
            }
        }
        if let Some((id, owner)) = clash {
            let cause = format!("VipGroup {owner} uses virtual router {id} too");
            report.error(&object.reference(), "spec.virtualRouterId", cause, "use another number");
        }
    }
}
