//! Publishing on Services: one write each, with addresses, conditions, label and annotation; and taking all of it off
//! a Service that is not ours any more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

use super::commit::Commits;
use super::hint::{Hint, Pending, terms_digest};
use super::outcome::{Decided, Placed};
use super::state::{Entry, State};
use crate::index::ServiceView;
use crate::index::services::Ingress;
use crate::names::{annotation, condition, event, finalizer, label, reason};
use crate::object::{Kind, NamespacedName, ObjectRef};
use crate::plan::status::{Wanted, merge_conditions};
use crate::plan::{Event, Write};

/// Condition types of Services that are ours.
const CONDITIONS: [&str; 2] = [condition::ADDRESS_ASSIGNED, condition::REQUEST_HONOURED];

/// Most bytes of all annotations of an object, keys and values.
const ANNOTATIONS: usize = 256 << 10;
/// Longest value of a label.
const LABEL_LENGTH: usize = 63;

/// What is to be written now on each concerned Service (an empty write: nothing), and told about it.
pub(super) fn writes<'a>(
    state: &State<'a>,
    decided: &Decided<'a>,
    commits: &Commits<'_>,
    now: Timestamp,
) -> Vec<(&'a NamespacedName, Write, Vec<Event>)> {
    let mut decided = decided.services.iter().peekable();
    let mut writes = Vec::new();
    for (key, entry) in &state.concerned.entries {
        let placed = decided.next_if(|(decided, _)| *decided == key).map(|(_, placed)| placed);
        let Some(service) = entry.service else { continue };
        let mut events = Vec::new();
        let write = match placed {
            Some(placed) => ours(state, entry, placed, commits, now, &mut events),
            None => not_ours(entry, service, &mut events),
        };
        // All of them at once, while thousands wait.
        writes.push((*key, write.packed(), events));
    }
    writes
}

fn target(service: &ServiceView) -> ObjectRef {
    ObjectRef::namespaced(Kind::Service, &service.key)
}

fn ours(
    state: &State<'_>,
    entry: &Entry<'_>,
    placed: &Placed<'_>,
    commits: &Commits<'_>,
    now: Timestamp,
    events: &mut Vec<Event>,
) -> Write {
    let service = placed.service;
    let key = &service.key;
    let wanted: Vec<IpAddr> = placed.outcome.addresses.clone();
    let before = service.published();
    let committed = |address: &IpAddr| entry.is_committed(state.indexes, *address);
    let next: Vec<IpAddr> = if wanted.iter().all(committed) {
        wanted.clone()
    } else {
        let stays = |address: &IpAddr| {
            wanted.contains(address) || (committed(address) && !commits.unpublish.contains(&(key, *address)))
        };
        before.iter().copied().filter(stays).collect()
    };
    let mut write = Write::new(target(service), &service.resource_version);
    let changed = !is_published(&service.ingress, &next);
    if changed {
        let ingress: Vec<Value> =
            next.iter().map(|address| json!({"ip": address.to_string(), "ipMode": "VIP"})).collect();
        write = write.set(&["status", "loadBalancer", "ingress"], json!(ingress));
        tell_addresses(entry, placed, [&before, &next], events);
    }
    if next != wanted {
        // On the way: the rest is written together with the new address.
        return write;
    }
    if service.legacy_finalizers().next().is_some() {
        write = without_legacy(write, service);
    }
    write = with_conditions(write, placed, now, events);
    with_marks(write, state, placed, changed)
}

/// Label and annotation.
fn with_marks(mut write: Write, state: &State<'_>, placed: &Placed<'_>, changed: bool) -> Write {
    let service = placed.service;
    let outcome = &placed.outcome;
    let Some(pool) = outcome.pools.first() else {
        if service.assigned.is_some() {
            write = write.annotation(annotation::ASSIGNED, None);
        }
        if service.pool_label.is_some() {
            write = write.label(label::POOL, None);
        }
        return write;
    };
    let addresses: BTreeMap<IpAddr, String> =
        outcome.addresses.iter().copied().zip(outcome.pools.iter().cloned()).collect();
    let known = placed
        .hint
        .as_ref()
        .filter(|hint| !changed && hint.addresses.keys().eq(addresses.keys()) && !hint.terms.is_empty())
        // An edited request that what it has fulfils is remembered: a record that moves later is no breach of it.
        .filter(|hint| !placed.fits_request || hint.requested_pools == service.requested_pools);
    // A record that moved between pools is no reason to write on the Service.
    let pool = known
        .and_then(|hint| outcome.addresses.first().and_then(|address| hint.addresses.get(address)))
        .unwrap_or(pool);
    let unseen = known.is_some_and(|hint| {
        placed.reassigned && service.reassign.is_some() && hint.reassign != service.reassign
    });
    let clashes = state.clashes.get(&service.key).cloned().unwrap_or_default();
    // While one gives up what both have, it is to be seen which of them was edited.
    let is_contested = state.evicted.iter().any(|(_, address)| addresses.contains_key(address));
    if let Some(hint) = known.filter(|hint| {
        !unseen && !is_contested && (hint.terms != terms_digest(service) || hint.clashes != clashes)
    }) {
        let hint = Hint { terms: terms_digest(service), clashes, ..hint.clone() };
        write = with_hint(write, service, &hint);
    } else if known.is_none() || unseen {
        let pending = pending(placed, &addresses);
        let hint = Hint {
            addresses,
            pending,
            requested_pools: service.requested_pools.clone(),
            reassign: if placed.reassigned {
                service.reassign.clone()
            } else {
                placed.hint.as_ref().and_then(|hint| hint.reassign.clone())
            },
            terms: terms_digest(service),
            clashes,
        };
        write = with_hint(write, service, &hint);
    }
    let fits = is_label_value(pool);
    if fits && service.pool_label.as_deref() != Some(pool) {
        write = write.label(label::POOL, Some(pool));
    } else if !fits && service.pool_label.is_some() {
        write = write.label(label::POOL, None);
    }
    write
}

/// A hint is not worth that the API server refuses the address.
fn with_hint(write: Write, service: &ServiceView, hint: &Hint) -> Write {
    let text = hint.text();
    if fits(service, &text) { write.annotation(annotation::ASSIGNED, Some(&text)) } else { write }
}

/// Has the object room for our annotation?
fn fits(service: &ServiceView, text: &str) -> bool {
    let bytes: usize = service.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    bytes + annotation::ASSIGNED.len() + text.len() <= ANNOTATIONS
}

/// What of a reassignment that waits has been seen to.
fn pending(placed: &Placed<'_>, addresses: &BTreeMap<IpAddr, String>) -> Option<Pending> {
    let (service, hint) = (placed.service, placed.hint.as_ref()?);
    let reassign = service.reassign.clone().filter(|_| !placed.reassigned)?;
    let new = |address: &&IpAddr| !hint.addresses.contains_key(*address) || hint.is_moved(service, **address);
    let addresses: BTreeSet<IpAddr> = addresses.keys().filter(new).copied().collect();
    (!addresses.is_empty()).then_some(Pending { reassign, addresses })
}

fn with_conditions(write: Write, placed: &Placed<'_>, now: Timestamp, events: &mut Vec<Event>) -> Write {
    let (service, outcome) = (placed.service, &placed.outcome);
    let wanted = [
        Wanted::new(
            condition::ADDRESS_ASSIGNED,
            !outcome.addresses.is_empty(),
            outcome.reason,
            outcome.message.clone(),
        ),
        Wanted::new(
            condition::REQUEST_HONOURED,
            outcome.request_honoured,
            outcome.request_reason,
            outcome.request_message.clone(),
        ),
    ];
    let present: Vec<Condition> = service.conditions.iter().map(Into::into).collect();
    let merged = merge_conditions(&present, &CONDITIONS, &wanted, None, now);
    if merged == present {
        return write;
    }
    let told = present.iter().any(|c| {
        c.type_ == condition::REQUEST_HONOURED && c.status == "False" && c.reason == outcome.request_reason
    });
    if !outcome.request_honoured && !told {
        let invalid = outcome.request_reason == reason::INVALID_REQUEST;
        events.push(Event {
            regarding: target(service),
            warning: true,
            reason: if invalid { event::CONSTRUCT_REQUEST } else { event::ASSIGN_IP_FAILED },
            message: format!("{}: {}", outcome.request_reason, outcome.request_message),
        });
    }
    write.set(&["status", "conditions"], with_unread(service, merged))
}

/// These conditions, and those of others that cannot be read, as they are.
fn with_unread(service: &ServiceView, conditions: Vec<Condition>) -> Value {
    let is_ours = |condition: &&Value| {
        condition.get("type").and_then(Value::as_str).is_some_and(|name| CONDITIONS.contains(&name))
    };
    let unread = service.unread_conditions.iter().filter(|condition| !is_ours(condition)).cloned();
    conditions.into_iter().map(|condition| json!(condition)).chain(unread).collect()
}

fn tell_addresses(
    entry: &Entry<'_>,
    placed: &Placed<'_>,
    [before, next]: [&[IpAddr]; 2],
    events: &mut Vec<Event>,
) {
    let regarding = target(placed.service);
    // What others put there was not given by us.
    let was_ours = |address: &&IpAddr| {
        entry.records.iter().any(|(_, record)| record == *address)
            || placed.hint.as_ref().is_some_and(|hint| hint.addresses.contains_key(*address))
    };
    for address in before.iter().filter(|address| !next.contains(address)).filter(was_ours) {
        events.push(Event {
            regarding: regarding.clone(),
            warning: false,
            reason: event::RELEASE_IP,
            message: format!("released {address}"),
        });
    }
    let outcome = &placed.outcome;
    for (address, pool) in outcome.addresses.iter().zip(&outcome.pools) {
        if next.contains(address) && !before.contains(address) {
            events.push(Event {
                regarding: regarding.clone(),
                warning: false,
                reason: event::ASSIGN_IP,
                message: format!("assigned {address} from Eip {pool}"),
            });
        }
    }
}

/// Takes exactly what we put there off a Service that is not ours any more.
fn not_ours(entry: &Entry<'_>, service: &ServiceView, events: &mut Vec<Event>) -> Write {
    let mut write = Write::new(target(service), &service.resource_version);
    let mut put: BTreeSet<IpAddr> = entry.records.iter().map(|(_, address)| *address).collect();
    // Annotation and label may have come with a copied manifest. The condition and the record are ours alone.
    let was_ours =
        !put.is_empty() || service.condition_types().any(|name| name == condition::ADDRESS_ASSIGNED);
    if let Some(hint) = Hint::of(service).filter(|_| was_ours) {
        put.extend(hint.addresses.into_keys());
    }
    let is_ours = |ingress: &&Ingress| ingress.address.is_some_and(|address| put.contains(&address));
    let has_condition = service.condition_types().any(|name| CONDITIONS.contains(&name));
    let legacy = service.legacy_finalizers().next().is_some();
    let published: Vec<IpAddr> = service.ingress.iter().filter(is_ours).filter_map(|i| i.address).collect();
    let marked = service.assigned.is_some() || has_condition;
    if published.is_empty() && !marked && !legacy && put.is_empty() {
        return write;
    }
    if !published.is_empty() {
        let rest: Vec<Value> =
            service.ingress.iter().filter(|ingress| !is_ours(ingress)).map(ingress_value).collect();
        write = write.set(&["status", "loadBalancer", "ingress"], json!(rest));
        events.extend(published.iter().map(|address| Event {
            regarding: target(service),
            warning: false,
            reason: event::RELEASE_IP,
            message: format!("released {address}"),
        }));
    }
    if has_condition {
        let others = service.conditions.iter().filter(|c| !CONDITIONS.contains(&&*c.type_));
        let others = with_unread(service, others.map(Into::into).collect());
        write = write.set(&["status", "conditions"], others);
    }
    if service.assigned.is_some() {
        write = write.annotation(annotation::ASSIGNED, None);
    }
    if service.pool_label.is_some() && (was_ours || legacy) {
        write = write.label(label::POOL, None);
    }
    if legacy {
        write = without_legacy(write, service);
    }
    write
}

fn ingress_value(ingress: &Ingress) -> Value {
    let mut value = json!({});
    for (field, text) in
        [("ip", &ingress.text), ("hostname", &ingress.hostname), ("ipMode", &ingress.ip_mode)]
    {
        if let (Value::Object(map), Some(text)) = (&mut value, text) {
            map.insert(field.to_owned(), json!(text));
        }
    }
    value
}

/// Takes off what the Go OpenELB put there.
fn without_legacy(write: Write, service: &ServiceView) -> Write {
    let legacy = [finalizer::LEGACY_LB, finalizer::LEGACY_NODE_PROXY];
    let rest: Vec<String> =
        service.finalizers.iter().filter(|f| !legacy.contains(&f.as_str())).cloned().collect();
    let written =
        [annotation::LAYER2, annotation::NODE_PROXY_EXTERNAL_IP, annotation::NODE_PROXY_INTERNAL_IP];
    let there = written.into_iter().filter(|key| service.annotations.contains_key(key));
    there.fold(write.finalizers(&rest), |write, key| write.annotation(key, None))
}

/// Does the status show exactly these addresses? API servers before 1.30 drop `ipMode`.
fn is_published(ingress: &[Ingress], addresses: &[IpAddr]) -> bool {
    ingress.len() == addresses.len()
        && ingress.iter().zip(addresses).all(|(ingress, address)| {
            ingress.address == Some(*address)
                && ingress.hostname.is_none()
                && ingress.ip_mode.as_deref().is_none_or(|mode| mode == "VIP")
        })
}

fn is_label_value(text: &str) -> bool {
    let ends_well = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= LABEL_LENGTH
        && ends_well(text.chars().next())
        && ends_well(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}
