//! What holds of every batch, whatever the pools and requests.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{Pool, Sharing, may_share};

#[derive(Debug, Clone)]
struct Setting {
    /// First address and length of each pool, and its quota.
    pools: Vec<(u8, u8, Option<u64>)>,
    /// Who holds what at first.
    held: Vec<(u8, u8)>,
    asks: Vec<(u8, Wish, bool)>,
}

#[derive(Debug, Clone)]
enum Wish {
    Any,
    From(u8),
    Address(u8),
    OneOf(u8, u8),
}

fn setting() -> impl Strategy<Value = Setting> {
    let wish = prop_oneof![
        3 => Just(Wish::Any),
        2 => any::<u8>().prop_map(Wish::From),
        5 => any::<u8>().prop_map(Wish::Address),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(a, p)| Wish::OneOf(a, p)),
    ];
    (
        prop::collection::vec((0_u8..30, 0_u8..12, prop::option::weighted(0.2, 1_u64..4)), 1..4),
        prop::collection::vec((any::<u8>(), 0_u8..40), 0..30),
        prop::collection::vec((any::<u8>(), wish, prop::bool::weighted(0.2)), 0..25),
    )
        .prop_map(|(pools, held, asks)| Setting { pools, held, asks })
}

fn address(offset: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, offset % 42])
}

fn somebody(number: u8) -> Arc<Holder> {
    let number = number % 20;
    let mut holder = Holder::new(&format!("g{}", number % 2), &format!("h{number}"), i64::from(number / 5));
    holder.terms.ports.insert(Port { protocol: Transport::Tcp, port: u16::from(number % 4) });
    if number.is_multiple_of(3) {
        holder.terms.key = Some("k".into());
    }
    Arc::new(holder)
}

fn build(setting: &Setting) -> (Pools, Vec<Request>) {
    let specs = setting.pools.iter().enumerate().map(|(i, (first, length, quota))| {
        let text = format!("{}-{}", address(*first), address(first + length));
        PoolSpec { max_per_group: *quota, ..PoolSpec::new(&format!("p{i}"), &text).unwrap() }
    });
    let mut pools = Pools::new(specs);
    let ids: Vec<PoolId> = pools.iter().map(|(id, _)| id).collect();
    // One address each, and only among those who may share.
    for (number, offset) in &setting.held {
        let (holder, at) = (somebody(*number), address(*offset));
        let Some(id) = pools.locate(at) else { continue };
        let fits = pools.get(id).unwrap().admit(at, &holder, |_| false).is_ok();
        if fits && pools.holdings(&holder.id).next().is_none() {
            pools.assign(id, at, holder);
        }
    }
    let mut seen = BTreeSet::new();
    let mut requests = Vec::new();
    for (number, wish, leave) in &setting.asks {
        let holder = somebody(*number);
        if !seen.insert(holder.id.clone()) {
            continue;
        }
        let one = |i: &u8| vec![ids[usize::from(*i) % ids.len()]];
        let ask = match wish {
            Wish::Any => Ask::Any(ids.clone()),
            Wish::From(i) => Ask::From(one(i)),
            Wish::Address(offset) => Ask::Address(address(*offset), None),
            Wish::OneOf(offset, i) => Ask::Address(address(*offset), Some(one(i))),
        };
        let held = pools.holdings(&holder.id).next();
        let wants = vec![Want { family: Family::V4, ask, held, leave: *leave && held.is_some() }];
        requests.push(Request { holder, wants, all_or_none: false });
    }
    (pools, requests)
}

type State = BTreeMap<(PoolId, IpAddr), Vec<HolderId>>;

fn state(pools: &Pools) -> State {
    let of = |(id, pool): (PoolId, &Pool)| {
        pool.held()
            .map(|(a, holders)| {
                let mut holders: Vec<_> = holders.iter().map(|h| h.id.clone()).collect();
                holders.sort();
                ((id, a), holders)
            })
            .collect::<Vec<_>>()
    };
    pools.iter().flat_map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]
    #[test]
    fn every_batch(setting in setting(), rotation in any::<usize>()) {
        let (mut pools, requests) = build(&setting);
        let before = state(&pools);
        let decision = decide(&mut pools, &requests);
        let after = state(&pools);

        // The changes are the difference between the states.
        let mut patched = before.clone();
        for (key, holders) in &decision.changes {
            if holders.is_empty() {
                patched.remove(key);
            } else {
                patched.insert(*key, holders.clone());
            }
        }
        prop_assert_eq!(&patched, &after);

        for (request, outcomes) in requests.iter().zip(&decision.outcomes) {
            let want = &request.wants[0];
            let holding: Vec<_> = pools.holdings(&request.holder.id).collect();
            // It holds what the outcome says, and nothing else.
            prop_assert_eq!(outcomes[0].address().into_iter().collect::<Vec<_>>(), holding.clone());
            // Nobody loses an address without getting another.
            prop_assert!(want.held.is_none() || !holding.is_empty());
            if let Outcome::Granted { pool, address, replaces, shared } = &outcomes[0] {
                prop_assert!(pools.get(*pool).unwrap().is_usable(*address));
                prop_assert_eq!(*replaces, want.held.filter(|held| *held != (*pool, *address)));
                match &want.ask {
                    Ask::Any(ids) | Ask::From(ids) => prop_assert!(ids.contains(pool)),
                    Ask::Address(wanted, ids) => {
                        prop_assert_eq!(wanted, address);
                        prop_assert!(ids.as_ref().is_none_or(|ids| ids.contains(pool)));
                    }
                }
                let holders = pools.get(*pool).unwrap().holders(*address);
                prop_assert_eq!(*shared, holders.len() > 1);
                for other in holders.iter().filter(|other| other.id != request.holder.id) {
                    prop_assert!(may_share(Sharing::Standard, other, &request.holder).is_ok());
                }
            }
        }
        // Who did not ask keeps everything.
        for (key, holders) in &before {
            for holder in holders.iter().filter(|id| !requests.iter().any(|r| r.holder.id == **id)) {
                prop_assert!(after.get(key).is_some_and(|now| now.contains(holder)));
            }
        }
        for (_, pool) in pools.iter() {
            if let Some(limit) = pool.spec().max_per_group {
                prop_assert!(["g0", "g1"].iter().all(|group| pool.held_by_group(group) <= limit));
            }
        }

        // The order of the requests does not matter.
        let (mut again, mut rotated) = build(&setting);
        let by = if rotated.is_empty() { 0 } else { rotation % rotated.len() };
        rotated.rotate_left(by);
        let mut second = decide(&mut again, &rotated);
        second.outcomes.rotate_right(by);
        prop_assert_eq!(&second, &decision);
        prop_assert_eq!(state(&again), after);
    }
}
