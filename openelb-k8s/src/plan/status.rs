//! Conditions, and the status of BgpConfs and BgpPeers in the shapes of the Go OpenELB.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};

use super::{Settings, Write, announcement, whole_seconds};
use crate::announce::{AnnouncerStatus, MessageCounts, PeerStatus, SessionState};
use crate::crd::bgp_conf::NodeConfStatus;
use crate::crd::bgp_peer as crd;
use crate::crd::bgp_peer::{MessageCounters, Messages, NodePeerStatus, PeerState, Queues, TimersState};
use crate::index::peers::{BgpConfView, Neighbor, PeerView};
use crate::index::{Indexes, SpecProblem};
use crate::names::{DEFAULT_OBJECT, annotation, condition, finalizer, label, reason};
use crate::object::{Kind, ObjectRef};

/// A condition that should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The type.
    pub condition: &'static str,
    /// True or false.
    pub status: bool,
    /// The reason, in CamelCase.
    pub reason: &'static str,
    /// In words.
    pub message: String,
}

impl Wanted {
    /// Of these parts.
    pub fn new(
        condition: &'static str,
        status: bool,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { condition, status, reason, message: message.into() }
    }
}

/// Longer messages are refused by API servers.
const MAX_MESSAGE: usize = 32_768;

/// The conditions of `before` with `wanted` in place of ours, in the order of types.
///
/// A condition whose status did not change keeps its transition time. `ours` are the types that we own: those that are
/// not wanted any more are removed; others stay.
#[must_use]
pub fn merge_conditions(
    before: &[Condition],
    ours: &[&str],
    wanted: &[Wanted],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let foreign = |c: &&Condition| {
        !ours.contains(&c.type_.as_str()) && !wanted.iter().any(|wanted| wanted.condition == c.type_)
    };
    let mut merged: Vec<Condition> = before.iter().filter(foreign).cloned().collect();
    for wanted in wanted {
        let status = if wanted.status { "True" } else { "False" };
        let since = before
            .iter()
            .find(|c| c.type_ == wanted.condition && c.status == status)
            .map_or_else(|| Time(whole_seconds(now)), |c| c.last_transition_time.clone());
        merged.push(Condition {
            type_: wanted.condition.to_owned(),
            status: status.to_owned(),
            reason: wanted.reason.to_owned(),
            message: cut(&wanted.message),
            last_transition_time: since,
            observed_generation: generation,
        });
    }
    merged.sort_by(|a, b| a.type_.cmp(&b.type_));
    merged
}

fn cut(message: &str) -> String {
    if message.len() <= MAX_MESSAGE {
        return message.to_owned();
    }
    let mut end = MAX_MESSAGE - 4;
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", message.get(..end).unwrap_or_default())
}

/// Problems of a spec as the message of a condition.
#[must_use]
pub fn explain(problems: &[SpecProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join(". ")
}

/// Writes of the status of BgpConfs and BgpPeers as far as this node knows it: its own entry of `nodesConfStatus` and
/// `nodesPeerStatus`, without entries of nodes that are gone, and the conditions. Empty if everything is written.
///
/// Counters alone are no reason to write: see [`bgp_counter_writes`].
#[must_use]
pub fn bgp_writes(
    indexes: &Indexes,
    settings: &Settings,
    status: &AnnouncerStatus,
    now: Timestamp,
) -> Vec<Write> {
    writes(indexes, settings, status, now, false)
}

/// The same, also where only counters of messages changed. For every 30 s, as the Go OpenELB did.
#[must_use]
pub fn bgp_counter_writes(
    indexes: &Indexes,
    settings: &Settings,
    status: &AnnouncerStatus,
    now: Timestamp,
) -> Vec<Write> {
    writes(indexes, settings, status, now, true)
}

fn writes(
    indexes: &Indexes,
    settings: &Settings,
    status: &AnnouncerStatus,
    now: Timestamp,
    also_counters: bool,
) -> Vec<Write> {
    let plan = announcement::plan(indexes, settings).bgp;
    let mut writes = Vec::new();
    for conf in indexes.peers.confs() {
        let mut nodes = conf.status.nodes_conf_status.clone().unwrap_or_default();
        nodes.retain(|node, _| is_known(indexes, settings, node));
        match plan.as_ref().filter(|_| conf.name == DEFAULT_OBJECT) {
            Some(plan) => {
                let own = NodeConfStatus { router_id: Some(plan.router_id.to_string()), asn: Some(plan.asn) };
                nodes.insert(settings.node_name.clone(), own);
            }
            None => {
                nodes.remove(&settings.node_name);
            }
        }
        let derived = plan.as_ref().is_some_and(|plan| plan.router_id_derived);
        let derived: &[&str] = if derived { &["the node"] } else { &[] };
        let mut problems = status.problems.iter().filter(|problem| problem.objects.is_empty());
        let problem = problems.next().map(|problem| problem.message.clone());
        writes.push(conf_write(conf, &nodes, derived, problem, now));
    }
    for peer in indexes.peers.iter() {
        let before = peer.status.nodes_peer_status.clone().unwrap_or_default();
        let node_of = |key: &str| key.split('/').next().unwrap_or_default().to_owned();
        let mut nodes = before.clone();
        nodes.retain(|key, _| {
            node_of(key) != settings.node_name && is_known(indexes, settings, &node_of(key))
        });
        if plan.as_ref().is_some_and(|plan| plan.peers.contains_key(&peer.name)) {
            for (key, mut own) in own_sessions(peer, &status.peers) {
                let key = session_key(&settings.node_name, key.as_deref());
                if let Some(before) = before.get(&key)
                    && !also_counters
                    && without_counters(before) == without_counters(&own)
                {
                    own = before.clone();
                }
                nodes.insert(key, own);
            }
        }
        let missing = missing_secret(indexes, settings, peer).map(|text| (reason::SECRET_NOT_FOUND, text));
        let said = Said { problem: missing, warnings: status.peer_warnings.get(&peer.name).cloned() };
        let sessions = Sessions::of(nodes.iter());
        writes.push(peer_write(peer, &nodes, &sessions, plan.is_some(), said, now));
    }
    writes.retain(|write| !write.is_empty());
    writes
}

/// The write of a BgpConf's status: the nodes' identities, and the conditions. `derived`: who has no IPv4 InternalIP to
/// be its BGP identifier. Empty if everything is written.
pub(super) fn conf_write(
    conf: &BgpConfView,
    nodes: &BTreeMap<String, NodeConfStatus>,
    derived: &[&str],
    problem: Option<String>,
    now: Timestamp,
) -> Write {
    let wanted = conf_conditions(conf, derived, problem);
    let before = conf.status.conditions.as_deref().unwrap_or_default();
    let ours = [condition::READY, condition::ROUTER_ID_DERIVED];
    let merged = merge_conditions(before, &ours, &wanted, Some(conf.generation), now);
    let known = conf.status.nodes_conf_status.clone().unwrap_or_default();
    let write = Write::new(ObjectRef::cluster(Kind::BgpConf, &conf.name), &conf.resource_version);
    let write = entries(write, "nodesConfStatus", &known, nodes);
    let write = with_conditions(write, before, &merged, conf.status.observed_generation, conf.generation);
    let write = without_legacy(write, &conf.finalizers);
    if conf.has_legacy_annotation { write.annotation(annotation::OPT_IN, None) } else { write }
}

/// What nodes say of a BgpPeer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// What keeps it from being used.
    pub(super) problem: Option<(&'static str, String)>,
    /// What hinders nothing, and is to be known.
    pub(super) warnings: Option<String>,
}

/// This node's sessions with a neighbour, with the address of a dynamic one. A neighbour that is known by its address has
/// one in any case.
pub(super) fn own_sessions(
    peer: &PeerView,
    all: &BTreeMap<String, PeerStatus>,
) -> Vec<(Option<String>, NodePeerStatus)> {
    let is_dynamic = peer.spec.as_ref().is_some_and(|spec| matches!(spec.neighbor, Neighbor::Prefix(_)));
    let mut sessions: Vec<(Option<String>, NodePeerStatus)> = sessions_of(all, &peer.name)
        .map(|(neighbor, session)| (neighbor.map(str::to_owned), node_status(peer, Some(session))))
        .collect();
    if sessions.is_empty() && !is_dynamic {
        sessions.push((None, node_status(peer, None)));
    }
    sessions
}

/// The write of a BgpPeer's status: the nodes' sessions, and the conditions. Empty if everything is written.
pub(super) fn peer_write(
    peer: &PeerView,
    nodes: &BTreeMap<String, NodePeerStatus>,
    sessions: &Sessions<'_>,
    has_conf: bool,
    said: Said,
    now: Timestamp,
) -> Write {
    let mut wanted = peer_conditions(peer, has_conf, said.problem, sessions);
    wanted.extend(said.warnings.map(|text| Wanted::new(condition::WARNINGS, true, reason::WARNINGS, text)));
    let before = peer.status.conditions.as_deref().unwrap_or_default();
    let ours = [condition::READY, condition::ESTABLISHED, condition::WARNINGS];
    let merged = merge_conditions(before, &ours, &wanted, Some(peer.generation), now);
    let known = peer.status.nodes_peer_status.clone().unwrap_or_default();
    let write = Write::new(ObjectRef::cluster(Kind::BgpPeer, &peer.name), &peer.resource_version);
    let write = entries(write, "nodesPeerStatus", &known, nodes);
    let write = with_conditions(write, before, &merged, peer.status.observed_generation, peer.generation);
    without_legacy(write, &peer.finalizers)
}

/// Which nodes' sessions with a neighbour are up, and which are down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sessions<'a> {
    up: usize,
    down: Vec<&'a str>,
}

impl<'a> Sessions<'a> {
    pub(super) fn of(nodes: impl Iterator<Item = (&'a String, &'a NodePeerStatus)>) -> Self {
        let mut sessions = Self::default();
        for (node, status) in nodes {
            if is_established(status) { sessions.up += 1 } else { sessions.down.push(node) }
        }
        sessions
    }

    /// The names of those that are down; of many, the first.
    fn names(&self) -> String {
        let first: Vec<&str> = self.down.iter().copied().take(NAMED).collect();
        match self.down.len() - first.len() {
            0 => first.join(", "),
            more => format!("{} and {more} more", first.join(", ")),
        }
    }
}

/// So many nodes are named in a message.
const NAMED: usize = 20;

/// The password that a BgpPeer names and nobody has, in words.
#[must_use]
pub fn missing_secret(indexes: &Indexes, settings: &Settings, peer: &PeerView) -> Option<String> {
    let (name, key) = peer.spec.as_ref()?.password_secret.as_ref()?;
    indexes.peers.secret(&settings.namespace, name, key).is_none().then(|| {
        format!(
            "spec.passwordSecretRef: there is no Secret {}/{name} with text (UTF-8) under the key {key}: the session is \
             kept down; create it",
            settings.namespace
        )
    })
}

/// This node counts as known even without a Node object.
fn is_known(indexes: &Indexes, settings: &Settings, node: &str) -> bool {
    node == settings.node_name || indexes.nodes.is_empty() || indexes.nodes.get(node).is_some()
}

/// What is left when the numbers that always change are taken away.
pub(super) fn without_counters(node: &NodePeerStatus) -> NodePeerStatus {
    let mut node = node.clone();
    if let Some(state) = &mut node.peer_state {
        (state.messages, state.queues, state.out_q) = (None, None, None);
    }
    node
}

/// The merge patch (RFC 7386) that makes an entry of another one: what is gone has to be said, or it stays for ever.
fn difference(before: &Value, mut after: Value) -> Value {
    if let (Value::Object(before), Value::Object(after)) = (before, &mut after) {
        for (key, old) in before {
            let new = after.get_mut(key).map(|new| difference(old, new.take()));
            after.insert(key.clone(), new.unwrap_or(Value::Null));
        }
    }
    after
}

/// The difference of two maps of entries by node.
fn entries<T: serde::Serialize + PartialEq>(
    mut write: Write,
    field: &str,
    before: &BTreeMap<String, T>,
    after: &BTreeMap<String, T>,
) -> Write {
    for node in before.keys().filter(|node| !after.contains_key(*node)) {
        write = write.set(&["status", field, node], Value::Null);
    }
    for (node, entry) in after.iter().filter(|(node, entry)| before.get(*node) != Some(entry)) {
        let known = before.get(node).map_or(Value::Null, |known| json!(known));
        write = write.set(&["status", field, node], difference(&known, json!(entry)));
    }
    write
}

fn with_conditions(
    mut write: Write,
    before: &[Condition],
    after: &[Condition],
    observed: Option<i64>,
    generation: i64,
) -> Write {
    if before != after {
        write = write.set(&["status", "conditions"], json!(after));
    }
    if observed != Some(generation) {
        write = write.set(&["status", "observedGeneration"], json!(generation));
    }
    write
}

fn without_legacy(write: Write, finalizers: &[String]) -> Write {
    if !finalizers.iter().any(|f| f == finalizer::LEGACY_LB) {
        return write;
    }
    let rest: Vec<String> = finalizers.iter().filter(|f| *f != finalizer::LEGACY_LB).cloned().collect();
    write.finalizers(&rest)
}

fn conf_conditions(conf: &BgpConfView, derived: &[&str], problem: Option<String>) -> Vec<Wanted> {
    let ready = |status, reason, message: String| Wanted::new(condition::READY, status, reason, message);
    if conf.name != DEFAULT_OBJECT {
        return vec![ready(
            false,
            reason::NOT_HONOURED,
            "only the BgpConf named default is honoured".to_owned(),
        )];
    }
    if conf.cni_duty {
        return vec![ready(false, reason::CNI_DUTY, format!("a CNI speaks BGP (label {})", label::CNI))];
    }
    let mut wanted = Vec::new();
    wanted.push(if !conf.problems.is_empty() {
        let (reason, ending) = if conf.last_good {
            (reason::LAST_GOOD_SPEC, ". The last good version stays in force")
        } else {
            (reason::INVALID_SPEC, "")
        };
        ready(false, reason, format!("{}{ending}", explain(&conf.problems)))
    } else if let Some(problem) = problem {
        ready(true, reason::READY, problem)
    } else {
        ready(true, reason::READY, "in force".to_owned())
    });
    if !derived.is_empty() && conf.spec.is_some() {
        let has = if derived.len() == 1 { "has" } else { "have" };
        let message = format!(
            "{} {has} no IPv4 InternalIP: the BGP identifier is a hash of the node's name; set spec.routerId, or give \
             the node an IPv4 address",
            derived.join(", ")
        );
        wanted.push(Wanted::new(condition::ROUTER_ID_DERIVED, true, condition::ROUTER_ID_DERIVED, message));
    }
    wanted
}

fn peer_conditions(
    peer: &PeerView,
    has_conf: bool,
    problem: Option<(&'static str, String)>,
    sessions: &Sessions<'_>,
) -> Vec<Wanted> {
    let ready = |status, reason, message: String| Wanted::new(condition::READY, status, reason, message);
    if peer.cni_duty {
        return vec![ready(false, reason::CNI_DUTY, format!("a CNI speaks BGP (label {})", label::CNI))];
    }
    if peer.spec.is_none() {
        return vec![ready(false, reason::INVALID_SPEC, explain(&peer.problems))];
    }
    let first = if !peer.problems.is_empty() {
        let message = format!("{}. The last good version stays in force", explain(&peer.problems));
        ready(false, reason::LAST_GOOD_SPEC, message)
    } else if !has_conf {
        ready(false, reason::NO_BGP_CONF, "there is no usable BgpConf named default; create one".to_owned())
    } else if let Some((reason, message)) = problem {
        ready(false, reason, message)
    } else {
        ready(true, reason::READY, "in force".to_owned())
    };
    let session =
        |status, reason, message: String| Wanted::new(condition::ESTABLISHED, status, reason, message);
    let (up, all) = (sessions.up, sessions.up + sessions.down.len());
    let second = match (up, all) {
        (_, 0) if peer.spec.as_ref().is_some_and(|spec| matches!(spec.neighbor, Neighbor::Prefix(_))) => {
            session(
                false,
                reason::ALL_DOWN,
                "no neighbour of this prefix is connected to any node".to_owned(),
            )
        }
        (_, 0) => session(false, reason::NO_NODE_SELECTED, "no node talks to this neighbour".to_owned()),
        (0, _) => {
            session(false, reason::ALL_DOWN, format!("no session is established; down: {}", sessions.names()))
        }
        (up, all) if up == all => session(true, reason::ALL_ESTABLISHED, format!("{up} of {all} sessions")),
        (up, all) => {
            session(true, reason::SOME_DOWN, format!("{up} of {all} sessions; down: {}", sessions.names()))
        }
    };
    vec![first, second]
}

fn is_established(node: &NodePeerStatus) -> bool {
    node.peer_state.as_ref().and_then(|state| state.session_state.as_deref())
        == Some(SessionState::Established.as_str())
}

/// One node's entry of `nodesPeerStatus`. The password is never in it.
pub(super) fn node_status(peer: &PeerView, session: Option<&PeerStatus>) -> NodePeerStatus {
    let spec = peer.spec.as_deref();
    let unknown = PeerStatus::default();
    let session = session.unwrap_or(&unknown);
    let text = |value: u64| Some(value.to_string());
    let time = |time: Option<Timestamp>| time.map(|time| whole_seconds(time).to_string());
    let address = session.address.map(|address| address.to_string()).or_else(|| {
        spec.map(|spec| match spec.neighbor {
            Neighbor::Address(address) => address.to_string(),
            Neighbor::Prefix(prefix) => prefix.to_string(),
        })
    });
    let (local, remote) = (session.local_asn, session.peer_asn);
    NodePeerStatus {
        peer_state: Some(PeerState {
            auth_password: None,
            description: spec.and_then(|spec| spec.description.clone()),
            local_as: Some(local),
            neighbor_address: address,
            peer_as: Some(remote),
            peer_group: None,
            peer_type: Some(u32::from(local != remote)),
            messages: Some(Messages {
                received: Some(counters(session.received)),
                sent: Some(counters(session.sent)),
            }),
            remove_private_as: None,
            route_flap_damping: None,
            send_community: None,
            session_state: Some(session.state.as_str().to_owned()),
            queues: Some(Queues { input: None, output: Some(session.out_queue) }),
            out_q: Some(session.out_queue),
            flops: Some(session.flaps),
            router_id: session.router_id.map(|id| id.to_string()),
            admin_state: Some(if session.admin_down { "DOWN" } else { "UP" }.to_owned()),
        }),
        timers_state: Some(TimersState {
            connect_retry: text(session.connect_retry),
            hold_time: text(session.hold_time),
            keepalive_interval: text(session.keepalive),
            minimum_advertisement_interval: None,
            negotiated_hold_time: session.negotiated_hold_time.and_then(text),
            uptime: time(session.up_since),
            downtime: time(session.down_since),
        }),
        session: Some(crd::SessionState {
            last_error: session.last_error.clone(),
            bfd: session.bfd.clone(),
            authentication: session.authenticated.then(|| "TCP MD5".to_owned()),
            ttl_security: session.ttl_security.map(u32::from),
            graceful_restart: session
                .graceful_restart
                .map(|negotiated| if negotiated { "Negotiated" } else { "Offered" }.to_owned()),
            received_prefixes: Some(i64::try_from(session.received_prefixes).unwrap_or(i64::MAX)),
        }),
    }
}

/// The sessions of a BgpPeer, with the address of a dynamic neighbour.
pub(crate) fn sessions_of<'a, T>(
    all: &'a BTreeMap<String, T>,
    peer: &str,
) -> impl Iterator<Item = (Option<&'a str>, &'a T)> {
    let dynamic = format!("{peer}/");
    let from = all
        .range(dynamic.clone()..)
        .map_while(move |(name, session)| Some((Some(name.strip_prefix(dynamic.as_str())?), session)));
    all.get(peer).map(|session| (None, session)).into_iter().chain(from)
}

/// The key of a node's session in a BgpPeer's status.
pub(crate) fn session_key(node: &str, neighbor: Option<&str>) -> String {
    neighbor.map_or_else(|| node.to_owned(), |neighbor| format!("{node}/{neighbor}"))
}

fn counters(counts: MessageCounts) -> MessageCounters {
    let text = |value: u64| Some(value.to_string());
    let total =
        [counts.open, counts.update, counts.keepalive, counts.notification, counts.refresh, counts.discarded]
            .into_iter()
            .fold(0_u64, u64::saturating_add);
    MessageCounters {
        notification: text(counts.notification),
        update: text(counts.update),
        open: text(counts.open),
        keepalive: text(counts.keepalive),
        refresh: text(counts.refresh),
        discarded: text(counts.discarded),
        total: text(total),
        withdraw_update: text(counts.withdraw_update),
        withdraw_prefix: text(counts.withdraw_prefix),
    }
}
