use super::*;
use crate::{Closed, Conflict, PoolSpec, Port, Transport};

mod model;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pools(specs: &[(&str, &str)]) -> Pools {
    Pools::new(specs.iter().map(|(name, ranges)| PoolSpec::new(name, ranges).unwrap()))
}

fn holder(name: &str, created: i64) -> Arc<Holder> {
    let mut holder = Holder::new("ns", name, created);
    holder.terms.ports.insert(Port { protocol: Transport::Tcp, port: 80 });
    Arc::new(holder)
}

fn want(ask: Ask) -> Want {
    Want { family: Family::V4, ask, held: None, leave: false }
}

fn request(name: &str, created: i64, wants: Vec<Want>) -> Request {
    Request { holder: holder(name, created), wants, all_or_none: false }
}

fn granted(decision: &Decision, i: usize) -> Option<IpAddr> {
    decision.outcomes[i][0].address().map(|(_, address)| address)
}

#[test]
fn the_next_pool_is_tried_when_one_is_full_and_every_refusal_is_told() {
    let mut pools = pools(&[("a", "192.0.2.1"), ("b", "192.0.2.2")]);
    let (a, b) = (pools.find("a").unwrap(), pools.find("b").unwrap());
    let ask = |name, created| request(name, created, vec![want(Ask::Any(vec![a, b]))]);
    let decision = decide(&mut pools, &[ask("x", 1), ask("y", 2), ask("z", 3)]);
    assert_eq!(
        (granted(&decision, 0), granted(&decision, 1)),
        (Some(ip("192.0.2.1")), Some(ip("192.0.2.2")))
    );
    let Outcome::Refused { refusals, held: None } = &decision.outcomes[2][0] else { panic!() };
    assert_eq!(refusals.iter().map(|(pool, _)| *pool).collect::<Vec<_>>(), [Some(a), Some(b)]);
    assert_eq!(decision.changes.len(), 2);
}

#[test]
fn all_or_none() {
    let mut pools = pools(&[("a", "192.0.2.1"), ("b", "2001:db8::1")]);
    let (a, b) = (pools.find("a").unwrap(), pools.find("b").unwrap());
    let both = |name, created| Request {
        all_or_none: true,
        ..request(
            name,
            created,
            vec![want(Ask::Any(vec![a])), Want { family: Family::V6, ..want(Ask::Any(vec![b])) }],
        )
    };
    pools.assign(b, ip("2001:db8::1"), holder("taker", 0));
    let decision = decide(&mut pools, &[both("x", 1)]);
    assert!(decision.outcomes[0].iter().all(|outcome| outcome.address().is_none()));
    assert_eq!(pools.get(a).unwrap().usage(), 0);
    assert!(decision.changes.values().all(Vec::is_empty));
    pools.release(b, ip("2001:db8::1"), &holder("taker", 0).id);
    let decision = decide(&mut pools, &[both("x", 1)]);
    assert!(decision.outcomes[0].iter().all(|outcome| outcome.address().is_some()));
}

#[test]
fn a_ring_of_wishes_turns_in_one_step() {
    const N: u8 = 50;
    let mut pools = pools(&[("a", "192.0.2.0/24")]);
    let a = pools.find("a").unwrap();
    let address = |i: u8| IpAddr::from([192, 0, 2, i]);
    let mut requests = Vec::new();
    for i in 0..N {
        let name = format!("h{i:02}");
        pools.assign(a, address(i), holder(&name, 0));
        let ask = Ask::Address(address((i + 1) % N), None);
        requests.push(request(&name, 0, vec![Want { held: Some((a, address(i))), ..want(ask) }]));
    }
    let decision = decide(&mut pools, &requests);
    for i in 0..N {
        assert_eq!(granted(&decision, usize::from(i)), Some(address((i + 1) % N)));
    }
    assert_eq!(pools.get(a).unwrap().usage(), usize::from(N));
}

#[test]
fn a_chain_whose_end_is_refused_stays_as_it_is() {
    const N: u32 = 2_000;
    let mut pools = pools(&[("a", "10.0.0.0/16")]);
    let a = pools.find("a").unwrap();
    let address = |i: u32| IpAddr::V4((0x0a00_0000 + i).into());
    let mut requests = Vec::new();
    for i in 0..N {
        let name = format!("h{i:04}");
        pools.assign(a, address(i), holder(&name, 0));
        // The last one asks for what no pool has.
        let ask = if i + 1 == N {
            Ask::Address(ip("203.0.113.1"), None)
        } else {
            Ask::Address(address(i + 1), None)
        };
        requests.push(request(&name, 0, vec![Want { held: Some((a, address(i))), ..want(ask) }]));
    }
    let decision = decide(&mut pools, &requests);
    for i in 0..N {
        assert_eq!(granted(&decision, i as usize), Some(address(i)));
    }
    assert!(decision.changes.is_empty(), "{:?}", decision.changes.len());
}

#[test]
fn automatic_choice_does_not_wait_for_somebody_to_leave() {
    let mut pools = pools(&[("a", "192.0.2.1-192.0.2.3")]);
    let a = pools.find("a").unwrap();
    pools.assign(a, ip("192.0.2.1"), holder("mover", 1));
    let mover = Want { held: Some((a, ip("192.0.2.1"))), ..want(Ask::Address(ip("192.0.2.3"), None)) };
    let decision = decide(
        &mut pools,
        &[request("mover", 1, vec![mover]), request("new", 2, vec![want(Ask::Any(vec![a]))])],
    );
    assert_eq!(
        (granted(&decision, 0), granted(&decision, 1)),
        (Some(ip("192.0.2.3")), Some(ip("192.0.2.2")))
    );
    assert!(pools.get(a).unwrap().holders(ip("192.0.2.1")).is_empty());
}

#[test]
fn refusals_of_explicit_addresses() {
    let mut specs =
        vec![PoolSpec::new("a", "192.0.2.0/28").unwrap(), PoolSpec::new("off", "192.0.2.64/28").unwrap()];
    specs[0].exclude = "192.0.2.5".parse().unwrap();
    specs[1].closed = Some(Closed::Disabled);
    let mut pools = Pools::new(specs);
    let (a, off) = (pools.find("a").unwrap(), pools.find("off").unwrap());
    pools.assign(a, ip("192.0.2.1"), holder("old", 0));
    let mut refusal = |address: &str, allowed: Option<Vec<PoolId>>| {
        let decision = decide(&mut pools, &[request("x", 1, vec![want(Ask::Address(ip(address), allowed))])]);
        match decision.outcomes.into_iter().flatten().next() {
            Some(Outcome::Refused { refusals, .. }) => refusals,
            other => panic!("{other:?}"),
        }
    };
    let conflict = Refusal::SharingConflict {
        address: ip("192.0.2.1"),
        holder: HolderId::new("ns", "old"),
        conflict: Conflict::Port(Port { protocol: Transport::Tcp, port: 80 }),
    };
    assert_eq!(refusal("192.0.2.1", None), [(Some(a), conflict)]);
    assert_eq!(refusal("192.0.2.5", None), [(Some(a), Refusal::Excluded(ip("192.0.2.5")))]);
    assert_eq!(refusal("192.0.2.65", None), [(Some(off), Closed::Disabled.into())]);
    assert_eq!(refusal("203.0.113.1", None), [(None, Refusal::OutsidePool(ip("203.0.113.1")))]);
    assert_eq!(refusal("192.0.2.2", Some(vec![off])), [(Some(off), Refusal::OutsidePool(ip("192.0.2.2")))]);
}

#[test]
fn a_record_in_another_pool_counts_as_taken() {
    let mut pools = pools(&[("old", "192.0.2.1"), ("young", "192.0.2.1-192.0.2.2")]);
    let (old, young) = (pools.find("old").unwrap(), pools.find("young").unwrap());
    pools.assign(young, ip("192.0.2.1"), holder("a", 0));
    assert_eq!(pools.locate(ip("192.0.2.1")), Some(young));
    let decision = decide(&mut pools, &[request("b", 1, vec![want(Ask::Any(vec![old]))])]);
    assert_eq!(granted(&decision, 0), None);
    pools.release(young, ip("192.0.2.1"), &holder("a", 0).id);
    assert_eq!(pools.locate(ip("192.0.2.1")), Some(old));
    let decision = decide(&mut pools, &[request("b", 1, vec![want(Ask::Any(vec![old]))])]);
    assert_eq!(granted(&decision, 0), Some(ip("192.0.2.1")));
}
