use super::*;

fn state() -> State {
    let about = About {
        mature: true,
        settled: false,
        restarting: true,
        links: vec![
            (MacAddr::new([2, 0, 0, 0, 0, 1]), Some("192.0.2.1".parse().unwrap())),
            (MacAddr::new([2, 0, 0, 0, 0, 2]), Some("fe80::1".parse().unwrap())),
            (MacAddr::new([2, 0, 0, 0, 0, 3]), None),
        ],
        kept: vec![
            (NodeId(3), vec![(MacAddr::new([2, 0, 0, 0, 0, 4]), None)]),
            (NodeId(4), vec![(MacAddr::new([2, 0, 0, 0, 0, 5]), Some("fe80::5".parse().unwrap()))]),
        ],
    };
    let item = |claim| Item { candidate: true, claim, ..Item::default() };
    State {
        epoch: 7,
        from: 1,
        to: 5,
        last: 9,
        reset: true,
        name: NodeName::new("node-1").unwrap(),
        about,
        items: vec![
            ("192.0.2.10".parse().unwrap(), item(Claim::None)),
            ("2001:db8::1".parse().unwrap(), item(Claim::Owner { sequence: 4 })),
            ("192.0.2.11".parse().unwrap(), item(Claim::HandingOver { sequence: 5, to: NodeId(8) })),
            ("192.0.2.12".parse().unwrap(), item(Claim::StandIn { sequence: 6, owner: NodeId(9) })),
            ("192.0.2.13".parse().unwrap(), Item { helper: true, ..Item::default() }),
            ("2001:db8::2".parse().unwrap(), Item { reach: 2, ..item(Claim::None) }),
        ],
    }
}

fn bodies() -> Vec<Body> {
    let mark = Mark { epoch: 3, version: 4 };
    vec![
        Body::Swim(vec![1, 2, 3]),
        Body::State(state()),
        Body::Ack(mark),
        Body::Sync { nonce: 1, have: mark },
        Body::Synced { nonce: 2, mark },
        Body::Stale(Number { life: 5, counter: 6 }),
        Body::Relay { target: NodeId(6), origin: NodeId(7), inner: Box::new(Body::State(state())) },
    ]
}

const ENVELOPE: Envelope =
    Envelope { sender: NodeId(42), receiver: NodeId(43), number: Number { life: 8, counter: 9 } };

#[test]
fn what_was_sealed_opens_with_the_same_key_only() {
    let keys = [None, GossipKey::new(b"one"), GossipKey::new(&[0x55; 32])];
    for body in bodies() {
        for (i, key) in keys.iter().enumerate() {
            let datagram = seal(key.as_ref(), ENVELOPE, &body);
            assert!(datagram.len() <= MAX_DATAGRAM);
            for (j, other) in keys.iter().enumerate() {
                let opened = open(other.as_ref(), NodeId(43), &datagram);
                let number = key.as_ref().map(|_| ENVELOPE.number);
                let expected = Opened { sender: NodeId(42), number, body: body.clone() };
                assert_eq!(opened, (i == j).then_some(expected), "{i} {j}");
            }
        }
    }
}

#[test]
fn no_changed_octet_is_taken() {
    let key = GossipKey::new(b"secret");
    for body in bodies() {
        let datagram = seal(key.as_ref(), ENVELOPE, &body);
        for i in 0..datagram.len() {
            let mut changed = datagram.clone();
            changed[i] ^= 1;
            assert_eq!(open(key.as_ref(), NodeId(43), &changed), None, "octet {i}");
            assert_eq!(open(key.as_ref(), NodeId(43), &datagram[..i]), None, "cut at {i}");
        }
    }
}

#[test]
fn the_length_of_an_item_is_what_is_announced() {
    let mut with = state();
    let items = std::mem::take(&mut with.items);
    let key = GossipKey::new(b"secret");
    let length = |state: &State| seal(key.as_ref(), ENVELOPE, &Body::State(state.clone())).len();
    let empty = length(&with);
    assert!(empty - HEADER - TAG <= state_overhead(&with.name, &with.about));
    for (address, item) in items {
        with.items = vec![(address, item)];
        assert_eq!(length(&with) - empty, item_length(address, item));
    }
}

#[test]
fn what_was_said_to_another_is_not_opened() {
    let key = GossipKey::new(b"secret");
    let datagram = seal(key.as_ref(), ENVELOPE, &Body::Ack(Mark::default()));
    assert!(open(key.as_ref(), NodeId(43), &datagram).is_some());
    assert_eq!(open(key.as_ref(), NodeId(44), &datagram), None);
}
