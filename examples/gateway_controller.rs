//! A controller of another kind: addresses for `Gateway` objects (gateway.networking.k8s.io) out of `Eip` pools.
//!
//! ```sh
//! cargo run -p openelb-examples --example gateway_controller
//! ```
//!
//! It has the shape of OpenELB's own controllers: objects are applied to plain structs, a pure function decides, and
//! what has to be written comes out as values. Whoever runs it feeds watches in and sends the patches out, each with
//! the `resourceVersion` that it was decided on; here the "API server" is a list of objects.
//!
//! What it promises, and what it does not:
//!
//! - It gives no address that OpenELB has committed to a Service (`status.used` of any Eip), and none twice. A Gateway
//!   that shows an address of a Service's gets another one.
//! - It writes its own holders into the status of the Gateways, and nowhere else: not into `status.used`, from which
//!   OpenELB's controller takes off what belongs to no Service. So OpenELB does not know of Gateways, and would give one
//!   of their addresses to a Service. Keep it away: let the Eips of Gateways be no default, without `autoAssign` and
//!   without bindings, and let no Service ask for them.
//! - Nobody else sees a decision before the patch is there. Several replicas would decide each for itself, and give one
//!   address to two Gateways, which no `resourceVersion` of either prevents: run one, or let them elect a leader that
//!   waits, after it has won, for lists that are newer than the Lease.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use openelb_ipam::{
    Ask, Family, Holder, Outcome, PoolSpec, Pools, Request, Sharing, Want, decide, parse_address,
};
use openelb_k8s::{
    index::Indexes,
    object::{NamespacedName, Object},
};
use serde_json::{Value, json};

/// What we know.
#[derive(Default)]
struct Gateways {
    eips: Indexes,
    gateways: BTreeMap<NamespacedName, Value>,
}

/// A merge patch of a Gateway's status.
#[derive(Debug, PartialEq)]
struct StatusPatch {
    gateway: NamespacedName,
    patch: Value,
}

impl Gateways {
    /// Takes in a new version of an object: an Eip or a Gateway. Bad objects stop nobody else.
    fn apply(&mut self, object: &Value) {
        if object.pointer("/kind") == Some(&json!("Gateway")) {
            let text = |path| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
            let key = NamespacedName::new(text("/metadata/namespace"), text("/metadata/name"));
            self.gateways.insert(key, object.clone());
            return;
        }
        match Object::from_value(object.clone()) {
            Ok(Some(object)) => drop(self.eips.apply(&object)),
            Ok(None) => {}
            Err(problem) => eprintln!("{problem}"),
        }
    }

    /// Decides: what each Gateway shows stays, the others get an address in the order of their names.
    fn plan(&self) -> Vec<StatusPatch> {
        // The parsed view of an Eip already knows its grammar, its exclusions and its problems.
        let usable = self.eips.pools.iter().filter(|pool| pool.gives());
        let mut pools = Pools::new(usable.filter_map(|pool| {
            let spec = pool.spec.as_ref()?;
            let (ranges, exclude) = (spec.address.clone(), spec.exclude.clone());
            let sharing = Sharing::None;
            Some(PoolSpec { name: pool.name.clone(), ranges, exclude, sharing, ..PoolSpec::default() })
        }));
        let all: Vec<_> = pools.iter().map(|(id, _)| id).collect();
        let holder = |key: &NamespacedName| Arc::new(Holder::new(&key.namespace, &key.name, 0));
        // What Services have comes first: it is committed. A Service may have the name of a Gateway.
        for (address, services) in self.eips.pools.iter().flat_map(|pool| &pool.used) {
            let Some(pool) = pools.locate(*address) else { continue };
            for service in services {
                let group = format!("Services of {}", service.namespace);
                pools.assign(pool, *address, Arc::new(Holder::new(&group, &service.name, 0)));
            }
        }
        // Adopt what is published, before anything new is given; of two that show the same the first by name keeps it.
        let mut held = BTreeMap::new();
        for (key, gateway) in &self.gateways {
            if let Some(address) = published(gateway)
                && let Some(pool) = pools.locate(address)
                && pools.get(pool).is_some_and(|pool| pool.holders(address).is_empty())
            {
                pools.assign(pool, address, holder(key));
                held.insert(key, (pool, address));
            }
        }
        let requests: Vec<Request> = self
            .gateways
            .iter()
            .map(|(key, gateway)| {
                let held = held.get(key).copied();
                let ask = requested(gateway)
                    .map_or_else(|| Ask::Any(all.clone()), |address| Ask::Address(address, None));
                let family = requested(gateway).map_or(Family::V4, Family::of);
                let wants = vec![Want { family, ask, held, leave: false }];
                Request { holder: holder(key), wants, all_or_none: false }
            })
            .collect();
        let decision = decide(&mut pools, &requests);
        let decided = self.gateways.iter().zip(decision.outcomes);
        decided
            .filter_map(|((key, gateway), outcomes)| {
                let status = status(outcomes.first()?);
                let before = gateway.get("status");
                let same = status
                    .as_object()?
                    .iter()
                    .all(|(field, value)| before.and_then(|b| b.get(field)) == Some(value));
                (!same).then(|| StatusPatch { gateway: key.clone(), patch: json!({ "status": status }) })
            })
            .collect()
    }
}

/// `spec.addresses[0]`, if it is an address.
fn requested(gateway: &Value) -> Option<IpAddr> {
    parse_address(gateway.pointer("/spec/addresses/0/value")?.as_str()?).ok()
}

/// `status.addresses[0]`, if it is an address.
fn published(gateway: &Value) -> Option<IpAddr> {
    parse_address(gateway.pointer("/status/addresses/0/value")?.as_str()?).ok()
}

/// The Gateway API's own words: `Programmed`, with `AddressNotAssigned` or `AddressNotUsable` while there is none.
fn status(outcome: &Outcome) -> Value {
    let condition = |status: &str, reason: &str, message: String| json!([{"type": "Programmed", "status": status, "reason": reason, "message": message}]);
    if let Some((_, address)) = outcome.address() {
        let addresses = json!([{"type": "IPAddress", "value": address}]);
        return json!({"addresses": addresses, "conditions": condition("True", "Programmed", format!("has {address}"))});
    }
    let Outcome::Refused { refusals, .. } = outcome else { return json!({}) };
    let why: Vec<String> = refusals.iter().map(|(_, refusal)| refusal.to_string()).collect();
    json!({"addresses": [], "conditions": condition("False", "AddressNotAssigned", why.join("; "))})
}

fn gateway(name: &str, address: Option<&str>) -> Value {
    let addresses: Vec<Value> =
        address.iter().map(|value| json!({"type": "IPAddress", "value": value})).collect();
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"namespace": "edge", "name": name},
        "spec": {"gatewayClassName": "example", "addresses": addresses},
    })
}

/// The thin loop around it: writes are applied as an API server would, until there is nothing left to write.
fn settle(gateways: &mut Gateways) -> usize {
    let mut writes = 0;
    loop {
        let patches = gateways.plan();
        if patches.is_empty() {
            return writes;
        }
        for StatusPatch { gateway, patch } in patches {
            println!("{gateway}: {patch}");
            writes += 1;
            if let Some(object) = gateways.gateways.get_mut(&gateway) {
                openelb_k8s::plan::merge_patch(object, &patch);
            }
        }
    }
}

fn run() -> (Gateways, usize) {
    let mut gateways = Gateways::default();
    gateways.apply(&json!({
        "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip", "metadata": {"name": "edge"},
        "spec": {"address": "203.0.113.8/30", "exclude": ["203.0.113.8"], "protocol": "none"},
    }));
    gateways.apply(&gateway("internal", None));
    gateways.apply(&gateway("public", Some("203.0.113.10")));
    let writes = settle(&mut gateways);
    (gateways, writes)
}

fn main() {
    let (_, writes) = run();
    println!("{writes} writes");
}

#[test]
fn gateways_get_what_they_ask_for_keep_it_and_are_told_why_not() {
    let (mut gateways, writes) = run();
    let address =
        |gateways: &Gateways, name: &str| published(&gateways.gateways[&NamespacedName::new("edge", name)]);
    assert_eq!(writes, 2, "one write each");
    assert_eq!(address(&gateways, "public"), Some("203.0.113.10".parse().unwrap()), "asked for by address");
    let internal = address(&gateways, "internal").unwrap();
    assert!(internal != "203.0.113.10".parse::<IpAddr>().unwrap());

    gateways.apply(&gateway("a-third", None));
    gateways.apply(&gateway("a-fourth", None));
    assert_eq!(settle(&mut gateways), 2, "those who have one are left alone");
    assert_eq!(address(&gateways, "internal"), Some(internal));
    let without: Vec<&Value> =
        gateways.gateways.values().filter(|gateway| published(gateway).is_none()).collect();
    assert_eq!(without.len(), 1, "three addresses, four Gateways");
    assert_eq!(without[0]["status"]["conditions"][0]["reason"], "AddressNotAssigned");
    assert_eq!(settle(&mut gateways), 0, "nothing left to write");
}

#[test]
fn what_services_have_is_given_to_no_gateway() {
    let eip = |used: Value| {
        json!({"apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip", "metadata": {"name": "edge"},
               "spec": {"address": "203.0.113.8-203.0.113.11"}, "status": {"used": used}})
    };
    let address = |gateways: &Gateways, name: &str| {
        published(&gateways.gateways[&NamespacedName::new("edge", name)]).map(|address| address.to_string())
    };
    let mut gateways = Gateways::default();
    // One of the Services has the name of a Gateway.
    gateways.apply(&eip(json!({"203.0.113.8": "edge/a", "203.0.113.9": "shop/web;shop/mail"})));
    gateways.apply(&gateway("a", None));
    gateways.apply(&gateway("b", Some("203.0.113.9")));
    settle(&mut gateways);
    assert_eq!(address(&gateways, "a").as_deref(), Some("203.0.113.10"));
    assert_eq!(address(&gateways, "b"), None, "it asks for one of a Service");

    // Another Eip still records it for a Service.
    gateways.apply(&json!({
        "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip", "metadata": {"name": "split"},
        "spec": {"address": "198.51.100.1"}, "status": {"used": {"203.0.113.11": "shop/old"}},
    }));
    gateways.apply(&gateway("c", None));
    settle(&mut gateways);
    assert_eq!(address(&gateways, "c").as_deref(), Some("198.51.100.1"));

    // One that a Service was given all the same is given up, for one that was released; nothing is left for the other.
    gateways.apply(&eip(json!({"203.0.113.8": "edge/a", "203.0.113.10": "shop/web"})));
    settle(&mut gateways);
    assert_eq!(address(&gateways, "a").as_deref(), Some("203.0.113.9"));
    assert_eq!(address(&gateways, "b"), None);
    gateways.apply(&eip(json!({"203.0.113.8": "edge/a"})));
    gateways.apply(&gateway("d", None));
    settle(&mut gateways);
    assert_eq!(address(&gateways, "d").as_deref(), Some("203.0.113.10"), "released");
    assert_eq!(settle(&mut gateways), 0, "nothing left to write");
}

#[test]
fn two_gateways_never_have_one_address() {
    let mut gateways = Gateways::default();
    gateways.apply(&json!({
        "apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip", "metadata": {"name": "edge"},
        "spec": {"address": "203.0.113.8-203.0.113.9"},
    }));
    let shown = |name: &str| {
        let mut gateway = gateway(name, None);
        gateway["status"] = json!({"addresses": [{"type": "IPAddress", "value": "203.0.113.8"}]});
        gateway
    };
    // As two replicas that decided at once would leave them.
    gateways.apply(&shown("a"));
    gateways.apply(&shown("b"));
    gateways.apply(&gateway("c", Some("203.0.113.8")));
    settle(&mut gateways);
    let addresses: Vec<Option<String>> = ["a", "b", "c"]
        .map(|name| &gateways.gateways[&NamespacedName::new("edge", name)])
        .map(|gateway| published(gateway).map(|address| address.to_string()))
        .into();
    assert_eq!(addresses, [Some("203.0.113.8".to_owned()), Some("203.0.113.9".to_owned()), None]);
}
