//! The kinds that no index holds.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use crate::crd::bgp_policy::{CommunityAction, Comparison, PrefixSet, TextSet};
use crate::crd::{BgpPolicySpec, Layer2ConfSpec, VipGroupSpec};
use crate::duration;
use crate::index::SpecProblem;
use crate::selector::Selector;

#[derive(Default)]
struct Found(Vec<SpecProblem>);

impl Found {
    fn push(&mut self, field: impl Into<String>, cause: impl Into<String>, remedy: &str) {
        self.0.push(SpecProblem::new(field, cause, remedy));
    }

    fn one_of(&mut self, field: impl Into<String>, value: Option<&String>, known: &[&str]) {
        if let Some(value) = value.filter(|value| !value.is_empty() && !known.contains(&value.as_str())) {
            self.push(field, format!("{value:?} is not known"), &format!("use {}", known.join(", ")));
        }
    }

    fn duration(&mut self, field: &str, value: Option<&String>, range: RangeInclusive<Duration>) {
        let Some(value) = value else { return };
        match duration::parse(value) {
            Ok(found) if range.contains(&found) => {}
            Ok(_) => {
                let remedy = format!("use {:?} to {:?}", range.start(), range.end());
                self.push(field, format!("{value} is out of range"), &remedy);
            }
            Err(error) => self.push(field, error.to_string(), "write for example 100ms, 30s or 5m"),
        }
    }
}

const LONG: Duration = Duration::from_secs(7 * 24 * 3600);

pub(crate) fn layer2_conf(spec: &Layer2ConfSpec) -> Vec<SpecProblem> {
    let mut found = Found::default();
    let gratuitous = spec.gratuitous.clone().unwrap_or_default();
    for (index, entry) in gratuitous.schedule.iter().flatten().enumerate() {
        let field = format!("spec.gratuitous.schedule[{index}]");
        found.duration(&field, Some(entry), Duration::ZERO..=Duration::from_secs(600));
    }
    found.duration(
        "spec.gratuitous.refreshInterval",
        gratuitous.refresh_interval.as_ref(),
        Duration::from_secs(1)..=LONG,
    );
    let stand_in = spec.stand_in.clone().unwrap_or_default();
    found.duration("spec.standIn.timeout", stand_in.timeout.as_ref(), Duration::ZERO..=LONG);
    found.duration("spec.joinDelay", spec.join_delay.as_ref(), Duration::ZERO..=LONG);
    found.duration("spec.failbackDelay", spec.failback_delay.as_ref(), Duration::ZERO..=LONG);
    found.one_of("spec.failback", spec.failback.as_ref(), &["Delayed", "Immediate", "Manual"]);
    found.0
}

/// The virtual routers that a group may use; empty where it leaves the choice to us.
pub(super) fn virtual_routers(spec: &VipGroupSpec) -> Result<Vec<u32>, SpecProblem> {
    if let Some(id) = spec.virtual_router_id {
        return Ok(vec![id]);
    }
    let Some(range) = spec.virtual_router_id_range.as_deref().map(str::trim).filter(|r| !r.is_empty()) else {
        return Ok(Vec::new());
    };
    let bad =
        |cause: String| SpecProblem::new("spec.virtualRouterIdRange", cause, "write for example 100-110");
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|id| (1..=255).contains(id));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first..=last).collect()),
        _ => Err(bad(format!("{range:?} is not a range within 1 to 255"))),
    }
}

pub(super) fn vip_group(spec: &VipGroupSpec) -> Vec<SpecProblem> {
    let mut found = Found::default();
    if spec.virtual_router_id.is_some_and(|id| !(1..=255).contains(&id)) {
        found.push("spec.virtualRouterId", "is out of range", "use 1 to 255");
    }
    if spec.virtual_router_id.is_some() && spec.virtual_router_id_range.is_some() {
        found.push("spec.virtualRouterIdRange", "virtualRouterId is given too", "leave one of them out");
    }
    found.0.extend(virtual_routers(spec).err());
    let interval = Duration::from_millis(10)..=Duration::from_secs(40);
    found.duration("spec.advertisementInterval", spec.advertisement_interval.as_ref(), interval);
    found.duration("spec.preemptDelay", spec.preempt_delay.as_ref(), Duration::ZERO..=LONG);
    found.one_of("spec.checksum", spec.checksum.as_ref(), &["PseudoHeader", "RFC9568"]);
    for address in spec.unicast_peers.iter().flatten() {
        if address.trim().parse::<IpAddr>().is_err() {
            found.push(
                "spec.unicastPeers",
                format!("{address:?} is not an address"),
                "use addresses of nodes",
            );
        }
    }
    for (index, entry) in spec.priorities.iter().flatten().enumerate() {
        if !entry.priority.is_some_and(|priority| (1..=254).contains(&priority)) {
            found.push(
                format!("spec.priorities[{index}].priority"),
                "is missing or out of range",
                "use 1 to 254",
            );
        }
        if let Some(Err(error)) = entry.node_selector.as_ref().map(Selector::parse) {
            let field = format!("spec.priorities[{index}].nodeSelector");
            found.push(field, error.to_string(), "correct the expression");
        }
    }
    if let Some(Err(error)) = spec.node_selector.as_ref().map(Selector::parse) {
        found.push("spec.nodeSelector", error.to_string(), "correct the expression");
    }
    found.0
}

pub(super) fn bgp_policy(spec: &BgpPolicySpec) -> Vec<SpecProblem> {
    let mut found = Found::default();
    for (index, statement) in spec.statements.iter().flatten().enumerate() {
        let at = |field: &str| format!("spec.statements[{index}].{field}");
        let matches = statement.matches.clone().unwrap_or_default();
        prefix_set(&mut found, &at("match.prefixSet"), matches.prefix_set.as_ref());
        for (field, set) in [
            ("match.neighborSet", &matches.neighbor_set),
            ("match.communitySet", &matches.community_set),
            ("match.extCommunitySet", &matches.ext_community_set),
            ("match.largeCommunitySet", &matches.large_community_set),
            ("match.asPathSet", &matches.as_path_set),
        ] {
            text_set(&mut found, &at(field), set.as_ref());
        }
        for address in matches.next_hops.iter().flatten() {
            if address.trim().parse::<IpAddr>().is_err() && address.trim().parse::<IpNet>().is_err() {
                found.push(
                    at("match.nextHops"),
                    format!("{address:?} is not an address"),
                    "write addresses or prefixes",
                );
            }
        }
        for family in matches.afi_safis.iter().flatten() {
            found.one_of(at("match.afiSafis"), Some(family), &["ipv4-unicast", "ipv6-unicast"]);
        }
        comparison(&mut found, &at("match.asPathLength"), matches.as_path_length.as_ref());
        comparison(&mut found, &at("match.communityCount"), matches.community_count.as_ref());
        found.one_of(at("match.routeType"), matches.route_type.as_ref(), &["internal", "external", "local"]);
        let actions = statement.actions.clone().unwrap_or_default();
        found.one_of(at("actions.disposition"), actions.disposition.as_ref(), &["accept", "reject"]);
        for (field, action) in [
            ("actions.community", &actions.community),
            ("actions.extCommunity", &actions.ext_community),
            ("actions.largeCommunity", &actions.large_community),
        ] {
            community(&mut found, &at(field), action.as_ref());
        }
        if let Some(med) = actions.med.as_deref() {
            let digits = med.strip_prefix(['+', '-']).unwrap_or(med);
            if digits.parse::<u32>().is_err() {
                found.push(at("actions.med"), format!("{med:?} is no MED"), "write 100, +10 or -10");
            }
        }
        if let Some(next_hop) = actions.next_hop.as_deref()
            && !["self", "unchanged"].contains(&next_hop)
            && next_hop.parse::<IpAddr>().is_err()
        {
            found.push(
                at("actions.nextHop"),
                format!("{next_hop:?} is no next hop"),
                "use an address, self or unchanged",
            );
        }
        if actions.as_path_prepend.as_ref().is_some_and(|p| !(1..=16).contains(&p.repeat.unwrap_or(1))) {
            found.push(at("actions.asPathPrepend.repeat"), "is out of range", "use 1 to 16");
        }
    }
    found.0
}

fn prefix_set(found: &mut Found, field: &str, set: Option<&PrefixSet>) {
    let Some(set) = set else { return };
    found.one_of(format!("{field}.matchType"), set.match_type.as_ref(), &["Any", "Invert"]);
    for (index, entry) in set.prefixes.iter().flatten().enumerate() {
        let text = entry.prefix.as_deref().unwrap_or_default();
        let Ok(prefix) = text.trim().parse::<IpNet>() else {
            let field = format!("{field}.prefixes[{index}].prefix");
            found.push(field, format!("{text:?} is not a prefix"), "write for example 10.0.0.0/8");
            continue;
        };
        let Some(range) = entry.mask_length_range.as_deref() else { continue };
        let number =
            |text: &str| text.trim().parse::<u8>().ok().filter(|length| *length <= prefix.max_prefix_len());
        let ends = range.split_once("..").map(|(first, last)| (number(first), number(last)));
        if !matches!(ends, Some((Some(first), Some(last))) if first <= last) {
            let field = format!("{field}.prefixes[{index}].maskLengthRange");
            found.push(field, format!("{range:?} is no range of lengths"), "write for example 24..32");
        }
    }
}

fn text_set(found: &mut Found, field: &str, set: Option<&TextSet>) {
    let Some(set) = set else { return };
    found.one_of(format!("{field}.matchType"), set.match_type.as_ref(), &["Any", "All", "Invert"]);
    if set.values.as_ref().is_none_or(Vec::is_empty) {
        found.push(format!("{field}.values"), "is empty", "list values, or leave the set out");
    }
}

fn comparison(found: &mut Found, field: &str, comparison: Option<&Comparison>) {
    if let Some(comparison) = comparison {
        found.one_of(format!("{field}.operator"), comparison.operator.as_ref(), &["eq", "ge", "le"]);
    }
}

fn community(found: &mut Found, field: &str, action: Option<&CommunityAction>) {
    let Some(action) = action else { return };
    found.one_of(format!("{field}.operation"), action.operation.as_ref(), &["add", "remove", "replace"]);
}
