//! Whatever changes in whatever order, and however slowly a neighbour reads: in the end it has what is wanted.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use bytes::BytesMut;
use proptest::prelude::*;

use super::{
    adj_out::{AdjOut, Urgency},
    attributes::{AttributeSet, AttributeStore},
    best_path::{self, Candidate},
    egress::{Egress, Ineligible},
    packer::Packer,
    significant_octets,
    table::{Claim, GUESTS, Table},
};
use crate::{
    speaker::{NextHop, PeerScope, RouteAttributes},
    wire::{Family, Nlri, Prefix, SessionContext},
};

/// A neighbour's table: prefix and path identifier to (next hop, MED).
type Received = BTreeMap<(Vec<u8>, u32), (Ipv4Addr, u32)>;

fn egress(add_path: bool) -> Egress {
    Egress {
        peer: "peer".into(),
        family: Family::IPV4_UNICAST,
        local_asn: 65000,
        context: SessionContext {
            add_path_send: if add_path { vec![Family::IPV4_UNICAST] } else { Vec::new() },
            ..SessionContext::default()
        },
        self_next_hop: Some("10.255.0.1".parse().unwrap()),
    }
}

#[test]
fn attributes_of_more_than_4096_octets_go_where_messages_may_be_longer() {
    let many = |count| AttributeSet {
        next_hop: NextHop::SelfAddress,
        attributes: Arc::new(RouteAttributes {
            communities: (0..count).collect(),
            ..RouteAttributes::default()
        }),
        scope: PeerScope::All,
    };
    let usual = egress(false);
    let context = SessionContext { extended_messages: true, ..usual.context.clone() };
    let extended = Egress { context, ..usual.clone() };
    assert_eq!(usual.check(&many(900)), Ok(()));
    assert_eq!(usual.check(&many(1100)), Err(Ineligible::TooLarge));
    assert_eq!(extended.check(&many(16_000)), Ok(()));
    assert!(extended.encode(&many(16_000)).is_ok());
    assert_eq!(extended.check(&many(16_400)), Err(Ineligible::TooLarge));
}

fn prefix(index: u8) -> Prefix {
    let net = ipnet::Ipv4Net::new(Ipv4Addr::new(192, 0, 2, index), 32).unwrap();
    ipnet::IpNet::V4(net).into()
}

fn attributes(index: u8) -> (NextHop, Arc<RouteAttributes>) {
    let next_hop = match index % 3 {
        0 => NextHop::SelfAddress,
        other => NextHop::Address(Ipv4Addr::new(10, 0, 0, other).into()),
    };
    (next_hop, Arc::new(RouteAttributes { med: Some(u32::from(index)), ..RouteAttributes::default() }))
}

/// Reads UPDATE messages of IPv4 unicast in the body.
fn read(mut bytes: &[u8], add_path: bool, into: &mut Received) -> usize {
    let word = |bytes: &[u8], at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    let prefixes = |mut list: &[u8]| {
        let mut found = Vec::new();
        while !list.is_empty() {
            let mut path_id = 0;
            if add_path {
                path_id = u32::from_be_bytes(list[..4].try_into().unwrap());
                list = &list[4..];
            }
            let len = usize::from(list[0]).div_ceil(8) + 1;
            found.push((list[..len].to_vec(), path_id));
            list = &list[len..];
        }
        found
    };
    let mut messages = 0;
    while !bytes.is_empty() {
        let length = word(bytes, 16);
        assert!((23..=4096).contains(&length) && bytes[18] == 2, "an UPDATE of a legal size");
        let (message, rest) = bytes.split_at(length);
        bytes = rest;
        messages += 1;
        let withdrawn = 21 + word(message, 19);
        for key in prefixes(&message[21..withdrawn]) {
            assert!(into.remove(&key).is_some(), "withdrawn without having been announced");
        }
        let nlri = withdrawn + 2 + word(message, withdrawn);
        let (mut next_hop, mut med) = (None, None);
        let mut list = &message[withdrawn + 2..nlri];
        while !list.is_empty() {
            let value = &list[3..3 + usize::from(list[2])];
            match list[1] {
                3 => next_hop = Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).unwrap())),
                4 => med = Some(u32::from_be_bytes(value.try_into().unwrap())),
                _ => {}
            }
            list = &list[3 + value.len()..];
        }
        for key in prefixes(&message[nlri..]) {
            into.insert(key, (next_hop.unwrap(), med.unwrap()));
        }
    }
    messages
}

struct Neighbour {
    adj_out: AdjOut,
    add_path: bool,
    paths: usize,
    received: Received,
}

impl Neighbour {
    fn new(paths: Option<u8>, table: &mut Table, store: &mut AttributeStore) -> Self {
        let mut adj_out = AdjOut::new(egress(paths.is_some()), paths);
        adj_out.refresh(table, store);
        Self {
            adj_out,
            add_path: paths.is_some(),
            paths: usize::from(paths.unwrap_or(1)),
            received: Received::new(),
        }
    }

    fn pull(&mut self, limit: usize, table: &mut Table, store: &mut AttributeStore) -> usize {
        let mut bytes = BytesMut::new();
        let mut packer = Packer::new(&mut bytes, limit, &egress(self.add_path));
        self.adj_out.pull(&mut packer, table, store);
        let messages = packer.messages();
        assert_eq!(read(&bytes, self.add_path, &mut self.received) as u64, messages);
        bytes.len()
    }

    fn drain(&mut self, table: &mut Table, store: &mut AttributeStore) {
        while self.pull(4096, table, store) > 0 {}
        assert_eq!(self.adj_out.pending(), 0);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert { source: u16, prefix: u8, path: u32, attributes: u8, fresh: bool },
    Remove { source: u16, prefix: u8, path: u32, fresh: bool },
    Whole { source: u16, routes: Vec<(u8, u32, u8)> },
    Pull { neighbour: usize, limit: usize },
    Refresh { neighbour: usize },
    Reset { neighbour: usize },
}

fn source() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), Just(1), Just(GUESTS)]
}

fn step() -> impl Strategy<Value = Step> {
    let route = || (0..12u8, 0..3u32, 0..6u8);
    prop_oneof![
        6 => (source(), route(), any::<bool>()).prop_map(|(source, (prefix, path, attributes), fresh)| {
            Step::Insert { source, prefix, path, attributes, fresh }
        }),
        4 => (source(), route(), any::<bool>())
            .prop_map(|(source, (prefix, path, _), fresh)| Step::Remove { source, prefix, path, fresh }),
        1 => (source(), prop::collection::vec(route(), 0..20))
            .prop_map(|(source, routes)| Step::Whole { source, routes }),
        3 => (0..3usize, 1..200usize).prop_map(|(neighbour, limit)| Step::Pull { neighbour, limit }),
        1 => (0..3usize).prop_map(|neighbour| Step::Refresh { neighbour }),
        1 => (0..3usize).prop_map(|neighbour| Step::Reset { neighbour }),
    ]
}

fn rank((set, guest, path_id): &(AttributeSet, bool, u32)) -> Candidate<'_> {
    Candidate { set: Some(set), guest: *guest, path_id: *path_id }
}

/// What a neighbour is to have.
fn expected(wanted: &BTreeMap<(u8, u32), BTreeMap<u16, u8>>, paths: usize, add_path: bool) -> Received {
    let mut by_prefix: BTreeMap<u8, Vec<(AttributeSet, bool, u32)>> = BTreeMap::new();
    for ((prefix, path), sources) in wanted {
        if let Some((source, index)) = sources.iter().next() {
            let (next_hop, attributes) = attributes(*index);
            let set = AttributeSet { next_hop, attributes, scope: PeerScope::All };
            by_prefix.entry(*prefix).or_default().push((set, *source == GUESTS, *path));
        }
    }
    let mut received = Received::new();
    for (index, mut routes) in by_prefix {
        routes.sort_by(|a, b| best_path::compare(rank(a), rank(b)));
        for (set, _, path) in routes.into_iter().take(paths) {
            let next_hop = match set.next_hop {
                NextHop::SelfAddress => Ipv4Addr::new(10, 255, 0, 1),
                NextHop::Address(std::net::IpAddr::V4(address)) => address,
                NextHop::Address(_) => unreachable!(),
            };
            let mut key = vec![32];
            key.extend_from_slice(&significant_octets(prefix(index)).0[..4]);
            received.insert((key, if add_path { path } else { 0 }), (next_hop, set.attributes.med.unwrap()));
        }
    }
    received
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn in_the_end_every_neighbour_has_what_is_wanted(steps in prop::collection::vec(step(), 1..120)) {
        let (mut table, mut store) = (Table::new(1), AttributeStore::new(1));
        let mut neighbours: Vec<Neighbour> =
            [None, Some(2), Some(10)].map(|paths| Neighbour::new(paths, &mut table, &mut store)).into();
        let mut wanted: BTreeMap<(u8, u32), BTreeMap<u16, u8>> = BTreeMap::new();
        let order = |source: u16| usize::from(source);
        for step in steps {
            let (mut changed, mut urgency) = (Vec::new(), Urgency::Bulk);
            match step {
                Step::Insert { source, prefix: index, path, attributes: set, fresh } => {
                    let (next_hop, values) = attributes(set);
                    let id = store.intern(next_hop, &values, &PeerScope::All);
                    let mark = table.begin();
                    changed.extend(table.insert(Claim { source, mark }, Nlri::new(prefix(index), path), id, &mut store, &order));
                    wanted.entry((index, path)).or_default().insert(source, set);
                    if fresh { urgency = Urgency::Fresh; }
                }
                Step::Remove { source, prefix: index, path, fresh } => {
                    changed.extend(table.remove(source, Nlri::new(prefix(index), path), &mut store, &order));
                    wanted.entry((index, path)).or_default().remove(&source);
                    if fresh { urgency = Urgency::Fresh; }
                }
                Step::Whole { source, routes } => {
                    let mark = table.begin();
                    for sources in wanted.values_mut() {
                        sources.remove(&source);
                    }
                    for (index, path, set) in routes {
                        let (next_hop, values) = attributes(set);
                        let id = store.intern(next_hop, &values, &PeerScope::All);
                        changed.extend(table.insert(Claim { source, mark }, Nlri::new(prefix(index), path), id, &mut store, &order));
                        wanted.entry((index, path)).or_default().insert(source, set);
                    }
                    table.sweep(source, mark, &mut store, &order, &mut changed);
                }
                Step::Pull { neighbour, limit } => {
                    neighbours[neighbour].pull(limit, &mut table, &mut store);
                }
                Step::Refresh { neighbour } => neighbours[neighbour].adj_out.refresh(&mut table, &mut store),
                Step::Reset { neighbour } => {
                    let paths = neighbours[neighbour].add_path.then(|| u8::try_from(neighbours[neighbour].paths).unwrap());
                    let fresh = Neighbour::new(paths, &mut table, &mut store);
                    let gone = std::mem::replace(&mut neighbours[neighbour], fresh);
                    gone.adj_out.release(&mut table, &mut store);
                }
            }
            for destination in &changed {
                for neighbour in &mut neighbours {
                    neighbour.adj_out.reconcile(*destination, urgency, &table, &store);
                }
            }
            for destination in &changed {
                table.collect(*destination);
            }
        }
        for neighbour in &mut neighbours {
            neighbour.drain(&mut table, &mut store);
            let expected = expected(&wanted, neighbour.paths, neighbour.add_path);
            prop_assert_eq!(neighbour.adj_out.advertised(), expected.len());
            prop_assert_eq!(&neighbour.received, &expected);
        }
        // Nothing is left behind once nothing is wanted.
        let mut changed = Vec::new();
        for source in [0, 1, GUESTS] {
            let mark = table.begin();
            table.sweep(source, mark, &mut store, &order, &mut changed);
        }
        for destination in &changed {
            neighbours.iter_mut().for_each(|known| known.adj_out.reconcile(*destination, Urgency::Bulk, &table, &store));
        }
        changed.iter().for_each(|destination| table.collect(*destination));
        for neighbour in &mut neighbours {
            neighbour.drain(&mut table, &mut store);
            prop_assert!(neighbour.received.is_empty());
        }
        prop_assert_eq!(table.len(), (0, 0));
        prop_assert_eq!(store.len(), 0);
    }
}

fn fill(count: u32, store: &mut AttributeStore) -> Table {
    let mut table = Table::new(1);
    let (next_hop, values) = attributes(0);
    for index in 0..count {
        let net = ipnet::Ipv4Net::new(Ipv4Addr::from(0x0a00_0000 + index), 32).unwrap();
        let id = store.intern(next_hop, &values, &PeerScope::All);
        table.insert(Claim { source: 0, mark: 1 }, ipnet::IpNet::V4(net).into(), id, store, &|_| 0);
    }
    table
}

#[test]
fn many_prefixes_of_one_set_share_a_message() {
    let mut store = AttributeStore::new(1);
    let mut table = fill(10_000, &mut store);
    let mut neighbour = Neighbour::new(None, &mut table, &mut store);
    let mut bytes = BytesMut::new();
    let mut packer = Packer::new(&mut bytes, usize::MAX, &egress(false));
    neighbour.adj_out.pull(&mut packer, &mut table, &mut store);
    let messages = packer.messages();
    assert!(messages <= 10_000_u64.div_ceil(780) + 1, "{messages} messages for 10,000 prefixes");
}

#[test]
fn one_change_does_not_wait_behind_a_bulk() {
    let mut store = AttributeStore::new(1);
    let mut table = fill(10_000, &mut store);
    let mut neighbour = Neighbour::new(None, &mut table, &mut store);
    neighbour.pull(4096, &mut table, &mut store);
    let (next_hop, values) = attributes(3);
    let id = store.intern(next_hop, &values, &PeerScope::All);
    let destination =
        table.insert(Claim { source: 0, mark: 1 }, prefix(1).into(), id, &mut store, &|_| 0).unwrap();
    neighbour.adj_out.reconcile(destination, Urgency::Fresh, &table, &store);
    neighbour.pull(4096, &mut table, &mut store);
    let mut key = vec![32];
    key.extend_from_slice(&significant_octets(prefix(1)).0[..4]);
    assert!(neighbour.received.contains_key(&(key, 0)));
    assert!(neighbour.adj_out.pending() > 5_000, "the bulk is still under way");
}

#[test]
fn a_route_that_flaps_before_a_stalled_neighbour_takes_bounded_memory() {
    let mut store = AttributeStore::new(1);
    let mut table = fill(10, &mut store);
    let mut neighbour = Neighbour::new(None, &mut table, &mut store);
    for round in 0..100_000_u32 {
        let (next_hop, values) = attributes((round % 5) as u8);
        let id = store.intern(next_hop, &values, &PeerScope::All);
        if let Some(destination) =
            table.insert(Claim { source: 0, mark: 1 }, prefix(1).into(), id, &mut store, &|_| 0)
        {
            neighbour.adj_out.reconcile(destination, Urgency::Fresh, &table, &store);
        }
    }
    assert!(neighbour.adj_out.reserved_bytes() < 100_000, "{}", neighbour.adj_out.reserved_bytes());
    neighbour.drain(&mut table, &mut store);
    assert_eq!(neighbour.received.len(), 11);
}

#[test]
fn a_route_takes_at_most_100_octets_beside_its_attributes() {
    for count in [20_000, 50_000, 57_400, 100_000, 114_700] {
        let mut store = AttributeStore::new(1);
        let mut table = fill(count, &mut store);
        let mut neighbour = Neighbour::new(None, &mut table, &mut store);
        neighbour.drain(&mut table, &mut store);
        let octets = (table.reserved_bytes() + neighbour.adj_out.reserved_bytes()) / count as usize;
        assert!(octets <= 100, "{octets} octets per route of {count}");
    }
}

#[test]
fn nlri_of_one_message_are_read_back() {
    let mut bytes = BytesMut::new();
    let mut packer = Packer::new(&mut bytes, usize::MAX, &egress(true));
    let (next_hop, attributes) = attributes(5);
    packer.begin(Some(&AttributeSet { next_hop, attributes, scope: PeerScope::All }), &egress(true));
    assert!(packer.write([Nlri { path_id: 7, prefix: prefix(9) }].into_iter()));
    let mut received = Received::new();
    assert_eq!(read(&bytes, true, &mut received), 1);
    assert_eq!(received[&(vec![32, 192, 0, 2, 9], 7)], (Ipv4Addr::new(10, 0, 0, 2), 5));
}
