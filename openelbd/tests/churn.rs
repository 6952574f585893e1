//! Three instances on one state directory while Services and the Eip come, change and go and instances are killed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Daemon, Site, eip, eventually, node, service, service_with};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const SERVICES: usize = 10;
const ROUNDS: u64 = 24;

/// What a manifest asks for: an address of its own, or any.
type Asked = BTreeMap<String, Option<String>>;
type Published = BTreeMap<String, Vec<String>>;

/// A linear congruential generator (Knuth's MMIX constants): the same history at every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

fn write(site: &Site, asked: &Asked, name: &str) {
    let text = match &asked[name] {
        Some(address) => service_with(name, &format!(", loadBalancerIP: {address}")),
        None => service(name),
    };
    site.write(&format!("{name}.yaml"), &text);
}

/// What every Service publishes now; fails if two publish one address at the same moment.
fn look(site: &Site, names: &[String]) -> Published {
    let published: Published = names.iter().map(|name| (name.clone(), site.addresses(name))).collect();
    let mut holders: BTreeMap<&String, &String> = BTreeMap::new();
    for (name, addresses) in &published {
        for address in addresses {
            if let Some(other) = holders.insert(address, name) {
                // The other may have given it up between the two looks: it did not if it has it still.
                let still = site.addresses(other).contains(address) && site.addresses(name).contains(address);
                assert!(!still, "{address} is published by {other} and {name}");
            }
        }
    }
    published
}

/// The committed and the published addresses, if they are equal and every request is satisfied.
fn settled(site: &Site, names: &[String], asked: &Asked) -> Option<Published> {
    let published = look(site, names);
    let mut expected = BTreeMap::new();
    for name in names {
        match (asked.get(name), published[name].as_slice()) {
            (None, []) => {}
            (Some(None), [address]) => drop(expected.insert(address.clone(), format!("default/{name}"))),
            (Some(Some(wanted)), [address]) if wanted == address => {
                expected.insert(address.clone(), format!("default/{name}"));
            }
            _ => return None,
        }
    }
    let eip = site.object("eips/_/web.yaml")?;
    let used = eip["status"]["used"].as_object().cloned().unwrap_or_default();
    let used: BTreeMap<String, String> =
        used.into_iter().map(|(address, holder)| (address, holder.as_str().unwrap().to_owned())).collect();
    (used == expected).then_some(published)
}

#[test]
fn churn_publishes_no_address_twice_moves_none_and_leaks_none() {
    let site = Site::new();
    let nodes: String = NODES.map(|name| node(name, "127.0.0.1")).concat();
    site.write("nodes.yaml", &nodes);
    site.write("pool.yaml", &eip("web", "203.0.113.0/26"));
    let names: Vec<String> = (0..SERVICES).map(|index| format!("s{index}")).collect();
    let mut daemons: Vec<Daemon> = NODES.iter().map(|name| site.start(name)).collect();
    let (mut dice, mut asked, mut before) = (Dice(1), Asked::new(), Published::new());
    for round in 0..ROUNDS {
        let mut edited = BTreeSet::new();
        for _ in 0..4 {
            let (one, two) = (dice.below(SERVICES), dice.below(SERVICES));
            let name = &names[one];
            edited.insert(name.clone());
            match (dice.below(4), asked.contains_key(name)) {
                (0, true) => {
                    asked.remove(name);
                    site.remove(&format!("{name}.yaml"));
                    continue;
                }
                (1, true) if asked.get(&names[two]).is_some_and(Option::is_some) && asked[name].is_some() => {
                    // The two swap their addresses.
                    let (mine, other) = (asked[name].clone(), asked[&names[two]].clone());
                    asked.insert(name.clone(), other);
                    asked.insert(names[two].clone(), mine);
                    edited.insert(names[two].clone());
                    write(&site, &asked, &names[two]);
                }
                (1 | 2, _) if asked.get(name).is_none_or(Option::is_none) => {
                    // One of the addresses asked for by name that nobody holds or asks for.
                    let taken: BTreeSet<&String> =
                        asked.values().flatten().chain(before.values().flatten()).collect();
                    let free = (32..64).map(|last| format!("203.0.113.{last}")).find(|a| !taken.contains(a));
                    asked.insert(name.clone(), free);
                }
                (_, true) => {}
                (_, false) => drop(asked.insert(name.clone(), None)),
            }
            write(&site, &asked, name);
            look(&site, &names);
        }
        // Growing and shrinking around live addresses moves nobody.
        let ranges = ["203.0.113.0/26", "203.0.113.0/25", "203.0.113.0/27,203.0.113.32/27"];
        site.write("pool.yaml", &eip("web", ranges[dice.below(ranges.len())]));
        let victim = dice.below(NODES.len());
        match round % 3 {
            0 => {
                daemons.remove(victim).kill();
                daemons.insert(victim, site.start(NODES[victim]));
            }
            1 => daemons[victim].signal("HUP"),
            _ => {
                assert_eq!(daemons[victim].terminate(), 0);
                daemons[victim] = site.start(NODES[victim]);
            }
        }
        let after =
            eventually(&format!("round {round} settled, {asked:?}"), || settled(&site, &names, &asked));
        for name in names.iter().filter(|name| !edited.contains(*name) && before.contains_key(*name)) {
            assert_eq!(after[name], before[name], "round {round}: {name} moved without a reason");
        }
        before = after;
    }
    for name in asked.keys() {
        site.remove(&format!("{name}.yaml"));
    }
    asked.clear();
    eventually("the release of everything", || settled(&site, &names, &asked));
}
