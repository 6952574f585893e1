//! A pool beside a naive one that looks at every address, through random histories.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use crate::{Closed, Family, Holder, HolderId, Pool, PoolSpec, Port, Refusal, Sharing, Transport, may_share};

/// Addresses 192.0.1.200 to 192.0.2.55: around an edge.
const BASE: u32 = 0xc000_01c8;
const SPAN: u32 = 112;

#[derive(Debug, Clone)]
enum Operation {
    Choose(u8),
    Join(u8),
    Ask(u8, u8),
    Adopt(u8, u8),
    Release(u8, u8),
    Reshape(Shape),
}

#[derive(Debug, Clone)]
struct Shape {
    ranges: Vec<(u8, u8)>,
    exclude: Vec<(u8, u8)>,
    dangerous: Vec<u8>,
    avoid: bool,
    sharing: u8,
    quota: Option<u64>,
    closed: bool,
}

fn address(offset: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(BASE + u32::from(offset) % SPAN))
}

/// 24 holders in 3 groups, with 2 keys or none and one of 3 ports.
fn holder(number: u8) -> Holder {
    let number = number % 24;
    let mut holder = Holder::new(&format!("g{}", number % 3), &format!("h{number}"), i64::from(number / 4));
    holder.terms.key = [None, Some("k"), Some("l")][usize::from(number / 8)].map(Into::into);
    holder.terms.ports.insert(Port { protocol: Transport::Tcp, port: u16::from(number / 3 % 3) });
    holder
}

fn list(ranges: &[(u8, u8)]) -> String {
    let text = ranges.iter().map(|(first, length)| {
        let last = u32::from(*first) % SPAN + u32::from(*length) % (SPAN - u32::from(*first) % SPAN);
        format!("{}-{}", address(*first), Ipv4Addr::from(BASE + last))
    });
    text.collect::<Vec<_>>().join(",")
}

fn describe(shape: &Shape) -> PoolSpec {
    let mut spec = PoolSpec::new("p", &list(&shape.ranges)).unwrap();
    if !shape.exclude.is_empty() {
        spec.exclude = list(&shape.exclude).parse().unwrap();
    }
    spec.dangerous = shape.dangerous.iter().map(|offset| address(*offset)).collect();
    spec.avoid_network_and_broadcast = shape.avoid;
    spec.sharing =
        [Sharing::Standard, Sharing::Address, Sharing::Key, Sharing::None][usize::from(shape.sharing % 4)];
    spec.max_per_group = shape.quota;
    spec.closed = shape.closed.then_some(Closed::Disabled);
    spec
}

/// What is known without any cleverness.
#[derive(Debug, Clone)]
struct Naive {
    spec: PoolSpec,
    held: BTreeMap<IpAddr, Vec<Holder>>,
}

impl Naive {
    fn all() -> impl Iterator<Item = IpAddr> {
        (0..SPAN).map(|offset| IpAddr::V4(Ipv4Addr::from(BASE + offset)))
    }

    fn covers(&self, address: IpAddr) -> bool {
        self.spec.ranges.entries().iter().any(|entry| entry.range.contains(address))
    }

    fn usable(&self, address: IpAddr) -> bool {
        let IpAddr::V4(v4) = address else { return false };
        let edge = self.spec.avoid_network_and_broadcast && [0, 255].contains(&v4.octets()[3]);
        self.covers(address)
            && !self.spec.exclude.entries().iter().any(|entry| entry.range.contains(address))
            && !edge
    }

    fn size(&self) -> usize {
        Self::all().filter(|address| self.usable(*address)).count()
    }

    fn automatic(&self) -> Vec<IpAddr> {
        Self::all()
            .filter(|a| self.usable(*a) && !self.spec.dangerous.contains(*a) && !self.held.contains_key(a))
            .collect()
    }

    fn has(&self, address: IpAddr, group: &str) -> bool {
        self.held.get(&address).is_some_and(|holders| holders.iter().any(|h| *h.id.group == *group))
    }

    fn over_quota(&self, address: Option<IpAddr>, group: &str) -> bool {
        let count = self.held.keys().filter(|a| self.has(**a, group)).count() as u64;
        self.spec.max_per_group.is_some_and(|limit| count >= limit)
            && !address.is_some_and(|address| self.has(address, group))
    }

    fn choose(&self, holder: &Holder) -> Option<IpAddr> {
        let open = self.spec.closed.is_none() && !self.over_quota(None, &holder.id.group);
        self.automatic().first().copied().filter(|_| open)
    }

    fn fits(&self, address: IpAddr, holder: &Holder) -> bool {
        self.spec.closed.is_none()
            && self.usable(address)
            && !self.over_quota(Some(address), &holder.id.group)
            && self
                .held
                .get(&address)
                .into_iter()
                .flatten()
                .all(|other| other.id == holder.id || may_share(self.spec.sharing, other, holder).is_ok())
    }

    fn join(&self, holder: &Holder) -> Option<IpAddr> {
        let key = holder.terms.key.as_ref()?;
        let keyed = |holders: &[Holder]| holders.iter().any(|h| h.terms.key.as_ref() == Some(key));
        let shares = |holders: &[Holder]| {
            holders.iter().all(|other| may_share(self.spec.sharing, other, holder).is_ok())
        };
        let found =
            self.held.iter().find(|(a, holders)| keyed(holders) && shares(holders) && self.fits(**a, holder));
        found.map(|(address, _)| *address)
    }

    fn assign(&mut self, address: IpAddr, holder: Holder) {
        self.release(address, &holder.id);
        self.held.entry(address).or_default().push(holder);
    }

    fn release(&mut self, address: IpAddr, id: &HolderId) {
        if let Some(holders) = self.held.get_mut(&address) {
            holders.retain(|holder| holder.id != *id);
            if holders.is_empty() {
                self.held.remove(&address);
            }
        }
    }
}

impl ReferenceStateMachine for Naive {
    type State = Self;
    type Transition = Operation;

    fn init_state() -> BoxedStrategy<Self> {
        shape().prop_map(|shape| Self { spec: describe(&shape), held: BTreeMap::new() }).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Operation> {
        prop_oneof![
            6 => any::<u8>().prop_map(Operation::Choose),
            3 => any::<u8>().prop_map(Operation::Join),
            4 => (any::<u8>(), any::<u8>()).prop_map(|(h, a)| Operation::Ask(h, a)),
            2 => (any::<u8>(), any::<u8>()).prop_map(|(h, a)| Operation::Adopt(h, a)),
            4 => (any::<u8>(), any::<u8>()).prop_map(|(h, a)| Operation::Release(h, a)),
            1 => shape().prop_map(Operation::Reshape),
        ]
        .boxed()
    }

    fn apply(mut state: Self, operation: &Operation) -> Self {
        match operation {
            Operation::Choose(number) => {
                let holder = holder(*number);
                if let Some(address) = state.choose(&holder) {
                    state.assign(address, holder);
                }
            }
            Operation::Join(number) => {
                let holder = holder(*number);
                if let Some(address) = state.join(&holder) {
                    state.assign(address, holder);
                }
            }
            Operation::Ask(number, offset) => {
                let (holder, address) = (holder(*number), address(*offset));
                if state.fits(address, &holder) {
                    state.assign(address, holder);
                }
            }
            Operation::Adopt(number, offset) => state.assign(address(*offset), holder(*number)),
            Operation::Release(number, offset) => state.release(address(*offset), &holder(*number).id),
            Operation::Reshape(shape) => state.spec = describe(shape),
        }
        state
    }
}

fn shape() -> impl Strategy<Value = Shape> {
    let ranges = |n| prop::collection::vec((any::<u8>(), 0_u8..60), n);
    (
        ranges(1..4),
        ranges(0..3),
        prop::collection::vec(any::<u8>(), 0..4),
        any::<bool>(),
        any::<u8>(),
        prop::option::weighted(0.3, 1_u64..5),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(ranges, exclude, dangerous, avoid, sharing, quota, closed)| Shape {
            ranges,
            exclude,
            dangerous,
            avoid,
            sharing,
            quota,
            closed,
        })
}

struct Beside;

impl StateMachineTest for Beside {
    type SystemUnderTest = Pool;
    type Reference = Naive;

    fn init_test(naive: &Naive) -> Pool {
        Pool::new(naive.spec.clone())
    }

    fn apply(mut pool: Pool, naive: &Naive, operation: Operation) -> Pool {
        match operation {
            Operation::Choose(number) => {
                let holder = Arc::new(holder(number));
                match pool.choose(Family::V4, &holder, None) {
                    Ok(address) => pool.assign(address, holder),
                    Err(Refusal::Exhausted { size, .. }) => assert_eq!(size, naive.size() as u128),
                    Err(_) => {}
                }
            }
            Operation::Join(number) => {
                let holder = Arc::new(holder(number));
                if let Some(address) = pool.join_by_key(Family::V4, &holder, None) {
                    pool.assign(address, holder);
                }
            }
            Operation::Ask(number, offset) => {
                let (holder, address) = (Arc::new(holder(number)), address(offset));
                if pool.admit(address, &holder, |_| false).is_ok() {
                    pool.assign(address, holder);
                }
            }
            Operation::Adopt(number, offset) => pool.assign(address(offset), Arc::new(holder(number))),
            Operation::Release(number, offset) => {
                pool.release(address(offset), &holder(number).id);
            }
            Operation::Reshape(shape) => pool.reshape(describe(&shape)),
        }
        pool
    }

    fn check_invariants(pool: &Pool, naive: &Naive) {
        let held: BTreeMap<IpAddr, Vec<Holder>> =
            pool.held().map(|(a, holders)| (a, holders.iter().map(|h| (**h).clone()).collect())).collect();
        assert_eq!(held, naive.held);
        assert_eq!(pool.size(Family::V4), naive.size() as u128);
        assert_eq!(pool.available(Family::V4), naive.automatic().len() as u128);
        assert_eq!(pool.is_occupied(), naive.automatic().is_empty());
        assert_eq!(pool.first(Family::V4), Naive::all().find(|a| naive.usable(*a)));
        assert_eq!(pool.last(Family::V4), Naive::all().filter(|a| naive.usable(*a)).last());
        let outside: Vec<_> = naive.held.keys().copied().filter(|a| !naive.usable(*a)).collect();
        assert_eq!(pool.outside().iter().copied().collect::<Vec<_>>(), outside);
        let dangerous = |a: &IpAddr| naive.usable(*a) && naive.spec.dangerous.contains(*a);
        assert_eq!(pool.dangerous_count(), Naive::all().filter(dangerous).count() as u128);
        assert_eq!(
            pool.free_dangerous(Family::V4).collect::<Vec<_>>(),
            Naive::all().filter(|a| dangerous(a) && !naive.held.contains_key(a)).collect::<Vec<_>>()
        );
        let mut probe = pool.clone();
        for number in 0..24 {
            let holder = holder(number);
            assert_eq!(probe.choose(Family::V4, &holder, None).ok(), naive.choose(&holder));
            assert_eq!(pool.join_by_key(Family::V4, &holder, None), naive.join(&holder));
        }
    }
}

prop_state_machine! {
    #![proptest_config(Config { cases: 200, ..Config::default() })]
    #[test]
    fn like_a_naive_pool(sequential 1..80 => Beside);
}
