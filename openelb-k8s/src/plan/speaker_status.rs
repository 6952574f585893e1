//! What a speaker says of itself, and what the leader makes of all speakers' words.
//!
//! A speaker writes its own [`SpeakerStatus`](crate::crd::SpeakerStatus) and nothing else; the leader copies all of them
//! into `BgpPeer.status.nodesPeerStatus` and `BgpConf.status.nodesConfStatus`, in the shapes of the Go OpenELB, up to
//! [`MAX_NODES`] nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;

use super::status::{
    Said, Sessions, Wanted, conf_write, merge_conditions, own_sessions, peer_write, session_key, sessions_of,
    without_counters,
};
use super::{Write, announcement};
use crate::announce::{AddressStatus, Announcements, AnnouncerStatus, Protocol, SessionState};
use crate::crd::SpeakerStatusStatus;
use crate::crd::bgp_conf::NodeConfStatus;
use crate::crd::bgp_peer::NodePeerStatus;
use crate::crd::speaker_status::{AnnouncedCounts, Layer2Answer};
use crate::index::speakers::SpeakerView;
use crate::index::{Indexes, NodeView};
use crate::names::{DEFAULT_OBJECT, condition, reason};

/// So many nodes are copied into the status of BgpPeers and BgpConfs: these objects hold all of them at once.
pub const MAX_NODES: usize = 200;
/// So many nodes' warnings are in the condition of a BgpPeer.
const MAX_WARNINGS: usize = 20;
/// A speaker's status is at most this long, in bytes of JSON.
pub const MAX_BYTES: usize = 64 * 1024;

/// The conditions of a SpeakerStatus that the speaker owns.
const OURS: [&str; 5] = [
    condition::READY,
    condition::DATA_PLANE_HEALTHY,
    condition::STALE,
    condition::TRUNCATED,
    condition::WARNINGS,
];

/// What a speaker knows of itself.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// What it should announce.
    pub desired: &'a Announcements,
    /// What it announces.
    pub announced: &'a AnnouncerStatus,
    /// What keeps a BgpPeer from being used on this node, by its name.
    pub peer_problems: &'a BTreeMap<String, String>,
    /// Conditions beside those that follow from the above.
    pub conditions: &'a [Wanted],
    /// Its version.
    pub version: &'a str,
}

/// The status of this node's speaker, at most [`MAX_BYTES`] long. `before` is what is written: conditions that did not
/// change keep their time.
#[must_use]
pub fn own(
    indexes: &Indexes,
    own: &Own<'_>,
    before: Option<&SpeakerStatusStatus>,
    now: Timestamp,
) -> SpeakerStatusStatus {
    let bgp = own.desired.bgp.as_ref();
    let mut peers: BTreeMap<String, NodePeerStatus> = BTreeMap::new();
    for peer in bgp.iter().flat_map(|bgp| bgp.peers.keys()).filter_map(|name| indexes.peers.get(name)) {
        let sessions = own_sessions(peer, &own.announced.peers);
        peers.extend(sessions.into_iter().map(|(key, one)| (session_key(&peer.name, key.as_deref()), one)));
    }
    let established =
        own.announced.peers.values().filter(|peer| peer.state == SessionState::Established).count();
    let mut pools: BTreeMap<String, AnnouncedCounts> = BTreeMap::new();
    let mut announced = 0;
    let mut layer2 = Vec::new();
    for (address, announcement) in &own.desired.addresses {
        let mut by = own.announced.of(*address).filter(|status| status.announced).peekable();
        if by.peek().is_none() {
            continue;
        }
        let by = by.filter(|status| status.protocol == Protocol::Layer2);
        layer2.extend(by.map(|status| answer(&own.desired.node, *address, status)));
        announced += 1;
        let counts = pools.entry(announcement.pool.clone()).or_default();
        let count = if address.is_ipv4() { &mut counts.v4 } else { &mut counts.v6 };
        *count = Some(count.unwrap_or_default() + 1);
    }
    let mut wanted = vec![match own.announced.problems.first() {
        None => Wanted::new(condition::READY, true, reason::READY, "announces what it should"),
        Some(problem) => Wanted::new(condition::READY, false, reason::HINDERED, problem.message.clone()),
    }];
    if !own.announced.warnings.is_empty() {
        let all: Vec<&str> = own.announced.warnings.iter().map(|one| one.message.as_str()).collect();
        wanted.push(Wanted::new(condition::WARNINGS, true, reason::WARNINGS, all.join("; ")));
    }
    wanted.extend(own.conditions.iter().cloned());
    let addresses: Vec<String> = layer2.iter().filter_map(|answer| answer.address.clone()).collect();
    let mut status = SpeakerStatusStatus {
        router_id: bgp.map(|bgp| bgp.router_id.to_string()),
        asn: bgp.map(|bgp| bgp.asn),
        configured_peers: Some(count(peers.len())),
        // An empty map in the place of one with entries is `null` to server-side apply, and refused.
        peers: (!peers.is_empty()).then_some(peers),
        peer_problems: (!own.peer_problems.is_empty()).then(|| own.peer_problems.clone()),
        peer_warnings: (!own.announced.peer_warnings.is_empty()).then(|| own.announced.peer_warnings.clone()),
        established_sessions: Some(count(established)),
        announced_addresses: Some(announced),
        pools: (!pools.is_empty()).then_some(pools),
        layer2_addresses: (!addresses.is_empty()).then_some(addresses),
        layer2_answers: (!layer2.is_empty()).then_some(layer2),
        layer2_truncated: None,
        version: Some(own.version.to_owned()),
        conditions: None,
    };
    if let Some(left_out) = fit(&mut status) {
        wanted.push(Wanted::new(condition::TRUNCATED, true, reason::TOO_LARGE, left_out));
    }
    let known = before.and_then(|before| before.conditions.as_deref()).unwrap_or_default();
    status.conditions = Some(merge_conditions(known, &OURS, &wanted, None, now));
    status
}

/// How this node answers for an address.
fn answer(node: &str, address: IpAddr, status: &AddressStatus) -> Layer2Answer {
    Layer2Answer {
        address: Some(address.to_string()),
        interface: status.interface.clone(),
        mac: status.mac.clone(),
        since: status
            .since
            .and_then(|time| Timestamp::from_second(time.as_second()).ok())
            .map(|time| time.to_string()),
        stand_in_for: status.owner.clone().filter(|owner| owner != node),
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Conditions are of a bounded length; so much is kept free for them.
const FOR_CONDITIONS: usize = 8 * 1024;

/// So many addresses of Layer 2 are listed in any case.
const LISTED: usize = 200;

/// Leaves out what matters least until the status is short enough; says what.
fn fit(status: &mut SpeakerStatusStatus) -> Option<String> {
    let too_long = |status: &SpeakerStatusStatus| {
        serde_json::to_vec(status).map_or(usize::MAX, |json| json.len()) > MAX_BYTES - FOR_CONDITIONS
    };
    // Which addresses they are says more than how they are answered.
    while too_long(status)
        && let Some(answers) = &mut status.layer2_answers
    {
        answers.truncate(answers.len() / 4 * 3);
        if answers.is_empty() {
            status.layer2_answers = None;
        }
    }
    if !too_long(status) {
        return None;
    }
    for peer in status.peers.iter_mut().flat_map(BTreeMap::values_mut) {
        *peer = without_counters(peer);
        if let Some(state) = &mut peer.peer_state {
            state.description = None;
        }
    }
    if !too_long(status) {
        return Some("counters and descriptions of sessions are left out".to_owned());
    }
    // Lists and maps are halved, the last names go first; the totals stay.
    while too_long(status) && status.layer2_addresses.as_ref().is_some_and(|list| list.len() > LISTED) {
        let list = status.layer2_addresses.get_or_insert_default();
        list.truncate((list.len() / 2).max(LISTED));
        status.layer2_truncated = Some(true);
    }
    while too_long(status) {
        let sizes = [
            status.peers.as_ref().map_or(0, BTreeMap::len),
            status.pools.as_ref().map_or(0, BTreeMap::len),
            status.peer_problems.as_ref().map_or(0, BTreeMap::len),
        ];
        // A hint, and longer than what it is about.
        status.peer_warnings = None;
        match sizes {
            [0, 0, 0] => break,
            [peers, pools, problems] if peers >= pools && peers >= problems => halve(&mut status.peers),
            [_, pools, problems] if pools >= problems => halve(&mut status.pools),
            _ => halve(&mut status.peer_problems),
        }
    }
    Some("counters of sessions and some peers or pools are left out; the read API has them all".to_owned())
}

fn halve<T>(map: &mut Option<BTreeMap<String, T>>) {
    if let Some(map) = map {
        let keep = map.len() / 2;
        if let Some(key) = map.keys().nth(keep).cloned() {
            map.split_off(&key);
        }
    }
}

/// Is `after` worth a write? Counters of messages alone are not: they change every few seconds, on every node.
#[must_use]
pub fn is_worth_writing(before: &SpeakerStatusStatus, after: &SpeakerStatusStatus) -> bool {
    let strip = |status: &SpeakerStatusStatus| {
        let mut status = status.clone();
        for peer in status.peers.iter_mut().flat_map(BTreeMap::values_mut) {
            *peer = without_counters(peer);
        }
        status
    };
    strip(before) != strip(after)
}

/// Writes of the status of BgpConfs and BgpPeers from what all speakers say, for the leader. Entries of nodes that are
/// gone, or have no speaker any more, are removed. Empty if everything is written.
#[must_use]
pub fn aggregate(indexes: &Indexes, now: Timestamp) -> Vec<Write> {
    let known =
        |speaker: &&SpeakerView| indexes.nodes.is_empty() || indexes.nodes.get(&speaker.node).is_some();
    let speakers: Vec<&SpeakerView> = indexes.speakers.iter().filter(known).collect();
    let mut writes = Vec::new();
    for conf in indexes.peers.confs() {
        let is_default = conf.name == DEFAULT_OBJECT;
        let honoured = || speakers.iter().filter(|_| is_default);
        let identity = |speaker: &&SpeakerView| {
            let identity =
                NodeConfStatus { router_id: speaker.status.router_id.clone(), asn: speaker.status.asn };
            identity.router_id.is_some().then(|| (speaker.node.clone(), identity))
        };
        let nodes: BTreeMap<String, NodeConfStatus> =
            honoured().filter_map(identity).take(MAX_NODES).collect();
        let unknown = NodeView::default();
        let is_derived = |speaker: &&&SpeakerView| {
            let node = indexes.nodes.get(&speaker.node).unwrap_or(&unknown);
            let spec = conf.spec.as_deref();
            spec.is_some_and(|spec| announcement::router_id(spec, node, indexes.nodes.len(), &speaker.node).1)
        };
        let derived: Vec<&str> = honoured().filter(is_derived).map(|speaker| speaker.node.as_str()).collect();
        let problem = honoured().find_map(|speaker| {
            let conditions = speaker.status.conditions.as_deref().unwrap_or_default();
            let ready = conditions.iter().find(|c| c.type_ == condition::READY && c.status == "False")?;
            Some(format!("{}: {}", speaker.node, ready.message))
        });
        writes.push(conf_write(conf, &nodes, &derived, problem, now));
    }
    let has_conf = indexes.peers.conf().is_some_and(|conf| conf.spec.is_some() && !conf.cni_duty);
    for peer in indexes.peers.iter() {
        let of_speaker = |speaker: &&SpeakerView| -> Vec<(String, NodePeerStatus)> {
            let all = speaker.status.peers.iter().flat_map(|all| sessions_of(all, &peer.name));
            all.map(|(key, session)| (session_key(&speaker.node, key), session.clone())).collect()
        };
        let all: Vec<(String, NodePeerStatus)> = speakers.iter().flat_map(of_speaker).collect();
        let nodes: BTreeMap<String, NodePeerStatus> = all.iter().take(MAX_NODES).cloned().collect();
        let warnings: Vec<String> = speakers
            .iter()
            .filter_map(|speaker| {
                let warning = speaker.status.peer_warnings.as_ref()?.get(&peer.name)?;
                Some(format!("{}: {warning}", speaker.node))
            })
            .take(MAX_WARNINGS)
            .collect();
        let problem = speakers.iter().find_map(|speaker| {
            let problem = speaker.status.peer_problems.as_ref()?.get(&peer.name)?;
            Some((reason::HINDERED, format!("{}: {problem}", speaker.node)))
        });
        let sessions = Sessions::of(all.iter().map(|(key, session)| (key, session)));
        let said = Said { problem, warnings: (!warnings.is_empty()).then(|| warnings.join("; ")) };
        writes.push(peer_write(peer, &nodes, &sessions, has_conf, said, now));
    }
    writes.retain(|write| !write.is_empty());
    writes
}

#[cfg(test)]
mod tests;
