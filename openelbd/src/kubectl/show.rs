//! Explanations and lists as text for people.

use std::fmt::Write as _;

use openelb_k8s::explain::{
    AddressExplanation, AnnouncedBy, AnswerRow, PeerRow, PoolRow, ServiceExplanation, ServiceRow, Status,
    Told,
};

use super::events::EventRow;
use crate::cli::output::Table;

/// A Service, explained.
pub(crate) fn service(service: &ServiceExplanation) -> String {
    let mut text = format!("Service {}/{}\n", service.namespace, service.name);
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "  {name:<16} {value}");
        }
    };
    line("ours", &format!("{}: {}", yes(service.ours), service.why));
    line("asks for", &asks_for(service));
    if service.ours {
        line("AddressAssigned", &told(&service.address_assigned));
        line("RequestHonoured", &told(&service.request_honoured));
    }
    if !service.addresses.is_empty() {
        text.push_str("\nAddresses\n");
        service.addresses.iter().for_each(|known| address(&mut text, known));
    }
    if !service.pools.is_empty() {
        text.push_str("\nPools, in the order in which they are asked\n");
        let mut table = Table::new(["  #", "EIP", "FAMILY", "VERDICT", "WHY"]);
        for pool in &service.pools {
            table.row([
                pool.place.map_or_else(|| "  -".to_owned(), |place| format!("  {place}")),
                pool.pool.clone(),
                pool.family.clone(),
                pool.verdict.to_owned(),
                pool.why.clone(),
            ]);
        }
        let _ = write!(text, "{table}");
    }
    text.push_str("\nMissing\n");
    if service.missing.is_empty() {
        text.push_str("  nothing\n");
    }
    for missing in &service.missing {
        let _ = writeln!(text, "  {missing}");
    }
    text
}

fn asks_for(service: &ServiceExplanation) -> String {
    let asks = &service.asks_for;
    let mut parts: Vec<String> = Vec::new();
    if asks.families.is_empty() {
        parts.push("any family".to_owned());
    } else {
        parts.push(format!("{} ({})", asks.families.join(", "), asks.family_policy));
    }
    if !asks.addresses.is_empty() {
        let all: Vec<String> = asks.addresses.iter().map(ToString::to_string).collect();
        parts.push(format!("address {}", all.join(", ")));
    }
    if !asks.pools.is_empty() {
        parts.push(format!("of Eip {}", asks.pools.join(", ")));
    }
    if let Some(key) = &asks.sharing_key {
        parts.push(format!("shared by key {key}"));
    }
    if !asks.ports.is_empty() {
        parts.push(asks.ports.join(", "));
    }
    parts.push(format!("externalTrafficPolicy {}", asks.external_traffic_policy));
    parts.join("; ")
}

fn address(text: &mut String, address: &AddressExplanation) {
    let pool = address.pool.as_ref().map_or_else(|| "of no Eip".to_owned(), |pool| format!("of Eip {pool}"));
    let by = if address.pool.is_none() {
        String::new()
    } else if address.protocols.is_empty() {
        "; announced by somebody else (protocol none)".to_owned()
    } else {
        format!(", by {}", address.protocols.join(" and "))
    };
    let published = if address.published { "" } else { "; not published yet" };
    let _ = writeln!(text, "  {} {pool}{by}{published}", address.address);
    if !address.shared_with.is_empty() {
        let _ = writeln!(text, "    shared with {}", address.shared_with.join(", "));
    }
    for by in &address.announced_by {
        let to = match (&by.neighbor, &by.peer) {
            (Some(neighbor), Some(peer)) => format!(" to {neighbor} (BgpPeer {peer})"),
            (None, Some(peer)) => format!(" to BgpPeer {peer}"),
            _ => answer(by),
        };
        let mark = if by.announced { "announced" } else { "NOT announced" };
        let _ = writeln!(text, "    {mark} by {}{to}, {}: {}", by.node, by.protocol, by.state);
    }
    for node in address.nodes.iter().filter(|node| !node.eligible) {
        let _ = writeln!(text, "    not by {}: {}", node.node, node.why);
    }
}

/// Where a node answers, with what, and since when.
fn answer(by: &AnnouncedBy) -> String {
    let mut text = String::new();
    for (word, value) in [("on", &by.interface), ("with", &by.mac), ("since", &by.since)] {
        if let Some(value) = value {
            let _ = write!(text, " {word} {value}");
        }
    }
    text
}

fn told(told: &Told) -> String {
    format!("{} {}: {}", if told.status { "True " } else { "False" }, told.reason, told.message)
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// Services.
pub(crate) fn services(rows: &[ServiceRow]) -> Table {
    let mut table = Table::new([
        "NAMESPACE",
        "SERVICE",
        "ADDRESSES",
        "POOLS",
        "REASON",
        "HONOURED",
        "ANNOUNCED BY",
        "ANSWERS",
    ]);
    for row in rows {
        let announced = match row.announced_by.split_at_checked(3) {
            Some((first, rest)) if !rest.is_empty() => format!("{} +{}", first.join(","), rest.len()),
            _ => row.announced_by.join(","),
        };
        let answers = row
            .answers
            .iter()
            .map(|AnswerRow { address, by }| format!("{address}: {}{}", by.node, answer(by)));
        table.row([
            row.namespace.clone(),
            row.name.clone(),
            row.addresses.join(","),
            row.pools.join(","),
            row.reason.clone(),
            yes(row.request_honoured).to_owned(),
            announced,
            answers.collect::<Vec<_>>().join("; "),
        ]);
    }
    table
}

/// Pools.
pub(crate) fn pools(rows: &[PoolRow]) -> Table {
    let mut table =
        Table::new(["POOL", "ADDRESSES", "PROTOCOL", "USED", "SIZE", "DEFAULT", "READY", "NOTES"]);
    for row in rows {
        let protocols = if row.protocols.is_empty() { "none".to_owned() } else { row.protocols.join(",") };
        table.row([
            row.name.clone(),
            row.addresses.clone(),
            protocols,
            row.usage.to_string(),
            row.pool_size.to_string(),
            yes(row.default).to_owned(),
            yes(row.ready).to_owned(),
            row.notes.join("; "),
        ]);
    }
    table
}

/// Neighbours.
pub(crate) fn peers(rows: &[PeerRow]) -> Table {
    let mut table = Table::new(["PEER", "NODE", "NEIGHBOR", "AS", "STATE", "SINCE", "FLAPS", "BFD", "NOTE"]);
    for row in rows {
        table.row([
            row.name.clone(),
            row.node.clone(),
            row.neighbor.clone(),
            row.peer_as.map(|asn| asn.to_string()).unwrap_or_default(),
            row.state.clone(),
            row.since.clone().unwrap_or_default(),
            row.flaps.to_string(),
            row.bfd.clone().unwrap_or_default(),
            row.note.clone(),
        ]);
    }
    table
}

/// Events.
pub(crate) fn events(rows: &[EventRow]) -> Table {
    let mut table = Table::new(["TIME", "TYPE", "OBJECT", "REASON", "MESSAGE"]);
    for row in rows {
        table.row([&row.time, &row.r#type, &row.object, &row.reason, &row.message].map(Clone::clone));
    }
    table
}

/// The whole.
pub(crate) fn status(status: &Status) -> String {
    let mut text = String::new();
    let leader = status.controller.as_ref().filter(|controller| controller.leads);
    let leader = leader.and_then(|controller| controller.leader.as_deref()).unwrap_or("none");
    let _ = writeln!(text, "Controller   {leader}");
    let _ = writeln!(
        text,
        "Pools        {}, {} of {} addresses in use",
        status.pools, status.usage, status.pool_size
    );
    let _ = writeln!(text, "Services     {}, {} with an address", status.services, status.assigned);
    let _ = writeln!(text, "Speakers     {}", status.speakers.len());
    if !status.speakers.is_empty() {
        let mut table = Table::new(["  NODE", "VERSION", "SESSIONS", "ADDRESSES"]);
        for speaker in &status.speakers {
            table.row([
                format!("  {}", speaker.node),
                speaker.version.clone().unwrap_or_default(),
                format!("{}/{}", speaker.established, speaker.peers),
                speaker.announced.to_string(),
            ]);
        }
        let _ = write!(text, "{table}");
    }
    text.push_str("\nProblems\n");
    if status.problems.is_empty() {
        text.push_str("  none\n");
    }
    for problem in &status.problems {
        let _ = writeln!(text, "  {problem}");
    }
    text
}
