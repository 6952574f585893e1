//! What a change of a few addresses means for the routes: the same as the whole sets, at the cost of the change.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use openelb_bgp::speaker::{Delta, Route, RouteAttributes, RouteKey};
use openelb_k8s::{
    announce::{Announcement, Announcements},
    index::peers::AdvertisementSpec,
};

use super::routes;

/// From one set of announcements to the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// By source of routes.
    pub sources: BTreeMap<String, Delta>,
    /// Prefixes whose next hop was this node, and that may not be any more.
    pub left: BTreeSet<IpNet>,
    /// Prefixes whose next hop is this node now.
    pub drawn: BTreeSet<IpNet>,
}

/// From one set of announcements to the next; `None` if more than addresses changed, or so many of them that the whole
/// sets are no more work.
#[must_use]
pub fn deltas(before: &Announcements, now: &Announcements, base: &Arc<RouteAttributes>) -> Option<Changes> {
    if before.node != now.node || before.bgp != now.bgp || depend_on_each_other(now) {
        return None;
    }
    let changed = changed(&before.addresses, &now.addresses);
    if changed.len() > now.addresses.len() / 8 {
        return None;
    }
    let part = |of: &Announcements| {
        let addresses = changed.iter().filter_map(|address| {
            let announcement = of.addresses.get(address)?;
            Some((*address, Arc::clone(announcement)))
        });
        let part = Announcements {
            node: of.node.clone(),
            addresses: addresses.collect(),
            bgp: of.bgp.clone(),
            ..Announcements::default()
        };
        routes::routes(&part, base).sources
    };
    let (mut gone, come) = (part(before), part(now));
    let (left, drawn) = (routes::own_prefixes(&gone), routes::own_prefixes(&come));
    let mut sources = BTreeMap::new();
    for (source, routes) in come {
        sources.insert(source.clone(), delta(gone.remove(&source).unwrap_or_default(), routes));
    }
    sources.extend(gone.into_iter().map(|(source, routes)| (source, delta(routes, Vec::new()))));
    Some(Changes { sources, left, drawn })
}

/// Whether what is said of one address may depend on others: where several are heard of in one prefix, or where rules may
/// contradict each other, which is told once for all.
fn depend_on_each_other(now: &Announcements) -> bool {
    let peers = now.bgp.iter().flat_map(|bgp| bgp.peers.values());
    let mut rules = peers.filter_map(|peer| peer.spec.advertisements.as_deref());
    rules.any(|rules| {
        let aggregates = |rule: &AdvertisementSpec| {
            rule.aggregation_length.is_some() || rule.aggregation_length_v6.is_some()
        };
        rules.len() > 1 || rules.iter().any(aggregates)
    })
}

/// The addresses that are announced otherwise than before, or only in one of the two.
fn changed(
    before: &BTreeMap<IpAddr, Arc<Announcement>>,
    now: &BTreeMap<IpAddr, Arc<Announcement>>,
) -> BTreeSet<IpAddr> {
    let same = |a: &Arc<Announcement>, b: &Arc<Announcement>| Arc::ptr_eq(a, b) || a == b;
    let (mut before, mut now) = (before.iter().peekable(), now.iter().peekable());
    let mut changed = BTreeSet::new();
    loop {
        let (old, new) = (before.peek().copied(), now.peek().copied());
        let (old_address, new_address) = (old.map(|(address, _)| address), new.map(|(address, _)| address));
        let Some(first) = old_address.into_iter().chain(new_address).min() else { return changed };
        let old = old.filter(|(address, _)| *address == first).map(|(_, old)| old);
        let new = new.filter(|(address, _)| *address == first).map(|(_, new)| new);
        if !old.zip(new).is_some_and(|(old, new)| same(old, new)) {
            changed.insert(*first);
        }
        if old.is_some() {
            before.next();
        }
        if new.is_some() {
            now.next();
        }
    }
}

fn delta(before: Vec<Route>, now: Vec<Route>) -> Delta {
    let mut before: BTreeMap<RouteKey, Route> =
        before.into_iter().map(|route| (route.key(), route)).collect();
    let mut add = now;
    add.retain(|route| before.remove(&route.key()).as_ref() != Some(route));
    Delta { add, remove: before.into_keys().collect() }
}

#[cfg(test)]
mod tests {
    use openelb_k8s::{
        index::Indexes,
        object::{Kind, NamespacedName, Object, ObjectRef},
        plan::{Settings, announcement},
    };
    use serde_json::{Value, json};

    use super::*;

    const VERSION: &str = "network.kubesphere.io/v1alpha2";

    fn apply(indexes: &mut Indexes, value: Value) {
        indexes.apply(&Object::from_value(value).unwrap().unwrap());
    }

    fn service(name: &str, last: usize, team: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "default", "labels": {"team": team},
                         "annotations": {"lb.kubesphere.io/v1alpha1": "openelb"}},
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
            "status": {"loadBalancer": {"ingress": [{"ip": format!("203.0.113.{last}")}]}},
        })
    }

    /// A cluster of three nodes, in which one neighbour hears of this node, one of all, and one of team a only.
    fn cluster() -> Indexes {
        let mut indexes = Indexes::default();
        let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec});
        apply(&mut indexes, object("Eip", "pool", json!({"address": "203.0.113.0/24", "protocol": "bgp"})));
        apply(&mut indexes, object("BgpConf", "default", json!({"as": 65000})));
        for (number, more) in [
            json!({}),
            json!({"nextHopMode": "AllNodes"}),
            json!({"advertisements": [{"serviceSelector": {"matchLabels": {"team": "a"}}}]}),
        ]
        .into_iter()
        .enumerate()
        {
            let mut spec =
                json!({"conf": {"neighborAddress": format!("192.0.2.{}", number + 1), "peerAs": 1}});
            openelb_k8s::plan::merge_patch(&mut spec, &more);
            apply(&mut indexes, object("BgpPeer", &format!("peer-{number}"), spec));
        }
        for number in 1..=3 {
            let address = json!([{"type": "InternalIP", "address": format!("192.0.2.1{number}")}]);
            let name = format!("node-{number}");
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                              "status": {"addresses": address}});
            apply(&mut indexes, node);
        }
        for number in 0..40 {
            apply(&mut indexes, service(&format!("s-{number}"), number + 1, "b"));
        }
        indexes
    }

    fn plan(indexes: &Indexes) -> Announcements {
        announcement::plan(indexes, &Settings { node_name: "node-1".to_owned(), ..Settings::default() })
    }

    /// What the speaker has after these deltas.
    fn after(
        before: &Announcements,
        deltas: BTreeMap<String, Delta>,
    ) -> BTreeMap<String, BTreeMap<RouteKey, Route>> {
        let base = Arc::default();
        let keyed = |routes: Vec<Route>| routes.into_iter().map(|route| (route.key(), route)).collect();
        let mut all: BTreeMap<String, BTreeMap<RouteKey, Route>> = routes::routes(before, &base)
            .sources
            .into_iter()
            .map(|(name, routes)| (name, keyed(routes)))
            .collect();
        for (source, delta) in deltas {
            let routes = all.entry(source).or_default();
            for key in delta.remove {
                assert!(routes.remove(&key).is_some(), "nothing goes that is not there");
            }
            routes.extend(delta.add.into_iter().map(|route| (route.key(), route)));
        }
        all
    }

    #[test]
    fn deltas_lead_where_whole_sets_lead() {
        let mut indexes = cluster();
        let mut before = plan(&indexes);
        let gone = ObjectRef::namespaced(Kind::Service, &NamespacedName::new("default", "s-7"));
        type Edit = fn(&mut Indexes);
        let edits: [Edit; 4] = [
            |indexes| apply(indexes, service("new", 100, "a")),
            |indexes| apply(indexes, service("s-3", 101, "b")),
            |indexes| apply(indexes, service("s-4", 5, "a")),
            |indexes| apply(indexes, service("s-5", 6, "a")),
        ];
        for (number, edit) in edits.into_iter().enumerate() {
            edit(&mut indexes);
            if number == 3 {
                indexes.delete(&gone);
            }
            let now = plan(&indexes);
            let all = deltas(&before, &now, &Arc::default()).expect("only a few addresses changed");
            let mut own = routes::own_prefixes(&routes::routes(&before, &Arc::default()).sources);
            own.retain(|prefix| !all.left.contains(prefix));
            own.extend(&all.drawn);
            assert_eq!(own, routes::own_prefixes(&routes::routes(&now, &Arc::default()).sources));
            let deltas = all.sources;
            let changes: usize = deltas.values().map(|delta| delta.add.len() + delta.remove.len()).sum();
            assert!((1..=12).contains(&changes), "{changes}");
            let whole = after(&now, BTreeMap::new());
            assert_eq!(after(&before, deltas), whole, "edit {number}");
            before = now;
        }
        assert_eq!(
            deltas(&before, &before, &Arc::default()).map(|all| all.sources.values().all(Delta::is_empty)),
            Some(true)
        );
    }

    #[test]
    fn whatever_else_changes_goes_by_whole_sets() {
        let mut indexes = cluster();
        let before = plan(&indexes);
        apply(
            &mut indexes,
            json!({"apiVersion": VERSION, "kind": "BgpConf", "metadata": {"name": "default"}, "spec": {"as": 65001}}),
        );
        assert!(deltas(&before, &plan(&indexes), &Arc::default()).is_none(), "the AS number");
        let nothing = Announcements { addresses: BTreeMap::new(), ..before.clone() };
        let mut aggregating = cluster();
        let rules = json!([{"aggregationLength": 24}]);
        let spec = json!({"conf": {"neighborAddress": "192.0.2.9", "peerAs": 1}, "advertisements": rules});
        apply(
            &mut aggregating,
            json!({"apiVersion": VERSION, "kind": "BgpPeer", "metadata": {"name": "sums"}, "spec": spec}),
        );
        let sums = plan(&aggregating);
        apply(&mut aggregating, service("new", 100, "a"));
        assert!(deltas(&sums, &plan(&aggregating), &Arc::default()).is_none(), "addresses in one prefix");
        assert!(deltas(&nothing, &before, &Arc::default()).is_none(), "all addresses");
    }
}
