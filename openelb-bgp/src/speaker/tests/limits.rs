//! What a neighbour's routes may cost, whatever it sends.

use super::{
    challenge::{Scripted, bytes_of, graceful, restart_capability, their_open},
    operations::{last_notification, update},
    *,
};
use crate::{
    rib::received::MAX_PATHS,
    speaker::{Event, LimitAction, PrefixLimit, ReceivedRoutes},
    wire::{
        AddPathFamily, AddPathMode, AsPath, AttributeFlags, Attributes, Capability, Community,
        LargeCommunity, NlriList, Notification, Origin, UnknownAttribute,
    },
};

/// An attribute set of so many octets, another one for each number.
fn huge(number: u32, octets: usize) -> Attributes {
    let mut value = vec![0; octets];
    value[..4].copy_from_slice(&number.to_be_bytes());
    let flags = AttributeFlags::OPTIONAL.union(AttributeFlags::TRANSITIVE);
    Attributes {
        unknown: vec![UnknownAttribute { flags, code: 200, value: value.into() }],
        ..update(std::iter::empty()).attributes
    }
}

fn prefix(number: u32) -> Nlri {
    let address = Ipv4Addr::from_bits(0x0a00_0000 + number);
    Nlri { path_id: 0, prefix: IpNet::new(address.into(), 32).unwrap().into() }
}

/// One that takes messages of 65,535 octets.
fn extended(change: impl FnOnce(&mut PeerConfig)) -> (Scripted, ConnectionId) {
    let mut scripted = Scripted::new(|peer| {
        peer.received_routes = ReceivedRoutes::Keep;
        change(peer);
    });
    let mut open = their_open(None);
    open.capabilities.push(Capability::ExtendedMessage);
    let connection = scripted.establish(open);
    scripted.context.extended_messages = true;
    (scripted, connection)
}

fn octet_limits(scripted: &Scripted) -> Vec<bool> {
    let told = |event: &Event| match event {
        Event::OctetLimit { exceeded, .. } => Some(*exceeded),
        _ => None,
    };
    scripted.events.iter().filter_map(told).collect()
}

#[test]
fn a_neighbour_that_sends_huge_attributes_with_few_prefixes_is_out_of_resources() {
    const OCTETS: usize = 60_000;
    let (mut scripted, connection) = extended(|peer| {
        peer.prefix_limit.max_prefixes = 3_000;
        peer.prefix_limit.restart_after = Some(Duration::from_secs(300));
    });
    let limit = scripted.status().max_received_octets;
    assert_eq!(limit, (16 << 20) + 256 * 3_000);
    let mut most = 0;
    let mut sent = 0;
    while scripted.status().state == State::Established {
        most = most.max(scripted.status().received_octets);
        let attributes = huge(sent, OCTETS);
        scripted.send(connection, Update { attributes, ..update([prefix(sent)].into_iter()) });
        sent += 1;
        assert!(sent < 3_000, "it goes on below the limit of prefixes");
    }
    assert!(most <= limit && most > limit - 2 * OCTETS as u64, "{most} of {limit}");
    assert!(u64::from(sent) <= limit / OCTETS as u64 + 1, "{sent} sets");
    assert_eq!(octet_limits(&scripted), [false, true], "a warning first");
    assert_eq!(last_notification(&scripted), Some(Notification::out_of_resources()));
    let status = scripted.status();
    let reason = status.last_error.unwrap().reason;
    assert!(reason.contains("more memory than") && reason.contains("out of resources"), "{reason}");
    // All is given back, and it is heard again after the pause that prefixes have, too.
    assert_eq!((status.received_octets, scripted.speaker.table_stats().received_routes), (0, 0));
    assert_eq!(scripted.speaker.table_stats().received_attribute_sets, 0);
    scripted.advance(Duration::from_secs(299));
    assert!(matches!(scripted.try_connect(), Err(Refusal::Idle { .. })));
    scripted.advance(Duration::from_secs(2));
    scripted.context = SessionContext::default();
    scripted.establish(their_open(None));
}

#[test]
fn what_is_replaced_withdrawn_or_shared_is_charged_once_or_no_more() {
    let (mut scripted, connection) = extended(|peer| peer.prefix_limit.max_octets = Some(1_000_000));
    // Hundreds of sets for one prefix, one after the other.
    for number in 0..500 {
        let attributes = huge(number, 50_000);
        scripted.send(connection, Update { attributes, ..update([prefix(0)].into_iter()) });
    }
    let one = scripted.status().received_octets;
    assert!((50_000..52_000).contains(&one), "{one}");
    // Hundreds of prefixes with one set.
    scripted.send(connection, Update { attributes: huge(1, 50_000), ..update((0..500).map(prefix)) });
    let many = scripted.status().received_octets;
    assert!(many < 50_000 + 500 * 200, "{many}");
    let withdrawn = NlriList::new(Family::IPV4_UNICAST, false, (0..500).map(prefix)).unwrap();
    scripted.send(connection, Update { withdrawn, ..Update::empty() });
    assert_eq!((scripted.status().received_octets, scripted.status().state), (0, State::Established));
    assert!(octet_limits(&scripted).is_empty());
}

#[test]
fn a_limit_that_only_warns_of_prefixes_ends_the_session_for_memory() {
    for (received_routes, least, most) in [(ReceivedRoutes::Keep, 128, 500), (ReceivedRoutes::Count, 12, 13)]
    {
        let mut scripted = Scripted::new(|peer| {
            peer.received_routes = received_routes;
            peer.prefix_limit = PrefixLimit {
                max_prefixes: 10,
                max_octets: Some(1_000_000),
                action: LimitAction::Warn,
                ..PrefixLimit::default()
            };
        });
        let connection = scripted.establish(their_open(None));
        let mut sent = 0;
        while scripted.status().state == State::Established {
            scripted.send(connection, update((sent..sent + 500).map(prefix)));
            sent += 500;
            assert!(sent < 1_000_000, "there is no end");
        }
        assert!((1_000_000 / most..=1_000_000 / least + 500).contains(&sent), "{sent} {received_routes:?}");
        assert_eq!(last_notification(&scripted), Some(Notification::out_of_resources()));
        assert_eq!(scripted.status().received_octets, 0);
    }
    // By default there is room for what the operator only wants to be told of.
    let warn = PrefixLimit { max_prefixes: 10, action: LimitAction::Warn, ..PrefixLimit::default() };
    assert_eq!(warn.octets(), PrefixLimit::default().octets());
    let all = PrefixLimit { max_prefixes: u32::MAX, ..PrefixLimit::default() };
    assert_eq!(all.octets(), 4 << 30, "and an end whatever is allowed");
}

/// RFC 8538 §3: where NOTIFICATIONs keep routes this one must not, or nothing would be won.
#[test]
fn out_of_resources_is_a_hard_reset_and_keeps_nothing() {
    let mut scripted = Scripted::new(|peer| {
        graceful(peer);
        peer.graceful_restart.as_mut().unwrap().notification = true;
        peer.received_routes = ReceivedRoutes::Keep;
        peer.prefix_limit.max_octets = Some(10_000);
    });
    let connection = scripted.establish(their_open(Some(restart_capability(true, true))));
    scripted.send(connection, update((0..400).map(prefix)));
    let hard = Notification::hard_reset(&Notification::out_of_resources());
    assert_eq!(last_notification(&scripted), Some(hard));
    assert_eq!(scripted.speaker.table_stats().received_routes, 0);
}

#[test]
fn a_lower_limit_of_octets_holds_at_once() {
    let mut scripted = Scripted::new(|peer| peer.received_routes = ReceivedRoutes::Keep);
    let connection = scripted.establish(their_open(None));
    scripted.send(connection, update((0..400).map(prefix)));
    let mut config = (*scripted.speaker.peers.values().next().unwrap().config).clone();
    config.prefix_limit.max_octets = Some(10_000);
    scripted.speaker.set_peers(vec![config], scripted.now).unwrap();
    scripted.settle();
    assert_eq!(last_notification(&scripted), Some(Notification::out_of_resources()));
}

/// A tenth of a full table of the Internet: its sets are more, and bigger, than those that are usual.
#[test]
fn a_full_table_of_the_internet_is_far_from_the_default_limit() {
    const ROUTES: u32 = 100_000;
    let mut scripted = Scripted::new(|peer| peer.received_routes = ReceivedRoutes::Keep);
    let connection = scripted.establish(their_open(None));
    for set in 0..ROUTES / 4 {
        let path = [ASNS[1], 64_600 + set % 50, 200_000 + set, 300_000 + set, 400_000 + set];
        let attributes = Attributes {
            origin: Some(Origin::Igp),
            as_path: Some(AsPath::sequence(path)),
            next_hop: Some(ADDRESSES[1]),
            communities: (0..8).map(|value| Community(set ^ value)).collect(),
            large_communities: vec![LargeCommunity::new(set, 1, 2); 2],
            ..Attributes::default()
        };
        let nlri = (4 * set..4 * set + 4).map(prefix);
        let bytes = bytes_of(Update { attributes, ..update(nlri) }, &scripted.context);
        scripted.speaker.handle_bytes(connection, &bytes, scripted.now);
        while scripted.speaker.poll_output(scripted.now).is_some() {}
    }
    let status = scripted.status();
    assert_eq!(status.session.unwrap().families[0].received, u64::from(ROUTES));
    // A million of IPv4, and a quarter of that of IPv6.
    let all = status.received_octets * 10 * 5 / 4;
    assert!(all < status.max_received_octets * 4 / 5, "{all} of {}", status.max_received_octets);
}

#[test]
fn paths_that_are_not_kept_are_counted_told_of_once_and_hidden_from_who_watches() {
    let family = Family::IPV4_UNICAST;
    let mut scripted = Scripted::new(|peer| {
        peer.received_routes = ReceivedRoutes::Keep;
        peer.families = vec![FamilyConfig { add_path_receive: true, ..FamilyConfig::new(family) }];
    });
    scripted.speaker.watch_received(true);
    scripted.speaker.watch_best_paths(true, scripted.now);
    let mut open = their_open(None);
    open.capabilities.push(Capability::AddPath(vec![AddPathFamily { family, mode: AddPathMode::Send }]));
    let connection = scripted.establish(open);
    scripted.context.add_path_receive = vec![family];
    let path = |number: u32, path_id: u32| Nlri { path_id, ..prefix(number) };
    let send = |scripted: &mut Scripted, nlri: Vec<Nlri>, announced: bool| {
        scripted.events.clear();
        let list = NlriList::new(family, true, nlri).unwrap();
        let all = if announced {
            Update { announced: list, ..update(std::iter::empty()) }
        } else {
            Update { withdrawn: list, ..Update::empty() }
        };
        scripted.send(connection, all);
        let received = |event: &Event| match event {
            Event::Received { path_id, route, .. } => Some((*path_id, route.is_some())),
            _ => None,
        };
        scripted.events.iter().filter_map(received).collect::<Vec<_>>()
    };
    let most = u32::try_from(MAX_PATHS).unwrap();
    let told = send(&mut scripted, (1..=most + 10).map(|id| path(1, id)).collect(), true);
    assert!(told.into_iter().eq((1..=most).map(|id| (id, true))), "of those that are kept");
    assert_eq!(scripted.status().counters.unkept_paths, 10);
    let warned = |scripted: &Scripted| {
        let kept = |event: &&Event| matches!(event, Event::PathsNotKept { kept: MAX_PATHS, .. });
        scripted.events.iter().filter(kept).count()
    };
    assert_eq!(warned(&scripted), 1);
    // Again, and of another prefix: counted, and not told again.
    send(&mut scripted, (1..=most + 1).map(|id| path(2, id)).collect(), true);
    assert_eq!((scripted.status().counters.unkept_paths, warned(&scripted)), (11, 0));
    // One that was not kept is not withdrawn either; one that was is, and makes room.
    assert_eq!(send(&mut scripted, vec![path(1, most + 1)], false), []);
    assert_eq!(send(&mut scripted, vec![path(1, 7)], false), [(7, false)]);
    assert_eq!(send(&mut scripted, vec![path(1, most + 1)], true), [(most + 1, true)]);
    assert_eq!(scripted.speaker.adj_in(&"other".into(), family).unwrap().len(), 2 * MAX_PATHS);
    // A new session is told of anew.
    scripted.speaker.handle_closed(connection, scripted.now);
    scripted.settle();
    scripted.advance(Duration::from_secs(2));
    scripted.context = SessionContext::default();
    let mut open = their_open(None);
    open.capabilities.push(Capability::AddPath(vec![AddPathFamily { family, mode: AddPathMode::Send }]));
    let connection = scripted.establish(open);
    scripted.context.add_path_receive = vec![family];
    scripted.events.clear();
    let list = NlriList::new(family, true, (0..=most).map(|id| path(1, id))).unwrap();
    scripted.send(connection, Update { announced: list, ..update(std::iter::empty()) });
    assert_eq!(warned(&scripted), 1);
}

fn set_limit(speaker: &mut Speaker, change: impl FnOnce(&mut PrefixLimit), now: Instant) {
    let mut config = (*speaker.peers.values().next().unwrap().config).clone();
    change(&mut config.prefix_limit);
    speaker.set_peers(vec![config], now).unwrap();
}

#[test]
fn a_higher_limit_ends_the_pause_after_a_lower_one_was_exceeded() {
    type Change = fn(&mut PrefixLimit);
    let hour = Some(Duration::from_secs(3600));
    let table: [(&str, Change, bool); 7] = [
        ("more prefixes", |limit| limit.max_prefixes = 4, true),
        ("no limit", |limit| *limit = PrefixLimit::default(), true),
        ("only a warning", |limit| limit.action = LimitAction::Warn, true),
        ("more memory", |limit| limit.max_octets = Some(1 << 40), true),
        ("fewer prefixes", |limit| limit.max_prefixes = 1, false),
        ("an earlier warning", |limit| limit.warning_percent = 50, false),
        ("another pause", |limit| limit.restart_after = None, false),
    ];
    for (name, change, ends) in table {
        let mut scripted = Scripted::new(|peer| {
            (peer.prefix_limit.max_prefixes, peer.prefix_limit.restart_after) = (2, hour);
        });
        let connection = scripted.establish(their_open(None));
        scripted.send(connection, update((0..3).map(prefix)));
        scripted.advance(Duration::from_secs(600));
        assert!(matches!(scripted.try_connect(), Err(Refusal::Idle { .. })), "{name}");
        set_limit(&mut scripted.speaker, change, scripted.now);
        scripted.settle();
        assert_eq!(scripted.status().state, if ends { State::Active } else { State::Idle }, "{name}");
        if ends {
            scripted.establish(their_open(None));
        }
    }
    // Also where it is up to us to connect.
    let mut pair = Pair::with(|peer| {
        (peer.prefix_limit.max_prefixes, peer.prefix_limit.restart_after) = (2, hour);
    });
    pair.establish();
    pair.speakers[1].set_routes("test", (1..=3).map(|last| route(&format!("203.0.113.{last}/32"))), pair.now);
    pair.advance(Duration::from_secs(60));
    assert_eq!(pair.status(0).state, State::Idle);
    set_limit(&mut pair.speakers[0], |limit| limit.max_prefixes = 3, pair.now);
    pair.establish();
}

#[test]
fn a_pause_without_end_lasts_until_the_limit_is_raised() {
    let mut scripted = Scripted::new(|peer| {
        (peer.prefix_limit.max_prefixes, peer.prefix_limit.restart_after) = (2, Some(Duration::MAX));
    });
    let connection = scripted.establish(their_open(None));
    scripted.send(connection, update((0..3).map(prefix)));
    scripted.advance(Duration::from_secs(50 * 365 * 86_400));
    assert!(matches!(scripted.try_connect(), Err(Refusal::Idle { .. })));
    set_limit(&mut scripted.speaker, |limit| limit.max_prefixes = 3, scripted.now);
    scripted.settle();
    scripted.establish(their_open(None));
}

#[test]
fn a_higher_limit_leaves_the_pause_after_another_error_alone() {
    let mut scripted = Scripted::new(|peer| {
        peer.connect_retry = Duration::from_secs(40);
        peer.prefix_limit.max_prefixes = 2;
    });
    let connection = scripted.establish(their_open(None));
    scripted.send(connection, update((0..3).map(prefix)));
    scripted.advance(Duration::from_secs(40));
    let connection = scripted.connect();
    scripted.send_raw(connection, b"GET / HTTP/1.1\r\n\r\n");
    set_limit(&mut scripted.speaker, |limit| limit.max_prefixes = 3, scripted.now);
    scripted.settle();
    assert!(matches!(scripted.try_connect(), Err(Refusal::Idle { .. })));
}
