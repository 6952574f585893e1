//! Snapshots of the Layer 2 speaker → status in the words of the seam.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use jiff::Timestamp;
use openelb_k8s::{
    announce::{AddressStatus, Announcements, AnnouncerProblem, AnnouncerStatus, Protocol},
    names::DEFAULT_OBJECT,
    object::{Kind, ObjectRef},
};
use openelb_l2::{
    MacAddr,
    net::{AddressView, LinkView, NoLink, Problem, Snapshot},
    speaker::Role,
};

use crate::adapter::bgp::status::{Calendar, LISTEN_FAILED};

/// No other node is heard.
pub const UNHEARD: &str = "GossipUnheard";

/// A station that is no node has an address.
const CONFLICT: &str = "AddressConflict";

/// Nobody has a key.
pub const UNAUTHENTICATED: &str = "GossipUnauthenticated";

/// What the speaker does for these announcements. `before` is the last status: `since` of what did not change stays.
#[must_use]
pub fn status(
    desired: &Announcements,
    snapshot: &Snapshot,
    before: &AnnouncerStatus,
    calendar: Calendar,
    now: Instant,
) -> AnnouncerStatus {
    let known: BTreeMap<IpAddr, &AddressView> =
        snapshot.addresses.iter().map(|view| (view.status.address, view)).collect();
    let wanted = desired.addresses.iter().filter(|(_, one)| one.protocols.contains(&Protocol::Layer2));
    let mut found = Findings::default();
    let addresses = wanted.map(|(address, announcement)| {
        let view = known.get(address).copied();
        // What a node lacks that may not announce hinders nobody.
        for problem in view.iter().flat_map(|view| &view.problems).filter(|_| announcement.self_eligible) {
            found.add(problem, *address, &announcement.pool);
        }
        let stranger = view.and_then(|view| stranger(&view.status.role, view.status.conflict));
        if let Some((mac, held)) = stranger.filter(|_| announcement.self_eligible) {
            found.add_stranger(mac, held, *address, &announcement.pool);
        }
        let mut status = view.map_or_else(
            || AddressStatus::new(Protocol::Layer2, "not taken up yet"),
            |view| address_status(&desired.node, view, &snapshot.links, announcement.self_eligible),
        );
        let last = before.addresses.get(&(*address, Protocol::Layer2));
        status.since = since(last, &status).or_else(|| Some(calendar.at(now)));
        ((*address, Protocol::Layer2), status)
    });
    let addresses = addresses.collect();
    let (mut problems, warnings) = found.told();
    if let Some(message) = &snapshot.gossip_problem
        && !snapshot.stopped
        && !desired.layer2.nodes.is_empty()
    {
        problems.push(of_the_whole(LISTEN_FAILED, message.as_str()));
    }
    AnnouncerStatus { addresses, problems, warnings, ..AnnouncerStatus::default() }
}

/// Since when an address is announced, or not, if that is as it was: a stand-in that takes over answers with another MAC
/// address from then on.
pub(super) fn since(last: Option<&AddressStatus>, status: &AddressStatus) -> Option<Timestamp> {
    last.filter(|last| (last.announced, &last.mac) == (status.announced, &status.mac))?.since
}

/// What is wrong with how Layer 2 is spoken, whatever the address.
pub(super) fn of_the_whole(reason: &str, message: impl Into<String>) -> AnnouncerProblem {
    AnnouncerProblem::new(reason, message).of([ObjectRef::cluster(Kind::Layer2Conf, DEFAULT_OBJECT)])
}

/// What is wrong for one cause. How many addresses it concerns is not counted: that would be news with each of them.
struct Found {
    first: IpAddr,
    message: String,
    others: bool,
    /// The Eips of the addresses.
    pools: BTreeSet<String>,
}

/// What is wrong on this node, and what is only to be known.
#[derive(Default)]
pub(super) struct Findings {
    problems: Problems,
    warnings: Problems,
}

impl Findings {
    pub(super) fn add(&mut self, problem: &Problem, address: IpAddr, pool: &str) {
        let list = if is_hindrance(problem) { &mut self.problems } else { &mut self.warnings };
        list.add(reason(problem), cause(problem), problem.to_string(), address, pool);
    }

    pub(super) fn add_stranger(&mut self, mac: MacAddr, held: bool, address: IpAddr, pool: &str) {
        let what = if held { "has" } else { "claims" };
        let message = format!(
            "the station {mac}, which is no node of ours, {what} the address of a Service: take it off there, or exclude \
             it in the Eip"
        );
        let list = if held { &mut self.problems } else { &mut self.warnings };
        list.add(CONFLICT, mac.to_string(), message, address, pool);
    }

    /// Problems, and warnings.
    pub(super) fn told(self) -> (Vec<AnnouncerProblem>, Vec<AnnouncerProblem>) {
        (self.problems.told(), self.warnings.told())
    }
}

/// What is wrong, by reason and cause.
#[derive(Default)]
struct Problems(BTreeMap<(&'static str, String), Found>);

impl Problems {
    fn add(&mut self, reason: &'static str, cause: String, message: String, address: IpAddr, pool: &str) {
        let found = self.0.entry((reason, cause));
        let first = || Found { first: address, message, others: false, pools: BTreeSet::new() };
        let found = found.and_modify(|found| found.others = true).or_insert_with(first);
        if !found.pools.contains(pool) {
            found.pools.insert(pool.to_owned());
        }
    }

    fn told(self) -> Vec<AnnouncerProblem> {
        let told = self.0.into_iter().map(|((reason, _), Found { first, message, others, pools })| {
            let others = if others { " and others" } else { "" };
            let pools = pools.into_iter().map(|pool| ObjectRef::cluster(Kind::Eip, pool));
            AnnouncerProblem::new(reason, format!("{message} ({first}{others})")).of(pools)
        });
        told.collect()
    }
}

/// A station that is no node and has the address, so that it is not announced (`true`), or claims it, too.
pub(super) fn stranger(role: &Role, conflict: Option<MacAddr>) -> Option<(MacAddr, bool)> {
    match role {
        Role::Conflict { mac } => Some((*mac, true)),
        Role::Owner | Role::HandingOver { .. } => conflict.map(|mac| (mac, false)),
        _ => None,
    }
}

/// Problems with the same one are told as one: messages may name the address.
fn cause(problem: &Problem) -> String {
    match problem {
        Problem::NoLink(NoLink::Subnet(_)) => String::new(),
        Problem::Group { link, cause, .. } => format!("{link}: {cause}"),
        _ => problem.to_string(),
    }
}

fn reason(problem: &Problem) -> &'static str {
    match problem {
        Problem::NoLink(_) => "InterfaceNotFound",
        Problem::Link { .. } => "InterfaceUnusable",
        Problem::Down { .. } => "InterfaceDown",
        Problem::Local { .. } => "AddressLocal",
        Problem::OutOfSubnet { .. } => "AddressOutOfSubnet",
        Problem::Group { .. } => "GroupNotJoined",
        _ => "Layer2Problem",
    }
}

/// Something is wrong on this node, not merely another than on others.
fn is_hindrance(problem: &Problem) -> bool {
    matches!(problem, Problem::Link { .. } | Problem::Local { .. } | Problem::Group { .. })
}

fn address_status(node: &str, view: &AddressView, links: &[LinkView], eligible: bool) -> AddressStatus {
    let AddressView { status: known, problems, .. } = view;
    let used: Vec<&LinkView> =
        links.iter().filter(|link| known.links.contains(&link.index) && link.up).collect();
    let names = || used.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(",");
    let macs = || known.macs.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut status = AddressStatus::new(Protocol::Layer2, "");
    status.owner = known.owner.as_ref().map(ToString::to_string);
    let owner = status.owner.clone().filter(|owner| owner != node);
    let problem = problems.iter().find(|problem| !problem.is_warning());
    status.detail = match &known.role {
        Role::Owner => format!("answers on {}", names()),
        Role::HandingOver { to } => format!("answers on {} until {to} has taken over", names()),
        Role::StandIn { owner } => {
            format!("answers on {} for {owner}, whose speaker is gone, with its MAC address", names())
        }
        Role::Probing => format!("asks on {} whether somebody else has the address", names()),
        Role::Conflict { mac } => format!("{mac}, which is no node of ours, has the address"),
        _ if !eligible => owner.map_or_else(
            || "this node may not announce it".to_owned(),
            |owner| format!("{owner} answers; this node may not announce it"),
        ),
        _ => match (problem, owner) {
            (Some(problem), _) => problem.to_string(),
            (None, Some(owner)) => format!("{owner} answers"),
            (None, None) => "waits until it is clear who answers".to_owned(),
        },
    };
    let waits = eligible && known.role == Role::Standby;
    status.hindrance = problem.filter(|_| waits).map(|problem| match problem {
        // The same of every address.
        Problem::NoLink(NoLink::Subnet(_)) => "no interface of this node has a subnet with it".to_owned(),
        problem => problem.to_string(),
    });
    status.announced = matches!(known.role, Role::Owner | Role::HandingOver { .. } | Role::StandIn { .. });
    if status.announced {
        status.interface = Some(names());
        status.mac = Some(macs());
        let warnings = problems.iter().filter(|problem| problem.is_warning());
        for warning in warnings {
            status.detail = format!("{}; {warning}", status.detail);
        }
        if let Some(mac) = known.conflict {
            status.detail = format!("{}; {mac}, which is no node of ours, claims it, too", status.detail);
        }
    }
    status
}
