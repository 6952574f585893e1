use super::*;
use crate::ownership::message::Claim;
use proptest::prelude::*;

fn address(n: u32) -> IpAddr {
    std::net::Ipv4Addr::from(n).into()
}

fn replica(reader: NodeId) -> Replica {
    let mut replica = Replica::new(NodeName::new("a").unwrap(), 5);
    replica.set_readers(&BTreeMap::from([(reader, "192.0.2.1:7947".parse().unwrap())]));
    replica
}

/// A reader that takes every other piece.
#[test]
fn a_lossy_reader_has_everything_in_the_end() {
    let node = NodeId(1);
    let mut replica = replica(node);
    let mut now = Instant::now();
    let mut copy: BTreeMap<IpAddr, Item> = BTreeMap::new();
    let (mut has, mut pieces) = (0, 0);
    for n in 0..3000 {
        replica.set_item(address(n), Item { candidate: true, ..Item::default() });
    }
    for n in 0..1000 {
        replica.set_item(address(n), Item::default());
        let claim = Claim::Owner { sequence: n };
        replica.set_item(address(n + 1000), Item { candidate: true, proven: true, claim, ..Item::default() });
    }
    while !replica.is_told() {
        while let Some(Piece { state: piece, .. }) = replica.poll_piece(now) {
            pieces += 1;
            if pieces % 2 == 0 && piece.from <= has {
                copy.extend(piece.items);
                has = piece.to;
                replica.acknowledge(node, Mark { epoch: 5, version: has }, now);
            }
        }
        now = replica.poll_timeout().unwrap_or(now).max(now + Duration::from_millis(1));
        assert!(pieces < 1000);
    }
    for n in 0..3000 {
        assert_eq!(copy[&address(n)], replica.item(address(n)), "{n}");
    }
    assert!(replica.poll_piece(now).is_none());
}

#[test]
fn a_reader_that_knows_a_later_life_is_told_everything_again() {
    let (node, now) = (NodeId(1), Instant::now());
    let mut replica = replica(node);
    replica.acknowledge(node, Mark { epoch: 5, version: 1 }, now);
    assert!(replica.is_told());
    replica.acknowledge(node, Mark { epoch: 9, version: 100 }, now);
    assert!(!replica.is_told());
    let piece = replica.poll_piece(now).unwrap().state;
    assert_eq!((piece.epoch, piece.from, piece.reset), (message::life_after(9), 0, true));
}

#[test]
fn a_reader_that_has_more_than_was_ever_said_knows_another_life() {
    let (node, now) = (NodeId(1), Instant::now());
    let mut replica = replica(node);
    replica.acknowledge(node, Mark { epoch: 5, version: 100 }, now);
    assert!(!replica.is_told());
    let piece = replica.poll_piece(now).unwrap().state;
    assert!(piece.epoch > 5 && piece.from == 0 && piece.reset);
}

#[test]
fn forgotten_removals_lead_to_a_reset() {
    let (node, now) = (NodeId(1), Instant::now());
    let mut replica = replica(node);
    replica.set_item(address(0), Item { candidate: true, ..Item::default() });
    replica.acknowledge(node, replica.mark(), now);
    let had = replica.mark();
    for n in 0..5000 {
        replica.set_item(address(n), Item { proven: true, ..Item::default() });
        replica.set_item(address(n), Item::default());
    }
    replica.acknowledge(node, had, now);
    let piece = replica.poll_piece(now).unwrap().state;
    assert!(piece.reset && piece.from == 0);
    assert!(replica.changes.len() <= TOMBSTONES);
}

/// More is there than fits one piece, and more was removed than is remembered.
#[test]
fn a_new_reader_has_everything_also_after_many_removals() {
    let node = NodeId(1);
    let mut replica = replica(node);
    let there = |n: u32| Item { candidate: true, claim: Claim::Owner { sequence: n }, ..Item::default() };
    for n in 0..5000 + 500 {
        replica.set_item(address(n), there(n));
    }
    for n in 0..5000 {
        replica.set_item(address(n), Item::default());
    }
    let (mut now, mut has, mut pieces) = (Instant::now(), 0, 0);
    let mut copy: BTreeMap<IpAddr, Item> = BTreeMap::from([(address(0), there(0))]);
    while !replica.is_told() {
        let Some(Piece { state: piece, .. }) = replica.poll_piece(now) else {
            now = replica.poll_timeout().unwrap();
            continue;
        };
        if piece.reset && has == 0 {
            copy.clear();
        }
        if piece.from <= has && piece.to > has {
            copy.extend(piece.items);
            has = piece.to;
        }
        replica.acknowledge(node, Mark { epoch: 5, version: has }, now);
        pieces += 1;
        assert!(pieces < 200, "{has} of {:?} after {pieces} pieces", replica.mark());
    }
    copy.retain(|_, item| *item != Item::default());
    assert_eq!(copy, (5000..5500).map(|n| (address(n), there(n))).collect());
}

/// Answers of an earlier life that come late, one for each copy of what was said then.
#[test]
fn a_reader_is_told_anew_once_in_a_while() {
    let (node, now) = (NodeId(1), Instant::now());
    let mut replica = replica(node);
    let old = replica.mark();
    replica.begin(6);
    replica.set_item(address(1), Item { candidate: true, ..Item::default() });
    let mut pieces = 0;
    for _ in 0..100 {
        pieces += usize::from(replica.poll_piece(now).is_some());
        replica.acknowledge(node, replica.mark(), now);
        replica.acknowledge(node, old, now);
    }
    // Once since it knew nothing, and once since it was believed to have lost it.
    assert_eq!(pieces, 2);
    assert!(!replica.is_told(), "it may be true");
    // Another process of it, and then a late answer of the one before.
    replica.acknowledge(node, Mark::default(), now);
    replica.acknowledge(node, Mark { version: 1, ..replica.mark() }, now);
    let later = replica.poll_timeout().unwrap();
    assert_eq!(later, now + DOUBT);
    assert_eq!(replica.poll_piece(later).unwrap().state.from, 0);
    replica.acknowledge(node, replica.mark(), later);
    assert!(replica.is_told() && replica.poll_timeout().is_none());
}

/// One that takes state in as a speaker does.
#[derive(Default)]
struct Listener {
    have: Mark,
    items: BTreeMap<IpAddr, Item>,
}

impl Listener {
    fn take(&mut self, state: State) {
        let reborn = state.epoch > self.have.epoch;
        let news = state.epoch == self.have.epoch && state.to > self.have.version;
        if !(reborn && state.from == 0 || news && state.from <= self.have.version) {
            return;
        }
        self.have = Mark { epoch: state.epoch, version: state.to };
        if reborn || state.reset {
            self.items.clear();
        }
        self.items.extend(state.items);
        self.items.retain(|_, item| *item != Item::default());
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// So many addresses from here on are claimed, or given up.
    Claim(u32, u32),
    Drop(u32, u32),
    /// So many pieces reach their readers.
    Deliver(u32),
    /// Pieces that are lost.
    Lose(u32),
    /// Answers that are lost, or come later than others.
    Silence(u32),
    Old(usize),
    /// A piece comes once more, and late.
    Late(usize),
    /// What is said of the node itself changes.
    About,
    /// A reader has forgotten everything.
    Forget(u64),
    /// This node begins a new life.
    Begin,
    /// Once: its process comes back with a clock that went back, and has nothing. No two lives have the same number.
    Reborn,
}

const READERS: u64 = 2;
/// More than two datagrams hold.
const ADDRESSES: u32 = 400;

fn step() -> impl Strategy<Value = Step> {
    let range = || (0..ADDRESSES, 1..200_u32);
    prop_oneof![
        6 => range().prop_map(|(from, count)| Step::Claim(from, count)),
        4 => range().prop_map(|(from, count)| Step::Drop(from, count)),
        6 => (1..8_u32).prop_map(Step::Deliver),
        3 => (1..4_u32).prop_map(Step::Lose),
        2 => (1..3_u32).prop_map(Step::Silence),
        2 => (0..8_usize).prop_map(Step::Old),
        3 => (0..8_usize).prop_map(Step::Late),
        1 => Just(Step::About),
        2 => (0..READERS).prop_map(Step::Forget),
        1 => Just(Step::Begin),
        1 => Just(Step::Reborn),
    ]
}

struct Both {
    replica: Replica,
    readers: BTreeMap<NodeId, Listener>,
    now: Instant,
    sequence: u32,
    /// Every piece that was sent.
    sent: Vec<(NodeId, State)>,
    /// Every answer that was given.
    answers: Vec<(NodeId, Mark)>,
    reborn: bool,
}

impl Both {
    fn new() -> Self {
        let replica = Self::replica(1000);
        let readers = (0..READERS).map(|n| (NodeId(n), Listener::default())).collect();
        Self {
            replica,
            readers,
            now: Instant::now(),
            sequence: 0,
            sent: Vec::new(),
            answers: Vec::new(),
            reborn: false,
        }
    }

    fn replica(life: u64) -> Replica {
        let mut replica = Replica { tombstones: 50, ..Replica::new(NodeName::new("a").unwrap(), life) };
        let readers = (0..READERS).map(|n| (NodeId(n), "192.0.2.1:7947".parse().unwrap()));
        replica.set_readers(&readers.collect());
        replica
    }

    fn poll(&mut self) -> Option<Piece> {
        let piece = self.replica.poll_piece(self.now).or_else(|| {
            self.now = self.replica.poll_timeout()?.max(self.now);
            self.replica.poll_piece(self.now)
        });
        piece.inspect(|Piece { node, state, .. }| {
            assert!(state.from <= state.to && state.to <= state.last);
            self.sent.push((*node, state.clone()));
        })
    }

    fn pass(&mut self, answered: bool) {
        let Some(piece) = self.poll() else { return };
        self.hear(piece.node, piece.state, answered);
    }

    fn hear(&mut self, node: NodeId, state: State, answered: bool) {
        let reader = self.readers.entry(node).or_default();
        reader.take(state);
        self.answers.push((node, reader.have));
        if answered {
            self.replica.acknowledge(node, reader.have, self.now);
        }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Claim(from, count) => {
                for n in from..(from + count).min(ADDRESSES) {
                    self.sequence += 1;
                    let claim = Claim::Owner { sequence: self.sequence };
                    self.replica.set_item(address(n), Item { candidate: true, claim, ..Item::default() });
                }
            }
            Step::Drop(from, count) => {
                for n in from..(from + count).min(ADDRESSES) {
                    self.replica.set_item(address(n), Item::default());
                }
            }
            Step::Deliver(count) => (0..count).for_each(|_| self.pass(true)),
            Step::Silence(count) => (0..count).for_each(|_| self.pass(false)),
            Step::Lose(count) => (0..count).for_each(|_| drop(self.poll())),
            Step::Old(back) => {
                if let Some((node, mark)) = self.answers.iter().rev().nth(back).copied() {
                    self.replica.acknowledge(node, mark, self.now);
                }
            }
            Step::Forget(reader) => {
                self.readers.insert(NodeId(reader), Listener::default());
                self.replica.acknowledge(NodeId(reader), Mark::default(), self.now);
            }
            Step::Begin => self.replica.begin(self.replica.mark().epoch + 1),
            Step::Reborn if self.reborn => {}
            Step::Reborn => (self.replica, self.reborn) = (Self::replica(4), true),
            Step::About => {
                let about = self.replica.about().clone();
                self.replica.set_about(About { settled: !about.settled, ..about });
            }
            Step::Late(back) => {
                if let Some((node, state)) = self.sent.iter().rev().nth(back).cloned() {
                    self.hear(node, state, true);
                }
            }
        }
    }

    /// Everything arrives from here on; a reader that has not all goes on saying what it has.
    fn check(mut self) {
        for (node, reader) in &self.readers {
            self.replica.acknowledge(*node, reader.have, self.now);
        }
        let mut pieces = 0;
        while !self.replica.is_told() {
            self.pass(true);
            pieces += 1;
            assert!(pieces < 100, "{:?} after {pieces} pieces", self.replica.mark());
        }
        let there: BTreeMap<_, _> = (0..ADDRESSES)
            .map(|n| (address(n), self.replica.item(address(n))))
            .filter(|(_, item)| *item != Item::default())
            .collect();
        for reader in self.readers.values() {
            assert_eq!(reader.items, there);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Losses, readers that restart and new lives, with more addresses than a datagram holds and more removals than are
    /// remembered.
    #[test]
    fn whoever_listens_has_everything_in_the_end(steps in prop::collection::vec(step(), 1..60)) {
        let mut both = Both::new();
        steps.iter().for_each(|step| both.apply(step));
        both.check();
    }
}
